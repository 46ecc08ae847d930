"""What the commands print and write."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CommandError


if TYPE_CHECKING:
    from count_clip.evaluation.inference.encoding import SkippedRow


def on_terminal() -> bool:
    """Whether somebody would see a progress bar."""
    return sys.stderr.isatty()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without a terminal, no bars of transformers and of downloads on stderr."""
    import transformers
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    had_bars = transformers.utils.logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    if not on_terminal():
        transformers.utils.logging.disable_progress_bar()
        disable_progress_bars()
    try:
        yield
    finally:
        if had_bars[0]:
            transformers.utils.logging.enable_progress_bar()
        if had_bars[1]:
            enable_progress_bars()


def readable(name: object) -> str:
    """A file's name, or a text with one in it, as it can be written: names need not be UTF-8."""
    return os.fsencode(str(name)).decode("utf-8", "backslashreplace")


def say(line: str, stream: Any) -> None:
    """Print a line without tearing the progress bar."""
    line = readable(line)
    from huggingface_hub.utils import tqdm

    tqdm.write(line, file=stream)
    stream.flush()


def print_table(header: list[str] | None, lines: list[list[str]]) -> None:
    """Print columns: words in the first to the left, numbers in the others to the right, remarks after them."""
    rows = [header, *lines] if header else lines
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells if header else [*cells[:-1], row[-1]]).rstrip())


def list_skipped(skipped: list[SkippedRow]) -> None:
    """Say which rows are not in the figures."""
    if not skipped:
        return
    print(f"\ncount-clip: {len(skipped)} rows could not be measured:", file=sys.stderr)
    for row in skipped[:10]:
        name = f" ({row.image_id})" if row.image_id else ""
        print(f"  row {row.index}{name}: {row.reason}", file=sys.stderr)
    if len(skipped) > 10:
        print(f"  ... and {len(skipped) - 10} more; --json FILE has them all", file=sys.stderr)


def _refuse_input(path: str, target: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read."""
    if target.exists() and any(one.exists() and target.samefile(one) for one in inputs):
        raise CommandError(f"cannot write {path}: it is what is to be read. Name another file.")


def open_for_writing(path: str, inputs: Iterable[Path] = (), **options: Any) -> Any:
    """Open a text file to write, before the long work begins."""
    try:
        target = Path(path).expanduser()
        _refuse_input(path, target, inputs)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("w", encoding="utf-8", **options)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error


def check_output(path: str | None, image: bool = False, inputs: Iterable[Path] = ()) -> None:
    """
    Refuse a place that cannot be written to before the long work begins, and leave what is there untouched.

    Args:
        path (`str`, *optional*): What is to be written; nothing is checked without.
        image (`bool`, *optional*, defaults to `False`): Whether it is an image, by its ending.
        inputs (`Iterable[Path]`, *optional*): Files that are read, and must not be written over.
    """
    if path is None:
        return
    target = Path(path).expanduser()
    if image:
        from PIL import Image

        if target.suffix.lower() not in Image.registered_extensions():
            raise CommandError(f"cannot write {path}: {target.suffix!r} is no image's ending. Use .png, for example.")
    try:
        _refuse_input(path, target, inputs)
        target.parent.mkdir(parents=True, exist_ok=True)
        is_new = not os.path.lexists(target)
        with target.open("ab"):
            pass
        if is_new:
            target.unlink()
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error


def save_figure(figure: Any, path: str) -> None:
    """Write a figure and say where it is."""
    try:
        figure.save(Path(path).expanduser())
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error
    print(f"wrote {path}", file=sys.stderr)


def _cut(name: str, num_bytes: int) -> str:
    """The beginning of a name that takes no more bytes than that."""
    return os.fsencode(name)[:num_bytes].decode("utf-8", "ignore")


class OverlayNamer:
    """A file name of its own for each image and prompt, never that of an image that is counted."""

    def __init__(self, folder: Path, inputs: Iterable[Path]) -> None:
        self.folder = folder
        self.taken = {path.resolve() for path in inputs}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"cannot write into {folder}: {error.strerror or error}.") from error

    def __call__(self, stem: str, text: str) -> Path:
        """The next file for an image of this name and this prompt."""
        slug = re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:60] or "count"
        stem = re.sub(r"[^\w.-]+", "-", stem).strip("-") or "image"
        # File systems take names of 255 bytes; some are left for a number.
        stem, slug = _cut(stem, 120), _cut(slug, 100)
        number = 1
        while True:
            path = self.folder / (f"{stem}_{slug}.png" if number == 1 else f"{stem}_{slug}-{number}.png")
            if path.resolve() not in self.taken:
                self.taken.add(path.resolve())
                return path
            number += 1


def write_overlay(counted: Any, namer: OverlayNamer, stem: str) -> None:
    """Draw each prompt's density map over the image."""
    from count_clip.evaluation.figures.figures import draw_density

    for result in counted.results:
        maps = result["density_map"], result["points"]
        path = namer(stem, result["text"])
        try:
            draw_density(counted.image, *maps, result["text"], result["count"]).save(path)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error
