"""Training samples for density models: augmented windows of images with their target densities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageEnhance, ImageFilter

from count_clip.modeling.image_processing_clip_count_density import resized_size

from ..core.rows import read_row, row_column
from ..core.sampling import Epoch, sample_generator


@dataclass(frozen=True)
class DensityAugmentation:
    """
    How often and how much training windows are changed: CounTR's augmentations except the mosaic.

    Args:
        noise_probability (`float`): How often Gaussian noise is added.
        color_probability (`float`): How often brightness, contrast, saturation and hue are changed.
        blur_probability (`float`): How often the window is blurred.
        affine_probability (`float`): How often the window is rotated, scaled, sheared and shifted.
        horizontal_flip_probability (`float`): How often left and right are swapped.
        vertical_flip_probability (`float`): How often top and bottom are swapped.
        quarter_turn_probability (`float`): How often the window is turned by 90, 180 or 270 degrees.
        noise_std (`float`): Standard deviation of the noise, where 1 is white.
        brightness, contrast, saturation, hue (`float`): Largest relative change; the hue's is in turns.
        max_blur_sigma (`float`): Widest blur, in pixels of the window.
        max_rotation, max_shear (`float`): Largest angles, in degrees, either way.
        scale (`tuple[float, float]`): Least and largest factor of the affine map.
        max_translation (`float`): Largest shift, as a part of the window.

    Raises:
        ValueError: If a probability does not lie between 0 and 1.

    Source:
        Liu et al., 2022 (https://huggingface.co/papers/2208.13721), with the ranges of its published training code.
        The quarter turns are ours.
    """

    noise_probability: float = 0.25
    color_probability: float = 0.25
    blur_probability: float = 0.25
    affine_probability: float = 0.25
    horizontal_flip_probability: float = 0.5
    vertical_flip_probability: float = 0.0
    quarter_turn_probability: float = 0.0
    noise_std: float = 0.1
    brightness: float = 0.25
    contrast: float = 0.15
    saturation: float = 0.15
    hue: float = 0.15
    max_blur_sigma: float = 2.0
    max_rotation: float = 15.0
    max_shear: float = 10.0
    scale: tuple[float, float] = (0.8, 1.2)
    max_translation: float = 0.2

    def __post_init__(self) -> None:
        for name in vars(self):
            if name.endswith("_probability") and not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, but got {getattr(self, name)}.")

    @classmethod
    def none(cls) -> DensityAugmentation:
        """No augmentation at all: windows are only resized and cut."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class DensityTrainingDataset(torch.utils.data.Dataset):
    """
    Windows of images with the density of what their prompts name.

    An image is resized until its shorter side is `resize` pixels (times a random factor), a window is cut from a
    random place, and image and points are changed together. What happens to a sample depends on the seed, the epoch
    and its index alone.

    Args:
        rows: Map-style rows of the density schema: `image`, `text`, `points` [[x, y]] in pixels of the image, and
            perhaps `image_id`. Rows without points are as welcome as others.
        processor ([`CLIPCountDensityProcessor`]): Says how windows look.
        augmentation ([`DensityAugmentation`], *optional*): How windows are changed; by default CounTR's ranges.
        seed (`int`, *optional*, defaults to 0): The seed of the run.
        sigma (`float`, *optional*, defaults to 1.0): Width of an object in the target, in pixels of the window.
        resize (`int`, *optional*): Length of the shorter side, in pixels; by default that of the processor.
        scale_jitter (`Sequence[float]`, *optional*, defaults to `(1.0, 1.0)`): Least and largest factor on it. The
            side never becomes shorter than a window.
        prompts_per_image (`int`, *optional*, defaults to 1):
            With more than one, a sample is an image with so many of its rows (those of one `image_id`), drawn anew
            each epoch, and its window passes through the vision tower once for all of them. Where an image has
            fewer rows, some come twice.

    Raises:
        ValueError: If an option is out of its range, or rows that have to be put together have no `image_id`.
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
        self.rows = rows
        self.image_processor = processor.image_processor
        self.window_size = int(self.image_processor.window_size)
        self.augmentation = DensityAugmentation() if augmentation is None else augmentation
        self.seed = seed
        self.sigma = sigma
        self.resize = _shortest_edge(self.image_processor) if resize is None else resize
        self.scale_jitter = list(scale_jitter)
        self.prompts_per_image = prompts_per_image
        self._epoch = Epoch()
        if prompts_per_image < 1:
            raise ValueError(f"`prompts_per_image` must be at least 1, but got {prompts_per_image}.")
        self._images = _rows_by_image(rows) if prompts_per_image > 1 else None
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
        """Start epoch `epoch`, counted from 0: other windows and other changes."""
        self._epoch.set(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """
        One sample.

        Args:
            index (`int`): Which row; with several prompts an image, which image.

        Returns:
            `dict` with `pixel_values` `(3, window_size, window_size)`, `labels` `(window_size, window_size)`, objects
            per pixel that sum to the points in the window, and `text`. With several prompts an image `labels` is
            `(prompts_per_image, window_size, window_size)` and `text` a list.

        Raises:
            ValueError: If the image cannot be read, or a row has no points.
        """
        if self._images is None:
            row = read_row(self.rows, index)
            self._check_points(row, index)
            window, points = self.window(row["image"], row["points"], index)
            return {"pixel_values": self._pixels(window), "labels": self._target(points), "text": row["text"]}
        chosen = self._draw(self._images[index], index)
        # The rows bring the same image; it is warped once, with the points of all of them.
        rows = [read_row(self.rows, place) for place in chosen]
        for row, place in zip(rows, chosen, strict=True):
            self._check_points(row, place)
        all_points = [np.asarray(row["points"], dtype=np.float64).reshape(-1, 2) for row in rows]
        window, points = self.window(rows[0]["image"], np.concatenate(all_points), index)
        parts = np.split(points, np.cumsum([len(part) for part in all_points])[:-1])
        return {
            "pixel_values": self._pixels(window),
            "labels": torch.stack([self._target(part) for part in parts]),
            "text": [row["text"] for row in rows],
        }

    def _check_points(self, row: Mapping[str, Any], index: int) -> None:
        if row.get("points") is None:
            raise ValueError(
                f"Expected row {index} (image_id {row.get('image_id')!r}) to have `points`, but its columns are "
                f"{sorted(row)}. An image without objects has an empty list."
            )

    def _draw(self, places: Sequence[int], index: int) -> list[int]:
        """Choose among an image's rows, each before any comes again."""
        generator = sample_generator(self.seed, self._epoch.get(), f"prompts of {index}")
        rounds = math.ceil(self.prompts_per_image / len(places))
        drawn = np.concatenate([generator.permutation(places) for _ in range(rounds)])
        return [int(place) for place in drawn[: self.prompts_per_image]]

    def _pixels(self, window: Image.Image) -> torch.Tensor:
        # The window has its size already; the processor only normalises it.
        return self.image_processor(images=[window], do_resize=False, return_tensors="pt")["pixel_values"][0]

    def _target(self, points: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(density_target(points, (self.window_size, self.window_size), self.sigma))

    def window(self, image: Image.Image, points: ArrayLike, index: int) -> tuple[Image.Image, NDArray[np.float64]]:
        """
        Cut and change the window of one sample, as it comes in the current epoch.

        Args:
            image (`PIL.Image.Image`): RGB.
            points (array of shape `(num_points, 2)`): x and y in pixels of the image.
            index (`int`): Which sample, for the random choices.

        Returns:
            The window, and the points in its pixels; some may lie outside.
        """
        generator = sample_generator(self.seed, self._epoch.get(), index)
        side, options = self.window_size, self.augmentation
        shortest = max(side, round(self.resize * generator.uniform(self.scale_jitter[0], self.scale_jitter[1])))
        height, width = resized_size(image.height, image.width, shortest, self.image_processor.max_aspect_ratio)
        left, top = int(generator.integers(0, width - side + 1)), int(generator.integers(0, height - side + 1))
        matrix = _shift(-left, -top)  # from the resized image to the window
        if generator.random() < options.affine_probability:
            matrix = random_affine(generator, side, options) @ matrix
        if generator.random() < options.horizontal_flip_probability:
            matrix = np.array([[-1.0, 0, side], [0, 1, 0], [0, 0, 1]]) @ matrix
        if generator.random() < options.vertical_flip_probability:
            matrix = np.array([[1.0, 0, 0], [0, -1, side], [0, 0, 1]]) @ matrix
        # Nothing is drawn where nothing turns: runs without it stay as they were.
        if options.quarter_turn_probability and generator.random() < options.quarter_turn_probability:
            quarter = np.array([[0.0, -1, side], [1, 0, 0], [0, 0, 1]])
            matrix = np.linalg.matrix_power(quarter, int(generator.integers(1, 4))) @ matrix
        window = _warp(image, (width, height), matrix, side, self.image_processor.resample)
        window = _change_pixels(window, generator, options)
        xy = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        # Boxes reach to the far border, and so may points; there they belong to the last pixel.
        xy = np.where(xy == image.size, np.nextafter(image.size, 0.0), xy)
        # Columns are x, y, 1; an image that is squeezed has different factors for the two.
        xy = xy * (width / image.width, height / image.height)
        return window, xy @ matrix[:2, :2].T + matrix[:2, 2]


def density_target(points: ArrayLike, size: tuple[int, int], sigma: float = 1.0) -> NDArray[np.float32]:
    """
    Draw a Gaussian for each point; each point inside adds exactly 1 to the sum, also at the border.

    Args:
        points (array of shape `(num_points, 2)`): x and y in pixels, where pixel 0 reaches from 0 to 1. Points
            outside are dropped.
        size (`tuple[int, int]`): Height and width of the map.
        sigma (`float`): Standard deviation in pixels; the Gaussian ends at four of them.

    Returns:
        `np.ndarray` of shape `size`: Objects per pixel.
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


def random_affine(generator: np.random.Generator, side: int, options: DensityAugmentation) -> NDArray[np.float64]:
    """
    Draw a rotation, scaling, shear and shift about the middle of a window.

    Args:
        generator (`numpy.random.Generator`): Where chance comes from.
        side (`int`): Side of the window, in pixels.
        options ([`DensityAugmentation`]): The ranges.

    Returns:
        `np.ndarray` of shape `(3, 3)`: Maps columns (x, y, 1) in pixels of the window to where they move.
    """
    angle = math.radians(generator.uniform(-options.max_rotation, options.max_rotation))
    shear = math.radians(generator.uniform(-options.max_shear, options.max_shear))
    factor = generator.uniform(*options.scale)
    shift = generator.uniform(-options.max_translation, options.max_translation, size=2) * side
    rotation = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    shearing = np.array([[1, math.tan(shear), 0], [0, 1, 0], [0, 0, 1]])
    scaling = np.diag([factor, factor, 1])
    middle = side / 2
    return _shift(middle + shift[0], middle + shift[1]) @ rotation @ shearing @ scaling @ _shift(-middle, -middle)


def _shift(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def _warp(
    image: Image.Image, size: tuple[int, int], matrix: NDArray[np.float64], side: int, resample: Any
) -> Image.Image:
    """
    The window that `matrix` cuts from the image resized to `size` (width, height); black where it reaches beyond.

    Only the part that the window shows is resized.
    """
    inverse = np.linalg.inv(matrix)
    corners = inverse @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]], dtype=np.float64)
    # A whole number of pixels is exact up to rounding errors; one more on each side feeds the interpolation.
    margin = 0 if _is_whole(inverse) else 1
    low = np.floor(corners[:2].min(axis=1) + 1e-6).astype(int) - margin
    high = np.ceil(corners[:2].max(axis=1) - 1e-6).astype(int) + margin
    low, high = np.clip(low, 0, np.array(size) - 1), np.clip(high, 1, np.array(size))
    high = np.maximum(high, low + 1)
    factors = np.array(image.size) / size
    box = tuple(np.concatenate([low * factors, np.minimum(high * factors, image.size)]).tolist())
    part = image.resize(tuple((high - low).tolist()), resample, box=box)
    to_part = _shift(-low[0], -low[1]) @ inverse
    if np.allclose(to_part, np.eye(3), atol=1e-6) and part.size == (side, side):
        return part
    # Pillow's six numbers map the window's pixels back to the image's, both counted from their corners.
    coefficients = tuple(to_part[:2].ravel().tolist())
    nearest = margin == 0
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return part.transform((side, side), Image.Transform.AFFINE, coefficients, resample=method)


def _is_whole(matrix: NDArray[np.floating[Any]]) -> bool:
    """Whether a map only moves pixels to pixels: flips, quarter turns and shifts by whole numbers."""
    linear = np.abs(np.round(matrix[:2, :2]))
    moves = np.array_equal(linear, np.eye(2)) or np.array_equal(linear, np.eye(2)[::-1])
    return bool(moves and np.allclose(matrix, np.round(matrix), atol=1e-6))


def _change_pixels(window: Image.Image, generator: np.random.Generator, options: DensityAugmentation) -> Image.Image:
    """Noise, colours and blur, each as often as the options say; nothing moves."""
    if generator.random() < options.noise_probability:
        noise = generator.standard_normal((window.height, window.width, 3), dtype=np.float32)
        noisy = np.asarray(window, dtype=np.float32) + noise * (255 * options.noise_std)
        window = Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    if generator.random() < options.color_probability:
        enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        ranges = (options.brightness, options.contrast, options.saturation)
        for enhancer, largest in zip(enhancers, ranges, strict=True):
            window = enhancer(window).enhance(1 + generator.uniform(-largest, largest))
        turn = round(256 * generator.uniform(-options.hue, options.hue))
        hue, saturation, value = window.convert("HSV").split()
        hue = Image.fromarray(np.asarray(hue) + np.uint8(turn % 256))
        window = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if generator.random() < options.blur_probability:
        window = window.filter(ImageFilter.GaussianBlur(generator.uniform(0.1, options.max_blur_sigma)))
    return window


def _rows_by_image(rows: Any) -> list[list[int]]:
    """The places of the rows of each image, in the order in which the images come."""
    places: dict[Any, list[int]] = {}
    for place, name in enumerate(row_column(rows, "image_id")):
        if name is None:
            raise ValueError(
                f"`prompts_per_image` puts an image's rows together by their `image_id`, but row {place} has none. "
                "Add the column, or train with one prompt an image."
            )
        places.setdefault(name, []).append(place)
    return list(places.values())


def _shortest_edge(image_processor: Any) -> int:
    """Length of an image's shorter side after the processor resized it."""
    size = image_processor.size
    return int(size["shortest_edge"] if isinstance(size, dict) else size.shortest_edge)


__all__ = ["DensityAugmentation", "DensityTrainingDataset", "density_target", "random_affine"]
