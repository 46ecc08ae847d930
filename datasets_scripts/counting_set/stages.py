"""
The stages that a caption passes on its way into the counting set, and the counts after each.

They are those of "Teaching CLIP to Count to Ten" (https://arxiv.org/abs/2302.12066), section 3.1: the caption holds a
number word; the number counts visible objects; a detector finds that many objects of one class.
"""

import io
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from ..captions.nouns import counted_noun
from ..captions.numbers import NUMBER_TO_WORD, find_count
from ..files.images import DECODER_ERRORS, SAFE_FORMATS
from .detector import Detection, Detector, count_most_frequent, is_class_of
from .shards import CaptionReading, CaptionRecord, CaptionShard


# What a detector may raise on an image.
_DETECTOR_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError),
)
# After so many failures without a success the detector is broken, not the images.
_MAX_FAILURES_IN_A_ROW = 25
_BALANCING = ("num_common", "common_numbers", "seed", "rows_per_file")
# Names of the stages in tables.
_STAGES = {
    "number_word": "with a number word",
    "counts_objects": "that count visible objects",
    "images": "with an image",
    "right_number": "confirmed by the detector",
}


@dataclass(frozen=True)
class CaptionSetConfig:
    """
    The conditions for captions and images of a counting set.

    Args:
        numbers (`tuple[int, ...]`, *optional*): The numbers that are kept, two to ten by default.
        text_filter (`bool`, *optional*, defaults to `True`): Whether the number must count visible objects, see
            [`counts_objects`].
        detector (`str`, *optional*): The checkpoint of a detector, see [`TransformersDetector`]. Without one all
            images are kept.
        revision (`str`, *optional*): Its revision.
        threshold (`float`, *optional*): The lowest score of an object; by default the detector's own.
        min_area (`float`, *optional*, defaults to 0.0): The smallest object, as a share of the image.
        max_overlap (`float`, *optional*, defaults to 0.5): The largest intersection over union of two objects of one
            class.
        class_agreement (`bool`, *optional*, defaults to `False`): Whether the detector's class must be the caption's
            noun. (A zero-shot detector looks for that noun.)
        query (`str`, *optional*, defaults to `"{}"`): The prompt of a zero-shot detector, with `{}` for the noun.
        batch_size (`int`, *optional*, defaults to 8): Images in a batch of the detector.
        captions_only (`bool`, *optional*, defaults to `False`): Whether images are neither needed nor kept.
        num_common (`int`, *optional*, defaults to 37,000): Images of the common numbers in all. `None` keeps all.
        common_numbers (`tuple[int, ...]`, *optional*, defaults to two to six): The common numbers. Of the others all
            images are kept.
        seed (`int`, *optional*, defaults to 0): Another seed keeps other images of the common numbers.
        rows_per_file (`int`, *optional*, defaults to 5,000): Rows of a file of the result.
    """

    numbers: tuple[int, ...] = tuple(NUMBER_TO_WORD)
    text_filter: bool = True
    detector: str | None = None
    revision: str | None = None
    threshold: float | None = None
    min_area: float = 0.0
    max_overlap: float = 0.5
    class_agreement: bool = False
    query: str = "{}"
    batch_size: int = 8
    captions_only: bool = False
    num_common: int | None = 37_000
    common_numbers: tuple[int, ...] = (2, 3, 4, 5, 6)
    seed: int = 0
    rows_per_file: int = 5_000

    def __post_init__(self) -> None:
        wrong = sorted({*self.numbers, *self.common_numbers} - set(NUMBER_TO_WORD))
        if not self.numbers or wrong:
            raise ValueError(
                f"Expected numbers from 2 to 10, but got {wrong or 'none'}. Captions state no others in words."
            )
        for name in ("threshold", "min_area", "max_overlap"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"Expected {name} to be in 0-1, but got {value}.")
        for name in ("batch_size", "rows_per_file"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected {name} to be 1 or more, but got {getattr(self, name)}.")
        if self.num_common is not None and self.num_common < 0:
            raise ValueError(f"Expected num_common to be 0 or more, but got {self.num_common}. None keeps all.")
        if self.captions_only and self.detector is not None:
            raise ValueError("Expected no detector where there are captions only: it needs images. Leave one out.")

    @property
    def of_the_stages(self) -> dict[str, Any]:
        """`dict[str, Any]`: The fields that a single row depends on, as JSON holds them."""
        others = {*_BALANCING, "batch_size"}
        values = {name: value for name, value in asdict(self).items() if name not in others}
        return {**values, "numbers": list(self.numbers)}

    @property
    def of_balancing(self) -> dict[str, Any]:
        """`dict[str, Any]`: The fields that the choice among the rows depends on, as JSON holds them."""
        values = {name: getattr(self, name) for name in _BALANCING}
        return {**values, "common_numbers": list(self.common_numbers)}


@dataclass
class StageCounts:
    """
    The captions after each stage, and the reasons of the others.

    Args:
        totals (`Counter[str]`): `captions`, of which `no_caption` are empty; `number_word`, after the first stage;
            `counts_objects`, after the second; `images`, with an image, and `no_image`, without; `right_number`, after
            the third, `wrong_number` and `detector_failed`.
        by_number (`dict[str, Counter[int]]`): The stages' counts by the number that the caption states.
        reasons (`Counter[str]`): Why number words did not count objects.
    """

    totals: Counter[str] = field(default_factory=Counter)
    by_number: dict[str, Counter[int]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, stage: str, number: int) -> None:
        """Count a caption that passed a stage."""
        self.totals[stage] += 1
        self.by_number.setdefault(stage, Counter())[number] += 1

    def update(self, other: "StageCounts") -> None:
        """Add the counts of another shard."""
        self.totals.update(other.totals)
        self.reasons.update(other.reasons)
        for stage, numbers in other.by_number.items():
            self.by_number.setdefault(stage, Counter()).update(numbers)

    def table(self, kept: Mapping[int, int] | None = None) -> list[tuple[str, int, Mapping[int, int]]]:
        """List the name of each stage, the captions after it, and how many of these state each number."""
        table: list[tuple[str, int, Mapping[int, int]]] = [("captions", self.totals["captions"], {})]
        for stage, name in _STAGES.items():
            if stage in self.by_number:
                table.append((name, self.totals[stage], self.by_number[stage]))
        if kept is not None:
            table.append(("kept after balancing", sum(kept.values()), kept))
        return table

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON holds them."""
        return {
            "totals": dict(self.totals),
            "by_number": {
                stage: {str(number): numbers[number] for number in sorted(numbers)}
                for stage, numbers in self.by_number.items()
            },
            "reasons": dict(self.reasons.most_common()),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StageCounts":
        """Read the counts that `as_dict` wrote."""
        by_number = {
            stage: Counter({int(number): count for number, count in numbers.items()})
            for stage, numbers in values["by_number"].items()
        }
        return cls(Counter(values["totals"]), by_number, Counter(values["reasons"]))


class ImageError(Exception):
    """An image that is missing or cannot be decoded; the message states why."""


class DetectorError(RuntimeError):
    """A detector that fails on one image after another."""


def choose_by_text(shard: CaptionShard, config: CaptionSetConfig, counts: StageCounts) -> Iterator[CaptionRecord]:
    """Read the captions of a shard that state a number of visible objects; `counts` is updated while it is read."""

    def read(caption: Any) -> CaptionReading | None:
        counts.totals["captions"] += 1
        if not isinstance(caption, str) or not caption.strip():
            counts.totals["no_caption"] += 1
            return None
        match = find_count(caption)
        if match is None or match.number not in config.numbers:
            return None
        counts.add("number_word", match.number)
        counted = counted_noun(caption, match.start, match.end)
        if config.text_filter:
            if not counted.counts:
                counts.reasons[counted.reason] += 1
                return None
            counts.add("counts_objects", match.number)
        return CaptionReading(match.number, counted.noun)

    return shard.records(read)


def open_image(content: bytes) -> Image.Image:
    """
    Decode an image file upright and in RGB; raise [`ImageError`] if it cannot be decoded or is suspiciously large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=tuple(SAFE_FORMATS)) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except UnidentifiedImageError as error:
        raise ImageError("not an image that can be decoded (of no known format)") from error
    except DECODER_ERRORS as error:
        raise ImageError(f"not an image that can be decoded ({type(error).__name__}: {error})") from error


def choose_by_image(
    records: Iterable[CaptionRecord],
    config: CaptionSetConfig,
    detector: Detector | None,
    counts: StageCounts,
    failures: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """
    Keep the images in which a detector finds as many objects of one class as the caption states; without one, all.

    `counts` is updated, and `failures` receives every image that is missing, broken, or fails the detector.

    Raises:
        DetectorError: If the detector fails on one image after another.
    """
    opened = _opened(records, config, counts, failures)
    failed_in_a_row = 0
    for batch in iter(lambda: list(itertools.islice(opened, config.batch_size)), []):
        for (record, image), objects in zip(batch, _detect(batch, detector), strict=True):
            if isinstance(objects, Exception):
                failed_in_a_row += 1
                failures.append(record.failure("detector", f"{type(objects).__name__}: {objects}"))
                counts.totals["detector_failed"] += 1
                if failed_in_a_row == _MAX_FAILURES_IN_A_ROW:
                    raise DetectorError(
                        f"The detector failed on {failed_in_a_row} images one after another, the last time with "
                        f"{type(objects).__name__}: {objects}. Use another detector, or fix this one."
                    ) from objects
                continue
            failed_in_a_row = 0
            counted: list[Detection] = []
            if image is not None and objects is not None:
                counted = _counted(record.reading, image, objects, config)
                if not counted:
                    counts.totals["wrong_number"] += 1
                    continue
                counts.add("right_number", record.reading.number)
            yield _row(record, None if image is None else record.image, counted)


# --- images -------------------------------------------------------------------------------------

_Opened = tuple[CaptionRecord, Image.Image | None]


def _opened(
    records: Iterable[CaptionRecord], config: CaptionSetConfig, counts: StageCounts, failures: list[dict[str, Any]]
) -> Iterator[_Opened]:
    """Decode the images, and list those that are missing or broken."""
    for record in records:
        if config.captions_only:
            yield record, None
            continue
        try:
            if record.image is None:
                raise ImageError(record.problem or "no image")
            image = open_image(record.image)
        except ImageError as error:
            stage = "image" if record.url is None or record.image is not None else "fetch"
            failures.append(record.failure(stage, str(error)))
            counts.totals["no_image"] += 1
            continue
        counts.add("images", record.reading.number)
        yield record, image


def _detect(batch: Sequence[_Opened], detector: Detector | None) -> list[list[Detection] | Exception | None]:
    """The objects of each image; where the detector fails on several images, it gets them one after the other."""
    images = [image for _, image in batch if image is not None]
    if detector is None or not images:
        return [None] * len(batch)
    try:
        return list(detector(images, [record.reading.noun for record, _ in batch]))
    except _DETECTOR_ERRORS as error:
        if len(batch) == 1:
            return [error]
    return [found for one in batch for found in _detect([one], detector)]


def _counted(
    reading: CaptionReading, image: Image.Image, objects: Sequence[Detection], config: CaptionSetConfig
) -> list[Detection]:
    """The objects of the most frequent class, if these are as many as the caption states."""
    threshold = 0.0 if config.threshold is None else config.threshold
    size = (image.height, image.width)
    counted = count_most_frequent(objects, size, threshold, config.min_area, config.max_overlap)
    if len(counted) != reading.number:
        return []
    head = reading.noun.lower().split()[-1] if reading.noun else ""
    return counted if not config.class_agreement or is_class_of(counted[0].label, head) else []


def _row(record: CaptionRecord, content: bytes | None, counted: Sequence[Detection]) -> dict[str, Any]:
    return {
        "image": None if content is None else {"bytes": content, "path": None},
        "image_id": record.key,
        "text": record.caption,
        "number": record.reading.number,
        "name": record.reading.noun or None,
        "note": None,
        "detected": counted[0].label if counted else None,
        "scores": [one.score for one in counted],
        "boxes": [list(one.box) for one in counted],
        "url": record.url,
        "source": record.source,
        "row": record.row,
    }
