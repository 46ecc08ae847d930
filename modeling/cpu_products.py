"""
Linear layers in float32 on CPUs.

PyTorch hands them to MKL, which takes its fast kernels on Intel's processors only; oneDNN, which PyTorch hands its
convolutions to, takes what the processor has. The products are the same but for the order of the sums.
"""

from functools import cache

import torch
from torch import nn


PLAIN_TENSORS = (torch.Tensor, nn.Parameter)
# The operator that PyTorch's own compiler calls. Where it is missing or has changed, linear layers stay as they are.
SCHEMA = (
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"
)
# Below this many multiplications, the way to oneDNN costs more than it saves.
SMALLEST_PRODUCT = 2**20


def linear(layer: nn.Module, states: torch.Tensor) -> torch.Tensor:
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


def linear_gelu(layer: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """`gelu(layer(states))`, as [`linear`]; oneDNN does not write to memory what lies between."""
    if not _goes_to_onednn(layer, states):
        return nn.functional.gelu(layer(states))
    return torch.ops.mkldnn._linear_pointwise(states, layer.weight, layer.bias, "gelu", [], "none")


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of this very class, without a hook or another forward, so that its parts can do its work."""
    if type(module) is not kind or "forward" in vars(module):
        return False
    return not (module._forward_hooks or module._forward_pre_hooks)


def _goes_to_onednn(layer: nn.Module, states: torch.Tensor) -> bool:
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if states.device.type != "cpu" or states.dtype != torch.float32 or not is_plain(layer, nn.Linear):
        return False
    weight, bias = layer.weight, layer.bias
    if any(type(tensor) not in PLAIN_TENSORS for tensor in (states, weight)) or weight.dtype != torch.float32:
        return False
    if bias is not None and type(bias) not in PLAIN_TENSORS:
        return False
    is_large = states.dim() > 1 and states.numel() * len(weight) >= SMALLEST_PRODUCT
    return is_large and torch.backends.mkldnn.enabled and not torch.is_autocast_enabled("cpu") and _has_operator()


@cache
def _has_operator() -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    operator = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)
    return operator is not None and str(operator._schema) == SCHEMA


__all__ = ["is_plain", "linear", "linear_gelu"]
