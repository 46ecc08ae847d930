"""The last stage of the counting set: a sample of the rows of common numbers, and the files of the set."""

import hashlib
import heapq
import itertools
import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import whole_file, write_json
from ..files.resumable import replace_folder
from .card import write_card
from .parts import PartFolder, caption_set_features, write_rows
from .shards import CaptionShard
from .stages import CaptionSetConfig, StageCounts


_STAGES = "stages.json"


def read_stages(output: Path) -> dict[str, Any] | None:
    """Read `stages.json` of a finished set (fingerprint, options, counts); `None` where there is no finished set."""
    path = output / _STAGES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def rank_of(row: Mapping[str, Any], seed: int) -> int:
    """Compute 64 random bits from `image_id`, `text` and the seed, the same on every machine and in any order."""
    content = f"{seed} {row['image_id']} {row['text']}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def share_out(total: int, available: Mapping[int, int]) -> dict[int, int]:
    """
    Divide a total of rows among numbers, as evenly as the available rows of each allow: all where there are few,
    equally many of the others, and one more of the most frequent ones where it does not divide.
    """
    shares: dict[int, int] = {}
    left = total
    for place, number in enumerate(sorted(available, key=lambda number: (available[number], -number))):
        share = min(available[number], left // (len(available) - place))
        shares[number] = share
        left -= share
    return dict(sorted(shares.items()))


def choose_rows(
    ranks: Iterator[tuple[int, int]], config: CaptionSetConfig
) -> tuple[dict[int, Counter[int] | None], dict[int, int]]:
    """
    Choose the rows that are kept, from the number and the rank of each, in one pass.

    Returns:
        `tuple[dict[int, Counter[int] | None], dict[int, int]]`: For each number, how many rows of which ranks are kept
        (`None` keeps all; equal rows have one rank), and how many in all. Only ranks of common numbers are in memory.
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
    shares = dict(available)
    if config.num_common is not None:
        common = {number: count for number, count in available.items() if number in config.common_numbers}
        shares.update(share_out(config.num_common, common))
    chosen = {
        number: None if share == available[number] else Counter(sorted(-rank for rank in lowest[number])[:share])
        for number, share in shares.items()
    }
    return chosen, dict(sorted(shares.items()))


def is_chosen(number: int, rank: int, chosen: Mapping[int, Counter[int] | None]) -> bool:
    """Whether the next row of a number and rank is kept; it is taken off the chosen ones."""
    left = chosen[number]
    if left is None:
        return True
    if not left[rank]:
        return False
    left[rank] -= 1
    return True


def write_balanced(
    output: Path,
    fingerprint: str,
    parts: PartFolder,
    shards: Sequence[CaptionShard],
    config: CaptionSetConfig,
    source: str,
    unreadable: Mapping[int, str],
) -> dict[str, Any]:
    """
    Write the files, card, counts and failures of the set from the finished parts; return what [`read_stages`] reads.
    """
    indices = [index for index in range(len(shards)) if index not in unreadable]
    counts, num_failures = StageCounts(), 0
    with (
        whole_file(output / "failures.jsonl") as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        for index in indices:
            report = parts.read_report(index)
            counts.update(report.counts)
            num_failures += len(report.failures)
            file.writelines(json.dumps(failure, ensure_ascii=False) + "\n" for failure in report.failures)
        for index, reason in unreadable.items():
            file.write(json.dumps({"source": shards[index].name, "stage": "shard", "error": reason}) + "\n")
    rows = (row for batch in parts.batches(indices, ["number", "image_id", "text"]) for row in batch.to_pylist())
    chosen, kept = choose_rows(((row["number"], rank_of(row, config.seed)) for row in rows), config)
    rows = (row for batch in parts.batches(indices) for row in batch.to_pylist())
    kept_rows = (row for row in rows if is_chosen(row["number"], rank_of(row, config.seed), chosen))
    stages = {
        "fingerprint": fingerprint,
        "source": source,
        "num_shards": len(shards),
        "unreadable": [shards[index].name for index in unreadable],
        "config": config.of_the_stages,
        "balancing": config.of_balancing,
        "counts": counts.as_dict(),
        "kept": {str(number): count for number, count in kept.items()},
        "num_failures": num_failures,
        "num_files": max(1, -(-sum(kept.values()) // config.rows_per_file)),
    }
    _write_files(output, stages, kept_rows, config.rows_per_file)
    write_card(output, stages, caption_set_features())
    write_json(output / _STAGES, stages)
    return stages


def _write_files(output: Path, stages: Mapping[str, Any], rows: Iterator[dict[str, Any]], rows_per_file: int) -> None:
    """Write the files of the set; those that a killed build finished are left as they are."""
    folder = output / f".data-{stages['fingerprint']}"
    folder.mkdir(exist_ok=True)
    for index in range(stages["num_files"]):
        file = folder / f"train-{index:05d}-of-{stages['num_files']:05d}.parquet"
        of_file = itertools.islice(rows, rows_per_file)
        if file.exists():
            deque(of_file, maxlen=0)  # skipped
        else:
            write_rows(file, of_file)
    (output / _STAGES).unlink(missing_ok=True)  # the set that it describes is replaced
    replace_folder(folder, output / "data")
