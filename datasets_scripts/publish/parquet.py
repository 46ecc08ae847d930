"""
Builds Hub-ready folders of counting sets: parquet shards with the images in them, and a card.

    build_dataset("fsc147", "fsc147-parquet", data_dir="FSC147")
    datasets.load_dataset("fsc147-parquet")           # what the builder gives, without this package
    push_dataset("fsc147-parquet", "organisation/fsc147")

The rows are written in parts of some hundred, each whole or not at all, and then put together to shards. A build that
was killed goes on with the first part that is not there. The files depend on the source, the options and the versions
of this package, `datasets` and `pyarrow` only: a second build gives the same bytes.
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
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.utils import tqdm

from ..files.atomic import whole_file, write_whole
from ..files.resumable import ResumableFolder, remove_folder
from .dataset_card import CardConfig, card_text, is_own_card, plain_options


logger = logging.getLogger(__name__)

PARTIAL = ".partial"
# Images with examples, for the card.
_SHEETS = "sheets"
_PUSHED = ("README.md", "**/*.parquet", f"{_SHEETS}/*.png")
# The Hub's viewer reads a row group at a time and wants it below 100 MB or so.
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


@dataclass(frozen=True)
class _Shard:
    """A file to publish: rows from the parts of a split, by the number of the part and the places in it."""

    path: str
    pieces: tuple[tuple[int, int, int], ...]


def build_dataset(
    name: str,
    output: str | os.PathLike[str],
    configs: Sequence[str] | None = None,
    num_proc: int = 1,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    **options: Any,
) -> Path:
    """
    Build a folder that `datasets.load_dataset` reads without this package, and that the Hub shows.

    Args:
        name (`str`):
            What `datasets.load_dataset` knows the set by: `"fsc147"`.
        output (`str` or `os.PathLike`):
            The folder to write; it must not be there, be empty, or be a former build, which is written over.
        configs (`Sequence[str]`, *optional*):
            Which configurations; by default the set's default one, or all if it has none.
        num_proc (`int`, *optional*, defaults to 1):
            How many processes write; with more than one, the options have to be picklable.
        max_shard_bytes (`int`, *optional*, defaults to 300 MB):
            About how large a file may become.
        options (`Any`, *optional*):
            More arguments of `datasets.load_dataset`: `data_dir` and those of the builder.

    Returns:
        `Path`: The folder.

    Raises:
        FileExistsError: If the folder holds something else.
        FileNotFoundError: If something of the source is missing.
        ValueError: If something of the source cannot be right, or an argument does not do.
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
    if work.begin(_plan(name, builders, max_shard_bytes), restart=True):
        logger.info(f"Resuming the build in {folder}.")
    cards = []
    for builder, of_config in zip(builders, parts, strict=True):
        _write_parts(builder, of_config, num_proc)
        cards.append(_put_together(builder, of_config, partial / "final", max_shard_bytes))
        cards[-1].sheet = _write_sheet(builder, partial / "final")
    text = card_text(
        _title(name),
        cards,
        _made(name, [builder.config.name for builder in builders], options),
        _source(builders[0]),
        list(dict.fromkeys(fault for builder in builders for fault in getattr(builder, "KNOWN_FAULTS", ()))),
    )
    _put_in_place(folder, partial / "final", text)
    remove_folder(partial)
    return folder


def push_dataset(
    folder: str | os.PathLike[str],
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """
    Push a built folder to the Hub.

    Args:
        folder (`str` or `os.PathLike`):
            What [`build_dataset`] wrote.
        repo_id (`str`):
            `"organisation/name"` on the Hub; it is made if it is not there, and becomes like the folder if it is.
        private (`bool`, *optional*):
            Whether a new repository is private; by default it is where the set's licence is no open one.
        token (`str`, *optional*):
            A token of the Hub; by default the one that is logged in.
        revision (`str`, *optional*):
            A branch that is there; by default `main`.

    Returns:
        `str`: The address of the commit.

    Raises:
        FileNotFoundError: If the folder is no finished build.
    """
    place = Path(folder).expanduser().resolve()
    card = place / "README.md"
    if not card.is_file() or not is_own_card(card.read_text(encoding="utf-8")) or (place / PARTIAL).exists():
        raise FileNotFoundError(f"Expected a finished build in {place}, but it is none. Build it first, to its end.")
    if private is None:
        private = is_private_by_default(place)
    api = HfApi(token=token)
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        repo_type="dataset",
        folder_path=place,
        allow_patterns=list(_PUSHED),
        # Files of a former build that are not in this one.
        delete_patterns=["**/*.parquet", f"{_SHEETS}/*.png"],
        revision=revision,
        commit_message="Upload with count-clip",
    )
    return str(commit.commit_url)


def files_to_push(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """
    List what of a built folder goes to the Hub.

    Args:
        folder (`str` or `os.PathLike`): What [`build_dataset`] wrote.

    Returns:
        `dict[str, Path]`: Paths in the repository, and where the files lie.
    """
    place = Path(folder).expanduser().resolve()
    files = sorted({path for pattern in _PUSHED for path in place.glob(pattern)})
    return {path.relative_to(place).as_posix(): path for path in files}


def is_private_by_default(folder: str | os.PathLike[str]) -> bool:
    """
    Say whether a set goes into a private repository if nobody says where.

    Args:
        folder (`str` or `os.PathLike`): What [`build_dataset`] wrote.

    Returns:
        `bool`: Whether its licence is no open one.
    """
    return DatasetCard.load(Path(folder).expanduser() / "README.md").data.license in ("other", "unknown")


def built_sizes(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """
    Say how large a built set is, as its card does.

    Args:
        folder (`str` or `os.PathLike`): What [`build_dataset`] wrote.

    Returns:
        `list[dict[str, Any]]`: `config`, `split` and `rows` of each split.
    """
    infos = DatasetInfosDict.from_dataset_card_data(DatasetCard.load(Path(folder) / "README.md").data)
    return [
        {"config": config, "split": str(name), "rows": split.num_examples}
        for config, info in infos.items()
        for name, split in info.splits.items()
    ]


def _chosen_configs(name: str, configs: Sequence[str] | None) -> list[str]:
    known = datasets.get_dataset_config_names(name)
    if configs is None and getattr(datasets.load_dataset_builder(name, known[0]), "IS_ONE_OF_ITS_CONFIGS", False):
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
    """`datasets` answers an unknown option with everything it knows about the configuration."""
    own = [field.name for field in dataclasses.fields(datasets.load_dataset_builder(name, config).config)]
    own = [field for field in own if field not in ("name", "version", "data_files", "description")]
    if unknown := sorted(set(options) - {*own, *inspect.signature(datasets.load_dataset_builder).parameters}):
        raise ValueError(
            f"Expected options of {name!r} ({', '.join(own)}), but got {', '.join(map(repr, unknown))}. "
            "Name some of these."
        )


def _check_output(folder: Path) -> None:
    """Nobody's files are written over but our own."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"Expected a folder to write at {folder}, but it is a file. Name another.")
    if not folder.is_dir() or not any(folder.iterdir()) or ResumableFolder(folder / PARTIAL).plan is not None:
        return
    card = folder / "README.md"
    if not card.is_file() or not is_own_card(card.read_text(encoding="utf-8", errors="replace")):
        raise FileExistsError(
            f"Expected {folder} to be new, empty or a former build, but it holds something else. Name another folder."
        )


def _plan(name: str, builders: Sequence[datasets.DatasetBuilder], max_shard_bytes: int) -> dict[str, Any]:
    """Everything that the files depend on."""
    return {
        "name": name,
        # The name of the cache follows from the options and the state of the source, the hash from the code.
        "configs": [(builder.config_id, builder.hash) for builder in builders],
        "max_shard_bytes": max_shard_bytes,
        "versions": _versions(),
    }


def _put_together(
    builder: datasets.DatasetBuilder, parts: Sequence[_Part], final: Path, max_shard_bytes: int
) -> CardConfig:
    """Write the shards of a configuration from its parts, and say what is in them."""
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
        for shard in _shards(f"{folder}/{split}", facts, max_shard_bytes):
            num_bytes += _write_shard(final / shard.path, shard, of_split, builder.info.features)
            with (final / shard.path).open("rb") as written:
                digest.update(hashlib.file_digest(written, "sha256").digest())
            total_bytes += (final / shard.path).stat().st_size
        files[split] = f"{folder}/{split}-*"
        num_rows = sum(len(fact["row_bytes"]) for fact in facts)
        splits.add(SplitInfo(name=split, num_bytes=num_bytes, num_examples=num_rows))
        images[split] = len(set(itertools.chain.from_iterable(fact["image_ids"] for fact in facts)))
        if "count" in builder.info.features:
            objects[split] = sum(fact["num_objects"] for fact in facts)
    info = builder.info.copy()
    info.splits = splits
    info.download_size = total_bytes
    info.dataset_size = sum(split.num_bytes for split in splits.values())
    findings = getattr(builder, "findings", None)
    return CardConfig(
        config,
        info,
        files,
        # With the content in it, a new build with other rows is read anew.
        f"{builder.config.description or info.description.partition(chr(10))[0]} Content {digest.hexdigest()[:16]}.",
        images,
        objects,
        findings.lines(every_left_out=False) if findings is not None else [],
        findings.long_lines() if findings is not None else [],
    )


def _parts(builder: datasets.DatasetBuilder, work: ResumableFolder) -> list[_Part]:
    """What is to be written: a part for each element of the lists that `datasets` would divide among processes."""
    parts = []
    for generator in builder._split_generators(datasets.DownloadManager()):
        lists = {key: value for key, value in generator.gen_kwargs.items() if isinstance(value, list)}
        for number in range(max(map(len, lists.values()), default=1)):
            gen_kwargs = {**generator.gen_kwargs, **{key: [value[number]] for key, value in lists.items()}}
            name = f"parts/{builder.config.name}/{generator.name}-{number:05d}"
            parts.append(_Part(generator.name, number, gen_kwargs, work, name))
    return parts


def _write_parts(builder: datasets.DatasetBuilder, parts: Sequence[_Part], num_proc: int) -> None:
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


def _write_part(builder: datasets.DatasetBuilder, part: _Part) -> None:
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


def _shards(prefix: str, facts: Sequence[dict[str, Any]], max_shard_bytes: int) -> list[_Shard]:
    """Divide the rows of a split among files of about the same size."""
    sizes = [(number, place, size) for number, one in enumerate(facts) for place, size in enumerate(one["row_bytes"])]
    total = sum(size for *_, size in sizes)
    num_shards = max(1, -(-total // max_shard_bytes))
    chosen: list[list[tuple[int, int]]] = [[] for _ in range(num_shards)]
    before = 0
    for number, place, size in sizes:
        # A row belongs to the file that its middle byte falls into.
        chosen[min(num_shards - 1, (before + size // 2) * num_shards // max(1, total))].append((number, place))
        before += size
    filled = [rows for rows in chosen if rows]  # a single row may be larger than a file should be
    return [
        _Shard(f"{prefix}-{place:05d}-of-{len(filled):05d}.parquet", tuple(_pieces(rows)))
        for place, rows in enumerate(filled)
    ]


def _pieces(rows: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Runs of rows that follow each other in one part: (part, first, how many)."""
    for number, run in itertools.groupby(rows, key=lambda row: row[0]):
        places = [place for _, place in run]
        yield number, places[0], len(places)


def _write_shard(file: Path, shard: _Shard, parts: Sequence[_Part], features: datasets.Features) -> int:
    """Put rows of parts together to a file, if it is not there yet; returns their size in memory."""
    num_bytes = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    groups = _row_groups(pq.read_table(parts[number].file).slice(first, rows) for number, first, rows in shard.pieces)
    if file.is_file():
        return sum(group.nbytes for group in groups)
    options = {"use_content_defined_chunking": True, "write_page_index": True}
    with (
        whole_file(file) as temporary,
        pq.ParquetWriter(temporary, features.arrow_schema, **options) as writer,
    ):
        for group in groups:
            num_bytes += group.nbytes
            writer.write_table(group, row_group_size=group.num_rows)
    return num_bytes


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Cut tables into pieces that a reader of one row can be asked to load."""
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


def _write_sheet(builder: datasets.DatasetBuilder, final: Path) -> str | None:
    """Write an image with examples for the card, where the builder draws one."""
    if not hasattr(builder, "draw_examples"):
        return None
    path = f"{_SHEETS}/{builder.config.name}.png"
    (final / _SHEETS).mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    builder.draw_examples().save(content, format="PNG", optimize=True)
    write_whole(final / path, content.getvalue())
    return path


def _put_in_place(folder: Path, final: Path, card: str) -> None:
    """Replace a former build; the card, which says what there is, goes first and comes last."""
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
        except importlib.metadata.PackageNotFoundError:  # used from a checkout that is not installed
            versions[package] = "unknown"
    return versions


def _source(builder: datasets.DatasetBuilder) -> str:
    if getattr(builder, "IS_ONE_OF_ITS_CONFIGS", False):
        return f"From a folder of images and annotations, read as `{builder.config.name}`."
    if made := getattr(builder, "made_from", None):
        return str(made)
    where = getattr(builder, "WHERE_TO_GET", None)
    return f"From the set as its authors distribute it: {where}" if where else "Its source is not stated."


def _title(name: str) -> str:
    return {
        "carpk": "CARPK and PUCPR+",
        "countbench": "CountBench",
        "countscenes": "countscenes",
        "fsc147": "FSC-147",
        "object_folder": "A counting set",
        "shanghaitech": "ShanghaiTech",
    }.get(name, name)
