"""Captions of `countscenes`: templates with and without a number, and made-up names."""

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ..captions.numbers import WORD_TO_NUMBER


# Changing the order or the words of the templates changes the captions of every scene.
TEMPLATES = Path(__file__).with_name("captions.csv")

# Of a syllable: onsets, vowels and codas.
_ONSETS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p ph pl pr qu r s sc sh sk sl sn sp st t th tr v w wh y z"
)
_VOWELS = "a a e e i o o u ai ea ee oa oo ou y"
_CODAS = "b ck ct d ft g k l ld lf ll lt m mb mp n nd ng nk nt p r rb rd rk rm rn rt rst s sh sk ss st t tch x zz"


def made_up_name(rng: np.random.RandomState) -> str:
    """Make up a name that sounds like English: one or two words, in the singular."""
    onsets, vowels, codas = _ONSETS.split(), _VOWELS.split(), _CODAS.split()
    words = []
    for _ in range(1 + int(rng.random_sample() < 0.4)):
        num_syllables = 1 + int(rng.random_sample() * 3)
        syllables = [onsets[rng.randint(len(onsets))] + vowels[rng.randint(len(vowels))] for _ in range(num_syllables)]
        word = "".join(syllables) + codas[rng.randint(len(codas))]
        # "ten" is a number.
        words.append(f"{word}let" if word in WORD_TO_NUMBER else word)
    return " ".join(words)


def spliced_name(rng: np.random.RandomState, names: Sequence[str]) -> str:
    """
    Make up a name of the beginning of one name and the end of another: "giraffe" and "barrel" make "girel".

    A tokenizer that was trained on these names (two or more singulars, of two letters or more) splits such a word,
    like most unseen words, into tokens of these names. The result is none of them and has no number word.
    """
    while True:
        first, last = (names[rng.randint(len(names))] for _ in range(2))
        words = (first[: rng.randint(1, len(first))] + last[rng.randint(len(last) - 1) :]).split()
        if " ".join(words) not in names and not any(word in WORD_TO_NUMBER for word in words):
            return " ".join(words)


@cache
def caption_templates(
    shapes: bool, states_number: bool, several: bool, has_others: bool, has_color: bool = True
) -> tuple[str, ...]:
    """
    List the captions that are true of a scene of shapes or other objects, of one or `several`, with or without a
    number.

    A scene may have objects of other classes (`has_others`), and a background whose colour has no name (a photograph).
    The templates have some of `{number}`, `{name}` (in the plural), `{one}` (with its article), `{background}` and
    `{others}` (another class, in the plural).
    """
    form = "number" if states_number else "plural" if several else "singular"
    wanted = ("shapes" if shapes else "others", form)
    with TEMPLATES.open(encoding="utf-8", newline="") as file:
        return tuple(
            row["template"]
            for row in csv.DictReader(file)
            if (row["objects"], row["names"]) == wanted
            and row["other_classes"] in ("", "with" if has_others else "without")
            and (has_color or "{background}" not in row["template"])
        )
