"""`pipeline("object-counting")`: count what a prompt names in images of any size."""

from typing import Any

from .counting_engine import Counted, DensityCounter
from .optimization_cpu import optimize_for_cpu
from .pipeline_images import ImagePipeline


class ObjectCountingPipeline(ImagePipeline):
    """
    Count objects with a [`CLIPCountDensityModel`].

    Args:
        optimize (`bool`, *optional*, defaults to `True`):
            Whether to replace modules of the model by faster ones for CPUs; see [`optimize_for_cpu`].
        args, kwargs: As for every `Pipeline`.

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

    option_names = ("window", "window_batch_size", "return_density_map")

    def __init__(self, *args: Any, optimize: bool = True, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if optimize:
            optimize_for_cpu(self.model)

    def __call__(self, inputs: Any, text: str | list[str] | None = None, **kwargs: Any) -> Any:
        """
        Count in one image or in several.

        Args:
            inputs (`str`, `PIL.Image.Image`, array, `dict`, or a list, tuple, data set or generator of these):
                Images: paths, URLs, PIL images, arrays or tensors; or dictionaries with `image` and `text`.
            text (`str` or `list[str]`, *optional*):
                What to count in images without their own `text`. With a list, every prompt is counted in each image,
                with one pass through the vision tower.
            window_batch_size (`int`, *optional*, defaults to 8), window (`str`, *optional*):
                As `batch_size` and `window` of [`DensityCounter`]. The memory grows with the first, and not with the
                images. `batch_size` has no effect here.
            return_density_map (`bool`, *optional*, defaults to `True`):
                Whether results have their `density_map`, four bytes a pixel.
            on_error (`str`, *optional*):
                For an image that cannot be used, `"raise"`, the default for a single image, raises an `ImageError` (a
                `ValueError`); `"report"`, the default for several, returns `{"text", "error"}` and logs a warning. A
                prompt that cannot be used raises an error, unless it is the image's own and errors are reported.
            timeout (`float`, *optional*): Seconds to wait for an image from the web.

        Returns:
            For each image a `dict` with `text`, `count` (`float`), `density_map` (array `(height, width)` of float32
            in the image's own size, summing to `count`) and `points` (`[[x, y], ...]` in the image's pixels); for a
            list of prompts a list of these, in the same order. A list or tuple of images gives a list, a data set or
            generator an iterable that reads at most a batch ahead. EXIF rotation is applied to all sizes and points.

        Raises:
            ValueError: If there is no prompt, or an image or prompt cannot be used.
        """
        return super().__call__(inputs, text, **kwargs)

    def _counter(
        self, window: str | None = None, window_batch_size: int = 8, return_density_map: bool = True
    ) -> DensityCounter:
        return DensityCounter(
            self.model, self.processor, window_batch_size, window, return_density_map=return_density_map
        )

    def _write(self, counted: Counted) -> Any:
        return counted.results[0] if isinstance(counted.tag.text, str) else counted.results


__all__ = ["ObjectCountingPipeline"]
