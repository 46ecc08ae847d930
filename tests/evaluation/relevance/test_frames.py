import numpy as np
import pytest
from PIL import Image
from transformers.models.clip import CLIPImageProcessorPil

from count_clip.evaluation.relevance.frames import Frame, box_mask, coverage, input_frame, upsample


def _processor(**options):
    plain = {"do_rescale": False, "do_normalize": False, "do_convert_rgb": True}
    return CLIPImageProcessorPil(**{**plain, **options})


_SQUARE = {"height": 32, "width": 32}


@pytest.mark.parametrize("size", [(100, 80), (80, 100), (61, 33), (33, 61), (20, 20), (200, 21), (32, 32)])
@pytest.mark.parametrize(
    "options",
    [
        {"size": {"shortest_edge": 32}, "crop_size": _SQUARE},
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 24}},
        {"size": {"height": 48, "width": 36}, "crop_size": _SQUARE},
        {"size": _SQUARE, "do_center_crop": False},
        {"size": {"shortest_edge": 24}, "crop_size": _SQUARE},
        {"do_resize": False, "crop_size": _SQUARE},
    ],
)
def test_frame_is_the_region_of_the_processor(size, options):
    """Ramps of pixel positions agree with the frame after the real processor."""
    width, height = size
    ramps = np.zeros((height, width, 3), dtype=np.uint8)
    ramps[..., 0] = np.arange(width)[None]
    ramps[..., 1] = np.arange(height)[:, None]
    ramps[..., 2] = 255  # to distinguish padding from the image
    processor = _processor(**options)
    pixels = np.asarray(processor(Image.fromarray(ramps), return_tensors="np")["pixel_values"][0], dtype=float)
    frame = input_frame(processor, size, (pixels.shape[2], pixels.shape[1]))
    assert (frame.width, frame.height) == size
    for axis, (start, end, length) in enumerate(((frame.left, frame.right, width), (frame.top, frame.bottom, height))):
        cells = pixels.shape[2 - axis]
        expected = start + (end - start) / cells * (np.arange(cells) + 0.5) - 0.5
        inside = (expected > 2) & (expected < length - 3)
        middle = pixels.shape[1 + axis] // 2
        line = pixels[axis, middle] if axis == 0 else pixels[axis, :, middle]
        seen = pixels[2, middle] if axis == 0 else pixels[2, :, middle]
        assert (seen[inside] > 250).all()
        assert inside.any()
        assert np.abs(line - expected)[inside].max() <= 1.0
        beyond = (expected < -1) | (expected > length)
        assert (seen[beyond] == 0).all()


def test_other_processors_are_rejected():
    with pytest.raises(ValueError, match="but its output has .* Use the processor of a CLIP"):
        input_frame(_processor(size={"shortest_edge": 32}, crop_size=_SQUARE), (50, 50), (16, 16))
    with pytest.raises(ValueError, match="to a `shortest_edge` or to `height` and `width`"):
        input_frame(_processor(size={"max_height": 32, "max_width": 32}), (50, 50), (32, 32))


def test_upsampling_is_linear_between_the_centres():
    frame = Frame(0, 0, 40, 20, 40, 20)
    values = upsample(np.array([[1.0, 3.0]]), frame)
    assert values.shape == (20, 40)
    assert values[0, 0] == values[7, 9] == 1.0  # the middle of the first patch is at x = 10
    assert values[3, 9] + values[3, 30] == pytest.approx(4.0)
    assert values[0, 19] == pytest.approx(1 + 2 * (19.5 - 10) / 20)
    assert (upsample(np.ones((3, 3)), frame) == 1).all()


def test_maps_are_zero_outside_of_the_frame():
    values = upsample(np.ones((4, 4)), Frame(10, 0, 30, 20, 40, 20))
    assert (values[:, 10:30] == 1).all()
    assert values.sum() == 400


@pytest.mark.parametrize(
    "frame", [Frame(0, 0, 40, 30, 40, 30), Frame(5.5, 0, 35.25, 30, 40, 30), Frame(-8, -3.3, 48, 33.3, 40, 30)]
)
def test_coverage_agrees_with_many_sample_points(frame):
    boxes = [[3, 4, 17, 12], [10, 8, 30, 29], [-5, -5, 2, 2]]
    mask = box_mask(boxes, frame.width, frame.height)
    covered = coverage(mask, frame, (3, 4))
    per_cell = 200
    x = frame.left + (frame.right - frame.left) * (np.arange(4 * per_cell) + 0.5) / (4 * per_cell)
    y = frame.top + (frame.bottom - frame.top) * (np.arange(3 * per_cell) + 0.5) / (3 * per_cell)
    on_image = ((y >= 0) & (y < frame.height))[:, None] & ((x >= 0) & (x < frame.width))[None]
    hit = on_image & np.any(
        [((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None] for x0, y0, x1, y1 in boxes], axis=0
    )
    expected = hit.reshape(3, per_cell, 4, per_cell).mean(axis=(1, 3))
    np.testing.assert_allclose(covered, expected, atol=0.01)
    assert covered.max() <= 1 + 1e-9


def test_boxes_cover_pixels_by_their_centres():
    assert box_mask([[0, 0, 1, 1], [1.4, 0, 3, 2]], 4, 3).astype(int).tolist() == [[1, 1, 1, 0], [0, 1, 1, 0], [0] * 4]
    assert not box_mask([], 4, 3).any()
    with pytest.raises(ValueError, match="boxes"):
        box_mask([[0, 0, float("nan"), 1]], 4, 3)
