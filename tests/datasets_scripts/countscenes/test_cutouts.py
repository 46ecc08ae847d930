import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from count_clip.datasets_scripts.countscenes.builder import CountScenes, CountScenesBuilder
from count_clip.datasets_scripts.countscenes.cutouts import Cutouts, cutouts_of
from count_clip.datasets_scripts.countscenes.photos import Photographs


COLORS = {"red pen": (200, 30, 30), "green_cup": (30, 160, 40), "blue box": (40, 60, 210), "mug": (160, 120, 40)}
ALONE = {"config": "density", "image_size": 96, "distractor_probability": 0.0, "max_objects": 6, "num_scenes": 4}


@pytest.fixture(autouse=True)
def sprites(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("sprites")
    monkeypatch.setenv("COUNT_CLIP_SPRITES", str(folder))
    return folder


def cutout(color: tuple[int, int, int], side: int = 60, opaque: bool = False) -> Image.Image:
    image = Image.new("RGBA", (side, side), (*color, 255) if opaque else (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle([side // 6, side // 4, side - side // 4, side - side // 5], fill=(*color, 255))
    return image


def class_folder(folder: Path, names=tuple(COLORS)) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(2):
            cutout(COLORS[name], 60 + 20 * number).save(folder / name / f"{number}.png")
    return folder


def photograph(folder: Path, name: str, seed: int = 0, size: tuple[int, int] = (80, 60)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def coco_folder(folder: Path, annotations: list[dict], categories=("dog", "cat", "bus")) -> Path:
    photograph(folder / "images", "a.png", size=(120, 100))
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 120, "height": 100}],
        "categories": [{"id": place, "name": name} for place, name in enumerate(categories)],
        "annotations": [
            {"id": place, "image_id": 1, "iscrowd": 0, "bbox": [10, 10, 40, 40], **one}
            for place, one in enumerate(annotations)
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


DIAMOND = [[30.0, 10.0, 50.0, 30.0, 30.0, 50.0, 10.0, 30.0]]


# Folders of images


def test_folders_are_classes_and_no_class_is_in_two_splits(tmp_path) -> None:
    source = Cutouts(str(class_folder(tmp_path / "objects")))
    by_split = {split: source.classes(split) for split in ("train", "validation", "test")}
    names = sorted(one.singular for classes in by_split.values() for one in classes)
    assert names == ["blue box", "green cup", "mug", "red pen"]
    assert {split: len(classes) for split, classes in by_split.items()} == {"train": 2, "validation": 1, "test": 1}
    assert {one.plural for classes in by_split.values() for one in classes} == {
        *("blue boxes", "green cups", "mugs", "red pens")
    }
    assert not source.faults


def test_scenes_of_cutouts_match_their_labels(tmp_path) -> None:
    plain = {"background_styles": ["solid"], "grain_probability": 0, "shadow_probability": 0, "layouts": ["scattered"]}
    scenes = CountScenes("train", cutouts=str(class_folder(tmp_path / "objects")), **ALONE, **plain,
                         blur_probability=0, jpeg_probability=0)  # fmt: skip
    assert scenes.config.objects == "cutouts"
    colors = {"red pens": COLORS["red pen"], "green cups": COLORS["green_cup"], "blue boxes": COLORS["blue box"]}
    colors["mugs"] = COLORS["mug"]
    for row in scenes:
        assert row["count"] == len(row["points"])
        pixels = np.asarray(row["image"]).astype(float)
        for (x, y), (x0, y0, x1, y1) in zip(row["points"], row["boxes"], strict=True):
            assert x0 < x < x1
            assert y0 < y < y1
            # Brightness differs, the hue stays.
            seen, reference = pixels[int(y), int(x)], np.array(colors[row["text"]], dtype=float)
            assert np.abs(seen - reference * seen.sum() / reference.sum()).max() < 20


def test_names_of_one_letter_are_not_spliced(tmp_path) -> None:
    objects = tmp_path / "objects"
    for name in ("A", "B"):
        (objects / "train" / name).mkdir(parents=True)
        cutout(COLORS["mug"]).save(objects / "train" / name / "0.png")
    options = {"cutouts": str(objects), "made_up_name_rate": 1.0, "spliced_name_rate": 1.0, **ALONE}
    texts = CountScenes("train", **options).column("text")
    assert len(set(texts)) > 2
    assert not {text.removesuffix("s") for text in texts} & {"A", "B"}


def test_scenes_of_cutouts_are_the_same_with_and_without_the_cache(tmp_path, sprites) -> None:
    folder = str(class_folder(tmp_path / "objects"))
    first = [row["image"].tobytes() for row in CountScenes("train", cutouts=folder, **ALONE)]
    kept = sorted(sprites.iterdir())
    assert {file.suffix for file in kept} == {".json", ".npy"}
    cutouts_of.cache_clear()
    assert [row["image"].tobytes() for row in CountScenes("train", cutouts=folder, **ALONE)] == first
    # Truncated, for example by a full disk.
    for file in kept:
        file.write_bytes(file.read_bytes()[:30])
    cutouts_of.cache_clear()
    assert [row["image"].tobytes() for row in CountScenes("train", cutouts=folder, **ALONE)] == first


def test_folders_of_splits_assign_the_classes(tmp_path) -> None:
    for split, names in (("train", ("mug", "red pen")), ("val", ("mug",))):
        class_folder(tmp_path / "objects" / split, names)
    source = Cutouts(str(tmp_path / "objects"))
    assert [one.singular for one in source.classes("train")] == ["mug", "red pen"]
    assert [one.singular for one in source.classes("validation")] == ["mug"]
    with pytest.raises(ValueError, match="Expected classes for the split 'test'.*folders train, validation and test"):
        source.classes("test")
    with pytest.raises(ValueError, match="one of train, validation, test, but got 'dev'"):
        source.classes("dev")


def test_bad_images_are_named_and_the_others_used(tmp_path, caplog) -> None:
    folder = class_folder(tmp_path / "objects")
    mug = folder / "mug"
    (mug / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand then nothing")
    (mug / "cut.png").write_bytes((mug / "0.png").read_bytes()[:-40])
    cutout(COLORS["mug"], opaque=True).save(mug / "opaque.png")
    cutout(COLORS["mug"]).convert("RGB").save(mug / "photo.jpg")
    Image.new("RGBA", (50, 50)).save(mug / "empty.png")
    cutout(COLORS["mug"], side=12).save(mug / "tiny.png")
    elsewhere = tmp_path / "elsewhere.png"
    cutout(COLORS["mug"]).save(elsewhere)
    os.symlink(elsewhere, mug / "link.png")
    source = Cutouts(str(folder))
    reasons = dict(fault.split(" ", 1) for fault in source.faults)
    assert set(reasons) == {
        *("mug/broken.png:", "mug/cut.png:", "mug/opaque.png:", "mug/photo.jpg:", "mug/empty.png:"),
        *("mug/tiny.png:", "mug/link.png"),
    }
    assert "nothing in it is transparent" in reasons["mug/opaque.png:"]
    assert "all of it is transparent" in reasons["mug/empty.png:"]
    assert "too small" in reasons["mug/tiny.png:"]
    assert "leads out of the folder" in reasons["mug/link.png"]
    assert "mug/broken.png" in caplog.text
    classes = [one for split in ("train", "validation", "test") for one in source.classes(split)]
    assert {one.singular: len(one.looks) for one in classes}["mug"] == 2
    builder = CountScenesBuilder(
        config_name="density",
        cache_dir=str(tmp_path / "cache"),
        cutouts=str(folder),
        num_scenes={"train": 2},
        overrides={"distractor_probability": 0.0},
    )
    assert source.faults == builder.known_faults()
    assert builder.info.license is None


@pytest.mark.parametrize("content", ["nothing", "files", "opaque"])
def test_folder_without_cutouts_is_named(tmp_path, content: str) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    if content == "files":
        cutout(COLORS["mug"]).save(folder / "mug.png")
    if content == "opaque":
        (folder / "mug").mkdir()
        cutout(COLORS["mug"], opaque=True).save(folder / "mug" / "0.png")
    why = r" What was left out: mug/0\.png: nothing in it is transparent" if content == "opaque" else ""
    with pytest.raises(
        ValueError, match=rf"Expected images of objects to cut out in .*objects, but found none\.{why}"
    ):
        CountScenes("train", cutouts=str(folder))
    with pytest.raises(FileNotFoundError, match="Expected a folder at"):
        CountScenes("train", cutouts=str(tmp_path / "nowhere"))


def test_too_few_classes_are_named(tmp_path) -> None:
    folder = str(class_folder(tmp_path / "objects"))
    with pytest.raises(ValueError, match=r"Expected 3 classes or more for the split 'train'.* has 2\. Add classes"):
        CountScenes("train", config="captions", cutouts=folder)
    few = str(class_folder(tmp_path / "few", ("mug", "red pen")))
    with pytest.raises(ValueError, match="Expected classes for the split 'test'"):
        CountScenes("test", config="captions", cutouts=few, distractor_probability=0.0)


def test_changed_folder_changes_the_cache_of_the_builder(tmp_path) -> None:
    folder = class_folder(tmp_path / "objects")
    options = {"cutouts": str(folder), "image_size": 96, "num_scenes": {"train": 3}}

    def config_id() -> str:
        return CountScenesBuilder(config_name="density", cache_dir=str(tmp_path / "cache"), **options).config_id

    before = config_id()
    assert before == config_id()
    cutout((10, 10, 10)).save(folder / "mug" / "another.png")
    assert before != config_id()


# Photographs with outlines


def test_outlined_objects_are_cut_out(tmp_path) -> None:
    annotations = [{"category_id": place, "segmentation": DIAMOND} for place in range(3)]
    annotations.append(
        {"category_id": 0, "segmentation": [[x + 55 for x in DIAMOND[0]]]}
    )  # at (85, 85) +- 20: cut off
    annotations.append({"category_id": 0, "segmentation": DIAMOND * 2})  # two outlines
    annotations.append({"category_id": 0, "segmentation": [[10, 10, 20, 10, 20, 20]]})  # too small
    annotations.append({"category_id": 0, "segmentation": {"size": [100, 120], "counts": "x"}, "iscrowd": 0})
    source = Cutouts(str(coco_folder(tmp_path / "photos", annotations)))
    classes = [one for split in ("train", "validation", "test") for one in source.classes(split)]
    assert Counter({one.singular: len(one.looks) for one in classes}) == {"dog": 1, "cat": 1, "bus": 1}
    look = classes[0].looks[0]
    assert look.box == (10, 10, 50, 50)
    # A square on its corner fills two parts in pi of the circle around it.
    assert look.coverage == pytest.approx(2 / np.pi, abs=0.03)
    assert look.anchor == pytest.approx((0, 0), abs=0.05)
    patch = source.patch(classes[0], 40, 0.0, 2, 0)
    assert patch.mask.mean() == pytest.approx(0.5 * 0.96**2, abs=0.03)
    pixels = np.asarray(Image.open(tmp_path / "photos" / "images" / "a.png").crop(look.box)).astype(float)
    inside = np.abs(np.mgrid[:40, :40] - 19.5).sum(axis=0) < 19
    assert np.abs(pixels[inside].mean(axis=0) - look.rgb).max() < 8


def test_missing_photograph_is_named(tmp_path) -> None:
    folder = coco_folder(tmp_path / "photos", [{"category_id": 0, "segmentation": DIAMOND}])
    (folder / "images" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected the image of .*image 1 at .*a\.png, but there is none"):
        CountScenes("train", cutouts=str(folder))


def test_names_in_annotations_stay_in_the_folder(tmp_path) -> None:
    folder = coco_folder(tmp_path / "photos", [{"category_id": 0, "segmentation": DIAMOND}])
    photograph(tmp_path, "outside.png")
    content = json.loads((folder / "instances.json").read_text())
    content["images"][0]["file_name"] = "../../outside.png"
    (folder / "instances.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="which leads out of it"):
        CountScenes("train", cutouts=str(folder))


def test_annotations_without_polygons_are_named(tmp_path) -> None:
    folder = coco_folder(tmp_path / "photos", [{"category_id": 0, "segmentation": []}])
    with pytest.raises(ValueError, match="Expected images of objects to cut out"):
        CountScenes("train", cutouts=str(folder))


def test_real_photographs_give_cutouts(shared, tmp_path) -> None:
    # A tenth of the photographs: all of them take ten seconds.
    source = shared / "data" / "coco_photos"
    if not source.is_dir():
        pytest.skip("needs coco_photos in the shared folder")
    content = json.loads((source / "instances.json").read_text())
    images = sorted(content["images"], key=lambda image: image["id"])[::10]
    kept = {image["id"] for image in images}
    (tmp_path / "images").mkdir()
    for image in images:
        os.link(source / "images" / image["file_name"], tmp_path / "images" / image["file_name"])
    content |= {
        "images": images,
        "annotations": [one for one in content["annotations"] if one["image_id"] in kept],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    found = Cutouts(str(tmp_path))
    classes = found.classes("train")
    assert len(classes) > 20
    for one in classes:
        patch = found.patch(one, 48, 20.0, 2, 5)
        assert 0.02 < patch.mask.mean() < 0.8
        x, y = patch.anchor
        assert patch.mask[int(y), int(x)]


# Photographs behind


def test_photographs_are_the_background(tmp_path) -> None:
    Image.new("RGB", (90, 70), (10, 200, 10)).save(photograph(tmp_path / "behind", "a.png"))
    options = {"config": "captions", "objects": "shapes", "image_size": 96, "num_scenes": 6, "grain_probability": 0.0}
    scenes = CountScenes("train", **options, backgrounds=str(tmp_path / "behind"), shadow_probability=0.0)
    for row in scenes:
        red, green, blue = np.median(np.asarray(row["image"]).reshape(-1, 3), axis=0)
        assert green > red + 60
        assert green > blue + 60
    # A photograph has no colour that one would name.
    assert not any(" background" in row["text"] or " paper" in row["text"] for row in scenes)


def test_bad_photographs_are_named_and_the_others_used(tmp_path, caplog) -> None:
    folder = tmp_path / "behind"
    photograph(folder / "more", "good.png", size=(100, 80))
    photograph(folder, "small.png", size=(20, 20))
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not an image either")
    cut = photograph(folder, "cut.png", seed=3)
    cut.write_bytes(cut.read_bytes()[:200])
    outside = photograph(tmp_path, "outside.png")
    os.symlink(outside, folder / "link.png")
    photographs = Photographs(str(folder))
    assert len(photographs) == 2
    assert len(photographs.faults) == 3
    assert all(any(fault.startswith(name) for fault in photographs.faults) for name in ("broken", "small", "link"))
    rng = np.random.RandomState(0)
    images = [photographs.draw(rng, 40) for _ in range(12)]
    assert {image.size for image in images} == {(40, 40)}
    assert "cut.png" in caplog.text
    assert len(photographs.faults) == 4


def test_folder_without_photographs_is_named(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match="Expected photographs for backgrounds in .*, but found none"):
        CountScenes("train", objects="shapes", backgrounds=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Expected a folder at"):
        CountScenes("train", objects="shapes", backgrounds=str(tmp_path / "nowhere"))
    cut = photograph(tmp_path, "cut.png")
    cut.write_bytes(cut.read_bytes()[:200])
    with pytest.raises(ValueError, match="that can be decoded, but not one of 1 can: cut.png"):
        Photographs(str(tmp_path)).draw(np.random.RandomState(0), 40)
