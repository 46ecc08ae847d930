"""Frames of a video as upright images. Reading needs PyAV, an extra: `pip install count-clip[video]`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image


class VideoError(ValueError):
    """A video cannot be read to its end. The message names it and the reason."""


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video."""

    image: Image.Image
    """Upright, in mode `RGB`."""
    time: float
    """Seconds after the first frame."""
    index: int
    """Which frame of the video it is, from 0."""


def read_frames(path: Path, every: float = 1.0, max_frames: int | None = None) -> Iterator[VideoFrame]:
    """
    Read frames one at a time, the first of each interval of `every` seconds (0: all frames), at most `max_frames`.

    Raises a [`VideoError`] if there is no such file, PyAV is missing, or the file cannot be decoded (after the frames
    before the damage), and a `ValueError` if `every` is negative or `max_frames` is below 1.
    """
    if not (every >= 0 and math.isfinite(every)):
        raise ValueError(f"Expected `every` as seconds, 0 or more, but got {every}.")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"Expected `max_frames` of at least 1, but got {max_frames}.")
    av = _import_av(path)
    found, interval, first_time = 0, -1, 0.0
    try:
        # An open file rather than a name: FFmpeg takes some names for URLs and protocols.
        with path.open("rb") as file, av.open(file) as container:
            stream = _video_stream(container, path)
            for index, frame in enumerate(container.decode(stream)):
                seconds = _seconds(frame, stream, index)
                first_time = seconds if index == 0 else first_time
                time = seconds - first_time
                # The small step tolerates times rounded to the ticks of a clock that does not divide a second.
                current = index if every == 0 else math.floor(time / every + 1e-6)
                if current <= interval:
                    continue
                interval = current
                yield VideoFrame(_upright(frame), time, index)
                found += 1
                if found == max_frames:
                    return
    except FileNotFoundError as error:
        raise VideoError(f"There is no file {path}.") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path} cannot be read as a video: {error.strerror or error}.") from error
    if not found:
        raise VideoError(f"{path} has no frames.")


def expected_frames(path: Path, every: float = 1.0, max_frames: int | None = None) -> int:
    """Estimate how many frames [`read_frames`] reads, from the header of the file; 1 without a header."""
    try:
        av = _import_av(path)
    except VideoError:
        return 1
    try:
        with path.open("rb") as file, av.open(file) as container:
            stream = _video_stream(container, path)
            if stream.duration is not None:
                seconds = float(stream.duration * stream.time_base)
            else:
                seconds = (container.duration or 0) / av.time_base
            rate = float(stream.average_rate or 0)
    except (av.FFmpegError, OSError, VideoError):
        return 1
    frames = math.ceil(seconds * rate) if rate else 1
    if every:
        frames = min(frames, math.ceil(seconds / every)) if rate else math.ceil(seconds / every)
    return max(1, frames if max_frames is None else min(frames, max_frames))


def _import_av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise VideoError(f"{path} is a video; reading it needs PyAV: pip install 'count-clip[video]'.") from error
    return av


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise VideoError(f"{path} holds no images, only {', '.join(s.type for s in container.streams) or 'nothing'}.")
    # Frame threads would be faster, but skip damaged frames silently.
    return container.streams.video[0]


def _seconds(frame: Any, stream: Any, index: int) -> float:
    """The time of a frame; computed from its index if the file has no times."""
    if frame.time is not None:
        return float(frame.time)
    return index / float(stream.average_rate or 25)


def _upright(frame: Any) -> Image.Image:
    """The frame, rotated as its metadata demands."""
    image: Image.Image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


__all__ = ["VideoError", "VideoFrame", "expected_frames", "read_frames"]
