"""
Puts together what goes to the Hub from what lies in a folder: weights as safetensors in the type asked for, the
configuration, the processor, the code for readers without this package, and the card. Nothing else goes along: no
checkpoints, optimizer states, logs or pickles.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from .card import CARD, CardError, check_metadata, kind_of, read_json, write_model_card
from .card_texts import adapters_in
from .remote_code import write_remote_code


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_CONFIGS = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "adapter_config.json",
)
_DOCUMENTS = (CARD, "LICENSE*", "NOTICE*", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.svg")
_PICKLES = ("pytorch_model*.bin", "adapter_model*.bin")
# Not worth a word: what a training leaves beside its result, and what belongs to the machine.
_EXPECTED_TO_STAY = (
    "checkpoint-*",
    "runs",
    "training_args.bin",
    "trainer_state.json",
    "results.json",
    "*_results.json",
)

# Files in a repository that go when a new state does not have them: weights in other pieces.
STALE = (
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "adapter_config.json",
    "*/adapter_config.json",
    "*/adapter_model.safetensors",
)


class ReleaseError(ValueError):
    """A folder cannot go to the Hub as it is. The message says why and what to do."""


@dataclass
class Release:
    """What goes to the Hub."""

    kind: str
    """`"adapter"`, a type of models, or `"processor"`."""
    folder: Path
    files: dict[str, int] = field(default_factory=dict)
    """Paths in the repository, and bytes."""
    left_out: list[str] = field(default_factory=list)
    """What lay in the folder and does not go along, without what a training is known to leave."""
    license: str | None = None


def prepare_release(
    folder: str | os.PathLike[str],
    target: str | os.PathLike[str],
    repo_id: str | None = None,
    *,
    dtype: str | None = None,
    base_model: str | None = None,
    **card: Any,
) -> Release:
    """
    Put together what goes to the Hub.

    Args:
        folder (`str` or `os.PathLike`):
            A model, a processor or adapters, as `save_pretrained` or a training wrote them. It is not changed.
        target (`str` or `os.PathLike`):
            An empty folder for the result. Weights that stay as they are become links.
        repo_id (`str`, *optional*):
            `"organisation/name"`, for the card.
        dtype (`str`, *optional*):
            `"float32"`, `"bfloat16"` or `"float16"`; by default the weights stay as they are.
        base_model (`str`, *optional*):
            The name on the Hub of what it was made from; adapters are loaded on it.
        card (`Any`, *optional*):
            More arguments of [`write_model_card`].

    Returns:
        [`Release`].

    Raises:
        ReleaseError: If there are no weights, they do not fit the type asked for, or adapters belong to a folder of
            this machine.
        CardError: If it is no such folder, or a file in it cannot be read.
    """
    source, place = Path(folder), Path(target)
    kind = kind_of(source)
    check_metadata(source)
    place.mkdir(parents=True, exist_ok=True)
    parts = adapters_in(source) if kind == "adapter" else {"": source}
    taken: set[Path] = set()
    for name, part in parts.items():
        (place / name).mkdir(exist_ok=True)
        taken |= _take_documents(part, place / name)
        if kind != "processor":
            taken |= _take_weights(part, place / name, kind, None if dtype is None else DTYPES[dtype])
    if "" not in parts:
        taken |= _take_documents(source, place)
    if kind == "adapter":
        for name in parts:
            _name_base(place / name / "adapter_config.json", base_model)
            if name:
                _write_inner_card(place / name)
    if dtype is not None and (place / "config.json").is_file():
        _set_dtype(place / "config.json", dtype)
    write_remote_code(place)
    card_path = write_model_card(place, repo_id, base_model=_hub_base(place, kind, base_model), **card)
    license = _license(card_path)
    files = {path.relative_to(place).as_posix(): path.stat().st_size for path in _walk(place)}
    return Release(kind, place, files, _left_out(source, taken, parts), license)


def _take_documents(source: Path, target: Path) -> set[Path]:
    """Copy configurations, card and images."""
    taken = set()
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in (*_CONFIGS, *_DOCUMENTS)):
            shutil.copyfile(path, target / path.name)
            taken.add(path)
    return taken


def _take_weights(source: Path, target: Path, kind: str, dtype: torch.dtype | None) -> set[Path]:
    """Link the weights, or write them in another type; an index of several files goes along."""
    files = sorted(source.glob("*.safetensors"))
    pickles = [path for pattern in _PICKLES for path in sorted(source.glob(pattern))]
    if not files and not pickles:
        raise ReleaseError(
            f"Expected weights in {source} (safetensors), but there are none. A run that was stopped early has them "
            "in its last checkpoint-... folder."
        )
    if not files:
        _convert_pickles(source, target, kind)
        files = sorted(target.glob("*.safetensors"))
    total = 0
    for path in files:
        if dtype is None and path.parent != target:
            _link(path, target / path.name)
        elif dtype is not None:
            total += _cast(path, target / path.name, dtype)
    index = source / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        content = read_json(index)
        missing = sorted(set(content.get("weight_map", {}).values()) - {path.name for path in files})
        if missing:
            raise ReleaseError(f"{index} names {', '.join(missing)}, but that is not there. Save the model again.")
        if dtype is not None:
            content.setdefault("metadata", {})["total_size"] = total
        (target / index.name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return {*files, *pickles, index}


def _convert_pickles(source: Path, target: Path, kind: str) -> None:
    if kind == "adapter":
        state = torch.load(source / "adapter_model.bin", map_location="cpu", weights_only=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in state.items()},
            target / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        return
    from transformers import AutoModel

    before = {path.name: path.read_bytes() for path in target.glob("*.json")}
    AutoModel.from_pretrained(source).save_pretrained(target)
    for name, content in before.items():
        (target / name).write_bytes(content)


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _cast(source: Path, target: Path, dtype: torch.dtype) -> int:
    """Write a file of weights in another type; returns the bytes of its tensors."""
    tensors = {}
    with safe_open(source, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dictionary)
            tensor = file.get_tensor(name)
            tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
            if tensor.is_floating_point() and tensor.isfinite().all() and not tensors[name].isfinite().all():
                raise ReleaseError(
                    f"{name} in {source} has values up to {float(tensor.abs().max()):.3g}, which {dtype} cannot hold. "
                    "Use bfloat16 or float32."
                )
    # Beside the file first: it may be read from where it is to be written.
    temporary = target.with_suffix(".writing")
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, target)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _set_dtype(path: Path, dtype: str) -> None:
    """Set the type of the weights in a model's configuration."""
    config = read_json(path)
    for entry in (config, config.get("text_config"), config.get("vision_config")):
        if isinstance(entry, dict) and (entry is config or "dtype" in entry):
            entry["dtype"] = dtype
    _write_config(path, config)


def _write_config(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _name_base(path: Path, base_model: str | None) -> None:
    """Have adapters name a base that others can load."""
    config = read_json(path)
    written = config.get("base_model_name_or_path")
    base = base_model or written
    if not base or _is_local(base):
        raise ReleaseError(
            f"The adapters belong to {f'the folder {base}' if base else 'a base without a name'}, which nobody else "
            "has. Push the base first, and then say where it is: --base-model ORG/NAME."
        )
    config["base_model_name_or_path"] = base
    if base != written:
        config["revision"] = None
    tokenizer = config.get("tokenizer_name_or_path")
    if tokenizer and (_is_local(tokenizer) or tokenizer == written):
        config["tokenizer_name_or_path"] = base
    _write_config(path, config)


def _write_inner_card(folder: Path) -> None:
    """The card of one adapter of several, which loads by itself too; it names the base as PEFT left it."""
    from peft import PeftConfig

    from count_clip.modeling.prompt_tuning_card import write_card

    write_card(folder, [PeftConfig.from_pretrained(str(folder))])


def _is_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).expanduser().exists()


def _hub_base(folder: Path, kind: str, base_model: str | None) -> str | None:
    if kind != "adapter":
        return base_model
    first = next(iter(adapters_in(folder).values()))
    return str(read_json(first / "adapter_config.json")["base_model_name_or_path"])


def _license(card: Path) -> str | None:
    from huggingface_hub import ModelCard

    found = ModelCard.load(card, ignore_metadata_errors=True).data.license
    return found if isinstance(found, str) else None


def _walk(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _left_out(source: Path, taken: set[Path], parts: Mapping[str, Path]) -> list[str]:
    """Names of what does not go along and may have been meant to."""
    names = []
    for path in sorted(source.iterdir()):
        is_code = path.suffix == ".py" or path.name == "__pycache__"
        if path in taken or path.name.startswith(".") or is_code or path in parts.values():
            continue
        if not any(fnmatch.fnmatch(path.name, pattern) for pattern in _EXPECTED_TO_STAY):
            names.append(path.name + "/" * path.is_dir())
    return names


__all__ = ["DTYPES", "STALE", "CardError", "Release", "ReleaseError", "prepare_release"]
