"""`count-clip evaluate retrieval`: whether captions find their images, and images of the right number."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..shared.loading import load_clip, load_data
from ..shared.options import Commands, add_data_options, add_model_options, add_result_options
from ..shared.output import on_terminal, print_table
from .measuring import Run, refusing


_DIRECTIONS = (("text_to_image", "image by caption"), ("image_to_text", "caption by image"))


def add_retrieval_parser(commands: Commands) -> None:
    """Add the benchmark and its options."""
    parser = commands.add_parser(
        "retrieval",
        help="does a caption find its image, and one with its number?",
        description="Recall at 1, 5 and 10 of images by captions and of captions by images, and the share of captions "
        "whose first image shows the number that the caption states. Works with any CLIP.",
        epilog="Example: count-clip evaluate retrieval --model org/count-clip --data captions/ --split validation",
    )
    add_model_options(parser, "a count-aware CLIP, or any CLIP", "images", 32)
    columns = (
        "image, text (a caption or a list of them) and optionally image_id (rows with the same one share an image), "
        "number and name (of the objects)"
    )
    add_data_options(parser, columns, "benchmark")
    add_result_options(parser)
    parser.set_defaults(run=_evaluate_retrieval)


def _evaluate_retrieval(options: argparse.Namespace) -> int:
    from count_clip.evaluation.benchmarks.retrieval import RECALL_AT, evaluate_retrieval
    from count_clip.evaluation.records.summaries import Summary

    run = Run(options, "retrieval")
    data = load_data(options, options.split, ("image", "text"))
    model, processor = load_clip(options)
    run.begin(model, data)
    with refusing(), run.towers(model, processor) as towers:
        result = evaluate_retrieval(
            towers,
            processor,
            data.rows,
            batch_size=options.batch_size,
            seed=options.seed,
            progress=on_terminal(),
        )
    written = run.result(result.to_dict(), Summary(result.metrics(), result.intervals(), len(result.skipped)))
    run.heading(written, f"{len(result.image_ids)} images, {len(result.texts)} captions")
    _print_recalls(written, RECALL_AT)
    print()
    _print_numbers(written)
    if result.num_cut:
        print(f"count-clip: truncated captions: {result.num_cut}", file=sys.stderr)
    return run.finish(written, result.skipped)


def _print_recalls(written: dict[str, Any], recall_at: tuple[int, ...]) -> None:
    lines = []
    for direction, what in _DIRECTIONS:
        cells = [_with_interval(written, f"{direction}_recall_at_{k}") for k in recall_at]
        lines.append([what, *cells, f"{written['metrics'][f'{direction}_median_rank']:g}"])
    print_table(["query", *(f"recall at {k}" for k in recall_at), "median rank"], lines)


def _print_numbers(written: dict[str, Any]) -> None:
    metrics = written["metrics"]
    if metrics["number_right"] is None:
        print(
            "count-clip: no results on numbers: no caption states a number word from two to ten, or no image has one.",
            file=sys.stderr,
        )
        return
    lines = []
    for name, what in (("number", "the number"), ("object", "the objects"), ("both", "both")):
        if metrics[f"{name}_right"] is not None:
            lines.append([what, _with_interval(written, f"{name}_right"), f"{metrics[f'{name}_chance']:.1%}"])
    print_table([f"right in the first result ({written['num_counting_texts']} captions)", "", "chance"], lines)


def _with_interval(written: dict[str, Any], name: str) -> str:
    value, ends = written["metrics"][name], written["intervals"].get(name)
    return "-" if value is None or ends is None else f"{value:.1%} ({ends[0]:.1%} to {ends[1]:.1%})"
