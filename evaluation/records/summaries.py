"""The figures of each benchmark by flat names, with 95 % bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..benchmarks.classification import ClassificationResult
from ..benchmarks.countbench import CountBenchResult
from ..benchmarks.density import DensityResult
from ..benchmarks.praco_results import ROLES, PracoResult
from ..benchmarks.probe import FewShotResult
from ..functional import (
    bootstrap_interval,
    counting_accuracy,
    mean_absolute_error,
    mean_deviation,
    off_by_one_accuracy,
    root_mean_squared_error,
)


@dataclass(frozen=True)
class Summary:
    """Figures by their names; `None` for an undefined one."""

    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    missing: int = 0
    """Rows that could not be measured."""


def summarise_countbench(result: CountBenchResult) -> Summary:
    """Accuracy, mean deviation and accuracy within one."""
    figures = {"accuracy": counting_accuracy, "mean_deviation": mean_deviation, "off_by_one": off_by_one_accuracy}
    return Summary(
        {name: getattr(result, name) for name in figures},
        {name: bootstrap_interval(figure, result.predictions, result.numbers) for name, figure in figures.items()},
        len(result.skipped),
    )


def summarise_density(result: DensityResult) -> Summary:
    """The errors of the counts, and those of always predicting the training mean."""
    names = ("mae", "rmse", "nae", "sre", "baseline_mae", "baseline_rmse")
    predicted = [row.predicted for row in result.predictions]
    true = [row.count for row in result.predictions]
    return Summary(
        {name: getattr(result, name) for name in names},
        {
            "mae": bootstrap_interval(mean_absolute_error, predicted, true),
            "rmse": bootstrap_interval(root_mean_squared_error, predicted, true),
        },
        len(result.skipped),
    )


def summarise_praco(result: PracoResult) -> Summary:
    """The errors for each role of prompts, and PrACo's own figures."""
    metrics: dict[str, float | None] = {}
    for role in ROLES:
        figures = getattr(result.figures, role)
        metrics[f"{role}_mae"] = None if figures is None else figures.mae
        metrics[f"{role}_rmse"] = None if figures is None else figures.rmse
    for name in ("nmn", "pccn", "precision", "recall", "f1"):
        metrics[name] = getattr(result.figures, name)
    return Summary(metrics, dict(result.intervals), len(result.skipped))


def summarise_classification(result: ClassificationResult) -> Summary:
    """Top-1, top-5 and the mean over the classes."""
    names = ("top_1", "top_5", "mean_per_class")
    return Summary({name: getattr(result, name) for name in names}, result.intervals(), len(result.skipped))


def summarise_few_shot(result: FewShotResult) -> Summary:
    """The mean accuracy for each number of examples."""
    metrics: dict[str, float | None] = {f"shots_{point.shots}": point.mean for point in result.points}
    return Summary(metrics, result.intervals(), len(result.skipped))


__all__ = [
    "Summary",
    "summarise_classification",
    "summarise_countbench",
    "summarise_density",
    "summarise_few_shot",
    "summarise_praco",
]
