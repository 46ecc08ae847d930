import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.trainers.core.rows import ImageRows, read_row, row_column


def test_images_come_in_rgb_whatever_their_mode():
    rows = [{"image": Image.new(mode, (4, 5)), "text": "x"} for mode in ("L", "RGBA", "P", "CMYK", "I;16")]
    assert [row["image"].mode for row in (ImageRows(rows)[i] for i in range(len(rows)))] == ["RGB"] * len(rows)


def _dataset_with_broken_file(tmp_path) -> datasets.Dataset:
    paths = [tmp_path / "good.png", tmp_path / "broken.jpg"]
    Image.new("RGB", (9, 9)).save(paths[0])
    paths[1].write_bytes(b"this is no image")
    features = datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("string")})
    columns = {"image": [str(path) for path in paths], "image_id": ["one", "two"]}
    return datasets.Dataset.from_dict(columns, features=features)


def test_broken_file_of_a_dataset_is_named(tmp_path):
    rows = ImageRows(_dataset_with_broken_file(tmp_path))
    assert rows[0]["image"].size == (9, 9)
    with pytest.raises(ValueError, match=r"row 1 \(image_id 'two', file .*broken\.jpg"):
        rows[1]


def test_broken_file_is_named_inside_subsets_and_concatenations(tmp_path):
    dataset = _dataset_with_broken_file(tmp_path)
    both = torch.utils.data.ConcatDataset([dataset, torch.utils.data.Subset(dataset, [1, 0])])
    with pytest.raises(ValueError, match="image_id 'two'"):
        read_row(both, 2)


def test_missing_image_is_named():
    with pytest.raises(ValueError, match=r"row 0 \(image_id 'a'\).*columns are \['image', 'image_id'\]"):
        read_row([{"image_id": "a", "image": None}], 0)


def test_streams_are_refused():
    class Stream(torch.utils.data.IterableDataset):
        pass

    with pytest.raises(TypeError, match="Stream"):
        ImageRows(Stream())


def test_columns_are_read_without_drawing_images(monkeypatch):
    scenes = CountScenes("train", "captions", objects="shapes", num_scenes=6, image_size=64)
    expected = [scenes[i]["text"] for i in range(6)]
    monkeypatch.setattr(CountScenes, "__getitem__", lambda self, index: pytest.fail("drew a scene"))
    assert row_column(scenes, "text") == expected
    assert row_column(scenes, "is_counting") == [None] * 6
    parts = torch.utils.data.ConcatDataset([torch.utils.data.Subset(scenes, [4, 1]), ImageRows(scenes)])
    assert row_column(parts, "text") == [expected[4], expected[1], *expected]


def test_of_several_parts_only_the_chosen_rows_are_planned(monkeypatch):
    parts = [CountScenes("train", "captions", objects="shapes", num_scenes=5, seed=seed) for seed in (0, 1)]
    parts.insert(1, [{"text": "a"}, {"text": "b"}])
    rows = torch.utils.data.ConcatDataset(parts)
    expected = row_column(rows, "text")
    asked = []
    column = CountScenes.column
    monkeypatch.setattr(
        CountScenes,
        "column",
        lambda self, name, indices=None: asked.append(list(indices)) or column(self, name, indices),
    )
    chosen = [11, 0, 6, 4, 0, -1]
    assert row_column(torch.utils.data.Subset(rows, chosen), "text") == [expected[index] for index in chosen]
    assert asked == [[0, 4, 0], [4, 4]]


def test_columns_of_lists_and_datasets():
    rows = [{"number": 2, "text": "a"}, {"text": "b"}]
    assert row_column(rows, "number") == [2, None]
    assert row_column(datasets.Dataset.from_list([{"number": 3}]), "number") == [3]
    assert row_column(datasets.Dataset.from_list([{"number": 3}]), "count") == [None]
    assert np.array(row_column(rows, "text")).tolist() == ["a", "b"]
