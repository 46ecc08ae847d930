"""The prompts and mosaics of the PrACo protocol, chosen before any image is read."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from count_clip.datasets_scripts.countscenes.sources import absent_classes

from ..inference.encoding import SkippedRow, image_id_of
from .density import what_is_wrong


MOSAIC_LAYOUTS = ("square", "stacked")

_LABELS = ("image_id", "text", "count", "other_texts", "other_counts")


@dataclass(frozen=True)
class LabelledImage:
    """An image with the classes in it, and classes that are absent."""

    index: int
    """A row of the data that has the image, from 0."""
    image_id: str
    """The `image_id` of its rows."""
    counts: dict[str, float]
    """The count of each text; 0 for an absent class."""
    named: str | None
    """The class that is counted first; `None` in an empty image."""

    @property
    def others(self) -> list[str]:
        """`list[str]`: The other classes in it."""
        return [text for text, count in self.counts.items() if count > 0 and text != self.named]

    @property
    def total(self) -> float:
        """`float`: All objects in it."""
        return sum(self.counts.values())

    def absent(self, number: int | None, seed: int) -> list[str]:
        """Draw absent classes; all of them without a `number`."""
        texts = [text for text, count in self.counts.items() if count == 0]
        return in_drawn_order(texts, seed, self.image_id, "absent")[:number]


@dataclass(frozen=True)
class MosaicPlan:
    """Two images for a mosaic, and the prompt for a class that is in the upper one only."""

    text: str
    """The prompt."""
    positive: LabelledImage
    """The upper image."""
    negative: LabelledImage
    """The lower image."""


def in_drawn_order(values: Iterable[str], *key: object) -> list[str]:
    """
    Shuffle texts in the same way on every machine, independently of other texts: the first few are a fair draw. The
    order depends on the `key`: a seed, the `image_id`, a purpose.
    """
    beginning = "\0".join(map(str, key))
    return sorted(values, key=lambda value: hashlib.sha256(f"{beginning}\0{value}".encode()).digest())


def labelled_images(
    rows: Any, seed: int = 0, unlisted_are_absent: bool = False
) -> tuple[list[LabelledImage], list[SkippedRow]]:
    """
    Group the labels of a data set by image, without decoding any image; returns the images, in the order of the data,
    and the rows that cannot be used.

    Rows of the density schema have an `image_id`: a `text` with a `count` above zero is in the image, one with count 0
    is absent. Rows of `countscenes` in the configurations `mixed` and `described` name all classes in the image. The
    `seed` decides which class of an image is counted first (in `mixed` rows it is the row's, if that is in the image).
    With `unlisted_are_absent`, a text in no row of an image, but in one of another image, is absent, which is only
    true of data that names every class in an image. Raises a `ValueError` if `mixed` rows name classes that
    `countscenes` does not draw.
    """
    counts: dict[str, dict[str, float]] = {}
    first_rows: dict[str, int] = {}
    own_texts: dict[str, str] = {}
    skipped: list[SkippedRow] = []
    for index, row in enumerate(_labels(rows)):
        image_id, reason = image_id_of(row), what_is_wrong(row)
        if image_id is None:
            reason = "the row has no `image_id`"
        elif reason is None and row["text"] in counts.get(image_id, {}):
            reason = f"an earlier row has the count of {row['text']!r} in the same image"
        elif reason is None and row.get("other_texts") and row["count"] and row["text"] not in row["other_texts"]:
            reason = f"{row['text']!r} is not among the classes in the image (`other_texts`)"
        if image_id is None or reason is not None:
            skipped.append(SkippedRow(index, image_id, reason or ""))
            continue
        first_rows.setdefault(image_id, index)
        of_image = counts.setdefault(image_id, {})
        of_image[row["text"]] = float(row["count"])
        if row.get("other_texts"):
            present = dict(zip(row["other_texts"], map(float, row["other_counts"]), strict=True))
            of_image |= dict.fromkeys(absent_classes(present), 0.0) | present
            own_texts[image_id] = row["text"]
    if unlisted_are_absent:
        every_text = dict.fromkeys((text for of_image in counts.values() for text in of_image), 0.0)
        counts = {image_id: every_text | of_image for image_id, of_image in counts.items()}
    images = []
    for image_id, of_image in counts.items():
        present_texts = [text for text, count in of_image.items() if count > 0]
        named: str | None = own_texts.get(image_id)
        if named not in present_texts:
            named = next(iter(in_drawn_order(present_texts, seed, image_id, "named")), None)
        images.append(LabelledImage(first_rows[image_id], image_id, of_image, named))
    return images, skipped


def _labels(rows: Any) -> Iterator[Mapping[str, Any]]:
    """The rows without their images, as far as the data set can do without them."""
    columns = [name for name in _LABELS if name in getattr(rows, "column_names", ())]
    if hasattr(rows, "select_columns"):
        yield from rows.select_columns(columns)
    elif columns and hasattr(rows, "column"):
        for values in zip(*(rows.column(name) for name in columns), strict=True):
            yield dict(zip(columns, values, strict=True))
    else:
        yield from rows


def plan_mosaics(
    images: Collection[LabelledImage], per_image: int | None, seed: int = 0
) -> tuple[list[MosaicPlan], int]:
    """
    Draw partners for each image: first a class (`per_image` of them; with `None` all, as in PrACo), then one of its
    images.

    A partner has objects, and none of the image's named class. Returns the mosaics, in the order of the images, and
    how many images with objects have no partner.
    """
    by_class: dict[str, dict[str, LabelledImage]] = {}
    for image in images:
        if image.named is not None:
            by_class.setdefault(image.named, {})[image.image_id] = image
    plans: list[MosaicPlan] = []
    without_partner = 0
    for image in images:
        text = image.named
        if text is None:
            continue
        before = len(plans)
        # The words in these draws decide them: other words would give other mosaics.
        for name in in_drawn_order(by_class, seed, image.image_id, "mosaic kind"):
            if per_image is not None and len(plans) - before == per_image:
                break
            partners = [image_id for image_id, other in by_class[name].items() if other.counts.get(text) == 0]
            if partners:
                partner = in_drawn_order(partners, seed, image.image_id, "mosaic picture")[0]
                plans.append(MosaicPlan(text, image, by_class[name][partner]))
        without_partner += len(plans) == before
    return plans, without_partner


def check_mosaic_layout(layout: str) -> None:
    """Raise a `ValueError` for a layout that is not one of `MOSAIC_LAYOUTS`."""
    if layout not in MOSAIC_LAYOUTS:
        raise ValueError(
            f"Expected the layout of mosaics to be one of {', '.join(MOSAIC_LAYOUTS)}, but got {layout!r}."
        )


def draw_mosaic(upper: Image.Image, lower: Image.Image, layout: str = "square") -> tuple[Image.Image, int]:
    """
    Put one RGB image above another.

    With the layout `"square"`, as in PrACo, each image is squeezed into one half of a square whose side is the smaller
    of the two heights. With `"stacked"`, both are resized to the smaller of the two widths and keep their proportions.

    Returns:
        The mosaic, and the index of the first row of pixels of the lower image.

    Source:
        Ciampi et al., PrACo, 2024 (https://arxiv.org/abs/2409.15953); `Benchmark.run_mosaic_test` of its published
        code for the square.
    """
    check_mosaic_layout(layout)
    if layout == "square":
        half = max(1, min(upper.height, lower.height) // 2)
        sizes = [(2 * half, half)] * 2
    else:
        width = min(upper.width, lower.width)
        sizes = [(width, max(1, round(image.height * width / image.width))) for image in (upper, lower)]
    halves = [
        image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
        for image, size in zip((upper, lower), sizes, strict=True)
    ]
    mosaic = Image.new("RGB", (halves[0].width, halves[0].height + halves[1].height))
    mosaic.paste(halves[0], (0, 0))
    mosaic.paste(halves[1], (0, halves[0].height))
    return mosaic, halves[0].height


__all__ = [
    "MOSAIC_LAYOUTS",
    "LabelledImage",
    "MosaicPlan",
    "check_mosaic_layout",
    "draw_mosaic",
    "in_drawn_order",
    "labelled_images",
    "plan_mosaics",
]
