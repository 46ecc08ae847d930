"""A cache of embeddings for the benchmarks."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from count_clip.datasets_scripts.files.resumable import ResultCache

from ..inference.clip_towers import image_features, text_features


def content_key(*values: Any) -> str:
    """A hash of PIL images, tensors, and values that JSON supports."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, Image.Image):
            digest.update(f"image {value.mode} {value.size} ".encode())
            digest.update(value.tobytes())
        elif isinstance(value, torch.Tensor):
            digest.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"text {json.dumps(value)} ".encode())
    return digest.hexdigest()


class CachedTowers:
    """
    A CLIP that encodes each image and text once for all runs with the same cache.

    The keys are hashes of the towers' inputs, so that a cache serves every benchmark, data set and order of rows.
    """

    def __init__(self, model: Any, tokenizer: Any, cache: ResultCache) -> None:
        self._model, self._tokenizer, self._cache = model, tokenizer, cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features `(num_images, projection_dim)` of preprocessed images `(num_images, 3, height, width)`."""

        def encode(places: list[int]) -> torch.Tensor:
            return image_features(self._model, pixel_values[places])

        return self._features([content_key("image", one) for one in pixel_values], encode, pixel_values.device)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Features `(num_texts, projection_dim)` of token ids `(num_texts, length)`."""
        texts = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]

        def encode(places: list[int]) -> torch.Tensor:
            return text_features(self._model, self._tokenizer, [texts[place] for place in places])

        return self._features([content_key("tokens", ids) for ids in texts], encode, input_ids.device)

    def vision_model(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Output of the vision tower before its projection, `(num_images, hidden_size)`."""

        def encode(places: list[int]) -> torch.Tensor:
            pooled: torch.Tensor = self._model.vision_model(pixel_values=pixel_values[places]).pooler_output
            return pooled

        return self._features([content_key("tower", one) for one in pixel_values], encode, pixel_values.device)

    def _features(
        self, keys: list[str], encode: Callable[[list[int]], torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        """Look the features up, and encode the missing ones, each once."""
        places: dict[str, int] = {}
        for place, key in enumerate(keys):
            if key not in self._cache:
                places.setdefault(key, place)
        if places:
            new = encode(list(places.values())).float().cpu()
            if not new.isfinite().all():  # the caller raises; the cache must not hold it
                return torch.full((len(keys), new.shape[1]), float("nan"), device=device)
            for key, vector in zip(places, new.numpy(), strict=True):
                self._cache[key] = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        found = [np.frombuffer(base64.b64decode(self._cache[key]), dtype="<f4") for key in keys]
        return torch.from_numpy(np.stack(found).astype(np.float32)).to(device)


__all__ = ["CachedTowers", "content_key"]
