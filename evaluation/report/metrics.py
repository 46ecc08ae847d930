"""What a measure is called on the page, how its number is written, and whether more or less of it is better."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


NOTHING = "–"
"""What stands where there is no number."""


@dataclass(frozen=True)
class Metric:
    """One measure."""

    title: str
    """What it is called."""
    unit: str
    """`"part"` (0 to 1, written in per cent), `"percent"`, `"objects"`, `"ratio"`, `"rank"`, `"whole"`, or nothing."""
    best: str = ""
    """`"high"`, `"low"`, or nothing where neither is better or it is not known."""


_KNOWN = {
    "accuracy": Metric("accuracy", "part", "high"),
    "off_by_one": Metric("off by one at most", "part", "high"),
    "mean_deviation": Metric("mean deviation", "objects", "low"),
    "mae": Metric("MAE", "objects", "low"),
    "rmse": Metric("RMSE", "objects", "low"),
    "nae": Metric("NAE (error over the true count)", "ratio", "low"),
    "sre": Metric("SRE (squared error over the true count)", "ratio", "low"),
    "bias": Metric("said minus true, on average", "objects"),
    "mean_count": Metric("true mean", "objects"),
    "mean_predicted": Metric("said mean", "objects"),
    "baseline_mae": Metric("MAE of always the training mean", "objects"),
    "baseline_rmse": Metric("RMSE of always the training mean", "objects"),
    "named_mae": Metric("MAE, the kind asked for first", "objects", "low"),
    "other_mae": Metric("MAE, another kind that is there", "objects", "low"),
    "absent_mae": Metric("MAE, a kind that is not there", "objects", "low"),
    "named_rmse": Metric("RMSE, the kind asked for first", "objects", "low"),
    "other_rmse": Metric("RMSE, another kind that is there", "objects", "low"),
    "absent_rmse": Metric("RMSE, a kind that is not there", "objects", "low"),
    "nmn": Metric("NMN: said of absent kinds, per true object", "ratio", "low"),
    "pccn": Metric("PCCN: right prompt nearer the truth", "percent", "high"),
    "precision": Metric("precision", "ratio", "high"),
    "recall": Metric("recall", "ratio", "high"),
    "f1": Metric("F1", "ratio", "high"),
    "top_1": Metric("accuracy (top 1)", "part", "high"),
    "top_5": Metric("among the first five (top 5)", "part", "high"),
    "mean_per_class": Metric("accuracy, mean of the classes", "part", "high"),
    "zero_shot": Metric("accuracy without examples (zero-shot)", "part", "high"),
    "ece": Metric("expected calibration error", "part", "low"),
}
# What is measured at several settings has them in its name: accuracy_4_shot, recall@5, game_2.
_KINDS = (
    (re.compile(r"(.*_)?(accuracy|recall@\d+|recall_at|right)(_.*)?"), "part", "high"),
    (re.compile(r".*_(chance|share)"), "part", ""),
    (re.compile(r".*_change"), "", ""),
    (re.compile(r"(.*_)?(median|mean)_rank"), "rank", "low"),
    (re.compile(r"(.*_)?(calibration_error|ece)(_.*)?"), "part", "low"),
    (re.compile(r"(.*_)?(mae|rmse|game)(_?\d+)?"), "objects", "low"),
    (re.compile(r"(.*_)?(precision|recall|f1|auc|map)(_.*|@.*)?"), "ratio", "high"),
    (re.compile(r"(n|n_.*|num_.*|.*_rows)"), "whole", ""),
)


def metric_of(name: str) -> Metric:
    """
    Say what is known of a measure.

    Args:
        name (`str`): As a result file names it.

    Returns:
        [`Metric`]: For a name that nothing is known of, one without a unit of which neither more nor less is better.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    shots = re.fullmatch(r"shots_(\d+)", name)
    if shots:
        return Metric(f"accuracy, {shots[1]} example{'s' * (shots[1] != '1')} of each class", "part", "high")
    title = name.replace("_", " ")
    for pattern, unit, best in _KINDS:
        if pattern.fullmatch(name):
            return Metric(title, unit, best)
    return Metric(title, "")


def best_of(values: Iterable[float | None], better: str) -> float | None:
    """
    Find the best of some figures.

    Args:
        values (`Iterable[float | None]`): The figures; `None` where there is none.
        better (`str`): As [`Metric`] has it in `best`.

    Returns:
        `float` or `None`: The best; `None` if neither more nor less is better, or none of them differs from another.
    """
    known = {value for value in values if value is not None}
    if not better or len(known) < 2:
        return None
    return max(known) if better == "high" else min(known)


def write_number(value: float | None, unit: str, signed: bool = False) -> str:
    """
    Write a number as all of its kind are written on the page: a point, no grouping, so many digits.

    Args:
        value (`float`, *optional*): The number; `None` where there is none.
        unit (`str`): As [`Metric`] has it.
        signed (`bool`): Whether a plus is written too, as for a difference.

    Returns:
        `str`: The number, per cents with their sign; a dash where there is none.
    """
    if value is None:
        return NOTHING
    if unit == "part":
        value *= 100
    digits = {"part": 1, "percent": 1, "objects": 2, "rank": 1, "whole": 0}.get(unit, 3)
    if abs(value) >= 1e9:
        text = f"{value:.3e}"
    else:
        text = f"{value:.{digits}f}"
        if float(text) == 0:
            text = text.lstrip("-")  # no "-0.00"
    text = text.replace("-", "−")
    if signed and not text.startswith("−") and float(value) > 0 and text.strip("0.") != "":
        text = f"+{text}"
    suffix = {"part": " %", "percent": " %"}.get(unit, "")
    # A difference of per cents is one of points: 30 % instead of 20 % are ten points, and half as much again.
    return text + (" points" if signed and suffix else suffix)


def write_interval(ends: tuple[float, float] | None, unit: str, signed: bool = False) -> str:
    """Write both ends of an interval, or nothing."""
    if ends is None:
        return ""
    low, high = (write_number(end, unit, signed) for end in ends)
    for suffix in (" points", " %"):
        if high.endswith(suffix):
            low = low.removesuffix(suffix)
    return f"{low} to {high}"


def write_count(value: float) -> str:
    """Write a count: whole numbers without a point, others with one digit behind it."""
    return write_number(value, "whole") if float(value).is_integer() else write_number(round(value, 1), "percent")[:-2]


__all__ = ["NOTHING", "Metric", "best_of", "metric_of", "write_count", "write_interval", "write_number"]
