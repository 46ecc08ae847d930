"""The record of a run, and the keys that the result files of all benchmarks share."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.datasets_scripts.countscenes.config import VERSION as SCENES_VERSION
from count_clip.datasets_scripts.countscenes.config import config_with_objects


FORMAT = 1
"""The version of the format of result files."""

_LIBRARIES = ("torch", "transformers", "datasets", "numpy")
_SECRET_OPTION = re.compile(r"^--?[\w-]*(?:token|password|secret|api-key)[\w-]*", re.IGNORECASE)
_SECRETS = (
    (re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{8,}"), r"\1_***"),
    (re.compile(r"(://)[^/@\s]+@"), r"\1***@"),
    (re.compile(r"([?&;][\w-]*(?:token|password|secret|signature|key)[\w-]*=)[^&\s]+", re.IGNORECASE), r"\1***"),
)
_HUB_COMMIT = re.compile(r"[\\/]([0-9a-f]{40})[\\/]")


def plain_command(arguments: Sequence[str], program: str = "count-clip") -> str:
    """
    A quoted command line without secrets: tokens of the Hub, passwords in URLs and the values of secret options are
    `***`.
    """
    plain, hidden = [], False
    for argument in arguments:
        option = _SECRET_OPTION.match(argument)
        if hidden:
            argument = "***"
        elif option and "=" in argument:
            argument = argument[: argument.index("=") + 1] + "***"
        hidden = option is not None and "=" not in argument and not hidden
        for pattern, instead in _SECRETS:
            argument = pattern.sub(instead, argument)
        plain.append(shlex.quote(argument))
    return " ".join([program, *plain])


def weights_sha256(folder: str | Path) -> str | None:
    """
    The checksum of the weights in the folder of a model, of an adapter, or of several adapters with a folder each.

    It is what `sha256sum` prints for the file; for several files, the checksum of the lines that it prints for all of
    them in the order of their names. `None` without weights.
    """
    place = Path(folder).expanduser()
    files = sorted([*place.glob("*.safetensors"), *place.glob("*/adapter_model.safetensors")])
    lines = []
    for path in files or sorted(place.glob("pytorch_model*.bin")):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        lines.append(f"{digest}  {path.relative_to(place).as_posix()}\n")
    if len(lines) < 2:
        return lines[0].split()[0] if lines else None
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe_model(
    name: str, model: Any, folder: Path, base: str | None = None, base_folder: Path | None = None
) -> dict[str, Any]:
    """
    Describe a model for the record of a run: `name`, `revision` (the commit on the Hub), `sha256` (of the weights in a
    folder), `model_type`, `parameters`, for a CLIP `logit_scale`, and for adapters `base` with the first three of
    these.

    `folder` has its files; for a name on the Hub, it is the snapshot in the cache.
    """
    about = {
        **_named(name, folder),
        "model_type": model.config.model_type,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    # The factor from cosine similarities to logits.
    if isinstance(scale := getattr(model, "logit_scale", None), torch.Tensor):
        about["logit_scale"] = round(float(scale.detach().float().exp()), 6)
    return about if base is None or base_folder is None else {**about, "base": _named(base, base_folder)}


def _named(name: str, folder: Path) -> dict[str, Any]:
    """Name, commit and checksum."""
    is_snapshot = folder.parent.name == "snapshots"
    return {
        "name": name,
        "revision": folder.name if is_snapshot else None,
        "sha256": None if is_snapshot else weights_sha256(folder),
    }


def describe_baseline(name: str, baseline: Any) -> dict[str, Any]:
    """The keys of [`describe_model`] for a baseline, from its method `describe`."""
    return {"name": name, **baseline.describe()}


def model_identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a description that identifies the model: without the name if it has a checksum or a commit."""
    is_known = about.get("sha256") is not None or about.get("revision") is not None
    identity = {name: value for name, value in about.items() if name != "name" or not is_known}
    if "base" in about:
        identity["base"] = model_identity(about["base"])
    return identity


def describe_data(
    name: str, rows: Any, config: str | None = None, split: str | None = None, revision: str | None = None
) -> dict[str, Any]:
    """
    Describe data for the record of a run: `name`, `config` (`"mixed-shapes"` for rendered scenes of shapes), `split`,
    `revision` (the commit on the Hub, or the version of the rendered scenes), `fingerprint` (of the content, without
    reading the images), `rows`, and for rendered scenes `seed`.
    """
    fingerprint = getattr(rows, "_fingerprint", None)
    # `datasets` (5.2) caches a data set of the Hub in a folder named after its commit.
    files = [str(file["filename"]) for file in getattr(rows, "cache_files", [])]
    commit = next((found.group(1) for file in files if (found := _HUB_COMMIT.search(file))), None)
    if isinstance(rows, CountScenes):
        made_by = [asdict(rows.config), rows.split, rows.seed, rows.num_scenes]
        fingerprint = hashlib.sha256(json.dumps(made_by, default=str, sort_keys=True).encode()).hexdigest()[:16]
        commit = str(SCENES_VERSION)
        config = config_with_objects(config or rows.config.name, rows.config.objects)
    about = {
        "name": name,
        "config": config,
        "split": split,
        "revision": commit or revision,
        "fingerprint": fingerprint,
        "rows": len(rows) if hasattr(rows, "__len__") else None,
    }
    return about | ({"seed": rows.seed} if isinstance(rows, CountScenes) else {})


def device_name(device: str | torch.device) -> str:
    """The name of a device: "cpu", or "cuda:0 (NVIDIA H100)"."""
    where = torch.device(device)
    return f"{where} ({torch.cuda.get_device_name(where)})" if where.type == "cuda" else str(where)


def run_record(
    command: str,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int | None,
    dtype: str,
    device: str | torch.device,
    seconds: float,
) -> dict[str, Any]:
    """
    The record of a run: everything needed to repeat it, with the versions of this package, Python and the libraries.

    `seconds` is the time of the measurement, without loading.
    """
    return {
        "count_clip": _version("count-clip"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "model": dict(model),
        "data": dict(data),
        "seed": seed,
        "dtype": dtype,
        "device": device_name(device),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
        "seconds": round(seconds, 3),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return None


def result_file(
    benchmark: str,
    run: Mapping[str, Any],
    result: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float]] | None = None,
    missing: int = 0,
    limited: bool = False,
) -> dict[str, Any]:
    """
    Add the keys that all result files share to a result, for JSON; `partial` is whether it is of a part of the data.

    `missing` rows could not be measured; with `limited`, only a part was to be measured. Raises a `ValueError` if the
    benchmark uses one of the shared keys.
    """
    shared = {
        "benchmark": benchmark,
        "format": FORMAT,
        "run": dict(run),
        "partial": bool(missing or limited),
        "missing": missing,
        "metrics": dict(metrics),
        "intervals": {name: list(ends) for name, ends in (intervals or {}).items()},
    }
    if taken := sorted((shared.keys() & result.keys()) - {"intervals"}):
        raise ValueError(f"Expected a result without the keys of all result files, but it has {', '.join(taken)}.")
    return {**result, **shared}


def partial_note(result: Mapping[str, Any]) -> str | None:
    """A note "PARTIAL: ..." with the numbers of rows for a result of a part of the data; otherwise `None`."""
    if not result["partial"]:
        return None
    rows, missing = result["run"]["data"]["rows"], result["missing"]
    notes = [f"{missing} of {rows} rows could not be measured"] if missing else []
    total = result["run"]["data"].get("total")
    if total is not None and rows is not None and rows < total:
        notes.append(f"only {rows} of {total} rows were to be measured")
    return f"PARTIAL: {' and '.join(notes) or 'a part of the data was measured'}"


write_plain = partial(json.dumps, ensure_ascii=False, allow_nan=False)
"""A result as standard JSON; NaN raises an error."""


__all__ = [
    "FORMAT",
    "describe_baseline",
    "describe_data",
    "describe_model",
    "device_name",
    "model_identity",
    "partial_note",
    "plain_command",
    "result_file",
    "run_record",
    "weights_sha256",
    "write_plain",
]
