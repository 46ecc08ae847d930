"""Extensions of PEFT (0.21) for prompts: methods that it does not ship, their layers and tuners, and cards."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub import ModelCard
from peft import PeftConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_target_module_exists
from peft.utils import SAFETENSORS_WEIGHTS_NAME, PeftType, register_peft_method
from safetensors import safe_open
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers.utils.hub import resolve_revision


_ADDED: set[str] = set()
# PEFT's placeholder, and the mark of generated cards; a card without both was written by hand.
_PEFT_PLACEHOLDER = "[More Information Needed]"
_MARK = "<!-- Written by count-clip. Delete this line to keep your changes. -->"
_METHODS = {"CLIP_VPT": "visual prompts (VPT)", "CLIP_COOP": "context prompts (CoOp)", "LORA": "LoRA"}
_TEXT = """
{mark}

# {title} for a CLIP

{about}

```python
{code}
```
"""
_ABOUT = """Trained on a frozen base, which is not part of this repository.

- Base: {base}
- Revision of the base: {revision}
{adapters}"""
_CODE = """import count_clip  # pip install count-clip; registers these prompts with PEFT
from peft import PeftModel

model = count_clip.load_adapted_model("THIS")  # base and adapters
model = {loader}.from_pretrained(base, "THIS")  # on a base that is loaded already"""


def add_peft_type(name: str) -> PeftType:
    """
    Return the member of `PeftType` with this name (in capitals, as in `adapter_config.json`), added if it is missing.

    `register_peft_method` takes members only, and Python closes an enumeration: the member is made as in `EnumType`.
    """
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        setattr(member, "__objclass__", PeftType)  # noqa: B010  # no attribute that a type checker knows
        setattr(member, "_sort_order_", len(PeftType._member_names_))  # noqa: B010
        PeftType._member_names_.append(name)
        PeftType._member_map_[name] = member
        PeftType._value2member_map_[name] = member
        type.__setattr__(PeftType, name, member)
    return PeftType[name]


def add_peft_method(name: str, config_class: type[PeftConfig], tuner_class: type[BaseTuner]) -> None:
    """Register a method that PEFT does not ship; registering it again replaces the classes."""
    peft_type = add_peft_type(name)
    if peft_type in PEFT_TYPE_TO_CONFIG_MAPPING:
        PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] = config_class
        PEFT_TYPE_TO_TUNER_MAPPING[peft_type] = tuner_class
    else:
        register_peft_method(name=name.lower(), config_cls=config_class, model_cls=tuner_class)
    _ADDED.add(name)


def keep_cards() -> None:
    """
    Have `push_to_hub` upload the cards of added methods, which it (transformers 5.23) overwrites with a template.

    A second call changes nothing.
    """
    upload = PeftModel._upload_modified_files
    if hasattr(upload, "__wrapped__"):
        return

    @wraps(upload)
    def upload_with_card(self: PeftModel, working_dir: str, *args: Any, **kwargs: Any) -> Any:
        if any(config.peft_type in _ADDED for config in self.peft_config.values()):
            # The adapter "default" is saved in the folder itself.
            names = ["" if name == "default" else name for name in self.peft_config]
            write_card(working_dir, list(self.peft_config.values()), names)
        return upload(self, working_dir, *args, **kwargs)

    setattr(PeftModel, "_upload_modified_files", upload_with_card)  # noqa: B010  # mypy: assigning to a method


class PromptLayer(nn.Module, BaseTunerLayer):
    """
    A module of the base with prompts, which registers hooks on other modules while any of its prompts are active.

    Args:
        base_layer (`nn.Module`): The module that it replaces.
    """

    base_layer: Any

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        # In lists, so that PyTorch does not register the modules as children.
        self._hooks: list[tuple[nn.Module, Callable[..., Any], bool]] = []
        self._handles: list[RemovableHandle] = []

    def add_hook(self, module: nn.Module, hook: Callable[..., Any], before: bool) -> None:
        """Call a hook before (with keywords) or after a module, while prompts are active."""
        self._hooks.append((module, hook, before))

    def _update_hooks(self) -> None:
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
        """As in PEFT."""
        super().set_adapter(adapter_names, inference_mode=inference_mode)
        self._update_hooks()

    def enable_adapters(self, enabled: bool) -> None:
        """As in PEFT."""
        super().enable_adapters(enabled)
        self._update_hooks()

    def delete_adapter(self, adapter_name: str) -> None:
        """As in PEFT."""
        super().delete_adapter(adapter_name)
        self._update_hooks()

    @abstractmethod
    def add_adapter(self, name: str, config: Any) -> None:
        """Make the prompts of an adapter."""

    def update_layer(self, name: str, config: PeftConfig) -> None:
        """Add an adapter, active if the layer's active adapters include its name."""
        self.add_adapter(name, config)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def acting(self, adapters: Iterable[str]) -> list[str]:
        """The active adapters, sorted, so that saving and loading keeps their order."""
        if self.disable_adapters:
            return []
        active = self.active_adapters
        return sorted(name for name in adapters if name in active)

    def check_merge(self) -> NoReturn:
        """Raise an error: prompts cannot be merged."""
        raise ValueError(
            "Prompts are inputs and cannot be merged into the base. Keep the adapter, or call `unload()` for "
            "the base alone. `adapter_to_prompts` converts them to a density model's built-in prompts."
        )

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Raise an error: prompts cannot be merged."""
        self.check_merge()

    def unmerge(self) -> None:
        """Do nothing: prompts are never merged."""

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """Return the base's module and remove the hooks."""
        if merge:
            self.check_merge()
        super().enable_adapters(False)
        self._update_hooks()
        return self.base_layer


class PromptTuner(BaseTuner):
    """Puts [`PromptLayer`]s into a model, which it changes in place."""

    target_module_mapping: dict[str, list[str]] = {}

    def __init__(self, model: nn.Module, peft_config: Any, adapter_name: str, **kwargs: Any) -> None:
        existing = getattr(model, "peft_config", None) or {}
        config = peft_config if isinstance(peft_config, PeftConfig) else peft_config[adapter_name]
        if existing.get(adapter_name, config) is not config:
            raise ValueError(
                f"The model already has an adapter {adapter_name!r}. Choose another name, "
                '`get_peft_model(..., adapter_name="...")`, or use `AdapterStack`.'
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
                f"{type(model).__name__}. It needs a CLIP with that tower; {other} tunes the other tower."
            )
        for key in keys:
            self._prepare_tower(peft_config, _tower(model, key), key)

    @abstractmethod
    def _prepare_tower(self, config: Any, tower: nn.Module, key: str) -> None:
        """Check that an adapter fits a tower, and fill in the missing fields of its configuration."""

    @abstractmethod
    def _new_layer(self, target: nn.Module, tower: nn.Module) -> PromptLayer:
        """Make the layer that replaces a target."""

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
        # PEFT's method copies the weight, which a module in `modules_to_save` need not have.
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        for layer in self.model.modules():
            if isinstance(layer, PromptLayer):
                layer.check_merge()


def _tower(model: nn.Module, key: str) -> nn.Module:
    """The tower of a target: the nearest module around it that has an encoder."""
    names = key.split(".")[:-1]
    while names and not hasattr(model.get_submodule(".".join(names)), "encoder"):
        names.pop()
    return model.get_submodule(".".join(names))


def check_tower(config: Any, tower: nn.Module, key: str, modality: str, attributes: Iterable[str]) -> None:
    """Check that the module around a target is a CLIP tower of the configured sizes; fill in missing sizes."""
    for attribute in attributes:
        try:
            attrgetter(attribute)(tower)
        except AttributeError:
            raise ValueError(
                f"Expected {key!r} in the {modality} tower of a CLIP, but {type(tower).__name__} has no "
                f"`{attribute}`. Leave `target_modules` out to tune every such tower."
            ) from None
    found = {"token_dim": tower.config.hidden_size, "num_layers": len(tower.encoder.layers)}  # type: ignore[union-attr, arg-type]  # a CLIP's
    made_for = {name: getattr(config, name) if getattr(config, name) is not None else found[name] for name in found}
    if made_for != found:
        raise ValueError(
            f"The adapter is for a {modality} tower of {made_for['num_layers']} layers of width "
            f"{made_for['token_dim']}, but that of the base has {found['num_layers']} of width {found['token_dim']}. "
            "Load it on the base that it was trained on, or make a new configuration for a new adapter."
        )
    config.token_dim, config.num_layers = found["token_dim"], found["num_layers"]


def write_card(folder: str | Path, configs: Sequence[PeftConfig], names: Sequence[str] = ("",)) -> None:
    """
    Write the card of adapters of the same base; the text of a card written by hand stays.

    Args:
        folder (`str` or `Path`): The folder of the adapters, each in a subfolder of its name.
        configs (`Sequence[PeftConfig]`): Their configurations.
        names (`Sequence[str]`, *optional*): Their names; empty for one in the folder itself.
    """
    path = Path(folder, "README.md")
    card = ModelCard.load(path) if path.is_file() else ModelCard("---\nlibrary_name: peft\n---\n")
    base = configs[0].base_model_name_or_path
    on_hub = base is not None and not Path(base).exists()
    tags = {tag for tag in card.data.tags or [] if not tag.startswith("base_model:")}
    card.data.base_model = base if on_hub else None
    card.data.tags = sorted(tags | ({f"base_model:adapter:{base}"} if on_hub else set()) | {"prompt-tuning"})
    if not card.text.strip() or _PEFT_PLACEHOLDER in card.text or _MARK in card.text:
        about, code = describe_adapters(folder, configs, names)
        title = ", ".join(dict.fromkeys(_method(config) for config in configs))
        card.text = _TEXT.format(mark=_MARK, title=title[0].upper() + title[1:], about=about, code=code)
    card.save(path)


def describe_adapters(
    folder: str | Path, configs: Sequence[PeftConfig], names: Sequence[str] = ("",)
) -> tuple[str, str]:
    """A text on adapters and their base, and the code that loads them from `"THIS"`; see [`write_card`]."""
    base, revision = configs[0].base_model_name_or_path, configs[0].revision
    lines = [
        f"- {f'`{name}`: ' if name else ''}{_method(config)}{_size(Path(folder, name))}"
        for name, config in zip(names, configs, strict=True)
    ]
    about = _ABOUT.format(
        base=f"`{base}`" if base else "unknown, without a name when the adapter was saved",
        revision=_revision(base, revision) if base and not Path(base).exists() else "none, it is not on the Hub",
        adapters="\n".join(lines),
    )
    return about, _CODE.format(loader="count_clip.AdapterStack" if any(names) else "PeftModel")


def _method(config: PeftConfig) -> str:
    method = str(getattr(config.peft_type, "value", config.peft_type))
    return _METHODS.get(method, method)


def _size(folder: Path) -> str:
    """The number of a saved adapter's parameters."""
    path = folder / SAFETENSORS_WEIGHTS_NAME
    if not path.is_file():
        return ""
    with safe_open(path, framework="pt") as file:
        return f", {sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys()):,} parameters"  # noqa: SIM118


def _revision(base: str, revision: str | None) -> str:
    """The revision, and its commit if it is in the cache; without the network."""
    commit = getattr(resolve_revision(base, revision, local_files_only=True), "resolved", None)
    shown = f"`{revision or 'main'}`"
    return shown if commit in (None, revision) else f"{shown}, at the time `{commit}`"


__all__ = [
    "PromptLayer",
    "PromptTuner",
    "add_peft_method",
    "add_peft_type",
    "check_tower",
    "describe_adapters",
    "keep_cards",
    "write_card",
]
