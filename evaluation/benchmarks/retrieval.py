"""Whether a CLIP finds the image of a caption and the caption of an image, and whether the number is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import tqdm
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.captions.numbers import find_count
from count_clip.modeling.images import ImageError

from ..functional import bootstrap_interval
from ..inference.encoding import Encoder, SkippedRow, evaluating, image_id_of, num_rows, read_image, read_rows


RECALL_AT = (1, 5, 10)

_CHUNK = 1024  # queries whose similarities are in memory at once


@dataclass(frozen=True)
class CountedFinds:
    """
    What the image found first for a caption shows, over the captions that state a number.

    Only images of which the number is known are searched here. Where several are equally similar, each entry is the
    mean over them.
    """

    number_right: NDArray[np.float64]
    """`(Q,)`: whether it shows as many objects as the caption says."""
    number_chance: NDArray[np.float64]
    """`(Q,)`: the part of the images that do."""
    object_right: NDArray[np.float64] | None
    """`(Q,)`: whether it shows the objects that the caption names; `None` where the data does not name them."""
    object_chance: NDArray[np.float64] | None
    """`(Q,)`: the part of the images that do."""
    both_right: NDArray[np.float64] | None
    """`(Q,)`: whether it shows as many of these objects."""
    both_chance: NDArray[np.float64] | None
    """`(Q,)`: the part of the images that do."""

    def figures(self) -> dict[str, NDArray[np.float64]]:
        """The arrays that there are, by name."""
        return {name: values for name, values in vars(self).items() if values is not None}


@dataclass(frozen=True)
class RetrievalResult:
    """How well a model finds images by captions and captions by images."""

    text_ranks: NDArray[np.int64]
    """`(T,)`: for each distinct caption, the rank of the best of its images, from 1."""
    image_ranks: NDArray[np.int64]
    """`(N,)`: for each image, the rank of the best of its captions, from 1."""
    texts: list[str]
    """The distinct captions."""
    image_ids: list[str]
    """The names of the images: their own, or the number of their first row."""
    found: list[str]
    """For each caption, the name of the image most similar to it."""
    counted: CountedFinds | None
    """What was found for captions that state a number; `None` without such, or where no image's number is known."""
    num_cut: int
    """Captions that are longer than the model reads."""
    seed: int = 0
    """Of the draws behind the intervals."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""

    def metrics(self) -> dict[str, float | None]:
        """Recalls, median ranks and the parts of the first finds that are right; `None` where the data has too few."""
        metrics: dict[str, float | None] = {}
        for direction, ranks, gallery in self._directions():
            for k in RECALL_AT:
                metrics[f"{direction}_recall_at_{k}"] = float(np.mean(ranks <= k)) if k < gallery else None
            metrics[f"{direction}_median_rank"] = float(np.median(ranks))
        figures = self.counted.figures() if self.counted else {}
        for name in ("number", "object", "both"):
            for what in (f"{name}_right", f"{name}_chance"):
                metrics[what] = float(figures[what].mean()) if what in figures else None
        return metrics

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of the recalls and of the parts that are right; queries are drawn."""
        samples: dict[str, NDArray[Any]] = {
            f"{direction}_recall_at_{k}": ranks <= k
            for direction, ranks, gallery in self._directions()
            for k in RECALL_AT
            if k < gallery
        }
        if self.counted:
            samples |= {name: values for name, values in self.counted.figures().items() if name.endswith("_right")}
        return {name: bootstrap_interval(_mean, values, seed=self.seed) for name, values in samples.items()}

    def _directions(self) -> Iterator[tuple[str, NDArray[np.int64], int]]:
        yield "text_to_image", self.text_ranks, len(self.image_ranks)
        yield "image_to_text", self.image_ranks, len(self.text_ranks)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the metrics and their intervals as plain lists and numbers, for JSON."""
        return {
            "num_images": len(self.image_ids),
            "num_texts": len(self.texts),
            "num_counting_texts": len(self.counted.number_right) if self.counted else 0,
            "num_cut_texts": self.num_cut,
            "rows": [
                {"text": text, "rank": int(rank), "found": name}
                for text, rank, name in zip(self.texts, self.text_ranks, self.found, strict=True)
            ],
            "images": [
                {"image_id": name, "rank": int(rank)}
                for name, rank in zip(self.image_ids, self.image_ranks, strict=True)
            ],
            "skipped": [{"index": row.index, "image_id": row.image_id, "reason": row.reason} for row in self.skipped],
        }


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values))


def best_ranks(
    queries: NDArray[np.floating], gallery: NDArray[np.floating], right: Sequence[Sequence[int]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    Where among all of a gallery the first right answer to each query stands.

    Args:
        queries (array of shape `(num_queries, dim)`): Unit vectors.
        gallery (array of shape `(num_items, dim)`): Unit vectors.
        right (`Sequence[Sequence[int]]`): For each query the items that are right, at least one.

    Returns:
        `tuple`: The rank of the best right item from 1, `(num_queries,)`, and the most similar item, `(num_queries,)`.
        Wrong items that are as similar as the right one stand before it, so a model that says the same of everything
        finds nothing.
    """
    ranks, first = np.empty(len(queries), dtype=np.int64), np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _CHUNK):
        scores = queries[start : start + _CHUNK] @ gallery.T
        for row, values in enumerate(scores):
            places = list(right[start + row])
            best = values[places].max()
            wrong = np.ones(len(values), dtype=bool)
            wrong[places] = False
            ranks[start + row] = 1 + int((values[wrong] >= best).sum())
            first[start + row] = values.argmax()
    return ranks, first


@dataclass
class _Images:
    """The data as it is read: each image once, with its captions."""

    image_ids: list[str] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    place_of: dict[str, int] = field(default_factory=dict)


def evaluate_retrieval(
    model: Any,
    processor: Any,
    rows: Iterable[Mapping[str, Any]],
    batch_size: int = 32,
    seed: int = 0,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> RetrievalResult:
    """
    Look for each caption's image among all images, and for each image's caption among all captions.

    Captions that are the same word for word count as one, and each of their images is right for them. For the
    captions that state a number it is also said how often the image found first shows that number of objects, these
    objects, and both, beside what an image drawn at random would.

    Args:
        model ([`CLIPModel`]): Any CLIP, [`CLIPForCounting`] included.
        processor ([`CLIPProcessor`] or [`CountCLIPProcessor`]): The model's processor.
        rows: Rows with `image` and `text` (a caption, or a list of them), and where the data has them `image_id` (rows
            of one are about one image), `number` (of the objects; otherwise the one that a caption of the image
            states in a word) and `name` (of the objects).
        batch_size (`int`, *optional*, defaults to 32): Images, or captions, at once.
        seed (`int`, *optional*, defaults to 0): Of the draws behind the intervals.
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.

    Returns:
        [`RetrievalResult`]: The ranks, and the rows left out with the reason.

    Raises:
        ValueError: If fewer than two images can be measured, or the model's embeddings are not finite.
        TypeError: If the model is no CLIP.
    """
    skipped: list[SkippedRow] = []
    data = _Images()
    with evaluating(model, device, dtype) as (where, precision):
        encoder = Encoder(model, processor, where, precision, batch_size)
        embeds = [encoder.images(batch) for batch in _batches(rows, data, skipped, batch_size, progress)]
        if len(data.image_ids) < 2:
            reasons = "".join(f" Row {row.index}: {row.reason}." for row in skipped[:3])
            raise ValueError(
                f"Expected at least two images with captions to choose from, but got {len(data.image_ids)}.{reasons}"
            )
        texts = list(dict.fromkeys(caption for captions in data.captions for caption in captions))
        image_embeds = torch.cat(embeds).numpy()
        text_embeds = encoder.texts(texts, progress).numpy()
        num_cut = _num_longer(encoder, texts)
    for what, vectors in (("images", image_embeds), ("captions", text_embeds)):
        if not np.isfinite(vectors).all():
            raise ValueError(
                f"The model's embeddings of {what} are NaN or infinite: its weights are broken, or the dtype is too "
                "narrow for it (try float32)."
            )
    text_place = {text: place for place, text in enumerate(texts)}
    captions_of = [[text_place[caption] for caption in captions] for captions in data.captions]
    images_of: list[list[int]] = [[] for _ in texts]
    for image, captions in enumerate(captions_of):
        for caption in captions:
            images_of[caption].append(image)
    text_ranks, first = best_ranks(text_embeds, image_embeds, images_of)
    image_ranks, _ = best_ranks(image_embeds, text_embeds, captions_of)
    return RetrievalResult(
        text_ranks=text_ranks,
        image_ranks=image_ranks,
        texts=texts,
        image_ids=data.image_ids,
        found=[data.image_ids[place] for place in first],
        counted=_counted(texts, images_of, text_embeds, image_embeds, data),
        num_cut=num_cut,
        seed=seed,
        skipped=skipped,
    )


def _num_longer(encoder: Encoder, texts: Sequence[str]) -> int:
    """How many texts are longer than the tower reads."""
    lengths = encoder.processor.tokenizer(list(texts))["input_ids"]
    return sum(len(tokens) > encoder.max_length for tokens in lengths)


def _batches(
    rows: Iterable[Mapping[str, Any]], data: _Images, skipped: list[SkippedRow], batch_size: int, progress: bool
) -> Iterator[list[Image.Image]]:
    """Batches of images, each once; what is known of them goes to `data`, in the same order."""
    batch: list[Image.Image] = []
    for index, row, reason in tqdm(
        read_rows(rows), total=num_rows(rows), desc="images", disable=not progress, leave=False
    ):
        if row is None:
            skipped.append(SkippedRow(index, None, reason or "there is no row"))
            continue
        captions = _captions_of(row)
        name = image_id_of(row) or str(index)
        if not captions:
            skipped.append(SkippedRow(index, image_id_of(row), "the row has no caption"))
            continue
        if name not in data.place_of:
            try:
                batch.append(read_image(row))
            except ImageError as error:
                skipped.append(SkippedRow(index, image_id_of(row), str(error)))
                continue
            data.place_of[name] = len(data.image_ids)
            data.image_ids.append(name)
            data.numbers.append(None)
            data.names.append(None)
            data.captions.append([])
        place = data.place_of[name]
        data.captions[place] += [caption for caption in captions if caption not in data.captions[place]]
        data.numbers[place] = data.numbers[place] or _number_of(row, captions)
        data.names[place] = data.names[place] or row.get("name")
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _captions_of(row: Mapping[str, Any]) -> list[str]:
    text = row.get("text")
    captions = [text] if isinstance(text, str) else list(text or ())
    return [caption for caption in captions if isinstance(caption, str) and caption.strip()]


def _number_of(row: Mapping[str, Any], captions: Sequence[str]) -> int | None:
    """How many objects the image shows, as far as the row says so."""
    if row.get("number"):
        return int(row["number"])
    matches = [match for match in map(find_count, captions) if match is not None]
    return matches[0].number if matches else None


def _counted(
    texts: Sequence[str],
    images_of: Sequence[Sequence[int]],
    text_embeds: NDArray[np.floating],
    image_embeds: NDArray[np.floating],
    data: _Images,
) -> CountedFinds | None:
    """Judge the first finds for captions that state a number, among the images whose number is known."""
    known = [place for place, number in enumerate(data.numbers) if number]
    asked = [
        (place, number, name)
        for place, text in enumerate(texts)
        if (number := _stated(text, [data.numbers[image] for image in images_of[place]]))
        for name in [next((data.names[image] for image in images_of[place] if data.names[image]), None)]
    ]
    if not known or not asked:
        return None
    numbers = np.array([data.numbers[place] for place in known])
    names = np.array([data.names[place] or "" for place in known])
    gallery = image_embeds[known]
    has_names = all(name for _, _, name in asked)
    columns: list[list[float]] = [[] for _ in range(6)]
    for place, number, name in asked:
        scores = gallery @ text_embeds[place]
        first = scores == scores.max()
        right_number, right_name = numbers == number, names == (name or "")
        for column, right in enumerate((right_number, right_name, right_number & right_name)):
            columns[2 * column].append(float(right[first].mean()))
            columns[2 * column + 1].append(float(right.mean()))
    arrays = [np.array(values) for values in columns]
    return CountedFinds(arrays[0], arrays[1], *(arrays[2:] if has_names else [None] * 4))


def _stated(text: str, numbers: Sequence[int | None]) -> int | None:
    """The number that a caption states of its image: of several, the one that the data knows."""
    stated, start = [], 0
    while (match := find_count(text[start:])) is not None:
        stated.append(match.number)
        start += match.end
    known = [number for number in stated if number in numbers]
    return next(iter(known or stated), None)


__all__ = ["RECALL_AT", "CountedFinds", "RetrievalResult", "best_ranks", "evaluate_retrieval"]
