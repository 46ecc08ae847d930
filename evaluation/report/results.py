"""Reading and checking the result files of `count-clip evaluate`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..functional import NUMBERS
from ..records.run_record import FORMAT


BENCHMARKS = ("countbench", "density", "praco", "classification", "linear-probe", "few-shot", "retrieval", "relevance")
"""The benchmarks by their names in result files, in the order of the page."""

# Not allowed on a page: HTML has no control characters, UTF-8 no halves of surrogate pairs.
_UNSHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LARGEST = 10**30  # its square is still a float
# For the benchmarks with counts or classes: the keys of the rows, and in a row of the truth and the prediction.
_ROWS = {
    "countbench": ("rows", "number", "prediction"),
    "density": ("predictions", "count", "predicted"),
    "praco": ("images", "count", "predicted"),
    "classification": ("rows", "label", "prediction"),
    "linear-probe": ("rows", "label", "prediction"),
}


class ResultError(ValueError):
    """A file holds no result that can be reported; the message names it."""


@dataclass(frozen=True)
class Prediction:
    """One prediction of a model."""

    index: int
    """Row of the data."""
    image_id: str | None
    text: str | None
    """The prompt or the true class; `None` if the file does not have it."""
    true: float
    """The true count; 1 for a class."""
    predicted: float
    """The predicted count; for a class, 1 if it is right and 0 if not."""
    role: str | None = None
    """The role of the prompt in PrACo."""
    scores: tuple[float, ...] | None = None
    """The scores of the numbers two to ten in CountBench."""

    @property
    def key(self) -> tuple[int, str]:
        """What identifies the same prediction of another model."""
        return self.index, "" if self.scores is not None else self.text or ""

    @property
    def image(self) -> str:
        """The image's id, or the number of its row."""
        return f"row {self.index}" if self.image_id is None else self.image_id

    @property
    def error(self) -> float:
        """Predicted minus true, in objects."""
        return self.predicted - self.true


@dataclass(frozen=True)
class Result:
    """One result file."""

    file: str
    sha256: str
    """Of the file."""
    content: Mapping[str, Any]
    """The whole file."""
    predictions: Sequence[Prediction]
    """Empty for benchmarks without counts or classes."""
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    """The ends of the 95 % intervals that the file holds."""

    @property
    def benchmark(self) -> str:
        """One of `BENCHMARKS`."""
        return str(self.content["benchmark"])

    @property
    def run(self) -> Mapping[str, Any]:
        """The record of the run."""
        run: Mapping[str, Any] = self.content["run"]
        return run

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.run["model"]["name"])

    @property
    def data(self) -> Mapping[str, Any]:
        """What is known of the data: `name`, `config`, `split`, `revision`, `fingerprint`, `rows`, `seed`, ..."""
        return {key: value for key, value in self.run["data"].items() if value is not None}

    @property
    def skipped(self) -> Sequence[Mapping[str, Any]]:
        """The rows that could not be measured."""
        return self.content.get("skipped") or []

    @property
    def missing(self) -> int:
        """How many rows could not be measured."""
        missing = self.content.get("missing")
        return len(self.skipped) if missing is None else int(missing)

    @property
    def limited(self) -> bool:
        """Whether only a part of the data was to be measured."""
        return bool(self.content.get("partial")) and not self.missing

    @property
    def measured(self) -> int | None:
        """How many rows were measured; images for PrACo."""
        for name in ("n", "num_images"):
            if isinstance(self.content.get(name), int):
                return int(self.content[name])
        rows = self.data.get("rows")
        return len(self.predictions) or (None if rows is None else int(rows) - self.missing)


def read_result(path: str | Path) -> Result:
    """
    Read and check one result file that `count-clip evaluate ... --json FILE` wrote.

    Raises a [`ResultError`] if the file cannot be read, is not JSON or cut off, is of an unknown benchmark or another
    format, has no rows, holds NaN or an infinite number, or lacks something that its benchmark needs.
    """
    try:
        data = Path(path).expanduser().read_bytes()
        content = json.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ResultError(f"{path} is not a result file: it is not text in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise ResultError(_why_not_json(path, data, error)) from error
    except RecursionError as error:
        raise ResultError(f"{path} is not a result file: its JSON is nested too deeply.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise ResultError(f"{path} is not a result file: {error}.") from error
    if not isinstance(content, dict) or "benchmark" not in content:
        raise ResultError(
            f"{path} is not a result file: it names no benchmark. Expected a file that `count-clip evaluate` wrote "
            "with --json."
        )
    content = _cleaned(content, path)
    if content["benchmark"] not in BENCHMARKS:
        raise ResultError(f"{path} is of the unknown benchmark {content['benchmark']!r}.")
    if content.get("format") != FORMAT:
        raise ResultError(
            f"{path} is a result file of format {content.get('format')!r}, but this version reads {FORMAT}. Update "
            "count-clip, or repeat the measurement with this version."
        )
    with _reading(path, "`run`"):
        _check_run(content)
    with _reading(path, "`metrics`"):
        metrics = {name: None if value is None else _number(value) for name, value in content["metrics"].items()}
        if content["benchmark"] == "few-shot" and content.get("zero_shot") is not None:
            metrics = {"zero_shot": _number(content["zero_shot"]), **metrics}
    if all(value is None for value in metrics.values()):
        raise ResultError(f"{path} has no figures: nothing was measured.")
    intervals = {}
    with _reading(path, "`intervals`"):
        for name, ends in (content.get("intervals") or {}).items():
            if name in metrics and ends is not None:
                low, high = map(_number, ends)
                intervals[name] = (low, high)
    predictions: dict[tuple[int, str], Prediction] = {}
    for one in _predictions(path, content):
        if predictions.setdefault(one.key, one) is not one:
            prompt = f" for {one.text!r}" if one.text else ""
            raise ResultError(f"{path} has row {one.index}{prompt} more than once.")
    if not predictions and content["benchmark"] in _ROWS:
        raise ResultError(f"{path} has no rows: nothing was measured.")
    sha256 = hashlib.sha256(data).hexdigest()
    return Result(str(path), sha256, content, list(predictions.values()), metrics, intervals)


def _why_not_json(path: str | Path, data: bytes, error: json.JSONDecodeError) -> str:
    """Tell a file that was cut off from one that never was JSON."""
    if not data.strip():
        return f"{path} is empty."
    is_json = data.lstrip()[:1] in b"{["
    if (is_json and error.pos >= len(error.doc.rstrip()) - 1) or "Unterminated string" in error.msg:
        return f"{path} is cut off after {len(data)} bytes. Copy it again, or repeat the measurement."
    return f"{path} is not a result file: it is not JSON (line {error.lineno}, column {error.colno}: {error.msg})."


def _cleaned(value: Any, path: str | Path, key: str = "") -> Any:
    """The same with text that can be shown; numbers that are not finite raise an error."""
    if isinstance(value, str):
        return _UNSHOWN.sub("\ufffd", value)
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:
        raise ResultError(
            f"{path} holds {str(value)[:12]} at {key}: the measurement failed. Repeat it, in --dtype float32 if it "
            "was in another."
        )
    if isinstance(value, list):
        return [_cleaned(item, path, f"{key}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {_cleaned(name, path): _cleaned(item, path, f"{key}.{name}".strip(".")) for name, item in value.items()}
    return value


@contextmanager
def _reading(path: str | Path, key: str) -> Iterator[None]:
    """Turn errors of unexpected content into one that names the file and the key."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        missing = "lacks " if isinstance(error, KeyError) else ""
        raise ResultError(f"{path}: {key} is not as `count-clip evaluate` writes it: {missing}{error}.") from error


def _check_run(content: Mapping[str, Any]) -> None:
    """Check the record of the run and the numbers of rows."""
    model, data = content["run"]["model"], content["run"]["data"]
    if not isinstance(model["name"], str) or not model["name"].strip():
        raise ValueError(f"expected the name of a model, but got {model['name']!r}")
    numbers = {name: content.get(name) for name in ("missing", "n", "num_images")}
    for name, value in {**numbers, "rows": data.get("rows"), "total": data.get("total")}.items():
        if value is not None and (type(value) is not int or value < 0):
            raise ValueError(f"expected a number of rows at {name!r}, but got {value!r}")
    if not all(isinstance(row, dict) for row in content.get("skipped") or []):
        raise ValueError("expected objects in 'skipped'")


def _predictions(path: str | Path, content: Mapping[str, Any]) -> Iterator[Prediction]:
    """The predictions, for the benchmarks that have counts or classes."""
    benchmark = content["benchmark"]
    if benchmark not in _ROWS:
        return
    rows_key, true_key, predicted_key = _ROWS[benchmark]
    with _reading(path, f"`{rows_key}`"):
        rows = list(enumerate(content[rows_key]))
    for place, row in rows:
        with _reading(path, f"`{rows_key}[{place}]`"):
            image_id = None if row.get("image_id") is None else str(row["image_id"])
            index = int(_number(row.get("index", place)))
            for item in row["prompts"] if benchmark == "praco" else [row]:
                role = str(item["role"]) if benchmark == "praco" else None
                true, predicted, text, scores = item[true_key], item[predicted_key], item.get("text"), None
                if benchmark == "countbench":
                    if true not in NUMBERS or predicted not in NUMBERS or len(item["scores"]) != len(NUMBERS):
                        raise ValueError(f"expected numbers from two to ten, but got {true!r} and {predicted!r}")
                    scores = tuple(map(_number, item["scores"]))
                elif benchmark in ("classification", "linear-probe"):
                    text, true, predicted = str(true), 1.0, float(true == predicted)
                elif not isinstance(text, str) or _number(true) < 0:
                    raise ValueError(f"expected a prompt and a number of objects, but got {text!r} and {true!r}")
                text = text if isinstance(text, str) else None
                yield Prediction(index, image_id, text, _number(true), _number(predicted), role, scores)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, but got {value!r}")
    return float(value)


__all__ = ["BENCHMARKS", "Prediction", "Result", "ResultError", "read_result"]
