"""The interface of everything that `countscenes` can draw: classes of objects, and the sources that draw them."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..captions.plurals import plural_of
from .sprites import ObjectPatch


RGB = tuple[int, int, int]

SPLITS = ("train", "validation", "test")


def read_colors(use: str) -> dict[str, RGB]:
    """Read the named colours of `"objects"` or `"backgrounds"`."""
    with Path(__file__).with_name("colors.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["use"] == use]
    return {row["name"]: (int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows}


COLORS = read_colors("objects")
# Words of a name that state a colour.
COLOR_WORDS = frozenset({*COLORS, "gold", "golden"})
# Names whose first letter does not decide their article.
_ARTICLES = {"hourglass": "an", "unicorn": "a"}


@dataclass(frozen=True)
class ObjectClass:
    """
    A class of objects. Classes are equal if they have the same name.

    Args:
        singular (`str`): The name of one object without an article: `"red apple"`.
        family (`str`): Classes of one family are confusable: a scene never shows two of them.
        group (`str`): Classes of one group are similar: `"animals"`.
        split (`str`): The only split whose scenes show the class.
        rgb (`tuple[int, int, int]`): The mean colour.
        coverage (`float`): The share of the circle around an object that the object covers.
        main_colors (`tuple[str, ...]`, *optional*): The one or two colours that describe an object, if any do.
    """

    singular: str
    family: str = field(compare=False)
    group: str = field(compare=False)
    split: str = field(compare=False)
    rgb: RGB = field(compare=False)
    coverage: float = field(compare=False)
    main_colors: tuple[str, ...] = field(compare=False)

    @cached_property
    def plural(self) -> str:
        """`str`: The name of several objects: `"red apples"`, `"slices of pizza"`."""
        return plural_of(self.singular)

    @cached_property
    def with_article(self) -> str:
        """`str`: The name of one object with its article: `"an orange cat"`."""
        article = _ARTICLES.get(self.singular, "an" if self.singular[0].lower() in "aeiou" else "a")
        return f"{article} {self.singular}"

    @cached_property
    def described_plural(self) -> str:
        """`str`: The plural with the main colours, unless the name states one: `"brown and white cows"`."""
        if not self.main_colors or self.singular.split()[0] in COLOR_WORDS:
            return self.plural
        return f"{' and '.join(self.main_colors)} {self.plural}"

    @cached_property
    def color(self) -> str:
        """`str`: The named colour nearest to `rgb`."""
        return nearest_color(self.rgb)

    def is_confusable_with(self, other: "ObjectClass") -> bool:
        """Whether one object could be taken for the other, or one name be true of both."""
        return self.family == other.family


class ObjectSource:
    """
    Lists the object classes of each split and draws their objects.

    Attributes:
        version (`str`): Part of every scene's seed: another version gives other images for the same index.
        has_looks (`bool`): Whether objects of one class differ by more than size, rotation and brightness.
        outlined (`bool`): Whether the objects have black outlines.
    """

    version: str
    has_looks = True
    outlined = False

    def check(self) -> None:
        """Raise `ImportError` if a package that draws the objects is not installed."""

    def classes(self, split: str) -> Sequence[Any]:
        """List the classes of a split. No class is in two splits."""
        raise NotImplementedError

    def patch(self, object_class: Any, size: float, degrees: float, tone: int, look: int) -> ObjectPatch:
        """
        Draw an object.

        Args:
            object_class (`ObjectClass`): The class of the object.
            size (`float`): Diameter in pixels of the circle around the object.
            degrees (`float`): Clockwise rotation.
            tone (`int`): Index of one of the `NUM_TONES` brightnesses, dark to light.
            look (`int`): Any whole number of 0 or more; selects one of the looks of the class.
        """
        raise NotImplementedError


def check_split(split: str) -> None:
    """Raise `ValueError` if there is no such split."""
    if split not in SPLITS:
        raise ValueError(f"Expected split to be one of {', '.join(SPLITS)}, but got {split!r}. Name one of these.")


def split_of(seed: str, validation_end: float) -> str:
    """Draw a split from the hash of a seed: train below 0.7, validation below `validation_end`, test above it."""
    share = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.7 else "validation" if share < validation_end else "test"


def color_distance(first: RGB, second: RGB) -> float:
    """The distance of two colours in levels of 0-255, each channel weighted by the eye's sensitivity to it."""
    red, green, blue = (a - b for a, b in zip(first, second, strict=True))
    return float((0.24 * red * red + 0.6 * green * green + 0.16 * blue * blue) ** 0.5 * 1.5)


@lru_cache(maxsize=4096)
def nearest_color(color: RGB) -> str:
    """Find the key of `COLORS` that is nearest to a colour."""
    return min(COLORS, key=lambda name: color_distance(COLORS[name], color))
