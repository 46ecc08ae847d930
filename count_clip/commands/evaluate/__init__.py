"""`count-clip evaluate`: how well a model counts, and what else it can do."""

from __future__ import annotations

from ..shared.options import Commands
from .classification import add_classification_parser
from .countbench import add_countbench_parser
from .density import add_density_parser
from .praco import add_praco_parser
from .probe import add_few_shot_parser, add_linear_probe_parser
from .relevance import add_relevance_parser
from .retrieval import add_retrieval_parser


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "evaluate", help="measure a model", description="Measure a model on rendered scenes or on your data."
    )
    kinds = parser.add_subparsers(title="protocols", metavar="PROTOCOL", required=True)
    add_countbench_parser(kinds)
    add_density_parser(kinds)
    add_praco_parser(kinds)
    add_classification_parser(kinds)
    add_linear_probe_parser(kinds)
    add_few_shot_parser(kinds)
    add_retrieval_parser(kinds)
    add_relevance_parser(kinds)
