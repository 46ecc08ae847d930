"""Counts the detections of an image: the third stage of the counting set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..captions.lexicon import WORDS
from ..captions.plurals import plural_of


# Takes images and, for each, a plural noun to look for (ignored by a detector with its own classes); returns the
# detections of each image.
Detector = Callable[[Sequence[Image.Image], Sequence[str]], list[list["Detection"]]]


@dataclass(frozen=True)
class Detection:
    """
    An object that a detector found: its class, its score (0-1), and its box `(x0, y0, x1, y1)` in the image's own
    pixels.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


def count_most_frequent(
    detections: Sequence[Detection],
    image_size: tuple[int, int],
    threshold: float = 0.5,
    min_area: float = 0.0,
    max_overlap: float = 0.5,
) -> list[Detection]:
    """
    Find the objects of the class that a detector found most often.

    Args:
        detections (`Sequence[Detection]`): The detections.
        image_size (`tuple[int, int]`): Height and width in pixels.
        threshold (`float`, *optional*, defaults to 0.5): The lowest score that counts.
        min_area (`float`, *optional*, defaults to 0.0): The smallest box that counts, as a share of the image.
        max_overlap (`float`, *optional*, defaults to 0.5): Of two boxes of one class whose intersection over union is
            larger, only the one with the better score counts. With 1.0 all do.

    Returns:
        `list[Detection]`: The objects, best first; of several such classes, the one with the highest sum of scores.
    """
    height, width = image_size
    classes: dict[str, list[Detection]] = {}
    for detection in detections:
        x0, y0, x1, y1 = detection.box
        shown = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        area = max(shown[2] - shown[0], 0.0) * max(shown[3] - shown[1], 0.0)
        if detection.score >= threshold and area > 0 and area >= min_area * height * width:
            classes.setdefault(detection.label, []).append(Detection(detection.label, detection.score, shown))
    counted = []
    for found in classes.values():
        boxes, scores = np.array([one.box for one in found]), np.array([one.score for one in found])
        counted.append([found[place] for place in suppress_overlaps(boxes, scores, max_overlap)])
    return max(counted, key=lambda found: (len(found), sum(one.score for one in found), found[0].label), default=[])


def suppress_overlaps(boxes: np.ndarray, scores: np.ndarray, max_overlap: float) -> list[int]:
    """
    Keep one of several boxes around the same object (greedy non-maximum suppression).

    `boxes` are `x0, y0, x1, y1` of shape `(num_boxes, 4)`, `scores` of shape `(num_boxes,)`; `max_overlap` is the
    largest intersection over union of a kept box with a better one. The indices of the kept boxes are the best first;
    of equal scores the first box first.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while waiting.size:
        best, rest = waiting[0], waiting[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[rest, 2:]) - np.maximum(boxes[best, :2], boxes[rest, :2])
        intersections = np.prod(np.clip(sides, 0, None), axis=1)
        waiting = rest[intersections <= max_overlap * (areas[best] + areas[rest] - intersections)]
    return kept


def is_class_of(label: str, head: str) -> bool:
    """
    Whether a caption's plural noun ("women", "glasses") is the plural of a detector's class ("person", "wine glass"),
    or of its last word, or both are people.
    """
    label = label.lower().strip()
    if not label:
        return False
    if label in ("person", "people", "human"):
        return head in WORDS["people"]
    return head in (label, label.split()[-1], plural_of(label).lower().split()[-1])


class TransformersDetector:
    """
    A detector of `transformers`.

    Args:
        model (`str`): A folder or a name on the Hub, of a model for object detection (DETR, YOLOS, RT-DETR, ...) or
            for zero-shot object detection (OWL-ViT, Grounding DINO, ...), which looks for the caption's own noun.
        threshold (`float`, *optional*): The lowest score that it returns; by default 0.5, or 0.1 for zero-shot models,
            whose scores are lower.
        device (`str`, *optional*): By default a GPU if there is one.
        batch_size (`int`, *optional*, defaults to 1): Images in a batch.
        query (`str`, *optional*, defaults to `"{}"`): The prompt of a zero-shot model, with `{}` for the noun: "a
            photo of {}"; "{}." for Grounding DINO.
        revision (`str`, *optional*): Of the checkpoint on the Hub.
        max_query_words (`int`, *optional*, defaults to 3): Words of a noun in the prompt, the last ones: earlier ones
            add little, and the models' texts are short.

    Raises:
        ValueError: If the model is of another type.
    """

    def __init__(
        self,
        model: str,
        threshold: float | None = None,
        device: str | None = None,
        batch_size: int = 1,
        query: str = "{}",
        revision: str | None = None,
        max_query_words: int = 3,
    ) -> None:
        # Imported here, because nothing else in this package needs it.
        from transformers import AutoConfig, pipeline
        from transformers.models.auto import modeling_auto as names

        model_type = AutoConfig.from_pretrained(model, revision=revision).model_type
        self.is_zero_shot = model_type in names.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES
        if not self.is_zero_shot and model_type not in names.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
            raise ValueError(
                f"Expected {model} to be a model for object detection or zero-shot object detection, but it is of "
                f"type {model_type!r}. Name another checkpoint."
            )
        if query.count("{}") != 1:
            raise ValueError(
                f'Expected a query with one {{}} for the noun, like "a photo of {{}}", but got {query!r}.'
            )
        task = "zero-shot-object-detection" if self.is_zero_shot else "object-detection"
        self.pipeline = pipeline(task, model=model, revision=revision, device=device)
        self.threshold = threshold if threshold is not None else (0.1 if self.is_zero_shot else 0.5)
        self.batch_size = batch_size
        self.query = query
        self.max_query_words = max_query_words

    def __call__(self, images: Sequence[Image.Image], nouns: Sequence[str]) -> list[list[Detection]]:
        """Return the detections of each RGB image; a zero-shot model looks for the noun of each image."""
        options = {"threshold": self.threshold, "batch_size": self.batch_size}
        if self.is_zero_shot:
            queries = [self.query.format(" ".join(noun.split()[-self.max_query_words :])) for noun in nouns]
            inputs: list[Any] = [
                {"image": image, "candidate_labels": [query]} for image, query in zip(images, queries, strict=True)
            ]
        else:
            inputs = list(images)
        return [
            [
                Detection(one["label"], one["score"], (box["xmin"], box["ymin"], box["xmax"], box["ymax"]))
                for one in found
                for box in [one["box"]]
            ]
            for found in self.pipeline(inputs, **options)
        ]
