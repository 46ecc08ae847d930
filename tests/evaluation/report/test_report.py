"""The report: reading, comparing, computing, and the HTML page."""

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from count_clip.evaluation.functional import bootstrap_interval
from count_clip.evaluation.report.charts import Point, Scale, lines, log_ticks, scatter, ticks
from count_clip.evaluation.report.groups import (
    calibration_bins,
    count_bins,
    group_results,
    interval_of,
    paired_differences,
    why_not_together,
)
from count_clip.evaluation.report.images import choose_counts
from count_clip.evaluation.report.metrics import Metric, best_of, metric_of, write_count, write_interval, write_number
from count_clip.evaluation.report.page import labels_for, render_report, write_page
from count_clip.evaluation.report.results import Prediction, ResultError, read_result


VOID = {"meta", "img", "input", "br", "hr", "link"}
HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>{{ 7 * 7 }}</style>\u202e&amp;"


class Page(HTMLParser):
    """Parses a page; malformed HTML fails."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.ids, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        attributes = dict(attrs)
        self.elements.append((tag, attributes, tuple(self.open)))
        if "id" in attributes:
            self.ids.append(attributes["id"])

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        self.texts.append((data, self.open[-1] if self.open else ""))

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(data.split()) for data, tag in self.texts if tag != "style" and data.strip())


def check_page(text):
    """Well-formed, self-contained, without scripts, and accessible."""
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _, _ in page.elements}
    for _, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:image/jpeg;base64,") or "src" not in attributes
        assert "srcset" not in attributes
        if "href" in attributes:
            assert attributes["href"].startswith("#")
            assert attributes["href"][1:] in page.ids
        for name in attributes.get("aria-labelledby", "").split():
            assert name in page.ids
    style = "".join(data for data, tag in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    assert all(image.get("alt") for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert all(svg.get("aria-hidden") or (svg["role"] == "img" and svg["aria-label"]) for svg in page.all("svg"))
    assert page.all("html") == [{"lang": "en"}]
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    assert len(page.all("h1")) == 1
    return page


def _run(model, data, **more):
    return {
        "count_clip": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "command": f"count-clip evaluate density --model {model} --data {data['name']}",
        "model": {"name": model, "revision": "a" * 40, "sha256": None, "model_type": "x", "parameters": 7},
        "data": data,
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "seconds": 1.5,
        **more,
    }


def density(predicted, true, model="org/one", texts=None, data=None, **more):
    """A density result as `count-clip evaluate` writes it."""
    errors = np.array(predicted) - np.array(true)
    rows = [
        {
            "index": i,
            "image_id": f"p{i}",
            "text": (texts or ["cats"] * len(predicted))[i],
            "count": float(t),
            "predicted": s,
        }
        for i, (s, t) in enumerate(zip(predicted, true, strict=True))
    ]
    data = data or {"name": "birds", "config": None, "split": "test", "revision": "r1", "rows": len(predicted)}
    return {
        "benchmark": "density",
        "format": 1,
        "run": _run(model, data),
        "partial": False,
        "missing": 0,
        "metrics": {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt((errors**2).mean())), "nae": None},
        "intervals": {},
        "n": len(predicted),
        "predictions": rows,
        "skipped": [],
        **more,
    }


def countbench(predicted, true, model="org/clip", scale=None, **more):
    """A CountBench result in which the predicted number has the highest score."""
    rows = [
        {
            "index": i,
            "number": t,
            "prediction": s,
            "scores": [0.5 if n == s else 0.1 + 0.001 * n for n in range(2, 11)],
        }
        for i, (s, t) in enumerate(zip(predicted, true, strict=True))
    ]
    off = np.abs(np.array(predicted) - np.array(true))
    run = _run(model, {"name": "countscenes", "config": "benchmark", "split": "test", "rows": len(predicted)})
    if scale:
        run["model"]["logit_scale"] = scale
    return {
        "benchmark": "countbench",
        "format": 1,
        "run": run,
        "partial": False,
        "missing": 0,
        "metrics": {
            "accuracy": float((off == 0).mean()),
            "mean_deviation": float(off.mean()),
            "off_by_one": float((off < 2).mean()),
        },
        "intervals": {"accuracy": [0.25, 0.75]},
        "n": len(predicted),
        "rows": rows,
        "skipped": [],
        **more,
    }


def praco(predicted, model="org/one"):
    """Two images, each with a prompt for a class in it and an absent one."""
    images = [
        {
            "index": i,
            "image_id": f"p{i}",
            "total": 3.0,
            "prompts": [
                {"text": "cats", "role": "named", "count": 3.0, "predicted": named},
                {"text": "dogs", "role": "absent", "count": 0.0, "predicted": absent},
            ],
        }
        for i, (named, absent) in enumerate(predicted)
    ]
    metrics = {"named_mae": 1.0, "named_rmse": 1.0, "absent_mae": 0.5, "absent_rmse": 0.5}
    metrics |= {"nmn": 0.25, "pccn": 50.0, "precision": 0.5, "recall": 0.25, "f1": 1 / 3}
    return {
        "benchmark": "praco",
        "format": 1,
        "run": _run(model, {"name": "countscenes", "config": "mixed", "split": "test", "seed": 0, "rows": 2}),
        "metrics": metrics,
        "counts_all": {"named": {"mae": 2.0, "rmse": 2.0}, "nmn": 1.0, "pccn": 0.0},
        "intervals": {"nmn": [0.125, 0.375]},
        "num_images": 2,
        "options": {"num_negatives": 1},
        "images": images,
        "mosaics": [],
        "skipped": [],
    }


@pytest.fixture
def save(tmp_path):
    """Write a result and read it."""

    def write(content, name=None):
        path = tmp_path / (name or f"{len(list(tmp_path.iterdir()))}.json")
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return read_result(path)

    return write


def test_figures_are_side_by_side_with_the_best_marked(save):
    one = save(density([1.0, 5.0, 9.0], [2, 5, 8], "org/one"))
    two = save(density([2.0, 5.0, 8.5], [2, 5, 8], "org/two"))
    text = render_report([one, two])
    page = check_page(text)
    mae = text[text.index('<tr><th scope="row">MAE') :].split("</tr>")[0]
    # 2/3 and 1/6
    assert "0.67" in mae.split("<td")[1]
    assert "best-mark" not in mae.split("<td")[1]
    assert "0.17" in mae.split("<td")[2]
    assert "best-mark" in mae.split("<td")[2]
    assert "Differences from one, on the rows that both have" in page.text
    assert "count-clip evaluate density --model org/one --data birds" in page.text
    assert "a" * 40 in page.text
    assert "2.13.0" in page.text


def test_nothing_is_best_where_all_are_equal(save):
    results = [save(density([1.0, 5.0], [2, 5], f"org/{name}")) for name in "ab"]
    assert "best-mark" not in render_report(results).split("</style>")[1]


def test_all_benchmarks_get_their_blocks(save):
    names = ["cats", "dogs"]
    classification = {
        **density([1.0], [1]),
        "benchmark": "classification",
        "metrics": {"top_1": 0.5, "top_5": None, "mean_per_class": 0.5},
        "names": names,
        "rows": [
            {"index": i, "image_id": None, "label": names[i], "prediction": "cats", "best": [["cats", 0.5]]}
            for i in range(2)
        ],
        "n": 2,
    }
    del classification["predictions"]
    few_shot = {
        **classification,
        "benchmark": "few-shot",
        "metrics": {"shots_1": 0.25, "shots_4": 0.5},
        "intervals": {"shots_4": [0.375, 0.625]},
        "zero_shot": 0.125,
        "curve": [{"shots": 1, "mean": 0.25, "std": 0.0625}, {"shots": 4, "mean": 0.5, "std": None}],
    }
    retrieval = {
        **classification,
        "benchmark": "retrieval",
        "metrics": {
            "text_to_image_recall_at_1": 0.5,
            "text_to_image_recall_at_5": 1.0,
            "text_to_image_median_rank": 2.0,
        },
        "rows": [{"text": "a cat", "rank": 1, "found": "p0"}],
    }
    results = [
        save(countbench([2, 3, 4, 4], [2, 3, 4, 10], scale=100.0)),
        save(density([1.0, 40.0, 3.0, 2.0], [1, 50, 3, 2], texts=["cats", "cats", "dogs", "dogs"])),
        save(praco([(2.0, 0.5), (4.0, 0.5)])),
        save(classification),
        save(few_shot),
        save(retrieval),
    ]
    page = check_page(render_report(results))
    for words in (
        "Accuracy and mean deviation by true count",
        "Confusion matrix of the numbers",
        "Calibration of the nine scores",
        "Predicted against true counts",
        "MAE by true count",
        "Error by class",
        "NMN: predicted for absent classes, per true object",
        "counting all objects",
        "Confusion matrix of the classes",
        "Accuracy by class",
        "Accuracy by number of examples",
        "Text to image recall at n",
        "draws ± 6.2 %",
        "accuracy without examples (zero-shot)",
    ):
        assert words in page.text, words
    assert "50.0 %" in page.text  # PCCN is in per cent already


def test_confusion_counts_and_shades_each_row(save):
    text = render_report([save(countbench([2, 3, 2, 10], [2, 2, 2, 10]))])
    matrix = text[text.index('class="shaded"') :].split("</table>")[0]
    first = matrix.split("<tr>")[2]
    assert first.count("<td") == 9
    assert 'style="--shade:66.7%"' in first.split("<td")[1]
    assert ">2<" in first.split("<td")[1]
    assert "right" in first.split("<td")[1].split(">")[0]
    assert 'style="--shade:33.3%"' in first.split("<td")[2]


def test_hostile_names_stay_text(save):
    hostile = density([1.0, 2.0], [1, 4], model=HOSTILE, texts=[HOSTILE, HOSTILE])
    hostile["predictions"][0]["image_id"] = HOSTILE
    hostile["run"]["command"] = f"count-clip evaluate density --model '{HOSTILE}'"
    hostile["run"]["versions"][HOSTILE] = HOSTILE
    hostile["metrics"][HOSTILE] = 1.0
    hostile["skipped"] = [{"index": 9, "image_id": HOSTILE, "reason": HOSTILE}]
    results = [save(hostile), save({**hostile, "run": {**hostile["run"], "seed": 1}})]
    text = render_report(results, [(HOSTILE, f"{HOSTILE} is bad")], title=HOSTILE)
    page = check_page(text)
    assert "<script" not in text
    assert "onerror=" not in text.replace("onerror=alert(2)&gt;", "")
    assert page.text.count("{{ 7 * 7 }}") > 10
    assert "49</" not in text


def test_characters_that_cannot_be_shown_are_replaced(save, tmp_path):
    result = save(json.dumps(density([1.0], [1], model="bad\ud800name\u0000\u0008")))
    page = render_report([result])
    path = write_page(tmp_path / "page", page)
    assert "bad\ufffdname\ufffd\ufffd" in path.read_text(encoding="utf-8")


def test_the_same_results_give_the_same_bytes(save):
    contents = [countbench([2, 3, 4], [2, 4, 4]), density([1.0, 5.0], [2, 5]), praco([(2.0, 0.5), (4.0, 0.5)])]
    results = [save(content, f"{number}.json") for number, content in enumerate(contents)]
    again = [save(content, f"{number}.json") for number, content in enumerate(contents)]
    assert render_report(results) == render_report(again)


def test_results_of_other_data_have_another_table(save):
    one = density([1.0, 5.0], [2, 5], "org/one")
    other = density([1.0, 5.0], [2, 6], "org/two")
    results = [save(one), save(other), save({**one, "run": {**one["run"], "model": {"name": "org/three"}}})]
    groups = group_results(results)
    assert [[result.model for result in group.results] for group in groups] == [["org/one", "org/three"], ["org/two"]]
    assert why_not_together(results[0], results[1]) == "row 1 has 5 objects in one and 6 in the other"
    page = check_page(render_report(results))
    assert "cannot be compared with these" in page.text
    assert page.text.count("Figures side by side") == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "fish", "fingerprint": "f"}, "their name differs"),
        ({"name": "fish"}, None),  # of the same content
        ({"split": "val"}, "their split differs"),
        ({"revision": "r2"}, "their revision differs"),
        ({"config": "x"}, None),  # unknown in the first
        ({"name": "other/place/birds", "fingerprint": "f"}, None),
        ({"rows": 9}, "their rows differs"),
    ],
)
def test_descriptions_of_the_data_decide_what_is_compared(save, change, reason):
    data = {"name": "birds", "config": None, "split": "test", "revision": "r1", "fingerprint": "g", "rows": 2}
    one, two = (save(density([1.0, 5.0], [2, 5], data=some)) for some in (data, {**data, **change}))
    found = why_not_together(one, two)
    assert (found is None) if reason is None else found.startswith(reason)


def test_scenes_of_another_seed_are_other_data(save):
    one, two = countbench([2, 3], [2, 3]), countbench([2, 3], [2, 3])
    one["run"]["data"]["seed"], two["run"]["data"]["seed"] = 0, 1
    assert why_not_together(save(one), save(two)) == "their seed differs: 0 and 1"


def test_partial_results_are_marked_and_never_the_best(save):
    whole = density([3.0, 5.0, 7.0], [2, 5, 8], "org/whole")
    part = density([2.0, 5.0], [2, 5], "org/part", missing=1, partial=True)
    part["run"]["data"]["rows"] = 3
    part["skipped"] = [{"index": 2, "image_id": "p2", "reason": "it is gone"}]
    text = render_report([save(whole), save(part)])
    page = check_page(text)
    assert "partial: 1 rows could not be measured" in page.text
    assert "partial: 1 missing" in page.text
    assert "it is gone" in page.text
    assert "best-mark" not in text.split("</style>")[1]
    # Fewer rows that are not counted as missing are not the same data.
    part = {**part, "missing": 0, "partial": False, "skipped": []}
    assert len(group_results([save(whole), save(part)])) == 2


def test_paired_differences_draw_images_with_both_predictions(save):
    generator = np.random.default_rng(0)
    true = generator.integers(1, 20, 40)
    first, second = true + generator.normal(0, 2, 40), true + generator.normal(0, 1, 40)
    # Two rows an image: they are drawn together.
    contents = [
        density(list(map(float, predicted)), list(true), f"org/{n}") for n, predicted in enumerate((first, second))
    ]
    for content in contents:
        for place, row in enumerate(content["predictions"]):
            row["image_id"] = f"p{place // 2}"
    mae, rmse = paired_differences(*map(save, contents))
    a, b = np.abs(first - true), np.abs(second - true)
    assert mae.difference == pytest.approx(b.mean() - a.mean())
    assert rmse.difference == pytest.approx(np.sqrt((b**2).mean()) - np.sqrt((a**2).mean()))
    assert (mae.rows, mae.images) == (40, 20)
    draws = np.random.default_rng(0)
    pairs = (b - a).reshape(20, 2)
    means = [pairs[draws.integers(0, 20, size=20)].mean() for _ in range(1000)]
    assert (mae.low, mae.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_missing_intervals_are_computed_from_the_rows(save):
    predicted, true = [1.0, 5.0, 9.5, 2.0], [2, 5, 8, 2]
    result = save(density(predicted, true))
    errors = np.abs(np.array(predicted) - true)
    expected = bootstrap_interval(lambda sample: float(sample.mean()), errors)
    assert interval_of(result.predictions, "mae") == pytest.approx(expected)
    assert write_interval(expected, "objects") in check_page(render_report([result])).text


def test_calibration_of_confidences():
    bins = calibration_bins([0.05, 0.15, 0.95, 1.0], [False, True, True, False])
    assert bins == [(0.05, 0.0, 1), (0.15, 1.0, 1), (pytest.approx(0.975), 0.5, 2)]


def test_calibration_needs_the_scale(save):
    with_scale = check_page(render_report([save(countbench([2, 3, 4], [2, 3, 5], scale=100.0))])).text
    # One score of 0.5 above eight near 0.1: a confidence of 1, and right in two of three.
    assert "calibration error 33.3 %" in with_scale
    assert "No calibration for clip" in check_page(render_report([save(countbench([2], [2]))])).text


@pytest.mark.parametrize(
    ("trues", "names"),
    [
        ([0, 1, 2], ["0", "1", "2"]),
        (list(range(20)), ["0", "1", "2", "3–5", "6–10", "11–20"]),
        ([*range(13), 5000], ["0", "1", "2", "3–5", "6–10", "11–20", "over 1000"]),
        ([0.5, 1], ["1"]),
    ],
)
def test_ranges_of_true_counts(trues, names):
    bins = count_bins(Prediction(i, None, "x", float(true), 0.0) for i, true in enumerate(trues))
    assert [name for name, _, _ in bins] == names
    assert all(sum(low < true <= high for _, low, high in bins) == 1 for true in trues)


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (0.12345, "share", False, "12.3 %"),
        (0.12345, "share", True, "+12.3 points"),
        (83.333, "percent", False, "83.3 %"),
        (-0.001, "objects", False, "0.00"),
        (-0.001, "objects", True, "0.00"),
        (-1.5, "objects", True, "−1.50"),
        (12345.678, "objects", False, "12345.68"),
        (1e12, "objects", False, "1.000e+12"),
        (None, "share", False, "–"),
        (3.0, "whole", False, "3"),
    ],
)
def test_numbers_are_written_alike(value, unit, signed, text):
    assert write_number(value, unit, signed) == text


def test_counts_and_intervals_are_written_alike():
    assert [write_count(value) for value in (3.0, 3.14159, 0.0, -2.5, 1200.0)] == ["3", "3.1", "0", "−2.5", "1200"]
    assert write_interval((0.1, 0.25), "share") == "10.0 to 25.0 %"
    assert write_interval((-0.1, 0.25), "share", signed=True) == "−10.0 to +25.0 points"
    assert write_interval(None, "share") == ""


def test_metrics_have_a_direction():
    assert [metric_of(name).best for name in ("accuracy", "mae", "top_1", "nmn", "strange")] == [
        "high",
        "low",
        "high",
        "low",
        "",
    ]
    assert metric_of("shots_1").title == "accuracy, 1 example of each class"
    assert metric_of("text_to_image_recall_at_5") == Metric("text to image recall at 5", "share", "high")
    assert best_of([None, 2.0, 1.0], "low") == 1.0
    assert best_of([2.0, 2.0, None], "low") is None
    assert best_of([2.0, 1.0], "") is None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 7.3), (-2.5, 61), (0, 3701), (0, 0.0034)])
def test_ticks_are_round_and_few(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 6
    assert all(low <= tick <= high for tick in found)
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])
    assert f"{steps[0]:e}"[0] in "125"


def test_logarithmic_scale():
    assert log_ticks(100) == [0, 1, 3, 10, 30, 100]
    assert log_ticks(3701) == [0, 1, 10, 100, 1000]
    scale = Scale(0, 99, 0, 200, log=True)
    assert scale(9) == pytest.approx(100)
    assert (scale(0), scale(99), scale(1000)) == (0, 200, 200)


def test_a_scatter_of_many_points_stays_small():
    points = [Point(float(i), float(i) + math.sin(i), f"point {i}") for i in range(5000)]
    svg = scatter(points, "many")
    assert svg.count("<title>") == 400
    assert svg.count("h0") == 4600
    assert len(svg) < 200_000


def test_lines_leave_out_labels_that_do_not_fit():
    labels = [f"{10 ** (i % 9)}–{10 ** (i % 9 + 1)}" for i in range(40)]
    line = [Point(i, i / 40, low=0.0, high=1.0) for i in range(40)]
    svg = lines([line], labels, ["m"], "a", "b", Metric("c", "share"))
    assert 2 <= sum(svg.count(f">{label}<") for label in dict.fromkeys(labels)) < 40
    assert svg.count('class="interval') == 40


def test_best_and_worst_are_of_different_images(save):
    result = save(density([1.0, 48.0, 3.0, 90.0], [1, 50, 9, 10], texts=list("abcd")))
    for row in result.content["predictions"]:
        assert row["image_id"]
    best, worst = choose_counts(result, 2)
    # 0 and 2/50 of the true count; then 80 and 6 objects.
    assert [count.index for count in best] == [0, 1]
    assert [count.index for count in worst] == [3, 2]
    best, worst = choose_counts(save(countbench([2, 3, 9], [2, 5, 3])), 5)
    assert [count.index for count in best] == [0]
    assert [count.index for count in worst] == [2, 1]


def test_models_of_one_name_have_different_labels(save):
    results = [
        save(density([1.0], [1], "runs/a/model"), "first.json"),
        save(density([2.0], [1], "runs/b/model"), "second.json"),
        save(density([3.0], [1], "runs/b/model"), "third.json"),
    ]
    assert list(labels_for(results).values()) == ["a/model", "b/model (second.json)", "b/model (third.json)"]


def test_repeated_files_are_rejected(save):
    result = save(density([1.0], [1]))
    with pytest.raises(ValueError, match="was given more than once"):
        render_report([result, result])
    with pytest.raises(ValueError, match="at least one result"):
        render_report([])


def _without(content, *names):
    return {name: value for name, value in content.items() if name not in names}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("hello", "it is not JSON (line 1, column 1"),
        (json.dumps(density([1.0], [1]))[:-40], "is cut off"),
        (json.dumps(density([1.0], [1]))[:200], "is cut off"),
        ('{"a": 1} {"b": 2}', "it is not JSON (line 1, column 10"),
        ("[1, 2]", "it names no benchmark"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "it names no benchmark"),
        ({"benchmark": "chess"}, "unknown benchmark 'chess'"),
        ({"benchmark": ["density"]}, "unknown benchmark ['density']"),
        ({**density([1.0], [1]), "format": 2}, "of format 2, but this version reads 1. Update"),
        (_without(density([1.0], [1]), "format"), "of format None"),
        ({**density([1.0], [1]), "predictions": []}, "has no rows: nothing was measured"),
        (_without(density([1.0], [1]), "predictions"), "lacks 'predictions'"),
        (_without(density([1.0], [1]), "run"), "`run` is not as `count-clip evaluate` writes it: lacks 'run'"),
        ({**density([1.0], [1]), "run": 3}, "`run` is not as `count-clip evaluate` writes it"),
        ({**density([1.0], [1]), "metrics": [1]}, "`metrics` is not as"),
        (
            {**density([1.0], [1]), "metrics": {"mae": "1"}},
            "`metrics` is not as `count-clip evaluate` writes it: expe",
        ),
        ({**density([1.0], [1]), "intervals": {"mae": [1]}}, "`intervals` is not as"),
        ({**density([1.0], [1]), "skipped": "all"}, "expected objects in 'skipped'"),
        (density([float("nan")], [1]), "holds nan at metrics.mae"),
        ({**density([1.0], [1]), "predictions": [{"predicted": 1e999}]}, "holds inf at predictions[0].predicted"),
        ({**density([1.0], [1]), "seed": 10**400}, "holds 100000000000 at seed"),
        ("1" * 5000, "is not a result file: "),
        ({**density([1.0], [1]), "n": "all"}, "expected a number of rows at 'n', but got 'all'"),
        (
            countbench([2], [12]),
            "`rows[0]` is not as `count-clip evaluate` writes it: expected numbers from two to ten",
        ),
        (density([1.0], [-1]), "`predictions[0]` is not as"),
        (
            {**density([1.0], [1]), "predictions": [{"text": "a", "count": True, "predicted": 1}]},
            "expected a number, but got True",
        ),
        ({**density([1.0], [1]), "predictions": [{"count": 1, "predicted": 1}]}, "expected a prompt"),
        (
            {**density([1.0], [1]), "predictions": 2 * density([1.0], [1])["predictions"]},
            "has row 0 for 'cats' more than once",
        ),
        ({**countbench([2], [2]), "rows": [{"number": 2, "prediction": 2}]}, "lacks 'scores'"),
        ({**praco([(1.0, 1.0)]), "images": [{"prompts": 3}]}, "`images[0]` is not as"),
        ({**countbench([2], [2]), "benchmark": "retrieval", "metrics": {"a": None}}, "has no figures"),
        ({**countbench([2], [2]), "benchmark": "classification", "rows": [{"label": "a"}]}, "lacks 'prediction'"),
    ],
)
def test_errors_name_the_file_and_the_problem(save, content, words):
    with pytest.raises(ResultError) as error:
        save(content, "bad.json")
    assert "bad.json" in str(error.value)
    assert words in str(error.value)


def _places(value, path=()):
    """The path to each element of a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from _places(value[key], (*path, key))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    which=st.sampled_from(["countbench", "density", "praco"]),
    place=st.integers(0, 10_000),
    value=st.sampled_from([None, True, -1, 0, 2.5, 1e29, "x", "<b>", [], [1], {}, {"a": 1}, [{}], "gone"]),
)
def test_any_changed_file_is_rejected_or_shown(which, place, value, tmp_path_factory):
    content = {
        "countbench": countbench([2, 3, 4], [2, 3, 10], scale=100.0),
        "density": density([1.0, 40.0], [1, 50]),
        "praco": praco([(2.0, 0.5), (4.0, 0.5)]),
    }[which]
    path = tmp_path_factory.mktemp("changed") / "changed.json"
    ways = list(_places(content))
    *way, last = ways[place % len(ways)]
    inner = content
    for key in way:
        inner = inner[key]
    if value == "gone":
        del inner[last]
    else:
        inner[last] = value
    path.write_text(json.dumps(content))
    try:
        result = read_result(path)
    except ResultError as error:
        reason = str(error)
    else:
        reason = "changed.json"
        check_page(render_report([result]))
    assert "changed.json" in reason


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ResultError, match="gone.json cannot be read: No such file"):
        read_result(tmp_path / "gone.json")
    (tmp_path / "image.json").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xff")
    with pytest.raises(ResultError, match="image.json is not a result file: it is not text"):
        read_result(tmp_path / "image.json")


def test_a_page_replaces_an_earlier_one(tmp_path):
    (tmp_path / "index.html").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    assert write_page(tmp_path, "new") == tmp_path / "index.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "notes.txt"]
    assert (tmp_path / "index.html").read_text() == "new"
    assert (tmp_path / "index.html").stat().st_mode & 0o444
