"""How far the number said is from the true one, on average."""

from collections.abc import Sequence
from typing import Any

import evaluate

from count_clip.evaluation.functional import mean_deviation, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_OPTIONS, number_features, said_and_true


_DESCRIPTION = """Mean of |number said - true number|, in objects: CountBench's second figure. 0 is perfect."""

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
    `dict` with `mean_deviation`, in objects.

Example:
    >>> deviation = evaluate.load("evaluation/metrics/mean_deviation")
    >>> deviation.compute(predictions=[2, 3, 4, 5], references=[2, 3, 4, 9])
    {{'mean_deviation': 1.0}}
"""


class MeanDeviation(evaluate.Metric):
    """How far the number said is from the true one, on average."""

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
            lambda said, true: {"mean_deviation": mean_deviation(said, true)},
            said,
            true,
            confidence=confidence,
            num_resamples=num_resamples,
            seed=seed,
        )
