"""The density benchmark runs with a tiny model and tabulates what was measured."""

import importlib.util
import sys
from types import ModuleType

import pytest
import torch

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel


@pytest.fixture(scope="module")
def density(request: pytest.FixtureRequest) -> ModuleType:
    """The benchmark, which is no part of the package."""
    path = request.config.rootpath / "benchmarks" / "density.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_density", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _threads():
    """The benchmark sets the number of threads, which is that of the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def table(output: str, first: str) -> list[list[str]]:
    """Rows of the table whose first column has this name."""
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} "))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


QUICK = ["--preset", "tiny", "--repeats", "1", "--threads", "1", "--no_memory"]


def test_every_way_is_in_the_table_once(density, capsys):
    ways = ["floor", "plain", "eager", "sdpa", "optimized", "whole"]
    density.main([*QUICK, "--ways", *ways])
    output = capsys.readouterr().out
    rows = table(output, "image")
    expected = []
    for dtype in ("float32", "bfloat16"):
        for size in ("48 x 48", "48 x 144"):
            expected += [[size, "-" if way == "floor" else "1", dtype, way] for way in ways]
            expected += [[size, "10", dtype, way] for way in ("eager", "sdpa", "optimized", "whole")]
    assert [row[:4] for row in rows] == expected
    assert all(float(row[4]) > 0 and float(row[5]) > 0 for row in rows)
    assert all(float(row[5]) == 1.0 for row in rows if row[3] == "floor")
    # Everything that is asked for was measured.
    assert [row[2] for row in table(output, "ratio")] == ["<= 0.80", "<= 3.2", "<= 0.80", ">= 1.6", "<= 3.2"]
    assert float(output.split("`optimize_for_cpu`: ")[1]) < 1e-5


def test_ratios_are_those_of_the_table(density):
    def row(width: int, number: int, way: str) -> object:
        return density.Row(width, number, "float32", way)

    seconds = {row(1, 1, "floor"): 2.0, row(1, 1, "optimized"): 2.5, row(1, 10, "optimized"): 7.5}
    seconds |= {row(3, 1, "optimized"): 8.0, row(3, 1, "plain"): 14.0}
    seconds |= {density.Row(1, 1, "bfloat16", "optimized"): 0.1}
    found = {what: here for what, _, here in density.targets(seconds)}
    assert list(found.values()) == [1.25, 3.0, 1.75]
    assert [what.split(",")[0] for what in found] == ["optimized / floor", "ten prompts / one", "plain / optimized"]


def test_ways_take_turns_and_the_best_time_counts(density):
    clock, order = [0.0], []
    costs = {"a": iter([9.0, 3.0, 1.0, 2.0]), "b": iter([9.0, 5.0, 6.0, 4.0])}

    def run(name: str) -> None:
        order.append(name)
        clock[0] += next(costs[name])

    rows = {name: density.Row(1, 1, "float32", name) for name in costs}
    best = density.best_seconds({rows[name]: (lambda name=name: run(name)) for name in costs}, 3, lambda: clock[0])
    assert order == ["a", "b"] * 4
    assert best == {rows["a"]: 1.0, rows["b"]: 4.0}


def test_what_cannot_be_compiled_is_left_out_with_the_reason(density, capsys, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("No working C++ compiler found\nand more about it")

    monkeypatch.setattr(torch, "compile", refuse)
    density.main([*QUICK, "--ways", "sdpa", "compiled", "--widths", "1", "--num_prompts", "1", "--dtypes", "float32"])
    output = capsys.readouterr().out
    assert "Without compiled, because: No working C++ compiler found\n" in output
    assert [row[3] for row in table(output, "image")] == ["sdpa"]


def test_all_ways_but_the_whole_image_count_the_same(density, monkeypatch):
    """They are compared for their speed, so they have to do the same."""
    arguments = density.argparse.Namespace(model=None, preset="tiny", device="cpu")
    bench = density.build(arguments)
    monkeypatch.setattr(bench, "prompts", lambda number: torch.tensor([[62, 5, 6, 63]]).expand(number, -1))
    counts: list[torch.Tensor] = []
    for network in [bench.network(way) for way in ("plain", "optimized")]:  # the second is a copy of the first
        network.register_forward_hook(lambda *x: counts.append(x[-1].counts.detach().flatten()))
    found = {}
    for way in ("plain", "eager", "sdpa", "optimized", "whole"):
        counts.clear()
        bench.prepare(density.Row(3, 1, "float32", way))()
        found[way] = torch.cat(counts)
    assert found["whole"].shape == (1,)
    assert len(found["plain"]) == 4  # three windows' width, two thirds of a window apart
    for way in ("eager", "sdpa", "optimized"):
        torch.testing.assert_close(found[way], found["plain"], atol=1e-4, rtol=1e-5)


def test_memory_is_that_of_a_process_of_its_own(density, capsys):
    ballast = torch.ones(2**27)  # half a gigabyte, which is not the row's
    quick = [option for option in QUICK if option != "--no_memory"]
    density.main([*quick, "--ways", "sdpa", "--widths", "1", "--num_prompts", "1", "--dtypes", "float32"])
    ((*_, memory),) = table(capsys.readouterr().out, "image")
    assert 100 < float(memory) < density.own_peak_memory() - ballast.nbytes / 2**20 / 2


def test_large_scenes_have_objects_of_the_usual_size(density):
    alone = {"max_objects": 10, "distractor_probability": 0.0}
    usual = CountScenes("test", "density", num_scenes=40, image_size=64, objects="shapes", **alone)
    large = density.large_scenes(num_scenes=20, side=64, scale=2, max_objects=10)
    assert {row["image"].size for row in large} == {(128, 128)}
    most = max(row["count"] for row in large)
    assert 10 < most <= 40

    def mean_side(rows: CountScenes) -> float:
        sides = [right - left for row in rows for left, _, right, _ in row["boxes"]]
        return sum(sides) / len(sides)

    assert mean_side(large) == pytest.approx(mean_side(usual), rel=0.4)


def test_trained_model_is_measured_each_way(density, density_model, density_processor, tmp_path, capsys, monkeypatch):
    density_model.save_pretrained(tmp_path)
    density_processor.save_pretrained(tmp_path)
    seen: list[tuple[int, ...]] = []
    forward = CLIPCountDensityModel.forward

    def watch(self: CLIPCountDensityModel, **inputs: torch.Tensor) -> object:
        seen.append((len(inputs["pixel_values"]), *inputs["pixel_values"].shape[-2:]))
        return forward(self, **inputs)

    monkeypatch.setattr(CLIPCountDensityModel, "forward", watch)
    of_speed = [*QUICK, "--ways", "sdpa", "--widths", "1", "--dtypes", "float32"]
    density.main([*of_speed, "--model", str(tmp_path), "--num_scenes", "3", "--max_objects", "3"])
    rows = table(capsys.readouterr().out, "way")
    # A scene of 2 x 2 windows, two thirds of a window apart, or in one pass.
    assert (1, 96, 96) in seen
    assert sum(number for number, *size in seen if size == [48, 48]) > 2 * 3 * 9
    assert [row[:2] for row in rows] == [
        ["windows", "float32"],
        ["whole", "float32"],
        ["windows", "bfloat16"],
        ["whole", "bfloat16"],
    ]
    for _, _, mae, rmse, predicted, true in rows:
        # The mean error is at least that of the mean, and at most the root of the mean square.
        assert abs(float(predicted) - float(true)) - 0.01 <= float(mae) <= float(rmse) + 0.001
