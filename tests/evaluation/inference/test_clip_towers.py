import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import CLIPModel

from count_clip.evaluation.inference import clip_towers
from count_clip.evaluation.inference.clip_towers import image_features, text_features
from count_clip.evaluation.inference.encoding import Encoder, read_ahead


TEXTS = ["two red cats", "ten red cats", "two red cars on a road", "a", "two red cats", "a row of dogs"]


@pytest.fixture
def plain_model(counting_model):
    model = CLIPModel(counting_model.config).eval()
    model.load_state_dict(counting_model.state_dict())
    return model


def _token_ids(tokenizer, texts=TEXTS):
    return tokenizer(texts)["input_ids"]


def _own_text_features(model, tokenizer, token_ids):
    tokens = tokenizer.pad({"input_ids": token_ids}, return_tensors="pt")
    return model.get_text_features(**tokens).pooler_output


@pytest.fixture
def layers_run(monkeypatch):
    """How often a layer was run by the shortcut."""
    calls = []
    run = clip_towers._run_layer
    monkeypatch.setattr(clip_towers, "_run_layer", lambda *args: calls.append(1) or run(*args))
    return calls


@torch.inference_mode()
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("eos_token_id", [None, 2])
def test_texts_are_those_of_the_model(plain_model, tokenizer, layers_run, activation, eos_token_id):
    if eos_token_id is not None:
        plain_model.text_model.eos_token_id = eos_token_id
    config = copy.deepcopy(plain_model.config)
    config.text_config.hidden_act = config.vision_config.hidden_act = activation
    other = CLIPModel(config).eval()
    other.load_state_dict(plain_model.state_dict())
    other.text_model.eos_token_id = plain_model.text_model.eos_token_id
    token_ids = _token_ids(tokenizer)
    expected = _own_text_features(other, tokenizer, token_ids)
    torch.testing.assert_close(text_features(other, tokenizer, token_ids), expected, atol=2e-6, rtol=1e-5)
    assert len(layers_run) == 2


token_lists = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(token_lists)
def test_a_tree_holds_each_beginning_once_and_each_text_whole(texts):
    tree = clip_towers._PrefixTree(texts)
    beginnings = {tuple(text[: i + 1]) for text in texts for i in range(len(text))}
    assert len(tree.tokens) == len(tree.positions) == len(tree.occurrences) == len(beginnings)
    for row, text in enumerate(texts):
        path = tree.paths[row][tree.is_token[row]]
        assert tree.tokens[path].tolist() == text
        assert tree.positions[path].tolist() == list(range(len(text)))
        assert tree.ends[row] == path[-1]
    np.testing.assert_array_equal(tree.paths.flatten()[tree.occurrences], np.arange(len(tree.tokens)))


@torch.inference_mode()
def test_texts_of_any_tokens_are_those_of_the_model(plain_model, tokenizer):
    """Also one that has no end, one that goes on behind it, and one of a single token."""
    generator = torch.Generator().manual_seed(0)
    token_ids = [torch.randint(0, 40, (int(n),), generator=generator).tolist() for n in (7, 3, 1, 12)]
    eos = tokenizer.eos_token_id
    token_ids += [[*token_ids[0], eos], [*token_ids[0], eos, 5, 6, eos, 9]]
    expected = torch.cat([_own_text_features(plain_model, tokenizer, [ids]) for ids in token_ids])
    found = text_features(plain_model, tokenizer, token_ids)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@torch.inference_mode()
def test_half_precision_is_near(plain_model, tokenizer):
    token_ids = _token_ids(tokenizer)
    expected = text_features(plain_model, tokenizer, token_ids)
    plain_model.bfloat16()
    found = text_features(plain_model, tokenizer, token_ids)
    assert found.dtype == torch.bfloat16
    cosine = torch.nn.functional.cosine_similarity(found.float(), expected)
    assert cosine.min() > 0.999


def test_training_and_hooks_use_the_models_forward(plain_model, tokenizer, layers_run):
    token_ids = _token_ids(tokenizer)
    assert text_features(plain_model, tokenizer, token_ids).requires_grad
    with torch.inference_mode():
        seen = []
        mlp = plain_model.text_model.encoder.layers[0].mlp
        handle = mlp.register_forward_hook(lambda *args: seen.append(1))
        text_features(plain_model, tokenizer, token_ids)
        assert seen == [1]
        handle.remove()
        plain_model.train()
        text_features(plain_model, tokenizer, token_ids)
    assert layers_run == []


def test_an_overridden_method_is_called(plain_model, tokenizer, layers_run):
    class Other(CLIPModel):
        def get_text_features(self, **inputs):
            return torch.ones(len(inputs["input_ids"]), 7)

    other = Other(plain_model.config).eval()
    with torch.inference_mode():
        assert text_features(other, tokenizer, _token_ids(tokenizer)).shape == (len(TEXTS), 7)
        assert layers_run == []
        assert image_features(other, torch.randn(1, 3, 32, 32)).shape == (1, 64)


@torch.inference_mode()
def test_lora_in_the_towers_counts(plain_model, tokenizer, layers_run):
    token_ids = _token_ids(tokenizer)
    before = text_features(plain_model, tokenizer, token_ids)
    with torch.inference_mode(False):
        get_peft_model(plain_model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    expected = _own_text_features(plain_model, tokenizer, token_ids)
    found = text_features(plain_model, tokenizer, token_ids)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    assert (found - before).abs().max() > 1e-3
    assert len(layers_run) == 4, "the towers themselves are plain"


@torch.inference_mode()
def test_the_encoder_keeps_the_order_of_texts(plain_model, counting_processor, tokenizer):
    encoder = Encoder(plain_model, counting_processor, torch.device("cpu"), torch.float32, batch_size=2)
    expected = _own_text_features(plain_model, tokenizer, _token_ids(tokenizer))
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(encoder.texts(TEXTS), expected, atol=2e-6, rtol=1e-5)


def test_reading_ahead_keeps_the_order_and_is_one_ahead():
    read = []

    def items():
        for i in range(6):
            read.append(i)
            yield i

    ahead = read_ahead(items())
    assert next(ahead) == 0
    assert next(ahead) == 1
    assert len(read) <= 3
    assert list(ahead) == [2, 3, 4, 5]
    assert list(read_ahead([])) == []


def test_reading_ahead_raises_where_it_went_wrong():
    def items():
        yield 1
        raise OSError("no such image")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="no such image"):
        next(ahead)
