"""Processor of CLIP-Count: images and prompts to tensors, density maps back to images."""

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BatchFeature, ProcessorMixin


Prompts = str | list[str] | list[list[str]]


class CLIPCountDensityProcessor(ProcessorMixin):
    """
    Prepare images and prompts for a [`CLIPCountDensityModel`], and bring its maps back to the images' own size.

    Args:
        image_processor ([`CLIPCountDensityImageProcessorPil`]): Cuts images into windows.
        tokenizer ([`CLIPTokenizer`]): Tokenises prompts.
        num_context_tokens (`int`, *optional*, defaults to 2):
            Positions that the model's learned context takes, which a prompt cannot use.
        max_text_length (`int`, *optional*, defaults to 77): Positions of the text tower.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_context_tokens: int = 2,
        max_text_length: int = 77,
        **kwargs: Any,
    ):
        self.num_context_tokens = num_context_tokens
        self.max_text_length = max_text_length
        super().__init__(image_processor, tokenizer)

    def __call__(
        self, images: Any = None, text: Prompts | None = None, return_tensors: str = "pt", **kwargs: Any
    ) -> BatchFeature:
        """
        Cut images into windows and tokenise their prompts.

        With several prompts for an image, all of them share its one pass through the vision tower:

        ```python
        >>> prompts = [["red apples", "green apples"], ["dogs"]]
        >>> inputs = processor(images, prompts)
        >>> outputs = model(**inputs)
        >>> results = processor.post_process_density(
        ...     outputs, inputs["window_positions"], inputs["image_sizes"], text=prompts
        ... )
        >>> results[0][1]["text"], results[0][1]["count"]  # the green apples of the first image
        ```

        Args:
            images (an image or a list of images, *optional*):
                Paths, URLs, PIL images, arrays or tensors, of any size and mode.
            text (`str`, `list[str]` or `list[list[str]]`, *optional*):
                What to count: one prompt for all images, one for each, or a list of prompts for each, of any lengths.
            return_tensors (`str`, *optional*, defaults to `"pt"`): Type of the tensors.
            kwargs: Options of the image processor, for example `window="whole"`.

        Returns:
            [`BatchFeature`] with `pixel_values` `(num_windows, 3, window_size, window_size)`, `window_positions`
            `(num_windows, 3)` (index of the image, top and left in the resized image) and `image_sizes`
            `(num_images, 4)` (height and width of the upright image, then of the resized one); and with `input_ids`
            and `attention_mask` `(num_windows, sequence_length)`, or a row for each prompt without images.

            With a list of prompts for each image these two are `(num_windows, num_prompts, sequence_length)`, where
            `num_prompts` is that of the image with most; the others repeat their first prompt at the end, whose maps
            `post_process_density(text=...)` drops.

            With `window="whole"`, `pixel_values` are `(num_images, 3, height, width)`, all images must have one
            size after resizing, and `interpolate_pos_encoding` is `True`, as the model needs it.

        Raises:
            ValueError: If there are no inputs, images and prompts do not match in number, or a prompt is empty or too
                long.
            TypeError: If a prompt is not a string.
        """
        if images is None and text is None:
            raise ValueError("Expected images, prompts or both, but got neither.")
        data: dict[str, Any] = {}
        if images is not None:
            data.update(self.image_processor(images, return_tensors=return_tensors, **kwargs))
            if kwargs.get("window", self.image_processor.window) == "whole":
                data["interpolate_pos_encoding"] = True
        if text is not None:
            num_images = None if images is None else len(data["image_sizes"])
            prompts = prompts_of_images(text, num_images)
            nested = not isinstance(text, str) and any(not isinstance(entry, str) for entry in text)
            most = max(map(len, prompts))
            padded = [prompt for own in prompts for prompt in [*own, *own[:1] * (most - len(own))]]
            tokens = self.tokenize(padded, return_tensors=return_tensors)
            if nested:
                tokens = {name: values.reshape(len(prompts), most, -1) for name, values in tokens.items()}
            if images is not None:
                owners = data["window_positions"][:, 0]
                tokens = {name: values[owners] for name, values in tokens.items()}
            data.update(tokens)
        return BatchFeature(data=data)

    @property
    def max_prompt_tokens(self) -> int:
        """Tokens that a prompt may take, start and end of text included."""
        return self.max_text_length - self.num_context_tokens

    def tokenize(self, prompts: list[str], return_tensors: str = "pt") -> dict[str, Any]:
        """
        Tokenise prompts, padded to the longest; `input_ids` and `attention_mask`, `(num_prompts, sequence_length)`.

        Raises:
            ValueError: If a prompt is empty or longer than `max_prompt_tokens`. It is not cut, because the count may
                depend on its end.
            TypeError: If a prompt is not a string.
        """
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise TypeError(f"Expected prompts as strings, but got {prompt!r} of type {type(prompt).__name__}.")
            if not prompt.strip():
                raise ValueError("A prompt is empty: name what to count, for example 'red apples'.")
        tokens = self.tokenizer(prompts, padding=True, return_tensors=return_tensors, verbose=False)
        lengths = tokens["attention_mask"].sum(-1)
        longest = int(lengths.argmax())
        if int(lengths[longest]) > self.max_prompt_tokens:
            context = f" with {self.num_context_tokens} of learned context" if self.num_context_tokens else ""
            raise ValueError(
                f"A prompt takes {int(lengths[longest])} tokens, but only {self.max_prompt_tokens} fit{context}, the "
                f"start and end of text included: shorten {prompts[longest][:60]!r}..."
            )
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    @property
    def model_input_names(self) -> list[str]:
        """Names of what `__call__` returns."""
        return [
            *("pixel_values", "window_positions", "image_sizes", "interpolate_pos_encoding"),
            *("input_ids", "attention_mask"),
        ]

    def post_process_density(
        self,
        outputs: Any,
        window_positions: torch.Tensor,
        image_sizes: torch.Tensor,
        return_points: bool = True,
        original_size: bool = True,
        text: Prompts | None = None,
    ) -> list[Any]:
        """
        Combine the windows' density maps: one map for each image and prompt, in the image's original size.

        Args:
            outputs ([`CLIPCountDensityOutput`] or `torch.Tensor`):
                The model's output for all windows of the images, or its density maps `(num_windows, window_height,
                window_width)` or `(num_windows, num_prompts, window_height, window_width)`.
            window_positions (`torch.LongTensor` of shape `(num_windows, 3)`): From the processor.
            image_sizes (`torch.LongTensor` of shape `(num_images, 4)`): From the processor.
            return_points (`bool`, *optional*, defaults to `True`): Whether to locate the objects.
            original_size (`bool`, *optional*, defaults to `True`):
                Whether maps have the images' original size; otherwise that of the resized images.
            text (`str`, `list[str]` or `list[list[str]]`, *optional*):
                The prompts, as passed to the processor. Each result then has its `text`, and an image with several
                prompts as many results as prompts.

        Returns:
            `list[dict]`, one for each image, with `count` (`float`), `density_map` (`torch.FloatTensor` of shape
            `(height, width)`, objects per pixel of the image, summing to `count`), `points` (`[[x, y], ...]` in
            pixels of the upright image: the strongest peaks of the map, at most as many as the rounded count) and,
            with prompts, `text`. Where the maps have a dimension of prompts, a `list[list[dict]]`: for each image one
            for each prompt, in order.

        Raises:
            ValueError: If the number of maps is not that of the windows or prompts, or a map has negative or
                non-finite values.
        """
        maps = (outputs if isinstance(outputs, torch.Tensor) else outputs["density_map"]).detach().float().cpu()
        window_positions, image_sizes = (torch.as_tensor(x).cpu() for x in (window_positions, image_sizes))
        if maps.dim() not in (3, 4) or len(maps) != len(window_positions):
            raise ValueError(
                f"Expected one density map, or one for each prompt, for each of the {len(window_positions)} windows, "
                f"but got a tensor of shape {tuple(maps.shape)}. Gather the outputs of all batches of windows first."
            )
        _check_density(maps)
        several = maps.dim() == 4
        prompts = None if text is None else prompts_of_images(text, len(image_sizes))
        if prompts is not None and max(map(len, prompts)) != (maps.shape[1] if several else 1):
            raise ValueError(
                f"Expected a density map for each prompt, but an image has {max(map(len, prompts))} prompts and the "
                f"maps have the shape {tuple(maps.shape)}."
            )
        results: list[Any] = []
        for index, sizes in enumerate(image_sizes.tolist()):
            rows = (window_positions[:, 0] == index).nonzero()[:, 0]
            size, scale = tuple(sizes[:2]), [sizes[1] / sizes[3], sizes[0] / sizes[2]]
            offsets = [(top, left) for _, top, left in window_positions[rows].tolist()]
            density_maps = self.image_processor.composite(maps[rows], offsets, tuple(sizes[2:]))
            own = prompts[index] if prompts is not None else [None] * (len(density_maps) if several else 1)
            of_image = []
            for density_map, prompt in zip(density_maps if several else [density_maps], own, strict=False):
                result: dict[str, Any] = {} if prompt is None else {"text": prompt}
                result["count"] = _total(density_map)
                if return_points:
                    # The centre of a pixel is half a pixel from its corner, in both images.
                    result["points"] = ((find_peaks(density_map) + 0.5) * torch.tensor(scale)).tolist()
                result["density_map"] = resize_density(density_map, size) if original_size else density_map
                of_image.append(result)
            results.append(of_image if several else of_image[0])
        return results


def prompts_of_images(text: Prompts, num_images: int | None) -> list[list[str]]:
    """
    The prompts of each image, at least one, from one prompt for all images, one for each, or a list for each.

    Raises:
        ValueError: If there are more or fewer entries than images, or an image has no prompt.
    """
    if isinstance(text, str):
        return [[text]] * (1 if num_images is None else num_images)
    prompts = [list(entry) if isinstance(entry, (list, tuple)) else [entry] for entry in text]
    if num_images is not None and len(prompts) != num_images:
        raise ValueError(
            f"Expected one prompt, or one list of prompts, for each of the {num_images} images, or one string for "
            f"all of them, but got {len(prompts)}. Several prompts for one image are a list in the list: [[...]]."
        )
    if not prompts or not all(prompts):
        raise ValueError("Expected at least one prompt for each image, but got an empty list.")
    return prompts


def _total(density_map: torch.Tensor) -> float:
    """The sum in float64; NumPy, unlike torch, does not copy the whole map."""
    return float(density_map.detach().cpu().numpy().sum(dtype=np.float64))


def _check_density(density_map: torch.Tensor) -> None:
    """Check that values can be objects per pixel."""
    if density_map.numel() and not (density_map.min() >= 0 and density_map.max() < torch.inf):  # also for NaN
        raise ValueError(
            "Expected objects per pixel, but a density map has negative or non-finite values: the weights are broken, "
            "or the map is another model's. If its small negative values mean zero, clip them first: "
            "`density_map.clamp(min=0)`."
        )


def resize_density(density_map: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    Resize a density map `(height, width)` to another height and width, and keep its sum.

    Raises:
        ValueError: If the map has negative or non-finite values.
    """
    _check_density(density_map)
    if tuple(density_map.shape) == tuple(size):
        return density_map
    resized = nn.functional.interpolate(
        density_map[None, None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0, 0]
    total, resized_total = _total(density_map), _total(resized)
    if resized_total <= 0:
        return torch.full_like(resized, total / resized.numel())
    return resized.mul_(total / resized_total)


def find_peaks(density_map: torch.Tensor, radius: int = 3) -> torch.Tensor:
    """
    Positions of the strongest local maxima of a density map, at most as many as the map counts.

    Args:
        density_map (`torch.Tensor` of shape `(height, width)`): Objects per pixel.
        radius (`int`, *optional*, defaults to 3): Pixels around a peak without another one.

    Returns:
        `torch.Tensor` of shape `(num_points, 2)`: x and y, in pixels of the map, strongest first.

    Raises:
        ValueError: If the map has negative or non-finite values.
    """
    _check_density(density_map)
    num_points = round(_total(density_map))
    if num_points <= 0:
        return torch.zeros(0, 2)
    # Two means weight the centre most: they remove single noisy pixels, and leave one maximum in a spot.
    smooth = density_map.detach().float()[None, None]
    for _ in range(2):
        smooth = nn.functional.avg_pool2d(smooth, 3, stride=1, padding=1, count_include_pad=False)
    highest = nn.functional.max_pool2d(smooth, 2 * radius + 1, stride=1, padding=radius)
    rows, columns = ((smooth == highest) & (smooth > 0))[0, 0].nonzero(as_tuple=True)
    order = smooth[0, 0][rows, columns].argsort(descending=True, stable=True)
    # On a plateau, all pixels are equal: the first excludes the others.
    taken = np.zeros(density_map.shape, dtype=bool)
    points: list[list[float]] = []
    for x, y in zip(columns[order].tolist(), rows[order].tolist(), strict=True):
        if len(points) == num_points:
            break
        if not taken[y, x]:
            points.append([x, y])
            taken[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = True
    return torch.tensor(points, dtype=torch.float32).reshape(-1, 2)


__all__ = ["CLIPCountDensityProcessor", "find_peaks", "prompts_of_images", "resize_density"]
