"""Folders in the layout of Pascal VOC."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ..files.checks import (
    checked_size,
    child_number,
    child_text,
    existing_file,
    existing_folder,
    image_file,
    parse_xml,
    path_inside,
    read_text,
    those_there,
)
from .rows import FolderReport, FoundImage, FoundObject, Names, ObjectRows, check_texts, checked_box, object_rows


def read_voc(
    path: str | Path,
    split: str | None = None,
    names: Names = None,
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
        names (`Mapping[str, str]` or `Callable[[str], str]`, *optional*):
            What to say for each name in the annotations, in the plural: `{"RBC": "red blood cells"}`; or a function
            that says it for any name, such as [`plural_of`]. Every image gives a row for each text, with count 0
            where there is none. Names with the same text are counted together.
        text (`str`, *optional*):
            Instead of `names`: what to say for every object, whatever its name.
        images (`str`, *optional*, defaults to `"JPEGImages"`):
            The folder of the images, inside `path`.
        empty_boxes (`str`, *optional*, defaults to `"drop"`):
            What to do with boxes of no width or no height: `"drop"` leaves them out, `"keep"` counts them, `"error"`
            raises. They are reported in any case.

    Returns:
        `ObjectRows`: One row for each image and text. The points are the middles of the boxes. (VOC numbers pixels
        from one, so the box of the first pixel, written 1, 1, 1, 1, is `[0, 0, 1, 1]` here.)

    Raises:
        FileNotFoundError: If the folder, the list, an annotation or an image is missing.
        ValueError: If a file is malformed, a coordinate is outside its image, or the texts do not fit the names.
    """
    folder = existing_folder(path)
    check_texts(names, text)
    annotations = existing_folder(folder / "Annotations")
    image_folder = existing_folder(path_inside(folder, images, "the folder of the images"))
    every_file = sorted(annotations.glob("*.xml"))
    files = every_file
    if split is not None:
        list_file = path_inside(folder / "ImageSets" / "Main", f"{split}.txt", "the list of a split")
        files = [
            existing_file(path_inside(annotations, f"{stem}.xml", f"a line of {list_file}"), f"{list_file} lists it")
            for stem in read_split_list(list_file)
        ]
    if not files:
        raise ValueError(f"Expected annotations (*.xml) in {annotations}, but found none. Check the path.")

    report = FolderReport(str(folder), split)
    read = [_voc_image(file, image_folder, report, empty_boxes) for file in files]

    def all_names() -> set[str]:
        # A name may be missing from one split and be right all the same.
        return {child_text(found, "name", file) for file in every_file for found in parse_xml(file).iter("object")}

    return object_rows(read, report, names, text, all_names)


def voc_splits(folder: Path) -> list[str]:
    """
    Name the lists of a folder in the layout of Pascal VOC.

    Args:
        folder (`Path`): The folder.

    Returns:
        `list[str]`: The names of its lists in `ImageSets/Main`.
    """
    return sorted(file.stem for file in (folder / "ImageSets" / "Main").glob("*.txt"))


def read_split_list(file: Path) -> list[str]:
    """
    Read a list of a split, with the name of an image on each line.

    Args:
        file (`Path`): The list.

    Returns:
        `list[str]`: The names.

    Raises:
        FileNotFoundError: If there is no such list.
        ValueError: If it is empty, or has a name twice.
    """
    existing_file(file, those_there(file.parent, "*.txt"))
    # A list for one class has a second column, which says whether the class is in the image.
    stems = [line.split()[0] for line in read_text(file).splitlines() if line.strip()]
    if not stems:
        raise ValueError(f"Expected the name of an image on each line of {file}, but it is empty. Check the split.")
    if twice := sorted(stem for stem, times in Counter(stems).items() if times > 1):
        raise ValueError(f"Expected each image once in {file}, but {twice[0]!r} is listed twice. Remove one.")
    return stems


def _voc_image(file: Path, image_folder: Path, report: FolderReport, empty_boxes: str) -> FoundImage:
    root = parse_xml(file)
    name = child_text(root, "filename", file)
    image = image_file(image_folder, name, str(file))
    width, height = (
        int(child_number(root, f"size/{side}", file)) if root.find("size") is not None else None
        for side in ("width", "height")
    )
    size = checked_size(image, width, height, str(file))
    objects = []
    for place, found in enumerate(root.iter("object"), start=1):
        object_name = child_text(found, "name", file)
        where = f"{file}, object {place} ({object_name})"
        left, top, right, bottom = _voc_corners(found, file)
        box = checked_box((left, top, right, bottom), size, where, report, empty_boxes)
        if box is not None:
            x0, y0, x1, y1 = box
            # VOC numbers pixels from one and means the last one too. (A box from 0 comes from a tool that does not.)
            objects.append(FoundObject.boxed(object_name, (max(x0 - 1.0, 0.0), max(y0 - 1.0, 0.0), x1, y1)))
    return FoundImage(image, file.stem, objects)


def _voc_corners(found: ElementTree.Element, file: Path) -> Iterator[float]:
    for corner in ("xmin", "ymin", "xmax", "ymax"):
        yield child_number(found, f"bndbox/{corner}", file)
