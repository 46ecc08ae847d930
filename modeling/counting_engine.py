"""The counting engine: requests (an image, its prompts, a tag) to results, in batches over many images."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import torch
from PIL import Image

from .images import open_image, to_rgb


# More prompts of a window are split into several passes.
MAX_PROMPTS_AT_ONCE = 64

Offset = tuple[int, int]  # top and left of a window in the resized image
Request = tuple[Any, list[str], Any]  # an image (or the exception that reading it raised), its prompts, a tag


@dataclass(eq=False)
class Counted:
    """
    The results for one image.

    Args:
        tag: The tag of the request.
        prompts (`list[str]`): The prompts of the request.
        results (`list[dict]`): For each prompt at least `text` and `count`; or `text` and `error`.
        error (`Exception`, *optional*):
            Why there are no counts: an `ImageError` for the image, another `ValueError` or `TypeError` for a prompt.
        image (`PIL.Image.Image`, *optional*): The upright RGB image, if the engine keeps images.
        size (`tuple[int, int]`): Height and width of the upright image.
    """

    tag: Any
    prompts: list[str]
    results: list[dict[str, Any]] = field(default_factory=list)
    error: Exception | None = None
    image: Any = None
    size: tuple[int, int] = (0, 0)

    def fail(self, error: Exception) -> "Counted":
        """Report an error instead of counts."""
        self.error, self.image = error, None
        self.results = [{"text": prompt, "error": str(error)} for prompt in self.prompts]
        return self


@contextmanager
def evaluating(
    model: Any, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Iterator[tuple[torch.device, torch.dtype]]:
    """
    Put a model into evaluation mode, without gradients, and restore its mode afterwards.

    Args:
        model (`PreTrainedModel`): The model.
        device (`str` or `torch.device`, *optional*), dtype (`torch.dtype`, *optional*):
            Where and in what precision to run; the model is moved and stays there. By default its own.

    Yields:
        `tuple[torch.device, torch.dtype]`: Device and precision of the model.
    """
    if device is not None or dtype is not None:
        model.to(device=device, dtype=dtype)
    was_training = model.training
    model.eval()
    parameter = next(model.parameters())
    try:
        with torch.no_grad():
            yield parameter.device, parameter.dtype
    finally:
        model.train(was_training)


class ImageCounter(ABC):
    """
    Counts in one image after another.

    Args:
        batch_size (`int`): Size of a batch, at least 1.
        keep_images (`bool`, *optional*, defaults to `False`): Whether [`Counted`] has its `image`.
    """

    def __init__(self, batch_size: int, keep_images: bool = False):
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` of at least 1, but got {batch_size}.")
        self.batch_size, self.keep_images = batch_size, keep_images

    @abstractmethod
    def __call__(self, requests: Iterable[Request]) -> Iterator[Counted]:
        """
        Count in one image after another. Requests are read at most a batch ahead.

        Args:
            requests (iterable of `(image, prompts, tag)`):
                An image is anything that `open_image` reads, or an exception, which is reported instead. `prompts` is
                a list of strings; the tag is for the caller.

        Yields:
            [`Counted`]: For each request, in order, with its tag; with an `error` if it cannot be used.
        """

    def _open(self, request: Request) -> Counted:
        """Read the image of a request."""
        image, prompts, tag = request
        counted = Counted(tag, prompts)
        try:
            if isinstance(image, Exception):
                raise image
            counted.image = to_rgb(open_image(image))
            counted.size = (counted.image.height, counted.image.width)
        except (ValueError, TypeError) as error:
            counted.fail(error)
        return counted

    def _drop_image(self, counted: Counted) -> Counted:
        if not self.keep_images:
            counted.image = None
        return counted


class BatchCounter(ImageCounter):
    """Counts in `batch_size` images at once, whatever their prompts."""

    def __call__(self, requests: Iterable[Request]) -> Iterator[Counted]:
        """Count in one image after another; see [`ImageCounter`]."""
        requests = iter(requests)
        while batch := [self._open(request) for request in islice(requests, self.batch_size)]:
            readable = [counted for counted in batch if counted.error is None]
            if readable:
                self.count_batch(readable)
            yield from map(self._drop_image, batch)

    @abstractmethod
    def count_batch(self, batch: list[Counted]) -> None:
        """Set the `results` of images, or call `fail`."""


@dataclass(eq=False)
class _WindowedImage:
    """An image and its windows (none if it cannot be used), the function that cuts them, its map and prompts."""

    counted: Counted
    resized_size: tuple[int, int] = (0, 0)
    offsets: list[Offset] = field(default_factory=list)
    cut: Callable[[list[Offset]], torch.Tensor] = torch.tensor
    composite: Any = None
    text_embeds: torch.Tensor = field(default_factory=lambda: torch.zeros(0))  # (num_prompts, P)

    @property
    def is_complete(self) -> bool:
        """Whether all windows are in the map."""
        return self.composite is None or self.composite.num_missing == 0


class DensityCounter(ImageCounter):
    """
    Counts with a density model. Windows of several images share a batch, large images are processed batch by batch,
    and each distinct prompt is encoded once: the model must not change meanwhile.

    Args:
        model ([`CLIPCountDensityModel`]): The model.
        processor ([`CLIPCountDensityProcessor`]): Its processor.
        batch_size (`int`, *optional*, defaults to 8):
            Density maps (windows times prompts) at once, but at least those of one window and all its prompts (up to
            64; more need several passes through the vision tower).
        window (`str`, *optional*, defaults to that of the processor's configuration):
            `"sliding"`, or `"whole"` for each image in one pass, whose memory grows with the image's longer side.
        return_points (`bool`, *optional*, defaults to `True`): Whether results have `points`.
        return_density_map (`bool`, *optional*, defaults to `True`): Whether results have their `density_map`.
        keep_images (`bool`, *optional*, defaults to `False`): Whether [`Counted`] has its `image`.
        device, dtype (*optional*): As in [`evaluating`]. Counts are summed in float64.

    Raises:
        ValueError: If an option is out of range.
        TypeError: If model or processor are of another class.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        batch_size: int = 8,
        window: str | None = None,
        return_points: bool = True,
        return_density_map: bool = True,
        keep_images: bool = False,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(batch_size, keep_images)
        if not callable(getattr(model, "get_text_embeds", None)):
            raise TypeError(f"Expected a CLIPCountDensityModel, but got {type(model).__name__}.")
        if not callable(getattr(processor, "post_process_density", None)):
            raise TypeError(f"Expected a CLIPCountDensityProcessor, but got {type(processor).__name__}.")
        self.window = window or processor.image_processor.window
        if self.window not in ("sliding", "whole"):
            raise ValueError(f"`window` must be one of sliding, whole, but got {window!r}.")
        self.model, self.processor = model, processor
        self.return_points, self.return_density_map = return_points, return_density_map
        self._text_embeds: dict[str, torch.Tensor] = {}
        if device is not None or dtype is not None:
            model.to(device=device, dtype=dtype)

    def __call__(self, requests: Iterable[Request]) -> Iterator[Counted]:
        """
        Count in one image after another; see [`ImageCounter`].

        Yields:
            [`Counted`]: With a result for each prompt: `text`, `count` (`float`), and as configured `density_map`
            (array `(height, width)` of float32 in the image's original size, summing to `count`) and `points`
            (`[[x, y], ...]` in the image's pixels).
        """
        waiting: deque[_WindowedImage] = deque()
        batch: list[tuple[_WindowedImage, Offset]] = []
        for request in requests:
            image = self._prepare(self._open(request))
            waiting.append(image)
            for offset in image.offsets:
                if batch and len(batch[0][0].text_embeds) != len(image.text_embeds):
                    self._count_windows(batch)
                    batch = []
                batch.append((image, offset))
                if len(batch) >= self._windows_at_once(image):
                    self._count_windows(batch)
                    batch = []
            while waiting and waiting[0].is_complete:
                yield self._result(waiting.popleft())
        if batch:
            self._count_windows(batch)
        yield from map(self._result, waiting)

    def check_prompts(self, prompts: list[str]) -> None:
        """Raise a `ValueError` or `TypeError` if a prompt is empty, too long or not a string."""
        self.processor.tokenize(prompts)

    def _prepare(self, counted: Counted) -> _WindowedImage:
        """Resize an image, place its windows and encode its new prompts."""
        if counted.image is None:
            return _WindowedImage(counted)
        try:
            if not counted.prompts:
                raise ValueError("Expected at least one prompt for an image, but got an empty list.")
            new = [prompt for prompt in dict.fromkeys(counted.prompts) if prompt not in self._text_embeds]
            tokens = self.processor.tokenize(new) if new else {}
            image = self._place_windows(counted, counted.image)
        except (ValueError, TypeError) as error:
            return _WindowedImage(counted.fail(error))
        self._drop_image(counted)
        if new:
            with evaluating(self.model) as (device, _):
                ids, mask = (tokens[name].to(device) for name in ("input_ids", "attention_mask"))
                self._text_embeds.update(zip(new, self.model.get_text_embeds(ids, mask), strict=True))
        image.text_embeds = torch.stack([self._text_embeds[prompt] for prompt in counted.prompts])
        return image

    def _place_windows(self, counted: Counted, image: Image.Image) -> _WindowedImage:
        """Resize an image and place its windows."""
        image_processor = self.processor.image_processor
        if self.window == "whole":
            pixel_values = image_processor([image], window="whole", return_tensors="pt")["pixel_values"]
            height, width = pixel_values.shape[-2:]
            cut, offsets = (lambda offsets: pixel_values), [(0, 0)]
        else:
            resized = image_processor.resize_image(image)
            width, height = resized.size
            cut, offsets = partial(image_processor.cut_windows, resized), image_processor.window_offsets(height, width)
        composite = image_processor.start_composite(offsets, (height, width))
        return _WindowedImage(counted, (height, width), offsets, cut, composite)

    def _prompts_at_once(self, image: _WindowedImage) -> int:
        return min(len(image.text_embeds), max(self.batch_size, MAX_PROMPTS_AT_ONCE))

    def _windows_at_once(self, image: _WindowedImage) -> int:
        return 1 if self.window == "whole" else max(1, self.batch_size // self._prompts_at_once(image))

    def _count_windows(self, batch: list[tuple[_WindowedImage, Offset]]) -> None:
        """Predict the maps of a batch of windows, and add each to its image's map."""
        by_image = [(image, [offset for _, offset in own]) for image, own in groupby(batch, key=itemgetter(0))]
        pixel_values = torch.cat([image.cut(offsets) for image, offsets in by_image])
        text_embeds = torch.stack([image.text_embeds for image, _ in batch])
        options = {"interpolate_pos_encoding": True} if self.window == "whole" else {}
        with evaluating(self.model) as (device, dtype):
            pixel_values = pixel_values.to(device, dtype)
            maps = [
                self.model(pixel_values=pixel_values, text_embeds=prompts, **options).density_map.float().cpu()
                for prompts in text_embeds.split(self._prompts_at_once(batch[0][0]), dim=1)
            ]
        for (image, offset), window_map in zip(batch, torch.cat(maps, dim=1), strict=True):
            image.composite.add(window_map, offset)

    def _result(self, image: _WindowedImage) -> Counted:
        """Count in the complete map."""
        counted = image.counted
        if counted.error is None:
            counted.results = self.processor.post_process_density(
                image.composite.density_map[None],
                torch.zeros(1, 3, dtype=torch.long),  # one window: the resized image
                torch.tensor([counted.size + image.resized_size]),
                return_points=self.return_points,
                original_size=self.return_density_map,
                text=[counted.prompts],
            )[0]
            for result in counted.results:
                density_map = result.pop("density_map")
                if self.return_density_map:
                    result["density_map"] = density_map.numpy()
        return counted


__all__ = ["BatchCounter", "Counted", "DensityCounter", "ImageCounter", "Request", "evaluating"]
