"""The metrics as `evaluate` modules: where they lie, and what several of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from ..functional.accuracy import NUMBERS, check_numbers, numbers_said


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

INTERVAL_OPTIONS = """
    confidence (`float`, *optional*): Between 0 and 1, such as 0.95: adds `<name>_interval` for each figure, the ends
        of its bootstrap interval over the images.
    num_resamples (`int`, *optional*, defaults to 1000): How often the images are drawn for it.
    seed (`int`, *optional*, defaults to 0): Where these draws start; the same seed gives the same interval."""
"""What the modules' descriptions of their inputs say of the options that all of them take."""


def load_metric(name: str, config_name: str | None = None, **kwargs: Any) -> Any:
    """
    Load one of the metrics of this package, wherever it is installed.

    Args:
        name (`str`): One of `METRIC_NAMES`.
        config_name (`str`, *optional*): What the metric is given, where it takes several things; see its card.
        kwargs: Everything else that `evaluate.load` takes, such as `num_process` and `process_id`.

    Returns:
        `evaluate.EvaluationModule`: What `evaluate.load` gives for the metric's folder.

    Raises:
        ValueError: If there is no such metric.

    Example:
        >>> load_metric("counting_accuracy").compute(predictions=[2, 3, 4, 5], references=[2, 3, 4, 6])
        {'accuracy': 0.75}
    """
    if name not in METRIC_NAMES:
        raise ValueError(f"Expected one of the metrics {', '.join(METRIC_NAMES)}, but got {name!r}.")
    return evaluate.load(str(METRICS_FOLDER / name), config_name, **kwargs)


def choose_features(config_name: str, choices: Mapping[str, Mapping[str, Any]]) -> datasets.Features:
    """
    What a module with several configurations is given in the one that was loaded.

    Args:
        config_name (`str`): The module's `config_name`; `"default"` is the first configuration.
        choices (`Mapping`): The features of each configuration.

    Returns:
        `datasets.Features`.

    Raises:
        ValueError: If there is no such configuration.
    """
    if config_name == "default":
        config_name = next(iter(choices))
    if config_name not in choices:
        raise ValueError(f"Expected one of the configurations {', '.join(choices)}, but got {config_name!r}.")
    return datasets.Features(dict(choices[config_name]))


def number_features(config_name: str) -> datasets.Features:
    """
    What a metric of numbers is given: numbers (`"numbers"`, the default) or the nine scores (`"scores"`).

    Args:
        config_name (`str`): The module's `config_name`.

    Returns:
        `datasets.Features`.
    """
    # Integers would be made of fractions without a word.
    number = datasets.Value("float64")
    return choose_features(
        config_name,
        {
            "numbers": {"predictions": number, "references": number},
            "scores": {"predictions": datasets.List(number), "references": number},
        },
    )


def said_and_true(
    config_name: str, predictions: Any, references: Any, numbers: Sequence[int] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    The numbers said and the true ones, from what a metric of numbers was given.

    Args:
        config_name (`str`): The module's `config_name`.
        predictions: Numbers, or with `"scores"` the scores of the captions with each of `numbers`.
        references: True numbers.
        numbers (`Sequence[int]`, *optional*): The numbers that can occur; two to ten by default.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Both of shape `(num_images,)`.

    Raises:
        ValueError: If there is nothing, something is not finite or a number cannot occur.
    """
    allowed = NUMBERS if numbers is None else tuple(numbers)
    true = check_numbers(references, "references", allowed)
    if config_name == "scores":
        return numbers_said(predictions, allowed), true
    return check_numbers(predictions, "predictions", allowed), true


__all__ = [
    "INTERVAL_OPTIONS",
    "METRICS_FOLDER",
    "METRIC_NAMES",
    "choose_features",
    "load_metric",
    "number_features",
    "said_and_true",
]
