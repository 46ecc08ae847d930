"""Names of categories in the plural, as prompts use them."""

import csv
from pathlib import Path


__all__ = ["plural_of"]

# Exceptions to the rules below, by the last word of a name; some words are plural already or have no plural.
with Path(__file__).with_name("plurals.csv").open(encoding="utf-8", newline="") as _file:
    _IRREGULAR = {row["singular"]: row["plural"] for row in csv.DictReader(_file)}
# English for a person ends in "man"; these do not.
_NO_PEOPLE = ("caiman", "german", "human", "ottoman", "roman", "shaman", "talisman")
_VOWELS = "aeiou"


def plural_of(name: str) -> str:
    """
    Put the name of a category in the plural: `"person"` becomes `"people"`, `"slice of bread"` `"slices of bread"`.

    The last word is changed, or the one before "of", by the rules of English spelling and a list of exceptions. Words
    may be joined by spaces, `_` (which becomes a space) or `-`. An empty name raises `ValueError`.
    """
    words = name.replace("_", " ").split()
    if not words:
        raise ValueError(f"Expected the name of a category, but got {name!r}. Name the objects to count.")
    place = words.index("of") - 1 if "of" in words[1:-1] else len(words) - 1
    head, hyphen, last = words[place].rpartition("-")
    words[place] = head + hyphen + _plural_of_word(last)
    return " ".join(words)


def _plural_of_word(word: str) -> str:
    lower = word.lower()
    if lower in _IRREGULAR:
        plural = _IRREGULAR[lower]
        return plural.capitalize() if word.istitle() and plural.islower() else plural
    if lower.endswith("fish"):
        return word  # "goldfish"
    if lower.endswith("s") and not lower.endswith(("is", "ss", "us")):
        return word  # "cells": a plural already
    if lower.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if lower.endswith("y") and lower[-2:-1] not in _VOWELS:
        return f"{word[:-1]}ies"
    if lower.endswith("ife"):
        return f"{word[:-2]}ves"
    if lower.endswith("man") and lower not in _NO_PEOPLE:
        return f"{word[:-2]}en"
    return f"{word}s"
