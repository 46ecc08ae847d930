"""What `countscenes` draws its objects on: named colours, plain or with a gradient, smooth noise or a texture."""

from collections.abc import Iterable
from functools import cache

import numpy as np
from PIL import Image

from .scene_objects import COLORS, RGB


BACKGROUND_COLORS: dict[str, RGB] = {
    "white": (250, 250, 248),
    "cream": (246, 234, 206),
    "light gray": (204, 206, 210),
    "dark gray": (78, 80, 86),
    "black": (18, 18, 20),
    "pale blue": (182, 212, 240),
    "dark blue": (22, 34, 84),
    "pale green": (196, 228, 186),
    "dark green": (22, 60, 40),
    "pale pink": (246, 214, 220),
    "dark red": (92, 18, 28),
    "tan": (202, 166, 120),
    "dark brown": (62, 40, 26),
    "lavender": (210, 200, 238),
}
BACKGROUND_STYLES = ("solid", "gradient", "clouds", "stripes", "checks", "speckles")

# The least distance (see `_distance`) between an object's colour and the background's. Found by looking: below it,
# small objects are hard to see on the uneven backgrounds.
_LEAST_CONTRAST = 95.0
# How far, in levels of 0-255, an uneven background may be from its colour.
_MOST_UNEVENNESS = 26


def _distance(first: RGB, second: RGB) -> float:
    """Distance of two colours in levels of 0-255, weighted by how well the eye tells each channel's levels apart."""
    red, green, blue = (a - b for a, b in zip(first, second, strict=True))
    return float((0.24 * red * red + 0.6 * green * green + 0.16 * blue * blue) ** 0.5 * 1.5)


@cache
def _backgrounds_behind(colors: frozenset[str]) -> tuple[str, ...]:
    contrasts = {
        name: min(_distance(background, COLORS[color]) for color in colors)
        for name, background in BACKGROUND_COLORS.items()
    }
    enough = tuple(name for name, contrast in contrasts.items() if contrast >= _LEAST_CONTRAST)
    return enough or (max(contrasts, key=lambda name: contrasts[name]),)


def backgrounds_behind(colors: Iterable[str]) -> tuple[str, ...]:
    """
    List the backgrounds on which objects of some colours stand out.

    Args:
        colors (`Iterable[str]`): Keys of `COLORS`, at least one.

    Returns:
        `tuple[str, ...]`: Keys of `BACKGROUND_COLORS`, at least one: where none has enough contrast to all the
        colours, the one that has most.
    """
    return _backgrounds_behind(frozenset(colors))


def draw_background(rng: np.random.RandomState, name: str, style: str, side: int) -> Image.Image:
    """
    Draw a background.

    Args:
        rng (`numpy.random.RandomState`): Where the choices come from.
        name (`str`): A key of `BACKGROUND_COLORS`.
        style (`str`): One of `BACKGROUND_STYLES`.
        side (`int`): Side of the picture in pixels.

    Returns:
        `PIL.Image.Image`: An RGB picture of that side, whose colours stay near the named one.
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
    if style == "speckles":
        weights = _speckles(rng, side)
    else:
        weights = _tiles(rng, style, side)
    # Two colours suffice: a palette is looked up faster than the arithmetic is done for each pixel.
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


def add_grain(rng: np.random.RandomState, picture: Image.Image, strength: int) -> Image.Image:
    """
    Add a camera's noise: every pixel becomes a little lighter or darker, evenly distributed.

    Args:
        rng (`numpy.random.RandomState`): Where the noise comes from.
        picture (`PIL.Image.Image`): An RGB picture.
        strength (`int`): The most that a pixel changes by, in levels of 0-255.

    Returns:
        `PIL.Image.Image`: A new RGB picture of the same size.
    """
    width, height = picture.size
    noise = np.frombuffer(rng.bytes(width * height), dtype=np.uint8).astype(np.int16)
    noise = (noise * (2 * strength + 1) >> 8) - strength
    values = np.asarray(picture).astype(np.int16) + noise.reshape(height, width, 1)
    return Image.fromarray(_levels(values))
