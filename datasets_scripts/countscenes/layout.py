"""Where the objects of a `countscenes` scene lie: sizes, turns and places that leave enough of each to be seen."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .config import SceneConfig
from .objects import NUM_TONES, ObjectPatch
from .plan import ScenePlan, choose
from .sources import Kind, object_source


@dataclass
class Placement:
    """
    An object at its place.

    Args:
        kind (`Kind`): What it is.
        patch (`ObjectPatch`): How it looks.
        left (`int`): Where the patch begins, in pixels of the image.
        top (`int`): Likewise, from the top.
    """

    kind: Kind
    patch: ObjectPatch
    left: int
    top: int

    @property
    def point(self) -> tuple[float, float]:
        """`tuple[float, float]`: The point (x, y) that marks the object, in pixels of the image."""
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
        self.source = object_source(config)
        self.max_hidden = config.max_hidden
        self._smallest = max(4.0, min(size, round(0.9 * config.min_object_size * self.side * 64) / 64))
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
        self._region = self._cluster(num_objects, size) if layout == "clustered" else (0.0, 0.0, float(self.side))
        self._cells = self._grid(num_objects) if layout == "rows" else []
        self._heaps = self._centers_of_heaps(num_objects, size) if layout == "piles" else []
        self._depths = self._plane(num_objects) if layout == "perspective" else []
        if layout == "piles":
            self.max_hidden = min(0.45, 1.5 * config.max_hidden)
            self._closeness = 1.0 if config.max_hidden == 0 else 0.3 + 0.25 * rng.random_sample()

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

    def _centers_of_heaps(self, num_objects: int, size: float) -> list[tuple[float, float, float]]:
        """Middles and radii (x, y, r) of one to three piles, in which all objects lie one on top of the other."""
        number = min(1 + int(3 * self.rng.random_sample()), max(1, num_objects // 4))
        radius = min(
            0.48 * self.side, (0.3 + 0.25 * self.rng.random_sample()) * size * math.sqrt(num_objects / number)
        )
        radius = round(radius * 64) / 64
        places = self.rng.random_sample((number, 2)) * (self.side - 2 * radius) + radius
        return [(x, y, radius + 0.3 * size) for x, y in places.tolist()]

    def _plane(self, num_objects: int) -> list[float]:
        """How near each object is, 0-1, the farthest first."""
        return sorted(self.rng.random_sample(num_objects).tolist())

    def place(self, kind: Kind, size: float, degrees: float, tone: int, look: int) -> None:
        """
        Give one object a place, and make it smaller if it finds none.

        Args:
            kind (`Kind`): What it is.
            size (`float`): Diameter in pixels.
            degrees (`float`): Clockwise turn.
            tone (`int`): Which of the brightnesses.
            look (`int`): Which of its looks, where it has several.
        """
        if self._depths:
            nearness = self._depths[len(self.placements)]
            size = max(self._smallest, round(size * (0.6 + 0.9 * nearness) * 64) / 64)
        for attempt in range(self._SHRINKS):
            patch = self.source.patch(kind, size, degrees, tone, look)
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
            if self._heaps:
                self._move_to_heaps(corners, patch_side)
            if self._depths:
                # A plane that begins a sixth below the top; who is nearer stands lower.
                ground = (0.17 + 0.83 * self._depths[len(self.placements)]) * self.side
                corners[:, 1] = np.clip(ground - patch_side + (corners[:, 1] / self.side - 0.5) * radius, 0, reach)
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

    def _move_to_heaps(self, corners: np.ndarray, patch_side: int) -> None:
        """Change corners spread evenly over the image so that the objects lie in the piles, most in the middle."""
        reach = self.side - patch_side
        x, y, radius = self._heaps[len(self.placements) % len(self._heaps)]
        shares = corners / max(reach, 1) - 0.5
        # The sum of two of the evenly spread ones is in the middle more often than at the edge.
        shares += np.roll(shares, 1, axis=0)
        shares[(shares**2).sum(axis=1) > 1] *= 0.625  # piles are round
        corners[:] = np.clip(np.array([x, y]) - patch_side / 2 + shares * radius, 0, reach)

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

    def _put(self, kind: Kind, patch: ObjectPatch, left: int, top: int, radius: float) -> None:
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
    source = object_source(config)
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
    looks = rng.randint(2**16, size=num_objects) if source.has_looks else np.zeros(num_objects, int)
    members = [kind for kind, count in zip(plan.kinds, plan.counts, strict=True) for _ in range(count)]
    # Large ones first: they find room, and small ones on top of them hide less.
    order = np.argsort(-variations, kind="stable")
    shuffled = rng.permutation(num_objects)

    for _ in range(12):
        layout = Layout(rng, config, num_objects, mean_size)
        try:
            for place in order:
                kind = members[shuffled[place]]
                size = max(4.0, round(mean_size * variations[place] * source.stretch(kind) * 64) / 64)
                turn, tone, look = float(rotations[place]), int(tones[place]), int(looks[place])
                layout.place(kind, size, turn, tone, look)
        except _NoRoomError:
            mean_size *= 0.85
            continue
        return layout
    raise RuntimeError(
        f"Expected room for {num_objects} objects in an image of {config.image_size} pixels a side, but found none "
        f"with the scene configuration {config.name!r}. Raise image_size, or lower max_objects, max_distractors or "
        "max_fill."
    )
