"""`count-clip count` with a count-aware CLIP, which chooses a number from two to ten."""

import csv
import json
from pathlib import Path

import pytest

from count_clip.cli import main
from count_clip.modeling.pipeline_caption_counting import CaptionCountingPipeline


@pytest.fixture
def ranked(counting_model, counting_processor):
    """The best number and its score, as the pipeline gives them."""
    pipe = CaptionCountingPipeline(model=counting_model, processor=counting_processor, device="cpu")

    def rank(path, caption):
        best = pipe(str(path), text=caption)[0]
        return best["number"], best["score"]

    return rank


def test_a_clip_chooses_as_the_pipeline_does(photos, counting_folder, ranked, capsys):
    arguments = ["count", str(photos), "--text", "cats", "--text", "{} small dogs", "--model", counting_folder]
    assert main([*arguments, "--json", "--batch-size", "1"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(Path(record["file"]).name, record["text"]) for record in records] == [
        *(("a.png", "cats"), ("a.png", "{} small dogs"), ("b.JPG", "cats"), ("b.JPG", "{} small dogs"))
    ]
    captions = {"cats": "a photo of {} cats", "{} small dogs": "{} small dogs"}
    for record in records:
        number, score = ranked(record["file"], captions[record["text"]])
        assert record["count"] == number
        assert record["score"] == pytest.approx(score, abs=2e-4)
    assert (records[2]["width"], records[2]["height"]) == (48, 100)
    assert main(arguments) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [str(one["count"]) for one in records]


def test_bad_files_are_reported_and_the_rest_is_counted(photos, counting_folder, tmp_path, capsys):
    (photos / "c.png").write_bytes(b"\x89PNG broken")
    table = tmp_path / "counts.csv"
    arguments = ["count", str(photos), "--text", "cats", "--model", counting_folder, "--csv", str(table)]
    assert main(arguments) == 1
    assert "c.png cannot be read" in capsys.readouterr().err
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [bool(row["count"]) for row in rows] == [True, False, True]
    assert 2 <= int(rows[0]["count"]) <= 10


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--overlay", "drawn"], "predicts how many objects there are and not where: leave --overlay out"),
        (["--window", "whole"], "leave --window out"),
        (["--text", "cats and dogs and mice and hens and cows " * 9 + "{}"], "beyond the"),
    ],
)
def test_impossible_clip_export_is_rejected_before_writing(
    photos, counting_folder, tmp_path, monkeypatch, capsys, more, message
):
    monkeypatch.chdir(tmp_path)
    Path("counts.csv").write_text("earlier")
    arguments = ["count", str(photos), "--text", "cats", "--model", counting_folder, "--csv", "counts.csv", *more]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert Path("counts.csv").read_text() == "earlier"
