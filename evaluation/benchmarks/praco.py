"""The PrACo protocol: does a density model count what its prompt names? (https://arxiv.org/abs/2409.15953)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import tqdm
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.files.resumable import ResultCache
from count_clip.modeling.counting_engine import Counted, DensityCounter, ImageCounter, Request
from count_clip.modeling.images import DECODER_ERRORS, ImageError

from ..inference.counting import cached_counts, counter_of, counts_of
from ..inference.encoding import SkippedRow, read_image
from .labelled import nothing_measured
from .praco_prompts import (
    LabelledImage,
    check_mosaic_layout,
    draw_mosaic,
    labelled_images,
    plan_mosaics,
)
from .praco_results import (
    PracoImage,
    PracoMosaic,
    PracoResult,
    PromptCount,
    counting_all,
    praco_figures,
    praco_intervals,
)


def evaluate_praco(
    model: Any,
    processor: Any,
    rows: Any,
    num_negatives: int | None = 8,
    mosaics_per_image: int | None = 1,
    mosaic_layout: str = "square",
    unlisted_are_absent: bool = False,
    seed: int = 0,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
    window: str | None = None,
    cache: ResultCache | None = None,
) -> PracoResult:
    """
    Measure whether the count follows the prompt.

    In every image, all classes in it and some absent ones are counted, with one pass of the vision tower. Then a class
    of the upper image is counted in mosaics of two images.

    Args:
        model ([`CLIPCountDensityModel`] or [`ImageCounter`]): The model, or a baseline that counts.
        processor ([`CLIPCountDensityProcessor`]): The model's processor; a baseline has none.
        rows: A sequence of rows of the density schema with `image_id`, several for an image: one for each class in
            it, and with count 0 for absent classes. Or rows of the configurations `mixed` and `described` of
            `countscenes`.
        num_negatives (`int`, *optional*, defaults to 8): Prompts for absent classes, drawn for each image; `None` for
            all of them, as in PrACo.
        mosaics_per_image (`int`, *optional*, defaults to 1): Mosaics with each image as the upper one, each with
            another class below; `None` for all classes, as in PrACo; 0 for no mosaics.
        mosaic_layout (`str`, *optional*, defaults to `"square"`): `"square"` as in PrACo, or `"stacked"`; see
            [`draw_mosaic`].
        unlisted_are_absent (`bool`, *optional*, defaults to `False`): Whether a class in no row of an image, but in
            one of another image, is absent. PrACo does so with FSC-147, whose rows name one class an image.
        seed (`int`, *optional*, defaults to 0): The seed of the draws, which do not depend on the order of the rows.
        batch_size (`int`, *optional*, defaults to 16): Maps (windows times prompts) at once.
        window (`str`, *optional*): `"sliding"`, or `"whole"` for each image in one pass; by default that of
            the processor's configuration.
        cache ([`ResultCache`], *optional*): Of this model, dtype and window: images and mosaics whose counts are in it
            are not counted in again, and the counts of others are put there.
        device, dtype, progress: As in [`evaluate_density`].

    Returns:
        [`PracoResult`]: The figures, those of a counter that ignores the prompt, each count, and what was left out.

    Raises:
        ValueError: If no image can be measured, none has both a class in it and an absent one, a prompt is too long, a
            count is not finite, or an option is out of its range.
        TypeError: If the model is of another class.

    Source:
        Ciampi et al., PrACo, 2024 (https://arxiv.org/abs/2409.15953), and its published code
        (https://github.com/ciampluca/PrACo). Its images have one class each: other classes in an image, and other
        objects in the upper half of a mosaic, are ours.
    """
    for name, value, least in (("num_negatives", num_negatives, 1), ("mosaics_per_image", mosaics_per_image, 0)):
        if value is not None and value < least:
            raise ValueError(f"Expected `{name}` of at least {least}, or None for all, but got {value}.")
    check_mosaic_layout(mosaic_layout)
    rows = rows if hasattr(rows, "__getitem__") and hasattr(rows, "__len__") else list(rows)
    labelled, skipped = labelled_images(rows, seed, unlisted_are_absent)
    _check_labels(labelled, skipped)

    protocol = _Protocol(rows, progress, cache)
    options = {"batch_size": batch_size, "device": device, "dtype": dtype, "window": window, "return_points": False}
    counter = counter_of(model, processor, return_density_map=False, **options)
    images = protocol.count_images(counter, labelled, num_negatives, seed)
    if isinstance(counter, DensityCounter):
        counter.return_density_map = True  # for the halves of a mosaic
    mosaics = protocol.count_mosaics(counter, mosaics_per_image, mosaic_layout, seed)
    skipped += protocol.skipped
    if not images:
        raise ValueError(nothing_measured(skipped))
    return PracoResult(
        figures=praco_figures(images, mosaics),
        counts_all=praco_figures(*counting_all(images, mosaics)),
        intervals=praco_intervals(images, mosaics),
        num_images=len(images),
        num_mosaics=len(mosaics),
        num_empty=sum(not image.of_role("named") for image in images),
        num_single_class=sum(bool(image.of_role("named")) and not image.of_role("other") for image in images),
        num_without_absent=sum(not image.of_role("absent") for image in images),
        num_without_partner=protocol.num_without_partner,
        num_without_precision=sum(mosaic.predicted + mosaic.predicted_other <= 0 for mosaic in mosaics),
        options={
            "seed": seed,
            "num_negatives": num_negatives,
            "mosaics_per_image": mosaics_per_image,
            "mosaic_layout": mosaic_layout,
            "unlisted_are_absent": unlisted_are_absent,
        },
        images=images,
        mosaics=mosaics,
        skipped=sorted(skipped, key=lambda row: row.index),
    )


def _check_labels(labelled: Sequence[LabelledImage], skipped: Sequence[SkippedRow]) -> None:
    """Refuse data without absent classes, before anything is counted."""
    if not labelled:
        raise ValueError(nothing_measured(skipped))
    if not any(image.named is not None and 0 in image.counts.values() for image in labelled):
        raise ValueError(
            f"Expected images with both present and absent classes, but none of the {len(labelled)} images has both. "
            "Give each image rows with a count above 0 and rows with count 0, under one `image_id`; or, if the rows "
            "name all classes in an image, pass `unlisted_are_absent=True` (`--unlisted-are-absent`)."
        )


class _Protocol:
    """Counts in the images of a data set, and then in mosaics of them."""

    def __init__(self, rows: Any, progress: bool, cache: ResultCache | None) -> None:
        self.rows, self.progress, self.cache = rows, progress, cache
        self.num_without_partner = 0
        self.skipped: list[SkippedRow] = []
        self._readable: list[LabelledImage] = []

    def count_images(
        self, counter: ImageCounter, labelled: Iterable[LabelledImage], num_negatives: int | None, seed: int
    ) -> list[PracoImage]:
        """Count the prompts of each image; the images in the order of the data."""
        roles_of_images = []
        for image in labelled:
            roles = {} if image.named is None else {image.named: "named"}
            roles |= dict.fromkeys(image.others, "other")
            roles |= dict.fromkeys(image.absent(num_negatives, seed), "absent")
            roles_of_images.append((image, roles))
        # Images with equally many prompts share a batch.
        roles_of_images.sort(key=lambda entry: len(entry[1]))

        def requests() -> Iterator[Request]:
            for image, roles in tqdm(roles_of_images, desc="images", disable=not self.progress, leave=False):
                try:
                    pixels = self._read(image)
                except ImageError as error:
                    self.skipped.append(SkippedRow(image.index, image.image_id, str(error)))
                    continue
                self._readable.append(image)
                yield pixels, list(roles), (image, roles)

        found = []
        for (image, roles), counts in self._counts(counter, requests(), counts_of, "counts"):
            prompts = [
                PromptCount(text, role, image.counts[text], count)
                for (text, role), count in zip(roles.items(), counts, strict=True)
            ]
            found.append(PracoImage(image.index, image.image_id, image.total, prompts))
        return sorted(found, key=lambda image: image.index)

    def count_mosaics(self, counter: ImageCounter, per_image: int | None, layout: str, seed: int) -> list[PracoMosaic]:
        """Count in both halves of the mosaics of the images that could be read."""
        if per_image == 0:
            return []
        self._readable.sort(key=lambda image: image.index)
        plans, self.num_without_partner = plan_mosaics(self._readable, per_image, seed)

        def requests() -> Iterator[Request]:
            for place, plan in enumerate(tqdm(plans, desc="mosaics", disable=not self.progress, leave=False)):
                mosaic, border = draw_mosaic(self._read(plan.positive), self._read(plan.negative), layout)
                yield mosaic, [plan.text], (place, border)

        halves = {place: counts for (place, _), counts in self._counts(counter, requests(), _counts_of_halves, layout)}
        return [
            PracoMosaic(
                image_id=plan.positive.image_id,
                other_image_id=plan.negative.image_id,
                text=plan.text,
                count=plan.positive.counts[plan.text],
                total=plan.positive.total,
                other_total=plan.negative.total,
                predicted=halves[place][0],
                predicted_other=halves[place][1],
            )
            for place, plan in enumerate(plans)
        ]

    def _counts(
        self,
        counter: ImageCounter,
        requests: Iterable[Request],
        values_of: Callable[[Counted], list[float]],
        values_are: str,
    ) -> Iterator[tuple[Any, list[float]]]:
        for tag, values, counted in cached_counts(counter, requests, self.cache, values_of, values_are):
            if counted is not None and counted.error is not None:
                raise counted.error
            yield tag, values

    def _read(self, image: LabelledImage) -> Image.Image:
        """The image, upright and RGB."""
        try:
            row = self.rows[image.index]
        except DECODER_ERRORS as error:
            raise ImageError(f"the row cannot be read: {error}") from error
        return read_image(row)


def _counts_of_halves(counted: Counted) -> list[float]:
    """The counts above and below the border of a mosaic."""
    _, border = counted.tag
    density_map: NDArray[np.float32] = counted.results[0]["density_map"]
    return [float(half.sum(dtype=np.float64)) for half in (density_map[:border], density_map[border:])]


__all__ = ["evaluate_praco"]
