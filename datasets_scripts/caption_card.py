"""The card of a counting set: what it was made of, how, and how many captions there were after each stage."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from .captions import NUMBER_TO_WORD


def write_card(output: Path, stages: Mapping[str, Any], features: datasets.Features) -> None:
    """
    Write `README.md`, with which `datasets.load_dataset` reads the folder and the Hub shows it.

    Args:
        output (`Path`): The folder of the set.
        stages (`Mapping[str, Any]`): What was counted and how the set was made.
        features (`datasets.Features`): Its columns.
    """
    total = sum(stages["kept"].values())
    splits = datasets.SplitDict(dataset_name=None)
    splits.add(datasets.SplitInfo("train", num_examples=total, num_bytes=_num_bytes(output)))
    # Json is yaml, too.
    header = {
        "pretty_name": json.dumps("Counting set"),
        "language": '["en"]',
        "tags": '["counting", "image-text"]',
        "size_categories": json.dumps([_size_category(total)]),
        "configs": json.dumps(
            [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}]
        ),
        "dataset_info": json.dumps({"features": features._to_yaml_list(), "splits": splits._to_yaml_list()}),
    }
    lines = ["---", *(f"{name}: {value}" for name, value in header.items()), "---", "", *_body(stages, total)]
    (output / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def stage_table(stages: Mapping[str, Any]) -> list[tuple[str, int, dict[int, int]]]:
    """
    List the stages with what came through each.

    Args:
        stages (`Mapping[str, Any]`): What was counted.

    Returns:
        `list[tuple[str, int, dict[int, int]]]`: What each stage asks, how many came through, and how many of these
        there are of each number.
    """
    names = {
        "number_word": "a number word",
        "counts_objects": "it counts something that can be seen",
        "pictures": "there is a picture",
        "right_number": "a detector finds that number",
    }
    counts = stages["counts"]
    table: list[tuple[str, int, dict[int, int]]] = [("captions", counts["totals"].get("captions", 0), {})]
    for stage, name in names.items():
        if stage in counts["by_number"]:
            numbers = {int(number): count for number, count in counts["by_number"][stage].items()}
            table.append((name, counts["totals"][stage], numbers))
    kept = {int(number): count for number, count in stages["kept"].items()}
    table.append(("kept after balancing", sum(kept.values()), kept))
    return table


def _body(stages: Mapping[str, Any], total: int) -> list[str]:
    config, counts = stages["config"], stages["counts"]
    totals = counts["totals"]
    detector = config["detector"]
    pictures = ", without pictures" if config["captions_only"] else ", with their pictures"
    numbers = sorted(NUMBER_TO_WORD)
    lines = [
        "# Counting set",
        "",
        f"{total:,} captions that state how many there are of something{pictures}, filtered from "
        f"`{stages['source']}` ({stages['num_shards']:,} shards) by the stages of "
        "[Teaching CLIP to Count to Ten](https://arxiv.org/abs/2302.12066), section 3.1, as "
        "`count-clip data counting-set` does them.",
        "",
        "## How many came through each stage",
        "",
        f"| stage | captions | {' | '.join(map(str, numbers))} |",
        f"| --- | --- | {' | '.join('---' for _ in numbers)} |",
    ]
    for name, count, by_number in stage_table(stages):
        cells = [f"{by_number.get(number, 0):,}" if by_number else "" for number in numbers]
        lines.append(f"| {name} | {count:,} | {' | '.join(cells)} |")
    lost = {
        "rows without a caption": totals.get("no_caption", 0),
        "pictures that were missing, broken or not to be fetched": totals.get("no_picture", 0),
        "pictures on which the detector failed": totals.get("detector_failed", 0),
    }
    faults = [f"- {what}: {count:,}" for what, count in lost.items() if count]
    if stages["unreadable"]:
        faults.append(f"- shards that could not be read: {', '.join(stages['unreadable'])}")
    if stages["num_failures"] or stages["unreadable"]:
        faults.append("- `failures.jsonl` has a line for each picture and shard among these.")
    if faults:
        lines += ["", "Lost on the way:", "", *faults]
    if counts["reasons"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts["reasons"].items())
        lines += ["", f"Why number words did not count what can be seen: {reasons}."]
    said = f"`{detector}`" + (f" at revision `{config['revision']}`" if config["revision"] else "")
    balancing = stages["balancing"]
    lines += [
        "",
        "## How it was made",
        "",
        f"- Detector: {said if detector else 'none, so the pictures may show another number'}.",
        *(f"- `{name}`: {value}" for name, value in config.items() if name not in ("detector", "revision")),
        *(f"- `{name}`: {value}" for name, value in balancing.items()),
        "",
        "## Columns",
        "",
        "`image`, `image_id`, `text` (the caption), `number`, `name` (what is counted, in the caption's words) and "
        "`note`; `detected` (the detector's class), `scores` and `boxes` (`[x0, y0, x1, y1]` in the upright picture's "
        "pixels) of its objects; `url`; `source` and `row`, where the caption is from.",
        "",
        "## Known faults",
        "",
        "The text is judged by rules for English, which let some captions through whose number counts nothing that is "
        "to be seen, and lose some whose number does. A detector that finds the right number may have found other "
        "things. Pictures and captions are their owners'; see the source for their licences.",
    ]
    return lines


def _num_bytes(output: Path) -> int:
    return sum(file.stat().st_size for file in (output / "data").glob("*.parquet"))


def _size_category(total: int) -> str:
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if total < limit:
            return name
    return "n>1M"
