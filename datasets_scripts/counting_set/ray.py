"""
The stages of the counting set on a Ray cluster.

Ray Data schedules the shards; the work and the parts are those of the local engine, so a build that one machine began
can continue on a cluster, and the reverse. All machines see the folders of the source and of the set under the same
paths.
"""

import json
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

from .parts import PartFolder, PartReport
from .shards import CaptionShard, ShardError
from .stages import StageCounts, choose_by_text
from .work import ShardWork


def do_with_ray(
    todo: Sequence[tuple[int, CaptionShard]], work: ShardWork, num_proc: int
) -> Iterator[tuple[int, PartReport | str]]:
    """
    Process shards on a Ray cluster: the text stages in tasks, the image stages in `num_proc` actors that keep a
    detector.

    Each actor has a GPU where the cluster has any and there is a detector. Yields the counts of each shard or why it
    cannot be read, as they are finished; raises `ImportError` if Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            "Expected Ray for engine='ray', but it is not installed. Install it with `pip install 'count-clip[ray]'`."
        ) from error

    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init()  # joins the cluster that RAY_ADDRESS names, or starts one on this machine
    context = ray.data.DataContext.get_current()
    shown, context.enable_progress_bars = context.enable_progress_bars, False  # the build has its own
    try:
        resources = ray.cluster_resources()
        uses_gpus = work.config.detector is not None and work.device in (None, "cuda")
        num_gpus = 1 if uses_gpus and resources.get("GPU", 0) else 0
        # Actors keep their processors, and the tasks need one.
        num_cpus = 1 if resources.get("CPU", 0) > num_proc else 0
        items = [{"index": index, "shard": pickle.dumps(shard)} for index, shard in todo]
        # One block for each shard, so that shards are independent.
        outcomes = (
            ray.data.from_items(items, override_num_blocks=len(items))
            .map(_choose_by_text, fn_kwargs={"work": work})
            .map(
                _ChooseByImage,
                fn_constructor_args=(work,),
                compute=ray.data.ActorPoolStrategy(size=num_proc),
                num_cpus=num_cpus,
                num_gpus=num_gpus,
            )
        )
        parts = PartFolder(work.parts)
        for outcome in outcomes.iter_rows():
            index = int(outcome["index"])
            yield index, outcome["error"] or parts.read_report(index)
    finally:
        context.enable_progress_bars = shown
        if is_ours:
            ray.shutdown()


def _choose_by_text(row: dict[str, Any], work: ShardWork) -> dict[str, Any]:
    """The text stages of a row of Ray Data, which is a shard."""
    counts = StageCounts()
    try:
        records, error = list(choose_by_text(pickle.loads(row["shard"]), work.config, counts)), ""
    except ShardError as unreadable:
        records, error = [], str(unreadable)
    return {
        "index": row["index"],
        "records": pickle.dumps(records),
        "counts": json.dumps(counts.as_dict()),
        "error": error,
    }


class _ChooseByImage:
    """The image stages of a row of Ray Data."""

    def __init__(self, work: ShardWork) -> None:
        self.work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if not row["error"]:
            counts = StageCounts.from_dict(json.loads(row["counts"]))
            self.work.finish(int(row["index"]), pickle.loads(row["records"]), counts)
        return {"index": row["index"], "error": row["error"]}
