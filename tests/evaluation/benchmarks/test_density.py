import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from count_clip.evaluation.benchmarks.density import evaluate_density, predict_density
from count_clip.modeling.images import ImageError


@pytest.fixture
def images(make_image):
    """One window, one window resized, several windows, many windows."""
    return [make_image(48, 48, 0), make_image(31, 33, 1), make_image(120, 60, 2), make_image(50, 400, 3)]


@pytest.fixture
def forward_sizes(density_model):
    """Windows and prompts of each call of the model."""
    sizes = []

    def record(_module, _args, kwargs):
        if "text_embeds" in kwargs:  # not in the calls that a test makes to compare with
            sizes.append(kwargs["text_embeds"].shape[:2])

    density_model.register_forward_pre_hook(record, with_kwargs=True)
    return sizes


@torch.no_grad()
def _reference(model, processor, image, text):
    """One image by itself, all windows at once, with its tokens."""
    inputs = processor(images=[image], text=[text])
    return processor.post_process_density(model(**inputs), inputs["window_positions"], inputs["image_sizes"])[0]


def _assert_same(result, expected):
    assert result["count"] == pytest.approx(expected["count"], rel=1e-4)
    np.testing.assert_allclose(result["density_map"], expected["density_map"].numpy(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_give_what_each_image_gives_alone(density_model, density_processor, images, batch_size):
    texts = ["red cats", "dogs", "red cats", "tiny ants"]
    results = list(predict_density(density_model, density_processor, images, texts, batch_size=batch_size))
    assert [result["text"] for result in results] == texts
    for result, image, text in zip(results, images, texts, strict=True):
        expected = _reference(density_model, density_processor, image, text)
        _assert_same(result, expected)
        assert result["density_map"].shape == (image.height, image.width)
        assert result["density_map"].sum() == pytest.approx(result["count"], rel=1e-4)
        assert len(result["points"]) == len(expected["points"])


def test_windows_run_in_bounded_batches_and_each_prompt_is_encoded_once(
    density_model, density_processor, images, forward_sizes, monkeypatch
):
    encoded = []
    encode = density_model.get_text_embeds

    def record(input_ids, attention_mask):
        encoded.append(len(input_ids))
        return encode(input_ids, attention_mask)

    monkeypatch.setattr(density_model, "get_text_embeds", record)
    num_windows = sum(len(density_processor(images=[image])["pixel_values"]) for image in images)
    list(predict_density(density_model, density_processor, images, ["cats", "dogs", "cats", "dogs"], batch_size=5))
    assert encoded == [1, 1]
    assert max(windows for windows, _ in forward_sizes) <= 5
    assert sum(windows for windows, _ in forward_sizes) == num_windows
    assert len(forward_sizes) < num_windows


def test_a_generator_gives_results_before_the_last_image_is_read(density_model, density_processor, images):
    read = []

    def stream():
        for number, image in enumerate(images):
            read.append(number)
            yield image

    results = predict_density(density_model, density_processor, stream(), "cats", batch_size=1)
    next(results)
    assert read == [0]


def test_several_prompts_share_the_vision_tower(density_model, density_processor, images, forward_sizes):
    prompts = ["cats", "dogs", "ants"]
    results = list(predict_density(density_model, density_processor, images, [prompts, "cats", prompts, prompts]))
    assert isinstance(results[1], dict)
    for image_results, image in zip((results[0], results[2]), (images[0], images[2]), strict=True):
        assert [result["text"] for result in image_results] == prompts
        for result in image_results:
            _assert_same(result, _reference(density_model, density_processor, image, result["text"]))
    assert {num_prompts for _, num_prompts in forward_sizes} == {1, 3}
    assert all(windows * num_prompts <= 16 for windows, num_prompts in forward_sizes)


def test_more_prompts_than_a_batch_holds_still_share_one_pass(density_model, density_processor, images, forward_sizes):
    prompts = ["cats", "dogs", "ants", "bees", "cows"]
    (results,) = predict_density(density_model, density_processor, images[:1], [prompts], batch_size=2)
    assert forward_sizes == [(1, 5)]
    for result in results:
        _assert_same(result, _reference(density_model, density_processor, images[0], result["text"]))


@pytest.mark.parametrize("batch_size", [1, 16])
def test_whole_images_of_many_sizes_go_through_in_one_pass_each(
    density_model, density_processor, images, forward_sizes, batch_size
):
    mixed = [images[0], images[0], *images[1:], images[3]]
    prompts = [["cats", "dogs"], ["cats", "dogs"], "cats", "dogs", "cats", ["ants", "cats"]]
    options = {"batch_size": batch_size, "window": "whole"}
    results = list(predict_density(density_model, density_processor, mixed, prompts, **options))
    assert [windows for windows, _ in forward_sizes] == [1] * 6
    assert [num_prompts for _, num_prompts in forward_sizes] == [2, 2, 1, 1, 1, 2]
    for result, image, asked in zip(results, mixed, prompts, strict=True):
        of_image = result if isinstance(result, list) else [result]
        assert [entry["text"] for entry in of_image] == (asked if isinstance(asked, list) else [asked])
        for entry in of_image:
            inputs = density_processor([image], entry["text"], window="whole")
            with torch.no_grad():
                outputs = density_model(**inputs)
            (expected,) = density_processor.post_process_density(
                outputs, inputs["window_positions"], inputs["image_sizes"]
            )
            _assert_same(entry, expected)


def test_evaluation_may_see_images_whole(density_model, density_processor, rows, forward_sizes):
    result = evaluate_density(density_model, density_processor, rows, progress=False, window="whole")
    assert forward_sizes == [(1, 1)] * 4
    said = [
        next(predict_density(density_model, density_processor, [row["image"]], row["text"], window="whole"))["count"]
        for row in rows
    ]
    assert [row.predicted for row in result.predictions] == pytest.approx(said, rel=1e-4)


def test_unreadable_images_are_reported_in_their_place(density_model, density_processor, images, tmp_path):
    broken = tmp_path / "broken.png"
    images[0].save(broken)
    broken.write_bytes(broken.read_bytes()[:300])
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    mixed = [images[0], broken, tmp_path / "gone.jpg", images[1], text]
    results = list(predict_density(density_model, density_processor, mixed, "cats", skip_unreadable=True))
    assert ["error" in result for result in results] == [False, True, True, False, True]
    assert "broken.png" in results[1]["error"]
    assert "gone.jpg" in results[2]["error"]
    assert "notes.txt" in results[4]["error"]
    with pytest.raises(ImageError, match=r"broken\.png"):
        list(predict_density(density_model, density_processor, mixed, "cats"))


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (["cats"], {}, "only 1 prompts"),
        (["cats"] * 5, {}, "more prompts than the 4"),
        ([[], "cats", "cats", "cats"], {}, "empty list"),
        ("", {}, "prompt is empty"),
        ("x" * 60, {}, "Shorten|shorten"),
        ("cats", {"batch_size": 0}, "at least 1"),
    ],
)
def test_predict_rejects_nonsense(density_model, density_processor, images, texts, options, words):
    with pytest.raises(ValueError, match=words):
        list(predict_density(density_model, density_processor, images, texts, **options))


def test_other_models_and_processors_are_refused(counting_model, density_model, counting_processor, density_processor):
    with pytest.raises(TypeError, match="CLIPForCounting"):
        list(predict_density(counting_model, density_processor, [], "cats"))
    with pytest.raises(TypeError, match="CountCLIPProcessor"):
        list(predict_density(density_model, counting_processor, [], "cats"))


def test_gradients_and_mode_are_left_alone_between_results(density_model, density_processor, images):
    density_model.train()
    results = predict_density(density_model, density_processor, images, "cats", batch_size=1)
    next(results)
    assert density_model.training
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.fixture
def rows(images):
    texts, counts = ["cats", "dogs", "cats", "dogs"], [3, 0, 7, 40]
    return [
        {"image": image, "image_id": f"p{i}", "text": text, "count": count}
        for i, (image, text, count) in enumerate(zip(images, texts, counts, strict=True))
    ]


def test_evaluation_by_hand(density_model, density_processor, rows):
    said = [_reference(density_model, density_processor, row["image"], row["text"])["count"] for row in rows]
    errors = [a - row["count"] for a, row in zip(said, rows, strict=True)]
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
    assert [row.predicted for row in result.predictions] == pytest.approx(said, rel=1e-4)
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
        on_result=lambda row, result: seen.append((row["image_id"], result["density_map"].shape, "points" in result)),
    )
    assert seen == [(row["image_id"], row["image"].size[::-1], True) for row in rows]


def test_broken_weights_are_an_error(density_model, density_processor, rows):
    density_model.text_projection.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="non-finite"):
        evaluate_density(density_model, density_processor, rows, progress=False)
