"""Promises of the density processor: any image and any prompts in, nothing lost or counted twice on the way back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.processing_clip_count_density import (
    CLIPCountDensityProcessor,
    find_peaks,
    prompts_of_images,
    resize_density,
)


SIZES = [(48, 48), (100, 60), (60, 100), (1, 1), (3, 200), (500, 49), (47, 333)]


def test_batches_mix_sizes(density_processor, make_image):
    inputs = density_processor([make_image(48, 48), make_image(200, 100), make_image(30, 90)], "dogs")
    owners = inputs["window_positions"][:, 0].tolist()
    assert sorted(set(owners)) == [0, 1, 2]
    assert len(inputs["input_ids"]) == len(inputs["pixel_values"]) == len(owners)
    assert inputs["image_sizes"].tolist() == [[48, 48, 48, 48], [100, 200, 48, 96], [90, 30, 144, 48]]


@pytest.mark.parametrize("size", SIZES)
def test_post_processing_keeps_every_count_in_the_original_size(density_processor, make_image, size):
    inputs = density_processor([make_image(*size), make_image(80, 80)], ["dogs", "cats"])
    maps = torch.rand(len(inputs["pixel_values"]), 48, 48, generator=torch.Generator().manual_seed(0))
    results = density_processor.post_process_density(maps, inputs["window_positions"], inputs["image_sizes"])
    assert len(results) == 2
    width, height = size
    assert results[0]["density_map"].shape == (height, width)
    for result in results:
        assert result["density_map"].double().sum().item() == pytest.approx(result["count"], rel=1e-4)


def test_peaks_are_at_most_the_count_and_none_in_an_empty_map():
    density_map = torch.zeros(40, 40)
    density_map[10, 10], density_map[30, 20] = 0.9, 0.7
    assert find_peaks(density_map).tolist()[0] == pytest.approx([10, 10], abs=1)
    assert len(find_peaks(density_map)) == 2
    assert len(find_peaks(density_map / 4)) == 0
    assert len(find_peaks(torch.zeros(5, 5))) == 0


def test_maps_that_do_not_match_the_windows_raise(density_processor, make_image):
    inputs = density_processor([make_image(96, 48)], "dogs")
    with pytest.raises(ValueError, match="each of the 3 windows"):
        density_processor.post_process_density(
            torch.zeros(1, 48, 48), inputs["window_positions"], inputs["image_sizes"]
        )


def test_truncated_image_raises(make_image, density_processor):
    buffer = io.BytesIO()
    make_image(100, 100).save(buffer, "PNG")
    with pytest.raises(OSError, match="cannot be read"):
        density_processor([Image.open(io.BytesIO(buffer.getvalue()[: len(buffer.getvalue()) // 2]))], "dogs")


@pytest.mark.parametrize("prompt", ["", "   "])
def test_empty_prompt_raises(density_processor, make_image, prompt):
    with pytest.raises(ValueError, match="empty"):
        density_processor([make_image(48, 48)], prompt)


def test_error_of_a_long_prompt_names_the_limit(density_processor, make_image):
    density_processor([make_image(48, 48)], "x " * 36)  # 38 tokens with start and end: just fits with the context
    with pytest.raises(ValueError, match=r"39 tokens, but only 38 fit with 2 of learned context.*'x x"):
        density_processor([make_image(48, 48)], "x " * 37)
    with pytest.raises(ValueError, match="39 tokens"):
        density_processor([make_image(48, 48)], [["dogs", "x " * 37]])


@pytest.mark.parametrize("num_context_tokens", [0, 2])
def test_the_limit_is_clips_77_tokens_less_the_context(tokenizer, num_context_tokens):
    processor = CLIPCountDensityProcessor(CLIPCountDensityImageProcessorPil(), tokenizer, num_context_tokens)
    words = 77 - 2 - num_context_tokens
    assert processor.tokenize(["x " * words])["input_ids"].shape == (1, 77 - num_context_tokens)
    with pytest.raises(ValueError, match=f"{78 - num_context_tokens} tokens, but only {77 - num_context_tokens} fit"):
        processor.tokenize(["dogs", "x " * (words + 1)])


def test_prompts_and_images_must_match_in_number(density_processor, make_image):
    with pytest.raises(ValueError, match="each of the 2 images"):
        density_processor([make_image(48, 48)] * 2, ["one", "two", "three"])
    with pytest.raises(ValueError, match="neither"):
        density_processor()
    with pytest.raises(TypeError, match="3"):
        density_processor([make_image(48, 48)], [3])


def test_processor_round_trips_through_a_folder(density_processor, make_image, tmp_path):
    density_processor.image_processor.save_pretrained(tmp_path / "image")
    image_processor = CLIPCountDensityImageProcessorPil.from_pretrained(tmp_path / "image")
    assert image_processor.to_dict() == density_processor.image_processor.to_dict()
    other = CLIPCountDensityProcessor(image_processor, density_processor.tokenizer, 2, 40)
    torch.testing.assert_close(
        other([make_image(70, 50)], "dogs")["pixel_values"],
        density_processor([make_image(70, 50)], "dogs")["pixel_values"],
    )


def test_points_of_a_flat_map_are_apart():
    points = find_peaks(torch.full((20, 20), 8 / 400), radius=3)
    assert 1 <= len(points) <= 8
    assert torch.pdist(points).min() > 3


PROMPTS = [["red apples", "green apples", "dogs"], ["a"], ["dogs", "cats"]]


@torch.no_grad()
def _results_of(model, processor, images, text, **options):
    """The model's results, for any form of prompts."""
    inputs = processor(images, text, **options)
    outputs = model(**inputs)
    return processor.post_process_density(outputs, inputs["window_positions"], inputs["image_sizes"], text=text)


def _assert_alike(result, expected):
    assert result["text"] == expected["text"]
    assert result["count"] == pytest.approx(expected["count"], rel=1e-4)
    torch.testing.assert_close(result["density_map"], expected["density_map"], rtol=1e-3, atol=1e-7)


def test_several_prompts_of_an_image_equal_single_prompts(density_model, density_processor, make_image):
    images = [make_image(48, 48, 1), make_image(100, 60, 2), make_image(30, 90, 3)]
    inputs = density_processor(images, PROMPTS)
    num_windows = len(inputs["pixel_values"])
    longest = len("red apples") + 1  # a token a letter; start and end of text, and no space
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (num_windows, 3, longest + 2)
    results = _results_of(density_model, density_processor, images, PROMPTS)
    assert [[result["text"] for result in of_image] for of_image in results] == PROMPTS
    for image, prompts, of_image in zip(images, PROMPTS, results, strict=True):
        for prompt, result in zip(prompts, of_image, strict=True):
            (expected,) = _results_of(density_model, density_processor, [image], [prompt])
            _assert_alike(result, expected)
            assert result["density_map"].shape == (image.height, image.width)


def test_the_vision_tower_runs_once_for_all_prompts(density_model, density_processor, make_image):
    seen = []
    density_model.vision_model.embeddings.register_forward_hook(lambda _, args, output: seen.append(len(output)))
    _results_of(
        density_model, density_processor, [make_image(48, 48), make_image(48, 48, 1)], [["a", "b", "c"], ["d"]]
    )
    assert seen == [2]


def test_prompts_may_have_any_form():
    assert prompts_of_images("dogs", 2) == [["dogs"], ["dogs"]]
    assert prompts_of_images("dogs", None) == [["dogs"]]
    assert prompts_of_images(["dogs", "cats"], 2) == [["dogs"], ["cats"]]
    assert prompts_of_images([["dogs", "cats"], "ants"], 2) == [["dogs", "cats"], ["ants"]]
    for text, num_images, words in (
        (["a", "b"], 1, r"each of the 1 images.*got 2.*\[\[\.\.\.\]\]"),
        ([["a"], []], 2, "empty list"),
        ([], None, "empty list"),
        ([], 0, "empty list"),
    ):
        with pytest.raises(ValueError, match=words):
            prompts_of_images(text, num_images)


def test_prompts_without_images_keep_their_form(density_processor):
    assert density_processor(text=["a", "bc"])["input_ids"].shape == (2, 4)
    assert density_processor(text=[["a", "bc"], ["d"]])["input_ids"].shape == (2, 2, 4)


def test_maps_that_do_not_match_the_prompts_raise(density_processor, make_image):
    inputs = density_processor([make_image(48, 48)], "dogs")
    for maps, text in (
        (torch.zeros(1, 48, 48), [["a", "b"]]),
        (torch.zeros(1, 3, 48, 48), [["a", "b"]]),
        (torch.zeros(1, 2, 48, 48), "a"),
    ):
        with pytest.raises(ValueError, match=r"each prompt, but an image has \d prompts"):
            density_processor.post_process_density(maps, inputs["window_positions"], inputs["image_sizes"], text=text)


@pytest.mark.parametrize("readout", ["eos", "authors"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_longer_prompt_in_the_batch_changes_no_map(density_config, density_processor, make_image, readout, masked):
    torch.manual_seed(0)
    model = CLIPCountDensityModel(density_config(text_readout=readout)).eval()
    image = make_image(48, 48)

    def maps(prompts):
        inputs = density_processor([image] * len(prompts), prompts)
        if not masked:
            del inputs["attention_mask"]
        with torch.no_grad():
            return model(**inputs).density_map

    alone = maps(["dogs"])[0]
    torch.testing.assert_close(maps(["dogs", "a very long prompt, of many tokens"])[0], alone)
    torch.testing.assert_close(maps(["as long as it can be, " + "x" * 17, "dogs"])[1], alone)


def test_different_prompts_give_different_maps_even_of_one_token(density_model, density_processor, make_image):
    results = _results_of(
        density_model, density_processor, [make_image(48, 48)], [["a", "b", "red apples", "red applez"]]
    )
    maps = torch.stack([result["density_map"] for result in results[0]])
    distances = (maps[:, None] - maps[None]).abs().amax(dim=(2, 3))
    assert distances[~torch.eye(4, dtype=torch.bool)].min() > 1e-6


def _spots(size: tuple[int, int], places: list[tuple[float, float]], sigma: float) -> torch.Tensor:
    """A map of one object at each place `(x, y)`, where the middle of the first pixel is (0.5, 0.5)."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    spots = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2)) for x, y in places]
    return torch.from_numpy(sum(spot / spot.sum() for spot in spots)).float()


def _cut(density_map: torch.Tensor, inputs, side: int = 48) -> torch.Tensor:
    padded = torch.nn.functional.pad(density_map, (0, side, 0, side))
    return torch.stack([padded[top : top + side, left : left + side] for _, top, left in inputs["window_positions"]])


@pytest.mark.parametrize("size", [(720, 144), (144, 720), (480, 160), (96, 96), (300, 200)])
def test_points_are_the_peaks_in_pixels_of_the_image(density_processor, make_image, size):
    width, height = size
    inputs = density_processor([make_image(width, height)], "dogs")
    resized = tuple(inputs["image_sizes"][0, 2:].tolist())
    zoom = width / resized[1]
    assert zoom == pytest.approx(height / resized[0], rel=0.01)
    # In the image's own pixels; far enough from each other to be separate after resizing.
    places = [(0.1 * width, 0.3 * height), (0.5 * width, 0.25 * height), (0.9 * width, 0.8 * height)]
    density_map = _spots(resized, [(x / zoom, y / zoom) for x, y in places], sigma=1.5)
    result = density_processor.post_process_density(
        _cut(density_map, inputs), inputs["window_positions"], inputs["image_sizes"]
    )[0]
    assert result["count"] == pytest.approx(3, rel=1e-4)
    assert len(result["points"]) == 3
    for found, place in zip(sorted(result["points"]), sorted(places), strict=True):
        assert found == pytest.approx(place, abs=zoom / 2 + 1e-3)  # half a pixel of the resized image
    # The map of the image's own size has its tops there too.
    rows, columns = np.divmod(int(result["density_map"].argmax()), width)
    assert min(np.hypot(columns + 0.5 - x, rows + 0.5 - y) for x, y in places) <= zoom


def test_points_and_maps_of_a_rotated_photograph_are_upright(density_processor):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise for display
    buffer = io.BytesIO()
    Image.new("RGB", (96, 48)).save(buffer, "PNG", exif=exif)
    inputs = density_processor([Image.open(buffer)], "dogs")
    assert inputs["image_sizes"].tolist() == [[96, 48, 96, 48]]
    density_map = _spots((96, 48), [(10.5, 80.5)], sigma=2)
    result = density_processor.post_process_density(
        _cut(density_map, inputs), inputs["window_positions"], inputs["image_sizes"]
    )[0]
    assert result["density_map"].shape == (96, 48)
    assert result["points"] == [[10.5, 80.5]]


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_impossible_densities_raise(density_processor, make_image, value):
    inputs = density_processor([make_image(48, 48)], "dogs")
    impossible = torch.full((48, 48), 0.1)
    impossible[3, 4] = value
    with pytest.raises(ValueError, match="negative or non-finite"):
        density_processor.post_process_density(impossible[None], inputs["window_positions"], inputs["image_sizes"])
    with pytest.raises(ValueError, match="negative or non-finite"):
        find_peaks(impossible)
    for size in ((48, 48), (96, 30)):
        with pytest.raises(ValueError, match="negative or non-finite"):
            resize_density(impossible, size)


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (48, 48), (1, 1), (1, 400)])
def test_a_whole_image_takes_one_pass_of_the_model(density_model, density_processor, make_image, size):
    inputs = density_processor([make_image(*size)], "dogs", window="whole")
    assert inputs["interpolate_pos_encoding"] is True
    with torch.no_grad():
        outputs = density_model(**inputs)
    assert len(outputs.density_map) == 1
    result = density_processor.post_process_density(outputs, inputs["window_positions"], inputs["image_sizes"])[0]
    assert result["density_map"].shape == size[::-1]
    assert result["count"] == pytest.approx(float(outputs.counts), rel=1e-4)
    assert result["density_map"].double().sum().item() == pytest.approx(result["count"], rel=1e-4)
    (several,) = _results_of(density_model, density_processor, [make_image(*size)], [["dogs", "cats"]], window="whole")
    assert several[0]["count"] == pytest.approx(result["count"], rel=1e-4)
    assert "interpolate_pos_encoding" not in density_processor([make_image(*size)], "dogs")


def test_a_square_image_is_the_same_whole_and_in_its_one_window(density_model, density_processor, make_image):
    (sliding,) = _results_of(density_model, density_processor, [make_image(48, 48)], "dogs")
    (whole,) = _results_of(density_model, density_processor, [make_image(48, 48)], "dogs", window="whole")
    _assert_alike(whole, sliding)


def test_points_of_a_whole_image_are_in_its_pixels(density_processor, make_image):
    inputs = density_processor([make_image(300, 144)], "dogs", window="whole")
    assert inputs["image_sizes"].tolist() == [[144, 300, 48, 100]]
    density_map = _spots((48, 100), [(20.5, 10.5), (90.5, 40.5)], sigma=2)
    result = density_processor.post_process_density(
        density_map[None], inputs["window_positions"], inputs["image_sizes"]
    )[0]
    assert sorted(result["points"]) == [pytest.approx([61.5, 31.5]), pytest.approx([271.5, 121.5])]


def test_inputs_of_a_whole_image_can_be_moved(density_processor, make_image):
    inputs = density_processor([make_image(60, 50)], "dogs", window="whole").to("cpu", torch.bfloat16)
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert inputs["interpolate_pos_encoding"] is True


@pytest.mark.parametrize("window", ["sliding", "whole"])
def test_an_all_black_image_has_a_finite_count(density_model, density_processor, window):
    for black in (Image.new("RGB", (70, 50)), np.zeros((50, 70), np.uint16), Image.new("F", (70, 50))):
        (result,) = _results_of(density_model, density_processor, [black], "dogs", window=window)
        assert np.isfinite(result["count"])
        assert result["count"] >= 0
        assert result["density_map"].isfinite().all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((50, 60), np.nan), "NaN"),
        (np.full((50, 60, 3), np.inf, np.float32), "infinite"),
        (Image.new("RGB", (60, 50)).crop((10, 10, 10, 40)), "no pixels"),
        (np.zeros((50, 60, 3), np.uint8)[:, 5:5], "shape"),
    ],
)
def test_unusable_images_raise(density_processor, image, words):
    with pytest.raises(ValueError, match=words):
        density_processor([image], "dogs")


def test_labels_of_another_size_than_the_map_raise(density_model, density_processor, make_image):
    inputs = density_processor([make_image(48, 48)], "dogs")
    with pytest.raises(ValueError, match=r"\(1, 48, 48\), but has \(1, 50, 60\)"):
        density_model(**inputs, labels=torch.zeros(1, 50, 60))
    whole = density_processor([make_image(60, 48)], "dogs", window="whole")
    with pytest.raises(ValueError, match=r"\(1, 48, 60\), but has \(1, 48, 48\)"):
        density_model(**whole, labels=torch.zeros(1, 48, 48))
