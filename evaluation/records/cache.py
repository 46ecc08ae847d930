"""A file that keeps what has been measured, so that a run that was killed goes on where it was."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..inference.clip_towers import image_features, text_features


_FORMAT = "count-clip journal 1"


class Journal:
    """
    Measured values by their keys, each written as soon as it is there.

    The file has a line of JSON for each value, after a first one that says whose values these are. A line that was cut
    off when the process was killed is measured again.

    Args:
        path (`str` or `os.PathLike`): The file; it is made if it is not there.
        identity (`Mapping[str, Any]`): What the values depend on and the keys do not say: the model, the dtype.

    Raises:
        ValueError: If the file is no journal, is broken, or holds the values of something else.
        OSError: If it cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
        self.path = Path(path).expanduser()
        self.known: dict[str, Any] = {}
        """The values, by their keys."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # What comes back from JSON: tuples are lists there.
        header = json.loads(json.dumps({"journal": _FORMAT, **identity}))
        self._file = self.path.open("a+b")
        try:
            self._read(header)
        except BaseException:
            self._file.close()
            raise

    def _read(self, header: dict[str, Any]) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        lines = content[:whole].splitlines()
        if content and (not lines or b'"journal"' not in lines[0]):
            raise ValueError(
                f"Expected {self.path} to be a new file or one that an earlier run left, but it holds something else. "
                "Name another file."
            )
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                if number > 1:
                    self.known[record["key"]] = record["value"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path} is broken in line {number}: {error!r}. Delete it to begin anew."
                ) from error
            if number == 1:
                self._check_identity(record, header)
        self._file.seek(whole)
        self._file.truncate()
        if not lines:
            self._write(header)

    def _check_identity(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        other = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
        if other:
            differences = ", ".join(f"{name} {found.get(name)!r} and not {wanted.get(name)!r}" for name in other)
            raise ValueError(
                f"{self.path} holds what was measured with {differences}. Name another file, or delete this one."
            )

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def __getitem__(self, key: str) -> Any:
        return self.known[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.known[key] = value
        self._write({"key": key, "value": value})

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


class RememberedTowers:
    """
    A CLIP that encodes no image and no text twice, in this run or in an earlier one with the same journal.

    Images and texts are known by what the towers are given, so the journal serves every benchmark, every data set
    and every order of the rows.

    Args:
        model ([`CLIPModel`]): The model; everything but the two towers is its own.
        tokenizer ([`CLIPTokenizer`]): The model's.
        journal ([`Journal`]): Of this model and dtype.
    """

    def __init__(self, model: Any, tokenizer: Any, journal: Journal) -> None:
        self._model, self._tokenizer, self._journal = model, tokenizer, journal

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
            if key not in self._journal:
                places.setdefault(key, place)
        if places:
            new = encode(list(places.values())).float().cpu()
            if not new.isfinite().all():  # whoever asked will complain; a journal is to hold nothing of it
                return torch.full((len(keys), new.shape[1]), float("nan"), device=device)
            for key, vector in zip(places, new.numpy(), strict=True):
                self._journal[key] = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        found = [np.frombuffer(base64.b64decode(self._journal[key]), dtype="<f4") for key in keys]
        return torch.from_numpy(np.stack(found).astype(np.float32)).to(device)


__all__ = ["Journal", "RememberedTowers", "content_key", "model_identity"]
