"""Which numbers were predicted for each true number."""

from collections.abc import Sequence
from typing import Any

from count_clip.evaluation.functional import NUMBERS, confusion_matrix
from count_clip.evaluation.metrics.modules import NumberMetric


class CountingConfusionMatrix(NumberMetric):
    """How often each number from two to ten was predicted for each true number: true down, predicted across."""

    ARGS = NumberMetric.NUMBER_ARGS
    RETURNS = """`dict` with `confusion_matrix`, numbers of images (a row for each true, a column for each predicted
    number), and `numbers`, the labels of rows and columns."""
    EXAMPLE = """
    >>> matrix = evaluate.load("evaluation/metrics/counting_confusion_matrix")
    >>> matrix.compute(predictions=[2, 3, 3], references=[2, 3, 2], numbers=[2, 3])
    {'confusion_matrix': [[1, 1], [0, 1]], 'numbers': [2, 3]}
"""

    def _compute(self, *, predictions: Any, references: Any, numbers: Sequence[int] | None = None) -> dict[str, Any]:
        numbers = NUMBERS if numbers is None else numbers
        matrix = confusion_matrix(*self._numbers(predictions, references, numbers), numbers)
        return {"confusion_matrix": matrix.tolist(), "numbers": list(numbers)}
