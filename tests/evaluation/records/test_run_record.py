import datetime
import hashlib
import json
import shlex

import datasets
import numpy as np
import pytest
import transformers

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.evaluation.records.run_record import (
    describe_data,
    describe_model,
    partial_note,
    plain_command,
    result_file,
    run_record,
    weights_sha256,
    write_plain,
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--token", "SECRET"],
        ["evaluate", "--token=SECRET"],
        ["evaluate", "--hf-token", "SECRET"],
        ["evaluate", "--api-key=SECRET", "x"],
        ["--model", "https://me:SECRET@huggingface.co/org/model"],
        ["--data", "https://host/file?token=SECRET&x=1"],
        ["--data", "https://host/file?X-Amz-Signature=SECRET"],
        ["--option", "storage_options={token: hf_SECRETSECRET}"],
        ["hf_SECRETSECRET"],
        ["--password", "SECRET", "--token", "SECRET"],
    ],
)
def test_the_command_has_no_secrets(arguments):
    command = plain_command(arguments)
    assert "SECRET" not in command
    assert "***" in command
    assert len(shlex.split(command)) == 1 + len(arguments)


def test_the_command_can_be_run_again():
    arguments = ["evaluate", "countbench", "--model", "my models/a", "--template", "a photo of {}", "--tokenizer", "x"]
    assert shlex.split(plain_command(arguments[:-2])) == ["count-clip", *arguments[:-2]]
    # What only looks like a token is hidden as well, but never what comes after it.
    assert shlex.split(plain_command([*arguments, "--seed", "3"]))[-2:] == ["--seed", "3"]


def test_weights_have_the_checksum_that_sha256sum_prints(tmp_path):
    assert weights_sha256(tmp_path) is None
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    one = hashlib.sha256(b"one").hexdigest()
    assert weights_sha256(tmp_path) == one
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    lines = f"{one}  model-1.safetensors\n{hashlib.sha256(b'two').hexdigest()}  model-2.safetensors\n"
    assert weights_sha256(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()
    (tmp_path / "model-2.safetensors").write_bytes(b"tw0")
    assert weights_sha256(tmp_path) != hashlib.sha256(lines.encode()).hexdigest()


def test_a_model_is_described_by_its_weights_or_its_commit(counting_model, tmp_path):
    counting_model.save_pretrained(tmp_path)
    about = describe_model("here", counting_model, tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert about == {
        "name": "here",
        "revision": None,
        "sha256": digest,
        "model_type": "count_clip",
        "parameters": sum(value.numel() for value in counting_model.parameters()),
        "logit_scale": pytest.approx(float(counting_model.logit_scale.exp()), rel=1e-5),
    }
    about = describe_model("org/model", counting_model, tmp_path / "snapshots" / ("c" * 40))
    assert (about["revision"], about["sha256"]) == ("c" * 40, None)


def test_adapters_are_described_with_their_base(counting_model, tmp_path):
    counting_model.save_pretrained(tmp_path / "base")
    for name in ("one", "two"):
        (tmp_path / "stack" / name).mkdir(parents=True)
        (tmp_path / "stack" / name / "adapter_model.safetensors").write_bytes(name.encode())
    about = describe_model("stack", counting_model, tmp_path / "stack", "base", tmp_path / "base")
    lines = [
        f"{hashlib.sha256(name.encode()).hexdigest()}  {name}/adapter_model.safetensors\n" for name in ("one", "two")
    ]
    assert about["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    digest = hashlib.sha256((tmp_path / "base" / "model.safetensors").read_bytes()).hexdigest()
    assert about["base"] == {"name": "base", "revision": None, "sha256": digest}


def test_scenes_are_described_by_all_their_settings():
    def about(**changes):
        scenes = CountScenes("test", **{"num_scenes": 4, "objects": "shapes", **changes})
        return describe_data("countscenes", scenes, "captions", "test")

    one = about()
    assert (one["rows"], one["config"], one["split"]) == (4, "captions-shapes", "test")
    assert one["seed"] == 0
    assert about(objects="drawings")["config"] == "captions"
    assert one["revision"]
    assert one == about()
    others = [about(seed=1), about(num_scenes=5), about(image_size=64)]
    assert len({one["fingerprint"], *(other["fingerprint"] for other in others)}) == 4


def test_data_sets_are_described_by_their_fingerprint():
    rows = datasets.Dataset.from_dict({"a": [1, 2, 3]})
    about = describe_data("x", rows, None, "test", revision="main")
    assert (about["fingerprint"], about["rows"], about["revision"]) == (rows._fingerprint, 3, "main")


@pytest.fixture
def run():
    data = {
        "name": "set",
        "config": None,
        "split": "test",
        "revision": None,
        "fingerprint": "f",
        "rows": 8,
        "total": 10,
    }
    return run_record("count-clip evaluate x", {"name": "m"}, data, 3, "bfloat16", "cpu", 1.23456)


def test_a_run_record_has_everything_to_repeat_it(run):
    assert run["versions"]["transformers"] == transformers.__version__
    assert run["versions"]["numpy"] == np.__version__
    assert set(run["versions"]) == {"python", "torch", "transformers", "datasets", "numpy"}
    assert (run["seed"], run["dtype"], run["device"], run["seconds"]) == (3, "bfloat16", "cpu", 1.235)
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(run["created"])
    assert datetime.timedelta(0) <= age + datetime.timedelta(seconds=1) < datetime.timedelta(minutes=1)


def test_results_of_a_part_of_the_data_are_marked(run):
    whole = result_file("x", run, {"rows": []}, {"accuracy": 0.5}, {"accuracy": (0.4, 0.6)})
    assert (whole["partial"], whole["missing"], partial_note(whole)) == (False, 0, None)
    assert (whole["benchmark"], whole["format"], whole["rows"]) == ("x", 1, [])
    assert whole["intervals"] == {"accuracy": [0.4, 0.6]}
    lacking = result_file("x", run, {}, {}, missing=2)
    assert lacking["partial"] is True
    assert "2 of 8 rows could not be measured" in partial_note(lacking)
    limited = result_file("x", run, {}, {}, limited=True)
    assert partial_note(limited) == "PARTIAL: only 8 of 10 rows were to be measured"


def test_a_benchmark_cannot_use_a_shared_key(run):
    with pytest.raises(ValueError, match="format, partial"):
        result_file("x", run, {"format": "coco", "partial": 1}, {})


def test_json_has_no_nan():
    with pytest.raises(ValueError):
        write_plain({"x": float("nan")})
    assert json.loads(write_plain({"x": "ü"})) == {"x": "ü"}
    assert "ü" in write_plain({"x": "ü"})
