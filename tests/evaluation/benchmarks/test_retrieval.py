import numpy as np
import pytest
import torch

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.evaluation.benchmarks.retrieval import best_ranks, evaluate_retrieval
from count_clip.evaluation.functional import bootstrap_interval
from count_clip.evaluation.inference.encoding import Encoder, evaluating


def _unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_ranks_are_those_of_sorting():
    rng = np.random.default_rng(0)
    queries, gallery = _unit(rng, 2500, 5), _unit(rng, 30, 5)
    right = [sorted(rng.choice(30, size=rng.integers(1, 4), replace=False).tolist()) for _ in queries]
    ranks, first = best_ranks(queries, gallery, right)
    for place in range(0, len(queries), 97):
        order = sorted(range(30), key=lambda item: -float(queries[place] @ gallery[item]))
        better_wrong = 0
        for item in order:
            if item in right[place]:
                break
            better_wrong += 1
        assert ranks[place] == better_wrong + 1
        assert first[place] == order[0]


def test_a_model_with_one_embedding_for_everything_finds_nothing():
    same = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (6, 1))
    ranks, _ = best_ranks(same, same, [[place] for place in range(6)])
    assert ranks.tolist() == [6] * 6


@pytest.fixture
def rows(make_image):
    """Three images; the first has two captions in two rows, and the last shares a caption with the second."""
    return [
        {"image": make_image(32, 32, 0), "image_id": "a", "text": "two dogs", "number": 2, "name": "dogs"},
        {"image": make_image(32, 32, 0), "image_id": "a", "text": "a pair of animals", "number": 0, "name": "dogs"},
        {"image": make_image(32, 32, 1), "image_id": "b", "text": "three cats", "number": 3, "name": "cats"},
        {"image": make_image(32, 32, 2), "image_id": "c", "text": ["three cats", "cats at night"], "name": "cats"},
    ]


def test_equal_captions_and_rows_of_one_image_count_once(counting_model, counting_processor, rows):
    result = evaluate_retrieval(counting_model, counting_processor, rows, batch_size=2, progress=False)
    assert result.image_ids == ["a", "b", "c"]
    assert result.texts == ["two dogs", "a pair of animals", "three cats", "cats at night"]
    with evaluating(counting_model) as (where, dtype):
        encoder = Encoder(counting_model, counting_processor, where, dtype, 4)
        scores = encoder.texts(result.texts) @ encoder.images([rows[0]["image"], rows[2]["image"], rows[3]["image"]]).T
    scores = scores.numpy()
    right = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=bool)
    for row in range(4):
        best = scores[row][right[row]].max()
        assert result.text_ranks[row] == 1 + (scores[row][~right[row]] > best).sum()
        assert result.found[row] == "abc"[scores[row].argmax()]
    for column in range(3):
        best = scores[:, column][right[:, column]].max()
        assert result.image_ranks[column] == 1 + (scores[:, column][~right[:, column]] > best).sum()
    # Two captions state a number: "two dogs" (one of three images), "three cats" (two of three).
    counted = result.counted
    found = [int(scores[row].argmax()) for row in (0, 2)]
    assert counted["number_right"].tolist() == [found[0] == 0, found[1] in (1, 2)]
    assert counted["number_chance"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert counted["both_chance"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert counted["object_right"].tolist() == [found[0] == 0, found[1] in (1, 2)]
    metrics = result.metrics()
    assert metrics["text_to_image_recall_at_1"] == pytest.approx(float(np.mean(result.text_ranks == 1)))
    # The first five of three images are all of them.
    assert metrics["text_to_image_recall_at_5"] is None
    assert metrics["image_to_text_recall_at_10"] is None
    assert "text_to_image_recall_at_5" not in result.intervals()


def test_scenes_give_all_figures_and_their_intervals(counting_model, counting_processor):
    scenes = CountScenes("test", "benchmark", num_scenes=18, image_size=48, objects="shapes")
    result = evaluate_retrieval(counting_model, counting_processor, scenes, progress=False, seed=3)
    metrics, intervals = result.metrics(), result.intervals()
    assert all(value is not None for value in metrics.values())
    assert metrics["number_chance"] == pytest.approx(1 / 9, abs=0.03)
    assert metrics["both_right"] <= min(metrics["number_right"], metrics["object_right"])
    assert intervals["text_to_image_recall_at_5"] == bootstrap_interval(
        lambda hits: float(hits.mean()), result.text_ranks <= 5, seed=3
    )
    content = result.to_dict()
    assert (content["num_images"], content["num_counting_texts"]) == (18, len(result.texts))
    assert content["rows"][0] == {
        "text": result.texts[0],
        "rank": int(result.text_ranks[0]),
        "found": result.found[0],
    }


def test_only_images_of_a_known_number_are_searched_for_it(counting_model, counting_processor, make_image):
    rows = [{"image": make_image(32, 32, seed), "text": f"image {seed}"} for seed in range(6)]
    rows += [{"image": make_image(32, 32, 7), "text": "two dogs"}]
    result = evaluate_retrieval(counting_model, counting_processor, rows, progress=False)
    assert result.counted["number_right"].tolist() == [1.0]
    assert "object_right" not in result.counted
    assert result.metrics()["both_right"] is None


def test_captions_without_numbers_have_no_figures_of_numbers(counting_model, counting_processor, make_image):
    rows = [{"image": make_image(32, 32, seed), "text": f"image {seed}"} for seed in range(3)]
    result = evaluate_retrieval(counting_model, counting_processor, rows, progress=False)
    assert not result.counted
    assert result.metrics()["number_right"] is None


def test_bad_rows_are_listed_and_long_captions_counted(counting_model, counting_processor, rows):
    bad = [
        {**rows[0], "image_id": "d", "image": "nowhere.png"},
        {**rows[0], "image_id": "e", "text": " "},
        {**rows[0], "image_id": "f", "text": "long " * 20},
    ]
    result = evaluate_retrieval(counting_model, counting_processor, [*bad, *rows], progress=False)
    assert result.image_ids == ["f", "a", "b", "c"]
    assert [(row.index, row.image_id) for row in result.skipped] == [(0, "d"), (1, "e")]
    assert result.num_cut == 1


def test_fewer_than_two_images_are_an_error(counting_model, counting_processor, rows):
    with pytest.raises(ValueError, match="at least two images with captions.*got 0"):
        evaluate_retrieval(counting_model, counting_processor, [], progress=False)
    with pytest.raises(ValueError, match="got 1.*no file gone.png"):
        evaluate_retrieval(
            counting_model, counting_processor, [rows[0], {**rows[2], "image": "gone.png"}], progress=False
        )


def test_broken_weights_are_an_error(counting_model, counting_processor, rows):
    with torch.no_grad():
        counting_model.text_projection.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="captions are NaN or infinite"):
        evaluate_retrieval(counting_model, counting_processor, rows, progress=False)
