"""Folders in the layout of Pascal VOC."""

from collections import Counter
from pathlib import Path

from ..files.checks import (
    child_number,
    child_text,
    existing_file,
    existing_folder,
    parse_xml,
    path_inside,
    read_text,
    those_there,
)
from .rows import FolderReader, Names, ObjectRows


def read_voc(
    path: str | Path,
    split: str | None = None,
    names: Names = None,
    text: str | None = None,
    images: str = "JPEGImages",
    empty_boxes: str = "drop",
) -> ObjectRows:
    """
    Read a folder in the layout of Pascal VOC: `Annotations/*.xml`, `JPEGImages` and `ImageSets`.

    The points are the middles of the boxes. (VOC numbers pixels from one, so the box of the first pixel, written 1, 1,
    1, 1, is `[0, 0, 1, 1]` here.)

    Args:
        path, names, text, images, empty_boxes: See [`read_object_folder`], also for the errors.
        split (`str`, *optional*): The name of a list in `ImageSets/Main`. By default every annotation is read.
    """
    reader = FolderReader(path, split, names, text, images, empty_boxes)
    annotations = existing_folder(reader.folder / "Annotations")
    every_file = sorted(annotations.glob("*.xml"))
    files = every_file
    if split is not None:
        list_file = path_inside(reader.folder / "ImageSets" / "Main", f"{split}.txt", "the list of a split")
        files = [
            existing_file(path_inside(annotations, f"{stem}.xml", f"a line of {list_file}"), f"{list_file} lists it")
            for stem in read_split_list(list_file)
        ]
    if not files:
        raise ValueError(f"Expected annotations (*.xml) in {annotations}, but found none. Check the path.")
    for file in files:
        _add_image(reader, file)

    def all_names() -> set[str]:
        # A name may be missing from one split and still be correct.
        return {child_text(found, "name", file) for file in every_file for found in parse_xml(file).iter("object")}

    return reader.rows(all_names)


def voc_splits(folder: Path) -> list[str]:
    """List the names of the lists in `ImageSets/Main`."""
    return sorted(file.stem for file in (folder / "ImageSets" / "Main").glob("*.txt"))


def read_split_list(file: Path) -> list[str]:
    """
    Read the list of a split, with the name of an image on each line; raise `ValueError` if it is empty or has one
    twice.
    """
    existing_file(file, those_there(file.parent, "*.txt"))
    # The list of a class has a second column: whether the class is in the image.
    stems = [line.split()[0] for line in read_text(file).splitlines() if line.strip()]
    if not stems:
        raise ValueError(f"Expected the name of an image on each line of {file}, but it is empty. Check the split.")
    if twice := sorted(stem for stem, times in Counter(stems).items() if times > 1):
        raise ValueError(f"Expected each image once in {file}, but {twice[0]!r} is listed twice. Remove one.")
    return stems


def _add_image(reader: FolderReader, file: Path) -> None:
    root = parse_xml(file)
    name = child_text(root, "filename", file)
    width, height = (
        int(child_number(root, f"size/{side}", file)) if root.find("size") is not None else None
        for side in ("width", "height")
    )
    image = reader.add_image(file, name, str(file), width, height)
    image.image_id = file.stem
    for place, found in enumerate(root.iter("object"), start=1):
        object_name = child_text(found, "name", file)
        left, top, right, bottom = (
            child_number(found, f"bndbox/{corner}", file) for corner in ("xmin", "ymin", "xmax", "ymax")
        )
        where = f"{file}, object {place} ({object_name})"
        # VOC numbers pixels from one and includes the last one. (A box from 0 was made by a tool that does not.)
        reader.add_box(image, object_name, (left, top, right, bottom), where, first_pixel=1.0)
