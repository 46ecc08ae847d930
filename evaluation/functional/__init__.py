"""
Counting metrics as pure functions: NumPy in, floats out. Import them from here.
"""

from .accuracy import (
    NUMBERS,
    Calibration,
    calibration,
    check_numbers,
    confusion_matrix,
    counting_accuracy,
    mean_deviation,
    off_by_one_accuracy,
    predicted_numbers,
)
from .errors import (
    CountingErrors,
    MeanBaseline,
    counting_errors,
    mean_absolute_error,
    mean_baseline,
    normalized_absolute_error,
    root_mean_squared_error,
    squared_relative_error,
)
from .intervals import Difference, bootstrap_difference, bootstrap_interval, with_intervals
from .points import (
    MATCHINGS,
    PointScores,
    as_points,
    grid_error,
    map_cells,
    match_points,
    point_cells,
    point_scores,
)
from .prompts import MosaicScores, mosaic_scores, normalized_mean_of_negatives, positive_class_count_nearness


__all__ = [
    "MATCHINGS",
    "NUMBERS",
    "Calibration",
    "CountingErrors",
    "Difference",
    "MeanBaseline",
    "MosaicScores",
    "PointScores",
    "as_points",
    "bootstrap_difference",
    "bootstrap_interval",
    "calibration",
    "check_numbers",
    "confusion_matrix",
    "counting_accuracy",
    "counting_errors",
    "grid_error",
    "map_cells",
    "match_points",
    "mean_absolute_error",
    "mean_baseline",
    "mean_deviation",
    "mosaic_scores",
    "normalized_absolute_error",
    "normalized_mean_of_negatives",
    "off_by_one_accuracy",
    "point_cells",
    "point_scores",
    "positive_class_count_nearness",
    "predicted_numbers",
    "root_mean_squared_error",
    "squared_relative_error",
    "with_intervals",
]
