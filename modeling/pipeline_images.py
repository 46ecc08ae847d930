"""Base class of the pipelines: reads images in any form, counts in them with an engine, and reports errors."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Pipeline
from transformers.pipelines.pt_utils import KeyDataset, PipelineDataset, PipelineIterator
from transformers.utils import logging

from .counting_engine import Counted, ImageCounter, Request
from .images import DECODER_ERRORS, ImageError, open_image, to_rgb


logger = logging.get_logger(__name__)

ON_ERROR = ("raise", "report")


class ImagePipeline(Pipeline):
    """
    A pipeline that counts in images.

    Subclasses define the engine (`_counter`) and the format of its results (`_write`).
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    option_names: tuple[str, ...] = ()
    """Options of the engine."""

    def __call__(self, inputs: Any, text: Any = None, **kwargs: Any) -> Any:
        """
        Count in one image or in several.

        Args:
            inputs: An image, or a list, a tuple, a data set or a generator of images. An image is a path, a URL
                (`http://`, `https://` or `data:image/`), a PIL image, an array, a tensor, or a dictionary with `image`
                (one of these) and `text`.
            text (*optional*): For all images without their own `text`.
            kwargs: Options of the task, `on_error` (`"raise"`, by default for a single image, or `"report"`) and
                `timeout` (`float`, seconds to wait for an image from the web).

        Returns:
            The result for a single image; a list of results for a list or tuple; for a data set or a generator an
            iterable that reads as it is iterated over.

        Raises:
            ValueError: If there is no text, or an image or text cannot be used and errors are not reported.
        """
        if text is not None:
            kwargs["text"] = text
        if _are_several(inputs):
            if "on_error" not in self._preprocess_params:
                kwargs.setdefault("on_error", "report")
            if isinstance(inputs, (list, tuple)):
                if not inputs:
                    return []
                inputs = [_Numbered(item, index) for index, item in enumerate(inputs)]
            elif isinstance(inputs, Sized) and hasattr(inputs, "__getitem__"):
                inputs = _NumberedRows(_undecoded(inputs))
            else:
                inputs = (_Numbered(item, index) for index, item in enumerate(_undecoded(inputs)))
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self, text: Any = None, timeout: float | None = None, on_error: str | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if on_error not in (None, *ON_ERROR):
            raise ValueError(f"`on_error` must be one of {', '.join(ON_ERROR)}, but got {on_error!r}.")
        unknown = sorted(kwargs.keys() - set(self.option_names))
        if unknown:
            names = ", ".join(("text", "on_error", "timeout", *self.option_names))
            raise TypeError(f"Unknown options {', '.join(unknown)}: use {names}.")
        request = {"text": text, "timeout": timeout, "on_error": on_error}
        reading, counting = ({key: x for key, x in options.items() if x is not None} for options in (request, kwargs))
        return reading, counting, {}

    def preprocess(
        self, inputs: Any, text: Any = None, timeout: float | None = None, on_error: str = "raise"
    ) -> Request:
        """Read one image, and make its request to the engine."""
        image, name = (inputs.item, f"image {inputs.index}") if isinstance(inputs, _Numbered) else (inputs, None)
        reports_text, prompts = False, []
        try:
            if isinstance(image, Mapping) and not image.keys() & {"bytes", "path"}:
                # An unusable text for all images is not reported image by image.
                reports_text = on_error == "report" and image.get("text") is not None
                text = text if image.get("text") is None else image["text"]
                if "image" not in image:
                    raise ImageError(
                        f"Expected a dictionary with `image`, and optionally `text`, but "
                        f"{name or 'the image'} has {', '.join(map(repr, image)) or 'nothing'}."
                    )
                image = image["image"]
            if text is None or (isinstance(text, (str, list, tuple)) and not text):
                raise ValueError("Expected what to count, as `text='red apples'`, but got no prompt.")
            if not isinstance(text, Iterable):
                raise TypeError(f"Expected `text` as a string or a list of strings, but got {type(text).__name__}.")
            prompts = [text] if isinstance(text, str) else list(text)
            image = image if isinstance(image, ImageError) else to_rgb(open_image(image, name, timeout))
        except (ValueError, TypeError) as error:
            if not (reports_text or (on_error == "report" and isinstance(error, ImageError))):
                raise
            image = error
        return image, prompts, _Tag(text, on_error, reports_text)

    def _forward(self, request: Request, **options: Any) -> Counted:
        return next(self._counter(**options)([request]))

    def postprocess(self, counted: Counted) -> Any:
        """The result for one image, or its error."""
        text, on_error, reports_text = counted.tag.text, counted.tag.on_error, counted.tag.reports_text
        error = counted.error
        if error is None:
            return self._write(counted)
        if not (reports_text or (on_error == "report" and isinstance(error, ImageError))):
            raise error
        logger.warning(str(error))
        if isinstance(text, (list, tuple)):
            return [{"text": prompt, "error": str(error)} for prompt in text]
        return {"text": text, "error": str(error)}

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> "_Results":
        """Read requests, perhaps in other processes, and have one engine count in all of them."""
        reader = PipelineDataset if isinstance(inputs, Sized) else PipelineIterator
        loader = torch.utils.data.DataLoader(
            reader(inputs, self.preprocess, preprocess_params),
            batch_size=None,
            num_workers=num_workers if isinstance(inputs, Sized) else min(num_workers, 1),
            collate_fn=_unchanged,
        )
        return _Results(loader, self._counter(**forward_params), self.postprocess)

    @abstractmethod
    def _counter(self, *args: Any, **kwargs: Any) -> ImageCounter:
        """The engine."""

    @abstractmethod
    def _write(self, counted: Counted) -> Any:
        """The result for one image."""


@dataclass(frozen=True)
class _Tag:
    """The text of a request, as a string or several, and how its errors are reported."""

    text: Any
    on_error: str
    reports_text: bool


class _Results:
    """An iterator over the results, with the length of the inputs."""

    def __init__(self, loader: Any, counter: ImageCounter, write: Any):
        self.loader, self.counter, self.write = loader, counter, write

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return map(self.write, self.counter(self.loader))


@dataclass(frozen=True)
class _Numbered:
    """An image, or the error that reading it raised, and its index."""

    item: Any
    index: int


class _NumberedRows(torch.utils.data.Dataset):
    """The images of a data set; an error for one that the data set cannot read."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> _Numbered:
        try:
            return _Numbered(self.rows[index], index)
        except DECODER_ERRORS as error:
            return _Numbered(ImageError(f"image {index} cannot be read: {error}"), index)


def _unchanged(request: Any) -> Any:
    return request


def _are_several(inputs: Any) -> bool:
    """Whether the inputs are several images."""
    if isinstance(inputs, (list, tuple, Iterator)):
        return True
    one = (str, bytes, Mapping, np.ndarray, torch.Tensor, Image.Image)
    return not isinstance(inputs, one) and (isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__"))


def _undecoded(inputs: Any) -> Any:
    """
    A data set of the `datasets` library with its images left as files, or `inputs` unchanged.

    If the data set decoded them, a damaged file would end a stream, and an error would not name its file.
    """
    if isinstance(inputs, KeyDataset):
        return KeyDataset(_undecoded(inputs.dataset), inputs.key)
    features = getattr(inputs, "features", None)
    has_format = getattr(inputs, "format", {"type": None})["type"] is not None
    if isinstance(features, Mapping) and hasattr(inputs, "cast_column") and not has_format:
        for name, feature in features.items():
            if type(feature).__name__ == "Image" and getattr(feature, "decode", False):
                inputs = inputs.cast_column(name, type(feature)(decode=False))
    return inputs


__all__ = ["ImagePipeline"]
