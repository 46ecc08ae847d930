"""How far counts are from the true ones."""

from typing import Any

import datasets
import evaluate
import numpy as np

from count_clip.evaluation.functional import counting_errors, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_OPTIONS


_DESCRIPTION = """The four errors of counts that papers report: mean absolute error (MAE), root mean squared error
(RMSE), normalised absolute error (NAE: mean of |predicted - true| / true) and squared relative error (SRE: root of the
mean of (predicted - true)^2 / true). The last two leave out the images without objects."""

_CITATION = """@inproceedings{nguyen2022fewshot,
  title     = {Few-shot Object Counting and Detection},
  author    = {Nguyen, Thanh and Pham, Chau and Nguyen, Khoi and Hoai, Minh},
  booktitle = {European Conference on Computer Vision},
  year      = {2022}
}
@article{wang2021nwpu,
  title   = {{NWPU-Crowd}: A Large-Scale Benchmark for Crowd Counting and Localization},
  author  = {Wang, Qi and Gao, Junyu and Lin, Wei and Li, Xuelong},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year    = {2021}
}"""

_INPUTS = f"""
Args:
    predictions: Predicted counts, `(num_images,)`, fractions allowed and not rounded.
    references: True counts, `(num_images,)`, none below zero.{INTERVAL_OPTIONS}

Returns:
    `dict` with `mae` and `rmse` in objects, `nae` and `sre` (`None` if no image has objects), and
    `num_with_objects`, how many images the last two are over.

Example:
    >>> error = evaluate.load("evaluation/metrics/counting_error")
    >>> error.compute(predictions=[6, 16, 1], references=[4, 16, 0])
    {{'mae': 1.0, 'rmse': 1.2909944487358056, 'nae': 0.25, 'sre': 0.7071067811865476, 'num_with_objects': 2}}
"""


class CountingError(evaluate.Metric):
    """How far counts are from the true ones."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
            reference_urls=["https://arxiv.org/abs/2207.10988", "https://arxiv.org/abs/2001.03360"],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        confidence: float | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Any]:
        result = with_intervals(
            lambda predicted, true: counting_errors(predicted, true)._asdict(),
            predictions,
            references,
            confidence=confidence,
            num_resamples=num_resamples,
            seed=seed,
        )
        return {**result, "num_with_objects": int(np.sum(np.asarray(references) > 0))}
