"""What one of several processes does that measure together: each adds a part of the rows of the same data."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from count_clip.evaluation.metrics.modules import load_metric


OPTIONS: dict[str, dict[str, Any]] = {
    "counting_accuracy": {},
    "counting_calibration": {"scale": 3.0},
    "counting_error": {},
    "game": {},
    "point_matching": {"distance": 4.0},
    "praco": {},
}
CONFIGS = {"counting_accuracy": "scores", "game": "points"}


def columns(name: str) -> dict[str, list[Any]]:
    """The same data in every process."""
    generator = np.random.default_rng(3)
    numbers = generator.integers(2, 11, size=21).astype(float).tolist()
    points = [generator.uniform(0, 16, (int(n), 2)).tolist() for n in generator.integers(0, 6, size=21)]
    found = [generator.uniform(0, 16, (int(n), 2)).tolist() for n in generator.integers(0, 6, size=21)]
    if name in ("counting_accuracy", "counting_calibration"):
        return {"predictions": generator.normal(size=(21, 9)).tolist(), "references": numbers}
    if name == "counting_error":
        return {"predictions": generator.uniform(0, 12, 21).tolist(), "references": numbers}
    if name == "game":
        return {"predictions": generator.random((21, 16, 16)).tolist(), "references": points}
    if name == "point_matching":
        return {"predictions": found, "references": points}
    negatives = [generator.uniform(0, 3, int(n)).tolist() for n in generator.integers(1, 4, size=21)]
    return {"predictions": numbers[::-1], "negative_predictions": negatives, "references": numbers}


def measure(rank: int, num_processes: int, folder: str) -> None:
    """Measure this process's rows with every metric, and write what `compute` gives to a file of its own."""
    results = []
    for name, options in OPTIONS.items():
        metric = load_metric(
            name,
            CONFIGS.get(name),
            process_id=rank,
            num_process=num_processes,
            experiment_id="together",
            cache_dir=folder,
        )
        rows = {column: values[rank::num_processes] for column, values in columns(name).items()}
        half = len(rows["references"]) // 2
        metric.add_batch(**{column: values[:half] for column, values in rows.items()})
        metric.add_batch(**{column: values[half:] for column, values in rows.items()})
        results.append(metric.compute(**options))
    Path(folder, f"{rank}.json").write_text(json.dumps(results), encoding="utf-8")
