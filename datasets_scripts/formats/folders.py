"""
Folders of real images with boxes or points, as they lie on disk, turned into rows of the one density schema.

- `"voc"` (Pascal VOC): `Annotations/*.xml`, splits in `ImageSets/Main/<split>.txt`, images in `JPEGImages/`
- `"coco"` (COCO json): `<split>.json` or `annotations/instances_<split>.json` (without a split `instances.json`),
  images in `images/`
- `"points"` (json lines): `<split>.jsonl`, where a line has `file_name`, `width`, `height` and `points`
  `[[x, y], ...]`; images in `images/`
- `"csv"` (a table): `<split>.csv` (without a split `points.csv`) with the columns `file_name`, `x`, `y` and perhaps
  `name`, a point a line; images in `images/`

Nothing is dropped in silence: what is left out is in the report of every reader, and logged. What cannot be right (an
image that is not there, a point outside it, a file cut short) raises an error that names it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from .coco import read_coco
from .points import read_points_csv, read_points_jsonl
from .rows import FolderReport, Names, ObjectRows
from .voc import read_voc


__all__ = [
    "FORMATS",
    "FolderReport",
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
"""The reader of each format, by the name that `load_object_folder` knows."""


def read_object_folder(
    path: str | Path,
    format: str,
    split: str | None = None,
    names: Names = None,
    text: str | None = None,
    **options: Any,
) -> ObjectRows:
    """
    Read a folder of real images in any of the formats.

    Args:
        path (`str` or `Path`):
            The folder.
        format (`str`):
            A key of `FORMATS`: how it lies, see the top of this file.
        split (`str`, *optional*):
            Which part of it.
        names (`Mapping[str, str]` or `Callable[[str], str]`, *optional*):
            What to say for each name in the annotations, in the plural (not for `"points"`).
        text (`str`, *optional*):
            Instead of `names`: what to say for every object.
        options (`Any`, *optional*):
            More arguments of [`read_voc`], [`read_coco`], [`read_points_jsonl`] or [`read_points_csv`].

    Returns:
        `ObjectRows`: The rows, whose `image` is the image's absolute path, and what was left out.

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
    Load a folder of real images as a density set.

    Args:
        path, format, split, names, text, options: As [`read_object_folder`] takes them.

    Returns:
        `datasets.Dataset`: Rows of the density schema; images are read from their files when a row is looked at.
        `info.description` tells what was found and what was left out.

    Raises:
        FileNotFoundError: If the folder or a file that it should hold is missing.
        TypeError: If the format's reader has no such option.
        ValueError: If there is no such format, or the folder's content cannot be right.
    """
    return read_object_folder(path, format, split, names, text, **options).to_dataset()
