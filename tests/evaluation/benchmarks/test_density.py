import json
import math

import pytest
import torch
from PIL import Image

from count_clip.evaluation.benchmarks.density import evaluate_density
from count_clip.modeling.counting_engine import DensityCounter


@pytest.fixture
def images(make_image):
    """One window, one window resized, several windows, many windows."""
    return [make_image(48, 48, 0), make_image(31, 33, 1), make_image(120, 60, 2), make_image(50, 400, 3)]


@torch.no_grad()
def _reference(model, processor, image, text):
    """One image alone, all windows at once, with its tokens."""
    inputs = processor(images=[image], text=[text])
    return processor.post_process_density(model(**inputs), inputs["window_positions"], inputs["image_sizes"])[0]


@pytest.fixture
def rows(images):
    texts, counts = ["cats", "dogs", "cats", "dogs"], [3, 0, 7, 40]
    return [
        {"image": image, "image_id": f"p{i}", "text": text, "count": count}
        for i, (image, text, count) in enumerate(zip(images, texts, counts, strict=True))
    ]


def test_evaluation_may_see_images_whole(density_model, density_processor, rows):
    result = evaluate_density(density_model, density_processor, rows, progress=False, window="whole")
    engine = DensityCounter(density_model, density_processor, window="whole")
    counted = engine((row["image"], [row["text"]], None) for row in rows)
    expected = [one.results[0]["count"] for one in counted]
    assert [row.predicted for row in result.predictions] == pytest.approx(expected, rel=1e-4)


def test_evaluation_by_hand(density_model, density_processor, rows):
    predicted = [_reference(density_model, density_processor, row["image"], row["text"])["count"] for row in rows]
    errors = [a - row["count"] for a, row in zip(predicted, rows, strict=True)]
    result = evaluate_density(
        density_model, density_processor, rows, train_counts=[2, 4], batch_size=3, progress=False
    )
    assert result.n == 4
    assert result.mae == pytest.approx(sum(map(abs, errors)) / 4, rel=1e-4)
    assert result.rmse == pytest.approx(math.sqrt(sum(e * e for e in errors) / 4), rel=1e-4)
    assert result.n_with_objects == 3
    relative = [(e, row["count"]) for e, row in zip(errors, rows, strict=True) if row["count"]]
    assert result.nae == pytest.approx(sum(abs(e) / n for e, n in relative) / 3, rel=1e-4)
    assert result.sre == pytest.approx(math.sqrt(sum(e * e / n for e, n in relative) / 3), rel=1e-4)
    assert result.baseline_mae == pytest.approx((0 + 3 + 4 + 37) / 4)
    assert result.baseline_rmse == pytest.approx(math.sqrt((9 + 16 + 37**2) / 4))
    assert [row.image_id for row in result.predictions] == ["p0", "p1", "p2", "p3"]
    assert [row.predicted for row in result.predictions] == pytest.approx(predicted, rel=1e-4)
    assert list(result.by_text) == ["cats", "dogs"]
    cats = result.by_text["cats"]
    assert (cats.n, cats.mean_count) == (2, 5.0)
    assert cats.mae == pytest.approx((abs(errors[0]) + abs(errors[2])) / 2, rel=1e-4)
    assert cats.baseline_mae == pytest.approx(2.0)


def test_baseline_may_know_the_prompt(density_model, density_processor, rows):
    counts = {"cats": [5], "dogs": [10, 30], "ants": [1]}
    result = evaluate_density(density_model, density_processor, rows, train_counts=counts, progress=False)
    assert result.baseline_mae == pytest.approx((2 + 20 + 2 + 20) / 4)
    assert result.by_text["dogs"].baseline_mae == pytest.approx(20)
    with pytest.raises(ValueError, match="none for 'dogs'"):
        evaluate_density(density_model, density_processor, rows, train_counts={"cats": [5]}, progress=False)
    with pytest.raises(ValueError, match="empty"):
        evaluate_density(density_model, density_processor, rows, train_counts=[], progress=False)


def test_without_training_counts_there_is_no_baseline(density_model, density_processor, rows):
    result = evaluate_density(density_model, density_processor, rows[1:2], progress=False)
    assert result.baseline_mae is None
    assert (result.nae, result.sre, result.n_with_objects) == (None, None, 0)
    assert json.loads(json.dumps(result.to_dict()))["predictions"][0]["image_id"] == "p1"


def test_rows_that_cannot_be_measured_are_listed(density_model, density_processor, rows, tmp_path):
    good = rows[0]["image"]
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    bad = [
        ({"image": tmp_path / "cut.png", "text": "cats", "count": 1}, "cut.png"),
        ({"image": good, "text": "cats"}, "no true `count`"),
        ({"image": good, "text": "cats", "count": math.nan}, "nan"),
        ({"image": good, "text": "cats", "count": -1}, "-1"),
        ({"image": good, "text": " ", "count": 1}, "what to count"),
        ({"image": good, "text": "x" * 60, "count": 1}, "horten"),
        ({"image": Image.new("RGB", (0, 5)), "text": "cats", "count": 1}, "pixels"),
    ]
    mixed = [rows[0], *[row for row, _ in bad], rows[3]]
    result = evaluate_density(density_model, density_processor, mixed, train_counts=[1], progress=False)
    assert [row.index for row in result.predictions] == [0, 8]
    assert [row.index for row in result.skipped] == list(range(1, 8))
    for row, (_, words) in zip(result.skipped, bad, strict=True):
        assert words in row.reason
    with pytest.raises(ValueError, match="None of the 1 rows"):
        evaluate_density(density_model, density_processor, [bad[1][0]], progress=False)
    with pytest.raises(ValueError, match="data is empty"):
        evaluate_density(density_model, density_processor, [], progress=False)


def test_each_result_is_handed_over_with_its_row(density_model, density_processor, rows):
    seen = []
    evaluate_density(
        density_model,
        density_processor,
        rows,
        batch_size=64,
        progress=False,
        on_result=lambda row, counted: seen.append((row["image_id"], counted.image.size, *counted.results[0])),
    )
    keys = ("text", "count", "points", "density_map")
    assert seen == [(row["image_id"], row["image"].size, *keys) for row in rows]


def test_broken_weights_are_an_error(density_model, density_processor, rows):
    density_model.text_projection.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="non-finite"):
        evaluate_density(density_model, density_processor, rows, progress=False)
