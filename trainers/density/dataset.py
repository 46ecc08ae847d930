"""Training samples for density models: augmented windows of images with their target densities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..core.rows import as_rows
from ..core.sampling import Epoch, sample_generator
from .augmentation import DensityAugmentation, random_window


class DensityTrainingDataset(torch.utils.data.Dataset):
    """
    Windows of images with the density of what their prompts name.

    An image is resized to a shorter side of `resize` pixels (times a random factor), a random window is cut, and image
    and points are augmented together. A sample depends on the seed, the epoch and its index alone.

    Args:
        rows: Map-style rows of the density schema: `image`, `text`, `points` [[x, y]] in pixels of the image, and
            optionally `image_id`. `points` may be empty.
        processor ([`CLIPCountDensityProcessor`]): The model's processor.
        augmentation ([`DensityAugmentation`], *optional*): By default CounTR's.
        seed (`int`, *optional*, defaults to 0): The seed of the run.
        sigma (`float`, *optional*, defaults to 1.0): Width of an object in the target, in pixels of the window.
        resize (`int`, *optional*): Length of the shorter side, in pixels; by default that of the processor.
        scale_jitter (`Sequence[float]`, *optional*, defaults to `(1.0, 1.0)`): Least and largest factor on it. The
            side never becomes shorter than a window.
        prompts_per_image (`int`, *optional*, defaults to 1):
            With more than one, a sample is an image with so many of its rows (those of one `image_id`), drawn again
            each epoch, whose window passes through the vision tower once. Rows repeat where an image has fewer.

    Raises:
        ValueError: If an option is out of its range, or rows of several prompts have no `image_id`.
    """

    def __init__(
        self,
        rows: Any,
        processor: Any,
        augmentation: DensityAugmentation | None = None,
        seed: int = 0,
        sigma: float = 1.0,
        resize: int | None = None,
        scale_jitter: Sequence[float] = (1.0, 1.0),
        prompts_per_image: int = 1,
    ):
        if not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
            raise TypeError(
                f"Expected training rows with `len` and an index, but got {type(rows).__name__}. Every sample's "
                "augmentation depends on its index, which a stream does not have."
            )
        self.rows = as_rows(rows)
        self.image_processor = processor.image_processor
        self.window_size = int(self.image_processor.window_size)
        self.augmentation = DensityAugmentation() if augmentation is None else augmentation
        self.seed = seed
        self.sigma = sigma
        self.resize = int(self.image_processor.size["shortest_edge"]) if resize is None else resize
        self.scale_jitter = list(scale_jitter)
        self.prompts_per_image = prompts_per_image
        self._epoch = Epoch()
        if prompts_per_image < 1:
            raise ValueError(f"`prompts_per_image` must be at least 1, but got {prompts_per_image}.")
        self._images = _rows_by_image(self.rows) if prompts_per_image > 1 else None
        if sigma <= 0:
            raise ValueError(f"`sigma` must be positive, but got {sigma}.")
        if self.resize < self.window_size:
            raise ValueError(
                f"`resize` ({self.resize}) must be at least `window_size` ({self.window_size}): a window has to fit "
                "into the image."
            )
        if len(self.scale_jitter) != 2 or not 0 < self.scale_jitter[0] <= self.scale_jitter[1]:
            raise ValueError(f"`scale_jitter` must be a least and a largest factor, but got {list(scale_jitter)}.")

    def __len__(self) -> int:
        return len(self.rows if self._images is None else self._images)

    def set_epoch(self, epoch: int) -> None:
        """Start epoch `epoch`, counted from 0, with other windows and augmentations."""
        self._epoch.set(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """
        The sample of a row: `pixel_values` `(3, window_size, window_size)`, `labels` `(window_size, window_size)`,
        objects per pixel that sum to the points in the window, and `text`. With several prompts an image, the sample
        of an image: `labels` `(prompts_per_image, window_size, window_size)`, and a list as `text`.

        Raises a `ValueError` if the image cannot be read, or a row has no points.
        """
        chosen = [index] if self._images is None else self._draw(self._images[index], index)
        # The rows of an image hold the same image; it is warped once, with the points of all of them.
        rows = [self.rows[place] for place in chosen]
        for row, place in zip(rows, chosen, strict=True):
            if row.get("points") is None:
                raise ValueError(
                    f"Expected row {place} (image_id {row.get('image_id')!r}) to have `points`, but its columns are "
                    f"{sorted(row)}. An image without objects has an empty list."
                )
        all_points = [np.asarray(row["points"], dtype=np.float64).reshape(-1, 2) for row in rows]
        window, points = self.window(rows[0]["image"], np.concatenate(all_points), index)
        size = (self.window_size, self.window_size)
        parts = np.split(points, np.cumsum([len(part) for part in all_points])[:-1])
        labels = torch.stack([torch.from_numpy(density_target(part, size, self.sigma)) for part in parts])
        texts = [row["text"] for row in rows]
        # The window has its size already; the processor only normalises it.
        pixels = self.image_processor(images=[window], do_resize=False, return_tensors="pt")["pixel_values"][0]
        if self._images is None:
            return {"pixel_values": pixels, "labels": labels[0], "text": texts[0]}
        return {"pixel_values": pixels, "labels": labels, "text": texts}

    def _draw(self, places: Sequence[int], index: int) -> list[int]:
        """Draw rows of an image; all are drawn before one repeats."""
        generator = sample_generator(self.seed, self._epoch.get(), f"prompts of {index}")
        rounds = math.ceil(self.prompts_per_image / len(places))
        drawn = np.concatenate([generator.permutation(places) for _ in range(rounds)])
        return [int(place) for place in drawn[: self.prompts_per_image]]

    def window(self, image: Image.Image, points: ArrayLike, index: int) -> tuple[Image.Image, NDArray[np.float64]]:
        """
        Cut and augment the window of a sample in the current epoch; returns it and the points in its pixels, of which
        some may be outside.
        """
        generator = sample_generator(self.seed, self._epoch.get(), index)
        length = self.resize * generator.uniform(self.scale_jitter[0], self.scale_jitter[1])
        return random_window(image, points, generator, self.image_processor, round(length), self.augmentation)


def density_target(points: ArrayLike, size: tuple[int, int], sigma: float = 1.0) -> NDArray[np.float32]:
    """
    Draw a Gaussian for each point `(x, y)` on a map of objects per pixel, `size` (height, width); each point inside
    adds 1 to the sum, also at the border.

    Pixel 0 spans 0 to 1, points outside are dropped, and a Gaussian of standard deviation `sigma` pixels ends at four
    of them.
    """
    height, width = size
    xy = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    xy = xy[(xy[:, 0] >= 0) & (xy[:, 0] < width) & (xy[:, 1] >= 0) & (xy[:, 1] < height)]
    if not len(xy):
        return np.zeros(size, dtype=np.float32)
    radius = math.ceil(4 * sigma)
    offsets = np.arange(-radius, radius + 1)

    def along(values: NDArray[np.float64], length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Pixels around each value on one axis `(N, k)`, and weights that sum to one over those on the map."""
        pixels = np.floor(values).astype(np.int64)[:, None] + offsets
        distance = pixels + 0.5 - values[:, None]
        weights = np.exp(-0.5 * (distance / sigma) ** 2)
        # The pixel that holds the point stays, however narrow the Gaussian.
        inside = (pixels >= 0) & (pixels < length) & ((np.abs(distance) <= 4 * sigma) | (offsets == 0))
        weights = np.where(inside, np.maximum(weights, 1e-300), 0.0)
        return np.clip(pixels, 0, length - 1), weights / weights.sum(axis=1, keepdims=True)

    columns, column_weights = along(xy[:, 0], width)
    rows, row_weights = along(xy[:, 1], height)
    flat = rows[:, :, None] * width + columns[:, None, :]  # (N, k, k)
    weights = row_weights[:, :, None] * column_weights[:, None, :]
    total = np.bincount(flat.ravel(), weights=weights.ravel(), minlength=height * width)
    return total.reshape(size).astype(np.float32)


def _rows_by_image(rows: Any) -> list[list[int]]:
    """The indices of the rows of each image, in the order of the images."""
    places: dict[Any, list[int]] = {}
    for place, name in enumerate(rows.column("image_id")):
        if name is None:
            raise ValueError(
                f"`prompts_per_image` groups the rows of an image by `image_id`, but row {place} has none. Add the "
                "column, or train with one prompt an image."
            )
        places.setdefault(name, []).append(place)
    return list(places.values())


__all__ = ["DensityTrainingDataset", "density_target"]
