"""The share of images whose predicted number is exactly right."""

from typing import Any

from count_clip.evaluation.functional import counting_accuracy
from count_clip.evaluation.metrics.modules import NumberMetric


class CountingAccuracy(NumberMetric):
    """
    Share of the images whose predicted number, from two to ten, is exactly right: CountBench's first figure.

    Guessing gives 1/9.
    """

    RETURNS = "`dict` with `accuracy`, from 0 to 1."
    EXAMPLE = """
    >>> accuracy = evaluate.load("evaluation/metrics/counting_accuracy")
    >>> accuracy.compute(predictions=[2, 3, 4, 5], references=[2, 3, 4, 6])
    {'accuracy': 0.75}
"""

    def _compute(self, **inputs: Any) -> dict[str, Any]:
        return self.figure("accuracy", counting_accuracy, **inputs)
