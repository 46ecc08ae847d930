"""
CARPK and PUCPR+: cars on parking places, a box a car, from a drone and from a high building.

The folder has the authors' layout: `CARPK_devkit/data/` or `PUCPR+_devkit/data/` with `Images/`,
`Annotations/*.txt` (a car a line: x0 y0 x1 y1 and the class, which is 1) and `ImageSets/{train,test}.txt`. `data_dir`
is the folder above them, or one of these levels.

    load_dataset("carpk", data_dir="datasets")            # 989 images for training, 459 for testing
    load_dataset("carpk", "pucpr", data_dir="datasets")   # 100 and 25
"""

from pathlib import Path
from typing import Any

import datasets

from ..files.checks import checked_size, number_in, path_inside, read_text
from ..files.images import IMAGE_SUFFIXES
from ..formats.findings import Findings
from ..formats.voc import read_split_list
from ..schema import density_features, density_row
from .base import CountingSetBuilder, CountingSetConfig
from .checks import fix_boxes, middles, record


_DEVKITS = {"carpk": "CARPK_devkit", "pucpr": "PUCPR+_devkit"}
_TITLES = {"carpk": "CARPK: cars seen from a drone", "pucpr": "PUCPR+: cars seen from a high building"}
# The class of a car, which is the only one.
_CAR = "1"

_CITATION = """\
@inproceedings{hsieh2017drone,
  title     = {Drone-based Object Counting by Spatially Regularized Regional Proposal Networks},
  author    = {Hsieh, Meng-Ru and Lin, Yen-Liang and Hsu, Winston H.},
  booktitle = {Proceedings of the IEEE International Conference on Computer Vision (ICCV)},
  year      = {2017}
}"""


class CARPKBuilder(CountingSetBuilder):
    """`carpk` for `datasets`; see the top of this file, and [`CountingSetConfig`] for the options."""

    BUILDER_CONFIGS = [
        CountingSetConfig(name="carpk", description="CARPK, from a drone."),
        CountingSetConfig(name="pucpr", description="PUCPR+, from a high building."),
    ]
    DEFAULT_CONFIG_NAME = "carpk"
    TITLE = "CARPK and PUCPR+"
    WHERE_TO_GET = "https://lafi.github.io/LPN/ has it, on request, for academic research only."
    PUBLISHED_SIZES = {"carpk": {"train": 989, "test": 459}, "pucpr": {"train": 100, "test": 25}}

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=f"{_TITLES[self.config.name]}, on parking places; a box a car. The points are the middles of "
            "the boxes.",
            features=density_features(),
            citation=_CITATION,
            homepage="https://lafi.github.io/LPN/",
            license="for academic research only",
        )

    def read_folder(self, folder: Path, findings: Findings) -> dict[str, list[dict[str, Any]]]:
        """Read the annotations, and the sizes of the images."""
        kit = _DEVKITS[self.config.name]
        places = ("", "data", kit, f"{kit}/data", f"datasets/{kit}/data")
        lists = self.find(folder, ["ImageSets"], places)
        data = lists.parent
        # Both sets have one layout.
        other = next(name for name in _DEVKITS.values() if name != kit)
        if other in data.relative_to(folder.parent).parts:
            raise ValueError(
                f"Expected {kit} in {folder}, but {data} is of {other}. Name the other folder, or the other "
                "configuration: load_dataset('carpk', 'pucpr', ...) is PUCPR+."
            )
        names = {split: read_split_list(lists / f"{split}.txt") for split in ("train", "test")}
        if both := sorted(set(names["train"]) & set(names["test"])):
            raise ValueError(f"Expected no image in both splits of {lists}, but {both[0]!r} is. Remove it from one.")
        images = {
            entry.stem: entry
            for entry in sorted(self.find(data, ["Images"]).iterdir())
            if entry.suffix.lower() in IMAGE_SUFFIXES
        }
        annotations = self.find(data, ["Annotations"])
        for stem in sorted(set(images) - {stem for listed in names.values() for stem in listed}):
            findings.add("Images in no split", stem, left_out=True)
        return {split: self._rows(listed, images, annotations, findings, split) for split, listed in names.items()}

    def _rows(
        self, names: list[str], images: dict[str, Path], annotations: Path, findings: Findings, split: str
    ) -> list[dict[str, Any]]:
        files = {stem: path_inside(annotations, f"{stem}.txt", f"an image of {split}") for stem in names}
        without_image = [stem for stem in names if stem not in images]
        unannotated = [stem for stem in names if stem in images and not files[stem].is_file()]
        for what, missing in (("an image in Images", without_image), ("an annotation in Annotations", unannotated)):
            self.handle_missing(
                annotations.parent, f"{what} for each name in ImageSets/{split}.txt", missing, findings
            )
        rows = []
        for stem in names:
            if stem in without_image or stem in unannotated:
                continue
            size = checked_size(images[stem], None, None, str(files[stem]))
            boxes, odd = fix_boxes(_read_boxes(files[stem]), size, str(files[stem]))
            note = record(odd, stem, findings)
            rows.append(density_row(str(images[stem]), stem, "cars", middles(boxes, size), boxes=boxes, note=note))
        return rows


def _read_boxes(file: Path) -> list[list[float]]:
    boxes = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        where = f"line {number} of {file}"
        if len(cells) != 5 or cells[4] != _CAR:
            raise ValueError(
                f"Expected x0 y0 x1 y1 and the class {_CAR} in {where}, but got {line!r}. Correct the annotation."
            )
        boxes.append([number_in(cell, where) for cell in cells[:4]])
    return boxes
