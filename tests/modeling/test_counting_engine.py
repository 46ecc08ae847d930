"""Promises of the engines: requests in, results out in their order, in bounded batches, nothing computed twice."""

import numpy as np
import pytest
import torch

from count_clip.modeling.counting_engine import DensityCounter
from count_clip.modeling.images import ImageError
from count_clip.modeling.pipeline_caption_counting import CaptionCountingPipeline, NumberChooser


@pytest.fixture
def images(make_image):
    """One window, one window resized, several windows, many windows."""
    return [make_image(48, 48, 0), make_image(31, 33, 1), make_image(120, 60, 2), make_image(50, 400, 3)]


@pytest.fixture
def passes(density_model):
    """Windows and prompts of each call of the model."""
    sizes = []

    def record(_module, _args, kwargs):
        if "text_embeds" in kwargs:  # not in the calls that a test makes to compare with
            sizes.append(tuple(kwargs["text_embeds"].shape[:2]))

    density_model.register_forward_pre_hook(record, with_kwargs=True)
    return sizes


@pytest.fixture
def engine(density_model, density_processor):
    """Makes an engine of the tiny model."""
    return lambda batch_size=16, **options: DensityCounter(density_model, density_processor, batch_size, **options)


def _requests(images, prompts):
    prompts = prompts if isinstance(prompts, list) else [prompts] * len(images)
    texts = [[text] if isinstance(text, str) else text for text in prompts]
    return [(image, own, number) for number, (image, own) in enumerate(zip(images, texts, strict=True))]


@torch.no_grad()
def _reference(model, processor, image, text, **options):
    """One image, all windows at once, with its tokens."""
    inputs = processor(images=[image], text=[text], **options)
    return processor.post_process_density(model(**inputs), inputs["window_positions"], inputs["image_sizes"])[0]


def _assert_same(result, expected):
    assert result["count"] == pytest.approx(expected["count"], rel=1e-4)
    np.testing.assert_allclose(result["density_map"], expected["density_map"].numpy(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batches_have_the_results_of_single_images(engine, density_model, density_processor, images, batch_size):
    texts = ["red cats", "dogs", "red cats", "tiny ants"]
    counted = list(engine(batch_size)(_requests(images, texts)))
    assert [one.tag for one in counted] == [0, 1, 2, 3]
    for one, image, text in zip(counted, images, texts, strict=True):
        (result,) = one.results
        expected = _reference(density_model, density_processor, image, text)
        _assert_same(result, expected)
        assert result["text"] == text
        assert result["density_map"].shape == one.size == (image.height, image.width)
        assert result["density_map"].sum() == pytest.approx(result["count"], rel=1e-4)
        assert len(result["points"]) == len(expected["points"])


def test_windows_run_in_bounded_batches_and_each_prompt_is_encoded_once(
    engine, density_model, density_processor, images, passes, monkeypatch
):
    encoded = []
    encode = density_model.get_text_embeds

    def record(input_ids, attention_mask):
        encoded.append(len(input_ids))
        return encode(input_ids, attention_mask)

    monkeypatch.setattr(density_model, "get_text_embeds", record)
    num_windows = sum(len(density_processor(images=[image])["pixel_values"]) for image in images)
    list(engine(5)(_requests(images, ["cats", "dogs", "cats", "dogs"])))
    assert encoded == [1, 1]
    assert [windows for windows, _ in passes] == [5] * (num_windows // 5) + [num_windows % 5]


def test_results_are_returned_before_the_last_image_is_read(engine, images):
    read = []

    def stream():
        for request in _requests(images, "cats"):
            read.append(request[2])
            yield request

    next(engine(1)(stream()))
    assert read == [0]


def test_several_prompts_share_the_vision_tower(engine, density_model, density_processor, images, passes):
    prompts = ["cats", "dogs", "ants"]
    counted = list(engine()(_requests(images, [prompts, "cats", prompts, prompts])))
    for one in (counted[0], counted[2]):
        assert [result["text"] for result in one.results] == prompts
        for result in one.results:
            _assert_same(result, _reference(density_model, density_processor, images[one.tag], result["text"]))
    assert {num_prompts for _, num_prompts in passes} == {1, 3}
    assert all(windows * num_prompts <= 16 for windows, num_prompts in passes)


def test_more_prompts_than_a_batch_holds_still_share_one_pass(
    engine, density_model, density_processor, images, passes
):
    prompts = ["cats", "dogs", "ants", "bees", "cows"]
    (counted,) = engine(2)(_requests(images[:1], [prompts]))
    assert passes == [(1, 5)]
    for result in counted.results:
        _assert_same(result, _reference(density_model, density_processor, images[0], result["text"]))


@pytest.mark.parametrize("batch_size", [1, 16])
def test_whole_images_of_many_sizes_take_one_pass_each(
    engine, density_model, density_processor, images, passes, batch_size
):
    mixed = [images[0], images[0], *images[1:], images[3]]
    prompts = [["cats", "dogs"], ["cats", "dogs"], "cats", "dogs", "cats", ["ants", "cats"]]
    counted = list(engine(batch_size, window="whole")(_requests(mixed, prompts)))
    assert passes == [(1, 2), (1, 2), (1, 1), (1, 1), (1, 1), (1, 2)]
    for one in counted:
        for result in one.results:
            expected = _reference(density_model, density_processor, mixed[one.tag], result["text"], window="whole")
            _assert_same(result, expected)


def test_maps_points_and_images_are_optional(engine, images):
    lean = {"return_density_map": False, "return_points": False}
    for one, bare in zip(
        engine(keep_images=True)(_requests(images, "cats")), engine(**lean)(_requests(images, "cats")), strict=True
    ):
        assert set(one.results[0]) == {"text", "count", "points", "density_map"}
        assert set(bare.results[0]) == {"text", "count"}
        assert bare.results[0]["count"] == one.results[0]["count"]
        assert (one.image.size, bare.image, bare.size) == (images[one.tag].size, None, one.size)


def test_unusable_requests_are_reported_in_order(engine, images, tmp_path):
    broken = tmp_path / "broken.png"
    images[0].save(broken)
    broken.write_bytes(broken.read_bytes()[:300])
    notes = tmp_path / "notes.txt"
    notes.write_text("no image")
    mixed = [images[0], broken, tmp_path / "gone.jpg", images[1], notes, ImageError("the camera is off"), images[2]]
    prompts = ["cats", "cats", "cats", "x " * 60, ["cats", "dogs"], "cats", "cats"]
    counted = list(engine()(_requests(mixed, prompts)))
    assert [one.tag for one in counted] == list(range(7))
    words = [None, "broken.png", "gone.jpg", "horten", "notes.txt", "the camera is off", None]
    for one, expected in zip(counted, words, strict=True):
        assert (one.error is None) == (expected is None)
        assert [result["text"] for result in one.results] == one.prompts
        assert all((expected or "") in result.get("error", "") for result in one.results)
        assert isinstance(one.error, ImageError) == (expected not in (None, "horten"))


@pytest.mark.parametrize(("prompts", "words"), [([], "empty list"), ([""], "is empty"), ([3], "strings")])
def test_unusable_prompts_are_reported(engine, images, prompts, words):
    (counted,) = engine()([(images[0], prompts, None)])
    assert words in str(counted.error)


def test_invalid_options_raise(engine, counting_model, density_model, counting_processor, density_processor):
    with pytest.raises(ValueError, match="at least 1"):
        engine(0)
    with pytest.raises(ValueError, match="sliding, whole"):
        engine(window="half")
    with pytest.raises(TypeError, match="CLIPForCounting"):
        DensityCounter(counting_model, density_processor)
    with pytest.raises(TypeError, match="CountCLIPProcessor"):
        DensityCounter(density_model, counting_processor)


def test_gradients_and_mode_do_not_change_between_results(engine, density_model, images):
    density_model.train()
    next(engine(1)(_requests(images, "cats")))
    assert density_model.training
    assert torch.is_grad_enabled()


def test_a_clip_chooses_among_numbers_as_it_ranks_captions(counting_model, counting_processor, make_image):
    images = [make_image(50, 40, seed) for seed in range(5)]
    texts = ["a photo of {} dogs", "two red cats"]
    pipe = CaptionCountingPipeline(model=counting_model, processor=counting_processor, device="cpu")
    encode, encoded = counting_model.get_text_features, []
    counting_model.get_text_features = lambda *ids, **tokens: encoded.append(1) or encode(*ids, **tokens)
    counting_model.train()
    counted = list(NumberChooser(counting_model, counting_processor, 2)(_requests([*images, "gone.png"], [texts] * 6)))
    assert counting_model.training
    assert len(encoded) == 2
    counting_model.eval()
    for one, image in zip(counted, images, strict=False):
        for result, text in zip(one.results, texts, strict=True):
            outputs = counting_processor(
                images=[image], text=[text.replace("{}", word).replace("two", word) for word in _WORDS]
            )
            with torch.no_grad():
                expected = counting_model(**outputs).logits_per_image[0].softmax(dim=-1)
            np.testing.assert_allclose(result["scores"], expected.numpy(), atol=1e-5)
            best = pipe(image, text=text)[0]
            assert (result["text"], result["count"]) == (text, best["number"])
            assert result["score"] == pytest.approx(best["score"], abs=1e-5)
    assert "gone.png" in str(counted[5].error)


_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def test_captions_without_a_number_are_reported(counting_model, counting_processor, make_image):
    chooser = NumberChooser(counting_model, counting_processor)
    first, second = chooser([(make_image(40, 40), ["dogs"], 0), (make_image(40, 40), ["{} dogs"], 1)])
    assert "Expected a caption with '{}' or a number word" in str(first.error)
    assert second.error is None
    with pytest.raises(ValueError, match="Expected a caption with '{}' or a number word"):
        chooser.check_prompts(["dogs"])
    assert list(chooser([])) == []
