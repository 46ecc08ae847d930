"""Configuration of the count-aware CLIP of "Teaching CLIP to Count to Ten"."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CLIPConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME


COUNTING_LOGIT_SCALES = ("learned", "none")


@strict
class CountCLIPConfig(CLIPConfig):
    """
    Configuration of a [`CLIPForCounting`]: a [`CLIPConfig`] and the options of the counting loss.

    Args:
        counting_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the counting loss in `loss` (the lambda of the paper's equation 3).
        counting_logit_scale (`str`, *optional*, defaults to `"learned"`):
            Factor of the cosine similarities in the counting loss: `"learned"` is the model's logit scale, `"none"` is
            1, as in the paper's equation 1.

    Raises:
        ValueError: If a value is out of range, or if the file describes another type of model.

    Source:
        Paiss et al., 2023, Sec. 3.2 (https://huggingface.co/papers/2302.12066).
    """

    model_type = "count_clip"
    # The towers' outputs are large, and no evaluation uses them.
    keys_to_ignore_at_inference = ["text_model_output", "vision_model_output"]

    counting_loss_weight: float | int = 1.0
    counting_logit_scale: str = "learned"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        # A tower that is loaded alone with its projection (`CLIPTextModelWithProjection`) reads the width here.
        for tower in (self.text_config, self.vision_config):
            tower.projection_dim = self.projection_dim

    def validate_architecture(self) -> None:
        """Check the fields that a [`CLIPConfig`] does not have."""
        if self.counting_loss_weight < 0:
            raise ValueError(
                f"`counting_loss_weight` must not be negative, but got {self.counting_loss_weight}. "
                "Use 0 to train without the counting loss."
            )
        if self.counting_logit_scale not in COUNTING_LOGIT_SCALES:
            raise ValueError(
                f"`counting_logit_scale` must be one of {', '.join(COUNTING_LOGIT_SCALES)}, "
                f"but got {self.counting_logit_scale!r}."
            )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "CountCLIPConfig":
        """Build the configuration from a dictionary; only those of `clip` and `count_clip` models fit."""
        found = config_dict.get("model_type")
        if found not in (None, "clip", cls.model_type):
            raise ValueError(
                f"Expected the configuration of a `clip` or `{cls.model_type}` model, but got one of model type "
                f"{found!r}. Load this checkpoint with `AutoModel.from_pretrained`, which picks the class that fits."
            )
        if not cls.__module__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME):
            # The package registers the pipelines; those of the checkpoint would require `trust_remote_code`.
            config_dict = {key: value for key, value in config_dict.items() if key != "custom_pipelines"}
        # A plain CLIP may be loaded as a counting CLIP.
        return super().from_dict({**config_dict, "model_type": cls.model_type}, **kwargs)


__all__ = ["CountCLIPConfig"]
