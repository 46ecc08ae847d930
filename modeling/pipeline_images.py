"""What the pipelines share: images in any form, counted in by an engine; a bad image does not lose the good ones."""

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

    Subclasses have an engine (`_counter`) that counts in them, and write what it returns (`_write`).
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
            text (*optional*): For all images that have no `text` of their own.
            kwargs: Options of the task, and
                - `on_error` (`"raise"` or `"report"`): Whether an image that cannot be used, or a `text` of its own
                  that cannot, raises an error, or gives a `{"text", "error"}` in its place and a warning in the log.
                  By default a single image raises, and several report.
                - `timeout` (`float`): Seconds to wait for an image from the web.

        Returns:
            The result for a single image; a list of results for a list or tuple; for a data set or a generator an
            iterable that reads as it is iterated over.

        Raises:
            ValueError: If there is no text, the text cannot be used, or a single image cannot.
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
        given = {"text": text, "timeout": timeout, "on_error": on_error}
        reading, counting = ({key: x for key, x in options.items() if x is not None} for options in (given, kwargs))
        return reading, counting, {}

    def preprocess(
        self, inputs: Any, text: Any = None, timeout: float | None = None, on_error: str = "raise"
    ) -> Request:
        """Read one image, and make a request to the engine of it."""
        image, name = (inputs.item, inputs.name) if isinstance(inputs, _Numbered) else (inputs, None)
        reports_text, prompts = False, []
        try:
            if isinstance(image, Mapping) and not image.keys() & {"bytes", "path"}:
                # A text for all images is wrong for all of them.
                reports_text = on_error == "report" and image.get("text") is not None
                text = text if image.get("text") is None else image["text"]
                if "image" not in image:
                    raise ImageError(
                        f"Expected a dictionary with `image`, and `text` where it has its own, but "
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
        """Write the result for one image."""
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
        """What the caller gets for one image."""


@dataclass(frozen=True)
class _Tag:
    """What is to become of an image's result."""

    text: Any
    """As it was given: a string or several."""
    on_error: str
    reports_text: bool
    """Whether a text that cannot be used is reported."""


class _Results:
    """The results for several images, as they are iterated over."""

    def __init__(self, loader: Any, counter: ImageCounter, write: Any):
        self.loader, self.counter, self.write = loader, counter, write

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return map(self.write, self.counter(self.loader))


@dataclass(frozen=True)
class _Numbered:
    """One of several images, or the error that reading it raised, with its place among them."""

    item: Any
    index: int

    @property
    def name(self) -> str:
        """Its name in an error, if it has no name of its own."""
        return f"image {self.index}"


class _NumberedRows(torch.utils.data.Dataset):
    """The images of a data set; one that the data set cannot read is an error in its place."""

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
    """Whether the inputs are several images, and not one."""
    if isinstance(inputs, (list, tuple, Iterator)):
        return True
    one = (str, bytes, Mapping, np.ndarray, torch.Tensor, Image.Image)
    return not isinstance(inputs, one) and (isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__"))


def _undecoded(inputs: Any) -> Any:
    """
    A data set of the `datasets` library with its images left as files, or `inputs` unchanged.

    Decoded by the data set, a damaged file ends a stream, and a row's error does not name its file.
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
