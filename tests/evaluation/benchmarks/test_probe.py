import sys

import datasets
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from count_clip.evaluation.benchmarks.labelled import Features
from count_clip.evaluation.benchmarks.probe import (
    ProbeDependencyError,
    choose_c,
    draw_shots,
    embed_splits,
    few_shot_curve,
    fit_probe,
    linear_probe,
    split_rows,
)


pytest.importorskip("sklearn", reason="probes need scikit-learn: pip install count-clip[probe]")

NAMES = ["a", "b", "c"]
CENTRES = np.random.default_rng(5).normal(size=(3, 4)) * 2


def _blobs(per_class, seed, spread=1.0, start=0):
    """Points around a centre for each class."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    vectors = CENTRES[labels] + spread * generator.normal(size=(len(labels), 4))
    indices = np.arange(start, start + len(labels))
    return Features(vectors.astype(np.float32), labels, indices, [str(index) for index in indices])


def _reference_weights(features, c):
    """Multinomial logistic regression with scipy: the sum of the losses times C, and half the squared weights."""
    vectors, labels = features.vectors.astype(np.float64), features.labels
    width = vectors.shape[1]

    def loss(flat):
        weights, bias = flat[: 3 * width].reshape(3, width), flat[3 * width :]
        logits = vectors @ weights.T + bias
        losses = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
        return c * losses.sum() + 0.5 * (weights**2).sum()

    flat = minimize(loss, np.zeros(3 * width + 3), method="BFGS", options={"gtol": 1e-6}).x
    return flat[: 3 * width].reshape(3, width), flat[3 * width :]


@pytest.mark.parametrize("c", [0.03, 1.0])
def test_the_probe_is_a_regularised_logistic_regression(c):
    train, test = _blobs(8, 0), _blobs(5, 1)
    weights, bias = _reference_weights(train, c)
    logits = test.vectors @ weights.T + bias
    expected = logits - logsumexp(logits, axis=1, keepdims=True)
    np.testing.assert_allclose(fit_probe(train, 3, c).scores(test.vectors), expected, atol=0.02)


def test_c_is_searched_as_in_the_paper(monkeypatch):
    """Every second decade first, then halves around the best: with a known peak the way there is known."""
    asked = []

    class _Peak:
        def __init__(self, step):
            self.step = step

        def accuracy(self, _):
            return -abs(self.step - 13)

    def fit(train, num_classes, c, max_iter):
        asked.append(round(8 * np.log10(c)))
        return _Peak(asked[-1])

    monkeypatch.setattr("count_clip.evaluation.benchmarks.probe.fit_probe", fit)
    c, sweep = choose_c(_blobs(2, 0), _blobs(2, 1), 3)
    assert asked == [-48, -32, -16, 0, 16, 32, 48, 8, 24, 12, 20, 10, 14, 11, 13]
    assert c == pytest.approx(10 ** (13 / 8))
    assert list(sweep) == sorted(sweep)
    assert sweep[c] == 0


def test_the_strongest_of_equally_good_regularisations_is_chosen(monkeypatch):
    class _Flat:
        def accuracy(self, _):
            return 0.5

    monkeypatch.setattr("count_clip.evaluation.benchmarks.probe.fit_probe", lambda *_: _Flat())
    c, sweep = choose_c(_blobs(2, 0), _blobs(2, 1), 3)
    assert c == min(sweep) == pytest.approx(1e-6)
    assert max(sweep) == pytest.approx(1e6)


def test_the_probe_is_fitted_to_training_and_validation_rows():
    train, validation, test = _blobs(20, 0), _blobs(10, 1), _blobs(30, 2)
    result = linear_probe(train, validation, test, NAMES)
    again = fit_probe(train.joined(validation), 3, result.about["c"])
    np.testing.assert_array_equal(result.best[:, 0], again.scores(test.vectors).argmax(axis=1))
    assert result.top_1 == np.mean(result.best[:, 0] == test.labels) > 0.8
    assert (result.about["train_rows"], result.about["validation_rows"]) == (60, 30)
    assert not result.about["validation_from_train"]
    assert result.about["converged"]
    best = max(accuracy for _, accuracy in result.about["sweep"])
    assert dict(map(tuple, result.about["sweep"]))[result.about["c"]] == best


def test_without_validation_rows_a_fifth_of_the_training_rows_is_split_off():
    result = linear_probe(_blobs(10, 0), None, _blobs(5, 2), NAMES, seed=3)
    assert (result.about["train_rows"], result.about["validation_rows"]) == (24, 6)
    assert result.about["validation_from_train"]


def test_rows_are_split_off_class_by_class():
    rows = _blobs(10, 0)
    rest, aside = split_rows(rows, 0.2, seed=1)
    assert np.bincount(aside.labels).tolist() == [2, 2, 2]
    assert sorted([*rest.indices, *aside.indices]) == rows.indices.tolist()
    assert split_rows(rows, 0.2, seed=1)[1].indices.tolist() == aside.indices.tolist()
    assert split_rows(rows, 0.2, seed=2)[1].indices.tolist() != aside.indices.tolist()
    # A class with one row keeps it.
    lonely = rows.select([0, 10, 11, 20, 21])
    rest, aside = split_rows(lonely, 0.2)
    assert np.bincount(rest.labels).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="one of each"):
        split_rows(rows.select([0, 10, 20]), 0.2)


def test_examples_are_drawn_class_by_class_and_grow():
    rows = _blobs(6, 0)
    one, rest = draw_shots(rows, 1, np.random.default_rng(7))
    four, _ = draw_shots(rows, 4, np.random.default_rng(7))
    assert np.bincount(rows.labels[four]).tolist() == [4, 4, 4]
    assert set(one) < set(four)
    assert sorted([*one, *rest]) == list(range(18))
    everything, nothing = draw_shots(rows, 9, np.random.default_rng(7))
    assert (len(everything), nothing) == (18, [])


def test_a_curve_has_a_point_and_a_deviation_for_each_number():
    train, validation, test = _blobs(20, 0, spread=2), _blobs(10, 1, spread=2), _blobs(100, 2, spread=2)
    result = few_shot_curve(train, validation, test, NAMES, shots=(1, 16), num_draws=4, seed=1, zero_shot=0.4)
    assert [point.shots for point in result.points] == [1, 16]
    assert [point.rows for point in result.points] == [[3] * 4, [48] * 4]
    for point in result.points:
        assert point.mean == pytest.approx(sum(point.accuracies) / 4)
        assert point.std == pytest.approx(np.sqrt(sum((x - point.mean) ** 2 for x in point.accuracies) / 3))
        assert result.correct[point.shots].mean() == pytest.approx(point.mean)
        low, high = result.intervals()[f"shots_{point.shots}"]
        assert low <= point.mean <= high
    assert result.points[1].mean > result.points[0].mean
    assert len(set(result.points[0].accuracies)) > 1  # other draws, other examples
    assert result.to_dict()["zero_shot"] == 0.4
    again = few_shot_curve(train, validation, test, NAMES, shots=(1, 16), num_draws=4, seed=1)
    assert again.points == result.points
    other = few_shot_curve(train, validation, test, NAMES, shots=(1,), num_draws=4, seed=2)
    assert other.points[0].accuracies != result.points[0].accuracies
    assert few_shot_curve(train, validation, test, NAMES, shots=(2,), num_draws=1).points[0].std is None


def test_without_validation_rows_other_training_rows_choose():
    result = few_shot_curve(_blobs(6, 0), None, _blobs(20, 2), NAMES, shots=(4,), num_draws=1)
    assert result.points[0].rows == [12]
    with pytest.raises(ValueError, match="8 examples of each class are all 18 training rows"):
        few_shot_curve(_blobs(6, 0), None, _blobs(20, 2), NAMES, shots=(8,), num_draws=1)


@pytest.mark.parametrize("options", [{"shots": ()}, {"shots": (0, 1)}, {"num_draws": 0}])
def test_numbers_of_examples_and_draws_are_checked(options):
    with pytest.raises(ValueError, match="at least 1"):
        few_shot_curve(_blobs(6, 0), None, _blobs(20, 2), NAMES, **options)


def test_a_class_without_examples_is_never_predicted():
    train = _blobs(6, 0).select(range(12))  # of the first two classes
    scores = fit_probe(train, 3, 1.0).scores(_blobs(4, 1).vectors)
    assert scores.shape == (12, 3)
    assert set(scores.argmax(axis=1)) <= {0, 1}
    assert (scores[:, 2] < scores[:, :2].min(axis=1)).all()
    # With two classes the probe is a sigmoid.
    np.testing.assert_allclose(np.exp(scores[:, :2]).sum(axis=1), np.ones(12))
    assert (scores[:4].argmax(axis=1) == 0).all()
    assert (scores[4:8].argmax(axis=1) == 1).all()
    with pytest.raises(ValueError, match="at least two classes"):
        fit_probe(train.select(range(6)), 3, 1.0)


def test_error_without_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ProbeDependencyError, match=r"count-clip\[probe\]"):
        fit_probe(_blobs(6, 0), 3, 1.0)


@pytest.fixture
def parts(make_image):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})

    def part(number, seed):
        records = [{"image": make_image(36, 40, seed + i), "label": i % 3} for i in range(number)]
        rows = datasets.Dataset.from_list(records, features=features)
        return rows.cast_column("image", datasets.Image(decode=False))

    return part(6, 0), part(3, 50), part(4, 90)


@torch.no_grad()
@pytest.mark.parametrize("projected", [False, True])
def test_features_are_those_of_the_towers(counting_model, counting_processor, parts, make_image, projected):
    found = embed_splits(counting_model, counting_processor, *parts, projected=projected, batch_size=4, progress=False)
    assert (len(found.train), len(found.validation), len(found.test)) == (6, 3, 4)
    pixels = counting_processor.image_processor([make_image(36, 40, i) for i in range(6)], return_tensors="pt")
    expected = counting_model.vision_model(**pixels).pooler_output
    if projected:
        expected = torch.nn.functional.normalize(counting_model.visual_projection(expected), dim=-1)
    np.testing.assert_allclose(found.train.vectors, expected, atol=2e-5)
    assert found.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.names == NAMES
