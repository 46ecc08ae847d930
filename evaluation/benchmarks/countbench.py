"""The CountBench protocol: a CLIP chooses among nine captions that differ in the number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD, counting_captions, find_count

from ..functional import (
    NUMBERS,
    bootstrap_interval,
    confusion_matrix,
    counting_accuracy,
    mean_deviation,
    off_by_one_accuracy,
    predicted_numbers,
)
from ..inference.encoding import Encoder, SkippedRow, evaluating, read_ahead, read_image, usable_rows
from .labelled import check_finite, nothing_measured


@dataclass(frozen=True)
class CountBenchResult:
    """
    Result of the CountBench protocol.

    All arrays have one entry for each row that was measured, in the order of the data.
    """

    accuracy: float
    """Share of the rows with exactly the right number; chance is 1/9."""
    mean_deviation: float
    """Mean of |predicted - true number|, in objects."""
    off_by_one: float
    """Share of the rows with the right number or one next to it."""
    confusion: NDArray[np.int64]
    """`(9, 9)`: numbers of rows, by true number (two to ten) and predicted number."""
    scores: NDArray[np.float32]
    """`(N, 9)`: cosine similarity of image and caption, for two to ten."""
    predictions: NDArray[np.int64]
    """`(N,)`: the predicted numbers."""
    numbers: NDArray[np.int64]
    """`(N,)`: the true numbers."""
    indices: NDArray[np.int64]
    """`(N,)`: which row of the data each is."""
    n: int
    """Rows measured."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""

    @classmethod
    def of_scores(
        cls, scores: NDArray[np.float32], numbers: Sequence[int], indices: Sequence[int], skipped: list[SkippedRow]
    ) -> CountBenchResult:
        """All figures, from each row's scores of two to ten and its true number."""
        predictions = predicted_numbers(scores)
        return cls(
            accuracy=counting_accuracy(predictions, numbers),
            mean_deviation=mean_deviation(predictions, numbers),
            off_by_one=off_by_one_accuracy(predictions, numbers),
            confusion=confusion_matrix(predictions, numbers),
            scores=scores,
            predictions=predictions,
            numbers=np.asarray(numbers, dtype=np.int64),
            indices=np.asarray(indices, dtype=np.int64),
            n=len(numbers),
            skipped=skipped,
        )

    def accuracy_interval(self, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
        """Bootstrap confidence interval of the accuracy."""
        return bootstrap_interval(counting_accuracy, self.predictions, self.numbers, confidence=confidence, seed=seed)

    def accuracy_by_number(self) -> dict[int, float]:
        """Accuracy among the rows of each true number that occurs."""
        return {
            number: float(np.mean(self.predictions[self.numbers == number] == number))
            for number in NUMBERS
            if (self.numbers == number).any()
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for JSON."""
        return {
            "accuracy": self.accuracy,
            "accuracy_interval_95": list(self.accuracy_interval()),
            "accuracy_by_number": {str(number): value for number, value in self.accuracy_by_number().items()},
            "mean_deviation": self.mean_deviation,
            "off_by_one": self.off_by_one,
            "n": self.n,
            "confusion": self.confusion.tolist(),
            "rows": [
                {"index": int(index), "number": int(number), "prediction": int(prediction), "scores": scores}
                for index, number, prediction, scores in zip(
                    self.indices, self.numbers, self.predictions, self.scores.tolist(), strict=True
                )
            ],
            "skipped": [{"index": row.index, "image_id": row.image_id, "reason": row.reason} for row in self.skipped],
        }


def nine_captions(text: str, number: int | None = None) -> tuple[int, list[str]]:
    """
    The true number of a caption, and the caption with each of two to ten in place of its number word.

    Without `number`, the true number of the data, the first number word counts. Raises a `ValueError` if the caption
    has no such number, or another than `number`.
    """
    if number and number not in NUMBER_TO_WORD:
        raise ValueError(f"the true number {number} is not one of two to ten")
    match = find_count(text, stated=number or None)
    if match is not None:
        return match.number, counting_captions(text, stated=match.number)
    first = find_count(text)
    if first is None:
        raise ValueError(f"the caption states no number from two to ten: {text!r}")
    raise ValueError(f"the true number is {number}, but the caption states {first.word!r}: {text!r}")


def evaluate_countbench(
    model: Any,
    processor: Any,
    rows: Iterable[Mapping[str, Any]],
    batch_size: int = 32,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> CountBenchResult:
    """
    Run the CountBench protocol with a CLIP.

    The number word of a row's caption is replaced by each of two to ten; the caption most similar to the image wins.
    Every image and every distinct caption is encoded once, what captions have in common at their beginning too (see
    [`text_features`]); the next images are read in another thread.

    Args:
        model ([`CLIPModel`]): Any CLIP, [`CLIPForCounting`] included.
        processor ([`CLIPProcessor`] or [`CountCLIPProcessor`]): The model's processor.
        rows: Rows with `image` and `text`, and where the data has them `number` and `image_id`. For rows without a
            `number`, or with 0, it is the one that the caption states.
        batch_size (`int`, *optional*, defaults to 32): Images, or captions, at once.
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.

    Returns:
        [`CountBenchResult`]: The figures, each row's scores, and the rows left out with the reason.

    Raises:
        ValueError: If no row can be measured, or the model's scores are not finite.
        TypeError: If the model is no CLIP.

    Source:
        Paiss et al., 2023, Sec. 4.1 (https://huggingface.co/papers/2302.12066).
    """
    skipped: list[SkippedRow] = []
    indices: list[int] = []
    numbers: list[int] = []
    captions: list[list[int]] = []
    with evaluating(model, device, dtype) as (where, precision):
        encoder = Encoder(model, processor, where, precision, batch_size)

        def nine_tokens(row: Mapping[str, Any]) -> tuple[int, list[list[int]]]:
            text = row.get("text")
            if not isinstance(text, str) or not text.strip():
                raise ValueError("the row has no caption")
            number, nine = nine_captions(text, row.get("number"))
            tokens = encoder.tokenize(nine)
            if len(set(map(tuple, tokens))) < len(nine):
                raise ValueError(
                    f"the number stands beyond the {encoder.max_length} tokens that the model reads: {text!r}"
                )
            return number, tokens

        embeds = []
        for pixel_values, answers in _batches(encoder, rows, nine_tokens, skipped, progress):
            embeds.append(encoder.images(pixel_values))
            for index, (number, nine) in answers:
                indices.append(index)
                numbers.append(number)
                captions += nine
        if not indices:
            raise ValueError(nothing_measured(skipped))
        image_embeds = torch.cat(embeds)  # (N, P)
        text_embeds = encoder.tokens(captions, progress)
        scores = torch.einsum("np,ncp->nc", image_embeds, text_embeds.unflatten(0, (len(numbers), -1))).numpy()
    check_finite(scores)
    return CountBenchResult.of_scores(scores, numbers, indices, skipped)


def _batches(
    encoder: Encoder, rows: Iterable[Mapping[str, Any]], answer: Any, skipped: list[SkippedRow], progress: bool
) -> Iterator[tuple[torch.Tensor, list[tuple[int, Any]]]]:
    """Images as tensors, with each row's index and `answer`; rows that cannot be measured go to `skipped`."""

    def read(row: Mapping[str, Any]) -> tuple[Any, Image.Image]:
        return answer(row), read_image(row)

    def batches() -> Iterator[tuple[torch.Tensor, list[tuple[int, Any]]]]:
        usable = usable_rows(rows, read, skipped, progress)
        while batch := list(islice(usable, encoder.batch_size)):
            answers = [(index, result) for index, _, (result, _) in batch]
            yield encoder.pixels([image for _, _, (_, image) in batch]), answers

    return read_ahead(batches())


__all__ = [
    "CountBenchResult",
    "evaluate_countbench",
    "nine_captions",
]
