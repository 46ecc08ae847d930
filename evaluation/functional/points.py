"""Metrics of locations: errors of counts in the cells of a grid, and points matched with points."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import check_finite


MATCHINGS = ("hungarian", "greedy")
# Rows of distances in memory at once.
_POINTS_AT_ONCE = 1024
# Interpolation may leave a zero a hair below zero.
_LEAST_DENSITY = -1e-6


class PointScores(NamedTuple):
    """How many points are right, and how many objects were found."""

    precision: float
    """Share of the predicted points that match an object; 0 if nothing was predicted."""
    recall: float
    """Share of the objects that match a predicted point; 0 if there are none."""
    f1: float
    """Harmonic mean of the two; 0 if nothing was found."""


def map_cells(density_map: ArrayLike, level: int, name: str = "density_map") -> NDArray[np.float64]:
    """
    Objects `(2 ** level, 2 ** level)` in the cells of a grid over a density map `(height, width)` of objects per
    pixel.

    The image is halved `level` times in both directions; cells differ by one pixel if a side cannot be divided evenly.
    Raises a `ValueError` with the argument's `name` if the map is not two-dimensional, not finite, negative, or
    smaller than the grid.
    """
    density = _density(density_map, name)
    rows, columns = (_edges(side, level, density.shape, name) for side in density.shape)
    in_rows = np.add.reduceat(density, rows[:-1], axis=0)
    return np.add.reduceat(in_rows, columns[:-1], axis=1)


def point_cells(points: ArrayLike, size: tuple[int, int], level: int, name: str = "points") -> NDArray[np.float64]:
    """
    Points `(2 ** level, 2 ** level)` in the cells of [`map_cells`] for an image of `size` (height, width).

    `points` are `[x, y]` in the image's pixels, `(num_points, 2)`; the pixel in row `i` and column `j` covers `j` to
    `j + 1` and `i` to `i + 1`. Raises a `ValueError` if they are not pairs of finite numbers, or one is outside the
    image.
    """
    places = as_points(points, name)
    height, width = size
    rows, columns = (_edges(side, level, size, name) for side in size)
    outside = (places < 0).any(axis=1) | (places[:, 0] > width) | (places[:, 1] > height)
    if outside.any():
        index = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"Expected `{name}` inside the image of height {height} and width {width}, but {int(outside.sum())} of "
            f"{len(places)} are outside, the first at index {index}: {places[index].tolist()}. Are they in the pixels "
            "of another size, or [y, x]?"
        )
    last = 2**level - 1
    # A point on the far border belongs to the last cell.
    row = np.minimum(np.searchsorted(rows, places[:, 1], side="right") - 1, last)
    column = np.minimum(np.searchsorted(columns, places[:, 0], side="right") - 1, last)
    cells = np.zeros((last + 1, last + 1))
    np.add.at(cells, (row, column), 1)
    return cells


def grid_error(predicted_cells: ArrayLike, true_cells: ArrayLike) -> float:
    """
    Sum of `|predicted - true|` over the cells of one image's grid, in objects; its mean over images is GAME.

    Source: Guerrero-Gómez-Olmedo et al., 2015, Sec. 4.1 (https://doi.org/10.1007/978-3-319-19390-8_48).
    """
    predicted, true = np.asarray(predicted_cells, dtype=np.float64), np.asarray(true_cells, dtype=np.float64)
    if predicted.shape != true.shape:
        raise ValueError(
            f"Expected the cells of one grid, but got {predicted.shape} predicted and {true.shape} true ones."
        )
    return float(np.abs(predicted - true).sum())


def match_points(
    predictions: ArrayLike, references: ArrayLike, distance: ArrayLike, matching: str = "hungarian"
) -> NDArray[np.int64]:
    """
    Indices `(num_pairs, 2)` of predicted points and objects within a distance, each in at most one pair, by point.

    Points and objects are `[x, y]` in one frame, `(num_points, 2)`; `distance` is the largest one, for all objects or
    for each, `(num_true,)`. `"hungarian"` finds the most pairs with the least sum of distances; `"greedy"` takes the
    nearest pair first, then the nearest of the rest. Raises a `ValueError` if points are not pairs of finite numbers,
    a distance is not above zero, or `matching` is unknown, and an `ImportError` for `"hungarian"` without SciPy.

    Source: Wang et al., NWPU-Crowd, 2020 (https://arxiv.org/abs/2001.03360), Sec. 4.3.2: Hungarian matching with a
    distance for each object.
    """
    predicted, true = as_points(predictions, "predictions"), as_points(references, "references")
    limits = _limits(distance, len(true))
    if matching not in MATCHINGS:
        raise ValueError(f"Expected `matching` to be one of {list(MATCHINGS)}, but got {matching!r}.")
    near = _near_pairs(predicted, true, limits)
    pairs = _greedy(*near) if matching == "greedy" else _hungarian(*near, len(predicted), len(true))
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


def point_scores(num_matched: ArrayLike, num_predicted: ArrayLike, num_true: ArrayLike) -> PointScores:
    """
    Precision, recall and F1 over the points of all images together, from numbers `(num_images,)` of pairs, predicted
    points and objects; 0 instead of a division by zero, as in scikit-learn.
    """
    matched, predicted, true = (float(np.sum(numbers)) for numbers in (num_matched, num_predicted, num_true))
    return PointScores(
        matched / predicted if predicted else 0.0,
        matched / true if true else 0.0,
        2 * matched / (predicted + true) if predicted + true else 0.0,
    )


def as_points(points: ArrayLike, name: str) -> NDArray[np.float64]:
    """
    Points as an array `(num_points, 2)`; a `ValueError` with the argument's `name` unless they are pairs of finite
    numbers.
    """
    try:
        places = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"Expected `{name}` to be points [x, y], but they are not all pairs of numbers.") from None
    if places.size == 0:
        return np.zeros((0, 2))
    if places.ndim != 2 or places.shape[1] != 2:
        raise ValueError(f"Expected `{name}` to be points [x, y], but got an array of shape {places.shape}.")
    check_finite(places, f"coordinates of points in `{name}`", "Leave those points out.")
    return places


def _density(density_map: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        density = np.asarray(density_map, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"Expected `{name}` of shape (height, width), but its rows differ in length.") from None
    if density.ndim != 2 or not density.size:
        raise ValueError(f"Expected `{name}` of shape (height, width), but got an array of shape {density.shape}.")
    if not np.isfinite(density).all():
        raise ValueError(f"Expected finite densities in `{name}`, but some are NaN or infinite.")
    if density.min() < _LEAST_DENSITY:
        raise ValueError(
            f"Expected densities of zero or more in `{name}`, but the least is {density.min():g}. Pass objects per "
            "pixel, neither logits nor a normalised map."
        )
    return density


def _edges(side: int, level: int, size: tuple[int, ...], name: str) -> NDArray[np.int64]:
    """Borders of the cells along one side."""
    if level < 0 or int(level) != level:
        raise ValueError(f"Expected a `level` of 0 or more, but got {level}.")
    if side < 2**level:
        raise ValueError(
            f"Expected an image of at least {2**level} x {2**level} pixels for level {level}, but that of `{name}` "
            f"has {size[0]} x {size[1]}. Use a lower level."
        )
    return np.arange(2**level + 1, dtype=np.int64) * side // 2**level


def _limits(distance: ArrayLike, num_true: int) -> NDArray[np.float64]:
    """The distance for each object."""
    limits = np.asarray(distance, dtype=np.float64)
    if limits.ndim > 1 or (limits.ndim == 1 and len(limits) != num_true):
        raise ValueError(
            f"Expected one distance, or one for each of the {num_true} objects, but got an array of shape "
            f"{limits.shape}."
        )
    if not (np.isfinite(limits) & (limits > 0)).all():
        raise ValueError("Expected finite distances above zero, but some are not.")
    return np.broadcast_to(limits, (num_true,))


def _near_pairs(
    predicted: NDArray[np.float64], true: NDArray[np.float64], limits: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """All pairs within the distance: indices of the predicted point and the object, and the distance."""
    found: list[tuple[Any, Any, Any]] = []
    for start in range(0, len(predicted), _POINTS_AT_ONCE):
        some = predicted[start : start + _POINTS_AT_ONCE]
        distances = np.hypot(some[:, :1] - true[:, 0], some[:, 1:] - true[:, 1])  # (points, num_true)
        rows, columns = np.nonzero(distances <= limits)
        found.append((rows + start, columns, distances[rows, columns]))
    if not found:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    rows, columns, distances = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return rows, columns, distances


def _greedy(rows: NDArray[np.int64], columns: NDArray[np.int64], distances: NDArray[np.float64]) -> NDArray[np.int64]:
    """The nearest pair first; of equally near pairs the first."""
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for place in np.lexsort((columns, rows, distances)).tolist():
        row, column = int(rows[place]), int(columns[place])
        if row not in taken[0] and column not in taken[1]:
            taken[0].add(row)
            taken[1].add(column)
            pairs.append((row, column))
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2)


def _hungarian(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    distances: NDArray[np.float64],
    num_rows: int,
    num_columns: int,
) -> NDArray[np.int64]:
    """The most pairs, and of these the least sum of distances; solved for each connected group of points."""
    try:
        from scipy.optimize import linear_sum_assignment
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    except ImportError as error:
        raise ImportError(
            'Matching points by the Hungarian method needs SciPy: pip install "count-clip[metrics]". Or pass '
            '`matching="greedy"`.'
        ) from error
    num_points = num_rows + num_columns
    graph = coo_array((np.ones(len(rows)), (rows, columns + num_rows)), shape=(num_points, num_points))
    group_of = connected_components(graph, directed=False)[1][rows]
    pairs = []
    order = np.argsort(group_of, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1):
        own_rows, row_places = np.unique(rows[group], return_inverse=True)
        own_columns, column_places = np.unique(columns[group], return_inverse=True)
        # One pair beyond the distance costs more than any number of pairs within it.
        too_far = (min(len(own_rows), len(own_columns)) + 1) * (distances[group].max(initial=0) + 1)
        costs = np.full((len(own_rows), len(own_columns)), too_far)
        costs[row_places, column_places] = distances[group]
        chosen = linear_sum_assignment(costs) if group.size else ([], [])
        pairs += [(own_rows[i], own_columns[j]) for i, j in zip(*chosen, strict=True) if costs[i, j] < too_far]
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2)


__all__ = [
    "MATCHINGS",
    "PointScores",
    "as_points",
    "grid_error",
    "map_cells",
    "match_points",
    "point_cells",
    "point_scores",
]
