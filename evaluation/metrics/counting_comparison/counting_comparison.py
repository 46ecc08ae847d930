"""Whether one model counts better than another on the same images."""

from typing import Any

import evaluate

from count_clip.evaluation import functional
from count_clip.evaluation.metrics.modules import NUMBER, CountingModule


_METRICS = {
    "accuracy": functional.counting_accuracy,
    "off_by_one_accuracy": functional.off_by_one_accuracy,
    "mean_deviation": functional.mean_absolute_error,
    "mae": functional.mean_absolute_error,
    "rmse": functional.root_mean_squared_error,
    "nae": functional.normalized_absolute_error,
    "sre": functional.squared_relative_error,
}


class CountingComparison(CountingModule, evaluate.Comparison):
    """
    The difference between two models' figures on the same images, with a paired bootstrap interval.

    Each draw takes the same images for both models. An interval without 0 means that the difference is more than
    chance.
    """

    INFO = evaluate.ComparisonInfo
    CONFIGS = {"default": {"predictions1": NUMBER, "predictions2": NUMBER, "references": NUMBER}}
    ARGS = """
    predictions1: Numbers or counts that the first model predicted, `(num_images,)`.
    predictions2: Those of the second model for the same images.
    references: True numbers or counts.
    metric (`str`, *optional*, defaults to `"accuracy"`): `"accuracy"` or `"off_by_one_accuracy"` (more is better),
        `"mean_deviation"`, `"mae"`, `"rmse"`, `"nae"` or `"sre"` (less is better).
    confidence (`float`, *optional*, defaults to 0.95): The share of the outcomes within the interval.
    num_resamples (`int`, *optional*, defaults to 1000): Bootstrap draws.
    seed (`int`, *optional*, defaults to 0): Seed of the draws."""
    RETURNS = """`dict` with `first` and `second`, the two models' figures, `difference`, the first minus the second,
    and `difference_interval`, its ends."""
    EXAMPLE = """
    >>> comparison = evaluate.load("evaluation/metrics/counting_comparison")
    >>> comparison.compute(predictions1=[2, 3], predictions2=[3, 4], references=[2, 3])
    {'first': 1.0, 'second': 0.0, 'difference': 1.0, 'difference_interval': [1.0, 1.0]}
"""
    CITATION = """@inproceedings{koehn2004statistical,
  title     = {Statistical Significance Tests for Machine Translation Evaluation},
  author    = {Koehn, Philipp},
  booktitle = {Proceedings of the 2004 Conference on Empirical Methods in Natural Language Processing},
  year      = {2004}
}"""
    URLS = ("https://aclanthology.org/W04-3250",)

    def _compute(
        self, *, predictions1: Any, predictions2: Any, references: Any, metric: str = "accuracy", **interval: Any
    ) -> dict[str, Any]:
        if metric not in _METRICS:
            raise ValueError(f"Expected `metric` to be one of {', '.join(_METRICS)}, but got {metric!r}.")
        found = functional.bootstrap_difference(_METRICS[metric], predictions1, predictions2, references, **interval)
        figures = {"first": found.first, "second": found.second, "difference": found.difference}
        return {**figures, "difference_interval": [found.low, found.high]}
