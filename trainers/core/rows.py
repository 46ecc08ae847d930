"""Rows of any map-style data set, read so that an image which cannot be read is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from count_clip.datasets_scripts.captions.noise import NoisyCaptions
from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.modeling.images import DECODER_ERRORS, to_rgb


class ImageRows(torch.utils.data.Dataset):
    """
    The rows of a data set with their images decoded, upright and in RGB.

    Args:
        rows: Anything with `len` and `rows[index]` that gives mappings with `image` and, where there is one,
            `image_id`: a `datasets.Dataset`, a list, a sequence that renders.
    """

    def __init__(self, rows: Any):
        if isinstance(rows, torch.utils.data.IterableDataset) or not hasattr(rows, "__getitem__"):
            raise TypeError(
                f"Expected a data set with `len` and an index, but got {type(rows).__name__}. Make a stream into one "
                "first, for example with `datasets.Dataset.from_list(list(stream))`."
            )
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return read_row(self.rows, index)


class GeneralRows(torch.utils.data.Dataset):
    """
    The rows of a data set as general pairs, whether or not their captions state a number.

    Args:
        rows: A map-style data set.
    """

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.rows[index], "is_counting": False}


def read_row(rows: Any, index: int) -> dict[str, Any]:
    """
    Read one row and decode its image.

    Args:
        rows: A map-style data set.
        index (`int`): Which row.

    Returns:
        `dict`: The row; `image` is an upright RGB image.

    Raises:
        ValueError: If the image cannot be read, or if there is none. The message names it.
    """
    try:
        row = dict(rows[index])
        # Pillow reads most of a file only when its pixels are asked for.
        image = row.get("image")
        if image is not None:
            row["image"] = to_rgb(image)
    except DECODER_ERRORS as error:
        raise ValueError(
            f"Cannot read the image of row {index} ({_row_name(rows, index)}): {error}. Replace the file, or leave "
            "the row out of the data set."
        ) from error
    if image is None:
        raise ValueError(
            f"Expected row {index} ({_row_name(rows, index)}) to have an image under `image`, but its columns are "
            f"{sorted(row)}. Rename the column that holds the images."
        )
    return row


def row_column(rows: Any, name: str) -> list[Any]:
    """
    One column of a data set, without decoding its images where that can be avoided.

    Args:
        rows: A map-style data set, or a `torch.utils.data.ConcatDataset` or `torch.utils.data.Subset` of some.
        name (`str`): Which column.

    Returns:
        `list`: A value a row; `None` where a row lacks it.
    """
    if isinstance(rows, torch.utils.data.ConcatDataset):
        return [value for part in rows.datasets for value in row_column(part, name)]
    if isinstance(rows, torch.utils.data.Subset):
        if isinstance(rows.dataset, CountScenes | NoisyCaptions):
            # There may be a million of them; only these are planned.
            if name not in rows.dataset.column_names:
                return [None] * len(rows)
            return rows.dataset.column(name, rows.indices)
        if isinstance(rows.dataset, torch.utils.data.ConcatDataset):
            return _column_of_parts(rows.dataset, rows.indices, name)
        column = row_column(rows.dataset, name)
        return [column[index] for index in rows.indices]
    if isinstance(rows, GeneralRows) and name == "is_counting":
        return [False] * len(rows)
    if isinstance(rows, ImageRows | GeneralRows):
        return row_column(rows.rows, name)
    if name not in getattr(rows, "column_names", (name,)):
        return [None] * len(rows)
    # `countscenes` knows most of a row without drawing it.
    if hasattr(rows, "column"):
        return list(rows.column(name))
    if hasattr(rows, "column_names"):
        return list(rows[name])
    return [rows[index].get(name) for index in range(len(rows))]


def _column_of_parts(rows: torch.utils.data.ConcatDataset, indices: Iterable[int], name: str) -> list[Any]:
    """A column of some rows of several parts, each of which is asked for its own rows alone."""
    chosen = [int(index) % len(rows) for index in indices]
    values: list[Any] = [None] * len(chosen)
    start = 0
    for part, end in zip(rows.datasets, rows.cumulative_sizes, strict=True):
        places = [place for place, index in enumerate(chosen) if start <= index < end]
        here = torch.utils.data.Subset(part, [chosen[place] - start for place in places])
        for place, value in zip(places, row_column(here, name), strict=True):
            values[place] = value
        start = end
    return values


def _row_name(rows: Any, index: int) -> str:
    """What the error calls a row: its `image_id` or its file."""
    try:
        row = _undecoded(rows, index)
    except DECODER_ERRORS:
        return "its name cannot be read either"
    image = row.get("image")
    path = image.get("path") if isinstance(image, Mapping) else getattr(image, "filename", None)
    names = [f"image_id {row['image_id']!r}"] if row.get("image_id") is not None else []
    if path:
        names.append(f"file {path!r}")
    return ", ".join(names) or "without an image_id"


def _undecoded(rows: Any, index: int) -> Mapping[str, Any]:
    """A row with its image left as it is stored, where the data set can do that."""
    if isinstance(rows, ImageRows | GeneralRows):
        return _undecoded(rows.rows, index)
    if isinstance(rows, torch.utils.data.Subset):
        return _undecoded(rows.dataset, rows.indices[index])
    if isinstance(rows, torch.utils.data.ConcatDataset):
        parts: Any = rows.datasets
        for part in parts:
            if index < len(part):
                return _undecoded(part, index)
            index -= len(part)
    if hasattr(rows, "cast_column") and "image" in getattr(rows, "column_names", ()):
        import datasets

        rows = rows.cast_column("image", datasets.Image(decode=False))
    return rows[index]


__all__ = ["GeneralRows", "ImageRows", "read_row", "row_column"]
