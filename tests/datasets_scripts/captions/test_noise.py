"""Captions with the faults of the web, and the filter that finds them."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from count_clip.datasets_scripts.captions.noise import (
    FAULT_WEIGHTS,
    NOT_COUNTING,
    NOT_COUNTING_RATE,
    NoisyCaptions,
    filter_counting,
    spoil_caption,
)
from count_clip.datasets_scripts.captions.numbers import counts_objects, find_count
from count_clip.datasets_scripts.countscenes.builder import CountScenes


LABELS = Path(__file__).parents[1].joinpath("counting_labels") / "labels.jsonl"


@pytest.fixture(scope="module")
def scenes() -> CountScenes:
    return CountScenes("train", "captions", num_scenes=600, image_size=64, objects="shapes", number_rate=1.0)


def _rng(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


def test_every_fault_has_a_number_that_the_naive_filter_takes():
    for fault, templates in NOT_COUNTING.items():
        for template in templates:
            match = find_count(template.format(number="seven", name="red stars"))
            assert match is not None, (fault, template)
            assert match.number == 7
    assert set(FAULT_WEIGHTS) == set(NOT_COUNTING)


def test_stage_b_refuses_nearly_all_numbers_that_count_nothing():
    passed = [
        template
        for templates in NOT_COUNTING.values()
        for template in templates
        if counts_objects(template.format(number="seven", name="striped cats"))
    ]
    # As with real captions it is not right every time: a price that stands where an adjective would.
    assert passed == ["{number} dollar {name}"]


def test_rate_of_numbers_that_count_nothing_is_that_of_the_labelled_captions():
    rows = [json.loads(line) for line in LABELS.read_text(encoding="utf-8").splitlines()]
    counts = [row["counts"] for row in rows if row["source"] == "laion_number"]
    assert round(1 - np.mean(counts), 2) == NOT_COUNTING_RATE


def test_faults_have_the_requested_rates(scenes):
    noisy = [spoil_caption("a photo of three red stars", "red stars", _rng(seed), 0.4, 0.25) for seed in range(4000)]
    faults = Counter(caption.fault for caption in noisy)
    assert faults["wrong"] / 4000 == pytest.approx(0.6 * 0.25, abs=0.02)
    assert faults[""] / 4000 == pytest.approx(0.6 * 0.75, abs=0.02)
    total = sum(FAULT_WEIGHTS.values())
    for fault, weight in FAULT_WEIGHTS.items():
        assert faults[fault] / 4000 == pytest.approx(0.4 * weight / total, abs=0.02), fault
    # A number that counts nothing is unrelated to the image; a wrong one is any but the true one.
    assert {caption.number for caption in noisy if caption.fault not in ("", "wrong")} == set(range(2, 11))
    assert {caption.number for caption in noisy if caption.fault == "wrong"} == set(range(2, 11)) - {3}
    assert all(find_count(caption.text).number == caption.number for caption in noisy)


def test_captions_without_faults_and_without_numbers_stay_as_they_are():
    assert spoil_caption("three red stars", "red stars", _rng(), 0.0, 0.0).text == "three red stars"
    spoilt = spoil_caption("some red stars", "red stars", _rng(), 1.0, 1.0)
    assert (spoilt.text, spoilt.number, spoilt.fault) == ("some red stars", 0, "")


def test_rows_and_columns_agree(scenes):
    rows = NoisyCaptions(scenes, seed=4)
    assert len(rows) == 600
    for index in (0, 17, -1):
        row = rows[index]
        for name in ("text", "number", "true_number", "name"):
            assert row[name] == rows.column(name)[index] == rows.column(name, [index % 600])[0]
        assert row["true_number"] == scenes[index]["number"]
        assert row["image"].tobytes() == scenes[index]["image"].tobytes()
    assert rows.column("text") == NoisyCaptions(scenes, seed=4).column("text")
    assert rows.column("text") != NoisyCaptions(scenes, seed=5).column("text")
    assert rows.column_names == [*scenes.column_names, "true_number"]
    with pytest.raises(IndexError):
        rows[600]


def test_each_stage_keeps_the_right_rows(scenes):
    rows = NoisyCaptions(scenes)
    texts, stated, true = (rows.column(name) for name in ("text", "number", "true_number"))
    naive, counts = filter_counting(rows, "naive")
    assert naive == list(range(600))
    assert counts == {"rows": 600, "with_number": 600}
    objects, _ = filter_counting(rows, "objects")
    assert objects == [index for index in range(600) if counts_objects(texts[index])]
    full, counts = filter_counting(rows)
    assert full == [index for index in objects if stated[index] == true[index]]
    assert counts["rows"] > counts["counting_objects"] > counts["number_in_image"] == len(full)
    # All that are right are kept, and hardly anything that is not.
    clean = [index for index in range(600) if texts[index] == scenes.column("text", [index])[0]]
    assert set(clean) <= set(full)
    assert len(full) - len(clean) <= 3


def test_rows_without_numbers_are_filtered_out():
    scenes = CountScenes("train", "captions", num_scenes=30, image_size=64, objects="shapes", number_rate=0.3)
    kept, counts = filter_counting(NoisyCaptions(scenes, 0.0, 0.0), "naive")
    assert kept == [index for index, number in enumerate(scenes.column("number")) if number]
    assert counts["with_number"] == len(kept) < 30


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"not_counting_rate": 1.2}, ValueError, "not_counting_rate to be a share from 0 to 1, but got 1.2"),
        ({"wrong_number_rate": True}, ValueError, "wrong_number_rate to be a share from 0 to 1, but got True"),
        ({"rows": [{"text": "x"}]}, TypeError, "but got list"),
    ],
)
def test_wrong_options_are_rejected(scenes, options, error, message):
    with pytest.raises(error, match=message):
        NoisyCaptions(**{"rows": scenes, **options})


def test_rows_without_numbers_or_names_are_refused():
    density = CountScenes("train", "density", num_scenes=2, image_size=224, objects="shapes", max_objects=10)
    with pytest.raises(ValueError, match="number and name is missing"):
        NoisyCaptions(density)


def test_unknown_filter_is_refused(scenes):
    with pytest.raises(ValueError, match="one of naive, objects, full, but got 'ful'"):
        filter_counting(NoisyCaptions(scenes), "ful")
