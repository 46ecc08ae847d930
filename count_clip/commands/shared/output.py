"""Printing and writing."""

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
    """Whether stderr is a terminal, which shows progress bars."""
    return sys.stderr.isatty()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide the progress bars of transformers and downloads unless stderr is a terminal."""
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
    """A text in valid UTF-8; file names may be in another encoding."""
    return os.fsencode(str(name)).decode("utf-8", "backslashreplace")


def print_line(line: str, stream: Any) -> None:
    """Print a line above the progress bar."""
    line = readable(line)
    from huggingface_hub.utils import tqdm

    tqdm.write(line, file=stream)
    stream.flush()


def print_table(header: list[str] | None, lines: list[list[str]]) -> None:
    """Print columns: the first aligned left, the others right; without a header the last is text."""
    rows = [header, *lines] if header else lines
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells if header else [*cells[:-1], row[-1]]).rstrip())


def list_skipped(skipped: list[SkippedRow]) -> None:
    """Print the rows that could not be measured."""
    if not skipped:
        return
    print(f"\ncount-clip: {len(skipped)} rows could not be measured:", file=sys.stderr)
    for row in skipped[:10]:
        name = f" ({row.image_id})" if row.image_id else ""
        print(f"  row {row.index}{name}: {row.reason}", file=sys.stderr)
    if len(skipped) > 10:
        print(f"  ... and {len(skipped) - 10} more; --json FILE has all", file=sys.stderr)


def _refuse_input(path: str, target: Path, inputs: Iterable[Path]) -> None:
    """Raise `CommandError` if the target is one of the inputs."""
    if target.exists() and any(one.exists() and target.samefile(one) for one in inputs):
        raise CommandError(f"cannot write {path}: it is an input. Name another file.")


def open_for_writing(path: str, inputs: Iterable[Path] = (), **options: Any) -> Any:
    """Open a text file for writing."""
    try:
        target = Path(path).expanduser()
        _refuse_input(path, target, inputs)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("w", encoding="utf-8", **options)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error


def check_output(path: str | None, image: bool = False, inputs: Iterable[Path] = ()) -> None:
    """
    Check before long work that a file can be written, without changing it: it must not be one of the `inputs`, and if
    `image`, its suffix must be that of an image format.
    """
    if path is None:
        return
    target = Path(path).expanduser()
    if image:
        from PIL import Image

        if target.suffix.lower() not in Image.registered_extensions():
            raise CommandError(f"cannot write {path}: {target.suffix!r} is no image format. Use .png, for example.")
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
    """Write a figure and print its path."""
    try:
        figure.save(Path(path).expanduser())
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error
    print(f"wrote {path}", file=sys.stderr)


def _cut(name: str, num_bytes: int) -> str:
    """The beginning of a name, of at most this many bytes."""
    return os.fsencode(name)[:num_bytes].decode("utf-8", "ignore")


class OverlayNamer:
    """Gives each image and prompt a new file name that is no input."""

    def __init__(self, folder: Path, inputs: Iterable[Path]) -> None:
        self.folder = folder
        self.taken = {path.resolve() for path in inputs}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"cannot write into {folder}: {error.strerror or error}.") from error

    def __call__(self, stem: str, text: str) -> Path:
        """A new file for an image name and a prompt."""
        slug = re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:60] or "count"
        stem = re.sub(r"[^\w.-]+", "-", stem).strip("-") or "image"
        # File systems limit names to 255 bytes.
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
