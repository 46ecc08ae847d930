import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from count_clip.datasets_scripts.captions.plurals import plural_of
from count_clip.datasets_scripts.countscenes.builder import SCENE_CONFIGS, scene_features
from count_clip.datasets_scripts.formats.folders import (
    FORMATS,
    load_object_folder,
    read_coco,
    read_points_jsonl,
    read_voc,
)
from count_clip.datasets_scripts.formats.rows import BOXES_WITHOUT_AREA, CROWDS, OTHER_NAMES
from count_clip.datasets_scripts.schema import density_features


CELLS = {"RBC": "red blood cells", "WBC": "white blood cells", "Platelets": "platelets"}

# Names that lead out of a folder, each in its way.
OUTSIDE = ["../secret.png", "a/../../secret.png", "/etc/hostname", "C:\\secret.png", "..\\secret.png", "", "link.png"]


def save_image(path: Path, size: tuple[int, int] = (40, 30), value: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def voc_xml(filename: str, objects: list[tuple], size: tuple | None = (40, 30)) -> str:
    described = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for name, x0, y0, x1, y1 in objects
    )
    side = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation><filename>{filename}</filename>{side}{described}</annotation>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two images: two apples and a pear; a pear alone. One of them in the split `few`."""
    folder = tmp_path / "fruit"
    for stem, objects in (
        ("one", [("apple", 1, 1, 10, 20), ("pear", 5, 5, 15, 15), ("apple", 21, 11, 40, 30)]),
        ("two", [("pear", 3, 3, 6, 9)]),
    ):
        save_image(folder / "JPEGImages" / f"{stem}.png")
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / "Annotations" / f"{stem}.xml").write_text(voc_xml(f"{stem}.png", objects))
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "few.txt").write_text("two\n\n")
    return folder


@pytest.fixture
def coco_content() -> dict:
    return {
        "images": [
            {"id": 7, "file_name": "one.png", "width": 40, "height": 30},
            {"id": 8, "file_name": "deep/two.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1.5, 2, 4, 6], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [30, 20, 10, 10]},
            {"id": 3, "image_id": 7, "category_id": 2, "bbox": [0, 0, 8, 8], "iscrowd": 0},
            {"id": 4, "image_id": 8, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1},
            {"id": 5, "image_id": 8, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 0},
        ],
    }


@pytest.fixture
def coco(tmp_path: Path, coco_content: dict) -> Path:
    folder = tmp_path / "coco"
    save_image(folder / "images" / "one.png")
    save_image(folder / "images" / "deep" / "two.png")
    (folder / "train.json").write_text(json.dumps(coco_content))
    return folder


@pytest.fixture
def points(tmp_path: Path) -> Path:
    folder = tmp_path / "points"
    lines = [
        {"file_name": "one.png", "width": 40, "height": 30, "points": [[0, 0], [12.5, 29.9], [40, 30]]},
        {"file_name": "two.png", "width": 40, "height": 30, "points": []},
    ]
    for line in lines:
        save_image(folder / "images" / line["file_name"])
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return folder


# Pascal VOC


def test_voc_gives_a_row_for_each_image_and_name_even_without_objects(voc: Path) -> None:
    rows = read_voc(voc, names={"apple": "red apples", "pear": "green pears"})
    assert [(row["image_id"], row["text"], row["count"]) for row in rows] == [
        ("one", "red apples", 2),
        ("one", "green pears", 1),
        ("two", "red apples", 0),
        ("two", "green pears", 1),
    ]
    # VOC counts pixels from one: the first box is the first ten columns and twenty rows.
    assert rows[0]["boxes"] == [[0, 0, 10, 20], [20, 10, 40, 30]]
    assert rows[0]["points"] == [[5, 10], [30, 20]]
    assert rows[2]["boxes"] == rows[2]["points"] == []
    assert rows[0]["image"] == str((voc / "JPEGImages" / "one.png").resolve())
    assert rows.report.num_images == 2
    assert rows.report.num_objects == {"red apples": 2, "green pears": 2}


def test_voc_reads_only_the_split(voc: Path) -> None:
    rows = read_voc(voc, split="few", names={"pear": "pears", "apple": "apples"})
    assert [(row["image_id"], row["text"], row["count"]) for row in rows] == [
        ("two", "pears", 1),
        ("two", "apples", 0),
    ]


def test_voc_counts_names_together_or_reports_the_others(voc: Path) -> None:
    together = read_voc(voc, names={"apple": "fruits", "pear": "fruits"})
    assert [row["count"] for row in together] == [3, 1]
    everything = read_voc(voc, text="fruits")
    assert [row["count"] for row in everything] == [3, 1]
    some = read_voc(voc, names={"apple": "apples"})
    assert [row["count"] for row in some] == [2, 0]
    assert some.report.findings.places(OTHER_NAMES) == ["pear (2)"]
    assert "Names without a text, with their objects: 1 (pear (2))." in some.report.summary()


@pytest.mark.parametrize(
    ("empty_boxes", "count", "fate"), [("drop", 1, "left out"), ("keep", 2, "kept")], ids=["drop", "keep"]
)
def test_boxes_without_area_are_never_silent(voc: Path, caplog, empty_boxes: str, count: int, fate: str) -> None:
    (voc / "Annotations" / "two.xml").write_text(voc_xml("two.png", [("pear", 3, 3, 6, 9), ("pear", 12, 7, 12, 7)]))
    with caplog.at_level(logging.WARNING):
        rows = read_voc(voc, split="few", names={"pear": "pears"}, empty_boxes=empty_boxes)
    assert rows[0]["count"] == len(rows[0]["boxes"]) == count
    assert rows.report.findings.places(BOXES_WITHOUT_AREA) == [
        f"Annotations/two.xml, object 2 (pear), from (12, 7) to (12, 7): {fate}"
    ]
    assert "Boxes without area: 1" in caplog.text
    with pytest.raises(ValueError, match=r"Expected boxes with an area, but .*two\.xml, object 2 \(pear\) goes from"):
        read_voc(voc, split="few", names={"pear": "pears"}, empty_boxes="error")
    with pytest.raises(ValueError, match="Expected empty_boxes to be one of drop, keep, error, but got 'ignore'"):
        read_voc(voc, split="few", names={"pear": "pears"}, empty_boxes="ignore")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (
            "<annotation><filename>two.png",
            ValueError,
            r"Expected .*two\.xml to be xml, but it is not: .* get it again",
        ),
        ("", ValueError, r"Expected .*two\.xml to be xml"),
        (
            voc_xml("three.png", []),
            FileNotFoundError,
            r"Expected the image of .*two\.xml at .*three\.png, but there",
        ),
        (voc_xml("two.png", [], (41, 30)), ValueError, r"two\.png to be 41 x 30 pixels, .* but it is 40 x 30"),
        (
            voc_xml("two.png", [("pear", 1, 1, 50, 9)]),
            ValueError,
            r"object 1 \(pear\) to be inside the image of 40 x 30",
        ),
        (voc_xml("two.png", [("pear", -5, 1, 5, 9)]), ValueError, r"it goes from \(-5, 1\) to \(5, 9\)"),
        (voc_xml("two.png", [("pear", 9, 1, 5, 9)]), ValueError, "to end right of and below its beginning"),
        (voc_xml("two.png", [("pear", "x", 1, 5, 9)]), ValueError, r"a number in <bndbox/xmin> of .*, but got 'x'"),
        (voc_xml("two.png", [("pear", "nan", 1, 5, 9)]), ValueError, "a number in <bndbox/xmin> of .*, but got 'nan'"),
        (voc_xml("two.png", [("", 1, 1, 5, 9)]), ValueError, r"Expected <name> in <object> of .*two\.xml, but it is"),
        ("<annotation/>", ValueError, r"Expected <filename> in <annotation> of .*two\.xml, but it is missing"),
        (
            voc_xml("two.png", []).replace("</annotation>", "<object><name>a</name></object></annotation>"),
            ValueError,
            "Expected <bndbox/xmin> in <object>",
        ),
    ],
)
def test_voc_names_what_is_wrong_with_a_file(voc: Path, content: str, error: type, message: str) -> None:
    (voc / "Annotations" / "two.xml").write_text(content)
    with pytest.raises(error, match=message):
        read_voc(voc, split="few", names={"pear": "pears"})


def test_voc_annotation_without_a_size_is_checked_against_the_image(voc: Path) -> None:
    (voc / "Annotations" / "two.xml").write_text(voc_xml("two.png", [("pear", 1, 1, 40, 30)], size=None))
    assert read_voc(voc, split="few", names={"pear": "pears"})[0]["boxes"] == [[0, 0, 40, 30]]


def test_voc_names_missing_parts(voc: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected a file at .*train\.txt, .* \(there are: few\.txt\)"):
        read_voc(voc, split="train", names={"pear": "pears"})
    (voc / "ImageSets" / "Main" / "few.txt").write_text("two\nnine\n")
    with pytest.raises(
        FileNotFoundError, match=r"Expected a file at .*nine\.xml, but there is none \(.*few\.txt lists"
    ):
        read_voc(voc, split="few", names={"pear": "pears"})
    (voc / "ImageSets" / "Main" / "few.txt").write_text("two\none\ntwo 1\n")
    with pytest.raises(ValueError, match=r"each image once in .*few\.txt, but 'two' is listed twice"):
        read_voc(voc, split="few", names={"pear": "pears"})
    (voc / "ImageSets" / "Main" / "few.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"each line of .*few\.txt, but it is empty"):
        read_voc(voc, split="few", names={"pear": "pears"})
    for file in (voc / "Annotations").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"Expected annotations \(\*\.xml\) in .*Annotations, but found none"):
        read_voc(voc, names={"pear": "pears"})


def test_voc_names_must_be_in_the_annotations(voc: Path) -> None:
    with pytest.raises(
        ValueError, match="annotations of .* \\('apple', 'pear'\\), but got 'aple'. Check the spelling"
    ):
        read_voc(voc, split="few", names={"aple": "apples", "pear": "pears"})
    with pytest.raises(ValueError, match="annotations name 'apple', 'pear': pass names="):
        read_voc(voc)
    with pytest.raises(ValueError, match="Expected names or text, but got both"):
        read_voc(voc, names={"apple": "apples"}, text="fruits")
    with pytest.raises(ValueError, match="a text for each name, but for 'apple' got ''"):
        read_voc(voc, names={"apple": ""})
    with pytest.raises(ValueError, match=r"one or more entries, but got \{\}"):
        read_voc(voc, names={})


# COCO


def test_coco_gives_rows_and_leaves_crowd_pairs_out(coco: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        rows = read_coco(coco, split="train", names={"person": "people", "dog": "dogs"})
    assert [(row["image_id"], row["text"], row["count"]) for row in rows] == [
        ("one", "people", 1),
        ("one", "dogs", 2),
        ("deep/two", "dogs", 0),
    ]
    assert rows[0]["boxes"] == [[1.5, 2, 5.5, 8]]
    assert rows[0]["points"] == [[3.5, 5]]
    assert rows.report.findings.places(CROWDS) == ["deep/two: people"]
    assert "left out because of a crowd region: 1 (deep/two: people)" in caplog.text


def test_a_function_may_return_the_text_of_each_name(coco: Path, voc: Path) -> None:
    names = {"person": "people", "dog": "dogs"}
    assert sorted(map(str, read_coco(coco, split="train", names=plural_of))) == sorted(
        map(str, read_coco(coco, split="train", names=names))
    )
    # Names that are in none of the images of this split too.
    assert read_voc(voc, split="few", names=str.upper) == read_voc(
        voc, split="few", names={"apple": "APPLE", "pear": "PEAR"}
    )
    with pytest.raises(ValueError, match="a text for each name, but for 'dog' got ''"):
        read_coco(coco, split="train", names=lambda name: "")
    with pytest.raises(ValueError, match="Expected names or text, but got both"):
        read_coco(coco, split="train", names=plural_of, text="objects")


def test_coco_crowd_takes_a_text_of_several_names_with_it(coco: Path) -> None:
    rows = read_coco(coco, split="train", names={"person": "animals", "dog": "animals"})
    assert [(row["image_id"], row["count"]) for row in rows] == [("one", 3)]
    assert [(row["image_id"], row["count"]) for row in read_coco(coco, split="train", text="animals")] == [("one", 3)]


def test_coco_finds_its_annotations_in_the_usual_places(coco: Path) -> None:
    expected = list(read_coco(coco, split="train", names={"dog": "dogs"}))
    (coco / "annotations").mkdir()
    for name in ("annotations/instances_val2017.json", "instances.json", "other.json"):
        (coco / name).write_bytes((coco / "train.json").read_bytes())
    assert read_coco(coco, split="val2017", names={"dog": "dogs"}) == expected
    assert read_coco(coco, names={"dog": "dogs"}) == expected
    assert read_coco(coco, annotations="other.json", names={"dog": "dogs"}) == expected
    with pytest.raises(
        FileNotFoundError, match=r"Expected a file at .*dev\.json, .*there are: instances\.json, other\.js"
    ):
        read_coco(coco, split="dev", names={"dog": "dogs"})


def test_coco_name_without_an_object_is_right_if_the_file_has_the_category(coco: Path, coco_content: dict) -> None:
    coco_content["categories"].append({"id": 3, "name": "cat"})
    (coco / "train.json").write_text(json.dumps(coco_content))
    assert [row["count"] for row in read_coco(coco, split="train", names={"cat": "cats"})] == [0, 0]
    with pytest.raises(ValueError, match="\\('cat', 'dog', 'person'\\), but got 'cow'"):
        read_coco(coco, split="train", names={"cow": "cows"})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c: c.pop("annotations"), ValueError, "to hold a list under 'annotations', but got keys"),
        (lambda c: c["images"].clear(), ValueError, "annotation 1 to belong to an image"),
        (lambda c: (c["images"].clear(), c["annotations"].clear()), ValueError, "Expected images in .*, but it lists"),
        (lambda c: c["images"].append(dict(c["images"][0])), ValueError, "image 7 is repeated"),
        (lambda c: c["images"][0].pop("file_name"), ValueError, "image 7 to have 'file_name'"),
        (lambda c: c["images"][0].update(width=39), ValueError, r"one\.png to be 39 x 30 pixels"),
        (
            lambda c: c["images"][0].update(file_name="9.png"),
            FileNotFoundError,
            r"image 7 at .*9\.png, but there is none",
        ),
        (lambda c: c["annotations"][0].update(image_id=99), ValueError, "its image_id is 99"),
        (lambda c: c["annotations"][0].update(category_id=99), ValueError, "its category_id 99"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), ValueError, r"4 numbers for .*annotation 1, bbox, but"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, "4"]), ValueError, "4 numbers for .*annotation 1, bbox"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("inf")]), ValueError, "4 numbers for .* 1, bbox"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, -3, 4]), ValueError, "to end right of and below"),
        (
            lambda c: c["annotations"][0].update(bbox=[38, 2, 5, 4]),
            ValueError,
            "annotation 1 to be inside the image of 40",
        ),
        (lambda c: c["annotations"].append("x"), ValueError, "annotations to have 'image_id'"),
    ],
)
def test_coco_names_what_is_wrong(coco: Path, coco_content: dict, change, error: type, message: str) -> None:
    change(coco_content)
    (coco / "train.json").write_text(json.dumps(coco_content))
    with pytest.raises(error, match=message):
        read_coco(coco, split="train", names={"dog": "dogs"})


def test_coco_takes_a_rounded_edge_for_the_edge(coco: Path, coco_content: dict) -> None:
    coco_content["annotations"][1]["bbox"] = [30, 20, 10.4, 10]
    (coco / "train.json").write_text(json.dumps(coco_content))
    rows = read_coco(coco, split="train", names={"dog": "dogs"})
    assert rows[0]["boxes"][0] == [30, 20, 40, 30]


def test_cut_json_is_named(coco: Path) -> None:
    content = (coco / "train.json").read_text()
    (coco / "train.json").write_text(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"Expected .*train\.json to be json, but it is not: .* cut short"):
        read_coco(coco, split="train", names={"dog": "dogs"})


# Points


def test_points_give_a_row_for_each_image(points: Path) -> None:
    rows = read_points_jsonl(points, split="train", text="cell nuclei")
    assert [(row["image_id"], row["text"], row["count"], row["boxes"]) for row in rows] == [
        ("one", "cell nuclei", 3, []),
        ("two", "cell nuclei", 0, []),
    ]
    # The corner belongs to the last pixel.
    assert rows[0]["points"] == [[0, 0], [12.5, 29.9], [39.99, 29.99]]
    assert rows.report.num_objects == {"cell nuclei": 3}


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ('{"file_name": "two.png", "poi', ValueError, r"train\.jsonl, line 2 to be json, but it is not: .* cut short"),
        ("[]", ValueError, "line 2 to have 'file_name'"),
        ('{"file_name": "two.png"}', ValueError, "line 2 to hold a list under 'points', but got keys"),
        (
            '{"file_name": "two.png", "points": [[1, 2, 3]]}',
            ValueError,
            r"2 numbers for .*line 2, point 0, but got \[1",
        ),
        ('{"file_name": "two.png", "points": [[1, NaN]]}', ValueError, "2 numbers for .*line 2, point 0"),
        (
            '{"file_name": "two.png", "points": [[1, 2], [35, 31]]}',
            ValueError,
            r"line 2, point 1 to be inside .* \(35, 31\)",
        ),
        ('{"file_name": "two.png", "points": [[-0.5, 2]]}', ValueError, r"to be inside the image of 40 x 30"),
        ('{"file_name": "two.png", "width": 30, "height": 40, "points": []}', ValueError, "to be 30 x 40 pixels"),
        ('{"file_name": "one.png", "points": []}', ValueError, "about 'one.png' again, like line 1"),
        ('{"file_name": "nine.png", "points": []}', FileNotFoundError, r"line 2 at .*nine\.png, but there is none"),
    ],
)
def test_points_name_what_is_wrong_with_a_line(points: Path, line: str, error: type, message: str) -> None:
    first = (points / "train.jsonl").read_text().splitlines()[0]
    (points / "train.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(error, match=message):
        read_points_jsonl(points, split="train", text="nuclei")


def test_points_need_a_text_and_lines(points: Path) -> None:
    with pytest.raises(ValueError, match="Expected text for what the points of .* mark, but got None"):
        read_points_jsonl(points, split="train")
    with pytest.raises(FileNotFoundError, match=r"dev\.jsonl, but there is none \(there are: train\.jsonl\)"):
        read_points_jsonl(points, split="dev", text="nuclei")
    (points / "train.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"a line for each image in .*train\.jsonl, but it is empty"):
        read_points_jsonl(points, split="train", text="nuclei")
    (points / "train.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"train\.jsonl to be text in UTF-8"):
        read_points_jsonl(points, split="train", text="nuclei")


# All formats


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_from_the_data_never_lead_out_of_their_folder(
    voc: Path, coco: Path, coco_content: dict, points: Path, name: str
) -> None:
    for folder in (voc / "JPEGImages", coco / "images", points / "images"):
        save_image(folder.parent / "secret.png")
        (folder / "link.png").symlink_to(folder.parent / "secret.png")
    escaped = name.replace("\\", "\\\\")
    (points / "train.jsonl").write_text(f'{{"file_name": "{escaped}", "points": []}}\n')
    with pytest.raises(ValueError, match="which leads out of it"):
        read_points_jsonl(points, split="train", text="nuclei")
    coco_content["images"][0]["file_name"] = name
    (coco / "train.json").write_text(json.dumps(coco_content))
    with pytest.raises(ValueError, match="which leads out of it"):
        read_coco(coco, split="train", names={"dog": "dogs"})
    (voc / "Annotations" / "two.xml").write_text(voc_xml(name, []))
    with pytest.raises(ValueError, match="which leads out of it|<filename> in <annotation> of .* missing or empty"):
        read_voc(voc, split="few", names={"pear": "pears"})


def test_lists_and_splits_never_lead_out_of_their_folder(voc: Path, coco: Path, points: Path) -> None:
    (voc / "ImageSets" / "Main" / "few.txt").write_text("../../elsewhere\n")
    with pytest.raises(ValueError, match="which leads out of it"):
        read_voc(voc, split="few", names={"pear": "pears"})
    for read, folder, options in (
        (read_voc, voc, {"names": {"pear": "pears"}}),
        (read_coco, coco, {"names": {"dog": "dogs"}}),
        (read_points_jsonl, points, {"text": "nuclei"}),
    ):
        with pytest.raises(ValueError, match="which leads out of it"):
            read(folder, split="../../few", **options)
        with pytest.raises(ValueError, match="the folder of the images .* which leads out of it"):
            read(folder, split="few", images="../elsewhere", **options)


def test_unreadable_image_is_named(points: Path) -> None:
    (points / "images" / "two.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"Expected an image at .*two\.png \(.*line 2\), but it cannot be read"):
        read_points_jsonl(points, split="train", text="nuclei")


def test_size_is_that_of_the_upright_image(points: Path) -> None:
    turned = Image.new("RGB", (30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(points / "images" / "two.jpg", exif=exif)
    (points / "train.jsonl").write_text('{"file_name": "two.jpg", "width": 40, "height": 30, "points": [[39, 1]]}\n')
    loaded = load_object_folder(points, "points", split="train", text="nuclei")
    assert loaded[0]["image"].size == (40, 30)


@pytest.mark.parametrize("format", FORMATS)
def test_missing_folder_is_named(format: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected a folder at .*nowhere, but there is none"):
        load_object_folder(tmp_path / "nowhere", format, split="train", text="objects")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FileNotFoundError, match=r"Expected a folder at .*file, but it is a file"):
        load_object_folder(file, format, split="train", text="objects")


def test_loaded_folder_is_a_dataset_of_the_one_schema(voc: Path, coco: Path, points: Path) -> None:
    loaded = {
        "voc": load_object_folder(voc, format="voc", names={"apple": "apples", "pear": "pears"}),
        "coco": load_object_folder(str(coco), format="coco", split="train", names={"dog": "dogs"}),
        "points": load_object_folder(points, format="points", split="train", text="nuclei"),
    }
    for dataset in loaded.values():
        assert dataset.features == density_features() == scene_features(SCENE_CONFIGS["density"])
        row = dataset[0]
        assert row["image"].size == (40, 30)
        assert row["count"] == len(row["points"])
    assert loaded["voc"]["text"][:] == ["apples", "pears", "apples", "pears"]
    assert "2 images; 2 apples, 2 pears" in loaded["voc"].info.description


def test_images_are_decoded_only_when_looked_at(points: Path) -> None:
    loaded = load_object_folder(points, "points", split="train", text="nuclei")
    save_image(points / "images" / "one.png", value=7)
    assert np.asarray(loaded[0]["image"]).max() == 7


def test_load_names_unknown_formats_and_options(points: Path) -> None:
    with pytest.raises(ValueError, match="Expected format to be one of voc, coco, points, csv, but got 'yolo'"):
        load_object_folder(points, "yolo")
    with pytest.raises(ValueError, match="Expected text rather than names for format='points'"):
        load_object_folder(points, "points", names={"a": "b"})
    with pytest.raises(TypeError, match="empty_boxes"):
        load_object_folder(points, "points", text="nuclei", empty_boxes="drop")


# Real folders


def test_blood_cells_are_as_many_as_published(shared: Path) -> None:
    folder = shared / "data" / "blood_cells"
    rows = {split: read_voc(folder, split=split, names=CELLS) for split in ("train", "val", "test")}
    assert {split: len(read) // 3 for split, read in rows.items()} == {"train": 205, "val": 87, "test": 72}
    without_area = [found for read in rows.values() for found in read.report.findings.places(BOXES_WITHOUT_AREA)]
    assert len(without_area) == 2
    objects = Counter()
    for read in rows.values():
        objects.update(read.report.num_objects)
    # 4,155 boxes of red cells are annotated, two of them without area.
    assert objects == {"red blood cells": 4153, "white blood cells": 372, "platelets": 361}
    for text, error in (("red blood cells", 3.12), ("white blood cells", 0.14), ("platelets", 0.88)):
        counts = {split: [row["count"] for row in rows[split] if row["text"] == text] for split in ("train", "test")}
        always_the_mean = np.abs(np.array(counts["test"]) - np.mean(counts["train"])).mean()
        assert always_the_mean == pytest.approx(error, abs=0.005)


def test_pears_are_as_many_as_published(shared: Path) -> None:
    folder = shared / "data" / "pears"
    rows = {split: read_coco(folder, split=split, names={"pear": "pears"}) for split in ("train", "val", "test")}
    assert {split: len(read) for split, read in rows.items()} == {"train": 138, "val": 53, "test": 60}
    assert {split: len(read.report.findings.places(BOXES_WITHOUT_AREA)) for split, read in rows.items()} == {
        "train": 8,
        "val": 1,
        "test": 4,
    }
    assert {split: sum(read.report.num_objects.values()) for split, read in rows.items()} == {
        "train": 1529 - 8,
        "val": 642 - 1,
        "test": 724 - 4,
    }
    # "1-42 an image" counts every box.
    kept = [
        row["count"]
        for split in rows
        for row in read_coco(folder, split=split, names={"pear": "pears"}, empty_boxes="keep")
    ]
    assert (min(kept), max(kept)) == (1, 42)


def test_nuclei_are_as_many_as_published(shared: Path) -> None:
    rows = {
        split: read_points_jsonl(shared / "data" / "nuclei", split=split, text="cell nuclei")
        for split in ("train", "val", "test")
    }
    assert {split: len(read) for split, read in rows.items()} == {"train": 160, "val": 40, "test": 80}
    counts = [row["count"] for read in rows.values() for row in read]
    assert (min(counts), max(counts)) == (1, 369)


def test_coco_photos_leave_crowds_out(shared: Path) -> None:
    rows = read_coco(shared / "data" / "coco_photos", names={"person": "people", "dog": "dogs"})
    assert rows.report.num_images == 260
    assert len(rows) == 2 * 260 - len(rows.report.findings.places(CROWDS))
    assert len(rows.report.findings.places(CROWDS)) > 0
    assert max(row["count"] for row in rows) <= 13
