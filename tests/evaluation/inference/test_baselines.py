import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from count_clip.datasets_scripts.counting_set.detector import Detection
from count_clip.datasets_scripts.files.resumable import ResultCache
from count_clip.evaluation.benchmarks.density import evaluate_density
from count_clip.evaluation.benchmarks.praco import evaluate_praco
from count_clip.evaluation.inference.baselines import (
    DetectorCounter,
    MeanCounter,
    countbench_by_counting,
    counted_noun_of,
    usual_number,
)


def _count(counter, images, prompts):
    prompts = [prompts] * len(images) if isinstance(prompts, str) else prompts
    counted = counter((image, [prompt], None) for image, prompt in zip(images, prompts, strict=True))
    return [one.results[0] for one in counted]


@pytest.fixture
def rows(make_image):
    texts = ["cats", "dogs", "cats"]
    return [
        {"image": make_image(40 + i, 50, i), "image_id": str(i), "text": text, "count": 2 * i}
        for i, text in enumerate(texts)
    ]


def test_the_mean_has_the_errors_of_the_baseline(rows):
    rows.append({"image": None, "image_id": "none", "text": "cats", "count": 1})
    result = evaluate_density(MeanCounter(3.0), None, rows, [2.0, 4.0], progress=False)
    assert (result.mae, result.rmse) == (result.baseline_mae, result.baseline_rmse)
    assert result.mae == pytest.approx((3 + 1 + 1) / 3)
    assert [row.image_id for row in result.skipped] == ["none"]


def test_the_mean_counter_has_maps_that_sum_to_its_count(make_image):
    (result,) = _count(MeanCounter(7.0), [make_image(30, 20)], "cats")
    assert result["density_map"].shape == (20, 30)
    assert result["density_map"].sum() == pytest.approx(7, rel=1e-4)
    assert result["points"] == []


@pytest.mark.parametrize("count", [-1, float("nan"), float("inf")])
def test_the_mean_has_to_be_a_count(count):
    with pytest.raises(ValueError, match="mean count"):
        MeanCounter(count)


def _reference_boxes(folder, image, prompt, threshold, max_overlap):
    """The detector's own forward and post-processing, and suppression one box after another."""
    model, processor = (
        AutoModelForZeroShotObjectDetection.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder),
    )
    inputs = processor(text=[[prompt]], images=image, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    found = processor.post_process_grounded_object_detection(
        outputs, threshold=threshold, target_sizes=[(image.height, image.width)]
    )[0]
    # The pipeline gives whole pixels.
    boxes = [[int(x) for x in box] for box in found["boxes"].tolist()]
    kept = []
    for _, box in sorted(zip(found["scores"].tolist(), boxes, strict=True), key=lambda pair: -pair[0]):
        box = [max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height)]
        area = max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
        if area and all(_overlap(box, other) <= max_overlap for other in kept):
            kept.append(box)
    return kept


def _overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_detector_counts_the_boxes_of_its_forward(owl_folder, make_image, batch_size):
    images = [make_image(60, 40, 1), make_image(33, 70, 2), make_image(48, 48, 3)]
    prompts = ["cats", "red dogs", "cats"]
    counter = DetectorCounter(owl_folder, threshold=0.3, max_overlap=0.4, batch_size=batch_size, device="cpu")
    results = _count(counter, images, prompts)
    expected = [
        _reference_boxes(owl_folder, image, prompt, 0.3, 0.4) for image, prompt in zip(images, prompts, strict=True)
    ]
    assert [sorted(result["boxes"]) for result in results] == [sorted(boxes) for boxes in expected]
    assert [result["count"] for result in results] == [len(boxes) for boxes in expected]
    assert sum(map(len, expected)) > 0
    for image, result in zip(images, results, strict=True):
        assert result["density_map"].shape == (image.height, image.width)
        assert result["density_map"].sum() == result["count"]


def test_a_higher_threshold_and_less_overlap_count_less(owl_folder, make_image):
    def count(**options):
        counter = DetectorCounter(owl_folder, device="cpu", **options)
        return [result["count"] for result in _count(counter, [make_image(60, 40, i) for i in range(3)], "cats")]

    loose, strict = count(threshold=0.0, max_overlap=1.0), count(threshold=0.0, max_overlap=0.0)
    assert all(many > few >= 1 for many, few in zip(loose, strict, strict=True))
    assert sum(count(threshold=0.9)) < sum(loose)
    assert count(threshold=1.0) == [0, 0, 0]


class _ClosedDetector:
    """A detector with fixed classes."""

    is_zero_shot, threshold = False, 0.5

    def __call__(self, images, nouns):
        dogs = [Detection("dog", 0.9, (0, 0, 5, 5)), Detection("dog", 0.8, (10, 0, 15, 5))]
        return [[*dogs, Detection("wine glass", 0.9, (0, 10, 5, 15))] for _ in images]


def test_of_a_detector_with_fixed_classes_the_prompted_ones_count(owl_folder, make_image):
    counter = DetectorCounter(owl_folder, device="cpu")
    counter.detector = _ClosedDetector()
    prompts = ["small dogs", "wine glasses", "cats"]
    results = _count(counter, [make_image(20, 20)] * 3, prompts)
    assert [result["count"] for result in results] == [2, 1, 0]


def test_a_detector_follows_the_prompt_on_mosaics(owl_folder, make_image):
    rows = [
        {"image": make_image(48, 48, i), "image_id": str(i), "text": text, "count": count}
        for i, classes in enumerate([("cats", "dogs"), ("dogs", "cats")])
        for text, count in zip(classes, (3, 0), strict=True)
    ]
    result = evaluate_praco(DetectorCounter(owl_folder, threshold=0.3, device="cpu"), None, rows, progress=False)
    assert (result.num_images, result.num_mosaics) == (2, 2)
    assert all(one.predicted == int(one.predicted) for one in result.mosaics)


def test_a_image_that_cannot_be_read_keeps_its_place(owl_folder, make_image):
    counter = DetectorCounter(owl_folder, threshold=0.3, batch_size=3, device="cpu")
    images = [make_image(48, 48, 1), "gone.png", make_image(48, 48, 2)]
    results = _count(counter, images, "cats")
    assert ["error" in result for result in results] == [False, True, False]
    (alone,) = _count(counter, [images[2]], "cats")
    assert alone["points"] == results[2]["points"]


def test_what_is_no_detector_is_refused(counting_model, tmp_path):
    counting_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'count_clip'"):
        DetectorCounter(str(tmp_path))
    with pytest.raises(ValueError, match="max_overlap"):
        DetectorCounter(str(tmp_path), max_overlap=2)
    with pytest.raises(ValueError, match="batch_size"):
        DetectorCounter(str(tmp_path), batch_size=0)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (None, 6),
        ([], 6),
        ([2, 2, 2, 9], 2),
        ([2, 3, 9, 10], 3),  # equally frequent: nearest to the mean of 6, and of 3 and 9 the smaller
        ([0, 0, 0, 40, 40, 5], 5),  # of those with a caption
    ],
)
def test_the_usual_number(numbers, expected):
    assert usual_number(numbers) == expected


@pytest.mark.parametrize(
    ("row", "number", "expected"),
    [
        ({"text": "three small dogs on a lawn"}, 3, "small dogs"),
        ({"text": "Two women with five red apples"}, 5, "red apples"),
        ({"text": "three small dogs", "name": "puppies"}, 3, "puppies"),
        ({"text": "a set of four", "name": None}, 4, "set"),
    ],
)
def test_what_a_caption_counts(row, number, expected):
    assert expected in counted_noun_of(row, number)


class _Brightness(MeanCounter):
    """Predicts the mean of the red channel, and records its prompts."""

    def __init__(self):
        super().__init__(0)
        self.batch_size, self.asked = 2, []

    def count_batch(self, batch):
        for counted in batch:
            self.asked += counted.prompts
            counted.results = [{"text": counted.prompts[0], "count": float(counted.image.getpixel((0, 0))[0])}]


def _grey(value):
    return Image.new("RGB", (5, 4), (value, 0, 0))


def test_a_count_becomes_the_nearest_number(tmp_path):
    counts, numbers = [0, 3, 7, 40, 9], [2, 3, 6, 10, 2]
    words = dict(enumerate(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], start=2))
    rows = [
        {"image": _grey(count), "text": f"{words[number]} red cats", "number": number}
        for count, number in zip(counts, numbers, strict=True)
    ]
    rows.insert(1, {"image": None, "image_id": "none", "text": "two cats", "number": 2})
    rows.append({"image": _grey(2), "image_id": "mute", "text": "cats", "number": 0})
    counter = _Brightness()
    with ResultCache(tmp_path / "cache", {}) as cache:
        result = countbench_by_counting(counter, rows, cache, progress=False)
        assert set(counter.asked) == {"red cats"}
        assert result.predictions.tolist() == [2, 3, 7, 10, 9]
        assert result.numbers.tolist() == numbers
        assert result.indices.tolist() == [0, 2, 3, 4, 5]
        assert (result.accuracy, result.mean_deviation) == (3 / 5, pytest.approx((0 + 0 + 1 + 0 + 7) / 5))
        np.testing.assert_allclose(result.scores[2], [-5, -4, -3, -2, -1, 0, -1, -2, -3])
        assert sorted(row.image_id for row in result.skipped) == ["mute", "none"]
        again = countbench_by_counting(counter, rows, cache, progress=False)
    assert len(counter.asked) == 5
    np.testing.assert_array_equal(again.predictions, result.predictions)


@pytest.mark.parametrize(
    ("rows", "words"), [([], "is empty"), ([{"image": None, "text": "two cats"}], "None of the 1")]
)
def test_nothing_to_count_is_an_error(rows, words):
    with pytest.raises(ValueError, match=words):
        countbench_by_counting(MeanCounter(6), rows, progress=False)
