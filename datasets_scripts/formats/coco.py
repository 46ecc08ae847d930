"""Folders with annotations in COCO's json."""

from pathlib import Path, PurePosixPath
from typing import Any

from ..files.checks import (
    checked_size,
    existing_file,
    existing_folder,
    image_file,
    list_of,
    numbers_of,
    parse_json,
    path_inside,
    those_there,
    value_of,
)
from .rows import FolderReport, FoundImage, FoundObject, Names, ObjectRows, check_texts, checked_box, object_rows


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
    Read a folder with annotations in COCO's json.

    Where a category has a crowd region in an image (`iscrowd`), its objects were not counted there: that image has
    no row for the category, which is reported.

    Args:
        path (`str` or `Path`):
            The folder with the json files and `images`.
        split (`str`, *optional*):
            `<split>.json` or `annotations/instances_<split>.json` is read. By default `instances.json`.
        names (`Mapping[str, str]` or `Callable[[str], str]`, *optional*):
            What to say for each category, in the plural: `{"person": "people"}`; or a function that says it for any
            category, such as [`plural_of`]. Every image gives a row for each text, with count 0 where there is
            none. Categories with the same text are counted together.
        text (`str`, *optional*):
            Instead of `names`: what to say for every object, whatever its category.
        images (`str`, *optional*, defaults to `"images"`):
            The folder of the images, inside `path`.
        empty_boxes (`str`, *optional*, defaults to `"drop"`):
            What to do with boxes of no width or no height: `"drop"` leaves them out, `"keep"` counts them, `"error"`
            raises. They are reported in any case.
        annotations (`str`, *optional*):
            Another json file to read, inside `path`.
        polygons (`bool`, *optional*, defaults to `False`):
            Whether the rows get a column `polygons`, see [`polygon_features`].

    Returns:
        `ObjectRows`: One row for each image and text. The points are the middles of the boxes.

    Raises:
        FileNotFoundError: If the folder, the json file or an image is missing.
        ValueError: If a file is malformed, a coordinate is outside its image, or the texts do not fit the names.
    """
    folder = existing_folder(path)
    check_texts(names, text)
    image_folder = existing_folder(path_inside(folder, images, "the folder of the images"))
    file = _coco_file(folder, split, annotations)
    content = parse_json(file.read_bytes(), str(file))
    categories = {
        value_of(entry, "id", (int, str), f"{file}, categories"): value_of(entry, "name", str, f"{file}, categories")
        for entry in list_of(content, "categories", file)
    }
    report = FolderReport(str(folder), split)
    read, sizes = _coco_images(content, file, image_folder)
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
        box = checked_box((x, y, x + width, y + height), sizes[key], where, report, empty_boxes)
        if box is not None:
            outlines = _outlines(entry.get("segmentation"), where) if polygons else None
            read[key].objects.append(FoundObject.boxed(name, box, outlines))
    if not read:
        raise ValueError(f"Expected images in {file}, but it lists none. Check that it is the right file.")
    return object_rows(list(read.values()), report, names, text, lambda: set(categories.values()), polygons)


def coco_splits(folder: Path) -> list[str]:
    """
    Name the splits of a folder with annotations in COCO's json.

    Args:
        folder (`Path`): The folder.

    Returns:
        `list[str]`: The splits that have a file of their own.
    """
    files = [*folder.glob("*.json"), *(folder / "annotations").glob("instances_*.json")]
    return sorted({file.stem.removeprefix("instances_") for file in files} - {"instances"})


def _coco_images(
    content: Any, file: Path, image_folder: Path
) -> tuple[dict[Any, FoundImage], dict[Any, tuple[int, int]]]:
    """The images of a json file and their sizes, by id."""
    read: dict[Any, FoundImage] = {}
    sizes: dict[Any, tuple[int, int]] = {}
    for entry in list_of(content, "images", file):
        key = value_of(entry, "id", (int, str), f"{file}, images")
        where = f"{file}, image {key!r}"
        if key in read:
            raise ValueError(f"Expected one image of each id, but {where} is there twice. Remove one.")
        name = value_of(entry, "file_name", str, where)
        image = image_file(image_folder, name, where)
        sizes[key] = checked_size(image, entry.get("width"), entry.get("height"), where)
        read[key] = FoundImage(image, str(PurePosixPath(name).with_suffix("")))
    return read, sizes


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
    for path in paths:
        if path.is_file():
            return path
    return existing_file(paths[0], those_there(folder, "*.json"))
