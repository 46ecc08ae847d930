"""`count-clip evaluate praco`: whether the count follows the prompt."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..shared.errors import CommandError
from ..shared.loading import Data, find_train_counts, load_data, scenes_config
from ..shared.options import (
    Commands,
    add_data_options,
    add_model_options,
    add_result_options,
    add_train_split_option,
    add_window_option,
    positive,
)
from ..shared.output import on_terminal, print_table
from .baselines import MEAN_NAMES, add_detector_options, load_counter
from .measuring import Run, refusing


if TYPE_CHECKING:
    from count_clip.evaluation.benchmarks.praco_results import PracoFigures, PracoResult


FORMATS = ("coco", "voc")

_COLUMNS = ("image", "image_id", "text", "count")


def add_praco_parser(commands: Commands) -> None:
    """Add the benchmark and its options."""
    parser = commands.add_parser(
        "praco",
        help="does the count follow the prompt?",
        description="PrACo (arXiv 2409.15953): count every class of an image and some absent ones, and in mosaics of "
        "two images the classes of one. The data must state which classes are in an image and which are not.",
        epilog="Example: count-clip evaluate praco --model org/clip-count --data coco/ --format coco --split val2017",
    )
    add_model_options(parser, "a CLIP-Count model", "density maps", 16)
    add_window_option(parser)
    columns = "image, image_id, text (what to count) and count (rows with the same image_id share an image)"
    add_data_options(parser, columns, "mixed")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="DATA is a folder of images with annotations: COCO's json (--split NAME reads NAME.json or "
        "annotations/instances_NAME.json, by default instances.json) or Pascal VOC's xml; class names become plural",
    )
    parser.add_argument(
        "--negatives",
        type=_number_or_all,
        default=8,
        metavar="N",
        help="prompts per image for absent classes, or 'all' (default: 8)",
    )
    parser.add_argument(
        "--mosaics", type=_number_or_all, default=1, metavar="N", help="mosaics per image, or 'all' (default: 1)"
    )
    parser.add_argument(
        "--mosaic-layout",
        choices=("square", "stacked"),
        default="square",
        help="resize both images into a square, as in PrACo (default), or stack them unchanged",
    )
    parser.add_argument(
        "--unlisted-are-absent",
        action="store_true",
        help="a class without a row is absent from the image (for sets with one class per image)",
    )
    add_train_split_option(parser)
    add_detector_options(parser)
    add_result_options(parser)
    # With --format, the default is the whole folder.
    parser.set_defaults(run=_evaluate_praco, split=None)


def _number_or_all(text: str) -> int | None:
    """An integer of at least 1, or `None` for all."""
    return None if text == "all" else positive(text)


def _evaluate_praco(options: argparse.Namespace) -> int:
    from count_clip.evaluation.benchmarks.praco import evaluate_praco
    from count_clip.evaluation.records.summaries import summarise_praco

    run = Run(options, "praco")
    split = options.split if options.split or options.format else "test"
    data = _load_folder(options) if options.format else _load_rows(options, split)
    needs_counts = options.model in MEAN_NAMES and not options.format
    model, processor = load_counter(options, find_train_counts(options) if needs_counts else None)
    run.begin(model, data)
    with refusing(), run.cache(window=options.window) as cache:
        result = evaluate_praco(
            model,
            processor,
            data.rows,
            num_negatives=options.negatives,
            mosaics_per_image=options.mosaics,
            mosaic_layout=options.mosaic_layout,
            unlisted_are_absent=options.unlisted_are_absent,
            seed=options.seed,
            batch_size=options.batch_size,
            progress=on_terminal(),
            window=options.window,
            cache=cache,
        )
    about = {name: getattr(options, name) for name in ("image_size", "limit", "seed", "dtype", "batch_size")}
    about["config"] = scenes_config(options) if options.data == "countscenes" else options.config
    written = run.result({**about, **result.to_dict()}, summarise_praco(result))
    run.heading(written, f"{result.num_images} images, {result.num_mosaics} mosaics")
    _print_prompts(result.figures, result.counts_all)
    print()
    _print_praco(result)
    _print_exclusions(result)
    return run.finish(written, result.skipped)


def _load_rows(options: argparse.Namespace, split: str) -> Data:
    """Scenes or a data set; `--limit` counts images, each with all its rows."""
    if options.data == "countscenes":
        return load_data(options, split, _COLUMNS)
    data = load_data(argparse.Namespace(**{**vars(options), "limit": None}), split, _COLUMNS)
    return replace(data, rows=_first_images(data.rows, options.limit))


def _load_folder(options: argparse.Namespace) -> Data:
    """The folder of `--format`."""
    from count_clip.datasets_scripts.captions.plurals import plural_of
    from count_clip.datasets_scripts.formats.folders import load_object_folder

    try:
        rows = load_object_folder(options.data, options.format, split=options.split, names=plural_of)
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    return Data(options.data, options.format, options.split, _first_images(rows, options.limit), len(rows))


def _first_images(rows: Any, number: int | None) -> Any:
    """The rows of the first images."""
    if number is None:
        return rows
    names = set(list(dict.fromkeys(rows["image_id"]))[:number])
    return rows.select([place for place, name in enumerate(rows["image_id"]) if name in names])


def _print_prompts(figures: PracoFigures, counts_all: PracoFigures) -> None:
    """Print the errors of each type of prompt."""
    lines = []
    for role, what in (
        ("named", "the first class"),
        ("other", "another present class"),
        ("absent", "an absent class"),
    ):
        counted, everything = getattr(figures, role), getattr(counts_all, role)
        if counted is None:
            lines.append([what, "0", "-", "-", "-", "-", "-"])
        else:
            numbers = (counted.mean_count, counted.mean_predicted, counted.mae, counted.rmse, everything.mae)
            lines.append([what, str(counted.n), *(f"{number:.2f}" for number in numbers)])
    print_table(["prompt", "prompts", "true mean", "predicted mean", "MAE", "RMSE", "MAE of counting all"], lines)


def _print_praco(result: PracoResult) -> None:
    """Print PrACo's metrics, next to those of a counter that ignores its prompt."""
    lines = []
    for name, what, digits, perfect in (
        ("nmn", "NMN: count of absent classes per true object", 3, "0"),
        ("pccn", "PCCN: right prompt nearer to the truth, %", 1, "100"),
        ("precision", "counting precision on mosaics", 3, "1"),
        ("recall", "counting recall on mosaics", 3, "1"),
        ("f1", "counting F1 on mosaics", 3, "1"),
    ):
        value, everything = getattr(result.figures, name), getattr(result.counts_all, name)
        interval = "-"
        if name in result.intervals:
            interval = " to ".join(f"{end:.{digits}f}" for end in result.intervals[name])
        cells = ["-" if number is None else f"{number:.{digits}f}" for number in (value, everything)]
        lines.append([what, cells[0], interval, cells[1], perfect])
    print_table(["", "model", "95 % interval", "counting all", "perfect"], lines)


def _print_exclusions(result: PracoResult) -> None:
    """Print the numbers of images that metrics leave out."""
    for number, what in (
        (result.num_single_class, "images without a second class"),
        (result.num_empty, "images without objects, which have no NMN, PCCN and mosaics"),
        (result.num_without_absent, "images without a class that is known to be absent, which have no NMN and PCCN"),
        (result.num_without_partner, "images without a partner for a mosaic"),
        (result.num_without_precision, "mosaics without a precision, as nothing was counted in them"),
    ):
        if number:
            print(f"count-clip: {what}: {number}", file=sys.stderr)
