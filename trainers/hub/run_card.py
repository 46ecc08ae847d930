"""What the card of a training says: its command, its arguments, what it reached, and the course of its losses."""

from __future__ import annotations

import dataclasses
import enum
import fnmatch
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from count_clip.datasets_scripts.countscenes.config import config_with_objects

from ..running.arguments import RunArguments
from ..running.data import FOLDER_KINDS
from .card import LOSS_IMAGE, Figure, TrainingRecord
from .loss_curve import draw_losses, loss_series


# Where the run writes, whom it tells and how the machine is used: none of it changes what is learnt.
_NOT_TOLD = (
    "output_dir",
    "hub_*",
    "push_to_hub*",
    "*_token",
    "logging_*",
    "log_*",
    "save_*",
    "run_name",
    "report_to",
    "project",
    "trackio_*",
    "resume_from_checkpoint",
    "disable_tqdm",
    "use_cpu",
    "dataloader_pin_memory",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "deepspeed",
    "fsdp*",
    "accelerator_config",
    "local_rank",
    "do_*",
)
_FIGURES = {"counting": ("accuracy", "mean_deviation"), "density": ("mae", "rmse")}
_VERSIONS = ("count-clip", "torch", "transformers", "accelerate", "peft", "datasets")


def training_record(args: TrainingArguments, command: str, facts: Mapping[str, Any] | None = None) -> TrainingRecord:
    """
    Say how something was trained.

    Args:
        args (`TrainingArguments`): What the trainer was told; those that are the defaults, or say where it writes, are
            left out.
        command (`str`): The run.
        facts (`Mapping[str, Any]`, *optional*): What else there is to tell.

    Returns:
        [`TrainingRecord`]: With the versions of the libraries.
    """
    told = {}
    for one in dataclasses.fields(args):
        value = _plain(getattr(args, one.name))
        factory = one.default_factory
        default = one.default if factory is dataclasses.MISSING else factory()
        # What was not given may have become false or empty on the way.
        is_given = value != _plain(default) and bool(value or default)
        if is_given and not any(fnmatch.fnmatch(one.name, pattern) for pattern in _NOT_TOLD):
            told[one.name] = value
    versions = ", ".join(f"{name} {version}" for name in _VERSIONS if (version := _version(name)) is not None)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() and not args.use_cpu else "CPU"
    about = {"device": device, "processes": args.world_size} if args.world_size > 1 else {"device": device}
    python = f"Python {platform.python_version()}"
    return TrainingRecord(command, told, {**(facts or {}), **about, "versions": f"{versions}, {python}"})


def figures_of_run(run: RunArguments, results: Mapping[str, Any], command: str) -> list[Figure]:
    """
    Take from the results of a run what it measured at its end.

    Args:
        run ([`RunArguments`]): Says on which data.
        results (`Mapping[str, Any]`): From `run.train`.
        command (`str`): The run.

    Returns:
        `list[Figure]`: A metric after the other, for each part that was measured.
    """
    figures = []
    for part, measured in results.get("after", {}).items():
        spec = getattr(run, f"{part}_dataset") or {}
        inherited = {} if "name" in spec else {k: v for k, v in (run.dataset or {}).items() if k != "split"}
        data = {**inherited, **spec}
        default_split = {"eval": "validation", "test": "test"}[part]
        config = data.get("config")
        if config is not None and data.get("name") == "countscenes":
            config = config_with_objects(config, data.get("objects"))
        for metric in _FIGURES[run.task]:
            baseline = measured.get(f"mean_{metric}")
            notes = [f"{measured['num_rows']} rows"]
            if baseline is not None:
                notes.append(f"always the mean: {baseline:.4g}")
            figures.append(
                Figure(
                    metric,
                    float(measured[metric]),
                    data_name(data),
                    command,
                    config=config,
                    split=str(data.get("split") or default_split),
                    note=", ".join(notes),
                    benchmark={"counting": "countbench", "density": "density"}[run.task],
                )
            )
    return figures


def data_name(spec: Mapping[str, Any]) -> str:
    """
    What to call the data that a run was told to read.

    Args:
        spec (`Mapping[str, Any]`): `dataset` of a run.

    Returns:
        `str`: Its name; of a folder of images, and of every other folder of this machine, the last part of its path.
    """
    name = str(spec.get("name"))
    place = spec.get("path", name) if name in FOLDER_KINDS else name
    is_folder = name in FOLDER_KINDS or Path(str(place)).expanduser().exists()
    return Path(str(place)).expanduser().name if is_folder else name


def write_loss_image(folder: str | Path, history: Any) -> Path | None:
    """
    Draw the losses of a training.

    Args:
        folder (`str` or `Path`): Where to.
        history: `trainer.state.log_history`.

    Returns:
        `Path` or `None`: The image; none where fewer than two values were logged.
    """
    series = loss_series(history)
    if sum(map(len, series.values())) < 2:
        return None
    path = Path(folder, LOSS_IMAGE)
    draw_losses(series).save(path)
    return path


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


__all__ = ["data_name", "figures_of_run", "training_record", "write_loss_image"]
