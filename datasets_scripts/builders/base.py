"""
The base of the builders that read the folder of a counting set.

A set is read as its authors distribute it, from the folder `data_dir`. Everything but the pixels is read and checked
before the first row is written: an annotation that cannot be correct raises an error that names it, unusual ones are
counted in `dataset_info`'s description, in the log and in the column `note` of their row, and everything that is left
out is listed there, too.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

from ..files.checks import existing_folder, those_there
from ..formats.findings import Findings
from ..schema import as_stored
from .checks import entry_if_there


logger = logging.getLogger(__name__)

# Rows of one shard, which one process writes.
SHARD_LENGTH = 100


def folder_fingerprint(folder: str | os.PathLike[str]) -> str:
    """
    Hash the state of a folder, which need not exist: the names, sizes and times of change of its files but hidden
    ones.
    """
    digest = hashlib.sha256()
    for parent, folders, files in os.walk(os.path.expanduser(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                path = os.path.join(parent, name)
                # Of a broken link, the link itself.
                status = os.stat(path, follow_symlinks=os.path.exists(path))
                digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@dataclass
class CountingSetConfig(datasets.BuilderConfig):
    """
    The options of a builder.

    Args:
        data_dir (`str`): The folder with the set as its authors distribute it.
        missing (`str`, *optional*, defaults to `"error"`): `"error"` raises for missing images or annotations and
            names them, `"leave_out"` continues without them and lists them in the description.
    """

    version: datasets.Version | str | None = "1.0.0"
    missing: str = "error"

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """Name the cache after the options and the state of the folder."""
        options = dict(config_kwargs)
        if self.data_dir is not None:
            options["folder_fingerprint"] = folder_fingerprint(self.data_dir)
        return super().create_config_id(options, custom_features=custom_features)


class CardBuilder(datasets.GeneratorBasedBuilder):
    """A builder with the contents of its card, which `count-clip data build` writes."""

    TITLE = "A counting set"
    # Whether the configurations are ways to read one folder, only one of which is correct.
    IS_ONE_OF_ITS_CONFIGS = False
    # What is unusual about the set, once it is read.
    findings = Findings()

    def source(self) -> str:
        """Describe the source of the set."""
        raise NotImplementedError

    def known_faults(self) -> Sequence[str]:
        """List known errors of the set that only a person can see, a line each."""
        return ()

    def draw_examples(self) -> Image.Image | None:
        """Draw an image with examples; by default there is none."""
        return None


class CountingSetBuilder(CardBuilder):
    """
    A builder that reads the folder of a counting set.

    A subclass defines the class attributes, describes the set in `_info`, and reads it in `read_folder`.
    """

    BUILDER_CONFIG_CLASS = CountingSetConfig
    # A sentence: the URL of the set.
    WHERE_TO_GET = "Get the set from its authors."
    # The values of `missing`.
    MISSING_CHOICES: tuple[str, ...] = ("error", "leave_out")
    # The published number of images of each split, by configuration.
    PUBLISHED_SIZES: dict[str, dict[str, int]] = {}

    def read_folder(self, folder: Path, findings: Findings) -> dict[str, list[dict[str, Any]]]:
        """Read the rows of each split, which [`finish_row`] completes; add what is unusual to the findings."""
        raise NotImplementedError

    def source(self) -> str:
        """Describe the source of the set."""
        return f"From the set as its authors distribute it: {self.WHERE_TO_GET}"

    def default_folder(self) -> Path | None:
        """Return the folder of the set if `data_dir` is not given; by default there is none."""
        return None

    def finish_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Complete a row of `read_folder` with what is too large to be in memory for all rows at once."""
        return row

    def check_choice(self, option: str, choices: Sequence[str]) -> None:
        """Raise `ValueError` if an option has none of its values."""
        value = getattr(self.config, option)
        if value not in choices:
            raise ValueError(f"Expected {option} to be one of {', '.join(choices)}, but got {value!r}. Choose one.")

    def find(self, folder: Path, names: Sequence[str], places: Sequence[str] = ("",)) -> Path:
        """
        Find a file or folder of the set, which has several names (the authors' first) and places in copies of the set.

        `places` are folders in `folder` to search, where `""` is `folder` itself.

        Raises:
            FileNotFoundError: If there is none.
        """
        if found := entry_if_there(folder, names, places):
            return found
        others = f" (or in {', '.join(place for place in places if place)} there)" if any(places) else ""
        raise FileNotFoundError(
            f"Expected {' or '.join(names)} in {folder}{others}, but there is none ({those_there(folder, '*')}). "
            f"{self.WHERE_TO_GET}"
        )

    def handle_missing(self, folder: Path, what: str, names: Sequence[str], findings: Findings) -> None:
        """
        Raise `FileNotFoundError` for missing files, or add them to the findings, as the option `missing` states.

        `what` is expected in the folder (without the folder's name), and `names` are the missing ones, if any.
        """
        if names and self.config.missing == "error":
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise FileNotFoundError(
                f"Expected {what} in {folder}, but {len(names):,} are missing: {shown}. {self.WHERE_TO_GET} "
                "To continue without them, pass missing='leave_out'."
            )
        kept = "Kept" if self.config.missing == "keep" else "Left out"
        for name in names:
            findings.add(f"{kept}, missing {what}", name, left_out=True)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        if self.config.name not in self.builder_configs:
            # `datasets` makes one up if none is named and there is no default.
            known = " or ".join(map(repr, self.builder_configs))
            raise ValueError(
                f"Expected the name of a configuration, but got none. Choose {known}: "
                f"load_dataset({self.dataset_name!r}, {next(iter(self.builder_configs))!r}, ...)."
            )
        self.check_choice("missing", self.MISSING_CHOICES)
        data_dir = self.default_folder() if self.config.data_dir is None else self.config.data_dir
        if data_dir is None:
            raise ValueError(
                f"Expected data_dir, the folder with {self.dataset_name} as its authors distribute it, but got none. "
                f"{self.WHERE_TO_GET} Then load_dataset({self.dataset_name!r}, data_dir='FOLDER')."
            )
        try:
            folder = existing_folder(data_dir)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error} {self.WHERE_TO_GET}") from error
        findings = Findings()
        splits = {name: rows for name, rows in self.read_folder(folder, findings).items() if rows}
        if not splits:
            raise ValueError(
                f"Expected images in {folder}, but all of them were left out: {' '.join(findings.lines())}"
            )
        self._describe(splits, findings)
        # `datasets` divides a list among processes.
        return [
            datasets.SplitGenerator(
                name=name,
                gen_kwargs={
                    "shards": [rows[start : start + SHARD_LENGTH] for start in range(0, len(rows), SHARD_LENGTH)]
                },
            )
            for name, rows in splits.items()
        ]

    def _generate_examples(
        self, shards: Sequence[Sequence[dict[str, Any]]]
    ) -> Iterator[tuple[datasets.builder.Key, dict[str, Any]]]:
        for shard, rows in enumerate(shards):
            for place, row in enumerate(rows):
                yield datasets.builder.Key(shard, place), as_stored(self.finish_row(row), self.info.features)

    def _describe(self, splits: dict[str, list[dict[str, Any]]], findings: Findings) -> None:
        self.findings = findings
        published = self.PUBLISHED_SIZES.get(self.config.name, {})
        lines = []
        for name, rows in splits.items():
            num_images = len({row["image_id"] for row in rows})
            of = f" of the published {published[name]:,}" if published.get(name, num_images) != num_images else ""
            counted = f", {sum(row['count'] for row in rows):,} objects" if "count" in self.info.features else ""
            lines.append(f"{name}: {num_images:,}{of} images{counted}.")
        level = logging.WARNING if findings.has_left_out else logging.INFO
        logger.log(level, "\n".join([self.dataset_name, *lines, *findings.lines(every_left_out=False)]))
        self.info.description = "\n".join([self._info().description, "", *lines, *findings.lines()])
