"""`count-clip report`, on results that `count-clip evaluate` wrote."""

import base64
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from count_clip.cli import main


@pytest.fixture(scope="module")
def _evaluated(density_folder, counting_folder, tmp_path_factory):
    """Four images with captions and counts, and a result file of each of two benchmarks."""
    folder = tmp_path_factory.mktemp("evaluated")
    pixels, lines = np.random.default_rng(0), []
    for place, (word, number) in enumerate([("two", 2), ("three", 3), ("five", 5), ("ten", 10)]):
        image = pixels.integers(0, 256, (48, 48 + 8 * place, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{place}.png")
        row = {"file_name": f"{place}.png", "image_id": f"image {place}"}
        density = {**row, "text": "cats" if place < 2 else "dogs", "count": number}
        lines.append((density, {**row, "text": f"{word} <b>dogs</b>", "number": number}))
    for name, rows, model in zip(
        ("density", "countbench"), zip(*lines, strict=True), (density_folder, counting_folder), strict=True
    ):
        data = folder / f"{name}.jsonl"
        data.write_text("\n".join(map(json.dumps, rows)))
        arguments = ["--model", model, "--data", str(data), "--json", str(folder / f"{name}.json")]
        assert main(["evaluate", name, *arguments]) == 0
    return folder


@pytest.fixture
def rows(_evaluated, tmp_path):
    """The data of the results, to be changed."""
    for file in (*_evaluated.glob("*.png"), *_evaluated.glob("*.jsonl")):
        shutil.copy(file, tmp_path)
    return {name: tmp_path / f"{name}.jsonl" for name in ("density", "countbench")}


@pytest.fixture
def evaluated(_evaluated, rows, tmp_path):
    """The results, as if they had been measured on `rows`."""
    files = {name: tmp_path / f"{name}.json" for name in rows}
    for file in files.values():
        file.write_text((_evaluated / file.name).read_text().replace(str(_evaluated), str(tmp_path)))
    return files


@pytest.fixture
def report(tmp_path, capsys):
    """Run the command; returns its exit code, the page and stderr."""

    def run(*arguments, output=None):
        folder = output or tmp_path / "report"
        code = main(["report", *map(str, arguments), "--output", str(folder)])
        captured = capsys.readouterr()
        assert captured.out == ""
        page = folder / "index.html"
        return code, page.read_text(encoding="utf-8") if page.is_file() else None, captured.err

    return run


def test_a_page_of_two_benchmarks(report, evaluated):
    code, page, stderr = report(*evaluated.values())
    assert code == 0
    assert "2 results" in stderr
    mae = json.loads(evaluated["density"].read_text())["metrics"]["mae"]
    assert f"{mae:.2f}" in page
    assert "Confusion matrix of the numbers" in page
    assert "--images N" in page
    assert "<img" not in page


def test_a_folder_means_its_results(report, evaluated, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for file in evaluated.values():
        shutil.copy(file, folder)
    (folder / "notes.txt").write_text("not a result")
    assert report(folder)[0] == 0
    # The same twice is once.
    code, _, stderr = report(folder, evaluated["density"])
    assert code == 0
    assert "density.json is left out: it is identical to" in stderr
    (tmp_path / "empty").mkdir()
    code, _, stderr = report(tmp_path / "empty")
    assert code == 2
    assert "there is no result file (*.json) in" in stderr


def test_the_best_and_worst_images_with_their_maps(report, evaluated):
    code, page, stderr = report(*evaluated.values(), "--images", 1)
    assert code == 0, stderr
    images = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', page)
    right = sum(row["number"] == row["prediction"] for row in json.loads(evaluated["countbench"].read_text())["rows"])
    # Image and map: of density the best and the worst; of CountBench the worst, and the best if one was right.
    assert len(images) == 4 + 2 * (right < 4) + 2 * (right > 0)
    for data, _ in images:
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert image.format == "JPEG"
        assert max(image.size) <= 480
    assert any(alt.startswith("Density map: ") for _, alt in images)
    assert any("Words: " in alt for _, alt in images)
    assert "&lt;b&gt;dogs&lt;/b&gt;" in page
    assert "has changed" not in page
    assert report(*evaluated.values(), "--images", 1)[1] == page


def test_images_of_other_data_are_refused(report, evaluated, rows):
    lines = [json.loads(line) for line in rows["density"].read_text().splitlines()]
    lines[3]["count"] = 11
    rows["density"].write_text("\n".join(map(json.dumps, lines)))
    code, page, stderr = report(evaluated["density"], "--images", 4)
    assert code == 1
    reason = "its images cannot be shown: row 3 of the data has 11 objects now, but had 10"
    assert reason in stderr
    assert reason in page


def test_images_need_the_model_and_the_data(report, evaluated, rows):
    rows["density"].unlink()
    code, page, stderr = report(*evaluated.values(), "--images", 1)
    assert code == 1
    assert "density.json: its images cannot be shown: " in stderr
    assert "<img" in page  # the other result has some
    content = json.loads(evaluated["density"].read_text())
    content["run"]["command"] = "count-clip evaluate density --model m --future-option 'x"
    evaluated["density"].write_text(json.dumps(content))
    code, _, stderr = report(evaluated["density"], "--images", 1)
    assert code == 1
    assert "its images cannot be shown" in stderr


def test_good_results_beside_bad_ones_are_reported(report, evaluated, tmp_path):
    (tmp_path / "cut.json").write_text(evaluated["density"].read_text()[:300])
    (tmp_path / "other.json").write_text('{"benchmark": "<chess>"}')
    missing = tmp_path / "missing.json"
    code, page, stderr = report(evaluated["density"], tmp_path / "cut.json", tmp_path / "other.json", missing)
    assert code == 1
    for words in ("cut.json is cut off", "unknown benchmark '<chess>'", "missing.json cannot be read"):
        assert words in stderr
    assert "cut.json is cut off" in page
    assert "unknown benchmark &#39;&lt;chess&gt;&#39;" in page
    assert "1 results" in stderr


def test_without_a_good_result_there_is_no_page(report, tmp_path):
    (tmp_path / "bad.json").write_text("hello")
    code, page, stderr = report(tmp_path / "bad.json")
    assert (code, page) == (2, None)
    assert "bad.json is not a result file" in stderr
    assert "none of 1 files holds a result" in stderr


def test_a_place_that_cannot_be_written_is_refused_at_once(report, evaluated, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, stderr = report(evaluated["density"], output=tmp_path / "file")
    assert code == 2
    assert "cannot write into" in stderr
    assert (tmp_path / "file").read_text() == "in the way"
    code, _, stderr = report(evaluated["density"], output=tmp_path / "file" / "deep")
    assert code == 2
    if os.geteuid():  # nothing is closed to root
        (tmp_path / "closed").mkdir(mode=0o500)
        assert report(evaluated["density"], output=tmp_path / "closed")[0] == 2


def test_partial_results_are_labelled(report, rows, density_folder, tmp_path, capsys):
    (tmp_path / "1.png").unlink()
    result = tmp_path / "result.json"
    arguments = ["--model", density_folder, "--data", str(rows["density"]), "--json", str(result)]
    main(["evaluate", "density", *arguments])
    capsys.readouterr()
    code, page, _ = report(result)
    assert code == 0
    assert "partial: 1 rows could not be measured" in page
    assert "rows that could not be measured (1)" in page


@pytest.mark.parametrize("arguments", [[], ["a.json"], ["a.json", "--output", "x", "--images", "0"]])
def test_usage(arguments, capsys):
    assert main(["report", *arguments]) == 2
    assert "usage: count-clip report" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mean", "detector:org/owl"])
def test_baselines_have_no_images_to_show(report, evaluated, name):
    content = json.loads(evaluated["density"].read_text())
    content["run"]["model"]["name"] = name
    evaluated["density"].write_text(json.dumps(content))
    code, page, stderr = report(evaluated["density"], "--images", 1)
    assert code == 0, stderr
    assert "a baseline has no maps" in page
