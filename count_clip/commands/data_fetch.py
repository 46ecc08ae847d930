"""`count-clip data fetch`: the pictures of a list of addresses."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from .errors import CommandError
from .fetch_options import add_fetch_options, fetch_config
from .options import Commands, positive
from .output import on_terminal, print_table, say


if TYPE_CHECKING:
    from count_clip.datasets_scripts.fetch_report import FetchCounts, FetchReport


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "fetch",
        help="the pictures of a list of addresses",
        description="Fetch the pictures of a list of addresses to a folder that load_dataset('DIR') reads, with the "
        "list's other columns. Each is decoded once to see that it is a picture and whole, and kept as it is. What "
        "cannot be had is in failures.jsonl with the reason, which is a list of addresses again. Nothing is fetched "
        "twice: one that was stopped goes on when it is called again.",
        epilog="""Examples:
  count-clip data fetch addresses.txt --output pictures
  count-clip data fetch laion.parquet --url-column URL --output laion --connections 64
  count-clip data fetch captions.csv --output pictures --format folder

Exit codes:
  0    all is well
  1    it was done, but some pictures could not be had
  2    the command could not be carried out; what was fetched is kept
  130  interrupted; what was fetched is kept""",
    )
    parser.add_argument(
        "source", metavar="URLS", help="the list: .txt (one a line), .csv, .tsv, .jsonl (these also .gz) or .parquet"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="the folder to write: new, or one that was begun"
    )
    parser.add_argument("--url-column", metavar="COLUMN", help="holds the addresses (default: url or image_url)")
    parser.add_argument(
        "--sha256-column", metavar="COLUMN", help="holds what the files should hash to; others are left out"
    )
    parser.add_argument(
        "--format",
        choices=("parquet", "folder"),
        default="parquet",
        help="parquet files with the pictures in them (the default), or folders of pictures with metadata.jsonl, as "
        "imagefolder reads them",
    )
    parser.add_argument(
        "--shard-rows", type=positive, default=1000, metavar="N", help="rows of a file or folder (default: 1000)"
    )
    add_fetch_options(parser)
    parser.add_argument("--json", action="store_true", help="print what was counted as an object of JSON")
    parser.set_defaults(run=_data_fetch)


def _data_fetch(options: argparse.Namespace) -> int:
    from count_clip.datasets_scripts.fetch_sets import fetch_list

    try:
        with _Progress() as progress:
            report = fetch_list(
                options.source,
                options.output,
                fetch_config(options),
                url_column=options.url_column,
                sha256_column=options.sha256_column,
                layout=options.format,
                rows_per_shard=options.shard_rows,
                progress=progress.show,
            )
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    if options.json:
        said = {"folder": str(report.output), "is_new": report.is_new, "seconds": report.seconds}
        print(json.dumps({**said, **report.counts.as_dict()}, ensure_ascii=False))
    else:
        _print_report(report)
    if report.num_failures:
        print(
            f"count-clip: {report.num_failures:,} pictures could not be had, see {report.output}/failures.jsonl",
            file=sys.stderr,
        )
    return int(bool(report.num_failures))


def _print_report(report: FetchReport) -> None:
    counts = report.counts
    lines = [["fetched", f"{counts.fetched:,}"]]
    lines += [[f"not to be had: {reason}", f"{number:,}"] for reason, number in counts.common_reasons()]
    print_table(["", "addresses"], [*lines, ["all", f"{counts.rows:,}"]])
    new = "" if report.is_new else "; it was there already"
    rate = f", {counts.rows / report.seconds:,.1f} addresses a second" if report.seconds else ""
    print(f"{counts.bytes / 1e6:,.1f} MB in {report.output}{rate}{new}")


class _Progress:
    """A bar; or a line now and then where nobody sees one."""

    _seconds_between_lines = 10.0

    def __init__(self) -> None:
        self.bar: Any = None
        self.said = time.monotonic()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, done: int, total: int, counts: FetchCounts) -> None:
        """Say how far it is."""
        from huggingface_hub.utils import tqdm

        if on_terminal():
            self.bar = self.bar or tqdm(total=total, initial=done, unit="address", leave=False)
            self.bar.update(done - self.bar.n)
            self.bar.set_postfix_str(f"{counts.fetched:,} fetched, {counts.bytes / 1e6:,.0f} MB", refresh=False)
        elif time.monotonic() - self.said >= self._seconds_between_lines:
            self.said = time.monotonic()
            say(f"{done:,} of {total:,} addresses, {counts.fetched:,} fetched", sys.stderr)


__all__ = ["add_parser"]
