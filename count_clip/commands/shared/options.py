"""Options of several commands. Imports the standard library only, so that `--help` is fast."""

from __future__ import annotations

import argparse
import math
import textwrap
from typing import Any, TypeAlias


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DTYPES = ("float32", "bfloat16", "float16")


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps the line breaks of descriptions and epilogs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": _HelpFormatter, **kwargs})


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps each line of a description or an epilog on its own."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        def wrap(line: str) -> str:
            inner = indent + " " * (len(line) - len(line.lstrip()))
            # Examples stay on one line, to be copied.
            return line if line.startswith("  count-clip") else textwrap.fill(line, width, subsequent_indent=inner)

        return "\n".join(wrap(line) for line in text.splitlines())


def positive(text: str) -> int:
    """An integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, but got {number}")
    return number


def seconds(text: str) -> float:
    """A non-negative number of seconds."""
    number = float(text)
    if not (number >= 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, but got {text}")
    return number


def add_model_options(parser: argparse.ArgumentParser, what: str, batch_of: str, batch_size: int) -> None:
    """The options of commands with a model."""
    parser.add_argument("--model", required=True, metavar="MODEL", help=f"{what}: a folder or a name on the Hub")
    parser.add_argument("--revision", metavar="REVISION", help="branch, tag or commit of a model on the Hub")
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (default: a GPU if there is one)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="precision (default: float32)")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=batch_size,
        metavar="N",
        help=f"{batch_of} per batch; fewer need less memory (default: {batch_size})",
    )


def add_window_option(parser: argparse.ArgumentParser) -> None:
    """How a density model reads an image."""
    parser.add_argument(
        "--window",
        choices=("sliding", "whole"),
        help="sliding windows, or the whole image in one pass, whose memory grows with the image (default: the "
        "processor's)",
    )


def add_objects_option(parser: argparse.ArgumentParser) -> None:
    """The objects of rendered scenes."""
    parser.add_argument(
        "--objects",
        choices=("drawings", "shapes"),
        default="drawings",
        help="objects of countscenes: drawings, which need count-clip[scenes], or coloured shapes (default: drawings)",
    )


def add_data_options(parser: argparse.ArgumentParser, columns: str, config: str) -> None:
    """The options of all benchmarks."""
    parser.add_argument(
        "--data",
        default="countscenes",
        metavar="DATA",
        help=f"countscenes (default; rendered), or a data set with the columns {columns}: a folder that `datasets` "
        "loads or `save_to_disk` wrote, a .parquet, .jsonl or .json file, a published set with its --data-dir "
        "(fsc147, carpk, shanghaitech, countbench), or a name on the Hub",
    )
    parser.add_argument("--split", default="test", help="split of the data (default: test)")
    # No default here: a set on the Hub has other configurations than countscenes.
    parser.add_argument("--config", help=f"configuration of the data (default for countscenes: {config})")
    add_objects_option(parser)
    parser.add_argument("--data-dir", metavar="DIR", help="folder of a published set, in its authors' layout")
    parser.add_argument("--data-revision", metavar="REVISION", help="branch, tag or commit of data on the Hub")
    parser.add_argument("--limit", type=positive, metavar="N", help="maximal rows; for countscenes, images to render")
    parser.add_argument(
        "--image-size",
        type=positive,
        metavar="PX",
        help="image size of countscenes (default: that of the configuration)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed, also of countscenes (default: 0)")
    parser.add_argument("--json", metavar="FILE", dest="json_file", help="write all results and rows there")
    parser.set_defaults(scenes_config=config)


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """The options of benchmarks that resume and update cards."""
    parser.add_argument(
        "--resume",
        metavar="FILE",
        help="cache results in this file, so that an interrupted run resumes; one file per model and --dtype",
    )
    parser.add_argument(
        "--model-card",
        metavar="FOLDER",
        help="write the results into the `model-index` of the README.md there",
    )


def add_train_split_option(parser: argparse.ArgumentParser) -> None:
    """The training split of the baseline."""
    parser.add_argument("--train-split", default="train", help="split of the baseline's mean (default: train)")
