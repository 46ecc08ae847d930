"""Results of the PrACo protocol: each count, and the figures computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..functional import (
    bootstrap_interval,
    mosaic_scores,
    normalized_mean_of_negatives,
    positive_class_count_nearness,
)
from ..inference.encoding import SkippedRow
from .density import DensityFigures


ROLES = ("named", "other", "absent")
"""Roles of a prompt: the class of the image that is counted first, another class in it, an absent class."""


@dataclass(frozen=True)
class PromptCount:
    """One prompt in one image."""

    text: str
    """What was counted."""
    role: str
    """One of `ROLES`."""
    count: float
    """The true count; 0 for an absent class."""
    predicted: float
    """The model's count, not rounded."""


@dataclass(frozen=True)
class PracoImage:
    """The counts of one image."""

    index: int
    """Which row of the data has it, from 0."""
    image_id: str
    """The `image_id` of its rows."""
    total: float
    """All labelled objects in it."""
    prompts: list[PromptCount]
    """Its prompts, the named class first."""

    def of_role(self, role: str) -> list[PromptCount]:
        """The prompts of one role."""
        return [prompt for prompt in self.prompts if prompt.role == role]


@dataclass(frozen=True)
class PracoMosaic:
    """One mosaic of two images; the prompt names a class in the upper one."""

    image_id: str
    """The upper image."""
    other_image_id: str
    """The lower image, without objects of that class."""
    text: str
    """What was counted."""
    count: float
    """The true count, all in the upper half."""
    total: float
    """All labelled objects in the upper image."""
    other_total: float
    """All labelled objects in the lower image."""
    predicted: float
    """The model's count in the upper half."""
    predicted_other: float
    """The model's count in the lower half; 0 is right."""


@dataclass(frozen=True)
class PracoFigures:
    """The figures of PrACo; `None` where the data does not allow them."""

    named: DensityFigures | None
    """Errors of the counts of the named class."""
    other: DensityFigures | None
    """Errors of the counts of other classes in the same images."""
    absent: DensityFigures | None
    """Errors of the counts of absent classes; every true count is 0."""
    nmn: float | None
    """Normalised mean of negative predictions; 0 is perfect."""
    pccn: float | None
    """Positive class count nearness, in per cent; 100 is perfect."""
    precision: float | None
    """Counting precision on mosaics, from 0 to 1."""
    recall: float | None
    """Counting recall on mosaics, from 0 to 1."""
    f1: float | None
    """Counting F1 on mosaics, from 0 to 1."""


@dataclass(frozen=True)
class PracoResult:
    """Result of the PrACo protocol on a data set."""

    figures: PracoFigures
    """The figures of the model."""
    counts_all: PracoFigures
    """The figures of a counter that ignores the prompt and counts all labelled objects of an image."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap intervals over the images: of `named_mae`, `other_mae`, `absent_mae` and the figures' names."""
    num_images: int
    """Images measured."""
    num_mosaics: int
    """Mosaics measured."""
    num_empty: int
    """Images without objects; NMN, PCCN and mosaics leave them out."""
    num_single_class: int
    """Images without a second class."""
    num_without_absent: int
    """Images without an absent class; NMN and PCCN leave them out."""
    num_without_partner: int
    """Images with objects, but without a partner for a mosaic."""
    num_without_precision: int
    """Mosaics with a predicted count of 0; the mean precision leaves them out."""
    options: dict[str, Any]
    """The options: `seed`, `num_negatives`, `mosaics_per_image`, `mosaic_layout`, `unlisted_are_absent`."""
    images: list[PracoImage]
    """Each image measured, in the order of the data."""
    mosaics: list[PracoMosaic]
    """Each mosaic measured."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows and images that could not be measured."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for JSON."""
        return asdict(self)


def counting_all(
    images: Iterable[PracoImage], mosaics: Iterable[PracoMosaic]
) -> tuple[list[PracoImage], list[PracoMosaic]]:
    """Copies in which each prediction is the number of all labelled objects."""
    return (
        [
            replace(image, prompts=[replace(prompt, predicted=image.total) for prompt in image.prompts])
            for image in images
        ],
        [replace(mosaic, predicted=mosaic.total, predicted_other=mosaic.other_total) for mosaic in mosaics],
    )


def _role_figures(images: Iterable[PracoImage], role: str) -> DensityFigures | None:
    """Errors over the prompts of one role."""
    prompts = [prompt for image in images for prompt in image.of_role(role)]
    if not prompts:
        return None
    return DensityFigures.of_counts([prompt.predicted for prompt in prompts], [prompt.count for prompt in prompts])


def _nearness_samples(images: Iterable[PracoImage]) -> tuple[list[float], list[float], list[float]]:
    """Of each image with a named class and an absent one: the named count, the mean absent one, the true one."""
    positive, negative, true = [], [], []
    for image in images:
        named, absent = image.of_role("named"), image.of_role("absent")
        if named and absent:
            positive.append(named[0].predicted)
            negative.append(float(np.mean([prompt.predicted for prompt in absent])))
            true.append(named[0].count)
    return positive, negative, true


def _mosaic_samples(mosaics: Sequence[PracoMosaic]) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 of each upper image, over its mosaics; an image without a precision has none."""
    if not mosaics:
        return {}
    scores = mosaic_scores(
        [mosaic.predicted for mosaic in mosaics],
        [mosaic.predicted_other for mosaic in mosaics],
        [mosaic.count for mosaic in mosaics],
    )
    places: dict[str, list[int]] = {}
    for place, mosaic in enumerate(mosaics):
        places.setdefault(mosaic.image_id, []).append(place)
    samples = {}
    for name, values in scores._asdict().items():
        of_images = [values[of_image][~np.isnan(values[of_image])] for of_image in places.values()]
        means = [of_image.mean() for of_image in of_images if of_image.size]
        if means:
            samples[name] = np.asarray(means)
    return samples


def praco_figures(images: Sequence[PracoImage], mosaics: Sequence[PracoMosaic]) -> PracoFigures:
    """
    Compute all figures.

    NMN and PCCN are over the images with a named and an absent class; the figures of mosaics are means over the upper
    images, each the mean over its mosaics. A count that is not finite raises a `ValueError`.
    """
    positive, negative, true = _nearness_samples(images)
    of_mosaics = {name: float(values.mean()) for name, values in _mosaic_samples(mosaics).items()}
    return PracoFigures(
        **{role: _role_figures(images, role) for role in ROLES},
        nmn=normalized_mean_of_negatives(negative, true) if true else None,
        pccn=positive_class_count_nearness(positive, negative, true) if true else None,
        precision=of_mosaics.get("precision"),
        recall=of_mosaics.get("recall"),
        f1=of_mosaics.get("f1"),
    )


def praco_intervals(images: Sequence[PracoImage], mosaics: Sequence[PracoMosaic]) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of the figures, over images with all their prompts and over upper images."""
    intervals = {}
    for role in ROLES:
        groups = [prompts for image in images if (prompts := image.of_role(role))]
        if groups:
            errors = [sum(abs(prompt.predicted - prompt.count) for prompt in prompts) for prompts in groups]
            sizes = [len(prompts) for prompts in groups]
            intervals[f"{role}_mae"] = bootstrap_interval(lambda e, n: float(e.sum() / n.sum()), errors, sizes)
    positive, negative, true = _nearness_samples(images)
    if true:
        intervals["nmn"] = bootstrap_interval(normalized_mean_of_negatives, negative, true)
        intervals["pccn"] = bootstrap_interval(positive_class_count_nearness, positive, negative, true)
    for name, values in _mosaic_samples(mosaics).items():
        intervals[name] = bootstrap_interval(lambda sample: float(np.mean(sample)), values)
    return intervals


__all__ = [
    "ROLES",
    "PracoFigures",
    "PracoImage",
    "PracoMosaic",
    "PracoResult",
    "PromptCount",
    "counting_all",
    "praco_figures",
    "praco_intervals",
]
