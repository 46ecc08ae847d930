"""Labelled images: the names of the classes, and features of a CLIP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.countscenes.builder import CountScenes

from ..inference.encoding import Encoder, SkippedRow, image_id_of, read_image, usable_rows


# A split has hundreds of evenly drawn classes; of 500, all occur in so many scenes with a probability of 99 %.
_SCENES_WITH_ALL_CLASSES = 5000


@dataclass(frozen=True)
class Features:
    """Image features of the rows that could be read."""

    vectors: NDArray[np.float32]
    """`(N, width)`: a vector for each measured row."""
    labels: NDArray[np.int64]
    """`(N,)`: its class."""
    indices: NDArray[np.int64]
    """`(N,)`: the row of the data."""
    image_ids: list[str | None]
    """The image ids of the data, if it has them."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, places: Sequence[int] | NDArray[np.int64]) -> Features:
        """Some of them, in this order, without `skipped`."""
        chosen = np.asarray(places, dtype=np.int64)
        names = [self.image_ids[place] for place in chosen]
        return Features(self.vectors[chosen], self.labels[chosen], self.indices[chosen], names)

    def joined(self, other: Features) -> Features:
        """These and others."""
        return Features(
            np.concatenate([self.vectors, other.vectors]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.indices, other.indices]),
            [*self.image_ids, *other.image_ids],
            [*self.skipped, *other.skipped],
        )


def class_names(rows: Any, label_column: str, names: Sequence[str] | None = None) -> list[str]:
    """
    The names of the classes of a column: `names`, those of a `ClassLabel`, or the words that occur, sorted; for
    [`CountScenes`] those of all classes of the split.

    Raises a `ValueError` if the column is missing or does not hold one class a row, if the classes are numbers without
    names, or if there are fewer than two names, fewer than classes, or repeated ones.
    """
    columns = list(getattr(rows, "column_names", ()))
    if label_column not in columns:
        raise ValueError(
            f"Expected a column {label_column!r} with the class of each image, but there are {', '.join(columns)}. "
            "Pass the right one (--label-column)."
        )
    if not len(rows):
        raise ValueError(nothing_measured([]))
    if isinstance(rows, CountScenes) and names is None:
        # The classes must not depend on the number of scenes.
        many = CountScenes(rows.split, config=rows.config, num_scenes=max(len(rows), _SCENES_WITH_ALL_CLASSES))
        return sorted({str(name) for name in many.column(label_column)})
    feature = getattr(rows, "features", {}).get(label_column)
    stated = list(feature.names) if isinstance(feature, datasets.ClassLabel) and feature.names else None
    stated_values = [value for value in _column(rows, label_column) if value is not None]
    for value in stated_values:
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise ValueError(f"Expected one class a row in {label_column!r}, a word or an integer, but got {value!r}.")
    values = set(stated_values)
    numbers = [value for value in values if isinstance(value, int)]
    chosen = list(names) if names is not None else stated
    if chosen is None and numbers:
        raise ValueError(
            f"The classes in {label_column!r} are numbers ({min(numbers)} to {max(numbers)}), and the data has no "
            "names. Pass them (--names FILE, the name of class 0 in the first line)."
        )
    if chosen is None:
        chosen = sorted(map(str, values))
    if stated is not None and len(chosen) != len(stated):
        raise ValueError(f"Expected {len(stated)} names, as many as the data has classes, but got {len(chosen)}.")
    if numbers and max(numbers) >= len(chosen):
        raise ValueError(
            f"Expected a name for class {max(numbers)}, but there are {len(chosen)} names, from class 0 on."
        )
    repeated = sorted(name for name, times in Counter(chosen).items() if times > 1)
    if len(chosen) < 2 or repeated:
        raise ValueError(
            f"Expected at least two different names to choose from, but got {len(chosen)}"
            + (f", with {repeated} more than once." if repeated else ".")
        )
    return chosen


def _column(rows: Any, name: str) -> Iterable[Any]:
    """The labels of all rows, without decoding images if possible."""
    return rows.column(name) if callable(getattr(rows, "column", None)) else rows[name]


def label_of(row: Mapping[str, Any], label_column: str, names: Sequence[str]) -> int:
    """The class of a row as an index into the names; a `ValueError` if it has none, or another."""
    value = row.get(label_column)
    if value is None:
        raise ValueError(f"the row has no {label_column!r}")
    if isinstance(value, str):
        if value not in names:
            raise ValueError(f"its {label_column} {value!r} is not among the {len(names)} names")
        return names.index(value)
    if not 0 <= int(value) < len(names):  # `datasets` has -1 for an unknown class
        raise ValueError(f"its {label_column} {value} is not among the {len(names)} classes")
    return int(value)


def embed_rows(
    encoder: Encoder,
    rows: Any,
    label_column: str,
    names: Sequence[str],
    image_column: str = "image",
    projected: bool = True,
    progress: bool = True,
) -> Features:
    """
    Encode the images of a labelled data set, inside of [`evaluating`].

    The vectors are the unit embeddings that are compared with texts if `projected`, otherwise the vision tower's
    output before its projection. Raises a `ValueError` if no row can be measured or a vector is not finite.
    """
    skipped: list[SkippedRow] = []
    kept: list[tuple[int, int, str | None]] = []
    vectors: list[torch.Tensor] = []
    images: list[Image.Image] = []

    def read(row: Mapping[str, Any]) -> tuple[int, Image.Image]:
        label = label_of(row, label_column, names)
        return label, read_image({"image": row.get(image_column), "image_id": row.get("image_id")})

    def encode() -> None:
        if images:
            vectors.append(encoder.images(images) if projected else _before_projection(encoder, images))
            images.clear()

    for index, row, (label, image) in usable_rows(rows, read, skipped, progress):
        kept.append((index, label, image_id_of(row)))
        images.append(image)
        if len(images) == encoder.batch_size:
            encode()
    encode()
    if not kept:
        raise ValueError(nothing_measured(skipped))
    found = torch.cat(vectors).numpy()
    check_finite(found)
    return Features(
        found,
        np.array([label for _, label, _ in kept], dtype=np.int64),
        np.array([index for index, _, _ in kept], dtype=np.int64),
        [name for _, _, name in kept],
        skipped,
    )


def _before_projection(encoder: Encoder, images: Sequence[Image.Image]) -> torch.Tensor:
    """Output of the vision tower before its projection, `(num_images, hidden_size)`, in float32 on the CPU."""
    tower: Callable[..., Any] | None = getattr(encoder.model, "vision_model", None)
    if tower is None:
        raise TypeError(f"Expected a CLIP with a `vision_model`, but got {type(encoder.model).__name__}.")
    output = tower(pixel_values=encoder.pixels(images).to(encoder.device, encoder.dtype))
    pooled = output if isinstance(output, torch.Tensor) else output.pooler_output
    return pooled.float().cpu()


def check_finite(vectors: NDArray[Any], what: str = "images") -> None:
    """Raise a `ValueError` for the NaN of a model with broken weights."""
    bad = int((~np.isfinite(vectors)).any(axis=1).sum())
    if bad:
        raise ValueError(
            f"The model's outputs for {bad} of {len(vectors)} {what} are NaN or infinite: its weights are broken, or "
            "the dtype is too narrow for it (try float32)."
        )


def nothing_measured(skipped: Sequence[SkippedRow]) -> str:
    """The error message if there is no figure."""
    if not skipped:
        return "Expected at least one row to measure, but the data is empty."
    reasons = "; ".join(f"row {row.index}: {row.reason}" for row in skipped[:3])
    return f"None of the {len(skipped)} rows could be measured. {reasons}{'; ...' if len(skipped) > 3 else ''}"


__all__ = ["Features", "check_finite", "class_names", "embed_rows", "label_of", "nothing_measured"]
