"""Features of images and texts from the towers of a CLIP; for texts with less work on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import CLIPModel, CLIPTextModel
from transformers.activations import QuickGELUActivation
from transformers.models.clip.modeling_clip import (
    CLIPMLP,
    CLIPAttention,
    CLIPEncoder,
    CLIPEncoderLayer,
    CLIPTextEmbeddings,
)

from count_clip.modeling.modeling_clip_count_density import is_traced
from count_clip.modeling.optimization_cpu import is_plain, linear


Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def image_features(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """As `model.get_image_features`: features `(num_images, projection_dim)` of `pixel_values`, not normalised."""
    return _pooled(model.get_image_features(pixel_values=pixel_values))


def text_features(model: Any, tokenizer: Any, token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """
    As `model.get_text_features`: features `(num_texts, projection_dim)` of the tokens of texts, not normalised.

    In inference on a CPU, the products of an unchanged tower go through oneDNN. The common beginning of texts is
    computed once (the mask is causal), the last layer for the end-of-text tokens alone, and padding never. For other
    models and devices the tokenizer pads.
    """
    if not _takes_shortcuts(model):
        tokens = tokenizer.pad({"input_ids": [list(ids) for ids in token_ids]}, return_tensors="pt")
        tokens = {name: tokens[name].to(_device(model)) for name in ("input_ids", "attention_mask")}
        return _pooled(model.get_text_features(**tokens))
    tower = model.text_model
    num_heads = tower.config.num_attention_heads
    tree = _PrefixTree([_up_to_end(ids, tower.eos_token_id) for ids in token_ids])
    embeddings = tower.embeddings
    states = embeddings.token_embedding(tree.tokens) + embeddings.position_embedding(tree.positions)  # (nodes, D)

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, key, value = (x[tree.paths] for x in (query, key, value))  # (T, L, D)
        return _attention(num_heads, query, key, value, is_causal=True)[tree.occurrences]

    def attend_at_ends(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        mask = tree.is_token[:, None, None]  # (T, 1, 1, L)
        return _attention(num_heads, query[:, None], key[tree.paths], value[tree.paths], mask)

    *layers, last = tower.encoder.layers
    for layer in layers:
        states = _run_layer(layer, states, attend)
    states = _run_layer(last, states, attend_at_ends, tree.ends)
    return linear(model.text_projection, tower.final_layer_norm(states))


class _PrefixTree:
    """
    Texts as the paths of a tree, in which a common beginning occurs once.

    Args:
        texts (`Sequence[Sequence[int]]`): Tokens, each text at least one.
    """

    def __init__(self, texts: Sequence[Sequence[int]]):
        places: dict[tuple[int, int], int] = {}
        tokens: list[int] = []
        positions: list[int] = []
        occurrences: list[int] = []
        length = max(map(len, texts))
        paths = torch.zeros(len(texts), length, dtype=torch.long)
        for index, text in enumerate(texts):
            node = -1
            path = []
            for position, token in enumerate(text):
                node = places.setdefault((node, token), len(tokens))
                if node == len(tokens):
                    tokens.append(token)
                    positions.append(position)
                    occurrences.append(index * length + position)
                path.append(node)
            paths[index, : len(path)] = torch.tensor(path)
        lengths = torch.tensor([len(text) for text in texts])
        self.tokens, self.positions = torch.tensor(tokens), torch.tensor(positions)
        self.paths = paths
        """`(num_texts, length)`: the node of each token; behind the end anything."""
        self.is_token = torch.arange(length) < lengths[:, None]
        """`(num_texts, length)`: `False` behind the end."""
        self.ends = paths[torch.arange(len(texts)), lengths - 1]
        """`(num_texts,)`: the node of each text's last token."""
        self.occurrences = torch.tensor(occurrences)
        """`(num_nodes,)`: a place in the flattened paths at which each node stands."""


def _run_layer(layer: Any, states: torch.Tensor, attend: Attend, read: torch.Tensor | None = None) -> torch.Tensor:
    attention, mlp = layer.self_attn, layer.mlp
    normed = layer.layer_norm1(states)
    key, value = linear(attention.k_proj, normed), linear(attention.v_proj, normed)
    if read is not None:
        states, normed = states[read], normed[read]
    attended = attend(linear(attention.q_proj, normed), key, value)
    states = states + linear(attention.out_proj, attended)
    inner = linear(mlp.fc1, layer.layer_norm2(states))
    if is_plain(mlp.activation_fn, QuickGELUActivation):
        # The same numbers without two more copies of the widest states.
        inner = torch.mul(inner, 1.702).sigmoid_().mul_(inner)
    else:
        inner = mlp.activation_fn(inner)
    return states + linear(mlp.fc2, inner)


def _attention(
    num_heads: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    is_causal: bool = False,
) -> torch.Tensor:
    """Attention of `(B, N, D)` queries to `(B, M, D)` keys and values, `(B * N, D)`."""
    query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    attended = nn.functional.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal)
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)


def _up_to_end(token_ids: Sequence[int], eos_token_id: int) -> list[int]:
    """A text up to the token whose state is its embedding; no state depends on later tokens."""
    ids = list(token_ids)
    if eos_token_id == 2:
        # Old CLIP configurations have a wrong id; the embedding is that of the highest token.
        return ids[: ids.index(max(ids)) + 1]
    return ids[: ids.index(eos_token_id) + 1] if eos_token_id in ids else ids[:1]


def _takes_shortcuts(model: Any) -> bool:
    """Whether the text tower is `CLIPModel`'s (linear layers may be wrapped, as by LoRA), in inference on a CPU."""
    name = "get_text_features"
    if getattr(type(model), name, None) is not CLIPModel.get_text_features or name in vars(model):
        return False
    if model.training or torch.is_grad_enabled() or is_traced() or _device(model).type != "cpu":
        return False
    tower = model.text_model
    if not (is_plain(tower, CLIPTextModel) and is_plain(tower.embeddings, CLIPTextEmbeddings)):
        return False
    if not (is_plain(tower.embeddings.token_embedding, nn.Embedding) and is_plain(tower.encoder, CLIPEncoder)):
        return False
    return all(
        is_plain(layer, CLIPEncoderLayer) and is_plain(layer.self_attn, CLIPAttention) and is_plain(layer.mlp, CLIPMLP)
        for layer in tower.encoder.layers
    )


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def _pooled(features: Any) -> torch.Tensor:
    """Embeddings from what `get_*_features` returns: the output object of transformers 5, or a tensor."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output


__all__ = ["image_features", "text_features"]
