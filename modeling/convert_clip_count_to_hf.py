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
from .reference_clip_count import OPENAI_NAMES, compare_with_reference, num_blocks, openai_name, openai_tensors


# In the authors' checkpoints, without effect on the output: a norm that is never called, and a buffer of fixed values.
UNUSED_TENSORS = ("decoder_ln_pre.weight", "decoder_ln_pre.bias", "patch_emb_pos_embed")
# With the hierarchical interaction also the first block's convolution, and the norm after the last block.
UNUSED_HIERARCHICAL_TENSORS = (
    *("fim_blocks.0.conv0.weight", "fim_blocks.0.conv0.bias"),
    *("decoder_norm.weight", "decoder_norm.bias"),
)
# Our names and the authors', up to `weight` or `bias`.
_PREFIXES = {
    "visual_prompts.prompt_embeds": "img_encoder.visual_prompt",
    "visual_prompts.norm.": "img_encoder.vpt_norm.",
    "visual_prompts.projection.": "img_encoder.vpt_proj.",
    "context_prompts.context_embeds": "text_encoder.learnable_context",
    "patch_projection.": "patch_feat_proj.",
    "contrastive_patch_projection.": "patch_feat_proj_contrast.",
    "interaction.norm.": "decoder_norm.",
    "decoder.levels.": "density_decoder.convs.",
    "decoder.fine_projection.": "density_decoder.pyradim_conv.",
    "decoder.density_projection.": "density_decoder.final_conv.0.",
}
# The modules of an interaction block, which is a patch layer and a text layer here.
_BLOCK_MODULES = {
    "patch_layers.norm": "norm0",
    "patch_layers.conv": "conv0",
    "patch_layers.attention.q_proj": "selfattn.qkv",
    "patch_layers.attention.k_proj": "selfattn.qkv",
    "patch_layers.attention.v_proj": "selfattn.qkv",
    "patch_layers.attention.out_proj": "selfattn.proj",
    "text_layers.attention_norm": "norm1",
    "text_layers.attention.q_proj": "attn.wq",
    "text_layers.attention.k_proj": "attn.wk",
    "text_layers.attention.v_proj": "attn.wv",
    "text_layers.attention.out_proj": "attn.proj",
    "text_layers.mlp_norm": "norm2",
    "text_layers.mlp.0": "mlp.fc1",
    "text_layers.mlp.3": "mlp.fc2",
}
# The prefixes of a copy of the frozen CLIP in a checkpoint, and OpenAI's prefixes.
_FROZEN_PREFIXES = {"clip.": "", "img_encoder.vit.": "visual.", "text_encoder.clip_model.": ""}
_CLIP_PREFIXES = ("text_model.", "vision_model.", "text_projection.")
# The authors' `backbone`: width of the vision tower, patch and image in pixels.
BACKBONES = {
    "b16": ("ViT-B/16", 768, 16, 224),
    "b32": ("ViT-B/32", 768, 32, 224),
    "l14": ("ViT-L/14", 1024, 14, 224),
}
DEFAULT_TOKENIZER = "openai/clip-vit-base-patch16"
# A tokenizer without its merges loads, and splits every word into letters.
OPENAI_VOCAB_SIZE = 49408
OPENAI_TOKENS = ("people in the crowd", (49406, 1047, 530, 518, 4570, 49407))
_OPENAI_LAYER_TENSOR = re.compile(
    r"(visual\.)?transformer\.resblocks\.\d+\.(attn\.(in_proj_|out_proj\.)|ln_[12]\.|mlp\.c_(fc|proj)\.)(weight|bias)"
)
# The errors of the unpickler for files of other formats.
_READ_ERRORS = (OSError, RuntimeError, EOFError, struct.error, LookupError, ValueError, TypeError, AttributeError)
# The options of Lightning's command line, in some versions in a dictionary class.
_OPTION_CLASSES: tuple[Any, ...] = (
    argparse.Namespace,
    (dict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (dict, "lightning.pytorch.utilities.parsing.AttributeDict"),
    (dict, "lightning_fabric.utilities.data.AttributeDict"),
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
)


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
    modules = dict(OPENAI_NAMES)
    converted: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in state_dict.items():
        # A jit archive has these three numbers, too.
        if name in ("input_resolution", "context_length", "vocab_size"):
            continue
        if not _OPENAI_LAYER_TENSOR.fullmatch(name) and re.sub(r"\.(weight|bias)$", "", name) not in modules:
            unknown.append(name)
        renamed, tensor = name, tensor.float()
        for theirs, ours in OPENAI_NAMES:
            renamed = renamed.replace(theirs, ours)
        if "attn.in_proj_" in name:
            for letter, chunk in zip("qkv", tensor.chunk(3), strict=True):
                converted[renamed.replace("attn.in_proj_", f"self_attn.{letter}_proj.")] = chunk.contiguous()
        else:
            converted[renamed] = tensor.t().contiguous() if "_projection." in renamed else tensor
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
        ValueError: If a tensor that determines a size is missing; it is named.

    Source:
        64 channels a head, as `build_model` in OpenAI's `clip/model.py` assumes.
    """

    def shape(name: str) -> torch.Size:
        if name not in state_dict:
            raise ValueError(f"The CLIP checkpoint has no tensor {name!r}: it is not a whole CLIP with a ViT.")
        return state_dict[name].shape

    def tower(prefix: str, hidden_size: int) -> dict[str, Any]:
        return {
            "hidden_size": hidden_size,
            "num_hidden_layers": num_blocks(state_dict, rf"{prefix}\.encoder\.layers\.(\d+)\."),
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

    The outputs are those of their model, its text readout included. Their first two layers share the first row of
    visual prompts, and the last row is unused; here each layer has the row that it uses.

    Args:
        trained (`dict[str, torch.Tensor]`):
            The `state_dict` of the authors' Lightning checkpoint (names that start with `model.`).
        clip (`dict[str, torch.Tensor]`): OpenAI's CLIP, under OpenAI's names or those of `transformers`.
        num_interaction_heads (`int`, *optional*, defaults to 8):
            The authors' `decoder_head`, which does not follow from the tensors.

    Returns:
        [`CLIPCountDensityModel`] in evaluation mode, in float32.

    Raises:
        ValueError: If tensors are missing, left over or of the wrong shape; all of them are named.

    Source:
        `models/clip_count.py` of https://github.com/songrise/CLIP-Count.
    """
    trained = {name.removeprefix("model."): tensor.float() for name, tensor in trained.items()}
    is_openai = not any(name.startswith(("text_model.", "vision_model.")) for name in clip)
    originals, clip = clip, convert_openai_clip(clip) if is_openai else clip
    sizes = clip_sizes(clip)
    config = _authors_config(trained, sizes, num_interaction_heads)
    model = CLIPCountDensityModel(config)
    unread = trained.keys() - {*UNUSED_TENSORS}
    if config.interaction == "hierarchical":
        unread -= {*UNUSED_HIERARCHICAL_TENSORS}
    frozen = {name for name in unread if name.startswith(tuple(_FROZEN_PREFIXES))}
    problems = list(_frozen_problems({name: trained[name] for name in sorted(frozen)}, openai_tensors(originals)))
    missing, misshapen, state_dict = [], [], {}
    for name, parameter in model.state_dict().items():
        if name.startswith(_CLIP_PREFIXES):
            theirs, tensor = openai_name(name) if is_openai else name, clip.get(name)
        else:
            theirs = _authors_name(name)
            tensor = trained.get(theirs)
            unread.discard(theirs)
            if tensor is not None and theirs == "img_encoder.visual_prompt":
                tensor = torch.cat([tensor[:1], tensor[:-1]])
            elif tensor is not None and "selfattn.qkv" in theirs:
                tensor = tensor.chunk(3)["qkv".index(name.split(".")[-2][0])]
        label = "" if name == theirs else f" (theirs: {theirs})"
        if tensor is None:
            missing.append(f"missing: {name}{label}")
        elif tensor.shape != parameter.shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(parameter.shape)}"
            misshapen.append(f"wrong shape: {name} is {shapes}{label}")
        else:
            state_dict[name] = tensor.float().contiguous()
    left_over = {name for name in clip if name.startswith(_CLIP_PREFIXES) and not name.endswith("position_ids")}
    left_over = (left_over - model.state_dict().keys()) | (unread - frozen)
    problems += [f"left over: {name}" for name in sorted(left_over)] + missing + misshapen
    if problems:
        raise ValueError("The checkpoint does not fit CLIP-Count:\n  " + "\n  ".join(problems))
    model.load_state_dict(state_dict)
    return model.eval()


def _frozen_problems(frozen: dict[str, torch.Tensor], clip: dict[str, torch.Tensor]) -> Iterator[str]:
    """Differences between the checkpoint's copy of the frozen CLIP and the CLIP."""
    for name, tensor in frozen.items():
        prefix = next(prefix for prefix in _FROZEN_PREFIXES if name.startswith(prefix))
        original = clip.get(_FROZEN_PREFIXES[prefix] + name.removeprefix(prefix))
        if original is None:
            yield f"left over: {name}"
        # Either may have been rounded to half precision.
        elif original.shape != tensor.shape or not torch.allclose(original.float(), tensor, rtol=1e-2, atol=1e-3):
            yield f"not the CLIP that the checkpoint was trained on: {name} differs"


def _authors_config(
    trained: dict[str, torch.Tensor], sizes: dict[str, Any], num_interaction_heads: int
) -> CLIPCountDensityConfig:
    """Work out the options of the authors' model from its tensors."""
    num_layers = num_blocks(trained, r"fim_blocks\.(\d+)\.")
    hierarchical = "fim_blocks.1.conv0.weight" in trained
    projection_dim, vision = sizes["projection_dim"], sizes["vision_config"]
    options: dict[str, Any] = {
        "window_size": 384,
        "text_readout": "authors",
        "contrast_empty_windows": True,
        "interaction": "hierarchical" if hierarchical else "plain" if num_layers else "add",
        "num_interaction_layers": num_layers,
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
            f"CLIP, {_backbone(vision)}, has {num_patches}. Pass the CLIP that the checkpoint was trained on."
        )
    try:
        return CLIPCountDensityConfig(**sizes, **options)
    except StrictDataclassError as error:
        raise ValueError(f"The checkpoint's sizes do not fit together. {error}") from error


def _authors_name(name: str) -> str:
    """The authors' name of a tensor."""
    if match := re.fullmatch(r"interaction\.(patch_layers|text_layers)\.(\d+)\.(.+)\.(weight|bias)", name):
        return f"fim_blocks.{match[2]}.{_BLOCK_MODULES[f'{match[1]}.{match[3]}']}.{match[4]}"
    ours = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
    return name if ours is None else _PREFIXES[ours] + name.removeprefix(ours)


def _backbone(vision: dict[str, Any]) -> str:
    """The name under which OpenAI published a vision tower, or its sizes."""
    sizes = (vision["hidden_size"], vision["patch_size"], vision["image_size"])
    for name, *known in BACKBONES.values():
        if tuple(known) == sizes:
            return name
    return f"a ViT of width {sizes[0]} with patches of {sizes[1]} px in images of {sizes[2]} px"


def read_clip(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Read a CLIP: OpenAI's jit archive, a plain state dict, or a folder of `transformers`.

    Args:
        path (`str` or `Path`): The file or folder.

    Returns:
        `dict[str, torch.Tensor]`: Its tensors, under OpenAI's names or those of `transformers`.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If it is not a CLIP like OpenAI's.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no CLIP checkpoint at {path}.")
    if path.is_dir():
        return _read_clip_folder(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            is_jit = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if is_jit:
            with warnings.catch_warnings():
                # OpenAI distributes CLIP in a format that torch has deprecated.
                warnings.simplefilter("ignore", DeprecationWarning)
                try:
                    return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
                except RuntimeError as error:
                    raise ValueError(f"{path} cannot be read; it may be damaged. {error}") from error
    loaded = _load_weights(path)
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError(f"Expected a CLIP in {path}: a jit archive or a state dict, but the file has other contents.")
    return dict(tensors)


def _read_clip_folder(path: Path) -> dict[str, torch.Tensor]:
    found, _ = CLIPConfig.get_config_dict(path)
    if found.get("model_type") != "clip":
        raise ValueError(f"Expected a CLIP in {path}, but its model type is {found.get('model_type')!r}.")
    model, loading = CLIPModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    if loading["missing_keys"]:
        raise ValueError(f"The CLIP in {path} lacks {', '.join(sorted(loading['missing_keys']))}.")
    for config in (model.config.text_config, model.config.vision_config):
        # These three do not follow from the tensors, and the authors' code is written for OpenAI's.
        expected = ("quick_gelu", max(1, config.hidden_size // 64), 1e-5)
        found_values = (config.hidden_act, config.num_attention_heads, config.layer_norm_eps)
        if found_values != expected:
            raise ValueError(
                f"The CLIP in {path} is not built like OpenAI's: activation, heads and epsilon of a tower are "
                f"{found_values} instead of {expected}, so CLIP-Count was not trained on it."
            )
    return dict(model.state_dict())


def _load_weights(path: Path, allowed: tuple[Any, ...] = ()) -> Any:
    """Unpickle tensors, plain values and classes in `allowed`, and nothing else."""
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} contains {found[1] if found else 'an object'}, not a tensor or plain option, or is damaged. "
            "It was not loaded, because such objects could run code."
        ) from error
    except _READ_ERRORS as error:
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
        ValueError: If the file is not a Lightning checkpoint, or has objects other than tensors, plain values and
            option namespaces.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    checkpoint = _load_weights(path, _OPTION_CLASSES)
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
    A converted model, its processor, and the largest differences between its outputs and the authors' (density: times
    60).
    """

    model: CLIPCountDensityModel
    processor: CLIPCountDensityProcessor
    differences: dict[str, float]

    def summary(self) -> list[tuple[str, str]]:
        """Describe the model: pairs of a name and a text."""
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
    Convert the authors' checkpoint, compare the result with what their model computes, and save it.

    Args:
        clip (`str` or `Path`): OpenAI's CLIP: a jit archive, a state dict or a folder of `transformers`.
        checkpoint (`str` or `Path`): The authors' Lightning checkpoint.
        output (`str` or `Path`): The folder to save model and processor in.
        tokenizer (`str` or `Path`, *optional*):
            CLIP's tokenizer: a folder or a name on the Hub. By default the one in `clip`, where that is a folder with
            a tokenizer, and otherwise OpenAI's from the Hub.

    Returns:
        [`ClipCountConversion`].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is not a checkpoint of this type, or the two do not fit together.
        ConversionError: If the outputs differ; nothing is saved then.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise ValueError(f"Expected a folder to save in, but {output} is a file.")
    if output.resolve() == Path(clip).resolve():
        raise ValueError(f"Saving in {output} would overwrite the CLIP. Choose another folder.")
    clip_tensors = read_clip(clip)
    trained, options = read_clip_count(checkpoint)
    num_heads = options.get("decoder_head", 8)
    model = convert_clip_count(trained, clip_tensors, num_heads)
    found, known = _backbone(model.config.vision_config.to_dict()), BACKBONES.get(options.get("backbone", ""))
    if known is not None and found != known[0]:
        raise ValueError(f"The checkpoint was trained on {known[0]}, but {clip} is {found}.")
    if tokenizer is None:
        has_tokenizer = any(
            all(Path(clip, name).is_file() for name in names)
            for names in (["tokenizer.json"], ["vocab.json", "merges.txt"])
        )
        tokenizer = Path(clip) if has_tokenizer else DEFAULT_TOKENIZER
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


def _load_tokenizer(source: str | Path, vocab_size: int) -> CLIPTokenizer:
    remedy = "Pass a folder with CLIP's tokenizer (vocab.json and merges.txt, or tokenizer.json): --tokenizer FOLDER."
    try:
        tokenizer = CLIPTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"The tokenizer {str(source)!r} cannot be loaded: {error}\n{remedy}") from error
    # If the files are missing, transformers 5 returns a tokenizer of two tokens instead of an error.
    if len(tokenizer) != vocab_size or tokenizer.eos_token_id != vocab_size - 1:
        raise ValueError(
            f"The CLIP has {vocab_size} tokens, the last for the end of a text, but the tokenizer {str(source)!r} has "
            f"{len(tokenizer)} and ends a text with number {tokenizer.eos_token_id}: it is another one, or its files "
            f"are missing (no network?). {remedy}"
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
