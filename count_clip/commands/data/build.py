"""`count-clip data build`: counting sets as folders that the Hub shows and that load without this package."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..push import push_built
from ..shared.errors import CommandError
from ..shared.options import Commands, positive
from ..shared.output import print_table


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "build",
        help="a counting set as parquet files with a card, for the Hub",
        description="Build a folder of parquet files, with the images in them, and a card, from a counting set as "
        "its authors distribute it, from images of your own with boxes or points, or from rendered scenes. "
        "load_dataset('DIR') reads it without this package. What is unusual about the set is in the card; missing "
        "files are named, with where to get them. An interrupted build continues with the same command.",
        epilog="""Examples:
  count-clip data build fsc147 --data-dir FSC147 --output fsc147
  count-clip data build shanghaitech --config part_A --data-dir ShanghaiTech --output crowds --push org/crowds
  count-clip data build object_folder --config voc --data-dir cells --option 'names={RBC: red cells}' --output out""",
    )
    parser.add_argument(
        "name", metavar="NAME", help="carpk, countbench, countscenes, fsc147, object_folder (your own) or shanghaitech"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write: new, or a former build")
    parser.add_argument("--data-dir", metavar="DIR", help="the folder of the set, as its authors distribute it")
    parser.add_argument(
        "--config",
        action="append",
        metavar="CONFIG",
        help="configuration to build; may be given several times (default: the set's default, or else all)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the set, its value as in YAML: missing=leave_out, 'names={person: people}', fetch=true",
    )
    parser.add_argument("--num-proc", type=positive, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument(
        "--shard-size",
        type=positive,
        default=300,
        metavar="MB",
        help="approximate size of the largest files (default: 300)",
    )
    parser.add_argument("--push", metavar="ORG/NAME", help="then push it to this data set on the Hub")
    visibility = parser.add_mutually_exclusive_group()
    visibility.add_argument(
        "--private", action="store_const", const=True, help="push to a private repository, if it is a new one"
    )
    visibility.add_argument(
        "--public",
        dest="private",
        action="store_const",
        const=False,
        help="push to a public one (default: public only where the set's licence is an open one)",
    )
    parser.add_argument("--json", action="store_true", help="print what was built as an object of JSON")
    parser.set_defaults(run=_data_build)


def _data_build(options: argparse.Namespace) -> int:
    from count_clip.datasets_scripts.publish.parquet import build_dataset, built_sizes
    from count_clip.datasets_scripts.registration import DATASETS
    from count_clip.trainers.hub.repository import Destination, check_destination

    if options.name not in DATASETS:
        raise CommandError(f"Expected the name of a set ({', '.join(DATASETS)}), but got {options.name!r}. Name one.")
    if options.push is None and options.private is not None:
        raise CommandError("Expected --push ORG/NAME with --private and --public. Add it.")
    arguments = _options(options.option)
    if options.data_dir is not None:
        arguments["data_dir"] = options.data_dir
    destination = None if options.push is None else Destination(options.push, "dataset", private=options.private)
    commit = None
    try:
        if destination is not None:
            check_destination(destination)  # before the long work
        folder = build_dataset(
            options.name,
            options.output,
            options.config,
            num_proc=options.num_proc,
            max_shard_bytes=options.shard_size * 10**6,
            **arguments,
        )
        if destination is not None:
            commit = push_built(folder, destination).url
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise CommandError(str(error)) from error
    sizes = built_sizes(folder)
    num_bytes = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    if options.json:
        print(json.dumps({"folder": str(folder), "bytes": num_bytes, "splits": sizes, "commit": commit}))
        return 0
    header = ["configuration", "rows", "split"]
    print_table(header, [[size["config"], f"{size['rows']:,}", size["split"]] for size in sizes])
    print(f"{num_bytes / 1e6:,.1f} MB of parquet files and a card in {folder}")
    if commit is not None:
        print(f"pushed: {commit}")
    return 0


def _options(given: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` with values as in YAML."""
    import yaml

    parsed = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (equals and key.strip().isidentifier()):
            raise CommandError(f"Expected --option KEY=VALUE, but got {text!r}.")
        try:
            parsed[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise CommandError(f"Expected a value as in YAML in --option {text!r}, but {error}.") from error
    return parsed


__all__ = ["add_parser"]
