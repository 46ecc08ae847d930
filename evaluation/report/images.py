"""The images on which a model was best and worst, looked at once more, with what made it say so."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ..benchmarks.countbench import nine_captions
from ..benchmarks.density import predict_density
from ..figures.figures import draw_density
from ..functional import NUMBERS
from ..inference.encoding import image_id_of, read_image
from ..relevance.explain import explain
from ..relevance.figures import draw_relevance
from .blocks import Card, Cards
from .charts import bars
from .metrics import write_count
from .results import Count, Result


IMAGED = ("countbench", "density")
"""The benchmarks whose images can be shown."""

_SIDE = 480  # pixels of the longer side on the page
_QUALITY = 82


def choose_counts(result: Result, number: int) -> tuple[list[Count], list[Count]]:
    """
    Choose the answers to show.

    Args:
        result ([`Result`]): Of CountBench or of a density set.
        number (`int`): How many at most, of each kind.

    Returns:
        `tuple[list[Count], list[Count]]`: The best and the worst, of different images. Of counts, the best have the
        smallest error beside the true count, and of equal ones the more objects; the worst have the largest error in
        objects. Of numbers in captions, the best are right, and the worst wrong, by the largest lead over another
        caption (of the worst, those furthest from the truth first).
    """

    def lead(count: Count) -> float:
        ordered = sorted(count.scores or (), reverse=True)
        return ordered[0] - ordered[1] if len(ordered) > 1 else 0.0

    if result.benchmark == "countbench":
        best = sorted((c for c in result.counts if not c.error), key=lambda c: (-lead(c), c.index))
    else:
        best = sorted(result.counts, key=lambda c: (abs(c.error) / max(c.true, 1.0), -c.true, c.index))
    worst = sorted((c for c in result.counts if c.error), key=lambda c: (-abs(c.error), -lead(c), c.index))
    chosen = _different(best, number, set())
    return chosen, _different(worst, number, {count.image for count in chosen})


def _different(counts: Sequence[Count], number: int, seen: set[str]) -> list[Count]:
    """The first answers of so many images that were not seen."""
    found: list[Count] = []
    for count in counts:
        if len(found) < number and count.image not in seen:
            seen.add(count.image)
            found.append(count)
    return found


def image_cards(
    result: Result, label: str, rows: Any, model: Any, processor: Any, number: int, batch_size: int = 16
) -> list[Cards]:
    """
    Look at a model's best and worst images once more.

    Args:
        result ([`Result`]): Of one of the benchmarks in `IMAGED`.
        label (`str`): What to call the model.
        rows: The data that it was measured on, a sequence of rows.
        model: The model.
        processor: Its processor.
        number (`int`): Images at most, of the best and of the worst.
        batch_size (`int`): Images, or windows of images, at once.

    Returns:
        `list[Cards]`: The best, then the worst; each with its density map, or with what in the image and in the
        caption made the score (with CountBench).

    Raises:
        ValueError: If the rows are not those that were measured, an image cannot be read, or nothing can be shown for
            the benchmark.
    """
    if result.benchmark not in IMAGED:
        raise ValueError(f"Expected a result of {' or '.join(IMAGED)}, but got one of {result.benchmark}.")
    found = []
    for title, counts in zip(("best", "worst"), choose_counts(result, number), strict=True):
        if not counts:
            continue
        pairs = [(count, _row_of(rows, count)) for count in counts]
        if result.benchmark == "density":
            cards = _density_cards(pairs, model, processor, batch_size)
            note = {
                "best": "The smallest errors beside the true count. Right: the density map over the image.",
                "worst": "The largest errors, in objects. Right: the density map over the image.",
            }[title]
        else:
            cards = _caption_cards(pairs, model, processor, batch_size)
            chosen = "Right, by the largest lead" if title == "best" else "Furthest from the truth"
            note = (
                f"{chosen}. Beside the image: what in it and in the words made the model prefer the number that it "
                "says (relevance, arXiv 2103.15679). Below: the similarities of the nine captions, the true one green."
            )
        found.append(Cards(f"{label}: {title} images", cards, note))
    return found


def _row_of(rows: Any, count: Count) -> Any:
    """The row that an answer is about; that of other data is refused."""
    if not 0 <= count.index < len(rows):
        raise ValueError(f"the data has {len(rows)} rows now, but the result speaks of row {count.index}")
    row = rows[count.index]
    name, text = image_id_of(row), row.get("text")
    if count.image_id is not None and name is not None and name != count.image_id:
        raise ValueError(f"row {count.index} of the data is {name!r} now, but was {count.image_id!r}")
    if count.text is not None and text != count.text:
        raise ValueError(f"row {count.index} of the data asks for {text!r} now, but asked for {count.text!r}")
    if count.scores is None:
        true = row.get("count")
    else:
        true, _ = nine_captions(str(text), row.get("number"))
    if true != count.true:
        raise ValueError(f"row {count.index} of the data has {true} objects now, but had {count.true:g}")
    return row


def _density_cards(pairs: Sequence[tuple[Count, Any]], model: Any, processor: Any, batch_size: int) -> list[Card]:
    images = [read_image(row) for _, row in pairs]
    results = predict_density(model, processor, images, [count.text or "" for count, _ in pairs], batch_size)
    cards = []
    for (count, _), image, counted in zip(pairs, images, results, strict=True):
        figure = draw_density(image, counted["density_map"], counted["points"], counted["text"], counted["count"])
        said = write_count(count.said)
        remark = ""
        if abs(counted["count"] - count.said) > 0.1 + 0.01 * abs(count.said):
            remark = f"The model counts {write_count(counted['count'])} in this image now: it, or the image, changed."
        cards.append(
            Card(
                caption=f"{count.text}, in {count.image}",
                detail=f"true {write_count(count.true)}, predicted {said}",
                image=data_uri(image),
                alt=f"{count.image}: {write_count(count.true)} {count.text}",
                map=data_uri(figure),
                map_alt=f"Where the model sees its {said} {count.text}",
                remark=remark,
            )
        )
    return cards


def _caption_cards(pairs: Sequence[tuple[Count, Any]], model: Any, processor: Any, batch_size: int) -> list[Card]:
    images = [read_image(row) for _, row in pairs]
    captions = [nine_captions(str(row["text"]), row.get("number"))[1] for _, row in pairs]
    said = [nine[int(count.said) - NUMBERS[0]] for nine, (count, _) in zip(captions, pairs, strict=True)]
    wrong = [[other for other in nine if other != text] for nine, text in zip(captions, said, strict=True)]
    explained = explain(model, processor, images, said, "margin", wrong_texts=wrong, batch_size=batch_size)
    cards = []
    for (count, _), image, text, relevance in zip(pairs, images, said, explained, strict=True):
        words = ", ".join(f"{word.text} {word.share:.0%}" for word in relevance.words())
        labels = [str(number) for number in NUMBERS]
        scores = bars(
            count.scores or (),
            labels,
            "Similarity of image and caption for each number: "
            + ", ".join(f"{label}: {score:.4f}" for label, score in zip(labels, count.scores or (), strict=True)),
            [NUMBERS.index(int(count.true))],
        )
        cards.append(
            Card(
                caption=f"{text} ({count.image})",
                detail=f"true {write_count(count.true)}, said {write_count(count.said)}",
                image=data_uri(image),
                alt=f"{count.image}: {write_count(count.true)} are true of “{text}”",
                map=data_uri(draw_relevance(image, relevance)),
                map_alt=f"The parts of the image that made the model say {write_count(count.said)}. Words: {words}",
                chart=scores,
            )
        )
    return cards


def data_uri(image: Image.Image) -> str:
    """An image as an address that holds it, small enough for a page."""
    shown = image.convert("RGB")
    shown.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


__all__ = ["IMAGED", "choose_counts", "data_uri", "image_cards"]
