"""Colours and words for figures: scales that look even, and text that fits."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# The heat colours, dark to bright: lightness rises in even steps (in OKLab) while the hue goes from violet over red to
# yellow, so that "brighter" always means "more", in grey print and to colour-blind eyes too.
HEAT_ANCHORS = ("#4a1a8c", "#8f1d9b", "#d1306f", "#f4653a", "#fca428", "#fdf0a0")
SHEET_ANCHORS = ("#f6f7f9", "#cfdfee", "#93bddd", "#4b8fc4", "#1f5f9f", "#0b2f63")


def oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB in 0..1 to OKLab (Ottosson, 2020), where equal steps look equal."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ to_cones.T) @ to_lab.T


def srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab back to sRGB in 0..1."""
    from_lab = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    from_cones = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ from_lab.T) ** 3 @ from_cones.T, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@lru_cache(maxsize=8)
def colour_table(anchors: tuple[str, ...]) -> NDArray[np.float32]:
    """256 colours through a few anchors, spaced so that lightness grows evenly. Shape `(256, 3)`, 0..255."""
    rgb = np.array([[int(anchor[i : i + 2], 16) / 255 for i in (1, 3, 5)] for anchor in anchors])
    lab = oklab(rgb)
    lightness = lab[:, 0]
    order = 1 if lightness[-1] > lightness[0] else -1
    wanted = np.linspace(lightness[0], lightness[-1], 256)
    table = np.stack([np.interp(order * wanted, order * lightness, lab[:, channel]) for channel in range(3)], axis=1)
    return (srgb(table) * 255).astype(np.float32)


def font_of(size: float) -> Font:
    """The font that Pillow carries, at a size in pixels."""
    return ImageFont.load_default(size=max(6, round(size)))


def text_size(font: Font, text: str) -> tuple[int, int]:
    """Width of a text, and the line height of its font, in pixels."""
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Äg")
    return math.ceil(right - left), math.ceil(bottom - top)


def shorten(text: str, font: Font, width: int) -> str:
    """Cut a text, with an ellipsis, to what fits in a width."""
    if text_size(font, text)[0] <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        if text_size(font, text[:middle].rstrip() + "...")[0] <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "..."


def wrap(text: str, font: Font, width: int, max_lines: int) -> list[str]:
    """Break a text into lines that fit in a width; what does not fit in the last one is cut."""
    words, lines = text.split(), [""]
    for index, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or text_size(font, longer)[0] <= width:
            lines[-1] = longer
        elif len(lines) < max_lines:
            lines.append(word)
        else:
            lines[-1] = " ".join([lines[-1], *words[index:]])
            break
    return [shorten(line, font, width) for line in lines]


__all__ = [
    "HEAT_ANCHORS",
    "SHEET_ANCHORS",
    "Font",
    "colour_table",
    "font_of",
    "oklab",
    "shorten",
    "srgb",
    "text_size",
    "wrap",
]
