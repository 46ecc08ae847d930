"""`pipeline("caption-counting")`: which number of objects does a caption have to state for this picture?"""

import os
import re
from typing import Any

from transformers import Pipeline

from .pipeline_object_counting import open_picture


NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = re.compile(r"(?<![\w-])(" + "|".join(NUMBER_WORDS) + r")(?![\w-])", re.IGNORECASE)


class CaptionCountingPipeline(Pipeline):
    """
    Rank the numbers two to ten for a picture and a caption, with a [`CLIPForCounting`] or any CLIP.

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

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __call__(self, inputs: Any, text: str | None = None, **kwargs: Any) -> Any:
        """
        Rank the numbers for one picture or for several.

        Args:
            inputs (`str`, `PIL.Image.Image`, array, `dict`, or a list, dataset or generator of these):
                Pictures: paths, URLs, PIL pictures or arrays; or dictionaries with `image` and `text`.
            text (`str`, *optional*):
                A caption with `{}` where the number goes, or one that states a number word from two to ten, whose
                first such word is replaced.
            timeout (`float`, *optional*):
                Seconds to wait for a picture from the web.

        Returns:
            For each picture a list of nine `{"number": int, "score": float}`, best first; the scores sum to one.

        Raises:
            ValueError: If there is no caption, or it has no place for a number.
        """
        if text is not None:
            kwargs["text"] = text
        # Each picture brings nine captions of its own, which a stack of pictures would mix.
        return super().__call__(inputs, **{**kwargs, "batch_size": 1})

    def _sanitize_parameters(
        self, text: str | None = None, timeout: float | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"Unknown options {', '.join(sorted(kwargs))}: use text or timeout.")
        return (
            {name: value for name, value in (("text", text), ("timeout", timeout)) if value is not None},
            {},
            {},
        )

    def preprocess(self, inputs: Any, text: str | None = None, timeout: float | None = None) -> Any:
        """Read one picture and write its nine captions."""
        image = inputs
        if isinstance(inputs, dict):
            image, text = inputs["image"], inputs.get("text", text)
        if text is None:
            raise ValueError("Expected a caption, as `text='a photo of {} dogs'`, but got none.")
        if isinstance(image, (str, os.PathLike)):
            image = open_picture(os.fspath(image), timeout)
        inputs = self.processor(images=[image], text=number_captions(text), padding=True, return_tensors="pt")
        if len(inputs["input_ids"].unique(dim=0)) < len(NUMBER_WORDS):
            raise ValueError(
                "The caption is so long that the number is cut off, and all nine captions are the same to the model: "
                f"shorten {text[:60]!r}..."
            )
        return inputs

    def _forward(self, model_inputs: Any) -> Any:
        return {"logits": self.model(**model_inputs).logits_per_image}

    def postprocess(self, model_outputs: Any) -> list[dict[str, Any]]:
        """Order the numbers by their probability."""
        scores = model_outputs["logits"][0].float().softmax(dim=-1).tolist()
        ranked = [{"number": number, "score": score} for number, score in enumerate(scores, start=2)]
        return sorted(ranked, key=lambda entry: -entry["score"])


def number_captions(text: str) -> list[str]:
    """
    The nine captions that differ in the number they state.

    Args:
        text (`str`): A caption with one `{}`, or with a number word from two to ten.

    Returns:
        `list[str]`: The captions for two to ten.

    Raises:
        ValueError: If there is no place for a number.
    """
    if "{}" in text:
        return [text.replace("{}", word) for word in NUMBER_WORDS]
    match = _NUMBER.search(text)
    if match is None:
        raise ValueError(f"Expected a caption with '{{}}' or a number word from two to ten in it, but got {text!r}.")
    found = match.group()
    style = str.upper if found.isupper() else str.capitalize if found[0].isupper() else str.lower
    return [text[: match.start()] + style(word) + text[match.end() :] for word in NUMBER_WORDS]


__all__ = ["CaptionCountingPipeline", "number_captions"]
