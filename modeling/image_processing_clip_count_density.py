"""Pictures of any size and mode to windows for a [`CLIPCountDensityModel`], and window maps back to picture maps."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling
from transformers.processing_utils import ImagesKwargs


WINDOW_BLENDS = ("hat", "authors")


class CLIPCountDensityImagesKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict, unseen
    """
    What the image processor takes beside the usual arguments.

    Args:
        window_size (`int`): Side of a window, in pixels of the resized picture.
        window_stride (`int`): Largest step from one window to the next, in pixels of the resized picture.
        window_blend (`str`): How overlapping windows share the pixels between them.
        max_aspect_ratio (`float`): Pictures that are longer than this many times their shorter side are squeezed.
    """

    window_size: int
    window_stride: int
    window_blend: str
    max_aspect_ratio: float


class CLIPCountDensityImageProcessorPil(PilBackend):
    """
    Resize pictures until their shorter side is `size["shortest_edge"]`, normalise them as CLIP does, and cut them into
    overlapping square windows.

    Args:
        window_size (`int`, *optional*, defaults to 384):
            Side of a window, in pixels of the resized picture.
        window_stride (`int`, *optional*, defaults to two thirds of `window_size`; `"authors"`: a third):
            Largest step from one window to the next. Windows are spread evenly and cover the picture exactly.
        window_blend (`str`, *optional*, defaults to `"hat"`):
            How overlapping windows share a pixel. `"hat"` weighs each by its distance from the window's border.
            `"authors"` is the scheme of the published model: a step of exactly `window_stride` along the width, zeros
            on the right, a sigmoid ramp. Either way the weights at every pixel sum to one.
        max_aspect_ratio (`float`, *optional*, defaults to 16.0):
            Pictures longer than this many times their shorter side are squeezed to it, which bounds the windows.
        size (`dict`, *optional*):
            `{"shortest_edge": pixels}`, at least `window_size` (the default): more pixels show smaller objects.

    Raises:
        ValueError: If the options contradict one another or a picture cannot be used.
    """

    valid_kwargs = CLIPCountDensityImagesKwargs
    resample = PILImageResampling.BILINEAR
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"shortest_edge": 384}
    default_to_square = False
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    window_size = 384
    window_stride = 256
    window_blend = "hat"
    max_aspect_ratio = 16.0
    model_input_names = ["pixel_values"]

    def __init__(self, **kwargs: Any):
        window_size = kwargs.get("window_size", self.window_size)
        # The authors' windows of 384 pixels are 128 apart.
        thirds = 1 if kwargs.get("window_blend", self.window_blend) == "authors" else 2
        kwargs.setdefault("window_stride", max(1, window_size * thirds // 3))
        kwargs.setdefault("size", {"shortest_edge": window_size})
        super().__init__(**kwargs)
        if self.window_blend not in WINDOW_BLENDS:
            raise ValueError(
                f"`window_blend` must be one of {', '.join(WINDOW_BLENDS)}, but got {self.window_blend!r}."
            )
        if not 0 < self.window_stride <= self.window_size:
            raise ValueError(
                f"`window_stride` must lie between 1 and `window_size` ({self.window_size}), but got "
                f"{self.window_stride}: a larger step would leave gaps."
            )
        if self.window_blend == "authors" and self.window_size % self.window_stride:
            raise ValueError(
                f"With `window_blend='authors'` the `window_stride` ({self.window_stride}) must divide the "
                f"`window_size` ({self.window_size}), or the end of a picture is not covered."
            )
        shortest_edge = self.size["shortest_edge"]
        if shortest_edge < self.window_size:
            raise ValueError(
                f"`size['shortest_edge']` ({shortest_edge}) must be at least `window_size` ({self.window_size}): a "
                "picture fills a window. Set both."
            )

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> np.ndarray:
        """Turn one picture of any kind into a `(3, height, width)` uint8 array, upright and in RGB."""
        return np.asarray(to_rgb(image)).transpose(2, 0, 1)

    def _preprocess(
        self,
        images: list[np.ndarray],
        do_resize: bool,
        size: Any,
        resample: Any,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
        window_size: int,
        window_stride: int,
        window_blend: str,
        max_aspect_ratio: float,
        return_tensors: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        windows, positions, sizes = [], [], []
        for index, image in enumerate(images):
            height, width = image.shape[1:]
            new_height, new_width = height, width
            if do_resize:
                new_height, new_width = resized_size(height, width, size.shortest_edge, max_aspect_ratio)
            if (new_height, new_width) != (height, width):
                picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
                picture = picture.resize((new_width, new_height), resample)
                image = np.asarray(picture).transpose(2, 0, 1)
            pixels = image.astype(np.float32)
            if do_rescale:
                pixels = pixels * np.float32(rescale_factor)
            pad_value = np.zeros(3, np.float32)
            if do_normalize:
                mean, std = np.asarray(image_mean, np.float32), np.asarray(image_std, np.float32)
                pixels = (pixels - mean[:, None, None]) / std[:, None, None]
                pad_value = -mean / std  # black, seen by the network
            offsets = self.window_offsets(new_height, new_width, window_size, window_stride, window_blend)
            bottom = max(top for top, _ in offsets) + window_size
            right = max(left for _, left in offsets) + window_size
            if (bottom, right) != (new_height, new_width):
                padded = np.broadcast_to(pad_value[:, None, None], (3, bottom, right)).copy()
                padded[:, :new_height, :new_width] = pixels
                pixels = padded
            for top, left in offsets:
                windows.append(pixels[:, top : top + window_size, left : left + window_size])
                positions.append((index, top, left))
            sizes.append((height, width, new_height, new_width))
        data = {
            "pixel_values": np.stack(windows),
            "window_positions": np.asarray(positions, np.int64),
            "picture_sizes": np.asarray(sizes, np.int64),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def window_offsets(
        self,
        height: int,
        width: int,
        window_size: int | None = None,
        window_stride: int | None = None,
        window_blend: str | None = None,
    ) -> list[tuple[int, int]]:
        """
        Where the windows of a resized picture lie.

        Args:
            height, width (`int`): Size of the resized picture, in pixels.
            window_size, window_stride, window_blend (*optional*): Instead of the processor's own.

        Returns:
            `list[tuple[int, int]]`: Top and left of each window, row by row.
        """
        window_size = window_size or self.window_size
        stride = window_stride or self.window_stride
        if (window_blend or self.window_blend) == "authors":
            # The authors pad by a whole extra stride where the width already divides.
            padded = width + stride - width % stride
            lefts = list(range(0, max(padded - window_size, 0) + 1, stride))
        else:
            lefts = _even_offsets(width, window_size, stride)
        return [(top, left) for top in _even_offsets(height, window_size, stride) for left in lefts]

    def composite(
        self, window_maps: torch.Tensor, offsets: list[tuple[int, int]], size: tuple[int, int]
    ) -> torch.Tensor:
        """
        Put the maps of a picture's windows together; at every pixel the windows' weights sum to one.

        Args:
            window_maps (`torch.Tensor` of shape `(num_windows, window_size, window_size)`):
                A map for each window.
            offsets (`list[tuple[int, int]]`): Top and left of each window in the resized picture.
            size (`tuple[int, int]`): Height and width of the resized picture.

        Returns:
            `torch.Tensor` of shape `size`.
        """
        height, width = size
        side = window_maps.shape[-1]
        rows = self._axis_weights(sorted({top for top, _ in offsets}), side, height, "hat", window_maps)
        columns = self._axis_weights(
            sorted({left for _, left in offsets}), side, width, self.window_blend, window_maps
        )
        result = window_maps.new_zeros(height, width)
        for window_map, (top, left) in zip(window_maps, offsets, strict=True):
            # A window may reach beyond a picture that is smaller than it.
            bottom, right = min(top + side, height), min(left + side, width)
            weights = rows[top][: bottom - top, None] * columns[left][None, : right - left]
            result[top:bottom, left:right] += window_map[: bottom - top, : right - left] * weights
        return result

    def _axis_weights(
        self, starts: list[int], side: int, length: int, blend: str, like: torch.Tensor
    ) -> dict[int, torch.Tensor]:
        """Weights of the windows along one axis, by their start."""
        total = max(length, starts[-1] + side)
        weights = torch.zeros(len(starts), total, dtype=torch.float64)
        if blend == "authors":
            for i, start in enumerate(starts):
                overlap = starts[i - 1] + side - start if i else 0
                ramp = torch.linspace(-3, 3, overlap, dtype=torch.float64).sigmoid()
                weights[:i, start : start + overlap] *= 1 - ramp
                weights[i, start : start + side] = 1
                weights[i, start : start + overlap] = ramp
        else:
            distance = torch.arange(side, dtype=torch.float64) + 0.5
            hat = torch.minimum(distance, side - distance)
            for i, start in enumerate(starts):
                weights[i, start : start + side] = hat
            weights = weights / weights.sum(dim=0, keepdim=True)
        weights = weights.to(like)
        return {start: weights[i, start : start + side] for i, start in enumerate(starts)}


def resized_size(height: int, width: int, shortest_edge: int, max_aspect_ratio: float) -> tuple[int, int]:
    """
    Size of a picture after its shorter side was brought to `shortest_edge` pixels.

    Args:
        height, width (`int`): Size of the picture, in pixels.
        shortest_edge (`int`): Length of the shorter side afterwards.
        max_aspect_ratio (`float`): The longer side becomes at most this many times `shortest_edge`.

    Returns:
        `tuple[int, int]`: Height and width.
    """
    longest_edge = shortest_edge * min(max(height, width) / min(height, width), max_aspect_ratio)
    longest_edge = max(shortest_edge, round(longest_edge))
    return (shortest_edge, longest_edge) if height <= width else (longest_edge, shortest_edge)


def to_rgb(image: Any) -> Image.Image:
    """
    Bring a picture of any mode to upright 8-bit RGB.

    EXIF rotation is applied; transparent pixels show white; 16-bit and floating-point pictures keep their tones.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`):
            A picture. Arrays are `(H, W)`, `(H, W, C)` or `(C, H, W)` with 1, 3 or 4 channels, of integers, or of
            floats from 0 to 1 or to 255.

    Returns:
        `PIL.Image.Image` of mode RGB.

    Raises:
        ValueError: If the picture has no pixels, or an array is not a picture.
        OSError: If the file behind the picture is cut off.
    """
    if not isinstance(image, Image.Image):
        image = _array_to_picture(np.asarray(image))
    if 0 in image.size:
        raise ValueError(f"Expected a picture, but got one of {image.size[0]}x{image.size[1]} pixels.")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _array_to_picture(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _array_to_picture(array: np.ndarray) -> Image.Image:
    """Turn an array into an 8-bit picture."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ValueError(
            "Expected a picture as an array of shape (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, but got "
            f"{array.shape}."
        )
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    if array.dtype != np.uint8:
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise ValueError("Expected a picture, but got an array with NaN or infinite values. Clean it first.")
        lowest, highest = array.min(), array.max()
        if lowest < 0 or highest > 65535:
            raise ValueError(
                "Expected pixel values from 0 to 1, to 255 or to 65535, but got values from "
                f"{lowest:g} to {highest:g}. Pictures that are normalised already cannot be taken back."
            )
        full_scale = 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0
        array = (array * (255.0 / full_scale)).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def _even_offsets(length: int, side: int, stride: int) -> list[int]:
    """Starts of the fewest evenly spread windows of `side` that cover `length`, at most `stride` apart."""
    steps = max(0, -(-(length - side) // stride))
    return [round(step * (length - side) / steps) for step in range(steps + 1)] if steps else [0]


__all__ = ["CLIPCountDensityImageProcessorPil", "CLIPCountDensityImagesKwargs", "resized_size", "to_rgb"]
