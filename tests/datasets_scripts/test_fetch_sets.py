import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from PIL import Image

from count_clip.datasets_scripts import fetch_shards, whole_files
from count_clip.datasets_scripts.fetch_config import FetchConfig, FetchError
from count_clip.datasets_scripts.fetch_report import FetchCounts
from count_clip.datasets_scripts.fetch_sets import fetch_list


CONFIG = FetchConfig(host_delay=0, backoff=0.001, retries=1, num_connections=4)


def png(value: int, format_: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (value, 1, 2)).save(file, format_)
    return file.getvalue()


class Web:
    """Ten pictures, of which some cannot be had."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, url: str) -> bytes:
        self.asked[url] += 1
        place = int(url.rpartition("/")[2])
        if place == 3:
            raise FetchError("the server answered 404", "status", 404)
        if place == 4:
            raise FetchError("the server answered 500", "status", 500, may_pass=True)
        if place == 5:
            return b"<html>gone</html>"
        return png(place, "JPEG" if place == 1 else "PNG")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A list of ten addresses with captions, one of them empty."""
    path = tmp_path / "list.jsonl"
    rows = [{"url": f"http://a/{place}", "caption": f"{place} dögs", "width": place} for place in range(10)]
    rows[8]["url"] = ""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _load(folder: Path, tmp_path: Path, *name: str) -> datasets.Dataset:
    place = {"data_dir": str(folder)} if name else {}
    return datasets.load_dataset(
        *(name or (str(folder),)), split="train", cache_dir=str(tmp_path / f"cache{time.monotonic_ns()}"), **place
    )


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_list_becomes_a_set(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []

    def progress(done: int, total: int, counts: FetchCounts) -> None:
        seen.append((done, total, counts.fetched))

    web = Web()
    report = fetch_list(
        source, tmp_path / "set", CONFIG, rows_per_shard=4, fetcher=web, progress=progress, layout="parquet"
    )
    assert report.is_new
    assert (report.counts.rows, report.counts.fetched, report.num_failures) == (10, 6, 4)
    assert report.counts.reasons == {"status": 2, "html": 1, "address": 1}
    assert report.counts.statuses == {"404": 1, "500": 1}
    assert report.counts.attempts == sum(web.asked.values()) == 10
    assert web.asked["http://a/4"] == 2
    assert seen[-1] == (10, 10, 6)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        *("README.md", "data", "failures.jsonl", "statistics.json")
    ]
    assert len(list((tmp_path / "set" / "data").iterdir())) == 3
    rows = _load(tmp_path / "set", tmp_path)
    assert rows["image_id"][:] == [f"{place:09d}" for place in (0, 1, 2, 6, 7, 9)]
    assert rows["caption"][:] == [f"{place} dögs" for place in (0, 1, 2, 6, 7, 9)]
    assert rows["list_width"][:] == [0, 1, 2, 6, 7, 9], "the list's own column is there beside ours"
    assert set(rows["width"]) == {6}
    assert [picture.getpixel((0, 0))[0] for picture in rows["image"]] == [0, 1, 2, 6, 7, 9]
    assert rows["sha256"][0] == hashlib.sha256(png(0)).hexdigest()


def test_every_failure_is_listed_with_its_row(source: Path, tmp_path: Path) -> None:
    fetch_list(source, tmp_path / "set", CONFIG, rows_per_shard=3, fetcher=Web())
    failures = [json.loads(line) for line in (tmp_path / "set" / "failures.jsonl").read_text().splitlines()]
    said = [
        (one["row"], one["url"], one["reason"], one["status"], one["attempts"], one["caption"]) for one in failures
    ]
    assert said == [
        (3, "http://a/3", "status", 404, 1, "3 dögs"),
        (4, "http://a/4", "status", 500, 2, "4 dögs"),
        (5, "http://a/5", "html", None, 1, "5 dögs"),
        (8, None, "address", None, 0, "8 dögs"),
    ]
    assert failures[1]["error"] == "the server answered 500 (tried 2 times)"
    assert all(one["time"].endswith("+00:00") and one["seconds"] >= 0 for one in failures)
    # It is a list of addresses again.
    again = fetch_list(tmp_path / "set" / "failures.jsonl", tmp_path / "again", CONFIG, fetcher=lambda url: png(7))
    assert (again.counts.fetched, again.counts.reasons) == (3, {"address": 1})


def test_folder_of_pictures_is_what_imagefolder_reads(source: Path, tmp_path: Path) -> None:
    fetch_list(source, tmp_path / "set", CONFIG, rows_per_shard=4, fetcher=Web(), layout="folder")
    pictures = tmp_path / "set" / "pictures"
    assert [path.name for path in sorted((pictures / "00000").iterdir())] == [
        *("000000000.png", "000000001.jpg", "000000002.png", "metadata.jsonl")
    ]
    assert (pictures / "00000" / "000000001.jpg").read_bytes() == png(1, "JPEG")
    for rows in (_load(pictures, tmp_path, "imagefolder"), _load(tmp_path / "set", tmp_path)):
        rows = rows.sort("image_id")
        assert rows["image_id"][:] == [f"{place:09d}" for place in (0, 1, 2, 6, 7, 9)]
        assert rows["caption"][1] == "1 dögs"
        assert rows[3]["image"].getpixel((0, 0))[0] == 6


@pytest.mark.parametrize("layout", ["parquet", "folder"])
def test_same_answers_give_the_same_bytes(source: Path, tmp_path: Path, layout: str) -> None:
    for name in ("one", "two"):
        fetch_list(source, tmp_path / name, CONFIG, rows_per_shard=4, fetcher=Web(), layout=layout)
    one, two = _contents(tmp_path / "one"), _contents(tmp_path / "two")
    timed = ("failures.jsonl", "statistics.json")
    assert {name: content for name, content in one.items() if name not in timed} == {
        name: content for name, content in two.items() if name not in timed
    }


def test_finished_set_is_left_alone(source: Path, tmp_path: Path) -> None:
    first = fetch_list(source, tmp_path / "set", CONFIG, fetcher=Web())
    before = _contents(tmp_path / "set")
    web = Web()
    second = fetch_list(source, tmp_path / "set", FetchConfig(retries=5), fetcher=web)
    assert not second.is_new
    assert (second.counts, second.seconds) == (first.counts, first.seconds)
    assert not web.asked
    assert _contents(tmp_path / "set") == before


class Stopped(Exception):
    pass


@pytest.mark.parametrize("layout", ["parquet", "folder"])
@pytest.mark.parametrize("after", [1, 3, 5, 8])
def test_what_was_fetched_is_not_fetched_again(source: Path, tmp_path: Path, layout: str, after: int) -> None:
    web, last = Web(), Web()
    done = []

    def stop(rows: int, total: int, counts: FetchCounts) -> None:
        done.append(rows)
        if rows >= after:
            raise Stopped

    one_by_one = FetchConfig(host_delay=0, backoff=0.001, retries=1, num_connections=1)
    options: dict[str, Any] = {"rows_per_shard": 4, "layout": layout}
    with pytest.raises(Stopped):
        fetch_list(source, tmp_path / "set", one_by_one, fetcher=web, progress=stop, **options)
    assert not (tmp_path / "set" / "README.md").exists()
    # The end of a line that was being written when the program was killed.
    for journal in (tmp_path / "set" / ".partial").glob("*.journal.jsonl"):
        journal.write_bytes(journal.read_bytes() + b'{"row": 7, "url": "http://a/7", "fi')
    report = fetch_list(source, tmp_path / "set", CONFIG, fetcher=last, **options)
    assert (report.counts.rows, report.counts.fetched) == (10, 6)
    fetched_before = {url for url in web.asked if url not in last.asked}
    assert len(fetched_before) >= done[-1] - 1, "one may have been the row without an address"
    fetch_list(source, tmp_path / "whole", CONFIG, fetcher=Web(), **options)
    for name, content in _contents(tmp_path / "whole").items():
        if name not in ("failures.jsonl", "statistics.json"):
            assert (tmp_path / "set" / name).read_bytes() == content
    for name in ("failures.jsonl", "statistics.json"):
        assert (tmp_path / "set" / name).is_file()


@pytest.mark.parametrize("layout", ["parquet", "folder"])
def test_shard_that_was_there_but_not_noted_is_kept(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    write_json = whole_files.write_json

    def stopped(path: Path, values: Any) -> None:
        if path.name == "00001.json":
            raise Stopped
        write_json(path, values)

    monkeypatch.setattr(fetch_shards, "write_json", stopped)
    with pytest.raises(Stopped):
        fetch_list(source, tmp_path / "set", CONFIG, rows_per_shard=4, fetcher=Web(), layout=layout)
    monkeypatch.setattr(fetch_shards, "write_json", write_json)
    web = Web()
    report = fetch_list(source, tmp_path / "set", CONFIG, rows_per_shard=4, fetcher=web, layout=layout)
    assert report.counts.fetched == 6
    assert not {"http://a/6", "http://a/7"} & set(web.asked)
    assert len(_load(tmp_path / "set", tmp_path)) == 6


_PROGRAM = """
    import sys
    from count_clip.datasets_scripts.fetch_config import FetchConfig
    from count_clip.datasets_scripts.fetch_sets import fetch_list

    config = FetchConfig(host_delay=0, allow_private=True, num_connections=2)
    report = fetch_list(sys.argv[1], sys.argv[2], config, rows_per_shard=8)
    print(report.counts.fetched)
"""


def test_killed_program_loses_nothing(tmp_path: Path, web: Any) -> None:
    def answer(place: int) -> Callable[[Any], None]:
        def send(handler: Any) -> None:
            time.sleep(0.02)
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(png(place))

        return send

    urls = [web.script(f"/{place}", answer(place)) for place in range(40)]
    (tmp_path / "list.txt").write_text("\n".join(urls))
    program = tmp_path / "program.py"
    program.write_text("\n".join(line[4:] for line in _PROGRAM.splitlines()))
    command = [sys.executable, str(program), str(tmp_path / "list.txt"), str(tmp_path / "set")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while sum(web.asked.values()) < 13 and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    assert running.returncode == -signal.SIGKILL
    kept = [path.name for path in (tmp_path / "set").rglob("*.png")]
    assert len(kept) + 8 * len(list((tmp_path / "set" / "data").glob("0*.parquet"))) >= 8
    report = fetch_list(
        tmp_path / "list.txt",
        tmp_path / "set",
        FetchConfig(host_delay=0, allow_private=True, num_connections=2),
        rows_per_shard=8,
    )
    assert report.counts.fetched == 40
    # Only those that were under way were asked for twice.
    assert sum(web.asked.values()) <= 40 + 4
    rows = _load(tmp_path / "set", tmp_path)
    assert [picture.getpixel((0, 0))[0] for picture in rows["image"]] == list(range(40))
    assert not [path.name for path in (tmp_path / "set").rglob(".*")]


def test_full_disk_loses_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole, written = whole_files.write_whole, 0

    def full(path: Path, content: bytes) -> None:
        nonlocal written
        written += path.suffix == ".png"
        if written > 2:
            raise whole_files.explained(OSError(errno.ENOSPC, "No space left on device"), path)
        write_whole(path, content)

    monkeypatch.setattr(fetch_shards, "write_whole", full)
    with pytest.raises(OSError, match="No space is left for .*what is done is kept"):
        fetch_list(source, tmp_path / "set", CONFIG, fetcher=Web())
    monkeypatch.setattr(fetch_shards, "write_whole", write_whole)
    web = Web()
    assert fetch_list(source, tmp_path / "set", CONFIG, fetcher=web).counts.fetched == 6
    assert len(web.asked) < 9


def test_hashes_are_checked_where_the_list_has_them(tmp_path: Path) -> None:
    hashes = [hashlib.sha256(png(0)).hexdigest().upper(), hashlib.sha256(b"another").hexdigest(), ""]
    lines = [f"http://a/{place},{sha}" for place, sha in zip((0, 1, 2), hashes, strict=True)]
    (tmp_path / "list.csv").write_text("\n".join(["url,sha256", *lines]))
    report = fetch_list(tmp_path / "list.csv", tmp_path / "set", CONFIG, fetcher=Web(), sha256_column="sha256")
    assert report.counts.reasons == {"sha256": 2}
    first = (tmp_path / "set" / "failures.jsonl").read_text().splitlines()[0]
    assert "its content has another hash: " in json.loads(first)["error"]
    with pytest.raises(ValueError, match="Expected a column 'md5' in"):
        fetch_list(tmp_path / "list.csv", tmp_path / "other", CONFIG, sha256_column="md5")


def test_card_says_what_is_there(source: Path, tmp_path: Path) -> None:
    fetch_list(source, tmp_path / "set", CONFIG, fetcher=Web())
    card = (tmp_path / "set" / "README.md").read_text()
    for said in (
        "6 pictures (0.0 MB) of the 10 addresses in `list.jsonl`",
        "| `sha256` | of its file |",
        "- status: 2\n- address: 1\n- html: 1",
        "noai, noimageai, noindex, noimageindex in `X-Robots-Tag`",
        "license: unknown",
    ):
        assert said in card, said
    assert str(tmp_path) not in card


def test_list_of_which_nothing_can_be_had_gives_an_empty_set(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("http://a/3\nhttp://a/5\n")
    for layout in ("parquet", "folder"):
        report = fetch_list(tmp_path / "list.txt", tmp_path / layout, CONFIG, fetcher=Web(), layout=layout)
        assert (report.counts.rows, report.counts.fetched) == (2, 0)
    assert pq.read_table(tmp_path / "parquet" / "data").num_rows == 0
    (tmp_path / "none.txt").write_text("")
    assert fetch_list(tmp_path / "none.txt", tmp_path / "none", CONFIG).counts.rows == 0


def test_other_plans_and_other_peoples_folders_are_refused(source: Path, tmp_path: Path) -> None:
    fetch_list(source, tmp_path / "set", CONFIG, fetcher=Web())
    with pytest.raises(ValueError, match=r"that was with rows_per_shard=1000 in the place of 5\. Give the same"):
        fetch_list(source, tmp_path / "set", CONFIG, rows_per_shard=5)
    source.write_text(source.read_text() + '{"url": "http://a/11"}\n')
    with pytest.raises(ValueError, match="that was with another list"):
        fetch_list(source, tmp_path / "set", CONFIG)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="new, empty or to hold what was begun, but it holds something else"):
        fetch_list(source, tmp_path / "theirs", CONFIG)
    with pytest.raises(FileExistsError, match="but it is a file"):
        fetch_list(source, source, CONFIG)
    with pytest.raises(ValueError, match="layout to be one of parquet, folder, but got 'zip'"):
        fetch_list(source, tmp_path / "x", CONFIG, layout="zip")
    with pytest.raises(ValueError, match="rows_per_shard of 1 or more, but got 0"):
        fetch_list(source, tmp_path / "x", CONFIG, rows_per_shard=0)
    assert not (tmp_path / "x").exists()
