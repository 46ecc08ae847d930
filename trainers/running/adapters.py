"""What the `peft` key of a run means: which adapters a model gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from transformers import TrainingArguments
from transformers.utils import logging

from count_clip.modeling.prompt_tuning import AdapterStack, ContextPromptConfig, VisualPromptConfig

from .arguments import check_keys, convert, unknown_key


logger = logging.get_logger(__name__)

# Beside PEFT's own names for its methods.
TYPES = {"visual_prompt": "CLIP_VPT", "context_prompt": "CLIP_COOP"}
# What is not for a file to say.
_NOT_KEYS = ("peft_type", "task_type", "base_model_name_or_path", "inference_mode", "auto_mapping", "peft_version")
# Where LoRA and its like go if nothing is said, as in CLIPs elsewhere: the towers' queries and values.
DEFAULT_TARGETS = r"(.*\.)?(text_model|vision_model)\.encoder\.layers\.\d+\.self_attn\.(q_proj|v_proj)"


def adapter_configs(
    spec: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str, tokenizer: Any
) -> dict[str, PeftConfig]:
    """
    Read the `peft` key.

    Args:
        spec (`Mapping`, `Sequence[Mapping]` or `str`): One adapter or several: `type` (`visual_prompt`,
            `context_prompt`, or a method of PEFT such as `lora`), perhaps a `name`, and fields of the type's
            configuration. A text alone is a type.
        tokenizer: Reads the texts that context prompts start from.

    Returns:
        `dict[str, PeftConfig]`: Names and configurations. One adapter without a name is `"default"`.

    Raises:
        ValueError: If a type or a key is unknown, a value is of the wrong type, or two adapters have one name.
    """
    several = not isinstance(spec, Mapping | str)
    configs: dict[str, PeftConfig] = {}
    for part in spec if not isinstance(spec, Mapping | str) else [spec]:
        options = {"type": part} if isinstance(part, str) else dict(part)
        kind = options.pop("type", None)
        # PEFT does not like the name of a method for that of an adapter.
        name = str(options.pop("name", f"{kind}_adapter" if several else "default"))
        if name in configs:
            raise ValueError(f"Two adapters of `peft` are called {name!r}. Give each a `name` of its own.")
        configs[name] = _config(kind, options, tokenizer)
    if not configs:
        raise ValueError("`peft` is an empty list. Leave it out to train the model itself.")
    return configs


def _config(kind: Any, options: dict[str, Any], tokenizer: Any) -> PeftConfig:
    where = f"in `peft` ({kind})"
    method = TYPES.get(kind, kind.upper() if isinstance(kind, str) else "")
    if method not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = [
            *TYPES,
            *sorted(one.value.lower() for one in PEFT_TYPE_TO_CONFIG_MAPPING if one not in TYPES.values()),
        ]
        raise ValueError(unknown_key(str(kind), known, "as `type` of `peft`").replace("Unknown key", "Unknown method"))
    config_class: Any = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method)]
    keys = [field.name for field in dataclasses.fields(config_class) if field.init and field.name not in _NOT_KEYS]
    check_keys(options, keys, where.removeprefix("in "))
    if config_class in (VisualPromptConfig, ContextPromptConfig):
        options = convert((config_class,), options, where)
    if config_class is ContextPromptConfig and options.get("tokenizer_name_or_path") is None:
        for texts, tokens in (("init_text", "init_token_ids"), ("class_names", "class_token_ids")):
            if options.get(texts) is not None and options.get(tokens) is None:
                options[tokens] = tokenizer(options[texts], add_special_tokens=False)["input_ids"]
    if "target_modules" in keys and config_class not in (VisualPromptConfig, ContextPromptConfig):
        options.setdefault("target_modules", DEFAULT_TARGETS)
    try:
        config = config_class(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Wrong value {where}: {error}") from error
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ValueError(f"{kind!r} {where} is for language models. Use {' or '.join(TYPES)} for a CLIP's prompts.")
    return config


def add_adapters(model: Any, configs: Mapping[str, PeftConfig]) -> PeftModel:
    """
    Put adapters on a model; from then on they train, with their `modules_to_save`, and nothing else.

    Args:
        model: The model; changed in place.
        configs (`Mapping[str, PeftConfig]`): From [`adapter_configs`].

    Returns:
        `PeftModel`; with several adapters, or one with a name, an [`AdapterStack`].
    """
    if list(configs) == ["default"]:
        return get_peft_model(model, configs["default"])
    return AdapterStack(model, configs)


def leave_room(processor: Any, configs: Mapping[str, PeftConfig]) -> None:
    """
    Have a processor leave the positions to a text that context prompts leave to it.

    Args:
        processor: The processor of the base; changed in place.
        configs (`Mapping[str, PeftConfig]`): Of adapters that were made.
    """
    taken = sum(
        config.num_virtual_tokens or 0 for config in configs.values() if isinstance(config, ContextPromptConfig)
    )
    if hasattr(processor, "num_context_tokens"):
        processor.num_context_tokens += taken
    else:
        processor.max_text_length -= taken


def name_base(model: Any, processor: Any, name: str | None, args: TrainingArguments) -> None:
    """
    See to it that adapters can say which base they belong to.

    Args:
        model: The base.
        processor: Its processor.
        name (`str`, *optional*): Where it was loaded from, if loading it from there again gives the same base.
            Otherwise it is saved into the folder `base` of the run.
        args (`TrainingArguments`): Say where the run writes.
    """
    if name is None:
        folder = base_folder(args)
        if args.process_index == 0:
            logger.warning(f"The adapters need a base to be loaded on; it is saved in {folder}.")
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        name = str(folder)
    model.name_or_path = model.config.name_or_path = name


def base_folder(args: TrainingArguments) -> Path:
    """Where a run saves the base of its adapters if it is saved nowhere else."""
    return Path(str(args.output_dir), "base")


__all__ = ["TYPES", "adapter_configs", "add_adapters", "base_folder", "leave_room", "name_base"]
