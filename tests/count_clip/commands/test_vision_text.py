"""Commands with a density model of a backbone and a text encoder."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel

from count_clip import EfficientNetLiteBackbone, EfficientNetLiteConfig, VisionTextCountDensityModel
from count_clip.cli import main
from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor


@pytest.fixture
def folder(tokenizer, tmp_path) -> str:
    torch.manual_seed(0)
    text = {"hidden_size": 20, "intermediate_size": 30, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"embedding_size": 4, "hidden_sizes": [3, 5, 7, 9, 11, 13, 15], "depths": [1] * 7}
    model = VisionTextCountDensityModel.from_backbone(
        EfficientNetLiteBackbone(EfficientNetLiteConfig(**sizes)),
        BertModel(BertConfig(**text, vocab_size=len(tokenizer))),
        hidden_sizes=[8, 12, 16, 16],
        similarity_hidden_size=18,
        window_size=64,
        max_text_length=40,
    )
    with torch.no_grad():
        model.pyramid.density_projection.bias.fill_(0.1)  # below zero a new model counts nothing
    image_processor = CLIPCountDensityImageProcessorPil(window_size=64)
    for one in (model, CLIPCountDensityProcessor(image_processor, tokenizer, 0, 40)):
        one.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_count_evaluate_and_info_take_it(folder, make_image, tmp_path, capsys):
    make_image(90, 70).save(tmp_path / "a.png")
    overlays = str(tmp_path / "overlays")
    assert (
        main(["count", str(tmp_path / "a.png"), "--text", "dogs", "--model", folder, "--json", "--overlay", overlays])
        == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert record["count"] > 0
    assert (record["width"], record["height"]) == (90, 70)
    assert len(list((tmp_path / "overlays").iterdir())) == 1

    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"file_name": "a.png", "text": "dogs", "count": 3}))
    result = tmp_path / "result.json"
    assert main(["evaluate", "density", "--model", folder, "--data", str(rows), "--json", str(result)]) == 0
    assert json.loads(result.read_text())["predictions"][0]["predicted"] == pytest.approx(record["count"], abs=1e-3)

    capsys.readouterr()
    assert main(["info", folder, "--text", "dogs"]) == 0
    printed = capsys.readouterr().out
    assert "vision_text_count_density" in printed
    assert "efficientnet_lite" in printed
    assert "'dogs': yes" in printed
