"""Visual prompts as PEFT adapters, compared with the equations of VPT."""

import copy
import pickle
import shutil

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, CLIPVisionModel

from count_clip.modeling.prompt_tuning import VisualPromptConfig


FORMS = {
    "shallow": {"depth": 1},
    "deep": {"depth": 2},
    "deep to the end": {"depth": None},
    "deep, all options": {"depth": 2, "projection": True, "norm": True},
    "shallow, all options": {"depth": 1, "projection": True, "norm": True},
}


def alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal, but for the order of sums: it depends on the alignment in memory."""
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def _models(tower_sizes, _counting_model, _density_model):
    torch.manual_seed(1)
    clip = CLIPModel(CLIPConfig(**copy.deepcopy(tower_sizes))).eval()
    return {
        "counting": _counting_model,
        "clip": clip,
        "vision": CLIPVisionModel(copy.deepcopy(clip.config.vision_config)).eval(),
        "density": _density_model,
    }


@pytest.fixture
def build(_models):
    """A fresh copy of a model with this vision tower."""
    return lambda model_name: copy.deepcopy(_models[model_name])


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def windows():
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def tower(model):
    return model if isinstance(model, CLIPVisionModel) else model.vision_model


def states(model, pixels):
    """What the tower returns, through PEFT's wrapper where there is one."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if hasattr(base, "vision_model"):
        return base.vision_model(pixels).last_hidden_state
    return model(pixels).last_hidden_state


def prompts_of(model, name="default"):
    """The prompts of an adapter by layer, after the projection, and its norm."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    layer = tower(base).pre_layrnorm
    embeds = layer.clip_vpt_embeds[name]
    if name in layer.clip_vpt_projection:
        projection = layer.clip_vpt_projection[name]
        embeds = embeds @ projection.weight.t() + projection.bias
    return embeds, dict(layer.clip_vpt_norm.items()).get(name)


def reference(base_tower, pixels, sets):
    """VPT's equations 4 to 7: `sets` holds the prompts (depth, count, width) and the norm of each adapter."""
    hidden = base_tower.embeddings(pixels)
    batch_size, length = hidden.shape[:2]
    carried = [None] * len(sets)
    for i, layer in enumerate(base_tower.encoder.layers):
        if i == 0:
            hidden = base_tower.pre_layrnorm(hidden)
        for k, (embeds, _) in enumerate(sets):
            if i < len(embeds):
                carried[k] = embeds[i].expand(batch_size, -1, -1)
                if i == 0:
                    carried[k] = base_tower.pre_layrnorm(carried[k])
            elif len(embeds) > 1:
                carried[k] = None
        there = [k for k in range(len(sets)) if carried[k] is not None]
        output = layer(torch.cat([hidden, *(carried[k] for k in there)], dim=1), None)
        hidden, *rest = output.split([length, *(carried[k].shape[1] for k in there)], dim=1)
        for k, part in zip(there, rest, strict=True):
            carried[k] = part
    for _, norm in sets:
        hidden = hidden if norm is None else norm(hidden)
    return hidden


def scramble(model, seed=0):
    """Give an adapter's parameters values that nothing starts with, norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "clip_vpt" in name or "clip_coop" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model_name", ["counting", "clip", "vision", "density"])
def test_prompts_equal_the_vpt_reference(build, pixels, model_name, form):
    base = tower(build(model_name))
    model = scramble(get_peft_model(build(model_name), VisualPromptConfig(num_virtual_tokens=4, **FORMS[form])))
    expected = reference(base, pixels, [prompts_of(model)])
    assert expected.shape == (2, 17, 40)
    torch.testing.assert_close(states(model, pixels), expected)
    assert not torch.allclose(expected, base(pixels).last_hidden_state, atol=1e-3)


def test_depth_defaults_to_all_layers(build):
    config = VisualPromptConfig(num_virtual_tokens=4)
    model = get_peft_model(build("clip"), config)
    assert (config.depth, config.num_layers, config.token_dim) == (3, 3, 40)
    assert prompts_of(model)[0].shape == (3, 4, 40)


def test_prompts_start_in_the_range_of_vpt(build):
    embeds, _ = prompts_of(get_peft_model(build("clip"), VisualPromptConfig(num_virtual_tokens=500)))
    bound = (6 / (3 * 8 * 8 + 40)) ** 0.5
    assert 0.99 * bound < embeds.abs().max() <= bound
    assert abs(embeds.std().item() - bound / 3**0.5) < 0.01 * bound


def test_prompts_change_the_outputs(build, pixels, windows, density_model):
    ids = torch.tensor([[512, 5, 6, 513], [512, 7, 8, 513]])
    for model_name in ("clip", "counting"):
        base, model = (
            build(model_name),
            get_peft_model(build(model_name), VisualPromptConfig(num_virtual_tokens=4, depth=2)),
        )
        change = model(input_ids=ids, pixel_values=pixels).logits_per_image - base(ids, pixels).logits_per_image
        assert change.abs().max() > 1e-3
    model = get_peft_model(copy.deepcopy(density_model), VisualPromptConfig(num_virtual_tokens=4, depth=2))
    assert (model(windows, ids).density_map - density_model(windows, ids).density_map).abs().max() > 1e-8


@pytest.mark.parametrize(("own_depth", "depth"), [(2, 2), (2, 1), (1, 3), (1, 1), (3, 2)])
@pytest.mark.parametrize("gradient", [True, False])
def test_density_model_keeps_its_prompts(density_config, windows, own_depth, depth, gradient):
    from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel

    torch.manual_seed(3)
    base = CLIPCountDensityModel(density_config(visual_prompt_depth=own_depth)).eval()
    model = scramble(
        get_peft_model(copy.deepcopy(base), VisualPromptConfig(num_virtual_tokens=4, depth=depth, norm=True))
    )
    own = base.visual_prompts.projection(base.visual_prompts.prompt_embeds)
    embeds, norm = prompts_of(model)
    seen = torch.nn.functional.interpolate(windows, size=(32, 32), mode="bilinear")
    expected = base.visual_prompts.norm(reference(base.vision_model, seen, [(own, None), (embeds, norm)]))[:, 1:]
    with torch.set_grad_enabled(gradient):
        found = model.get_patch_features(windows)
    torch.testing.assert_close(found, expected)
    with model.disable_adapter():
        torch.testing.assert_close(model.get_patch_features(windows), base.get_patch_features(windows))


def test_density_model_takes_windows_of_other_sizes(density_model, tokenizer):
    model = get_peft_model(density_model, VisualPromptConfig(num_virtual_tokens=4, depth=2))
    ids = torch.tensor([[512, 5, 513]])
    assert model(torch.rand(1, 3, 48, 72), ids, interpolate_pos_encoding=True).density_map.shape == (1, 48, 72)


def test_output_has_no_prompts_but_hidden_states_do(build, pixels):
    model = get_peft_model(build("vision"), VisualPromptConfig(num_virtual_tokens=4, depth=2))
    output = model(pixels, output_hidden_states=True)
    assert output.last_hidden_state.shape == (2, 17, 40)
    assert 21 in {part.shape[1] for part in output.hidden_states}


def test_dropout_is_of_every_image_and_only_in_training(build, pixels):
    config = VisualPromptConfig(num_virtual_tokens=4, depth=2, dropout=0.5)
    model = get_peft_model(build("vision"), config).eval()
    same = pixels[:1].expand(2, -1, -1, -1)
    torch.testing.assert_close(*states(model, same))
    torch.testing.assert_close(states(model, same), states(model, same))
    model.train()
    one, two = states(model, same)
    assert not torch.allclose(one, two)


def test_only_prompts_train(build, pixels):
    base = build("counting")
    model = get_peft_model(copy.deepcopy(base), VisualPromptConfig(num_virtual_tokens=4, depth=2, projection=True))
    trained = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split("pre_layrnorm.")[-1] for name in trained} == {
        "clip_vpt_embeds.default",
        "clip_vpt_projection.default.weight",
        "clip_vpt_projection.default.bias",
    }
    assert model.get_nb_trainable_parameters()[0] == 2 * 4 * 40 + 40 * 40 + 40
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    states(model, pixels).square().mean().backward()
    optimizer.step()
    after = dict(model.named_parameters())
    assert all(not torch.equal(after[name], value) for name, value in trained.items())
    unloaded = model.unload()
    assert all(torch.equal(value, unloaded.state_dict()[name]) for name, value in base.state_dict().items())


@pytest.mark.parametrize("model_name", ["counting", "vision", "density"])
def test_disabled_adapter_equals_the_base_exactly(build, pixels, model_name):
    base = build(model_name)
    model = scramble(get_peft_model(copy.deepcopy(base), VisualPromptConfig(num_virtual_tokens=4, norm=True)))
    with torch.no_grad(), model.disable_adapter():
        assert alike(states(model, pixels), tower(base)(pixels).last_hidden_state)
        if model_name == "density":
            windows = torch.nn.functional.interpolate(pixels, size=(48, 48))
            assert alike(model.get_patch_features(windows), base.get_patch_features(windows))
    assert not torch.allclose(states(model, pixels), tower(base)(pixels).last_hidden_state, atol=1e-3)


def test_unloading_returns_the_base_without_hooks(build, pixels):
    base = build("counting")
    unloaded = get_peft_model(copy.deepcopy(base), VisualPromptConfig(num_virtual_tokens=4, depth=1)).unload()
    assert type(unloaded.vision_model.pre_layrnorm) is torch.nn.LayerNorm
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in unloaded.vision_model.encoder.layers)
    assert unloaded.state_dict().keys() == base.state_dict().keys()
    assert alike(states(unloaded, pixels), states(base, pixels))
    # And a second adapter can follow.
    again = get_peft_model(unloaded, VisualPromptConfig(num_virtual_tokens=2, depth=3))
    torch.testing.assert_close(states(again, pixels), reference(tower(base), pixels, [prompts_of(again)]))


def test_several_adapters_on_one_base(build, pixels):
    base = tower(build("clip"))
    model = get_peft_model(build("clip"), VisualPromptConfig(num_virtual_tokens=4, depth=1), adapter_name="a")
    model.add_adapter("b", VisualPromptConfig(num_virtual_tokens=2, depth=3, projection=True, norm=True))
    scramble(model)
    sets = {name: prompts_of(model, name) for name in ("a", "b")}
    for name in ("a", "b", "a"):
        model.set_adapter(name)
        torch.testing.assert_close(states(model, pixels), reference(base, pixels, [sets[name]]))
        training = {n.rsplit("embeds.")[-1] for n, p in model.named_parameters() if p.requires_grad and "embeds" in n}
        assert training == {name}
    model.base_model.set_adapter(["b", "a"])
    torch.testing.assert_close(states(model, pixels), reference(base, pixels, [sets["a"], sets["b"]]))
    model.set_adapter("b")
    model.delete_adapter("a")
    torch.testing.assert_close(states(model, pixels), reference(base, pixels, [sets["b"]]))
    assert not [name for name, _ in model.named_parameters() if name.endswith(".a") or ".a." in name]
    model.delete_adapter("b")
    assert alike(states(model.base_model.model, pixels), base(pixels).last_hidden_state)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("model_name", ["counting", "density", "vision"])
def test_saved_adapter_has_only_prompts_and_loads(build, pixels, tmp_path, model_name, low_cpu_mem_usage):
    config = VisualPromptConfig(num_virtual_tokens=4, depth=2, projection=True, norm=True)
    model = scramble(get_peft_model(build(model_name), config)).eval()
    model.save_pretrained(tmp_path)
    assert all(".clip_vpt_" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 20_000
    loaded = PeftModel.from_pretrained(build(model_name), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert alike(states(loaded, pixels), states(model, pixels))
    assert not any(p.requires_grad for p in loaded.parameters())
    going_on = PeftModel.from_pretrained(build(model_name), tmp_path, is_trainable=True)
    assert any(p.requires_grad for p in going_on.parameters())


def test_second_adapter_is_loaded_in_addition_to_the_first(build, pixels, tmp_path):
    first = get_peft_model(build("clip"), VisualPromptConfig(num_virtual_tokens=4, depth=1))
    second = scramble(get_peft_model(build("clip"), VisualPromptConfig(num_virtual_tokens=3, depth=3)))
    second.save_pretrained(tmp_path)
    first.load_adapter(tmp_path, "other")
    first.set_adapter("other")
    assert alike(states(first, pixels), states(second, pixels))


def test_modules_to_save_train_and_are_saved(density_model, windows, tmp_path):
    base = copy.deepcopy(density_model)
    config = VisualPromptConfig(num_virtual_tokens=4, depth=2, modules_to_save=["decoder", "interaction"])
    model = get_peft_model(copy.deepcopy(density_model), config)
    ids = torch.tensor([[512, 5, 513], [512, 6, 513]])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(windows, ids, labels=torch.rand(2, 48, 48)).loss.backward()
    optimizer.step()
    model.eval().save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {name.split(".")[2] for name in saved} == {"vision_model", "decoder", "interaction"}
    assert not torch.equal(
        saved["base_model.model.decoder.density_projection.weight"], base.decoder.density_projection.weight
    )
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(windows, ids).density_map, model(windows, ids).density_map)
        with model.disable_adapter():
            assert alike(model(windows, ids).density_map, base(windows, ids).density_map)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(build, pixels, use_reentrant):
    config = VisualPromptConfig(num_virtual_tokens=4, depth=2, projection=True, norm=True, dropout=0.3)
    torch.manual_seed(5)
    model = get_peft_model(build("counting"), config).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            assert model.vision_model.encoder.layers[1].gradient_checkpointing
        model.zero_grad()
        torch.manual_seed(6)
        states(model, pixels).square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient)


def test_half_precision_base_keeps_prompts_in_single_precision(build, pixels):
    config = VisualPromptConfig(num_virtual_tokens=4, depth=2, projection=True, norm=True)
    model = get_peft_model(build("counting").to(torch.bfloat16), config)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    output = states(model, pixels.to(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    output.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    expected = reference(tower(build("counting")), pixels, [prompts_of(model)])
    assert (output - expected).abs().max() < 0.15
    plain = get_peft_model(build("counting").to(torch.bfloat16), config, autocast_adapter_dtype=False)
    assert {p.dtype for p in plain.parameters()} == {torch.bfloat16}
    assert torch.isfinite(states(plain, pixels.to(torch.bfloat16))).all()


def test_autocast_runs(build, pixels):
    model = get_peft_model(build("counting"), VisualPromptConfig(num_virtual_tokens=4, depth=2, projection=True))
    with torch.autocast("cpu", torch.bfloat16):
        loss = states(model, pixels).square().mean()
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    "backend", ["eager", pytest.param("inductor", marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
def test_compiled_model_has_equal_outputs_and_follows_switches(build, pixels, backend):
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("no compiler on this machine")
    model = scramble(get_peft_model(build("vision"), VisualPromptConfig(num_virtual_tokens=4, depth=2))).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixels).last_hidden_state, states(model, pixels), atol=1e-5, rtol=1e-4)
        with model.disable_adapter():
            expected = build("vision")(pixels).last_hidden_state
            torch.testing.assert_close(compiled(pixels).last_hidden_state, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(compiled(pixels).last_hidden_state, states(model, pixels), atol=1e-5, rtol=1e-4)
    torch._dynamo.reset()


def test_copies_and_pickles_are_independent(build, pixels):
    model = scramble(get_peft_model(build("vision"), VisualPromptConfig(num_virtual_tokens=4, depth=2)))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = states(model, pixels)
        assert alike(states(twin, pixels), before)
        scramble(twin, seed=1)
        assert alike(states(model, pixels), before)
        assert not torch.allclose(states(twin, pixels), before, atol=1e-3)
        assert not twin.unload().encoder.layers[1]._forward_pre_hooks
        assert model.encoder.layers[1]._forward_pre_hooks


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_merging_raises(build, pixels, merge):
    model = get_peft_model(build("clip"), VisualPromptConfig(num_virtual_tokens=4))
    before = states(model, pixels)
    with pytest.raises(ValueError, match="Prompts are inputs.*cannot be merged.*unload"):
        getattr(model, merge)()
    assert alike(states(model, pixels), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_virtual_tokens": 0}, "`num_virtual_tokens` must be at least 1 and a whole number, but got 0"),
        ({"num_virtual_tokens": None}, "`num_virtual_tokens` must be at least 1 and a whole number, but got None"),
        ({"num_virtual_tokens": 2.5}, "`num_virtual_tokens` must be at least 1 and a whole number, but got 2.5"),
        ({"num_virtual_tokens": True}, "`num_virtual_tokens` must be at least 1 and a whole number, but got True"),
        ({"depth": 0}, "`depth` must be at least 1 .the shallow form. and a whole number, but got 0"),
        ({"depth": "3"}, "`depth` must be at least 1 .the shallow form. and a whole number, but got '3'"),
        ({"dropout": 1.0}, "`dropout` must be in .0, 1., but got 1.0"),
    ],
)
def test_invalid_values_raise(options, message):
    with pytest.raises(ValueError, match=message):
        VisualPromptConfig(**options)


def test_mismatched_bases_raise(build, tower_sizes, tmp_path):
    with pytest.raises(ValueError, match="`depth` is 4, but the vision tower has 3 layers"):
        get_peft_model(build("clip"), VisualPromptConfig(depth=4))
    with pytest.raises(
        ValueError, match="found no module .* in the CLIPTextModel.*ContextPromptConfig tunes the other"
    ):
        get_peft_model(build("clip").text_model, VisualPromptConfig())
    bert = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=10)
    with pytest.raises(ValueError, match="in the BertModel. It needs a CLIP"):
        get_peft_model(BertModel(bert), VisualPromptConfig())
    with pytest.raises(ValueError, match="'visual_projection' in the vision tower of a CLIP, but CLIPModel has"):
        get_peft_model(build("clip"), VisualPromptConfig(target_modules=["visual_projection"]))

    get_peft_model(build("clip"), VisualPromptConfig(num_virtual_tokens=4, depth=2)).save_pretrained(tmp_path)
    for change in ({"num_hidden_layers": 4}, {"hidden_size": 48}):
        sizes = copy.deepcopy(tower_sizes)
        sizes["vision_config"].update(change)
        other = CLIPModel(CLIPConfig(**sizes))
        names = set(other.state_dict())
        with pytest.raises(ValueError, match=r"tower of 3 layers of width 40, but that of the base has \d"):
            PeftModel.from_pretrained(other, tmp_path)
        assert set(other.state_dict()) == names, "the base was changed before the error"
