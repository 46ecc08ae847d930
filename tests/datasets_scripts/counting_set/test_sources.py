import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from count_clip.datasets_scripts.counting_set import shards as caption_shards
from count_clip.datasets_scripts.counting_set.shards import (
    CaptionReading,
    CaptionRecord,
    CaptionShard,
    Columns,
    ShardError,
)
from count_clip.datasets_scripts.counting_set.sources import find_shards


def _png(color: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (color, 0, 0)).save(file, "PNG")
    return file.getvalue()


READING = CaptionReading(2, "dogs")


def _read(shards: list[CaptionShard], wanted: Callable[[Any], bool] = lambda caption: True) -> list[CaptionRecord]:
    return [record for shard in shards for record in shard.records(lambda text: READING if wanted(text) else None)]


def _write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_parquet_rows_are_read_with_the_images_of_those_that_are_wanted(tmp_path: Path) -> None:
    captions = [f"caption {place}" if place % 3 else None for place in range(2000)]
    images = [{"bytes": b"image %d" % place, "path": None} for place in range(2000)]
    table = pa.table({"Caption": captions, "image": images, "key": [f"k{place}" for place in range(2000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    captions_read = []

    def wanted(caption: Any) -> bool:
        captions_read.append(caption)
        return caption in ("caption 5", "caption 699", "caption 700", "caption 1999")

    (shard,) = find_shards(str(tmp_path))
    records = _read([shard], wanted)
    assert captions_read == captions, "every caption once, in order"
    assert [(record.row, record.key, record.image) for record in records] == [
        (place, f"k{place}", b"image %d" % place) for place in (5, 700, 1999)
    ]
    assert shard.name == "a.parquet"


def test_large_parquet_files_are_several_shards_that_hold_each_row_once(tmp_path: Path) -> None:
    folder = tmp_path / "part"
    folder.mkdir()
    table = pa.table({"TEXT": [f"caption {place}" for place in range(1000)], "URL": ["http://x/y"] * 1000})
    pq.write_table(table, folder / "b.parquet", row_group_size=100)
    pq.write_table(table.slice(0, 10), tmp_path / "z.parquet")
    shards = find_shards(str(tmp_path), max_rows=250)
    assert [shard.name for shard in shards] == [
        "part/b.parquet#0-2",
        "part/b.parquet#3-5",
        "part/b.parquet#6-8",
        "part/b.parquet#9-9",
        "z.parquet",
    ]
    records = _read(shards[:-1])
    assert [record.caption for record in records] == table.column("TEXT").to_pylist()
    assert [record.key for record in records] == [f"part/b.parquet:{place}" for place in range(1000)]
    assert {(record.url, record.image, record.problem) for record in records} == {("http://x/y", None, "")}


@pytest.mark.parametrize("compressed", [False, True])
def test_webdataset_archives_are_read_sample_by_sample(tmp_path: Path, compressed: bool) -> None:
    files = {
        "d/000.jpg": _png(0),
        "d/000.txt": b" two dogs\n",
        "d/000.json": json.dumps({"caption": "other", "url": "http://a/0.jpg"}).encode(),
        "001.json": json.dumps({"caption": "three cats", "url": "http://a/1.jpg"}).encode(),
        "001.PNG": _png(1),
        "002.json": json.dumps({"caption": "four cows", "url": "http://a/2.jpg"}).encode(),
        "003.txt": b"five hens",
        "004.jpg": _png(4),
        "005.json": b"{cut",
        "005.webp": _png(5),
    }
    name = "00000.tar.gz" if compressed else "00000.tar"
    _write_tar(tmp_path / name, files, "w:gz" if compressed else "w")
    (shard,) = find_shards(str(tmp_path))
    captions_read = []
    records = _read([shard], lambda caption: captions_read.append(caption) or caption is not None)
    assert captions_read == ["two dogs", "three cats", "four cows", "five hens", None, None]
    assert [record.key for record in records] == [f"{name}:{key}" for key in ("d/000", "001", "002", "003")]
    assert [record.row for record in records] == [0, 1, 2, 3]
    assert [record.image for record in records] == [files["d/000.jpg"], files["001.PNG"], None, None]
    assert [record.problem for record in records] == ["", "", "", "no image in the archive"]
    assert records[2].url == "http://a/2.jpg"


def test_archives_are_read_instead_of_the_tables_of_img2dataset(tmp_path: Path) -> None:
    _write_tar(tmp_path / "00000.tar", {"0.jpg": _png(0), "0.txt": b"two dogs"})
    pq.write_table(pa.table({"caption": ["two dogs"], "key": ["0"]}), tmp_path / "00000.parquet")
    assert [shard.name for shard in find_shards(str(tmp_path))] == ["00000.tar"]


def test_json_lines_are_lists_of_urls(tmp_path: Path) -> None:
    lines = [
        {"text": "two dogs", "url": "http://a/0.jpg", "uid": 7},
        {"text": None, "url": "http://a/1.jpg"},
        {"url": "http://a/2.jpg"},
        {"text": "three cats"},
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines) + "no json\n[1]\n"
    (tmp_path / "list.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    (tmp_path / ".hidden.jsonl").write_text("{}")
    (shard,) = find_shards(str(tmp_path))
    captions_read = []
    records = _read([shard], lambda caption: captions_read.append(caption) or isinstance(caption, str))
    assert captions_read == ["two dogs", None, None, "three cats", None, None]
    assert [(record.key, record.url, record.problem) for record in records] == [
        ("7", "http://a/0.jpg", ""),
        ("list.jsonl.gz:3", None, "neither an image nor a URL"),
    ]
    assert find_shards(str(tmp_path / "list.jsonl.gz"))[0].name == "list.jsonl.gz"


def test_sets_of_datasets_are_streamed_by_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = [_png(place) for place in range(10)]
    table = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": image, "path": None} for image in content],
            "caption": [f"caption {place}" for place in range(10)],
        },
        features=datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")}),
    )
    opened = []

    def load_dataset(name: str, config: str | None, split: str, streaming: bool) -> datasets.IterableDataset:
        opened.append((name, config, split, streaming))
        return table.to_iterable_dataset(num_shards=3)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    shards = find_shards("org/captions", split="validation", config="en")
    assert [shard.name for shard in shards] == [f"org/captions/en/validation#{place}-of-3" for place in range(3)]
    records = _read(shards)
    assert sorted(record.caption for record in records) == sorted(table["caption"])
    assert sorted(record.image for record in records) == sorted(content)
    assert len({record.key for record in records}) == 10
    assert set(opened) == {("org/captions", "en", "validation", True)}


def test_what_is_neither_a_folder_nor_a_set_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is neither"):
        find_shards(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"Expected shards of captions in .* but found none"):
        find_shards(str(tmp_path))


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"alt": ["two dogs"], "bytes": [b"image"], "id": [3]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"Expected a column with captions in .*a.parquet .* has alt, bytes, id"):
        find_shards(str(tmp_path))
    with pytest.raises(ValueError, match=r"Expected a column 'image' in .*a.parquet, but it has alt, bytes, id"):
        find_shards(str(tmp_path), Columns(caption="alt", image="image"))
    (record,) = _read(find_shards(str(tmp_path), Columns(caption="alt", image="bytes", key="id")))
    assert record == CaptionRecord("a.parquet", 0, "3", "two dogs", READING, b"image")
    (tmp_path / "b.jsonl").write_text('{"words": "two dogs"}\n')
    with pytest.raises(ValueError, match="Expected a column with captions in .*b.jsonl"):
        find_shards(str(tmp_path / "b.jsonl"))


def test_missing_images_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "near.png").write_bytes(_png(1))
    (tmp_path / "secret.png").write_bytes(_png(2))
    images = [
        {"bytes": None, "path": "near.png"},
        {"bytes": None, "path": "../secret.png"},
        {"bytes": None, "path": str(tmp_path / "secret.png")},
        {"bytes": None, "path": "missing.png"},
        {"bytes": None, "path": None},
        {"bytes": b"x" * 101, "path": None},
        None,
    ]
    table = pa.table({"caption": [str(place) for place in range(7)], "image": images})
    pq.write_table(table, tmp_path / "shards" / "a.parquet")
    monkeypatch.setattr(caption_shards, "MAX_IMAGE_BYTES", 100)
    records = _read(find_shards(str(tmp_path / "shards")))
    assert records[0].image == _png(1)
    assert all(record.image is None for record in records[1:])
    problems = [record.problem for record in records]
    assert problems[0] == ""
    assert problems[1].startswith("its path leads out")
    assert problems[2].startswith("its path leads out")
    assert problems[3].startswith("its file cannot be read")
    assert problems[4] == "an empty image"
    assert problems[5] == "more than 100 bytes"
    assert problems[6] == "neither an image nor a URL"


def test_broken_files_are_reported(tmp_path: Path) -> None:
    table = pa.table({"caption": ["two dogs"] * 5000})
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    (shard,) = find_shards(str(tmp_path))
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:400] = b"\xff" * 396
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ShardError, match=r"a\.parquet cannot be read"):
        _read([shard])
    (tmp_path / "a.parquet").write_bytes(content[:-100])
    with pytest.raises(ShardError, match=r"a\.parquet cannot be read"):
        find_shards(str(tmp_path))

    (tmp_path / "a.parquet").unlink()
    _write_tar(tmp_path / "b.tar", {f"{place}.txt": b"two dogs" * 1000 for place in range(20)})
    (shard,) = find_shards(str(tmp_path))
    (tmp_path / "b.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:50_000])
    with pytest.raises(ShardError, match=r"b\.tar cannot be read"):
        _read([shard])

    (tmp_path / "b.tar").unlink()
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "two dogs"}\n' * 50_000))
    (shard,) = find_shards(str(tmp_path))
    (tmp_path / "c.jsonl.gz").write_bytes((tmp_path / "c.jsonl.gz").read_bytes()[:-40])
    with pytest.raises(ShardError, match=r"c\.jsonl\.gz cannot be read"):
        _read([shard])
