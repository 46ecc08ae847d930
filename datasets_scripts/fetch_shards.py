"""
The pictures of a list while they are fetched, and the shards that they become.

The list is done in shards of some hundred rows. While a shard is fetched, each picture is a file of its own, and a
journal says what became of each address; a line is written when its picture is whole on the disk, so a program that is
killed loses none. When all of a shard is there it is put together, and is there as a whole or not at all.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import datasets

from .whole_files import explained, write_json, write_rows, write_whole


# What shards may be: parquet files with the pictures in them, or folders of pictures with `metadata.jsonl`, as
# `imagefolder` reads them.
LAYOUTS = ("parquet", "folder")

_OURS = {
    "image": datasets.Image(),
    "image_id": datasets.Value("string"),
    "url": datasets.Value("string"),
    "sha256": datasets.Value("string"),
    "width": datasets.Value("int32"),
    "height": datasets.Value("int32"),
}


@dataclass(frozen=True)
class FetchedRow:
    """
    A row of the list whose address was fetched, or could not be.

    Args:
        row (`int`): Its place in the list, from zero.
        columns (`Mapping[str, Any]`): Its other columns.
        record (`Mapping[str, Any]`): What became of the address, as the journal has it.
    """

    row: int
    columns: Mapping[str, Any]
    record: Mapping[str, Any]

    @property
    def key(self) -> str:
        """`str`: What it is called."""
        return key_of(self.row)


def key_of(row: int) -> str:
    """What a row of a list is called: its place, with zeros in front so that names are in order."""
    return f"{row:09d}"


def fetched_features(columns: datasets.Features) -> datasets.Features:
    """
    Describe a row of a fetched set.

    Args:
        columns (`datasets.Features`): The other columns of the list.

    Returns:
        `datasets.Features`: `image`, `image_id`, `url`, `sha256` of the picture's file, `width` and `height` as it is
        stored, and the list's columns; one of those that is called like ours begins with `list_`.
    """
    return datasets.Features({**_OURS, **{_column_name(name): kind for name, kind in columns.items()}})


class FetchedShard:
    """
    A shard that is being fetched, or is done.

    Args:
        output (`Path`): The folder of the set.
        working (`Path`): A folder in it for what is not done.
        number (`int`): Its place among the shards.
        layout (`str`): One of `LAYOUTS`.
    """

    def __init__(self, output: Path, working: Path, number: int, layout: str) -> None:
        self.layout = layout
        self.pictures = working / f"{number:05d}"
        self._journal = working / f"{number:05d}.journal.jsonl"
        self._report = working / f"{number:05d}.json"
        self.failures = working / f"{number:05d}.failures.jsonl"
        self.target = output / (f"data/{number:05d}.parquet" if layout == "parquet" else f"pictures/{number:05d}")
        self._writing: IO[str] | None = None

    @property
    def report(self) -> dict[str, Any] | None:
        """`dict[str, Any]` or `None`: What became of it, if it is done."""
        if not self._report.is_file():
            return None
        values: dict[str, Any] = json.loads(self._report.read_text(encoding="utf-8"))
        return values

    def begin(self) -> dict[int, dict[str, Any]]:
        """
        Begin the shard, or go on with it.

        Returns:
            `dict[int, dict[str, Any]]`: What became of the addresses that were fetched before, by their rows.
        """
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if not self.target.exists():
            self.pictures.mkdir(parents=True, exist_ok=True)
        records = {}
        if self._journal.is_file():
            for line in self._journal.read_bytes().splitlines():
                try:
                    record = json.loads(line)
                except ValueError:  # the program was killed while it wrote this one
                    continue
                if self.target.exists() or "file" not in record or (self.pictures / record["file"]).is_file():
                    records[record["row"]] = record
        # A line that was cut must not be joined with the next.
        write_whole(self._journal, "".join(_line(record) for record in records.values()).encode())
        self._writing = self._journal.open("a", encoding="utf-8")
        return records

    def add(self, record: Mapping[str, Any], content: bytes | None) -> None:
        """
        Take down what became of an address.

        Args:
            record (`Mapping[str, Any]`): `row`, and `file` where there is a picture.
            content (`bytes`, *optional*): The picture.

        Raises:
            OSError: If the disk is full; what was taken down before stays.
        """
        if self._writing is None:
            raise RuntimeError("A shard has to be begun before anything is added to it.")
        try:
            if content is not None:
                write_whole(self.pictures / record["file"], content)
            self._writing.write(_line(record))
            self._writing.flush()
        except OSError as error:
            raise explained(error, self._journal) from error

    def finish(self, rows: Sequence[FetchedRow], features: datasets.Features) -> dict[str, Any]:
        """
        Put the shard together.

        Args:
            rows (`Sequence[FetchedRow]`): All of it, in order.
            features (`datasets.Features`): The columns of the set.

        Returns:
            `dict[str, Any]`: What became of it.
        """
        self.close()
        had = [row for row in rows if "file" in row.record]
        failed = [row for row in rows if "file" not in row.record]
        if not self.target.exists():
            WRITERS[self.layout](self.target, self.pictures, had, features)
        lines = [_line({**row.columns, **row.record}) for row in failed]
        write_whole(self.failures, "".join(lines).encode())
        report = {
            "rows": len(rows),
            "fetched": len(had),
            "bytes": sum(row.record["bytes"] for row in had),
            "content": hashlib.sha256("".join(row.record["sha256"] for row in had).encode()).hexdigest(),
            "reasons": _tally(row.record["reason"] for row in failed),
            "statuses": _tally(str(row.record["status"]) for row in rows if row.record.get("status") is not None),
            "attempts": sum(row.record["attempts"] for row in rows),
        }
        write_json(self._report, report)  # last: with it the shard is done
        self._journal.unlink()
        shutil.rmtree(self.pictures, ignore_errors=True)
        return report

    def close(self) -> None:
        """Close the journal."""
        if self._writing is not None:
            self._writing.close()
            self._writing = None


def _write_parquet(target: Path, pictures: Path, rows: Sequence[FetchedRow], features: datasets.Features) -> None:
    filled = (
        {**_values(row), "image": {"bytes": (pictures / row.record["file"]).read_bytes(), "path": None}}
        for row in rows
    )
    write_rows(target, filled, features.arrow_schema, even_if_none=True)


def _write_folder(target: Path, pictures: Path, rows: Sequence[FetchedRow], features: datasets.Features) -> None:
    if not rows:
        return
    kept = {row.record["file"] for row in rows}
    for file in pictures.iterdir():
        if file.name not in kept:  # begun when the program was killed
            file.unlink()
    lines = [_line({"file_name": row.record["file"], **_values(row)}) for row in rows]
    write_whole(pictures / "metadata.jsonl", "".join(lines).encode())
    os.rename(pictures, target)


WRITERS: dict[str, Callable[[Path, Path, Sequence[FetchedRow], datasets.Features], None]] = {
    "parquet": _write_parquet,
    "folder": _write_folder,
}


def _values(row: FetchedRow) -> dict[str, Any]:
    """The columns of a row but the picture."""
    ours = {"image_id": row.key, **{name: row.record[name] for name in ("url", "sha256", "width", "height")}}
    return {**ours, **{_column_name(name): value for name, value in row.columns.items()}}


def _column_name(name: str) -> str:
    return f"list_{name}" if name in _OURS else name


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, default=str) + "\n"


def _tally(values: Iterator[str] | Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))
