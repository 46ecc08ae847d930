"""
Work that is interrupted and resumed: a folder, or a file, knows its plan and which results are finished.

A plan names everything that the results depend on, as JSON. It is written before the first result and compared by
every later run. In a folder ([`ResumableFolder`]) a result is one or several files, each written whole
([`whole_file`]), and a record in JSON, which is written last and makes the result finished. In a file
([`ResultCache`]) it is a line.
"""

import glob
import hashlib
import json
import os
import shutil
from collections import UserDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .atomic import remove_leftovers, write_json


_CACHE_FORMAT = "count-clip results"


class ResumableFolder:
    """
    A folder of results that a later run takes up.

    Args:
        folder (`Path`): The folder; it is created by [`ResumableFolder.begin`].
        plan_name (`str`, *optional*, defaults to `"plan.json"`): The file with the plan.
    """

    def __init__(self, folder: Path, plan_name: str = "plan.json") -> None:
        self.folder = folder
        self._plan_name = plan_name

    @property
    def plan(self) -> dict[str, Any] | None:
        """`dict[str, Any]` or `None`: The plan that the folder was begun with."""
        path = self.folder / self._plan_name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def begin(self, plan: Mapping[str, Any], restart: bool = False) -> bool:
        """
        Begin work in the folder or resume it; return whether there may be results of an earlier run.

        The plan is everything that the results depend on. `restart` removes the results of another plan.

        Raises:
            ValueError: If the folder was begun with another plan; the message lists the differences.
            FileExistsError: If the folder has files and no plan.
        """
        found = self.plan
        wanted = json.loads(json.dumps(plan))
        if found is not None and found != wanted and not restart:
            raise ValueError(
                f"Expected to resume what was begun in {self.folder} with the same options, but "
                f"{differences(found, wanted)}. Use the same options, or another folder."
            )
        if found != wanted:
            self.remove()
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / self._plan_name, wanted)
        remove_leftovers(self.folder)
        return found == wanted

    def remove(self) -> None:
        """Remove the folder; raise `FileExistsError` if it has files and no plan."""
        if not self.folder.is_dir():
            return
        if self.plan is None and any(self.folder.iterdir()):
            raise FileExistsError(
                f"Expected {self.folder} to be new, empty or of an earlier run, but it holds other files. Use another "
                "folder, or move it away."
            )
        remove_folder(self.folder)

    def is_finished(self, name: str) -> bool:
        """Whether a result is finished."""
        return (self.folder / f"{name}.json").is_file()

    def finish(self, name: str, record: Mapping[str, Any]) -> None:
        """Mark a result as finished, once its files are written, and keep a record of it."""
        write_json(self.folder / f"{name}.json", record)

    def record(self, name: str) -> dict[str, Any]:
        """The record of a finished result."""
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))


class ResultCache(UserDict[str, Any]):
    """
    Results by their keys in a file; each is written at once.

    The file has a line of JSON for each result, after a first one with the plan. A line that was cut off when the
    process was killed is removed.

    Args:
        path (`str` or `os.PathLike`): The file; it is created if there is none.
        plan (`Mapping[str, Any]`): What the results depend on besides their keys: the model, the dtype.

    Raises:
        ValueError: If the file is no cache, is broken, or holds the results of another plan.
        OSError: If it cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], plan: Mapping[str, Any]) -> None:
        super().__init__()
        self.path = Path(path).expanduser()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            self._load({_CACHE_FORMAT: json.loads(json.dumps(plan))})
        except BaseException:
            self.close()
            raise

    def _load(self, header: dict[str, Any]) -> None:
        self._file.seek(0)
        content = self._file.read()
        end = content.rfind(b"\n") + 1
        lines = content[:end].splitlines()
        if content and (not lines or _CACHE_FORMAT.encode() not in lines[0]):
            raise ValueError(
                f"Expected {self.path} to be a new file or one of an earlier run, but it holds something else. Name "
                "another file."
            )
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                if number > 1:
                    self.data[record["key"]] = record["value"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path} is broken in line {number}: {error!r}. Delete it to start over."
                ) from error
            if number == 1 and record != header:
                other = differences(record[_CACHE_FORMAT], header[_CACHE_FORMAT])
                raise ValueError(
                    f"Expected {self.path} to hold results of the same options, but {other}. Name another file, or "
                    "delete this one."
                )
        self._file.truncate(end)
        if not lines:
            self._write(header)

    def __setitem__(self, key: str, value: Any) -> None:
        self._write({"key": key, "value": value})
        self.data[key] = value

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "ResultCache":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def fingerprint_of(plan: Mapping[str, Any]) -> str:
    """A short name for a plan: the same for the same content."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], most: int = 3) -> str:
    """Name the first entries in which two plans differ: `"seed was 1 and is 2; shards: a.tar is new"`."""
    all_of_them = list(_differences(found, wanted))
    more = [f"{len(all_of_them) - most:,} more"] if len(all_of_them) > most else []
    return "; ".join(all_of_them[:most] + more)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in {**found, **wanted}:
        before, now = found.get(name), wanted.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now, f"{prefix}{name}: ")
        elif name not in wanted:
            yield f"{prefix}{name} is gone"
        elif name not in found:
            yield f"{prefix}{name} is new"
        elif before != now:
            yield f"{prefix}{name} was {before!r} and is {now!r}"


def remove_folder(folder: Path) -> None:
    """Remove a folder at once: it is renamed first, so that no half of it is taken for the whole."""
    for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*.removed"):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.{os.getpid()}.removed")))


def replace_folder(new: Path, folder: Path) -> None:
    """Put a finished folder in the place of an earlier one."""
    remove_leftovers(new)
    remove_folder(folder)
    new.rename(folder)
