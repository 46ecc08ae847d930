"""Images in zip and tar archives, read in place: nothing is unpacked to the disk."""

import os
import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath

from .checks import leads_out


ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# A malicious archive of a few kilobytes can hold terabytes.
_MAX_IMAGE_BYTES = 200 * 2**20
_MAX_COMPRESSED_TAR_BYTES = 4 * 2**30


def is_archive(path: Path) -> bool:
    """Whether a file is an archive, by its name."""
    return path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_files(path: Path) -> list[str]:
    """
    List the files of an archive.

    Args:
        path (`Path`): A zip or tar archive, compressed or not.

    Returns:
        `list[str]`: Their names, without folders and the files that macOS adds.

    Raises:
        ValueError: If it cannot be read, a name leads out of it, it has links or devices, or a file is too large for
            an image.
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
    """
    Read a file of an archive.

    Args:
        path (`Path`): The archive.
        name (`str`): One of [`archive_files`].

    Returns:
        `bytes`: The file.

    Raises:
        ValueError: If it cannot be read.
    """
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
