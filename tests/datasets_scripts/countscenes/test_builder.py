import hashlib
import json
import pickle
import re
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
from torch.utils.data import DataLoader

from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD, find_count
from count_clip.datasets_scripts.countscenes.builder import (
    SCENE_CONFIGS,
    CountScenes,
    CountScenesBuilder,
    SceneConfig,
    render_scene,
    scene_config,
    scene_features,
)
from count_clip.datasets_scripts.countscenes.captions import made_up_name, spliced_name
from count_clip.datasets_scripts.countscenes.layout import lay_out
from count_clip.datasets_scripts.countscenes.objects import COLORS, SPLITS
from count_clip.datasets_scripts.countscenes.plan import ScenePlan, plan_scene, scene_generator
from count_clip.datasets_scripts.countscenes.shapes import Shapes, shape_classes


SIZE = 96
shape_config = partial(scene_config, objects="shapes")
shapes = partial(CountScenes, objects="shapes")
CLASS_OF_NAME = {one.plural: one for one in shape_classes()}


def fingerprint(row: dict) -> str:
    labels = json.dumps({key: value for key, value in row.items() if key != "image"}, sort_keys=True)
    return hashlib.sha256(row["image"].tobytes() + labels.encode()).hexdigest()


def laid_out(config: SceneConfig, split: str, seed: int, index: int):
    plan = plan_scene(config, split, seed, index)
    return plan, lay_out(scene_generator("picture", split, seed, index, Shapes.version), config, plan)


# The same everywhere


FINGERPRINTS_IN_A_NEW_PROCESS = """
import hashlib, json, sys
from count_clip.datasets_scripts.countscenes.builder import CountScenes
for config in ("mixed", "density", "captions", "benchmark"):
    scenes = CountScenes("test", config=config, objects="shapes", image_size=96, num_scenes=12, seed=7)
    for index in (11, 3, 0):
        row = dict(scenes[index])
        labels = json.dumps({key: value for key, value in row.items() if key != "image"}, sort_keys=True)
        print(hashlib.sha256(row["image"].tobytes() + labels.encode()).hexdigest())
"""


def test_scenes_are_the_same_in_every_process_and_order() -> None:
    environment = {"PYTHONHASHSEED": "12345", "PATH": ""}
    printed = subprocess.run(
        [sys.executable, "-c", FINGERPRINTS_IN_A_NEW_PROCESS],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout.split()
    here = []
    for config in ("mixed", "density", "captions", "benchmark"):
        scenes = shapes("test", config=config, image_size=SIZE, num_scenes=12, seed=7)
        rows = list(scenes)
        here += [fingerprint(rows[index]) for index in (11, 3, 0)]
    assert printed == here
    assert len(set(here)) == 12


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        (
            ["captions", "density", "mixed", "benchmark"],
            "d6bcf31363ca5b901c340c1a5fc31c260e56b407742f57d8ada0d861ca8c51eb",
        ),
        (["plain"], "4f0e1d2911f4f186d51870be5945b83bd0d633d147626d4b5b2953f99077cf89"),
    ],
)
def test_scenes_are_what_they_were(configs: list[str], expected: str) -> None:
    # Raise VERSION when this changes: figures are measured on these images.
    digest = hashlib.sha256()
    empty = {"exemplar_boxes", "description", "note"}  # of the schema, and never filled by a scene
    for config in configs:
        for row in shapes("train", config=config, image_size=SIZE, num_scenes=6):
            digest.update(fingerprint({key: row[key] for key in row if key not in empty}).encode())
    assert digest.hexdigest() == expected


def test_scenes_depend_on_split_seed_and_index() -> None:
    scenes = [("train", 0, 0), ("train", 0, 1), ("train", 1, 0), ("validation", 0, 0), ("test", 0, 0)]
    rows = [render_scene(shape_config("density", image_size=SIZE), *scene) for scene in scenes]
    assert len({row["image"].tobytes() for row in rows}) == len(scenes)
    assert len({row["image_id"] for row in rows}) == len(scenes)


def test_number_of_scenes_does_not_change_them() -> None:
    few = shapes("train", config="captions", image_size=SIZE, num_scenes=3)
    many = shapes("train", config="captions", image_size=SIZE, num_scenes=1_000_000_000)
    assert fingerprint(few[2]) == fingerprint(many[2])


# Labels match the images


@pytest.mark.parametrize("config", ["density", "mixed"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_points_and_boxes_are_those_of_the_counted_class(config: str, split: str) -> None:
    scenes = shapes(split, config=config, image_size=SIZE, num_scenes=60, seed=1)
    classes = {one.plural for one in Shapes().classes(split)}
    for row in scenes:
        assert row["text"] in classes
        assert row["image"].size == (SIZE, SIZE)
        assert row["count"] == len(row["points"]) == len(row["boxes"])
        for (x, y), (x0, y0, x1, y1) in zip(row["points"], row["boxes"], strict=True):
            assert 0 <= x0 < x < x1 <= SIZE
            assert 0 <= y0 < y < y1 <= SIZE


@pytest.mark.parametrize("name", ["density", "mixed", "captions"])
def test_every_object_can_be_seen_at_its_point_and_mostly(name: str) -> None:
    config = shape_config(name, image_size=SIZE)
    overlapping = 0
    for index in range(60):
        plan, layout = laid_out(config, "train", 2, index)
        assert Counter(placement.object_class for placement in layout.placements) == dict(
            zip(plan.classes, plan.counts, strict=True)
        )
        for place, placement in enumerate(layout.placements):
            seen = (layout.owner == place).sum() / placement.patch.mask.sum()
            assert seen >= 1 - config.max_hidden
            overlapping += seen < 1
            x, y = placement.point
            # One sees through a ring; its point may not be covered either.
            if placement.object_class.shape == "rings":
                assert layout.owner[int(y), int(x)] == -1 or layout.owner[int(y), int(x)] < place
            else:
                assert layout.owner[int(y), int(x)] == place
    # Scenes without any overlap would not teach that touching objects are two.
    assert overlapping > 10


def test_points_lie_on_pixels_of_the_objects_colour() -> None:
    config = shape_config("density", image_size=SIZE, grain_probability=0, shadow_probability=0, max_objects=8)
    checked = 0
    for index in range(80):
        row = render_scene(config, "train", 0, index)
        one = CLASS_OF_NAME[row["text"]]
        if one.pattern != "plain" or one.shape == "rings":
            continue
        pixels = np.asarray(row["image"]).astype(float)
        for x, y in row["points"]:
            seen = pixels[int(y), int(x)]
            # Tones make all channels lighter or darker together: the hue stays.
            reference = np.array(COLORS[one.color], dtype=float)
            assert np.abs(seen - reference * (seen.sum() / reference.sum())).max() < 40, (row["image_id"], row["text"])
            checked += 1
    assert checked > 30


def test_mixed_rows_name_everything_in_the_image() -> None:
    config = shape_config("mixed", image_size=SIZE)
    absent = 0
    for index in range(150):
        row = render_scene(config, "train", 0, index)
        plan, _ = laid_out(config, "train", 0, index)
        present = dict(zip(row["other_texts"], row["other_counts"], strict=True))
        assert present == {one.plural: count for one, count in zip(plan.classes, plan.counts, strict=True)}
        assert 2 <= len(present) <= 3
        assert row["count"] == present.get(row["text"], 0)
        if row["count"] == 0:
            absent += 1
            assert row["points"] == row["boxes"] == []
            # Nor could anybody take what is there for it.
            named = CLASS_OF_NAME[row["text"]]
            assert not any(named.is_confusable_with(CLASS_OF_NAME[text]) for text in present)
    assert 10 < absent < 40


def test_a_scene_has_several_texts() -> None:
    options = {"config": "mixed", "image_size": SIZE, "min_classes": 1, "max_classes": 3, "seed": 3}
    scenes = shapes("train", num_scenes=20, texts_per_scene=3, **options)
    assert len(scenes) == 60
    for scene in range(20):
        rows = [scenes[3 * scene + question] for question in range(3)]
        assert len({row["image_id"] for row in rows}) == 1
        assert len({row["image"].tobytes() for row in rows}) == 1
        assert len({row["text"] for row in rows}) == 3
        there = dict(zip(rows[0]["other_texts"], rows[0]["other_counts"], strict=True))
        for question, row in enumerate(rows):
            assert row["count"] == len(row["points"]) == there.get(row["text"], 0)
            # Two are there, where there are as many classes; the last one never is.
            assert (row["text"] in there) == (question < min(2, len(there)))
    assert len({scenes[3 * scene]["image_id"] for scene in range(20)}) == 20
    # However they are read: alone, in another order, or by the builder's function.
    for index in (59, 0, 31, 30):
        assert fingerprint(scenes[index]) == fingerprint(render_scene(scenes.config, "train", 3, index))
    assert scenes.column("text", [4, 5]) == [scenes[4]["text"], scenes[5]["text"]]
    # The texts do not change the image.
    plain = shapes("train", num_scenes=20, **options)
    assert all(plain[scene]["image"] == scenes[3 * scene]["image"] for scene in range(20))


def test_a_row_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[int] = []

    def counted(config: SceneConfig, split: str, seed: int, index: int) -> ScenePlan:
        planned.append(index)
        return plan_scene(config, split, seed, index)

    monkeypatch.setattr("count_clip.datasets_scripts.countscenes.builder.plan_scene", counted)
    for texts_per_scene in (1, 2):
        scenes = shapes("train", config="mixed", image_size=SIZE, num_scenes=2, texts_per_scene=texts_per_scene)
        planned.clear()
        assert len(list(scenes)) == len(planned) == 2 * texts_per_scene
    planned.clear()
    render_scene(shape_config("density", image_size=SIZE), "train", 0, 5)
    assert planned == [5]


def test_images_of_one_scene_are_not_shared_by_its_rows() -> None:
    scenes = shapes("train", config="mixed", image_size=SIZE, num_scenes=2, texts_per_scene=2)
    untouched = fingerprint(scenes[1])
    scenes[0]["image"].paste((0, 0, 0), (0, 0, SIZE, SIZE))
    assert fingerprint(scenes[1]) == untouched


def test_no_two_classes_in_a_scene_are_confusable() -> None:
    config = shape_config("density", image_size=SIZE, distractor_probability=1.0, max_distractor_classes=6)
    for index in range(100):
        classes = plan_scene(config, "validation", 0, index).classes
        assert len(classes) > 1
        assert not any(a.is_confusable_with(b) for place, a in enumerate(classes) for b in classes[:place])


def test_captions_state_the_number_of_objects_or_none() -> None:
    scenes = shapes("train", config="captions", image_size=SIZE, num_scenes=400, number_rate=0.25)
    texts, numbers, names = (scenes.column(column) for column in ("text", "number", "name"))
    counts = [plan_scene(scenes.config, "train", 0, index).counts[0] for index in range(400)]
    for text, number, name, count in zip(texts, numbers, names, counts, strict=True):
        match = find_count(text)
        assert (match.number if match else 0) == number
        assert number in (0, count)
        assert name.lower() in text.lower()
    assert 70 < sum(number > 0 for number in numbers) < 130
    assert {number for number in numbers if number} == set(NUMBER_TO_WORD)


def test_captions_of_one_object_or_of_many_state_no_number() -> None:
    for count in (1, 12):
        scenes = shapes(
            "train", config="captions", num_scenes=40, min_objects=count, max_objects=count, number_rate=1.0
        )
        assert set(scenes.column("number")) == {0}
        for text, name in zip(scenes.column("text"), scenes.column("name"), strict=True):
            assert find_count(text) is None
            expected = CLASS_OF_NAME[name].with_article if count == 1 else name
            assert expected.lower() in text.lower()


def test_captions_are_worded_in_many_ways() -> None:
    scenes = shapes("train", config="benchmark", num_scenes=600)
    ways = set()
    for text, name in zip(scenes.column("text"), scenes.column("name"), strict=True):
        match = find_count(text)
        around = text[: match.start] + "# " + text[match.end :].replace(name, "*")
        # What comes after, in its first two words: the last one of all is a colour.
        ways.add(" ".join(around.lower().split()[:6]))
    assert len(ways) > 12


@pytest.mark.parametrize("split", ["validation", "test"])
def test_benchmark_has_as_many_images_of_each_number(split: str) -> None:
    scenes = shapes(split, config="benchmark", image_size=SIZE)
    numbers = scenes.column("number")
    assert len(numbers) == {"validation": 180, "test": 540}[split]
    assert numbers == [2 + index % 9 for index in range(len(numbers))]
    for text, number in zip(scenes.column("text"), numbers, strict=True):
        assert find_count(text).number == number
        # One number word, not two.
        assert sum(word in NUMBER_TO_WORD.values() for word in text.lower().split()) == 1


def test_density_counts_are_log_uniform_over_their_range() -> None:
    counts = shapes("train", config="density", num_scenes=2000).column("count")
    assert (min(counts), max(counts)) == (1, 60)
    # A sixth of ln(61) each: 1, 2-3, 4-7, 8-15, 16-31, 32-60 are ln 2 wide but for the last.
    for low, high in ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31)):
        share = sum(low <= count <= high for count in counts) / len(counts)
        assert share == pytest.approx(np.log((high + 1) / low) / np.log(61), abs=0.04)


def test_sizes_follow_the_image() -> None:
    def mean_share(image_size: int) -> float:
        shares = []
        for row in shapes("train", config="density", image_size=image_size, num_scenes=30, max_objects=4):
            shares += [(x1 - x0) / image_size for x0, _, x1, _ in row["boxes"]]
        return float(np.mean(shares))

    assert mean_share(64) == pytest.approx(mean_share(224), rel=0.15)


def test_crowded_scenes_find_space() -> None:
    for index in range(3):
        row = render_scene(
            shape_config("density", image_size=128, min_objects=150, max_objects=150, min_object_size=0.04),
            "train",
            0,
            index,
        )
        assert row["count"] == len(row["points"]) == 150


def test_options_switch_what_they_name() -> None:
    plain = shape_config(
        "density",
        image_size=SIZE,
        background_styles=["solid"],
        grain_probability=0,
        shadow_probability=0,
        distractor_probability=0,
    )
    for index in range(20):
        row = render_scene(plain, "train", 0, index)
        _, layout = laid_out(plain, "train", 0, index)
        assert {placement.object_class.plural for placement in layout.placements} == {row["text"]}
        bare = np.asarray(row["image"])[far_from_objects(layout)]
        assert len(np.unique(bare, axis=0)) == 1
    never_hidden = shape_config("density", image_size=SIZE, max_hidden=0.0)
    for index in range(20):
        _, layout = laid_out(never_hidden, "train", 0, index)
        for place, placement in enumerate(layout.placements):
            assert (layout.owner == place).sum() == placement.patch.mask.sum()


def far_from_objects(layout) -> np.ndarray:
    """Pixels outside the squares around all objects: smooth edges reach a little beyond the masks."""
    far = np.ones_like(layout.owner, dtype=bool)
    for placement in layout.placements:
        side = placement.patch.mask.shape[0]
        far[placement.top : placement.top + side, placement.left : placement.left + side] = False
    return far


# The sequence


def test_sequence_ends_counts_from_the_end_and_takes_numpy_indices() -> None:
    scenes = shapes("train", config="density", image_size=SIZE, num_scenes=4)
    assert len(scenes) == len(list(scenes)) == 4
    assert fingerprint(scenes[-1]) == fingerprint(scenes[np.int64(3)])
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"below 4, the number of rows, but got {index}"):
            scenes[index]
    with pytest.raises(TypeError):
        scenes["image"]
    with pytest.raises(TypeError):
        scenes[0:2]


def test_sequence_can_be_pickled_and_read_by_workers() -> None:
    scenes = shapes("validation", config="captions", image_size=SIZE, num_scenes=8, seed=3, number_rate=0.9)
    copy = pickle.loads(pickle.dumps(scenes))
    assert [fingerprint(row) for row in copy] == [fingerprint(row) for row in scenes]
    loader = DataLoader(
        scenes, batch_size=4, num_workers=2, collate_fn=lambda rows: [fingerprint(row) for row in rows]
    )
    assert [one for batch in loader for one in batch] == [fingerprint(row) for row in scenes]


def test_columns_need_no_drawing() -> None:
    scenes = shapes("train", config="mixed", image_size=SIZE, num_scenes=12)
    rows = list(scenes)
    for name in ("image_id", "text", "count", "other_texts", "other_counts"):
        assert scenes.column(name) == [row[name] for row in rows]
    assert set(scenes.column_names) == set(rows[0])
    for name in ("image", "points", "number"):
        with pytest.raises(KeyError, match=f"but got '{name}'"):
            scenes.column(name)


def test_representation_names_the_options() -> None:
    scenes = shapes("test", config="benchmark", image_size=64)
    assert repr(scenes) == (
        "CountScenes(split='test', config='benchmark', objects='shapes', num_scenes=540, image_size=64, seed=0)"
    )


# Errors


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_size": 8}, "Expected image_size to be in 32-2048, but got 8"),
        ({"image_size": 96.5}, "Expected image_size to be a whole number, but got 96.5"),
        ({"min_objects": 0}, "Expected min_objects to be in 1-2000, but got 0"),
        ({"min_objects": 8, "max_objects": 7}, "Expected max_objects to be in 8-2000, but got 7"),
        ({"min_object_size": 0.5, "max_object_size": 0.4}, "Expected max_object_size to be in 0.5-0.9, but got 0.4"),
        ({"max_hidden": 0.8}, "Expected max_hidden to be in 0.0-0.45, but got 0.8"),
        ({"number_rate": 1.5}, "Expected number_rate to be in 0.0-1.0, but got 1.5"),
        ({"number_rate": float("nan")}, "Expected number_rate to be in 0.0-1.0, but got nan"),
        ({"distractor_probability": "0.5"}, r"Expected distractor_probability to be a number, but got '0.5' \(str\)"),
        ({"background_styles": ["plaid"]}, "Expected background_styles to be one or more of solid, .* got .'plaid'."),
        ({"background_styles": []}, "Expected background_styles to be one or more of"),
        ({"layouts": "rows"}, "Expected layouts to be a list of names, but got the single name 'rows'"),
        ({"count_distribution": "normal"}, "Expected count_distribution to be one of uniform, .* but got 'normal'"),
        ({"max_objects": 2000, "image_size": 96}, "Expected space for objects of 3.5 pixels or more, but up to 20"),
        ({"rows": "captions", "max_classes": 3}, "Expected max_classes=1 for rows='captions'"),
        ({"rows": "captions", "absent_probability": 0.1}, "Expected absent_probability=0 for rows='captions'"),
        (
            {"count_distribution": "balanced", "max_classes": 2},
            "Expected max_classes=1 for count_distribution='balanced'",
        ),
        ({"rows": "captions", "texts_per_scene": 2}, "Expected texts_per_scene=1 for rows='captions'"),
        ({"texts_per_scene": 0}, "Expected texts_per_scene to be in 1-16, but got 0"),
        ({"number_of_objects": 3}, "Expected fields of SceneConfig, but got number_of_objects"),
    ],
)
def test_bad_options_are_named(overrides: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        shapes("train", config="density", **overrides)


def test_bad_names_and_numbers_are_named() -> None:
    with pytest.raises(ValueError, match=r"one of captions, density, mixed, .*, described .* but got 'densty'"):
        shapes("train", config="densty")
    with pytest.raises(ValueError, match="one of train, validation, test, but got 'dev'"):
        shapes("dev")
    with pytest.raises(ValueError, match="Expected num_scenes to be a whole number of 0 or more, but got -1"):
        shapes("train", num_scenes=-1)
    with pytest.raises(ValueError, match=r"Expected seed to be a whole number of 0 or more, but got 0\.5"):
        shapes("train", seed=0.5)
    with pytest.raises(ValueError, match="Expected index to be a whole number of 0 or more, but got -1"):
        render_scene(shape_config("density"), "train", 0, -1)


# For datasets


def build(tmp_path: Path, name: str, **options) -> datasets.DatasetDict:
    builder = CountScenesBuilder(config_name=name, objects="shapes", cache_dir=str(tmp_path), **options)
    builder.download_and_prepare()
    return builder.as_dataset()


@pytest.mark.parametrize("name", list(SCENE_CONFIGS))
def test_builder_gives_the_same_scenes(tmp_path: Path, name: str) -> None:
    built = build(tmp_path, name, num_scenes={"train": 5, "test": 3}, image_size=SIZE, seed=4)
    assert set(built) == {"train", "test"}
    for split, length in (("train", 5), ("test", 3)):
        scenes = shapes(split, config=name, num_scenes=length, image_size=SIZE, seed=4)
        assert built[split].features == scene_features(scenes.config) == scenes.features
        assert len(built[split]) == length
        for made, drawn in zip(built[split], scenes, strict=True):
            assert np.array_equal(np.asarray(made.pop("image")), np.asarray(drawn.pop("image")))
            for key in ("points", "boxes"):
                if key in drawn:
                    assert np.allclose(made.pop(key), drawn.pop(key), atol=1e-3)
            assert made == drawn


def test_builder_has_a_small_set_of_each_configuration_by_default(tmp_path: Path) -> None:
    for name in SCENE_CONFIGS:
        builder = CountScenesBuilder(config_name=name, cache_dir=str(tmp_path))
        generators = {generator.name: generator.gen_kwargs["shards"] for generator in builder._split_generators(None)}
        lengths = {split: sum(stop - start for start, stop in shards) for split, shards in generators.items()}
        # Of those with CountBench's protocol, as many for each of nine numbers.
        balanced = SCENE_CONFIGS[name].count_distribution == "balanced"
        expected = {"train": 2000, "validation": 180 if balanced else 200, "test": 540}
        if name == "benchmark":
            del expected["train"]
        assert lengths == expected


def test_builder_changes_any_option_and_names_wrong_ones(tmp_path: Path) -> None:
    built = build(tmp_path, "captions", num_scenes={"train": 12}, image_size=SIZE, overrides={"number_rate": 0.0})
    assert set(built["train"]["number"]) == {0}
    with pytest.raises(TypeError, match="Expected fields of SceneConfig, but got number_rat"):
        CountScenesBuilder(config_name="captions", cache_dir=str(tmp_path), overrides={"number_rat": 0.0})
    with pytest.raises(ValueError, match="Expected num_scenes to name splits .* but got 'dev'"):
        build(tmp_path, "captions", num_scenes={"dev": 3})
    for number in (-1, "many", 1.5, True, [3]):
        with pytest.raises(ValueError, match="Expected num_scenes to be a whole number, 0 or more, but got .* 'test'"):
            build(tmp_path, "captions", num_scenes={"test": number})
    with pytest.raises(ValueError, match="Expected num_scenes of 1 or more for a split"):
        build(tmp_path, "captions", num_scenes=0)
    with pytest.raises(TypeError, match="Expected overrides to name fields of a scene's configuration, .* but got 5"):
        CountScenesBuilder(config_name="captions", cache_dir=str(tmp_path), overrides=5)


def test_one_number_of_scenes_is_that_of_every_split(tmp_path: Path) -> None:
    built = build(tmp_path, "benchmark", num_scenes=3, image_size=SIZE)
    assert {split: len(rows) for split, rows in built.items()} == {"validation": 3, "test": 3}


def test_examples_for_the_card_show_scenes_with_their_texts(tmp_path: Path) -> None:
    builder = CountScenesBuilder(config_name="mixed", objects="shapes", cache_dir=str(tmp_path), image_size=64)
    sheet = builder.draw_examples()
    rows = list(shapes("train", config="mixed", image_size=64, num_scenes=2))
    assert sheet.mode == "RGB"
    width = sheet.width // 6
    for place, row in enumerate(rows):
        shown = sheet.crop((place * width, 0, place * width + 64, 64))
        assert shown.tobytes() == row["image"].tobytes()
        below = np.asarray(sheet.crop((place * width, 64, (place + 1) * width, 100)))
        assert below.min() < 100


def test_columns_of_some_scenes_are_those_of_the_whole_set():
    scenes = shapes("train", config="density", num_scenes=20, image_size=64)
    texts = scenes.column("text")
    assert scenes.column("text", [3, 19, -1]) == [texts[3], texts[19], texts[19]]
    assert scenes.column("image_id", [3]) == [scenes[3]["image_id"]]
    with pytest.raises(IndexError, match="20"):
        scenes.column("text", [20])


def test_plain_scenes_show_only_counted_objects() -> None:
    scenes = shapes("test", config="plain", num_scenes=18)
    assert scenes.config.image_size == 96
    assert scenes.column("number") == [*range(2, 11)] * 2
    plain = scene_config("plain", rows="density", objects="shapes")
    for index, number in enumerate(scenes.column("number")):
        row = render_scene(plain, "test", 0, index)
        assert len(row["boxes"]) == row["count"] == number
        # On smooth ground with nothing else, away from the objects a pixel resembles the next.
        pixels = np.asarray(row["image"]).astype(int)
        empty = np.ones(pixels.shape[:2], bool)
        for x0, y0, x1, y1 in row["boxes"]:
            empty[max(0, int(y0) - 3) : int(y1) + 4, max(0, int(x0) - 3) : int(x1) + 4] = False
        steps = np.abs(np.diff(pixels, axis=1)).max(-1)[empty[:, 1:] & empty[:, :-1]]
        assert steps.size
        assert steps.max() <= 4


def test_made_up_names_are_in_the_caption_alone() -> None:
    known = {one.plural for split in SPLITS for one in Shapes().classes(split)}
    usual = shapes("train", config="plain", num_scenes=300, seed=3)
    renamed = shapes("train", config="plain", num_scenes=300, seed=3, made_up_name_rate=0.5)
    assert renamed.column("name") == usual.column("name")
    assert renamed.column("number") == usual.column("number")
    assert np.array_equal(np.asarray(renamed[7]["image"]), np.asarray(usual[7]["image"]))
    # The number stands where it stood, whatever follows it.
    for text, number in zip(renamed.column("text"), renamed.column("number"), strict=True):
        assert find_count(text).number == number
    is_renamed = [name not in text for text, name in zip(renamed.column("text"), usual.column("name"), strict=True)]
    assert 120 < sum(is_renamed) < 180
    names = [made_up_name(np.random.RandomState(seed)) for seed in range(2000)]
    assert len(set(names)) > 1900
    words = {word for name in names for word in name.split()}
    assert not words & (set(NUMBER_TO_WORD.values()) | {word for name in known for word in name.split()})


def test_spliced_names_begin_as_one_name_and_end_as_another() -> None:
    names = ["barrel", "giraffe", "red tent", "red hen"]
    spliced = {spliced_name(np.random.RandomState(seed), names) for seed in range(2000)}
    beginnings = {name[:end].strip() for name in names for end in range(1, len(name))}
    endings = {name[start:].strip() for name in names for start in range(len(name) - 1)}
    for name in spliced:
        assert any(name[:cut].strip() in beginnings and name[cut:].strip() in endings for cut in range(1, len(name)))
        assert name == " ".join(name.split())
    assert "girel" in spliced
    assert "red barrel" in spliced
    # Two red objects may be spliced to the other one; and "te" and "en" a number.
    assert not spliced & {*names, "ten", "red ten"}


def test_the_share_of_spliced_names_is_as_configured() -> None:
    options = {"config": "mixed", "max_classes": 1, "min_classes": 1, "absent_probability": 0.0, "num_scenes": 400}
    options["made_up_name_rate"] = 1.0
    texts = {rate: shapes("train", spliced_name_rate=rate, **options).column("text") for rate in (0.0, 0.5, 1.0)}
    assert texts[0.0] == shapes("train", **options).column("text")
    # The names of shapes begin with a colour.
    beginnings = tuple(color[:2] for color in COLORS)
    shares = [np.mean([text.startswith(beginnings) for text in texts[rate]]) for rate in texts]
    assert shares[0] < 0.2
    assert shares[1] - shares[0] == pytest.approx((shares[2] - shares[0]) / 2, abs=0.1)
    assert shares[2] > 0.8


def test_made_up_names_of_one_object_have_their_article() -> None:
    options = {"min_objects": 1, "max_objects": 1, "count_distribution": "uniform", "made_up_name_rate": 1.0}
    options["spliced_name_rate"] = 0.5
    for text in shapes("train", config="plain", num_scenes=50, **options).column("text"):
        assert re.search(r"\b(a (?!photo|image)[^aeiou ]|an (?!image)[aeiou])", text, re.IGNORECASE), text


def test_made_up_names_in_density_rows_are_for_the_only_class_in_the_image() -> None:
    options = {"image_size": SIZE, "num_scenes": 100, "min_classes": 1, "max_objects": 5, "texts_per_scene": 3}
    usual = shapes("train", config="mixed", **options)
    renamed = shapes("train", config="mixed", made_up_name_rate=0.5, **options)
    known = {one.plural for one in Shapes().classes("train")}
    num_renamed = 0
    for before, after in zip(usual, renamed, strict=True):
        assert (after["count"], after["points"]) == (before["count"], before["points"])
        if after["text"] != before["text"]:
            num_renamed += 1
            assert after["text"] not in known
            assert before["count"] > 0
            assert len(before["other_texts"]) == 1
    alone = sum(len(row["other_texts"]) == 1 and row["count"] > 0 for row in usual)
    assert 0.25 * alone < num_renamed < 0.75 * alone
