"""Folders with annotations in COCO's JSON."""

from pathlib import Path
from typing import Any

from ..files.checks import existing_file, list_of, numbers_of, parse_json, path_inside, those_there, value_of
from .rows import FolderReader, Names, ObjectRows


def read_coco(
    path: str | Path,
    split: str | None = None,
    names: Names = None,
    text: str | None = None,
    images: str = "images",
    empty_boxes: str = "drop",
    annotations: str | None = None,
    polygons: bool = False,
) -> ObjectRows:
    """
    Read a folder with annotations in COCO's JSON; the points are the middles of the boxes.

    The objects of a category with a crowd region (`iscrowd`) in an image were not counted there: that image has no row
    for the category, which is reported.

    Args:
        path, names, text, images, empty_boxes: See [`read_object_folder`], also for the errors.
        split (`str`, *optional*): `<split>.json` or `annotations/instances_<split>.json` is read. By default
            `instances.json`.
        annotations (`str`, *optional*): Another JSON file to read, inside `path`.
        polygons (`bool`, *optional*, defaults to `False`): Whether the rows get a column `polygons`, see
            [`polygon_features`].
    """
    reader = FolderReader(path, split, names, text, images, empty_boxes, polygons)
    file = _coco_file(reader.folder, split, annotations)
    content = parse_json(file.read_bytes(), str(file))
    key_types = (int, str)
    categories = {
        value_of(entry, "id", key_types, f"{file}, categories"): value_of(entry, "name", str, f"{file}, categories")
        for entry in list_of(content, "categories", file)
    }
    for entry in list_of(content, "images", file):
        key = value_of(entry, "id", key_types, f"{file}, images")
        where = f"{file}, image {key!r}"
        if key in reader.images:
            raise ValueError(f"Expected one image of each id, but {where} is repeated. Remove one.")
        name = value_of(entry, "file_name", str, where)
        reader.add_image(key, name, where, entry.get("width"), entry.get("height"))
    for entry in list_of(content, "annotations", file):
        where = f"{file}, annotation {entry.get('id')!r}" if isinstance(entry, dict) else f"{file}, annotations"
        key, category = (value_of(entry, name, key_types, where) for name in ("image_id", "category_id"))
        if key not in reader.images or category not in categories:
            raise ValueError(
                f"Expected {where} to belong to an image and a category of the file, but its image_id is {key!r} and "
                f"its category_id {category!r}. The file may be one split's annotations with another's images."
            )
        image, name = reader.images[key], categories[category]
        if entry.get("iscrowd"):
            image.crowd_names.add(name)
            continue
        x, y, width, height = numbers_of(entry.get("bbox"), 4, f"{where}, bbox")
        outlines = _outlines(entry.get("segmentation"), where) if polygons else None
        reader.add_box(image, name, (x, y, x + width, y + height), where, polygons=outlines)
    if not reader.images:
        raise ValueError(f"Expected images in {file}, but it lists none. Check that it is the right file.")
    return reader.rows(lambda: set(categories.values()))


def coco_splits(folder: Path) -> list[str]:
    """List the splits that have a JSON file."""
    files = [*folder.glob("*.json"), *(folder / "annotations").glob("instances_*.json")]
    return sorted({file.stem.removeprefix("instances_") for file in files} - {"instances"})


def _outlines(segmentation: Any, where: str) -> list[list[float]]:
    """The polygons of an object; a mask in another form has none."""
    if not isinstance(segmentation, list):
        return []
    outlines = []
    for place, polygon in enumerate(segmentation):
        length = len(polygon) if isinstance(polygon, list) else 0
        if length < 6 or length % 2:
            raise ValueError(
                f"Expected polygon {place} of {where} to be x0, y0, x1, y1, ... of three corners or more, but got "
                f"{polygon!r}. Correct the annotation, or leave polygons out."
            )
        outlines.append(numbers_of(polygon, length, f"{where}, polygon {place}"))
    return outlines


def _coco_file(folder: Path, split: str | None, annotations: str | None) -> Path:
    if annotations is not None:
        candidates = [annotations]
    elif split is not None:
        candidates = [f"{split}.json", f"annotations/instances_{split}.json"]
    else:
        candidates = ["instances.json"]
    paths = [path_inside(folder, name, "the annotations") for name in candidates]
    found = next((path for path in paths if path.is_file()), paths[0])
    return existing_file(found, those_there(folder, "*.json"))
