"""Figures of relevance: heat over the image, with the coloured words of the caption below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from count_clip.modeling.images import open_image, to_rgb

from ..figures.figures import blend, kept_brightness, resize_to_draw
from ..figures.style import Font, font_of, heat_colours, shorten, text_size
from .explain import Relevance, WordRelevance
from .frames import Frame, upsample


_SHEET = (32, 32, 37)
_INK = (255, 255, 255)
_DARK_INK = (24, 24, 28)
_FAINT = (168, 168, 176)
_PLATE = (58, 58, 66)
_SMALLEST_SIDE = 384
_UNSEEN = 0.35
_BRIGHT = 4.0  # the least end of the scale, as a multiple of an even share of the relevance


def draw_relevance(
    image: Any,
    relevance: Relevance,
    *,
    title: str | None = None,
    opacity: float = 0.9,
    max_side: int = 2048,
) -> Image.Image:
    """
    Draw the relevance of patches and words for a score.

    The image is darkened, and the relevance of its patches drawn over it from violet to pale yellow, with `opacity` (0
    to 1) for the most relevant one. The bright end of the scale is the most relevant patch, but at least four times an
    even share, so that evenly distributed relevance is dark. Cropped regions are nearly black. Below are the words of
    the caption, the brightest for the most relevant one, each with its share of the relevance of all words. Colours
    can be compared within one figure, percentages between figures. The longer side is reduced to `max_side`; a small
    image is enlarged by a whole factor.

    Raises a `ValueError` if the image cannot be read or is not of the size that was explained, or an option is out of
    its range.
    """
    photo = to_rgb(open_image(image))
    frame = relevance.frame
    if photo.size != (frame.width, frame.height):
        raise ValueError(
            f"Expected the image that was explained, of {frame.width} x {frame.height} pixels, but got one of "
            f"{photo.width} x {photo.height}."
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"Expected `opacity` between 0 and 1, but got {opacity}.")
    photo, _ = resize_to_draw(photo, _SMALLEST_SIDE, max_side)
    frame = frame.scaled(*photo.size)
    values = upsample(relevance.patches, frame)
    top = max(float(relevance.patches.max()), _BRIGHT * float(relevance.patches.mean()))
    strength = np.clip(values / top, 0.0, 1.0) if top > 0 else np.zeros_like(values)
    heated = _darken_unseen(blend(photo, strength, opacity, kept_brightness(photo)), frame)
    return _on_sheet(heated, relevance, title)


def _darken_unseen(canvas: Image.Image, frame: Frame) -> Image.Image:
    """Darken the cropped regions, so that they do not look irrelevant."""
    seen = (round(frame.left), round(frame.top), round(frame.right), round(frame.bottom))
    if seen[0] <= 0 and seen[1] <= 0 and seen[2] >= canvas.width and seen[3] >= canvas.height:
        return canvas
    dark = canvas.point([round(level * _UNSEEN) for level in range(256)] * 3)
    inside = (max(0, seen[0]), max(0, seen[1]), min(canvas.width, seen[2]), min(canvas.height, seen[3]))
    dark.paste(canvas.crop(inside), inside[:2])
    return dark


def _on_sheet(heated: Image.Image, relevance: Relevance, title: str | None) -> Image.Image:
    """The image on a sheet, with a title above, words and a remark below."""
    size = float(np.clip(max(heated.size) * 0.042, 15, 44))
    font, small = font_of(size), font_of(size * 0.66)
    pad = round(size * 0.6)
    width = max(heated.width, round(size * 16))
    lines = _lines(relevance.words(), font, small, width - 2 * pad, round(size * 0.35))
    line_height = round(size * 2.75)
    heading = round(size * 1.9) if title else 0
    remark_height = round(size * 1.5)
    height = heading + heated.height + pad + len(lines) * line_height + remark_height + pad // 2
    sheet = Image.new("RGB", (width, height), _SHEET)
    sheet.paste(heated, ((width - heated.width) // 2, heading))
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((pad, heading / 2), shorten(title, font, width - 2 * pad), fill=_INK, font=font, anchor="lm")
    most = max((word.share for word in relevance.words() if not math.isnan(word.share)), default=0.0)
    top = heading + heated.height + pad
    for line in lines:
        left = float(pad)
        for word, word_width in line:
            _draw_word(draw, word, most, (left, top, word_width, line_height), size)
            left += word_width + round(size * 0.35)
        top += line_height
    remark = shorten(_remark(relevance), small, width - 2 * pad)
    draw.text((pad, top + remark_height / 2), remark, fill=_FAINT, font=small, anchor="lm")
    return sheet


def _lines(
    words: Sequence[WordRelevance], font: Font, small: Font, width: int, gap: int
) -> list[list[tuple[WordRelevance, int]]]:
    """The words in lines that fit, each with the width of its plate."""
    lines: list[list[tuple[WordRelevance, int]]] = [[]]
    used = 0
    for word in words:
        own = max(text_size(font, word.text)[0], text_size(small, _percent(word.share))[0]) + 2 * gap
        own = min(own, width)
        if lines[-1] and used + own > width:
            lines.append([])
            used = 0
        lines[-1].append((word, own))
        used += own + gap
    return lines


def _draw_word(
    draw: ImageDraw.ImageDraw,
    word: WordRelevance,
    most: float,
    box: tuple[float, float, float, float],
    size: float,
) -> None:
    """A word on a plate in the colour of its relevance, with its percentage below."""
    left, top, width, _ = box
    strength = word.share / most if most > 0 and not math.isnan(word.share) else 0.0
    heat = heat_colours()[min(255, int(strength * 255))]
    weight = math.sqrt(max(0.0, (strength - 0.02) / 0.98))
    colour = tuple(round(weight * float(hot) + (1 - weight) * cold) for hot, cold in zip(heat, _PLATE, strict=True))
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    height = round(size * 1.55)
    draw.rounded_rectangle((left, top, left + width, top + height), radius=round(size * 0.3), fill=colour)
    label = shorten(word.text, font_of(size), round(width))
    middle = left + width / 2
    draw.text((middle, top + height / 2), label, fill=_DARK_INK if bright else _INK, font=font_of(size), anchor="mm")
    below = top + height + size * 0.5
    draw.text((middle, below), _percent(word.share), fill=_FAINT, font=font_of(size * 0.66), anchor="mm")


def _percent(share: float) -> str:
    if math.isnan(share):
        return "-"
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"


def _remark(relevance: Relevance) -> str:
    """Score and largest share of a patch."""
    shares = relevance.patch_shares()
    if np.isnan(shares).any():
        return f"score {relevance.score:.2f}; no patch has relevance"
    even = 1 / shares.size
    return f"score {relevance.score:.2f}; brightest patch {shares.max():.1%} of the relevance (even: {even:.1%})"


def side_by_side(figures: Sequence[Image.Image]) -> Image.Image:
    """Put figures, such as those before and after training, side by side; a `ValueError` if there is none."""
    if not figures:
        raise ValueError("Expected at least one figure, but got none.")
    gap = max(4, round(figures[0].width * 0.015))
    width = sum(figure.width for figure in figures) + gap * (len(figures) - 1)
    sheet = Image.new("RGB", (width, max(figure.height for figure in figures)), _SHEET)
    left = 0
    for figure in figures:
        sheet.paste(figure, (left, 0))
        left += figure.width + gap
    return sheet


__all__ = ["draw_relevance", "side_by_side"]
