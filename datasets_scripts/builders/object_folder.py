"""
Your own images with boxes or points as a counting set: Pascal VOC, COCO json, json lines or a table of points.

    load_dataset("object_folder", "voc", data_dir="cells", names={"RBC": "red blood cells"})
    load_dataset("object_folder", "coco", data_dir="pears", text="pears")
    load_dataset("object_folder", "points", data_dir="nuclei", text="cell nuclei")
    load_dataset("object_folder", "csv", data_dir="birds", text="birds")

`formats/folders.py` documents the layouts. The splits are those of the folder; "val" becomes "validation".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ..files.checks import path_inside
from ..files.images import IMAGE_SUFFIXES
from ..formats.coco import coco_splits
from ..formats.findings import Findings
from ..formats.folders import read_object_folder
from ..formats.points import points_splits
from ..formats.rows import Names, ObjectRows, polygon_features
from ..formats.voc import voc_splits
from ..schema import density_features
from .base import CountingSetBuilder, CountingSetConfig


_USUAL_SPLITS = ("train", "val", "valid", "validation", "test")


@dataclass
class ObjectFolderConfig(CountingSetConfig):
    """
    The options of the builder.

    Args:
        names (`Mapping[str, str]` or `Callable[[str], str]`, *optional*): The text for each name in the annotations,
            in the plural, or a function that returns it. Every image gives a row for each text.
        text (`str`, *optional*): Instead of `names`: one text for all objects.
        splits (`list[str]`, *optional*): The splits to read, by the folder's names; by default those of train, val and
            test that it has, or all annotations as "train" if it has none of these.
        images (`str`, *optional*): The folder of the images, inside `data_dir`; by default `JPEGImages` for `"voc"`
            and `images` for the others.
        empty_boxes (`str`, *optional*, defaults to `"drop"`): `"drop"`, `"keep"` or `"error"`: what to do with boxes
            of no width or no height.
        polygons (`bool`, *optional*, defaults to `False`): Whether to add a column `polygons` with the outlines of the
            objects; `"coco"` only.
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

    def source(self) -> str:
        """Describe the source of the set."""
        return f"From a folder of images and annotations, read as `{self.config.name}`."

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Images with annotated objects, read from a folder.",
            features=polygon_features() if self.config.polygons else density_features(),
        )

    def read_folder(self, folder: Path, findings: Findings) -> dict[str, list[dict[str, Any]]]:
        """Read every split of the folder."""
        format = self.config.name
        if self.config.polygons and format != "coco":
            raise ValueError(f"Expected polygons for 'coco' only, but got them for {format!r}. Leave them out.")
        options: dict[str, Any] = {} if self.config.images is None else {"images": self.config.images}
        if format in ("voc", "coco"):
            options["empty_boxes"] = self.config.empty_boxes
        if format == "coco":
            options["polygons"] = self.config.polygons
        read: dict[str, ObjectRows] = {}
        for split in self._splits(folder):
            name = "validation" if split in ("val", "valid") else split or "train"
            read[name] = read_object_folder(
                folder, format, split, names=_plain_names(self.config.names), text=self.config.text, **options
            )
            findings.extend(read[name].report.findings, prefix=f"{name}: ")
        images = path_inside(folder, options.get("images", "JPEGImages" if format == "voc" else "images"), "images")
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
            "points": lambda path: points_splits(path, ".jsonl"),
            "csv": lambda path: points_splits(path, ".csv"),
        }[self.config.name](folder)
        usual: list[str | None] = [split for split in _USUAL_SPLITS if split in there]
        return usual or ["train" if self.config.name == "points" else None]


def _plain_names(names: Names) -> Names:
    # `datasets` may pass a mapping of another type.
    return dict(names) if isinstance(names, Mapping) else names
