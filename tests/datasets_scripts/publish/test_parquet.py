import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from count_clip.datasets_scripts.builders import base as counting_set
from count_clip.datasets_scripts.publish import parquet as publishing
from count_clip.datasets_scripts.publish.parquet import build_dataset


Load = Callable[..., Any]
SCENES = {"num_scenes": {"train": 7, "test": 3}, "image_size": 64, "objects": "shapes"}


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.fixture
def few_rows(monkeypatch) -> None:
    """Parts and row groups of a row or two, so that small sets have several."""
    monkeypatch.setattr(counting_set, "SHARD_LENGTH", 2)
    monkeypatch.setattr(publishing, "_ROW_GROUP_ROWS", 1)


SETS = [
    ("fsc147", "default", "fsc147", {}),
    ("fsc147", "descriptions", "fsc147", {"duplicate_points": "drop"}),
    ("carpk", "pucpr", "carpk", {}),
    ("shanghaitech", "part_A", "shanghaitech", {}),
    ("countbench", "default", "countbench", {"missing": "keep"}),
    ("countscenes", "density", None, SCENES),
    ("countscenes", "mixed", None, SCENES),
    ("countscenes", "captions", None, SCENES),
]


@pytest.mark.parametrize(("name", "config", "source", "options"), SETS)
def test_built_folder_gives_what_the_builder_gives(
    request: pytest.FixtureRequest, tmp_path: Path, load: Load, plain_rows: Callable, name, config, source, options
) -> None:
    if source is not None:
        options = {**options, "data_dir": str(request.getfixturevalue(source))}
    folder = build_dataset(name, tmp_path / "built", [config], **options)
    assert not (folder / ".partial").exists()
    expected = load(name, config, **options)
    for place in ((str(folder),), (str(folder), config)):
        found = load(*place)
        assert list(found) == list(expected)
        for split in expected:
            assert found[split].features == expected[split].features
            assert plain_rows(found[split]) == plain_rows(expected[split])
            assert found[split].info.splits[split].num_examples == len(expected[split])
    streamed = load(str(folder), streaming=True)
    assert [row["image_id"] for row in streamed["test"]] == expected["test"]["image_id"][:]


def test_card_describes_the_set(fsc147: Path, tmp_path: Path) -> None:
    folder = build_dataset(
        "fsc147", tmp_path / "built", ["coco", "default"], data_dir=str(fsc147), missing="leave_out"
    )
    text = (folder / "README.md").read_text()
    data = yaml.safe_load(text.split("---")[1])
    assert [entry["config_name"] for entry in data["configs"]] == ["coco", "default"]
    assert data["configs"][0]["default"] is True
    assert data["configs"][1]["data_files"][0] == {"split": "train", "path": "data/train-*"}
    infos = {entry["config_name"]: entry for entry in data["dataset_info"]}
    assert [split["num_examples"] for split in infos["default"]["splits"]] == [2, 2, 1]
    assert infos["coco"]["download_size"] == sum(path.stat().st_size for path in (folder / "coco").iterdir())
    assert (data["license"], data["license_name"]) == ("other", "mit-annotations-the-images-are-of-various-origins")
    for expected in (
        'load_dataset("FOLDER or ORGANISATION/NAME", "coco", split="validation")',
        "| `exemplar_boxes` | boxes around some objects",
        "| default | train | 2 | 2 | 4 |",
        "`count-clip data build fsc147 --config coco --config default` (count-clip ",
        "Options: `missing='leave_out'`.",
        "github.com/cvlab-stonybrook/LearningToCountEverything has annotation_FSC147_384.json",
        "- Some classes are singular",
        "- `default`: Images with the same point more than once, counted as often: 1 (7.jpg).",
        "```bibtex\n@inproceedings{ranjan2021learning,",
    ):
        assert expected in text, expected
    assert str(tmp_path) not in text
    assert "<details>" not in text


def test_everything_left_out_is_listed_in_the_card(fsc147: Path, tmp_path: Path) -> None:
    with (fsc147 / "ImageClasses_FSC147.txt").open("a") as file:
        file.write("".join(f"{number}.jpg\tcrows\n" for number in range(1000, 1007)))
    folder = build_dataset("fsc147", tmp_path / "built", ["coco"], data_dir=str(fsc147))
    text = (folder / "README.md").read_text()
    assert "in no split: 8 (99.jpg, 1000.jpg, 1001.jpg, 1002.jpg, 1003.jpg, ...)." in text
    details = text.split("<details>")[1].split("</details>")[0]
    assert "in no split: 8 (99.jpg, 1000.jpg, 1001.jpg, 1002.jpg, 1003.jpg, 1004.jpg, 1005.jpg, 1006.jpg)." in details


def test_own_and_rendered_sets_are_built(tmp_path: Path, save_image: Callable, load: Load) -> None:
    source = tmp_path / "birds"
    save_image(source / "images" / "one.png")
    (source / "points.csv").write_text("file_name,x,y,name\none.png,1,2,gull\n")
    options = {"data_dir": str(source), "names": {"gull": "gulls"}}
    with pytest.raises(ValueError, match=r"Expected a configuration of 'object_folder' \(voc, coco, points, csv\)"):
        build_dataset("object_folder", tmp_path / "built", **options)
    folder = build_dataset("object_folder", tmp_path / "built", ["csv"], **options)
    assert load(str(folder))["train"]["text"][:] == ["gulls"]
    text = (folder / "README.md").read_text()
    assert "license: unknown" in text
    assert "From a folder of images and annotations, read as `csv`." in text
    assert "Options: `names={'gull': 'gulls'}`." in text
    rendered = (build_dataset("countscenes", tmp_path / "scenes", **SCENES) / "README.md").read_text()
    assert "Rendered, from nothing" in rendered
    assert "license: apache-2.0" in rendered


def test_card_shows_examples_of_each_configuration(tmp_path: Path) -> None:
    built = build_dataset("countscenes", tmp_path / "built", ["captions", "mixed"], **SCENES)
    text = (built / "README.md").read_text()
    for config in ("captions", "mixed"):
        assert f"![{config}](sheets/{config}.png)" in text
        with Image.open(built / "sheets" / f"{config}.png") as sheet:
            assert sheet.width >= 6 * 64
    assert set(datasets.load_dataset(str(built), "captions")) == {"train", "test"}
    again = build_dataset("countscenes", tmp_path / "again", ["captions", "mixed"], **SCENES)
    assert hashes(built) == hashes(again)
    # The sheets of a former build are removed.
    build_dataset("countscenes", built, ["captions"], **SCENES)
    assert [file.name for file in (built / "sheets").iterdir()] == ["captions.png"]


# The same bytes


@pytest.mark.usefixtures("few_rows")
def test_second_build_gives_the_same_bytes(shanghaitech: Path, tmp_path: Path) -> None:
    first = build_dataset("shanghaitech", tmp_path / "a", ["part_A"], data_dir=str(shanghaitech), max_shard_bytes=900)
    moved = tmp_path / "elsewhere" / "set"
    moved.parent.mkdir()
    shanghaitech.rename(moved)
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    options = {"data_dir": str(moved), "max_shard_bytes": 900}
    second = build_dataset("shanghaitech", tmp_path / "b", ["part_A"], **options)
    assert hashes(first) == hashes(second)
    assert len(hashes(first)) > 3
    together = build_dataset("shanghaitech", tmp_path / "c", ["part_A"], num_proc=2, **options)
    assert hashes(together) == hashes(first)
    again = build_dataset("shanghaitech", tmp_path / "a", ["part_A"], **options)
    assert hashes(again) == hashes(second)


@pytest.mark.usefixtures("few_rows")
def test_shards_have_about_one_size_and_every_row_in_order(tmp_path: Path) -> None:
    options = {**SCENES, "num_scenes": {"train": 40}}
    folder = build_dataset("countscenes", tmp_path / "built", max_shard_bytes=30_000, **options)
    files = sorted((folder / "density").glob("train-*.parquet"))
    assert len(files) > 3
    assert [file.name for file in files] == [f"train-{i:05d}-of-{len(files):05d}.parquet" for i in range(len(files))]
    tables = [pq.read_table(file) for file in files]
    sizes = [table.nbytes for table in tables]
    assert max(sizes) < 1.5 * 30_000
    ids = [image_id for table in tables for image_id in table.column("image_id").to_pylist()]
    assert ids == [f"density-train-0-{index:06d}" for index in range(40)]
    metadata = pq.ParquetFile(files[0]).metadata
    assert {metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)} == {1}
    # A row larger than a shard is a shard.
    lone = build_dataset("countscenes", tmp_path / "lone", max_shard_bytes=10, **SCENES)
    assert len(list((lone / "density").glob("train-*.parquet"))) == 7


# Interrupted builds


@pytest.mark.usefixtures("few_rows")
def test_interrupted_build_continues(shanghaitech: Path, tmp_path: Path, monkeypatch) -> None:
    options: dict[str, Any] = {"configs": ["part_A"], "data_dir": str(shanghaitech), "max_shard_bytes": 900}
    whole = hashes(build_dataset("shanghaitech", tmp_path / "whole", **options))
    written: list[str] = []
    write_part, write_shard = publishing._write_part, publishing._write_shard

    def stop_after(number: int, write: Callable) -> Callable:
        def stopping(*arguments: Any) -> Any:
            if len(written) == number:
                raise KeyboardInterrupt
            written.append(str(arguments[0]))
            return write(*arguments)

        return stopping

    folder = tmp_path / "built"
    monkeypatch.setattr(publishing, "_write_part", stop_after(2, write_part))
    with pytest.raises(KeyboardInterrupt):
        build_dataset("shanghaitech", folder, **options)
    assert [path.name for path in folder.iterdir()] == [".partial"]
    monkeypatch.setattr(publishing, "_write_part", stop_after(99, write_part))
    monkeypatch.setattr(publishing, "_write_shard", stop_after(4, write_shard))
    with pytest.raises(KeyboardInterrupt):
        build_dataset("shanghaitech", folder, **options)
    # Three parts in all, of which two were there; and one shard.
    assert len(written) == 4
    shards = list((folder / ".partial" / "final").rglob("*.parquet"))
    assert len(shards) == 1
    before = shards[0].stat().st_mtime_ns
    monkeypatch.setattr(publishing, "_write_part", stop_after(4, write_part))
    monkeypatch.setattr(publishing, "_write_shard", write_shard)
    build_dataset("shanghaitech", folder, **options)
    assert hashes(folder) == whole
    assert (folder / shards[0].relative_to(folder / ".partial" / "final")).stat().st_mtime_ns == before


def test_build_of_another_state_starts_again(shanghaitech: Path, tmp_path: Path, monkeypatch) -> None:
    options: dict[str, Any] = {"configs": ["part_A"], "data_dir": str(shanghaitech)}
    folder = tmp_path / "built"
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_put_in_place", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_dataset("shanghaitech", folder, **options)
    (shanghaitech / "part_A_final" / "train_data" / "images" / "IMG_2.jpg").unlink()
    build_dataset("shanghaitech", folder, missing="leave_out", **options)
    assert pq.read_table(folder / "part_A" / "train-00000-of-00001.parquet").num_rows == 2


KILLED = """
import sys, time
import count_clip
from count_clip.datasets_scripts.countscenes import builder as countscenes
from count_clip.datasets_scripts.publish import parquet as publishing
countscenes.CountScenesBuilder._SHARD_LENGTH = 4
if sys.argv[2] == "slow":
    write = publishing._write_part
    publishing._write_part = lambda *arguments: (time.sleep(0.2), write(*arguments))
publishing.build_dataset("countscenes", sys.argv[1], num_scenes={"train": 60}, image_size=64, objects="shapes")
"""


def test_killed_build_continues_in_a_new_process(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}

    def run(folder: str, pace: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / folder), pace], env=environment)

    running = run("killed", "slow")
    parts = tmp_path / "killed" / ".partial" / "parts" / "density"
    deadline = time.monotonic() + 40
    while len(list(parts.glob("*.json"))) < 3:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("train-0000[012].parquet")}
    assert len(kept) == 3
    assert not (tmp_path / "killed" / "README.md").exists()
    assert len(list(parts.glob("*.json"))) < 15
    finishing, whole = run("killed", "fast"), run("whole", "fast")
    assert (finishing.wait(), whole.wait()) == (0, 0)
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


def test_new_build_replaces_the_former_and_its_cache(tmp_path: Path, save_image: Callable, load: Load) -> None:
    source, folder = tmp_path / "birds", tmp_path / "built"
    for name in ("one.png", "two.png"):
        save_image(source / "images" / name)
    table = source / "points.csv"
    options: dict[str, Any] = {"configs": ["csv"], "data_dir": str(source), "text": "birds"}
    table.write_text("file_name,x,y\none.png,1,2\ntwo.png,3,4\n")
    build_dataset("object_folder", folder, max_shard_bytes=50, **options)
    assert load(str(folder), split="train")["points"][:] == [[[1, 2]], [[3, 4]]]
    assert len(list(folder.rglob("*.parquet"))) == 2
    # As many rows of as many bytes.
    table.write_text("file_name,x,y\none.png,1,2\ntwo.png,3,5\n")
    build_dataset("object_folder", folder, **options)
    assert load(str(folder), split="train")["points"][:] == [[[1, 2]], [[3, 5]]]
    assert [path.name for path in folder.rglob("*.parquet")] == ["train-00000-of-00001.parquet"]


# What cannot be built


def test_other_folders_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(
        FileExistsError, match=r"notes to be new, empty or a former build, but it holds something else"
    ):
        build_dataset("countscenes", tmp_path / "notes", **SCENES)
    (tmp_path / "notes" / "README.md").write_text("# Mine")
    with pytest.raises(FileExistsError, match="it holds something else"):
        build_dataset("countscenes", tmp_path / "notes", **SCENES)
    with pytest.raises(FileExistsError, match=r"a\.txt, but it is a file"):
        build_dataset("countscenes", tmp_path / "notes" / "a.txt", **SCENES)
    assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == ["README.md", "a.txt"]


def test_missing_files_are_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected data_dir, the folder with fsc147"):
        build_dataset("fsc147", tmp_path / "built")
    with pytest.raises(ValueError, match=r"configurations of 'fsc147' \(default, descriptions, coco\), but got 'all'"):
        build_dataset("fsc147", tmp_path / "new", ["all"])
    with pytest.raises(ValueError, match=r"options of 'fsc147' \(data_dir, missing, .*\), but got 'mising'\. Name"):
        build_dataset("fsc147", tmp_path / "new", mising="leave_out")
    with pytest.raises(ValueError, match="num_proc and max_shard_bytes of 1 or more, but got 0 and"):
        build_dataset("fsc147", tmp_path / "new", num_proc=0)
    assert not (tmp_path / "new").exists()


# The Hub


PUSH = """
import sys
from count_clip.commands.push import push_built
from count_clip.trainers.hub.repository import Destination
print(push_built(sys.argv[1], Destination(sys.argv[2], "dataset")).url)
"""
# Without this package, as anybody has it.
PULL = """
import hashlib, json, sys
import datasets
datasets.disable_progress_bars()
out = {}
for streaming in (False, True):
    rows = datasets.load_dataset(sys.argv[1], streaming=streaming)
    out[str(streaming)] = {
        split: [[row["image_id"], row["count"], row["points"], hashlib.sha256(row["image"].tobytes()).hexdigest()]
                for row in rows[split]]
        for split in rows
    }
assert "count_clip" not in sys.modules
print(json.dumps(out))
"""


def test_pushed_set_loads_from_the_hub(shanghaitech: Path, tmp_path: Path, hub: Any, load: Load) -> None:
    options: dict[str, Any] = {"data_dir": str(shanghaitech)}
    folder = build_dataset("shanghaitech", tmp_path / "built", ["part_A"], max_shard_bytes=900, **options)
    environment = {**os.environ, **hub.environment, "HF_HOME": str(tmp_path / "home")}

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert run(PUSH, str(folder), "org/crowds").startswith(f"{hub.url}/datasets/org/crowds/commit/")
    repository = hub.repositories["dataset", "org/crowds"]
    assert repository.private, "the set is for research only"
    pushed = {
        path: hashlib.sha256(content).hexdigest() for path, content in hub.files("dataset", "org/crowds").items()
    }
    del pushed[".gitattributes"]
    assert pushed == hashes(folder)
    found = json.loads(run(PULL, "org/crowds"))
    expected = {
        split: [
            [row["image_id"], row["count"], row["points"], hashlib.sha256(row["image"].tobytes()).hexdigest()]
            for row in rows
        ]
        for split, rows in load("shanghaitech", "part_A", **options).items()
    }
    assert found["False"] == found["True"] == expected
    # Fewer shards the next time: those of before are gone from the Hub.
    build_dataset("shanghaitech", folder, ["part_A"], **options)
    run(PUSH, str(folder), "org/crowds")
    assert set(hub.files("dataset", "org/crowds")) == {*hashes(folder), ".gitattributes"}
