import json

import pytest

from count_clip.cli import main


@pytest.fixture
def run(counting_folder, capsys):
    def evaluate(*options):
        code = main(["evaluate", "relevance", "--model", counting_folder, *map(str, options)])
        return code, *capsys.readouterr()

    return evaluate


def test_scenes_give_a_table_figures_and_json(run, counting_folder, tmp_path):
    path, drawn = tmp_path / "result.json", tmp_path / "drawn"
    scenes = ("--limit", 9, "--image-size", 48, "--seed", 1, "--objects", "shapes")
    code, printed, remarks = run(
        *scenes, "--json", path, "--compare", counting_folder, "--figures", drawn, "--examples", 2
    )
    assert code in (0, 1)  # a caption may be longer than the tiny model reads
    record = json.loads(path.read_text())
    assert (record["benchmark"], record["format"], record["partial"]) == ("relevance", 1, True)
    assert record["run"]["data"]["config"] == "benchmark-shapes"
    assert record["run"]["data"]["fingerprint"]
    assert record["n"] == 9 - record["missing"] > 2
    metrics = record["metrics"]
    assert metrics["object_share_change"] == metrics["number_share_change"] == 0
    assert record["compared"]["metrics"]["object_share"] == metrics["object_share"]
    low, high = record["intervals"]["object_share"]
    assert low <= metrics["object_share"] <= high
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert f"{metrics['object_share']:.1%}" in lines["objects"]
    assert f"{metrics['number_token_share']:.1%}" in lines["number word"]
    assert "+0.0%" in lines["objects, change"]
    assert len(list(drawn.glob("*.png"))) == 2
    assert "drew 2 images" in remarks


def test_plain_scenes_too(run, tmp_path):
    path = tmp_path / "result.json"
    run("--config", "plain", "--limit", 9, "--image-size", 48, "--objects", "shapes", "--json", path)
    written = json.loads(path.read_text())
    assert written["run"]["data"]["config"] == "plain-shapes"
    assert written["n"] == 9 - written["missing"] > 2


def test_own_data_with_boxes(run, make_image, tmp_path):
    make_image(40, 40).save(tmp_path / "a.png")
    row = {"file_name": "a.png", "text": "two dogs", "boxes": [[0, 0, 20, 40]]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "text": "dogs"}))
    code, printed, remarks = run("--data", tmp_path / "rows.jsonl", "--score", "margin", "--start-layer", "-1")
    assert code == 1
    assert "1 images, relevance for the margin" in printed
    assert "50.0%" in printed
    assert "states no number from two to ten" in remarks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "density"], "only benchmark and plain of countscenes"),
        (["--split", "nowhere"], "nowhere"),
        (["--data", "gone.jsonl"], "gone.jsonl"),
        (["--start-layer", "9", "--limit", "1", "--objects", "shapes"], "`start_layer` from 0 to"),
    ],
)
def test_bad_input_ends_with_a_message(run, options, message):
    code, _, remarks = run(*options)
    assert code == 2
    assert message in remarks
