"""Reading images: every file and array becomes upright RGB, or raises an error with its name."""

import base64
import http.server
import io
import pickle
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from count_clip.modeling.images import ImageError, ImageNotFoundError, open_image, to_rgb


def _solid(mode: str, colour: object, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


def _bytes(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _palette(transparent: bool) -> Image.Image:
    image = Image.new("P", (6, 4), 0)
    image.putpalette([10, 20, 30])
    if transparent:
        image.info["transparency"] = 0
    return image


DEEP = np.full((4, 6), 32768, np.uint16)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (_solid("RGB", (10, 20, 30)), (10, 20, 30)),
        (_solid("L", 77), (77, 77, 77)),
        (_solid("RGBA", (10, 20, 30, 0)), (255, 255, 255)),
        (_solid("RGBA", (10, 20, 30, 255)), (10, 20, 30)),
        (_solid("RGBA", (0, 0, 0, 51)), (204, 204, 204)),
        (_solid("RGBa", (10, 20, 30, 255)), (10, 20, 30)),
        (_solid("LA", (50, 255)), (50, 50, 50)),
        (_solid("La", (50, 255)), (50, 50, 50)),
        (_solid("1", 1), (255, 255, 255)),
        (_solid("CMYK", (0, 0, 0, 0)), (255, 255, 255)),
        (_solid("CMYK", (0, 0, 0, 255)), (0, 0, 0)),
        (_solid("HSV", (0, 0, 90)), (90, 90, 90)),
        (_solid("YCbCr", (90, 128, 128)), (90, 90, 90)),
        (_palette(transparent=False), (10, 20, 30)),
        (_palette(transparent=True), (255, 255, 255)),
        (_palette(transparent=True).convert("PA"), (255, 255, 255)),
        (Image.fromarray(DEEP), (128, 128, 128)),
        (Image.fromarray(DEEP.astype(np.int32)), (128, 128, 128)),
        (Image.fromarray(np.full((4, 6), 0.5, np.float32)), (128, 128, 128)),
        (Image.fromarray(np.full((4, 6), 51.0, np.float32)), (51, 51, 51)),
        (np.full((4, 6), 9, np.uint8), (9, 9, 9)),
        (np.full((4, 6, 1), 9, np.uint8), (9, 9, 9)),
        (np.full((3, 4, 6), 9, np.uint8), (9, 9, 9)),
        (np.full((4, 6, 2), (9, 255), np.uint8), (9, 9, 9)),
        (np.full((4, 6, 4), (9, 9, 9, 0), np.uint8), (255, 255, 255)),
        (np.full((4, 6, 3), 0.2, np.float32), (51, 51, 51)),
        (np.full((4, 6, 3), 0.2, np.float16), (51, 51, 51)),
        (np.full((4, 6, 3), 200.0), (200, 200, 200)),
        (np.full((4, 6), 200, np.int64), (200, 200, 200)),
        (DEEP, (128, 128, 128)),
        (np.ones((4, 6), bool), (255, 255, 255)),
        (torch.full((3, 4, 6), 9, dtype=torch.uint8), (9, 9, 9)),
        (torch.full((1, 4, 6), 0.2, dtype=torch.bfloat16), (51, 51, 51)),
        (torch.full((4, 6), 0.2, requires_grad=True), (51, 51, 51)),
        (np.zeros((4, 6, 3), np.uint8), (0, 0, 0)),
        (np.zeros((4, 6, 3), np.float32), (0, 0, 0)),
        (np.zeros((4, 6), np.uint16), (0, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(image, expected):
    for converted in (to_rgb(image), to_rgb(open_image(image))):
        assert converted.mode == "RGB"
        assert converted.size == (6, 4)
        assert converted.getpixel((2, 2)) == pytest.approx(expected, abs=1)


def test_rgb_images_are_not_copied(make_image):
    image = make_image(5, 4)
    assert to_rgb(image) is image
    assert open_image(image) is image


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_images_range_from_black_to_white_at_their_depth(bits):
    brightest = 2**bits - 1
    ramp = np.array([[0, brightest // 2, brightest]], np.uint16)
    assert np.asarray(to_rgb(Image.fromarray(ramp)))[0, :, 0].tolist() == pytest.approx([0, 127, 255], abs=1)
    np.testing.assert_array_equal(np.asarray(to_rgb(ramp)), np.asarray(to_rgb(Image.fromarray(ramp))))


def test_deep_images_keep_their_tones_and_are_not_stretched():
    grey = np.full((3, 3), 2000, np.uint16)  # 12 bits: the brightest would be 4095
    assert to_rgb(grey).getpixel((0, 0))[0] == round(2000 / 4095 * 255)
    grey[0, 0] = 4000
    assert to_rgb(grey).getpixel((2, 2))[0] == round(2000 / 4095 * 255)


def test_a_deep_png_is_read_as_its_array_is(tmp_path):
    deep = np.random.default_rng(0).integers(0, 4096, (5, 7), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    for name in ("deep.png", "deep.tif"):
        np.testing.assert_array_equal(np.asarray(to_rgb(open_image(tmp_path / name))), np.asarray(to_rgb(deep)))


def test_floats_slightly_out_of_range_are_clipped():
    values = np.array([[-0.0005, 0.5, 1.0005]], np.float32)
    assert np.asarray(to_rgb(values))[0, :, 0].tolist() == [0, 128, 255]


def test_ambiguous_channels_are_last_in_arrays_and_first_in_tensors():
    both = np.zeros((3, 5, 3), np.uint8)
    both[..., 0] = 200
    assert to_rgb(both).size == (5, 3)
    assert to_rgb(both).getpixel((0, 0)) == (200, 0, 0)
    assert to_rgb(torch.from_numpy(both.transpose(2, 0, 1).copy())).getpixel((0, 0)) == (200, 0, 0)


@pytest.mark.parametrize(
    ("orientation", "red_corner"),  # where the stored upper left pixel is shown
    [(1, (0, 0)), (2, (3, 0)), (3, (3, 1)), (4, (0, 1)), (5, (0, 0)), (6, (1, 0)), (7, (1, 3)), (8, (0, 3))],
)
@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_exif_rotation_is_applied(orientation, red_corner, image_format):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = (250, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {"bytes": _bytes(Image.fromarray(pixels), image_format, exif=exif), "path": None}
    for image in (to_rgb(open_image(stored)), to_rgb(Image.open(io.BytesIO(stored["bytes"])))):
        assert image.size == ((32, 16) if orientation < 5 else (16, 32))
        red = np.asarray(image)[4::8, 4::8, 0] > 125
        assert [(int(x), int(y)) for y, x in zip(*np.nonzero(red), strict=True)] == [red_corner]
        assert to_rgb(image).size == image.size  # it is not turned twice


def test_all_forms_of_an_image_are_equal(make_image, tmp_path):
    image = make_image(7, 5)
    path = tmp_path / "a.png"
    image.save(path)
    data = "data:image/png;base64," + base64.b64encode(_bytes(image)).decode()
    tensor = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
    stored = [{"bytes": _bytes(image), "path": None}, {"path": str(path)}]
    for way in (image, path, str(path), np.asarray(image), tensor, data, io.BytesIO(_bytes(image)), *stored):
        np.testing.assert_array_equal(np.asarray(open_image(way)), np.asarray(image))


def test_errors_of_unreadable_images_have_name_and_reason(make_image, tmp_path):
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(_bytes(make_image(64, 64), "JPEG")[:900])
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    cases = [
        (None, "image is None"),
        (cut, r"cut\.jpg"),
        (Image.open(cut), r"cut\.jpg"),
        (empty, r"empty\.png"),
        (tmp_path / "gone.png", r"no file .*gone\.png"),
        (tmp_path, "is a folder"),
        ({"bytes": None, "path": None}, "neither"),
        ({"bytes": b"junk", "path": "b.png"}, r"b\.png"),
        (7, "but got int"),
        (np.zeros((2, 2, 7), np.uint8), r"\(2, 2, 7\)"),
        (make_image(9, 9).crop((3, 3, 3, 8)), "no pixels"),
        ("data:text/plain;base64,aGk=", "data:image"),
        ("data:image/png;base64,%%%", "base64"),
        ("data:image/png;base64,aGk=", "cannot be read"),
    ]
    for value, words in cases:
        with pytest.raises(ImageError, match=words):
            open_image(value)
    with pytest.raises(ImageError, match="row-3"):
        open_image(None, "row-3")
    with pytest.raises(ImageNotFoundError):
        open_image(tmp_path / "gone.png")
    assert issubclass(ImageNotFoundError, (ValueError, OSError, FileNotFoundError))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_error_names_a_truncated_file(make_image, tmp_path, image_format, share):
    whole = _bytes(make_image(40, 30), image_format)
    path = tmp_path / f"cut.{image_format.lower()}"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ImageError, match=r"cut\."):
        open_image(path)


def test_a_decompression_bomb_raises(make_image, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match=r"bomb\.png.*exceeds limit"):
        open_image({"bytes": _bytes(make_image(30, 30)), "path": "bomb.png"})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 6), np.nan), "NaN"),
        (np.where(np.eye(4), np.nan, 0.5), "NaN"),
        (np.where(np.eye(4), np.inf, 0.5), "infinite"),
        (torch.full((3, 4, 6), torch.inf), "infinite"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (np.zeros((5, 0, 3), np.uint8), "shape"),
        (np.zeros((5, 6, 7), np.uint8), "shape"),
        (np.zeros((2, 6, 7), np.uint8), "shape"),
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((2, 5, 6, 3), np.uint8), "shape"),
        (np.full((4, 6, 3), -1.0), "Normalised images"),
        (np.full((4, 6), "a"), "array of numbers"),
        (np.full((4, 6), 1j), "array of numbers"),
    ],
)
def test_arrays_that_are_no_images_raise(array, message):
    with pytest.raises(ImageError, match=message):
        to_rgb(array)
    with pytest.raises(ImageError, match=message):
        open_image(array)


def test_a_float_image_with_nan_raises():
    with pytest.raises(ImageError, match="NaN"):
        to_rgb(Image.fromarray(np.full((4, 6), np.nan, np.float32)))


@pytest.fixture(scope="module")
def web():
    """A web server on this machine, with an image, a redirection to it, a page and a file that breaks off."""
    body = _bytes(_solid("RGBA", (10, 20, 30, 0), (9, 7)))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/moved.png":
                self.send_response(302)
                self.send_header("Location", "/image.png")
                self.end_headers()
                return
            found = {"/image.png": body, "/cut.png": body[: len(body) // 2], "/page.html": b"<html>"}.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_images_are_downloaded(web):
    for name in ("image.png", "moved.png"):
        image = open_image(f"{web}/{name}", timeout=10)
        assert image.size == (9, 7)
        assert to_rgb(image).getpixel((3, 3)) == (255, 255, 255)  # transparency is not lost on the way


@pytest.mark.parametrize(
    ("name", "words"), [("gone.png", "404"), ("page.html", "cannot be read"), ("cut.png", "cannot be read")]
)
def test_error_names_a_failed_download(web, name, words):
    with pytest.raises(ImageError, match=rf"{name}.*{words}"):
        open_image(f"{web}/{name}", timeout=10)


def test_error_names_an_unreachable_server():
    with pytest.raises(ImageError, match=r"127\.0\.0\.1:9/x\.png cannot be fetched"):
        open_image("http://127.0.0.1:9/x.png", timeout=5)


def test_errors_can_be_pickled():
    error = pickle.loads(pickle.dumps(ImageNotFoundError("There is no file x.png.")))
    assert isinstance(error, ImageNotFoundError)
    assert str(error) == "There is no file x.png."
