"""`count-clip push`: models, processors, adapters and data sets to the Hub."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shared.errors import CommandError
from .shared.options import DTYPES, Commands
from .shared.output import print_table, quiet_loading


if TYPE_CHECKING:
    from count_clip.trainers.hub.release import Release
    from count_clip.trainers.hub.repository import Destination, Pushed


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "push",
        help="put a model, a processor, adapters or a data set on the Hub",
        description="Put what lies in a folder on the Hub, in one commit: all of it is there afterwards, or nothing. "
        "A model or processor goes with its code, so that trust_remote_code=True loads it where this package is not "
        "installed, and with a card whose generated parts are brought up to date; what you wrote in it stays. What a "
        "training leaves beside its result stays here. Files that are there already are not sent again.",
        epilog="""Examples:
  count-clip push runs/counting org/count-clip --private --dtype float16
  count-clip push runs/counting org/count-clip --results countbench.json --license apache-2.0 --tag v1.0
  count-clip push runs/prompts org/red-apples --base-model org/clip-count
  count-clip push fsc147 org/fsc147 --dry-run

The token is the one of `hf auth login`, or HF_TOKEN.""",
    )
    parser.add_argument("folder", metavar="FOLDER", help="as save_pretrained, a training or `data build` wrote it")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="the repository; it is made if it is not there")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--gated",
        choices=("auto", "manual"),
        help="readers have to ask for access, which is given at once or by you (default: as it is)",
    )
    parser.add_argument("--revision", default="main", metavar="BRANCH", help="made if it is not there (default: main)")
    parser.add_argument("--tag", help="what to call this state, for example v1.0")
    parser.add_argument("--message", default="Upload with count-clip", help="what the commit says")
    parser.add_argument("--dtype", choices=DTYPES, help="write the weights in this type (default: as they are)")
    parser.add_argument("--license", help="for the card, as the Hub names it: apache-2.0")
    parser.add_argument("--base-model", metavar="ORG/NAME", help="what it was made from; what adapters are loaded on")
    parser.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="FILE",
        help="figures for the card, from `evaluate ... --json FILE`; give it several times for several. They take the "
        "place of those in the card",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be pushed, and ask nothing of the Hub")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print one object of JSON instead of a table")
    parser.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> int:
    import tempfile

    from count_clip.trainers.hub.card import CardError
    from count_clip.trainers.hub.release import ReleaseError
    from count_clip.trainers.hub.repository import Destination, HubError, check_destination, check_names

    if not options.folder:
        raise CommandError("the folder's name is empty: name what to push; . is this folder.")
    folder = Path(options.folder).expanduser()
    is_dataset = _is_dataset(folder)
    destination = Destination(
        options.repo_id,
        "dataset" if is_dataset else "model",
        private=options.private or None,
        gated=options.gated,
        revision=options.revision,
        tag=options.tag,
    )
    try:
        check_names(destination)
        if is_dataset:
            return _push_dataset(options, folder, destination)
        if not options.dry_run:
            check_destination(destination)
        with tempfile.TemporaryDirectory(prefix="count-clip-push-") as target, quiet_loading():
            release = _prepare(options, folder, Path(target))
            files = {path: release.folder / path for path in release.files}
            return _send(options, destination, release.kind, release.files, release, files)
    except (HubError, CardError, ReleaseError) as error:
        raise CommandError(str(error)) from None


def _is_dataset(folder: Path) -> bool:
    """Whether it is a data set; what is no folder is refused."""
    from count_clip.datasets_scripts.publish.dataset_card import is_own_card

    if not folder.is_dir():
        hint = " (it is a file)" if folder.exists() else ""
        raise CommandError(f"There is no folder {folder}{hint}: expected one with a model, a processor or a data set.")
    card = folder / "README.md"
    has_tables = next(folder.rglob("*.parquet"), None) is not None
    if has_tables and not (folder / "config.json").is_file():
        if card.is_file() and is_own_card(card.read_text(encoding="utf-8", errors="replace")):
            return True
        raise CommandError(
            f"{folder} holds parquet files, but is no finished build of `count-clip data build`. Build it, or use "
            "`hf upload --repo-type dataset`."
        )
    return False


def _prepare(options: argparse.Namespace, folder: Path, target: Path) -> Release:
    from count_clip.trainers.hub.card import figures_from_file, kind_of
    from count_clip.trainers.hub.release import ReleaseError, prepare_release

    from ..checkpoints import CheckpointError, check_tokenizer, describe_checkpoint

    kind = kind_of(folder)
    if kind in ("count_clip", "clip_count_density"):
        try:
            missing = describe_checkpoint(folder, str(folder)).missing_weights
            if (folder / "processor_config.json").is_file():
                check_tokenizer(folder, str(folder))
        except CheckpointError as error:
            raise CommandError(str(error)) from error
        if missing:
            raise ReleaseError(
                f"The weights in {folder} lack {len(missing)} tensors that the model needs, or have them in another "
                f"size ({', '.join(missing[:3])}, ...): it would not load. Save the model again."
            )
    figures = [figure for file in options.results for figure in figures_from_file(Path(file).expanduser())]
    return prepare_release(
        folder,
        target,
        options.repo_id,
        dtype=options.dtype,
        base_model=options.base_model,
        license=options.license,
        figures=figures or None,
    )


def _push_dataset(options: argparse.Namespace, folder: Path, destination: Destination) -> int:
    unused = {"--dtype": options.dtype, "--license": options.license, "--base-model": options.base_model}
    unused |= {"--results": options.results}
    if given := [name for name, value in unused.items() if value]:
        raise CommandError(f"{folder} is a data set, for which {' and '.join(given)} means nothing. Leave it out.")
    from count_clip.datasets_scripts.publish.parquet import files_to_push, is_private_by_default

    if destination.private is None:
        destination.private = is_private_by_default(folder)
    sizes = {path: file.stat().st_size for path, file in files_to_push(folder).items()}
    return _send(options, destination, "data set", sizes, None, {})


def _send(
    options: argparse.Namespace,
    destination: Destination,
    kind: str,
    sizes: dict[str, int],
    release: Release | None,
    files: dict[str, Path],
) -> int:
    """Show what goes, ask, and push it."""
    about = {
        "repository": destination.repo_id,
        "type": destination.repo_type,
        "kind": kind,
        "revision": destination.revision,
        "tag": destination.tag,
        "files": sizes,
        "left_out": release.left_out if release else [],
    }
    # A question needs the list of files before it, a machine reads only the result.
    if options.dry_run or not options.json:
        _show(options, about, release)
    if options.dry_run:
        return 0
    _ask(options, destination, sum(sizes.values()), len(sizes))
    pushed = _carry_out(options, destination, files)
    if options.json:
        print(json.dumps({**about, "url": pushed.url, "commit": pushed.commit, "changed": pushed.changed}))
    else:
        print(f"pushed: {pushed.url}" if pushed.changed else f"nothing has changed: {pushed.url}")
    return 0


def _carry_out(options: argparse.Namespace, destination: Destination, files: dict[str, Path]) -> Pushed:
    from count_clip.trainers.hub.release import STALE
    from count_clip.trainers.hub.repository import push_files

    if destination.repo_type == "model":
        return push_files(destination, files, options.message, STALE)
    return push_built(options.folder, destination)


def push_built(folder: str | Path, destination: Destination) -> Pushed:
    """
    Push a built data set.

    Args:
        folder (`str` or `Path`): What `data build` wrote.
        destination ([`Destination`]): Where to; without `private`, a new repository is private where the set's licence
            is no open one.

    Returns:
        [`Pushed`].

    Raises:
        HubError: If it cannot be done.
    """
    from count_clip.datasets_scripts.publish.parquet import is_private_by_default, push_dataset
    from count_clip.trainers.hub.repository import Pushed, add_tag, explained, prepare_repository

    if destination.private is None:
        destination.private = is_private_by_default(folder)
    was_new = prepare_repository(destination)
    with explained(destination):
        where: dict[str, Any] = {"repo_id": destination.repo_id, "repo_type": "dataset"}
        before = destination.api.repo_info(**where, revision=destination.revision).sha
        url = push_dataset(folder, destination.repo_id, destination.private, None, destination.revision)
        commit = str(destination.api.repo_info(**where, revision=destination.revision).sha)
    add_tag(destination, commit)
    return Pushed(url, commit, commit != before, was_new)


def _show(options: argparse.Namespace, about: dict[str, Any], release: Release | None) -> None:
    if options.json:
        print(json.dumps({**about, "url": None, "commit": None, "changed": None}))
        return
    print_table(["file", "bytes"], [[path, f"{size:,}"] for path, size in about["files"].items()])
    state = ", tag ".join(filter(None, (about["revision"], about["tag"])))
    size = sum(about["files"].values()) / 1e6
    print(f"{about['kind']}: {size:,.1f} MB to {about['repository']} ({state})")
    if about["left_out"]:
        print(f"count-clip: stays here: {', '.join(about['left_out'])}", file=sys.stderr)
    if release is not None and release.license is None:
        print("count-clip: the card names no licence; --license says one", file=sys.stderr)


def _ask(options: argparse.Namespace, destination: Destination, size: int, number: int) -> None:
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(
            "Nobody is there to be asked whether this should be pushed. Add --yes, or --dry-run to look."
        )
    visibility = "private if it is new" if destination.private else "public unless it is private already"
    question = f"Push {number} files ({size / 1e6:,.1f} MB) to {destination.repo_id} ({visibility})? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was pushed.")


__all__ = ["add_parser", "push_built"]
