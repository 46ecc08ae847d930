"""`count-clip demo`: train the released models further, and count with them."""

from __future__ import annotations

import argparse
from pathlib import Path

from .shared.errors import CommandError
from .shared.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "demo",
        help="train the released models further, and count with them",
        description="Train the released base CLIP with the counting loss, and the released density model on new "
        "classes, for minutes on rendered scenes; then count with them. Nothing is downloaded.",
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
        help="folder of the released checkpoints (default: model_cards of the checkout)",
    )
    parser.add_argument("--fresh", action="store_true", help="train again, even if an earlier run has finished")
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
    except FileExistsError as error:  # files that no demonstration wrote
        raise CommandError(str(error)) from error
    return 0
