"""What the tuners of visual and of context prompts share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, NoReturn

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_target_module_exists
from torch import nn
from torch.utils.hooks import RemovableHandle


class PromptLayer(nn.Module, BaseTunerLayer):
    """
    A module of the base with prompts beside it, and hooks on other modules while prompts take part.

    Without prompts (none active, adapters disabled or unloaded) there are no hooks either: the base runs as it would
    have run, by its fast ways too.

    Args:
        base_layer (`nn.Module`): The module in whose place it stands.
    """

    base_layer: Any

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        # In lists, where PyTorch does not take the modules for parts of this one.
        self._hooks: list[tuple[nn.Module, Callable[..., Any], bool]] = []
        self._handles: list[RemovableHandle] = []

    def add_hook(self, module: nn.Module, hook: Callable[..., Any], before: bool) -> None:
        """Have a hook called before (with keywords) or after a module, while prompts take part."""
        self._hooks.append((module, hook, before))

    def _watch(self) -> None:
        if not self.acting(getattr(self, self.adapter_layer_names[0])):
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
        elif not self._handles:
            self._handles += [
                module.register_forward_pre_hook(hook, with_kwargs=True)
                if before
                else module.register_forward_hook(hook)
                for module, hook, before in self._hooks
            ]

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """As in every tuner layer."""
        super().set_adapter(adapter_names, inference_mode=inference_mode)
        self._watch()

    def enable_adapters(self, enabled: bool) -> None:
        """As in every tuner layer."""
        super().enable_adapters(enabled)
        self._watch()

    def delete_adapter(self, adapter_name: str) -> None:
        """As in every tuner layer."""
        super().delete_adapter(adapter_name)
        self._watch()

    @abstractmethod
    def add_adapter(self, name: str, config: Any) -> None:
        """Make the prompts of an adapter."""

    def update_layer(self, name: str, config: PeftConfig) -> None:
        """Add an adapter; it is as active as the layer's active names say."""
        self.add_adapter(name, config)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def acting(self, adapters: Iterable[str]) -> list[str]:
        """Those of the layer's adapters that take part, by name: the order must not change with saving and loading."""
        if self.disable_adapters:
            return []
        active = self.active_adapters
        return sorted(name for name in adapters if name in active)

    def check_merge(self) -> NoReturn:
        """Refuse to merge."""
        raise ValueError(
            "Prompts are inputs, not changes of weights: they cannot be merged into the base. Keep the adapter beside "
            "it, or call `unload()` for the base alone. The prompts of a density model can become its own again, with "
            "`adapter_to_prompts`."
        )

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse to merge."""
        self.check_merge()

    def unmerge(self) -> None:
        """Nothing is ever merged."""

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """Give the base's own module back, and take the hooks away."""
        if merge:
            self.check_merge()
        super().enable_adapters(False)
        self._watch()
        return self.base_layer


class PromptTuner(BaseTuner):
    """
    Puts [`PromptLayer`]s into a model.

    Args:
        model (`nn.Module`): The model; changed in place.
        peft_config: The adapter's configuration.
        adapter_name (`str`): The adapter's name.
        kwargs: `low_cpu_mem_usage` and `state_dict`, as in every tuner.
    """

    target_module_mapping: dict[str, list[str]] = {}

    def __init__(self, model: nn.Module, peft_config: Any, adapter_name: str, **kwargs: Any) -> None:
        there = getattr(model, "peft_config", None) or {}
        config = peft_config if isinstance(peft_config, PeftConfig) else peft_config[adapter_name]
        if there.get(adapter_name, config) is not config:
            raise ValueError(
                f"The model has an adapter of the name {adapter_name!r} already, and one more of another method must "
                'not replace it. Give it a name of its own: `get_peft_model(..., adapter_name="...")`, or use '
                "`AdapterStack`."
            )
        super().__init__(model, peft_config, adapter_name, **kwargs)

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> Any:
        if peft_config.target_modules is None:
            peft_config.target_modules = peft_config.TARGET
        return peft_config

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        keys = [key for key, _ in model.named_modules() if key and check_target_module_exists(peft_config, key)]
        if not keys:
            other = "ContextPromptConfig" if peft_config.METHOD == "CLIP_VPT" else "VisualPromptConfig"
            raise ValueError(
                f"{type(peft_config).__name__} found no module {peft_config.target_modules!r} in the "
                f"{type(model).__name__}. It needs a CLIP with the tower that it tunes; {other} tunes the other tower."
            )
        for key in keys:
            self._prepare_tower(peft_config, _tower(model, key), key)

    @abstractmethod
    def _prepare_tower(self, config: Any, tower: nn.Module, key: str) -> None:
        """Check that an adapter fits a tower, and fill in what the configuration leaves to it."""

    @abstractmethod
    def _new_layer(self, target: nn.Module, tower: nn.Module) -> PromptLayer:
        """Make the layer that stands in the place of a target."""

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, PromptLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = self._new_layer(target, _tower(self.model, current_key))
        layer._active_adapter = self.active_adapter
        layer.update_layer(adapter_name, peft_config)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's own gives a module that is put back the weight of the one in its place, which what `modules_to_save`
        # names need not have. The prompts are on the right device already.
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        for layer in self.model.modules():
            if isinstance(layer, PromptLayer):
                layer.check_merge()


def _tower(model: nn.Module, key: str) -> nn.Module:
    """The tower that a target belongs to: the nearest module around it that has an encoder."""
    parts = key.split(".")[:-1]
    while parts and not hasattr(model.get_submodule(".".join(parts)), "encoder"):
        parts.pop()
    return model.get_submodule(".".join(parts))


def check_tower(config: Any, tower: nn.Module, key: str, kind: str, parts: Iterable[str]) -> None:
    """
    Check that a module is a tower of a CLIP and of the sizes that an adapter was made for.

    Args:
        config ([`VisualPromptConfig`] or [`ContextPromptConfig`]): The adapter's configuration; its `token_dim` and
            `num_layers` are filled in where they are not known yet.
        tower (`nn.Module`): The module.
        key (`str`): The name of the target inside of it, for messages.
        kind (`str`): `"vision"` or `"text"`, for messages.
        parts (`Iterable[str]`): Attributes that such a tower has.

    Raises:
        ValueError: If it is not.
    """
    for part in parts:
        try:
            attrgetter(part)(tower)
        except AttributeError:
            raise ValueError(
                f"Expected {key!r} to lie in the {kind} tower of a CLIP, but {type(tower).__name__} has no `{part}`. "
                "Leave `target_modules` out to tune every such tower."
            ) from None
    found = {"token_dim": tower.config.hidden_size, "num_layers": len(tower.encoder.layers)}  # type: ignore[union-attr, arg-type]  # a CLIP's
    made_for = {name: getattr(config, name) if getattr(config, name) is not None else found[name] for name in found}
    if made_for != found:
        raise ValueError(
            f"The adapter is for a {kind} tower of {made_for['num_layers']} layers that are {made_for['token_dim']} "
            f"wide, but the one of the base has {found['num_layers']} layers that are {found['token_dim']} wide. Load "
            "it on the base that it was trained on, or make a new configuration for a new adapter."
        )
    config.token_dim, config.num_layers = found["token_dim"], found["num_layers"]


__all__ = ["PromptLayer", "PromptTuner", "check_tower"]
