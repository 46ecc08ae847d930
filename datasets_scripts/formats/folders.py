"""
Folders of images with boxes or points, read as rows of the density schema.

- `"voc"` (Pascal VOC): `Annotations/*.xml`, splits in `ImageSets/Main/<split>.txt`, images in `JPEGImages/`
- `"coco"` (COCO JSON): `<split>.json` or `annotations/instances_<split>.json` (without a split `instances.json`),
  images in `images/`
- `"points"` (JSON lines): `<split>.jsonl`, where a line has `file_name`, `width`, `height` and `points`
  `[[x, y], ...]`; images in `images/`
- `"csv"` (a table): `<split>.csv` (without a split `points.csv`) with the columns `file_name`, `x`, `y` and perhaps
  `name`, a point a line; images in `images/`

Everything that is left out is in the report of every reader, and logged. An annotation that cannot be correct (an
image that is missing, a point outside it, a truncated file) raises an error that names it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from .coco import read_coco
from .points import read_points_csv, read_points_jsonl
from .rows import Names, ObjectRows
from .voc import read_voc


__all__ = [
    "FORMATS",
    "ObjectRows",
    "load_object_folder",
    "read_coco",
    "read_object_folder",
    "read_points_csv",
    "read_points_jsonl",
    "read_voc",
]

FORMATS: dict[str, Callable[..., ObjectRows]] = {
    "voc": read_voc,
    "coco": read_coco,
    "points": read_points_jsonl,
    "csv": read_points_csv,
}
"""The reader of each format."""


def read_object_folder(
    path: str | Path,
    format: str,
    split: str | None = None,
    names: Names = None,
    text: str | None = None,
    **options: Any,
) -> ObjectRows:
    """
    Read a folder of images in any of the formats.

    Args:
        path (`str` or `Path`): The folder.
        format (`str`): A key of `FORMATS`; see the top of this file.
        split (`str`, *optional*): The split to read.
        names (`Mapping[str, str]` or `Callable[[str], str]`, *optional*): The text for each name in the annotations,
            in the plural: `{"person": "people"}`; or a function that returns it, such as [`plural_of`]. Every image
            gives a row for each text, with count 0 if it has no such object. Names with the same text are counted
            together. Not for `"points"`.
        text (`str`, *optional*): Instead of `names`: one text for all objects.
        options (`Any`, *optional*): More arguments of the format's reader: `images` (the folder of the images, inside
            `path`), `empty_boxes` (of `"voc"` and `"coco"`: `"drop"`, the default, leaves boxes without width or
            height out, `"keep"` counts them, `"error"` raises; they are reported in any case), `annotations` and
            `polygons` (of `"coco"`).

    Returns:
        `ObjectRows`: The rows, whose `image` is the image's absolute path, and what was left out.

    Raises:
        FileNotFoundError: If the folder, its annotations or an image is missing.
        TypeError: If the format's reader has no such option.
        ValueError: If there is no such format, a file is malformed, a coordinate is outside its image, or the texts do
            not fit the names.
    """
    if format not in FORMATS:
        raise ValueError(f"Expected format to be one of {', '.join(FORMATS)}, but got {format!r}. Name one of these.")
    if format == "points":
        if names is not None:
            raise ValueError(
                f"Expected text rather than names for format='points', whose points have no names, but got {names!r}. "
                "Pass for example text='cell nuclei'."
            )
    else:
        options["names"] = names
    if split is not None:
        options["split"] = split
    return FORMATS[format](path, text=text, **options)


def load_object_folder(
    path: str | Path,
    format: str,
    split: str | None = None,
    names: Names = None,
    text: str | None = None,
    **options: Any,
) -> datasets.Dataset:
    """
    Load a folder as [`read_object_folder`] does, as a `datasets.Dataset` that reads images from their files on access.

    `info.description` describes the content and what was left out.
    """
    return read_object_folder(path, format, split, names, text, **options).to_dataset()
