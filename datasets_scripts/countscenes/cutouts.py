"""
Cut-outs of your own for `countscenes`: a folder of images with transparency, or photographs with outlines.

- `FOLDER/CLASS/*.png` (or WebP, TIFF, GIF): a folder for each kind of thing, named as one would say it in the singular
  (`wine_glass`), with any number of images of one each, transparent around it. Where there are folders
  `FOLDER/train`, `FOLDER/validation` and `FOLDER/test`, the classes in each are those of the split.
- `FOLDER/instances.json` and `FOLDER/images`: COCO's annotations. Every object that is outlined by one polygon, lies
  whole in its photograph and is 24 pixels or more across is cut out of it.

Unless the folder says which split a class belongs to, no class is in two splits.
"""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..builders.base import folder_fingerprint
from ..captions.plurals import plural_of
from ..files.atomic import write_json
from ..files.checks import existing_folder
from ..files.image_sources import DECODER_ERRORS
from ..formats.coco import coco_splits, read_coco
from .backgrounds import backgrounds_against, nearest_color
from .objects import RGB, SPLITS, SPRITE_REACH, ObjectPatch, Point
from .photos import warn_of
from .sprites import SpriteStore, sprite_folder, sprite_patch, stretch_of


logger = logging.getLogger(__name__)

_SUFFIXES = (".png", ".webp", ".tif", ".tiff", ".gif", ".jpg", ".jpeg", ".bmp")
# With fewer pixels across, one sees no thing; of photographs, which are less clear, one wants more.
_LEAST_SIDE = 16
_LEAST_OUTLINED_SIDE = 24
# Where an image is measured: the side of the sprite.
_MEASURED_SIDE = 96
# All sprites of one side together: enough for some thousand of them.
_MAX_PACK_BYTES = 128 * 2**20
# Raise it when something else is cut out of the same files.
_CODE = 1
_SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class Cutout:
    """
    One thing that can be cut out.

    Args:
        file (`str`): The image, relative to the folder.
        polygons (`list[list[float]]`): Outlines of its parts, x0, y0, x1, y1, ..., or none where the image's own
            opacity tells.
        box (`tuple[int, int, int, int]`): What of the image is needed: left, top, right, bottom.
        circle (`tuple[float, float, float]`): The circle around it, x, y and radius in the box.
        anchor (`tuple[float, float]`): The point that marks it, in the unit circle around it.
        rgb (`tuple[int, int, int]`): Its mean colour.
        coverage (`float`): How much of the circle it covers, 0-1.
    """

    file: str
    polygons: list[list[float]]
    box: tuple[int, int, int, int]
    circle: tuple[float, float, float]
    anchor: Point
    rgb: RGB
    coverage: float


@dataclass(frozen=True)
class CutoutKind:
    """
    One class of cut-outs.

    Args:
        singular (`str`): What one is called, without an article.
        split (`str`): The split whose scenes show it.
        first (`int`): The place of its first cut-out among all.
        looks (`tuple[Cutout, ...]`): Its cut-outs.
    """

    singular: str
    split: str
    first: int = field(compare=False)
    looks: tuple[Cutout, ...] = field(compare=False, repr=False)

    @cached_property
    def plural(self) -> str:
        """`str`: What several are called."""
        return plural_of(self.singular)

    @cached_property
    def with_article(self) -> str:
        """`str`: What one is called, with its article."""
        return f"{'an' if self.singular[0].lower() in 'aeiou' else 'a'} {self.singular}"

    @property
    def described_plural(self) -> str:
        """`str`: The same as `plural`: cut-outs of one class may have any colours."""
        return self.plural

    @property
    def main_colors(self) -> tuple[str, ...]:
        """`tuple[str, ...]`: None."""
        return ()

    @cached_property
    def rgb(self) -> RGB:
        """`tuple[int, int, int]`: The mean colour of all."""
        red, green, blue = (sum(look.rgb[band] for look in self.looks) // len(self.looks) for band in range(3))
        return red, green, blue

    @cached_property
    def coverage(self) -> float:
        """`float`: How much of the circles around them they cover, on average."""
        return sum(look.coverage for look in self.looks) / len(self.looks)

    def is_confusable_with(self, other: "CutoutKind") -> bool:
        """Whether they have one name."""
        return self.plural == other.plural


class Cutouts:
    """
    Gives the classes of a folder and cuts them out; see `scene_sources.ObjectSource`.

    Args:
        folder (`str`): The folder; see the top of this file.

    Attributes:
        faults (`list[str]`): What was left out, and why, a line each.

    Raises:
        FileNotFoundError: If there is no such folder, or a photograph is missing from it.
        ValueError: If the folder holds nothing to cut out, or its annotations are malformed.
    """

    version = "2.0.0"
    has_looks = True

    def __init__(self, folder: str) -> None:
        self.folder = existing_folder(folder)
        classes, self.faults = _scan(self.folder)
        if not classes:
            why = f" What was left out: {'; '.join(self.faults[:5])}." if self.faults else ""
            raise ValueError(
                f"Expected images of things to cut out in {self.folder}, but found none.{why} Put a folder for each "
                "kind of thing there, with PNG images that are transparent around it, or COCO annotations with "
                "polygons (instances.json) and their photographs (images)."
            )
        warn_of(self.faults, self.folder)
        self._kinds: list[CutoutKind] = []
        self._cutouts: list[Cutout] = []
        for name, split, looks in classes:
            self._kinds.append(CutoutKind(name, split, len(self._cutouts), tuple(looks)))
            self._cutouts += looks
        key = _key(self.folder)
        self._sprites = SpriteStore(key, len(self._cutouts), self._draw, max_pack_bytes=_MAX_PACK_BYTES)
        self._opened: tuple[str, Image.Image] | None = None

    def check(self) -> None:
        """Everything is checked when the folder is read."""

    def kinds(self, split: str) -> Sequence[CutoutKind]:
        """
        List the classes of a split.

        Raises:
            ValueError: If there is no such split, or it has no class.
        """
        if split not in SPLITS:
            raise ValueError(f"Expected split to be one of {', '.join(SPLITS)}, but got {split!r}. Name one of these.")
        kinds = tuple(kind for kind in self._kinds if kind.split == split)
        if not kinds:
            raise ValueError(
                f"Expected classes for the split {split!r} in {self.folder}, but its {len(self._kinds)} are all in "
                "other splits, for no class is in two. Add classes, or say which belong to which split with folders "
                "train, validation and test."
            )
        return kinds

    def is_similar(self, kind: CutoutKind, model: CutoutKind, by_color: bool) -> bool:
        """Whether a kind has the colour of another; nothing else is known of them."""
        return not by_color or nearest_color(kind.rgb) == nearest_color(model.rgb)

    def backgrounds(self, kinds: Sequence[CutoutKind]) -> tuple[str, ...]:
        """The backgrounds on which some kinds stand out."""
        return backgrounds_against(tuple(kind.rgb for kind in kinds))

    def stretch(self, kind: CutoutKind) -> float:
        """How much larger the circle around thin things is than that around others of the same size."""
        return stretch_of(kind.coverage)

    def patch(self, kind: CutoutKind, size: float, degrees: float, tone: int, look: int) -> ObjectPatch:
        """One object: one of the class's images, mirrored or not."""
        place = (look >> 1) % len(kind.looks)
        sprite = self._sprites.get(kind.first + place, size)
        return sprite_patch(sprite, kind.looks[place].anchor, size, degrees, tone, mirrored=bool(look & 1))

    def _draw(self, place: int, side: int) -> Image.Image:
        cutout = self._cutouts[place]
        # Those of one class in one photograph follow each other: it is read once for them.
        if self._opened is None or self._opened[0] != cutout.file:
            self._opened = (cutout.file, _read_image(self.folder / cutout.file))
        return _sprite(_cut(self._opened[1], cutout.polygons, cutout.box), cutout.circle, side)


@lru_cache(maxsize=8)
def cutouts_of(folder: str) -> Cutouts:
    """
    Read a folder of cut-outs once.

    Args:
        folder (`str`): The folder.

    Returns:
        `Cutouts`: What is in it.
    """
    return Cutouts(folder)


_Classes = list[tuple[str, str, list[Cutout]]]


def _key(folder: Path) -> str:
    """What to call what is kept of one state of a folder."""
    return f"cutouts{_CODE}-{folder_fingerprint(folder)[:24]}"


def _scan(folder: Path) -> tuple[_Classes, list[str]]:
    """All classes of a folder with their cut-outs, and what was left out; read once for one state of the folder."""
    kept = sprite_folder() / f"{_key(folder)}.json"
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
        classes = [(name, split, [_cutout(entry) for entry in looks]) for name, split, looks in content["classes"]]
        return classes, list(content["faults"])
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or cut short: the folder is read
        pass
    faults: list[str] = []
    found = _coco_classes(folder, faults) if coco_splits(folder) or (folder / "instances.json").is_file() else None
    classes = _with_splits(found) if found is not None else _folder_classes(folder, faults)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            kept,
            {
                "classes": [[name, split, [asdict(look) for look in looks]] for name, split, looks in classes],
                "faults": faults,
            },
        )
    except OSError as error:
        logger.warning(f"What is in {folder} cannot be kept in {kept.parent} ({error}); each process reads it anew.")
    return classes, faults


def _cutout(entry: dict[str, Any]) -> Cutout:
    """A cut-out as json has it."""
    tuples = {name: tuple(entry[name]) for name in ("box", "circle", "anchor", "rgb")}
    return Cutout(**{**entry, **tuples})


def _with_splits(found: dict[str, list[Cutout]]) -> _Classes:
    """
    Divide classes among the splits: 70, 15 and 15 per cent, in an order that depends on their names only.

    Of three classes or more each split has one at least.
    """
    order = sorted(found, key=lambda name: hashlib.sha256(f"countscenes class: {name}".encode()).digest())
    number = len(order)
    num_held_out = max(1, round(0.15 * number)) if number >= 3 else 0
    splits = dict.fromkeys(order[:num_held_out], "test")
    splits |= dict.fromkeys(order[num_held_out : 2 * num_held_out], "validation")
    return [(name, splits.get(name, "train"), found[name]) for name in sorted(found)]


def _folder_classes(folder: Path, faults: list[str]) -> _Classes:
    """The classes of a folder with images, which may say their splits."""
    given = {
        split: [folder / name for name in names if (folder / name).is_dir()] for split, names in _SPLIT_FOLDERS.items()
    }
    if not any(given.values()):
        return _with_splits(_shown_classes(folder, folder, faults))
    return [
        (name, split, looks)
        for split, places in given.items()
        for place in places
        for name, looks in sorted(_shown_classes(folder, place, faults).items())
    ]


def _shown_classes(folder: Path, place: Path, faults: list[str]) -> dict[str, list[Cutout]]:
    found: dict[str, list[Cutout]] = {}
    for below in sorted(place.iterdir()):
        if not below.is_dir() or below.name.startswith("."):
            continue
        for file in sorted(below.rglob("*")):
            if file.suffix.lower() not in _SUFFIXES or not file.is_file():
                continue
            name = file.relative_to(folder).as_posix()
            if not file.resolve().is_relative_to(folder):
                faults.append(f"{name} leads out of the folder")
                continue
            try:
                image = _read_image(file)
                box = _opaque_box(image)
                cutout = _measured(name, [], box, _cut(image, [], box))
            except DECODER_ERRORS as error:
                faults.append(f"{name}: {error}")
                continue
            found.setdefault(_said(below.name), []).append(cutout)
    return found


def _said(name: str) -> str:
    """A folder's name as one would say it."""
    return " ".join(name.replace("_", " ").split())


def _coco_classes(folder: Path, faults: list[str]) -> dict[str, list[Cutout]]:
    """Everything with polygons in COCO's annotations."""
    splits: list[str | None] = [None] if (folder / "instances.json").is_file() else list(coco_splits(folder))
    wanted: dict[str, list[tuple[str, list[list[float]]]]] = {}
    for split in splits:
        for row in read_coco(folder, split, names=_said, polygons=True):
            file = Path(row["image"]).resolve().relative_to(folder).as_posix()
            for outlines in row["polygons"]:
                # Seen in one piece: what something hides the middle of has several outlines.
                if len(outlines) == 1:
                    wanted.setdefault(file, []).append((row["text"], outlines))
    found: dict[str, list[Cutout]] = {}
    for file, objects in sorted(wanted.items()):
        try:
            image = _read_image(folder / file)
        except DECODER_ERRORS as error:
            faults.append(f"{file}: {error}")
            continue
        for name, outlines in objects:
            box = _outline_box(outlines, image.size)
            if box is None:
                continue
            try:
                cutout = _measured(file, outlines, box, _cut(image, outlines, box))
            except ValueError:  # an outline without an inside
                continue
            found.setdefault(name, []).append(cutout)
    return found


def _outline_box(outlines: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The box of an outlined thing, or none where its photograph cuts it off or it is too small to be seen."""
    xs = [x for outline in outlines for x in outline[::2]]
    ys = [y for outline in outlines for y in outline[1::2]]
    left, top, right, bottom = math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)), math.ceil(max(ys))
    width, height = size
    if (
        left < 1
        or top < 1
        or right > width - 1
        or bottom > height - 1
        or min(right - left, bottom - top) < _LEAST_SIDE
    ):
        return None
    return left, top, right, bottom


def _read_image(file: Path) -> Image.Image:
    with Image.open(file) as opened:
        return opened.convert("RGBA")


def _opaque_box(image: Image.Image) -> tuple[int, int, int, int]:
    """Where an image is opaque."""
    opacity = image.getchannel("A")
    if opacity.getextrema()[0] == 255:
        raise ValueError("nothing in it is transparent, so there is nothing to cut out")
    box = opacity.point([255 if value >= 128 else 0 for value in range(256)]).getbbox()
    if box is None:
        raise ValueError("all of it is transparent")
    left, top, right, bottom = box
    if max(right - left, bottom - top) < _LEAST_SIDE:
        raise ValueError(f"the thing in it is {right - left} x {bottom - top} pixels, which is too small to be seen")
    return left, top, right, bottom


def _cut(image: Image.Image, polygons: Sequence[Sequence[float]], box: tuple[int, int, int, int]) -> Image.Image:
    """Cut a thing out: RGBA, of the box's size."""
    piece = image.crop(box)
    if not polygons:
        return piece
    fine = 4
    mask = Image.new("L", (piece.width * fine, piece.height * fine))
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        corners = zip(polygon[::2], polygon[1::2], strict=True)
        draw.polygon([(round((x - box[0]) * fine), round((y - box[1]) * fine)) for x, y in corners], fill=255)
    piece.putalpha(mask.reduce(fine))
    return piece


def _measured(file: str, polygons: list[list[float]], box: tuple[int, int, int, int], piece: Image.Image) -> Cutout:
    """Find the circle around a thing, the point that marks it, its colour, and how much of the circle it covers."""
    rows, columns = np.nonzero(np.asarray(piece.getchannel("A")) >= 128)
    if len(rows) < _LEAST_SIDE:
        raise ValueError("hardly anything in it is opaque")
    x = (int(columns.min()) + int(columns.max()) + 1) / 2
    y = (int(rows.min()) + int(rows.max()) + 1) / 2
    radius = math.sqrt(float(((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2).max())) + 0.5
    circle = (x, y, radius)
    side = _MEASURED_SIDE
    sprite = _sprite(piece, circle, side)
    opacity = sprite.getchannel("A")
    mask = np.asarray(opacity) >= 128
    red, green, blue = (int(value) for value in np.asarray(sprite)[mask][:, :3].mean(axis=0))
    # The point nearest to the middle of its pixels that is well inside it.
    inside = np.asarray(opacity.filter(ImageFilter.MinFilter(7))) >= 128
    rows, columns = np.nonzero(inside if inside.any() else mask)
    middle_row, middle_column = (float(place.mean()) for place in np.nonzero(mask))
    nearest = int(np.argmin((rows - middle_row) ** 2 + (columns - middle_column) ** 2))
    reach = side / 2 * SPRITE_REACH
    anchor = ((columns[nearest] + 0.5 - side / 2) / reach, (rows[nearest] + 0.5 - side / 2) / reach)
    coverage = float(mask.sum()) / (math.pi * reach * reach)
    return Cutout(file, polygons, box, circle, (float(anchor[0]), float(anchor[1])), (red, green, blue), coverage)


def _sprite(piece: Image.Image, circle: tuple[float, float, float], side: int) -> Image.Image:
    """Scale a thing so that the circle around it fills a square but for a thin margin."""
    x, y, radius = circle
    half = math.ceil(radius / SPRITE_REACH) + 1
    square = Image.new("RGBA", (2 * half, 2 * half))
    left, top = half - round(x), half - round(y)
    square.paste(piece, (left, top))
    reach = radius / SPRITE_REACH
    middle_x, middle_y = x + left, y + top
    corners = (middle_x - reach, middle_y - reach, middle_x + reach, middle_y + reach)
    left_edge, top_edge, right_edge, bottom_edge = (min(max(corner, 0.0), 2.0 * half) for corner in corners)
    box = (left_edge, top_edge, right_edge, bottom_edge)
    return square.resize((side, side), Image.Resampling.BILINEAR, box=box)
