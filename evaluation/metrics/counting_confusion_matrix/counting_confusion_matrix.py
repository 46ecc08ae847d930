"""Which number was said for which."""

from collections.abc import Sequence
from typing import Any

import evaluate

from count_clip.evaluation.functional import NUMBERS, confusion_matrix
from count_clip.evaluation.metrics.modules import number_features, said_and_true


_DESCRIPTION = """How often each number from two to ten was said for each: true numbers down, numbers said across."""

_CITATION = """@inproceedings{paiss2023teaching,
  title     = {Teaching {CLIP} to Count to Ten},
  author    = {Paiss, Roni and Ephrat, Ariel and Tov, Omer and Zada, Shiran and Mosseri, Inbar and Irani, Michal and
               Dekel, Tali},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year      = {2023}
}"""

_INPUTS = """
Args:
    predictions: The numbers said, `(num_images,)`. Loaded as `"scores"`: the scores of the captions with each
        number, `(num_images, len(numbers))`, of which the highest says the number.
    references: The true numbers, `(num_images,)`.
    numbers (`list[int]`, *optional*): The numbers that can occur, in the order of the scores; two to ten by default.

Returns:
    `dict` with `confusion_matrix`, a list of rows of counts of images, one for each true number, and `numbers`, what
    its rows and columns are.

Example:
    >>> matrix = evaluate.load("evaluation/metrics/counting_confusion_matrix")
    >>> matrix.compute(predictions=[2, 3, 3], references=[2, 3, 2], numbers=[2, 3])
    {'confusion_matrix': [[1, 1], [0, 1]], 'numbers': [2, 3]}
"""


class CountingConfusionMatrix(evaluate.Metric):
    """Which number was said for which."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=number_features(self.config_name),
            reference_urls=["https://arxiv.org/abs/2302.12066"],
        )

    def _compute(self, predictions: Any, references: Any, numbers: Sequence[int] | None = None) -> dict[str, Any]:
        numbers = NUMBERS if numbers is None else numbers
        said, true = said_and_true(self.config_name, predictions, references, numbers)
        matrix = confusion_matrix(said, true, numbers)
        return {"confusion_matrix": matrix.tolist(), "numbers": list(numbers)}
