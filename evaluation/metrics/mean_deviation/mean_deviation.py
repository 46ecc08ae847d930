"""How far predicted numbers are from the true ones, on average."""

from typing import Any

from count_clip.evaluation.functional import mean_deviation
from count_clip.evaluation.metrics.modules import NumberMetric


class MeanDeviation(NumberMetric):
    """Mean of |predicted number - true number|, in objects: CountBench's second figure. 0 is perfect."""

    RETURNS = "`dict` with `mean_deviation`, in objects."
    EXAMPLE = """
    >>> deviation = evaluate.load("evaluation/metrics/mean_deviation")
    >>> deviation.compute(predictions=[2, 3, 4, 5], references=[2, 3, 4, 9])
    {'mean_deviation': 1.0}
"""

    def _compute(self, **inputs: Any) -> dict[str, Any]:
        return self.figure("mean_deviation", mean_deviation, **inputs)
