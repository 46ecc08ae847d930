"""
Charts as SVG within the page.

A plotting library would fix the colours when it draws (the page has dark ones), turn text into outlines or need
scripts; these charts have a few kilobytes, describe themselves in words, and are the same to the byte each time.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .metrics import Metric, write_number


Element = ElementTree.Element
Format = Callable[[float], str]

WIDTH, HEIGHT = 380, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 52
SERIES = 6
"""The number of colours; more series repeat them."""
_TITLED_POINTS = 400  # points with a title; of more, only the largest errors have one


@dataclass(frozen=True)
class Point:
    """A point of a chart, with the title that the pointer shows."""

    x: float
    y: float
    text: str = ""
    series: int = 0
    low: float | None = None
    high: float | None = None
    """The ends of its interval, if it has one."""


@dataclass(frozen=True)
class Scale:
    """From numbers to positions along an axis; logarithmic ones are of the number plus one."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a number, clipped to the axis."""
        low, high, value = (math.log10(1 + max(n, 0.0)) if self.log else n for n in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Numbers to write along the axis."""
        return log_ticks(self.high) if self.log else ticks(self.low, self.high)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two numbers."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    return [round(step * number, 12) for number in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def log_ticks(high: float) -> list[float]:
    """0, 1, 3, 10, 30, ... up to a number; 0, 1, 10, ... if these are too many."""
    powers = [10.0**exponent for exponent in range(int(math.log10(max(high, 1))) + 1)]
    found = [0.0, *(n for power in powers for n in (power, 3 * power) if n <= high)]
    return found if len(found) <= 8 else [0.0, *powers]


def scatter(points: Sequence[Point], title: str, log: bool = False) -> Markup:
    """Predicted (`y`) against true (`x`) counts, with the line of equal counts; `title` is for screen readers."""
    largest = max([1.0, *(point.x for point in points), *(point.y for point in points)])
    lowest = 0.0 if log else min([0.0, *(point.y for point in points)])
    across = Scale(0.0, largest * 1.03, _LEFT, WIDTH - _RIGHT, log)
    up = Scale(lowest, largest * 1.03, HEIGHT - _BOTTOM, _TOP, log)
    svg = _frame(title, across, up, "true count", "predicted count")
    _line(svg, "truth", across(0), up(0), across(largest), up(largest))
    radius = 3.2 if len(points) <= 150 else 2.4
    titled = set(sorted(range(len(points)), key=lambda i: -abs(points[i].y - points[i].x))[:_TITLED_POINTS])
    others: dict[int, list[str]] = {}
    for place, point in enumerate(points):
        x, y = across(point.x), up(point.y)
        if place in titled:
            _mark(svg, x, y, point.series, point.text, radius)
        else:
            others.setdefault(point.series, []).append(f"M{_n(x)} {_n(y)}h0")
    for series, places in sorted(others.items()):
        _add(svg, "path", {"class": f"dots s{series % SERIES}", "d": "".join(places), "stroke-width": 2 * radius})
    return _written(svg)


def lines(
    series: Sequence[Sequence[Point]],
    groups: Sequence[str],
    names: Sequence[str],
    title: str,
    x_title: str,
    metric: Metric,
) -> Markup:
    """
    A line for each model over ordered groups, with the intervals of the points that have one.

    The `x` of a point is an index into `groups`; `names` are those of the models. The numbers are added to the title
    for screen readers.
    """
    is_share = metric.unit == "share"
    y_title, y_text = (metric.title, _percent) if is_share else (f"{metric.title}, {metric.unit}".strip(", "), _number)
    ends = [n for line in series for point in line for n in (point.y, point.low, point.high) if n is not None]
    up = Scale(min([0.0, *ends]), max([*ends, 1e-9]) * 1.05, HEIGHT - _BOTTOM, _TOP)
    across = Scale(-0.5, len(groups) - 0.5, _LEFT, WIDTH - _RIGHT)
    words = "; ".join(
        f"{name}: " + ", ".join(f"{groups[int(point.x)]}: {write_number(point.y, metric.unit)}" for point in line)
        for name, line in zip(names, series, strict=True)
    )
    svg = _frame(f"{title}. {words}.", None, up, x_title, y_title, y_text)
    # Labels that do not fit in a line alternate between two; of more than fit there, some are left out.
    fitting = (WIDTH - _LEFT - _RIGHT) / (6.6 * max(len(group) + 1 for group in groups))
    two_lines = len(groups) > fitting
    every = math.ceil(len(groups) / (2 * fitting))
    for place, group in enumerate(groups):
        if place % every == 0:
            below = 28 if two_lines and place // every % 2 else 15
            _text(svg, across(place), HEIGHT - _BOTTOM + below, group, "middle")
    for number, line in enumerate(series):
        shift = 4.0 * (number - (len(series) - 1) / 2)  # so that intervals of models do not overlap
        places = [(across(point.x) + shift, up(point.y), point) for point in line]
        if len(places) > 1:
            path = "L".join(f"{_n(x)} {_n(y)}" for x, y, _ in places)
            _add(svg, "path", {"class": f"line s{number % SERIES}", "d": f"M{path}"})
        for x, y, point in places:
            if point.low is not None and point.high is not None:
                _line(svg, f"interval s{number % SERIES}", x, up(point.low), x, up(point.high))
            _mark(svg, x, y, number, point.text, 3.6)
    return _written(svg)


def reliability(bins: Sequence[tuple[float, float, int]], title: str) -> Markup:
    """
    Accuracy by confidence, with the line of equal values; the discs of (confidence, accuracy, rows) grow with the
    rows.
    """
    across = Scale(0.0, 1.0, _LEFT, WIDTH - _RIGHT)
    up = Scale(0.0, 1.0, HEIGHT - _BOTTOM, _TOP)
    svg = _frame(title, across, up, "confidence", "accuracy", _percent, _percent)
    _line(svg, "truth", across(0), up(0), across(1), up(1))
    most = max([rows for _, _, rows in bins], default=1)
    for confidence, accuracy, rows in bins:
        text = f"{rows} rows of {confidence:.0%} confidence: {accuracy:.0%} right"
        _mark(svg, across(confidence), up(accuracy), 0, text, 3 + 8 * math.sqrt(rows / most))
    return _written(svg)


def bars(values: Sequence[float], labels: Sequence[str], title: str, right: int) -> Markup:
    """Small bars of the scores of candidates, from the lowest score up; the bar at index `right` is marked."""
    width, height = 240, 74
    svg = _svg(title, width, height)
    low, high = min(values), max(values)
    step = width / len(values)
    for place, (value, label) in enumerate(zip(values, labels, strict=True)):
        tall = 4 + 48 * ((value - low) / (high - low) if high > low else 0.0)
        box: dict[str, str | float] = {"x": place * step + 2, "y": 56 - tall, "width": step - 4, "height": tall}
        bar = _add(svg, "rect", {"class": "bar right" if place == right else "bar", **box})
        _add(bar, "title", {}, f"{label}: {value:.4f}")
        _text(svg, (place + 0.5) * step, 69, label, "middle")
    return _written(svg)


def legend_mark(series: int) -> Markup:
    """The mark of a series, for the legend."""
    svg = ElementTree.Element("svg", {"viewBox": "0 0 12 12", "class": "key", "aria-hidden": "true"})
    _mark(svg, 6, 6, series, "", 4)
    return _written(svg)


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _percent(value: float) -> str:
    return f"{round(100 * value, 6):g} %"


def _n(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def _svg(title: str, width: int, height: int) -> Element:
    return ElementTree.Element("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": title})


def _add(parent: Element, tag: str, attributes: dict[str, str | float], text: str | None = None) -> Element:
    written = {name: value if isinstance(value, str) else _n(value) for name, value in attributes.items()}
    child = ElementTree.SubElement(parent, tag, written)
    child.text = text
    return child


def _line(svg: Element, name: str, x1: float, y1: float, x2: float, y2: float) -> None:
    _add(svg, "line", {"class": name, "x1": x1, "y1": y1, "x2": x2, "y2": y2})


def _text(svg: Element, x: float, y: float, text: str, anchor: str) -> Element:
    return _add(svg, "text", {"x": x, "y": y, "text-anchor": anchor}, text)


def _mark(svg: Element, x: float, y: float, series: int, text: str, r: float) -> None:
    """A disc, square, triangle or diamond, so that colours are not the only difference."""
    name = f"sign s{series % SERIES}"
    if series % 4 == 0:
        mark = _add(svg, "circle", {"class": name, "cx": x, "cy": y, "r": r})
    else:
        corners = {
            1: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            2: [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
            3: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        }[series % 4]
        path = "L".join(f"{_n(x + dx * r)} {_n(y + dy * r)}" for dx, dy in corners)
        mark = _add(svg, "path", {"class": name, "d": f"M{path}Z"})
    if text:
        _add(mark, "title", {}, text)


def _frame(
    title: str,
    across: Scale | None,
    up: Scale,
    x_title: str,
    y_title: str,
    y_text: Format = _number,
    x_text: Format = _number,
) -> Element:
    """Axes with ticks and titles."""
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


def _written(svg: Element) -> Markup:
    # ElementTree escapes text from the data; within <svg>, HTML has elements that close themselves.
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


__all__ = ["SERIES", "Point", "Scale", "bars", "legend_mark", "lines", "log_ticks", "reliability", "scatter", "ticks"]
