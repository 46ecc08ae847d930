"""Backgrounds of `countscenes` (named colours, smooth or with a texture), and the effects of a camera."""

import io
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from .objects import RGB, color_distance, read_colors


BACKGROUND_COLORS = read_colors("backgrounds")
BACKGROUND_STYLES = ("solid", "gradient", "clouds", "stripes", "checks", "speckles")

# The least distance (see [`color_distance`]) between an object's colour and the background's. Found by looking: below
# it, small objects are hard to see on the uneven backgrounds.
_LEAST_CONTRAST = 95.0
# The same for objects with black outlines, which set them off from light backgrounds and not from dark ones.
_OUTLINED_CONTRAST = {
    name: 60.0 if color_distance(rgb, (0, 0, 0)) > 230 else 130.0 for name, rgb in BACKGROUND_COLORS.items()
}
# How far, in levels of 0-255, an uneven background may be from its colour.
_MOST_UNEVENNESS = 26


@lru_cache(maxsize=4096)
def _contrasts(color: RGB) -> tuple[float, ...]:
    """The distance of a colour to each of `BACKGROUND_COLORS`."""
    return tuple(color_distance(background, color) for background in BACKGROUND_COLORS.values())


def backgrounds_against(colors: Iterable[RGB], outlined: bool = False) -> tuple[str, ...]:
    """
    List the keys of `BACKGROUND_COLORS` on which objects of one or more colours stand out.

    If none has enough contrast to all the colours, it is the one that has most. `outlined` states whether the objects
    have black outlines.
    """
    contrasts = dict(zip(BACKGROUND_COLORS, map(min, zip(*map(_contrasts, colors), strict=True)), strict=True))
    enough = tuple(
        name
        for name, contrast in contrasts.items()
        if contrast >= (_OUTLINED_CONTRAST[name] if outlined else _LEAST_CONTRAST)
    )
    return enough or (max(contrasts, key=lambda name: contrasts[name]),)


def draw_background(rng: np.random.RandomState, name: str, style: str, side: int) -> Image.Image:
    """
    Draw an RGB background of `side` pixels, whose colours stay near the named one (a key of `BACKGROUND_COLORS`).
    """
    base = np.array(BACKGROUND_COLORS[name]) + rng.randint(-8, 9, size=3)
    if style == "solid":
        return Image.new("RGB", (side, side), tuple(np.clip(base, 0, 255).tolist()))
    # Mostly lighter and darker, a little towards another hue.
    shift = rng.randint(8, _MOST_UNEVENNESS - 5) * (1 if rng.randint(2) else -1) + rng.randint(-6, 7, size=3)
    if style in ("gradient", "clouds"):
        cells = 2 if style == "gradient" else int(rng.randint(3, 9))
        weights = rng.randint(-128, 129, size=(cells, cells, 1))
        small = Image.fromarray(_levels(base + weights * shift // 128))
        return small.resize((side, side), Image.Resampling.BICUBIC)
    weights = _speckles(rng, side) if style == "speckles" else _tiles(rng, style, side)
    # Two colours suffice: a palette look-up is faster than the arithmetic for each pixel.
    palette = _levels(np.stack([base - shift // 2, base + shift // 2]))
    return Image.fromarray(palette[weights])


def _tiles(rng: np.random.RandomState, style: str, side: int) -> np.ndarray:
    """Stripes in any direction, or checks: an array `(side, side)` of zeros and ones, by whole-number arithmetic."""
    period = int(rng.randint(max(4, side // 28), max(6, side // 7)))
    # A direction (x, y) of about this length; the stripes are `period` pixels wide.
    length = 64
    x, y = int(rng.randint(-length, length + 1)), int(rng.randint(16, length + 1))
    unit = max(1, round((x * x + y * y) ** 0.5) * period)
    ramp = np.arange(side, dtype=np.int32)
    across = (ramp[None, :] * x + ramp[:, None] * y) // unit
    if style == "checks":
        across = across + (ramp[None, :] * y - ramp[:, None] * x) // unit
    return across & 1


def _speckles(rng: np.random.RandomState, side: int) -> np.ndarray:
    """Blots of a few pixels: an array `(side, side)` of zeros and ones."""
    grain = int(rng.randint(2, 5))
    cells = -(-side // grain)
    dark = np.frombuffer(rng.bytes(cells * cells), dtype=np.uint8).reshape(cells, cells) < int(rng.randint(30, 129))
    return dark.repeat(grain, axis=0).repeat(grain, axis=1)[:side, :side].view(np.uint8)


def _levels(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def add_grain(rng: np.random.RandomState, image: Image.Image, strength: int) -> Image.Image:
    """Add a camera's noise to an RGB image: each pixel changes by at most `strength` levels of 0-255."""
    width, height = image.size
    noise = np.frombuffer(rng.bytes(width * height), dtype=np.uint8).astype(np.int16)
    noise = (noise * (2 * strength + 1) >> 8) - strength
    values = np.asarray(image).astype(np.int16) + noise.reshape(height, width, 1)
    return Image.fromarray(_levels(values))


def blur(rng: np.random.RandomState, image: Image.Image) -> Image.Image:
    """Blur an RGB image a little, as a camera out of focus does."""
    # In sixty-fourths of a pixel; a quarter to three quarters of one in an image of 224.
    radius = max(1, round(image.width * (0.001 + 0.0024 * rng.random_sample()) * 64)) / 64
    return image.filter(ImageFilter.BoxBlur(radius))


def compress(rng: np.random.RandomState, image: Image.Image) -> Image.Image:
    """Give an RGB image the artefacts of a JPEG file of a quality of 40-95."""
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=int(rng.randint(40, 96)))
    with Image.open(file) as compressed:
        return compressed.convert("RGB")
