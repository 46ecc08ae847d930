"""Images in a folder, an archive or a parquet file: listed first, and loaded when their row is written."""

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
from .images import DECODER_ERRORS


# Where an image is: the path of a file; or the path of an archive or a parquet file, and the name or row in it.
Reference = str | tuple[str, str] | tuple[str, int]


def list_images(place: Path) -> dict[str, Reference]:
    """
    List the images of a folder, with its subfolders, or of an archive.

    Args:
        place (`Path`): The folder or archive.

    Returns:
        `dict[str, Reference]`: Images by their names without folders. Files with unusual suffixes are included, for
        URLs name images anyhow; `.json`, `.txt` and other files that are certainly none are not.

    Raises:
        ValueError: If an archive cannot be read or is malicious, or two images have one name.
    """
    entries: list[tuple[str, Reference]]
    if is_archive(place):
        entries = [(name.rpartition("/")[2], (str(place), name)) for name in archive_files(place)]
    else:
        files = (path for path in sorted(place.rglob("*")) if path.is_file() and not path.name.startswith("."))
        entries = [(path.name, str(path)) for path in files]
    found: dict[str, Reference] = {}
    for name, reference in entries:
        if name.lower().endswith((".json", ".jsonl", ".txt", ".csv", ".md", ".parquet")):
            continue
        if name in found:
            raise ValueError(
                f"Expected each image of {place} under its own name, but {name!r} is in two of its folders. Rename "
                "one, or name the folder of one."
            )
        found[name] = reference
    return found


def load_image(reference: Reference) -> dict[str, Any]:
    """
    Load an image as `datasets.Image` takes it.

    Args:
        reference (`Reference`): Where it is.

    Returns:
        `dict[str, Any]`: `path`, and `bytes` where the image is in another file.

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
    Check that an image can be read, without decoding its pixels.

    Args:
        reference (`Reference`): Where it is.

    Returns:
        `str` or `None`: Why it cannot be read.
    """
    loaded = load_image(reference)
    content = loaded["bytes"]
    if isinstance(reference, tuple) and not content:
        return "no image"
    try:
        with Image.open(loaded["path"] if content is None else io.BytesIO(content)) as opened:
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
        others (`Sequence[str]`, *optional*): Required columns that are not read.
        optional (`Sequence[str]`, *optional*): Columns that are read if the file has them.

    Returns:
        `list[dict[str, Any]]`: The rows.

    Raises:
        ValueError: If it cannot be read, or a column is missing.
    """
    required = [*others, *columns]
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if missing := [name for name in required if name not in names]:
                raise ValueError(
                    f"Expected the columns {', '.join(required)} in {file}, but {', '.join(missing)} is not among "
                    f"{', '.join(names)}. Check that it is the right file."
                )
            rows: list[dict[str, Any]] = opened.read([*columns, *(n for n in optional if n in names)]).to_pylist()
            return rows
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"Expected {file} to be a parquet file, but it cannot be read: {error}. It may be cut short: get it again."
        ) from error


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
