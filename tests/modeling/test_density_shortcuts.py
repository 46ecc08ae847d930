"""What the density model leaves out in inference changes nothing: training computes everything as it is written."""

import copy
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model

from count_clip.modeling import cpu_products
from count_clip.modeling import modeling_clip_count_density as modeling
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel


INTERACTIONS = ["hierarchical", "plain", "add"]
FIELDS = ["density_map", "counts", "similarity_map", "patch_embeds", "text_embeds"]


@pytest.fixture
def inputs(density_processor, make_image) -> dict:
    """Three windows, two of which share a prompt."""
    images = [make_image(48, 48, seed) for seed in range(3)]
    inputs = density_processor(images, ["red apples", "dogs", "red apples"])
    return {name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask")}


def as_written(model: CLIPCountDensityModel, **inputs: torch.Tensor) -> dict:
    """Outputs under autograd, which takes no shortcut."""
    with torch.enable_grad():
        return {name: model(**inputs)[name].detach() for name in FIELDS}


def assert_same(found: dict, expected: dict, scale: float = 60.0) -> None:
    for name in FIELDS:
        torch.testing.assert_close(found[name] * scale, expected[name] * scale, atol=1e-4, rtol=1e-5, msg=name)
    difference = (found["density_map"] - expected["density_map"]).abs().max()
    assert difference * scale < 1e-5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("interaction", INTERACTIONS)
@pytest.mark.parametrize("prompts", [(0, 1, 0), (5, 1, 2), (5, 2, 0), (3, 3, 1)])
def test_inference_computes_what_training_does(density_config, inputs, interaction, prompts, attention):
    num_visual, depth, num_context = prompts
    torch.manual_seed(0)
    config = density_config(
        interaction=interaction,
        num_visual_prompts=num_visual,
        visual_prompt_depth=depth,
        num_context_tokens=num_context,
    )
    model = CLIPCountDensityModel(config).eval()
    model.set_attn_implementation(attention)
    expected = as_written(model, **inputs)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert_same(model(**inputs), expected)


def test_shortcuts_are_taken(density_model, inputs, monkeypatch):
    """Without this, the test above could compare a thing with itself."""
    asked = []
    for layer in density_model.interaction.text_layers:
        layer.attention.q_proj.register_forward_hook(lambda *_: asked.append("query"))
    monkeypatch.setattr(
        modeling.CLIPCountDensityVisualPrompts, "remove", lambda *_: pytest.fail("prompts are carried along")
    )
    encoded = []
    encode = density_model.get_text_embeds
    monkeypatch.setattr(density_model, "get_text_embeds", lambda *x: encoded.append(len(x[0])) or encode(*x))
    with torch.no_grad():
        density_model(**inputs)
    assert asked == []
    assert encoded == [2]
    monkeypatch.undo()
    as_written(density_model, **inputs)
    assert asked


@pytest.mark.parametrize("masked", [True, False])
def test_prompts_that_come_twice_keep_their_places(density_model, inputs, masked):
    if not masked:
        del inputs["attention_mask"]
    expected = density_model.get_text_embeds(inputs["input_ids"], inputs.get("attention_mask")).detach()
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(density_model(**inputs).text_embeds, expected)


@pytest.mark.parametrize("interaction", INTERACTIONS)
@pytest.mark.parametrize("at_once", [0, 1, 2, 5, 100])
def test_maps_are_the_same_in_any_portions(density_config, inputs, monkeypatch, interaction, at_once):
    torch.manual_seed(0)
    model = CLIPCountDensityModel(density_config(interaction=interaction)).eval()
    texts = torch.randn(3, 4, 64)
    expected = as_written(model, pixel_values=inputs["pixel_values"], text_embeds=texts)
    monkeypatch.setattr(modeling, "STATES_AT_ONCE", at_once * 16 * 64)  # patches, and the width of their states
    drawn = []
    model.decoder.register_forward_hook(lambda *x: drawn.append(len(x[-1])))
    with torch.no_grad():
        assert_same(model(pixel_values=inputs["pixel_values"], text_embeds=texts), expected)
    assert sum(drawn) == 12
    assert max(drawn) == min(12, max(1, at_once))


@pytest.mark.parametrize("everything_goes_to_onednn", [False, True])
def test_a_image_in_one_pass_is_as_written_too(density_model, inputs, monkeypatch, everything_goes_to_onednn):
    if everything_goes_to_onednn:
        if not cpu_products._is_available():
            pytest.skip("this PyTorch has no oneDNN, or no MKL to be faster than")
        # What large models do.
        monkeypatch.setattr(cpu_products, "SMALLEST_PRODUCT", 1)
        monkeypatch.setattr(cpu_products, "SMALLEST_ATTENTION", 1)
        monkeypatch.setattr(cpu_products, "NARROWEST_HEAD", 1)
        attended = []
        attend = modeling.attention
        monkeypatch.setattr(modeling, "attention", lambda *x: attended.append(1) or attend(*x))
    wide = {"pixel_values": torch.randn(1, 3, 48, 144), "input_ids": inputs["input_ids"][:1]}
    expected = as_written(density_model, **wide, interpolate_pos_encoding=True)
    with torch.no_grad():
        assert_same(density_model(**wide, interpolate_pos_encoding=True), expected)
    if everything_goes_to_onednn:
        assert len(attended) == 3 + 2  # layers of the vision tower and of the interaction; the text is masked


def test_one_text_gets_the_gradients_of_attention(density_model):
    """A query that has one key to choose from gets its value, and so do the gradients."""
    layer = density_model.interaction.text_layers[0]
    hidden_states, text = torch.randn(2, 16, 64, requires_grad=True), torch.randn(2, 1, 64, requires_grad=True)
    direction = torch.randn(2, 16, 64)

    def gradients(outputs: torch.Tensor) -> dict[str, torch.Tensor | None]:
        layer.zero_grad()
        hidden_states.grad = text.grad = None
        (outputs * direction).sum().backward()
        own = {name: parameter.grad for name, parameter in layer.named_parameters()}
        return {**own, "hidden_states": hidden_states.grad, "text": text.grad}

    attended = layer(hidden_states, text)
    expected = gradients(attended)
    shortened = hidden_states + layer.attention.attend_to_one(text)
    shortened = shortened + layer.mlp(layer.mlp_norm(shortened))
    torch.testing.assert_close(shortened, attended)
    missing = set()
    for name, gradient in gradients(shortened).items():
        if gradient is None:
            missing.add(name.split(".")[-2] if "attention_norm" not in name else "attention_norm")
            # What training computes at length, and what data parallelism waits for.
            torch.testing.assert_close(expected[name], torch.zeros_like(expected[name]), atol=1e-5, rtol=0, msg=name)
        else:
            torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)
    assert missing == {"q_proj", "k_proj", "attention_norm"}


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_training_takes_no_shortcut(density_config, inputs, reentrant):
    """A re-entrant checkpoint runs its layers without autograd first, and must draw the same dropout both times."""
    torch.manual_seed(0)
    model = CLIPCountDensityModel(density_config(interaction_dropout=0.3, visual_prompt_dropout=0.0)).train()
    labels = torch.rand(3, 48, 48) / 100
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        model.zero_grad()
        torch.manual_seed(1)
        model(**inputs, labels=labels).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_autocast_is_as_close_in_inference_as_in_training(density_model, inputs):
    expected = as_written(density_model, **inputs)["counts"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = as_written(density_model, **inputs)["counts"]
        with torch.no_grad():
            outputs = density_model(**inputs)
    assert outputs.density_map.dtype == torch.float32
    torch.testing.assert_close(trained, expected, rtol=0.05, atol=0.05)
    torch.testing.assert_close(outputs.counts, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "watched",
    [
        "vision_model.encoder.layers.0",
        "vision_model.encoder.layers.1.self_attn",
        "vision_model.encoder.layers.2.mlp",
        "visual_prompts",
        "interaction.text_layers.0.attention",
        "interaction.text_layers.1.mlp",
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_who_watches_a_module_sees_it_called(density_model, inputs, watched, before):
    expected = as_written(density_model, **inputs)
    seen = []
    module = density_model.get_submodule(watched)
    register = module.register_forward_pre_hook if before else module.register_forward_hook
    register(lambda *_: seen.append(watched))
    with torch.no_grad():
        assert_same(density_model(**inputs), expected)
    assert seen


def _lora(model: CLIPCountDensityModel) -> LoraConfig:
    return LoraConfig(target_modules=["q_proj", "v_proj", "mlp.0", "fc1"], init_lora_weights=False)


def _copies(model: CLIPCountDensityModel) -> LoraConfig:
    saved = ["visual_prompts", "interaction", "decoder", "patch_projection"]
    return LoraConfig(target_modules=["fc2"], modules_to_save=saved)


@pytest.mark.parametrize("adapter", [_lora, _copies])
def test_adapters_count_and_switch_off(density_model, inputs, adapter: Callable):
    base = as_written(density_model, **inputs)
    adapted = get_peft_model(copy.deepcopy(density_model), adapter(density_model)).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    expected = as_written(adapted, **inputs)
    assert (expected["density_map"] - base["density_map"]).abs().max() * 60 > 1e-3
    with torch.no_grad():
        assert_same(adapted(**inputs), expected)
        with adapted.disable_adapter():
            assert_same(adapted(**inputs), base)


def test_inference_leaves_nothing_behind(density_model, inputs):
    """Tensors made in inference mode must not turn up in a later backward pass."""
    with torch.inference_mode():
        density_model(**inputs)
    density_model(**inputs).counts.sum().backward()
    assert density_model.visual_prompts.prompt_embeds.grad.abs().max() > 0


def test_compiler_sees_one_graph_with_the_same_result(density_model, inputs):
    density_model.requires_grad_(False)
    expected = as_written(density_model, **inputs)
    with torch.no_grad():
        compiled = torch.compile(density_model, backend="eager", fullgraph=True)
        assert_same(compiled(**inputs), expected)
