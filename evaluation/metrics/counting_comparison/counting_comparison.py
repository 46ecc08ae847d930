"""Whether one model counts better than another on the same images, or only seems to."""

from typing import Any

import datasets
import evaluate

from count_clip.evaluation.functional import (
    bootstrap_difference,
    counting_accuracy,
    mean_absolute_error,
    normalized_absolute_error,
    off_by_one_accuracy,
    root_mean_squared_error,
    squared_relative_error,
)


_DESCRIPTION = """The difference between two models' figures on the same images, with a bootstrap interval that draws
the images for both models together. An interval without 0 says that the difference is more than chance."""

_CITATION = """@inproceedings{koehn2004statistical,
  title     = {Statistical Significance Tests for Machine Translation Evaluation},
  author    = {Koehn, Philipp},
  booktitle = {Proceedings of the 2004 Conference on Empirical Methods in Natural Language Processing},
  year      = {2004}
}"""

_INPUTS = """
Args:
    predictions1: The first model's numbers or counts, `(num_images,)`.
    predictions2: The second model's, of the same images.
    references: The true ones.
    metric (`str`, *optional*, defaults to `"accuracy"`): `"accuracy"` or `"off_by_one_accuracy"` (more is better),
        `"mean_deviation"`, `"mae"`, `"rmse"`, `"nae"` or `"sre"` (less is better).
    confidence (`float`, *optional*, defaults to 0.95): How much of the outcomes the interval holds.
    num_resamples (`int`, *optional*, defaults to 1000): How often the images are drawn.
    seed (`int`, *optional*, defaults to 0): Where these draws start.

Returns:
    `dict` with `first` and `second`, the two models' figures, `difference`, the first minus the second, and
    `difference_interval`, its ends.

Example:
    >>> comparison = evaluate.load("evaluation/metrics/counting_comparison")
    >>> comparison.compute(predictions1=[2, 3], predictions2=[3, 4], references=[2, 3])
    {'first': 1.0, 'second': 0.0, 'difference': 1.0, 'difference_interval': [1.0, 1.0]}
"""

_METRICS = {
    "accuracy": counting_accuracy,
    "off_by_one_accuracy": off_by_one_accuracy,
    "mean_deviation": mean_absolute_error,
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
    "nae": normalized_absolute_error,
    "sre": squared_relative_error,
}


class CountingComparison(evaluate.Comparison):
    """Whether one model counts better than another on the same images, or only seems to."""

    def _info(self) -> evaluate.ComparisonInfo:
        count = datasets.Value("float64")
        return evaluate.ComparisonInfo(
            module_type="comparison",
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions1": count, "predictions2": count, "references": count}),
            reference_urls=["https://aclanthology.org/W04-3250"],
        )

    def _compute(
        self,
        predictions1: Any,
        predictions2: Any,
        references: Any,
        metric: str = "accuracy",
        confidence: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Any]:
        if metric not in _METRICS:
            raise ValueError(f"Expected `metric` to be one of {', '.join(_METRICS)}, but got {metric!r}.")
        found = bootstrap_difference(
            _METRICS[metric],
            predictions1,
            predictions2,
            references,
            confidence=confidence,
            num_resamples=num_resamples,
            seed=seed,
        )
        return {
            "first": found.first,
            "second": found.second,
            "difference": found.difference,
            "difference_interval": [found.low, found.high],
        }
