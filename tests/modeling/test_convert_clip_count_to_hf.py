"""The converter rebuilds the authors' model, number by number."""

import argparse
import importlib.util
import json
from types import ModuleType

import numpy as np
import pytest
import torch

from count_clip.modeling.convert_clip_count_to_hf import (
    clip_sizes,
    convert_clip_count,
    convert_openai_clip,
    read_clip,
    read_clip_count,
)
from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil


@pytest.fixture(scope="module")
def goldens(shared):
    """The folder of the authors' outputs, the recipe of their weights, and what was run."""
    folder = shared / "goldens" / "clip_count_official"
    if not folder.is_dir():
        pytest.skip("no outputs of the authors' code beside this checkout")
    spec = importlib.util.spec_from_file_location("recipe", folder / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return folder, recipe, {entry["name"]: entry for entry in json.loads((folder / "manifest.json").read_text())}


def _weights(recipe: ModuleType, entry: dict) -> tuple[dict, dict]:
    tensors = {
        name: torch.as_tensor(np.asarray(recipe.tensor(name, tuple(shape), entry["salt"])))
        for name, shape in entry["tensors"].items()
    }
    trained = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    return trained, {name: tensor for name, tensor in tensors.items() if name not in trained}


@pytest.mark.parametrize("name", ["hierarchical", "plain", "add"])
def test_converted_model_agrees_with_the_authors_code(goldens, name):
    folder, recipe, entries = goldens
    entry = entries[name]
    expected = np.load(folder / entry["file"])
    model = convert_clip_count(*_weights(recipe, entry))
    processor = CLIPCountDensityImageProcessorPil(window_size=384, window_stride=128, window_blend="authors")

    pictures = [recipe.picture(384, 384, seed) for seed in entry["picture_seeds"]]
    pixel_values = processor(pictures, return_tensors="pt")["pixel_values"]
    # The authors pad a width that already divides by a whole stride: a second window, which no golden needs here.
    pixel_values = pixel_values[:: len(pixel_values) // len(pictures)]
    input_ids = torch.from_numpy(expected["input_ids"]).long()
    from scipy.ndimage import gaussian_filter

    labels = np.zeros((len(pictures), 384, 384), np.float32)
    for row, y, x in expected["dots"]:
        labels[row, y, x] = 1
    labels = torch.from_numpy(np.stack([gaussian_filter(label, 1) for label in labels]))
    with torch.no_grad():
        outputs = model(pixel_values=pixel_values, input_ids=input_ids, labels=labels)
    for got, key in (
        (outputs.density_map * 60, "density"),
        (outputs.text_embeds[:, None], "text_embedding"),
        (outputs.patch_embeds, "patch_embedding_contrast"),
        (outputs.contrastive_loss, "contrastive_loss"),
    ):
        np.testing.assert_allclose(got.numpy(), expected[key], rtol=0, atol=1e-4)

    wide = processor([recipe.picture(384, entry["wide_width"], entry["wide_picture_seed"])], return_tensors="pt")
    with torch.no_grad():
        text_embeds = model.get_text_embeds(input_ids[:1]).expand(len(wide["pixel_values"]), -1)
        maps = model(pixel_values=wide["pixel_values"], text_embeds=text_embeds).density_map
    offsets = [(top, left) for _, top, left in wide["window_positions"].tolist()]
    composite = processor.composite(maps, offsets, (384, entry["wide_width"]))
    np.testing.assert_allclose(composite.numpy() * 60, expected["wide_density"], rtol=0, atol=1e-4)


def test_left_over_missing_and_misshapen_tensors_are_all_named(goldens):
    _, recipe, entries = goldens
    trained, clip = _weights(recipe, entries["add"])
    trained["model.extra.weight"] = torch.zeros(2)
    del trained["model.patch_feat_proj.bias"]
    trained["model.patch_feat_proj.weight"] = torch.zeros(512, 700)
    with pytest.raises(ValueError) as error:
        convert_clip_count(trained, clip)
    message = str(error.value)
    assert "left over: extra.weight" in message
    assert "missing: patch_projection.bias" in message
    assert "wrong shape: patch_projection.weight is (512, 700) instead of (512, 768)" in message


def _openai_names(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A CLIP of `transformers` under OpenAI's names: the converter's mapping the other way, written on its own."""
    renamed = {}
    for name, tensor in state_dict.items():
        if ".self_attn.k_proj." in name or ".self_attn.v_proj." in name:
            continue
        new = name.replace("vision_model.encoder.layers", "visual.transformer.resblocks")
        new = new.replace("text_model.encoder.layers", "transformer.resblocks")
        if ".self_attn.q_proj." in name:
            parts = [state_dict[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            new = new.replace("self_attn.q_proj.", "attn.in_proj_")
            tensor = torch.cat(parts)
        for old, short in (
            ("self_attn.out_proj", "attn.out_proj"),
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
            ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
            ("vision_model.embeddings.patch_embedding", "visual.conv1"),
            ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
            ("vision_model.pre_layrnorm", "visual.ln_pre"),
            ("vision_model.post_layernorm", "visual.ln_post"),
            ("text_model.embeddings.token_embedding", "token_embedding"),
            ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
            ("text_model.final_layer_norm", "ln_final"),
        ):
            new = new.replace(old, short)
        if new == "visual_projection.weight":
            new, tensor = "visual.proj", tensor.t()
        if new == "text_projection.weight":
            new, tensor = "text_projection", tensor.t()
        renamed[new] = tensor
    return renamed


def test_openai_clip_converts_back_to_itself(counting_model):
    state_dict = counting_model.state_dict()
    converted = convert_openai_clip(_openai_names(state_dict))
    assert converted.keys() == state_dict.keys()
    for name, tensor in state_dict.items():
        torch.testing.assert_close(converted[name], tensor, rtol=0, atol=0)


def test_sizes_follow_from_the_tensors(counting_model, tower_sizes):
    sizes = clip_sizes(counting_model.state_dict())
    assert sizes["projection_dim"] == tower_sizes["projection_dim"]
    for tower in ("text_config", "vision_config"):
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "image_size",
            "patch_size",
            "vocab_size",
        ):
            assert sizes[tower].get(name) == tower_sizes[tower].get(name)


def test_unknown_clip_tensors_are_named(counting_model):
    with pytest.raises(ValueError, match=r"visual\.layer1\.0\.conv1\.weight"):
        convert_openai_clip(
            {**_openai_names(counting_model.state_dict()), "visual.layer1.0.conv1.weight": torch.ones(1)}
        )


def test_clip_is_read_from_a_state_dict_and_from_a_folder(counting_model, tmp_path):
    state_dict = _openai_names(counting_model.state_dict())
    torch.save(state_dict, tmp_path / "clip.pt")
    assert read_clip(tmp_path / "clip.pt").keys() == state_dict.keys()
    counting_model.save_pretrained(tmp_path / "folder")
    assert read_clip(tmp_path / "folder").keys() == counting_model.state_dict().keys()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_clip(tmp_path / "nowhere")


def test_lightning_checkpoint_is_read_without_running_its_code(tmp_path):
    options = argparse.Namespace(decoder_head=4)
    torch.save({"state_dict": {"model.x": torch.ones(2)}, "hyper_parameters": options}, tmp_path / "model.ckpt")
    tensors, read = read_clip_count(tmp_path / "model.ckpt")
    assert list(tensors) == ["model.x"]
    assert read == {"decoder_head": 4}

    class Trap:
        def __reduce__(self):
            return (print, ("code ran",))

    torch.save({"state_dict": {}, "hyper_parameters": Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        read_clip_count(tmp_path / "trap.ckpt")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="state_dict"):
        read_clip_count(tmp_path / "other.ckpt")
