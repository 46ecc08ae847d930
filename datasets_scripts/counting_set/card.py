"""The card of a counting set: its source, its options, and the captions after each stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from ..captions.numbers import NUMBER_TO_WORD
from ..files.atomic import write_whole
from ..publish.card import HubConfig, card_data, columns_table, one_split
from .stages import StageCounts


_COLUMNS = {
    "image_id": "the name of the row",
    "text": "the caption",
    "name": "what is counted, in the caption's words",
    "detected": "the detector's class",
    "scores": "the scores of its objects",
    "boxes": "`[x0, y0, x1, y1]` of each, in the upright image's own pixels",
    "url": "the URL of the image, if known",
    "source": "the file that the caption is from",
    "row": "the row of that file",
}


def write_card(output: Path, stages: Mapping[str, Any], features: datasets.Features) -> None:
    """Write `README.md`, with which `datasets.load_dataset` reads the folder and the Hub shows it."""
    total = sum(stages["kept"].values())
    num_bytes = sum(file.stat().st_size for file in (output / "data").glob("*.parquet"))
    content = f"Content {stages['fingerprint']}."
    config = HubConfig("default", one_split(features, total, num_bytes), {"train": "data/*.parquet"}, content)
    data = card_data("Counting set", [config], None, ("object-counting", "image-text", "count-clip"), "en")
    lines = ["---", data.to_yaml().strip(), "---", "", *_body(stages, total, features)]
    write_whole(output / "README.md", ("\n".join(lines) + "\n").encode())


def _body(stages: Mapping[str, Any], total: int, features: datasets.Features) -> list[str]:
    config, counts = stages["config"], stages["counts"]
    totals = counts["totals"]
    detector = config["detector"]
    images = ", without images" if config["captions_only"] else ", with their images"
    numbers = sorted(NUMBER_TO_WORD)
    lines = [
        "# Counting set",
        "",
        f"{total:,} captions that state a number of objects{images}, filtered from "
        f"`{stages['source']}` ({stages['num_shards']:,} shards) by the stages of "
        "[Teaching CLIP to Count to Ten](https://arxiv.org/abs/2302.12066), section 3.1, as "
        "`count-clip data counting-set` runs them.",
        "",
        "## Captions after each stage",
        "",
        f"| stage | captions | {' | '.join(map(str, numbers))} |",
        f"| --- | --- | {' | '.join('---' for _ in numbers)} |",
    ]
    kept = {int(number): count for number, count in stages["kept"].items()}
    for name, count, by_number in StageCounts.from_dict(counts).table(kept):
        cells = [f"{by_number.get(number, 0):,}" if by_number else "" for number in numbers]
        lines.append(f"| {name} | {count:,} | {' | '.join(cells)} |")
    lost = {
        "rows without a caption": totals.get("no_caption", 0),
        "images that are missing, broken or cannot be fetched": totals.get("no_image", 0),
        "images on which the detector failed": totals.get("detector_failed", 0),
    }
    faults = [f"- {what}: {count:,}" for what, count in lost.items() if count]
    if stages["unreadable"]:
        faults.append(f"- shards that cannot be read: {', '.join(stages['unreadable'])}")
    if stages["num_failures"] or stages["unreadable"]:
        faults.append("- `failures.jsonl` lists these images and shards.")
    if faults:
        lines += ["", "Lost:", "", *faults]
    if counts["reasons"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts["reasons"].items())
        lines += ["", f"Reasons why number words count no visible objects: {reasons}."]
    detector_name = f"`{detector}`" + (f" at revision `{config['revision']}`" if config["revision"] else "")
    balancing = stages["balancing"]
    lines += [
        "",
        "## How it was made",
        "",
        f"- Detector: {detector_name if detector else 'none, so the images may show another number'}.",
        *(f"- `{name}`: {value}" for name, value in config.items() if name not in ("detector", "revision")),
        *(f"- `{name}`: {value}" for name, value in balancing.items()),
        "",
        "## Columns",
        "",
        columns_table(list(features), _COLUMNS),
        "",
        "## Known faults",
        "",
        "Rules for English judge the text: they keep some captions whose number counts nothing visible, and lose some "
        "whose number does. A detector that finds the right number may have found other objects. Images and captions "
        "belong to their owners; see the source for their licences.",
    ]
    return lines
