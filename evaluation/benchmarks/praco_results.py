"""What a measurement in the manner of PrACo gives: each count, and the figures worked out of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..functional import (
    bootstrap_interval,
    mean_absolute_error,
    mosaic_scores,
    normalized_mean_of_negatives,
    positive_class_count_nearness,
    root_mean_squared_error,
)
from ..inference.encoding import SkippedRow
from .density import DensityFigures


ROLES = ("named", "other", "absent")
"""What a prompt can be to its image: the kind asked for, another kind that is there, a kind that is not."""


@dataclass(frozen=True)
class PromptCount:
    """One prompt in one image."""

    text: str
    """What was counted."""
    role: str
    """One of `ROLES`."""
    count: float
    """The true count; 0 for what is not there."""
    predicted: float
    """The model's count, not rounded."""


@dataclass(frozen=True)
class PracoImage:
    """One image with all that was asked of it."""

    index: int
    """Which row of the data has it, from 0."""
    image_id: str
    """Its own name."""
    total: float
    """All objects known to be in it, of whatever kind."""
    prompts: list[PromptCount]
    """What was asked, the named kind first."""

    def of_role(self, role: str) -> list[PromptCount]:
        """Give the prompts of one role."""
        return [prompt for prompt in self.prompts if prompt.role == role]


@dataclass(frozen=True)
class PracoMosaic:
    """One mosaic of two images, of which the prompt names what is in the upper one."""

    image_id: str
    """The upper image."""
    other_image_id: str
    """The lower image, which has none of what is asked for."""
    text: str
    """What was counted."""
    count: float
    """The true count, all in the upper half."""
    total: float
    """All objects known to be in the upper image."""
    other_total: float
    """All objects known to be in the lower image."""
    predicted: float
    """The model's count in the upper half."""
    predicted_other: float
    """The model's count in the lower half; 0 is right."""


@dataclass(frozen=True)
class PracoFigures:
    """What PrACo measures; `None` where the data does not allow it."""

    named: DensityFigures | None
    """Errors of the counts of the kind that is asked for first."""
    other: DensityFigures | None
    """Errors of the counts of the other kinds in the same images."""
    absent: DensityFigures | None
    """Errors of the counts of kinds that are not there; every true count is 0."""
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
    """How far a model's counts follow the prompt, on a data set."""

    figures: PracoFigures
    """What the model reached."""
    counts_all: PracoFigures
    """What a counter reaches that counts all labelled objects of an image without error, whatever the prompt says."""
    intervals: dict[str, tuple[float, float]]
    """95 % bootstrap intervals over the images: of `named_mae`, `other_mae`, `absent_mae` and the figures' names."""
    num_images: int
    """Images measured."""
    num_mosaics: int
    """Mosaics measured."""
    num_empty: int
    """Images with nothing in them: without a named kind, NMN, PCCN and mosaics are undefined and leave them out."""
    num_single_kind: int
    """Images without a second kind."""
    num_without_absent: int
    """Images of which no kind is known to be absent: NMN and PCCN leave them out."""
    num_without_partner: int
    """Images with objects, but without another to make a mosaic with."""
    num_without_precision: int
    """Mosaics in which nothing was counted: the mean precision leaves them out."""
    options: dict[str, Any]
    """What was chosen: `seed`, `num_negatives`, `mosaics_per_image`, `mosaic_layout`, `unlisted_are_absent`."""
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
    """
    Say how many labelled objects there are, whatever is asked for.

    Args:
        images (`Iterable[PracoImage]`): Images that were measured.
        mosaics (`Iterable[PracoMosaic]`): Mosaics that were measured.

    Returns:
        The same with these counts in the place of the model's.
    """
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
    predicted, true = [prompt.predicted for prompt in prompts], [prompt.count for prompt in prompts]
    return DensityFigures(
        n=len(prompts),
        mae=mean_absolute_error(predicted, true),
        rmse=root_mean_squared_error(predicted, true),
        mean_count=float(np.mean(true)),
        mean_predicted=float(np.mean(predicted)),
    )


def _nearness_samples(images: Iterable[PracoImage]) -> tuple[list[float], list[float], list[float]]:
    """Of each image that has a named kind and an absent one: the named count, the mean absent one, the true one."""
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
    Work all figures out.

    Args:
        images (`Sequence[PracoImage]`): The images, each with the counts of its prompts.
        mosaics (`Sequence[PracoMosaic]`): The mosaics, each with the counts in its halves.

    Returns:
        [`PracoFigures`]: The figures. NMN and PCCN are over the images with something in them and something known
        to be absent; those of mosaics are means over the upper images, each the mean over its mosaics.

    Raises:
        ValueError: If a count is not finite.
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
    """
    Say how far each figure could be off because these and no other images were measured.

    Args:
        images (`Sequence[PracoImage]`): The images, drawn each with all its prompts.
        mosaics (`Sequence[PracoMosaic]`): The mosaics, drawn by their upper images.

    Returns:
        `dict[str, tuple[float, float]]`: The ends of a 95 % bootstrap interval; see `PracoResult.intervals`.
    """
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
