import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from count_clip.datasets_scripts.files import image_sources
from count_clip.datasets_scripts.files.image_sources import archive_files, is_archive, read_archived


CONTENTS = {"a/one.jpg": b"1" * 2000, "a/b/two.jpg": b"22", "three.png": b""}
# Names that lead out of where they are unpacked, each in its way.
OUTSIDE = ["../one.jpg", "a/../../one.jpg", "/etc/one.jpg", "C:\\one.jpg", "..\\one.jpg", "a\\..\\..\\one.jpg"]


def write_zip(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.mkdir("a")
        for name, content in contents.items():
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = name  # as it is: the constructor changes some names
            packed.writestr(entry, content)
    return path


def write_tar(path: Path, contents: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as packed:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        packed.addfile(folder)
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return path


WRITERS = [("x.zip", write_zip), ("x.tar", write_tar), ("x.tar.gz", write_tar), ("x.TGZ", write_tar)]


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_files_are_listed_and_read_in_any_order(tmp_path: Path, name: str, write: Callable) -> None:
    path = write(tmp_path / name, {**CONTENTS, "__MACOSX/a/._one.jpg": b"x", "a/.DS_Store": b"x"})
    assert is_archive(path)
    assert archive_files(path) == list(CONTENTS)
    for wanted in ("three.png", "a/one.jpg", "a/b/two.jpg", "a/one.jpg"):
        assert read_archived(path, wanted) == CONTENTS[wanted]
    with pytest.raises(ValueError, match=r"to read 'four\.jpg' in .*x\."):
        read_archived(path, "four.jpg")


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(("name", "write"), WRITERS[:3])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, write: Callable, outside: str) -> None:
    path = write(tmp_path / name, {**CONTENTS, outside: b"1"})
    with pytest.raises(ValueError, match="which leads out of it. Do not unpack it"):
        archive_files(path)


@pytest.mark.parametrize("member_type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, member_type: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as packed:
        entry = tarfile.TarInfo("one.jpg")
        entry.type = member_type
        entry.linkname = "/etc/passwd"
        packed.addfile(entry)
    with pytest.raises(ValueError, match=r"files and folders in .*x\.tar, but 'one\.jpg' is a link or a device"):
        archive_files(tmp_path / "x.tar")


@pytest.mark.parametrize(("name", "write"), WRITERS[:3])
def test_too_large_files_are_refused(tmp_path: Path, monkeypatch, name: str, write: Callable) -> None:
    monkeypatch.setattr(image_sources, "_MAX_IMAGE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"images of at most .* in .*, but 'a/one\.jpg' has"):
        archive_files(write(tmp_path / name, CONTENTS))


def test_compressed_tar_that_grows_too_large_is_refused(tmp_path: Path, monkeypatch) -> None:
    path = write_tar(tmp_path / "x.tar.gz", CONTENTS)
    monkeypatch.setattr(image_sources, "_MAX_COMPRESSED_TAR_BYTES", 2001)
    with pytest.raises(ValueError, match="in the compressed archive .*, but it holds more"):
        read_archived(path, "three.png")


@pytest.mark.parametrize(("name", "write"), WRITERS[:3])
def test_archives_that_are_cut_short_are_reported(tmp_path: Path, name: str, write: Callable) -> None:
    path = write(tmp_path / name, {f"{place}.jpg": os.urandom(3000) for place in range(9)})
    content = path.read_bytes()
    for length in (len(content) // 2, 3, 0):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="to be a zip or tar archive, but it cannot be read"):
            archive_files(path)


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"")
    assert not is_archive(tmp_path / "folder.zip")
    assert not is_archive(tmp_path / "a.jpg")
    assert not is_archive(tmp_path / "nothing.zip")
