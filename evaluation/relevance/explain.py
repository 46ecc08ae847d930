"""
The relevance of an image's patches and of a caption's tokens for the score of a CLIP.

By Chefer et al., 2021 (https://huggingface.co/papers/2103.15679): in each tower, the attention of every layer is
multiplied by the gradient of the score, averaged over the heads where it is positive, and rolled out over the layers.
The relevance is the row of the class token of the image and of the end-of-text token of the caption. "Teaching CLIP to
Count to Ten" (https://huggingface.co/papers/2302.12066, section 5) explains its models in this way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import tqdm
from numpy.typing import NDArray
from PIL import Image

from count_clip.modeling.images import open_image, to_rgb

from ..benchmarks.countbench import nine_captions
from ..inference.encoding import Encoder, evaluating
from .frames import Frame, input_frame, upsample


SCORES = ("similarity", "margin")
"""The scores that can be explained: the similarity of image and caption, or its margin to other captions."""


@dataclass(frozen=True)
class WordRelevance:
    """
    One word of a caption, with its place in the caption and its share of the relevance of all words (NaN if that is
    0).
    """

    text: str
    start: int
    end: int
    share: float


@dataclass(frozen=True)
class Relevance:
    """The relevance of an image's patches and a caption's tokens for their score."""

    text: str
    score: float
    """The explained score, on the scale of the model's logits."""
    patches: NDArray[np.float32]
    """`(rows, columns)`: the relevance of each patch, not negative, on no particular scale."""
    tokens: NDArray[np.float32]
    """`(num_tokens,)`: the relevance of each token of the text, without start and end tokens."""
    spans: list[tuple[int, int]]
    """The range of each token in the caption."""
    word_of_token: list[int]
    """The word of each token, as the tokenizer splits the caption."""
    frame: Frame
    """The region of the image that the patches cover."""

    def patch_shares(self) -> NDArray[np.float64]:
        """The patches' shares of the relevance, `(rows, columns)`; NaN if it is 0."""
        return _shares(self.patches)

    def token_shares(self) -> NDArray[np.float64]:
        """The tokens' shares of the relevance, `(num_tokens,)`; NaN if it is 0."""
        return _shares(self.tokens)

    def map(self) -> NDArray[np.float32]:
        """The relevance interpolated over the image's pixels, `(height, width)`; 0 where the image was cropped."""
        return upsample(self.patches, self.frame)

    def words(self) -> list[WordRelevance]:
        """The words of the caption in their order, with the summed shares of their tokens."""
        shares = self.token_shares()
        found: list[WordRelevance] = []
        for number in dict.fromkeys(self.word_of_token):
            places = [place for place, word in enumerate(self.word_of_token) if word == number]
            start, end = self.spans[places[0]][0], self.spans[places[-1]][1]
            found.append(WordRelevance(self.text[start:end], start, end, float(shares[places].sum())))
        return found

    def tokens_between(self, start: int, end: int) -> NDArray[np.bool_]:
        """The tokens that overlap a range of the caption, `(num_tokens,)`."""
        return np.array([first < end and last > start for first, last in self.spans], dtype=bool)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON; undefined shares are `None`."""

        def plain(shares: NDArray[np.float64]) -> Any:
            return shares.tolist() if np.isfinite(shares).all() else None

        return {
            "text": self.text,
            "score": self.score,
            "width": self.frame.width,
            "height": self.frame.height,
            "seen_box": [self.frame.left, self.frame.top, self.frame.right, self.frame.bottom],
            "patch_shares": plain(self.patch_shares()),
            "words": [
                {"text": word.text, "start": word.start, "share": None if np.isnan(word.share) else word.share}
                for word in self.words()
            ],
        }


def _shares(values: NDArray[np.float32]) -> NDArray[np.float64]:
    total = values.sum(dtype=np.float64)
    return values / total if total > 0 else np.full(values.shape, np.nan)


def roll_out(
    attentions: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], start_layer: int = 0
) -> torch.Tensor:
    """
    The relevance of each token to each token of a tower, `(batch_size, num_tokens, num_tokens)`, in float32.

    `attentions` and `gradients` (of the score with respect to them) are `(batch_size, num_heads, num_tokens,
    num_tokens)` for each layer. Source: Chefer et al., 2021, eq. 5 and 6 (https://huggingface.co/papers/2103.15679).
    """
    batch_size, _, num_tokens, _ = attentions[0].shape
    rolled = torch.eye(num_tokens, device=attentions[0].device).expand(batch_size, -1, -1)
    for attention, gradient in list(zip(attentions, gradients, strict=True))[start_layer:]:
        layer = (attention.detach().float() * gradient.float()).clamp(min=0).mean(dim=1)  # (B, L, L)
        rolled = rolled + layer @ rolled
    return rolled


class Explainer:
    """
    Explains batches of images and captions, inside of [`evaluating`].

    Raises a `ValueError` for an unknown score or layer, a `TypeError` for a tokenizer without offsets.
    """

    def __init__(self, encoder: Encoder, score: str = "similarity", start_layer: int = 0) -> None:
        if score not in SCORES:
            raise ValueError(f"Expected `score` to be one of {', '.join(SCORES)}, but got {score!r}.")
        self.encoder, self.score = encoder, score
        config = encoder.model.config
        self.start_layers = []
        for tower in (config.vision_config, config.text_config):
            layers = int(tower.num_hidden_layers)
            if not -layers <= start_layer < layers:
                raise ValueError(
                    f"Expected `start_layer` from 0 to {layers - 1}, or from -{layers} to -1 to count from the last "
                    f"layer, but got {start_layer}: the model's towers have "
                    f"{config.vision_config.num_hidden_layers} (images) and {config.text_config.num_hidden_layers} "
                    "(texts) layers."
                )
            self.start_layers.append(start_layer % layers)
        if not getattr(encoder.processor.tokenizer, "is_fast", False):
            raise TypeError(
                f"Expected a fast tokenizer, which returns offsets, but got "
                f"{type(encoder.processor.tokenizer).__name__}. Load it with AutoTokenizer."
            )

    def check_text(self, text: str) -> None:
        """Raise a `ValueError` for a caption that is empty or too long."""
        check_length(self.encoder, text)

    def __call__(
        self, images: Sequence[Image.Image], texts: Sequence[str], wrong_texts: Sequence[Sequence[str]] | None = None
    ) -> list[Relevance]:
        """
        Explain one batch of RGB images with a caption each; for the margin with equally many other captions each.

        Raises a `ValueError` if the score or its gradient is not finite, or the towers have tokens that are neither
        patches nor text.
        """
        encoder = self.encoder
        processor, device = encoder.processor, encoder.device
        with torch.inference_mode(False), torch.enable_grad(), _explainable(encoder.model) as model:
            pixel_values = processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
            tokens = processor.tokenizer(list(texts), padding=True, return_offsets_mapping=True, return_tensors="pt")
            input_ids = tokens["input_ids"].to(device)
            vision = model.get_image_features(
                pixel_values=pixel_values.to(device, encoder.dtype), output_attentions=True
            )
            text = model.get_text_features(
                input_ids=input_ids, attention_mask=tokens["attention_mask"].to(device), output_attentions=True
            )
            grid = [side // int(model.config.vision_config.patch_size) for side in pixel_values.shape[-2:]]
            _check_tokens(vision.attentions, grid[0] * grid[1] + 1, "images")
            _check_tokens(text.attentions, input_ids.shape[1], "texts")
            scores = self._scores(vision.pooler_output, text.pooler_output, wrong_texts)  # (B,)
            if not torch.isfinite(scores).all():
                raise ValueError(_NOT_FINITE)
            # No pair's score depends on another's attention, so one backward pass serves the batch.
            attentions = [*vision.attentions, *text.attentions]
            gradients = torch.autograd.grad(scores.sum(), attentions)
        depth = len(vision.attentions)
        of_patches = roll_out(vision.attentions, gradients[:depth], self.start_layers[0])[:, 0, 1:]
        of_tokens = roll_out(text.attentions, gradients[depth:], self.start_layers[1])
        ends = end_of_text(input_ids, int(model.config.text_config.eos_token_id))
        if not (torch.isfinite(of_patches).all() and torch.isfinite(of_tokens).all()):
            raise ValueError(_NOT_FINITE)
        found = []
        for row, (image, caption) in enumerate(zip(images, texts, strict=True)):
            end = int(ends[row])
            frame = input_frame(
                processor.image_processor, image.size, (pixel_values.shape[-1], pixel_values.shape[-2])
            )
            found.append(
                Relevance(
                    text=caption,
                    score=float(scores[row]),
                    patches=of_patches[row].reshape(grid).cpu().numpy(),
                    tokens=of_tokens[row, end, 1:end].cpu().numpy(),
                    spans=[(int(start), int(stop)) for start, stop in tokens["offset_mapping"][row, 1:end].tolist()],
                    word_of_token=[int(word) for word in tokens.word_ids(row)[1:end]],
                    frame=frame,
                )
            )
        return found

    def _scores(
        self, image_features: torch.Tensor, text_features: torch.Tensor, wrong_texts: Sequence[Sequence[str]] | None
    ) -> torch.Tensor:
        """The explained score of each pair, in float32."""
        image_embeds = torch.nn.functional.normalize(image_features.float(), dim=-1)  # (B, P)
        text_embeds = torch.nn.functional.normalize(text_features.float(), dim=-1)
        scale = self.encoder.model.logit_scale.detach().float().exp()
        logits = (image_embeds * text_embeds).sum(dim=-1) * scale
        if self.score == "similarity":
            return logits
        if wrong_texts is None or len(wrong_texts) != len(logits):
            raise ValueError("The margin needs other captions for each image, as `wrong_texts`.")
        with torch.inference_mode():
            wrong = self.encoder.texts([caption for captions in wrong_texts for caption in captions])
        # Tensors of the inference mode cannot be differentiated; a copy can.
        wrong_embeds = wrong.clone().to(logits.device).unflatten(0, (len(wrong_texts), -1))  # (B, T, P)
        return logits - (wrong_embeds @ image_embeds[:, :, None])[:, :, 0].mul(scale).logsumexp(dim=-1)


_NOT_FINITE = (
    "The model's scores or their gradients are NaN or infinite: its weights are broken, or the dtype is too narrow "
    "(try float32)."
)


@contextmanager
def _explainable(model: Any) -> Iterator[Any]:
    """Make a model return its attention with a gradient, even if its weights are frozen."""
    configs = {"": model.config, "vision_config": model.config.vision_config, "text_config": model.config.text_config}
    before = {name: config._attn_implementation for name, config in configs.items()}
    # The fused kernels return no attention.
    model.set_attn_implementation("eager")

    def with_gradient(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output if output.requires_grad else output.requires_grad_()

    towers = (model.vision_model, model.text_model)
    hooks = [tower.embeddings.register_forward_hook(with_gradient) for tower in towers]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        model.set_attn_implementation({name: how or "eager" for name, how in before.items()})


def _check_tokens(attentions: Any, expected: int, tower: str) -> None:
    """Check that each token is one of the input."""
    lengths = {layer.shape[-1] for layer in attentions or ()}
    if lengths != {expected}:
        raise ValueError(
            f"Expected attention among {expected} tokens in each layer of the tower for {tower}, but got "
            f"{sorted(lengths) or 'none'}. Prompts of an adapter add tokens: merge or disable the "
            "adapter first."
        )


def end_of_text(input_ids: torch.Tensor, eos_token_id: int) -> torch.Tensor:
    """
    The position `(batch_size,)` of the first end-of-text token, where CLIP's text tower is read; old configurations
    have the id 2 and are read at the highest id.
    """
    if eos_token_id == 2:
        return input_ids.argmax(dim=-1)
    return (input_ids == eos_token_id).int().argmax(dim=-1)


def check_length(encoder: Encoder, text: str) -> None:
    """Raise a `ValueError` for a text that is empty or longer than the model's tower reads."""
    if not text.strip():
        raise ValueError("Expected a caption, but the text is empty.")
    length = len(encoder.processor.tokenizer(text)["input_ids"])
    if length > encoder.max_length:
        raise ValueError(
            f"The text has {length} tokens with those for its beginning and end, but the model reads "
            f"{encoder.max_length}: {text[:60]!r}... Shorten it."
        )


def counterfactuals_of(text: str, number: int | None = None) -> list[str]:
    """The eight captions with another number from two to ten than a caption; `number` is the true one of several."""
    true, nine = nine_captions(text, number)
    return [caption for place, caption in enumerate(nine) if place != true - 2]


def explain(
    model: Any,
    processor: Any,
    images: Sequence[Any],
    texts: Sequence[str],
    score: str = "similarity",
    start_layer: int = 0,
    wrong_texts: Sequence[Sequence[str]] | None = None,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> list[Relevance]:
    """
    Explain the scores of images and captions by the relevance of patches and tokens.

    Args:
        model ([`CLIPModel`]): Any CLIP, [`CLIPForCounting`] included. Fused attention kernels are off during the call.
        images (`Sequence`): Images that `open_image` accepts.
        texts (`Sequence[str]`): A caption for each.
        score (`str`, *optional*, defaults to `"similarity"`): `"similarity"` explains the logit of image and
            caption, `"margin"` the log-odds of the caption against those of `wrong_texts`, without what they have in
            common. The tokens' relevance is the same for both.
        start_layer (`int`, *optional*, defaults to 0): The first layer, in both towers: 0 as in the paper, -1 for
            the last layer only.
        wrong_texts (`Sequence[Sequence[str]]`, *optional*): For the margin, equally many other captions for each
            image; by default those with the other numbers from two to ten.
        batch_size (`int`, *optional*, defaults to 8): Pairs at once; the attention of all layers is in memory.
        processor, device, dtype, progress: As in [`evaluate_countbench`].

    Returns:
        `list[Relevance]`: One for each pair.

    Raises:
        ValueError: If images and captions differ in number, a caption is empty, too long or (for the margin) states
            no number, an image cannot be read, an option is out of its range, or the model's scores are not finite.
        TypeError: If the model is not a CLIP.
    """
    if len(images) != len(texts):
        raise ValueError(f"Expected a caption for each image, but got {len(texts)} for {len(images)} images.")
    found: list[Relevance] = []
    with evaluating(model, device, dtype) as (where, precision):
        explainer = Explainer(Encoder(model, processor, where, precision, batch_size), score, start_layer)
        for text in texts:
            explainer.check_text(text)
        if score == "margin" and wrong_texts is None:
            wrong_texts = [counterfactuals_of(text) for text in texts]
        for start in tqdm(range(0, len(images), batch_size), unit="batch", disable=not progress, leave=False):
            batch = slice(start, start + batch_size)
            loaded = [to_rgb(open_image(image)) for image in images[batch]]
            found += explainer(loaded, texts[batch], None if wrong_texts is None else wrong_texts[batch])
    return found


__all__ = [
    "SCORES",
    "Explainer",
    "Relevance",
    "WordRelevance",
    "check_length",
    "counterfactuals_of",
    "end_of_text",
    "explain",
    "roll_out",
]
