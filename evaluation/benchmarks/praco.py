"""Whether a density model counts what its prompt names, in the manner of PrACo (https://arxiv.org/abs/2409.15953)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import tqdm
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.files.resumable import ResultCache
from count_clip.modeling.images import ImageError

from ..inference.encoding import SkippedRow, read_image
from ..records.cache import content_key
from .density import predict_density
from .labelled import nothing_measured
from .praco_questions import (
    LabelledImage,
    MosaicPlan,
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

    Every image is asked for all kinds in it and for some that are not there, with one pass of the vision tower for
    all of them. Then mosaics of two images are asked for what is in only one of them.

    Args:
        model ([`CLIPCountDensityModel`] or [`ImageCounter`]): The model, or a baseline that counts.
        processor ([`CLIPCountDensityProcessor`]): The model's processor; a baseline has none.
        rows: A sequence of rows of the density schema with `image_id`, several for an image: one for each kind in it,
            and with count 0 for kinds that are not. Or rows of the configurations `mixed` and `described`
            of `countscenes`.
        num_negatives (`int`, *optional*, defaults to 8): Prompts for what is not there, drawn for each image; `None`
            for all that are known, as in PrACo.
        mosaics_per_image (`int`, *optional*, defaults to 1): Mosaics with each image as the upper one, each with
            another kind below; `None` for all kinds, as in PrACo; 0 for no mosaics.
        mosaic_layout (`str`, *optional*, defaults to `"square"`): `"square"` as in PrACo, or `"stacked"`; see
            [`draw_mosaic`].
        unlisted_are_absent (`bool`, *optional*, defaults to `False`): Whether what no row of an image mentions, but
            one of another does, is not in it. PrACo takes FSC-147 so, whose rows name one kind an image.
        seed (`int`, *optional*, defaults to 0): Where the draws start. They do not depend on the order of the rows.
        batch_size (`int`, *optional*, defaults to 16): Maps (windows times prompts) at once.
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.
        window (`str`, *optional*): `"sliding"`, or `"whole"` for each image in one pass; what the processor's
            configuration says by default.
        cache ([`ResultCache`], *optional*): Of this model, dtype and window: images and mosaics whose counts are in
            it are not counted in again, and the counts of others are put there.

    Returns:
        [`PracoResult`]: The figures, what a counter would get that ignores the prompt, each count, and what was left
        out.

    Raises:
        ValueError: If no image can be measured, if none has both a kind in it and one known to be absent, if a
            prompt is too long, if a count is not finite, or an option is out of its range.
        TypeError: If the model is of another kind.

    Source:
        Ciampi et al., PrACo, 2024 (https://arxiv.org/abs/2409.15953), and its published code
        (https://github.com/ciampluca/PrACo). Its images have one kind each, so that "another kind that is there" is
        ours, and so is the upper half of a mosaic that holds more than what is asked for.
    """
    for name, value, least in (("num_negatives", num_negatives, 1), ("mosaics_per_image", mosaics_per_image, 0)):
        if value is not None and value < least:
            raise ValueError(f"Expected `{name}` of at least {least}, or None for all, but got {value}.")
    check_mosaic_layout(mosaic_layout)
    rows = rows if hasattr(rows, "__getitem__") and hasattr(rows, "__len__") else list(rows)
    labelled, skipped = labelled_images(rows, seed, unlisted_are_absent)
    _check_labels(labelled, skipped)

    inquiry = _Inquiry(rows, labelled, num_negatives, mosaics_per_image, mosaic_layout, seed, progress, cache)
    counted = predict_density(
        model,
        processor,
        inquiry.images(),
        inquiry.prompts(),
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        return_points=False,
        window=window,
    )
    images, mosaics = inquiry.answers(counted)
    skipped += inquiry.skipped
    if not images:
        raise ValueError(nothing_measured(skipped))
    return PracoResult(
        figures=praco_figures(images, mosaics),
        counts_all=praco_figures(*counting_all(images, mosaics)),
        intervals=praco_intervals(images, mosaics),
        num_images=len(images),
        num_mosaics=len(mosaics),
        num_empty=sum(not image.of_role("named") for image in images),
        num_single_kind=sum(bool(image.of_role("named")) and not image.of_role("other") for image in images),
        num_without_absent=sum(not image.of_role("absent") for image in images),
        num_without_partner=inquiry.num_without_partner,
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
    """Refuse data in which no prompt is known to be wrong, before anything is counted."""
    if not labelled:
        raise ValueError(nothing_measured(skipped))
    if not any(image.named is not None and 0 in image.counts.values() for image in labelled):
        raise ValueError(
            f"Expected images of which it is known what is in them and what is not, but none of the {len(labelled)} "
            "images has both. Give each image rows with a count above 0 and rows with count 0, under one "
            "`image_id`; or, if the rows name all that is in an image, pass `unlisted_are_absent=True` "
            "(`--unlisted-are-absent`)."
        )


@dataclass(frozen=True)
class _Question:
    """One image, or one mosaic, and what it is asked for."""

    image: LabelledImage
    roles: dict[str, str]
    """The role of each prompt."""
    mosaic: MosaicPlan | None = None
    border: int = 0
    """The first row of pixels of a mosaic's lower half."""
    place: int = 0
    """Which of the mosaics it is."""
    key: str = ""
    """What the cache knows it by."""


class _Inquiry:
    """Reads images one after another, puts mosaics of them after them, and knows which count is whose."""

    def __init__(
        self,
        rows: Any,
        labelled: Iterable[LabelledImage],
        num_negatives: int | None,
        mosaics_per_image: int | None,
        mosaic_layout: str,
        seed: int,
        progress: bool,
        cache: ResultCache | None,
    ) -> None:
        self.rows, self.seed, self.progress, self.cache = rows, seed, progress, cache
        self.mosaics_per_image, self.mosaic_layout = mosaics_per_image, mosaic_layout
        self.num_without_partner = 0
        self.skipped: list[SkippedRow] = []
        self._asked: list[_Question] = []
        self._known: list[tuple[_Question, list[float]]] = []
        self._questions: list[_Question] = []
        for image in labelled:
            roles = {} if image.named is None else {image.named: "named"}
            roles |= dict.fromkeys(image.others, "other")
            roles |= dict.fromkeys(image.absent(num_negatives, seed), "absent")
            self._questions.append(_Question(image, roles))
        # Images with equally many prompts share a batch.
        self._questions.sort(key=lambda question: len(question.roles))

    def images(self) -> Iterator[Image.Image]:
        """All images that can be read, then the mosaics of these; but for those that the cache knows."""
        readable: list[LabelledImage] = []
        for question in tqdm(self._questions, desc="images", disable=not self.progress, leave=False):
            try:
                image = self._read(question.image)
            except ImageError as error:
                self.skipped.append(SkippedRow(question.image.index, question.image.image_id, str(error)))
                continue
            readable.append(question.image)
            if self._is_asked(image, question):
                yield image
        if self.mosaics_per_image == 0:
            return
        readable.sort(key=lambda image: image.index)
        plans, self.num_without_partner = plan_mosaics(readable, self.mosaics_per_image, self.seed)
        for place, plan in enumerate(tqdm(plans, desc="mosaics", disable=not self.progress, leave=False)):
            mosaic, border = draw_mosaic(self._read(plan.positive), self._read(plan.negative), self.mosaic_layout)
            if self._is_asked(mosaic, _Question(plan.positive, {plan.text: "named"}, plan, border, place=place)):
                yield mosaic

    def _is_asked(self, image: Image.Image, question: _Question) -> bool:
        """Whether the model is to be asked; what the cache knows is answered already."""
        if self.cache is not None:
            question = replace(question, key=content_key(image, list(question.roles), question.border))
            if question.key in self.cache:
                self._known.append((question, self.cache[question.key]))
                return False
        self._asked.append(question)
        return True

    def prompts(self) -> Iterator[list[str]]:
        """The prompts of each of `images`, which has to be ahead by one."""
        place = 0
        while place < len(self._asked):
            yield list(self._asked[place].roles)
            place += 1

    def answers(self, counted: Iterable[Any]) -> tuple[list[PracoImage], list[PracoMosaic]]:
        """What was counted in each of `images`; the images in the order of the data."""
        found: list[tuple[_Question, list[float]]] = []
        for place, results in enumerate(counted):
            question = self._asked[place]
            counts = _counts(question, results)
            if self.cache is not None and np.isfinite(counts).all():
                self.cache[question.key] = counts
            found.append((question, counts))
        found += self._known  # complete by now: `images` has come to its end
        images = [_image_answer(question, counts) for question, counts in found if question.mosaic is None]
        mosaics = sorted((one for one in found if one[0].mosaic is not None), key=lambda one: one[0].place)
        return sorted(images, key=lambda image: image.index), [
            _mosaic_answer(question.mosaic, *counts) for question, counts in mosaics if question.mosaic is not None
        ]

    def _read(self, image: LabelledImage) -> Image.Image:
        """The image, upright and RGB."""
        try:
            row = self.rows[image.index]
        except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise ImageError(f"the row cannot be read: {error}") from error
        return read_image(row)


def _counts(question: _Question, results: Sequence[Mapping[str, Any]]) -> list[float]:
    """The count of each prompt in an image, or those in the halves of a mosaic."""
    if question.mosaic is None:
        return [float(result["count"]) for result in results]
    density_map: NDArray[np.float32] = results[0]["density_map"]
    halves = (density_map[: question.border], density_map[question.border :])
    return [float(half.sum(dtype=np.float64)) for half in halves]


def _image_answer(question: _Question, counts: Sequence[float]) -> PracoImage:
    """The counts in one image."""
    image = question.image
    prompts = [
        PromptCount(text, role, image.counts[text], count)
        for (text, role), count in zip(question.roles.items(), counts, strict=True)
    ]
    return PracoImage(image.index, image.image_id, image.total, prompts)


def _mosaic_answer(plan: MosaicPlan, upper: float, lower: float) -> PracoMosaic:
    """The counts in the halves of one mosaic."""
    return PracoMosaic(
        image_id=plan.positive.image_id,
        other_image_id=plan.negative.image_id,
        text=plan.text,
        count=plan.positive.counts[plan.text],
        total=plan.positive.total,
        other_total=plan.negative.total,
        predicted=upper,
        predicted_other=lower,
    )


__all__ = ["evaluate_praco"]
