import json

import pytest

from count_clip.cli import main


@pytest.fixture
def run(density_folder, capsys):
    """Run the command; returns its exit code and output."""

    def evaluate(*options, model=density_folder):
        code = main(["evaluate", "praco", "--model", model, *map(str, options)])
        return code, *capsys.readouterr()

    return evaluate


@pytest.fixture
def coco(make_image, tmp_path):
    """Three images: people and a dog; people, some of them a crowd, and a dog; a bus."""
    folder = tmp_path / "coco"
    (folder / "images").mkdir(parents=True)
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(3)],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "bus"}],
        "annotations": [
            {"image_id": image_id, "category_id": category, "bbox": [1, 1, 9, 9], "iscrowd": crowd}
            for image_id, category, crowd in [
                (0, 1, 0),
                (0, 1, 0),
                (0, 2, 0),
                (1, 1, 1),
                (1, 1, 0),
                (1, 2, 0),
                (2, 3, 0),
            ]
        ],
    }
    for i in range(3):
        make_image(48, 48, i).save(folder / "images" / f"{i}.png")
    (folder / "val.json").write_text(json.dumps(content))
    return folder


def test_scenes_give_a_table_and_json(run, tmp_path):
    path = tmp_path / "result.json"
    code, printed, _ = run("--limit", 3, "--image-size", 64, "--negatives", 2, "--json", path, "--seed", 1)
    assert code == 0
    result = json.loads(path.read_text())
    assert result["protocol"] == "praco"
    assert (result["data"], result["config"], result["split"], result["image_size"]) == (
        "countscenes",
        "mixed",
        "test",
        64,
    )
    assert (result["seed"], result["options"]["seed"], result["options"]["num_negatives"]) == (1, 1, 2)
    assert {"torch", "transformers"} <= set(result["run"]["versions"])
    assert (result["num_images"], result["num_mosaics"]) == (3, 3)
    figures = result["figures"]
    assert figures["absent"]["n"] == 6
    lines = printed.splitlines()
    assert lines[0].endswith("on countscenes (test), 3 images, 3 mosaics")
    cells = {line.split("  ")[0]: line.split() for line in lines}
    assert f"{figures['absent']['mae']:.2f}" in cells["an absent class"]
    assert f"{result['counts_all']['named']['mae']:.2f}" == cells["the first class"][-1]
    assert f"{figures['nmn']:.3f}" in cells["NMN: count of absent classes per true object"]
    assert f"{figures['f1']:.3f}" in cells["counting F1 on mosaics"]


def test_annotated_folder_uses_plurals_and_skips_crowds(run, coco, tmp_path):
    path = tmp_path / "result.json"
    code, printed, remarks = run(
        "--data", coco, "--format", "coco", "--split", "val", "--negatives", "all", "--mosaics", "all", "--json", path
    )
    assert code == 0
    result = json.loads(path.read_text())
    asked = {
        image["image_id"]: {prompt["text"]: (prompt["count"], prompt["role"]) for prompt in image["prompts"]}
        for image in result["images"]
    }
    assert {name: {text: count for text, (count, _) in prompts.items()} for name, prompts in asked.items()} == {
        "0": {"people": 2, "dogs": 1, "buses": 0},
        "1": {"dogs": 1, "buses": 0},
        "2": {"buses": 1, "people": 0, "dogs": 0},
    }
    assert [prompts["buses"][1] for prompts in asked.values()] == ["absent", "absent", "named"]
    assert result["options"]["num_negatives"] is None
    assert "3 images" in printed
    assert "images without a second class: 2" in remarks


def test_a_limit_means_images(run, coco, tmp_path):
    path = tmp_path / "result.json"
    assert run("--data", coco, "--format", "coco", "--split", "val", "--limit", 2, "--json", path)[0] == 0
    assert [image["image_id"] for image in json.loads(path.read_text())["images"]] == ["0", "1"]


def test_local_rows_can_take_what_is_not_listed_as_absent(run, make_image, tmp_path):
    for name in "ab":
        make_image(48, 48).save(tmp_path / f"{name}.png")
    rows = [{"file_name": f"{name}.png", "image_id": name, "text": name * 3, "count": 2} for name in "ab"]
    rows.append({"file_name": "gone.png", "image_id": "c", "text": "aaa", "count": 2})
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    code, printed, remarks = run("--data", data)
    assert (code, printed) == (2, "")
    assert "unlisted_are_absent=True" in remarks
    code, printed, remarks = run("--data", data, "--unlisted-are-absent", "--limit", 3)
    # One of them is not there.
    assert code == 1
    assert "2 images, 2 mosaics" in printed
    assert "gone.png" in remarks


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config", "captions"], "count"),
        (["--config", "density", "--limit", "2", "--image-size", "64"], "none of the 2 images has both"),
        (["--data", "nowhere", "--format", "coco"], "Expected a folder at"),
        (["--data", "nowhere"], "no data set nowhere"),
        (["--negatives", "0"], "at least 1"),
        (["--mosaics", "some"], "--mosaics"),
    ],
)
def test_invalid_data_is_rejected(run, options, words):
    code, printed, remarks = run(*options)
    assert (code, printed) == (2, "")
    assert words in remarks


def test_other_model_types_are_rejected(run, counting_folder):
    code, _, remarks = run("--limit", 2, model=counting_folder)
    assert code == 2
    assert "'count_clip'; expected a density model" in remarks
