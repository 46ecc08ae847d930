"""Configurations of visual and context prompts, which tune a CLIP as PEFT adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peft import PeftConfig

from .prompt_tuning_peft import add_peft_type, write_card


CONTEXT_POSITIONS = ("front", "middle", "end")
DEFAULT_CONTEXT_TOKENS = 2


@dataclass
class _PromptConfig(PeftConfig):
    """Fields of both."""

    METHOD = ""  # its name in PEFT
    TARGET = ""  # the modules that hold the prompts

    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    modules_to_save: list[str] | None = None
    token_dim: int | None = None
    num_layers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = add_peft_type(self.METHOD)

    def _check_number(self, name: str, meaning: str = "") -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be at least 1{meaning} and a whole number, but got {value!r}.")

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write the configuration, and a card that names the base and its revision, into a folder."""
        super().save_pretrained(save_directory, **kwargs)
        write_card(save_directory, [self])


@dataclass
class VisualPromptConfig(_PromptConfig):
    """
    Learned tokens in the vision tower of a CLIP.

    The prompts are inserted between the class token and the patches, before the tower's first norm. With a depth of
    one they stay to the end ("VPT-shallow"); otherwise each of the first `depth` layers has its own ("VPT-deep").
    The tower's output has no prompts, but its `hidden_states` do. Prompts have no positions, so only memory limits
    their number.

    Args:
        num_virtual_tokens (`int`, *optional*, defaults to 20): Prompts of a layer.
        depth (`int`, *optional*):
            Number of layers with their own prompts; by default all, filled in when the adapter is added to a base.
        projection (`bool`, *optional*, defaults to `False`):
            Whether a linear layer, shared by all depths, projects the prompts.
        dropout (`float`, *optional*, defaults to 0.0): Dropout on the prompts, different for every image.
        norm (`bool`, *optional*, defaults to `False`): Whether a trained layer norm follows the last layer.
        target_modules (`str` or `list[str]`, *optional*):
            First norms of the vision towers to tune; by default every `pre_layrnorm`.
        modules_to_save (`list[str]`, *optional*): Other modules to train and save, such as `["decoder"]`.
        token_dim, num_layers (`int`, *optional*):
            Width and layers of the tower, filled in when the adapter is added to a base; other bases must match.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Jia et al., 2022 (https://huggingface.co/papers/2203.12119); the norm and the order are those of
        CLIP-Count (https://huggingface.co/papers/2305.07304).
    """

    METHOD = "CLIP_VPT"
    TARGET = r"(.*\.)?pre_layrnorm"

    num_virtual_tokens: int = 20
    depth: int | None = None
    projection: bool = False
    dropout: float = 0.0
    norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("num_virtual_tokens")
        if self.depth is not None:
            self._check_number("depth", " (the shallow form)")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1), but got {self.dropout}.")


@dataclass
class ContextPromptConfig(_PromptConfig):
    """
    Learned context vectors among the words of a prompt, in the text tower of a CLIP.

    They take positions: a tower with 77 positions reads `77 - num_virtual_tokens` tokens of text, start and end
    included. The text embedding is that of the end-of-text token; `last_hidden_state` includes the context.

    Args:
        num_virtual_tokens (`int`, *optional*):
            Context vectors; by default as many as the tokens they are initialised from, else 2.
        position (`str`, *optional*, defaults to `"front"`):
            Position of the context: before the words (`"front"`), half before and half after (`"middle"`; the smaller
            half before) or after them (`"end"`). CoOp names the position of the class instead ("end", "middle" and
            "front").
        init_text (`str`, *optional*):
            Words to start from, such as `"a photo of"`; by default normal noise of standard deviation 0.02.
        class_names (`list[str]`, *optional*):
            Texts that each have their own context ("class-specific"); every prompt must then be one of them. By
            default all prompts share one context.
        tokenizer_name_or_path (`str`, *optional*):
            The tokenizer of `init_text` and `class_names`; by default that of the base.
        init_token_ids (`list[int]`, *optional*), class_token_ids (`list[list[int]]`, *optional*):
            Both as tokens, filled in when the adapter is added to a base, or given instead of the texts.
        target_modules (`str` or `list[str]`, *optional*):
            Token embeddings of the text towers to tune; by default every `embeddings.token_embedding`.
        modules_to_save, token_dim, num_layers (*optional*): As in [`VisualPromptConfig`].

    Raises:
        ValueError: If a value is out of range, or values contradict each other.

    Source:
        Zhou et al., 2022 (https://huggingface.co/papers/2109.01134).
    """

    METHOD = "CLIP_COOP"
    TARGET = r"(.*\.)?embeddings\.token_embedding"

    num_virtual_tokens: int | None = None
    position: str = "front"
    init_text: str | None = None
    class_names: list[str] | None = None
    tokenizer_name_or_path: str | None = None
    init_token_ids: list[int] | None = None
    class_token_ids: list[list[int]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_virtual_tokens is not None:
            self._check_number("num_virtual_tokens")
        if self.position not in CONTEXT_POSITIONS:
            raise ValueError(f"`position` must be one of {', '.join(CONTEXT_POSITIONS)}, but got {self.position!r}.")
        for name in ("class_names", "class_token_ids"):
            values = getattr(self, name)
            if values is not None and (not values or len({str(value) for value in values}) < len(values)):
                raise ValueError(f"`{name}` must have at least one text and none twice, but got {values}.")
        self.resolve_length()

    def resolve_length(self) -> None:
        """Set the number of context vectors to that of `init_token_ids`, or check that they are equal."""
        if self.init_token_ids is None:
            return
        if self.num_virtual_tokens is None:
            self.num_virtual_tokens = len(self.init_token_ids)
        if self.num_virtual_tokens != len(self.init_token_ids):
            raise ValueError(
                f"`num_virtual_tokens` is {self.num_virtual_tokens}, but the text to start from takes "
                f"{len(self.init_token_ids)} tokens. Leave `num_virtual_tokens` out, or choose a text of that length."
            )


__all__ = ["ContextPromptConfig", "VisualPromptConfig"]
