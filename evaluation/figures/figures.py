"""Figures of results: density on photographs, confusion matrices, contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageOps

from count_clip.modeling.images import open_image, to_rgb

from ..functional import as_points
from .style import Font, font_of, heat_colours, shorten, text_size, wrap


Box = tuple[int, int, int, int]  # left, top, right, bottom

_PLATE = (18, 18, 22)
_INK = (255, 255, 255)
_PAPER = (250, 250, 248)
_PRINT = (28, 28, 32)
_FAINT = (120, 120, 128)
_SHEET = (44, 44, 50)

_SMALLEST_SIDE = 320
_STRIP_PIXELS = 2_000_000
# Sides of the square, in pixels of the image, whose objects the scale counts; the first is the usual one.
_BAR_SQUARES = (100, 10, 1, 1000)


def _box_blur(values: NDArray[np.float32], radius: int, axis: int) -> NDArray[np.float32]:
    """A running mean along an axis; the edges are mirrored, so that the sum stays."""
    width = 2 * radius + 1
    moved = np.moveaxis(values, axis, 0)
    sums = np.cumsum(np.pad(moved, [(radius + 1, radius), (0, 0)], mode="symmetric"), axis=0, dtype=np.float64)
    return np.moveaxis((sums[width:] - sums[:-width]) / width, 0, axis).astype(np.float32)


def _soften(density: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Blur a density (three running means are nearly a Gaussian), so that single pixels are visible."""
    for axis in (0, 1):
        reach = min(radius, density.shape[axis])
        for _ in range(3 if reach else 0):
            density = _box_blur(density, reach, axis)
    return np.maximum(density, 0.0)


def _as_density(density_map: Any) -> NDArray[np.float32]:
    """A tensor or array as a checked density map."""
    if hasattr(density_map, "detach"):
        density_map = density_map.detach().float().cpu().numpy()
    density = np.asarray(density_map, dtype=np.float32)
    if density.ndim != 2:
        raise ValueError(f"Expected a density map of shape (height, width), but got shape {density.shape}.")
    if not np.isfinite(density).all():
        raise ValueError("Expected a density map of finite numbers, but it holds NaN or infinity.")
    if density.size and density.min() < 0:
        raise ValueError(
            f"Expected objects per pixel, but the density map has values down to {density.min():g}. Clip "
            "values that are a little below zero first: `np.clip(density_map, 0, None)`."
        )
    return density


def kept_brightness(photo: Image.Image) -> float:
    """The share of its brightness that a photograph keeps under the heat, more for a dark one."""
    mean = float(np.asarray(photo.convert("L").resize((64, 64), Image.Resampling.BOX), dtype=np.float32).mean())
    return float(np.clip(1.0 - 0.38 * mean / 90, 0.62, 1.0))


def blend(base: Image.Image, strength: NDArray[np.float32], opacity: float, brightness: float = 0.62) -> Image.Image:
    """Lay heat colours over a darkened photograph, in strips so that a huge image needs little memory."""
    table = heat_colours()
    width, height = base.size
    out = Image.new("RGB", base.size)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        photo = np.asarray(base.crop((0, top, width, bottom)), dtype=np.float32)
        grey = photo @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        quiet = (0.45 * photo + 0.55 * grey[..., None]) * brightness  # (H, W, 3)
        strip = strength[top:bottom]
        # The square root makes weak density visible; the threshold hides numerical noise.
        alpha = opacity * np.sqrt(np.clip((strip - 0.02) / 0.98, 0.0, 1.0))[..., None]
        heat = table[np.minimum(strip * 255, 255).astype(np.uint8)]
        mixed = quiet * (1 - alpha) + heat * alpha
        out.paste(Image.fromarray((mixed + 0.5).astype(np.uint8)), (0, top))
    return out


def _draw_points(canvas: Image.Image, points: NDArray[np.float64], radius: float) -> None:
    """Small white discs with a dark rim, all from one stamp."""
    rim = max(1.0, radius * 0.4)
    half = math.ceil(radius + rim) + 1
    times = 8
    stamp = Image.new("RGBA", ((2 * half + 1) * times,) * 2, (*_PLATE, 0))
    centre = (half + 0.5) * times
    draw = ImageDraw.Draw(stamp)
    for reach, colour in ((radius + rim, (*_PLATE, 235)), (radius, (*_INK, 255))):
        edge = reach * times
        draw.ellipse((centre - edge, centre - edge, centre + edge, centre + edge), fill=colour)
    stamp = stamp.resize((2 * half + 1,) * 2, Image.Resampling.BOX)
    for x, y in points:
        canvas.paste(stamp, (math.floor(x) - half, math.floor(y) - half), stamp)


def _plate(canvas: Image.Image, box: Box, radius: int) -> None:
    """A dark, slightly transparent plate with round corners, the background of text."""
    width, height = box[2] - box[0], box[3] - box[1]
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), radius=radius, fill=205)
    canvas.paste(Image.new("RGB", (width, height), _PLATE), box[:2], mask)


def _number(value: float) -> str:
    """A number with about three digits."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}".rstrip("0").rstrip(".") if digits <= 6 else f"{value:.1e}"


def _emptiest(
    covered: NDArray[np.float32], size: tuple[int, int], margin: int, preferred: int, taken: Box | None
) -> Box:
    """
    The corner where a plate hides least of the density and does not overlap `taken`; `preferred` unless another hides
    clearly less.
    """
    height, width = covered.shape
    boxes: list[tuple[float, Box]] = []
    for corner in [preferred, *(other for other in range(4) if other != preferred)]:
        left = margin if corner % 2 == 0 else max(0, width - margin - size[0])
        top = margin if corner < 2 else max(0, height - margin - size[1])
        box = (left, top, left + size[0], top + size[1])
        if taken and not (box[2] <= taken[0] or taken[2] <= box[0] or box[3] <= taken[1] or taken[3] <= box[1]):
            continue
        boxes.append((float(covered[top : box[3], left : box[2]].sum()), box))
    if not boxes:  # a thin figure, whose sheet has space in the wished corner
        return (margin, margin, margin + size[0], margin + size[1])
    least = min(hidden for hidden, _ in boxes)
    return next(box for hidden, box in boxes if hidden <= 1.5 * least + 0.02 * size[0] * size[1])


def _label_size(label: str, font: Font, size: float) -> tuple[int, int]:
    """Width and height of a label with its plate."""
    width, height = text_size(font, label)
    pad = round(size * 0.5)
    return width + 2 * pad, height + 2 * pad


def _draw_label(canvas: Image.Image, label: str, box: Box, size: float) -> None:
    """The label on its plate."""
    _plate(canvas, box, round(size * 0.35))
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    ImageDraw.Draw(canvas).text(middle, label, fill=_INK, font=font_of(size), anchor="mm")


def _bar_square(top_value: float, size: tuple[int, int]) -> int:
    """Side of the square whose objects the scale counts: one that fits in the image and gives readable numbers."""
    fitting = [side for side in _BAR_SQUARES if side <= min(size)]
    readable = [side for side in fitting if 0.01 <= top_value * side**2 < 1000]
    return (readable or fitting)[0]


def _bar_title(square: int) -> str:
    """Title of the scale."""
    return "objects per pixel" if square == 1 else f"objects per {square} x {square} px"


def _bar_size(size: float) -> tuple[int, int]:
    """Width and height of the colour bar with its plate, for a label of a given size."""
    small = size * 0.72
    widest = max(text_size(font_of(small), _bar_title(square))[0] for square in _BAR_SQUARES)
    width = max(round(size * 11), widest + round(size))
    return width, round(size * 0.35 * 2 + small * 2.6 + size * 0.55)


def _draw_bar(
    canvas: Image.Image, top_value: float, clipped: bool, square: int, box: Box, size: float, opacity: float
) -> None:
    """The colour bar with its scale, in objects per square of so many pixels a side."""
    small = font_of(size * 0.72)
    left, top, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    pad = round(size * 0.45)
    _plate(canvas, (left, top, left + width, top + height), round(size * 0.35))
    draw = ImageDraw.Draw(canvas)
    line = text_size(small, "A")[1]
    title = shorten(_bar_title(square), small, width - 2 * pad)
    draw.text((left + width / 2, top + pad * 0.7 + line / 2), title, fill=_INK, font=small, anchor="mm")
    bar_width, bar_height = width - 2 * pad, max(3, round(size * 0.5))
    bar_top = round(top + pad * 0.7 + line * 1.25)
    ramp = np.linspace(0, 1, max(bar_width, 1), dtype=np.float32)[None].repeat(bar_height, axis=0)
    # Blended as the map is, over a middle grey, so that the colours are the same.
    bar = blend(Image.new("RGB", (ramp.shape[1], ramp.shape[0]), (110, 110, 110)), ramp, opacity)
    canvas.paste(bar, (left + pad, bar_top))
    ends = round(bar_top + bar_height + line * 0.75)
    draw.text((left + pad, ends), "0", fill=_INK, font=small, anchor="lm")
    top_text = _number(top_value * square**2) + ("+" if clipped else "")
    draw.text((left + width - pad, ends), top_text, fill=_INK, font=small, anchor="rm")


def draw_density(
    image: Any,
    density_map: Any,
    points: ArrayLike | None = None,
    text: str | None = None,
    count: float | None = None,
    *,
    max_density: float | None = None,
    opacity: float = 0.92,
    color_bar: bool = True,
    max_side: int = 4096,
) -> Image.Image:
    """
    Draw a density map over its photograph, with the count, the points and a scale.

    The photograph is darkened (a dark one less) and the density drawn over it in colours from violet (little) to pale
    yellow (much), more opaque where it is denser. The density is blurred by about half a percent of the shorter side,
    without changing its sum, because objects of three pixels would be invisible in a large photograph. A map that sums
    to less than half an object stays dark, so that an empty image looks empty. Label and scale are in the upper left
    and the lower right corner, or in another one where they hide less.

    Args:
        image (path, `PIL.Image.Image`, array or tensor): The image, of any size and mode.
        density_map (array or tensor of shape `(height, width)`): Objects per pixel, of the image's own size. An
            image with an EXIF rotation is turned first, as it was for counting.
        points (array of shape `(num_points, 2)`, *optional*): Objects' places `[x, y]` in the image's pixels.
        text (`str`, *optional*): The prompt, for the label.
        count (`float`, *optional*): The count for the label; by default the sum of the map.
        max_density (`float`, *optional*): Objects per pixel at the bright end, for several figures of one scale; by
            default the map's 99.9th percentile among the pixels that are not empty.
        opacity (`float`): Opacity of the densest pixels, 0 to 1.
        color_bar (`bool`): Whether to draw the scale, in objects per square of 100 x 100 pixels of the image, or
            another power of ten if that does not fit or the numbers would be unreadable. A `+` at its bright end means
            that some pixels are denser.
        max_side (`int`): The longer side of larger images is reduced to this.

    Returns:
        `PIL.Image.Image`: An RGB figure of the image's size, unless that is above `max_side` or too small for a label
        (then it is enlarged by a whole factor, and a thin one gets a margin).

    Raises:
        ValueError: If the image cannot be read, the map's size is not the image's, the map has values below zero,
            or something holds NaN.
    """
    density = _as_density(density_map)
    image = to_rgb(open_image(image))
    if density.shape != (image.height, image.width):
        raise ValueError(
            f"Expected a density map of the image's size, height {image.height} and width {image.width}, but got "
            f"{density.shape[0]} and {density.shape[1]}. Draw it on the image that it was made from, as "
            "`post_process_density` returns it."
        )
    places = as_points([] if points is None else points, "points")
    if max_density is not None and not max_density > 0:
        raise ValueError(f"Expected `max_density` above zero, but got {max_density}.")
    if not 0 <= opacity <= 1:
        raise ValueError(f"Expected `opacity` between 0 and 1, but got {opacity}.")
    total = float(density.sum(dtype=np.float64))
    photo, scale = resize_to_draw(image, _SMALLEST_SIDE, max_side)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    # The values of the resized map are still objects per pixel of the image.
    resized = np.asarray(Image.fromarray(density).resize(photo.size, how), dtype=np.float32)
    drawn = _soften(resized, round(min(photo.size) * 0.0035))
    top_value = _bright_end(drawn, total) if max_density is None else float(max_density)
    strength = np.clip(drawn / top_value, 0.0, 1.0) if top_value > 0 else np.zeros_like(drawn)
    size = photo.size
    type_size = float(np.clip(min(max(min(size), 240), max(size) * 0.6) * 0.045, 13, 72))
    margin = round(type_size * 0.5)
    bar = _bar_size(type_size) if color_bar else (0, 0)
    canvas, offset = _on_sheet(blend(photo, strength, opacity, kept_brightness(photo)), bar, type_size, margin)
    covered = np.zeros((canvas.height, canvas.width), dtype=np.float32)
    covered[offset[1] : offset[1] + size[1], offset[0] : offset[0] + size[0]] = strength
    if len(places):
        spacing = math.sqrt(size[0] * size[1] / len(places))
        radius = float(np.clip(min(min(size) * 0.0045, spacing * 0.1), 1.2, 10))
        _draw_points(canvas, places * scale + np.array(offset), radius)
    font = font_of(type_size)
    label = _label(text, total if count is None else float(count), font, canvas.width - 2 * margin - round(type_size))
    label_box = _emptiest(covered, _label_size(label, font, type_size), margin, 0, None)
    if color_bar:
        clipped = bool(top_value > 0 and drawn.max() > top_value * 1.001)
        bar_box = _emptiest(covered, bar, margin, 3, label_box)
        square = _bar_square(top_value, image.size)
        _draw_bar(canvas, top_value, clipped, square, bar_box, type_size, opacity)
    _draw_label(canvas, label, label_box, type_size)
    return canvas


def resize_to_draw(photo: Image.Image, smallest_side: int, max_side: int) -> tuple[Image.Image, float]:
    """A photograph in a size to draw on (a small one enlarged by a whole factor), and the factor."""
    longer = max(photo.size)
    scale = min(1.0, max_side / longer) if longer >= smallest_side else float(math.ceil(smallest_side / longer))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    if photo.size != size:
        photo = photo.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS, reducing_gap=2)
    return photo, scale


def _bright_end(drawn: NDArray[np.float32], total: float) -> float:
    """Objects per pixel at the bright end of the scale, for a map that sums to `total`."""
    filled = drawn[drawn > 1e-3 * drawn.max()] if drawn.max() > 0 else drawn[:0]
    top_value = float(np.quantile(filled, 0.999)) if filled.size else 0.0
    return top_value * (0.5 / total) ** 2 if 0 < total < 0.5 else top_value


def _on_sheet(
    canvas: Image.Image, bar: tuple[int, int], type_size: float, margin: int
) -> tuple[Image.Image, tuple[int, int]]:
    """The figure, if it is small on a sheet with space for label and scale above and below; and its position there."""
    label_height = round(type_size * 2.6)
    needed = (max(bar[0], round(type_size * 8)) + 2 * margin, label_height + bar[1] + 2 * margin)
    if canvas.width >= needed[0] and canvas.height >= needed[1]:
        return canvas, (0, 0)
    above, below = label_height + margin, bar[1] + 2 * margin if bar[1] else 0
    width = max(canvas.width, needed[0])
    sheet = Image.new("RGB", (width, above + canvas.height + below), _SHEET)
    offset = ((width - canvas.width) // 2, above)
    sheet.paste(canvas, offset)
    return sheet, offset


def _label(text: str | None, count: float, font: Font, width: int) -> str:
    """Prompt and count; the prompt is cut to fit."""
    number = f"{count:,.0f}" if abs(count) >= 1000 else f"{count:.1f}"
    if not text:
        return number
    number = f": {number}"
    return shorten(" ".join(text.split()), font, width - text_size(font, number)[0]) + number


def draw_confusion_matrix(matrix: ArrayLike, labels: Sequence[Any], *, title: str | None = None) -> Image.Image:
    """
    Draw how often each number was predicted (columns) for each true number (rows), a matrix of numbers of images.

    The colour of a cell is its share of the row, so that numbers with few images are as visible as others. Raises a
    `ValueError` if the matrix is not square with one row per label, or holds NaN or something below zero.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = np.asarray(matrix, dtype=np.float64)
    if values.shape != (len(labels), len(labels)) or not len(labels):
        raise ValueError(
            f"Expected a matrix with a row and a column for each of {len(labels)} labels, but got {values.shape}."
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("Expected a matrix of finite numbers, none below zero.")
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-9)
    side = 1.5 + 0.5 * len(labels)  # inches
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), [str(label) for label in labels])
    axes.set_yticks(range(len(labels)), [str(label) for label in labels])
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(title or "", parse_math=False, wrap=True)
    for row, column in np.argwhere(values):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, _number(values[row, column]), ha="center", va="center", color=colour)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    columns: int = 6,
    *,
    cell: int = 224,
    caption_lines: int = 2,
) -> Image.Image:
    """
    Draw images of any size and mode on one sheet, each resized to fit into a cell of so many pixels, with captions.

    Captions longer than `caption_lines` are cut with an ellipsis. Raises a `ValueError` if there is no image, captions
    and images differ in number, or an option is below 1.
    """
    if not len(images):
        raise ValueError("Expected at least one image for the sheet, but got none.")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"Expected one caption per image, but got {len(captions)} for {len(images)} images.")
    if columns < 1 or cell < 1 or caption_lines < 1:
        raise ValueError(
            f"Expected `columns`, `cell` and `caption_lines` above zero, but got {columns}, {cell}, {caption_lines}."
        )
    columns = min(columns, len(images))
    gap = max(2, round(cell * 0.05))
    font = font_of(max(10, cell * 0.068))
    line = round(text_size(font, "A")[1] * 1.25)
    wrapped = [wrap(caption, font, cell, caption_lines) for caption in captions] if captions is not None else []
    text_height = (max(len(lines) for lines in wrapped) * line + gap // 2) if wrapped else 0
    rows = math.ceil(len(images) / columns)
    step_x, step_y = cell + gap, cell + text_height + gap
    figure = Image.new("RGB", (gap + columns * step_x, gap + rows * step_y), _PAPER)
    draw = ImageDraw.Draw(figure)
    for index, image in enumerate(images):
        x, y = gap + index % columns * step_x, gap + index // columns * step_y
        thumb = ImageOps.contain(to_rgb(image), (cell, cell), Image.Resampling.LANCZOS)
        figure.paste(thumb, (x + (cell - thumb.width) // 2, y + (cell - thumb.height) // 2))
        for number, words in enumerate(wrapped[index] if wrapped else []):
            draw.text((x, y + cell + gap // 2 + number * line), words, fill=_PRINT, font=font)
    return figure


__all__ = ["blend", "contact_sheet", "draw_confusion_matrix", "draw_density", "kept_brightness", "resize_to_draw"]
