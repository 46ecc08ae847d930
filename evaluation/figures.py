"""Pictures of results, with Pillow and NumPy alone: density on photographs, confusion matrices, contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from .pictures import to_rgb


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = tuple[int, int, int, int]  # left, top, right, bottom

# The heat colours, dark to bright: lightness rises in even steps (in OKLab) while the hue goes from violet over red to
# yellow, so that "brighter" always means "more", in grey print and to colour-blind eyes too.
_HEAT_ANCHORS = ("#4a1a8c", "#8f1d9b", "#d1306f", "#f4653a", "#fca428", "#fdf0a0")
_SHEET_ANCHORS = ("#f6f7f9", "#cfdfee", "#93bddd", "#4b8fc4", "#1f5f9f", "#0b2f63")

_PLATE = (18, 18, 22)
_INK = (255, 255, 255)
_PAPER = (250, 250, 248)
_PRINT = (28, 28, 32)
_FAINT = (120, 120, 128)

_SMALLEST_SIDE = 320
_STRIP_PIXELS = 2_000_000
_BAR_TITLE = "objects per 100 x 100 px"


def _oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB in 0..1 to OKLab (Ottosson, 2020), where equal steps look equal."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear @ to_cones.T) @ to_lab.T


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab back to sRGB in 0..1."""
    from_lab = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    from_cones = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ from_lab.T) ** 3 @ from_cones.T, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@lru_cache(maxsize=8)
def _colour_table(anchors: tuple[str, ...]) -> NDArray[np.float32]:
    """256 colours through a few anchors, spaced so that lightness grows evenly. Shape `(256, 3)`, 0..255."""
    rgb = np.array([[int(anchor[i : i + 2], 16) / 255 for i in (1, 3, 5)] for anchor in anchors])
    lab = _oklab(rgb)
    lightness = lab[:, 0]
    order = 1 if lightness[-1] > lightness[0] else -1
    wanted = np.linspace(lightness[0], lightness[-1], 256)
    table = np.stack([np.interp(order * wanted, order * lightness, lab[:, channel]) for channel in range(3)], axis=1)
    return (_srgb(table) * 255).astype(np.float32)


def _font(size: float) -> Font:
    """The font that Pillow carries, at a size in pixels."""
    return ImageFont.load_default(size=max(6, round(size)))


def _text_size(font: Font, text: str) -> tuple[int, int]:
    """Width of a text, and the line height of its font, in pixels."""
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Äg")
    return math.ceil(right - left), math.ceil(bottom - top)


def _shorten(text: str, font: Font, width: int) -> str:
    """Cut a text, with an ellipsis, to what fits in a width."""
    if _text_size(font, text)[0] <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        if _text_size(font, text[:middle].rstrip() + "...")[0] <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "..."


def _wrap(text: str, font: Font, width: int, max_lines: int) -> list[str]:
    """Break a text into lines that fit in a width; what does not fit in the last one is cut."""
    words, lines = text.split(), [""]
    for index, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _text_size(font, longer)[0] <= width:
            lines[-1] = longer
        elif len(lines) < max_lines:
            lines.append(word)
        else:
            lines[-1] = " ".join([lines[-1], *words[index:]])
            break
    return [_shorten(line, font, width) for line in lines]


def _box_blur(values: NDArray[np.float32], radius: int, axis: int) -> NDArray[np.float32]:
    """One running mean along an axis; what is at the edge is mirrored, so that the sum stays."""
    padding = [(0, 0), (0, 0)]
    padding[axis] = (radius, radius)
    padded = np.pad(values, padding, mode="symmetric").astype(np.float64)
    sums = np.cumsum(padded, axis=axis)
    width, length = 2 * radius + 1, values.shape[axis]
    upper = np.take(sums, range(width - 1, width - 1 + length), axis=axis)
    lower = np.concatenate(
        [np.zeros_like(np.take(sums, [0], axis=axis)), np.take(sums, range(length - 1), axis=axis)], axis=axis
    )
    return ((upper - lower) / width).astype(np.float32)


def _soften(density: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Spread a density a little (three running means are nearly a Gaussian), so that single pixels can be seen."""
    for axis in (0, 1):
        reach = min(radius, density.shape[axis])
        for _ in range(3 if reach else 0):
            density = _box_blur(density, reach, axis)
    return np.maximum(density, 0.0)


def _as_density(density_map: Any) -> NDArray[np.float32]:
    """A tensor or array as a checked map."""
    if hasattr(density_map, "detach"):
        density_map = density_map.detach().float().cpu().numpy()
    density = np.asarray(density_map, dtype=np.float32)
    if density.ndim != 2:
        raise ValueError(f"Expected a density map of shape (height, width), but got shape {density.shape}.")
    if not np.isfinite(density).all():
        raise ValueError("Expected a density map of finite numbers, but it holds NaN or infinity.")
    return density


def _as_points(points: Any) -> NDArray[np.float64]:
    """Points as an array of shape `(num_points, 2)`."""
    array = np.asarray([] if points is None else points, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 2))
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise ValueError(f"Expected points [[x, y], ...] of finite numbers, but got an array of shape {array.shape}.")
    return array


def _resize_map(density: NDArray[np.float32], size: tuple[int, int], enlarge: bool) -> NDArray[np.float32]:
    """Bring a map to the size it is drawn in; its values stay objects per pixel of the picture."""
    if (density.shape[1], density.shape[0]) == size:
        return density
    how = Image.Resampling.NEAREST if enlarge else Image.Resampling.BOX
    return np.asarray(Image.fromarray(density).resize(size, how), dtype=np.float32)


def _blend(base: Image.Image, strength: NDArray[np.float32], opacity: float) -> Image.Image:
    """Lay heat colours over a subdued photograph, in strips so that a huge picture needs little memory."""
    table = _colour_table(_HEAT_ANCHORS)
    width, height = base.size
    out = Image.new("RGB", base.size)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        photo = np.asarray(base.crop((0, top, width, bottom)), dtype=np.float32)
        grey = photo @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        quiet = (0.45 * photo + 0.55 * grey[..., None]) * 0.62  # (H, W, 3)
        part = strength[top:bottom]
        # The square root lifts weak density enough to be seen; the threshold keeps numerical dust off the picture.
        alpha = opacity * np.sqrt(np.clip((part - 0.02) / 0.98, 0.0, 1.0))[..., None]
        heat = table[np.minimum(part * 255, 255).astype(np.uint8)]
        mixed = quiet * (1 - alpha) + heat * alpha
        out.paste(Image.fromarray((mixed + 0.5).astype(np.uint8)), (0, top))
    return out


def _draw_points(canvas: Image.Image, points: NDArray[np.float64], radius: float) -> None:
    """Small white discs with a dark rim, smooth, all from one stamp."""
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
    """A dark, slightly transparent plate with round corners for text to stand on."""
    width, height = box[2] - box[0], box[3] - box[1]
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), radius=radius, fill=205)
    canvas.paste(Image.new("RGB", (width, height), _PLATE), box[:2], mask)


def _number(value: float) -> str:
    """A number of three digits or so, as one would write it."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}".rstrip("0").rstrip(".") if digits <= 6 else f"{value:.1e}"


def _emptiest(covered: NDArray[np.float32], size: tuple[int, int], margin: int, wish: int, taken: Box | None) -> Box:
    """
    The corner where a plate hides least of the density; another than the wished one only if it hides clearly less.

    Corners are numbered upper left, upper right, lower left, lower right. Where the other plate is, none can be put.
    """
    height, width = covered.shape
    boxes: list[tuple[float, Box]] = []
    for corner in [wish, *(other for other in range(4) if other != wish)]:
        left = margin if corner % 2 == 0 else max(0, width - margin - size[0])
        top = margin if corner < 2 else max(0, height - margin - size[1])
        box = (left, top, left + size[0], top + size[1])
        if taken and not (box[2] <= taken[0] or taken[2] <= box[0] or box[3] <= taken[1] or taken[3] <= box[1]):
            continue
        boxes.append((float(covered[top : box[3], left : box[2]].sum()), box))
    if not boxes:  # a thin figure; the margins were made so that the wished corner is free
        return (margin, margin, margin + size[0], margin + size[1])
    least = min(hidden for hidden, _ in boxes)
    return next(box for hidden, box in boxes if hidden <= 1.5 * least + 0.02 * size[0] * size[1])


def _label_size(label: str, font: Font, size: float) -> tuple[int, int]:
    """Width and height of a label with its plate."""
    width, height = _text_size(font, label)
    pad = round(size * 0.5)
    return width + 2 * pad, height + 2 * pad


def _draw_label(canvas: Image.Image, label: str, box: Box, size: float) -> None:
    """The label on its plate."""
    _plate(canvas, box, round(size * 0.35))
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    ImageDraw.Draw(canvas).text(middle, label, fill=_INK, font=_font(size), anchor="mm")


def _bar_size(size: float) -> tuple[int, int]:
    """Width and height of the colour bar with its plate, for a label of a given size."""
    small = size * 0.72
    width = max(round(size * 11), _text_size(_font(small), _BAR_TITLE)[0] + round(size))
    return width, round(size * 0.35 * 2 + small * 2.6 + size * 0.55)


def _draw_bar(canvas: Image.Image, top_value: float, clipped: bool, box: Box, size: float, opacity: float) -> None:
    """The colour bar with its scale."""
    small = _font(size * 0.72)
    left, top, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    pad = round(size * 0.45)
    _plate(canvas, (left, top, left + width, top + height), round(size * 0.35))
    draw = ImageDraw.Draw(canvas)
    line = _text_size(small, _BAR_TITLE)[1]
    title = _shorten(_BAR_TITLE, small, width - 2 * pad)
    draw.text((left + width / 2, top + pad * 0.7 + line / 2), title, fill=_INK, font=small, anchor="mm")
    bar_width, bar_height = width - 2 * pad, max(3, round(size * 0.5))
    bar_top = round(top + pad * 0.7 + line * 1.25)
    ramp = np.linspace(0, 1, max(bar_width, 1), dtype=np.float32)[None].repeat(bar_height, axis=0)
    # The bar goes through the same mixing as the map, over a middle grey, so that its ends look as they do there.
    bar = _blend(Image.new("RGB", (ramp.shape[1], ramp.shape[0]), (110, 110, 110)), ramp, opacity)
    canvas.paste(bar, (left + pad, bar_top))
    ends = round(bar_top + bar_height + line * 0.75)
    draw.text((left + pad, ends), "0", fill=_INK, font=small, anchor="lm")
    top_text = _number(top_value * 1e4) + ("+" if clipped else "")
    draw.text((left + width - pad, ends), top_text, fill=_INK, font=small, anchor="rm")


def draw_density(
    image: Image.Image,
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
    Show where a count comes from: the density over its photograph, with the count, the points and a scale.

    The photograph is quietened, and the density laid over it in colours from violet (little) to pale yellow (much),
    the more opaque the denser. Density is spread by about half a percent of the shorter side first, because a map
    that has each object in three pixels would not be seen in a large photograph; the sum does not change. A map that
    sums to less than half an object stays away from the bright end, so an empty picture looks empty. Label and scale
    stand in the upper left and the lower right corner, or in another that has less to hide.

    Args:
        image (`PIL.Image.Image`): The picture, of any size and mode.
        density_map (array or tensor of shape `(height, width)`): Objects per pixel, of the picture's own size.
        points (array of shape `(num_points, 2)`, *optional*): Objects' places `[x, y]` in the picture's pixels.
        text (`str`, *optional*): What was counted; stands in the label.
        count (`float`, *optional*): The count for the label. Left out, it is the sum of the map.
        max_density (`float`, *optional*): Objects per pixel at the bright end, to give several figures one scale.
            Left out, it is the map's 99.9th percentile among the pixels that hold something.
        opacity (`float`): Of the densest place, 0 to 1.
        color_bar (`bool`): Whether to draw the scale, in objects per 100 x 100 pixels of the picture.
        max_side (`int`): A longer side above this many pixels is drawn smaller.

    Returns:
        `PIL.Image.Image`: An RGB figure of the picture's size, unless that is above `max_side` or so small that a
        label could not be read on it (then it is enlarged by a whole factor, and a thin one gets a margin).

    Raises:
        ValueError: If the map's size is not the picture's, or something holds NaN.
    """
    density = _as_density(density_map)
    if density.shape != (image.height, image.width):
        raise ValueError(
            f"Expected a density map of the picture's size, height {image.height} and width {image.width}, but got "
            f"{density.shape[0]} and {density.shape[1]}. Draw it on the picture that it was made from, as "
            "`post_process_density` returns it."
        )
    places = _as_points(points)
    if max_density is not None and not max_density > 0:
        raise ValueError(f"Expected `max_density` above zero, but got {max_density}.")
    if not 0 <= opacity <= 1:
        raise ValueError(f"Expected `opacity` between 0 and 1, but got {opacity}.")
    total = float(density.sum(dtype=np.float64))
    longer = max(image.size)
    scale = min(1.0, max_side / longer)
    if longer < _SMALLEST_SIDE:
        scale = float(math.ceil(_SMALLEST_SIDE / longer))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    photo = to_rgb(image)
    if photo.size != size:
        photo = photo.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS, reducing_gap=2)
    drawn = _resize_map(np.maximum(density, 0.0), size, enlarge=scale > 1)
    drawn = _soften(drawn, round(min(size) * 0.0035))

    filled = drawn[drawn > 1e-3 * drawn.max()] if drawn.max() > 0 else drawn[:0]
    if max_density is None:
        top_value = float(np.quantile(filled, 0.999)) if filled.size else 0.0
        if 0 < total < 0.5:
            top_value *= (0.5 / total) ** 2
    else:
        top_value = float(max_density)
    strength = np.clip(drawn / top_value, 0.0, 1.0) if top_value > 0 else np.zeros_like(drawn)
    canvas = _blend(photo, strength, opacity)

    type_size = float(np.clip(min(max(min(size), 240), max(size) * 0.6) * 0.045, 13, 72))
    margin = round(type_size * 0.5)
    bar = _bar_size(type_size) if color_bar else (0, 0)
    said = total if count is None else float(count)
    shown = f"{said:,.0f}" if abs(said) >= 1000 else f"{said:.1f}"
    needed = (max(bar[0], round(type_size * 8)) + 2 * margin, round(type_size * 2.6) + bar[1] + 2 * margin)
    canvas_size = (max(canvas.width, needed[0]), max(canvas.height, needed[1]))
    offset = ((canvas_size[0] - canvas.width) // 2, (canvas_size[1] - canvas.height) // 2)
    covered = np.zeros((canvas_size[1], canvas_size[0]), dtype=np.float32)
    covered[offset[1] : offset[1] + size[1], offset[0] : offset[0] + size[0]] = strength
    if canvas_size != canvas.size:
        sheet = Image.new("RGB", canvas_size, (44, 44, 50))
        sheet.paste(canvas, offset)
        canvas = sheet
    if len(places):
        spacing = math.sqrt(size[0] * size[1] / len(places))
        radius = float(np.clip(min(min(size) * 0.0045, spacing * 0.1), 1.2, 10))
        _draw_points(canvas, places * scale + np.array(offset), radius)
    font = _font(type_size)
    room = canvas.width - 2 * margin - 2 * round(type_size * 0.5)
    number = f": {shown}"
    label = _shorten(text, font, room - _text_size(font, number)[0]) + number if text else shown
    label_box = _emptiest(covered, _label_size(label, font, type_size), margin, 0, None)
    if color_bar:
        clipped = bool(top_value > 0 and drawn.max() > top_value * 1.001)
        bar_box = _emptiest(covered, bar, margin, 3, label_box)
        _draw_bar(canvas, top_value, clipped, bar_box, type_size, opacity)
    _draw_label(canvas, label, label_box, type_size)
    return canvas


def draw_confusion_matrix(
    matrix: ArrayLike, labels: Sequence[Any], *, title: str | None = None, cell: int = 56
) -> Image.Image:
    """
    Show which number was said for which: a row per true number, a column per number said.

    A cell's colour is its part of its row (white none, dark blue all), so that numbers with many pictures do not
    outshine those with few; the count of pictures stands in it.

    Args:
        matrix (array of shape `(num_labels, num_labels)`): Pictures, none below zero.
        labels (`Sequence`): What the rows and columns are.
        title (`str`, *optional*): A line above.
        cell (`int`): Side of a cell in pixels.

    Returns:
        `PIL.Image.Image`: An RGB figure.

    Raises:
        ValueError: If the matrix is not square with one row per label, or holds NaN or something below zero.
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.shape != (len(labels), len(labels)) or not len(labels):
        raise ValueError(
            f"Expected a matrix with a row and a column for each of {len(labels)} labels, but got {values.shape}."
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("Expected a matrix of finite numbers, none below zero.")
    names = [str(label) for label in labels]
    font, small, heading = _font(cell * 0.34), _font(cell * 0.27), _font(cell * 0.36)
    widest = max(_text_size(font, name)[0] for name in names)
    gap = round(cell * 0.25)
    line = _text_size(font, "0")[1]
    left = gap + line + gap + widest + gap
    top = gap + (round(_text_size(heading, "A")[1] * 1.7) if title else 0) + line + gap + line + gap
    side = cell * len(names)
    figure = Image.new("RGB", (left + side + gap * 2, top + side + gap * 2), _PAPER)
    draw = ImageDraw.Draw(figure)
    if title:
        draw.text((left, gap), _shorten(title, heading, side + gap), fill=_PRINT, font=heading, anchor="lt")
    draw.text((left + side / 2, top - 2 * gap - line * 1.5), "number said", fill=_FAINT, font=font, anchor="mm")
    upright = Image.new("L", (side, line * 2), 0)
    ImageDraw.Draw(upright).text((side / 2, line), "true number", fill=255, font=font, anchor="mm")
    turned = upright.rotate(90, expand=True)
    figure.paste(Image.new("RGB", turned.size, _FAINT), (gap - line // 2, top), turned)
    table = _colour_table(_SHEET_ANCHORS)
    sums = values.sum(axis=1)
    for row, name in enumerate(names):
        centre = top + (row + 0.5) * cell
        draw.text((left - gap, centre), name, fill=_PRINT, font=font, anchor="rm")
        draw.text((left + (row + 0.5) * cell, top - gap - line / 2), name, fill=_PRINT, font=font, anchor="mm")
        for column in range(len(names)):
            value = values[row, column]
            part = value / sums[row] if sums[row] else 0.0
            colour = tuple(int(channel) for channel in table[round(part * 255)])
            x, y = left + column * cell, top + row * cell
            draw.rectangle((x + 1, y + 1, x + cell - 2, y + cell - 2), fill=colour)
            if value:
                ink = _INK if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140 else _PRINT
                said = _shorten(_number(value), small, cell - 6)
                draw.text((x + cell / 2, y + cell / 2), said, fill=ink, font=small, anchor="mm")
        # The diagonal is what is right: a rim marks it where the colour does not.
        x, y = left + row * cell, top + row * cell
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=_PRINT, width=1)
    return figure


def contact_sheet(
    images: Sequence[Image.Image],
    captions: Sequence[str] | None = None,
    columns: int = 6,
    *,
    cell: int = 224,
    caption_lines: int = 2,
) -> Image.Image:
    """
    Put many pictures with their captions on one sheet.

    Args:
        images (`Sequence[PIL.Image.Image]`): Pictures of any size and mode; each is fitted whole into its cell.
        captions (`Sequence[str]`, *optional*): One for each picture.
        columns (`int`): Pictures beside each other.
        cell (`int`): Side of a cell in pixels.
        caption_lines (`int`): Lines that a caption may take; what is longer is cut with an ellipsis.

    Returns:
        `PIL.Image.Image`: An RGB figure.

    Raises:
        ValueError: If there is no picture, captions and pictures differ in number, or an option is below 1.
    """
    if not len(images):
        raise ValueError("Expected at least one picture for the sheet, but got none.")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"Expected one caption per picture, but got {len(captions)} for {len(images)} pictures.")
    if columns < 1 or cell < 1 or caption_lines < 1:
        raise ValueError(
            f"Expected `columns`, `cell` and `caption_lines` above zero, but got {columns}, {cell}, {caption_lines}."
        )
    columns = min(columns, len(images))
    gap = max(2, round(cell * 0.05))
    font = _font(max(10, cell * 0.068))
    line = round(_text_size(font, "A")[1] * 1.25)
    wrapped = [_wrap(caption, font, cell, caption_lines) for caption in captions] if captions is not None else []
    text_height = (max(len(lines) for lines in wrapped) * line + gap // 2) if wrapped else 0
    rows = math.ceil(len(images) / columns)
    step_x, step_y = cell + gap, cell + text_height + gap
    figure = Image.new("RGB", (gap + columns * step_x, gap + rows * step_y), _PAPER)
    draw = ImageDraw.Draw(figure)
    for index, image in enumerate(images):
        x, y = gap + index % columns * step_x, gap + index // columns * step_y
        scale = cell / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
        thumb = to_rgb(image).resize(size, how, reducing_gap=2)
        figure.paste(thumb, (x + (cell - size[0]) // 2, y + (cell - size[1]) // 2))
        for number, words in enumerate(wrapped[index] if wrapped else []):
            draw.text((x, y + cell + gap // 2 + number * line), words, fill=_PRINT, font=font)
    return figure


__all__ = ["contact_sheet", "draw_confusion_matrix", "draw_density"]
