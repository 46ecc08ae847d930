"""Whether the probability of the predicted number matches how often it is right."""

from collections.abc import Sequence
from typing import Any

import datasets

from count_clip.evaluation.functional import NUMBERS, Calibration, calibration, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_ARGS, NUMBER, CountingMetric


class CountingCalibration(CountingMetric):
    """
    Expected calibration error of the scores of the numbers from two to ten.

    Among the images whose predicted number has a probability of 80 %, is it right for 80 %? 0 is perfect.
    """

    CONFIGS = {"default": {"predictions": datasets.List(NUMBER), "references": NUMBER}}
    ARGS = f"""
    predictions: The scores of the captions with each number, `(num_images, len(numbers))`.
    references: The true numbers, `(num_images,)`.
    num_bins (`int`, *optional*, defaults to 15): Bins of equal width.
    scale (`float`, *optional*, defaults to 1.0): Factor of the scores before the softmax: the model's
        `logit_scale.exp()` for cosine similarities, 1 for `logits_per_image`.
    are_probabilities (`bool`, *optional*, defaults to `False`): Whether each row already sums to one.
    numbers (`list[int]`, *optional*, defaults to two to ten): The numbers of the columns.
    return_bins (`bool`, *optional*, defaults to `False`): Whether to return the bins.{INTERVAL_ARGS}"""
    RETURNS = """`dict` with `calibration_error`, `calibration_accuracy` and `calibration_confidence` (above the
    accuracy, the model is overconfident), and with `return_bins=True` also `bins`: `confidence`, `accuracy` and
    `count` of each bin that is not empty."""
    EXAMPLE = """
    >>> calibration = evaluate.load("evaluation/metrics/counting_calibration")
    >>> probs = [0.5] + [0.0625] * 8
    >>> calibration.compute(predictions=[probs, probs], references=[2, 3], are_probabilities=True)
    {'calibration_error': 0.0, 'calibration_accuracy': 0.5, 'calibration_confidence': 0.5}
"""
    CITATION = """@inproceedings{guo2017calibration,
  title     = {On Calibration of Modern Neural Networks},
  author    = {Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle = {Proceedings of the 34th International Conference on Machine Learning},
  year      = {2017}
}"""
    URLS = ("https://arxiv.org/abs/1706.04599",)

    def _compute(
        self,
        *,
        predictions: Any,
        references: Any,
        num_bins: int = 15,
        scale: float = 1.0,
        are_probabilities: bool = False,
        numbers: Sequence[int] | None = None,
        return_bins: bool = False,
        **interval: Any,
    ) -> dict[str, Any]:
        def measure(scores: Any, true: Any) -> Calibration:
            return calibration(scores, true, num_bins, scale, are_probabilities, numbers or NUMBERS)

        def figures(scores: Any, true: Any) -> dict[str, float]:
            found = measure(scores, true)
            return {f"calibration_{name}": getattr(found, name) for name in ("error", "accuracy", "confidence")}

        result = with_intervals(figures, predictions, references, **interval)
        if return_bins:
            found = measure(predictions, references)
            rows = zip(found.bin_confidences, found.bin_accuracies, found.bin_counts, strict=True)
            result["bins"] = [
                {"confidence": float(mean), "accuracy": float(right), "count": int(count)}
                for mean, right, count in rows
                if count
            ]
        return result
