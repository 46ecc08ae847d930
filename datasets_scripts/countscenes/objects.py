"""What `countscenes` draws: a few hundred named kinds of objects (colour x pattern x shape) and their sprites."""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter


RGB = tuple[int, int, int]
Point = tuple[float, float]

SPLITS = ("train", "validation", "test")

COLORS: dict[str, RGB] = {
    "red": (214, 32, 38),
    "orange": (247, 138, 22),
    "yellow": (250, 222, 44),
    "green": (38, 150, 58),
    "turquoise": (38, 200, 196),
    "blue": (34, 82, 206),
    "purple": (126, 48, 176),
    "pink": (248, 140, 190),
    "brown": (122, 74, 36),
    "black": (30, 30, 34),
    "white": (246, 246, 246),
    "gray": (136, 138, 142),
}
# What says a colour in the names of things.
COLOR_WORDS = frozenset({*COLORS, "gold", "golden"})
PATTERNS = ("plain", "striped", "dotted", "outlined")

_LIGHT_COLORS = ("yellow", "turquoise", "pink", "white", "orange")


@dataclass(frozen=True)
class ObjectKind:
    """
    One kind of object, as one would name it: a colour, a pattern and a shape.

    Args:
        color (`str`): A key of `COLORS`.
        pattern (`str`): One of `PATTERNS`; `"plain"` goes without saying.
        shape (`str`): A key of `SHAPES`, which is the shape's plural.
    """

    color: str
    pattern: str
    shape: str

    # The two names are asked for at every scene, and there are only some hundred kinds: worth keeping.
    @cached_property
    def plural(self) -> str:
        """`str`: The kind in the plural, for example `"red striped stars"`."""
        return f"{self._adjectives} {self.shape}"

    @cached_property
    def singular(self) -> str:
        """`str`: One of the kind without an article, for example `"red striped star"`."""
        return f"{self._adjectives} {SHAPES[self.shape].singular}"

    @cached_property
    def with_article(self) -> str:
        """`str`: One of the kind with its article, for example `"an orange star"`."""
        return f"{'an' if self.singular[0] in 'aeiou' else 'a'} {self.singular}"

    @property
    def described_plural(self) -> str:
        """`str`: The same as `plural`, which says the colour."""
        return self.plural

    @property
    def main_colors(self) -> tuple[str, ...]:
        """`tuple[str, ...]`: The colour."""
        return (self.color,)

    @cached_property
    def split(self) -> str:
        """`str`: The only split whose scenes show this kind (`"train"`, `"validation"` or `"test"`)."""
        share = int.from_bytes(hashlib.sha256(f"countscenes kind: {self.plural}".encode()).digest()[:4], "big") / 2**32
        return "train" if share < 0.7 else "validation" if share < 0.8 else "test"

    @property
    def _adjectives(self) -> str:
        return self.color if self.pattern == "plain" else f"{self.color} {self.pattern}"

    def is_confusable_with(self, other: "ObjectKind") -> bool:
        """
        Whether one name could be said of both: a red striped star is a red star too.

        Args:
            other (`ObjectKind`): The kind to compare with.

        Returns:
            `bool`: `True` for two kinds of one colour and one shape, whatever their patterns.
        """
        return self.color == other.color and self.shape == other.shape


@dataclass(frozen=True)
class Shape:
    """
    A silhouette, drawn inside the unit circle (x to the right, y down).

    Args:
        singular (`str`):
            The name of one.
        draw (`Callable[[_Pen], None]`):
            Draws the silhouette.
        anchor (`tuple[float, float]`, *optional*, defaults to the middle):
            Where a person would put the dot that marks one object, in the unit circle's frame.
    """

    singular: str
    draw: Callable[["_Pen"], None]
    anchor: Point = (0.0, 0.0)


# The part of a sprite's side that its circle takes. The rest is a transparent margin, so that a turned sprite keeps
# its edges.
SPRITE_REACH = 0.96


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


def _draw_disc(pen: _Pen) -> None:
    pen.disc((0, 0), 0.9)


def _draw_square(pen: _Pen) -> None:
    pen.polygon([(-0.69, -0.69), (0.69, -0.69), (0.69, 0.69), (-0.69, 0.69)])


def _draw_triangle(pen: _Pen) -> None:
    pen.polygon([_around(0.98, degrees) for degrees in (-90, 30, 150)])


def _draw_star(pen: _Pen) -> None:
    pen.polygon([_around(0.99 if tip % 2 == 0 else 0.44, -90 + 36 * tip) for tip in range(10)])


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


def _draw_diamond(pen: _Pen) -> None:
    pen.polygon([(0, -0.99), (0.56, 0), (0, 0.99), (-0.56, 0)])


def _draw_hexagon(pen: _Pen) -> None:
    pen.polygon([_around(0.95, 60 * corner) for corner in range(6)])


def _draw_arrow(pen: _Pen) -> None:
    pen.polygon(
        [(0, -0.98), (0.72, -0.12), (0.27, -0.12), (0.27, 0.93), (-0.27, 0.93), (-0.27, -0.12), (-0.72, -0.12)]
    )


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


SHAPES: dict[str, Shape] = {
    "discs": Shape("disc", _draw_disc),
    "squares": Shape("square", _draw_square),
    "triangles": Shape("triangle", _draw_triangle),
    "stars": Shape("star", _draw_star),
    "hearts": Shape("heart", _draw_heart),
    "crosses": Shape("cross", _draw_cross),
    "rings": Shape("ring", _draw_ring),
    "crescents": Shape("crescent", _draw_crescent, anchor=(-0.52, 0.0)),
    "diamonds": Shape("diamond", _draw_diamond),
    "hexagons": Shape("hexagon", _draw_hexagon),
    "arrows": Shape("arrow", _draw_arrow, anchor=(0.0, -0.2)),
    "drops": Shape("drop", _draw_drop, anchor=(0.0, 0.3)),
    "flowers": Shape("flower", _draw_flower),
    "houses": Shape("house", _draw_house),
}

OBJECT_KINDS: tuple[ObjectKind, ...] = tuple(
    ObjectKind(color, pattern, shape) for color in COLORS for pattern in PATTERNS for shape in SHAPES
)


@cache
def kinds_of_split(split: str) -> tuple[ObjectKind, ...]:
    """
    List the kinds that the scenes of one split show. No kind is in two splits.

    Args:
        split (`str`): `"train"`, `"validation"` or `"test"`.

    Returns:
        `tuple[ObjectKind, ...]`: About 70, 10 and 20 per cent of `OBJECT_KINDS`, in their order there. Every colour,
        pattern and shape is among the train kinds.

    Raises:
        ValueError: If there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"Expected split to be one of {', '.join(SPLITS)}, but got {split!r}. Name one of these.")
    return tuple(kind for kind in OBJECT_KINDS if kind.split == split)


def mix(color: RGB, other: RGB, share: float) -> RGB:
    """
    Blend two colours.

    Args:
        color (`tuple[int, int, int]`): What a share of 0 gives.
        other (`tuple[int, int, int]`): What a share of 1 gives.
        share (`float`): How much of `other`.

    Returns:
        `tuple[int, int, int]`: The blend, in whole numbers of 0-255.
    """
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


# Sides in pixels at which sprites are drawn. An object is made from the next larger one, so no sprite is shrunk by
# much more than a half: as far as bilinear sampling goes without losing detail.
SPRITE_SIDES = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Every pixel of a sprite is the mean of a square of this side.
_SUPERSAMPLING = 4


def draw_sprite(kind: ObjectKind, side: int) -> Image.Image:
    """
    Draw one object upright, anti-aliased, in the colours of its kind with a thin darker rim.

    The rim is what keeps two overlapping objects of one kind apart.

    Args:
        kind (`ObjectKind`): What to draw.
        side (`int`): Side of the sprite in pixels.

    Returns:
        `PIL.Image.Image`: An `"RGBX"` image whose fourth band is the opacity. (In this mode Pillow transforms four
        bands without multiplying the colours by the opacity first and dividing afterwards, which `"RGBA"` costs.)
    """
    fine = side * _SUPERSAMPLING
    pen = _Pen(fine)
    SHAPES[kind.shape].draw(pen)
    body = COLORS[kind.color]
    black, white = (0, 0, 0), (255, 255, 255)
    rim = mix(body, white, 0.45) if kind.color == "black" else mix(body, black, 0.45)
    if kind.color in _LIGHT_COLORS:
        accent = mix(body, black, 0.42 if kind.color == "white" else 0.55)
    else:
        accent = mix(body, white, 0.5 if kind.color == "black" else 0.72)

    # Everything is rim-coloured to begin with: what bilinear sampling picks up just outside the silhouette is rim.
    sprite = Image.new("RGB", (fine, fine), rim)
    inside = _inset(pen.mask, 0.045)
    sprite.paste(body, (0, 0), inside)
    if kind.pattern == "outlined":
        sprite.paste(accent, (0, 0), ImageChops.subtract(inside, _inset(pen.mask, 0.09)))
    elif kind.pattern != "plain":
        sprite.paste(accent, (0, 0), ImageChops.multiply(inside, _pattern_mask(kind.pattern, fine)))
    red, green, blue = sprite.reduce(_SUPERSAMPLING).split()
    return Image.merge("RGBX", (red, green, blue, pen.mask.reduce(_SUPERSAMPLING)))


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


class SpriteCache:
    """
    Keeps the sprites used last, up to a number of bytes.

    Args:
        max_bytes (`int`, *optional*, defaults to 48 MiB): What the kept sprites may take together.
    """

    def __init__(self, max_bytes: int = 48 * 2**20) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._sprites: OrderedDict[tuple[ObjectKind, int], Image.Image] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sprites)

    def clear(self) -> None:
        """Forget all sprites."""
        self._sprites.clear()
        self.num_bytes = 0

    def get(self, kind: ObjectKind, size: float) -> Image.Image:
        """
        Give the sprite from which to make an object.

        Args:
            kind (`ObjectKind`): What to draw.
            size (`float`): Diameter of the object in pixels.

        Returns:
            `PIL.Image.Image`: A sprite of at least that side where there is one so large; see [`draw_sprite`].
        """
        side = next((side for side in SPRITE_SIDES if side >= size), SPRITE_SIDES[-1])
        key = (kind, side)
        sprite = self._sprites.get(key)
        if sprite is None:
            sprite = self._sprites[key] = draw_sprite(kind, side)
            self.num_bytes += 4 * side * side
            while self.num_bytes > self.max_bytes and len(self._sprites) > 1:
                (_, old_side), _ = self._sprites.popitem(last=False)
                self.num_bytes -= 4 * old_side * old_side
        else:
            self._sprites.move_to_end(key)
        return sprite


# One for the process: what it keeps never changes what is drawn.
_SPRITES = SpriteCache()


def clear_sprites() -> None:
    """Forget the sprites that this process keeps; they are drawn anew when needed."""
    _SPRITES.clear()


# Brightness factors that an object may have, as look-up tables for the four bands of a sprite.
_TONES = (0.84, 0.92, 1.0, 1.06, 1.12)
_TONE_TABLES = tuple([min(255, round(value * tone)) for value in range(256)] * 3 + [*range(256)] for tone in _TONES)
NUM_TONES = len(_TONES)


@dataclass(frozen=True)
class ObjectPatch:
    """
    One object, turned and scaled, ready to be pasted.

    Args:
        pixels (`PIL.Image.Image`): `"RGBX"` image of side `n`.
        opacity (`PIL.Image.Image`): `"L"` image of the same side.
        mask (`numpy.ndarray` of shape `(n, n)`): Where the object is rather than is not (opacity of a half or more).
        anchor (`tuple[float, float]`): The point that marks the object, in pixels of the patch.
    """

    pixels: Image.Image
    opacity: Image.Image
    mask: np.ndarray
    anchor: Point


def make_patch(kind: ObjectKind, size: float, degrees: float, tone: int) -> ObjectPatch:
    """
    Turn and scale a sprite.

    Args:
        kind (`ObjectKind`): What to draw.
        size (`float`): Diameter in pixels of the circle that the object fits in.
        degrees (`float`): Clockwise turn.
        tone (`int`): Which of the `NUM_TONES` brightnesses, dark to light.

    Returns:
        `ObjectPatch`: The object on a square just large enough.
    """
    return turn_sprite(_SPRITES.get(kind, size), SHAPES[kind.shape].anchor, size, degrees, tone)


def turn_sprite(
    sprite: Image.Image, anchor: Point, size: float, degrees: float, tone: int, mirrored: bool = False
) -> ObjectPatch:
    """
    Turn and scale any sprite.

    Args:
        sprite (`PIL.Image.Image`): A square `"RGBX"` image whose fourth band is the opacity.
        anchor (`tuple[float, float]`): The point that marks the object, in the unit circle around it.
        size (`float`): Diameter in pixels of the circle that the object fits in.
        degrees (`float`): Clockwise turn.
        tone (`int`): Which of the `NUM_TONES` brightnesses, dark to light.
        mirrored (`bool`, *optional*, defaults to `False`): Whether left and right change places first.

    Returns:
        `ObjectPatch`: The object on a square just large enough.
    """
    side = math.ceil(size)
    cosine, sine = _dyadic(math.cos(math.radians(degrees))), _dyadic(math.sin(math.radians(degrees)))
    scale = sprite.width / size
    a, b = _dyadic(scale * cosine), _dyadic(scale * sine)
    middle, sprite_middle = side / 2, sprite.width / 2
    across = (a, b, sprite_middle - (a + b) * middle)
    if mirrored:
        across = (-a, -b, sprite_middle + (a + b) * middle)
    matrix = (*across, -b, a, sprite_middle - (a - b) * middle)
    pixels = sprite.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    if _TONES[tone] != 1.0:
        pixels = pixels.point(_TONE_TABLES[tone])
    opacity = pixels.getchannel(3)
    reach = size / 2 * SPRITE_REACH
    x, y = anchor
    x = -x if mirrored else x
    marked = (middle + reach * (cosine * x - sine * y), middle + reach * (sine * x + cosine * y))
    shown = np.asarray(opacity)
    # Of a drawing of thin lines, made very small, nothing may be half opaque.
    return ObjectPatch(pixels, opacity, shown >= min(128, max(1, int(shown.max()))), marked)


def _dyadic(value: float) -> float:
    """Round to a multiple of 2**-16: bilinear sampling with such coefficients is exact, so the same everywhere."""
    return round(value * 65536) / 65536
