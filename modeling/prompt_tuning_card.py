"""The card of an adapter: which base it belongs to, in which revision, and how both are loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard
from peft import PeftConfig
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from transformers.utils.hub import resolve_revision


# What PEFT writes where nothing is known, and what tells our own cards from those that somebody wrote by hand.
_PEFT_PLACEHOLDER = "[More Information Needed]"
_MARK = "<!-- Written by count-clip. Delete this line to keep your changes. -->"

_KINDS = {"CLIP_VPT": "visual prompts (VPT)", "CLIP_COOP": "context prompts (CoOp)", "LORA": "LoRA"}

_TEXT = """
{mark}

# {title} for a CLIP

{about}

```python
{code}
```
"""
_ABOUT = """Trained beside a frozen base, which is not in here.

- Base: {base}
- Revision of the base: {revision}
{adapters}"""
_CODE = """import count_clip  # pip install count-clip; PEFT by itself does not know these prompts
from peft import PeftModel

model = count_clip.load_adapted_model("THIS")  # base and adapters
model = {loader}.from_pretrained(base, "THIS")  # on a base that is loaded already"""


def write_card(folder: str | Path, configs: Sequence[PeftConfig], names: Sequence[str] = ("",)) -> None:
    """
    Write the card of one or several adapters of the same base; a card that somebody wrote keeps its text.

    Args:
        folder (`str` or `Path`): Where the adapters are saved, each in a subfolder of its name.
        configs (`Sequence[PeftConfig]`): Their configurations.
        names (`Sequence[str]`, *optional*): Their names; empty for one that lies in the folder itself.
    """
    path = Path(folder, "README.md")
    card = ModelCard.load(path) if path.is_file() else ModelCard("---\nlibrary_name: peft\n---\n")
    base = configs[0].base_model_name_or_path
    on_hub = base is not None and _is_on_hub(base)
    tags = {tag for tag in card.data.tags or [] if not tag.startswith("base_model:")}
    card.data.base_model = base if on_hub else None
    card.data.tags = sorted(tags | ({f"base_model:adapter:{base}"} if on_hub else set()) | {"prompt-tuning"})
    if not card.text.strip() or _PEFT_PLACEHOLDER in card.text or _MARK in card.text:
        about, code = describe_adapters(folder, configs, names)
        title = ", ".join(dict.fromkeys(_kind(config) for config in configs))
        card.text = _TEXT.format(mark=_MARK, title=title[0].upper() + title[1:], about=about, code=code)
    card.save(path)


def describe_adapters(
    folder: str | Path, configs: Sequence[PeftConfig], names: Sequence[str] = ("",)
) -> tuple[str, str]:
    """
    Say what adapters are and how they are loaded.

    Args:
        folder (`str` or `Path`): Where they are saved, each in a subfolder of its name.
        configs (`Sequence[PeftConfig]`): Their configurations.
        names (`Sequence[str]`, *optional*): Their names; empty for one that lies in the folder itself.

    Returns:
        `tuple[str, str]`: A text on the base and the adapters, and the code that loads them from `"THIS"`.
    """
    base, revision = configs[0].base_model_name_or_path, configs[0].revision
    lines = [
        f"- {f'`{name}`: ' if name else ''}{_kind(config)}{_size(Path(folder, name))}"
        for name, config in zip(names, configs, strict=True)
    ]
    about = _ABOUT.format(
        base=f"`{base}`" if base else "unknown, it had no name when the adapter was saved",
        revision=_revision(base, revision) if base and _is_on_hub(base) else "none, it is not on the Hub",
        adapters="\n".join(lines),
    )
    return about, _CODE.format(loader="count_clip.AdapterStack" if any(names) else "PeftModel")


def _is_on_hub(base: str) -> bool:
    """Whether the name of a base can be one on the Hub, which takes no folder for a model."""
    return not Path(base).exists()


def _kind(config: PeftConfig) -> str:
    method = str(getattr(config.peft_type, "value", config.peft_type))
    return _KINDS.get(method, method)


def _size(folder: Path) -> str:
    """How many numbers an adapter holds, if it is there already."""
    path = folder / SAFETENSORS_WEIGHTS_NAME
    if not path.is_file():
        return ""
    with safe_open(path, framework="pt") as file:
        return f", {sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys()):,} parameters"  # noqa: SIM118


def _revision(base: str, revision: str | None) -> str:
    """The revision that loading takes, and the commit that it stands for as far as this machine knows."""
    # A card must not need the network: this asks the cache only, and answers what it was given if it knows no more.
    commit = getattr(resolve_revision(base, revision, local_files_only=True), "resolved", None)
    shown = f"`{revision or 'main'}`"
    return shown if commit in (None, revision) else f"{shown}, at the time `{commit}`"


__all__ = ["describe_adapters", "write_card"]
