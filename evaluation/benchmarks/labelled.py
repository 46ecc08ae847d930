"""Images with a class each: which there are, and what a CLIP makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
from huggingface_hub.utils import tqdm
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.modeling.images import ImageError

from ..inference.encoding import Encoder, SkippedRow, image_id_of, num_rows, read_image, read_rows


# A split has some hundred kinds, which are drawn evenly: of 500, one is lacking among so many once in a hundred times.
_SCENES_WITH_ALL_KINDS = 5000


@dataclass(frozen=True)
class Features:
    """What a model makes of the images that it could see."""

    vectors: NDArray[np.float32]
    """`(N, width)`: one for each measured row."""
    labels: NDArray[np.int64]
    """`(N,)`: its class."""
    indices: NDArray[np.int64]
    """`(N,)`: which row of the data it is."""
    image_ids: list[str | None]
    """The rows' own names, where they have one."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, places: Sequence[int] | NDArray[np.int64]) -> Features:
        """Some of them, in this order; what was skipped stays behind."""
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
    Find out what the classes of a data set are called.

    Args:
        rows: A `datasets.Dataset` or another sequence of rows with `column_names`.
        label_column (`str`): The column with the classes.
        names (`Sequence[str]`, *optional*): What they are called, if the data does not say it or says it badly: the
            name of class 0, of class 1, and so on.

    Returns:
        `list[str]`: The names; of a column of words, the words that occur, sorted; of [`CountScenes`], those of all
        kinds of the split, whether or not they occur.

    Raises:
        ValueError: If the column is not there or holds something else than one class a row, the classes are numbers
            without names, there are fewer names than classes, a name is given twice, or there are fewer than two.
    """
    columns = list(getattr(rows, "column_names", ()))
    if label_column not in columns:
        raise ValueError(
            f"Expected a column {label_column!r} with the class of each image, but there are {', '.join(columns)}. "
            "Name the right one (--label-column)."
        )
    if not len(rows):
        raise ValueError(nothing_measured([]))
    if isinstance(rows, CountScenes) and names is None:
        # The classes are not to depend on how many scenes are looked at.
        many = CountScenes(rows.split, config=rows.config, num_scenes=max(len(rows), _SCENES_WITH_ALL_KINDS))
        return sorted({str(name) for name in many.column(label_column)})
    feature = getattr(rows, "features", {}).get(label_column)
    stated = list(feature.names) if isinstance(feature, datasets.ClassLabel) and feature.names else None
    stated_values = [value for value in _column(rows, label_column) if value is not None]
    for value in stated_values:
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise ValueError(
                f"Expected one class a row in {label_column!r}, a word or a whole number, but found {value!r}."
            )
    values = set(stated_values)
    numbers = [value for value in values if isinstance(value, int)]
    chosen = list(names) if names is not None else stated
    if chosen is None and numbers:
        raise ValueError(
            f"The classes in {label_column!r} are numbers ({min(numbers)} to {max(numbers)}), and the data does not "
            "say what they are called. Give their names (--names FILE, the name of class 0 in the first line)."
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
    """One label of all rows, without their images where that can be."""
    return rows.column(name) if callable(getattr(rows, "column", None)) else rows[name]


def label_of(row: Mapping[str, Any], label_column: str, names: Sequence[str]) -> int:
    """
    The class of a row, as its place among the names.

    Args:
        row: The row.
        label_column (`str`): Its column with the class.
        names (`Sequence[str]`): From [`class_names`].

    Returns:
        `int`: The place.

    Raises:
        ValueError: If it has none, or another.
    """
    value = row.get(label_column)
    if value is None:
        raise ValueError(f"the row has no {label_column!r}")
    if isinstance(value, str):
        if value not in names:
            raise ValueError(f"its {label_column} {value!r} is not among the {len(names)} names")
        return names.index(value)
    if not 0 <= int(value) < len(names):  # `datasets` has -1 for an unknown class
        raise ValueError(f"its {label_column} {value} is none of the {len(names)} classes")
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
    Encode the images of a data set.

    Args:
        encoder ([`Encoder`]): The model, within [`evaluating`].
        rows: Rows with an image and a class.
        label_column (`str`): The column with the classes.
        names (`Sequence[str]`): From [`class_names`].
        image_column (`str`, *optional*, defaults to `"image"`): The column with the images.
        projected (`bool`, *optional*, defaults to `True`): Whether to give the unit-norm embeddings that the model
            compares with texts; otherwise what its vision tower gives before the projection, as it is.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.

    Returns:
        [`Features`]: One vector for each row that could be read, and the other rows.

    Raises:
        ValueError: If no row can be measured, or a vector is not finite.
    """
    skipped: list[SkippedRow] = []
    kept: list[tuple[int, int, str | None]] = []
    vectors: list[torch.Tensor] = []
    waiting: list[Image.Image] = []

    def encode() -> None:
        if waiting:
            vectors.append(encoder.images(waiting) if projected else _before_projection(encoder, waiting))
            waiting.clear()

    for index, row, reason in tqdm(
        read_rows(rows), total=num_rows(rows), desc="images", disable=not progress, leave=False
    ):
        if row is None:
            skipped.append(SkippedRow(index, None, reason or "there is no row"))
            continue
        try:
            label = label_of(row, label_column, names)
            waiting.append(read_image({"image": row.get(image_column), "image_id": row.get("image_id")}))
        except (ValueError, ImageError) as error:
            skipped.append(SkippedRow(index, image_id_of(row), str(error)))
            continue
        kept.append((index, label, image_id_of(row)))
        if len(waiting) == encoder.batch_size:
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
    """What the vision tower gives before its projection, `(num_images, hidden_size)`, in float32 on the CPU."""
    tower: Callable[..., Any] | None = getattr(encoder.model, "vision_model", None)
    if tower is None:
        raise TypeError(f"Expected a CLIP with a `vision_model`, but got {type(encoder.model).__name__}.")
    output = tower(pixel_values=encoder.pixels(images).to(encoder.device, encoder.dtype))
    pooled = output if isinstance(output, torch.Tensor) else output.pooler_output
    return pooled.float().cpu()


def check_finite(vectors: NDArray[Any]) -> None:
    """Notice a model with broken weights: NaN would win every comparison, or lose it."""
    bad = int((~np.isfinite(vectors)).any(axis=1).sum())
    if bad:
        raise ValueError(
            f"What the model makes of {bad} of {len(vectors)} images is NaN or infinite: its weights are broken, or "
            "the dtype is too narrow for it (try float32)."
        )


def nothing_measured(skipped: Sequence[SkippedRow]) -> str:
    """Say why there is no figure."""
    if not skipped:
        return "Expected at least one row to measure, but the data is empty."
    reasons = "; ".join(f"row {row.index}: {row.reason}" for row in skipped[:3])
    return f"None of the {len(skipped)} rows could be measured. {reasons}{'; ...' if len(skipped) > 3 else ''}"


__all__ = ["Features", "check_finite", "class_names", "embed_rows", "label_of", "nothing_measured"]
