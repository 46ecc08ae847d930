"""The converter rebuilds the authors' model, number by number."""

import argparse
import importlib.util
import json
import math
import sys
import warnings
import zipfile
import zlib
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, CLIPConfig, CLIPModel

from count_clip.cli import main
from count_clip.modeling import convert_clip_count_to_hf as converter
from count_clip.modeling.convert_clip_count_to_hf import (
    clip_sizes,
    convert_checkpoint,
    convert_clip_count,
    convert_openai_clip,
    read_clip,
    read_clip_count,
)
from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from count_clip.modeling.reference_clip_count import ConversionError, clip_count_reference, openai_tensors


@pytest.fixture(scope="module")
def goldens(shared):
    """The folder of the authors' outputs, the recipe of their weights, and what was run."""
    folder = shared / "goldens" / "clip_count_official"
    if not folder.is_dir():
        pytest.skip("no outputs of the authors' code in `shared/`")
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

    images = [recipe.picture(384, 384, seed) for seed in entry["picture_seeds"]]
    pixel_values = processor(images, return_tensors="pt")["pixel_values"]
    # The authors pad a width that already divides by a whole stride: a second window, which no golden needs here.
    pixel_values = pixel_values[:: len(pixel_values) // len(images)]
    input_ids = torch.from_numpy(expected["input_ids"]).long()
    from scipy.ndimage import gaussian_filter

    labels = np.zeros((len(images), 384, 384), np.float32)
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


@pytest.mark.parametrize("name", ["hierarchical", "plain", "add"])
def test_reference_agrees_with_the_authors_code(goldens, name):
    folder, recipe, entries = goldens
    entry = entries[name]
    expected = np.load(folder / entry["file"])
    images = np.stack([recipe.picture(384, 384, seed) for seed in entry["picture_seeds"]])
    images = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    outputs = clip_count_reference(*_weights(recipe, entry), images, torch.from_numpy(expected["input_ids"]).long())
    np.testing.assert_allclose(outputs.density.numpy(), expected["density"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(outputs.text_embedding[:, None].numpy(), expected["text_embedding"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        outputs.patch_embedding.numpy(), expected["patch_embedding_contrast"], rtol=0, atol=1e-5
    )


def test_error_names_left_over_missing_and_misshapen_tensors(goldens):
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
    """A CLIP of `transformers` under OpenAI's names: the inverse of the converter's mapping, written independently."""
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


def test_error_names_unknown_clip_tensors(counting_model):
    with pytest.raises(ValueError, match=r"visual\.layer1\.0\.conv1\.weight"):
        convert_openai_clip(
            {**_openai_names(counting_model.state_dict()), "visual.layer1.0.conv1.weight": torch.ones(1)}
        )


def test_clip_is_read_from_a_state_dict_and_from_a_folder(counting_model, tmp_path):
    state_dict = _openai_names(counting_model.state_dict())
    torch.save(state_dict, tmp_path / "clip.pt")
    assert read_clip(tmp_path / "clip.pt").keys() == state_dict.keys()
    torch.save({"state_dict": state_dict}, tmp_path / "nested.pt")
    assert read_clip(tmp_path / "nested.pt").keys() == state_dict.keys()
    folder = _clip_folder(tmp_path / "folder")
    assert read_clip(folder).keys() == CLIPModel.from_pretrained(folder).state_dict().keys()
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
    with pytest.raises(ValueError, match=r"contains .*print.*could run code"):
        read_clip_count(tmp_path / "trap.ckpt")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="state_dict"):
        read_clip_count(tmp_path / "other.ckpt")


# --- small models, drawn under the authors' names ---------------------------------------------------------------


VISION_WIDTH, TEXT_WIDTH, PROJECTION_DIM, PATCH_SIZE, SIDE = 128, 64, 128, 16, 4
VISION_LAYERS, TEXT_LAYERS, MAX_LENGTH = 4, 2, 40


def _draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors of a size at which every one of them matters, each drawn from its own name."""
    drawn = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        tensor = torch.randn(shape, generator=generator)
        if len(shape) == 1 and name.endswith("weight"):
            tensor = 1 + 0.2 * tensor
        elif len(shape) <= 1:
            tensor = 0.1 * tensor
        elif "embedding" not in name and "prompt" not in name and "context" not in name:
            tensor = 1.5 * tensor / math.sqrt(math.prod(shape[1:]))
        drawn[name] = tensor
    return drawn


def _pairs(names: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.{suffix}": shape if suffix == "weight" else shape[:1] for name in names.split() for suffix in SUFFIXES
    }


SUFFIXES = ("weight", "bias")


def _tower_shapes(prefix: str, width: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for layer in range(layers):
        block = f"{prefix}transformer.resblocks.{layer}."
        shapes |= {block + "attn.in_proj_weight": (3 * width, width), block + "attn.in_proj_bias": (3 * width,)}
        shapes |= _pairs(block + "attn.out_proj", (width, width))
        shapes |= _pairs(f"{block}ln_1 {block}ln_2", (width,))
        shapes |= _pairs(block + "mlp.c_fc", (4 * width, width)) | _pairs(block + "mlp.c_proj", (width, 4 * width))
    return shapes


@pytest.fixture(scope="module")
def openai_clip(tokenizer):
    """A small CLIP as OpenAI would have saved it."""
    return _draw(
        {
            "visual.class_embedding": (VISION_WIDTH,),
            "visual.conv1.weight": (VISION_WIDTH, 3, PATCH_SIZE, PATCH_SIZE),
            "visual.positional_embedding": (SIDE**2 + 1, VISION_WIDTH),
            **_pairs("visual.ln_pre visual.ln_post", (VISION_WIDTH,)),
            "visual.proj": (VISION_WIDTH, PROJECTION_DIM),
            **_tower_shapes("visual.", VISION_WIDTH, VISION_LAYERS),
            **_tower_shapes("", TEXT_WIDTH, TEXT_LAYERS),
            "token_embedding.weight": (len(tokenizer), TEXT_WIDTH),
            "positional_embedding": (MAX_LENGTH, TEXT_WIDTH),
            **_pairs("ln_final", (TEXT_WIDTH,)),
            "text_projection": (TEXT_WIDTH, PROJECTION_DIM),
            "logit_scale": (),
        }
    )


def _trained(interaction: str, visual_prompts: tuple[int, int] | None = (3, 5), context: int = 2) -> dict:
    """What the authors' Lightning module keeps; `visual_prompts` are depth and number."""
    dim, width = PROJECTION_DIM, VISION_WIDTH
    shapes = _pairs("patch_feat_proj patch_feat_proj_contrast", (dim, width))
    shapes |= _pairs("decoder_ln_pre decoder_norm", (dim,))
    if visual_prompts is not None:
        shapes["img_encoder.visual_prompt"] = (*visual_prompts, width)
        shapes |= _pairs("img_encoder.vpt_norm", (width,)) | _pairs("img_encoder.vpt_proj", (width, width))
    if context:
        shapes["text_encoder.learnable_context"] = (context, TEXT_WIDTH)
    for index in range({"hierarchical": 2, "plain": 3, "add": 0}[interaction]):
        block = f"fim_blocks.{index}."
        shapes |= _pairs(f"{block}norm0 {block}norm1 {block}norm2", (dim,))
        shapes |= _pairs(block + "selfattn.qkv", (3 * dim, dim))
        parts = ("selfattn.proj", "attn.wq", "attn.wk", "attn.wv", "attn.proj")
        shapes |= _pairs(" ".join(block + part for part in parts), (dim, dim))
        shapes |= _pairs(block + "mlp.fc1", (4 * dim, dim)) | _pairs(block + "mlp.fc2", (dim, 4 * dim))
        if interaction == "hierarchical":
            shapes |= _pairs(block + "conv0", (dim, dim, 3, 3))
    levels = 4 if interaction == "hierarchical" else 2
    for level in range(levels):
        narrow = dim // 2 ** (level + 1)
        shapes |= _pairs(f"density_decoder.convs.{level}.0", (narrow, 2 * narrow, 3, 3))
        shapes |= _pairs(f"density_decoder.convs.{level}.1", (narrow,))
    if interaction == "hierarchical":
        shapes |= _pairs("density_decoder.pyradim_conv.0", (dim // 2, dim, 1, 1))
        shapes |= _pairs("density_decoder.pyradim_conv.1", (dim // 2,))
    shapes |= _pairs("density_decoder.final_conv.0", (1, dim // 2**levels, 1, 1))
    return _draw({f"model.{name}": shape for name, shape in shapes.items()})


def _clip_folder(folder, **vision):
    """A small CLIP of `transformers`, saved."""
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 1}
    sizes = {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config={**text, **sizes, **vision}, projection_dim=64)
    CLIPModel(config).save_pretrained(folder)
    return folder


class _Archive(torch.nn.Module):
    """Tensors under dotted names, in half precision, as OpenAI's archives keep them."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        super().__init__()
        for name, tensor in tensors.items():
            module, (*path, leaf) = self, name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_parameter(leaf, torch.nn.Parameter(tensor, requires_grad=False))
        self.register_buffer("input_resolution", torch.tensor(SIDE * PATCH_SIZE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.fixture(scope="module")
def tokenizer_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def written(openai_clip, tokenizer_folder, tmp_path):
    """Write a CLIP and a checkpoint; the arguments of the command that converts them."""

    def write(trained, clip=openai_clip, options=None):
        torch.save(clip, tmp_path / "clip.pt")
        checkpoint = {
            "epoch": 3,
            "global_step": 120,
            "pytorch-lightning_version": "1.9.5",
            "state_dict": trained,
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(17.8), "dirpath": "lightning_logs"}},
            "optimizer_states": [],
            "hyper_parameters": {"args": argparse.Namespace(**({"decoder_head": 4} | (options or {})))},
        }
        torch.save(checkpoint, tmp_path / "model.ckpt")
        arguments = ["--clip", tmp_path / "clip.pt", "--checkpoint", tmp_path / "model.ckpt"]
        arguments += ["--output", tmp_path / "converted", "--tokenizer", tokenizer_folder]
        return ["convert", "clip-count", *map(str, arguments)]

    return write


def _assert_agrees(folder, trained, clip, tokenizer, num_heads=4):
    """Load the saved model, and compare it with the reference on an unseen image."""
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    image = np.random.default_rng(5).integers(0, 256, (384, 384, 3), dtype=np.uint8)
    texts = ["cats", "grey pebbles"]
    with torch.no_grad():
        inputs = processor(images=[image, image], text=texts)
        outputs = model(**inputs)
    rows = [0, len(outputs.counts) // 2]  # each image's first window is the image
    ids = torch.tensor([ids + [0] * (MAX_LENGTH - len(ids)) for ids in tokenizer(texts)["input_ids"]])
    images = torch.from_numpy(image).permute(2, 0, 1).expand(2, -1, -1, -1) / 255
    expected = clip_count_reference(trained, clip, images, ids, num_heads)
    torch.testing.assert_close(outputs.density_map[rows] * 60, expected.density, rtol=0, atol=1e-4)
    torch.testing.assert_close(outputs.text_embeds[rows], expected.text_embedding, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs.patch_embeds[rows], expected.patch_embedding, rtol=1e-4, atol=1e-4)
    assert expected.density.std() > 0.01, "a constant map has no information"
    return model, processor


@pytest.mark.parametrize("interaction", ["hierarchical", "plain", "add"])
@pytest.mark.parametrize(("visual_prompts", "context"), [((3, 5), 2), ((4, 2), 0), (None, 3), (None, 0)])
def test_command_converts_every_architecture(
    openai_clip, written, tokenizer, tmp_path, capsys, interaction, visual_prompts, context
):
    trained = _trained(interaction, visual_prompts, context)
    assert main(written(trained)) == 0
    shown = capsys.readouterr().out
    model, processor = _assert_agrees(tmp_path / "converted", trained, openai_clip, tokenizer)
    config = model.config
    assert config.interaction == interaction
    assert config.text_readout == "authors"
    assert config.num_interaction_heads == 4
    assert (config.visual_prompt_depth, config.num_visual_prompts)[visual_prompts is None :] == (
        visual_prompts or (0,)
    )
    assert config.num_context_tokens == processor.num_context_tokens == context
    image_processor = processor.image_processor
    assert (image_processor.window_size, image_processor.window_stride) == (384, 128)
    assert image_processor.window_blend == "authors"
    assert (tmp_path / "converted" / "model.safetensors").is_file()
    for words in (interaction, f"{VISION_WIDTH}", "text embedding"):
        assert words in shown


def test_jit_archive_converts(openai_clip, written, tokenizer, tmp_path, capsys):
    trained = _trained("plain")
    arguments = written(trained)
    archive = _Archive({name: tensor.half() for name, tensor in openai_clip.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(archive, torch.ones(2)).save(str(tmp_path / "clip.pt"))
    assert main(arguments) == 0, capsys.readouterr().err
    rounded = {name: tensor.half().float() for name, tensor in openai_clip.items()}
    _assert_agrees(tmp_path / "converted", trained, rounded, tokenizer)


def test_folder_of_transformers_converts_with_its_own_tokenizer(openai_clip, written, tokenizer, tmp_path, capsys):
    trained = _trained("add")
    arguments = written(trained)
    converted = convert_openai_clip(openai_clip)
    clip = CLIPModel(CLIPConfig(**clip_sizes(converted)))
    clip.load_state_dict(converted)
    clip.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    arguments[arguments.index("--clip") + 1] = str(tmp_path / "clip")
    assert main(arguments[: arguments.index("--tokenizer")]) == 0, capsys.readouterr().err
    _assert_agrees(tmp_path / "converted", trained, openai_clip, tokenizer)
    arguments[arguments.index("--output") + 1] = str(tmp_path / "clip")
    assert main(arguments) == 2
    assert "overwrite" in capsys.readouterr().err


def test_positions_and_a_frozen_copy_of_the_clip_may_be_in_the_checkpoint(openai_clip, written, tmp_path, capsys):
    trained = _trained("plain")
    angles = np.arange(SIDE**2)[:, None] / 10000 ** (np.arange(0, PROJECTION_DIM, 2) / PROJECTION_DIM)
    positions = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(1, SIDE**2, PROJECTION_DIM)
    trained["model.patch_emb_pos_embed"] = torch.from_numpy(positions).float()
    trained["model.clip.visual.conv1.weight"] = openai_clip["visual.conv1.weight"].half()
    trained["model.img_encoder.vit.ln_pre.bias"] = openai_clip["visual.ln_pre.bias"]
    assert main(written(trained)) == 0, capsys.readouterr().err

    trained["model.patch_emb_pos_embed"] = torch.zeros(1, 49, PROJECTION_DIM)
    assert main(written(trained)) == 2
    assert "trained on images of 49 patches" in capsys.readouterr().err
    trained["model.patch_emb_pos_embed"] = torch.zeros(1, SIDE**2, PROJECTION_DIM)
    assert main(written(trained)) == 2
    assert "does not compute what the authors' does" in capsys.readouterr().err
    del trained["model.patch_emb_pos_embed"]
    trained["model.img_encoder.vit.ln_pre.bias"] = openai_clip["visual.ln_pre.bias"] + 1
    trained["model.clip.visual.ln_extra.bias"] = torch.zeros(1)
    assert main(written(trained)) == 2
    shown = capsys.readouterr().err
    assert "img_encoder.vit.ln_pre.bias differs" in shown
    assert "left over: clip.visual.ln_extra.bias" in shown


def test_error_names_every_mismatched_tensor(openai_clip, written, tmp_path, capsys):
    trained, clip = _trained("plain"), dict(openai_clip)
    del trained["model.fim_blocks.1.selfattn.qkv.bias"]
    del trained["model.fim_blocks.2.mlp.fc1.weight"]
    trained["model.img_encoder.visual_prompt"] = torch.zeros(3, 5, 100)
    trained["model.fim_blocks.0.gate.weight"] = torch.zeros(1)
    trained["model.density_decoder.convs.7.0.weight"] = torch.zeros(1)
    del clip["visual.transformer.resblocks.2.ln_1.bias"]
    assert main(written(trained, clip)) == 2
    shown = capsys.readouterr().err
    for words in (
        "missing: interaction.patch_layers.1.attention.k_proj.bias (theirs: fim_blocks.1.selfattn.qkv.bias)",
        "missing: interaction.text_layers.2.mlp.0.weight (theirs: fim_blocks.2.mlp.fc1.weight)",
        "missing: vision_model.encoder.layers.2.layer_norm1.bias (theirs: visual.transformer.resblocks.2.ln_1.bias)",
        "wrong shape: visual_prompts.prompt_embeds is (3, 5, 100) instead of (3, 5, 128) "
        "(theirs: img_encoder.visual_prompt)",
        "left over: fim_blocks.0.gate.weight",
        "left over: density_decoder.convs.7.0.weight",
    ):
        assert words in shown
    assert not (tmp_path / "converted").exists()


def test_hierarchical_decoder_of_another_width_is_explained(openai_clip, written, capsys):
    trained = _trained("hierarchical")
    trained["model.density_decoder.pyradim_conv.0.weight"] = torch.zeros(64, 512, 1, 1)
    assert main(written(trained)) == 2
    assert "takes 512 channels (pyradim_conv), but this CLIP projects to 128" in capsys.readouterr().err


def test_heads_that_do_not_divide_raise(written, capsys):
    assert main(written(_trained("plain"), options={"decoder_head": 7})) == 2
    assert "multiple of `num_interaction_heads` (7)" in capsys.readouterr().err
    assert main(written(_trained("plain"), options={"decoder_head": "many"})) == 2
    assert "num_interaction_heads" in capsys.readouterr().err
    assert main(written(_trained("plain", visual_prompts=(5, 2)))) == 2
    assert "vision tower's 4 layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "width", "patch_size", "tokens"),
    [("ViT-B/16", 768, 16, 197), ("ViT-B/32", 768, 32, 50), ("ViT-L/14", 1024, 14, 257)],
)
def test_published_backbones_are_recognised(name, width, patch_size, tokens):
    text_width = width * 3 // 4 if width == 1024 else 512
    with torch.device("meta"):
        tensors = {
            "text_projection.weight": torch.empty(text_width, text_width),
            "text_model.embeddings.token_embedding.weight": torch.empty(49408, text_width),
            "text_model.embeddings.position_embedding.weight": torch.empty(77, text_width),
            "text_model.encoder.layers.0.mlp.fc1.weight": torch.empty(4 * text_width, text_width),
            "vision_model.embeddings.patch_embedding.weight": torch.empty(width, 3, patch_size, patch_size),
            "vision_model.embeddings.position_embedding.weight": torch.empty(tokens, width),
            "vision_model.encoder.layers.0.mlp.fc1.weight": torch.empty(4 * width, width),
        }
    sizes = clip_sizes(tensors)
    assert converter._backbone(sizes["vision_config"]) == name
    assert sizes["vision_config"]["num_attention_heads"] == width // 64
    assert sizes["projection_dim"] == text_width
    sizes["vision_config"]["patch_size"] = 8
    assert "patches of 8 px" in converter._backbone(sizes["vision_config"])


def test_clip_of_another_backbone_raises(written, capsys):
    assert main(written(_trained("add"), options={"backbone": "b32"})) == 2
    assert "trained on ViT-B/32, but" in capsys.readouterr().err


def _break_readout(model):
    model.config.text_readout = "eos"


def _break_prompt_rows(model):
    model.visual_prompts.prompt_embeds.data = model.visual_prompts.prompt_embeds.data.roll(1, dims=0)


def _break_epsilon(model):
    model.visual_prompts.norm.eps = 1e-2


def _break_heads(model):
    model.interaction.patch_layers[0].attention.head_dim //= 2


def _break_bias(model):
    model.decoder.density_projection.bias.data += 1e-2


def _break_weights(model):
    model.text_projection.weight.data[0, 0] = float("nan")


@pytest.mark.parametrize(
    ("breakage", "named"),
    [
        (_break_readout, "text embedding"),
        (_break_prompt_rows, "patch embeddings"),
        (_break_epsilon, "patch embeddings"),
        (_break_heads, "density"),
        (_break_bias, "density"),
        (_break_weights, "text embedding by nan"),
    ],
)
def test_wrong_conversion_is_not_saved(written, tmp_path, capsys, monkeypatch, breakage, named):
    def convert_wrongly(*arguments):
        model = convert_clip_count(*arguments)
        breakage(model)
        return model

    arguments = written(_trained("hierarchical"))
    monkeypatch.setattr(converter, "convert_clip_count", convert_wrongly)
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert "not saved" in shown
    assert named in shown
    assert not (tmp_path / "converted").exists()


def test_almost_empty_map_must_agree_too(written, tmp_path, monkeypatch, tokenizer_folder):
    trained = _trained("plain")
    trained["model.density_decoder.final_conv.0.bias"] -= 14

    def convert_wrongly(*arguments):
        model = convert_clip_count(*arguments)
        _break_bias(model)
        return model

    written(trained)
    files = (tmp_path / "clip.pt", tmp_path / "model.ckpt", tmp_path / "converted", tokenizer_folder)
    differences = convert_checkpoint(*files).differences
    assert differences["density"] < 1e-8
    monkeypatch.setattr(converter, "convert_clip_count", convert_wrongly)
    with pytest.raises(ConversionError, match="density by"):
        convert_checkpoint(*files)


def test_tokenizer_must_be_the_one_of_the_clip(written, tmp_path, capsys):
    arguments = written(_trained("add"))
    assert main(arguments[: arguments.index("--tokenizer")]) == 2
    shown = capsys.readouterr().err
    assert "openai/clip-vit-base-patch16" in shown
    assert "Pass a folder with CLIP's tokenizer" in shown
    assert "--tokenizer" in shown
    assert not (tmp_path / "converted").exists()


def test_tokenizer_without_its_merges_raises(tmp_path):
    words = {f"{number}</w>": number for number in range(converter.OPENAI_VOCAB_SIZE - 2)}
    words |= {"<|startoftext|>": len(words), "<|endoftext|>": len(words) + 1}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="people in the crowd"):
        converter._load_tokenizer(tmp_path, converter.OPENAI_VOCAB_SIZE)


def test_files_of_other_formats_raise(written, tmp_path, capsys):
    arguments = written(_trained("add"))

    def error(option, path):
        changed = list(arguments)
        changed[changed.index(option) + 1] = str(path)
        assert main(changed) == 2
        return capsys.readouterr().err

    (tmp_path / "cut.pt").write_bytes((tmp_path / "clip.pt").read_bytes()[:5000])
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pt")
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("archive/constants.pkl", b"junk")
    assert "archive.pt cannot be read" in error("--clip", tmp_path / "archive.pt")
    for option in ("--clip", "--checkpoint"):
        for name in ("cut.pt", "junk.pt", "empty.pt"):
            assert f"{name} cannot be read" in error(option, tmp_path / name)
        assert "nowhere" in error(option, tmp_path / "nowhere")
    assert "has other contents" in error("--clip", tmp_path / "list.pt")
    assert "not a Lightning checkpoint" in error("--checkpoint", tmp_path / "list.pt")
    assert "contains argparse.Namespace" in error("--clip", tmp_path / "model.ckpt")
    assert "is a file" in error("--output", tmp_path / "junk.pt")


def test_folders_of_other_clips_raise(tmp_path):
    assert read_clip(_clip_folder(tmp_path / "good"))
    with pytest.raises(ValueError, match="'gelu', 1, 1e-05"):
        read_clip(_clip_folder(tmp_path / "activation", hidden_act="gelu"))
    with pytest.raises(ValueError, match="'quick_gelu', 2, 1e-05"):
        read_clip(_clip_folder(tmp_path / "heads", num_attention_heads=2))
    config = tmp_path / "good" / "config.json"
    kept = config.read_text()
    config.write_text(kept.replace('"model_type": "clip",', '"model_type": "siglip",'))
    with pytest.raises(ValueError, match="'siglip'"):
        read_clip(tmp_path / "good")
    config.write_text(kept.replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
    with pytest.raises(ValueError, match=r"lacks .*encoder\.layers\.1"):
        read_clip(tmp_path / "good")


def test_options_in_a_lightning_dictionary_are_read(tmp_path, monkeypatch):
    package, parsing = ModuleType("pytorch_lightning"), ModuleType("pytorch_lightning.utilities.parsing")

    class AttributeDict(dict):
        pass

    AttributeDict.__module__, AttributeDict.__qualname__ = parsing.__name__, "AttributeDict"
    parsing.AttributeDict = AttributeDict
    with monkeypatch.context() as patch:
        for module in (package, ModuleType("pytorch_lightning.utilities"), parsing):
            patch.setitem(sys.modules, module.__name__, module)
        torch.save({"state_dict": {}, "hyper_parameters": AttributeDict(decoder_head=2)}, tmp_path / "model.ckpt")
    assert read_clip_count(tmp_path / "model.ckpt") == ({}, {"decoder_head": 2})


def test_openai_names_round_trip(openai_clip):
    there_and_back = openai_tensors(convert_openai_clip(openai_clip))
    assert there_and_back.keys() == openai_clip.keys()
    for name, tensor in openai_clip.items():
        torch.testing.assert_close(there_and_back[name], tensor, rtol=0, atol=0)
