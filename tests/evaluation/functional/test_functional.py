import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from count_clip.evaluation.functional import (
    bootstrap_difference,
    bootstrap_interval,
    calibration,
    confusion_matrix,
    counting_accuracy,
    counting_errors,
    mean_absolute_error,
    mean_baseline,
    mean_deviation,
    mosaic_scores,
    normalized_absolute_error,
    normalized_mean_of_negatives,
    off_by_one_accuracy,
    positive_class_count_nearness,
    predicted_numbers,
    root_mean_squared_error,
    squared_relative_error,
    with_intervals,
)


PAIR_METRICS = [
    confusion_matrix,
    counting_accuracy,
    mean_absolute_error,
    mean_deviation,
    normalized_absolute_error,
    normalized_mean_of_negatives,
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


def test_prompt_figures_by_hand():
    # True counts of 4, 10 and 5, and 6, 1 and 0 counted for absent classes.
    assert normalized_mean_of_negatives([6, 1, 0], [4, 10, 5]) == pytest.approx((1.5 + 0.1 + 0) / 3)
    # Off by 1 against 2; by 9 against 9 (no nearer); by 5 against 5; by 0.5 against 3.
    assert positive_class_count_nearness([5, 1, 0, 2.5], [6, 1, 0, 0], [4, 10, 5, 3]) == pytest.approx(100 * 2 / 4)


def test_counts_that_ignore_the_prompt_are_never_nearer():
    assert positive_class_count_nearness([4, 7], [4, 7], [4, 9]) == 0
    assert normalized_mean_of_negatives([4, 9], [4, 9]) == 1


def test_mosaic_figures_by_hand():
    # Of 4: 3 found, 2 in the other half. Of 10: 12 and none. Of 2: none and 3. Of 5: nothing.
    scores = mosaic_scores([3, 12, 0, 0], [2, 0, 3, 0], [4, 10, 2, 5])
    np.testing.assert_allclose(scores.precision, [3 / 5, 10 / 12, 0, np.nan])
    np.testing.assert_allclose(scores.recall, [3 / 4, 1, 0, 0])
    harmonic = [2 / (5 / 3 + 4 / 3), 2 / (12 / 10 + 1), 0, 0]
    np.testing.assert_allclose(scores.f1, harmonic)
    # Counts below zero are none.
    np.testing.assert_allclose(mosaic_scores([3], [-5], [4]).precision, [1])


@given(st.lists(st.tuples(*[st.floats(0, 1e4)] * 2, st.integers(1, 10_000)), min_size=1, max_size=30))
def test_mosaic_figures_against_true_and_false_positives(rows):
    positive, negative, true = np.array(rows, dtype=float).T
    scores = mosaic_scores(positive, negative, true)
    for p, q, c, precision, recall, f1 in zip(positive, negative, true, *scores, strict=True):
        found = min(p, c)
        wrong = max(0.0, p - c) + q
        missed = max(0.0, c - p)
        assert recall == pytest.approx(found / (found + missed))
        assert f1 == pytest.approx(found / (found + (wrong + missed) / 2))
        if found + wrong > 0:
            assert precision == pytest.approx(found / (found + wrong), abs=1e-9)
        else:
            assert np.isnan(precision)


@pytest.mark.parametrize(
    ("figure", "samples", "words"),
    [
        (normalized_mean_of_negatives, ([1], [0]), "divides by the true count"),
        (normalized_mean_of_negatives, ([float("nan")], [1]), "NaN"),
        (positive_class_count_nearness, ([1, 2], [1], [1, 2]), "1 predictions and 2 references"),
        (positive_class_count_nearness, ([], [], []), "empty"),
        (mosaic_scores, ([1], [1], [0]), "divides by the true count"),
        (mosaic_scores, ([1], [1, 2], [1]), "2 predictions and 1 references"),
        (mosaic_scores, ([1], [float("inf")], [1]), "infinite"),
    ],
)
def test_prompt_figures_reject_bad_input(figure, samples, words):
    with pytest.raises(ValueError, match=words):
        figure(*samples)


def test_predicting_zero_has_normalised_error_one():
    assert normalized_absolute_error([0, 0, 0], [3, 14, 1590]) == 1.0


def test_confusion_matrix_has_true_rows_and_predicted_columns():
    matrix = confusion_matrix([2, 5, 3, 6, 6], [2, 4, 5, 10, 10])
    expected = np.zeros((9, 9), dtype=int)
    expected[0, 0] = 1  # two, predicted two
    expected[2, 3] = 1  # four, predicted five
    expected[3, 1] = 1  # five, predicted three
    expected[8, 4] = 2  # ten, predicted six
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
def test_metrics_reject_bad_input(metric, predictions, references, words):
    with pytest.raises(ValueError, match=words):
        metric(predictions, references)


@pytest.mark.parametrize("metric", [normalized_absolute_error, squared_relative_error])
def test_relative_errors_reject_images_without_objects(metric):
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
def test_bootstrap_interval_rejects_invalid_arguments(samples, options, words):
    with pytest.raises(ValueError, match=words):
        bootstrap_interval(counting_accuracy, *samples, **options)


def test_intervals_agree_with_scipy():
    generator = np.random.default_rng(0)
    true = generator.integers(1, 50, size=80).astype(float)
    predicted = true + generator.normal(size=80) * 4
    for metric in (mean_absolute_error, root_mean_squared_error, normalized_absolute_error):
        expected = scipy.stats.bootstrap(
            (predicted, true), metric, paired=True, vectorized=False, method="percentile", n_resamples=4000, rng=1
        ).confidence_interval
        low, high = bootstrap_interval(metric, predicted, true, num_resamples=4000, seed=2)
        width = expected.high - expected.low
        assert low == pytest.approx(expected.low, abs=width * 0.08)
        assert high == pytest.approx(expected.high, abs=width * 0.08)


def test_interval_of_a_figure_of_several_values_per_image():
    scores = np.random.default_rng(0).normal(size=(60, 9))
    true = np.random.default_rng(1).integers(2, 11, size=60)
    low, high = bootstrap_interval(lambda x, y: counting_accuracy(predicted_numbers(x), y), scores, true, seed=3)
    predicted = predicted_numbers(scores)
    assert (low, high) == bootstrap_interval(counting_accuracy, predicted, true, seed=3)


def test_difference_has_the_width_of_the_normal_approximation():
    generator = np.random.default_rng(4)
    true = generator.normal(size=400) * 100
    first, second = true + generator.normal(size=400) + 3, true + generator.normal(size=400) + 4
    found = bootstrap_difference(mean_absolute_error, first, second, true, num_resamples=4000)
    apart = np.abs(first - true) - np.abs(second - true)
    assert found.difference == pytest.approx(apart.mean())
    assert found.difference == found.first - found.second
    assert found.high - found.low == pytest.approx(2 * 1.96 * apart.std() / 20, rel=0.08)
    # The images' standard deviation of a hundred has no influence.
    assert found.low == pytest.approx(found.difference - 1.96 * apart.std() / 20, rel=0.02)
    again = bootstrap_difference(mean_absolute_error, second, first, true, num_resamples=4000)
    assert (again.low, again.high) == pytest.approx((-found.high, -found.low))
    with pytest.raises(ValueError, match="lengths"):
        bootstrap_difference(mean_absolute_error, first[:-1], second, true)


def test_undefined_figures_have_no_interval():
    def measure(values):
        values = np.asarray(values)
        return {"mean": values.mean(), "never": None, "nor_this": math.nan, "sometimes": values[0] or None}

    figures = with_intervals(measure, [1.0, 0.0, 0.0, 2.0], confidence=0.5)
    assert figures["mean"] == 0.75
    assert (figures["never"], figures["nor_this"]) == (None, None)
    assert {"mean_interval", "sometimes_interval"} == {name for name in figures if name.endswith("_interval")}
    # Draws in which the first is 0 are left out.
    assert figures["sometimes_interval"][0] >= 1
    assert with_intervals(measure, [1.0]) == {"mean": 1.0, "never": None, "nor_this": None, "sometimes": 1.0}


def test_relative_errors_leave_out_images_without_objects():
    errors = counting_errors([6, 16, 1], [4, 16, 0])
    assert errors == (1.0, math.sqrt(5 / 3), (0.5 + 0) / 2, math.sqrt((4 / 4 + 0) / 2))
    assert counting_errors([1], [0])[2:] == (None, None)


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_calibration_is_between_its_bounds(num_bins, seed):
    generator = np.random.default_rng(seed)
    scores, true = generator.normal(size=(30, 9)) * 3, generator.integers(2, 11, size=30)
    found = calibration(scores, true, num_bins)
    assert found.accuracy == counting_accuracy(predicted_numbers(scores), true)
    # One bin gives the least that there can be, and no bin is off by more than one.
    assert abs(found.accuracy - found.confidence) - 1e-12 <= found.error <= 1
    assert found.bin_counts.sum() == 30
    occupied = found.bin_counts > 0
    edges = np.arange(num_bins + 1) / num_bins
    assert (found.bin_confidences[occupied] > edges[:-1][occupied] - 1e-12).all()
    assert (found.bin_confidences[occupied] <= edges[1:][occupied] + 1e-12).all()
    if num_bins == 1:
        assert found.error == pytest.approx(abs(found.accuracy - found.confidence))
    moved = calibration(scores + 7, true, num_bins)
    assert moved.error == pytest.approx(found.error)
    assert calibration(scores * 4, true, num_bins, scale=0.25).error == pytest.approx(found.error)
