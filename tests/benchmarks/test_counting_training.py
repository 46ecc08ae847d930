"""The benchmark of counting steps, with a model and batches of next to no size."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "counting_training.py"
    spec = importlib.util.spec_from_file_location("counting_training_benchmark", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_both_ways_are_timed_and_do_the_same(benchmark, tmp_path, capsys):
    small = ["--batch_size", "4", "--steps", "1", "--memory_batch_size", "8", "--chunk_sizes", "2"]
    figures = benchmark.main([*small, "--output", str(tmp_path / "figures.json"), "--device", "cpu"])
    assert [(x.counting_share, x.num_counterfactuals) for x in figures["speed"]] == list(benchmark.SETTINGS)
    for speed in figures["speed"]:
        assert speed.plain > 0
        assert speed.one_pass > 0
        assert speed.loss_difference < 1e-4
        assert speed.gradient_difference < 1e-3
    assert [memory.chunk_size for memory in figures["memory"]] == [None, 2]
    assert all(memory.mebibytes >= 0 for memory in figures["memory"])
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["speed"][0]["plain"] == figures["speed"][0].plain
    assert "| at once |" in capsys.readouterr().out


def test_ways_that_differ_are_not_timed(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "plain_loss", lambda model, batch: 2 * benchmark.one_pass_loss(model, batch))
    arguments = benchmark.parse(["--batch_size", "2", "--steps", "1", "--device", "cpu"])
    with pytest.raises(RuntimeError, match="The two ways differ by"):
        benchmark.measure_speed(arguments, 0.5, 1)


def test_plain_way_encodes_images_twice_and_wrong_captions_one_by_one(benchmark):
    arguments = benchmark.parse(["--batch_size", "4", "--device", "cpu"])
    model, processor = benchmark.load(arguments)
    [batch] = benchmark.make_batches(processor, arguments, 0.5, 3, 1)
    calls = {"vision": [], "text": []}
    for tower, sizes in calls.items():
        encoder = getattr(model, f"{tower}_model").encoder
        encoder.register_forward_hook(
            lambda module, args, kwargs, output, sizes=sizes: sizes.append(len(kwargs["inputs_embeds"])),
            with_kwargs=True,
        )
    with torch.no_grad():
        benchmark.plain_loss(model, batch)
        assert calls == {"vision": [4, 2], "text": [4, 2, *[1] * 6]}
        calls["vision"].clear(), calls["text"].clear()
        benchmark.one_pass_loss(model, batch)
        assert calls == {"vision": [4], "text": [10]}
