"""
Sources of captions and their images: shards of parquet, webdataset or JSON lines, or a data set of `datasets`.

A shard is processed as a whole or not at all. It is streamed with a few rows in memory; images are read only of rows
whose caption is wanted.
"""

import gzip
import itertools
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ..files.images import IMAGE_SUFFIXES


# The usual names of the columns in lower case, the best first.
_USUAL_COLUMNS = {
    "caption": ("caption", "text", "txt", "alt_text"),
    "image": ("image", "jpg", "jpeg", "png", "webp", "image_bytes"),
    "url": ("url", "image_url"),
    "key": ("key", "__key__", "image_id", "uid"),
}

MAX_IMAGE_BYTES = 50 * 2**20

_IMAGE_SUFFIXES = (*(suffix[1:] for suffix in IMAGE_SUFFIXES), "img")
_CAPTION_SUFFIXES = ("txt", "caption", "text")
# Rows of a table that are in memory at once, without their images and with them.
_BATCH = 1024
_IMAGE_BATCH = 32
# Without a buffer all of a column in a row group would be read at once.
BUFFER_BYTES = 2**20
_MAX_TEXT_BYTES = 2**20
_TOO_LARGE = "more than {:,} bytes"


class ShardError(Exception):
    """A shard that cannot be read; the message names it and the reason."""


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn the errors of a broken file, or of a data set, into a [`ShardError`] that names it."""
    try:
        yield
    except (OSError, EOFError, pa.ArrowException, tarfile.TarError, datasets.exceptions.DatasetsError) as error:
        raise ShardError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class CaptionReading:
    """
    A caption that passed the stages of the text: its number, and the noun that it counts (empty where none was found).
    """

    number: int
    noun: str


@dataclass(frozen=True)
class CaptionRecord:
    """
    A caption that passed the stages of the text, and its image.

    Args:
        source (`str`): The file that it is from.
        row (`int`): Its place in the file, from zero.
        key (`str`): Its name: the source's own, or the file and the row.
        caption (`str`): The caption.
        reading (`CaptionReading`): The number and noun of the caption.
        image (`bytes`, *optional*): The image's file.
        url (`str`, *optional*): The URL of the image.
        problem (`str`): Why there is no image; empty where there is one, or where it can be fetched.
    """

    source: str
    row: int
    key: str
    caption: str
    reading: CaptionReading
    image: bytes | None = None
    url: str | None = None
    problem: str = ""

    def failure(self, stage: str, error: str) -> dict[str, Any]:
        """A line of `failures.jsonl`."""
        where = {"source": self.source, "row": self.row, "key": self.key, "url": self.url}
        return {**where, "stage": stage, "error": error}


@dataclass(frozen=True)
class Columns:
    """
    Names of the columns: the caption; the image, as bytes or as `datasets.Image` stores them; its URL; the row's key.
    """

    caption: str | None = None
    image: str | None = None
    url: str | None = None
    key: str | None = None

    def found_in(self, names: Sequence[str], where: str) -> "Columns":
        """
        Find the columns among the names of a shard; those that are missing are `None`.

        Raises:
            ValueError: If there is no caption, or a column that was named is missing.
        """
        lower = {name.lower(): name for name in reversed(names)}
        found: dict[str, str | None] = {}
        for field, usual in _USUAL_COLUMNS.items():
            named = getattr(self, field)
            if named is not None and named not in names:
                raise ValueError(
                    f"Expected a column {named!r} in {where}, but it has {', '.join(names)}. Name another."
                )
            found[field] = named or next((lower[name] for name in usual if name in lower), None)
        if found["caption"] is None:
            raise ValueError(
                f"Expected a column with captions in {where} ({', '.join(_USUAL_COLUMNS['caption'])}), but it has "
                f"{', '.join(names) or 'none'}. Name the column that holds them."
            )
        return Columns(**found)


_SAMPLE_COLUMNS = Columns("caption", "image", "url", "key")
# Reads each caption of a shard once, in order; `None` where it is not wanted. Not all captions are strings.
ReadCaption = Callable[[Any], CaptionReading | None]


@dataclass(frozen=True)
class CaptionShard(ABC):
    """
    A part of a source that is read from the front.

    Args:
        name (`str`): Its name in counts and provenance: its path inside the source's folder.
        fingerprint (`str`): Changes with the content.
        path (`str`): The file, or the name of the data set.
        columns (`Columns`): Its columns.
    """

    name: str
    fingerprint: str
    path: str
    columns: Columns

    def records(self, read: ReadCaption) -> Iterator[CaptionRecord]:
        """
        Read the rows whose caption is wanted, in order; raise [`ShardError`] if the shard cannot be read to its end.
        """
        with reading(self.path):
            yield from self._records(read)

    @abstractmethod
    def _records(self, read: ReadCaption) -> Iterator[CaptionRecord]:
        """Read the shard; errors of broken files are turned into a `ShardError`."""

    @property
    def source(self) -> str:
        """`str`: The file or data set that the shard is of."""
        return self.name.partition("#")[0]

    def _record(
        self,
        row: Mapping[str, Any],
        columns: Columns,
        place: int,
        caption: CaptionReading,
        folder: Path | None = None,
        problem: str = "",
    ) -> CaptionRecord:
        """A row as a record."""
        key, url, image = (row.get(name or "") for name in (columns.key, columns.url, columns.image))
        if isinstance(image, Mapping):
            image, problem = _stored_image(image, folder)
        if image is not None and not isinstance(image, bytes):
            image, problem = None, f"an image of bytes was expected, not {type(image).__name__}"
        if image is not None and len(image) > MAX_IMAGE_BYTES:
            image, problem = None, _TOO_LARGE.format(MAX_IMAGE_BYTES)
        url = url if isinstance(url, str) and url else None
        if image is not None or url is not None:
            problem = ""
        elif not problem:
            problem = "neither an image nor a URL"
        name = f"{self._numbered}:{place}" if key is None else str(key)
        return CaptionRecord(self.source, place, name, str(row[columns.caption or ""]), caption, image, url, problem)

    @property
    def _numbered(self) -> str:
        """The file or shard that the places of the rows are counted in."""
        return self.name


# --- shards ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParquetShard(CaptionShard):
    """
    The row groups from `groups[0]` to before `groups[1]` of a parquet file, whose first row is `first_row` of the
    file.

    Of a group, the captions are read first, and images if one is wanted.
    """

    groups: tuple[int, int]
    first_row: int

    def _records(self, read: ReadCaption) -> Iterator[CaptionRecord]:
        with pq.ParquetFile(self.path, buffer_size=BUFFER_BYTES) as file:
            first_row = self.first_row
            for group in range(*self.groups):
                yield from self._records_of_group(file, group, first_row, read)
                first_row += file.metadata.row_group(group).num_rows

    def _records_of_group(
        self, file: pq.ParquetFile, group: int, first_row: int, read: ReadCaption
    ) -> Iterator[CaptionRecord]:
        batches = file.iter_batches(_BATCH, row_groups=[group], columns=[self.columns.caption])
        captions = itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches)
        found = {place: caption for place, text in enumerate(captions) if (caption := read(text)) is not None}
        if not found:
            return
        names = [name for name in astuple(self.columns) if name is not None]
        start = 0
        for batch in file.iter_batches(_IMAGE_BATCH, row_groups=[group], columns=names):
            for place in range(start, start + batch.num_rows):
                if place in found:
                    row = batch.slice(place - start, 1).to_pylist()[0]
                    yield self._record(row, self.columns, first_row + place, found[place], Path(self.path).parent)
            start += batch.num_rows

    @property
    def _numbered(self) -> str:
        return self.source


class WebdatasetShard(CaptionShard):
    """A tar archive in which the files of a sample follow one another: `0001.jpg`, `0001.txt`, `0001.json`."""

    def _records(self, read: ReadCaption) -> Iterator[CaptionRecord]:
        with tarfile.open(self.path, "r|*") as archive:
            for place, (key, members) in enumerate(_samples(archive)):
                values = json_object(members.get("json"))
                columns = Columns().found_in([*values, "caption"], self.path)
                text = values.get(self.columns.caption or columns.caption or "")
                content = next((members[suffix] for suffix in _CAPTION_SUFFIXES if suffix in members), None)
                if content is not None:
                    text = content.decode("utf-8", "replace").strip()
                if (caption := read(text)) is None:
                    continue
                suffix = next((suffix for suffix in _IMAGE_SUFFIXES if suffix in members), None)
                row = {
                    "caption": text,
                    "image": members[suffix] if suffix else None,
                    "url": values.get(self.columns.url or columns.url or ""),
                    "key": f"{self.name}:{key}",
                }
                problem = _TOO_LARGE.format(MAX_IMAGE_BYTES) if suffix else "no image in the archive"
                yield self._record(row, _SAMPLE_COLUMNS, place, caption, problem=problem)


class JsonLinesShard(CaptionShard):
    """Captions and URLs, a JSON object a line; a line that is no object is a row without a caption."""

    def _records(self, read: ReadCaption) -> Iterator[CaptionRecord]:
        for place, row in enumerate(json_objects(self.path)):
            if (caption := read(row.get(self.columns.caption or ""))) is not None:
                yield self._record(row, self.columns, place, caption, Path(self.path).parent)


@dataclass(frozen=True)
class DatasetShard(CaptionShard):
    """
    Shard `index` of `num_shards` of a data set that `datasets.load_dataset` knows, streamed; images are not decoded.
    """

    config: str | None
    split: str
    index: int
    num_shards: int

    def _records(self, read: ReadCaption) -> Iterator[CaptionRecord]:
        rows = datasets.load_dataset(self.path, self.config, split=self.split, streaming=True)
        if isinstance((rows.features or {}).get(self.columns.image or ""), datasets.Image):
            rows = rows.cast_column(self.columns.image, datasets.Image(decode=False))
        if self.num_shards > 1:
            rows = rows.shard(num_shards=self.num_shards, index=self.index)
        for place, row in enumerate(rows):
            if (caption := read(row.get(self.columns.caption or ""))) is not None:
                yield self._record(row, self.columns, place, caption)


# --- rows -----------------------------------------------------------------------------------------


def json_objects(path: str) -> Iterator[dict[str, Any]]:
    """The object of each line of a file, gzipped or not; an empty one where a line holds something else."""
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
        yield from map(json_object, file)


def json_object(content: bytes | None) -> dict[str, Any]:
    """The object of a JSON text; an empty one where it holds something else."""
    try:
        values = json.loads(content or b"")
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _stored_image(stored: Mapping[str, Any], folder: Path | None) -> tuple[bytes | None, str]:
    """The bytes that `datasets.Image` stores, or those of the file that it names."""
    content, path = stored.get("bytes"), stored.get("path")
    if content is not None or not path:
        return content, "" if content is not None else "an empty image"
    file = Path(path)
    if folder is not None:  # a downloaded shard must not name other files of this machine
        if file.is_absolute() or ".." in PurePosixPath(path).parts:
            return None, f"its path leads out of its folder: {path}"
        file = folder / file
    try:
        if file.stat().st_size > MAX_IMAGE_BYTES:
            return None, _TOO_LARGE.format(MAX_IMAGE_BYTES)
        return file.read_bytes(), ""
    except OSError as error:
        return None, f"its file cannot be read: {error}"


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Consecutive files of an archive that share a name up to the first dot, by their suffix."""
    key, members = "", {}  # type: str, dict[str, bytes | None]
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # it would keep a description of each
        if not member.isfile():
            continue
        name = PurePosixPath(member.name)
        stem, _, suffix = name.name.partition(".")
        current = (name.parent / stem).as_posix()
        if members and current != key:
            yield key, members
            members = {}
        key = current
        suffix = suffix.lower()
        is_image = suffix in _IMAGE_SUFFIXES
        if is_image or suffix == "json" or suffix in _CAPTION_SUFFIXES:
            opened = archive.extractfile(member)
            fits = member.size <= (MAX_IMAGE_BYTES if is_image else _MAX_TEXT_BYTES)
            members[suffix] = opened.read() if fits and opened is not None else None
    if members:
        yield key, members
