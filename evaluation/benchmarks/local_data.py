"""Data sets on this machine, as `datasets` loads them, with the images left for later."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets


_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


def load_local(path: str | os.PathLike[str], split: str, image_column: str = "image") -> datasets.Dataset:
    """
    Load a data set from a file or a folder.

    Images stay undecoded, so that one that cannot be read is one row's trouble and not the whole data set's. A
    column `file_name`, or an `image` of file names, means files beside the data.

    Args:
        path (`str` or `os.PathLike`): A folder that `datasets.load_dataset` understands or that `save_to_disk` wrote,
            or a `.parquet`, `.json` or `.jsonl` file.
        split (`str`): Which part; a single file, and a folder with one data set only, have no parts.
        image_column (`str`, *optional*, defaults to `"image"`): The column with the images.

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
    except StopIteration as error:
        raise ValueError(f"The data set {place} has no rows.") from error
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"The data set {place} cannot be loaded: {error}") from error
    if image_column not in rows.column_names and "file_name" in rows.column_names:
        rows = rows.rename_column("file_name", image_column)
    feature = rows.features.get(image_column)
    if isinstance(feature, datasets.Value):
        folder = (place.parent if place.is_file() else place).resolve()
        # The function of a module is known to `datasets` by its name alone: without this, a folder that was moved
        # would get the paths of its old place.
        arguments = {"folder": str(folder), "column": image_column}
        return rows.map(_with_path, fn_kwargs=arguments, load_from_cache_file=False)
    return _undecoded(rows, image_column)


def load_named(
    name: str, config: str | None, split: str, image_column: str = "image", **arguments: Any
) -> datasets.Dataset:
    """
    Load a set that `datasets` knows by its name: one of this package's counting sets, or one on the Hub.

    Args:
        name (`str`): "fsc147", "org/name".
        config (`str`, *optional*): The configuration.
        split (`str`): Which part.
        image_column (`str`, *optional*, defaults to `"image"`): The column with the images, which stay undecoded.
        arguments (`Any`, *optional*): More arguments of `datasets.load_dataset`: `data_dir`, `revision`.

    Returns:
        `datasets.Dataset`: Its rows.

    Raises:
        ValueError: If it cannot be loaded, or has no such split.
    """
    try:
        rows = datasets.load_dataset(name, config, split=split, **arguments)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"The data set {name} cannot be loaded: {error}") from error
    return _undecoded(rows, image_column)


def _undecoded(rows: datasets.Dataset, image_column: str) -> datasets.Dataset:
    """The same rows with images left as they are stored."""
    if not isinstance(rows.features.get(image_column), datasets.Image):
        return rows
    return rows.cast_column(image_column, datasets.Image(decode=False))


def _with_path(row: dict[str, str | None], folder: str, column: str) -> dict[str, str | None]:
    """The row's file name as a path."""
    name = row[column]
    return {column: None if name is None else str(Path(folder) / name)}


def _load(place: Path, split: str) -> datasets.Dataset:
    """Load in the way that fits what is there."""
    if place.is_file():
        kind = _KINDS.get(place.suffix.lower())
        if kind is None:
            raise ValueError(f"{place} is no data set: expected a folder, or a file ({', '.join(_KINDS)}).")
        return datasets.load_dataset(kind, data_files=str(place), split="train")
    if (place / "dataset_dict.json").exists():
        splits = json.loads((place / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        if split not in splits:
            raise ValueError(f"The data set {place} has no split {split!r}, but {', '.join(map(repr, splits))}.")
        return _from_disk(place / split)
    if (place / "state.json").exists():
        return _from_disk(place)
    return datasets.load_dataset(str(place), split=split)


def _from_disk(folder: Path) -> datasets.Dataset:
    """What `save_to_disk` wrote; without a row it writes what `datasets` (5.2) itself cannot read."""
    if not list(folder.glob("*.arrow")):
        raise ValueError(f"Expected at least one row to measure, but the data in {folder} is empty.")
    return datasets.load_from_disk(str(folder))


__all__ = ["load_local", "load_named"]
