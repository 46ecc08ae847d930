"""Describe checkpoints from their small files and the headers of their weights, without loading the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,
    LocalEntryNotFoundError,
    NotASafetensorsRepoError,
    RepositoryNotFoundError,
    SafetensorsParsingError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from yaml import YAMLError


# How each model type counts.
DENSITY, RANKS, PLAIN = "density", "ranks captions", "ranks captions, untaught"
COUNTS_BY = {"clip_count_density": DENSITY, "vision_text_count_density": DENSITY, "count_clip": RANKS, "clip": PLAIN}

_SMALL_FILES = ["*.json", "*.txt", "README.md"]


class CheckpointError(ValueError):
    """A checkpoint is missing or unusable; the message names it and the reason."""


@dataclass
class CheckpointInfo:
    """The description of a checkpoint."""

    model: str
    """Its folder or its name on the Hub."""
    model_type: str
    """`model_type` of the configuration, or PEFT's type of an adapter."""
    counts_by: str | None
    """`"density"`, `"ranks captions"`, `"ranks captions, untaught"` (a plain CLIP), or `None`."""
    architectures: list[str] = field(default_factory=list)
    commit: str | None = None
    """The commit on the Hub."""
    num_parameters: int | None = None
    """`None` if no weights are available."""
    dtypes: dict[str, int] = field(default_factory=dict)
    """Number of parameters of each type."""
    missing_weights: list[str] = field(default_factory=list)
    """Tensors that are missing from the weights or have another size."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Pixels, layers, widths and tokens."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a density model's configuration."""
    has: dict[str, bool] = field(default_factory=dict)
    """Whether there are weights, a processor, a tokenizer, code and a card."""
    base_model: list[str] = field(default_factory=list)
    """From the card or the adapter's configuration."""
    license: str | None = None
    datasets: list[str] = field(default_factory=list)
    """Training data, from the card."""
    figures: list[dict[str, Any]] = field(default_factory=list)
    """Results in the card: `metric`, `value` and `dataset` each."""


def find_checkpoint(model: str, revision: str | None = None) -> Path:
    """
    Find the folder of a checkpoint's small files; those of a name on the Hub are downloaded if they are not in the
    cache.

    Raises a [`CheckpointError`] if there is no such checkpoint, or it cannot be reached.
    """
    folder = Path(model).expanduser()
    if not is_local(model):
        try:
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=_SMALL_FILES))
        except LocalEntryNotFoundError as error:
            raise CheckpointError(
                f"There is no folder {model}, and {model!r} on the Hub is neither in the cache nor within reach: "
                "without a network, give a folder."
            ) from error
        except GatedRepoError as error:
            raise CheckpointError(
                f"{model!r} is gated: ask for access on its page on the Hub, then log in with `hf auth login`."
            ) from error
        except RepositoryNotFoundError as error:
            raise CheckpointError(
                f"There is no folder {model}, and no {model!r} on the Hub; for a private one, `hf auth login` first."
            ) from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{model!r} cannot be loaded from the Hub: {error}") from error
    check_folder(folder, model)
    return folder


def is_local(model: str) -> bool:
    """Whether a model is a path on this machine: one that exists, or that is no valid name on the Hub."""
    return Path(model).expanduser().exists() or model.startswith((".", "/", "~")) or model.count("/") > 1


def check_folder(folder: Path, name: str) -> None:
    """Raise [`CheckpointError`] for a folder without a configuration, and suggest what may be meant."""
    wanted = "expected a folder with a config.json, as `save_pretrained` writes it"
    if not folder.exists():
        raise CheckpointError(f"There is no folder {name}: {wanted}, or a name on the Hub.")
    convert = " `count-clip convert --help` lists the files that can be converted."
    originals = (".ckpt", ".pt", ".pth", ".bin")
    if not folder.is_dir():
        raise CheckpointError(f"{name} is a file; {wanted}.{convert if folder.suffix in originals else ''}")
    if (folder / "config.json").is_file() or _adapter_configs(folder):
        return
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    holds = (", ".join(names[:5]) or "nothing") + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    inner = sorted(str(path.parent) for path in folder.glob("*/config.json"))
    hint = f" Did you mean {' or '.join(inner[:3])}?" if inner else ""
    if not inner and any(path.suffix in originals[:3] for path in folder.iterdir()):
        hint = convert
    raise CheckpointError(f"{name} is no checkpoint: {wanted}, but it holds {holds}.{hint}")


def check_tokenizer(folder: Path, name: str) -> None:
    """Raise [`CheckpointError`] for a checkpoint without a tokenizer: an empty one would encode all texts alike."""
    if not has_tokenizer(folder):
        raise CheckpointError(
            f"{name} has no tokenizer: expected a tokenizer.json, or a vocab.json with a merges.txt, as "
            "`processor.save_pretrained` writes it. Save its processor there."
        )


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has the files of a tokenizer."""
    return (folder / "tokenizer.json").is_file() or all((folder / x).is_file() for x in ("vocab.json", "merges.txt"))


def adapters_base(folder: Path, model: str) -> str | None:
    """
    The base model of the adapters in a folder, or `None` for a full model; [`CheckpointError`] if they name no base,
    or several.
    """
    paths = _adapter_configs(folder)
    if not paths or (folder / "config.json").is_file():
        return None
    bases = {_read_json(path).get("base_model_name_or_path") for path in paths}
    if len(bases) > 1 or not all(bases):
        named = ", ".join(sorted(str(base) for base in bases if base)) or "none"
        raise CheckpointError(
            f"The adapters in {model} name as their base: {named}. Expected one that can be loaded from there: a "
            "folder or a name on the Hub as base_model_name_or_path in adapter_config.json."
        )
    return str(bases.pop())


def describe_checkpoint(folder: Path, model: str) -> CheckpointInfo:
    """
    Describe the checkpoint with these small files; headers of missing weights are read from the Hub.

    Raises a [`CheckpointError`] if the configuration or the weights cannot be read.
    """
    adapters = _adapter_configs(folder)
    if adapters and not (folder / "config.json").is_file():
        info = _describe_adapters(adapters, model)
    else:
        info = _describe_model(folder, model)
    if folder.parent.name == "snapshots":
        info.commit = folder.name
    tensors = dict(_tensors(folder)) or _tensors_on_hub(folder, model)

    for dtype, number in tensors.values():
        info.dtypes[dtype] = info.dtypes.get(dtype, 0) + number
    info.num_parameters = sum(info.dtypes.values()) or None
    info.has = {
        "weights": bool(tensors) or any(folder.glob("pytorch_model*.bin")),
        "processor": (folder / "processor_config.json").is_file() or (folder / "preprocessor_config.json").is_file(),
        "tokenizer": has_tokenizer(folder),
        "code": any(folder.glob("modeling_*.py")),
        "card": (folder / "README.md").is_file(),
    }
    if info.counts_by in (DENSITY, RANKS) and tensors and not adapters:
        expected = _expected_weights(folder)
        info.missing_weights = sorted(name for name in expected if tensors.get(name, ("", 0))[1] != expected[name])
    _read_card(folder, info)
    return info


def _adapter_configs(folder: Path) -> list[Path]:
    own = folder / "adapter_config.json"
    return [own] if own.is_file() else sorted(folder.glob("*/adapter_config.json"))


def _describe_adapters(paths: list[Path], model: str) -> CheckpointInfo:
    configs = [_read_json(path) for path in paths]
    types = " and ".join(str(config.get("peft_type")) for config in configs)
    bases = dict.fromkeys(config.get("base_model_name_or_path") for config in configs)
    return CheckpointInfo(model, f"adapter ({types})", None, base_model=[str(base) for base in bases if base])


def _describe_model(folder: Path, model: str) -> CheckpointInfo:
    from transformers import AutoConfig

    written = _read_json(folder / "config.json")
    model_type = str(written.get("model_type"))
    architectures = list(map(str, written.get("architectures") or []))
    if model_type not in COUNTS_BY:
        return CheckpointInfo(model, model_type, None, architectures)
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise CheckpointError(f"The configuration of {model} cannot be used: {error}") from error
    if model_type == "vision_text_count_density":
        parts = {
            "backbone": config.backbone_config.model_type,
            "strides": ", ".join(map(str, config.feature_strides)),
            "text encoder": config.text_config.model_type,
        }
        sizes = {"window_size": config.window_size, "text_tokens": config.max_text_length}
        return CheckpointInfo(model, model_type, DENSITY, architectures, sizes=sizes, options=parts)
    vision, text = config.vision_config, config.text_config
    sizes = {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "vision_layers": vision.num_hidden_layers,
        "vision_width": vision.hidden_size,
        "text_layers": text.num_hidden_layers,
        "text_width": text.hidden_size,
        "text_tokens": text.max_position_embeddings,
        "projection_dim": config.projection_dim,
    }
    options = {}
    if COUNTS_BY[model_type] == DENSITY:
        names = ("window_size", "num_visual_prompts", "visual_prompt_depth", "num_context_tokens")
        sizes |= {name: getattr(config, name) for name in names}
        options = {name: getattr(config, name) for name in ("interaction", "density_activation", "text_readout")}
    return CheckpointInfo(model, model_type, COUNTS_BY[model_type], architectures, sizes=sizes, options=options)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Expected a JSON object in {path}, but got {type(content).__name__}.")
    return content


def _tensors(folder: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Name, type and size of every tensor in the safetensors files of a folder."""
    from count_clip.trainers.hub.card import tensors_in

    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*/adapter_model.safetensors")]):
        try:
            yield from ((name, (dtype, size)) for name, dtype, size in tensors_in(path))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"The weights {path} cannot be read: {error}") from error


def _tensors_on_hub(folder: Path, model: str) -> dict[str, tuple[str, int]]:
    """The same from the Hub, for weights that are not downloaded; empty if unavailable."""
    from count_clip.trainers.hub.card import DTYPE_NAMES

    if folder.parent.name != "snapshots":
        return {}
    try:
        metadata = get_safetensors_metadata(model, revision=folder.name)
    except (OSError, ValueError, HTTPError, NotASafetensorsRepoError, SafetensorsParsingError):
        return {}
    return {
        name: (DTYPE_NAMES.get(tensor.dtype, tensor.dtype), tensor.parameter_count)
        for file in metadata.files_metadata.values()
        for name, tensor in file.tensors.items()
    }


def _expected_weights(folder: Path) -> dict[str, int]:
    """Name and size of every tensor of a model with this configuration."""
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    return {name: tensor.numel() for name, tensor in model.state_dict().items()}


def _read_card(folder: Path, info: CheckpointInfo) -> None:
    """Add the metadata of the card."""
    path = folder / "README.md"
    if not path.is_file():
        return
    try:
        data = ModelCard.load(path, ignore_metadata_errors=True).data
    except (OSError, ValueError, YAMLError):  # a card without valid metadata
        return
    info.license = data.license if isinstance(data.license, str) else None
    info.datasets = _strings(data.datasets)
    info.base_model = info.base_model or _strings(data.base_model)
    info.figures = [
        {"metric": one.metric_name or one.metric_type, "value": one.metric_value, "dataset": _dataset(one)}
        for one in data.eval_results or []
    ]


def _dataset(result: EvalResult) -> str:
    """The data set of a result, with its split."""
    name, split = result.dataset_name, result.dataset_split
    return name if split is None or split in name else f"{name} ({split})"


def _strings(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value or []]


__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "adapters_base",
    "check_folder",
    "describe_checkpoint",
    "find_checkpoint",
    "is_local",
]
