import doctest
import importlib.util
import json
import multiprocessing
import sys
from pathlib import Path
from types import ModuleType

import evaluate
import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Trainer, TrainingArguments

from count_clip.evaluation.metrics.modules import METRIC_NAMES, METRICS_FOLDER, load_metric
from count_clip.trainers.counting.config import CountingConfig
from count_clip.trainers.counting.trainer import CountingTrainer


REPOSITORY = Path(__file__).resolve().parents[3]
WORKER = Path(__file__).with_name("metric_process.py")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Rows that wait to be measured are kept in a folder of this test."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("metric_process", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_folder_is_a_metric_that_the_package_names():
    folders = {path.name for path in METRICS_FOLDER.iterdir() if (path / f"{path.name}.py").is_file()}
    assert folders == set(METRIC_NAMES)
    with pytest.raises(ValueError, match="one of the metrics counting_accuracy"):
        load_metric("accuracy")


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_modules_describe_themselves(name):
    metric = evaluate.load(str(METRICS_FOLDER / name))
    assert metric.name == name
    assert metric.module_type == ("comparison" if name == "counting_comparison" else "metric")
    info = metric.info
    assert info.description
    assert info.citation.startswith("@")
    assert info.reference_urls
    assert "references" in info.features
    assert "Returns:" in info.inputs_description


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_examples_in_cards_and_descriptions_give_the_printed_results(name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    card = (METRICS_FOLDER / name / "README.md").read_text(encoding="utf-8")
    for heading in ("How to use", "Inputs", "Output values", "Examples", "Limitations", "Citation"):
        assert f"\n## {heading}\n" in card
    assert all(len(line) < 120 for line in card.splitlines())
    description = load_metric(name).info.inputs_description
    for text, variables in ((card, {}), (description, {"evaluate": evaluate})):
        examples = doctest.DocTestParser().get_doctest(text, variables, name, name, 0)
        assert examples.examples
        assert doctest.DocTestRunner().run(examples).failed == 0


numbers = st.integers(2, 10)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30))
def test_numbers_agree_with_scikit_learn(rows):
    predicted, true = zip(*rows, strict=True)
    together = evaluate.combine([load_metric(f"{x}") for x in ("counting_accuracy", "mean_deviation")])
    figures = together.compute(predictions=predicted, references=true)
    assert figures["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(true, predicted))
    assert figures["mean_deviation"] == pytest.approx(sklearn.metrics.mean_absolute_error(true, predicted))
    near = load_metric("off_by_one_accuracy").compute(predictions=predicted, references=true)
    assert near["off_by_one_accuracy"] == sum(abs(a - b) < 2 for a, b in rows) / len(rows)
    matrix = load_metric("counting_confusion_matrix").compute(predictions=predicted, references=true)
    expected = sklearn.metrics.confusion_matrix(true, predicted, labels=range(2, 11))
    assert matrix == {"confusion_matrix": expected.tolist(), "numbers": list(range(2, 11))}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 500), st.integers(0, 500)), min_size=1, max_size=30))
def test_errors_agree_with_scikit_learn(rows):
    predicted, true = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    figures = load_metric("counting_error").compute(predictions=predicted, references=true)
    assert figures["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(true, predicted))
    assert figures["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(true, predicted))
    occupied = true > 0
    assert figures["num_with_objects"] == occupied.sum()
    if not occupied.any():
        assert (figures["nae"], figures["sre"]) == (None, None)
        return
    predicted, true = predicted[occupied], true[occupied]
    assert figures["nae"] == pytest.approx(sklearn.metrics.mean_absolute_percentage_error(true, predicted))
    weighted = sklearn.metrics.mean_squared_error(true, predicted, sample_weight=1 / true) * np.mean(1 / true)
    assert figures["sre"] == pytest.approx(np.sqrt(weighted))


def test_scores_of_the_nine_captions_are_accepted():
    scores = np.random.default_rng(0).normal(size=(50, 9))
    true = np.random.default_rng(1).integers(2, 11, size=50)
    predicted = scores.argmax(axis=1) + 2
    for to in (np.asarray, torch.tensor, list):
        figures = load_metric("counting_accuracy", "scores").compute(predictions=to(scores), references=to(true))
        assert figures == {"accuracy": np.mean(predicted == true)}
    matrix = load_metric("counting_confusion_matrix", "scores").compute(predictions=scores, references=true)
    assert np.sum(matrix["confusion_matrix"]) == 50
    assert np.trace(matrix["confusion_matrix"]) == np.sum(predicted == true)
    low, high = load_metric("mean_deviation", "scores").compute(
        predictions=scores, references=true, confidence=0.9, seed=1
    )["mean_deviation_interval"]
    assert low < np.abs(predicted - true).mean() < high


def test_rows_can_be_added_one_by_one_or_in_batches():
    predicted, true = [2.0, 5.0, 3.0, 6.0, 10.0], [2, 4, 5, 10, 10]
    expected = load_metric("counting_error").compute(predictions=predicted, references=true, confidence=0.9, seed=7)
    metric = load_metric("counting_error", keep_in_memory=True)
    metric.add(prediction=predicted[0], reference=true[0])
    metric.add_batch(predictions=np.array(predicted[1:3]), references=torch.tensor(true[1:3]))
    metric.add_batch(predictions=predicted[3:], references=true[3:])
    assert metric.compute(confidence=0.9, seed=7) == expected
    metric.add_batch(predictions=[4], references=[4])
    assert metric.compute()["mae"] == 0, "the rows of the last result remain"


def test_maps_can_be_added_one_by_one_or_in_batches():
    maps = np.random.default_rng(0).random((2, 3, 24, 16))
    expected = load_metric("game").compute(predictions=maps[0], references=maps[1])
    metric = load_metric("game")
    metric.add(prediction=maps[0, 0], reference=maps[1, 0])
    metric.add_batch(predictions=maps[0, 1:], references=torch.tensor(maps[1, 1:]))
    assert metric.compute() == pytest.approx(expected)


def test_two_processes_measure_the_same_as_one(worker, tmp_path):
    # Forked, for a process that imports everything anew would take a hundred times as long as the measurement.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=worker.measure, args=(rank, 2, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=50)
    assert [process.exitcode for process in processes] == [0, 0]
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    assert other == [None] * len(worker.OPTIONS)
    for result, (name, options) in zip(main, worker.OPTIONS.items(), strict=True):
        alone = load_metric(name, worker.CONFIGS.get(name)).compute(**worker.columns(name), **options)
        assert result == pytest.approx(alone), name


def test_error_without_the_package_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "count_clip", None)
    with pytest.raises(ImportError, match="pip install count_clip"):
        evaluate.load(str(METRICS_FOLDER / "game"))


def test_compute_metrics_of_the_counting_trainer(counting_model, counting_processor, make_image, tmp_path):
    captions = ["two red cats", "five red cats", "ten dogs", "four dogs", "eight ants"]
    rows = [
        {"image": make_image(32, 32, seed=i), "text": text, "number": number}
        for i, (text, number) in enumerate(zip(captions, [2, 5, 10, 4, 8], strict=True))
    ]
    metrics = [load_metric("counting_accuracy", "scores"), load_metric("mean_deviation", "scores")]

    def compute_metrics(prediction):
        return evaluate.combine(metrics).compute(predictions=prediction.predictions, references=prediction.label_ids)

    arguments = CountingConfig(
        output_dir=str(tmp_path), per_device_eval_batch_size=2, report_to=[], use_cpu=True, remove_unused_columns=False
    )
    trainer = CountingTrainer(
        counting_model,
        arguments,
        eval_dataset=rows,
        processing_class=counting_processor,
        compute_metrics=compute_metrics,
    )
    prediction = trainer.predict(rows)
    predicted, true = prediction.predictions.argmax(axis=1) + 2, prediction.label_ids
    assert true.tolist() == [2, 5, 10, 4, 8]
    figures = trainer.evaluate()
    assert figures["eval_accuracy"] == sklearn.metrics.accuracy_score(true, predicted)
    assert figures["eval_mean_deviation"] == pytest.approx(np.abs(predicted - true).mean())


def test_compute_metrics_of_a_plain_trainer(tmp_path):
    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, values, labels):
            counts = values * self.factor
            return {"loss": (counts - labels).abs().mean(), "counts": counts}

    rows = [{"values": float(i), "labels": float(i + 3)} for i in range(1, 8)]
    error = load_metric("counting_error")
    trainer = Trainer(
        Counter(),
        TrainingArguments(str(tmp_path), per_device_eval_batch_size=2, report_to=[], use_cpu=True),
        eval_dataset=rows,
        compute_metrics=lambda x: error.compute(predictions=x.predictions, references=x.label_ids, confidence=0.9),
    )
    figures = trainer.evaluate()
    off = np.array([abs(2 * i - (i + 3)) for i in range(1, 8)])
    assert figures["eval_mae"] == pytest.approx(off.mean())
    assert figures["eval_nae"] == pytest.approx((off / np.arange(4, 11)).mean())
    low, high = figures["eval_mae_interval"]
    assert low < off.mean() < high


def test_calibration_against_bins_by_hand():
    generator = np.random.default_rng(5)
    cosines, true = generator.normal(size=(200, 9)) / 10, generator.integers(2, 11, size=200)
    figures = load_metric("counting_calibration").compute(
        predictions=cosines, references=true, scale=20.0, num_bins=10, confidence=0.9
    )
    probs = torch.softmax(torch.tensor(cosines) * 20, dim=1).numpy()
    error = 0.0
    for lower in np.arange(10) / 10:
        inside = (probs.max(axis=1) > lower) & (probs.max(axis=1) <= lower + 0.1)
        if inside.any():
            right = probs[inside].argmax(axis=1) + 2 == true[inside]
            error += inside.sum() / 200 * abs(right.mean() - probs[inside].max(axis=1).mean())
    assert figures["calibration_error"] == pytest.approx(error)
    assert figures["calibration_confidence"] == pytest.approx(probs.max(axis=1).mean())
    assert len(figures["calibration_error_interval"]) == 2


def test_confidence_equal_to_accuracy_is_calibrated():
    probs = np.full((90, 9), 0.4 / 8)
    probs[:, 3] = 0.6
    true = np.where(np.arange(90) % 5 < 3, 5, 7)
    figures = load_metric("counting_calibration").compute(predictions=probs, references=true, are_probabilities=True)
    assert figures["calibration_error"] == pytest.approx(0, abs=1e-9)
    wrong = load_metric("counting_calibration").compute(
        predictions=probs, references=np.full(90, 7), are_probabilities=True
    )
    assert wrong["calibration_error"] == pytest.approx(0.6)


def test_praco_against_the_figures_by_hand():
    figures = load_metric("praco").compute(
        predictions=[5, 1, 0, 2.5],
        negative_predictions=[[6], [0, 2], [0], [1, -1, 0]],
        references=[4, 10, 5, 3],
    )
    assert figures == {"nmn": pytest.approx((6 / 4 + 1 / 10) / 4), "pccn": 50.0}
    mosaics = load_metric("praco", "mosaics").compute(
        predictions=[3, 12, 0, 0], negative_predictions=[2, 0, 3, 0], references=[4, 10, 2, 5], confidence=0.9
    )
    assert mosaics["precision"] == pytest.approx((3 / 5 + 10 / 12 + 0) / 3)
    assert mosaics["recall"] == pytest.approx((3 / 4 + 1) / 4)
    assert mosaics["f1"] == pytest.approx((2 / (5 / 3 + 4 / 3) + 2 / (12 / 10 + 1)) / 4)
    assert mosaics["f1_interval"][0] <= mosaics["f1"] <= mosaics["f1_interval"][1]
    nothing = load_metric("praco", "mosaics").compute(
        predictions=[0], negative_predictions=[0], references=[4], confidence=0.9
    )
    assert nothing == {
        "precision": None,
        "recall": 0.0,
        "f1": 0.0,
        "recall_interval": [0.0, 0.0],
        "f1_interval": [0.0, 0.0],
    }


def test_comparison_is_of_the_same_images():
    generator = np.random.default_rng(2)
    true = generator.integers(2, 11, size=200)
    hard = generator.random(200) < 0.5
    first = np.where(hard, 2, true)
    second = np.where(hard | (generator.random(200) < 0.2), 2, true)
    result = load_metric("counting_comparison").compute(predictions1=first, predictions2=second, references=true)
    assert result["first"] == sklearn.metrics.accuracy_score(true, first)
    assert result["second"] == sklearn.metrics.accuracy_score(true, second)
    assert result["difference"] == result["first"] - result["second"]
    # The accuracy of one model is more uncertain.
    low, high = result["difference_interval"]
    alone = load_metric("counting_accuracy").compute(predictions=first, references=true, confidence=0.95)
    assert 0 < low < result["difference"] < high
    assert high - low < 0.7 * np.diff(alone["accuracy_interval"]).item()
    same = load_metric("counting_comparison").compute(
        predictions1=first, predictions2=first, references=true, metric="rmse"
    )
    assert same["difference_interval"] == [0.0, 0.0]


EYE = np.eye(9).tolist()
MAP = np.ones((8, 8))


@pytest.mark.parametrize(
    ("name", "config", "columns", "options", "words"),
    [
        ("counting_accuracy", None, ([2, 3], [2]), {}, "predictions (2) and references (1)"),
        ("counting_accuracy", None, ([], []), {}, "is empty"),
        ("counting_accuracy", None, ([2, 3], [2, 11]), {}, "the first 11 at index 1"),
        ("counting_accuracy", None, ([2, 1], [2, 3]), {}, "in `predictions`, but 1 of 2 are others, the first 1"),
        ("counting_accuracy", None, ([2.5], [2]), {}, "the first 2.5"),
        ("counting_accuracy", None, ([float("nan")], [2]), {}, "NaN"),
        ("counting_accuracy", None, ([2], [2]), {"confidence": 95}, "between 0 and 1"),
        ("counting_accuracy", None, ([[2]], [2]), {}, "don't match the expected format"),
        ("counting_accuracy", "words", ([2], [2]), {}, "configurations numbers, scores"),
        ("counting_accuracy", "scores", (EYE[:2], [2, None]), {}, "NaN"),
        ("mean_deviation", "scores", ([EYE[0][:8]], [2]), {}, "9 scores for each image"),
        ("mean_deviation", "scores", ([EYE[0], EYE[0][:8]], [2, 3]), {}, "different numbers of scores"),
        ("off_by_one_accuracy", "scores", ([[np.inf] * 9], [2]), {}, "the first at index 0"),
        ("counting_confusion_matrix", None, ([2], [2]), {"numbers": [3, 4]}, "the numbers [3, 4]"),
        ("counting_calibration", None, (EYE[:1], [2]), {"scale": 0}, "`scale` above zero"),
        ("counting_calibration", None, (EYE[:1], [2]), {"num_bins": 0}, "`num_bins` of at least 1"),
        ("counting_calibration", None, ([[5.0] * 9], [2]), {"are_probabilities": True}, "sum to one"),
        ("counting_calibration", None, (EYE[:1], [12]), {}, "the first 12"),
        ("counting_error", None, ([1, 2], [-1, 2]), {}, "zero or more, but 1 of 2 references are below zero"),
        ("counting_error", None, ([1, np.nan], [1, 2]), {}, "NaN or infinite, the first at index 1"),
        ("counting_error", None, ([1, 2], [1]), {}, "predictions (2) and references (1)"),
        ("counting_error", None, ([], []), {}, "is empty"),
        ("game", None, ([np.ones((8, 9))], [MAP]), {}, "true map of the predicted one's size (8, 9), but got (8, 8)"),
        ("game", None, ([-MAP], [MAP]), {}, "Image 0 of the batch: Expected densities of zero or more"),
        ("game", None, ([MAP], [MAP * np.nan]), {}, "NaN or infinite"),
        ("game", None, ([MAP[:4]], [MAP[:4]]), {}, "at least 8 x 8 pixels"),
        ("game", None, ([MAP], [MAP]), {"levels": [4]}, "from 0 to 3, but got [4]"),
        ("game", None, ([MAP, MAP], [MAP]), {}, "2 predictions, 1 references"),
        ("game", None, ([], []), {}, "at least one image"),
        ("game", None, ([[[1.0] * 8] * 7 + [[1.0]]], [MAP]), {}, "differ in length"),
        ("game", "points", ([MAP], [[[9, 2]]]), {}, "but 1 of 1 are outside, the first at index 0: [9.0, 2.0]"),
        ("game", "points", ([MAP], [[[1, 2, 3]]]), {}, "points [x, y], but got an array of shape (1, 3)"),
        ("game", "detections", ([[]], [[]]), {"sizes": [[8]]}, "[height, width] in pixels"),
        ("point_matching", None, ([[[1, 2]]], [[[1, 2]]]), {}, "Expected `distance`"),
        ("point_matching", None, ([[[1, 2]]], [[[1, 2]]]), {"distance": -1}, "finite distances above zero"),
        ("point_matching", None, ([[], [[1]]], [[], []]), {"distance": 1}, "Image 1: Expected `predictions`"),
        ("point_matching", None, ([[[1, np.nan]]], [[]]), {"distance": 1}, "NaN or infinite"),
        ("point_matching", None, ([[]], [[], []]), {"distance": 1}, "predictions (1) and references (2)"),
        ("point_matching", None, ([], []), {"distance": 1}, "at least one image"),
        ("point_matching", None, ([[]], [[]]), {"distance": 1, "matching": "best"}, "['hungarian', 'greedy']"),
        ("point_matching", "distances", ([[]], [[[1, 2]]]), {"distances": [[1, 2]]}, "one for each of the 1 objects"),
        ("praco", None, ([1], [0]), {"negative_predictions": [[1]]}, "divides by the true count"),
        ("praco", None, ([1], [2]), {"negative_predictions": [[]]}, "has none at index 0"),
        ("praco", "mosaics", ([np.inf], [2]), {"negative_predictions": [1]}, "infinite"),
    ],
)
def test_bad_input_is_named(name, config, columns, options, words):
    with pytest.raises(ValueError) as raised:
        load_metric(name, config).compute(predictions=columns[0], references=columns[1], **options)
    assert words in str(raised.value)


def test_comparison_names_bad_input():
    comparison = load_metric("counting_comparison")
    with pytest.raises(ValueError, match="one of accuracy, off_by_one_accuracy"):
        comparison.compute(predictions1=[2], predictions2=[3], references=[2], metric="f1")
    with pytest.raises(ValueError, match="NaN"):
        load_metric("counting_comparison").compute(predictions1=[2], predictions2=[np.nan], references=[2])
