"""
What the CLIP-Count authors' model computes, from their own tensors under their own names.

The converter compares a converted model with this before it saves the model. It shares no code with the model, and is
written with `torch.nn.functional` alone.
"""

import math
import re
from typing import Any, NamedTuple

import torch
from torch.nn import functional


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
NUM_NORM_GROUPS = 8
# Allowed difference in float32, over the larger of one and the largest value; and over the largest value alone, so
# that two outputs that are almost zero everywhere are not equal.
TOLERANCE = 1e-4
RELATIVE_TOLERANCE = 1e-3
Tensors = dict[str, torch.Tensor]
# OpenAI's names for the modules of a CLIP, and those of `transformers`, longer names first.
OPENAI_NAMES = (
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("attn.out_proj", "self_attn.out_proj"),
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.conv1", "vision_model.embeddings.patch_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre", "vision_model.pre_layrnorm"),
    ("visual.ln_post", "vision_model.post_layernorm"),
    ("visual.proj", "visual_projection.weight"),
    ("token_embedding", "text_model.embeddings.token_embedding"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final", "text_model.final_layer_norm"),
    ("text_projection", "text_projection.weight"),
    ("logit_scale", "logit_scale"),
)


class ConversionError(RuntimeError):
    """The converted model does not compute what the authors' does."""


class ClipCountReference(NamedTuple):
    """
    Output of the authors' model: `density` `(batch_size, window_size, window_size)`, objects per pixel times 60, and
    `text_embedding` `(batch_size, projection_dim)` and `patch_embedding` `(batch_size, num_patches, projection_dim)`,
    which their contrastive loss compares, not normalised.
    """

    density: torch.Tensor
    text_embedding: torch.Tensor
    patch_embedding: torch.Tensor


@torch.no_grad()
def clip_count_reference(
    trained: Tensors, clip: Tensors, images: torch.Tensor, input_ids: torch.Tensor, num_interaction_heads: int = 8
) -> ClipCountReference:
    """
    Run the authors' model.

    Args:
        trained (`dict[str, torch.Tensor]`): The `state_dict` of their checkpoint (names that start with `model.`).
        clip (`dict[str, torch.Tensor]`): OpenAI's CLIP, under OpenAI's names.
        images (`torch.Tensor` of shape `(batch_size, 3, window_size, window_size)`):
            Windows in the range of 0 to 1; the authors' are 384 pixels a side.
        input_ids (`torch.LongTensor` of shape `(batch_size, context_length)`):
            OpenAI's tokens, padded with zeros to the text tower's full length.
        num_interaction_heads (`int`, *optional*, defaults to 8): The authors' `decoder_head`.

    Returns:
        [`ClipCountReference`] in float32.

    Source:
        `models/clip_count.py` in https://github.com/songrise/CLIP-Count at ba57fd0, its differences from the paper
        (https://huggingface.co/papers/2305.07304) included.
    """
    trained = {name.removeprefix("model."): tensor.float() for name, tensor in trained.items()}
    clip = {name: tensor.float() for name, tensor in clip.items()}
    patches = _encode_images(trained, clip, images.float())  # (B, N, D)
    text = _encode_text(trained, clip, input_ids)[:, None]  # (B, 1, P)
    contrast = _linear(trained, "patch_feat_proj_contrast", patches)
    hidden = _linear(trained, "patch_feat_proj", patches)
    positions = trained.get("patch_emb_pos_embed")
    hidden = hidden + (_sines(*hidden.shape[1:]) if positions is None else positions)
    maps = _interact(trained, hidden, text, num_interaction_heads)
    logits = functional.interpolate(_decode(trained, maps), size=images.shape[-2:], mode="bilinear")
    return ClipCountReference(logits[:, 0].sigmoid(), text[:, 0], contrast)


@torch.no_grad()
def compare_with_reference(
    model: Any,
    processor: Any,
    trained: dict[str, torch.Tensor],
    clip: dict[str, torch.Tensor],
    seed: int = 0,
) -> dict[str, float]:
    """
    Compare a converted model and its processor with the authors' model, for one random image and two prompts.

    Args:
        model ([`CLIPCountDensityModel`]): The converted model.
        processor ([`CLIPCountDensityProcessor`]): Its processor.
        trained (`dict[str, torch.Tensor]`): The `state_dict` of the authors' checkpoint.
        clip (`dict[str, torch.Tensor]`): The CLIP that it was trained on.
        seed (`int`, *optional*, defaults to 0): Seed of the image.

    Returns:
        `dict[str, float]`: The largest differences in the density (times 60), the text and the patch embeddings.

    Raises:
        ConversionError: If a difference is not finite, or larger than `TOLERANCE` allows.
    """
    config = model.config
    image = _random_image(config.window_size, seed)
    inputs = processor([image.permute(1, 2, 0).numpy()], return_tensors="pt")
    # The authors pad an image of one window by a whole stride, which makes two.
    pixel_values = inputs["pixel_values"][:1].expand(2, -1, -1, -1)
    tokens = processor.tokenize(["apples", "people in the crowd"])
    outputs = model(pixel_values=pixel_values, **tokens)

    input_ids = torch.zeros(2, config.text_config.max_position_embeddings, dtype=torch.long)
    input_ids[:, : tokens["input_ids"].shape[1]] = tokens["input_ids"] * tokens["attention_mask"]
    expected = clip_count_reference(
        trained, openai_tensors(clip), image.expand(2, -1, -1, -1) / 255, input_ids, config.num_interaction_heads
    )
    pairs = {
        "density": (outputs.density_map * config.density_scale, expected.density),
        "text embedding": (outputs.text_embeds, expected.text_embedding),
        "patch embeddings": (outputs.patch_embeds, expected.patch_embedding),
    }
    differences, failures = {}, []
    for name, (got, wanted) in pairs.items():
        difference, largest = float((got - wanted).abs().max()), float(wanted.abs().max())
        differences[name] = difference
        allowed = min(TOLERANCE * max(1.0, largest), RELATIVE_TOLERANCE * largest)
        if not (math.isfinite(difference) and difference <= allowed):
            failures.append(f"{name} by {difference:.2e} (allowed {allowed:.2e}, largest value {largest:.2e})")
    if failures:
        raise ConversionError(
            f"The converted model does not compute what the authors' does; it was not saved. They differ in "
            f"{'; '.join(failures)}."
        )
    return differences


def openai_name(name: str) -> str:
    """OpenAI's name for a tensor of a `transformers` CLIP; the three projections of an attention share one."""
    name = re.sub(r"self_attn\.[qkv]_proj\.", "attn.in_proj_", name)
    for theirs, ours in OPENAI_NAMES:
        name = name.replace(ours, theirs)
    return name


def openai_tensors(clip: Tensors) -> Tensors:
    """A CLIP of `transformers` under OpenAI's names; one that has them already is returned as it is."""
    if not any(name.startswith(("text_model.", "vision_model.")) for name in clip):
        return clip
    renamed = {}
    for name, tensor in clip.items():
        if ".self_attn.q_proj." in name:
            tensor = torch.cat([clip[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"])
        elif ".self_attn.k_proj." in name or ".self_attn.v_proj." in name:
            continue
        renamed[openai_name(name)] = tensor.t() if name.endswith("_projection.weight") else tensor
    return renamed


def _random_image(side: int, seed: int) -> torch.Tensor:
    """Coloured clouds and noise, `(3, side, side)` in uint8."""
    generator = torch.Generator().manual_seed(seed)
    clouds = torch.rand(1, 3, 8, 8, generator=generator)
    clouds = functional.interpolate(clouds, size=(side, side), mode="bicubic", align_corners=False)[0]
    noise = torch.rand(3, side, side, generator=generator)
    return (255 * (0.8 * clouds + 0.2 * noise)).round().clamp(0, 255).to(torch.uint8)


def _linear(tensors: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _norm(tensors: Tensors, name: str, x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Softmax attention of `(B, N, D)` queries to `(B, M, D)` keys, `heads` at a time."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)


def _sines(length: int, dim: int) -> torch.Tensor:
    """Position `n`: `sin(n / 10000 ** (2 i / dim))` in column `2 i`, the cosine in column `2 i + 1`."""
    columns = torch.arange(dim)
    angles = torch.arange(length)[:, None] / 10000 ** ((columns // 2 * 2) / dim)
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos())


def _clip_block(clip: Tensors, prefix: str, x: torch.Tensor, index: int, mask: torch.Tensor | None) -> torch.Tensor:
    """One residual block of OpenAI's transformer: 64 channels a head, `x * sigmoid(1.702 x)` in the MLP."""
    block = f"{prefix}transformer.resblocks.{index}."
    normed = _norm(clip, block + "ln_1", x)
    qkv = functional.linear(normed, clip[block + "attn.in_proj_weight"], clip[block + "attn.in_proj_bias"])
    query, key, value = qkv.chunk(3, dim=-1)
    attended = _attend(query, key, value, max(1, x.shape[-1] // 64), mask)
    x = x + _linear(clip, block + "attn.out_proj", attended)
    inner = _linear(clip, block + "mlp.c_fc", _norm(clip, block + "ln_2", x))
    return x + _linear(clip, block + "mlp.c_proj", inner * torch.sigmoid(1.702 * inner))


def num_blocks(tensors: Tensors, pattern: str) -> int:
    """Number of distinct first groups of a pattern among the tensors' names."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _encode_images(trained: Tensors, clip: Tensors, images: torch.Tensor) -> torch.Tensor:
    weight, positions = clip["visual.conv1.weight"], clip["visual.positional_embedding"]
    num_patches, patch_size = len(positions) - 1, weight.shape[-1]
    side = math.isqrt(num_patches) * patch_size
    x = functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    x = (x - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    x = functional.conv2d(x, weight, stride=patch_size).flatten(2).transpose(1, 2)
    x = torch.cat([clip["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1) + positions

    prompts = trained.get("img_encoder.visual_prompt")

    def with_prompts(x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        projected = _linear(trained, "img_encoder.vpt_proj", row).expand(len(x), -1, -1)
        return torch.cat([x[:, :1], projected, x[:, -num_patches:]], dim=1)

    if prompts is not None:
        x = with_prompts(x, prompts[0])
    x = _norm(clip, "visual.ln_pre", x)
    for index in range(num_blocks(clip, r"visual\.transformer\.resblocks\.(\d+)\.")):
        if prompts is not None and 1 <= index < len(prompts):
            # Row 0 is used twice, and the last row never.
            x = with_prompts(x, prompts[index - 1])
        elif prompts is not None and index == len(prompts):
            x = torch.cat([x[:, :1], x[:, -num_patches:]], dim=1)
        x = _clip_block(clip, "visual.", x, index, mask=None)
    if prompts is not None:
        x = _norm(trained, "img_encoder.vpt_norm", x, eps=1e-6)
    # Neither `ln_post` nor `visual.proj` is used.
    return x[:, -num_patches:]


def _encode_text(trained: Tensors, clip: Tensors, input_ids: torch.Tensor) -> torch.Tensor:
    length = input_ids.shape[1]
    x = clip["token_embedding.weight"][input_ids]
    context = trained.get("text_encoder.learnable_context")
    if context is not None:
        x = torch.cat([x[:, :1], context.expand(len(x), -1, -1), x[:, 1:]], dim=1)[:, :length]
    x = x + clip["positional_embedding"][:length]
    mask = torch.full((length, length), -math.inf).triu(1)
    for index in range(num_blocks(clip, r"transformer\.resblocks\.(\d+)\.")):
        x = _clip_block(clip, "", x, index, mask)
    x = _norm(clip, "ln_final", x)
    # The end-of-text token has the highest number. The text is read at its position before the context moved it.
    return x[torch.arange(len(x)), input_ids.argmax(dim=-1)] @ clip["text_projection"]


def _interact(trained: Tensors, x: torch.Tensor, text: torch.Tensor, heads: int) -> list[torch.Tensor]:
    """The maps `(B, P, h, w)` that the decoder reads: one, or with the hierarchical interaction two."""
    num_layers = num_blocks(trained, r"fim_blocks\.(\d+)\.")
    hierarchical = "fim_blocks.1.conv0.weight" in trained
    side = math.isqrt(x.shape[1])
    maps = []
    if not num_layers:
        x = x + text
    for index in range(num_layers):
        block = f"fim_blocks.{index}."
        if hierarchical and index == 1:
            fine = x.transpose(1, 2).unflatten(2, (side, side))
            weight, bias = trained[block + "conv0.weight"], trained[block + "conv0.bias"]
            fine = fine + functional.gelu(functional.conv2d(fine, weight, bias, padding=1))
            x = functional.interpolate(fine, scale_factor=2, mode="bilinear").flatten(2).transpose(1, 2)
            side *= 2
        qkv = _linear(trained, block + "selfattn.qkv", _norm(trained, block + "norm0", x))
        query, key, value = qkv.chunk(3, dim=-1)
        x = x + _linear(trained, block + "selfattn.proj", _attend(query, key, value, heads))
        query = _linear(trained, block + "attn.wq", _norm(trained, block + "norm1", x))
        key, value = (_linear(trained, block + f"attn.w{letter}", text) for letter in "kv")
        x = x + _linear(trained, block + "attn.proj", _attend(query, key, value, heads))
        inner = functional.gelu(_linear(trained, block + "mlp.fc1", _norm(trained, block + "norm2", x)))
        x = x + _linear(trained, block + "mlp.fc2", inner)
        if hierarchical:
            maps.append(x.transpose(1, 2).unflatten(2, (side, side)))
    if not hierarchical:
        maps.append(_norm(trained, "decoder_norm", x).transpose(1, 2).unflatten(2, (side, side)))
    return maps


def _decode(trained: Tensors, maps: list[torch.Tensor]) -> torch.Tensor:
    """From the interaction's maps to the logits of the density, `(B, 1, h, w)`, before they are resized."""

    def stage(x: torch.Tensor, conv: str, norm: str) -> torch.Tensor:
        weight, bias = trained[f"density_decoder.{conv}.weight"], trained[f"density_decoder.{conv}.bias"]
        x = functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        scale, shift = trained[f"density_decoder.{norm}.weight"], trained[f"density_decoder.{norm}.bias"]
        return functional.gelu(functional.group_norm(x, NUM_NORM_GROUPS, scale, shift))

    x = maps[0]
    for level in range(num_blocks(trained, r"density_decoder\.convs\.(\d+)\.")):
        if level:
            x = functional.interpolate(x, scale_factor=2, mode="bilinear")
        if level == 1 and len(maps) == 2:
            x = x + stage(maps[1], "pyradim_conv.0", "pyradim_conv.1")
        x = stage(x, f"convs.{level}.0", f"convs.{level}.1")
    weight, bias = trained["density_decoder.final_conv.0.weight"], trained["density_decoder.final_conv.0.bias"]
    return functional.conv2d(x, weight, bias)


__all__ = [
    "OPENAI_NAMES",
    "ClipCountReference",
    "ConversionError",
    "clip_count_reference",
    "compare_with_reference",
    "num_blocks",
    "openai_name",
    "openai_tensors",
]
