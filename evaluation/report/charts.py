"""
Drawings as SVG inside a page: they take its colours (dark ones too), need no script and say in words what they show.

They are drawn here and not by a plotting library because those (matplotlib, Plotly, Vega) fix the colours when they
draw, turn text into outlines or bring megabytes of script; a drawing of these functions has a few kilobytes, tells
each point's numbers under the pointer and is the same to the byte each time.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .metrics import Metric


Element = ElementTree.Element

WIDTH, HEIGHT = 380, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 52
SERIES = 6
"""How many colours and signs there are before they begin again."""
_TOLD_POINTS = 400  # points with words of their own; of more, only those furthest from the truth


def _tick(value: float) -> str:
    """A number at an axis."""
    return f"{value:g}".replace("-", "−")


@dataclass(frozen=True)
class Point:
    """A place in a chart, and what it says under the pointer."""

    x: float
    y: float
    text: str = ""
    series: int = 0
    low: float | None = None
    """Where its interval begins, if it has one."""
    high: float | None = None
    """Where its interval ends."""


@dataclass(frozen=True)
class Scale:
    """How numbers become places along an axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a number; numbers beyond the ends are put there."""
        low, high, value = (math.log10(1 + max(n, 0.0)) if self.log else n for n in (self.low, self.high, value))
        part = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(max(part, 0.0), 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Numbers to write along the axis."""
        return log_ticks(self.high) if self.log else ticks(self.low, self.high)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """
    Round numbers between two others.

    Args:
        low (`float`): The smallest that may be.
        high (`float`): The largest that may be.
        about (`int`): How many there should be.

    Returns:
        `list[float]`: Multiples of 1, 2 or 5 times a power of ten.
    """
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    return [round(step * number, 12) for number in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def log_ticks(high: float) -> list[float]:
    """0, 1, 3, 10, 30, ... up to a number, for an axis of log(1 + n)."""
    found = [0.0]
    power = 1.0
    while power <= high:
        found += [number for number in (power, 3 * power) if number <= high]
        power *= 10
    return found if len(found) <= 8 else [0.0, *(number for number in found[1:] if str(number)[0] == "1")]


def scatter(points: Sequence[Point], title: str, signs: Sequence[str] = (), log: bool = False) -> Markup:
    """
    Predicted against true counts, with the line on which both are the same.

    Args:
        points (`Sequence[Point]`): `x` is true, `y` predicted; the series choose colour and sign.
        title (`str`): What the drawing is, in words, for those who do not see it.
        signs (`Sequence[str]`): What the series are.
        log (`bool`): Whether the axes are those of log(1 + n), for counts of wide range.

    Returns:
        `Markup`: An `<svg>`.
    """
    largest = max([1.0, *(point.x for point in points), *(point.y for point in points)])
    lowest = 0.0 if log else min([0.0, *(point.y for point in points)])
    across = Scale(0.0, largest * 1.03, _LEFT, WIDTH - _RIGHT, log)
    up = Scale(lowest, largest * 1.03, HEIGHT - _BOTTOM, _TOP, log)
    svg = _frame(title, across, up, "true count", "predicted count")
    _line(svg, "truth", across(0), up(0), across(largest), up(largest))
    radius = 3.2 if len(points) <= 150 else 2.4
    told = set(sorted(range(len(points)), key=lambda i: -abs(points[i].y - points[i].x))[:_TOLD_POINTS])
    quiet: dict[int, list[str]] = {}
    for place, point in enumerate(points):
        x, y = across(point.x), up(point.y)
        if place in told:
            _sign(svg, x, y, point.series, point.text, radius)
        else:
            quiet.setdefault(point.series, []).append(f"M{_n(x)} {_n(y)}h0")
    for series, places in sorted(quiet.items()):
        _add(svg, "path", {"class": f"dots s{series % SERIES}", "d": "".join(places), "stroke-width": 2 * radius})
    return _written(svg)


def lines(
    series: Sequence[Sequence[Point]],
    labels: Sequence[str],
    title: str,
    x_title: str,
    metric: Metric,
) -> Markup:
    """
    A line for each model over ordered groups, with an interval at each point that has one.

    Args:
        series (`Sequence[Sequence[Point]]`): The models; `x` is the place in `labels`.
        labels (`Sequence[str]`): The groups.
        title (`str`): What the drawing is, in words.
        x_title (`str`): What the groups are.
        metric ([`Metric`]): What the height is.

    Returns:
        `Markup`: An `<svg>`.
    """
    part = metric.unit == "part"
    y_title, y_text = (metric.title, _percent) if part else (f"{metric.title}, {metric.unit}".strip(", "), _tick)
    ends = [n for line in series for point in line for n in (point.y, point.low, point.high) if n is not None]
    low, high = min([0.0, *ends]), max([*ends, 1e-9]) * 1.05
    up = Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    across = Scale(-0.5, len(labels) - 0.5, _LEFT, WIDTH - _RIGHT)
    svg = _frame(title, None, up, x_title, y_title, y_text)
    # Labels that do not fit beside each other stand in two lines; of more than fit there, some are left out.
    room = (WIDTH - _LEFT - _RIGHT) / (6.6 * max(len(label) + 1 for label in labels))
    two_lines = len(labels) > room
    every = math.ceil(len(labels) / (2 * room))
    for place, label in enumerate(labels):
        if place % every == 0:
            below = 28 if two_lines and place // every % 2 else 15
            _text(svg, across(place), HEIGHT - _BOTTOM + below, label, "middle")
    spread = 4.0 if len(series) > 1 else 0.0
    for number, line in enumerate(series):
        shift = spread * (number - (len(series) - 1) / 2)
        places = [(across(point.x) + shift, up(point.y), point) for point in line]
        if len(places) > 1:
            path = "L".join(f"{_n(x)} {_n(y)}" for x, y, _ in places)
            _add(svg, "path", {"class": f"line s{number % SERIES}", "d": f"M{path}"})
        for x, y, point in places:
            if point.low is not None and point.high is not None:
                _line(svg, f"interval s{number % SERIES}", x, up(point.low), x, up(point.high))
            _sign(svg, x, y, number, point.text, 3.6)
    return _written(svg)


def reliability(bins: Sequence[tuple[float, float, int]], title: str) -> Markup:
    """
    How often what is said with so much confidence is right: on the line, as often as the confidence promises.

    Args:
        bins (`Sequence[tuple[float, float, int]]`): Mean confidence, part that is right, and rows.
        title (`str`): What the drawing is, in words.

    Returns:
        `Markup`: An `<svg>`; the larger a disc, the more rows it stands for.
    """
    across = Scale(0.0, 1.0, _LEFT, WIDTH - _RIGHT)
    up = Scale(0.0, 1.0, HEIGHT - _BOTTOM, _TOP)
    svg = _frame(title, across, up, "confidence", "part that is right", _percent, _percent)
    _line(svg, "truth", across(0), up(0), across(1), up(1))
    most = max([rows for _, _, rows in bins], default=1)
    for confidence, right, rows in bins:
        text = f"{rows} rows said with {confidence:.0%} confidence: {right:.0%} right"
        _sign(svg, across(confidence), up(right), 0, text, 3 + 8 * math.sqrt(rows / most))
    return _written(svg)


def bars(values: Sequence[float], labels: Sequence[str], title: str, marked: Sequence[int] = ()) -> Markup:
    """
    Small bars from the lowest value up: which of a few candidates is preferred.

    Args:
        values (`Sequence[float]`): One for each candidate.
        labels (`Sequence[str]`): What they are.
        title (`str`): What the drawing is, in words.
        marked (`Sequence[int]`): Places of candidates that are right.

    Returns:
        `Markup`: An `<svg>`.
    """
    width, height = 240, 74
    svg = _svg(title, width, height)
    low, high = min(values), max(values)
    step = width / len(values)
    for place, (value, label) in enumerate(zip(values, labels, strict=True)):
        tall = 4 + 48 * ((value - low) / (high - low) if high > low else 0.0)
        name = "bar right" if place in marked else "bar"
        bar = _add(
            svg, "rect", {"class": name, "x": place * step + 2, "y": 56 - tall, "width": step - 4, "height": tall}
        )
        _add(bar, "title", {}, f"{label}: {value:.4f}")
        _text(svg, (place + 0.5) * step, 69, label, "middle")
    return _written(svg)


def _percent(value: float) -> str:
    return f"{round(100 * value, 6):g} %"


def _n(value: float) -> str:
    """A coordinate: one digit is a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def _svg(title: str, width: int, height: int) -> Element:
    return ElementTree.Element("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": title})


def _add(parent: Element, tag: str, attributes: dict[str, str | float], text: str | None = None) -> Element:
    """A new element; numbers among its attributes are written short."""
    written = {name: value if isinstance(value, str) else _n(value) for name, value in attributes.items()}
    child = ElementTree.SubElement(parent, tag, written)
    child.text = text
    return child


def _line(svg: Element, name: str, x1: float, y1: float, x2: float, y2: float) -> None:
    _add(svg, "line", {"class": name, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def _text(svg: Element, x: float, y: float, text: str, anchor: str) -> Element:
    return _add(svg, "text", {"x": x, "y": y, "text-anchor": anchor}, text)


def _sign(svg: Element, x: float, y: float, series: int, text: str, radius: float) -> None:
    """A disc, square, triangle or diamond: those who do not tell the colours apart have the shapes."""
    r = radius
    shape = series % 4
    name = f"sign s{series % SERIES}"
    if shape == 0:
        sign = _add(svg, "circle", {"class": name, "cx": x, "cy": y, "r": r})
    elif shape == 1:
        sign = _add(
            svg, "rect", {"class": name, "x": x - r * 0.9, "y": y - r * 0.9, "width": r * 1.8, "height": r * 1.8}
        )
    else:
        corners = [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)] if shape == 2 else [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)]
        path = "L".join(f"{_n(x + dx * r)} {_n(y + dy * r)}" for dx, dy in corners)
        sign = _add(svg, "path", {"class": name, "d": f"M{path}Z"})
    if text:
        _add(sign, "title", {}, text)


def _frame(
    title: str,
    across: Scale | None,
    up: Scale,
    x_title: str,
    y_title: str,
    y_text: Callable[[float], str] = _tick,
    x_text: Callable[[float], str] = _tick,
) -> Element:
    """Axes with their numbers and names."""
    svg = _svg(title, WIDTH, HEIGHT)
    for value in up.ticks():
        _line(svg, "grid", _LEFT, up(value), WIDTH - _RIGHT, up(value))
        _text(svg, _LEFT - 6, up(value) + 4, y_text(value), "end")
    if across is not None:
        for value in across.ticks():
            _line(svg, "grid", across(value), _TOP, across(value), HEIGHT - _BOTTOM)
            _text(svg, across(value), HEIGHT - _BOTTOM + 15, x_text(value), "middle")
    _text(svg, (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, x_title, "middle")
    turned = _text(svg, 0, 0, y_title, "middle")
    turned.set("transform", f"translate(11 {_n((_TOP + HEIGHT - _BOTTOM) / 2)}) rotate(-90)")
    return svg


def sign_alone(series: int) -> Markup:
    """The sign of a series, for the explanation of colours and shapes."""
    svg = ElementTree.Element("svg", {"viewBox": "0 0 12 12", "class": "key", "aria-hidden": "true"})
    _sign(svg, 6, 6, series, "", 4)
    return _written(svg)


def _written(svg: Element) -> Markup:
    # ElementTree escapes what comes from data; and HTML knows no elements that close themselves but inside <svg>.
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


__all__ = ["SERIES", "Point", "Scale", "bars", "lines", "log_ticks", "reliability", "scatter", "sign_alone", "ticks"]
