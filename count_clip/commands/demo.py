"""`count-clip demo`: the released models, taught more and tried."""

from __future__ import annotations

import argparse
from pathlib import Path

from .shared.errors import CommandError
from .shared.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "demo",
        help="teach the released models to count and new names, and count with them",
        description="Teach the released CLIP that cannot count yet to count, and the released density model the names "
        "of new things, both on rendered scenes and in minutes; then count with them. Nothing is downloaded.",
    )
    parser.add_argument(
        "--output",
        default="demo_output",
        metavar="DIR",
        help="folder for images, checkpoints and cards (default: demo_output)",
    )
    parser.add_argument(
        "--checkpoints",
        metavar="DIR",
        help="folder with the released checkpoints (default: model_cards of the project's checkout)",
    )
    parser.add_argument("--fresh", action="store_true", help="train again, even where an earlier run has finished")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STAGE.KEY=VALUE",
        dest="settings",
        help="change a key of a stage's configuration (counting, density), for example density.max_steps=100",
    )
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from ..demo import RELEASED, check_released, parse_settings, run_demo

    output = Path(options.output).expanduser()
    released = Path(options.checkpoints).expanduser() if options.checkpoints else RELEASED
    try:
        changes = parse_settings(options.settings, released)
        check_released(released)
    except (ValueError, FileNotFoundError) as error:
        raise CommandError(str(error)) from error
    try:
        run_demo(output, changes, fresh=options.fresh, released=released)
    except FileExistsError as error:  # something in the folder that no demonstration wrote
        raise CommandError(str(error)) from error
    return 0
