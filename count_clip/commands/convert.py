"""`count-clip convert`: convert published checkpoints to the Hugging Face format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .shared.errors import CommandError
from .shared.options import Commands
from .shared.output import print_table, quiet_loading


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "convert",
        help="convert a published checkpoint to the Hugging Face format",
        description="Convert a published checkpoint to the Hugging Face format.",
    )
    formats = parser.add_subparsers(title="checkpoints", metavar="FORMAT", required=True)
    clip_count = formats.add_parser(
        "clip-count",
        help="the CLIP-Count authors' Lightning checkpoint",
        description="Convert the CLIP-Count authors' checkpoint. The configuration follows from its tensors. The "
        "result is saved only if its outputs equal the original's. No Python code in the files is run.",
        epilog="""Example:
  count-clip convert clip-count --clip ViT-B-16.pt --checkpoint clipcount.ckpt --output clip-count""",
    )
    clip_count.add_argument(
        "--clip",
        required=True,
        metavar="CLIP",
        help="OpenAI's CLIP: its .pt file (a jit archive or a state dict) or a folder of transformers",
    )
    clip_count.add_argument("--checkpoint", required=True, metavar="FILE", help="the authors' .ckpt file")
    clip_count.add_argument("--output", required=True, metavar="DIR", help="save model and processor there")
    clip_count.add_argument(
        "--tokenizer",
        metavar="TOKENIZER",
        help="CLIP's tokenizer: a folder or a name on the Hub (default: the one in the CLIP's folder, or else "
        "OpenAI's from the Hub)",
    )
    clip_count.set_defaults(run=_convert_clip_count)


def _convert_clip_count(options: argparse.Namespace) -> int:
    from count_clip.modeling.convert_clip_count_to_hf import convert_checkpoint
    from count_clip.modeling.reference_clip_count import ConversionError

    clip, checkpoint, output = (Path(path).expanduser() for path in (options.clip, options.checkpoint, options.output))
    tokenizer = options.tokenizer
    if tokenizer is not None and Path(tokenizer).expanduser().exists():
        tokenizer = Path(tokenizer).expanduser()
    try:
        with quiet_loading():
            conversion = convert_checkpoint(clip, checkpoint, output, tokenizer=tokenizer)
    except (OSError, ValueError, ConversionError) as error:
        raise CommandError(str(error)) from error
    print_table(None, [[name, text] for name, text in conversion.summary()])
    print(f"wrote {options.output}", file=sys.stderr)
    return 0
