"""Data sets on this machine, as `datasets` loads them, with the pictures left for later."""

from __future__ import annotations

import os
from pathlib import Path

import datasets


_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


def load_local(path: str | os.PathLike[str], split: str) -> datasets.Dataset:
    """
    Load a data set from a file or a folder.

    Pictures stay undecoded, so that one that cannot be read is one row's trouble and not the whole data set's. A
    column `file_name`, or an `image` of file names, means files beside the data.

    Args:
        path (`str` or `os.PathLike`): A folder that `datasets.load_dataset` understands or that `save_to_disk` wrote,
            or a `.parquet`, `.json` or `.jsonl` file.
        split (`str`): Which part; a single file, and a folder with one data set only, have no parts.

    Returns:
        `datasets.Dataset`: Its rows, `image` as a path or as `{"bytes", "path"}`.

    Raises:
        ValueError: If there is no such data, or it cannot be loaded.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ValueError(f"There is no data set {place}: expected a folder, or a file ({', '.join(_KINDS)}).")
    try:
        rows = _load(place, split)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"The data set {place} cannot be loaded: {error}") from error
    if "image" not in rows.column_names and "file_name" in rows.column_names:
        rows = rows.rename_column("file_name", "image")
    feature = rows.features.get("image")
    if isinstance(feature, datasets.Image):
        return rows.cast_column("image", datasets.Image(decode=False))
    if isinstance(feature, datasets.Value):
        folder = (place.parent if place.is_file() else place).resolve()
        # The function of a module is known to `datasets` by its name alone: without this, a folder that was moved
        # would get the paths of its old place.
        return rows.map(_with_path, fn_kwargs={"folder": str(folder)}, load_from_cache_file=False)
    return rows


def _with_path(row: dict[str, str], folder: str) -> dict[str, str]:
    """The row's file name as a path."""
    return {"image": str(Path(folder) / row["image"])}


def _load(place: Path, split: str) -> datasets.Dataset:
    """Load in the way that fits what is there."""
    if place.is_file():
        kind = _KINDS.get(place.suffix.lower())
        if kind is None:
            raise ValueError(f"{place} is no data set: expected a folder, or a file ({', '.join(_KINDS)}).")
        return datasets.load_dataset(kind, data_files=str(place), split="train")
    if (place / "dataset_dict.json").exists():
        parts = datasets.load_from_disk(str(place))
        if split not in parts:
            raise ValueError(f"The data set {place} has no split {split!r}, but {', '.join(map(repr, parts))}.")
        return parts[split]
    if (place / "state.json").exists():
        return datasets.load_from_disk(str(place))
    return datasets.load_dataset(str(place), split=split)


__all__ = ["load_local"]
