"""Whether counts follow the prompt: PrACo's measures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import pair, positive_pair


class MosaicScores(NamedTuple):
    """How each mosaic of two images was counted."""

    precision: NDArray[np.float64]
    """The part of what was counted that is there; NaN where nothing was counted."""
    recall: NDArray[np.float64]
    """The part of what is there that was counted."""
    f1: NDArray[np.float64]
    """The harmonic mean of the two; 0 where nothing was found."""


def normalized_mean_of_negatives(negative_means: ArrayLike, references: ArrayLike) -> float:
    """
    What a model counts of things that are not there, as a part of what is there (PrACo's NMN).

    `mean_i(n_i / c_i)`, where `n_i` is the mean of the counts that the model gives image `i` for prompts that name
    nothing in it, and `c_i` the true count of what is in it.

    Args:
        negative_means (array of shape `(num_images,)`): `n_i`, in objects.
        references (array of shape `(num_images,)`): `c_i`, each above zero.

    Returns:
        `float`: 0 is perfect; 1 is what a model gives that says how many are there whatever the prompt names.

    Raises:
        ValueError: If the two differ in length, are empty, not finite, or a true count is not above zero.

    Source:
        Ciampi et al., PrACo, 2024 (https://arxiv.org/abs/2409.15953), as its published code computes it
        (https://github.com/ciampluca/PrACo, `StatisticsExtractor.evaluate_test1_metrics`).
    """
    negative, true = positive_pair(negative_means, references, "The normalised mean of negative predictions")
    return float(np.mean(negative / true))


def positive_class_count_nearness(
    positive_predictions: ArrayLike, negative_means: ArrayLike, references: ArrayLike
) -> float:
    """
    How often the prompt that names what is there gives the better count (PrACo's PCCN).

    `100 * mean_i(|p_i - c_i| < |n_i - c_i|)`, where `p_i` is the count for the prompt that names what is in image
    `i`, `n_i` the mean of those for prompts that name nothing in it, and `c_i` the true count.

    Args:
        positive_predictions (array of shape `(num_images,)`): `p_i`, in objects.
        negative_means (array of shape `(num_images,)`): `n_i`, in objects.
        references (array of shape `(num_images,)`): `c_i`.

    Returns:
        `float`: Per cent; 100 is perfect, and 0 what a model gives that counts the same whatever the prompt says. One
        whose counts differ by chance alone gives about 50.

    Raises:
        ValueError: If the three differ in length, are empty, or hold something that is not finite.

    Source:
        Ciampi et al., PrACo, 2024 (https://arxiv.org/abs/2409.15953), as its published code computes it
        (https://github.com/ciampluca/PrACo, `StatisticsExtractor.evaluate_test1_metrics`): a tie is not nearer.
    """
    positive, true = pair(positive_predictions, references)
    negative, _ = pair(negative_means, references)
    return float(100 * np.mean(np.abs(positive - true) < np.abs(negative - true)))


def mosaic_scores(
    positive_predictions: ArrayLike, negative_predictions: ArrayLike, references: ArrayLike
) -> MosaicScores:
    """
    Counting precision, recall and F1 on mosaics of two images, of which the prompt names what is in one (PrACo).

    With `p` the count in the half that holds what the prompt names, `q` the count in the other half, and `c` the true
    count, `min(p, c)` objects are found, `p + q` are said and `c` are there: precision `min(p, c) / (p + q)`, recall
    `min(p, c) / c`, F1 `2 * min(p, c) / (p + q + c)`, which is the harmonic mean of the two. Counts below zero are
    taken as zero.

    Args:
        positive_predictions (array of shape `(num_mosaics,)`): `p`, in objects.
        negative_predictions (array of shape `(num_mosaics,)`): `q`, in objects.
        references (array of shape `(num_mosaics,)`): `c`, each above zero.

    Returns:
        [`MosaicScores`]: Three arrays of shape `(num_mosaics,)`, from 0 to 1; 1 is perfect.

    Raises:
        ValueError: If the three differ in length, are empty, not finite, or a true count is not above zero.

    Source:
        Ciampi et al., PrACo, 2024 (https://arxiv.org/abs/2409.15953), as its published code computes it
        (https://github.com/ciampluca/PrACo, `StatisticsExtractor.process_test2_data`), but for mosaics in which
        nothing is found: that code has no F1 for them and leaves them out of the mean; here it is 0.
    """
    positive, true = positive_pair(positive_predictions, references, "Counting recall")
    negative, _ = pair(negative_predictions, references)
    positive, negative = np.maximum(positive, 0), np.maximum(negative, 0)
    found, said = np.minimum(positive, true), positive + negative
    precision = np.divide(found, said, out=np.full_like(said, np.nan), where=said > 0)
    return MosaicScores(precision, found / true, 2 * found / (said + true))


__all__ = ["MosaicScores", "mosaic_scores", "normalized_mean_of_negatives", "positive_class_count_nearness"]
