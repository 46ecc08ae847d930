"""`count-clip data counting-set`: a counting set out of captions, as in "Teaching CLIP to Count to Ten"."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from ..shared.errors import CommandError
from ..shared.options import Commands, positive, seconds
from ..shared.output import on_terminal, print_line, print_table, quiet_loading


if TYPE_CHECKING:
    from count_clip.datasets_scripts.counting_set.stages import StageCounts
    from count_clip.datasets_scripts.download.config import FetchConfig


# Options of `FetchConfig`: flag, field, type, default, unit, help.
_FETCH_OPTIONS: tuple[tuple[str, str, Any, float, str, str], ...] = (
    ("--connections", "num_connections", positive, 16, "N", "requests at once"),
    ("--per-host", "connections_per_host", positive, 4, "N", "requests at once to one server"),
    ("--host-delay", "host_delay", seconds, 0.1, "S", "between requests to one server"),
    ("--connect-timeout", "connect_timeout", seconds, 10.0, "S", "for a connection"),
    ("--timeout", "read_timeout", seconds, 20.0, "S", "without data from a server"),
    ("--total-timeout", "total_timeout", seconds, 120.0, "S", "for an attempt in all"),
    ("--retries", "retries", int, 2, "N", "further attempts after failures that may pass"),
    ("--max-mb", "max_mb", positive, 50, "MB", "of an image's file"),
    ("--max-megapixels", "max_megapixels", positive, 89, "MP", "of an image"),
    ("--max-redirects", "max_redirects", int, 5, "N", "of a URL"),
)
# Options that have the names of the fields of `CaptionSetConfig`.
_CONFIG_FIELDS = (
    *("numbers", "text_filter", "captions_only", "detector", "revision", "threshold", "min_area", "max_overlap"),
    *("class_agreement", "query", "batch_size", "num_common", "common_numbers", "seed", "rows_per_file"),
)


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "counting-set",
        help="images whose captions state a number of objects, from any number of captions",
        description="Filter a counting set out of captions with images, as in 'Teaching CLIP to Count to Ten': the "
        "caption holds a number word, two to ten; the number counts visible objects; a detector finds that many "
        "objects of one class; common numbers are sampled, of the others all images are kept. Memory does not grow "
        "with the number of captions. A build that was stopped is resumed by the same command.",
        epilog="""Examples:
  count-clip data counting-set shards/ --output counting --detector facebook/detr-resnet-50
  count-clip data counting-set laion.parquet --output counting --detector google/owlv2-base-patch16 --class-agreement
  count-clip data counting-set captions.jsonl.gz --output counting --captions-only --num-common all

Exit codes:
  0    success
  1    finished, but images or shards were lost (they are in failures.jsonl), or the set is empty
  2    the command failed; finished work is kept
  130  interrupted; finished work is kept""",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder or a file: .parquet, .tar (webdataset), .jsonl or .jsonl.gz, with images or with their URLs, "
        "which are fetched; or the name of a data set for `datasets`",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write: new, or a former build")
    parser.add_argument("--split", default="train", help="of a data set by its name (default: train)")
    parser.add_argument("--config", metavar="CONFIG", help="of a data set by its name")
    for column, content in (("caption", "captions"), ("image", "images"), ("url", "URLs"), ("key", "names of rows")):
        parser.add_argument(f"--{column}-column", metavar="COLUMN", help=f"the {content} (default: the usual names)")
    _add_stage_options(parser)
    _add_balancing_options(parser)
    _add_fetch_options(parser)
    _add_work_options(parser)
    parser.set_defaults(run=_data_counting_set)


def _add_stage_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("stages").add_argument
    numbers = list(range(2, 11))
    add("--numbers", type=int, nargs="+", default=numbers, metavar="N", help="the numbers (default: 2 to 10)")
    add(
        "--no-text-filter",
        action="store_false",
        dest="text_filter",
        help="also keep number words that count nothing visible (naive)",
    )
    add("--captions-only", action="store_true", help="neither need images nor keep them")
    add(
        "--detector",
        metavar="MODEL",
        help="a model for object detection or zero-shot object detection: a folder or a name on the Hub (default: "
        "none; all images are kept)",
    )
    add("--revision", help="of the detector on the Hub")
    add("--threshold", type=float, metavar="S", help="lowest score of an object (default: 0.5; zero-shot 0.1)")
    add("--min-area", type=float, default=0.0, metavar="A", help="smallest object, share of the image (default: 0)")
    add(
        "--max-overlap",
        type=float,
        default=0.5,
        metavar="O",
        help="intersection over union above which two boxes are one object (default: 0.5)",
    )
    add("--class-agreement", action="store_true", help="the detector's class must be the caption's noun")
    add("--query", default="{}", help="prompt of a zero-shot detector, {} is the noun (default: the noun)")
    add("--batch-size", type=positive, default=8, metavar="N", help="images at once (default: 8)")
    add("--device", help="of the detector: cpu, cuda, ... (default: a GPU if there is one)")


def _add_balancing_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("balancing").add_argument
    add(
        "--num-common",
        type=lambda text: None if text == "all" else int(text),
        default=37_000,
        metavar="N",
        help="images of the common numbers in all, or: all (default: 37000)",
    )
    add(
        "--common-numbers",
        type=int,
        nargs="+",
        default=[2, 3, 4, 5, 6],
        metavar="N",
        help="the common numbers; of the others all images are kept (default: 2 3 4 5 6)",
    )
    add("--seed", type=int, default=0, help="another seed keeps other images (default: 0)")
    add("--rows-per-file", type=positive, default=5_000, metavar="N", help="of the result (default: 5000)")


def _add_fetch_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("fetching").add_argument
    for flag, field, type_, default, unit, text in _FETCH_OPTIONS:
        help_ = f"{text} (default: {default:g})"
        add(flag, dest=field, type=type_, default=default, metavar=unit, help=help_)
    add("--allow-private", action="store_true", help="also fetch URLs of this machine and its own network")
    add(
        "--ignore-opt-outs",
        action="store_true",
        help="keep images whose servers answer noai, noimageai, noindex or noimageindex in X-Robots-Tag",
    )
    add("--user-agent", metavar="TEXT", help="the header User-Agent (default: count-clip, and how to opt out)")


def _add_work_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("work").add_argument
    add("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster (default: local)")
    add("--num-proc", type=positive, default=1, metavar="N", help="processes, or detectors of Ray's (default: 1)")
    add(
        "--shard-rows",
        type=positive,
        default=50_000,
        metavar="N",
        help="rows of a large parquet file that are one shard (default: 50000)",
    )
    add("--skip-unreadable", action="store_true", help="finish without the shards that cannot be read")
    add("--keep-parts", action="store_true", help="keep the rows that passed the stages, to balance them again later")
    add("--json", action="store_true", help="print the counts as a JSON object")


def _data_counting_set(options: argparse.Namespace) -> int:
    from count_clip.datasets_scripts.counting_set.build import UnreadableShardsError, build_caption_set
    from count_clip.datasets_scripts.counting_set.shards import Columns, ShardError
    from count_clip.datasets_scripts.counting_set.stages import CaptionSetConfig, DetectorError

    fields = {name: getattr(options, name) for name in _CONFIG_FIELDS}
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    try:
        with _Progress() as progress, quiet_loading():
            report = build_caption_set(
                options.source,
                options.output,
                CaptionSetConfig(**fields),
                columns=Columns(options.caption_column, options.image_column, options.url_column, options.key_column),
                split=options.split,
                dataset_config=options.config,
                device=options.device,
                downloads=_fetch_config(options),
                engine=options.engine,
                num_proc=options.num_proc,
                max_rows=options.shard_rows,
                skip_unreadable=options.skip_unreadable,
                keep_parts=options.keep_parts,
                progress=progress.show,
            )
    except (OSError, ValueError, ImportError, ShardError, UnreadableShardsError, DetectorError) as error:
        raise CommandError(str(error)) from error
    lost = report.num_failures + report.num_unreadable
    if options.json:
        values = {
            "folder": str(report.output),
            "kept": {str(number): count for number, count in report.kept.items()},
            "files": [str(file) for file in report.files],
            "failures": report.num_failures,
            "unreadable_shards": report.num_unreadable,
            "is_new": report.is_new,
            **report.counts.as_dict(),
        }
        print(json.dumps(values, ensure_ascii=False))
    else:
        _print_report(report)
    if lost:
        print(f"count-clip: {lost:,} images or shards were lost, see {report.output}/failures.jsonl", file=sys.stderr)
    return int(bool(lost) or not report.kept)


def _fetch_config(options: argparse.Namespace) -> FetchConfig:
    from count_clip.datasets_scripts.download.config import OPT_OUTS, FetchConfig

    values = {field: getattr(options, field) for _, field, *_ in _FETCH_OPTIONS}
    max_bytes, max_pixels = values.pop("max_mb") * 2**20, values.pop("max_megapixels") * 10**6
    return FetchConfig(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        allow_private=options.allow_private,
        opt_outs=() if options.ignore_opt_outs else OPT_OUTS,
        user_agent=options.user_agent,
        **values,
    )


class _Progress:
    """Shows the counts so far: on a terminal next to a bar, elsewhere in a line every few seconds."""

    _seconds_between_lines = 10.0

    def __init__(self) -> None:
        self.bar: Any = None
        self.last_line = -self._seconds_between_lines

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, done: int, total: int, counts: StageCounts) -> None:
        """Show the counts after a shard."""
        from huggingface_hub.utils import tqdm

        stages = ", ".join(f"{count:,} {name}" for name, count, _ in counts.table())
        if on_terminal():
            self.bar = self.bar or tqdm(total=total, unit="shard", leave=False)
            self.bar.update(done - self.bar.n)
            self.bar.set_postfix_str(stages)
        elif done == total or time.monotonic() - self.last_line >= self._seconds_between_lines:
            self.last_line = time.monotonic()
            print_line(f"{done} of {total} shards: {stages}", sys.stderr)


def _print_report(report: Any) -> None:
    table = report.counts.table(report.kept)
    numbers = sorted({number for *_, by_number in table for number in by_number})
    lines = [
        [name, f"{count:,}", *(f"{by_number.get(number, 0):,}" if by_number else "" for number in numbers)]
        for name, count, by_number in table
    ]
    print_table(["stage", "all", *map(str, numbers)], lines)
    new = "" if report.is_new else "; it was finished already"
    print(f"{len(report.files):,} file{'s' if len(report.files) > 1 else ''} and a card in {report.output}{new}")
