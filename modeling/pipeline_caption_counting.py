"""`pipeline("caption-counting")`: the number, two to ten, that a caption should state for an image."""

import re
from typing import Any

import torch

from .counting_engine import BatchCounter, Counted, evaluating
from .pipeline_images import ImagePipeline


NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = re.compile(r"(?<![\w-])(" + "|".join(NUMBER_WORDS) + r")(?![\w-])", re.IGNORECASE)


class CaptionCountingPipeline(ImagePipeline):
    """
    Rank the numbers two to ten for an image and a caption, with a [`CLIPForCounting`] or any CLIP.

    Example:

    ```python
    >>> import count_clip
    >>> from transformers import pipeline

    >>> counter = pipeline("caption-counting", model="org/count-clip")
    >>> counter("dogs.jpg", text="a photo of {} dogs")[0]
    ```

    Source:
        The protocol of CountBench: Paiss et al., 2023, Sec. 4.1 (https://huggingface.co/papers/2302.12066).
    """

    def __call__(self, inputs: Any, text: str | None = None, **kwargs: Any) -> Any:
        """
        Rank the numbers for one image or for several.

        Args:
            inputs (`str`, `PIL.Image.Image`, array, `dict`, or a list, tuple, data set or generator of these):
                Images: paths, URLs, PIL images, arrays or tensors; or dictionaries with `image` and `text`.
            text (`str`, *optional*):
                A caption with `{}` for the number, or with a number word from two to ten, the first of which is
                replaced.
            on_error (`str`, *optional*), timeout (`float`, *optional*): As in [`ObjectCountingPipeline`].

        Returns:
            For each image a list of nine `{"number": int, "score": float}`, best first; the scores sum to one. A
            list or tuple of images gives a list, a data set or generator an iterable.

        Raises:
            ValueError: If there is no caption, it has no place for a number, or an image cannot be used.
        """
        return super().__call__(inputs, text, **kwargs)

    def _counter(self) -> "NumberChooser":
        return NumberChooser(self.model, self.processor, self._batch_size or 1)

    def _write(self, counted: Counted) -> list[Any]:
        """Order the numbers by their probability."""
        ranked = [
            sorted(
                ({"number": number, "score": score} for number, score in enumerate(result["scores"], start=2)),
                key=lambda entry: -entry["score"],
            )
            for result in counted.results
        ]
        return ranked[0] if isinstance(counted.tag.text, str) else ranked


class NumberChooser(BatchCounter):
    """
    Chooses a number from two to ten with a CLIP. Images are encoded in batches, and each distinct caption once: the
    model must not change meanwhile.

    Prompts are captions as for [`number_captions`]. Each has a result with `text`, `count` (the number), `score` (its
    probability in a softmax over the nine captions) and `scores` (those of two to ten).

    Args:
        model ([`CLIPForCounting`] or [`CLIPModel`]): The model.
        processor ([`CountCLIPProcessor`] or [`CLIPProcessor`]): Its processor.
        batch_size (`int`, *optional*, defaults to 32): Images at once.
        keep_images (`bool`, *optional*, defaults to `False`): Whether [`Counted`] has its `image`.
    """

    def __init__(self, model: Any, processor: Any, batch_size: int = 32, keep_images: bool = False):
        super().__init__(batch_size, keep_images)
        self.model, self.processor = model, processor
        self._text_embeds: dict[str, torch.Tensor] = {}

    def check_prompts(self, prompts: list[str]) -> None:
        """Raise a `ValueError` if a caption has no place for a number, or its number is cut off."""
        for prompt in prompts:
            self._tokenize(prompt)

    def count_batch(self, batch: list[Counted]) -> None:
        """Set the `results` of images, or their `error`."""
        for counted in batch:
            try:
                tokens = {text: self._tokenize(text) for text in counted.prompts if text not in self._text_embeds}
            except ValueError as error:
                counted.fail(error)
                continue
            with evaluating(self.model) as (device, _):
                for text, nine in tokens.items():
                    self._text_embeds[text] = _unit_norm(self.model.get_text_features(**nine.to(device)))
        batch = [counted for counted in batch if counted.error is None]
        if not batch:
            return
        images = [counted.image for counted in batch]
        with evaluating(self.model) as (device, dtype):
            pixel_values = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
            features = self.model.get_image_features(pixel_values=pixel_values.to(device, dtype))
            embeds = self.model.logit_scale.exp().float() * _unit_norm(features)
        for counted, embed in zip(batch, embeds, strict=True):
            for text in counted.prompts:
                scores = (self._text_embeds[text] @ embed).softmax(dim=-1)
                best, place = scores.max(dim=-1)
                counted.results.append(
                    {"text": text, "count": int(place) + 2, "score": float(best), "scores": scores.tolist()}
                )

    def _tokenize(self, text: str) -> Any:
        """The tokens of a caption's nine versions."""
        longest = getattr(self.processor, "max_text_length", self.model.config.text_config.max_position_embeddings)
        tokens = self.processor.tokenizer(
            number_captions(text), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        if len(tokens["input_ids"].unique(dim=0)) < len(NUMBER_WORDS):
            raise ValueError(
                f"The number is beyond the {longest} tokens that the model reads, so that all nine captions are the "
                f"same to the model: shorten {text[:60]!r}..."
            )
        return tokens


def _unit_norm(features: Any) -> torch.Tensor:
    """Unit-norm embeddings in float32, from what `get_*_features` returns."""
    embeds = (features if isinstance(features, torch.Tensor) else features.pooler_output).float()
    return embeds / embeds.norm(dim=-1, keepdim=True)


def number_captions(text: str) -> list[str]:
    """
    The captions for two to ten, from one with `{}` or a number word from two to ten.

    Raises:
        ValueError: If the caption has neither.
    """
    if "{}" in text:
        return [text.replace("{}", word) for word in NUMBER_WORDS]
    match = _NUMBER.search(text)
    if match is None:
        raise ValueError(f"Expected a caption with '{{}}' or a number word from two to ten in it, but got {text!r}.")
    found = match.group()
    style = str.upper if found.isupper() else str.capitalize if found[0].isupper() else str.lower
    return [text[: match.start()] + style(word) + text[match.end() :] for word in NUMBER_WORDS]


__all__ = ["CaptionCountingPipeline", "NumberChooser", "number_captions"]
