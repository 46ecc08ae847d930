"""Images in a folder, an archive or a parquet file, found by name now and loaded when their row is written."""

import io
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from .archives import archive_files, is_archive, read_archived


IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Only these readers of Pillow are let near what comes from the web; some of the others start programs.
IMAGE_ENDINGS = {
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "JPEG": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WEBP": ".webp",
}
# Pillow's readers raise all of these for files that are cut short or made to do harm.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, ArithmeticError, LookupError, EOFError, MemoryError),
    Image.DecompressionBombError,
)

# Where an image is: the path of a file; or the path of an archive or a parquet file, and the name or row in it.
Reference = str | tuple[str, str] | tuple[str, int]


def list_images(place: Path) -> dict[str, Reference]:
    """
    Find the images in a folder or an archive.

    Args:
        place (`Path`): The folder or archive; also what lies deeper in it counts.

    Returns:
        `dict[str, Reference]`: Where each is, by its name without folders. Files with unusual endings are among them,
        for the web gives images any names; those of a kind that holds no image (`.json`, `.txt`) are not.

    Raises:
        ValueError: If an archive cannot be read or is hostile, or two images have one name.
    """
    found: dict[str, Reference] = {}
    if is_archive(place):
        entries: list[tuple[str, Reference]] = [
            (name.rpartition("/")[2], (str(place), name)) for name in archive_files(place)
        ]
    else:
        entries = [
            (path.name, str(path))
            for path in sorted(place.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        ]
    for name, reference in entries:
        if name.lower().endswith((".json", ".jsonl", ".txt", ".csv", ".md", ".parquet")):
            continue
        if name in found:
            raise ValueError(
                f"Expected each image of {place} under a name of its own, but {name!r} is in two folders of it. "
                "Rename one, or name the folder of one."
            )
        found[name] = reference
    return found


def load_image(reference: Reference) -> dict[str, Any]:
    """
    Load an image as `datasets.Image` takes it.

    Args:
        reference (`Reference`): Where it is.

    Returns:
        `dict[str, Any]`: `path`, and `bytes` where the path alone does not lead to it.

    Raises:
        ValueError: If it cannot be read.
    """
    if isinstance(reference, str):
        return {"path": reference, "bytes": None}
    file, place = reference
    if isinstance(place, int):
        return {"path": None, "bytes": _parquet_images(file, os.getpid())[place]}
    return {"path": place.rpartition("/")[2], "bytes": read_archived(Path(file), place)}


def image_problem(reference: Reference) -> str | None:
    """
    Look whether an image can be read, without decoding its pixels.

    Args:
        reference (`Reference`): Where it is.

    Returns:
        `str` or `None`: Why not, if it cannot.
    """
    loaded = load_image(reference)
    if isinstance(reference, tuple) and not loaded["bytes"]:
        return "no image"
    return content_problem(loaded["path"] if loaded["bytes"] is None else loaded["bytes"])


def content_problem(content: bytes | str) -> str | None:
    """
    Look whether something is an image, without decoding its pixels.

    Args:
        content (`bytes` or `str`): What a file holds, or its path.

    Returns:
        `str` or `None`: Why not, if it is none.
    """
    if isinstance(content, bytes) and not content:
        return "empty"
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as opened:
            opened.verify()
    except UnidentifiedImageError:
        return "no image"
    except DECODER_ERRORS as error:
        return f"cannot be read: {error}"
    return None


def read_parquet_rows(
    file: Path, columns: Sequence[str], others: Sequence[str] = (), optional: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """
    Read some columns of a parquet file.

    Args:
        file (`Path`): The file.
        columns (`Sequence[str]`): The columns to read.
        others (`Sequence[str]`, *optional*): Columns that have to be there too, and are not read.
        optional (`Sequence[str]`, *optional*): Columns to read if they are there.

    Returns:
        `list[dict[str, Any]]`: The rows.

    Raises:
        ValueError: If it cannot be read, or a column is missing.
    """
    try:
        with pq.ParquetFile(file) as opened:
            there = opened.schema_arrow.names
            if lacking := [name for name in [*others, *columns] if name not in there]:
                raise ValueError(
                    f"Expected the columns {', '.join([*others, *columns])} in {file}, but {', '.join(lacking)} is "
                    f"not among {', '.join(there)}. Check that it is the right file."
                )
            read = opened.read(columns=[*columns, *(name for name in optional if name in there)])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"Expected {file} to be a parquet file, but it cannot be read: {error}. It may be cut short: get it again."
        ) from error
    rows: list[dict[str, Any]] = read.to_pylist()
    return rows


@lru_cache(maxsize=2)
def _parquet_images(file: str, process: int) -> list[bytes | None]:
    """The images of a small parquet file, whose column `image` holds their bytes alone or with a path."""
    column = pq.read_table(file, columns=["image"]).column("image")
    if pa.types.is_struct(column.type):
        return [None if value is None else value["bytes"] for value in column.to_pylist()]
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise ValueError(
            f"Expected the bytes of images in the column 'image' of {file}, but got {column.type}. Check that it is "
            "the right file."
        )
    return list(column.to_pylist())
