"""Files that are there with all of their content or not at all, however a program ends."""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq


# Rows that are written together: as a row group, of which a reader has one in memory.
GROUP_ROWS = 100
_GROUP_BYTES = 32 * 2**20


def write_whole(path: Path, content: bytes) -> None:
    """
    Write a file.

    Args:
        path (`Path`): The file; its folder has to be there.
        content (`bytes`): What it is to hold.

    Raises:
        OSError: If it cannot be written, because the disk is full, say; what was there before stays.
    """
    write_with(path, lambda file: file.write(content))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write json, likewise."""
    write_whole(path, (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode())


def write_with(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """
    Let something write a file.

    Args:
        path (`Path`): The file; its folder has to be there.
        write (`Callable[[IO[bytes]], object]`): Is given the open file.

    Raises:
        OSError: As for [`write_whole`].
    """
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            write(file)
        os.replace(partial, path)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema, even_if_none: bool = False) -> int:
    """
    Write rows to a parquet file, some at a time.

    Args:
        path (`Path`): The file; its folder has to be there.
        rows (`Iterable[Mapping[str, Any]]`): The rows; one with an image has it in `image`, as bytes with a path.
        schema (`pa.Schema`): Their columns.
        even_if_none (`bool`, *optional*, defaults to `False`): Whether there is a file where there are no rows.

    Returns:
        `int`: How many there were.

    Raises:
        OSError: As for [`write_whole`].
    """
    partial = partial_of(path)
    writer, count = None, 0
    try:
        if even_if_none:
            writer = pq.ParquetWriter(partial, schema)
        for group in _in_groups(rows):
            writer = writer or pq.ParquetWriter(partial, schema)
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
        if writer is not None:
            writer.close()
            os.replace(partial, path)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        if writer is not None and writer.is_open:
            _close(writer)
        partial.unlink(missing_ok=True)
    return count


def partial_of(path: Path) -> Path:
    """Where this process writes a file before it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def explained(error: OSError, path: Path) -> OSError:
    """Say of a full disk what to do about it."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OSError(
        error.errno,
        f"No space is left for {path}. Make some and run the same again: what is done is kept",
        str(path),
    )


def _in_groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"]) if row["image"] else 0
        if len(group) == GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _close(writer: pq.ParquetWriter) -> None:
    """Close a file that is thrown away; on a full disk that fails as well."""
    with contextlib.suppress(OSError):
        writer.close()
