"""Counting sets in their authors' layouts, small, and what loads and compares them."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

import count_clip  # noqa: F401  # registers the sets


Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`datasets.load_dataset` with a cache for each test."""
    datasets.disable_progress_bars()

    def load_dataset(name: str, config: str | None = None, **options: Any) -> Any:
        return datasets.load_dataset(name, config, cache_dir=str(tmp_path / "cache"), **options)

    return load_dataset


# Tests cannot import these functions from a package, so fixtures return them.


@pytest.fixture(name="plain_rows")
def _plain_rows() -> Callable[..., list[dict[str, Any]]]:
    return plain_rows


@pytest.fixture(name="save_image")
def _save_image() -> Callable[..., None]:
    return save_image


@pytest.fixture(name="write_json")
def _write_json() -> Callable[..., None]:
    return write_json


@pytest.fixture(name="change_json")
def _change_json() -> Callable[..., None]:
    return change_json


@pytest.fixture(name="save_mat")
def _save_mat() -> Callable[..., None]:
    return save_mat


def plain_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows that can be compared: images as their size and pixels."""
    plain = []
    for row in rows:
        image = row["image"]
        shown = None if image is None else (image.size, image.mode, image.tobytes())
        plain.append({**row, "image": shown})
    return plain


def save_image(path: Path, size: tuple[int, int] = (40, 30), value: int = 128, mode: str = "RGB") -> None:
    """Save an image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, value // 2, 255 - value)).save(path)


# FSC-147


_OF_SHELLS = [[0, 0, 9, 9], [40, 30, 60, 40], [4, 5, 8, 8]]
_OF_DONUTS = [[0, 0, 4, 4], [18, 18, 22, 22], [0, 0, 2, 2]]
# name: (class, split, size, points, examples as x0, y0, x1, y1)
FSC147_IMAGES: dict[str, tuple] = {
    "2.jpg": (
        "sea shells",
        "test",
        (60, 40),
        [[5.5, 6.25], [50, 39.5]],
        [[0, 0, 9, 9], [40, 30, 60, 40], [4, 5, 8, 8]],
    ),
    "7.jpg": (
        "donuts tray",
        "train",
        (50, 40),
        [[1, 1], [20, 20], [1, 1]],
        [[0, 0, 4, 4], [18, 18, 22, 22], [0, 0, 2, 2]],
    ),
    "9.jpg": ("pens", "train", (48, 40), [[7, 8]], [[30, 30, 40, 38]] * 2 + [[5, 5, 9, 9], [6, 6, 9, 9]]),
    "11.jpg": ("books", "val", (40, 40), [[40.5, -0.5], [3, 3]], [[2, 2, 5, 5], [36, 0, 40.5, 4], [1, 1, 4, 4]]),
    "12.jpg": ("chairs", "val", (44, 40), [[9, 9]], [[8, 8, 10, 10]] * 3),
}


@pytest.fixture
def fsc147(tmp_path: Path) -> Path:
    """FSC-147 with five images and, in small, the errors of the real one."""
    folder = tmp_path / "FSC147"
    annotations: dict[str, Any] = {}
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": [], "val_coco": ["12.jpg"], "test_coco": ["2.jpg"]}
    descriptions: dict[str, Any] = {}
    for name, (label, split, size, points, examples) in FSC147_IMAGES.items():
        save_image(folder / "images_384_VarV2" / name, size, value=len(splits[split]) * 9 + 20)
        splits[split].append(name)
        annotations[name] = {
            "H": size[1] * 2,
            "W": size[0] * 2,
            "box_examples_coordinates": [[[x0, y0], [x0, y1], [x1, y1], [x1, y0]] for x0, y0, x1, y1 in examples],
            "box_examples_path": [f"/elsewhere/{name}_{place}.jpg" for place in range(len(examples))],
            "points": points,
            "ratio_h": 0.5,
            "ratio_w": 0.5,
        }
        descriptions[name] = {"data_split": split, "text_description": f"the {label}"}
    descriptions["7.jpg"]["text_description"] = "the the donuts in the tray"
    classes = {name: row[0] for name, row in FSC147_IMAGES.items()} | {"99.jpg": "crows"}
    (folder / "ImageClasses_FSC147.txt").write_text("".join(f"{name}\t{label}\n" for name, label in classes.items()))
    write_json(folder / "annotation_FSC147_384.json", annotations)
    write_json(folder / "Train_Test_Val_FSC_147.json", splits)
    write_json(folder / "FSC-147-D.json", descriptions)
    return folder


def write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content))


def change_json(file: Path, change: Callable[[Any], Any]) -> None:
    """Change what a json file holds, in place."""
    content = json.loads(file.read_text())
    change(content)
    write_json(file, content)


# CARPK and PUCPR+


@pytest.fixture
def carpk(tmp_path: Path) -> Path:
    """CARPK and PUCPR+ with three and two images, with the devkits in one folder."""
    root = tmp_path / "datasets"
    kits: dict[str, dict[str, dict[str, list[str]]]] = {
        "CARPK_devkit": {
            "train": {"20160331_NTU_00001": ["2 3 12 9 1", "20 4 30 11 1"], "20160331_NTU_00002": []},
            "test": {"20161030_GF2_00104": ["0 0 40 30 1"]},
        },
        "PUCPR+_devkit": {
            "train": {"2012-09-11_15_53_00": ["1 1 3 3 1"]},
            "test": {"2012-12-07_17_17_11": ["2 2 4 9 1"]},
        },
    }
    for kit, splits in kits.items():
        data = root / kit / "data"
        for folder in ("ImageSets", "Annotations"):
            (data / folder).mkdir(parents=True)
        for split, images in splits.items():
            (data / "ImageSets" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in images))
            for stem, lines in images.items():
                save_image(data / "Images" / f"{stem}{'.png' if kit.startswith('CARPK') else '.jpg'}")
                (data / "Annotations" / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines))
    return root


# ShanghaiTech


def save_mat(file: Path, points: list, number: int | None = None) -> None:
    """Save points as ShanghaiTech's authors do."""
    savemat = pytest.importorskip("scipy.io").savemat
    structure = np.empty((1, 1), dtype=[("location", object), ("number", object)])
    structure["location"][0, 0] = np.array(points, dtype=float).reshape(-1, 2)
    structure["number"][0, 0] = np.array([[len(points) if number is None else number]], dtype=np.uint16)
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = structure
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {"image_info": cell})


@pytest.fixture
def shanghaitech(tmp_path: Path) -> Path:
    """ShanghaiTech: part A with the authors' names, part B with those of some copies, without a test split."""
    root = tmp_path / "ShanghaiTech"
    places = {
        "part_A_final/train_data": ("ground_truth", {"IMG_1": [[1, 2], [30.5, 8]], "IMG_10": [], "IMG_2": [[3, 3]]}),
        "part_A_final/test_data": ("ground_truth", {"IMG_1": [[9, 9], [9, 9], [4, 4]]}),
        "part_B/train_data": ("ground-truth", {"IMG_1": [[0.25, 0.001]]}),
    }
    for place, (truth, images) in places.items():
        for stem, points in images.items():
            save_image(root / place / "images" / f"{stem}.jpg", mode="L" if stem == "IMG_2" else "RGB")
            save_mat(root / place / truth / f"GT_{stem}.mat", points)
    return root


# CountBench


COUNTBENCH_ENTRIES = [
    {"image_url": "https://example.com/a/three-light-bulbs.jpg?itok=9", "text": "three light bulbs", "number": 3},
    {"image_url": "http://example.com/b/4657437.jpg", "text": "Set of eight arrows", "number": 8},
    {"image_url": "https://example.com/c/ten%20cats.png", "text": "Ten cats on a lawn", "number": 10},
    {"image_url": "https://example.com/x/th", "text": "Two dogs and three birds", "number": 3},
    {"image_url": "https://example.com/x/th", "text": "five spoons", "number": 5},
]


@pytest.fixture
def countbench(tmp_path: Path) -> Path:
    """CountBench with five captions, and images for three of them, named by their index."""
    folder = tmp_path / "CountBench"
    for place in (0, 1, 3):
        save_image(folder / "images" / f"{place:03d}.jpg", value=place * 40)
    write_json(folder / "CountBench.json", COUNTBENCH_ENTRIES)
    return folder
