import numpy as np
import pytest

from count_clip.datasets_scripts.countscenes.backgrounds import (
    BACKGROUND_COLORS,
    BACKGROUND_STYLES,
    add_grain,
    backgrounds_behind,
    draw_background,
)
from count_clip.datasets_scripts.countscenes.objects import (
    COLORS,
    NUM_TONES,
    OBJECT_KINDS,
    PATTERNS,
    SHAPES,
    SPLITS,
    ObjectKind,
    SpriteCache,
    draw_sprite,
    kinds_of_split,
    make_patch,
)
from count_clip.datasets_scripts.countscenes.sources import absent_kinds


def test_splits_share_no_kind_and_hold_all() -> None:
    by_split = {split: set(kinds_of_split(split)) for split in SPLITS}
    assert sum(map(len, by_split.values())) == len(OBJECT_KINDS) == len(COLORS) * len(PATTERNS) * len(SHAPES)
    assert set.union(*by_split.values()) == set(OBJECT_KINDS)
    assert len({kind.plural for kind in OBJECT_KINDS}) == len(OBJECT_KINDS)


@pytest.mark.parametrize(("split", "share"), [("train", 0.7), ("validation", 0.1), ("test", 0.2)])
def test_splits_have_their_shares_and_every_word(split: str, share: float) -> None:
    kinds = kinds_of_split(split)
    assert len(kinds) / len(OBJECT_KINDS) == pytest.approx(share, abs=0.03)
    assert {kind.color for kind in kinds} == set(COLORS)
    assert {kind.pattern for kind in kinds} == set(PATTERNS)
    assert {kind.shape for kind in kinds} == set(SHAPES)


def test_absent_kinds_are_the_others_of_the_split_that_none_could_be_taken_for() -> None:
    present = [kinds_of_split("test")[3], kinds_of_split("test")[50]]
    there = {(kind.color, kind.shape) for kind in present}
    expected = [kind.plural for kind in kinds_of_split("test") if (kind.color, kind.shape) not in there]
    assert absent_kinds(kind.plural for kind in present) == expected
    assert len(expected) < len(kinds_of_split("test")) - 1


def test_absent_kinds_need_kinds_of_one_split() -> None:
    names = [kinds_of_split(split)[0].plural for split in ("train", "test")]
    with pytest.raises(ValueError, match="'green cats'"):
        absent_kinds([names[0], "green cats"])
    with pytest.raises(ValueError, match="one split, but got .* of test, train"):
        absent_kinds(names)
    with pytest.raises(ValueError, match="but got none of no split"):
        absent_kinds([])


def test_split_of_a_kind_never_changes() -> None:
    # Figures measured on one version's test kinds must mean the same in the next: these were computed once.
    splits = [ObjectKind("red", "plain", shape).split for shape in ("stars", "discs", "houses", "rings")]
    assert splits == ["validation", "train", "test", "train"]


def test_names_are_said_as_one_would() -> None:
    kind = ObjectKind("orange", "striped", "crosses")
    assert (kind.plural, kind.singular, kind.with_article) == (
        "orange striped crosses",
        "orange striped cross",
        "an orange striped cross",
    )
    assert ObjectKind("red", "plain", "stars").with_article == "a red star"


def test_a_striped_star_is_confusable_with_a_star_of_its_colour() -> None:
    star = ObjectKind("red", "plain", "stars")
    assert star.is_confusable_with(ObjectKind("red", "striped", "stars"))
    assert not star.is_confusable_with(ObjectKind("blue", "plain", "stars"))
    assert not star.is_confusable_with(ObjectKind("red", "plain", "rings"))


def test_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="one of train, validation, test, but got 'dev'"):
        kinds_of_split("dev")


def test_every_kind_looks_different() -> None:
    sprites = {draw_sprite(kind, 32).tobytes() for kind in OBJECT_KINDS}
    assert len(sprites) == len(OBJECT_KINDS)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_is_in_its_colour_and_fits_its_square(shape: str) -> None:
    for degrees in (0, 33, 180, -90):
        patch = make_patch(ObjectKind("blue", "plain", shape), 40, degrees, tone=2)
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
    opacity = np.asarray(make_patch(ObjectKind("red", "plain", "discs"), 40, 12, tone=2).opacity)
    assert ((opacity > 20) & (opacity < 235)).sum() > 40


def test_patch_turns_about_its_middle_and_takes_its_anchor_along() -> None:
    kind = ObjectKind("red", "plain", "crescents")
    upright, turned = make_patch(kind, 64, 0, tone=2), make_patch(kind, 64, 90, tone=2)
    # A quarter turn clockwise takes what is on the left to the top.
    assert upright.anchor[0] < 20 < 30 < upright.anchor[1] < 34
    assert turned.anchor[1] < 20 < 30 < turned.anchor[0] < 34
    overlap = (turned.mask == np.rot90(upright.mask, k=-1)).mean()
    assert overlap > 0.98


def test_tones_go_from_dark_to_light() -> None:
    kind = ObjectKind("green", "plain", "discs")
    means = [np.asarray(make_patch(kind, 32, 0, tone).pixels)[12:20, 12:20, :3].mean() for tone in range(NUM_TONES)]
    assert means == sorted(means)
    assert means[0] < means[-1]


def test_sprite_cache_stays_within_its_bytes_and_gives_the_same_sprites() -> None:
    cache = SpriteCache(max_bytes=40_000)
    kinds = OBJECT_KINDS[:40]
    for kind in kinds:
        cache.get(kind, 30)
        assert cache.num_bytes <= 40_000
    assert len(cache) == 40_000 // (4 * 32 * 32)
    assert cache.get(kinds[-1], 31) is cache.get(kinds[-1], 32)
    assert cache.get(kinds[0], 30).tobytes() == draw_sprite(kinds[0], 32).tobytes()


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
        names = backgrounds_behind([color])
        assert len(names) >= 5
        for name in names:
            assert np.abs(np.subtract(BACKGROUND_COLORS[name], rgb)).max() > 50, (color, name)
    # There is none that stands off from all twelve: the best one is taken.
    assert len(backgrounds_behind(COLORS)) == 1


def test_grain_is_no_stronger_than_asked_for_and_leaves_brightness_alone() -> None:
    image = draw_background(np.random.RandomState(0), "tan", "solid", 64)
    difference = np.asarray(add_grain(np.random.RandomState(1), image, 6)).astype(int) - np.asarray(image)
    assert np.abs(difference).max() == 6
    assert abs(difference.mean()) < 0.3
