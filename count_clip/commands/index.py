"""`count-clip index`: build a search index of images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .shared.errors import EXIT_CODES, CommandError
from .shared.inputs import expected_sources, find_inputs, read_sources
from .shared.loading import load_clip, load_data
from .shared.options import Commands, add_model_options, add_objects_option, positive, seconds
from .shared.output import on_terminal, readable


# The options that locate the images of a data set again.
_SOURCE = (
    *("data", "split", "config", "data_dir", "data_revision"),
    *("scenes_config", "objects", "image_size", "seed"),
)


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "index",
        help="build a search index of images and videos",
        description="Encode images and frames of videos for `count-clip search`. Unreadable files are reported and "
        "left out. A second run resumes and encodes only new and changed images. Works with any CLIP; needs FAISS "
        "(pip install 'count-clip[retrieval]').",
        epilog=f"""Examples:
  count-clip index photos/ traffic.mp4 --model org/count-clip --output photos.index
  count-clip index --data org/images --split train --model org/count-clip --output images.index

{EXIT_CODES}""",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="IMAGES",
        help="images, videos, folders (with all below), or patterns in quotes, for example 'photos/**/*.jpg'",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the index")
    add_model_options(parser, "a count-aware CLIP, or any CLIP", "images", 32)
    parser.add_argument(
        "--every",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="interval of video frames; 0 for every frame (default: 1)",
    )
    parser.add_argument("--max-frames", type=positive, metavar="N", help="maximal frames per video")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="instead of IMAGES, a data set with a column image: a folder, a file or a name, as in `count-clip "
        "evaluate`",
    )
    parser.add_argument("--split", default="train", help="split of the data (default: train)")
    parser.add_argument("--config", help="configuration of the data")
    add_objects_option(parser)
    parser.add_argument("--data-dir", metavar="DIR", help="folder of a published set, in its authors' layout")
    parser.add_argument("--limit", type=positive, metavar="N", help="maximal rows of the data")
    parser.add_argument("--json", action="store_true", help="print JSON: index, images, skipped")
    parser.set_defaults(run=_index, scenes_config="captions", image_size=None, seed=0, data_revision=None)


def _index(options: argparse.Namespace) -> int:
    from count_clip.evaluation.inference.image_index import build_index

    if bool(options.paths) == bool(options.data):
        raise CommandError("give either images or a data set with --data.")
    output = Path(options.output).expanduser()
    about: dict[str, Any] = {}
    if options.data:
        about = {"source": {name: getattr(options, name) for name in _SOURCE}}
        rows: Any = load_data(options, options.split, ("image",)).rows
        version = str(getattr(rows, "_fingerprint", ""))
        rows, total = _DataRows(rows, version), len(rows)
    else:
        files = find_inputs(options.paths, without=output)
        if not files:
            raise CommandError(f"there are no images or videos in {', '.join(options.paths)}.")
        rows, total = _rows_of_files(files, options), expected_sources(files, options.every, options.max_frames)
    model, processor = load_clip(options)
    place = Path(options.model).expanduser()
    name = str(place.resolve()) if place.exists() else options.model
    try:
        index = build_index(
            model,
            processor,
            rows,
            output,
            batch_size=options.batch_size,
            model_name=name,
            about=about,
            total=total,
            progress=on_terminal(),
        )
    except (ValueError, TypeError, ImportError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"cannot write the index {output}: {error.strerror or error}.") from error
    skipped = index.about["skipped"]
    for one in skipped:
        print(f"count-clip: {one['reason']}", file=sys.stderr)
    if options.json:
        print(json.dumps({"index": str(output), "images": len(index), "skipped": skipped}, ensure_ascii=False))
    else:
        left_out = f", {len(skipped)} could not be read" if skipped else ""
        print(f"{len(index)} images in {output}{left_out}")
    return 1 if skipped else 0


def _rows_of_files(files: list[Path], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of images and frames for `build_index`."""
    for source in read_sources(files, options.every, options.max_frames):
        path = readable(source.file.resolve())
        error = str(source.image) if isinstance(source.image, Exception) else None
        if path != str(source.file.resolve()):
            error = f"{path}: an index supports names in UTF-8 only. Rename the file."
        frame = "" if source.time is None else f"@{source.time:.3f}"
        yield {
            "image": source.image,
            "image_id": path + frame,
            "file": path,
            "time": source.time,
            "version": _version(source.file),
            "error": error,
        }


def _version(file: Path) -> str:
    """Size and modification time of a file."""
    try:
        stat = file.stat()
    except OSError:
        return ""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


class _DataRows:
    """Rows of a data set for `build_index`."""

    def __init__(self, rows: Any, version: str) -> None:
        self.rows, self.version = rows, version

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row = self.rows[index]
        known = {"image": row["image"], "image_id": row.get("image_id"), "row": index, "version": self.version}
        path = row["image"].get("path") if isinstance(row["image"], Mapping) else row["image"]
        if isinstance(path, str) and Path(path).is_file():
            known["file"] = str(Path(path).resolve())
        return known
