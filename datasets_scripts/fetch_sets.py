"""
Fetches the pictures of a list of addresses to a folder that `datasets` reads.

    fetch_list("addresses.csv", "pictures")
    datasets.load_dataset("pictures")

It streams, so that memory stays the same however long the list is, and resumes: a program that was killed goes on
when the same is asked for again, and asks for nothing twice. What could not be had is in `failures.jsonl` with the
reason; that is a list of addresses again, for another day.
"""

import datetime
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .fetch_lists import AddressList
from .fetch_report import FetchCounts, FetchReport, fetched_card
from .fetch_shards import LAYOUTS, FetchedRow, FetchedShard, fetched_features, key_of
from .fetching import FetchConfig, Fetcher, Fetching, FetchResult
from .whole_files import write_json, write_whole


logger = logging.getLogger(__name__)

_WORKING = ".partial"
_PLAN = "plan.json"
_STATISTICS = "statistics.json"
# What may differ when the same is asked for again: how long to wait and how many at once say nothing about a picture.
_OF_CONTENT = ("max_bytes", "max_pixels", "opt_outs")

# Is told what became of each row of the list, how many there are, and what was counted so far.
Progress = Callable[[int, int, FetchCounts], None]


def fetch_list(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    config: FetchConfig | None = None,
    url_column: str | None = None,
    sha256_column: str | None = None,
    layout: str = "parquet",
    rows_per_shard: int = 1000,
    fetcher: Fetcher | None = None,
    progress: Progress | None = None,
) -> FetchReport:
    """
    Fetch the pictures of a list.

    Args:
        source (`str` or `os.PathLike`):
            The list: `.txt`, `.csv`, `.tsv`, `.jsonl` (these also with `.gz`) or `.parquet`; see [`AddressList`].
        output (`str` or `os.PathLike`):
            The folder to write: new, empty, or one in which the same was begun.
        config ([`FetchConfig`], *optional*):
            How to fetch.
        url_column (`str`, *optional*):
            The column with the addresses; by default `url` or `image_url`.
        sha256_column (`str`, *optional*):
            A column with what the pictures' files should hash to. Another file is a failure.
        layout (`str`, *optional*, defaults to `"parquet"`):
            `"parquet"` for files with the pictures in them, `"folder"` for pictures with `metadata.jsonl`, as
            `imagefolder` reads them.
        rows_per_shard (`int`, *optional*, defaults to 1000):
            Rows of the list that become a file, or a folder of pictures.
        fetcher (`Callable[[str], bytes]`, *optional*):
            What asks for an address in the place of http.
        progress (`Progress`, *optional*):
            Is told after each row.

    Returns:
        `FetchReport`: What there is, and what was counted.

    Raises:
        FileNotFoundError: If there is no such list.
        FileExistsError: If the folder holds something else.
        ValueError: If the list cannot be read, an option does not do, or something else was begun in the folder.
        OSError: If the disk is full; what was fetched before is kept.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"Expected layout to be one of {', '.join(LAYOUTS)}, but got {layout!r}.")
    if rows_per_shard < 1:
        raise ValueError(f"Expected rows_per_shard of 1 or more, but got {rows_per_shard}.")
    config = config or FetchConfig()
    addresses = AddressList(Path(source).expanduser(), url_column)
    if sha256_column is not None and sha256_column not in addresses.features:
        raise ValueError(f"Expected a column {sha256_column!r} in {source}, but there is none. Name another.")
    folder = Path(output).expanduser().resolve()
    plan = {
        "list": addresses.fingerprint,
        "url_column": addresses.url_name,
        "sha256_column": sha256_column,
        "layout": layout,
        "rows_per_shard": rows_per_shard,
        **{name: json.loads(json.dumps(asdict(config)[name])) for name in _OF_CONTENT},
    }
    if (done := _finished(folder, plan)) is not None:
        logger.info("%s is complete: nothing is left to do", folder)
        return done
    _begin(folder, plan)
    work = _Work(folder, addresses, config, sha256_column, layout, rows_per_shard, progress)
    started = time.monotonic()
    try:
        work.do(fetcher)
    finally:
        _add_seconds(folder, time.monotonic() - started)
    return _finish(folder, plan, work)


class _Work:
    """The shards of a list on their way; those that wait for a slow server do not keep the next ones waiting."""

    def __init__(
        self,
        folder: Path,
        addresses: AddressList,
        config: FetchConfig,
        sha256_column: str | None,
        layout: str,
        rows_per_shard: int,
        progress: Progress | None,
    ) -> None:
        self.folder = folder
        self.addresses = addresses
        self.config = config
        self.sha256_column = sha256_column
        self.layout = layout
        self.rows_per_shard = rows_per_shard
        self.progress = progress
        self.features = fetched_features(addresses.features)
        self.counts = FetchCounts()
        self.num_shards = 0
        self._total = addresses.num_rows
        self._open: dict[int, _OpenShard] = {}

    def do(self, fetcher: Fetcher | None) -> None:
        """Fetch what is not there."""
        try:
            with Fetching(self.config, fetcher) as fetching:
                for (number, row), result in fetching.as_they_come(self._lacking()):
                    shard = self._open[number]
                    self._take(shard, self._record(shard, row, result), result.content)
                    self._finish_if_whole(number)
        finally:
            for shard in self._open.values():
                shard.files.close()

    def shard(self, number: int) -> FetchedShard:
        """A shard by its number."""
        return FetchedShard(self.folder, self.folder / _WORKING, number, self.layout)

    def _lacking(self) -> Iterator[tuple[tuple[int, int], str]]:
        """The shard, row and address of what is to be fetched."""
        number = row = 0
        chunk: list[tuple[str | None, dict[str, Any]]] = []
        for one in self.addresses.rows():
            chunk.append(one)
            row += 1
            if len(chunk) == self.rows_per_shard:
                yield from self._lacking_of(number, row - len(chunk), chunk)
                number, chunk = number + 1, []
        if chunk:
            yield from self._lacking_of(number, row - len(chunk), chunk)
            number += 1
        self.num_shards = number

    def _lacking_of(
        self, number: int, first: int, chunk: Sequence[tuple[str | None, dict[str, Any]]]
    ) -> Iterator[tuple[tuple[int, int], str]]:
        files = self.shard(number)
        if (report := files.report) is not None:
            self.counts.add(report)
            self._say()
            return
        shard = _OpenShard(files, first, [columns for _, columns in chunk], files.begin())
        self._open[number] = shard
        for record in shard.records.values():
            self.counts.add_record(record)
        waiting = []
        for row, (url, _) in enumerate(chunk, start=first):
            if row in shard.records:
                continue
            if url is None:
                failure = {"row": row, "url": None, "reason": "address", "error": "there is no address", "attempts": 0}
                self._take(shard, {**failure, "status": None, "seconds": 0.0, "time": _now()}, None)
            else:
                waiting.append(((number, row), url))
        self._say()
        yield from waiting
        self._finish_if_whole(number)

    def _record(self, shard: "_OpenShard", row: int, result: FetchResult) -> dict[str, Any]:
        """What became of an address, as the journal has it."""
        record: dict[str, Any] = {"row": row, "url": result.url}
        wanted = shard.columns[row - shard.first].get(self.sha256_column) if self.sha256_column else None
        if result.content is None or result.picture is None:
            record |= {"reason": result.reason, "error": result.problem}
        elif isinstance(wanted, str) and wanted.strip().lower() != result.sha256:
            record |= {"reason": "sha256", "error": f"its content has another hash: {result.sha256}"}
        else:
            facts = result.picture
            record |= {
                "file": key_of(row) + facts.ending,
                "sha256": result.sha256,
                "bytes": len(result.content),
                "width": facts.width,
                "height": facts.height,
                "final_url": result.final_url,
                "content_type": result.content_type,
            }
        return record | {
            "status": result.status,
            "attempts": result.attempts,
            "seconds": round(result.seconds, 3),
            "time": _now(),
        }

    def _take(self, shard: "_OpenShard", record: dict[str, Any], content: bytes | None) -> None:
        shard.files.add(record, content if "file" in record else None)
        shard.records[record["row"]] = record
        self.counts.add_record(record)
        self._say()

    def _finish_if_whole(self, number: int) -> None:
        shard = self._open.get(number)
        if shard is None or len(shard.records) < len(shard.columns):
            return
        rows = [
            FetchedRow(row, columns, shard.records[row])
            for row, columns in enumerate(shard.columns, start=shard.first)
        ]
        shard.files.finish(rows, self.features)
        del self._open[number]

    def _say(self) -> None:
        if self.progress is not None:
            self.progress(self.counts.rows, self._total, self.counts)


@dataclass
class _OpenShard:
    """A shard of which something is lacking."""

    files: FetchedShard
    first: int
    columns: list[dict[str, Any]]
    records: dict[int, dict[str, Any]]


def _finished(folder: Path, plan: Mapping[str, Any]) -> FetchReport | None:
    """What there is, if this very list was fetched to the folder; other people's files are left alone."""
    statistics = folder / _STATISTICS
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"Expected a folder to write at {folder}, but it is a file. Name another.")
    if not folder.is_dir() or not any(folder.iterdir()) or (folder / _WORKING / _PLAN).is_file():
        return None
    if not statistics.is_file():
        raise FileExistsError(
            f"Expected {folder} to be new, empty or to hold what was begun, but it holds something else. Name another."
        )
    said = json.loads(statistics.read_text(encoding="utf-8"))
    if said["plan"] != plan:
        raise ValueError(_difference(folder, said["plan"], plan))
    return FetchReport(folder, FetchCounts.from_dict(said["counts"]), said["seconds"], is_new=False)


def _begin(folder: Path, plan: Mapping[str, Any]) -> None:
    working = folder / _WORKING
    if (working / _PLAN).is_file():
        begun = json.loads((working / _PLAN).read_text(encoding="utf-8"))
        if begun["plan"] != plan:
            raise ValueError(_difference(folder, begun["plan"], plan))
        return
    working.mkdir(parents=True, exist_ok=True)
    write_json(working / _PLAN, {"plan": plan, "seconds": 0.0})


def _add_seconds(folder: Path, seconds: float) -> None:
    path = folder / _WORKING / _PLAN
    begun = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**begun, "seconds": begun["seconds"] + seconds})


def _finish(folder: Path, plan: Mapping[str, Any], work: _Work) -> FetchReport:
    """Write what is said about the whole, and take away what was needed for the parts."""
    working = folder / _WORKING
    seconds = round(json.loads((working / _PLAN).read_text(encoding="utf-8"))["seconds"], 3)
    partial = working / "failures.jsonl"
    with partial.open("wb") as file:
        for number in range(work.num_shards):
            with work.shard(number).failures.open("rb") as of_shard:
                shutil.copyfileobj(of_shard, file)
    os.replace(partial, folder / "failures.jsonl")
    reports = [work.shard(number).report or {} for number in range(work.num_shards)]
    content = hashlib.sha256("".join(report["content"] for report in reports).encode()).hexdigest()
    card = fetched_card(
        addresses=work.addresses, config=work.config, layout=work.layout, counts=work.counts, content=content
    )
    write_whole(folder / "README.md", card.encode())
    write_json(folder / _STATISTICS, {"plan": plan, "counts": work.counts.as_dict(), "seconds": seconds})
    shutil.rmtree(working)
    return FetchReport(folder, work.counts, seconds)


def _difference(folder: Path, begun: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    name = next(name for name in plan if plan[name] != begun.get(name))
    what = "another list" if name == "list" else f"{name}={begun.get(name)!r} in the place of {plan[name]!r}"
    return (
        f"Expected to go on with what was begun in {folder}, but that was with {what}. Give the same, or another "
        "output folder."
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


__all__ = ["FetchCounts", "FetchReport", "fetch_list"]
