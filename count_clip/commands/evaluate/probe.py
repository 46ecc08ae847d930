"""`count-clip evaluate linear-probe` and `few-shot`: linear classifiers on a frozen CLIP."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ..shared.errors import EXIT_CODES, CommandError
from ..shared.loading import Data, load_clip, load_data
from ..shared.options import Commands, add_data_options, add_model_options, add_result_options, positive
from ..shared.output import on_terminal, print_table
from .classification import (
    add_label_options,
    add_template_options,
    label_column,
    print_classification,
    read_names,
    read_templates,
)
from .measuring import Run, interval_text, refusing


if TYPE_CHECKING:
    from count_clip.evaluation.benchmarks.probe import FewShotResult, ProbeSplits


def add_linear_probe_parser(commands: Commands) -> None:
    """Add the benchmark and its options."""
    parser = commands.add_parser(
        "linear-probe",
        help="linear classification on frozen features",
        description="Logistic regression on the features of a frozen vision tower, as in CLIP's appendix A.3: L-BFGS, "
        "regularisation chosen on validation rows (of 97 values from 1e-6 to 1e6), then a fit on training and "
        "validation rows. Needs pip install 'count-clip[probe]'.",
        epilog=f"""Examples:
  count-clip evaluate linear-probe --model org/count-clip --data cifar10 --image-column img
  count-clip evaluate linear-probe --model openai/clip-vit-base-patch32 --features projected --json result.json

{EXIT_CODES}""",
    )
    _add_options(parser)
    parser.set_defaults(run=_evaluate_linear_probe)


def add_few_shot_parser(commands: Commands) -> None:
    """Add the benchmark and its options."""
    parser = commands.add_parser(
        "few-shot",
        help="the same with a few examples per class",
        description="Linear probes on 1, 2, 4, 8 and 16 random examples per class, next to zero-shot classification. "
        "Needs pip install 'count-clip[probe]'.",
        epilog=f"""Example:
  count-clip evaluate few-shot --model org/count-clip --data cifar10 --image-column img --shots 1 4 16 --draws 5

{EXIT_CODES}""",
    )
    _add_options(parser)
    parser.add_argument(
        "--shots", type=positive, nargs="+", metavar="N", help="examples per class (default: 1 2 4 8 16)"
    )
    parser.add_argument("--draws", type=positive, default=3, metavar="N", help="random draws (default: 3)")
    add_template_options(parser)
    parser.set_defaults(run=_evaluate_few_shot)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser, "a count-aware CLIP, or any CLIP", "images", 32)
    add_data_options(parser, "image and label", "captions")
    add_label_options(parser)
    parser.add_argument("--train-split", default="train", help="split to fit on (default: train)")
    parser.add_argument(
        "--validation-split",
        help="split for the regularisation (default: validation, else a part of the training rows). For countscenes "
        "all three have the classes of --split, in different scenes",
    )
    parser.add_argument(
        "--train-limit",
        type=positive,
        metavar="N",
        help="maximal training rows (default: all; countscenes: 2000)",
    )
    parser.add_argument(
        "--features",
        choices=("tower", "projected"),
        default="tower",
        help="the vision tower's output before its projection (default, as CLIP's authors), or the unit-norm "
        "embeddings",
    )
    parser.add_argument(
        "--max-iter", type=positive, default=1000, metavar="N", help="maximal iterations of L-BFGS (default: 1000)"
    )
    add_result_options(parser)


def _load_parts(options: argparse.Namespace, labels: str) -> tuple[Data, Data | None, Data]:
    """Training, validation and test rows."""
    columns = (options.image_column, labels)
    test = load_data(options, options.split, columns, options.image_column)

    def part(split: str, **changes: Any) -> Data:
        return load_data(argparse.Namespace(**{**vars(options), **changes}), split, columns, options.image_column)

    if options.data == "countscenes":
        # Its splits share no class: use other scenes of the same classes.
        number = options.train_limit or 2000
        train = part(options.split, limit=number, seed=options.seed + 1)
        return train, part(options.split, limit=max(1, number // 5), seed=options.seed + 2), test
    train = part(options.train_split, limit=options.train_limit)
    if options.validation_split is not None:
        return train, part(options.validation_split, limit=None), test
    try:
        return train, part("validation", limit=None), test
    except CommandError:
        print(
            f"count-clip: {options.data} has no split 'validation'; using a part of the training rows",
            file=sys.stderr,
        )
        return train, None, test


def _embed(options: argparse.Namespace, run: Run, extra: Any = None) -> tuple[ProbeSplits, Any]:
    """The features of all splits, and the result of `extra` on the model and the test rows."""
    from count_clip.evaluation.benchmarks.probe import embed_splits

    labels = label_column(options)
    names = read_names(options)
    train, validation, test = _load_parts(options, labels)
    model, processor = load_clip(options)
    run.begin(model, test)
    run.data["train"] = train.describe(options)
    run.data["validation"] = None if validation is None else validation.describe(options)
    with refusing(), run.towers(model, processor) as towers:
        parts = embed_splits(
            towers,
            processor,
            train.rows,
            None if validation is None else validation.rows,
            test.rows,
            label_column=labels,
            image_column=options.image_column,
            names=names,
            projected=options.features == "projected",
            batch_size=options.batch_size,
            progress=on_terminal(),
        )
        return parts, None if extra is None else extra(towers, processor, test.rows, parts.names)


def _refuse_without_sklearn() -> None:
    """Before the long work."""
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise CommandError(
            "Probes are fitted by scikit-learn, which is not installed: pip install 'count-clip[probe]'."
        )


def _evaluate_linear_probe(options: argparse.Namespace) -> int:
    from count_clip.evaluation.benchmarks.probe import linear_probe
    from count_clip.evaluation.records.summaries import summarise_classification

    _refuse_without_sklearn()
    run = Run(options, "linear-probe")
    parts, _ = _embed(options, run)
    with refusing():
        result = linear_probe(
            parts.train,
            parts.validation,
            parts.test,
            parts.names,
            seed=options.seed,
            max_iter=options.max_iter,
            progress=on_terminal(),
        )
    result.about["features"] = options.features
    written = run.result(result.to_dict(), summarise_classification(result))
    run.heading(written, f"linear probe, {result.n} rows, {len(result.names)} classes")
    print_classification(result, written)
    about = result.about
    print(
        f"\nC = {about['c']:.4g}, chosen on {about['validation_rows']} rows"
        f"{' set aside' if about['validation_from_train'] else ''}; fitted to these and {about['train_rows']} more"
        + ("" if about["converged"] else f"; L-BFGS had not converged after {about['max_iter']:,} iterations")
    )
    _print_skipped(about["train_skipped"])
    return run.finish(written, result.skipped)


def _evaluate_few_shot(options: argparse.Namespace) -> int:
    from count_clip.evaluation.benchmarks.classification import evaluate_classification
    from count_clip.evaluation.benchmarks.probe import SHOTS, few_shot_curve
    from count_clip.evaluation.records.summaries import summarise_few_shot

    _refuse_without_sklearn()
    run = Run(options, "few-shot")
    templates = read_templates(options)

    def without_examples(model: Any, processor: Any, rows: Any, names: list[str]) -> float:
        return evaluate_classification(
            model,
            processor,
            rows,
            label_column=label_column(options),
            image_column=options.image_column,
            names=names,
            templates=templates,
            batch_size=options.batch_size,
            progress=on_terminal(),
        ).top_1

    parts, zero_shot = _embed(options, run, without_examples)
    with refusing():
        result = few_shot_curve(
            parts.train,
            parts.validation,
            parts.test,
            parts.names,
            shots=options.shots or SHOTS,
            num_draws=options.draws,
            seed=options.seed,
            zero_shot=zero_shot,
            max_iter=options.max_iter,
            progress=on_terminal(),
        )
    written = run.result(
        {**result.to_dict(), "features": options.features, "templates": templates}, summarise_few_shot(result)
    )
    run.heading(
        written, f"few-shot linear probes, {result.n} rows, {len(result.names)} classes, {options.draws} draws"
    )
    _print_curve(result, written)
    _print_skipped(result.train_skipped)
    return run.finish(written, result.skipped)


def _print_curve(result: FewShotResult, written: dict[str, Any]) -> None:
    """Print a line for each number of examples."""
    lines = [["0 (zero-shot)", "-", f"{result.zero_shot:.2%}", "-", "-", ""]] if result.zero_shot is not None else []
    for point in result.points:
        lines.append(
            [
                str(point.shots),
                str(max(point.rows)),
                f"{point.mean:.2%}",
                "-" if point.std is None else f"{point.std:.2%}",
                f"{min(point.accuracies):.2%} to {max(point.accuracies):.2%}",
                interval_text(written, f"shots_{point.shots}", "{:.2%}").removeprefix("95 % interval "),
            ]
        )
    print_table(["examples per class", "in all", "mean", "std", "range of the draws", "95 % interval"], lines)


def _print_skipped(number: int) -> None:
    if number:
        print(f"count-clip: {number} training or validation rows could not be read", file=sys.stderr)
