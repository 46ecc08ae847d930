"""What the cards of all sets share: what the Hub and `datasets` read at their top, and what the columns are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData


# What the Hub knows by name, of what our sets have.
_LICENSES = {"apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit"}

_COLUMNS = {
    "image": "the image",
    "image_id": "its name; an image has a row for each text",
    "text": "what to count, in the plural; of a caption set, the caption",
    "count": "how many there are",
    "points": "`[x, y]` of each, in the image's own pixels (the middle of the first pixel is 0.5)",
    "boxes": "`[x0, y0, x1, y1]` of each, likewise; empty where the source has none",
    "exemplar_boxes": "boxes around some objects that the source gives as examples; empty where it gives none",
    "description": "a longer way to say what to count, where the source has one",
    "note": "why the count is not the number of points, where it is not, and what else is odd about the row",
    "number": "the number that the caption states, two to ten, or 0 for none",
    "name": "what is counted, in the plural, where the source says it",
    "image_url": "where the image was on the web",
    "density_map": "objects per pixel, as the source has them: rows of the image's own size",
    "polygons": "outlines of each object's parts, x0, y0, x1, y1, ...",
    "other_texts": "what all kinds in the image are called",
    "other_counts": "how many of each of these kinds there are",
}


@dataclass
class HubConfig:
    """
    One configuration of a set, as the Hub is told of it.

    Args:
        name (`str`): Its name.
        info (`datasets.DatasetInfo`): With its features, splits and sizes.
        files (`dict[str, str]`): For each split, a pattern of the paths of its files.
        description (`str`, *optional*): What it is. `datasets` keeps what it has read under a name that follows from
            this too, so with a hash of the files in it a new build is read anew.
    """

    name: str
    info: datasets.DatasetInfo
    files: dict[str, str]
    description: str | None = None


def one_split(features: datasets.Features, num_rows: int, num_bytes: int) -> datasets.DatasetInfo:
    """
    Describe a set of one split, `train`.

    Args:
        features (`datasets.Features`): Its columns.
        num_rows (`int`): Its rows.
        num_bytes (`int`): Their size.

    Returns:
        `datasets.DatasetInfo`: The description.
    """
    splits = SplitDict()
    splits.add(SplitInfo("train", num_examples=num_rows, num_bytes=num_bytes))
    return datasets.DatasetInfo(features=features, splits=splits, dataset_size=num_bytes)


def front_matter(
    title: str,
    configs: Sequence[HubConfig],
    license_: str | None,
    tags: Sequence[str] = ("object-counting", "count-clip"),
    language: str | None = None,
) -> str:
    """
    Write what the Hub and `datasets` read at the top of a card.

    Args:
        title (`str`): The set's name.
        configs (`Sequence[HubConfig]`): Its configurations; the first is the default.
        license_ (`str`, *optional*): Its licence: a name that the Hub knows, or in words.
        tags (`Sequence[str]`, *optional*): What it is about.
        language (`str`, *optional*): Of its texts, `"en"`.

    Returns:
        `str`: YAML between two lines of `---`.
    """
    total = sum(split.num_examples for split in configs[0].info.splits.values())
    data = DatasetCardData(
        pretty_name=title,
        language=language,
        license=(license_ if license_ in _LICENSES else "other") if license_ else "unknown",
        license_name=_slug(license_) if license_ and license_ not in _LICENSES else None,
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
    return f"---\n{str(data.to_yaml()).strip()}\n---"


def columns_table(names: Sequence[str], more: Mapping[str, str] | None = None) -> str:
    """
    Say what columns are.

    Args:
        names (`Sequence[str]`): The columns.
        more (`Mapping[str, str]`, *optional*): Of those that are unusual, or unusual in this set.

    Returns:
        `str`: A table.
    """
    said: dict[str, Any] = {**_COLUMNS, **(more or {})}
    lines = [f"| `{name}` | {said[name]} |" for name in dict.fromkeys(names) if name in said]
    return "\n".join(["| column | |", "| --- | --- |", *lines])


def _slug(text: str) -> str:
    """A name as the Hub wants it: "for-academic-research-only"."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _size_category(number: int) -> str:
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"]
    return names[min(len(names) - 1, sum(number >= 10**power for power in range(3, 9)))]
