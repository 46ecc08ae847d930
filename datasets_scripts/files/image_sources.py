"""Images in a folder, an archive or a parquet file: listed first, and loaded when their row is written."""

import io
import os
import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from .checks import leads_out
from .images import DECODER_ERRORS


# Where an image is: the path of a file; or the path of an archive or a parquet file, and the name or row in it.
Reference = str | tuple[str, str] | tuple[str, int]
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# A malicious archive of a few kilobytes can hold terabytes.
_MAX_IMAGE_BYTES = 200 * 2**20
_MAX_COMPRESSED_TAR_BYTES = 4 * 2**30


def list_images(place: Path) -> dict[str, Reference]:
    """
    List the images of an archive or of a folder and its subfolders, by their names without folders.

    Files with unusual suffixes are included, for URLs name images anyhow; `.json`, `.txt` and the like are not. An
    archive that cannot be read or is malicious, or two images of one name, raise `ValueError`.
    """
    entries: list[tuple[str, Reference]]
    if is_archive(place):
        entries = [(name.rpartition("/")[2], (str(place), name)) for name in archive_files(place)]
    else:
        files = (path for path in sorted(place.rglob("*")) if path.is_file() and not path.name.startswith("."))
        entries = [(path.name, str(path)) for path in files]
    found: dict[str, Reference] = {}
    for name, reference in entries:
        if name.lower().endswith((".json", ".jsonl", ".txt", ".csv", ".md", ".parquet")):
            continue
        if name in found:
            raise ValueError(
                f"Expected each image of {place} under its own name, but {name!r} is in two of its folders. Rename "
                "one, or name the folder of one."
            )
        found[name] = reference
    return found


def load_image(reference: Reference) -> dict[str, Any]:
    """Load an image as `datasets.Image` takes it; raise `ValueError` if it cannot be read."""
    if isinstance(reference, str):
        return {"path": reference, "bytes": None}
    file, place = reference
    if isinstance(place, int):
        return {"path": None, "bytes": _parquet_images(file, os.getpid())[place]}
    return {"path": place.rpartition("/")[2], "bytes": read_archived(Path(file), place)}


def image_problem(reference: Reference) -> str | None:
    """State why an image cannot be read, without decoding its pixels; `None` if it can."""
    loaded = load_image(reference)
    content = loaded["bytes"]
    if isinstance(reference, tuple) and not content:
        return "no image"
    try:
        with Image.open(loaded["path"] if content is None else io.BytesIO(content)) as opened:
            opened.verify()
    except UnidentifiedImageError:
        return "no image"
    except DECODER_ERRORS as error:
        return f"cannot be read: {error}"
    return None


@lru_cache(maxsize=2)
def _parquet_images(file: str, process: int) -> list[bytes | None]:
    """The images of a small parquet file, whose column `image` holds their bytes alone or with a path."""
    column = pq.read_table(file, columns=["image"]).column("image")
    if pa.types.is_struct(column.type):
        return [None if value is None else value["bytes"] for value in column.to_pylist()]
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise ValueError(
            f"Expected the bytes of images in the column 'image' of {file}, but got {column.type}. Check that it is "
            "the right file."
        )
    return list(column.to_pylist())


# --- archives, read in place --------------------------------------------------------------------


def is_archive(path: Path) -> bool:
    """Whether a file is an archive, by its name."""
    return path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_files(path: Path) -> list[str]:
    """
    List the names of the files in a zip or tar archive, without those that macOS adds.

    An archive that cannot be read, that has links, devices or names that lead out of it, or a file that is too large
    for an image raises `ValueError`.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zip_archive:
                found = [(one.filename, one.file_size, not one.is_dir()) for one in zip_archive.infolist()]
        else:
            with tarfile.open(path) as tar_archive:
                members = tar_archive.getmembers()
            for member in members:
                if not (member.isfile() or member.isdir()):
                    raise ValueError(
                        f"Expected files and folders in {path}, but {member.name!r} is a link or a device. Do not "
                        "unpack it: get the archive from its authors."
                    )
            found = [(one.name, one.size, one.isfile()) for one in members]
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(
            f"Expected {path} to be a zip or tar archive, but it cannot be read: {error}. It may be cut short: get it "
            "again."
        ) from error
    for name, size, _ in found:
        if leads_out(name):
            raise ValueError(
                f"Expected names inside {path}, but got {name!r}, which leads out of it. Do not unpack it: get the "
                "archive from its authors."
            )
        if size > _MAX_IMAGE_BYTES:
            raise ValueError(
                f"Expected images of at most {_MAX_IMAGE_BYTES >> 20} MiB in {path}, but {name!r} has "
                f"{size >> 20} MiB. Remove it."
            )
    return [name for name, _, is_file in found if is_file and not _is_extra(name)]


def read_archived(path: Path, name: str) -> bytes:
    """Read a file of an archive, one of [`archive_files`]; raise `ValueError` if it cannot be read."""
    # Forked processes share the position in a file that was open before.
    archive = _opened(path, os.getpid())
    try:
        if isinstance(archive, dict):
            return archive[name]
        if isinstance(archive, zipfile.ZipFile):
            return archive.read(name)
        member = archive.extractfile(name)
        return member.read() if member is not None else b""
    except (tarfile.TarError, zipfile.BadZipFile, RuntimeError, OSError, EOFError, KeyError) as error:
        raise ValueError(
            f"Expected to read {name!r} in {path}, but cannot: {error}. It may be cut short or encrypted: get it "
            "again."
        ) from error


@lru_cache(maxsize=4)
def _opened(path: Path, process: int) -> zipfile.ZipFile | tarfile.TarFile | dict[str, bytes]:
    if zipfile.is_zipfile(path):
        return zipfile.ZipFile(path)
    if path.suffix.lower() == ".tar":
        return tarfile.open(path)
    # A compressed tar has no random access, so it is read once.
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        if sum(member.size for member in members) > _MAX_COMPRESSED_TAR_BYTES:
            raise ValueError(
                f"Expected at most {_MAX_COMPRESSED_TAR_BYTES >> 30} GiB in the compressed archive {path}, but it "
                "holds more. Make it a zip, which can be read in any order."
            )
        read = ((member.name, archive.extractfile(member)) for member in members)
        return {name: opened.read() for name, opened in read if opened is not None}


def _is_extra(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1].startswith(".")
