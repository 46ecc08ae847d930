"""CLIP with a counting loss, after "Teaching CLIP to Count to Ten" (https://huggingface.co/papers/2302.12066)."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import CLIPOutput
from transformers.utils.generic import can_return_tuple

from .configuration_count_clip import CountCLIPConfig


@dataclass
class CLIPForCountingOutput(CLIPOutput):
    """
    Output of a [`CLIPForCounting`]: that of a [`CLIPModel`], and the two terms of the loss.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*, returned with `return_loss=True`):
            `contrastive_loss + counting_loss_weight * counting_loss`, in nats.
        contrastive_loss (`torch.Tensor` of shape `()`, *optional*, returned with `return_loss=True`):
            CLIP's symmetric cross-entropy over the batch.
        counting_loss (`torch.Tensor` of shape `()`, *optional*, returned with `return_loss=True`):
            Mean over the counting rows, each times its weight where they have weights; 0 where the batch has none.
        counterfactual_embeds (`torch.Tensor` of shape `(num_counting, num_counterfactuals, projection_dim)`,
            *optional*): Unit-norm embeddings of the wrong captions.
    """

    contrastive_loss: torch.Tensor | None = None
    counting_loss: torch.Tensor | None = None
    counterfactual_embeds: torch.Tensor | None = None


class _GatherWithGradient(torch.autograd.Function):
    """Concatenate the tensors of all processes, in rank order; each gets back the gradient of its own rows."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, tensor.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        # Every process computed the whole loss, so the sum over processes is world_size times the true gradient, and
        # the average that data parallelism takes over processes afterwards divides by world_size again.
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def image_text_contrastive_loss(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, logit_scale: torch.Tensor, gather_embeds: bool = False
) -> torch.Tensor:
    """
    CLIP's symmetric cross-entropy of images and captions over the batch.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): Unit-norm image embeddings.
        text_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`):
            Unit-norm caption embeddings; row `i` belongs to image `i`.
        logit_scale (`torch.Tensor` of shape `()`): Factor of the cosine similarities.
        gather_embeds (`bool`, *optional*, defaults to `False`):
            Whether to gather the batches of all processes, which must have the same number of rows.

    Returns:
        `torch.Tensor` of shape `()`: Mean loss in nats; `log(batch_size)` is chance.

    Source:
        Radford et al., 2021, Fig. 3 (https://huggingface.co/papers/2103.00020).
    """
    if gather_embeds and _is_distributed():
        image_embeds, text_embeds = _GatherWithGradient.apply(torch.stack([image_embeds, text_embeds], dim=1)).unbind(
            1
        )
    logits = _similarities(text_embeds, image_embeds.t()) * logit_scale.float()  # (T, B)
    targets = torch.arange(len(logits), device=logits.device)
    return (nn.functional.cross_entropy(logits, targets) + nn.functional.cross_entropy(logits.t(), targets)) / 2


def counting_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    counterfactual_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float = 1.0,
    gather_embeds: bool = False,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Cross-entropy of the true caption against the captions with wrong numbers.

    Args:
        image_embeds (`torch.Tensor` of shape `(num_counting, projection_dim)`):
            Unit-norm embeddings of the images whose captions count; there may be none.
        text_embeds (`torch.Tensor` of shape `(num_counting, projection_dim)`):
            Unit-norm embeddings of the true captions; row `i` belongs to image `i`.
        counterfactual_embeds (`torch.Tensor` of shape `(num_counting, num_counterfactuals, projection_dim)`):
            Unit-norm embeddings of the same captions with other numbers.
        logit_scale (`torch.Tensor` of shape `()` or `float`, *optional*, defaults to 1.0):
            Factor of the cosine similarities.
        gather_embeds (`bool`, *optional*, defaults to `False`):
            Whether the mean is over the counting rows of all processes, which may have different numbers of them.
        weights (`torch.Tensor` of shape `(num_counting,)`, *optional*):
            Factors of the rows' losses, by default 1; their mean over the training set should be 1.

    Returns:
        `torch.Tensor` of shape `()`: Mean loss in nats, 0 without counting rows; `log(1 + num_counterfactuals)` is
        chance.

    Raises:
        ValueError: If the shapes do not match.

    Source:
        Paiss et al., 2023, Sec. 3.2, eq. 1 (https://huggingface.co/papers/2302.12066), with one counterfactual;
        several share the denominator here.
    """
    num_counting = len(image_embeds)
    if image_embeds.shape != text_embeds.shape or len(counterfactual_embeds) != num_counting:
        raise ValueError(
            "Expected one true caption and one list of wrong captions for each counting image, but got shapes "
            f"{tuple(image_embeds.shape)} (images), {tuple(text_embeds.shape)} (true captions) and "
            f"{tuple(counterfactual_embeds.shape)} (wrong captions). `counting_mask` must be true for exactly the "
            "rows of `counterfactual_input_ids`."
        )
    if weights is not None and weights.shape != (num_counting,):
        raise ValueError(
            f"Expected one weight for each of the {num_counting} counting rows, but got the shape "
            f"{tuple(weights.shape)}. Leave `counting_weights` out to give all rows the same."
        )
    captions = torch.cat([text_embeds[:, None], counterfactual_embeds], dim=1)  # (B, 1 + C, P)
    logits = _similarities(captions, image_embeds[:, :, None])[:, :, 0] * logit_scale
    losses = -logits.log_softmax(dim=-1)[:, 0]  # (B,)
    if weights is not None:
        losses = losses * weights.to(losses)
    # Without rows, a mean is NaN, and a sum is a zero with a gradient.
    total = losses.sum()
    if gather_embeds and _is_distributed():
        # Data parallelism averages over processes; this makes that average the mean over all counting rows.
        count = torch.tensor(num_counting, dtype=torch.float32, device=logits.device)
        dist.all_reduce(count)
        return total * dist.get_world_size() / count.clamp(min=1)
    return total / max(num_counting, 1)


class CLIPForCounting(CLIPModel):
    """
    A CLIP that is trained to prefer the caption with the right number of objects.

    It is a [`CLIPModel`] with the same parameters under the same names: a CLIP checkpoint loads into it, and its
    checkpoints load into a [`CLIPModel`].

    Args:
        config ([`CountCLIPConfig`]): Sizes of the towers and the weight of the counting loss.

    Example:

    ```python
    >>> import count_clip
    >>> from transformers import AutoModel, AutoProcessor

    >>> model = AutoModel.from_pretrained("org/count-clip")
    >>> processor = AutoProcessor.from_pretrained("org/count-clip")
    >>> captions = ["a photo of three dogs", "a photo of four dogs"]
    >>> outputs = model(**processor(images=image, text=captions))
    >>> probs = outputs.logits_per_image.softmax(dim=-1)
    ```

    Source:
        Paiss et al., 2023 (https://huggingface.co/papers/2302.12066).
    """

    config: CountCLIPConfig
    config_class = CountCLIPConfig
    # The batch is the unit of a contrastive loss: it must not be divided by a number of items.
    accepts_loss_kwargs = False

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings of the text tower."""
        return self.text_model.embeddings.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the text tower."""
        self.text_model.embeddings.token_embedding = value

    def encode_image(self, pixel_values: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """
        Unit-norm image embeddings.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`):
                Images as the processor prepares them.

        Returns:
            `torch.Tensor` of shape `(batch_size, projection_dim)`.
        """
        return _normalise(self.get_image_features(pixel_values, **kwargs).pooler_output)

    def encode_text(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """
        Unit-norm text embeddings.

        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): Token ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding.

        Returns:
            `torch.Tensor` of shape `(batch_size, projection_dim)`.
        """
        return _normalise(self.get_text_features(input_ids, attention_mask=attention_mask, **kwargs).pooler_output)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        counterfactual_input_ids: torch.Tensor | None = None,
        counterfactual_attention_mask: torch.Tensor | None = None,
        counting_mask: torch.Tensor | None = None,
        counting_weights: torch.Tensor | None = None,
        gather_embeds: bool = False,
        gradient_cache_chunk_size: int | None = None,
        **kwargs: Any,
    ) -> CLIPForCountingOutput:
        """
        Score captions against images and compute the losses; the arguments of [`CLIPModel`], then those of training.

        Captions and counterfactuals share one pass through the text encoder.

        Args:
            input_ids (`torch.LongTensor` of shape `(text_batch_size, sequence_length)`): Tokens of the captions.
            pixel_values (`torch.Tensor` of shape `(image_batch_size, num_channels, height, width)`):
                Images as the processor prepares them.
            attention_mask (`torch.Tensor` of shape `(text_batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(text_batch_size, sequence_length)`, *optional*):
                Positions of the captions' tokens; not together with counterfactuals.
            return_loss (`bool`, *optional*):
                Whether to compute the losses; row `i` of the captions must then belong to image `i`.
            interpolate_pos_encoding (`bool`, *optional*, defaults to `False`):
                Whether to accept images of another size than the vision tower was built for.
            counterfactual_input_ids (`torch.LongTensor` of shape `(num_counting, num_counterfactuals, length)`,
                *optional*): Tokens of the captions with wrong numbers, in the order of the counting rows.
                `num_counting` may be 0.
            counterfactual_attention_mask (`torch.Tensor` of the same shape, *optional*): 1 for tokens, 0 for padding.
            counting_mask (`torch.BoolTensor` of shape `(batch_size,)`, *optional*):
                Which rows count; by default all if there are counterfactuals.
            counting_weights (`torch.Tensor` of shape `(num_counting,)`, *optional*):
                Weights of the counting rows in the counting loss; by default all are 1.
            gather_embeds (`bool`, *optional*, defaults to `False`):
                Whether the losses are those of the batches of all processes.
            gradient_cache_chunk_size (`int`, *optional*):
                Images, then captions, to encode at a time; the backward pass encodes each chunk again, with the same
                dropout. Losses and gradients are those of the whole batch, the memory is that of one chunk, and the
                time that of another forward pass. The towers' outputs are not returned.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, and arguments of the towers' attention.

        Returns:
            [`CLIPForCountingOutput`].

        Raises:
            ValueError: If images or captions are missing, the counting rows and the counterfactuals do not match, or
                the size of the chunks is below 1.
        """
        if gradient_cache_chunk_size is not None and gradient_cache_chunk_size < 1:
            raise ValueError(
                f"`gradient_cache_chunk_size` must be at least 1, but got {gradient_cache_chunk_size}. Leave it out "
                "to encode the whole batch at once."
            )
        if input_ids is None or pixel_values is None:
            missing = " and ".join(
                name for name, value in (("input_ids", input_ids), ("pixel_values", pixel_values)) if value is None
            )
            raise ValueError(
                f"Expected images and captions, but {missing} is missing. Use `get_image_features` or "
                "`get_text_features` for one of them alone."
            )
        if counterfactual_input_ids is not None and len(counterfactual_input_ids) == 0:
            counterfactual_input_ids = None
        if counterfactual_input_ids is not None and position_ids is not None:
            raise ValueError(
                "`position_ids` cannot be combined with `counterfactual_input_ids`: the captions are encoded "
                "together and share the default positions. Leave `position_ids` out."
            )
        image_embeds, vision_outputs = self._embed(
            lambda pixels: self.get_image_features(
                pixels, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs
            ),
            (pixel_values,),
            gradient_cache_chunk_size,
            gather_embeds,
        )

        num_texts = input_ids.shape[0]  # an exporter records `len` as a constant
        if counterfactual_input_ids is not None:
            input_ids, attention_mask = self._append_counterfactuals(
                input_ids, attention_mask, counterfactual_input_ids, counterfactual_attention_mask
            )
        text_embeds, text_outputs = self._embed(
            lambda ids, mask, positions: self.get_text_features(
                ids, attention_mask=mask, position_ids=positions, **kwargs
            ),
            (input_ids, attention_mask, position_ids),
            gradient_cache_chunk_size,
            gather_embeds,
        )  # (T + K * C, P)
        counterfactual_embeds = None
        if counterfactual_input_ids is not None:
            counterfactual_embeds = text_embeds[num_texts:].unflatten(0, counterfactual_input_ids.shape[:2])
            text_embeds = text_embeds[:num_texts]

        logit_scale = self.logit_scale.exp()
        logits_per_text = _similarities(text_embeds, image_embeds.t()) * logit_scale.float()
        losses = {}
        if return_loss:
            losses = self._losses(
                image_embeds,
                text_embeds,
                counterfactual_embeds,
                logit_scale,
                counting_mask=counting_mask,
                counting_weights=counting_weights,
                gather_embeds=gather_embeds,
            )
        return CLIPForCountingOutput(
            **losses,
            logits_per_image=logits_per_text.t(),
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            counterfactual_embeds=counterfactual_embeds,
            text_model_output=text_outputs,
            vision_model_output=vision_outputs,
        )

    @staticmethod
    def _embed(
        encode: Callable[..., Any],
        inputs: tuple[torch.Tensor | None, ...],
        chunk_size: int | None,
        gather_embeds: bool,
    ) -> tuple[torch.Tensor, Any]:
        """Unit-norm embeddings of a batch, in one pass or in chunks, and in the first case the tower's output."""
        if chunk_size is None:
            outputs = encode(*inputs)
            return _normalise(outputs.pooler_output), outputs

        def embed(*chunk: torch.Tensor | None) -> torch.Tensor:
            return _normalise(encode(*chunk).pooler_output)

        # Gao et al., 2021 (https://huggingface.co/papers/2101.06983): embeddings without a graph, the loss and its
        # gradient at the embeddings, then each chunk again with a graph. A checkpoint around each chunk does this in
        # one backward pass, with the random state and precision of the forward pass; data parallelism sums gradients
        # once.
        num_rows = len(next(tensor for tensor in inputs if tensor is not None))
        num_chunks = torch.tensor(-(-num_rows // chunk_size))
        if gather_embeds and _is_distributed():
            # With FSDP, all processes must run the same number of passes.
            num_chunks = num_chunks.to(next(tensor.device for tensor in inputs if tensor is not None))
            dist.all_reduce(num_chunks, op=dist.ReduceOp.MAX)
        bounds = [num_rows * place // int(num_chunks) for place in range(int(num_chunks) + 1)]
        parts = []
        for start, end in itertools.pairwise(bounds):
            # If other processes have more chunks than this one has rows, a row is encoded and dropped.
            first = min(start, num_rows - 1)
            chunk = [None if tensor is None else tensor[first : max(end, first + 1)] for tensor in inputs]
            parts.append(checkpoint(embed, *chunk, use_reentrant=False)[: end - start])
        return torch.cat(parts), None

    def _append_counterfactuals(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        counterfactual_input_ids: torch.Tensor,
        counterfactual_attention_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Concatenate captions and counterfactuals, padded to one length."""
        if counterfactual_input_ids.dim() != 3:
            raise ValueError(
                "`counterfactual_input_ids` must have the shape (counting rows, wrong captions each, length), but got "
                f"{tuple(counterfactual_input_ids.shape)}."
            )
        wrong_ids = counterfactual_input_ids.flatten(0, 1)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if counterfactual_attention_mask is None:
            wrong_mask = torch.ones_like(wrong_ids)
        else:
            wrong_mask = counterfactual_attention_mask.flatten(0, 1)
        length = max(input_ids.shape[1], wrong_ids.shape[1])
        # The value under the mask is never attended to, and the text is read at the first end-of-text token.
        pad_id = self.config.text_config.pad_token_id or 0
        ids = [nn.functional.pad(x, (0, length - x.shape[1]), value=pad_id) for x in (input_ids, wrong_ids)]
        masks = [nn.functional.pad(x, (0, length - x.shape[1]), value=0) for x in (attention_mask, wrong_mask)]
        return torch.cat(ids), torch.cat(masks)

    def _losses(
        self,
        image_embeds: torch.Tensor,
        text_embeds: torch.Tensor,
        counterfactual_embeds: torch.Tensor | None,
        logit_scale: torch.Tensor,
        *,
        counting_mask: torch.Tensor | None,
        counting_weights: torch.Tensor | None,
        gather_embeds: bool,
    ) -> dict[str, torch.Tensor]:
        """The loss and its two terms, by the names of the output's fields."""
        num_rows = len(text_embeds)
        if len(image_embeds) != num_rows:
            raise ValueError(
                f"The loss needs one caption for each image, but got {len(image_embeds)} images and "
                f"{num_rows} captions. Leave `return_loss` out to score many captions against an image."
            )
        if counting_mask is None:
            has_counterfactuals = counterfactual_embeds is not None
            counting_mask = torch.full((num_rows,), has_counterfactuals, device=text_embeds.device)
        if counting_mask.shape != (num_rows,):
            raise ValueError(
                f"`counting_mask` must have one entry for each of the {num_rows} rows, but has the shape "
                f"{tuple(counting_mask.shape)}."
            )
        counting_mask = counting_mask.bool()
        if counterfactual_embeds is None:
            counterfactual_embeds = text_embeds.new_zeros((0, 1, text_embeds.shape[-1]))
        scale = logit_scale.float() if self.config.counting_logit_scale == "learned" else 1.0
        contrastive = image_text_contrastive_loss(image_embeds, text_embeds, logit_scale, gather_embeds)
        counting = counting_loss(
            image_embeds[counting_mask],
            text_embeds[counting_mask],
            counterfactual_embeds,
            scale,
            gather_embeds,
            counting_weights,
        )
        loss = contrastive + self.config.counting_loss_weight * counting
        return {"loss": loss, "contrastive_loss": contrastive, "counting_loss": counting}


def _similarities(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Matrix product in float32, also under autocast: half precision cannot separate similar captions."""
    with torch.autocast(device_type=left.device.type, enabled=False):
        return left.float() @ right.float()


def _normalise(embeds: torch.Tensor) -> torch.Tensor:
    return embeds / embeds.norm(p=2, dim=-1, keepdim=True)


__all__ = ["CLIPForCounting", "CLIPForCountingOutput", "counting_loss"]
