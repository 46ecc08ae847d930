"""Read images (files, URLs, bytes, arrays, of any mode), apply EXIF rotation, and convert to RGB."""

import base64
import binascii
import io
import os
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import httpx
from PIL import Image, ImageOps


# The errors of Pillow's decoders for a damaged, truncated or too large file.
DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
CHANNELS = (1, 2, 3, 4)

_ORIENTATION = 0x0112
# How far the floats of a resized image may overshoot.
_OVERSHOOT = 1e-3


class ImageError(OSError, ValueError):
    """An image cannot be used. The message names it and the reason."""


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no such file."""


def open_image(image: Any, name: str | None = None, timeout: float | None = None) -> Image.Image:
    """
    Read one image completely, and apply its EXIF rotation.

    Args:
        image: A path; an `http://`, `https://` or `data:image/` URL; a `PIL.Image.Image`; an array or tensor as for
            [`to_rgb`]; or the `{"bytes", "path"}` of an undecoded `datasets` image.
        name (`str`, *optional*): Name in an error, for an image without a file name.
        timeout (`float`, *optional*): Seconds to wait for the web; no limit by default.

    Returns:
        `PIL.Image.Image`: Decoded and upright, in the mode of its file; of an array in 8 bits.

    Raises:
        ImageError: If `image` is `None`, the file is missing or damaged, it cannot be fetched, or it has no pixels. It
            is a `ValueError` and an `OSError`, and for a missing file also a `FileNotFoundError`.
    """
    label = name or "the image"
    source, label = _source_of(image, label)
    if isinstance(source, str) and source.startswith(("http://", "https://", "data:")):
        label = source if len(source) < 200 else f"{source[:60]}..."
        source = io.BytesIO(_fetch(source, label, timeout))
    try:
        if isinstance(source, Image.Image):
            image = source
        elif isinstance(source, (np.ndarray, torch.Tensor)):
            image = _array_to_image(source)
        else:
            image = Image.open(source)
        image.load()
        image = _upright(image)
    except (*DECODER_ERRORS, TypeError) as error:
        raise ImageError(f"{label} cannot be read as an image: {error}") from error
    if 0 in image.size:
        raise ImageError(f"{label} has no pixels: it is {image.width} x {image.height}.")
    return image


def _source_of(image: Any, label: str) -> tuple[Any, str]:
    """The source of an image, and its name in an error."""
    if image is None:
        raise ImageError(f"There is no image: {label} is None.")
    if isinstance(image, Mapping):
        path = image.get("path")
        if image.get("bytes") is not None:
            return io.BytesIO(image["bytes"]), str(path or label)
        if path is None:
            raise ImageError(f"Expected bytes or a path for {label}, but there is neither.")
        image = path
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        if path.startswith(("http://", "https://", "data:")):
            return path, path
        if os.path.isdir(path):
            raise ImageError(f"Expected an image, but {path} is a folder.")
        if not os.path.exists(path):
            raise ImageNotFoundError(f"There is no file {path}.")
        return path, path
    if isinstance(image, Image.Image):
        return image, str(getattr(image, "filename", "") or label)
    if isinstance(image, (np.ndarray, torch.Tensor, io.IOBase)):
        return image, label
    raise ImageError(
        f"Expected {label} to be a path, a URL, a PIL image, an array or a tensor, but got {type(image).__name__}."
    )


def _fetch(url: str, label: str, timeout: float | None) -> bytes:
    """Download or decode the bytes of a URL."""
    try:
        if url.startswith("data:"):
            head, _, body = url.partition(",")
            if not head.startswith("data:image/") or not head.endswith(";base64"):
                raise ImageError(f"Expected an image as `data:image/...;base64,...`, but got {label}.")
            return base64.b64decode(body, validate=True)
        # `transformers.image_utils.load_image` would drop transparency and all but eight bits.
        response = httpx.get(url, timeout=timeout, follow_redirects=True)
        response.raise_for_status()
        return bytes(response.content)
    except binascii.Error as error:
        raise ImageError(f"{label} is not valid base64: {error}.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ImageError(f"{label} cannot be fetched: {error}") from error


def to_rgb(image: Any) -> Image.Image:
    """
    Bring an image of any mode to upright 8-bit RGB.

    EXIF rotation is applied; transparent pixels become white. In images of 16 bits and more, white is the maximum of
    the smallest depth of 8, 10, 12, 14, ... bits that holds all of the image's values, because cameras and microscopes
    write 12 bits into 16. Floats range from 0 to 1, or else to the maximum of such a depth.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            An image. Arrays are `(H, W)`, `(H, W, C)` or `(C, H, W)` of numbers or booleans, with 1 (grey), 3 (RGB)
            or 4 (RGB and alpha) channels; `(H, W, 2)` are grey and alpha. If the first and the last dimension could
            be channels, an array's are last and a tensor's first.

    Returns:
        `PIL.Image.Image` of mode RGB; an upright RGB image is returned unchanged.

    Raises:
        ImageError: If the image has no pixels, its file is truncated, or an array is not an image or has NaN,
            infinite or negative values.
    """
    if not isinstance(image, Image.Image):
        image = _array_to_image(image)
    if 0 in image.size:
        raise ImageError(f"Expected an image, but got one of {image.size[0]}x{image.size[1]} pixels.")
    try:
        image = _upright(image)
        if image.mode == "F" or image.mode.startswith("I"):
            image = _array_to_image(np.asarray(image))
        if image.mode == "La":
            image = image.convert("LA")
        if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except ImageError:
        raise
    except DECODER_ERRORS as error:
        name = getattr(image, "filename", "") or "the image"
        raise ImageError(f"{name} cannot be read as an image: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF rotation; `exif_transpose` alone would also copy upright images."""
    return ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION, 1) != 1 else image


def _array_to_image(image: Any) -> Image.Image:
    """Turn an array or tensor into an 8-bit image."""
    channels_first = isinstance(image, torch.Tensor)
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = image.float() if image.dtype == torch.bfloat16 else image
    array = np.asarray(image)
    if array.dtype.kind not in "buif":
        raise ImageError(f"Expected an image as an array of numbers, but got one of type {array.dtype}.")
    # A first dimension of two is rather two images than grey and alpha.
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and (channels_first or array.shape[2] not in CHANNELS):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS) or 0 in array.shape:
        raise ImageError(
            "Expected an image as an array of shape (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, but got "
            f"{array.shape}."
        )
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    if array.dtype != np.uint8:
        array = _to_8_bits(array)
    return Image.fromarray(np.ascontiguousarray(array))


def _to_8_bits(array: np.ndarray) -> np.ndarray:
    """Scale deep or floating-point values to bytes."""
    lowest, highest = float(array.min()), float(array.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise ImageError("Expected an image, but got an array with NaN or infinite values. Clean it first.")
    if lowest < -_OVERSHOOT:
        raise ImageError(
            "Expected pixel values from 0 to 1, or from 0 to the brightest of 8 or more bits, but got values from "
            f"{lowest:g} to {highest:g}. Normalised images are not supported."
        )
    bits = max(8, 2 * -(-int(np.ceil(highest)).bit_length() // 2))
    full_scale = 1.0 if array.dtype.kind == "f" and highest <= 1 + _OVERSHOOT else 2.0**bits - 1
    return (array.astype(np.float32) * np.float32(255.0 / full_scale)).round().clip(0, 255).astype(np.uint8)


__all__ = ["DECODER_ERRORS", "ImageError", "ImageNotFoundError", "open_image", "to_rgb"]
