"""What all evaluations share on the command line: the record, resuming, parts of data, cards, bad input."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import BertConfig, BertModel

from count_clip.cli import main
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel


@pytest.fixture
def density_rows(make_image, tmp_path) -> str:
    """Six images with counts, one of which is not there."""
    records = []
    for index in range(6):
        name = f"{index}.png"
        if index != 4:
            make_image(50, 60, index).save(tmp_path / name)
        records.append(
            {"file_name": name, "image_id": f"p{index}", "text": ["cats", "dogs"][index % 2], "count": index}
        )
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(data)


def _run(*arguments, code=0):
    assert main(["evaluate", *map(str, arguments)]) == code


def test_result_records_how_to_repeat_it(density_folder, density_rows, tmp_path, capsys):
    output = tmp_path / "result.json"
    options = ["--data", density_rows, "--limit", 3, "--seed", 2, "--dtype", "bfloat16", "--json", output]
    _run("density", "--model", density_folder, *options)
    written = json.loads(output.read_text())
    run = written["run"]
    assert (written["benchmark"], written["format"]) == ("density", 1)
    assert run["model"]["sha256"]
    assert (run["model"]["name"], run["model"]["model_type"]) == (density_folder, "clip_count_density")
    assert (run["data"]["name"], run["data"]["split"], run["data"]["rows"]) == (density_rows, "test", 3)
    assert (run["seed"], run["dtype"], run["device"]) == (2, "bfloat16", "cpu")
    assert run["seconds"] > 0
    assert written["metrics"]["mae"] == written["mae"]
    low, high = written["intervals"]["mae"]
    assert low <= written["mae"] <= high
    # The command that it holds gives the same figures.
    again = tmp_path / "again.json"
    command = shlex.split(run["command"])
    assert command[0] == "count-clip"
    assert main([*command[1:-1], str(again)]) == 0
    assert json.loads(again.read_text())["mae"] == pytest.approx(written["mae"], rel=1e-2)


def test_a_part_of_the_data_is_called_a_part(density_folder, density_rows, tmp_path, capsys):
    output = tmp_path / "result.json"
    _run("density", "--model", density_folder, "--data", density_rows, "--json", output, code=1)
    written = json.loads(output.read_text())
    captured = capsys.readouterr()
    assert (written["partial"], written["missing"]) == (True, 1)
    assert "PARTIAL: 1 of 6 rows could not be measured" in captured.out
    assert "row 4 (p4)" in captured.err
    assert [row["image_id"] for row in written["skipped"]] == ["p4"]
    _run("density", "--model", density_folder, "--data", density_rows, "--limit", 3, "--json", output)
    written = json.loads(output.read_text())
    assert (written["partial"], written["missing"]) == (True, 0)
    assert (written["run"]["data"]["rows"], written["run"]["data"]["total"]) == (3, 6)
    assert "PARTIAL: only 3 of 6 rows were to be measured" in capsys.readouterr().out


def test_all_of_the_data_is_no_part(density_folder, make_image, tmp_path, capsys):
    make_image(50, 60).save(tmp_path / "a.png")
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"file_name": "a.png", "text": "cats", "count": 2}))
    output = tmp_path / "result.json"
    _run("density", "--model", density_folder, "--data", data, "--json", output)
    assert json.loads(output.read_text())["partial"] is False
    assert "PARTIAL" not in capsys.readouterr().out


def test_the_same_data_has_the_same_fingerprint_and_other_data_another(density_folder, density_rows, tmp_path, capsys):
    def fingerprint():
        output = tmp_path / "result.json"
        _run("density", "--model", density_folder, "--data", density_rows, "--limit", 2, "--json", output)
        return json.loads(output.read_text())["run"]["data"]["fingerprint"]

    one = fingerprint()
    assert one == fingerprint()
    data = Path(density_rows)
    data.write_text(data.read_text().replace('"count": 1', '"count": 7'))
    assert fingerprint() != one


def test_data_of_the_hub_is_recorded_by_its_commit(
    hub_here, counting_folder, make_image, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub_here.url)
    api = HfApi(endpoint=hub_here.url, token="hf_test")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cats", "dogs"])})
    rows = datasets.Dataset.from_list([{"image": make_image(40, 40, i), "label": i % 2} for i in range(4)], features)
    rows.to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    for repo_type, name, folder in (
        ("model", "org/measured", counting_folder),
        ("dataset", "org/labels", tmp_path / "data"),
    ):
        api.create_repo(name, repo_type=repo_type)
        api.upload_folder(
            folder_path=folder, repo_id=name, repo_type=repo_type, path_in_repo="." if repo_type == "model" else "data"
        )
    commits = [
        hub_here.repositories[one].commits[-1][0] for one in (("model", "org/measured"), ("dataset", "org/labels"))
    ]
    output, cache = tmp_path / "result.json", tmp_path / "cache"
    options = ["--data", "org/labels", "--json", output, "--resume", cache]
    _run("classification", "--model", "org/measured", *options)
    run = json.loads(output.read_text())["run"]
    assert [run["model"]["revision"], run["data"]["revision"]] == commits
    assert run["model"]["sha256"] is None
    # By its commit it is the same model.
    _run("classification", "--model", "org/measured", "--revision", commits[0], *options)
    assert json.loads(output.read_text())["run"]["model"]["revision"] == commits[0]
    _run("classification", "--model", "org/measured", "--revision", "nowhere", *options, code=2)
    assert "nowhere" in capsys.readouterr().err


def test_windows_follow_the_option(density_folder, make_image, tmp_path, capsys):
    make_image(50, 150).save(tmp_path / "a.png")
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"file_name": "a.png", "text": "cats", "count": 2}))
    predicted = {}
    for window in ("sliding", "whole"):
        output = tmp_path / f"{window}.json"
        _run("density", "--model", density_folder, "--data", data, "--window", window, "--json", output)
        predicted[window] = json.loads(output.read_text())["predictions"][0]["predicted"]
    assert predicted["sliding"] != pytest.approx(predicted["whole"], rel=1e-3)


@pytest.mark.parametrize("benchmark", ["density", "praco"])
def test_what_is_known_is_not_measured_again(benchmark, density_folder, density_rows, tmp_path, capsys, monkeypatch):
    options = [benchmark, "--model", density_folder, "--data", density_rows]
    options += ["--unlisted-are-absent"] if benchmark == "praco" else []
    cache, one, two = tmp_path / "cache", tmp_path / "1.json", tmp_path / "2.json"
    _run(*options, "--resume", cache, "--json", one, code=1)
    monkeypatch.setattr(CLIPCountDensityModel, "forward", None)  # would be called
    _run(*options, "--resume", cache, "--json", two, code=1)
    first, second = json.loads(one.read_text()), json.loads(two.read_text())
    assert first["metrics"] == second["metrics"]
    assert first["run"]["model"] == second["run"]["model"]
    _run(*options, "--resume", cache, "--window", "whole", code=2)
    assert "window was None and is 'whole'" in capsys.readouterr().err


def test_one_cache_serves_all_that_the_towers_are_for(counting_folder, tmp_path, capsys):
    cache = tmp_path / "cache"
    options = ["--model", counting_folder, "--limit", 18, "--image-size", 48, "--resume", cache]
    _run("countbench", *options)
    size = cache.stat().st_size
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    _run("countbench", *options, "--json", one)
    assert cache.stat().st_size == size
    _run("classification", *options, "--config", "benchmark", "--template", "{}", "--json", two)
    lines = cache.read_text().splitlines()
    names = json.loads(two.read_text())["names"]
    assert len(lines) == len(set(lines))
    # The images are known; sentences are not, but for those that are alike.
    assert size < cache.stat().st_size
    before = [line for line in lines if len(line) < size]
    assert len(before) >= len(names)


def test_a_cache_of_another_model_is_refused(counting_folder, counting_model, counting_processor, tmp_path, capsys):
    other, cache = tmp_path / "other", tmp_path / "cache"
    torch.nn.init.normal_(counting_model.visual_projection.weight)
    counting_model.save_pretrained(other)
    counting_processor.save_pretrained(other)
    options = ["--limit", 9, "--image-size", 48, "--resume", cache]
    _run("countbench", "--model", counting_folder, *options)
    _run("countbench", "--model", other, *options, code=2)
    assert "--resume" in (error := capsys.readouterr().err)
    assert "sha256" in error
    _run("countbench", "--model", counting_folder, *options, "--dtype", "bfloat16", code=2)
    assert "dtype was 'float32' and is 'bfloat16'" in capsys.readouterr().err
    # The same weights in another place are the same model.
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", counting_folder, str(copy)], check=True)
    _run("countbench", "--model", copy, *options)


@pytest.mark.timeout(150)
def test_a_killed_run_resumes(density_folder, make_image, tmp_path):
    """The process is killed at any moment."""
    number = 25
    records = []
    for index in range(number):
        make_image(48, 48, index).save(tmp_path / f"{index}.png")
        records.append({"file_name": f"{index}.png", "text": "cats", "count": index})
    data, cache, output = tmp_path / "rows.jsonl", tmp_path / "results.jsonl", tmp_path / "result.json"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    arguments = ["evaluate", "density", "--model", density_folder, "--data", str(data), "--batch-size", "1"]
    arguments += ["--resume", str(cache), "--json", str(output)]
    program = (
        "import sys, time\n"
        "from count_clip.cli import main\n"
        "from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel\n"
        "inner = CLIPCountDensityModel.forward\n"
        "def slow(*arguments, **options):\n"
        "    time.sleep(0.05)\n"
        "    return inner(*arguments, **options)\n"
        "CLIPCountDensityModel.forward = slow\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], env=environment, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 100
    while (
        time.monotonic() < ends
        and process.poll() is None
        and not (cache.exists() and len(cache.read_bytes().splitlines()) > 5)
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    known = len(cache.read_bytes().splitlines()) - 1
    assert 5 <= known < number
    assert not output.exists()
    before = cache.read_bytes()
    assert main(arguments) == 0
    assert cache.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert len(cache.read_bytes().splitlines()) == 1 + number
    written = json.loads(output.read_text())
    assert [row["count"] for row in written["predictions"]] == list(range(number))


def test_interrupted_run_names_its_cache(density_folder, density_rows, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(CLIPCountDensityModel, "forward", interrupted)
    options = ["density", "--model", density_folder, "--data", density_rows]
    _run(*options, "--resume", tmp_path / "cache", code=130)
    assert f"the same command resumes from {tmp_path / 'cache'}" in capsys.readouterr().err


def test_figures_go_into_the_card(counting_folder, tmp_path, capsys):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n")
    _run("countbench", "--model", counting_folder, "--limit", 9, "--image-size", 48, "--model-card", tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "mit"
    assert card.text.strip() == "# Mine"
    (accuracy,) = [one for one in card.data.eval_results if one.metric_type == "accuracy"]
    assert accuracy.dataset_name == "countscenes (9 of 540 rows)"
    assert 0 <= accuracy.metric_value <= 1
    _run("countbench", "--model", counting_folder, "--model-card", tmp_path / "gone", code=2)
    assert "no folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def text_model(tmp_path_factory) -> str:
    """A model that sees nothing."""
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(folder)
    return str(folder)


CLIP_BENCHMARKS = ("countbench", "classification", "linear-probe", "few-shot")


@pytest.mark.parametrize("benchmark", [*CLIP_BENCHMARKS, "density", "praco"])
def test_other_model_types_are_rejected(benchmark, text_model, density_folder, counting_folder, capsys, monkeypatch):
    _run(benchmark, "--model", text_model, "--limit", 2, code=2)
    assert "'bert'" in capsys.readouterr().err
    wrong = density_folder if benchmark in CLIP_BENCHMARKS else counting_folder
    _run(benchmark, "--model", wrong, "--limit", 2, code=2)
    error = capsys.readouterr().err
    assert ("'clip_count_density'" if wrong == density_folder else "'count_clip'") in error
    assert ("expected a CLIP" if wrong == density_folder else "expected a density model") in error


@pytest.mark.parametrize("benchmark", [*CLIP_BENCHMARKS, "density", "praco"])
def test_missing_columns_and_empty_data_are_rejected(
    benchmark, density_folder, counting_folder, make_image, tmp_path, capsys
):
    model = counting_folder if benchmark in CLIP_BENCHMARKS else density_folder
    make_image(40, 40).save(tmp_path / "a.png")
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"file_name": "a.png", "words": "cats"}) + "\n")
    _run(benchmark, "--model", model, "--data", data, code=2)
    assert "lacks the column" in capsys.readouterr().err
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "image_id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "count": datasets.Value("int64"),
            "number": datasets.Value("int64"),
            "label": datasets.ClassLabel(names=["a", "b"]),
        }
    )
    empty = datasets.Dataset.from_dict({name: [] for name in features}, features=features)
    datasets.DatasetDict({"train": empty, "test": empty}).save_to_disk(tmp_path / "empty")
    _run(benchmark, "--model", model, "--data", tmp_path / "empty", code=2)
    assert "is empty" in capsys.readouterr().err


def test_counts_that_are_no_numbers_are_rejected(density_model, density_processor, density_rows, tmp_path, capsys):
    torch.nn.init.constant_(density_model.text_projection.weight, float("nan"))
    density_model.save_pretrained(tmp_path / "nan")
    density_processor.save_pretrained(tmp_path / "nan")
    output, cache = tmp_path / "result.json", tmp_path / "cache"
    options = ["--data", density_rows, "--json", output, "--resume", cache]
    _run("density", "--model", tmp_path / "nan", *options, code=2)
    assert "finite" in capsys.readouterr().err
    assert not output.exists()
    assert len(cache.read_text().splitlines()) == 1  # nothing that is no count is kept


@pytest.mark.parametrize("benchmark", ["countbench", "classification"])
def test_scores_that_are_no_numbers_are_rejected(benchmark, counting_model, counting_processor, tmp_path, capsys):
    torch.nn.init.constant_(counting_model.visual_projection.weight, float("nan"))
    counting_model.save_pretrained(tmp_path)
    counting_processor.save_pretrained(tmp_path)
    output = tmp_path / "result.json"
    _run(benchmark, "--model", tmp_path, "--limit", 4, "--image-size", 48, "--json", output, code=2)
    assert "NaN" in capsys.readouterr().err
    assert not output.exists()


def test_what_cannot_be_together_is_refused(density_folder, tmp_path, capsys):
    _run("density", "--model", density_folder, "--overlay", tmp_path / "o", "--resume", tmp_path / "j", code=2)
    assert "--overlay" in capsys.readouterr().err
    (tmp_path / "notes").write_text("mine")
    _run("density", "--model", density_folder, "--limit", 1, "--resume", tmp_path / "notes", code=2)
    assert "something else" in capsys.readouterr().err
    assert (tmp_path / "notes").read_text() == "mine"


def test_unknown_name_is_rejected(density_folder, capsys):
    _run("density", "--model", density_folder, "--data", "org/nowhere", code=2)
    error = capsys.readouterr().err
    assert "no data set org/nowhere on this machine" in error
    _run("density", "--model", density_folder, "--data", "fsc147", code=2)
    assert "data_dir" in capsys.readouterr().err
