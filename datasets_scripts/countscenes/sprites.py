"""Sprites of `countscenes`: cached in memory and on disk, and turned and scaled to objects."""

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..files.atomic import whole_file


logger = logging.getLogger(__name__)

Point = tuple[float, float]

# The share of a sprite's side that its circle takes. The rest is a transparent margin, so that a turned sprite keeps
# its edges.
SPRITE_REACH = 0.96
# Sides in pixels at which sprites are drawn. An object is made from the next larger one, so no sprite is shrunk by
# much more than a half: as far as bilinear sampling goes without losing detail.
SPRITE_SIDES = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

# Brightness factors of objects, as look-up tables for the four bands of a sprite.
_TONES = (0.84, 0.92, 1.0, 1.06, 1.12)
_TONE_TABLES = tuple([min(255, round(value * tone)) for value in range(256)] * 3 + [*range(256)] for tone in _TONES)
NUM_TONES = len(_TONES)
# Objects that cover less of the circle around them are drawn larger.
_USUAL_COVERAGE = 0.45


@dataclass(frozen=True)
class ObjectPatch:
    """
    One object, turned and scaled, ready to be pasted.

    Args:
        pixels (`PIL.Image.Image`): `"RGBX"` image of side `n`.
        opacity (`PIL.Image.Image`): `"L"` image of the same side.
        mask (`numpy.ndarray` of shape `(n, n)`): Where the opacity is a half or more.
        anchor (`tuple[float, float]`): The point that marks the object, in pixels of the patch.
    """

    pixels: Image.Image
    opacity: Image.Image
    mask: np.ndarray
    anchor: Point


class ImageCache:
    """The images used last, up to a number of bytes; one image is kept however large it is."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._images: OrderedDict[Hashable, Image.Image] = OrderedDict()

    def __len__(self) -> int:
        return len(self._images)

    def get(self, key: Hashable, load: Callable[[], Image.Image]) -> Image.Image:
        """Return the image of a key; `load` makes it if it is not in the cache."""
        image = self._images.get(key)
        if image is not None:
            self._images.move_to_end(key)
            return image
        image = self._images[key] = load()
        self.num_bytes += 4 * image.width * image.height
        while self.num_bytes > self.max_bytes and len(self._images) > 1:
            _, old = self._images.popitem(last=False)
            self.num_bytes -= 4 * old.width * old.height
        return image

    def clear(self) -> None:
        """Remove all images."""
        self._images.clear()
        self.num_bytes = 0


def sprite_folder() -> Path:
    """The folder of cached sprites: `COUNT_CLIP_SPRITES`, or else a folder in the cache of `datasets`."""
    import datasets

    given = os.environ.get("COUNT_CLIP_SPRITES")
    return Path(given) if given else Path(datasets.config.HF_DATASETS_CACHE) / "countscenes_sprites"


def sprite_side(size: float) -> int:
    """The side of the sprite from which an object of a diameter is made."""
    return next((side for side in SPRITE_SIDES if side >= size), SPRITE_SIDES[-1])


class SpriteStore:
    """
    Sprites of a fixed list of images at several sides.

    The small ones are drawn all at once and cached in one file a side, which later processes map into memory: a
    process starts at once, and all processes of a machine share the pages. Large ones are drawn on demand.

    Args:
        key (`str`): Name of the files. It must follow from everything that the sprites depend on.
        num_images (`int`): The number of images.
        draw (`Callable[[int, int], PIL.Image.Image]`): Draws image `i` on a square of a given side, `"RGBA"`, upright.
        max_bytes (`int`, *optional*, defaults to 64 MiB): Upper limit of the bytes of the sprites in memory.
        max_pack_bytes (`int`, *optional*, defaults to 32 MiB): Upper limit of the bytes of a file; sprites of larger
            sides are drawn on demand.
    """

    def __init__(
        self,
        key: str,
        num_images: int,
        draw: Callable[[int, int], Image.Image],
        max_bytes: int = 64 * 2**20,
        max_pack_bytes: int = 32 * 2**20,
    ) -> None:
        self.key = key
        self.num_images = num_images
        self.draw = draw
        self.max_pack_bytes = max_pack_bytes
        self.cache = ImageCache(max_bytes)
        self._packs: dict[int, np.ndarray] = {}
        self._broken: dict[int, OSError | ValueError] = {}

    def get(self, image: int, size: float) -> Image.Image:
        """
        Return the `"RGBX"` sprite of an image, of at least the side `size` if there is one so large.

        Raises:
            OSError, ValueError: If this image cannot be drawn.
        """
        side = sprite_side(size)
        return self.cache.get((image, side), lambda: self._load(image, side))

    def clear(self) -> None:
        """Remove everything from memory."""
        self._packs.clear()
        self.cache.clear()

    def _load(self, image: int, side: int) -> Image.Image:
        if 4 * side * side * self.num_images <= self.max_pack_bytes:
            pixels = self._pack(side)[image].tobytes()
            if image in self._broken:
                raise self._broken[image]
        else:
            pixels = _without_fringe(self.draw(image, side)).tobytes()
        return Image.frombytes("RGBX", (side, side), pixels)

    def _pack(self, side: int) -> np.ndarray:
        """All images at one side: `(num_images, side, side, 4)`."""
        if side not in self._packs:
            file = sprite_folder() / f"{self.key}-{side}.npy"
            pack = _read(file, (self.num_images, side, side, 4))
            if pack is None:
                pack = np.stack([self._draw(image, side) for image in range(self.num_images)])
                if not self._broken:
                    _write(file, pack)
            self._packs[side] = pack
        return self._packs[side]

    def _draw(self, image: int, side: int) -> np.ndarray:
        """Draw one image of a pack; a broken one must not keep the others from being used."""
        try:
            return np.asarray(_without_fringe(self.draw(image, side)))
        except (OSError, ValueError) as error:
            if image not in self._broken:
                logger.warning(f"One of the images cannot be drawn; scenes that need it raise an error: {error}")
            self._broken[image] = error
            return np.zeros((side, side, 4), dtype=np.uint8)


def _read(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        pack = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # missing or truncated
        return None
    return pack if pack.shape == shape and pack.dtype == np.uint8 else None


def _write(file: Path, pack: np.ndarray) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, pack)
    except OSError as error:
        logger.warning(f"Sprites cannot be cached in {file.parent} ({error}); each process draws its own.")


def _without_fringe(sprite: Image.Image) -> Image.Image:
    """Give transparent pixels the colour of their neighbours, because bilinear sampling mixes them in."""
    around = sprite.convert("RGBa").filter(ImageFilter.BoxBlur(2)).convert("RGBA")
    pixels = np.array(sprite)
    bare = pixels[..., 3] == 0
    pixels[bare, :3] = np.asarray(around)[bare, :3]
    return Image.fromarray(pixels)


def stretch_of(coverage: float) -> float:
    """
    The scale of the circle around a thin object: in one circle with an apple, a guitar would be a few pixels wide.

    It is 1 or more, and a multiple of 1/64, which is the same on every machine.
    """
    return min(1.375, max(1.0, round(64 * math.sqrt(_USUAL_COVERAGE / coverage)) / 64))


def sprite_patch(
    sprite: Image.Image, anchor: Point, size: float, degrees: float, tone: int, mirrored: bool
) -> ObjectPatch:
    """Turn and scale a sprite as [`turn_sprite`] does, and move the anchor onto the object."""
    patch = turn_sprite(sprite, anchor, size, degrees, tone, mirrored)
    mask = patch.mask
    if not mask.any():
        # At a few pixels no pixel of a thin object may be half opaque: take the most opaque ones.
        opacity = np.asarray(patch.opacity)
        mask = opacity >= max(1, int(opacity.max()) // 2)
        mask[mask.shape[0] // 2, mask.shape[1] // 2] |= not mask.any()
    x, y = patch.anchor
    if not mask[int(y), int(x)]:
        # A small detail may be lost at this size.
        rows, columns = np.nonzero(mask)
        nearest = int(np.argmin((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2))
        x, y = float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5
    return replace(patch, mask=mask, anchor=(x, y))


def turn_sprite(
    sprite: Image.Image, anchor: Point, size: float, degrees: float, tone: int, mirrored: bool = False
) -> ObjectPatch:
    """
    Turn and scale a square `"RGBX"` sprite to the smallest square that holds it.

    Args:
        sprite (`PIL.Image.Image`): The sprite, whose fourth band is the opacity.
        size, degrees, tone: As [`ObjectSource.patch`] takes them.
        anchor (`tuple[float, float]`): The point that marks the object, in the unit circle around it.
        mirrored (`bool`, *optional*, defaults to `False`): Whether to exchange left and right first.
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
    visible = np.asarray(opacity)
    # Of a drawing of thin lines, made very small, nothing may be half opaque.
    return ObjectPatch(pixels, opacity, visible >= min(128, max(1, int(visible.max()))), marked)


def _dyadic(value: float) -> float:
    """Round to a multiple of 2**-16: bilinear sampling with such coefficients is exact, so the same everywhere."""
    return round(value * 65536) / 65536
