"""The card of a checkpoint: its generated parts are brought up to date, and what people wrote stays."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from PIL import Image

from count_clip.trainers.counting.config import CountingConfig
from count_clip.trainers.hub.card import (
    CardError,
    Figure,
    TrainingRecord,
    checkpoint_type,
    figures_from_file,
    write_model_card,
)
from count_clip.trainers.hub.training import training_record, write_loss_curve
from count_clip.trainers.running.arguments import RunArguments
from count_clip.trainers.running.card import data_name, figures_of_run


FIGURES = [
    Figure("mae", 3.25, "fsc147", "count-clip evaluate density", split="test", interval=(3.0, 3.5), note="9 rows"),
    Figure("rmse", 12.5, "fsc147", "count-clip evaluate density", split="test"),
    Figure("mae", float("nan"), "carpk", "count-clip evaluate density --data carpk"),
]


@pytest.fixture
def folder(density_model, density_processor, tmp_path: Path) -> Path:
    density_model.save_pretrained(tmp_path / "model")
    density_processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_new_card_describes_the_model(folder: Path, density_model) -> None:
    card = ModelCard.load(write_model_card(folder, "org/counter"))
    assert card.text.strip().startswith("# counter\n")
    parameters = sum(tensor.numel() for tensor in density_model.state_dict().values())
    for row in (
        f"| parameters | {parameters:,} in float32 |",
        "| windows | 48 x 48 pixels of an image of any size |",
        "| images | 32 x 32 pixels, patches of 8 |",
        "| vision tower | 3 layers of 40 |",
        "| text tower | 2 layers of 24, 40 tokens |",
        "| prompts | 5 visual in each of 2 layers, 2 in the text |",
    ):
        assert row in card.text
    assert "No measurement of this checkpoint" in card.text
    assert "is not recorded" in card.text
    assert card.data.eval_results is None
    blocks = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "card", "exec")
        assert '"org/counter"' in block


def test_figures_go_into_text_and_metadata(folder: Path) -> None:
    card = ModelCard.load(write_model_card(folder, "org/counter", figures=FIGURES))
    assert "| fsc147 test | mae | 3.25 | 3 to 3.5 | 9 rows |" in card.text
    assert card.text.count("count-clip evaluate density\n") == 1, "one command for both"
    index = card.data.to_dict()["model-index"]
    assert index[0]["name"] == "counter"
    (result,) = index[0]["results"]
    assert result["task"]["type"] == "object-counting"
    assert result["dataset"] == {"name": "fsc147 test", "type": "fsc147", "split": "test"}
    assert [(one["type"], one["value"]) for one in result["metrics"]] == [("mae", 3.25), ("rmse", 12.5)]


def test_arguments_of_none_change_nothing(folder: Path) -> None:
    training = TrainingRecord("accelerate launch run.py x", {"seed": 3}, {"steps": 7, "odd": "a|b"})
    first = write_model_card(
        folder, license="mit", base_model="org/base", datasets=["a", "a"], figures=FIGURES, training=training
    )
    written = first.read_text()
    assert "| seed | 3 |" in written
    assert "| odd | a\\|b |" in written
    assert write_model_card(folder).read_text() == written
    again = ModelCard.load(write_model_card(folder, "org/other"))
    assert (again.data.license, again.data.base_model, again.data.datasets) == ("mit", "org/base", ["a"])
    assert len(again.data.eval_results) == 2
    assert '"org/other"' in again.text
    assert "ORG/NAME" not in again.text
    assert "| seed | 3 |" in again.text
    assert ModelCard.load(write_model_card(folder, figures=[])).data.eval_results is None


def test_hand_written_text_stays_where_it_is(folder: Path) -> None:
    path = folder / "README.md"
    path.write_text("---\nlicense: mit\nmine: 7\n---\n# Mine\n\nDogs only.\n")
    write_model_card(folder, "org/x")
    text = path.read_text()
    assert text.index("Dogs only.") < text.index("<!-- count-clip: model -->") < text.index("## Use")
    assert "mine: 7" in text
    # Moved about, one section taken out, words between: all of it stays.
    text = re.sub(r"\n## Training.*", "\n## Limits\n\nNot cats.\n", text, flags=re.DOTALL)
    path.write_text(text.replace("## Figures", "## My figures\n\nSee below."))
    write_model_card(folder, "org/x", figures=FIGURES, training=TrainingRecord("x"))
    text = path.read_text()
    assert "## My figures\n\nSee below." in text
    assert "| fsc147 test | rmse | 12.5 |" in text
    assert text.rstrip().endswith("Not cats.")
    assert "count-clip: training" not in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# x\n\nThis card has been generated automatically according to the information the Trainer had access to.",
        "# Model Card\n\n[More Information Needed]\n",
    ],
)
def test_generated_cards_are_replaced(text: str, folder: Path) -> None:
    (folder / "README.md").write_text(text)
    written = write_model_card(folder, "org/mine").read_text()
    assert "# mine\n" in written
    assert not text or text not in written


def test_wrong_folders_and_files(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CardError, match="neither a config.json"):
        checkpoint_type(tmp_path / "nothing")
    (folder / "README.md").write_text("---\n- a\n- b\n---\n# x\n")
    with pytest.raises(CardError, match=r"README.md cannot be read"):
        write_model_card(folder)
    for content in ("[]", "{", '{"run": 3, "metrics": {}}'):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(CardError, match=r"results\.json"):
            figures_from_file(tmp_path / "results.json")


def test_figures_from_a_file_of_results(tmp_path: Path) -> None:
    run = {"command": "count-clip evaluate x", "data": {"name": "/home/somebody/cells", "split": "test"}}
    run["data"] |= {"rows": 9, "total": 20}
    content = {
        "run": run,
        "metrics": {"mae": 1.5, "rmse": None},
        "intervals": {"mae": [1, 2], "rmse": None},
        "partial": True,
    }
    content |= {"benchmark": "density", "missing": 1}
    (tmp_path / "results.json").write_text(json.dumps(content))
    (figure,) = figures_from_file(tmp_path / "results.json")
    part = "8 of 20 rows"
    command = "count-clip evaluate x"
    wanted = Figure("mae", 1.5, "cells", command, None, "test", None, (1.0, 2.0), part, "density", part)
    assert figure == wanted


def test_the_index_has_the_model_s_own_figures_under_their_benchmarks(folder: Path) -> None:
    figures = [
        Figure("named_mae", 1.5, "scenes", "x", "mixed", "test", None, (1.0, 2.0), "", "praco"),
        Figure("mae", 2.5, "scenes", "y", "mixed", "test", benchmark="density", part="8 of 20 rows"),
        Figure("baseline_mae", 9.5, "scenes", "y", "mixed", "test", benchmark="density"),
    ]
    path = write_model_card(folder, "org/counter", figures=figures)
    card = ModelCard.load(path)
    assert "| scenes mixed test | baseline_mae | 9.5 |" in card.text
    index = metadata_load(path)["model-index"][0]["results"]
    found = [(one["task"]["name"], one["dataset"]["name"]) for one in index]
    assert found == [
        ("Whether the count follows the prompt", "scenes mixed test"),
        ("Counting what is named in words", "scenes mixed test (8 of 20 rows)"),
    ]
    metrics = [(one.metric_type, one.metric_value, one.metric_args) for one in card.data.eval_results]
    assert metrics == [("mae", 1.5, {"interval_95": [1.0, 2.0]}), ("mae", 2.5, None)]


def test_a_card_has_the_name_of_its_repository(folder: Path) -> None:
    write_model_card(folder, "ORG/counter", base_model="ORG/base", figures=FIGURES)
    path = folder / "README.md"
    path.write_text(path.read_text() + "\nAfter [base](https://huggingface.co/ORG/base).\n")
    card = ModelCard.load(write_model_card(folder, "cats/counts-cats"))
    assert card.data.base_model == "cats/base"
    assert card.data.model_name == "counts-cats"
    assert card.text.startswith("\n# counts-cats\n")
    assert "After [base](https://huggingface.co/cats/base)." in card.text


def test_figures_of_a_run_name_their_data() -> None:
    run = RunArguments(
        "density",
        dataset={"name": "voc", "path": "/somewhere/cells", "split": "train"},
        eval_dataset={},
        test_dataset={"name": "countscenes", "config": "mixed", "objects": "shapes", "split": "hard"},
    )
    measured = {"num_rows": 5, "mae": 1.0, "rmse": 2.0, "mean_mae": 3.0, "mean_rmse": 4.0}
    figures = figures_of_run(run, {"after": {"eval": measured, "test": measured}}, "x")
    assert [(one.metric, one.dataset, one.config, one.split) for one in figures] == [
        ("mae", "cells", None, "validation"),
        ("rmse", "cells", None, "validation"),
        ("mae", "countscenes", "mixed-shapes", "hard"),
        ("rmse", "countscenes", "mixed-shapes", "hard"),
    ]
    assert figures[0].note == "5 rows, always the mean: 3"
    assert data_name({"name": "org/set"}) == "org/set"


def test_arguments_in_the_training_record(tmp_path: Path) -> None:
    args = CountingConfig(
        output_dir=str(tmp_path), learning_rate=1e-3, seed=3, hub_token="hf_x", use_cpu=True, save_steps=7
    )
    record = training_record(args, "x", {"steps": 2})
    assert record.arguments == {"learning_rate": 1e-3, "seed": 3}
    assert record.facts["steps"] == 2
    assert record.facts["device"] == "CPU"
    assert "torch " in record.facts["versions"]


HISTORIES = {
    "few": [{"loss": 2.0, "step": 1}, {"loss": float("nan"), "step": 2}, {"eval_loss": 1.5, "step": 4}],
    "zero": [{"loss": 0.0, "step": 1}, {"loss": 0.0, "step": 10}],
    "far apart": [{"loss": 1e-6, "step": 1}, {"loss": 1e6, "step": 10**6}],
    "negative": [{"loss": -3.0, "step": 1}, {"loss": 4.0, "step": 2}],
    "many": [{f"part_{i}_loss": step + i for i in range(9)} | {"step": step} for step in range(50)],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_losses_are_drawn(history: list, tmp_path: Path) -> None:
    path = write_loss_curve(tmp_path, history)
    assert path == tmp_path / "training_loss.png"
    with Image.open(path) as image:
        assert image.size == (960, 540)
        assert len(image.convert("RGB").getcolors(960 * 540)) > 10


def test_no_curve_without_two_losses(tmp_path: Path) -> None:
    assert write_loss_curve(tmp_path, [{"loss": 1.0, "step": 1}, {"train_loss": 9.0, "step": 4}]) is None
