"""The ablation: four arms, a table with seeds and spread, images; and it goes on where it was stopped."""

import json
import statistics

import pytest
import yaml
from PIL import Image

from count_clip import ablation
from count_clip.ablation import Arm, arm_run, base_run, order_holds, read_config, report
from count_clip.cli import main
from count_clip.trainers.running.arguments import parse_run
from count_clip.trainers.running.data import load_splits


QUICK = ["--quick", "--seeds", "2"]


@pytest.fixture
def never_trains(monkeypatch):
    def train(*_):
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr("count_clip.trainers.run.train", train)


def test_ablation_trains_measures_and_writes_and_a_second_run_trains_nothing(tmp_path, capsys, never_trains):
    output = tmp_path / "ablation"
    assert main(["ablation", "--output", str(output), *QUICK]) == 0
    printed = capsys.readouterr().out
    result = json.loads((output / "ablation.json").read_text())
    arms = {arm["name"]: arm for arm in result["arms"]}
    assert {name: len(arm["accuracy"]) for name, arm in arms.items()} == {"A": 1, "B": 2, "C": 2, "D": 2}
    for name, arm in arms.items():
        assert sum(map(sum, arm["confusion"])) == 18 * len(arm["accuracy"])
        right = sum(arm["confusion"][place][place] for place in range(9))
        assert statistics.fmean(arm["accuracy"]) == pytest.approx(right / 18 / len(arm["accuracy"]))
        assert all(0 <= share <= 1 for key in ("accuracy", "off_by_one", "zero_shot") for share in arm[key])
        with Image.open(output / f"confusion_{name}.png") as image:
            assert min(image.size) > 300
    table = (output / "ablation.md").read_text()
    assert table.strip() in printed
    assert "The order of the paper's table" in table
    mean, spread = (f(arms["D"]["accuracy"]) for f in (statistics.fmean, statistics.stdev))
    assert f"{100 * mean:.1f} ± {100 * spread:.1f} %" in table
    trainings = {
        name: yaml.safe_load((output / "runs" / f"{name}.yaml").read_text()) for name in ("B-1", "C-1", "D-1")
    }
    assert trainings["B-1"]["dataset"] == trainings["D-1"]["dataset"] != trainings["C-1"]["dataset"]

    # Killed before the table was written, with one training and one measurement missing: the others stay.
    never_trains()
    (output / "ablation.json").unlink()
    (output / "runs" / "D-1" / "measured.json").unlink()
    assert main(["ablation", "--output", str(output), *QUICK]) == 0
    again = json.loads((output / "ablation.json").read_text())
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    (output / "runs" / "C-0" / "results.json").unlink()
    with pytest.raises(AssertionError, match="trained again"):
        main(["ablation", "--output", str(output), *QUICK])


def test_changed_base_invalidates_its_arms(tmp_path, monkeypatch):
    trained = []

    def run_stage(folder, config, overrides, parent=""):
        trained.append((folder.name, parent))
        return {"seconds": 1.0}

    monkeypatch.setattr(ablation, "run_stage", run_stage)
    monkeypatch.setattr(ablation, "stage_key", lambda folder: f"key of {folder.name}")
    figures = {"accuracy": 0.5, "mean_deviation": 1.0, "off_by_one": 0.7, "zero_shot": 0.3, "confusion": [[1] * 9] * 9}
    figures |= {"accuracy_interval_95": [0.4, 0.6], "num_names": 5}
    monkeypatch.setattr(ablation, "measure", lambda *_: figures)
    ablation.run_ablation(tmp_path, read_config(quick=True), [3])
    assert trained == [("A", ""), ("B-3", "key of A"), ("C-3", "key of A"), ("D-3", "key of A")]


def test_given_base_is_measured_and_fine_tuned(tmp_path, counting_folder, capsys):
    output = tmp_path / "ablation"
    settings = ["--set", "scenes.image_size=48", "--set", "arms.max_steps=1"]
    assert (
        main(["ablation", "--output", str(output), "--quick", "--seeds", "1", "--base", counting_folder, *settings])
        == 0
    )
    result = json.loads((output / "ablation.json").read_text())
    assert result["base"] == counting_folder
    assert result["arms"][0]["seconds"] == []
    assert not (output / "runs" / "A").exists()
    assert yaml.safe_load((output / "runs" / "D-0.yaml").read_text())["model_name_or_path"] == counting_folder


def test_arms_differ_in_filter_and_loss_only():
    config = read_config()
    runs = {name: arm_run(name, 4, "base", config) for name in "BCD"}
    assert {name: run.pop("counting_loss") for name, run in runs.items()} == {"B": False, "C": True, "D": True}
    filters = {}
    for name, run in runs.items():
        counting, general = run["dataset"]["parts"]
        filters[name] = counting.pop("counting_filter"), counting.pop("num_scenes")
        assert general["general"] is True
        assert (counting["number_rate"], general["number_rate"]) == (1.0, config["number_rate"])
    assert [filters[name][0] for name in "BCD"] == ["full", "naive", "full"]
    assert filters["B"][1] == filters["D"][1] > filters["C"][1]
    assert runs["B"] == runs["C"] == runs["D"]


@pytest.mark.parametrize("name", ["B", "C", "D"])
def test_rows_of_an_arm_are_unique_and_have_the_counting_fraction(tmp_path, name):
    config = read_config(settings=["arms.max_steps=4", "arms.per_device_train_batch_size=20"])
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**arm_run(name, 0, "base", config), "output_dir": str(tmp_path)}))
    rows = load_splits(parse_run(str(file), [])[0])["dataset"]
    is_general = [flag is False for flag in rows.column("is_counting")]
    counting = rows.select(index for index, flag in enumerate(is_general) if not flag)
    general = rows.select(index for index, flag in enumerate(is_general) if flag)
    assert len(general) == 40
    assert len(counting) == pytest.approx(40, abs=0 if name == "C" else 14)
    assert len(set(rows.column("image_id"))) == len(rows)
    agree = [a == b for a, b in zip(*(counting.column(x) for x in ("number", "true_number")), strict=True)]
    assert all(agree) if name != "C" else 0.2 < sum(agree) / len(agree) < 0.75


def test_base_is_trained_on_captions_that_seldom_state_a_number():
    run = base_run(read_config())
    assert (run["counting_loss"], run["dataset"]["number_rate"]) == (False, 0.1)
    assert run["scratch"]["vision"]["image_size"] == run["dataset"]["image_size"]
    assert run["dataset"]["num_scenes"] == run["max_steps"] * run["per_device_train_batch_size"]


def _arms(*accuracies: list[float]) -> list[Arm]:
    figures = {"mean_deviation": [1.0], "off_by_one": [0.5], "zero_shot": [0.5], "confusion": [[1] * 9] * 9}
    return [Arm(name, "x", accuracy=list(x), **figures) for name, x in zip("ABCD", accuracies, strict=True)]


def test_report_states_whether_the_order_of_the_paper_holds():
    config = read_config()
    right = _arms([0.1], [0.2, 0.22], [0.3, 0.4], [0.38, 0.48])
    assert order_holds(right)
    text = report(right, config)
    assert "holds: A to B +11.0 points, B to C +14.0 points, C to D +8.0 points (within one" in text
    wrong = _arms([0.1], [0.3], [0.2], [0.4])
    assert not order_holds(wrong)
    assert "does not hold: A to B +20.0 points, B to C -10.0 points" in report(wrong, config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "arm.max_steps=3"], "one of the parts scenes, number_rate"),
        (["--set", "arms.max_step=3"], "`max_step` in `arms`. Did you mean `max_steps`"),
        (["--set", "arms.max_steps=many"], "`max_steps` in `arms`: invalid int value: 'many'"),
        (["--set", "arms.counting_fraction=0"], "`arms.counting_fraction` to be above 0"),
        (["--set", "noise.wrong_number_rate=2"], "wrong_number_rate to be a share from 0 to 1"),
        (["--set", "noise.rate=0.1"], "Unknown key `rate` in `noise`"),
        (["--set", "evaluation.scenes=9"], "Unknown key `scenes` in `evaluation`"),
        (["--set", "scenes.image_sise=64"], "`image_sise`"),
        (["--config", "nowhere.yaml"], "There is no file nowhere.yaml"),
        (["--base", "./nowhere"], "there is no folder './nowhere'"),
    ],
)
def test_invalid_options_are_rejected_before_training(tmp_path, capsys, never_trains, arguments, message):
    never_trains()
    assert main(["ablation", "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_file_without_a_part_is_refused(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("scenes: {image_size: 64}\n")
    assert main(["ablation", "--output", str(tmp_path / "out"), "--config", str(file)]) == 2
    assert "number_rate, noise, base, arms, evaluation is missing" in capsys.readouterr().err


def test_other_folders_are_kept(tmp_path, capsys):
    mine = tmp_path / "runs" / "A" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    for arguments in ([], ["--fresh"]):
        assert main(["ablation", "--output", str(tmp_path), *QUICK, *arguments]) == 2
        assert str(mine.parent) in capsys.readouterr().err
        assert mine.read_text() == "precious"
