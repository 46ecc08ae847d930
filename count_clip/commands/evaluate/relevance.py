"""`count-clip evaluate relevance`: the share of the relevance on the objects and on the number word."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..explain import add_relevance_options, load_compared
from ..shared.errors import CommandError
from ..shared.loading import Data, load_clip, load_data, scenes_config
from ..shared.options import Commands, add_data_options, add_model_options, positive
from ..shared.output import OverlayNamer, on_terminal, print_table
from .measuring import Run, describe_loaded, refusing


if TYPE_CHECKING:
    from count_clip.evaluation.relevance.explain import Relevance
    from count_clip.evaluation.relevance.shares import RelevanceShares, ShareChange


def add_relevance_parser(commands: Commands) -> None:
    """Add the benchmark and its options."""
    parser = commands.add_parser(
        "relevance",
        help="does the score come from the objects and the number word?",
        description="Relevance maps (see `count-clip explain`) on data with boxes: the share on the objects and on "
        "the number word, next to that of a uniform map. Works with any CLIP.",
        epilog="Example: count-clip evaluate relevance --model runs/counting --compare runs/base --figures drawn/",
    )
    add_model_options(parser, "a count-aware CLIP, or any CLIP", "images", 8)
    add_data_options(
        parser, "image, text (a caption with a number word) and boxes [[x0, y0, x1, y1], ...]", "benchmark"
    )
    add_relevance_options(parser)
    parser.add_argument("--figures", metavar="DIR", help="draw images with their maps there")
    parser.add_argument(
        "--examples", type=positive, default=12, metavar="N", help="draw the first N images (default: 12)"
    )
    parser.set_defaults(run=_evaluate_relevance)


def _evaluate_relevance(options: argparse.Namespace) -> int:
    from count_clip.evaluation.records.summaries import Summary
    from count_clip.evaluation.relevance.shares import compare_shares

    run = Run(options, "relevance")
    data = _load_boxed(options)
    namer = OverlayNamer(Path(options.figures).expanduser(), []) if options.figures else None
    kept: list[dict[int, tuple[Any, Relevance]]] = [{}, {}]
    before: RelevanceShares | None = None
    compared: dict[str, Any] = {}
    if options.compare:
        base, processor = load_compared(options)
        before = _measure(base, processor, data, options, kept[0] if namer else None)
        compared = {"model": describe_loaded(options.compare, base)}
    model, processor = load_clip(options)
    run.begin(model, data)
    after = _measure(model, processor, data, options, kept[1] if namer else None)
    metrics: dict[str, float | None] = {**after.metrics()}
    intervals = after.intervals()
    result: dict[str, Any] = after.to_dict()
    change = None
    if before is not None:
        with refusing():
            change = compare_shares(before, after)
        metrics |= {f"{name}_change": value for name, value in change.change.items()}
        intervals |= {f"{name}_change": ends for name, ends in change.intervals.items()}
        ends = {name: list(pair) for name, pair in before.intervals().items()}
        result["compared"] = {**compared, "metrics": before.metrics(), "intervals": ends, **before.to_dict()}
    written = run.result(result, Summary(metrics, intervals, len(after.skipped)))
    run.heading(written, f"{after.n} images, relevance for the {options.score}")
    _print_shares(before, after, change)
    if namer:
        _draw(kept, options, namer)
    return run.finish(written, after.skipped)


def _load_boxed(options: argparse.Namespace) -> Data:
    """Scenes or other data with boxes."""
    if options.data != "countscenes":
        return load_data(options, options.split, ("image", "text", "boxes"))
    from count_clip.evaluation.relevance.shares import BoxedScenes

    config = scenes_config(options)
    if config not in ("benchmark", "plain"):
        raise CommandError(f"--config {config}: only benchmark and plain of countscenes have captions and boxes.")
    looks = {"image_size": options.image_size, "seed": options.seed, "objects": options.objects}
    try:
        rows = BoxedScenes(options.split, options.limit, config=config, **looks)
        total = len(BoxedScenes(options.split, config=config, **looks))
    except (ValueError, TypeError, ImportError) as error:
        raise CommandError(str(error)) from error
    return Data(options.data, config, options.split, rows, total)


def _measure(
    model: Any,
    processor: Any,
    data: Data,
    options: argparse.Namespace,
    kept: dict[int, tuple[Any, Relevance]] | None,
) -> RelevanceShares:
    """The shares of one model; `kept` collects the maps to draw."""
    from count_clip.evaluation.relevance.shares import evaluate_relevance

    on_result: Callable[[int, Mapping[str, Any], Relevance], None] | None = None
    if kept is not None:

        def keep(index: int, row: Mapping[str, Any], relevance: Relevance) -> None:
            if len(kept) < options.examples:
                kept[index] = (row, relevance)

        on_result = keep
    with refusing():
        return evaluate_relevance(
            model,
            processor,
            data.rows,
            score=options.score,
            start_layer=options.start_layer,
            batch_size=options.batch_size,
            seed=options.seed,
            progress=on_terminal(),
            on_result=on_result,
        )


def _print_shares(before: RelevanceShares | None, after: RelevanceShares, change: ShareChange | None) -> None:
    """Print the shares next to those of a uniform map."""
    lines = []
    for what, share, even, lift in (
        ("objects", "object_share", "object_area_share", "object_lift"),
        ("number word", "number_share", "number_token_share", "number_lift"),
    ):
        for whose, shares in ((", compared", before), ("", after)):
            if shares is None:
                continue
            metrics, intervals = shares.metrics(), shares.intervals()
            low, high = intervals[share]
            interval = f"{low:.1%} to {high:.1%}"
            cells = [f"{metrics[share]:.1%}", interval, f"{metrics[even]:.1%}", f"{metrics[lift]:.2f}"]
            lines.append([f"{what}{whose}", *cells])
        if change is not None:
            low, high = change.intervals[share]
            lines.append([f"{what}, change", f"{change.change[share]:+.1%}", f"{low:+.1%} to {high:+.1%}", "", ""])
    print_table(["share of the relevance", "mean", "95 % interval", "uniform map", "ratio"], lines)


def _draw(kept: list[dict[int, tuple[Any, Relevance]]], options: argparse.Namespace, namer: OverlayNamer) -> None:
    """Draw each image with its maps, the compared model to the left."""
    from count_clip.evaluation.inference.encoding import read_image
    from count_clip.evaluation.relevance.figures import draw_relevance, side_by_side

    for index, (row, after) in kept[1].items():
        maps = [(options.model, after)]
        if index in kept[0]:
            maps.insert(0, (options.compare, kept[0][index][1]))
        image = read_image(row)
        figures = [draw_relevance(image, one, title=name if options.compare else None) for name, one in maps]
        path = namer(Path(str(row.get("image_id") or index)).name, after.text)
        try:
            side_by_side(figures).save(path)
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror or error}.") from error
    print(f"drew {len(kept[1])} images into {namer.folder}", file=sys.stderr)
