"""The position of a vision tower's patches in the image that its processor resized and cropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Frame:
    """
    The region of an image that the model's input covers, in the image's pixels; with padding it is larger than the
    image.
    """

    left: float
    top: float
    right: float
    bottom: float
    width: int
    height: int
    """Width and height of the whole image."""

    def scaled(self, width: int, height: int) -> Frame:
        """The same region of the image resized to this width and height."""
        x, y = width / self.width, height / self.height
        return Frame(self.left * x, self.top * y, self.right * x, self.bottom * y, width, height)


def input_frame(image_processor: Any, size: tuple[int, int], input_size: tuple[int, int]) -> Frame:
    """
    The region of an image of `size` (width, height) that became `pixel_values` of `input_size`.

    Raises a `ValueError` unless the processor resizes (the shorter side, or both) and crops the centre, as CLIP's
    does.
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
            f"its middle, to {seen[0]} x {seen[1]}, but its output has {input_size[0]} x {input_size[1]}. Use the "
            "processor of a CLIP."
        )
    left, top = ((resized[axis] - seen[axis]) // 2 for axis in (0, 1))
    x, y = width / resized[0], height / resized[1]
    return Frame(left * x, top * y, (left + seen[0]) * x, (top + seen[1]) * y, width, height)


def _resized(image_processor: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height after resizing, rounded as in transformers."""
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
    """An entry of a processor's size, which is a dictionary or an object."""
    value = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
    return None if value is None else int(value)


def upsample(patches: NDArray[np.floating], frame: Frame) -> NDArray[np.float32]:
    """
    Values of patches `(rows, columns)` interpolated over the image's pixels, `(height, width)`; 0 outside of the
    frame.
    """
    rows, columns = patches.shape
    down = _interpolation(frame.top, frame.bottom, rows, frame.height)
    across = _interpolation(frame.left, frame.right, columns, frame.width)
    return (down @ np.asarray(patches, dtype=np.float64) @ across.T).astype(np.float32)


def _interpolation(start: float, end: float, cells: int, pixels: int) -> NDArray[np.float64]:
    """Weights of cells for the pixels of a line, `(pixels, cells)`; the outer halves of the end cells are constant."""
    centres = np.arange(pixels) + 0.5
    places = np.clip((centres - start) / (end - start) * cells - 0.5, 0, cells - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(cells)))
    return weights * ((centres >= start) & (centres <= end))[:, None]


def box_mask(boxes: ArrayLike, width: int, height: int) -> NDArray[np.bool_]:
    """
    The pixels `(height, width)` whose centre is in one of the boxes `[x0, y0, x1, y1]`; a `ValueError` for other
    boxes.
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
    """The share of each patch `(rows, columns)` that a mask `(height, width)` of the image covers, 0 outside of it."""
    down = _overlap(frame.top, frame.bottom, grid[0], frame.height)
    across = _overlap(frame.left, frame.right, grid[1], frame.width)
    return down @ mask.astype(np.float64) @ across.T


def _overlap(start: float, end: float, cells: int, pixels: int) -> NDArray[np.float64]:
    """The share of each cell of a line that each pixel covers, `(cells, pixels)`."""
    edges = start + (end - start) / cells * np.arange(cells + 1)
    first, last = np.arange(pixels), np.arange(pixels) + 1
    common = np.minimum(edges[1:, None], last) - np.maximum(edges[:-1, None], first)
    return np.maximum(common, 0.0) * cells / (end - start)


__all__ = ["Frame", "box_mask", "coverage", "input_frame", "upsample"]
