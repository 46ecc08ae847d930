"""`count-clip evaluate density`: errors of the counts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shared.errors import EXIT_CODES, CommandError
from ..shared.loading import find_train_counts, load_data
from ..shared.options import (
    Commands,
    add_data_options,
    add_model_options,
    add_result_options,
    add_train_split_option,
    add_window_option,
)
from ..shared.output import OverlayNamer, on_terminal, print_table, write_overlay
from .baselines import BASELINES_HELP, add_detector_options, load_counter
from .measuring import Run, refusing


if TYPE_CHECKING:
    from count_clip.evaluation.benchmarks.density import DensityResult


def add_density_parser(commands: Commands) -> None:
    """Add the benchmark and its options."""
    parser = commands.add_parser(
        "density",
        help="errors of the counts",
        description="The errors of a density model's counts, next to those of the training mean. Rows that cannot be "
        "measured are listed.",
        epilog=f"""Examples:
  count-clip evaluate density --model org/clip-count --data fsc147 --data-dir FSC147 --json result.json
  count-clip evaluate density --model detector:google/owlvit-base-patch32 --threshold 0.1

{BASELINES_HELP} "mean" predicts the mean of the training split.

{EXIT_CODES}""",
    )
    add_model_options(parser, "a CLIP-Count model", "image windows", 16)
    add_window_option(parser)
    add_data_options(parser, "image, text (what to count) and count", "density")
    add_train_split_option(parser)
    add_detector_options(parser)
    add_result_options(parser)
    parser.add_argument("--overlay", metavar="DIR", help="write each image with its density map there")
    parser.set_defaults(run=_evaluate_density)


def _evaluate_density(options: argparse.Namespace) -> int:
    from count_clip.evaluation.benchmarks.density import evaluate_density
    from count_clip.evaluation.records.summaries import summarise_density

    if options.overlay and options.resume:
        raise CommandError("--overlay draws every image, but --resume skips measured ones: give one of the two.")
    run = Run(options, "density")
    data = load_data(options, options.split, ("image", "text", "count"))
    train_counts = find_train_counts(options)
    model, processor = load_counter(options, train_counts)
    run.begin(model, data)
    with refusing(), run.cache(window=options.window) as cache:
        result = evaluate_density(
            model,
            processor,
            data.rows,
            train_counts,
            batch_size=options.batch_size,
            progress=on_terminal(),
            on_result=_drawing(options.overlay),
            window=options.window,
            cache=cache,
        )
    written = run.result(result.to_dict(), summarise_density(result))
    run.heading(written, f"{result.n} rows")
    _print_errors(result)
    print()
    _print_prompts(result)
    return run.finish(written, result.skipped)


def _drawing(folder: str | None) -> Callable[[Mapping[str, Any], Any], None] | None:
    """The function that draws each image with its density map, for `--overlay`."""
    if not folder:
        return None
    namer = OverlayNamer(Path(folder).expanduser(), [])

    def draw(row: Mapping[str, Any], counted: Any) -> None:
        from count_clip.evaluation.inference.encoding import read_image

        if counted.image is None:  # baselines do not keep images
            counted.image = read_image(row)
        write_overlay(counted, namer, Path(str(row.get("image_id") or "image")).name)

    return draw


def _print_errors(result: DensityResult) -> None:
    """Print the errors over all rows."""

    def line(name: str, mae: float, rmse: float, nae: float | None, sre: float | None) -> list[str]:
        return [name, f"{mae:.2f}", f"{rmse:.2f}", *("-" if value is None else f"{value:.3f}" for value in (nae, sre))]

    lines = [line("model", result.mae, result.rmse, result.nae, result.sre)]
    if result.baseline_mae is not None and result.baseline_rmse is not None:
        lines.append(line("training mean", result.baseline_mae, result.baseline_rmse, None, None))
    print_table(["", "MAE", "RMSE", "NAE", "SRE"], lines)


def _print_prompts(result: DensityResult) -> None:
    """Print the errors of the most frequent prompts."""
    groups = sorted(result.by_text.items(), key=lambda item: -item[1].n)
    shown = groups[:20]
    print_table(
        ["prompt", "rows", "true mean", "predicted mean", "MAE", "RMSE", "baseline MAE"],
        [
            [
                text,
                str(group.n),
                f"{group.mean_count:.1f}",
                f"{group.mean_predicted:.1f}",
                f"{group.mae:.2f}",
                f"{group.rmse:.2f}",
                "-" if group.baseline_mae is None else f"{group.baseline_mae:.2f}",
            ]
            for text, group in shown
        ],
    )
    if len(groups) > len(shown):
        print(f"... and {len(groups) - len(shown)} more prompts; --json FILE has all")
