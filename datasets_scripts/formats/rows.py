"""Objects found in images, turned into rows of the one density schema, with a report of what was left out."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from ..files.checks import numbers_of, repeated_note
from ..schema import density_features, density_row


logger = logging.getLogger(__name__)

EMPTY_BOX_CHOICES = ("drop", "keep", "error")

# How far, in pixels, a coordinate may be beyond the edge and be taken for the edge: annotation tools round.
_EDGE_TOLERANCE = 1.0

Point = tuple[float, float]
Box = tuple[float, float, float, float]

# What to say for each name of the annotations, or how to say any of them.
Names = Mapping[str, str] | Callable[[str], str] | None


@dataclass
class FolderReport:
    """
    What a reader found, and what it left out.

    Args:
        folder (`str`): The folder.
        split (`str`, *optional*): Which part of it.
        num_images (`int`): How many images it read.
        num_objects (`dict[str, int]`): How many objects of each text are in the rows.
        boxes_without_area (`list[str]`): Every box of no width or no height, and whether it was kept.
        crowd_pairs (`list[str]`): Every image and text left out because of a crowd region, which has no count.
        repeated (`list[str]`): Every image and text with the same point more than once; all of them are counted.
        other_names (`dict[str, int]`): Objects of names that were not asked for.
    """

    folder: str
    split: str | None = None
    num_images: int = 0
    num_objects: dict[str, int] = field(default_factory=dict)
    boxes_without_area: list[str] = field(default_factory=list)
    crowd_pairs: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    other_names: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """
        Say it in a few lines.

        Returns:
            `str`: One line a finding.
        """
        objects = ", ".join(f"{count} {text}" for text, count in self.num_objects.items())
        lines = [f"{self.folder} ({self.split or 'all'}): {self.num_images} images; {objects}."]
        for what, examples in self.findings().items():
            shown = ", ".join(examples[:8]) + (", ..." if len(examples) > 8 else "")
            lines.append(f"{what}: {len(examples)} ({shown}).")
        return "\n".join(lines)

    def findings(self) -> dict[str, list[str]]:
        """
        Say what is odd.

        Returns:
            `dict[str, list[str]]`: For each kind of finding every place where it was found; nothing that was not.
        """
        # The most frequent ones come first: COCO has eighty.
        others = sorted(self.other_names.items(), key=lambda item: (-item[1], item[0]))
        findings = {
            "Names that were not asked for, with their objects": [f"{name} ({count})" for name, count in others],
            "Boxes without area": self.boxes_without_area,
            "Images and texts left out because of a crowd region": self.crowd_pairs,
            "Images and texts with the same point more than once, counted as often": self.repeated,
        }
        return {what: found for what, found in findings.items() if found}


class ObjectRows(list[dict[str, Any]]):
    """
    Rows of the density schema, whose `image` is the image's absolute path.

    Args:
        rows (`Iterable[dict[str, Any]]`): The rows.
        report (`FolderReport`): What the reader found and what it left out.
        features (`datasets.Features`, *optional*): The columns; by default those of the density schema.
    """

    def __init__(
        self, rows: Iterable[dict[str, Any]], report: FolderReport, features: datasets.Features | None = None
    ) -> None:
        super().__init__(rows)
        self.report = report
        self.features = density_features() if features is None else features

    def to_dataset(self) -> datasets.Dataset:
        """
        Make a `datasets.Dataset`.

        Returns:
            `datasets.Dataset`: The rows; images are read from their files when a row is looked at. The report is its
            `info.description`.
        """
        info = datasets.DatasetInfo(description=self.report.summary(), features=self.features)
        return datasets.Dataset.from_list(list(self), features=self.features, info=info)


@dataclass
class FoundObject:
    """An object in an image: its name in the annotations, and where it is in the image's pixels."""

    name: str
    point: Point
    box: Box | None = None
    # Each a list x0, y0, x1, y1, ... around a part of the object.
    polygons: list[list[float]] = field(default_factory=list)

    @classmethod
    def boxed(cls, name: str, box: Box, polygons: list[list[float]] | None = None) -> "FoundObject":
        """Take the middle of the box for the object's point."""
        x0, y0, x1, y1 = box
        return cls(name, ((x0 + x1) / 2, (y0 + y1) / 2), box, polygons or [])


@dataclass
class FoundImage:
    """An image with what is annotated in it."""

    path: Path
    image_id: str
    objects: list[FoundObject] = field(default_factory=list)
    # Names whose objects nobody counted in this image.
    crowd_names: set[str] = field(default_factory=set)


def polygon_features() -> datasets.Features:
    """
    Describe a row of the density schema with the outlines of its objects.

    Returns:
        `datasets.Features`: Those of [`density_features`], and `polygons`: for each object, in the order of `points`,
        the outlines of its parts as x0, y0, x1, y1, ... in the image's pixels. Objects outlined otherwise have none.
    """
    features = density_features()
    features["polygons"] = datasets.List(datasets.List(datasets.List(datasets.Value("float32"))))
    return features


def object_rows(
    images: Sequence[FoundImage],
    report: FolderReport,
    names: Names,
    text: str | None,
    all_names: Callable[[], set[str]],
    polygons: bool = False,
) -> ObjectRows:
    """
    Make a row for each image and text, and log the report.

    Args:
        images (`Sequence[FoundImage]`): What was read.
        report (`FolderReport`): Is filled in.
        names (`Mapping[str, str]` or `Callable[[str], str]`, *optional*): What to say for each name.
        text (`str`, *optional*): Instead of `names`: what to say for every object.
        all_names (`Callable[[], set[str]]`): Finds every name of the annotations, also those of other splits.
        polygons (`bool`, *optional*, defaults to `False`): Whether the rows have the objects' outlines.

    Returns:
        `ObjectRows`: The rows, image by image.

    Raises:
        ValueError: If the texts do not fit the names.
    """
    said, texts = _said(images, report, names, text, all_names)
    report.num_images = len(images)
    report.num_objects = dict.fromkeys(texts, 0)
    found = Counter(one.name for image in images for one in image.objects)
    report.other_names = {name: count for name, count in found.items() if name not in said}
    rows = []
    for image in images:
        crowded_texts = {said[name] for name in image.crowd_names if name in said}
        for wanted in texts:
            if wanted in crowded_texts:
                report.crowd_pairs.append(f"{image.image_id}: {wanted}")
                continue
            objects = [one for one in image.objects if said.get(one.name) == wanted]
            report.num_objects[wanted] += len(objects)
            rows.append(_row(image, wanted, objects, report, polygons))
    left_out = report.boxes_without_area or report.crowd_pairs
    logger.log(logging.WARNING if left_out else logging.INFO, report.summary())
    return ObjectRows(rows, report, polygon_features() if polygons else None)


def _said(
    images: Sequence[FoundImage],
    report: FolderReport,
    names: Names,
    text: str | None,
    all_names: Callable[[], set[str]],
) -> tuple[dict[str, str], list[str]]:
    """What to say for each name, and the different things to say."""
    if callable(names):
        names = {name: names(name) for name in sorted(all_names())}
        check_texts(names, text)
    known_names = {one.name for image in images for one in image.objects}
    known_names |= {name for image in images for name in image.crowd_names}
    if names is None:
        if not text:
            known = ", ".join(map(repr, sorted(all_names())))
            raise ValueError(
                f"Expected names or text to say what the objects of {report.folder} are, but got neither. Its "
                f"annotations name {known or 'nothing'}: pass names={{name: 'what to say, in the plural'}}, or text "
                "to count all of them together."
            )
        return dict.fromkeys(known_names, text), [text]
    if not set(names) <= known_names:
        known_names |= all_names()
    if unknown := sorted(set(names) - known_names):
        raise ValueError(
            f"Expected names to be among those in the annotations of {report.folder} "
            f"({', '.join(map(repr, sorted(known_names))) or 'there are none'}), but got "
            f"{', '.join(map(repr, unknown))}. Check the spelling."
        )
    return dict(names), list(dict.fromkeys(names.values()))


def _row(
    image: FoundImage, text: str, objects: Sequence[FoundObject], report: FolderReport, polygons: bool
) -> dict[str, Any]:
    points = [one.point for one in objects]
    note = repeated_note(points)
    if note:
        report.repeated.append(f"{image.image_id}: {note}")
    row = density_row(
        str(image.path),
        image.image_id,
        text,
        points,
        boxes=[one.box for one in objects if one.box is not None],
        note=note,
    )
    if polygons:
        row["polygons"] = [one.polygons for one in objects]
    return row


def check_texts(names: Names, text: str | None) -> None:
    """
    Check what is to be said for the objects.

    Args:
        names (`Mapping[str, str]` or `Callable[[str], str]`, *optional*): What to say for each name.
        text (`str`, *optional*): Instead of `names`: what to say for every object.

    Raises:
        ValueError: If both are given, or nothing is said for a name.
    """
    if names is not None and text:
        raise ValueError(
            f"Expected names or text, but got both: {names} and {text!r}. Leave text out to count each name "
            "by itself, or names to count all objects together."
        )
    if names is None or callable(names):
        return
    if not isinstance(names, Mapping) or not names:
        raise ValueError(f"Expected names as {{name: what to say}} with one or more entries, but got {names!r}.")
    for name, said in names.items():
        if not isinstance(said, str) or not said.strip():
            raise ValueError(
                f"Expected names to say a text for each name, but for {name!r} got {said!r}. Say what to count, in "
                "the plural."
            )


def checked_box(box: Box, size: tuple[int, int], where: str, report: FolderReport, empty_boxes: str) -> Box | None:
    """
    Check a box against its image.

    Args:
        box (`tuple[float, float, float, float]`): x0, y0, x1, y1 in the image's pixels.
        size (`tuple[int, int]`): The image's width and height.
        where (`str`): What to call the box in messages.
        report (`FolderReport`): Takes boxes without area down.
        empty_boxes (`str`): `"drop"`, `"keep"` or `"error"`: what to do with those.

    Returns:
        `tuple[float, float, float, float]` or `None`: The box within the image, or `None` if it is to be left out.

    Raises:
        ValueError: If the box is outside the image or ends before it begins.
    """
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
            f"Expected the box of {where} to lie in the image of {width} x {height} pixels, but it goes from "
            f"({x0:g}, {y0:g}) to ({x1:g}, {y1:g}). Correct the annotation."
        )
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def checked_point(point: Any, size: tuple[int, int], where: str) -> Point:
    """
    Check a point against its image.

    Args:
        point (`Any`): Should be `[x, y]` in the image's pixels.
        size (`tuple[int, int]`): The image's width and height.
        where (`str`): What to call the point in messages.

    Returns:
        `tuple[float, float]`: The point; one on the right or lower edge belongs to the last pixel.

    Raises:
        ValueError: If it is no point, or outside the image.
    """
    x, y = numbers_of(point, 2, where)
    width, height = size
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(
            f"Expected {where} to lie in the image of {width} x {height} pixels, but got ({x:g}, {y:g}). Points are "
            "[x, y]: correct the annotation."
        )
    return min(x, width - 0.01), min(y, height - 0.01)
