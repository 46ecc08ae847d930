"""The shares of the relevance on the objects and on the number word, for data with boxes and captions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.captions.numbers import find_count
from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.datasets_scripts.countscenes.config import scene_config

from ..benchmarks.labelled import nothing_measured
from ..functional import bootstrap_interval
from ..inference.encoding import Encoder, SkippedRow, evaluating, image_id_of, read_image, usable_rows
from .explain import Explainer, Relevance, counterfactuals_of
from .frames import box_mask, coverage


_LABELS = ("text", "number", "name")


class BoxedScenes(CountScenes):
    """
    Scenes of `countscenes` with their captions and with boxes, which caption rows do not have.

    The arguments are those of [`CountScenes`]; `config` is `"benchmark"` or another configuration with captions.
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
        # Captions are drawn after the scenes, so that rows with and without captions have the same scenes.
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
    """Shares of the relevance over the rows of a data set."""

    rows: list[dict[str, float]]
    """
    `index` and `score` of each measured row, the shares of the relevance on the objects' boxes (`object_share`) and on
    the number word (`number_share`), and the shares of the model's input in the boxes (`object_area_share`) and of the
    tokens in the word (`number_token_share`): the values for evenly distributed relevance.
    """
    score: str
    """The explained score, one of `SCORES`."""
    start_layer: int
    """The first layer."""
    seed: int = 0
    """Seed of the intervals."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""

    @property
    def n(self) -> int:
        """Rows measured."""
        return len(self.rows)

    def column(self, name: str) -> NDArray[np.float64]:
        """A value of all rows, `(N,)`."""
        return np.array([row[name] for row in self.rows])

    def metrics(self) -> dict[str, float]:
        """Means over the rows, and their ratios to evenly distributed relevance (`lift`)."""
        return {name: float(_statistic(name)(*samples)) for name, samples in self._samples().items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of the metrics."""
        return {
            name: bootstrap_interval(_statistic(name), *samples, seed=self.seed)
            for name, samples in self._samples().items()
        }

    def _samples(self) -> dict[str, list[NDArray[np.float64]]]:
        found: dict[str, list[NDArray[np.float64]]] = {}
        for name, even in (("object", "object_area_share"), ("number", "number_token_share")):
            samples = [self.column(f"{name}_share"), self.column(even)]
            found |= {f"{name}_share": samples[:1], even: samples[1:], f"{name}_lift": samples}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything but the metrics and their intervals as plain lists and numbers, for JSON."""
        return {"n": self.n, **{name: value for name, value in asdict(self).items() if name != "seed"}}


def _statistic(name: str) -> Callable[..., Any]:
    return _ratio if name.endswith("_lift") else np.mean


def _ratio(shares: NDArray[np.float64], even: NDArray[np.float64]) -> float:
    """The ratio of the means; a mean of ratios would depend on the smallest objects."""
    return float(np.mean(shares) / np.mean(even))


@dataclass(frozen=True)
class ShareChange:
    """Differences between two models on the rows that both have."""

    change: dict[str, float]
    """After minus before, of `object_share` and `number_share`."""
    intervals: dict[str, tuple[float, float]]
    """Their 95 % bootstrap intervals; rows are drawn in pairs."""
    n: int
    """Rows compared."""


def compare_shares(before: RelevanceShares, after: RelevanceShares) -> ShareChange:
    """
    The change from a model `before` training to one `after`, on the same data; a `ValueError` if they explain
    different scores or have no row in common.
    """
    if (before.score, before.start_layer) != (after.score, after.start_layer):
        raise ValueError(
            f"Expected shares of the same score from the same layer on, but got {before.score} from layer "
            f"{before.start_layer} and {after.score} from layer {after.start_layer}."
        )
    _, first, second = np.intersect1d(before.column("index"), after.column("index"), return_indices=True)
    if not len(first):
        raise ValueError("Expected rows that could be measured for both models, but there are none.")
    differences = {
        name: after.column(name)[second] - before.column(name)[first] for name in ("object_share", "number_share")
    }
    return ShareChange(
        {name: float(np.mean(values)) for name, values in differences.items()},
        {name: bootstrap_interval(np.mean, values, seed=after.seed) for name, values in differences.items()},
        len(first),
    )


@dataclass(frozen=True)
class _Row:
    """One row to measure."""

    image: Image.Image
    text: str
    boxes: Any
    start: int
    """Where the number word begins in the text."""
    end: int
    wrong: list[str]


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
    Measure the shares of the relevance on the objects and on the number word.

    A patch counts by the share that boxes cover, so that objects smaller than a patch never have all of its relevance.
    The shares are compared with those of evenly distributed relevance.

    Args:
        rows: Rows with `image`, `text` (a caption that states the number of the objects as a word from two to ten) and
            `boxes` `[x0, y0, x1, y1]` of these objects in the image's pixels, and optionally `number` and
            `image_id`.
        score (`str`, *optional*, defaults to `"similarity"`): The explained score, see [`explain`].
        start_layer (`int`, *optional*, defaults to 0): See [`explain`].
        seed (`int`, *optional*, defaults to 0): Seed of the intervals.
        on_result (`Callable`, *optional*): Called with index, row and relevance of each measured row.
        model, processor, batch_size, device, dtype, progress: As in [`evaluate_countbench`].

    Returns:
        [`RelevanceShares`]: The shares, and the skipped rows.

    Raises:
        ValueError: If no row can be measured, an option is out of its range, or the model's scores are not finite.
        TypeError: If the model is not a CLIP.
    """
    skipped: list[SkippedRow] = []
    measured: list[dict[str, float]] = []
    with evaluating(model, device, dtype) as (where, precision):
        explainer = Explainer(Encoder(model, processor, where, precision, batch_size), score, start_layer)
        usable = usable_rows(rows, lambda row: _read(row, explainer), skipped, progress)
        while batch := list(islice(usable, batch_size)):
            items = [item for _, _, item in batch]
            found = explainer([x.image for x in items], [x.text for x in items], [x.wrong for x in items])
            for (index, row, item), relevance in zip(batch, found, strict=True):
                try:
                    measured.append({"index": index, "score": relevance.score, **_shares_of(item, relevance)})
                except ValueError as error:
                    skipped.append(SkippedRow(index, image_id_of(row), str(error)))
                else:
                    if on_result is not None:
                        on_result(index, row, relevance)
    if not measured:
        raise ValueError(nothing_measured(skipped))
    return RelevanceShares(measured, score, start_layer, seed, sorted(skipped, key=lambda row: row.index))


def _read(row: Mapping[str, Any], explainer: Explainer) -> _Row:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the row has no caption")
    if not row.get("boxes"):
        raise ValueError("the row has no boxes")
    explainer.check_text(text)
    wrong = counterfactuals_of(text, row.get("number"))
    return _Row(read_image(row), text, row["boxes"], *_number_place(text, wrong), wrong)


def _number_place(text: str, wrong: Sequence[str]) -> tuple[int, int]:
    """The range of the number word that the other captions replace."""
    start = 0
    while True:
        match = find_count(text[start:])
        if match is None:
            raise ValueError(f"the caption states no number from two to ten: {text!r}")
        place = (start + match.start, start + match.end)
        if any(other[: place[1]] != text[: place[1]] for other in wrong):
            return place
        start = place[1]


def _shares_of(item: _Row, relevance: Relevance) -> dict[str, float]:
    """The shares of the objects, of their area, of the number word and of its tokens."""
    if not (relevance.patches.any() and relevance.tokens.any()):
        raise ValueError("no patch, or no token, has relevance for the score")
    frame = relevance.frame
    covered = coverage(box_mask(item.boxes, frame.width, frame.height), frame, relevance.patches.shape)
    if not covered.any():
        raise ValueError("the boxes are outside of the model's input")
    is_number = relevance.tokens_between(item.start, item.end)
    return {
        "object_share": float((relevance.patch_shares() * covered).sum()),
        "object_area_share": float(covered.mean()),
        "number_share": float(relevance.token_shares()[is_number].sum()),
        "number_token_share": float(is_number.mean()),
    }


__all__ = ["BoxedScenes", "RelevanceShares", "ShareChange", "compare_shares", "evaluate_relevance"]
