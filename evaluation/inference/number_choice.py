"""Which number from two to ten a CLIP chooses for an image, for many images and a few captions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from PIL import Image

from count_clip.modeling.images import ImageError, open_image, to_rgb
from count_clip.modeling.pipeline_caption_counting import NUMBER_WORDS, number_captions

from .encoding import Encoder, evaluating


def choose_numbers(
    model: Any,
    processor: Any,
    images: Iterable[Any],
    texts: Sequence[str],
    batch_size: int = 32,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    skip_unreadable: bool = False,
) -> Iterator[list[dict[str, Any]]]:
    """
    Choose a number for each image and caption, as the pipeline `caption-counting` does; captions are encoded once.

    Args:
        model ([`CLIPForCounting`] or [`CLIPModel`]): The model.
        processor ([`CountCLIPProcessor`] or [`CLIPProcessor`]): Its processor.
        images: Paths, PIL images or arrays, of any size and mode; a generator will do.
        texts (`Sequence[str]`): Captions with `{}` or a number word from two to ten where the number goes.
        batch_size (`int`, *optional*, defaults to 32): Images, or captions, at once.
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it.
        skip_unreadable (`bool`, *optional*, defaults to `False`): Whether an image that cannot be read gives a result
            with an `error` instead of ending the work.

    Returns:
        An iterator of a list for each image, in order: for each caption a `dict` with `text`, `count` (the number,
        two to ten), `score` (its share of a softmax over the nine captions), and the image's `width` and `height`
        in pixels. With `skip_unreadable`, of an image that cannot be read `text` and `error` alone.

    Raises:
        ImageError: If an image cannot be read, unless `skip_unreadable`.
        ValueError: At once, if a caption has no place for a number, or is so long that the number is cut off.

    Source:
        The protocol of CountBench: Paiss et al., 2023, Sec. 4.1 (https://huggingface.co/papers/2302.12066).
    """
    captions = [number_captions(text) for text in texts]
    with evaluating(model, device, dtype) as (where, precision):
        encoder = Encoder(model, processor, where, precision, batch_size)
        tokens = [encoder.tokenize(nine) for nine in captions]
        for text, nine in zip(texts, tokens, strict=True):
            if len(set(map(tuple, nine))) < len(NUMBER_WORDS):
                raise ValueError(
                    f"The number stands beyond the {encoder.max_length} tokens that the model reads: shorten {text!r}."
                )
        embeds = encoder.tokens(list(chain.from_iterable(tokens)))  # (9 T, P)
        scale = float(model.logit_scale.exp())
    return _choose(model, encoder, embeds, scale, iter(images), texts, skip_unreadable)


def _choose(
    model: Any,
    encoder: Encoder,
    embeds: torch.Tensor,
    scale: float,
    images: Iterator[Any],
    texts: Sequence[str],
    skip_unreadable: bool,
) -> Iterator[list[dict[str, Any]]]:
    while batch := [_open(image, skip_unreadable) for image in islice(images, encoder.batch_size)]:
        readable = [one for one in batch if not isinstance(one, str)]
        scores: Iterator[torch.Tensor] = iter(())
        if readable:
            with evaluating(model):
                logits = scale * encoder.images(readable) @ embeds.T  # (B, 9 T)
            scores = iter(logits.unflatten(1, (len(texts), -1)).softmax(dim=-1))
        for one in batch:
            if isinstance(one, str):
                yield [{"text": text, "error": one} for text in texts]
                continue
            best, places = next(scores).max(dim=-1)
            yield [
                {"text": text, "count": place + 2, "score": score, "width": one.width, "height": one.height}
                for text, place, score in zip(texts, places.tolist(), best.tolist(), strict=True)
            ]


def _open(image: Any, skip_unreadable: bool) -> Image.Image | str:
    """The image, or why there is none."""
    try:
        return to_rgb(open_image(image))
    except ImageError as error:
        if not skip_unreadable:
            raise
        return str(error)


__all__ = ["choose_numbers"]
