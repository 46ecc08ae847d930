"""Whether counts follow the prompt: the measures of PrACo."""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from count_clip.evaluation.functional import (
    mosaic_scores,
    normalized_mean_of_negatives,
    positive_class_count_nearness,
    with_intervals,
)
from count_clip.evaluation.metrics.modules import INTERVAL_OPTIONS, choose_features


_DESCRIPTION = """PrACo's measures of whether a model counts what its prompt names. With prompts for what is not there:
the normalised mean of negative predictions (NMN) and the positive class count nearness (PCCN). With mosaics of two
images, of which the prompt names what is in one: counting precision, recall and F1."""

_CITATION = """@article{ciampi2024praco,
  title   = {Mind the Prompt: A Novel Benchmark for Prompt-based Class-Agnostic Counting},
  author  = {Ciampi, Luca and Messina, Nicola and Pierucci, Matteo and Amato, Giuseppe and Avvenuti, Marco and
             Falchi, Fabrizio},
  journal = {arXiv preprint arXiv:2409.15953},
  year    = {2024}
}"""

_INPUTS = f"""
Args:
    predictions: Loaded as `"negatives"` (the default): the counts for the prompts that name what is there,
        `(num_images,)`. Loaded as `"mosaics"`: the counts in the half that holds what the prompt names,
        `(num_mosaics,)`.
    negative_predictions: As `"negatives"`: for each image the counts for prompts that name nothing in it, a list of
        at least one. As `"mosaics"`: the counts in the other half, `(num_mosaics,)`.
    references: The true counts of what is there, each above zero.{INTERVAL_OPTIONS}

Returns:
    `dict`. As `"negatives"`: `nmn` (0 is perfect, 1 is what a model gives that ignores the prompt) and `pccn` (per
    cent; 100 is perfect). As `"mosaics"`: `precision`, `recall` and `f1`, means over the mosaics from 0 to 1; the
    precision leaves out those in which nothing was counted, and is `None` if that is all of them.

Example:
    >>> negatives = evaluate.load("evaluation/metrics/praco")
    >>> negatives.compute(predictions=[4, 9], negative_predictions=[[2, 0], [1]], references=[4, 10])
    {{'nmn': 0.175, 'pccn': 100.0}}
    >>> mosaics = evaluate.load("evaluation/metrics/praco", "mosaics")
    >>> mosaics.compute(predictions=[3, 4], negative_predictions=[0, 4], references=[3, 4])
    {{'precision': 0.75, 'recall': 1.0, 'f1': 0.8333333333333333}}
"""


class Praco(evaluate.Metric):
    """Whether counts follow the prompt: the measures of PrACo."""

    def _info(self) -> evaluate.MetricInfo:
        count = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=choose_features(
                self.config_name,
                {
                    "negatives": {
                        "predictions": count,
                        "negative_predictions": datasets.List(count),
                        "references": count,
                    },
                    "mosaics": {"predictions": count, "negative_predictions": count, "references": count},
                },
            ),
            reference_urls=["https://arxiv.org/abs/2409.15953", "https://github.com/ciampluca/PrACo"],
        )

    def _compute(
        self,
        predictions: Any,
        negative_predictions: Any,
        references: Any,
        confidence: float | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Any]:
        figures: Callable[..., dict[str, float | None]] = _mosaic_figures
        if self.config_name != "mosaics":
            figures = _negative_figures
            negative_predictions = [_mean(counts, index) for index, counts in enumerate(negative_predictions)]
        return with_intervals(
            figures,
            predictions,
            negative_predictions,
            references,
            confidence=confidence,
            num_resamples=num_resamples,
            seed=seed,
        )


def _mean(counts: Sequence[float], index: int) -> float:
    """The mean count for the prompts that name nothing in an image."""
    if not counts:
        raise ValueError(
            f"Expected at least one count for a prompt that names nothing in the image, but `negative_predictions` "
            f"has none at index {index}. Leave out the images of which no kind is known to be absent."
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
