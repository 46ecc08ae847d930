"""`count-clip report`: results of evaluations side by side, on a page that needs no network."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evaluate.baselines import is_baseline
from .shared.errors import CommandError
from .shared.loading import load_clip, load_density_model, load_rows
from .shared.options import Commands, Parser, positive


if TYPE_CHECKING:
    from count_clip.evaluation.report.blocks import Cards, Text
    from count_clip.evaluation.report.results import Result


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "report",
        help="show results of evaluations side by side on a page",
        description="Write one HTML page about result files of `count-clip evaluate ... --json FILE`: figures side by "
        "side with intervals, differences on the same rows, confusion matrices, predicted against true counts, errors "
        "by true count and by class, and how to repeat each result. It holds all it needs, and neither scripts nor "
        "anything from a network. Results of one benchmark share a table only if they are of the same data; the first "
        "of them is what the others are compared with.",
        epilog="""Examples:
  count-clip report base.json tuned.json --output report/
  count-clip report results/ --output report/ --images 6

Exit codes:
  0    all is well
  1    the page is there, but some files or images are not on it
  2    there is no page
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
        help="show the N best and the N worst images of each model with their maps (countbench, density): loads the "
        "model and the data that the result names, and looks at those images once more",
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
            print(f"count-clip: {file} is left out: it is the same as {twin}", file=sys.stderr)
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
    """Refuse a folder that cannot be written to before the long work begins."""
    import tempfile

    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CommandError(f"cannot write into {path}: {error.strerror or error}.") from error


def _files(given: list[str]) -> list[str]:
    """Files as they are, and the result files in folders, each once."""
    found: list[str] = []
    for name in given:
        place = Path(name).expanduser()
        inside = sorted(str(path) for path in place.glob("*.json")) if place.is_dir() else [name]
        if not inside:
            raise CommandError(f"there is no result file (*.json) in {name}.")
        found += inside
    return list(dict.fromkeys(found))


def _images(results: list[Result], options: argparse.Namespace) -> tuple[dict[str, list[Cards | Text]], bool]:
    """The best and worst images of each result, or why there are none; and whether some are missing."""
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
            continue
        if not options.images:
            found[result.file] = [
                Text(f"{result.file}: its best and worst images are shown with --images N, if its data is at hand.")
            ]
            continue
        try:
            found[result.file] = list(_look_again(result, labels[result.file], options))
        except (CommandError, ValueError) as error:
            failed = True
            reason = f"{result.file}: its images cannot be shown: {error}"
            print(f"count-clip: {reason}", file=sys.stderr)
            found[result.file] = [Text(reason, warning=True)]
    return found, failed


def _look_again(result: Result, label: str, options: argparse.Namespace) -> list[Cards]:
    """Load the model and the data of a result, and show some of its images."""
    from count_clip.evaluation.report.images import image_cards

    again = _options_of(result)
    again.device = options.device
    needed = ("image", "text", "count") if result.benchmark == "density" else ("image", "text")
    rows = load_rows(again, again.split, needed)
    model, processor = load_density_model(again) if result.benchmark == "density" else load_clip(again)
    return image_cards(result, label, rows, model, processor, options.images, again.batch_size)


def _options_of(result: Result) -> argparse.Namespace:
    """
    What `count-clip evaluate` was called with; of a file without a record, as much as it says.

    Raises:
        CommandError: If this version would not understand the command.
    """
    import io
    from contextlib import redirect_stderr

    from . import evaluate

    words = shlex.split(str(result.run.get("command") or ""))
    arguments = words[1:] if words[1:2] == ["evaluate"] else ["evaluate", *_older_arguments(result)]
    parser: argparse.ArgumentParser = Parser(prog="count-clip", exit_on_error=False)
    evaluate.add_parser(parser.add_subparsers(required=True))
    try:
        with redirect_stderr(io.StringIO()):
            again = parser.parse_args(arguments)
    except (argparse.ArgumentError, SystemExit) as error:
        command = shlex.join(["count-clip", *arguments])
        raise CommandError(f"this version does not understand the command of the result: {command}") from error
    return again


def _older_arguments(result: Result) -> list[str]:
    """The command of a file without a record."""
    arguments = [result.benchmark, "--model", result.model]
    for name in ("data", "split", "config", "image_size", "limit", "seed"):
        value: Any = result.data.get("name") if name == "data" else result.content.get(name)
        if name == "limit" and value is None and result.data.get("name") == "countscenes":
            value = (result.measured or 0) + result.missing
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    return arguments
