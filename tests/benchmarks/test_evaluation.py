"""The benchmark of CountBench's protocol runs with a tiny model, and its ways have the same predictions."""

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from count_clip.datasets_scripts.captions.numbers import find_count


@pytest.fixture(scope="module")
def evaluation(request: pytest.FixtureRequest) -> ModuleType:
    """The benchmark, which is not in the package."""
    path = request.config.rootpath / "benchmarks" / "evaluation.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_evaluation", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _threads():
    """The benchmark sets the number of threads, which is that of the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_all_ways_predict_the_same(evaluation, capsys):
    evaluation.main(["--presets", "tiny", "--images", "11", "--slow_images", "3", "--threads", "1"])
    output = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2:]] == list(evaluation.WAYS)
    assert [row[1] for row in rows[2:]] == ["3", "11", "11", "11"]
    for row in rows[2:5]:
        assert row[5] == "100.00%"
        assert float(row[6]) < 2e-6
    assert all(float(row[2]) > 0 for row in rows[2:])
    assert "one pass is" in output


def test_half_precision_leaves_the_weights_as_they_were(evaluation, capsys):
    options = ["--presets", "tiny", "--images", "4", "--threads", "1", "--repeats", "2", "--ways"]
    evaluation.main([*options, "image by image", "one pass, bfloat16", "one pass"])
    last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| one pass |")]
    assert float(last[0].strip("| ").split("|")[-1]) < 2e-6


def test_captions_are_different_and_as_many_for_each_number(evaluation):
    captions = evaluation.made_up_captions(540)
    assert len({text for text, _ in captions}) == 540
    numbers = [number for _, number in captions]
    assert np.bincount(numbers).tolist() == [0, 0, *[60] * 9]
    for text, number in captions:
        assert find_count(text).number == number
    words = [len(text.split()) for text, _ in captions]
    assert 16 < np.mean(words) < 21, "CountBench's have 18.6 tokens between start and end"
    assert captions == evaluation.made_up_captions(540)


def test_captions_of_a_file_are_evenly_spaced(evaluation, tmp_path):
    file = tmp_path / "CountBench.json"
    file.write_text(str([{"text": f"two {i}", "number": 2} for i in range(9)]).replace("'", '"'), encoding="utf-8")
    assert evaluation.read_captions(str(file), 3) == [("two 0", 2), ("two 4", 2), ("two 8", 2)]
    assert len(evaluation.read_captions(str(file), 100)) == 9


def test_nothing_to_measure_is_rejected(evaluation):
    with pytest.raises(SystemExit):
        evaluation.main(["--images", "0"])
