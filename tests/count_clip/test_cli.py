import argparse
import csv
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import CLIPModel

from count_clip.cli import build_parser, main
from count_clip.commands import data
from count_clip.commands.shared.inputs import find_inputs


@pytest.fixture
def expected(density_model, density_processor):
    """The count of a file as the processor and the model give it."""

    def count(path, text):
        inputs = density_processor(images=[Image.open(path)], text=[text])
        outputs = density_model(**inputs)
        result = density_processor.post_process_density(outputs, inputs["window_positions"], inputs["image_sizes"])
        return result[0]["count"]

    return count


def test_count_prints_a_line_for_each_image_and_prompt(photos, density_folder, expected, capsys):
    code = main(["count", str(photos), "--text", "cats", "--text", "dogs", "--model", density_folder])
    captured = capsys.readouterr()
    assert code == 0
    lines = captured.out.splitlines()
    places = [(photos / "a.png", "cats"), (photos / "a.png", "dogs")]
    places += [(photos / "more" / "b.JPG", "cats"), (photos / "more" / "b.JPG", "dogs")]
    assert len(lines) == 4
    for line, (path, text) in zip(lines, places, strict=True):
        count, prompt, file = line.split(maxsplit=2)
        assert (prompt, file) == (text, str(path))
        assert float(count) == pytest.approx(expected(path, text), abs=0.06)


def test_files_stand_below_each_other_whatever_was_counted(photos, density_folder, capsys):
    assert (
        main(["count", str(photos / "a.png"), "--text", "cats", "--text", "sea lions", "--model", density_folder]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert len({line.index(str(photos)) for line in lines}) == 1


def test_count_continues_after_a_bad_file_and_reports_it(photos, density_folder, capsys):
    (photos / "c.png").write_bytes(b"\x89PNG broken")
    missing = photos / "gone.png"
    code = main(["count", str(photos), str(missing), "--text", "cats", "--model", density_folder])
    captured = capsys.readouterr()
    assert code == 1
    assert len(captured.out.splitlines()) == 2
    assert "c.png cannot be read" in captured.err
    assert f"no file {missing}" in captured.err
    assert "2 of 4 files could not be counted" in captured.err


def test_count_writes_json_lines(photos, density_folder, expected, capsys):
    (photos / "c.png").write_bytes(b"")
    assert main(["count", str(photos), "--text", "cats", "--model", density_folder, "--json"]) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_name = {Path(record["file"]).name: record for record in records}
    assert set(by_name) == {"a.png", "b.JPG", "c.png"}
    assert "cannot be read" in by_name["c.png"]["error"]
    record = by_name["b.JPG"]
    assert (record["width"], record["height"], record["text"]) == (48, 100, "cats")
    assert record["count"] == pytest.approx(expected(photos / "more" / "b.JPG", "cats"), rel=1e-3)
    assert 0 < len(record["points"]) <= round(record["count"])
    assert all(0 <= x <= 48 and 0 <= y <= 100 for x, y in record["points"])


def test_count_writes_a_table_and_overlays(photos, density_folder, tmp_path, capsys):
    (photos / "c.png").write_bytes(b"")
    Image.open(photos / "a.png").save(photos / "more" / "a.png")
    table, overlays = tmp_path / "new" / "counts.csv", photos / "overlays"
    arguments = ["count", str(photos), "--text", "red cats", "--model", density_folder, "--csv", str(table)]
    arguments += ["--overlay", str(overlays)]
    assert main(arguments) == 1
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [Path(row["file"]).name for row in rows] == ["a.png", "c.png", "a.png", "b.JPG"]
    assert rows[0]["width"] == "60"
    assert rows[1]["count"] == ""
    assert "cannot be read" in rows[1]["error"]
    assert sorted(path.name for path in overlays.iterdir()) == [
        "a_red-cats-2.png",
        "a_red-cats.png",
        "b_red-cats.png",
    ]
    assert Image.open(overlays / "b_red-cats.png").width >= 48
    before = (overlays / "b_red-cats.png").read_bytes()
    # A second run finds the same images: its own results are not among them.
    assert main(arguments) == 1
    assert len(list(overlays.iterdir())) == 3
    assert (overlays / "b_red-cats.png").read_bytes() == before


def test_an_overlay_never_replaces_a_image_that_is_counted(photos, density_folder, capsys):
    Image.open(photos / "a.png").save(photos / "a_cats.png")
    before = (photos / "a_cats.png").read_bytes()
    files = [str(photos / "a.png"), str(photos / "a_cats.png")]
    assert main(["count", *files, "--text", "cats", "--model", density_folder, "--overlay", str(photos)]) == 0
    assert (photos / "a_cats.png").read_bytes() == before
    assert (photos / "a_cats-2.png").exists()


def test_find_inputs_takes_files_folders_and_patterns(photos):
    a, b, notes = photos / "a.png", photos / "more" / "b.JPG", photos / "notes.txt"
    assert find_inputs([str(photos)]) == [a, b]
    assert find_inputs([str(photos / "*.png")]) == [a]
    assert find_inputs([str(photos / "**" / "*.JPG"), str(photos)]) == [b, a]
    assert find_inputs([str(notes), str(a), str(a)]) == [notes, a]
    assert find_inputs([str(photos)], without=photos / "more") == [a]
    assert find_inputs([str(photos / "*.gif")]) == [photos / "*.gif"]  # reported as missing, not dropped
    # A pattern that names an ending takes all it fits; another one images, and folders with all below.
    assert find_inputs([str(photos / "*.txt")]) == [notes]
    assert find_inputs([str(photos / "*")]) == find_inputs([str(photos / "**")]) == [a, b]
    assert find_inputs([str(photos / "no*")]) == [photos / "no*"]
    assert find_inputs([str(photos / "mo*")]) == [b]
    assert find_inputs([str(photos / "*")], without=photos / "more") == [a]
    assert find_inputs([str(photos / "[ab].png"), str(photos / "?.png")]) == [a]
    strange = photos / "x[1].png"
    Image.new("L", (4, 4)).save(strange)
    assert find_inputs([str(strange)]) == [strange]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--text", " "], "--text is empty"),
        (["--text", "x" * 80], "horten"),
        (["--text", "cats", "--device", "cuda:77"], "cuda:77 cannot be used here"),
        (["--text", "cats", "--device", "toaster"], "toaster cannot be used here"),
        (["--text", "cats", "--csv", "{photos}"], "cannot write"),
        (["--text", "cats", "--overlay", "{photos}/a.png"], "cannot write"),
        (["--text", "cats", "--batch-size", "0"], "at least 1"),
        (["--text", "cats", "--dtype", "int8"], "invalid choice"),
        ([], "--text"),
    ],
)
def test_count_refuses_what_it_cannot_do(photos, density_folder, capsys, arguments, words):
    arguments = [argument.format(photos=photos) for argument in arguments]
    assert main(["count", str(photos / "a.png"), "--model", density_folder, *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_folder_without_images_is_refused(density_folder, tmp_path, capsys):
    assert main(["count", str(tmp_path), "--text", "cats", "--model", density_folder]) == 2
    assert "no images" in capsys.readouterr().err


def test_the_wrong_model_is_refused_with_a_hint(photos, density_folder, counting_folder, tmp_path, capsys):
    assert main(["evaluate", "density", "--model", counting_folder]) == 2
    error = capsys.readouterr().err
    assert "'count_clip'" in error
    assert "evaluate countbench" in error
    CLIPModel.from_pretrained(counting_folder).save_pretrained(tmp_path / "plain")
    assert main(["count", str(photos), "--text", "cats", "--model", str(tmp_path / "plain")]) == 2
    assert "type 'clip'; expected a density model" in capsys.readouterr().err
    assert main(["evaluate", "countbench", "--model", density_folder]) == 2
    assert "evaluate density" in capsys.readouterr().err
    assert main(["count", str(photos), "--text", "cats", "--model", str(tmp_path / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert main(["count", str(photos), "--text", "cats", "--model", str(tmp_path)]) == 2
    assert "cannot load the model" in capsys.readouterr().err


def test_broken_weights_end_the_work(photos, density_model, density_processor, tmp_path, capsys):
    density_model.text_projection.weight.data.fill_(float("nan"))
    density_model.save_pretrained(tmp_path / "nan")
    density_processor.save_pretrained(tmp_path / "nan")
    assert main(["count", str(photos), "--text", "cats", "--model", str(tmp_path / "nan")]) == 2
    assert "non-finite" in capsys.readouterr().err


def test_evaluate_countbench_on_countscenes(counting_folder, tmp_path, capsys):
    output, figure = tmp_path / "out" / "result.json", tmp_path / "confusion.png"
    arguments = ["evaluate", "countbench", "--model", counting_folder, "--limit", "18", "--json", str(output)]
    arguments += ["--objects", "shapes"]
    assert main([*arguments, "--figure", str(figure)]) == 0
    shown = capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written["n"] + len(written["skipped"]) == 18
    assert written["data"] == "countscenes"
    assert f"{written['accuracy']:.2%}" in shown
    assert f"{written['mean_deviation']:.3f}" in shown
    assert Image.open(figure).width > 400


def test_evaluate_countbench_on_a_saved_data_set_with_a_plain_clip(
    counting_folder, counting_processor, make_image, tmp_path, capsys
):
    plain = tmp_path / "plain"
    CLIPModel.from_pretrained(counting_folder).save_pretrained(plain)
    counting_processor.save_pretrained(plain)
    rows = [{"image": make_image(40, 40, i), "text": f"{word} cats"} for i, word in enumerate(["two", "no", "ten"])]
    datasets.Dataset.from_list(rows, features=_features()).save_to_disk(tmp_path / "data")
    output = tmp_path / "result.json"
    arguments = ["evaluate", "countbench", "--model", str(plain), "--data", str(tmp_path / "data")]
    assert main([*arguments, "--json", str(output)]) == 1
    captured = capsys.readouterr()
    assert "1 rows could not be measured" in captured.err
    assert "no number" in captured.err
    assert json.loads(output.read_text())["n"] == 2


def _features(**more):
    return datasets.Features({"image": datasets.Image(), "text": datasets.Value("string"), **more})


def test_evaluate_density_on_countscenes(density_folder, tmp_path, capsys):
    output, overlays = tmp_path / "result.json", tmp_path / "overlays"
    arguments = ["evaluate", "density", "--model", density_folder, "--limit", "4", "--json", str(output)]
    arguments += ["--objects", "shapes"]
    assert main([*arguments, "--overlay", str(overlays)]) == 0
    shown = capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written["n"] == 4
    assert f"{written['mae']:.2f}" in shown
    assert "training mean" in shown
    assert written["baseline_mae"] > 0
    assert len(list(overlays.iterdir())) == 4


def test_evaluate_density_on_files_beside_a_json_file(density_folder, make_image, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for index in range(3):
        make_image(50, 60, index).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "images" / "2.png").write_bytes(b"junk")
    records = [{"file_name": f"images/{index}.png", "text": "cats", "count": 4 * index} for index in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    output = tmp_path / "result.json"
    arguments = ["evaluate", "density", "--model", density_folder, "--data", str(tmp_path / "rows.jsonl")]
    assert main([*arguments, "--json", str(output)]) == 1
    captured = capsys.readouterr()
    written = json.loads(output.read_text())
    assert [row["count"] for row in written["predictions"]] == [0, 4]
    assert written["baseline_mae"] is None
    assert "training mean" not in captured.out
    assert "2.png cannot be read" in captured.err


def test_evaluate_density_takes_the_baseline_from_the_training_part(density_folder, make_image, tmp_path, capsys):
    features = _features(count=datasets.Value("int32"))

    def part(counts):
        rows = [{"image": make_image(48, 48, count), "text": "cats", "count": count} for count in counts]
        return datasets.Dataset.from_list(rows, features=features)

    data = tmp_path / "data"
    datasets.DatasetDict({"train": part([2, 4]), "test": part([3, 8])}).save_to_disk(data)
    output = tmp_path / "result.json"
    arguments = ["evaluate", "density", "--model", density_folder, "--data", str(data), "--json", str(output)]
    assert main(arguments) == 0
    assert json.loads(output.read_text())["baseline_mae"] == pytest.approx((0 + 5) / 2)
    assert main([*arguments, "--train-split", "other"]) == 0
    assert "no baseline" in capsys.readouterr().err
    assert main([*arguments, "--split", "other"]) == 2
    assert "no split 'other'" in capsys.readouterr().err


def test_evaluation_data_that_does_not_do_is_refused(density_folder, tmp_path, capsys):
    def error(*arguments):
        assert main(["evaluate", "density", "--model", density_folder, *arguments]) == 2
        return capsys.readouterr().err

    assert "no data set" in error("--data", str(tmp_path / "gone"))
    (tmp_path / "data.txt").write_text("")
    assert "is not a data set" in error("--data", str(tmp_path / "data.txt"))
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "words": "cats"}\n')
    assert "lacks the column text and count; it has image, words" in error("--data", str(tmp_path / "rows.jsonl"))
    assert "lacks the column count" in error("--config", "captions")
    assert "captions, density, mixed" in error("--config", "nope")
    assert "cannot write" in error("--json", str(tmp_path))
    (tmp_path / "bad.jsonl").write_text("{nonsense")
    assert "cannot be loaded" in error("--data", str(tmp_path / "bad.jsonl"))


def test_old_result_stays_until_the_new_one_is_complete(density_folder, tmp_path, capsys):
    output = tmp_path / "result.json"
    output.write_text("the old one")
    arguments = ["evaluate", "density", "--model", str(tmp_path / "nowhere"), "--limit", "1", "--json", str(output)]
    assert main(arguments) == 2
    assert output.read_text() == "the old one"


def test_data_sheet_draws_countscenes(tmp_path, capsys):
    for config in ("captions", "density"):
        sheet = tmp_path / "new" / f"{config}.png"
        options = ["--objects", "shapes", "--config", config, "--num", "5", "--columns", "3", "--points"]
        assert main(["data", "sheet", str(sheet), *options]) == 0
        assert np.ptp(np.asarray(Image.open(sheet))) > 100
        assert Image.open(sheet).width > 3 * 120
    assert main(["data", "sheet", str(tmp_path / "sheet.nope")]) == 2
    assert "is no image format" in capsys.readouterr().err


def test_demo_gets_its_arguments(monkeypatch, tmp_path):
    seen = []

    def run_demo(output, changes, fresh, released):
        seen.append((output, changes, fresh, released.name))

    monkeypatch.setattr("count_clip.demo.run_demo", run_demo)
    assert main(["demo", "--output", str(tmp_path), "--fresh", "--set", "density.max_steps=3"]) == 0
    assert seen == [(tmp_path, {"density": ["--max_steps", "3"], "counting": []}, True, "model_cards")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "count"),
        (["count"], "--overlay"),
        (["evaluate"], "countbench"),
        (["evaluate", "countbench"], "--figure"),
        (["evaluate", "density"], "--train-split"),
        (["evaluate", "classification"], "--template"),
        (["evaluate", "linear-probe"], "--max-iter"),
        (["evaluate", "few-shot"], "--shots"),
        (["data"], "sheet"),
        (["data", "sheet"], "--columns"),
        (["info"], "--revision"),
        (["demo"], "STAGE.KEY=VALUE"),
        (["convert"], "clip-count"),
        (["convert", "clip-count"], "--tokenizer"),
    ],
)
def test_every_command_has_help(arguments, words, capsys):
    assert main([*arguments, "--help"]) == 0
    assert words in capsys.readouterr().out


def _parsers(parser):
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from _parsers(one)


def test_examples_in_the_help_are_understood():
    texts = [(one.epilog or "").replace("\\\n", " ") for one in _parsers(build_parser())]
    found = [line for text in texts for line in text.splitlines() if line.startswith("  count-clip ")]
    assert len(found) >= 5
    for line in found:
        options = build_parser().parse_args(shlex.split(line)[1:])
        assert callable(options.run), line


def test_help_keeps_lines_and_examples_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    main(["count", "--help"])
    shown = capsys.readouterr().out.splitlines()
    assert "  count-clip count photos/ --text 'red apples' --model org/clip-count" in shown
    assert "  130  interrupted" in shown
    prose = [line for line in shown if not line.startswith("  count-clip")]
    assert max(map(len, prose)) <= 60


def test_no_command_and_unknown_commands_are_usage_errors(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "evaluate" in captured.err
    assert main(["cuont"]) == 2
    assert "cuont" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["count", "--help"], ["cuont"], ["count"]])
def test_help_version_and_usage_errors_import_nothing_but_the_standard_library(arguments, tmp_path):
    (tmp_path / "folder").mkdir()
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['count-clip', *{arguments!r}]\n"
        "before = set(sys.modules)\n"
        "try:\n"
        "    runpy.run_module('count_clip', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n"
        "    print('\\nexit code', stop.code)\n"
        "libraries = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(libraries - sys.stdlib_module_names))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "folder", check=True, timeout=20
    )
    code_line, libraries = finished.stdout.splitlines()[-2:]
    assert libraries == "['count_clip']"
    assert code_line == f"exit code {0 if arguments[-1].startswith('--') else 2}"


def test_python_dash_m_runs_the_command_line():
    finished = subprocess.run(
        [sys.executable, "-m", "count_clip", "--version"], check=True, timeout=20, capture_output=True, text=True
    )
    assert finished.stdout.startswith("count-clip ")


@pytest.mark.parametrize(
    ("line", "ends"),
    [
        ("count-clip ev", ["evaluate "]),
        ("count-clip evaluate d", ["density "]),
        ("count-clip count --mod", ["--model "]),
        ("count-clip count --text cats --dtype b", ["bfloat16 "]),
        ("count-clip count pho", ["photos/"]),
        ("count-clip count photos/", ["photos/a.png", "photos/more/", "photos/notes.txt"]),
        ("count-clip count photos/a.png --model ", ["photos/"]),
    ],
)
def test_the_shell_completes_commands_options_and_file_names(line, ends, photos, tmp_path):
    pytest.importorskip("argcomplete", reason="completion needs argcomplete: pip install count-clip[completion]")
    answer = tmp_path.parent / f"{tmp_path.name}-answer"  # elsewhere: the folder itself is completed
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_TYPE": "9",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:",
    }
    command = [sys.executable, "-m", "count_clip"]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20)
    assert finished.returncode == 0, finished.stderr
    assert sorted(answer.read_text().split("\n")) == ends


def test_scripts_tell_argcomplete_that_they_may_be_called():
    for module in ("count_clip.cli", "count_clip.__main__"):
        path = importlib.util.find_spec(module).origin
        assert "PYTHON_ARGCOMPLETE_OK" in Path(path).read_text(encoding="utf-8")[:1024]


def test_interruption_and_memory_have_their_own_ends(monkeypatch, capsys):
    def fail_with(error):
        def run(_options):
            raise error

        monkeypatch.setattr(data.sheet, "_data_sheet", run)
        return main(["data", "sheet", "x.png"])

    class OutOfMemoryError(RuntimeError):
        pass

    assert fail_with(KeyboardInterrupt()) == 130
    assert fail_with(OutOfMemoryError("CUDA out of memory")) == 2
    assert "--batch-size" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="another"):
        fail_with(RuntimeError("another"))


def test_a_fault_is_no_bad_file_and_neither_is_a_reader_that_leaves(tmp_path):
    code = "import count_clip.cli as cli\nfrom count_clip.commands import data\n"
    code += "def fail(options):\n    raise {}\ndata.sheet._data_sheet = fail\nraise SystemExit(cli.run())"
    for error, code_of_exit in (("RuntimeError('another')", 3), ("BrokenPipeError()", 141)):
        command = [sys.executable, "-c", code.format(error), "data", "sheet", "x.png"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == code_of_exit, ended.stderr
        assert ("RuntimeError: another" in ended.stderr) == (code_of_exit == 3)


def test_a_table_survives_a_run_that_cannot_start(photos, density_folder, tmp_path, capsys):
    table = tmp_path / "counts.csv"
    table.write_text("earlier")
    arguments = ["count", str(photos), "--text", "cats", "--model", str(tmp_path / "nowhere"), "--csv", str(table)]
    assert main(arguments) == 2
    assert table.read_text() == "earlier"
    arguments = ["count", str(photos), "--text", "x" * 80, "--model", density_folder, "--csv", str(table)]
    assert main(arguments) == 2
    assert table.read_text() == "earlier"
