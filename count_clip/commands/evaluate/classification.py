"""`count-clip evaluate classification`: CLIP's zero-shot classification."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shared.errors import EXIT_CODES, CommandError
from ..shared.loading import load_clip, load_data
from ..shared.options import Commands, add_data_options, add_model_options, add_result_options
from ..shared.output import on_terminal, print_table
from .measuring import Run, interval_text, refusing


if TYPE_CHECKING:
    from count_clip.evaluation.benchmarks.classification import ClassificationResult


def add_classification_parser(commands: Commands) -> None:
    """Add the benchmark and its options."""
    parser = commands.add_parser(
        "classification",
        help="zero-shot classification of images",
        description="CLIP's zero-shot classification: a class is the mean embedding of several sentences with its "
        "name; the nearest class is the prediction. Works on any labelled data; the classes of countscenes are its "
        "objects.",
        epilog=f"""Examples:
  count-clip evaluate classification --model org/count-clip --data cifar10 --image-column img
  count-clip evaluate classification --model org/count-clip --data birds/ --template 'a photo of a {{}}.'

{EXIT_CODES}""",
    )
    add_model_options(parser, "a count-aware CLIP, or any CLIP", "images or sentences", 32)
    add_data_options(parser, "image and label", "captions")
    add_label_options(parser)
    add_template_options(parser)
    add_result_options(parser)
    parser.set_defaults(run=_evaluate_classification)


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """The columns of images and classes."""
    parser.add_argument("--image-column", default="image", metavar="NAME", help="images (default: image)")
    parser.add_argument("--label-column", metavar="NAME", help="classes (default: label; countscenes: name)")
    parser.add_argument(
        "--names",
        metavar="FILE",
        help="names of the classes, one per line from class 0 (default: those of the data)",
    )


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """The sentences with class names."""
    templates = parser.add_mutually_exclusive_group()
    templates.add_argument("--templates", metavar="FILE", help="sentences with {} for the class name, one per line")
    templates.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="a sentence with {} for the class name; may be repeated (default: about thirty)",
    )


def label_column(options: argparse.Namespace) -> str:
    """The column with the classes."""
    return options.label_column or ("name" if options.data == "countscenes" else "label")


def read_names(options: argparse.Namespace) -> list[str] | None:
    """The class names of `--names`."""
    return None if options.names is None else _read_lines(options.names, "--names")


def read_templates(options: argparse.Namespace) -> list[str]:
    """The sentences of `--templates` or `--template`, or the default ones."""
    from count_clip.evaluation.benchmarks.classification import DEFAULT_TEMPLATES, check_templates

    given = _read_lines(options.templates, "--templates") if options.templates else options.template
    with refusing():
        return check_templates(given if given is not None else list(DEFAULT_TEMPLATES))


def _read_lines(path: str, option: str) -> list[str]:
    """The non-empty lines of a file."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{option} {path} cannot be read: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise CommandError(f"{option} {path} is empty: expected one entry per line.")
    return lines


def _evaluate_classification(options: argparse.Namespace) -> int:
    from count_clip.evaluation.benchmarks.classification import evaluate_classification
    from count_clip.evaluation.records.summaries import summarise_classification

    run = Run(options, "classification")
    names, templates = read_names(options), read_templates(options)
    labels = label_column(options)
    data = load_data(options, options.split, (options.image_column, labels), options.image_column)
    model, processor = load_clip(options)
    run.begin(model, data)
    with refusing(), run.towers(model, processor) as towers:
        result = evaluate_classification(
            towers,
            processor,
            data.rows,
            label_column=labels,
            image_column=options.image_column,
            names=names,
            templates=templates,
            batch_size=options.batch_size,
            progress=on_terminal(),
        )
    written = run.result(result.to_dict(), summarise_classification(result))
    run.heading(written, f"zero-shot classification, {result.n} rows, {len(result.names)} classes")
    print_classification(result, written)
    return run.finish(written, result.skipped)


def print_classification(result: ClassificationResult, written: dict[str, Any]) -> None:
    """Print the accuracies, and the classes with the highest and lowest."""
    lines = []
    for name, what in (("top_1", "top-1"), ("top_5", "top-5"), ("mean_per_class", "per class")):
        if (value := getattr(result, name)) is not None:
            chance = f"; chance: {1 / len(result.names):.2%}" if name == "top_1" else ""
            lines.append([what, f"{value:.2%}", interval_text(written, name, "{:.2%}") + chance])
    print_table(None, lines)
    classes = sorted(result.by_class().items(), key=lambda item: -item[1]["accuracy"])
    shown = classes if len(classes) <= 12 else [*classes[:6], *classes[-6:]]
    print()
    cells = [[name, str(one["n"]), f"{one['accuracy']:.0%}"] for name, one in shown]
    print_table(["class", "rows", "accuracy"], cells)
    if len(classes) > len(shown):
        print(f"(the six highest and lowest of {len(classes)}; --json FILE has all)")
