"""The order of the rows, and the epoch that every random choice about a sample depends on."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Epoch:
    """The number of the epoch, in memory that the workers of a data loader share."""

    def __init__(self) -> None:
        # Persistent workers hold copies of the data set, in which a plain integer would stay the same.
        self._value = torch.zeros(1, dtype=torch.int64).share_memory_()

    def set(self, epoch: int) -> None:
        """Start epoch `epoch`, counted from 0."""
        self._value.fill_(int(epoch))

    def get(self) -> int:
        """The current epoch."""
        return int(self._value.item())


def sample_generator(seed: int, epoch: int, key: int | str) -> np.random.Generator:
    """
    The random generator of one sample in one epoch. With it a resumed run sees the samples of an uninterrupted one,
    with any number of workers; the global generators are not restored exactly. `key` is the index of the sample, or a
    name.
    """
    number = key if isinstance(key, int) else zlib.crc32(key.encode())
    return np.random.default_rng((seed, epoch, number))


class EpochSampler(torch.utils.data.Sampler[int]):
    """
    A new order of the rows each epoch, which depends on the seed and the epoch alone.

    With `counting_fraction` (0 to 1; by default the share in the data), any `n` consecutive rows hold `n *
    counting_fraction` counting rows (flagged by `is_counting`), give or take one. Counting or general rows that are
    too few for that are repeated, and some of the others left out; an epoch keeps its length. Raises a `ValueError` if
    there are no counting rows, or no general ones, although the fraction needs some.
    """

    def __init__(
        self,
        num_rows: int,
        seed: int = 0,
        is_counting: Sequence[bool] | None = None,
        counting_fraction: float | None = None,
    ):
        self.num_rows = num_rows
        self.seed = seed
        self.counting_fraction = counting_fraction
        self.epoch = 0
        self._counting = self._general = np.arange(0)
        if counting_fraction is None:
            return
        if is_counting is None:
            raise ValueError("`counting_fraction` needs `is_counting`, the flags of the counting rows.")
        flags = np.asarray(is_counting, dtype=bool)
        self._counting, self._general = np.flatnonzero(flags), np.flatnonzero(~flags)
        wanted = (("counting", counting_fraction, self._counting), ("general", 1 - counting_fraction, self._general))
        for name, share, rows in wanted:
            if share > 0 and not len(rows):
                raise ValueError(
                    f"`counting_fraction={counting_fraction}` needs {name} rows, but none of the {num_rows} rows "
                    "of the training data is one. Add some, or leave `counting_fraction` out."
                )

    def set_epoch(self, epoch: int) -> None:
        """Start epoch `epoch`, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        if self.counting_fraction is None:
            return iter(generator.permutation(self.num_rows).tolist())
        return self._mixed(generator, self.counting_fraction)

    def _mixed(self, generator: np.random.Generator, fraction: float) -> Iterator[int]:
        rows = {True: _endless(self._counting, generator), False: _endless(self._general, generator)}
        for position in range(self.num_rows):
            counts = math.floor((position + 1) * fraction + 1e-9) > math.floor(position * fraction + 1e-9)
            yield next(rows[counts])


def _endless(rows: np.ndarray, generator: np.random.Generator) -> Iterator[int]:
    """All rows in random order, again and again."""
    while True:
        yield from generator.permutation(rows).tolist()


class EpochCallback(TrainerCallback):
    """
    Sets the epoch of samplers, data sets and collators. `accelerate` 1.15 does not reach the sampler or the data set
    of a run that is resumed in the middle of an epoch with several processes.
    """

    def __init__(self, *listeners: Any):
        self.listeners = list(listeners)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch that begins or is resumed."""
        # A whole number of epochs may be stored a rounding error below it.
        epoch = int((state.epoch or 0) + 1e-6)
        for listener in self.listeners:
            listener.set_epoch(epoch)


__all__ = ["Epoch", "EpochCallback", "EpochSampler", "sample_generator"]
