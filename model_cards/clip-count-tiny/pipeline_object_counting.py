"""`pipeline("object-counting")`: count what a prompt names in images of any size."""

from typing import Any

import torch
from PIL import Image

from .pipeline_images import ImagePipeline


# More prompts than this are no longer worth the memory of having them all in one pass.
MAX_PROMPTS_AT_ONCE = 64


class ObjectCountingPipeline(ImagePipeline):
    """
    Count objects with a [`CLIPCountDensityModel`].

    Example:

    ```python
    >>> import count_clip
    >>> from transformers import pipeline

    >>> counter = pipeline("object-counting", model="org/clip-count")
    >>> result = counter("market.jpg", text="red apples")
    >>> result["count"], result["density_map"].shape, result["points"][:2]
    >>> [result["count"] for result in counter("market.jpg", text=["red apples", "green apples"])]
    >>> for result in counter(["market.jpg", "broken.jpg"], text="red apples"):
    ...     print(result.get("count", result.get("error")))
    ```
    """

    def __call__(self, inputs: Any, text: str | list[str] | None = None, **kwargs: Any) -> Any:
        """
        Count in one image or in several.

        Args:
            inputs (`str`, `PIL.Image.Image`, array, `dict`, or a list, tuple, data set or generator of these):
                Images: paths, URLs, PIL images, arrays or tensors; or dictionaries with `image` and `text`.
            text (`str` or `list[str]`, *optional*):
                What to count, for all images that do not bring a `text` of their own. With a list, each image is
                counted for every prompt, in one pass through the vision tower.
            window_batch_size (`int`, *optional*, defaults to 8):
                How many density maps (windows of an image, times prompts) are computed at once, but at least those
                of one window and all its prompts (of up to 64; more are taken in turns). The network's memory grows
                with this and not with the image. It takes the place of `batch_size`, which has no effect here.
            window (`str`, *optional*, defaults to what the processor's configuration says):
                `"sliding"` for windows, or `"whole"` for one pass with the whole image, whose memory grows with the
                image's longer side.
            return_density_map (`bool`, *optional*, defaults to `True`):
                Whether results have their `density_map`, four bytes a pixel: for many large images in a list, leave
                it out.
            on_error (`str`, *optional*):
                What an image that cannot be used leads to: with `"raise"`, the default for a single image, a
                `ImageError` (a `ValueError`) that names it; with `"report"`, the default for several, a result of
                `text` and `error` alone in its place, and a warning. A prompt that cannot be used raises, unless it
                is the image's own and errors are reported.
            timeout (`float`, *optional*):
                Seconds to wait for an image from the web.

        Returns:
            For each image a `dict` with `text`, `count` (`float`), `density_map` (array `(height, width)` of float32
            in the image's own size, summing to `count`) and `points` (`[[x, y], ...]` in the image's pixels); a
            list of such for a list of prompts, in their order. A list or tuple of images gives a list, a data set or
            generator an iterator. An image with an EXIF rotation is upright here: sizes and points are those that a
            viewer shows.

        Raises:
            ValueError: If there is no prompt, or an image or prompt cannot be used.
        """
        return super().__call__(inputs, text, **kwargs)

    def _options(
        self,
        window: str | None = None,
        window_batch_size: int | None = None,
        return_density_map: bool = True,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(
                f"Unknown options {', '.join(sorted(kwargs))}: use text, window, window_batch_size, "
                "return_density_map, on_error or timeout."
            )
        if window_batch_size is not None and window_batch_size < 1:
            raise ValueError(f"Expected `window_batch_size` of at least 1, but got {window_batch_size}.")
        return (
            {} if window is None else {"window": window},
            {} if window_batch_size is None else {"window_batch_size": window_batch_size},
            {} if return_density_map else {"return_density_map": False},
        )

    def _prepare(self, image: Image.Image, text: str | list[str], **options: Any) -> dict[str, Any]:
        """Resize one image; tokenise its prompts."""
        prompts = [text] if isinstance(text, str) else list(text)
        model_inputs = self.processor.tokenize(prompts)
        if options.get("window", self.processor.image_processor.window) != "sliding":
            model_inputs.update(self.processor(images=[image], **options))
        else:
            resized = self.processor.image_processor.resize_image(image)
            model_inputs["image"] = resized
            model_inputs["image_sizes"] = torch.tensor([[image.height, image.width, resized.height, resized.width]])
        # Both travel beside the tensors: the prompts as given, and whether a list was asked for.
        return {**model_inputs, "prompts": prompts, "is_list": not isinstance(text, str)}

    def _answer(self, model_inputs: dict[str, Any], window_batch_size: int = 8, **options: Any) -> dict[str, Any]:
        """Look at an image; its windows' maps are put together as they come, so that never all of them are there."""
        text_embeds = self.model.get_text_embeds(model_inputs["input_ids"], model_inputs["attention_mask"])
        if "pixel_values" in model_inputs:  # the whole image in one pass
            density_map = predict_windows(
                self.model, model_inputs["pixel_values"], text_embeds[None], window_batch_size, True
            )[0]
        else:
            image, image_processor = model_inputs["image"], self.processor.image_processor
            offsets = image_processor.window_offsets(image.height, image.width)
            batches = (offsets[i : i + window_batch_size] for i in range(0, len(offsets), window_batch_size))
            cut = (image_processor.cut_windows(image, batch) for batch in batches)
            maps = (
                window_map
                for windows in cut
                for window_map in predict_windows(
                    self.model, windows, text_embeds.expand(len(windows), -1, -1), window_batch_size
                )
            )
            density_map = image_processor.composite(maps, offsets, (image.height, image.width))
        return {
            "density_map": density_map,
            **{name: model_inputs[name] for name in ("image_sizes", "prompts", "is_list")},
        }

    def _finish(self, model_outputs: dict[str, Any], return_density_map: bool = True, **options: Any) -> Any:
        """Put each prompt's map together."""
        results = self.processor.post_process_density(
            model_outputs["density_map"][None],
            torch.zeros(1, 3, dtype=torch.long),  # the whole image, as one window
            model_outputs["image_sizes"],
            original_size=return_density_map,
            text=[model_outputs["prompts"]],
        )[0]
        for result in results:
            density_map = result.pop("density_map")
            if return_density_map:
                result["density_map"] = density_map.numpy()
        return results if model_outputs["is_list"] else results[0]


def predict_windows(
    model: Any,
    pixel_values: torch.Tensor,
    text_embeds: torch.Tensor,
    batch_size: int,
    interpolate_pos_encoding: bool = False,
) -> torch.Tensor:
    """
    Density maps of many windows, with the memory of one batch.

    Args:
        model ([`CLIPCountDensityModel`]): The model.
        pixel_values (`torch.Tensor` of shape `(num_windows, 3, height, width)`): Windows.
        text_embeds (`torch.Tensor` of shape `(num_windows, num_prompts, projection_dim)`): Each window's prompts.
        batch_size (`int`): Maps (windows times prompts) at once. At least one window goes through at once with all its
            prompts; only where these are more than [`MAX_PROMPTS_AT_ONCE`] (and than `batch_size`) are they taken in
            turns, each with a pass through the vision tower.
        interpolate_pos_encoding (`bool`, *optional*, defaults to `False`): Whether the windows are whole images, as
            the processor says. They go through one by one.

    Returns:
        `torch.Tensor` of shape `(num_windows, num_prompts, height, width)`, in float32 on the CPU.
    """
    parameter = next(model.parameters())
    prompts_at_once = min(text_embeds.shape[1], max(batch_size, MAX_PROMPTS_AT_ONCE))
    step = 1 if interpolate_pos_encoding else max(1, batch_size // prompts_at_once)
    options = {"interpolate_pos_encoding": True} if interpolate_pos_encoding else {}
    density_maps = []
    for windows, prompts in zip(pixel_values.split(step), text_embeds.split(step), strict=True):
        windows = windows.to(parameter.device, parameter.dtype)
        maps = [
            model(pixel_values=windows, text_embeds=part, **options).density_map.float().cpu()
            for part in prompts.split(prompts_at_once, dim=1)
        ]
        density_maps.append(torch.cat(maps, dim=1))
    return torch.cat(density_maps)


__all__ = ["ObjectCountingPipeline", "predict_windows"]
