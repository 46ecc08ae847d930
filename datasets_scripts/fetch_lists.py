"""Lists of addresses: text, csv, json lines or parquet, read from the front however long they are."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from .caption_shards import BUFFER_BYTES, URL_COLUMNS


LIST_ENDINGS = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")

_BATCH = 1024
# What a value of json is stored as; anything else, and columns of several kinds, as its json.
_TYPES: dict[type, str] = {str: "string", bool: "bool", int: "int64", float: "float64"}


@dataclass(frozen=True)
class AddressList:
    """
    A file with an address in each row, and whatever else there is.

    Args:
        path (`Path`): The file: `.txt` (an address a line; lines that begin with `#` are none), `.csv` or `.tsv` with
            a line of names, `.jsonl`, `.parquet`; all but the last may end with `.gz`.
        url_column (`str`, *optional*): The column with the addresses; by default `url` or `image_url`.

    Raises:
        ValueError: If it is none of these, or has no such column.
    """

    path: Path
    url_column: str | None = None

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise FileNotFoundError(f"Expected a list of addresses at {self.path}, but there is no such file.")
        if self._kind not in LIST_ENDINGS:
            raise ValueError(
                f"Expected a list of addresses ({', '.join(LIST_ENDINGS)}), but got {self.path}. Rename it."
            )
        if self._kind == ".txt" and self.url_column is not None:
            raise ValueError(
                f"Expected no url_column for {self.path}, which has no columns, but got one. Leave it out."
            )
        self._read()  # names what is wrong before anything is fetched

    @property
    def _kind(self) -> str:
        endings = [ending.lower() for ending in self.path.suffixes]
        if endings and endings[-1] == ".gz" and endings[-2:-1] != [".parquet"]:
            endings = endings[:-1]
        return endings[-1] if endings else ""

    def _read(self) -> None:
        try:
            _ = self.url_name, self.features
        except (UnicodeDecodeError, csv.Error, OSError, EOFError, pa.ArrowException) as error:
            raise ValueError(f"Expected to read addresses in {self.path}, but cannot: {error}.") from error

    @cached_property
    def fingerprint(self) -> str:
        """`str`: Of the content."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def url_name(self) -> str:
        """`str`: The column with the addresses."""
        names = list(self._all_features)
        if self.url_column is not None:
            if self.url_column not in names:
                raise ValueError(
                    f"Expected a column {self.url_column!r} in {self.path}, but it has {', '.join(names) or 'none'}. "
                    "Name another."
                )
            return self.url_column
        lower = {name.lower(): name for name in reversed(names)}
        found = next((lower[name] for name in URL_COLUMNS if name in lower), None)
        if found is None:
            raise ValueError(
                f"Expected a column {' or '.join(URL_COLUMNS)} in {self.path}, but it has "
                f"{', '.join(names) or 'none'}. Say which one holds the addresses (url_column)."
            )
        return found

    @cached_property
    def features(self) -> datasets.Features:
        """`datasets.Features`: The columns but that of the addresses."""
        return datasets.Features({name: kind for name, kind in self._all_features.items() if name != self.url_name})

    @cached_property
    def num_rows(self) -> int:
        """`int`: How many rows there are."""
        if self._kind == ".parquet":
            return int(pq.read_metadata(self.path).num_rows)
        return sum(1 for _ in self._plain_rows())

    def rows(self) -> Iterator[tuple[str | None, dict[str, Any]]]:
        """
        Read the list.

        Returns:
            `Iterator[tuple[str | None, dict[str, Any]]]`: The address of each row, `None` where there is none, and its
            other columns.

        Raises:
            ValueError: If it cannot be read on.
        """
        try:
            for row in self._plain_rows():
                url = row.get(self.url_name)
                yield (
                    url.strip() if isinstance(url, str) and url.strip() else None,
                    {name: self._stored(name, row.get(name)) for name in self.features},
                )
        except (UnicodeDecodeError, csv.Error, OSError, EOFError, pa.ArrowException) as error:
            raise ValueError(f"Expected to read addresses in {self.path}, but cannot go on: {error}.") from error

    @cached_property
    def _all_features(self) -> datasets.Features:
        if self._kind == ".txt":
            return datasets.Features({"url": datasets.Value("string")})
        if self._kind == ".parquet":
            return datasets.Features.from_arrow_schema(pq.read_schema(self.path))
        if self._kind == ".jsonl":
            return self._json_features()
        with self._opened() as file:
            names = next(csv.reader(file, delimiter=self._delimiter), [])
        if len(set(names)) < len(names):
            raise ValueError(
                f"Expected each column of {self.path} under a name of its own, but got {', '.join(names)}."
            )
        return datasets.Features({name: datasets.Value("string") for name in names})

    def _json_features(self) -> datasets.Features:
        """Look through all of the list: a column that holds numbers first may hold words later."""
        kinds: dict[str, set[type]] = {}
        for row in self._plain_rows():
            for name, value in row.items():
                kinds.setdefault(name, set()).update([] if value is None else [type(value)])
        chosen = {}
        for name, found in kinds.items():
            found = {float} if found == {int, float} else found
            chosen[name] = _TYPES.get(next(iter(found)), "string") if len(found) == 1 else "string"
        return datasets.Features({name: datasets.Value(kind) for name, kind in chosen.items()})

    def _stored(self, name: str, value: Any) -> Any:
        if self._kind != ".jsonl" or value is None:
            return value
        kind = self.features[name].dtype
        if kind == "string" and not isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)
        return float(value) if kind == "float64" else value

    def _plain_rows(self) -> Iterator[dict[str, Any]]:
        if self._kind == ".parquet":
            with pq.ParquetFile(self.path, buffer_size=BUFFER_BYTES) as opened:
                for batch in opened.iter_batches(_BATCH):
                    yield from batch.to_pylist()
            return
        with self._opened() as file:
            if self._kind == ".txt":
                yield from ({"url": line} for line in file if line.strip() and not line.startswith("#"))
            elif self._kind == ".jsonl":
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield self._json_row(number, line)
            else:
                yield from self._csv_rows(file)

    def _json_row(self, number: int, line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"Expected json in line {number} of {self.path}, but it is not: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"Expected an object in line {number} of {self.path}, but got {line.strip()[:80]}.")
        return row

    def _csv_rows(self, file: TextIO) -> Iterator[dict[str, Any]]:
        reader = csv.DictReader(file, delimiter=self._delimiter, strict=True)
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(
                    f"Expected {len(reader.fieldnames or ())} values in line {reader.line_num} of {self.path}, but "
                    f"got {'more' if None in row else 'fewer'}. Quote values that hold the delimiter."
                )
            yield row

    @property
    def _delimiter(self) -> str:
        return "\t" if self._kind == ".tsv" else ","

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        is_packed = self.path.name.lower().endswith(".gz")
        binary = gzip.open(self.path, "rb") if is_packed else self.path.open("rb")  # noqa: SIM115  # closed below
        # Spreadsheets put a byte order mark in front.
        with binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
            yield file
