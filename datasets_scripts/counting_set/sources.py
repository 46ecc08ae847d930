"""Finds the shards of a source of captions: a folder, a file, or the name of a data set of `datasets`."""

import hashlib
from pathlib import Path

import datasets
import pyarrow.parquet as pq

from .shards import (
    CaptionShard,
    Columns,
    DatasetShard,
    JsonLinesShard,
    ParquetShard,
    WebdatasetShard,
    json_objects,
    reading,
)


_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_JSON_LINES_SUFFIXES = (".jsonl", ".jsonl.gz")


def find_shards(
    source: str,
    columns: Columns | None = None,
    split: str = "train",
    config: str | None = None,
    max_rows: int = 50_000,
) -> list[CaptionShard]:
    """
    Find the shards of a source, in the order of their names.

    Args:
        source, columns, split, max_rows: As [`build_caption_set`] takes them. Parquet files are divided as far as
            their row groups allow. Where a folder holds an archive and a table of one name (as img2dataset writes
            them), the archive is read.
        config (`str`, *optional*): The configuration of a data set by its name.

    Raises:
        ValueError: If there are none, or columns are missing.
        ShardError: If a file is broken.
    """
    columns = columns or Columns()
    path = Path(source)
    if not path.exists():
        return _dataset_shards(source, config, split, columns)
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if _is_shard(file, path)]
    archives = {file.with_suffix("") for file in files if file.suffix == ".tar"}
    shards: list[CaptionShard] = []
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        if file.suffix == ".parquet":
            if file.with_suffix("") not in archives:
                shards += _parquet_shards(file, name, columns, max_rows)
        elif file.name.endswith(_TAR_SUFFIXES):
            shards.append(WebdatasetShard(name, _fingerprint(file), str(file), columns))
        elif file.name.endswith(_JSON_LINES_SUFFIXES):
            with reading(str(file)):
                first = next(filter(None, json_objects(str(file))), {})
            found = columns.found_in(list(first), str(file))
            shards.append(JsonLinesShard(name, _fingerprint(file), str(file), found))
    if not shards:
        raise ValueError(
            f"Expected shards of captions in {source} (.parquet, .tar, .jsonl, .jsonl.gz), but found none. Name the "
            "folder that holds them."
        )
    return shards


def _is_shard(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden and file.name.endswith((".parquet", *_TAR_SUFFIXES, *_JSON_LINES_SUFFIXES))


def _fingerprint(file: Path) -> str:
    """The size and both ends of a file: the end of a parquet file describes all of it."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(65536))
        opened.seek(max(0, size - 65536))
        digest.update(opened.read())
    return f"{size}-{digest.hexdigest()[:16]}"


def _parquet_shards(file: Path, name: str, columns: Columns, max_rows: int) -> list[CaptionShard]:
    with reading(str(file)), pq.ParquetFile(file) as opened:
        names = opened.schema_arrow.names
        sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.metadata.num_row_groups)]
    found = columns.found_in(names, str(file))
    fingerprint = _fingerprint(file)
    shards: list[CaptionShard] = []
    first_group = first_row = rows = 0
    for group, size in enumerate(sizes):
        rows += size
        if rows >= max_rows or group == len(sizes) - 1:
            part = "" if first_group == 0 and group == len(sizes) - 1 else f"#{first_group}-{group}"
            groups = (first_group, group + 1)
            shards.append(ParquetShard(name + part, fingerprint, str(file), found, groups, first_row))
            first_group, first_row, rows = group + 1, first_row + rows, 0
    return shards


def _dataset_shards(dataset: str, config: str | None, split: str, columns: Columns) -> list[CaptionShard]:
    try:
        rows = datasets.load_dataset(dataset, config, split=split, streaming=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"Expected a folder of shards or the name of a data set, but {dataset} is neither: {error}. Check it."
        ) from error
    names = list(rows.features) if rows.features else list(next(iter(rows)))
    found = columns.found_in(names, f"{dataset} ({split})")
    name = "/".join(part for part in (dataset, config, split) if part)
    count = rows.num_shards
    return [
        DatasetShard(f"{name}#{index}-of-{count}", name, dataset, found, config, split, index, count)
        for index in range(count)
    ]
