"""Batches for [`CLIPForCounting`], for training and for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.utils import logging

from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD, counterfactuals, counting_captions, find_count

from ..core.sampling import Epoch, sample_generator


logger = logging.get_logger(__name__)


class CountingDataCollator:
    """
    Make training batches for a [`CLIPForCounting`], with general pairs and counting pairs.

    A row is a counting row if its `number` is from two to ten, unless its `is_counting` decides otherwise. The wrong
    captions of a row depend on the seed, the epoch and the row alone.

    Args:
        processor ([`CountCLIPProcessor`]): Turns images and captions into tensors.
        num_counterfactuals (`int`, *optional*, defaults to 1): Wrong captions for each counting row.
        counting_loss (`bool`, *optional*, defaults to `True`): Whether there are counting rows at all.
        seed (`int`, *optional*, defaults to 0): The seed of the run.
        number_weights (`Mapping[int, float]`, *optional*): Weights of the numbers in the counting loss, from
            [`number_weights`]; by default all are 1.
    """

    def __init__(
        self,
        processor: Any,
        num_counterfactuals: int = 1,
        counting_loss: bool = True,
        seed: int = 0,
        number_weights: Mapping[int, float] | None = None,
    ):
        self.processor = processor
        self.num_counterfactuals = num_counterfactuals
        self.counting_loss = counting_loss
        self.seed = seed
        self.number_weights = number_weights
        self._epoch = Epoch()

    def set_epoch(self, epoch: int) -> None:
        """Start epoch `epoch`, counted from 0, with other wrong captions."""
        self._epoch.set(epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor | bool]:
        """
        Make a batch of rows with `image`, `text`, `number`, and optionally `image_id` and `is_counting`: the arguments
        `pixel_values`, `input_ids`, `attention_mask`, `counterfactual_input_ids` `(counting rows, wrong captions,
        length)` with its mask, `counting_mask` `(batch_size,)`, with `number_weights` also `counting_weights`
        `(counting rows,)`, and `return_loss` of [`CLIPForCounting`].

        Raises a `ValueError` if a counting row's caption states no number, or another than the row's.
        """
        mask = [self.counting_loss and is_counting_row(row) for row in rows]
        wrong = [self._wrong_captions(row) for row, counts in zip(rows, mask, strict=True) if counts]
        batch = self.processor(
            images=[row["image"] for row in rows], text=[row["text"] for row in rows], counterfactual_text=wrong
        )
        counting_mask = torch.tensor(mask, dtype=torch.bool)
        if self.number_weights is not None:
            weights = [
                self.number_weights[stated_number(row) or 0] for row, counts in zip(rows, mask, strict=True) if counts
            ]
            batch["counting_weights"] = torch.tensor(weights, dtype=torch.float32)
        if wrong:
            self._leave_out_cut_captions(batch, counting_mask)
        return {**batch, "counting_mask": counting_mask, "return_loss": True}

    def _leave_out_cut_captions(self, batch: dict[str, torch.Tensor], counting_mask: torch.Tensor) -> None:
        """Make general rows of those whose number is cut off, so that all their captions are the same."""
        true, wrong = batch["input_ids"][counting_mask], batch["counterfactual_input_ids"]
        length = min(true.shape[1], wrong.shape[2])
        same = (wrong[:, :, :length] == true[:, None, :length]).all(dim=-1).any(dim=-1)
        # A caption may equal the beginning of a longer one; then neither was cut off.
        same &= batch["attention_mask"][counting_mask].sum(dim=-1) >= self.processor.max_text_length
        if same.any():
            logger.warning_once(
                "Some captions are so long that the number is cut off; these rows do not enter the counting loss."
            )
            counting_mask[counting_mask.nonzero()[:, 0][same]] = False
            for name in ("counterfactual_input_ids", "counterfactual_attention_mask", "counting_weights"):
                if name in batch:
                    batch[name] = batch[name][~same]

    def _wrong_captions(self, row: Mapping[str, Any]) -> list[str]:
        check_counting_row(row)
        generator = sample_generator(self.seed, self._epoch.get(), f"{row.get('image_id')}\n{row['text']}")
        seed = int(generator.integers(2**31))
        return list(
            counterfactuals(row["text"], k=self.num_counterfactuals, seed=seed, stated=row.get("number") or None)
        )


class CountingEvalDataCollator:
    """
    Make batches for the nine-caption protocol: each image's caption with each of the numbers two to ten.

    Args:
        processor ([`CountCLIPProcessor`]): Turns images and captions into tensors.
    """

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Make a batch of rows with `image`, `text` and `number`: `pixel_values` `(batch_size, 3, height, width)`,
        `input_ids` and `attention_mask` of the distinct captions, `caption_index` `(batch_size, 9)`, the nine captions
        of each image, and `labels` `(batch_size,)`, the true numbers.

        Raises a `ValueError` if a caption states no number from two to ten, not the row's, or one that is cut off.
        """
        for row in rows:
            check_counting_row(row)
        captions = [counting_captions(row["text"], stated=row.get("number") or None) for row in rows]
        place = {caption: i for i, caption in enumerate(dict.fromkeys(x for nine in captions for x in nine))}
        batch = self.processor(images=[row["image"] for row in rows], text=list(place))
        for row, nine in zip(rows, captions, strict=True):
            tokens = batch["input_ids"][[place[caption] for caption in nine]]
            if len(tokens.unique(dim=0)) < len(nine):
                raise ValueError(
                    f"The caption of {row.get('image_id')!r} is so long that its number is cut off, so the nine "
                    f"captions are the same to the model: {row['text'][:60]!r}... Leave the row out or shorten it."
                )
        return {
            **batch,
            "caption_index": torch.tensor([[place[caption] for caption in nine] for nine in captions]),
            "labels": torch.tensor([stated_number(row) for row in rows]),
        }


def is_counting_row(row: Mapping[str, Any]) -> bool:
    """Whether a row of the caption schema is for the counting loss, by its `is_counting`, or else by its `number`."""
    explicit = row.get("is_counting")
    return (row.get("number") or 0) in NUMBER_TO_WORD if explicit is None else bool(explicit)


def check_counting_row(row: Mapping[str, Any]) -> None:
    """
    Raise a `ValueError` unless the caption of a row states a number from two to ten, and the row's where it has one.
    """
    number, first = row.get("number"), find_count(row["text"])
    if stated_number(row) is not None and number != 0:
        return
    found = "has no number word from two to ten" if first is None else f"states {NUMBER_TO_WORD[first.number]}"
    raise ValueError(
        f"The row with image_id {row.get('image_id')!r} is a counting row"
        f"{'' if number is None else f' with number {number}'}, but its caption {row['text']!r} {found}. Correct the "
        "caption or the number, set `is_counting` to false to train on the row as a general pair, or leave it out."
    )


def stated_number(row: Mapping[str, Any]) -> int | None:
    """The number of a row if its caption states it, else the first that the caption states."""
    match = find_count(row["text"], stated=row.get("number") or None)
    return None if match is None else int(match.number)


__all__ = [
    "CountingDataCollator",
    "CountingEvalDataCollator",
    "check_counting_row",
    "is_counting_row",
    "stated_number",
]
