"""Whether counts follow the prompt: PrACo's measures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import pair, positive_pair


class MosaicScores(NamedTuple):
    """Scores of each mosaic of two images."""

    precision: NDArray[np.float64]
    """Share of the counted objects that exist; NaN if nothing was counted."""
    recall: NDArray[np.float64]
    """Share of the existing objects that were counted."""
    f1: NDArray[np.float64]
    """Harmonic mean of the two; 0 if nothing was found."""


def normalized_mean_of_negatives(negative_means: ArrayLike, references: ArrayLike) -> float:
    """
    Counts for prompts of absent classes, relative to the true count: `mean_i(n_i / c_i)` (PrACo's NMN).

    `n_i` is the mean of the counts predicted in image `i` for prompts of absent classes, `c_i` the true count of its
    class, both `(num_images,)`. 0 is perfect; 1 is the value of a model that counts right and ignores the prompt.
    Raises a `ValueError` if the two differ in length, are empty, not finite, or a true count is not above zero.

    Source: Ciampi et al., PrACo, 2024 (https://arxiv.org/abs/2409.15953), as its published code computes it
    (https://github.com/ciampluca/PrACo, `StatisticsExtractor.evaluate_test1_metrics`).
    """
    negative, true = positive_pair(negative_means, references, "The normalised mean of negative predictions")
    return float(np.mean(negative / true))


def positive_class_count_nearness(
    positive_predictions: ArrayLike, negative_means: ArrayLike, references: ArrayLike
) -> float:
    """
    How often the right prompt gives the better count: `100 * mean_i(|p_i - c_i| < |n_i - c_i|)` (PrACo's PCCN).

    `p_i` is the count for the prompt that names the class in image `i`, `n_i` the mean of those for prompts of absent
    classes, `c_i` the true count, all `(num_images,)`. Per cent; 100 is perfect, 0 the value of a model that ignores
    the prompt, and counts that differ by chance give about 50. A tie is not nearer. Raises a `ValueError` if the three
    differ in length, are empty or not finite. Source: as [`normalized_mean_of_negatives`].
    """
    positive, true = pair(positive_predictions, references)
    negative, _ = pair(negative_means, references)
    return float(100 * np.mean(np.abs(positive - true) < np.abs(negative - true)))


def mosaic_scores(
    positive_predictions: ArrayLike, negative_predictions: ArrayLike, references: ArrayLike
) -> MosaicScores:
    """
    Counting precision, recall and F1 on mosaics of two images, of which the prompt names the class of one (PrACo).

    With `p` the count in the half with the prompted class, `q` the count in the other half, and `c` the true count,
    `min(p, c)` objects are found, `p + q` predicted and `c` exist: precision `min(p, c) / (p + q)`, recall `min(p, c)
    / c`, F1 `2 * min(p, c) / (p + q + c)`. Counts below zero are zero. All arrays have the shape `(num_mosaics,)`, the
    scores are from 0 to 1. Raises a `ValueError` if the three differ in length, are empty, not finite, or a true count
    is not above zero.

    Source: as [`normalized_mean_of_negatives`], `StatisticsExtractor.process_test2_data`, but for mosaics in which
    nothing is found: that code leaves them out of the mean F1; here it is 0.
    """
    positive, true = positive_pair(positive_predictions, references, "Counting recall")
    negative, _ = pair(negative_predictions, references)
    positive, negative = np.maximum(positive, 0), np.maximum(negative, 0)
    found, predicted = np.minimum(positive, true), positive + negative
    precision = np.divide(found, predicted, out=np.full_like(predicted, np.nan), where=predicted > 0)
    return MosaicScores(precision, found / true, 2 * found / (predicted + true))


__all__ = ["MosaicScores", "mosaic_scores", "normalized_mean_of_negatives", "positive_class_count_nearness"]
