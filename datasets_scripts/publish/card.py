"""The cards of all sets: the metadata that the Hub and `datasets` read, and the text of built ones."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData


# Marks folders that a new build may overwrite.
MARK = "<!-- Written by count-clip. A new build writes over this folder. -->"
_TEMPLATE = Path(__file__).with_name("card.md.j2")
# Options that name folders of this machine.
_PLACES = ("backgrounds", "cache_dir", "cutouts", "data_dir", "data_files")
# The licences of our sets that the Hub lists.
_LICENSES = {"apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit"}

_COLUMNS = {
    "image": "the image",
    "image_id": "its name; an image has a row for each text",
    "text": "what to count, in the plural; in a caption set, the caption",
    "count": "how many there are",
    "points": "`[x, y]` of each, in the image's own pixels (the middle of the first pixel is 0.5)",
    "boxes": "`[x0, y0, x1, y1]` of each in the same pixels; empty if the source has none",
    "exemplar_boxes": "boxes around some objects, the examples of the source; empty if it has none",
    "description": "a longer description of what to count, if the source has one",
    "note": "why the count is not the number of points, if so, and what else is unusual about the row",
    "number": "the number that the caption states, two to ten, or 0 for none",
    "name": "what is counted, in the plural, if the source names it",
    "image_url": "the URL of the image",
    "density_map": "objects per pixel, as the source has them: rows of the image's own size",
    "polygons": "outlines of each object's visible regions, x0, y0, x1, y1, ...",
    "other_texts": "the names of all classes in the image",
    "other_counts": "the counts of these classes",
}


@dataclass
class HubConfig:
    """
    One configuration of a set, as its metadata describes it.

    Args:
        name (`str`): Its name.
        info (`datasets.DatasetInfo`): Its features, splits and sizes.
        files (`dict[str, str]`): For each split, a pattern of the paths of its files.
        description (`str`, *optional*): Its description. `datasets` names its cache after it, among others: with a
            hash of the files in it, a new build is read again.
    """

    name: str
    info: datasets.DatasetInfo
    files: dict[str, str]
    description: str | None = None


@dataclass
class CardConfig(HubConfig):
    """
    One configuration of a built set.

    Args:
        name, info, files, description: As [`HubConfig`] has them.
        num_images (`dict[str, int]`): The number of different images of each split.
        num_objects (`dict[str, int]`): The number of objects of each split, if they are counted.
        faults (`Sequence[str]`): What is unusual, a line each.
        left_out (`Sequence[str]`): Everything that was left out by name, if that is more than in `faults`.
        sheet (`str`, *optional*): The path of an image with examples, if there is one.
    """

    num_images: dict[str, int] = field(default_factory=dict)
    num_objects: dict[str, int] = field(default_factory=dict)
    faults: Sequence[str] = field(default_factory=list)
    left_out: Sequence[str] = field(default_factory=list)
    sheet: str | None = None


def one_split(features: datasets.Features, num_rows: int, num_bytes: int) -> datasets.DatasetInfo:
    """Describe a set of one split, `train`."""
    splits = SplitDict()
    splits.add(SplitInfo("train", num_examples=num_rows, num_bytes=num_bytes))
    return datasets.DatasetInfo(features=features, splits=splits, dataset_size=num_bytes)


def card_data(
    title: str,
    configs: Sequence[HubConfig],
    license_: str | None,
    tags: Sequence[str] = ("object-counting", "count-clip"),
    language: str | None = None,
) -> DatasetCardData:
    """
    Make the metadata at the top of a card, which the Hub and `datasets` read.

    Args:
        title (`str`): The set's name.
        configs (`Sequence[HubConfig]`): Its configurations; the first is the default.
        license_ (`str`, *optional*): Its licence: one that the Hub lists, or in words.
        tags (`Sequence[str]`, *optional*): Its tags.
        language (`str`, *optional*): The language of its texts, `"en"`.
    """
    total = sum(split.num_examples for split in configs[0].info.splits.values())
    is_listed = license_ in _LICENSES
    data = DatasetCardData(
        pretty_name=title,
        language=language,
        license=(license_ if is_listed else "other") if license_ else "unknown",
        license_name=_slug(license_) if license_ and not is_listed else None,
        size_categories=[_size_category(total)],
        tags=list(tags),
    )
    DatasetInfosDict({config.name: config.info for config in configs}).to_dataset_card_data(data)
    entries = {
        config.name: {
            "data_files": [{"split": split, "path": path} for split, path in config.files.items()],
            **({"description": config.description} if config.description else {}),
            **({"default": True} if config is configs[0] else {}),
        }
        for config in configs
    }
    MetadataConfigs(entries).to_dataset_card_data(data)
    return data


def columns_table(names: Sequence[str], more: Mapping[str, str] | None = None) -> str:
    """Describe columns in a table; `more` describes those that only this set has, or has differently."""
    known = {**_COLUMNS, **(more or {})}
    lines = [f"| `{name}` | {known[name]} |" for name in dict.fromkeys(names) if name in known]
    return "\n".join(["| column | |", "| --- | --- |", *lines])


def card_text(title: str, configs: Sequence[CardConfig], made: str, source: str, faults: Sequence[str]) -> str:
    """
    Write the card (`README.md`) of a built set, whose first configuration is the default.

    `made` is the command that made it, `source` its source, and `faults` are known errors of the set, a line each.
    """
    infos = [config.info for config in configs]
    card = DatasetCard.from_template(
        card_data(title, configs, infos[0].license),
        template_path=str(_TEMPLATE),
        mark=MARK,
        title=title,
        configs=configs,
        info=infos[0],
        columns=columns_table([name for info in infos for name in info.features]),
        made=made,
        source=source,
        faults=faults,
        citations=list(dict.fromkeys(info.citation for info in infos if info.citation)),
    )
    return f"{str(card).strip()}\n"


def is_own_card(text: str) -> bool:
    """Whether [`card_text`] wrote the content of a `README.md`."""
    return MARK in text


def plain_options(options: Mapping[str, Any]) -> str:
    """List a builder's options in a sentence for the card, without paths of this machine."""
    listed = [
        f"`{name}={value!r}`"
        for name, value in sorted(options.items())
        if name not in _PLACES and isinstance(value, (str, int, float, bool, list, dict))
    ]
    return f" Options: {', '.join(listed)}." if listed else ""


def _slug(text: str) -> str:
    """A name in the form of the Hub: "for-academic-research-only"."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _size_category(number: int) -> str:
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]
    return names[min(len(names) - 1, sum(number >= 10**power for power in range(3, 9)))]
