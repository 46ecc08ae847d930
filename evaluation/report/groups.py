"""Which results can be compared, differences on the same rows, and errors of groups of predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from ..functional import bootstrap_interval
from .metrics import ROLES
from .results import BENCHMARKS, Prediction, Result


_FEW = 12  # up to this many different true counts have a bin each
# Borders of the bins of more true counts; FSC-147 reaches 3,701.
_EDGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def _is_right(errors: Any) -> Any:
    return (errors == 0).astype(float)


_OF_ERRORS: Mapping[str, Callable[[Any], Any]] = {
    "accuracy": _is_right,
    "top_1": _is_right,
    "off_by_one": lambda errors: (np.abs(errors) <= 1).astype(float),
    "mean_deviation": np.abs,
    "mae": np.abs,
    "rmse": np.square,
    "bias": lambda errors: errors,
}
"""Functions of the errors whose mean is the figure, or for the RMSE its square."""
FIGURES = {
    "countbench": ("accuracy", "mean_deviation", "off_by_one"),
    "density": ("mae", "rmse"),
    "praco": ("mae",),
    "classification": ("top_1",),
    "linear-probe": ("top_1",),
}
"""The figures that are computed from the predictions of each benchmark."""


@dataclass(frozen=True)
class Group:
    """Results of one benchmark on the same data, in the order of the command."""

    benchmark: str
    results: Sequence[Result]

    @property
    def rows_differ(self) -> bool:
        """Whether some of the results have fewer rows than others."""
        return len({_num_rows(result) for result in self.results}) > 1

    def is_whole(self, result: Result) -> bool:
        """Whether a result has as many rows as any of the group: only then it can be the best."""
        return _num_rows(result) == max(_num_rows(other) for other in self.results)


@dataclass(frozen=True)
class Difference:
    """Difference of a figure between two models on the same rows, with the ends of its 95 % interval."""

    metric: str
    difference: float
    low: float
    high: float
    rows: int
    images: int


def _num_rows(result: Result) -> int:
    return len(result.predictions) or result.measured or 0


def describe_data(result: Result) -> str:
    """The data of a result in a line."""
    data = result.data
    name = str(data.get("name", "data without a name"))
    rows = data.get("rows", None if result.measured is None else result.measured + result.missing)
    total = f" of {data['total']}" if data.get("total") not in (None, rows) else ""
    return ", ".join(
        [
            f"{name} ({data['config']})" if data.get("config") else name,
            *([f"split {data['split']}"] if data.get("split") else []),
            *([f"seed {data['seed']}"] if "seed" in data else []),
            *([f"{rows}{total} rows"] if rows is not None else []),
            *([f"revision {str(data['revision'])[:12]}"] if data.get("revision") else []),
        ]
    )


def group_results(results: Iterable[Result]) -> list[Group]:
    """
    Group the results of the same benchmark on the same data, in the order of `BENCHMARKS`, then of their first
    results.

    Results are in one group if their descriptions of the data agree and the true counts of the rows that both have;
    one has fewer rows only if its file counts missing ones.
    """
    groups: list[list[Result]] = []
    for result in results:
        for group in groups:
            if all(why_not_together(result, other) is None for other in group):
                group.append(result)
                break
        else:
            groups.append([result])
    groups.sort(key=lambda group: BENCHMARKS.index(group[0].benchmark))
    return [Group(group[0].benchmark, group) for group in groups]


def why_not_together(one: Result, other: Result) -> str | None:
    """The reason why two results are not of the same data; `None` if they can be compared."""
    if one.benchmark != other.benchmark:
        return f"one is of {one.benchmark}, the other of {other.benchmark}"
    for key, mine, theirs in _stated(one, other):
        if mine != theirs:
            return f"their {key} differs: {mine} and {theirs}"
    true = {count.key: count for count in one.predictions}
    shared = [(true[count.key], count) for count in other.predictions if count.key in true]
    if (one.predictions or other.predictions) and not shared:
        return "they have no row in common"
    for mine, theirs in shared:
        if mine.true != theirs.true:
            return f"row {mine.index} has {mine.true:g} objects in one and {theirs.true:g} in the other"
        if None not in (mine.image_id, theirs.image_id) and mine.image_id != theirs.image_id:
            return f"row {mine.index} is {mine.image_id} in one and {theirs.image_id} in the other"
    numbers = len(one.predictions), len(other.predictions)
    if (numbers[0] > len(shared) and not other.missing) or (numbers[1] > len(shared) and not one.missing):
        return f"one has {numbers[0]} predictions and the other {numbers[1]}"
    return None


def _stated(one: Result, other: Result) -> Iterable[tuple[str, Any, Any]]:
    """The descriptions of the data in both files that have to agree."""
    mine, theirs = dict(one.data), dict(other.data)
    # The fingerprint of a data set depends on its folder; only that of rendered scenes depends on the content alone.
    left_out = {"fingerprint", "total", "limit"}
    if mine.get("name") == theirs.get("name") == "countscenes":
        left_out.remove("fingerprint")
    if mine.get("fingerprint") is not None and mine["fingerprint"] == theirs.get("fingerprint"):
        left_out.add("name")
    for result, data in ((one, mine), (other, theirs)):
        data["name"] = PurePath(str(data.get("name", "")).replace("\\", "/")).name
        options = result.content.get("options")
        if one.benchmark == "praco" and isinstance(options, dict):
            data |= {f"option {key}": value for key, value in options.items()}
    for key in mine:
        if key in theirs and key not in left_out:
            yield key, mine[key], theirs[key]


def figures_of(counts: Sequence[Prediction], names: Sequence[str]) -> dict[str, float]:
    """Figures of at least one prediction, by the names of `_OF_ERRORS`."""
    errors = np.array([count.error for count in counts])
    return {name: _end(name, float(_OF_ERRORS[name](errors).mean())) for name in names}


def _end(name: str, mean: float) -> float:
    return float(np.sqrt(mean)) if name == "rmse" else mean


def interval_of(counts: Sequence[Prediction], name: str) -> tuple[float, float]:
    """The 95 % bootstrap interval of a figure of [`figures_of`]; images are drawn with all their predictions."""
    return bootstrap_interval(
        lambda total, n: _end(name, float(total.sum() / n.sum())), *_by_image(counts, counts, name)
    )


def paired_differences(one: Result, other: Result) -> list[Difference]:
    """
    Differences `other - one` of the figures on the rows that both have; for PrACo, of each role of prompts.

    Images are drawn with replacement, each with the predictions of both models, so that images that are hard for both
    do not widen the interval.
    """
    counts = {count.key: count for count in one.predictions}
    pairs = [(counts[count.key], count) for count in other.predictions if count.key in counts]
    order = list(ROLES)
    found = []
    roles = {mine.role or "" for mine, _ in pairs}
    for role in sorted(roles, key=lambda role: (order.index(role) if role in order else len(order), role)):
        mine, theirs = zip(*(pair for pair in pairs if (pair[0].role or "") == role), strict=True)
        for name in FIGURES.get(one.benchmark, ()):
            sums, sizes = _by_image(mine, mine, name)
            others, _ = _by_image(mine, theirs, name)

            def difference(a: Any, b: Any, n: Any, name: str = name) -> float:
                return _end(name, float(b.sum() / n.sum())) - _end(name, float(a.sum() / n.sum()))

            ends = bootstrap_interval(difference, sums, others, sizes)
            metric = f"{role}_{name}" if role else name
            found.append(Difference(metric, difference(sums, others, sizes), *ends, rows=len(mine), images=len(sizes)))
    return found


def _by_image(rows: Sequence[Prediction], counts: Sequence[Prediction], name: str) -> tuple[Any, Any]:
    """For each image of the rows, the sum and the number of the values whose mean is the figure of the counts."""
    images: dict[str, int] = {}
    which = [images.setdefault(row.image, len(images)) for row in rows]
    values = _OF_ERRORS[name](np.array([count.error for count in counts]))
    return np.bincount(which, weights=values), np.bincount(which).astype(float)


def count_bins(counts: Iterable[Prediction]) -> list[tuple[str, float, float]]:
    """Bins of true counts with at least one prediction: name, lower end (excluded) and upper end (included)."""
    trues = sorted({count.true for count in counts})
    if len(trues) <= _FEW and all(true.is_integer() for true in trues):
        return [(f"{true:.0f}", true - 1, true) for true in trues]
    bins = []
    for low, high in zip((-1.0, *_EDGES), (*_EDGES, float("inf")), strict=True):
        if any(low < true <= high for true in trues):
            first = int(low) + 1
            name = f"{first}–{high:g}" if first < high else f"{first}"
            bins.append((f"over {int(low)}" if high == float("inf") else name, low, high))
    return bins


def calibration_bins(
    confidences: Sequence[float], right: Sequence[bool], number: int = 10
) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of rows of the bins of confidence (0 to 1) that are not empty."""
    probs, is_right = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    which = np.minimum((probs * number).astype(int), number - 1)
    return [
        (float(probs[which == place].mean()), float(is_right[which == place].mean()), int((which == place).sum()))
        for place in np.unique(which)
    ]


__all__ = [
    "FIGURES",
    "Difference",
    "Group",
    "calibration_bins",
    "count_bins",
    "describe_data",
    "figures_of",
    "group_results",
    "interval_of",
    "paired_differences",
    "why_not_together",
]
