"""Measured figures of a model as the Hub reads them at the top of its card: the `model-index`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index


BENCHMARKS = {
    "countbench": ("zero-shot-image-classification", "Which of nine captions has the right number"),
    "density": ("object-counting", "Counting what is named in words"),
    "praco": ("object-counting", "Whether the count follows the prompt"),
    "classification": ("zero-shot-image-classification", "Zero-shot classification"),
    "linear-probe": ("image-classification", "Linear probe on frozen features"),
    "few-shot": ("image-classification", "Few-shot linear probe on frozen features"),
    "retrieval": ("text-to-image-retrieval", "Retrieval of images by captions with numbers"),
}
"""The type of task and its name for each benchmark of `count-clip evaluate` whose figures are a model's."""
# The types that the Hub knows; other figures are types by their own name.
_METRIC_TYPES = {"top_1": "accuracy", "named_mae": "mae", "named_rmse": "rmse"}


def is_of_model(metric: str) -> bool:
    """
    Say whether a figure is the model's own, and not that of what it is compared with.

    Args:
        metric (`str`): Its name in a result.

    Returns:
        `bool`: `False` for `"baseline_mae"` and its like.
    """
    return not metric.startswith("baseline_")


def eval_result(
    benchmark: str,
    metric: str,
    value: float,
    dataset: str,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    interval: Sequence[float] | None = None,
    dataset_name: str | None = None,
) -> EvalResult:
    """
    Make an entry of a card of a figure.

    Args:
        benchmark (`str`): A key of `BENCHMARKS`.
        metric (`str`): What `count-clip evaluate` calls the figure.
        value (`float`): The figure.
        dataset (`str`): What it was measured on.
        config, split, revision (`str`, *optional*): Which part of the data, and which state of it.
        interval (`Sequence[float]`, *optional*): The ends of its 95 % interval.
        dataset_name (`str`, *optional*): What a reader is told that it was measured on; by default `dataset`.

    Returns:
        `EvalResult`.
    """
    task_type, task_name = BENCHMARKS[benchmark]
    return EvalResult(
        task_type=task_type,
        task_name=task_name,
        dataset_type=dataset,
        dataset_name=dataset_name or dataset,
        dataset_config=config,
        dataset_split=split,
        dataset_revision=revision,
        metric_type=_METRIC_TYPES.get(metric, metric),
        metric_name=metric.replace("_", " "),
        metric_value=float(value),
        metric_args=None if interval is None else {"interval_95": [round(float(end), 6) for end in interval]},
    )


def model_index_of(name: str, entries: Sequence[EvalResult]) -> list[dict[str, Any]]:
    """
    Put entries under headings.

    The Hub's own writer (huggingface_hub 2.4) groups by task type, data and revision, and takes the names of task and
    data from the first of a group; two benchmarks of one task type on the same data would go by the name of the first.

    Args:
        name (`str`): The model's.
        entries (`Sequence[EvalResult]`): Its figures.

    Returns:
        `list[dict[str, Any]]`: What stands under `model-index` in the card.
    """
    groups: dict[tuple[Any, ...], list[EvalResult]] = {}
    for entry in entries:
        heading = (*entry.unique_identifier, entry.task_name, entry.dataset_name, entry.source_url)
        groups.setdefault(heading, []).append(entry)
    results = [eval_results_to_model_index(name, group)[0]["results"][0] for group in groups.values()]
    return [{"name": name, "results": results}]


__all__ = ["BENCHMARKS", "eval_result", "is_of_model", "model_index_of"]
