"""What the pages of the documentation name, small: checkpoints on a Hub on this machine, images, sets, folders."""

import importlib.util
import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel


def _small_sets() -> dict[str, Any]:
    # Tests are no package to import from.
    path = Path(__file__).parents[1] / "datasets_scripts" / "conftest.py"
    spec = importlib.util.spec_from_file_location("small_sets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


_SETS = _small_sets()
fsc147, carpk, shanghaitech = _SETS["fsc147"], _SETS["carpk"], _SETS["shanghaitech"]

# Checkpoints of the web that the pages name. A CLIP of as many layers stands for each.
WEB_CLIPS = ("base-patch32", "base-patch16", "large-patch14", "large-patch14-336")


@pytest.fixture(scope="session")
def checkpoints(
    _counting_model, _density_model, counting_processor, density_processor, tokenizer, tmp_path_factory
) -> dict[str, Path]:
    """A folder for each name."""
    root = tmp_path_factory.mktemp("checkpoints")
    layers = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 12, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    clip = CLIPModel(
        CLIPConfig(
            text_config={**layers, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 40},
            vision_config={**layers, "image_size": 32, "patch_size": 8},
            projection_dim=128,
        )
    )
    models = {
        "org/count-clip": (_counting_model, counting_processor),
        "org/clip-count": (_density_model, density_processor),
    }
    models |= {f"openai/clip-vit-{name}": (clip, counting_processor) for name in WEB_CLIPS}
    for name, (model, processor) in models.items():
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return {name: root / name for name in models}


@pytest.fixture
def hub_with_checkpoints(hub_here, checkpoints, monkeypatch) -> Any:
    """The Hub, with the checkpoints under their names; `datasets` asks it too."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub_here.url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for name, folder in checkpoints.items():
        repository = sys.modules["hub_stand_in"].Repository(private=False)
        repository.commit({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})
        hub_here.repositories["model", name] = repository
    return hub_here


@pytest.fixture
def workplace(fsc147, carpk, shanghaitech, checkpoints, tmp_path, monkeypatch, make_image) -> Path:
    """The folder that a reader works in: images and data sets under the names that the pages use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for place, name in enumerate(["apples.jpg", "dogs.jpg", "image.png", "photos/a.png", "photos/more/b.png"]):
        make_image(60, 48, place).save(tmp_path / name)
    _film(tmp_path / "traffic.mp4")
    _captions(tmp_path)
    (tmp_path / "birds" / "images").mkdir(parents=True)
    make_image(40, 30, 9).save(tmp_path / "birds" / "images" / "owl.png")
    (tmp_path / "birds" / "points.csv").write_text("file_name,x,y\nowl.png,3,4\nowl.png,20,11\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "model_cards").symlink_to(Path(__file__).parents[2] / "model_cards")
    return tmp_path


def _film(path: Path) -> None:
    av = pytest.importorskip("av", reason="videos need PyAV: pip install count-clip[video]")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 64, 48, "yuv420p", Fraction(1, 10)
        for index in range(5):
            frame = av.VideoFrame.from_image(Image.fromarray(np.full((48, 64, 3), 40 * index, dtype=np.uint8)))
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _captions(folder: Path) -> None:
    captions, numbers = ["two dogs", "three cats on a mat", "seven hens", "two cows"], [2, 3, 7, 2]
    images = [Image.new("RGB", (40, 30), (20 * place, 90, 30)) for place in range(4)]
    for name in ("shards", "counting", "general"):
        (folder / name).mkdir()
    shard = datasets.Dataset.from_dict({"image": images, "caption": captions})
    shard.to_parquet(folder / "shards" / "0.parquet")
    counting = datasets.Dataset.from_dict({"image": images, "text": captions, "number": numbers})
    counting.to_parquet(folder / "counting" / "train.parquet")
    texts = [f"an image, number {place} of them" for place in range(60)]
    general = datasets.Dataset.from_dict({"image": images * 15, "text": texts})
    general.to_parquet(folder / "general" / "train.parquet")
    (folder / "CountBench" / "images").mkdir(parents=True)
    rows = [{"text": text, "number": n, "image_url": ""} for text, n in zip(captions, numbers, strict=True)]
    (folder / "CountBench" / "CountBench.json").write_text(json.dumps(rows))
    for place, one in enumerate(images):
        one.save(folder / "CountBench" / "images" / f"{place}.jpg")
