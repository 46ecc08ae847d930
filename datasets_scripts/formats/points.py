"""Folders of images with points, in json lines or in a table."""

import csv
import io
from pathlib import Path, PurePosixPath
from typing import Any

from ..files.checks import (
    checked_size,
    existing_file,
    existing_folder,
    image_file,
    list_of,
    number_in,
    parse_json,
    path_inside,
    read_text,
    those_there,
    value_of,
)
from .rows import FolderReport, FoundImage, FoundObject, Names, ObjectRows, check_texts, checked_point, object_rows


def read_points_jsonl(
    path: str | Path, split: str = "train", text: str | None = None, images: str = "images"
) -> ObjectRows:
    """
    Read a folder with points in json lines.

    Args:
        path (`str` or `Path`): The folder with the json lines and `images`.
        split (`str`, *optional*, defaults to `"train"`): `<split>.jsonl` is read.
        text (`str`): What the points mark, in the plural: `"cell nuclei"`.
        images (`str`, *optional*, defaults to `"images"`): The folder of the images, inside `path`.

    Returns:
        `ObjectRows`: One row for each image, without boxes.

    Raises:
        FileNotFoundError: If the folder, the json lines or an image is missing.
        ValueError: If a line is malformed, a point is outside its image, or there is no text.
    """
    folder = existing_folder(path)
    if not text:
        raise ValueError(
            f"Expected text to say what the points of {folder} mark, but got {text!r}. Pass text='cell nuclei', say."
        )
    image_folder = existing_folder(path_inside(folder, images, "the folder of the images"))
    file = existing_file(
        path_inside(folder, f"{split}.jsonl", "the json lines of a split"), those_there(folder, "*.jsonl")
    )
    read: list[FoundImage] = []
    seen: dict[Path, int] = {}
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        entry = parse_json(line.encode(), where)
        name = value_of(entry, "file_name", str, where)
        image = image_file(image_folder, name, where)
        if image in seen:
            raise ValueError(
                f"Expected each image once, but {where} is about {name!r} again, like line {seen[image]}. "
                "Merge the two lines or remove one."
            )
        seen[image] = number
        size = checked_size(image, entry.get("width"), entry.get("height"), where)
        objects = [
            FoundObject(text, checked_point(point, size, f"{where}, point {place}"))
            for place, point in enumerate(list_of(entry, "points", where))
        ]
        read.append(FoundImage(image, str(PurePosixPath(name).with_suffix("")), objects))
    if not read:
        raise ValueError(f"Expected a line for each image in {file}, but it is empty. Check the path.")
    return object_rows(read, FolderReport(str(folder), split), None, text, lambda: {text})


def read_points_csv(
    path: str | Path,
    split: str | None = None,
    names: Names = None,
    text: str | None = None,
    images: str = "images",
) -> ObjectRows:
    """
    Read a folder with a table of points, comma-separated values with a header.

    The columns are `file_name`, `x` and `y`, a point a line, and perhaps `name`, what the point marks. A line with
    empty `x` and `y` says that its image is annotated; an image without objects has only this one.

    Args:
        path (`str` or `Path`):
            The folder with the table and `images`.
        split (`str`, *optional*):
            `<split>.csv` is read. By default `points.csv`.
        names (`Mapping[str, str]` or `Callable[[str], str]`, *optional*):
            What to say for each entry in the column `name`, in the plural. Every image gives a row for each text,
            with count 0 where there is none.
        text (`str`, *optional*):
            Instead of `names`: what to say for every point.
        images (`str`, *optional*, defaults to `"images"`):
            The folder of the images, inside `path`.

    Returns:
        `ObjectRows`: One row for each image and text, without boxes.

    Raises:
        FileNotFoundError: If the folder, the table or an image is missing.
        ValueError: If a line is malformed, a point is outside its image, or the texts do not fit the names.
    """
    folder = existing_folder(path)
    check_texts(names, text)
    image_folder = existing_folder(path_inside(folder, images, "the folder of the images"))
    file = existing_file(
        path_inside(folder, f"{split or 'points'}.csv", "the table of a split"), those_there(folder, "*.csv")
    )
    # Cells may hold line breaks, which `splitlines` would cut at.
    lines = csv.reader(io.StringIO(read_text(file), newline=""))
    header = [cell.strip() for cell in next(lines, [])]
    if not {"file_name", "x", "y"} <= set(header):
        raise ValueError(
            f"Expected {file} to begin with the names of its columns, file_name, x and y among them, but got "
            f"{header}. Add that line."
        )
    read: dict[str, FoundImage] = {}
    sizes: dict[str, tuple[int, int]] = {}
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
        if name not in read:
            image = image_file(image_folder, name, where)
            sizes[name] = checked_size(image, None, None, where)
            read[name] = FoundImage(image, str(PurePosixPath(name).with_suffix("")))
        if entry["x"] or entry["y"]:
            point: list[Any] = [number_in(entry[axis], f"{axis} of {where}") for axis in ("x", "y")]
            found = entry.get("name") or "points"
            read[name].objects.append(FoundObject(found, checked_point(point, sizes[name], where)))
    if not read:
        raise ValueError(f"Expected a line for each point in {file}, but there is none. Check the path.")
    known = {one.name for image in read.values() for one in image.objects}
    return object_rows(list(read.values()), FolderReport(str(folder), split), names, text, lambda: known)


def points_splits(folder: Path, suffix: str) -> list[str]:
    """
    Name the splits of a folder with points.

    Args:
        folder (`Path`): The folder.
        suffix (`str`): `".jsonl"` or `".csv"`.

    Returns:
        `list[str]`: The splits that have a file of their own.
    """
    return sorted(file.stem for file in folder.glob(f"*{suffix}") if file.name != "points.csv")
