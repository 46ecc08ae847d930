"""The card of a run: its data, its figures, its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from count_clip.datasets_scripts.countscenes.config import config_with_objects

from ..core.trainer import BaseTrainer
from ..hub.card import Figure
from .arguments import TASKS, RunArguments
from .data import FOLDER_FORMATS


def write_run_card(run: RunArguments, trainer: BaseTrainer, results: dict[str, Any]) -> None:
    """Write the card of a run into its folder, with the results of [`train`]."""
    total, trained = results["num_parameters"], results["num_trained_parameters"]
    source = run.model_name_or_path or run.clip_name_or_path or run.density_name_or_path
    trainer.create_model_card(
        finetuned_from=source if source and not Path(source).expanduser().exists() else None,
        dataset_tags=[data_name(run.dataset)] if run.dataset else None,
        figures=figures_of_run(run, results, trainer.command),
        facts={
            "rows": ", ".join(f"{name} {number:,}" for name, number in results["num_rows"].items()),
            "parameters": f"{total:,}, {trained:,} of them trained ({trained / total:.2%})",
            "seconds": results["seconds"],
        },
    )


def figures_of_run(run: RunArguments, results: Mapping[str, Any], command: str) -> list[Figure]:
    """Collect the figures that a run measured at its end, one for each metric and set of rows."""
    task = TASKS[run.task]
    figures = []
    for part, measured in results.get("after", {}).items():
        spec = getattr(run, f"{part}_dataset") or {}
        inherited = {} if "name" in spec else {k: v for k, v in (run.dataset or {}).items() if k != "split"}
        data = {"split": {"eval": "validation", "test": "test"}[part], **inherited, **spec}
        config = data.get("config")
        if config is not None and data.get("name") == "countscenes":
            config = config_with_objects(config, data.get("objects"))
        for metric in task.metrics:
            notes = [f"{measured['num_rows']} rows"]
            if (baseline := measured.get(f"mean_{metric}")) is not None:
                notes.append(f"always the mean: {baseline:.4g}")
            figures.append(
                Figure(
                    metric,
                    float(measured[metric]),
                    data_name(data),
                    command,
                    config=config,
                    split=str(data["split"]),
                    note=", ".join(notes),
                    benchmark=task.benchmark,
                )
            )
    return figures


def data_name(spec: Mapping[str, Any]) -> str:
    """
    The name of the data of a run (`dataset` of its arguments); for a folder of this machine the last part of its path.
    """
    name = str(spec.get("name"))
    path = Path(str(spec.get("path", name) if name in FOLDER_FORMATS else name)).expanduser()
    return path.name if name in FOLDER_FORMATS or path.exists() else name


__all__ = ["data_name", "figures_of_run", "write_run_card"]
