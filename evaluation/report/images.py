"""The best and the worst images of a model, with maps of where its predictions come from."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from count_clip.modeling.counting_engine import DensityCounter

from ..benchmarks.countbench import nine_captions
from ..figures.figures import draw_density
from ..functional import NUMBERS
from ..inference.encoding import image_id_of, read_image
from ..relevance.explain import explain
from ..relevance.figures import draw_relevance
from .blocks import Card, Cards
from .charts import bars
from .metrics import write_count
from .results import Prediction, Result


IMAGED = ("countbench", "density")
"""The benchmarks whose images can be shown."""

_SIDE = 480  # pixels of the longer side on the page
_QUALITY = 82
_NOTES = {
    ("density", "best"): "The smallest errors relative to the true count. Right: the density map over the image.",
    ("density", "worst"): "The largest errors, in objects. Right: the density map over the image.",
    ("countbench", "best"): "Right, by the largest margin.",
    ("countbench", "worst"): "The largest errors.",
}
_CAPTIONS_NOTE = (
    " Right: the relevance (arXiv 2103.15679) of image and words for the predicted number. Below: the similarities of "
    "the nine captions, the true one green."
)


def choose_counts(result: Result, number: int) -> tuple[list[Prediction], list[Prediction]]:
    """
    The best and the worst predictions, at most `number` of each, of different images.

    The best counts have the smallest error relative to the true count, then the most objects; the worst the largest
    error in objects. The best numbers of captions are right, by the largest margin to the next caption; the worst have
    the largest error, then the largest margin.
    """

    def margin(count: Prediction) -> float:
        first, second = sorted(count.scores or (0.0, 0.0), reverse=True)[:2]
        return first - second

    if result.benchmark == "countbench":
        best = sorted((c for c in result.predictions if not c.error), key=lambda c: (-margin(c), c.index))
    else:
        best = sorted(result.predictions, key=lambda c: (abs(c.error) / max(c.true, 1.0), -c.true, c.index))
    worst = sorted((c for c in result.predictions if c.error), key=lambda c: (-abs(c.error), -margin(c), c.index))
    seen: set[str] = set()

    def first_of(counts: Sequence[Prediction]) -> list[Prediction]:
        new: dict[str, Prediction] = {}
        for count in counts:
            if len(new) < number and count.image not in seen:
                new.setdefault(count.image, count)
        seen.update(new)
        return list(new.values())

    return first_of(best), first_of(worst)


def image_cards(
    result: Result, label: str, rows: Any, model: Any, processor: Any, number: int, batch_size: int = 16
) -> list[Cards]:
    """
    The best and the worst images of a result with their density maps or (CountBench) relevance maps of the model.

    Raises a `ValueError` if the rows are not those that were measured, an image cannot be read, or the benchmark has
    no images.
    """
    if result.benchmark not in IMAGED:
        raise ValueError(f"Expected a result of {' or '.join(IMAGED)}, but got one of {result.benchmark}.")
    found = []
    for title, counts in zip(("best", "worst"), choose_counts(result, number), strict=True):
        if counts:
            pairs = [(count, _row_of(rows, count)) for count in counts]
            is_density = result.benchmark == "density"
            cards = (_density_cards if is_density else _caption_cards)(pairs, model, processor, batch_size)
            note = _NOTES[result.benchmark, title] + ("" if is_density else _CAPTIONS_NOTE)
            found.append(Cards(f"{label}: {title} images", cards, note))
    return found


def _row_of(rows: Any, count: Prediction) -> Any:
    """The row of a prediction, checked to be the same as when it was measured."""
    if not 0 <= count.index < len(rows):
        raise ValueError(f"the data has {len(rows)} rows now, but the result has row {count.index}")
    row = rows[count.index]
    name, text = image_id_of(row), row.get("text")
    if count.image_id is not None and name is not None and name != count.image_id:
        raise ValueError(f"row {count.index} of the data is {name!r} now, but was {count.image_id!r}")
    if count.text is not None and text != count.text:
        raise ValueError(f"row {count.index} of the data has the text {text!r} now, but had {count.text!r}")
    if count.scores is None:
        true = row.get("count")
    else:
        true, _ = nine_captions(str(text), row.get("number"))
    if true != count.true:
        raise ValueError(f"row {count.index} of the data has {true} objects now, but had {count.true:g}")
    return row


def _density_cards(pairs: Sequence[tuple[Prediction, Any]], model: Any, processor: Any, batch_size: int) -> list[Card]:
    counter = DensityCounter(model, processor, batch_size, keep_images=True)
    cards = []
    for result in counter((read_image(row), [count.text or ""], count) for count, row in pairs):
        if result.image is None:
            raise result.error or ValueError("there is no image")
        count, image, (counted,) = result.tag, result.image, result.results
        figure = draw_density(image, counted["density_map"], counted["points"], counted["text"], counted["count"])
        remark = ""
        if abs(counted["count"] - count.predicted) > 0.1 + 0.01 * abs(count.predicted):
            remark = f"The model predicts {write_count(counted['count'])} now: the model or the image has changed."
        cards.append(
            Card(
                caption=f"{count.text}, in {count.image}",
                detail=f"true {write_count(count.true)}, predicted {write_count(count.predicted)}",
                image=data_uri(image),
                alt=f"{count.image}: {write_count(count.true)} {count.text}",
                map=data_uri(figure),
                map_alt=f"Density map: {write_count(count.predicted)} {count.text}",
                remark=remark,
            )
        )
    return cards


def _caption_cards(pairs: Sequence[tuple[Prediction, Any]], model: Any, processor: Any, batch_size: int) -> list[Card]:
    images = [read_image(row) for _, row in pairs]
    captions = [nine_captions(str(row["text"]), row.get("number"))[1] for _, row in pairs]
    chosen = [nine[int(count.predicted) - NUMBERS[0]] for nine, (count, _) in zip(captions, pairs, strict=True)]
    wrong = [[other for other in nine if other != text] for nine, text in zip(captions, chosen, strict=True)]
    explained = explain(model, processor, images, chosen, "margin", wrong_texts=wrong, batch_size=batch_size)
    cards = []
    for (count, _), image, text, relevance in zip(pairs, images, chosen, explained, strict=True):
        words = ", ".join(f"{word.text} {word.share:.0%}" for word in relevance.words())
        labels = [str(number) for number in NUMBERS]
        scores = bars(
            count.scores or (),
            labels,
            "Similarity of image and caption for each number: "
            + ", ".join(f"{label}: {score:.4f}" for label, score in zip(labels, count.scores or (), strict=True)),
            NUMBERS.index(int(count.true)),
        )
        cards.append(
            Card(
                caption=f"{text} ({count.image})",
                detail=f"true {write_count(count.true)}, predicted {write_count(count.predicted)}",
                image=data_uri(image),
                alt=f"{count.image}: “{text}”, truly {write_count(count.true)}",
                map=data_uri(draw_relevance(image, relevance)),
                map_alt=f"Relevance for the number {write_count(count.predicted)}. Words: {words}",
                chart=scores,
            )
        )
    return cards


def data_uri(image: Image.Image) -> str:
    """A small image as a `data:` URL."""
    shown = image.convert("RGB")
    shown.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


__all__ = ["IMAGED", "choose_counts", "data_uri", "image_cards"]
