"""`count-clip info`: the description of a checkpoint, and the error for a folder that holds none."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertConfig, CLIPModel

from count_clip.cli import main


COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
{metadata}
---

# A model
"""


@pytest.fixture
def ask(capsys):
    """Runs `count-clip info --json`; gives the exit code and the object."""

    def run(*arguments: str) -> tuple[int, dict]:
        code = main(["info", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def copy_of(tmp_path):
    """A folder of its own with the files of a checkpoint."""

    def copy(folder: str, name: str = "copy") -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    return copy


def test_a_density_model_is_described(ask, density_folder, density_model) -> None:
    code, found = ask(density_folder)
    assert code == 0
    assert (found["model_type"], found["counts_by"]) == ("clip_count_density", "density")
    assert found["architectures"] == ["CLIPCountDensityModel"]
    number = sum(value.numel() for value in density_model.state_dict().values())
    assert (found["num_parameters"], found["dtypes"]) == (number, {"float32": number})
    assert found["missing_weights"] == []
    sizes = {"image_size": 32, "patch_size": 8, "window_size": 48, "text_tokens": 40, "num_visual_prompts": 5}
    assert sizes.items() <= found["sizes"].items()
    assert found["options"]["interaction"] == "hierarchical"
    assert found["has"] == {"weights": True, "processor": True, "tokenizer": True, "code": True, "card": False}


def test_printed_description_matches_json(density_folder, counting_folder, capsys) -> None:
    assert main(["info", density_folder, "--text", "red cats"]) == 0
    captured = capsys.readouterr()
    words = (
        "clip_count_density",
        "density map",
        "windows of 48 x 48 pixels",
        "5 visual in each of 2 layers",
        "float32",
    )
    for word in (*words, "'red cats': yes, 9 of 38 tokens"):
        assert word in captured.out
    assert captured.err == ""
    assert main(["info", counting_folder]) == 0
    shown = capsys.readouterr().out
    assert "CLIPForCounting" in shown
    assert "caption-counting" in shown


@pytest.mark.parametrize(
    ("text", "can_count", "words"),
    [
        ("cats", True, ""),
        ("three cats", True, "without a number"),
        ("x" * 36, True, ""),
        ("x" * 37, False, "takes 39 tokens, but only 38 fit"),
        ("  ", False, "A prompt is empty"),
    ],
)
def test_a_prompt_is_checked_against_a_density_model(ask, density_folder, text, can_count, words) -> None:
    code, found = ask(density_folder, "--text", text)
    (check,) = found["texts"]
    assert (code, check["can_count"]) == (int(not can_count), can_count)
    assert words in " ".join([check["reason"] or "", *check["remarks"]])
    assert check["max_tokens"] == 40 - 2
    assert check["num_tokens"] == len(text.replace(" ", "")) + 2
    assert "".join(check["tokens"]) == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "can_count", "words"),
    [
        ("a photo of {} cats", True, ""),
        ("Three cats", True, ""),
        ("cats", False, "'{}' or a number word"),
        ("x" * 38 + " {}", False, "cut after 40 tokens"),
    ],
)
def test_a_caption_is_checked_against_a_model_that_ranks(ask, counting_folder, text, can_count, words) -> None:
    code, found = ask(counting_folder, "--text", text)
    (check,) = found["texts"]
    assert (code, check["can_count"]) == (int(not can_count), can_count)
    assert words in (check["reason"] or "")
    assert check["max_tokens"] == 40
    if can_count:
        longest = text.replace("{}", "three").replace("Three", "three")
        assert check["num_tokens"] == len(longest.replace(" ", "")) + 2


def test_one_failing_text_fails_the_command(ask, density_folder) -> None:
    code, found = ask(density_folder, "--text", "cats", "--text", "x" * 50)
    assert code == 1
    assert [check["can_count"] for check in found["texts"]] == [True, False]


def test_one_word_prompts_are_remarked_for_the_authors_readout(ask, copy_of, density_folder) -> None:
    folder = copy_of(density_folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "text_readout": "authors"}))
    _, found = ask(str(folder), "--text", "cats", "--text", "red cats")
    assert ["one-word" in " ".join(check["remarks"]) for check in found["texts"]] == [True, False]


def test_plain_clip_and_half_precision_are_recognised(ask, counting_folder, counting_processor, tmp_path) -> None:
    CLIPModel.from_pretrained(counting_folder, dtype=torch.bfloat16).save_pretrained(tmp_path / "plain")
    counting_processor.save_pretrained(tmp_path / "plain")
    code, found = ask(str(tmp_path / "plain"), "--text", "{} cats")
    assert code == 0
    assert (found["model_type"], found["counts_by"]) == ("clip", "ranks captions, untaught")
    assert list(found["dtypes"]) == ["bfloat16"]
    assert "not trained to count" in found["texts"][0]["remarks"][0]


def test_card_metadata_is_reported(ask, copy_of, density_folder, capsys) -> None:
    folder = copy_of(density_folder)
    results = [
        EvalResult("object-counting", "fsc147", "FSC-147", "mae", value, dataset_split=split)
        for split, value in (("val", 18.5), ("test", 17.248123))
    ]
    data = ModelCardData(
        model_name="m", license="mit", base_model="org/clip", datasets=["org/fsc147"], eval_results=results
    )
    (folder / "README.md").write_text(CARD.format(metadata=data.to_yaml()))
    for code in folder.glob("*.py"):
        code.unlink()
    assert ModelCard.load(folder / "README.md").data.license == "mit"
    _, found = ask(str(folder))
    assert (found["license"], found["base_model"], found["datasets"]) == ("mit", ["org/clip"], ["org/fsc147"])
    assert found["figures"] == [
        {"metric": "mae", "value": 18.5, "dataset": "FSC-147 (val)"},
        {"metric": "mae", "value": 17.248123, "dataset": "FSC-147 (test)"},
    ]
    assert found["has"]["card"]
    assert not found["has"]["code"]
    main(["info", str(folder)])
    shown = capsys.readouterr().out
    assert "mae 17.25 on FSC-147 (test)" in shown
    assert "licence" in shown
    assert "mit\n" in shown
    assert "missing     code\n" in shown
    (folder / "README.md").write_text("No metadata, no model index.")
    assert ask(str(folder))[1]["license"] is None


def test_missing_and_damaged_weights_are_found(ask, copy_of, density_folder, photos, capsys) -> None:
    folder = copy_of(density_folder)
    weights = load_file(folder / "model.safetensors")
    number = weights["text_projection.weight"].numel()
    whole = ask(str(folder))[1]["num_parameters"]
    save_file({k: v for k, v in weights.items() if k != "text_projection.weight"}, folder / "model.safetensors")
    code, found = ask(str(folder))
    assert code == 1
    assert found["missing_weights"] == ["text_projection.weight"]
    assert found["num_parameters"] == whole - number
    assert main(["info", str(folder)]) == 1
    assert (
        "1 tensors are missing from the weights, or of another size: text_projection.weight" in capsys.readouterr().out
    )
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert main(["info", str(folder)]) == 2
    assert "model.safetensors cannot be read" in capsys.readouterr().err
    assert main(["count", str(photos), "--text", "cats", "--model", str(folder)]) == 2
    assert "cannot load the model" in capsys.readouterr().err
    (folder / "model.safetensors").unlink()
    code, found = ask(str(folder))
    assert (code, found["num_parameters"], found["has"]["weights"]) == (1, None, False)


def test_shards_are_summed(ask, copy_of, density_model, density_folder) -> None:
    folder = copy_of(density_folder)
    (folder / "model.safetensors").unlink()
    density_model.save_pretrained(folder, max_shard_size="500KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    code, found = ask(str(folder))
    assert code == 0
    assert found["num_parameters"] == sum(value.numel() for value in density_model.state_dict().values())


def test_an_adapter_names_its_base(ask, counting_model, tmp_path, capsys) -> None:
    counting_model.name_or_path = "org/count-clip"
    adapted = get_peft_model(counting_model, LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    code, found = ask(str(tmp_path / "adapter"))
    assert code == 0
    assert found["model_type"] == "adapter (LORA)"
    assert found["base_model"] == ["org/count-clip"]
    trainable = sum(value.numel() for name, value in adapted.named_parameters() if "lora" in name)
    assert found["num_parameters"] == trainable
    assert main(["info", str(tmp_path / "adapter"), "--text", "cats"]) == 2
    assert "is an adapter and has no processor: check its base model, org/count-clip" in capsys.readouterr().err


def test_other_model_types_do_not_count(ask, tmp_path, capsys) -> None:
    BertConfig(hidden_size=8, num_attention_heads=1).save_pretrained(tmp_path)
    code, found = ask(str(tmp_path))
    assert (code, found["model_type"], found["counts_by"]) == (0, "bert", None)
    assert main(["info", str(tmp_path), "--text", "cats"]) == 2
    assert "'bert', which does not count by text" in capsys.readouterr().err


@pytest.fixture
def cached(density_folder, tmp_path, monkeypatch) -> Path:
    """The snapshot of org/clip-count in a cache of its own."""
    snapshot = tmp_path / "models--org--clip-count" / "snapshots" / COMMIT
    shutil.copytree(density_folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return snapshot


def test_hub_name_is_found_in_the_cache(ask, cached, capsys) -> None:
    for revision in ([], ["--revision", "main"], ["--revision", COMMIT]):
        code, found = ask("org/clip-count", "--text", "cats", *revision)
        assert code == 0
        assert (found["model"], found["commit"]) == ("org/clip-count", COMMIT)
        assert found["model_type"] == "clip_count_density"
    (cached / "model.safetensors").unlink()
    assert main(["info", "org/clip-count"]) == 0
    assert "unknown: the weights are not in the cache" in capsys.readouterr().out


def test_headers_of_missing_weights_are_read_from_the_hub(ask, cached, density_model, monkeypatch) -> None:
    weights = load_file(cached / "model.safetensors")
    (cached / "model.safetensors").unlink()
    half = {name: value.half() for name, value in weights.items()}

    def metadata(repository: str, revision: str) -> SafetensorsRepoMetadata:
        assert (repository, revision) == ("org/clip-count", COMMIT)
        tensors = {name: TensorInfo("F16", list(value.shape), (0, 2 * value.numel())) for name, value in half.items()}
        file = SafetensorsFileMetadata({}, tensors)
        return SafetensorsRepoMetadata(
            None, False, dict.fromkeys(half, "model.safetensors"), {"model.safetensors": file}
        )

    monkeypatch.setattr("count_clip.checkpoints.get_safetensors_metadata", metadata)
    code, found = ask("org/clip-count")
    number = sum(value.numel() for value in density_model.state_dict().values())
    assert code == 0
    assert (found["num_parameters"], found["dtypes"], found["has"]["weights"]) == (number, {"float16": number}, True)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError, "is gated: ask for access"),
        (RepositoryNotFoundError, "no 'org/clip-count' on the Hub; for a private one"),
        (HfHubHTTPError, "cannot be loaded from the Hub: 500"),
    ],
)
def test_errors_of_the_hub_are_explained(error, words, monkeypatch, capsys) -> None:
    def refuse(*_args, **_options):
        raise error("500 Server Error", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr("count_clip.checkpoints.snapshot_download", refuse)
    assert main(["info", "org/clip-count"]) == 2
    assert words in capsys.readouterr().err


def test_folders_without_a_checkpoint_are_rejected(copy_of, density_folder, photos, tmp_path, capsys) -> None:
    def error(model: Path | str, command: str = "info") -> str:
        arguments = [str(model)] if command == "info" else [str(photos), "--text", "cats", "--model", str(model)]
        assert main([command, *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    for command in ("info", "count"):
        assert "expected a folder with a config.json" in error(photos, command)
        assert "it holds a.png, more/, notes.txt." in error(photos, command)
        assert "There is no folder" in error(tmp_path / "nowhere", command)
        assert "a.png is a file" in error(photos / "a.png", command)
    inner = copy_of(density_folder, "runs/checkpoint-10")
    assert f"Did you mean {inner}?" in error(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    assert "it holds nothing" in error(tmp_path / "empty")
    (tmp_path / "empty" / "model.ckpt").write_bytes(b"")
    assert "count-clip convert" in error(tmp_path / "empty")
    assert "count-clip convert" in error(tmp_path / "empty" / "model.ckpt")
    (inner / "config.json").write_text("{nonsense")
    assert "config.json cannot be read" in error(inner)
    (inner / "config.json").write_text("[]")
    assert "Expected a JSON object" in error(inner)
    (inner / "config.json").write_text('{"model_type": "clip_count_density", "window_size": -1}')
    assert "The configuration of" in error(inner)
    assert "neither in the cache nor within reach" in error("org/nothing-of-this-name")
