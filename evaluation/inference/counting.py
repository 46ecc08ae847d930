"""Counts from an engine, those of an earlier run included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from count_clip.datasets_scripts.files.resumable import ResultCache
from count_clip.modeling.counting_engine import Counted, DensityCounter, ImageCounter, Request

from ..records.cache import content_key


def counter_of(model: Any, processor: Any, **options: Any) -> ImageCounter:
    """The engine of a density model, with the options of [`DensityCounter`]; an engine is returned unchanged."""
    return model if isinstance(model, ImageCounter) else DensityCounter(model, processor, **options)


def counts_of(counted: Counted) -> list[float]:
    """The count of each prompt."""
    return [float(result["count"]) for result in counted.results]


def cached_counts(
    counter: ImageCounter,
    requests: Iterable[Request],
    cache: ResultCache | None = None,
    values_of: Callable[[Counted], list[float]] = counts_of,
    values_are: str = "counts",
) -> Iterator[tuple[Any, list[float], Counted | None]]:
    """
    Count in images that are not in the cache yet; yields the tag, the values, and the [`Counted`] or `None` for cached
    ones, not in order.

    `values_of` selects the values of a result, by default the counts, and `values_are` distinguishes them in the
    cache. Without values the [`Counted`] has an `error`.
    """
    known: list[tuple[Any, list[float], None]] = []

    def unknown() -> Iterator[Request]:
        for image, prompts, tag in requests:
            key = "" if cache is None else content_key(image, prompts, values_are)
            if cache is not None and key in cache:
                known.append((tag, cache[key], None))
            else:
                yield image, prompts, (tag, key)

    for counted in counter(unknown()):
        counted.tag, key = counted.tag
        values = [] if counted.error is not None else values_of(counted)
        if cache is not None and values and np.isfinite(values).all():
            cache[key] = values
        yield counted.tag, values, counted
    yield from known


__all__ = ["cached_counts", "counter_of", "counts_of"]
