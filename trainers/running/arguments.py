"""The configuration of a run: a YAML file and the command line, checked key by key."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..counting.config import CountingConfig
from ..density.config import DensityConfig


@dataclasses.dataclass(frozen=True)
class Task:
    """What differs between the trainings of the two models."""

    config: type[TrainingArguments]
    other_source: str
    """The key that names the other model, whose towers this one can start from."""
    tuned_by: str
    """The argument that chooses what trains, which adapters replace."""
    metrics: tuple[str, str]
    benchmark: str
    """The benchmark of the metrics, for cards."""


TASKS = {
    "counting": Task(
        CountingConfig, "density_name_or_path", "train_towers", ("accuracy", "mean_deviation"), "countbench"
    ),
    "density": Task(DensityConfig, "clip_name_or_path", "trainable", ("mae", "rmse"), "density"),
}


@dataclasses.dataclass
class RunArguments:
    """
    The arguments of `run.py` besides those of the trainer.

    Args:
        task (`str`): `"counting"` or `"density"`.
        model_name_or_path (`str`, *optional*): A checkpoint of the task's model; for counting also of a CLIP.
        clip_name_or_path (`str`, *optional*): A CLIP to start a density model from.
        density_name_or_path (`str`, *optional*): A density model to start a counting model's towers from.
        scratch (`dict`, *optional*): The size of a new model: `vision`, `text`, `projection_dim`, `vocab_size`.
        model_config (`dict`, *optional*): Fields of the model's configuration to change.
        attn_implementation (`str`, *optional*): How attention is computed while training, as `transformers` names it:
            `sdpa` (the default), `eager` (on CPUs in bfloat16 up to twice as fast), `flash_attention_2`.
        image_processor (`dict`, *optional*): Options of the density model's image processor to change.
        peft (`dict`, *optional*): The adapter that trains instead of the model: `type` (`visual_prompt`,
            `context_prompt`, `lora` or another method of PEFT) and its options; or a list of several.
        dataset (`dict`): The training rows: `name` and its options; or `parts`, a list of such.
        eval_dataset (`dict`, *optional*): The validation rows; other options are inherited from `dataset`.
        test_dataset (`dict`, *optional*): The test rows; other options are inherited from `dataset`.
        early_stopping_patience (`int`, *optional*): Evaluations without a better one after which the run stops.
        evaluate_first (`bool`, *optional*, defaults to `False`): Whether to measure the model before the training.
        license (`str`, *optional*): The licence for the card, as the Hub names it: `apache-2.0`.
        hub_dtype (`str`, *optional*): With `push_to_hub`, the type of the pushed weights: `float32`, `bfloat16` or
            `float16`; by default that of the training.

    Raises:
        ValueError: If `hub_dtype` is another one.
    """

    task: str = ""
    model_name_or_path: str | None = None
    clip_name_or_path: str | None = None
    density_name_or_path: str | None = None
    scratch: dict[str, Any] | None = None
    model_config: dict[str, Any] | None = None
    attn_implementation: str | None = None
    image_processor: dict[str, Any] | None = None
    peft: dict[str, Any] | None = None
    dataset: dict[str, Any] | None = None
    eval_dataset: dict[str, Any] | None = None
    test_dataset: dict[str, Any] | None = None
    early_stopping_patience: int | None = None
    evaluate_first: bool = False
    license: str | None = None
    hub_dtype: str | None = None

    def __post_init__(self) -> None:
        if self.hub_dtype not in (None, "float32", "bfloat16", "float16"):
            raise ValueError(f"`hub_dtype` must be float32, bfloat16 or float16, but got {self.hub_dtype!r}.")


# Keys whose value may be a text alone, and the inner key that it sets.
_SHORT = {"dataset": "name", "peft": "type"}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers and booleans: `1e-5` is a number, and `no` a text, as in `save_strategy: no`."""

    yaml_implicit_resolvers = {
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def parse_run(path: str, overrides: Sequence[str]) -> tuple[RunArguments, TrainingArguments]:
    """
    Read a run's YAML file, or one of this package by name, change it as the command line demands, and return the
    arguments of the run and of its trainer.

    Overrides are `--key value`, `--key=value`, `--key` alone for true, and `--key.inner value`. `--config name`
    chooses one of the file's `variants`, whose keys replace the file's own; the other overrides replace both. Raises a
    `FileNotFoundError` if there is no such file, and a `ValueError` that names the key and its line if a key is
    unknown or a value is of the wrong type.
    """
    file = find_config(path)
    changes = parse_overrides(overrides)
    values = load_config(file)
    nodes: Any = yaml.compose(file.read_text(encoding="utf-8"), Loader=_Loader)
    source = {key.value: f"in {file}, line {key.start_mark.line + 1}" for key, _ in nodes.value}
    values = _choose_variant(values, [value for keys, value in changes if keys == ["config"]], file)
    for keys, value in changes:
        if keys != ["config"]:
            _set(values, keys, value)
            source[keys[0]] = "on the command line"
    where = {key: source.get(key, f"in {file}") for key in ("task", *values)}
    task = values.get("task")
    if task not in TASKS:
        raise ValueError(f"Expected `task` to be one of {', '.join(TASKS)}, but got {task!r} {where['task']}.")
    for key, inner in _SHORT.items():
        if isinstance(values.get(key), str):
            values[key] = {inner: values[key]}
    values = convert((RunArguments, TASKS[task].config), values, where)
    # One process or several: an accelerator is used where there is one.
    if not torch.cuda.is_available():
        values.setdefault("dataloader_pin_memory", False)
        if not torch.backends.mps.is_available():
            values.setdefault("use_cpu", True)
    own = {key: values.pop(key) for key in RunArguments.__dataclass_fields__ if key in values}
    return RunArguments(**own), TASKS[task].config(**values)


def convert(classes: Sequence[type], values: Mapping[str, Any], where: Mapping[str, str] | str) -> dict[str, Any]:
    """
    Check keys, and bring values to the types of the fields of dataclasses, with transformers' `HfArgumentParser`.
    Mappings, lists of texts and `None` stay as they are. `where` is the place of each key, or of all, for the
    `ValueError` of an unknown key or a wrong value.
    """
    hints = {key: hint for one in classes for key, hint in typing.get_type_hints(one).items()}
    known = {field.name for one in classes for field in dataclasses.fields(one) if field.init}
    tokens: dict[str, list[str]] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(unknown_key(key, known, where if isinstance(where, str) else where[key]))
        if isinstance(value, list) and value and all(isinstance(item, int | float) for item in value):
            tokens[key] = [f"--{key}", *map(_token, value)]
        elif value is not None and not isinstance(value, Mapping | list):
            tokens[key] = [f"--{key}={_token(value)}"]
    fields = [(key, hints[key], dataclasses.field(default=None)) for key in tokens]
    parser = HfArgumentParser(dataclasses.make_dataclass("Values", fields), exit_on_error=False, add_help=False)
    converted = {}
    for key, token in tokens.items():
        try:
            namespace, rest = parser.parse_known_args(token)
            message = f"expected one value, but got {values[key]}" if rest else ""
        except argparse.ArgumentError as error:
            message = error.message
        if message:
            place = where if isinstance(where, str) else where[key]
            raise ValueError(f"Wrong value of `{key}` {place}: {message}.")
        converted[key] = getattr(namespace, key)
    return {**values, **converted}


def _token(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # `1e3` is a whole number, too
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choose_variant(values: dict[str, Any], chosen: Sequence[Any], file: Path) -> dict[str, Any]:
    """The keys of a file, replaced by those of the chosen variants in their order."""
    variants = values.pop("variants", None) or {}
    if not isinstance(variants, dict) or not all(isinstance(variant, dict) for variant in variants.values()):
        raise ValueError(f"Expected `variants` in {file} to hold names, each with keys and values.")
    for name in chosen:
        if name not in variants:
            known = ", ".join(sorted(variants)) or "none"
            raise ValueError(f"`--config` must be one of the `variants` of {file} ({known}), but got {name!r}.")
        values = merge_keys(values, variants[name])
    return values


def merge_keys(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested keys into a copy; where both have a value, that of `changes` stands."""
    merged = copy.deepcopy(dict(values))
    for key, change in changes.items():
        inner = merged.get(key)
        merged[key] = merge_keys(inner, change) if isinstance(inner, dict) and isinstance(change, Mapping) else change
    return merged


def find_config(path: str) -> Path:
    """
    Find a YAML file by its path, or by the name of one that comes with this package; `FileNotFoundError` names these.
    """
    shipped = Path(__file__).parents[1] / "configs"
    for candidate in (Path(path), shipped / f"{path}.yaml"):
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(file.stem for file in shipped.glob("*.yaml")))
    raise FileNotFoundError(f"There is no file {path!r}. Give the path of a YAML file, or one of the names {names}.")


def load_config(file: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values; `ValueError` if it is none."""
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"Expected {file} to hold keys and values, such as `task: density`, but got {values!r:.60}.")
    return values


def parse_overrides(tokens: Sequence[str]) -> list[tuple[list[str], Any]]:
    """
    Read `--key value`, `--key=value`, `--flag` and `--key.inner value` into keys, split at their dots, and YAML
    values.
    """
    pairs = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--") or len(token) == 2:
            raise ValueError(f"Expected `--key value` on the command line, but got {token!r}.")
        key, separator, value = token[2:].partition("=")
        if not separator:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        try:
            parsed = yaml.load(value, Loader=_Loader)
        except yaml.YAMLError:
            parsed = value
        head, *inner = key.split(".")
        pairs.append(([head.replace("-", "_"), *inner], parsed))
    return pairs


def _set(values: dict[str, Any], keys: list[str], value: Any) -> None:
    *outer, last = keys
    for key in outer:
        inner = values.get(key)
        if isinstance(inner, str):
            inner = {_SHORT.get(key, "name"): inner}
        if inner is not None and not isinstance(inner, dict):
            raise ValueError(f"Cannot set `{'.'.join(keys)}`: `{key}` is {inner!r} and has no keys of its own.")
        values[key] = dict(inner or {})
        values = values[key]
    values[last] = value


def unknown_key(key: str, known: Iterable[str], where: str) -> str:
    """The message for an unknown key at a place such as `"in run.yaml"`, with the closest right key."""
    known = sorted(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"Did you mean `{close[0]}`?" if close else f"The keys are: {', '.join(known)}."
    return f"Unknown key `{key}` {where}. {hint}"


def check_keys(values: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise a `ValueError` that names the first unknown key of a mapping and the closest right one."""
    known = set(known)
    for key in values:
        if key not in known:
            raise ValueError(unknown_key(key, known, f"in {where}"))


__all__ = [
    "TASKS",
    "RunArguments",
    "Task",
    "check_keys",
    "convert",
    "find_config",
    "load_config",
    "merge_keys",
    "parse_overrides",
    "parse_run",
    "unknown_key",
]
