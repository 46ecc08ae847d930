"""The benchmark of adapters, with a model and scenes of next to no size."""

import importlib.util
import json
import statistics
import sys
from itertools import combinations
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "adapters.py"
    spec = importlib.util.spec_from_file_location("adapters_benchmark", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def model(density_config, density_processor, tmp_path):
    from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel

    CLIPCountDensityModel(density_config(num_visual_prompts=0, num_context_tokens=0)).save_pretrained(
        tmp_path / "model"
    )
    density_processor.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_every_method_is_measured(benchmark, model, tmp_path, capsys):
    small = ["--steps", "1", "--batch_size", "2", "--train_scenes", "2", "--test_scenes", "2", "--image_size", "64"]
    options = ["--learning_rates", "0.001", "--seeds", "0", "--output", str(tmp_path / "figures.json")]
    results = benchmark.main(["--model", model, *small, *options])
    trained = {result.method: result.trained_parameters for result in results}
    assert list(trained) == ["always the mean", "base, untrained", *benchmark.METHODS["density"]]
    assert (trained["visual_prompt"], trained["context_prompt"]) == (3 * 10 * 40, 2 * 24)
    assert trained["both"] == trained["visual_prompt"] + trained["context_prompt"]
    assert trained["visual_prompt + head"] - trained["visual_prompt"] == trained["head"] < trained["vision + head"]
    assert trained["visual_prompt"] < trained["visual_prompt + head"] < trained["vision + head"] < trained["full"]
    assert trained["both + head"] - trained["both"] == trained["visual_prompt + head"] - trained["visual_prompt"]
    for result in results:
        assert {name: len(values) for name, values in result.figures.items()} == dict.fromkeys(
            benchmark.DensityTask.columns, 1
        )
        assert len(result.steps_per_second) == (1 if result.method in benchmark.METHODS["density"] else 0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[-len(results) :]] == list(trained)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [figure["figures"] for figure in figures] == [result.figures for result in results]


def test_learning_rate_is_chosen_on_validation_scenes_and_seeds_are_spread(benchmark, model, monkeypatch):
    small = ["--steps", "1", "--batch_size", "2", "--train_scenes", "2", "--test_scenes", "2", "--image_size", "64"]
    arguments = benchmark.parse(
        [
            "--model",
            model,
            *small,
            "--methods",
            "lora",
            "--seeds",
            "3",
            "4",
            "5",
            "--learning_rates",
            "0.1",
            "0.2",
            "0.3",
        ]
    )
    bench = benchmark.Benchmark(arguments)
    asked = []

    def error(trainer, rows):
        asked.append((trainer.args.seed, trainer.args.learning_rate, rows is bench.task.validation_rows))
        # On the validation scenes 0.2 is best; on the others the larger the rate the better.
        return (
            abs(trainer.args.learning_rate - 0.2) if rows is bench.task.validation_rows else float(trainer.args.seed)
        )

    monkeypatch.setattr(benchmark, "error", error)
    result = bench.measure("lora")
    assert result.learning_rate == 0.2
    assert [entry for entry in asked if entry[2]] == [(3, 0.1, True), (3, 0.2, True), (3, 0.3, True)]
    assert [seed for seed, rate, _ in asked[3:] if rate == 0.2] == [3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert result.figures["MAE, unseen"] == [3.0, 4.0, 5.0]
    assert f"4.00 ± {statistics.stdev([3, 4, 5]):.2f}" in benchmark.table_row(result, bench.task.columns)


def test_parts_share_no_class(benchmark, model):
    small = ["--train_scenes", "12", "--test_scenes", "12", "--image_size", "64"]
    bench = benchmark.Benchmark(benchmark.parse(["--model", model, *small]))
    task = bench.task
    names_of = [{row["text"] for row in rows} for rows in (task.train_rows, task.validation_rows)]
    names_of.append({row["text"] for name in ("MAE, unseen", "MAE, before") for row in task.measured[name]})
    assert all(one.isdisjoint(other) for one, other in combinations(names_of, 2))
    assert {row["text"] for row in task.measured["MAE, seen"]}.isdisjoint(names_of[1] | names_of[2])
    assert (
        max(row["count"] for row in task.train_rows) > 10 >= max(row["count"] for row in task.measured["MAE, before"])
    )


@pytest.fixture
def clip(counting_model, counting_processor, tmp_path):
    counting_model.save_pretrained(tmp_path / "clip")
    counting_processor.save_pretrained(tmp_path / "clip")
    return str(tmp_path / "clip")


def test_every_method_is_measured_for_the_counting_clip_too(benchmark, clip, capsys):
    small = ["--steps", "1", "--batch_size", "4", "--train_scenes", "8", "--test_scenes", "9", "--image_size", "64"]
    options = ["--task", "counting", "--learning_rates", "0.001", "--seeds", "0"]
    results = benchmark.main(["--model", clip, *small, *options, "--bf16"])
    trained = {result.method: result.trained_parameters for result in results}
    assert list(trained) == ["guessing", "base, untrained", *benchmark.METHODS["counting"]]
    # Both trainings of a part of the model train the logit scale.
    assert trained["vision tower"] + trained["text tower"] == trained["full"] + 1
    assert trained["both"] == trained["visual_prompt"] + trained["context_prompt"] < trained["text tower"]
    for result in results[2:]:
        assert {name: len(values) for name, values in result.figures.items()} == dict.fromkeys(
            benchmark.CountingTask.columns, 1
        )
        assert all(0 <= figure <= 100 for values in result.figures.values() for figure in values)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-len(results)].startswith("| guessing | 0 |  |  |  | 11.1 % | 11.1 % |")


def test_parts_for_counting_share_no_class(benchmark, clip):
    small = ["--train_scenes", "18", "--test_scenes", "18", "--image_size", "64"]
    task = benchmark.Benchmark(benchmark.parse(["--task", "counting", "--model", clip, *small])).task
    names_of = [{row["name"] for row in rows} for rows in (task.train_rows, task.validation_rows, task.unseen_rows)]
    assert all(one.isdisjoint(other) for one, other in combinations(names_of, 2))
    assert {row["name"] for row in task.seen_rows}.isdisjoint(names_of[1] | names_of[2])
    for rows in (task.validation_rows, task.unseen_rows, task.seen_rows):
        assert sorted(row["number"] for row in rows) == sorted([*range(2, 11)] * 2)


def test_methods_of_the_other_task_are_refused(benchmark, clip, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse(["--task", "counting", "--model", clip, "--methods", "head"])
    assert "--methods of counting are 'full', 'vision tower'" in capsys.readouterr().err
