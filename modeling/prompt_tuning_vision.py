"""Visual prompts as a PEFT method: learned tokens in the vision tower of a CLIP."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import nn

from .prompt_tuning_config import VisualPromptConfig
from .prompt_tuning_peft import PromptLayer, PromptTuner, check_tower


class VisualPromptLayer(PromptLayer):
    """
    Replaces a vision tower's first norm, holds the prompts of all depths, and inserts those of the first layer.

    Hooks on the later layers replace or remove them; wrappers would change the names to which LoRA refers.

    Args:
        base_layer (`nn.Module`): The norm.
        tower (`nn.Module`): The vision tower.
        after_patches (`bool`): Whether the prompts follow the patches, for a density model with built-in prompts
            before them. The order only affects rounding.
    """

    adapter_layer_names = ("clip_vpt_embeds", "clip_vpt_projection", "clip_vpt_norm")
    other_param_names = ("clip_vpt_dropout",)

    def __init__(self, base_layer: nn.Module, tower: Any, after_patches: bool) -> None:
        super().__init__(base_layer)
        self.patch_size = tower.embeddings.patch_size
        self.num_layers = len(tower.encoder.layers)
        self.after_patches = after_patches
        self.clip_vpt_embeds = nn.ParameterDict()
        self.clip_vpt_projection = nn.ModuleDict()
        self.clip_vpt_dropout = nn.ModuleDict()
        self.clip_vpt_norm = nn.ModuleDict()
        for index, layer in enumerate(tower.encoder.layers):
            if index:
                self.add_hook(layer, partial(self._before_layer, index), before=True)
        self.add_hook(tower.encoder.layers[-1], self._after_last_layer, before=False)

    def add_adapter(self, name: str, config: VisualPromptConfig) -> None:
        """Make the prompts of an adapter, with VPT's range: that of a Xavier-uniform patch embedding."""
        depth, width = config.depth, config.token_dim
        if depth is None or width is None:
            raise RuntimeError("The tuner must fill in `depth` and `token_dim` first.")
        bound = math.sqrt(6 / (3 * self.patch_size**2 + width))
        embeds = torch.empty(depth, config.num_virtual_tokens, width)
        self.clip_vpt_embeds[name] = nn.Parameter(nn.init.uniform_(embeds, -bound, bound))
        self.clip_vpt_dropout[name] = nn.Dropout(config.dropout)
        if config.projection:
            self.clip_vpt_projection[name] = projection = nn.Linear(width, width)
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        if config.norm:
            self.clip_vpt_norm[name] = nn.LayerNorm(width, eps=1e-6)
        self._move_adapter_to_device_of_base_layer(name)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Insert the prompts of the first layer into `(batch_size, 1 + num_patches, hidden_size)`, and norm."""
        return self.base_layer(self.exchange(hidden_states, 0), *args, **kwargs)

    def exchange(self, hidden_states: torch.Tensor, layer: int) -> torch.Tensor:
        """Exchange the prompts in a layer's output for those of the next layer (at the end, for none)."""
        names = self.acting(self.clip_vpt_embeds)
        if all(self._stays(name, layer) for name in names):
            return hidden_states
        lengths = [self.clip_vpt_embeds[name].shape[1] if self._is_seen(name, layer - 1) else 0 for name in names]
        first = hidden_states.shape[1] - sum(lengths) if self.after_patches else 1
        before, *prompts, after = hidden_states.split(
            [first, *lengths, hidden_states.shape[1] - first - sum(lengths)], dim=1
        )
        sequence = [before]
        for name, old in zip(names, prompts, strict=True):
            if self._stays(name, layer):
                sequence.append(old)
            elif self._is_seen(name, layer):
                sequence.append(self._tokens(name, layer, hidden_states))
        return torch.cat([*sequence, after], dim=1)

    def _before_layer(self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (self.exchange(args[0], layer), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.exchange(kwargs["hidden_states"], layer)}

    def _after_last_layer(self, module: nn.Module, args: tuple[Any, ...], hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.exchange(hidden_states, self.num_layers)
        for name in self.acting(self.clip_vpt_norm):
            norm: Any = self.clip_vpt_norm[name]
            hidden_states = norm(hidden_states.to(norm.weight.dtype)).to(hidden_states.dtype)
        return hidden_states

    def _is_seen(self, name: str, layer: int) -> bool:
        """Whether a layer sees prompts of an adapter."""
        depth = len(self.clip_vpt_embeds[name])
        return 0 <= layer < self.num_layers and (layer < depth or depth == 1)

    def _stays(self, name: str, layer: int) -> bool:
        """Whether an adapter changes nothing before a layer: no prompts, or shallow ones."""
        if layer < len(self.clip_vpt_embeds[name]):
            return False
        return self._is_seen(name, layer) == self._is_seen(name, layer - 1)

    def _tokens(self, name: str, layer: int, hidden_states: torch.Tensor) -> torch.Tensor:
        prompts = self.clip_vpt_embeds[name][layer]
        if name in self.clip_vpt_projection:
            prompts = self.clip_vpt_projection[name](prompts)
        prompts = prompts.expand(len(hidden_states), -1, -1)
        return self.clip_vpt_dropout[name](prompts).to(hidden_states.dtype)


class VisualPromptModel(PromptTuner):
    """Adds visual prompts to a model with the vision tower of a CLIP, which it changes in place."""

    prefix = "clip_vpt_"
    tuner_layer_cls = VisualPromptLayer

    def _prepare_tower(self, config: VisualPromptConfig, tower: Any, key: str) -> None:
        check_tower(config, tower, key, "vision", ("embeddings.patch_size", "pre_layrnorm", "encoder.layers"))
        layers = len(tower.encoder.layers)
        config.depth = layers if config.depth is None else config.depth
        if config.depth > layers:
            raise ValueError(
                f"`depth` is {config.depth}, but the vision tower has {layers} layers. Set `depth` to {layers} or "
                "less, or leave it out for all."
            )

    def _new_layer(self, target: nn.Module, tower: Any) -> PromptLayer:
        # A density model inserts its built-in prompts before the patches, and removes them by their number.
        return VisualPromptLayer(target, tower, after_patches=getattr(self.model, "visual_prompts", None) is not None)


__all__ = ["VisualPromptLayer", "VisualPromptModel"]
