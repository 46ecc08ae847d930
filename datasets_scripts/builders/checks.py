"""
Checks for published sets, whose faults are known to their users and part of the figures measured on them.

Counts are never changed: what is only odd is settled (a point beyond the edge belongs to the edge) and noted, and what
cannot be right (coordinates for another size of the image, no numbers at all) raises an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.checks import numbers_of, repeated_note, those_there


# What is odd about an image's points or boxes: what to list the image under, and what to note in its row.
Oddities = list[tuple[str, str]]

REPEATED_POINTS = "Images with the same point more than once, counted as often"

# How far beyond the edge something may be annotated, as a part of the image's side. Beyond it, the coordinates are
# for another image or another size of it.
_FARTHEST = 0.05
# The right and lower edges belong to the last pixels.
_LAST = 0.01


def settle_points(points: Sequence[Any], size: tuple[int, int], where: str) -> tuple[list[list[float]], Oddities]:
    """
    Check the points of an image, and move those a little outside to its edge.

    Args:
        points (`Sequence[Any]`): Each should be `[x, y]` in the image's pixels.
        size (`tuple[int, int]`): The image's width and height.
        where (`str`): What to call them in messages.

    Returns:
        `tuple[list[list[float]], Oddities]`: As many points, and what is odd about them.

    Raises:
        ValueError: If one is no point, or far outside the image.
    """
    width, height = size
    settled, num_moved = [], 0
    for place, point in enumerate(points):
        x, y = numbers_of(point, 2, f"{where}, point {place}")
        _check_distance((x, y, x, y), size, f"point {place} of {where}")
        inside = [min(max(x, 0.0), width - _LAST), min(max(y, 0.0), height - _LAST)]
        num_moved += x < 0 or y < 0 or x > width or y > height
        settled.append(inside)
    odd: Oddities = []
    if repeated := repeated_note(points):  # those that differ only beyond the edge are not the same
        odd.append((REPEATED_POINTS, repeated))
    if num_moved:
        moved = f"{num_moved} of the {len(points)} points outside the image, moved to its edge"
        odd.append(("Images with points a little outside, moved to the edge", moved))
    return settled, odd


def settle_boxes(boxes: Sequence[Any], size: tuple[int, int], where: str) -> tuple[list[list[float]], Oddities]:
    """
    Check the boxes of an image, and cut those that reach a little outside.

    Args:
        boxes (`Sequence[Any]`): Each should be `[x0, y0, x1, y1]` in the image's pixels.
        size (`tuple[int, int]`): The image's width and height.
        where (`str`): What to call them in messages.

    Returns:
        `tuple[list[list[float]], Oddities]`: As many boxes, and what is odd about them.

    Raises:
        ValueError: If one is no box, or far outside the image.
    """
    width, height = size
    settled: list[list[float]] = []
    num_turned = num_cut = num_empty = 0
    for place, box in enumerate(boxes):
        left, top, right, bottom = numbers_of(box, 4, f"{where}, box {place}")
        x0, x1 = sorted((left, right))
        y0, y1 = sorted((top, bottom))
        _check_distance((x0, y0, x1, y1), size, f"box {place} of {where}")
        num_turned += (x0, y0) != (left, top)
        num_cut += x0 < 0 or y0 < 0 or x1 > width or y1 > height
        num_empty += x0 == x1 or y0 == y1
        settled.append([max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))])
    odd: Oddities = []
    num_repeated = len(settled) - len({tuple(box) for box in settled})
    for number, what in (
        (num_repeated, "the same as another"),
        (num_turned, "written from another corner, turned"),
        (num_cut, "reaching a little outside, cut at the edge"),
        (num_empty, "without area"),
    ):
        if number:
            odd.append((f"Images with boxes {what}", f"{number} of the {len(boxes)} boxes {what}"))
    return settled, odd


def middles(boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> list[list[float]]:
    """
    Take the middles of boxes for points.

    Args:
        boxes (`Sequence[Sequence[float]]`): `[x0, y0, x1, y1]` in the image's pixels.
        size (`tuple[int, int]`): The image's width and height.

    Returns:
        `list[list[float]]`: `[x, y]`, within the image.
    """
    width, height = size
    return [[min((x0 + x1) / 2, width - _LAST), min((y0 + y1) / 2, height - _LAST)] for x0, y0, x1, y1 in boxes]


def note_of(odd: Oddities) -> str | None:
    """
    Make a row's note of what is odd about it.

    Args:
        odd (`Oddities`): What is odd.

    Returns:
        `str` or `None`: All of it, or nothing if there is nothing.
    """
    return "; ".join(note for _, note in odd) or None


def find_entry(folder: Path, names: Sequence[str], places: Sequence[str], where_to_get: str) -> Path:
    """
    Find a file or folder of a set, whose copies put it in different places under different names.

    Args:
        folder (`Path`): The folder of the set.
        names (`Sequence[str]`): What it may be called; the authors' name first.
        places (`Sequence[str]`): Folders in `folder` where it may be; `""` is `folder` itself.
        where_to_get (`str`): A sentence that says where it is to be had.

    Returns:
        `Path`: The first that is there.

    Raises:
        FileNotFoundError: If there is none.
    """
    if found := entry_if_there(folder, names, places):
        return found
    others = f" (or in {', '.join(place for place in places if place)} there)" if any(places) else ""
    raise FileNotFoundError(
        f"Expected {' or '.join(names)} in {folder}{others}, but there is none ({those_there(folder, '*')}). "
        f"{where_to_get}"
    )


def entry_if_there(folder: Path, names: Sequence[str], places: Sequence[str]) -> Path | None:
    """
    Find a file or folder of a set that it may do without.

    Args:
        folder, names, places: As [`find_entry`] takes them.

    Returns:
        `Path` or `None`: The first that is there.
    """
    for place in places:
        for name in names:
            if (folder / place / name).exists():
                return folder / place / name
    return None


def _check_distance(box: tuple[float, float, float, float], size: tuple[int, int], what: str) -> None:
    width, height = size
    x0, y0, x1, y1 = box
    reach_x, reach_y = _FARTHEST * width, _FARTHEST * height
    if x0 < -reach_x or y0 < -reach_y or x1 > width + reach_x or y1 > height + reach_y:
        at = f"({x0:g}, {y0:g})" + ("" if (x0, y0) == (x1, y1) else f" to ({x1:g}, {y1:g})")
        raise ValueError(
            f"Expected {what} to lie in the image of {width} x {height} pixels, but got {at}. The annotations are "
            "for another size of the image: get the one they were made for, or correct them."
        )
