"""Training of text-prompted density models."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from count_clip.modeling.counting_engine import DensityCounter

from ..core.rows import as_rows
from ..core.trainer import BaseTrainer, base_name, require_model_type
from .augmentation import DensityAugmentation
from .collator import DensityDataCollator, DensityEvalDataCollator
from .config import DensityConfig
from .dataset import DensityTrainingDataset


TOWERS = ("vision_model.", "text_model.", "text_projection.")
FROZEN = {
    "prompts": TOWERS,
    "vision": ("vision_model.post_layernorm.", "text_model.", "text_projection."),
    # The model uses the patches before this norm, which therefore has no gradient.
    "all": ("vision_model.post_layernorm.",),
}
DENSITY_ONLY = ("patch_projection.", "interaction.", "decoder.")
CONTRASTIVE_ONLY = ("contrastive_patch_projection.",)


class DensityTrainer(BaseTrainer):
    """
    Train a [`CLIPCountDensityModel`], with a contrastive loss of patches and text first, then the density.

    Args:
        model ([`CLIPCountDensityModel`]): The model, perhaps with adapters.
        args ([`DensityConfig`]): Its arguments.
        train_dataset (*optional*): A [`DensityTrainingDataset`], or rows with `image`, `text` and `points`, of which
            `args` make one.
        eval_dataset (*optional*): Rows with `image`, `text` and `count`, images of any size. The predictions that
            `compute_metrics` gets are counts of whole images, as the labels are.
        processing_class ([`CLIPCountDensityProcessor`]): The model's processor.
        data_collator (*optional*): By default a [`DensityDataCollator`].
        kwargs: Further arguments of a `Trainer`.

    Source:
        Jiang et al., 2023, Sec. 3 (https://huggingface.co/papers/2305.07304).
    """

    args: DensityConfig

    def __init__(
        self,
        model: Any,
        args: DensityConfig,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        data_collator: Any = None,
        **kwargs: Any,
    ):
        require_model_type(model, "clip_count_density", "DensityTrainer", "CountingTrainer")
        if processing_class is None:
            raise ValueError("`processing_class` is missing: DensityTrainer needs the model's processor.")
        window_size = processing_class.image_processor.window_size
        if window_size != model.config.window_size:
            raise ValueError(
                f"The processor cuts windows of {window_size} pixels, but the model takes {model.config.window_size}. "
                "Load both from one checkpoint, or make their `window_size` equal."
            )
        if train_dataset is not None and not isinstance(train_dataset, DensityTrainingDataset):
            train_dataset = training_windows(train_dataset, processing_class, args)
        if not hasattr(model, "peft_config"):
            freeze(model, args.trainable)
        super().__init__(
            model=model,
            args=args,
            data_collator=DensityDataCollator(processing_class) if data_collator is None else data_collator,
            eval_collator=DensityEvalDataCollator(),
            epoch_listeners=() if train_dataset is None else (train_dataset,),
            train_dataset=train_dataset,
            eval_dataset=as_rows(eval_dataset),
            processing_class=processing_class,
            **kwargs,
        )
        self.add_callback(_IdleCallback(self))

    @property
    def is_contrastive(self) -> bool:
        """Whether the run is in its first epochs, which train the contrastive loss alone."""
        return (self.state.epoch or 0) < self.args.contrastive_epochs

    @property
    def has_trained_density(self) -> bool:
        """Whether the decoder has trained, so that counts mean something."""
        epochs = self.args.contrastive_epochs
        return epochs == 0 or (self.state.epoch or 0) > epochs

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        return self.has_trained_density and super()._determine_best_metric(metrics, trial)

    def idle_parameters(self) -> tuple[str, ...]:
        """Prefixes of the parameters that the current loss does not depend on."""
        if self.is_contrastive:
            return DENSITY_ONLY
        weights = self.model.config
        return () if weights.contrastive_loss_weight or weights.region_loss_weight else CONTRASTIVE_ONLY

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The contrastive loss in the first epochs, then the model's own loss."""
        outputs = model(**inputs)
        loss = outputs.loss
        if self.is_contrastive:
            loss = outputs.contrastive_loss
            if outputs.region_loss is not None:
                loss = loss + self.model.config.region_loss_weight * outputs.region_loss
        if self.args.world_size > 1:
            # DDP waits for a gradient of every parameter that the outputs depend on.
            loss = loss + 0.0 * (outputs.contrastive_loss + outputs.density_loss)
        if model.training:
            self._record("contrastive_loss", outputs.contrastive_loss)
            if outputs.region_loss is not None:
                self._record("region_loss", outputs.region_loss)
            self._record("density_loss", outputs.density_loss)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, torch.Tensor | None, torch.Tensor | None]:
        """
        Count in whole images, at most `per_device_eval_batch_size` windows at once.

        Returns:
            No loss, the predicted counts `(num_images,)` and the true ones.
        """
        if prediction_loss_only:
            return None, None, None
        inputs = self._prepare_inputs(inputs)
        if isinstance(model, FSDPModule):
            register_fsdp_forward_method(model, "get_text_embeds")
        counter = DensityCounter(
            model,
            self.processing_class,
            self.args.per_device_eval_batch_size,
            return_points=False,
            return_density_map=False,
        )
        requests = ((image, [text], None) for image, text in zip(inputs["images"], inputs["text"], strict=True))
        counts = []
        with self.accelerator.autocast(), self.compute_loss_context_manager():
            for counted in counter(requests):
                if counted.error is not None:
                    raise counted.error
                counts.append(counted.results[0]["count"])
        labels = inputs["labels"]
        return None, torch.tensor(counts, device=labels.device), labels

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As in `Trainer`, with groups for the towers where they have another learning rate."""
        if self.optimizer is None and self.args.clip_learning_rate is not None:
            opt_model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, opt_model)
            self.optimizer = optimizer_class(self._groups(opt_model), **options)
        return super().create_optimizer(model)

    def _groups(self, model: nn.Module) -> list[dict[str, Any]]:
        decays = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((name.startswith(TOWERS), name in decays), []).append(parameter)
        return [
            {
                "params": parameters,
                "weight_decay": self.args.weight_decay if decay else 0.0,
                "lr": self.args.clip_learning_rate if in_tower else self.args.learning_rate,
            }
            for (in_tower, decay), parameters in groups.items()
        ]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """As in `Trainer`, or steps every `lr_step_epochs` epochs."""
        step_epochs = self.args.lr_step_epochs
        if self.lr_scheduler is None and step_epochs is not None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            steps_per_epoch = self._steps_per_epoch()
            gamma = self.args.lr_step_gamma

            def factor(step: int) -> float:
                return min(1.0, (step + 1) / (warmup + 1)) * gamma ** math.floor(step / steps_per_epoch / step_epochs)

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _steps_per_epoch(self) -> int:
        batch_size = self.args.train_batch_size * self.args.world_size
        rounding = math.floor if self.args.dataloader_drop_last else math.ceil
        batches = rounding(len(self.train_dataset) / batch_size)
        return max(1, math.ceil(batches / self.args.gradient_accumulation_steps))


class DensityEarlyStoppingCallback(EarlyStoppingCallback):
    """
    Stops a run after `patience` evaluations without progress, from the epoch in which the density begins to train.
    """

    def __init__(self, trainer: DensityTrainer, patience: int):
        super().__init__(patience)
        self.trainer = trainer

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        """Compare the metrics with the best ones so far."""
        if self.trainer.has_trained_density:
            super().on_evaluate(args, state, control, metrics, **kwargs)


class _IdleCallback(TrainerCallback):
    """Removes the gradients of the parameters that the current loss does not train."""

    def __init__(self, trainer: DensityTrainer):
        self.trainer = trainer

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        idle = self.trainer.idle_parameters()
        for name, parameter in kwargs["model"].named_parameters():
            # With several processes it is zero, and weight decay and momentum would still act.
            if base_name(name).startswith(idle):
                parameter.grad = None


def training_windows(rows: Any, processor: Any, args: DensityConfig) -> DensityTrainingDataset:
    """Make the training samples of a run from map-style rows of the density schema."""
    probabilities = {
        name: getattr(args, name) for name in vars(DensityAugmentation()) if name.endswith("_probability")
    }
    return DensityTrainingDataset(
        rows,
        processor,
        augmentation=DensityAugmentation(**probabilities),
        seed=args.seed if args.data_seed is None else args.data_seed,
        sigma=args.density_sigma,
        resize=args.train_resize,
        scale_jitter=args.scale_jitter,
        prompts_per_image=args.prompts_per_image,
    )


def freeze(model: nn.Module, trainable: str) -> None:
    """Freeze the parts of a [`CLIPCountDensityModel`] that do not train; `trainable` is that of [`DensityConfig`]."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(FROZEN[trainable])


__all__ = ["DensityEarlyStoppingCallback", "DensityTrainer", "freeze", "training_windows"]
