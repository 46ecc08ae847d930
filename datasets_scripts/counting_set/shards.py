"""
Where captions and their images come from: shards of parquet, of webdataset, of json lines, or a set of `datasets`.

A shard is what is done as a whole or not at all. It is read from the front, and no more than a few rows of it are in
memory; images are read only of rows whose caption is wanted.
"""

import gzip
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq


# What the columns are called where nothing is said, in lower case, the best first.
CAPTION_COLUMNS = ("caption", "text", "txt", "alt_text")
IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "image_bytes")
URL_COLUMNS = ("url", "image_url")
KEY_COLUMNS = ("key", "__key__", "image_id", "uid")

MAX_IMAGE_BYTES = 50 * 2**20

_IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "img")
_CAPTION_SUFFIXES = ("txt", "caption", "text")
# Rows of a table that are in memory at once, without their images and with them.
_BATCH = 1024
_IMAGE_BATCH = 32
# Without a buffer all of a column in a row group would be read at once.
BUFFER_BYTES = 2**20
_MAX_TEXT_BYTES = 2**20


class ShardError(Exception):
    """A shard that cannot be read; the message names it and says why."""


@dataclass(frozen=True)
class CaptionRecord:
    """
    A caption that is wanted, and its image.

    Args:
        row (`int`): Its place in its file, from zero.
        key (`str`): Its name: the source's own, or the file and the row.
        caption (`str`): The caption.
        image (`bytes`, *optional*): The image's file.
        url (`str`, *optional*): Where the image is to be had.
        problem (`str`): Why there is no image; empty where there is one, or where it can be fetched.
    """

    row: int
    key: str
    caption: str
    image: bytes | None = None
    url: str | None = None
    problem: str = ""


# Looks at each caption of a shard once, in order, and says whether it is wanted. Not all are strings.
Wanted = Callable[[Any], bool]


@dataclass(frozen=True)
class CaptionShard(ABC):
    """
    A part of a source that is read from the front.

    Args:
        name (`str`): What it is called in counts and provenance: its path inside the source's folder.
        fingerprint (`str`): Another one says that the content is another.
    """

    name: str
    fingerprint: str

    @abstractmethod
    def records(self, wanted: Wanted) -> Iterator[CaptionRecord]:
        """
        Read the shard.

        Args:
            wanted (`Wanted`): Is asked about each caption.

        Returns:
            `Iterator[CaptionRecord]`: The rows whose caption is wanted, in order.

        Raises:
            ShardError: If it cannot be read to its end.
        """


@dataclass(frozen=True)
class Columns:
    """
    What the columns are called.

    Args:
        caption (`str`, *optional*): The caption.
        image (`str`, *optional*): The image, as bytes or as `datasets.Image` stores them.
        url (`str`, *optional*): Its address.
        key (`str`, *optional*): Its name.
    """

    caption: str | None = None
    image: str | None = None
    url: str | None = None
    key: str | None = None

    def found_in(self, names: Sequence[str], where: str) -> "Columns":
        """
        Find the columns of a shard.

        Args:
            names (`Sequence[str]`): The columns that there are.
            where (`str`): The shard, for the error.

        Returns:
            `Columns`: Their names as they are written there; those that are not there are `None`.

        Raises:
            ValueError: If there is no caption, or a column that was named is missing.
        """
        known = (("caption", CAPTION_COLUMNS), ("image", IMAGE_COLUMNS), ("url", URL_COLUMNS), ("key", KEY_COLUMNS))
        lower = {name.lower(): name for name in reversed(names)}
        found: dict[str, str | None] = {}
        for kind, usual in known:
            said = getattr(self, kind)
            if said is not None and said not in names:
                raise ValueError(
                    f"Expected a column {said!r} in {where}, but it has {', '.join(names)}. Name another."
                )
            found[kind] = said or next((lower[name] for name in usual if name in lower), None)
        if found["caption"] is None:
            raise ValueError(
                f"Expected a column with captions in {where} ({', '.join(CAPTION_COLUMNS)}), but it has "
                f"{', '.join(names) or 'none'}. Say which one holds them."
            )
        return Columns(**found)


# --- shards ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParquetShard(CaptionShard):
    """
    Some row groups of a parquet file.

    Args:
        path (`str`): The file.
        columns (`Columns`): Its columns.
        first_group (`int`): The first row group.
        last_group (`int`): One behind the last.
        first_row (`int`): The place of the first row in the file.
    """

    path: str
    columns: Columns
    first_group: int
    last_group: int
    first_row: int

    def records(self, wanted: Wanted) -> Iterator[CaptionRecord]:
        """Read the captions of a row group, and its images if any of them is wanted."""
        try:
            with pq.ParquetFile(self.path, buffer_size=BUFFER_BYTES) as file:
                first_row = self.first_row
                for group in range(self.first_group, self.last_group):
                    yield from self._records_of_group(file, group, first_row, wanted)
                    first_row += file.metadata.row_group(group).num_rows
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"{self.path} cannot be read: {error}") from error

    def _records_of_group(
        self, file: pq.ParquetFile, group: int, first_row: int, wanted: Wanted
    ) -> Iterator[CaptionRecord]:
        caption = self.columns.caption
        picked: list[int] = []
        place = 0
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=[caption]):
            for text in batch.column(0).to_pylist():
                if wanted(text):
                    picked.append(place)
                place += 1
        if not picked:
            return
        others = [name for name in (self.columns.image, self.columns.url, self.columns.key) if name is not None]
        waiting = iter([*picked, -1])
        following, start = next(waiting), 0
        for batch in file.iter_batches(_IMAGE_BATCH, row_groups=[group], columns=[caption, *others]):
            while start <= following < start + batch.num_rows:
                row = batch.slice(following - start, 1).to_pylist()[0]
                yield _record(row, self.columns, self._file_name, first_row + following, Path(self.path).parent)
                following = next(waiting)
            start += batch.num_rows

    @property
    def _file_name(self) -> str:
        return self.name.partition("#")[0]


@dataclass(frozen=True)
class WebdatasetShard(CaptionShard):
    """
    A tar archive in which the files of a sample follow one another: `0001.jpg`, `0001.txt`, `0001.json`.

    Args:
        path (`str`): The archive, compressed or not.
        columns (`Columns`): What the caption, address and name are called in the samples' json.
    """

    path: str
    columns: Columns

    def records(self, wanted: Wanted) -> Iterator[CaptionRecord]:
        """Read sample after sample; the archive is never unpacked."""
        try:
            with tarfile.open(self.path, "r|*") as archive:
                for row, (key, members) in enumerate(_samples(archive)):
                    record = self._record(row, key, members, wanted)
                    if record is not None:
                        yield record
        except (OSError, EOFError, tarfile.TarError) as error:
            raise ShardError(f"{self.path} cannot be read: {error}") from error

    def _record(self, row: int, key: str, members: Mapping[str, bytes | None], wanted: Wanted) -> CaptionRecord | None:
        said = said_in(members.get("json"))
        columns = Columns().found_in([*said, "caption"], self.path) if said else Columns("caption")
        columns = replace(columns, caption=self.columns.caption or columns.caption)
        text = next((members[suffix] for suffix in _CAPTION_SUFFIXES if suffix in members), None)
        caption = said.get(columns.caption or "") if text is None else text.decode("utf-8", "replace").strip()
        if not wanted(caption):
            return None
        suffix = next((suffix for suffix in _IMAGE_SUFFIXES if suffix in members), None)
        url = said.get(self.columns.url or columns.url or "")
        url = url if isinstance(url, str) else None
        name = f"{self.name}:{key}"
        if suffix is None:
            return CaptionRecord(row, name, str(caption), url=url, problem="" if url else "no image in the archive")
        image = members[suffix]
        problem = "" if image is not None else f"more than {MAX_IMAGE_BYTES:,} bytes"
        return CaptionRecord(row, name, str(caption), image=image, url=url if image else None, problem=problem)


@dataclass(frozen=True)
class JsonLinesShard(CaptionShard):
    """
    A list of captions and addresses, an object a line.

    Args:
        path (`str`): The file, gzipped or not.
        columns (`Columns`): What caption, address and name are called.
    """

    path: str
    columns: Columns

    def records(self, wanted: Wanted) -> Iterator[CaptionRecord]:
        """Read line after line; one that is no object is a row without a caption."""
        try:
            opened = gzip.open(self.path, "rb") if self.path.endswith(".gz") else open(self.path, "rb")  # noqa: SIM115
            with opened as file:
                for row, line in enumerate(file):
                    said = said_in(line)
                    if wanted(said.get(self.columns.caption or "")):
                        yield _record(said, self.columns, self.name, row, Path(self.path).parent)
        except (OSError, EOFError) as error:
            raise ShardError(f"{self.path} cannot be read: {error}") from error


@dataclass(frozen=True)
class DatasetShard(CaptionShard):
    """
    A part of a set that `datasets.load_dataset` knows, read as it arrives.

    Args:
        dataset (`str`): Its name.
        config (`str` or `None`): Its configuration.
        split (`str`): Its split.
        index (`int`): Which part.
        num_shards (`int`): Of how many.
        columns (`Columns`): Its columns.
    """

    dataset: str
    config: str | None
    split: str
    index: int
    num_shards: int
    columns: Columns

    def records(self, wanted: Wanted) -> Iterator[CaptionRecord]:
        """Read row after row; images are left as files."""
        rows = stream_dataset(self.dataset, self.config, self.split, self.columns)
        if self.num_shards > 1:
            rows = rows.shard(num_shards=self.num_shards, index=self.index)
        try:
            for row, values in enumerate(rows):
                if wanted(values.get(self.columns.caption or "")):
                    yield _record(values, self.columns, self.name, row, None)
        except (OSError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
            raise ShardError(f"{self.name} cannot be read: {error}") from error


# --- rows -----------------------------------------------------------------------------------------


def stream_dataset(dataset: str, config: str | None, split: str, columns: Columns) -> datasets.IterableDataset:
    """Open a set of `datasets` so that it is read as it arrives, with images left as files."""
    rows = datasets.load_dataset(dataset, config, split=split, streaming=True)
    features = rows.features or {}
    if columns.image is not None and isinstance(features.get(columns.image), datasets.Image):
        rows = rows.cast_column(columns.image, datasets.Image(decode=False))
    return rows


def _record(row: Mapping[str, Any], columns: Columns, source: str, place: int, folder: Path | None) -> CaptionRecord:
    """A row of a table as a record."""
    key = row.get(columns.key) if columns.key else None
    url = row.get(columns.url) if columns.url else None
    url = url if isinstance(url, str) and url else None
    image = row.get(columns.image) if columns.image else None
    problem = ""
    if isinstance(image, Mapping):
        image, problem = _stored_image(image, folder)
    if image is not None and not isinstance(image, bytes):
        image, problem = None, f"an image of bytes was expected, not {type(image).__name__}"
    if image is not None and len(image) > MAX_IMAGE_BYTES:
        image, problem = None, f"more than {MAX_IMAGE_BYTES:,} bytes"
    if image is not None:
        url = None
    elif url is None and not problem:
        problem = "neither an image nor an address"
    name = f"{source}:{place}" if key is None else str(key)
    return CaptionRecord(place, name, str(row[columns.caption or ""]), image, url, "" if url else problem)


def _stored_image(stored: Mapping[str, Any], folder: Path | None) -> tuple[bytes | None, str]:
    """The bytes that `datasets.Image` stores, or those of the file that it names."""
    content, path = stored.get("bytes"), stored.get("path")
    if content is not None or not path:
        return content, "" if content is not None else "an empty image"
    file = Path(path)
    if folder is not None:  # a file of somebody else's may not name files of this machine
        if file.is_absolute() or ".." in PurePosixPath(path).parts:
            return None, f"its path leads out of its folder: {path}"
        file = folder / file
    try:
        if file.stat().st_size > MAX_IMAGE_BYTES:
            return None, f"more than {MAX_IMAGE_BYTES:,} bytes"
        return file.read_bytes(), ""
    except OSError as error:
        return None, f"its file cannot be read: {error}"


def said_in(content: bytes | None) -> dict[str, Any]:
    """The object that a json text holds; an empty one where it holds something else."""
    if content is None:
        return {}
    try:
        said = json.loads(content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """The files of an archive that follow one another and share a name up to the first dot, by what comes after it."""
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
