"""Measured figures in a model's card: the `model-index` that the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard import metadata_load, metadata_save
from huggingface_hub.repocard_data import model_index_to_eval_results

from count_clip.datasets_scripts.publish.model_index import BENCHMARKS, eval_result, is_of_model, model_index_of


def model_index(result: Mapping[str, Any]) -> list[EvalResult]:
    """
    The figures of a result as entries of a card, without undefined ones and baselines (`baseline_...`).

    For a part of the data, the name of the data has the numbers of rows. Raises a `ValueError` if it is not a result
    file, or of an unknown benchmark.
    """
    missing = [key for key in ("benchmark", "run", "metrics") if key not in result]
    if missing:
        raise ValueError(
            f"Expected a result as `count-clip evaluate` writes it with --json, but it lacks {', '.join(missing)}."
        )
    if result["benchmark"] not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        raise ValueError(f"Expected a result of one of {known}, but got one of {result['benchmark']!r}.")
    data = result["run"]["data"]
    measured = (data.get("rows") or 0) - result.get("missing", 0)
    partial = f" ({measured} of {data.get('total') or data.get('rows')} rows)" if result.get("partial") else ""
    intervals = result.get("intervals", {})
    return [
        eval_result(
            result["benchmark"],
            name,
            round(float(value), 6),
            str(data["name"]),
            data.get("config"),
            data.get("split"),
            data.get("revision"),
            intervals.get(name),
            f"{data['name']}{partial}",
        )
        for name, value in result["metrics"].items()
        if value is not None and is_of_model(name)
    ]


def check_card(folder: str | Path) -> None:
    """Raise a `ValueError` if there is no such folder, or the metadata of its card cannot be read."""
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise ValueError(f"Expected the folder of a model, but there is no folder {folder}.")
    _metadata(place / "README.md")


def update_card(folder: str | Path, result: Mapping[str, Any]) -> Path:
    """
    Write the figures of a result into the card of a model, which is created if needed; the text and figures of other
    benchmarks stay. Raises a `ValueError` if the card cannot be read, or the result is not a result file.
    """
    place = Path(folder).expanduser()
    path = place / "README.md"
    metadata = _metadata(path)
    name, others = place.resolve().name, []
    if metadata.get("model-index"):
        name, others = model_index_to_eval_results(metadata["model-index"])
    entries = model_index(result)
    measured = {_key(entry) for entry in entries}
    kept = [entry for entry in others if _key(entry) not in measured]
    metadata["model-index"] = model_index_of(name, [*kept, *entries])
    if not path.exists():
        path.write_text(f"\n# {name}\n", encoding="utf-8")
    metadata_save(path, metadata)
    return path


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata of a card."""
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
            raise ValueError(f"The model-index of {path} is not valid: {error!r}.") from error
    return metadata or {}


def _key(entry: EvalResult) -> tuple[Any, ...]:
    """What identifies an entry: a later one replaces it."""
    of_data = (entry.dataset_type, entry.dataset_config, entry.dataset_split)
    return (entry.task_type, entry.task_name, *of_data, entry.metric_type, entry.metric_name)


__all__ = ["check_card", "model_index", "update_card"]
