"""`optimize_for_cpu` changes no output, and runs the original code where anything but inference is wanted."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import count_clip
from count_clip.modeling import optimization_cpu
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.optimization_cpu import linear, linear_gelu, optimize_for_cpu


IN, OUT, ROWS = 96, 160, 80  # just above the smallest product that goes to oneDNN
FIELDS = ["density_map", "counts", "similarity_map", "patch_embeds", "text_embeds"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The activation of each call of the operator; the test is skipped where PyTorch lacks it."""
    optimization_cpu._has_operator.cache_clear()
    if not optimization_cpu._has_operator():
        pytest.skip("this PyTorch has no oneDNN, or no MKL to be faster than")
    found: list[str] = []
    operator = torch.ops.mkldnn._linear_pointwise

    class Recorder:
        default = operator.default

        def __call__(self, *args: object) -> torch.Tensor:
            found.append(args[3])
            return operator(*args)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", Recorder())
    return found


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SMALLEST_PRODUCT", "SMALLEST_ATTENTION", "NARROWEST_HEAD"):
        monkeypatch.setattr(optimization_cpu, name, 1)


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(IN, OUT)


@pytest.fixture
def inputs(density_processor, make_image) -> dict:
    """Three windows, two of which share a prompt."""
    images = [make_image(48, 48, seed) for seed in range(3)]
    inputs = density_processor(images, ["red apples", "dogs", "red apples"])
    return {name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask")}


def outputs_of(model: nn.Module, **inputs: torch.Tensor) -> dict:
    return {name: model(**inputs)[name].detach() for name in FIELDS}


def assert_same(found: dict, expected: dict) -> None:
    for name in FIELDS:
        torch.testing.assert_close(found[name] * 60, expected[name] * 60, atol=1e-4, rtol=1e-5, msg=name)
    assert (found["density_map"] - expected["density_map"]).abs().max() * 60 < 1e-5


@pytest.mark.parametrize(
    "states",
    [
        torch.randn(ROWS, IN),
        torch.randn(2, 3, ROWS, IN),
        torch.randn(2, ROWS + 1, IN)[:, 1:],
        torch.randn(2, IN, ROWS).transpose(1, 2),
        torch.randn(1, ROWS, IN).expand(3, -1, -1),
        nn.Parameter(torch.randn(2, ROWS, IN)),
    ],
    ids=["two dimensions", "four", "a slice", "transposed", "expanded", "a parameter"],
)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_are_those_of_float64(states: torch.Tensor, bias: bool, calls: list[str]) -> None:
    layer = nn.Linear(IN, OUT, bias=bias)
    expected = nn.functional.linear(states.double(), layer.weight.double(), layer.bias.double() if bias else None)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert (linear(layer, states).double() - expected).abs().max() < 1e-5
            activated = linear_gelu(layer, states).double()
            assert (activated - nn.functional.gelu(expected)).abs().max() < 1e-5
    optimize_for_cpu(layer)
    with torch.no_grad():
        assert (layer(states).double() - expected).abs().max() < 1e-5
    assert calls == ["none", "gelu", "none", "gelu", "none"]


class _Tracked(torch.Tensor):
    """A class of tensors of another library."""


class _Wrapped(nn.Linear):
    """A class of layers of another library."""


def _with_hook(layer: nn.Linear) -> nn.Linear:
    layer.register_forward_hook(lambda *_: None)
    return layer


def _with_forward(layer: nn.Linear) -> nn.Linear:
    plain = layer.forward
    layer.forward = lambda states: plain(states)
    return layer


def _quantised(layer: nn.Linear) -> nn.Linear:
    del layer._parameters["weight"]
    layer.weight = torch.randn(OUT, IN).as_subclass(_Tracked)
    return layer


@pytest.mark.parametrize(
    "change",
    [_with_hook, _with_forward, _quantised, lambda _: _Wrapped(IN, OUT), nn.Sequential, lambda x: x.double()],
    ids=["hook", "forward", "quantised", "subclass", "container", "float64"],
)
@torch.no_grad()
def test_a_changed_layer_is_called(layer: nn.Linear, change: Callable, calls: list[str]) -> None:
    changed = change(layer)
    states = torch.randn(ROWS, IN).to(next(changed.parameters()).dtype)
    torch.testing.assert_close(linear(changed, states), changed(states))
    assert calls == []


def test_outside_of_inference_pytorch_computes(layer: nn.Linear, calls: list[str], monkeypatch) -> None:
    states = torch.randn(ROWS, IN)
    optimize_for_cpu(layer)(states).sum().backward()
    torch.testing.assert_close(layer.weight.grad, states.sum(dim=0).expand(OUT, -1))
    with torch.no_grad():
        layer(states[:2])
        layer(states.as_subclass(_Tracked))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(states).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            layer(states)
        copy.deepcopy(layer).bfloat16()(states.bfloat16())
        monkeypatch.setattr(optimization_cpu, "SCHEMA", "mkldnn::_linear_pointwise(another) -> Tensor")
        optimization_cpu._has_operator.cache_clear()
        layer(states)
        optimization_cpu._has_operator.cache_clear()
    assert calls == []


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
@torch.no_grad()
def test_tracing_keeps_the_layer(layer: nn.Linear) -> None:
    traced = torch.jit.trace(optimize_for_cpu(layer).requires_grad_(False), torch.randn(ROWS, IN), check_trace=False)
    assert "mkldnn" not in str(traced.graph)
    assert "aten::linear" in str(traced.graph)


@pytest.mark.parametrize(("num_queries", "through_onednn"), [(511, False), (512, True)])
@torch.no_grad()
def test_only_large_attention_goes_through_onednn(num_queries, through_onednn, calls, monkeypatch) -> None:
    states, context = torch.randn(2, num_queries, 3 * 64), torch.randn(2, 512, 3 * 64)
    query, key, value = (x.double().unflatten(-1, (3, 64)).transpose(1, 2) for x in (states, context, context))
    expected = ((query @ key.transpose(2, 3) * 0.3).softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    for num_threads in (4, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=num_threads: threads)
        found = optimization_cpu._attend(states, context, context, 64, 0.3)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert len(calls) == (2 * 3 * 2 if through_onednn else 0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("interaction", ["hierarchical", "plain", "add"])
@pytest.mark.parametrize("prompts", [(0, 1, 0), (5, 1, 2), (5, 2, 0), (3, 3, 1)])
@pytest.mark.usefixtures("everything_is_large")
def test_optimized_models_compute_the_same(density_config, inputs, interaction, prompts, attention):
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
    wide = {**inputs, "pixel_values": torch.randn(3, 3, 48, 144), "interpolate_pos_encoding": True}
    expected, expected_wide = outputs_of(model, **inputs), outputs_of(model, **wide)
    assert optimize_for_cpu(model) is model
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            assert_same(outputs_of(model, **inputs), expected)
            assert_same(outputs_of(model, **wide), expected_wide)


@torch.no_grad()
def test_what_no_output_depends_on_is_left_out(density_model, inputs):
    optimize_for_cpu(density_model)
    seen = []
    for layer in density_model.interaction.text_layers:
        layer.attention.q_proj.register_forward_hook(lambda *_: seen.append("query of the text"))
    density_model.vision_model.encoder.layers[0].mlp.fc1.register_forward_hook(lambda *x: seen.append(x[-1].shape[1]))
    density_model(**inputs)
    assert seen == [1 + 16]  # the class token and the patches, no prompts


def test_parameters_hooks_and_copies_stay(density_model, inputs, tmp_path):
    names = [name for name, _ in density_model.named_parameters()]
    expected = outputs_of(density_model, **inputs)
    seen = []
    density_model.patch_projection.register_forward_hook(lambda *_: seen.append(1))
    model = count_clip.optimize_for_cpu(count_clip.optimize_for_cpu(density_model))
    assert [name for name, _ in model.named_parameters()] == names
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert_same(outputs_of(CLIPCountDensityModel.from_pretrained(tmp_path).eval(), **inputs), expected)
        assert_same(outputs_of(copy.deepcopy(model), **inputs), expected)
        assert len(seen) == len(FIELDS)
        model.patch_projection._forward_hooks.clear()
        assert_same(outputs_of(pickle.loads(pickle.dumps(model)), **inputs), expected)


@pytest.mark.parametrize(
    "watched",
    [
        "vision_model",
        "vision_model.encoder",
        "vision_model.encoder.layers.0",
        "vision_model.encoder.layers.1.self_attn",
        "vision_model.encoder.layers.2.mlp",
        "visual_prompts",
        "text_model",
        "text_model.encoder.layers.0",
        "context_prompts",
        "interaction.text_layers.0.attention",
        "interaction.text_layers.1.mlp",
    ],
)
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("optimized", [True, False])
def test_hooks_are_called(density_model, inputs, watched, before, optimized):
    expected = outputs_of(density_model, **inputs)
    if optimized:
        optimize_for_cpu(density_model)
    seen = []
    module = density_model.get_submodule(watched)
    register = module.register_forward_pre_hook if before else module.register_forward_hook
    register(lambda *_: seen.append(watched))
    with torch.no_grad():
        assert_same(outputs_of(density_model, **inputs), expected)
    assert seen


@pytest.mark.parametrize("optimize_first", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(target_modules=["q_proj", "v_proj", "mlp.0", "fc1"], init_lora_weights=False),
        LoraConfig(
            target_modules=["fc2"], modules_to_save=["visual_prompts", "interaction", "decoder", "patch_projection"]
        ),
    ],
    ids=["lora", "modules_to_save"],
)
def test_adapters_work_and_switch_off(density_model, inputs, config, optimize_first):
    base = outputs_of(density_model, **inputs)
    if optimize_first:
        optimize_for_cpu(density_model)
    adapted = get_peft_model(density_model, copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    expected = outputs_of(adapted, **inputs)
    assert (expected["density_map"] - base["density_map"]).abs().max() * 60 > 1e-3
    optimize_for_cpu(adapted)
    with torch.no_grad():
        assert_same(outputs_of(adapted, **inputs), expected)
        with adapted.disable_adapter():
            assert_same(outputs_of(adapted, **inputs), base)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_training_is_that_of_the_original(density_config, inputs, reentrant):
    """A re-entrant checkpoint runs its layers without autograd first, and must draw the same dropout both times."""
    torch.manual_seed(0)
    model = CLIPCountDensityModel(density_config(interaction_dropout=0.3, visual_prompt_dropout=0.0)).train()
    labels = torch.rand(3, 48, 48) / 100
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            optimize_for_cpu(model)
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        model.zero_grad()
        torch.manual_seed(1)
        model(**inputs, labels=labels).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_autocast_is_as_close_as_without(density_model, inputs):
    expected = outputs_of(density_model, **inputs)["counts"]
    optimize_for_cpu(density_model)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = density_model(**inputs)
    assert outputs.density_map.dtype == torch.float32
    torch.testing.assert_close(outputs.counts, expected, rtol=0.05, atol=0.05)


def test_inference_keeps_no_tensors_for_a_later_backward_pass(density_model, inputs):
    optimize_for_cpu(density_model)
    with torch.inference_mode():
        density_model(**inputs)
    density_model(**inputs).counts.sum().backward()
    assert density_model.visual_prompts.prompt_embeds.grad.abs().max() > 0


def test_compiler_sees_one_graph_with_the_same_result(density_model, inputs):
    density_model.requires_grad_(False)
    expected = outputs_of(density_model, **inputs)
    optimize_for_cpu(density_model)
    with torch.no_grad():
        compiled = torch.compile(density_model, backend="eager", fullgraph=True)
        assert_same(compiled(**inputs), expected)
