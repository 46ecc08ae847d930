"""`count-clip evaluate`: how well a model counts, and what else it can do."""

from __future__ import annotations

from .evaluate_classification import add_classification_parser
from .evaluate_countbench import add_countbench_parser
from .evaluate_density import add_density_parser
from .evaluate_praco import add_praco_parser
from .evaluate_probe import add_few_shot_parser, add_linear_probe_parser
from .evaluate_relevance import add_relevance_parser
from .evaluate_retrieval import add_retrieval_parser
from .options import Commands


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
