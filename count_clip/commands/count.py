"""`count-clip count`: counts objects in images and videos."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shared.errors import EXIT_CODES, CommandError
from .shared.inputs import Source, expected_sources, find_inputs, read_sources
from .shared.loading import DENSITY_TYPES, check_texts, load_model
from .shared.options import Commands, add_model_options, add_window_option, positive, seconds
from .shared.output import OverlayNamer, open_for_writing, print_line, readable, write_overlay


if TYPE_CHECKING:
    from count_clip.modeling.counting_engine import Counted, ImageCounter


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "count",
        help="count what you name in your images and videos",
        description="Count in images and in frames of videos. Prints a line for each image and prompt: the count, "
        "the prompt, the file. Files that cannot be read are reported, and the rest is counted. With a count-aware "
        "CLIP instead of a density model, each count is a number from two to ten, without positions.",
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
        help="what to count; repeat it for several classes. For a count-aware CLIP it may be a caption with {} where "
        "the number goes (default: 'a photo of {} TEXT')",
    )
    add_model_options(parser, "a CLIP-Count model, or a count-aware CLIP", "windows of images", 8)
    add_window_option(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a line of JSON for each image and prompt: file, text, count, points [[x, y], ...] (of a CLIP "
        "score, 0 to 1), width, height, and of a frame time in seconds; or file, text, error",
    )
    parser.add_argument("--csv", metavar="FILE", help=f"write a table with {', '.join(_Table.columns)}")
    parser.add_argument("--overlay", metavar="DIR", help="write each image with its density map over it into DIR")
    parser.add_argument(
        "--every",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="time between frames of a video; 0 for every frame (default: 1)",
    )
    parser.add_argument("--max-frames", type=positive, metavar="N", help="most frames of a video")
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
    counter, captions = _load_counter(options, prompts)
    with ExitStack() as stack:
        table = None
        if options.csv:
            table = _Table(stack.enter_context(open_for_writing(options.csv, files, newline="")))
        return _count_files(files, dict(zip(captions, prompts, strict=True)), counter, options, table, namer)


def _load_counter(options: argparse.Namespace, prompts: list[str]) -> tuple[ImageCounter, list[str]]:
    """The engine of the model, and the prompts as the model takes them."""
    from count_clip.modeling.counting_engine import DensityCounter
    from count_clip.modeling.pipeline_caption_counting import NumberChooser

    wanted = "a density model ('clip_count_density' or 'vision_text_count_density') or a CLIP for counting"
    model, processor = load_model(options, (*DENSITY_TYPES, "count_clip"), wanted)
    counter: DensityCounter | NumberChooser
    if model.config.model_type in DENSITY_TYPES:
        draws = bool(options.overlay)
        counter = DensityCounter(
            model,
            processor,
            options.batch_size,
            options.window,
            return_points=draws or options.json,
            return_density_map=draws,
            keep_images=draws,
        )
    else:
        for name, value in (("--overlay", options.overlay), ("--window", options.window)):
            if value is not None:
                raise CommandError(
                    f"{options.model} is a CLIP, which predicts how many objects there are and not where: leave "
                    f"{name} out, or take a density model. `count-clip explain` draws what a CLIP looks at."
                )
        counter = NumberChooser(model, processor, options.batch_size)
        prompts = [prompt if "{}" in prompt else f"a photo of {{}} {prompt}" for prompt in prompts]
    try:
        counter.check_prompts(prompts)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return counter, prompts


def _count_files(
    files: list[Path],
    prompts: dict[str, str],
    counter: ImageCounter,
    options: argparse.Namespace,
    table: _Table | None,
    namer: OverlayNamer | None,
) -> int:
    """Count in the files one after another, and report each as soon as it is done."""
    from huggingface_hub.utils import tqdm

    failed = set()
    width = max(map(len, prompts.values()))
    sources = read_sources(files, options.every, options.max_frames)
    # `disable=None`: a bar on a terminal, none in a log file.
    bar = tqdm(total=expected_sources(files, options.every, options.max_frames), unit="image", disable=None)
    try:
        for counted in counter((source.image, list(prompts), source) for source in sources):
            source = counted.tag
            if counted.error is not None:
                failed.add(source.file)
                reason = str(counted.error)
                named = "" if str(source.file) in reason else f"{readable(source)}: "
                print_line(f"count-clip: {named}{reason}", sys.stderr)
            for result in counted.results:
                _report(counted, result, prompts[result["text"]], options.json, table, width)
            if namer and counted.error is None:
                write_overlay(counted, namer, source.stem)
            if table is not None:
                table.flush()
            bar.update()
    except ValueError as error:
        raise CommandError(str(error)) from error
    finally:
        bar.close()
    if failed:
        print_line(f"count-clip: {len(failed)} of {len(files)} files could not be counted.", sys.stderr)
    return 1 if failed else 0


class _Table:
    """The CSV file; rows can be read as soon as their image is done."""

    columns = ("file", "time", "text", "count", "width", "height", "error")

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.writer = csv.DictWriter(stream, self.columns, restval="", extrasaction="ignore")
        self.writer.writeheader()

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one row."""
        self.writer.writerow(record)

    def flush(self) -> None:
        """Write buffered rows to the disk."""
        self.stream.flush()


def _report(
    counted: Counted, result: dict[str, Any], text: str, as_json: bool, table: _Table | None, width: int
) -> None:
    """One line for one image and prompt."""
    source: Source = counted.tag
    record: dict[str, Any] = {"file": readable(source.file), "text": text}
    if source.time is not None:
        record["time"] = round(source.time, 3)
    if "error" in result:
        record["error"] = readable(result["error"])
    else:
        image_height, image_width = counted.size
        record.update(count=round(result["count"], 3), width=image_width, height=image_height)
    if table is not None:
        table.add(record)
    if as_json:
        if "points" in result:
            record["points"] = [[round(x, 2), round(y, 2)] for x, y in result["points"]]
        if "score" in result:
            record["score"] = round(result["score"], 4)
        print_line(json.dumps(record, ensure_ascii=False), sys.stdout)
    elif "error" not in result:
        shown = f"{result['count']:10.1f}" if isinstance(result["count"], float) else f"{result['count']:10d}"
        print_line(f"{shown}  {text:<{width}}  {readable(source)}", sys.stdout)
