"""Pictures as they come (files, bytes, arrays, any mode) made into ones to look at, or a clear reason why not."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


# What Pillow's decoders raise on a damaged, truncated or absurdly large file.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class PictureError(ValueError):
    """A picture cannot be read. The message says which one and why."""


def open_picture(picture: Any, name: str | None = None) -> Image.Image:
    """
    Read one picture, completely, and turn it as its camera says.

    Args:
        picture: A path, a `PIL.Image.Image`, an array of shape `(height, width)` or `(height, width, channels)` with
            1, 3 or 4 channels, or the `{"bytes", "path"}` that an undecoded `datasets` image is.
        name (`str`, *optional*): What to call it in an error, if it has no file name.

    Returns:
        `PIL.Image.Image`: Decoded, in its own mode, upright.

    Raises:
        PictureError: If there is none, the file is missing or damaged, or it has no pixels.
    """
    label = name or "the picture"
    if picture is None:
        raise PictureError(f"Expected a picture for {label}, but there is none.")
    source: Any = picture
    if isinstance(picture, Mapping):
        if picture.get("bytes") is not None:
            source = io.BytesIO(picture["bytes"])
            label = name or str(picture.get("path") or "the picture")
        elif picture.get("path") is not None:
            source = picture["path"]
        else:
            raise PictureError(f"Expected bytes or a path for {label}, but the row has neither.")
    if isinstance(source, (str, os.PathLike)):
        label = os.fspath(source)
        if Path(label).is_dir():
            raise PictureError(f"Expected a picture, but {label} is a folder.")
        if not Path(label).exists():
            raise PictureError(f"There is no file {label}.")
    try:
        if isinstance(source, Image.Image):
            image = source
        elif isinstance(source, np.ndarray):
            image = Image.fromarray(source[:, :, 0] if source.ndim == 3 and source.shape[2] == 1 else source)
        elif isinstance(source, (str, os.PathLike, io.BytesIO)):
            image = Image.open(source)
        else:
            raise PictureError(
                f"Expected {label} to be a path, a PIL image or an array, but got {type(picture).__name__}."
            )
        image.load()
        image = ImageOps.exif_transpose(image)
    except PictureError:
        raise
    except (*_DECODER_ERRORS, TypeError) as error:
        raise PictureError(f"{label} cannot be read as a picture: {error}.") from error
    if image.width == 0 or image.height == 0:
        raise PictureError(f"{label} has no pixels: it is {image.width} x {image.height}.")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """
    Make a picture of any mode one that a screen shows.

    Deep pictures (16 bits, 32 bits, floats) are stretched from their darkest to their brightest pixel, because
    microscopes and depth cameras use only a part of the range; transparent ones are laid on white.

    Args:
        image (`PIL.Image.Image`): A picture of any mode.

    Returns:
        `PIL.Image.Image`: The same picture in mode `RGB`.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        span = high - low
        grey = (values - low) * (255.0 / span) if span > 0 else np.full_like(values, 255.0 if high > 0 else 0.0)
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), with_alpha).convert("RGB")
    return image.convert("RGB")


__all__ = ["PictureError", "open_picture", "to_rgb"]
