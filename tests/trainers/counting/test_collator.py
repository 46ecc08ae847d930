import pytest
import torch

from count_clip.datasets_scripts.captions.numbers import find_count
from count_clip.trainers.counting.collator import (
    CountingDataCollator,
    CountingEvalDataCollator,
    check_counting_row,
    is_counting_row,
)


@pytest.fixture
def rows(make_image):
    captions = [
        ("three red dogs", 3),
        ("a quiet street", 0),
        ("Ten cats", 10),
        ("two of twelve", None),
        ("a dozen", 12),
    ]
    return [
        {"image": make_image(40, 36, i), "image_id": f"p{i}", "text": text, "number": number}
        for i, (text, number) in enumerate(captions)
    ]


def _wrong_captions(processor, batch) -> list[list[str]]:
    return [
        [processor.tokenizer.decode(ids, skip_special_tokens=True) for ids in row]
        for row in batch["counterfactual_input_ids"]
    ]


def test_rows_with_a_number_get_wrong_captions_and_the_others_do_not(counting_processor, rows):
    batch = CountingDataCollator(counting_processor, num_counterfactuals=3)(rows)
    assert batch["counting_mask"].tolist() == [True, False, True, False, False]
    assert batch["return_loss"] is True
    assert batch["pixel_values"].shape == (5, 3, 32, 32)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["counterfactual_input_ids"].shape == batch["counterfactual_attention_mask"].shape
    dogs, cats = _wrong_captions(counting_processor, batch)
    for captions, right, rest in ((dogs, 3, "red dogs"), (cats, 10, "cats")):
        assert len(set(captions)) == 3
        assert all(rest in caption and find_count(caption).number != right for caption in captions)


def test_wrong_captions_depend_on_the_epoch_and_not_on_the_batch(counting_processor, rows):
    collator = CountingDataCollator(counting_processor, seed=1)
    epochs = []
    for epoch in range(8):
        collator.set_epoch(epoch)
        epochs.append(_wrong_captions(counting_processor, collator(rows))[1])
        torch.manual_seed(epoch)
        assert _wrong_captions(counting_processor, collator([rows[2]])) == [epochs[-1]]
    assert len({captions[0] for captions in epochs}) > 2


def test_batch_without_counting_rows_has_no_wrong_captions(counting_processor, counting_model, rows):
    batch = CountingDataCollator(counting_processor)([rows[1], rows[3]])
    assert batch["counterfactual_input_ids"].shape[0] == 0
    assert batch["counting_mask"].tolist() == [False, False]
    outputs = counting_model(**batch)
    assert outputs.counting_loss == 0
    torch.testing.assert_close(outputs.loss, outputs.contrastive_loss)
    # By hand: CLIP's symmetric cross-entropy of the two rows.
    logits = outputs.logits_per_image
    by_hand = -(logits.log_softmax(1).diagonal().mean() + logits.log_softmax(0).diagonal().mean()) / 2
    torch.testing.assert_close(outputs.loss, by_hand)


def test_without_the_counting_loss_no_row_counts(counting_processor, rows):
    batch = CountingDataCollator(counting_processor, counting_loss=False)(rows)
    assert not batch["counting_mask"].any()


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"text": "many dogs", "number": 4}, "counting row with number 4.*'many dogs' has no number word"),
        ({"text": "many dogs", "is_counting": True}, "counting row, but its caption 'many dogs' has no number word"),
        ({"text": "two dogs", "number": 4}, "counting row with number 4.*'two dogs' states two"),
    ],
)
def test_counting_row_whose_caption_does_not_state_its_number_is_named(counting_processor, make_image, row, found):
    row = {"image": make_image(32, 32), "image_id": "photo 12", **row}
    for collator in (CountingDataCollator(counting_processor), CountingEvalDataCollator(counting_processor)):
        with pytest.raises(ValueError, match=f"(?s)image_id 'photo 12' is a {found}.*set `is_counting` to false"):
            collator([row])


def test_is_counting_decides_against_the_number(counting_processor, make_image):
    row = {"image": make_image(32, 32), "text": "four dogs", "number": 4}
    collator = CountingDataCollator(counting_processor)
    assert collator([{**row, "is_counting": False}])["counting_mask"].tolist() == [False]
    assert collator([{**row, "number": None, "is_counting": True}])["counting_mask"].tolist() == [True]


def test_nine_captions_are_shared_by_rows_that_say_the_same(counting_processor, make_image):
    rows = [
        {"image": make_image(32, 32, i), "text": text, "number": number}
        for i, (text, number) in enumerate([("two dogs", 2), ("nine dogs", 9), ("ten cats", 10)])
    ]
    batch = CountingEvalDataCollator(counting_processor)(rows)
    assert batch["labels"].tolist() == [2, 9, 10]
    assert batch["input_ids"].shape[0] == 18
    assert batch["caption_index"].tolist() == [list(range(9)), list(range(9)), list(range(9, 18))]
    second = counting_processor.tokenizer.decode(batch["input_ids"][batch["caption_index"][2][7]], True)
    assert second == "nine cats"


def test_captions_whose_number_is_cut_off_do_not_enter_the_counting_loss(
    counting_processor, counting_model, make_image
):
    long = "x " * 45 + "three dogs"
    rows = [
        {"image": make_image(40, 40, i), "image_id": str(i), "text": text, "number": 3}
        for i, text in enumerate(["three dogs", long, "three cats"])
    ]
    batch = CountingDataCollator(counting_processor, num_counterfactuals=2)(rows)
    assert batch["counting_mask"].tolist() == [True, False, True]
    assert batch["counterfactual_input_ids"].shape[:2] == (2, 2)
    assert counting_model(**batch).loss.isfinite()
    with pytest.raises(ValueError, match="'1' is so long"):
        CountingEvalDataCollator(counting_processor)(rows)


def test_number_of_the_row_selects_the_number_word(counting_processor, make_image):
    row = {"image": make_image(32, 32, 0), "image_id": "a", "text": "two views of three dogs", "number": 3}
    assert is_counting_row(row)
    check_counting_row(row)
    batch = CountingDataCollator(counting_processor, num_counterfactuals=8)([row])
    tokenizer = counting_processor.tokenizer
    wrong = [tokenizer.decode(ids, skip_special_tokens=True) for ids in batch["counterfactual_input_ids"][0]]
    assert all(caption.startswith("two views of") and "three" not in caption for caption in wrong)
    assert CountingEvalDataCollator(counting_processor)([row])["labels"].tolist() == [3]
