"""`count-clip explain`: the relevance of patches and words for a CLIP's score."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .shared.errors import EXIT_CODES, CommandError
from .shared.loading import check_texts, load_clip
from .shared.options import Commands, add_model_options
from .shared.output import check_output, print_table, save_figure


SCORES = ("similarity", "margin")


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "explain",
        help="draw which patches and words contribute to a CLIP's score",
        description="Relevance maps after Chefer et al. (arXiv 2103.15679): draw how much each patch of an image and "
        "each word of a caption contribute to their score. Works with any CLIP.",
        epilog=f"""Examples:
  count-clip explain dogs.jpg --text 'a photo of three dogs' --model org/count-clip --output dogs-why.png
  count-clip explain dogs.jpg --text 'three dogs' --model tuned/ --compare base/ --score margin --output why.png

{EXIT_CODES}""",
    )
    parser.add_argument("image", metavar="IMAGE", help="the image")
    parser.add_argument("--text", required=True, metavar="CAPTION", help="the caption")
    parser.add_argument("--output", required=True, metavar="FILE", help="draw there: .png, .jpg, ...")
    add_model_options(parser, "a count-aware CLIP, or any CLIP", "images", 1)
    add_relevance_options(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: for each model its score, the shares of words and patches (rows of the grid), and the part "
        "of the image that the patches cover",
    )
    parser.set_defaults(run=_explain)


def add_relevance_options(parser: argparse.ArgumentParser) -> None:
    """The options of relevance maps."""
    parser.add_argument(
        "--score",
        choices=SCORES,
        default="similarity",
        help="explain the similarity of image and caption (default), or its margin over the captions with other "
        "numbers, whose map leaves out the class of the objects",
    )
    parser.add_argument(
        "--start-layer",
        type=int,
        default=0,
        metavar="N",
        help="ignore attention before this layer; -1 uses the last layer only (default: 0)",
    )
    parser.add_argument("--compare", metavar="BASE", help="a second CLIP, such as the base, drawn to the left")


def load_compared(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model of `--compare` and its processor."""
    return load_clip(argparse.Namespace(**{**vars(options), "model": options.compare, "revision": None}))


def _explain(options: argparse.Namespace) -> int:
    from count_clip.evaluation.relevance.explain import explain
    from count_clip.evaluation.relevance.figures import draw_relevance, side_by_side
    from count_clip.modeling.images import ImageError, open_image, to_rgb

    check_output(options.output, image=True, inputs=[Path(options.image)])
    check_texts([options.text])
    try:
        image = to_rgb(open_image(options.image))
    except ImageError as error:
        raise CommandError(str(error)) from error
    found, figures = {}, []
    for name, load in ((options.compare, load_compared), (options.model, load_clip)):
        if name is None:
            continue
        model, processor = load(options)
        try:
            relevance = explain(model, processor, [image], [options.text], options.score, options.start_layer)[0]
        except (ValueError, TypeError) as error:
            raise CommandError(f"{name}: {error}") from error
        found[name] = relevance
        figures.append(draw_relevance(image, relevance, title=name if options.compare else None))
    save_figure(side_by_side(figures), options.output)
    if options.json:
        about = {"file": options.image, "explained": options.score, "start_layer": options.start_layer}
        models = [{"model": name, **relevance.to_dict()} for name, relevance in found.items()]
        print(json.dumps({**about, "models": models}, ensure_ascii=False))
        return 0
    for name, relevance in found.items():
        print(f"{name}: score {relevance.score:.3f}")
    header = ["word", *found] if len(found) > 1 else ["word", "relevance"]
    columns = [relevance.words() for relevance in found.values()]
    print_table(header, [[row[0].text, *(_percent(word.share) for word in row)] for row in zip(*columns, strict=True)])
    if any(not relevance.patches.any() for relevance in found.values()):
        print("count-clip: the map is empty: no patch contributes to the score.", file=sys.stderr)
    return 0


def _percent(share: float) -> str:
    return "-" if share != share else f"{share:.1%}"
