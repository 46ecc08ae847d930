"""Which results may stand in one table, how far models differ on the same rows, and errors of parts of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from ..functional import bootstrap_interval
from .results import BENCHMARKS, Count, Result


_FEW = 12  # so many different true counts are told apart one by one
# Between these the true counts of a data set are put together; FSC-147 reaches 3,701.
_EDGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Group:
    """Results of one benchmark on the same data, in the order in which they were given."""

    benchmark: str
    results: Sequence[Result]

    @property
    def rows_differ(self) -> bool:
        """Whether some of the results are of fewer rows than others."""
        return len({_answered(result) for result in self.results}) > 1

    def is_whole(self, result: Result) -> bool:
        """Whether a result is of as many rows as any of the group: only then may it be called the best."""
        return _answered(result) == max(_answered(other) for other in self.results)


@dataclass(frozen=True)
class Difference:
    """How much more a model has of a figure than another, on the rows that both answered."""

    metric: str
    difference: float
    low: float
    high: float
    """The ends of its 95 % interval."""
    rows: int
    images: int


def _answered(result: Result) -> int:
    return len(result.counts) or result.measured or 0


def describe_data(result: Result) -> str:
    """Say in a line what a result was measured on."""
    data = result.data
    name = str(data.get("name", "data without a name"))
    parts = [f"{name} ({data['config']})" if data.get("config") else name]
    parts += [f"split {data['split']}"] if data.get("split") else []
    parts += [f"seed {data['seed']}"] if data.get("seed") is not None else []
    rows = data.get("rows", None if result.measured is None else result.measured + result.missing)
    total = f" of {data['total']}" if data.get("total") not in (None, rows) else ""
    parts += [f"{rows}{total} rows"] if rows is not None else []
    parts += [f"revision {str(data['revision'])[:12]}"] if data.get("revision") else []
    return ", ".join(parts)


def group_results(results: Iterable[Result]) -> list[Group]:
    """
    Put results of the same benchmark on the same data together.

    Args:
        results (`Iterable[Result]`): What was read.

    Returns:
        `list[Group]`: In the order of `BENCHMARKS`, and within that of their first results. Two results are together
        if what they say of their data agrees, and so does the true count of each row that both have; one may have
        fewer rows only where it says that some could not be measured.
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
    """
    Say why two results are not of the same data.

    Args:
        one, other ([`Result`]): What was read.

    Returns:
        `str` or `None`: The reason; `None` if they can be compared.
    """
    if one.benchmark != other.benchmark:
        return f"one is of {one.benchmark}, the other of {other.benchmark}"
    for key, mine, theirs in _stated(one, other):
        if mine != theirs:
            return f"their {key} differs: {mine} and {theirs}"
    true = {count.key: count for count in one.counts}
    shared = [(true[count.key], count) for count in other.counts if count.key in true]
    if (one.counts or other.counts) and not shared:
        return "they have no row in common"
    for mine, theirs in shared:
        if mine.true != theirs.true:
            return f"row {mine.index} has {mine.true:g} objects in one and {theirs.true:g} in the other"
        if None not in (mine.image_id, theirs.image_id) and mine.image_id != theirs.image_id:
            return f"row {mine.index} is {mine.image_id} in one and {theirs.image_id} in the other"
    for result, has in ((one, len(one.counts)), (other, len(other.counts))):
        if has != len(shared) and not (other if result is one else one).missing:
            return f"one has {len(one.counts)} answers and the other {len(other.counts)}"
    return None


def _stated(one: Result, other: Result) -> Iterable[tuple[str, Any, Any]]:
    """What both say of their data, of what has to agree."""
    mine, theirs = dict(one.data), dict(other.data)
    rendered = mine.get("name") == theirs.get("name") == "countscenes"
    same_content = mine.get("fingerprint") is not None and mine.get("fingerprint") == theirs.get("fingerprint")
    # The fingerprint of a data set changes with its place; only that of the rendered scenes is of the content alone.
    left_out = {"fingerprint", "total", "limit"} - ({"fingerprint"} if rendered else set())
    if same_content:
        left_out.add("name")
    for data in (mine, theirs):
        data["name"] = PurePath(str(data.get("name", "")).replace("\\", "/")).name
    if one.benchmark == "praco":
        for result, data in ((one, mine), (other, theirs)):
            options = result.content.get("options")
            data |= {f"option {key}": value for key, value in options.items()} if isinstance(options, dict) else {}
    for key in mine:
        if key in theirs and key not in left_out:
            yield key, mine[key], theirs[key]


def figures_of(counts: Sequence[Count], names: Sequence[str]) -> dict[str, float]:
    """
    Work figures out of answers.

    Args:
        counts (`Sequence[Count]`): At least one answer.
        names (`Sequence[str]`): Of `accuracy`, `top_1`, `off_by_one`, `mean_deviation`, `mae`, `rmse` and `bias`.

    Returns:
        `dict[str, float]`: Each figure.
    """
    errors = np.array([count.error for count in counts])
    return {name: _ENDS[name](float(_OF_ERRORS[name](errors).mean())) for name in names}


_OF_ERRORS: Mapping[str, Callable[[Any], Any]] = {
    "accuracy": lambda errors: (errors == 0).astype(float),
    "top_1": lambda errors: (errors == 0).astype(float),
    "off_by_one": lambda errors: (np.abs(errors) <= 1).astype(float),
    "mean_deviation": np.abs,
    "mae": np.abs,
    "rmse": np.square,
    "bias": lambda errors: errors,
}
_ENDS: Mapping[str, Callable[[float], float]] = {
    **dict.fromkeys(_OF_ERRORS, lambda mean: mean),
    "rmse": lambda mean: float(np.sqrt(mean)),
}
# What is worked out of the answers themselves, for each benchmark that has some.
FIGURES = {
    "countbench": ("accuracy", "mean_deviation", "off_by_one"),
    "density": ("mae", "rmse"),
    "praco": ("mae",),
    "classification": ("top_1",),
    "linear-probe": ("top_1",),
}


def interval_of(counts: Sequence[Count], name: str) -> tuple[float, float]:
    """
    The 95 % bootstrap interval of a figure, images drawn with all their answers.

    Args:
        counts (`Sequence[Count]`): At least one answer.
        name (`str`): As [`figures_of`] takes it.

    Returns:
        `tuple[float, float]`: Its ends.
    """
    values = _OF_ERRORS[name](np.array([count.error for count in counts]))
    sums, sizes = _by_image(counts, values)
    return bootstrap_interval(lambda total, n: _ENDS[name](float(total.sum() / n.sum())), sums, sizes)


def paired_differences(one: Result, other: Result) -> list[Difference]:
    """
    Say how far two models differ on the rows that both answered.

    Images are drawn with replacement, each with the answers of both models, so that what makes an image hard for
    both does not widen the interval.

    Args:
        one ([`Result`]): The model that the other is compared with.
        other ([`Result`]): The model whose figures are the first number of the difference.

    Returns:
        `list[Difference]`: `other - one` for each figure of the benchmark; PrACo's for each kind of prompt.
    """
    answers = {count.key: count for count in one.counts}
    pairs = [(answers[count.key], count) for count in other.counts if count.key in answers]
    found = []
    for role in sorted({mine.role or "" for mine, _ in pairs}, key=lambda role: (_ROLES.get(role, 9), role)):
        some = [pair for pair in pairs if (pair[0].role or "") == role]
        mine, theirs = [pair[0] for pair in some], [pair[1] for pair in some]
        for name in FIGURES.get(one.benchmark, ()):
            value = _OF_ERRORS[name]
            sums, sizes = _by_image(mine, value(np.array([count.error for count in mine])))
            others, _ = _by_image(mine, value(np.array([count.error for count in theirs])))
            end = _ENDS[name]

            def difference(a: Any, b: Any, n: Any, end: Callable[[float], float] = end) -> float:
                return end(float(b.sum() / n.sum())) - end(float(a.sum() / n.sum()))

            low, high = bootstrap_interval(difference, sums, others, sizes)
            metric = f"{role}_{name}" if role else name
            found.append(
                Difference(metric, difference(sums, others, sizes), low, high, rows=len(mine), images=len(sizes))
            )
    return found


_ROLES = {"named": 0, "other": 1, "absent": 2}


def _by_image(counts: Sequence[Count], values: Any) -> tuple[Any, Any]:
    """Sums and numbers of values of each image, in the order of the data."""
    places: dict[str, int] = {}
    which = [places.setdefault(count.image, len(places)) for count in counts]
    return np.bincount(which, weights=values), np.bincount(which).astype(float)


def count_bins(counts: Iterable[Count]) -> list[tuple[str, float, float]]:
    """
    Ranges of true counts that hold at least one of some answers.

    Args:
        counts (`Iterable[Count]`): The answers.

    Returns:
        `list[tuple[str, float, float]]`: For each range its name, and the ends: above the first, up to the second.
    """
    trues = sorted({count.true for count in counts})
    if len(trues) <= _FEW and all(true.is_integer() for true in trues):
        return [(f"{true:.0f}", true - 1, true) for true in trues]
    bins = []
    for low, high in zip((-1.0, *_EDGES), (*_EDGES, float("inf")), strict=True):
        if any(low < true <= high for true in trues):
            first = int(low) + 1
            name = (
                f"{first}" if first == high else f"over {int(low)}" if high == float("inf") else f"{first}–{int(high)}"
            )
            bins.append((name, low, high))
    return bins


def calibration_bins(
    confidences: Sequence[float], right: Sequence[bool], number: int = 10
) -> list[tuple[float, float, int]]:
    """
    Mean confidence and part that is right, for ranges of confidence of equal width.

    Args:
        confidences (`Sequence[float]`): How sure the model was of what it said, 0 to 1.
        right (`Sequence[bool]`): Whether that was right.
        number (`int`): How many ranges there are.

    Returns:
        `list[tuple[float, float, int]]`: Mean confidence, part that is right and rows, of each range that has any.
    """
    sure, true = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    which = np.minimum((sure * number).astype(int), number - 1)
    return [
        (float(sure[which == place].mean()), float(true[which == place].mean()), int((which == place).sum()))
        for place in range(number)
        if (which == place).any()
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
