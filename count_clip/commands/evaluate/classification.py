"""`count-clip evaluate classification`: CLIP's zero-shot protocol."""

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


def add_classification_parser(kinds: Commands) -> None:
    """Add the protocol and its options."""
    parser = kinds.add_parser(
        "classification",
        help="what is in the image? without training",
        description="CLIP's zero-shot protocol: a class is the mean of the embeddings of several sentences with its "
        "name, and the class nearest to the image wins. On any labelled data; of countscenes, what the objects are. "
        "Shows what learning to count has cost.",
        epilog=f"""Examples:
  count-clip evaluate classification --model org/count-clip --data cifar10 --image-column img
  count-clip evaluate classification --model org/count-clip --data birds/ --template 'a photo of a {{}}.'

{EXIT_CODES}""",
    )
    add_model_options(parser, "a count-aware CLIP, or any CLIP", "images, or sentences,", 32)
    add_data_options(parser, "image and label", "captions")
    add_label_options(parser)
    add_template_options(parser)
    add_result_options(parser)
    parser.set_defaults(run=_evaluate_classification)


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """Where images and classes are."""
    parser.add_argument("--image-column", default="image", metavar="NAME", help="images (default: image)")
    parser.add_argument("--label-column", metavar="NAME", help="classes (default: label; of countscenes, name)")
    parser.add_argument(
        "--names",
        metavar="FILE",
        help="what the classes are called, a line each from class 0 (default: as the data says)",
    )


def add_template_options(parser: argparse.ArgumentParser) -> None:
    """The sentences around a name."""
    templates = parser.add_mutually_exclusive_group()
    templates.add_argument("--templates", metavar="FILE", help="sentences with {} for the name, a line each")
    templates.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="a sentence with {} for the name; may be given several times (default: about thirty of many kinds)",
    )


def label_column(options: argparse.Namespace) -> str:
    """The column with the classes."""
    return options.label_column or ("name" if options.data == "countscenes" else "label")


def read_names(options: argparse.Namespace) -> list[str] | None:
    """The names of the classes, where a file says them."""
    return None if options.names is None else _read_lines(options.names, "--names")


def read_templates(options: argparse.Namespace) -> list[str]:
    """The sentences around a name."""
    from count_clip.evaluation.benchmarks.classification import DEFAULT_TEMPLATES, check_templates

    given = _read_lines(options.templates, "--templates") if options.templates else options.template
    with refusing():
        return check_templates(given if given is not None else list(DEFAULT_TEMPLATES))


def _read_lines(path: str, option: str) -> list[str]:
    """The lines of a file that are not empty."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{option} {path} cannot be read: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise CommandError(f"{option} {path} is empty: expected a line for each.")
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
    """The figures, and the classes that were told best and worst."""
    guessing = f"guessing gives {1 / len(result.names):.2%}"
    lines = []
    for name, what, remark in (
        ("top_1", "top-1", guessing),
        ("top_5", "top-5", ""),
        ("mean_per_class", "per class", ""),
    ):
        value = getattr(result, name)
        if value is not None:
            remarks = [interval_text(written, name, "{:.2%}"), *([remark] if remark else [])]
            lines.append([what, f"{value:.2%}", "; ".join(remarks)])
    print_table(None, lines)
    classes = sorted(result.by_class().items(), key=lambda item: -item[1]["accuracy"])
    shown = classes if len(classes) <= 12 else [*classes[:6], *classes[-6:]]
    print()
    cells = [[name, str(one["n"]), f"{one['accuracy']:.0%}"] for name, one in shown]
    print_table(["class", "rows", "accuracy"], cells)
    if len(classes) > len(shown):
        print(f"(the best and the worst six of {len(classes)}; --json FILE has them all)")
