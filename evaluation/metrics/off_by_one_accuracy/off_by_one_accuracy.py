"""How often the number said is right or next to right."""

from collections.abc import Sequence
from typing import Any

import evaluate

from count_clip.evaluation.functional import off_by_one_accuracy, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_OPTIONS, number_features, said_and_true


_DESCRIPTION = """Part of the images whose number, from two to ten, is right or one too many or too few."""

_CITATION = """@inproceedings{paiss2023teaching,
  title     = {Teaching {CLIP} to Count to Ten},
  author    = {Paiss, Roni and Ephrat, Ariel and Tov, Omer and Zada, Shiran and Mosseri, Inbar and Irani, Michal and
               Dekel, Tali},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year      = {2023}
}"""

_INPUTS = f"""
Args:
    predictions: The numbers said, `(num_images,)`. Loaded as `"scores"`: the scores of the captions with each
        number, `(num_images, len(numbers))`, of which the highest says the number.
    references: The true numbers, `(num_images,)`.
    numbers (`list[int]`, *optional*): The numbers that can occur, in the order of the scores; two to ten by
        default.{INTERVAL_OPTIONS}

Returns:
    `dict` with `off_by_one_accuracy`, from 0 to 1.

Example:
    >>> off_by_one = evaluate.load("evaluation/metrics/off_by_one_accuracy")
    >>> off_by_one.compute(predictions=[2, 3, 4, 5], references=[2, 4, 4, 9])
    {{'off_by_one_accuracy': 0.75}}
"""


class OffByOneAccuracy(evaluate.Metric):
    """How often the number said is right or next to right."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=number_features(self.config_name),
            reference_urls=["https://arxiv.org/abs/2302.12066"],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        numbers: Sequence[int] | None = None,
        confidence: float | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Any]:
        said, true = said_and_true(self.config_name, predictions, references, numbers)
        return with_intervals(
            lambda said, true: {"off_by_one_accuracy": off_by_one_accuracy(said, true)},
            said,
            true,
            confidence=confidence,
            num_resamples=num_resamples,
            seed=seed,
        )
