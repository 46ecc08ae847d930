import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from count_clip.evaluation.functional import (
    bootstrap_interval,
    confusion_matrix,
    counting_accuracy,
    mean_absolute_error,
    mean_baseline,
    mean_deviation,
    normalized_absolute_error,
    off_by_one_accuracy,
    root_mean_squared_error,
    squared_relative_error,
)


PAIR_METRICS = [
    confusion_matrix,
    counting_accuracy,
    mean_absolute_error,
    mean_deviation,
    normalized_absolute_error,
    off_by_one_accuracy,
    root_mean_squared_error,
    squared_relative_error,
]

# Errors by hand: 0, +1, -2, -4.
PREDICTED = [2, 5, 3, 6]
TRUE = [2, 4, 5, 10]


def test_counting_figures_by_hand():
    assert counting_accuracy(PREDICTED, TRUE) == 0.25
    assert off_by_one_accuracy(PREDICTED, TRUE) == 0.5
    assert mean_deviation(PREDICTED, TRUE) == (0 + 1 + 2 + 4) / 4


def test_density_figures_by_hand():
    predicted, true = [3.0, 8.5, 40.0], [1, 10, 20]
    assert mean_absolute_error(predicted, true) == pytest.approx((2 + 1.5 + 20) / 3)
    assert root_mean_squared_error(predicted, true) == pytest.approx(math.sqrt((4 + 2.25 + 400) / 3))
    assert normalized_absolute_error(predicted, true) == pytest.approx((2 + 0.15 + 1) / 3)
    assert squared_relative_error(predicted, true) == pytest.approx(math.sqrt((4 + 0.225 + 20) / 3))


def test_always_saying_zero_has_normalised_error_one():
    assert normalized_absolute_error([0, 0, 0], [3, 14, 1590]) == 1.0


def test_confusion_matrix_has_true_rows_and_said_columns():
    matrix = confusion_matrix([2, 5, 3, 6, 6], [2, 4, 5, 10, 10])
    expected = np.zeros((9, 9), dtype=int)
    expected[0, 0] = 1  # two, said two
    expected[2, 3] = 1  # four, said five
    expected[3, 1] = 1  # five, said three
    expected[8, 4] = 2  # ten, said six
    np.testing.assert_array_equal(matrix, expected)


def test_confusion_matrix_names_a_number_outside_the_nine():
    with pytest.raises(ValueError, match="found 11"):
        confusion_matrix([11], [10])
    assert confusion_matrix([11], [10], numbers=[10, 11]).tolist() == [[0, 1], [0, 0]]
    with pytest.raises(ValueError, match="different numbers"):
        confusion_matrix([2], [2], numbers=[2, 2])


def test_mean_baseline_by_hand():
    baseline = mean_baseline([1, 3], [2, 5, 0])
    assert baseline.prediction == 2.0
    assert baseline.mae == pytest.approx((0 + 3 + 2) / 3)
    assert baseline.rmse == pytest.approx(math.sqrt((0 + 9 + 4) / 3))


@pytest.mark.parametrize("metric", PAIR_METRICS)
@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [
        ([2, 3], [2, 3, 4], "2 predictions and 3 references"),
        ([], [], "empty"),
        ([2, math.nan, 3], [2, 3, 4], "index 1"),
        ([2, 3], [2, math.inf], "references"),
        ([[2, 3]], [[2, 3]], r"shape \(1, 2\)"),
        (["two"], [2], "flat sequence of numbers"),
    ],
)
def test_metrics_reject_what_they_cannot_measure(metric, predictions, references, words):
    with pytest.raises(ValueError, match=words):
        metric(predictions, references)


@pytest.mark.parametrize("metric", [normalized_absolute_error, squared_relative_error])
def test_relative_errors_reject_pictures_without_objects(metric):
    with pytest.raises(ValueError, match="index 1"):
        metric([1, 1, 1], [2, 0, 3])


@pytest.mark.parametrize("arguments", [([], [1]), ([1], []), ([math.nan], [1]), ([1], [math.nan])])
def test_mean_baseline_rejects_empty_and_nan(arguments):
    with pytest.raises(ValueError, match=r"empty|NaN"):
        mean_baseline(*arguments)


counts = st.lists(st.tuples(st.floats(0, 4000), st.integers(1, 4000)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(counts)
def test_metrics_agree_with_plain_loops(rows):
    predicted, true = [row[0] for row in rows], [row[1] for row in rows]
    n = len(rows)
    assert mean_absolute_error(predicted, true) == pytest.approx(sum(abs(p - t) for p, t in rows) / n)
    assert root_mean_squared_error(predicted, true) == pytest.approx(math.sqrt(sum((p - t) ** 2 for p, t in rows) / n))
    assert normalized_absolute_error(predicted, true) == pytest.approx(sum(abs(p - t) / t for p, t in rows) / n)
    assert squared_relative_error(predicted, true) == pytest.approx(
        math.sqrt(sum((p - t) ** 2 / t for p, t in rows) / n)
    )
    assert root_mean_squared_error(predicted, true) >= mean_absolute_error(predicted, true) * (1 - 1e-12)


def test_bootstrap_interval_is_seeded_and_brackets_the_figure():
    generator = np.random.default_rng(3)
    true = generator.integers(2, 11, size=300)
    predicted = np.where(generator.random(300) < 0.4, true, 2)
    accuracy = counting_accuracy(predicted, true)
    low, high = bootstrap_interval(counting_accuracy, predicted, true, seed=5)
    assert low < accuracy < high
    assert bootstrap_interval(counting_accuracy, predicted, true, seed=5) == (low, high)
    assert bootstrap_interval(counting_accuracy, predicted, true, seed=6) != (low, high)


def test_bootstrap_interval_has_the_width_of_the_normal_approximation():
    # The accuracy of n independent answers has standard error sqrt(p (1 - p) / n).
    true = np.zeros(400)
    predicted = np.concatenate([np.zeros(100), np.ones(300)])
    low, high = bootstrap_interval(counting_accuracy, predicted, true, num_resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 * 0.75 / 400), rel=0.1)
    narrow_low, narrow_high = bootstrap_interval(counting_accuracy, predicted, true, confidence=0.5)
    assert low < narrow_low < narrow_high < high


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        ((), {}, "at least one array"),
        (([1, 2], [1]), {}, r"lengths \[2, 1\]"),
        (([1], [1]), {"confidence": 1.0}, "between 0 and 1"),
        (([1], [1]), {"num_resamples": 0}, "at least 1"),
        (([math.nan], [1]), {}, "NaN"),
    ],
)
def test_bootstrap_interval_rejects_nonsense(samples, options, words):
    with pytest.raises(ValueError, match=words):
        bootstrap_interval(counting_accuracy, *samples, **options)
