"""Processor of CLIP-Count: pictures and prompts to tensors, density maps back to pictures."""

from typing import Any

import torch
from torch import nn
from transformers import BatchFeature, ProcessorMixin


class CLIPCountDensityProcessor(ProcessorMixin):
    """
    Prepare pictures and prompts for a [`CLIPCountDensityModel`], and bring its maps back to the pictures' own size.

    Args:
        image_processor ([`CLIPCountDensityImageProcessorPil`]): Cuts pictures into windows.
        tokenizer ([`CLIPTokenizer`]): Tokenises prompts.
        num_context_tokens (`int`, *optional*, defaults to 2):
            Positions that the model's learned context takes, which a prompt cannot use.
        max_text_length (`int`, *optional*, defaults to 77):
            Positions of the text tower.
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
        self, images: Any = None, text: str | list[str] | None = None, return_tensors: str = "pt", **kwargs: Any
    ) -> BatchFeature:
        """
        Cut pictures into windows and tokenise their prompts.

        Args:
            images (a picture or a list of pictures, *optional*):
                PIL pictures, arrays or tensors, of any size and mode.
            text (`str` or `list[str]`, *optional*):
                What to count: one prompt for each picture, or one for all of them.
            return_tensors (`str`, *optional*, defaults to `"pt"`):
                Kind of the tensors.
            kwargs: Options of the image processor.

        Returns:
            [`BatchFeature`] with, for the pictures, `pixel_values` `(num_windows, 3, window_size, window_size)`,
            `window_positions` `(num_windows, 3)` (index of the picture, top and left in the resized picture) and
            `picture_sizes` `(num_pictures, 4)` (height and width of the picture, then of the resized picture); and
            for the prompts `input_ids` and `attention_mask`, one row for each window, or for each prompt if there are
            no pictures.

        Raises:
            ValueError: If there is nothing to process, if pictures and prompts do not match in number, or if a prompt
                is empty or too long.
        """
        if images is None and text is None:
            raise ValueError("Expected pictures, prompts or both, but got neither.")
        data: dict[str, Any] = {}
        if images is not None:
            data.update(self.image_processor(images, return_tensors=return_tensors, **kwargs))
        if text is not None:
            prompts = [text] if isinstance(text, str) else list(text)
            if images is not None:
                num_pictures = len(data["picture_sizes"])
                if isinstance(text, str):
                    prompts = prompts * num_pictures
                if len(prompts) != num_pictures:
                    raise ValueError(
                        f"Expected one prompt for each of the {num_pictures} pictures, or one string for all of them, "
                        f"but got {len(prompts)} prompts."
                    )
            tokens = self.tokenize(prompts, return_tensors=return_tensors)
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
        Tokenise prompts, padded to the longest.

        Args:
            prompts (`list[str]`): What to count.
            return_tensors (`str`, *optional*, defaults to `"pt"`): Kind of the tensors.

        Returns:
            `dict` with `input_ids` and `attention_mask`, both `(num_prompts, sequence_length)`.

        Raises:
            ValueError: If a prompt is empty or longer than `max_prompt_tokens`.
            TypeError: If a prompt is not a string.
        """
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise TypeError(f"Expected prompts as strings, but got {prompt!r} of type {type(prompt).__name__}.")
            if not prompt.strip():
                raise ValueError("A prompt is empty: name what to count, for example 'red apples'.")
        tokens = self.tokenizer(prompts, padding=True, return_tensors=return_tensors)
        lengths = tokens["attention_mask"].sum(-1)
        longest = int(lengths.argmax())
        if int(lengths[longest]) > self.max_prompt_tokens:
            raise ValueError(
                f"A prompt takes {int(lengths[longest])} tokens, but only {self.max_prompt_tokens} fit: shorten "
                f"{prompts[longest][:60]!r}..."
            )
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    @property
    def model_input_names(self) -> list[str]:
        """Names of what `__call__` returns."""
        return ["pixel_values", "window_positions", "picture_sizes", "input_ids", "attention_mask"]

    def post_process_density(
        self,
        outputs: Any,
        window_positions: torch.Tensor,
        picture_sizes: torch.Tensor,
        return_points: bool = True,
        original_size: bool = True,
    ) -> list[dict[str, Any]]:
        """
        Put the windows' density maps together, one map for each picture, in the picture's own size.

        Args:
            outputs ([`CLIPCountDensityOutput`], or `torch.Tensor` `(num_windows, window_size, window_size)`):
                The model's output for all windows of the pictures, or its density maps alone.
            window_positions (`torch.LongTensor` of shape `(num_windows, 3)`):
                From the processor.
            picture_sizes (`torch.LongTensor` of shape `(num_pictures, 4)`):
                From the processor.
            return_points (`bool`, *optional*, defaults to `True`):
                Whether to look for the objects' positions.
            original_size (`bool`, *optional*, defaults to `True`):
                Whether maps have the pictures' own size; otherwise that of the resized pictures.

        Returns:
            `list[dict]`, one for each picture, with `count` (`float`), `density_map` (`torch.FloatTensor` of shape
            `(height, width)`, objects per pixel of the picture, summing to `count`) and `points` (`[[x, y], ...]` in
            pixels of the picture: the strongest peaks of the map, at most as many as the rounded count).

        Raises:
            ValueError: If the number of maps is not that of the windows, or a map has negative or non-finite values.
        """
        maps = (outputs if isinstance(outputs, torch.Tensor) else outputs["density_map"]).detach().float().cpu()
        window_positions, picture_sizes = (torch.as_tensor(x).cpu() for x in (window_positions, picture_sizes))
        if maps.dim() != 3 or len(maps) != len(window_positions):
            raise ValueError(
                f"Expected one density map for each of the {len(window_positions)} windows, but got a tensor of shape "
                f"{tuple(maps.shape)}. Gather the outputs of all batches of windows first."
            )
        if not torch.isfinite(maps).all() or (maps < 0).any():
            raise ValueError(
                "A density map has negative or non-finite values: it is not this model's, or its weights are broken."
            )
        results = []
        for index, (height, width, new_height, new_width) in enumerate(picture_sizes.tolist()):
            rows = (window_positions[:, 0] == index).nonzero()[:, 0]
            offsets = [(top, left) for _, top, left in window_positions[rows].tolist()]
            density_map = self.image_processor.composite(maps[rows], offsets, (new_height, new_width))
            result: dict[str, Any] = {"count": float(density_map.sum(dtype=torch.float64))}
            if return_points:
                points = find_peaks(density_map)
                scale = torch.tensor([width / new_width, height / new_height])
                result["points"] = ((points + 0.5) * scale).tolist()
            if original_size:
                density_map = resize_density(density_map, (height, width))
            result["density_map"] = density_map
            results.append(result)
        return results


def resize_density(density_map: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """
    Resize a density map and keep its sum.

    Args:
        density_map (`torch.Tensor` of shape `(height, width)`): Objects per pixel.
        size (`tuple[int, int]`): New height and width.

    Returns:
        `torch.Tensor` of shape `size`, with the sum of `density_map`.
    """
    if tuple(density_map.shape) == tuple(size):
        return density_map
    resized = nn.functional.interpolate(
        density_map[None, None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0, 0]
    total, resized_total = density_map.sum(dtype=torch.float64), resized.sum(dtype=torch.float64)
    if resized_total <= 0:
        return torch.full_like(resized, float(total) / resized.numel())
    return resized * (total / resized_total).to(resized.dtype)


def find_peaks(density_map: torch.Tensor, radius: int = 3) -> torch.Tensor:
    """
    Positions of the strongest local maxima of a density map, at most as many as the map counts.

    Args:
        density_map (`torch.Tensor` of shape `(height, width)`): Objects per pixel.
        radius (`int`, *optional*, defaults to 3): Pixels around a peak in which no other may be.

    Returns:
        `torch.Tensor` of shape `(num_points, 2)`: x and y, in pixels of the map, strongest first.
    """
    num_points = round(float(density_map.sum(dtype=torch.float64)))
    if num_points <= 0:
        return torch.zeros(0, 2)
    # Two means in a row weigh the middle most: they drop single noisy pixels and leave a spot one top.
    smooth = density_map[None, None]
    for _ in range(2):
        smooth = nn.functional.avg_pool2d(smooth, 3, stride=1, padding=1, count_include_pad=False)
    highest = nn.functional.max_pool2d(smooth, 2 * radius + 1, stride=1, padding=radius)
    rows, columns = ((smooth == highest) & (smooth > 0))[0, 0].nonzero(as_tuple=True)
    order = smooth[0, 0][rows, columns].argsort(descending=True, stable=True)
    # On a flat top every pixel is as high as any other: the first one found keeps the rest away.
    taken = torch.zeros(density_map.shape, dtype=torch.bool)
    points: list[list[float]] = []
    for x, y in zip(columns[order].tolist(), rows[order].tolist(), strict=True):
        if len(points) == num_points:
            break
        if not taken[y, x]:
            points.append([x, y])
            taken[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = True
    return torch.tensor(points, dtype=torch.float32).reshape(-1, 2)


__all__ = ["CLIPCountDensityProcessor", "find_peaks", "resize_density"]
