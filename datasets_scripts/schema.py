"""The columns that all density sets, and all caption sets, share, so that they can be mixed and compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa


def density_features() -> datasets.Features:
    """
    Describe a row of a density set: what to count in an image, and the position of each object.

    Returns:
        `datasets.Features`: `image`; `image_id` of the image (which may have several rows, one for each text); `text`,
            what to count, in the plural; `count`; `points` `[x, y]`, `boxes` `[x0, y0, x1, y1]` and `exemplar_boxes`,
            the boxes of some objects as examples, in the image's own pixels, where the middle of the first pixel is
            0.5; `description`, a longer text; `note`, why the count is not the number of points, and other
            peculiarities. Sets without boxes, examples or descriptions have empty lists and nulls there.
    """
    coordinate = datasets.Value("float32")
    return datasets.Features(
        {
            "image": datasets.Image(),
            "image_id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "count": datasets.Value("int32"),
            "points": datasets.List(datasets.List(coordinate, length=2)),
            "boxes": datasets.List(datasets.List(coordinate, length=4)),
            "exemplar_boxes": datasets.List(datasets.List(coordinate, length=4)),
            "description": datasets.Value("string"),
            "note": datasets.Value("string"),
        }
    )


def caption_features() -> datasets.Features:
    """
    Describe a row of a caption set: an image with a caption that may state a number of objects.

    Returns:
        `datasets.Features`: `image`; `image_id`; `text`, the caption; `number`, two to ten, or 0 where the caption
        states none; `name` of the counted objects, in the plural, null where it is unknown; `note`, peculiarities.
    """
    return datasets.Features(
        {
            "image": datasets.Image(),
            "image_id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "number": datasets.Value("int32"),
            "name": datasets.Value("string"),
            "note": datasets.Value("string"),
        }
    )


def density_row(
    image: Any,
    image_id: str,
    text: str,
    points: Sequence[Sequence[float]],
    boxes: Sequence[Sequence[float]] = (),
    exemplar_boxes: Sequence[Sequence[float]] = (),
    description: str | None = None,
    note: str | None = None,
    count: int | None = None,
) -> dict[str, Any]:
    """
    Make a row of a density set with every column of [`density_features`]; `count` is by default the number of points.

    Raises:
        ValueError: If the count is not the number of points and there is no note.
    """
    if count is not None and count != len(points) and not note:
        raise ValueError(
            f"Expected the count of {image_id!r} ({text!r}) to be its number of points, but it is {count} with "
            f"{len(points)} points. Correct it, or explain the difference in `note`."
        )
    return {
        "image": image,
        "image_id": image_id,
        "text": text,
        "count": len(points) if count is None else count,
        "points": [list(point) for point in points],
        "boxes": [list(box) for box in boxes],
        "exemplar_boxes": [list(box) for box in exemplar_boxes],
        "description": description,
        "note": note,
    }


def fill_row(row: Mapping[str, Any], features: datasets.Features) -> dict[str, Any]:
    """
    Add the missing columns of a row, in the order of `features`: an empty list where the column holds lists, else
    null.
    """
    return {
        name: row[name] if name in row else [] if isinstance(feature, datasets.List) else None
        for name, feature in features.items()
    }


def as_stored(row: Mapping[str, Any], features: datasets.Features) -> dict[str, Any]:
    """Round the numbers of a row to the precision of their columns, so that streamed and stored rows are equal."""
    types = features.arrow_schema
    rounded = {
        name: pa.array([row[name]], types.field(name).type)[0].as_py()
        for name, feature in features.items()
        if isinstance(feature, datasets.List) and row.get(name)
    }
    return {**row, **rounded}
