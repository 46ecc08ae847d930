"""What all builders promise, on each of them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from count_clip.datasets_scripts.builders import base as counting_set
from count_clip.datasets_scripts.builders.base import folder_fingerprint
from count_clip.datasets_scripts.formats.findings import Findings
from count_clip.datasets_scripts.registration import DATASETS
from count_clip.datasets_scripts.schema import caption_features, density_features, density_row, fill_row


Load = Callable[..., Any]

# (name, configuration, the fixture with its folder, options)
SETS = [
    ("fsc147", None, "fsc147", {}),
    ("fsc147", "descriptions", "fsc147", {"duplicate_points": "drop"}),
    ("fsc147", "coco", "fsc147", {}),
    ("carpk", None, "carpk", {}),
    ("carpk", "pucpr", "carpk", {}),
    ("shanghaitech", "part_A", "shanghaitech", {}),
    ("countbench", None, "countbench", {}),
    ("countbench", None, "countbench", {"missing": "keep"}),
    ("object_folder", "csv", "table", {"text": "birds"}),
]
each_set = pytest.mark.parametrize(("name", "config", "source", "options"), SETS)


@pytest.fixture
def table(tmp_path: Path, save_image: Callable) -> Path:
    folder = tmp_path / "birds"
    lines = ["file_name,x,y"]
    for place in range(5):
        save_image(folder / "images" / f"{place}.png", value=place * 30)
        # Numbers that 32 bits do not hold exactly.
        lines += [f"{place}.png,{x}.1,{x + 2}.3" for x in range(place)] or [f"{place}.png,,"]
    (folder / "points.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def folder(request: pytest.FixtureRequest, source: str) -> Path:
    return request.getfixturevalue(source)


@each_set
def test_streaming_gives_the_rows_of_loading(
    name: str, config: str | None, options: dict, folder: Path, load: Load, plain_rows: Callable
) -> None:
    loaded = load(name, config, data_dir=str(folder), **options)
    streamed = load(name, config, data_dir=str(folder), streaming=True, **options)
    assert list(streamed) == list(loaded)
    for split in loaded:
        rows = plain_rows(loaded[split])
        assert rows
        assert plain_rows(streamed[split]) == rows
        assert streamed[split].info.description == loaded[split].info.description


@pytest.mark.parametrize(("name", "config", "source", "options"), SETS[1::2])
def test_several_processes_give_the_same_rows_in_the_same_order(
    name: str, config: str | None, options: dict, folder: Path, load: Load, plain_rows: Callable, monkeypatch
) -> None:
    alone = load(name, config, data_dir=str(folder), **options)
    monkeypatch.setattr(counting_set, "SHARD_LENGTH", 1)
    together = load(name, config, data_dir=str(folder), num_proc=2, download_mode="force_redownload", **options)
    assert {split: plain_rows(together[split]) for split in together} == {
        split: plain_rows(alone[split]) for split in alone
    }


@each_set
def test_every_count_is_explained(name: str, config: str | None, options: dict, folder: Path, load: Load) -> None:
    for rows in load(name, config, data_dir=str(folder), **options).values():
        if "count" not in rows.column_names:
            assert set(caption_features()) <= set(rows.column_names)
            continue
        assert rows.features == density_features()
        for row in rows:
            assert row["count"] == len(row["points"]) or row["note"]
            assert all(len(row[column]) in (0, row["count"]) for column in ("boxes",))
            width, height = row["image"].size
            assert all(0 <= x < width and 0 <= y < height for x, y in row["points"])


@each_set
def test_description_names_no_place_of_this_machine(
    name: str, config: str | None, options: dict, folder: Path, load: Load
) -> None:
    for rows in load(name, config, data_dir=str(folder), streaming=True, **options).values():
        assert str(folder.parent) not in rows.info.description


def test_changed_folder_is_read_again(table: Path, load: Load, monkeypatch) -> None:
    options = {"data_dir": str(table), "text": "birds", "split": "train"}
    assert load("object_folder", "csv", **options)["count"][:] == [0, 1, 2, 3, 4]
    content = (table / "points.csv").read_text()
    (table / "points.csv").write_text(f"{content}\n4.png,9,9\n")
    assert load("object_folder", "csv", **options)["count"][:] == [0, 1, 2, 3, 5]
    monkeypatch.chdir(table.parent)
    assert load("object_folder", "csv", **{**options, "data_dir": "birds"})["count"][:] == [0, 1, 2, 3, 5]


def test_fingerprint_is_that_of_names_sizes_and_times(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "c.txt").write_text("1")
    before = folder_fingerprint(folder)
    (folder / ".hidden").write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "x").write_text("x")
    assert folder_fingerprint(folder) == folder_fingerprint(str(folder)) == before
    (folder / "b" / "c.txt").write_text("22")
    changed = folder_fingerprint(folder)
    os.utime(folder / "b" / "c.txt", (5, 5))
    touched = folder_fingerprint(folder)
    (folder / "b" / "c.txt").rename(folder / "b" / "d.txt")
    (folder / "dead").symlink_to(tmp_path / "nowhere")
    assert len({before, changed, touched, folder_fingerprint(folder), folder_fingerprint(tmp_path / "none")}) == 5


def test_every_registered_set_describes_itself_without_data() -> None:
    configs = {name: datasets.get_dataset_config_names(name) for name in DATASETS}
    assert configs["fsc147"] == ["default", "descriptions", "coco"]
    assert configs["carpk"] == ["carpk", "pucpr"]
    for name, names in configs.items():
        for config in names:
            info = datasets.load_dataset_builder(name, config).info
            assert {"image", "image_id", "text", "note"} <= set(info.features)
            assert info.description
            if name not in ("countscenes", "object_folder"):
                assert info.citation.startswith("@inproceedings{")
                assert info.license
                assert info.homepage.startswith("https://")


def test_unknown_configuration_is_named(load: Load) -> None:
    with pytest.raises(ValueError, match="part_C"):
        load("shanghaitech", "part_C", data_dir="x")


def test_findings_name_some_examples_and_everything_left_out() -> None:
    findings = Findings()
    assert (findings.lines(), findings.has_left_out) == ([], False)
    for place in range(1200):
        findings.add("odd", str(place))
    assert findings.lines(num_examples=2) == ["odd: 1,200 (0, 1, ...)."]
    for place in range(3):
        findings.add("gone", str(place), left_out=True)
    assert findings.has_left_out
    assert findings.lines(num_examples=2)[1] == "gone: 3 (0, 1, 2)."
    assert findings.lines(num_examples=2, every_left_out=False)[1] == "gone: 3 (0, 1, ...)."


# Rows


def test_count_without_its_points_needs_a_reason() -> None:
    row = density_row("a.png", "a", "birds", [[1, 2]], boxes=[(0, 0, 2, 4)])
    assert (row["count"], row["boxes"], row["exemplar_boxes"], row["note"]) == (1, [[0, 0, 2, 4]], [], None)
    with pytest.raises(ValueError, match="count of 'a' .'birds'. to be its number of points, but it is 3 with 1"):
        density_row("a.png", "a", "birds", [[1, 2]], count=3)
    assert density_row("a.png", "a", "birds", [[1, 2]], count=3, note="two are hidden")["count"] == 3


def test_left_out_columns_are_filled() -> None:
    row = fill_row({"text": "birds", "points": [[1.0, 2.0]]}, density_features())
    assert list(row) == list(density_features())
    assert (row["points"], row["boxes"], row["note"], row["image"]) == ([[1.0, 2.0]], [], None, None)
