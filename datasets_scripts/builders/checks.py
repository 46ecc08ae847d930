"""
Checks for published sets, whose errors are known to their users and part of the figures measured on them.

Counts are never changed: what is only unusual is fixed (a point beyond the edge is moved to the edge) and noted, and
what cannot be correct (coordinates for another size of the image, no numbers at all) raises an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.checks import numbers_of, repeated_note
from ..formats.findings import Findings


# What is unusual about an image's points or boxes: the finding that lists the image, and the note of its row.
Oddities = list[tuple[str, str]]

REPEATED_POINTS = "Images with the same point more than once, counted as often"

# How far beyond the edge something may be annotated, as a share of the image's side. Beyond it, the coordinates are
# for another image or another size of it.
_FARTHEST = 0.05
# The right and lower edges are the last pixels.
_LAST = 0.01


def fix_points(points: Sequence[Any], size: tuple[int, int], where: str) -> tuple[list[list[float]], Oddities]:
    """
    Check the points `[x, y]` of an image of a width and height, and move those a little outside to its edge.

    Returns as many points, and what is unusual; raises `ValueError`, which names the annotation (`where`), if one is
    no point or far outside the image.
    """
    width, height = size
    fixed, num_moved = [], 0
    for place, point in enumerate(points):
        x, y = numbers_of(point, 2, f"{where}, point {place}")
        _check_distance((x, y, x, y), size, f"point {place} of {where}")
        num_moved += x < 0 or y < 0 or x > width or y > height
        fixed.append([min(max(x, 0.0), width - _LAST), min(max(y, 0.0), height - _LAST)])
    odd: Oddities = []
    if repeated := repeated_note(points):  # points that differ only beyond the edge are not the same
        odd.append((REPEATED_POINTS, repeated))
    if num_moved:
        moved = f"{num_moved} of the {len(points)} points outside the image, moved to its edge"
        odd.append(("Images with points a little outside, moved to the edge", moved))
    return fixed, odd


def fix_boxes(boxes: Sequence[Any], size: tuple[int, int], where: str) -> tuple[list[list[float]], Oddities]:
    """
    Check the boxes `[x0, y0, x1, y1]` of an image as [`fix_points`] does, and cut those that reach a little outside.
    """
    width, height = size
    fixed: list[list[float]] = []
    num_turned = num_cut = num_empty = 0
    for place, box in enumerate(boxes):
        left, top, right, bottom = numbers_of(box, 4, f"{where}, box {place}")
        x0, x1 = sorted((left, right))
        y0, y1 = sorted((top, bottom))
        _check_distance((x0, y0, x1, y1), size, f"box {place} of {where}")
        num_turned += (x0, y0) != (left, top)
        num_cut += x0 < 0 or y0 < 0 or x1 > width or y1 > height
        num_empty += x0 == x1 or y0 == y1
        fixed.append([max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))])
    num_repeated = len(fixed) - len({tuple(box) for box in fixed})
    odd = [
        (f"Images with boxes {what}", f"{number} of the {len(boxes)} boxes {what}")
        for number, what in (
            (num_repeated, "the same as another"),
            (num_turned, "written from another corner, turned"),
            (num_cut, "reaching a little outside, cut at the edge"),
            (num_empty, "without area"),
        )
        if number
    ]
    return fixed, odd


def middles(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> list[list[float]]:
    """Return the middles `[x, y]` of boxes, within the image of a width and height."""
    width, height = size
    return [[min((x0 + x1) / 2, width - _LAST), min((y0 + y1) / 2, height - _LAST)] for x0, y0, x1, y1 in boxes]


def record(odd: Oddities, place: str, findings: Findings) -> str | None:
    """Add what is unusual about an image to the findings, and return the note of its row, if there is any."""
    for what, _ in odd:
        findings.add(what, place)
    return "; ".join(note for _, note in odd) or None


def entry_if_there(folder: Path, names: Sequence[str], places: Sequence[str]) -> Path | None:
    """Return the first file or folder of some names in some places of a folder, if there is one."""
    candidates = (folder / place / name for place in places for name in names)
    return next((path for path in candidates if path.exists()), None)


def _check_distance(box: tuple[float, float, float, float], size: tuple[int, int], what: str) -> None:
    width, height = size
    x0, y0, x1, y1 = box
    reach_x, reach_y = _FARTHEST * width, _FARTHEST * height
    if x0 < -reach_x or y0 < -reach_y or x1 > width + reach_x or y1 > height + reach_y:
        at = f"({x0:g}, {y0:g})" + ("" if (x0, y0) == (x1, y1) else f" to ({x1:g}, {y1:g})")
        raise ValueError(
            f"Expected {what} to be inside the image of {width} x {height} pixels, but got {at}. The annotations are "
            "for another size of the image: get the one they were made for, or correct them."
        )
