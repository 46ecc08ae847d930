"""The card of a published set: what the Hub reads of it, and what people do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .card import HubConfig, columns_table, front_matter


# Tells folders that may be written over from others.
MARK = "<!-- Written by count-clip. A new build writes over this folder. -->"

# Options that name folders.
_PLACES = ("backgrounds", "cutouts", "data_dir", "data_files")


@dataclass
class CardConfig(HubConfig):
    """
    One configuration of a published set.

    Args:
        name, info, files, description: As [`HubConfig`] has them.
        num_images (`dict[str, int]`): How many different images each split has.
        num_objects (`dict[str, int]`): How many objects, where they are counted.
        faults (`Sequence[str]`): What is odd about it, a line each.
        left_out (`Sequence[str]`): Everything that was left out by name, where that is more than `faults` say.
        sheet (`str`, *optional*): The path of an image with examples, where there is one.
    """

    num_images: dict[str, int] = field(default_factory=dict)
    num_objects: dict[str, int] = field(default_factory=dict)
    faults: Sequence[str] = field(default_factory=list)
    left_out: Sequence[str] = field(default_factory=list)
    sheet: str | None = None


def card_text(title: str, configs: Sequence[CardConfig], made: str, source: str, faults: Sequence[str]) -> str:
    """
    Write the card.

    Args:
        title (`str`): The set's name.
        configs (`Sequence[CardConfig]`): Its configurations; the first is the default.
        made (`str`): The command that made it, and with what.
        source (`str`): Where the source is to be had.
        faults (`Sequence[str]`): What is known to be wrong with the set, a line each.

    Returns:
        `str`: The content of `README.md`.
    """
    infos = [config.info for config in configs]
    first = infos[0]
    sections = [
        front_matter(title, configs, first.license),
        MARK,
        f"# {title}",
        *(f"{config.info.description.partition(chr(10))[0]}" for config in configs[:1]),
        _usage(configs),
        *_examples(configs),
        "## Columns",
        columns_table([name for info in infos for name in info.features]),
        "## Size",
        _sizes(configs),
        "## How it was made",
        made,
        source,
        "## Known faults",
        _faults(configs, faults),
        "## Licence",
        first.license or "Not stated.",
    ]
    if first.homepage:
        sections.append(f"Its authors' page: {first.homepage}")
    if citations := list(dict.fromkeys(info.citation for info in infos if info.citation)):
        sections += ["## Citation", *(f"```bibtex\n{citation}\n```" for citation in citations)]
    return "\n\n".join(sections) + "\n"


def _usage(configs: Sequence[CardConfig]) -> str:
    lines = ["```python", "from datasets import load_dataset", ""]
    for place, config in enumerate(configs):
        named = "" if not place and config.name == "default" else f", {config.name!r}"
        split = next(iter(config.files))
        lines.append(f'rows = load_dataset("FOLDER or ORGANISATION/NAME"{named}, split="{split}")')
    return "\n".join([*lines, "```"]).replace("'", '"')


def _examples(configs: Sequence[CardConfig]) -> list[str]:
    sheets = [(config, config.sheet) for config in configs if config.sheet is not None]
    if not sheets:
        return []
    return ["## Examples", *(f"`{config.name}`:\n\n![{config.name}]({sheet})" for config, sheet in sheets)]


def _sizes(configs: Sequence[CardConfig]) -> str:
    lines = ["| configuration | split | rows | images | objects |", "| --- | --- | --- | --- | --- |"]
    for config in configs:
        for name, split in config.info.splits.items():
            objects = f"{config.num_objects[name]:,}" if name in config.num_objects else ""
            lines.append(
                f"| {config.name} | {name} | {split.num_examples:,} | {config.num_images[name]:,} | {objects} |"
            )
    return "\n".join(lines)


def _faults(configs: Sequence[CardConfig], faults: Sequence[str]) -> str:
    lines = [f"- {fault}" for fault in faults]
    for config in configs:
        prefix = f"`{config.name}`: " if len(configs) > 1 else ""
        lines += [f"- {prefix}{fault}" for fault in config.faults]
    for config in configs:
        if config.left_out:
            listed = "\n".join(f"- {line}" for line in config.left_out)
            title = f"Everything that was left out of {config.name}"
            lines.append(f"\n<details><summary>{title}</summary>\n\n{listed}\n\n</details>")
    return "\n".join(lines) or "None were found."


def is_own_card(text: str) -> bool:
    """
    Tell whether a card is one of ours.

    Args:
        text (`str`): The content of a `README.md`.

    Returns:
        `bool`: Whether [`card_text`] wrote it.
    """
    return MARK in text


def plain_options(options: Mapping[str, Any]) -> str:
    """
    Say with which options a set was made, without the places of this machine.

    Args:
        options (`Mapping[str, Any]`): Those that the builder was given.

    Returns:
        `str`: A sentence, or nothing if there are none to tell.
    """
    told = {
        name: value
        for name, value in sorted(options.items())
        if name not in _PLACES and isinstance(value, (str, int, float, bool, list, dict))
    }
    if not told:
        return ""
    return f" Options: {', '.join(f'`{name}={value!r}`' for name, value in told.items())}."
