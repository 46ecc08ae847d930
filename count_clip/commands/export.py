"""`count-clip export`: checkpoints for other programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .shared.errors import CommandError
from .shared.options import DTYPES, Commands
from .shared.output import print_table, quiet_loading


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "export",
        help="export a checkpoint as a plain CLIP or as ONNX files",
        description="Export a checkpoint for other programs. The export is kept only if its outputs equal the "
        "checkpoint's.",
    )
    formats = parser.add_subparsers(title="formats", metavar="FORMAT", required=True)
    clip = formats.add_parser(
        "clip",
        help="a count-aware CLIP as a plain CLIPModel",
        description="Export a count-aware CLIP as a plain CLIPModel and CLIPProcessor for pipelines of transformers, "
        "diffusers (as text encoder) and sentence-transformers.",
        epilog="""Example:
  count-clip export clip org/count-clip --output clip""",
    )
    _add_places(clip, "a count-aware CLIP")
    clip.add_argument(
        "--dtype",
        choices=DTYPES,
        help="type of the weights (default: unchanged)",
    )
    clip.set_defaults(run=_clip)
    onnx = formats.add_parser(
        "onnx",
        help="ONNX files, for onnxruntime",
        description="Export a model as ONNX files in float32 with variable numbers of images, texts and tokens, with "
        "its processor and a README that runs them. CLIPs: model.onnx, text_model.onnx and vision_model.onnx. Density "
        "models: model.onnx, text_model.onnx and density_model.onnx, which takes embedded prompts. Needs pip install "
        "'count-clip[onnx]'.",
        epilog="""Examples:
  count-clip export onnx org/count-clip --output onnx
  count-clip export onnx org/clip-count --output onnx --only text_model --only density_model""",
    )
    _add_places(onnx, "a count-aware CLIP, a CLIP or a density model")
    onnx.add_argument(
        "--only",
        action="append",
        metavar="PART",
        help="model, text_model, vision_model or density_model; may be repeated (default: all)",
    )
    onnx.add_argument("--opset", type=int, default=18, metavar="N", help="version of ONNX's operators (default: 18)")
    onnx.set_defaults(run=_onnx)


def _add_places(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"{what}: a folder or a name on the Hub")
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write, new or empty")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _clip(options: argparse.Namespace) -> int:
    import torch

    from ..export.clip import export_clip

    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    difference = _run(options, lambda model: export_clip(model, options.output, dtype))
    if options.json:
        print(json.dumps({"output": options.output, "logit_difference": difference}))
    else:
        print(f"equal weights; logits differ by at most {difference:.1e}")
        print(f"wrote {options.output}", file=sys.stderr)
    return 0


def _onnx(options: argparse.Namespace) -> int:
    from ..export.onnx import export_onnx

    files = _run(options, lambda model: export_onnx(model, options.output, options.only, options.opset))
    if options.json:
        about = {
            one.name: {"inputs": one.inputs, "outputs": one.outputs, "difference": one.difference, "bytes": one.size}
            for one in files
        }
        print(json.dumps({"output": options.output, "opset": options.opset, "files": about}))
    else:
        rows = [[one.name, f"{one.size / 1e6:,.1f}", f"{one.difference:.1e}"] for one in files]
        print_table(["file", "MB", "largest difference"], rows)
        print(f"wrote {options.output}", file=sys.stderr)
    return 0


def _run(options: argparse.Namespace, export: Callable[[str], Any]) -> Any:
    """Find the checkpoint, check and export it."""
    from safetensors import SafetensorError

    from ..checkpoints import CheckpointError, adapters_base, check_tokenizer, find_checkpoint, is_local
    from ..export.clip import ExportError

    name = str(Path(options.model).expanduser()) if is_local(options.model) else options.model
    try:
        with quiet_loading():
            folder = find_checkpoint(options.model)
            if adapters_base(folder, options.model) is not None:
                raise CommandError(
                    f"{options.model} are adapters. Merge LoRA into its base first, with "
                    "count_clip.load_adapted_model("
                    f"{options.model!r}).merge_and_unload().save_pretrained(FOLDER), and save the processor there. "
                    "count_clip.adapter_to_prompts turns visual and context prompts into those of a density model."
                )
            if (folder / "processor_config.json").is_file():
                check_tokenizer(folder, options.model)
            return export(name)
    except (CheckpointError, ExportError) as error:
        raise CommandError(str(error)) from error
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CommandError(f"{options.model} cannot be loaded: {error}") from error


__all__ = ["add_parser"]
