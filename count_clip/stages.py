"""Trainings that follow one another: a finished one is reused, a stopped one is resumed, a changed one starts over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from count_clip.datasets_scripts.files.resumable import ResumableFolder, differences, fingerprint_of

from ._version import __version__


def stage_folder(folder: Path) -> ResumableFolder:
    """
    The folder of a training, with the plan of it in `stage.json`.

    Args:
        folder (`Path`): The output folder of the training.

    Returns:
        [`ResumableFolder`]: Its `remove` keeps folders that hold anything else.
    """
    return ResumableFolder(folder, "stage.json")


def run_stage(folder: Path, config: str, overrides: Sequence[str], parent: str = "") -> dict[str, Any]:
    """
    Run one training, or reuse what an earlier run of the same configuration left.

    Args:
        folder (`Path`): The output folder of the training.
        config (`str`): Its YAML file, or the name of one in `trainers/configs`.
        overrides (`Sequence[str]`): `--key value` pairs that change it; `output_dir` is set here.
        parent (`str`, *optional*): What the training starts from, see [`stage_key`].

    Returns:
        `dict`: The figures that `trainers/run.py` wrote to `results.json`.

    Raises:
        FileExistsError: If the folder holds other files.
    """
    from count_clip.trainers.run import RESULTS_NAME, train
    from count_clip.trainers.running.arguments import find_config, parse_run

    overrides = ["--output_dir", str(folder), *overrides]
    text = find_config(config).read_text(encoding="utf-8")
    plan = {"version": __version__, "config": yaml.safe_load(text), "overrides": overrides, "parent": parent}
    stage = stage_folder(folder)
    before = stage.plan
    if stage.begin(plan, restart=True) and (folder / RESULTS_NAME).is_file():
        print(f"Finished by an earlier run: using {folder} (--fresh trains again).", flush=True)
        return json.loads((folder / RESULTS_NAME).read_text(encoding="utf-8"))
    if before is not None and before != stage.plan:
        print(f"Training {folder} again: {differences(before, stage.plan or {})}.", flush=True)
    return train(*parse_run(config, [*overrides, "--resume_from_checkpoint", "auto"]))


def stage_key(folder: Path) -> str:
    """
    Name what a training was run for.

    Args:
        folder (`Path`): The folder of a training.

    Returns:
        `str`: The same for the same configuration and the same start; empty where nothing was trained.
    """
    plan = stage_folder(folder).plan
    return "" if plan is None else fingerprint_of(plan)


__all__ = ["run_stage", "stage_folder", "stage_key"]
