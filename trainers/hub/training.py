"""The record of a training for its card, and the curve of its losses."""

from __future__ import annotations

import dataclasses
import enum
import fnmatch
import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from .card import LOSS_IMAGE, TrainingRecord


# Where the run writes and how it uses the machine: none of it changes what is learnt.
_LEFT_OUT = (
    *("output_dir", "hub_*", "push_to_hub*", "*_token", "logging_*", "log_*", "save_*", "run_name", "report_to"),
    *("project", "trackio_*", "resume_from_checkpoint", "disable_tqdm", "use_cpu", "dataloader_pin_memory"),
    *("dataloader_num_workers", "dataloader_persistent_workers", "deepspeed", "fsdp*", "accelerator_config"),
    *("local_rank", "do_*"),
)
_VERSIONS = ("count-clip", "torch", "transformers", "accelerate", "peft", "datasets")
# Of values further apart than this, the small ones would be drawn on the axis.
_RATIO_FOR_LOG = 50.0


def training_record(args: TrainingArguments, command: str, facts: Mapping[str, Any] | None = None) -> TrainingRecord:
    """
    Describe a training: its command, the arguments that differ from the defaults, `facts`, and the versions of the
    libraries.
    """
    arguments = {}
    for one in dataclasses.fields(args):
        value = _plain(getattr(args, one.name))
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        # An argument that was left out may have become false or empty.
        is_given = value != _plain(default) and bool(value or default)
        if is_given and not any(fnmatch.fnmatch(one.name, pattern) for pattern in _LEFT_OUT):
            arguments[one.name] = value
    about = {"device": torch.cuda.get_device_name() if torch.cuda.is_available() and not args.use_cpu else "CPU"}
    if args.world_size > 1:
        about["processes"] = str(args.world_size)
    found = [f"{name} {version}" for name in _VERSIONS if (version := _version(name)) is not None]
    about["versions"] = ", ".join([*found, f"Python {platform.python_version()}"])
    return TrainingRecord(command, arguments, {**(facts or {}), **about})


def write_loss_curve(folder: str | Path, history: Sequence[Mapping[str, Any]]) -> Path | None:
    """
    Draw the losses in `trainer.state.log_history`, on a logarithmic axis where they differ by more than a factor of
    50; `None` where fewer than two values were logged.
    """
    series = _losses(history)
    if sum(map(len, series.values())) < 2:
        return None
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(9.6, 5.4), dpi=100, layout="constrained")
    axes = canvas.add_subplot(xlabel="step", ylabel="loss")
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 40 else None)
    values = [value for points in series.values() for _, value in points]
    if min(values) > 0 and max(values) / min(values) > _RATIO_FOR_LOG:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    path = Path(folder, LOSS_IMAGE)
    canvas.savefig(path)
    return path


def _losses(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Steps and finite values of each loss, in the order of the steps."""
    series: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            is_loss = (name == "loss" or name.endswith("_loss")) and name != "train_loss"
            if is_loss and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(name, []).append((float(entry.get("step", 0)), float(value)))
    return {name: sorted(points) for name, points in series.items()}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


__all__ = ["training_record", "write_loss_curve"]
