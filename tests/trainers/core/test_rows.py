import datasets
import pytest
import torch
from PIL import Image

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.trainers.core.rows import Rows, as_rows


def test_images_of_any_mode_become_rgb():
    rows = [{"image": Image.new(mode, (4, 5)), "text": "x"} for mode in ("L", "RGBA", "P", "CMYK", "I;16")]
    assert [row["image"].mode for row in (Rows(rows)[i] for i in range(len(rows)))] == ["RGB"] * len(rows)


def _dataset_with_broken_file(tmp_path) -> datasets.Dataset:
    paths = [tmp_path / "good.png", tmp_path / "broken.jpg"]
    Image.new("RGB", (9, 9)).save(paths[0])
    paths[1].write_bytes(b"this is no image")
    features = datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("string")})
    columns = {"image": [str(path) for path in paths], "image_id": ["one", "two"]}
    return datasets.Dataset.from_dict(columns, features=features)


def test_broken_file_of_a_dataset_is_named(tmp_path):
    rows = Rows(_dataset_with_broken_file(tmp_path))
    assert rows[0]["image"].size == (9, 9)
    with pytest.raises(ValueError, match=r"row 1 \(image_id 'two', file .*broken\.jpg"):
        rows[1]


def test_broken_file_is_named_inside_selections_and_concatenations(tmp_path):
    rows = Rows(_dataset_with_broken_file(tmp_path))
    with pytest.raises(ValueError, match=r"row 2 \(image_id 'two', file .*broken\.jpg"):
        (rows + rows.select([1, 0]))[2]


def test_missing_image_is_named():
    with pytest.raises(ValueError, match=r"row 0 \(image_id 'a'\).*columns are \['image', 'image_id'\]"):
        Rows([{"image_id": "a", "image": None}])[0]


def test_streams_are_refused():
    class Stream(torch.utils.data.IterableDataset):
        pass

    with pytest.raises(TypeError, match="Stream"):
        Rows(Stream())


def test_columns_are_read_without_drawing_images(monkeypatch):
    scenes = CountScenes("train", "captions", objects="shapes", num_scenes=6, image_size=64)
    expected = [scenes[i]["text"] for i in range(6)]
    monkeypatch.setattr(CountScenes, "__getitem__", lambda self, index: pytest.fail("drew a scene"))
    rows = Rows(scenes)
    assert rows.column("text") == expected
    assert rows.column("is_counting") == [None] * 6
    assert rows.with_values(is_counting=False).column("is_counting") == [False] * 6
    assert (rows.select([4, 1]) + rows).column("text") == [expected[4], expected[1], *expected]


def test_of_several_parts_only_the_selected_rows_are_planned(monkeypatch):
    parts = [CountScenes("train", "captions", objects="shapes", num_scenes=5, seed=seed) for seed in (0, 1)]
    rows = Rows(parts[0]) + Rows([{"text": "a"}, {"text": "b"}]) + Rows(parts[1])
    expected = rows.column("text")
    planned = []
    column = CountScenes.column
    monkeypatch.setattr(
        CountScenes,
        "column",
        lambda self, name, indices=None: planned.append(list(indices)) or column(self, name, indices),
    )
    selected = [11, 0, 6, 4, 0, -1]
    assert rows.select(selected).column("text") == [expected[index] for index in selected]
    assert planned == [[0, 4, 0], [4, 4]]


def test_columns_of_lists_and_datasets():
    rows = Rows([{"number": 2, "text": "a"}, {"text": "b"}])
    assert rows.column("number") == [2, None]
    assert rows.column("text") == ["a", "b"]
    data = Rows(datasets.Dataset.from_list([{"number": 3}, {"number": 4}]))
    assert data.column("number") == [3, 4]
    assert data.select([1]).column("number") == [4]
    assert data.column("count") == [None, None]


def test_only_map_style_data_is_wrapped():
    stream = datasets.Dataset.from_list([{"a": 1}]).to_iterable_dataset()
    wrapped = as_rows({"x": [{"a": 1}], "name": "train", "stream": stream, "none": None})
    assert isinstance(wrapped["x"], Rows)
    assert as_rows(wrapped["x"]) is wrapped["x"]
    assert (wrapped["name"], wrapped["stream"], wrapped["none"]) == ("train", stream, None)
