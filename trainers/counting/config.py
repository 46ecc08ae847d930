"""Arguments of the training of a [`CLIPForCounting`]."""

from __future__ import annotations

from dataclasses import dataclass

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
            The share of counting rows that the sampler aims at; by default that of the data.
        balance_numbers (`bool`, *optional*, defaults to `False`):
            Whether rows of rare numbers weigh more in the counting loss; see [`number_weights`].
        gradient_cache_chunk_size (`int`, *optional*):
            Encode so many images, or captions, at a time, and again in the backward pass: the gradients of
            `per_device_train_batch_size` in the memory of this many, for one more forward pass. By default the batch
            is encoded at once.
        train_towers (`str`, *optional*, defaults to `"all"`):
            What trains: `"all"`, or only the `"text"` or the `"vision"` tower with its projection. The logit scale
            always trains.
        max_logit_scale (`float`, *optional*, defaults to 100.0):
            Upper bound of the learned logit scale, enforced after every step.
        remove_unused_columns (`bool`, *optional*, defaults to `False`):
            The collator needs columns that the model does not take.
        ddp_find_unused_parameters (`bool`, *optional*, defaults to `False`):
            Every trained parameter takes part in every step.
    """

    learning_rate: float = 5e-6
    remove_unused_columns: bool = False
    ddp_find_unused_parameters: bool | None = False
    counting_loss: bool = True
    num_counterfactuals: int = 1
    counting_fraction: float | None = None
    balance_numbers: bool = False
    gradient_cache_chunk_size: int | None = None
    train_towers: str = "all"
    max_logit_scale: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_towers not in TOWERS:
            raise ValueError(f"`train_towers` must be one of {', '.join(TOWERS)}, but got {self.train_towers!r}.")
        if not 1 <= self.num_counterfactuals <= 8:
            raise ValueError(
                "`num_counterfactuals` must be between 1 and 8 (the numbers from two to ten without the right one), "
                f"but got {self.num_counterfactuals}."
            )
        if self.counting_fraction is not None and not 0 <= self.counting_fraction <= 1:
            raise ValueError(f"`counting_fraction` must be between 0 and 1, but got {self.counting_fraction}.")
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
