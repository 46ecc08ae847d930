"""Frames of videos that the tests make themselves; skipped where PyAV is not installed."""

import csv
import json
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from count_clip.cli import main
from count_clip.commands.shared.inputs import find_inputs
from count_clip.videos import VideoError, expected_frames, read_frames


av = pytest.importorskip("av", reason="videos need PyAV: pip install count-clip[video]")

RATE = 10


def _gray(index: int) -> int:
    """How bright frame `index` is: far enough from its neighbours to survive the encoding."""
    return 20 + 9 * index


@pytest.fixture
def film(tmp_path: Path) -> Callable[..., Path]:
    """Writes a video whose brightness is the number of the frame, with a white upper left quarter."""

    def write(
        name: str = "film.mp4",
        frames: int = 25,
        size: tuple[int, int] = (64, 48),
        shift: int = 0,
        codec: str = "mpeg4",
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=RATE)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.bit_rate = 4_000_000  # so much that the brightness survives
            stream.time_base = Fraction(1, RATE)
            for index in range(frames):
                pixels = np.full((size[1], size[0], 3), _gray(index), dtype=np.uint8)
                pixels[: size[1] // 2, : size[0] // 2] = 255
                frame = av.VideoFrame.from_image(Image.fromarray(pixels))
                frame.pts = index + shift
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


def _number(image: Image.Image) -> int:
    """The frame's number, from the lower right quarter, which is gray in every orientation used here but one."""
    pixels = np.asarray(image.convert("L"), dtype=float)
    height, width = pixels.shape
    return round((pixels[height * 5 // 8 : height * 7 // 8, width * 5 // 8 : width * 7 // 8].mean() - 20) / 9)


@pytest.mark.parametrize(
    ("every", "max_frames", "indices"),
    [
        (1.0, None, [0, 10, 20]),
        (0.5, None, [0, 5, 10, 15, 20]),
        (0.25, 4, [0, 3, 5, 8]),  # the first frame at or after 0, 0.25, 0.5 and 0.75 s
        (100.0, None, [0]),
        (0, None, list(range(25))),
        (0, 3, [0, 1, 2]),
        (0.01, None, list(range(25))),
    ],
)
def test_frames_are_taken_at_even_distances(film, every, max_frames, indices) -> None:
    path = film()
    frames = list(read_frames(path, every, max_frames))
    assert [frame.index for frame in frames] == indices
    assert [_number(frame.image) for frame in frames] == indices
    assert [frame.time for frame in frames] == pytest.approx([index / RATE for index in indices])
    assert {(frame.image.size, frame.image.mode) for frame in frames} == {((64, 48), "RGB")}
    assert expected_frames(path, every, max_frames) == len(indices)


def test_time_starts_with_the_first_frame(film) -> None:
    frames = list(read_frames(film("late.mkv", frames=12, shift=70), 0.5))
    assert [(frame.index, round(frame.time, 3)) for frame in frames] == [(0, 0.0), (5, 0.5), (10, 1.0)]


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((0, 1, -1, 0), (1, 0)),  # a quarter to the right: the upper left corner comes to the upper right
        ((0, -1, 1, 0), (0, 1)),  # a quarter to the left
        ((-1, 0, 0, -1), (1, 1)),
    ],
)
def test_frames_stand_upright_as_players_show_them(film, matrix, corner) -> None:
    path = film(frames=2)
    data = bytearray(path.read_bytes())
    # The track header ends with the matrix (a b u c d v x y w) and the size, ISO 14496-12, 8.3.2.
    place = data.index(b"tkhd") - 4
    (length,) = struct.unpack_from(">I", data, place)
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, place + length - 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    image = next(read_frames(path)).image
    assert image.size == ((48, 64) if matrix[0] == 0 else (64, 48))
    column, row = corner
    pixels = np.asarray(image.convert("L"))
    white = pixels[image.height * (1 + 4 * row) // 8 + 4, image.width * (1 + 4 * column) // 8 + 4]
    assert white > 240
    assert np.mean(pixels > 200) == pytest.approx(0.25, abs=0.03)


def test_what_cannot_be_read_is_named(film, tmp_path, monkeypatch) -> None:
    with pytest.raises(VideoError, match="There is no file .*gone.mp4"):
        list(read_frames(tmp_path / "gone.mp4"))
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 500)
    with pytest.raises(VideoError, match="junk.mp4 cannot be read as a video"):
        list(read_frames(tmp_path / "junk.mp4"))
    assert expected_frames(tmp_path / "junk.mp4") == expected_frames(tmp_path / "gone.mp4") == 1
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="sound.mp4 holds no images, only audio"):
        list(read_frames(sound))
    for wrong in ({"every": -1.0}, {"every": float("nan")}, {"max_frames": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            list(read_frames(film(), **wrong))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r"needs PyAV: pip install 'count-clip\[video\]'"):
        list(read_frames(film_path := tmp_path / "film.mp4"))
    assert expected_frames(film_path) == 1


def test_count_takes_frames_of_videos_beside_images(film, make_image, density_folder, tmp_path, capsys) -> None:
    film(frames=15)
    make_image(60, 48, 0).save(tmp_path / "a.png")
    (tmp_path / "junk.mkv").write_bytes(b"junk" * 500)
    table, overlays = tmp_path / "out" / "counts.csv", tmp_path / "out" / "overlays"
    arguments = ["count", str(tmp_path), "--text", "cats", "--text", "dogs", "--model", density_folder, "--json"]
    arguments += ["--every", "0.5", "--csv", str(table), "--overlay", str(overlays)]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    records = [json.loads(line) for line in captured.out.splitlines()]
    names = [(Path(record["file"]).name, record.get("time"), record["text"]) for record in records]
    places = [("a.png", None), ("film.mp4", 0.0), ("film.mp4", 0.5), ("film.mp4", 1.0), ("junk.mkv", None)]
    assert names == [(name, time, text) for name, time in places for text in ("cats", "dogs")]
    assert ["count" in record for record in records] == [True] * 8 + [False] * 2
    assert "junk.mkv cannot be read as a video" in records[-1]["error"]
    assert "1 of 3 files could not be counted" in captured.err
    assert (records[2]["width"], records[2]["height"]) == (64, 48)
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["time"], row["text"]) for row in rows[:3]] == [("", "cats"), ("", "dogs"), ("0.0", "cats")]
    assert float(rows[4]["count"]) == records[4]["count"]
    drawn = sorted(path.name for path in overlays.iterdir())
    assert drawn == sorted(
        f"{stem}_{text}.png"
        for stem in ("a", "film-00000.000s", "film-00000.500s", "film-00001.000s")
        for text in ("cats", "dogs")
    )


def test_a_frame_is_counted_like_the_same_image(film, density_folder, tmp_path, capsys) -> None:
    path = film(frames=11)
    for index, frame in enumerate(read_frames(path, 1.0)):
        frame.image.save(tmp_path / f"frame-{index}.png")
    common = ["--text", "cats", "--model", density_folder, "--json"]
    assert main(["count", str(path), *common, "--max-frames", "2"]) == 0
    of_video = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["count", str(tmp_path / "frame-*.png"), *common]) == 0
    of_images = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["count"] for record in of_video] == pytest.approx(
        [record["count"] for record in of_images], abs=2e-3
    )
    assert len(of_video) == 2


def test_a_damaged_video_yields_the_frames_before_the_damage(film, density_folder, tmp_path, capsys) -> None:
    path = film("cut.mkv", codec="ffv1")
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][15]
    data = bytearray(path.read_bytes())
    start = packet.pos + 12  # past the beginning of Matroska's block
    data[start : start + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    assert main(["count", str(path), "--text", "cats", "--model", density_folder, "--every", "0.7"]) == 1
    captured = capsys.readouterr()
    assert [line.split("cut.mkv ")[1] for line in captured.out.splitlines()] == ["at 0.00 s", "at 0.70 s", "at 1.40 s"]
    assert "cut.mkv cannot be read as a video" in captured.err


def test_without_pyav_a_video_is_reported_and_the_images_are_counted(
    film, make_image, density_folder, tmp_path, capsys, monkeypatch
) -> None:
    film()
    make_image(60, 48, 0).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["count", str(tmp_path), "--text", "cats", "--model", density_folder]) == 1
    captured = capsys.readouterr()
    assert "film.mp4 is a video; reading it needs PyAV" in captured.err
    assert len(captured.out.splitlines()) == 1


def test_folders_and_patterns_find_videos(film, tmp_path) -> None:
    path = film("more.MKV")
    assert find_inputs([str(tmp_path)]) == find_inputs([str(tmp_path / "*")]) == [path]
