import json

import pytest

from count_clip.cli import main


@pytest.fixture
def run(counting_folder, capsys):
    def evaluate(*options):
        code = main(["evaluate", "retrieval", "--model", counting_folder, *map(str, options)])
        return code, *capsys.readouterr()

    return evaluate


def test_scenes_give_tables_and_json(run, tmp_path):
    path = tmp_path / "result.json"
    code, printed, _ = run("--limit", 18, "--image-size", 48, "--objects", "shapes", "--json", path)
    assert code == 0
    record = json.loads(path.read_text())
    assert (record["benchmark"], record["partial"], record["missing"]) == ("retrieval", True, 0)
    assert record["num_images"] == len(record["images"]) == 18
    metrics = record["metrics"]
    lines = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert f"{metrics['text_to_image_recall_at_5']:.1%}" in lines["image by caption"]
    assert f"{metrics['number_right']:.1%}" in lines["the number"]
    assert f"{metrics['both_chance']:.1%}" in lines["both"]
    assert set(record["intervals"]) <= set(metrics)


def test_captions_in_the_manner_of_coco(run, make_image, tmp_path):
    rows = []
    for seed in range(3):
        make_image(40, 40, seed).save(tmp_path / f"{seed}.png")
        rows.append({"file_name": f"{seed}.png", "text": [f"image {seed}", f"another {seed}"]})
    rows.append({"file_name": "gone.png", "text": ["nothing"]})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, printed, remarks = run("--data", tmp_path / "rows.jsonl")
    assert code == 1
    assert "3 images, 6 captions" in printed
    assert "no caption states a number" in remarks
    assert "gone.png" in remarks


def test_a_second_run_reads_the_cache_of_the_first(run, tmp_path, monkeypatch):
    options = (
        "--limit",
        9,
        "--image-size",
        48,
        "--objects",
        "shapes",
        "--resume",
        tmp_path / "kept",
        "--json",
        tmp_path / "result.json",
    )
    assert run(*options)[0] == 0
    first = json.loads((tmp_path / "result.json").read_text())
    from count_clip.modeling.modeling_count_clip import CLIPForCounting

    def fail(self, *arguments, **options):
        raise AssertionError("encoded once more")

    monkeypatch.setattr(CLIPForCounting, "get_image_features", fail)
    monkeypatch.setattr(CLIPForCounting, "get_text_features", fail)
    assert run(*options)[0] == 0
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == first["metrics"]


def test_one_image_is_too_few(run):
    code, _, remarks = run("--limit", 1, "--image-size", 48, "--objects", "shapes")
    assert code == 2
    assert "at least two images" in remarks
