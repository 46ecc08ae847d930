"""
The card of a checkpoint: metadata for the Hub, and text, of which a part is generated and a part written by hand.

Generated sections stand between `<!-- count-clip: NAME -->` and `<!-- /count-clip: NAME -->`. They are written anew
each time; everything else of a card stays as it is.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard
from safetensors import safe_open

from count_clip.datasets_scripts.publish.model_index import BENCHMARKS, eval_result, is_of_model, model_index_of

from .card_texts import KINDS, PLACE, LoadingText, adapters_in


CARD = "README.md"
LOSS_IMAGE = "training_loss.png"

PROCESSOR_CONFIGS = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")

_SECTIONS = ("model", "usage", "figures", "training")
_HEADINGS = {"usage": "## Use", "figures": "## Figures", "training": "## Training"}
# Cards that other tools write where nobody has written anything yet, and our own of adapters.
_GENERATED = (
    "[More Information Needed]",
    "generated automatically according to the information the Trainer had access to",
    "<!-- Written by count-clip. Delete this line to keep your changes. -->",
)
_NO_FIGURES = "Nothing has been measured with this checkpoint, or nobody wrote it down."
_NO_TRAINING = "How it was trained is not recorded."
_SHORT_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Figure:
    """
    One measured number.

    Args:
        metric (`str`): `"mae"`.
        value (`float`): The number.
        dataset (`str`): What it was measured on.
        command (`str`): What measures it again.
        config, split, revision (`str`, *optional*): Which part of the data, and which state of it.
        interval (`tuple[float, float]`, *optional*): The ends of its 95 % interval.
        note (`str`): What else there is to know: "only 20 of 540 rows".
        benchmark (`str`, *optional*): Of `count-clip evaluate`: `"density"`. Without one, a figure of a density model
            is taken for one of `density`, and others for those of `countbench`.
        part (`str`): How much of the data was measured, if not all: "20 of 540 rows".
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


@dataclass(frozen=True)
class TrainingRecord:
    """
    How a checkpoint came to be.

    Args:
        command (`str`): The run.
        arguments (`Mapping[str, Any]`): Those that are not the defaults.
        facts (`Mapping[str, Any]`): What else there is to tell: rows, parameters, seconds, versions.
    """

    command: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class CardError(ValueError):
    """A card or a file of results cannot be read. The message names it."""


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
    Write the card of a checkpoint, or bring the generated parts of its card up to date.

    What is not given stays as the card has it; a card without a word of anybody's is written from nothing. A card
    written by hand that has none of the generated sections gets all of them at its end, one that has some keeps to
    these.

    Args:
        folder (`str` or `Path`): Holds a model, a processor or adapters; an image `training_loss.png` in it is shown.
        repo_id (`str`, *optional*): `"organisation/name"`, for the code that loads it; by default it says `ORG/NAME`.
        license (`str`, *optional*): As the Hub names it: `"apache-2.0"`.
        base_model (`str`, *optional*): The name on the Hub of what it was made from.
        datasets (`Sequence[str]`, *optional*): What it was trained on.
        figures (`Sequence[Figure]`, *optional*): What was measured; the model's own goes into the `model-index` too.
        training ([`TrainingRecord`], *optional*): How it was trained.

    Returns:
        `Path`: The card.

    Raises:
        CardError: If there is a card that cannot be read.
    """
    place = Path(folder)
    path = place / CARD
    card = _load(path)
    name = repo_id.split("/")[-1] if repo_id else place.resolve().name
    text = card.text.strip()
    if not text or any(mark in text for mark in _GENERATED):
        text = _new_text(name)
    kind = kind_of(place)
    _set_metadata(card, kind, license, base_model, datasets)
    if figures is not None:
        kept = [one for one in figures if math.isfinite(one.value) and is_of_model(one.metric)]
        card.data.eval_results = [_eval_result(one, kind) for one in kept] or None
    if repo_id is not None:
        text = _of_owner(card, text, repo_id)
    loading = KINDS[kind].loading(place)
    sections = {
        "model": _model_text(place, kind, loading),
        "usage": loading.usage.replace(PLACE, repo_id or "ORG/NAME"),
        "figures": None if figures is None else _figures_text(figures),
        "training": None if training is None else _training_text(training, (place / LOSS_IMAGE).is_file()),
    }
    card.text = "\n" + _filled(text, sections) + "\n"
    _write_index(card, name if repo_id or figures is not None else card.data.model_name or name)
    card.save(path)
    return path


def kind_of(folder: str | Path) -> str:
    """
    Tell what a folder holds.

    Args:
        folder (`str` or `Path`): As `save_pretrained` writes it.

    Returns:
        `str`: `"adapter"`, a type of models (`"count_clip"`, `"clip_count_density"`, `"clip"`), or `"processor"`.

    Raises:
        CardError: If it is none of these.
    """
    place = Path(folder)
    if adapters_in(place):
        return "adapter"
    config = place / "config.json"
    if config.is_file():
        model_type = str(read_json(config).get("model_type"))
        if model_type in KINDS:
            return model_type
        known = ", ".join(kind for kind in KINDS if kind not in ("adapter", "processor"))
        raise CardError(
            f"Expected a model of type {known} in {place}, but its config.json says {model_type!r}. For models of "
            "other libraries there is `hf upload`."
        )
    if any((place / file).is_file() for file in PROCESSOR_CONFIGS):
        return "processor"
    raise CardError(
        f"Expected a model, a processor or adapters in {place}, as `save_pretrained` writes them, but there is "
        f"neither a config.json nor a {' nor a '.join(PROCESSOR_CONFIGS)} nor an adapter_config.json."
    )


def read_json(path: Path) -> dict[str, Any]:
    """
    Read a configuration or a file of results.

    Args:
        path (`Path`): The file.

    Returns:
        `dict[str, Any]`: What it holds.

    Raises:
        CardError: If it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CardError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CardError(f"Expected an object of JSON in {path}, but got {type(content).__name__}.")
    return content


def figures_from_file(path: str | Path) -> list[Figure]:
    """
    Take figures from what `count-clip evaluate ... --json FILE` wrote.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        `list[Figure]`: One for each metric that has a value.

    Raises:
        CardError: If it is no such file.
    """
    content = read_json(Path(path))
    try:
        data, command, metrics = content["run"]["data"], content["run"]["command"], content["metrics"]
        measured = (data.get("rows") or 0) - content.get("missing", 0)
        part = f"{measured} of {data.get('total') or data.get('rows')} rows" if content.get("partial") else ""
        intervals = content.get("intervals") or {}
        return [
            Figure(
                metric,
                float(value),
                # Of a folder of this machine the name will do.
                Path(data["name"]).name if Path(data["name"]).is_absolute() else data["name"],
                command,
                data.get("config"),
                data.get("split"),
                data.get("revision"),
                (float(intervals[metric][0]), float(intervals[metric][1])) if intervals.get(metric) else None,
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


def check_metadata(folder: str | os.PathLike[str]) -> None:
    """
    Refuse a folder with a card that could not be added to.

    Args:
        folder (`str` or `os.PathLike`): With a `README.md` or without.

    Raises:
        CardError: If the metadata at the top of the card cannot be read.
    """
    _load(Path(folder) / CARD)


def _load(path: Path) -> ModelCard:
    if not path.is_file():
        return ModelCard("---\nlibrary_name: transformers\n---\n")
    try:
        return ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=False)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CardError(f"The metadata at the top of {path} cannot be read: {reason}. Mend or remove it.") from error


def _set_metadata(
    card: ModelCard, kind: str, license: str | None, base_model: str | None, datasets: Sequence[str] | None
) -> None:
    data, known = card.data, KINDS[kind]
    data.library_name = known.library
    if known.pipeline_tag and not data.pipeline_tag:
        data.pipeline_tag = known.pipeline_tag
    data.tags = sorted({*(data.tags or []), *known.tags})
    if license is not None:
        data.license = license
    if base_model is not None:
        data.base_model = base_model
        if kind == "adapter":
            others = [tag for tag in data.tags if not tag.startswith("base_model:")]
            data.tags = sorted([*others, f"base_model:adapter:{base_model}"])
    if datasets:
        data.datasets = list(dict.fromkeys(datasets))


def _eval_result(figure: Figure, kind: str) -> EvalResult:
    return eval_result(
        figure.benchmark or KINDS[kind].benchmark,
        figure.metric,
        figure.value,
        figure.dataset,
        figure.config,
        figure.split,
        figure.revision,
        figure.interval,
        f"{_data_name(figure)} ({figure.part})" if figure.part else _data_name(figure),
    )


def _write_index(card: ModelCard, name: str) -> None:
    """Write the figures under our own headings; the card's own writer mixes benchmarks of one task."""
    entries, card.data.eval_results = card.data.eval_results, None
    card.data.model_name = None
    if entries:
        card.data["model-index"] = model_index_of(name, entries)


def _of_owner(card: ModelCard, text: str, repo_id: str) -> str:
    """The text with the repository's owner and name in the place of ORG and of the folder's name."""
    owner, _, name = repo_id.rpartition("/")
    before = card.data.model_name
    if before and before != name:
        text = re.sub(rf"\A# {re.escape(before)}$", f"# {name}", text, flags=re.MULTILINE)
    bases = card.data.base_model
    if isinstance(bases, str) and bases.startswith("ORG/"):
        card.data.base_model = f"{owner}/{bases.removeprefix('ORG/')}"
    return text.replace("https://huggingface.co/ORG/", f"https://huggingface.co/{owner}/")


def _new_text(name: str) -> str:
    parts = [f"# {name}"]
    for section in _SECTIONS:
        parts += [_HEADINGS[section]] if section in _HEADINGS else []
        parts.append(f"{_begin(section)}\n{_end(section)}")
    return "\n\n".join(parts)


def _begin(section: str) -> str:
    return f"<!-- count-clip: {section} -->"


def _end(section: str) -> str:
    return f"<!-- /count-clip: {section} -->"


def _filled(text: str, sections: Mapping[str, str | None]) -> str:
    """The text with its generated sections written anew, where there is something new to write."""
    if not any(_begin(section) in text for section in _SECTIONS):
        text = f"{text}\n\n{_new_text('').split(chr(10), 1)[1].strip()}"
    empty = {"figures": _NO_FIGURES, "training": _NO_TRAINING}
    for section, content in sections.items():
        pattern = re.compile(re.escape(_begin(section)) + "(.*?)" + re.escape(_end(section)), re.DOTALL)
        found = pattern.search(text)
        if found is None:
            continue
        if content is None:
            content = found[1].strip() or empty[section]
        text = f"{text[: found.start()]}{_begin(section)}\n{content}\n{_end(section)}{text[found.end() :]}"
    return text


def _model_text(folder: Path, kind: str, loading: LoadingText) -> str:
    lines = [loading.about]
    rows = [*KINDS[kind].sizes(folder), *_weights(folder)]
    if rows:
        lines += ["", "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)


def _weights(folder: Path) -> list[tuple[str, str]]:
    """How many numbers of which type, by the headers of the files."""
    numbers: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                tensor = file.get_slice(name)
                dtype = _SHORT_NAMES.get(tensor.get_dtype(), tensor.get_dtype())
                numbers[dtype] = numbers.get(dtype, 0) + math.prod(tensor.get_shape())
    return [("parameters", ", ".join(f"{number:,} in {dtype}" for dtype, number in numbers.items()))] * bool(numbers)


def _figures_text(figures: Sequence[Figure]) -> str:
    """A table for each command that measured something."""
    parts = []
    for command in dict.fromkeys(one.command for one in figures):
        of_command = [one for one in figures if one.command == command]
        rows = [
            f"| {_data_name(one)} | {one.metric} | {_number(one.value)} | {_interval(one)} | {one.note} |"
            for one in of_command
        ]
        table = ["| data | measure | value | 95 % interval | |", "| --- | --- | --- | --- | --- |", *rows]
        parts.append("\n".join(["```shell", command, "```", "", *table]))
    return "\n\n".join(parts) or _NO_FIGURES


def _data_name(figure: Figure) -> str:
    return " ".join(part for part in (figure.dataset, figure.config, figure.split) if part)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"


def _interval(figure: Figure) -> str:
    return "" if figure.interval is None else f"{_number(figure.interval[0])} to {_number(figure.interval[1])}"


def _training_text(training: TrainingRecord, has_image: bool) -> str:
    parts = [f"```shell\n{training.command}\n```"]
    for title, values in (("", training.facts), ("argument", training.arguments)):
        if values:
            rows = [f"| {name} | {_plain(value)} |" for name, value in values.items()]
            parts.append("\n".join([f"| {title} | |", "| --- | --- |", *rows]))
    if has_image:
        parts.append(f"![The losses during training]({LOSS_IMAGE})")
    return "\n\n".join(parts)


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.replace("|", "\\|").replace("\n", " ")


__all__ = [
    "CARD",
    "LOSS_IMAGE",
    "CardError",
    "Figure",
    "TrainingRecord",
    "check_metadata",
    "figures_from_file",
    "kind_of",
    "read_json",
    "write_model_card",
]
