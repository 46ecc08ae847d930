"""Configuration of EfficientNet-Lite, EfficientNet without squeeze-and-excitation and with ReLU6."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin


@strict
class EfficientNetLiteConfig(BackboneConfigMixin, PreTrainedConfig):
    """
    Configuration of an [`EfficientNetLiteModel`] or an [`EfficientNetLiteBackbone`]. The defaults are
    EfficientNet-Lite0.


    The stages are named `"stem"` and `"stage1"` to `"stage7"`; with the default strides their feature maps are 2, 2,
    4, 8, 16, 16, 32 and 32 times smaller than the image.

    Args:
        num_channels (`int`, *optional*, defaults to 3):
            Channels of the image.
        embedding_size (`int`, *optional*, defaults to 32):
            Channels after the stem, a 3x3 convolution of stride 2.
        hidden_sizes (`list[int]`, *optional*, defaults to `[16, 24, 40, 80, 112, 192, 320]`):
            Channels after each stage.
        depths (`list[int]`, *optional*, defaults to `[1, 2, 2, 3, 3, 4, 1]`):
            Inverted bottleneck blocks of each stage.
        kernel_sizes (`list[int]`, *optional*, defaults to `[3, 3, 5, 3, 5, 5, 3]`):
            Side of the depthwise kernels of each stage.
        strides (`list[int]`, *optional*, defaults to `[1, 2, 2, 2, 1, 2, 1]`):
            Stride of the first block of each stage.
        expand_ratios (`list[int]`, *optional*, defaults to `[1, 6, 6, 6, 6, 6, 6]`):
            Width inside a block over the width of its input; 1 leaves the expansion out.
        projection_dim (`int`, *optional*, defaults to 1280):
            Channels after the last, pointwise convolution of [`EfficientNetLiteModel`]. A backbone has none.
        batch_norm_eps (`float`, *optional*, defaults to 0.001):
            Epsilon of the batch normalisations.
        batch_norm_momentum (`float`, *optional*, defaults to 0.01):
            Share of the current batch in the running statistics, as PyTorch counts it (TensorFlow's 0.99).
        out_features (`list[str]`, *optional*):
            Stages whose feature maps a backbone returns, in order. Defaults to the last.
        out_indices (`list[int]`, *optional*):
            The same as indices into `stage_names`. Give one of the two.

    Raises:
        ValueError: If a size is not positive, or the lists differ in length.

    Example:

    ```python
    >>> config = EfficientNetLiteConfig(out_features=["stage2", "stage3", "stage5", "stage7"])
    >>> backbone = EfficientNetLiteBackbone(config)
    >>> backbone.channels
    [24, 40, 112, 320]
    ```

    Source:
        Tan and Le, 2019 (https://huggingface.co/papers/1905.11946), and the "lite" variants of
        https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
    """

    model_type = "efficientnet_lite"

    num_channels: int = 3
    embedding_size: int = 32
    hidden_sizes: list[int] | tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    depths: list[int] | tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    kernel_sizes: list[int] | tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: list[int] | tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expand_ratios: list[int] | tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    projection_dim: int = 1280
    batch_norm_eps: float = 0.001
    batch_norm_momentum: float = 0.01

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("hidden_sizes", "depths", "kernel_sizes", "strides", "expand_ratios"):
            setattr(self, name, list(getattr(self, name)))
        self.stage_names = ["stem", *(f"stage{index}" for index in range(1, len(self.depths) + 1))]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check that the sizes are positive and describe the same number of stages."""
        for name in ("num_channels", "embedding_size", "projection_dim", "batch_norm_eps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")
        for name in ("hidden_sizes", "depths", "kernel_sizes", "strides", "expand_ratios"):
            values = getattr(self, name)
            if len(values) != len(self.hidden_sizes):
                raise ValueError(
                    f"`{name}` must hold one value per stage, of which `hidden_sizes` has {len(self.hidden_sizes)}, "
                    f"but it holds {len(values)}."
                )
            if any(value < 1 for value in values):
                raise ValueError(f"`{name}` must be positive, but got {values}.")


__all__ = ["EfficientNetLiteConfig"]
