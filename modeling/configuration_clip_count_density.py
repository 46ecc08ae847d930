"""Configuration of CLIP-Count, the text-prompted density model."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME


INTERACTIONS = ("hierarchical", "plain", "add")
TEXT_READOUTS = ("eos", "authors")
DENSITY_ACTIVATIONS = ("sigmoid", "softplus")


@strict
class CLIPCountDensityConfig(CLIPConfig):
    """
    Configuration of a [`CLIPCountDensityModel`]: two CLIP towers, the prompts that tune them, and the density head.

    Args:
        window_size (`int`, *optional*, defaults to 384):
            Side of the square input window and of its density map, in pixels. Where it differs from
            `vision_config.image_size`, the model resizes its inputs bilinearly.
        density_scale (`float`, *optional*, defaults to 60.0):
            Factor of densities inside the network, but not of its inputs and outputs. In a window of `w` pixels a
            side, `w * w / 15` scales fifteen objects to a mean of one, in the range where the head learns.
        density_activation (`str`, *optional*, defaults to `"sigmoid"`):
            Last step of the head, on the scaled density. `"sigmoid"` is the authors'; it cannot exceed one, so that
            an object covers at least `density_scale` pixels. `"softplus"` has no such bound and suits small windows.
        density_sharpness (`float`, *optional*, defaults to 1.0):
            Sharpness of `"softplus"` at zero: `softplus(sharpness * x) / sharpness`. A squared error hardly penalises
            a scaled density of 0.02 in every pixel, which is several objects an image; a sharp bend removes it.
        interaction (`str`, *optional*, defaults to `"hierarchical"`):
            How text and patches interact: `"hierarchical"` (two blocks, the second at twice the resolution),
            `"plain"` (`num_interaction_layers` blocks at one resolution) or `"add"` (the text is added), as in the
            paper's ablation.
        num_interaction_layers (`int`, *optional*, defaults to 4): Blocks of the `"plain"` interaction.
        num_interaction_heads (`int`, *optional*, defaults to 8): Attention heads of an interaction block.
        interaction_mlp_ratio (`float`, *optional*, defaults to 4.0):
            Width of an interaction block's MLP over `projection_dim`.
        interaction_dropout (`float`, *optional*, defaults to 0.1):
            Dropout and stochastic depth inside the interaction blocks.
        num_norm_groups (`int`, *optional*, defaults to 8):
            Groups of the decoder's group norms; every level's channels must be divisible by it.
        num_visual_prompts (`int`, *optional*, defaults to 20):
            Learned tokens in each of the first `visual_prompt_depth` vision layers; 0 for none.
        visual_prompt_depth (`int`, *optional*, defaults to 10):
            Vision layers with their own prompts. With 1, the one set stays to the end.
        visual_prompt_dropout (`float`, *optional*, defaults to 0.1): Dropout on the visual prompts.
        num_context_tokens (`int`, *optional*, defaults to 2):
            Learned context vectors between the start token and the prompt; 0 for none.
        text_readout (`str`, *optional*, defaults to `"eos"`):
            Position of the text embedding. `"eos"` is the end-of-text token. `"authors"` is that token's position
            before the context vectors moved it, where all one-word prompts are equal; it exists for the authors'
            checkpoints.
        contrastive_temperature (`float`, *optional*, defaults to 0.07):
            Temperature of the patch-text contrastive loss.
        contrastive_loss_weight (`float`, *optional*, defaults to 0.0):
            Weight of the patch-text contrastive loss in `loss`.
        contrast_empty_windows (`bool`, *optional*, defaults to `False`):
            Whether the patch-text contrastive loss includes windows without objects of their prompt. The authors'
            does, at about eleven nats a window, which all prompts learn to avoid by becoming equal.
        region_loss_weight (`float`, *optional*, defaults to 0.0):
            Weight of the region-text contrastive loss in `loss`, which assigns the objects in a window to one of the
            batch's prompts. Not in the paper; with a text tower trained from scratch it makes the count follow the
            prompt.
        density_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the mean squared error of the scaled density in `loss`.
        count_loss_weight (`float`, *optional*, defaults to 0.0):
            Weight of the absolute error of the window's count in `loss`. Not in the paper; in short training it
            removes a faint density of the background from the sum.

    Raises:
        ValueError: If a value is out of range, sizes do not fit together, or the file describes another type of model.

    Source:
        Jiang et al., 2023 (https://huggingface.co/papers/2305.07304), and the defaults of the authors' `run.py`.
    """

    model_type = "clip_count_density"
    sub_configs_defaults = {"vision_config": CLIPVisionConfig, "text_config": CLIPTextConfig}
    keys_to_ignore_at_inference = [
        *("text_embeds", "patch_embeds", "similarity_map"),
        *("hidden_states", "attentions", "text_hidden_states", "text_attentions"),
    ]

    window_size: int = 384
    density_scale: float | int = 60.0
    density_activation: str = "sigmoid"
    density_sharpness: float | int = 1.0
    interaction: str = "hierarchical"
    num_interaction_layers: int = 4
    num_interaction_heads: int = 8
    interaction_mlp_ratio: float | int = 4.0
    interaction_dropout: float | int = 0.1
    num_norm_groups: int = 8
    num_visual_prompts: int = 20
    visual_prompt_depth: int = 10
    visual_prompt_dropout: float | int = 0.1
    num_context_tokens: int = 2
    text_readout: str = "eos"
    contrastive_temperature: float | int = 0.07
    contrastive_loss_weight: float | int = 0.0
    contrast_empty_windows: bool = False
    region_loss_weight: float | int = 0.0
    density_loss_weight: float | int = 1.0
    count_loss_weight: float | int = 0.0

    @property
    def num_decoder_levels(self) -> int:
        """Convolutions of the density decoder; each halves the channels, all but the last double the size."""
        return 4 if self.interaction == "hierarchical" else 2

    def validate_architecture(self) -> None:
        """Check that the fields are in range and fit together."""
        choices = {
            "interaction": INTERACTIONS,
            "text_readout": TEXT_READOUTS,
            "density_activation": DENSITY_ACTIVATIONS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, but got {getattr(self, name)!r}.")
        for name in (
            *("window_size", "density_scale", "density_sharpness", "num_interaction_heads", "num_norm_groups"),
            "contrastive_temperature",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")
        for name in (
            *("num_visual_prompts", "num_context_tokens", "num_interaction_layers", "contrastive_loss_weight"),
            *("region_loss_weight", "density_loss_weight", "count_loss_weight"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, but got {getattr(self, name)}.")
        if self.interaction == "plain" and self.num_interaction_layers < 1:
            raise ValueError(
                "The plain interaction needs `num_interaction_layers` of at least 1; without a block the text would "
                'have no effect. Use `interaction="add"` for none.'
            )
        self._validate_sizes()

    def _validate_sizes(self) -> None:
        if self.projection_dim % self.num_interaction_heads:
            raise ValueError(
                f"`projection_dim` ({self.projection_dim}) must be a multiple of `num_interaction_heads` "
                f"({self.num_interaction_heads})."
            )
        narrowest = self.projection_dim // 2**self.num_decoder_levels
        if self.projection_dim % 2**self.num_decoder_levels or narrowest % self.num_norm_groups:
            raise ValueError(
                f"The decoder halves its channels {self.num_decoder_levels} times from `projection_dim` "
                f"({self.projection_dim}) and needs a multiple of `num_norm_groups` ({self.num_norm_groups}) at the "
                f"end, but would end at {self.projection_dim / 2**self.num_decoder_levels:g}. Choose another "
                "`projection_dim` or fewer `num_norm_groups`."
            )
        vision_config, text_config = self.vision_config, self.text_config
        if self.num_visual_prompts and not 1 <= self.visual_prompt_depth <= vision_config.num_hidden_layers:
            raise ValueError(
                f"`visual_prompt_depth` must be between 1 and the vision tower's {vision_config.num_hidden_layers} "
                f"layers, but got {self.visual_prompt_depth}. Use `num_visual_prompts=0` for no visual prompts."
            )
        # The start token, the end token and one word have to fit, too.
        if self.num_context_tokens > text_config.max_position_embeddings - 3:
            raise ValueError(
                f"`num_context_tokens` ({self.num_context_tokens}) leaves no positions for a prompt in the "
                f"{text_config.max_position_embeddings} positions of the text tower."
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "CLIPCountDensityConfig":
        """Build the configuration from a dictionary; only those of `clip_count_density` models fit."""
        found = config_dict.get("model_type")
        if found not in (None, cls.model_type):
            from_clip = "use `CLIPCountDensityModel.from_clip(...)` to add a density head, or "
            raise ValueError(
                f"Expected the configuration of a `{cls.model_type}` model, but got one of model type {found!r}: "
                f"{from_clip if found in ('clip', 'count_clip') else ''}load it with `AutoModel.from_pretrained`."
            )
        if not cls.__module__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            # The package registers the pipelines; those of the checkpoint would require `trust_remote_code`.
            config_dict = {key: value for key, value in config_dict.items() if key != "custom_pipelines"}
        return super().from_dict(config_dict, **kwargs)


__all__ = ["CLIPCountDensityConfig"]
