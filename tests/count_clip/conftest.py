"""Checkpoints and images as files, for the commands."""

from pathlib import Path

import datasets
import pytest


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """The cache of `datasets` is a temporary folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def density_folder(_density_model, density_processor, tmp_path_factory) -> str:
    """A tiny density model with its processor."""
    folder = tmp_path_factory.mktemp("density")
    _density_model.save_pretrained(folder)
    density_processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def counting_folder(_counting_model, counting_processor, tmp_path_factory) -> str:
    """A tiny count-aware CLIP with its processor."""
    folder = tmp_path_factory.mktemp("counting")
    _counting_model.save_pretrained(folder)
    counting_processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photos(make_image, tmp_path) -> Path:
    """Two images, one of them in a folder below, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    make_image(60, 48, 0).save(folder / "a.png")
    make_image(48, 100, 1).save(folder / "more" / "b.JPG", "JPEG")
    (folder / "notes.txt").write_text("not an image")
    return folder
