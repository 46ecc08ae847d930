"""Colours and text of figures."""

from __future__ import annotations

import math
from bisect import bisect
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# From violet over red to yellow, with lightness in even steps (in OKLab): brighter is more, in grey print and to
# colour-blind readers too.
HEAT = ["4a1a8c", "6e1f94", "922099", "b72e81", "d83d68", "ec5a4c", "f77a36", "fb9c2c", "feb951", "fed57b", "fdf0a0"]


@cache
def heat_colours() -> NDArray[np.float32]:
    """256 RGB colours from little to much, of shape `(256, 3)`, 0 to 255."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in HEAT])
    places = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(places, range(len(anchors)), channel) for channel in anchors.T]
    return np.stack(channels, axis=1).astype(np.float32)


def font_of(size: float) -> Font:
    """Pillow's own font at a size in pixels."""
    return ImageFont.load_default(size=max(6, round(size)))


def text_size(font: Font, text: str) -> tuple[int, int]:
    """Width of a text and line height of its font, in pixels."""
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Äg")
    return math.ceil(right - left), math.ceil(bottom - top)


def shorten(text: str, font: Font, width: int) -> str:
    """Cut a text with an ellipsis to fit in a width."""
    if text_size(font, text)[0] <= width:
        return text
    too_long = bisect(range(len(text) + 1), width, key=lambda end: text_size(font, f"{text[:end].rstrip()}...")[0])
    return f"{text[: max(too_long - 1, 0)].rstrip()}..."


def wrap(text: str, font: Font, width: int, max_lines: int) -> list[str]:
    """Break a text into lines that fit in a width; the last one is cut if the rest is too long."""
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


__all__ = ["Font", "font_of", "heat_colours", "shorten", "text_size", "wrap"]
