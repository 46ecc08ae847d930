"""Classification, linear probes and few-shot curves from the command line."""

import json

import datasets
import pytest
from PIL import Image

from count_clip.cli import main


NAMES = ["red squares", "blue squares", "grey squares"]


@pytest.fixture
def labelled(make_image, tmp_path):
    """Images whose class shows in their colour, in splits; with columns of other names."""
    features = datasets.Features({"img": datasets.Image(), "colour": datasets.ClassLabel(names=NAMES)})

    def part(number, seed):
        records = []
        for index in range(number):
            dark = make_image(36, 36, seed + index).point(lambda value: value // 3)
            bands = list(dark.split())
            if index % 3 < 2:  # red or blue
                bands[2 * (index % 3)] = bands[2 * (index % 3)].point(lambda value: value + 170)
            records.append({"img": Image.merge("RGB", bands), "colour": index % 3})
        return datasets.Dataset.from_list(records, features=features)

    folder = tmp_path / "labelled"
    parts = {"train": part(24, 0), "validation": part(9, 100), "test": part(12, 200)}
    datasets.DatasetDict(parts).save_to_disk(folder)
    return folder


@pytest.fixture
def run(counting_folder, labelled, tmp_path, capsys):
    """Run a protocol on the labelled images; gives back the exit code, the result and what was printed."""

    def evaluate(benchmark, *options, data=labelled, code=0):
        output = tmp_path / "result.json"
        output.unlink(missing_ok=True)
        arguments = ["evaluate", benchmark, "--model", counting_folder, "--data", str(data), "--json", str(output)]
        columns = ["--image-column", "img", "--label-column", "colour"]
        assert main([*arguments, *columns, *map(str, options)]) == code
        return json.loads(output.read_text()) if output.exists() else None, capsys.readouterr()

    return evaluate


def test_classification_prints_what_it_writes(run):
    written, printed = run("classification")
    assert (written["benchmark"], written["n"], written["names"]) == ("classification", 12, NAMES)
    assert written["metrics"] == {key: written[key] for key in ("top_1", "top_5", "mean_per_class")}
    assert written["top_5"] is None
    assert f"{written['top_1']:.2%}" in printed.out
    assert "chance: 33.33%" in printed.out
    assert len(written["templates"]) >= 24
    assert all(name in printed.out for name in NAMES)
    assert written["run"]["data"]["split"] == "test"


def test_templates_and_names_are_options(run, tmp_path):
    names, templates = tmp_path / "names.txt", tmp_path / "templates.txt"
    names.write_text("fire\nsea\n\nfog\n")
    templates.write_text("a photo of {}.\n{} everywhere\n")
    written, _ = run("classification", "--names", names, "--templates", templates)
    assert written["names"] == ["fire", "sea", "fog"]
    assert written["templates"] == ["a photo of {}.", "{} everywhere"]
    written, _ = run("classification", "--template", "see: {}")
    assert written["templates"] == ["see: {}"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--template", "no place"], "one {} for the name in each template"),
        (["--templates", "gone.txt"], "gone.txt cannot be read"),
        (["--label-column", "name"], "lacks the column name; it has img, colour"),
        (["--split", "holdout"], "no split 'holdout'"),
    ],
)
def test_bad_options_of_classification_are_rejected(run, options, words):
    written, printed = run("classification", *options, code=2)
    assert written is None
    assert words in printed.err


def test_labels_without_names_are_refused_until_there_are_some(run, make_image, tmp_path):
    for index in range(3):
        make_image(36, 36, index).save(tmp_path / f"{index}.png")
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"img": f"{index}.png", "colour": index}) + "\n" for index in range(3)))
    _, printed = run("classification", data=data, code=2)
    assert "--names" in printed.err
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    _, printed = run("classification", "--names", names, data=data, code=2)
    assert "a name for class 2" in printed.err
    names.write_text("a\nb\nc\n")
    written, _ = run("classification", "--names", names, data=data)
    assert [row["label"] for row in written["rows"]] == ["a", "b", "c"]
    (tmp_path / "1.png").write_bytes(b"junk")
    written, printed = run("classification", "--names", names, data=data, code=1)
    assert (written["missing"], written["partial"]) == (1, True)
    assert "1.png" in printed.err


def test_a_linear_probe_learns_what_shows(run):
    written, printed = run("linear-probe")
    assert written["metrics"]["top_1"] > 0.8
    assert (written["train_rows"], written["validation_rows"]) == (24, 9)
    assert written["features"] == "tower"
    assert len(written["sweep"]) >= 11
    assert f"C = {written['c']:.4g}" in printed.out
    assert (written["run"]["data"]["rows"], written["run"]["data"]["train"]["rows"]) == (12, 24)
    projected, _ = run("linear-probe", "--features", "projected")
    assert projected["features"] == "projected"
    assert projected["rows"][0]["best"] != written["rows"][0]["best"]


def test_a_probe_without_validation_rows_takes_training_rows(run, labelled, tmp_path):
    parts = datasets.load_from_disk(labelled)
    datasets.DatasetDict({"train": parts["train"], "test": parts["test"]}).save_to_disk(tmp_path / "two")
    written, printed = run("linear-probe", data=tmp_path / "two")
    assert written["validation_from_train"]
    assert written["train_rows"] + written["validation_rows"] == 24
    assert "no split 'validation'" in printed.err
    _, printed = run("linear-probe", "--validation-split", "dev", data=tmp_path / "two", code=2)
    assert "no split 'dev'" in printed.err


def test_a_few_shot_curve_has_a_line_for_each_number(run):
    written, printed = run("few-shot", "--shots", 1, 4, "--draws", 2)
    assert [point["shots"] for point in written["curve"]] == [1, 4]
    assert written["metrics"] == {f"shots_{point['shots']}": point["mean"] for point in written["curve"]}
    lines = {line.split("  ")[0].strip(): line for line in printed.out.splitlines()}
    assert f"{written['curve'][1]['mean']:.2%}" in lines["4"]
    assert f"{written['zero_shot']:.2%}" in lines["0 (zero-shot)"]
    alone, _ = run("classification")
    assert alone["top_1"] == written["zero_shot"]


def test_a_cache_serves_all_parts(run, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first, _ = run("linear-probe", "--resume", cache)
    lines = len(cache.read_text().splitlines())
    assert lines == 1 + 24 + 9 + 12
    second, _ = run("linear-probe", "--resume", cache)
    assert second["metrics"] == first["metrics"]
    assert len(cache.read_text().splitlines()) == lines


def test_probes_train_on_other_scenes_of_the_same_classes(counting_folder, tmp_path, capsys):
    output = tmp_path / "result.json"
    arguments = ["evaluate", "linear-probe", "--model", counting_folder, "--limit", "12", "--train-limit", "40"]
    assert main([*arguments, "--json", str(output), "--max-iter", "3", "--image-size", "64"]) == 0
    written = json.loads(output.read_text())
    assert {row["label"] for row in written["rows"]} <= set(written["names"])
    about = written["run"]["data"]
    assert (about["rows"], about["train"]["rows"], about["validation"]["rows"]) == (12, 40, 8)
    assert "not converged after 3 iterations" in capsys.readouterr().out
    assert len({about["fingerprint"], about["train"]["fingerprint"], about["validation"]["fingerprint"]}) == 3


def test_missing_scikit_learn_is_reported_before_the_work(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _, printed = run("few-shot", code=2)
    assert "pip install 'count-clip[probe]'" in printed.err
