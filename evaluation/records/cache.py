"""What a cache of results needs to know of models, images and texts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from count_clip.datasets_scripts.files.resumable import ResultCache

from ..inference.clip_towers import image_features, text_features


def model_identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """
    What tells a model from another, wherever it lies.

    Args:
        about (`Mapping[str, Any]`): From [`describe_model`].

    Returns:
        `dict[str, Any]`: All of it, but the name only where there is neither a checksum of weights nor a commit.
    """
    is_known = about.get("sha256") is not None or about.get("revision") is not None
    identity = {name: value for name, value in about.items() if name != "name" or not is_known}
    if "base" in about:
        identity["base"] = model_identity(about["base"])
    return identity


def content_key(*parts: Any) -> str:
    """
    A name for images, tensors and texts that others do not have.

    Args:
        parts: PIL images, tensors, and whatever JSON takes.

    Returns:
        `str`: A hash of the pixels, the numbers and the words.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Image.Image):
            digest.update(f"image {part.mode} {part.size} ".encode())
            digest.update(part.tobytes())
        elif isinstance(part, torch.Tensor):
            digest.update(f"tensor {part.dtype} {tuple(part.shape)} ".encode())
            digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"text {json.dumps(part)} ".encode())
    return digest.hexdigest()


class CachedTowers:
    """
    A CLIP that encodes no image and no text twice, in this run or in an earlier one with the same cache.

    Images and texts are known by what the towers are given, so the cache serves every benchmark, every data set
    and every order of the rows.

    Args:
        model ([`CLIPModel`]): The model; everything but the two towers is its own.
        tokenizer ([`CLIPTokenizer`]): The model's.
        cache ([`ResultCache`]): Of this model and dtype.
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
        """What the vision tower gives before its projection, `(num_images, hidden_size)`."""

        def encode(places: list[int]) -> torch.Tensor:
            pooled: torch.Tensor = self._model.vision_model(pixel_values=pixel_values[places]).pooler_output
            return pooled

        return self._features([content_key("tower", one) for one in pixel_values], encode, pixel_values.device)

    def _features(
        self, keys: list[str], encode: Callable[[list[int]], torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        """Look the features up, and encode those that are not known, each once."""
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


__all__ = ["CachedTowers", "content_key", "model_identity"]
