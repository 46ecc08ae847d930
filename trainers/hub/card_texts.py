"""What the cards say of each kind of checkpoint: what it is, how large, and how it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


# Stands for the name of the repository in the code of a card.
PLACE = "<<PLACE>>"


@dataclass(frozen=True)
class LoadingText:
    """What a card says of a checkpoint, and the code that loads it."""

    about: str
    usage: str


@dataclass(frozen=True)
class CheckpointKind:
    """One kind of checkpoints, for its card."""

    library: str
    pipeline_tag: str | None
    tags: tuple[str, ...]
    benchmark: str
    """What its figures are of where they do not say it: a key of `BENCHMARKS`."""
    loading: Callable[[Path], LoadingText]
    sizes: Callable[[Path], list[tuple[str, str]]]


_COUNTING_ABOUT = (
    "A `CLIPForCounting`: a CLIP for a counting loss, after [Teaching CLIP to Count to Ten]"
    "(https://arxiv.org/abs/2302.12066). It is meant to prefer, of captions that differ in a number from two to ten, "
    "the one that is right; how well it does, the figures below have to say. Whatever else a CLIP can do, it can "
    "do too. An independent implementation, not the authors' code."
)
_DENSITY_ABOUT = (
    "A `CLIPCountDensityModel`, after [CLIP-Count](https://arxiv.org/abs/2305.07304): it draws where the objects are "
    "that a prompt names, as a map that sums to how many; how well, the figures below have to say. An independent "
    "implementation, not the authors' code."
)
_CLIP_ABOUT = "A plain `CLIPModel`, which `transformers` and what builds on it load without any other package."
_PROCESSOR_ABOUT = "A processor: it turns images and texts into tensors. There are no weights here."

_LOAD = """{first}from transformers import AutoModel, AutoProcessor, pipeline

model = AutoModel.from_pretrained("<<PLACE>>"{options})
processor = AutoProcessor.from_pretrained("<<PLACE>>"{trust})
{pipeline}"""
_COUNTING_PIPELINE = """ranker = pipeline("caption-counting", model="<<PLACE>>"{options})
print(ranker("image.png", text="a photo of {} dogs")[0])  # {"number": ..., "score": ...}, two to ten, best first"""
_DENSITY_PIPELINE = '''counter = pipeline("object-counting", model="<<PLACE>>"{options})
print(counter("image.png", text="red apples")["count"])  # also "points" and "density_map"'''
_PLAIN_CLIP = """from transformers import CLIPModel, CLIPProcessor, pipeline

model = CLIPModel.from_pretrained("<<PLACE>>"{options})
processor = CLIPProcessor.from_pretrained("<<PLACE>>"{trust})
{last}"""
_PLAIN_PIPELINE = """classify = pipeline("zero-shot-image-classification", model="<<PLACE>>"{options})
print(classify("image.png", candidate_labels=["two dogs", "three dogs"]))"""
_PROCESSOR = """{first}from transformers import {auto}

processor = {auto}.from_pretrained("<<PLACE>>"{trust})"""

_WITH_PACKAGE = "With the package count-clip installed:"
_WITHOUT_PACKAGE = "Without it, by the code that lies beside the weights:"
_AS_CLIP = "As a plain CLIP, without code from here:"
_IMPORT = "import count_clip  # makes the model types and pipelines known\n"


def adapters_in(folder: Path) -> dict[str, Path]:
    """
    Find adapters.

    Args:
        folder (`Path`): As PEFT saves one, or an [`AdapterStack`] several.

    Returns:
        `dict[str, Path]`: One in the folder itself, whose name is empty; or several in folders of their names; or none
        where there is a model.
    """
    if (folder / "adapter_config.json").is_file():
        return {"": folder}
    if (folder / "config.json").is_file():
        return {}
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/adapter_config.json"))}


def _block(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def _own(folder: Path, about: str, pipeline: str, is_clip: bool) -> LoadingText:
    """The ways to load a model of this package."""
    dtype = _dtype_option(folder)
    parts = []
    for title, first, trust in (
        (_WITH_PACKAGE, _IMPORT, ""),
        (_WITHOUT_PACKAGE, "", ", trust_remote_code=True"),
    ):
        options = trust + dtype
        code = _LOAD.replace("{first}", first).replace("{trust}", trust)
        parts += [title, _block(code.replace("{pipeline}", pipeline).replace("{options}", options))]
    if is_clip:
        # Without this, the tokenizer's loading asks whether to run the code.
        code = _PLAIN_CLIP.replace("{trust}", ", trust_remote_code=False")
        code = code.replace("{options}", dtype).replace("{last}", "")
        parts += [_AS_CLIP, _block(code.replace(", pipeline", ""))]
    return LoadingText(about, "\n\n".join(parts))


def _dtype_option(folder: Path) -> str:
    """Weights in half precision are computed with in float32 unless somebody wants it otherwise."""
    return "" if _config(folder).get("dtype") in (None, "float32") else ', dtype="float32"'


def _plain(folder: Path) -> LoadingText:
    code = _PLAIN_CLIP.replace("{trust}", "").replace("{last}", _PLAIN_PIPELINE)
    code = code.replace("{options}", _dtype_option(folder))
    return LoadingText(_CLIP_ABOUT, _block(code))


def _processor(folder: Path) -> LoadingText:
    path = folder / "processor_config.json"
    written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    is_own = "auto_map" in written or str(written.get("processor_class", "")).startswith(("CountCLIP", "CLIPCount"))
    has_images = path.is_file() or (folder / "preprocessor_config.json").is_file()
    code = _PROCESSOR.replace("{auto}", "AutoProcessor" if has_images else "AutoTokenizer")
    if not is_own:
        return LoadingText(_PROCESSOR_ABOUT, _block(code.replace("{first}", "").replace("{trust}", "")))
    parts = [_WITH_PACKAGE, _block(code.replace("{first}", _IMPORT).replace("{trust}", ""))]
    parts += [_WITHOUT_PACKAGE, _block(code.replace("{first}", "").replace("{trust}", ", trust_remote_code=True"))]
    return LoadingText(_PROCESSOR_ABOUT, "\n\n".join(parts))


def _adapter(folder: Path) -> LoadingText:
    from peft import PeftConfig

    from count_clip.modeling.prompt_tuning_card import describe_adapters

    folders = adapters_in(folder)
    configs = [PeftConfig.from_pretrained(str(path)) for path in folders.values()]
    about, code = describe_adapters(folder, configs, list(folders))
    return LoadingText(about, _block(code.replace("THIS", PLACE)))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _clip_sizes(folder: Path) -> list[tuple[str, str]]:
    config = _config(folder)
    vision, text = config.get("vision_config", {}), config.get("text_config", {})
    parts = (
        ("images", "{image_size} x {image_size} pixels, patches of {patch_size}", vision),
        ("vision tower", "{num_hidden_layers} layers of {hidden_size}", vision),
        ("text tower", "{num_hidden_layers} layers of {hidden_size}, {max_position_embeddings} tokens", text),
    )
    # What equals CLIP's own defaults may be left out of a configuration.
    defaults = _tower_defaults()
    filled = [(name, shape.format(**{**defaults[name], **values})) for name, shape, values in parts]
    return [*filled, ("projection dim", str(config.get("projection_dim", 512)))]


def _tower_defaults() -> dict[str, dict[str, Any]]:
    from transformers import CLIPTextConfig, CLIPVisionConfig

    vision, text = CLIPVisionConfig().to_dict(), CLIPTextConfig().to_dict()
    return {"images": vision, "vision tower": vision, "text tower": text}


def _density_sizes(folder: Path) -> list[tuple[str, str]]:
    from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig

    config = CLIPCountDensityConfig.from_pretrained(folder)
    deep = f" in each of {config.visual_prompt_depth} layers" if config.num_visual_prompts else ""
    return [
        ("windows", f"{config.window_size} x {config.window_size} pixels of an image of any size"),
        *_clip_sizes(folder),
        ("prompts", f"{config.num_visual_prompts} visual{deep}, {config.num_context_tokens} in the text"),
        ("interaction", config.interaction),
    ]


def _no_sizes(folder: Path) -> list[tuple[str, str]]:
    return []


_TAGS = ("count-clip", "object-counting")

KINDS: dict[str, CheckpointKind] = {
    "count_clip": CheckpointKind(
        "transformers",
        "zero-shot-image-classification",
        (*_TAGS, "clip"),
        "countbench",
        lambda folder: _own(folder, _COUNTING_ABOUT, _COUNTING_PIPELINE, True),
        _clip_sizes,
    ),
    "clip_count_density": CheckpointKind(
        "transformers",
        None,
        (*_TAGS, "crowd-counting", "density-estimation"),
        "density",
        lambda folder: _own(folder, _DENSITY_ABOUT, _DENSITY_PIPELINE, False),
        _density_sizes,
    ),
    "clip": CheckpointKind(
        "transformers", "zero-shot-image-classification", ("clip",), "countbench", _plain, _clip_sizes
    ),
    "processor": CheckpointKind("transformers", None, ("count-clip",), "countbench", _processor, _no_sizes),
    "adapter": CheckpointKind("peft", None, (*_TAGS, "prompt-tuning"), "density", _adapter, _no_sizes),
}


__all__ = ["KINDS", "PLACE", "CheckpointKind", "LoadingText", "adapters_in"]
