from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from count_clip.datasets_scripts.captions.plurals import plural_of
from count_clip.datasets_scripts.formats.folders import load_object_folder, read_coco, read_points_csv
from count_clip.datasets_scripts.formats.rows import REPEATED


Load = Callable[..., Any]


@pytest.fixture
def table(tmp_path: Path, save_image: Callable) -> Path:
    """Three images: two gulls and a tern; a tern; nothing. A split with one of them."""
    folder = tmp_path / "birds"
    for stem in ("one", "deep/two", "three"):
        save_image(folder / "images" / f"{stem}.png")
    lines = ["file_name, x, y, name", "one.png,1,2,gull", "deep/two.png,40,30,tern", "one.png,3.5,4,tern"]
    lines += ["", "three.png,,,", '"one.png",5,6,gull']
    (folder / "points.csv").write_text("\r\n".join(lines) + "\r\n")
    (folder / "val.csv").write_text("y,x,file_name\n9,8,one.png\n9,8,one.png\n")
    return folder


# A table of points


def test_table_gives_a_row_for_each_image_and_name(table: Path) -> None:
    rows = read_points_csv(table, names={"gull": "gulls", "tern": "terns"})
    assert [(row["image_id"], row["text"], row["count"]) for row in rows] == [
        ("one", "gulls", 2),
        ("one", "terns", 1),
        ("deep/two", "gulls", 0),
        ("deep/two", "terns", 1),
        ("three", "gulls", 0),
        ("three", "terns", 0),
    ]
    assert rows[0]["points"] == [[1, 2], [5, 6]]
    # The corner belongs to the last pixel.
    assert rows[3]["points"] == [[39.99, 29.99]]
    together = read_points_csv(table, text="birds")
    assert [row["count"] for row in together] == [3, 1, 0]
    assert [row["text"] for row in read_points_csv(table, names=plural_of)][:2] == ["gulls", "terns"]


def test_the_same_point_twice_is_counted_twice_and_noted(table: Path) -> None:
    rows = read_points_csv(table, split="val", text="birds")
    assert (rows[0]["count"], rows[0]["note"]) == (2, "1 of the 2 points is the same as another")
    assert rows.report.findings.places(REPEATED) == ["one: 1 of the 2 points is the same as another"]
    assert "same point more than once, counted as often: 1 (one: 1 of the 2" in rows.report.summary()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", ValueError, r"points\.csv to begin with the names of its columns, file_name, x and y .*, but got \[\]"),
        ("one.png,1,2\n", ValueError, r"file_name, x and y among them, but got \['one\.png', '1', '2'\]"),
        ("file_name,x,y\n", ValueError, r"Expected a line for each point in .*points\.csv, but there is none"),
        ("file_name,x,y\none.png,1\n", ValueError, r"3 cells in .*line 2, .* but got 2: .*cut short"),
        ("file_name,x,y\none.png,1,\n", ValueError, r"a number in y of .*points\.csv, line 2, but got ''"),
        ("file_name,x,y\none.png,a,2\n", ValueError, r"a number in x of .*line 2, but got 'a'"),
        ("file_name,x,y\none.png,nan,2\n", ValueError, "a number in x of .*line 2, but got 'nan'"),
        ("file_name,x,y\none.png,-1,2\n", ValueError, r"line 2 to be inside the image of 40 x 30 .*\(-1, 2\)"),
        ("file_name,x,y\none.png,1e9,2\n", ValueError, r"line 2 to be inside the image of 40 x 30 .*\(1e\+09, 2\)"),
        ("file_name,x,y\nnine.png,1,2\n", FileNotFoundError, r"line 2 at .*nine\.png, but there is none"),
        ("file_name,x,y\n../one.png,1,2\n", ValueError, "which leads out of it"),
        ("file_name,x,y\n,1,2\n", ValueError, "which leads out of it"),
    ],
)
def test_table_names_what_is_wrong(table: Path, content: str, error: type, message: str) -> None:
    (table / "points.csv").write_text(content)
    with pytest.raises(error, match=message):
        read_points_csv(table, text="birds")


def test_table_needs_texts_and_itself(table: Path) -> None:
    with pytest.raises(ValueError, match="Its annotations name 'gull', 'tern'"):
        read_points_csv(table)
    with pytest.raises(ValueError, match="names to be among those .*'gull', 'tern'.*, but got 'crow'"):
        read_points_csv(table, names={"crow": "crows"})
    with pytest.raises(FileNotFoundError, match=r"test\.csv, but there is none \(there are: points\.csv, val\.csv\)"):
        read_points_csv(table, split="test", text="birds")


# Outlines


@pytest.fixture
def coco(tmp_path: Path, save_image: Callable, write_json: Callable) -> Path:
    folder = tmp_path / "coco"
    save_image(folder / "images" / "one.png")
    write_json(
        folder / "instances.json",
        {
            "images": [{"id": 1, "file_name": "one.png"}],
            "categories": [{"id": 1, "name": "dog"}],
            "annotations": [
                {
                    "id": 5,
                    "image_id": 1,
                    "category_id": 1,
                    "bbox": [1, 2, 8, 6],
                    "segmentation": [[1, 2, 9, 2, 9, 8], [2, 2, 3, 3, 2, 3, 2, 2.5]],
                },
                {"id": 6, "image_id": 1, "category_id": 1, "bbox": [9, 9, 2, 2], "segmentation": {"counts": "x"}},
            ],
        },
    )
    return folder


def test_outlines_come_with_their_objects(coco: Path, load: Load) -> None:
    rows = load("object_folder", "coco", data_dir=str(coco), text="dogs", polygons=True, split="train")
    assert rows[0]["polygons"] == [[[1, 2, 9, 2, 9, 8], [2, 2, 3, 3, 2, 3, 2, 2.5]], []]
    assert "polygons" not in load("object_folder", "coco", data_dir=str(coco), text="dogs")["train"].column_names
    assert load_object_folder(coco, "coco", text="dogs", polygons=True)[0]["polygons"] == rows[0]["polygons"]


@pytest.mark.parametrize(
    "outline", [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [[1, 2], [3, 4]], "x", [1, 2, 3, 4, 5, None]]
)
def test_bad_outlines_are_named(coco: Path, change_json: Callable, outline: Any) -> None:
    change_json(coco / "instances.json", lambda c: c["annotations"][0].update(segmentation=[outline]))
    with pytest.raises(ValueError, match="polygon 0"):
        read_coco(coco, text="dogs", polygons=True)
    assert read_coco(coco, text="dogs")[0]["count"] == 2


def test_duplicate_ids_are_named(coco: Path, change_json: Callable, load: Load) -> None:
    change_json(coco / "instances.json", lambda c: c["images"].append({"id": 1, "file_name": "one.png"}))
    with pytest.raises(ValueError, match="one image of each id, but .*image 1 is repeated"):
        load("object_folder", "coco", data_dir=str(coco), text="dogs", streaming=True)


# Any folder by name


def test_splits_are_those_of_the_folder(table: Path, load: Load, save_image: Callable) -> None:
    rows = load("object_folder", "csv", data_dir=str(table), text="birds")
    assert {split: rows[split]["count"][:] for split in rows} == {"validation": [2]}
    # Images of other splits are listed.
    assert (
        "Images without an annotation in these splits: 2 (two.png, three.png)." in rows["validation"].info.description
    )
    named = load("object_folder", "csv", data_dir=str(table), text="birds", splits=["points"])
    assert named["points"]["count"][:] == [3, 1, 0]
    (table / "val.csv").unlink()
    rows = load("object_folder", "csv", data_dir=str(table), names=plural_of)
    assert rows["train"]["text"][:2] == ["gulls", "terns"]
    with pytest.raises(ValueError, match="splits to name one or more"):
        load("object_folder", "csv", data_dir=str(table), text="birds", splits=[])
    with pytest.raises(ValueError, match="polygons for 'coco' only, but got them for 'csv'"):
        load("object_folder", "csv", data_dir=str(table), text="birds", polygons=True)
    with pytest.raises(ValueError, match="name of a configuration, but got none. Choose 'voc' or 'coco' or"):
        load("object_folder", data_dir=str(table), text="birds")


REAL = [
    (
        "blood_cells",
        "voc",
        {"names": {"RBC": "red blood cells", "WBC": "white blood cells", "Platelets": "platelets"}},
        # 4,888 boxes are annotated, two of them without area.
        {"train": (205, 2804), "validation": (87, 1137), "test": (72, 945)},
    ),
    ("pears", "coco", {"text": "pears"}, {"train": (138, 1521), "validation": (53, 641), "test": (60, 720)}),
    (
        "nuclei",
        "points",
        {"text": "cell nuclei"},
        {"train": (160, 7101), "validation": (40, 1405), "test": (80, 3511)},
    ),
    ("coco_photos", "coco", {"names": {"dog": "dogs"}, "polygons": True}, {"train": (260, 7)}),
]


@pytest.mark.parametrize(("name", "config", "options", "expected"), REAL, ids=[one[0] for one in REAL])
def test_real_folders_have_the_published_counts(
    shared: Path, load: Load, name: str, config: str, options: dict, expected: dict
) -> None:
    rows = load("object_folder", config, data_dir=str(shared / "data" / name), **options)
    found = {split: (len(set(rows[split]["image_id"])), sum(rows[split]["count"])) for split in rows}
    assert found == expected
    for split in rows.values():
        assert split[0]["image"].size[0] > 0
        assert all(count == len(points) for count, points in zip(split["count"], split["points"], strict=True))
