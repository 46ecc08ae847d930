import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD, WORD_TO_NUMBER
from count_clip.datasets_scripts.counting_set import balance as caption_balance
from count_clip.datasets_scripts.counting_set import parts as caption_parts
from count_clip.datasets_scripts.counting_set.balance import choose_rows, is_chosen, rank_of, share_out
from count_clip.datasets_scripts.counting_set.build import CaptionSetReport, UnreadableShardsError, build_caption_set
from count_clip.datasets_scripts.counting_set.stages import CaptionSetConfig, ImageError, open_image


def _png(seed: int, size: tuple[int, int] = (6, 4)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# What the captions below are made of, and which of them are to come through the stages of the text.
_COUNTING = ("{} dogs on a lawn", "A photo of {} red apples", "{} women at a table, one sitting")
_OTHERS = ("{} years ago", "dinner for {}", "Book {}", "{} rows of cars", "a {} piece suit")
_NONE = ("a dog on a lawn", "21 apples", "the network", "", None)


def _captions(number: int, seed: int) -> list[str | None]:
    """Captions of all templates; small numbers are more frequent."""
    rng = np.random.default_rng(seed)
    words = list(NUMBER_TO_WORD.values())
    chances = np.array([40, 20, 10, 8, 6, 4, 3, 2, 2], dtype=float)
    drawn = rng.choice(len(words), number, p=chances / chances.sum())
    templates = [*_COUNTING, *_OTHERS, *_NONE]
    drawn_templates = rng.integers(0, len(templates), number)
    return [
        text if text is None else text.format(words[word])
        for text, word in zip([templates[place] for place in drawn_templates], drawn, strict=True)
    ]


def _counts(caption: str | None) -> int:
    """The number that one of these captions states of visible objects, or 0."""
    for template in _COUNTING:
        before, after = template.split("{}")
        if caption and caption.startswith(before) and caption.endswith(after):
            return WORD_TO_NUMBER[caption[len(before) : len(caption) - len(after)]]
    return 0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of captions with images, of which some are missing or broken."""
    folder = tmp_path_factory.mktemp("source")
    for shard in range(6):
        captions = _captions(300, shard)
        images: list[dict[str, Any] | None] = [{"bytes": _png(1000 * shard + row), "path": None} for row in range(300)]
        for row in range(0, 300, 50):
            images[row] = None
            images[row + 1] = {"bytes": b"<html>not found</html>", "path": None}
            images[row + 2] = {"bytes": images[row + 2]["bytes"][:40], "path": None}
        table = pa.table({"caption": captions, "image": images, "key": [f"{shard}-{row}" for row in range(300)]})
        pq.write_table(table, folder / f"{shard:05d}.parquet", row_group_size=128)
    return folder


def _rows_of(source: Path) -> list[dict[str, Any]]:
    files = sorted(source.glob("*.parquet"))
    return [{**row, "shard": file.name} for file in files for row in pq.read_table(file).to_pylist()]


def _is_whole(image: dict[str, Any] | None) -> bool:
    return image is not None and image["bytes"].startswith(b"\x89PNG") and image["bytes"].endswith(b"IEND\xaeB`\x82")


def _table(report: CaptionSetReport) -> list[dict[str, Any]]:
    return [row for file in report.files for row in pq.read_table(file).to_pylist()]


ALL = CaptionSetConfig(num_common=None)


def test_rows_pass_the_stages_and_each_stage_is_counted(source: Path, tmp_path: Path) -> None:
    progress = []
    report = build_caption_set(str(source), tmp_path, ALL, progress=lambda *state: progress.append(state[:2]))
    rows = _rows_of(source)
    wanted = [row for row in rows if _counts(row["caption"]) and _is_whole(row["image"])]
    assert [(row["image_id"], row["text"], row["number"]) for row in _table(report)] == [
        (row["key"], row["caption"], _counts(row["caption"])) for row in wanted
    ]
    assert [row["image"]["bytes"] for row in _table(report)] == [row["image"]["bytes"] for row in wanted]
    first = _table(report)[0]
    assert (first["source"], rows[first["row"]]["key"]) == ("00000.parquet", first["image_id"])
    assert first["name"].split()[-1] in ("dogs", "apples", "women")

    words = [
        row["caption"] for row in rows if row["caption"] and set(row["caption"].lower().split()) & set(WORD_TO_NUMBER)
    ]
    totals = report.counts.totals
    assert totals["captions"] == 1800
    assert totals["no_caption"] == sum(not row["caption"] for row in rows)
    assert totals["number_word"] == len(words)
    assert totals["counts_objects"] == sum(_counts(row["caption"]) > 0 for row in rows)
    assert totals["images"] == len(wanted)
    assert totals["no_image"] == totals["counts_objects"] - totals["images"] == report.num_failures
    assert report.counts.by_number["counts_objects"] == Counter(
        filter(None, (_counts(row["caption"]) for row in rows))
    )
    assert sum(report.counts.reasons.values()) == totals["number_word"] - totals["counts_objects"]
    assert report.kept == dict(sorted(Counter(_counts(row["caption"]) for row in wanted).items()))
    assert progress == [(done, 6) for done in range(1, 7)]


def test_every_lost_image_is_listed(source: Path, tmp_path: Path) -> None:
    report = build_caption_set(str(source), tmp_path, ALL)
    failures = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    lost = {row["key"] for row in _rows_of(source) if _counts(row["caption"]) and not _is_whole(row["image"])}
    assert {failure["key"] for failure in failures} == lost
    assert len(failures) == report.num_failures == len(lost) > 5
    assert {failure["stage"] for failure in failures} == {"image"}
    errors = Counter(failure["error"].partition("(")[0].strip() for failure in failures)
    assert set(errors) == {"neither an image nor a URL", "not an image that can be decoded"}


def test_datasets_loads_the_set_with_its_card(source: Path, tmp_path: Path) -> None:
    config = CaptionSetConfig(num_common=None, rows_per_file=100)
    report = build_caption_set(str(source), tmp_path / "set", config)
    assert [file.name for file in report.files] == [
        f"train-{i:05d}-of-{len(report.files):05d}.parquet" for i in range(len(report.files))
    ]
    assert len(report.files) > 2
    loaded = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == sum(report.kept.values())
    assert loaded.features["image"] == datasets.Image()
    assert loaded[0]["image"].size == (4, 6)
    assert [row["text"] for row in _table(report)] == list(loaded["text"])
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    totals = report.counts.totals
    assert f"| captions | {totals['captions']:,} |" in card
    assert f"| that count visible objects | {totals['counts_objects']:,} |" in card
    assert f"cannot be fetched: {totals['no_image']}" in card
    assert "Detector: none" in card


@pytest.mark.parametrize("num_common", [0, 7, 100, 10**6])
def test_common_numbers_are_sampled_evenly_and_all_others_kept(source: Path, tmp_path: Path, num_common: int) -> None:
    everything = Counter(_counts(row["caption"]) for row in _rows_of(source) if _is_whole(row["image"]))
    report = build_caption_set(str(source), tmp_path, CaptionSetConfig(num_common=num_common))
    common = {number: report.kept[number] for number in (2, 3, 4, 5, 6)}
    assert sum(common.values()) == min(num_common, sum(everything[number] for number in common))
    fullest = max(common.values())
    assert all(count >= min(fullest - 1, everything[number]) for number, count in common.items())
    assert all(report.kept[number] == everything[number] for number in (7, 8, 9, 10))
    assert Counter(row["number"] for row in _table(report)) == Counter(report.kept)


def test_the_seed_decides_which_rows_are_kept_and_the_order_of_the_source_does_not(
    source: Path, tmp_path: Path
) -> None:
    def kept(name: str, folder: Path, seed: int) -> list[str]:
        report = build_caption_set(str(folder), tmp_path / name, CaptionSetConfig(num_common=60, seed=seed))
        return [row["image_id"] for row in _table(report)]

    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for place, file in enumerate(sorted(source.glob("*.parquet"), reverse=True)):
        table = pq.read_table(file)
        pq.write_table(table.take(list(range(table.num_rows))[::-1]), shuffled / f"{place}.parquet")
    first = kept("a", source, 0)
    assert sorted(kept("b", shuffled, 0)) == sorted(first)
    assert sorted(kept("c", source, 1)) != sorted(first)


def test_the_text_stage_and_the_images_are_optional(source: Path, tmp_path: Path) -> None:
    config = CaptionSetConfig(text_filter=False, captions_only=True, num_common=None, numbers=(3, 10))
    report = build_caption_set(str(source), tmp_path, config)
    assert set(report.kept) == {3, 10}
    totals = report.counts.totals
    assert sum(report.kept.values()) == totals["number_word"]
    assert "counts_objects" not in totals
    assert "images" not in totals
    texts = [row["text"] for row in _table(report)]
    assert "three years ago" in texts
    assert all(row["image"] is None for row in _table(report))


# --- stopping and going on ------------------------------------------------------------------------

_KILLED = """
    import os, signal, sys
    from count_clip.datasets_scripts.counting_set import shards
    from count_clip.datasets_scripts.counting_set.build import build_caption_set
    from count_clip.datasets_scripts.counting_set.stages import CaptionSetConfig

    seen = 0
    records = shards.ParquetShard.records

    def counted(self, wanted):
        for record in records(self, wanted):
            global seen
            seen += 1
            if seen == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
            yield record

    shards.ParquetShard.records = counted
    build_caption_set(sys.argv[1], sys.argv[2], CaptionSetConfig(num_common=None))
"""


def test_a_killed_build_resumes_without_repeating_or_losing_a_shard(source: Path, tmp_path: Path) -> None:
    code = textwrap.dedent(_KILLED)
    killed = subprocess.run([sys.executable, "-c", code, str(source), str(tmp_path / "set"), "230"], timeout=50)
    assert killed.returncode == -signal.SIGKILL
    parts = tmp_path / "set" / ".parts"
    finished = {file.name: file.stat().st_mtime_ns for file in parts.glob("0*")}
    num_finished = sum(name.endswith(".json") for name in finished)
    assert 1 <= num_finished <= 4

    progress = []
    report = build_caption_set(
        str(source), tmp_path / "set", ALL, keep_parts=True, progress=lambda *state: progress.append(state[:2])
    )
    assert progress == [(done, 6) for done in range(num_finished + 1, 7)], "only what was left is done"
    assert {name: (parts / name).stat().st_mtime_ns for name in finished} == finished
    whole = build_caption_set(str(source), tmp_path / "whole", ALL)
    assert _table(report) == _table(whole)
    assert report.counts == whole.counts
    for name in ("README.md", "failures.jsonl", "stages.json"):
        assert (tmp_path / "set" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_build_that_is_stopped_while_it_writes_the_set_resumes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CaptionSetConfig(num_common=None, rows_per_file=100)
    whole = build_caption_set(str(source), tmp_path / "whole", config)
    write_rows, written = caption_balance.write_rows, []

    def stopped(path: Path, rows: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write_rows(path, rows)

    monkeypatch.setattr(caption_balance, "write_rows", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_caption_set(str(source), tmp_path / "set", config)
    assert not (tmp_path / "set" / "data").exists(), "half a set is not shown as a set"
    monkeypatch.setattr(
        caption_balance, "write_rows", lambda path, rows: written.append(path.name) or write_rows(path, rows)
    )
    report = build_caption_set(str(source), tmp_path / "set", config, progress=lambda *state: pytest.fail("redone"))
    assert written == [file.name for file in whole.files], "each file was written once"
    assert _table(report) == _table(whole)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "README.md",
        "data",
        "failures.jsonl",
        "stages.json",
    ]


def test_a_finished_set_is_kept_and_not_overwritten_by_another(source: Path, tmp_path: Path) -> None:
    first = build_caption_set(str(source), tmp_path, ALL)
    again = build_caption_set(str(source), tmp_path, ALL, progress=lambda *state: pytest.fail("redone"))
    assert first.is_new
    assert not again.is_new
    assert again.kept == first.kept
    assert again.counts == first.counts
    with pytest.raises(ValueError, match="holds another finished set"):
        build_caption_set(str(source), tmp_path, CaptionSetConfig(num_common=10))


def test_kept_parts_are_balanced_again_without_running_the_stages(source: Path, tmp_path: Path) -> None:
    build_caption_set(str(source), tmp_path / "a", ALL, keep_parts=True)
    config = CaptionSetConfig(num_common=20)
    report = build_caption_set(str(source), tmp_path / "a", config, progress=lambda *state: pytest.fail("redone"))
    assert _table(report) == _table(build_caption_set(str(source), tmp_path / "b", config))
    assert not (tmp_path / "a" / ".parts").exists()


def test_resuming_with_other_options_or_shards_is_refused(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "source"
    shutil.copytree(source, own)
    (own / "00003.parquet").write_bytes((own / "00003.parquet").read_bytes()[:-50])
    with pytest.raises(Exception, match=r"00003\.parquet cannot be read"):
        build_caption_set(str(own), tmp_path / "set", ALL)
    shutil.copy(source / "00003.parquet", own)
    _spoil(own / "00003.parquet")
    with pytest.raises(UnreadableShardsError):
        build_caption_set(str(own), tmp_path / "set", ALL)
    with pytest.raises(ValueError, match=r"the same options, but numbers was .* and is \[3, 4\]"):
        build_caption_set(str(own), tmp_path / "set", CaptionSetConfig(numbers=(3, 4)))
    shutil.copy(source / "00003.parquet", own / "00006.parquet")
    with pytest.raises(ValueError, match=r"but shards: 00006\.parquet is new"):
        build_caption_set(str(own), tmp_path / "set", ALL)
    (own / "00006.parquet").unlink()
    shutil.copy(own / "00002.parquet", own / "00001.parquet")
    with pytest.raises(ValueError, match=r"shards: 00001\.parquet was '.*' and is '"):
        build_caption_set(str(own), tmp_path / "set", ALL)


def _spoil(file: Path) -> None:
    """Break what a table holds, and leave its description, at the end, as it was."""
    content = bytearray(file.read_bytes())
    content[100:400] = b"\xff" * 300
    file.write_bytes(content)


def test_unreadable_shards_stop_only_the_end_of_a_build(source: Path, tmp_path: Path) -> None:
    own = tmp_path / "source"
    shutil.copytree(source, own)
    _spoil(own / "00002.parquet")
    with pytest.raises(UnreadableShardsError, match=r"1 of 6 shards cannot be read; .*\n- .*00002\.parquet"):
        build_caption_set(str(own), tmp_path / "set", ALL)
    assert len(list((tmp_path / "set" / ".parts").glob("0*.json"))) == 5
    report = build_caption_set(str(own), tmp_path / "set", ALL, skip_unreadable=True)
    assert {row["source"] for row in _table(report)} == {f"0000{shard}.parquet" for shard in (0, 1, 3, 4, 5)}
    assert "shards that cannot be read: 00002.parquet" in (tmp_path / "set" / "README.md").read_text()
    last = json.loads((tmp_path / "set" / "failures.jsonl").read_text().splitlines()[-1])
    assert (last["source"], last["stage"]) == ("00002.parquet", "shard")


def test_a_full_disk_loses_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(pq.ParquetWriter):
        num_written = 0

        def write_table(self, *arguments: Any, **options: Any) -> None:
            FullDisk.num_written += 1
            if FullDisk.num_written > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write_table(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(caption_parts.pq, "ParquetWriter", FullDisk)
        with pytest.raises(OSError, match=r"No space is left for .*\.parquet. Free some and run the same command"):
            build_caption_set(str(source), tmp_path, ALL)
    parts = tmp_path / ".parts"
    done = len(list(parts.glob("0*.json")))
    assert 0 < done < 6
    assert not list(parts.glob(".0*")), "what was begun is taken away, for the space"
    progress = []
    build_caption_set(str(source), tmp_path, ALL, progress=lambda *state: progress.append(state[0]))
    assert progress == list(range(done + 1, 7))


def test_several_processes_give_the_same_set(source: Path, tmp_path: Path) -> None:
    one = build_caption_set(str(source), tmp_path / "one", CaptionSetConfig(num_common=50))
    two = build_caption_set(str(source), tmp_path / "two", CaptionSetConfig(num_common=50), num_proc=2)
    assert _table(one) == _table(two)
    assert one.counts == two.counts
    assert (tmp_path / "one" / "README.md").read_bytes() == (tmp_path / "two" / "README.md").read_bytes()


def test_a_source_without_counting_captions_gives_an_empty_set_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a dog"}\n{"text": "two years"}\n')
    report = build_caption_set(str(tmp_path / "a.jsonl"), tmp_path / "set", ALL)
    assert report.kept == {}
    assert report.counts.reasons == {"time": 1}
    assert "No caption passed all stages" in caplog.text
    assert pq.read_table(report.files[0]).num_rows == 0


# --- options and helpers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": (1, 2)}, r"numbers from 2 to 10, but got \[1\]"),
        ({"numbers": ()}, "numbers from 2 to 10, but got none"),
        ({"common_numbers": (11,)}, "numbers from 2 to 10"),
        ({"threshold": 1.5}, "threshold to be in 0-1, but got 1.5"),
        ({"min_area": -0.1}, "min_area to be in 0-1"),
        ({"batch_size": 0}, "batch_size to be 1 or more"),
        ({"num_common": -1}, "num_common to be 0 or more"),
        ({"captions_only": True, "detector": "x"}, "no detector where there are captions only"),
    ],
)
def test_invalid_configurations_are_rejected(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionSetConfig(**options)


def test_invalid_engines_are_rejected(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected an engine of local, ray, but got 'spark'"):
        build_caption_set(str(source), tmp_path, engine="spark")
    with pytest.raises(ValueError, match="Expected num_proc to be 1 or more"):
        build_caption_set(str(source), tmp_path, num_proc=0)
    with pytest.raises(ValueError, match="Give its checkpoint"):
        build_caption_set(str(source), tmp_path, detector=lambda images, nouns: [], num_proc=2)


@given(total=st.integers(0, 60), available=st.dictionaries(st.integers(2, 6), st.integers(0, 30)))
def test_rows_are_divided_as_evenly_as_possible(total: int, available: dict[int, int]) -> None:
    shares = share_out(total, available)
    assert sum(shares.values()) == min(total, sum(available.values()))
    assert all(0 <= shares[number] <= available[number] for number in available)
    fullest = max(shares.values(), default=0)
    assert all(shares[number] == available[number] or shares[number] >= fullest - 1 for number in available)


@given(rows=st.lists(st.tuples(st.sampled_from([2, 3, 7]), st.integers(0, 9)), max_size=60), total=st.integers(0, 20))
def test_rows_of_the_lowest_ranks_are_kept(rows: list[tuple[int, int]], total: int) -> None:
    chosen, kept = choose_rows(iter(rows), CaptionSetConfig(num_common=total))
    taken = [(number, rank) for number, rank in rows if is_chosen(number, rank, chosen)]
    assert Counter(number for number, _ in taken) == +Counter(kept)
    for number in (2, 3):
        ranks = sorted(rank for other, rank in rows if other == number)
        assert sorted(rank for other, rank in taken if other == number) == ranks[: kept.get(number, 0)]
    assert [row for row in taken if row[0] == 7] == [row for row in rows if row[0] == 7]


def test_ranks_are_the_same_everywhere_and_uniform() -> None:
    row = {"image_id": "a", "text": "two dogs"}
    assert f"{rank_of(row, 0):016x}" == "9e0fa7b6904ce31b", "blake2b of '0 a two dogs', with eight bytes"
    ranks = [rank_of({"image_id": str(place), "text": "two dogs"}, 5) / 2**64 for place in range(2000)]
    assert abs(np.mean(ranks) - 0.5) < 0.03
    assert rank_of(row, 0) != rank_of(row, 1)


def test_images_are_opened_upright_and_rgb() -> None:
    upright = Image.new("RGB", (5, 3))
    exif = upright.getexif()
    exif[0x0112] = 6  # the camera was turned
    file = io.BytesIO()
    upright.save(file, "JPEG", exif=exif)
    assert open_image(file.getvalue()).size == (3, 5)
    file = io.BytesIO()
    Image.new("LA", (5, 3)).save(file, "PNG")
    assert open_image(file.getvalue()).mode == "RGB"
    for content in (b"", b"<svg/>", file.getvalue()[:30]):
        with pytest.raises(ImageError, match="not an image that can be decoded"):
            open_image(content)


def test_enormous_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("1", (200, 200)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="DecompressionBomb"):
        open_image(file.getvalue())


_MEASURED = """
    import sys
    from pathlib import Path
    from count_clip.datasets_scripts.counting_set.build import build_caption_set
    from count_clip.datasets_scripts.counting_set.stages import CaptionSetConfig

    build_caption_set(sys.argv[1], sys.argv[2], CaptionSetConfig(num_common=500, captions_only=sys.argv[3] == "text"))
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory of a process in /proc")
@pytest.mark.parametrize("stage", ["text", "images"])
def test_memory_does_not_grow_with_the_number_of_captions(tmp_path: Path, stage: str) -> None:
    peaks = []
    for size in (10_000, 100_000) if stage == "text" else (2_000, 20_000):
        table = pa.table({"caption": [text or "" for text in _captions(size, 0)]})
        if stage == "images":
            image = _png(0, (60, 60))
            table = table.append_column("image", [[image] * size])
        pq.write_table(table, tmp_path / f"{size}.parquet", row_group_size=500)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                textwrap.dedent(_MEASURED),
                str(tmp_path / f"{size}.parquet"),
                str(tmp_path / str(size)),
                stage,
            ],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 40, f"peak memory in MiB: {peaks}"
