import logging

import numpy as np
import pytest
from PIL import Image

from count_clip.datasets_scripts.countscenes.sprites import SpriteStore, sprite_folder, sprite_patch, stretch_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNT_CLIP_SPRITES", str(tmp_path / "sprites"))
    return tmp_path / "sprites"


class Discs:
    """Draws discs in two colours and counts the calls."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, int]] = []

    def __call__(self, image: int, side: int) -> Image.Image:
        self.drawn.append((image, side))
        rows, columns = np.mgrid[:side, :side] + 0.5 - side / 2
        pixels = np.zeros((side, side, 4), dtype=np.uint8)
        pixels[rows**2 + columns**2 < (0.4 * side) ** 2] = ((200, 40, 40, 255), (40, 40, 200, 255))[image]
        return Image.fromarray(pixels)


def test_small_sprites_are_drawn_once_for_all_processes(folder) -> None:
    first = Discs()
    store = SpriteStore("discs", 2, first)
    sprites = [store.get(image, 20).tobytes() for image in (0, 1)]
    assert store.get(0, 20) is store.get(0, 24)
    assert first.drawn == [(0, 24), (1, 24)]
    assert [file.name for file in folder.iterdir()] == ["discs-24.npy"]
    second = Discs()
    again = SpriteStore("discs", 2, second)
    assert [again.get(image, 20).tobytes() for image in (0, 1)] == sprites
    assert second.drawn == []
    # Another key, other sprites.
    SpriteStore("other discs", 2, second).get(0, 20)
    assert second.drawn == [(0, 24), (1, 24)]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY and no more", b"text"])
def test_broken_file_is_replaced(folder, content: bytes) -> None:
    whole = SpriteStore("discs", 2, Discs()).get(1, 30).tobytes()
    (folder / "discs-32.npy").write_bytes(content)
    assert SpriteStore("discs", 2, Discs()).get(1, 30).tobytes() == whole
    third = Discs()
    SpriteStore("discs", 2, third).get(1, 30)
    assert third.drawn == []


def test_file_of_another_shape_is_replaced(folder) -> None:
    SpriteStore("discs", 1, Discs()).get(0, 30)
    drawn = Discs()
    assert SpriteStore("discs", 2, drawn).get(1, 30).size == (32, 32)
    assert drawn.drawn == [(0, 32), (1, 32)]


def test_large_sprites_are_drawn_when_needed(folder) -> None:
    discs = Discs()
    store = SpriteStore("discs", 2, discs, max_pack_bytes=2 * 4 * 64 * 64)
    store.get(1, 100)
    assert discs.drawn == [(1, 128)]
    assert not folder.exists()


def test_memory_is_bounded(folder) -> None:
    store = SpriteStore("discs", 2, Discs(), max_bytes=4 * 96 * 96)
    for size in (12, 16, 24, 32, 48, 64, 96):
        store.get(0, size)
        assert store.cache.num_bytes <= 4 * 96 * 96
    store.clear()
    assert store.cache.num_bytes == 0


def test_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COUNT_CLIP_SPRITES", str(tmp_path / "file" / "sprites"))
    with caplog.at_level(logging.WARNING):
        assert SpriteStore("discs", 2, Discs()).get(0, 20).size == (24, 24)
    assert "each process draws its own" in caplog.text


def test_folder_is_in_the_cache_of_datasets_by_default(monkeypatch) -> None:
    import datasets

    monkeypatch.delenv("COUNT_CLIP_SPRITES")
    assert str(datasets.config.HF_DATASETS_CACHE) in str(sprite_folder())


def test_edges_have_no_dark_fringe() -> None:
    store = SpriteStore("discs", 2, Discs())
    patch = sprite_patch(store.get(0, 40), (0.0, 0.0), 40, 17.0, 2, False)
    pixels, opacity = np.asarray(patch.pixels)[..., :3].astype(int), np.asarray(patch.opacity)
    # Every visible pixel is red, not a mixture with the black of transparent ones.
    assert np.abs(pixels[opacity > 8] - (200, 40, 40)).max() <= 24


def test_anchor_is_on_the_object() -> None:
    store = SpriteStore("discs", 2, Discs())
    patch = sprite_patch(store.get(0, 40), (1.0, 0.0), 40, 0.0, 2, False)
    x, y = patch.anchor
    assert patch.mask[int(y), int(x)]
    assert x > 30
    assert abs(y - 20) < 4


def test_thin_objects_are_visible_at_a_few_pixels() -> None:
    def needle(image: int, side: int) -> Image.Image:
        pixels = np.zeros((side, side, 4), dtype=np.uint8)
        pixels[side // 8 : -side // 8, side // 2] = (90, 90, 90, 70 if image else 255)
        return Image.fromarray(pixels)

    for image in (0, 1):
        for size in (4, 4.5, 6, 9):
            for degrees in range(0, 180, 15):
                sprite = SpriteStore("needle", 2, needle).get(image, 12)
                patch = sprite_patch(sprite, (0.0, 0.5), size, degrees, 2, False)
                assert patch.mask.any()
                x, y = patch.anchor
                assert patch.mask[int(y), int(x)]
    nothing = Image.new("RGBX", (12, 12), (0, 0, 0, 0))
    assert sprite_patch(nothing, (0.0, 0.0), 5, 0.0, 2, False).mask.sum() == 1


def test_image_that_cannot_be_drawn_is_named_and_the_others_are_used(folder, caplog) -> None:
    class Broken(Discs):
        def __call__(self, image: int, side: int) -> Image.Image:
            if image == 1:
                raise ValueError("the second one is broken")
            return super().__call__(image, side)

    store = SpriteStore("discs", 2, Broken())
    assert store.get(0, 20).size == (24, 24)
    assert caplog.text.count("the second one is broken") == 1
    for size in (20, 60, 700):
        with pytest.raises(ValueError, match="the second one is broken"):
            store.get(1, size)
    # What is missing from it is not kept.
    assert not folder.exists()
    assert SpriteStore("discs", 2, Discs()).get(1, 20).size == (24, 24)


def test_thin_objects_are_drawn_larger() -> None:
    assert stretch_of(0.9) == stretch_of(0.45) == 1.0
    assert stretch_of(0.3) == pytest.approx(1.5**0.5, abs=1 / 64)
    assert stretch_of(0.01) == 1.375
