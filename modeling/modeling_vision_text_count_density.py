"""Text-prompted density maps from any image backbone and any text encoder of transformers."""

import copy
import math
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_BACKBONE_MAPPING,
    AutoBackbone,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    Siglip2TextModel,
    SiglipTextModel,
)
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from .configuration_vision_text_count_density import DEPTHS, HIDDEN_SIZES, VisionTextCountDensityConfig
from .modeling_clip_count_density import CLIPCountDensityOutput
from .modeling_efficientnet_lite import EfficientNetLiteBackbone


# Positions of the density map that a processor predicts at once for several prompts: enough to share the reading of
# the weights, few enough to bound the memory.
POSITIONS_AT_ONCE = 2**17


# Those that the auto classes do not know: code from the Hub has a backbone class of its own, and `AutoModel` has no
# entry for SigLIP's text towers (5.23).
_OTHER_ENCODERS: dict[str, type[PreTrainedModel]] = {
    "efficientnet_lite": EfficientNetLiteBackbone,
    "siglip_text_model": SiglipTextModel,
    "siglip2_text_model": Siglip2TextModel,
}


def relative_density_loss(density_map: torch.Tensor, labels: torch.Tensor, empty_energy: float) -> torch.Tensor:
    """
    Squared error of a density relative to the energy of its target, averaged over the batch.

    Divided so, a crowd and a single object weigh the same, and so do narrow and wide targets: the sum of the squares
    of `n` separate Gaussians of deviation `sigma` is `n / (4 * pi * sigma ** 2)`.

    Args:
        density_map (`torch.Tensor` of shape `(batch_size, height, width)`): Predicted objects per position.
        labels (`torch.Tensor` of shape `(batch_size, height, width)`): Target objects per position.
        empty_energy (`float`): Added to the energy of the target, so that an error where nothing is costs a finite
            amount: that of three objects, say.

    Returns:
        `torch.Tensor` of shape `()`: Dimensionless; 1 is the loss of predicting nothing in a crowd.
    """
    error = (density_map - labels).square().sum(dim=(-2, -1))
    energy = labels.square().sum(dim=(-2, -1))
    return (error / (energy + empty_energy)).mean()


def block_count_loss(density_map: torch.Tensor, labels: torch.Tensor, block_size: int) -> torch.Tensor:
    """
    Squared error of the counts in square blocks, each divided by one plus its true count.

    Args:
        density_map (`torch.Tensor` of shape `(batch_size, height, width)`): Predicted objects per position.
        labels (`torch.Tensor` of shape `(batch_size, height, width)`): Target objects per position.
        block_size (`int`): Side of a block in positions of the map; blocks at the lower and right border may be
        smaller.

    Returns:
        `torch.Tensor` of shape `()`: Mean over blocks and batch, in objects.
    """
    size = min(block_size, *density_map.shape[-2:])
    predicted, true = (
        nn.functional.avg_pool2d(x[:, None], size, ceil_mode=True, divisor_override=1) for x in (density_map, labels)
    )
    return ((predicted - true).square() / (1 + true)).mean()


class VisionTextCountDensityEncoder(nn.Module):
    """A backbone of several strides, or a ViT of one, to feature maps of `(batch_size, channels, rows, columns)`."""

    def __init__(self, config: VisionTextCountDensityConfig) -> None:
        super().__init__()
        self.model = _new_encoder(config.backbone_config)
        self.is_backbone = hasattr(self.model, "channels")

    @property
    def channels(self) -> list[int]:
        """Channels of each feature map."""
        return list(self.model.channels) if self.is_backbone else [self.model.config.hidden_size]

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> tuple[tuple[torch.Tensor, ...], Any]:
        """Feature maps of `(batch_size, 3, height, width)` images, and the model's own output."""
        if self.is_backbone:
            outputs = self.model(pixel_values, **kwargs)
            return tuple(outputs.feature_maps), outputs
        outputs = self.model(pixel_values=pixel_values, interpolate_pos_encoding=True, **kwargs)
        patch_size = self.model.config.patch_size
        rows, columns = (side // patch_size for side in pixel_values.shape[-2:])
        # A class token, where there is one, comes first.
        patches = outputs.last_hidden_state[:, -rows * columns :]
        return (patches.transpose(1, 2).unflatten(2, (rows, columns)),), outputs


class VisionTextCountDensityLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position: the rest of the image changes nothing there."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(B, D, h, w)` to the same shape."""
        return super().forward(hidden_states.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class VisionTextCountDensityLaterals(nn.Module):
    """The backbone's feature maps, each brought to the width of its level and normalised."""

    def __init__(self, config: VisionTextCountDensityConfig, channels: list[int]) -> None:
        super().__init__()
        projections: list[nn.Module]
        if len(channels) == 1:
            # ViTDet's simple pyramid: the one map four times and twice as fine, as it is, and half as fine.
            (wide,), sizes = channels, config.hidden_sizes
            finest = nn.ConvTranspose2d(wide, sizes[0], 2, stride=2)
            projections = [
                nn.Sequential(finest, nn.GELU(), nn.ConvTranspose2d(sizes[0], sizes[0], 2, stride=2)),
                nn.ConvTranspose2d(wide, sizes[1], 2, stride=2),
                nn.Conv2d(wide, sizes[2], 1),
                nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(wide, sizes[3], 1)),
            ]
        else:
            projections = [nn.Conv2d(wide, size, 1) for wide, size in zip(channels, config.hidden_sizes, strict=True)]
        self.projections = nn.ModuleList(projections)
        self.norms = nn.ModuleList(VisionTextCountDensityLayerNorm(size) for size in config.hidden_sizes)

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """One map for each level, finest first."""
        maps = feature_maps * len(self.projections) if len(feature_maps) == 1 else feature_maps
        layers = zip(self.projections, self.norms, maps, strict=True)
        return [norm(projection(feature_map)) for projection, norm, feature_map in layers]


class VisionTextCountDensityBlock(nn.Module):
    """A residual block whose features the text scales and shifts (FiLM, https://huggingface.co/papers/1709.07871)."""

    def __init__(self, config: VisionTextCountDensityConfig, dim: int) -> None:
        super().__init__()
        self.norm1 = VisionTextCountDensityLayerNorm(dim)
        self.conv1 = nn.Conv2d(dim + 1, dim, 3, padding=1)
        self.norm2 = VisionTextCountDensityLayerNorm(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.film = nn.Linear(config.text_config.hidden_size, 2 * dim)

    def forward(
        self, hidden_states: torch.Tensor, text_embeds: torch.Tensor, similarity_map: torch.Tensor
    ) -> torch.Tensor:
        """`(B, D, h, w)` features, `(B, E)` text and `(B, 1, h, w)` similarities to `(B, D, h, w)`."""
        scale, shift = self.film(text_embeds)[:, :, None, None].chunk(2, dim=1)
        features = self.conv1(torch.cat([self.norm1(hidden_states), similarity_map], dim=1))
        features = self.norm2(features) * (1 + scale) + shift
        return hidden_states + self.conv2(nn.functional.gelu(features))


class VisionTextCountDensityPyramid(nn.Module):
    """From the coarsest to the finest level, each steered by the text; then the density at its own stride."""

    def __init__(self, config: VisionTextCountDensityConfig) -> None:
        super().__init__()
        sizes = config.hidden_sizes
        self.blocks = nn.ModuleList(
            nn.ModuleList(VisionTextCountDensityBlock(config, size) for _ in range(depth))
            for size, depth in zip(sizes, config.depths, strict=True)
        )
        self.merges = nn.ModuleList(
            nn.Identity()
            if wide == size
            else nn.Sequential(nn.Conv2d(wide, size, 1), VisionTextCountDensityLayerNorm(size))
            for size, wide in pairwise(list(sizes))
        )
        self.head = nn.Conv2d(sizes[0], sizes[0], 3, padding=1)
        self.density_projection = nn.Conv2d(sizes[0], 1, 3, padding=1)

    def forward(
        self,
        levels: list[torch.Tensor],
        text_embeds: torch.Tensor,
        similarity_map: torch.Tensor,
        size: tuple[int, int],
    ) -> torch.Tensor:
        """
        Scaled density of one prompt an image.

        Args:
            levels (`list[torch.Tensor]`): Maps of shape `(batch_size, hidden_sizes[i], rows, columns)`, finest first.
            text_embeds (`torch.Tensor` of shape `(batch_size, text_hidden_size)`): Unit-norm prompts.
            similarity_map (`torch.Tensor` of shape `(batch_size, patch_rows, patch_columns)`): Cosines.
            size (`tuple[int, int]`): Rows and columns of the density.

        Returns:
            `torch.Tensor` of shape `(batch_size, *size)`.
        """
        # Cosines stay within a few tenths of each other. Only their own loss trains them: the gradients of the density
        # are hundreds of times larger, and with them the similarities get worse.
        similarity_map = 5 * similarity_map.detach()[:, None]
        features = levels[-1]
        for index in reversed(range(len(levels))):
            if index < len(levels) - 1:
                features = levels[index] + _resized(self.merges[index](features), levels[index])
            similarities = _resized(similarity_map, features)
            blocks: Any = self.blocks[index]
            for block in blocks:
                features = block(features, text_embeds, similarities)
        features = nn.functional.gelu(features)
        if features.shape[-2:] != size:
            features = nn.functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
        return self.density_projection(nn.functional.gelu(self.head(features)))[:, 0]


class VisionTextCountDensitySimilarity(nn.Module):
    """Where things are that a text names: coarse features, as a classifier's last layers read them, and finer ones."""

    def __init__(self, config: VisionTextCountDensityConfig, channels: list[int]) -> None:
        super().__init__()
        text_dim = config.text_config.hidden_size
        self.hidden = nn.Conv2d(channels[-1], config.similarity_hidden_size, 1)
        self.coarse = nn.Conv2d(config.similarity_hidden_size, text_dim, 1)
        self.fine = nn.Conv2d(channels[-2], text_dim, 1) if len(channels) > 1 else None
        # Cosine similarities to logits.
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = nn.Parameter(torch.empty(()))

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Patch embeddings `(batch_size, text_hidden_size, rows, columns)`, at the second coarsest stride."""
        patch_map = self.coarse(nn.functional.relu6(self.hidden(feature_maps[-1])))
        if self.fine is None:
            return patch_map
        return _resized(patch_map, feature_maps[-2]) + self.fine(feature_maps[-2])


class VisionTextCountDensityPreTrainedModel(PreTrainedModel):
    """Weight initialisation and loading."""

    config: VisionTextCountDensityConfig
    config_class = VisionTextCountDensityConfig
    base_model_prefix = "vision_text_count_density"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))  # PyTorch's own
            init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, VisionTextCountDensityBlock):
            # Of unit-norm texts: features are scaled by one plus a deviation of `film_initializer_range`.
            init.normal_(module.film.weight, std=self.config.film_initializer_range)
            init.zeros_(module.film.bias)
        elif isinstance(module, VisionTextCountDensityPyramid):
            init.normal_(module.density_projection.weight, std=0.01)
        elif isinstance(module, VisionTextCountDensitySimilarity):
            init.constant_(module.logit_scale, 10.0)
            init.constant_(module.logit_bias, -3.0)


class VisionTextCountDensityModel(VisionTextCountDensityPreTrainedModel):
    """
    A pyramid of image features that a text steers, and a head that predicts the density of what the text names.


    In training the density is linear in the head's output and may fall below zero; in evaluation it is clamped there.
    A softplus or a sigmoid dies at zero for sparse classes and does not come back.

    Args:
        config ([`VisionTextCountDensityConfig`]): The two encoders and the sizes of what is between them.

    Example:

    ```python
    >>> import count_clip
    >>> from transformers import AutoModel, AutoProcessor

    >>> model = AutoModel.from_pretrained("org/clip-count-photos").eval()
    >>> processor = AutoProcessor.from_pretrained("org/clip-count-photos")
    >>> inputs = processor(images=image, text="red apples")
    >>> outputs = model(**inputs)
    >>> result = processor.post_process_density(outputs, inputs["window_positions"], inputs["image_sizes"])[0]
    >>> result["count"], result["density_map"].shape
    ```
    """

    def __init__(self, config: VisionTextCountDensityConfig) -> None:
        super().__init__(config)
        self.backbone = VisionTextCountDensityEncoder(config)
        self.text_model = _new_encoder(config.text_config)
        channels = self.backbone.channels
        if len(channels) != len(config.feature_strides):
            raise ValueError(
                f"The backbone has {len(channels)} feature maps, but `feature_strides` is {config.feature_strides}: "
                "one stride for each of the `out_features` is needed. `from_backbone` finds them out."
            )
        self.laterals = VisionTextCountDensityLaterals(config, channels)
        self.similarity = VisionTextCountDensitySimilarity(config, channels)
        self.pyramid = VisionTextCountDensityPyramid(config)
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        vision_model_name_or_path: str | PreTrainedModel,
        text_model_name_or_path: str | PreTrainedModel,
        **kwargs: Any,
    ) -> "VisionTextCountDensityModel":
        """
        Start a density model from two pretrained encoders; pyramid and head are new.

        Args:
            vision_model_name_or_path (`str` or `PreTrainedModel`):
                A folder or a name on the Hub of a checkpoint that `AutoBackbone` loads, or of a ViT; or a model.
            text_model_name_or_path (`str` or `PreTrainedModel`):
                The same of a text encoder that `AutoModel` loads; of a CLIP or SigLIP its text tower is taken.
            kwargs:
                Fields of [`VisionTextCountDensityConfig`], for example `hidden_size=128`.

        Returns:
            [`VisionTextCountDensityModel`] in evaluation mode and float32.

        Raises:
            ValueError: If one of the two is not such an encoder.

        Example:

        ```python
        >>> model = VisionTextCountDensityModel.from_backbone("facebook/dinov2-small", "BAAI/bge-small-en-v1.5")
        ```
        """
        vision_config = _config_of(vision_model_name_or_path, "vision_config")
        text_config = _config_of(text_model_name_or_path, "text_config")
        strides = _select_feature_maps(vision_config)
        # As many levels as the backbone has strides; four of a backbone with one.
        num_levels = 4 if len(strides) == 1 else len(strides)
        pooling = "pooler" if text_config.model_type.startswith(("clip", "siglip")) else "mean"
        length = min(getattr(text_config, "max_position_embeddings", 64), 64)
        config = VisionTextCountDensityConfig(
            backbone_config=vision_config,
            text_config=text_config,
            **{
                "feature_strides": strides,
                "text_pooling": pooling,
                "max_text_length": length,
                "hidden_sizes": HIDDEN_SIZES[-num_levels:],
                "depths": DEPTHS[-num_levels:],
                **kwargs,
            },
        )
        model = cls._from_config(config, dtype=torch.float32)
        # Norms of feature maps that the checkpoint did not return are new.
        model.backbone.model.load_state_dict(_load_encoder(vision_model_name_or_path, vision_config), strict=False)
        model.text_model.load_state_dict(_load_encoder(text_model_name_or_path, text_config))
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the text encoder."""
        return self.text_model.get_input_embeddings()

    def get_text_embeds(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """
        Embed prompts.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Tokens, padded on the right.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, text_hidden_size)`, of unit norm: what `forward` takes as
            `text_embeds`.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        if self.config.text_pooling == "pooler":
            pooled = outputs.pooler_output
        else:
            mask = attention_mask[:, :, None].to(outputs.last_hidden_state.dtype)
            pooled = (outputs.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return nn.functional.normalize(pooled.float(), dim=-1).to(pooled.dtype)

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
        Predict the density of what the prompts name.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Windows or whole images, of any size.
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)` or
                `(batch_size, num_prompts, sequence_length)`, *optional*): Tokens of each image's prompt or prompts.
            attention_mask (`torch.Tensor` of the shape of `input_ids`, *optional*):
                1 for tokens, 0 for padding.
            text_embeds (`torch.FloatTensor` of shape `(batch_size, text_hidden_size)` or
                `(batch_size, num_prompts, text_hidden_size)`, *optional*): From `get_text_embeds`, in place of
                `input_ids`; several prompts for an image share the pass through the backbone.
            labels (`torch.FloatTensor` of shape `(batch_size, height, width)` or
                `(batch_size, num_prompts, height, width)`, *optional*):
                Target density: objects per pixel, summing to the count.
            return_loss (`bool`, *optional*):
                Whether to compute the losses; by default exactly where there are `labels`.
            interpolate_pos_encoding, window_positions, image_sizes (*optional*):
                Not used: they come with the processor's output.
            kwargs:
                Passed to the backbone, for example `output_hidden_states`.

        Returns:
            [`CLIPCountDensityOutput`]. Its `patch_embeds` are those of the two coarsest feature maps,
            `(batch_size, num_positions, text_hidden_size)`.

        Raises:
            ValueError: If images or prompts are missing or do not fit together, or the labels are missing or of
                another size than the images.
        """
        if pixel_values is None:
            raise ValueError("Expected images, but `pixel_values` is missing.")
        if (text_embeds is None) == (input_ids is None):
            got = "both" if input_ids is not None else "neither"
            raise ValueError(f"Expected prompts, as `input_ids` or as `text_embeds`, but got {got}.")
        if text_embeds is None and input_ids is not None:
            mask = None if attention_mask is None else attention_mask.flatten(0, -2)
            text_embeds = self.get_text_embeds(input_ids.flatten(0, -2), mask).unflatten(0, input_ids.shape[:-1])
        assert text_embeds is not None
        batch_size, text_dim = pixel_values.shape[0], self.config.text_config.hidden_size
        if text_embeds.dim() not in (2, 3) or text_embeds.shape[0] != batch_size or text_embeds.shape[-1] != text_dim:
            raise ValueError(
                f"Expected one prompt for each of the {batch_size} images: text embeddings of shape "
                f"({batch_size}, {text_dim}) or ({batch_size}, prompts, {text_dim}), but got "
                f"{tuple(text_embeds.shape)}."
            )
        prompts = text_embeds if text_embeds.dim() == 3 else text_embeds[:, None]  # (B, T, E)

        height, width = pixel_values.shape[-2:]
        feature_maps, _ = self.backbone(self._padded(pixel_values), **kwargs)
        levels = self.laterals(feature_maps)
        patch_map = self.similarity(feature_maps)
        patch_embeds = patch_map.flatten(2).transpose(1, 2)  # (B, N, E)
        with torch.autocast(device_type=patch_embeds.device.type, enabled=False):
            patch_directions = nn.functional.normalize(patch_embeds.float(), dim=-1)
            similarity_map = nn.functional.normalize(prompts.float(), dim=-1) @ patch_directions.transpose(1, 2)
        similarity_map = similarity_map.unflatten(-1, patch_map.shape[-2:])  # (B, T, h, w)

        # A sum over all pixels in half precision is no count: float32 from here on.
        scaled = self._scaled_density(levels, prompts, similarity_map, (height, width)).float()
        density = scaled / self.config.density_scale  # (B, T, rows, columns), objects per position
        if text_embeds.dim() == 2:
            density, similarity_map = density[:, 0], similarity_map[:, 0]
        visible = density if self.training else density.clamp(min=0)
        density_map = _to_pixels(visible, self.config.density_stride)[..., :height, :width]
        outputs = CLIPCountDensityOutput(
            density_map=density_map,
            counts=density_map.sum(dim=(-2, -1)),
            text_embeds=text_embeds,
            patch_embeds=patch_embeds,
            similarity_map=similarity_map,
        )
        if return_loss or (return_loss is None and labels is not None):
            self._add_losses(outputs, density, similarity_map, (height, width), labels)
        return outputs

    def _padded(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images padded below and on the right to whole positions of the coarsest feature map and of the density."""
        unit = math.lcm(self.config.feature_strides[-1], self.config.density_stride)
        height, width = pixel_values.shape[-2:]
        return nn.functional.pad(pixel_values, (0, -width % unit, 0, -height % unit))

    def _scaled_density(
        self, levels: list[torch.Tensor], prompts: torch.Tensor, similarity_map: torch.Tensor, size: tuple[int, int]
    ) -> torch.Tensor:
        """Scaled density `(B, T, rows, columns)` of each prompt, a bounded number of maps at a time in inference."""
        unit = math.lcm(self.config.feature_strides[-1], self.config.density_stride)
        rows, columns = (-(-side // unit) * unit // self.config.density_stride for side in size)
        num_prompts = prompts.shape[1]
        batch_size, dtype = levels[0].shape[0], levels[0].dtype
        flat_prompts = prompts.to(dtype).flatten(0, 1)
        flat_similarity = similarity_map.to(dtype).flatten(0, 1)
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            step = batch_size * num_prompts
        else:
            step = max(1, POSITIONS_AT_ONCE // (rows * columns))
        owners = torch.arange(batch_size, device=prompts.device).repeat_interleave(num_prompts)
        density = [
            self.pyramid([level[owner] for level in levels], prompt, similarity, (rows, columns))
            for owner, prompt, similarity in zip(
                owners.split(step), flat_prompts.split(step), flat_similarity.split(step), strict=True
            )
        ]
        return torch.cat(density).unflatten(0, prompts.shape[:2])

    def _add_losses(
        self,
        outputs: CLIPCountDensityOutput,
        density: torch.Tensor,
        similarity_map: torch.Tensor,
        size: tuple[int, int],
        labels: torch.Tensor | None,
    ) -> None:
        config, stride = self.config, self.config.density_stride
        if labels is None:
            raise ValueError("The losses need `labels`: the target density (batch_size, height, width).")
        expected = (*density.shape[:-2], *size)
        if labels.shape != expected:
            raise ValueError(
                f"`labels` must have the shape of the density map, {expected}, but has {tuple(labels.shape)}."
            )
        rows, columns = density.shape[-2:]
        height, width = labels.shape[-2:]
        padded = nn.functional.pad(labels.float(), (0, columns * stride - width, 0, rows * stride - height))
        target = nn.functional.avg_pool2d(padded.flatten(0, -3)[:, None], stride, divisor_override=1)[:, 0]
        density = density.flatten(0, -3)
        similarity_map = similarity_map.flatten(0, -3)
        # Three objects with a deviation of two positions.
        outputs.density_loss = relative_density_loss(density, target, empty_energy=3 / (4 * math.pi * 2**2))
        outputs.count_loss = (density.sum(dim=(-2, -1)) - target.sum(dim=(-2, -1))).abs().mean()
        loss = config.density_loss_weight * outputs.density_loss
        for block_size, weight in zip(config.block_sizes, config.block_loss_weights, strict=True):
            loss = loss + weight * block_count_loss(density, target, block_size // stride)
        present = nn.functional.adaptive_max_pool2d(target[:, None], similarity_map.shape[-2:])[:, 0]
        # A position holds an object where the target exceeds a fiftieth of one: not in the tails of a Gaussian.
        outputs.contrastive_loss = nn.functional.binary_cross_entropy_with_logits(
            similarity_map.float() * self.similarity.logit_scale + self.similarity.logit_bias, (present > 0.02).float()
        )
        outputs.loss = loss + config.similarity_loss_weight * outputs.contrastive_loss


def _resized(hidden_states: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A map with the rows and columns of another."""
    if hidden_states.shape[-2:] == like.shape[-2:]:
        return hidden_states
    return nn.functional.interpolate(hidden_states, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _to_pixels(density: torch.Tensor, stride: int) -> torch.Tensor:
    """Objects per position to objects per pixel; bilinear interpolation by a whole factor keeps the sum."""
    if stride == 1:
        return density
    flat = density.flatten(0, -3)[:, None] / stride**2
    pixels = nn.functional.interpolate(flat, scale_factor=float(stride), mode="bilinear", align_corners=False)[:, 0]
    return pixels.unflatten(0, density.shape[:-2])


def _new_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """A backbone where there is one for this configuration, else a plain model."""
    if config.model_type in _OTHER_ENCODERS:
        return _OTHER_ENCODERS[config.model_type]._from_config(config)
    auto_class = AutoBackbone if type(config) in MODEL_FOR_BACKBONE_MAPPING else AutoModel
    return auto_class.from_config(config)


def _load_encoder(name_or_model: str | PreTrainedModel, config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """The weights of an encoder of this configuration, from a checkpoint or a model."""
    if isinstance(name_or_model, PreTrainedModel):
        return name_or_model.state_dict()
    # Not `AutoBackbone.from_pretrained`, which takes the name of a folder for one of a timm model (5.23).
    with torch.device("meta"):
        model_class = type(_new_encoder(config))
    return model_class.from_pretrained(name_or_model, config=config, dtype=torch.float32).state_dict()


def _config_of(name_or_model: str | PreTrainedModel, tower: str) -> PreTrainedConfig:
    """The configuration of an encoder; of a CLIP or SigLIP that of the tower."""
    if isinstance(name_or_model, PreTrainedModel):
        config = name_or_model.config
    else:
        config = AutoConfig.from_pretrained(name_or_model)
    return copy.deepcopy(getattr(config, tower, config))


@torch.no_grad()
def _select_feature_maps(config: PreTrainedConfig) -> list[int]:
    """
    Let a backbone return the last stage of each stride from 4 to 32, and find these strides out.

    A backbone whose `out_features` name more than one stage keeps its choice; one whose stages all have the same
    stride returns its last.
    """
    if not hasattr(config, "out_indices"):
        if getattr(config, "patch_size", None) is None:
            raise ValueError(
                "Expected a backbone that `AutoBackbone` loads, or a ViT, but got a checkpoint of the model type "
                f"{config.model_type!r}."
            )
        return [config.patch_size]
    stages = config.out_indices
    if len(stages) == 1:
        stages = config.out_indices = list(range(len(config.stage_names)))
    side = 224
    with torch.device("meta"):
        backbone = _new_encoder(config).eval()
        maps = backbone(torch.zeros(1, getattr(config, "num_channels", 3), side, side)).feature_maps
    strides = [round(side / feature_map.shape[-1]) for feature_map in maps]
    last = dict(zip(strides, stages, strict=True))
    if len(last) > 1:
        last = {stride: stage for stride, stage in last.items() if 4 <= stride <= 32}
    config.out_indices = sorted(last.values())
    return sorted(last)


__all__ = [
    "VisionTextCountDensityModel",
    "VisionTextCountDensityPreTrainedModel",
    "block_count_loss",
    "relative_density_loss",
]
