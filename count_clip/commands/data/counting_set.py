"""`count-clip data counting-set`: a counting set out of captions, as in "Teaching CLIP to Count to Ten"."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from ..shared.errors import CommandError
from ..shared.fetch_options import add_fetch_options, fetch_config
from ..shared.options import Commands, positive
from ..shared.output import on_terminal, print_table, quiet_loading, say


if TYPE_CHECKING:
    from count_clip.datasets_scripts.counting_set.stages import CaptionSetConfig, StageCounts


_STAGES = {
    "captions": "captions",
    "number_word": "with a number word",
    "counts_objects": "that counts things seen",
    "images": "with an image",
    "right_number": "in which a detector finds that number",
}


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "counting-set",
        help="images with a number of things in their captions, from any number of captions",
        description="Filter a counting set out of captions with images, as in 'Teaching CLIP to Count to Ten': the "
        "caption holds a number word, two to ten; the number counts things that can be seen; a detector finds that "
        "many objects of one class; of the common numbers as many are kept as are wanted, of the others all. Any "
        "number of captions is read in the same memory. A build that was stopped goes on when it is called again.",
        epilog="""Examples:
  count-clip data counting-set shards/ --output counting --detector facebook/detr-resnet-50
  count-clip data counting-set laion.parquet --output counting --detector google/owlv2-base-patch16 --class-agreement
  count-clip data counting-set captions.jsonl.gz --output counting --captions-only --num-common all

Exit codes:
  0    all is well
  1    it was done, but images or shards were lost on the way (they are in failures.jsonl), or nothing came through
  2    the command could not be carried out; what is done is kept
  130  interrupted; what is done is kept""",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder or a file: .parquet, .tar (webdataset), .jsonl or .jsonl.gz; with images or with their "
        "addresses, which are fetched; or the name of a set of `datasets`",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write: new, or a former build")
    parser.add_argument("--split", default="train", help="of a set by its name (default: train)")
    parser.add_argument("--config", metavar="CONFIG", help="of a set by its name")
    for column, holds in (
        ("caption", "the captions"),
        ("image", "the images"),
        ("url", "their addresses"),
        ("key", "the rows' names"),
    ):
        parser.add_argument(f"--{column}-column", metavar="COLUMN", help=f"holds {holds} (default: the usual names)")
    _add_stage_options(parser)
    _add_balancing_options(parser)
    add_fetch_options(parser)
    _add_work_options(parser)
    parser.set_defaults(run=_data_counting_set)


def _add_stage_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("stages")
    group.add_argument("--numbers", type=int, nargs="+", metavar="N", help="numbers that are taken (default: 2 to 10)")
    group.add_argument(
        "--no-text-filter", action="store_true", help="take number words that count nothing seen as well (naive)"
    )
    group.add_argument("--captions-only", action="store_true", help="neither need images nor keep them")
    group.add_argument(
        "--detector",
        metavar="MODEL",
        help="a model for object detection or zero-shot object detection: a folder or a name on the Hub (default: "
        "none; the images are taken as they are)",
    )
    group.add_argument("--revision", help="of the detector on the Hub")
    group.add_argument(
        "--threshold", type=float, metavar="S", help="lowest score that counts (default: 0.5; zero-shot 0.1)"
    )
    group.add_argument(
        "--min-area",
        type=float,
        default=0.0,
        metavar="A",
        help="smallest object, as a share of the image (default: 0)",
    )
    group.add_argument(
        "--max-overlap",
        type=float,
        default=0.5,
        metavar="O",
        help="intersection over union above which two boxes are one object (default: 0.5)",
    )
    group.add_argument(
        "--class-agreement", action="store_true", help="the detector's class has to be the caption's noun"
    )
    group.add_argument(
        "--query", default="{}", help="what a zero-shot detector is asked, {} is the noun (default: the noun)"
    )
    group.add_argument("--batch-size", type=positive, default=8, metavar="N", help="images at once (default: 8)")
    group.add_argument("--device", help="of the detector: cpu, cuda, ... (default: a GPU if there is one)")


def _add_balancing_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("balancing")
    group.add_argument(
        "--num-common",
        type=_number_or_all,
        default=37_000,
        metavar="N",
        help="how many of the common numbers to keep in all, or: all (default: 37000)",
    )
    group.add_argument(
        "--common-numbers",
        type=int,
        nargs="+",
        default=[2, 3, 4, 5, 6],
        metavar="N",
        help="which these are; all are kept of the others (default: 2 3 4 5 6)",
    )
    group.add_argument("--seed", type=int, default=0, help="another seed keeps others (default: 0)")
    group.add_argument(
        "--rows-per-file", type=positive, default=5_000, metavar="N", help="of the result (default: 5000)"
    )


def _add_work_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("work")
    group.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster (default: local)"
    )
    group.add_argument(
        "--num-proc", type=positive, default=1, metavar="N", help="processes, or detectors of Ray's (default: 1)"
    )
    group.add_argument(
        "--shard-rows",
        type=positive,
        default=50_000,
        metavar="N",
        help="rows of a large parquet file that are done together (default: 50000)",
    )
    group.add_argument("--skip-unreadable", action="store_true", help="finish without the shards that cannot be read")
    group.add_argument(
        "--keep-parts", action="store_true", help="keep what came through the stages, to balance it otherwise later"
    )
    group.add_argument("--json", action="store_true", help="print what was counted as an object of JSON")


def _number_or_all(text: str) -> int | None:
    return None if text == "all" else int(text)


def _data_counting_set(options: argparse.Namespace) -> int:
    from count_clip.datasets_scripts.counting_set.build import UnreadableShardsError, build_caption_set
    from count_clip.datasets_scripts.counting_set.shards import Columns, ShardError
    from count_clip.datasets_scripts.counting_set.stages import DetectorError

    columns = Columns(options.caption_column, options.image_column, options.url_column, options.key_column)
    try:
        with _Progress() as progress, quiet_loading():
            report = build_caption_set(
                options.source,
                options.output,
                _config(options),
                columns=columns,
                split=options.split,
                dataset_config=options.config,
                device=options.device,
                downloads=fetch_config(options),
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
        print(
            json.dumps(
                {
                    "folder": str(report.output),
                    "kept": {str(number): count for number, count in report.kept.items()},
                    "files": [str(file) for file in report.files],
                    "failures": report.num_failures,
                    "unreadable_shards": report.num_unreadable,
                    "is_new": report.is_new,
                    **report.counts.as_dict(),
                },
                ensure_ascii=False,
            )
        )
    else:
        _print_report(report)
    if lost:
        print(f"count-clip: {lost:,} images or shards were lost, see {report.output}/failures.jsonl", file=sys.stderr)
    return int(bool(lost) or not report.kept)


def _config(options: argparse.Namespace) -> CaptionSetConfig:
    from count_clip.datasets_scripts.counting_set.stages import CaptionSetConfig

    numbers = {} if options.numbers is None else {"numbers": tuple(options.numbers)}
    return CaptionSetConfig(
        **numbers,
        text_filter=not options.no_text_filter,
        detector=options.detector,
        revision=options.revision,
        threshold=options.threshold,
        min_area=options.min_area,
        max_overlap=options.max_overlap,
        class_agreement=options.class_agreement,
        query=options.query,
        batch_size=options.batch_size,
        captions_only=options.captions_only,
        num_common=options.num_common,
        common_numbers=tuple(options.common_numbers),
        seed=options.seed,
        rows_per_file=options.rows_per_file,
    )


class _Progress:
    """Shows what came through the stages so far: beside a bar, or in a line now and then where nobody sees one."""

    _seconds_between_lines = 10.0

    def __init__(self) -> None:
        self.bar: Any = None
        self.said = -self._seconds_between_lines

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, done: int, total: int, counts: StageCounts) -> None:
        """Say how far it is."""
        from huggingface_hub.utils import tqdm

        stages = ", ".join(
            f"{counts.totals[stage]:,} {what}" for stage, what in _STAGES.items() if stage in counts.totals
        )
        if on_terminal():
            self.bar = self.bar or tqdm(total=total, unit="shard", leave=False)
            self.bar.update(done - self.bar.n)
            self.bar.set_postfix_str(stages)
        elif done == total or time.monotonic() - self.said >= self._seconds_between_lines:
            self.said = time.monotonic()
            say(f"{done} of {total} shards: {stages}", sys.stderr)


def _print_report(report: Any) -> None:
    counts = report.counts
    numbers = [str(number) for number in sorted({*report.kept, *counts.by_number.get("number_word", {})})]
    lines = [["captions", f"{counts.totals['captions']:,}", *("" for _ in numbers)]]
    by_stage = {stage: counts.by_number[stage] for stage in _STAGES if stage in counts.by_number}
    for stage, by_number in by_stage.items():
        cells = [f"{by_number.get(int(number), 0):,}" for number in numbers]
        lines.append([_STAGES[stage], f"{counts.totals[stage]:,}", *cells])
    kept = [f"{report.kept.get(int(number), 0):,}" for number in numbers]
    lines.append(["kept after balancing", f"{sum(report.kept.values()):,}", *kept])
    print_table(["stage", "all", *numbers], lines)
    new = "" if report.is_new else "; it was there already"
    print(f"{len(report.files):,} file{'s' if len(report.files) > 1 else ''} and a card in {report.output}{new}")
