"""EfficientNet-Lite, an image backbone of inverted bottlenecks that is fast on processors."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithNoAttention,
    BaseModelOutputWithPoolingAndNoAttention,
)
from transformers.utils.generic import can_return_tuple

from .configuration_efficientnet_lite import EfficientNetLiteConfig


def _same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis, as TensorFlow's `"SAME"` adds them: the odd one behind."""
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


class EfficientNetLiteConvLayer(nn.Module):
    """
    Convolution, batch normalisation and, unless `activate` is `False`, ReLU6.

    The output is `ceil(size / stride)` long, whatever the size of the image: the padding is TensorFlow's `"SAME"`,
    which is not symmetric where a stride of 2 meets an even size.
    """

    def __init__(
        self,
        config: EfficientNetLiteConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        # With a stride of 1 the padding does not depend on the size, and the convolution adds it without a copy.
        padding = kernel_size // 2 if stride == 1 else 0
        self.convolution = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=padding, groups=groups, bias=False
        )
        self.normalization = nn.BatchNorm2d(
            out_channels, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum
        )
        self.activation = nn.ReLU6() if activate else nn.Identity()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch_size, in_channels, height, width)` to `(batch_size, out_channels, new_height, new_width)`."""
        if self.stride > 1:
            height, width = hidden_states.shape[-2:]
            top, bottom = _same_padding(height, self.kernel_size, self.stride)
            left, right = _same_padding(width, self.kernel_size, self.stride)
            hidden_states = nn.functional.pad(hidden_states, (left, right, top, bottom))
        return self.activation(self.normalization(self.convolution(hidden_states)))


class EfficientNetLiteBlock(nn.Module):
    """Inverted bottleneck: a pointwise expansion, a depthwise convolution and a linear pointwise projection."""

    def __init__(
        self,
        config: EfficientNetLiteConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        expand_ratio: int,
    ) -> None:
        super().__init__()
        channels = in_channels * expand_ratio
        self.expansion = (
            EfficientNetLiteConvLayer(config, in_channels, channels) if expand_ratio > 1 else nn.Identity()
        )
        self.depthwise = EfficientNetLiteConvLayer(config, channels, channels, kernel_size, stride, groups=channels)
        self.projection = EfficientNetLiteConvLayer(config, channels, out_channels, activate=False)
        self.has_residual = stride == 1 and in_channels == out_channels

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch_size, in_channels, height, width)` to `(batch_size, out_channels, new_height, new_width)`."""
        residual = hidden_states
        hidden_states = self.projection(self.depthwise(self.expansion(hidden_states)))
        return residual + hidden_states if self.has_residual else hidden_states


class EfficientNetLiteStage(GradientCheckpointingLayer):
    """Blocks of one width; the first of them takes the stride."""

    def __init__(self, config: EfficientNetLiteConfig, index: int) -> None:
        super().__init__()
        in_channels = config.hidden_sizes[index - 1] if index else config.embedding_size
        self.layers = nn.ModuleList(
            EfficientNetLiteBlock(
                config,
                config.hidden_sizes[index] if depth else in_channels,
                config.hidden_sizes[index],
                config.kernel_sizes[index],
                1 if depth else config.strides[index],
                config.expand_ratios[index],
            )
            for depth in range(config.depths[index])
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch_size, in_channels, height, width)` to `(batch_size, out_channels, new_height, new_width)`."""
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class EfficientNetLiteEncoder(nn.Module):
    """The stages after the stem."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(EfficientNetLiteStage(config, index) for index in range(len(config.depths)))

    def forward(self, hidden_states: torch.Tensor) -> BaseModelOutputWithNoAttention:
        """
        Run the stages.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, embedding_size, height / 2, width / 2)`):
                Output of the stem.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithNoAttention`]: The last feature map, and in
            `hidden_states` that of the stem and of each stage.
        """
        all_hidden_states = [hidden_states]
        for stage in self.stages:
            hidden_states = stage(hidden_states)
            all_hidden_states.append(hidden_states)
        return BaseModelOutputWithNoAttention(last_hidden_state=hidden_states, hidden_states=tuple(all_hidden_states))


class EfficientNetLitePreTrainedModel(PreTrainedModel):
    """Weight initialisation and loading, shared by the model and the backbone."""

    config: EfficientNetLiteConfig
    config_class = EfficientNetLiteConfig
    base_model_prefix = "efficientnet_lite"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["EfficientNetLiteBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            # The fan-out of a depthwise kernel is its own area; `kaiming_normal_` counts that of a dense one.
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            init.normal_(module.weight, mean=0.0, std=(2.0 / fan_out) ** 0.5)


class EfficientNetLiteModel(EfficientNetLitePreTrainedModel):
    """
    EfficientNet-Lite without its classifier: the stages, a pointwise convolution and average pooling.

    The published weights expect RGB values of 0-255 from which 127 is subtracted before they are divided by 128.
    """

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.embedder = EfficientNetLiteConvLayer(
            config, config.num_channels, config.embedding_size, kernel_size=3, stride=2
        )
        self.encoder = EfficientNetLiteEncoder(config)
        self.head = EfficientNetLiteConvLayer(config, config.hidden_sizes[-1], config.projection_dim)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """
        Encode images.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images of any size.
            output_hidden_states (`bool`, *optional*):
                Whether to return the feature maps of the stem and of each stage.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPoolingAndNoAttention`]: `last_hidden_state` of shape
            `(batch_size, projection_dim, height / 32, width / 32)`, its mean over the positions in `pooler_output` of
            shape `(batch_size, projection_dim)`, and the `hidden_states`.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        encoder_outputs = self.encoder(self.embedder(pixel_values))
        last_hidden_state = self.head(encoder_outputs.last_hidden_state)
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=last_hidden_state,
            pooler_output=last_hidden_state.mean(dim=(2, 3)),
            hidden_states=encoder_outputs.hidden_states if output_hidden_states else None,
        )


class EfficientNetLiteBackbone(BackboneMixin, EfficientNetLitePreTrainedModel):
    """
    EfficientNet-Lite as a backbone: the feature maps of the stages that `config.out_features` names.

    Checkpoints of an [`EfficientNetLiteModel`] load too; the pointwise convolution at their end is left out.
    """

    has_attentions = False
    _keys_to_ignore_on_load_unexpected = [r"^head\."]

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.num_features = [config.embedding_size, *config.hidden_sizes]
        self.embedder = EfficientNetLiteConvLayer(
            config, config.num_channels, config.embedding_size, kernel_size=3, stride=2
        )
        self.encoder = EfficientNetLiteEncoder(config)
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool | None = None, **kwargs: Any
    ) -> BackboneOutput:
        """
        Encode images.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Normalised images of any size.
            output_hidden_states (`bool`, *optional*):
                Whether to return the feature maps of the stem and of each stage, whatever `out_features` names.

        Returns:
            [`~transformers.modeling_outputs.BackboneOutput`]: `feature_maps`, one of shape
            `(batch_size, channels, ceil(height / stride), ceil(width / stride))` for each stage in `out_features`, and
            the `hidden_states`.
        """
        hidden_states = self.encoder(self.embedder(pixel_values)).hidden_states
        feature_maps = tuple(
            hidden_state
            for stage, hidden_state in zip(self.stage_names, hidden_states, strict=True)
            if stage in self.out_features
        )
        return BackboneOutput(feature_maps=feature_maps, hidden_states=hidden_states)


__all__ = [
    "EfficientNetLiteBackbone",
    "EfficientNetLiteModel",
    "EfficientNetLitePreTrainedModel",
]
