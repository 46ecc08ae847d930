"""Convert the prompts of a density model to adapters and back, without rounding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import nn

from .modeling_clip_count_density import (
    CLIPCountDensityContextPrompts,
    CLIPCountDensityModel,
    CLIPCountDensityVisualPrompts,
)
from .prompt_tuning_config import ContextPromptConfig, VisualPromptConfig
from .prompt_tuning_stack import AdapterStack
from .prompt_tuning_text import ContextPromptLayer
from .prompt_tuning_vision import VisualPromptLayer


@torch.no_grad()
def prompts_to_adapter(model: CLIPCountDensityModel, base_folder: str | Path | None = None) -> AdapterStack:
    """
    Convert the prompts of a density model to adapters.

    Args:
        model ([`CLIPCountDensityModel`]): A model with prompts; not changed.
        base_folder (`str` or `Path`, *optional*):
            Folder for the base, a model without prompts, whose name the adapters then record.

    Returns:
        [`AdapterStack`] with the adapters `"visual"` and `"context"`, or one of them. Its outputs are the model's.

    Raises:
        ValueError: If the model has no prompts.
    """
    visual, context = model.visual_prompts, model.context_prompts
    if visual is None and context is None:
        raise ValueError("The density model has no prompts to export (`num_visual_prompts` and `num_context_tokens`).")
    base = copy.deepcopy(model)
    base.visual_prompts = base.context_prompts = None
    base.config.num_visual_prompts = base.config.num_context_tokens = 0
    base.name_or_path = base.config.name_or_path = str(base_folder or "")
    if base_folder is not None:
        base.save_pretrained(base_folder)
    configs: dict[str, PeftConfig] = {}
    if visual is not None:
        configs["visual"] = VisualPromptConfig(
            num_virtual_tokens=visual.num_prompts,
            depth=visual.depth,
            projection=True,
            dropout=visual.dropout.p,
            norm=True,
        )
    if context is not None:
        configs["context"] = ContextPromptConfig(num_virtual_tokens=len(context.context_embeds))
    stack = AdapterStack(base, configs, autocast_adapter_dtype=False)
    if visual is not None:
        layer = _visual_layer(base)
        layer.clip_vpt_embeds["visual"].copy_(visual.prompt_embeds)
        layer.clip_vpt_projection["visual"].load_state_dict(visual.projection.state_dict())
        layer.clip_vpt_norm["visual"].load_state_dict(visual.norm.state_dict())
    if context is not None:
        _context_layer(base).clip_coop_embeds["context"].copy_(context.context_embeds)
    return stack.train(model.training)


@torch.no_grad()
def adapter_to_prompts(model: PeftModel) -> CLIPCountDensityModel:
    """
    Convert the active adapters of a density model to its built-in prompts.

    Args:
        model (`PeftModel`): A density model without built-in prompts, with adapters; not changed.

    Returns:
        [`CLIPCountDensityModel`] without adapters, with the same outputs.

    Raises:
        ValueError: If the base is no density model or has built-in prompts in the tower, or if they cannot express an
            active adapter.
    """
    base: Any = model.get_base_model()
    if getattr(type(getattr(base, "config", None)), "model_type", None) != "clip_count_density":
        raise ValueError(f"Expected adapters on a density model, but their base is a {type(base).__name__}.")
    adapters = [name for name in model.active_adapters if name in model.peft_config]
    configs = [model.peft_config[name] for name in adapters]
    for name, config in zip(adapters, configs, strict=True):
        _check_form(name, config, base)
    if len({type(config) for config in configs}) < len(configs):
        raise ValueError("A density model holds one set of prompts in a tower, but several such adapters are active.")

    # Replaces the base's modules by those of `modules_to_save`.
    unloaded = copy.deepcopy(model).unload()
    for name, config in zip(adapters, configs, strict=True):
        if isinstance(config, VisualPromptConfig):
            _set_visual_prompts(unloaded, _visual_layer(base), name, config)
        else:
            embeds = _context_layer(base).clip_coop_embeds[name]
            unloaded.config.num_context_tokens = len(embeds)
            unloaded.context_prompts = CLIPCountDensityContextPrompts(unloaded.config).to(embeds)
            unloaded.context_prompts.context_embeds.copy_(embeds)
    for parameter in unloaded.parameters():
        parameter.requires_grad = True
    return unloaded.train(model.training)


def _set_visual_prompts(
    model: CLIPCountDensityModel, layer: VisualPromptLayer, name: str, config: VisualPromptConfig
) -> None:
    embeds = layer.clip_vpt_embeds[name]
    model.config.visual_prompt_depth, model.config.num_visual_prompts = len(embeds), embeds.shape[1]
    model.config.visual_prompt_dropout = config.dropout
    model.visual_prompts = prompts = CLIPCountDensityVisualPrompts(model.config).to(embeds)
    prompts.prompt_embeds.copy_(embeds)
    if name in layer.clip_vpt_projection:
        prompts.projection.load_state_dict(layer.clip_vpt_projection[name].state_dict())
    else:
        # A density model always has a projection: the identity.
        nn.init.eye_(prompts.projection.weight)
        nn.init.zeros_(prompts.projection.bias)
    prompts.norm.load_state_dict(layer.clip_vpt_norm[name].state_dict())


def _check_form(name: str, config: PeftConfig, base: CLIPCountDensityModel) -> None:
    if isinstance(config, VisualPromptConfig):
        own: nn.Module | None = base.visual_prompts
        fits = config.norm
        needed = "visual prompts with `norm=True`"
    elif isinstance(config, ContextPromptConfig):
        own, fits = base.context_prompts, config.position == "front" and config.class_token_ids is None
        needed = 'a shared context with `position="front"`'
    else:
        own, fits, needed = None, False, "visual and context prompts"
    if own is not None:
        raise ValueError(f"The density model already has prompts in the tower that adapter {name!r} tunes.")
    if not fits:
        raise ValueError(f"A density model cannot express the adapter {name!r}; it supports {needed}.")


def _visual_layer(base: CLIPCountDensityModel) -> VisualPromptLayer:
    return base.vision_model.pre_layrnorm


def _context_layer(base: CLIPCountDensityModel) -> ContextPromptLayer:
    return base.text_model.embeddings.token_embedding


__all__ = ["adapter_to_prompts", "prompts_to_adapter"]
