"""`count-clip info`: describe a checkpoint, and check whether it can count by a text."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .shared.errors import CommandError
from .shared.loading import check_texts
from .shared.options import Commands
from .shared.output import print_table, quiet_loading


if TYPE_CHECKING:
    from ..checkpoints import CheckpointInfo
    from ..text_checks import TextCheck


# A description of each `CheckpointInfo.counts_by`.
_ABILITIES = {
    "density": "how many and where, by a density map: `count-clip count`, pipeline('object-counting')",
    "ranks captions": "which number from two to ten is right: `count-clip count`, pipeline('caption-counting')",
    "ranks captions, untaught": "a plain CLIP, not trained to count: ranks captions, and is a start for training",
    None: "no: not a model of this package, and not a CLIP",
}


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "info",
        help="describe a checkpoint, and check a text",
        description="Print the type, sizes, prompts, files and card metadata of a checkpoint, without its weights.",
        epilog="""Examples:
  count-clip info org/clip-count --text 'red apples'
  count-clip info runs/counting --text 'a photo of {} dogs' --json

Exit codes:
  0    success
  1    weights are missing, or the model cannot count by a text
  2    there is no such checkpoint, or it cannot be read""",
    )
    parser.add_argument("model", metavar="MODEL", help="a folder or a name on the Hub")
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        help="check a prompt ('red apples') for a density model, or a caption with a number or {} for a CLIP; may be "
        "repeated",
    )
    parser.add_argument("--revision", help="branch, tag or commit on the Hub (default: main)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> int:
    from ..checkpoints import CheckpointError, describe_checkpoint, find_checkpoint
    from ..text_checks import check_text

    check_texts(options.text)
    with quiet_loading():
        try:
            folder = find_checkpoint(options.model, options.revision)
            info = describe_checkpoint(folder, options.model)
            checks = [check_text(folder, info, text) for text in options.text]
        except CheckpointError as error:
            raise CommandError(str(error)) from error
    if options.json:
        print(json.dumps({**asdict(info), "texts": [asdict(check) for check in checks]}, ensure_ascii=False))
    else:
        _show(info, checks)
    broken = bool(info.missing_weights) or bool(info.counts_by and not info.has["weights"] and info.commit is None)
    return int(broken or not all(check.can_count for check in checks))


def _show(info: CheckpointInfo, checks: list[TextCheck]) -> None:
    print(info.model + (f" at {info.commit}" if info.commit else ""))
    classes = f" ({', '.join(info.architectures)})" if info.architectures else ""
    lines = [
        ["type", info.model_type + classes],
        ["counts", "as its base does" if info.model_type.startswith("adapter") else _ABILITIES[info.counts_by]],
        ["parameters", _parameters(info)],
    ]
    if missing := info.missing_weights:
        what = "tensors are missing from the weights, or of another size"
        lines.append(["broken", f"{len(missing)} {what}: {', '.join(missing[:3])}"])
    lines += _sizes(info.sizes, info.options)
    for label, wanted in (("files", True), ("missing", False)):
        if names := [name for name, exists in info.has.items() if exists == wanted]:
            lines.append([label, ", ".join(names)])
    for name, values in (("made from", info.base_model), ("trained on", info.datasets)):
        if values:
            lines.append([name, ", ".join(values)])
    if info.license:
        lines.append(["licence", info.license])
    figures = [f"{one['metric']} {_short(one['value'])} on {one['dataset']}" for one in info.figures[:10]]
    lines += [["figures" if index == 0 else "", figure] for index, figure in enumerate(figures)]
    if len(info.figures) > len(figures):
        lines.append(["", f"... and {len(info.figures) - len(figures)} more in its card"])
    print_table(None, lines)
    for check in checks:
        answer = "yes" if check.can_count else "no"
        print(f"\n{check.text!r}: {answer}, {check.num_tokens} of {check.max_tokens} tokens")
        notes = [f"tokens: {' '.join(check.tokens)}", *([check.reason] if check.reason else []), *check.remarks]
        print("\n".join(f"  {note}" for note in notes))


def _short(value: Any) -> str:
    """A result of a card, which may be a text."""
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def _parameters(info: CheckpointInfo) -> str:
    if info.num_parameters is None:
        if info.has["weights"]:
            return "unknown without loading the weights"
        return "unknown: the weights are not in the cache" if info.commit else "no weights"
    if len(info.dtypes) == 1:
        return f"{info.num_parameters:,} in {next(iter(info.dtypes))}"
    parts = ", ".join(f"{number:,} in {dtype}" for dtype, number in info.dtypes.items())
    return f"{info.num_parameters:,} ({parts})"


def _sizes(sizes: dict[str, int], options: dict[str, Any]) -> list[list[str]]:
    if "image_size" not in sizes:  # not made of CLIP's towers
        return [[name.replace("_", " "), str(value)] for name, value in {**sizes, **options}.items()]
    lines = [
        ["images", f"{sizes['image_size']} x {sizes['image_size']} pixels in patches of {sizes['patch_size']}"],
        ["vision", f"{sizes['vision_layers']} layers of {sizes['vision_width']}"],
        ["text", f"{sizes['text_layers']} layers of {sizes['text_width']}, {sizes['text_tokens']} tokens"],
    ]
    if "window_size" in sizes:
        window = sizes["window_size"]
        lines[0][1] = f"windows of {window} x {window} pixels in an image of any size; {lines[0][1]} inside"
        deep = f" in each of {sizes['visual_prompt_depth']} layers" if sizes["num_visual_prompts"] else ""
        prompts = f"{sizes['num_visual_prompts']} visual{deep}, {sizes['num_context_tokens']} in the text"
        lines.append(["prompts", prompts])
        lines.append(["head", ", ".join(f"{name} {value}" for name, value in options.items())])
    return lines
