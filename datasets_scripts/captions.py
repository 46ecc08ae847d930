"""Numbers in captions: find the one a caption states, and say another one in its place."""

import hashlib
import re
from dataclasses import dataclass

import numpy as np


NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_TO_WORD: dict[int, str] = dict(enumerate(NUMBER_WORDS, start=2))
WORD_TO_NUMBER: dict[str, int] = {word: number for number, word in NUMBER_TO_WORD.items()}

# A whole word: not a part of a longer one ("network"), of a number ("twenty-two", "ten2") or of any other hyphenated
# word ("two-piece", "nine-month-old"), which seldom counts what is in the picture.
# The hyphens are those that people type: the ASCII one, the two of Unicode, and soft; dashes part words.
_HYPHENS = "\\-\u00ad\u2010\u2011"
_NUMBER_PATTERN = re.compile(rf"(?<![\w{_HYPHENS}])(?:{'|'.join(NUMBER_WORDS)})(?![\w{_HYPHENS}])", re.IGNORECASE)


@dataclass(frozen=True)
class CountMatch:
    """
    The number that a caption states.

    Args:
        number (`int`): Two to ten.
        word (`str`): The word as it stands in the caption.
        start (`int`): Where it begins: `caption[start:end] == word`.
        end (`int`): Where it ends.
    """

    number: int
    word: str
    start: int
    end: int


def find_count(caption: str) -> CountMatch | None:
    """
    Find the number that a caption states in a word.

    Only the words "two" to "ten" count, in any case, as whole words. Parts of others do not ("network", "someone"),
    nor do hyphenated words ("twenty-two", "two-piece") and digits. Of two numbers ("two cats and three dogs") the
    first is taken: it is the subject of most captions, and one rule for all callers keeps a caption and its
    counterfactuals about the same thing.

    Args:
        caption (`str`): The caption.

    Returns:
        `CountMatch` or `None`: The first number, or `None` where there is none.

    Raises:
        TypeError: If the caption is not a string.
    """
    if not isinstance(caption, str):
        raise TypeError(
            f"Expected a caption as a string, but got {caption!r} ({type(caption).__name__}). Give its text."
        )
    match = _NUMBER_PATTERN.search(caption)
    if match is None:
        return None
    word = match.group()
    return CountMatch(number=WORD_TO_NUMBER[word.lower()], word=word, start=match.start(), end=match.end())


def replace_count(caption: str, number: int) -> str:
    """
    Say another number in the place of the one that a caption states.

    Args:
        caption (`str`): A caption that states a number; see [`find_count`].
        number (`int`): The number to state, two to ten.

    Returns:
        `str`: The caption with the other word, written like the one it replaces: "Ten" becomes "Two", "TEN" becomes
        "TWO". Replacing there and back gives the caption again, unless the word is written otherwise ("tEn").

    Raises:
        ValueError: If the caption states no number, or `number` is not in two to ten.
    """
    match = _require_count(caption)
    if number not in NUMBER_TO_WORD:
        raise ValueError(
            f"Expected a number from 2 to 10, but got {number!r}. Captions state no others in these words."
        )
    if number == match.number:
        return caption  # also where the word is written in no usual way ("tEn")
    word = _written_like(NUMBER_TO_WORD[number], model=match.word)
    return caption[: match.start] + word + caption[match.end :]


def counting_captions(caption: str) -> list[str]:
    """
    State each of the nine numbers in a caption.

    Args:
        caption (`str`): A caption that states a number; see [`find_count`].

    Returns:
        `list[str]`: Nine captions, from two to ten; the one at `find_count(caption).number - 2` is the caption itself.

    Raises:
        ValueError: If the caption states no number.
    """
    return [replace_count(caption, number) for number in NUMBER_TO_WORD]


def counterfactuals(caption: str, k: int = 1, seed: int = 0) -> list[str]:
    """
    Make captions that state wrong numbers.

    Args:
        caption (`str`): A caption that states a number; see [`find_count`].
        k (`int`, *optional*, defaults to 1): How many, one to eight.
        seed (`int`, *optional*, defaults to 0): The same caption and seed give the same captions, on every machine;
            change it from epoch to epoch.

    Returns:
        `list[str]`: `k` different captions in random order. None states the true number.

    Raises:
        ValueError: If the caption states no number, or `k` is not in one to eight, or the seed is negative.
    """
    match = _require_count(caption)
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
    return [replace_count(caption, wrong[place]) for place in order[:k]]


def _require_count(caption: str) -> CountMatch:
    match = find_count(caption)
    if match is None:
        raise ValueError(
            f"Expected a caption that states a number from two to ten in a word, but got {caption!r}. "
            "Leave captions without such a number out of the counting rows."
        )
    return match


def _written_like(word: str, model: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word
