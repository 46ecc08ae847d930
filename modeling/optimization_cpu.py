"""Faster modules for float32 inference on CPUs, with the same numbers but for the order of sums."""

from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention, CLIPEncoderLayer

from .modeling_clip_count_density import (
    CLIPCountDensityAttention,
    CLIPCountDensityTextLayer,
    CLIPCountDensityVisionEncoder,
    CLIPCountDensityVisualPrompts,
    is_traced,
)


# The operator that `torch.compile` uses for linear layers. Where it is missing or differs, PyTorch's own are called.
SCHEMA = (
    "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"
)
# Below this many multiplications, oneDNN's overhead is larger than its gain.
SMALLEST_PRODUCT = 2**20
# The same for attention: pairs of a query and a key, and the width of a head. PyTorch shares heads among the cores,
# oneDNN each product, which is as good on a few cores only.
SMALLEST_ATTENTION = 2**18
NARROWEST_HEAD = 64
MOST_THREADS = 4
PLAIN_TENSORS = (torch.Tensor, nn.Parameter)


def optimize_for_cpu(model: nn.Module) -> nn.Module:
    """
    Replace the modules of a model by faster ones for float32 inference on a CPU.

    PyTorch computes linear layers with MKL, whose fast kernels are for Intel's processors only; the replacements use
    oneDNN. In a [`CLIPCountDensityModel`], what no output depends on is left out, too. The replacements keep
    parameters, their names and hooks. Under autograd, autocast, a compiler or an exporter, on other devices and in
    other precisions they run the original code, so there is nothing to undo.

    Args:
        model (`nn.Module`): Any model; changed in place.

    Returns:
        `nn.Module`: The same model. Outputs differ by about 1e-6.

    Example:

    ```python
    >>> model = count_clip.optimize_for_cpu(AutoModel.from_pretrained("org/clip-count").eval())
    ```
    """
    for module in model.modules():
        module.__class__ = _REPLACEMENTS.get(type(module), type(module))
    return model


class _CPULinear(nn.Linear):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not _goes_to_onednn(self, hidden_states):
            return super().forward(hidden_states)
        return torch.ops.mkldnn._linear_pointwise(hidden_states, self.weight, self.bias, "none", [], "")


class _CPUAttention(CLIPCountDensityAttention):
    def forward(self, hidden_states: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        if self.training or self.config._attn_implementation != "sdpa" or not _is_inference(hidden_states):
            return super().forward(hidden_states, context)
        context = hidden_states if context is None else context
        query, key, value = self.q_proj(hidden_states), self.k_proj(context), self.v_proj(context)
        return self.out_proj(_attend(query, key, value, self.head_dim, self.scaling))


class _CPUTextLayer(CLIPCountDensityTextLayer):
    def forward(self, hidden_states: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
        attention, mlp = self.attention, self.mlp
        plain = is_plain(attention, CLIPCountDensityAttention) and is_plain(mlp, nn.Sequential)
        if self.training or not plain or not _is_inference(hidden_states):
            return super().forward(hidden_states, text_embeds)
        # A single key has a weight of one, whatever the query.
        hidden_states = hidden_states + attention.out_proj(attention.v_proj(text_embeds))
        return hidden_states + mlp[3](linear_gelu(mlp[0], self.mlp_norm(hidden_states)))


class _CPUVisionEncoder(CLIPCountDensityVisionEncoder):
    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        visual_prompts: CLIPCountDensityVisualPrompts | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        # The output of a layer at its prompts is not read if the next layer has its own: keys and values are enough.
        leaves_out = (
            visual_prompts is not None
            and visual_prompts.depth > 1
            and is_plain(visual_prompts, CLIPCountDensityVisualPrompts)
            and all(_is_plain_layer(layer) for layer in self.layers)
            and self.config._attn_implementation == "sdpa"
            and _is_inference(inputs_embeds)
        )
        if visual_prompts is None or self.training or attention_mask is not None or not leaves_out:
            return super().forward(inputs_embeds, attention_mask, visual_prompts, **kwargs)
        prompts = [inputs_embeds[:, 1 : 1 + visual_prompts.num_prompts]]
        prompts += visual_prompts.projection(visual_prompts.prompt_embeds[1:]).split(1)  # each (1, num_prompts, D)
        hidden_states = visual_prompts.remove(inputs_embeds)
        for i, layer in enumerate(self.layers):
            if i < visual_prompts.depth:
                hidden_states = _run_layer(layer, hidden_states, prompts[i])
            else:
                hidden_states = layer(hidden_states, None, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _CPULinear,
    CLIPCountDensityAttention: _CPUAttention,
    CLIPCountDensityTextLayer: _CPUTextLayer,
    CLIPCountDensityVisionEncoder: _CPUVisionEncoder,
}


def linear(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`layer(hidden_states)`, through oneDNN if the layer is a plain `nn.Linear` in inference."""
    if is_plain(layer, nn.Linear) and _goes_to_onednn(layer, hidden_states):
        return torch.ops.mkldnn._linear_pointwise(hidden_states, layer.weight, layer.bias, "none", [], "")
    return layer(hidden_states)


def linear_gelu(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """`gelu(layer(hidden_states))`; oneDNN does not write the output of the layer to memory."""
    if is_plain(layer, nn.Linear) and _goes_to_onednn(layer, hidden_states):
        return torch.ops.mkldnn._linear_pointwise(hidden_states, layer.weight, layer.bias, "gelu", [], "none")
    return nn.functional.gelu(layer(hidden_states))


def _run_layer(layer: Any, hidden_states: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """Output of a [`CLIPEncoderLayer`] for `(B, N, D)` hidden states that also see `(1 or B, P, D)` prompts."""
    attention = layer.self_attn
    normed, prompts = layer.layer_norm1(hidden_states), layer.layer_norm1(prompts)
    key, value = (
        torch.cat([projection(normed), projection(prompts).expand(len(normed), -1, -1)], dim=1)
        for projection in (attention.k_proj, attention.v_proj)
    )
    attended = _attend(attention.q_proj(normed), key, value, attention.head_dim, attention.scale)
    hidden_states = hidden_states + attention.out_proj(attended)
    return hidden_states + layer.mlp(layer.layer_norm2(hidden_states))


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, head_dim: int, scaling: float
) -> torch.Tensor:
    """Attention of `(B, N, D)` queries to `(B, M, D)` keys and values, `(B, N, D)`."""
    query, key, value = (x.unflatten(-1, (-1, head_dim)).transpose(1, 2) for x in (query, key, value))
    is_large = query.shape[2] * key.shape[2] >= SMALLEST_ATTENTION and head_dim >= NARROWEST_HEAD
    if not is_large or torch.get_num_threads() > MOST_THREADS:
        attended = nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        return attended.transpose(1, 2).flatten(2)
    attended = query.new_empty(query.shape[0], query.shape[2], query.shape[1], head_dim)
    for i in range(query.shape[0]):
        for head in range(query.shape[1]):
            keys, values = key[i, head].contiguous(), value[i, head].t().contiguous()
            weights = torch.ops.mkldnn._linear_pointwise(query[i, head] * scaling, keys, None, "none", [], "")
            weights = weights.softmax(dim=-1)
            attended[i, :, head] = torch.ops.mkldnn._linear_pointwise(weights, values, None, "none", [], "")
    return attended.flatten(2)


def is_plain(module: nn.Module, module_class: type[nn.Module]) -> bool:
    """Whether a module is of this class (or replaced), without hooks or a `forward` of its own."""
    if type(module) not in (module_class, _REPLACEMENTS.get(module_class)) or "forward" in vars(module):
        return False
    return not (module._forward_hooks or module._forward_pre_hooks)


def _is_plain_layer(layer: Any) -> bool:
    if not is_plain(layer, CLIPEncoderLayer):
        return False
    return is_plain(layer.self_attn, CLIPAttention) and is_plain(layer.mlp, CLIPMLP)


def _goes_to_onednn(layer: Any, hidden_states: torch.Tensor) -> bool:
    weight, bias = layer.weight, layer.bias
    # Quantised layers have tensors of other classes.
    if type(weight) not in PLAIN_TENSORS or weight.dtype != torch.float32:
        return False
    if bias is not None and type(bias) not in PLAIN_TENSORS:
        return False
    if not _is_inference(hidden_states):
        return False
    return hidden_states.dim() > 1 and hidden_states.numel() * len(weight) >= SMALLEST_PRODUCT


def _is_inference(hidden_states: torch.Tensor) -> bool:
    """Whether oneDNN can compute with these: in float32, on a CPU, without autograd, autocast or a tracer."""
    if torch.is_grad_enabled() or is_traced() or torch.is_autocast_enabled("cpu"):
        return False
    if type(hidden_states) not in PLAIN_TENSORS or hidden_states.device.type != "cpu":
        return False
    return hidden_states.dtype == torch.float32 and bool(torch.backends.mkldnn.enabled) and _has_operator()


@cache
def _has_operator() -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        return False
    operator = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)
    return operator is not None and str(operator._schema) == SCHEMA


__all__ = ["is_plain", "linear", "linear_gelu", "optimize_for_cpu"]
