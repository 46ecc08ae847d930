"""CounTR's augmentations of training windows, applied to an image and its points together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageEnhance, ImageFilter

from count_clip.modeling.image_processing_clip_count_density import resized_size


@dataclass(frozen=True)
class DensityAugmentation:
    """
    Probabilities and ranges of the augmentations: CounTR's except the mosaic.

    Args:
        noise_probability (`float`): Of Gaussian noise.
        color_probability (`float`): Of changes of brightness, contrast, saturation and hue.
        blur_probability (`float`): Of a Gaussian blur.
        affine_probability (`float`): Of rotation, scaling, shear and shift.
        horizontal_flip_probability, vertical_flip_probability (`float`): Of flips.
        quarter_turn_probability (`float`): Of a turn by 90, 180 or 270 degrees.
        noise_std (`float`): Standard deviation of the noise, where 1 is white.
        brightness, contrast, saturation, hue (`float`): Largest relative change; of the hue in turns.
        max_blur_sigma (`float`): Widest blur, in pixels of the window.
        max_rotation, max_shear (`float`): Largest angles, in degrees.
        scale (`tuple[float, float]`): Range of the scaling factor.
        max_translation (`float`): Largest shift, as a fraction of the window.

    Raises:
        ValueError: If a probability is not between 0 and 1.

    Source:
        Liu et al., 2022 (https://huggingface.co/papers/2208.13721), with the ranges of its training code. The quarter
        turns are ours.
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
                raise ValueError(f"`{name}` must be between 0 and 1, but got {getattr(self, name)}.")

    @classmethod
    def none(cls) -> DensityAugmentation:
        """No augmentation: windows are only resized and cut."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def random_window(
    image: Image.Image,
    points: ArrayLike,
    generator: np.random.Generator,
    image_processor: Any,
    shortest_edge: int,
    options: DensityAugmentation,
) -> tuple[Image.Image, NDArray[np.float64]]:
    """
    Resize an image to a shorter side of `shortest_edge` (at least that of a window), cut a random window and augment
    it. Returns the window and `points` (x and y, in pixels of the image) in its pixels; some may be outside.
    """
    side = int(image_processor.window_size)
    shortest = max(side, shortest_edge)
    height, width = resized_size(image.height, image.width, shortest, image_processor.max_aspect_ratio)
    left, top = int(generator.integers(0, width - side + 1)), int(generator.integers(0, height - side + 1))
    matrix = _shift(-left, -top)  # from the resized image to the window
    if generator.random() < options.affine_probability:
        matrix = random_affine(generator, side, options) @ matrix
    if generator.random() < options.horizontal_flip_probability:
        matrix = np.array([[-1.0, 0, side], [0, 1, 0], [0, 0, 1]]) @ matrix
    if generator.random() < options.vertical_flip_probability:
        matrix = np.array([[1.0, 0, 0], [0, -1, side], [0, 0, 1]]) @ matrix
    # No random number without it: other runs stay the same.
    if options.quarter_turn_probability and generator.random() < options.quarter_turn_probability:
        quarter = np.array([[0.0, -1, side], [1, 0, 0], [0, 0, 1]])
        matrix = np.linalg.matrix_power(quarter, int(generator.integers(1, 4))) @ matrix
    window = _warp(image, (width, height), matrix, side, image_processor.resample)
    window = _change_pixels(window, generator, options)
    xy = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    # Points on the far border belong to the last pixel.
    xy = np.where(xy == image.size, np.nextafter(image.size, 0.0), xy)
    # A very long image is squeezed: x and y have different factors.
    xy = xy * (width / image.width, height / image.height)
    return window, xy @ matrix[:2, :2].T + matrix[:2, 2]


def random_affine(generator: np.random.Generator, side: int, options: DensityAugmentation) -> NDArray[np.float64]:
    """Draw the 3 x 3 matrix of a rotation, scaling, shear and shift about the middle of a window, in its pixels."""
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
    """The window that `matrix` cuts from the image resized to `size` (width, height); black outside the image."""
    inverse = np.linalg.inv(matrix)
    corners = inverse @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]], dtype=np.float64)
    # Whole pixels are exact up to rounding errors; interpolation needs one more on each side.
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
    # Pillow's six numbers map pixels of the window to those of the image.
    coefficients = tuple(to_part[:2].ravel().tolist())
    nearest = margin == 0
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return part.transform((side, side), Image.Transform.AFFINE, coefficients, resample=method)


def _is_whole(matrix: NDArray[np.floating[Any]]) -> bool:
    """Whether a map sends pixels to pixels: flips, quarter turns and shifts by whole numbers."""
    linear = np.abs(np.round(matrix[:2, :2]))
    moves = np.array_equal(linear, np.eye(2)) or np.array_equal(linear, np.eye(2)[::-1])
    return bool(moves and np.allclose(matrix, np.round(matrix), atol=1e-6))


def _change_pixels(window: Image.Image, generator: np.random.Generator, options: DensityAugmentation) -> Image.Image:
    """Noise, colours and blur."""
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


__all__ = ["DensityAugmentation", "random_affine", "random_window"]
