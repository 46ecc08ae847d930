"""Where the objects of a `countscenes` scene lie: sizes, turns and places that leave enough of each to be seen."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .scene_config import SceneConfig
from .scene_objects import NUM_TONES, ObjectKind, ObjectPatch, make_patch
from .scene_plan import ScenePlan, choose


@dataclass
class Placement:
    """
    An object at its place.

    Args:
        kind (`ObjectKind`): What it is.
        patch (`ObjectPatch`): How it looks.
        left (`int`): Where the patch begins, in pixels of the picture.
        top (`int`): Likewise, from the top.
    """

    kind: ObjectKind
    patch: ObjectPatch
    left: int
    top: int

    @property
    def point(self) -> tuple[float, float]:
        """`tuple[float, float]`: The point (x, y) that marks the object, in pixels of the picture."""
        return self.left + self.patch.anchor[0], self.top + self.patch.anchor[1]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """`tuple[float, float, float, float]`: The box (x0, y0, x1, y1) around the whole object, likewise."""
        columns, rows = np.flatnonzero(self.patch.mask.any(axis=0)), np.flatnonzero(self.patch.mask.any(axis=1))
        return (
            float(self.left + columns[0]),
            float(self.top + rows[0]),
            float(self.left + columns[-1] + 1),
            float(self.top + rows[-1] + 1),
        )


class _NoRoomError(RuntimeError):
    """An object found no place; the scene is begun again with smaller ones."""


class Layout:
    """
    Gives the objects of one scene their places, one after the other.

    Args:
        rng (`numpy.random.RandomState`): Where the choices come from.
        config (`SceneConfig`): The configuration.
        num_objects (`int`): How many objects there will be.
        size (`float`): Their mean diameter in pixels.

    Attributes:
        placements (`list[Placement]`): The objects that have a place; later ones lie on top of earlier ones.
        owner (`numpy.ndarray` of shape `(image_size, image_size)`): Which of them one sees at a pixel, or -1.
    """

    # Tries for a place before an object is made smaller, and how often it may be.
    _PROPOSALS = 24
    _SHRINKS = 6

    def __init__(self, rng: np.random.RandomState, config: SceneConfig, num_objects: int, size: float) -> None:
        self.rng = rng
        self.side = config.image_size
        self.max_hidden = config.max_hidden
        self.placements: list[Placement] = []
        self.owner = np.full((self.side, self.side), -1, dtype=np.int16)
        self._circles = np.empty((num_objects, 3))  # x, y, radius
        self._points = np.empty((num_objects, 2), dtype=np.int64)
        self._areas: list[int] = []
        self._hidden = np.zeros(num_objects, dtype=np.int64)  # pixels that later ones cover
        # How deep the circles around two objects may enter each other: in some scenes not at all.
        depth = max(0.0, rng.random_sample() - 0.3)
        self._closeness = 1.0 - (depth if config.max_hidden > 0 else 0.0)
        layout = choose(rng, config.layouts)
        self._region = self._cluster(num_objects, size) if layout == "clustered" else (0.0, 0.0, self.side)
        self._cells = self._grid(num_objects) if layout == "rows" else []

    def _cluster(self, num_objects: int, size: float) -> tuple[float, float, float]:
        """A square (left, top, side) that has just enough room."""
        room = 0.7 + 0.7 * self.rng.random_sample()
        region = min(float(self.side), room * size * math.sqrt(num_objects) + 0.7 * size)
        left, top = self.rng.random_sample(2) * (self.side - region)
        return left, top, region

    def _grid(self, num_objects: int) -> list[tuple[float, float]]:
        """Centres of the cells of a grid with few cells to spare, in random order, each a little off as if by hand."""
        columns = math.ceil(math.sqrt(num_objects * (0.7 + 0.6 * self.rng.random_sample())))
        rows = math.ceil(num_objects / columns)
        width = (0.75 + 0.25 * self.rng.random_sample()) * self.side
        left, top = self.rng.random_sample(2) * (self.side - width)
        cells = self.rng.permutation(rows * columns)[:num_objects]
        offsets = 0.4 * self.rng.random_sample() * (self.rng.random_sample((num_objects, 2)) - 0.5)
        return [
            (left + (cell % columns + 0.5 + x) * width / columns, top + (cell // columns + 0.5 + y) * width / rows)
            for cell, (x, y) in zip(cells.tolist(), offsets.tolist(), strict=True)
        ]

    def place(self, kind: ObjectKind, size: float, degrees: float, tone: int) -> None:
        """
        Give one object a place, and make it smaller if it finds none.

        Args:
            kind (`ObjectKind`): What it is.
            size (`float`): Diameter in pixels.
            degrees (`float`): Clockwise turn.
            tone (`int`): Which of the brightnesses.
        """
        for attempt in range(self._SHRINKS):
            patch = make_patch(kind, size, degrees, tone)
            for left, top in self._propose(patch.mask.shape[0], size / 2, near=attempt < 2):
                if self._fits(patch, left, top):
                    self._put(kind, patch, left, top, size / 2)
                    return
            size = max(4.0, round(size * 0.85 * 64) / 64)
        raise _NoRoomError

    def _propose(self, patch_side: int, radius: float, near: bool) -> Iterator[tuple[int, int]]:
        """Yield corners at which the circle around the object is not too deep in any other."""
        reach = self.side - patch_side
        corners = self.rng.random_sample((self._PROPOSALS, 2))
        if near:
            left, top, region = self._region
            corners = np.clip(np.array([left, top]) + corners * (region - patch_side), 0, reach)
            if self._cells:
                corners[0] = np.clip(np.array(self._cells[len(self.placements)]) - patch_side / 2, 0, reach)
        else:
            corners *= reach
        corners = corners.astype(np.int64)
        num_placed = len(self.placements)
        centers = corners + patch_side / 2
        circles = self._circles[:num_placed]
        # Squares: a square root would do, but `hypot` ends in other bits on other machines.
        squared = ((centers[:, None] - circles[:, :2]) ** 2).sum(axis=2)  # (K, N)
        apart = (squared >= (self._closeness * (circles[:, 2] + radius)) ** 2).all(axis=1)
        for left, top in corners[apart].tolist():
            yield left, top

    def _fits(self, patch: ObjectPatch, left: int, top: int) -> bool:
        """Whether an object here leaves enough of every earlier one, and the points of all, to be seen."""
        side = patch.mask.shape[0]
        seen = self.owner[top : top + side, left : left + side]
        num_placed = len(self.placements)
        if seen.max() < 0:
            return True
        points = self._points[:num_placed] - (left, top)
        inside = points[((points >= 0) & (points < side)).all(axis=1)]
        if patch.mask[inside[:, 1], inside[:, 0]].any():
            return False
        covered = np.bincount(seen[patch.mask] + 1, minlength=num_placed + 1)[1:]
        hidden = self._hidden[:num_placed] + covered
        return bool((hidden <= self.max_hidden * np.array(self._areas)).all())

    def _put(self, kind: ObjectKind, patch: ObjectPatch, left: int, top: int, radius: float) -> None:
        side = patch.mask.shape[0]
        place = len(self.placements)
        seen = self.owner[top : top + side, left : left + side]
        covered = np.bincount(seen[patch.mask] + 1, minlength=place + 1)[1:]
        self._hidden[:place] += covered
        seen[patch.mask] = place
        self._areas.append(int(patch.mask.sum()))
        placement = Placement(kind, patch, left, top)
        self.placements.append(placement)
        self._circles[place] = (left + side / 2, top + side / 2, radius)
        self._points[place] = placement.point  # cut to whole pixels


def lay_out(rng: np.random.RandomState, config: SceneConfig, plan: ScenePlan) -> Layout:
    """
    Choose sizes, turns and places for all objects of a scene.

    Args:
        rng (`numpy.random.RandomState`): Where the choices come from.
        config (`SceneConfig`): The configuration.
        plan (`ScenePlan`): What the scene shows.

    Returns:
        `Layout`: All objects at their places.

    Raises:
        RuntimeError: If they do not fit, however small.
    """
    num_objects = sum(plan.counts)
    largest = min(config.max_object_size, math.sqrt(config.max_fill / num_objects))
    smallest = min(config.min_object_size, largest)
    # In sixty-fourths of a pixel: the last bits of a power differ between machines.
    mean_size = round(config.image_size * smallest * (largest / smallest) ** rng.random_sample() * 64) / 64
    variations = 1 + config.size_variation * (2 * rng.random_sample(num_objects) - 1)
    # In some scenes everything lies more or less upright.
    max_rotation = config.max_rotation / (9 if rng.randint(2) else 1)
    rotations = max_rotation * (2 * rng.random_sample(num_objects) - 1)
    tones = rng.randint(NUM_TONES, size=num_objects)
    members = [kind for kind, count in zip(plan.kinds, plan.counts, strict=True) for _ in range(count)]
    # Large ones first: they find room, and small ones on top of them hide less.
    order = np.argsort(-variations, kind="stable")
    shuffled = rng.permutation(num_objects)

    for _ in range(12):
        layout = Layout(rng, config, num_objects, mean_size)
        try:
            for place in order:
                size = max(4.0, round(mean_size * variations[place] * 64) / 64)
                layout.place(members[shuffled[place]], size, float(rotations[place]), int(tones[place]))
        except _NoRoomError:
            mean_size *= 0.85
            continue
        return layout
    raise RuntimeError(
        f"Expected room for {num_objects} objects in a picture of {config.image_size} pixels a side, but found none "
        f"with the scene configuration {config.name!r}. Raise image_size, or lower max_objects, max_distractors or "
        "max_fill."
    )
