"""
Registration of model types, pipelines, adapters and data sets with the Hugging Face libraries.

Libraries that are not imported yet are registered with when they are, so that `count-clip --help` does not wait for
torch and transformers.
"""

import sys

from count_clip.datasets_scripts.import_hooks import after_import
from count_clip.datasets_scripts.registration import register_datasets


# Our own models too: they cannot be registered while one of their modules is partly imported.
_BEGINNINGS = ("transformers", f"{__package__}.modeling")


def register() -> None:
    """Register everything; `import count_clip` calls this, and a second call has no effect."""
    after_import(_BEGINNINGS, _register_with_transformers)
    after_import(["peft"], _register_with_peft)
    register_datasets()


def _register_with_transformers() -> None:
    from count_clip.modeling.auto_classes import register_with_transformers

    register_with_transformers()


def _register_with_peft() -> None:
    """Register the prompts as PEFT methods, for `PeftModel.from_pretrained`."""
    module = f"{__package__}.modeling.prompt_tuning"
    # If one of these modules imports peft, it cannot be imported again before it is complete.
    if not any(name.startswith(module) for name in sys.modules):
        from count_clip.modeling import prompt_tuning as prompt_tuning
