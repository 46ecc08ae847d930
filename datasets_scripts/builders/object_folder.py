"""
Anyone's images with boxes or points as a counting set: Pascal VOC, COCO json, json lines or a table of points.

    load_dataset("object_folder", "voc", data_dir="cells", names={"RBC": "red blood cells"})
    load_dataset("object_folder", "coco", data_dir="pears", text="pears")
    load_dataset("object_folder", "points", data_dir="nuclei", text="cell nuclei")
    load_dataset("object_folder", "csv", data_dir="birds", text="birds")

How each lies is written in `object_folders`. The splits are those that the folder has; "val" becomes "validation".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ..files.checks import path_inside
from ..files.images import IMAGE_SUFFIXES
from ..formats.coco import coco_splits
from ..formats.folders import read_object_folder
from ..formats.points import points_splits
from ..formats.rows import Names, ObjectRows, polygon_features
from ..formats.voc import voc_splits
from ..schema import density_features
from .base import CountingSetBuilder, CountingSetConfig, Findings


_USUAL_SPLITS = ("train", "val", "valid", "validation", "test")


@dataclass
class ObjectFolderConfig(CountingSetConfig):
    """
    What to read.

    Args:
        names (`Mapping[str, str]` or `Callable[[str], str]`, *optional*):
            What to say for each name in the annotations, in the plural, or a function that says it for any name. Every
            image gives a row for each text.
        text (`str`, *optional*):
            Instead of `names`: what to say for every object.
        splits (`list[str]`, *optional*):
            The parts to read, as the folder names them; by default those of train, val and test that it has, and
            without any of these all annotations as "train".
        images (`str`, *optional*):
            The folder of the images, inside `data_dir`; by default `JPEGImages` for `"voc"` and else `images`.
        empty_boxes (`str`, *optional*, defaults to `"drop"`):
            `"drop"`, `"keep"` or `"error"`: what to do with boxes of no width or no height.
        polygons (`bool`, *optional*, defaults to `False`):
            Whether to add a column `polygons` with the outlines of the objects; `"coco"` only.
    """

    names: Names = None
    text: str | None = None
    splits: list[str] | None = None
    images: str | None = None
    empty_boxes: str = "drop"
    polygons: bool = False


class ObjectFolderBuilder(CountingSetBuilder):
    """`object_folder` for `datasets`; see the top of this file, and [`ObjectFolderConfig`] for the options."""

    BUILDER_CONFIG_CLASS = ObjectFolderConfig
    BUILDER_CONFIGS = [
        ObjectFolderConfig(name="voc", description="Pascal VOC xml."),
        ObjectFolderConfig(name="coco", description="COCO json."),
        ObjectFolderConfig(name="points", description="Json lines with points."),
        ObjectFolderConfig(name="csv", description="A table of points."),
    ]
    IS_ONE_OF_ITS_CONFIGS = True
    WHERE_TO_GET = "It is your own folder: check the path and the configuration (voc, coco, points or csv)."

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Images with annotated objects, read from a folder.",
            features=polygon_features() if self.config.polygons else density_features(),
        )

    def read_folder(self, folder: Path, findings: Findings) -> dict[str, list[dict[str, Any]]]:
        """Read every split of the folder."""
        kind = self.config.name
        if self.config.polygons and kind != "coco":
            raise ValueError(f"Expected polygons for 'coco' only, but got them for {kind!r}. Leave them out.")
        options: dict[str, Any] = {} if self.config.images is None else {"images": self.config.images}
        if kind in ("voc", "coco"):
            options["empty_boxes"] = self.config.empty_boxes
        if kind == "coco":
            options["polygons"] = self.config.polygons
        read: dict[str, ObjectRows] = {}
        for split in self._splits(folder):
            name = "validation" if split in ("val", "valid") else split or "train"
            read[name] = read_object_folder(
                folder, kind, split, names=_plain_names(self.config.names), text=self.config.text, **options
            )
            for what, examples in read[name].report.findings().items():
                for example in examples:
                    findings.add(what, f"{name}: {example}", left_out="left out" in f"{what} {example}")
        images = path_inside(folder, options.get("images", "JPEGImages" if kind == "voc" else "images"), "images")
        annotated = {row["image"] for rows in read.values() for row in rows}
        for image in sorted(images.rglob("*")):
            if image.suffix.lower() in IMAGE_SUFFIXES and str(image) not in annotated:
                findings.add("Images without an annotation in these splits", image.name, left_out=True)
        return {name: list(rows) for name, rows in read.items()}

    def _splits(self, folder: Path) -> list[str | None]:
        if self.config.splits is not None:
            if not self.config.splits:
                raise ValueError("Expected splits to name one or more, but got none. Leave it out to read all.")
            return list(self.config.splits)
        there = {
            "voc": voc_splits,
            "coco": coco_splits,
            "points": lambda lies_in: points_splits(lies_in, ".jsonl"),
            "csv": lambda lies_in: points_splits(lies_in, ".csv"),
        }[self.config.name](folder)
        usual: list[str | None] = [split for split in _USUAL_SPLITS if split in there]
        return usual or ["train" if self.config.name == "points" else None]


def _plain_names(names: Names) -> Names:
    # `datasets` may hand a mapping on in a form of its own.
    return dict(names) if isinstance(names, Mapping) else names
