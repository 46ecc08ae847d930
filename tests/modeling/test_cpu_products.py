"""Promises of linear layers and attention on CPUs: oneDNN's are PyTorch's, and taken where nothing else is wanted."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from count_clip.modeling import cpu_products
from count_clip.modeling.cpu_products import attends_through_onednn, attention, linear, linear_gelu


IN, OUT, ROWS = 96, 160, 80  # just above the smallest product that goes to oneDNN


@pytest.fixture
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(IN, OUT)


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A PyTorch that has the operator; the answer is forgotten afterwards."""
    cpu_products._has_operator.cache_clear()
    if not cpu_products._has_operator():
        pytest.skip("this PyTorch has no oneDNN, or no MKL to be faster than")
    yield
    cpu_products._has_operator.cache_clear()


def exact(layer: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    product = states.double() @ layer.weight.detach().double().T
    return product if layer.bias is None else product + layer.bias.detach().double()


@pytest.mark.parametrize(
    "states",
    [
        torch.randn(ROWS, IN),
        torch.randn(3, ROWS, IN),
        torch.randn(2, 3, ROWS, IN),
        torch.randn(2, ROWS + 1, IN)[:, 1:],
        torch.randn(2, IN, ROWS).transpose(1, 2),
        torch.randn(1, ROWS, IN).expand(3, -1, -1),
        nn.Parameter(torch.randn(2, ROWS, IN)),
    ],
    ids=["two dimensions", "three", "four", "a slice", "transposed", "expanded", "a parameter"],
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("onednn")
def test_products_are_those_of_float64(states: torch.Tensor, bias: bool) -> None:
    layer = nn.Linear(IN, OUT, bias=bias)
    with torch.no_grad():
        assert cpu_products._goes_to_onednn(layer, states)
        found, activated = linear(layer, states), linear_gelu(layer, states)
        expected = exact(layer, states)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(activated.double(), nn.functional.gelu(expected), atol=1e-5, rtol=1e-5)
        assert found.shape == layer(states).shape


@pytest.mark.usefixtures("onednn")
def test_inference_mode_is_inference_too(layer: nn.Linear) -> None:
    states = torch.randn(ROWS, IN)
    with torch.inference_mode():
        assert cpu_products._goes_to_onednn(layer, states)
        found = linear(layer, states)
    torch.testing.assert_close(found.double(), exact(layer, states), atol=1e-5, rtol=1e-5)


class _Tracked(torch.Tensor):
    """Somebody's own kind of tensor."""


def _with_hook(layer: nn.Linear) -> nn.Linear:
    layer.register_forward_hook(lambda *_: None)
    return layer


def _with_pre_hook(layer: nn.Linear) -> nn.Linear:
    layer.register_forward_pre_hook(lambda *_: None)
    return layer


def _with_forward(layer: nn.Linear) -> nn.Linear:
    plain = layer.forward
    layer.forward = lambda states: plain(states)
    return layer


def _with_tracked_weight(layer: nn.Linear) -> nn.Linear:
    # Quantised layers look like this.
    del layer._parameters["weight"]
    layer.weight = torch.randn(OUT, IN).as_subclass(_Tracked)
    return layer


class _Wrapped(nn.Linear):
    """Somebody's own kind of layer."""


@pytest.mark.parametrize(
    "change",
    [
        _with_hook,
        _with_pre_hook,
        _with_forward,
        _with_tracked_weight,
        lambda layer: _Wrapped(IN, OUT),
        lambda layer: nn.Sequential(layer),
        lambda layer: layer.double(),
    ],
    ids=["hook", "pre-hook", "forward", "kind of weight", "kind of layer", "container", "float64"],
)
@pytest.mark.usefixtures("onednn")
def test_a_layer_that_somebody_changed_is_called(layer: nn.Linear, change: Callable) -> None:
    states = torch.randn(ROWS, IN)
    with torch.no_grad():
        assert cpu_products._goes_to_onednn(layer, states)
        changed = change(layer)
        states = states.to(next(changed.parameters()).dtype)
        assert not cpu_products._goes_to_onednn(changed, states)
        torch.testing.assert_close(linear(changed, states), changed(states))


@pytest.mark.usefixtures("onednn")
def test_training_autocast_and_small_products_are_pytorchs(layer: nn.Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    states = torch.randn(ROWS, IN)
    assert not cpu_products._goes_to_onednn(layer, states)  # autograd is on
    linear(layer, states).sum().backward()
    torch.testing.assert_close(layer.weight.grad, states.sum(dim=0).expand(OUT, -1))
    with torch.no_grad():
        assert cpu_products._goes_to_onednn(layer, states)
        assert not cpu_products._goes_to_onednn(layer, states[:2])
        assert not cpu_products._goes_to_onednn(layer, states.bfloat16())
        assert not cpu_products._goes_to_onednn(layer, states.as_subclass(_Tracked))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not cpu_products._goes_to_onednn(layer, states)
            assert linear(layer, states).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            assert not cpu_products._goes_to_onednn(layer, states)
        monkeypatch.setattr(cpu_products, "SCHEMA", "mkldnn::_linear_pointwise(another) -> Tensor")
        cpu_products._has_operator.cache_clear()
        assert not cpu_products._goes_to_onednn(layer, states)
        torch.testing.assert_close(linear(layer, states).double(), exact(layer, states), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
def test_tracing_keeps_the_layer(layer: nn.Linear) -> None:
    layer.requires_grad_(False)
    with torch.no_grad():
        traced = torch.jit.trace(lambda states: linear(layer, states), torch.randn(ROWS, IN), check_trace=False)
    assert "mkldnn" not in str(traced.graph)
    assert "aten::linear" in str(traced.graph)


def heads(num_tokens: int, dim: int = 16) -> torch.Tensor:
    """Queries, keys or values `(2, 3, num_tokens, dim)` as they come from a linear layer."""
    return torch.randn(2, num_tokens, 3 * dim).unflatten(-1, (3, dim)).transpose(1, 2)


@pytest.mark.parametrize("num_keys", [40, 47])
@pytest.mark.parametrize("at_once", [1, 40 * 7, 2**20])
@pytest.mark.usefixtures("onednn")
def test_attention_is_that_of_float64(monkeypatch: pytest.MonkeyPatch, num_keys: int, at_once: int) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(cpu_products, "PAIRS_AT_ONCE", at_once)
    query, key, value = heads(40), heads(num_keys), heads(num_keys)
    with torch.no_grad():
        found = attention(query, key, value, 0.3)
    weights = (query.double() @ key.double().transpose(2, 3) * 0.3).softmax(dim=-1)
    expected = (weights @ value.double()).transpose(1, 2)
    assert found.shape == (2, 40, 3, 16)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("onednn")
def test_only_large_attention_on_few_cores_goes_through_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cpu_products.MOST_THREADS)
    large, small, narrow = heads(512, 64), heads(511, 64), heads(512, 63)
    assert not attends_through_onednn(large, large)  # autograd is on
    with torch.no_grad():
        assert attends_through_onednn(large, large)
        assert not attends_through_onednn(small, large)
        assert not attends_through_onednn(narrow, narrow)
        assert not attends_through_onednn(large.bfloat16(), large.bfloat16())
        with torch.backends.mkldnn.flags(enabled=False):
            assert not attends_through_onednn(large, large)
        monkeypatch.setattr(torch, "get_num_threads", lambda: cpu_products.MOST_THREADS + 1)
        assert not attends_through_onednn(large, large)
