"""Points in MATLAB's `.mat` files, as crowd counting sets distribute them."""

from pathlib import Path
from typing import Any

import numpy as np


def read_mat_points(file: Path) -> tuple[list[list[float]], int | None]:
    """
    Read the points `[x, y]` of an image as written in `image_info`, a cell with a structure of `location` and
    `number`, and the number that the file states, if it states one.

    The `.mat` file, up to version 7.2, holds numbers and no code.

    Raises:
        ImportError: If scipy is not installed.
        ValueError: If the file cannot be read or holds something else.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise ImportError(
            f"Expected scipy for {file}, but it is not installed. Install it: pip install 'count-clip[data]'."
        ) from error
    try:
        content = loadmat(file, variable_names=["image_info"])
    except (MatReadError, NotImplementedError, OSError, TypeError, ValueError, IndexError, EOFError) as error:
        raise ValueError(
            f"Expected {file} to be a .mat file of version 7.2 or before, but it cannot be read: "
            f"{error or 'it is truncated'}. Download it again, or save it with '-v7'."
        ) from error
    info = _only(content.get("image_info"), file, "image_info, a cell with one structure")
    if not isinstance(info, np.void) or info.dtype.names is None or "location" not in info.dtype.names:
        raise _other_shape(file, "a structure with location in image_info", info)
    points = np.asarray(info["location"])
    if points.size == 0:
        points = np.zeros((0, 2))
    if points.dtype.kind not in "fiu" or points.ndim != 2 or points.shape[1] != 2:
        raise _other_shape(file, "a row x, y for each point in location", points)
    number = int(_only(info["number"], file, "one number in number")) if "number" in info.dtype.names else None
    return points.astype(np.float64).tolist(), number


def _only(value: Any, file: Path, expected: str) -> Any:
    """The one element in nested arrays of one element each."""
    while isinstance(value, np.ndarray):
        if value.size != 1:
            raise _other_shape(file, expected, value)
        value = value.flat[0]
    if value is None:
        raise _other_shape(file, expected, value)
    return value


def _other_shape(file: Path, expected: str, got: Any) -> ValueError:
    described = f"{got.dtype} of shape {got.shape}" if isinstance(got, np.ndarray) else type(got).__name__
    return ValueError(f"Expected {expected} of {file}, but got {described}. Check that it is the right file.")
