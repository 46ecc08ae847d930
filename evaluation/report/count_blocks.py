"""Blocks of models that count: errors by true count and by prompt, confusion, calibration, and the largest errors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..functional import NUMBERS
from .blocks import Block, Cell, Chart, Charts, Table, Tables, Text
from .charts import Point, lines, reliability, scatter
from .groups import calibration_bins, count_bins, figures_of, interval_of
from .metrics import NOTHING, ROLES, best_of, metric_of, write_count, write_interval, write_number
from .results import Prediction, Result


Named = Sequence[tuple[str, Result]]
"""Comparable results, each with the name of its model on the page."""

_TEXTS_SHOWN = 20
_WORST_SHOWN = 10
_WIDE = 30  # ratio of the largest to the median true count from which logarithmic scales are selected


def scatter_charts(named: Named) -> Iterable[Block]:
    """Predicted against true counts, a chart for each model."""
    charts = []
    roles = list(dict.fromkeys(count.role for _, result in named for count in result.predictions))
    for label, result in named:
        points = [
            Point(
                count.true,
                count.predicted,
                f"{count.image}, {count.text}: true {write_count(count.true)}, "
                f"predicted {write_count(count.predicted)}",
                roles.index(count.role),
            )
            for count in result.predictions
        ]
        trues = sorted(point.x for point in points)
        largest, median = max(trues[-1], *(point.y for point in points)), trues[len(trues) // 2]
        figures = figures_of(result.predictions, ("mae", "bias"))
        words = (
            f"{label}: {len(points)} predicted against true counts. True counts reach {write_count(trues[-1])}; the "
            f"mean absolute error is {write_number(figures['mae'], 'objects')}, and the predictions are "
            f"{write_number(abs(figures['bias']), 'objects')} too {'high' if figures['bias'] > 0 else 'low'} on "
            "average."
        )
        log = scatter(points, f"{words} Logarithmic scales.", log=True)
        charts.append(Chart(label, scatter(points, words), log, log_first=largest > _WIDE * max(median, 1)))
    series = [ROLES.get(role, role) for role in roles if role is not None]
    note = "On the dashed line, predicted and true counts are equal. The logarithmic scales are of the count plus one."
    yield Charts("Predicted against true counts", charts, series, note)


def error_by_count(named: Named, metrics: Sequence[str]) -> Iterable[Block]:
    """Figures by true count, as charts and as tables."""
    labels = [label for label, _ in named]
    for role in dict.fromkeys(count.role for _, result in named for count in result.predictions):
        if role == "absent":  # all true counts are zero
            continue
        of_models = [[count for count in result.predictions if count.role == role] for _, result in named]
        bins = count_bins(count for counts in of_models for count in counts)
        if len(bins) < 2:
            continue
        drawn = [_by_bins(labels, of_models, bins, metric) for metric in metrics]
        of = f" ({ROLES.get(role, role)})" if role else ""
        title = " and ".join(metric_of(metric).title for metric in metrics) + f" by true count{of}"
        # A single chart needs no title below the heading.
        charts = [chart for chart, _ in drawn] if len(drawn) > 1 else [replace(drawn[0][0], title="")]
        note = "The vertical lines are 95 % bootstrap intervals."
        yield Charts(title[0].upper() + title[1:], charts, labels, note)
        for chart, rows in drawn:
            yield Table(f"{chart.title} by true count{of}, as a table", ["true count", *labels], rows, closed=True)


def _by_bins(
    labels: Sequence[str],
    of_models: Sequence[Sequence[Prediction]],
    bins: Sequence[tuple[str, float, float]],
    metric: str,
) -> tuple[Chart, list[list[Cell]]]:
    """A figure for each bin of true counts: a line for each model, and the rows of a table."""
    known = metric_of(metric)
    series: list[list[Point]] = [[] for _ in labels]
    rows = []
    for place, (name, low, high) in enumerate(bins):
        cells = [Cell(name)]
        for number, counts in enumerate(of_models):
            some = [count for count in counts if low < count.true <= high]
            if not some:
                cells.append(Cell(NOTHING))
                continue
            value, ends = figures_of(some, (metric,))[metric], interval_of(some, metric)
            written, interval = write_number(value, known.unit), write_interval(ends, known.unit)
            cells.append(Cell(written, f"{interval}; n = {len(some)}"))
            words = f"{labels[number]}, true count {name}: {written}, 95 % interval {interval}, n = {len(some)}"
            series[number].append(Point(place, value, words, number, *ends))
        rows.append(cells)
    title = known.title[0].upper() + known.title[1:]
    names = [name for name, _, _ in bins]
    svg = lines(series, names, labels, f"{title} by true count", "true count", known)
    return Chart(title, svg), rows


def confusion_tables(named: Named) -> Iterable[Block]:
    """A confusion matrix of numbers for each model."""
    names = [str(number) for number in NUMBERS]
    tables = []
    for label, result in named:
        pairs = Counter((f"{count.true:.0f}", f"{count.predicted:.0f}") for count in result.predictions)
        tables.append(confusion_table(label, names, pairs))
    yield Tables("Confusion matrix of the numbers", tables, CONFUSION_NOTE)


CONFUSION_NOTE = "Rows: true; columns: predicted. The darker a cell, the larger its share of the row."


def confusion_table(label: str, names: Sequence[str], pairs: Mapping[tuple[str, str], int]) -> Table:
    """A confusion matrix from the numbers of (true, predicted) pairs, shaded by share of the row."""
    rows = []
    for true in names:
        counts = [pairs.get((true, predicted), 0) for predicted in names]
        total = max(sum(counts), 1)
        rows.append([Cell(true), *(Cell(str(n) if n else "", shade=n / total) for n in counts)])
    return Table(label, ["true", *names], rows, shaded=True, names=True)


def calibration_charts(named: Named) -> Iterable[Block]:
    """Accuracy by confidence."""
    charts, without = [], []
    for label, result in named:
        scale = result.run["model"].get("logit_scale")
        if isinstance(scale, bool) or not isinstance(scale, int | float) or scale <= 0:
            without.append(label)
            continue
        confidences = [_confidence(count.scores or (), scale) for count in result.predictions]
        right = [count.error == 0 for count in result.predictions]
        bins = calibration_bins(confidences, right)
        error = sum(rows * abs(confidence - accuracy) for confidence, accuracy, rows in bins) / len(right)
        written = write_number(error, "share")
        words = (
            f"{label}: expected calibration error {written}, over {len(bins)} of ten bins of confidence; mean "
            f"confidence {write_number(sum(confidences) / len(right), 'share')}, accuracy "
            f"{write_number(sum(right) / len(right), 'share')}."
        )
        charts.append(Chart(f"{label}: calibration error {written}", reliability(bins, words)))
    if charts:
        note = "On the dashed line, confidence and accuracy are equal. Larger discs are bins of more rows."
        yield Charts("Calibration of the nine scores", charts, note=note)
    if without:
        yield Text(
            f"No calibration for {', '.join(without)}: the file has no `logit_scale`, the factor between similarities "
            "and probabilities."
        )


def _confidence(scores: Sequence[float], scale: float) -> float:
    """The highest probability of a softmax."""
    highest = max(scores)
    return 1 / sum(math.exp(scale * (score - highest)) for score in scores)


def error_by_text(named: Named, metric: str) -> Iterable[Block]:
    """A figure for each prompt."""
    of_models: list[dict[tuple[str, str], list[Prediction]]] = [{} for _ in named]
    for found, (_, result) in zip(of_models, named, strict=True):
        for count in result.predictions:
            if count.text is not None:
                found.setdefault((count.role or "", count.text), []).append(count)
    sizes = {key: max(len(found.get(key, ())) for found in of_models) for found in of_models for key in found}
    # In CountBench, all captions differ.
    if len(sizes) < 2 or max(sizes.values()) < 2:
        return
    known, order = metric_of(metric), {role: place for place, role in enumerate(ROLES)}
    rows = []
    for key in sorted(sizes, key=lambda key: (order.get(key[0], -1), -sizes[key], key)):
        first = next(found[key] for found in of_models if key in found)
        mean = sum(count.true for count in first) / len(first)
        cells = [Cell(key[1], ROLES.get(key[0], key[0])), Cell(str(sizes[key])), Cell(write_number(mean, "objects"))]
        values = [figures_of(found[key], (metric, "bias")) if key in found else None for found in of_models]
        best = best_of((value[metric] if value else None for value in values), known.best)
        for value in values:
            if value is None:
                cells.append(Cell(NOTHING))
                continue
            bias = f"bias {write_number(value['bias'], 'objects', signed=True)}"
            cells.append(Cell(write_number(value[metric], known.unit), bias, best=value[metric] == best))
        rows.append(cells)
    header = ["prompt", "n", "true mean", *(f"{known.title}, {label}" for label, _ in named)]
    yield from folded("Error by class", header, rows, _TEXTS_SHOWN, "Bias: predicted minus true, on average.")


def folded(
    title: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], shown: int, note: str
) -> Iterable[Table]:
    """A table of the first rows, and a folded one of the others."""
    more = len(rows) - shown
    first = f"{title}: the {shown} most frequent of {len(rows)}" if more > 0 else title
    yield Table(first, header, rows[:shown], note, names=True)
    if more > 0:
        yield Table(f"{title}: the other {more}", header, rows[shown:], closed=True, names=True)


def largest_errors(named: Named) -> Iterable[Block]:
    """The largest errors of each model."""
    for label, result in named:
        worst = sorted(result.predictions, key=lambda count: (-abs(count.error), count.index))[:_WORST_SHOWN]
        rows = [
            [
                Cell(count.image, "" if count.image_id is None else f"row {count.index}"),
                Cell(count.text or NOTHING, ROLES.get(count.role or "", "")),
                Cell(write_count(count.true)),
                Cell(write_count(count.predicted)),
                Cell(("+" if count.error > 0 else "") + write_count(count.error)),
            ]
            for count in worst
            if count.error
        ]
        if rows:
            header = ["image", "prompt", "true", "predicted", "error"]
            yield Table(f"{label}: largest errors", header, rows, closed=True, names=True, words=(1,))


__all__ = [
    "CONFUSION_NOTE",
    "Named",
    "calibration_charts",
    "confusion_table",
    "confusion_tables",
    "error_by_count",
    "error_by_text",
    "folded",
    "largest_errors",
    "scatter_charts",
]
