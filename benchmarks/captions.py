"""
Quality and speed of the text stages of the counting set.

    python benchmarks/captions.py
    python benchmarks/captions.py laion_other.jsonl.gz
    python benchmarks/captions.py --parser en_core_web_sm
    python benchmarks/captions.py --memory 10000 100000 1000000
    python benchmarks/captions.py --memory 10000 10000000 --without-images

Quality is measured on the labelled captions of the tests. Speed is measured on these, all of which hold a number word,
and on the given files (JSON lines with `text`, also gzipped): of the captions of the web, about one in a hundred does.
`--parser` compares with rules on the dependency parse of a spaCy model, where spaCy and the model are installed.

`--memory` builds whole counting sets of made-up captions, with small images or without, from shards of parquet, each
set in its own process, and prints peak memory and time.
"""

import argparse
import gzip
import io
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from count_clip.datasets_scripts.captions.lexicon import NOT_VISIBLE
from count_clip.datasets_scripts.captions.numbers import NUMBER_WORDS, counts_objects, find_count


LABELS = Path(__file__).resolve().parents[1] / "tests" / "datasets_scripts" / "counting_labels" / "labels.jsonl"
WEB_SCALE = 400_000_000


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines, gzipped or not."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, 1927)."""
    z = 1.959964
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return centre - half, centre + half


def quality(rows: Sequence[dict[str, Any]], verdicts: Sequence[bool]) -> str:
    """Precision and recall of verdicts on labelled captions, with their intervals, as the cells of a table's row."""
    right = sum(row["counts"] and verdict for row, verdict in zip(rows, verdicts, strict=True))
    cells = []
    for of in (sum(verdicts), sum(row["counts"] for row in rows)):
        low, high = wilson_interval(right, of)
        cells.append(f"{right}/{of} = {100 * right / of:.1f} % ({100 * low:.1f}-{100 * high:.1f})")
    return " | ".join(cells)


def parsed_verdicts(model: str) -> dict[str, Callable[[Sequence[str]], list[bool]]]:
    """Methods that use the dependency parse of a spaCy model."""
    import spacy

    parser = spacy.load(model)

    def judge(captions: Sequence[str], with_entities: bool, with_lists: bool) -> list[bool]:
        verdicts = []
        for caption, parsed in zip(captions, parser.pipe(captions), strict=True):
            match = find_count(caption)
            token = next(token for token in parsed if token.idx <= match.start < token.idx + len(token))
            head = token.head if token.dep_ == "nummod" and token.head.i > token.i else None
            if head is None:  # "two of the dogs"
                objects = [child for word in token.children if word.lower_ == "of" for child in word.children]
                head = next((word for word in objects if word.dep_ == "pobj"), None)
            counts = head is not None and head.tag_ in ("NNS", "NNPS")
            counts = counts and (not with_entities or token.ent_type_ in ("", "CARDINAL"))
            verdicts.append(bool(counts and (not with_lists or head.lower_ not in NOT_VISIBLE)))
        return verdicts

    return {
        f"{model}: counts a plural noun": lambda captions: judge(captions, False, False),
        f"{model}: and is no named entity": lambda captions: judge(captions, True, False),
        f"{model}: and the noun is visible (our list)": lambda captions: judge(captions, True, True),
    }


def captions_per_second(captions: Sequence[str], seconds: float, judge: Callable[[str], object]) -> float:
    """Judge captions repeatedly, by the processor time of this process."""
    judged, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        for caption in captions:
            judge(caption)
        judged += len(captions)
    return judged / (time.process_time() - began)


def print_quality(parsers: Iterable[str]) -> None:
    """Print precision and recall of every method, on both parts of the labelled captions."""
    labelled = read_json_lines(LABELS)
    judges: dict[str, Callable[[Sequence[str]], list[bool]]] = {
        "the number word alone": lambda captions: [find_count(caption) is not None for caption in captions],
        "counts_objects": lambda captions: [counts_objects(caption) for caption in captions],
    }
    for model in parsers:
        judges.update(parsed_verdicts(model))
    print("| judged by | part | captions | precision (95 %) | recall (95 %) |")
    print("| --- | --- | --- | --- | --- |")
    for name, judge in judges.items():
        for part in ("development", "held_out"):
            rows = [row for row in labelled if row["part"] == part]
            print(f"| {name} | {part} | {len(rows)} | {quality(rows, judge([row['text'] for row in rows]))} |")


def print_speed(files: Iterable[Path], seconds: float) -> None:
    """Print the captions that a core judges in a second, and the hours for the web."""
    cores = os.cpu_count() or 1
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}; one core is used\n")
    print(f"| captions | number words | captions/s, one core | {WEB_SCALE // 10**6} million on {cores} cores |")
    print("| --- | --- | --- | --- |")
    for path in [LABELS, *files]:
        captions = [row["text"] for row in read_json_lines(path)]
        share = sum(find_count(caption) is not None for caption in captions) / len(captions)
        speed = captions_per_second(captions, seconds, counts_objects)
        hours = WEB_SCALE / speed / cores / 3600
        print(f"| {path.name} | {100 * share:.1f} % | {speed:,.0f} | {hours:.2f} hours |", flush=True)


# One in fifty counts something, which is more than on the web.
MADE_UP = ("a dog on a lawn", "View of the harbour at dusk, {place}", "{number} years ago", "best phone {place} case")
MADE_UP_COUNTING = "{number} dogs on a lawn"
BUILD = """
import sys
from pathlib import Path
from count_clip.datasets_scripts.counting_set.build import build_caption_set
from count_clip.datasets_scripts.counting_set.stages import CaptionSetConfig

config = CaptionSetConfig(num_common=1000, captions_only=sys.argv[3] == "captions")
build_caption_set(sys.argv[1], sys.argv[2], config)
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def write_made_up_shards(folder: Path, size: int, with_images: bool, rows_per_shard: int = 50_000) -> None:
    """Write captions, and images of 96 x 96 random pixels, of which there are a hundred."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(100):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(file, "JPEG")
        images.append(file.getvalue())
    for start in range(0, size, rows_per_shard):
        rows = range(start, min(start + rows_per_shard, size))
        numbers = rng.integers(0, len(NUMBER_WORDS), len(rows))
        templates = [MADE_UP_COUNTING if place % 50 == 0 else MADE_UP[place % len(MADE_UP)] for place in rows]
        captions = [
            template.format(place=place, number=NUMBER_WORDS[number])
            for place, template, number in zip(rows, templates, numbers, strict=True)
        ]
        table = pa.table({"caption": captions})
        if with_images:
            chosen = [images[place] for place in rng.integers(0, len(images), len(rows))]
            table = table.append_column("jpg", pa.array(chosen))
        # As on the web, no image is stored twice in one place.
        pq.write_table(table, folder / f"{start:09d}.parquet", row_group_size=1000, use_dictionary=False)


def print_memory(sizes: Iterable[int], with_images: bool) -> None:
    """Print the peak memory of building sets from more and more captions."""
    print("| captions | shards, MB | kept | peak memory, MB | seconds |")
    print("| --- | --- | --- | --- | --- |")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            shards, output = Path(folder) / "shards", Path(folder) / "set"
            shards.mkdir()
            write_made_up_shards(shards, size, with_images)
            megabytes = sum(file.stat().st_size for file in shards.iterdir()) / 1e6
            began = time.perf_counter()
            what = "images" if with_images else "captions"
            arguments = [sys.executable, "-c", BUILD, str(shards), str(output), what]
            peak = int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
            seconds = time.perf_counter() - began
            kept = sum(json.loads((output / "stages.json").read_text(encoding="utf-8"))["kept"].values())
            print(f"| {size:,} | {megabytes:,.0f} | {kept:,} | {peak / 1000:,.0f} | {seconds:.0f} |", flush=True)


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="JSON lines with a text, for the speed")
    parser.add_argument("--parser", action="append", default=[], metavar="MODEL", help="a spaCy model to compare with")
    parser.add_argument("--memory", type=int, nargs="+", metavar="N", help="build sets of so many captions instead")
    parser.add_argument("--without-images", action="store_true", help="with --memory: captions only")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of speed (default: 5)")
    arguments = parser.parse_args()
    if arguments.memory:
        print_memory(arguments.memory, not arguments.without_images)
        return
    print_quality(arguments.parser)
    print()
    print_speed(arguments.files, arguments.seconds)


if __name__ == "__main__":
    main()
