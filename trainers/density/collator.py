"""Batches for density models, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


class DensityDataCollator:
    """
    Make training batches for a density model from the samples of a [`DensityTrainingDataset`].

    Args:
        processor ([`CLIPCountDensityProcessor`]): The model's processor.
    """

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor | bool]:
        """
        Make a batch of samples with `pixel_values`, `labels` and `text`, all with the same number of prompts: the
        model's arguments `pixel_values`, `input_ids`, `attention_mask`, `labels` `(batch_size, window_size,
        window_size)` and `return_loss`. Several prompts a sample are the second axis of all but `pixel_values`.
        """
        texts = [sample["text"] for sample in samples]
        if isinstance(texts[0], str):
            tokens = self.processor.tokenize(texts)
        else:
            tokens = self.processor.tokenize([text for prompts in texts for text in prompts])
            tokens = {name: tensor.unflatten(0, (len(texts), -1)) for name, tensor in tokens.items()}
        return {
            "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
            "labels": torch.stack([sample["labels"] for sample in samples]),
            **tokens,
            "return_loss": True,
        }


class DensityEvalDataCollator:
    """Make evaluation batches for a [`DensityCounter`], which prepares the images itself."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """
        Make a batch of rows with `image`, `text` and `count` (or `points`): lists of `images` and `text`, and `labels`
        `(num_images,)`, the true counts.
        """
        counts = [float(row_count(row)) for row in rows]
        images, texts = ([row[name] for row in rows] for name in ("image", "text"))
        return {"images": images, "text": texts, "labels": torch.tensor(counts)}


def row_count(row: Mapping[str, Any]) -> int:
    """Count the objects of a row of the density schema by its `count` or `points`; `ValueError` if it has neither."""
    if row.get("count") is not None:
        return int(row["count"])
    if row.get("points") is not None:
        return len(row["points"])
    raise ValueError(
        f"Expected a row with `count` or `points`, but its columns are {sorted(row)}. Rename the columns to the "
        "density schema: image, image_id, text, count, points."
    )


__all__ = ["DensityDataCollator", "DensityEvalDataCollator", "row_count"]
