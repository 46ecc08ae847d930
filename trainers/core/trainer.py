"""The base of the trainers: exact resumption, parts of the loss in the log, evaluation batches, decay groups."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import TrainingArguments
from transformers.trainer_pt_utils import get_parameter_names
from transformers.utils import logging, strtobool

from count_clip.modeling.prompt_tuning import AdapterStack

from ..hub.push import HubTrainer, take_token
from .rows import as_rows
from .sampling import EpochCallback, EpochSampler


logger = logging.get_logger(__name__)

# No weight decay for these; norms are excluded by their class.
NO_DECAY = [
    r"(^|\.)bias$",
    r"logit_scale$",
    r"class_embedding$",
    r"position_embedding",
    r"(prompt|context)_embeds$",
    r"clip_(vpt|coop)_embeds\.",  # of adapters; their names follow
]


class BaseTrainer(HubTrainer):
    """
    The base class of the trainers.

    `data_collator` makes the batches of training, `eval_collator` those of `evaluate` and `predict`; `epoch_listeners`
    are objects with `set_epoch`. The other arguments are those of a `Trainer`.
    """

    # The losses are means over a batch.
    loss_is_scaled_for_ga = False

    data_collator: Any
    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        data_collator: Callable[..., Any],
        eval_collator: Callable[..., Any],
        epoch_listeners: tuple[Any, ...] = (),
        **kwargs: Any,
    ):
        self.eval_collator = eval_collator
        self._loss_parts: dict[str, list[torch.Tensor]] = {}
        if args.n_gpu > 1:
            # `torch.nn.DataParallel` divides each tensor of a batch by its rows, which do not correspond here.
            logger.warning(f"One of the {args.n_gpu} GPUs is used. Start with `accelerate launch` to use them all.")
            args._n_gpu = 1
        self._hub_token = take_token(args)
        super().__init__(model=model, args=args, data_collator=data_collator, **kwargs)
        self._epoch_callback = EpochCallback(*epoch_listeners)
        self.add_callback(self._epoch_callback)
        if strtobool(os.environ.get("ACCELERATE_USE_FSDP", "false")) and not self.is_fsdp_enabled:
            logger.warning_once(
                "No FSDP here: accelerate shards a model over accelerators only, and without them every process "
                "trains a whole one (DDP)."
            )

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        divides = self.is_fsdp_enabled and getattr(self.accelerator.state.fsdp_plugin, "fsdp_version", 1) == 2
        if divides:
            self._replicate_scalars()
        prepared = super()._prepare_for_training(*args, **kwargs)
        model_class = type(self.model)
        if divides and issubclass(model_class, FSDPModule):
            # FSDP2 derives a class from the model's. transformers 5.23 saves the code of the class that it finds by
            # name, which has to be the model's.
            plain_class = model_class.__mro__[2]
            model_class.__module__, model_class.__name__ = plain_class.__module__, plain_class.__name__
        return prepared

    def _replicate_scalars(self) -> None:
        """
        Replicate scalar parameters, since FSDP2 cannot shard tensors without an axis, as the logit scale (torch 2.13).
        """
        plugin = self.accelerator.state.fsdp_plugin
        if plugin.cpu_ram_efficient_loading:
            raise ValueError(
                "FSDP2 cannot shard the logit scale of a model that only one process loads. Set "
                "`fsdp_cpu_ram_efficient_loading: false` in the configuration of accelerate."
            )
        scalars = [parameter for parameter in self.model.parameters() if parameter.dim() == 0]
        for parameter in scalars:
            parameter.data = parameter.data.to(self.args.device)  # FSDP2 moves only what it shards
        plugin.ignored_modules = [*(plugin.ignored_modules or []), nn.ParameterList(scalars)]

        def average(parameter: torch.Tensor) -> None:
            # FSDP2 does not average ignored parameters. Once, after the last accumulated batch.
            if self.accelerator.sync_gradients and parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()

        for parameter in scalars:
            if parameter.requires_grad and not getattr(parameter, "_is_averaged", False):
                parameter.register_post_accumulate_grad_hook(average)
                parameter._is_averaged = True

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        train_dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "random" or not hasattr(train_dataset, "__len__"):
            return super()._get_train_sampler(train_dataset)
        sampler = self._epoch_sampler(train_dataset)
        listeners = self._epoch_callback.listeners
        listeners[:] = [x for x in listeners if not isinstance(x, EpochSampler)] + [sampler]
        return sampler

    def _epoch_sampler(self, train_dataset: Any) -> EpochSampler:
        return EpochSampler(len(train_dataset), seed=self._data_seed)

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """The training batches."""
        return _with_own_generator(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        """The batches of an evaluation set, as the evaluation collator makes them."""
        with self._evaluation_batches():
            return _with_own_generator(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> torch.utils.data.DataLoader:
        """The batches of a test set, as the evaluation collator makes them."""
        with self._evaluation_batches():
            return super().get_test_dataloader(as_rows(test_dataset))

    def evaluate(self, eval_dataset: Any = None, **kwargs: Any) -> dict[str, float]:
        """As in `Trainer`; errors name images that cannot be read."""
        return super().evaluate(as_rows(eval_dataset), **kwargs)

    @contextmanager
    def _evaluation_batches(self) -> Iterator[None]:
        collator, drop_last = self.data_collator, self.args.dataloader_drop_last
        # `Trainer` would drop the last rows of an evaluation, too.
        self.data_collator, self.args.dataloader_drop_last = self.eval_collator, False
        try:
            yield
        finally:
            self.data_collator, self.args.dataloader_drop_last = collator, drop_last

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that decay: no biases, norms, logit scale, positions, class embedding or prompts."""
        names = get_parameter_names(model, [nn.LayerNorm, nn.GroupNorm])
        return [name for name in names if not any(re.search(pattern, name) for pattern in NO_DECAY)]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        stack = self.model if model is None else model
        if isinstance(stack, AdapterStack):
            self._load_stack(stack, resume_from_checkpoint)
            return
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise ValueError(
                f"The checkpoint {resume_from_checkpoint} is of another model: its weights have other sizes than "
                "those of this run. Choose another `output_dir`, or move the checkpoint away."
            ) from error

    def _load_best_model(self) -> None:
        if isinstance(self.model, AdapterStack) and self.state.best_model_checkpoint is not None:
            self._load_stack(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _load_stack(self, stack: AdapterStack, folder: str) -> None:
        """Load all adapters of a checkpoint; `Trainer` loads only the first."""
        training = stack.training
        for name in stack.peft_config:
            stack.load_adapter(str(Path(folder, name)), name, is_trainable=True)
        stack.train(training)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`."""
        self._loss_parts.clear()
        return super().train(*args, **kwargs)

    def _record(self, name: str, value: torch.Tensor, weight: float = 1.0) -> None:
        """Keep a part of the loss until the next log; `weight` is its share in the mean."""
        part = torch.stack([value.detach().float(), torch.tensor(float(weight), device=value.device)])
        self._loss_parts.setdefault(name, []).append(part)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `Trainer`, with the parts of the loss as means over the steps since the last log and all processes."""
        if "loss" in logs and self._loss_parts:
            for name in sorted(self._loss_parts):
                steps = torch.stack(self._loss_parts[name])  # (steps, 2)
                gathered = self.accelerator.gather(steps[None])  # (processes, steps, 2)
                values, weights = gathered[..., 0].mean(dim=0), gathered[..., 1].sum(dim=0)
                logs[name] = float((values * weights).sum() / weights.sum().clamp(min=1e-9))
            self._loss_parts.clear()
        super().log(logs, start_time)


def _with_own_generator(loader: Any) -> Any:
    """
    Give a data loader its own generator: a resumed run starts persistent workers once more, and dropout would differ.
    """
    base = getattr(loader, "base_dataloader", loader)
    if base.generator is None:
        base.generator = torch.Generator().manual_seed(0)
    return loader


def base_name(name: str) -> str:
    """Remove the prefix of adapters from the name of a parameter."""
    return name.removeprefix("base_model.model.")


def require_model_type(model: Any, expected: str, trainer: str, other: str) -> None:
    """Raise a `ValueError` unless a model is of the expected type; the message names the trainer and the other one."""
    # By name: a model loaded as remote code has other classes.
    found = getattr(type(model.config), "model_type", None)
    if found != expected:
        raise ValueError(
            f"{trainer} trains models of type `{expected}`, but got a {type(model).__name__} of type {found!r}. "
            f"Use {other}, or load a checkpoint of the right model."
        )


__all__ = ["BaseTrainer", "base_name", "require_model_type"]
