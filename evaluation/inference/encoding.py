"""Rows of data sets, and unit-norm CLIP embeddings of images and texts in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from huggingface_hub.utils import tqdm
from PIL import Image

from count_clip.modeling.counting_engine import evaluating
from count_clip.modeling.images import DECODER_ERRORS, open_image, to_rgb

from .clip_towers import image_features, text_features


_Item = TypeVar("_Item")
_END: Any = object()


@dataclass(frozen=True)
class SkippedRow:
    """A row that was not measured, and why."""

    index: int
    """Which row of the data, from 0."""
    image_id: str | None
    """The `image_id` of the row, if it has one."""
    reason: str
    """The reason."""


def read_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any] | None, str | None]]:
    """
    Read the rows of a data set, which decodes images on access.

    Yields the index, the row or `None` if it cannot be decoded, and the reason.
    """
    total = num_rows(rows)
    if total is None or not hasattr(rows, "__getitem__"):
        for index, row in enumerate(rows):
            yield index, row, None
        return
    for index in range(total):
        try:
            row = rows[index]
        except DECODER_ERRORS as error:
            yield index, None, f"the row cannot be read: {error}"
        else:
            yield index, row, None


def usable_rows(
    rows: Iterable[Mapping[str, Any]],
    read: Callable[[Mapping[str, Any]], _Item],
    skipped: list[SkippedRow],
    progress: bool = False,
) -> Iterator[tuple[int, Mapping[str, Any], _Item]]:
    """
    Yield the index, the row and the result of `read` for the rows of a data set, as in [`read_rows`].

    Rows for which `read` raises a `ValueError` (an `ImageError` is one) are listed in `skipped`, with its message.
    """
    for index, row, reason in tqdm(
        read_rows(rows), total=num_rows(rows), desc="images", disable=not progress, leave=False
    ):
        try:
            if row is None:
                raise ValueError(reason or "there is no row")
            item = read(row)
        except ValueError as error:
            skipped.append(SkippedRow(index, image_id_of(row), str(error)))
        else:
            yield index, row, item


def read_ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Prepare the next item in another thread while the caller works on the last one. Errors keep their place."""
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, iterator, _END)
        while (item := coming.result()) is not _END:
            coming = pool.submit(next, iterator, _END)
            yield item


def num_rows(rows: Iterable[Any]) -> int | None:
    """The number of rows, or `None` for an iterator."""
    return len(rows) if isinstance(rows, Sized) else None


def image_id_of(row: Mapping[str, Any] | None) -> str | None:
    """The `image_id` of the row as a string, or `None`."""
    return None if row is None or row.get("image_id") is None else str(row["image_id"])


def read_image(row: Mapping[str, Any]) -> Image.Image:
    """The row's image, upright and in 8-bit RGB; an `ImageError` if there is none or it cannot be used."""
    return to_rgb(open_image(row.get("image"), image_id_of(row)))


def _text_positions(model: Any) -> int:
    """The most tokens of a text, without those of the context of adapters."""
    positions = int(model.config.text_config.max_position_embeddings)
    adapters = getattr(model, "peft_config", None)
    if adapters:
        from count_clip.modeling.prompt_tuning import ContextPromptConfig

        # The base model has `peft_config` too, but not the names of the active adapters.
        names = getattr(model, "active_adapters", None)
        active = [config for name, config in adapters.items() if not isinstance(names, list) or name in names]
        contexts = [config for config in active if isinstance(config, ContextPromptConfig)]
        positions -= sum(config.num_virtual_tokens or 0 for config in contexts)
    return positions


def _unit_norm(features: torch.Tensor) -> torch.Tensor:
    """Unit-norm embeddings in float32 on the CPU."""
    embeds = features.float()
    return (embeds / embeds.norm(dim=-1, keepdim=True)).cpu()


class Encoder:
    """
    The two towers of a CLIP. Each distinct text is encoded once.

    Args:
        model ([`CLIPModel`]): Any CLIP; [`CLIPForCounting`] is one.
        processor ([`CLIPProcessor`] or [`CountCLIPProcessor`]): With `image_processor` and `tokenizer`.
        device (`torch.device`): Where the model is.
        dtype (`torch.dtype`): What the model computes in.
        batch_size (`int`): Images, or texts, at once.

    Raises:
        ValueError: If `batch_size` is below 1.
        TypeError: If the model is no CLIP, or the processor has no image or no text side.
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
        self.max_length = _text_positions(model)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text as the text tower reads them, cut to its length."""
        return list(self.processor.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"])

    def pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """RGB images as the vision tower takes them, `(num_images, num_channels, height, width)`, on the CPU."""
        pixel_values: torch.Tensor = self.processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
        return pixel_values

    def images(self, images: Sequence[Image.Image] | torch.Tensor) -> torch.Tensor:
        """
        Unit-norm embeddings `(num_images, projection_dim)` of RGB images, or of their `pixels`, in float32 on the CPU.
        """
        pixel_values = images if isinstance(images, torch.Tensor) else self.pixels(images)
        return _unit_norm(image_features(self.model, pixel_values.to(self.device, self.dtype)))

    def texts(self, texts: Sequence[str], progress: bool = False) -> torch.Tensor:
        """Unit-norm embeddings `(num_texts, projection_dim)`, in float32 on the CPU."""
        return self.tokens(self.tokenize(texts), progress)

    def tokens(self, token_ids: Sequence[Sequence[int]], progress: bool = False) -> torch.Tensor:
        """As [`Encoder.texts`], of texts that `tokenize` has made tokens of."""
        keys = [tuple(ids) for ids in token_ids]
        # Texts of one length need no padding, and those with the same beginning share its states.
        order = sorted(set(keys), key=lambda ids: (len(ids), ids))
        parts = []
        starts = range(0, len(order), self.batch_size)
        for start in tqdm(starts, desc="captions", unit="batch", disable=not progress, leave=False):
            batch = order[start : start + self.batch_size]
            parts.append(_unit_norm(text_features(self.model, self.processor.tokenizer, batch)))
        place = {ids: index for index, ids in enumerate(order)}
        return torch.cat(parts)[[place[ids] for ids in keys]]


__all__ = [
    "Encoder",
    "SkippedRow",
    "evaluating",
    "image_id_of",
    "num_rows",
    "read_ahead",
    "read_image",
    "read_rows",
    "usable_rows",
]
