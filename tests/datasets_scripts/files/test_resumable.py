import errno
import json
from pathlib import Path

import pytest

from count_clip.datasets_scripts.files.atomic import whole_file, write_whole
from count_clip.datasets_scripts.files.resumable import (
    ResultCache,
    ResumableFolder,
    differences,
    fingerprint_of,
    remove_folder,
    replace_folder,
)


PLAN = {"seed": 1, "numbers": (2, 3), "shards": {"a": "x", "b": "y"}}


@pytest.fixture
def work(tmp_path: Path) -> ResumableFolder:
    folder = ResumableFolder(tmp_path / "runs" / "work")
    assert folder.plan is None
    assert not folder.begin(PLAN)
    folder.finish("0", {"rows": 5})
    return folder


def test_the_same_plan_resumes_and_keeps_finished_results(work: ResumableFolder) -> None:
    killed = work.folder / "parts" / ".1.parquet.999.unfinished"
    killed.parent.mkdir()
    killed.write_bytes(b"half")
    again = ResumableFolder(work.folder)
    assert again.begin({**PLAN, "numbers": [2, 3]}), "tuples are lists in JSON"
    assert again.is_finished("0")
    assert again.record("0") == {"rows": 5}
    assert not again.is_finished("1")
    assert not killed.exists(), "what a killed process left is removed"


def test_another_plan_is_refused_with_the_differences(work: ResumableFolder) -> None:
    with pytest.raises(ValueError, match=r"runs/work with the same options, but seed was 1 and is 2\. Use the same"):
        work.begin({**PLAN, "seed": 2})
    assert work.is_finished("0")


def test_another_plan_restarts_where_that_is_wanted(work: ResumableFolder) -> None:
    assert not work.begin({**PLAN, "seed": 2}, restart=True)
    assert not work.is_finished("0")
    assert work.plan == {**PLAN, "numbers": [2, 3], "seed": 2}
    assert [path.name for path in work.folder.parent.iterdir()] == ["work"]


def test_other_files_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for remove in (ResumableFolder(tmp_path).remove, lambda: ResumableFolder(tmp_path).begin(PLAN, restart=True)):
        with pytest.raises(FileExistsError, match="holds other files"):
            remove()
    assert (tmp_path / "mine.txt").read_text() == "mine"
    ResumableFolder(tmp_path / "none").remove()


def test_differences_are_named_and_counted() -> None:
    now = {"seed": 2, "numbers": (2, 3), "shards": {"b": "z", "c": "w"}, "k": 0}
    text = "seed was 1 and is 2; shards: a is gone; shards: b was 'y' and is 'z'"
    assert differences(PLAN, now) == f"{text}; 2 more"
    assert differences(PLAN, now, most=5) == f"{text}; shards: c is new; k is new"
    assert fingerprint_of({"a": 1, "b": 2}) == fingerprint_of({"b": 2, "a": 1}) != fingerprint_of({"a": 1})


def test_folders_are_replaced_and_leftovers_of_killed_removals_go(tmp_path: Path) -> None:
    for name in ("data", "new", ".data.1.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name.strip(".")).touch()
    replace_folder(tmp_path / "new", tmp_path / "data")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["data", "data/new"]
    remove_folder(tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_whole(file, b"one")

    def fail(error: BaseException) -> None:
        with whole_file(file) as temporary:
            temporary.write_bytes(b"tw")
            raise error

    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    with pytest.raises(OSError, match=r"No space is left for .*/a\. Free some"):
        fail(OSError(errno.ENOSPC, "full"))
    assert file.read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# --- results in a file ---------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "cache.jsonl"


def test_results_are_read_again(path: Path) -> None:
    with ResultCache(path, {"model": "a"}) as cache:
        cache["x"] = 1.5
        cache["y"] = [1, "zwölf"]
        assert "x" in cache
    with ResultCache(path, {"model": "a"}) as cache:
        assert (cache["x"], cache["y"], "z" in cache) == (1.5, [1, "zwölf"], False)


def test_a_result_is_written_at_once(path: Path) -> None:
    with ResultCache(path, {"model": "a"}) as cache:
        cache["x"] = 1
        with ResultCache(path, {"model": "a"}) as other:
            assert other["x"] == 1


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_off_is_removed(path: Path, cut: int) -> None:
    with ResultCache(path, {"model": "a"}) as cache:
        cache["x"] = 1
        cache["y"] = 2
    path.write_bytes(path.read_bytes()[:-cut])
    with ResultCache(path, {"model": "a"}) as cache:
        assert "y" not in cache
        cache["y"] = 3
    with ResultCache(path, {"model": "a"}) as cache:
        assert cache.data == {"x": 1, "y": 3}


def test_the_results_of_another_model_are_refused_and_kept(path: Path) -> None:
    ResultCache(path, {"sha256": "one", "dtype": "float32"}).close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="sha256 was 'one' and is 'two'"):
        ResultCache(path, {"sha256": "two", "dtype": "float32"})
    with pytest.raises(ValueError, match="window"):
        ResultCache(path, {"sha256": "one", "dtype": "float32", "window": "whole"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"notes of mine\n", b"half a line", b'{"a": 1}\n'])
def test_any_other_file_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="something else"):
        ResultCache(path, {"model": "a"})
    assert path.read_bytes() == content


def test_a_broken_line_is_reported(path: Path) -> None:
    with ResultCache(path, {"model": "a"}) as cache:
        cache["x"] = 1
    path.write_bytes(path.read_bytes() + b"{junk}\n" + json.dumps({"key": "y", "value": 2}).encode() + b"\n")
    with pytest.raises(ValueError, match="broken in line 3"):
        ResultCache(path, {"model": "a"})


def test_nan_is_not_kept(path: Path) -> None:
    with ResultCache(path, {"model": "a"}) as cache, pytest.raises(ValueError):
        cache["x"] = float("nan")
