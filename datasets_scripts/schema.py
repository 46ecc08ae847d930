"""The columns that all sets of one kind share, so that they can be mixed, compared and read by the same trainer."""

import datasets


def density_features() -> datasets.Features:
    """
    Describe a row of a density set: what to count in a picture, and where each one is.

    Returns:
        `datasets.Features`: `image`; `image_id` of the picture (which may have several rows, one for each text);
        `text`, what to count, in the plural; `count`; `points` `[x, y]` and `boxes` `[x0, y0, x1, y1]` in the
        picture's own pixels, where the middle of the first pixel is 0.5. A set without boxes has empty lists there.
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
        }
    )


def caption_features() -> datasets.Features:
    """
    Describe a row of a caption set: a picture with a caption that may state how many there are of something.

    Returns:
        `datasets.Features`: `image`; `image_id`; `text`, the caption; `number`, two to ten, or 0 where the caption
        states none; `name` of what is counted, in the plural.
    """
    return datasets.Features(
        {
            "image": datasets.Image(),
            "image_id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "number": datasets.Value("int32"),
            "name": datasets.Value("string"),
        }
    )
