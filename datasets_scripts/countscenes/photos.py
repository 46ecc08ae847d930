"""Photographs of your own as backgrounds of `countscenes`."""

import logging
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..files.checks import existing_folder
from ..files.images import DECODER_ERRORS, IMAGE_SUFFIXES
from .sprites import ImageCache


logger = logging.getLogger(__name__)

_LEAST_SIDE = 32
_MAX_CACHE_BYTES = 128 * 2**20


def warn_of(faults: Sequence[str], folder: Path) -> None:
    """Log what was left out of a folder: a line for each image."""
    if faults:
        more = "; ..." if len(faults) > 5 else ""
        logger.warning(f"{len(faults)} images in {folder} were left out: {'; '.join(faults[:5])}{more}.")


def left_out(faults: Sequence[str]) -> str:
    """State in an error what was left out of a folder."""
    return f" What was left out: {'; '.join(faults[:5])}." if faults else ""


class Photographs:
    """
    Square crops of the photographs in a folder and its subfolders; `faults` lists what was left out, and why.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no photograph that can be read.
    """

    def __init__(self, folder: str) -> None:
        self.folder = existing_folder(folder)
        self.faults: list[str] = []
        self._files = [
            file
            for file in sorted(self.folder.rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file() and self._is_usable(file)
        ]
        if not self._files:
            raise ValueError(
                f"Expected photographs for backgrounds in {self.folder}, but found none.{left_out(self.faults)} Put "
                f"some there ({', '.join(IMAGE_SUFFIXES)}), or leave `backgrounds` out."
            )
        warn_of(self.faults, self.folder)
        self._cache = ImageCache(_MAX_CACHE_BYTES)

    def __len__(self) -> int:
        return len(self._files)

    def _is_usable(self, file: Path) -> bool:
        name = file.relative_to(self.folder).as_posix()
        if not file.resolve().is_relative_to(self.folder):
            self.faults.append(f"{name} leads out of the folder")
            return False
        try:
            # Truncated pixels are found when it is drawn: decoding thousands takes minutes.
            with Image.open(file) as opened:
                size = opened.size
        except DECODER_ERRORS as error:
            self.faults.append(f"{name}: {error}")
            return False
        if min(size) < _LEAST_SIDE:
            self.faults.append(f"{name} is {size[0]} x {size[1]} pixels; the least is {_LEAST_SIDE} a side")
            return False
        return True

    def draw(self, rng: np.random.RandomState, side: int) -> Image.Image:
        """
        Cut an RGB square of `side` pixels out of one of the photographs, faded a little in half of the cases.

        Raises:
            ValueError: If none of the photographs can be decoded.
        """
        place = int(rng.random_sample() * len(self._files))
        share, across, down = 0.6 + 0.4 * rng.random_sample(), rng.random_sample(), rng.random_sample()
        photograph = self._photograph(place)
        length = max(1, int(share * min(photograph.size)))
        left = int(across * (photograph.width - length + 1))
        top = int(down * (photograph.height - length + 1))
        box = (left, top, left + length, top + length)
        image = photograph.resize((side, side), Image.Resampling.BILINEAR, box=box)
        if rng.random_sample() < 0.5:
            mist = Image.new("RGB", image.size, (245, 245, 245) if rng.random_sample() < 0.5 else (25, 25, 25))
            image = Image.blend(image, mist, int(1 + 28 * rng.random_sample()) / 64)
        return image

    def _photograph(self, place: int) -> Image.Image:
        """The photograph at a place, or the next one that can be decoded."""
        for file in self._files[place:] + self._files[:place]:
            try:
                return self._cache.get(file, partial(_decode, file))
            except DECODER_ERRORS as error:
                fault = f"{file.relative_to(self.folder).as_posix()}: {error}"
                if fault not in self.faults:
                    self.faults.append(fault)
                    logger.warning(f"A photograph in {self.folder} cannot be decoded, the next one is used: {fault}.")
        raise ValueError(
            f"Expected photographs in {self.folder} that can be decoded, but not one of {len(self._files)} can: "
            f"{'; '.join(self.faults[:5])}."
        )


def _decode(file: Path) -> Image.Image:
    with Image.open(file) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


@lru_cache(maxsize=8)
def photographs_of(folder: str) -> Photographs:
    """Read a folder of photographs once a process."""
    return Photographs(folder)
