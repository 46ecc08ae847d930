"""The parts that all benchmarks share: the record of a run, `--resume`, and the output."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shared.errors import CommandError
from ..shared.loading import Data
from ..shared.output import check_output, list_skipped, open_for_writing


if TYPE_CHECKING:
    from count_clip.datasets_scripts.files.resumable import ResultCache
    from count_clip.evaluation.records.summaries import Summary


def describe_loaded(name: str, model: Any, revision: str | None = None) -> dict[str, Any]:
    """Describe a loaded model for the record of a run; `name` is its folder or its name on the Hub."""
    from count_clip.evaluation.records.run_record import describe_model

    from ...checkpoints import adapters_base, find_checkpoint

    folder = find_checkpoint(name, revision)
    base = adapters_base(folder, name)
    return describe_model(name, model, folder, base, None if base is None else find_checkpoint(base))


class Run:
    """
    One evaluation: checks, record, cache and output. Raises a `CommandError` if an output file cannot be written.
    """

    def __init__(self, options: argparse.Namespace, benchmark: str) -> None:
        self.options, self.benchmark = options, benchmark
        self.model: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.where = ""
        self._device = "cpu"
        self._began = time.monotonic()
        check_output(options.json_file, inputs=[Path(options.data).expanduser()])
        if getattr(options, "model_card", None):
            from count_clip.evaluation.records.model_index import check_card

            try:
                check_card(options.model_card)
            except (OSError, ValueError) as error:
                raise CommandError(str(error)) from error

    def begin(self, model: Any, data: Data) -> None:
        """Record the model and the data, and start the clock."""
        from count_clip.evaluation.records.run_record import describe_baseline

        name, self.data, self.where = self.options.model, data.describe(self.options), data.where
        if callable(getattr(model, "describe", None)):
            self.model = describe_baseline(name, model)
        else:
            self.model = describe_loaded(name, model, self.options.revision)
        self._device = str(getattr(model, "device", "cpu"))
        self._began = time.monotonic()

    @contextmanager
    def cache(self, **depends_on: Any) -> Iterator[ResultCache | None]:
        """The cache of `--resume` for this model, dtype and other dependencies; `None` without `--resume`."""
        path = getattr(self.options, "resume", None)
        if path is None:
            yield None
            return
        from count_clip.datasets_scripts.files.resumable import ResultCache
        from count_clip.evaluation.records.run_record import model_identity

        identity = {**model_identity(self.model), "dtype": self.options.dtype, **depends_on}
        try:
            cache = ResultCache(path, identity)
        except (ValueError, OSError) as error:
            raise CommandError(f"--resume: {error}") from error
        with cache:
            try:
                yield cache
            except KeyboardInterrupt:
                print(f"\ncount-clip: interrupted; the same command resumes from {path}", file=sys.stderr)
                raise

    @contextmanager
    def towers(self, model: Any, processor: Any) -> Iterator[Any]:
        """The CLIP, with the cache of `--resume` if there is one."""
        from count_clip.evaluation.records.cache import CachedTowers

        with self.cache() as cache:
            yield model if cache is None else CachedTowers(model, processor.tokenizer, cache)

    def result(self, result: dict[str, Any], summary: Summary) -> dict[str, Any]:
        """Add the record of the run and the metrics to a result, and write it to `--json`."""
        from count_clip.evaluation.records.run_record import plain_command, result_file, run_record, write_plain

        options = self.options
        run = run_record(
            plain_command(getattr(options, "arguments", [])),
            self.model,
            self.data,
            getattr(options, "seed", None),
            options.dtype,
            self._device,
            time.monotonic() - self._began,
        )
        rows, total = self.data.get("rows"), self.data.get("total")
        limited = rows is not None and total is not None and rows < total
        about = {"protocol": self.benchmark, "model": options.model, "data": options.data, "split": self.data["split"]}
        written = result_file(
            self.benchmark, run, {**about, **result}, summary.metrics, summary.intervals, summary.missing, limited
        )
        # Before anything is printed: `| head` may end the command early.
        if options.json_file:
            text = write_plain(written)
            with open_for_writing(options.json_file) as stream:
                stream.write(text + "\n")
        return written

    def heading(self, written: dict[str, Any], what: str) -> None:
        """Print the model, the data and whether rows were left out."""
        from count_clip.evaluation.records.run_record import partial_note

        note = partial_note(written)
        print(f"{self.options.model} on {self.where}, {what}" + (f"\n{note}" if note else "") + "\n")

    def finish(self, written: dict[str, Any], skipped: list[Any]) -> int:
        """List skipped rows, update the card, and return the exit code."""
        list_skipped(skipped)
        options = self.options
        if getattr(options, "model_card", None):
            from count_clip.evaluation.records.model_index import update_card

            try:
                path = update_card(Path(options.model_card), written)
            except (OSError, ValueError) as error:
                raise CommandError(f"cannot write into the card in {options.model_card}: {error}") from error
            print(f"wrote the results into {path}", file=sys.stderr)
        return 1 if written["missing"] else 0


@contextmanager
def refusing() -> Iterator[None]:
    """Report invalid data or options as a `CommandError`."""
    try:
        yield
    except ValueError as error:
        raise CommandError(str(error)) from error


def interval_text(written: dict[str, Any], name: str, form: str) -> str:
    """The 95 % interval of a metric, or an empty text."""
    ends = written["intervals"].get(name)
    return "" if ends is None else f"95 % interval {form.format(ends[0])} to {form.format(ends[1])}"
