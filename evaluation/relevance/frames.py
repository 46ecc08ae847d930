"""Where in an image the patches of a vision tower lie, after its processor has resized and cropped it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Frame:
    """
    The part of an image that a model sees, in the image's own pixels (the first pixel reaches from 0 to 1).

    It may reach beyond the image where the processor pads.
    """

    left: float
    top: float
    right: float
    bottom: float
    width: int
    """Of the whole image."""
    height: int
    """Of the whole image."""

    def scaled(self, width: int, height: int) -> Frame:
        """The same part of the image in another size."""
        x, y = width / self.width, height / self.height
        return Frame(self.left * x, self.top * y, self.right * x, self.bottom * y, width, height)


def input_frame(image_processor: Any, size: tuple[int, int], input_size: tuple[int, int]) -> Frame:
    """
    Find which part of an image becomes the model's input.

    Args:
        image_processor ([`CLIPImageProcessor`]): Resizes (the shorter side, or both) and crops in the middle.
        size (`tuple[int, int]`): Width and height of the image.
        input_size (`tuple[int, int]`): Width and height of the `pixel_values` that it became.

    Returns:
        [`Frame`].

    Raises:
        ValueError: If the processor does something else with images.
    """
    width, height = resized = size
    if _option(image_processor, "do_resize"):
        resized = _resized(image_processor, size)
    seen = resized
    if _option(image_processor, "do_center_crop"):
        crop = _option(image_processor, "crop_size")
        seen = (_edge(crop, "width") or 0, _edge(crop, "height") or 0)
    if seen != input_size:
        raise ValueError(
            f"Expected {type(image_processor).__name__} to resize an image of {width} x {height} pixels and to crop "
            f"its middle, to {seen[0]} x {seen[1]}, but it made {input_size[0]} x {input_size[1]} of it: where its "
            "pixels come from is unknown. Use the processor of a CLIP."
        )
    left, top = ((resized[axis] - seen[axis]) // 2 for axis in (0, 1))
    x, y = width / resized[0], height / resized[1]
    return Frame(left * x, top * y, (left + seen[0]) * x, (top + seen[1]) * y, width, height)


def _resized(image_processor: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height after resizing, rounded as transformers does it."""
    target = _option(image_processor, "size")
    shortest, longest = _edge(target, "shortest_edge"), _edge(target, "longest_edge")
    width, height = _edge(target, "width"), _edge(target, "height")
    if shortest and not longest:
        longer = int(shortest * max(size) / min(size))
        return (shortest, longer) if size[0] <= size[1] else (longer, shortest)
    if width and height:
        return width, height
    raise ValueError(
        f"Expected {type(image_processor).__name__} to resize to a `shortest_edge` or to `height` and `width`, but "
        f"its `size` is {target}. Use the processor of a CLIP."
    )


def _option(image_processor: Any, name: str) -> Any:
    return getattr(image_processor, name, None)


def _edge(size: Any, name: str) -> int | None:
    """One entry of a processor's size, which is a dictionary or an object."""
    value = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
    return None if value is None else int(value)


def upsample(patches: NDArray[np.floating], frame: Frame) -> NDArray[np.float32]:
    """
    Spread the values of patches over the image's own pixels.

    Args:
        patches (array of shape `(rows, columns)`): A value for each patch.
        frame ([`Frame`]): What the patches divide.

    Returns:
        array of shape `(height, width)`: At the middle of a patch its value, between middles in a straight line, and 0
        where the model did not look.
    """
    rows, columns = patches.shape
    down = _interpolation(frame.top, frame.bottom, rows, frame.height)
    across = _interpolation(frame.left, frame.right, columns, frame.width)
    return (down @ np.asarray(patches, dtype=np.float64) @ across.T).astype(np.float32)


def _interpolation(start: float, end: float, cells: int, pixels: int) -> NDArray[np.float64]:
    """What each cell gives to each pixel of a line, `(pixels, cells)`; the half cells at the ends keep their value."""
    centres = np.arange(pixels) + 0.5
    places = np.clip((centres - start) / (end - start) * cells - 0.5, 0, cells - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(cells)))
    return weights * ((centres >= start) & (centres <= end))[:, None]


def box_mask(boxes: ArrayLike, width: int, height: int) -> NDArray[np.bool_]:
    """
    The pixels whose middle lies in one of the boxes.

    Args:
        boxes (array of shape `(num_boxes, 4)`): `[x0, y0, x1, y1]` in the image's pixels.
        width (`int`): Of the image.
        height (`int`): Of the image.

    Returns:
        array of shape `(height, width)`.

    Raises:
        ValueError: If the boxes are not rows of four finite numbers.
    """
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((height, width), dtype=bool)
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise ValueError(f"Expected boxes [[x0, y0, x1, y1], ...] of finite numbers, but got shape {array.shape}.")
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    mask = np.zeros((height, width), dtype=bool)
    for x0, y0, x1, y1 in array:
        mask |= ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
    return mask


def coverage(mask: NDArray[np.bool_], frame: Frame, grid: Sequence[int]) -> NDArray[np.float64]:
    """
    How much of each patch a mask covers.

    Args:
        mask (array of shape `(height, width)`): Of the image's own pixels.
        frame ([`Frame`]): What the patches divide.
        grid (`Sequence[int]`): Rows and columns of patches.

    Returns:
        array of shape `(rows, columns)`: From 0 to 1; what lies beyond the image is not covered.
    """
    down = _overlap(frame.top, frame.bottom, grid[0], frame.height)
    across = _overlap(frame.left, frame.right, grid[1], frame.width)
    return down @ mask.astype(np.float64) @ across.T


def _overlap(start: float, end: float, cells: int, pixels: int) -> NDArray[np.float64]:
    """Which part of each cell of a line each pixel takes, `(cells, pixels)`."""
    edges = start + (end - start) / cells * np.arange(cells + 1)
    first, last = np.arange(pixels), np.arange(pixels) + 1
    common = np.minimum(edges[1:, None], last) - np.maximum(edges[:-1, None], first)
    return np.maximum(common, 0.0) * cells / (end - start)


__all__ = ["Frame", "box_mask", "coverage", "input_frame", "upsample"]
