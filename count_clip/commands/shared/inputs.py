"""The images and videos that a command names, and the frames of the videos."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CommandError


VIDEO_SUFFIXES = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv")


@dataclass(frozen=True)
class Source:
    """An image file, or a frame of a video."""

    file: Path
    """The file."""
    image: Any
    """The path of an image, the `PIL.Image.Image` of a frame, or the error that reading a video raised."""
    time: float | None = None
    """Seconds from the first frame of the video."""

    @property
    def stem(self) -> str:
        """A file name for results."""
        return self.file.stem if self.time is None else f"{self.file.stem}-{self.time:09.3f}s"

    def __str__(self) -> str:
        return str(self.file) if self.time is None else f"{self.file} at {self.time:.2f} s"


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(paths: Iterable[str], without: Path | None = None) -> list[Path]:
    """
    The images and videos among files, folders and patterns, each once, in the order of `paths`, folders and patterns
    sorted.

    Files may have any suffix; folders give all images and videos below, by suffix; patterns may have `*`, `?`, `[...]`
    or `**`. A pattern with a suffix (`*.dat`) takes all matches, another one (`scan*`) images, videos and folders.
    Missing files and patterns without a match are kept, to be reported with other files that cannot be read. The
    folder `without` is left out of the folders and patterns around it. Raises a `CommandError` if a path is empty, as
    from an unset shell variable.
    """
    left_out = without.resolve() if without is not None else None
    found: dict[Path, Path] = {}
    for given in paths:
        if not given:
            raise CommandError("one of the paths is empty: name a file, a folder or a pattern; . is this folder.")
        # Unlike `Path.expanduser`, it leaves "~backup.png" as it is.
        path = Path(os.path.expanduser(given))
        around = left_out is not None and _beginning(path).resolve() in left_out.parents
        if path.is_dir():
            candidates, chosen = _of_folder(path), False
        elif not path.exists() and glob.has_magic(given):
            matches = _of_pattern(path)
            candidates, chosen = matches or [path], not matches
        else:
            candidates, chosen = [path], True
        for candidate in candidates:
            resolved = candidate.resolve()
            if chosen or not around or left_out not in resolved.parents:
                found.setdefault(resolved, candidate)
    return list(found.values())


def _beginning(pattern: Path) -> Path:
    """The folder that a pattern searches, or a path as it is."""
    while glob.has_magic(str(pattern)) and not pattern.exists():
        pattern = pattern.parent
    return pattern


def _of_folder(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _has_known_ending(path) and path.is_file())


def _of_pattern(pattern: Path) -> list[Path]:
    takes_any_file = pattern.suffix and not glob.has_magic(pattern.suffix)
    found: list[Path] = []
    for match in map(Path, sorted(glob.glob(str(pattern), recursive=True))):
        if match.is_dir():
            found += _of_folder(match)
        elif takes_any_file or _has_known_ending(match):
            found.append(match)
    return found


def _has_known_ending(path: Path) -> bool:
    from count_clip.datasets_scripts.files.images import IMAGE_SUFFIXES  # imports Pillow

    return path.suffix.lower() in IMAGE_SUFFIXES or is_video(path)


def read_sources(files: Iterable[Path], every: float, max_frames: int | None) -> Iterator[Source]:
    """
    The images and frames of files, in their order; after the frames of a damaged video, one source with the error.

    Images are not opened here. `every` are the seconds between frames of a video (0 for all), `max_frames` their most.
    """
    for file in files:
        if not is_video(file):
            yield Source(file, file)
            continue
        from ...videos import VideoError, read_frames

        try:
            for frame in read_frames(file, every, max_frames):
                yield Source(file, frame.image, frame.time)
        except VideoError as error:
            yield Source(file, error)


def expected_sources(files: Iterable[Path], every: float, max_frames: int | None) -> int:
    """How many [`Source`]s there will be, for a progress bar; an estimate where there are videos."""
    number = 0
    for file in files:
        if is_video(file):
            from ...videos import expected_frames

            number += expected_frames(file, every, max_frames)
        else:
            number += 1
    return number
