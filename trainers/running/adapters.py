"""The adapters that the `peft` key of a run names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from transformers.utils import CONFIG_NAME, logging

from count_clip.modeling.prompt_tuning import AdapterStack, ContextPromptConfig, VisualPromptConfig

from .arguments import TASKS, RunArguments, check_keys, convert, unknown_key


logger = logging.get_logger(__name__)

# Names in addition to those of PEFT.
TYPES = {"visual_prompt": "CLIP_VPT", "context_prompt": "CLIP_COOP"}
# Fields that a file must not set.
_NOT_KEYS = ("peft_type", "task_type", "base_model_name_or_path", "inference_mode", "auto_mapping", "peft_version")
# The default of LoRA and similar methods, as usual for CLIPs: queries and values of both towers.
DEFAULT_TARGETS = r"(.*\.)?(text_model|vision_model)\.encoder\.layers\.\d+\.self_attn\.(q_proj|v_proj)"


def adapt_model(run: RunArguments, args: Any, model: Any, processor: Any, goes_on: bool = False) -> tuple[Any, Any]:
    """
    Put the adapters of a run on its model; context prompts shorten the texts of the processor. A base that no name
    loads again (because it is new, made from another model or has other fields) is saved in the folder `base` of the
    run; a resumed run loads it from there.
    """
    configs = adapter_configs(run.peft or [], processor.tokenizer)
    everything = TASKS[run.task].tuned_by
    if getattr(args, everything) != args.__dataclass_fields__[everything].default:
        logger.warning(
            f"`{everything}: {getattr(args, everything)}` has no effect with `peft`: the adapters train, and what "
            "their `modules_to_save` name."
        )
    name, folder = None if run.model_config else run.model_name_or_path, Path(str(args.output_dir), "base")
    if name is None:
        if goes_on and (folder / CONFIG_NAME).is_file():
            model = type(model).from_pretrained(folder, dtype=torch.float32)
            processor = type(processor).from_pretrained(folder)
        elif args.process_index == 0:
            logger.warning(f"The adapters need a base to be loaded on; it is saved in {folder}.")
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        name = str(folder)
    model.name_or_path = model.config.name_or_path = name
    adapted = add_adapters(model, configs)
    shorten_texts(processor, configs)
    return adapted, processor


def adapter_configs(
    spec: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str, tokenizer: Any
) -> dict[str, PeftConfig]:
    """
    Names and configurations of the adapters of the `peft` key; one without a name is `"default"`.

    An adapter has a `type` (`visual_prompt`, `context_prompt`, or a method of PEFT such as `lora`), optionally a
    `name`, and fields of the type's configuration; a text alone is a type. The tokenizer is for the texts that context
    prompts start from. Raises a `ValueError` if a type or a key is unknown, a value is of the wrong type, or two
    adapters have one name.
    """
    several = not isinstance(spec, Mapping | str)
    configs: dict[str, PeftConfig] = {}
    for part in spec if not isinstance(spec, Mapping | str) else [spec]:
        options = {"type": part} if isinstance(part, str) else dict(part)
        type_name = options.pop("type", None)
        # PEFT refuses the name of a method as that of an adapter.
        name = str(options.pop("name", f"{type_name}_adapter" if several else "default"))
        if name in configs:
            raise ValueError(f"Two adapters of `peft` are called {name!r}. Give each a `name` of its own.")
        configs[name] = _config(type_name, options, tokenizer)
    if not configs:
        raise ValueError("`peft` is an empty list. Leave it out to train the model itself.")
    return configs


def _config(type_name: Any, options: dict[str, Any], tokenizer: Any) -> PeftConfig:
    where = f"in `peft` ({type_name})"
    method = TYPES.get(type_name, type_name.upper() if isinstance(type_name, str) else "")
    if method not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = [
            *TYPES,
            *sorted(one.value.lower() for one in PEFT_TYPE_TO_CONFIG_MAPPING if one not in TYPES.values()),
        ]
        raise ValueError(
            unknown_key(str(type_name), known, "as `type` of `peft`").replace("Unknown key", "Unknown method")
        )
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
        raise ValueError(
            f"{type_name!r} {where} is for language models. Use {' or '.join(TYPES)} for a CLIP's prompts."
        )
    return config


def add_adapters(model: Any, configs: Mapping[str, PeftConfig]) -> PeftModel:
    """
    Put adapters on a model, in place, so that only they and their `modules_to_save` train. Several, or one with a
    name, become an [`AdapterStack`].
    """
    if list(configs) == ["default"]:
        return get_peft_model(model, configs["default"])
    return AdapterStack(model, configs)


def shorten_texts(processor: Any, configs: Mapping[str, PeftConfig]) -> None:
    """Reserve the positions of context prompts in the texts of a processor, in place."""
    contexts = [config for config in configs.values() if isinstance(config, ContextPromptConfig)]
    taken = sum(config.num_virtual_tokens or 0 for config in contexts)
    if hasattr(processor, "num_context_tokens"):
        processor.num_context_tokens += taken
    else:
        processor.max_text_length -= taken


__all__ = ["TYPES", "adapt_model", "adapter_configs", "add_adapters", "shorten_texts"]
