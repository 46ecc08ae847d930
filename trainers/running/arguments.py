"""What a run is told: a YAML file and the command line, checked key by key."""

from __future__ import annotations

import copy
import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import TrainingArguments

from ..counting.config import CountingConfig
from ..density.config import DensityConfig
from .keys import unknown_key


CONFIGS: dict[str, type[TrainingArguments]] = {"counting": CountingConfig, "density": DensityConfig}


@dataclasses.dataclass
class RunArguments:
    """
    What `run.py` is told besides the arguments of the training.

    Args:
        task (`str`): `"counting"` or `"density"`.
        model_name_or_path (`str`, *optional*): A checkpoint of the task's model; for counting also of a CLIP.
        clip_name_or_path (`str`, *optional*): A CLIP to start a density model from.
        density_name_or_path (`str`, *optional*): A density model to start a counting model's towers from.
        scratch (`dict`, *optional*): The size of a new model: `vision`, `text`, `projection_dim`, `vocab_size`.
        model_config (`dict`, *optional*): Fields of the model's configuration to change.
        attn_implementation (`str`, *optional*): How attention is computed while training, as `transformers` names it:
            `sdpa` (the default), `eager` (on CPUs with bfloat16 up to twice as fast), `flash_attention_2`.
        image_processor (`dict`, *optional*): Options of the density model's image processor to change.
        peft (`dict`, `list[dict]` or `str`, *optional*): The adapter or adapters that train in the place of the model:
            `type` (`visual_prompt`, `context_prompt`, `lora` or another method of PEFT) and its options.
        dataset (`dict`): The training rows: `name` and what belongs to it; or `parts`, a list of such.
        eval_dataset (`dict`, *optional*): The rows to choose by; what it does not say is as in `dataset`.
        test_dataset (`dict`, *optional*): The rows to report, likewise.
        early_stopping_patience (`int`, *optional*): Stop after so many evaluations without a better one.
        evaluate_first (`bool`, *optional*, defaults to `False`): Also report what the model could do before.
        license (`str`, *optional*): The licence of the result, for its card, as the Hub names it: `apache-2.0`.
        hub_dtype (`str`, *optional*): With `push_to_hub`, the type of the weights that are pushed: `float32`,
            `bfloat16` or `float16`; by default that in which they were trained.

    Raises:
        ValueError: If `hub_dtype` is another one.
    """

    task: str
    model_name_or_path: str | None = None
    clip_name_or_path: str | None = None
    density_name_or_path: str | None = None
    scratch: dict[str, Any] | None = None
    model_config: dict[str, Any] | None = None
    attn_implementation: str | None = None
    image_processor: dict[str, Any] | None = None
    peft: dict[str, Any] | list[dict[str, Any]] | None = None
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


# Keys whose value may be a text alone, and what it stands for.
_SHORT = {"dataset": "name", "peft": "type"}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers and booleans: `1e-5` is a number, and `no` is a word, as in `save_strategy: no`."""

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
    Read a run's YAML file, and change it as the command line says.

    Args:
        path (`str`): The file, or the name of one of the files that come with this package.
        overrides (`Sequence[str]`): `--key value`, `--key=value`, `--key` alone for true, and `--key.inner value`.
            `--config name` chooses one of the file's `variants`, whose keys take the place of the file's own before
            the other overrides do.

    Returns:
        The run's own arguments and those of its trainer.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is unknown or a value is of the wrong type. The message names the file and the key.
    """
    file = find_config(path)
    changes = parse_overrides(overrides)
    values = _choose_variant(load_config(file), [value for keys, value in changes if keys == ["config"]], file)
    source = dict.fromkeys(values, f"in {file}")
    for keys, value in changes:
        if keys == ["config"]:
            continue
        _set(values, keys, value)
        source[keys[0]] = "on the command line"
    task = values.get("task")
    if task not in CONFIGS:
        raise ValueError(
            f"Expected `task` to be one of {', '.join(CONFIGS)}, but got {task!r} {source.get('task', f'in {file}')}."
        )
    config_class = CONFIGS[task]
    hints = {**typing.get_type_hints(config_class), **typing.get_type_hints(RunArguments)}
    own = {field.name for field in dataclasses.fields(RunArguments)}
    known = own | {field.name for field in dataclasses.fields(config_class) if field.init}
    for key in values:
        if key not in known:
            raise ValueError(unknown_key(key, known, source[key]))
    for key, inner in _SHORT.items():
        if isinstance(values.get(key), str):
            values[key] = {inner: values[key]}
    for name, value in values.items():
        values[name] = convert(value, hints[name], f"`{name}` {source[name]}")
    # An accelerator is used where there is one; several processes on a machine without need to be told so.
    if not torch.cuda.is_available():
        values.setdefault("dataloader_pin_memory", False)
        if not torch.backends.mps.is_available():
            values.setdefault("use_cpu", True)
    run = RunArguments(**{name: value for name, value in values.items() if name in own})
    return run, config_class(**{name: value for name, value in values.items() if name not in own})


def _choose_variant(values: dict[str, Any], chosen: Sequence[Any], file: Path) -> dict[str, Any]:
    """The keys of a file with those of the variants that were asked for, in their order."""
    variants = values.pop("variants", None) or {}
    if not isinstance(variants, dict) or not all(isinstance(variant, dict) for variant in variants.values()):
        raise ValueError(f"Expected `variants` in {file} to hold names and for each of them keys and values.")
    for name in chosen:
        if name not in variants:
            known = ", ".join(sorted(variants)) or "none"
            raise ValueError(f"`--config` must be one of the `variants` of {file} ({known}), but got {name!r}.")
        values = merge_keys(values, variants[name])
    return values


def merge_keys(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """
    Change some keys, and of keys that hold further keys only those that are named.

    Args:
        values (`Mapping[str, Any]`): As a YAML file holds them; left as they are.
        changes (`Mapping[str, Any]`): Those to change.

    Returns:
        `dict[str, Any]`: The values with the changes.
    """
    merged = copy.deepcopy(dict(values))
    for key, change in changes.items():
        inner = merged.get(key)
        merged[key] = merge_keys(inner, change) if isinstance(inner, dict) and isinstance(change, Mapping) else change
    return merged


def find_config(path: str) -> Path:
    """
    The file of a run.

    Args:
        path (`str`): A path, or the name of one of the files that come with this package, without `.yaml`.

    Returns:
        `Path`.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    shipped = Path(__file__).parents[1] / "configs"
    for candidate in (Path(path), shipped / f"{path}.yaml"):
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(file.stem for file in shipped.glob("*.yaml")))
    raise FileNotFoundError(
        f"There is no file {path!r}. Give the path of a YAML file, or one of these names: {names}."
    )


def load_config(file: Path) -> dict[str, Any]:
    """
    Read a YAML file.

    Args:
        file (`Path`): The file.

    Returns:
        `dict`: Its keys and values.

    Raises:
        ValueError: If it is not YAML, or not a mapping.
    """
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"Expected {file} to hold keys and values, such as `task: density`, but got {values!r:.60}.")
    return values


def parse_overrides(tokens: Sequence[str]) -> list[tuple[list[str], Any]]:
    """
    Read the part of a command line that changes keys.

    Args:
        tokens (`Sequence[str]`): `--key value`, `--key=value`, `--flag`, `--key.inner value`; values are YAML.

    Returns:
        `list` of pairs: the key, split at its dots, and its value.

    Raises:
        ValueError: If a token is neither a key nor the value of one.
    """
    pairs = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--") or len(token) == 2:
            raise ValueError(f"Expected `--key value` on the command line, but got {token!r}.")
        key, separator, value = token[2:].partition("=")
        if not separator:
            # A value may be a negative number, which begins as a key does.
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


_MISMATCH = object()
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def convert(value: Any, hint: Any, what: str) -> Any:
    """
    Bring a value to the type of its field.

    Args:
        value: What the file or the command line says.
        hint: The annotation of the field.
        what (`str`): The field, for the message.

    Returns:
        The value, as the field wants it.

    Raises:
        ValueError: If it cannot be one.
    """
    converted = _convert(value, hint)
    if converted is _MISMATCH:
        raise ValueError(f"Expected {what} to be {_describe(hint)}, but got {value!r}.")
    return converted


def _convert(value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments)
    if hint is types.NoneType:
        return None if value is None else _MISMATCH
    if origin is typing.Literal:
        return value if value in arguments else _MISMATCH
    if hint is dict or origin is dict:
        return dict(value) if isinstance(value, Mapping) else _MISMATCH
    if hint is list or origin is list:
        if not isinstance(value, list | tuple):
            return _MISMATCH
        items = [_convert(item, arguments[0] if arguments else Any) for item in value]
        return _MISMATCH if _MISMATCH in items else items
    scalar = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}.get(hint)
    if scalar is not None:
        return scalar(value)
    return value if isinstance(hint, type) and isinstance(value, hint) else _MISMATCH


def _convert_union(value: Any, members: tuple[Any, ...]) -> Any:
    for member in members:
        # What is right already stays as it is.
        if member is type(value):
            return value
    for member in members:
        converted = _convert(value, member)
        if converted is not _MISMATCH:
            return converted
    return _MISMATCH


def _to_bool(value: Any) -> Any:
    text = str(value).lower()
    if isinstance(value, bool) or (isinstance(value, str | int) and text in _TRUE + _FALSE):
        return text in _TRUE
    return _MISMATCH


def _to_int(value: Any) -> Any:
    number = _to_float(value)
    return int(number) if number is not _MISMATCH and float(number).is_integer() else _MISMATCH


def _to_float(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return _MISMATCH
    try:
        return float(value)
    except ValueError:
        return _MISMATCH


def _to_str(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else _MISMATCH


def _describe(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(member) for member in arguments)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", types.NoneType: "nothing"}
    if hint in names:
        return names[hint]
    if hint is dict or typing.get_origin(hint) is dict:
        return "keys and values"
    if hint is list or typing.get_origin(hint) is list:
        return f"a list ({_describe(arguments[0])} each)" if arguments else "a list"
    return getattr(hint, "__name__", str(hint))


__all__ = ["CONFIGS", "RunArguments", "convert", "find_config", "load_config", "merge_keys", "parse_run"]
