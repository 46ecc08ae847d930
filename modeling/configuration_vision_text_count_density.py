"""Configuration of a density model made of any image backbone and any text encoder."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from .configuration_efficientnet_lite import EfficientNetLiteConfig


TEXT_POOLINGS = ("mean", "pooler")
HIDDEN_SIZES = (48, 96, 128, 128)
DEPTHS = (0, 2, 1, 0)


@strict
class VisionTextCountDensityConfig(PreTrainedConfig):
    """
    Configuration of a [`VisionTextCountDensityModel`]: a backbone, a text encoder, and the pyramid and head between
    them.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*):
            The image backbone: any configuration that `AutoBackbone` knows, or that of a ViT which `AutoModel` knows
            (CLIP's and SigLIP's vision towers). Defaults to EfficientNet-Lite0 with feature maps of strides 4 to 32.
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            The text encoder: any configuration that `AutoModel` knows. Defaults to a BERT of all-MiniLM-L6-v2's sizes.
        feature_strides (`list[int]`, *optional*, defaults to `[4, 8, 16, 32]`):
            Pixels of the image per position of each of the backbone's feature maps, finest first. One value is a
            backbone with a single stride, such as a ViT: a simple pyramid is built on it (Li et al., 2022, Sec. 3,
            https://huggingface.co/papers/2203.16527). [`VisionTextCountDensityModel.from_backbone`] finds them out.
        text_pooling (`str`, *optional*, defaults to `"mean"`):
            How a prompt becomes one vector: `"mean"` of the last hidden states under the attention mask, as sentence
            encoders do, or the encoder's own `"pooler"` output, as in CLIP and SigLIP.
        max_text_length (`int`, *optional*, defaults to 64):
            Tokens of a prompt at most, special tokens included.
        hidden_sizes (`list[int]`, *optional*, defaults to `[48, 96, 128, 128]`):
            Channels of each level of the pyramid, finest first. There is a level for each of the `feature_strides`; a
            backbone with one stride gives four.
        depths (`list[int]`, *optional*, defaults to `[0, 2, 1, 0]`):
            Residual blocks of each level in which the text scales and shifts the features.
        similarity_hidden_size (`int`, *optional*, defaults to 1280):
            Channels between the coarsest feature map and the patch embeddings.
        density_stride (`int`, *optional*, defaults to 4):
            Pixels per position of the density map that the head predicts. The output has a value per pixel.
        density_scale (`float`, *optional*, defaults to 50.0):
            The head predicts objects per position times this.
        window_size (`int`, *optional*, defaults to 384):
            Side, in pixels, of the windows that the processor cuts. The model itself takes any size.
        density_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the squared error of the density, relative to the energy of the target.
        block_sizes (`list[int]`, *optional*, defaults to `[16, 80, 320]`):
            Sides, in pixels, of the blocks whose counts are compared with the target's.
        block_loss_weights (`list[float]`, *optional*, defaults to `[1.0, 0.4, 0.06]`):
            Weight of each block size in the loss.
        similarity_loss_weight (`float`, *optional*, defaults to 0.5):
            Weight of the cross-entropy of the similarity map against where the objects are.
        film_initializer_range (`float`, *optional*, defaults to 0.5):
            Standard deviation of the initial weights by which a text of unit norm scales and shifts features.

    Raises:
        ValueError: If a value is out of range or the sizes do not fit together.
    """

    model_type = "vision_text_count_density"
    sub_configs = {"backbone_config": AutoConfig, "text_config": AutoConfig}
    keys_to_ignore_at_inference = ["text_embeds", "patch_embeds", "similarity_map"]

    backbone_config: Any = None
    text_config: Any = None
    feature_strides: list[int] | tuple[int, ...] = (4, 8, 16, 32)
    text_pooling: str = "mean"
    max_text_length: int = 64
    hidden_sizes: list[int] | tuple[int, ...] = HIDDEN_SIZES
    depths: list[int] | tuple[int, ...] = DEPTHS
    similarity_hidden_size: int = 1280
    density_stride: int = 4
    density_scale: float | int = 50.0
    window_size: int = 384
    density_loss_weight: float | int = 1.0
    block_sizes: list[int] | tuple[int, ...] = (16, 80, 320)
    block_loss_weights: list[float | int] | tuple[float | int, ...] = (1.0, 0.4, 0.06)
    similarity_loss_weight: float | int = 0.5
    film_initializer_range: float | int = 0.5

    def __post_init__(self, **kwargs: Any) -> None:
        if self.backbone_config is None:
            self.backbone_config = EfficientNetLiteConfig(out_features=["stage2", "stage3", "stage5", "stage7"])
        if self.text_config is None:
            self.text_config = {
                "model_type": "bert",
                "hidden_size": 384,
                "num_hidden_layers": 6,
                "num_attention_heads": 12,
                "intermediate_size": 1536,
            }
        self.backbone_config = _as_config(self.backbone_config, "backbone_config")
        self.text_config = _as_config(self.text_config, "text_config")
        for name in ("feature_strides", "hidden_sizes", "depths", "block_sizes", "block_loss_weights"):
            setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check that the fields are in range and fit together."""
        for name in ("max_text_length", "similarity_hidden_size", "density_stride", "density_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")
        for name in ("density_loss_weight", "similarity_loss_weight", "film_initializer_range"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, but got {getattr(self, name)}.")
        if self.text_pooling not in TEXT_POOLINGS:
            raise ValueError(
                f"`text_pooling` must be one of {', '.join(TEXT_POOLINGS)}, but got {self.text_pooling!r}."
            )
        strides = list(self.feature_strides)
        if not strides or strides != sorted(set(strides)) or strides[0] < 1:
            raise ValueError(f"`feature_strides` must be positive and increasing, but got {self.feature_strides}.")
        num_levels = 4 if len(strides) == 1 else len(strides)
        if not len(self.hidden_sizes) == len(self.depths) == num_levels or min(self.hidden_sizes) < 1:
            raise ValueError(
                f"`hidden_sizes` and `depths` must have a value for each of the {num_levels} levels, but are "
                f"{self.hidden_sizes} and {self.depths}."
            )
        if min(self.depths) < 0 or not any(self.depths):
            raise ValueError(f"`depths` must have a block in one level at least, but is {self.depths}.")
        if len(self.block_sizes) != len(self.block_loss_weights) or any(
            size % self.density_stride for size in self.block_sizes
        ):
            raise ValueError(
                f"`block_sizes` must be multiples of `density_stride` ({self.density_stride}) with one weight each in "
                f"`block_loss_weights`, but got {self.block_sizes} and {self.block_loss_weights}."
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "VisionTextCountDensityConfig":
        """Build the configuration from a dictionary; only those of `vision_text_count_density` models fit."""
        found = config_dict.get("model_type")
        if found not in (None, cls.model_type):
            raise ValueError(
                f"Expected the configuration of a `{cls.model_type}` model, but got one of model type {found!r}. "
                "Load this checkpoint with `AutoModel.from_pretrained`, or start a density model from it with "
                "`VisionTextCountDensityModel.from_backbone`."
            )
        if not cls.__module__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            # The package registers the pipelines; the entries are for readers without the package.
            config_dict = {key: value for key, value in config_dict.items() if key != "custom_pipelines"}
        return super().from_dict(config_dict, **kwargs)


def _as_config(config: dict | PreTrainedConfig, name: str) -> PreTrainedConfig:
    """A sub-configuration as an object; `model_type` names its class."""
    if isinstance(config, PreTrainedConfig):
        return config
    fields = dict(config)
    model_type = fields.pop("model_type", None)
    if model_type is None:
        raise ValueError(f"`{name}` needs a `model_type`, but has the keys {', '.join(config)}.")
    # Without this package installed, `AutoConfig` does not know our own backbone.
    if model_type == EfficientNetLiteConfig.model_type:
        return EfficientNetLiteConfig(**fields)
    return AutoConfig.for_model(model_type, **fields)


__all__ = ["VisionTextCountDensityConfig"]
