"""
Captions with the faults of the web, made from correct ones: some numbers count nothing, and some are wrong.

The paper's filter, which removes both, is here, too.
"""

from __future__ import annotations

import csv
import hashlib
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .nouns import counted_noun
from .numbers import NUMBER_TO_WORD, find_count, replace_count


# Measured: of the 418 captions of LAION-400M with a number word that are labelled in
# tests/datasets_scripts/counting_labels, 158 have one that counts nothing visible.
NOT_COUNTING_RATE = 0.38
# Measured: of 44 captions of COCO 2017 (validation) whose number counts objects, 12 state a number that no class of
# the annotations has. These were written by people who looked at the image; the web's are no better.
WRONG_NUMBER_RATE = 0.27

with Path(__file__).with_name("faults.csv").open(encoding="utf-8", newline="") as _file:
    _ROWS = list(csv.DictReader(_file))
# The frequency of each fault among the 158 labelled captions (names count as titles; places and unclear ones are left
# out). None was a price or a size; one each, for the web has them.
FAULT_WEIGHTS = {row["fault"]: int(row["weight"]) for row in _ROWS}
# Captions in which a number counts nothing visible.
NOT_COUNTING = {fault: tuple(row["template"] for row in _ROWS if row["fault"] == fault) for fault in FAULT_WEIGHTS}
_FAULTS = tuple(FAULT_WEIGHTS)
_FAULT_BOUNDS = np.cumsum([FAULT_WEIGHTS[fault] for fault in _FAULTS]) / sum(FAULT_WEIGHTS.values())


@dataclass(frozen=True)
class NoisyCaption:
    """
    A caption that may be faulty: its text, the number of its number word whatever that counts (0 without one), and the
    fault of the number (a key of `NOT_COUNTING`, `"wrong"`, or empty).
    """

    text: str
    number: int
    fault: str = ""


def spoil_caption(
    caption: str,
    name: str,
    rng: np.random.RandomState,
    not_counting_rate: float = NOT_COUNTING_RATE,
    wrong_number_rate: float = WRONG_NUMBER_RATE,
) -> NoisyCaption:
    """
    Add a fault of the web to a correct caption, at random.

    Args:
        caption (`str`): The caption. Without a number it stays as it is.
        name (`str`): The name of the counted objects, in the plural.
        rng (`numpy.random.RandomState`): The random generator.
        not_counting_rate (`float`, *optional*, defaults to 0.38): Share of the captions whose number counts nothing:
            any of two to ten.
        wrong_number_rate (`float`, *optional*, defaults to 0.27): Share of the others that state another number than
            the image shows.
    """
    match = find_count(caption)
    spoils, is_wrong, which = rng.random_sample(3)
    if match is None:
        return NoisyCaption(caption, 0)
    if spoils < not_counting_rate:
        fault = _FAULTS[int(np.searchsorted(_FAULT_BOUNDS, which, side="right"))]
        number = 2 + int(rng.random_sample() * len(NUMBER_TO_WORD))
        templates = NOT_COUNTING[fault]
        template = templates[int(rng.random_sample() * len(templates))]
        return NoisyCaption(template.format(number=NUMBER_TO_WORD[number], name=name), number, fault)
    if is_wrong < wrong_number_rate:
        others = [number for number in NUMBER_TO_WORD if number != match.number]
        number = others[int(which * len(others))]
        return NoisyCaption(replace_count(caption, number), number, "wrong")
    return NoisyCaption(caption, match.number)


class NoisyCaptions(Sequence[dict[str, Any]]):
    """
    Rows whose captions have the faults of the web: [`spoil_caption`] for each.

    The same seed and row give the same caption. The column `true_number` is added, the number in the image; `number`
    is the one that the caption states.

    Args:
        rows: A map-style set with `text`, `number` and `name` that returns columns by `column(name)` without drawing
            its images, as [`CountScenes`] does.
        not_counting_rate (`float`, *optional*, defaults to 0.38): See [`spoil_caption`].
        wrong_number_rate (`float`, *optional*, defaults to 0.27): See [`spoil_caption`].
        seed (`int`, *optional*, defaults to 0): Another seed gives other faults.

    Raises:
        TypeError: If the rows have no method `column`.
        ValueError: If a rate is not from 0 to 1, or a column is missing.
    """

    def __init__(
        self,
        rows: Any,
        not_counting_rate: float = NOT_COUNTING_RATE,
        wrong_number_rate: float = WRONG_NUMBER_RATE,
        seed: int = 0,
    ) -> None:
        for field, rate in (("not_counting_rate", not_counting_rate), ("wrong_number_rate", wrong_number_rate)):
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
                raise ValueError(f"Expected {field} to be a share from 0 to 1, but got {rate!r}. Give one in between.")
        if not hasattr(rows, "column"):
            raise TypeError(
                f"Expected rows with a method `column`, such as `countscenes`, but got {type(rows).__name__}. Real "
                "captions have their own faults."
            )
        missing = [name for name in ("text", "number", "name") if name not in rows.column_names]
        if missing:
            raise ValueError(
                f"Expected rows with text, number and name, but {' and '.join(missing)} is missing. Use the captions "
                "of `countscenes`."
            )
        self.rows = rows
        self.not_counting_rate, self.wrong_number_rate, self.seed = not_counting_rate, wrong_number_rate, seed
        self._columns: dict[str, list[Any]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    # A slice would draw every image in it at once; `Sequence` types it, so the refusal is `operator.index`'s.
    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]  # no slices
        row = self.rows[index]
        position = operator.index(index) % len(self)
        noisy = self._spoil(position, row["text"], row["name"])
        return {**row, "text": noisy.text, "number": noisy.number, "true_number": row["number"]}

    def __repr__(self) -> str:
        return (
            f"NoisyCaptions({self.rows!r}, not_counting_rate={self.not_counting_rate}, "
            f"wrong_number_rate={self.wrong_number_rate}, seed={self.seed})"
        )

    @property
    def column_names(self) -> list[str]:
        """`list[str]`: Names of the columns."""
        return [*self.rows.column_names, "true_number"]

    def column(self, name: str, indices: Iterable[int] | None = None) -> list[Any]:
        """Return one label (not the image) of all rows, or of those of `indices`, without drawing them."""
        if name not in ("text", "number", "true_number"):
            return self.rows.column(name, indices)
        if self._columns is None:
            texts, numbers, names = (self.rows.column(column) for column in ("text", "number", "name"))
            noisy = [self._spoil(place, *labels) for place, labels in enumerate(zip(texts, names, strict=True))]
            self._columns = {
                "text": [caption.text for caption in noisy],
                "number": [caption.number for caption in noisy],
                "true_number": numbers,
            }
        column = self._columns[name]
        return list(column) if indices is None else [column[index] for index in indices]

    def _spoil(self, index: int, caption: str, name: str) -> NoisyCaption:
        digest = hashlib.sha256(f"caption noise {self.seed} {index}".encode()).digest()
        rng = np.random.RandomState(np.frombuffer(digest, dtype="<u4"))
        return spoil_caption(caption, name, rng, self.not_counting_rate, self.wrong_number_rate)


FILTERS = ("naive", "objects", "full")


def filter_counting(rows: NoisyCaptions, how: str = "full") -> tuple[list[int], dict[str, int]]:
    """
    Choose the rows of the counting set, as the paper's stages do (Paiss et al., 2023, Sec. 3.1,
    https://huggingface.co/papers/2302.12066).

    Args:
        rows ([`NoisyCaptions`]): Captions with faults.
        how (`str`, *optional*, defaults to `"full"`): The last stage: `"naive"` keeps every caption with a number
            word, `"objects"` those whose number counts objects by [`counts_objects`], and `"full"` those of which as
            many are in the image. The true number replaces a detector without errors.

    Returns:
        The indices of the rows that are kept, and how many are left after each stage: `rows`, `with_number`,
            `counting_objects` and `number_in_image`.

    Raises:
        ValueError: If the filter is unknown.
    """
    if how not in FILTERS:
        raise ValueError(f"Expected the filter to be one of {', '.join(FILTERS)}, but got {how!r}. Name one of them.")
    texts, true_numbers = rows.column("text"), rows.column("true_number")
    found = {index: match for index, text in enumerate(texts) if (match := find_count(text)) is not None}
    counts = {"rows": len(texts), "with_number": len(found)}
    if how != "naive":
        found = {i: match for i, match in found.items() if counted_noun(texts[i], match.start, match.end).counts}
        counts["counting_objects"] = len(found)
    if how == "full":
        found = {i: match for i, match in found.items() if match.number == true_numbers[i]}
        counts["number_in_image"] = len(found)
    return list(found), counts


__all__ = [
    "FAULT_WEIGHTS",
    "FILTERS",
    "NOT_COUNTING",
    "NOT_COUNTING_RATE",
    "WRONG_NUMBER_RATE",
    "NoisyCaption",
    "NoisyCaptions",
    "filter_counting",
    "spoil_caption",
]
