"""The released checkpoints: each folder is what its repository holds, loads in every way, and counts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPProcessor, pipeline

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.datasets_scripts.countscenes.drawings import drawing_classes
from count_clip.evaluation.benchmarks.countbench import evaluate_countbench
from count_clip.evaluation.benchmarks.density import evaluate_density
from count_clip.modeling.auto_classes import MODEL_FAMILIES
from count_clip.trainers.hub.release import prepare_release


RELEASED = Path(__file__).parents[2] / "model_cards"
TYPES = {
    "count-clip-tiny-base": "count_clip",
    "count-clip-tiny": "count_clip",
    "clip-count-tiny": "clip_count_density",
}
NAMES = list(TYPES)
CLIPS = [name for name, model_type in TYPES.items() if model_type == "count_clip"]


def load(name: str) -> tuple:
    return AutoModel.from_pretrained(RELEASED / name).eval(), AutoProcessor.from_pretrained(RELEASED / name)


def test_folders_are_the_three_repositories() -> None:
    assert {path.name for path in RELEASED.iterdir()} == {"README.md", *NAMES}
    sizes = {name: sum(file.stat().st_size for file in (RELEASED / name).iterdir()) for name in NAMES}
    assert max(sizes.values()) < 24e6
    assert sum(sizes.values()) < 60e6


@pytest.mark.parametrize("name", NAMES)
def test_files_are_those_of_a_repository(name: str) -> None:
    files = {path.name for path in (RELEASED / name).iterdir()}
    needed = {"README.md", "config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}
    assert needed <= files
    assert {path.suffix for path in (RELEASED / name).iterdir()} <= {".md", ".json", ".safetensors", ".png"}
    with safe_open(RELEASED / name / "model.safetensors", "pt") as weights:
        dtypes = {weights.get_tensor(key).dtype for key in weights.keys()}  # noqa: SIM118 (it is no dictionary)
    assert {dtype for dtype in dtypes if dtype.is_floating_point} == {torch.float16}


@pytest.mark.parametrize("name", NAMES)
def test_cards_have_what_readers_need(name: str) -> None:
    card = ModelCard.load(RELEASED / name / "README.md", ignore_metadata_errors=False)
    assert card.data.license
    assert card.data.datasets == ["countscenes"]
    assert card.data.library_name == "transformers"
    metrics = {result.metric_type for result in card.data.eval_results}
    assert metrics >= ({"accuracy", "mean_deviation"} if name in CLIPS else {"mae", "rmse", "nmn", "pccn"})
    for heading in ("## Use", "## Figures", "## Training", "## Limits"):
        assert heading in card.text
    assert f"runs/{name.replace('-', '_')}" not in card.text
    assert "/tmp" not in card.text
    assert "More Information Needed" not in card.text


@pytest.mark.parametrize("name", NAMES)
def test_loads_in_single_precision_without_trust(name: str) -> None:
    model, processor = load(name)
    family = MODEL_FAMILIES[TYPES[name]]
    assert (type(model), type(processor)) == (family.model, family.processor)
    assert model.dtype == torch.float32
    assert isinstance(pipeline(family.task, model=str(RELEASED / name)), family.pipeline)


@pytest.mark.parametrize("name", NAMES)
def test_release_brings_its_code(name: str, tmp_path: Path, check_remote_code: Callable[[Path], None]) -> None:
    release = prepare_release(RELEASED / name, tmp_path / name, f"org/{name}")
    assert any(path.startswith("modeling_") for path in release.files)
    assert "auto_map" in json.loads((tmp_path / name / "processor_config.json").read_text())
    check_remote_code(tmp_path / name)


@pytest.mark.parametrize("name", CLIPS)
def test_clips_are_plain_clips_too(name: str) -> None:
    model, _ = load(name)
    plain = CLIPModel.from_pretrained(RELEASED / name).eval()
    inputs = CLIPProcessor.from_pretrained(RELEASED / name)(
        text=["three apples", "four apples"],
        images=[CountScenes("test", "plain", num_scenes=1)[0]["image"]],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        assert torch.allclose(plain(**inputs).logits_per_image, model(**inputs).logits_per_image, atol=1e-4)


def test_the_counting_method_taught_the_base_to_count() -> None:
    scenes = CountScenes("validation", "plain", num_scenes=90)
    base, taught = (evaluate_countbench(*load(name), scenes, progress=False) for name in CLIPS)
    assert base.accuracy < 0.25
    assert taught.accuracy > 0.55
    assert taught.mean_deviation < 0.6 < 2 < base.mean_deviation


def test_the_density_model_counts_better_than_the_mean() -> None:
    scenes = CountScenes("validation", "density", num_scenes=24)
    counts = np.array(scenes.column("count"), dtype=float)
    result = evaluate_density(*load("clip-count-tiny"), scenes, progress=False)
    predicted = np.array([prediction.predicted for prediction in result.predictions])
    assert np.abs(predicted - counts).mean() < 0.5 * np.abs(counts - counts.mean()).mean()


@pytest.mark.parametrize(("split", "objects"), [("train", "drawings"), ("validation", "shapes")])
def test_the_density_model_counts_what_is_named(split: str, objects: str) -> None:
    # New scenes of objects with seen names, and of unseen shapes with names of seen words. The last text of a scene
    # names an absent class.
    counted = count_scenes(CountScenes(split, "mixed", objects=objects, num_scenes=12, **SCENES))
    absent = [predicted for count, predicted, _ in counted if count == 0]
    there = [predicted / count for count, predicted, _ in counted if count]
    assert np.mean(absent) < 0.5 * np.mean([predicted for count, predicted, _ in counted if count])
    assert 0.5 < np.median(there) < 1.5


def test_the_density_model_uses_colours_of_unseen_names() -> None:
    colors = {one.described_plural: {*one.main_colors} for one in drawing_classes()}
    by_presence: dict[bool, list[float]] = {True: [], False: []}
    scenes = CountScenes("validation", "described", num_scenes=10, texts_per_scene=4, seed=1000)
    for count, predicted, row in count_scenes(scenes):
        others = [colors[text] for text in row["other_texts"] if text != row["text"]]
        if colors[row["text"]] and set() not in others and colors[row["text"]] not in others:
            by_presence[count > 0].append(predicted)
    assert min(len(predicted) for predicted in by_presence.values()) > 5
    assert np.mean(by_presence[False]) < 0.5 * np.mean(by_presence[True])


SCENES = {"image_size": 192, "min_classes": 2, "max_classes": 2, "texts_per_scene": 3, "seed": 1000}


def count_scenes(scenes: CountScenes) -> list[tuple[int, float, dict]]:
    counter = pipeline("object-counting", model=str(RELEASED / "clip-count-tiny"))
    counted = []
    for first in range(0, len(scenes), scenes.config.texts_per_scene):
        rows = [scenes[first + place] for place in range(scenes.config.texts_per_scene)]
        predicted = counter(rows[0]["image"], text=[row["text"] for row in rows])
        counted += [(row["count"], one["count"], row) for row, one in zip(rows, predicted, strict=True)]
    return counted


def test_the_pipeline_chooses_the_caption() -> None:
    chooser = pipeline("caption-counting", model=str(RELEASED / "count-clip-tiny"))
    scenes = CountScenes("validation", "plain", num_scenes=18)
    chosen = [chooser(row["image"], text="a photo of {} " + row["name"])[0]["number"] for row in scenes]
    assert sum(abs(one - row["number"]) <= 1 for one, row in zip(chosen, scenes, strict=True)) >= 14


@pytest.mark.parametrize("name", NAMES)
def test_configurations_name_nothing_of_the_machine_that_trained_them(name: str) -> None:
    for file in ("config.json", "processor_config.json", "tokenizer_config.json"):
        content = json.loads((RELEASED / name / file).read_text())
        assert not str(content.get("_name_or_path", "")).startswith(("/", "runs"))
        assert "/tmp" not in json.dumps(content)
