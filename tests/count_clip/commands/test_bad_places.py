"""Checkpoints with something missing, outputs that are inputs, and names that are hard to write."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from count_clip.cli import main
from count_clip.commands.shared.errors import CommandError
from count_clip.commands.shared.inputs import find_inputs
from count_clip.commands.shared.output import OverlayNamer, check_output


TENSOR = "text_model.encoder.layers.0.mlp.fc1.weight"


@pytest.fixture
def broken(density_folder, tmp_path):
    """Makes a copy of the density model with something missing from it."""

    def make(what: str) -> str:
        folder = tmp_path / what
        shutil.copytree(density_folder, folder)
        weights = folder / "model.safetensors"
        if what == "tokenizer":
            for name in ("tokenizer.json", "vocab.json", "merges.txt"):
                (folder / name).unlink(missing_ok=True)
        elif what == "weights":
            weights.unlink()
        else:
            tensors = load_file(weights)
            row = tensors.pop(TENSOR)
            save_file(tensors | ({TENSOR: row[1:].clone()} if what == "size" else {}), weights, {"format": "pt"})
        return str(folder)

    return make


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("tokenizer", "has no tokenizer"),
        ("tensor", f"its weights lack {TENSOR}. Save"),
        ("size", "sizes of its weights"),
    ],
)
def test_models_that_would_count_at_random_are_refused(what, words, broken, photos, capsys):
    assert main(["count", str(photos), "--text", "cats", "--model", broken(what)]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert not printed.out


@pytest.mark.parametrize("what", ["tokenizer", "tensor", "size"])
def test_they_are_not_pushed_either(what, broken, capsys):
    assert main(["push", broken(what), "org/name", "--dry-run"]) == 2
    assert ("has no tokenizer" if what == "tokenizer" else TENSOR) in capsys.readouterr().err


@pytest.mark.parametrize(("what", "code"), [("tokenizer", 2), ("tensor", 1), ("size", 1), ("weights", 1)])
def test_info_names_what_is_broken(what, code, broken, capsys):
    assert main(["info", broken(what), "--text", "cats"]) == code
    printed = capsys.readouterr()
    assert {"tokenizer": "no tokenizer", "weights": "no weights"}.get(what, TENSOR) in printed.out + printed.err


def test_an_export_needs_a_tokenizer(counting_folder, tmp_path, capsys):
    folder = tmp_path / "clip"
    shutil.copytree(counting_folder, folder, ignore=shutil.ignore_patterns("tokenizer.json", "vocab.json"))
    assert main(["export", "clip", str(folder), "--output", str(tmp_path / "plain")]) == 2
    assert "has no tokenizer" in capsys.readouterr().err


def test_what_is_read_is_not_written_over(photos, density_folder, counting_folder, tmp_path, capsys):
    image = photos / "a.png"
    before = image.read_bytes()
    link = tmp_path / "link.png"
    link.symlink_to(image)
    for output in (image, link):
        assert main(["count", str(photos), "--text", "cats", "--model", density_folder, "--csv", str(output)]) == 2
        arguments = ["--text", "two cats", "--model", counting_folder, "--output", str(output)]
        assert main(["explain", str(image), *arguments]) == 2
        assert capsys.readouterr().err.count("it is an input") == 2
        assert image.read_bytes() == before
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"image": str(image), "text": "cats", "count": 2}) + "\n")
    arguments = ["--model", density_folder, "--data", str(data), "--json", str(data)]
    assert main(["evaluate", "density", *arguments]) == 2
    assert "it is an input" in capsys.readouterr().err
    assert json.loads(data.read_text())["count"] == 2


def test_a_sheet_does_not_replace_a_image_that_was_found(photos, counting_folder, tmp_path, capsys):
    index, image = str(tmp_path / "index"), photos / "a.png"
    before = image.read_bytes()
    assert main(["index", str(photos), "--model", counting_folder, "--output", index]) == 0
    assert main(["search", index, "two cats", "--sheet", str(image)]) == 2
    assert "it is an input" in capsys.readouterr().err
    assert image.read_bytes() == before


def test_checking_an_output_keeps_the_file(tmp_path):
    empty, new, pipe = tmp_path / "empty.json", tmp_path / "new" / "one.json", tmp_path / "pipe"
    empty.touch(mode=0o600)
    check_output(str(empty))
    check_output(str(new))
    assert stat.S_IMODE(empty.stat().st_mode) == 0o600
    assert not new.exists()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_output(str(pipe))
    os.close(reader)
    assert pipe.is_fifo()


def test_outputs_may_be_in_the_folder_of_the_inputs(photos):
    both = [photos / "a.png", photos / "more" / "b.JPG"]
    for without in (photos, photos.parent):
        assert find_inputs([str(photos)], without=without) == both
        assert find_inputs([str(photos / "**" / "*")], without=without) == both
    assert find_inputs([str(photos)], without=photos / "more") == both[:1]
    assert find_inputs([str(photos / "**" / "*")], without=photos / "more") == both[:1]


def test_names_that_begin_with_a_tilde(photos, density_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(photos / "a.png", "~nobody.png")
    arguments = ["count", "~nobody.png", "--text", "cats", "--model", density_folder]
    assert main(arguments) == 0
    assert main([*arguments, "--csv", "~nobody.csv"]) == 2
    assert "begins with ~" in capsys.readouterr().err


def test_empty_paths_are_refused(density_folder, capsys):
    assert main(["count", "", "--text", "cats", "--model", density_folder]) == 2
    assert main(["push", "", "org/name", "--dry-run"]) == 2
    assert capsys.readouterr().err.count("is empty") == 2
    with pytest.raises(CommandError, match="one of the paths is empty"):
        find_inputs(["a.png", ""])


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_names_that_are_not_utf_8_are_processed(photos, density_folder, counting_folder, tmp_path, capsys):
    shutil.copyfile(photos / "a.png", os.fsencode(photos) + b"/bad\xff.png")
    table = tmp_path / "counts.csv"
    arguments = [str(photos), "--model", density_folder, "--text", "cats"]
    assert main(["count", *arguments, "--csv", str(table), "--json"]) == 0
    names = [Path(json.loads(line)["file"]).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["a.png", r"bad\xff.png", "b.JPG"]
    assert r"bad\xff.png" in table.read_text(encoding="utf-8")
    index = str(tmp_path / "index")
    assert main(["index", str(photos), "--model", counting_folder, "--output", index]) == 1
    printed = capsys.readouterr()
    assert r"bad\xff.png: an index supports names in UTF-8 only" in printed.err
    assert "2 images" in printed.out
    for command in (["count", *arguments[:3]], ["info", density_folder]):
        assert main([*command, "--text", "caf\udce9"]) == 2
        assert "is not in UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(("stem", "text"), [("a" * 200, "b" * 200), ("数" * 80, "人" * 80)])
def test_long_names_are_cut(stem, text, tmp_path):
    namer = OverlayNamer(tmp_path, [])
    paths = [namer(stem, text) for _ in range(3)]
    assert len(set(paths)) == 3
    for path in paths:
        Image.new("L", (2, 2)).save(path)
        assert path.name.startswith(stem[:30])


def test_bad_rows_and_files_without_rows_are_named(photos, density_folder, tmp_path, capsys):
    rows = [{"image": str(photos / "a.png"), "text": "cats", "count": count} for count in ("three", "2")]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    assert main(["evaluate", "density", "--model", density_folder, "--data", str(data)]) == 2
    assert "the row's `count` is 'three', not a number" in capsys.readouterr().err
    data.write_text("")
    assert main(["evaluate", "density", "--model", density_folder, "--data", str(data)]) == 2
    assert "has no rows" in capsys.readouterr().err


def test_text_is_no_checkpoint(tmp_path, capsys):
    for name in ("clip.pt", "model.ckpt"):
        (tmp_path / name).write_text("hi")
    files = ["--clip", str(tmp_path / "clip.pt"), "--checkpoint", str(tmp_path / "model.ckpt")]
    assert main(["convert", "clip-count", *files, "--output", str(tmp_path / "out")]) == 2
    assert "cannot be read; it may be damaged" in capsys.readouterr().err


def test_no_device_without_numbers(photos, density_folder, capsys):
    assert main(["count", str(photos), "--text", "cats", "--model", density_folder, "--device", "meta"]) == 2
    assert "--device meta cannot be used here" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["justname"], ["a/b/c"], ["org/a b"], ["org/name", "--tag", "bad tag.."]])
def test_a_dry_run_refuses_names_that_the_hub_would(arguments, counting_folder, capsys):
    assert main(["push", counting_folder, *arguments, "--dry-run"]) == 2
    assert "is no name of a" in capsys.readouterr().err


def test_broken_card_is_named_with_its_path(counting_folder, tmp_path, capsys):
    folder = tmp_path / "clip"
    shutil.copytree(counting_folder, folder)
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    assert main(["push", str(folder), "org/name", "--dry-run"]) == 2
    assert f"The metadata at the top of {folder / 'README.md'} cannot be read" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk to write to")
def test_a_full_disk_is_a_message(photos, density_folder):
    # In a process of its own: `main` gives up its standard output then.
    arguments = ["count", str(photos), "--text", "cats", "--model", density_folder, "--csv", "/dev/full"]
    done = subprocess.run(
        [sys.executable, "-m", "count_clip", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith("cannot write: No space left on device.\n")
