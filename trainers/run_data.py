"""The rows that a run trains on and measures itself with, from what its configuration says of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from .keys import check_keys
from .rows import row_column


logger = logging.get_logger(__name__)

FOLDER_KINDS = ("voc", "coco", "points")
DEFAULT_SPLITS = {"dataset": "train", "eval_dataset": "validation", "test_dataset": "test"}


def load_rows(spec: Mapping[str, Any], task: str, key: str = "dataset") -> Any:
    """
    Load the rows of one part of a run.

    Args:
        spec (`Mapping`): `name` and what belongs to it. `countscenes` takes the fields of its scenes; `voc`, `coco`
            and `points` take what `load_object_folder` does, above all `path`; every other name is for
            `datasets.load_dataset` or, if it is a folder that `save_to_disk` made, for `load_from_disk`. `max_rows`
            keeps the first so many.
        task (`str`): `"counting"` or `"density"`.
        key (`str`, *optional*, defaults to `"dataset"`): Where it stands in the configuration, for messages.

    Returns:
        Map-style rows.

    Raises:
        ValueError: If a key is unknown, or there are no rows.
        FileNotFoundError: If a folder is missing.
    """
    options = dict(spec)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(
            f"Expected `{key}.name` to say which data to read: countscenes, {', '.join(FOLDER_KINDS)}, or the name or "
            f"folder of a data set of the datasets library; but got {name!r}."
        )
    max_rows = options.pop("max_rows", None)
    for field in ("path", "data_dir"):
        if isinstance(options.get(field), str) and not Path(options[field]).expanduser().exists():
            raise FileNotFoundError(
                f"There is no folder {options[field]!r}, which `{key}.{field}` names. Set it to where the data lies, "
                f"for example with `--{key}.{field} FOLDER` on the command line."
            )
    if name == "countscenes":
        rows = _countscenes(options, task, key)
    elif name in FOLDER_KINDS:
        rows = _object_folder(name, options, key)
    else:
        rows = _hub_dataset(name, options, key)
    if max_rows is not None:
        rows = torch.utils.data.Subset(rows, range(min(int(max_rows), len(rows))))
    if len(rows) == 0:
        raise ValueError(f"`{key}` ({dict(spec)}) has no rows. Check its split and its folder.")
    return rows


def load_splits(run: Any) -> dict[str, Any]:
    """
    Load all rows of a run.

    Args:
        run ([`RunArguments`]): Says which. What `eval_dataset` and `test_dataset` do not say is as in `dataset`,
            unless they name other data.

    Returns:
        `dict`: `dataset` and, where they are given, `eval_dataset` and `test_dataset`.

    Raises:
        ValueError: If there is no `dataset`.
    """
    if run.dataset is None:
        raise ValueError(
            "`dataset` is missing: say which rows to train on, for example `dataset: {name: countscenes}`."
        )
    splits = {"dataset": load_rows(run.dataset, run.task)}
    for key in ("eval_dataset", "test_dataset"):
        spec = getattr(run, key)
        if spec is not None:
            inherited = {name: value for name, value in run.dataset.items() if name not in ("split", "max_rows")}
            spec = spec if "name" in spec else {**inherited, **spec}
            splits[key] = load_rows(spec, run.task, key)
            if run.task == "counting":
                splits[key] = _counting_rows(splits[key])
    return splits


def _counting_rows(rows: Any) -> Any:
    """The rows that the nine-caption protocol can measure: those whose captions state a number from two to ten."""
    from count_clip.datasets_scripts.captions import NUMBER_TO_WORD

    numbers = row_column(rows, "number")
    kept = [index for index, number in enumerate(numbers) if number in NUMBER_TO_WORD]
    if len(kept) == len(rows):
        return rows
    logger.warning(
        f"{len(rows) - len(kept)} of {len(rows)} evaluation rows state no number from two to ten; the others are "
        "measured. What `eval_dataset` and `test_dataset` do not say is as in `dataset`, `number_rate` too."
    )
    return torch.utils.data.Subset(rows, kept)


def _countscenes(options: dict[str, Any], task: str, key: str) -> Any:
    from count_clip.datasets_scripts.countscenes import CountScenes, SceneConfig

    options.setdefault("config", {"counting": "captions", "density": "density"}[task])
    options.setdefault("split", DEFAULT_SPLITS[key])
    known = _parameters(CountScenes) | {field.name for field in dataclasses.fields(SceneConfig)}
    check_keys(options, known, f"`{key}` (countscenes)")
    return CountScenes(**options)


def _object_folder(kind: str, options: dict[str, Any], key: str) -> Any:
    from count_clip.datasets_scripts.object_folders import FORMATS, load_object_folder

    check_keys(
        options, (_parameters(load_object_folder) | _parameters(FORMATS[kind])) - {"format"}, f"`{key}` ({kind})"
    )
    if "path" not in options:
        raise ValueError(
            f"`{key}.path` is missing: say where the {kind} data lies, for example with `--{key}.path FOLDER` on the "
            "command line."
        )
    path = Path(options.pop("path")).expanduser()
    # The folders that people share mostly say "val".
    options.setdefault("split", {"dataset": "train", "eval_dataset": "val", "test_dataset": "test"}[key])
    return load_object_folder(path, kind, **options)


def _hub_dataset(name: str, options: dict[str, Any], key: str) -> Any:
    import datasets

    folder = Path(name).expanduser()
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        check_keys(options, ["split"], f"`{key}` ({name})")
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.DatasetDict):
            split = options.get("split", DEFAULT_SPLITS[key])
            if split not in loaded:
                raise ValueError(f"`{key}` asks for the split {split!r}, but {name} has {', '.join(loaded)}.")
            return loaded[split]
        if "split" in options:
            raise ValueError(f"`{key}` asks for the split {options['split']!r}, but {name} is a set without splits.")
        return loaded
    if name.startswith(("/", "./", "../", "~")) and not folder.exists():
        raise FileNotFoundError(f"There is no folder {name!r}, which `{key}.name` names.")
    options.setdefault("split", DEFAULT_SPLITS[key])
    return datasets.load_dataset(str(folder) if folder.is_dir() else name, options.pop("config", None), **options)


def _parameters(function: Any) -> set[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in kinds}


__all__ = ["load_rows", "load_splits"]
