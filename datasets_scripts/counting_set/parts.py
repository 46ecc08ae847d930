"""The parts of a counting set that is being built: the rows of each finished shard and their counts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ..files.atomic import whole_file
from ..files.resumable import ResumableFolder
from ..schema import caption_features
from .shards import BUFFER_BYTES, CaptionShard
from .stages import CaptionSetConfig, StageCounts


# Rows of a row group, of which readers and writers have one in memory.
_GROUP_ROWS = 100
_GROUP_BYTES = 32 * 2**20


def caption_set_features() -> datasets.Features:
    """
    Describe a row of a counting set: the columns of [`caption_features`]; `detected`, the detector's class, with the
    `scores` and `boxes` (`[x0, y0, x1, y1]` in the upright image's own pixels) of its objects; `url` of the image;
    `source` and `row`, the file that the caption is from and its place in it.
    """
    number = datasets.Value("float32")
    return datasets.Features(
        {
            **caption_features(),
            "detected": datasets.Value("string"),
            "scores": datasets.List(number),
            "boxes": datasets.List(datasets.List(number, length=4)),
            "url": datasets.Value("string"),
            "source": datasets.Value("string"),
            "row": datasets.Value("int64"),
        }
    )


def plan_of(shards: Sequence[CaptionShard], config: CaptionSetConfig) -> dict[str, Any]:
    """What the content of the parts depends on, as JSON holds it."""
    return {**config.of_the_stages, "shards": {shard.name: shard.fingerprint for shard in shards}}


@dataclass(frozen=True)
class PartReport:
    """The counts of a finished shard, and the images that were missing, broken or failed the detector."""

    counts: StageCounts
    failures: tuple[dict[str, Any], ...]


class PartFolder(ResumableFolder):
    """The folder of the parts, by the index of their shards; its plan is [`plan_of`]."""

    def is_done(self, index: int) -> bool:
        """Whether a shard is finished."""
        return self.is_finished(f"{index:06d}")

    def read_report(self, index: int) -> PartReport:
        """The counts of a finished shard."""
        values = self.record(f"{index:06d}")
        return PartReport(StageCounts.from_dict(values["counts"]), tuple(values["failures"]))

    def write(
        self, index: int, rows: Iterable[Mapping[str, Any]], counts: StageCounts, failures: Sequence[dict[str, Any]]
    ) -> PartReport:
        """
        Write the part of a shard while its rows are computed; `counts` and `failures` are complete when `rows` is
        exhausted.
        """
        write_rows(self._rows(index), rows)
        self.finish(f"{index:06d}", {"counts": counts.as_dict(), "failures": list(failures)})
        return PartReport(counts, tuple(failures))

    def batches(self, indices: Iterable[int], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read the rows of some parts in batches, in order; all columns by default."""
        for index in indices:
            with pq.ParquetFile(self._rows(index), buffer_size=BUFFER_BYTES) as file:
                yield from file.iter_batches(_GROUP_ROWS, columns=columns)

    def _rows(self, index: int) -> Path:
        return self.folder / f"{index:06d}.parquet"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of a counting set to a parquet file, one row group in memory, with [`whole_file`]."""
    schema = caption_set_features().arrow_schema
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"]) if row["image"] else 0
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
