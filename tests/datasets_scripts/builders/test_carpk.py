from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from count_clip.datasets_scripts.schema import density_features


Load = Callable[..., Any]


def data_of(carpk: Path) -> Path:
    return carpk / "CARPK_devkit" / "data"


def test_rows_are_the_authors_annotations(carpk: Path, load: Load) -> None:
    rows = load("carpk", data_dir=str(carpk))
    assert {split: (rows[split]["image_id"][:], rows[split]["count"][:]) for split in rows} == {
        "train": (["20160331_NTU_00001", "20160331_NTU_00002"], [2, 0]),
        "test": (["20161030_GF2_00104"], [1]),
    }
    assert rows["train"].features == density_features()
    row = rows["train"][0]
    assert (row["text"], row["image"].size, row["note"]) == ("cars", (40, 30), None)
    assert row["boxes"] == [[2, 3, 12, 9], [20, 4, 30, 11]]
    assert row["points"] == [[7, 6], [25, 7.5]]
    assert rows["train"].info.license == "for academic research only"
    assert "Spatially Regularized" in rows["train"].info.citation


def test_pucpr_is_a_configuration(carpk: Path, load: Load) -> None:
    rows = load("carpk", "pucpr", data_dir=str(carpk))
    assert {split: rows[split]["image_id"][:] for split in rows} == {
        "train": ["2012-09-11_15_53_00"],
        "test": ["2012-12-07_17_17_11"],
    }
    assert "PUCPR+" in rows["train"].info.description
    assert "train: 1 of the published 100 images, 1 objects." in rows["train"].info.description


@pytest.mark.parametrize("place", ["CARPK_devkit", "CARPK_devkit/data"])
def test_any_level_of_the_devkit_will_do(carpk: Path, load: Load, place: str) -> None:
    assert len(load("carpk", data_dir=str(carpk / place), split="train")) == 2


def test_the_other_set_is_not_taken_for_this_one(carpk: Path, load: Load) -> None:
    with pytest.raises(ValueError, match=r"Expected CARPK_devkit in .*, but .* is of PUCPR\+_devkit"):
        load("carpk", data_dir=str(carpk / "PUCPR+_devkit"), streaming=True)


def test_odd_boxes_are_counted_and_noted(carpk: Path, load: Load) -> None:
    annotation = data_of(carpk) / "Annotations" / "20160331_NTU_00001.txt"
    annotation.write_text("12 9 2 3 1\n2 3 12 9 1\n\n39 28 41 31 1\n5 5 5 9 1\n")
    rows = load("carpk", data_dir=str(carpk), split="train")
    assert rows[0]["boxes"] == [[2, 3, 12, 9], [2, 3, 12, 9], [39, 28, 40, 30], [5, 5, 5, 9]]
    assert rows[0]["count"] == len(rows[0]["points"]) == 4
    assert rows[0]["note"] == (
        "1 of the 4 boxes the same as another; 1 of the 4 boxes written from another corner, turned; 1 of the 4 boxes "
        "reaching a little outside, cut at the edge; 1 of the 4 boxes without area"
    )
    assert "Images with boxes without area: 1 (20160331_NTU_00001)." in rows.info.description


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2 3 4", r"x0 y0 x1 y1 and the class 1 in line 1 of .*00104\.txt, but got '1 2 3 4'"),
        ("1 2 3 4 2", "and the class 1 in line 1"),
        ("1 2 x 4 1", "a number in line 1 of .*, but got 'x'"),
        ("1 2 inf 4 1", "a number in line 1 of .*, but got 'inf'"),
        (
            "-30 2 3 4 1",
            r"box 0 of .*00104\.txt to be inside the image of 40 x 30 .* got \(-30, 2\) to \(3, 4\)",
        ),
        ("1 2 1e30 4 1", "to be inside the image of 40 x 30 pixels"),
    ],
)
def test_impossible_lines_are_named(carpk: Path, load: Load, line: str, message: str) -> None:
    (data_of(carpk) / "Annotations" / "20161030_GF2_00104.txt").write_text(line)
    with pytest.raises(ValueError, match=message):
        load("carpk", data_dir=str(carpk), streaming=True)


@pytest.mark.parametrize(
    ("folder", "name"), [("Images", "20161030_GF2_00104.png"), ("Annotations", "20161030_GF2_00104.txt")]
)
def test_missing_images_and_annotations_are_named_or_left_out(carpk: Path, load: Load, folder: str, name: str) -> None:
    (data_of(carpk) / folder / name).unlink()
    what = rf"in {folder} for each name in ImageSets/test\.txt in .*CARPK_devkit/data, but 1 are missing: 20161030_GF2"
    with pytest.raises(FileNotFoundError, match=rf"{what}.*lafi\.github\.io"):
        load("carpk", data_dir=str(carpk), streaming=True)
    rows = load("carpk", data_dir=str(carpk), missing="leave_out")
    assert list(rows) == ["train"]
    assert f"in {folder} for each name in ImageSets/test.txt: 1 (20161030_GF2_00104)" in rows["train"].info.description


def test_images_in_no_split_are_listed(carpk: Path, load: Load, save_image: Callable) -> None:
    save_image(data_of(carpk) / "Images" / "extra.png")
    rows = load("carpk", data_dir=str(carpk), split="train", streaming=True)
    assert "Images in no split: 1 (extra)." in rows.info.description


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"name of an image on each line of .*train\.txt, but it is empty"),
        ("a\nb\na\n", r"each image once in .*train\.txt, but 'a' is listed twice"),
        ("20161030_GF2_00104\n", "no image in both splits of .*, but '20161030_GF2_00104' is"),
        ("../../../secret\n", "which leads out of it"),
    ],
    ids=["empty split", "duplicate ids", "both", "out"],
)
def test_bad_lists_are_named(carpk: Path, load: Load, content: str, message: str) -> None:
    (data_of(carpk) / "ImageSets" / "train.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        load("carpk", data_dir=str(carpk), streaming=True)


def test_missing_lists_are_named(carpk: Path, tmp_path: Path, load: Load) -> None:
    (data_of(carpk) / "ImageSets" / "test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.txt, but there is none \(there are: train\.txt\)"):
        load("carpk", data_dir=str(carpk), streaming=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"Expected ImageSets in .*empty .*it is empty\)\. https://lafi"):
        load("carpk", data_dir=str(tmp_path / "empty"), streaming=True)
