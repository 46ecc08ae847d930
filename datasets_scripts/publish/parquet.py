"""
Builds folders of counting sets for the Hub: parquet shards with the images in them, and a card.

    build_dataset("fsc147", "fsc147-parquet", data_dir="FSC147")
    datasets.load_dataset("fsc147-parquet")           # the rows of the builder, without this package

The rows are written in parts of some hundred, each whole or not at all, and then merged to shards. An interrupted
build continues with the first missing part. The files depend only on the source, the options and the versions of this
package, `datasets` and `pyarrow`: a second build gives the same bytes.
"""

import dataclasses
import hashlib
import importlib.metadata
import inspect
import io
import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.table import embed_table_storage
from huggingface_hub import DatasetCard
from huggingface_hub.utils import tqdm

from ..builders.base import CardBuilder
from ..files.atomic import whole_file, write_whole
from ..files.resumable import ResumableFolder, remove_folder
from .card import CardConfig, card_text, is_own_card, plain_options


logger = logging.getLogger(__name__)

PARTIAL = ".partial"
# The folder of the card's images with examples.
_SHEETS = "sheets"
_PUSHED = ("README.md", "**/*.parquet", f"{_SHEETS}/*.png")
# The Hub's viewer reads one row group at a time, of at most some 100 MB.
_ROW_GROUP_ROWS = 100
_ROW_GROUP_BYTES = 64 * 10**6
MAX_SHARD_BYTES = 300 * 10**6


@dataclass(frozen=True)
class _Part:
    """Some rows of a split, written by one process; its record holds the images, objects and row sizes."""

    split: str
    number: int
    gen_kwargs: dict[str, Any]
    work: ResumableFolder
    name: str

    @property
    def file(self) -> Path:
        """`Path`: The rows."""
        return self.work.folder / f"{self.name}.parquet"


def build_dataset(
    name: str,
    output: str | os.PathLike[str],
    configs: Sequence[str] | None = None,
    num_proc: int = 1,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    **options: Any,
) -> Path:
    """
    Build a folder that `datasets.load_dataset` reads without this package, and that the Hub displays.

    Args:
        name (`str`): A key of `DATASETS`: `"fsc147"`.
        output (`str` or `os.PathLike`): The folder to write: a new one, an empty one, or a former build, which is
            replaced.
        configs (`Sequence[str]`, *optional*): The configurations; by default the set's default one, or all if it has
            none.
        num_proc (`int`, *optional*, defaults to 1): Number of processes; with more than one, the options have to be
            picklable.
        max_shard_bytes (`int`, *optional*, defaults to 300 MB): The approximate size of the largest files.
        options (`Any`, *optional*): More arguments of `datasets.load_dataset`: `data_dir` and those of the builder.

    Raises:
        FileExistsError: If the folder holds something else.
        FileNotFoundError: If a file of the source is missing.
        ValueError: If a file of the source cannot be correct, or an argument is wrong.
    """
    if num_proc < 1 or max_shard_bytes < 1:
        raise ValueError(
            f"Expected num_proc and max_shard_bytes of 1 or more, but got {num_proc} and {max_shard_bytes}."
        )
    folder = Path(output).expanduser().resolve()
    _check_output(folder)
    chosen = _chosen_configs(name, configs)
    _check_options(name, chosen[0], options)
    builders = [datasets.load_dataset_builder(name, config, **options) for config in chosen]
    partial = folder / PARTIAL
    work = ResumableFolder(partial)
    # Reads the whole source but for the pixels, before anything is written.
    parts = [_parts(builder, work) for builder in builders]
    # Everything that the files depend on. The name of a builder's cache follows from the options and the state of the
    # source, the hash from the code.
    plan = {
        "name": name,
        "configs": [(builder.config_id, builder.hash) for builder in builders],
        "max_shard_bytes": max_shard_bytes,
        "versions": _versions(),
    }
    if work.begin(plan, restart=True):
        logger.info(f"Resuming the build in {folder}.")
    cards = []
    for builder, of_config in zip(builders, parts, strict=True):
        _write_parts(builder, of_config, num_proc)
        cards.append(_put_together(builder, of_config, partial / "final", max_shard_bytes))
        cards[-1].sheet = _write_sheet(builder, partial / "final")
    text = card_text(
        builders[0].TITLE,
        cards,
        _made(name, [builder.config.name for builder in builders], options),
        builders[0].source(),
        list(dict.fromkeys(fault for builder in builders for fault in builder.known_faults())),
    )
    _put_in_place(folder, partial / "final", text)
    remove_folder(partial)
    return folder


def files_to_push(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """List the files of a built folder that are pushed to the Hub, by their paths in the repository."""
    place = Path(folder).expanduser().resolve()
    files = sorted({path for pattern in _PUSHED for path in place.glob(pattern)})
    return {path.relative_to(place).as_posix(): path for path in files}


def is_private_by_default(folder: str | os.PathLike[str]) -> bool:
    """Whether a built folder is pushed to a private repository unless stated otherwise: if its licence is not open."""
    return DatasetCard.load(Path(folder).expanduser() / "README.md").data.license in ("other", "unknown")


def built_sizes(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """List `config`, `split` and `rows` of each split of a built folder, from its card."""
    infos = DatasetInfosDict.from_dataset_card_data(DatasetCard.load(Path(folder) / "README.md").data)
    return [
        {"config": config, "split": str(name), "rows": split.num_examples}
        for config, info in infos.items()
        for name, split in info.splits.items()
    ]


def _chosen_configs(name: str, configs: Sequence[str] | None) -> list[str]:
    known = datasets.get_dataset_config_names(name)
    if configs is None and datasets.load_dataset_builder(name, known[0]).IS_ONE_OF_ITS_CONFIGS:
        raise ValueError(f"Expected a configuration of {name!r} ({', '.join(known)}), but got none. Name one.")
    if configs is None:
        default = datasets.get_dataset_default_config_name(name)
        return [default] if default is not None else known
    if not configs or (unknown := [config for config in configs if config not in known]):
        got = ", ".join(map(repr, unknown if configs else [])) or "none"
        raise ValueError(
            f"Expected configurations of {name!r} ({', '.join(known)}), but got {got}. Name some of these."
        )
    return list(dict.fromkeys(configs))


def _check_options(name: str, config: str, options: Mapping[str, Any]) -> None:
    """Name an unknown option; the error of `datasets` prints the whole configuration."""
    own = [field.name for field in dataclasses.fields(datasets.load_dataset_builder(name, config).config)]
    own = [field for field in own if field not in ("name", "version", "data_files", "description")]
    if unknown := sorted(set(options) - {*own, *inspect.signature(datasets.load_dataset_builder).parameters}):
        raise ValueError(
            f"Expected options of {name!r} ({', '.join(own)}), but got {', '.join(map(repr, unknown))}. "
            "Name some of these."
        )


def _check_output(folder: Path) -> None:
    """Raise an error unless the folder is new, empty or a former build."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"Expected a folder to write at {folder}, but it is a file. Name another.")
    if not folder.is_dir() or not any(folder.iterdir()) or ResumableFolder(folder / PARTIAL).plan is not None:
        return
    card = folder / "README.md"
    if not card.is_file() or not is_own_card(card.read_text(encoding="utf-8", errors="replace")):
        raise FileExistsError(
            f"Expected {folder} to be new, empty or a former build, but it holds something else. Name another folder."
        )


def _put_together(builder: CardBuilder, parts: Sequence[_Part], final: Path, max_shard_bytes: int) -> CardConfig:
    """Write the shards of a configuration from its parts, and describe them for the card."""
    config = builder.config.name
    folder = "data" if config == "default" else config
    files, digest = {}, hashlib.sha256()
    splits = SplitDict(dataset_name=builder.dataset_name)
    images, objects = {}, {}
    total_bytes = 0
    for split, group in itertools.groupby(parts, key=lambda part: part.split):
        of_split = list(group)
        facts = [part.work.record(part.name) for part in of_split]
        num_bytes = 0
        row_bytes = [fact["row_bytes"] for fact in facts]
        shards = _shards([size for sizes in row_bytes for size in sizes], max_shard_bytes)
        for number, rows in enumerate(shards):
            file = final / folder / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
            tables = _tables(of_split, list(map(len, row_bytes)), rows)
            num_bytes += _write_shard(file, tables, builder.info.features.arrow_schema)
            with file.open("rb") as written:
                digest.update(hashlib.file_digest(written, "sha256").digest())
            total_bytes += file.stat().st_size
        files[split] = f"{folder}/{split}-*"
        num_rows = sum(map(len, row_bytes))
        splits.add(SplitInfo(name=split, num_bytes=num_bytes, num_examples=num_rows))
        images[split] = len(set(itertools.chain.from_iterable(fact["image_ids"] for fact in facts)))
        if "count" in builder.info.features:
            objects[split] = sum(fact["num_objects"] for fact in facts)
    info = builder.info.copy()
    info.splits = splits
    info.download_size = total_bytes
    info.dataset_size = sum(split.num_bytes for split in splits.values())
    return CardConfig(
        config,
        info,
        files,
        # `datasets` reads a new build with other content again.
        f"{builder.config.description or info.description.partition(chr(10))[0]} Content {digest.hexdigest()[:16]}.",
        images,
        objects,
        builder.findings.lines(every_left_out=False),
        builder.findings.long_lines(),
    )


def _parts(builder: CardBuilder, work: ResumableFolder) -> list[_Part]:
    """List the parts: one for each element of the lists that `datasets` would divide among processes."""
    parts = []
    for generator in builder._split_generators(datasets.DownloadManager()):
        lists = {key: value for key, value in generator.gen_kwargs.items() if isinstance(value, list)}
        for number in range(max(map(len, lists.values()), default=1)):
            gen_kwargs = {**generator.gen_kwargs, **{key: [value[number]] for key, value in lists.items()}}
            name = f"parts/{builder.config.name}/{generator.name}-{number:05d}"
            parts.append(_Part(generator.name, number, gen_kwargs, work, name))
    return parts


def _write_parts(builder: CardBuilder, parts: Sequence[_Part], num_proc: int) -> None:
    waiting = [part for part in parts if not part.work.is_finished(part.name)]
    if not waiting:
        return
    waiting[0].file.parent.mkdir(parents=True, exist_ok=True)
    description = f"{builder.dataset_name}/{builder.config.name}"
    with tqdm(total=len(parts), initial=len(parts) - len(waiting), unit="part", desc=description, disable=None) as bar:
        if num_proc == 1:
            for part in waiting:
                _write_part(builder, part)
                bar.update()
            return
        with ProcessPoolExecutor(min(num_proc, len(waiting))) as pool:
            for _ in pool.map(_write_part, itertools.repeat(builder), waiting):
                bar.update()


def _write_part(builder: CardBuilder, part: _Part) -> None:
    """Generate the rows of a part, and write them with their images."""
    features = builder.info.features
    rows = [features.encode_example(row) for _, row in builder._generate_examples(**part.gen_kwargs)]
    table = embed_table_storage(pa.Table.from_pylist(rows, schema=features.arrow_schema))
    facts = {
        "row_bytes": [table.slice(place, 1).nbytes for place in range(table.num_rows)],
        "image_ids": [row["image_id"] for row in rows],
        "num_objects": sum(row.get("count") or 0 for row in rows),
    }
    with whole_file(part.file) as temporary:
        pq.write_table(table, temporary)
    part.work.finish(part.name, facts)


def _shards(sizes: Sequence[int], max_shard_bytes: int) -> list[range]:
    """Divide rows of some sizes among shards of about the same size; a row belongs to the shard of its middle byte."""
    total = max(1, sum(sizes))
    num_shards = -(-total // max_shard_bytes)
    ends = itertools.accumulate(sizes)
    shard_of = [(end - size + size // 2) * num_shards // total for end, size in zip(ends, sizes, strict=True)]
    starts = [row for row, shard in enumerate(shard_of) if row == 0 or shard != shard_of[row - 1]]
    return [range(start, stop) for start, stop in itertools.pairwise([*starts, len(sizes)])]


def _tables(parts: Sequence[_Part], lengths: Sequence[int], rows: range) -> Iterator[pa.Table]:
    """Read some rows of a split from its parts."""
    start = 0
    for part, length in zip(parts, lengths, strict=True):
        first, stop = max(rows.start - start, 0), min(rows.stop - start, length)
        if first < stop:
            yield pq.read_table(part.file).slice(first, stop - first)
        start += length


def _write_shard(file: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> int:
    """Write rows to a file, unless a former run has; returns their size in memory."""
    file.parent.mkdir(parents=True, exist_ok=True)
    groups = _row_groups(tables)
    if file.is_file():
        return sum(group.nbytes for group in groups)
    num_bytes = 0
    options = {"use_content_defined_chunking": True, "write_page_index": True}
    with whole_file(file) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:
        for group in groups:
            num_bytes += group.nbytes
            writer.write_table(group, row_group_size=group.num_rows)
    return num_bytes


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Cut tables into row groups, which a reader of one row has to load."""
    for table in tables:
        first = 0
        size = 0
        for place in range(table.num_rows):
            row = table.slice(place, 1).nbytes
            if place > first and (size + row > _ROW_GROUP_BYTES or place - first >= _ROW_GROUP_ROWS):
                yield table.slice(first, place - first)
                first, size = place, 0
            size += row
        if table.num_rows:
            yield table.slice(first)


def _write_sheet(builder: CardBuilder, final: Path) -> str | None:
    """Write an image with examples for the card, if the builder draws one."""
    sheet = builder.draw_examples()
    if sheet is None:
        return None
    path = f"{_SHEETS}/{builder.config.name}.png"
    (final / _SHEETS).mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    sheet.save(content, format="PNG", optimize=True)
    write_whole(final / path, content.getvalue())
    return path


def _put_in_place(folder: Path, final: Path, card: str) -> None:
    """Replace a former build; the card, which lists the files, is removed first and written last."""
    (folder / "README.md").unlink(missing_ok=True)
    for old in [*folder.rglob("*.parquet"), *folder.glob(f"{_SHEETS}/*.png")]:
        if PARTIAL not in old.relative_to(folder).parts:
            old.unlink()
    for file in sorted([*final.rglob("*.parquet"), *final.glob(f"{_SHEETS}/*.png")]):
        target = folder / file.relative_to(final)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
    for left in folder.iterdir():
        if left.is_dir() and left.name != PARTIAL and not any(left.iterdir()):
            left.rmdir()
    write_whole(folder / "README.md", card.encode())


def _made(name: str, configs: Sequence[str], options: dict[str, Any]) -> str:
    command = " ".join(["count-clip data build", name, *(f"--config {config}" for config in configs)])
    versions = ", ".join(f"{package} {version}" for package, version in _versions().items())
    return f"By `{command}` ({versions}).{plain_options(options)}"


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("count-clip", "datasets", "pyarrow"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
            versions[package] = "unknown"
    return versions
