"""`pipeline("caption-counting")`: which number of objects does a caption have to state for this image?"""

import re
from typing import Any

from PIL import Image

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
                A caption with `{}` where the number goes, or one that states a number word from two to ten, whose
                first such word is replaced.
            on_error (`str`, *optional*):
                What an image that cannot be used leads to: with `"raise"`, the default for a single image, a
                `ImageError` (a `ValueError`) that names it; with `"report"`, the default for several, a
                `{"text", "error"}` in its place, and a warning. A caption that cannot be used raises, unless it is the
                image's own and errors are reported.
            timeout (`float`, *optional*):
                Seconds to wait for an image from the web.

        Returns:
            For each image a list of nine `{"number": int, "score": float}`, best first; the scores sum to one. A
            list or tuple of images gives a list, a data set or generator an iterator.

        Raises:
            ValueError: If there is no caption, it has no place for a number, or an image cannot be used.
        """
        return super().__call__(inputs, text, **kwargs)

    def _prepare(self, image: Image.Image, text: str, **options: Any) -> Any:
        """Write an image's nine captions."""
        inputs = self.processor(images=[image], text=number_captions(text), padding=True, return_tensors="pt")
        if len(inputs["input_ids"].unique(dim=0)) < len(NUMBER_WORDS):
            raise ValueError(
                "The caption is so long that the number is cut off, and all nine captions are the same to the model: "
                f"shorten {text[:60]!r}..."
            )
        return inputs

    def _answer(self, model_inputs: Any, **options: Any) -> Any:
        return {"logits": self.model(**model_inputs).logits_per_image}

    def _finish(self, model_outputs: Any, **options: Any) -> list[dict[str, Any]]:
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
