import io
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from count_clip.cli import main


def _png(color: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (color, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of captions with images, all of them whole."""
    folder = tmp_path / "shards"
    folder.mkdir()
    captions = ["two dogs", "Three cats on a mat", "two years ago", "a dog", None, "seven hens", "two cows"]
    for shard in range(2):
        images = [_png(10 * shard + place) for place in range(len(captions))]
        pq.write_table(pa.table({"caption": captions, "image": images}), folder / f"{shard}.parquet")
    return folder


def test_captions_are_filtered_into_a_set(shards: Path, tmp_path: Path, capsys) -> None:
    assert main(["data", "counting-set", str(shards), "--output", str(tmp_path / "set"), "--num-common", "2"]) == 0
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert lines[0] == ["stage", "all", "2", "3", "7"]
    assert lines[1] == ["captions", "14"]
    assert lines[2][-4:] == ["10", "6", "2", "2"]
    assert lines[3][-4:] == ["8", "4", "2", "2"]
    assert lines[4][-4:] == ["8", "4", "2", "2"]
    assert lines[5] == ["kept", "after", "balancing", "4", "1", "1", "2"]
    assert printed.out.endswith(f"1 file and a card in {tmp_path / 'set'}\n")
    assert "2 of 2 shards: 14 captions, 10 with a number word, 8 that count visible objects, 8 with" in printed.err
    rows = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows["number"]) == [2, 3, 7, 7]
    assert rows[0]["image"].size == (8, 6)


def test_a_second_call_does_nothing_and_prints_the_same(shards: Path, tmp_path: Path, capsys) -> None:
    arguments = [
        "data",
        "counting-set",
        str(shards),
        "--output",
        str(tmp_path / "set"),
        "--num-common",
        "all",
        "--json",
    ]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert first["is_new"]
    assert not again["is_new"]
    assert {**first, "is_new": False} == again
    assert first["kept"] == {"2": 4, "3": 2, "7": 2}
    assert first["totals"]["no_caption"] == 2
    assert first["reasons"] == {"time": 2}
    assert first["failures"] == first["unreadable_shards"] == 0


def test_lost_images_change_the_exit_code(shards: Path, tmp_path: Path, capsys) -> None:
    table = pa.table({"caption": ["two dogs", "three dogs"], "image": [_png(0), b"no image"]})
    pq.write_table(table, shards / "2.parquet")
    assert main(["data", "counting-set", str(shards), "--output", str(tmp_path / "set")]) == 1
    assert "1 images or shards were lost, see" in capsys.readouterr().err
    (failure,) = [json.loads(line) for line in (tmp_path / "set" / "failures.jsonl").read_text().splitlines()]
    assert (failure["source"], failure["row"]) == ("2.parquet", 1)


def test_options_reach_the_stages(shards: Path, tmp_path: Path, capsys) -> None:
    options = ["--numbers", "2", "7", "--no-text-filter", "--captions-only", "--seed", "4", "--rows-per-file", "3"]
    options += ["--num-common", "all", "--num-proc", "1", "--keep-parts", "--json", "--key-column", "caption"]
    assert main(["data", "counting-set", str(shards), "--output", str(tmp_path / "set"), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["kept"] == {"2": 6, "7": 2}
    assert len(result["files"]) == 3
    rows = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert set(rows["image"]) == {None}
    assert "two years ago" in rows["image_id"]
    stages = json.loads((tmp_path / "set" / "stages.json").read_text())
    assert stages["balancing"]["seed"] == 4
    assert (tmp_path / "set" / ".parts").is_dir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--caption-column", "alt"], "Expected a column 'alt' in"),
        (["--numbers", "1"], "numbers from 2 to 10"),
        (["--timeout", "0"], "Expected read_timeout to be more than 0"),
        (["--captions-only", "--detector", "x"], "it needs images"),
        (["--detector", "/nowhere/detector"], "/nowhere/detector"),
    ],
)
def test_errors_are_reported(shards: Path, tmp_path: Path, capsys, options: list[str], message: str) -> None:
    assert main(["data", "counting-set", str(shards), "--output", str(tmp_path / "set"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("count-clip: ")


def test_a_missing_source_is_reported(tmp_path: Path, capsys) -> None:
    assert main(["data", "counting-set", str(tmp_path / "none"), "--output", str(tmp_path / "set")]) == 2
    assert "is neither" in capsys.readouterr().err


def test_an_empty_set_changes_the_exit_code(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a dog"}\n')
    assert main(["data", "counting-set", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "set")]) == 1
    assert "kept after balancing    0" in capsys.readouterr().out
