import numpy as np
import pytest
import torch

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.evaluation.relevance.explain import explain
from count_clip.evaluation.relevance.figures import draw_relevance, side_by_side
from count_clip.evaluation.relevance.shares import BoxedScenes, RelevanceShares, compare_shares, evaluate_relevance


@pytest.fixture
def row(make_image):
    """Two objects in an image of which the processor crops the sides away."""
    return {
        "image": make_image(48, 32),
        "image_id": "one",
        "text": "now two dogs",
        "number": 2,
        "boxes": [[10, 0, 20, 16], [4, 24, 44, 32]],
    }


def test_boxed_scenes_are_those_of_the_benchmark():
    ours = BoxedScenes("test", 9, 64, 3, objects="shapes")
    theirs = CountScenes("test", "benchmark", 9, 64, 3, objects="shapes")
    assert len(ours) == 9
    assert ours.column_names == ["image", "image_id", "text", "number", "name", "boxes"]
    for index in range(9):
        row, benchmark = ours[index], theirs[index]
        assert np.array_equal(np.asarray(row["image"]), np.asarray(benchmark["image"]))
        assert {name: row[name] for name in ("image_id", "text", "number", "name")} == {
            name: benchmark[name] for name in ("image_id", "text", "number", "name")
        }
        assert len(row["boxes"]) == row["number"] == 2 + index


def test_shares_are_those_of_the_maps(counting_model, counting_processor, row):
    seen = []
    shares = evaluate_relevance(
        counting_model, counting_processor, [row], progress=False, on_result=lambda *found: seen.append(found)
    )
    (relevance,) = explain(counting_model, counting_processor, [row["image"]], [row["text"]])
    # Of 48 x 32 pixels the model sees the middle 32 columns, in patches of 8 x 8.
    objects = area = 0.0
    for y in range(32):
        for x in range(8, 40):
            inside = (10 <= x < 20 and y < 16) or y >= 24
            objects += inside * relevance.patches[y // 8, (x - 8) // 8] / 64
            area += inside / 32**2
    assert shares.rows[0]["object_share"] == pytest.approx(objects / relevance.patches.sum(), rel=1e-4)
    assert shares.rows[0]["object_area_share"] == pytest.approx(area)
    assert shares.rows[0]["number_share"] == pytest.approx(
        relevance.tokens[3:6].sum() / relevance.tokens.sum(), rel=1e-4
    )
    assert shares.rows[0]["number_token_share"] == pytest.approx(3 / 10)
    assert shares.rows[0]["score"] == pytest.approx(relevance.score, abs=1e-5)
    ((index, given, found),) = seen
    assert (index, given) == (0, row)
    np.testing.assert_allclose(found.patches, relevance.patches, rtol=1e-4)


def test_the_number_word_is_that_of_the_objects(counting_model, counting_processor, row):
    row["text"] = "two and three dogs"
    first = evaluate_relevance(counting_model, counting_processor, [row], progress=False)
    second = evaluate_relevance(counting_model, counting_processor, [{**row, "number": 3}], progress=False)
    assert first.rows[0]["number_token_share"] == pytest.approx(3 / 15)
    assert second.rows[0]["number_token_share"] == pytest.approx(5 / 15)


def test_rows_that_cannot_be_measured_are_listed(counting_model, counting_processor, row):
    rows = [
        {**row, "text": None},
        {**row, "text": "some dogs"},
        row,
        {**row, "boxes": []},
        {**row, "text": "two " + "x" * 40},
        {**row, "image": "nowhere.png"},
        {**row, "boxes": [[0, 0, 5, 5]]},
        {**row, "number": 5},
    ]
    shares = evaluate_relevance(counting_model, counting_processor, rows, batch_size=2, progress=False)
    assert [row["index"] for row in shares.rows] == [2]
    reasons = [
        (0, "no caption"),
        (1, "no number from two to ten"),
        (3, "no boxes"),
        (4, "45 tokens"),
        (5, "no file nowhere.png"),
        (6, "outside of the model's input"),
        (7, "the true number is 5, but the caption states 'two'"),
    ]
    assert [skipped.index for skipped in shares.skipped] == [index for index, _ in reasons]
    for skipped, (_, reason) in zip(shares.skipped, reasons, strict=True):
        assert reason in skipped.reason


@pytest.mark.parametrize(("rows", "words"), [([], "the data is empty"), ([{"text": "two"}], "None of the 1 rows")])
def test_nothing_to_measure_is_an_error(counting_model, counting_processor, rows, words):
    with pytest.raises(ValueError, match=words):
        evaluate_relevance(counting_model, counting_processor, rows, progress=False)


def _shares(objects, number, indices, score="similarity"):
    even = {"object_area_share": 0.25, "number_token_share": 0.25, "score": 0.0}
    rows = [
        {"index": index, "object_share": share, "number_share": word, **even}
        for share, word, index in zip(objects, number, indices, strict=True)
    ]
    return RelevanceShares(rows, score, 0)


def test_metrics_are_means_and_ratios_of_means():
    metrics = _shares([0.5, 0.3], [0.1, 0.2], [0, 1]).metrics()
    assert metrics["object_share"] == pytest.approx(0.4)
    assert metrics["object_lift"] == pytest.approx(1.6)
    assert metrics["number_lift"] == pytest.approx(0.6)
    low, high = _shares([0.5, 0.3], [0.1, 0.2], [0, 1]).intervals()["object_share"]
    assert (low, high) == (0.3, 0.5)


def test_change_is_between_the_rows_that_both_have():
    before = _shares([0.1, 0.9, 0.3], [0.1, 0.1, 0.1], [0, 1, 4])
    after = _shares([0.6, 0.2], [0.5, 0.1], [4, 0])
    change = compare_shares(before, after)
    assert change.n == 2
    assert change.change["object_share"] == pytest.approx((0.3 + 0.1) / 2)
    assert change.change["number_share"] == pytest.approx(0.2)
    assert change.intervals["object_share"][0] == pytest.approx(0.1)
    with pytest.raises(ValueError, match="same score"):
        compare_shares(before, _shares([0.6], [0.5], [4], score="margin"))
    with pytest.raises(ValueError, match="there are none"):
        compare_shares(before, _shares([0.6], [0.5], [7]))


def test_figure_shows_heat_where_the_relevance_is(counting_model, counting_processor, row):
    (relevance,) = explain(counting_model, counting_processor, [row["image"]], [row["text"]])
    relevance.patches[:] = 0
    relevance.patches[0, 0] = 1.0  # upper left of what is seen: from x = 8
    figure = np.asarray(draw_relevance(row["image"], relevance)).astype(int)
    times = 384 // 48
    # The brightest heat is yellow: much red and green, less blue.
    peak = figure[4 * times, 12 * times]
    assert peak[0] > 200
    assert peak[1] > 150
    assert peak[2] < peak[0] - 40
    unseen, quiet = figure[: 32 * times, : 8 * times].mean(), figure[: 32 * times, 24 * times : 40 * times].mean()
    assert unseen < 0.5 * quiet
    assert figure.shape[0] > 32 * times + 40  # the words stand below
    titled = draw_relevance(row["image"], relevance, title="before")
    assert titled.height > figure.shape[0]
    both = side_by_side([titled, titled])
    assert both.width > 2 * titled.width


def test_evenly_distributed_relevance_is_dark(counting_model, counting_processor, row):
    (relevance,) = explain(counting_model, counting_processor, [row["image"]], [row["text"]])
    even, peaked = relevance.patches.copy(), relevance.patches.copy()
    even[:], peaked[:] = 1.0, 0.0
    peaked[0, 0] = 1.0
    reds = []
    for patches in (even, peaked):
        relevance.patches[:] = patches
        figure = np.asarray(draw_relevance(row["image"], relevance))[: 32 * 8, 8 * 8 : 40 * 8].astype(int)
        reds.append(np.quantile(figure[..., 0] - figure[..., 2], 0.999))
    assert reds[0] < 60 < reds[1]


def test_figure_without_relevance_has_a_remark(counting_model, counting_processor, row):
    (relevance,) = explain(counting_model, counting_processor, [row["image"]], [row["text"]])
    relevance.patches[:], relevance.tokens[:] = 0, 0
    assert np.isnan(relevance.patch_shares()).all()
    assert relevance.to_dict()["patch_shares"] is None
    assert relevance.to_dict()["words"][0]["share"] is None
    assert draw_relevance(row["image"], relevance).size[0] == 384


def test_figure_needs_the_image_that_was_explained(counting_model, counting_processor, row, make_image):
    (relevance,) = explain(counting_model, counting_processor, [row["image"]], [row["text"]])
    with pytest.raises(ValueError, match="of 48 x 32 pixels, but got one of 32 x 48"):
        draw_relevance(make_image(32, 48), relevance)
    with pytest.raises(ValueError, match="`opacity` between 0 and 1"):
        draw_relevance(row["image"], relevance, opacity=2)
    with pytest.raises(ValueError, match="at least one figure"):
        side_by_side([])


def test_broken_weights_are_an_error(counting_model, counting_processor, row):
    with torch.no_grad():
        counting_model.text_projection.weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinite"):
        evaluate_relevance(counting_model, counting_processor, [row], progress=False)
