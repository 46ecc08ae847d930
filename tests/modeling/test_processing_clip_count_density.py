"""Promises of the density processor: any picture in, nothing lost or counted twice on the way back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from count_clip.modeling.image_processing_clip_count_density import (
    CLIPCountDensityImageProcessorPil,
    resized_size,
    to_rgb,
)
from count_clip.modeling.processing_clip_count_density import find_peaks, resize_density


SIZES = [(48, 48), (100, 60), (60, 100), (1, 1), (3, 200), (500, 49), (47, 333)]


@pytest.mark.parametrize("blend", ["hat", "authors"])
@pytest.mark.parametrize("size", SIZES)
def test_windows_of_a_constant_density_compose_to_that_constant(picture, blend, size):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, window_blend=blend, window_stride=16)
    inputs = processor([picture(*size)], return_tensors="pt")
    height, width = inputs["picture_sizes"][0, 2:].tolist()
    offsets = [(top, left) for _, top, left in inputs["window_positions"].tolist()]
    composite = processor.composite(torch.full((len(offsets), 48, 48), 0.25), offsets, (height, width))
    assert composite.shape == (height, width)
    torch.testing.assert_close(composite, torch.full((height, width), 0.25))


@pytest.mark.parametrize("blend", ["hat", "authors"])
@pytest.mark.parametrize("size", [(48, 200), (130, 130), (77, 48), (48, 48)])
def test_a_map_cut_and_put_back_is_the_map(blend, size):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, window_blend=blend, window_stride=16)
    height, width = size
    density_map = torch.rand(height, width)
    padded = torch.nn.functional.pad(density_map, (0, 48, 0, 48))
    offsets = processor.window_offsets(height, width)
    windows = torch.stack([padded[top : top + 48, left : left + 48] for top, left in offsets])
    torch.testing.assert_close(processor.composite(windows, offsets, size), density_map)


def test_windows_cover_the_picture_and_are_as_few_as_the_stride_allows(picture):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, window_stride=32)
    inputs = processor([picture(144, 48)], return_tensors="pt")
    assert inputs["window_positions"][:, 2].tolist() == [0, 32, 64, 96]
    assert inputs["picture_sizes"].tolist() == [[48, 144, 48, 144]]


def test_a_window_shows_its_part_of_the_picture(picture):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, window_stride=32)
    image = picture(144, 48)
    inputs = processor([image], return_tensors="pt")
    pixels = np.asarray(image).astype(np.float64) / 255
    expected = (pixels[:, 64:112] - np.array(processor.image_mean)) / np.array(processor.image_std)
    np.testing.assert_allclose(inputs["pixel_values"][2].numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_batches_mix_sizes(density_processor, picture):
    inputs = density_processor([picture(48, 48), picture(200, 100), picture(30, 90)], "dogs")
    owners = inputs["window_positions"][:, 0].tolist()
    assert sorted(set(owners)) == [0, 1, 2]
    assert len(inputs["input_ids"]) == len(inputs["pixel_values"]) == len(owners)
    assert inputs["picture_sizes"].tolist() == [[48, 48, 48, 48], [100, 200, 48, 96], [90, 30, 144, 48]]


@pytest.mark.parametrize("size", SIZES)
def test_post_processing_keeps_every_count_in_the_pictures_own_size(density_processor, picture, size):
    inputs = density_processor([picture(*size), picture(80, 80)], ["dogs", "cats"])
    maps = torch.rand(len(inputs["pixel_values"]), 48, 48, generator=torch.Generator().manual_seed(0))
    results = density_processor.post_process_density(maps, inputs["window_positions"], inputs["picture_sizes"])
    assert len(results) == 2
    width, height = size
    assert results[0]["density_map"].shape == (height, width)
    for result in results:
        assert result["density_map"].double().sum().item() == pytest.approx(result["count"], rel=1e-4)


def test_points_are_the_peaks_in_pixels_of_the_picture(density_processor, picture):
    inputs = density_processor([picture(192, 96)], "dogs")  # resized to 96 x 48: two pixels become one
    maps = torch.zeros(len(inputs["pixel_values"]), 48, 48)
    positions = inputs["window_positions"].tolist()
    for x, y in [(10, 20), (60, 30)]:
        for i, (_, top, left) in enumerate(positions):
            if top <= y < top + 48 and left <= x < left + 48:
                maps[i, y - top, x - left] = 1.0
    result = density_processor.post_process_density(maps, inputs["window_positions"], inputs["picture_sizes"])[0]
    assert result["count"] == pytest.approx(2.0, rel=1e-4)
    first, second = sorted(result["points"])
    assert first == pytest.approx([21, 41], abs=2.1)
    assert second == pytest.approx([121, 61], abs=2.1)


def test_peaks_are_at_most_the_count_and_none_in_an_empty_map():
    density_map = torch.zeros(40, 40)
    density_map[10, 10], density_map[30, 20] = 0.9, 0.7
    assert find_peaks(density_map).tolist()[0] == pytest.approx([10, 10], abs=1)
    assert len(find_peaks(density_map)) == 2
    assert len(find_peaks(density_map / 4)) == 0
    assert len(find_peaks(torch.zeros(5, 5))) == 0


@pytest.mark.parametrize("size", [(10, 10), (97, 31), (400, 300), (1, 1)])
def test_resizing_a_density_keeps_its_sum(size):
    density_map = torch.rand(50, 70)
    resized = resize_density(density_map, size)
    assert resized.shape == size
    assert resized.double().sum().item() == pytest.approx(density_map.double().sum().item(), rel=1e-5)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_impossible_densities_are_refused(density_processor, picture, value):
    inputs = density_processor([picture(48, 48)], "dogs")
    with pytest.raises(ValueError, match="negative or non-finite"):
        density_processor.post_process_density(
            torch.full((1, 48, 48), value), inputs["window_positions"], inputs["picture_sizes"]
        )


def test_maps_that_do_not_match_the_windows_are_refused(density_processor, picture):
    inputs = density_processor([picture(96, 48)], "dogs")
    with pytest.raises(ValueError, match="each of the 3 windows"):
        density_processor.post_process_density(
            torch.zeros(1, 48, 48), inputs["window_positions"], inputs["picture_sizes"]
        )


def test_sizes_are_bounded_for_extreme_pictures():
    assert resized_size(480, 640, 384, 16.0) == (384, 512)
    assert resized_size(640, 480, 384, 16.0) == (512, 384)
    assert resized_size(1, 100_000, 384, 16.0) == (384, 6144)


def _solid(mode: str, colour: object, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (_solid("RGB", (10, 20, 30)), (10, 20, 30)),
        (_solid("L", 77), (77, 77, 77)),
        (_solid("RGBA", (10, 20, 30, 0)), (255, 255, 255)),
        (_solid("RGBA", (10, 20, 30, 255)), (10, 20, 30)),
        (_solid("LA", (50, 255)), (50, 50, 50)),
        (_solid("1", 1), (255, 255, 255)),
        (_solid("CMYK", (0, 0, 0, 0)), (255, 255, 255)),
        (_solid("RGB", (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE), (10, 20, 30)),
        (Image.fromarray(np.full((4, 6), 32768, np.uint16)), (128, 128, 128)),
        (Image.fromarray(np.full((4, 6), 0.5, np.float32)), (128, 128, 128)),
        (np.full((4, 6), 9, np.uint8), (9, 9, 9)),
        (np.full((3, 4, 6), 9, np.uint8), (9, 9, 9)),
        (np.full((4, 6, 3), 0.2, np.float32), (51, 51, 51)),
        (torch.full((3, 4, 6), 9, dtype=torch.uint8), (9, 9, 9)),
        (np.zeros((4, 6, 3), np.uint8), (0, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(image, expected):
    converted = to_rgb(image)
    assert converted.mode == "RGB"
    assert converted.size == (6, 4)
    assert converted.getpixel((2, 2)) == pytest.approx(expected, abs=1)


def test_exif_rotation_is_applied(density_processor):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = (200, 0, 0)  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise for display
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    upright = to_rgb(Image.open(buffer))
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5))[0] == 200
    inputs = density_processor([Image.open(buffer)], "dogs")
    assert inputs["picture_sizes"].tolist() == [[40, 20, 96, 48]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 6), np.nan), "NaN"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (np.zeros((5, 6, 7), np.uint8), "shape"),
        (np.full((4, 6, 3), -1.0), "normalised already"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        to_rgb(array)


def test_truncated_picture_is_refused(picture, density_processor):
    buffer = io.BytesIO()
    picture(100, 100).save(buffer, "PNG")
    with pytest.raises(OSError):
        density_processor([Image.open(io.BytesIO(buffer.getvalue()[: len(buffer.getvalue()) // 2]))], "dogs")


@pytest.mark.parametrize("prompt", ["", "   "])
def test_empty_prompt_is_refused(density_processor, picture, prompt):
    with pytest.raises(ValueError, match="empty"):
        density_processor([picture(48, 48)], prompt)


def test_long_prompt_is_refused_and_the_limit_named(density_processor, picture):
    density_processor([picture(48, 48)], "x " * 36)  # 38 tokens with start and end: just fits beside the context
    with pytest.raises(ValueError, match="39 tokens, but only 38 fit"):
        density_processor([picture(48, 48)], "x " * 37)


def test_prompts_and_pictures_must_match_in_number(density_processor, picture):
    with pytest.raises(ValueError, match="each of the 2 pictures"):
        density_processor([picture(48, 48)] * 2, ["one", "two", "three"])
    with pytest.raises(ValueError, match="neither"):
        density_processor()
    with pytest.raises(TypeError, match="3"):
        density_processor([picture(48, 48)], [3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_blend": "max"}, "window_blend"),
        ({"window_stride": 49}, "window_stride"),
        ({"window_blend": "authors", "window_stride": 32}, "must divide"),
        ({"size": {"shortest_edge": 40}}, "shortest_edge"),
    ],
)
def test_image_processor_refuses_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        CLIPCountDensityImageProcessorPil(window_size=48, **options)


def test_processor_round_trips_through_a_folder(density_processor, picture, tmp_path):
    from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor

    density_processor.image_processor.save_pretrained(tmp_path / "image")
    image_processor = CLIPCountDensityImageProcessorPil.from_pretrained(tmp_path / "image")
    assert image_processor.to_dict() == density_processor.image_processor.to_dict()
    other = CLIPCountDensityProcessor(image_processor, density_processor.tokenizer, 2, 40)
    torch.testing.assert_close(
        other([picture(70, 50)], "dogs")["pixel_values"], density_processor([picture(70, 50)], "dogs")["pixel_values"]
    )


def test_a_flat_map_has_spread_out_points():
    points = find_peaks(torch.full((20, 20), 8 / 400), radius=3)
    assert 1 <= len(points) <= 8
    assert torch.pdist(points).min() > 3
