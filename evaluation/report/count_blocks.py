"""What the answers of a model that counts show: by true count, by class, by confidence, and the worst of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..functional import NUMBERS
from .blocks import Block, Cell, Chart, Charts, Table, Tables, Text
from .charts import Point, lines, reliability, scatter
from .groups import calibration_bins, count_bins, figures_of, interval_of
from .metrics import NOTHING, best_of, metric_of, write_count, write_interval, write_number
from .results import Count, Result


Named = Sequence[tuple[str, Result]]
"""Comparable results, each with what its model is called on the page."""

ROLES = {
    "named": "the kind asked for first",
    "other": "another kind that is there",
    "absent": "a kind that is not there",
}
_TEXTS_SHOWN = 20
_WORST_SHOWN = 10
_WIDE = 30  # from this ratio of the largest true count to the median on, logarithmic scales come first


def scatter_charts(named: Named) -> Iterable[Block]:
    """Predicted against true counts, a drawing for each model."""
    charts = []
    roles = list(dict.fromkeys(count.role for _, result in named for count in result.counts))
    for label, result in named:
        points = [
            Point(
                count.true,
                count.said,
                f"{count.image}, {count.text}: true {write_count(count.true)}, predicted {write_count(count.said)}",
                roles.index(count.role),
            )
            for count in result.counts
        ]
        trues = sorted(point.x for point in points)
        largest, middle = max(trues[-1], *(point.y for point in points)), trues[len(trues) // 2]
        figures = figures_of(result.counts, ("mae", "bias"))
        words = (
            f"{label}: predicted against true counts of {len(points)} answers. True counts reach "
            f"{write_count(trues[-1])}; the mean absolute error is {write_number(figures['mae'], 'objects')}, and the "
            f"predictions are {write_number(abs(figures['bias']), 'objects')} too "
            f"{'high' if figures['bias'] > 0 else 'low'} on average."
        )
        charts.append(
            Chart(
                label,
                scatter(points, words),
                scatter(points, f"{words} Logarithmic scales.", log=True),
                log_first=largest > _WIDE * max(middle, 1),
            )
        )
    series = [ROLES.get(role, role) for role in roles if role is not None]
    note = "On the dashed line, the predicted count is the true one. The logarithmic scales are of the count plus one."
    yield Charts("Predicted against true counts", charts, series, note)


def error_by_count(named: Named, metrics: Sequence[str]) -> Iterable[Block]:
    """Figures of the answers with so many objects, as drawings and as tables."""
    for role in dict.fromkeys(count.role for _, result in named for count in result.counts):
        if role == "absent":  # all have none
            continue
        answers = [[count for count in result.counts if count.role == role] for _, result in named]
        bins = count_bins(count for counts in answers for count in counts)
        if len(bins) < 2:
            continue
        labels = [label for label, _ in named]
        drawn = [_by_bins(labels, answers, bins, metric) for metric in metrics]
        of = f" ({ROLES.get(role, role)})" if role else ""
        title = " and ".join(metric_of(metric).title for metric in metrics) + f" by true count{of}"
        if len(drawn) == 1:  # the heading above it says what it is
            charts = [replace(drawn[0][0], title="")]
        else:
            charts = [chart for chart, _ in drawn]
        note = "The lines through the signs are 95 % bootstrap intervals."
        yield Charts(title[0].upper() + title[1:], charts, labels, note)
        for chart, rows in drawn:
            yield Table(f"{chart.title} by true count{of}, as a table", ["true count", *labels], rows, closed=True)


def _by_bins(
    labels: Sequence[str],
    answers: Sequence[Sequence[Count]],
    bins: Sequence[tuple[str, float, float]],
    metric: str,
) -> tuple[Chart, list[list[Cell]]]:
    """A figure in each range of true counts: a line for each model, and the same as rows of a table."""
    known = metric_of(metric)
    series: list[list[Point]] = [[] for _ in labels]
    rows = []
    for place, (name, low, high) in enumerate(bins):
        cells = [Cell(name)]
        for number, counts in enumerate(answers):
            some = [count for count in counts if low < count.true <= high]
            if not some:
                cells.append(Cell(NOTHING))
                continue
            value, ends = figures_of(some, (metric,))[metric], interval_of(some, metric)
            written, interval = write_number(value, known.unit), write_interval(ends, known.unit)
            cells.append(Cell(written, f"{interval}; n = {len(some)}"))
            words = f"{labels[number]}, true count {name}: {written}, 95 % interval {interval}, {len(some)} answers"
            series[number].append(Point(place, value, words, number, *ends))
        rows.append(cells)
    title = f"{known.title[0].upper()}{known.title[1:]}"
    words = "; ".join(
        f"{label}: " + ", ".join(f"{bins[int(point.x)][0]}: {write_number(point.y, known.unit)}" for point in line)
        for label, line in zip(labels, series, strict=True)
    )
    svg = lines(series, [name for name, _, _ in bins], f"{title} by true count. {words}.", "true count", known)
    return Chart(title, svg), rows


def confusion_tables(named: Named) -> Iterable[Block]:
    """Which number was said for which, a matrix for each model."""
    tables = []
    for label, result in named:
        matrix = _confusion(result)
        rows = []
        for number, counts in zip(NUMBERS, matrix, strict=True):
            total = sum(counts)
            cells = [Cell(str(count) if count else "", shade=count / total if total else 0.0) for count in counts]
            rows.append([Cell(str(number)), *cells])
        tables.append(Table(label, ["true", *map(str, NUMBERS)], rows, shaded=True))
    note = "Down: the true number; across: the number said. The darker, the larger a part of its row."
    yield Tables("Which number was said for which", tables, note)


def _confusion(result: Result) -> list[list[int]]:
    matrix = [[0] * len(NUMBERS) for _ in NUMBERS]
    for count in result.counts:
        if count.true in NUMBERS and count.said in NUMBERS:
            matrix[NUMBERS.index(int(count.true))][NUMBERS.index(int(count.said))] += 1
    return matrix


def calibration_charts(named: Named) -> Iterable[Block]:
    """How often what is said with so much confidence is right."""
    charts, without = [], []
    for label, result in named:
        scale = _logit_scale(result)
        if scale is None:
            without.append(label)
            continue
        sure = [_confidence(count.scores or (), scale) for count in result.counts]
        right = [count.error == 0 for count in result.counts]
        bins = calibration_bins(sure, right)
        error = sum(rows * abs(confidence - part) for confidence, part, rows in bins) / len(sure)
        words = (
            f"{label}: expected calibration error {write_number(error, 'part')}, over {len(bins)} of ten ranges of "
            f"confidence; mean confidence {write_number(sum(sure) / len(sure), 'part')}, right "
            f"{write_number(sum(right) / len(right), 'part')}."
        )
        charts.append(Chart(f"{label}: calibration error {write_number(error, 'part')}", reliability(bins, words)))
    if charts:
        note = "On the dashed line, the model is right as often as it is confident. Larger discs stand for more rows."
        yield Charts("Calibration of the nine-way scores", charts, note=note)
    if without:
        yield Text(
            f"No calibration for {', '.join(without)}: the file has similarities without the scale that makes "
            "probabilities of them (`logit_scale`)."
        )


def _logit_scale(result: Result) -> float | None:
    """What the model multiplies similarities by before the softmax, where the file says it."""
    for place in (result.content, result.model_record):
        scale = place.get("logit_scale")
        if isinstance(scale, int | float) and not isinstance(scale, bool) and scale > 0:
            return float(scale)
    return None


def _confidence(scores: Sequence[float], scale: float) -> float:
    """The probability of the likeliest of the captions."""
    highest = max(scores)
    return 1 / sum(math.exp(scale * (score - highest)) for score in scores)


def error_by_text(named: Named, metric: str) -> Iterable[Block]:
    """A figure for each thing that was asked for."""
    texts: dict[tuple[str, str], int] = {}
    of_text: list[Mapping[tuple[str, str], list[Count]]] = []
    for _, result in named:
        found: dict[tuple[str, str], list[Count]] = {}
        for count in result.counts:
            if count.text is not None:
                found.setdefault((count.role or "", count.text), []).append(count)
        of_text.append(found)
        for key, counts in found.items():
            texts[key] = max(texts.get(key, 0), len(counts))
    # In CountBench each caption is another.
    if len(texts) < 2 or max(texts.values()) < 2:
        return
    known = metric_of(metric)
    places = {role: place for place, role in enumerate(ROLES)}
    ordered = sorted(texts, key=lambda key: (places.get(key[0], -1), -texts[key], key))
    rows = []
    for key in ordered:
        first = next(found[key] for found in of_text if key in found)
        mean = sum(count.true for count in first) / len(first)
        cells = [Cell(key[1], ROLES.get(key[0], key[0])), Cell(str(texts[key])), Cell(write_number(mean, "objects"))]
        values = [figures_of(found[key], (metric, "bias")) if key in found else None for found in of_text]
        best = best_of((value[metric] if value else None for value in values), known.best)
        for value in values:
            if value is None:
                cells.append(Cell(NOTHING))
                continue
            bias = f"bias {write_number(value['bias'], 'objects', signed=True)}"
            cells.append(Cell(write_number(value[metric], known.unit), bias, best=value[metric] == best))
        rows.append(cells)
    header = ["asked for", "answers", "true mean", *(f"{known.title}, {label}" for label, _ in named)]
    shown = rows[:_TEXTS_SHOWN]
    yield Table(
        f"Error by class: the {len(shown)} most frequent of {len(rows)}"
        if len(rows) > len(shown)
        else "Error by class",
        header,
        shown,
        "Bias: said minus true, on average.",
        names=True,
    )
    if len(rows) > len(shown):
        title = f"Error by class: the other {len(rows) - len(shown)}"
        yield Table(title, header, rows[_TEXTS_SHOWN:], closed=True, names=True)


def largest_errors(named: Named) -> Iterable[Block]:
    """The answers furthest from the truth, for each model."""
    for label, result in named:
        worst = sorted(result.counts, key=lambda count: (-abs(count.error), count.index))[:_WORST_SHOWN]
        rows: list[list[Any]] = [
            [
                Cell(count.image, "" if count.image_id is None else f"row {count.index}"),
                Cell(count.text or NOTHING, ROLES.get(count.role or "", "")),
                Cell(write_count(count.true)),
                Cell(write_count(count.said)),
                Cell(("+" if count.error > 0 else "") + write_count(count.error)),
            ]
            for count in worst
            if count.error
        ]
        if rows:
            header = ["image", "asked for", "true", "said", "error"]
            yield Table(f"{label}: largest errors", header, rows, closed=True, names=True, words=(1,))


__all__ = [
    "ROLES",
    "Named",
    "calibration_charts",
    "confusion_tables",
    "error_by_count",
    "error_by_text",
    "largest_errors",
    "scatter_charts",
]
