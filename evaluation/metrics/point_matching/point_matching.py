"""How many predicted points have an object near them, and how many objects a point."""

from typing import Any

import datasets
import numpy as np

from count_clip.evaluation.functional import match_points, point_scores, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_ARGS, NUMBER, CountingMetric


_POINTS = datasets.List(datasets.List(NUMBER))


class PointMatching(CountingMetric):
    """
    Precision, recall and F1 of predicted points at a distance, over the points of all images together.

    A point is right if it is matched with an object no farther away, each at most once.
    """

    CONFIGS = {
        "distance": {"predictions": _POINTS, "references": _POINTS},
        "distances": {"predictions": _POINTS, "references": _POINTS, "distances": datasets.List(NUMBER)},
    }
    ARGS = f"""
    predictions: For each image its predicted points `[x, y]`; an empty list for none.
    references: For each image the points `[x, y]` of its objects, in the same frame.
    distances: With the configuration `"distances"` only: for each image the largest distance for each of its objects,
        as in NWPU-Crowd.
    distance (`float`): Otherwise: the largest distance between a point and its object, in the unit of the points.
    matching (`str`, *optional*, defaults to `"hungarian"`): `"hungarian"` finds the most pairs and needs SciPy;
        `"greedy"` takes the nearest pair first.{INTERVAL_ARGS}"""
    RETURNS = """`dict` with `precision`, `recall` and `f1` from 0 to 1 (0 instead of a division by zero),
    `mean_distance` of the pairs (`None` without a pair) and `num_matched`, `num_predicted`, `num_true`."""
    EXAMPLE = """
    >>> matching = evaluate.load("evaluation/metrics/point_matching")
    >>> matching.compute(predictions=[[[0, 0], [9, 9]]], references=[[[0, 1]]], distance=2)
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666, 'mean_distance': 1.0, 'num_matched': 1, \
'num_predicted': 2, 'num_true': 1}
"""
    CITATION = """@article{wang2021nwpu,
  title   = {{NWPU-Crowd}: A Large-Scale Benchmark for Crowd Counting and Localization},
  author  = {Wang, Qi and Gao, Junyu and Lin, Wei and Li, Xuelong},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year    = {2021}
}"""
    URLS = ("https://arxiv.org/abs/2001.03360",)

    def _compute(
        self,
        *,
        predictions: Any,
        references: Any,
        distances: Any = None,
        distance: float | None = None,
        matching: str = "hungarian",
        **interval: Any,
    ) -> dict[str, Any]:
        if distances is None:
            if distance is None:
                raise ValueError(
                    "Expected `distance`, the largest distance between a point and its object in the unit of the "
                    'points, but got none. Pass it to `compute`, or load the metric as "distances" to pass one for '
                    "each object."
                )
            distances = [distance] * len(references)
        rows = enumerate(zip(predictions, references, distances, strict=True))
        counts = [_counts(index, *row, matching) for index, row in rows]
        if not counts:
            raise ValueError("Expected the points of at least one image, but got none. There is nothing to measure.")
        table = np.asarray(counts)  # (images, 4)
        matched, predicted, true, _ = (int(total) for total in table.sum(axis=0))
        result = with_intervals(_figures, *table.T, **interval)
        return {**result, "num_matched": matched, "num_predicted": predicted, "num_true": true}


def _counts(
    index: int, predictions: Any, references: Any, distance: Any, matching: str
) -> tuple[int, int, int, float]:
    """Pairs, predicted points and objects of one image, and the sum of the pairs' distances."""
    try:
        pairs = match_points(predictions, references, distance, matching)
    except ValueError as error:
        raise ValueError(f"Image {index}: {error}") from error
    predicted, true = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (predictions, references))
    distances = np.linalg.norm(predicted[pairs[:, 0]] - true[pairs[:, 1]], axis=1)
    return len(pairs), len(predicted), len(true), distances.sum()


def _figures(matched: Any, predicted: Any, true: Any, distances: Any) -> dict[str, float | None]:
    mean_distance = distances.sum() / matched.sum() if matched.any() else None
    return {**point_scores(matched, predicted, true)._asdict(), "mean_distance": mean_distance}
