"""Counts of a density model over many images, and how far they are from the true ones."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import tqdm

from count_clip.datasets_scripts.files.resumable import ResultCache
from count_clip.modeling.images import ImageError, open_image
from count_clip.modeling.pipeline_object_counting import predict_windows

from ..functional import (
    mean_absolute_error,
    mean_baseline,
    normalized_absolute_error,
    root_mean_squared_error,
    squared_relative_error,
)
from ..inference.encoding import SkippedRow, evaluating, image_id_of, num_rows, read_image, read_rows
from ..records.cache import content_key
from .labelled import nothing_measured


TrainCounts = Sequence[float] | Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class DensityPrediction:
    """One row's count and the true one."""

    index: int
    """Which row of the data, from 0."""
    image_id: str | None
    """The row's own name, where it has one."""
    text: str
    """What was counted."""
    count: float
    """The true count."""
    predicted: float
    """The model's count, not rounded."""


@dataclass(frozen=True)
class DensityFigures:
    """Errors over a group of rows, in objects; smaller is better."""

    n: int
    """Rows."""
    mae: float
    """Mean absolute error."""
    rmse: float
    """Root mean squared error."""
    mean_count: float
    """Mean of the true counts."""
    mean_predicted: float
    """Mean of the predicted counts; away from `mean_count`, the model says too many or too few on the whole."""
    baseline_mae: float | None = None
    """MAE of always saying the training mean; `None` without training counts."""
    baseline_rmse: float | None = None
    """RMSE of always saying the training mean; `None` without training counts."""


@dataclass(frozen=True)
class DensityResult:
    """What a density model reached on a data set."""

    mae: float
    """Mean absolute error, in objects."""
    rmse: float
    """Root mean squared error, in objects."""
    nae: float | None
    """Normalised absolute error over the `n_with_objects` rows; `None` if there are none."""
    sre: float | None
    """Squared relative error over the `n_with_objects` rows; `None` if there are none."""
    n: int
    """Rows measured."""
    n_with_objects: int
    """Rows measured whose true count is above zero: the two relative errors divide by it."""
    baseline_mae: float | None
    """MAE of always saying the training mean; `None` without training counts."""
    baseline_rmse: float | None
    """RMSE of always saying the training mean; `None` without training counts."""
    predictions: list[DensityPrediction]
    """Each measured row, in the order of the data."""
    by_text: dict[str, DensityFigures]
    """The same errors for each prompt, in the order in which they came."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Rows that could not be measured."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for JSON."""
        return asdict(self)


def predict_density(
    model: Any,
    processor: Any,
    images: Iterable[Any],
    texts: str | Iterable[str | Sequence[str]],
    batch_size: int = 16,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    return_points: bool = True,
    skip_unreadable: bool = False,
    window: str | None = None,
) -> Iterator[Any]:
    """
    Count in one image after another, with memory for one batch of windows.

    Windows of several images share a batch, those of a large image are spread over several; each distinct prompt
    is encoded once.

    Args:
        model ([`CLIPCountDensityModel`] or [`ImageCounter`]): The model, or a baseline that counts.
        processor ([`CLIPCountDensityProcessor`]): The model's processor; a baseline has none.
        images: Paths, PIL images or arrays, of any size and mode; a generator will do.
        texts: What to count: one prompt for all images; or one for each, where a list of prompts counts each of them
            with one pass of the vision tower.
        batch_size (`int`, *optional*, defaults to 16): Maps (windows times prompts) at once, but at least those of
            one window and all its prompts (of up to 64; more are taken in turns).
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it. Counts are summed in float32.
        return_points (`bool`, *optional*, defaults to `True`): Whether to look for the objects' places.
        skip_unreadable (`bool`, *optional*, defaults to `False`): Whether an image that cannot be read gives a result
            with an `error` instead of ending the work.
        window (`str`, *optional*): `"sliding"`, or `"whole"` for each image in one pass, whose memory grows with
            the image's longer side; what the processor's configuration says by default.

    Yields:
        For each image, in order, a `dict` with `text`, `count` (`float`), `density_map` (array of shape
        `(height, width)` in the image's own size, float32, summing to `count`) and `points` (`[[x, y], ...]` in the
        image's pixels); a list of these where the image came with a list of prompts. With `skip_unreadable`, one
        that cannot be read gives `text` and `error` alone.

    Raises:
        ImageError: If an image cannot be read, unless `skip_unreadable`.
        ValueError: If a prompt is empty or too long, `batch_size` is below 1, or there are more or fewer prompts than
            images.
    """
    if batch_size < 1:
        raise ValueError(f"Expected `batch_size` of at least 1, but got {batch_size}.")
    counter = _counter(model, processor, batch_size, device, dtype, return_points, window)
    if isinstance(texts, str):
        pairs: Iterable[tuple[Any, str | Sequence[str]]] = ((image, texts) for image in images)
    else:
        pairs = _zip_prompts(images, texts)
    single: deque[bool] = deque()
    for image, text in pairs:
        single.append(isinstance(text, str))
        prompts = [text] if isinstance(text, str) else list(text)
        if not prompts:
            raise ValueError("Expected at least one prompt for an image, but got an empty list.")
        try:
            done = counter.add(open_image(image), prompts)
        except ImageError as error:
            if not skip_unreadable:
                raise
            done = counter.add_error(str(error), prompts)
        for results in done:
            yield results[0] if single.popleft() else results
    for results in counter.flush():
        yield results[0] if single.popleft() else results


def _zip_prompts(
    images: Iterable[Any], texts: Iterable[str | Sequence[str]]
) -> Iterator[tuple[Any, str | Sequence[str]]]:
    """Pair images with prompts; `zip(strict=True)` with a message that helps."""
    prompts = iter(texts)
    number = 0
    for image in images:
        try:
            text = next(prompts)
        except StopIteration:
            raise ValueError(
                f"Expected a prompt for each image, or one string for all, but there are only {number} prompts."
            ) from None
        number += 1
        yield image, text
    if next(prompts, None) is not None:
        raise ValueError(f"Expected a prompt for each image, but there are more prompts than the {number} images.")


class _PromptError(ValueError):
    """A prompt cannot be used."""


class ImageCounter(ABC):
    """
    Counts in one image after another, a batch at a time, and answers in the order in which they came.

    What takes the place of a model in this room: it needs no processor.
    """

    @abstractmethod
    def add(self, image: Any, prompts: list[str]) -> Iterable[list[dict[str, Any]]]:
        """
        Take one RGB image and what to count in it; gives back what is ready.

        Returns:
            Of each image that is ready, a result for each of its prompts, as [`predict_density`] describes it.
        """

    @abstractmethod
    def add_error(self, error: str, prompts: list[str]) -> Iterable[list[dict[str, Any]]]:
        """Take one image that cannot be counted in; gives back what is ready."""

    @abstractmethod
    def flush(self) -> Iterable[list[dict[str, Any]]]:
        """Count in all images that wait."""


class _WindowCounter(ImageCounter):
    """Collects images until their windows fill a batch."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        batch_size: int,
        device: str | torch.device | None,
        dtype: torch.dtype | None,
        return_points: bool,
        window: str | None = None,
    ) -> None:
        if not callable(getattr(model, "get_text_embeds", None)):
            raise TypeError(f"Expected a CLIPCountDensityModel, but got {type(model).__name__}.")
        if not callable(getattr(processor, "post_process_density", None)):
            raise TypeError(f"Expected a CLIPCountDensityProcessor, but got {type(processor).__name__}.")
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.device, self.dtype, self.return_points = device, dtype, return_points
        self.options = {} if window is None else {"window": window}
        self.text_embeds: dict[str, torch.Tensor] = {}
        self.waiting: list[tuple[list[str], Any]] = []  # prompts, and the image's tensors or an error
        self.num_windows = 0
        self.shape: tuple[int, ...] = ()  # prompts an image, height and width of the windows that wait

    def add(self, image: Any, prompts: list[str]) -> Iterator[list[dict[str, Any]]]:
        """Take one image; gives back what is ready."""
        try:
            tensors = self.processor(images=[image], **self.options)
        except (ValueError, OSError) as error:
            raise ImageError(f"The image cannot be used: {error}") from error
        # Here and not in `_count`: a prompt that cannot be used must not take the images before it along.
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.text_embeds]
        if new:
            try:
                tokens = self.processor.tokenize(new)
            except ValueError as error:
                raise _PromptError(str(error)) from error
            with evaluating(self.model, self.device, self.dtype) as (device, _):
                embeds = self.model.get_text_embeds(
                    tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
                )
            self.text_embeds.update(zip(new, embeds, strict=True))
        return self._add(prompts, tensors)

    def _add(self, prompts: list[str], tensors: Any) -> Iterator[list[dict[str, Any]]]:
        shape = (len(prompts), *tensors["pixel_values"].shape[-2:])
        if self.num_windows and shape != self.shape:
            yield from self.flush()
        self.waiting.append((prompts, tensors))
        self.num_windows += len(tensors["pixel_values"])
        self.shape = shape
        if self.num_windows * len(prompts) >= self.batch_size:
            yield from self.flush()

    def add_error(self, error: str, prompts: list[str]) -> Iterator[list[dict[str, Any]]]:
        """Take one image that cannot be counted in."""
        self.waiting.append((prompts, error))
        if not self.num_windows:
            yield from self.flush()

    def flush(self) -> Iterator[list[dict[str, Any]]]:
        """Count in all images that wait."""
        waiting, self.waiting, self.num_windows = self.waiting, [], 0
        readable = [(prompts, tensors) for prompts, tensors in waiting if not isinstance(tensors, str)]
        counted = iter(self._count(readable) if readable else [])
        for prompts, tensors in waiting:
            if isinstance(tensors, str):
                yield [{"text": prompt, "error": tensors} for prompt in prompts]
            else:
                yield next(counted)

    def _count(self, images: list[tuple[list[str], Any]]) -> list[list[dict[str, Any]]]:
        """Count in images with equally many prompts, and windows of one size."""
        windows, embeds, positions = [], [], []
        for index, (prompts, tensors) in enumerate(images):
            pixel_values = tensors["pixel_values"]
            windows.append(pixel_values)
            embeds.append(
                torch.stack([self.text_embeds[prompt] for prompt in prompts]).expand(len(pixel_values), -1, -1)
            )
            position = torch.as_tensor(tensors["window_positions"]).clone()
            position[:, 0] = index
            positions.append(position)
        whole = any(tensors.get("interpolate_pos_encoding", False) for _, tensors in images)
        with evaluating(self.model):
            density_map = predict_windows(
                self.model, torch.cat(windows), torch.cat(embeds), self.batch_size, whole
            )  # (W, T, H, W)
        window_positions = torch.cat(positions)
        image_sizes = torch.cat([torch.as_tensor(tensors["image_sizes"]) for _, tensors in images])
        results: list[list[dict[str, Any]]] = self.processor.post_process_density(
            density_map,
            window_positions,
            image_sizes,
            return_points=self.return_points,
            text=[prompts for prompts, _ in images],
        )
        for of_image in results:
            for result in of_image:
                result["density_map"] = result["density_map"].numpy()
        return results


def _counter(model: Any, *arguments: Any, **options: Any) -> ImageCounter:
    """What counts: the model, or what takes its place."""
    return model if isinstance(model, ImageCounter) else _WindowCounter(model, *arguments, **options)


def evaluate_density(
    model: Any,
    processor: Any,
    rows: Iterable[Mapping[str, Any]],
    train_counts: TrainCounts | None = None,
    batch_size: int = 16,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
    on_result: Callable[[Mapping[str, Any], dict[str, Any]], None] | None = None,
    window: str | None = None,
    cache: ResultCache | None = None,
) -> DensityResult:
    """
    Count in every row of a data set and measure the errors.

    Args:
        model ([`CLIPCountDensityModel`] or [`ImageCounter`]): The model, or a baseline that counts.
        processor ([`CLIPCountDensityProcessor`]): The model's processor; a baseline has none.
        rows: Rows with `image`, `text` (what to count), `count`, and where the data has it `image_id`.
        train_counts (sequence of numbers, or a mapping from prompt to one, *optional*): Counts of the training rows,
            for the baseline that always says their mean; with a mapping, the mean of the row's own prompt.
        batch_size (`int`, *optional*, defaults to 16): Windows at once.
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar on stderr.
        on_result (`Callable`, *optional*): Called with each row and its result as [`predict_density`] gives it, points
            and map included: to draw, or to keep what the figures forget.
        window (`str`, *optional*): `"sliding"`, or `"whole"` for each image in one pass, whose memory grows with
            the image's longer side; what the processor's configuration says by default.
        cache ([`ResultCache`], *optional*): Of this model, dtype and window: images whose count is in it are not
            counted in again (nor given to `on_result`), and the counts of others are put there.

    Returns:
        [`DensityResult`]: The errors in all and for each prompt, each row's count, and the rows left out.

    Raises:
        ValueError: If no row can be measured, a prompt is too long, or `train_counts` lacks a row's prompt.
        TypeError: If the model is of another kind.
    """
    if batch_size < 1:
        raise ValueError(f"Expected `batch_size` of at least 1, but got {batch_size}.")
    baseline = None if train_counts is None else _Baseline(train_counts)
    counter = _counter(model, processor, batch_size, device, dtype, return_points=on_result is not None, window=window)
    skipped: list[SkippedRow] = []
    pending: deque[tuple[int, Mapping[str, Any], float, str]] = deque()
    predictions: dict[int, DensityPrediction] = {}
    said_by_baseline: dict[int, float] = {}

    def keep(done: Iterable[list[dict[str, Any]]]) -> None:
        for (result,) in done:
            index, row, count, key = pending.popleft()
            predictions[index] = DensityPrediction(index, image_id_of(row), result["text"], count, result["count"])
            if cache is not None and math.isfinite(result["count"]):
                cache[key] = result["count"]
            if on_result is not None:
                on_result(row, result)

    for index, row, reason in tqdm(
        read_rows(rows), total=num_rows(rows), desc="images", disable=not progress, leave=False
    ):
        if row is None:
            skipped.append(SkippedRow(index, None, reason or "there is no row"))
            continue
        done: Iterable[list[dict[str, Any]]] = ()
        reason = what_is_wrong(row)
        if reason is None:
            text, count = row["text"], float(row["count"])
            said = None if baseline is None else baseline.says(text)
            try:
                image = read_image(row)
                key = "" if cache is None else content_key(image, text)
                if cache is not None and key in cache:
                    predictions[index] = DensityPrediction(index, image_id_of(row), text, count, cache[key])
                else:
                    done = counter.add(image, [text])
                    pending.append((index, row, count, key))
            except (ImageError, _PromptError) as error:
                reason = str(error)
        if reason is not None:
            skipped.append(SkippedRow(index, image_id_of(row), reason))
            continue
        if said is not None:
            said_by_baseline[index] = said
        keep(done)
    keep(counter.flush())
    if not predictions:
        raise ValueError(nothing_measured(skipped))
    order = sorted(predictions)
    said_in_order = None if baseline is None else [said_by_baseline[index] for index in order]
    return _summarise([predictions[index] for index in order], said_in_order, skipped)


class _Baseline:
    """Always says the mean of the training counts: of all, or of those of the same prompt."""

    def __init__(self, train_counts: TrainCounts) -> None:
        self.overall: float | None = None
        self.by_text: dict[str, float] = {}
        if isinstance(train_counts, Mapping):
            self.by_text = {text: mean_baseline(counts, counts).prediction for text, counts in train_counts.items()}
        else:
            self.overall = mean_baseline(train_counts, train_counts).prediction

    def says(self, text: str) -> float:
        """What it says of an image."""
        if self.overall is not None:
            return self.overall
        if text not in self.by_text:
            raise ValueError(
                f"Expected training counts for every prompt, but there are none for {text!r}; there are some for "
                f"{', '.join(map(repr, self.by_text)) or 'nothing'}. Add them, or pass one list for all prompts."
            )
        return self.by_text[text]


def what_is_wrong(row: Mapping[str, Any]) -> str | None:
    """Say why a row cannot be measured, as far as one sees without its image; `None` if it can."""
    text, count = row.get("text"), row.get("count")
    if not isinstance(text, str) or not text.strip():
        return "the row does not say what to count (`text`)"
    if count is None:
        return "the row has no true `count`"
    if isinstance(count, bool) or not isinstance(count, numbers.Real):
        return f"the row's `count` is {count!r}, not a number"
    if not math.isfinite(count) or count < 0:
        return f"the row's `count` is {count}, not a number of objects"
    return None


def _figures(predictions: list[DensityPrediction], baseline: list[float] | None) -> DensityFigures:
    """Errors over some rows."""
    predicted, true = [row.predicted for row in predictions], [row.count for row in predictions]
    return DensityFigures(
        n=len(predictions),
        mae=mean_absolute_error(predicted, true),
        rmse=root_mean_squared_error(predicted, true),
        mean_count=float(np.mean(true)),
        mean_predicted=float(np.mean(predicted)),
        baseline_mae=None if baseline is None else mean_absolute_error(baseline, true),
        baseline_rmse=None if baseline is None else root_mean_squared_error(baseline, true),
    )


def _summarise(
    predictions: list[DensityPrediction], baseline: list[float] | None, skipped: list[SkippedRow]
) -> DensityResult:
    """All errors of a data set."""
    figures = _figures(predictions, baseline)
    places: dict[str, list[int]] = {}
    for place, row in enumerate(predictions):
        places.setdefault(row.text, []).append(place)
    by_text = {
        text: _figures([predictions[i] for i in rows], None if baseline is None else [baseline[i] for i in rows])
        for text, rows in places.items()
    }
    with_objects = [row for row in predictions if row.count > 0]
    predicted, true = [row.predicted for row in with_objects], [row.count for row in with_objects]
    return DensityResult(
        mae=figures.mae,
        rmse=figures.rmse,
        nae=normalized_absolute_error(predicted, true) if with_objects else None,
        sre=squared_relative_error(predicted, true) if with_objects else None,
        n=figures.n,
        n_with_objects=len(with_objects),
        baseline_mae=figures.baseline_mae,
        baseline_rmse=figures.baseline_rmse,
        predictions=predictions,
        by_text=by_text,
        skipped=skipped,
    )


__all__ = [
    "DensityFigures",
    "DensityPrediction",
    "DensityResult",
    "ImageCounter",
    "evaluate_density",
    "predict_density",
    "what_is_wrong",
]
