"""The `model-index` of a model card: the results that the Hub reads."""

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
"""The type and the name of the task of each benchmark of `count-clip evaluate`."""
# Metric types of the Hub; other metrics keep their names.
_METRIC_TYPES = {"top_1": "accuracy", "named_mae": "mae", "named_rmse": "rmse"}


def is_of_model(metric: str) -> bool:
    """Whether a metric is of the model, and not of a baseline (`"baseline_mae"`)."""
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
    Make an entry of a card's `model-index`.

    Args:
        benchmark (`str`): A key of `BENCHMARKS`.
        metric (`str`): The name of the metric in `count-clip evaluate`.
        value (`float`): The value.
        dataset (`str`): The dataset.
        config, split, revision (`str`, *optional*): Its configuration, split and revision.
        interval (`Sequence[float]`, *optional*): The ends of the 95 % confidence interval.
        dataset_name (`str`, *optional*): The displayed name of the dataset; by default `dataset`.
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
    Make the value of `model-index` of a card from a model's results.

    The Hub's own writer (huggingface_hub 2.4) groups by task type, dataset and revision, and takes the names of task
    and dataset from the first of a group, which are wrong for a second benchmark of one task type on the same data.
    """
    groups: dict[tuple[Any, ...], list[EvalResult]] = {}
    for entry in entries:
        heading = (*entry.unique_identifier, entry.task_name, entry.dataset_name, entry.source_url)
        groups.setdefault(heading, []).append(entry)
    results = [eval_results_to_model_index(name, group)[0]["results"][0] for group in groups.values()]
    return [{"name": name, "results": results}]


__all__ = ["BENCHMARKS", "eval_result", "is_of_model", "model_index_of"]
