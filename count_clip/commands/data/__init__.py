"""`count-clip data`: look at the data, build sets for the Hub."""

from __future__ import annotations

from ..shared.options import Commands
from . import build, counting_set, sheet


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "data",
        help="look at the data, build sets for the Hub",
        description="Look at the data, and build sets for the Hub.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for action in (sheet, build, counting_set):
        action.add_parser(actions)
