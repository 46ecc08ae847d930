"""The base of the readers of annotated folders: checks, rows of the density schema, and a report."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import datasets

from ..files.checks import checked_size, existing_folder, image_file, numbers_of, path_inside, repeated_note
from ..schema import density_features, density_row
from .findings import Findings


logger = logging.getLogger(__name__)

EMPTY_BOX_CHOICES = ("drop", "keep", "error")
BOXES_WITHOUT_AREA = "Boxes without area"
CROWDS = "Images and texts left out because of a crowd region"
REPEATED = "Images and texts with the same point more than once, counted as often"
OTHER_NAMES = "Names without a text, with their objects"

# How far, in pixels, a coordinate may be beyond the edge and count as on the edge: annotation tools round.
_EDGE_TOLERANCE = 1.0

Point = tuple[float, float]
Box = tuple[float, float, float, float]

# The text for each name of the annotations, or a function that returns it.
Names = Mapping[str, str] | Callable[[str], str] | None


@dataclass
class FolderReport:
    """The size of a folder or of one split, the number of objects of each text in its rows, and what is unusual."""

    folder: str
    split: str | None = None
    num_images: int = 0
    num_objects: dict[str, int] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)

    def summary(self) -> str:
        """Describe the content of the folder, and each finding in a line."""
        objects = ", ".join(f"{count} {text}" for text, count in self.num_objects.items())
        first = f"{self.folder} ({self.split or 'all'}): {self.num_images} images; {objects}."
        return "\n".join([first, *self.findings.lines(num_examples=8, every_left_out=False)])


class ObjectRows(list[dict[str, Any]]):
    """Rows of the density schema, whose `image` is the image's absolute path, with the report of their reader."""

    def __init__(self, rows: Iterable[dict[str, Any]], report: FolderReport, features: datasets.Features) -> None:
        super().__init__(rows)
        self.report = report
        self.features = features

    def to_dataset(self) -> datasets.Dataset:
        """Make a `datasets.Dataset` that reads images on access; the report is its `info.description`."""
        info = datasets.DatasetInfo(description=self.report.summary(), features=self.features)
        return datasets.Dataset.from_list(list(self), features=self.features, info=info)


@dataclass
class FoundObject:
    """An object: its name in the annotations, and its position in the image's pixels."""

    name: str
    point: Point
    box: Box | None = None
    # Each a list x0, y0, x1, y1, ... around a visible region of the object.
    polygons: list[list[float]] = field(default_factory=list)


@dataclass
class FoundImage:
    """An image, its size (width, height) and its objects."""

    path: Path
    image_id: str
    size: tuple[int, int]
    objects: list[FoundObject] = field(default_factory=list)
    # Names whose objects are not counted in this image.
    crowd_names: set[str] = field(default_factory=set)


def polygon_features() -> datasets.Features:
    """
    Describe a row of the density schema with `polygons`: for each object, in the order of `points`, the outlines of
    its visible regions as x0, y0, x1, y1, ... in the image's pixels; empty for objects with another form of outline.
    """
    features = density_features()
    features["polygons"] = datasets.List(datasets.List(datasets.List(datasets.Value("float32"))))
    return features


class FolderReader:
    """
    Collects the annotations of a folder and makes rows of them. Each format adds its images and objects.

    Args:
        path, split, names, text, images, empty_boxes: See [`read_object_folder`], also for the errors.
        polygons (`bool`, *optional*, defaults to `False`): Whether the rows have the objects' outlines.
    """

    def __init__(
        self,
        path: str | Path,
        split: str | None,
        names: Names,
        text: str | None,
        images: str,
        empty_boxes: str = "drop",
        polygons: bool = False,
    ) -> None:
        self.folder = existing_folder(path)
        _check_texts(names, text)
        if empty_boxes not in EMPTY_BOX_CHOICES:
            raise ValueError(
                f"Expected empty_boxes to be one of {', '.join(EMPTY_BOX_CHOICES)}, but got {empty_boxes!r}. "
                "Choose one."
            )
        self.image_folder = existing_folder(path_inside(self.folder, images, "the folder of the images"))
        self.names = names
        self.text = text
        self.empty_boxes = empty_boxes
        self.polygons = polygons
        self.report = FolderReport(str(self.folder), split)
        self.images: dict[Any, FoundImage] = {}

    def add_image(self, key: Any, name: str, where: str, width: Any = None, height: Any = None) -> FoundImage:
        """Add an image by the name in its annotation, and compare its size with the annotated one, if there is one."""
        path = image_file(self.image_folder, name, where)
        size = checked_size(path, width, height, where)
        image = self.images[key] = FoundImage(path, str(PurePosixPath(name).with_suffix("")), size)
        return image

    def add_box(
        self,
        image: FoundImage,
        name: str,
        box: Box,
        where: str,
        first_pixel: float = 0.0,
        polygons: list[list[float]] | None = None,
    ) -> None:
        """Add an object with a box (x0, y0, x1, y1), numbered from `first_pixel`, whose middle is its point."""
        checked = self._checked_box(box, image.size, where)
        if checked is not None:
            x0, y0 = (max(corner - first_pixel, 0.0) for corner in checked[:2])
            x1, y1 = checked[2:]
            middle = ((x0 + x1) / 2, (y0 + y1) / 2)
            image.objects.append(FoundObject(name, middle, (x0, y0, x1, y1), polygons or []))

    def add_point(self, image: FoundImage, name: str, point: Any, where: str) -> None:
        """Add an object with a point `[x, y]` in the image's pixels; the right and lower edges are the last pixels."""
        x, y = numbers_of(point, 2, where)
        width, height = image.size
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(
                f"Expected {where} to be inside the image of {width} x {height} pixels, but got ({x:g}, {y:g}). "
                "Points are [x, y]: correct the annotation."
            )
        image.objects.append(FoundObject(name, (min(x, width - 0.01), min(y, height - 0.01))))

    def rows(self, all_names: Callable[[], set[str]]) -> ObjectRows:
        """
        Make a row for each image and text, and log the report.

        `all_names` returns every name of the annotations, also of other splits; texts that do not fit them raise
        `ValueError`.
        """
        report = self.report
        text_of, texts = self._texts(all_names)
        report.num_images = len(self.images)
        report.num_objects = dict.fromkeys(texts, 0)
        found = Counter(one.name for image in self.images.values() for one in image.objects)
        # The most frequent ones come first: COCO has eighty.
        for name, count in sorted(found.items(), key=lambda item: (-item[1], item[0])):
            if name not in text_of:
                report.findings.add(OTHER_NAMES, f"{name} ({count})")
        rows = []
        for image in self.images.values():
            crowded = {text_of[name] for name in image.crowd_names if name in text_of}
            for text in texts:
                if text in crowded:
                    report.findings.add(CROWDS, f"{image.image_id}: {text}", left_out=True)
                    continue
                objects = [one for one in image.objects if text_of.get(one.name) == text]
                report.num_objects[text] += len(objects)
                rows.append(self._row(image, text, objects))
        is_notable = report.findings.has_left_out or report.findings.places(BOXES_WITHOUT_AREA)
        logger.log(logging.WARNING if is_notable else logging.INFO, report.summary())
        return ObjectRows(rows, report, polygon_features() if self.polygons else density_features())

    def _texts(self, all_names: Callable[[], set[str]]) -> tuple[dict[str, str], list[str]]:
        """The text of each name, and the different texts."""
        names = self.names
        if callable(names):
            names = {name: names(name) for name in sorted(all_names())}
            _check_texts(names, self.text)
        known = {one.name for image in self.images.values() for one in image.objects}
        known |= {name for image in self.images.values() for name in image.crowd_names}
        if names is None:
            if not self.text:
                listed = ", ".join(map(repr, sorted(all_names()))) or "nothing"
                raise ValueError(
                    f"Expected names or text for the objects of {self.folder}, but got neither. Its annotations name "
                    f"{listed}: pass names={{name: 'text in the plural'}}, or text to count all of them together."
                )
            return dict.fromkeys(known, self.text), [self.text]
        if not set(names) <= known:
            known |= all_names()
        if unknown := sorted(set(names) - known):
            raise ValueError(
                f"Expected names to be among those in the annotations of {self.folder} "
                f"({', '.join(map(repr, sorted(known))) or 'there are none'}), but got "
                f"{', '.join(map(repr, unknown))}. Check the spelling."
            )
        return dict(names), list(dict.fromkeys(names.values()))

    def _row(self, image: FoundImage, text: str, objects: Sequence[FoundObject]) -> dict[str, Any]:
        points = [one.point for one in objects]
        boxes = [one.box for one in objects if one.box is not None]
        note = repeated_note(points)
        if note:
            self.report.findings.add(REPEATED, f"{image.image_id}: {note}")
        row = density_row(str(image.path), image.image_id, text, points, boxes=boxes, note=note)
        return {**row, "polygons": [one.polygons for one in objects]} if self.polygons else row

    def _checked_box(self, box: Box, size: tuple[int, int], where: str) -> Box | None:
        """The box within the image, or `None` if it is left out."""
        x0, y0, x1, y1 = box
        corners = f"({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
        if x1 < x0 or y1 < y0:
            raise ValueError(
                f"Expected the box of {where} to end right of and below its beginning, but it goes from {corners}. "
                "Correct the annotation."
            )
        if x1 == x0 or y1 == y0:
            if self.empty_boxes == "error":
                raise ValueError(
                    f"Expected boxes with an area, but {where} goes from {corners}. Correct the annotation, or pass "
                    "empty_boxes='drop' or 'keep'."
                )
            left_out = self.empty_boxes == "drop"
            place = f"{where.removeprefix(f'{self.folder}/')}, from {corners}: {'left out' if left_out else 'kept'}"
            self.report.findings.add(BOXES_WITHOUT_AREA, place, left_out=left_out)
            if left_out:
                return None
        width, height = size
        if min(x0, y0) < -_EDGE_TOLERANCE or x1 > width + _EDGE_TOLERANCE or y1 > height + _EDGE_TOLERANCE:
            raise ValueError(
                f"Expected the box of {where} to be inside the image of {width} x {height} pixels, but it goes from "
                f"{corners}. Correct the annotation."
            )
        return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def _check_texts(names: Names, text: str | None) -> None:
    if names is not None and text:
        raise ValueError(
            f"Expected names or text, but got both: {names} and {text!r}. Leave text out to count each name "
            "separately, or names to count all objects together."
        )
    if names is None or callable(names):
        return
    if not isinstance(names, Mapping) or not names:
        raise ValueError(f"Expected names as {{name: text}} with one or more entries, but got {names!r}.")
    for name, wanted in names.items():
        if not isinstance(wanted, str) or not wanted.strip():
            raise ValueError(
                f"Expected a text for each name, but for {name!r} got {wanted!r}. Give what to count, in the plural."
            )
