"""The benchmark of the recipes, with towers of next to no size."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from count_clip.trainers.running.arguments import parse_run


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "recipes.py"
    spec = importlib.util.spec_from_file_location("recipes_benchmark", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def small(benchmark, monkeypatch):
    """The same towers, narrow and flat."""
    tower = {"hidden_size": 16, "num_hidden_layers": 12, "num_attention_heads": 2, "intermediate_size": 24}
    towers = {"vision": tower, "text": tower, "projection_dim": 128}
    sizes = dict.fromkeys(benchmark.SIZES, (towers, 32, 8))
    monkeypatch.setattr(benchmark, "SIZES", sizes)


@pytest.mark.parametrize(("name", "steps"), [("count_aware_clip", 10_000), ("fsc147_density:adapters", 220 * 115)])
def test_needs_are_those_of_the_whole_run(benchmark, small, monkeypatch, name, steps):
    ticks = iter(range(1000))
    monkeypatch.setattr(benchmark, "_now", lambda on_gpu: float(next(ticks)))
    needs = benchmark.measure(name, 1, 2, "cpu")
    # Each part of a step takes a second: the pass of two rows, and the optimizer.
    assert needs.step_seconds == needs.batch_size / 2 + 1
    assert needs.steps == steps
    assert needs.hours == pytest.approx(needs.step_seconds * steps / 3600)
    assert needs.teraflops_per_row > 0
    assert needs.memory_gib > needs.state_gib
    if name == "count_aware_clip":
        assert needs.trained == needs.parameters
        # Two checkpoints with two moments for each weight, and the result.
        assert needs.disk_gib == pytest.approx((2 * 3 + 1) * 4 * needs.parameters / 2**30)
    else:
        assert 0 < needs.trained < needs.parameters
        assert needs.disk_gib == pytest.approx((2 * 3 + 1) * 4 * needs.trained / 2**30)


def test_operations_are_those_of_the_layers(benchmark, small):
    """Against a sum over the matrices, passed once forward, once more for the chunks, and twice back."""
    needs = benchmark.measure("count_aware_clip", 1, 2, "cpu")
    width, inner = 16, 24
    patches, words = 16 + 1, benchmark.CAPTION_LENGTH

    def tower(tokens):
        return 12 * (2 * tokens * (4 * width * width + 2 * width * inner) + 4 * tokens * tokens * width)

    forward = tower(patches) + tower(words) + 2 * 16 * 3 * 8 * 8 * width + 2 * 2 * width * 128
    assert needs.teraflops_per_row * 1e12 == pytest.approx(4 * forward, rel=0.02)


def test_every_size_is_of_a_checkpoint_that_a_recipe_names(benchmark):
    named = set()
    for name in benchmark.all_runs():
        recipe, _, variant = name.partition(":")
        run, _ = parse_run(recipe, ["--config", variant] if variant else [])
        named.add(run.model_name_or_path or run.clip_name_or_path)
    assert named == set(benchmark.SIZES)


def test_sizes_are_those_of_the_published_checkpoints(benchmark):
    """Weights of OpenAI's CLIPs, as their files on the Hub have them."""
    import torch

    published = {"": 151_277_313, "b16": 149_620_737, "l14": 427_616_513, "l14-336": 427_944_193}
    for variant, number in published.items():
        run, _ = parse_run("count_aware_clip", ["--config", variant] if variant else [])
        with torch.device("meta"):
            model = benchmark.build(run)
        assert sum(parameter.numel() for parameter in model.parameters()) == number


def test_table_and_file_have_the_figures(benchmark, monkeypatch, tmp_path, capsys):
    found = benchmark.Needs(
        "fsc147_density:b32", "cpu", 2_000_000, 1_000_000, 32, 2, 100, 36.0, 1.0, 2.5, 0.5, 0.25, 0.125
    )
    monkeypatch.setattr(benchmark, "measure_apart", lambda name, arguments: found)
    output = tmp_path / "needs.json"
    assert benchmark.main(["--runs", "fsc147_density:b32", "--output", str(output)]) == [found]
    row = "| `fsc147_density:b32` | 2.0 M, 1.0 M | 32 | 0.125 | 36.00 | 100 | 1.0 | 0.5 GiB | 2.5 GiB (2) | 0.2 GiB |"
    assert row in capsys.readouterr().out
    assert json.loads(output.read_text())[0]["step_seconds"] == 36.0


@pytest.mark.parametrize("wrong", [["--runs", "fsc147_density:tpu"], ["--steps", "0"]])
def test_wrong_options_are_named(benchmark, wrong, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse(wrong)
    assert wrong[1] in capsys.readouterr().err or "--steps" in wrong
