import gzip
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from count_clip.datasets_scripts.builders.fsc147 import FSC147Builder
from count_clip.datasets_scripts.schema import density_features


Load = Callable[..., Any]
REPEATED = "1 of the 3 points is the same as another"


def test_rows_are_the_authors_annotations(fsc147: Path, load: Load) -> None:
    rows = load("fsc147", data_dir=str(fsc147))
    assert {split: rows[split]["image_id"][:] for split in rows} == {
        "train": ["7", "9"],
        "validation": ["11", "12"],
        "test": ["2"],
    }
    assert rows["test"].features == density_features()
    row = rows["test"][0]
    assert row["image"].size == (60, 40)
    assert (row["text"], row["description"], row["count"], row["note"]) == ("sea shells", "the sea shells", 2, None)
    assert row["points"] == [[5.5, 6.25], [50, 39.5]]
    assert row["exemplar_boxes"] == [[0, 0, 9, 9], [40, 30, 60, 40], [4, 5, 8, 8]]
    assert row["boxes"] == []
    info = rows["test"].info
    assert "Learning To Count Everything" in info.citation
    assert "Open-world" not in info.citation
    assert info.license.startswith("mit")
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 2,
        "validation": 2,
        "test": 1,
    }


def test_configurations_are_the_parts_and_texts_of_the_set(fsc147: Path, load: Load) -> None:
    coco = load("fsc147", "coco", data_dir=str(fsc147))
    assert {split: coco[split]["text"][:] for split in coco} == {"validation": ["chairs"], "test": ["sea shells"]}
    described = load("fsc147", "descriptions", data_dir=str(fsc147))
    assert described["train"]["text"][:] == ["the the donuts in the tray", "the pens"]
    assert "Open-world" in described["train"].info.citation
    assert (
        "Descriptions with a word twice, as published: 1 (7.jpg: 'the the donuts"
        in described["train"].info.description
    )


def test_oddities_are_counted_and_noted(fsc147: Path, load: Load) -> None:
    rows = load("fsc147", data_dir=str(fsc147))
    donuts, pens = rows["train"]
    assert (donuts["count"], donuts["note"]) == (3, REPEATED)
    assert len(pens["exemplar_boxes"]) == 4
    assert pens["note"] == "1 of the 4 boxes the same as another"
    books = rows["validation"][0]
    assert books["points"] == [[pytest.approx(39.99), 0], [3, 3]]
    assert books["note"] == (
        "1 of the 2 points outside the image, moved to its edge; 1 of the 3 boxes reaching a little outside, cut at "
        "the edge"
    )
    assert rows["train"].info.description.splitlines()[2:] == [
        "train: 2 of the published 3,659 images, 4 objects.",
        "validation: 2 of the published 1,286 images, 3 objects.",
        "test: 1 of the published 1,190 images, 2 objects.",
        "Descriptions with a word twice, as published: 1 (7.jpg: 'the the donuts in the tray').",
        "Images with a class that are in no split: 1 (99.jpg).",
        "Images with the same point more than once, counted as often: 1 (7.jpg).",
        "Images with boxes the same as another: 2 (9.jpg, 12.jpg).",
        "Images with 4 example boxes instead of three, all kept: 1 (9.jpg).",
        "Example boxes that contain no point: 2 (9.jpg, 9.jpg).",
        "Images with points a little outside, moved to the edge: 1 (11.jpg).",
        "Images with boxes reaching a little outside, cut at the edge: 1 (11.jpg).",
    ]


def test_repeated_points_can_be_counted_once(fsc147: Path, load: Load) -> None:
    rows = load("fsc147", data_dir=str(fsc147), duplicate_points="drop", split="train")
    assert (rows[0]["count"], rows[0]["points"]) == (2, [[1, 1], [20, 20]])
    assert rows[0]["note"] == "1 of the 3 points left out, the same as another"
    assert "Images with the same point more than once, counted once: 1 (7.jpg)." in rows.info.description
    with pytest.raises(ValueError, match="duplicate_points to be one of keep, drop, but got 'merge'"):
        load("fsc147", data_dir=str(fsc147), duplicate_points="merge")


def test_density_maps_come_with_the_rows_if_they_are_wanted(fsc147: Path, load: Load) -> None:
    maps = fsc147 / "gt_density_map_adaptive_384_VarV2"
    with pytest.raises(FileNotFoundError, match=r"gt_density_map_adaptive_384_VarV2 in .*FSC147 .*links to the ima"):
        load("fsc147", "coco", data_dir=str(fsc147), density_maps=True)
    maps.mkdir()
    wanted = {"2": np.random.default_rng(0).random((40, 60)), "12": np.ones((40, 44), dtype=np.float32)}
    np.save(maps / "12.npy", wanted["12"])
    with pytest.raises(FileNotFoundError, match=r"a density map in gt_density_.* but 1 are missing: 2\.jpg"):
        load("fsc147", "coco", data_dir=str(fsc147), density_maps=True)
    np.save(maps / "2.npy", wanted["2"])
    rows = load("fsc147", "coco", data_dir=str(fsc147), density_maps=True)
    assert set(rows["test"].column_names) == {*density_features(), "density_map"}
    for split, stem in (("test", "2"), ("validation", "12")):
        np.testing.assert_array_equal(np.array(rows[split][0]["density_map"], np.float32), wanted[stem].astype("f4"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((60, 40)), r"2\.npy to hold 40 x 60 finite numbers, .* but got float64 of \(60, 40\)"),
        (np.full((40, 60), np.nan), r"to hold 40 x 60 finite numbers"),
        (np.array([{"code": "runs"}]), r"2\.npy to be an array of numbers, but it cannot be read: .*pickle"),
        (None, r"2\.npy to be an array of numbers, but it cannot be read"),
    ],
    ids=["turned", "no numbers", "objects", "cut"],
)
def test_bad_density_maps_are_named(fsc147: Path, load: Load, array: Any, message: str) -> None:
    maps = fsc147 / "gt_density_map_adaptive_384_VarV2"
    maps.mkdir()
    np.save(maps / "12.npy", np.zeros((40, 44)))
    if array is None:
        (maps / "2.npy").write_bytes((maps / "12.npy").read_bytes()[:500])
    else:
        np.save(maps / "2.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        list(load("fsc147", "coco", data_dir=str(fsc147), density_maps=True, split="test", streaming=True))


# What is missing


@pytest.mark.parametrize(
    "name",
    ["annotation_FSC147_384.json", "Train_Test_Val_FSC_147.json", "ImageClasses_FSC147.txt", "images_384_VarV2"],
)
def test_missing_files_are_named_with_where_to_get_them(fsc147: Path, load: Load, name: str) -> None:
    place = fsc147 / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} in .*FSC147 .*there are: .*github.com/cvlab-stonybrook"):
        load("fsc147", data_dir=str(fsc147), streaming=True)


def test_descriptions_are_needed_only_where_they_are_the_text(fsc147: Path, load: Load) -> None:
    (fsc147 / "FSC-147-D.json").unlink()
    assert load("fsc147", data_dir=str(fsc147), split="test")["description"][:] == [None]
    with pytest.raises(FileNotFoundError, match=r"FSC-147-D\.json in .*niki-amini-naieni"):
        load("fsc147", "descriptions", data_dir=str(fsc147), streaming=True)


def test_files_are_found_where_copies_have_them(fsc147: Path, load: Load) -> None:
    (fsc147 / "FSC_147").mkdir()
    for name in ("annotation_FSC147_384.json", "Train_Test_Val_FSC_147.json", "ImageClasses_FSC147.txt"):
        (fsc147 / name).rename(fsc147 / "FSC_147" / name)
    assert len(load("fsc147", data_dir=str(fsc147), split="train")) == 2


def test_image_without_annotation_is_named_or_left_out(fsc147: Path, load: Load, change_json: Callable) -> None:
    change_json(fsc147 / "annotation_FSC147_384.json", lambda content: content.pop("9.jpg"))
    message = r"an annotation in annotation_FSC147_384\.json .* but 1 are missing: 9\.jpg\. .*missing='leave_out'"
    with pytest.raises(FileNotFoundError, match=message):
        load("fsc147", data_dir=str(fsc147), streaming=True)
    rows = load("fsc147", data_dir=str(fsc147), missing="leave_out")
    assert rows["train"]["image_id"][:] == ["7"]
    assert "Left out, missing an annotation in annotation_FSC147_384.json" in rows["train"].info.description
    # Nothing is missing from a part that does not have it.
    assert len(load("fsc147", "coco", data_dir=str(fsc147), split="test")) == 1


def test_class_file_with_a_missing_image_is_named_or_left_out(fsc147: Path, load: Load) -> None:
    (fsc147 / "images_384_VarV2" / "11.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"the images of the splits in images_384_VarV2 .* missing: 11\.jpg"):
        load("fsc147", data_dir=str(fsc147), streaming=True)
    assert load("fsc147", data_dir=str(fsc147), missing="leave_out", split="validation")["image_id"][:] == ["12"]


def test_image_without_a_class_is_named(fsc147: Path, load: Load) -> None:
    file = fsc147 / "ImageClasses_FSC147.txt"
    file.write_text(file.read_text().replace("12.jpg\tchairs\n", ""))
    with pytest.raises(FileNotFoundError, match=r"a class in ImageClasses_FSC147\.txt .* 1 are missing: 12\.jpg"):
        load("fsc147", data_dir=str(fsc147), streaming=True)


# What cannot be right


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Train_Test_Val_FSC_147.json", lambda c: c["test"].clear(), "split 'test' of .*, but got an empty list"),
        ("Train_Test_Val_FSC_147.json", lambda c: c["val"].append("2.jpg"), r"'2\.jpg' occurs 2 times"),
        (
            "Train_Test_Val_FSC_147.json",
            lambda c: c["val_coco"].append("7.jpg"),
            r"those of 'val', but '7\.jpg'",
        ),
        ("Train_Test_Val_FSC_147.json", lambda c: c["val"].append(5), r"names of images in the split 'val'"),
        ("Train_Test_Val_FSC_147.json", lambda c: c.pop("train"), "to hold a list under 'train', but got keys"),
        (
            "annotation_FSC147_384.json",
            lambda c: c["2.jpg"]["points"].append([1e6, 3]),
            r"point 2 of .*, 2\.jpg to be inside the image of 60 x 40 pixels, but got \(1e\+06, 3\)",
        ),
        (
            "annotation_FSC147_384.json",
            lambda c: c["2.jpg"]["points"].append([5, -3]),
            r"point 2 of .*, 2\.jpg to be inside the image of 60 x 40 pixels, but got \(5, -3\)",
        ),
        (
            "annotation_FSC147_384.json",
            lambda c: c["2.jpg"]["points"].append([5, float("nan")]),
            r"2 numbers for .*2\.jpg, point 2, but got \[5, nan\]",
        ),
        ("annotation_FSC147_384.json", lambda c: c["2.jpg"].pop("points"), r"2\.jpg to hold a list under 'points'"),
        (
            "annotation_FSC147_384.json",
            lambda c: c["2.jpg"]["box_examples_coordinates"].append([0, 0, 5, 5]),
            r"corners \[x, y\] of example 3 of .*2\.jpg, but got \[0, 0, 5, 5\]",
        ),
        (
            "annotation_FSC147_384.json",
            lambda c: c["2.jpg"]["box_examples_coordinates"].append([[0, 0], [90, 5]]),
            r"box 3 of .*2\.jpg, example to be inside the image of 60 x 40 pixels, but got \(0, 0\) to \(90, 5\)",
        ),
        ("FSC-147-D.json", lambda c: c["2.jpg"].pop("text_description"), r"2\.jpg to have 'text_description'"),
    ],
)
def test_impossible_annotations_are_named(
    fsc147: Path, load: Load, change_json: Callable, name: str, change: Callable, message: str
) -> None:
    change_json(fsc147 / name, change)
    with pytest.raises(ValueError, match=message):
        load("fsc147", data_dir=str(fsc147), streaming=True)


@pytest.mark.parametrize("name", ["annotation_FSC147_384.json", "Train_Test_Val_FSC_147.json", "FSC-147-D.json"])
def test_json_cut_in_the_middle_is_named(fsc147: Path, load: Load, name: str) -> None:
    content = (fsc147 / name).read_text()
    (fsc147 / name).write_text(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{name} to be json, but it is not: .* cut short"):
        load("fsc147", data_dir=str(fsc147), streaming=True)
    (fsc147 / name).write_text("[]")
    with pytest.raises(ValueError, match=rf"{name} to hold an entry for each image or split, but got list of 0"):
        load("fsc147", data_dir=str(fsc147), streaming=True)


def test_image_annotated_twice_is_named(fsc147: Path, load: Load) -> None:
    file = fsc147 / "annotation_FSC147_384.json"
    file.write_text(file.read_text().replace('"12.jpg": {', '"2.jpg": {'))
    with pytest.raises(ValueError, match=r"each key of .*_FSC147_384\.json once, but '2\.jpg' is repeated"):
        load("fsc147", data_dir=str(fsc147), streaming=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("13.jpg", r"an image's name, a tab and its class in line 7"),
        ("2.jpg\tcars", r"line 7 has 'cars' for 2\.jpg"),
    ],
)
def test_bad_lines_of_the_class_file_are_named(fsc147: Path, load: Load, line: str, message: str) -> None:
    with (fsc147 / "ImageClasses_FSC147.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ValueError, match=message):
        load("fsc147", data_dir=str(fsc147), streaming=True)


def test_broken_image_is_named(fsc147: Path, load: Load) -> None:
    (fsc147 / "images_384_VarV2" / "2.jpg").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"an image at .*2\.jpg .*, but it cannot be read"):
        load("fsc147", data_dir=str(fsc147), streaming=True)


# The published files


@pytest.fixture
def published(shared: Path, tmp_path: Path, write_json: Callable) -> Path:
    """The authors' layout rebuilt from their published files, with blank images for those that have points."""
    source = shared / "data" / "fsc147"
    folder = tmp_path / "FSC147"
    images = folder / "images_384_VarV2"
    images.mkdir(parents=True)
    for name in ("Train_Test_Val_FSC_147.json", "ImageClasses_FSC147.txt", "FSC-147-D.json"):
        shutil.copy(source / name, folder / name)
    annotations = {}
    blank: dict[int, bytes] = {}
    with gzip.open(source / "points.jsonl.gz", "rt") as lines:
        for entry in map(json.loads, lines):
            # This copy writes example boxes as y0, x0, y1, x1.
            boxes = [[[x0, y0], [x0, y1], [x1, y1], [x1, y0]] for y0, x0, y1, x1 in entry["boxes"]]
            reach = max(x for x, _ in [*entry["points"], *(corner for box in boxes for corner in box)])
            width = int(reach // 64 + 1) * 64
            if width not in blank:
                stream = io.BytesIO()
                Image.new("1", (width, 384)).save(stream, "PNG")
                blank[width] = stream.getvalue()
            (images / entry["filename"]).write_bytes(blank[width])
            annotations[entry["filename"]] = {"box_examples_coordinates": boxes, "points": entry["points"]}
    write_json(folder / "annotation_FSC147_384.json", annotations)
    return folder


def test_published_files_have_the_known_faults(published: Path, load: Load) -> None:
    with pytest.raises(FileNotFoundError, match=r"but 1,336 are missing: 9\.jpg, 19\.jpg"):
        load("fsc147", data_dir=str(published), streaming=True)
    rows = load("fsc147", data_dir=str(published), missing="leave_out", streaming=True)
    lines = rows["train"].info.description.splitlines()
    assert lines[2:5] == [
        "train: 2,323 of the published 3,659 images, 101,047 objects.",
        "validation: 1,286 images, 82,042 objects.",
        "test: 1,190 images, 78,836 objects.",
    ]
    found = {line.partition(":")[0]: line.split(": ")[1].split()[0] for line in lines[5:]}
    assert found == {
        "Descriptions with a word twice, as published": "1",
        "Left out, missing an annotation in annotation_FSC147_384.json for each image of the splits": "1,336",
        # 6,146 rows for the 6,135 images of the splits.
        "Images with a class that are in no split": "11",
        "Images with an annotation that are in no split": "9",
        "Example boxes that contain no point": "126",
        "Images with 4 example boxes instead of three, all kept": "170",
        "Images with 5 example boxes instead of three, all kept": "13",
        "Images with 6 example boxes instead of three, all kept": "1",
        # 69 with one that is in no split.
        "Images with the same point more than once, counted as often": "68",
    }
    coco = load("fsc147", "coco", data_dir=str(published), streaming=True)
    assert coco["test"].info.description.splitlines()[2:4] == [
        "validation: 277 images, 24,665 objects.",
        "test: 282 images, 18,532 objects.",
    ]
    assert FSC147Builder.PUBLISHED_SIZES["coco"] == {"validation": 277, "test": 282}
