"""`count-clip evaluate countbench`: which of nine captions has the right number?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..shared.errors import EXIT_CODES
from ..shared.loading import load_clip, load_data
from ..shared.options import Commands, add_data_options, add_model_options, add_result_options, add_train_split_option
from ..shared.output import check_output, on_terminal, print_table, save_figure
from .baselines import BASELINES_HELP, add_detector_options, load_detector, load_mean_number
from .measuring import Run, interval_text, refusing


if TYPE_CHECKING:
    from count_clip.evaluation.benchmarks.countbench import CountBenchResult


def add_countbench_parser(commands: Commands) -> None:
    """Add the benchmark and its options."""
    parser = commands.add_parser(
        "countbench",
        help="which of nine captions has the right number?",
        description="CountBench: the number in a caption is replaced by each of two to ten; the caption most similar "
        "to the image is the prediction. Works with any CLIP. Rows that cannot be measured are listed.",
        epilog=f"""Examples:
  count-clip evaluate countbench --model org/count-clip --json result.json
  count-clip evaluate countbench --model org/count-clip --data CountBench.json --images images/
  count-clip evaluate countbench --model detector:google/owlvit-base-patch32 --data countbench --data-dir CountBench

{BASELINES_HELP} "mean" predicts the most frequent number of the training split; of several, or without a training
split, the one nearest to their mean. A detector counts the object of the caption's number and predicts the nearest of
two to ten.

{EXIT_CODES}""",
    )
    add_model_options(parser, "a count-aware CLIP, or any CLIP", "images", 32)
    add_data_options(parser, "image, text (a caption with a number word) and number", "benchmark")
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="folder or archive of CountBench's images (default: images next to CountBench.json)",
    )
    add_train_split_option(parser)
    add_detector_options(parser)
    add_result_options(parser)
    parser.add_argument("--figure", metavar="FILE", help="draw the confusion matrix there")
    parser.set_defaults(run=_evaluate_countbench)


def _evaluate_countbench(options: argparse.Namespace) -> int:
    from count_clip.evaluation.functional import NUMBERS
    from count_clip.evaluation.records.summaries import summarise_countbench

    run = Run(options, "countbench")
    check_output(options.figure, image=True)
    data = load_data(options, options.split, ("image", "text"))
    result = _measure(options, run, data)
    written = run.result(result.to_dict(), summarise_countbench(result))
    run.heading(written, f"CountBench protocol, {result.n} rows")
    _print_figures(result, written)
    if options.figure:
        from count_clip.evaluation.figures.figures import draw_confusion_matrix

        figure = draw_confusion_matrix(
            result.confusion, NUMBERS, title=f"{options.data}: accuracy {result.accuracy:.1%}"
        )
        save_figure(figure, options.figure)
    return run.finish(written, result.skipped)


def _measure(options: argparse.Namespace, run: Run, data: Any) -> CountBenchResult:
    """Evaluate a CLIP or a baseline."""
    from count_clip.evaluation.benchmarks.countbench import evaluate_countbench
    from count_clip.evaluation.inference.baselines import countbench_by_counting

    detector = load_detector(options)
    counter = detector or load_mean_number(options)
    if counter is not None:
        run.begin(counter, data)
        with refusing(), run.cache() as cache:
            return countbench_by_counting(counter, data.rows, cache=cache, progress=on_terminal())
    model, processor = load_clip(options)
    run.begin(model, data)
    with refusing(), run.towers(model, processor) as towers:
        return evaluate_countbench(towers, processor, data.rows, batch_size=options.batch_size, progress=on_terminal())


def _print_figures(result: CountBenchResult, written: dict[str, Any]) -> None:
    """Print the metrics, and those of each number."""
    from count_clip.evaluation.functional import NUMBERS

    accuracy = interval_text(written, "accuracy", "{:.2%}")
    print_table(
        None,
        [
            ["accuracy", f"{result.accuracy:.2%}", f"{accuracy}; chance: 11.11%"],
            ["mean deviation", f"{result.mean_deviation:.3f}", "objects"],
            ["off by at most one", f"{result.off_by_one:.2%}", ""],
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
