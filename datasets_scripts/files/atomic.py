"""Files that hold all of their content or do not exist, however a program ends."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """
    Write a file under a temporary name in its folder, which becomes its own when the block ends without an error.

    Raises:
        OSError: If the file cannot be written, for example because the disk is full; an earlier file stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"No space is left for {path}. Free some and run the same command again: finished work is kept",
            str(path),
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write bytes with [`whole_file`]."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON with [`whole_file`]."""
    write_whole(path, (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode())


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder and below it."""
    for leftover in folder.rglob(".*.unfinished"):
        leftover.unlink()
