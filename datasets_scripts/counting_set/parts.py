"""
The parts of a counting set that is being built: a file for each shard that is done, and what was counted in it.

A part is there as a whole or not at all, so a build that was killed goes on with the shards that are not done.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ..files.atomic import GROUP_ROWS, write_json, write_rows
from ..schema import caption_features
from .shards import BUFFER_BYTES, CaptionShard
from .stages import CaptionSetConfig, StageCounts


_PLAN = "plan.json"


def caption_set_features() -> datasets.Features:
    """
    Describe a row of a counting set that was filtered from captions.

    Returns:
        `datasets.Features`: The columns of [`caption_features`]; `detected`, the detector's class, with the `scores`
        and `boxes` (`[x0, y0, x1, y1]` in the upright image's own pixels) of its objects; `url` of the image;
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


@dataclass(frozen=True)
class PartReport:
    """
    What became of a shard.

    Args:
        index (`int`): Its place among the shards.
        counts (`StageCounts`): What was counted at each stage.
        failures (`tuple[dict[str, Any], ...]`): The images that were missing, broken or failed the detector.
    """

    index: int
    counts: StageCounts
    failures: tuple[dict[str, Any], ...]


class PartFolder:
    """
    The folder of the parts.

    Args:
        folder (`Path`): Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plan(self, shards: Sequence[CaptionShard], config: CaptionSetConfig) -> None:
        """
        Note down what is to be done, or check that it is what was begun.

        Args:
            shards (`Sequence[CaptionShard]`): The shards.
            config (`CaptionSetConfig`): How rows are chosen.

        Raises:
            ValueError: If something else was begun in this folder.
        """
        plan = plan_of(shards, config)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _PLAN
        if not path.exists():
            write_json(path, plan)
            return
        begun = json.loads(path.read_text(encoding="utf-8"))
        if begun != plan:
            what = "options" if begun["config"] != plan["config"] else "shards"
            raise ValueError(
                f"Expected to go on with what was begun in {self.folder.parent}, but that was with other {what}: "
                f"{_difference(begun, plan)}. Give the same ones, or another output folder."
            )

    @property
    def is_begun(self) -> bool:
        """Whether something was begun here."""
        return (self.folder / _PLAN).exists()

    def is_done(self, index: int) -> bool:
        """Whether a shard is done."""
        return self._report(index).exists()

    def read_report(self, index: int) -> PartReport:
        """What became of a shard that is done."""
        values = json.loads(self._report(index).read_text(encoding="utf-8"))
        return PartReport(index, StageCounts.from_dict(values["counts"]), tuple(values["failures"]))

    def write(
        self, index: int, rows: Iterable[Mapping[str, Any]], counts: StageCounts, failures: Sequence[dict[str, Any]]
    ) -> PartReport:
        """
        Write a part while its rows come in.

        Args:
            index (`int`): The place of its shard.
            rows (`Iterable[Mapping[str, Any]]`): Its rows.
            counts (`StageCounts`): What is counted while they come in.
            failures (`Sequence[dict[str, Any]]`): What goes wrong meanwhile.

        Returns:
            `PartReport`: What became of the shard.

        Raises:
            OSError: If the disk is full; what was done before stays.
        """
        self._rows(index).unlink(missing_ok=True)  # of a build that was killed after it and before its report
        write_rows(self._rows(index), rows, caption_set_features().arrow_schema)
        # Written last: with it the shard is done.
        write_json(self._report(index), {"counts": counts.as_dict(), "failures": list(failures)})
        return PartReport(index, counts, tuple(failures))

    def batches(self, indices: Iterable[int], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """
        Read the rows of some parts, a few at a time.

        Args:
            indices (`Iterable[int]`): The places of their shards.
            columns (`Sequence[str]`, *optional*): The columns; all by default.

        Returns:
            `Iterator[pa.RecordBatch]`: Their rows, in order.
        """
        for index in indices:
            path = self._rows(index)
            if path.exists():
                with pq.ParquetFile(path, buffer_size=BUFFER_BYTES) as file:
                    yield from file.iter_batches(GROUP_ROWS, columns=columns)

    def _rows(self, index: int) -> Path:
        return self.folder / f"{index:06d}.parquet"

    def _report(self, index: int) -> Path:
        return self.folder / f"{index:06d}.json"


def plan_of(shards: Sequence[CaptionShard], config: CaptionSetConfig) -> dict[str, Any]:
    """What decides the content of the parts, as json holds it."""
    return {"config": config.of_the_stages, "shards": [[shard.name, shard.fingerprint] for shard in shards]}


def fingerprint_of(plan: Mapping[str, Any]) -> str:
    """A short name for something that json holds."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode("utf-8")).hexdigest()[:16]


def _difference(begun: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """The first thing in which two plans differ."""
    for name, value in plan["config"].items():
        if begun["config"].get(name) != value:
            return f"{name} was {begun['config'].get(name)!r} and is {value!r}"
    before, now = (dict(map(tuple, plan["shards"])) for plan in (begun, plan))
    for name in (*before, *now):
        if name not in now or name not in before:
            return f"{name} is {'gone' if name in before else 'new'}"
        if before[name] != now[name]:
            return f"the content of {name} has changed"
    return "their order"
