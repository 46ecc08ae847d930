"""Generated shapes of `countscenes`: a few hundred classes (colour x pattern x shape), which need no files."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .objects import COLORS, RGB, ObjectClass, ObjectSource, check_split, split_of
from .sprites import SPRITE_REACH, SPRITE_SIDES, ImageCache, ObjectPatch, Point, sprite_side, turn_sprite


PATTERNS = ("plain", "striped", "dotted", "outlined")
_LIGHT_COLORS = ("yellow", "turquoise", "pink", "white", "orange")


@dataclass(frozen=True)
class ShapeClass(ObjectClass):
    """A class of shapes: a colour, one of `PATTERNS` (`"plain"` is not part of the name) and a key of `SHAPES`."""

    pattern: str = field(compare=False)
    shape: str = field(compare=False)


def shape_class(color: str, pattern: str, shape: str) -> ShapeClass:
    """Describe the class of a colour (a key of `COLORS`), a pattern (of `PATTERNS`) and a shape (of `SHAPES`)."""
    adjectives = color if pattern == "plain" else f"{color} {pattern}"
    return ShapeClass(
        singular=f"{adjectives} {SHAPES[shape].singular}",
        # A red striped star is a red star, too.
        family=f"{color} {shape}",
        group=shape,
        # The seed decides which classes a model has seen in training: it never changes.
        split=split_of(f"countscenes kind: {adjectives} {shape}", 0.8),
        rgb=COLORS[color],
        coverage=1.0,
        main_colors=(color,),
        pattern=pattern,
        shape=shape,
    )


@dataclass(frozen=True)
class Shape:
    """
    A silhouette, drawn inside the unit circle (x to the right, y down); `anchor` is the point that marks one object.
    """

    singular: str
    draw: Callable[["_Pen"], None]
    anchor: Point = (0.0, 0.0)


class _Pen:
    """Draws in the unit circle's frame on a square mask."""

    def __init__(self, side: int) -> None:
        self.mask = Image.new("L", (side, side))
        self._draw = ImageDraw.Draw(self.mask)
        self._half = side / 2

    def polygon(self, points: Sequence[Point]) -> None:
        self._draw.polygon([self._pixel(point) for point in points], fill=255)

    def disc(self, center: Point, radius: float, fill: int = 255) -> None:
        x, y = center
        self._draw.ellipse([*self._pixel((x - radius, y - radius)), *self._pixel((x + radius, y + radius))], fill=fill)

    def _pixel(self, point: Point) -> tuple[int, int]:
        # Whole numbers: the last bit of a sine differs between machines, and these images must not.
        return (
            round(self._half + self._half * SPRITE_REACH * point[0]),
            round(self._half + self._half * SPRITE_REACH * point[1]),
        )


def _around(radius: float, degrees: float) -> Point:
    angle = math.radians(degrees)
    return radius * math.cos(angle), radius * math.sin(angle)


def _draw_heart(pen: _Pen) -> None:
    curve = []
    for step in range(72):
        t = 2 * math.pi * step / 72
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        curve.append((16 * math.sin(t) ** 3 / 18.5, (-y - 2.5) / 18.5))
    pen.polygon(curve)


def _draw_cross(pen: _Pen) -> None:
    pen.polygon([(-0.29, -0.93), (0.29, -0.93), (0.29, 0.93), (-0.29, 0.93)])
    pen.polygon([(-0.93, -0.29), (0.93, -0.29), (0.93, 0.29), (-0.93, 0.29)])


def _draw_ring(pen: _Pen) -> None:
    pen.disc((0, 0), 0.94)
    pen.disc((0, 0), 0.4, fill=0)


def _draw_crescent(pen: _Pen) -> None:
    pen.disc((0.08, 0), 0.92)
    pen.disc((0.54, 0), 0.74, fill=0)


def _draw_drop(pen: _Pen) -> None:
    pen.disc((0, 0.37), 0.6)
    pen.polygon([(0, -0.99), (0.56, 0.16), (-0.56, 0.16)])


def _draw_flower(pen: _Pen) -> None:
    for petal in range(5):
        pen.disc(_around(0.58, -90 + 72 * petal), 0.4)
    pen.disc((0, 0), 0.4)


def _draw_house(pen: _Pen) -> None:
    pen.polygon([(0, -0.95), (0.9, -0.12), (-0.9, -0.12)])
    pen.polygon([(-0.62, -0.14), (0.62, -0.14), (0.62, 0.76), (-0.62, 0.76)])
    pen.polygon([(0.34, -0.86), (0.62, -0.86), (0.62, -0.2), (0.34, -0.2)])


def _polygon(singular: str, corners: Sequence[Point], anchor: Point = (0.0, 0.0)) -> Shape:
    return Shape(singular, lambda pen: pen.polygon(corners), anchor)


_ARROW = [(0, -0.98), (0.72, -0.12), (0.27, -0.12), (0.27, 0.93), (-0.27, 0.93), (-0.27, -0.12), (-0.72, -0.12)]
SHAPES: dict[str, Shape] = {
    "discs": Shape("disc", lambda pen: pen.disc((0, 0), 0.9)),
    "squares": _polygon("square", [(-0.69, -0.69), (0.69, -0.69), (0.69, 0.69), (-0.69, 0.69)]),
    "triangles": _polygon("triangle", [_around(0.98, degrees) for degrees in (-90, 30, 150)]),
    "stars": _polygon("star", [_around(0.44 if tip % 2 else 0.99, -90 + 36 * tip) for tip in range(10)]),
    "hearts": Shape("heart", _draw_heart),
    "crosses": Shape("cross", _draw_cross),
    "rings": Shape("ring", _draw_ring),
    "crescents": Shape("crescent", _draw_crescent, anchor=(-0.52, 0.0)),
    "diamonds": _polygon("diamond", [(0, -0.99), (0.56, 0), (0, 0.99), (-0.56, 0)]),
    "hexagons": _polygon("hexagon", [_around(0.95, 60 * corner) for corner in range(6)]),
    "arrows": _polygon("arrow", _ARROW, anchor=(0.0, -0.2)),
    "drops": Shape("drop", _draw_drop, anchor=(0.0, 0.3)),
    "flowers": Shape("flower", _draw_flower),
    "houses": Shape("house", _draw_house),
}


@cache
def shape_classes() -> tuple[ShapeClass, ...]:
    """List the classes of all splits, about 70 % train, 10 % validation and 20 % test."""
    return tuple(shape_class(color, pattern, shape) for color in COLORS for pattern in PATTERNS for shape in SHAPES)


class Shapes(ObjectSource):
    """The source of generated shapes."""

    version = "1.0.0"
    has_looks = False

    def classes(self, split: str) -> Sequence[ShapeClass]:
        """List the classes of a split."""
        return _classes_of_split(split)

    def patch(self, object_class: ShapeClass, size: float, degrees: float, tone: int, look: int) -> ObjectPatch:
        """Draw an object. Objects of one class have one look."""
        side = sprite_side(size)
        sprite = _SPRITES.get((object_class, side), lambda: draw_sprite(object_class, side))
        return turn_sprite(sprite, SHAPES[object_class.shape].anchor, size, degrees, tone)


@cache
def _classes_of_split(split: str) -> tuple[ShapeClass, ...]:
    check_split(split)
    return tuple(one for one in shape_classes() if one.split == split)


# One cache a process: it does not change what is drawn.
_SPRITES = ImageCache(48 * 2**20)
# Every pixel of a sprite is the mean of a square of this side.
_SUPERSAMPLING = 4


def clear_sprites() -> None:
    """Remove the sprites of this process from memory."""
    _SPRITES.clear()


def draw_sprite(object_class: ShapeClass, side: int) -> Image.Image:
    """
    Draw one object upright, anti-aliased, in its colour, on a square of `side` pixels.

    A thin darker rim keeps two overlapping objects of one class apart. The fourth band of the `"RGBX"` image is the
    opacity. (In this mode Pillow transforms four bands without multiplying the colours by the opacity first and
    dividing afterwards, which `"RGBA"` costs.)
    """
    fine = side * _SUPERSAMPLING
    pen = _Pen(fine)
    SHAPES[object_class.shape].draw(pen)
    color, body, pattern = object_class.color, object_class.rgb, object_class.pattern
    black, white = (0, 0, 0), (255, 255, 255)
    rim = _mix(body, white, 0.45) if color == "black" else _mix(body, black, 0.45)
    if color in _LIGHT_COLORS:
        accent = _mix(body, black, 0.42 if color == "white" else 0.55)
    else:
        accent = _mix(body, white, 0.5 if color == "black" else 0.72)

    # Everything starts in the rim's colour, which is what bilinear sampling mixes in from outside the silhouette.
    sprite = Image.new("RGB", (fine, fine), rim)
    inside = _inset(pen.mask, 0.045)
    sprite.paste(body, (0, 0), inside)
    if pattern == "outlined":
        sprite.paste(accent, (0, 0), ImageChops.subtract(inside, _inset(pen.mask, 0.09)))
    elif pattern != "plain":
        sprite.paste(accent, (0, 0), ImageChops.multiply(inside, _pattern_mask(pattern, fine)))
    red, green, blue = sprite.reduce(_SUPERSAMPLING).split()
    return Image.merge("RGBX", (red, green, blue, pen.mask.reduce(_SUPERSAMPLING)))


def _mix(color: RGB, other: RGB, share: float) -> RGB:
    """Blend two colours; `share` is that of `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def _inset(mask: Image.Image, depth: float) -> Image.Image:
    """Shrink a silhouette by `depth` (share of the side), by blurring and cutting: at a straight edge, that far."""
    radius = max(1, round(depth * mask.width))
    # At `depth` inside a straight edge nearly all of the blur's window is inside.
    shrunk = mask.filter(ImageFilter.BoxBlur(radius)).point([255 if value >= 243 else 0 for value in range(256)])
    return ImageChops.multiply(shrunk, mask)


@lru_cache(maxsize=2 * len(SPRITE_SIDES))
def _pattern_mask(pattern: str, side: int) -> Image.Image:
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    if pattern == "striped":
        for band in range(4):
            top = round(side * (0.15 + 0.2 * band))
            draw.rectangle([0, top, side, top + round(side * 0.09)], fill=255)
    elif pattern == "dotted":
        radius = round(side * 0.058)
        for row in range(-3, 4):
            for column in range(-3, 4):
                x = round(side * (0.5 + 0.2 * (column + (row % 2) / 2)))
                y = round(side * (0.5 + 0.173 * row))
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    return mask
