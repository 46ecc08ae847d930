"""`count-clip count`: how many there are in each image."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import tee
from pathlib import Path
from typing import Any

from .shared.errors import EXIT_CODES, CommandError
from .shared.inputs import Source, expected_sources, find_inputs, read_sources
from .shared.loading import check_prompts, check_texts, load_model
from .shared.options import Commands, add_model_options, add_window_option, positive, seconds
from .shared.output import OverlayNamer, open_for_writing, readable, say, write_overlay


_Counter = Callable[[Iterable[Any]], Iterator[list[dict[str, Any]]]]


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "count",
        help="count what you name in your images and videos",
        description="Count in images and in frames of videos. Prints a line for each image and prompt: the count, "
        "the prompt, the file. What cannot be read is reported, and the rest is counted. A count-aware CLIP in the "
        "place of a density model chooses a number from two to ten: it sees the image whole, and not where things "
        "are.",
        epilog=f"""Examples:
  count-clip count photos/ --text 'red apples' --model org/clip-count
  count-clip count 'scans/**/*.tif' --text cells --text platelets --model cells/ --csv counts.csv
  count-clip count traffic.mp4 --every 10 --text cars --model org/clip-count --overlay drawn/
  count-clip count photos/ --text dogs --text 'a drawing of {{}} cats' --model org/count-clip

{EXIT_CODES}""",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images, videos, folders (with all below), or patterns in quotes, for example 'photos/**/*.jpg'",
    )
    parser.add_argument(
        "--text",
        action="append",
        required=True,
        help="what to count; give it several times for several things. For a count-aware CLIP it may be a caption "
        "with {} where the number goes (default: 'a photo of {} TEXT')",
    )
    add_model_options(parser, "a CLIP-Count model, or a count-aware CLIP", "windows of images", 8)
    add_window_option(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a line of JSON for each image and prompt: file, text, count, points [[x, y], ...] (of a CLIP "
        "score, 0 to 1), width, height, and of a frame time in seconds; or file, text, error",
    )
    parser.add_argument("--csv", metavar="FILE", help=f"write a table there: {', '.join(_Table.columns)}")
    parser.add_argument("--overlay", metavar="DIR", help="write each image with its density map over it there")
    parser.add_argument(
        "--every",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="from one frame of a video to the next; 0 for every frame (default: 1)",
    )
    parser.add_argument("--max-frames", type=positive, metavar="N", help="frames of a video at most")
    parser.set_defaults(run=_count)


def _count(options: argparse.Namespace) -> int:
    prompts = list(dict.fromkeys(text.strip() for text in options.text))
    if not all(prompts):
        raise CommandError("--text is empty: name what to count, for example --text 'red apples'.")
    check_texts(prompts)
    overlay = Path(options.overlay).expanduser() if options.overlay else None
    files = find_inputs(options.paths, without=overlay)
    if not files:
        raise CommandError(f"there are no images or videos in {', '.join(options.paths)}.")
    namer = OverlayNamer(overlay, files) if overlay else None
    # The model first: an earlier table must not be emptied by a run that cannot start.
    model, processor = load_model(
        options, tuple(_COUNTERS), "a CLIP-Count density model ('clip_count_density') or a CLIP for counting"
    )
    count = _COUNTERS[model.config.model_type](model, processor, prompts, options)
    with ExitStack() as stack:
        table = None
        if options.csv:
            table = _Table(stack.enter_context(open_for_writing(options.csv, files, newline="")))
        return _count_files(files, prompts, count, options, table, namer)


def _density_counter(model: Any, processor: Any, prompts: list[str], options: argparse.Namespace) -> _Counter:
    """A function that counts each prompt in each of the images that come."""
    from count_clip.evaluation.benchmarks.density import predict_density

    check_prompts(processor, prompts)

    def count(images: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
        images, one_each = tee(images)
        return predict_density(
            model,
            processor,
            images,
            (prompts for _ in one_each),
            batch_size=options.batch_size,
            return_points=bool(options.json or options.overlay),
            skip_unreadable=True,
            window=options.window,
        )

    return count


def _clip_counter(model: Any, processor: Any, prompts: list[str], options: argparse.Namespace) -> _Counter:
    """The same of a CLIP, which chooses among nine captions."""
    from count_clip.evaluation.inference.number_choice import choose_numbers

    for name, value in (("--overlay", options.overlay), ("--window", options.window)):
        if value is not None:
            raise CommandError(
                f"{options.model} is a CLIP, which says how many there are and not where: leave {name} out, or take a "
                "density model. `count-clip explain` draws what a CLIP looks at."
            )
    captions = [prompt if "{}" in prompt else f"a photo of {{}} {prompt}" for prompt in prompts]
    try:
        choose_numbers(model, processor, [], captions)
    except ValueError as error:
        raise CommandError(str(error)) from error

    def count(images: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
        batch_size = options.batch_size
        for results in choose_numbers(model, processor, images, captions, batch_size, skip_unreadable=True):
            yield [{**result, "text": prompt} for result, prompt in zip(results, prompts, strict=True)]

    return count


_COUNTERS = {"clip_count_density": _density_counter, "count_clip": _clip_counter}


def _count_files(
    files: list[Path],
    prompts: list[str],
    count: _Counter,
    options: argparse.Namespace,
    table: _Table | None,
    namer: OverlayNamer | None,
) -> int:
    """Count in the files one after another, and report each as soon as it is done."""
    from huggingface_hub.utils import tqdm

    failed = set()
    width = max(map(len, prompts))
    # `disable=None`: a bar on a terminal, none in a log file.
    bar = tqdm(total=expected_sources(files, options.every, options.max_frames), unit="image", disable=None)
    try:
        sources = read_sources(files, options.every, options.max_frames)
        for source, results in _with_results(sources, prompts, count):
            if "error" in results[0]:
                failed.add(source.file)
                reason = results[0]["error"]
                named = "" if str(source.file) in reason else f"{readable(source)}: "
                say(f"count-clip: {named}{reason}", sys.stderr)
            for result in results:
                _report(source, result, options.json, table, width)
                if namer and "error" not in result:
                    write_overlay(source.image, result, namer, source.stem)
            if table is not None:
                table.flush()
            bar.update()
    except ValueError as error:
        raise CommandError(str(error)) from error
    finally:
        bar.close()
    if failed:
        say(f"count-clip: {len(failed)} of {len(files)} files could not be counted.", sys.stderr)
    return 1 if failed else 0


def _with_results(
    sources: Iterable[Source],
    prompts: list[str],
    count: _Counter,
) -> Iterator[tuple[Source, list[dict[str, Any]]]]:
    """Each source with its results, in order; what cannot be read does not go through the model."""
    waiting: deque[Source] = deque()  # results come later than their images: a batch is filled first

    def images() -> Iterator[Any]:
        for source in sources:
            waiting.append(source)
            if source.error is None:
                yield source.image

    def unreadable() -> Iterator[tuple[Source, list[dict[str, Any]]]]:
        while waiting and waiting[0].error is not None:
            source = waiting.popleft()
            yield source, [{"text": prompt, "error": source.error} for prompt in prompts]

    for results in count(images()):
        yield from unreadable()
        yield waiting.popleft(), results
    yield from unreadable()


class _Table:
    """The CSV file; a row can be read as soon as its image is done."""

    columns = ("file", "time", "text", "count", "width", "height", "error")

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.writer = csv.DictWriter(stream, self.columns, restval="", extrasaction="ignore")
        self.writer.writeheader()

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one row."""
        self.writer.writerow(record)

    def flush(self) -> None:
        """Bring what was written to the disk."""
        self.stream.flush()


def _report(source: Source, result: dict[str, Any], as_json: bool, table: _Table | None, width: int) -> None:
    """One line for one image and prompt."""
    record: dict[str, Any] = {"file": readable(source.file), "text": result["text"]}
    if source.time is not None:
        record["time"] = round(source.time, 3)
    if "error" in result:
        record["error"] = readable(result["error"])
    else:
        is_map = "density_map" in result
        height, image_width = result["density_map"].shape if is_map else (result["height"], result["width"])
        record.update(count=round(result["count"], 3), width=image_width, height=height)
    if table is not None:
        table.add(record)
    if as_json:
        if "points" in result:
            record["points"] = [[round(x, 2), round(y, 2)] for x, y in result["points"]]
        if "score" in result:
            record["score"] = round(result["score"], 4)
        say(json.dumps(record, ensure_ascii=False), sys.stdout)
    elif "error" not in result:
        shown = f"{result['count']:10.1f}" if isinstance(result["count"], float) else f"{result['count']:10d}"
        say(f"{shown}  {result['text']:<{width}}  {readable(source)}", sys.stdout)
