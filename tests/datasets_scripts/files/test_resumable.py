import errno
from pathlib import Path

import pytest

from count_clip.datasets_scripts.files.atomic import whole_file, write_whole
from count_clip.datasets_scripts.files.resumable import (
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
