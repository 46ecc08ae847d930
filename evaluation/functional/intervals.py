"""Bootstrap confidence intervals over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import rows_of


class Difference(NamedTuple):
    """Two models measured on the same images."""

    first: float
    """The first model's figure."""
    second: float
    """The second model's figure."""
    difference: float
    """First minus second."""
    low: float
    """The lower end of the bootstrap interval of the difference."""
    high: float
    """The upper end of the bootstrap interval of the difference."""


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """
    The lower and upper end of the bootstrap interval of a figure over the images.

    Rows of the `samples` (arrays of shape `(num_images, ...)`, the arguments of `statistic`) are drawn together with
    replacement, `num_resamples` times; the interval holds the middle `confidence` (between 0 and 1) of the outcomes,
    the percentile bootstrap. The same `seed` gives the same interval. Raises a `ValueError` if the samples differ in
    length, are empty, or an option is out of its range.
    """
    outcomes = [statistic(*drawn) for drawn in _draws(samples, confidence, num_resamples, seed)]
    return _middle(outcomes, confidence)


def bootstrap_difference(
    statistic: Callable[..., float],
    predictions: ArrayLike,
    other_predictions: ArrayLike,
    *shared: ArrayLike,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """
    The difference between two models on the same images, with its bootstrap interval.

    `statistic` takes the predictions of one model, `(num_images, ...)`, and the `shared` arrays, such as the
    references; the options and errors are those of [`bootstrap_interval`]. Both models are measured on the same draws,
    so that images that are hard for both do not widen the interval. An interval without 0 means that the difference is
    more than chance.
    """
    samples = (predictions, other_predictions, *shared)
    outcomes = [
        statistic(first, *rest) - statistic(second, *rest)
        for first, second, *rest in _draws(samples, confidence, num_resamples, seed)
    ]
    first, second = float(statistic(predictions, *shared)), float(statistic(other_predictions, *shared))
    return Difference(first, second, first - second, *_middle(outcomes, confidence))


def with_intervals(
    statistics: Callable[..., Mapping[str, float | None]],
    *samples: ArrayLike,
    confidence: float | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Several figures of the same images, and with `confidence` their intervals (`<name>_interval`, a list) from the same
    draws.

    `statistics` takes the samples (first as passed, then draws of them as arrays) and returns the figures by name,
    `None` or NaN for an undefined one; draws for which a figure is undefined are left out of its interval. The other
    options and errors are those of [`bootstrap_interval`].
    """
    figures: dict[str, Any] = {name: _defined(value) for name, value in statistics(*samples).items()}
    if confidence is None:
        return figures
    outcomes = [statistics(*drawn) for drawn in _draws(samples, confidence, num_resamples, seed)]
    for name, value in list(figures.items()):
        values = [drawn for outcome in outcomes if (drawn := _defined(outcome[name])) is not None]
        if value is not None and values:
            figures[f"{name}_interval"] = list(_middle(values, confidence))
    return figures


def _defined(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def _draws(
    samples: Sequence[ArrayLike], confidence: float, num_resamples: int, seed: int
) -> Iterator[list[NDArray[Any]]]:
    """Rows of the samples, drawn together with replacement, `num_resamples` times."""
    if not samples:
        raise ValueError("Expected at least one array to draw from, but got none.")
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` between 0 and 1, but got {confidence}.")
    if num_resamples < 1:
        raise ValueError(f"Expected `num_resamples` to be at least 1, but got {num_resamples}.")
    arrays = [rows_of(sample, f"samples[{index}]") for index, sample in enumerate(samples)]
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"Expected samples of one length, but got lengths {lengths}.")
    generator = np.random.default_rng(seed)
    for _ in range(num_resamples):
        rows = generator.integers(0, lengths[0], size=lengths[0])
        yield [array[rows] for array in arrays]


def _middle(outcomes: Sequence[float], confidence: float) -> tuple[float, float]:
    """The ends of the middle `confidence` of the outcomes."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(outcomes, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)


__all__ = ["Difference", "bootstrap_difference", "bootstrap_interval", "with_intervals"]
