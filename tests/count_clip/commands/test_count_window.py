"""`count-clip count`: several prompts in one pass, whole images, and a bad file among good ones."""

import json

import numpy as np
import pytest

from count_clip.cli import main
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.pipeline_object_counting import ObjectCountingPipeline


@pytest.fixture
def windows_seen(monkeypatch):
    """Size and number of the windows in each pass of the vision tower, and whether it interpolated."""
    seen = []
    forward = CLIPCountDensityModel.forward

    def record(self, pixel_values, interpolate_pos_encoding=False, **kwargs):
        seen.append((tuple(pixel_values.shape[-2:]), len(pixel_values), interpolate_pos_encoding))
        return forward(self, pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)

    monkeypatch.setattr(CLIPCountDensityModel, "forward", record)
    return seen


def _records(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_several_prompts_share_one_pass_and_keep_their_order(photos, density_folder, windows_seen, capsys):
    prompts = ["red apples", "dogs", "cats"]
    texts = [word for prompt in prompts for word in ("--text", prompt)]
    assert (
        main(["count", str(photos / "a.png"), *texts, "--model", density_folder, "--json", "--batch-size", "1"]) == 0
    )
    assert [record["text"] for record in _records(capsys)] == prompts
    assert windows_seen == [((48, 48), 1, False)] * 2  # 60 x 48: two windows, each seen once


def test_whole_images_are_seen_in_one_pass(
    photos, density_folder, density_model, density_processor, windows_seen, capsys
):
    arguments = ["count", str(photos), "--text", "dogs", "--model", density_folder, "--json"]
    assert main([*arguments, "--window", "whole"]) == 0
    assert windows_seen == [((48, 60), 1, True), ((100, 48), 1, True)]
    pipe = ObjectCountingPipeline(model=density_model, processor=density_processor, device="cpu")
    for record in _records(capsys):
        expected = pipe(record["file"], text="dogs", window="whole")
        assert record["count"] == pytest.approx(expected["count"], abs=2e-3)
        np.testing.assert_allclose(record["points"], expected["points"], atol=0.01)
    windows_seen.clear()
    assert main([*arguments, "--window", "sliding"]) == 0
    assert {size for size, _, _ in windows_seen} == {(48, 48)}
    assert main([*arguments, "--window", "half"]) == 2


@pytest.mark.parametrize("window", ["sliding", "whole"])
def test_good_images_are_not_lost_for_a_bad_one(photos, density_folder, window, capsys):
    (photos / "cut.png").write_bytes((photos / "a.png").read_bytes()[:200])
    arguments = ["count", str(photos), "--text", "dogs", "--text", "cats", "--model", density_folder, "--json"]
    assert main([*arguments, "--window", window]) == 1
    of_file: dict[str, list[str]] = {}
    for record in _records(capsys):
        of_file.setdefault(record["file"].rsplit("/", 1)[1], []).append("error" if "error" in record else "count")
    assert of_file == {"a.png": ["count"] * 2, "cut.png": ["error"] * 2, "b.JPG": ["count"] * 2}
