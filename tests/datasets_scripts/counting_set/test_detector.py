"""The third stage of the counting set, with detectors that really run, and all stages together on Ray."""

import copy
import importlib.util
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from transformers import (
    CLIPTokenizer,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTProcessor,
    YolosConfig,
    YolosForObjectDetection,
    pipeline,
)
from transformers.models.owlvit import OwlViTImageProcessorPil
from transformers.models.yolos import YolosImageProcessorPil

from count_clip.datasets_scripts.counting_set.build import CaptionSetReport, build_caption_set
from count_clip.datasets_scripts.counting_set.detector import (
    Detection,
    TransformersDetector,
    count_most_frequent,
    is_class_of,
    suppress_overlaps,
)
from count_clip.datasets_scripts.counting_set.stages import CaptionSetConfig, DetectorError


COLORS = {"red squares": (220, 30, 30), "blue squares": (30, 30, 220), "green squares": (30, 180, 30)}
# Squares stand in the cells of a grid, one in a cell; a patch of the detector is a cell.
GRID, CELL = 8, 8


def draw_squares(counts: dict[str, int], rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """An image of coloured squares, and which cell holds which: `(num_classes, num_cells)`."""
    image = Image.new("RGB", (GRID * CELL, GRID * CELL), (200, 200, 200))
    draw = ImageDraw.Draw(image)
    labels = np.zeros((len(COLORS), GRID * GRID), dtype=np.float32)
    cells = iter(rng.permutation(GRID * GRID))
    for label, (name, color) in enumerate(COLORS.items()):
        for _ in range(counts.get(name, 0)):
            cell = int(next(cells))
            x, y = cell % GRID * CELL, cell // GRID * CELL
            draw.rectangle((x + 1, y + 1, x + CELL - 2, y + CELL - 2), fill=color)
            labels[label, cell] = 1
    return image, labels


@pytest.fixture(scope="module")
def square_detector(tokenizer: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small open-vocabulary detector, trained here to find coloured squares by their names."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 40, "eos_token_id": tokenizer.eos_token_id}
    config = OwlViTConfig(
        text_config={**tower, **text, "pad_token_id": 0, "bos_token_id": tokenizer.bos_token_id},
        vision_config={**tower, "image_size": GRID * CELL, "patch_size": CELL},
        projection_dim=32,
    )
    model = OwlViTForObjectDetection(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:  # as small as they are initialised, they would take long to grow
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    images = OwlViTImageProcessorPil(size={"height": GRID * CELL, "width": GRID * CELL}, do_center_crop=False)
    queries = copy.deepcopy(tokenizer)(list(COLORS), padding=True, return_tensors="pt")
    cells = torch.arange(GRID * GRID)
    centers = torch.stack([cells % GRID, cells // GRID], dim=-1).add(0.5) / GRID
    boxes = torch.cat([centers, torch.full_like(centers, (CELL - 2) / CELL / GRID)], dim=-1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(130):
        scenes = [draw_squares({name: int(rng.integers(0, 8)) for name in COLORS}, rng) for _ in range(8)]
        pixels = images([scene for scene, _ in scenes], return_tensors="pt")["pixel_values"]
        repeated = {name: values.repeat(len(scenes), 1) for name, values in queries.items()}
        outputs = model(pixel_values=pixels, **repeated)
        labels = torch.from_numpy(np.stack([labels for _, labels in scenes])).transpose(1, 2)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            outputs.logits, labels, pos_weight=torch.tensor(8.0)
        )
        loss = loss + 200 * (outputs.pred_boxes - boxes).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("owl")
    model.eval().save_pretrained(folder)
    OwlViTProcessor(images, tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def closed_detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny detector with classes of its own; untrained, its output is always the same."""
    torch.manual_seed(3)
    config = YolosConfig(
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=[32, 48],
        patch_size=8,
        num_detection_tokens=10,
        id2label={0: "dog", 1: "wine glass", 2: "person"},
    )
    model = YolosForObjectDetection(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and weight.numel():
                is_embedding = "embeddings" in name and "projection" not in name
                torch.nn.init.normal_(weight, std=1.0 if is_embedding else 2 * weight[0].numel() ** -0.5)
        model.class_labels_classifier.layers[-1].bias[-1] = -4  # seldom no object
    folder = tmp_path_factory.mktemp("yolos")
    model.save_pretrained(folder)
    YolosImageProcessorPil(size={"height": 32, "width": 48}, do_pad=False).save_pretrained(folder)
    return str(folder)


def _encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _table(report: CaptionSetReport) -> list[dict[str, Any]]:
    return [row for file in report.files for row in pq.read_table(file).to_pylist()]


# --- counting what is found -----------------------------------------------------------------------


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


boxes = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 12), st.integers(1, 12)).map(
    lambda box: (float(box[0]), float(box[1]), float(box[0] + box[2]), float(box[1] + box[3]))
)


@given(found=st.lists(st.tuples(boxes, st.sampled_from([0.1, 0.4, 0.6, 0.9])), min_size=1, max_size=12))
def test_overlaps_are_suppressed_as_by_one_box_after_the_other(found: list) -> None:
    kept: list[int] = []
    for place in sorted(range(len(found)), key=lambda place: -found[place][1]):
        if all(_overlap(found[place][0], found[other][0]) <= 0.5 for other in kept):
            kept.append(place)
    arrays = np.array([box for box, _ in found]), np.array([score for _, score in found])
    assert suppress_overlaps(*arrays, 0.5) == kept
    assert suppress_overlaps(*arrays, 1.0) == sorted(range(len(found)), key=lambda place: -found[place][1])


def test_the_class_with_most_objects_is_counted() -> None:
    def dogs(*lefts: float, score: float = 0.9) -> list[Detection]:
        return [Detection("dog", score, (left, 10.0, left + 10, 20.0)) for left in lefts]

    cat = Detection("cat", 0.99, (0.0, 50.0, 60.0, 90.0))
    counted = count_most_frequent([*dogs(0, 20, 40), cat], (100, 200))
    assert [one.label for one in counted] == ["dog"] * 3
    # Below the threshold, the same dog twice, outside of the image, and too small.
    found = [*dogs(0, 2, 40), *dogs(60, score=0.4), *dogs(300), Detection("dog", 0.9, (80.0, 0.0, 81.0, 1.0)), cat]
    counted = count_most_frequent(found, (100, 200), threshold=0.5, min_area=0.001)
    assert [detection.box for detection in counted] == [(0.0, 10.0, 10.0, 20.0), (40.0, 10.0, 50.0, 20.0)]
    assert len(count_most_frequent(found, (100, 200), threshold=0.3, max_overlap=1.0)) == 5
    assert count_most_frequent(found, (100, 200), min_area=0.1)[0].label == "cat"
    # A box is counted as far as it is in the image; of as many, the surer ones.
    (one,) = count_most_frequent([Detection("cat", 0.8, (-5.0, -5.0, 250.0, 50.0))], (100, 200))
    assert one.box == (0.0, 0.0, 200.0, 50.0)
    assert count_most_frequent([*dogs(0), cat], (100, 200))[0].label == "cat"
    assert count_most_frequent([], (100, 200)) == []
    assert count_most_frequent(dogs(0), (100, 200), threshold=0.95) == []


@pytest.mark.parametrize(
    ("label", "head", "same"),
    [
        ("dog", "dogs", True),
        ("Wine glass", "glasses", True),
        ("person", "women", True),
        ("person", "dogs", False),
        ("knife", "knives", True),
        ("sheep", "sheep", True),
        ("red squares", "squares", True),
        ("dog", "cats", False),
        ("dog", "", False),
        (" ", "dogs", False),
    ],
)
def test_classes_are_compared_with_nouns(label: str, head: str, same: bool) -> None:
    assert is_class_of(label, head) == same


# --- detectors of transformers --------------------------------------------------------------------


def test_zero_shot_detector_finds_what_the_caption_names(square_detector: str) -> None:
    detector = TransformersDetector(square_detector, threshold=0.5, batch_size=2)
    assert detector.is_zero_shot
    rng = np.random.default_rng(1)
    wanted = [{"red squares": 3, "blue squares": 5}, {"red squares": 4}, {"green squares": 2, "blue squares": 7}]
    scenes = [draw_squares(counts, rng) for counts in wanted]
    images = [image.resize((128, 96)) for image, _ in scenes]
    for label, name in enumerate(COLORS):
        found = detector(images, [name] * len(images))
        assert [len(objects) for objects in found] == [counts.get(name, 0) for counts in wanted]
        for objects, (_, labels) in zip(found, scenes, strict=True):
            cells = np.flatnonzero(labels[label])
            middles = [(16 * (cell % GRID + 0.5), 12 * (cell // GRID + 0.5)) for cell in cells]
            for one in objects:
                x, y = (one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2
                assert min(abs(x - middle[0]) / 16 + abs(y - middle[1]) / 12 for middle in middles) < 1


def test_queries_are_short_and_wrapped(square_detector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = TransformersDetector(square_detector, query="a photo of {}.")
    assert detector.threshold == 0.1
    inputs_seen = []
    monkeypatch.setattr(
        detector, "pipeline", lambda inputs, **options: inputs_seen.extend(inputs) or [[] for _ in inputs]
    )
    assert detector([Image.new("RGB", (8, 8))], ["four very small red squares"]) == [[]]
    assert inputs_seen[0]["candidate_labels"] == ["a photo of small red squares."]
    with pytest.raises(ValueError, match="query with one {} for the noun"):
        TransformersDetector(square_detector, query="squares")


def test_closed_detector_is_read_like_its_pipeline(closed_detector: str) -> None:
    image = draw_squares({"red squares": 9}, np.random.default_rng(0))[0]
    detector = TransformersDetector(closed_detector, threshold=0.3)
    assert not detector.is_zero_shot
    plain = pipeline("object-detection", model=closed_detector)(image, threshold=0.3)
    assert plain, "the comparison would be empty"
    (found,) = detector([image], ["dogs"])
    assert [(one.label, one.score, one.box) for one in found] == [
        (one["label"], pytest.approx(one["score"], abs=1e-5), tuple(one["box"].values())) for one in plain
    ]


def test_other_models_are_refused(counting_model: Any, tmp_path: Path) -> None:
    counting_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="to be a model for object detection .* of type 'count_clip'"):
        TransformersDetector(str(tmp_path))


# --- the stage ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of squares with captions that are right, wrong, or about something else."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(7)
    words = {2: "two", 3: "three", 4: "Four", 5: "five", 6: "six", 7: "Seven"}
    for shard in range(4):
        captions, images, keys = [], [], []
        for row in range(15):
            name = list(COLORS)[row % 3]
            other = list(COLORS)[(row + 1) % 3]
            true = int(rng.integers(2, 8))
            stated = true if row % 2 else int(rng.choice([number for number in words if number != true]))
            captions.append(f"{words[stated]} {name}" if row != 7 else f"{words[stated]} days of work")
            images.append(_encoded(draw_squares({name: true, other: 1}, rng)[0]))
            keys.append(f"{shard}-{row}-{'right' if stated == true and row != 7 else 'wrong'}")
        pq.write_table(pa.table({"caption": captions, "jpg": images, "key": keys}), folder / f"{shard}.parquet")
    return folder


def test_a_detector_lets_the_right_numbers_through(scenes: Path, square_detector: str, tmp_path: Path) -> None:
    config = CaptionSetConfig(detector=square_detector, threshold=0.5, class_agreement=True)
    report = build_caption_set(str(scenes), tmp_path, config)
    rows = _table(report)
    keys = [key for file in sorted(scenes.iterdir()) for key in pq.read_table(file).column("key").to_pylist()]
    assert [row["image_id"] for row in rows] == [key for key in keys if key.endswith("right")]
    totals = report.counts.totals
    assert totals["captions"] == 60
    assert totals["counts_objects"] == totals["images"] == 56
    assert totals["right_number"] == len(rows) == totals["images"] - totals["wrong_number"]
    for row in rows:
        assert row["detected"] == row["name"]
        assert len(row["boxes"]) == len(row["scores"]) == row["number"]
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"| confirmed by the detector | {len(rows)} |" in card
    assert square_detector in card


def test_options_of_the_detector_decide_what_counts(scenes: Path, square_detector: str, tmp_path: Path) -> None:
    def kept(name: str, **options: Any) -> int:
        config = CaptionSetConfig(detector=square_detector, threshold=0.5, **options)
        return sum(build_caption_set(str(scenes), tmp_path / name, config).kept.values())

    assert kept("plain") > 20
    assert kept("size", min_area=0.02) == 0, "a square is a hundredth of the image"
    assert kept("query", query="green {}") != kept("plain")


def test_closed_detector_counts_its_most_frequent_class(closed_detector: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(6)]
    pipe = pipeline("object-detection", model=closed_detector)
    most = [Counter(one["label"] for one in pipe(image, threshold=0.3)).most_common(1)[0] for image in images]
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    assert all(2 <= count <= 10 for _, count in most), "the detector's counts have number words"
    nouns = {"dog": "dogs", "wine glass": "glasses", "person": "women"}
    captions = [f"{words[count]} {nouns[label]}" for label, count in most]
    captions += [f"{words[2 if count != 2 else 3]} {nouns[label]}" for label, count in most]
    captions += [f"{words[count]} cats" for _, count in most]
    source = tmp_path / "source.parquet"
    pq.write_table(pa.table({"text": captions, "image": [_encoded(image) for image in images] * 3}), source)
    config = {"detector": closed_detector, "threshold": 0.3, "max_overlap": 1.0}
    report = build_caption_set(str(source), tmp_path / "a", CaptionSetConfig(**config))
    assert [row["row"] for row in _table(report)] == [*range(6), *range(12, 18)]
    assert [row["detected"] for row in _table(report)] == [label for label, _ in most] * 2
    report = build_caption_set(str(source), tmp_path / "b", CaptionSetConfig(**config, class_agreement=True))
    assert [row["row"] for row in _table(report)] == list(range(6))


class _Failing:
    """Finds as many dogs as the image's first pixel is red, but fails on some images."""

    def __init__(self, fails_on: int) -> None:
        self.fails_on = fails_on
        self.seen: list[int] = []

    def __call__(self, images: Sequence[Image.Image], nouns: Sequence[str]) -> list[list[Detection]]:
        self.seen.append(len(images))
        found = []
        for image in images:
            red = image.getpixel((0, 0))[0]
            if red >= self.fails_on:
                raise RuntimeError(f"cannot take {red}")
            found.append([Detection("dog", 0.9, (4.0 * place, 0.0, 4.0 * place + 3, 3.0)) for place in range(red)])
        return found


def _reds(folder: Path, reds: Sequence[int], word: str) -> str:
    images = [_encoded(Image.new("RGB", (64, 8), (red, 0, 0))) for red in reds]
    pq.write_table(pa.table({"caption": [f"{word} dogs"] * len(reds), "image": images}), folder / "a.parquet")
    return str(folder / "a.parquet")


def test_a_detector_that_fails_on_one_image_loses_that_one_only(tmp_path: Path) -> None:
    source = _reds(tmp_path, [3, 3, 200, 4, 3, 201, 3], "three")
    detector = _Failing(fails_on=100)
    config = CaptionSetConfig(batch_size=3)
    report = build_caption_set(source, tmp_path / "set", config, detector=detector)
    assert [row["row"] for row in _table(report)] == [0, 1, 4, 6]
    assert (report.counts.totals["detector_failed"], report.counts.totals["wrong_number"]) == (2, 1)
    failures = [json.loads(line) for line in (tmp_path / "set" / "failures.jsonl").read_text().splitlines()]
    assert [(failure["row"], failure["stage"], failure["error"]) for failure in failures] == [
        (2, "detector", "RuntimeError: cannot take 200"),
        (5, "detector", "RuntimeError: cannot take 201"),
    ]
    assert detector.seen == [3, 1, 1, 1, 3, 1, 1, 1, 1]
    assert "on which the detector failed: 2" in (tmp_path / "set" / "README.md").read_text()


def test_a_detector_that_always_fails_stops_the_build(tmp_path: Path) -> None:
    source = _reds(tmp_path, [200] * 40, "three")
    detector = _Failing(fails_on=100)
    with pytest.raises(DetectorError, match="failed on 25 images one after another, the last time with RuntimeError"):
        build_caption_set(source, tmp_path / "set", CaptionSetConfig(batch_size=1), detector=detector)
    assert sum(detector.seen) == 25
    assert not list((tmp_path / "set" / ".parts").glob("0*"))


# --- Ray ------------------------------------------------------------------------------------------


def test_ray_gives_the_same_set_row_for_row(
    scenes: Path, square_detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # it would leave a token in the home folder
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'count-clip[ray]'")
    pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'count-clip[ray]'")
    own = tmp_path / "source"
    own.mkdir()
    for file in sorted(scenes.iterdir()):
        (own / file.name).write_bytes(file.read_bytes())
    content = bytearray((own / "1.parquet").read_bytes())
    content[40:200] = b"\xff" * 160
    (own / "9.parquet").write_bytes(content)  # cannot be read
    config = CaptionSetConfig(detector=square_detector, threshold=0.5, num_common=15)
    local = build_caption_set(str(own), tmp_path / "local", config, skip_unreadable=True)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        finished: list[int] = []
        there = build_caption_set(
            str(own),
            tmp_path / "ray",
            config,
            device="cpu",
            engine="ray",
            skip_unreadable=True,
            progress=lambda done, total, counts: finished.append(done),
        )
    finally:
        ray.shutdown()
    assert _table(there) == _table(local)
    assert len(_table(there)) > 15
    assert there.counts == local.counts
    assert finished == [1, 2, 3, 4, 5]
    for name in ("README.md", "stages.json"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_missing_ray_is_reported(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert importlib.util.find_spec("count_clip.datasets_scripts.counting_set.ray") is not None
    with pytest.raises(ImportError, match=r"Expected Ray .*`pip install 'count-clip\[ray\]'`"):
        build_caption_set(str(scenes), tmp_path, engine="ray")
