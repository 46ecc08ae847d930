import pytest
import torch

from count_clip.trainers.density.collator import DensityDataCollator, DensityEvalDataCollator, row_count


def test_density_samples_become_a_batch_with_their_prompts(density_processor):
    samples = [
        {"pixel_values": torch.rand(3, 48, 48), "labels": torch.rand(48, 48), "text": text}
        for text in ("ox", "red cars")
    ]
    batch = DensityDataCollator(density_processor)(samples)
    assert batch["pixel_values"].shape == (2, 3, 48, 48)
    assert torch.equal(batch["labels"][1], samples[1]["labels"])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 9)
    assert batch["return_loss"] is True


def test_samples_with_several_prompts_keep_them_together(density_processor):
    texts = [["ox", "red cars"], ["red cars", "tall trees"], ["ox", "ox"]]
    samples = [
        {"pixel_values": torch.rand(3, 48, 48), "labels": torch.rand(2, 48, 48), "text": prompts} for prompts in texts
    ]
    batch = DensityDataCollator(density_processor)(samples)
    assert batch["pixel_values"].shape == (3, 3, 48, 48)
    assert torch.equal(batch["labels"][1], samples[1]["labels"])
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    for ids, mask, prompts in zip(batch["input_ids"], batch["attention_mask"], texts, strict=True):
        for i, prompt in enumerate(prompts):
            alone = density_processor.tokenize([prompt])["input_ids"][0]
            assert torch.equal(ids[i][mask[i].bool()], alone)


def test_whole_images_are_left_as_they_are_beside_true_counts(make_image):
    rows = [
        {"image": make_image(120, 60), "text": "dots", "count": 7},
        {"image": make_image(48, 48), "text": "red dots", "points": [[1.0, 2.0]] * 3},
    ]
    batch = DensityEvalDataCollator()(rows)
    assert batch["labels"].tolist() == [7.0, 3.0]
    assert batch["images"] == [row["image"] for row in rows]
    assert batch["text"] == ["dots", "red dots"]


def test_row_without_a_count_is_refused():
    with pytest.raises(ValueError, match="`count` or `points`.*'text'"):
        row_count({"text": "dots"})
