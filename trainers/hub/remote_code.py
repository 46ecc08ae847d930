"""The code of a checkpoint, for people who load it with `trust_remote_code` and without this package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

from count_clip.modeling import auto_classes
from count_clip.modeling.auto_classes import MODEL_FAMILIES, ModelFamily

from .card import read_json


def write_remote_code(folder: Path) -> None:
    """
    Write the modules that the classes of a checkpoint need, and the entries of its configurations that name them;
    configurations of other classes lose such entries.
    """
    modules: set[str] = set()
    configs = {
        path.stem: read_json(path)
        for name in ("config", "processor_config", "tokenizer_config")
        if (path := folder / f"{name}.json").is_file()
    }
    config, processor, tokenizer = (
        configs.get(name, {}) for name in ("config", "processor_config", "tokenizer_config")
    )
    family = MODEL_FAMILIES.get(str(config.get("model_type")))
    if family is not None:
        auto_models = {auto.__name__: family.model for auto in family.auto_models}
        modules |= _set_auto_map(config, {"AutoConfig": family.config, **auto_models})
        pipeline = {"impl": _reference(family.pipeline), "pt": ["AutoModel"], "type": "multimodal"}
        config["custom_pipelines"] = {family.task: pipeline}
        modules.add(_reference(family.pipeline).partition(".")[0])
    else:
        _set_auto_map(config, {})
    family = _family_of_processor(processor)
    modules |= _set_auto_map(processor, {"AutoProcessor": family and family.processor})
    _set_auto_map(tokenizer, {"AutoProcessor": family and family.processor})
    images = processor.get("image_processor")
    if isinstance(images, dict):
        modules |= _set_auto_map(images, {"AutoImageProcessor": family and family.image_processor})
    for name, content in configs.items():
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    modeling = Path(auto_classes.__file__).parent
    for file in (modeling / f"{module}.py" for module in modules):
        for needed in (file, *map(Path, get_relative_import_files(file))):
            shutil.copyfile(needed, folder / needed.name)


def _family_of_processor(processor: dict[str, Any]) -> ModelFamily | None:
    name = processor.get("processor_class")
    return next((family for family in MODEL_FAMILIES.values() if family.processor.__name__ == name), None)


def _set_auto_map(content: dict[str, Any], classes: dict[str, Any]) -> set[str]:
    """Set the `auto_map` of a configuration; returns the modules that it names."""
    references = {auto: _reference(one) for auto, one in classes.items() if one is not None}
    content.pop("auto_map", None)
    if references:
        content["auto_map"] = references
    return {reference.partition(".")[0] for reference in references.values()}


def _reference(one: type) -> str:
    return f"{one.__module__.rpartition('.')[2]}.{one.__name__}"


__all__ = ["write_remote_code"]
