"""
Which patches of an image and which tokens of its caption made a CLIP's score.

After Chefer et al., 2021 (https://huggingface.co/papers/2103.15679): in each tower the attention of every layer is
weighted with the gradient of the score, averaged over the heads where it is positive, and rolled out over the layers.
What the class token of the image and the end-of-text token of the caption have gathered from the others by then is
their relevance. "Teaching CLIP to Count to Ten" (https://huggingface.co/papers/2302.12066, section 5) looks at its
models in this way.
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
"""What can be explained: how similar image and caption are, or how much more similar than captions that state other
numbers."""


@dataclass(frozen=True)
class WordRelevance:
    """One word of a caption."""

    text: str
    """As it stands in the caption."""
    start: int
    """Where it begins in the caption."""
    end: int
    """Where it ends."""
    share: float
    """Its part of the relevance of all words; NaN if that is 0."""


@dataclass(frozen=True)
class Relevance:
    """What made the score of one image and one caption."""

    text: str
    """The caption."""
    score: float
    """What is explained, on the scale of the model's logits."""
    patches: NDArray[np.float32]
    """`(rows, columns)`: the relevance of each patch, none below zero; the size of the numbers means nothing."""
    tokens: NDArray[np.float32]
    """`(num_tokens,)`: the relevance of each token of the text, without those for its beginning and its end."""
    spans: list[tuple[int, int]]
    """Where each token stands in the caption."""
    word_of_token: list[int]
    """Which word each token belongs to, as the tokenizer divides the caption into words."""
    frame: Frame
    """The part of the image that the patches divide."""

    def patch_shares(self) -> NDArray[np.float64]:
        """Each patch's part of the relevance of all, `(rows, columns)`; NaN if that is 0."""
        return _shares(self.patches)

    def token_shares(self) -> NDArray[np.float64]:
        """Each token's part of the relevance of all, `(num_tokens,)`; NaN if that is 0."""
        return _shares(self.tokens)

    def map(self) -> NDArray[np.float32]:
        """The relevance over the image's own pixels, `(height, width)`; 0 where the model did not look."""
        return upsample(self.patches, self.frame)

    def words(self) -> list[WordRelevance]:
        """The words of the caption in their order, each with the shares of its tokens added up."""
        shares = self.token_shares()
        found: list[WordRelevance] = []
        for number in dict.fromkeys(self.word_of_token):
            places = [place for place, word in enumerate(self.word_of_token) if word == number]
            start, end = self.spans[places[0]][0], self.spans[places[-1]][1]
            found.append(WordRelevance(self.text[start:end], start, end, float(shares[places].sum())))
        return found

    def tokens_between(self, start: int, end: int) -> NDArray[np.bool_]:
        """Which tokens stand, at least with a part, between two places of the caption, `(num_tokens,)`."""
        return np.array([first < end and last > start for first, last in self.spans], dtype=bool)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, for JSON; shares that are not defined are `None`."""

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
    Follow through the layers of one tower what each token has gathered from each other.

    Args:
        attentions (`Sequence[torch.Tensor]` of shape `(batch_size, num_heads, num_tokens, num_tokens)`):
            The attention of each layer, the first layer first.
        gradients (`Sequence[torch.Tensor]` of the same shapes):
            The gradient of the score with respect to them.
        start_layer (`int`, *optional*, defaults to 0):
            Layers before this one are left out.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_tokens, num_tokens)` in float32: Row `i` says how relevant each token
        is to token `i`; the identity where there are no layers.

    Source:
        Chefer et al., 2021, eq. 5 and 6 (https://huggingface.co/papers/2103.15679), for self-attention.
    """
    batch_size, _, num_tokens, _ = attentions[0].shape
    rolled = torch.eye(num_tokens, device=attentions[0].device).expand(batch_size, -1, -1)
    for attention, gradient in list(zip(attentions, gradients, strict=True))[start_layer:]:
        layer = (attention.detach().float() * gradient.float()).clamp(min=0).mean(dim=1)  # (B, L, L)
        rolled = rolled + layer @ rolled
    return rolled


class Explainer:
    """
    Explains pairs of an image and a caption, a batch at a time, inside of `evaluating`.

    Args:
        encoder ([`Encoder`]): The model and its processor.
        score (`str`, *optional*, defaults to `"similarity"`): One of `SCORES`.
        start_layer (`int`, *optional*, defaults to 0): Attention before this layer is left out, in both towers; -1
            takes the last layer alone.

    Raises:
        ValueError: If there is no such score, or no such layer.
        TypeError: If the tokenizer does not say where its tokens stand.
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
                f"Expected a tokenizer that says where its tokens stand in the text, but "
                f"{type(encoder.processor.tokenizer).__name__} does not. Load it with AutoTokenizer."
            )

    def check_text(self, text: str) -> None:
        """
        Refuse a caption that cannot be explained.

        Raises:
            ValueError: If it is empty or longer than the text tower reads.
        """
        check_length(self.encoder, text)

    def __call__(
        self, images: Sequence[Image.Image], texts: Sequence[str], wrong_texts: Sequence[Sequence[str]] | None = None
    ) -> list[Relevance]:
        """
        Explain one batch.

        Args:
            images (`Sequence[PIL.Image.Image]`): RGB images.
            texts (`Sequence[str]`): A caption for each.
            wrong_texts (`Sequence[Sequence[str]]`, *optional*): For the margin, equally many other captions for each.

        Returns:
            `list[Relevance]`: One for each pair.

        Raises:
            ValueError: If the score or its gradient is not finite, or the towers have tokens that are neither patches
                nor text.
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
        """What is explained, of each pair, in float32."""
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
        # Made in inference mode, they could not be part of what is differentiated; a copy can.
        wrong_embeds = wrong.clone().to(logits.device).unflatten(0, (len(wrong_texts), -1))  # (B, T, P)
        return logits - (wrong_embeds @ image_embeds[:, :, None])[:, :, 0].mul(scale).logsumexp(dim=-1)


_NOT_FINITE = (
    "The model's scores or their gradients are NaN or infinite: its weights are broken, or the dtype is too narrow "
    "for it (try float32)."
)


@contextmanager
def _explainable(model: Any) -> Iterator[Any]:
    """Have a model give its attention, and a gradient for it even where all of its weights are frozen."""
    configs = {"": model.config, "vision_config": model.config.vision_config, "text_config": model.config.text_config}
    before = {name: config._attn_implementation for name, config in configs.items()}
    # The fused kernels never hold the attention that is asked for here.
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
    """The roll-out has to know what each token is."""
    lengths = {layer.shape[-1] for layer in attentions or ()}
    if lengths != {expected}:
        raise ValueError(
            f"Expected attention among {expected} tokens in each layer of the tower for {tower}, but got "
            f"{sorted(lengths) or 'none'}. Prompts of an adapter add tokens that are no part of the input: merge or "
            "disable the adapter first."
        )


def end_of_text(input_ids: torch.Tensor, eos_token_id: int) -> torch.Tensor:
    """
    Where CLIP's text tower reads each text.

    Args:
        input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): Token ids.
        eos_token_id (`int`): The configuration's; 2 in old configurations, whose towers read at the highest id.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`: The position of the first end-of-text token.
    """
    if eos_token_id == 2:
        return input_ids.argmax(dim=-1)
    return (input_ids == eos_token_id).int().argmax(dim=-1)


def check_length(encoder: Encoder, text: str) -> None:
    """
    Refuse a text that the tower would not read to its end.

    Args:
        encoder ([`Encoder`]): The model and its processor.
        text (`str`): The text.

    Raises:
        ValueError: If it is empty or too long.
    """
    if not text.strip():
        raise ValueError("Expected a caption, but the text is empty.")
    length = len(encoder.processor.tokenizer(text)["input_ids"])
    if length > encoder.max_length:
        raise ValueError(
            f"The text has {length} tokens with those for its beginning and end, but the model reads "
            f"{encoder.max_length}: {text[:60]!r}... Shorten it."
        )


def counterfactuals_of(text: str, number: int | None = None) -> list[str]:
    """
    The eight captions that state another number than a caption does.

    Args:
        text (`str`): A caption that states a number of objects as a word from two to ten.
        number (`int`, *optional*): The true number, where the caption states several.

    Returns:
        `list[str]`: The captions with each other number from two to ten in its place.

    Raises:
        ValueError: If the caption states no such number.
    """
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
    Say which patches and which tokens made the scores of pairs of an image and a caption.

    Args:
        model ([`CLIPModel`]): Any CLIP, [`CLIPForCounting`] included. Its attention is computed without fused kernels
            meanwhile.
        processor ([`CLIPProcessor`] or [`CountCLIPProcessor`]): The model's processor.
        images (`Sequence`): Images as `open_image` takes them.
        texts (`Sequence[str]`): A caption for each.
        score (`str`, *optional*, defaults to `"similarity"`): `"similarity"` explains the logit of image and
            caption. `"margin"` explains the log-odds of the caption against the others of `wrong_texts`, so that what
            all of them say alike drops out of the patches' relevance. That of the tokens is the same for both: the
            other captions do not depend on the tokens of this one.
        start_layer (`int`, *optional*, defaults to 0): Attention before this layer is left out, in both towers. 0 is
            the paper's rule; -1 takes the last layer alone.
        wrong_texts (`Sequence[Sequence[str]]`, *optional*): For the margin, equally many other captions for each
            image; by default those that state the other numbers from two to ten.
        batch_size (`int`, *optional*, defaults to 8): Pairs at once. The attention of all layers is kept for them.
        device (`str` or `torch.device`, *optional*): Where to run; the model moves there and stays.
        dtype (`torch.dtype`, *optional*): What to compute in; the model stays in it.
        progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar on stderr.

    Returns:
        `list[Relevance]`: One for each pair.

    Raises:
        ValueError: If images and captions differ in number, a caption is empty, too long or (for the margin) states
            no number, an image cannot be read, an option is out of its range, or the model's scores are not finite.
        TypeError: If the model is no CLIP.
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
            part = slice(start, start + batch_size)
            loaded = [to_rgb(open_image(image)) for image in images[part]]
            found += explainer(loaded, texts[part], None if wrong_texts is None else wrong_texts[part])
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
