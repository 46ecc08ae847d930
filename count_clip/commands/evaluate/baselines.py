"""Baselines: `--model mean` and `--model detector:NAME`."""

from __future__ import annotations

import argparse
from typing import Any

from ..shared.errors import CommandError
from ..shared.loading import find_device, find_train_counts, load_density_model
from ..shared.output import quiet_loading


MEAN_NAMES = ("mean", "always-the-mean")
_DETECTOR = "detector:"

BASELINES_HELP = """MODEL can also be a baseline: "mean" (or "always-the-mean"), or "detector:NAME", which counts the
boxes of an object detector of transformers (open-vocabulary ones, like OWL-ViT and Grounding DINO, get the prompt)."""


def is_baseline(model: str) -> bool:
    """Whether a model is the name of a baseline."""
    return model in MEAN_NAMES or model.startswith(_DETECTOR)


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """The options of `--model detector:NAME`."""
    group = parser.add_argument_group("detectors", "options of --model detector:NAME")
    group.add_argument("--threshold", type=_share, help="lowest score of a box (default: 0.1 with a prompt, else 0.5)")
    group.add_argument(
        "--max-overlap",
        type=_share,
        default=0.5,
        help="of two boxes with a larger intersection over union, only one counts (default: 0.5)",
    )
    group.add_argument(
        "--query",
        default="{}",
        help='prompt of the detector, {} being the text: "a photo of {}"; "{}." for Grounding DINO (default: {})',
    )


def _share(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, but got {text}")
    return number


def load_detector(options: argparse.Namespace) -> Any:
    """The detector of `--model detector:NAME`; `None` for other models."""
    if not options.model.startswith(_DETECTOR):
        return None
    from count_clip.evaluation.inference.baselines import DetectorCounter

    if options.dtype != "float32":
        raise CommandError(f"--dtype {options.dtype} is not supported by detectors, which run in float32.")
    name = options.model.removeprefix(_DETECTOR)
    device = find_device(options.device)
    try:
        with quiet_loading():
            return DetectorCounter(
                name,
                threshold=options.threshold,
                max_overlap=options.max_overlap,
                query=options.query,
                batch_size=options.batch_size,
                device=str(device),
                revision=options.revision,
            )
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"cannot load the detector {name}: {error}") from error


def load_mean_number(options: argparse.Namespace) -> Any:
    """The constant prediction of `--model mean`, two to ten; `None` for other models."""
    if options.model not in MEAN_NAMES:
        return None
    from count_clip.evaluation.inference.baselines import MeanCounter, usual_number

    return MeanCounter(usual_number(find_train_counts(options, "number")))


def load_counter(options: argparse.Namespace, train_counts: list[float] | None) -> tuple[Any, Any]:
    """A density model and its processor, or a baseline and `None`."""
    detector = load_detector(options)
    if detector is not None:
        return detector, None
    if options.model not in MEAN_NAMES:
        return load_density_model(options)
    if train_counts is None:
        raise CommandError(
            f"--model {options.model} predicts the mean of the training split, but {options.data} has none: name it "
            "with --train-split (a single file has one split)."
        )
    from count_clip.evaluation.inference.baselines import MeanCounter

    return MeanCounter(sum(train_counts) / len(train_counts)), None
