"""
An index of images that is built once and searched by texts: "three dogs".

The embeddings are in a FAISS index of the `datasets` library; `pip install 'count-clip[retrieval]'` installs FAISS.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets.table import InMemoryTable
from huggingface_hub.utils import tqdm
from numpy.typing import NDArray
from PIL import Image

from count_clip.datasets_scripts.files.atomic import remove_leftovers, whole_file, write_json
from count_clip.datasets_scripts.files.resumable import ResumableFolder, remove_folder
from count_clip.modeling.images import ImageError

from ..relevance.explain import check_length
from .encoding import Encoder, SkippedRow, evaluating, image_id_of, num_rows, read_image, read_rows


_FORMAT = 1
_ABOUT, _IMAGES, _VECTORS, _PARTS = "index.json", "images.parquet", "index.faiss", "parts"
_COLUMN = "embedding"
_INNER_PRODUCT = 0  # faiss.METRIC_INNER_PRODUCT; of unit vectors, the cosine
_KEEP_EVERY = 512  # images; what an interrupted build loses at most
_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("file", pa.string()),
        ("time", pa.float64()),
        ("row", pa.int64()),
        ("version", pa.string()),
    ]
)


class ImageIndexError(ValueError):
    """An index cannot be built, read or searched. The message has the reason."""


@dataclass(frozen=True)
class Hit:
    """An image that was found."""

    rank: int
    """From 1."""
    score: float
    """Cosine similarity of image and text."""
    image_id: str
    """The image's name: its file, with the time of a frame."""
    file: str | None
    """Its file, if it has one."""
    time: float | None
    """Seconds from the first frame of the video."""
    row: int | None
    """Its row in the data set, if it is from one."""

    def to_dict(self) -> dict[str, Any]:
        """All values that are not `None`, for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def model_fingerprint(model: Any) -> str:
    """
    A hash of a model's parameters as bfloat16: one checkpoint has one fingerprint in float32 and bfloat16 (in float16
    another, because its roundings differ).
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(f"{name} {tuple(values.shape)} ".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class ImageIndex:
    """
    Images that can be found by a text. [`build_index`] builds one, and `ImageIndex.load` reads one.

    Args:
        images (`datasets.Dataset`): `image_id`, `file`, `time`, `row` and `version` of each, with the FAISS index
            of their embeddings.
        about (`Mapping[str, Any]`): The record of the index: its model, the images that were left out.
    """

    def __init__(self, images: datasets.Dataset, about: Mapping[str, Any]) -> None:
        self.images, self.about = images, dict(about)

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ImageIndex:
        """
        Read an index that [`build_index`] wrote.

        Raises:
            ImageIndexError: If there is none, or it is broken.
            ImportError: If FAISS is missing.
        """
        _need_faiss()
        place = Path(folder).expanduser()
        about = _read_about(place)
        try:
            images = datasets.Dataset(InMemoryTable(pq.read_table(place / _IMAGES, schema=_SCHEMA)))
            images.load_faiss_index(_COLUMN, place / _VECTORS)
        except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
            raise ImageIndexError(f"The index {place} is broken: {error}. Build it once more.") from error
        vectors = images.get_index(_COLUMN).faiss_index
        if len(images) != about["images"] or vectors.d != about["dimensions"]:
            raise ImageIndexError(
                f"The index {place} is broken: {_ABOUT} has {about['images']} images in "
                f"{about['dimensions']} dimensions, but there are {len(images)} in {vectors.d}. Build it once more."
            )
        return cls(images, about)

    def vectors(self) -> NDArray[np.float32]:
        """The unit-norm embeddings of the images, `(num_images, projection_dim)`."""
        return np.asarray(self.images.get_index(_COLUMN).faiss_index.reconstruct_n(0, len(self)))

    def search(self, embeds: Any, top: int = 10) -> list[list[Hit]]:
        """
        Find the `top` images most similar to embeddings `(num_queries, projection_dim)` of texts or images of this
        model; the most similar first for each.

        Raises an [`ImageIndexError`] if the embeddings are of another size or not finite, or `top` is below 1.
        """
        queries = np.ascontiguousarray(embeds, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.about["dimensions"]:
            raise ImageIndexError(
                f"Expected embeddings of shape (queries, {self.about['dimensions']}), but got {queries.shape}."
            )
        if not np.isfinite(queries).all():
            raise ImageIndexError(_NOT_FINITE.format("text"))
        if top < 1:
            raise ImageIndexError(f"Expected `top` of at least 1, but got {top}.")
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        found = self.images.search_batch(_COLUMN, queries, k=min(top, len(self)))
        hits = []
        for scores, places in zip(found.total_scores, found.total_indices, strict=True):
            rows = [self.images[int(place)] for place in places]
            hits.append(
                [
                    Hit(rank, float(score), row["image_id"], row["file"], row["time"], row["row"])
                    for rank, (score, row) in enumerate(zip(scores, rows, strict=True), start=1)
                ]
            )
        return hits

    def search_texts(
        self, model: Any, processor: Any, texts: Sequence[str], top: int = 10, batch_size: int = 64
    ) -> list[list[Hit]]:
        """
        Find the `top` images most similar to each text, with the model of the index and its processor; the most
        similar first.

        Raises an [`ImageIndexError`] if the index is of another model, or the embeddings are not finite, and a
        `ValueError` if a text is empty or longer than the model reads.
        """
        self.check_model(model)
        with evaluating(model) as (where, precision):
            encoder = Encoder(model, processor, where, precision, batch_size)
            for text in texts:
                check_length(encoder, text)
            embeds = encoder.texts(list(texts)).numpy()
        return self.search(embeds, top)

    def check_model(self, model: Any) -> None:
        """Raise an [`ImageIndexError`] if the index is of another model."""
        _check_fingerprint(self.about, model_fingerprint(model), "The index")


_NOT_FINITE = (
    "The model's {} embeddings are NaN or infinite: its weights are broken, or the dtype is too narrow for it (try "
    "float32)."
)


def _need_faiss() -> None:
    if importlib.util.find_spec("faiss") is None:
        raise ImportError("An index of images needs FAISS: pip install 'count-clip[retrieval]'.")


def _read_about(place: Path) -> dict[str, Any]:
    """The record of an index."""
    if not (place / _ABOUT).is_file():
        unfinished = (place / _PARTS).is_dir()
        hint = " Its build was interrupted: start it once more to go on." if unfinished else ""
        raise ImageIndexError(f"There is no index of images in {place}.{hint} `count-clip index` makes one.")
    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        if about["format"] != _FORMAT:
            raise ImageIndexError(
                f"The index {place} has format {about['format']}, but this version reads {_FORMAT}. Build it once "
                "more."
            )
        return {**about, "images": int(about["images"]), "dimensions": int(about["dimensions"])}
    except ImageIndexError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageIndexError(f"{place / _ABOUT} does not describe an index of images: {error!r}.") from error


def _check_fingerprint(about: Mapping[str, Any], fingerprint: str, what: str) -> None:
    model = about["model"]
    if model["fingerprint"] != fingerprint:
        raise ImageIndexError(
            f"{what} was made with another model: {model.get('name') or model.get('model_type')} with weights "
            f"{model['fingerprint'][:12]} in {model.get('dtype')}, and not with weights {fingerprint[:12]}. Their "
            "embeddings cannot be compared: use that model, or build the index with this one in another folder."
        )


def build_index(
    model: Any,
    processor: Any,
    rows: Iterable[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    batch_size: int = 32,
    model_name: str | None = None,
    about: Mapping[str, Any] | None = None,
    total: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> ImageIndex:
    """
    Build an index of images, or update one.

    Images that an earlier or interrupted build has encoded are not encoded again as long as their name and version are
    the same. Images that are no longer among the rows leave the index.

    Args:
        rows: Rows with `image` and optionally `image_id` (a unique name; of rows with one name the first counts; by
            default the row's number), `file`, `time` (of a frame), `row`, `version` (changes with the content) and
            `error` (why there is no image).
        folder (`str` or `os.PathLike`): The folder of the index.
        model_name (`str`, *optional*): The model's name in messages.
        about (`Mapping[str, Any]`, *optional*): More for the record of the index, as JSON: the source of the images.
        total (`int`, *optional*): The number of rows, for the progress bar, if `rows` has no length.
        model, processor, batch_size, device, dtype, progress: As in [`evaluate_countbench`].

    Returns:
        [`ImageIndex`]: The index; images that could not be read are in its `about["skipped"]`.

    Raises:
        ImageIndexError: If the folder has an index of another model, no image can be read, or the model's
            embeddings are not finite.
        ImportError: If FAISS is missing.
        OSError: If the folder cannot be written to.
    """
    _need_faiss()
    place = Path(folder).expanduser()
    skipped: list[SkippedRow] = []
    with evaluating(model, device, dtype) as (where, precision):
        identity = {
            "name": model_name,
            "model_type": model.config.model_type,
            "fingerprint": model_fingerprint(model),
            "dtype": str(precision).removeprefix("torch."),
        }
        store = _Store(place, identity)
        encoder = Encoder(model, processor, where, precision, batch_size)
        bar = tqdm(read_rows(rows), total=total or num_rows(rows), desc="images", disable=not progress, leave=False)
        try:
            for batch in _batches(bar, store, skipped, batch_size):
                embeds = encoder.images([image for _, image in batch]).numpy()
                if not np.isfinite(embeds).all():
                    raise ImageIndexError(_NOT_FINITE.format("image"))
                store.add([record for record, _ in batch], embeds)
        except BaseException:
            store.leave()
            raise
    if not store.wanted:
        store.leave()
        reasons = "; ".join(row.reason for row in skipped[:3])
        reason = f"None of the {len(skipped)} images can be read. {reasons}" if skipped else "There are no images."
        raise ImageIndexError(f"Expected at least one image for the index. {reason}")
    left_out = [{"index": row.index, "image_id": row.image_id, "reason": row.reason} for row in skipped]
    return store.finish({**(about or {}), "model": identity, "skipped": left_out})


def _batches(
    rows: Iterable[tuple[int, Mapping[str, Any] | None, str | None]],
    store: _Store,
    skipped: list[SkippedRow],
    batch_size: int,
) -> Iterator[list[tuple[dict[str, Any], Image.Image]]]:
    """Batches of images that are not in the store, each with its record."""
    batch: list[tuple[dict[str, Any], Image.Image]] = []
    for index, row, reason in rows:
        if row is None or row.get("error"):
            reason = reason if row is None else str(row["error"])
            skipped.append(SkippedRow(index, image_id_of(row), reason or "there is no row"))
            continue
        record = {name: row.get(name) for name in _SCHEMA.names}
        record |= {"image_id": image_id_of(row) or str(index), "version": str(row.get("version") or "")}
        if not store.wants(record):
            continue
        try:
            image = read_image(row)
        except ImageError as error:
            store.forget(record)
            skipped.append(SkippedRow(index, image_id_of(row), str(error)))
            continue
        batch.append((record, image))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


class _Store:
    """The embeddings of earlier builds, and the new ones of this build in files."""

    def __init__(self, place: Path, identity: Mapping[str, Any]) -> None:
        self.place = place
        self.wanted: dict[str, dict[str, Any]] = {}
        self._vectors: dict[tuple[str, str], NDArray[np.float32]] = {}
        self._new: list[dict[str, Any]] = []
        self._parts = 0
        fingerprint = str(identity["fingerprint"])
        if (place / _ABOUT).is_file():
            _check_fingerprint(_read_about(place), fingerprint, f"The index that is in {place}")
            # A damaged one is built again.
            with suppress(ImageIndexError):
                index = ImageIndex.load(place)
                keys = zip(index.images["image_id"], index.images["version"], strict=True)
                self._vectors.update(zip(keys, index.vectors(), strict=True))
        remove_leftovers(place)
        parts = ResumableFolder(place / _PARTS)
        if parts.plan is not None:
            _check_fingerprint({"model": parts.plan}, fingerprint, f"The unfinished {place}")
        parts.begin(parts.plan or identity)
        for path in sorted(parts.folder.glob("*.parquet")):
            table = pq.read_table(path)
            vectors = np.stack(table[_COLUMN].to_numpy())
            keys = zip(table["image_id"].to_pylist(), table["version"].to_pylist(), strict=True)
            self._vectors.update(zip(keys, vectors.astype(np.float32), strict=True))
            self._parts = int(path.stem) + 1

    def wants(self, record: dict[str, Any]) -> bool:
        """Add an image to the index; returns whether it must be encoded."""
        name = record["image_id"]
        if name in self.wanted:
            return False
        self.wanted[name] = record
        return (name, record["version"]) not in self._vectors

    def forget(self, record: dict[str, Any]) -> None:
        """Remove an image from the index."""
        del self.wanted[record["image_id"]]

    def add(self, records: list[dict[str, Any]], vectors: NDArray[np.float32]) -> None:
        """Keep embeddings, and write them to the disk every `_KEEP_EVERY` images."""
        for record, vector in zip(records, vectors, strict=True):
            self._vectors[record["image_id"], record["version"]] = vector
            self._new.append(record)
        if len(self._new) >= _KEEP_EVERY:
            self._write_part()

    def _write_part(self) -> None:
        vectors = [self._vectors[record["image_id"], record["version"]] for record in self._new]
        table = pa.Table.from_pylist(self._new, schema=_SCHEMA)
        table = table.append_column(_COLUMN, pa.array([vector.tolist() for vector in vectors], pa.list_(pa.float32())))
        with whole_file(self.place / _PARTS / f"{self._parts:06d}.parquet") as temporary:
            pq.write_table(table, temporary)
        self._parts, self._new = self._parts + 1, []

    def finish(self, about: Mapping[str, Any]) -> ImageIndex:
        """Write the index, replacing an earlier one, and remove the files of the build."""
        records = list(self.wanted.values())
        vectors = np.stack([self._vectors[record["image_id"], record["version"]] for record in records])
        table = pa.Table.from_pylist(records, schema=_SCHEMA)
        images = datasets.Dataset(InMemoryTable(table))
        with _without_bars():
            images.add_faiss_index_from_external_arrays(vectors, _COLUMN, metric_type=_INNER_PRODUCT)
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        numbers = {"images": len(records), "dimensions": int(vectors.shape[1])}
        whole = {"format": _FORMAT, "created": created, **numbers, **about}
        with (
            whole_file(self.place / _VECTORS) as vectors_file,
            whole_file(self.place / _IMAGES) as images_file,
        ):
            images.save_faiss_index(_COLUMN, vectors_file)
            pq.write_table(table, images_file)
            # Killed between the two, the files would not belong together; without a description they are no index.
            (self.place / _ABOUT).unlink(missing_ok=True)
        write_json(self.place / _ABOUT, whole)
        remove_folder(self.place / _PARTS)
        return ImageIndex(images, whole)

    def leave(self) -> None:
        """Keep the embeddings of an unfinished build; without any, remove its folder."""
        if self._new:
            self._write_part()
        if not self._parts:
            remove_folder(self.place / _PARTS)
            if not any(self.place.iterdir()):
                self.place.rmdir()


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the bar of `datasets`, which shows a single step."""
    had_bars = not datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            datasets.enable_progress_bars()


__all__ = ["Hit", "ImageIndex", "ImageIndexError", "build_index", "model_fingerprint"]
