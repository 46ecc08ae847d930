"""Whether the probability of the number said tells how often it is right."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from count_clip.evaluation.functional import NUMBERS, Calibration, calibration, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_OPTIONS


_DESCRIPTION = """Expected calibration error of the nine-way scores: among the images in which the softmax gives the
number said a probability of 80 %, is it right 80 % of the time? 0 is perfect."""

_CITATION = """@inproceedings{guo2017calibration,
  title     = {On Calibration of Modern Neural Networks},
  author    = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle = {Proceedings of the 34th International Conference on Machine Learning},
  year      = {2017}
}"""

_INPUTS = f"""
Args:
    predictions: The scores of the captions with each number, `(num_images, len(numbers))`.
    references: The true numbers, `(num_images,)`.
    num_bins (`int`, *optional*, defaults to 15): Bins of equal width.
    scale (`float`, *optional*, defaults to 1.0): What scores are multiplied by before the softmax: the model's
        `logit_scale.exp()` where they are cosine similarities, 1 where they are `logits_per_image`.
    are_probabilities (`bool`, *optional*, defaults to `False`): Whether each row sums to one already.
    numbers (`list[int]`, *optional*): What the scores stand for; two to ten by
        default.{INTERVAL_OPTIONS}

Returns:
    `dict` with `calibration_error`, `calibration_accuracy` and `calibration_confidence` (their difference says whether
    the model is too sure of itself), and with `return_bins=True` also `bins`: `confidence`, `accuracy` and `count` of
    each bin that is not empty.

Example:
    >>> calibration = evaluate.load("evaluation/metrics/counting_calibration")
    >>> sure = [0.5] + [0.0625] * 8
    >>> calibration.compute(predictions=[sure, sure], references=[2, 3], are_probabilities=True)
    {{'calibration_error': 0.0, 'calibration_accuracy': 0.5, 'calibration_confidence': 0.5}}
"""


class CountingCalibration(evaluate.Metric):
    """Whether the probability of the number said tells how often it is right."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("float64")}
            ),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        num_bins: int = 15,
        scale: float = 1.0,
        are_probabilities: bool = False,
        numbers: Sequence[int] | None = None,
        return_bins: bool = False,
        confidence: float | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Any]:
        def measure(scores: Any, true: Any) -> Calibration:
            return calibration(scores, true, num_bins, scale, are_probabilities, numbers or NUMBERS)

        def figures(scores: Any, true: Any) -> dict[str, float]:
            found = measure(scores, true)
            return {f"calibration_{name}": getattr(found, name) for name in ("error", "accuracy", "confidence")}

        # The first call of `figures` says what is wrong with the scores, before any are drawn.
        result = with_intervals(
            figures, predictions, references, confidence=confidence, num_resamples=num_resamples, seed=seed
        )
        if return_bins:
            found = measure(predictions, references)
            rows = zip(found.bin_confidences, found.bin_accuracies, found.bin_counts, strict=True)
            result["bins"] = [
                {"confidence": float(mean), "accuracy": float(right), "count": int(count)}
                for mean, right, count in rows
                if count
            ]
        return result
