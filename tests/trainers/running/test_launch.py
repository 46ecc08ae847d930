"""`accelerate launch` with the configurations of trainers/accelerate, in two processes on the CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from count_clip.trainers.run import main


REPOSITORY = Path(__file__).parents[3]
CONFIGS = REPOSITORY / "trainers" / "accelerate"
GLOBAL_BATCH = 8


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    towers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    values = {
        "task": "counting",
        "scratch": {
            "vocab_size": 560,
            "projection_dim": 32,
            "vision": {**towers, "patch_size": 16, "image_size": 48},
            "text": {**towers, "max_position_embeddings": 24},
        },
        "dataset": {"name": "countscenes", "num_scenes": 48, "image_size": 48, "objects": "shapes"},
        "num_counterfactuals": 2,
        "max_steps": 3,
        "optim": "sgd",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    path = tmp_path_factory.mktemp("launch") / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def _launch(config: str, script: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config)]
    done = subprocess.run(
        [*command, "--main_process_port", "0", str(script), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _one_process(run_file: Path, folder: Path, *changes: str) -> dict[str, torch.Tensor]:
    batch = ["--per_device_train_batch_size", str(GLOBAL_BATCH), "--dataloader_drop_last", "true"]
    main([str(run_file), "--output_dir", str(folder), *batch, *changes])
    return _weights(folder)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    [file] = folder.glob("*.safetensors")
    return load_file(file)


def _assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_configurations_have_the_type_of_their_name():
    ddp, fsdp = (yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in ("ddp", "fsdp2"))
    assert ddp["distributed_type"] == "MULTI_GPU"
    assert (fsdp["distributed_type"], fsdp["fsdp_config"]["fsdp_version"]) == ("FSDP", 2)
    assert {path.stem for path in CONFIGS.iterdir()} == {"ddp", "fsdp2"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_launched_processes_end_with_the_weights_of_one(run_file, tmp_path):
    _launch(
        "ddp.yaml",
        REPOSITORY / "trainers" / "run.py",
        str(run_file),
        "--output_dir",
        str(tmp_path / "two"),
        "--per_device_train_batch_size",
        str(GLOBAL_BATCH // 2),
    )
    _assert_close(_weights(tmp_path / "two"), _one_process(run_file, tmp_path / "one"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sharding_without_an_accelerator_warns(run_file, tmp_path):
    arguments = [str(run_file), "--output_dir", str(tmp_path), "--per_device_train_batch_size", "4"]
    printed = _launch("fsdp2.yaml", REPOSITORY / "trainers" / "run.py", *arguments)
    assert "No FSDP here: accelerate shards a model over accelerators only" in printed


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("--gradient_cache_chunk_size", "3"),
        ("--gradient_cache_chunk_size", "1"),
        ("--gradient_accumulation_steps", "2"),
        ("--peft.type", "lora"),
    ],
    ids=["plain", "cached", "cached_one_by_one", "accumulated", "lora"],
)
def test_divided_model_ends_with_the_weights_of_a_whole_one(run_file, tmp_path, changes):
    arguments = ["--output_dir", str(tmp_path / "two"), "--per_device_train_batch_size", str(GLOBAL_BATCH // 2)]
    script = Path(__file__).with_name("fsdp_run.py")
    _launch("fsdp2.yaml", script, str(run_file), str(tmp_path / "seen.pt"), *arguments, *changes)
    seen = torch.load(tmp_path / "seen.pt", weights_only=False)
    assert seen["world_size"] == 2
    assert len(seen["divided"]) > 50
    # FSDP2 cannot divide a scalar.
    assert [name.removeprefix("base_model.model.") for name in seen["whole"]] == ["logit_scale"]
    written = json.loads((tmp_path / "two" / "results.json").read_text())
    assert written == seen["results"]
    _assert_close(_weights(tmp_path / "two"), _one_process(run_file, tmp_path / "one", *changes))
    # The code in the checkpoint is the model's, not that of the class that FSDP derives.
    codes = [{path.name for path in (tmp_path / folder).glob("*.py")} for folder in ("one", "two")]
    assert codes[0] == codes[1]
    if not changes:
        configs = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("one", "two")]
        assert configs[0] == configs[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sharded_model_resumes(run_file, tmp_path):
    arguments = ["--per_device_train_batch_size", "4", "--optim", "adamw_torch", "--max_steps", "4"]
    arguments += ["--save_strategy", "steps", "--save_steps", "2", "--resume_from_checkpoint", "auto"]
    script = Path(__file__).with_name("fsdp_run.py")
    for folder in ("whole", "stopped"):
        if folder == "stopped":
            shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "stopped" / "checkpoint-2")
        seen, output = str(tmp_path / "seen.pt"), str(tmp_path / folder)
        _launch("fsdp2.yaml", script, str(run_file), seen, "--output_dir", output, *arguments)
    whole, stopped = (_weights(tmp_path / folder) for folder in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
