"""
The card of a checkpoint: metadata for the Hub, sections that are generated, and text that people write.

Generated sections stand between `<!-- count-clip: NAME -->` and `<!-- /count-clip: NAME -->`. Each writing replaces
them and leaves everything else of a card as it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPVisionConfig

from count_clip.datasets_scripts.publish.model_index import BENCHMARKS, eval_result, is_of_model, model_index_of
from count_clip.modeling.auto_classes import MODEL_FAMILIES


CARD = "README.md"
LOSS_IMAGE = "training_loss.png"
PROCESSOR_CONFIGS = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")

_HEADINGS = {"model": "", "usage": "## Use\n\n", "figures": "## Figures\n\n", "training": "## Training\n\n"}
# Marks of generated cards, by other tools and by us.
_GENERATED = (
    "[More Information Needed]",
    "generated automatically according to the information the Trainer had access to",
    "<!-- Written by count-clip. Delete this line to keep your changes. -->",
)
_EMPTY = {
    "figures": "No measurement of this checkpoint is recorded.",
    "training": "How it was trained is not recorded.",
}
DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class CheckpointType:
    """What the metadata of a card states of every checkpoint of one type."""

    tags: tuple[str, ...]
    pipeline_tag: str | None = None
    benchmark: str = "countbench"
    """The benchmark of figures that name none: a key of `BENCHMARKS`."""
    library: str = "transformers"


_ZERO_SHOT = "zero-shot-image-classification"
CHECKPOINT_TYPES = {
    "count_clip": CheckpointType(("count-clip", "object-counting", "clip"), _ZERO_SHOT),
    "clip_count_density": CheckpointType(
        ("count-clip", "object-counting", "crowd-counting", "density-estimation"), benchmark="density"
    ),
    "vision_text_count_density": CheckpointType(
        ("count-clip", "object-counting", "crowd-counting", "density-estimation"), benchmark="density"
    ),
    "clip": CheckpointType(("clip",), _ZERO_SHOT),
    "processor": CheckpointType(("count-clip",)),
    "adapter": CheckpointType(("count-clip", "object-counting", "prompt-tuning"), benchmark="density", library="peft"),
}


@dataclass(frozen=True)
class Figure:
    """
    One measured number.

    Args:
        metric (`str`): `"mae"`.
        value (`float`): The number.
        dataset (`str`): The data.
        command (`str`): The command that measures it again.
        config, split, revision (`str`, *optional*): Configuration, split and revision of the data.
        interval (`tuple[float, float]`, *optional*): Its 95 % confidence interval.
        note (`str`): A remark, such as "only 20 of 540 rows".
        benchmark (`str`, *optional*): Of `count-clip evaluate`: `"density"`. By default that of the model's type.
        part (`str`): The measured share of the data, if not all: "20 of 540 rows".
    """

    metric: str
    value: float
    dataset: str
    command: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    interval: tuple[float, float] | None = None
    note: str = ""
    benchmark: str | None = None
    part: str = ""

    @property
    def data(self) -> str:
        """Data, configuration and split."""
        return " ".join(filter(None, (self.dataset, self.config, self.split)))


@dataclass(frozen=True)
class TrainingRecord:
    """How a checkpoint was trained: its command, the arguments that differ from the defaults, and further facts."""

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class CardError(ValueError):
    """A checkpoint, a card or a file of results cannot be read. The message names it."""


def write_model_card(
    folder: str | Path,
    repo_id: str | None = None,
    *,
    license: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] | None = None,
    figures: Sequence[Figure] | None = None,
    training: TrainingRecord | None = None,
) -> Path:
    """
    Write the card of a checkpoint, or update the generated sections of its card.

    Arguments that are `None` leave their part of the card as it is. A card that no person has written is replaced. A
    card without generated sections gets all of them at its end; a card with some keeps to these.

    Args:
        folder (`str` or `Path`): A model, a processor or adapters; an image `training_loss.png` in it is shown.
        repo_id (`str`, *optional*): `"organisation/name"`, for the code that loads it; by default `ORG/NAME`.
        license (`str`, *optional*): As the Hub names it: `"apache-2.0"`.
        base_model (`str`, *optional*): The name of the base on the Hub.
        datasets (`Sequence[str]`, *optional*): The training data.
        figures (`Sequence[Figure]`, *optional*): What was measured; the model's own enter the `model-index`.
        training ([`TrainingRecord`], *optional*): How it was trained.

    Returns:
        `Path`: The card.

    Raises:
        CardError: If there is a card that cannot be read.
    """
    place = Path(folder)
    card = load_card(place)
    name = repo_id.split("/")[-1] if repo_id else place.resolve().name
    text = card.text.strip()
    if not text or any(mark in text for mark in _GENERATED):
        text = f"# {name}\n\n{_empty_sections()}"
    model_type = checkpoint_type(place)
    _set_metadata(card, model_type, license, base_model, datasets)
    if figures is not None:
        kept = [one for one in figures if math.isfinite(one.value) and is_of_model(one.metric)]
        card.data.eval_results = [
            eval_result(
                one.benchmark or CHECKPOINT_TYPES[model_type].benchmark,
                one.metric,
                one.value,
                one.dataset,
                one.config,
                one.split,
                one.revision,
                one.interval,
                f"{one.data} ({one.part})" if one.part else one.data,
            )
            for one in kept
        ] or None
    if repo_id is not None:
        text = _with_owner(card, text, repo_id)
    sections = _render(place, model_type, repo_id or "ORG/NAME", figures, training)
    card.text = f"\n{_with_sections(text, sections)}\n"
    entries, card.data.eval_results = card.data.eval_results, None
    index_name = name if repo_id or figures is not None else card.data.model_name or name
    card.data.model_name = None
    if entries:  # grouped here: the card's own writer mixes benchmarks of one task
        card.data["model-index"] = model_index_of(index_name, entries)
    card.save(place / CARD)
    return place / CARD


def checkpoint_type(folder: str | Path) -> str:
    """The key of `CHECKPOINT_TYPES` of a folder that `save_pretrained` wrote; `CardError` if it has none."""
    place = Path(folder)
    if adapters_in(place):
        return "adapter"
    if (place / "config.json").is_file():
        model_type = str(read_json(place / "config.json").get("model_type"))
        if model_type in (*MODEL_FAMILIES, "clip"):
            return model_type
        raise CardError(
            f"Expected a model of type {', '.join(MODEL_FAMILIES)} or clip in {place}, but the type in its "
            f"config.json is {model_type!r}. For models of other libraries there is `hf upload`."
        )
    if any((place / file).is_file() for file in PROCESSOR_CONFIGS):
        return "processor"
    raise CardError(
        f"Expected a model, a processor or adapters in {place}, as `save_pretrained` writes them, but found "
        f"neither a config.json nor a {' nor a '.join(PROCESSOR_CONFIGS)} nor an adapter_config.json."
    )


def adapters_in(folder: Path) -> dict[str, Path]:
    """
    Names and folders of the adapters in a folder, as PEFT saves one (with an empty name) or an [`AdapterStack`]
    several.
    """
    if (folder / "adapter_config.json").is_file():
        return {"": folder}
    if (folder / "config.json").is_file():
        return {}
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/adapter_config.json"))}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; `CardError` names a file that cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CardError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CardError(f"Expected a JSON object in {path}, but got {type(content).__name__}.")
    return content


def figures_from_file(path: str | Path) -> list[Figure]:
    """
    Read the figures that `count-clip evaluate ... --json FILE` wrote, one for each metric with a value; `CardError`
    for other files.
    """
    content = read_json(Path(path))
    try:
        data, command, metrics = content["run"]["data"], content["run"]["command"], content["metrics"]
        measured = (data.get("rows") or 0) - content.get("missing", 0)
        part = f"{measured} of {data.get('total') or data.get('rows')} rows" if content.get("partial") else ""
        ends = content.get("intervals") or {}
        intervals = {name: (float(pair[0]), float(pair[1])) for name, pair in ends.items() if pair}
        return [
            Figure(
                metric,
                float(value),
                # The path of a folder means nothing elsewhere.
                Path(data["name"]).name if Path(data["name"]).is_absolute() else data["name"],
                command,
                data.get("config"),
                data.get("split"),
                data.get("revision"),
                intervals.get(metric),
                part,
                content["benchmark"] if content.get("benchmark") in BENCHMARKS else None,
                part,
            )
            for metric, value in metrics.items()
            if value is not None
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CardError(
            f"Expected {path} to be what `count-clip evaluate ... --json FILE` writes, but it is not: {error!r}."
        ) from error


def load_card(folder: Path) -> ModelCard:
    """Load the card of a folder, or an empty one; `CardError` if its metadata cannot be read."""
    path = folder / CARD
    if not path.is_file():
        return ModelCard("---\nlibrary_name: transformers\n---\n")
    try:
        return ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=False)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CardError(f"The metadata at the top of {path} cannot be read: {reason}. Fix or remove it.") from error


def _set_metadata(
    card: ModelCard, model_type: str, license: str | None, base_model: str | None, datasets: Sequence[str] | None
) -> None:
    data, known = card.data, CHECKPOINT_TYPES[model_type]
    data.library_name = known.library
    data.pipeline_tag = data.pipeline_tag or known.pipeline_tag
    tags = {*(data.tags or []), *known.tags}
    if license is not None:
        data.license = license
    if base_model is not None:
        data.base_model = base_model
        if model_type == "adapter":
            tags = {tag for tag in tags if not tag.startswith("base_model:")} | {f"base_model:adapter:{base_model}"}
    data.tags = sorted(tags)
    if datasets:
        data.datasets = list(dict.fromkeys(datasets))


def _with_owner(card: ModelCard, text: str, repo_id: str) -> str:
    """The text with the repository's owner and name in place of ORG and of the former name."""
    owner, _, name = repo_id.rpartition("/")
    before = card.data.model_name
    if before and before != name:
        text = re.sub(rf"\A# {re.escape(before)}$", f"# {name}", text, flags=re.MULTILINE)
    bases = card.data.base_model
    if isinstance(bases, str) and bases.startswith("ORG/"):
        card.data.base_model = f"{owner}/{bases.removeprefix('ORG/')}"
    return text.replace("https://huggingface.co/ORG/", f"https://huggingface.co/{owner}/")


def _empty_sections() -> str:
    return "\n\n".join(
        f"{heading}<!-- count-clip: {name} -->\n<!-- /count-clip: {name} -->" for name, heading in _HEADINGS.items()
    )


def _with_sections(text: str, sections: Mapping[str, str | None]) -> str:
    """The text with new contents of its generated sections; `None` keeps what a section holds."""
    if not any(f"<!-- count-clip: {name} -->" in text for name in sections):
        text = f"{text}\n\n{_empty_sections()}"
    for name, content in sections.items():
        begin, end = f"<!-- count-clip: {name} -->", f"<!-- /count-clip: {name} -->"
        head, found, rest = text.partition(begin)
        old, closed, tail = rest.partition(end)
        if found and closed:
            content = old.strip() or _EMPTY[name] if content is None else content
            text = f"{head}{begin}\n{content}\n{end}{tail}"
    return text


def _render(
    folder: Path,
    model_type: str,
    repo_id: str,
    figures: Sequence[Figure] | None,
    training: TrainingRecord | None,
) -> dict[str, str | None]:
    """The generated sections; `None` for those that stay."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"number": _number, "cell": _cell}
    path = folder / "processor_config.json"
    processor = read_json(path) if path.is_file() else {}
    has_images = bool(processor) or (folder / "preprocessor_config.json").is_file()
    path = folder / "config.json"
    dtype = read_json(path).get("dtype") if path.is_file() else None
    about, code = _describe_adapters(folder) if model_type == "adapter" else ("", "")
    sections: Any = environment.get_template("card.md.j2").make_module(
        {
            "model_type": model_type,
            "place": repo_id,
            # Half-precision weights are loaded in float32 by default.
            "dtype": "" if dtype in (None, "float32") else ', dtype="float32"',
            "sizes": [*_sizes(folder, model_type), *_weights(folder)],
            "auto": "AutoProcessor" if has_images else "AutoTokenizer",
            "is_own": processor.get("processor_class") in {one.processor.__name__ for one in MODEL_FAMILIES.values()},
            "about": about,
            "code": code.replace("THIS", repo_id).strip(),
            "commands": {
                command: [one for one in figures or [] if one.command == command]
                for command in dict.fromkeys(one.command for one in figures or [])
            },
            "record": training,
            "has_curve": (folder / LOSS_IMAGE).is_file(),
        }
    )
    return {
        "model": sections.model().strip(),
        "usage": re.sub(r"\n{3,}", "\n\n", sections.usage()).strip(),
        "figures": None if figures is None else sections.results().strip() or _EMPTY["figures"],
        "training": None if training is None else sections.training().strip(),
    }


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.replace("|", "\\|").replace("\n", " ")


def _describe_adapters(folder: Path) -> tuple[str, str]:
    from peft import PeftConfig

    from count_clip.modeling.prompt_tuning_peft import describe_adapters

    folders = adapters_in(folder)
    configs = [PeftConfig.from_pretrained(str(path)) for path in folders.values()]
    return describe_adapters(folder, configs, list(folders))


def _sizes(folder: Path, model_type: str) -> list[tuple[str, str]]:
    """Sizes of a model by its configuration."""
    if not (folder / "config.json").is_file():
        return []
    config = read_json(folder / "config.json")
    if model_type == "vision_text_count_density":
        strides = ", ".join(map(str, config["feature_strides"]))
        return [
            ("windows", "{window_size} x {window_size} pixels of an image of any size".format(**config)),
            ("backbone", f"{config['backbone_config']['model_type']}, feature maps of strides {strides}"),
            ("text encoder", "{model_type}".format(**config["text_config"])),
        ]
    # A configuration may leave out what equals CLIP's defaults.
    vision = {**CLIPVisionConfig().to_dict(), **config.get("vision_config", {})}
    text = {**CLIPTextConfig().to_dict(), **config.get("text_config", {})}
    tower = "{num_hidden_layers} layers of {hidden_size}"
    rows = [
        ("images", "{image_size} x {image_size} pixels, patches of {patch_size}".format(**vision)),
        ("vision tower", tower.format(**vision)),
        ("text tower", (tower + ", {max_position_embeddings} tokens").format(**text)),
        ("projection dim", str(config.get("projection_dim", 512))),
    ]
    if model_type == "clip_count_density":
        density: Any = MODEL_FAMILIES[model_type].config.from_pretrained(folder)
        deep = f" in each of {density.visual_prompt_depth} layers" if density.num_visual_prompts else ""
        prompts = f"{density.num_visual_prompts} visual{deep}, {density.num_context_tokens} in the text"
        windows = f"{density.window_size} x {density.window_size} pixels of an image of any size"
        rows = [("windows", windows), *rows, ("prompts", prompts), ("interaction", density.interaction)]
    return rows


def tensors_in(path: Path) -> Iterator[tuple[str, str, int]]:
    """Name, type and size of every tensor in a safetensors file, from its header."""
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dictionary)
            tensor = file.get_slice(name)
            yield name, DTYPE_NAMES.get(tensor.get_dtype(), tensor.get_dtype()), math.prod(tensor.get_shape())


def _weights(folder: Path) -> list[tuple[str, str]]:
    """Numbers of parameters by type."""
    numbers: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for _, dtype, size in tensors_in(path):
            numbers[dtype] = numbers.get(dtype, 0) + size
    return [("parameters", ", ".join(f"{number:,} in {dtype}" for dtype, number in numbers.items()))] * bool(numbers)


__all__ = [
    "CARD",
    "DTYPE_NAMES",
    "LOSS_IMAGE",
    "CardError",
    "Figure",
    "TrainingRecord",
    "adapters_in",
    "checkpoint_type",
    "figures_from_file",
    "load_card",
    "read_json",
    "tensors_in",
    "write_model_card",
]
