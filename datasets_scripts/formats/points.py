"""Folders of images with points, in JSON lines or in a table."""

import csv
import io
from pathlib import Path
from typing import Any

from ..files.checks import (
    existing_file,
    existing_folder,
    list_of,
    number_in,
    parse_json,
    path_inside,
    read_text,
    those_there,
    value_of,
)
from .rows import FolderReader, Names, ObjectRows


def read_points_jsonl(
    path: str | Path, split: str = "train", text: str | None = None, images: str = "images"
) -> ObjectRows:
    """
    Read a folder with points in JSON lines: `file_name`, `points` `[[x, y], ...]` and perhaps `width` and `height`.

    Args:
        path, images: See [`read_object_folder`], also for the errors.
        split (`str`, *optional*, defaults to `"train"`): `<split>.jsonl` is read.
        text (`str`): The objects that the points mark, in the plural: `"cell nuclei"`.
    """
    if not text:
        raise ValueError(
            f"Expected text for what the points of {existing_folder(path)} mark, but got {text!r}. Pass for example "
            "text='cell nuclei'."
        )
    reader = FolderReader(path, split, None, text, images)
    file = _split_file(reader.folder, f"{split}.jsonl")
    lines: dict[Path, int] = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        entry = parse_json(line.encode(), where)
        name = value_of(entry, "file_name", str, where)
        image = reader.add_image(number, name, where, entry.get("width"), entry.get("height"))
        if image.path in lines:
            raise ValueError(
                f"Expected each image once, but {where} is about {name!r} again, like line {lines[image.path]}. "
                "Merge the two lines or remove one."
            )
        lines[image.path] = number
        for place, point in enumerate(list_of(entry, "points", where)):
            reader.add_point(image, text, point, f"{where}, point {place}")
    if not reader.images:
        raise ValueError(f"Expected a line for each image in {file}, but it is empty. Check the path.")
    return reader.rows(lambda: {text})


def read_points_csv(
    path: str | Path,
    split: str | None = None,
    names: Names = None,
    text: str | None = None,
    images: str = "images",
) -> ObjectRows:
    """
    Read a folder with a table of points, comma-separated values with a header.

    The columns are `file_name`, `x` and `y`, a point a line, and perhaps `name`, the name of the object. A line with
    empty `x` and `y` declares its image annotated; an image without objects has only this one.

    Args:
        path, names, text, images: See [`read_object_folder`], also for the errors.
        split (`str`, *optional*): `<split>.csv` is read. By default `points.csv`.
    """
    reader = FolderReader(path, split, names, text, images)
    file = _split_file(reader.folder, f"{split or 'points'}.csv")
    # Cells may have line breaks, at which `splitlines` would cut.
    lines = csv.reader(io.StringIO(read_text(file), newline=""))
    header = [cell.strip() for cell in next(lines, [])]
    if not {"file_name", "x", "y"} <= set(header):
        raise ValueError(
            f"Expected {file} to begin with the names of its columns, file_name, x and y among them, but got "
            f"{header}. Add that line."
        )
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{file}, line {lines.line_num}"
        if len(cells) != len(header):
            raise ValueError(
                f"Expected {len(header)} cells in {where}, as in the header, but got {len(cells)}: {cells}. It may be "
                "cut short."
            )
        entry = {key: cell.strip() for key, cell in zip(header, cells, strict=True)}
        name = entry["file_name"]
        image = reader.images.get(name) or reader.add_image(name, name, where)
        if entry["x"] or entry["y"]:
            point: list[Any] = [number_in(entry[axis], f"{axis} of {where}") for axis in ("x", "y")]
            reader.add_point(image, entry.get("name") or "points", point, where)
    if not reader.images:
        raise ValueError(f"Expected a line for each point in {file}, but there is none. Check the path.")
    return reader.rows(lambda: {one.name for image in reader.images.values() for one in image.objects})


def points_splits(folder: Path, suffix: str) -> list[str]:
    """List the splits that have a file with a suffix, `".jsonl"` or `".csv"`."""
    return sorted(file.stem for file in folder.glob(f"*{suffix}") if file.name != "points.csv")


def _split_file(folder: Path, name: str) -> Path:
    return existing_file(
        path_inside(folder, name, "the points of a split"), those_there(folder, f"*{Path(name).suffix}")
    )
