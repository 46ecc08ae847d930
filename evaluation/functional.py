"""Counting metrics as pure functions of numbers: NumPy in, floats out, nothing else of the project needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


NUMBERS = tuple(range(2, 11))
"""The numbers that CountBench asks for: two to ten."""


class MeanBaseline(NamedTuple):
    """What always saying the training mean reaches: the floor that a density model has to leave behind."""

    prediction: float
    """The mean of the training counts, which is said of every test picture."""
    mae: float
    """Mean absolute error on the test counts, in objects."""
    rmse: float
    """Root mean squared error on the test counts, in objects."""


class MosaicScores(NamedTuple):
    """How each mosaic of two pictures was counted."""

    precision: NDArray[np.float64]
    """The part of what was counted that is there; NaN where nothing was counted."""
    recall: NDArray[np.float64]
    """The part of what is there that was counted."""
    f1: NDArray[np.float64]
    """The harmonic mean of the two; 0 where nothing was found."""


def _vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Turn one argument into a vector of finite floats, or say what is wrong with it."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected `{name}` to be a flat sequence of numbers, but it does not become one: {error}."
        ) from None
    if array.ndim != 1:
        raise ValueError(
            f"Expected `{name}` to be a flat sequence of numbers, but got an array of shape {array.shape}."
        )
    if array.size == 0:
        raise ValueError(f"Expected at least one number in `{name}`, but it is empty. There is nothing to measure.")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"Expected finite numbers in `{name}`, but {bad.size} of {array.size} are NaN or infinite, the first at "
            f"index {bad[0]}. Leave those rows out, and say so, before measuring."
        )
    return array


def _pair(predictions: ArrayLike, references: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check that two vectors belong together."""
    predicted, true = _vector(predictions, "predictions"), _vector(references, "references")
    if predicted.shape != true.shape:
        raise ValueError(
            f"Expected one prediction per reference, but got {predicted.size} predictions and {true.size} references."
        )
    return predicted, true


def counting_accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    The fraction of pictures whose number is exactly right: CountBench's first figure.

    Args:
        predictions (array of shape `(num_pictures,)`): The numbers said.
        references (array of shape `(num_pictures,)`): The true numbers.

    Returns:
        `float`: From 0 to 1; guessing among two to ten gives 1/9.

    Raises:
        ValueError: If the two differ in length, are empty, or hold something that is not finite.

    Source:
        Paiss et al., 2023, Sec. 4.1 (https://huggingface.co/papers/2302.12066).
    """
    predicted, true = _pair(predictions, references)
    return float(np.mean(predicted == true))


def off_by_one_accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    The fraction of pictures whose number is right or next to right.

    Args:
        predictions (array of shape `(num_pictures,)`): The numbers said.
        references (array of shape `(num_pictures,)`): The true numbers.

    Returns:
        `float`: From 0 to 1, never below [`counting_accuracy`].

    Raises:
        ValueError: If the two differ in length, are empty, or hold something that is not finite.
    """
    predicted, true = _pair(predictions, references)
    return float(np.mean(np.abs(predicted - true) <= 1))


def mean_deviation(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    How far the number said is from the true one, on average: CountBench's second figure.

    Args:
        predictions (array of shape `(num_pictures,)`): The numbers said.
        references (array of shape `(num_pictures,)`): The true numbers.

    Returns:
        `float`: Mean of `|said - true|`, in objects; 0 is perfect.

    Raises:
        ValueError: If the two differ in length, are empty, or hold something that is not finite.

    Source:
        Paiss et al., 2023, Sec. 4.1 (https://huggingface.co/papers/2302.12066).
    """
    return mean_absolute_error(predictions, references)


def confusion_matrix(
    predictions: ArrayLike, references: ArrayLike, numbers: Sequence[int] = NUMBERS
) -> NDArray[np.int64]:
    """
    Which number was said for which.

    Args:
        predictions (array of shape `(num_pictures,)`): The numbers said.
        references (array of shape `(num_pictures,)`): The true numbers.
        numbers (`Sequence[int]`): The numbers that can occur, in the order of the rows and columns.

    Returns:
        `np.ndarray` of shape `(len(numbers), len(numbers))`: Pictures; true numbers down, numbers said across.

    Raises:
        ValueError: If the two differ in length, are empty, or hold a number that is not in `numbers`.
    """
    predicted, true = _pair(predictions, references)
    place = {float(number): index for index, number in enumerate(numbers)}
    if len(place) != len(numbers):
        raise ValueError(f"Expected different numbers in `numbers`, but got {list(numbers)}.")
    matrix = np.zeros((len(numbers), len(numbers)), dtype=np.int64)
    for said, truth in zip(predicted.tolist(), true.tolist(), strict=True):
        if said not in place or truth not in place:
            stranger = truth if said in place else said
            raise ValueError(
                f"Expected only the numbers {list(numbers)}, but found {stranger:g}. Pass the numbers that occur as "
                "`numbers`."
            )
        matrix[place[truth], place[said]] += 1
    return matrix


def mean_absolute_error(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    The error of a count, on average (MAE).

    Args:
        predictions (array of shape `(num_pictures,)`): Predicted counts, fractions allowed and not rounded.
        references (array of shape `(num_pictures,)`): True counts.

    Returns:
        `float`: Objects; 0 is perfect.

    Raises:
        ValueError: If the two differ in length, are empty, or hold something that is not finite.
    """
    predicted, true = _pair(predictions, references)
    return float(np.mean(np.abs(predicted - true)))


def root_mean_squared_error(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    The error of a count with large errors weighing more (RMSE); on FSC-147 a few very full pictures decide it.

    Args:
        predictions (array of shape `(num_pictures,)`): Predicted counts, fractions allowed and not rounded.
        references (array of shape `(num_pictures,)`): True counts.

    Returns:
        `float`: Objects; never below [`mean_absolute_error`].

    Raises:
        ValueError: If the two differ in length, are empty, or hold something that is not finite.
    """
    predicted, true = _pair(predictions, references)
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def _positive_pair(
    predictions: ArrayLike, references: ArrayLike, metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check two vectors for a metric that divides by the true count."""
    predicted, true = _pair(predictions, references)
    bad = np.flatnonzero(true <= 0)
    if bad.size:
        raise ValueError(
            f"{metric} divides by the true count, but {bad.size} of {true.size} references are not above zero, the "
            f"first at index {bad[0]}. Measure it on the pictures that have objects, and say how many those are."
        )
    return predicted, true


def normalized_absolute_error(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    The error of a count as a part of the true count (NAE), so that full pictures do not decide it.

    Args:
        predictions (array of shape `(num_pictures,)`): Predicted counts.
        references (array of shape `(num_pictures,)`): True counts, each above zero.

    Returns:
        `float`: Mean of `|predicted - true| / true`; 1 is what always saying zero gives.

    Raises:
        ValueError: If the two differ in length, are empty, not finite, or a true count is not above zero.

    Source:
        Wang et al., NWPU-Crowd, 2020 (https://arxiv.org/abs/2001.03360), which leaves out pictures without
        objects; Nguyen et al., 2022 (https://arxiv.org/abs/2207.10988) on FSC-147.
    """
    predicted, true = _positive_pair(predictions, references, "The normalised absolute error")
    return float(np.mean(np.abs(predicted - true) / true))


def squared_relative_error(predictions: ArrayLike, references: ArrayLike) -> float:
    """
    The squared error relative to the true count (SRE), between RMSE and NAE in how much full pictures weigh.

    Args:
        predictions (array of shape `(num_pictures,)`): Predicted counts.
        references (array of shape `(num_pictures,)`): True counts, each above zero.

    Returns:
        `float`: Square root of the mean of `(predicted - true) ** 2 / true`.

    Raises:
        ValueError: If the two differ in length, are empty, not finite, or a true count is not above zero.

    Source:
        Nguyen et al., Few-shot Object Counting and Detection, 2022 (https://arxiv.org/abs/2207.10988); the square
        root is in its published evaluation code.
    """
    predicted, true = _positive_pair(predictions, references, "The squared relative error")
    return float(np.sqrt(np.mean((predicted - true) ** 2 / true)))


def normalized_mean_of_negatives(negative_means: ArrayLike, references: ArrayLike) -> float:
    """
    What a model counts of things that are not there, as a part of what is there (PrACo's NMN).

    `mean_i(n_i / c_i)`, where `n_i` is the mean of the counts that the model gives picture `i` for prompts that name
    nothing in it, and `c_i` the true count of what is in it.

    Args:
        negative_means (array of shape `(num_pictures,)`): `n_i`, in objects.
        references (array of shape `(num_pictures,)`): `c_i`, each above zero.

    Returns:
        `float`: 0 is perfect; 1 is what a model gives that says how many are there whatever the prompt names.

    Raises:
        ValueError: If the two differ in length, are empty, not finite, or a true count is not above zero.

    Source:
        Ciampi et al., PrACo, 2024 (https://arxiv.org/abs/2409.15953), as its published code computes it
        (https://github.com/ciampluca/PrACo, `StatisticsExtractor.evaluate_test1_metrics`).
    """
    negative, true = _positive_pair(negative_means, references, "The normalised mean of negative predictions")
    return float(np.mean(negative / true))


def positive_class_count_nearness(
    positive_predictions: ArrayLike, negative_means: ArrayLike, references: ArrayLike
) -> float:
    """
    How often the prompt that names what is there gives the better count (PrACo's PCCN).

    `100 * mean_i(|p_i - c_i| < |n_i - c_i|)`, where `p_i` is the count for the prompt that names what is in picture
    `i`, `n_i` the mean of those for prompts that name nothing in it, and `c_i` the true count.

    Args:
        positive_predictions (array of shape `(num_pictures,)`): `p_i`, in objects.
        negative_means (array of shape `(num_pictures,)`): `n_i`, in objects.
        references (array of shape `(num_pictures,)`): `c_i`.

    Returns:
        `float`: Per cent; 100 is perfect, and 0 what a model gives that counts the same whatever the prompt says. One
        whose counts differ by chance alone gives about 50.

    Raises:
        ValueError: If the three differ in length, are empty, or hold something that is not finite.

    Source:
        Ciampi et al., PrACo, 2024 (https://arxiv.org/abs/2409.15953), as its published code computes it
        (https://github.com/ciampluca/PrACo, `StatisticsExtractor.evaluate_test1_metrics`): a tie is not nearer.
    """
    positive, true = _pair(positive_predictions, references)
    negative, _ = _pair(negative_means, references)
    return float(100 * np.mean(np.abs(positive - true) < np.abs(negative - true)))


def mosaic_scores(
    positive_predictions: ArrayLike, negative_predictions: ArrayLike, references: ArrayLike
) -> MosaicScores:
    """
    Counting precision, recall and F1 on mosaics of two pictures, of which the prompt names what is in one (PrACo).

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
    positive, true = _positive_pair(positive_predictions, references, "Counting recall")
    negative, _ = _pair(negative_predictions, references)
    positive, negative = np.maximum(positive, 0), np.maximum(negative, 0)
    found, said = np.minimum(positive, true), positive + negative
    precision = np.divide(found, said, out=np.full_like(said, np.nan), where=said > 0)
    return MosaicScores(precision, found / true, 2 * found / (said + true))


def mean_baseline(train_counts: ArrayLike, test_counts: ArrayLike) -> MeanBaseline:
    """
    Measure the predictor that looks at no picture and always says the mean count of the training pictures.

    Args:
        train_counts (array of shape `(num_train_pictures,)`): True counts of the training pictures.
        test_counts (array of shape `(num_test_pictures,)`): True counts of the test pictures.

    Returns:
        [`MeanBaseline`]: What it says, and its MAE and RMSE.

    Raises:
        ValueError: If one of the two is empty or holds something that is not finite.
    """
    prediction = float(np.mean(_vector(train_counts, "train_counts")))
    true = _vector(test_counts, "test_counts")
    said = np.full_like(true, prediction)
    return MeanBaseline(prediction, mean_absolute_error(said, true), root_mean_squared_error(said, true))


def bootstrap_interval(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """
    How far a figure could be off because these and no other pictures were measured.

    Pictures are drawn with replacement and the figure is measured again, `num_resamples` times; the interval holds the
    middle `confidence` of the outcomes (the percentile bootstrap). The same seed gives the same interval.

    Args:
        statistic (`Callable`): One of this module's metrics, or anything that takes the samples and returns a float.
        samples (arrays of shape `(num_pictures,)`): What `statistic` takes, drawn together row by row.
        confidence (`float`): How much of the outcomes the interval holds, between 0 and 1.
        num_resamples (`int`): How often to draw.
        seed (`int`): Where the random draws start.

    Returns:
        `tuple[float, float]`: The lower and the upper end.

    Raises:
        ValueError: If the samples differ in length, are empty, or an option is out of its range.

    Example:
        >>> bootstrap_interval(counting_accuracy, [2, 3, 4, 5], [2, 3, 4, 5])
        (1.0, 1.0)
    """
    if not samples:
        raise ValueError("Expected at least one array to draw from, but got none.")
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` between 0 and 1, but got {confidence}.")
    if num_resamples < 1:
        raise ValueError(f"Expected `num_resamples` to be at least 1, but got {num_resamples}.")
    vectors = [_vector(sample, f"samples[{index}]") for index, sample in enumerate(samples)]
    lengths = [vector.size for vector in vectors]
    if len(set(lengths)) > 1:
        raise ValueError(f"Expected samples of one length, but got lengths {lengths}.")
    generator = np.random.default_rng(seed)
    outcomes: list[Any] = []
    for _ in range(num_resamples):
        rows = generator.integers(0, lengths[0], size=lengths[0])
        outcomes.append(statistic(*(vector[rows] for vector in vectors)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(outcomes, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)


__all__ = [
    "NUMBERS",
    "MeanBaseline",
    "MosaicScores",
    "bootstrap_interval",
    "confusion_matrix",
    "counting_accuracy",
    "mean_absolute_error",
    "mean_baseline",
    "mean_deviation",
    "mosaic_scores",
    "normalized_absolute_error",
    "normalized_mean_of_negatives",
    "off_by_one_accuracy",
    "positive_class_count_nearness",
    "root_mean_squared_error",
    "squared_relative_error",
]
