"""One interface to the rows of every map-style data set: columns without images, and images decoded or named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from count_clip.modeling.images import DECODER_ERRORS, to_rgb


class Rows:
    """
    The rows of one or several data sets, with images upright and in RGB.

    A source has `len` and `source[index]` that returns mappings: a `datasets.Dataset`, a list, [`CountScenes`]. Of a
    source with `column(name, indices)`, columns are read without its images. Raises a `TypeError` for a stream.
    """

    def __init__(self, source: Any):
        if isinstance(source, torch.utils.data.IterableDataset) or not hasattr(source, "__getitem__"):
            raise TypeError(
                f"Expected a data set with `len` and an index, but got {type(source).__name__}. Make a stream into "
                "one first, for example with `datasets.Dataset.from_list(list(stream))`."
            )
        self._parts: list[tuple[Any, dict[str, Any]]] = [(source, {})]
        # Of each row, its part and its index there.
        self._places = np.stack([np.zeros(len(source), np.int64), np.arange(len(source))], axis=1)

    def _derived(self, parts: list[tuple[Any, dict[str, Any]]], places: np.ndarray) -> Rows:
        rows = object.__new__(type(self))
        rows._parts, rows._places = parts, places
        return rows

    def select(self, indices: Iterable[int]) -> Rows:
        """Some of the rows, in the order of `indices`."""
        return self._derived(self._parts, self._places[np.fromiter(indices, np.int64)])

    def with_values(self, **values: Any) -> Rows:
        """The same rows with the same values in some columns."""
        return self._derived([(source, {**old, **values}) for source, old in self._parts], self._places)

    def __add__(self, other: Rows) -> Rows:
        shift = np.array([len(self._parts), 0])
        return self._derived(self._parts + other._parts, np.concatenate([self._places, other._places + shift]))

    def __len__(self) -> int:
        return len(self._places)

    def column(self, name: str) -> list[Any]:
        """Read a column, without decoding images if the source can; `None` for rows without it."""
        column: list[Any] = [None] * len(self)
        for number, (source, values) in enumerate(self._parts):
            chosen = np.flatnonzero(self._places[:, 0] == number)
            indices = self._places[chosen, 1].tolist()
            found = [values[name]] * len(chosen) if name in values else _column(source, name, indices)
            for index, value in zip(chosen.tolist(), found, strict=True):
                column[index] = value
        return column

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, place = self._places[index].tolist()
        source, values = self._parts[part]
        try:
            row = {**source[place], **values}
            # Pillow reads most of a file only when its pixels are needed.
            image = row.get("image")
            if image is not None:
                row["image"] = to_rgb(image)
        except DECODER_ERRORS as error:
            raise ValueError(
                f"Cannot read the image of row {index} ({_row_name(source, place)}): {error}. Replace the file, or "
                "leave the row out of the data set."
            ) from error
        if image is None:
            raise ValueError(
                f"Expected row {index} ({_row_name(source, place)}) to have an image under `image`, but its columns "
                f"are {sorted(row)}. Rename the column that holds the images."
            )
        return row


def as_rows(data: Any) -> Any:
    """Make map-style data sets, also in a dictionary, into [`Rows`]; streams, names and `None` stay as they are."""
    if isinstance(data, dict):
        return {name: as_rows(part) for name, part in data.items()}
    is_map_style = hasattr(data, "__len__") and not isinstance(data, str | torch.utils.data.IterableDataset)
    return Rows(data) if is_map_style and not isinstance(data, Rows) else data


def _column(source: Any, name: str, indices: list[int]) -> Iterable[Any]:
    if name not in getattr(source, "column_names", (name,)):
        return [None] * len(indices)
    if hasattr(source, "column"):
        return source.column(name, indices)
    if hasattr(source, "select"):
        return source.select(indices)[name]
    return (source[index].get(name) for index in indices)


def _row_name(source: Any, index: int) -> str:
    """The `image_id` of a row, or its file, for messages."""
    try:
        if hasattr(source, "cast_column") and "image" in source.column_names:
            import datasets

            source = source.cast_column("image", datasets.Image(decode=False))
        row = source[index]
    except DECODER_ERRORS:
        return "its name cannot be read either"
    image = row.get("image")
    path = image.get("path") if isinstance(image, Mapping) else getattr(image, "filename", None)
    names = [f"image_id {row['image_id']!r}"] if row.get("image_id") is not None else []
    return ", ".join([*names, f"file {path!r}"] if path else names) or "without an image_id"


__all__ = ["Rows", "as_rows"]
