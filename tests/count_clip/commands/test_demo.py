"""The demonstration: two stages, a table, images, checkpoints and cards; and it goes on where it was stopped."""

import json

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu
from transformers import AutoModel, AutoProcessor

from count_clip import demo
from count_clip.cli import main


SMALL = [
    "counting.max_steps=2",
    "counting.dataset.num_scenes=64",
    "counting.test_dataset.num_scenes=18",
    "counting.per_device_train_batch_size=4",
    "density.max_steps=2",
    "density.dataset.num_scenes=64",
    "density.test_dataset.num_scenes=4",
    "density.per_device_train_batch_size=4",
]
ARGUMENTS = [
    token
    for setting in SMALL + [f"{stage}.dataloader_num_workers=0" for stage in demo.STAGES]
    for token in ("--set", setting)
]


def test_demo_trains_counts_and_writes_everything_and_a_second_run_trains_nothing(tmp_path, capsys, monkeypatch):
    output = tmp_path / "demo"
    assert main(["demo", "--output", str(output), *ARGUMENTS]) == 0
    printed = capsys.readouterr().out
    for line in ("CountBench accuracy", "mean deviation", "MAE", "RMSE", "coins"):
        assert line in printed

    results = {
        stage: json.loads((output / "runs" / title / "results.json").read_text())
        for stage, title in demo.TITLES.items()
    }
    assert f"{results['density']['after']['test']['mae']:.2f}" in printed
    assert f"{100 * results['counting']['after']['test']['accuracy']:.1f} %" in printed
    for title, model_type in (("clip-count", "clip_count_density"), ("count-clip", "count_clip")):
        assert AutoModel.from_pretrained(output / title).config.model_type == model_type
        AutoProcessor.from_pretrained(output / title)
        card = ModelCard.load(output / title / "README.md")
        assert card.data.eval_results[0].dataset_type == "countscenes"
        assert "CountBench accuracy" in card.text
    names = {path.stem for path in (output / "images").iterdir()}
    scenes = {
        f"{row}-{i}{text}" for row in ("mixed", "described", "shapes", "new") for i in (1, 2, 3) for text in "abc"
    }
    assert names == {"all", "coins", "plain-4", "plain-7", "plain-10"} | scenes
    with Image.open(output / "images" / "coins.png") as coins:
        assert coins.size == (384, 303)

    def train(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr("count_clip.trainers.run.train", train)
    assert main(["demo", "--output", str(output), *ARGUMENTS]) == 0
    assert "Finished by an earlier run" in capsys.readouterr().out
    # Another configuration of a stage is another run.
    with pytest.raises(AssertionError, match="trained again"):
        main(["demo", "--output", str(output), *ARGUMENTS, "--set", "density.seed=5"])


@pytest.mark.parametrize("setting", ["density.max_steps", "eval.max_steps=3", "density=3", "density.max_step=3"])
def test_settings_that_name_no_stage_or_value_are_refused(setting, capsys):
    assert main(["demo", "--set", setting]) == 2
    assert setting.split("=")[0].removeprefix("density.") in capsys.readouterr().err


def test_missing_checkpoints_are_reported_before_training(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "demo"), "--checkpoints", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert str(tmp_path / "count-clip-tiny-base") in printed
    assert "--checkpoints" in printed
    assert not (tmp_path / "demo").exists()


def test_other_folders_are_kept(tmp_path, capsys):
    mine = tmp_path / "runs" / "count-clip" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    for arguments in ([], ["--fresh"]):
        assert main(["demo", "--output", str(tmp_path), *ARGUMENTS, *arguments]) == 2
        assert str(mine.parent) in capsys.readouterr().err
        assert mine.read_text() == "precious"


def test_coins_are_twenty_four():
    (coins,) = demo.coins()
    # Bright blobs of a coin's size on the darker ground.
    pixels = ndimage.gaussian_filter(np.asarray(coins.image.convert("L"), dtype=float), 2)
    pixels -= ndimage.gaussian_filter(pixels, 40)
    labels, _ = ndimage.label(ndimage.binary_opening(pixels > threshold_otsu(pixels), iterations=4))
    assert coins.true_count == sum(np.bincount(labels.ravel())[1:] > 150)
