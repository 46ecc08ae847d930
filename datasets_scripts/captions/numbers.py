"""Numbers in captions: finds the one that a caption states, and replaces it."""

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from .nouns import CountedNoun, counted_noun


NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_TO_WORD: dict[int, str] = dict(enumerate(NUMBER_WORDS, start=2))
WORD_TO_NUMBER: dict[str, int] = {word: number for number, word in NUMBER_TO_WORD.items()}

# A whole word: not a part of a longer one ("network"), of a number ("twenty-two", "ten2") or of any other hyphenated
# word ("two-piece", "nine-month-old"), which seldom counts what is in the image; but for a "two-pack", which does.
# The hyphens are those that people type: the ASCII one, the two of Unicode, and soft; dashes part words.
_HYPHENS = "\\-\u00ad\u2010\u2011"
# Scripts that are written without spaces, or that put their particles before foreign words, do not make a longer word
# of the English one next to them: from Hebrew to Tibetan and Khmer, and those of China, Japan and Korea.
_OTHER_SCRIPTS = "\u0590-\u1bff\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f"
_NO_LETTER_BEFORE = rf"(?<![^\W{_OTHER_SCRIPTS}])(?<![{_HYPHENS}])"
_NO_LETTER_AFTER = rf"(?![^\W{_OTHER_SCRIPTS}])(?![{_HYPHENS}](?!packs?\b))"
_WORD = re.compile(f"{_NO_LETTER_BEFORE}(?:{'|'.join(NUMBER_WORDS)}){_NO_LETTER_AFTER}", re.IGNORECASE)


@dataclass(frozen=True)
class CountMatch:
    """
    The number (two to ten) that a caption states, the word as the caption writes it, and where: `caption[start:end]`.
    """

    number: int
    word: str
    start: int
    end: int


def find_count(caption: str, stated: int | None = None) -> CountMatch | None:
    """
    Find the number that a caption states in a word.

    Only the words "two" to "ten" count, in any case, as whole words. Parts of others do not ("network", "someone"),
    nor do hyphenated words ("twenty-two", "two-piece"; but "two-pack" does) and digits. Of two numbers ("two cats and
    three dogs") the first is taken: it is the subject of most captions, and one rule for all callers keeps a caption
    and its counterfactuals about the same objects.

    Args:
        caption (`str`): The caption.
        stated (`int`, *optional*): The number that counts, where the data states it: the first word of this number is
            then taken instead of the first number word ("two views of three dogs").

    Raises:
        TypeError: If the caption is not a string.
    """
    if not isinstance(caption, str):
        raise TypeError(
            f"Expected a caption as a string, but got {caption!r} ({type(caption).__name__}). Give its text."
        )
    for match in _WORD.finditer(caption):
        number = WORD_TO_NUMBER[match.group().lower()]
        if stated in (None, number):
            return CountMatch(number=number, word=match.group(), start=match.start(), end=match.end())
    return None


def counts_objects(caption: str) -> bool:
    """
    Whether a caption states a number, see [`find_count`], of a plural noun that images can show.

    "Three dogs on a lawn" does; "three years ago", "for two", "a three piece suit", "Book Three" and "three ways to"
    do not. [`read_count`] gives the reason.
    """
    reading = read_count(caption)
    return reading is not None and reading.counts


def read_count(caption: str) -> CountedNoun | None:
    """
    Find what the number word of a caption counts, or why it counts no objects; `None` where [`find_count`] finds none.
    """
    match = find_count(caption)
    return None if match is None else counted_noun(caption, match.start, match.end)


def replace_count(caption: str, number: int, stated: int | None = None) -> str:
    """
    Replace the number that a caption states; the arguments are those of [`find_count`] and the new number, two to ten.

    The other word is written like the one it replaces: "Ten" becomes "Two", "TEN" becomes "TWO". Replacing there and
    back gives the caption again, unless the word is written otherwise ("tEn").

    Raises:
        ValueError: If the caption states no number, or `number` is not in two to ten.
    """
    match = _require_count(caption, stated)
    if number not in NUMBER_TO_WORD:
        raise ValueError(
            f"Expected a number from 2 to 10, but got {number!r}. Captions state no others in these words."
        )
    return _replaced(caption, match, number)


def counting_captions(caption: str, stated: int | None = None) -> list[str]:
    """
    State each of the nine numbers, two to ten, in a caption; the one with the stated number is the caption itself.

    Raises:
        ValueError: If the caption states no number, see [`find_count`].
    """
    match = _require_count(caption, stated)
    return [_replaced(caption, match, number) for number in NUMBER_TO_WORD]


def counterfactuals(caption: str, k: int = 1, seed: int = 0, stated: int | None = None) -> list[str]:
    """
    Make `k` different captions that state wrong numbers, in random order.

    Args:
        caption, stated: As [`find_count`] takes them.
        k (`int`, *optional*, defaults to 1): How many, one to eight.
        seed (`int`, *optional*, defaults to 0): The same caption and seed give the same captions, on every machine;
            change it from epoch to epoch.

    Raises:
        ValueError: If the caption states no number, or `k` is not in one to eight, or the seed is negative.
    """
    match = _require_count(caption, stated)
    wrong = [number for number in NUMBER_TO_WORD if number != match.number]
    if not 1 <= k <= len(wrong):
        raise ValueError(
            f"Expected k to be in 1-{len(wrong)}, because two to ten without the true number are {len(wrong)}, "
            f"but got {k}. Ask for fewer counterfactuals."
        )
    if seed < 0:
        raise ValueError(f"Expected a seed of 0 or more, but got {seed}. Give another.")
    # The caption is part of the seed, so that the captions of a batch do not all get the same wrong numbers.
    digest = hashlib.sha256(f"{seed} {caption}".encode("utf-8", "surrogatepass")).digest()
    order = np.random.RandomState(np.frombuffer(digest, dtype="<u4")).permutation(len(wrong))
    return [_replaced(caption, match, wrong[place]) for place in order[:k]]


def _require_count(caption: str, stated: int | None) -> CountMatch:
    match = find_count(caption, stated)
    if match is None and stated is not None and (other := find_count(caption)) is not None:
        raise ValueError(
            f"Expected a caption that states {stated}, but {caption!r} states {other.word!r}. Correct the number or "
            "the caption, or leave the number out to take the first one."
        )
    if match is None:
        raise ValueError(
            f"Expected a caption that states a number from two to ten in a word, but got {caption!r}. "
            "Leave captions without such a number out of the counting rows."
        )
    return match


def _replaced(caption: str, match: CountMatch, number: int) -> str:
    """The caption with another number word, in the case of the one it replaces."""
    if number == match.number:
        return caption  # also where the word is written unusually ("tEn")
    word = NUMBER_TO_WORD[number]
    if match.word.isupper():
        word = word.upper()
    elif match.word[0].isupper():
        word = word.capitalize()
    return caption[: match.start] + word + caption[match.end :]
