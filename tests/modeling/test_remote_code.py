"""Checkpoints work through the Auto classes here, and with `trust_remote_code` where this package is not installed."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, CLIPModel, CLIPProcessor, pipeline

import count_clip
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting


@pytest.fixture
def folders(counting_model, counting_processor, density_model, density_processor, tmp_path) -> dict[str, Path]:
    """A saved checkpoint of each model, with its processor."""
    saved = {}
    for name, model, processor in (
        ("counting", counting_model, counting_processor),
        ("density", density_model, density_processor),
    ):
        saved[name] = tmp_path / name
        model.save_pretrained(saved[name])
        processor.save_pretrained(saved[name])
    return saved


@pytest.mark.parametrize(
    ("name", "model_class", "processor_class"),
    [
        ("counting", "CLIPForCounting", "CountCLIPProcessor"),
        ("density", "CLIPCountDensityModel", "CLIPCountDensityProcessor"),
    ],
)
def test_auto_classes_find_ours(
    folders, make_image, name, model_class, processor_class, counting_model, density_model
):
    folder = folders[name]
    config = AutoConfig.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    assert type(config).__module__.startswith("count_clip.")
    assert type(model) is getattr(count_clip, model_class)
    assert type(processor) is getattr(count_clip, processor_class)
    inputs = processor([make_image(70, 50)], ["two dogs"])
    original = counting_model if name == "counting" else density_model
    key = "logits_per_image" if name == "counting" else "density_map"
    torch.testing.assert_close(model(**inputs)[key], original(**inputs)[key])


@pytest.mark.parametrize("name", ["counting", "density"])
def test_remote_code_works_where_the_package_is_missing(folders, name, check_remote_code):
    assert "auto_map" in json.loads((folders[name] / "config.json").read_text())
    check_remote_code(folders[name])


def test_plain_clip_classes_read_a_counting_checkpoint(folders, make_image, counting_model):
    model = CLIPModel.from_pretrained(folders["counting"]).eval()
    processor = CLIPProcessor.from_pretrained(folders["counting"])
    inputs = processor(images=[make_image(70, 50)], text=["two dogs"], return_tensors="pt", padding=True)
    torch.testing.assert_close(model(**inputs).logits_per_image, counting_model(**inputs).logits_per_image)


def test_zero_shot_pipeline_loads_a_counting_checkpoint(folders, make_image):
    classify = pipeline("zero-shot-image-classification", model=str(folders["counting"]))
    results = classify(make_image(70, 50), candidate_labels=["dogs", "cats"])
    assert {result["label"] for result in results} == {"dogs", "cats"}


def test_object_counting_pipeline_returns_maps_of_the_original_size(folders, make_image):
    counter = pipeline("object-counting", model=str(folders["density"]))
    result = counter(make_image(130, 70), text="red apples")
    assert result["text"] == "red apples"
    assert result["density_map"].shape == (70, 130)
    assert result["density_map"].dtype == "float32"
    assert float(result["density_map"].sum()) == pytest.approx(result["count"], rel=1e-4)
    several = counter([make_image(130, 70), make_image(60, 60)], text=["red apples", "dogs"], window_batch_size=2)
    assert [[entry["text"] for entry in entries] for entries in several] == [["red apples", "dogs"]] * 2
    assert several[0][0]["count"] == pytest.approx(result["count"], rel=1e-4)
    assert counter({"image": make_image(130, 70), "text": "red apples"})["count"] == pytest.approx(result["count"])
    with pytest.raises(ValueError, match="no prompt"):
        counter(make_image(60, 60))


def test_caption_counting_pipeline_ranks_two_to_ten(folders, make_image):
    counter = pipeline("caption-counting", model=str(folders["counting"]))
    ranked = counter(make_image(70, 50), text="a photo of {} dogs")
    assert sorted(entry["number"] for entry in ranked) == list(range(2, 11))
    assert sum(entry["score"] for entry in ranked) == pytest.approx(1, abs=1e-5)
    assert [entry["score"] for entry in ranked] == sorted((entry["score"] for entry in ranked), reverse=True)
    assert counter(make_image(70, 50), text="a photo of Five dogs")[0].keys() == {"number", "score"}
    with pytest.raises(ValueError, match="number word"):
        counter(make_image(70, 50), text="a photo of someone")


def test_saved_weights_are_safetensors(folders):
    for folder in folders.values():
        assert (folder / "model.safetensors").is_file()
        assert not list(folder.glob("*.bin"))


def test_classes_load_by_name(folders):
    assert isinstance(CLIPForCounting.from_pretrained(folders["counting"]), CLIPForCounting)
    assert isinstance(CLIPCountDensityModel.from_pretrained(folders["density"]), CLIPCountDensityModel)


def test_pipelines_have_equal_results_at_every_batch_size(folders, make_image, tmp_path):
    images = [make_image(130, 70, 1), make_image(60, 60, 2), make_image(200, 48, 3)]
    counter = pipeline("object-counting", model=str(folders["density"]))
    rows = [{"image": image, "text": text} for image, text in zip(images, ["a", "zebras", "cats"], strict=True)]
    alone = [counter(row)["count"] for row in rows]
    assert [result["count"] for result in counter(rows, batch_size=3)] == pytest.approx(alone, rel=1e-5)
    chooser = pipeline("caption-counting", model=str(folders["counting"]), batch_size=2)
    for ranked in chooser(images, text="{} dogs"):
        assert sorted(entry["number"] for entry in ranked) == list(range(2, 11))
        assert sum(entry["score"] for entry in ranked) == pytest.approx(1, abs=1e-5)


def test_pipelines_read_paths_and_name_missing_images(folders, make_image, tmp_path):
    make_image(60, 50).save(tmp_path / "here.png")
    counter = pipeline("object-counting", model=str(folders["density"]))
    expected = counter(make_image(60, 50), text="dogs")["count"]
    for path in (tmp_path / "here.png", str(tmp_path / "here.png")):
        assert counter(path, text="dogs")["count"] == pytest.approx(expected)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        counter(str(tmp_path / "nowhere.png"), text="dogs")
    with pytest.raises(ValueError, match="no prompt"):
        counter(make_image(60, 50), text=[])


def test_a_caption_whose_number_is_beyond_the_models_tokens_raises(folders, make_image):
    chooser = pipeline("caption-counting", model=str(folders["counting"]))
    with pytest.raises(ValueError, match="beyond the"):
        chooser(make_image(60, 50), text="x " * 60 + "{} dogs")
