"""
Cut-outs of your own for `countscenes`: a folder of images with transparency, or photographs with outlines.

- `FOLDER/CLASS/*.png` (or WebP, TIFF, GIF): a folder for each class, named in the singular (`wine_glass`), with any
  number of images of one object each, transparent around it. Classes in the folders `FOLDER/train`,
  `FOLDER/validation` and `FOLDER/test`, if there are any, belong to that split.
- `FOLDER/instances.json` and `FOLDER/images`: COCO's annotations. Every object that is outlined by one polygon, whole
  in its photograph and at least 16 pixels across is cut out of it.

Unless the folder defines the splits, no class is in two splits.
"""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..builders.base import folder_fingerprint
from ..captions.plurals import plural_of
from ..files.atomic import write_json
from ..files.checks import existing_folder
from ..files.images import DECODER_ERRORS, IMAGE_SUFFIXES
from ..formats.coco import coco_splits, read_coco
from .objects import RGB, ObjectClass, ObjectSource, check_split
from .photos import left_out, warn_of
from .sprites import SPRITE_REACH, ObjectPatch, Point, SpriteStore, sprite_folder, sprite_patch


logger = logging.getLogger(__name__)

# With fewer pixels across, an object cannot be recognised.
_LEAST_SIDE = 16
# The side of the sprite on which a cut-out is measured.
_MEASURED_SIDE = 96
# All sprites of one side together: enough for some thousand of them.
_MAX_PACK_BYTES = 128 * 2**20
# Raise it when something else is cut out of the same files.
_CODE = 1
_SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}

_Box = tuple[int, int, int, int]
_Outlines = list[list[float]]


@dataclass(frozen=True)
class Cutout:
    """
    One object that can be cut out.

    Args:
        file (`str`): The image, relative to the folder.
        polygons (`list[list[float]]`): Its outlines, x0, y0, x1, y1, ..., or none if the image has an alpha channel.
        box (`tuple[int, int, int, int]`): The box of the object in the image: left, top, right, bottom.
        circle (`tuple[float, float, float]`): The circle around it, x, y and radius in the box.
        anchor (`tuple[float, float]`): The point that marks it, in the unit circle around it.
        rgb (`tuple[int, int, int]`): Its mean colour.
        coverage (`float`): The share of the circle that it covers, 0-1.
    """

    file: str
    polygons: _Outlines
    box: _Box
    circle: tuple[float, float, float]
    anchor: Point
    rgb: RGB
    coverage: float


@dataclass(frozen=True)
class CutoutClass(ObjectClass):
    """A class of cut-outs (`looks`), of which the first has the index `first` among all."""

    first: int = field(compare=False)
    looks: tuple[Cutout, ...] = field(compare=False, repr=False)


def _cutout_class(name: str, split: str, first: int, looks: Sequence[Cutout]) -> CutoutClass:
    """Describe a class: the mean colour and coverage of its cut-outs, and no main colours, for they may differ."""
    red, green, blue = (sum(look.rgb[band] for look in looks) // len(looks) for band in range(3))
    coverage = sum(look.coverage for look in looks) / len(looks)
    family, group, main_colors = plural_of(name), "", ()
    return CutoutClass(name, family, group, split, (red, green, blue), coverage, main_colors, first, tuple(looks))


class Cutouts(ObjectSource):
    """
    The source of the cut-outs of a folder, see the top of this file; `faults` lists what was left out, and why.

    Raises:
        FileNotFoundError: If there is no such folder, or a photograph is missing from it.
        ValueError: If the folder holds nothing to cut out, or its annotations are malformed.
    """

    version = "2.0.0"

    def __init__(self, folder: str) -> None:
        self.folder = existing_folder(folder)
        found, self.faults = _scan(self.folder)
        if not found:
            raise ValueError(
                f"Expected images of objects to cut out in {self.folder}, but found none.{left_out(self.faults)} Put "
                "a folder for each class there, with PNG images that are transparent around the object, or COCO "
                "annotations with polygons (instances.json) and their photographs (images)."
            )
        warn_of(self.faults, self.folder)
        self._classes: list[CutoutClass] = []
        self._cutouts: list[Cutout] = []
        for name, split, looks in found:
            self._classes.append(_cutout_class(name, split, len(self._cutouts), looks))
            self._cutouts += looks
        self._sprites = SpriteStore(_key(self.folder), len(self._cutouts), self._draw, max_pack_bytes=_MAX_PACK_BYTES)
        self._opened: tuple[str, Image.Image] | None = None

    def classes(self, split: str) -> Sequence[CutoutClass]:
        """List the classes of a split; raise `ValueError` if it has none."""
        check_split(split)
        classes = tuple(one for one in self._classes if one.split == split)
        if not classes:
            raise ValueError(
                f"Expected classes for the split {split!r} in {self.folder}, but its {len(self._classes)} are all in "
                "other splits, because no class is in two. Add classes, or assign them to splits with folders train, "
                "validation and test."
            )
        return classes

    def patch(self, object_class: CutoutClass, size: float, degrees: float, tone: int, look: int) -> ObjectPatch:
        """Draw an object: one of the class's images, mirrored or not."""
        place = (look >> 1) % len(object_class.looks)
        sprite = self._sprites.get(object_class.first + place, size)
        anchor = object_class.looks[place].anchor
        return sprite_patch(sprite, anchor, size, degrees, tone, mirrored=bool(look & 1))

    def _draw(self, place: int, side: int) -> Image.Image:
        cutout = self._cutouts[place]
        # Those of one class in one photograph follow each other: it is read once for them.
        if self._opened is None or self._opened[0] != cutout.file:
            self._opened = (cutout.file, _read_image(self.folder / cutout.file))
        return _sprite(_cut(self._opened[1], cutout.polygons, cutout.box), cutout.circle, side)


@lru_cache(maxsize=8)
def cutouts_of(folder: str) -> Cutouts:
    """Read a folder of cut-outs once a process."""
    return Cutouts(folder)


# Name, split and cut-outs.
_Classes = list[tuple[str, str, list[Cutout]]]


def _key(folder: Path) -> str:
    """The name of the cache of one state of a folder."""
    return f"cutouts{_CODE}-{folder_fingerprint(folder)[:24]}"


def _scan(folder: Path) -> tuple[_Classes, list[str]]:
    """Find all classes of a folder, and what was left out; the result is cached for one state of the folder."""
    cached = sprite_folder() / f"{_key(folder)}.json"
    try:
        content = json.loads(cached.read_text(encoding="utf-8"))
        classes = [(name, split, [_cutout(entry) for entry in looks]) for name, split, looks in content["classes"]]
        return classes, list(content["faults"])
    except (OSError, ValueError, KeyError, TypeError):  # missing or truncated
        pass
    faults: list[str] = []
    if coco_splits(folder) or (folder / "instances.json").is_file():
        classes = _with_splits(_coco_classes(folder, faults))
    else:
        classes = _folder_classes(folder, faults)
    entries = [[name, split, [asdict(look) for look in looks]] for name, split, looks in classes]
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_json(cached, {"classes": entries, "faults": faults})
    except OSError as error:
        logger.warning(f"The content of {folder} cannot be cached in {cached.parent} ({error}); each process reads it")
    return classes, faults


def _cutout(entry: dict[str, Any]) -> Cutout:
    """Read a cut-out from JSON."""
    tuples = {name: tuple(entry[name]) for name in ("box", "circle", "anchor", "rgb")}
    return Cutout(**{**entry, **tuples})


def _with_splits(found: dict[str, list[Cutout]]) -> _Classes:
    """
    Divide classes among the splits, 70, 15 and 15 per cent, by their names; of three or more, each split has one at
    least.
    """
    order = sorted(found, key=lambda name: hashlib.sha256(f"countscenes class: {name}".encode()).digest())
    num_held_out = max(1, round(0.15 * len(order))) if len(order) >= 3 else 0
    splits = dict.fromkeys(order[:num_held_out], "test")
    splits |= dict.fromkeys(order[num_held_out : 2 * num_held_out], "validation")
    return [(name, splits.get(name, "train"), found[name]) for name in sorted(found)]


def _folder_classes(folder: Path, faults: list[str]) -> _Classes:
    """The classes of a folder of images, which may have a folder for each split."""
    places = {
        split: [folder / name for name in names if (folder / name).is_dir()] for split, names in _SPLIT_FOLDERS.items()
    }
    if not any(places.values()):
        return _with_splits(_classes_in(folder, folder, faults))
    return [
        (name, split, looks)
        for split, of_split in places.items()
        for place in of_split
        for name, looks in sorted(_classes_in(folder, place, faults).items())
    ]


def _classes_in(folder: Path, place: Path, faults: list[str]) -> dict[str, list[Cutout]]:
    """The classes of a folder of class folders."""
    found: dict[str, list[Cutout]] = {}
    for below in sorted(place.iterdir()):
        if not below.is_dir() or below.name.startswith("."):
            continue
        for file in sorted(below.rglob("*")):
            if file.suffix.lower() not in IMAGE_SUFFIXES or not file.is_file():
                continue
            name = file.relative_to(folder).as_posix()
            if not file.resolve().is_relative_to(folder):
                faults.append(f"{name} leads out of the folder")
                continue
            try:
                image = _read_image(file)
                box = _opaque_box(image)
                cutout = _measured(name, [], box, image)
            except DECODER_ERRORS as error:
                faults.append(f"{name}: {error}")
                continue
            found.setdefault(_class_name(below.name), []).append(cutout)
    return found


def _class_name(name: str) -> str:
    """A folder's or category's name with spaces for underscores."""
    return " ".join(name.replace("_", " ").split())


def _coco_classes(folder: Path, faults: list[str]) -> dict[str, list[Cutout]]:
    """The classes of COCO's annotations: all objects with polygons."""
    splits: list[str | None] = [None] if (folder / "instances.json").is_file() else list(coco_splits(folder))
    wanted: dict[str, list[tuple[str, _Outlines]]] = {}
    for split in splits:
        for row in read_coco(folder, split, names=_class_name, polygons=True):
            file = Path(row["image"]).resolve().relative_to(folder).as_posix()
            for outlines in row["polygons"]:
                # An object whose middle is hidden by another has several outlines.
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
                cutout = _measured(file, outlines, box, image)
            except ValueError:  # an outline without an inside
                continue
            found.setdefault(name, []).append(cutout)
    return found


def _outline_box(outlines: _Outlines, size: tuple[int, int]) -> _Box | None:
    """The box of an outlined object, or `None` if its photograph cuts it off or it is too small."""
    xs = [x for outline in outlines for x in outline[::2]]
    ys = [y for outline in outlines for y in outline[1::2]]
    left, top, right, bottom = math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)), math.ceil(max(ys))
    is_whole = min(left, top) >= 1 and right <= size[0] - 1 and bottom <= size[1] - 1
    return (left, top, right, bottom) if is_whole and min(right - left, bottom - top) >= _LEAST_SIDE else None


def _read_image(file: Path) -> Image.Image:
    with Image.open(file) as opened:
        return opened.convert("RGBA")


def _opaque_box(image: Image.Image) -> _Box:
    """The box of the opaque pixels of an image."""
    opacity = image.getchannel("A")
    if opacity.getextrema()[0] == 255:
        raise ValueError("nothing in it is transparent, so there is nothing to cut out")
    box = opacity.point([255 if value >= 128 else 0 for value in range(256)]).getbbox()
    if box is None:
        raise ValueError("all of it is transparent")
    left, top, right, bottom = box
    if max(right - left, bottom - top) < _LEAST_SIDE:
        raise ValueError(f"the object in it is {right - left} x {bottom - top} pixels, which is too small")
    return left, top, right, bottom


def _cut(image: Image.Image, polygons: _Outlines, box: _Box) -> Image.Image:
    """Cut an object out: RGBA, of the box's size."""
    cut = image.crop(box)
    if not polygons:
        return cut
    fine = 4
    mask = Image.new("L", (cut.width * fine, cut.height * fine))
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        corners = zip(polygon[::2], polygon[1::2], strict=True)
        draw.polygon([(round((x - box[0]) * fine), round((y - box[1]) * fine)) for x, y in corners], fill=255)
    cut.putalpha(mask.reduce(fine))
    return cut


def _measured(file: str, polygons: _Outlines, box: _Box, image: Image.Image) -> Cutout:
    """Measure the circle around an object, the point that marks it, its colour and its coverage of the circle."""
    cut = _cut(image, polygons, box)
    rows, columns = np.nonzero(np.asarray(cut.getchannel("A")) >= 128)
    if len(rows) < _LEAST_SIDE:
        raise ValueError("hardly anything in it is opaque")
    x = (int(columns.min()) + int(columns.max()) + 1) / 2
    y = (int(rows.min()) + int(rows.max()) + 1) / 2
    radius = math.sqrt(float(((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2).max())) + 0.5
    side = _MEASURED_SIDE
    sprite = _sprite(cut, (x, y, radius), side)
    opacity = sprite.getchannel("A")
    mask = np.asarray(opacity) >= 128
    red, green, blue = (int(value) for value in np.asarray(sprite)[mask][:, :3].mean(axis=0))
    # The point nearest to the middle of its pixels that is well inside it.
    inside = np.asarray(opacity.filter(ImageFilter.MinFilter(7))) >= 128
    rows, columns = np.nonzero(inside if inside.any() else mask)
    middle_row, middle_column = (float(place.mean()) for place in np.nonzero(mask))
    nearest = int(np.argmin((rows - middle_row) ** 2 + (columns - middle_column) ** 2))
    reach = side / 2 * SPRITE_REACH
    anchor = (float(columns[nearest] + 0.5 - side / 2) / reach, float(rows[nearest] + 0.5 - side / 2) / reach)
    coverage = float(mask.sum()) / (math.pi * reach * reach)
    return Cutout(file, polygons, box, (x, y, radius), anchor, (red, green, blue), coverage)


def _sprite(cut: Image.Image, circle: tuple[float, float, float], side: int) -> Image.Image:
    """Scale an object so that the circle around it fills a square but for a thin margin."""
    x, y, radius = circle
    reach = radius / SPRITE_REACH
    half = math.ceil(reach) + 1
    square = Image.new("RGBA", (2 * half, 2 * half))
    left, top = half - round(x), half - round(y)
    square.paste(cut, (left, top))
    x, y = x + left, y + top
    corners = (min(max(corner, 0.0), 2.0 * half) for corner in (x - reach, y - reach, x + reach, y + reach))
    left_edge, top_edge, right_edge, bottom_edge = corners
    box = (left_edge, top_edge, right_edge, bottom_edge)
    return square.resize((side, side), Image.Resampling.BILINEAR, box=box)
