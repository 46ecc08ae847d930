"""
Metrics of predicted numbers from two to ten.

Predictions and references have the shape `(num_images,)`. All functions raise a `ValueError` if the two differ in
length, are empty, or hold something that is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import check_finite, pair, vector
from .errors import mean_absolute_error


NUMBERS = tuple(range(2, 11))
"""CountBench's numbers: two to ten."""


class Calibration(NamedTuple):
    """How well the probability of the predicted number matches how often it is right."""

    error: float
    """Expected calibration error: mean of |accuracy - confidence| over the bins, weighted by their images."""
    accuracy: float
    """How often the predicted number is right."""
    confidence: float
    """Mean probability of the predicted number; above `accuracy`, the model is overconfident."""
    bin_confidences: NDArray[np.float64]
    """`(num_bins,)`: mean probability of the predicted numbers in each bin; NaN for an empty bin."""
    bin_accuracies: NDArray[np.float64]
    """`(num_bins,)`: how often they are right; NaN for an empty bin."""
    bin_counts: NDArray[np.int64]
    """`(num_bins,)`: images in each bin."""


def predicted_numbers(scores: ArrayLike, numbers: Sequence[int] = NUMBERS) -> NDArray[np.int64]:
    """
    The number whose caption has the highest score, `(num_images,)`; of equal scores the lowest number.

    `scores` have the shape `(num_images, len(numbers))`. Raises a `ValueError` if there is no image, an image has more
    or fewer scores, or a score is not finite.
    """
    return np.asarray(numbers, dtype=np.int64)[_score_table(scores, numbers).argmax(axis=1)]


def _score_table(scores: ArrayLike, numbers: Sequence[int]) -> NDArray[np.float64]:
    """Scores as a table of finite numbers with a column for each number."""
    expected = (
        f"Expected {len(numbers)} scores for each image, for the captions with {numbers[0]} to {numbers[-1]}, but "
    )
    try:
        table = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{expected}the images have different numbers of scores, or some are not numbers.") from None
    if table.size == 0:
        raise ValueError("Expected the scores of at least one image, but got none. There is nothing to measure.")
    if table.ndim != 2 or table.shape[1] != len(numbers):
        raise ValueError(f"{expected}got an array of shape {table.shape}.")
    check_finite(table, "scores of the images", "The model's weights are broken, or its dtype is too narrow.")
    return table


def check_numbers(values: ArrayLike, name: str, numbers: Sequence[int] = NUMBERS) -> NDArray[np.int64]:
    """
    The values `(num_images,)` as integers; a `ValueError` with the argument's `name` if there are none or one is not
    among `numbers`.
    """
    array = vector(values, name)
    bad = np.flatnonzero(~np.isin(array, numbers))
    if bad.size:
        raise ValueError(
            f"Expected only the numbers {list(numbers)} in `{name}`, but {bad.size} of {array.size} are others, the "
            f"first {array[bad[0]]:g} at index {bad[0]}. Leave those rows out, or pass the numbers that occur as "
            "`numbers`."
        )
    return array.astype(np.int64)


def counting_accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    The share of images whose number is exactly right, 0 to 1; guessing among two to ten gives 1/9 (Paiss et al., 2023,
    Sec. 4.1, https://huggingface.co/papers/2302.12066).
    """
    predicted, true = pair(predictions, references)
    return float(np.mean(predicted == true))


def off_by_one_accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """The share of images whose number is right or off by one, 0 to 1."""
    predicted, true = pair(predictions, references)
    return float(np.mean(np.abs(predicted - true) <= 1))


def mean_deviation(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    Mean of `|predicted - true|`, in objects (Paiss et al., 2023, Sec. 4.1, https://huggingface.co/papers/2302.12066).
    """
    return mean_absolute_error(predictions, references)


def confusion_matrix(
    predictions: ArrayLike, references: ArrayLike, numbers: Sequence[int] = NUMBERS
) -> NDArray[np.int64]:
    """
    Images by true number (rows) and predicted number (columns), `(len(numbers), len(numbers))`.

    Raises a `ValueError` if the two differ in length, are empty, or hold a number that is not in `numbers`.
    """
    predicted, true = pair(predictions, references)
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"Expected different numbers in `numbers`, but got {list(numbers)}.")
    unknown = np.setdiff1d([predicted, true], numbers)
    if unknown.size:
        raise ValueError(
            f"Expected only the numbers {list(numbers)}, but found {unknown[0]:g}. Pass the numbers that occur as "
            "`numbers`."
        )
    rows, columns = ((values[:, None] == np.asarray(numbers)).argmax(axis=1) for values in (true, predicted))
    matrix = np.zeros((len(numbers), len(numbers)), dtype=np.int64)
    np.add.at(matrix, (rows, columns), 1)
    return matrix


def calibration(
    scores: ArrayLike,
    references: ArrayLike,
    num_bins: int = 15,
    scale: float = 1.0,
    are_probabilities: bool = False,
    numbers: Sequence[int] = NUMBERS,
) -> Calibration:
    """
    Whether the probabilities of the predicted numbers match how often they are right; its `error` is 0 to 1, 0 is
    perfect.

    The images are sorted into `num_bins` bins of equal width in (0, 1] by the probability of the predicted number; in
    each bin, how often it is right is compared with the mean probability.

    `scores` are `(num_images, len(numbers))`; `scale` is their factor before the softmax: the model's logit scale for
    cosine similarities, 1 for `logits_per_image`. With `are_probabilities`, each row already sums to one. Raises a
    `ValueError` if scores and references differ in length, are empty or not finite, a true number is not among
    `numbers`, or an option is out of its range.

    Source: Naeini et al., 2015 (https://ojs.aaai.org/index.php/AAAI/article/view/9602), with the 15 bins and the
    confidences of Guo et al., 2017 (https://arxiv.org/abs/1706.04599), Sec. 2.
    """
    table = _score_table(scores, numbers)
    true = check_numbers(references, "references", numbers)
    if len(table) != len(true):
        raise ValueError(f"Expected scores for each reference, but got {len(table)} and {len(true)}.")
    if num_bins < 1:
        raise ValueError(f"Expected `num_bins` of at least 1, but got {num_bins}.")
    if are_probabilities:
        if (table < 0).any() or not np.allclose(table.sum(axis=1), 1, atol=1e-3):
            raise ValueError("Expected probabilities from 0 to 1 that sum to one, but got others. Are they scores?")
        probs = table
    else:
        if not 0 < scale < np.inf:
            raise ValueError(f"Expected `scale` above zero, but got {scale}.")
        exponents = np.exp((table - table.max(axis=1, keepdims=True)) * scale)
        probs = exponents / exponents.sum(axis=1, keepdims=True)
    confidences = np.minimum(probs.max(axis=1), 1)
    right = np.asarray(numbers)[table.argmax(axis=1)] == true
    bins = np.clip(np.ceil(confidences * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    mean_confidences, accuracies = (
        np.divide(np.bincount(bins, values, num_bins), counts, out=np.full(num_bins, np.nan), where=counts > 0)
        for values in (confidences, right)
    )
    return Calibration(
        error=float(np.nansum(np.abs(mean_confidences - accuracies) * counts) / len(true)),
        accuracy=float(right.mean()),
        confidence=float(confidences.mean()),
        bin_confidences=mean_confidences,
        bin_accuracies=accuracies,
        bin_counts=counts,
    )


__all__ = [
    "NUMBERS",
    "Calibration",
    "calibration",
    "check_numbers",
    "confusion_matrix",
    "counting_accuracy",
    "mean_deviation",
    "off_by_one_accuracy",
    "predicted_numbers",
]
