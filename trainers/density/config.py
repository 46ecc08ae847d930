"""Arguments of the training of a [`CLIPCountDensityModel`]."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments


TRAINABLE = ("prompts", "vision", "all")


@dataclass
class DensityConfig(TrainingArguments):
    """
    Arguments of [`DensityTrainer`]: those of a `TrainingArguments`, and the following. The defaults of the learning
    rate, the weight decay and Adam are the authors'; they train for 200 epochs with batches of 32.

    Args:
        contrastive_epochs (`float`, *optional*, defaults to 0.0):
            Epochs at the start in which only the patch-text contrastive loss is trained (the authors: 20); afterwards
            the loss is the squared error of the density plus the model's weighted contrastive loss.
        trainable (`str`, *optional*, defaults to `"prompts"`):
            What trains: `"prompts"` is the paper's (prompts, patch projections, interaction and decoder; both towers
            of CLIP are frozen), `"vision"` adds the vision tower, `"all"` the text tower too.
        clip_learning_rate (`float`, *optional*):
            Learning rate of the towers; by default `learning_rate`.
        lr_step_epochs (`float`, *optional*):
            Multiply the learning rate by `lr_step_gamma` every so many epochs, after the warm-up, instead of
            `lr_scheduler_type`. `lr_scheduler_type="step"` is 100, the authors' schedule.
        lr_step_gamma (`float`, *optional*, defaults to 0.33):
            The factor of `lr_step_epochs`.
        density_sigma (`float`, *optional*, defaults to 1.0):
            Width of the Gaussian of an object in the target, in pixels of the window.
        train_resize (`int`, *optional*):
            Length of an image's shorter side before a window is cut from it, in pixels; by default the processor's.
        scale_jitter (`list[float]`, *optional*, defaults to `[1.0, 1.0]`):
            Range of a random factor of that length, which never becomes shorter than a window.
        noise_probability, color_probability, blur_probability,
        affine_probability (`float`, *optional*, defaults to 0.25),
        horizontal_flip_probability (`float`, *optional*, defaults to 0.5),
        vertical_flip_probability, quarter_turn_probability (`float`, *optional*, defaults to 0.0):
            See [`DensityAugmentation`].
        prompts_per_image (`int`, *optional*, defaults to 1):
            With more than one, a sample is an image with so many of its prompts, which share the pass through the
            vision tower; an epoch has a sample for each image instead of one for each row.
        remove_unused_columns (`bool`, *optional*, defaults to `False`):
            The collator needs columns that the model does not take.
        ddp_find_unused_parameters (`bool`, *optional*, defaults to `False`):
            Every trained parameter takes part in every step.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    adam_beta2: float = 0.95
    remove_unused_columns: bool = False
    ddp_find_unused_parameters: bool | None = False
    lr_scheduler_type: str = "linear"
    contrastive_epochs: float = 0.0
    trainable: str = "prompts"
    clip_learning_rate: float | None = None
    lr_step_epochs: float | None = None
    lr_step_gamma: float = 0.33
    density_sigma: float = 1.0
    train_resize: int | None = None
    scale_jitter: list[float] = field(default_factory=lambda: [1.0, 1.0])
    noise_probability: float = 0.25
    color_probability: float = 0.25
    blur_probability: float = 0.25
    affine_probability: float = 0.25
    horizontal_flip_probability: float = 0.5
    vertical_flip_probability: float = 0.0
    quarter_turn_probability: float = 0.0
    prompts_per_image: int = 1

    def __post_init__(self) -> None:
        if self.lr_scheduler_type == "step":
            # Not in transformers: the trainer builds it from `lr_step_epochs`.
            self.lr_scheduler_type = "constant_with_warmup"
            self.lr_step_epochs = 100.0 if self.lr_step_epochs is None else self.lr_step_epochs
        super().__post_init__()
        if self.trainable not in TRAINABLE:
            raise ValueError(f"`trainable` must be one of {', '.join(TRAINABLE)}, but got {self.trainable!r}.")
        if self.contrastive_epochs < 0:
            raise ValueError(f"`contrastive_epochs` must not be negative, but got {self.contrastive_epochs}.")
        if self.max_steps <= 0 and 0 < self.num_train_epochs <= self.contrastive_epochs:
            raise ValueError(
                f"`contrastive_epochs` ({self.contrastive_epochs}) leaves none of the {self.num_train_epochs} "
                "epochs for the density. Raise `num_train_epochs` or lower `contrastive_epochs`."
            )
        for name in ("lr_step_epochs", "lr_step_gamma", "clip_learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be positive, but got {value}.")


__all__ = ["DensityConfig"]
