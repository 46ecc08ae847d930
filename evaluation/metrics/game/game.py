"""Errors of counts in the cells of a grid: whether objects are counted where they are."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from count_clip.evaluation.functional import check_sizes, grid_error, map_cells, point_cells, with_intervals
from count_clip.evaluation.metrics.modules import INTERVAL_OPTIONS, choose_features


_DESCRIPTION = """Grid average mean absolute error, GAME(L): each image is cut into 4^L cells, and the errors of the
counts in its cells are added up; the mean over the images. GAME(0) is the mean absolute error, and a model that
counts the right number in the wrong places is found out by the others."""

_CITATION = """@inproceedings{guerrero2015extremely,
  title     = {Extremely Overlapping Vehicle Counting},
  author    = {Guerrero-G{\\'o}mez-Olmedo, Ricardo and Torre-Jim{\\'e}nez, Beatriz and L{\\'o}pez-Sastre, Roberto and
               Maldonado-Basc{\\'o}n, Saturnino and O{\\~n}oro-Rubio, Daniel},
  booktitle = {Iberian Conference on Pattern Recognition and Image Analysis},
  year      = {2015}
}"""

_INPUTS = f"""
Args:
    predictions: Loaded as `"maps"` (the default) or `"points"`: predicted density maps `(height, width)`, objects per
        pixel. Loaded as `"detections"`: for each image its predicted points `[x, y]` in its pixels.
    references: As `"maps"`: true density maps of the same sizes. As `"points"` or `"detections"`: for each image
        the places `[x, y]` of its objects, in the pixels of the map or image.
    sizes: As `"detections"` only: `[height, width]` of each image.
    levels (`list[int]`, *optional*, defaults to `[1, 2, 3]`): L, from 0 to 3.{INTERVAL_OPTIONS}

Returns:
    `dict` with `game_1`, `game_2` and `game_3`, or those of the `levels`: objects; none is below the one before.

Example:
    >>> game = evaluate.load("evaluation/metrics/game", "detections")
    >>> game.compute(predictions=[[[1, 1], [9, 9]]], references=[[[1, 2], [1, 9]]], sizes=[[16, 16]])
    {{'game_1': 2.0, 'game_2': 2.0, 'game_3': 4.0}}
"""

_FINEST = 3


class Game(evaluate.Metric):
    """
    Errors of counts in the cells of a grid: whether objects are counted where they are.

    Nothing is kept of a map or of points but their counts in the finest cells, of which the others are sums.
    """

    def _info(self) -> evaluate.MetricInfo:
        cells = datasets.List(datasets.List(datasets.Value("float64")))
        features = {"predictions": cells, "references": cells}
        sizes = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=choose_features(
                self.config_name, {"maps": features, "points": features, "detections": {**features, "sizes": sizes}}
            ),
            reference_urls=["https://doi.org/10.1007/978-3-319-19390-8_48"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add a batch of predictions and references: maps or points, as the configuration says."""
        given = {"predictions": predictions, "references": references, **kwargs}
        lengths = {name: 0 if values is None else len(values) for name, values in given.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                "Expected as many of each, but got " + ", ".join(f"{n} {name}" for name, n in lengths.items()) + "."
            )
        if self.config_name == "detections" and "sizes" not in given:
            raise ValueError("Expected `sizes`, the [height, width] of each image, but got none.")
        names = list(given)
        rows = [
            self._cells(index, **dict(zip(names, row, strict=True)))
            for index, row in enumerate(zip(*given.values(), strict=True))
        ]
        columns = {name: [row[name] for row in rows] for name in names}
        super().add_batch(**columns)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one image: maps or points, as the configuration says."""
        self.add_batch(
            predictions=[prediction], references=[reference], **{name: [value] for name, value in kwargs.items()}
        )

    def _cells(
        self, index: int, predictions: Any, references: Any, sizes: Any = None, **others: Any
    ) -> dict[str, list[Any]]:
        """What is kept of one image."""
        if others:
            raise ValueError(f"Expected `predictions` and `references`, but got {sorted(others)} too.")
        try:
            if self.config_name == "detections":
                (size,) = check_sizes([sizes])
                said = point_cells(predictions, size, _FINEST, "predictions")
            else:
                said = map_cells(predictions, _FINEST, "predictions")
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
        row = {"predictions": said.tolist(), "references": true.tolist()}
        return row if sizes is None else {**row, "sizes": list(size)}

    def _compute(
        self,
        predictions: Any,
        references: Any,
        sizes: Any = None,
        levels: Sequence[int] = (1, 2, 3),
        confidence: float | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> dict[str, Any]:
        levels = tuple(levels)
        if not levels or not set(levels) <= set(range(_FINEST + 1)):
            raise ValueError(f"Expected `levels` from 0 to {_FINEST}, but got {list(levels)}.")
        if not predictions:
            raise ValueError("Expected at least one image, but got none. There is nothing to measure.")
        errors = [
            [
                grid_error(_coarser(said, level), _coarser(true, level))
                for said, true in zip(predictions, references, strict=True)
            ]
            for level in levels
        ]
        return with_intervals(
            lambda *of_levels: {
                f"game_{level}": float(np.mean(x)) for level, x in zip(levels, of_levels, strict=True)
            },
            *errors,
            confidence=confidence,
            num_resamples=num_resamples,
            seed=seed,
        )


def _coarser(cells: Any, level: int) -> NDArray[np.float64]:
    """Cells of a level from those of the finest."""
    side, step = 2**level, 2 ** (_FINEST - level)
    return np.asarray(cells).reshape(side, step, side, step).sum(axis=(1, 3))
