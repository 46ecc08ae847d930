"""
Errors of counts, in objects or relative to the true count.

Predicted counts (fractions allowed, not rounded) and true counts have the shape `(num_images,)`. All functions raise a
`ValueError` if the two differ in length, are empty, or hold something that is not finite.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .checks import pair, positive_pair, vector


class MeanBaseline(NamedTuple):
    """The errors of always predicting the training mean: a model has to be better."""

    prediction: float
    """The mean of the training counts, predicted for every test image."""
    mae: float
    """Mean absolute error on the test counts, in objects."""
    rmse: float
    """Root mean squared error on the test counts, in objects."""


class CountingErrors(NamedTuple):
    """The four errors of counts that papers report."""

    mae: float
    """Mean absolute error, in objects."""
    rmse: float
    """Root mean squared error, in objects."""
    nae: float | None
    """Normalised absolute error over the images with objects; `None` if there are none."""
    sre: float | None
    """Squared relative error over the images with objects; `None` if there are none."""


def counting_errors(predictions: ArrayLike, references: ArrayLike) -> CountingErrors:
    """All four errors; the relative ones leave out the images without objects. A true count below zero is an error."""
    predicted, true = pair(predictions, references)
    bad = np.flatnonzero(true < 0)
    if bad.size:
        raise ValueError(
            f"Expected true counts of zero or more, but {bad.size} of {true.size} references are below zero, the "
            f"first {true[bad[0]]:g} at index {bad[0]}. Correct the labels, or leave those rows out."
        )
    occupied = true > 0
    return CountingErrors(
        mean_absolute_error(predicted, true),
        root_mean_squared_error(predicted, true),
        normalized_absolute_error(predicted[occupied], true[occupied]) if occupied.any() else None,
        squared_relative_error(predicted[occupied], true[occupied]) if occupied.any() else None,
    )


def mean_absolute_error(predictions: ArrayLike, references: ArrayLike) -> float:
    """Mean absolute error of counts (MAE), in objects."""
    predicted, true = pair(predictions, references)
    return float(np.mean(np.abs(predicted - true)))


def root_mean_squared_error(predictions: ArrayLike, references: ArrayLike) -> float:
    """Root mean squared error of counts (RMSE), in objects; on FSC-147 a few crowded images decide it."""
    predicted, true = pair(predictions, references)
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def normalized_absolute_error(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    Mean of `|predicted - true| / true` (NAE), for true counts above zero; 1 is the value of always predicting zero.

    Source: Wang et al., NWPU-Crowd, 2020 (https://arxiv.org/abs/2001.03360), which leaves out images without objects;
    Nguyen et al., 2022 (https://arxiv.org/abs/2207.10988) on FSC-147.
    """
    predicted, true = positive_pair(predictions, references, "The normalised absolute error")
    return float(np.mean(np.abs(predicted - true) / true))


def squared_relative_error(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    Square root of the mean of `(predicted - true) ** 2 / true` (SRE), for true counts above zero.

    Source: Nguyen et al., Few-shot Object Counting and Detection, 2022 (https://arxiv.org/abs/2207.10988); the square
    root is in its published evaluation code.
    """
    predicted, true = positive_pair(predictions, references, "The squared relative error")
    return float(np.sqrt(np.mean((predicted - true) ** 2 / true)))


def mean_baseline(train_counts: ArrayLike, test_counts: ArrayLike) -> MeanBaseline:
    """Measure the predictor that ignores the image and always predicts the mean of the training counts."""
    prediction = float(np.mean(vector(train_counts, "train_counts")))
    true = vector(test_counts, "test_counts")
    constant = np.full_like(true, prediction)
    return MeanBaseline(prediction, mean_absolute_error(constant, true), root_mean_squared_error(constant, true))


__all__ = [
    "CountingErrors",
    "MeanBaseline",
    "counting_errors",
    "mean_absolute_error",
    "mean_baseline",
    "normalized_absolute_error",
    "root_mean_squared_error",
    "squared_relative_error",
]
