"""The losses of a training as an image, for its card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont


_SIZE = (960, 540)
_MARGINS = (92, 30, 28, 64)  # left, top, right, bottom
_COLOURS = ("#1f5f9f", "#d1306f", "#2f8f4e", "#b8740f", "#6b4fa0", "#55606e")
_INK, _FAINT = "#30363d", "#d8dde3"
# Of values further apart than this, the small ones would lie on the axis.
_DECADES_FOR_LOG = 50.0


def loss_series(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """
    Take the losses from what a `Trainer` has logged.

    Args:
        history (`Sequence[Mapping[str, Any]]`): `trainer.state.log_history`.

    Returns:
        `dict[str, list[tuple[float, float]]]`: For each loss its steps and finite values, in the order of the steps.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            is_loss = name == "loss" or name.endswith("_loss")
            if is_loss and name != "train_loss" and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(name, []).append((float(entry.get("step", 0)), float(value)))
    return {name: sorted(points) for name, points in series.items()}


def draw_losses(series: Mapping[str, Sequence[tuple[float, float]]]) -> Image.Image:
    """
    Draw losses over the steps.

    Args:
        series (`Mapping[str, Sequence[tuple[float, float]]]`): From [`loss_series`]; at least one point in all.

    Returns:
        `PIL.Image.Image`: 960 x 540 pixels. The scale is logarithmic where the values span more than a factor of 50.

    Raises:
        ValueError: If there is nothing to draw.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        raise ValueError("Expected at least one loss to draw, but nothing was logged. Set `logging_steps`.")
    steps, values = [step for step, _ in points], [value for _, value in points]
    is_log = min(values) > 0 and max(values) / min(values) > _DECADES_FOR_LOG
    across = _scale(min(steps), max(steps), _MARGINS[0], _SIZE[0] - _MARGINS[2])
    if is_log:
        ticks = _decades(min(values), max(values))
        low, high = math.log10(min(values)), math.log10(max(values))
    else:
        ticks = _round_ticks(min(0.0, min(values)), max(values))
        low, high = ticks[0], max(ticks[-1], max(values))
    up = _scale(low, high, _SIZE[1] - _MARGINS[3], _MARGINS[1])

    def height(value: float) -> float:
        return up(math.log10(value) if is_log else value)

    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=17)
    for tick in ticks:
        y = height(tick)
        draw.line((_MARGINS[0], y, _SIZE[0] - _MARGINS[2], y), fill=_FAINT)
        draw.text((_MARGINS[0] - 10, y), f"{tick:g}", fill=_INK, font=font, anchor="rm")
    for tick in _round_ticks(min(steps), max(steps)):
        if min(steps) <= tick <= max(steps):
            draw.text((across(tick), _SIZE[1] - _MARGINS[3] + 10), f"{tick:g}", fill=_INK, font=font, anchor="ma")
    draw.text((_SIZE[0] - _MARGINS[2], _SIZE[1] - 12), "step", fill=_INK, font=font, anchor="rb")
    left = float(_MARGINS[0])
    for index, (name, line) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        places = [(across(step), height(value)) for step, value in line]
        draw.line(places, fill=colour, width=2)
        for x, y in places if len(places) < 40 else []:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        draw.line((left, _SIZE[1] - 20, left + 22, _SIZE[1] - 20), fill=colour, width=3)
        draw.text((left + 28, _SIZE[1] - 20), name, fill=_INK, font=font, anchor="lm")
        left += 52 + draw.textlength(name, font=font)
    return image


def _scale(low: float, high: float, first: float, last: float) -> Any:
    """The function that maps low to first and high to last."""
    span = high - low or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _round_ticks(low: float, high: float) -> list[float]:
    """Some four to eight round numbers that begin at or below `low`."""
    span = high - low or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= 7)
    first, last = math.floor(low / step), math.floor(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    numbers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [10.0**number for number in numbers if low <= 10.0**number <= high]


__all__ = ["draw_losses", "loss_series"]
