"""How many predicted points have an object near them, and how many objects a point."""

from typing import Any

import datasets
import evaluate
import numpy as np

from count_clip.evaluation.functional import match_points, point_scores, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_OPTIONS, choose_features


_DESCRIPTION = """Precision, recall and F1 of predicted points at a distance: a point is right if it is matched with an
object no farther away, each at most once. Over the points of all images together."""

_CITATION = """@article{wang2021nwpu,
  title   = {{NWPU-Crowd}: A Large-Scale Benchmark for Crowd Counting and Localization},
  author  = {Wang, Qi and Gao, Junyu and Lin, Wei and Li, Xuelong},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year    = {2021}
}"""

_INPUTS = f"""
Args:
    predictions: For each image its predicted points `[x, y]`, of any number, none included.
    references: For each image the places `[x, y]` of its objects, in the same frame.
    distances: Loaded as `"distances"` only: for each image how far a point may be from each of its objects, as
        NWPU-Crowd has it.
    distance (`float`): Otherwise: how far a point may be from its object, in the unit of the points.
    matching (`str`, *optional*, defaults to `"hungarian"`): `"hungarian"` finds as many pairs as there can be and
        needs SciPy; `"greedy"` takes the nearest pair first.{INTERVAL_OPTIONS}

Returns:
    `dict` with `precision`, `recall` and `f1` from 0 to 1 (0 where one would divide by zero), `mean_distance` of the
    pairs (`None` without a pair) and `num_matched`, `num_predicted`, `num_true`.

Example:
    >>> matching = evaluate.load("evaluation/metrics/point_matching")
    >>> matching.compute(predictions=[[[0, 0], [9, 9]]], references=[[[0, 1]]], distance=2)
    {{'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666, 'mean_distance': 1.0, 'num_matched': 1, \
'num_predicted': 2, 'num_true': 1}}
"""


class PointMatching(evaluate.Metric):
    """How many predicted points have an object near them, and how many objects a point."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        points = datasets.List(datasets.List(number))
        features = {"predictions": points, "references": points}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=choose_features(
                self.config_name, {"distance": features, "distances": {**features, "distances": datasets.List(number)}}
            ),
            reference_urls=["https://arxiv.org/abs/2001.03360"],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        distances: Any = None,
        distance: float | None = None,
        matching: str = "hungarian",
        confidence: float | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Any]:
        if distances is None:
            if distance is None:
                raise ValueError(
                    "Expected `distance`, how far a point may be from its object in the unit of the points, but got "
                    'none. Pass it to `compute`, or load the metric as "distances" to give one for each object.'
                )
            distances = [distance] * len(references)
        counts = [
            _counts(*row, matching, index)
            for index, row in enumerate(zip(predictions, references, distances, strict=True))
        ]
        if not counts:
            raise ValueError("Expected the points of at least one image, but got none. There is nothing to measure.")
        table = np.asarray(counts)  # (images, 4)
        matched, predicted, true, _ = (int(total) for total in table.sum(axis=0))
        result = with_intervals(_figures, *table.T, confidence=confidence, num_resamples=num_resamples, seed=seed)
        return {**result, "num_matched": matched, "num_predicted": predicted, "num_true": true}


def _counts(
    predictions: Any, references: Any, distance: Any, matching: str, index: int
) -> tuple[int, int, int, float]:
    """Pairs, predicted points and objects of one image, and the sum of the pairs' distances."""
    try:
        pairs = match_points(predictions, references, distance, matching)
    except ValueError as error:
        raise ValueError(f"Image {index}: {error}") from error
    ends = [np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (predictions, references)]
    apart = ends[0][pairs[:, 0]] - ends[1][pairs[:, 1]]
    return len(pairs), len(predictions), len(references), np.hypot(apart[:, 0], apart[:, 1]).sum()


def _figures(matched: Any, predicted: Any, true: Any, apart: Any) -> dict[str, float | None]:
    total = matched.sum()
    return {
        **point_scores(matched, predicted, true)._asdict(),
        "mean_distance": apart.sum() / total if total else None,
    }
