"""The options that several commands share. Only the standard library, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import math
import textwrap
from typing import Any, TypeAlias


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

DTYPES = ("float32", "bfloat16", "float16")


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps the lines of its texts; those of its commands are of this kind too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": _HelpFormatter, **kwargs})


class _HelpFormatter(argparse.HelpFormatter):
    """Wraps each line of a description or an epilog by itself."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        def wrap(line: str) -> str:
            inner = indent + " " * (len(line) - len(line.lstrip()))
            # Examples are to be copied, so they stay whole.
            return line if line.startswith("  count-clip") else textwrap.fill(line, width, subsequent_indent=inner)

        return "\n".join(wrap(line) for line in text.splitlines())


def positive(text: str) -> int:
    """An integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, but got {number}")
    return number


def seconds(text: str) -> float:
    """A time of 0 seconds or more."""
    number = float(text)
    if not (number >= 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, but got {text}")
    return number


def add_model_options(parser: argparse.ArgumentParser, what: str, batch_of: str, batch_size: int) -> None:
    """What all commands with a model take."""
    parser.add_argument("--model", required=True, metavar="MODEL", help=f"{what}: a folder or a name on the Hub")
    parser.add_argument("--revision", metavar="REVISION", help="of a model on the Hub: branch, tag or commit")
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (default: a GPU if there is one)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="what to compute in (default: float32)")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=batch_size,
        metavar="N",
        help=f"{batch_of} at once; less needs less memory (default: {batch_size})",
    )


def add_window_option(parser: argparse.ArgumentParser) -> None:
    """How a density model sees an image."""
    parser.add_argument(
        "--window",
        choices=("sliding", "whole"),
        help="see an image in sliding windows, or whole in one pass, which needs more memory for a longer image "
        "(default: as the model's processor says)",
    )


def add_objects_option(parser: argparse.ArgumentParser) -> None:
    """What is to be seen in rendered scenes."""
    parser.add_argument(
        "--objects",
        choices=("drawings", "shapes"),
        default="drawings",
        help="of countscenes: drawings of things, which need count-clip[scenes], or coloured shapes "
        "(default: drawings)",
    )


def add_data_options(parser: argparse.ArgumentParser, columns: str, config: str) -> None:
    """What all evaluations take."""
    parser.add_argument(
        "--data",
        default="countscenes",
        metavar="DATA",
        help=f"countscenes (the default: rendered, no download), or a data set with the columns {columns}: a folder "
        "that `datasets` loads or that `save_to_disk` wrote, a .parquet, .jsonl or .json file, the name of a counting "
        "set with its --data-dir (fsc147, carpk, shanghaitech, countbench), or a name on the Hub",
    )
    parser.add_argument("--split", default="test", help="part of the data (default: test)")
    # Without a default of its own: a set on the Hub has other configurations than the scenes.
    parser.add_argument("--config", help=f"configuration of the data (default: of countscenes, {config})")
    add_objects_option(parser)
    parser.add_argument("--data-dir", metavar="DIR", help="where a counting set lies, as its authors distribute it")
    parser.add_argument("--data-revision", metavar="REVISION", help="of data on the Hub: branch, tag or commit")
    parser.add_argument("--limit", type=positive, metavar="N", help="rows at most; of countscenes, images to render")
    parser.add_argument("--image-size", type=positive, metavar="PX", help="of countscenes (default: the config's)")
    parser.add_argument("--seed", type=int, default=0, help="of countscenes, and of what is drawn (default: 0)")
    parser.add_argument("--json", metavar="FILE", dest="json_file", help="write every figure and row there as JSON")
    parser.set_defaults(scenes_config=config)


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """What an evaluation takes that keeps what it measures, and tells a model's card."""
    parser.add_argument(
        "--resume",
        metavar="FILE",
        help="keep there what is measured, and do not measure it again: a run that was stopped goes on. Of one model "
        "and --dtype; any data",
    )
    parser.add_argument(
        "--model-card",
        metavar="FOLDER",
        help="write the figures into the `model-index` of the README.md there; the rest of it stays as it is",
    )


def add_train_split_option(parser: argparse.ArgumentParser) -> None:
    """Where a baseline has its mean from."""
    parser.add_argument("--train-split", default="train", help="whose mean is the baseline (default: train)")
