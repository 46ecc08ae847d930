import copy
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from count_clip.evaluation.benchmarks.countbench import (
    evaluate_countbench,
    nine_captions,
)


WORDS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture
def rows(make_image):
    captions = ["two red cats", "five red cats", "a row of ten dogs", "Four dogs", "two red cats", "eight ants"]
    numbers = [2, 5, 10, 4, 2, 8]
    return [
        {"image": make_image(40 + 3 * i, 50 - i, seed=i), "image_id": f"row-{i}", "text": text, "number": number}
        for i, (text, number) in enumerate(zip(captions, numbers, strict=True))
    ]


def _reference_scores(model, processor, row):
    """One image, nine captions by hand, through the model's own forward."""
    text = row["text"]
    word = next(word for word in WORDS if word in text.lower())
    start = text.lower().index(word)
    captions = [text[:start] + other + text[start + len(word) :] for other in WORDS]
    if text[start].isupper():
        captions = [caption[:start] + caption[start].upper() + caption[start + 1 :] for caption in captions]
    outputs = model(**processor(images=[row["image"]], text=captions, return_tensors="pt", padding=True))
    return (outputs.logits_per_image / model.logit_scale.exp())[0]


@torch.no_grad()
def test_scores_are_those_of_asking_each_image_by_itself(counting_model, counting_processor, rows):
    result = evaluate_countbench(counting_model, counting_processor, rows, batch_size=4, progress=False)
    expected = torch.stack([_reference_scores(counting_model, counting_processor, row) for row in rows]).numpy()
    np.testing.assert_allclose(result.scores, expected, atol=2e-6)
    predicted = expected.argmax(axis=1) + 2
    true = np.array([row["number"] for row in rows])
    np.testing.assert_array_equal(result.predictions, predicted)
    assert result.accuracy == np.mean(predicted == true)
    assert result.mean_deviation == np.mean(np.abs(predicted - true))
    assert result.off_by_one == np.mean(np.abs(predicted - true) <= 1)
    assert result.n == result.confusion.sum() == 6
    assert result.confusion[5 - 2, predicted[1] - 2] == 1
    assert result.skipped == []


def test_any_clip_is_accepted_and_batches_change_nothing(counting_model, counting_processor, rows, tmp_path):
    counting_model.save_pretrained(tmp_path)
    plain = CLIPModel.from_pretrained(tmp_path)
    processor = CLIPProcessor(counting_processor.image_processor, counting_processor.tokenizer)
    one = evaluate_countbench(plain, processor, rows, batch_size=1, progress=False)
    many = evaluate_countbench(counting_model, counting_processor, rows, batch_size=5, progress=False)
    np.testing.assert_allclose(one.scores, many.scores, atol=2e-6)


class _OracleModel(torch.nn.Module):
    """A CLIP stand-in that reads the number from an image's brightness and from a caption, and counts its work."""

    config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=40))

    def __init__(self, tokenizer, offset=0):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.tokenizer, self.offset = tokenizer, offset
        self.images, self.texts = 0, []

    def _angle(self, numbers):
        angles = torch.tensor(numbers, dtype=torch.float32) * 0.1
        return SimpleNamespace(pooler_output=torch.stack([angles.cos(), angles.sin()], dim=1) * 3)

    def get_image_features(self, pixel_values):
        self.images += len(pixel_values)
        return self._angle([round(float(value)) + self.offset for value in pixel_values.mean(dim=(1, 2, 3))])

    def get_text_features(self, input_ids, attention_mask):
        texts = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        self.texts.extend(texts)
        return self._angle([next(WORDS.index(word) + 2 for word in WORDS if word in text) for text in texts])


class _OracleProcessor:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def image_processor(self, images, return_tensors):
        values = np.stack([np.asarray(image, dtype=np.float32).transpose(2, 0, 1) for image in images])
        return {"pixel_values": torch.from_numpy(values)}


def test_long_captions_are_cut_to_what_learned_context_leaves(counting_model, counting_processor, rows):
    from peft import get_peft_model

    from count_clip.modeling.prompt_tuning import ContextPromptConfig

    adapted = get_peft_model(copy.deepcopy(counting_model), ContextPromptConfig(num_virtual_tokens=3))
    rows[1]["text"] += " and so on" * 20
    result = evaluate_countbench(adapted, counting_processor, rows, progress=False)
    assert (result.n, result.skipped) == (6, [])
    short = evaluate_countbench(adapted, counting_processor, [rows[0], *rows[2:]], progress=False)
    np.testing.assert_allclose(np.delete(result.scores, 1, axis=0), short.scores, atol=2e-6)


def _grey(number):
    return Image.new("RGB", (4, 4), (number, number, number))


@pytest.fixture
def oracle_rows():
    return [{"image": _grey(n), "text": f"{WORDS[n - 2]} cats", "number": n} for n in range(2, 11) for _ in range(3)]


def test_a_model_that_counts_is_perfect_and_encodes_everything_once(tokenizer, oracle_rows):
    model = _OracleModel(tokenizer)
    result = evaluate_countbench(model, _OracleProcessor(tokenizer), oracle_rows, batch_size=4, progress=False)
    assert (result.accuracy, result.mean_deviation, result.off_by_one) == (1.0, 0.0, 1.0)
    np.testing.assert_array_equal(result.confusion, 3 * np.eye(9))
    assert model.images == 27
    assert sorted(model.texts) == sorted(f"{word} cats" for word in WORDS)
    assert result.accuracy_interval() == (1.0, 1.0)


def test_a_model_that_predicts_one_too_many_is_off_by_one(tokenizer, oracle_rows):
    model = _OracleModel(tokenizer, offset=1)
    result = evaluate_countbench(model, _OracleProcessor(tokenizer), oracle_rows, progress=False)
    assert result.accuracy == pytest.approx(1 / 9)  # ten, where no caption states eleven
    assert result.mean_deviation == pytest.approx(8 / 9)
    assert result.off_by_one == 1.0
    assert result.accuracy_by_number() == {**dict.fromkeys(range(2, 10), 0.0), 10: 1.0}


def test_rows_that_cannot_be_measured_are_listed_with_the_reason(counting_model, counting_processor, rows, tmp_path):
    broken = tmp_path / "broken.jpg"
    buffer = io.BytesIO()
    rows[0]["image"].save(buffer, "JPEG")
    broken.write_bytes(buffer.getvalue()[:-200])
    extra = [
        {"image": rows[0]["image"], "image_id": "wordless", "text": "cats on a mat", "number": 0},
        {"image": str(broken), "image_id": "cut", "text": "two cats", "number": 2},
        {"image": tmp_path / "gone.png", "image_id": "gone", "text": "two cats", "number": 2},
        {"image": None, "image_id": "none", "text": "two cats", "number": 2},
        {"image": rows[0]["image"], "image_id": "other", "text": "three cats", "number": 4},
        {"image": rows[0]["image"], "image_id": "many", "text": "three cats", "number": 12},
        {"image": rows[0]["image"], "image_id": "long", "text": "x" * 60 + " two cats", "number": 2},
        {"image": rows[0]["image"], "image_id": "mute", "text": None, "number": 2},
    ]
    result = evaluate_countbench(counting_model, counting_processor, extra[:4] + rows + extra[4:], progress=False)
    assert result.n == len(rows)
    assert result.indices.tolist() == [4, 5, 6, 7, 8, 9]
    reasons = {row.image_id: row.reason for row in result.skipped}
    assert list(reasons) == [row["image_id"] for row in extra]
    expected = {
        "wordless": "no number",
        "cut": "broken.jpg cannot be read",
        "gone": "no file",
        "none": "none is None",
        "other": "the true number is 4, but the caption states 'three'",
        "many": "12 is not one of two to ten",
        "long": "beyond the 40 tokens",
        "mute": "no caption",
    }
    for name, words in expected.items():
        assert words in reasons[name]


class _DecodedOnAccess:
    """A data set whose second image fails while the row is made, as `datasets` decodes."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        if index == 1:
            raise Image.UnidentifiedImageError("cannot identify image file 'b.png'")
        return self.rows[index]


def test_a_row_that_fails_to_decode_is_listed_and_the_rest_measured(counting_model, counting_processor, rows):
    result = evaluate_countbench(counting_model, counting_processor, _DecodedOnAccess(rows), progress=False)
    assert result.n == 5
    assert [(row.index, "b.png" in row.reason) for row in result.skipped] == [(1, True)]


def test_a_generator_of_rows_works(counting_model, counting_processor, rows):
    assert evaluate_countbench(counting_model, counting_processor, (row for row in rows), progress=False).n == 6


def test_nothing_to_measure_is_an_error_with_the_reasons(counting_model, counting_processor):
    with pytest.raises(ValueError, match="data is empty"):
        evaluate_countbench(counting_model, counting_processor, [], progress=False)
    with pytest.raises(ValueError, match=r"None of the 1 rows.*the image is None"):
        evaluate_countbench(counting_model, counting_processor, [{"image": None, "text": "two cats"}], progress=False)


def test_broken_weights_are_an_error(counting_model, counting_processor, rows):
    counting_model.visual_projection.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="6 of 6 images are NaN"):
        evaluate_countbench(counting_model, counting_processor, rows, progress=False)


def test_the_other_model_is_refused(density_model, density_processor, rows):
    with pytest.raises(TypeError, match="CLIPCountDensityModel"):
        evaluate_countbench(density_model, density_processor, rows, progress=False)


def test_the_model_keeps_its_mode(counting_model, counting_processor, rows):
    counting_model.train()
    evaluate_countbench(counting_model, counting_processor, rows, progress=False)
    assert counting_model.training
    evaluate_countbench(counting_model, counting_processor, rows, dtype=torch.bfloat16, progress=False)
    assert counting_model.dtype == torch.bfloat16


def test_result_goes_into_json(counting_model, counting_processor, rows):
    result = evaluate_countbench(counting_model, counting_processor, rows, progress=False)
    again = json.loads(json.dumps(result.to_dict()))
    assert again["n"] == 6
    assert again["rows"][2]["number"] == 10
    assert len(again["rows"][2]["scores"]) == 9


def test_the_number_of_the_data_selects_the_number_word():
    number, captions = nine_captions("Two cucumbers and three tomatoes", 3)
    assert number == 3
    assert captions[0] == "Two cucumbers and two tomatoes"
    assert captions[8] == "Two cucumbers and ten tomatoes"
    number, captions = nine_captions("Two cucumbers and three tomatoes")
    assert number == 2
    assert captions[8] == "Ten cucumbers and three tomatoes"


def test_published_captions_state_the_labelled_number_among_nine(shared):
    """Four of the 540 state another number first; the row's number decides which word counts."""
    rows = json.loads((shared / "data" / "countbench" / "CountBench.json").read_text())
    first_is_another = []
    for index, row in enumerate(rows):
        number, captions = nine_captions(row["text"], row["number"])
        assert number == row["number"], index
        assert captions[number - 2] == row["text"], index
        assert len(set(captions)) == 9, index
        words_of = [caption.split() for caption in captions]
        changed = [place for place, words in enumerate(zip(*words_of, strict=True)) if len(set(words)) > 1]
        assert len(changed) == 1, "only the word that counts changes"
        if nine_captions(row["text"])[0] != number:
            first_is_another.append(index)
    assert first_is_another == [21, 73, 470, 504]
    assert nine_captions(rows[21]["text"], 6)[1][0].endswith("extension leaves and two matching")
    assert nine_captions(rows[470]["text"], 3)[1][8].startswith("Four business people, one young woman and ten older")
