"""Training data of several parts, and captions with faults."""

import json

import numpy as np
import pytest

from count_clip.datasets_scripts.captions.numbers import find_count
from count_clip.trainers.core.rows import Rows
from count_clip.trainers.core.sampling import EpochSampler
from count_clip.trainers.counting.trainer import counting_flags
from count_clip.trainers.run import main
from count_clip.trainers.running.arguments import parse_run
from count_clip.trainers.running.data import load_rows, load_splits


SCENES = {"name": "countscenes", "num_scenes": 30, "image_size": 48, "objects": "shapes", "number_rate": 1.0}
GENERAL = {**SCENES, "number_rate": 0.5, "seed": 1, "general": True}
NOISY = {**SCENES, "caption_noise": {"seed": 2}, "counting_filter": "full"}


def test_parts_are_concatenated():
    rows = load_rows({"parts": [SCENES, {**GENERAL, "max_rows": 4}]}, "counting")
    assert len(rows) == 34
    assert rows[0]["number"] == find_count(rows[0]["text"]).number
    assert rows.column("number")[30:] == [rows[index]["number"] for index in range(30, 34)]


def test_general_rows_never_count_whatever_their_captions_say():
    rows = load_rows(GENERAL, "counting")
    assert any(rows.column("number"))
    assert counting_flags(rows) == [False] * 30
    assert rows[3]["is_counting"] is False
    assert isinstance(rows[3]["image"].size, tuple)


def test_filtered_rows_state_the_number_in_the_image():
    kept, everything = (load_rows({**NOISY, "counting_filter": how}, "counting") for how in ("full", "naive"))
    assert len(everything) == 30
    assert 0 < len(kept) < 30
    assert kept.column("number") == kept.column("true_number")
    assert everything.column("number") != everything.column("true_number")
    assert counting_flags(kept) == [True] * len(kept)
    row = kept[len(kept) - 1]
    assert (row["text"], row["number"]) == (kept.column("text")[-1], kept.column("number")[-1])


def test_batches_hold_the_chosen_share_of_both_parts():
    rows = load_rows({"parts": [NOISY, GENERAL]}, "counting")
    flags = np.array(counting_flags(rows))
    drawn = list(EpochSampler(len(rows), 0, flags.tolist(), 0.25))
    assert [int(flags[drawn[start : start + 8]].sum()) for start in range(0, 40, 8)] == [2] * 5


def test_broken_image_of_a_general_row_is_named():
    rows = Rows([{"image": None, "image_id": "a", "text": "x"}]).with_values(is_counting=False)
    with pytest.raises(ValueError, match="row 0 .*image_id 'a'"):
        rows[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"parts": []}, "`dataset.parts` to be a list of data sets"),
        ({"parts": [3]}, "`dataset.parts` to be a list of data sets"),
        ({"parts": [SCENES], "seed": 3}, "Unknown key `seed` in `dataset` .several parts."),
        ({"parts": [{"nam": "countscenes"}]}, r"`dataset.parts\[0\].name`"),
        ({**SCENES, "general": "perhaps"}, "`dataset.general` to be true or false"),
        ({**SCENES, "counting_filter": "full"}, "`dataset.counting_filter` needs `dataset.caption_noise`"),
        ({**SCENES, "caption_noise": 0.5}, "`dataset.caption_noise` to be keys and values"),
        ({**SCENES, "caption_noise": {"rate": 0.5}}, "Unknown key `rate` in `dataset.caption_noise`"),
        ({**NOISY, "counting_filter": "ful"}, "one of naive, objects, full"),
        ({**NOISY, "caption_noise": {"wrong_number_rate": 1.0}}, "has no rows"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(ValueError, match=message):
        load_rows(spec, "counting")


def test_counting_options_are_refused_for_density():
    with pytest.raises(ValueError, match="`dataset.general` is for counting runs, but this is a density run"):
        load_rows({**SCENES, "general": True}, "density")


def test_run_of_several_parts_trains_and_names_its_evaluation_rows(tmp_path):
    config = tmp_path / "run.yaml"
    towers = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    values = {
        "task": "counting",
        "output_dir": str(tmp_path / "out"),
        "scratch": {"vocab_size": 560, "vision": {**towers, "patch_size": 16, "image_size": 48}, "text": towers},
        "dataset": {"parts": [NOISY, GENERAL]},
        "test_dataset": {**SCENES, "num_scenes": 9},
        "counting_fraction": 0.5,
        "balance_numbers": True,
        "gradient_cache_chunk_size": 3,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    config.write_text(json.dumps(values))
    results = main([str(config)])
    assert results["num_rows"] == {"dataset": len(load_rows(NOISY, "counting")) + 30, "test_dataset": 9}
    config.write_text(json.dumps({**values, "test_dataset": {"num_scenes": 9}}))
    with pytest.raises(ValueError, match="`test_dataset.name` is missing: `dataset` has several parts"):
        load_splits(parse_run(str(config), [])[0])


@pytest.mark.parametrize("field", ["cutouts", "backgrounds"])
def test_missing_folder_of_scenes_is_named(field):
    with pytest.raises(FileNotFoundError, match=f"'nowhere', which `dataset.{field}` names"):
        load_rows({**SCENES, field: "nowhere"}, "counting")
