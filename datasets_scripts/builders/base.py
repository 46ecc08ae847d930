"""
What the builders of counting sets share that read a folder.

A set is read as its authors lay it out, in the folder that `data_dir` names. Everything is read and checked before the
first row is written, except the pixels: what cannot be right raises an error that names it, what is odd is counted in
`dataset_info`'s description, in the log and in the column `note` of its row, and what is left out is listed there too.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ..files.checks import existing_folder
from ..schema import as_stored


logger = logging.getLogger(__name__)

# Rows that one process takes at a time, where there are several; also the size of a part that a build writes at once.
SHARD_LENGTH = 100


class Findings:
    """What is odd about a source, with examples, in the order in which it was found."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}
        self._left_out: set[str] = set()

    def add(self, what: str, example: str, left_out: bool = False) -> None:
        """
        Take something down.

        Args:
            what (`str`): What it is, in the plural: "Points outside their image, moved to its edge".
            example (`str`): Where.
            left_out (`bool`, *optional*, defaults to `False`): Whether something is missing from the rows for it.
        """
        self._found.setdefault(what, []).append(example)
        if left_out:
            self._left_out.add(what)

    @property
    def has_left_out(self) -> bool:
        """`bool`: Whether something is missing from the rows."""
        return bool(self._left_out)

    def lines(self, num_examples: int = 5, every_left_out: bool = True) -> list[str]:
        """
        Say it in a few lines.

        Args:
            num_examples (`int`, *optional*, defaults to 5):
                How many places to name for each finding.
            every_left_out (`bool`, *optional*, defaults to `True`):
                Whether to name every place of what was left out, however many they are.

        Returns:
            `list[str]`: A line for each finding.
        """
        return [
            _finding(what, examples, None if every_left_out and what in self._left_out else num_examples)
            for what, examples in self._found.items()
        ]

    def long_lines(self, num_examples: int = 5) -> list[str]:
        """
        Name every place of what was left out and has more places than are named elsewhere.

        Args:
            num_examples (`int`, *optional*, defaults to 5): How many are named elsewhere.

        Returns:
            `list[str]`: A line for each such finding.
        """
        return [
            _finding(what, examples, None)
            for what, examples in self._found.items()
            if what in self._left_out and len(examples) > num_examples
        ]


def _finding(what: str, examples: Sequence[str], limit: int | None) -> str:
    shown = examples[:limit]
    rest = ", ..." if len(shown) < len(examples) else ""
    return f"{what}: {len(examples):,} ({', '.join(shown)}{rest})."


def folder_fingerprint(folder: str | os.PathLike[str]) -> str:
    """
    Tell one state of a folder from another, by its files' names, sizes and times of change.

    Args:
        folder (`str` or `os.PathLike`): The folder; hidden files and folders in it do not matter.

    Returns:
        `str`: A hash; also for a folder that is not there.
    """
    digest = hashlib.sha256()
    for parent, folders, files in os.walk(os.path.expanduser(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                path = os.path.join(parent, name)
                # Of a link that leads nowhere, the link itself.
                status = os.stat(path, follow_symlinks=os.path.exists(path))
                digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@dataclass
class CountingSetConfig(datasets.BuilderConfig):
    """
    What to read.

    Args:
        data_dir (`str`):
            The folder with the set as its authors distribute it.
        missing (`str`, *optional*, defaults to `"error"`):
            What to do where an image or its annotation is missing: `"error"` raises and names them, `"leave_out"`
            goes on without them and lists them in the description.
    """

    version: datasets.Version | str | None = "1.0.0"
    missing: str = "error"

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """
        Name the cache after everything that the rows depend on: the options, and the state of the folder.

        Args:
            config_kwargs (`dict[str, Any]`): The options that were given.
            custom_features (`datasets.Features`, *optional*): Columns that were given.

        Returns:
            `str`: A name for the configuration.
        """
        options = dict(config_kwargs)
        if self.data_dir is not None:
            options["folder_fingerprint"] = folder_fingerprint(self.data_dir)
        return super().create_config_id(options, custom_features=custom_features)


class CountingSetBuilder(datasets.GeneratorBasedBuilder):
    """
    A builder that reads the folder of a counting set.

    A subclass says where to get the set, describes it in `_info`, and reads it in `read_folder`.
    """

    BUILDER_CONFIG_CLASS = CountingSetConfig
    # Where the set is to be had, as a sentence.
    WHERE_TO_GET = "Get the set from its authors."
    # What is known to be wrong with the published set and can be seen by nobody but people.
    KNOWN_FAULTS: tuple[str, ...] = ()
    # Whether the configurations read one folder in different ways, only one of which is right.
    IS_ONE_OF_ITS_CONFIGS = False
    # What `missing` may say.
    MISSING_CHOICES: tuple[str, ...] = ("error", "leave_out")
    # How many images its authors say that each split has, for configurations of which that is known.
    PUBLISHED_SIZES: dict[str, dict[str, int]] = {}

    def read_folder(self, folder: Path, findings: Findings) -> dict[str, list[dict[str, Any]]]:
        """
        Read the set.

        Args:
            folder (`Path`): Where it lies.
            findings ([`Findings`]): Takes down what is odd.

        Returns:
            `dict[str, list[dict[str, Any]]]`: The rows of each split, which [`finish_row`] completes.
        """
        raise NotImplementedError

    def default_folder(self) -> Path | None:
        """
        Say where the set is if nobody says it.

        Returns:
            `Path` or `None`: The folder; by default there is none.
        """
        return None

    def finish_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """
        Load what is too large to be kept for all rows at once.

        Args:
            row (`dict[str, Any]`): A row of `read_folder`.

        Returns:
            `dict[str, Any]`: The row as it is written.
        """
        return row

    def handle_missing(self, folder: Path, what: str, names: Sequence[str], findings: Findings) -> None:
        """
        Raise because of what is missing, or take it down, as `missing` says.

        Args:
            folder (`Path`): Where the set lies.
            what (`str`): What there should be, without the folder's name.
            names (`Sequence[str]`): Of what; nothing happens where there are none.
            findings ([`Findings`]): Takes down what is left out.

        Raises:
            FileNotFoundError: If something is missing and `missing` is `"error"`.
        """
        if not names:
            return
        if self.config.missing == "error":
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise FileNotFoundError(
                f"Expected {what} in {folder}, but {len(names):,} are missing: {shown}. {self.WHERE_TO_GET} "
                "To go on without them, pass missing='leave_out'."
            )
        kept = "Kept" if self.config.missing == "keep" else "Left out"
        for name in names:
            findings.add(f"{kept}, missing {what}", name, left_out=True)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        if self.config.name not in self.builder_configs:
            # `datasets` makes one up where none is named and there is no default.
            known = " or ".join(map(repr, self.builder_configs))
            raise ValueError(
                f"Expected the name of a configuration, but got none. Choose {known}: "
                f"load_dataset({self.dataset_name!r}, {next(iter(self.builder_configs))!r}, ...)."
            )
        if self.config.missing not in self.MISSING_CHOICES:
            raise ValueError(
                f"Expected missing to be one of {', '.join(self.MISSING_CHOICES)}, but got {self.config.missing!r}. "
                "Choose one."
            )
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
        # A list is what `datasets` divides among processes.
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
        lines = []
        for name, rows in splits.items():
            num_images = len({row["image_id"] for row in rows})
            of = (
                f" of the published {size:,}" if (size := self._published_size(name)) not in (None, num_images) else ""
            )
            counted = f", {sum(row['count'] for row in rows):,} objects" if "count" in self.info.features else ""
            lines.append(f"{name}: {num_images:,}{of} images{counted}.")
        level = logging.WARNING if findings.has_left_out else logging.INFO
        logger.log(level, "\n".join([self.dataset_name, *lines, *findings.lines(every_left_out=False)]))
        self.info.description = "\n".join([self._info().description, "", *lines, *findings.lines()])

    def _published_size(self, split: str) -> int | None:
        return self.PUBLISHED_SIZES.get(self.config.name, {}).get(split)
