"""The share of images whose predicted number is right or off by one."""

from typing import Any

from count_clip.evaluation.functional import off_by_one_accuracy
from count_clip.evaluation.metrics.modules import NumberMetric


class OffByOneAccuracy(NumberMetric):
    """Share of the images whose predicted number, from two to ten, is right or off by one."""

    RETURNS = "`dict` with `off_by_one_accuracy`, from 0 to 1."
    EXAMPLE = """
    >>> off_by_one = evaluate.load("evaluation/metrics/off_by_one_accuracy")
    >>> off_by_one.compute(predictions=[2, 3, 4, 5], references=[2, 4, 4, 9])
    {'off_by_one_accuracy': 0.75}
"""

    def _compute(self, **inputs: Any) -> dict[str, Any]:
        return self.figure("off_by_one_accuracy", off_by_one_accuracy, **inputs)
