"""The last stage of the counting set: as many rows of the common numbers as are wanted, and the files of the set."""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.atomic import whole_file, write_json
from ..files.resumable import replace_folder
from .card import write_card
from .parts import PartFolder, caption_set_features, write_rows
from .shards import CaptionShard
from .stages import CaptionSetConfig, StageCounts


_STAGES = "stages.json"


@dataclass(frozen=True)
class BalancedSet:
    """
    The folder of a finished set.

    Args:
        output (`Path`): The folder.
        fingerprint (`str`): What it was made of and how.
    """

    output: Path
    fingerprint: str

    @property
    def is_complete(self) -> bool:
        """Whether this very set is there."""
        return (self.output / _STAGES).exists() and self.read_stages()["fingerprint"] == self.fingerprint

    @property
    def is_another(self) -> bool:
        """Whether another set is there."""
        return (self.output / _STAGES).exists() and not self.is_complete

    def read_stages(self) -> dict[str, Any]:
        """What was counted."""
        values: dict[str, Any] = json.loads((self.output / _STAGES).read_text(encoding="utf-8"))
        return values

    def files(self) -> list[Path]:
        """The shards of the set."""
        return sorted((self.output / "data").glob("*.parquet"))


@dataclass
class Quota:
    """
    Which rows of a number are kept: those whose rank is lower than the limit, and some that are at it.

    Args:
        limit (`int`, *optional*): The rank; `None` keeps all rows.
        at_limit (`int`): How many rows of just this rank are kept. (There are several where a row comes twice.)
    """

    limit: int | None = None
    at_limit: int = 0

    def takes(self, rank: int) -> bool:
        """Whether the next row is kept."""
        if self.limit is None or rank < self.limit:
            return True
        if rank > self.limit or not self.at_limit:
            return False
        self.at_limit -= 1
        return True


def rank_of(row: Mapping[str, Any], seed: int) -> int:
    """
    Draw a lot for a row: the same for the same row and seed on every machine, whatever comes before it.

    Args:
        row (`Mapping[str, Any]`): The row, of which `image_id` and `text` matter.
        seed (`int`): Another one draws another lot.

    Returns:
        `int`: 64 random bits.
    """
    content = f"{seed} {row['image_id']} {row['text']}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def share_out(total: int, available: Mapping[int, int]) -> dict[int, int]:
    """
    Share a number of rows out among numbers, as evenly as what there is allows.

    Args:
        total (`int`): Rows in all.
        available (`Mapping[int, int]`): Rows that there are of each number.

    Returns:
        `dict[int, int]`: Rows of each number: equally many, except where there are not so many, and one more of those
        of which there are most where it does not divide.
    """
    shares: dict[int, int] = {}
    left = total
    for place, number in enumerate(sorted(available, key=lambda number: (available[number], -number))):
        share = min(available[number], left // (len(available) - place))
        shares[number] = share
        left -= share
    return dict(sorted(shares.items()))


def find_quotas(ranks: Iterator[tuple[int, int]], config: CaptionSetConfig) -> tuple[dict[int, Quota], dict[int, int]]:
    """
    Decide which rows are kept, in one pass that remembers no more than are.

    Args:
        ranks (`Iterator[tuple[int, int]]`): The number and the rank of each row.
        config (`CaptionSetConfig`): How many are wanted.

    Returns:
        `tuple[dict[int, Quota], dict[int, int]]`: For each number, which rows are kept, and how many these are.
    """
    available: Counter[int] = Counter()
    lowest: dict[int, list[int]] = {}
    for number, rank in ranks:
        available[number] += 1
        if config.num_common is not None and number in config.common_numbers:
            heap = lowest.setdefault(number, [])
            if len(heap) < config.num_common:
                heapq.heappush(heap, -rank)
            elif heap and rank < -heap[0]:
                heapq.heapreplace(heap, -rank)
    common = {number: count for number, count in available.items() if number in config.common_numbers}
    shares = dict(available)
    if config.num_common is not None:
        shares.update(share_out(config.num_common, common))
    quotas = {}
    for number, share in shares.items():
        if share == available[number]:
            quotas[number] = Quota()
            continue
        kept = sorted(-rank for rank in lowest.get(number, ()))[:share]
        quotas[number] = Quota(kept[-1], kept.count(kept[-1])) if kept else Quota(-1)
    return quotas, dict(sorted(shares.items()))


def write_balanced(
    target: BalancedSet,
    parts: PartFolder,
    shards: Sequence[CaptionShard],
    config: CaptionSetConfig,
    source: str,
    unreadable: Mapping[int, str],
) -> None:
    """
    Write the set: its shards, its card, its counts and its failures.

    Args:
        target (`BalancedSet`): Where it goes.
        parts (`PartFolder`): The rows that came through the stages.
        shards (`Sequence[CaptionShard]`): What they are from.
        config (`CaptionSetConfig`): How many are wanted.
        source (`str`): What the shards are from.
        unreadable (`Mapping[int, str]`): The shards that are left out, and why.
    """
    indices = [index for index in range(len(shards)) if index not in unreadable]
    counts, num_failures = StageCounts(), 0
    with (
        whole_file(target.output / "failures.jsonl") as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        for index in indices:
            report = parts.read_report(index)
            counts.update(report.counts)
            num_failures += len(report.failures)
            file.writelines(json.dumps(failure, ensure_ascii=False) + "\n" for failure in report.failures)
        for index, reason in unreadable.items():
            file.write(json.dumps({"source": shards[index].name, "stage": "shard", "error": reason}) + "\n")
    quotas, kept = find_quotas(_ranks(parts, indices, config), config)
    num_files = _write_files(target, _kept_rows(parts, indices, quotas, config), sum(kept.values()), config)
    stages = {
        "fingerprint": target.fingerprint,
        "source": source,
        "num_shards": len(shards),
        "unreadable": [shards[index].name for index in unreadable],
        "config": config.of_the_stages,
        "balancing": config.of_balancing,
        "counts": counts.as_dict(),
        "kept": {str(number): count for number, count in kept.items()},
        "num_failures": num_failures,
        "num_files": num_files,
    }
    write_card(target.output, stages, caption_set_features())
    write_json(target.output / _STAGES, stages)


def _ranks(parts: PartFolder, indices: Sequence[int], config: CaptionSetConfig) -> Iterator[tuple[int, int]]:
    for batch in parts.batches(indices, ["number", "image_id", "text"]):
        for row in batch.to_pylist():
            yield row["number"], rank_of(row, config.seed)


def _kept_rows(
    parts: PartFolder, indices: Sequence[int], quotas: Mapping[int, Quota], config: CaptionSetConfig
) -> Iterator[dict[str, Any]]:
    for batch in parts.batches(indices):
        for row in batch.to_pylist():
            if quotas[row["number"]].takes(rank_of(row, config.seed)):
                yield row


def _write_files(target: BalancedSet, rows: Iterator[dict[str, Any]], total: int, config: CaptionSetConfig) -> int:
    """Write the shards of the set; those that a build which was killed has finished are left as they are."""
    folder = target.output / f".data-{target.fingerprint}"
    folder.mkdir(exist_ok=True)
    num_files = max(1, -(-total // config.rows_per_file))
    for index in range(num_files):
        file = folder / f"train-{index:05d}-of-{num_files:05d}.parquet"
        of_file = (row for _, row in zip(range(config.rows_per_file), rows, strict=False))
        if file.exists():
            for _ in of_file:
                pass
        else:
            write_rows(file, of_file)
    (target.output / _STAGES).unlink(missing_ok=True)  # the set that it describes is replaced
    replace_folder(folder, target.output / "data")
    return num_files
