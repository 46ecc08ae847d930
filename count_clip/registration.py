"""
What `import count_clip` tells the Hugging Face libraries: its model types, pipelines, adapters and data sets.

A library that is imported already is told at once, any other as soon as it is imported, so no program can meet it
untold, and `count-clip --help` need not wait seconds for torch and transformers.
"""

import sys

from count_clip.datasets_scripts.import_hooks import after_import
from count_clip.datasets_scripts.registration import register_datasets


# transformers; and our own models, for they cannot be registered any more once one of their files is half imported.
_BEGINNINGS = ("transformers", f"{__package__}.modeling")


def register() -> None:
    """
    Make the models, processors, pipelines, adapters and data sets of this package known by their names.

    `import count_clip` calls this; calling it again changes nothing.
    """
    after_import(_BEGINNINGS, _register_with_transformers)
    after_import(["peft"], _register_with_peft)
    register_datasets()


def _register_with_transformers() -> None:
    from count_clip.modeling.auto_classes import register_with_transformers

    register_with_transformers()


def _register_with_peft() -> None:
    """Make `PeftModel.from_pretrained` and the like know the prompts, as PEFT knows its own methods."""
    module = f"{__package__}.modeling.prompt_tuning"
    # Where it is one of these files that imports peft, it cannot be imported once more before it is done.
    if not any(name.startswith(module) for name in sys.modules):
        from count_clip.modeling import prompt_tuning as prompt_tuning
