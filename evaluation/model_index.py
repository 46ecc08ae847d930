"""Measured figures in a model's card: the `model-index` that the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard import metadata_load, metadata_save
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results


_TASKS = {
    "countbench": ("zero-shot-image-classification", "Which of nine captions has the right number"),
    "density": ("object-counting", "Counting what is named in words"),
    "praco": ("object-counting", "Whether the count follows the prompt"),
    "classification": ("zero-shot-image-classification", "Zero-shot classification"),
    "linear-probe": ("image-classification", "Linear probe on frozen features"),
    "few-shot": ("image-classification", "Few-shot linear probe on frozen features"),
    "retrieval": ("text-to-image-retrieval", "Retrieval of pictures by captions with numbers"),
}
# The types that the Hub knows; other figures are types by their own name.
_METRIC_TYPES = {"top_1": "accuracy", "named_mae": "mae", "named_rmse": "rmse"}


def model_index(result: Mapping[str, Any]) -> list[EvalResult]:
    """
    The figures of one result as entries of a card.

    Args:
        result (`Mapping[str, Any]`): A result file, as [`result_file`] makes it.

    Returns:
        `list[EvalResult]`: One for each figure that has a value. Figures of a part of the data say so in the name of
        the data. Baselines (`baseline_...`) are no figures of the model and have none.

    Raises:
        ValueError: If it is no result file, or of a benchmark that is not known.
    """
    missing = [key for key in ("benchmark", "run", "metrics") if key not in result]
    if missing:
        raise ValueError(
            f"Expected a result as `count-clip evaluate` writes it with --json, but it lacks {', '.join(missing)}."
        )
    if result["benchmark"] not in _TASKS:
        raise ValueError(f"Expected a result of one of {', '.join(_TASKS)}, but got one of {result['benchmark']!r}.")
    task_type, task_name = _TASKS[result["benchmark"]]
    data = result["run"]["data"]
    measured = (data.get("rows") or 0) - result.get("missing", 0)
    partial = f" ({measured} of {data.get('total') or data.get('rows')} rows)" if result.get("partial") else ""
    intervals = result.get("intervals", {})
    entries = []
    for name, value in result["metrics"].items():
        if value is None or name.startswith("baseline_"):
            continue
        arguments = {"interval_95": [round(end, 6) for end in intervals[name]]} if name in intervals else None
        entries.append(
            EvalResult(
                task_type=task_type,
                task_name=task_name,
                dataset_type=str(data["name"]),
                dataset_name=f"{data['name']}{partial}",
                dataset_config=data.get("config"),
                dataset_split=data.get("split"),
                dataset_revision=data.get("revision"),
                metric_type=_METRIC_TYPES.get(name, name),
                metric_name=name.replace("_", " "),
                metric_value=round(float(value), 6),
                metric_args=arguments,
            )
        )
    return entries


def check_card(folder: str | Path) -> None:
    """
    Refuse a folder whose card cannot be written, before the long work.

    Args:
        folder (`str` or `Path`): Of a model.

    Raises:
        ValueError: If it is no folder, or the metadata of its card cannot be read.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise ValueError(f"Expected the folder of a model for its card, but there is no folder {folder}.")
    _metadata(place / "README.md")


def update_card(folder: str | Path, result: Mapping[str, Any]) -> Path:
    """
    Write the figures of a result into the card of a model; figures of other benchmarks and the text stay.

    Args:
        folder (`str` or `Path`): The model's; a card is made if it has none.
        result (`Mapping[str, Any]`): A result file, as [`result_file`] makes it.

    Returns:
        `Path`: The card.

    Raises:
        ValueError: If the metadata of the card cannot be read, or the result is none.
    """
    place = Path(folder).expanduser()
    path = place / "README.md"
    metadata = _metadata(path)
    name, others = place.resolve().name, []
    if metadata.get("model-index"):
        name, others = model_index_to_eval_results(metadata["model-index"])
    entries = model_index(result)
    measured = {_question(entry) for entry in entries}
    kept = [entry for entry in others if _question(entry) not in measured]
    metadata["model-index"] = _index(name, [*kept, *entries])
    if not path.exists():
        path.write_text(f"\n# {name}\n", encoding="utf-8")
    metadata_save(path, metadata)
    return path


def _metadata(path: Path) -> dict[str, Any]:
    """What stands at the top of a card."""
    import yaml

    if not path.exists():
        return {}
    try:
        metadata = metadata_load(path)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"The metadata at the top of {path} cannot be read: {error}") from error
    if metadata and metadata.get("model-index"):
        try:
            model_index_to_eval_results(metadata["model-index"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"The model-index of {path} has not the form that the Hub reads: {error!r}.") from error
    return metadata or {}


def _question(entry: EvalResult) -> tuple[Any, ...]:
    """What an entry answers: of two answers to the same question the later one counts."""
    of_data = (entry.dataset_type, entry.dataset_config, entry.dataset_split)
    return (entry.task_type, entry.task_name, *of_data, entry.metric_type, entry.metric_name)


def _index(name: str, entries: Sequence[EvalResult]) -> list[dict[str, Any]]:
    """
    Put entries under headings.

    The Hub's own writer (huggingface_hub 2.4) groups by task type, data and revision, and takes the names of task and
    data from the first of a group; two benchmarks of one task type on the same data would go by the name of the first.
    """
    groups: dict[tuple[Any, ...], list[EvalResult]] = {}
    for entry in entries:
        heading = (*entry.unique_identifier, entry.task_name, entry.dataset_name, entry.source_url)
        groups.setdefault(heading, []).append(entry)
    results = [eval_results_to_model_index(name, group)[0]["results"][0] for group in groups.values()]
    return [{"name": name, "results": results}]


__all__ = ["check_card", "model_index", "update_card"]
