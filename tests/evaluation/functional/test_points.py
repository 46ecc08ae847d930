import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from count_clip.evaluation.functional import (
    grid_error,
    map_cells,
    match_points,
    mean_absolute_error,
    point_cells,
    point_scores,
)


sizes = st.tuples(st.integers(8, 40), st.integers(8, 40))


@given(sizes, st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_cells_of_a_map_are_sums_of_slices(size, level, seed):
    density = np.random.default_rng(seed).random(size)
    cells = map_cells(density, level)
    n = 2**level
    for row, column in itertools.product(range(n), repeat=2):
        rows = slice(row * size[0] // n, (row + 1) * size[0] // n)
        columns = slice(column * size[1] // n, (column + 1) * size[1] // n)
        assert cells[row, column] == pytest.approx(density[rows, columns].sum())


@given(sizes, st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_points_are_counted_in_the_cell_of_their_pixel(size, level, seed):
    height, width = size
    generator = np.random.default_rng(seed)
    pixels = np.stack([generator.integers(0, width, 30), generator.integers(0, height, 30)], axis=1)
    density = np.zeros(size)
    np.add.at(density, (pixels[:, 1], pixels[:, 0]), 1)
    points = pixels + generator.random((30, 2)) * 0.999
    np.testing.assert_array_equal(point_cells(points, size, level), map_cells(density, level))


def test_points_on_the_far_border_belong_to_the_last_cell():
    cells = point_cells([[10, 8], [0, 0]], (8, 10), 1)
    assert cells.tolist() == [[1, 0], [0, 1]]
    assert point_cells([], (8, 10), 1).sum() == 0


@given(sizes, st.integers(0, 2**32 - 1))
def test_finer_grids_never_have_smaller_errors(size, seed):
    predicted, true = np.random.default_rng(seed).random((2, *size))
    errors = [grid_error(map_cells(predicted, level), map_cells(true, level)) for level in range(4)]
    assert errors[0] == pytest.approx(mean_absolute_error([predicted.sum()], [true.sum()]))
    assert all(coarse <= fine + 1e-9 for coarse, fine in itertools.pairwise(errors))
    assert errors[3] <= np.abs(predicted - true).sum() + 1e-9


def test_grid_error_rejects_cells_of_two_grids():
    with pytest.raises(ValueError, match=r"\(2, 2\) predicted and \(4, 4\) true"):
        grid_error(np.zeros((2, 2)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="`level` of 0 or more"):
        map_cells(np.ones((8, 8)), -1)
    with pytest.raises(ValueError, match="rows differ in length"):
        map_cells([[1, 2], [1]], 0)


coordinates = st.integers(0, 12).map(lambda x: x / 2)
few_points = st.lists(st.tuples(coordinates, coordinates), max_size=5)


def _best_by_trying_all(predicted, true, distance):
    """The most pairs, and the least sum of distances among those, of all ways to pair points."""
    distances = [np.hypot(a - c, b - d) for a, b in predicted for c, d in true]
    apart = np.reshape(distances, (len(predicted), len(true)))
    if len(predicted) > len(true):
        apart = apart.T
    best = (0, 0.0)
    for columns in itertools.permutations(range(apart.shape[1]), apart.shape[0]):
        taken = [apart[row, column] for row, column in enumerate(columns) if apart[row, column] <= distance]
        best = min(best, (-len(taken), sum(taken)))
    return -best[0], best[1]


@settings(deadline=None)
@given(few_points, few_points, st.sampled_from([0.5, 1.0, 2.5, 20.0]))
def test_hungarian_pairs_are_the_best_of_all(predicted, true, distance):
    pairs = match_points(predicted, true, distance)
    assert len(set(pairs[:, 0].tolist())) == len(set(pairs[:, 1].tolist())) == len(pairs)
    apart = [np.hypot(*np.subtract(predicted[i], true[j])) for i, j in pairs]
    assert all(x <= distance for x in apart)
    number, total = _best_by_trying_all(predicted, true, distance)
    assert len(pairs) == number
    assert sum(apart) == pytest.approx(total)


@pytest.mark.parametrize("distance", [3.0, 15.0, 1e4])
def test_hungarian_pairs_of_many_points_agree_with_scipy_on_all_of_them(distance):
    generator = np.random.default_rng(8)
    predicted, true = generator.uniform(0, 200, (300, 2)), generator.uniform(0, 200, (260, 2))
    apart = np.linalg.norm(predicted[:, None] - true[None], axis=2)
    costs = np.where(apart <= distance, apart, 1e7)
    rows, columns = linear_sum_assignment(costs)
    near = costs[rows, columns] < 1e7
    pairs = match_points(predicted, true, distance)
    assert len(pairs) == near.sum()
    assert apart[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(costs[rows, columns][near].sum())


@given(few_points, few_points, st.sampled_from([0.5, 2.5]))
def test_greedy_takes_the_nearest_pair_that_is_left(predicted, true, distance):
    left = {(i, j): np.hypot(*np.subtract(a, b)) for i, a in enumerate(predicted) for j, b in enumerate(true)}
    expected = []
    while left and min(left.values()) <= distance:
        i, j = min(left, key=lambda pair: (left[pair], pair))
        expected.append([i, j])
        left = {pair: d for pair, d in left.items() if pair[0] != i and pair[1] != j}
    assert match_points(predicted, true, distance, "greedy").tolist() == sorted(expected)


def test_each_object_can_have_a_different_distance():
    predicted, true = [[0, 0], [10, 0]], [[0, 3], [10, 3]]
    assert match_points(predicted, true, [2, 4]).tolist() == [[1, 1]]
    assert match_points(predicted, true, 3).tolist() == [[0, 0], [1, 1]], "just that distance is near enough"


def test_point_scores_by_hand():
    # 3 of 4 points are right, and 3 of 6 objects found: over all images together, not the mean of the images'.
    assert point_scores([1, 2], [1, 3], [4, 2]) == (0.75, 0.5, pytest.approx(2 / (4 / 3 + 2)))
    assert point_scores([0], [0], [3]) == (0, 0, 0)
    assert point_scores([0], [0], [0]) == (0, 0, 0)


def test_error_without_scipy_names_the_remedies(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match='count-clip\\[metrics\\]".*greedy'):
        match_points([[0, 0]], [[0, 0]], 1)
    assert match_points([[0, 0]], [[0, 0]], 1, "greedy").tolist() == [[0, 0]]
