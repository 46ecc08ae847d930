"""The card of a published set: what the Hub reads of it, and what people do."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData


# Tells folders that may be written over from others.
MARK = "<!-- Written by count-clip. A new build writes over this folder. -->"

# What the Hub knows by name, of what our sets have.
_LICENSES = {"apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "mit"}

_COLUMNS = {
    "image": "the picture",
    "image_id": "its name; a picture has a row for each text",
    "text": "what to count, in the plural; of a caption set, the caption",
    "count": "how many there are",
    "points": "`[x, y]` of each, in the picture's own pixels (the middle of the first pixel is 0.5)",
    "boxes": "`[x0, y0, x1, y1]` of each, likewise; empty where the source has none",
    "exemplar_boxes": "boxes around some objects that the source gives as examples; empty where it gives none",
    "description": "a longer way to say what to count, where the source has one",
    "note": "why the count is not the number of points, where it is not, and what else is odd about the row",
    "number": "the number that the caption states, two to ten, or 0 for none",
    "name": "what is counted, in the plural, where the source says it",
    "image_url": "where the picture was on the web",
    "density_map": "objects per pixel, as the source has them: rows of the picture's own size",
    "polygons": "outlines of each object's parts, x0, y0, x1, y1, ...",
    "other_texts": "what all kinds in the picture are called",
    "other_counts": "how many of each of these kinds there are",
}


@dataclass
class CardConfig:
    """
    One configuration of a published set.

    Args:
        name (`str`): Its name.
        info (`datasets.DatasetInfo`): With its features, splits and sizes.
        description (`str`): What it is, in a sentence.
        files (`dict[str, str]`): For each split, a pattern of the paths of its files.
        content (`str`): A hash of the files.
        num_pictures (`dict[str, int]`): How many different pictures each split has.
        num_objects (`dict[str, int]`): How many objects, where they are counted.
        faults (`Sequence[str]`): What is odd about it, a line each.
        left_out (`Sequence[str]`): Everything that was left out by name, where that is more than `faults` say.
    """

    name: str
    info: datasets.DatasetInfo
    description: str
    files: dict[str, str]
    content: str
    num_pictures: dict[str, int]
    num_objects: dict[str, int]
    faults: Sequence[str] = field(default_factory=list)
    left_out: Sequence[str] = field(default_factory=list)


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
        f"---\n{_metadata(title, configs)}\n---",
        MARK,
        f"# {title}",
        *(f"{config.info.description.partition(chr(10))[0]}" for config in configs[:1]),
        _usage(configs),
        "## Columns",
        _columns(infos),
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


def _metadata(title: str, configs: Sequence[CardConfig]) -> str:
    """What the Hub and `datasets` read."""
    license_ = configs[0].info.license
    total = sum(split.num_examples for split in configs[0].info.splits.values())
    data = DatasetCardData(
        pretty_name=title,
        license=(license_ if license_ in _LICENSES else "other") if license_ else "unknown",
        license_name=_slug(license_) if license_ and license_ not in _LICENSES else None,
        size_categories=[_size_category(total)],
        tags=["object-counting", "count-clip"],
    )
    DatasetInfosDict({config.name: config.info for config in configs}).to_dataset_card_data(data)
    entries = {
        config.name: {
            "data_files": [{"split": split, "path": path} for split, path in config.files.items()],
            # `datasets` keeps what it has read under a name that follows from this card. With the content in it, a
            # new build with other rows is read anew.
            "description": f"{config.description} Content {config.content[:16]}.",
            **({"default": True} if config is configs[0] else {}),
        }
        for config in configs
    }
    MetadataConfigs(entries).to_dataset_card_data(data)
    return str(data.to_yaml()).strip()


def _usage(configs: Sequence[CardConfig]) -> str:
    lines = ["```python", "from datasets import load_dataset", ""]
    for place, config in enumerate(configs):
        named = "" if not place and config.name == "default" else f", {config.name!r}"
        split = next(iter(config.files))
        lines.append(f'rows = load_dataset("FOLDER or ORGANISATION/NAME"{named}, split="{split}")')
    return "\n".join([*lines, "```"]).replace("'", '"')


def _columns(infos: Sequence[datasets.DatasetInfo]) -> str:
    names = list(dict.fromkeys(name for info in infos for name in info.features))
    lines = [f"| `{name}` | {_COLUMNS[name]} |" for name in names if name in _COLUMNS]
    return "\n".join(["| column | |", "| --- | --- |", *lines])


def _sizes(configs: Sequence[CardConfig]) -> str:
    lines = ["| configuration | split | rows | pictures | objects |", "| --- | --- | --- | --- | --- |"]
    for config in configs:
        for name, split in config.info.splits.items():
            objects = f"{config.num_objects[name]:,}" if name in config.num_objects else ""
            lines.append(
                f"| {config.name} | {name} | {split.num_examples:,} | {config.num_pictures[name]:,} | {objects} |"
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


def _slug(text: str) -> str:
    """A name as the Hub wants it: "for-academic-research-only"."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _size_category(number: int) -> str:
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M"]
    return names[min(len(names) - 1, sum(number >= limit for limit in (10**3, 10**4, 10**5, 10**6)))]


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
        if name not in ("data_dir", "data_files") and isinstance(value, (str, int, float, bool, list, dict))
    }
    if not told:
        return ""
    return f" Options: {', '.join(f'`{name}={value!r}`' for name, value in told.items())}."
