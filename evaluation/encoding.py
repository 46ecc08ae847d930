"""Pictures and texts to unit-norm CLIP embeddings, in batches, with nothing lost on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.utils import tqdm
from PIL import Image

from count_clip.modeling.pictures import open_picture, to_rgb


@dataclass(frozen=True)
class SkippedRow:
    """A row that was not measured, and why."""

    index: int
    """Which row of the data, from 0."""
    image_id: str | None
    """The row's own name, where it has one."""
    reason: str
    """What was wrong with it."""


@contextmanager
def evaluating(
    model: Any, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Iterator[tuple[torch.device, torch.dtype]]:
    """
    Have a model ready to be measured: no gradients, no dropout, and afterwards in the mode that it was in.

    Args:
        model (`PreTrainedModel`): The model. With `device` or `dtype` it is moved, and stays there.
        device (`str` or `torch.device`, *optional*): Where to run; where the model is, by default.
        dtype (`torch.dtype`, *optional*): What to compute in; what the model has, by default.

    Yields:
        `tuple[torch.device, torch.dtype]`: Where the inputs belong.
    """
    if device is not None or dtype is not None:
        model.to(device=device, dtype=dtype)
    was_training = model.training
    model.eval()
    parameter = next(model.parameters())
    try:
        with torch.inference_mode():
            yield parameter.device, parameter.dtype
    finally:
        model.train(was_training)


def read_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any] | None, str | None]]:
    """
    Walk through a data set whose pictures are decoded on access, past rows that cannot be.

    Args:
        rows: A list, a `datasets.Dataset`, another sequence of rows, or anything that can be iterated over.

    Yields:
        `tuple`: The index, the row or `None`, and the reason why there is none.
    """
    total = num_rows(rows)
    if total is None or not hasattr(rows, "__getitem__"):
        for index, row in enumerate(rows):
            yield index, row, None
        return
    for index in range(total):
        try:
            row = rows[index]
        except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            yield index, None, f"the row cannot be read: {error}"
        else:
            yield index, row, None


def num_rows(rows: Iterable[Any]) -> int | None:
    """How many rows there are, or `None` if that shows only at the end."""
    return len(rows) if isinstance(rows, Sized) else None


def image_id_of(row: Mapping[str, Any] | None) -> str | None:
    """The row's own name as a string, or `None`."""
    return None if row is None or row.get("image_id") is None else str(row["image_id"])


def read_picture(row: Mapping[str, Any]) -> Image.Image:
    """
    The row's picture, upright and in 8-bit RGB, as the models' processors make it.

    Raises:
        PictureError: If there is none or it cannot be used.
    """
    return to_rgb(open_picture(row.get("image"), image_id_of(row)))


def _unit_norm(features: Any) -> torch.Tensor:
    """Embeddings from what `get_*_features` returns: the output object of transformers 5, or a tensor."""
    embeds = features if isinstance(features, torch.Tensor) else features.pooler_output
    embeds = embeds.float()
    return (embeds / embeds.norm(dim=-1, keepdim=True)).cpu()


class Encoder:
    """
    The two towers of a CLIP, each picture and each distinct text going through once.

    Args:
        model ([`CLIPModel`]): Any CLIP; [`CLIPForCounting`] is one.
        processor ([`CLIPProcessor`] or [`CountCLIPProcessor`]): With `image_processor` and `tokenizer`.
        device (`torch.device`): Where the model is.
        dtype (`torch.dtype`): What the model computes in.
        batch_size (`int`): Pictures, or texts, at once.

    Raises:
        ValueError: If `batch_size` is below 1.
        TypeError: If the model is no CLIP, or the processor has no picture or no text side.
    """

    def __init__(self, model: Any, processor: Any, device: torch.device, dtype: torch.dtype, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` of at least 1, but got {batch_size}.")
        for name in ("get_image_features", "get_text_features"):
            if not callable(getattr(model, name, None)):
                raise TypeError(
                    f"Expected a CLIP model with `{name}`, such as CLIPForCounting, but got {type(model).__name__}."
                )
        for name in ("image_processor", "tokenizer"):
            if getattr(processor, name, None) is None:
                raise TypeError(
                    f"Expected a processor with `{name}`, like CountCLIPProcessor, but got {type(processor).__name__}."
                )
        self.model, self.processor = model, processor
        self.device, self.dtype, self.batch_size = device, dtype, batch_size
        self.max_length = int(model.config.text_config.max_position_embeddings)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text as the text tower reads them, cut to its length."""
        return list(self.processor.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"])

    def images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Unit-norm embeddings `(num_images, projection_dim)` in float32 on the CPU, of one batch of RGB pictures."""
        pixel_values = self.processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
        return _unit_norm(self.model.get_image_features(pixel_values=pixel_values.to(self.device, self.dtype)))

    def texts(self, texts: Sequence[str], progress: bool = False) -> torch.Tensor:
        """Unit-norm embeddings `(num_texts, projection_dim)` in float32 on the CPU; equal texts are encoded once."""
        distinct = list(dict.fromkeys(texts))
        # Texts of one length beside each other need no padding.
        order = sorted(distinct, key=len)
        parts = []
        starts = range(0, len(order), self.batch_size)
        for start in tqdm(starts, desc="captions", unit="batch", disable=not progress, leave=False):
            tokens = self.processor.tokenizer(
                order[start : start + self.batch_size],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            features = self.model.get_text_features(
                input_ids=tokens["input_ids"].to(self.device), attention_mask=tokens["attention_mask"].to(self.device)
            )
            parts.append(_unit_norm(features))
        embeds = torch.cat(parts)
        place = {text: index for index, text in enumerate(order)}
        return embeds[[place[text] for text in texts]]


__all__ = ["Encoder", "SkippedRow", "evaluating", "image_id_of", "num_rows", "read_picture", "read_rows"]
