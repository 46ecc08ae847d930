"""The CLIP-Count authors' checkpoints, and OpenAI's CLIP under them, to a [`CLIPCountDensityModel`]."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPModel

from .configuration_clip_count_density import CLIPCountDensityConfig
from .modeling_clip_count_density import CLIPCountDensityModel


# In every checkpoint of the authors, and without effect on what their model computes: a norm that is never called, and
# a buffer that follows from the sizes.
UNUSED_TENSORS = ("decoder_ln_pre.weight", "decoder_ln_pre.bias", "patch_emb_pos_embed")
# The same, where the interaction is hierarchical: the first block's convolution, and the norm after the last block,
# whose result the decoder does not read.
UNUSED_HIERARCHICAL_TENSORS = (
    "fim_blocks.0.conv0.weight",
    "fim_blocks.0.conv0.bias",
    "decoder_norm.weight",
    "decoder_norm.bias",
)
_OPENAI_LAYER_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def convert_openai_clip(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    Rename the tensors of OpenAI's CLIP (ViT) to those of a [`CLIPModel`].

    Args:
        state_dict (`dict[str, torch.Tensor]`): OpenAI's names (`visual.conv1.weight`, ...) and tensors.

    Returns:
        `dict[str, torch.Tensor]`: The names of `transformers`, in float32.

    Raises:
        ValueError: If a tensor has no counterpart; it is named.

    Source:
        The names are those of `clip/model.py` in https://github.com/openai/CLIP.
    """
    fixed = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    for kind in ("weight", "bias"):
        fixed[f"visual.ln_pre.{kind}"] = f"vision_model.pre_layrnorm.{kind}"
        fixed[f"visual.ln_post.{kind}"] = f"vision_model.post_layernorm.{kind}"
        fixed[f"ln_final.{kind}"] = f"text_model.final_layer_norm.{kind}"
    transposed = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
    # The jit archive carries these three numbers beside the weights.
    ignored = ("input_resolution", "context_length", "vocab_size")
    converted: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in state_dict.items():
        layer = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)(?:\.|_)(weight|bias)", name)
        if name in ignored:
            continue
        tensor = tensor.float()
        if name in fixed:
            converted[fixed[name]] = tensor
        elif name in transposed:
            converted[transposed[name]] = tensor.t().contiguous()
        elif layer and layer[3] == "attn.in_proj":
            prefix = f"{'vision' if layer[1] else 'text'}_model.encoder.layers.{layer[2]}.self_attn"
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                converted[f"{prefix}.{part}_proj.{layer[4]}"] = chunk.contiguous()
        elif layer and layer[3] in _OPENAI_LAYER_NAMES:
            prefix = f"{'vision' if layer[1] else 'text'}_model.encoder.layers.{layer[2]}"
            converted[f"{prefix}.{_OPENAI_LAYER_NAMES[layer[3]]}.{layer[4]}"] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"Tensors that no ViT CLIP of OpenAI has: {', '.join(sorted(unknown))}. Only ViT checkpoints convert."
        )
    return converted


def clip_sizes(state_dict: dict[str, torch.Tensor]) -> dict[str, Any]:
    """
    Work out the configuration of a CLIP from its tensors.

    Args:
        state_dict (`dict[str, torch.Tensor]`): Tensors under the names of `transformers`.

    Returns:
        `dict` with `text_config`, `vision_config` (both `dict`) and `projection_dim`.

    Raises:
        ValueError: If a tensor that tells a size is missing; it is named.

    Source:
        64 channels a head, as `build_model` in OpenAI's `clip/model.py` assumes.
    """

    def shape(name: str) -> torch.Size:
        if name not in state_dict:
            raise ValueError(f"The CLIP checkpoint has no tensor {name!r}: it is not a whole CLIP with a ViT.")
        return state_dict[name].shape

    def tower(prefix: str, hidden_size: int) -> dict[str, Any]:
        layers = {
            int(match[1]) for name in state_dict if (match := re.match(rf"{prefix}\.encoder\.layers\.(\d+)\.", name))
        }
        return {
            "hidden_size": hidden_size,
            "num_hidden_layers": len(layers),
            "num_attention_heads": max(1, hidden_size // 64),
            "intermediate_size": shape(f"{prefix}.encoder.layers.0.mlp.fc1.weight")[0],
            "hidden_act": "quick_gelu",
        }

    projection_dim = shape("text_projection.weight")[0]
    vocab_size, text_dim = shape("text_model.embeddings.token_embedding.weight")
    vision_dim, num_channels, patch_size, _ = shape("vision_model.embeddings.patch_embedding.weight")
    side = round((shape("vision_model.embeddings.position_embedding.weight")[0] - 1) ** 0.5)
    text_config = {
        **tower("text_model", text_dim),
        "vocab_size": vocab_size,
        "max_position_embeddings": shape("text_model.embeddings.position_embedding.weight")[0],
        "projection_dim": projection_dim,
        # OpenAI's vocabulary ends with the start and the end of text; padding repeats the end.
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "pad_token_id": vocab_size - 1,
    }
    vision_config = {
        **tower("vision_model", vision_dim),
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "num_channels": num_channels,
        "projection_dim": projection_dim,
    }
    return {"text_config": text_config, "vision_config": vision_config, "projection_dim": projection_dim}


def convert_clip_count(
    trained: dict[str, torch.Tensor], clip: dict[str, torch.Tensor], num_interaction_heads: int = 8
) -> CLIPCountDensityModel:
    """
    Rebuild the authors' model from its trained tensors and those of the CLIP under it.

    The result computes what theirs does, their text readout included. Their first two layers share the first row of
    visual prompts and the last row is never used; here each layer has the row that it really uses.

    Args:
        trained (`dict[str, torch.Tensor]`):
            The `state_dict` of the authors' Lightning checkpoint (names that start with `model.`).
        clip (`dict[str, torch.Tensor]`):
            OpenAI's CLIP, under OpenAI's names or those of `transformers`.
        num_interaction_heads (`int`, *optional*, defaults to 8):
            The authors' `decoder_head`, which no tensor tells.

    Returns:
        [`CLIPCountDensityModel`] in evaluation mode, in float32.

    Raises:
        ValueError: If tensors are missing, left over or of the wrong shape; all of them are named.

    Source:
        `models/clip_count.py` of https://github.com/songrise/CLIP-Count.
    """
    trained = {name.removeprefix("model."): tensor.float() for name, tensor in trained.items()}
    if not any(name.startswith(("text_model.", "vision_model.")) for name in clip):
        clip = convert_openai_clip(clip)
    sizes = clip_sizes(clip)
    config = _authors_config(trained, sizes, num_interaction_heads)
    state_dict = {
        name: tensor.float()
        for name, tensor in clip.items()
        if name.startswith(("text_model.", "vision_model.", "text_projection."))
    }
    unused = UNUSED_TENSORS + (UNUSED_HIERARCHICAL_TENSORS if config.interaction == "hierarchical" else ())
    left_over = []
    for name, tensor in trained.items():
        # Frozen CLIP weights, where a checkpoint kept them, are the ones that `clip` holds.
        if name in unused or name.startswith(("clip.", "img_encoder.vit.", "text_encoder.clip_model.")):
            continue
        renamed = list(_rename(name, tensor))
        state_dict.update(renamed)
        if not renamed:
            left_over.append(name)

    model = CLIPCountDensityModel(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    problems = [f"left over: {name}" for name in left_over]
    problems += [f"left over: {name}" for name in sorted(state_dict.keys() - expected.keys())]
    problems += [f"missing: {name}" for name in sorted(expected.keys() - state_dict.keys())]
    problems += [
        f"wrong shape: {name} is {tuple(state_dict[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in state_dict and state_dict[name].shape != shape
    ]
    if problems:
        raise ValueError("The checkpoint does not fit CLIP-Count:\n  " + "\n  ".join(problems))
    model.load_state_dict(state_dict)
    return model.eval()


def _authors_config(
    trained: dict[str, torch.Tensor], sizes: dict[str, Any], num_interaction_heads: int
) -> CLIPCountDensityConfig:
    """Work out the options of the authors' model from its tensors."""
    blocks = {int(match[1]) for name in trained if (match := re.match(r"fim_blocks\.(\d+)\.", name))}
    hierarchical = "fim_blocks.1.conv0.weight" in trained
    options: dict[str, Any] = {
        "window_size": 384,
        "density_activation": "sigmoid",
        "text_readout": "authors",
        "interaction": "hierarchical" if hierarchical else "plain" if blocks else "add",
        "num_interaction_layers": len(blocks),
        "num_interaction_heads": num_interaction_heads,
        "num_visual_prompts": 0,
        "num_context_tokens": 0,
    }
    if (prompts := trained.get("img_encoder.visual_prompt")) is not None:
        if len(prompts) == 1:
            raise ValueError(
                "The checkpoint has visual prompts for one layer only (vpt_depth 1); the authors' own code cannot run "
                "such a model."
            )
        options["visual_prompt_depth"], options["num_visual_prompts"] = prompts.shape[:2]
    if (context := trained.get("text_encoder.learnable_context")) is not None:
        options["num_context_tokens"] = len(context)
    return CLIPCountDensityConfig(**sizes, **options)


def _rename(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """What one of the authors' tensors becomes here; nothing if it is not known."""
    if name == "img_encoder.visual_prompt":
        yield "visual_prompts.prompt_embeds", torch.cat([tensor[:1], tensor[:-1]])
    elif name == "text_encoder.learnable_context":
        yield "context_prompts.context_embeds", tensor
    elif (match := re.fullmatch(r"fim_blocks\.(\d+)\.(.+)\.(weight|bias)", name)) is not None:
        yield from _rename_block(match[1], match[2], match[3], tensor)
    else:
        for pattern, replacement in (
            (r"img_encoder\.vpt_norm\.(\w+)", r"visual_prompts.norm.\1"),
            (r"img_encoder\.vpt_proj\.(\w+)", r"visual_prompts.projection.\1"),
            (r"patch_feat_proj\.(\w+)", r"patch_projection.\1"),
            (r"patch_feat_proj_contrast\.(\w+)", r"contrastive_patch_projection.\1"),
            (r"decoder_norm\.(\w+)", r"interaction.norm.\1"),
            (r"density_decoder\.convs\.(\d+)\.(\d+)\.(\w+)", r"decoder.levels.\1.\2.\3"),
            (r"density_decoder\.pyradim_conv\.(\d+)\.(\w+)", r"decoder.fine_projection.\1.\2"),
            (r"density_decoder\.final_conv\.0\.(\w+)", r"decoder.density_projection.\1"),
        ):
            if re.fullmatch(pattern, name):
                yield re.sub(pattern, replacement, name), tensor


def _rename_block(index: str, part: str, kind: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    patch_layer, text_layer = f"interaction.patch_layers.{index}", f"interaction.text_layers.{index}"
    if part == "selfattn.qkv":
        for letter, chunk in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{patch_layer}.attention.{letter}_proj.{kind}", chunk.contiguous()
        return
    names = {
        "norm0": f"{patch_layer}.norm",
        "conv0": f"{patch_layer}.conv",
        "selfattn.proj": f"{patch_layer}.attention.out_proj",
        "norm1": f"{text_layer}.attention_norm",
        "attn.wq": f"{text_layer}.attention.q_proj",
        "attn.wk": f"{text_layer}.attention.k_proj",
        "attn.wv": f"{text_layer}.attention.v_proj",
        "attn.proj": f"{text_layer}.attention.out_proj",
        "norm2": f"{text_layer}.mlp_norm",
        "mlp.fc1": f"{text_layer}.mlp.0",
        "mlp.fc2": f"{text_layer}.mlp.3",
    }
    if part in names:
        yield f"{names[part]}.{kind}", tensor


def read_clip(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Read a CLIP as OpenAI distributes it (a jit archive), as a plain state dict, or as a folder of `transformers`.

    Args:
        path (`str` or `Path`): The file or folder.

    Returns:
        `dict[str, torch.Tensor]`: Its tensors, under whichever names it has.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no CLIP checkpoint at {path}.")
    if path.is_dir():
        return dict(CLIPModel.from_pretrained(path, dtype=torch.float32).state_dict())
    try:
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    except RuntimeError:
        # Not a jit archive: a pickled state dict, of tensors alone.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    return dict(loaded.get("state_dict", loaded))


def read_clip_count(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """
    Read the authors' Lightning checkpoint without running code from it.

    Args:
        path (`str` or `Path`): The `.ckpt` file.

    Returns:
        `tuple`: The tensors of `state_dict`, and the hyper-parameters.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a Lightning checkpoint.
        pickle.UnpicklingError: If the file holds other objects than tensors, plain values and option namespaces.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    # Lightning keeps the command line's options beside the weights.
    allowed: list[Any] = [
        argparse.Namespace,
        (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
        (dict, "lightning_fabric.utilities.data.AttributeDict"),
    ]
    with torch.serialization.safe_globals(allowed):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a Lightning checkpoint: it has no `state_dict`.")
    options = checkpoint.get("hyper_parameters", {})
    options = vars(options) if isinstance(options, argparse.Namespace) else dict(options)
    if isinstance(options.get("args"), argparse.Namespace):
        options = vars(options["args"])
    return checkpoint["state_dict"], options


__all__ = ["clip_sizes", "convert_clip_count", "convert_openai_clip", "read_clip", "read_clip_count"]
