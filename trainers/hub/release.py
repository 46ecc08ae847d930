"""
Assembles the files of a release: weights as safetensors in the chosen type, configuration, processor, code for people
without this package, and the card. Checkpoints, optimizer states, logs and pickles stay behind.
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
from transformers import AutoModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from .card import CARD, CardError, adapters_in, checkpoint_type, load_card, read_json, write_model_card
from .remote_code import write_remote_code


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_TAKEN = (
    *("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "adapter_config.json", CARD, "LICENSE*", "NOTICE*"),
    *("*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.svg"),
)
# Other files of a training, and files that are generated again.
_EXPECTED_TO_STAY = (
    *("checkpoint-*", "runs", "training_args.bin", "trainer_state.json", "results.json", "*_results.json"),
    *("*.py", "__pycache__", ".*", "*.safetensors", SAFE_WEIGHTS_INDEX_NAME, "pytorch_model*.bin"),
    "adapter_model*.bin",
)
# Files of a repository that a push deletes where the new state does not have them.
STALE = (
    *("model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin"),
    *("adapter_model.safetensors", "adapter_config.json", "*/adapter_config.json", "*/adapter_model.safetensors"),
)


class ReleaseError(ValueError):
    """A folder cannot be pushed as it is. The message names the reason and the remedy."""


@dataclass
class Release:
    """The files of a release."""

    model_type: str
    """A type of models, `"adapter"` or `"processor"`."""
    folder: Path
    files: dict[str, int] = field(default_factory=dict)
    """Paths in the repository, and bytes."""
    left_out: list[str] = field(default_factory=list)
    """Files of the source that stay behind and may have been meant to go."""
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
    Assemble the files of a release of a model, a processor or adapters in `target`, an empty folder; the source is not
    changed.

    Weights that stay as they are become links; with `dtype` (`"float32"`, `"bfloat16"` or `"float16"`) they are
    converted. `repo_id` is for the card, `base_model` the name on the Hub of the base that adapters are loaded on;
    other arguments are those of [`write_model_card`]. Raises a [`ReleaseError`] if there are no weights, their values
    do not fit the chosen type, or the base of adapters is a folder of this machine, and a [`CardError`] if it is no
    such folder, or a file in it cannot be read.
    """
    source, place = Path(folder), Path(target)
    model_type = checkpoint_type(source)
    load_card(source)  # an unreadable one is reported before the work
    adapters = adapters_in(source) if model_type == "adapter" else {}
    _copy_documents(source, place)
    for name, part in adapters.items():
        _copy_documents(part, place / name)
        _write_weights(part, place / name, dtype, is_adapter=True)
        _set_base(place / name / "adapter_config.json", base_model)
        if name:
            _write_inner_card(place / name)
    if adapters:
        base_model = read_json(place / next(iter(adapters)) / "adapter_config.json")["base_model_name_or_path"]
    elif model_type != "processor":
        _write_weights(source, place, dtype, is_adapter=False)
    if dtype is not None and (place / "config.json").is_file():
        _set_dtype(place / "config.json", dtype)
    write_remote_code(place)
    path = write_model_card(place, repo_id, base_model=base_model, **card)
    license = load_card(path.parent).data.license
    files = {path.relative_to(place).as_posix(): path.stat().st_size for path in sorted(place.rglob("*"))}
    known = (*_TAKEN, *_EXPECTED_TO_STAY, *adapters)
    return Release(
        model_type,
        place,
        {path: size for path, size in files.items() if (place / path).is_file()},
        [
            path.name + "/" * path.is_dir()
            for path in sorted(source.iterdir())
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in known)
        ],
        license if isinstance(license, str) else None,
    )


def _copy_documents(source: Path, target: Path) -> None:
    """Copy configurations, card and images."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in _TAKEN):
            shutil.copyfile(path, target / path.name)


def _write_weights(source: Path, target: Path, dtype: str | None, is_adapter: bool) -> None:
    """Link the weights, or write them in another type; the index of several files is copied."""
    files = sorted(source.glob("*.safetensors"))
    if not files and any(source.glob("adapter_model*.bin" if is_adapter else "pytorch_model*.bin")):
        _convert_pickles(source, target, is_adapter)
        files = sorted(target.glob("*.safetensors"))
    if not files:
        raise ReleaseError(
            f"Expected weights in {source} (safetensors), but there are none. A run that was stopped early has them "
            "in its last checkpoint-... folder."
        )
    total = 0
    for path in files:
        if dtype is not None:
            total += _cast(path, target / path.name, DTYPES[dtype])
        elif path.parent != target:
            (target / path.name).symlink_to(path.resolve())
    index = source / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        content = read_json(index)
        missing = sorted(set(content.get("weight_map", {}).values()) - {path.name for path in files})
        if missing:
            raise ReleaseError(f"{index} names {', '.join(missing)}, which is missing. Save the model again.")
        if dtype is not None:
            content.setdefault("metadata", {})["total_size"] = total
        _write_json(target / index.name, content)


def _convert_pickles(source: Path, target: Path, is_adapter: bool) -> None:
    if is_adapter:
        from peft.utils import load_peft_weights

        state = {name: tensor.contiguous() for name, tensor in load_peft_weights(str(source), "cpu").items()}
        save_file(state, target / "adapter_model.safetensors", metadata={"format": "pt"})
        return
    before = {path: path.read_bytes() for path in target.glob("*.json")}
    AutoModel.from_pretrained(source).save_pretrained(target)
    for path, content in before.items():
        path.write_bytes(content)


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
    # Under another name first: the source may be the target.
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
    _write_json(path, config)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _set_base(path: Path, base_model: str | None) -> None:
    """Have adapters name a base that others can load."""
    config = read_json(path)
    written = config.get("base_model_name_or_path")
    base = base_model or written
    if not base or _is_local(base):
        raise ReleaseError(
            f"The adapters belong to {f'the folder {base}' if base else 'a base without a name'}, which is not "
            "on the Hub. Push the base first, then name it: --base-model ORG/NAME."
        )
    config["base_model_name_or_path"] = base
    if base != written:
        config["revision"] = None
    tokenizer = config.get("tokenizer_name_or_path")
    if tokenizer and (_is_local(tokenizer) or tokenizer == written):
        config["tokenizer_name_or_path"] = base
    _write_json(path, config)


def _write_inner_card(folder: Path) -> None:
    """The card of one adapter of several, which also loads alone."""
    from peft import PeftConfig

    from count_clip.modeling.prompt_tuning_peft import write_card

    write_card(folder, [PeftConfig.from_pretrained(str(folder))])


def _is_local(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).expanduser().exists()


__all__ = ["DTYPES", "STALE", "CardError", "Release", "ReleaseError", "prepare_release"]
