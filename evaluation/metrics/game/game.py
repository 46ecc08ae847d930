"""Errors of counts in the cells of a grid: whether objects are counted where they are."""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from count_clip.evaluation.functional import grid_error, map_cells, point_cells, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_ARGS, NUMBER, CountingMetric


_FINEST = 3
_ROWS = datasets.List(datasets.List(NUMBER))


class Game(CountingMetric):
    """
    Grid average mean absolute error, GAME(L).

    Each image is cut into 4^L cells and the errors of the counts in its cells are summed; the mean over the images.
    GAME(0) is the mean absolute error; the others are high if the right number is counted in the wrong places. Of each
    map or point set only the counts in the finest cells are kept; the other levels are sums of these.
    """

    CONFIGS = {
        "maps": {"predictions": _ROWS, "references": _ROWS},
        "points": {"predictions": _ROWS, "references": _ROWS},
        "detections": {"predictions": _ROWS, "references": _ROWS, "sizes": datasets.List(NUMBER)},
    }
    ARGS = f"""
    predictions: With the configuration `"maps"` (the default) or `"points"`: predicted density maps `(height, width)`,
        objects per pixel. With `"detections"`: for each image its predicted points `[x, y]` in its pixels.
    references: With `"maps"`: true density maps of the same sizes. With `"points"` or `"detections"`: for each image
        the points `[x, y]` of its objects, in the pixels of the map or image.
    sizes: With `"detections"` only: `[height, width]` of each image.
    levels (`list[int]`, *optional*, defaults to `[1, 2, 3]`): L, from 0 to 3.{INTERVAL_ARGS}"""
    RETURNS = "`dict` with `game_1`, `game_2` and `game_3`, or those of the `levels`, in objects; they never decrease."
    EXAMPLE = """
    >>> game = evaluate.load("evaluation/metrics/game", "detections")
    >>> game.compute(predictions=[[[1, 1], [9, 9]]], references=[[[1, 2], [1, 9]]], sizes=[[16, 16]])
    {'game_1': 2.0, 'game_2': 2.0, 'game_3': 4.0}
"""
    CITATION = """@inproceedings{guerrero2015extremely,
  title     = {Extremely Overlapping Vehicle Counting},
  author    = {Guerrero-G{\\'o}mez-Olmedo, Ricardo and Torre-Jim{\\'e}nez, Beatriz and L{\\'o}pez-Sastre, Roberto and
               Maldonado-Basc{\\'o}n, Saturnino and O{\\~n}oro-Rubio, Daniel},
  booktitle = {Iberian Conference on Pattern Recognition and Image Analysis},
  year      = {2015}
}"""
    URLS = ("https://doi.org/10.1007/978-3-319-19390-8_48",)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add a batch of predictions and references: maps or points, depending on the configuration."""
        given = {"predictions": predictions, "references": references, **kwargs}
        lengths = {name: 0 if values is None else len(values) for name, values in given.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{n} {name}" for name, n in lengths.items())
            raise ValueError(f"Expected as many of each, but got {found}.")
        if self.config_name == "detections" and "sizes" not in given:
            raise ValueError("Expected `sizes`, the [height, width] of each image, but got none.")
        rows = [
            self._cells(index, **dict(zip(given, row, strict=True)))
            for index, row in enumerate(zip(*given.values(), strict=True))
        ]
        super().add_batch(**{name: [row[name] for row in rows] for name in given})

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one image: maps or points, depending on the configuration."""
        others = {name: [value] for name, value in kwargs.items()}
        self.add_batch(predictions=[prediction], references=[reference], **others)

    def _cells(
        self, index: int, predictions: Any, references: Any, sizes: Any = None, **others: Any
    ) -> dict[str, list[Any]]:
        """The counts in the finest cells of one image."""
        if others:
            raise ValueError(f"Expected `predictions` and `references`, but got {sorted(others)} too.")
        try:
            if self.config_name == "detections":
                size = _size(sizes)
                predicted = point_cells(predictions, size, _FINEST, "predictions")
            else:
                predicted = map_cells(predictions, _FINEST, "predictions")
                size = np.shape(predictions)
            if self.config_name in ("points", "detections"):
                true = point_cells(references, size, _FINEST, "references")
            else:
                true = map_cells(references, _FINEST, "references")
                if np.shape(references) != size:
                    raise ValueError(
                        f"Expected a true map of the predicted one's size {size}, but got {np.shape(references)}. "
                        "Resize one of them so that it keeps its sum."
                    )
        except ValueError as error:
            raise ValueError(f"Image {index} of the batch: {error}") from error
        row = {"predictions": predicted.tolist(), "references": true.tolist()}
        return row if sizes is None else {**row, "sizes": list(size)}

    def _compute(
        self,
        *,
        predictions: Any,
        references: Any,
        sizes: Any = None,
        levels: Sequence[int] = (1, 2, 3),
        **interval: Any,
    ) -> dict[str, Any]:
        levels = tuple(levels)
        if not levels or not set(levels) <= set(range(_FINEST + 1)):
            raise ValueError(f"Expected `levels` from 0 to {_FINEST}, but got {list(levels)}.")
        if not predictions:
            raise ValueError("Expected at least one image, but got none. There is nothing to measure.")
        pairs = list(zip(predictions, references, strict=True))
        errors = [[grid_error(_coarser(a, level), _coarser(b, level)) for a, b in pairs] for level in levels]
        names = [f"game_{level}" for level in levels]
        return with_intervals(
            lambda *samples: {name: float(np.mean(x)) for name, x in zip(names, samples, strict=True)},
            *errors,
            **interval,
        )


def _coarser(cells: Any, level: int) -> Any:
    """Cells of a level from those of the finest."""
    side, step = 2**level, 2 ** (_FINEST - level)
    return np.asarray(cells).reshape(side, step, side, step).sum(axis=(1, 3))


def _size(size: Any) -> tuple[int, int]:
    """Height and width, checked."""
    if size is None or len(size) != 2 or any(side is None or side < 1 for side in size):
        raise ValueError(f"Expected `sizes` of [height, width] in pixels, but got {size}.")
    return int(size[0]), int(size[1])
