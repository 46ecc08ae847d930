"""`count-clip ablation`: the effect of each component of the counting method."""

from __future__ import annotations

import argparse
from pathlib import Path

from .shared.errors import CommandError
from .shared.options import Commands, positive


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "ablation",
        help="the effect of each component of the counting method",
        description="Train a small CLIP on captions that rarely state a number (A), fine-tune it on the counting set "
        "without the counting loss (B), with the loss on a naively filtered set (C), and with both (D); measure all "
        "on unseen classes of rendered scenes. An interrupted ablation resumes.",
        epilog="""Examples:
  count-clip ablation --output runs/ablation
  count-clip ablation --output runs/ablation --base FOLDER --seeds 5 --set arms.max_steps=2000
  count-clip ablation --output runs/quick_ablation --quick --seeds 1""",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of trainings, table and images")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="number of seeds, from 0 (default: 3)")
    parser.add_argument("--base", metavar="MODEL", help="a CLIP to start from (default: train a small one)")
    parser.add_argument("--config", metavar="FILE", help="a YAML file like count_clip/ablation.yaml, the default")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PART.KEY=VALUE",
        dest="settings",
        help="change a key of the file, for example arms.max_steps=1000 or noise.wrong_number_rate=0.5",
    )
    parser.add_argument("--quick", action="store_true", help="a small test run of seconds")
    parser.add_argument("--fresh", action="store_true", help="train again, even if an earlier run has finished")
    parser.set_defaults(run=_ablation)


def _ablation(options: argparse.Namespace) -> int:
    from ..ablation import read_config, run_ablation

    try:
        config = read_config(Path(options.config) if options.config else None, options.settings, options.quick)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise CommandError(str(error)) from error
    base = options.base
    if base and base.startswith(("/", ".", "~", "runs/")) and not Path(base).expanduser().is_dir():
        raise CommandError(f"there is no folder {base!r}, which --base names")
    output = Path(options.output).expanduser()
    try:
        run_ablation(
            output,
            config,
            range(options.seeds),
            base=str(Path(base).expanduser()) if base and Path(base).expanduser().is_dir() else base,
            fresh=options.fresh,
        )
    except (FileExistsError, NotADirectoryError) as error:  # files that no ablation wrote
        raise CommandError(str(error)) from error
    return 0
