import numpy as np
import pytest

from count_clip.datasets_scripts.countscenes.backgrounds import (
    BACKGROUND_COLORS,
    BACKGROUND_STYLES,
    add_grain,
    backgrounds_against,
    draw_background,
)
from count_clip.datasets_scripts.countscenes.objects import COLORS, SPLITS
from count_clip.datasets_scripts.countscenes.shapes import (
    PATTERNS,
    SHAPES,
    ShapeClass,
    Shapes,
    draw_sprite,
    shape_class,
    shape_classes,
)
from count_clip.datasets_scripts.countscenes.sources import absent_classes
from count_clip.datasets_scripts.countscenes.sprites import NUM_TONES, ImageCache, ObjectPatch


def make_patch(one: ShapeClass, size: float, degrees: float, tone: int) -> ObjectPatch:
    return Shapes().patch(one, size, degrees, tone, look=0)


def test_splits_share_no_class_and_have_all() -> None:
    by_split = {split: set(Shapes().classes(split)) for split in SPLITS}
    assert sum(map(len, by_split.values())) == len(shape_classes()) == len(COLORS) * len(PATTERNS) * len(SHAPES)
    assert set.union(*by_split.values()) == set(shape_classes())
    assert len({one.plural for one in shape_classes()}) == len(shape_classes())


@pytest.mark.parametrize(("split", "share"), [("train", 0.7), ("validation", 0.1), ("test", 0.2)])
def test_splits_have_their_shares_and_every_word(split: str, share: float) -> None:
    classes = Shapes().classes(split)
    assert len(classes) / len(shape_classes()) == pytest.approx(share, abs=0.03)
    assert {one.color for one in classes} == set(COLORS)
    assert {one.pattern for one in classes} == set(PATTERNS)
    assert {one.shape for one in classes} == set(SHAPES)


def test_absent_classes_are_the_others_of_the_split_that_are_not_confusable() -> None:
    present = [Shapes().classes("test")[3], Shapes().classes("test")[50]]
    there = {(one.color, one.shape) for one in present}
    expected = [one.plural for one in Shapes().classes("test") if (one.color, one.shape) not in there]
    assert absent_classes(one.plural for one in present) == expected
    assert len(expected) < len(Shapes().classes("test")) - 1


def test_absent_classes_need_classes_of_one_split() -> None:
    names = [Shapes().classes(split)[0].plural for split in ("train", "test")]
    with pytest.raises(ValueError, match="'green cats'"):
        absent_classes([names[0], "green cats"])
    with pytest.raises(ValueError, match="one split, but got .* of test, train"):
        absent_classes(names)
    with pytest.raises(ValueError, match="but got none of no split"):
        absent_classes([])


def test_split_of_a_class_never_changes() -> None:
    # Figures measured on one version's test classes must mean the same in the next: these were computed once.
    splits = [shape_class("red", "plain", shape).split for shape in ("stars", "discs", "houses", "rings")]
    assert splits == ["validation", "train", "test", "train"]


def test_names_are_common_english() -> None:
    one = shape_class("orange", "striped", "crosses")
    assert (one.plural, one.singular, one.with_article) == (
        "orange striped crosses",
        "orange striped cross",
        "an orange striped cross",
    )
    assert shape_class("red", "plain", "stars").with_article == "a red star"


def test_a_striped_star_is_confusable_with_a_star_of_its_colour() -> None:
    star = shape_class("red", "plain", "stars")
    assert star.is_confusable_with(shape_class("red", "striped", "stars"))
    assert not star.is_confusable_with(shape_class("blue", "plain", "stars"))
    assert not star.is_confusable_with(shape_class("red", "plain", "rings"))


def test_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="one of train, validation, test, but got 'dev'"):
        Shapes().classes("dev")


def test_every_class_looks_different() -> None:
    sprites = {draw_sprite(one, 32).tobytes() for one in shape_classes()}
    assert len(sprites) == len(shape_classes())


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_is_in_its_colour_and_fits_its_square(shape: str) -> None:
    for degrees in (0, 33, 180, -90):
        patch = make_patch(shape_class("blue", "plain", shape), 40, degrees, tone=2)
        opacity = np.asarray(patch.opacity)
        assert opacity.shape == (40, 40)
        assert not patch.mask[[0, -1]].any()
        assert not patch.mask[:, [0, -1]].any()
        # Not so thin that its area could be overlooked.
        assert 0.15 < patch.mask.mean() < 0.75
        body = (np.abs(np.asarray(patch.pixels)[..., :3].astype(int) - COLORS["blue"]).max(axis=2) < 12) & patch.mask
        assert body.sum() > 0.35 * patch.mask.sum()
        x, y = patch.anchor
        # One would put the dot into the hole of a ring.
        assert patch.mask[int(y), int(x)] != (shape == "rings")


def test_edges_are_smooth() -> None:
    opacity = np.asarray(make_patch(shape_class("red", "plain", "discs"), 40, 12, tone=2).opacity)
    assert ((opacity > 20) & (opacity < 235)).sum() > 40


def test_patch_turns_about_its_middle_and_takes_its_anchor_along() -> None:
    one = shape_class("red", "plain", "crescents")
    upright, turned = make_patch(one, 64, 0, tone=2), make_patch(one, 64, 90, tone=2)
    # A quarter turn clockwise takes what is on the left to the top.
    assert upright.anchor[0] < 20 < 30 < upright.anchor[1] < 34
    assert turned.anchor[1] < 20 < 30 < turned.anchor[0] < 34
    overlap = (turned.mask == np.rot90(upright.mask, k=-1)).mean()
    assert overlap > 0.98


def test_tones_go_from_dark_to_light() -> None:
    one = shape_class("green", "plain", "discs")
    means = [np.asarray(make_patch(one, 32, 0, tone).pixels)[12:20, 12:20, :3].mean() for tone in range(NUM_TONES)]
    assert means == sorted(means)
    assert means[0] < means[-1]


def test_image_cache_keeps_the_images_used_last_within_its_bytes() -> None:
    cache = ImageCache(max_bytes=40_000)
    classes = shape_classes()[:40]
    for one in classes:
        cache.get(one, lambda one=one: draw_sprite(one, 32))
        cache.get(classes[0], lambda: pytest.fail("the class used last is in the cache"))
        assert cache.num_bytes <= 40_000
    assert len(cache) == 40_000 // (4 * 32 * 32)
    assert (
        cache.get(classes[1], lambda: draw_sprite(classes[1], 32)).tobytes() == draw_sprite(classes[1], 32).tobytes()
    )


@pytest.mark.parametrize("style", BACKGROUND_STYLES)
@pytest.mark.parametrize("name", BACKGROUND_COLORS)
def test_background_stays_near_its_colour(style: str, name: str) -> None:
    for side in (40, 97):
        image = draw_background(np.random.RandomState(3), name, style, side)
        assert (image.mode, image.size) == ("RGB", (side, side))
        pixels = np.asarray(image).astype(int)
        assert np.abs(pixels - BACKGROUND_COLORS[name]).max() <= 48
        if style != "solid":
            assert pixels.std() > 0


def test_backgrounds_contrast_with_the_objects() -> None:
    for color, rgb in COLORS.items():
        names = backgrounds_against([rgb])
        assert len(names) >= 5
        for name in names:
            assert np.abs(np.subtract(BACKGROUND_COLORS[name], rgb)).max() > 50, (color, name)
    # No background contrasts with all twelve: the best one is used.
    assert len(backgrounds_against(COLORS.values())) == 1


def test_grain_stays_below_its_strength_and_keeps_the_brightness() -> None:
    image = draw_background(np.random.RandomState(0), "tan", "solid", 64)
    difference = np.asarray(add_grain(np.random.RandomState(1), image, 6)).astype(int) - np.asarray(image)
    assert np.abs(difference).max() == 6
    assert abs(difference.mean()) < 0.3
