"""Errors of the counts of a density model over a data set."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from count_clip.datasets_scripts.files.resumable import ResultCache
from count_clip.modeling.counting_engine import Counted, Request

from ..functional import (
    mean_absolute_error,
    mean_baseline,
    normalized_absolute_error,
    root_mean_squared_error,
    squared_relative_error,
)
from ..inference.counting import cached_counts, counter_of
from ..inference.encoding import SkippedRow, image_id_of, read_image, usable_rows
from .labelled import nothing_measured


TrainCounts = Sequence[float] | Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class DensityPrediction:
    """One row's count and the true one."""

    index: int
    """Which row of the data, from 0."""
    image_id: str | None
    """The `image_id` of the row, if it has one."""
    text: str
    """What was counted."""
    count: float
    """The true count."""
    predicted: float
    """The model's count, not rounded."""


@dataclass(frozen=True)
class DensityFigures:
    """Errors over a group of rows, in objects; smaller is better."""

    n: int
    """Rows."""
    mae: float
    """Mean absolute error."""
    rmse: float
    """Root mean squared error."""
    mean_count: float
    """Mean of the true counts."""
    mean_predicted: float
    """Mean of the predicted counts."""
    baseline_mae: float | None = None
    """MAE of always predicting the training mean; `None` without training counts."""
    baseline_rmse: float | None = None
    """RMSE of always predicting the training mean; `None` without training counts."""

    @classmethod
    def of_counts(
        cls, predicted: Sequence[float], true: Sequence[float], baseline: Sequence[float] | None = None
    ) -> DensityFigures:
        """The errors of predicted counts, and of those of a baseline."""
        return cls(
            n=len(true),
            mae=mean_absolute_error(predicted, true),
            rmse=root_mean_squared_error(predicted, true),
            mean_count=float(np.mean(true)),
            mean_predicted=float(np.mean(predicted)),
            baseline_mae=None if baseline is None else mean_absolute_error(baseline, true),
            baseline_rmse=None if baseline is None else root_mean_squared_error(baseline, true),
        )


@dataclass(frozen=True)
class DensityResult:
    """Errors of a density model on a data set."""

    mae: float
    """Mean absolute error, in objects."""
    rmse: float
    """Root mean squared error, in objects."""
    nae: float | None
    """Normalised absolute error over the `n_with_objects` rows; `None` if there are none."""
    sre: float | None
    """Squared relative error over the `n_with_objects` rows; `None` if there are none."""
    n: int
    """Rows measured."""
    n_with_objects: int
    """Rows measured whose true count is above zero: the two relative errors divide by it."""
    baseline_mae: float | None
    """MAE of always predicting the training mean; `None` without training counts."""
    baseline_rmse: float | None
    """RMSE of always predicting the training mean; `None` without training counts."""
    predictions: list[DensityPrediction]
    """Each measured row, in the order of the data."""
    by_text: dict[str, DensityFigures]
    """The same errors for each prompt, in the order of the data."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for JSON."""
        return asdict(self)


def evaluate_density(
    model: Any,
    processor: Any,
    rows: Iterable[Mapping[str, Any]],
    train_counts: TrainCounts | None = None,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
    on_result: Callable[[Mapping[str, Any], Counted], None] | None = None,
    window: str | None = None,
    cache: ResultCache | None = None,
) -> DensityResult:
    """
    Count in every row of a data set and measure the errors.

    Args:
        model ([`CLIPCountDensityModel`] or [`ImageCounter`]): The model, or a baseline that counts.
        processor ([`CLIPCountDensityProcessor`]): The model's processor; a baseline has none.
        rows: Rows with `image`, `text` (what to count), `count`, and where the data has it `image_id`.
        train_counts (sequence of numbers, or a mapping from prompt to one, *optional*): Counts of the training rows,
            for the baseline that always predicts their mean; with a mapping, the mean of the row's own prompt.
        batch_size (`int`, *optional*, defaults to 16): Windows at once.
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.
        on_result (`Callable`, *optional*): Called with each row and its [`Counted`], with image, map and points.
        window (`str`, *optional*): `"sliding"`, or `"whole"` for each image in one pass, whose memory grows with
            the image's longer side; by default that of the processor's configuration.
        cache ([`ResultCache`], *optional*): Of this model, dtype and window: images whose count is in it are not
            counted in again (nor passed to `on_result`), and the counts of others are put there.

    Returns:
        [`DensityResult`]: The errors in all and for each prompt, each row's count, and the rows left out.

    Raises:
        ValueError: If no row can be measured, or `train_counts` lacks a row's prompt.
        TypeError: If the model is of another class.
    """
    baseline = None if train_counts is None else _Baseline(train_counts)
    draws = on_result is not None
    options = {"return_points": draws, "return_density_map": draws, "keep_images": draws}
    counter = counter_of(model, processor, batch_size=batch_size, window=window, device=device, dtype=dtype, **options)
    skipped: list[SkippedRow] = []
    predictions: dict[int, DensityPrediction] = {}

    def read(row: Mapping[str, Any]) -> Image.Image:
        if reason := what_is_wrong(row):
            raise ValueError(reason)
        return read_image(row)

    def requests() -> Iterator[Request]:
        for index, row, image in usable_rows(rows, read, skipped, progress):
            if baseline is not None:
                baseline.predict(row["text"])  # raises before anything is counted
            yield image, [row["text"]], (index, row)

    for (index, row), counts, counted in cached_counts(counter, requests(), cache):
        if not counts:
            skipped.append(SkippedRow(index, image_id_of(row), str(counted and counted.error)))
            continue
        predictions[index] = DensityPrediction(index, image_id_of(row), row["text"], float(row["count"]), counts[0])
        if on_result is not None and counted is not None:
            on_result(row, counted)
    skipped.sort(key=lambda row: row.index)
    if not predictions:
        raise ValueError(nothing_measured(skipped))
    in_order = [predictions[index] for index in sorted(predictions)]
    means = None if baseline is None else [baseline.predict(row.text) for row in in_order]
    return _summarise(in_order, means, skipped)


class _Baseline:
    """Predicts the mean of the training counts: of all, or of those of the same prompt."""

    def __init__(self, train_counts: TrainCounts) -> None:
        self.overall: float | None = None
        self.by_text: dict[str, float] = {}
        if isinstance(train_counts, Mapping):
            self.by_text = {text: mean_baseline(counts, counts).prediction for text, counts in train_counts.items()}
        else:
            self.overall = mean_baseline(train_counts, train_counts).prediction

    def predict(self, text: str) -> float:
        """The count for any image."""
        if self.overall is not None:
            return self.overall
        if text not in self.by_text:
            raise ValueError(
                f"Expected training counts for every prompt, but there are none for {text!r}; there are some for "
                f"{', '.join(map(repr, self.by_text)) or 'nothing'}. Add them, or pass one list for all prompts."
            )
        return self.by_text[text]


def what_is_wrong(row: Mapping[str, Any]) -> str | None:
    """Why a row cannot be measured, as far as it shows without the image; `None` if it can."""
    text, count = row.get("text"), row.get("count")
    if not isinstance(text, str) or not text.strip():
        return "the row does not name what to count (`text`)"
    if count is None:
        return "the row has no true `count`"
    if isinstance(count, bool) or not isinstance(count, numbers.Real):
        return f"the row's `count` is {count!r}, not a number"
    if not math.isfinite(count) or count < 0:
        return f"the row's `count` is {count}, not a number of objects"
    return None


def _summarise(
    predictions: list[DensityPrediction], baseline: list[float] | None, skipped: list[SkippedRow]
) -> DensityResult:
    """All errors of a data set."""

    def figures_of(places: Sequence[int]) -> DensityFigures:
        rows = [predictions[place] for place in places]
        of_rows = None if baseline is None else [baseline[place] for place in places]
        return DensityFigures.of_counts([row.predicted for row in rows], [row.count for row in rows], of_rows)

    figures = figures_of(range(len(predictions)))
    places_of: dict[str, list[int]] = {}
    for place, row in enumerate(predictions):
        places_of.setdefault(row.text, []).append(place)
    by_text = {text: figures_of(places) for text, places in places_of.items()}
    with_objects = [row for row in predictions if row.count > 0]
    predicted, true = [row.predicted for row in with_objects], [row.count for row in with_objects]
    return DensityResult(
        mae=figures.mae,
        rmse=figures.rmse,
        nae=normalized_absolute_error(predicted, true) if with_objects else None,
        sre=squared_relative_error(predicted, true) if with_objects else None,
        n=figures.n,
        n_with_objects=len(with_objects),
        baseline_mae=figures.baseline_mae,
        baseline_rmse=figures.baseline_rmse,
        predictions=predictions,
        by_text=by_text,
        skipped=skipped,
    )


__all__ = [
    "DensityFigures",
    "DensityPrediction",
    "DensityResult",
    "evaluate_density",
    "what_is_wrong",
]
