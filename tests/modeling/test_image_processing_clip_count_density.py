"""Promises of the image processor: windows that cover any image exactly, and maps of them put back without loss."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil, resized_size
from count_clip.modeling.processing_clip_count_density import resize_density


SIDE = 24


@st.composite
def processors(draw):
    """Image processors with small windows, of all blends and strides that are allowed."""
    blend = draw(st.sampled_from(["hat", "authors"]))
    divisors = [stride for stride in range(1, SIDE + 1) if SIDE % stride == 0]
    stride = draw(st.sampled_from(divisors[3:] if blend == "authors" else range(4, SIDE + 1)))
    edge = draw(st.integers(SIDE, 2 * SIDE))
    return CLIPCountDensityImageProcessorPil(
        window_size=SIDE, window_stride=stride, window_blend=blend, size={"shortest_edge": edge}, max_aspect_ratio=6.0
    )


sides = st.integers(1, 200)


@settings(max_examples=60, deadline=None)
@given(processors(), sides, sides)
def test_windows_of_a_constant_density_compose_to_that_constant(processor, width, height):
    inputs = processor(Image.new("L", (width, height)), return_tensors="pt")
    size = tuple(inputs["image_sizes"][0, 2:].tolist())
    offsets = [(top, left) for _, top, left in inputs["window_positions"].tolist()]
    composite = processor.composite(torch.full((len(offsets), SIDE, SIDE), 0.25), offsets, size)
    torch.testing.assert_close(composite, torch.full(size, 0.25))


@settings(max_examples=60, deadline=None)
@given(processors(), st.integers(SIDE, 150), st.integers(SIDE, 150), st.integers(0, 2**31))
def test_cutting_and_compositing_a_map_restores_it(processor, height, width, seed):
    density_map = torch.rand(height, width, generator=torch.Generator().manual_seed(seed))
    padded = torch.nn.functional.pad(density_map, (0, SIDE, 0, SIDE))
    offsets = processor.window_offsets(height, width)
    windows = torch.stack([padded[top : top + SIDE, left : left + SIDE] for top, left in offsets])
    composite = processor.composite(windows, offsets, (height, width))
    torch.testing.assert_close(composite, density_map)
    # Several maps at once are those maps one by one.
    several = processor.composite(torch.stack([windows, 2 * windows], dim=1), offsets, (height, width))
    torch.testing.assert_close(several, torch.stack([density_map, 2 * density_map]))


@settings(max_examples=60, deadline=None)
@given(processors(), sides, sides)
def test_windows_cover_the_image_and_are_never_further_apart_than_the_stride(processor, width, height):
    height, width = resized_size(height, width, processor.size["shortest_edge"], processor.max_aspect_ratio)
    offsets = processor.window_offsets(height, width)
    assert len(offsets) == len(set(offsets))
    for axis, length in ((0, height), (1, width)):
        starts = sorted({offset[axis] for offset in offsets})
        assert starts[0] == 0
        assert starts[-1] + SIDE >= length
        assert all(0 < b - a <= processor.window_stride for a, b in pairwise(starts))
        if processor.window_blend == "hat" or axis == 0:
            assert starts[-1] + SIDE == length
            assert len(starts) == 1 + -(-(length - SIDE) // processor.window_stride)


@settings(max_examples=60, deadline=None)
@given(st.tuples(sides, sides), st.tuples(sides, sides), st.integers(0, 2**31))
def test_resizing_a_density_keeps_its_sum(old, new, seed):
    density_map = torch.rand(old, generator=torch.Generator().manual_seed(seed)) ** 8
    resized = resize_density(density_map, new)
    assert resized.shape == new
    assert resized.min() >= 0
    total = float(np.sum(density_map.numpy(), dtype=np.float64))
    assert float(np.sum(resized.numpy(), dtype=np.float64)) == pytest.approx(total, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(processors(), sides, sides, st.booleans())
def test_windows_cut_in_batches_equal_those_cut_at_once(processor, width, height, do_resize):
    processor.do_resize = do_resize
    generator = np.random.default_rng(width)
    image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    inputs = processor(image, return_tensors="pt")
    resized = processor.resize_image(image)
    assert [resized.height, resized.width] == inputs["image_sizes"][0, 2:].tolist()
    offsets = processor.window_offsets(resized.height, resized.width)
    for index, offset in enumerate(offsets):
        assert torch.equal(processor.cut_windows(resized, [offset])[0], inputs["pixel_values"][index])
    assert torch.equal(processor.cut_windows(resized, offsets[:3]), inputs["pixel_values"][:3])


@settings(max_examples=20, deadline=None)
@given(processors(), sides, sides)
def test_incremental_composite_equals_the_composite_of_all_maps(processor, width, height):
    offsets = processor.window_offsets(height, width)
    maps = torch.rand(len(offsets), 2, SIDE, SIDE)
    expected = processor.composite(maps, offsets, (height, width))
    composite = processor.start_composite(offsets, (height, width))
    for window_map, offset in zip(maps, offsets, strict=True):
        assert composite.num_missing > 0
        composite.add(window_map, offset)
    assert composite.num_missing == 0
    assert torch.equal(composite.density_map, expected)


def test_as_few_windows_as_the_stride_allows(make_image):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, window_stride=32)
    inputs = processor([make_image(144, 48)], return_tensors="pt")
    assert inputs["window_positions"][:, 2].tolist() == [0, 32, 64, 96]
    assert inputs["image_sizes"].tolist() == [[48, 144, 48, 144]]


def test_a_window_is_its_region_of_the_image(make_image):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, window_stride=32)
    image = make_image(144, 48)
    inputs = processor([image], return_tensors="pt")
    pixels = np.asarray(image).astype(np.float64) / 255
    expected = (pixels[:, 64:112] - np.array(processor.image_mean)) / np.array(processor.image_std)
    np.testing.assert_allclose(inputs["pixel_values"][2].numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_an_image_smaller_than_a_window_is_padded_with_black(make_image):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, do_resize=False)
    inputs = processor([make_image(20, 30)], return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 48, 48)
    black = -np.array(processor.image_mean) / np.array(processor.image_std)
    np.testing.assert_allclose(inputs["pixel_values"][0, :, 30:, :].mean(dim=(1, 2)), black, rtol=1e-5)
    np.testing.assert_allclose(inputs["pixel_values"][0, :, :, 20:].mean(dim=(1, 2)), black, rtol=1e-5)


@pytest.mark.parametrize(
    ("width", "height", "windows"), [(1, 1, 1), (1, 2000, 24), (2000, 1, 24), (5472, 3648, 2), (9, 9, 1)]
)
def test_the_number_of_windows_is_bounded_for_any_image(width, height, windows):
    processor = CLIPCountDensityImageProcessorPil(window_size=48)
    inputs = processor(Image.new("L", (width, height)), return_tensors="pt")
    assert len(inputs["pixel_values"]) == windows
    assert inputs["image_sizes"][0, :2].tolist() == [height, width]


def test_sizes_are_bounded_for_extreme_images():
    assert resized_size(480, 640, 384, 16.0) == (384, 512)
    assert resized_size(640, 480, 384, 16.0) == (512, 384)
    assert resized_size(1, 100_000, 384, 16.0) == (384, 6144)


def test_windows_with_a_gap_between_them_raise():
    processor = CLIPCountDensityImageProcessorPil(window_size=24)
    for offsets, length in (([(0, 0), (0, 25)], 49), ([(0, 1)], 24), ([(0, 0)], 25)):
        with pytest.raises(ValueError, match=f"cover {length} pixels"):
            processor.composite(torch.zeros(len(offsets), 24, 24), offsets, (24, length))
    with pytest.raises(ValueError, match="each of 2 windows, but got 1"):
        processor.composite(torch.zeros(1, 24, 24), [(0, 0), (0, 9)], (24, 33))


def test_images_may_be_single_in_lists_or_in_stacks(make_image, tmp_path):
    processor = CLIPCountDensityImageProcessorPil(window_size=48)
    image = make_image(48, 48)
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    grey = np.asarray(image.convert("L"))
    expected = processor([image], return_tensors="pt")["pixel_values"]
    for images in (image, array, [array], array[None], str(tmp_path / "a.png"), [tmp_path / "a.png"], [[image]]):
        torch.testing.assert_close(processor(images, return_tensors="pt")["pixel_values"], expected)
    assert processor([image, array, grey], return_tensors="pt")["pixel_values"].shape[0] == 3
    torch.testing.assert_close(
        processor(grey, return_tensors="pt")["pixel_values"],
        processor(image.convert("L"), return_tensors="pt")["pixel_values"],
    )
    with pytest.raises(ValueError, match="at least one image"):
        processor([])


def test_a_file_equals_its_image(tmp_path):
    """Not brought to eight bits or robbed of its transparency on the way, as `load_image` does."""
    processor = CLIPCountDensityImageProcessorPil(window_size=48)
    deep = Image.fromarray(np.random.default_rng(0).integers(0, 4096, (50, 60), dtype=np.uint16))
    clear = Image.new("RGBA", (50, 60), (200, 0, 0, 0))
    for image, name in ((deep, "deep.png"), (clear, "clear.png")):
        image.save(tmp_path / name)
        torch.testing.assert_close(
            processor(str(tmp_path / name), return_tensors="pt")["pixel_values"],
            processor(image, return_tensors="pt")["pixel_values"],
        )


OPTIONS = [
    ({"window": "half"}, "window"),
    ({"window_blend": "max"}, "window_blend"),
    ({"window_stride": 49}, "window_stride"),
    ({"window_stride": 0}, "window_stride"),
    ({"window_blend": "authors", "window_stride": 32}, "must divide"),
    ({"size": {"shortest_edge": 40}}, "shortest_edge"),
    ({"max_aspect_ratio": 0.5}, "max_aspect_ratio"),
    ({"max_whole_area": 0.0}, "max_whole_area"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_invalid_options_raise_in_the_constructor_and_in_a_call(options, message, make_image):
    with pytest.raises(ValueError, match=message):
        CLIPCountDensityImageProcessorPil(window_size=48, **options)
    with pytest.raises(ValueError, match=message):
        CLIPCountDensityImageProcessorPil(window_size=48)([make_image(48, 48)], **options)


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 60), (48, 80)), ((60, 100), (80, 48)), ((1, 1), (48, 48)), ((1, 2000), (768, 48))]
)
def test_a_whole_image_is_one_window(make_image, size, expected):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, window="whole")
    inputs = processor([make_image(*size)] * 2, return_tensors="pt")
    assert inputs["pixel_values"].shape == (2, 3, *expected)
    assert inputs["window_positions"].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert inputs["image_sizes"].tolist() == [[size[1], size[0], *expected]] * 2
    whole = torch.rand(1, *expected)
    torch.testing.assert_close(processor.composite(whole, [(0, 0)], expected), whole[0])


def test_the_window_can_be_chosen_in_a_call_and_is_saved(make_image, tmp_path):
    processor = CLIPCountDensityImageProcessorPil(window_size=48)
    image = make_image(100, 60)
    assert processor([image], window="whole", return_tensors="pt")["pixel_values"].shape == (1, 3, 48, 80)
    assert processor([image], return_tensors="pt")["pixel_values"].shape == (2, 3, 48, 48)
    CLIPCountDensityImageProcessorPil(window_size=48, window="whole").save_pretrained(tmp_path)
    loaded = CLIPCountDensityImageProcessorPil.from_pretrained(tmp_path)
    assert loaded.window == "whole"
    assert loaded([image], return_tensors="pt")["pixel_values"].shape == (1, 3, 48, 80)
    assert loaded([image], window="sliding", return_tensors="pt")["pixel_values"].shape == (2, 3, 48, 48)


def test_whole_images_of_different_sizes_are_not_stacked(make_image):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, window="whole")
    with pytest.raises(ValueError, match=r"got 48x80, 80x48.*one by one"):
        processor([make_image(100, 60), make_image(60, 100)])


def test_a_too_large_whole_image_raises(make_image):
    processor = CLIPCountDensityImageProcessorPil(window_size=48, size={"shortest_edge": 96}, window="whole")
    processor([make_image(400, 100)])  # 96 x 384: 16 windows of 48 x 48
    with pytest.raises(ValueError, match=r"at most 16 windows.*96x385 pixels.*sliding"):
        processor([make_image(401, 100)])
    processor([make_image(401, 100)], max_whole_area=17.0)
