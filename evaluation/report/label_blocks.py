"""Results that are not counts: curves over a number in a figure's name, classes, and what is taken for what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from .blocks import Block, Cell, Chart, Charts, Table, Tables
from .charts import Point, lines
from .count_blocks import Named
from .metrics import Metric, best_of, metric_of, write_interval, write_number
from .results import Result


_CLASSES_SHOWN = 30
_LARGEST_MATRIX = 30
_NUMBER = re.compile(r"\d+")
_CURVED = re.compile(r"shots_\d+|\w*recall_at_\d+")


def classification_blocks(named: Named) -> Iterable[Block]:
    """
    What can be said of classification, probes and retrieval beyond their figures.

    Args:
        named: Comparable results, each with what its model is called on the page.

    Returns:
        `Iterable[Block]`: Curves (accuracy over the number of examples, recall over the number of images looked at),
        a table of classes, and confusion matrices, as far as the files have them.
    """
    yield from _curves(named)
    yield from _classes(named)
    yield from _confusions(named)


def _curves(named: Named) -> Iterable[Block]:
    """A drawing for figures whose names differ in a number alone: `shots_1`, `shots_2`, ..."""
    families: dict[str, set[int]] = {}
    for _, result in named:
        for name, value in result.metrics.items():
            if value is not None and _CURVED.fullmatch(name):
                families.setdefault(_NUMBER.sub("#", name), set()).add(int(_NUMBER.findall(name)[0]))
    for family, numbers in families.items():
        if len(numbers) < 2:
            continue
        ordered = sorted(numbers)
        known = metric_of(family.replace("#", str(ordered[0])))
        series: list[list[Point]] = []
        rows: list[str] = []
        for label, result in named:
            line: list[Point] = []
            for place, number in enumerate(ordered):
                value = result.metrics.get(family.replace("#", str(number)))
                if value is None:
                    continue
                ends = result.intervals.get(family.replace("#", str(number)))
                interval = f", 95 % interval {write_interval(ends, known.unit)}" if ends else ""
                words = f"{label}, {number}: {write_number(value, known.unit)}{interval}"
                line.append(Point(place, value, words, 0, *(ends or (None, None))))
            series.append(line)
            said = ", ".join(f"{ordered[int(point.x)]}: {write_number(point.y, known.unit)}" for point in line)
            rows.append(f"{label}: {said}")
        title = f"{family.replace('_', ' ').replace('#', 'n')} for each n"
        axis = "n"
        if family == "shots_#":
            title, axis = "Accuracy for each number of examples", "examples of each class"
        what = "accuracy" if family == "shots_#" else family.split("#")[0].removesuffix("_at_").strip("_@")
        height = Metric(what.replace("_", " "), known.unit)
        svg = lines(series, [str(number) for number in ordered], f"{title}. {'; '.join(rows)}.", axis, height)
        yield Charts(title[0].upper() + title[1:], [Chart("", svg)], [label for label, _ in named])


def _classes(named: Named) -> Iterable[Block]:
    """Accuracy of each class."""
    of_result = [_accuracies(result) for _, result in named]
    sizes: dict[str, int] = {}
    for found in of_result:
        for name, (_, answered) in found.items():
            sizes[name] = max(answered, sizes.get(name, 0))
    rows = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        values = [found[name][0] if name in found else None for found in of_result]
        best = best_of(values, "high")
        cells = [Cell(write_number(value, "part"), best=value is not None and value == best) for value in values]
        rows.append([Cell(name), Cell(str(sizes[name])), *cells])
    header = ["class", "rows", *(label for label, _ in named)]
    for title, some, closed in (
        ("Accuracy by class", rows[:_CLASSES_SHOWN], False),
        (f"Accuracy by class: the other {len(rows) - _CLASSES_SHOWN}", rows[_CLASSES_SHOWN:], True),
    ):
        if some:
            yield Table(title, header, some, closed=closed, names=True)


def _accuracies(result: Result) -> dict[str, tuple[float, int]]:
    """Accuracy and rows of each class."""
    right: dict[str, list[float]] = {}
    for count in result.counts:
        right.setdefault(count.text or "", []).append(count.said)
    return {name: (sum(answers) / len(answers), len(answers)) for name, answers in right.items()}


def _confusions(named: Named) -> Iterable[Block]:
    """Which class was taken for which, where there are few enough to see."""
    tables = []
    for label, result in named:
        answers = Counter((str(row["label"]), str(row["prediction"])) for row in _answers(result))
        names = sorted({name for pair in answers for name in pair})
        if not 2 <= len(names) <= _LARGEST_MATRIX:
            continue
        rows = []
        for true in names:
            total = sum(answers[true, said] for said in names)
            counts = [answers[true, said] for said in names]
            cells = [Cell(str(count) if count else "", shade=count / total if total else 0.0) for count in counts]
            rows.append([Cell(true), *cells])
        tables.append(Table(label, ["true", *names], rows, shaded=True, names=True))
    if tables:
        note = "Down: what it is; across: what was said. The darker, the larger a part of its row."
        yield Tables("What was taken for what", tables, note)


def _answers(result: Result) -> Sequence[Any]:
    """The rows of a classification."""
    return result.content["rows"] if result.counts else []


__all__ = ["classification_blocks"]
