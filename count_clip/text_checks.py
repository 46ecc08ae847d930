"""Check with the tokenizer alone whether a checkpoint can count by a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from count_clip.modeling.pipeline_caption_counting import number_captions

from .checkpoints import DENSITY, PLAIN, CheckpointError, CheckpointInfo, check_tokenizer


@dataclass
class TextCheck:
    """Whether a model can count by a text."""

    text: str
    can_count: bool
    reason: str | None
    """The reason if it cannot."""
    tokens: list[str]
    """The tokens without start and end of text."""
    num_tokens: int
    """Their number with start and end of text."""
    max_tokens: int
    remarks: list[str]
    """Limits of the count."""


def check_text(folder: Path, info: CheckpointInfo, text: str) -> TextCheck:
    """
    Check whether a model can count by a text: a prompt for a density model, or a caption with a number or `{}` for a
    CLIP.

    Raises a [`CheckpointError`] if the model does not count, or its processor cannot be loaded.
    """
    if info.model_type.startswith("adapter"):
        bases = " or ".join(info.base_model) or "which its configuration does not name"
        raise CheckpointError(f"{info.model} is an adapter and has no processor: check its base model, {bases}.")
    if info.counts_by is None:
        raise CheckpointError(f"{info.model} is of type {info.model_type!r}, which does not count by text.")
    check_tokenizer(folder, info.model)
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"The processor of {info.model} cannot be loaded: {error}") from error
    tokenizer = processor.tokenizer
    remarks: list[str] = []
    if info.counts_by == DENSITY:
        texts, max_tokens, reason = [text], processor.max_prompt_tokens, None
        try:
            processor.tokenize([text])
        except ValueError as error:
            reason = str(error)
        if reason is None:
            remarks += _remarks_on_prompt(text, info)
    else:
        max_tokens = info.sizes["text_tokens"]
        texts, reason = _captions(text, tokenizer, max_tokens)
        if info.counts_by == PLAIN:
            remarks.append("a plain CLIP, not trained to count: expect low accuracy")
    tokens = tokenizer(texts[0], add_special_tokens=False, verbose=False)["input_ids"]
    num_unknown = sum(token == tokenizer.unk_token_id for token in tokens)
    if num_unknown:
        remarks.append(f"{num_unknown} of the {len(tokens)} tokens are unknown to the tokenizer")
    return TextCheck(
        text=text,
        can_count=reason is None,
        reason=reason,
        tokens=[token.removesuffix("</w>") for token in tokenizer.convert_ids_to_tokens(tokens)],
        num_tokens=max(len(tokenizer(one, verbose=False)["input_ids"]) for one in texts),
        max_tokens=max_tokens,
        remarks=remarks,
    )


def _remarks_on_prompt(text: str, info: CheckpointInfo) -> list[str]:
    """Limits of a valid prompt for a density model."""
    remarks = []
    try:
        number_captions(text)
    except ValueError:
        pass
    else:
        remarks.append("name the objects without a number; the model predicts the number")
    if info.options.get("text_readout") == "authors" and len(text.split()) == 1:
        remarks.append("this checkpoint encodes all one-word prompts alike; use two words or more")
    return remarks


def _captions(text: str, tokenizer: Any, max_tokens: int) -> tuple[list[str], str | None]:
    """The nine captions to compare, and the reason if they cannot be compared."""
    try:
        captions = number_captions(text)
    except ValueError as error:
        return [text], str(error)
    cut = {tuple(tokenizer(one, truncation=True, max_length=max_tokens)["input_ids"]) for one in captions}
    if len(cut) < len(captions):
        return captions, f"The caption is cut after {max_tokens} tokens, and the number is lost: shorten it."
    return captions, None


__all__ = ["TextCheck", "check_text"]
