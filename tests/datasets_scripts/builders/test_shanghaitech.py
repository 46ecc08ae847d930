from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from count_clip.datasets_scripts.formats.mat import read_mat_points
from count_clip.datasets_scripts.schema import density_features


Load = Callable[..., Any]
scipy_io = pytest.importorskip("scipy.io")


def test_rows_are_the_authors_annotations(shanghaitech: Path, load: Load) -> None:
    rows = load("shanghaitech", "part_A", data_dir=str(shanghaitech))
    assert {split: (rows[split]["image_id"][:], rows[split]["count"][:]) for split in rows} == {
        "train": (["part_A/train/IMG_1", "part_A/train/IMG_2", "part_A/train/IMG_10"], [2, 1, 0]),
        "test": (["part_A/test/IMG_1"], [3]),
    }
    assert rows["train"].features == density_features()
    assert rows["train"][0]["points"] == [[1, 2], [30.5, 8]]
    assert rows["train"][0]["text"] == "people"
    assert rows["train"][1]["image"].mode == "L"
    assert rows["test"][0]["note"] == "1 of the 3 points is the same as another"
    assert "Multi-Column" in rows["train"].info.citation
    assert "Images with the same point more than once, counted as often: 1 (IMG_1)." in rows["train"].info.description


def test_copies_have_other_names(shanghaitech: Path, load: Load) -> None:
    for folder in (shanghaitech, shanghaitech.parent):
        rows = load("shanghaitech", "part_B", data_dir=str(folder))
        assert list(rows) == ["train"]
        assert rows["train"]["count"][:] == [1]
        assert "Missing splits: 1 (test)." in rows["train"].info.description
        assert "train: 1 of the published 400 images" in rows["train"].info.description


def test_a_part_is_required(shanghaitech: Path, load: Load) -> None:
    with pytest.raises(ValueError, match="name of a configuration, but got none. Choose 'part_A' or 'part_B'"):
        load("shanghaitech", data_dir=str(shanghaitech), streaming=True)
    with pytest.raises(FileNotFoundError, match=r"part_B_final or part_B .* in .*part_A_final .*desenzhou"):
        load("shanghaitech", "part_B", data_dir=str(shanghaitech / "part_A_final"), streaming=True)


def test_another_number_in_the_file_is_noted(shanghaitech: Path, load: Load, save_mat: Callable) -> None:
    save_mat(shanghaitech / "part_B/train_data/ground-truth/GT_IMG_1.mat", [[1, 1], [2, 2]], number=3)
    rows = load("shanghaitech", "part_B", data_dir=str(shanghaitech), split="train")
    assert (rows[0]["count"], rows[0]["note"]) == (2, "the annotation states 3")
    assert "Images whose annotation states another number: 1 (IMG_1)." in rows.info.description


@pytest.mark.parametrize("point", [[-9, 3], [3, 1e12], [41, 40]])
def test_points_far_outside_are_named(shanghaitech: Path, load: Load, save_mat: Callable, point: list) -> None:
    save_mat(shanghaitech / "part_B/train_data/ground-truth/GT_IMG_1.mat", [[1, 1], point])
    with pytest.raises(ValueError, match=r"point 1 of .*GT_IMG_1\.mat to be inside the image of 40 x 30 pixels"):
        load("shanghaitech", "part_B", data_dir=str(shanghaitech), streaming=True)


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("images/IMG_2.jpg", "an image in train/images for each annotation"),
        ("ground_truth/GT_IMG_2.mat", "an annotation in train/ground_truth for each image"),
    ],
)
def test_image_without_annotation_and_the_reverse(shanghaitech: Path, load: Load, place: str, what: str) -> None:
    (shanghaitech / "part_A_final" / "train_data" / place).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{what} in .*part_A_final, but 1 are missing: IMG_2\. "):
        load("shanghaitech", "part_A", data_dir=str(shanghaitech), streaming=True)
    rows = load("shanghaitech", "part_A", data_dir=str(shanghaitech), missing="leave_out", split="train")
    assert rows["count"][:] == [2, 0]
    assert f"Left out, missing {what}: 1 (IMG_2)." in rows.info.description


def test_split_without_images_is_named(shanghaitech: Path, load: Load) -> None:
    for file in (shanghaitech / "part_B" / "train_data").rglob("*.*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"Expected images in .*part_B/train_data/images, but there is none"):
        load("shanghaitech", "part_B", data_dir=str(shanghaitech), streaming=True)


# Files of another shape


def cell(value: Any) -> np.ndarray:
    array = np.empty((1, 1), dtype=object)
    array[0, 0] = value
    return array


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annPoints": np.ones((3, 2))}, "image_info, a cell with one structure of .*, but got NoneType"),
        ({"image_info": cell({"number": 3})}, "a structure with location in image_info of .*, but got void"),
        ({"image_info": cell({"location": np.ones((3, 3)), "number": 3})}, r"a row x, y .*float64 of shape \(3, 3\)"),
        ({"image_info": cell({"location": np.ones((2, 3, 2))})}, r"a row x, y for each point .*shape \(2, 3, 2\)"),
        ({"image_info": cell({"location": "heads"})}, "a row x, y for each point"),
        ({"image_info": cell({"location": np.ones((2, 2)), "number": [1, 2]})}, "one number in number of"),
        ({"image_info": np.ones((4, 2))}, r"a cell with one structure of .*, but got float64 of shape \(4, 2\)"),
    ],
)
def test_mat_file_of_another_shape_is_named(tmp_path: Path, content: dict, message: str) -> None:
    scipy_io.savemat(tmp_path / "GT_IMG_1.mat", content)
    with pytest.raises(ValueError, match=message):
        read_mat_points(tmp_path / "GT_IMG_1.mat")


def test_mat_file_that_cannot_be_read_is_named(tmp_path: Path, save_mat: Callable) -> None:
    file = tmp_path / "GT_IMG_1.mat"
    save_mat(file, [[1, 2]] * 40)
    content = file.read_bytes()
    for cut in (content[: len(content) // 2], content[:60], b"", b"<html>no</html>", b"MATLAB 7.3" + bytes(500)):
        file.write_bytes(cut)
        with pytest.raises(
            ValueError, match=r"GT_IMG_1\.mat to be a \.mat file of version 7\.2 or before|a structure"
        ):
            read_mat_points(file)


def test_points_are_read_as_written(tmp_path: Path, save_mat: Callable) -> None:
    save_mat(tmp_path / "GT_IMG_1.mat", [[1.25, 2], [3, 4]])
    assert read_mat_points(tmp_path / "GT_IMG_1.mat") == ([[1.25, 2], [3, 4]], 2)
    save_mat(tmp_path / "GT_IMG_1.mat", [])
    assert read_mat_points(tmp_path / "GT_IMG_1.mat") == ([], 0)


# The published files


@pytest.mark.parametrize(
    ("part", "images", "objects", "repeated", "counts"),
    [("part_A", 300, 162413, 38, (33, 3138)), ("part_B", 200, 26368, 8, (12, 575))],
)
def test_published_images_have_the_published_counts(
    shared: Path, load: Load, part: str, images: int, objects: int, repeated: int, counts: tuple
) -> None:
    rows = load("shanghaitech", part, data_dir=str(shared / "data" / "shanghaitech"), split="train")
    assert len(rows) == images
    assert (min(rows["count"]), max(rows["count"])) == counts
    assert sum(rows["count"]) == sum(map(len, rows["points"])) == objects
    # Read once more, by nothing of ours.
    truth = shared / "data" / "shanghaitech" / part / "train_data" / "ground-truth"
    expected = scipy_io.loadmat(truth / "GT_IMG_7.mat")["image_info"][0, 0]["location"][0, 0]
    row = rows[rows["image_id"][:].index(f"{part}/train/IMG_7")]
    np.testing.assert_allclose(row["points"], expected, rtol=1e-6)
    assert row["image"].size[0] >= expected[:, 0].max()
    assert sum(note is not None for note in rows["note"]) == repeated
