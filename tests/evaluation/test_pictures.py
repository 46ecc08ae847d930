import io

import numpy as np
import pytest
from PIL import Image

from count_clip.evaluation.pictures import PictureError, open_picture, to_rgb


def _bytes(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_all_ways_to_give_a_picture_give_the_same(picture, tmp_path):
    image = picture(7, 5)
    path = tmp_path / "a.png"
    image.save(path)
    ways = [image, path, str(path), np.asarray(image), {"bytes": _bytes(image), "path": None}, {"path": str(path)}]
    for way in ways:
        np.testing.assert_array_equal(np.asarray(open_picture(way)), np.asarray(image))
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5, 1)
    assert open_picture(grey).mode == "L"


def test_pictures_are_turned_as_the_camera_says(picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = open_picture({"bytes": _bytes(picture(7, 5), "JPEG", exif=exif), "path": "a.jpg"})
    assert turned.size == (5, 7)


def test_unreadable_pictures_say_which_and_why(picture, tmp_path):
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(_bytes(picture(64, 64), "JPEG")[:900])
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    cases = [
        (None, "there is none"),
        (cut, "cut.jpg"),
        (empty, "empty.png"),
        (tmp_path / "gone.png", "no file .*gone.png"),
        (tmp_path, "is a folder"),
        ({"bytes": None, "path": None}, "neither"),
        ({"bytes": b"junk", "path": "b.png"}, "b.png"),
        (7, "but got int"),
        (np.zeros((2, 2, 7), np.uint8), "cannot be read"),
        (Image.new("RGB", (0, 3)), "no pixels"),
    ]
    for value, words in cases:
        with pytest.raises(PictureError, match=words):
            open_picture(value)
    with pytest.raises(PictureError, match="row-3"):
        open_picture(None, "row-3")


def test_an_absurdly_large_picture_is_refused(picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(PictureError, match="exceeds limit"):
        open_picture({"bytes": _bytes(picture(30, 30)), "path": "bomb.png"})


def test_deep_pictures_are_stretched():
    deep = Image.fromarray(np.array([[1000, 2000], [3000, 4000]], dtype=np.uint16))
    np.testing.assert_array_equal(np.asarray(to_rgb(deep))[..., 0], [[0, 85], [170, 255]])
    floats = Image.fromarray(np.array([[0.0, np.nan], [0.5, 1.0]], dtype=np.float32))
    np.testing.assert_array_equal(np.asarray(to_rgb(floats))[..., 1], [[0, 0], [128, 255]])
    assert to_rgb(Image.fromarray(np.full((2, 2), 700, dtype=np.int32))).getpixel((0, 0)) == (255, 255, 255)


def test_transparent_pictures_lie_on_white():
    assert to_rgb(Image.new("RGBA", (1, 1), (200, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("LA", (1, 1), (40, 255))).getpixel((0, 0)) == (40, 40, 40)
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30])
    assert to_rgb(palette).getpixel((0, 0)) == (10, 20, 30)
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_rgb(mode):
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"
