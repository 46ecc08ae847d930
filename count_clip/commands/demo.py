"""`count-clip demo`: two small models, trained and tried."""

from __future__ import annotations

import argparse
from pathlib import Path

from .errors import CommandError
from .options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "demo",
        help="train two small models on rendered scenes and count with them",
        description="Train two small counting models on rendered scenes and count with them.",
    )
    parser.add_argument(
        "--output",
        default="demo_output",
        metavar="DIR",
        help="folder for pictures, checkpoints and cards (default: demo_output)",
    )
    parser.add_argument("--fresh", action="store_true", help="train again, even where an earlier run has finished")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STAGE.KEY=VALUE",
        dest="settings",
        help="change a key of a stage's configuration (density, base, counting), for example density.max_steps=100",
    )
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from count_clip.demo import parse_settings, run_demo

    output = Path(options.output).expanduser()
    try:
        changes = parse_settings(options.settings, output)
    except ValueError as error:
        raise CommandError(str(error)) from error
    try:
        run_demo(output, changes, fresh=options.fresh)
    except FileExistsError as error:  # something in the folder that no demonstration wrote
        raise CommandError(str(error)) from error
    return 0
