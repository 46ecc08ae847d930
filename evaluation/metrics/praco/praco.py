"""Whether counts follow the prompt: the measures of PrACo."""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from count_clip.evaluation.functional import (
    mosaic_scores,
    normalized_mean_of_negatives,
    positive_class_count_nearness,
    with_intervals,
)
from count_clip.evaluation.metrics.modules import INTERVAL_ARGS, NUMBER, CountingMetric


class Praco(CountingMetric):
    """
    PrACo's measures of whether a model counts the class that its prompt names.

    With prompts for absent classes: the normalised mean of negative predictions (NMN) and the positive class count
    nearness (PCCN). With mosaics of two images and a prompt for the class of one: counting precision, recall and F1.
    """

    CONFIGS = {
        "negatives": {"predictions": NUMBER, "negative_predictions": datasets.List(NUMBER), "references": NUMBER},
        "mosaics": {"predictions": NUMBER, "negative_predictions": NUMBER, "references": NUMBER},
    }
    ARGS = f"""
    predictions: With the configuration `"negatives"` (the default): the counts for the prompts that name the class in
        the image, `(num_images,)`. With `"mosaics"`: the counts in the half with the prompted class,
        `(num_mosaics,)`.
    negative_predictions: With `"negatives"`: for each image the counts for prompts of absent classes, a list of at
        least one. With `"mosaics"`: the counts in the other half, `(num_mosaics,)`.
    references: The true counts of the class in the image, each above zero.{INTERVAL_ARGS}"""
    RETURNS = """`dict`. With `"negatives"`: `nmn` (0 is perfect, 1 the value of a model that ignores the prompt) and
    `pccn` (per cent; 100 is perfect). With `"mosaics"`: `precision`, `recall` and `f1`, means over the mosaics from 0
    to 1; the precision leaves out mosaics in which nothing was counted, and is `None` if these are all."""
    EXAMPLE = """
    >>> negatives = evaluate.load("evaluation/metrics/praco")
    >>> negatives.compute(predictions=[4, 9], negative_predictions=[[2, 0], [1]], references=[4, 10])
    {'nmn': 0.175, 'pccn': 100.0}
    >>> mosaics = evaluate.load("evaluation/metrics/praco", "mosaics")
    >>> mosaics.compute(predictions=[3, 4], negative_predictions=[0, 4], references=[3, 4])
    {'precision': 0.75, 'recall': 1.0, 'f1': 0.8333333333333333}
"""
    CITATION = """@article{ciampi2024praco,
  title   = {Mind the Prompt: A Novel Benchmark for Prompt-based Class-Agnostic Counting},
  author  = {Ciampi, Luca and Messina, Nicola and Pierucci, Matteo and Amato, Giuseppe and Avvenuti, Marco and
             Falchi, Fabrizio},
  journal = {arXiv preprint arXiv:2409.15953},
  year    = {2024}
}"""
    URLS = ("https://arxiv.org/abs/2409.15953", "https://github.com/ciampluca/PrACo")

    def _compute(
        self, *, predictions: Any, negative_predictions: Any, references: Any, **interval: Any
    ) -> dict[str, Any]:
        if self.config_name == "mosaics":
            return with_intervals(_mosaic_figures, predictions, negative_predictions, references, **interval)
        means = [_mean(counts, index) for index, counts in enumerate(negative_predictions)]
        return with_intervals(_negative_figures, predictions, means, references, **interval)


def _mean(counts: Sequence[float], index: int) -> float:
    if not counts:
        raise ValueError(
            "Expected at least one count for a prompt of an absent class, but `negative_predictions` has none at "
            f"index {index}. Leave out the images without a class that is known to be absent."
        )
    return float(np.mean(np.asarray(counts, dtype=np.float64)))


def _negative_figures(positive: Any, negative_means: Any, true: Any) -> dict[str, float | None]:
    return {
        "nmn": normalized_mean_of_negatives(negative_means, true),
        "pccn": positive_class_count_nearness(positive, negative_means, true),
    }


def _mosaic_figures(positive: Any, negative: Any, true: Any) -> dict[str, float | None]:
    scores = mosaic_scores(positive, negative, true)
    precision = scores.precision[~np.isnan(scores.precision)]
    return {
        "precision": float(precision.mean()) if precision.size else None,
        "recall": float(scores.recall.mean()),
        "f1": float(scores.f1.mean()),
    }
