import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants
from PIL import Image

from count_clip.cli import main
from count_clip.datasets_scripts.registration import DATASETS


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Local images with points: two gulls and a tern, and an image without annotations."""
    folder = tmp_path / "birds"
    (folder / "images").mkdir(parents=True)
    for name in ("one.png", "two.png"):
        Image.new("RGB", (20, 10), (9, 9, 9)).save(folder / "images" / name)
    (folder / "points.csv").write_text("file_name,x,y,name\none.png,1,2,gull\none.png,3,4,gull\none.png,5,6,tern\n")
    return folder


def build(birds: Path, output: Path, *more: str) -> int:
    options = ["--config", "csv", "--data-dir", str(birds), "--output", str(output)]
    return main(["data", "build", "object_folder", *options, "--option", "names={gull: gulls, tern: terns}", *more])


def test_local_images_become_a_set(birds: Path, tmp_path: Path, capsys, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert build(birds, tmp_path / "built") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["configuration", "rows", "split"]
    assert printed[1].split() == ["csv", "2", "train"]
    assert printed[2].endswith(f"MB of parquet files and a card in {tmp_path / 'built'}")
    assert "Images without an annotation in these splits: 1 (two.png)." in caplog.text
    rows = datasets.load_dataset(str(tmp_path / "built"), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(zip(rows["text"], rows["count"], strict=True)) == [("gulls", 2), ("terns", 1)]
    assert rows[0]["image"].size == (20, 10)


def test_json_equals_the_table(birds: Path, tmp_path: Path, capsys) -> None:
    assert build(birds, tmp_path / "built", "--json", "--num-proc", "2") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["folder"] == str(tmp_path / "built")
    assert record["splits"] == [{"config": "csv", "split": "train", "rows": 2}]
    assert record["bytes"] == sum(file.stat().st_size for file in (tmp_path / "built").rglob("*.parquet")) > 0
    assert record["commit"] is None


def test_rendered_scenes_need_no_data(tmp_path: Path, capsys) -> None:
    options = ["--option", "num_scenes={train: 3}", "--option", "image_size=64", "--option", "objects=shapes"]
    output = str(tmp_path / "scenes")
    configs = ["--config", "density", "--config", "captions"]
    assert main(["data", "build", "countscenes", "--output", output, *configs, *options]) == 0
    assert capsys.readouterr().out.count("train") == 2
    assert sorted(path.name for path in Path(output).iterdir()) == ["README.md", "captions", "density", "sheets"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["imagenet"], f"name of a set ({', '.join(DATASETS)}), but got 'imagenet'"),
        (["fsc147"], "Expected data_dir, the folder with fsc147 as its authors distribute it, but got none. https://"),
        (["carpk", "--data-dir", "nowhere"], "but there is none. Check the path. https://lafi.github.io"),
        (["fsc147", "--config", "all"], "configurations of 'fsc147' (default, descriptions, coco), but got 'all'"),
        (["object_folder", "--data-dir", "."], "Expected a configuration of 'object_folder'"),
        (["countscenes", "--option", "image_size"], "Expected --option KEY=VALUE, but got 'image_size'"),
        (["countscenes", "--option", "num_scenes={"], "Expected a value as in YAML in --option 'num_scenes={'"),
        (["countscenes", "--option", "colour=red"], "colour"),
        (["countscenes", "--public"], "Expected --push ORG/NAME with --private and --public"),
    ],
)
def test_impossible_builds_are_reported(tmp_path: Path, capsys, monkeypatch, arguments: list, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "build", *arguments, "--output", "built"]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert not (tmp_path / "built").exists()


def test_impossible_push_is_reported(birds: Path, tmp_path: Path, hub_here, capsys, monkeypatch) -> None:
    command = ["data", "build", "object_folder", "--config", "csv", "--data-dir", str(birds)]
    command += ["--option", "names={gull: gulls, tern: terns}", "--output", str(tmp_path / "built"), "--push"]
    assert main([*command, "a/b/c"]) == 2
    assert "'a/b/c' is no name of a repository" in capsys.readouterr().err
    assert not (tmp_path / "built").exists(), "it was built before the name was looked at"
    assert main([*command, "strangers/birds"]) == 2
    assert "may not write to strangers/birds" in capsys.readouterr().err
    assert (tmp_path / "built" / "README.md").is_file()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main([*command, "org/birds"]) == 2
    errors = capsys.readouterr().err
    assert "The Hub cannot be reached" in errors
    assert "Traceback" not in errors


def test_built_set_is_pushed(birds: Path, tmp_path: Path, hub) -> None:
    environment = {**os.environ, **hub.environment, "HF_HOME": str(tmp_path / "home")}
    code = "import sys; from count_clip.cli import main; sys.exit(main(sys.argv[1:]))"
    names = "names={gull: gulls, tern: terns}"
    command = ["data", "build", "object_folder", "--config", "csv", "--data-dir", str(birds), "--option", names]
    command += ["--output", str(tmp_path / "built"), "--push", "org/birds"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"pushed: {hub.url}/datasets/org/birds/commit/" in done.stdout
    assert hub.repositories["dataset", "org/birds"].private, "the licence of the images is unknown"
    built = {path.relative_to(tmp_path / "built").as_posix() for path in (tmp_path / "built").rglob("*.*")}
    assert set(hub.files("dataset", "org/birds")) == built | {".gitattributes"}
