import io
import json
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from count_clip.datasets_scripts.schema import caption_features


Load = Callable[..., Any]
COLUMNS = {*caption_features(), "image_url"}


def png(value: int = 9) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (value, 1, 2)).save(stream, "PNG")
    return stream.getvalue()


def pack(folder: Path, archive: str) -> None:
    """Move the images of a folder to an archive."""
    files = sorted((folder / "images").iterdir())
    if archive.endswith(".zip"):
        with zipfile.ZipFile(folder / archive, "w") as packed:
            for file in files:
                packed.write(file, f"images/{file.name}")
            packed.writestr("__MACOSX/images/._000.jpg", b"extra")
    else:
        with tarfile.open(folder / archive, "w:gz" if archive.endswith("gz") else "w") as packed:
            for file in files:
                packed.add(file, f"./images/{file.name}")
    for file in files:
        file.unlink()
    (folder / "images").rmdir()


def test_rows_are_the_authors_annotations(countbench: Path, load: Load) -> None:
    rows = load("countbench", data_dir=str(countbench))
    assert list(rows) == ["test"]
    assert set(rows["test"].column_names) == COLUMNS
    assert rows["test"]["image_id"][:] == ["000", "001", "003"]
    row = rows["test"][1]
    assert row["image"].size == (40, 30)
    assert (row["text"], row["number"], row["name"], row["note"]) == ("Set of eight arrows", 8, None, None)
    assert row["image_url"] == "http://example.com/b/4657437.jpg"
    info = rows["test"].info
    assert info.splits["test"].num_examples == 3
    assert "Teaching {CLIP} to Count to Ten" in info.citation
    assert info.description.splitlines()[2:] == [
        "test: 3 of the published 540 images.",
        "Captions whose first number is not the one that counts: 1 (003).",
        "Rows with the image of another row: 2 (003, 004).",
        "Left out, missing an image for each caption: 2 (002 (not found), 004 (not found)).",
    ]
    assert rows["test"][2]["note"] == "the first number that the caption states is 'Two'"


def test_missing_images_can_be_kept_or_refused(countbench: Path, load: Load) -> None:
    (countbench / "images" / "004.jpg").write_text("<html>Not found</html>")
    (countbench / "images" / "002.jpg").write_bytes(b"")
    rows = load("countbench", data_dir=str(countbench), missing="keep", split="test")
    assert len(rows) == 5
    assert (rows[4]["image"], rows[4]["note"]) == (None, "no image: no image")
    assert "Kept, missing an image for each caption: 2 (002 (" in rows.info.description
    with pytest.raises(FileNotFoundError, match=r"an image for each caption in .*CountBench, but 2 are missing: 002"):
        load("countbench", data_dir=str(countbench), missing="error", streaming=True)
    with pytest.raises(ValueError, match="missing to be one of error, leave_out, keep, but got 'drop'"):
        load("countbench", data_dir=str(countbench), missing="drop", streaming=True)


@pytest.mark.parametrize("archive", ["images.zip", "images.tar", "images.tar.gz"])
def test_images_in_an_archive_are_the_same(countbench: Path, load: Load, plain_rows: Callable, archive: str) -> None:
    loose = plain_rows(load("countbench", data_dir=str(countbench), split="test"))
    pack(countbench, archive)
    packed = load("countbench", data_dir=str(countbench), split="test")
    assert plain_rows(packed) == loose
    assert plain_rows(load("countbench", data_dir=str(countbench), split="test", streaming=True)) == loose


def test_images_are_found_by_their_names_on_the_web(countbench: Path, load: Load, save_image: Callable) -> None:
    for file in (countbench / "images").iterdir():
        file.unlink()
    # Two rows have the image called "th": it could be either's.
    for name in ("three-light-bulbs.jpg", "4657437.jpg", "ten cats.png", "th.png", "stray.png"):
        save_image(countbench / "images" / name)
    rows = load("countbench", data_dir=str(countbench), split="test")
    assert rows["image_id"][:] == ["000", "001", "002"]
    assert "Images that belong to no row: 2 (stray.png, th.png)." in rows.info.description
    by_place = load("countbench", data_dir=str(countbench), split="test", image_names="place", missing="keep")
    assert all(image is None for image in by_place["image"])
    with pytest.raises(ValueError, match="image_names to be one of auto, place, web, but got 'url'"):
        load("countbench", data_dir=str(countbench), image_names="url", streaming=True)


@pytest.mark.parametrize("form", ["struct", "binary"])
def test_parquet_form_that_people_share(countbench: Path, load: Load, form: str) -> None:
    entries = json.loads((countbench / "CountBench.json").read_text())
    contents = [png(1), None, png(3), b"<html>", png(5)]
    images: list[Any] = contents if form == "binary" else [one and {"bytes": one, "path": None} for one in contents]
    table = {"image": images, **{key: [entry[key] for entry in entries] for key in ("text", "number")}}
    if form == "struct":
        table["image_url"] = [entry["image_url"] for entry in entries]
    parquet = countbench / "parquet"
    (parquet / "data").mkdir(parents=True)
    datasets.Dataset.from_dict(table).to_parquet(str(parquet / "data" / "train-00000-of-00001.parquet"))
    rows = load("countbench", data_dir=str(parquet), split="test")
    assert rows["image_id"][:] == ["000", "002", "004"]
    assert [image.getpixel((0, 0))[0] for image in rows["image"]] == [1, 3, 5]
    assert rows["image_url"][:] == ([entry["image_url"] for entry in entries][::2] if form == "struct" else [None] * 3)
    assert "2 (001 (no image), 003 (no image))" in rows.info.description


def test_parquet_without_its_columns_is_named(tmp_path: Path, load: Load) -> None:
    datasets.Dataset.from_dict({"image": [b"1"], "text": ["two"]}).to_parquet(str(tmp_path / "a.parquet"))
    message = r"columns image, text, number in .*a\.parquet, but number is not among image, text"
    with pytest.raises(ValueError, match=message):
        load("countbench", data_dir=str(tmp_path), streaming=True)
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"a\.parquet to be a parquet file, but it cannot be read"):
        load("countbench", data_dir=str(tmp_path), streaming=True)
    datasets.Dataset.from_dict({"image": [7], "text": ["two"], "number": [2]}).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(ValueError, match="bytes of images in the column 'image' of .*, but got int64"):
        load("countbench", data_dir=str(tmp_path), streaming=True)


# The network


QUICK = {"allow_private": True, "backoff": 0.01, "host_delay": 0, "retries": 1}


def test_missing_images_are_fetched(countbench: Path, load: Load, change_json: Callable, web: Any) -> None:
    urls = {2: web.put("/ten.png", png(77)), 4: web.put("/th", b"<html>gone</html>")}
    change_json(
        countbench / "CountBench.json",
        lambda content: [entry.update(image_url=urls.get(place, "")) for place, entry in enumerate(content)],
    )
    rows = load("countbench", data_dir=str(countbench), fetch=True, fetch_options=QUICK, split="test")
    assert web.requests == {"/ten.png": 1, "/th": 1}
    assert rows["image_id"][:] == ["000", "001", "002", "003"]
    assert rows[2]["image"].getpixel((0, 0)) == (77, 1, 2)
    assert (countbench / "images" / "002.png").read_bytes() == png(77)
    assert "1 (004 (the server sent a web page))" in rows.info.description
    assert sorted(path.name for path in (countbench / "images").iterdir()) == [
        *("000.jpg", "001.jpg", "002.png", "003.jpg")
    ]
    # What was fetched is there without the network.
    again = load("countbench", data_dir=str(countbench), split="test")
    assert again["image_id"][:] == ["000", "001", "002", "003"]


def test_everything_can_be_fetched(countbench: Path, load: Load, tmp_path: Path, monkeypatch, web: Any) -> None:
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "downloads")
    monkeypatch.setattr("count_clip.datasets_scripts.builders.countbench.JSON_URL", f"{web.url}/CountBench.json")
    options = {"fetch": True, "fetch_options": QUICK}
    with pytest.raises(ConnectionError, match=r"CountBench\.json at http://.*fetched: the server answered 404"):
        load("countbench", **options)
    web.put("/CountBench.json", b'[{"text": "th')
    with pytest.raises(ValueError, match="cut short"):
        load("countbench", **options)
    entries = json.loads((countbench / "CountBench.json").read_text())
    for place, entry in enumerate(entries):
        entry["image_url"] = f"{web.url}/{place}.png"
    web.put("/CountBench.json", json.dumps(entries).encode())
    web.put("/1.png", png(5))
    web.requests.clear()
    rows = load("countbench", **options, split="test")
    assert rows["image_id"][:] == ["001"]
    assert "4 (000 (the server answered 404), 002 (the server answered 404)" in rows.info.description
    # More is there the next time, and the rows are not those of the cache.
    web.put("/2.png", png(6))
    rows = load("countbench", **options, split="test")
    assert rows["image_id"][:] == ["001", "002"]
    assert web.requests["/CountBench.json"] == 1


def test_images_are_fetched_over_http_with_care(countbench: Path, load: Load, change_json: Callable, web: Any) -> None:
    """A server that is tired at first, one that has only a page, one that cuts the answer, and one that is private."""
    for file in (countbench / "images").iterdir():
        file.unlink()
    urls = [
        web.put("/a.jpg", png(5), status=[503, 200]),
        web.put("/b.jpg", b"<html>gone</html>", Content_Type="text/html"),
        web.put("/c.jpg", png(6)[:40], Content_Length="900"),
        "http://no-such-server.invalid/d.jpg",
        web.put("/e.jpg", png(7)),
    ]
    change_json(
        countbench / "CountBench.json", lambda c: [e.update(image_url=u) for e, u in zip(c, urls, strict=True)]
    )
    rows = load("countbench", data_dir=str(countbench), fetch=True, fetch_options=QUICK, split="test")
    assert rows["image_id"][:] == ["000", "004"]
    assert rows[1]["image"].getpixel((0, 0)) == (7, 1, 2)
    assert web.requests == {"/a.jpg": 2, "/b.jpg": 1, "/c.jpg": 2, "/e.jpg": 1}
    (left_out,) = [line for line in rows.info.description.splitlines() if line.startswith("Left out")]
    assert "001 (the server sent text/html)" in left_out
    assert "002 (cut short: " in left_out
    assert "003 (there is no server no-such-server.invalid: " in left_out
    # By default no list may make this machine send requests to its own network.
    rows = load("countbench", data_dir=str(countbench), fetch=True, missing="keep", split="test")
    assert "127.0.0.1 is this machine or in its own network" in rows[1]["note"]
    assert web.requests["/e.jpg"] == 1, "what is there is not fetched again"
    with pytest.raises(ValueError, match="options of FetchConfig in fetch_options, but .*'patience'"):
        load("countbench", data_dir=str(countbench), fetch=True, fetch_options={"patience": 1}, streaming=True)


# What cannot be right


def test_missing_files_are_named(countbench: Path, load: Load, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected data_dir, the folder with countbench .*raw\.githubusercontent"):
        load("countbench")
    with pytest.raises(FileNotFoundError, match=r"a folder at .*nowhere, but there is none.*fetch=True"):
        load("countbench", data_dir=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"CountBench\.json, but there is none \(and no parquet file"):
        load("countbench", data_dir=str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=r"Expected images at .*photos\.zip, but there is nothing"):
        load("countbench", data_dir=str(countbench), images="photos.zip")
    os.rename(countbench / "images", countbench / "photos")
    with pytest.raises(FileNotFoundError, match=r"in a folder images or an archive images\.zip, but there is neither"):
        load("countbench", data_dir=str(countbench))
    assert len(load("countbench", data_dir=str(countbench), images="photos", split="test")) == 3
    with pytest.raises(ValueError, match="images of CountBench to name something inside .* which leads out of it"):
        load("countbench", data_dir=str(countbench), images="../CountBench/photos")
    with pytest.raises(ValueError, match="Expected data_dir, the folder with the files of 'countbench', but"):
        load("countbench", data_files="CountBench.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.clear(), r"CountBench\.json to be a list of captions, but got list without any"),
        (lambda c: c[1].pop("text"), r"row 1 of .*CountBench\.json to have 'text'"),
        (lambda c: c[1].pop("image_url"), "row 1 of .* to have 'image_url'"),
        (lambda c: c[2].update(number="ten"), "row 2 of .* to have 'number'"),
        (lambda c: c[2].update(number=11), "a number from 2 to 10 in row 2 of .*, but got 11"),
        (lambda c: c[2].update(number=-2), "a number from 2 to 10 in row 2 of .*, but got -2"),
    ],
)
def test_bad_captions_are_named(
    countbench: Path, load: Load, change_json: Callable, change: Callable, message: str
) -> None:
    change_json(countbench / "CountBench.json", change)
    with pytest.raises(ValueError, match=message):
        load("countbench", data_dir=str(countbench), streaming=True)


def test_json_cut_in_the_middle_is_named(countbench: Path, load: Load) -> None:
    content = (countbench / "CountBench.json").read_text()
    (countbench / "CountBench.json").write_text(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"CountBench\.json to be json, but it is not: .* cut short"):
        load("countbench", data_dir=str(countbench), streaming=True)


def test_archive_that_leads_out_is_refused(countbench: Path, load: Load, tmp_path: Path) -> None:
    os.rename(countbench / "images", tmp_path / "aside")
    with zipfile.ZipFile(countbench / "images.zip", "w") as packed:
        packed.writestr("images/000.jpg", png())
        packed.writestr("../001.jpg", png())
    with pytest.raises(ValueError, match=r"inside .*images\.zip, but got '\.\./001\.jpg', which leads out of it"):
        load("countbench", data_dir=str(countbench), streaming=True)
    assert not (tmp_path / "001.jpg").exists()


# The published file


def test_published_captions_have_the_known_faults(shared: Path, load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "CountBench"
    (folder / "images").mkdir(parents=True)
    source = shared / "data" / "countbench" / "CountBench.json"
    (folder / "CountBench.json").write_bytes(source.read_bytes())
    for place in range(540):
        (folder / "images" / f"{place}.png").write_bytes(png(place % 250))
    rows = load("countbench", data_dir=str(folder), split="test")
    assert Counter(rows["number"]) == dict.fromkeys(range(2, 11), 60)
    published = json.loads(source.read_text())
    assert rows["text"][:] == [entry["text"] for entry in published]
    assert rows["image_url"][:] == [entry["image_url"] for entry in published]
    assert [image.getpixel((0, 0))[0] for image in rows["image"]] == [place % 250 for place in range(540)]
    assert rows.info.description.splitlines()[2] == "test: 540 images."
    assert "Rows with the image of another row: 4 (" in rows.info.description
    noted = [image_id for image_id, note in zip(rows["image_id"], rows["note"], strict=True) if note]
    assert {"021", "073", "470", "504"} <= set(noted)
