"""What one gets without training: always saying the mean, and counting the boxes of an object detector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from huggingface_hub.utils import tqdm
from PIL import Image

from count_clip.datasets_scripts.captions.nouns import counted_noun
from count_clip.datasets_scripts.captions.numbers import find_count
from count_clip.datasets_scripts.counting_set.detector import (
    CountedClass,
    TransformersDetector,
    count_most_frequent,
    is_class_of,
)
from count_clip.datasets_scripts.files.resumable import ResultCache
from count_clip.modeling.images import ImageError, open_image, to_rgb

from ..benchmarks.countbench import CountBenchResult, nine_captions
from ..benchmarks.density import ImageCounter
from ..benchmarks.labelled import nothing_measured
from ..functional import NUMBERS, confusion_matrix, counting_accuracy, mean_deviation, off_by_one_accuracy
from ..records.cache import content_key
from ..records.run_record import weights_sha256
from .encoding import SkippedRow, image_id_of, num_rows, read_image, read_rows


class _BatchedCounter(ImageCounter):
    """Counts in a number of images at once."""

    def __init__(self, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` of at least 1, but got {batch_size}.")
        self.batch_size = batch_size
        self._waiting: list[tuple[Image.Image | str, list[str]]] = []  # images or errors, and prompts

    def add(self, image: Any, prompts: list[str]) -> list[list[dict[str, Any]]]:
        """Take one image; gives back what is ready."""
        self._waiting.append((to_rgb(open_image(image)), prompts))
        return self.flush() if len(self._waiting) >= self.batch_size else []

    def add_error(self, error: str, prompts: list[str]) -> list[list[dict[str, Any]]]:
        """Take one image that cannot be counted in."""
        self._waiting.append((error, prompts))
        return self.flush() if len(self._waiting) >= self.batch_size else []

    def flush(self) -> list[list[dict[str, Any]]]:
        """Count in all images that wait."""
        waiting, self._waiting = self._waiting, []
        asked = [(one, prompt) for one, prompts in waiting if not isinstance(one, str) for prompt in prompts]
        points = iter(self.find([image for image, _ in asked], [prompt for _, prompt in asked]) if asked else [])
        return [
            [
                {"text": prompt, "error": one} if isinstance(one, str) else self.result(one, prompt, next(points))
                for prompt in prompts
            ]
            for one, prompts in waiting
        ]

    def find(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[Any]:
        """What there is of one prompt in one image, for each pair."""
        raise NotImplementedError  # each counter has its own

    def result(self, image: Image.Image, prompt: str, found: Any) -> dict[str, Any]:
        """A result of the form that [`predict_density`] gives."""
        raise NotImplementedError  # each counter has its own


class MeanCounter(_BatchedCounter):
    """
    Says the same count of every image, whatever is asked for.

    Args:
        count (`float`): The count: the mean of the training part.

    Raises:
        ValueError: If it is no count.
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

    def find(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """The count, for each."""
        return [self.count] * len(images)

    def result(self, image: Image.Image, prompt: str, found: float) -> dict[str, Any]:
        """The count, spread evenly over the image, and no points: it has looked at none."""
        density_map = np.full((image.height, image.width), found / (image.height * image.width), dtype=np.float32)
        return {"text": prompt, "count": found, "density_map": density_map, "points": []}


class DetectorCounter(_BatchedCounter):
    """
    Counts the boxes of an object detector.

    Args:
        model (`str`): A folder or a name on the Hub; see [`TransformersDetector`]. One that takes words is asked for
            the prompt; of another's boxes those of the class count that the prompt's last word names in the plural.
        threshold (`float`, *optional*): The lowest score that counts; the detector's own by default.
        max_overlap (`float`, *optional*, defaults to 0.5): Of two boxes with a larger intersection over union only the
            one with the better score counts.
        query (`str`, *optional*, defaults to `"{}"`): What the detector is asked, `{}` being the prompt.
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

    def find(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[CountedClass | None]:
        """The boxes that count, for each image and its prompt."""
        found = []
        for image, prompt, detections in zip(images, prompts, self.detector(images, prompts), strict=True):
            if not self.detector.is_zero_shot:
                head = prompt.lower().split()[-1]
                detections = [one for one in detections if is_class_of(one.label, head)]
            size = (image.height, image.width)
            threshold = self.detector.threshold
            found.append(count_most_frequent(detections, size, threshold=threshold, max_overlap=self.max_overlap))
        return found

    def result(self, image: Image.Image, prompt: str, found: CountedClass | None) -> dict[str, Any]:
        """A one at the middle of each box."""
        density_map = np.zeros((image.height, image.width), dtype=np.float32)
        points, boxes = [], []
        for one in () if found is None else found.detections:
            x, y = (one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2
            density_map[min(int(y), image.height - 1), min(int(x), image.width - 1)] += 1
            points.append([x, y])
            boxes.append(list(one.box))
        return {
            "text": prompt,
            "count": float(len(points)),
            "density_map": density_map,
            "points": points,
            "boxes": boxes,
        }


def usual_number(numbers: Iterable[float] | None = None) -> int:
    """
    What to say of every image if one looks at none.

    Args:
        numbers (`Iterable[float]`, *optional*): The numbers of the training part; without any, two to ten are taken to
            be equally frequent.

    Returns:
        `int`: The most frequent of two to ten; of several, the one nearest to the mean.
    """
    known = [int(number) for number in numbers or () if int(number) in NUMBERS] or list(NUMBERS)
    times, mean = Counter(known), float(np.mean(known))
    most = max(times.values())
    return min((number for number in times if times[number] == most), key=lambda number: (abs(number - mean), number))


def counted_thing(row: Mapping[str, Any], number: int) -> str:
    """
    What the number in a caption counts.

    Args:
        row: With `text`, and where the data has it `name`, which says it.
        number (`int`): The number that counts.

    Returns:
        `str`: A plural noun with the words that describe it; the caption after its number where the grammar does not
        show it.
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
    Answer CountBench's question by counting what the caption names, and saying the nearest of two to ten.

    Args:
        counter ([`ImageCounter`]): What counts: a detector, or what always says the same.
        rows: Rows with `image` and `text`, and where the data says it `number`, `name` and `image_id`.
        cache ([`ResultCache`], *optional*): Of this counter: images whose count is in it are not counted in again.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.

    Returns:
        [`CountBenchResult`]: The figures; a row's score of a number is minus its distance from the count.

    Raises:
        ValueError: If no row can be measured.
    """
    skipped: list[SkippedRow] = []
    asked: list[tuple[int, int]] = []  # index and true number, in the order of the data
    waiting: list[tuple[int, str]] = []  # index and key, in the order of the answers
    counts: dict[int, float] = {}

    def keep(done: Iterable[list[dict[str, Any]]]) -> None:
        for (result,) in done:
            index, key = waiting.pop(0)
            counts[index] = result["count"]
            if cache is not None:
                cache[key] = result["count"]

    for index, row, reason in tqdm(
        read_rows(rows), total=num_rows(rows), desc="images", disable=not progress, leave=False
    ):
        if row is None:
            skipped.append(SkippedRow(index, None, reason or "there is no row"))
            continue
        try:
            number, _ = nine_captions(str(row.get("text") or ""), row.get("number"))
            image, noun = read_image(row), counted_thing(row, number)
        except (ValueError, ImageError) as error:
            skipped.append(SkippedRow(index, image_id_of(row), str(error)))
            continue
        asked.append((index, number))
        key = "" if cache is None else content_key(image, noun)
        if cache is not None and key in cache:
            counts[index] = cache[key]
            continue
        waiting.append((index, key))
        keep(counter.add(image, [noun]))
    keep(counter.flush())
    if not asked:
        raise ValueError(nothing_measured(skipped))
    return _answers(asked, counts, skipped)


def _answers(
    asked: Sequence[tuple[int, int]], counts: Mapping[int, float], skipped: list[SkippedRow]
) -> CountBenchResult:
    """The figures of counts that were put to the nine-way question."""
    numbers = [number for _, number in asked]
    counted = np.array([counts[index] for index, _ in asked], dtype=np.float32)
    scores = -np.abs(np.asarray(NUMBERS, dtype=np.float32) - counted[:, None])
    said = np.asarray(NUMBERS)[scores.argmax(axis=1)]
    return CountBenchResult(
        accuracy=counting_accuracy(said, numbers),
        mean_deviation=mean_deviation(said, numbers),
        off_by_one=off_by_one_accuracy(said, numbers),
        confusion=confusion_matrix(said, numbers),
        scores=scores,
        predictions=said,
        numbers=np.asarray(numbers, dtype=np.int64),
        indices=np.asarray([index for index, _ in asked], dtype=np.int64),
        n=len(numbers),
        skipped=skipped,
    )


__all__ = ["DetectorCounter", "MeanCounter", "countbench_by_counting", "counted_thing", "usual_number"]
