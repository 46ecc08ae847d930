"""How far predicted counts are from the true ones."""

from typing import Any

import numpy as np

from count_clip.evaluation.functional import counting_errors, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_ARGS, NUMBER, CountingMetric


class CountingError(CountingMetric):
    """
    The four errors of counts that papers report.

    Mean absolute error (MAE), root mean squared error (RMSE), normalised absolute error (NAE: mean of
    |predicted - true| / true) and squared relative error (SRE: root of the mean of (predicted - true)^2 / true). The
    last two leave out the images without objects.
    """

    CONFIGS = {"default": {"predictions": NUMBER, "references": NUMBER}}
    ARGS = f"""
    predictions: Predicted counts, `(num_images,)`, fractions allowed and not rounded.
    references: True counts, `(num_images,)`, none below zero.{INTERVAL_ARGS}"""
    RETURNS = """`dict` with `mae` and `rmse` in objects, `nae` and `sre` (`None` if no image has objects), and
    `num_with_objects`, the number of images that the last two cover."""
    EXAMPLE = """
    >>> error = evaluate.load("evaluation/metrics/counting_error")
    >>> error.compute(predictions=[6, 16, 1], references=[4, 16, 0])
    {'mae': 1.0, 'rmse': 1.2909944487358056, 'nae': 0.25, 'sre': 0.7071067811865476, 'num_with_objects': 2}
"""
    CITATION = """@inproceedings{nguyen2022fewshot,
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
    URLS = ("https://arxiv.org/abs/2207.10988", "https://arxiv.org/abs/2001.03360")

    def _compute(self, *, predictions: Any, references: Any, **interval: Any) -> dict[str, Any]:
        result = with_intervals(lambda *pair: counting_errors(*pair)._asdict(), predictions, references, **interval)
        return {**result, "num_with_objects": int(np.sum(np.asarray(references) > 0))}
