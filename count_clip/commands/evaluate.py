"""`count-clip evaluate`: how well a model counts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import CommandError
from .evaluate_praco import add_praco_parser
from .loading import find_train_counts, load_clip, load_density_model, load_rows
from .options import Commands, add_data_options, add_model_options
from .output import (
    OverlayNamer,
    check_output,
    list_skipped,
    on_terminal,
    print_table,
    save_figure,
    write_json,
    write_overlay,
)


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "evaluate", help="measure a model", description="Measure a model on rendered scenes or on your data."
    )
    kinds = parser.add_subparsers(title="protocols", metavar="PROTOCOL", required=True)
    countbench = kinds.add_parser(
        "countbench",
        help="which of nine captions has the right number?",
        description="The protocol of CountBench: the number in a caption is replaced by each of two to ten, and the "
        "caption most similar to the picture wins. Works with any CLIP. Rows that cannot be measured are listed.",
    )
    add_model_options(countbench, "a count-aware CLIP, or any CLIP", "pictures", 32)
    add_data_options(countbench, "image, text (a caption with a number word) and number", "benchmark")
    countbench.add_argument("--figure", metavar="FILE", help="draw there which number was said for which")
    countbench.set_defaults(run=_evaluate_countbench)
    density = kinds.add_parser(
        "density",
        help="how far are the counts from the true ones?",
        description="The errors of a density model's counts, beside those of always saying the training mean. Rows "
        "that cannot be measured are listed.",
    )
    add_model_options(density, "a CLIP-Count model", "windows of pictures", 16)
    add_data_options(density, "image, text (what to count) and count", "density")
    density.add_argument("--train-split", default="train", help="whose mean is the baseline (default: train)")
    density.add_argument("--overlay", metavar="DIR", help="write each picture with its density map over it there")
    density.set_defaults(run=_evaluate_density)
    add_praco_parser(kinds)


def _evaluate_countbench(options: argparse.Namespace) -> int:
    from count_clip.evaluation.countbench import evaluate_countbench
    from count_clip.evaluation.functional import NUMBERS

    split = options.split
    check_output(options.json_file)
    check_output(options.figure, picture=True)
    rows = load_rows(options, split, ("image", "text"))
    model, processor = load_clip(options)
    try:
        result = evaluate_countbench(model, processor, rows, batch_size=options.batch_size, progress=on_terminal())
    except ValueError as error:
        raise CommandError(str(error)) from error
    low, high = result.accuracy_interval()
    print(f"{options.model} on {options.data} ({split}), CountBench protocol, {result.n} rows\n")
    print_table(
        None,
        [
            ["accuracy", f"{result.accuracy:.2%}", f"95 % interval {low:.2%} to {high:.2%}; guessing gives 11.11%"],
            ["mean deviation", f"{result.mean_deviation:.3f}", "objects"],
            ["off by one at most", f"{result.off_by_one:.2%}", ""],
        ],
    )
    by_number = result.accuracy_by_number()
    print()
    print_table(
        ["number", *map(str, NUMBERS)],
        [
            ["rows", *[str(int(result.confusion[number - 2].sum())) for number in NUMBERS]],
            ["accuracy", *[f"{by_number[number]:.0%}" if number in by_number else "-" for number in NUMBERS]],
        ],
    )
    list_skipped(result.skipped)
    if options.figure:
        from count_clip.evaluation.figures import draw_confusion_matrix

        figure = draw_confusion_matrix(result.confusion, NUMBERS, title=f"{options.data}: {result.accuracy:.1%} right")
        save_figure(figure, options.figure)
    write_json(
        options, {"protocol": "countbench", "model": options.model, "data": options.data, "split": split}, result
    )
    return 0


def _evaluate_density(options: argparse.Namespace) -> int:
    from count_clip.evaluation.density import evaluate_density

    split = options.split
    check_output(options.json_file)
    rows = load_rows(options, split, ("image", "text", "count"))
    train_counts = find_train_counts(options)
    model, processor = load_density_model(options)
    on_result: Callable[[Mapping[str, Any], dict[str, Any]], None] | None = None
    if options.overlay:
        namer = OverlayNamer(Path(options.overlay), [])

        def draw(row: Mapping[str, Any], result: dict[str, Any]) -> None:
            stem = Path(str(row.get("image_id") or "picture")).name
            write_overlay(row["image"], result, namer, stem)

        on_result = draw
    try:
        result = evaluate_density(
            model,
            processor,
            rows,
            train_counts,
            batch_size=options.batch_size,
            progress=on_terminal(),
            on_result=on_result,
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    print(f"{options.model} on {options.data} ({split}), {result.n} rows\n")

    def line(name: str, mae: float, rmse: float, nae: float | None, sre: float | None) -> list[str]:
        return [name, f"{mae:.2f}", f"{rmse:.2f}", *("-" if value is None else f"{value:.3f}" for value in (nae, sre))]

    lines = [line("model", result.mae, result.rmse, result.nae, result.sre)]
    if result.baseline_mae is not None and result.baseline_rmse is not None:
        lines.append(line("always the training mean", result.baseline_mae, result.baseline_rmse, None, None))
    print_table(["", "MAE", "RMSE", "NAE", "SRE"], lines)
    print()
    groups = sorted(result.by_text.items(), key=lambda item: -item[1].n)
    shown = groups[:20]
    print_table(
        ["prompt", "rows", "true mean", "said mean", "MAE", "RMSE", "baseline MAE"],
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
        print(f"... and {len(groups) - len(shown)} more prompts; --json FILE has them all")
    list_skipped(result.skipped)
    write_json(options, {"protocol": "density", "model": options.model, "data": options.data, "split": split}, result)
    return 0
