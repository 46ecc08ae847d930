"""Promises of `pipeline("object-counting")`: any image from anywhere, every prompt, nothing lost for a bad file."""

import http.server
import io
import itertools
import subprocess
import sys
import threading

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from count_clip.modeling import pipeline_images as pipeline_images
from count_clip.modeling.images import ImageError
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.pipeline_caption_counting import CaptionCountingPipeline
from count_clip.modeling.pipeline_object_counting import ObjectCountingPipeline


@pytest.fixture
def pipe(density_model, density_processor):
    """A pipeline with the tiny model."""
    return ObjectCountingPipeline(model=density_model, processor=density_processor, device="cpu")


@pytest.fixture
def caption_pipe(counting_model, counting_processor):
    """The other pipeline, with its tiny model."""
    return CaptionCountingPipeline(model=counting_model, processor=counting_processor, device="cpu")


@pytest.fixture
def passes(density_model, monkeypatch):
    """Windows and prompts of each call of the model."""
    seen = []
    density_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["text_embeds"].shape[:2])), with_kwargs=True
    )
    return seen


@pytest.fixture
def files(make_image, tmp_path):
    """A good image, one that is cut off, one that is not there, a text, an empty file and another good image."""
    make_image(60, 48, 1).save(tmp_path / "a.png")
    make_image(100, 48, 2).save(tmp_path / "b.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    (tmp_path / "notes.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    return [str(tmp_path / name) for name in ("a.png", "cut.png", "gone.png", "notes.png", "empty.png", "b.jpg")]


BAD = [False, True, True, True, True, False]


def test_the_registered_pipeline_is_this_one(density_model, density_processor, tmp_path, make_image):
    density_model.save_pretrained(tmp_path)
    density_processor.save_pretrained(tmp_path)
    pipe = pipeline("object-counting", model=str(tmp_path))
    assert type(pipe) is ObjectCountingPipeline
    assert set(pipe(make_image(60, 60), text="dogs")) == {"text", "count", "density_map", "points"}


def test_every_form_of_an_image_has_the_same_count(pipe, make_image, tmp_path):
    image = make_image(60, 50)
    image.save(tmp_path / "a.png")
    expected = pipe(image, text="dogs")
    ways = [np.asarray(image), torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()), {"image": image}]
    for way in (*ways, str(tmp_path / "a.png"), tmp_path / "a.png", {"path": str(tmp_path / "a.png"), "bytes": None}):
        result = pipe(way, text="dogs")
        assert result["count"] == pytest.approx(expected["count"], rel=1e-5)
        np.testing.assert_allclose(result["density_map"], expected["density_map"], atol=1e-6)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("png", mode) for mode in ("RGB", "RGBA", "P", "LA", "L", "1", "I;16")),
        *(("tiff", mode) for mode in ("RGB", "RGBA", "P", "LA", "L", "1", "I;16", "I", "F", "CMYK")),
        *(("jpeg", mode) for mode in ("RGB", "L", "CMYK")),
    ],
)
def test_images_of_every_mode_have_equal_counts_from_file_and_memory(pipe, tmp_path, mode, suffix):
    grey = np.random.default_rng(0).integers(0, 256, (50, 60), dtype=np.uint8)
    image = Image.fromarray(grey)
    if mode in ("I;16", "I"):
        image = Image.fromarray(grey.astype(np.uint16 if mode == "I;16" else np.int32) * 16)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        image = image.convert(mode)
    path = tmp_path / f"a.{suffix}"
    image.save(path)
    from_file, from_memory = pipe(path, text="dogs"), pipe(image, text="dogs")
    assert from_file["density_map"].shape == (50, 60)
    assert np.isfinite(from_file["count"])
    # A JPEG does not keep every value.
    assert from_file["count"] == pytest.approx(from_memory["count"], rel=1e-2 if suffix == "jpeg" else 1e-4)


def test_images_of_extreme_sizes_have_counts(pipe):
    for width, height in ((1, 1), (1, 2000), (2000, 1), (5472, 3648)):
        result = pipe(Image.new("RGB", (width, height), (90, 120, 30)), text="dogs")
        assert result["density_map"].shape == (height, width)
        assert result["density_map"].dtype == np.float32
        assert np.isfinite(result["count"])
        assert result["density_map"].sum(dtype=np.float64) == pytest.approx(result["count"], rel=1e-4)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in result["points"])


def test_a_rotated_photograph_is_upright(pipe, make_image, tmp_path):
    image = make_image(60, 48)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "phone.png", exif=exif)
    result = pipe(tmp_path / "phone.png", text="dogs")
    assert result["density_map"].shape == (60, 48)
    upright = pipe(image.transpose(Image.Transpose.ROTATE_270), text="dogs")
    np.testing.assert_allclose(result["density_map"], upright["density_map"], atol=1e-6)
    assert result["points"] == upright["points"]


def test_several_prompts_take_one_visual_pass_and_keep_their_order(pipe, make_image, passes):
    image = make_image(100, 60)
    results = pipe(image, text=["red apples", "a", "dogs"], window_batch_size=64)
    assert passes == [(2, 3)]
    assert [result["text"] for result in results] == ["red apples", "a", "dogs"]
    for result in results:
        alone = pipe(image, text=result["text"])
        assert result["count"] == pytest.approx(alone["count"], rel=1e-4)
        np.testing.assert_allclose(result["density_map"], alone["density_map"], rtol=1e-3, atol=1e-7)
        assert len(result["points"]) == len(alone["points"])
    assert pipe(image, text=["dogs"])[0]["count"] == pytest.approx(results[2]["count"], rel=1e-4)


def test_different_prompts_give_different_maps(pipe, make_image):
    first, second = pipe(make_image(60, 50), text=["a", "b"])
    assert np.abs(first["density_map"] - second["density_map"]).max() > 1e-7


@pytest.mark.parametrize(("width", "batch_size"), [(48, 3), (100, 3), (700, 3), (700, 1)])
def test_batch_size_bounds_the_windows_of_a_pass(pipe, make_image, passes, monkeypatch, width, batch_size):
    num_windows = len(pipe.processor(images=[make_image(width, 48)])["pixel_values"])
    cut = []
    cut_windows = type(pipe.processor.image_processor).cut_windows
    monkeypatch.setattr(
        type(pipe.processor.image_processor),
        "cut_windows",
        lambda self, image, offsets: cut.append(len(offsets)) or cut_windows(self, image, offsets),
    )
    pipe(make_image(width, 48), text="dogs", window_batch_size=batch_size)
    # Neither cut nor looked at all at once.
    assert sum(cut) == num_windows
    assert max(cut) <= batch_size
    assert max(windows for windows, _ in passes) <= batch_size
    assert len(passes) == -(-num_windows // batch_size)


def test_batch_size_includes_prompts_but_does_not_split_them(pipe, make_image, passes):
    pipe(make_image(200, 48), text=["a", "b", "c"], window_batch_size=6)
    assert passes == [(2, 3)] * 3  # six windows
    passes.clear()
    pipe(make_image(48, 48), text=["a", "b", "c"], window_batch_size=1)
    assert passes == [(1, 3)]


def test_hundreds_of_prompts_take_several_passes(pipe, make_image, passes):
    image = make_image(48, 48)
    results = pipe(image, text=[f"dogs {number}" for number in range(70)], window_batch_size=4)
    assert passes == [(1, 64), (1, 6)]
    assert [result["text"] for result in results] == [f"dogs {number}" for number in range(70)]
    for place in (0, 63, 64, 69):
        alone = pipe(image, text=results[place]["text"])
        np.testing.assert_allclose(results[place]["density_map"], alone["density_map"], rtol=1e-3, atol=1e-7)


def test_windows_of_several_images_share_a_batch(pipe, make_image, passes):
    images = [make_image(48, 48), make_image(100, 48, 1), make_image(48, 48, 2)]
    results = pipe(images, text="dogs", window_batch_size=4)
    assert passes == [(4, 1), (1, 1)]
    passes.clear()
    results += pipe([{"image": images[0], "text": ["a", "b"]}, images[2]], text="dogs", window_batch_size=4)
    assert passes == [(1, 2), (1, 1)]  # of as many prompts only
    for result, image in zip([*results[:3], results[3][0], results[4]], [*images, images[0], images[2]], strict=True):
        alone = pipe(image, text=result["text"])
        assert result["count"] == pytest.approx(alone["count"], rel=1e-5)
        np.testing.assert_allclose(result["density_map"], alone["density_map"], rtol=1e-3, atol=1e-7)


def test_a_whole_image_takes_one_pass(pipe, make_image, passes):
    image = make_image(300, 60)
    result = pipe(image, text=["dogs", "cats"], window="whole")
    assert passes == [(1, 2)]
    assert result[0]["density_map"].shape == (60, 300)
    assert result[0]["density_map"].sum(dtype=np.float64) == pytest.approx(result[0]["count"], rel=1e-4)
    assert pipe(image, text="dogs")["count"] != pytest.approx(result[0]["count"], rel=1e-6)
    several = pipe([make_image(60, 50), image, make_image(50, 60)], text="dogs", window="whole")
    assert [entry["density_map"].shape for entry in several] == [(50, 60), (60, 300), (60, 50)]
    assert several[1]["count"] == pytest.approx(result[0]["count"], rel=1e-4)


def test_the_processor_may_configure_whole_images(density_model, density_processor, make_image, passes, tmp_path):
    density_processor.save_pretrained(tmp_path)
    processor = type(density_processor).from_pretrained(tmp_path)
    processor.image_processor.window = "whole"
    processor.save_pretrained(tmp_path)
    processor = type(density_processor).from_pretrained(tmp_path)
    pipe = ObjectCountingPipeline(model=density_model, processor=processor, device="cpu")
    pipe(make_image(300, 60), text="dogs")
    assert passes == [(1, 1)]
    pipe(make_image(300, 60), text="dogs", window="sliding", window_batch_size=64)
    assert passes[1][0] > 1


def test_maps_can_be_left_out(pipe, make_image):
    kept, left = (pipe(make_image(90, 50), text="dogs", return_density_map=keep) for keep in (True, False))
    assert set(left) == {"text", "count", "points"}
    assert (left["count"], left["points"]) == (kept["count"], kept["points"])


def test_error_names_a_single_unusable_image(pipe, files):
    for path, is_bad in zip(files, BAD, strict=True):
        if is_bad:
            with pytest.raises(ImageError, match=path.rsplit("/", 1)[1]):
                pipe(path, text="dogs")
        else:
            assert "count" in pipe(path, text="dogs")
    with pytest.raises(FileNotFoundError):
        pipe(files[2], text="dogs")
    assert "gone.png" in pipe(files[2], text="dogs", on_error="report")["error"]


def test_an_unusable_text_raises_for_all_and_is_reported_for_one(pipe, make_image):
    with pytest.raises(TypeError, match="`text` as a string or a list of strings, but got int"):
        pipe([make_image(9, 9)] * 2, text=7)
    bad, good = pipe([{"image": make_image(9, 9), "text": 7}, make_image(9, 9)], text="dogs")
    assert "but got int" in bad["error"]
    assert "count" in good


def _check_reported(results, files):
    for result, path, is_bad in zip(results, files, BAD, strict=True):
        if is_bad:
            assert set(result) == {"text", "error"}
            assert path.rsplit("/", 1)[1] in result["error"]
        else:
            assert set(result) == {"text", "count", "density_map", "points"}


def test_a_list_with_unusable_images_has_all_other_results(pipe, files):
    _check_reported(pipe(files, text="dogs"), files)
    _check_reported(pipe(tuple(files), text="dogs"), files)
    several = pipe(files, text=["dogs", "cats"])
    assert [[entry["text"] for entry in entries] for entries in several] == [["dogs", "cats"]] * 6
    _check_reported([entries[1] for entries in several], files)
    with pytest.raises(ImageError, match=r"cut\.png"):
        pipe(files, text="dogs", on_error="raise")


def test_an_unusable_image_among_others_logs_a_warning(pipe, files, monkeypatch):
    warnings = []
    monkeypatch.setattr(pipeline_images.logger, "warning", warnings.append)
    pipe(files, text="dogs")
    assert len(warnings) == 4
    assert "cut.png" in warnings[0]


def test_a_generator_with_unusable_images_has_all_other_results(pipe, files):
    _check_reported(pipe((path for path in files), text="dogs"), files)
    _check_reported(pipe(iter(files), text="dogs"), files)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_generator_is_read_a_batch_ahead_at_most(pipe, make_image, files, batch_size):
    read = []

    def stream():
        for image in [make_image(48, 48)] * 9:
            read.append(image)
            yield image

    results = iter(pipe(stream(), text="dogs", window_batch_size=batch_size))
    next(results)
    assert len(read) <= batch_size + 1
    assert len(list(results)) == 8


def test_errors_do_not_wait_for_a_full_batch(pipe, files):
    results = iter(pipe(itertools.cycle([files[2]]), text="dogs"))
    assert "gone.png" in next(results)["error"]


def test_results_have_a_length(pipe, files):
    results = pipe(_dataset(files), text="dogs", num_workers=1)
    assert len(results) == 5
    assert [list(results), list(results)][1][0]["text"] == "dogs"


def test_on_error_can_be_set_in_the_constructor(density_model, density_processor, files):
    pipe = ObjectCountingPipeline(model=density_model, processor=density_processor, device="cpu", on_error="raise")
    with pytest.raises(ImageError, match=r"cut\.png"):
        pipe(files, text="dogs")
    _check_reported(pipe(files, text="dogs", on_error="report"), files)


def _dataset(files, **columns):
    files = [path for path in files if "gone" not in path]
    features = datasets.Features({"image": datasets.Image(), **{name: datasets.Value("string") for name in columns}})
    return datasets.Dataset.from_dict({"image": files, **columns}, features=features)


@pytest.mark.parametrize("form", ["dataset", "stream", "key", "formatted", "split"])
def test_a_data_set_with_unusable_images_has_all_other_results(pipe, files, form):
    data = _dataset(files)
    inputs = {
        "dataset": lambda: data,
        "stream": data.to_iterable_dataset,
        "key": lambda: KeyDataset(data, "image"),
        "formatted": lambda: data.with_format("numpy"),
        "split": lambda: data.select(range(5)),
    }[form]()
    results = list(pipe(inputs, text="dogs"))
    assert ["error" in result for result in results] == [False, True, True, True, False]
    if form == "formatted":  # decoded by the data set, which does not name the file
        assert [f"image {i}" in results[i]["error"] for i in (1, 2, 3)] == [True] * 3
    else:
        assert [name in results[i]["error"] for i, name in ((1, "cut"), (2, "notes"), (3, "empty"))] == [True] * 3
    for result, path in ((results[0], files[0]), (results[4], files[5])):
        assert result["count"] == pytest.approx(pipe(path, text="dogs")["count"], rel=1e-5)


def test_rows_may_have_prompts(pipe, files):
    data = _dataset(files, text=["dogs", "x", "x", "x", "red apples"])
    results = list(pipe(data))
    assert [result["text"] for result in results] == ["dogs", "x", "x", "x", "red apples"]
    for result, path in ((results[0], files[0]), (results[4], files[5])):
        assert result["count"] == pytest.approx(pipe(path, text=result["text"])["count"], rel=1e-5)


def test_an_unusable_prompt_of_a_row_is_reported_in_its_result(pipe, make_image):
    rows = [
        {"image": make_image(50, 50), "text": "dogs"},
        {"image": make_image(50, 50), "text": ""},
        {"image": make_image(50, 50), "text": "x " * 60},
        {"image": make_image(50, 50), "text": ["cats", " "]},
        {"photo": make_image(50, 50), "text": "dogs"},
        {"image": make_image(50, 50)},
    ]
    results = pipe(rows, text="ants")
    assert results[0]["text"] == "dogs"
    assert [result["error"] for result in (results[1], results[4])] == [
        "Expected what to count, as `text='red apples'`, but got no prompt.",
        "Expected a dictionary with `image`, and optionally `text`, but image 4 has 'photo', 'text'.",
    ]
    assert "only 38 fit" in results[2]["error"]
    assert [entry["text"] for entry in results[3]] == ["cats", " "]
    assert all("empty" in entry["error"] for entry in results[3])
    assert results[5]["text"] == "ants"


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no prompt"), ([], "no prompt"), ("  ", "empty"), (["a", ""], "empty"), ("x " * 60, "only 38 fit")],
)
def test_an_unusable_prompt_for_all_images_raises(pipe, make_image, text, words):
    for inputs in (make_image(50, 50), [make_image(50, 50)]):
        with pytest.raises(ValueError, match=words):
            pipe(inputs, text=text)
    with pytest.raises(ValueError, match="no prompt"):
        pipe([make_image(50, 50)])
    with pytest.raises(TypeError, match="strings"):
        pipe(make_image(50, 50), text=[3])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((50, 60), np.nan), "image 1.*NaN"),
        (np.full((50, 60, 3), np.inf, np.float32), "image 1.*infinite"),
        (Image.new("RGB", (60, 50)).crop((10, 10, 10, 40)), "image 1 has no pixels"),
        (np.zeros((50, 60, 3), np.uint8)[:, 5:5], "image 1.*shape"),
        (None, "image 1 is None"),
        (7, "image 1.*got int"),
    ],
)
def test_unusable_images_raise_or_are_reported(pipe, make_image, image, words):
    results = pipe([make_image(50, 50), image], text="dogs")
    assert "count" in results[0]
    with pytest.raises(ImageError, match=words):
        raise ImageError(results[1]["error"])
    with pytest.raises(ImageError, match=words.replace("image 1", "")):
        pipe({"image": image}, text="dogs")


def test_an_all_black_image_has_a_finite_count(pipe):
    result = pipe(Image.new("RGB", (70, 50)), text="dogs")
    assert np.isfinite(result["count"])
    assert np.isfinite(result["density_map"]).all()


def test_a_too_large_whole_image_is_reported(pipe, make_image):
    pipe.processor.image_processor.max_whole_area, before = 4.0, pipe.processor.image_processor.max_whole_area
    try:
        results = pipe([make_image(60, 50), make_image(400, 50)], text="dogs", window="whole")
        assert "count" in results[0]
        assert "at most 4 windows" in results[1]["error"]
        with pytest.raises(ImageError, match="at most 4 windows"):
            pipe(make_image(400, 50), text="dogs", window="whole")
    finally:
        pipe.processor.image_processor.max_whole_area = before


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"threshold": 3}, TypeError, "threshold"),
        ({"on_error": "ignore"}, ValueError, "on_error"),
        ({"window": "half"}, ValueError, "sliding, whole"),
        ({"window_batch_size": 0}, ValueError, "at least 1"),
    ],
)
def test_invalid_options_raise(pipe, make_image, options, error, words):
    with pytest.raises(error, match=words):
        pipe(make_image(50, 50), text="dogs", **options)


def test_no_images_give_no_results(pipe, caption_pipe):
    assert pipe([], text="dogs") == []
    assert list(pipe(iter([]), text="dogs")) == []
    assert caption_pipe([], text="{} dogs") == []


def test_images_are_downloaded(pipe, make_image, files):
    buffer = io.BytesIO()
    make_image(60, 50).save(buffer, "PNG")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(buffer.getvalue() if self.path == "/a.png" else b"")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        expected = pipe(make_image(60, 50), text="dogs")["count"]
        assert pipe(f"{url}/a.png", text="dogs", timeout=10)["count"] == pytest.approx(expected, rel=1e-5)
        results = pipe([f"{url}/gone.png", f"{url}/a.png", files[0]], text="dogs", timeout=10)
        assert ["error" in result for result in results] == [True, False, False]
        assert "gone.png" in results[0]["error"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_caption_pipeline_reports_unusable_images(caption_pipe, files):
    results = caption_pipe(files, text="{} dogs")
    for result, path, is_bad in zip(results, files, BAD, strict=True):
        if is_bad:
            assert result["text"] == "{} dogs"
            assert path.rsplit("/", 1)[1] in result["error"]
        else:
            assert sum(entry["score"] for entry in result) == pytest.approx(1, abs=1e-5)
    several = caption_pipe(files, text=["{} dogs", "two cats"])
    assert several[5][0][0] == pytest.approx(results[5][0], abs=1e-5)
    assert [entry["text"] for entry in several[1]] == ["{} dogs", "two cats"]
    with pytest.raises(ImageError, match=r"cut\.png"):
        caption_pipe(files[1], text="{} dogs")
    with pytest.raises(ValueError, match="number word"):
        caption_pipe(files, text="some dogs")
    with pytest.raises(TypeError, match="window"):
        caption_pipe(files[0], text="{} dogs", window="whole")


MEMORY = """
import resource, sys
from PIL import Image
from count_clip.modeling.pipeline_object_counting import ObjectCountingPipeline
from transformers import AutoModel, AutoProcessor

folder, width, height = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pipe = ObjectCountingPipeline(
    model=AutoModel.from_pretrained(folder), processor=AutoProcessor.from_pretrained(folder), device="cpu"
)
pipe(Image.new("RGB", (64, 64)), text="dogs")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pipe(Image.new("RGB", (width, height), (90, 120, 30)), text="dogs", window_batch_size=2)
print("RESULT", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_memory_grows_only_with_the_image_and_its_map(density_model, density_processor, tmp_path):
    density_model.save_pretrained(tmp_path)
    density_processor.save_pretrained(tmp_path)
    width, height = 5472, 3648
    run = subprocess.run(
        [sys.executable, "-c", f"import count_clip\n{MEMORY}", str(tmp_path), str(width), str(height)],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    grown = float(run.stdout.split("RESULT ")[1])
    # Pillow's own four bytes a pixel and the map's four; the rest is for whatever else.
    assert grown < 2.75 * 4 * width * height / 2**20


def test_the_model_is_optimized_for_cpus_by_default(density_model, density_processor, make_image):
    image, options = make_image(100, 60), {"model": density_model, "processor": density_processor, "device": "cpu"}
    plain = ObjectCountingPipeline(**options, optimize=False)
    expected, linear = plain(image, text="dogs"), type(density_model.patch_projection)
    assert linear is torch.nn.Linear
    result = ObjectCountingPipeline(**options)(image, text="dogs")
    assert type(density_model.patch_projection) is not linear
    assert result["count"] == pytest.approx(expected["count"], rel=1e-5)
    np.testing.assert_allclose(result["density_map"], expected["density_map"], rtol=1e-4, atol=1e-7)


def test_the_model_does_not_change(pipe, make_image):
    assert isinstance(pipe.model, CLIPCountDensityModel)
    before = {name: tensor.clone() for name, tensor in pipe.model.state_dict().items()}
    pipe([make_image(60, 50)], text=["dogs", "cats"], window="whole")
    for name, tensor in pipe.model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
