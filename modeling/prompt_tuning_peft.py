"""
What these methods need of PEFT (0.21) and PEFT does not offer, each with its reason.

- A name of its own for a method that comes from outside ([`add_peft_type`], [`add_peft_method`]).
- A card that outlives `push_to_hub` ([`keep_cards`]).

Adapters of different methods on one model are in `prompt_tuning_stack.py`.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from peft import PeftConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType, register_peft_method

from .prompt_tuning_card import write_card


# The methods that were made known here.
_ADDED: set[str] = set()


def add_peft_type(name: str) -> PeftType:
    """
    Add a name to the methods that PEFT knows.

    `register_peft_method` takes only members of the enumeration `PeftType`, to which Python lets nobody add. The new
    member is therefore made the way `EnumType` makes them. A name that is there already is left as it is.

    Args:
        name (`str`): The name, in capitals as in `adapter_config.json`.

    Returns:
        `PeftType`: The member.
    """
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        setattr(member, "__objclass__", PeftType)  # noqa: B010  # no attribute that a type checker knows
        setattr(member, "_sort_order_", len(PeftType._member_names_))  # noqa: B010
        PeftType._member_names_.append(name)
        PeftType._member_map_[name] = member
        PeftType._value2member_map_[name] = member
        type.__setattr__(PeftType, name, member)
    return PeftType[name]


def add_peft_method(name: str, config_class: type[PeftConfig], tuner_class: type[BaseTuner]) -> None:
    """
    Make PEFT know a method that it does not ship; registering it again replaces the classes.

    Args:
        name (`str`): Its name, in capitals as in `adapter_config.json`.
        config_class (`type[PeftConfig]`): Its configuration.
        tuner_class (`type[BaseTuner]`): What puts its layers into a model.
    """
    peft_type = add_peft_type(name)
    if peft_type in PEFT_TYPE_TO_CONFIG_MAPPING:
        PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] = config_class
        PEFT_TYPE_TO_TUNER_MAPPING[peft_type] = tuner_class
    else:
        register_peft_method(name=name.lower(), config_cls=config_class, model_cls=tuner_class)
    _ADDED.add(name)


def keep_cards() -> None:
    """
    Have `push_to_hub` keep the cards of models with added methods.

    `save_pretrained` writes one, but `push_to_hub` (transformers 5.23) puts an empty template in its place before it
    uploads. Other models are pushed as before; calling this again changes nothing.
    """
    upload = PeftModel._upload_modified_files
    if hasattr(upload, "__wrapped__"):
        return

    @wraps(upload)
    def upload_with_card(self: PeftModel, working_dir: str, *args: Any, **kwargs: Any) -> Any:
        if any(config.peft_type in _ADDED for config in self.peft_config.values()):
            # The adapter that is called "default" lies in the folder itself.
            names = ["" if name == "default" else name for name in self.peft_config]
            write_card(working_dir, list(self.peft_config.values()), names)
        return upload(self, working_dir, *args, **kwargs)

    setattr(PeftModel, "_upload_modified_files", upload_with_card)  # noqa: B010  # a method, to a type checker


__all__ = ["add_peft_method", "add_peft_type", "keep_cards"]
