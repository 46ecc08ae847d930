"""How much of the relevance falls on the objects and on the number word, over data that has boxes and captions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import torch
from huggingface_hub.utils import tqdm
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.captions.numbers import find_count
from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.datasets_scripts.countscenes.config import scene_config
from count_clip.modeling.images import ImageError

from ..functional import bootstrap_interval
from ..inference.encoding import Encoder, SkippedRow, evaluating, image_id_of, num_rows, read_image, read_rows
from .explain import Explainer, Relevance, counterfactuals_of
from .frames import box_mask, coverage


_LABELS = ("text", "number", "name")


class BoxedScenes(CountScenes):
    """
    Scenes of `countscenes` with their captions, and with the boxes that caption rows do not have.

    Args:
        split (`str`): `"validation"` or `"test"`; of `"train"`, too, scenes can be drawn.
        num_scenes (`int`, *optional*): How many; by default those of the benchmark.
        image_size (`int`, *optional*): Side of the images in pixels; by default the configuration's.
        seed (`int`, *optional*, defaults to 0): Which of the endless sets of scenes.
        config (`str`, *optional*, defaults to `"benchmark"`): Or another configuration with captions, `"plain"`.
        overrides (`Any`, *optional*): Other fields of `SceneConfig` to change.

    Raises:
        TypeError: If there is no field of a given name.
        ValueError: If there is no such split or configuration, or a value does not do.
    """

    def __init__(
        self,
        split: str = "test",
        num_scenes: int | None = None,
        image_size: int | None = None,
        seed: int = 0,
        config: str = "benchmark",
        **overrides: Any,
    ) -> None:
        self._captions = CountScenes(split, config, num_scenes, image_size, seed, **overrides)
        # What a row says is chosen after what its scene shows, so rows of both kinds are about the same scenes.
        boxed = scene_config(self._captions.config, rows="density")
        super().__init__(split, boxed, self._captions.num_scenes, None, seed)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]  # no slices, as in CountScenes
        row = super().__getitem__(index)
        labels = {name: self._captions.column(name, [index])[0] for name in _LABELS}
        return {"image": row["image"], "image_id": row["image_id"], **labels, "boxes": row["boxes"]}

    @property
    def features(self) -> datasets.Features:
        """`datasets.Features`: Names and types of the columns."""
        captions, boxed = self._captions.features, super().features
        names = {name: captions[name] for name in ("image", "image_id", *_LABELS)}
        return datasets.Features({**names, "boxes": boxed["boxes"]})


@dataclass(frozen=True)
class RelevanceShares:
    """
    Where the relevance fell, over the rows of a data set.

    All arrays have one entry for each row that was measured, in the order of the data.
    """

    objects: NDArray[np.float64]
    """`(N,)`: the part of the patches' relevance that fell on the objects' boxes."""
    area: NDArray[np.float64]
    """`(N,)`: the part of what the model saw that the boxes cover, which evenly spread relevance would give."""
    number: NDArray[np.float64]
    """`(N,)`: the part of the tokens' relevance that fell on the number word."""
    number_tokens: NDArray[np.float64]
    """`(N,)`: the part of the tokens that belong to the number word, which evenly spread relevance would give."""
    scores: NDArray[np.float64]
    """`(N,)`: what was explained."""
    indices: NDArray[np.int64]
    """`(N,)`: which row of the data each is."""
    score: str
    """Which score was explained, one of `SCORES`."""
    start_layer: int
    """Attention before this layer was left out."""
    seed: int = 0
    """Of the draws behind the intervals."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""

    @property
    def n(self) -> int:
        """Rows measured."""
        return len(self.indices)

    def metrics(self) -> dict[str, float]:
        """The means over the rows, and how many times an even spread's share the objects and the number word got."""
        return {name: statistic(*samples) for name, (statistic, samples) in self._figures().items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """A 95 % bootstrap interval of each of the metrics."""
        return {
            name: bootstrap_interval(statistic, *samples, seed=self.seed)
            for name, (statistic, samples) in self._figures().items()
        }

    def _figures(self) -> dict[str, tuple[Callable[..., float], tuple[NDArray[np.float64], ...]]]:
        return {
            "object_share": (_mean, (self.objects,)),
            "object_area_share": (_mean, (self.area,)),
            "object_lift": (_ratio, (self.objects, self.area)),
            "number_share": (_mean, (self.number,)),
            "number_token_share": (_mean, (self.number_tokens,)),
            "number_lift": (_ratio, (self.number, self.number_tokens)),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the metrics and their intervals as plain lists and numbers, for JSON."""
        return {
            "n": self.n,
            "score": self.score,
            "start_layer": self.start_layer,
            "rows": [
                {
                    "index": int(self.indices[row]),
                    "score": float(self.scores[row]),
                    "object_share": float(self.objects[row]),
                    "object_area_share": float(self.area[row]),
                    "number_share": float(self.number[row]),
                    "number_token_share": float(self.number_tokens[row]),
                }
                for row in range(self.n)
            ],
            "skipped": [{"index": row.index, "image_id": row.image_id, "reason": row.reason} for row in self.skipped],
        }


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.mean(values))


def _ratio(shares: NDArray[np.float64], even: NDArray[np.float64]) -> float:
    """The ratio of the means: a mean of ratios would be ruled by the smallest objects."""
    return float(np.mean(shares) / np.mean(even))


@dataclass(frozen=True)
class ShareChange:
    """What training changed, on the rows that could be measured both before and after it."""

    change: dict[str, float]
    """After minus before, of `object_share` and `number_share`."""
    intervals: dict[str, tuple[float, float]]
    """Their 95 % bootstrap intervals; rows are drawn in pairs."""
    n: int
    """Rows compared."""


def compare_shares(before: RelevanceShares, after: RelevanceShares) -> ShareChange:
    """
    Say what training changed.

    Args:
        before ([`RelevanceShares`]): Of the model before, on the same data.
        after ([`RelevanceShares`]): Of the model after.

    Returns:
        [`ShareChange`].

    Raises:
        ValueError: If the two explain different scores, or have no row in common.
    """
    if (before.score, before.start_layer) != (after.score, after.start_layer):
        raise ValueError(
            f"Expected shares of the same score from the same layer on, but got {before.score} from layer "
            f"{before.start_layer} and {after.score} from layer {after.start_layer}."
        )
    _, first, second = np.intersect1d(before.indices, after.indices, return_indices=True)
    if not len(first):
        raise ValueError("Expected rows that could be measured for both models, but there are none.")
    differences = {
        "object_share": after.objects[second] - before.objects[first],
        "number_share": after.number[second] - before.number[first],
    }
    return ShareChange(
        {name: _mean(values) for name, values in differences.items()},
        {name: bootstrap_interval(_mean, values, seed=after.seed) for name, values in differences.items()},
        len(first),
    )


@dataclass(frozen=True)
class _Question:
    """One row that can be asked."""

    index: int
    image_id: str | None
    image: Image.Image
    text: str
    boxes: Any
    start: int
    """Where the number word begins in the text."""
    end: int
    wrong: list[str]


class _RowError(ValueError):
    """A row cannot be measured."""


def evaluate_relevance(
    model: Any,
    processor: Any,
    rows: Iterable[Mapping[str, Any]],
    score: str = "similarity",
    start_layer: int = 0,
    batch_size: int = 8,
    seed: int = 0,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
    on_result: Callable[[int, Mapping[str, Any], Relevance], None] | None = None,
) -> RelevanceShares:
    """
    Measure how much of the relevance falls on the objects and on the number word.

    A patch counts as far as boxes cover it, so objects smaller than a patch never get all of its relevance. The
    references beside the shares are what relevance spread evenly over patches and tokens would give.

    Args:
        model ([`CLIPModel`]): Any CLIP, [`CLIPForCounting`] included.
        processor ([`CLIPProcessor`] or [`CountCLIPProcessor`]): The model's processor.
        rows: Rows with `image`, `text` (a caption that states the number of the objects as a word from two to ten) and
            `boxes` `[x0, y0, x1, y1]` of these objects in the image's pixels, and where the data has them `number`
            and `image_id`.
        score (`str`, *optional*, defaults to `"similarity"`): What is explained, as in [`explain`].
        start_layer (`int`, *optional*, defaults to 0): As in [`explain`].
        batch_size (`int`, *optional*, defaults to 8): Pairs at once.
        seed (`int`, *optional*, defaults to 0): Of the draws behind the intervals.
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.
        on_result (`Callable`, *optional*): Called with the index of each measured row, the row and its relevance.

    Returns:
        [`RelevanceShares`]: The shares, and the rows left out with the reason.

    Raises:
        ValueError: If no row can be measured, an option is out of its range, or the model's scores are not finite.
        TypeError: If the model is no CLIP.
    """
    skipped: list[SkippedRow] = []
    measured: list[tuple[int, float, float, float, float, float]] = []
    batch: list[tuple[Mapping[str, Any], _Question]] = []
    with evaluating(model, device, dtype) as (where, precision):
        explainer = Explainer(Encoder(model, processor, where, precision, batch_size), score, start_layer)

        def flush() -> None:
            if not batch:
                return
            questions = [question for _, question in batch]
            found = explainer(
                [question.image for question in questions],
                [question.text for question in questions],
                [question.wrong for question in questions],
            )
            for (row, question), relevance in zip(batch, found, strict=True):
                try:
                    measured.append((question.index, *_shares_of(question, relevance), relevance.score))
                except _RowError as error:
                    skipped.append(SkippedRow(question.index, question.image_id, str(error)))
                else:
                    if on_result is not None:
                        on_result(question.index, row, relevance)
            batch.clear()

        for index, row, reason in tqdm(
            read_rows(rows), total=num_rows(rows), desc="images", disable=not progress, leave=False
        ):
            if row is None:
                skipped.append(SkippedRow(index, None, reason or "there is no row"))
                continue
            try:
                batch.append((row, _question(index, row, explainer)))
            except (_RowError, ImageError) as error:
                skipped.append(SkippedRow(index, image_id_of(row), str(error)))
                continue
            if len(batch) == batch_size:
                flush()
        flush()
    if not measured:
        reasons = "; ".join(f"row {row.index}: {row.reason}" for row in skipped[:3])
        raise ValueError(
            f"None of the {len(skipped)} rows could be measured. {reasons}"
            if skipped
            else "Expected at least one row to measure, but the data is empty."
        )
    columns = [np.array(values) for values in zip(*measured, strict=True)]
    indices, objects, area, number, number_tokens, scores = columns
    return RelevanceShares(
        objects,
        area,
        number,
        number_tokens,
        scores,
        indices,
        score,
        start_layer,
        seed,
        sorted(skipped, key=lambda row: row.index),
    )


def _question(index: int, row: Mapping[str, Any], explainer: Explainer) -> _Question:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise _RowError("the row has no caption")
    if not row.get("boxes"):
        raise _RowError("the row has no boxes")
    try:
        explainer.check_text(text)
        wrong = counterfactuals_of(text, row.get("number"))
    except ValueError as error:
        raise _RowError(str(error)) from error
    start, end = _number_place(text, wrong)
    return _Question(index, image_id_of(row), read_image(row), text, row["boxes"], start, end, wrong)


def _number_place(text: str, wrong: Sequence[str]) -> tuple[int, int]:
    """Where the number word that the other captions replace stands: the first one that is not the same in them."""
    start = 0
    while True:
        match = find_count(text[start:])
        if match is None:
            raise _RowError(f"the caption states no number from two to ten: {text!r}")
        place = (start + match.start, start + match.end)
        if any(other[: place[1]] != text[: place[1]] for other in wrong):
            return place
        start = place[1]


def _shares_of(question: _Question, relevance: Relevance) -> tuple[float, float, float, float]:
    """The shares of the objects, of their area, of the number word and of its tokens."""
    if not (relevance.patches.any() and relevance.tokens.any()):
        raise _RowError("nothing in the image, or in the caption, speaks for the score")
    frame = relevance.frame
    covered = coverage(box_mask(question.boxes, frame.width, frame.height), frame, relevance.patches.shape)
    if not covered.any():
        raise _RowError("the boxes lie outside of what the model sees of the image")
    is_number = relevance.tokens_between(question.start, question.end)
    return (
        float((relevance.patch_shares() * covered).sum()),
        float(covered.mean()),
        float(relevance.token_shares()[is_number].sum()),
        float(is_number.mean()),
    )


__all__ = ["BoxedScenes", "RelevanceShares", "ShareChange", "compare_shares", "evaluate_relevance"]
