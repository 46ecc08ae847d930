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
        help="push a model, a processor, adapters or a data set to the Hub",
        description="Push a folder to the Hub in one commit. A model or processor is pushed with its code, so that "
        "trust_remote_code=True loads it where this package is not installed, and with a card, whose generated "
        "sections are updated; what you wrote in it stays. Checkpoints and logs of a training are left out. "
        "Files that the repository has already are not sent again.",
        epilog="""Examples:
  count-clip push runs/counting org/count-clip --private --dtype float16
  count-clip push runs/counting org/count-clip --results countbench.json --license apache-2.0 --tag v1.0
  count-clip push runs/prompts org/red-apples --base-model org/clip-count
  count-clip push fsc147 org/fsc147 --dry-run

The token is the one of `hf auth login`, or HF_TOKEN.""",
    )
    parser.add_argument("folder", metavar="FOLDER", help="as save_pretrained, a training or `data build` wrote it")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="the repository; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--gated",
        choices=("auto", "manual"),
        help="readers have to request access, which is granted at once or by you (default: as it is)",
    )
    parser.add_argument("--revision", default="main", metavar="BRANCH", help="made if it is missing (default: main)")
    parser.add_argument("--tag", help="a tag for the commit, for example v1.0")
    parser.add_argument("--message", default="Upload with count-clip", help="the message of the commit")
    parser.add_argument("--dtype", choices=DTYPES, help="write the weights in this type (default: as they are)")
    parser.add_argument("--license", help="for the card, as the Hub names it: apache-2.0")
    parser.add_argument("--base-model", metavar="ORG/NAME", help="the base of the model or the adapters")
    parser.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="FILE",
        help="figures for the card, from `evaluate ... --json FILE`; may be repeated. They replace those in the card",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be pushed, without any request")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    parser.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> int:
    import tempfile

    from count_clip.trainers.hub.card import CardError
    from count_clip.trainers.hub.release import ReleaseError
    from count_clip.trainers.hub.repository import Destination, HubError, check_destination

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
        check_destination(destination, needs_token=not options.dry_run)
        if is_dataset:
            return _push_dataset(options, folder, destination)
        with tempfile.TemporaryDirectory(prefix="count-clip-push-") as target, quiet_loading():
            release = _prepare(options, folder, Path(target))
            return _send(options, destination, release.model_type, release.files, release)
    except (HubError, CardError, ReleaseError) as error:
        raise CommandError(str(error)) from None


def _is_dataset(folder: Path) -> bool:
    """Whether a folder is a data set; anything but a folder is an error."""
    from count_clip.datasets_scripts.publish.card import is_own_card
    from count_clip.datasets_scripts.publish.parquet import PARTIAL

    if not folder.is_dir():
        hint = " (it is a file)" if folder.exists() else ""
        raise CommandError(f"There is no folder {folder}{hint}: expected one with a model, a processor or a data set.")
    if (folder / "config.json").is_file() or next(folder.rglob("*.parquet"), None) is None:
        return False
    card = folder / "README.md"
    is_own = card.is_file() and is_own_card(card.read_text(encoding="utf-8", errors="replace"))
    if not is_own or (folder / PARTIAL).exists():
        raise CommandError(
            f"{folder} holds parquet files, but is no finished build of `count-clip data build`. Build it, or use "
            "`hf upload --repo-type dataset`."
        )
    return True


def _prepare(options: argparse.Namespace, folder: Path, target: Path) -> Release:
    from count_clip.modeling.auto_classes import MODEL_FAMILIES
    from count_clip.trainers.hub.card import checkpoint_type, figures_from_file
    from count_clip.trainers.hub.release import ReleaseError, prepare_release

    from ..checkpoints import CheckpointError, check_tokenizer, describe_checkpoint

    if checkpoint_type(folder) in MODEL_FAMILIES:
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
        raise CommandError(f"{folder} is a data set, which has no {' and '.join(given)}. Leave it out.")
    from count_clip.datasets_scripts.publish.parquet import files_to_push, is_private_by_default

    if destination.private is None:
        destination.private = is_private_by_default(folder)
    sizes = {path: file.stat().st_size for path, file in files_to_push(folder).items()}
    return _send(options, destination, "data set", sizes)


def _send(
    options: argparse.Namespace,
    destination: Destination,
    model_type: str,
    sizes: dict[str, int],
    release: Release | None = None,
) -> int:
    """List what is pushed, ask for consent, and push."""
    from count_clip.trainers.hub.release import STALE
    from count_clip.trainers.hub.repository import push_folder

    about = {
        "repository": destination.repo_id,
        "repo_type": destination.repo_type,
        "model_type": model_type,
        "revision": destination.revision,
        "tag": destination.tag,
        "files": sizes,
        "left_out": release.left_out if release else [],
    }
    if options.dry_run or not options.json:
        _show(options, about, release)
    if options.dry_run:
        return 0
    _ask(options, destination, sum(sizes.values()), len(sizes))
    if release is None:
        pushed = push_built(options.folder, destination, options.message)
    else:
        pushed = push_folder(destination, release.folder, options.message, STALE)
    if options.json:
        print(json.dumps({**about, "url": pushed.url, "commit": pushed.commit, "changed": pushed.changed}))
    else:
        print(f"pushed: {pushed.url}" if pushed.changed else f"nothing has changed: {pushed.url}")
    return 0


def push_built(folder: str | Path, destination: Destination, message: str = "Upload with count-clip") -> Pushed:
    """
    Push the folder that `data build` wrote; by default a new repository is private if the licence of the set is not an
    open one. Raises a `HubError` if the push fails.
    """
    from count_clip.datasets_scripts.publish.parquet import files_to_push, is_private_by_default
    from count_clip.trainers.hub.repository import push_folder

    if destination.private is None:
        destination.private = is_private_by_default(folder)
    stale = ("*.parquet", "sheets/*.png")  # of a former build
    return push_folder(destination, Path(folder).expanduser(), message, stale, allow=list(files_to_push(folder)))


def _show(options: argparse.Namespace, about: dict[str, Any], release: Release | None) -> None:
    if options.json:
        print(json.dumps({**about, "url": None, "commit": None, "changed": None}))
        return
    print_table(["file", "bytes"], [[path, f"{size:,}"] for path, size in about["files"].items()])
    state = ", tag ".join(filter(None, (about["revision"], about["tag"])))
    size = sum(about["files"].values()) / 1e6
    print(f"{about['model_type']}: {size:,.1f} MB to {about['repository']} ({state})")
    if about["left_out"]:
        print(f"count-clip: not pushed: {', '.join(about['left_out'])}", file=sys.stderr)
    if release is not None and release.license is None:
        print("count-clip: the card names no licence; add one with --license", file=sys.stderr)


def _ask(options: argparse.Namespace, destination: Destination, size: int, number: int) -> None:
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(
            "Pushing needs consent, and there is no terminal to ask for it. Add --yes, or --dry-run to look."
        )
    visibility = "private if it is new" if destination.private else "public unless it is private already"
    prompt = f"Push {number} files ({size / 1e6:,.1f} MB) to {destination.repo_id} ({visibility})? [y/N] "
    print(prompt, end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was pushed.")


__all__ = ["add_parser", "push_built"]
