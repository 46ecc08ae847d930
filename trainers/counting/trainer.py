"""Fine-tuning of a CLIP with the counting loss."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD, find_count

from ..core.rows import as_rows
from ..core.sampling import EpochSampler
from ..core.trainer import BaseTrainer, require_model_type
from .collator import CountingDataCollator, CountingEvalDataCollator, is_counting_row
from .config import CountingConfig


logger = logging.get_logger(__name__)


class CountingTrainer(BaseTrainer):
    """
    Train a [`CLIPForCounting`] on general and counting pairs together.

    The contrastive loss is that of the batches of all processes together, in one forward pass each.

    Args:
        model ([`CLIPForCounting`]): The model, perhaps with adapters.
        args ([`CountingConfig`]): Its arguments.
        train_dataset (*optional*): Rows with `image`, `text` and `number` (and `image_id`, `is_counting`).
        eval_dataset (*optional*): Rows whose captions all state a number from two to ten. The predictions that
            `compute_metrics` gets are the scores `(num_images, 9)` of the captions with two to ten; the labels are
            the true numbers.
        processing_class ([`CountCLIPProcessor`]): Turns images and captions into tensors.
        data_collator (*optional*): By default a [`CountingDataCollator`].
        kwargs: Everything else that a `Trainer` takes.

    Source:
        Paiss et al., 2023, Sec. 3.2 (https://huggingface.co/papers/2302.12066).
    """

    args: CountingConfig

    def __init__(
        self,
        model: Any,
        args: CountingConfig,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        data_collator: Any = None,
        **kwargs: Any,
    ):
        require_model_type(model, "count_clip", "CountingTrainer", "DensityTrainer")
        if processing_class is None:
            raise ValueError("`processing_class` is missing: CountingTrainer needs the model's processor.")
        if data_collator is None:
            data_collator = CountingDataCollator(
                processing_class,
                args.num_counterfactuals,
                counting_loss=args.counting_loss,
                seed=args.seed if args.data_seed is None else args.data_seed,
                number_weights=_balance(train_dataset) if args.balance_numbers and train_dataset is not None else None,
            )
        if not hasattr(model, "peft_config"):
            freeze_towers(model, args.train_towers)
        if args.world_size > 1:
            _prepare_for_processes(args, train_dataset)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            eval_collator=CountingEvalDataCollator(processing_class),
            epoch_listeners=(data_collator,) if hasattr(data_collator, "set_epoch") else (),
            train_dataset=as_rows(train_dataset),
            eval_dataset=as_rows(eval_dataset),
            processing_class=processing_class,
            **kwargs,
        )
        self.add_callback(LogitScaleCallback(args.max_logit_scale))

    def _epoch_sampler(self, train_dataset: Any) -> EpochSampler:
        fraction = self.args.counting_fraction
        flags = None if fraction is None else counting_flags(train_dataset)
        return EpochSampler(len(train_dataset), self._data_seed, flags, fraction)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The model's loss, over the batch of all processes."""
        options: dict[str, Any] = {"gather_embeds": self.args.world_size > 1 and model.training}
        # Models loaded as remote code of an earlier version do not know this one.
        if model.training and self.args.gradient_cache_chunk_size is not None:
            options["gradient_cache_chunk_size"] = self.args.gradient_cache_chunk_size
        outputs = model(**inputs, **options)
        if model.training:
            self._record("contrastive_loss", outputs.contrastive_loss)
            # Batches without counting rows have no counting loss.
            self._record("counting_loss", outputs.counting_loss, weight=float(inputs["counting_mask"].sum()))
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """
        Score nine captions for each image; every image and every distinct caption is encoded once.

        Returns:
            The nine-way cross-entropy in nats (`log(9)` is chance), the scores `(batch_size, 9)` and the true
            numbers `(batch_size,)`.
        """
        inputs = self._prepare_inputs(inputs)
        caption_index, labels = inputs.pop("caption_index"), inputs.pop("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            scores = model(**inputs).logits_per_image.float().gather(1, caption_index)
        loss = nn.functional.cross_entropy(scores, labels - 2)
        return (loss, None, None) if prediction_loss_only else (loss, scores, labels)


class LogitScaleCallback(TrainerCallback):
    """Holds the learned logit scale below its bound."""

    def __init__(self, max_logit_scale: float = 100.0):
        self.max_logit_scale = max_logit_scale

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clamp the logarithm, which is the parameter."""
        for name, parameter in kwargs["model"].named_parameters():
            if name.endswith("logit_scale"):
                parameter.data.clamp_(max=math.log(self.max_logit_scale))


def freeze_towers(model: nn.Module, train_towers: str) -> None:
    """Freeze a tower of a [`CLIPForCounting`]; `train_towers` is that of [`CountingConfig`]."""
    frozen = {
        "all": (),
        "text": ("vision_model.", "visual_projection."),
        "vision": ("text_model.", "text_projection."),
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(frozen[train_towers])


def counting_flags(rows: Any) -> list[bool]:
    """Flag the rows of a map-style data set for the counting loss, without decoding images where possible."""
    columns = [as_rows(rows).column(name) for name in ("number", "is_counting")]
    return [
        is_counting_row({"number": number, "is_counting": explicit}) for number, explicit in zip(*columns, strict=True)
    ]


def number_weights(numbers: Iterable[int]) -> dict[int, float]:
    """
    Weights of two to ten with which all numbers contribute equally to the counting loss: inverse frequencies with a
    mean of 1 over the rows; 1 for numbers that do not occur. `ValueError` without numbers.

    Source: Mestha et al., 2024 (https://huggingface.co/papers/2406.03586).
    """
    frequency = Counter(numbers)
    if not frequency:
        raise ValueError(
            "`balance_numbers` needs counting rows, but none of the training rows is one. Add some, or leave it out."
        )
    mean = frequency.total() / len(frequency)
    return {number: mean / frequency[number] if frequency[number] else 1.0 for number in NUMBER_TO_WORD}


def _balance(rows: Any) -> dict[int, float]:
    """The weights for a training set."""
    columns = (as_rows(rows).column("text"), as_rows(rows).column("number"), counting_flags(rows))
    counted = [
        find_count(text, stated=number or None) for text, number, counts in zip(*columns, strict=True) if counts
    ]
    # The collator refuses rows whose caption states no number, and names them.
    return number_weights(match.number for match in counted if match is not None)


def _prepare_for_processes(args: CountingConfig, train_dataset: Any) -> None:
    """Give every process as many rows, as a loss over all processes needs."""
    if not args.dataloader_drop_last:
        logger.info("Setting `dataloader_drop_last`: every process needs as many rows for the loss over all of them.")
        args.dataloader_drop_last = True
    batch_size = args.train_batch_size * args.world_size
    if train_dataset is not None and hasattr(train_dataset, "__len__") and len(train_dataset) < batch_size:
        raise ValueError(
            f"The {len(train_dataset)} training rows do not fill one batch of {args.train_batch_size} rows on each of "
            f"{args.world_size} processes. Lower `per_device_train_batch_size` or use fewer processes."
        )


__all__ = ["CountingTrainer", "LogitScaleCallback", "counting_flags", "freeze_towers", "number_weights"]
