"""Reading result files of `count-clip evaluate`, of this version and of older ones, and checking what they say."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..functional import NUMBERS


BENCHMARKS = ("countbench", "density", "praco", "classification", "linear-probe", "few-shot", "retrieval", "relevance")
"""What is measured, as result files name it, in the order of the page."""
FORMAT = 1
"""The newest shape of a result file that is understood here."""

# Everything but what a page can show: HTML allows no control characters, UTF-8 no halves of surrogate pairs.
_UNSHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LARGEST = 10**30  # its square is still a float
_DATA_KEYS = ("config", "format", "image_size", "limit", "seed")


class ResultError(ValueError):
    """A file holds no result that can be reported; the message names it."""


@dataclass(frozen=True)
class Count:
    """One answer of a model: an image, what was asked, and both numbers."""

    index: int
    """Which row of the data."""
    image_id: str | None
    """The image's own name, where it has one."""
    text: str | None
    """What was asked for, where the file says it."""
    true: float
    """How many there are; of classes, 1."""
    said: float
    """How many the model says; of classes, 1 if it is right and 0 if not."""
    role: str | None = None
    """What the text is to its image, in PrACo."""
    scores: tuple[float, ...] | None = None
    """What the model gave each of the numbers two to ten, in CountBench."""

    @property
    def key(self) -> tuple[int, str]:
        """What it shares with the same question to another model."""
        return self.index, "" if self.scores is not None else self.text or ""

    @property
    def image(self) -> str:
        """Which image it is about: its name, or the number of its row."""
        return f"row {self.index}" if self.image_id is None else self.image_id

    @property
    def error(self) -> float:
        """Said minus true, in objects."""
        return self.said - self.true


@dataclass(frozen=True)
class Result:
    """One result file."""

    file: str
    """Its path, as it was given."""
    sha256: str
    """The checksum of its content."""
    benchmark: str
    """One of `BENCHMARKS`."""
    content: Mapping[str, Any]
    """All that stands in it."""
    model: str
    """The model's name, as it was given."""
    data: Mapping[str, Any]
    """What is known of the data: `name`, `config`, `split`, `revision`, `fingerprint`, `rows`, `seed`, ..."""
    counts: Sequence[Count]
    """The answers, for the benchmarks that count and those that name."""
    metrics: Mapping[str, float | None]
    """The figures, as the file states them."""
    intervals: Mapping[str, tuple[float, float]]
    """The ends of their 95 % intervals, as the file states them."""

    @property
    def run(self) -> Mapping[str, Any]:
        """The record of the run; empty in files of older versions."""
        return self.content.get("run") or {}

    @property
    def model_record(self) -> Mapping[str, Any]:
        """What the record of the run says of the model."""
        about = self.run.get("model")
        return about if isinstance(about, dict) else {}

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
        """Whether it was known before that only a part of the data would be measured."""
        return bool(self.content.get("partial")) and not self.missing

    @property
    def measured(self) -> int | None:
        """How many rows the figures are of; for PrACo, images."""
        for name in ("n", "num_images", "num_images"):
            if isinstance(self.content.get(name), int):
                return int(self.content[name])
        rows = self.data.get("rows")
        return len(self.counts) or (None if rows is None else int(rows) - self.missing)


def read_result(path: str | Path) -> Result:
    """
    Read one result file.

    Args:
        path (`str` or `Path`): What `count-clip evaluate ... --json FILE` wrote, now or in an older version.

    Returns:
        [`Result`]: What it holds, checked.

    Raises:
        ResultError: If it cannot be read, is no JSON or was cut, is of an unknown benchmark or of a newer format, has
            no rows, holds NaN or an infinite number, or lacks something that its benchmark needs.
    """
    place = Path(path).expanduser()
    try:
        text = place.read_bytes()
        content = json.loads(text.decode("utf-8-sig"))
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ResultError(f"{path} is no result file: it is not text in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise ResultError(_why_no_json(path, text, error)) from error
    except RecursionError as error:
        raise ResultError(f"{path} is no result file: its JSON is nested too deeply.") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise ResultError(f"{path} is no result file: {error}.") from error
    if not isinstance(content, dict):
        raise ResultError(f"{path} is no result file: expected a JSON object, but got {_kind(content)}.")
    content = _cleaned(content, str(path), "")
    benchmark = _benchmark_of(content, str(path))
    reader = _Reader(str(path), content)
    if benchmark == "praco":
        counts = list(reader.praco_counts())
    elif benchmark in ("countbench", "density"):
        counts = list(reader.counts(benchmark))
    else:
        counts = list(reader.named()) if benchmark in ("classification", "linear-probe") else []
        reader.check_something_measured()
    seen: set[tuple[int, str]] = set()
    for count in counts:
        if count.key in seen:
            asked = f" for {count.text!r}" if count.text else ""
            raise ResultError(f"{path} has row {count.index}{asked} more than once.")
        seen.add(count.key)
    metrics = reader.metrics(benchmark)
    return Result(
        file=str(path),
        sha256=hashlib.sha256(text).hexdigest(),
        benchmark=benchmark,
        content=content,
        model=reader.model(),
        data=reader.data(benchmark),
        counts=counts,
        metrics=metrics,
        intervals=reader.intervals(metrics),
    )


def _why_no_json(path: str | Path, text: bytes, error: json.JSONDecodeError) -> str:
    """Tell a file that was cut from one that never was JSON."""
    if not text.strip():
        return f"{path} is empty."
    begins_well = text.lstrip()[:1] in b"{["
    if (begins_well and error.pos >= len(error.doc.rstrip()) - 1) or "Unterminated string" in error.msg:
        return (
            f"{path} is cut off: its JSON ends in the middle, after {len(text)} bytes. Copy it once more, or repeat "
            "the measurement."
        )
    return f"{path} is no result file: it is not JSON (line {error.lineno}, column {error.colno}: {error.msg})."


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")


def _cleaned(value: Any, path: str, place: str) -> Any:
    """The same with texts that can be shown; numbers that are none are refused."""
    if isinstance(value, str):
        return _UNSHOWN.sub("\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ResultError(
            f"{path} holds {value} at {place or 'its top'}: the measurement went wrong. Repeat it, in --dtype float32 "
            "if it was in another."
        )
    if isinstance(value, int | float) and abs(value) > _LARGEST:
        raise ResultError(f"{path} holds a number at {place or 'its top'} that no measurement gives.")
    if isinstance(value, list):
        return [_cleaned(item, path, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            _UNSHOWN.sub("\ufffd", key): _cleaned(item, path, f"{place}.{key}" if place else key)
            for key, item in value.items()
        }
    return value


def _benchmark_of(content: Mapping[str, Any], path: str) -> str:
    """Which benchmark it is, in this format or the one before."""
    benchmark = content.get("benchmark", content.get("protocol"))
    if benchmark is None:
        raise ResultError(
            f"{path} is no result file: it does not say which benchmark it is of. Expected what "
            "`count-clip evaluate ... --json FILE` writes."
        )
    if benchmark not in BENCHMARKS:
        raise ResultError(f"{path} is of the unknown benchmark {benchmark!r}; known are {', '.join(BENCHMARKS)}.")
    number = content.get("format", FORMAT)
    # PrACo's older files have the format of its data there: "coco", or nothing.
    if "benchmark" in content and (not isinstance(number, int) or number > FORMAT):
        raise ResultError(
            f"{path} is a result file of format {number!r}, but this version knows {FORMAT}. Update count-clip, or "
            "repeat the measurement with this version."
        )
    return str(benchmark)


class _Reader:
    """Takes a file apart, and says where something is not as expected."""

    def __init__(self, path: str, content: Mapping[str, Any]) -> None:
        self.path, self.content = path, content
        run = content.get("run")
        if run is not None and not isinstance(run, dict):
            raise ResultError(f"{path}: expected `run` to be an object, but got {_kind(run)}.")
        self.run: Mapping[str, Any] = run or {}
        self.rows("skipped", needed=False)
        self.check_whole(content, "missing", "n", "num_images", "num_images")

    def model(self) -> str:
        """The model's name."""
        about = self.run.get("model")
        name = about.get("name") if isinstance(about, dict) else self.content.get("model")
        if not isinstance(name, str) or not name.strip():
            raise ResultError(f"{self.path} does not say which model was measured.")
        return name

    def data(self, benchmark: str) -> dict[str, Any]:
        """What is known of the data."""
        about = self.run.get("data")
        if isinstance(about, dict):
            self.check_whole(about, "rows", "total")
            found = {key: value for key, value in about.items() if value is not None}
            if found.get("name") == "countscenes" and self.run.get("seed") is not None:
                found["seed"] = self.run["seed"]
            return found
        keys = ("split", *(_DATA_KEYS if benchmark == "praco" else ()))
        found = {key: self.content[key] for key in keys if self.content.get(key) is not None}
        return {"name": str(self.content.get("data", "data that the file does not name")), **found}

    def metrics(self, benchmark: str) -> dict[str, float | None]:
        """The figures by their flat names; older files have them at the top."""
        stated = self.content.get("metrics")
        if stated is None:
            stated = self.older_metrics(benchmark)
        elif benchmark == "few-shot" and isinstance(stated, dict):
            stated = {"zero_shot": self.content.get("zero_shot"), **stated}
        if not isinstance(stated, dict):
            raise ResultError(f"{self.path}: expected `metrics` to be an object, but got {_kind(stated)}.")
        return {
            name: None if value is None else self.number(value, f"metrics.{name}") for name, value in stated.items()
        }

    def older_metrics(self, benchmark: str) -> dict[str, Any]:
        """The figures of a file from before `metrics` was there."""
        if benchmark == "praco":
            figures = self.content.get("figures")
            if not isinstance(figures, dict):
                raise ResultError(f"{self.path}: expected `figures`, an object, but got {_kind(figures)}.")
            roles = {
                f"{role}_{name}": figures[role].get(name) if isinstance(figures.get(role), dict) else None
                for role in ("named", "other", "absent")
                for name in ("mae", "rmse")
            }
            return {**roles, **{name: figures.get(name) for name in ("nmn", "pccn", "precision", "recall", "f1")}}
        names = {
            "countbench": ("accuracy", "mean_deviation", "off_by_one"),
            "density": ("mae", "rmse", "nae", "sre", "baseline_mae", "baseline_rmse"),
        }.get(benchmark, ())
        missing = [name for name in names[:2] if self.content.get(name) is None]
        if missing:
            raise ResultError(f"{self.path} lacks {' and '.join(missing)}, which every {benchmark} result has.")
        return {name: self.content.get(name) for name in names}

    def intervals(self, metrics: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
        """The ends of the intervals."""
        stated = self.content.get("intervals") or {}
        if not isinstance(stated, dict):
            raise ResultError(f"{self.path}: expected `intervals` to be an object, but got {_kind(stated)}.")
        if "accuracy_interval_95" in self.content:
            stated = {"accuracy": self.content["accuracy_interval_95"], **stated}
        found = {}
        for name, ends in stated.items():
            if name in metrics and ends is not None:
                if not isinstance(ends, list) or len(ends) != 2:
                    raise ResultError(f"{self.path}: expected `intervals.{name}` to be [low, high], but got {ends!r}.")
                low, high = (self.number(end, f"intervals.{name}") for end in ends)
                found[name] = (low, high)
        return found

    def counts(self, benchmark: str) -> Iterator[Count]:
        """The rows of CountBench or of a density set."""
        where = "predictions" if "predictions" in self.content else "rows"
        said, true = ("prediction", "number") if benchmark == "countbench" else ("predicted", "count")
        for place, row in enumerate(self.rows(where)):
            name = f"{where}[{place}]"
            scores = row.get("scores")
            if benchmark == "density":
                scores = None
            elif row.get(true) not in NUMBERS or row.get(said) not in NUMBERS:
                raise ResultError(
                    f"{self.path}: expected `{name}` to have a `{true}` and a `{said}` from two to ten, but got "
                    f"{row.get(true)!r} and {row.get(said)!r}."
                )
            elif not isinstance(scores, list) or len(scores) != len(NUMBERS):
                raise ResultError(f"{self.path}: expected `{name}.scores`, a list of nine, but got {_kind(scores)}.")
            text = row.get("text")
            if benchmark == "density" and not isinstance(text, str):
                raise ResultError(f"{self.path}: expected `{name}.text`, a string, but got {_kind(text)}.")
            yield Count(
                index=int(self.number(row.get("index", place), f"{name}.index")),
                image_id=None if row.get("image_id") is None else str(row["image_id"]),
                text=text if isinstance(text, str) else None,
                true=self.amount(row.get(true), f"{name}.{true}"),
                said=self.number(row.get(said), f"{name}.{said}"),
                scores=None if scores is None else tuple(self.number(score, f"{name}.scores") for score in scores),
            )

    def named(self) -> Iterator[Count]:
        """The rows of a classification."""
        for place, row in enumerate(self.rows("rows")):
            index = int(self.number(row.get("index", place), f"rows[{place}].index"))
            name = None if row.get("image_id") is None else str(row["image_id"])
            true, said = row.get("label"), row.get("prediction")
            if true is None or said is None:
                raise ResultError(f"{self.path}: expected `rows[{place}]` to have `label` and `prediction`.")
            yield Count(index, name, str(true), 1.0, float(true == said))

    def praco_counts(self) -> Iterator[Count]:
        """All prompts of all images of PrACo."""
        for place, image in enumerate(self.rows("images")):
            index = int(self.number(image.get("index", place), f"images[{place}].index"))
            prompts = image.get("prompts")
            if not isinstance(prompts, list) or not all(isinstance(prompt, dict) for prompt in prompts):
                raise ResultError(f"{self.path}: expected `images[{place}].prompts` to be a list of objects.")
            for number, prompt in enumerate(prompts):
                name = f"images[{place}].prompts[{number}]"
                yield Count(
                    index=index,
                    image_id=None if image.get("image_id") is None else str(image["image_id"]),
                    text=str(prompt.get("text")),
                    true=self.amount(prompt.get("count"), f"{name}.count"),
                    said=self.number(prompt.get("predicted"), f"{name}.predicted"),
                    role=str(prompt.get("role")),
                )

    def rows(self, name: str, needed: bool = True) -> list[dict[str, Any]]:
        """A list of objects."""
        rows = self.content.get(name)
        if rows is None and not needed:
            return []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ResultError(f"{self.path}: expected `{name}` to be a list of objects, but got {_kind(rows)}.")
        if needed and not rows:
            raise ResultError(f"{self.path} has no rows: nothing was measured.")
        return rows

    def check_whole(self, content: Mapping[str, Any], *names: str) -> None:
        """Refuse a number of rows that is none."""
        for name in names:
            value = content.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise ResultError(f"{self.path}: expected `{name}` to be a number of rows, but got {value!r}.")

    def check_something_measured(self) -> None:
        """Refuse a result without a figure."""
        metrics = self.content.get("metrics")
        if isinstance(metrics, dict) and not any(value is not None for value in metrics.values()):
            raise ResultError(f"{self.path} has no figures: nothing was measured.")

    def number(self, value: Any, name: str) -> float:
        """A number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ResultError(f"{self.path}: expected a number at `{name}`, but got {_kind(value)}.")
        return float(value)

    def amount(self, value: Any, name: str) -> float:
        """A number of objects."""
        number = self.number(value, name)
        if number < 0:
            raise ResultError(f"{self.path}: expected a number of objects at `{name}`, but got {number:g}.")
        return number


__all__ = ["BENCHMARKS", "FORMAT", "Count", "Result", "ResultError", "read_result"]
