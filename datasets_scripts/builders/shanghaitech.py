"""
ShanghaiTech: crowds, a point a head. Part A is from the web, part B from streets in Shanghai.

The folder has the authors' layout: `part_A_final/` and `part_B_final/` (in some copies `part_A/` and
`part_B/`), each with `train_data/` and `test_data/` of `images/IMG_n.jpg` and `ground_truth/GT_IMG_n.mat` (in some
copies `ground-truth/`).

    load_dataset("shanghaitech", "part_A", data_dir="ShanghaiTech")   # 300 images for training, 182 for testing
    load_dataset("shanghaitech", "part_B", data_dir="ShanghaiTech")   # 400 and 316

The points are kept as published; some images have a point twice or more often, which `note` states. A split that is
missing is left out.
"""

import re
from pathlib import Path
from typing import Any

import datasets

from ..files.checks import checked_size, existing_folder
from ..files.images import IMAGE_SUFFIXES
from ..formats.findings import Findings
from ..formats.mat import read_mat_points
from ..schema import density_features, density_row
from .base import CountingSetBuilder, CountingSetConfig
from .checks import entry_if_there, fix_points, record


# The folders of the parts in common copies.
_PLACES = ("", "ShanghaiTech", "shanghaitech", "ShanghaiTech_Crowd_Counting_Dataset")

_CITATION = """\
@inproceedings{zhang2016single,
  title     = {Single-Image Crowd Counting via Multi-Column Convolutional Neural Network},
  author    = {Zhang, Yingying and Zhou, Desen and Chen, Siqin and Gao, Shenghua and Ma, Yi},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2016}
}"""


class ShanghaiTechBuilder(CountingSetBuilder):
    """`shanghaitech` for `datasets`; see the top of this file, and [`CountingSetConfig`] for the options."""

    BUILDER_CONFIGS = [
        CountingSetConfig(name="part_A", description="Part A: dense crowds, from the web."),
        CountingSetConfig(name="part_B", description="Part B: sparser crowds, from streets in Shanghai."),
    ]
    TITLE = "ShanghaiTech"
    WHERE_TO_GET = (
        "https://github.com/desenzhou/ShanghaiTechDataset has the links to it (part_A_final and part_B_final)."
    )
    PUBLISHED_SIZES = {"part_A": {"train": 300, "test": 182}, "part_B": {"train": 400, "test": 316}}

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=f"ShanghaiTech, {self.config.name.replace('_', ' ')}: crowds, a point a head.",
            features=density_features(),
            citation=_CITATION,
            homepage="https://github.com/desenzhou/ShanghaiTechDataset",
            license="for research",
        )

    def read_folder(self, folder: Path, findings: Findings) -> dict[str, list[dict[str, Any]]]:
        """Read the annotations, and the sizes of the images."""
        part = self.config.name
        names = [f"{part}_final", part, f"{part.lower()}_final", part.lower()]
        part_folder = self.find(folder, names, _PLACES)
        splits = {}
        for split in ("train", "test"):
            place = entry_if_there(part_folder, [f"{split}_data", split], [""])
            if place is None:
                findings.add("Missing splits", split, left_out=True)
            else:
                splits[split] = self._rows(place, split, findings)
        if not splits:
            self.find(part_folder, ["train_data", "test_data"])
        return splits

    def _rows(self, place: Path, split: str, findings: Findings) -> list[dict[str, Any]]:
        image_folder = existing_folder(self.find(place, ["images"]))
        truth = existing_folder(self.find(place, ["ground_truth", "ground-truth", "ground_truth_mat"]))
        images = {entry.stem: entry for entry in image_folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES}
        annotations = {entry.stem.removeprefix("GT_"): entry for entry in truth.glob("*.mat")}
        for what, missing in (
            (f"an annotation in {split}/{truth.name} for each image", set(images) - set(annotations)),
            (f"an image in {split}/{image_folder.name} for each annotation", set(annotations) - set(images)),
        ):
            self.handle_missing(place.parent, what, sorted(missing, key=_natural), findings)
        if not images:
            raise ValueError(f"Expected images in {image_folder}, but there is none. {self.WHERE_TO_GET}")
        rows = []
        for stem in sorted(set(images) & set(annotations), key=_natural):
            where = str(annotations[stem])
            size = checked_size(images[stem], None, None, where)
            points, stated = read_mat_points(annotations[stem])
            points, odd = fix_points(points, size, where)
            if stated is not None and stated != len(points):
                odd.append(("Images whose annotation states another number", f"the annotation states {stated}"))
            image_id = f"{self.config.name}/{split}/{stem}"
            note = record(odd, stem, findings)
            rows.append(density_row(str(images[stem]), image_id, "people", points, note=note))
        return rows


def _natural(name: str) -> list[Any]:
    """Sort IMG_2 before IMG_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
