"""`count-clip report`: a page with results of evaluations side by side."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .evaluate.baselines import is_baseline
from .shared.errors import CommandError
from .shared.loading import load_clip, load_data, load_density_model
from .shared.options import Commands, Parser, positive


if TYPE_CHECKING:
    from count_clip.evaluation.report.blocks import Cards, Text
    from count_clip.evaluation.report.results import Result


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "report",
        help="write a page with results of evaluations side by side",
        description="Write one HTML page about result files of `count-clip evaluate ... --json FILE`: figures side by "
        "side with intervals, differences on the same rows, confusion matrices, predicted against true counts, errors "
        "by true count and by class, and how to repeat each result. The page needs neither scripts nor a network. "
        "Results of one benchmark share a table if they are of the same data, and are compared with the first one.",
        epilog="""Examples:
  count-clip report base.json tuned.json --output report/
  count-clip report results/ --output report/ --images 6

Exit codes:
  0    success
  1    the page is written, but some files or images are not on it
  2    no page is written
  130  interrupted""",
    )
    parser.add_argument("results", nargs="+", metavar="RESULT", help="result files, or folders of them (*.json)")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the page, index.html")
    parser.add_argument(
        "--title", default="How well do these models count?", metavar="TEXT", help="heading of the page"
    )
    parser.add_argument(
        "--images",
        type=positive,
        metavar="N",
        help="show the N best and the N worst images of each model with their maps (countbench, density); loads the "
        "model and the data of the result",
    )
    parser.add_argument("--device", default="auto", help="for --images (default: a GPU if there is one)")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from count_clip.evaluation.report.page import render_report, write_page
    from count_clip.evaluation.report.results import ResultError, read_result

    _check_folder(options.output)
    results: list[Result] = []
    problems: list[tuple[str, str]] = []
    for file in _files(options.results):
        try:
            result = read_result(file)
        except ResultError as error:
            problems.append((file, str(error)))
            continue
        twin = next((other.file for other in results if other.sha256 == result.sha256), None)
        if twin is None:
            results.append(result)
        else:
            print(f"count-clip: {file} is left out: it is identical to {twin}", file=sys.stderr)
    for _, reason in problems:
        print(f"count-clip: {reason}", file=sys.stderr)
    if not results:
        raise CommandError(f"there is nothing to report: none of {len(problems)} files holds a result.")
    images, failed = _images(results, options)
    page = render_report(results, problems, images, options.title)
    try:
        path = write_page(options.output, page)
    except OSError as error:
        raise CommandError(f"cannot write into {options.output}: {error.strerror or error}.") from error
    print(f"wrote {path}: {len(results)} results", file=sys.stderr)
    return 1 if problems or failed else 0


def _check_folder(path: str) -> None:
    """Check that the folder can be written to."""
    import tempfile

    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CommandError(f"cannot write into {path}: {error.strerror or error}.") from error


def _files(given: list[str]) -> list[str]:
    """The files, and the result files in folders, each once."""
    found: list[str] = []
    for name in given:
        place = Path(name).expanduser()
        inside = sorted(str(path) for path in place.glob("*.json")) if place.is_dir() else [name]
        if not inside:
            raise CommandError(f"there is no result file (*.json) in {name}.")
        found += inside
    return list(dict.fromkeys(found))


def _images(results: list[Result], options: argparse.Namespace) -> tuple[dict[str, list[Cards | Text]], bool]:
    """The best and worst images of each result, or why there are none; and whether some failed."""
    from count_clip.evaluation.report.blocks import Text
    from count_clip.evaluation.report.images import IMAGED
    from count_clip.evaluation.report.page import labels_for

    labels = labels_for(results)
    found: dict[str, list[Cards | Text]] = {}
    failed = False
    for result in results:
        if result.benchmark not in IMAGED:
            continue
        if is_baseline(result.model):
            found[result.file] = [Text(f"{result.file}: a baseline has no maps to show.")]
        elif not options.images:
            found[result.file] = [Text(f"{result.file}: --images N shows its best and worst images.")]
        else:
            try:
                found[result.file] = list(_image_cards(result, labels[result.file], options))
            except (CommandError, ValueError) as error:
                failed = True
                reason = f"{result.file}: its images cannot be shown: {error}"
                print(f"count-clip: {reason}", file=sys.stderr)
                found[result.file] = [Text(reason, warning=True)]
    return found, failed


def _image_cards(result: Result, label: str, options: argparse.Namespace) -> list[Cards]:
    """Load the model and the data of a result, and show some of its images."""
    from count_clip.evaluation.report.images import image_cards

    measured = _options_of(result)
    measured.device = options.device
    is_density = result.benchmark == "density"
    rows = load_data(measured, measured.split, ("image", "text", "count") if is_density else ("image", "text")).rows
    model, processor = (load_density_model if is_density else load_clip)(measured)
    return image_cards(result, label, rows, model, processor, options.images, measured.batch_size)


def _options_of(result: Result) -> argparse.Namespace:
    """The options of the `count-clip evaluate` command that wrote a result; `CommandError` without a valid one."""
    import io
    from contextlib import redirect_stderr

    from . import evaluate

    command = str(result.run.get("command") or "")
    parser: argparse.ArgumentParser = Parser(prog="count-clip", exit_on_error=False)
    evaluate.add_parser(parser.add_subparsers(required=True))
    try:
        with redirect_stderr(io.StringIO()):
            return parser.parse_args(shlex.split(command)[1:])
    except (argparse.ArgumentError, SystemExit, ValueError) as error:
        raise CommandError(f"this version does not accept the command of the result: {command}") from error
