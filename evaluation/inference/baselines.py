"""Counters that need no training: a constant count, and the boxes of an object detector."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from count_clip.datasets_scripts.captions.nouns import counted_noun
from count_clip.datasets_scripts.captions.numbers import find_count
from count_clip.datasets_scripts.counting_set.detector import (
    Detection,
    TransformersDetector,
    count_most_frequent,
    is_class_of,
)
from count_clip.datasets_scripts.files.resumable import ResultCache
from count_clip.modeling.counting_engine import BatchCounter, Counted, ImageCounter, Request

from ..benchmarks.countbench import CountBenchResult, nine_captions
from ..benchmarks.labelled import nothing_measured
from ..functional import NUMBERS
from ..records.run_record import weights_sha256
from .counting import cached_counts
from .encoding import SkippedRow, read_image, usable_rows


class MeanCounter(BatchCounter):
    """
    Predicts the same count for every image and prompt, the mean of the training split; `ValueError` if it is no count.
    """

    def __init__(self, count: float) -> None:
        super().__init__(1)
        if not (np.isfinite(count) and count >= 0):
            raise ValueError(f"Expected a mean count of 0 or more, but got {count}.")
        self.count = float(count)

    def describe(self) -> dict[str, Any]:
        """For the record of a run."""
        about = {"revision": None, "sha256": None, "model_type": "always-the-mean", "parameters": 0}
        return {**about, "count": self.count}

    def count_batch(self, batch: list[Counted]) -> None:
        """The count, distributed evenly over the image, and no points."""
        for counted in batch:
            density_map = np.full(counted.size, self.count / math.prod(counted.size), dtype=np.float32)
            counted.results = [
                {"text": prompt, "count": self.count, "density_map": density_map, "points": []}
                for prompt in counted.prompts
            ]


class DetectorCounter(BatchCounter):
    """
    Counts the boxes of an object detector.

    Args:
        model (`str`): A folder or a name on the Hub; see [`TransformersDetector`]. An open-vocabulary detector gets
            the prompt; of another's boxes, those of the class count that the prompt's last word names in the plural.
        threshold (`float`, *optional*): The lowest score that counts; the detector's own by default.
        max_overlap (`float`, *optional*, defaults to 0.5): Of two boxes with a larger intersection over union only the
            one with the better score counts.
        query (`str`, *optional*, defaults to `"{}"`): The detector's own prompt, with the prompt in place of `{}`.
        batch_size (`int`, *optional*, defaults to 1): Images at once.
        device (`str`, *optional*): Where it runs.
        revision (`str`, *optional*): Of the model on the Hub.

    Raises:
        ValueError: If the model is no detector, or an option is out of its range.
    """

    # Twice as many words fill the 16 tokens of OWL-ViT.
    _max_query_words = 8

    def __init__(
        self,
        model: str,
        threshold: float | None = None,
        max_overlap: float = 0.5,
        query: str = "{}",
        batch_size: int = 1,
        device: str | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__(batch_size)
        if not 0 <= max_overlap <= 1:
            raise ValueError(f"Expected `max_overlap` from 0 to 1, but got {max_overlap}.")
        self.name, self.max_overlap = model, max_overlap
        self.detector = TransformersDetector(
            model,
            threshold=threshold,
            device=device,
            batch_size=batch_size,
            query=query,
            revision=revision,
            max_query_words=self._max_query_words,
        )

    @property
    def device(self) -> Any:
        """Where it runs."""
        return self.detector.pipeline.device

    def describe(self) -> dict[str, Any]:
        """For the record of a run."""
        model = self.detector.pipeline.model
        return {
            "revision": getattr(model.config, "_commit_hash", None),
            "sha256": weights_sha256(self.name),
            "model_type": model.config.model_type,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "threshold": self.detector.threshold,
            "max_overlap": self.max_overlap,
            "query": self.detector.query,
        }

    def count_batch(self, batch: list[Counted]) -> None:
        """Count the boxes of each prompt in each image."""
        asked = [(counted, prompt) for counted in batch for prompt in counted.prompts]
        found = self.detector([counted.image for counted, _ in asked], [prompt for _, prompt in asked])
        for (counted, prompt), detections in zip(asked, found, strict=True):
            counted.results.append(self._result(counted.image, prompt, detections))

    def _result(self, image: Any, prompt: str, detections: Sequence[Detection]) -> dict[str, Any]:
        """The boxes that count, and a map with a one at the middle of each."""
        if not self.detector.is_zero_shot:
            head = prompt.lower().split()[-1]
            detections = [one for one in detections if is_class_of(one.label, head)]
        size, threshold = (image.height, image.width), self.detector.threshold
        found = count_most_frequent(detections, size, threshold=threshold, max_overlap=self.max_overlap)
        boxes = [list(one.box) for one in found]
        points = [[(left + right) / 2, (top + bottom) / 2] for left, top, right, bottom in boxes]
        density_map = np.zeros(size, dtype=np.float32)
        for x, y in points:
            density_map[min(int(y), image.height - 1), min(int(x), image.width - 1)] += 1
        return {
            "text": prompt,
            "count": float(len(points)),
            "density_map": density_map,
            "points": points,
            "boxes": boxes,
        }


def usual_number(numbers: Iterable[float] | None = None) -> int:
    """
    The best constant prediction: the most frequent of two to ten, and of several the nearest to the mean.

    Without any `numbers` of the training split, two to ten are taken to be equally frequent.
    """
    known = [int(number) for number in numbers or () if int(number) in NUMBERS] or list(NUMBERS)
    times, mean = Counter(known), float(np.mean(known))
    most = max(times.values())
    return min((number for number in times if times[number] == most), key=lambda number: (abs(number - mean), number))


def counted_noun_of(row: Mapping[str, Any], number: int) -> str:
    """
    What the number in a caption counts: the row's `name`, or a plural noun with the words that describe it; or else
    the caption after its number.
    """
    if row.get("name"):
        return str(row["name"])
    text = str(row["text"])
    match = find_count(text, stated=number)
    if match is None:
        return text
    return counted_noun(text, match.start, match.end).noun or text[match.end :].strip() or text


def countbench_by_counting(
    counter: ImageCounter,
    rows: Iterable[Mapping[str, Any]],
    cache: ResultCache | None = None,
    progress: bool = True,
) -> CountBenchResult:
    """
    Run the CountBench protocol by counting the objects of the caption: the prediction is the nearest of two to ten.

    Rows have `image` and `text`, and optionally `number`, `name` and `image_id`; images whose count is in the `cache`
    of this counter are not counted again. The score of a number is minus its distance from the count. Raises a
    `ValueError` if no row can be measured.
    """
    skipped: list[SkippedRow] = []
    numbers: dict[int, int] = {}  # by the row's index, in the order of the data
    counts: dict[int, float] = {}

    def read(row: Mapping[str, Any]) -> tuple[Image.Image, int]:
        number, _ = nine_captions(str(row.get("text") or ""), row.get("number"))
        return read_image(row), number

    def requests() -> Iterator[Request]:
        for index, row, (image, number) in usable_rows(rows, read, skipped, progress):
            numbers[index] = number
            yield image, [counted_noun_of(row, number)], index

    for index, values, counted in cached_counts(counter, requests(), cache):
        if values:
            counts[index] = values[0]
        else:
            del numbers[index]
            skipped.append(SkippedRow(index, None, str(counted and counted.error)))
    if not numbers:
        raise ValueError(nothing_measured(skipped))
    counted_objects = np.array([counts[index] for index in numbers], dtype=np.float32)
    scores = -np.abs(np.asarray(NUMBERS, dtype=np.float32) - counted_objects[:, None])
    return CountBenchResult.of_scores(scores, list(numbers.values()), list(numbers), skipped)


__all__ = ["DetectorCounter", "MeanCounter", "countbench_by_counting", "counted_noun_of", "usual_number"]
