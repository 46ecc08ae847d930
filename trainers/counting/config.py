"""Arguments of the training of a [`CLIPForCounting`]."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments


TOWERS = ("all", "text", "vision")


@dataclass
class CountingConfig(TrainingArguments):
    """
    Arguments of [`CountingTrainer`]: those of a `TrainingArguments`, and the following.

    Args:
        counting_loss (`bool`, *optional*, defaults to `True`):
            Whether captions with a number word get the counting loss. Without it this is plain contrastive training
            on the same data, the ablation of the paper.
        num_counterfactuals (`int`, *optional*, defaults to 1):
            Wrong captions for each counting row, from 1 (the paper's) to 8 (all other numbers).
        counting_fraction (`float`, *optional*):
            The share of counting rows that the sampler aims at; by default as the data comes.
        balance_numbers (`bool`, *optional*, defaults to `False`):
            Whether the counting loss of a row is weighted by one over how often its number occurs among the counting
            rows of the training set, so that all numbers weigh alike; see [`number_weights`].
        gradient_cache_chunk_size (`int`, *optional*):
            Encode so many images, or captions, at a time, and again in the backward pass: the gradients of
            `per_device_train_batch_size` in the memory of this many, for one more forward pass. By default the batch
            is encoded at once.
        train_towers (`str`, *optional*, defaults to `"all"`):
            What trains: `"all"`, or only the `"text"` or the `"vision"` tower with its projection. The logit scale
            trains in any case.
        max_logit_scale (`float`, *optional*, defaults to 100.0):
            The most that similarities may be multiplied with; the learned scale is held below it after every step.
        remove_unused_columns (`bool`, *optional*, defaults to `False`):
            The collator needs columns that the model does not know.
        ddp_find_unused_parameters (`bool`, *optional*, defaults to `False`):
            Every parameter that trains takes part in every step, so there is nothing to look for.
    """

    learning_rate: float = field(default=5e-6, metadata={"help": "The initial learning rate for AdamW."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep the columns the collator needs."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Whether DDP looks for those."})
    counting_loss: bool = field(default=True, metadata={"help": "Whether captions with a number get the loss."})
    num_counterfactuals: int = field(default=1, metadata={"help": "Wrong captions for each counting row, 1 to 8."})
    counting_fraction: float | None = field(default=None, metadata={"help": "Share of counting rows in a batch."})
    balance_numbers: bool = field(default=False, metadata={"help": "Whether rare numbers weigh more in the loss."})
    gradient_cache_chunk_size: int | None = field(default=None, metadata={"help": "Rows to encode at a time."})
    train_towers: str = field(default="all", metadata={"help": "What trains: all, text or vision."})
    max_logit_scale: float = field(default=100.0, metadata={"help": "Upper bound of the learned logit scale."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_towers not in TOWERS:
            raise ValueError(f"`train_towers` must be one of {', '.join(TOWERS)}, but got {self.train_towers!r}.")
        if not 1 <= self.num_counterfactuals <= 8:
            raise ValueError(
                "`num_counterfactuals` must lie between 1 and 8, for a caption with one of the numbers two to ten has "
                f"eight wrong ones, but got {self.num_counterfactuals}."
            )
        if self.counting_fraction is not None and not 0 <= self.counting_fraction <= 1:
            raise ValueError(f"`counting_fraction` must lie between 0 and 1, but got {self.counting_fraction}.")
        if self.gradient_cache_chunk_size is not None and self.gradient_cache_chunk_size < 1:
            raise ValueError(
                f"`gradient_cache_chunk_size` must be at least 1, but got {self.gradient_cache_chunk_size}. Leave it "
                "out to encode a batch at once."
            )
        if self.balance_numbers and not self.counting_loss:
            raise ValueError(
                "`balance_numbers` weighs the rows of the counting loss, which `counting_loss: false` switches off. "
                "Leave one of them out."
            )
        if self.max_logit_scale < 1:
            raise ValueError(f"`max_logit_scale` must be at least 1, but got {self.max_logit_scale}.")


__all__ = ["CountingConfig"]
