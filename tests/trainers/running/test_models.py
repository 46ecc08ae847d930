import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.trainers.running.models import (
    build_counting_model,
    build_density_model,
    counting_model_from_density,
    train_tokenizer,
)


TEXTS = ["A photo of three red apples", "two red squares", "five blue rings"]
SIZES = {
    "vocab_size": 560,
    "projection_dim": 32,
    "vision": {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "patch_size": 8,
        "image_size": 24,
    },
    "text": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "max_position_embeddings": 20,
    },
}


@pytest.mark.parametrize("text", ["three red apples", "Zürich 漢字 🍎 x", "a\nb\t10,000!", "don't", ""])
def test_every_string_is_tokenised_and_decoded(text):
    tokenizer = train_tokenizer(TEXTS, vocab_size=560)
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    inside = ids[1:-1]
    assert tokenizer.eos_token_id not in inside
    letters = "".join(tokenizer.convert_ids_to_tokens(inside)).replace("</w>", "")
    decoded = tokenizer.backend_tokenizer.decoder.decode([letters])
    assert decoded == "".join(text.lower().split())


def test_words_of_the_texts_become_single_tokens():
    tokenizer = train_tokenizer(TEXTS, vocab_size=600)
    assert tokenizer.tokenize("RED red") == ["red</w>", "red</w>"]
    assert len(tokenizer.tokenize("mummy")) == 5
    assert len(tokenizer) <= 600


def test_same_texts_give_the_same_tokenizer_in_another_process():
    code = (
        "from count_clip.trainers.running.models import train_tokenizer; import json;"
        f"print(json.dumps(train_tokenizer({TEXTS[::-1]!r}, 560).get_vocab(), sort_keys=True))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(other) == train_tokenizer(TEXTS, 560).get_vocab()


def test_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 514.*got 100"):
        train_tokenizer(TEXTS, vocab_size=100)


def test_counting_model_and_processor_fit_and_survive_saving(tmp_path, make_image):
    model, processor = build_counting_model(SIZES, TEXTS, {"counting_loss_weight": 0.5})
    processor.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("red rings") == processor.tokenizer("red rings")
    text_config = model.config.text_config
    assert (text_config.vocab_size, text_config.eos_token_id) == (
        len(processor.tokenizer),
        len(processor.tokenizer) - 1,
    )
    assert text_config.bos_token_id == processor.tokenizer.bos_token_id
    assert model.config.counting_loss_weight == 0.5
    batch = processor(images=[make_image(50, 40)], text=["three red apples " * 9])
    assert batch["input_ids"].shape == (1, 20)
    with torch.no_grad():
        assert model.eval()(**batch).logits_per_image.shape == (1, 1)


def test_density_model_and_processor_fit(make_image):
    sizes = {**SIZES, "vision": {name: x for name, x in SIZES["vision"].items() if name != "image_size"}}
    fields = {"window_size": 40, "num_norm_groups": 2, "num_visual_prompts": 0, "num_context_tokens": 3}
    model, processor = build_density_model(sizes, TEXTS, fields, {"size": {"shortest_edge": 56}})
    assert model.config.vision_config.image_size == processor.image_processor.window_size == 40
    assert processor.max_prompt_tokens == 17
    inputs = processor(images=[make_image(80, 60)], text="red squares")
    assert inputs["image_sizes"][0, 2:].tolist() == [56, 75]
    with torch.no_grad():
        assert model.eval()(**inputs).density_map.shape[1:] == (40, 40)


@pytest.mark.parametrize(
    ("scratch", "message"),
    [
        ({"vison": {}}, "Unknown key `vison` in `scratch`. Did you mean `vision`"),
        ({"vision": {"hiden_size": 3}}, "`hiden_size` in `scratch.vision`. Did you mean `hidden_size`"),
        ({"text": {"layers": 3}}, "`layers` in `scratch.text`"),
    ],
)
def test_unknown_sizes_are_refused(scratch, message):
    with pytest.raises(ValueError, match=message):
        build_counting_model(scratch, TEXTS)


def test_a_counting_model_starts_from_the_towers_of_a_density_model(density_config, density_processor, tmp_path):
    torch.manual_seed(0)
    density = CLIPCountDensityModel(density_config(num_visual_prompts=0, num_context_tokens=0, window_size=32))
    density.save_pretrained(tmp_path / "density")
    density_processor.save_pretrained(tmp_path / "density")
    model, processor = counting_model_from_density(str(tmp_path / "density"), {"counting_loss_weight": 0.5})
    assert model.config.counting_loss_weight == 0.5
    for part in ("text_model", "vision_model", "text_projection"):
        for name, tensor in getattr(density, part).state_dict().items():
            torch.testing.assert_close(getattr(model, part).state_dict()[name], tensor, rtol=0, atol=0)
    inputs = processor([Image.new("RGB", (50, 40))], ["two dogs"])
    assert model(**inputs).logits_per_image.isfinite().all()


def test_towers_that_need_prompts_are_refused(density_model, density_processor, tmp_path):
    density_model.save_pretrained(tmp_path)
    density_processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="visual prompts"):
        counting_model_from_density(str(tmp_path))
