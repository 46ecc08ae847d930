"""The CLIP-Count authors' checkpoints, and OpenAI's CLIP under them, to a [`CLIPCountDensityModel`]."""

import argparse
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from .configuration_clip_count_density import CLIPCountDensityConfig
from .image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from .modeling_clip_count_density import CLIPCountDensityModel
from .processing_clip_count_density import CLIPCountDensityProcessor
from .reference_clip_count import compare_with_reference, openai_name, openai_tensors


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
# Theirs and ours, up to `weight` or `bias`.
_PREFIXES = (
    ("img_encoder.vpt_norm.", "visual_prompts.norm."),
    ("img_encoder.vpt_proj.", "visual_prompts.projection."),
    ("patch_feat_proj.", "patch_projection."),
    ("patch_feat_proj_contrast.", "contrastive_patch_projection."),
    ("decoder_norm.", "interaction.norm."),
    ("density_decoder.convs.", "decoder.levels."),
    ("density_decoder.pyradim_conv.", "decoder.fine_projection."),
    ("density_decoder.final_conv.0.", "decoder.density_projection."),
)
# The parts of a block, which here is a patch layer and a text layer. `selfattn.qkv` is three of ours.
_BLOCK_PARTS = {
    "norm0": ("patch_layers", "norm"),
    "conv0": ("patch_layers", "conv"),
    "selfattn.proj": ("patch_layers", "attention.out_proj"),
    "norm1": ("text_layers", "attention_norm"),
    "attn.wq": ("text_layers", "attention.q_proj"),
    "attn.wk": ("text_layers", "attention.k_proj"),
    "attn.wv": ("text_layers", "attention.v_proj"),
    "attn.proj": ("text_layers", "attention.out_proj"),
    "norm2": ("text_layers", "mlp_norm"),
    "mlp.fc1": ("text_layers", "mlp.0"),
    "mlp.fc2": ("text_layers", "mlp.3"),
}
# Where a checkpoint may keep its own copy of the frozen CLIP, and what these names start with at OpenAI's.
_FROZEN_PREFIXES = (("clip.", ""), ("img_encoder.vit.", "visual."), ("text_encoder.clip_model.", ""))
# The authors' `backbone`: width of the vision tower, patch and image in pixels.
BACKBONES = {
    "b16": ("ViT-B/16", 768, 16, 224),
    "b32": ("ViT-B/32", 768, 32, 224),
    "l14": ("ViT-L/14", 1024, 14, 224),
}
DEFAULT_TOKENIZER = "openai/clip-vit-base-patch16"
# A tokenizer with the right words and without its merges loads, and spells every word letter by letter.
OPENAI_VOCAB_SIZE = 49408
OPENAI_TOKENS = ("people in the crowd", (49406, 1047, 530, 518, 4570, 49407))
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
    originals = clip
    if not any(name.startswith(("text_model.", "vision_model.")) for name in clip):
        clip = convert_openai_clip(clip)
    sizes = clip_sizes(clip)
    config = _authors_config(trained, sizes, num_interaction_heads)
    state_dict = {
        name: tensor.float()
        for name, tensor in clip.items()
        if name.startswith(("text_model.", "vision_model.", "text_projection.")) and not name.endswith("position_ids")
    }
    unused = UNUSED_TENSORS + (UNUSED_HIERARCHICAL_TENSORS if config.interaction == "hierarchical" else ())
    problems: list[str] = []
    frozen, trained = _without_frozen(trained)
    if frozen:
        problems += _frozen_problems(frozen, openai_tensors(originals))
    for name, tensor in trained.items():
        if name in unused:
            continue
        renamed = list(_rename(name, tensor))
        state_dict.update(renamed)
        if not renamed:
            problems.append(f"left over: {name}")

    model = CLIPCountDensityModel(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    clip_names = {name for name in expected.keys() | clip.keys() if name.startswith(("text_", "vision_"))}

    def both(name: str) -> str:
        theirs = openai_name(name) if name in clip_names and originals is not clip else _authors_name(name)
        return name if theirs == name else f"{name} (theirs: {theirs})"

    problems += [f"left over: {both(name)}" for name in sorted(state_dict.keys() - expected.keys())]
    problems += [f"missing: {both(name)}" for name in sorted(expected.keys() - state_dict.keys())]
    problems += [
        f"wrong shape: {name} is {tuple(state_dict[name].shape)} instead of {tuple(shape)}"
        + both(name).removeprefix(name)
        for name, shape in expected.items()
        if name in state_dict and state_dict[name].shape != shape
    ]
    if problems:
        raise ValueError("The checkpoint does not fit CLIP-Count:\n  " + "\n  ".join(problems))
    model.load_state_dict(state_dict)
    return model.eval()


def _without_frozen(trained: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors that are a copy of the CLIP, and the others."""
    prefixes = tuple(prefix for prefix, _ in _FROZEN_PREFIXES)
    frozen = {name: tensor for name, tensor in trained.items() if name.startswith(prefixes)}
    return frozen, {name: tensor for name, tensor in trained.items() if name not in frozen}


def _frozen_problems(frozen: dict[str, torch.Tensor], clip: dict[str, torch.Tensor]) -> Iterator[str]:
    """Where the checkpoint's copy of the frozen CLIP is not the CLIP that was given."""
    for name, tensor in frozen.items():
        prefix, at_openai = next(pair for pair in _FROZEN_PREFIXES if name.startswith(pair[0]))
        original = clip.get(at_openai + name.removeprefix(prefix))
        if original is None:
            yield f"left over: {name}"
        # Either may have been rounded to half precision.
        elif original.shape != tensor.shape or not torch.allclose(original.float(), tensor, rtol=1e-2, atol=1e-3):
            yield f"not the CLIP that the checkpoint was trained on: {name} differs"


def _authors_config(
    trained: dict[str, torch.Tensor], sizes: dict[str, Any], num_interaction_heads: int
) -> CLIPCountDensityConfig:
    """Work out the options of the authors' model from its tensors."""
    blocks = {int(match[1]) for name in trained if (match := re.match(r"fim_blocks\.(\d+)\.", name))}
    hierarchical = "fim_blocks.1.conv0.weight" in trained
    projection_dim, vision = sizes["projection_dim"], sizes["vision_config"]
    options: dict[str, Any] = {
        "window_size": 384,
        "density_activation": "sigmoid",
        "text_readout": "authors",
        "contrast_empty_windows": True,
        "interaction": "hierarchical" if hierarchical else "plain" if blocks else "add",
        "num_interaction_layers": len(blocks),
        "num_interaction_heads": num_interaction_heads,
        "num_visual_prompts": 0,
        "num_context_tokens": 0,
    }
    if (inner := trained.get("fim_blocks.0.mlp.fc1.weight")) is not None:
        options["interaction_mlp_ratio"] = len(inner) / projection_dim
    if (prompts := trained.get("img_encoder.visual_prompt")) is not None:
        if prompts.dim() != 3:
            raise ValueError(f"img_encoder.visual_prompt must be (depth, prompts, width), but is {prompts.shape}.")
        if len(prompts) == 1:
            raise ValueError(
                "The checkpoint has visual prompts for one layer only (vpt_depth 1); the authors' own code cannot run "
                "such a model."
            )
        options["visual_prompt_depth"], options["num_visual_prompts"] = prompts.shape[:2]
    if (context := trained.get("text_encoder.learnable_context")) is not None:
        options["num_context_tokens"] = len(context)

    fine = trained.get("density_decoder.pyradim_conv.0.weight")
    if hierarchical and fine is not None and fine.shape[1] != projection_dim:
        raise ValueError(
            f"The checkpoint's interaction is hierarchical and its decoder takes {fine.shape[1]} channels "
            f"(pyradim_conv), but this CLIP projects to {projection_dim}. The authors' hierarchical decoder is made "
            "for the 512 of ViT-B/16 and ViT-B/32 and cannot run on ViT-L/14, whose checkpoints are plain or add. "
            "Pass the CLIP that the checkpoint was trained on."
        )
    num_patches = (vision["image_size"] // vision["patch_size"]) ** 2
    positions = trained.get("patch_emb_pos_embed")
    if positions is not None and positions.shape[-2] != num_patches:
        raise ValueError(
            f"The checkpoint was trained on images of {positions.shape[-2]} patches (patch_emb_pos_embed), but this "
            f"CLIP, {_backbone(vision)}, sees {num_patches}. Pass the CLIP that the checkpoint was trained on."
        )
    try:
        return CLIPCountDensityConfig(**sizes, **options)
    except StrictDataclassError as error:
        raise ValueError(f"The checkpoint's sizes do not fit together. {error}") from error


def _rename(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """What one of the authors' tensors becomes here; nothing if it is not known."""
    if name == "img_encoder.visual_prompt":
        yield "visual_prompts.prompt_embeds", torch.cat([tensor[:1], tensor[:-1]])
    elif name == "text_encoder.learnable_context":
        yield "context_prompts.context_embeds", tensor
    elif (match := re.fullmatch(r"fim_blocks\.(\d+)\.(.+)\.(weight|bias)", name)) is not None:
        index, part, kind = match.groups()
        if part == "selfattn.qkv":
            for letter, chunk in zip("qkv", tensor.chunk(3), strict=True):
                yield f"interaction.patch_layers.{index}.attention.{letter}_proj.{kind}", chunk.contiguous()
        elif part in _BLOCK_PARTS:
            layers, own_part = _BLOCK_PARTS[part]
            yield f"interaction.{layers}.{index}.{own_part}.{kind}", tensor
    else:
        for theirs, ours in _PREFIXES:
            if name.startswith(theirs):
                yield ours + name.removeprefix(theirs), tensor


def _authors_name(name: str) -> str:
    """What a tensor of ours is called by the authors; tensors of the CLIP keep their names."""
    match = re.fullmatch(r"interaction\.(patch_layers|text_layers)\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is not None:
        parts = {ours: theirs for theirs, ours in _BLOCK_PARTS.items()}
        return f"fim_blocks.{match[2]}.{parts.get((match[1], match[3]), 'selfattn.qkv')}.{match[4]}"
    for theirs, ours in (
        *_PREFIXES,
        ("img_encoder.visual_prompt", "visual_prompts.prompt_embeds"),
        ("text_encoder.learnable_context", "context_prompts.context_embeds"),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _backbone(vision: dict[str, Any]) -> str:
    """The name under which OpenAI published a vision tower, or its sizes."""
    sizes = (vision["hidden_size"], vision["patch_size"], vision["image_size"])
    for name, *known in BACKBONES.values():
        if tuple(known) == sizes:
            return name
    return f"a ViT of width {sizes[0]} with patches of {sizes[1]} px in images of {sizes[2]} px"


def read_clip(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Read a CLIP as OpenAI distributes it (a jit archive), as a plain state dict, or as a folder of `transformers`.

    Args:
        path (`str` or `Path`): The file or folder.

    Returns:
        `dict[str, torch.Tensor]`: Its tensors, under whichever names it has.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If what is there is not a CLIP like OpenAI's.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no CLIP checkpoint at {path}.")
    if path.is_dir():
        return _read_clip_folder(path)
    if _is_jit_archive(path):
        with warnings.catch_warnings():
            # torch would have everybody move on, but this is how OpenAI distributes CLIP.
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
            except RuntimeError as error:
                raise ValueError(f"{path} cannot be read; it may be damaged. {error}") from error
    loaded = _load_weights(path)
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError(
            f"Expected a CLIP in {path}: a jit archive or a state dict, but the file holds something else."
        )
    return dict(tensors)


def _is_jit_archive(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_clip_folder(path: Path) -> dict[str, torch.Tensor]:
    found, _ = CLIPConfig.get_config_dict(path)
    if found.get("model_type") != "clip":
        raise ValueError(f"Expected a CLIP in {path}, but its model type is {found.get('model_type')!r}.")
    model, loading = CLIPModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    if loading["missing_keys"]:
        raise ValueError(f"The CLIP in {path} lacks {', '.join(sorted(loading['missing_keys']))}.")
    for config in (model.config.text_config, model.config.vision_config):
        # No tensor tells these three, and the authors' code knows OpenAI's alone.
        expected = ("quick_gelu", max(1, config.hidden_size // 64), 1e-5)
        given = (config.hidden_act, config.num_attention_heads, config.layer_norm_eps)
        if given != expected:
            raise ValueError(
                f"The CLIP in {path} is not built like OpenAI's: activation, heads and epsilon of a tower are {given} "
                f"instead of {expected}, so CLIP-Count was not trained on it."
            )
    return dict(model.state_dict())


def _load_weights(path: Path, allowed: tuple[Any, ...] = ()) -> Any:
    """Unpickle tensors and plain values; nothing else, unless it is in `allowed`."""
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} holds {found[1] if found else 'something'} beside weights and plain options, or is damaged. It "
            "was not loaded, for such things could run code."
        ) from error
    # The unpickler meets text and the like with whatever error its first bytes lead to.
    except (
        OSError,
        RuntimeError,
        EOFError,
        struct.error,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise ValueError(f"{path} cannot be read; it may be damaged or cut short. {error}".strip()) from error


def read_clip_count(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """
    Read the authors' Lightning checkpoint without running code from it.

    Args:
        path (`str` or `Path`): The `.ckpt` file.

    Returns:
        `tuple`: The tensors of `state_dict`, and the hyper-parameters.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a Lightning checkpoint, or holds other objects than tensors, plain values and
            option namespaces.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    # Lightning keeps the command line's options beside the weights, in a dictionary of its own in some versions.
    allowed = (
        argparse.Namespace,
        (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
        (dict, "lightning.pytorch.utilities.parsing.AttributeDict"),
        (dict, "lightning_fabric.utilities.data.AttributeDict"),
        (dict, "lightning.fabric.utilities.data.AttributeDict"),
    )
    checkpoint = _load_weights(path, allowed)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a Lightning checkpoint: it has no `state_dict`.")
    options = checkpoint.get("hyper_parameters") or {}
    options = vars(options) if isinstance(options, argparse.Namespace) else dict(options)
    if isinstance(options.get("args"), argparse.Namespace):
        options = vars(options["args"])
    return checkpoint["state_dict"], options


@dataclass
class ClipCountConversion:
    """
    A converted model and what was found out about it.

    Args:
        model ([`CLIPCountDensityModel`]): The model, as it was saved.
        processor ([`CLIPCountDensityProcessor`]): Its processor, as it was saved.
        differences (`dict[str, float]`):
            The largest differences between its outputs and the authors'; the density is times 60.
    """

    model: CLIPCountDensityModel
    processor: CLIPCountDensityProcessor
    differences: dict[str, float]

    def summary(self) -> list[tuple[str, str]]:
        """What was found, for a person to read: pairs of a name and a text."""
        config = self.model.config
        vision, text = config.vision_config, config.text_config
        prompts = "none"
        if config.num_visual_prompts:
            prompts = (
                f"{config.num_visual_prompts} in each of the first {config.visual_prompt_depth} of "
                f"{vision.num_hidden_layers} layers"
            )
        heads = f", {config.num_interaction_heads} heads"
        layers = f", {config.num_interaction_layers} layers" if config.interaction == "plain" else ""
        return [
            ("backbone", _backbone(vision.to_dict())),
            ("text tower", f"{text.num_hidden_layers} layers of width {text.hidden_size}"),
            ("projection", str(config.projection_dim)),
            ("visual prompts", prompts),
            ("context", f"{config.num_context_tokens} vectors" if config.num_context_tokens else "none"),
            ("interaction", config.interaction + ("" if config.interaction == "add" else layers + heads)),
            ("differences", ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())),
        ]


def convert_checkpoint(
    clip: str | Path, checkpoint: str | Path, output: str | Path, tokenizer: str | Path | None = None
) -> ClipCountConversion:
    """
    Convert the authors' checkpoint, hold the result against what their model computes, and save it.

    Args:
        clip (`str` or `Path`):
            OpenAI's CLIP under it: a jit archive, a state dict or a folder of `transformers`.
        checkpoint (`str` or `Path`):
            The authors' Lightning checkpoint.
        output (`str` or `Path`):
            The folder to save model and processor in; it is made.
        tokenizer (`str` or `Path`, *optional*):
            CLIP's tokenizer: a folder or a name on the Hub. By default the one in `clip`, where that is a folder with
            a tokenizer, and otherwise OpenAI's from the Hub.

    Returns:
        [`ClipCountConversion`].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is not what it should be or the two do not fit together.
        ConversionError: If the outputs differ; nothing is saved then.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise ValueError(f"Expected a folder to save in, but {output} is a file.")
    if output.resolve() == Path(clip).resolve():
        raise ValueError(f"{output} holds the CLIP: saving there would overwrite it. Choose another folder.")
    clip_tensors = read_clip(clip)
    trained, options = read_clip_count(checkpoint)
    num_heads = options.get("decoder_head", 8)
    model = convert_clip_count(trained, clip_tensors, num_heads)
    found, known = _backbone(model.config.vision_config.to_dict()), BACKBONES.get(options.get("backbone", ""))
    if known is not None and found != known[0]:
        raise ValueError(f"The checkpoint was trained on {known[0]}, but {clip} is {found}.")
    if tokenizer is None:
        tokenizer = Path(clip) if _has_tokenizer(Path(clip)) else DEFAULT_TOKENIZER
    processor = CLIPCountDensityProcessor(
        CLIPCountDensityImageProcessorPil(
            window_size=model.config.window_size, window_stride=128, window_blend="authors"
        ),
        _load_tokenizer(tokenizer, model.config.text_config.vocab_size),
        num_context_tokens=model.config.num_context_tokens,
        max_text_length=model.config.text_config.max_position_embeddings,
    )
    differences = compare_with_reference(model, processor, trained, clip_tensors)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    return ClipCountConversion(model, processor, differences)


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (
        (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    )


def _load_tokenizer(source: str | Path, vocab_size: int) -> CLIPTokenizer:
    remedy = "Pass a folder with CLIP's tokenizer (vocab.json and merges.txt, or tokenizer.json): --tokenizer FOLDER."
    try:
        tokenizer = CLIPTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"The tokenizer {str(source)!r} cannot be loaded: {error}\n{remedy}") from error
    # If the files are missing, transformers 5 returns a tokenizer of two tokens instead of an error.
    if len(tokenizer) != vocab_size or tokenizer.eos_token_id != vocab_size - 1:
        raise ValueError(
            f"The CLIP knows {vocab_size} tokens of which the last ends a text, but the tokenizer {str(source)!r} "
            f"has {len(tokenizer)} and ends with number {tokenizer.eos_token_id}: it is another one, or its files are "
            f"not there (no network?). {remedy}"
        )
    words, expected = OPENAI_TOKENS
    if vocab_size == OPENAI_VOCAB_SIZE and tuple(tokenizer(words)["input_ids"]) != expected:
        raise ValueError(
            f"The tokenizer {str(source)!r} makes {tokenizer(words)['input_ids']} of {words!r} instead of OpenAI's "
            f"{list(expected)}. {remedy}"
        )
    return tokenizer


__all__ = [
    "ClipCountConversion",
    "clip_sizes",
    "convert_checkpoint",
    "convert_clip_count",
    "convert_openai_clip",
    "read_clip",
    "read_clip_count",
]
