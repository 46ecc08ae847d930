"""Whether a checkpoint can count by a text, found out with its tokenizer alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from count_clip.modeling.pipeline_caption_counting import number_captions

from .checkpoints import DENSITY, PLAIN, CheckpointError, CheckpointInfo, check_tokenizer


@dataclass
class TextCheck:
    """Whether a model can count by a text."""

    text: str
    """The prompt or the caption."""
    can_count: bool
    """Whether it can."""
    reason: str | None
    """Why not."""
    tokens: list[str]
    """What the model reads, start and end of text aside."""
    num_tokens: int
    """How many that are, start and end of text included."""
    max_tokens: int
    """How many may be."""
    remarks: list[str]
    """What to know before believing the count."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for JSON."""
        return asdict(self)


def check_text(folder: Path, info: CheckpointInfo, text: str) -> TextCheck:
    """
    Say whether a model can count by a text, and what to know about it.

    Args:
        folder (`Path`): The checkpoint's files.
        info ([`CheckpointInfo`]): What it is.
        text (`str`): What to count, or for a model that ranks captions a caption with a number or `{}` in it.

    Returns:
        [`TextCheck`]: The answer.

    Raises:
        CheckpointError: If the model does not count, or its processor cannot be loaded.
    """
    if info.model_type.startswith("adapter"):
        bases = " or ".join(info.base_model) or "which it does not name"
        raise CheckpointError(f"{info.model} is an adapter and has no processor: ask its base model, {bases}.")
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
            remarks.append("a plain CLIP: nothing taught it to count, so expect little")
    pieces = tokenizer(texts[0], add_special_tokens=False, verbose=False)["input_ids"]
    num_unknown = sum(piece == tokenizer.unk_token_id for piece in pieces)
    if num_unknown:
        remarks.append(f"the tokenizer does not know {num_unknown} of the {len(pieces)} tokens")
    return TextCheck(
        text=text,
        can_count=reason is None,
        reason=reason,
        tokens=[token.removesuffix("</w>") for token in tokenizer.convert_ids_to_tokens(pieces)],
        num_tokens=max(len(tokenizer(one, verbose=False)["input_ids"]) for one in texts),
        max_tokens=max_tokens,
        remarks=remarks,
    )


def _remarks_on_prompt(text: str, info: CheckpointInfo) -> list[str]:
    """What stands in the way of a density model's prompt without making it impossible."""
    remarks = []
    try:
        number_captions(text)
    except ValueError:
        pass
    else:
        remarks.append("name what to count without a number; the model says how many")
    if info.options.get("text_readout") == "authors" and len(text.split()) == 1:
        remarks.append("this checkpoint reads one-word prompts as if they were all the same; use two words or more")
    return remarks


def _captions(text: str, tokenizer: Any, max_tokens: int) -> tuple[list[str], str | None]:
    """The nine captions that are compared, and what is wrong with them."""
    try:
        captions = number_captions(text)
    except ValueError as error:
        return [text], str(error)
    cut = {tuple(tokenizer(one, truncation=True, max_length=max_tokens)["input_ids"]) for one in captions}
    if len(cut) < len(captions):
        return captions, f"The caption is cut after {max_tokens} tokens, and the number is lost: shorten it."
    return captions, None


__all__ = ["TextCheck", "check_text"]
