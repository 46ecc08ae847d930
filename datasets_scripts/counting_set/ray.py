"""
The stages of the counting set on the machines of a Ray cluster.

Ray Data decides where a shard is done; what is done with it, and the parts that are written, are those of the local
engine. So a build may be begun on one machine and go on on a cluster, and the other way round. All machines have to
see the folders of the source and of the set under the same paths.
"""

import json
import pickle
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .parts import PartFolder, PartReport
from .shards import CaptionShard, ShardError
from .stages import StageCounts, choose_by_text


if TYPE_CHECKING:
    from .build import ShardWork


def do_with_ray(
    todo: Sequence[tuple[int, CaptionShard]], work: "ShardWork", num_proc: int
) -> Iterator[tuple[int, PartReport | str]]:
    """
    Do shards on a Ray cluster: the stages of the text in tasks, those of the images in actors that keep a detector.

    Args:
        todo (`Sequence[tuple[int, CaptionShard]]`): The shards and their places.
        work (`ShardWork`): How they are done.
        num_proc (`int`): How many actors there are; each has a GPU where the cluster has any and there is a detector.

    Returns:
        `Iterator[tuple[int, PartReport | str]]`: What became of each, in the order in which they are done.

    Raises:
        ImportError: If Ray is not installed.
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
        # Actors keep what they have, and the tasks need a processor.
        num_cpus = 1 if resources.get("CPU", 0) > num_proc else 0
        items = [{"index": index, "shard": pickle.dumps(shard)} for index, shard in todo]
        # A block for each shard, so that each is done by itself.
        outcomes = (
            ray.data.from_items(items, override_num_blocks=len(items))
            .map(_choose_by_text, fn_kwargs={"work": work})
            .map(
                ChooseByImage,
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


def _choose_by_text(row: dict[str, Any], work: "ShardWork") -> dict[str, Any]:
    """Read a shard and choose by the text: a row of Ray Data in, another out."""
    counts = StageCounts()
    try:
        candidates, error = list(choose_by_text(pickle.loads(row["shard"]), work.config, counts)), ""
    except ShardError as unreadable:
        candidates, error = [], str(unreadable)
    return {
        "index": row["index"],
        "candidates": pickle.dumps(candidates),
        "counts": json.dumps(counts.as_dict()),
        "error": error,
    }


class ChooseByImage:
    """
    The stages of the images, for rows of Ray Data.

    Args:
        work (`ShardWork`): How shards are done.
    """

    def __init__(self, work: "ShardWork") -> None:
        self.work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Choose by the images, and write the shard's part."""
        if not row["error"]:
            counts = StageCounts.from_dict(json.loads(row["counts"]))
            self.work.finish(int(row["index"]), pickle.loads(row["candidates"]), counts)
        return {"index": row["index"], "error": row["error"]}
