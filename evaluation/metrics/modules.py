"""The metrics as `evaluate` modules: their names, their base classes and how they are loaded."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from ..functional.accuracy import NUMBERS, check_numbers, predicted_numbers
from ..functional.intervals import with_intervals


METRICS_FOLDER = Path(__file__).resolve().parent
METRIC_NAMES = (
    "counting_accuracy",
    "counting_calibration",
    "counting_comparison",
    "counting_confusion_matrix",
    "counting_error",
    "game",
    "mean_deviation",
    "off_by_one_accuracy",
    "point_matching",
    "praco",
)

NUMBER = datasets.Value("float64")  # as integers, fractions would be cut without an error
INTERVAL_ARGS = """
    confidence (`float`, *optional*): Between 0 and 1, such as 0.95: adds `<name>_interval`, the ends of the bootstrap
        interval over the images, for each figure.
    num_resamples (`int`, *optional*, defaults to 1000): Bootstrap draws.
    seed (`int`, *optional*, defaults to 0): Seed of the draws; the same seed gives the same interval."""


def load_metric(name: str, config_name: str | None = None, **kwargs: Any) -> Any:
    """
    Load one of the metrics of this package, `METRIC_NAMES`, as `evaluate.load` returns it for the metric's folder.

    `config_name` is the configuration of metrics that accept several inputs (see the card); `kwargs` are arguments of
    `evaluate.load`, such as `num_process` and `process_id`. Raises a `ValueError` if there is no such metric.

    Example:
        >>> load_metric("counting_accuracy").compute(predictions=[2, 3, 4, 5], references=[2, 3, 4, 6])
        {'accuracy': 0.75}
    """
    if name not in METRIC_NAMES:
        raise ValueError(f"Expected one of the metrics {', '.join(METRIC_NAMES)}, but got {name!r}.")
    return evaluate.load(str(METRICS_FOLDER / name), config_name, **kwargs)


class CountingModule(evaluate.EvaluationModule, ABC):
    """
    Base of the modules; the docstring of a subclass is its description.

    It is abstract because `evaluate.load` takes the first class of a file that is not.
    """

    INFO: ClassVar[type[evaluate.EvaluationModuleInfo]]
    CONFIGS: ClassVar[Mapping[str, Mapping[str, Any]]]
    """The features of each configuration; the first is the default."""
    ARGS: ClassVar[str]
    RETURNS: ClassVar[str]
    EXAMPLE: ClassVar[str]
    CITATION: ClassVar[str]
    URLS: ClassVar[Sequence[str]]

    def _info(self) -> evaluate.EvaluationModuleInfo:
        config = next(iter(self.CONFIGS)) if self.config_name == "default" else self.config_name
        if config not in self.CONFIGS:
            raise ValueError(f"Expected one of the configurations {', '.join(self.CONFIGS)}, but got {config!r}.")
        return self.INFO(
            description=inspect.getdoc(type(self)),
            citation=self.CITATION,
            inputs_description=f"\nArgs:{self.ARGS}\n\nReturns:\n    {self.RETURNS}\n\nExample:{self.EXAMPLE}",
            features=datasets.Features(dict(self.CONFIGS[config])),
            reference_urls=list(self.URLS),
        )

    @abstractmethod
    def _compute(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Measure the columns that `CONFIGS` names, with the options of this metric."""


class CountingMetric(CountingModule, evaluate.Metric, ABC):
    """Base of the metrics."""

    INFO = evaluate.MetricInfo


class NumberMetric(CountingMetric, ABC):
    """Base of the metrics that compare predicted with true numbers; `"scores"` takes the numbers' scores instead."""

    CONFIGS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "numbers": {"predictions": NUMBER, "references": NUMBER},
        "scores": {"predictions": datasets.List(NUMBER), "references": NUMBER},
    }
    NUMBER_ARGS = """
    predictions: Predicted numbers, `(num_images,)`. With the configuration `"scores"`: the scores of the captions with
        each number, `(num_images, len(numbers))`; the highest score is the prediction.
    references: True numbers, `(num_images,)`.
    numbers (`list[int]`, *optional*, defaults to two to ten): The possible numbers, in the order of the scores."""
    ARGS = NUMBER_ARGS + INTERVAL_ARGS
    CITATION = """@inproceedings{paiss2023teaching,
  title     = {Teaching {CLIP} to Count to Ten},
  author    = {Paiss, Roni and Ephrat, Ariel and Tov, Omer and Zada, Shiran and Mosseri, Inbar and Irani, Michal and
               Dekel, Tali},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year      = {2023}
}"""
    URLS = ("https://arxiv.org/abs/2302.12066",)

    def figure(
        self,
        name: str,
        statistic: Callable[..., float],
        *,
        predictions: Any,
        references: Any,
        numbers: Sequence[int] | None = None,
        **interval: Any,
    ) -> dict[str, Any]:
        """A figure of predicted and true numbers, and on request its interval."""
        pair = self._numbers(predictions, references, numbers)
        return with_intervals(lambda *drawn: {name: statistic(*drawn)}, *pair, **interval)

    def _numbers(
        self, predictions: Any, references: Any, numbers: Sequence[int] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Predicted and true numbers, checked."""
        allowed = NUMBERS if numbers is None else tuple(numbers)
        true = check_numbers(references, "references", allowed)
        if self.config_name == "scores":
            return predicted_numbers(predictions, allowed), true
        return check_numbers(predictions, "predictions", allowed), true


__all__ = [
    "INTERVAL_ARGS",
    "METRICS_FOLDER",
    "METRIC_NAMES",
    "NUMBER",
    "CountingMetric",
    "CountingModule",
    "NumberMetric",
    "load_metric",
]
