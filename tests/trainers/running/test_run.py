import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor
from count_clip.modeling.processing_count_clip import CountCLIPProcessor
from count_clip.trainers.run import counting_figures, main, summary
from count_clip.trainers.running.arguments import parse_run
from count_clip.trainers.running.data import load_splits


REPOSITORY = Path(__file__).parents[3]
TOWERS = {
    "vocab_size": 560,
    "projection_dim": 32,
    "vision": {
        "patch_size": 8,
        "image_size": 48,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "text": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
    },
}
COUNTING = {
    "task": "counting",
    "scratch": TOWERS,
    "dataset": {"name": "countscenes", "objects": "shapes", "num_scenes": 24, "image_size": 48},
    "eval_dataset": {"num_scenes": 20},
    "test_dataset": {"config": "benchmark", "num_scenes": 18},
    "counting_fraction": 0.5,
    "max_steps": 4,
}
DENSITY = {
    "task": "density",
    "scratch": TOWERS,
    "model_config": {
        "window_size": 48,
        "num_norm_groups": 2,
        "num_visual_prompts": 2,
        "visual_prompt_depth": 2,
        "num_interaction_heads": 2,
    },
    "dataset": {"name": "countscenes", "objects": "shapes", "num_scenes": 12, "image_size": 96},
    "test_dataset": {"num_scenes": 6},
    "trainable": "all",
    "num_train_epochs": 2,
    "contrastive_epochs": 1,
}


@contextmanager
def attached(caplog):
    """Let pytest see what is logged here, which does not reach the root logger."""
    logger = logging.getLogger("count_clip")
    logger.addHandler(caplog.handler)
    try:
        yield
    finally:
        logger.removeHandler(caplog.handler)


@pytest.fixture
def write(tmp_path):
    def write(values: dict, **changes) -> str:
        common = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({**common, **values, **changes}))
        return str(path)

    return write


def test_counting_run_trains_evaluates_saves_and_reports(write, tmp_path, capsys):
    results = main([write(COUNTING), "--evaluate_first", "--num_counterfactuals", "2"])
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written == results
    assert results["num_rows"]["dataset"] == 24
    # Only half of these captions state a number; the protocol measures those.
    assert 0 < results["num_rows"]["eval_dataset"] < 20
    for when in ("before", "after"):
        assert results[when]["test"]["num_rows"] == 18
        assert 0 <= results[when]["test"]["accuracy"] <= 1
    assert results["train"]["train_loss"] > 0
    assert "after test: accuracy" in capsys.readouterr().out
    model = CLIPForCounting.from_pretrained(tmp_path / "out")
    processor = CountCLIPProcessor.from_pretrained(tmp_path / "out")
    inputs = processor(images=[Image.new("RGB", (60, 50))], text=["two dogs", "three dogs"])
    assert model(**inputs).logits_per_image.shape == (1, 2)


def test_density_run_trains_evaluates_saves_and_reports(write, tmp_path):
    results = main([write(DENSITY), "--test_dataset.seed", "3"])
    test = results["after"]["test"]
    assert test["num_rows"] == 6
    assert test["rmse"] >= test["mae"] > 0
    assert test["mean_rmse"] >= test["mean_mae"] > 0
    assert "before" not in results
    model = CLIPCountDensityModel.from_pretrained(tmp_path / "out")
    processor = CLIPCountDensityProcessor.from_pretrained(tmp_path / "out")
    outputs = model(**processor(images=[Image.new("RGB", (60, 50))], text="red apples"))
    assert torch.isfinite(outputs.counts).all()


def test_run_starts_from_the_model_of_another_run(write, tmp_path):
    main([write(COUNTING)])
    first = str(tmp_path / "out")
    second = write({**COUNTING, "scratch": None}, model_name_or_path=first, output_dir=str(tmp_path / "second"))
    main([second, "--model_config.counting_loss_weight", "0.25", "--max_steps", "1"])
    assert CLIPForCounting.from_pretrained(tmp_path / "second").config.counting_loss_weight == 0.25
    clip = {**DENSITY, "scratch": None, "trainable": "prompts", "output_dir": str(tmp_path / "third")}
    path = tmp_path / "out" / "processor_config.json"
    written = json.loads(path.read_text())
    written["image_processor"]["image_mean"] = [0.5, 0.25, 0.125]
    path.write_text(json.dumps(written))
    main([write(clip, clip_name_or_path=first)])
    processor = CLIPCountDensityProcessor.from_pretrained(tmp_path / "third")
    assert list(processor.image_processor.image_mean) == [0.5, 0.25, 0.125], "images are not prepared as the CLIP's"
    towers = [load_file(tmp_path / name / "model.safetensors") for name in ("out", "third")]
    assert torch.equal(*(tower["vision_model.embeddings.patch_embedding.weight"] for tower in towers))


def test_prompts_of_the_same_images_are_reported_apart_beside_their_own_means(write, tmp_path):
    folder = tmp_path / "points"
    (folder / "images").mkdir(parents=True)
    rows = {"train": [3, 5, 7], "val": [4, 4, 9, 1], "test": [2, 2, 2, 2]}
    for split, counts in rows.items():
        lines = []
        for i, count in enumerate(counts):
            name = f"{split}{i}.png"
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (50, 60, 3), dtype=np.uint8)).save(
                folder / "images" / name
            )
            points = [[float(x), 5.0] for x in range(count)]
            lines.append(json.dumps({"file_name": name, "width": 60, "height": 50, "points": points}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    spec = {"name": "points", "path": str(folder), "text": "dots"}
    results = main([write(DENSITY, dataset=spec, eval_dataset={"split": "val"}, test_dataset={"max_rows": 2})])
    assert results["num_rows"] == {"dataset": 3, "eval_dataset": 4, "test_dataset": 2}
    # Always five: off by one, one, four and four.
    assert results["after"]["eval"]["mean_mae"] == pytest.approx(2.5)
    assert results["after"]["test"]["mean_mae"] == pytest.approx(3.0)
    assert "by_prompt" not in results["after"]["test"]

    datasets.Dataset.from_list(_two_prompts(), features=_features()).save_to_disk(str(tmp_path / "both"))
    results = main([write(DENSITY, dataset=str(tmp_path / "both"), test_dataset={})])
    by_prompt = results["after"]["test"]["by_prompt"]
    assert set(by_prompt) == {"cats", "dogs"}
    assert by_prompt["cats"]["mean_mae"] == pytest.approx(1.0)
    assert by_prompt["dogs"]["mean_mae"] == pytest.approx(2.0)
    assert results["after"]["test"]["mean_mae"] == pytest.approx(1.5)
    assert results["after"]["test"]["mean_rmse"] == pytest.approx(2.5**0.5)
    assert "test, cats: mae" in summary(results)


def _features() -> datasets.Features:
    point = datasets.List(datasets.List(datasets.Value("float32")))
    return datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "count": datasets.Value("int64"),
            "points": point,
        }
    )


def _two_prompts() -> list[dict]:
    counts = [("cats", 1), ("dogs", 10), ("cats", 3), ("dogs", 14)]
    return [
        {"image": Image.new("RGB", (50, 50), (i, 0, 0)), "text": text, "count": n, "points": [[5.0, 5.0]] * n}
        for i, (text, n) in enumerate(counts)
    ]


def test_run_of_no_epochs_only_measures(write, tmp_path):
    results = main([write(DENSITY, num_train_epochs=0, contrastive_epochs=0)])
    assert "train" not in results
    assert results["after"]["test"]["mae"] > 0


def test_early_stopping_and_the_best_model(write):
    changes = {
        "num_train_epochs": 6,
        "learning_rate": 0.0,
        "eval_dataset": {"num_scenes": 4},
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "mae",
        "greater_is_better": False,
        "early_stopping_patience": 2,
    }
    results = main([write(DENSITY, **changes)])
    # The contrastive epoch does not train the density: the second epoch is the first to compare with, and two follow.
    assert results["train"]["epoch"] == 4


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"dataset": {"name": "points", "path": "/no/such/folder", "text": "x"}},
            FileNotFoundError,
            "no folder '/no/such/folder', which `dataset.path` names",
        ),
        ({"dataset": {"name": "/no/such/data"}}, FileNotFoundError, "no folder '/no/such/data', which `dataset.name`"),
        ({"dataset": {"name": "coco", "text": "x"}}, ValueError, "`dataset.path` is missing"),
        (
            {"dataset": {"name": "countscenes", "num_scene": 3}},
            ValueError,
            "`num_scene` in `dataset` .countscenes.. Did you mean `num_scenes`",
        ),
        (
            {"dataset": {"name": "voc", "path": "/", "name_s": {}}},
            ValueError,
            "`name_s` in `dataset` .voc.. Did you mean `names`",
        ),
        ({"test_dataset": {"num_scene": 3}}, ValueError, "`num_scene` in `test_dataset`"),
        ({"dataset": None}, ValueError, "`dataset` is missing"),
        ({"dataset": {"split": "train"}}, ValueError, "`dataset.name` to be countscenes"),
        ({"dataset": {"name": "countscenes", "objects": "shapes", "num_scenes": 0}}, ValueError, "has no rows"),
        ({"scratch": None}, ValueError, "exactly one of .*`scratch`.* of a density run, but got none"),
        ({"clip_name_or_path": "x"}, ValueError, "but got `clip_name_or_path` and `scratch`"),
        (
            {"scratch": None, "model_name_or_path": "./nowhere"},
            FileNotFoundError,
            "'./nowhere', which `model_name_or_path`",
        ),
        (
            {"scratch": None, "model_name_or_path": "runs/nowhere"},
            FileNotFoundError,
            "'runs/nowhere', which `model_name_or_path` names. If it is what another configuration writes",
        ),
        ({"model_config": {"count_los_weight": 5}}, ValueError, "`count_los_weight` in `model_config`. Did you mean"),
        ({"image_processor": {"window_stide": 5}}, ValueError, "`window_stide` in `image_processor`. Did you mean"),
        ({"resume_from_checkpoint": True}, FileNotFoundError, "no checkpoint to resume from .*auto"),
        ({"resume_from_checkpoint": "/no/checkpoint"}, FileNotFoundError, "no checkpoint folder '/no/checkpoint'"),
        ({"learning_rte": 1}, ValueError, r"`learning_rte` in .*run\.yaml, line 9. Did you mean `learning_rate`"),
    ],
)
def test_mistakes_are_named(write, changes, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        main([write({**DENSITY, **changes})])


def test_folders_that_only_look_like_checkpoints_are_no_hindrance(write, tmp_path):
    (tmp_path / "out" / "checkpoint-10-old").mkdir(parents=True)
    results = main([write(DENSITY, num_train_epochs=0, contrastive_epochs=0, resume_from_checkpoint="auto")])
    assert results["after"]["test"]["num_rows"] == 6


def test_a_checkpoint_of_another_model_is_named(write, tmp_path):
    main([write(COUNTING, max_steps=1, save_strategy="steps", save_steps=1)])
    wider = {**TOWERS, "projection_dim": 48}
    with pytest.raises(ValueError, match=r"checkpoint-1 is of another model.* another `output_dir`"):
        main([write(COUNTING, scratch=wider, max_steps=2, resume_from_checkpoint="auto")])


@pytest.mark.parametrize("name", ["countscenes_base", "countscenes_counting"])
def test_shipped_counting_runs_report_countbench_protocol(name):
    run, _ = parse_run(name, [])
    numbers = load_splits(run)["test_dataset"].column("number")
    assert Counter(numbers) == dict.fromkeys(range(2, 11), 60)


def test_evaluation_rows_without_a_number_are_left_out_with_a_word(write, caplog):
    config = write({**COUNTING, "test_dataset": {"num_scenes": 20, "number_rate": 0.5}})
    run, _ = parse_run(config, [])
    with attached(caplog):
        kept = load_splits(run)["test_dataset"]
    assert 0 < len(kept) < 20
    assert f"{20 - len(kept)} of 20 evaluation rows state no number" in caplog.text


def test_checkpoint_of_the_other_model_is_refused(
    write, tmp_path, counting_model, counting_processor, density_model, density_processor
):
    folders = {"counting": tmp_path / "counting", "density": tmp_path / "density"}
    for part, model, processor in (
        ("counting", counting_model, counting_processor),
        ("density", density_model, density_processor),
    ):
        model.save_pretrained(folders[part])
        processor.save_pretrained(folders[part])
    with pytest.raises(ValueError, match=r"model type 'count_clip'.*from_clip"):
        main([write({**DENSITY, "scratch": None, "model_config": None}, model_name_or_path=str(folders["counting"]))])
    with pytest.raises(ValueError, match="model type 'clip_count_density'"):
        main([write({**COUNTING, "scratch": None}, model_name_or_path=str(folders["density"]))])
    with pytest.raises(ValueError, match="Expected a CLIP checkpoint.*'clip_count_density'"):
        main([write({**DENSITY, "scratch": None}, clip_name_or_path=str(folders["density"]))])


def test_counting_metrics_by_hand():
    scores = np.eye(9)[[0, 3, 8]]
    assert counting_figures(scores, np.array([2, 4, 10])) == {
        "accuracy": pytest.approx(2 / 3),
        "mean_deviation": pytest.approx(1 / 3),
    }


# A launcher, a process that is killed, and a run to compare with.
@pytest.mark.timeout(120)
def test_launched_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(write, tmp_path):
    steps = {"num_train_epochs": 40, "save_strategy": "steps", "save_steps": 2, "contrastive_epochs": 20}
    config = write(DENSITY, **steps, affine_probability=1.0, noise_probability=1.0)
    whole, killed = str(tmp_path / "whole"), tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "--cpu"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [*launcher, str(REPOSITORY / "trainers" / "run.py"), config, "--output_dir", str(killed)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.time() + 60
        while not (killed / "checkpoint-6" / "trainer_state.json").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.time() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (killed / "results.json").exists()
    # What a run leaves that is killed while it writes a checkpoint.
    (killed / "checkpoint-9999").mkdir()
    results = main([config, "--output_dir", str(killed), "--resume_from_checkpoint", "auto"])
    assert results["train"]["epoch"] == 40
    main([config, "--output_dir", whole])
    expected, found = (load_file(Path(folder) / "model.safetensors") for folder in (whole, killed))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
