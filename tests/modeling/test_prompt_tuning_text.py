"""Context prompts as PEFT adapters, compared with prompts put together word by word."""

import copy
import math
import pickle
import shutil

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTextModelWithProjection

from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.prompt_tuning import ContextPromptConfig


BOS, EOS = 512, 513
SHORT, LONG = [5, 6, 7], [8, 9, 10, 11, 12]


def alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal, but for the order of sums: it depends on the alignment in memory."""
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def _models(tower_sizes, _counting_model, _density_model, density_config):
    torch.manual_seed(1)
    clip = CLIPModel(CLIPConfig(**copy.deepcopy(tower_sizes))).eval()
    return {
        "counting": _counting_model,
        "clip": clip,
        "text": CLIPTextModel(copy.deepcopy(clip.config.text_config)).eval(),
        "projected": CLIPTextModelWithProjection(copy.deepcopy(clip.config.text_config)).eval(),
        "density": CLIPCountDensityModel(density_config(num_context_tokens=0)).eval(),
        "density with context": _density_model,
    }


@pytest.fixture
def build(_models):
    """A fresh copy of a model with this text tower."""
    return lambda model_name: copy.deepcopy(_models[model_name])


def batch(*texts):
    """Tokens and mask of texts, padded to one length."""
    width = max(len(text) for text in texts) + 2
    ids = torch.tensor([[BOS, *text, EOS, *[EOS] * (width - 2 - len(text))] for text in texts])
    return ids, torch.tensor([[1] * (len(text) + 2) + [0] * (width - 2 - len(text)) for text in texts])


def tower(model):
    return model if isinstance(model, CLIPTextModel) else model.text_model


def pooled(model, ids, mask=None):
    """The text embedding before (towers) or after the projection."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if hasattr(base, "get_text_embeds"):
        return base.get_text_embeds(ids, mask)
    if hasattr(base, "get_text_features"):
        return base.get_text_features(ids, attention_mask=mask).pooler_output
    if isinstance(base, CLIPTextModelWithProjection):
        return model(input_ids=ids, attention_mask=mask).text_embeds
    return model(ids, mask).pooler_output


def reference(model, segments):
    """A text put together by hand from tokens and vectors, alone in its batch, read at its end."""
    text_model = tower(model)
    embed = text_model.embeddings.token_embedding
    parts = [embed(torch.tensor(segment)) if isinstance(segment, list) else segment for segment in segments]
    hidden = torch.cat(parts)[None]
    hidden = hidden + text_model.embeddings.position_embedding.weight[: hidden.shape[1]]
    mask = torch.full((hidden.shape[1], hidden.shape[1]), -math.inf).triu(1)[None, None]
    for layer in text_model.encoder.layers:
        hidden = layer(hidden, mask)
    end = text_model.final_layer_norm(hidden)[0, -1]
    return end if isinstance(model, CLIPTextModel) else model.text_projection(end)


def context_of(model, name="default"):
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return tower(base).embeddings.token_embedding.clip_coop_embeds[name]


def scramble(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "clip_coop" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def placed(position, context, words):
    half = len(context) // 2
    return {
        "front": [[BOS], context, words, [EOS]],
        "middle": [[BOS], context[:half], words, context[half:], [EOS]],
        "end": [[BOS], words, context, [EOS]],
    }[position]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("position", ["front", "middle", "end"])
@pytest.mark.parametrize("model_name", ["counting", "clip", "text", "projected", "density"])
def test_context_has_its_configured_position(build, model_name, position, masked):
    base = build(model_name)
    model = scramble(get_peft_model(build(model_name), ContextPromptConfig(num_virtual_tokens=3, position=position)))
    ids, mask = batch(SHORT, LONG)
    found = pooled(model, ids, mask if masked else None)
    for row, words in zip(found, (SHORT, LONG), strict=True):
        torch.testing.assert_close(row, reference(base, placed(position, context_of(model), words)))
    assert not torch.allclose(found, pooled(base, ids, mask), atol=1e-3)


def test_context_adds_to_that_of_a_density_model(build):
    base = build("density with context")
    model = scramble(get_peft_model(build("density with context"), ContextPromptConfig(num_virtual_tokens=3)))
    ids, mask = batch(SHORT, LONG)
    own = base.context_prompts.context_embeds
    for row, words in zip(model.get_text_embeds(ids, mask), (SHORT, LONG), strict=True):
        torch.testing.assert_close(row, reference(base, [[BOS], own, context_of(model), words, [EOS]]))


def test_class_specific_context_is_chosen_by_the_words(build):
    classes = [SHORT, LONG, [5, 6]]
    base = build("clip")
    config = ContextPromptConfig(num_virtual_tokens=2, class_token_ids=classes)
    model = scramble(get_peft_model(build("clip"), config))
    assert context_of(model).shape == (3, 2, 24)
    order = [2, 0, 1, 0]
    found = pooled(model, *batch(*(classes[i] for i in order)))
    for row, i in zip(found, order, strict=True):
        torch.testing.assert_close(row, reference(base, [[BOS], context_of(model)[i], classes[i], [EOS]]))
    # Only the contexts that were used get a gradient.
    pooled(model, *batch(SHORT)).sum().backward()
    assert [bool(gradient.any()) for gradient in context_of(model).grad] == [True, False, False]
    for other in ([5, 6, 8], [5], [5, 6, 7, 8]):
        with pytest.raises(ValueError, match=r"tokens \[5.* is none of the 3 texts of adapter 'default'"):
            pooled(model, *batch(SHORT, other))


def test_context_starts_from_words(build, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    base = build("clip")
    words = tokenizer("a red", add_special_tokens=False)["input_ids"]
    config = ContextPromptConfig(init_text="a red", tokenizer_name_or_path=str(tmp_path))
    model = get_peft_model(build("clip"), config)
    assert (config.num_virtual_tokens, config.init_token_ids) == (len(words), words)
    assert torch.equal(context_of(model), base.text_model.embeddings.token_embedding.weight[words])
    # So before training it is as if the words stood there.
    torch.testing.assert_close(pooled(model, *batch(SHORT))[0], reference(base, [[BOS, *words, *SHORT, EOS]]))

    names = ["dogs", "red cats"]
    config = ContextPromptConfig(init_text="a red", class_names=names, tokenizer_name_or_path=str(tmp_path))
    model = get_peft_model(build("clip"), config)
    assert torch.equal(context_of(model)[0], context_of(model)[1])
    inputs = tokenizer(names, padding=True, return_tensors="pt")
    expected = reference(base, [tokenizer("a red red cats")["input_ids"]])
    torch.testing.assert_close(pooled(model, inputs["input_ids"], inputs["attention_mask"])[1], expected)
    # A saved adapter carries the tokens: no tokenizer is needed to load it.
    model.save_pretrained(tmp_path / "adapter")
    saved = ContextPromptConfig.from_pretrained(tmp_path / "adapter")
    saved.tokenizer_name_or_path = "/nowhere"
    loaded = PeftModel.from_pretrained(build("clip"), tmp_path / "adapter", config=saved)
    torch.testing.assert_close(pooled(loaded, inputs["input_ids"], inputs["attention_mask"])[1], expected)


def test_context_starts_as_coops_noise(build):
    model = get_peft_model(build("clip"), ContextPromptConfig(num_virtual_tokens=37))
    assert abs(context_of(model).std().item() - 0.02) < 0.002
    assert context_of(get_peft_model(build("clip"), ContextPromptConfig())).shape == (2, 24)


def test_padding_has_no_effect_and_is_removed_for_the_context(build):
    model = scramble(get_peft_model(build("clip"), ContextPromptConfig(num_virtual_tokens=3, position="end")))
    ids, mask = batch(SHORT)
    full = torch.cat([ids, ids.new_full((1, 35), EOS)], dim=1)  # all 40 positions
    full_mask = torch.cat([mask, mask.new_zeros(1, 35)], dim=1)
    for given in (None, full_mask):
        torch.testing.assert_close(pooled(model, full, given), pooled(model, ids, mask))


@pytest.mark.parametrize("model_name", ["clip", "density"])
def test_prompts_that_do_not_fit_with_the_context_raise(build, model_name):
    model = get_peft_model(build(model_name), ContextPromptConfig(num_virtual_tokens=3))
    fits, too_long = batch(list(range(35))), batch(list(range(36)))
    assert torch.isfinite(pooled(model, *fits)).all()
    with pytest.raises(ValueError, match="has 38 tokens, but with 3 context vectors at most 37 fit"):
        pooled(model, *too_long)


def test_old_configurations_are_read_at_the_highest_token(build):
    base = build("clip")
    base.text_model.eos_token_id = base.config.text_config.eos_token_id = 2
    model = scramble(get_peft_model(copy.deepcopy(base), ContextPromptConfig(num_virtual_tokens=2, position="end")))
    torch.testing.assert_close(
        pooled(model, *batch(SHORT, LONG))[0], reference(base, [[BOS], SHORT, context_of(model), [EOS]])
    )


def test_counting_model_scores_counterfactuals_with_the_context(build):
    base = build("counting")
    model = scramble(get_peft_model(build("counting"), ContextPromptConfig(num_virtual_tokens=2)))
    ids, mask = batch(SHORT, LONG)
    wrong, wrong_mask = batch([7, 8], [9, 10])
    output = model(
        ids,
        torch.rand(2, 3, 32, 32),
        mask,
        counterfactual_input_ids=wrong[:, None],
        counterfactual_attention_mask=wrong_mask[:, None],
        return_loss=True,
    )
    expected = reference(base, [[BOS], context_of(model), [9, 10], [EOS]])
    torch.testing.assert_close(output.counterfactual_embeds[1, 0], expected / expected.norm())
    output.loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"base_model.model.text_model.embeddings.token_embedding.clip_coop_embeds.default"}


@pytest.mark.parametrize("model_name", ["counting", "text", "density", "density with context"])
def test_disabled_and_unloaded_equals_the_base_exactly(build, model_name):
    base = build(model_name)
    model = scramble(get_peft_model(copy.deepcopy(base), ContextPromptConfig(num_virtual_tokens=3)))
    ids, mask = batch(SHORT, LONG)
    with torch.no_grad():
        expected = pooled(base, ids, mask)
        with model.disable_adapter():
            assert alike(pooled(model, ids, mask), expected)
        assert not torch.allclose(pooled(model, ids, mask), expected, atol=1e-3)
        unloaded = model.unload()
        assert alike(pooled(unloaded, ids, mask), expected)
    assert not tower(unloaded)._forward_pre_hooks
    assert unloaded.state_dict().keys() == base.state_dict().keys()


def test_several_contexts_on_one_base(build):
    base = build("clip")
    model = get_peft_model(build("clip"), ContextPromptConfig(num_virtual_tokens=3), adapter_name="b")
    model.add_adapter("a", ContextPromptConfig(num_virtual_tokens=2, position="end", class_token_ids=[SHORT, LONG]))
    scramble(model)
    ids, mask = batch(LONG)
    a, b = context_of(model, "a")[1], context_of(model, "b")
    model.set_adapter("a")
    torch.testing.assert_close(pooled(model, ids, mask)[0], reference(base, [[BOS], LONG, a, [EOS]]))
    model.set_adapter("b")
    torch.testing.assert_close(pooled(model, ids, mask)[0], reference(base, [[BOS], b, LONG, [EOS]]))
    model.base_model.set_adapter(["b", "a"])
    torch.testing.assert_close(pooled(model, ids, mask)[0], reference(base, [[BOS], b, LONG, a, [EOS]]))
    model.set_adapter("a")
    model.delete_adapter("b")
    torch.testing.assert_close(pooled(model, ids, mask)[0], reference(base, [[BOS], LONG, a, [EOS]]))


@pytest.mark.parametrize("model_name", ["counting", "text", "density"])
@pytest.mark.parametrize(
    "options", [{"num_virtual_tokens": 3, "position": "middle"}, {"class_token_ids": [SHORT, LONG]}]
)
def test_saved_adapter_has_only_the_context_and_loads(build, tmp_path, model_name, options):
    model = scramble(get_peft_model(build(model_name), ContextPromptConfig(**options)))
    model.save_pretrained(tmp_path)
    (name,) = load_file(tmp_path / "adapter_model.safetensors")
    assert name.endswith("embeddings.token_embedding.clip_coop_embeds")
    loaded = PeftModel.from_pretrained(build(model_name), tmp_path)
    assert alike(pooled(loaded, *batch(SHORT, LONG)), pooled(model, *batch(SHORT, LONG)))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_modules_to_save_train_and_are_saved(build, tmp_path):
    base = build("counting")
    config = ContextPromptConfig(num_virtual_tokens=3, modules_to_save=["text_projection"])
    model = get_peft_model(copy.deepcopy(base), config)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    pooled(model, *batch(SHORT)).sum().backward()
    optimizer.step()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert alike(pooled(loaded, *batch(SHORT)), pooled(model, *batch(SHORT)))
    saved = load_file(tmp_path / "adapter_model.safetensors")["base_model.model.text_projection.weight"]
    assert not torch.equal(saved, base.text_projection.weight)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("model_name", ["counting", "density"])
def test_gradient_checkpointing_changes_no_gradient(build, model_name, use_reentrant):
    model = scramble(get_peft_model(build(model_name), ContextPromptConfig(num_virtual_tokens=3))).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model.zero_grad()
        pooled(model, *batch(SHORT, LONG)).square().sum().backward()
        gradients.append(context_of(model).grad.clone())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0])


def test_half_precision_base_keeps_the_context_in_single_precision(build):
    model = scramble(get_peft_model(build("clip").to(torch.bfloat16), ContextPromptConfig(num_virtual_tokens=3)))
    assert context_of(model).dtype == torch.float32
    found = pooled(model, *batch(SHORT))
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert torch.isfinite(context_of(model).grad).all()
    assert (found - reference(build("clip"), [[BOS], context_of(model), SHORT, [EOS]])).abs().max() < 0.1


@pytest.mark.parametrize(
    "backend", ["eager", pytest.param("inductor", marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_compiled_model_has_equal_outputs_and_follows_switches(build, backend):
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("no compiler on this machine")
    model = scramble(get_peft_model(build("text"), ContextPromptConfig(num_virtual_tokens=3, position="end")))
    ids, mask = batch(SHORT, LONG)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        for _ in range(2):
            found = compiled(ids, mask).pooler_output
            torch.testing.assert_close(found, pooled(model, ids, mask), atol=1e-5, rtol=1e-4)
            with model.disable_adapter():
                found = compiled(ids, mask).pooler_output
                torch.testing.assert_close(found, pooled(build("text"), ids, mask), atol=1e-5, rtol=1e-4)
    torch._dynamo.reset()


def test_copies_and_pickles_are_independent(build):
    model = scramble(get_peft_model(build("text"), ContextPromptConfig(num_virtual_tokens=3)))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = pooled(model, *batch(SHORT))
        assert alike(pooled(twin, *batch(SHORT)), before)
        scramble(twin, seed=1)
        assert alike(pooled(model, *batch(SHORT)), before)
        assert not torch.allclose(pooled(twin, *batch(SHORT)), before, atol=1e-3)


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_merging_raises(build, merge):
    model = get_peft_model(build("clip"), ContextPromptConfig())
    with pytest.raises(ValueError, match="Prompts are inputs.*cannot be merged"):
        getattr(model, merge)()


def test_position_ids_raise(build):
    model = get_peft_model(build("text"), ContextPromptConfig())
    ids, _ = batch(SHORT)
    with pytest.raises(ValueError, match="`position_ids` cannot be combined with context prompts"):
        model(ids, position_ids=torch.arange(5)[None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_virtual_tokens": 0}, "`num_virtual_tokens` must be at least 1 and a whole number, but got 0"),
        ({"num_virtual_tokens": 2.0}, "`num_virtual_tokens` must be at least 1 and a whole number, but got 2.0"),
        ({"position": "back"}, "`position` must be one of front, middle, end, but got 'back'"),
        ({"class_names": []}, "`class_names` must have at least one text and none twice, but got"),
        ({"class_names": ["a", "b", "a"]}, "none twice, but got .'a', 'b', 'a'."),
        ({"num_virtual_tokens": 2, "init_token_ids": [1, 2, 3]}, "is 2, but the text to start from takes 3 tokens"),
    ],
)
def test_invalid_values_raise(options, message):
    with pytest.raises(ValueError, match=message):
        ContextPromptConfig(**options)


def test_mismatched_bases_raise(build, tower_sizes, tmp_path):
    with pytest.raises(ValueError, match="`num_virtual_tokens` .38. leaves no positions .* has 40. At most 37"):
        get_peft_model(build("clip"), ContextPromptConfig(num_virtual_tokens=38))
    with pytest.raises(
        ValueError, match="found no module .* in the CLIPVisionModel.*VisualPromptConfig tunes the other"
    ):
        get_peft_model(build("clip").vision_model, ContextPromptConfig())
    with pytest.raises(ValueError, match="have the token 9999, but the base has 514"):
        get_peft_model(build("clip"), ContextPromptConfig(init_token_ids=[9999]))
    with pytest.raises(ValueError, match="need a tokenizer, but the base has no name.*`tokenizer_name_or_path`"):
        get_peft_model(build("clip"), ContextPromptConfig(init_text="a photo of"))
    with pytest.raises(ValueError, match="A text of the context .class_token_ids. has no tokens"):
        get_peft_model(build("clip"), ContextPromptConfig(class_token_ids=[[1], []]))
    get_peft_model(build("clip"), ContextPromptConfig()).save_pretrained(tmp_path)
    sizes = copy.deepcopy(tower_sizes)
    sizes["text_config"]["hidden_size"] = 30
    with pytest.raises(ValueError, match="text tower of 2 layers of width 24, but that of the base has 2"):
        PeftModel.from_pretrained(CLIPModel(CLIPConfig(**sizes)), tmp_path)
