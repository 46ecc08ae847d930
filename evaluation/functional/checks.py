"""Checks of the metrics' arguments: finite numbers, equal lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rows_of(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """One argument as an array of finite floats with a row for each image."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected `{name}` to be a flat sequence of numbers, but got something else: {error}."
        ) from None
    if array.ndim == 0:
        raise ValueError(f"Expected `{name}` to be a sequence with a value for each image, but got {values!r}.")
    if array.size == 0:
        raise ValueError(f"Expected at least one number in `{name}`, but it is empty. There is nothing to measure.")
    check_finite(array, f"numbers in `{name}`", "Leave those rows out before measuring.")
    return array


def check_finite(array: NDArray[np.float64], what: str, hint: str) -> None:
    """Raise a `ValueError` with a hint if a row of an array holds NaN or infinity."""
    bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
    if bad.size:
        raise ValueError(
            f"Expected finite {what}, but {bad.size} of {len(array)} are NaN or infinite, the first at index "
            f"{bad[0]}. {hint}"
        )


def vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """One argument as a vector of finite floats."""
    array = rows_of(values, name)
    if array.ndim != 1:
        raise ValueError(
            f"Expected `{name}` to be a flat sequence of numbers, but got an array of shape {array.shape}."
        )
    return array


def pair(predictions: ArrayLike, references: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predictions and references as vectors of one length."""
    predicted, true = vector(predictions, "predictions"), vector(references, "references")
    if predicted.shape != true.shape:
        raise ValueError(
            f"Expected one prediction per reference, but got {predicted.size} predictions and {true.size} references."
        )
    return predicted, true


def positive_pair(
    predictions: ArrayLike, references: ArrayLike, metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same for a metric that divides by the true count."""
    predicted, true = pair(predictions, references)
    bad = np.flatnonzero(true <= 0)
    if bad.size:
        raise ValueError(
            f"{metric} divides by the true count, but {bad.size} of {true.size} references are not above zero, the "
            f"first at index {bad[0]}. Measure it on the images with objects only, and report their number."
        )
    return predicted, true


__all__ = ["check_finite", "pair", "positive_pair", "rows_of", "vector"]
