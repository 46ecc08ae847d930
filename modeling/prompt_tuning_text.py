"""Context prompts as a PEFT method: learned vectors among the words, in the text tower of a CLIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer

from .modeling_clip_count_density import end_of_text
from .prompt_tuning_config import DEFAULT_CONTEXT_TOKENS, ContextPromptConfig
from .prompt_tuning_peft import PromptLayer, PromptTuner, check_tower


class ContextPromptLayer(PromptLayer):
    """
    Replaces a text tower's token embeddings, and holds the context.

    A hook before the tower inserts placeholders (negative numbers: -1 is the first context vector) among the tokens,
    so that positions, mask and the position of the end-of-text token include the context.

    Args:
        base_layer (`nn.Module`): The token embeddings.
        tower (`nn.Module`): The text tower.
    """

    adapter_layer_names = ("clip_coop_embeds",)
    other_param_names = ("clip_coop_positions", "clip_coop_classes")

    def __init__(self, base_layer: nn.Module, tower: Any) -> None:
        super().__init__(base_layer)
        self.max_length = tower.config.max_position_embeddings
        self.eos_token_id = tower.config.eos_token_id
        self.clip_coop_embeds = nn.ParameterDict()
        self.clip_coop_positions: dict[str, str] = {}
        self.clip_coop_classes: dict[str, list[list[int]]] = {}
        self.add_hook(tower, self._before_tower, before=True)

    def add_adapter(self, name: str, config: ContextPromptConfig) -> None:
        """Make the context of an adapter: from words, or CoOp's normal noise."""
        length, width = config.num_virtual_tokens, config.token_dim
        if length is None or width is None:
            raise RuntimeError("The tuner must fill in the sizes first.")
        weight: Any = self.get_base_layer().weight
        if config.init_token_ids is not None and weight.device.type != "meta":
            embeds = weight.detach()[config.init_token_ids].clone()
        else:
            embeds = nn.init.normal_(torch.empty(length, width), std=0.02)
        if config.class_token_ids is not None:
            embeds = embeds.expand(len(config.class_token_ids), -1, -1).clone()
            self.clip_coop_classes[name] = config.class_token_ids
        self.clip_coop_positions[name] = config.position
        self.clip_coop_embeds[name] = nn.Parameter(embeds)
        self._move_adapter_to_device_of_base_layer(name)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed tokens and placeholders; `(batch_size, sequence_length, hidden_size)`."""
        names = self.acting(self.clip_coop_embeds)
        if not names:
            return self.base_layer(input_ids)
        token_embeds = self.base_layer(input_ids.clamp(min=0))
        vectors = torch.cat([self.clip_coop_embeds[name].flatten(0, -2) for name in names])  # (all vectors, D)
        context = nn.functional.embedding((-1 - input_ids).clamp(min=0), vectors.to(token_embeds.dtype))
        return torch.where((input_ids < 0)[..., None], context, token_embeds)

    def _before_tower(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs = {**dict(zip(("input_ids", "attention_mask", "position_ids"), args, strict=False)), **kwargs}
        if inputs.get("input_ids") is None or not self.acting(self.clip_coop_embeds):
            return args, kwargs
        if inputs.get("position_ids") is not None:
            raise ValueError(
                "`position_ids` cannot be combined with context prompts, which move the words. Leave it out."
            )
        input_ids = inputs["input_ids"].reshape(-1, inputs["input_ids"].shape[-1])
        inputs["input_ids"], inputs["attention_mask"] = self.insert_placeholders(
            input_ids, inputs.get("attention_mask")
        )
        return (), inputs

    def insert_placeholders(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Insert placeholders for the context of the active adapters.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Tokens, from the start token to the end-of-text token, padded on the right.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 for tokens, 0 for padding.

        Returns:
            Both, longer by the context; padding beyond the last position is removed.

        Raises:
            ValueError: If a prompt does not fit with the context, or is none of the classes of a class-specific one.
        """
        words = input_ids
        first = 0
        for name in self.acting(self.clip_coop_embeds):
            embeds = self.clip_coop_embeds[name]
            start = torch.full((len(words), 1), first, device=words.device)
            if name in self.clip_coop_classes:
                start = start + embeds.shape[1] * self._classes(name, words)[:, None]
            input_ids, attention_mask = self._insert(
                input_ids, attention_mask, start, embeds.shape[-2], self.clip_coop_positions[name]
            )
            first += embeds[..., 0].numel()
        if input_ids.shape[1] > self.max_length:
            self._check_length(words, input_ids)
            input_ids = input_ids[:, : self.max_length]
            attention_mask = None if attention_mask is None else attention_mask[:, : self.max_length]
        return input_ids, attention_mask

    def _insert(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        start: torch.Tensor,
        num_context: int,
        position: str,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch_size, length = input_ids.shape
        places = torch.arange(length, device=input_ids.device).expand(batch_size, -1)
        is_end = places >= end_of_text(input_ids, self.eos_token_id)[:, None]
        # Positions by which a word moves; the end moves by all.
        moves = {"front": num_context, "middle": num_context // 2, "end": 0}[position]
        places = places + torch.where(is_end, num_context, (places > 0) * moves)
        is_context = torch.ones(batch_size, length + num_context, dtype=torch.bool, device=input_ids.device)
        is_context = is_context.scatter(1, places, False)
        holders = -start - is_context.cumsum(dim=1)
        lengthened = torch.where(is_context, holders, input_ids.new_zeros(()))
        lengthened = lengthened.to(input_ids.dtype).scatter(1, places, input_ids)
        if attention_mask is not None:
            ones = attention_mask.new_ones(batch_size, length + num_context)
            attention_mask = ones.scatter(1, places, attention_mask)
        return lengthened, attention_mask

    def _classes(self, name: str, input_ids: torch.Tensor) -> torch.Tensor:
        """Index of the class of each row's words, `(batch_size,)`."""
        classes = self.clip_coop_classes[name]
        width = max(len(tokens) for tokens in classes) + 1
        table = torch.tensor([tokens + [-1] * (width - len(tokens)) for tokens in classes], device=input_ids.device)
        words = nn.functional.pad(input_ids[:, 1 : 1 + width], (0, max(0, width - input_ids.shape[1] + 1)), value=-1)
        before_end = (
            torch.arange(1, width + 1, device=input_ids.device) < end_of_text(input_ids, self.eos_token_id)[:, None]
        )
        words = torch.where(before_end, words, -1)
        equal = (words[:, None] == table).all(dim=-1)  # (B, classes)
        found = equal.any(dim=-1)
        if not found.all():
            row = int((~found).int().argmax())
            raise ValueError(
                f"The prompt with the tokens {[int(x) for x in words[row] if x >= 0]} is none of the {len(classes)} "
                f"texts of adapter {name!r} (`class_names`). Train a context without `class_names` for other texts."
            )
        return equal.int().argmax(dim=-1)

    def _check_length(self, words: torch.Tensor, input_ids: torch.Tensor) -> None:
        longest = int(end_of_text(words, self.eos_token_id).max()) + 1
        num_context = input_ids.shape[1] - words.shape[1]
        if longest + num_context > self.max_length:
            raise ValueError(
                f"A prompt has {longest} tokens, but with {num_context} context vectors at most "
                f"{self.max_length - num_context} fit. Shorten the prompt."
            )


class ContextPromptModel(PromptTuner):
    """Adds context prompts to a model with the text tower of a CLIP, which it changes in place."""

    prefix = "clip_coop_"
    tuner_layer_cls = ContextPromptLayer

    def _prepare_tower(self, config: ContextPromptConfig, tower: Any, key: str) -> None:
        modules = ("embeddings.token_embedding", "final_layer_norm", "encoder.layers")
        check_tower(config, tower, key, "text", (*modules, "config.max_position_embeddings"))
        self._read_texts(config)
        if config.num_virtual_tokens is None:
            config.num_virtual_tokens = DEFAULT_CONTEXT_TOKENS
        positions = tower.config.max_position_embeddings
        # The start token, the end token and one word have to fit, too.
        if config.num_virtual_tokens > positions - 3:
            raise ValueError(
                f"`num_virtual_tokens` ({config.num_virtual_tokens}) leaves no positions for a prompt: the text tower "
                f"has {positions}. At most {positions - 3} fit."
            )
        ids = [token for tokens in (config.class_token_ids or []) for token in tokens] + (config.init_token_ids or [])
        if ids and max(ids) >= tower.config.vocab_size:
            raise ValueError(
                f"The texts of the context have the token {max(ids)}, but the base has {tower.config.vocab_size} "
                "tokens. Set `tokenizer_name_or_path` to the base's own tokenizer."
            )

    def _read_texts(self, config: ContextPromptConfig) -> None:
        """Turn `init_text` and `class_names` into tokens, once."""
        wanted = {
            "init_token_ids": config.init_text if config.init_token_ids is None else None,
            "class_token_ids": config.class_names if config.class_token_ids is None else None,
        }
        if any(text is not None for text in wanted.values()):
            name = config.tokenizer_name_or_path or config.base_model_name_or_path
            if name is None:
                raise ValueError(
                    "`init_text` and `class_names` need a tokenizer, but the base has no name. Set "
                    "`tokenizer_name_or_path`, or give `init_token_ids` and `class_token_ids`."
                )
            tokenizer = AutoTokenizer.from_pretrained(name)
            for field, text in wanted.items():
                if text is not None:
                    setattr(config, field, tokenizer(text, add_special_tokens=False)["input_ids"])
        for field in ("init_token_ids", "class_token_ids"):
            tokens = getattr(config, field)
            if tokens is not None and (not tokens or [] in tokens):
                raise ValueError(f"A text of the context ({field}) has no tokens.")
        config.resolve_length()

    def _new_layer(self, target: nn.Module, tower: nn.Module) -> PromptLayer:
        return ContextPromptLayer(target, tower)


__all__ = ["ContextPromptLayer", "ContextPromptModel"]
