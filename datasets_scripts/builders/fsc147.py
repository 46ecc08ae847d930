"""
FSC-147: 6,135 images of 147 classes of objects, no class in two splits; a point an object and boxes around a few.

The folder has the authors' layout: `annotation_FSC147_384.json`, `Train_Test_Val_FSC_147.json` and
`ImageClasses_FSC147.txt`, the images in `images_384_VarV2/`, and optionally the density maps in
`gt_density_map_adaptive_384_VarV2/` and the descriptions in `FSC-147-D.json`.

    load_dataset("fsc147", data_dir="FSC147")                   # `text` is the class: "hot air balloons"
    load_dataset("fsc147", "descriptions", data_dir="FSC147")   # FSC-147-D: "the hot air balloons"
    load_dataset("fsc147", "coco", data_dir="FSC147")           # the images of COCO's classes in validation and test

The errors of the published files, which `dataset_info.description` counts with examples:

- 11 images have a class but are in no split (6,146 rows for 6,135 images); they are left out.
- Some images have four to six example boxes instead of three; all are kept, in their order.
- Some images have a point twice or more often. They are kept, because the published errors are measured against the
  number of points with them; `duplicate_points="drop"` counts each place once.
- Some example boxes contain no point.
- Some classes are singular or name a container ("skateboard", "donuts tray"); they are kept as published. The
  descriptions are better; one of them has "the the".
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import datasets

from ..files.checks import checked_size, existing_folder, list_of, parse_json, read_array, read_text, value_of
from ..formats.findings import Findings
from ..schema import density_features, density_row
from .base import CountingSetBuilder, CountingSetConfig
from .checks import REPEATED_POINTS, Oddities, entry_if_there, fix_boxes, fix_points, record


DUPLICATE_CHOICES = ("keep", "drop")

# The folders of the files in common copies.
_PLACES = ("", "FSC_147", "FSC147", "FSC-147", "FSC147_384_V2", "data", "annotations")
_CLASS_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_COCO_SPLITS = {"validation": "val_coco", "test": "test_coco"}

_CITATION = """\
@inproceedings{ranjan2021learning,
  title     = {Learning To Count Everything},
  author    = {Ranjan, Viresh and Sharma, Udbhav and Nguyen, Thu and Hoai, Minh},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2021}
}"""
_DESCRIPTIONS_CITATION = """
@article{amininaieni2023openworld,
  title   = {Open-world Text-specified Object Counting},
  author  = {Amini-Naieni, Niki and Amini-Naieni, Kiana and Han, Tengda and Zisserman, Andrew},
  journal = {arXiv preprint arXiv:2306.01851},
  year    = {2023}
}"""


@dataclass
class FSC147Config(CountingSetConfig):
    """
    The options of the builder.

    Args:
        duplicate_points (`str`, *optional*, defaults to `"keep"`): `"keep"` counts a repeated point as two, as the
            published errors do; `"drop"` as one.
        density_maps (`bool`, *optional*, defaults to `False`): Whether to add a column `density_map`, the authors' map
            of each image (rows of objects per pixel, float32 of the image's own size; large and slow). The trainers of
            this package make maps from the points instead.
    """

    duplicate_points: str = "keep"
    density_maps: bool = False


class FSC147Builder(CountingSetBuilder):
    """`fsc147` for `datasets`; see the top of this file, and [`FSC147Config`] for the options."""

    BUILDER_CONFIG_CLASS = FSC147Config
    BUILDER_CONFIGS = [
        FSC147Config(name="default", description="All splits; the class of an image is its text."),
        FSC147Config(name="descriptions", description="All splits; the description in FSC-147-D is the text."),
        FSC147Config(name="coco", description="The images of COCO's classes in validation and test."),
    ]
    DEFAULT_CONFIG_NAME = "default"
    TITLE = "FSC-147"
    WHERE_TO_GET = (
        "https://github.com/cvlab-stonybrook/LearningToCountEverything has annotation_FSC147_384.json, "
        "Train_Test_Val_FSC_147.json and ImageClasses_FSC147.txt in its folder data, and the links to the images "
        "and density maps in its README; https://github.com/niki-amini-naieni/CounTX has FSC-147-D.json."
    )
    PUBLISHED_SIZES = {
        "default": {"train": 3659, "validation": 1286, "test": 1190},
        "descriptions": {"train": 3659, "validation": 1286, "test": 1190},
        "coco": {"validation": 277, "test": 282},
    }

    def known_faults(self) -> Sequence[str]:
        """List known errors of the set that only a person can see, a line each."""
        return (
            'Some classes are singular or name a container ("skateboard", "donuts tray"); the descriptions of '
            "FSC-147-D are better.",
        )

    def _info(self) -> datasets.DatasetInfo:
        features = density_features()
        if self.config.density_maps:
            features["density_map"] = datasets.List(datasets.List(datasets.Value("float32")))
        with_descriptions = self.config.name == "descriptions"
        return datasets.DatasetInfo(
            description="FSC-147: images of 147 classes of objects, a point an object, boxes around a few. The "
            "splits share no class.",
            features=features,
            citation=_CITATION + (_DESCRIPTIONS_CITATION if with_descriptions else ""),
            homepage="https://github.com/cvlab-stonybrook/LearningToCountEverything",
            license="mit (annotations; the images are of various origins)",
        )

    def read_folder(self, folder: Path, findings: Findings) -> dict[str, list[dict[str, Any]]]:
        """Read the annotations, and the sizes of the images."""
        self.check_choice("duplicate_points", DUPLICATE_CHOICES)
        source = _Source(folder, self, findings)
        return {split: list(source.rows(names)) for split, names in source.splits.items()}

    def finish_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Read the density map."""
        if "density_map" not in row:
            return row
        row = dict(row)  # a stream may be read again
        shape = tuple(row.pop("map_shape"))
        return {**row, "density_map": read_array(row["density_map"], shape).tolist()}


class _Source:
    """The files of a folder, read and checked against each other."""

    def __init__(self, folder: Path, builder: FSC147Builder, findings: Findings) -> None:
        self.folder = folder
        self.builder = builder
        self.config = builder.config
        self.findings = findings
        self.annotation_file = self._find(folder, "annotation_FSC147_384.json")
        self.split_file = self._find(folder, "Train_Test_Val_FSC_147.json")
        self.class_file = self._find(folder, "ImageClasses_FSC147.txt")
        self.images = existing_folder(self._find(folder, "images_384_VarV2"))
        self.maps = self._find(folder, "gt_density_map_adaptive_384_VarV2") if self.config.density_maps else None
        self.classes = self._classes()
        self.annotations = self._read_json(self.annotation_file)
        self.descriptions = self._descriptions(folder)
        all_splits = self._splits()
        self.splits = self._chosen_splits(all_splits)
        self._compare_with(set(itertools.chain.from_iterable(all_splits.values())))

    def rows(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows of the images of a split."""
        for name in names:
            where = f"{self.annotation_file}, {name}"
            entry = self.annotations[name]
            image = self.images / name
            size = checked_size(image, None, None, where)
            points, odd = fix_points(list_of(entry, "points", where), size, where)
            boxes, odd_boxes = fix_boxes(self._examples(entry, where), size, f"{where}, example")
            points, odd = self._without_duplicates(points, odd)
            note = record(odd + odd_boxes, name, self.findings)
            self._check_examples(name, boxes, points)
            description = self.descriptions.get(name)
            text = description if self.config.name == "descriptions" else None
            row = density_row(
                str(image),
                PurePosixPath(name).stem,
                self.classes[name] if text is None else text,
                points,
                exemplar_boxes=boxes,
                description=description,
                note=note,
            )
            if self.maps is not None:
                # Loaded when the row is written: all maps take gigabytes.
                row |= {
                    "density_map": str(self.maps / f"{PurePosixPath(name).stem}.npy"),
                    "map_shape": (size[1], size[0]),
                }
            yield row

    def _find(self, folder: Path, name: str) -> Path:
        return self.builder.find(folder, [name], _PLACES)

    def _read_json(self, file: Path) -> dict[str, Any]:
        content = parse_json(file.read_bytes(), str(file))
        if not isinstance(content, dict) or not content:
            raise ValueError(
                f"Expected {file} to hold an entry for each image or split, but got {type(content).__name__} of "
                f"{len(content) if isinstance(content, (dict, list)) else 1}. Check that it is the right file."
            )
        return content

    def _classes(self) -> dict[str, str]:
        classes: dict[str, str] = {}
        for number, line in enumerate(read_text(self.class_file).splitlines(), start=1):
            if not line.strip():
                continue
            name, _, label = (cell.strip() for cell in line.partition("\t"))
            if not (name and label):
                raise ValueError(
                    f"Expected an image's name, a tab and its class in line {number} of {self.class_file}, but got "
                    f"{line!r}. Correct the file."
                )
            if classes.setdefault(name, label) != label:
                raise ValueError(
                    f"Expected one class for each image in {self.class_file}, but line {number} has {label!r} for "
                    f"{name}, after {classes[name]!r}. Remove one."
                )
        return classes

    def _splits(self) -> dict[str, list[str]]:
        """The lists of the split file, checked against each other."""
        content = self._read_json(self.split_file)
        lists = {key: list_of(content, key, self.split_file) for key in ("train", "val", "test")}
        lists |= {key: list_of(content, key, self.split_file) for key in ("val_coco", "test_coco") if key in content}
        for key, names in lists.items():
            if not names or not all(isinstance(name, str) for name in names):
                got = f"{names[:3]!r}" if names else "an empty list"
                raise ValueError(
                    f"Expected names of images in the split {key!r} of {self.split_file}, but got {got}. Check that "
                    "it is the right file."
                )
        for several in (("train", "val", "test"), ("val_coco",), ("test_coco",)):
            times = Counter(itertools.chain.from_iterable(lists.get(key, []) for key in several))
            if twice := [name for name, number in times.items() if number > 1]:
                raise ValueError(
                    f"Expected each image once in the splits {', '.join(several)} of {self.split_file}, but "
                    f"{twice[0]!r} occurs {times[twice[0]]} times. Remove all but one."
                )
        for key in ("val_coco", "test_coco"):
            if strays := set(lists.get(key, [])) - set(lists[key.removesuffix("_coco")]):
                raise ValueError(
                    f"Expected the images of {key!r} in {self.split_file} to be among those of "
                    f"{key.removesuffix('_coco')!r}, but {min(strays)!r} is not. Check that it is the right file."
                )
        return lists

    def _chosen_splits(self, lists: dict[str, list[str]]) -> dict[str, list[str]]:
        """The images of each split, without those that are left out."""
        wanted = _COCO_SPLITS if self.config.name == "coco" else _CLASS_SPLITS
        if absent := [key for key in wanted.values() if key not in lists]:
            raise ValueError(
                f"Expected the splits {', '.join(absent)} in {self.split_file}, but it has {', '.join(lists)}. "
                f"{self.builder.WHERE_TO_GET}"
            )
        chosen = {split: lists[key] for split, key in wanted.items()}
        known: list[tuple[str, Any]] = [
            (f"a class in {self.class_file.name} for each image of the splits", self.classes),
            (f"an annotation in {self.annotation_file.name} for each image of the splits", self.annotations),
            (f"the images of the splits in {self.images.name}", {entry.name for entry in self.images.iterdir()}),
        ]
        if self.config.name == "descriptions":
            known.append(("a description in FSC-147-D.json for each image of the splits", self.descriptions))
        if self.maps is not None:
            with_maps = {f"{entry.stem}.jpg" for entry in self.maps.iterdir()}
            known.append((f"a density map in {self.maps.name} for each image of the splits", with_maps))
        for what, names in known:
            missing = [name for split in chosen.values() for name in split if name not in names]
            self.builder.handle_missing(self.folder, what, missing, self.findings)
            chosen = {split: [name for name in listed if name in names] for split, listed in chosen.items()}
        return chosen

    def _descriptions(self, folder: Path) -> dict[str, str]:
        file = entry_if_there(folder, ["FSC-147-D.json"], _PLACES)
        if file is None:
            if self.config.name == "descriptions":
                self._find(folder, "FSC-147-D.json")
            return {}
        found = {}
        for name, entry in self._read_json(file).items():
            text = found[name] = value_of(entry, "text_description", str, f"{file}, {name}").strip()
            if any(word == following for word, following in itertools.pairwise(text.split())):
                self.findings.add("Descriptions with a word twice, as published", f"{name}: {text!r}")
        return found

    def _compare_with(self, listed: set[str]) -> None:
        """Find what belongs to no split."""
        for what, names in (("a class", self.classes), ("an annotation", self.annotations)):
            for name in names:
                if name not in listed:
                    self.findings.add(f"Images with {what} that are in no split", name, left_out=True)

    def _examples(self, entry: Any, where: str) -> list[list[float]]:
        """The boxes of the example corners."""
        boxes = []
        for place, corners in enumerate(list_of(entry, "box_examples_coordinates", where)):
            good = isinstance(corners, list) and len(corners) >= 2
            if not good or not all(isinstance(corner, list) and len(corner) == 2 for corner in corners):
                raise ValueError(
                    f"Expected the corners [x, y] of example {place} of {where}, but got {corners!r}. Correct the "
                    "annotation."
                )
            columns, rows = zip(*corners, strict=True)
            boxes.append([min(columns), min(rows), max(columns), max(rows)])
        return boxes

    def _check_examples(self, name: str, boxes: list[list[float]], points: list[list[float]]) -> None:
        if len(boxes) != 3:
            self.findings.add(f"Images with {len(boxes)} example boxes instead of three, all kept", name)
        for x0, y0, x1, y1 in boxes:
            if not any(x0 <= x <= x1 and y0 <= y <= y1 for x, y in points):
                self.findings.add("Example boxes that contain no point", name)

    def _without_duplicates(self, points: list[list[float]], odd: Oddities) -> tuple[list[list[float]], Oddities]:
        if self.config.duplicate_points == "keep":
            return points, odd
        different = [list(point) for point in dict.fromkeys(map(tuple, points))]
        if len(different) == len(points):
            return points, odd
        note = f"{len(points) - len(different)} of the {len(points)} points left out, the same as another"
        others = [one for one in odd if one[0] != REPEATED_POINTS]
        return different, [("Images with the same point more than once, counted once", note), *others]
