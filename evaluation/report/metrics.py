"""Titles and units of the measures on the page, and how their numbers are written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


NOTHING = "–"
"""Written where there is no number."""


class Metric(NamedTuple):
    """One measure."""

    title: str
    unit: str
    """`"share"` (0 to 1, written in per cent), `"percent"`, `"objects"`, `"ratio"`, `"rank"`, `"whole"` or nothing."""
    best: str = ""
    """`"high"`, `"low"`, or nothing if neither is better."""


ROLES = {"named": "first class", "other": "another class in the image", "absent": "a class not in the image"}
"""PrACo's prompts by the class that they name."""
_KNOWN = {
    "accuracy": Metric("accuracy", "share", "high"),
    "off_by_one": Metric("off by one at most", "share", "high"),
    "mean_deviation": Metric("mean deviation", "objects", "low"),
    "mae": Metric("MAE", "objects", "low"),
    "rmse": Metric("RMSE", "objects", "low"),
    "nae": Metric("NAE (error over the true count)", "ratio", "low"),
    "sre": Metric("SRE (squared error over the true count)", "ratio", "low"),
    "bias": Metric("predicted minus true, on average", "objects"),
    "mean_count": Metric("true mean", "objects"),
    "mean_predicted": Metric("predicted mean", "objects"),
    "nmn": Metric("NMN: predicted for absent classes, per true object", "ratio", "low"),
    "pccn": Metric("PCCN: right prompt nearer the truth", "percent", "high"),
    "f1": Metric("F1", "ratio", "high"),
    "top_1": Metric("accuracy (top 1)", "share", "high"),
    "top_5": Metric("among the first five (top 5)", "share", "high"),
    "mean_per_class": Metric("accuracy, mean of the classes", "share", "high"),
    "zero_shot": Metric("accuracy without examples (zero-shot)", "share", "high"),
    "ece": Metric("expected calibration error", "share", "low"),
}
# Names with a setting: accuracy_4_shot, recall@5, game_2.
_PATTERNS = (
    (r"(.*_)?(accuracy|recall@\d+|recall_at|right)(_.*)?", "share", "high"),
    (r".*_(chance|share)", "share", ""),
    (r".*_change", "", ""),
    (r"(.*_)?(median|mean)_rank", "rank", "low"),
    (r"(.*_)?(calibration_error|ece)(_.*)?", "share", "low"),
    (r"(.*_)?(mae|rmse|game)(_?\d+)?", "objects", "low"),
    (r"(.*_)?(precision|recall|f1|auc|map)(_.*|@.*)?", "ratio", "high"),
    (r"(n|n_.*|num_.*|.*_rows)", "whole", ""),
)


def metric_of(name: str) -> Metric:
    """The measure of a name in a result file; an unknown one has no unit, and neither more nor less is better."""
    if name in _KNOWN:
        return _KNOWN[name]
    if shots := re.fullmatch(r"shots_(\d+)", name):
        return Metric(f"accuracy, {shots[1]} example{'s' * (shots[1] != '1')} of each class", "share", "high")
    if (of_role := re.fullmatch(r"(named|other|absent)_(mae|rmse)", name)) is not None:
        return Metric(f"{of_role[2].upper()}, {ROLES[of_role[1]]}", "objects", "low")
    found = next(((unit, best) for pattern, unit, best in _PATTERNS if re.fullmatch(pattern, name)), ("", ""))
    return Metric(name.replace("_", " "), *found)


def best_of(values: Iterable[float | None], better: str) -> float | None:
    """The best figure; `None` if neither more nor less is better (`Metric.best`) or no two figures differ."""
    known = {value for value in values if value is not None}
    if not better or len(known) < 2:
        return None
    return max(known) if better == "high" else min(known)


def write_number(value: float | None, unit: str, signed: bool = False) -> str:
    """Write a number with the digits of its unit, and for a difference with its sign; `NOTHING` for `None`."""
    if value is None:
        return NOTHING
    if unit == "share":
        value *= 100
    digits = {"share": 1, "percent": 1, "objects": 2, "rank": 1, "whole": 0}.get(unit, 3)
    # "z" writes no "-0.00".
    text = f"{value:.3e}" if abs(value) >= 1e9 else f"{value:z.{digits}f}"
    if signed and float(text) > 0:
        text = f"+{text}"
    # A difference of per cents is in points: 30 % instead of 20 % are ten points, and half as much again.
    suffix = (" points" if signed else " %") if unit in ("share", "percent") else ""
    return text.replace("-", "−") + suffix


def write_interval(ends: tuple[float, float] | None, unit: str, signed: bool = False) -> str:
    """Write both ends of an interval, or nothing."""
    if ends is None:
        return ""
    low, high = (write_number(end, unit, signed) for end in ends)
    return f"{low.removesuffix(' points').removesuffix(' %')} to {high}"


def write_count(value: float) -> str:
    """Write a count: whole numbers without a point, others with one digit after it."""
    return f"{value:.{0 if float(value).is_integer() else 1}f}".replace("-", "−")


__all__ = ["NOTHING", "ROLES", "Metric", "best_of", "metric_of", "write_count", "write_interval", "write_number"]
