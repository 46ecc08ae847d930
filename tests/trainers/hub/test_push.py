"""Trainings that push to the Hub, here one on this machine."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load, load_file
from transformers import AutoModel

from count_clip.trainers.hub.repository import HubError
from count_clip.trainers.run import main
from count_clip.trainers.running.arguments import parse_run


SECRET = "hf_qKbR7secretTokenWxYz"
TOWERS = {
    "vocab_size": 540,
    "projection_dim": 16,
    "vision": {
        "patch_size": 16,
        "image_size": 48,
        "hidden_size": 24,
        "num_hidden_layers": 1,
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


@pytest.fixture
def train(hub_here: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A small run that pushes; the token comes from its arguments alone."""
    hub_here.tokens[SECRET] = "write"
    monkeypatch.delenv("HF_TOKEN")
    values = {
        "task": "counting",
        "scratch": TOWERS,
        "dataset": {"name": "countscenes", "objects": "shapes", "num_scenes": 12, "image_size": 48},
        "test_dataset": {"config": "benchmark", "num_scenes": 9},
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "max_steps": 4,
        "save_strategy": "no",
        "disable_tqdm": True,
        "push_to_hub": True,
        "hub_model_id": "org/trained",
        "hub_token": SECRET,
    }

    def run(*overrides: str, **changes: Any) -> dict[str, Any]:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({**values, **changes}))
        return main([str(path), *overrides])

    return run


def test_run_pushes_model_code_and_card_in_one_commit(
    train: Callable, hub: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd
) -> None:
    # These do not hand on what they log.
    names = ("transformers", "huggingface_hub", "count_clip")
    for name in names:
        logging.getLogger(name).addHandler(caplog.handler)
        caplog.set_level(logging.DEBUG, name)
    caplog.set_level(logging.DEBUG)
    try:
        results = train("--license", "apache-2.0", "--hub_dtype", "float16", "--hub_token", SECRET, bf16=True)
    finally:
        for name in names:
            logging.getLogger(name).removeHandler(caplog.handler)
    repository = hub.repositories["model", "org/trained"]
    assert len(repository.sent) == 1, "not all in one commit"
    files = hub.files("model", "org/trained")
    wanted = {"config.json", "model.safetensors", "modeling_count_clip.py", "processor_config.json", "README.md"}
    assert wanted | {"training_loss.png", "tokenizer.json", "pipeline_caption_counting.py"} <= set(files)
    assert not [path for path in files if path.endswith(".bin") or "checkpoint" in path or path == "results.json"]
    assert {tensor.dtype for tensor in load(files["model.safetensors"]).values()} == {torch.float16}
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float32}
    assert json.loads(files["config.json"])["dtype"] == "float16"

    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.datasets) == ("apache-2.0", ["countscenes"])
    found = {(one.metric_type, one.metric_value) for one in card.data.eval_results}
    measured = results["after"]["test"]
    assert found == {(name, measured[name]) for name in ("accuracy", "mean_deviation")}
    assert card.data.eval_results[0].dataset_config == "benchmark-shapes"
    assert "![The losses during training](training_loss.png)" in card.text
    command = f"accelerate launch trainers/run.py {tmp_path / 'run.yaml'} --license apache-2.0 --hub_dtype float16"
    assert card.text.count(f"{command} --hub_token '***'") == 2, "once for the figures, once for the training"
    assert "| max_steps | 4 |" in card.text
    assert "| bf16 | true |" in card.text
    assert "output_dir" not in card.text
    assert 'AutoModel.from_pretrained("org/trained", dtype="float32")' in card.text

    printed = capfd.readouterr()
    everything = b"".join([*files.values(), printed.out.encode(), printed.err.encode(), caplog.text.encode()])
    left = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert SECRET.encode() not in everything + left
    assert f"Pushed to {hub.url}/org/trained/commit/" in caplog.text + printed.err


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint"])
def test_checkpoints_are_pushed_whole_while_it_trains(
    strategy: str, train: Callable, hub: Any, tmp_path: Path
) -> None:
    train(save_strategy="steps", save_steps=2, save_total_limit=1, hub_strategy=strategy, hub_always_push=True)
    repository = hub.repositories["model", "org/trained"]
    states = [files for _, files in repository.commits[1:]]
    assert len(states) >= 2
    needed = {"config.json", "model.safetensors", "modeling_count_clip.py", "processor_config.json", "README.md"}
    for files in states:
        assert needed <= set(files), "a commit without a part of the model"
    assert states[0]["model.safetensors"] != states[-1]["model.safetensors"]
    last = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert states[-1]["model.safetensors"] == last
    assert b"No measurement" not in states[-1]["README.md"]
    inner = {path for path in states[-1] if path.startswith("last-checkpoint/")}
    assert bool(inner) == (strategy == "checkpoint")
    if inner:
        assert {"last-checkpoint/optimizer.pt", "last-checkpoint/trainer_state.json"} <= inner
        assert not any(SECRET.encode() in content for content in states[-1].values())


def test_failures_in_between_do_not_stop_the_training(
    train: Callable, hub: Any, tmp_path: Path, caplog, capfd
) -> None:
    hub.failures = [("POST .*/commit/", 403)]
    with pytest.raises(HubError, match="may not write to org/trained"):
        train(save_strategy="steps", save_steps=2, hub_strategy="every_save")
    assert (tmp_path / "out" / "model.safetensors").is_file(), "the end of the training was not saved"
    assert (tmp_path / "out" / "README.md").is_file()
    printed = capfd.readouterr().err + caplog.text
    assert "A push during the training failed. The token may not write" in printed
    assert SECRET not in printed


def test_a_full_disk_in_between_does_not_stop_the_training(
    train: Callable, hub: Any, caplog, capfd, monkeypatch
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("count_clip.trainers.hub.push.shutil.copytree", fail)
    train(save_strategy="steps", save_steps=2, hub_strategy="every_save")
    assert "A push during the training failed. [Errno 28] No space left" in capfd.readouterr().err + caplog.text
    assert len(hub.repositories["model", "org/trained"].commits) == 2, "the end was not pushed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hub_model_id": "other/trained"}, "may not write to other/trained"),
        ({"hub_model_id": "a/b/c"}, "no name of a repository"),
        ({"hub_token": "hf_expired77"}, "does not accept the token"),
        ({"hub_token": None}, "Not logged in"),
        ({"peft": "visual_prompt"}, "Push the base first"),
    ],
)
def test_what_cannot_be_pushed_is_known_before_the_training(
    changes: dict, words: str, train: Callable, hub: Any, tmp_path: Path
) -> None:
    with pytest.raises(HubError, match=words) as caught:
        train(**changes)
    assert "hf_expired77" not in str(caught.value)
    assert hub.repositories == {}
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_name_without_an_organisation_is_the_users_own(train: Callable, hub: Any) -> None:
    train(hub_model_id="mine", hub_private_repo=True, hub_strategy="end")
    assert hub.repositories["model", "org/mine"].private


def test_card_is_written_without_a_push(train: Callable, hub: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("# Mine\n\n## Limits\n\nDogs only.\n")
    train(push_to_hub=False)
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.index("Dogs only.") < text.index("<!-- count-clip: figures -->")
    assert "| countscenes benchmark-shapes test | accuracy |" in text
    with Image.open(tmp_path / "out" / "training_loss.png") as image:
        assert image.size == (960, 540)
    assert hub.requests == []
    assert AutoModel.from_pretrained(tmp_path / "out").config.model_type == "count_clip"


def test_wrong_type_for_the_hub_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"task": "counting", "output_dir": "x", "hub_dtype": "int8"}))
    with pytest.raises(ValueError, match="`hub_dtype` must be float32, bfloat16 or float16, but got 'int8'"):
        parse_run(str(path), [])
