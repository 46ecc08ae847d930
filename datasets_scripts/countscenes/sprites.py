"""Keeps the sprites that `countscenes` makes its objects from: in memory, and on disk for the next process."""

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..files.atomic import whole_file
from .objects import SPRITE_SIDES, ObjectPatch, Point, turn_sprite


logger = logging.getLogger(__name__)

# Of the circle around it, what covers less is drawn larger.
_USUAL_COVERAGE = 0.45


def sprite_folder() -> Path:
    """
    Say where sprites are kept on disk.

    Returns:
        `Path`: What the environment variable `COUNT_CLIP_SPRITES` says, or else a folder in the cache of `datasets`.
    """
    import datasets

    given = os.environ.get("COUNT_CLIP_SPRITES")
    return Path(given) if given else Path(datasets.config.HF_DATASETS_CACHE) / "countscenes_sprites"


class SpriteStore:
    """
    Gives sprites of a fixed list of images at several sides.

    The small ones are drawn all at once and kept in one file for each side, which later processes map into memory: a
    process starts at once, and those of one machine share the pages. Large ones are drawn when they are needed.

    Args:
        key (`str`):
            What the files are called. It must follow from everything that the sprites depend on.
        num_images (`int`):
            How many images there are.
        draw (`Callable[[int, int], PIL.Image.Image]`):
            Draws image `i` on a square of a side, `"RGBA"`, upright.
        max_bytes (`int`, *optional*, defaults to 64 MiB):
            What the sprites kept in memory may take together.
        max_pack_bytes (`int`, *optional*, defaults to 32 MiB):
            How large a file may be; sprites of larger sides are drawn when they are needed.
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
        self.max_bytes = max_bytes
        self.max_pack_bytes = max_pack_bytes
        self.num_bytes = 0
        self._packs: dict[int, np.ndarray] = {}
        self._broken: dict[int, OSError | ValueError] = {}
        self._sprites: OrderedDict[tuple[int, int], Image.Image] = OrderedDict()

    def get(self, image: int, size: float) -> Image.Image:
        """
        Give the sprite from which to make an object.

        Args:
            image (`int`): Which of the images.
            size (`float`): Diameter of the object in pixels.

        Returns:
            `PIL.Image.Image`: An `"RGBX"` image whose fourth band is the opacity, of at least that side where there
            is one so large.

        Raises:
            OSError, ValueError: If this image, whatever the others are like, cannot be drawn.
        """
        side = next((side for side in SPRITE_SIDES if side >= size), SPRITE_SIDES[-1])
        sprite = self._sprites.get((image, side))
        if sprite is not None:
            self._sprites.move_to_end((image, side))
            return sprite
        if 4 * side * side * self.num_images <= self.max_pack_bytes:
            pixels = self._pack(side)[image]
            if image in self._broken:
                raise self._broken[image]
            sprite = Image.frombytes("RGBX", (side, side), pixels.tobytes())
        else:
            sprite = Image.frombytes("RGBX", (side, side), _without_fringe(self.draw(image, side)).tobytes())
        self._sprites[image, side] = sprite
        self.num_bytes += 4 * side * side
        while self.num_bytes > self.max_bytes and len(self._sprites) > 1:
            (_, old_side), _ = self._sprites.popitem(last=False)
            self.num_bytes -= 4 * old_side * old_side
        return sprite

    def clear(self) -> None:
        """Forget what is kept in memory."""
        self._packs.clear()
        self._sprites.clear()
        self.num_bytes = 0

    def _pack(self, side: int) -> np.ndarray:
        """All images at one side: `(num_images, side, side, 4)`."""
        if side not in self._packs:
            file = sprite_folder() / f"{self.key}-{side}.npy"
            pack = _read(file, (self.num_images, side, side, 4))
            if pack is None:
                pack = np.stack([self._drawn(image, side) for image in range(self.num_images)])
                if not self._broken:
                    _write(file, pack)
            self._packs[side] = pack
        return self._packs[side]

    def _drawn(self, image: int, side: int) -> np.ndarray:
        """One image of a pack; one that cannot be drawn is not to keep the others from being used."""
        try:
            return np.asarray(_without_fringe(self.draw(image, side)))
        except (OSError, ValueError) as error:
            if image not in self._broken:
                logger.warning(f"One of the images cannot be drawn, and no scene that needs it: {error}")
            self._broken[image] = error
            return np.zeros((side, side, 4), dtype=np.uint8)


def _read(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        pack = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # none yet, or cut short: it is made anew
        return None
    return pack if pack.shape == shape and pack.dtype == np.uint8 else None


def _write(file: Path, pack: np.ndarray) -> None:
    """Keep a pack for the next process."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, pack)
    except OSError as error:
        logger.warning(f"Sprites cannot be kept in {file.parent} ({error}); each process draws them for itself.")


def _without_fringe(sprite: Image.Image) -> Image.Image:
    """Give the pixels that nothing covers the colour of those beside them, which bilinear sampling mixes in."""
    around = sprite.convert("RGBa").filter(ImageFilter.BoxBlur(2)).convert("RGBA")
    pixels = np.array(sprite)
    bare = pixels[..., 3] == 0
    pixels[bare, :3] = np.asarray(around)[bare, :3]
    return Image.fromarray(pixels)


def stretch_of(coverage: float) -> float:
    """
    Say how much larger the circle around a thin thing is than that around others of the same size.

    In one circle with an apple, a guitar would be a few pixels wide.

    Args:
        coverage (`float`): How much of the circle around it a thing covers, 0-1.

    Returns:
        `float`: 1 or more; a multiple of 1/64, which is the same on every machine.
    """
    return min(1.375, max(1.0, round(64 * math.sqrt(_USUAL_COVERAGE / coverage)) / 64))


def sprite_patch(
    sprite: Image.Image, anchor: Point, size: float, degrees: float, tone: int, mirrored: bool
) -> ObjectPatch:
    """
    Turn and scale a sprite.

    Args:
        sprite (`PIL.Image.Image`): What [`SpriteStore.get`] gives.
        anchor (`tuple[float, float]`): The point that marks the object, in the unit circle around it.
        size (`float`): Diameter in pixels of the circle that the object fits in.
        degrees (`float`): Clockwise turn.
        tone (`int`): Which of the `NUM_TONES` brightnesses, dark to light.
        mirrored (`bool`): Whether left and right change places first.

    Returns:
        `ObjectPatch`: The object on a square just large enough. Its anchor is on the object.
    """
    patch = turn_sprite(sprite, anchor, size, degrees, tone, mirrored)
    mask = patch.mask
    if not mask.any():
        # Of thin things nothing is more than half there at a few pixels: where one sees most of them.
        opacity = np.asarray(patch.opacity)
        mask = opacity >= max(1, int(opacity.max()) // 2)
        mask[mask.shape[0] // 2, mask.shape[1] // 2] |= not mask.any()
    x, y = patch.anchor
    if mask[int(y), int(x)]:
        return ObjectPatch(patch.pixels, patch.opacity, mask, patch.anchor)
    # The least detail may be lost at this size.
    rows, columns = np.nonzero(mask)
    nearest = int(np.argmin((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2))
    marked = (float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5)
    return ObjectPatch(patch.pixels, patch.opacity, mask, marked)
