"""Blocks of models that do not count: curves, accuracy by class, and confusion of classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from .blocks import Block, Cell, Chart, Charts, Tables
from .charts import Point, lines
from .count_blocks import CONFUSION_NOTE, Named, confusion_table, folded
from .metrics import Metric, best_of, metric_of, write_interval, write_number


_CLASSES_SHOWN = 30
_LARGEST_MATRIX = 30
_CURVED = re.compile(r"(shots_|\w*recall_at_)(\d+)")


def classification_blocks(named: Named) -> Iterable[Block]:
    """The blocks of classification, probes and retrieval, as far as the files have the numbers."""
    yield from _curves(named)
    yield from _classes(named)
    yield from _confusions(named)


def _curves(named: Named) -> Iterable[Block]:
    """A chart for figures whose names differ in a number only: `shots_1`, `shots_2`, ..."""
    families: dict[str, set[int]] = {}
    for _, result in named:
        for name, value in result.metrics.items():
            if value is not None and (match := _CURVED.fullmatch(name)):
                families.setdefault(match[1], set()).add(int(match[2]))
    for family, numbers in families.items():
        if len(numbers) < 2:
            continue
        ordered = sorted(numbers)
        unit = metric_of(f"{family}{ordered[0]}").unit
        series: list[list[Point]] = []
        for label, result in named:
            series.append([])
            for place, number in enumerate(ordered):
                value, ends = result.metrics.get(f"{family}{number}"), result.intervals.get(f"{family}{number}")
                if value is not None:
                    interval = f", 95 % interval {write_interval(ends, unit)}" if ends else ""
                    words = f"{label}, {number}: {write_number(value, unit)}{interval}"
                    series[-1].append(Point(place, value, words, 0, *(ends or (None, None))))
        what = family.replace("_", " ").strip()
        title, axis, height = f"{what[0].upper()}{what[1:]} n", "n", what.removesuffix(" at")
        if family == "shots_":
            title, axis, height = "Accuracy by number of examples", "examples of each class", "accuracy"
        labels = [label for label, _ in named]
        svg = lines(series, [str(number) for number in ordered], labels, title, axis, Metric(height, unit))
        yield Charts(title, [Chart("", svg)], labels)


def _classes(named: Named) -> Iterable[Block]:
    """Accuracy of each class."""
    of_models: list[dict[str, list[float]]] = [{} for _ in named]
    for found, (_, result) in zip(of_models, named, strict=True):
        for row in result.predictions:
            found.setdefault(row.text or "", []).append(row.predicted)
    sizes = {name: max(len(found.get(name, ())) for found in of_models) for found in of_models for name in found}
    rows = []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        values = [sum(right) / len(right) if (right := found.get(name)) else None for found in of_models]
        best = best_of(values, "high")
        cells = [Cell(write_number(value, "share"), best=value is not None and value == best) for value in values]
        rows.append([Cell(name), Cell(str(sizes[name])), *cells])
    if rows:
        header = ["class", "rows", *(label for label, _ in named)]
        yield from folded("Accuracy by class", header, rows, _CLASSES_SHOWN, "")


def _confusions(named: Named) -> Iterable[Block]:
    """Confusion matrices, for few enough classes."""
    tables = []
    for label, result in named:
        rows = result.content["rows"] if result.predictions else []
        pairs = Counter((str(row["label"]), str(row["prediction"])) for row in rows)
        names = sorted({name for pair in pairs for name in pair})
        if 2 <= len(names) <= _LARGEST_MATRIX:
            tables.append(confusion_table(label, names, pairs))
    if tables:
        yield Tables("Confusion matrix of the classes", tables, CONFUSION_NOTE)


__all__ = ["classification_blocks"]
