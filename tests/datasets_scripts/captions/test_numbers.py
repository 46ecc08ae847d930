import csv
import json
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from count_clip.datasets_scripts.captions.numbers import (
    NUMBER_TO_WORD,
    NUMBER_WORDS,
    CountMatch,
    counterfactuals,
    counting_captions,
    counts_objects,
    find_count,
    read_count,
    replace_count,
)


# Captions of CountBench whose first number is not the one that its authors counted. Each has two numbers.
COUNTBENCH_EXCEPTIONS = {
    21: (3, "three extension leaves come before six chairs"),
    73: (2, "two cucumbers and three tomatoes"),
    470: (4, "four people, of whom one woman and three men"),
    504: (2, "two sofas come before three chairs"),
}

STYLES = (str.lower, str.capitalize, str.upper)
numbers = st.sampled_from(sorted(NUMBER_TO_WORD))
# No letters and no hyphens: the word that is put between stays a whole word, and the only one.
filling = st.text(alphabet=" .,;:!?'\"()&%/+\n\u2014", max_size=12)


@pytest.mark.parametrize(
    ("caption", "number", "word"),
    [
        ("two red apples", 2, "two"),
        ("a photo of Ten dogs", 10, "Ten"),
        ("SEVEN WONDERS", 7, "SEVEN"),
        ("(three) cats", 3, "three"),
        ("the cats, five.", 5, "five"),
        ("four", 4, "four"),
        ("nine\ncats", 9, "nine"),
        ("of cats\u2014six of them", 6, "six"),
        ("eight's a crowd", 8, "eight"),
        ("one of the two dogs", 2, "two"),
        ("TWO-pack of mugs", 2, "TWO"),
        ("这里有two只猫", 2, "two"),
        ("كلبان (two)", 2, "two"),
        ("ו-3, וtwo כלבים", 2, "two"),
        ("ภาพสุนัขthreeตัว", 3, "three"),
    ],
)
def test_find_count_finds_whole_words_in_any_case(caption: str, number: int, word: str) -> None:
    match = find_count(caption)
    assert match is not None
    assert (match.number, match.word) == (number, word)
    assert caption[match.start : match.end] == word


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a dog",
        "one dog",
        "eleven dogs",
        "twelve dogs and 3 cats",
        "someone at the network of tension",
        "an often heard phone",
        "sixteen sixty sevens",
        "twenty-two dogs",
        "thirty-Five dogs",
        "twenty\u2010two dogs",
        "twenty\u2011two dogs",
        "two-piece suit",
        "a nine-month-old baby",
        "ten2 2ten two_dogs _two",
        "weight",
        "Zehn Hunde, dix chiens",
        "twoй и вtwo, éten",
        "two-packed",
    ],
)
def test_find_count_takes_no_part_of_another_word_and_no_hyphenated_one(caption: str) -> None:
    assert find_count(caption) is None


def test_the_number_that_counts_can_be_given() -> None:
    caption = "two views of Three dogs and three cats"
    assert find_count(caption, stated=3) == CountMatch(number=3, word="Three", start=13, end=18)
    assert find_count(caption, stated=4) is None
    assert find_count("twenty-three or thirty-two", stated=3) is None
    assert replace_count(caption, 5, stated=3) == "two views of Five dogs and three cats"
    assert counting_captions(caption, stated=3)[1] == caption
    assert counting_captions(caption, stated=3)[0] == "two views of Two dogs and three cats"
    wrong = counterfactuals(caption, k=8, stated=3)
    assert len(set(wrong)) == 8
    assert all(text.startswith("two views of ") and "Three" not in text for text in wrong)
    with pytest.raises(ValueError, match="states 4, but .*'two'"):
        counterfactuals(caption, stated=4)


def test_find_count_takes_the_first_of_two_numbers() -> None:
    assert find_count("three cats and two dogs") == CountMatch(number=3, word="three", start=0, end=5)
    assert find_count("twenty-one cats and two dogs") == CountMatch(number=2, word="two", start=20, end=23)


def test_find_count_rejects_what_is_not_text() -> None:
    with pytest.raises(TypeError, match=r"Expected a caption as a string, but got None \(NoneType\)"):
        find_count(None)


@pytest.mark.parametrize(
    ("caption", "replaced"),
    [("Ten dogs", "Two dogs"), ("TEN DOGS", "TWO DOGS"), ("a pair: ten dogs, ten cats", "a pair: two dogs, ten cats")],
)
def test_replace_keeps_the_case_and_everything_else(caption: str, replaced: str) -> None:
    assert replace_count(caption, 2) == replaced


@given(before=filling, after=filling, number=numbers, other=numbers, style=st.sampled_from(STYLES))
def test_replacing_there_and_back_is_the_identity(before: str, after: str, number: int, other: int, style) -> None:
    caption = f"{before}{style(NUMBER_TO_WORD[number])}{after}"
    replaced = replace_count(caption, other)
    assert find_count(replaced).number == other
    assert replace_count(replaced, number) == caption


@given(caption=st.text(alphabet=string.ascii_letters + " -" + "".join(NUMBER_WORDS), max_size=40), number=numbers)
def test_whatever_is_found_can_be_replaced(caption: str, number: int) -> None:
    match = find_count(caption)
    if match is None:
        with pytest.raises(ValueError, match="states a number from two to ten"):
            replace_count(caption, number)
    else:
        assert find_count(replace_count(caption, number)).number == number
        assert replace_count(caption, match.number) == caption


@pytest.mark.parametrize("number", [0, 1, 11, -2, "three", None])
def test_replace_rejects_numbers_without_a_word(number) -> None:
    with pytest.raises(ValueError, match="Expected a number from 2 to 10, but got"):
        replace_count("two dogs", number)


def test_counting_captions_are_nine_and_hold_the_caption_itself() -> None:
    caption = "A photo of Four dogs, two of them brown"
    captions = counting_captions(caption)
    assert [find_count(candidate).number for candidate in captions] == list(range(2, 11))
    assert captions[find_count(caption).number - 2] == caption
    assert captions[0] == "A photo of Two dogs, two of them brown"
    with pytest.raises(ValueError, match="states a number"):
        counting_captions("some dogs")


@given(number=numbers, k=st.integers(1, 8), seed=st.integers(0, 2**40))
def test_counterfactuals_are_different_and_never_true(number: int, k: int, seed: int) -> None:
    caption = f"a photo of {NUMBER_TO_WORD[number]} dogs"
    wrong = counterfactuals(caption, k=k, seed=seed)
    stated = [find_count(candidate).number for candidate in wrong]
    assert len(set(stated)) == k
    assert number not in stated
    assert all(replace_count(candidate, number) == caption for candidate in wrong)
    assert wrong == counterfactuals(caption, k=k, seed=seed)


def test_counterfactuals_take_every_wrong_number_about_equally_often() -> None:
    drawn = [find_count(counterfactuals("five dogs", seed=seed)[0]).number for seed in range(1600)]
    counts = {number: drawn.count(number) for number in set(drawn)}
    assert sorted(counts) == [2, 3, 4, 6, 7, 8, 9, 10]
    # 200 each; five standard deviations of a binomial count are 66.
    assert all(134 < count < 266 for count in counts.values())


def test_counterfactuals_are_the_same_in_every_process() -> None:
    code = (
        "from count_clip.datasets_scripts.captions.numbers import counterfactuals\n"
        "print(counterfactuals('ten dogs', k=8, seed=5), end='')"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == str(counterfactuals("ten dogs", k=8, seed=5))


def test_counterfactuals_reject_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"Expected a caption that states a number .* but got 'some dogs'"):
        counterfactuals("some dogs")
    for k in (0, 9, -1):
        with pytest.raises(ValueError, match=f"Expected k to be in 1-8, .* but got {k}"):
            counterfactuals("two dogs", k=k)
    with pytest.raises(ValueError, match="Expected a seed of 0 or more, but got -1"):
        counterfactuals("two dogs", seed=-1)


def test_countbench_captions_state_the_numbers_that_were_counted(shared: Path) -> None:
    rows = json.loads((shared / "data" / "countbench" / "CountBench.json").read_text(encoding="utf-8"))
    assert len(rows) == 540
    found = [find_count(row["text"]) for row in rows]
    assert all(match is not None for match in found)
    others = {place: match.number for place, match in enumerate(found) if match.number != rows[place]["number"]}
    assert others == {place: number for place, (number, _) in COUNTBENCH_EXCEPTIONS.items()}


def test_geckonum_prompts_state_the_numbers_of_their_objects(shared: Path) -> None:
    path = shared / "data" / "captions" / "geckonum_prompts.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    compared = 0
    for row in rows:
        # The first object that is named with a number of two or more: "crib:1, okra:3".
        counts = [entity.rpartition(":")[2].strip() for entity in row["entities"].split(",")]
        if row["prompt_type"].startswith(("fractional", "approx")) or not all(count.isdigit() for count in counts):
            continue  # thirds, halves and "more than": no number of objects
        prompt = re.sub(r"\b(?:[2-9]|10)\b", lambda digits: NUMBER_TO_WORD[int(digits[0])], row["prompt"])
        stated = [int(count) for count in counts if int(count) > 1]
        if row["prompt_type"] == "part-whole":
            stated = [*stated, 2]  # "... but one fork is broken into two pieces"
        match = find_count(prompt)
        assert (match.number if match else None) == (stated[0] if stated else None), row["prompt"]
        compared += 1
    assert compared > 1200


@pytest.mark.parametrize(
    "caption",
    [
        "Three dogs on a lawn",
        "a photo of seven red apples",
        "Two beautiful young women walking in the city",
        "two tennis players shaking hands",
        "two girl with a suitcase",
        "Portrait of two girls",
        "set of two mugs, orange",
        "dining chairs, set of four",
        "four of the five members of the band",
        "two of Kennedy's children",
        "two large, tusked elephants",
        "two black and white cats",
        "three parking meters in a street",
        "Goldfish. Two jars of peppers",
    ],
)
def test_counts_objects_accepts_visible_plural_nouns(caption: str) -> None:
    assert counts_objects(caption)


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("two years ago", "time"),
        ("a ten year old boy", "not_plural"),
        ("at ten o'clock", "time"),
        ("dinner for two", "no_noun"),
        ("a happy family of four", "no_noun"),
        ("a three piece suit", "not_plural"),
        ("Two Bedroom House Plans", "not_plural"),
        ("Stranded, Book Two", "ordinal"),
        ("competition moves to BBC Two", "ordinal"),
        ("ten best ways to cook rice", "abstract"),
        ("Top ten knives", "title"),
        ("two hundred people", "number"),
        ("seventy seven trees", "number"),
        ("two dozen red roses", "number"),
        ("one or two dogs", "vague"),
        ("two or more dogs", "vague"),
        ("two meters of snow", "measure"),
        ("all three of the goals", "measure"),
        ("two rows of cars", "group"),
        ("Mines in four regions", "place"),
        ("a fairway on Two Eagles Golf Course", "name"),
        ("in the Three Rivers Region of the peninsula", "place"),
        ("A Tale of Two Sisters", "title"),
        ("Ten of Pentacles tarot card", "no_noun"),
        ("two", "no_noun"),
    ],
)
def test_read_count_gives_the_reason_why_a_number_counts_nothing_visible(caption: str, reason: str) -> None:
    assert not counts_objects(caption)
    assert read_count(caption).reason == reason


def test_read_count_names_what_is_counted() -> None:
    reading = read_count("A photo of Two young tennis players")
    assert (reading.noun, reading.head) == ("young tennis players", "players")
    assert read_count("some dogs") is None
    assert not counts_objects("some dogs")


@given(before=st.text(max_size=30), number=numbers, after=st.text(max_size=60))
def test_read_count_reads_any_text(before: str, number: int, after: str) -> None:
    caption = f"{before} {NUMBER_TO_WORD[number]} {after}"
    reading = read_count(caption)
    assert reading.counts == counts_objects(caption)
    assert not reading.counts or reading.head


@given(before=filling, number=numbers, other=numbers, style=st.sampled_from(STYLES))
def test_the_number_itself_does_not_decide_whether_it_counts(before: str, number: int, other: int, style) -> None:
    caption = f"{before}{style(NUMBER_TO_WORD[number])} dogs on a lawn"
    assert counts_objects(caption) == counts_objects(replace_count(caption, other))


def test_labelled_captions_are_judged_as_well_as_their_readme_states() -> None:
    path = Path(__file__).parents[1] / "counting_labels" / "labels.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert len({(row["source"], row["line"]) for row in rows}) == len(rows) == 638
    for part, precision, recall in (("development", 201 / 205, 201 / 204), ("held_out", 201 / 210, 201 / 203)):
        labelled = [row for row in rows if row["part"] == part]
        assert all(find_count(row["text"]) for row in labelled)
        found = [counts_objects(row["text"]) for row in labelled]
        right = sum(row["counts"] and verdict for row, verdict in zip(labelled, found, strict=True))
        assert right / sum(found) >= precision
        assert right / sum(row["counts"] for row in labelled) >= recall
