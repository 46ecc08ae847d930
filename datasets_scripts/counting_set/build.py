"""
Builds a counting set from captions and their images, from a thousand on one machine to hundreds of millions.

It streams: a few rows are in memory, however many there are. It resumes: a build that was killed, or whose disk was
full, continues when it is called again with the same options.
"""

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..download.client import FetchConfig
from ..files.resumable import fingerprint_of, remove_folder
from .balance import read_stages, write_balanced
from .detector import Detector
from .parts import PartFolder, PartReport, plan_of
from .shards import CaptionShard, Columns
from .sources import find_shards
from .stages import CaptionSetConfig, StageCounts
from .work import ShardWork


logger = logging.getLogger(__name__)

ENGINES = ("local", "ray")

# Called after each shard with the number of finished shards, of all shards, and the counts so far.
Progress = Callable[[int, int, StageCounts], None]


@dataclass(frozen=True)
class CaptionSetReport:
    """
    A counting set that was built.

    It has the captions after each stage (`counts`), the rows of each number (`kept`) and the parquet files of the
    folder. `failures.jsonl` lists the images that were missing, broken or failed the detector (`num_failures`), and
    the shards that could not be read (`num_unreadable`). `is_new` states whether this call built it.
    """

    output: Path
    counts: StageCounts
    kept: dict[int, int]
    files: tuple[Path, ...]
    num_failures: int
    num_unreadable: int
    is_new: bool


class UnreadableShardsError(RuntimeError):
    """Some shards could not be read; the others are finished and kept."""


def build_caption_set(
    source: str,
    output: str | Path,
    config: CaptionSetConfig | None = None,
    columns: Columns | None = None,
    split: str = "train",
    dataset_config: str | None = None,
    detector: Detector | None = None,
    device: str | None = None,
    downloads: FetchConfig | None = None,
    engine: str = "local",
    num_proc: int = 1,
    max_rows: int = 50_000,
    skip_unreadable: bool = False,
    keep_parts: bool = False,
    progress: Progress | None = None,
) -> CaptionSetReport:
    """
    Build a counting set.

    Args:
        source (`str`): A folder or a file of parquet, webdataset or JSON lines, or the name of a data set of
            `datasets`; see [`find_shards`].
        output (`str` or `Path`): The folder of the set: `data/*.parquet`, a card, `stages.json` and `failures.jsonl`.
        config (`CaptionSetConfig`, *optional*): The conditions for captions and images.
        columns (`Columns`, *optional*): Names of the source's columns, where they are unusual.
        split (`str`, *optional*, defaults to `"train"`): The split of a data set by its name.
        dataset_config (`str`, *optional*): Its configuration.
        detector (`Detector`, *optional*): A detector in the place of `config.detector`, for one process.
        device (`str`, *optional*): The detector's device; by default a GPU if there is one.
        downloads ([`FetchConfig`], *optional*): Options of the HTTP client, for images with only a URL.
        engine (`str`, *optional*, defaults to `"local"`): `"local"`, or `"ray"` for a Ray cluster, whose machines see
            the same folders.
        num_proc (`int`, *optional*, defaults to 1): Processes of the local engine; detectors of Ray's.
        max_rows (`int`, *optional*, defaults to 50,000): Rows of a parquet file that are one shard.
        skip_unreadable (`bool`, *optional*, defaults to `False`): Whether the set is finished without the shards that
            cannot be read.
        keep_parts (`bool`, *optional*, defaults to `False`): Whether all rows that passed the stages are kept (in
            `.parts`), to balance them again later without running the stages.
        progress (`Progress`, *optional*): Called after each shard.

    Returns:
        `CaptionSetReport`: The set and its counts.

    Raises:
        UnreadableShardsError: If shards cannot be read and are not to be skipped.
        DetectorError: If the detector fails on one image after another.
        ValueError: If there are no shards, or the folder holds a set with other options.
    """
    if engine not in ENGINES:
        raise ValueError(f"Expected an engine of {', '.join(ENGINES)}, but got {engine!r}.")
    if num_proc < 1:
        raise ValueError(f"Expected num_proc to be 1 or more, but got {num_proc}.")
    if detector is not None and (engine != "local" or num_proc > 1):
        raise ValueError("Expected a detector's name with several processes, but got a detector. Give its checkpoint.")
    config = config or CaptionSetConfig()
    output = Path(output)
    shards = find_shards(source, columns, split, dataset_config, max_rows)
    plan = plan_of(shards, config)
    fingerprint = fingerprint_of({**plan, "balancing": config.of_balancing})
    finished = read_stages(output)
    if finished is not None and finished["fingerprint"] == fingerprint:
        logger.info("%s is finished: there is nothing left to do", output)
        return _report(output, finished, is_new=False)
    parts = PartFolder(output / ".parts")
    if finished is not None and parts.plan is None:
        raise ValueError(
            f"Expected {output} to be empty or to hold what was begun with the same options, but it holds another "
            "finished set. Name another output folder."
        )
    parts.begin(plan)
    work = ShardWork(parts.folder, config, downloads or FetchConfig(), device, detector)
    unreadable = _do_shards(shards, parts, work, engine, num_proc, progress)
    if unreadable and not skip_unreadable:
        listed = "\n".join(f"- {reason}" for reason in unreadable.values())
        raise UnreadableShardsError(
            f"{len(unreadable)} of {len(shards)} shards cannot be read; the others are finished and kept. Fix "
            f"them and run the same command again, or skip them.\n{listed}"
        )
    stages = write_balanced(output, fingerprint, parts, shards, config, source, unreadable)
    if not keep_parts:
        remove_folder(parts.folder)
    if not stages["kept"]:
        logger.warning("No caption passed all stages: %s is empty; see %s/stages.json", output, output)
    return _report(output, stages, is_new=True)


def _do_shards(
    shards: Sequence[CaptionShard],
    parts: PartFolder,
    work: ShardWork,
    engine: str,
    num_proc: int,
    progress: Progress | None,
) -> dict[int, str]:
    """Process the unfinished shards; return those that cannot be read, with the reasons."""
    counts, num_done = StageCounts(), 0
    todo = []
    for index, shard in enumerate(shards):
        if parts.is_done(index):
            counts.update(parts.read_report(index).counts)
            num_done += 1
        else:
            todo.append((index, shard))
    if num_done:
        logger.info("%d of %d shards are finished already", num_done, len(shards))
    unreadable: dict[int, str] = {}
    for index, outcome in _outcomes(todo, work, engine, num_proc):
        if isinstance(outcome, str):
            logger.warning("%s", outcome)
            unreadable[index] = outcome
        else:
            counts.update(outcome.counts)
        num_done += 1
        if progress is not None:
            progress(num_done, len(shards), counts)
    return dict(sorted(unreadable.items()))


def _outcomes(
    todo: Sequence[tuple[int, CaptionShard]], work: ShardWork, engine: str, num_proc: int
) -> Iterator[tuple[int, PartReport | str]]:
    """Process shards on the chosen engine; yield them as they are finished."""
    if not todo:
        return
    if engine == "ray":
        from .ray import do_with_ray  # needs Ray, which is an extra

        yield from do_with_ray(todo, work, num_proc)
    elif num_proc == 1:
        for index, shard in todo:
            yield index, work.do(index, shard)
    else:
        # Spawned, because a fork copies the locks of threads that it does not have.
        with ProcessPoolExecutor(num_proc, mp_context=multiprocessing.get_context("spawn")) as pool:
            waiting = {pool.submit(work.do, index, shard): index for index, shard in todo}
            try:
                while waiting:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        yield waiting.pop(future), future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _report(output: Path, stages: Mapping[str, Any], is_new: bool) -> CaptionSetReport:
    return CaptionSetReport(
        output=output,
        counts=StageCounts.from_dict(stages["counts"]),
        kept={int(number): count for number, count in stages["kept"].items()},
        files=tuple(sorted((output / "data").glob("*.parquet"))),
        num_failures=stages["num_failures"],
        num_unreadable=len(stages["unreadable"]),
        is_new=is_new,
    )
