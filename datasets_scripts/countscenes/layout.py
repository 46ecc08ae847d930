"""Layouts of `countscenes`: sizes, rotations and positions that leave enough of each object visible."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .config import SceneConfig
from .objects import ObjectClass
from .plan import ScenePlan, choose
from .sources import object_source
from .sprites import NUM_TONES, ObjectPatch, stretch_of


@dataclass
class Placement:
    """
    An object at its position: the class, its pixels, and the left and top edge of the patch in pixels of the image.
    """

    object_class: ObjectClass
    patch: ObjectPatch
    left: int
    top: int

    @property
    def point(self) -> tuple[float, float]:
        """`tuple[float, float]`: The point (x, y) that marks the object, in pixels of the image."""
        return self.left + self.patch.anchor[0], self.top + self.patch.anchor[1]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """`tuple[float, float, float, float]`: The box (x0, y0, x1, y1) around the whole object, in the same frame."""
        columns, rows = np.flatnonzero(self.patch.mask.any(axis=0)), np.flatnonzero(self.patch.mask.any(axis=1))
        return (
            float(self.left + columns[0]),
            float(self.top + rows[0]),
            float(self.left + columns[-1] + 1),
            float(self.top + rows[-1] + 1),
        )


class _NoSpaceError(RuntimeError):
    """An object found no position; the scene starts again with smaller ones."""


class Layout:
    """
    Positions the objects of one scene, of a mean diameter of `size` pixels, one after the other.

    Attributes:
        placements (`list[Placement]`): The objects with a position; later ones are on top of earlier ones.
        owner (`numpy.ndarray` of shape `(image_size, image_size)`): The index of the visible object at a pixel, or -1.
    """

    # Proposed positions before an object is made smaller, and how often it may be.
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
        self._piles = self._pile_circles(num_objects, size) if layout == "piles" else []
        # How near each object is, 0-1, the farthest first.
        self._depths = sorted(rng.random_sample(num_objects).tolist()) if layout == "perspective" else []
        if layout == "piles":
            self.max_hidden = min(0.45, 1.5 * config.max_hidden)
            self._closeness = 1.0 if config.max_hidden == 0 else 0.3 + 0.25 * rng.random_sample()

    def _cluster(self, num_objects: int, size: float) -> tuple[float, float, float]:
        """A square (left, top, side) with just enough space."""
        space = 0.7 + 0.7 * self.rng.random_sample()
        region = min(float(self.side), space * size * math.sqrt(num_objects) + 0.7 * size)
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

    def _pile_circles(self, num_objects: int, size: float) -> list[tuple[float, float, float]]:
        """Centres and radii (x, y, r) of one to three piles."""
        number = min(1 + int(3 * self.rng.random_sample()), max(1, num_objects // 4))
        radius = min(
            0.48 * self.side, (0.3 + 0.25 * self.rng.random_sample()) * size * math.sqrt(num_objects / number)
        )
        radius = round(radius * 64) / 64
        places = self.rng.random_sample((number, 2)) * (self.side - 2 * radius) + radius
        return [(x, y, radius + 0.3 * size) for x, y in places.tolist()]

    def place(self, object_class: ObjectClass, size: float, degrees: float, tone: int, look: int) -> None:
        """
        Position one object, drawn as by [`ObjectSource.patch`]; make it smaller if there is no space.

        Raises:
            RuntimeError: If there is no space for the smallest object either.
        """
        if self._depths:
            nearness = self._depths[len(self.placements)]
            size = max(self._smallest, round(size * (0.6 + 0.9 * nearness) * 64) / 64)
        for attempt in range(self._SHRINKS):
            patch = self.source.patch(object_class, size, degrees, tone, look)
            for left, top in self._propose(patch.mask.shape[0], size / 2, near=attempt < 2):
                if self._fits(patch, left, top):
                    self._put(Placement(object_class, patch, left, top), size / 2)
                    return
            size = max(4.0, round(size * 0.85 * 64) / 64)
        raise _NoSpaceError

    def _propose(self, patch_side: int, radius: float, near: bool) -> Iterator[tuple[int, int]]:
        """Yield corners at which the circle around the object is not too deep in any other."""
        reach = self.side - patch_side
        corners = self.rng.random_sample((self._PROPOSALS, 2))
        if near:
            left, top, region = self._region
            corners = np.clip(np.array([left, top]) + corners * (region - patch_side), 0, reach)
            if self._piles:
                self._move_to_piles(corners, patch_side)
            if self._depths:
                # A plane that begins a sixth below the top; nearer objects are lower.
                ground = (0.17 + 0.83 * self._depths[len(self.placements)]) * self.side
                corners[:, 1] = np.clip(ground - patch_side + (corners[:, 1] / self.side - 0.5) * radius, 0, reach)
            if self._cells:
                corners[0] = np.clip(np.array(self._cells[len(self.placements)]) - patch_side / 2, 0, reach)
        else:
            corners *= reach
        corners = corners.astype(np.int64)
        circles = self._circles[: len(self.placements)]
        centers = corners + patch_side / 2
        # Squares: a square root would do, but `hypot` ends in other bits on other machines.
        squared = ((centers[:, None] - circles[:, :2]) ** 2).sum(axis=2)  # (K, N)
        apart = (squared >= (self._closeness * (circles[:, 2] + radius)) ** 2).all(axis=1)
        for left, top in corners[apart].tolist():
            yield left, top

    def _move_to_piles(self, corners: np.ndarray, patch_side: int) -> None:
        """Change evenly distributed corners so that the objects are in the piles, most in the middle."""
        reach = self.side - patch_side
        x, y, radius = self._piles[len(self.placements) % len(self._piles)]
        shares = corners / max(reach, 1) - 0.5
        # The sum of two evenly distributed ones is in the middle more often than at the edge.
        shares += np.roll(shares, 1, axis=0)
        shares[(shares**2).sum(axis=1) > 1] *= 0.625  # piles are round
        corners[:] = np.clip(np.array([x, y]) - patch_side / 2 + shares * radius, 0, reach)

    def _covered(self, patch: ObjectPatch, left: int, top: int) -> np.ndarray:
        """How many visible pixels of each earlier object a patch here covers."""
        side = patch.mask.shape[0]
        owners = self.owner[top : top + side, left : left + side][patch.mask]
        return np.bincount(owners + 1, minlength=len(self.placements) + 1)[1:]

    def _fits(self, patch: ObjectPatch, left: int, top: int) -> bool:
        """Whether an object here leaves enough of every earlier one, and the points of all, visible."""
        side = patch.mask.shape[0]
        num_placed = len(self.placements)
        if self.owner[top : top + side, left : left + side].max() < 0:
            return True
        points = self._points[:num_placed] - (left, top)
        inside = points[((points >= 0) & (points < side)).all(axis=1)]
        if patch.mask[inside[:, 1], inside[:, 0]].any():
            return False
        hidden = self._hidden[:num_placed] + self._covered(patch, left, top)
        return bool((hidden <= self.max_hidden * np.array(self._areas)).all())

    def _put(self, placement: Placement, radius: float) -> None:
        patch, left, top = placement.patch, placement.left, placement.top
        side, place = patch.mask.shape[0], len(self.placements)
        self._hidden[:place] += self._covered(patch, left, top)
        self.owner[top : top + side, left : left + side][patch.mask] = place
        self._areas.append(int(patch.mask.sum()))
        self.placements.append(placement)
        self._circles[place] = (left + side / 2, top + side / 2, radius)
        self._points[place] = placement.point  # cut to whole pixels


def lay_out(rng: np.random.RandomState, config: SceneConfig, plan: ScenePlan) -> Layout:
    """
    Choose sizes, rotations and positions for all objects of a scene.

    Raises:
        RuntimeError: If they do not fit, however small.
    """
    num_objects = sum(plan.counts)
    largest = min(config.max_object_size, math.sqrt(config.max_fill / num_objects))
    smallest = min(config.min_object_size, largest)
    # In sixty-fourths of a pixel: the last bits of a power differ between machines.
    mean_size = round(config.image_size * smallest * (largest / smallest) ** rng.random_sample() * 64) / 64
    variations = 1 + config.size_variation * (2 * rng.random_sample(num_objects) - 1)
    # In some scenes all objects are more or less upright.
    max_rotation = config.max_rotation / (9 if rng.randint(2) else 1)
    rotations = max_rotation * (2 * rng.random_sample(num_objects) - 1)
    tones = rng.randint(NUM_TONES, size=num_objects)
    looks = rng.randint(2**16, size=num_objects) if object_source(config).has_looks else np.zeros(num_objects, int)
    members = [one for one, count in zip(plan.classes, plan.counts, strict=True) for _ in range(count)]
    # Large ones first: they find space, and small ones on top of them hide less.
    order = np.argsort(-variations, kind="stable")
    shuffled = rng.permutation(num_objects)

    for _ in range(12):
        layout = Layout(rng, config, num_objects, mean_size)
        try:
            for place in order:
                member = members[shuffled[place]]
                size = max(4.0, round(mean_size * variations[place] * stretch_of(member.coverage) * 64) / 64)
                layout.place(member, size, float(rotations[place]), int(tones[place]), int(looks[place]))
        except _NoSpaceError:
            mean_size *= 0.85
            continue
        return layout
    raise RuntimeError(
        f"Expected space for {num_objects} objects in an image of {config.image_size} pixels a side, but found none "
        f"with the scene configuration {config.name!r}. Raise image_size, or lower max_objects, max_distractors or "
        "max_fill."
    )
