"""Adapters of different methods on one model, saved, loaded, switched and deleted together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from peft import PeftConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import CONFIG_NAME, PeftType
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from .prompt_tuning_peft import write_card


# The libraries whose classes an adapter may name as its base's.
_LIBRARIES = [__name__.split(".")[0], "transformers"]
_HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download")


class _StackTuner(BaseTuner):
    """Switches, deletes and unloads the layers of all methods."""

    prefix = "adapter_stack_"
    tuner_layer_cls = BaseTunerLayer
    target_module_mapping: dict[str, list[str]] = {}
    model: Any

    def __init__(self, model: Any) -> None:
        nn.Module.__init__(self)
        self.model = model
        self.peft_config: dict[str, PeftConfig] = model.peft_config
        self.targeted_module_names: list[str] = []
        self.targeted_parameter_names: list[str] = []
        self.active_adapter: str | list[str] = list(self.peft_config)

    def _create_and_replace(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("The layers are made by the tuners of the adapters' own methods.")

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's method copies the weight, which a module in `modules_to_save` need not have.
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        # Before the first layer is merged, or some would stay merged.
        for layer in self.model.modules():
            if isinstance(layer, BaseTunerLayer) and hasattr(layer, "check_merge"):
                layer.check_merge()
        super()._check_merge_allowed()

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Switch to these adapters; of several with the same `modules_to_save` only one may be among them."""
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        if names:
            super().set_adapter(names, inference_mode=inference_mode)
        else:
            # PEFT's method does not accept an empty list, its modules do.
            for module in self.model.modules():
                if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
                    module.set_adapter([])
        self.active_adapter = names

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; the others keep their state."""
        remaining = [name for name in self.active_adapters if name != adapter_name]
        self.set_adapter(remaining)
        del self.peft_config[adapter_name]
        for module in self.model.modules():
            if isinstance(module, BaseTunerLayer):
                module.delete_adapter(adapter_name)
            elif isinstance(module, AuxiliaryTrainingWrapper):
                active = [name for name in module.active_adapters if name != adapter_name]
                module.delete_adapter(adapter_name, new_active_adapters=active or None)


class AdapterStack(PeftModel):
    """
    A model with adapters of different methods: prompts in both towers, or prompts and LoRA.

    A `PeftModel` has adapters of one method only, a `PeftMixedModel` cannot save them, and nested `PeftModel`s do not
    load alone. Here each adapter is saved into a folder of its name and also loads alone with
    `PeftModel.from_pretrained`. All are active at first.

    Args:
        model (`nn.Module`): The base; changed in place.
        peft_config (`Mapping[str, PeftConfig]`): The adapters' names and configurations.
        autocast_adapter_dtype (`bool`, *optional*, defaults to `True`):
            Whether the adapters of a half-precision base are in float32.
        low_cpu_mem_usage (`bool`, *optional*, defaults to `False`):
            Whether to create the adapters on the meta device, to be filled from a file.

    Raises:
        ValueError: If `peft_config` is empty, two adapters would train the same module, or a method keeps its weights
            outside of layers.

    Example:

    ```python
    >>> configs = {"visual": VisualPromptConfig(depth=3), "low_rank": LoraConfig(target_modules=["q_proj"])}
    >>> model = AdapterStack(base, configs)
    >>> model.save_pretrained(folder)
    >>> model = AdapterStack.from_pretrained(base, folder)
    ```
    """

    base_model: Any

    def __init__(
        self,
        model: nn.Module,
        peft_config: Mapping[str, PeftConfig],
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
    ) -> None:
        if not peft_config:
            raise ValueError("Expected at least one adapter, but `peft_config` is empty.")
        configs = dict(peft_config)
        _check_together(configs)
        (name, config), *others = configs.items()
        _name_base(model, config)
        super().__init__(
            model,
            config,
            adapter_name=name,
            autocast_adapter_dtype=autocast_adapter_dtype,
            low_cpu_mem_usage=low_cpu_mem_usage,
        )
        self.base_model = _StackTuner(self.base_model.model)
        for name, config in others:
            self.add_adapter(name, config, low_cpu_mem_usage, autocast_adapter_dtype)
        self.set_adapter(list(configs), inference_mode=all(config.inference_mode for config in configs.values()))

    def add_adapter(
        self,
        adapter_name: str,
        peft_config: PeftConfig,
        low_cpu_mem_usage: bool = False,
        autocast_adapter_dtype: bool = True,
    ) -> None:
        """As in `PeftModel`, for any method. The new adapter is inactive until `set_adapter`."""
        if adapter_name in self.peft_config:
            raise ValueError(f"Adapter with name '{adapter_name}' already exists.")
        active, base = list(self.active_adapters), self.base_model.model
        _check_together({**self.peft_config, adapter_name: peft_config})
        _name_base(base, peft_config)
        tuner_class = _tuner_class(peft_config)
        try:
            with warnings.catch_warnings():
                # A stack has several adapters by design.
                warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
                tuner_class(base, {adapter_name: peft_config}, adapter_name, low_cpu_mem_usage=low_cpu_mem_usage)
        except BaseException:
            self.peft_config.pop(adapter_name, None)
            raise
        self.base_model._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        self.set_adapter(active, inference_mode=all(self.peft_config[name].inference_mode for name in active))

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Switch to one adapter or several, which train unless in `inference_mode`; the others are off."""
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        missing = [name for name in names if name not in self.peft_config]
        if missing or not names:
            raise ValueError(
                f"Expected adapters among {', '.join(self.peft_config)}, but got {', '.join(missing) or 'none'}."
            )
        self.base_model.set_adapter(names, inference_mode=inference_mode)
        self.active_adapter = names[0]

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter, but not the last one: `unload` returns the base."""
        if adapter_name not in self.peft_config:
            raise ValueError(f"Adapter {adapter_name} does not exist.")
        if len(self.peft_config) == 1:
            raise ValueError(f"{adapter_name!r} is the last adapter. Use `unload()` for the base alone.")
        self.base_model.delete_adapter(adapter_name)
        if self.base_model.active_adapters:
            self.active_adapter = self.base_model.active_adapters[0]
        else:
            self.active_adapter = next(iter(self.peft_config))

    def create_or_update_model_card(self, output_dir: str) -> None:
        """Write a card that names the base, its revision and all adapters."""
        super().create_or_update_model_card(output_dir)
        write_card(output_dir, list(self.peft_config.values()), list(self.peft_config))

    def save_pretrained(self, save_directory: str, *args: Any, **kwargs: Any) -> None:
        """Save each adapter into a folder of its name below `save_directory`, and a card for all."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            # Again, now that the weights can be counted.
            write_card(save_directory, list(self.peft_config.values()), list(self.peft_config))

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the names of the adapters are those of their folders
        cls,
        model: nn.Module,
        model_id: str | Path,
        is_trainable: bool = False,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        **kwargs: Any,
    ) -> AdapterStack:
        """
        Add saved adapters to a base.

        Args:
            model (`nn.Module`): The base; changed in place.
            model_id (`str` or `Path`): A folder of `save_pretrained`, or a name on the Hub.
            is_trainable (`bool`, *optional*, defaults to `False`): Whether they are trainable.
            autocast_adapter_dtype, low_cpu_mem_usage (`bool`, *optional*): As in the constructor.
            kwargs: `revision`, `cache_dir`, `token`, `local_files_only`.

        Returns:
            [`AdapterStack`].

        Raises:
            ValueError: If there are no adapters.
        """
        folders = adapter_folders(model_id, **kwargs)
        if not folders:
            raise ValueError(f"Expected folders with an {CONFIG_NAME} each in {str(model_id)!r}, but there is none.")
        configs = {name: PeftConfig.from_pretrained(str(path)) for name, path in folders.items()}
        for config in configs.values():
            config.inference_mode = not is_trainable
        stack = cls(model, configs, autocast_adapter_dtype, low_cpu_mem_usage)
        for name, path in folders.items():
            stack.load_adapter(str(path), name, is_trainable=is_trainable, low_cpu_mem_usage=low_cpu_mem_usage)
        return stack


def adapter_folders(name_or_path: str | Path, **hub_kwargs: Any) -> dict[str, Path]:
    """The folders of a saved [`AdapterStack`] (a folder or a name on the Hub), by the adapters' names."""
    folder = _folder_of(name_or_path, allow_patterns=["*/adapter_*"], **hub_kwargs)
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CONFIG_NAME}"))}


def _folder_of(name_or_path: str | Path, **hub_kwargs: Any) -> Path:
    """A local folder, or a snapshot of the repository of this name."""
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(str(name_or_path), **hub_kwargs))
    except HFValidationError as error:
        raise ValueError(
            f"There is no folder {str(name_or_path)!r}, and a name on the Hub is written 'owner/name'."
        ) from error


def load_adapted_model(name_or_path: str | Path, is_trainable: bool = False, **kwargs: Any) -> PeftModel:
    """
    Load adapters together with their base.

    PEFT's `AutoPeftModel` does this for one adapter, but needs `import_allowlist=["count_clip"]`, and fails for a CLIP
    if the adapter's folder has a tokenizer.

    Args:
        name_or_path (`str` or `Path`): The folder, or name on the Hub, of one adapter or an [`AdapterStack`].
        is_trainable (`bool`, *optional*, defaults to `False`): Whether the adapters are trainable.
        kwargs: For the Hub: `revision` (of the adapters), `cache_dir`, `token`, `local_files_only`; and for the base's
            `from_pretrained`: `dtype`, `device_map`, `attn_implementation`.

    Returns:
        `PeftModel`: For several adapters an [`AdapterStack`].

    Raises:
        ValueError: If there are no adapters, or they do not record their base.
    """
    hub_kwargs = {name: kwargs.pop(name) for name in _HUB_ARGUMENTS if name in kwargs}
    folder = _folder_of(name_or_path, **hub_kwargs)
    hub_kwargs.pop("revision", None)
    is_one = (folder / CONFIG_NAME).is_file()
    folders = [folder] if is_one else list(adapter_folders(folder).values())
    if not folders:
        raise ValueError(f"Expected {CONFIG_NAME} in {str(name_or_path)!r} or in folders below it, but found none.")
    config = PeftConfig.from_pretrained(str(folders[0]))
    if config.base_model_name_or_path is None:
        raise ValueError(
            f"The adapter in {str(name_or_path)!r} does not name its base. Load the base and use "
            "`PeftModel.from_pretrained(base, ...)`."
        )
    base = _base_class(config).from_pretrained(
        config.base_model_name_or_path, revision=config.revision, **hub_kwargs, **kwargs
    )
    if is_one:
        return PeftModel.from_pretrained(base, str(folder), is_trainable=is_trainable)
    return AdapterStack.from_pretrained(base, folder, is_trainable=is_trainable)


def _base_class(config: PeftConfig) -> Any:
    """The class of an adapter's base, from a trusted library."""
    mapping = getattr(config, "auto_mapping", None) or {}
    library, name = mapping.get("parent_library", ""), mapping.get("base_model_class", "")
    if library.split(".")[0] not in _LIBRARIES:
        raise ValueError(
            f"The base of the adapter is a {name!r} of {library!r}; only classes of {' and '.join(_LIBRARIES)} are "
            "loaded. Load the base and use `AdapterStack.from_pretrained(base, ...)`."
        )
    return getattr(import_module(library), name)


def _name_base(model: nn.Module, config: PeftConfig) -> None:
    """Record the name of the base, as `get_peft_model` does."""
    if config.base_model_name_or_path is None:
        config.base_model_name_or_path = model.__dict__.get("name_or_path") or None


def _tuner_class(config: PeftConfig) -> type[BaseTuner]:
    return PEFT_TYPE_TO_TUNER_MAPPING[PeftType(config.peft_type)]


def _check_together(configs: Mapping[str, PeftConfig]) -> None:
    saved: dict[str, str] = {}
    for name, config in configs.items():
        tuner_class = _tuner_class(config)
        method = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning or config.is_adaption_prompt or tuner_class.uses_shared_state:
            raise ValueError(
                f"Adapter {name!r} ({method}) keeps its weights outside of the layers and cannot be stacked with "
                "others. Use `get_peft_model` for it alone."
            )
        for module in getattr(config, "modules_to_save", None) or []:
            if module in saved:
                raise ValueError(
                    f"Both {saved[module]!r} and {name!r} train {module!r} (`modules_to_save`). Only one adapter may."
                )
            saved[module] = name


__all__ = ["AdapterStack", "adapter_folders", "load_adapted_model"]
