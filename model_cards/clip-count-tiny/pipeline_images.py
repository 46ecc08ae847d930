"""What the pipelines of this package share: images in any form, one after another, none lost for a bad one."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Pipeline
from transformers.pipelines.pt_utils import KeyDataset
from transformers.utils import logging

from .images import DECODER_ERRORS, ImageError, open_image, to_rgb


logger = logging.get_logger(__name__)

ON_ERROR = ("raise", "report")


class ImagePipeline(Pipeline):
    """
    A pipeline from an image and a text to an answer.

    Subclasses say how an image and its text become tensors (`_prepare`), how the model answers (`_answer`) and how
    that is written (`_finish`).
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __call__(self, inputs: Any, text: Any = None, **kwargs: Any) -> Any:
        """
        Answer for one image or for several.

        Args:
            inputs: An image, or a list, a tuple, a data set or a generator of images. An image is a path, an
                address (`http://`, `https://` or `data:image/`), a PIL image, an array, a tensor, or a dictionary
                with `image` (one of these) and `text`.
            text (*optional*): For all images that do not bring a `text` of their own.
            kwargs: Options of the task, and
                - `on_error` (`"raise"` or `"report"`): What an image that cannot be used leads to, or a `text` of its
                  own that cannot: an error, or a `{"text", "error"}` in its place and a warning in the log. By
                  default a single image raises, and of several the good ones are not lost for a bad one.
                - `timeout` (`float`): Seconds to wait for an image from the web.

        Returns:
            The answer for a single image; a list of answers for a list or tuple; for a data set or a generator an
            iterator that reads as it goes.

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
        # What an image becomes is a batch already: of its windows, or of its captions.
        return super().__call__(inputs, **{**kwargs, "batch_size": 1})

    def _sanitize_parameters(
        self,
        text: Any = None,
        timeout: float | None = None,
        on_error: str | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if on_error not in (None, *ON_ERROR):
            raise ValueError(f"`on_error` must be one of {', '.join(ON_ERROR)}, but got {on_error!r}.")
        given = {"text": text, "timeout": timeout, "on_error": on_error}
        preprocess = {name: value for name, value in given.items() if value is not None}
        options = self._options(**{name: value for name, value in kwargs.items() if value is not None})
        return {**preprocess, **options[0]}, options[1], options[2]

    def _options(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Options of the task: those of `_prepare`, of `_answer` and of `_finish`."""
        if kwargs:
            raise TypeError(f"Unknown options {', '.join(sorted(kwargs))}: use text, on_error or timeout.")
        return {}, {}, {}

    def preprocess(
        self,
        inputs: Any,
        text: Any = None,
        timeout: float | None = None,
        on_error: str = "raise",
        **options: Any,
    ) -> dict[str, Any]:
        """Read one image and make it and its text into tensors."""
        image, name = (inputs.item, inputs.name) if isinstance(inputs, _Numbered) else (inputs, None)
        has_own_text = False
        try:
            if isinstance(image, Mapping) and not image.keys() & {"bytes", "path"}:
                has_own_text = image.get("text") is not None
                text = image["text"] if has_own_text else text
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
            if isinstance(image, ImageError):
                raise image
            return self._prepare(to_rgb(open_image(image, name, timeout)), text, **options)
        except (ValueError, TypeError) as error:
            # A text that serves all images is wrong for all of them.
            if on_error == "raise" or not (isinstance(error, ImageError) or has_own_text):
                raise
            logger.warning(str(error))
            return {"text": text, "error": str(error)}

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        return model_inputs if "error" in model_inputs else self._answer(model_inputs, **options)

    def postprocess(self, model_outputs: dict[str, Any], **options: Any) -> Any:
        """Write the answer for one image."""
        if "error" not in model_outputs:
            return self._finish(model_outputs, **options)
        text, error = model_outputs["text"], model_outputs["error"]
        if isinstance(text, (list, tuple)):
            return [{"text": prompt, "error": error} for prompt in text]
        return {"text": text, "error": error}

    def _prepare(self, image: Image.Image, text: Any, **options: Any) -> dict[str, Any]:
        """What the model needs for an image and what is asked of it; each pipeline has its own."""
        raise NotImplementedError

    def _answer(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        """What the model says of it; each pipeline has its own."""
        raise NotImplementedError

    def _finish(self, model_outputs: dict[str, Any], **options: Any) -> Any:
        """What the caller gets; each pipeline has its own."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Numbered:
    """One of several images, or the error that it led to, with its place among them."""

    item: Any
    index: int

    @property
    def name(self) -> str:
        """What to call it, if it has no name of its own."""
        return f"image {self.index}"


class _NumberedRows(torch.utils.data.Dataset):
    """A data set's images, where one that the data set itself cannot read is an error in its place."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> _Numbered:
        try:
            return _Numbered(self.rows[index], index)
        except DECODER_ERRORS as error:
            return _Numbered(ImageError(f"image {index} cannot be read: {error}"), index)


def _are_several(inputs: Any) -> bool:
    """Whether the inputs are several images, and not one."""
    if isinstance(inputs, (list, tuple, Iterator)):
        return True
    one = (str, bytes, Mapping, np.ndarray, torch.Tensor, Image.Image)
    return not isinstance(inputs, one) and (isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__"))


def _undecoded(inputs: Any) -> Any:
    """
    A data set of the `datasets` library with its images left as files, or `inputs` unchanged.

    Decoded by the data set, a damaged file ends a stream, and a row's error does not say which file it is about.
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
