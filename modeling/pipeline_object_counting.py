"""`pipeline("object-counting")`: count what a prompt names in pictures of any size."""

import os
from typing import Any

import torch
from transformers import Pipeline
from transformers.image_utils import load_image


class ObjectCountingPipeline(Pipeline):
    """
    Count objects with a [`CLIPCountDensityModel`].

    Example:

    ```python
    >>> import count_clip
    >>> from transformers import pipeline

    >>> counter = pipeline("object-counting", model="org/clip-count")
    >>> result = counter("market.jpg", text="red apples")
    >>> result["count"], result["density_map"].shape, result["points"][:2]
    ```
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __call__(self, inputs: Any, text: str | list[str] | None = None, **kwargs: Any) -> Any:
        """
        Count in one picture or in several.

        Args:
            inputs (`str`, `PIL.Image.Image`, array, `dict`, or a list, dataset or generator of these):
                Pictures: paths, URLs, PIL pictures or arrays; or dictionaries with `image` and `text`.
            text (`str` or `list[str]`, *optional*):
                What to count, for all pictures that do not bring a `text` of their own. With a list, each picture is
                counted for every prompt, in one pass through the vision tower.
            window_batch_size (`int`, *optional*, defaults to 8):
                How many windows of a picture run at once; memory grows with this and not with the picture. It takes
                the place of `batch_size`, which has no effect here.
            timeout (`float`, *optional*):
                Seconds to wait for a picture from the web.

        Returns:
            For each picture a `dict` with `text`, `count` (`float`), `density_map` (array `(height, width)` of float32
            in the picture's own size, summing to `count`) and `points` (`[[x, y], ...]` in the picture's pixels); a
            list of such for a list of prompts.

        Raises:
            ValueError: If there is no prompt, or a picture or prompt cannot be used.
        """
        if text is not None:
            kwargs["text"] = text
        # The windows of one picture are the batch: pictures with different numbers of them cannot be stacked.
        return super().__call__(inputs, **{**kwargs, "batch_size": 1})

    def _sanitize_parameters(
        self,
        text: str | list[str] | None = None,
        window_batch_size: int | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"Unknown options {', '.join(sorted(kwargs))}: use text, window_batch_size or timeout.")
        preprocess = {name: value for name, value in (("text", text), ("timeout", timeout)) if value is not None}
        forward = {} if window_batch_size is None else {"window_batch_size": window_batch_size}
        return preprocess, forward, {}

    def preprocess(
        self, inputs: Any, text: str | list[str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Read one picture and cut it; tokenise its prompts."""
        image = inputs
        if isinstance(inputs, dict):
            image, text = inputs["image"], inputs.get("text", text)
        if not text:
            raise ValueError("Expected what to count, as `text='red apples'`, but got no prompt.")
        if isinstance(image, (str, os.PathLike)):
            image = open_picture(os.fspath(image), timeout)
        prompts = [text] if isinstance(text, str) else list(text)
        model_inputs = dict(self.processor(images=[image]))
        model_inputs.update(self.processor.tokenize(prompts))
        # Both travel beside the tensors: the prompts as given, and whether a list was asked for.
        return {**model_inputs, "prompts": prompts, "is_list": not isinstance(text, str)}

    def _forward(self, model_inputs: dict[str, Any], window_batch_size: int = 8) -> dict[str, Any]:
        text_embeds = self.model.get_text_embeds(model_inputs["input_ids"], model_inputs["attention_mask"])
        density_maps = []
        for pixel_values in model_inputs["pixel_values"].split(window_batch_size):
            prompts = text_embeds.expand(len(pixel_values), -1, -1)
            pixel_values = pixel_values.to(self.model.dtype)
            density_maps.append(self.model(pixel_values=pixel_values, text_embeds=prompts).density_map.cpu())
        kept = ("window_positions", "picture_sizes", "prompts", "is_list")
        return {"density_map": torch.cat(density_maps), **{name: model_inputs[name] for name in kept}}

    def postprocess(self, model_outputs: dict[str, Any]) -> Any:
        """Put each prompt's map together."""
        results = []
        for i, prompt in enumerate(model_outputs["prompts"]):
            result = self.processor.post_process_density(
                model_outputs["density_map"][:, i], model_outputs["window_positions"], model_outputs["picture_sizes"]
            )[0]
            result["density_map"] = result["density_map"].numpy()
            results.append({"text": prompt, **result})
        return results if model_outputs["is_list"] else results[0]


def open_picture(address: str, timeout: float | None = None) -> Any:
    """
    Open a picture from a file or from the web.

    Args:
        address (`str`): A path, an `http(s)` URL or a `data:` URL.
        timeout (`float`, *optional*): Seconds to wait for the web.

    Returns:
        `PIL.Image.Image`.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not address.startswith(("http://", "https://", "data:")) and not os.path.isfile(address):
        raise FileNotFoundError(f"There is no picture {address!r}.")
    return load_image(address, timeout=timeout)


__all__ = ["ObjectCountingPipeline", "open_picture"]
