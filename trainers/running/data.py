"""The rows of a run: for training, evaluation and test."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..core.rows import Rows
from .arguments import check_keys


logger = logging.get_logger(__name__)

# For the captions of counting runs, whatever the data set.
COUNTING_OPTIONS = ("general", "caption_noise", "counting_filter")
FOLDER_FORMATS = ("voc", "coco", "points", "csv")
DEFAULT_SPLITS = {"dataset": "train", "eval_dataset": "validation", "test_dataset": "test"}


def load_rows(spec: Mapping[str, Any], task: str, key: str = "dataset") -> Rows:
    """
    Load a data set of a run.

    Args:
        spec (`Mapping`): `name` and its options. `countscenes` takes the fields of its scenes; `voc`, `coco`, `points`
            and `csv` the arguments of `load_object_folder`, at least `path`; every other name those of
            `datasets.load_dataset` or, for a folder that `save_to_disk` made, `load_from_disk`. `max_rows` keeps the
            first rows. For counting, `general: true` makes general pairs of all rows, also of those whose captions
            state a number; `caption_noise` (the arguments of [`NoisyCaptions`]) adds wrong numbers to the captions of
            `countscenes`, which `counting_filter` filters (see [`filter_counting`]). Instead, `parts` is a list of
            such specifications, whose rows are concatenated; `counting_fraction` mixes them.
        task (`str`): `"counting"` or `"density"`.
        key (`str`, *optional*, defaults to `"dataset"`): The key of the configuration, for messages.

    Returns:
        [`Rows`].

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
            f"Expected `{key}.name` to be countscenes, {', '.join(FOLDER_FORMATS)}, or the name or folder of a data "
            f"set of the datasets library, but got {name!r}."
        )
    max_rows = options.pop("max_rows", None)
    for field in ("path", "data_dir", "cutouts", "backgrounds"):
        if isinstance(options.get(field), str) and not Path(options[field]).expanduser().exists():
            raise FileNotFoundError(
                f"There is no folder {options[field]!r}, which `{key}.{field}` names. Set it to the folder of the "
                f"data, for example with `--{key}.{field} FOLDER` on the command line."
            )
    if name == "countscenes":
        rows = _countscenes(options, task, key)
    elif name in FOLDER_FORMATS:
        rows = _object_folder(name, options, key)
    else:
        rows = _hub_dataset(name, options, key)
    rows = _counting_options(rows, counting, key) if counting else Rows(rows)
    if max_rows is not None:
        rows = rows.select(range(min(int(max_rows), len(rows))))
    if len(rows) == 0:
        raise ValueError(f"`{key}` ({dict(spec)}) has no rows. Check its split and its folder.")
    return rows


def load_splits(run: Any) -> dict[str, Any]:
    """
    Load `dataset` and, where the run has them, `eval_dataset` and `test_dataset`, which inherit the options of
    `dataset` unless they name other data. For counting they keep the rows whose captions state a number from two to
    ten.
    """
    if run.dataset is None:
        raise ValueError("`dataset` is missing: name the training rows, for example `dataset: {name: countscenes}`.")
    splits = {"dataset": load_rows(run.dataset, run.task)}
    for key in ("eval_dataset", "test_dataset"):
        spec = getattr(run, key)
        if spec is not None:
            inherited = {name: value for name, value in run.dataset.items() if name not in ("split", "max_rows")}
            if "parts" in inherited and "name" not in spec:
                raise ValueError(
                    f"`{key}.name` is missing: `dataset` has several parts, so `{key}` has to name its own data."
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
    first, *others = (load_rows(part, task, f"{key}.parts[{place}]") for place, part in enumerate(parts))
    return sum(others, first)


def _counting_options(rows: Any, options: Mapping[str, Any], key: str) -> Any:
    """Add noise to the captions, filter them, and make general pairs, each where the options demand it."""
    from count_clip.datasets_scripts.captions.noise import NoisyCaptions, filter_counting

    noise, how = options.get("caption_noise"), options.get("counting_filter")
    if noise is not None:
        if not isinstance(noise, Mapping):
            raise ValueError(f"Expected `{key}.caption_noise` to be keys and values, but got {noise!r}.")
        check_keys(noise, _parameters(NoisyCaptions) - {"rows"}, f"`{key}.caption_noise`")
        rows = NoisyCaptions(rows, **noise)
    kept = None
    if how is not None:
        if not isinstance(rows, NoisyCaptions):
            raise ValueError(
                f"`{key}.counting_filter` needs `{key}.caption_noise`: right captions are not filtered. "
                "`count-clip data counting-set` filters captions of the web."
            )
        kept, counts = filter_counting(rows, str(how))
        logger.warning(f"`{key}`, filter {how}: {', '.join(f'{name} {number}' for name, number in counts.items())}.")
    rows = Rows(rows) if kept is None else Rows(rows).select(kept)
    general = options.get("general", False)
    if not isinstance(general, bool):
        raise ValueError(f"Expected `{key}.general` to be true or false, but got {general!r}.")
    return rows.with_values(is_counting=False) if general else rows


def _counting_rows(rows: Any) -> Any:
    """The rows that the nine-caption protocol can measure: those whose captions state a number from two to ten."""
    from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD

    numbers = rows.column("number")
    kept = [index for index, number in enumerate(numbers) if number in NUMBER_TO_WORD]
    if len(kept) == len(rows):
        return rows
    logger.warning(
        f"{len(rows) - len(kept)} of {len(rows)} evaluation rows state no number from two to ten; the others are "
        "measured. `eval_dataset` and `test_dataset` inherit the options of `dataset`, `number_rate` too."
    )
    return rows.select(kept)


def _countscenes(options: dict[str, Any], task: str, key: str) -> Any:
    from count_clip.datasets_scripts.countscenes.builder import CountScenes, SceneConfig

    options.setdefault("config", {"counting": "captions", "density": "density"}[task])
    options.setdefault("split", DEFAULT_SPLITS[_part_of(key)])
    known = _parameters(CountScenes) | {field.name for field in dataclasses.fields(SceneConfig)}
    check_keys(options, known, f"`{key}` (countscenes)")
    return CountScenes(**options)


def _object_folder(format: str, options: dict[str, Any], key: str) -> Any:
    from count_clip.datasets_scripts.formats.folders import FORMATS, load_object_folder

    check_keys(
        options, (_parameters(load_object_folder) | _parameters(FORMATS[format])) - {"format"}, f"`{key}` ({format})"
    )
    if "path" not in options:
        raise ValueError(
            f"`{key}.path` is missing: name the folder of the {format} data, for example with `--{key}.path FOLDER` "
            "on the command line."
        )
    path = Path(options.pop("path")).expanduser()
    # Shared folders mostly name this split "val".
    options.setdefault("split", {"dataset": "train", "eval_dataset": "val", "test_dataset": "test"}[_part_of(key)])
    return load_object_folder(path, format, **options)


def _hub_dataset(name: str, options: dict[str, Any], key: str) -> Any:
    import datasets

    folder = Path(name).expanduser()
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        check_keys(options, ["split"], f"`{key}` ({name})")
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.DatasetDict):
            split = options.get("split", DEFAULT_SPLITS[_part_of(key)])
            if split not in loaded:
                raise ValueError(f"`{key}` names the split {split!r}, but {name} has {', '.join(loaded)}.")
            return loaded[split]
        if "split" in options:
            raise ValueError(f"`{key}` names the split {options['split']!r}, but {name} is a set without splits.")
        return loaded
    if name.startswith(("/", "./", "../", "~")) and not folder.exists():
        raise FileNotFoundError(f"There is no folder {name!r}, which `{key}.name` names.")
    options.setdefault("split", DEFAULT_SPLITS[_part_of(key)])
    return datasets.load_dataset(str(folder) if folder.is_dir() else name, options.pop("config", None), **options)


def _part_of(key: str) -> str:
    """`"dataset"` for `"dataset.parts[1]"`."""
    return key.partition(".")[0]


def _parameters(function: Any) -> set[str]:
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in by_name}


__all__ = ["load_rows", "load_splits"]
