"""
CountBench: 540 captions that state a number from two to ten, 60 for each, with images from the web.

The authors publish `CountBench.json` (captions, numbers and URLs) and no images. Their sources:

- a folder or an archive (zip, tar) next to the JSON: `images/`, `images.zip`, `images.tar.gz`, ... or the one that
  `images` names. File names are the index of their row, from zero, with or without leading zeros (`007.jpg`; as
  img2dataset and this builder number them), or those of the web (`top-10-best-gaming-headsets-1024x448.jpg`).
- the network: `fetch=True` downloads missing images to `images/`, and without `data_dir` the JSON as well.
- the common parquet form (`nielsr/countbench` on the Hub): columns `image`, `text` and `number`.

    load_dataset("countbench", data_dir="CountBench")   # one split, "test"

Many of the URLs are dead. The rows without an image are left out by default and listed in `dataset_info.description`;
`missing="keep"` keeps them with an empty `image` and the reason in `note`.
"""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub.utils import tqdm

from ..captions.numbers import NUMBER_TO_WORD, find_count
from ..download.client import FetchConfig, FetchError, HttpClient, fetch_bytes
from ..files.atomic import remove_leftovers, write_whole
from ..files.checks import existing_file, parse_json, path_inside, value_of
from ..files.image_sources import ARCHIVE_SUFFIXES, Reference, image_problem, list_images, load_image
from ..formats.findings import Findings
from ..schema import caption_features
from .base import CountingSetBuilder, CountingSetConfig, folder_fingerprint


JSON_NAME = "CountBench.json"
JSON_URL = (
    f"https://raw.githubusercontent.com/teaching-clip-to-count/teaching-clip-to-count.github.io/main/{JSON_NAME}"
)
PUBLISHED_SIZE = 540
IMAGE_NAMES = ("auto", "place", "web")

_CITATION = """\
@inproceedings{paiss2023teaching,
  title     = {Teaching {CLIP} to Count to Ten},
  author    = {Paiss, Roni and Ephrat, Ariel and Tov, Omer and Zada, Shiran and Mosseri, Inbar and Irani, Michal and
               Dekel, Tali},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2023}
}"""


@dataclass
class CountBenchConfig(CountingSetConfig):
    """
    The options of the builder.

    Args:
        missing (`str`, *optional*, defaults to `"leave_out"`): What to do with rows without an image: `"leave_out"`
            lists them in the description, `"keep"` keeps them with an empty `image` and a `note`, `"error"` raises.
        images (`str`, *optional*): The folder or archive with the images, inside `data_dir` or an absolute path; by
            default `images`, `images.zip`, ....
        image_names (`str`, *optional*, defaults to `"auto"`): How the files are named: `"place"`, the index of their
            row from zero; `"web"`, their name on the web; `"auto"`, whichever fits more files.
        fetch (`bool`, *optional*, defaults to `False`): Whether to download missing images from their URLs, to
            `images` in `data_dir`.
        fetch_options (`dict[str, Any]`, *optional*): Options of [`FetchConfig`]: `{"num_connections": 8}`.
    """

    missing: str = "leave_out"
    images: str | None = None
    image_names: str = "auto"
    fetch: bool = False
    fetch_options: dict[str, Any] | None = None

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """Name the cache also after the downloaded folder, if there is no other, and after images elsewhere."""
        options = {name: value for name, value in config_kwargs.items() if name != "fetch_options"}
        if self.data_dir is None and self.fetch:
            options["fetched"] = folder_fingerprint(fetched_folder())
        if self.images is not None and (place := Path(self.images).expanduser()).is_absolute():
            status = place.stat() if place.is_file() else None
            archive = f"{status.st_size} {status.st_mtime_ns}" if status is not None else None
            options["images_fingerprint"] = archive or folder_fingerprint(place)
        return super().create_config_id(options, custom_features=custom_features)


class CountBenchBuilder(CountingSetBuilder):
    """`countbench` for `datasets`; see the top of this file, and [`CountBenchConfig`] for the options."""

    BUILDER_CONFIG_CLASS = CountBenchConfig
    BUILDER_CONFIGS = [CountBenchConfig(name="default", description="All captions, as one test split.")]
    DEFAULT_CONFIG_NAME = "default"
    MISSING_CHOICES = ("error", "leave_out", "keep")
    TITLE = "CountBench"
    WHERE_TO_GET = (
        f"{JSON_URL} is the list of captions; images are at the URLs in it (fetch=True downloads them), and "
        "some are in the parquet file of https://huggingface.co/datasets/nielsr/countbench."
    )
    PUBLISHED_SIZES = {"default": {"test": PUBLISHED_SIZE}}

    def _info(self) -> datasets.DatasetInfo:
        features = caption_features()
        features["image_url"] = datasets.Value("string")
        return datasets.DatasetInfo(
            description="CountBench: captions that state a number from two to ten, 60 for each, with images from "
            "the web.",
            features=features,
            citation=_CITATION,
            homepage="https://teaching-clip-to-count.github.io",
            license="cc-by-4.0 (captions and URLs, from LAION-400M; the images are their owners')",
        )

    def default_folder(self) -> Path | None:
        """Download the list of captions to a cache folder, with `fetch=True`."""
        if not self.config.fetch:
            return None
        folder = fetched_folder()
        if not (folder / JSON_NAME).is_file():
            try:
                content = fetch_bytes(JSON_URL, self._fetch_config())
            except FetchError as error:
                raise ConnectionError(
                    f"Expected {JSON_NAME} at {JSON_URL}, but it cannot be fetched: {error}. Try again later, or "
                    "download it by other means and pass its folder as data_dir."
                ) from error
            parse_json(content, JSON_URL)
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / JSON_NAME, content)
        return folder

    def read_folder(self, folder: Path, findings: Findings) -> dict[str, list[dict[str, Any]]]:
        """Read the captions, and list the images."""
        self.check_choice("image_names", IMAGE_NAMES)
        place = self._place_of_images(folder)
        parquet = sorted([*folder.glob("*.parquet"), *(folder / "data").glob("*.parquet")])
        references: Sequence[Reference | None]
        if (folder / JSON_NAME).is_file() and (place is not None or self.config.fetch or not parquet):
            entries, references = self._read_json(folder, place, findings)
        elif parquet:
            entries, references = _read_parquet(parquet)
        else:
            existing_file(folder / JSON_NAME, f"and no parquet file. {self.WHERE_TO_GET}")
        _find_oddities(entries, findings)
        return {"test": self._rows(folder, entries, references, findings)}

    def finish_row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Load the image from its archive or parquet file."""
        return {**row, "image": None if row["image"] is None else load_image(row["image"])}

    def _place_of_images(self, folder: Path) -> Path | None:
        if self.config.images is not None:
            images = Path(self.config.images).expanduser()
            is_absolute = images.is_absolute()  # an option, not a name from the data
            place = images if is_absolute else path_inside(folder, self.config.images, "the images of CountBench")
            if not place.exists():
                raise FileNotFoundError(f"Expected images at {place}, but there is nothing. {self.WHERE_TO_GET}")
            return place
        candidates = [folder / f"images{ending}" for ending in ("", *ARCHIVE_SUFFIXES)]
        return next((place for place in candidates if place.exists()), None)

    def _read_json(
        self, folder: Path, place: Path | None, findings: Findings
    ) -> tuple[list[dict[str, Any]], list[Reference | None]]:
        file = folder / JSON_NAME
        content = parse_json(file.read_bytes(), str(file))
        if not isinstance(content, list) or not content:
            raise ValueError(
                f"Expected {file} to be a list of captions, but got {type(content).__name__}"
                f"{' without any' if content == [] else ''}. Check that it is the right file."
            )
        entries = [
            {
                "text": value_of(entry, "text", str, f"row {number} of {file}"),
                "number": _number_of(entry, f"row {number} of {file}"),
                "image_url": value_of(entry, "image_url", str, f"row {number} of {file}"),
            }
            for number, entry in enumerate(content)
        ]
        if place is None and not self.config.fetch:
            raise FileNotFoundError(
                f"Expected the images next to {file}, in a folder images or an archive images.zip, but there is "
                f"neither. {self.WHERE_TO_GET}"
            )
        found = {} if place is None else list_images(place)
        references = _match(found, [entry["image_url"] for entry in entries], self.config.image_names)
        for name in sorted(set(found) - {_name_of(one) for one in references if one is not None}):
            findings.add("Images that belong to no row", name, left_out=True)
        if self.config.fetch:
            self._fetch(folder / "images", entries, references)
        return entries, references

    def _fetch(self, place: Path, entries: list[dict[str, Any]], references: list[Reference | None]) -> None:
        """Download missing images; the reference of one that fails stays `None`."""
        place.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
        missing = [
            (index, entries[index]["image_url"]) for index, reference in enumerate(references) if reference is None
        ]
        with (
            HttpClient(self._fetch_config()) as client,
            tqdm(total=len(missing), unit="image", desc="fetching", disable=None) as bar,
        ):
            futures = {client.fetch(url): index for index, url in missing}
            for future in as_completed(futures):
                bar.update()
                index, result = futures.pop(future), future.result()
                if result.content is None:
                    entries[index]["problem"] = result.problem
                    continue
                file = place / f"{_image_id(index)}{result.suffix}"
                write_whole(file, result.content)
                references[index] = str(file)

    def _fetch_config(self) -> FetchConfig:
        try:
            return FetchConfig(**(self.config.fetch_options or {}))
        except TypeError as error:
            raise ValueError(f"Expected the options of FetchConfig in fetch_options, but {error}.") from error

    def _rows(
        self, folder: Path, entries: list[dict[str, Any]], references: Sequence[Reference | None], findings: Findings
    ) -> list[dict[str, Any]]:
        rows, missing = [], []
        for index, (entry, reference) in enumerate(zip(entries, references, strict=True)):
            problem = entry.pop("problem", "not found") if reference is None else image_problem(reference)
            notes = [entry.pop("note")] if "note" in entry else []
            if problem is not None:
                missing.append(f"{_image_id(index)} ({problem})")
                if self.config.missing == "leave_out":
                    continue
                notes.append(f"no image: {problem}")
            rows.append(
                {
                    "image": None if problem is not None else reference,
                    "image_id": _image_id(index),
                    **entry,
                    "name": None,
                    "note": "; ".join(notes) or None,
                }
            )
        self.handle_missing(folder, "an image for each caption", missing, findings)
        return rows


def fetched_folder() -> Path:
    """The folder of downloaded captions and images in the cache of `datasets`."""
    return Path(datasets.config.DOWNLOADED_DATASETS_PATH) / "countbench"


def _read_parquet(files: Sequence[Path]) -> tuple[list[dict[str, Any]], list[Reference | None]]:
    entries: list[dict[str, Any]] = []
    references: list[Reference | None] = []
    for file in files:
        for place, row in enumerate(_parquet_rows(file)):
            where = f"row {place} of {file}"
            text = value_of(row, "text", str, where)
            entries.append({"text": text, "number": _number_of(row, where), "image_url": row.get("image_url")})
            references.append((str(file), place))
    return entries, references


def _parquet_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file without their images."""
    required = ["image", "text", "number"]
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if missing := [name for name in required if name not in names]:
                raise ValueError(
                    f"Expected the columns {', '.join(required)} in {file}, but {', '.join(missing)} is not among "
                    f"{', '.join(names)}. Check that it is the right file."
                )
            columns = [name for name in ("text", "number", "image_url") if name in names]
            rows: list[dict[str, Any]] = opened.read(columns).to_pylist()
            return rows
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"Expected {file} to be a parquet file, but it cannot be read: {error}. It may be cut short: get it again."
        ) from error


def _number_of(entry: Any, where: str) -> int:
    number: int = value_of(entry, "number", int, where)
    if number not in NUMBER_TO_WORD:
        raise ValueError(f"Expected a number from 2 to 10 in {where}, but got {number}. Correct it.")
    return number


def _find_oddities(entries: list[dict[str, Any]], findings: Findings) -> None:
    times = Counter(entry["image_url"] for entry in entries if entry["image_url"])
    for index, entry in enumerate(entries):
        stated = find_count(entry["text"])
        if stated is None or stated.number != entry["number"]:
            first = "none in a word" if stated is None else repr(stated.word)
            entry["note"] = f"the first number that the caption states is {first}"
            findings.add("Captions whose first number is not the one that counts", _image_id(index))
        if times[entry["image_url"]] > 1:
            findings.add("Rows with the image of another row", _image_id(index))


def _match(found: dict[str, Reference], urls: Sequence[str], names: str) -> list[Reference | None]:
    """Find the image of each URL."""
    by_place = {int(stem): one for name, one in found.items() if (stem := name.partition(".")[0]).isdecimal()}
    web_names = [unquote(urlsplit(url).path).rpartition("/")[2] for url in urls]
    times = Counter(web_names)
    matched: dict[str, list[Reference | None]] = {
        "place": [by_place.get(index) for index in range(len(urls))],
        # A name of several URLs is ambiguous.
        "web": [found.get(name) if name and times[name] == 1 else None for name in web_names],
    }
    if names != "auto":
        return matched[names]
    return max(matched.values(), key=lambda references: sum(one is not None for one in references))


def _name_of(reference: Reference) -> str:
    return os.path.basename(reference if isinstance(reference, str) else str(reference[1]))


def _image_id(index: int) -> str:
    return f"{index:03d}"
