"""`count-clip export`: what is written computes what the checkpoint computes."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTextModel,
    CLIPVisionModel,
    pipeline,
)
from transformers.models.clip import CLIPImageProcessorPil

from count_clip import CLIPCountDensityModel, CLIPForCounting, CountCLIPConfig, load_adapted_model
from count_clip.cli import main
from count_clip.export import clip as export_clip
from count_clip.export import onnx as export_onnx


@pytest.fixture(scope="module")
def clip_folder(counting_folder: str, tmp_path_factory) -> Path:
    """The tiny count-aware CLIP as a plain one."""
    folder = tmp_path_factory.mktemp("export") / "clip"
    assert main(["export", "clip", counting_folder, "--output", str(folder)]) == 0
    return folder


def test_plain_clip_has_the_weights_and_the_logits(
    clip_folder: Path, counting_folder: str, make_image: Callable
) -> None:
    expected, found = (load_file(Path(folder) / "model.safetensors") for folder in (counting_folder, clip_folder))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    model, processor = AutoModel.from_pretrained(clip_folder).eval(), AutoProcessor.from_pretrained(clip_folder)
    assert type(model) is CLIPModel
    assert type(processor) is CLIPProcessor
    inputs = processor(images=[make_image(70, 50)], text=["two dogs", "five"], return_tensors="pt", padding=True)
    ours = AutoProcessor.from_pretrained(counting_folder)(images=[make_image(70, 50)], text=["two dogs", "five"])
    with torch.no_grad():
        logits = CLIPForCounting.from_pretrained(counting_folder).eval()(**ours).logits_per_image
        torch.testing.assert_close(model(**inputs).logits_per_image, logits)


def test_plain_clip_has_no_trace_of_this_package(clip_folder: Path) -> None:
    assert not list(clip_folder.glob("*.py"))
    config = json.loads((clip_folder / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("clip", ["CLIPModel"])
    for name in ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        text = (clip_folder / name).read_text()
        assert not re.search("count|auto_map", text, re.IGNORECASE), name
    assert 'CLIPModel.from_pretrained("ORG/NAME")' in (clip_folder / "README.md").read_text()


def test_pipelines_take_the_plain_clip(clip_folder: Path, make_image: Callable) -> None:
    classify = pipeline("zero-shot-image-classification", model=str(clip_folder))
    answers = classify(make_image(70, 50), candidate_labels=["dogs", "cats"])
    assert {answer["label"] for answer in answers} == {"dogs", "cats"}
    vision = CLIPVisionModel.from_pretrained(clip_folder).eval()
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    extract = pipeline("image-feature-extraction", model=vision, image_processor=processor)
    with torch.no_grad():
        hidden = vision(processor(make_image(70, 50), return_tensors="pt")["pixel_values"]).last_hidden_state
    torch.testing.assert_close(torch.tensor(extract(make_image(70, 50))), hidden)


def test_text_encoder_loads_alone(clip_folder: Path, counting_folder: str) -> None:
    alone = CLIPTextModel.from_pretrained(clip_folder).eval()
    tower = CLIPForCounting.from_pretrained(counting_folder).eval().text_model
    ids = torch.tensor([[512, 5, 6, 513]])
    with torch.no_grad():
        torch.testing.assert_close(alone(ids).last_hidden_state, tower(ids).last_hidden_state)


def test_diffusers_takes_the_text_encoder(clip_folder: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    text_encoder = CLIPTextModel.from_pretrained(clip_folder)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_encoder.config.hidden_size,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8)
    draw = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=CLIPProcessor.from_pretrained(clip_folder).tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    draw.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    found = draw("two dogs", height=8, width=8, num_inference_steps=2, generator=generator, output_type="np").images
    assert found.shape == (1, 8, 8, 3)


def test_sentence_transformers_takes_the_plain_clip(clip_folder: Path, make_image: Callable) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(clip_folder), device="cpu")
    clip, processor = CLIPModel.from_pretrained(clip_folder).eval(), CLIPProcessor.from_pretrained(clip_folder)
    inputs = processor(images=make_image(70, 50), text=["two dogs"], return_tensors="pt", padding=True)
    with torch.no_grad():
        outputs = clip(**inputs)
    for given, expected in ((make_image(70, 50), outputs.image_embeds), ("two dogs", outputs.text_embeds)):
        embeds = torch.nn.functional.normalize(torch.tensor(model.encode(given)), dim=-1)
        torch.testing.assert_close(embeds, expected[0], rtol=1e-4, atol=1e-5)


def test_export_has_the_requested_dtype(counting_folder: str, tmp_path: Path) -> None:
    assert main(["export", "clip", counting_folder, "--output", str(tmp_path / "x"), "--dtype", "bfloat16"]) == 0
    assert {tensor.dtype for tensor in load_file(tmp_path / "x" / "model.safetensors").values()} == {torch.bfloat16}
    assert CLIPModel.from_pretrained(tmp_path / "x").dtype == torch.bfloat16


def test_what_differs_is_not_kept(counting_folder: str, tmp_path: Path, capsys, monkeypatch) -> None:
    save = CLIPModel.save_pretrained

    def spoil(model: Any, *args: Any, **kwargs: Any) -> None:
        model.logit_scale.data += 1
        save(model, *args, **kwargs)

    monkeypatch.setattr(CLIPModel, "save_pretrained", spoil)
    assert main(["export", "clip", counting_folder, "--output", str(tmp_path / "x")]) == 2
    assert "weights differ from the checkpoint's: logit_scale" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(export_clip, "LOGIT_TOLERANCE", -1.0)
    assert main(["export", "clip", counting_folder, "--output", str(tmp_path / "x")]) == 2
    assert "gives other logits" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def plain_folder(tower_sizes: dict, tmp_path_factory) -> Path:
    """A CLIP that was never count-aware, without a processor."""
    folder = tmp_path_factory.mktemp("plain")
    CLIPModel(CLIPConfig(**tower_sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", ["clip", "onnx"])
def test_what_cannot_be_exported_is_refused(
    form: str, counting_folder: str, density_folder: str, plain_folder: Path, tmp_path: Path, capsys
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    adapted = get_peft_model(CLIPForCounting.from_pretrained(counting_folder), LoraConfig(target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    new = tmp_path / "new"
    cases = [
        (counting_folder, taken, "it holds something"),
        (counting_folder, taken / "mine.txt" / "x", "cannot be written"),
        (str(tmp_path / "nowhere"), new, "There is no folder"),
        (str(tmp_path / "bert"), new, "is of type 'bert'"),
        (str(tmp_path / "adapter"), new, "merge_and_unload()"),
    ]
    if form == "clip":
        cases += [(density_folder, new, "is a density model"), (str(plain_folder), new, "a plain CLIP already")]
    for model, output, words in cases:
        assert main(["export", form, model, "--output", str(output)]) == 2
        printed = capsys.readouterr().err
        assert words in printed
        assert "Traceback" not in printed
    assert (taken / "mine.txt").read_text() == "mine"
    assert not new.exists()
    assert not list(tmp_path.glob(".*"))


def test_merged_adapters_can_be_exported(counting_folder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(CLIPForCounting.from_pretrained(counting_folder), config)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = load_adapted_model(str(tmp_path / "adapter")).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    AutoProcessor.from_pretrained(counting_folder).save_pretrained(tmp_path / "merged")
    assert main(["export", "clip", str(tmp_path / "merged"), "--output", str(tmp_path / "clip")]) == 0
    inputs = {"input_ids": torch.tensor([[512, 5, 513]]), "pixel_values": torch.rand(1, 3, 32, 32)}
    with torch.no_grad():
        expected = adapted.eval()(**inputs).logits_per_image
        found = CLIPModel.from_pretrained(tmp_path / "clip").eval()(**inputs).logits_per_image
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def small_folders(
    density_config: Callable, tower_sizes: dict, counting_processor, density_processor, tmp_path_factory
) -> dict[str, Path]:
    """Both models with a layer in each tower: what the exporter takes grows with the number of layers."""
    place = tmp_path_factory.mktemp("small")
    towers = {name: {**tower_sizes[name], "num_hidden_layers": 1} for name in ("text_config", "vision_config")}
    torch.manual_seed(0)
    counting = CLIPForCounting(CountCLIPConfig(**{**tower_sizes, **towers}))
    config = density_config(visual_prompt_depth=1)
    config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = 1
    density = CLIPCountDensityModel(config)
    models = {"counting": (counting, counting_processor), "density": (density, density_processor)}
    for name, (model, processor) in models.items():
        model.save_pretrained(place / name)
        processor.save_pretrained(place / name)
    return {name: place / name for name in models}


@pytest.fixture(scope="module")
def onnx_folders(small_folders: dict, tmp_path_factory) -> Callable[..., Path]:
    """Some parts of a model as ONNX; each is exported once."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    place = tmp_path_factory.mktemp("onnx")

    def export(name: str, *parts: str) -> Path:
        folder = place / "-".join([name, *parts])
        if not folder.exists():
            only = [word for part in parts for word in ("--only", part)]
            assert main(["export", "onnx", str(small_folders[name]), "--output", str(folder), *only]) == 0
        return folder

    return export


def run_onnx(path: Path, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, {name: one.numpy() for name, one in inputs.items()}), strict=True))


def close(found: np.ndarray, expected: torch.Tensor) -> None:
    assert found.shape == tuple(expected.shape)
    assert np.abs(found - expected.detach().numpy()).max() <= 1e-4 * np.abs(expected.detach().numpy()).max()


COUNTING_CASES = ((1, ["two"]), (4, ["two dogs", "a much longer caption", "x"]))
DENSITY_CASES = (((48, 48), ["dogs"]), ((90, 60), ["red apples", "zebras and horses", "x"]))


@pytest.mark.timeout(240)  # the exporter takes some seconds a file, and more on a busy machine
def test_onnx_of_a_counting_clip_computes_the_same(
    onnx_folders: Callable, small_folders: dict, make_image: Callable
) -> None:
    folder, source = onnx_folders("counting", "model"), small_folders["counting"]
    model, processor = AutoModel.from_pretrained(source).eval(), AutoProcessor.from_pretrained(source)
    for images, texts in COUNTING_CASES:
        inputs = dict(processor(images=[make_image(70, 50, i) for i in range(images)], text=texts))
        with torch.no_grad():
            expected = model(**inputs)
        found = run_onnx(folder / "model.onnx", inputs)
        assert list(found) == ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
        for name, value in found.items():
            close(value, expected[name])


@pytest.mark.timeout(240)
def test_onnx_of_a_density_model_computes_the_same(
    onnx_folders: Callable, small_folders: dict, make_image: Callable
) -> None:
    folder, source = onnx_folders("density", "text_model", "density_model"), small_folders["density"]
    model, processor = AutoModel.from_pretrained(source).eval(), AutoProcessor.from_pretrained(source)
    for size, texts in DENSITY_CASES:
        pixel_values = processor([make_image(*size)], ["x"])["pixel_values"]
        tokens = processor.tokenize(texts)
        with torch.no_grad():
            embeds = model.get_text_embeds(tokens["input_ids"], tokens["attention_mask"])
            windows = {"pixel_values": pixel_values, "text_embeds": embeds[None].repeat(len(pixel_values), 1, 1)}
            expected = model(**windows)
        close(run_onnx(folder / "text_model.onnx", dict(tokens))["text_embeds"], embeds)
        found = run_onnx(folder / "density_model.onnx", windows)
        close(found["density_map"], expected.density_map)
        close(found["counts"], expected.counts)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_other_onnx_files_compute_the_same(
    onnx_folders: Callable, small_folders: dict, make_image: Callable
) -> None:
    folder, source = onnx_folders("counting", "text_model", "vision_model"), small_folders["counting"]
    model, processor = AutoModel.from_pretrained(source).eval(), AutoProcessor.from_pretrained(source)
    for images, texts in COUNTING_CASES:
        inputs = dict(processor(images=[make_image(70, 50, i) for i in range(images)], text=texts))
        with torch.no_grad():
            expected = model(**inputs)
        vision = run_onnx(folder / "vision_model.onnx", {"pixel_values": inputs["pixel_values"]})
        close(vision["image_embeds"], expected.image_embeds)
        tokens = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        close(run_onnx(folder / "text_model.onnx", tokens)["text_embeds"], expected.text_embeds)
    folder, source = onnx_folders("density", "model"), small_folders["density"]
    model, processor = AutoModel.from_pretrained(source).eval(), AutoProcessor.from_pretrained(source)
    for size, texts in DENSITY_CASES:
        inputs = processor([make_image(*size)], texts[:1])
        own = {name: inputs[name] for name in ("input_ids", "pixel_values", "attention_mask")}
        with torch.no_grad():
            expected = model(**own)
        found = run_onnx(folder / "model.onnx", own)
        close(found["density_map"], expected.density_map)
        close(found["counts"], expected.counts)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["counting", "density"])
def test_the_code_beside_the_onnx_files_runs(
    name: str, onnx_folders: Callable, small_folders: dict, make_image: Callable, monkeypatch, capsys
) -> None:
    parts = {"counting": ["model"], "density": ["text_model", "density_model"]}[name]
    folder = onnx_folders(name, *parts)
    about = json.loads((folder / "onnx_export.json").read_text())
    assert about["opset"] == 18
    assert about["files"].keys() == {path.name for path in folder.glob("*.onnx")}
    assert all(one["difference"] <= about["tolerance"] == 1e-4 for one in about["files"].values())
    text = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    monkeypatch.chdir(folder)
    photo: Image.Image = make_image(90, 60)
    photo.save(folder / "image.png")
    capsys.readouterr()  # the table of the export, if this test is the first to need it
    exec(code, {})
    printed = capsys.readouterr().out.strip()
    if name == "counting":
        assert printed in {f"a photo of {number} dogs" for number in ("two", "three", "four")}
    else:
        counter = pipeline("object-counting", model=str(small_folders["density"]))
        assert float(printed) == pytest.approx(counter(photo, text="red apples")["count"], rel=1e-4)


@pytest.mark.timeout(240)
def test_onnx_that_differs_is_not_kept(
    onnx_folders: Callable, small_folders: dict, tmp_path: Path, capsys, monkeypatch
) -> None:
    other = onnx_folders("counting", "model") / "model.onnx"
    model = CLIPForCounting.from_pretrained(small_folders["counting"])
    model.logit_scale.data += 0.1
    model.save_pretrained(tmp_path / "model")

    class Program:
        def save(self, path: Path) -> None:
            shutil.copy(other, path)

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    command = ["export", "onnx", str(tmp_path / "model"), "--output", str(tmp_path / "x"), "--only", "model"]
    assert main(command) == 2
    assert "logits_per_image of model.onnx differs from the model's" in capsys.readouterr().err

    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("no such operator\nand more")

    monkeypatch.setattr(torch.onnx, "export", fail)
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert "model cannot be exported by torch" in printed
    assert "no such operator" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_wrong_parts_opsets_and_missing_packages(counting_folder: str, tmp_path: Path, capsys, monkeypatch) -> None:
    command = ["export", "onnx", counting_folder, "--output", str(tmp_path / "x")]
    pytest.importorskip("onnxscript")
    assert main([*command, "--only", "decoder"]) == 2
    assert "(model, text_model, vision_model), but got ['decoder']" in capsys.readouterr().err
    assert main([*command, "--opset", "11"]) == 2
    assert "Expected an opset of 18 or more" in capsys.readouterr().err
    find = export_onnx.importlib.util.find_spec
    monkeypatch.setattr(export_onnx.importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    assert main(command) == 2
    assert "pip install 'count-clip[onnx]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
