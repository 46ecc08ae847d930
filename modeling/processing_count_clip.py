"""Processor of the count-aware CLIP: images, captions and captions with wrong numbers to tensors."""

from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin

from .images import to_rgb


class CountCLIPProcessor(ProcessorMixin):
    """
    Prepare images and captions for a [`CLIPForCounting`]. A [`CLIPProcessor`] reads the same files.

    Args:
        image_processor ([`CLIPImageProcessor`]): Resizes, crops and normalises images.
        tokenizer ([`CLIPTokenizer`]): Tokenises captions.
        max_text_length (`int`, *optional*, defaults to 77):
            Positions of the text tower; longer captions are cut there, as CLIP does.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, max_text_length: int = 77, **kwargs: Any):
        self.max_text_length = max_text_length
        super().__init__(image_processor, tokenizer)

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        counterfactual_text: list[list[str]] | None = None,
        return_tensors: str = "pt",
        padding: bool | str = True,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Turn images and captions into tensors.

        Args:
            images (an image or a list of images, *optional*):
                PIL images, arrays or tensors, of any size and mode.
            text (`str` or `list[str]`, *optional*): Captions.
            counterfactual_text (`list[list[str]]`, *optional*):
                For each row that counts, in order, the same number of captions with a wrong number.
            return_tensors (`str`, *optional*, defaults to `"pt"`): Type of the tensors.
            padding (`bool` or `str`, *optional*, defaults to `True`): How captions are padded.
            kwargs: Options of the image processor.

        Returns:
            [`BatchFeature`] with `pixel_values` `(batch_size, 3, height, width)`, `input_ids` and `attention_mask`
            `(num_captions, sequence_length)`, and `counterfactual_input_ids` and `counterfactual_attention_mask`
            `(num_counting, num_counterfactuals, length)`.

        Raises:
            ValueError: If there are no inputs, or the rows have different numbers of counterfactuals.
        """
        if images is None and text is None and counterfactual_text is None:
            raise ValueError("Expected images, captions or both, but got neither.")
        data: dict[str, Any] = {}
        if images is not None:
            several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4
            images = [to_rgb(image) for image in (images if several else [images])]
            data.update(self.image_processor(images, return_tensors=return_tensors, **kwargs))
        if text is not None:
            data.update(self._tokenize([text] if isinstance(text, str) else list(text), return_tensors, padding))
        if counterfactual_text is not None:
            lengths = {len(captions) for captions in counterfactual_text}
            if len(lengths) > 1 or 0 in lengths:
                raise ValueError(
                    "Every counting row needs the same number of counterfactual captions, at least one, but the rows "
                    f"have {sorted(lengths)}."
                )
            if counterfactual_text:
                flat = [caption for captions in counterfactual_text for caption in captions]
                tokens = self._tokenize(flat, return_tensors, padding)
                shape = (len(counterfactual_text), lengths.pop(), -1)
                tokens = {name: values.reshape(shape) for name, values in tokens.items()}
            else:
                tokens = {name: torch.zeros(0, 1, 1, dtype=torch.long) for name in ("input_ids", "attention_mask")}
            data.update({f"counterfactual_{name}": values for name, values in tokens.items()})
        return BatchFeature(data=data)

    def _tokenize(self, captions: list[str], return_tensors: str, padding: bool | str) -> dict[str, Any]:
        tokens = self.tokenizer(
            captions, padding=padding, truncation=True, max_length=self.max_text_length, return_tensors=return_tensors
        )
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    @property
    def model_input_names(self) -> list[str]:
        """Names of what `__call__` returns."""
        names = ["input_ids", "attention_mask"]
        return ["pixel_values", *names, *(f"counterfactual_{name}" for name in names)]


__all__ = ["CountCLIPProcessor"]
