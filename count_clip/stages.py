"""Trainings that follow one another: each is done once, goes on where it was stopped, and is done anew if changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ._version import __version__


def run_stage(
    folder: Path, config: str, overrides: Sequence[str], state_name: str, parent: str = ""
) -> dict[str, Any]:
    """
    Do one training, or take up what an earlier one of the same configuration left.

    Args:
        folder (`Path`): Where the training writes.
        config (`str`): Its YAML file, or the name of one in `trainers/configs`.
        overrides (`Sequence[str]`): `--key value` pairs that change it; `output_dir` is set here.
        state_name (`str`): The file of the folder that says what it was made for. A folder without it is left alone.
        parent (`str`, *optional*): What the training starts from, as [`stage_key`] gives it.

    Returns:
        `dict`: The figures that `trainers/run.py` wrote to `results.json`.

    Raises:
        FileExistsError: If the folder holds something else.
    """
    from count_clip.trainers.run import RESULTS_NAME, train
    from count_clip.trainers.running.arguments import find_config, parse_run

    overrides = ["--output_dir", str(folder), *overrides]
    parts = [__version__, find_config(config).read_text(encoding="utf-8"), *overrides, parent]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if stage_key(folder, state_name) == key and (folder / RESULTS_NAME).is_file():
        print(f"Finished by an earlier run: using {folder} (--fresh trains again).", flush=True)
        return json.loads((folder / RESULTS_NAME).read_text(encoding="utf-8"))
    if stage_key(folder, state_name) != key:
        remove_stage(folder, state_name)  # of another configuration
    folder.mkdir(parents=True, exist_ok=True)
    (folder / state_name).write_text(json.dumps({"key": key}), encoding="utf-8")
    return train(*parse_run(config, [*overrides, "--resume_from_checkpoint", "auto"]))


def remove_stage(folder: Path, state_name: str) -> None:
    """
    Remove what an earlier training of the same kind left, and nothing else.

    Args:
        folder (`Path`): Its folder; it may be missing or empty.
        state_name (`str`): The file by which it is recognised.

    Raises:
        FileExistsError: If the folder holds something else.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / state_name).is_file():
        raise FileExistsError(
            f"{folder} holds something that was not trained here. Choose another --output, or move it away."
        )
    shutil.rmtree(folder)


def stage_key(folder: Path, state_name: str) -> str:
    """
    What a folder was made for.

    Args:
        folder (`Path`): The folder of a training.
        state_name (`str`): The file that says it.

    Returns:
        `str`: The same for the same configuration and the same start; empty where nothing was trained.
    """
    path = folder / state_name
    return json.loads(path.read_text(encoding="utf-8"))["key"] if path.is_file() else ""


__all__ = ["remove_stage", "run_stage", "stage_key"]
