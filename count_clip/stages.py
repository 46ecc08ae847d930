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
    """The output folder of a training, with its plan in `stage.json`; `remove` keeps folders with any other files."""
    return ResumableFolder(folder, "stage.json")


def run_stage(folder: Path, config: str, overrides: Sequence[str], parent: str = "") -> dict[str, Any]:
    """
    Run one training, or reuse the result of the same configuration; returns the figures in `results.json`.

    `overrides` are `--key value` pairs that change the YAML file, `parent` names the start of the training, see
    [`stage_key`]. Raises a `FileExistsError` if the folder holds other files.
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
    """A key of the configuration and the start of a training; empty if nothing was trained in the folder."""
    plan = stage_folder(folder).plan
    return "" if plan is None else fingerprint_of(plan)


__all__ = ["run_stage", "stage_folder", "stage_key"]
