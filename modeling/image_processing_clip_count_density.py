"""Images of any size and mode to windows for a [`CLIPCountDensityModel`], and window maps back to image maps."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling
from transformers.processing_utils import ImagesKwargs

from .images import ImageError, open_image, to_rgb


WINDOWS = ("sliding", "whole")
WINDOW_BLENDS = ("hat", "authors")
_WINDOW_OPTIONS = ("window", "window_size", "window_stride", "window_blend", "max_aspect_ratio", "max_whole_area")


class CLIPCountDensityImagesKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict, unseen
    """The options of the image processor that others do not have; see [`CLIPCountDensityImageProcessorPil`]."""

    window: str
    window_size: int
    window_stride: int
    window_blend: str
    max_aspect_ratio: float
    max_whole_area: float


class CLIPCountDensityImageProcessorPil(PilBackend):
    """
    Resize images until their shorter side is `size["shortest_edge"]`, normalise them as CLIP does, and cut them into
    overlapping square windows, or leave them whole.

    Images are paths, URLs, PIL images, arrays or tensors, of any size and mode (see `to_rgb` in `images.py`). EXIF
    rotation is applied first: all sizes and positions are those of the upright image.

    Args:
        window (`str`, *optional*, defaults to `"sliding"`):
            `"sliding"` cuts square windows. `"whole"` makes each resized image one window, for a model that is called
            with `interpolate_pos_encoding=True`: no object is cut at a border, but the memory grows with the image's
            longer side, and the sizes are unseen in training.
        window_size (`int`, *optional*, defaults to 384): Side of a sliding window, in pixels of the resized image.
        window_stride (`int`, *optional*, defaults to two thirds of `window_size`; `"authors"`: a third):
            Largest step from one window to the next. Windows are spread evenly and cover the image exactly.
        window_blend (`str`, *optional*, defaults to `"hat"`):
            How overlapping windows share a pixel. `"hat"` weighs each by its distance from the window's border.
            `"authors"` is the scheme of the published model: a step of exactly `window_stride` along the width, zeros
            on the right, a sigmoid ramp. Either way the weights at every pixel sum to one.
        max_aspect_ratio (`float`, *optional*, defaults to 16.0):
            Images longer than this many times their shorter side are squeezed to it, which bounds the windows.
        max_whole_area (`float`, *optional*, defaults to 16.0):
            With `window="whole"`, an image that after resizing has more than this many times the area of a sliding
            window raises an error. With the default `size` and `max_aspect_ratio` every image fits.
        size (`dict`, *optional*):
            `{"shortest_edge": pixels}`, at least `window_size` (the default): more pixels show smaller objects.

    Raises:
        ValueError: If the options contradict one another or an image cannot be used.
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
    window = "sliding"
    window_size = 384
    window_stride = 256
    window_blend = "hat"
    max_aspect_ratio = 16.0
    max_whole_area = 16.0
    model_input_names = ["pixel_values"]

    def __init__(self, **kwargs: Any):
        window_size = kwargs.get("window_size", self.window_size)
        # The authors' windows of 384 pixels are 128 apart.
        thirds = 1 if kwargs.get("window_blend", self.window_blend) == "authors" else 2
        kwargs.setdefault("window_stride", max(1, window_size * thirds // 3))
        kwargs.setdefault("size", {"shortest_edge": window_size})
        super().__init__(**kwargs)
        _check_window_options({name: getattr(self, name) for name in (*_WINDOW_OPTIONS, "size")})

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:
        _check_window_options(kwargs)
        super()._validate_preprocess_kwargs(**kwargs)

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[Any]:
        # The base class does not accept greyscale arrays, and converts files to RGB regardless of their mode.
        if isinstance(images, (list, tuple)):
            images = [image for entry in images for image in (entry if isinstance(entry, (list, tuple)) else [entry])]
        elif getattr(images, "ndim", 0) == expected_ndims + 1:
            images = list(images)
        else:
            images = [images]
        if not images:
            raise ValueError("Expected at least one image, but got an empty list.")
        return images

    def process_image(self, image: Any, *args: Any, **kwargs: Any) -> Image.Image:
        """Convert any image to an upright one in RGB."""
        return to_rgb(open_image(image))

    def _preprocess(
        self,
        images: list[Image.Image],
        do_resize: bool,
        size: Any,
        resample: Any,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Any,
        image_std: Any,
        window: str,
        window_size: int,
        window_stride: int,
        window_blend: str,
        max_aspect_ratio: float,
        max_whole_area: float,
        return_tensors: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        windows, positions, sizes = [], [], []
        for index, image in enumerate(images):
            width, height = image.size
            new_height, new_width = height, width
            if do_resize:
                new_height, new_width = resized_size(height, width, size.shortest_edge, max_aspect_ratio)
            area = new_height * new_width / window_size**2
            if window == "whole" and area > max_whole_area:
                raise ImageError(
                    f'Expected an image of at most {max_whole_area:g} windows for one pass with `window="whole"`, but '
                    f"it has {new_height}x{new_width} pixels after resizing, {area:.1f} windows of {window_size}x"
                    f'{window_size}. Use `window="sliding"`, whose memory does not grow with the image, a smaller '
                    "`size`, or a larger `max_whole_area` if there is enough memory."
                )
            if (new_height, new_width) != (height, width):
                image = image.resize((new_width, new_height), resample)
            pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32)
            if do_rescale:
                pixels = pixels * np.float32(rescale_factor)
            pad_value = np.zeros(3, np.float32)
            if do_normalize:
                mean, std = np.asarray(image_mean, np.float32), np.asarray(image_std, np.float32)
                pixels = (pixels - mean[:, None, None]) / std[:, None, None]
                pad_value = -mean / std  # black, normalised
            sides = (new_height, new_width) if window == "whole" else (window_size, window_size)
            offsets = [(0, 0)]
            if window == "sliding":
                offsets = self.window_offsets(new_height, new_width, window_size, window_stride, window_blend)
            bottom = max(top for top, _ in offsets) + sides[0]
            right = max(left for _, left in offsets) + sides[1]
            if (bottom, right) != (new_height, new_width):
                padded = np.broadcast_to(pad_value[:, None, None], (3, bottom, right)).copy()
                padded[:, :new_height, :new_width] = pixels
                pixels = padded
            for top, left in offsets:
                windows.append(pixels[:, top : top + sides[0], left : left + sides[1]])
                positions.append((index, top, left))
            sizes.append((height, width, new_height, new_width))
        if len({shown.shape for shown in windows}) > 1:
            raise ValueError(
                'Expected images that have one size after resizing, because with `window="whole"` each of them is a '
                f"window, but got {', '.join(sorted({f'{h}x{w}' for _, _, h, w in sizes}))}. Process them one by one, "
                'or use `window="sliding"`, which mixes sizes.'
            )
        data = {
            "pixel_values": np.stack(windows),
            "window_positions": np.asarray(positions, np.int64),
            "image_sizes": np.asarray(sizes, np.int64),
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def resize_image(self, image: Image.Image) -> Image.Image:
        """Resize an upright RGB image, as before its windows are cut; unchanged without `do_resize`."""
        if not self.do_resize:
            return image
        height, width = resized_size(image.height, image.width, self.size["shortest_edge"], self.max_aspect_ratio)
        return image if (width, height) == image.size else image.resize((width, height), self.resample)

    def cut_windows(self, image: Image.Image, offsets: list[tuple[int, int]]) -> torch.Tensor:
        """
        Cut some of the sliding windows out of a resized image, where all of them would take too much memory.

        Args:
            image (`PIL.Image.Image`): From [`resize_image`].
            offsets (`list[tuple[int, int]]`): Some of [`window_offsets`].

        Returns:
            `torch.Tensor` of shape `(num_windows, 3, window_size, window_size)`: The `pixel_values` of these windows.
        """
        side = self.window_size
        # Beyond the image, Pillow crops black.
        windows = [image.crop((left, top, left + side, top + side)) for top, left in offsets]
        return self(windows, do_resize=False, window="whole", return_tensors="pt")["pixel_values"]

    def window_offsets(
        self,
        height: int,
        width: int,
        window_size: int | None = None,
        window_stride: int | None = None,
        window_blend: str | None = None,
    ) -> list[tuple[int, int]]:
        """Top and left of each sliding window of a resized image, by rows, by default with the processor's options."""
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
        self,
        window_maps: torch.Tensor,
        offsets: list[tuple[int, int]],
        size: tuple[int, int],
        window_blend: str | None = None,
    ) -> torch.Tensor:
        """
        Combine the maps of an image's windows; at every pixel the windows' weights sum to one.

        Args:
            window_maps (`torch.Tensor` of shape `(num_windows, *, window_height, window_width)`):
                Maps of each window, where `*` is any number of dimensions.
            offsets (`list[tuple[int, int]]`): Top and left of each window in the resized image.
            size (`tuple[int, int]`): Height and width of the resized image.
            window_blend (`str`, *optional*): Instead of the processor's.

        Returns:
            `torch.Tensor` of shape `(*, height, width)`.

        Raises:
            ValueError: If the windows do not cover the image, or are not as many as `offsets`.
        """
        if not offsets or len(window_maps) != len(offsets):
            raise ValueError(f"Expected a map for each of {len(offsets)} windows, but got {len(window_maps)}.")
        composite = self.start_composite(offsets, size, window_blend)
        for window_map, offset in zip(window_maps, offsets, strict=True):
            composite.add(window_map, offset)
        return composite.density_map

    def start_composite(
        self, offsets: list[tuple[int, int]], size: tuple[int, int], window_blend: str | None = None
    ) -> "WindowComposite":
        """As [`composite`], for window maps that arrive one after another."""
        return WindowComposite(offsets, size, window_blend or self.window_blend)


class WindowComposite:
    """
    The map of an image whose windows arrive one after another; at every pixel the windows' weights sum to one.

    Args:
        offsets (`list[tuple[int, int]]`): Top and left of each window in the resized image.
        size (`tuple[int, int]`): Height and width of the resized image.
        window_blend (`str`): How overlapping windows share a pixel, as in the image processor.
    """

    def __init__(self, offsets: list[tuple[int, int]], size: tuple[int, int], window_blend: str):
        self.offsets, self.size, self.window_blend = offsets, size, window_blend
        self.num_missing = len(offsets)
        self.density_map = torch.zeros(0)

    def add(self, window_map: torch.Tensor, offset: tuple[int, int]) -> None:
        """
        Add the map `(*, window_height, window_width)` of one window, once for each of `offsets`.

        Raises:
            ValueError: If the windows do not cover the image.
        """
        is_first = self.num_missing == len(self.offsets)
        self.num_missing -= 1
        height, width = self.size
        window_height, window_width = window_map.shape[-2:]
        if self.offsets == [(0, 0)] and (window_height, window_width) == self.size:
            self.density_map = window_map
            return
        if is_first:
            tops, lefts = ({offset[axis] for offset in self.offsets} for axis in (0, 1))
            self._rows = _axis_weights(tops, window_height, height, "hat", window_map)
            self._columns = _axis_weights(lefts, window_width, width, self.window_blend, window_map)
            self.density_map = window_map.new_zeros(*window_map.shape[:-2], height, width)
        top, left = offset
        # A window may reach beyond an image that is smaller than it.
        bottom, right = min(top + window_height, height), min(left + window_width, width)
        weights = self._rows[top][: bottom - top, None] * self._columns[left][None, : right - left]
        self.density_map[..., top:bottom, left:right] += window_map[..., : bottom - top, : right - left] * weights


def _axis_weights(
    offsets: set[int], side: int, length: int, blend: str, like: torch.Tensor
) -> dict[int, torch.Tensor]:
    """Weights of the windows along one axis, by their start."""
    starts = sorted(offsets)
    ends = [0, *(start + side for start in starts)]
    if any(start > end for start, end in zip([*starts, length], ends, strict=True)):
        raise ValueError(
            f"Expected windows that cover {length} pixels, but got some of {side} that begin at "
            f"{', '.join(map(str, starts))}."
        )
    weights = torch.zeros(len(starts), max(length, ends[-1]), dtype=torch.float64)
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


def _check_window_options(options: dict[str, Any]) -> None:
    window, window_size, window_stride, window_blend, max_aspect_ratio, max_whole_area = (
        options[name] for name in _WINDOW_OPTIONS
    )
    shortest_edge = options["size"]["shortest_edge"]
    for name, value, allowed in (("window", window, WINDOWS), ("window_blend", window_blend, WINDOW_BLENDS)):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, but got {value!r}.")
    if not 0 < window_stride <= window_size:
        raise ValueError(
            f"`window_stride` must be between 1 and `window_size` ({window_size}), but got {window_stride}: a "
            "larger step would leave gaps."
        )
    if window_blend == "authors" and window_size % window_stride:
        raise ValueError(
            f"With `window_blend='authors'` the `window_stride` ({window_stride}) must divide the `window_size` "
            f"({window_size}), or the end of an image is not covered."
        )
    if max_aspect_ratio < 1 or max_whole_area < 1:
        raise ValueError(
            "`max_aspect_ratio` and `max_whole_area` must be at least 1, but got "
            f"{max_aspect_ratio} and {max_whole_area}."
        )
    if shortest_edge < window_size:
        raise ValueError(
            f"`size['shortest_edge']` ({shortest_edge}) must be at least `window_size` ({window_size}): an image "
            "fills a window. Set both."
        )


def resized_size(height: int, width: int, shortest_edge: int, max_aspect_ratio: float) -> tuple[int, int]:
    """
    Height and width of an image whose shorter side is resized to `shortest_edge` pixels, and whose longer side to at
    most `max_aspect_ratio` times as many.
    """
    longest_edge = shortest_edge * min(max(height, width) / min(height, width), max_aspect_ratio)
    longest_edge = max(shortest_edge, round(longest_edge))
    return (shortest_edge, longest_edge) if height <= width else (longest_edge, shortest_edge)


def _even_offsets(length: int, side: int, stride: int) -> list[int]:
    """Starts of the fewest evenly spread windows of `side` that cover `length`, at most `stride` apart."""
    steps = max(0, -(-(length - side) // stride))
    return [round(step * (length - side) / steps) for step in range(steps + 1)] if steps else [0]


__all__ = [
    "CLIPCountDensityImageProcessorPil",
    "CLIPCountDensityImagesKwargs",
    "WindowComposite",
    "resized_size",
    "to_rgb",
]
