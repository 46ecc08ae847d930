"""
Linear layers and attention in float32 on CPUs.

PyTorch hands their products to MKL, which takes its fast kernels on Intel's processors only; oneDNN, which PyTorch
hands its convolutions to, takes what the processor has. The results are the same but for the order of the sums.
"""

from functools import cache
from typing import Any

import torch
from torch import nn


PLAIN_TENSORS = (torch.Tensor, nn.Parameter)
# The operator that PyTorch's own compiler calls. Where it is missing or has changed, linear layers stay as they are.
SCHEMA = (
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"
)
# Below this many multiplications, the way to oneDNN costs more than it saves.
SMALLEST_PRODUCT = 2**20
# The same for attention, in pairs of a query and a key and in the width of a head: in narrow ones the products are the
# smaller part. PyTorch shares heads among the cores, and here each product is shared: as good on a few cores only.
SMALLEST_ATTENTION = 2**18
NARROWEST_HEAD = 64
MOST_THREADS = 4
# How many pairs of a query and a key have their weights in memory at once.
PAIRS_AT_ONCE = 2**20


def linear(layer: Any, states: torch.Tensor) -> torch.Tensor:
    """
    `layer(states)`, in inference on a CPU through oneDNN.

    Nothing changes under autograd, autocast, a compiler or a tracer, in other precisions, on other devices, for a
    layer that is wrapped or watched from outside, and where `torch.backends.mkldnn.flags(enabled=False)` says so.

    Args:
        layer (`nn.Module`): A linear layer, or what stands in the place of one.
        states (`torch.Tensor` of shape `(..., in_features)`): What it maps.

    Returns:
        `torch.Tensor` of shape `(..., out_features)`.
    """
    if not _goes_to_onednn(layer, states):
        return layer(states)
    return torch.ops.mkldnn._linear_pointwise(states, layer.weight, layer.bias, "none", [], "")


def linear_gelu(layer: Any, states: torch.Tensor) -> torch.Tensor:
    """`gelu(layer(states))`, as [`linear`]; oneDNN does not write to memory what lies between."""
    if not _goes_to_onednn(layer, states):
        return nn.functional.gelu(layer(states))
    return torch.ops.mkldnn._linear_pointwise(states, layer.weight, layer.bias, "gelu", [], "none")


def attends_through_onednn(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Whether [`attention`] is faster than PyTorch's for these; under the conditions of [`linear`]."""
    if not _is_inference_in_float32(query):
        return False
    is_large = query.shape[2] * key.shape[2] >= SMALLEST_ATTENTION and query.shape[3] >= NARROWEST_HEAD
    return is_large and torch.get_num_threads() <= MOST_THREADS and _is_available()


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """
    Attention without a mask or dropout, one head after the other, through oneDNN.

    Args:
        query (`torch.Tensor` of shape `(batch_size, num_heads, num_queries, head_dim)`): Queries.
        key, value (`torch.Tensor` of shape `(batch_size, num_heads, num_keys, head_dim)`): Keys and values.
        scaling (`float`): What the products of queries and keys are multiplied by.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_queries, num_heads, head_dim)`, as the attention functions of
        `transformers` return it.
    """
    batch_size, num_heads, num_queries, head_dim = query.shape
    attended = query.new_empty(batch_size, num_queries, num_heads, head_dim)
    at_once = max(1, PAIRS_AT_ONCE // key.shape[2])
    for i in range(batch_size):
        for head in range(num_heads):
            keys, values = key[i, head].contiguous(), value[i, head].t().contiguous()
            for start in range(0, num_queries, at_once):
                queries = query[i, head, start : start + at_once] * scaling
                weights = torch.ops.mkldnn._linear_pointwise(queries, keys, None, "none", [], "").softmax(dim=-1)
                part = torch.ops.mkldnn._linear_pointwise(weights, values, None, "none", [], "")
                attended[i, start : start + at_once, head] = part
    return attended


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of this very class, without a hook or another forward, so that its parts can do its work."""
    if type(module) is not kind or "forward" in vars(module):
        return False
    return not (module._forward_hooks or module._forward_pre_hooks)


def is_traced() -> bool:
    """Whether a compiler or an exporter is writing down what is called."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]  # public all the same


def _goes_to_onednn(layer: Any, states: torch.Tensor) -> bool:
    if not _is_inference_in_float32(states) or not is_plain(layer, nn.Linear):
        return False
    weight, bias = layer.weight, layer.bias
    if type(weight) not in PLAIN_TENSORS or weight.dtype != torch.float32:
        return False
    if bias is not None and type(bias) not in PLAIN_TENSORS:
        return False
    return states.dim() > 1 and states.numel() * len(weight) >= SMALLEST_PRODUCT and _is_available()


def _is_inference_in_float32(states: torch.Tensor) -> bool:
    if torch.is_grad_enabled() or is_traced() or torch.is_autocast_enabled("cpu"):
        return False
    return type(states) in PLAIN_TENSORS and states.device.type == "cpu" and states.dtype == torch.float32


def _is_available() -> bool:
    return bool(torch.backends.mkldnn.enabled) and _has_operator()


@cache
def _has_operator() -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    operator = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)
    return operator is not None and str(operator._schema) == SCHEMA


__all__ = ["attends_through_onednn", "attention", "is_plain", "is_traced", "linear", "linear_gelu"]
