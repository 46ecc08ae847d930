"""Baselines in the place of a model, and CountBench as it is published."""

import json
import shutil
import subprocess
import sys

import datasets
import pytest
from PIL import Image

from count_clip.cli import main


@pytest.fixture
def run(tmp_path, capsys):
    """Run an evaluation; gives back the result and what was printed."""

    def evaluate(*arguments, code=0):
        output = tmp_path / "result.json"
        output.unlink(missing_ok=True)
        assert main(["evaluate", *map(str, arguments), "--json", str(output)]) == code, capsys.readouterr().err
        return json.loads(output.read_text()) if output.exists() else None, capsys.readouterr()

    return evaluate


@pytest.fixture
def counted(make_image, tmp_path):
    """A data set with counts and a training part."""
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "count": datasets.Value("int64")}
    )

    def part(counts):
        rows = [{"image": make_image(40, 40, count), "text": "cats", "count": count} for count in counts]
        return datasets.Dataset.from_list(rows, features=features)

    folder = tmp_path / "counted"
    datasets.DatasetDict({"train": part([2, 4]), "test": part([3, 8])}).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("name", ["mean", "always-the-mean"])
def test_the_mean_is_measured_like_a_model(run, counted, name):
    written, printed = run("density", "--model", name, "--data", counted)
    assert [row["predicted"] for row in written["predictions"]] == [3.0, 3.0]
    assert written["metrics"]["mae"] == written["metrics"]["baseline_mae"] == 2.5
    assert written["run"]["model"]["model_type"] == "always-the-mean"
    assert written["run"]["model"]["count"] == 3.0
    assert "2.50" in printed.out


def test_the_result_is_written_despite_a_broken_pipe(counted, tmp_path):
    output = tmp_path / "result.json"
    options = ["--model", "mean", "--data", str(counted), "--json", str(output)]
    command = [sys.executable, "-m", "count_clip", "evaluate", "density", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.close()
        running.communicate(timeout=50)
    assert running.returncode != 0
    assert json.loads(output.read_text())["metrics"]["mae"] == 2.5


def test_mean_needs_a_training_split(run, counted):
    _, printed = run("density", "--model", "mean", "--data", counted, "--train-split", "other", code=2)
    assert "--train-split" in printed.err


def test_a_detector_is_measured_like_a_model(run, counted, owl_folder, tmp_path):
    options = ["--model", f"detector:{owl_folder}", "--data", counted, "--threshold", 0.3]
    written, _ = run("density", *options)
    about = written["run"]["model"]
    assert (about["model_type"], about["threshold"], about["max_overlap"]) == ("owlvit", 0.3, 0.5)
    assert about["sha256"]
    assert about["parameters"] > 1000
    counts = [row["predicted"] for row in written["predictions"]]
    assert all(count == int(count) for count in counts)
    cache = tmp_path / "cache"
    run("density", *options, "--resume", cache)
    again, _ = run("density", *options, "--resume", cache)
    assert [row["predicted"] for row in again["predictions"]] == counts
    overlays = tmp_path / "overlays"
    run("density", *options, "--overlay", overlays)
    assert len(list(overlays.iterdir())) == 2
    # What is counted depends on the threshold: its cache serves no other.
    _, printed = run("density", *options[:-1], 0.9, "--resume", cache, code=2)
    assert "threshold" in printed.err


def test_detectors_that_do_not_do_are_refused(run, counted, counting_folder, owl_folder):
    _, printed = run("density", "--model", f"detector:{counting_folder}", "--data", counted, code=2)
    assert "object detection" in printed.err
    options = ["--model", f"detector:{owl_folder}", "--data", counted]
    _, printed = run("density", *options, "--dtype", "bfloat16", code=2)
    assert "float32" in printed.err
    _, printed = run("density", *options, "--query", "nothing", code=2)
    assert "one {}" in printed.err
    _, printed = run("density", *options, "--threshold", 7, code=2)
    assert "from 0 to 1" in printed.err


def test_praco_measures_the_mean_and_a_detector(run, make_image, owl_folder, tmp_path):
    for name in "ab":
        make_image(48, 48, ord(name)).save(tmp_path / f"{name}.png")
    rows = [
        {"file_name": f"{name}.png", "image_id": name, "text": text, "count": 3 * (name == text)}
        for name in "ab"
        for text in "ab"
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written, _ = run("praco", "--model", f"detector:{owl_folder}", "--data", data, "--threshold", 0.3)
    assert written["num_images"] == 2
    _, printed = run("praco", "--model", "mean", "--data", data, code=2)
    assert "--train-split" in printed.err


@pytest.fixture
def countbench(tmp_path):
    """CountBench as it is published, with four captions; of the images one is not there and one is broken."""
    words = ["two", "three", "ten", "two"]
    entries = [
        {
            "text": f"{word} red cats",
            "number": {"two": 2, "three": 3, "ten": 10}[word],
            "image_url": f"https://x/{i}.png",
        }
        for i, word in enumerate(words)
    ]
    folder, images = tmp_path / "published", tmp_path / "elsewhere"
    folder.mkdir()
    images.mkdir()
    (folder / "CountBench.json").write_text(json.dumps(entries))
    for index in (0, 3):
        Image.new("RGB", (40, 40), (60 * index, 0, 0)).save(images / f"{index:03d}.png")
    (images / "001.png").write_bytes(b"junk")
    return folder, images


def test_the_published_benchmark_lists_what_is_missing(run, countbench, counting_folder, tmp_path, monkeypatch):
    folder, images = countbench
    options = ["--model", counting_folder, "--data", folder / "CountBench.json", "--images", images]
    written, printed = run("countbench", *options, code=1)
    assert (written["n"], written["missing"], written["partial"]) == (2, 2, True)
    assert [row["image_id"] for row in written["skipped"]] == ["001", "002"]
    assert [row["index"] for row in written["rows"]] == [0, 3]
    assert "PARTIAL: 2 of 4 rows could not be measured" in printed.out
    assert "row 2 (002)" in printed.err
    about = written["run"]["data"]
    assert (about["rows"], about["total"], about["split"]) == (4, 4, "test")
    # A relative path is one from here.
    monkeypatch.chdir(tmp_path)
    options[-1] = images.name
    assert run("countbench", *options, code=1)[0]["rows"] == written["rows"]
    # The same by the builder's name, with the images in the folder of the captions.
    shutil.copytree(images, folder / "images")
    by_name, _ = run("countbench", "--model", counting_folder, "--data", "countbench", "--data-dir", folder, code=1)
    assert by_name["rows"] == written["rows"]
    assert by_name["skipped"] == written["skipped"]
    # Or by the folder alone.
    assert run("countbench", "--model", counting_folder, "--data", folder, code=1)[0]["rows"] == written["rows"]


def test_missing_split_names_the_option(run, counting_folder, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "text": "two cats"}\n')
    _, printed = run("countbench", "--model", counting_folder, "--data", tmp_path, code=2)
    assert "Unknown split" in printed.err
    assert "['train']. Name one with --split." in printed.err


def test_other_images_are_not_taken_from_a_cache(run, countbench, counting_folder):
    folder, images = countbench
    options = ["--model", counting_folder, "--data", folder / "CountBench.json", "--images", images]
    assert run("countbench", *options, code=1)[0]["n"] == 2
    Image.new("RGB", (40, 40)).save(images / "002.png")
    assert run("countbench", *options, code=1)[0]["n"] == 3
    # With all images there, nothing is missing.
    Image.new("RGB", (40, 40)).save(images / "001.png")
    written, printed = run("countbench", *options)
    assert (written["n"], written["partial"]) == (4, False)
    assert "PARTIAL" not in printed.out


def test_a_benchmark_without_images_is_an_error(run, countbench, counting_folder):
    folder, images = countbench
    options = ["--model", counting_folder, "--data", folder / "CountBench.json"]
    _, printed = run("countbench", *options, code=2)
    assert "images" in printed.err
    _, printed = run("countbench", *options, "--images", images / "gone", code=2)
    assert "there is nothing" in printed.err


def test_baselines_answer_the_nine_way_question(run, countbench, owl_folder):
    folder, images = countbench
    data = ["--data", folder / "CountBench.json", "--images", images]
    written, printed = run("countbench", "--model", "mean", *data, code=1)
    assert [row["prediction"] for row in written["rows"]] == [6, 6]
    assert written["metrics"]["mean_deviation"] == 4.0
    assert "chance: 11.11%" in printed.out
    written, _ = run("countbench", "--model", f"detector:{owl_folder}", "--threshold", 0.3, *data, code=1)
    assert all(2 <= row["prediction"] <= 10 for row in written["rows"])
    assert written["run"]["model"]["model_type"] == "owlvit"
    assert written["missing"] == 2


def test_mean_predicts_the_most_frequent_training_number(run, tmp_path, make_image):
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "number": datasets.Value("int64")}
    )
    words = {2: "two", 3: "three", 9: "nine"}

    def part(numbers):
        rows = [{"image": make_image(40, 40, n), "text": f"{words[n]} cats", "number": n} for n in numbers]
        return datasets.Dataset.from_list(rows, features=features)

    datasets.DatasetDict({"train": part([9, 9, 2]), "test": part([3, 9])}).save_to_disk(tmp_path / "set")
    written, _ = run("countbench", "--model", "mean", "--data", tmp_path / "set")
    assert [row["prediction"] for row in written["rows"]] == [9, 9]
