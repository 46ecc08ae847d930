"""Loading of models and data."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CommandError
from .output import quiet_loading, readable


if TYPE_CHECKING:
    import torch


# Matches "imagenet-1k" and "org/name", not "images/", "./data" or "rows.jsonl".
_HUB_NAME = re.compile(r"(?:[\w-]+(?:\.[\w-]+)*/)?[\w-]+")


# The model types that count by a density map.
DENSITY_TYPES = ("clip_count_density", "vision_text_count_density")


def find_device(name: str) -> torch.device:
    """The device of `--device`."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise CommandError(f"--device {name} cannot be used here: {reason}") from error
    return device


def load_model(options: argparse.Namespace, model_types: Sequence[str], wanted: str) -> tuple[Any, Any]:
    """
    Load a model, or adapters on their base, in evaluation mode on its device and optimised for CPUs, and its
    processor.

    The type is checked before the weights are read; `wanted` describes the valid `model_types` in the message. Raises
    a `CommandError` if the model is missing, has another type, or cannot be loaded.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoProcessor

    from count_clip.modeling.optimization_cpu import optimize_for_cpu

    from ...checkpoints import CheckpointError, adapters_base, check_tokenizer, find_checkpoint, is_local

    name = str(Path(options.model).expanduser()) if is_local(options.model) else options.model
    dtype, revision = getattr(torch, options.dtype), getattr(options, "revision", None)
    try:
        folder = find_checkpoint(options.model, revision)
        base = adapters_base(folder, options.model)
    except CheckpointError as error:
        raise CommandError(str(error)) from error
    device = find_device(options.device)
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(base or name, revision=None if base else revision)
            _check_model_type(options.model, type(config).model_type, model_types, wanted)
            if base is None:
                check_tokenizer(folder, options.model)
                options_of_loading = {"revision": revision, "dtype": dtype, "output_loading_info": True}
                model, report = AutoModel.from_pretrained(name, **options_of_loading)
                _check_weights(options.model, report["missing_keys"])
                processor = AutoProcessor.from_pretrained(name, revision=revision)
            else:
                model, processor = _load_adapted(name, folder, base, revision)
    except CheckpointError as error:
        raise CommandError(str(error)) from error
    except (OSError, ValueError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise CommandError(f"cannot load the model {options.model}: {error}") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise CommandError(
            f"cannot load the model {options.model}: the sizes of its weights differ from its config.json. Save the "
            "model again."
        ) from error
    # In other precisions and on other devices, the replaced modules run the original code.
    return optimize_for_cpu(model.to(device, dtype).eval()), processor


def _check_weights(model: str, missing: Collection[str]) -> None:
    """Raise `CommandError` for missing weights, which transformers would initialise at random."""
    if missing:
        names = sorted(missing)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise CommandError(
            f"cannot load the model {model}: its weights lack {', '.join(names[:3])}{more}. Save the model again."
        )


def check_texts(texts: Iterable[str]) -> None:
    """Raise `CommandError` for texts that are not valid UTF-8."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CommandError(f"the text {readable(text)} is not in UTF-8.") from error


def _load_adapted(name: str, folder: Path, base: str, revision: str | None) -> tuple[Any, Any]:
    """Adapters on their base, and the processor of the training run."""
    from transformers import AutoProcessor

    from count_clip.modeling.prompt_tuning import load_adapted_model

    # A training run saves the processor with the length of the learned context.
    own = any((folder / file).is_file() for file in ("processor_config.json", "preprocessor_config.json"))
    processor = AutoProcessor.from_pretrained(name if own else base, revision=revision if own else None)
    return load_adapted_model(name, revision=revision).get_base_model(), processor


def _check_model_type(model: str, model_type: str, model_types: Sequence[str], wanted: str) -> None:
    if model_type not in model_types:
        hint = " Use `count-clip evaluate countbench`." if model_type in ("count_clip", "clip") else ""
        hint = " Use `count` or `evaluate density`." if model_type in DENSITY_TYPES else hint
        raise CommandError(f"{model} has the type {model_type!r}; expected {wanted}.{hint}")


def load_density_model(options: argparse.Namespace) -> tuple[Any, Any]:
    """A density model and its processor."""
    return load_model(options, DENSITY_TYPES, f"a density model ({' or '.join(map(repr, DENSITY_TYPES))})")


def load_clip(options: argparse.Namespace) -> tuple[Any, Any]:
    """A CLIP, count-aware or not, and its processor."""
    return load_model(options, ("count_clip", "clip"), "a CLIP ('count_clip' or 'clip')")


@dataclass(frozen=True)
class Data:
    """The rows of an evaluation."""

    name: str
    config: str | None
    split: str | None
    rows: Any
    """With undecoded images."""
    total: int
    """The number of rows without `--limit`."""

    def describe(self, options: argparse.Namespace) -> dict[str, Any]:
        """For the record of the run."""
        from count_clip.evaluation.records.run_record import describe_data

        about = describe_data(self.name, self.rows, self.config, self.split, getattr(options, "data_revision", None))
        return {**about, "total": self.total}

    @property
    def where(self) -> str:
        """The name for headings."""
        return f"{self.name} ({self.split})" if self.split else self.name


def load_data(
    options: argparse.Namespace, split: str, needed: Sequence[str] = (), image_column: str = "image"
) -> Data:
    """
    Load the rows of an evaluation, at most `--limit`, with undecoded images.

    Raises a `CommandError` if the data is missing, cannot be loaded, or lacks a `needed` column.
    """
    if options.data == "countscenes":
        config = scenes_config(options)
        rows = count_scenes(options, config, split, options.limit)
        check_columns("--config " + config, rows.column_names, needed)
        total = len(rows) if options.limit is None else len(count_scenes(options, config, split, None))
        return Data(options.data, config, split, rows, total)
    rows = _load_set(options, split, image_column)
    check_columns(options.data, rows.column_names, needed)
    limited = rows if options.limit is None else rows.select(range(min(options.limit, len(rows))))
    return Data(options.data, getattr(options, "config", None), split, limited, len(rows))


def scenes_config(options: argparse.Namespace) -> str:
    """The configuration of countscenes."""
    return str(options.config or options.scenes_config)


def _load_set(options: argparse.Namespace, split: str, image_column: str) -> Any:
    """A local data set, a published set by its name, or one from the Hub."""
    from datasets.exceptions import DatasetsError

    from count_clip.datasets_scripts.registration import DATASETS
    from count_clip.evaluation.benchmarks.local_data import load_local, load_named

    place = Path(options.data).expanduser()
    arguments: dict[str, Any] = {"revision": getattr(options, "data_revision", None)}
    name, data_dir = options.data, getattr(options, "data_dir", None)
    if place.is_file() and place.name == "CountBench.json":
        place = place.parent
    if (place / "CountBench.json").is_file():
        name, data_dir = "countbench", str(place)
    is_local = name not in DATASETS and (place.exists() or not _HUB_NAME.fullmatch(name))
    try:
        if is_local:
            return load_local(name, split, image_column=image_column)
        if name == "countbench":
            # The builder resolves relative paths from the folder of its data.
            images = getattr(options, "images", None)
            arguments["images"] = None if images is None else str(Path(images).expanduser().resolve())
            # Rows without an image are listed among those that could not be measured.
            arguments["missing"] = "keep"
        if name in DATASETS:
            arguments |= {"data_dir": data_dir}
            del arguments["revision"]
        return load_named(name, options.config, split, image_column, **arguments)
    except (ValueError, OSError, DatasetsError, ImportError) as error:
        hint = "" if is_local or name in DATASETS else f"There is no data set {name} on this machine. "
        remedy = " Name one with --split." if str(error).startswith("Unknown split") else ""
        raise CommandError(f"{hint}{error}{remedy}") from error


def count_scenes(options: argparse.Namespace, config: str, split: str, num_scenes: int | None) -> Any:
    """Rendered scenes as a sequence of rows."""
    from count_clip.datasets_scripts.countscenes.builder import CountScenes

    sizes = {} if num_scenes is None else {"num_scenes": num_scenes}
    looks = {"image_size": options.image_size, "seed": options.seed, "objects": options.objects}
    try:
        return CountScenes(split, config=config, **looks, **sizes)
    except (ValueError, TypeError, ImportError) as error:
        raise CommandError(str(error)) from error


def check_columns(name: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Raise `CommandError` for data without the required columns."""
    missing = [column for column in needed if column not in columns]
    if missing:
        raise CommandError(f"{name} lacks the column {' and '.join(missing)}; it has {', '.join(columns)}.")


def find_train_counts(options: argparse.Namespace, column: str = "count") -> list[float] | None:
    """The training counts of the baseline; `None` without a training split."""
    if options.data == "countscenes":
        scenes = count_scenes(options, scenes_config(options), options.train_split, None)
        return [float(count) for count in scenes.column(column)]
    if Path(options.data).expanduser().is_file():
        return None
    try:
        rows = _load_set(options, options.train_split, "image")
    except CommandError as error:
        print(f"count-clip: no baseline: {error}", file=sys.stderr)
        return None
    if column not in rows.column_names:
        return None
    return [float(count) for count in rows[column] if count is not None] or None
