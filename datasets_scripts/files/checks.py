"""Checks of paths, images and annotations: every error names the file, the value, and what to do about it."""

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError


_EXIF_ORIENTATION = 0x0112


def existing_folder(path: str | Path) -> Path:
    """Resolve a folder that must exist."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        there = "it is a file" if folder.exists() else "there is none"
        raise FileNotFoundError(f"Expected a folder at {folder}, but {there}. Check the path.")
    return folder.resolve()


def existing_file(path: Path, hint: str) -> Path:
    """Return a file that must exist; `hint` goes into the error."""
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a file at {path}, but there is none ({hint}). Check the path and the split."
        )
    return path


def leads_out(name: str) -> bool:
    """Whether an untrusted name, joined to a folder, could lead out of it on any system."""
    windows = PureWindowsPath(name)
    return not name or bool(windows.anchor) or "\\" in name or "\0" in name or ".." in windows.parts


def path_inside(folder: Path, name: str, what: str) -> Path:
    """Join an untrusted name to a folder, which it must not lead out of."""
    if leads_out(name) or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"Expected {what} to name something inside {folder}, but got {name!r}, which leads out of it. "
            "Use a name relative to that folder, with forward slashes."
        )
    return folder / name


def those_there(folder: Path, pattern: str) -> str:
    """List the files of a folder that match a pattern, or the first of them, for an error."""
    there = sorted(file.name for file in folder.glob(pattern))
    if not there:
        return f"there is no {pattern} at all" if pattern != "*" else "it is empty"
    return f"there are: {', '.join(there[:10])}{', ...' if len(there) > 10 else ''}"


def image_file(folder: Path, name: str, where: str) -> Path:
    """Find an image of a folder by its name in an annotation."""
    path = path_inside(folder, name, f"the image of {where}")
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected the image of {where} at {path}, but there is none. Put it there, or remove its annotation."
        )
    return path


def checked_size(image: Path, width: Any, height: Any, where: str) -> tuple[int, int]:
    """Read the size of an image, upright, and compare it with the one in its annotation, if there is one."""
    try:
        with Image.open(image) as opened:
            size = opened.size
            # Decoding turns the image upright; orientations five to eight swap its sides.
            if not _is_plain_png(image) and opened.getexif().get(_EXIF_ORIENTATION, 1) >= 5:
                size = (size[1], size[0])
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(
            f"Expected an image at {image} ({where}), but it cannot be read: {error}. Replace the file, or remove "
            "its annotation."
        ) from error
    given = (width, height)
    # Some tools write zeros for unknown sizes.
    if given not in {(None, None), (0, 0)} and given != size:
        raise ValueError(
            f"Expected {image} to be {width} x {height} pixels, as in {where}, but it is {size[0]} x {size[1]}. "
            "The coordinates are for another size of the image: get that one, or correct the annotation."
        )
    return size


def _is_plain_png(image: Path) -> bool:
    """Whether an image is a complete PNG without metadata, for which Pillow would decode all of it."""
    with image.open("rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            return False
        while len(head := file.read(8)) == 8:
            if head[4:] == b"IEND":
                return True
            if head[4:] in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return False
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def read_text(file: Path) -> str:
    """Read a text file in UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected {file} to be text in UTF-8, but {error}. Check that it is the right file."
        ) from error


def read_array(file: Path | str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Read an array of finite numbers from a `.npy` file, which must not hold Python objects (they can run code)."""
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"Expected {file} to be an array of numbers, but it cannot be read: {error}. Get it again."
        ) from error
    if array.shape != shape or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(
            f"Expected {file} to hold {' x '.join(map(str, shape))} finite numbers, as its image has rows and "
            f"columns, but got {array.dtype} of {array.shape}. Get the one made for this image."
        )
    return array.astype(np.float32)


def numbers_of(value: Any, count: int, where: str) -> list[float]:
    """Check a list of `count` finite numbers."""
    good = isinstance(value, list) and len(value) == count
    if not good or not all(type(entry) in (int, float) and math.isfinite(entry) for entry in value):
        raise ValueError(f"Expected {count} numbers for {where}, but got {value!r}. Correct the annotation.")
    return [float(entry) for entry in value]


def number_in(text: str, where: str) -> float:
    """Read a finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"Expected a number in {where}, but got {text!r}. Correct the annotation.")
    return number


def repeated_note(points: Sequence[Sequence[float]]) -> str | None:
    """Describe how many points (or boxes) repeat an earlier one, if any."""
    repeated = len(points) - len(set(map(tuple, points)))
    if not repeated:
        return None
    return f"{repeated} of the {len(points)} points {'is' if repeated == 1 else 'are'} the same as another"


def value_of(entry: Any, key: str, types: type | tuple[type, ...], where: str) -> Any:
    """Get a value of some type from a JSON object."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, types) or isinstance(value, bool):
        names = " or ".join(type_.__name__ for type_ in (types if isinstance(types, tuple) else (types,)))
        raise ValueError(f"Expected {where} to have {key!r} ({names}), but got {entry!r}. Correct the annotation.")
    return value


def list_of(content: Any, key: str, where: "Path | str") -> list[Any]:
    """Get a list from a JSON object."""
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, list):
        got = f"keys {sorted(content)}" if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"Expected {where} to hold a list under {key!r}, but got {got}. Check that it is the right file."
        )
    return value


def parse_json(content: bytes, where: str) -> Any:
    """Parse JSON; a key that an object has twice is an error, where Python would keep the last one."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
            raise ValueError(f"Expected each key of {where} once, but {twice!r} is repeated. Remove one of them.")
        return found

    try:
        return json.loads(content, object_pairs_hook=unique)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"Expected {where} to be json, but it is not: {error}. It may be cut short: compare its size with the "
            "original's and get it again."
        ) from error


def parse_xml(file: Path) -> ElementTree.Element:
    """Parse an XML file."""
    try:
        return ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(
            f"Expected {file} to be xml, but it is not: {error}. It may be cut short: get it again."
        ) from error


def child_text(element: ElementTree.Element, path: str, file: Path) -> str:
    """The text of an element's child, which must not be empty."""
    text = (element.findtext(path) or "").strip()
    if not text:
        raise ValueError(
            f"Expected <{path}> in <{element.tag}> of {file}, but it is missing or empty. Correct the file."
        )
    return text


def child_number(element: ElementTree.Element, path: str, file: Path) -> float:
    """The number in an element's child."""
    text = child_text(element, path, file)
    return number_in(text, f"<{path}> of {file}")
