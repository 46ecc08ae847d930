import json

import pytest
from PIL import Image

from count_clip.cli import main


@pytest.fixture
def run(counting_folder, capsys):
    def explain(*options, model=counting_folder):
        code = main(["explain", "--model", model, *map(str, options)])
        return code, *capsys.readouterr()

    return explain


@pytest.fixture
def dogs(make_image, tmp_path):
    path = tmp_path / "dogs.png"
    make_image(60, 48).save(path)
    return path


def test_draws_the_map_and_prints_the_words(run, dogs, counting_folder, tmp_path):
    code, printed, remarks = run(dogs, "--text", "a photo of two dogs", "--output", tmp_path / "new" / "why.png")
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].startswith(f"{counting_folder}: score ")
    assert [line.split()[0] for line in lines[2:]] == ["a", "photo", "of", "two", "dogs"]
    assert sum(float(line.split()[1].rstrip("%")) for line in lines[2:]) == pytest.approx(100, abs=0.5)
    assert "why.png" in remarks
    with Image.open(tmp_path / "new" / "why.png") as figure:
        assert figure.width == 60 * 7
        assert figure.height > 48 * 7


def test_json_and_a_second_model(run, dogs, counting_folder, tmp_path):
    options = (dogs, "--text", "two dogs", "--output", tmp_path / "why.png", "--compare", counting_folder)
    code, printed, _ = run(*options, "--json", "--score", "margin", "--start-layer", "-1")
    assert code == 0
    record = json.loads(printed)
    assert (record["explained"], record["start_layer"]) == ("margin", -1)
    (model,) = {one["model"] for one in record["models"]}
    assert model == counting_folder
    assert len(record["models"][0]["patch_shares"]) == 4
    with Image.open(tmp_path / "why.png") as figure:
        assert figure.width > 2 * 60 * 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "x" * 50, "--output", "why.png"], "52 tokens with those for its beginning and end"),
        (["--text", " ", "--output", "why.png"], "the text is empty"),
        (["--text", "dogs", "--output", "why.png", "--score", "margin"], "states no number from two to ten"),
        (["--text", "dogs", "--output", "why.png", "--start-layer", "5"], "`start_layer` from 0 to"),
        (["--text", "dogs", "--output", "why.txt"], "is no image format"),
        (["--text", "dogs", "--output", "why.png", "--compare", "gone/"], "gone/"),
    ],
)
def test_bad_input_ends_with_a_message(run, dogs, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, printed, remarks = run(dogs, *options)
    assert (code, printed) == (2, "")
    assert message in remarks
    assert not (tmp_path / "why.png").exists()


def test_a_missing_image_and_a_density_model_are_refused(run, dogs, density_folder, tmp_path):
    code, _, remarks = run("gone.png", "--text", "dogs", "--output", tmp_path / "why.png")
    assert (code, "There is no file gone.png" in remarks) == (2, True)
    code, _, remarks = run(dogs, "--text", "dogs", "--output", tmp_path / "why.png", model=density_folder)
    assert (code, "expected a CLIP" in remarks) == (2, True)
