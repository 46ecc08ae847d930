"""`count-clip search`: find images by text."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shared.errors import EXIT_CODES, CommandError
from .shared.loading import load_clip, load_data
from .shared.options import DTYPES, Commands, positive
from .shared.output import OverlayNamer, check_output, save_figure


if TYPE_CHECKING:
    from PIL import Image

    from count_clip.evaluation.inference.image_index import Hit, ImageIndex


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "search",
        help="find images by text in an index",
        description="Find the images and frames most similar to a text in an index of `count-clip index`. Prints the "
        "cosine similarity, the file and the time of a frame, one result per line.",
        epilog=f"""Examples:
  count-clip search photos.index 'three dogs' --top 5
  count-clip search photos.index 'three dogs' 'four dogs' --sheet found.png --overlay why/

{EXIT_CODES}""",
    )
    parser.add_argument("index", metavar="INDEX", help="the folder of the index")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="the texts to search for")
    parser.add_argument("--top", type=positive, default=10, metavar="K", help="results per text (default: 10)")
    parser.add_argument("--model", metavar="MODEL", help="the model of the index, if it has moved")
    parser.add_argument("--revision", metavar="REVISION", help="branch, tag or commit of a model on the Hub")
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps, ... (default: a GPU if there is one)"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="precision (default: that of the index)")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, one result per line: text, rank, score, image_id and, if available, file, time, row",
    )
    parser.add_argument(
        "--overlay", metavar="DIR", help="write each result there with its relevance map (see `explain`)"
    )
    parser.add_argument("--sheet", metavar="FILE", help="draw all results in one image")
    parser.set_defaults(run=_search)


def _search(options: argparse.Namespace) -> int:
    from count_clip.evaluation.inference.image_index import ImageIndex

    texts = [text.strip() for text in options.texts]
    if not all(texts):
        raise CommandError("the text is empty: expected, for example, 'three dogs'.")
    check_output(options.sheet, image=True)
    namer = OverlayNamer(Path(options.overlay).expanduser(), []) if options.overlay else None
    try:
        index = ImageIndex.load(options.index)
    except (ValueError, ImportError) as error:
        raise CommandError(str(error)) from error
    made_with = index.about["model"]
    if not (options.model or made_with["name"]):
        raise CommandError(f"the index {options.index} does not name its model: give it with --model.")
    model, processor = load_clip(
        argparse.Namespace(
            model=options.model or made_with["name"],
            revision=options.revision,
            device=options.device,
            dtype=options.dtype or made_with["dtype"],
        )
    )
    try:
        found = index.search_texts(model, processor, texts, options.top)
    except (ValueError, TypeError) as error:
        raise CommandError(str(error)) from error
    check_output(options.sheet, inputs=[Path(hit.file) for hits in found for hit in hits if hit.file])
    if options.top > len(index):
        print(f"count-clip: the index has {len(index)} images, fewer than --top {options.top}.", file=sys.stderr)
    for text, hits in zip(texts, found, strict=True):
        _print_hits(text, hits, options.json, heading=len(texts) > 1)
    if not (namer or options.sheet):
        return 0
    images = _Images(index)
    if options.sheet:
        _write_sheet(texts, found, images, options.sheet)
    if namer:
        _write_overlays(texts, found, images, model, processor, namer)
    return 1 if images.failed else 0


def _print_hits(text: str, hits: list[Hit], as_json: bool, heading: bool) -> None:
    if heading and not as_json:
        print(f"{text}:")
    for hit in hits:
        if as_json:
            print(json.dumps({"text": text, **hit.to_dict()}, ensure_ascii=False))
        else:
            print(f"{hit.score:8.4f}  {_name(hit)}")


def _name(hit: Hit) -> str:
    if hit.file is None:
        return hit.image_id
    return hit.file if hit.time is None else f"{hit.file} at {hit.time:.2f} s"


class _Images:
    """The images of the results, each read once; missing ones are reported."""

    def __init__(self, index: ImageIndex) -> None:
        self.source = index.about.get("source")
        self.failed: set[str] = set()
        self._known: dict[str, Image.Image] = {}
        self._data: Any = None

    def __call__(self, hit: Hit) -> Image.Image | None:
        """The upright RGB image, or `None`."""
        from count_clip.modeling.images import ImageError, open_image, to_rgb

        if hit.image_id in self.failed:
            return None
        if hit.image_id not in self._known:
            try:
                self._known[hit.image_id] = to_rgb(open_image(self._read(hit), hit.image_id))
            except (ImageError, CommandError) as error:
                self.failed.add(hit.image_id)
                print(f"count-clip: {error}", file=sys.stderr)
                return None
        return self._known[hit.image_id]

    def _read(self, hit: Hit) -> Any:
        if hit.time is not None and hit.file is not None:
            return _frame_at(Path(hit.file), hit.time)
        if hit.file is not None:
            return hit.file
        if self.source is None or hit.row is None:
            raise CommandError(f"the index does not locate the image {hit.image_id}.")
        if self._data is None:
            source = argparse.Namespace(**self.source, limit=None)
            self._data = load_data(source, source.split, ("image",)).rows
        return self._data[hit.row]["image"]


def _frame_at(file: Path, time: float) -> Image.Image:
    """The frame of a video at a time."""
    from ..videos import VideoError, read_frames

    try:
        for frame in read_frames(file, every=0):
            if frame.time >= time - 1e-6:
                return frame.image
    except VideoError as error:
        raise CommandError(str(error)) from error
    raise CommandError(f"{file} has no frame at {time:.2f} s.")


def _write_sheet(texts: list[str], found: list[list[Hit]], read_image: _Images, path: str) -> None:
    """Draw all results in one image."""
    from count_clip.evaluation.figures.figures import contact_sheet

    images, captions = [], []
    for text, hits in zip(texts, found, strict=True):
        for hit in hits:
            image = read_image(hit)
            if image is not None:
                images.append(image)
                captions.append(f"{text} {hit.rank}: {hit.score:.3f} {Path(_name(hit)).name}")
    if images:
        save_figure(contact_sheet(images, captions, columns=5), path)


def _write_overlays(
    texts: list[str], found: list[list[Hit]], read_image: _Images, model: Any, processor: Any, namer: OverlayNamer
) -> None:
    """Draw each result with its relevance map."""
    from count_clip.evaluation.relevance.explain import explain
    from count_clip.evaluation.relevance.figures import draw_relevance

    for text, hits in zip(texts, found, strict=True):
        for hit in hits:
            image = read_image(hit)
            if image is None:
                continue
            try:
                relevance = explain(model, processor, [image], [text])[0]
            except ValueError as error:
                raise CommandError(str(error)) from error
            path = namer(f"{hit.rank:03d}-{Path(hit.image_id).stem}", text)
            try:
                draw_relevance(image, relevance).save(path)
            except OSError as error:
                raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error
    print(f"wrote {namer.folder}", file=sys.stderr)
