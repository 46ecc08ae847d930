"""The rows that a run trains on and measures itself with, from what its configuration says of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers.utils import logging

from ..core.rows import GeneralRows, row_column
from .arguments import check_keys


logger = logging.get_logger(__name__)

# For the captions of counting runs, whatever the data set.
COUNTING_OPTIONS = ("general", "caption_noise", "counting_filter")
FOLDER_KINDS = ("voc", "coco", "points", "csv")
DEFAULT_SPLITS = {"dataset": "train", "eval_dataset": "validation", "test_dataset": "test"}


def load_rows(spec: Mapping[str, Any], task: str, key: str = "dataset") -> Any:
    """
    Load the rows of one part of a run.

    Args:
        spec (`Mapping`): `name` and what belongs to it. `countscenes` takes the fields of its scenes; `voc`, `coco`,
            `points` and `csv` take what `load_object_folder` does, above all `path`; every other name is for
            `datasets.load_dataset` or, if it is a folder that `save_to_disk` made, for `load_from_disk`. `max_rows`
            keeps the first so many. For counting, `general: true` makes general pairs of all rows, also of those whose
            captions state a number; `caption_noise` (the arguments of [`NoisyCaptions`]) spoils the numbers in the
            captions of `countscenes`, and `counting_filter` then says which of them are left (see
            [`filter_counting`]). In the place of all this, `parts` is a list of such specifications, whose rows come
            one after the other: `counting_fraction` says how they are mixed.
        task (`str`): `"counting"` or `"density"`.
        key (`str`, *optional*, defaults to `"dataset"`): Where it stands in the configuration, for messages.

    Returns:
        Map-style rows.

    Raises:
        ValueError: If a key is unknown, or there are no rows.
        FileNotFoundError: If a folder is missing.
    """
    options = dict(spec)
    if "parts" in options:
        return _parts(options, task, key)
    name = options.pop("name", None)
    counting = {option: options.pop(option) for option in COUNTING_OPTIONS if option in options}
    if counting and task != "counting":
        raise ValueError(f"`{key}.{next(iter(counting))}` is for counting runs, but this is a {task} run.")
    if not isinstance(name, str):
        raise ValueError(
            f"Expected `{key}.name` to say which data to read: countscenes, {', '.join(FOLDER_KINDS)}, or the name or "
            f"folder of a data set of the datasets library; but got {name!r}."
        )
    max_rows = options.pop("max_rows", None)
    for field in ("path", "data_dir", "cutouts", "backgrounds"):
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
    if counting:
        rows = _counting_options(rows, counting, key)
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
            if "parts" in inherited and "name" not in spec:
                raise ValueError(
                    f"`{key}.name` is missing: `dataset` has several parts, so `{key}` has to say itself which data "
                    "to read."
                )
            spec = spec if "name" in spec else {**inherited, **spec}
            splits[key] = load_rows(spec, run.task, key)
            if run.task == "counting":
                splits[key] = _counting_rows(splits[key])
    return splits


def _parts(spec: dict[str, Any], task: str, key: str) -> Any:
    check_keys(spec, ["parts"], f"`{key}` (several parts)")
    parts = spec["parts"]
    if not isinstance(parts, list) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(
            f"Expected `{key}.parts` to be a list of data sets, each with a `name` and what belongs to it, but got "
            f"{parts!r:.80}."
        )
    return torch.utils.data.ConcatDataset(
        [load_rows(part, task, f"{key}.parts[{place}]") for place, part in enumerate(parts)]
    )


def _counting_options(rows: Any, options: Mapping[str, Any], key: str) -> Any:
    """Spoil the captions, filter them, and make general pairs of them, as far as each is asked for."""
    from count_clip.datasets_scripts.captions.noise import NoisyCaptions, filter_counting

    noise, how = options.get("caption_noise"), options.get("counting_filter")
    if noise is not None:
        if not isinstance(noise, Mapping):
            raise ValueError(f"Expected `{key}.caption_noise` to be keys and values, but got {noise!r}.")
        check_keys(noise, _parameters(NoisyCaptions) - {"rows"}, f"`{key}.caption_noise`")
        rows = NoisyCaptions(rows, **noise)
    if how is not None:
        if not isinstance(rows, NoisyCaptions):
            raise ValueError(
                f"`{key}.counting_filter` needs `{key}.caption_noise`: captions that are right are left as they are. "
                "`count-clip data counting-set` filters captions of the web."
            )
        kept, counts = filter_counting(rows, str(how))
        logger.warning(f"`{key}`, filter {how}: {', '.join(f'{name} {number}' for name, number in counts.items())}.")
        # `Subset` wants anything with an index and a length, whatever its annotation says.
        rows = torch.utils.data.Subset(cast(Any, rows), kept)
    general = options.get("general", False)
    if not isinstance(general, bool):
        raise ValueError(f"Expected `{key}.general` to be true or false, but got {general!r}.")
    return GeneralRows(rows) if general else rows


def _counting_rows(rows: Any) -> Any:
    """The rows that the nine-caption protocol can measure: those whose captions state a number from two to ten."""
    from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD

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
    from count_clip.datasets_scripts.countscenes.builder import CountScenes, SceneConfig

    options.setdefault("config", {"counting": "captions", "density": "density"}[task])
    options.setdefault("split", DEFAULT_SPLITS[_part_of(key)])
    known = _parameters(CountScenes) | {field.name for field in dataclasses.fields(SceneConfig)}
    check_keys(options, known, f"`{key}` (countscenes)")
    return CountScenes(**options)


def _object_folder(kind: str, options: dict[str, Any], key: str) -> Any:
    from count_clip.datasets_scripts.formats.folders import FORMATS, load_object_folder

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
    options.setdefault("split", {"dataset": "train", "eval_dataset": "val", "test_dataset": "test"}[_part_of(key)])
    return load_object_folder(path, kind, **options)


def _hub_dataset(name: str, options: dict[str, Any], key: str) -> Any:
    import datasets

    folder = Path(name).expanduser()
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        check_keys(options, ["split"], f"`{key}` ({name})")
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.DatasetDict):
            split = options.get("split", DEFAULT_SPLITS[_part_of(key)])
            if split not in loaded:
                raise ValueError(f"`{key}` asks for the split {split!r}, but {name} has {', '.join(loaded)}.")
            return loaded[split]
        if "split" in options:
            raise ValueError(f"`{key}` asks for the split {options['split']!r}, but {name} is a set without splits.")
        return loaded
    if name.startswith(("/", "./", "../", "~")) and not folder.exists():
        raise FileNotFoundError(f"There is no folder {name!r}, which `{key}.name` names.")
    options.setdefault("split", DEFAULT_SPLITS[_part_of(key)])
    return datasets.load_dataset(str(folder) if folder.is_dir() else name, options.pop("config", None), **options)


def _part_of(key: str) -> str:
    """`"dataset"` for `"dataset.parts[1]"`."""
    return key.partition(".")[0]


def _parameters(function: Any) -> set[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in kinds}


__all__ = ["load_rows", "load_splits"]
