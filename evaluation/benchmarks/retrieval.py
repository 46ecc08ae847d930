"""Retrieval by a CLIP: images by captions, captions by images, and whether the number is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.captions.numbers import find_count

from ..functional import bootstrap_interval
from ..inference.encoding import Encoder, SkippedRow, evaluating, image_id_of, read_image, usable_rows
from .labelled import check_finite


RECALL_AT = (1, 5, 10)

_CHUNK = 1024  # queries whose similarities are in memory


@dataclass(frozen=True)
class RetrievalResult:
    """Results of retrieval of images by captions and of captions by images."""

    text_ranks: NDArray[np.int64]
    """`(T,)`: for each distinct caption, the rank of the best of its images, from 1."""
    image_ranks: NDArray[np.int64]
    """`(N,)`: for each image, the rank of the best of its captions, from 1."""
    texts: list[str]
    """The distinct captions."""
    image_ids: list[str]
    """The image ids, or the numbers of the first rows."""
    found: list[str]
    """For each caption, the id of the most similar image."""
    counted: dict[str, NDArray[np.float64]]
    """
    For the captions that state a number, `(Q,)` each: whether the first image found shows this number of objects
    (`number_right`), the objects of the caption (`object_right`) or both (`both_right`), and the shares of the images
    that do (`number_chance`, ...). Only images of a known number are searched; equally similar first images are
    averaged. Empty without such captions and images; without the objects' names, it has the numbers only.
    """
    num_cut: int
    """Captions that the model truncates."""
    seed: int = 0
    """Seed of the intervals."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""

    def metrics(self) -> dict[str, float | None]:
        """Recalls, median ranks and the means of `counted`; `None` if the data has too few."""
        metrics: dict[str, float | None] = {}
        for direction, ranks, gallery in self._directions():
            for k in RECALL_AT:
                metrics[f"{direction}_recall_at_{k}"] = float(np.mean(ranks <= k)) if k < gallery else None
            metrics[f"{direction}_median_rank"] = float(np.median(ranks))
        for name in (f"{what}_{end}" for what in ("number", "object", "both") for end in ("right", "chance")):
            metrics[name] = float(self.counted[name].mean()) if name in self.counted else None
        return metrics

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over the queries, of the recalls and the `right` of `counted`."""
        samples: dict[str, NDArray[Any]] = {
            f"{direction}_recall_at_{k}": ranks <= k
            for direction, ranks, gallery in self._directions()
            for k in RECALL_AT
            if k < gallery
        }
        samples |= {name: values for name, values in self.counted.items() if name.endswith("_right")}
        return {name: bootstrap_interval(np.mean, values, seed=self.seed) for name, values in samples.items()}

    def _directions(self) -> Iterator[tuple[str, NDArray[np.int64], int]]:
        yield "text_to_image", self.text_ranks, len(self.image_ranks)
        yield "image_to_text", self.image_ranks, len(self.text_ranks)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the metrics and their intervals as plain lists and numbers, for JSON."""
        return {
            "num_images": len(self.image_ids),
            "num_texts": len(self.texts),
            "num_counting_texts": len(self.counted.get("number_right", ())),
            "num_cut_texts": self.num_cut,
            "rows": [
                {"text": text, "rank": int(rank), "found": name}
                for text, rank, name in zip(self.texts, self.text_ranks, self.found, strict=True)
            ],
            "images": [
                {"image_id": name, "rank": int(rank)}
                for name, rank in zip(self.image_ids, self.image_ranks, strict=True)
            ],
            "skipped": [asdict(row) for row in self.skipped],
        }


def best_ranks(
    queries: NDArray[np.floating], gallery: NDArray[np.floating], right: Sequence[Sequence[int]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    Ranks of the best of the `right` items for each query, from 1, and the most similar items.

    Queries and gallery are unit vectors. Wrong items as similar as the right one are ranked before it, so that a model
    with one embedding for everything finds nothing.
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
    """Each image once, with its captions."""

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
    Rank all images for each caption, and all captions for each image.

    Identical captions are one, and each of their images is right. For captions that state a number, the result also
    has how often the first image shows that number of objects, these objects, and both, and the chance of a random
    image.

    Args:
        rows: Rows with `image` and `text` (a caption, or a list of them), and optionally `image_id` (rows
            with the same one have one image), `number` (of the objects; by default the one that a caption states in a
            word) and `name` (of the objects).
        batch_size (`int`, *optional*, defaults to 32): Images, or captions, at once.
        seed (`int`, *optional*, defaults to 0): Seed of the intervals.
        model, processor, device, dtype, progress: As in [`evaluate_countbench`].

    Returns:
        [`RetrievalResult`]: The ranks, and the skipped rows.

    Raises:
        ValueError: If fewer than two images can be measured, or the model's embeddings are not finite.
        TypeError: If the model is not a CLIP.
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
        lengths = map(len, encoder.processor.tokenizer(texts)["input_ids"])
        num_cut = sum(length > encoder.max_length for length in lengths)
    check_finite(image_embeds)
    check_finite(text_embeds, "captions")
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


def _batches(
    rows: Iterable[Mapping[str, Any]], data: _Images, skipped: list[SkippedRow], batch_size: int, progress: bool
) -> Iterator[list[Image.Image]]:
    """Batches of images, each once; their captions, numbers and names are added to `data`."""
    batch: list[Image.Image] = []

    def read(row: Mapping[str, Any]) -> tuple[list[str], Image.Image | None]:
        text = row.get("text")
        captions = [text] if isinstance(text, str) else list(text or ())
        captions = [caption for caption in captions if isinstance(caption, str) and caption.strip()]
        if not captions:
            raise ValueError("the row has no caption")
        return captions, None if image_id_of(row) in data.place_of else read_image(row)

    for index, row, (captions, image) in usable_rows(rows, read, skipped, progress):
        name = image_id_of(row) or str(index)
        if image is not None:
            batch.append(image)
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


def _number_of(row: Mapping[str, Any], captions: Sequence[str]) -> int | None:
    """The number of objects in the image, if the row has it."""
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
) -> dict[str, NDArray[np.float64]]:
    """The `counted` of a result."""
    known = [place for place, number in enumerate(data.numbers) if number]
    queries = []
    for place, text in enumerate(texts):
        number = _stated(text, [data.numbers[image] for image in images_of[place]])
        name = next((data.names[image] for image in images_of[place] if data.names[image]), None)
        if number:
            queries.append((place, number, name))
    if not known or not queries:
        return {}
    numbers = np.array([data.numbers[place] for place in known])
    names = np.array([data.names[place] or "" for place in known])
    gallery = image_embeds[known]
    found: dict[str, list[float]] = {}
    for place, number, name in queries:
        scores = gallery @ text_embeds[place]
        first = scores == scores.max()
        right = {"number": numbers == number, "object": names == (name or "")}
        right["both"] = right["number"] & right["object"]
        for what in right if all(name for _, _, name in queries) else ["number"]:
            found.setdefault(f"{what}_right", []).append(float(right[what][first].mean()))
            found.setdefault(f"{what}_chance", []).append(float(right[what].mean()))
    return {name: np.array(values) for name, values in found.items()}


def _stated(text: str, numbers: Sequence[int | None]) -> int | None:
    """The number that a caption states; of several, the one of its images."""
    stated, start = [], 0
    while (match := find_count(text[start:])) is not None:
        stated.append(match.number)
        start += match.end
    known = [number for number in stated if number in numbers]
    return next(iter(known or stated), None)


__all__ = ["RECALL_AT", "RetrievalResult", "best_ranks", "evaluate_retrieval"]
