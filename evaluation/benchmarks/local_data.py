"""Data sets from files, folders and the Hub, with undecoded images."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets


_FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}


def load_local(path: str | os.PathLike[str], split: str, image_column: str = "image") -> datasets.Dataset:
    """
    Load a data set from a folder that `load_dataset` or `load_from_disk` reads, or a `.parquet`, `.json` or `.jsonl`
    file, without splits.

    Images stay undecoded (a path, or `{"bytes", "path"}`), so that an unreadable image affects one row only. A column
    `file_name`, or an image column of file names, is relative to the data. Raises a `ValueError` if there is no such
    data, or it cannot be loaded.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ValueError(f"There is no data set {place}: expected a folder, or a file ({', '.join(_FORMATS)}).")
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
        # The cache of `datasets` does not know the folder: a moved one would get the paths of its old place.
        arguments = {"folder": str(folder), "column": image_column}
        return rows.map(_with_path, fn_kwargs=arguments, load_from_cache_file=False)
    return _undecoded(rows, image_column)


def load_named(
    name: str, config: str | None, split: str, image_column: str = "image", **arguments: Any
) -> datasets.Dataset:
    """
    Load a data set by its name in this package or on the Hub, with undecoded images; `arguments` are those of
    `datasets.load_dataset`.

    Raises a `ValueError` if it cannot be loaded, or has no such split.
    """
    try:
        rows = datasets.load_dataset(name, config, split=split, **arguments)
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"The data set {name} cannot be loaded: {error}") from error
    return _undecoded(rows, image_column)


def _undecoded(rows: datasets.Dataset, image_column: str) -> datasets.Dataset:
    """The rows without decoding of the images."""
    if not isinstance(rows.features.get(image_column), datasets.Image):
        return rows
    return rows.cast_column(image_column, datasets.Image(decode=False))


def _with_path(row: dict[str, str | None], folder: str, column: str) -> dict[str, str | None]:
    """The row's file name as a path."""
    name = row[column]
    return {column: None if name is None else str(Path(folder) / name)}


def _load(place: Path, split: str) -> datasets.Dataset:
    """Load a file, a folder of `save_to_disk`, or another folder."""
    if place.is_file():
        file_format = _FORMATS.get(place.suffix.lower())
        if file_format is None:
            raise ValueError(f"{place} is not a data set: expected a folder, or a file ({', '.join(_FORMATS)}).")
        return datasets.load_dataset(file_format, data_files=str(place), split="train")
    if (place / "dataset_dict.json").exists():
        splits = json.loads((place / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        if split not in splits:
            raise ValueError(f"The data set {place} has no split {split!r}, but {', '.join(map(repr, splits))}.")
        return _from_disk(place / split)
    if (place / "state.json").exists():
        return _from_disk(place)
    return datasets.load_dataset(str(place), split=split)


def _from_disk(folder: Path) -> datasets.Dataset:
    """A folder of `save_to_disk`; `datasets` (5.2) itself cannot read one without rows."""
    if not list(folder.glob("*.arrow")):
        raise ValueError(f"Expected at least one row to measure, but the data in {folder} is empty.")
    return datasets.load_from_disk(str(folder))


__all__ = ["load_local", "load_named"]
