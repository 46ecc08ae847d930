"""Commands that are given adapters instead of a model."""

import json

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModel

import count_clip
from count_clip.cli import main
from count_clip.modeling.prompt_tuning import AdapterStack, ContextPromptConfig, VisualPromptConfig


def _adapt(folder: str, adapter_types: list[str]):
    """A base with adapters whose prompts change its counts."""
    configs = {"visual": VisualPromptConfig(num_virtual_tokens=3), "context": ContextPromptConfig()}
    base = AutoModel.from_pretrained(folder)
    if len(adapter_types) == 1:
        model = get_peft_model(base, configs[adapter_types[0]])
    else:
        model = AdapterStack(base, {adapter_type: configs[adapter_type] for adapter_type in adapter_types})
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return model.eval()


def _counts(model: str, photos, capsys) -> list[float]:
    assert main(["count", str(photos), "--text", "red apples", "--model", model, "--json", "--device", "cpu"]) == 0
    return [json.loads(line)["count"] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("adapter_types", [["visual"], ["context"], ["visual", "context"]])
def test_adapters_count_on_the_base_that_they_name(density_folder, photos, tmp_path, capsys, adapter_types):
    model = _adapt(density_folder, adapter_types)
    model.save_pretrained(tmp_path / "adapter")
    counted = _counts(str(tmp_path / "adapter"), photos, capsys)

    adapted = count_clip.load_adapted_model(tmp_path / "adapter").get_base_model()
    processor = count_clip.CLIPCountDensityProcessor.from_pretrained(density_folder)
    pipe = count_clip.ObjectCountingPipeline(model=adapted, processor=processor)
    expected = [pipe(str(photos / name), text="red apples")["count"] for name in ("a.png", "more/b.JPG")]
    assert counted == pytest.approx(expected, rel=1e-3, abs=1e-3)
    plain = _counts(density_folder, photos, capsys)
    assert counted != pytest.approx(plain, rel=1e-3, abs=1e-3)


def test_adapters_of_a_clip_are_evaluated(counting_folder, tmp_path, capsys):
    _adapt(counting_folder, ["visual"]).save_pretrained(tmp_path / "adapter")
    options = ["--limit", "9", "--image-size", "32", "--device", "cpu"]
    assert main(["evaluate", "countbench", "--model", str(tmp_path / "adapter"), *options]) == 0
    assert "9" in capsys.readouterr().out


def test_adapters_for_another_model_are_refused(counting_folder, tmp_path, capsys):
    _adapt(counting_folder, ["visual"]).save_pretrained(tmp_path / "adapter")
    assert main(["evaluate", "density", "--model", str(tmp_path / "adapter")]) == 2
    message = capsys.readouterr().err
    assert "count_clip" in message
    assert "density model" in message


@pytest.mark.parametrize("base", [None, "/nowhere/at/all"])
def test_adapters_without_their_base_are_named(density_folder, photos, tmp_path, capsys, base):
    folder = tmp_path / "adapter"
    _adapt(density_folder, ["visual"]).save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert main(["count", str(photos), "--text", "apples", "--model", str(folder)]) == 2
    message = capsys.readouterr().err
    assert str(base or "base_model_name_or_path") in message
    assert "Traceback" not in message
