import json

import numpy as np
import pytest
import torch
from PIL import Image

from count_clip.cli import main


pytest.importorskip("faiss", reason="an index needs FAISS: pip install count-clip[retrieval]")


@pytest.fixture
def index(counting_folder, capsys, tmp_path):
    def build(*options, model=counting_folder, output=tmp_path / "index"):
        code = main(["index", "--model", model, "--output", str(output), *map(str, options)])
        return code, *capsys.readouterr()

    return build


@pytest.fixture
def search(capsys, tmp_path):
    def find(*options, folder=tmp_path / "index"):
        code = main(["search", str(folder), *map(str, options)])
        return code, *capsys.readouterr()

    return find


def test_images_of_a_folder_are_found(index, search, photos, tmp_path):
    code, printed, _ = index(photos)
    assert (code, printed) == (0, f"2 images in {tmp_path / 'index'}\n")
    code, printed, remarks = search("three dogs", "--top", 5)
    assert code == 0
    lines = [line.split() for line in printed.splitlines()]
    assert sorted(path for _, path in lines) == sorted(map(str, (photos / "a.png", photos / "more" / "b.JPG")))
    assert float(lines[0][0]) >= float(lines[1][0])
    assert "the index has 2 images, fewer than --top 5" in remarks


def test_json_overlay_and_sheet(index, search, photos, tmp_path):
    assert index(photos)[0] == 0
    code, printed, _ = search(
        "three dogs", "two X", "--top", 1, "--json", "--overlay", tmp_path / "why", "--sheet", tmp_path / "found.png"
    )
    assert code == 0
    records = [json.loads(line) for line in printed.splitlines()]
    assert [(record["text"], record["rank"]) for record in records] == [("three dogs", 1), ("two X", 1)]
    assert sorted(path.name.split("_")[1] for path in (tmp_path / "why").iterdir()) == ["three-dogs.png", "two-x.png"]
    with Image.open(tmp_path / "found.png") as sheet:
        assert sheet.width > sheet.height


def test_a_bad_image_is_reported_and_a_second_build_encodes_what_is_new(
    index, photos, make_image, tmp_path, monkeypatch
):
    (photos / "broken.png").write_bytes(b"no image")
    code, printed, remarks = index(photos, "--json")
    assert code == 1
    record = json.loads(printed)
    assert record["images"] == 2
    assert [one["image_id"] for one in record["skipped"]] == [str(photos / "broken.png")]
    assert "broken.png cannot be read as an image" in remarks
    make_image(40, 40, 5).save(photos / "broken.png")
    from count_clip.evaluation.inference.encoding import Encoder

    encoded = []
    images = Encoder.images
    monkeypatch.setattr(Encoder, "images", lambda self, batch: (encoded.extend(batch), images(self, batch))[1])
    assert index(photos)[0] == 0
    assert [one.size for one in encoded] == [(40, 40)]


def test_frames_of_a_video_are_found_and_shown(index, search, tmp_path):
    av = pytest.importorskip("av")
    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(25):
            pixels = np.full((48, 64, 3), 10 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_image(Image.fromarray(pixels))))
        container.mux(stream.encode(None))
    assert index(film, "--every", 1)[1].startswith("3 images")
    code, printed, _ = search("three dogs", "--json", "--overlay", tmp_path / "why")
    assert code == 0
    assert sorted(json.loads(line)["time"] for line in printed.splitlines()) == [0.0, 1.0, 2.0]
    assert len(list((tmp_path / "why").iterdir())) == 3


def test_images_of_a_data_set_are_found_by_their_rows(index, search, make_image, tmp_path):
    for seed in range(3):
        make_image(40, 40, seed).save(tmp_path / f"{seed}.png")
    rows = [{"file_name": f"{seed}.png", "image_id": f"row {seed}"} for seed in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert index("--data", tmp_path / "rows.jsonl")[0] == 0
    code, printed, _ = search("dogs", "--json", "--sheet", tmp_path / "found.png")
    assert code == 0
    for line in printed.splitlines():
        found = json.loads(line)
        assert found["image_id"] == f"row {found['row']}"
        assert found["file"] == str(tmp_path / f"{found['row']}.png")


def test_scenes_have_no_files_and_are_drawn_again(index, search, tmp_path):
    options = (
        "--data",
        "countscenes",
        "--split",
        "test",
        "--config",
        "benchmark",
        "--limit",
        4,
        "--objects",
        "shapes",
    )
    assert index(*options)[0] == 0
    code, printed, _ = search("dogs", "--top", 2, "--overlay", tmp_path / "why")
    assert code == 0
    assert len(list((tmp_path / "why").iterdir())) == 2
    assert "benchmark-test-0-00000" in printed


def test_a_image_that_has_gone_since_is_reported(index, search, photos, tmp_path):
    index(photos)
    (photos / "a.png").unlink()
    code, printed, remarks = search("dogs", "--overlay", tmp_path / "why")
    assert code == 1
    assert len(printed.splitlines()) == 2
    assert "There is no file" in remarks
    assert len(list((tmp_path / "why").iterdir())) == 1


def test_another_model_is_refused(index, search, photos, counting_model, counting_processor, tmp_path):
    with torch.no_grad():
        counting_model.logit_scale += 1
    counting_model.save_pretrained(tmp_path / "other")
    counting_processor.save_pretrained(tmp_path / "other")
    assert index(photos)[0] == 0
    for code, _, remarks in (
        search("dogs", "--model", tmp_path / "other"),
        index(photos, model=str(tmp_path / "other")),
    ):
        assert code == 2
        assert "was made with another model" in remarks
    # In another dtype it is the same model.
    assert search("dogs", "--dtype", "bfloat16")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere/"], "None of the 1 images can be read"),
        ([], "give either images or a data set"),
        (["a.png", "--data", "rows.jsonl"], "give either images or a data set"),
        (["empty"], "there are no images or videos in empty"),
        (["--data", "gone.jsonl"], "gone.jsonl"),
    ],
)
def test_bad_input_of_index(index, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, printed, remarks = index(*options)
    assert (code, printed) == (2, "")
    assert message in remarks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["x" * 60], "62 tokens"),
        ([" "], "the text is empty"),
        (["dogs", "--sheet", "found.txt"], "is no image format"),
        (["dogs", "--model", "gone/"], "gone/"),
    ],
)
def test_bad_input_of_search(index, search, photos, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    index(photos)
    code, printed, remarks = search(*options)
    assert (code, printed) == (2, "")
    assert message in remarks


def test_search_needs_an_index(search, tmp_path):
    code, _, remarks = search("dogs", folder=tmp_path)
    assert code == 2
    assert "There is no index of images" in remarks
