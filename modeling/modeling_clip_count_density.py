"""CLIP-Count: text-prompted density maps, after https://huggingface.co/papers/2305.07304."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPEncoder, eager_attention_forward
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_clip_count_density import CLIPCountDensityConfig


# Maps of a window that are decoded at once, which bounds the memory.
PROMPTS_AT_ONCE = 8


@dataclass
class CLIPCountDensityOutput(ModelOutput):
    """
    Output of a [`CLIPCountDensityModel`]. With several prompts a window, `num_prompts` follows `batch_size` in the
    shapes of `density_map`, `counts`, `text_embeds` and `similarity_map`.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*, returned with `labels`):
            Sum of the losses below, each times its weight in the configuration.
        contrastive_loss (`torch.Tensor` of shape `()`, *optional*, returned with `labels`):
            Patch-text contrastive loss, in nats.
        region_loss (`torch.Tensor` of shape `()`, *optional*, returned with `labels` if its weight is not 0):
            Region-text contrastive loss, in nats.
        density_loss (`torch.Tensor` of shape `()`, *optional*, returned with `labels`):
            Mean squared error of the density times `density_scale`.
        count_loss (`torch.Tensor` of shape `()`, *optional*, returned with `labels`):
            Mean absolute error of the windows' counts, in objects.
        density_map (`torch.FloatTensor` of shape `(batch_size, height, width)`):
            Objects per pixel of the window, summing to the count.
        counts (`torch.FloatTensor` of shape `(batch_size,)`): Objects in the window.
        text_embeds (`torch.FloatTensor` of shape `(batch_size, projection_dim)`): Text embeddings, not normalised.
        patch_embeds (`torch.FloatTensor` of shape `(batch_size, num_patches, projection_dim)`):
            Patch embeddings that the contrastive loss compares with the text, not normalised.
        similarity_map (`torch.FloatTensor` of shape `(batch_size, patch_rows, patch_columns)`):
            Cosine similarity of the text with each patch.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, returned with `output_hidden_states=True`):
            Input of the first vision layer and output of each, of shape
            `(batch_size, 1 + num_visual_prompts + num_patches, hidden_size)`, or less where a layer has no prompts.
        attentions (`tuple(torch.FloatTensor)`, *optional*, returned with `output_attentions=True`):
            Attention weights of each vision layer, `(batch_size, num_heads, sequence_length, sequence_length)`;
            requires `attn_implementation="eager"`.
        text_hidden_states, text_attentions (`tuple(torch.FloatTensor)`, *optional*):
            The same for the text tower, of shape `(batch_size * num_prompts, sequence_length, hidden_size)` with the
            context in the sequence; not returned with `text_embeds`.
    """

    loss: torch.Tensor | None = None
    contrastive_loss: torch.Tensor | None = None
    region_loss: torch.Tensor | None = None
    density_loss: torch.Tensor | None = None
    count_loss: torch.Tensor | None = None
    density_map: torch.Tensor | None = None
    counts: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    patch_embeds: torch.Tensor | None = None
    similarity_map: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    text_hidden_states: tuple[torch.Tensor, ...] | None = None
    text_attentions: tuple[torch.Tensor, ...] | None = None


def patch_text_contrastive_loss(
    similarity_map: torch.Tensor, density_map: torch.Tensor, temperature: float = 0.07, count_empty: bool = True
) -> torch.Tensor:
    """
    Attract the patches with objects to the text, and repel the others.

    Args:
        similarity_map (`torch.Tensor` of shape `(batch_size, patch_rows, patch_columns)`):
            Cosine similarity of each patch with the text.
        density_map (`torch.Tensor` of shape `(batch_size, height, width)`):
            Target density; a patch is positive if the density is not zero somewhere in it.
        temperature (`float`, *optional*, defaults to 0.07): Divisor of the similarities.
        count_empty (`bool`, *optional*, defaults to `True`):
            Whether windows without a positive patch are included, as by the authors, or have a loss of 0.

    Returns:
        `torch.Tensor` of shape `()`: Mean negative logarithm of the positive patches' share, in nats.

    Source:
        Jiang et al., 2023, eq. 2, with the epsilons of the authors' `models/contrastive_loss.py`, which keep windows
        without a positive or a negative patch finite.
    """
    positive = nn.functional.adaptive_max_pool2d(density_map[:, None].float(), similarity_map.shape[-2:])[:, 0] > 0
    logits = similarity_map.float() / temperature  # (B, h, w)
    # Numerator and denominator share a factor that keeps the exponentials of a low temperature in range.
    highest = logits.detach().amax(dim=(1, 2), keepdim=True).clamp(min=0)
    weights, epsilon = (logits - highest).exp(), 1e-5 * (-highest[:, 0, 0]).exp()
    positive_sum = (weights * positive).sum(dim=(1, 2)) + epsilon
    negative_sum = (weights * ~positive).sum(dim=(1, 2)) + epsilon
    losses = -(positive_sum / (positive_sum + negative_sum)).log()
    if not count_empty:
        losses = losses * positive.any(dim=2).any(dim=1)
    return losses.mean()


def region_text_contrastive_loss(
    patch_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    patch_counts: torch.Tensor,
    same_text: torch.Tensor,
    temperature: float = 0.07,
) -> torch.Tensor:
    """
    Attract the patches with objects to the text of their class, and repel the other texts of the batch.

    The patch-text loss compares the patches of one window, and is small if objects differ from the background,
    whatever the text. This one compares texts, in each process those of its batch.

    Args:
        patch_embeds (`torch.Tensor` of shape `(batch_size, num_patches, projection_dim)`):
            Patch embeddings, normalised or not.
        text_embeds (`torch.Tensor` of shape `(batch_size, num_prompts, projection_dim)`):
            The prompts of each window, normalised or not.
        patch_counts (`torch.Tensor` of shape `(batch_size, num_prompts, num_patches)`):
            Objects of each prompt in each patch, in any unit: the weights of the patches' directions.
        same_text (`torch.Tensor` of shape `(batch_size * num_prompts, batch_size * num_prompts)`):
            Which prompts of the batch are equal and therefore not compared.
        temperature (`float`, *optional*, defaults to 0.07): Divisor of the similarities.

    Returns:
        `torch.Tensor` of shape `()`: Mean cross-entropy of all prompts, in nats; 0 for those without objects.
    """
    patch_directions = nn.functional.normalize(patch_embeds.float(), dim=-1)
    text_directions = nn.functional.normalize(text_embeds.float(), dim=-1).flatten(0, 1)  # (B * T, P)
    regions = nn.functional.normalize(patch_counts @ patch_directions, dim=-1).flatten(0, 1)  # (B * T, P)
    logits = regions @ text_directions.T / temperature
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(same_text & ~own, torch.finfo(logits.dtype).min)
    losses = nn.functional.cross_entropy(logits, own.int().argmax(dim=1), reduction="none")
    return (losses * (patch_counts.flatten(0, 1).sum(dim=1) > 0)).mean()


def sinusoidal_positions(length: int, dim: int, device: torch.device | None = None) -> torch.Tensor:
    """
    Position encodings `(length, dim)`: sines in the even columns, cosines in the odd ones.

    Source:
        Vaswani et al., 2017, Sec. 3.5 (https://huggingface.co/papers/1706.03762).
    """
    frequencies = torch.exp(torch.arange(0, dim, 2, device=device).float() * -(math.log(10000.0) / dim))
    angles = torch.arange(length, device=device).float()[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class CLIPCountDensityVisualPrompts(nn.Module):
    """
    Learned tokens between the class token and the patches (VPT, https://huggingface.co/papers/2203.12119).

    Row `i` of `prompt_embeds` belongs to vision layer `i`; the first row enters before the tower's first norm.
    """

    def __init__(self, config: CLIPCountDensityConfig):
        super().__init__()
        hidden_size = config.vision_config.hidden_size
        self.patch_size = config.vision_config.patch_size
        self.depth = config.visual_prompt_depth
        self.num_prompts = config.num_visual_prompts
        self.prompt_embeds = nn.Parameter(torch.empty(self.depth, self.num_prompts, hidden_size))
        self.projection = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(config.visual_prompt_dropout)
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)

    def forward(self, hidden_states: torch.Tensor, layer_index: int) -> torch.Tensor:
        """Replace the prompts in `(B, N, D)` hidden states by those of a layer, or remove them after the last."""
        if layer_index > 0:
            hidden_states = self.remove(hidden_states)
        # An exporter records `len` as a constant.
        prompts = self.projection(self.prompt_embeds[layer_index]).expand(hidden_states.shape[0], -1, -1)
        prompts = self.dropout(prompts).to(hidden_states.dtype)
        return torch.cat([hidden_states[:, :1], prompts, hidden_states[:, 1:]], dim=1)

    def remove(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Remove the prompts from `hidden_states`."""
        return torch.cat([hidden_states[:, :1], hidden_states[:, 1 + self.num_prompts :]], dim=1)


class CLIPCountDensityVisionEncoder(CLIPEncoder):
    """A [`CLIPEncoder`] with visual prompts in its first layers."""

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        visual_prompts: CLIPCountDensityVisualPrompts | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Run all layers; `inputs_embeds` include the prompts of the first layer, the output has none."""
        hidden_states = inputs_embeds
        depth = 0 if visual_prompts is None else visual_prompts.depth
        # With a depth of 1, the prompts of the first layer stay to the end.
        last_with_prompts = len(self.layers) if depth == 1 else depth
        for i, layer in enumerate(self.layers):
            if visual_prompts is not None and 0 < i < depth:
                hidden_states = visual_prompts(hidden_states, i)
            elif visual_prompts is not None and i == last_with_prompts:
                hidden_states = visual_prompts.remove(hidden_states)
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        if visual_prompts is not None and last_with_prompts == len(self.layers):
            hidden_states = visual_prompts.remove(hidden_states)
        return BaseModelOutput(last_hidden_state=hidden_states)


class CLIPCountDensityTowerMixin:
    """CLIP's own initialisation, for towers that are not in transformers."""

    def _initialize_weights(self, module: nn.Module, *args: Any) -> None:
        # With the second argument, modules without own parameters are skipped in classes outside transformers (5.23),
        # but CLIP initialises the projections of its attention and of its MLP through these.
        super()._initialize_weights(module)  # type: ignore[misc]  # a mixin of `PreTrainedModel`


class CLIPCountDensityVisionModel(CLIPCountDensityTowerMixin, CLIPVisionModel):
    """A [`CLIPVisionModel`] with visual prompts; its parameters have the same names."""

    def __init__(self, config: CLIPVisionConfig):
        super().__init__(config)
        self.encoder = CLIPCountDensityVisionEncoder(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        visual_prompts: CLIPCountDensityVisualPrompts | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode images; the last hidden state is normed by the prompts' norm, without prompts not at all."""
        hidden_states = self.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        if visual_prompts is not None:
            hidden_states = visual_prompts(hidden_states, 0)
        hidden_states = self.pre_layrnorm(hidden_states)
        outputs = self.encoder(inputs_embeds=hidden_states, visual_prompts=visual_prompts, **kwargs)
        if visual_prompts is not None:
            outputs.last_hidden_state = visual_prompts.norm(outputs.last_hidden_state)
        return outputs


class CLIPCountDensityContextPrompts(nn.Module):
    """Learned context vectors after the start token (CoOp, https://huggingface.co/papers/2109.01134)."""

    def __init__(self, config: CLIPCountDensityConfig):
        super().__init__()
        self.context_embeds = nn.Parameter(torch.empty(config.num_context_tokens, config.text_config.hidden_size))

    def forward(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """Insert the context into `(batch_size, sequence_length, hidden_size)` token embeddings."""
        context = self.context_embeds.to(inputs_embeds.dtype).expand(inputs_embeds.shape[0], -1, -1)
        return torch.cat([inputs_embeds[:, :1], context, inputs_embeds[:, 1:]], dim=1)


class CLIPCountDensityTextModel(CLIPCountDensityTowerMixin, CLIPTextModel):
    """A [`CLIPTextModel`] with context prompts; its parameters have the same names."""

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        context_prompts: CLIPCountDensityContextPrompts | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode prompts; the pooled output is that of the end-of-text token."""
        hidden_states = self.embeddings.token_embedding(input_ids)
        end_positions = end_of_text(input_ids, self.config.eos_token_id)
        if context_prompts is not None:
            num_context = context_prompts.context_embeds.shape[0]
            max_length = self.config.max_position_embeddings
            end_positions = end_positions + num_context
            # Only padding may be removed at the end.
            if input_ids.shape[1] + num_context > max_length and end_positions.max() >= max_length:
                raise ValueError(
                    f"A prompt has {int(end_positions.max()) + 1 - num_context} tokens, but with {num_context} "
                    f"context tokens at most {max_length - num_context} fit. Shorten the prompt."
                )
            hidden_states = context_prompts(hidden_states)[:, :max_length]
            if attention_mask is not None:
                attention_mask = nn.functional.pad(attention_mask, (num_context, 0), value=1)[:, :max_length]
        hidden_states = self.embeddings(inputs_embeds=hidden_states, position_ids=position_ids)
        # The cache, by position: its name changes in transformers 5.24.
        attention_mask = create_causal_mask(self.config, hidden_states, attention_mask, None)
        kwargs["is_causal"] = True
        outputs = self.encoder(inputs_embeds=hidden_states, attention_mask=attention_mask, **kwargs)
        hidden_states = self.final_layer_norm(outputs.last_hidden_state)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=_at_positions(hidden_states, end_positions)
        )


class CLIPCountDensityAttention(nn.Module):
    """Multi-head attention of the patches to one another, or to the text."""

    def __init__(self, config: CLIPCountDensityConfig):
        super().__init__()
        self.config = config
        dim = config.projection_dim
        self.head_dim = dim // config.num_interaction_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.interaction_dropout)

    def forward(self, hidden_states: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Attend from `(B, N, P)` hidden states to `(B, M, P)` context, or to themselves."""
        context = hidden_states if context is None else context
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for states in (self.q_proj(hidden_states), self.k_proj(context), self.v_proj(context))
        )  # (B, heads, N or M, head_dim)
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended = attention_interface(self, query, key, value, None, scaling=self.scaling, dropout=0.0)[0]
        return self.dropout(self.out_proj(attended.flatten(2)))


class CLIPCountDensityDropPath(nn.Module):
    """Leave out a whole residual branch for some samples of the batch (https://huggingface.co/papers/1603.09382)."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Zero samples of `(B, N, P)` hidden states at random in training, and scale the others up."""
        if not self.training or self.probability == 0:
            return hidden_states
        keep = hidden_states.new_empty(len(hidden_states), 1, 1).bernoulli_(1 - self.probability)
        return hidden_states * keep / (1 - self.probability)


class CLIPCountDensityPatchLayer(GradientCheckpointingLayer):
    """First half of an interaction block: the patches, optionally at twice the resolution, attend to one another."""

    def __init__(self, config: CLIPCountDensityConfig, upsample: bool = False):
        super().__init__()
        dim = config.projection_dim
        self.conv = nn.Conv2d(dim, dim, kernel_size=3, padding=1) if upsample else None
        self.norm = nn.LayerNorm(dim)
        self.attention = CLIPCountDensityAttention(config)
        self.drop_path = CLIPCountDensityDropPath(config.interaction_dropout)

    def forward(self, hidden_states: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Map `(B, h * w, P)` to itself, or to `(B, 4 * h * w, P)`; `grid` is `(h, w)`, that of the input."""
        if self.conv is not None:
            features = _to_map(hidden_states, grid)
            features = features + nn.functional.gelu(self.conv(features))
            features = nn.functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
            hidden_states = features.flatten(2).transpose(1, 2)
        return hidden_states + self.drop_path(self.attention(self.norm(hidden_states)))


class CLIPCountDensityTextLayer(GradientCheckpointingLayer):
    """Second half of an interaction block: the patches attend to the text, then an MLP."""

    def __init__(self, config: CLIPCountDensityConfig):
        super().__init__()
        dim = config.projection_dim
        intermediate_size = int(dim * config.interaction_mlp_ratio)
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = CLIPCountDensityAttention(config)
        self.attention_drop_path = CLIPCountDensityDropPath(config.interaction_dropout)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, intermediate_size),
            nn.GELU(),
            nn.Dropout(config.interaction_dropout),
            nn.Linear(intermediate_size, dim),
            nn.Dropout(config.interaction_dropout),
        )
        self.mlp_drop_path = CLIPCountDensityDropPath(config.interaction_dropout)

    def forward(self, hidden_states: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        """Map `(B, N, P)` patches to themselves, given `(B, 1, P)` text."""
        attended = self.attention(self.attention_norm(hidden_states), text_embeds)
        hidden_states = hidden_states + self.attention_drop_path(attended)
        return hidden_states + self.mlp_drop_path(self.mlp(self.mlp_norm(hidden_states)))


class CLIPCountDensityInteraction(nn.Module):
    """The patch-text interaction; its output is one map, or two, the second at twice the resolution."""

    def __init__(self, config: CLIPCountDensityConfig):
        super().__init__()
        self.interaction_type = config.interaction
        num_layers = {"hierarchical": 2, "plain": config.num_interaction_layers, "add": 0}[self.interaction_type]
        upsampled = 1 if self.interaction_type == "hierarchical" else None
        self.patch_layers = nn.ModuleList(
            CLIPCountDensityPatchLayer(config, upsample=i == upsampled) for i in range(num_layers)
        )
        self.text_layers = nn.ModuleList(CLIPCountDensityTextLayer(config) for _ in range(num_layers))
        # The hierarchical decoder reads the two blocks directly, without a norm.
        self.norm = None if self.interaction_type == "hierarchical" else nn.LayerNorm(config.projection_dim)

    def forward(
        self, hidden_states: torch.Tensor, text_embeds: torch.Tensor, grid: tuple[int, int]
    ) -> list[torch.Tensor]:
        """
        Combine patches and text.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, num_patches, projection_dim)`):
                Patches with their position encodings.
            text_embeds (`torch.Tensor` of shape `(batch_size, num_prompts, projection_dim)`):
                The prompts of each window.
            grid (`tuple[int, int]`): Rows and columns of patches.

        Returns:
            `list[torch.Tensor]`: Maps of shape `(batch_size * num_prompts, projection_dim, rows, columns)`.
        """
        if len(self.patch_layers):
            # The first layer does not depend on the text: all prompts share it.
            hidden_states = self.patch_layers[0](hidden_states, grid)
        num_prompts = text_embeds.shape[1]
        hidden_states = hidden_states[:, None].expand(-1, num_prompts, -1, -1).flatten(0, 1)  # (B * T, N, P)
        text_embeds = text_embeds.flatten(0, 1)[:, None]  # (B * T, 1, P)
        if self.interaction_type == "add":
            hidden_states = hidden_states + text_embeds
        maps = []
        for i, text_layer in enumerate(self.text_layers):
            if i > 0:
                hidden_states = self.patch_layers[i](hidden_states, grid)
                if self.patch_layers[i].conv is not None:
                    grid = (2 * grid[0], 2 * grid[1])
            hidden_states = text_layer(hidden_states, text_embeds)
            if self.interaction_type == "hierarchical":
                maps.append(_to_map(hidden_states, grid))
        if self.norm is not None:
            maps.append(_to_map(self.norm(hidden_states), grid))
        return maps


class CLIPCountDensityDecoder(nn.Module):
    """Convolutions from the patches' maps to one number a pixel."""

    def __init__(self, config: CLIPCountDensityConfig):
        super().__init__()
        dim, groups = config.projection_dim, config.num_norm_groups
        widths = [dim // 2**level for level in range(config.num_decoder_levels + 1)]
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, narrow, kernel_size=3, padding=1), nn.GroupNorm(groups, narrow), nn.GELU())
            for wide, narrow in pairwise(widths)
        )
        self.fine_projection = None
        if config.interaction == "hierarchical":
            self.fine_projection = nn.Sequential(
                nn.Conv2d(dim, dim // 2, kernel_size=1), nn.GroupNorm(groups, dim // 2), nn.GELU()
            )
        self.density_projection = nn.Conv2d(widths[-1], 1, kernel_size=1)

    def forward(self, maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Turn the interaction's maps into `(B, height, width)` logits of the scaled density."""
        features = maps[0]
        for i, level in enumerate(self.levels):
            if i == 1 and self.fine_projection is not None:
                features = features + self.fine_projection(maps[1])
            features = level(features)
            if i < len(self.levels) - 1:
                features = nn.functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
        # A 1x1 convolution and an interpolation commute, and one channel is faster to interpolate.
        features = self.density_projection(features)
        return nn.functional.interpolate(features, size=size, mode="bilinear", align_corners=False)[:, 0]


class CLIPCountDensityPreTrainedModel(PreTrainedModel):
    """Base class: weight initialisation and the attributes that `transformers` reads."""

    config: CLIPCountDensityConfig
    config_class = CLIPCountDensityConfig
    base_model_prefix = "clip_count_density"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["CLIPEncoderLayer", "CLIPCountDensityPatchLayer", "CLIPCountDensityTextLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, CLIPCountDensityVisualPrompts):
            # VPT's rule: the range of a Xavier-uniform patch embedding.
            bound = math.sqrt(6.0 / (3 * module.patch_size**2 + module.prompt_embeds.shape[-1]))
            init.uniform_(module.prompt_embeds, -bound, bound)
        elif isinstance(module, CLIPCountDensityContextPrompts):
            init.normal_(module.context_embeds, std=0.02)


class CLIPCountDensityModel(CLIPCountDensityPreTrainedModel):
    """
    A CLIP with prompts in both towers, an interaction of patches and text, and a decoder that predicts a density map
    of the objects that the text names.

    Args:
        config ([`CLIPCountDensityConfig`]): The configuration.

    Example:

    ```python
    >>> import count_clip
    >>> from transformers import AutoModel, AutoProcessor

    >>> model = AutoModel.from_pretrained("org/clip-count").eval()
    >>> processor = AutoProcessor.from_pretrained("org/clip-count")
    >>> inputs = processor(images=image, text="red apples")
    >>> outputs = model(**inputs)
    >>> result = processor.post_process_density(outputs, inputs["window_positions"], inputs["image_sizes"])[0]
    >>> result["count"], result["density_map"].shape
    ```

    Source:
        Jiang et al., 2023 (https://huggingface.co/papers/2305.07304).
    """

    def __init__(self, config: CLIPCountDensityConfig):
        super().__init__(config)
        vision_dim, dim = config.vision_config.hidden_size, config.projection_dim
        self.text_model = CLIPCountDensityTextModel._from_config(config.text_config)
        self.vision_model = CLIPCountDensityVisionModel._from_config(config.vision_config)
        self.text_projection = nn.Linear(config.text_config.hidden_size, dim, bias=False)
        self.visual_prompts = CLIPCountDensityVisualPrompts(config) if config.num_visual_prompts else None
        self.context_prompts = CLIPCountDensityContextPrompts(config) if config.num_context_tokens else None
        self.patch_projection = nn.Linear(vision_dim, dim)
        self.contrastive_patch_projection = nn.Linear(vision_dim, dim)
        self.interaction = CLIPCountDensityInteraction(config)
        self.decoder = CLIPCountDensityDecoder(config)
        self.post_init()

    @classmethod
    def from_clip(cls, pretrained_model_name_or_path: str, **kwargs: Any) -> "CLIPCountDensityModel":
        """
        Create a density model with the towers of a CLIP, and new prompts, interaction and decoder.

        Args:
            pretrained_model_name_or_path (`str`): A `clip` or `count_clip` checkpoint: a folder or a name on the Hub.
            kwargs:
                Fields of [`CLIPCountDensityConfig`] (`interaction="plain"`, `num_visual_prompts=10`, ...), and
                arguments of `from_pretrained` for finding the checkpoint (`revision`, `cache_dir`, `token`,
                `local_files_only`, `subfolder`) or loading it (`dtype`, `attn_implementation`).

        Returns:
            [`CLIPCountDensityModel`] in evaluation mode.

        Raises:
            ValueError: If the checkpoint is not that of a CLIP.
        """
        hub_names = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")
        hub_kwargs = {name: kwargs.pop(name) for name in hub_names if name in kwargs}
        attn_implementation = kwargs.pop("attn_implementation", None)
        dtype = kwargs.pop("dtype", torch.float32)
        config_dict, _ = CLIPCountDensityConfig.get_config_dict(pretrained_model_name_or_path, **hub_kwargs)
        found = config_dict.get("model_type")
        if found not in ("clip", "count_clip"):
            raise ValueError(
                f"Expected a CLIP checkpoint (model type `clip` or `count_clip`), but the model type of "
                f"{pretrained_model_name_or_path!r} is {found!r}. A density model loads with `from_pretrained`."
            )
        clip = CLIPModel.from_pretrained(pretrained_model_name_or_path, dtype=dtype, **hub_kwargs)
        config = CLIPCountDensityConfig(
            text_config=clip.config.text_config.to_dict(),
            vision_config=clip.config.vision_config.to_dict(),
            **{"projection_dim": clip.config.projection_dim, **kwargs},
        )
        model = cls._from_config(config, dtype=dtype, attn_implementation=attn_implementation)
        for name in ("text_model", "vision_model", "text_projection"):
            getattr(model, name).load_state_dict(getattr(clip, name).state_dict())
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the text tower."""
        return self.text_model.embeddings.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the text tower."""
        self.text_model.embeddings.token_embedding = value

    def get_text_embeds(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Embed prompts, with the learned context in front of them.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Tokens, from the start token to the end-of-text token, padded on the right.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding, which never changes a result.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, projection_dim)`, not normalised: `text_embeds` of `forward`.

        Raises:
            ValueError: If a prompt does not fit with the context.
        """
        return self._encode_text(input_ids, attention_mask).pooler_output

    def _encode_text(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Run the text tower with its context; the pooled output is the projected text embedding."""
        outputs = self.text_model(
            input_ids=input_ids, attention_mask=attention_mask, context_prompts=self.context_prompts, **kwargs
        )
        pooled = outputs.pooler_output
        if self.config.text_readout == "authors":
            end_positions = end_of_text(input_ids, self.text_model.config.eos_token_id)
            pooled = _at_positions(outputs.last_hidden_state, end_positions)
        outputs.pooler_output = self.text_projection(pooled)
        return outputs

    def _encode_each_text_once(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """As `_encode_text`; in inference, each distinct prompt is encoded once."""
        if self.training or torch.is_grad_enabled() or is_traced() or len(input_ids) < 2:
            return self._encode_text(input_ids, attention_mask, **kwargs)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype)
        tokens, rows = torch.stack([input_ids, mask], dim=1).unique(dim=0, return_inverse=True)  # (U, 2, L)
        outputs = self._encode_text(tokens[:, 0], None if attention_mask is None else tokens[:, 1], **kwargs)
        for name, value in outputs.items():
            outputs[name] = tuple(x[rows] for x in value) if isinstance(value, tuple) else value[rows]
        return outputs

    def get_patch_features(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """
        Run the vision tower with its prompts.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Windows as the processor prepares them, `window_size` a side.
            interpolate_pos_encoding (`bool`, *optional*, defaults to `False`):
                Whether windows of other sizes are accepted, with interpolated position encodings.

        Returns:
            `torch.Tensor` of shape `(batch_size, patch_rows * patch_columns, hidden_size)`: the patches after the
            last layer (and after the prompts' norm, where there are prompts).
        """
        return self._encode_windows(pixel_values, interpolate_pos_encoding).last_hidden_state[:, 1:]

    def _encode_windows(
        self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool, **kwargs: Any
    ) -> BaseModelOutput:
        """Resize windows for the vision tower, and run it with its prompts."""
        size = self._vision_size(pixel_values.shape[-2], pixel_values.shape[-1])
        if size != pixel_values.shape[-2:]:
            pixel_values = nn.functional.interpolate(
                pixel_values.float(), size=size, mode="bilinear", align_corners=False, antialias=False
            )
        return self.vision_model(
            pixel_values=pixel_values,
            interpolate_pos_encoding=interpolate_pos_encoding,
            visual_prompts=self.visual_prompts,
            **kwargs,
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        window_positions: torch.Tensor | None = None,
        image_sizes: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CLIPCountDensityOutput:
        """
        Predict the density of the objects that the prompts name.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Windows as the processor prepares them, `window_size` a side.
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)` or
                `(batch_size, num_prompts, sequence_length)`, *optional*): Tokens of each window's prompt or prompts.
            attention_mask (`torch.Tensor` of the shape of `input_ids`, *optional*): 1 for tokens, 0 for padding.
            text_embeds (`torch.FloatTensor` of shape `(batch_size, projection_dim)` or
                `(batch_size, num_prompts, projection_dim)`, *optional*): From `get_text_embeds`, instead of
                `input_ids`; several prompts of a window share the pass through the vision tower.
            labels (`torch.FloatTensor` of shape `(batch_size, height, width)`, *optional*):
                Target density: objects per pixel of the window, summing to the count.
            return_loss (`bool`, *optional*):
                Whether to compute the losses; by default with `labels`.
            interpolate_pos_encoding (`bool`, *optional*, defaults to `False`):
                Whether windows of other sizes are accepted, with interpolated position encodings.
            window_positions, image_sizes (`torch.LongTensor`, *optional*):
                Not used: outputs of the processor for `post_process_density`.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, and arguments of the towers' attention.

        Returns:
            [`CLIPCountDensityOutput`].

        Raises:
            ValueError: If windows or prompts are missing or of the wrong shape, or if the labels are missing or of
                another size than the map.
        """
        if pixel_values is None:
            raise ValueError("Expected windows of images, but `pixel_values` is missing.")
        if text_embeds is not None and input_ids is not None:
            raise ValueError("Expected either `input_ids` or `text_embeds`, but got both.")
        height, width = pixel_values.shape[-2:]
        side = self.config.window_size
        if not interpolate_pos_encoding and (height, width) != (side, side):
            raise ValueError(
                f"Expected windows of {side}x{side} pixels, but got {height}x{width}. The processor cuts them, or "
                "pass `interpolate_pos_encoding=True` for windows of other sizes."
            )
        for flag in ("output_hidden_states", "output_attentions"):
            kwargs.setdefault(flag, getattr(self.config, flag, False))
        text_outputs: BaseModelOutputWithPooling | None = None
        if text_embeds is None:
            if input_ids is None:
                raise ValueError("Expected prompts, as `input_ids` or as `text_embeds`, but got neither.")
            flat_mask = None if attention_mask is None else attention_mask.flatten(0, -2)
            text_outputs = self._encode_each_text_once(input_ids.flatten(0, -2), flat_mask, **kwargs)
            text_embeds = text_outputs.pooler_output.unflatten(0, input_ids.shape[:-1])
        self._check_text(text_embeds, pixel_values.shape[0])
        prompts = text_embeds if text_embeds.dim() == 3 else text_embeds[:, None]  # (B, T, P)

        patch_size = self.vision_model.config.patch_size
        vision_height, vision_width = self._vision_size(height, width)
        grid = (vision_height // patch_size, vision_width // patch_size)
        vision_outputs = self._encode_windows(pixel_values, interpolate_pos_encoding, **kwargs)
        patch_features = vision_outputs.last_hidden_state[:, 1:]
        patch_embeds = self.contrastive_patch_projection(patch_features)
        with torch.autocast(device_type=patch_embeds.device.type, enabled=False):
            text_directions = nn.functional.normalize(prompts.float(), dim=-1)
            patch_directions = nn.functional.normalize(patch_embeds.float(), dim=-1)
            similarity_map = (text_directions @ patch_directions.transpose(1, 2)).unflatten(-1, grid)  # (B, T, h, w)

        hidden_states = self.patch_projection(patch_features)
        hidden_states = hidden_states + self._positions(grid, hidden_states.device).to(hidden_states.dtype)
        prompts = prompts.to(hidden_states.dtype)
        logits = [
            self.decoder(self.interaction(hidden_states, batch, grid), (height, width)).unflatten(0, batch.shape[:2])
            for batch in ((prompts,) if is_traced() else prompts.split(PROMPTS_AT_ONCE, dim=1))
        ]
        # In float32: a sum over all pixels in half precision is inaccurate.
        scaled_density_map = torch.cat(logits, dim=1).float()  # (B, T, H, W)
        if self.config.density_activation == "sigmoid":
            scaled_density_map = scaled_density_map.sigmoid()
        else:
            sharpness = float(self.config.density_sharpness)
            scaled_density_map = nn.functional.softplus(scaled_density_map, beta=sharpness)
        if text_embeds.dim() == 2:
            scaled_density_map, similarity_map = scaled_density_map[:, 0], similarity_map[:, 0]

        losses: dict[str, torch.Tensor | None] = {}
        if return_loss or (return_loss is None and labels is not None):
            losses = self._losses(scaled_density_map, similarity_map, patch_embeds, text_embeds, labels, input_ids)
        density_map = scaled_density_map / self.config.density_scale
        return CLIPCountDensityOutput(
            **losses,
            density_map=density_map,
            counts=density_map.sum(dim=(-2, -1)),
            text_embeds=text_embeds,
            patch_embeds=patch_embeds,
            similarity_map=similarity_map,
            hidden_states=vision_outputs.hidden_states,
            attentions=vision_outputs.attentions,
            text_hidden_states=None if text_outputs is None else text_outputs.hidden_states,
            text_attentions=None if text_outputs is None else text_outputs.attentions,
        )

    def _vision_size(self, height: int, width: int) -> tuple[int, int]:
        """The size of a `height` x `width` window in the vision tower: whole patches, at the same scale."""
        vision_config = self.vision_model.config
        if height == width == self.config.window_size:
            return vision_config.image_size, vision_config.image_size
        unit = self.config.window_size * vision_config.patch_size / vision_config.image_size
        rows, columns = (max(1, round(side / unit)) for side in (height, width))
        return rows * vision_config.patch_size, columns * vision_config.patch_size

    def _positions(self, grid: tuple[int, int], device: torch.device) -> torch.Tensor:
        """Position encodings `(1, rows * columns, P)` of the patches, counted row by row."""
        side = self.vision_model.config.image_size // self.vision_model.config.patch_size
        positions = sinusoidal_positions(side * side, self.config.projection_dim, device)[None]
        if grid != (side, side):
            square = _to_map(positions, (side, side))
            resized = nn.functional.interpolate(square, size=grid, mode="bilinear", align_corners=False)
            positions = resized.flatten(2).transpose(1, 2)
        return positions

    def _losses(
        self,
        scaled_density_map: torch.Tensor,
        similarity_map: torch.Tensor,
        patch_embeds: torch.Tensor,
        text_embeds: torch.Tensor,
        labels: torch.Tensor | None,
        input_ids: torch.Tensor | None,
    ) -> dict[str, torch.Tensor | None]:
        """The weighted sum of the losses, and each of them, by the names of the output's fields."""
        if labels is None:
            raise ValueError("The losses need `labels`: the target density (batch_size, height, width).")
        if labels.shape != scaled_density_map.shape:
            raise ValueError(
                f"`labels` must have the shape of the density map, {tuple(scaled_density_map.shape)}, but has "
                f"{tuple(labels.shape)}. Cut the target as the processor cuts windows."
            )
        labels, weights = labels.float(), self.config
        density_loss = nn.functional.mse_loss(scaled_density_map, labels * weights.density_scale)
        count_difference = scaled_density_map.sum(dim=(-2, -1)) / weights.density_scale - labels.sum(dim=(-2, -1))
        count_loss = count_difference.abs().mean()
        if labels.dim() == 4:
            labels, similarity_map = labels.flatten(0, 1), similarity_map.flatten(0, 1)
        # The patches are those of the resized window.
        size = self._vision_size(*labels.shape[-2:])
        resized = nn.functional.interpolate(labels[:, None], size=size, mode="nearest")
        contrastive_loss = patch_text_contrastive_loss(
            similarity_map, resized[:, 0], weights.contrastive_temperature, weights.contrast_empty_windows
        )
        region_loss = None
        loss = weights.density_loss_weight * density_loss
        if weights.contrastive_loss_weight:
            loss = loss + weights.contrastive_loss_weight * contrastive_loss
        if weights.region_loss_weight:
            grid = (similarity_map.shape[-2], similarity_map.shape[-1])
            patch_counts = nn.functional.adaptive_avg_pool2d(resized, grid).flatten(1)  # (B * T, N)
            region_loss = self._region_loss(patch_embeds, text_embeds, patch_counts, input_ids)
            loss = loss + weights.region_loss_weight * region_loss
        if weights.count_loss_weight:
            loss = loss + weights.count_loss_weight * count_loss
        return {
            "loss": loss,
            "contrastive_loss": contrastive_loss,
            "region_loss": region_loss,
            "density_loss": density_loss,
            "count_loss": count_loss,
        }

    def _region_loss(
        self,
        patch_embeds: torch.Tensor,
        text_embeds: torch.Tensor,
        patch_counts: torch.Tensor,
        input_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        """The region-text loss, given `(B * T, N)` objects in each patch."""
        text_embeds = text_embeds if text_embeds.dim() == 3 else text_embeds[:, None]
        patch_counts = patch_counts.unflatten(0, text_embeds.shape[:2])
        # Without tokens, equal texts are found by their embeddings.
        texts = text_embeds.detach().flatten(0, 1) if input_ids is None else input_ids.flatten(0, -2)
        same_text = (texts[:, None] == texts).all(dim=-1)
        with torch.autocast(device_type=patch_embeds.device.type, enabled=False):
            return region_text_contrastive_loss(
                patch_embeds, text_embeds, patch_counts, same_text, self.config.contrastive_temperature
            )

    def _check_text(self, text_embeds: torch.Tensor, batch_size: int) -> None:
        dim = self.config.projection_dim
        if text_embeds.dim() not in (2, 3) or text_embeds.shape[0] != batch_size or text_embeds.shape[-1] != dim:
            raise ValueError(
                f"Expected one prompt for each of the {batch_size} windows: text embeddings of shape "
                f"({batch_size}, {dim}) or ({batch_size}, prompts, {dim}), but got {tuple(text_embeds.shape)}."
            )


def end_of_text(input_ids: torch.Tensor, eos_token_id: int) -> torch.Tensor:
    """Position of each row's end-of-text token, `(batch_size,)`, as in CLIP."""
    if eos_token_id == 2:
        # Old CLIP configurations have a wrong id; the end-of-text token is then the highest one of its row.
        return input_ids.int().argmax(dim=-1)
    return (input_ids == eos_token_id).int().argmax(dim=-1)


def is_traced() -> bool:
    """Whether a compiler or an exporter records the operators."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]  # public all the same


def _at_positions(hidden_states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The vectors at one position of each row, `(batch_size, hidden_size)`."""
    return hidden_states[torch.arange(hidden_states.shape[0], device=hidden_states.device), positions]


def _to_map(hidden_states: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Arrange `(B, h * w, P)` patches as a `(B, P, h, w)` map, in the memory format of convolutions."""
    batch_size, _, dim = hidden_states.shape
    # Through one dimension: the stride of a batch of one may be anything, and then the format is not recognised.
    return hidden_states.reshape(-1).view(batch_size, *grid, dim).permute(0, 3, 1, 2)


__all__ = ["CLIPCountDensityModel", "CLIPCountDensityOutput", "CLIPCountDensityPreTrainedModel"]
