"""The command line: `count-clip count|evaluate|data|convert|demo`."""

# Only the standard library up here, so that `--help` answers at once: torch, transformers and the rest of the package
# are imported by the commands that need them.
from __future__ import annotations

import argparse
import csv
import glob
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch

    from count_clip.evaluation.encoding import SkippedRow


PICTURE_SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".j2k", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"),
    *(".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
DTYPES = ("float32", "bfloat16", "float16")

_EXIT_CODES = "Exit codes: 0 all is well, 1 some files could not be counted, 2 the command could not be carried out."


class CommandError(Exception):
    """The command cannot be carried out; the message is for its user."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv (`Sequence[str]`, *optional*): The arguments; those of the process by default.

    Returns:
        `int`: 0 if all is well, 1 if some files failed and the rest did not, 2 if the command could not be carried
        out, 130 if it was interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["demo"]:  # has options of its own
            return _demo(arguments[1:])
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except SystemExit as stop:  # argparse has said what there was to say
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except CommandError as error:
        print(f"count-clip: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; torch is not imported up here
            raise
        print("count-clip: out of memory on the device. Try a smaller --batch-size, or --device cpu.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("count-clip: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has gone (`| head`). Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


# --- arguments ------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    from ._version import __version__

    parser = argparse.ArgumentParser(
        prog="count-clip", description="Count what you name in words, and measure models that do.", epilog=_EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"count-clip {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_count(commands)
    _add_evaluate(commands)
    _add_data(commands)
    _add_convert(commands)
    commands.add_parser("demo", help="train two small models on rendered scenes and count with them")
    return parser


def _add_model_options(parser: argparse.ArgumentParser, what: str, batch_of: str, batch_size: int) -> None:
    """What all commands with a model take."""
    parser.add_argument("--model", required=True, metavar="MODEL", help=f"{what}: a folder or a name on the Hub")
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (default: a GPU if there is one)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="what to compute in (default: float32)")
    parser.add_argument(
        "--batch-size",
        type=_positive,
        default=batch_size,
        metavar="N",
        help=f"{batch_of} at once; less needs less memory (default: {batch_size})",
    )


def _add_data_options(parser: argparse.ArgumentParser, columns: str, config: str) -> None:
    """What all evaluations take."""
    parser.add_argument(
        "--data",
        default="countscenes",
        metavar="DATA",
        help=f"countscenes (the default: rendered, no download), or a local data set with the columns {columns}: a "
        "folder that `datasets` loads or that `save_to_disk` wrote, or a .parquet, .jsonl or .json file",
    )
    parser.add_argument("--split", default="test", help="part of the data (default: test)")
    parser.add_argument("--config", default=config, help=f"of countscenes (default: {config})")
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="rows at most; of countscenes, pictures to render"
    )
    parser.add_argument("--image-size", type=_positive, metavar="PX", help="of countscenes (default: the config's)")
    parser.add_argument("--seed", type=int, default=0, help="of countscenes (default: 0)")
    parser.add_argument("--json", metavar="FILE", dest="json_file", help="write every figure and row there as JSON")


def _add_count(commands: Any) -> None:
    parser = commands.add_parser(
        "count",
        help="count what you name in your pictures",
        description="Count in pictures. Prints a line for each picture and prompt: the count, the prompt, the file.",
        epilog=f"Example: count-clip count photos/ --text 'red apples' --model org/clip-count. {_EXIT_CODES}",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="pictures, folders (with all below), or patterns")
    parser.add_argument(
        "--text", action="append", required=True, help="what to count; give it several times for several things"
    )
    _add_model_options(parser, "a CLIP-Count model", "windows of pictures", 8)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a line of JSON for each picture and prompt: file, text, count, points [[x, y], ...], width, "
        "height; or file, text, error",
    )
    parser.add_argument("--csv", metavar="FILE", help="write a table there: file, text, count, width, height, error")
    parser.add_argument("--overlay", metavar="DIR", help="write each picture with its density map over it there")
    parser.set_defaults(run=_count)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate", help="measure a model", description="Measure a model on rendered scenes or on your data."
    )
    kinds = parser.add_subparsers(title="protocols", metavar="PROTOCOL", required=True)
    countbench = kinds.add_parser(
        "countbench",
        help="which of nine captions has the right number?",
        description="The protocol of CountBench: the number in a caption is replaced by each of two to ten, and the "
        "caption most similar to the picture wins. Works with any CLIP. Rows that cannot be measured are listed.",
    )
    _add_model_options(countbench, "a count-aware CLIP, or any CLIP", "pictures", 32)
    _add_data_options(countbench, "image, text (a caption with a number word) and number", "benchmark")
    countbench.add_argument("--figure", metavar="FILE", help="draw there which number was said for which")
    countbench.set_defaults(run=_evaluate_countbench)
    density = kinds.add_parser(
        "density",
        help="how far are the counts from the true ones?",
        description="The errors of a density model's counts, beside those of always saying the training mean. Rows "
        "that cannot be measured are listed.",
    )
    _add_model_options(density, "a CLIP-Count model", "windows of pictures", 16)
    _add_data_options(density, "image, text (what to count) and count", "density")
    density.add_argument("--train-split", default="train", help="whose mean is the baseline (default: train)")
    density.add_argument("--overlay", metavar="DIR", help="write each picture with its density map over it there")
    density.set_defaults(run=_evaluate_density)


def _add_data(commands: Any) -> None:
    parser = commands.add_parser("data", help="look at the data", description="Look at the data.")
    kinds = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    sheet = kinds.add_parser(
        "sheet",
        help="many pictures of countscenes on one sheet",
        description="Draw many pictures of countscenes, with their captions or counts, on one sheet.",
    )
    sheet.add_argument("output", metavar="FILE", help="picture to write, for example sheet.png")
    sheet.add_argument("--config", default="captions", help="captions (the default), density, mixed or benchmark")
    sheet.add_argument("--split", default="test", help="part of the data (default: test)")
    sheet.add_argument("--num", type=_positive, default=36, metavar="N", help="pictures (default: 36)")
    sheet.add_argument("--columns", type=_positive, default=6, metavar="N", help="pictures in a row (default: 6)")
    sheet.add_argument("--image-size", type=_positive, metavar="PX", help="side (default: the config's)")
    sheet.add_argument("--seed", type=int, default=0, help="another seed, other pictures (default: 0)")
    sheet.add_argument("--points", action="store_true", help="mark the objects (density only)")
    sheet.set_defaults(run=_data_sheet)


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="bring a published checkpoint into the Hugging Face format",
        description="Bring a published checkpoint into the Hugging Face format.",
    )
    kinds = parser.add_subparsers(title="checkpoints", metavar="KIND", required=True)
    clip_count = kinds.add_parser(
        "clip-count",
        help="the CLIP-Count authors' Lightning checkpoint",
        description="Convert the CLIP-Count authors' checkpoint. What the model is follows from its tensors. The "
        "result is saved only if it computes what the authors' model does. No Python code from the files is run.",
        epilog="Example: count-clip convert clip-count --clip ViT-B-16.pt --checkpoint clipcount.ckpt --output model",
    )
    clip_count.add_argument(
        "--clip",
        required=True,
        metavar="CLIP",
        help="OpenAI's CLIP: its .pt file (a jit archive or a state dict) or a folder of transformers",
    )
    clip_count.add_argument("--checkpoint", required=True, metavar="FILE", help="the authors' .ckpt file")
    clip_count.add_argument("--output", required=True, metavar="DIR", help="save model and processor there")
    clip_count.add_argument(
        "--tokenizer",
        metavar="TOKENIZER",
        help="CLIP's tokenizer: a folder or a name on the Hub (default: the one in the CLIP's folder, or else "
        "OpenAI's from the Hub)",
    )
    clip_count.set_defaults(run=_convert_clip_count)


def _positive(text: str) -> int:
    """An integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, but got {number}")
    return number


# --- count ----------------------------------------------------------------------------------------


def find_pictures(paths: Iterable[str], without: Path | None = None) -> list[Path]:
    """
    The picture files that a list of files, folders and patterns means.

    Args:
        paths (`Iterable[str]`): Files, which are taken as they are; folders, of which all files with a picture's
            ending are taken; patterns with `*`, `?` or `**`.
        without (`Path`, *optional*): A folder of results, which is left out of folders and patterns.

    Returns:
        `list[Path]`: Each file once, in the order given, folders and patterns sorted. Files that do not exist are
        kept, to be reported like any other file that cannot be read.
    """
    left_out = without.resolve() if without is not None else None

    def of_folder(folder: Path) -> list[Path]:
        return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())

    found: dict[Path, Path] = {}
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            candidates, chosen = of_folder(path), False
        elif not path.exists() and glob.has_magic(given):
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            candidates = [match for match in matches if match.is_file()] or [path]
            chosen = candidates == [path]
        else:
            candidates, chosen = [path], True
        for candidate in candidates:
            resolved = candidate.resolve()
            if chosen or left_out is None or left_out not in resolved.parents:
                found.setdefault(resolved, candidate)
    return list(found.values())


def _count(options: argparse.Namespace) -> int:
    prompts = list(dict.fromkeys(text.strip() for text in options.text))
    if not all(prompts):
        raise CommandError("--text is empty: name what to count, for example --text 'red apples'.")
    overlay = Path(options.overlay) if options.overlay else None
    files = find_pictures(options.paths, without=overlay)
    if not files:
        raise CommandError(f"there are no pictures in {', '.join(options.paths)}.")
    namer = _OverlayNamer(overlay, files) if overlay else None
    # The model first: an earlier table must not be emptied by a run that cannot start.
    model, processor = _load_density_model(options)
    with ExitStack() as stack:
        table = None
        if options.csv:
            table = _Table(stack.enter_context(_open_for_writing(options.csv, newline="")))
        return _count_files(files, prompts, model, processor, options, table, namer)


def _count_files(
    files: list[Path],
    prompts: list[str],
    model: Any,
    processor: Any,
    options: argparse.Namespace,
    table: _Table | None,
    namer: _OverlayNamer | None,
) -> int:
    """Count in the files one after another, and report each as soon as it is done."""
    from huggingface_hub.utils import tqdm

    from count_clip.evaluation.density import predict_density

    _check_prompts(processor, prompts)
    wants_points = bool(options.json or namer)
    results = predict_density(
        model,
        processor,
        files,
        [prompts] * len(files),
        batch_size=options.batch_size,
        return_points=wants_points,
        skip_unreadable=True,
    )
    failed = 0
    # `disable=None`: a bar on a terminal, none in a log file.
    bar = tqdm(total=len(files), unit="picture", disable=None)
    try:
        for file, of_file in zip(files, results, strict=True):
            if "error" in of_file[0]:
                failed += 1
                _say(f"count-clip: {of_file[0]['error']}", sys.stderr)
            for result in of_file:
                _report(file, result, options.json, table)
                if namer and "error" not in result:
                    _write_overlay(file, result, namer)
            if table is not None:
                table.flush()
            bar.update()
    except ValueError as error:
        raise CommandError(str(error)) from error
    finally:
        bar.close()
    if failed:
        _say(f"count-clip: {failed} of {len(files)} files could not be counted.", sys.stderr)
    return 1 if failed else 0


class _Table:
    """The CSV file; a row can be read as soon as its picture is done."""

    columns = ("file", "text", "count", "width", "height", "error")

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


def _report(file: Path, result: dict[str, Any], as_json: bool, table: _Table | None) -> None:
    """One line for one picture and prompt."""
    record: dict[str, Any] = {"file": str(file), "text": result["text"]}
    if "error" in result:
        record["error"] = result["error"]
    else:
        height, width = result["density_map"].shape
        record.update(count=round(result["count"], 3), width=width, height=height)
    if table is not None:
        table.add(record)
    if as_json:
        if "points" in result:
            record["points"] = [[round(x, 2), round(y, 2)] for x, y in result["points"]]
        _say(json.dumps(record, ensure_ascii=False), sys.stdout)
    elif "error" not in result:
        _say(f"{result['count']:10.1f}  {result['text']}  {file}", sys.stdout)


def _say(line: str, stream: Any) -> None:
    """Print a line without tearing the progress bar."""
    from huggingface_hub.utils import tqdm

    tqdm.write(line, file=stream)
    stream.flush()


class _OverlayNamer:
    """A file name of its own for each picture and prompt, never that of a picture that is counted."""

    def __init__(self, folder: Path, inputs: Iterable[Path]) -> None:
        self.folder = folder
        self.taken = {path.resolve() for path in inputs}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"cannot write into {folder}: {error.strerror or error}.") from error

    def __call__(self, stem: str, text: str) -> Path:
        slug = re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:60] or "count"
        stem = re.sub(r"[^\w.-]+", "-", stem).strip("-") or "picture"
        number = 1
        while True:
            path = self.folder / (f"{stem}_{slug}.png" if number == 1 else f"{stem}_{slug}-{number}.png")
            if path.resolve() not in self.taken:
                self.taken.add(path.resolve())
                return path
            number += 1


def _write_overlay(file: Any, result: dict[str, Any], namer: _OverlayNamer, stem: str | None = None) -> None:
    """Draw one density map over its picture."""
    from count_clip.evaluation.figures import draw_density
    from count_clip.evaluation.pictures import open_picture

    figure = draw_density(open_picture(file), result["density_map"], result["points"], result["text"], result["count"])
    path = namer(stem or Path(file).stem, result["text"])
    try:
        figure.save(path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error


# --- evaluate -------------------------------------------------------------------------------------


def _evaluate_countbench(options: argparse.Namespace) -> int:
    from count_clip.evaluation.countbench import evaluate_countbench
    from count_clip.evaluation.functional import NUMBERS

    split = options.split
    _check_output(options.json_file)
    _check_output(options.figure, picture=True)
    rows = _load_rows(options, split, ("image", "text"))
    model, processor = _load_clip(options)
    try:
        result = evaluate_countbench(model, processor, rows, batch_size=options.batch_size, progress=_on_terminal())
    except ValueError as error:
        raise CommandError(str(error)) from error
    low, high = result.accuracy_interval()
    print(f"{options.model} on {options.data} ({split}), CountBench protocol, {result.n} rows\n")
    _print_table(
        None,
        [
            ["accuracy", f"{result.accuracy:.2%}", f"95 % interval {low:.2%} to {high:.2%}; guessing gives 11.11%"],
            ["mean deviation", f"{result.mean_deviation:.3f}", "objects"],
            ["off by one at most", f"{result.off_by_one:.2%}", ""],
        ],
    )
    by_number = result.accuracy_by_number()
    print()
    _print_table(
        ["number", *map(str, NUMBERS)],
        [
            ["rows", *[str(int(result.confusion[number - 2].sum())) for number in NUMBERS]],
            ["accuracy", *[f"{by_number[number]:.0%}" if number in by_number else "-" for number in NUMBERS]],
        ],
    )
    _list_skipped(result.skipped)
    if options.figure:
        from count_clip.evaluation.figures import draw_confusion_matrix

        figure = draw_confusion_matrix(result.confusion, NUMBERS, title=f"{options.data}: {result.accuracy:.1%} right")
        _save_figure(figure, options.figure)
    _write_json(
        options, {"protocol": "countbench", "model": options.model, "data": options.data, "split": split}, result
    )
    return 0


def _evaluate_density(options: argparse.Namespace) -> int:
    from count_clip.evaluation.density import evaluate_density

    split = options.split
    _check_output(options.json_file)
    rows = _load_rows(options, split, ("image", "text", "count"))
    train_counts = _train_counts(options)
    model, processor = _load_density_model(options)
    on_result: Callable[[Mapping[str, Any], dict[str, Any]], None] | None = None
    if options.overlay:
        namer = _OverlayNamer(Path(options.overlay), [])

        def draw(row: Mapping[str, Any], result: dict[str, Any]) -> None:
            stem = Path(str(row.get("image_id") or "picture")).name
            _write_overlay(row["image"], result, namer, stem)

        on_result = draw
    try:
        result = evaluate_density(
            model,
            processor,
            rows,
            train_counts,
            batch_size=options.batch_size,
            progress=_on_terminal(),
            on_result=on_result,
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    print(f"{options.model} on {options.data} ({split}), {result.n} rows\n")

    def line(name: str, mae: float, rmse: float, nae: float | None, sre: float | None) -> list[str]:
        return [name, f"{mae:.2f}", f"{rmse:.2f}", *("-" if value is None else f"{value:.3f}" for value in (nae, sre))]

    lines = [line("model", result.mae, result.rmse, result.nae, result.sre)]
    if result.baseline_mae is not None and result.baseline_rmse is not None:
        lines.append(line("always the training mean", result.baseline_mae, result.baseline_rmse, None, None))
    _print_table(["", "MAE", "RMSE", "NAE", "SRE"], lines)
    print()
    groups = sorted(result.by_text.items(), key=lambda item: -item[1].n)
    shown = groups[:20]
    _print_table(
        ["prompt", "rows", "true mean", "said mean", "MAE", "RMSE", "baseline MAE"],
        [
            [
                text,
                str(group.n),
                f"{group.mean_count:.1f}",
                f"{group.mean_predicted:.1f}",
                f"{group.mae:.2f}",
                f"{group.rmse:.2f}",
                "-" if group.baseline_mae is None else f"{group.baseline_mae:.2f}",
            ]
            for text, group in shown
        ],
    )
    if len(groups) > len(shown):
        print(f"... and {len(groups) - len(shown)} more prompts; --json FILE has them all")
    _list_skipped(result.skipped)
    _write_json(options, {"protocol": "density", "model": options.model, "data": options.data, "split": split}, result)
    return 0


def _on_terminal() -> bool:
    """Whether somebody would see a progress bar."""
    return sys.stderr.isatty()


def _print_table(header: list[str] | None, lines: list[list[str]]) -> None:
    """Print columns: words in the first to the left, numbers in the others to the right, remarks after them."""
    rows = [header, *lines] if header else lines
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells if header else [*cells[:-1], row[-1]]).rstrip())


def _list_skipped(skipped: list[SkippedRow]) -> None:
    """Say which rows are not in the figures."""
    if not skipped:
        return
    print(f"\ncount-clip: {len(skipped)} rows could not be measured:", file=sys.stderr)
    for row in skipped[:10]:
        name = f" ({row.image_id})" if row.image_id else ""
        print(f"  row {row.index}{name}: {row.reason}", file=sys.stderr)
    if len(skipped) > 10:
        print(f"  ... and {len(skipped) - 10} more; --json FILE has them all", file=sys.stderr)


def _write_json(options: argparse.Namespace, about: dict[str, Any], result: Any) -> None:
    """Write a result where another program may read it."""
    if options.json_file:
        with _open_for_writing(options.json_file) as stream:
            json.dump({**about, **result.to_dict()}, stream, ensure_ascii=False)
            stream.write("\n")


# --- data -----------------------------------------------------------------------------------------


def _data_sheet(options: argparse.Namespace) -> int:
    from huggingface_hub.utils import tqdm

    from count_clip.evaluation.figures import contact_sheet

    _check_output(options.output, picture=True)
    scenes = _count_scenes(options, options.config, options.split, options.num)
    images, captions = [], []
    for index in tqdm(range(len(scenes)), unit="picture", disable=None, leave=False):
        row = scenes[index]
        images.append(
            _with_points(row["image"], row["points"]) if options.points and "points" in row else row["image"]
        )
        captions.append(f"{row['count']} {row['text']}" if "count" in row else row["text"])
    sheet = contact_sheet(images, captions, options.columns, cell=max(120, min(images[0].width, 320)))
    _save_figure(sheet, options.output)
    return 0


def _with_points(image: Any, points: Sequence[Sequence[float]]) -> Any:
    """A picture with a ring around each point."""
    from PIL import ImageDraw

    marked = image.convert("RGB")
    draw = ImageDraw.Draw(marked)
    radius = max(2, round(min(image.size) * 0.015))
    for x, y in points:
        draw.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), outline=(0, 0, 0), width=3)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(255, 255, 255), width=1)
    return marked


def _save_figure(figure: Any, path: str) -> None:
    """Write a figure and say where it is."""
    try:
        figure.save(Path(path).expanduser())
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error
    print(f"wrote {path}", file=sys.stderr)


# --- convert --------------------------------------------------------------------------------------


def _convert_clip_count(options: argparse.Namespace) -> int:
    import transformers

    from count_clip.modeling.convert_clip_count_to_hf import convert_checkpoint
    from count_clip.modeling.reference_clip_count import ConversionError

    clip, checkpoint, output = (Path(path).expanduser() for path in (options.clip, options.checkpoint, options.output))
    tokenizer = options.tokenizer
    if tokenizer is not None and Path(tokenizer).expanduser().exists():
        tokenizer = Path(tokenizer).expanduser()
    had_bars = transformers.utils.logging.is_progress_bar_enabled()
    if not _on_terminal():
        transformers.utils.logging.disable_progress_bar()
    try:
        conversion = convert_checkpoint(clip, checkpoint, output, tokenizer=tokenizer)
    except (OSError, ValueError, ConversionError) as error:
        raise CommandError(str(error)) from error
    finally:
        if had_bars:
            transformers.utils.logging.enable_progress_bar()
    _print_table(None, [[name, text] for name, text in conversion.summary()])
    print(f"wrote {options.output}", file=sys.stderr)
    return 0


# --- demo -----------------------------------------------------------------------------------------


def _demo(arguments: Sequence[str]) -> int:
    from count_clip.demo import main as run_demo

    return int(run_demo(list(arguments)) or 0)


# --- what the commands share ----------------------------------------------------------------------


def _open_for_writing(path: str, **options: Any) -> Any:
    """Open a text file to write, before the long work begins."""
    try:
        target = Path(path).expanduser()
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("w", encoding="utf-8", **options)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error


def _check_output(path: str | None, picture: bool = False) -> None:
    """Refuse a place that cannot be written to before the long work begins, and leave what is there untouched."""
    if path is None:
        return
    target = Path(path).expanduser()
    if picture:
        from PIL import Image

        if target.suffix.lower() not in Image.registered_extensions():
            raise CommandError(
                f"cannot write {path}: {target.suffix!r} is no picture's ending. Use .png, for example."
            )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab"):
            pass
        if target.stat().st_size == 0:
            target.unlink()
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error


def _count_scenes(options: argparse.Namespace, config: str, split: str, num_scenes: int | None) -> Any:
    """Rendered scenes as a sequence of rows."""
    from count_clip.datasets_scripts.countscenes import CountScenes

    sizes = {} if num_scenes is None else {"num_scenes": num_scenes}
    try:
        return CountScenes(split, config=config, image_size=options.image_size, seed=options.seed, **sizes)
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from error


def _load_rows(options: argparse.Namespace, split: str, needed: Sequence[str]) -> Any:
    """The data of an evaluation."""
    if options.data == "countscenes":
        rows = _count_scenes(options, options.config, split, options.limit)
        _check_columns("--config " + options.config, rows.column_names, needed)
        return rows
    from count_clip.evaluation.local_data import load_local

    try:
        rows = load_local(options.data, split)
    except ValueError as error:
        raise CommandError(str(error)) from error
    _check_columns(options.data, rows.column_names, needed)
    return rows if options.limit is None else rows.select(range(min(options.limit, len(rows))))


def _check_columns(name: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Refuse data that cannot answer the question."""
    missing = [column for column in needed if column not in columns]
    if missing:
        raise CommandError(f"{name} lacks the column {' and '.join(missing)}; it has {', '.join(columns)}.")


def _train_counts(options: argparse.Namespace) -> list[float] | None:
    """The training counts for the baseline, or none if the data has no training part."""
    if options.data == "countscenes":
        scenes = _count_scenes(options, options.config, options.train_split, None)
        return [float(count) for count in scenes.column("count")]
    from count_clip.evaluation.local_data import load_local

    if Path(options.data).expanduser().is_file():
        return None
    try:
        rows = load_local(options.data, options.train_split)
    except ValueError as error:
        print(f"count-clip: no baseline: {error}", file=sys.stderr)
        return None
    return [float(count) for count in rows["count"] if count is not None] or None


def _device(name: str) -> torch.device:
    """Where to run."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CommandError(f"--device {name} cannot be used here: {reason}") from error
    return device


def _load_model(options: argparse.Namespace, model_types: Sequence[str], wanted: str) -> tuple[Any, Any]:
    """A model and its processor; one of another type is refused before its weights are read."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModel, AutoProcessor

    import count_clip

    count_clip.register()
    name = str(Path(options.model).expanduser()) if Path(options.model).expanduser().exists() else options.model
    looks_local = options.model.startswith((".", "/", "~")) or options.model.count("/") > 1
    if looks_local and not Path(name).exists():
        raise CommandError(f"there is no model folder {options.model}.")
    device = _device(options.device)
    had_bars = transformers.utils.logging.is_progress_bar_enabled()
    if not _on_terminal():
        transformers.utils.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(name)
        model_type = type(config).model_type
        if model_type not in model_types:
            hint = " Use `count-clip evaluate countbench`." if model_type in ("count_clip", "clip") else ""
            hint = " Use `count` or `evaluate density`." if model_type == "clip_count_density" else hint
            raise CommandError(f"{options.model} is a model of type {model_type!r}; this needs {wanted}.{hint}")
        model = AutoModel.from_pretrained(name, dtype=getattr(torch, options.dtype))
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"cannot load the model {options.model}: {error}") from error
    finally:
        if had_bars:
            transformers.utils.logging.enable_progress_bar()
    return model.to(device).eval(), processor


def _load_density_model(options: argparse.Namespace) -> tuple[Any, Any]:
    return _load_model(options, ("clip_count_density",), "a CLIP-Count density model ('clip_count_density')")


def _load_clip(options: argparse.Namespace) -> tuple[Any, Any]:
    return _load_model(options, ("count_clip", "clip"), "a CLIP ('count_clip' or 'clip')")


def _check_prompts(processor: Any, prompts: list[str]) -> None:
    """Refuse a prompt that is too long before any picture is read."""
    try:
        processor.tokenize(prompts)
    except ValueError as error:
        raise CommandError(str(error)) from error


__all__ = ["CommandError", "find_pictures", "main"]
