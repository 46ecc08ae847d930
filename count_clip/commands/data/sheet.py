"""`count-clip data sheet`: many images of countscenes on one sheet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..shared.loading import count_scenes
from ..shared.options import Commands, add_objects_option, positive
from ..shared.output import check_output, save_figure


def add_parser(actions: Commands) -> None:
    """Add the command and its options."""
    sheet = actions.add_parser(
        "sheet",
        help="many images of countscenes on one sheet",
        description="Draw many images of countscenes, with their captions or counts, on one sheet.",
    )
    sheet.add_argument("output", metavar="FILE", help="image to write, for example sheet.png")
    sheet.add_argument(
        "--config", default="captions", help="captions (default), density, mixed, described, benchmark or plain"
    )
    add_objects_option(sheet)
    sheet.add_argument("--split", default="test", help="split (default: test)")
    sheet.add_argument("--num", type=positive, default=36, metavar="N", help="images (default: 36)")
    sheet.add_argument("--columns", type=positive, default=6, metavar="N", help="images in a row (default: 6)")
    sheet.add_argument("--image-size", type=positive, metavar="PX", help="side (default: the config's)")
    sheet.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    sheet.add_argument("--points", action="store_true", help="mark the objects (density only)")
    sheet.set_defaults(run=_data_sheet)


def _data_sheet(options: argparse.Namespace) -> int:
    from huggingface_hub.utils import tqdm

    from count_clip.evaluation.figures.figures import contact_sheet

    check_output(options.output, image=True)
    scenes = count_scenes(options, options.config, options.split, options.num)
    images, captions = [], []
    for index in tqdm(range(len(scenes)), unit="image", disable=None, leave=False):
        row = scenes[index]
        images.append(
            _with_points(row["image"], row["points"]) if options.points and "points" in row else row["image"]
        )
        captions.append(f"{row['count']} {row['text']}" if "count" in row else row["text"])
    sheet = contact_sheet(images, captions, options.columns, cell=max(120, min(images[0].width, 320)))
    save_figure(sheet, options.output)
    return 0


def _with_points(image: Any, points: Sequence[Sequence[float]]) -> Any:
    """An image with a ring around each point."""
    from PIL import ImageDraw

    marked = image.convert("RGB")
    draw = ImageDraw.Draw(marked)
    radius = max(2, round(min(image.size) * 0.015))
    for x, y in points:
        draw.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), outline=(0, 0, 0), width=3)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(255, 255, 255), width=1)
    return marked
