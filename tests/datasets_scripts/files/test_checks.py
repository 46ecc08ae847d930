from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from count_clip.datasets_scripts.builders.checks import entry_if_there, fix_boxes, fix_points, middles
from count_clip.datasets_scripts.files.checks import checked_size, leads_out, parse_json, those_there


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_size_is_that_of_the_decoded_image(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (40, 30))
    for orientation, size in ((1, (40, 30)), (3, (40, 30)), (6, (30, 40)), (8, (30, 40))):
        image.save(tmp_path / name, exif=turned(orientation))
        assert checked_size(tmp_path / name, None, None, "here") == size
    image.save(tmp_path / name)
    assert checked_size(tmp_path / name, 40, 30, "here") == (40, 30)


def test_size_of_a_png_is_known_without_its_pixels(tmp_path: Path, monkeypatch) -> None:
    Image.effect_noise((300, 200), 90).save(tmp_path / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
        assert checked_size(tmp_path / "a.png", None, None, "here") == (300, 200)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"an image at .*cut\.png \(here\), but it cannot be read"):
        checked_size(tmp_path / "cut.png", None, None, "here")
    # What comes after the pixels counts too.
    Image.new("L", (300, 200)).save(tmp_path / "b.png", exif=turned(6))
    other = (tmp_path / "b.png").read_bytes()
    start = other.index(b"eXIf") - 4
    chunk = other[start : start + 12 + int.from_bytes(other[start : start + 4], "big")]
    (tmp_path / "c.png").write_bytes(content[:-12] + chunk + content[-12:])
    assert checked_size(tmp_path / "c.png", None, None, "here") == (200, 300)


def test_keys_of_json_are_unique_at_every_depth() -> None:
    assert parse_json(b'{"a": [{"b": 1}, {"b": 2}]}', "x.json") == {"a": [{"b": 1}, {"b": 2}]}
    with pytest.raises(ValueError, match=r"each key of x\.json once, but 'b' is repeated"):
        parse_json(b'{"a": [{"b": 1, "c": 0, "b": 2}]}', "x.json")


@pytest.mark.parametrize("name", ["", "..", "../a", "a/../b", "/a", "C:a", "C:/a", "a\\b", "a\0b", "\\\\host\\a"])
def test_names_that_lead_out_are_recognised(name: str) -> None:
    assert leads_out(name)


@pytest.mark.parametrize("name", ["a", "a/b.png", "..a", "a..b/c", ".hidden", "ä b"])
def test_other_names_stay_inside(name: str) -> None:
    assert not leads_out(name)


def test_a_few_files_of_a_folder_are_listed(tmp_path: Path) -> None:
    assert those_there(tmp_path, "*") == "it is empty"
    assert those_there(tmp_path, "*.txt") == "there is no *.txt at all"
    for place in range(12):
        (tmp_path / f"{place:02d}.txt").touch()
    assert those_there(tmp_path, "*.txt").startswith("there are: 00.txt, 01.txt,")
    assert those_there(tmp_path, "*.txt").endswith("09.txt, ...")


# What published sets have


def test_points_a_little_outside_belong_to_the_edge() -> None:
    points, odd = fix_points([[-2, 5], [40, 30], [41.9, 31], [3, 3]], (40, 30), "here")
    assert points == [[0, 5], [39.99, 29.99], [39.99, 29.99], [3, 3]]
    assert [note for _, note in odd] == ["2 of the 4 points outside the image, moved to its edge"]
    assert fix_points([], (40, 30), "here") == ([], [])


@pytest.mark.parametrize("point", [[-2.1, 5], [42.1, 5], [5, -1.6], [5, 31.6], [1e9, 1]])
def test_points_farther_outside_are_refused(point: list) -> None:
    with pytest.raises(ValueError, match="point 1 of here to be inside the image of 40 x 30 pixels, but got"):
        fix_points([[1, 1], point], (40, 30), "here")


def test_points_that_differ_beyond_the_edge_are_not_repeated() -> None:
    _, odd = fix_points([[-1, 5], [-2, 5]], (40, 30), "here")
    assert [note for _, note in odd] == ["2 of the 2 points outside the image, moved to its edge"]


def test_boxes_are_turned_and_cut_but_never_dropped() -> None:
    boxes, odd = fix_boxes([[9, 8, 1, 2], [-1, 0, 5, 31], [3, 3, 3, 3]], (40, 30), "here")
    assert boxes == [[1, 2, 9, 8], [0, 0, 5, 30], [3, 3, 3, 3]]
    assert [note.split(" boxes ")[1].split()[0] for _, note in odd] == ["written", "reaching", "without"]
    assert middles([[0, 0, 40, 30], [40, 30, 40, 30]], (40, 30)) == [[20, 15], [39.99, 29.99]]


def test_first_of_the_usual_names_is_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").touch()
    assert entry_if_there(tmp_path, ["a", "b"], ["", "deep"]) == tmp_path / "deep" / "b"
    (tmp_path / "b").touch()
    assert entry_if_there(tmp_path, ["a", "b"], ["", "deep"]) == tmp_path / "b"
    assert entry_if_there(tmp_path, ["c"], ["", "deep"]) is None
