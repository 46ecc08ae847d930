"""
Folders of real pictures with boxes or points, as they lie on disk, turned into rows of the one density schema.

- `"voc"` (Pascal VOC): `Annotations/*.xml`, splits in `ImageSets/Main/<split>.txt`, pictures in `JPEGImages/`
- `"coco"` (COCO json): `<split>.json` or `annotations/instances_<split>.json` (without a split `instances.json`),
  pictures in `images/`
- `"points"` (json lines): `<split>.jsonl`, where a line has `file_name`, `width`, `height` and `points`
  `[[x, y], ...]`; pictures in `images/`

Nothing is dropped in silence: what is left out is in the report of every reader, and logged. What cannot be right (a
picture that is not there, a point outside it, a file cut short) raises an error that names it.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import datasets

from .annotation_checks import (
    checked_size,
    child_number,
    child_text,
    existing_file,
    existing_folder,
    list_of,
    numbers_of,
    parse_json,
    parse_xml,
    path_inside,
    picture_file,
    read_text,
    those_there,
    value_of,
)
from .schema import density_features


__all__ = [
    "FORMATS",
    "FolderReport",
    "ObjectRows",
    "load_object_folder",
    "read_coco",
    "read_points_jsonl",
    "read_voc",
]

logger = logging.getLogger(__name__)

EMPTY_BOX_CHOICES = ("drop", "keep", "error")

# How far, in pixels, a coordinate may be beyond the edge and be taken for the edge: annotation tools round.
_EDGE_TOLERANCE = 1.0

Box = tuple[float, float, float, float]


@dataclass
class FolderReport:
    """
    What a reader found, and what it left out.

    Args:
        folder (`str`): The folder.
        split (`str`, *optional*): Which part of it.
        num_pictures (`int`): How many pictures it read.
        num_objects (`dict[str, int]`): How many objects of each text are in the rows.
        boxes_without_area (`list[str]`): Every box of no width or no height, and whether it was kept.
        crowd_pairs (`list[str]`): Every picture and text left out because of a crowd region, which has no count.
        other_names (`dict[str, int]`): Objects of names that were not asked for.
    """

    folder: str
    split: str | None = None
    num_pictures: int = 0
    num_objects: dict[str, int] = field(default_factory=dict)
    boxes_without_area: list[str] = field(default_factory=list)
    crowd_pairs: list[str] = field(default_factory=list)
    other_names: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """
        Say it in a few lines.

        Returns:
            `str`: One line a finding.
        """
        objects = ", ".join(f"{count} {text}" for text, count in self.num_objects.items())
        lines = [f"{self.folder} ({self.split or 'all'}): {self.num_pictures} pictures; {objects}."]
        if self.other_names:
            # The most frequent ones will do: COCO has eighty.
            most = sorted(self.other_names.items(), key=lambda item: (-item[1], item[0]))
            others = ", ".join(f"{name} ({count})" for name, count in most[:8]) + (", ..." if len(most) > 8 else "")
            lines.append(f"Objects of names that were not asked for: {others}.")
        for findings, what in (
            (self.boxes_without_area, "Boxes without area"),
            (self.crowd_pairs, "Pictures and texts left out because of a crowd region"),
        ):
            if findings:
                shown = "; ".join(findings[:5]) + ("; ..." if len(findings) > 5 else "")
                lines.append(f"{what}: {len(findings)} ({shown}).")
        return "\n".join(lines)


class ObjectRows(list[dict[str, Any]]):
    """
    Rows of the density schema, whose `image` is the picture's absolute path.

    Args:
        rows (`Iterable[dict[str, Any]]`): The rows.
        report (`FolderReport`): What the reader found and what it left out.
    """

    def __init__(self, rows: Iterable[dict[str, Any]], report: FolderReport) -> None:
        super().__init__(rows)
        self.report = report

    def to_dataset(self) -> datasets.Dataset:
        """
        Make a `datasets.Dataset`.

        Returns:
            `datasets.Dataset`: The rows; pictures are read from their files when a row is looked at. The report is its
            `info.description`.
        """
        features = density_features()
        info = datasets.DatasetInfo(description=self.report.summary(), features=features)
        return datasets.Dataset.from_list(list(self), features=features, info=info)


@dataclass
class _Picture:
    """A picture with what is annotated in it: (name, box or point) in the picture's pixels."""

    path: Path
    image_id: str
    boxes: list[tuple[str, Box]]
    crowd_names: set[str] = field(default_factory=set)


def read_voc(
    path: str | Path,
    split: str | None = None,
    names: Mapping[str, str] | None = None,
    text: str | None = None,
    images: str = "JPEGImages",
    empty_boxes: str = "drop",
) -> ObjectRows:
    """
    Read a folder in the layout of Pascal VOC.

    Args:
        path (`str` or `Path`):
            The folder with `Annotations`, `JPEGImages` and `ImageSets`.
        split (`str`, *optional*):
            The name of a list in `ImageSets/Main`. By default every annotation is read.
        names (`Mapping[str, str]`, *optional*):
            What to say for each name in the annotations, in the plural: `{"RBC": "red blood cells"}`. Every picture
            gives a row for each text, with count 0 where there is none. Names with the same text are counted together.
        text (`str`, *optional*):
            Instead of `names`: what to say for every object, whatever its name.
        images (`str`, *optional*, defaults to `"JPEGImages"`):
            The folder of the pictures, inside `path`.
        empty_boxes (`str`, *optional*, defaults to `"drop"`):
            What to do with boxes of no width or no height: `"drop"` leaves them out, `"keep"` counts them, `"error"`
            raises. They are reported in any case.

    Returns:
        `ObjectRows`: One row for each picture and text. The points are the middles of the boxes. (VOC numbers pixels
        from one, so the box of the first pixel, written 1, 1, 1, 1, is `[0, 0, 1, 1]` here.)

    Raises:
        FileNotFoundError: If the folder, the list, an annotation or a picture is missing.
        ValueError: If a file is malformed, a coordinate is outside its picture, or the texts do not fit the names.
    """
    folder = existing_folder(path)
    _check_texts(names, text)
    annotations = existing_folder(folder / "Annotations")
    pictures = existing_folder(path_inside(folder, images, "the folder of the pictures"))
    every_file = sorted(annotations.glob("*.xml"))
    files = every_file
    if split is not None:
        list_file = path_inside(folder / "ImageSets" / "Main", f"{split}.txt", "the list of a split")
        files = [
            existing_file(path_inside(annotations, f"{stem}.xml", f"a line of {list_file}"), f"{list_file} lists it")
            for stem in _split_list(list_file)
        ]
    if not files:
        raise ValueError(f"Expected annotations (*.xml) in {annotations}, but found none. Check the path.")

    report = FolderReport(str(folder), split)
    read = [_voc_picture(file, pictures, report, empty_boxes) for file in files]

    def all_names() -> set[str]:
        # A name may be missing from one split and be right all the same.
        return {child_text(found, "name", file) for file in every_file for found in parse_xml(file).iter("object")}

    return _rows(read, report, names, text, all_names)


def read_coco(
    path: str | Path,
    split: str | None = None,
    names: Mapping[str, str] | None = None,
    text: str | None = None,
    images: str = "images",
    empty_boxes: str = "drop",
    annotations: str | None = None,
) -> ObjectRows:
    """
    Read a folder with annotations in COCO's json.

    Where a category has a crowd region in a picture (`iscrowd`), its objects were not counted there: that picture has
    no row for the category, which is reported.

    Args:
        path (`str` or `Path`):
            The folder with the json files and `images`.
        split (`str`, *optional*):
            `<split>.json` or `annotations/instances_<split>.json` is read. By default `instances.json`.
        names (`Mapping[str, str]`, *optional*):
            What to say for each category, in the plural: `{"person": "people"}`. Every picture gives a row for each
            text, with count 0 where there is none. Categories with the same text are counted together.
        text (`str`, *optional*):
            Instead of `names`: what to say for every object, whatever its category.
        images (`str`, *optional*, defaults to `"images"`):
            The folder of the pictures, inside `path`.
        empty_boxes (`str`, *optional*, defaults to `"drop"`):
            What to do with boxes of no width or no height: `"drop"` leaves them out, `"keep"` counts them, `"error"`
            raises. They are reported in any case.
        annotations (`str`, *optional*):
            Another json file to read, inside `path`.

    Returns:
        `ObjectRows`: One row for each picture and text. The points are the middles of the boxes.

    Raises:
        FileNotFoundError: If the folder, the json file or a picture is missing.
        ValueError: If a file is malformed, a coordinate is outside its picture, or the texts do not fit the names.
    """
    folder = existing_folder(path)
    _check_texts(names, text)
    pictures = existing_folder(path_inside(folder, images, "the folder of the pictures"))
    file = _coco_file(folder, split, annotations)
    content = parse_json(file.read_bytes(), str(file))
    categories = {
        value_of(entry, "id", (int, str), f"{file}, categories"): value_of(entry, "name", str, f"{file}, categories")
        for entry in list_of(content, "categories", file)
    }
    report = FolderReport(str(folder), split)
    read: dict[Any, _Picture] = {}
    sizes: dict[Any, tuple[int, int]] = {}
    for entry in list_of(content, "images", file):
        key = value_of(entry, "id", (int, str), f"{file}, images")
        where = f"{file}, image {key!r}"
        if key in read:
            raise ValueError(f"Expected one image of each id, but {where} is there twice. Remove one.")
        name = value_of(entry, "file_name", str, where)
        picture = picture_file(pictures, name, where)
        sizes[key] = checked_size(picture, entry.get("width"), entry.get("height"), where)
        read[key] = _Picture(picture, str(PurePosixPath(name).with_suffix("")), [])

    for entry in list_of(content, "annotations", file):
        where = f"{file}, annotation {entry.get('id')!r}" if isinstance(entry, dict) else f"{file}, annotations"
        key, category = (
            value_of(entry, "image_id", (int, str), where),
            value_of(entry, "category_id", (int, str), where),
        )
        if key not in read or category not in categories:
            raise ValueError(
                f"Expected {where} to belong to an image and a category of the file, but its image_id is {key!r} and "
                f"its category_id {category!r}. The file may be one split's annotations with another's images."
            )
        name = categories[category]
        if entry.get("iscrowd"):
            read[key].crowd_names.add(name)
            continue
        x, y, width, height = numbers_of(entry.get("bbox"), 4, f"{where}, bbox")
        box = _checked_box((x, y, x + width, y + height), sizes[key], where, report, empty_boxes)
        if box is not None:
            read[key].boxes.append((name, box))
    if not read:
        raise ValueError(f"Expected images in {file}, but it lists none. Check that it is the right file.")
    return _rows(list(read.values()), report, names, text, lambda: set(categories.values()))


def read_points_jsonl(
    path: str | Path, split: str = "train", text: str | None = None, images: str = "images"
) -> ObjectRows:
    """
    Read a folder with points in json lines.

    Args:
        path (`str` or `Path`): The folder with the json lines and `images`.
        split (`str`, *optional*, defaults to `"train"`): `<split>.jsonl` is read.
        text (`str`): What the points mark, in the plural: `"cell nuclei"`.
        images (`str`, *optional*, defaults to `"images"`): The folder of the pictures, inside `path`.

    Returns:
        `ObjectRows`: One row for each picture, without boxes.

    Raises:
        FileNotFoundError: If the folder, the json lines or a picture is missing.
        ValueError: If a line is malformed, a point is outside its picture, or there is no text.
    """
    folder = existing_folder(path)
    if not text:
        raise ValueError(
            f"Expected text to say what the points of {folder} mark, but got {text!r}. Pass text='cell nuclei', say."
        )
    pictures = existing_folder(path_inside(folder, images, "the folder of the pictures"))
    file = existing_file(
        path_inside(folder, f"{split}.jsonl", "the json lines of a split"), those_there(folder, "*.jsonl")
    )
    report = FolderReport(str(folder), split, num_objects={text: 0})
    rows: list[dict[str, Any]] = []
    seen: dict[Path, int] = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        entry = parse_json(line.encode(), where)
        name = value_of(entry, "file_name", str, where)
        picture = picture_file(pictures, name, where)
        if picture in seen:
            raise ValueError(
                f"Expected each picture once, but {where} is about {name!r} again, like line {seen[picture]}. "
                "Merge the two lines or remove one."
            )
        seen[picture] = number
        size = checked_size(picture, entry.get("width"), entry.get("height"), where)
        points = [
            _checked_point(point, size, f"{where}, point {place}")
            for place, point in enumerate(list_of(entry, "points", where))
        ]
        report.num_objects[text] += len(points)
        rows.append(_row(picture, str(PurePosixPath(name).with_suffix("")), text, points, []))
    if not rows:
        raise ValueError(f"Expected a line for each picture in {file}, but it is empty. Check the path.")
    report.num_pictures = len(rows)
    return _reported(ObjectRows(rows, report))


FORMATS: dict[str, Callable[..., ObjectRows]] = {"voc": read_voc, "coco": read_coco, "points": read_points_jsonl}
"""The reader of each format, by the name that `load_object_folder` knows."""


def load_object_folder(
    path: str | Path,
    format: str,
    split: str | None = None,
    names: Mapping[str, str] | None = None,
    text: str | None = None,
    **options: Any,
) -> datasets.Dataset:
    """
    Load a folder of real pictures as a density set.

    Args:
        path (`str` or `Path`):
            The folder.
        format (`str`):
            `"voc"`, `"coco"` or `"points"`: how it lies, see the top of this file.
        split (`str`, *optional*):
            Which part of it.
        names (`Mapping[str, str]`, *optional*):
            What to say for each name in the annotations, in the plural (not for `"points"`).
        text (`str`, *optional*):
            Instead of `names`: what to say for every object.
        options (`Any`, *optional*):
            More arguments of [`read_voc`], [`read_coco`] or [`read_points_jsonl`].

    Returns:
        `datasets.Dataset`: Rows of the density schema; pictures are read from their files when a row is looked at.
        `info.description` tells what was found and what was left out.

    Raises:
        FileNotFoundError: If the folder or a file that it should hold is missing.
        TypeError: If the format's reader has no such option.
        ValueError: If there is no such format, or the folder's content cannot be right.
    """
    if format not in FORMATS:
        raise ValueError(f"Expected format to be one of {', '.join(FORMATS)}, but got {format!r}. Name one of these.")
    if format == "points":
        if names is not None:
            raise ValueError(
                f"Expected text rather than names for format='points', whose points have no names, but got {names!r}. "
                "Pass text='cell nuclei', say."
            )
    else:
        options["names"] = names
    if split is not None:
        options["split"] = split
    return FORMATS[format](path, text=text, **options).to_dataset()


def _rows(
    pictures: Sequence[_Picture],
    report: FolderReport,
    names: Mapping[str, str] | None,
    text: str | None,
    all_names: Callable[[], set[str]],
) -> ObjectRows:
    """Make a row for each picture and text."""
    found = Counter(name for picture in pictures for name, _ in picture.boxes)
    crowded = {name for picture in pictures for name in picture.crowd_names}
    if names is None:
        if not text:
            known = ", ".join(map(repr, sorted(all_names())))
            raise ValueError(
                f"Expected names or text to say what the objects of {report.folder} are, but got neither. Its "
                f"annotations name {known or 'nothing'}: pass names={{name: 'what to say, in the plural'}}, or text "
                "to count all of them together."
            )
        names = dict.fromkeys(set(found) | crowded, text)
        texts = [text]
    else:
        known_names = set(found) | crowded
        if not set(names) <= known_names:
            known_names |= all_names()
        if unknown := sorted(set(names) - known_names):
            raise ValueError(
                f"Expected names to be among those in the annotations of {report.folder} "
                f"({', '.join(map(repr, sorted(known_names))) or 'there are none'}), but got "
                f"{', '.join(map(repr, unknown))}. Check the spelling."
            )
        texts = list(dict.fromkeys(names.values()))

    report.num_pictures = len(pictures)
    report.num_objects = dict.fromkeys(texts, 0)
    report.other_names = {name: count for name, count in found.items() if name not in names}
    rows = []
    for picture in pictures:
        crowded_texts = {names[name] for name in picture.crowd_names if name in names}
        for wanted in texts:
            if wanted in crowded_texts:
                report.crowd_pairs.append(f"{picture.image_id}: {wanted}")
                continue
            boxes = [box for name, box in picture.boxes if names.get(name) == wanted]
            points = [[(x0 + x1) / 2, (y0 + y1) / 2] for x0, y0, x1, y1 in boxes]
            report.num_objects[wanted] += len(boxes)
            rows.append(_row(picture.path, picture.image_id, wanted, points, [list(box) for box in boxes]))
    return _reported(ObjectRows(rows, report))


def _row(
    picture: Path, image_id: str, text: str, points: list[list[float]], boxes: list[list[float]]
) -> dict[str, Any]:
    return {
        "image": str(picture),
        "image_id": image_id,
        "text": text,
        "count": len(points),
        "points": points,
        "boxes": boxes,
    }


def _reported(rows: ObjectRows) -> ObjectRows:
    left_out = rows.report.boxes_without_area or rows.report.crowd_pairs
    logger.log(logging.WARNING if left_out else logging.INFO, rows.report.summary())
    return rows


def _check_texts(names: Mapping[str, str] | None, text: str | None) -> None:
    if names is not None and text:
        raise ValueError(
            f"Expected names or text, but got both: {dict(names)} and {text!r}. Leave text out to count each name "
            "by itself, or names to count all objects together."
        )
    if names is None:
        return
    if not isinstance(names, Mapping) or not names:
        raise ValueError(f"Expected names as {{name: what to say}} with one or more entries, but got {names!r}.")
    for name, said in names.items():
        if not isinstance(said, str) or not said.strip():
            raise ValueError(
                f"Expected names to say a text for each name, but for {name!r} got {said!r}. Say what to count, in "
                "the plural."
            )


def _split_list(file: Path) -> list[str]:
    existing_file(file, those_there(file.parent, "*.txt"))
    # A list for one class has a second column, which says whether the class is in the picture.
    stems = [line.split()[0] for line in read_text(file).splitlines() if line.strip()]
    if not stems:
        raise ValueError(f"Expected the name of a picture on each line of {file}, but it is empty. Check the split.")
    if twice := sorted(stem for stem, times in Counter(stems).items() if times > 1):
        raise ValueError(f"Expected each picture once in {file}, but {twice[0]!r} is listed twice. Remove one.")
    return stems


def _checked_box(box: Box, size: tuple[int, int], where: str, report: FolderReport, empty_boxes: str) -> Box | None:
    """Check a box against its picture; `None` if it is to be left out."""
    if empty_boxes not in EMPTY_BOX_CHOICES:
        raise ValueError(
            f"Expected empty_boxes to be one of {', '.join(EMPTY_BOX_CHOICES)}, but got {empty_boxes!r}. Choose one."
        )
    x0, y0, x1, y1 = box
    if x1 < x0 or y1 < y0:
        raise ValueError(
            f"Expected the box of {where} to end right of and below its beginning, but it goes from ({x0:g}, {y0:g}) "
            f"to ({x1:g}, {y1:g}). Correct the annotation."
        )
    if x1 == x0 or y1 == y0:
        described = f"{where.removeprefix(report.folder + '/')}, from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
        if empty_boxes == "error":
            raise ValueError(
                f"Expected boxes with an area, but {where} goes from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}). Correct "
                "the annotation, or pass empty_boxes='drop' or 'keep'."
            )
        report.boxes_without_area.append(f"{described}: {'kept' if empty_boxes == 'keep' else 'left out'}")
        if empty_boxes == "drop":
            return None
    width, height = size
    within = min(x0, y0) >= -_EDGE_TOLERANCE and x1 <= width + _EDGE_TOLERANCE and y1 <= height + _EDGE_TOLERANCE
    if not within:
        raise ValueError(
            f"Expected the box of {where} to lie in the picture of {width} x {height} pixels, but it goes from "
            f"({x0:g}, {y0:g}) to ({x1:g}, {y1:g}). Correct the annotation."
        )
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def _checked_point(point: Any, size: tuple[int, int], where: str) -> list[float]:
    x, y = numbers_of(point, 2, where)
    width, height = size
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(
            f"Expected {where} to lie in the picture of {width} x {height} pixels, but got ({x:g}, {y:g}). Points are "
            "[x, y]: correct the annotation."
        )
    # The right and lower edges belong to the last pixels.
    return [min(x, width - 0.01), min(y, height - 0.01)]


def _coco_file(folder: Path, split: str | None, annotations: str | None) -> Path:
    if annotations is not None:
        candidates = [annotations]
    elif split is not None:
        candidates = [f"{split}.json", f"annotations/instances_{split}.json"]
    else:
        candidates = ["instances.json"]
    paths = [path_inside(folder, name, "the annotations") for name in candidates]
    for path in paths:
        if path.is_file():
            return path
    return existing_file(paths[0], those_there(folder, "*.json"))


def _voc_picture(file: Path, pictures: Path, report: FolderReport, empty_boxes: str) -> _Picture:
    root = parse_xml(file)
    name = child_text(root, "filename", file)
    picture = picture_file(pictures, name, str(file))
    width, height = (
        int(child_number(root, f"size/{side}", file)) if root.find("size") is not None else None
        for side in ("width", "height")
    )
    size = checked_size(picture, width, height, str(file))
    boxes = []
    for place, found in enumerate(root.iter("object"), start=1):
        object_name = child_text(found, "name", file)
        where = f"{file}, object {place} ({object_name})"
        left, top, right, bottom = _voc_corners(found, file)
        box = _checked_box((left, top, right, bottom), size, where, report, empty_boxes)
        if box is not None:
            x0, y0, x1, y1 = box
            # VOC numbers pixels from one and means the last one too. (A box from 0 comes from a tool that does not.)
            boxes.append((object_name, (max(x0 - 1.0, 0.0), max(y0 - 1.0, 0.0), x1, y1)))
    return _Picture(picture, file.stem, boxes)


def _voc_corners(found: ElementTree.Element, file: Path) -> Iterator[float]:
    for corner in ("xmin", "ymin", "xmax", "ymax"):
        yield child_number(found, f"bndbox/{corner}", file)
