import numpy as np
import pytest
import torch
from PIL import Image

from count_clip.datasets_scripts.files.resumable import ResultCache
from count_clip.evaluation.benchmarks.countbench import evaluate_countbench
from count_clip.evaluation.benchmarks.density import evaluate_density
from count_clip.evaluation.benchmarks.praco import evaluate_praco
from count_clip.evaluation.records.cache import CachedTowers, content_key
from count_clip.evaluation.records.run_record import model_identity


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "cache.jsonl"


def test_the_identity_of_a_model_is_its_weights_not_its_folder():
    about = {"name": "here", "model_type": "clip", "parameters": 3, "sha256": "s", "revision": None}
    assert model_identity(about) == model_identity({**about, "name": "there"})
    assert model_identity(about) != model_identity({**about, "sha256": "t"})
    nameless = {**about, "sha256": None}
    assert model_identity(nameless) != model_identity({**nameless, "name": "there"})


def test_different_contents_have_different_keys(make_image):
    image = make_image(8, 6)
    transposed = Image.frombytes("RGB", (6, 8), image.tobytes())
    keys = [
        content_key(image, "cats"),
        content_key(transposed, "cats"),
        content_key(image, "dogs"),
        content_key(torch.zeros(2, 3)),
        content_key(torch.zeros(3, 2)),
        content_key(torch.zeros(2, 3, dtype=torch.bfloat16)),
        content_key(["a", "b"]),
        content_key("a", "b"),
    ]
    assert len(set(keys)) == len(keys)
    assert content_key(image.copy(), "cats") == keys[0]


class _Killed(BaseException):
    """The end of a process, as far as a cache sees it."""


class _Mortal:
    """A model that is killed when it has been asked so often, and knows how often it was."""

    def __init__(self, model, method, lives=None):
        self.calls, self.lives = 0, lives
        self._inner = getattr(model, method)
        setattr(model, method, self)

    def __call__(self, *arguments, **options):
        if self.calls == self.lives:
            raise _Killed
        self.calls += 1
        return self._inner(*arguments, **options)


@pytest.fixture
def caption_rows(make_image):
    words = ["two", "three", "nine", "ten", "five", "two"]
    return [{"image": make_image(40, 44, i), "text": f"{word} red cats"} for i, word in enumerate(words)]


def test_countbench_resumes_after_a_kill(counting_model, counting_processor, caption_rows, path):
    def measure(model):
        return evaluate_countbench(model, counting_processor, caption_rows, batch_size=2, progress=False)

    expected = measure(counting_model)
    tokenizer = counting_processor.tokenizer
    first = _Mortal(counting_model, "get_image_features", lives=2)
    with ResultCache(path, {"model": "a"}) as cache, pytest.raises(_Killed):
        measure(CachedTowers(counting_model, tokenizer, cache))
    assert first.calls == 2
    first.lives = None
    with ResultCache(path, {"model": "a"}) as cache:
        result = measure(CachedTowers(counting_model, tokenizer, cache))
    assert first.calls == 3  # the third batch alone
    np.testing.assert_allclose(result.scores, expected.scores, atol=2e-6)
    texts = _Mortal(counting_model, "get_text_features", lives=0)
    with ResultCache(path, {"model": "a"}) as cache:
        again = measure(CachedTowers(counting_model, tokenizer, cache))
    assert (first.calls, texts.calls) == (3, 0)
    np.testing.assert_array_equal(again.scores, result.scores)


def test_features_that_are_not_finite_are_not_cached(counting_model, counting_processor, caption_rows, path):
    with torch.no_grad():
        counting_model.visual_projection.weight.fill_(float("nan"))
    with ResultCache(path, {"model": "a"}) as cache:
        towers = CachedTowers(counting_model, counting_processor.tokenizer, cache)
        with pytest.raises(ValueError, match="NaN or infinite"):
            evaluate_countbench(towers, counting_processor, caption_rows, progress=False)
    assert len(path.read_bytes().splitlines()) == 1 + 9  # the captions


def _density_rows(make_image, number=5):
    return [
        {"image": make_image(48, 48, i), "image_id": str(i), "text": ["cats", "dogs"][i % 2], "count": i}
        for i in range(number)
    ]


def test_density_resumes_after_a_kill(density_model, density_processor, make_image, path):
    rows = _density_rows(make_image)
    rows.insert(2, {"image": None, "image_id": "none", "text": "cats", "count": 1})

    def measure(cache=None):
        return evaluate_density(
            density_model, density_processor, rows, [1.0, 3.0], batch_size=1, progress=False, cache=cache
        )

    expected = measure()
    model = _Mortal(density_model, "forward", lives=3)
    with ResultCache(path, {"model": "a"}) as cache, pytest.raises(_Killed):
        measure(cache)
    model.lives = None
    with ResultCache(path, {"model": "a"}) as cache:
        result = measure(cache)
    assert model.calls == 5
    assert [row.predicted for row in result.predictions] == pytest.approx(
        [row.predicted for row in expected.predictions], rel=1e-4
    )
    assert [row.index for row in result.predictions] == [0, 1, 3, 4, 5]
    assert [row.image_id for row in result.skipped] == ["none"]
    assert (result.mae, result.baseline_mae) == pytest.approx((expected.mae, expected.baseline_mae), rel=1e-4)
    # What is asked, and of which pixels, is the key; the order of the rows is not.
    rows.reverse()
    rows[0] = {**rows[0], "text": "birds"}
    with ResultCache(path, {"model": "a"}) as cache:
        measure(cache)
    assert model.calls == 6


def test_praco_resumes_after_a_kill(density_model, density_processor, make_image, path):
    rows = [
        {"image": make_image(48, 48, i), "image_id": str(i), "text": text, "count": count}
        for i, classes in enumerate([("cats", "dogs"), ("dogs", "cats"), ("birds", "cats"), ("cats", "birds")])
        for text, count in zip(classes, (3 + i, 0), strict=True)
    ]

    def measure(cache=None):
        return evaluate_praco(density_model, density_processor, rows, batch_size=1, progress=False, cache=cache)

    expected = measure()
    assert (expected.num_images, expected.num_mosaics) == (4, 4)
    model = _Mortal(density_model, "forward", lives=6)
    with ResultCache(path, {"model": "a"}) as cache, pytest.raises(_Killed):
        measure(cache)
    model.lives = None
    with ResultCache(path, {"model": "a"}) as cache:
        result = measure(cache)
    assert model.calls == 8
    for name in ("nmn", "pccn", "f1"):
        assert getattr(result.figures, name) == pytest.approx(getattr(expected.figures, name), rel=1e-4)
    assert [one.image_id for one in result.images] == [one.image_id for one in expected.images]
    assert [(one.image_id, one.other_image_id) for one in result.mosaics] == [
        (one.image_id, one.other_image_id) for one in expected.mosaics
    ]
    assert [one.predicted for one in result.mosaics] == pytest.approx(
        [one.predicted for one in expected.mosaics], rel=1e-4
    )
