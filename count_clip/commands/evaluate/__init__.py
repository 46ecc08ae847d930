"""`count-clip evaluate`: benchmarks."""

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
        "evaluate", help="measure a model", description="Measure a model on rendered scenes or other data."
    )
    benchmarks = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    for add in (
        add_countbench_parser,
        add_density_parser,
        add_praco_parser,
        add_classification_parser,
        add_linear_probe_parser,
        add_few_shot_parser,
        add_retrieval_parser,
        add_relevance_parser,
    ):
        add(benchmarks)
