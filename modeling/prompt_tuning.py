"""
Prompt tuning of CLIPs as PEFT adapters.

Importing this module registers two methods with PEFT, visual prompts (`CLIP_VPT`) and context prompts (`CLIP_COOP`),
for the towers of every CLIP of transformers and of this package:

```python
>>> from count_clip import VisualPromptConfig
>>> from peft import PeftModel, get_peft_model

>>> model = get_peft_model(base_model, VisualPromptConfig(num_virtual_tokens=20, depth=10))
>>> model.save_pretrained(folder)
>>> model = PeftModel.from_pretrained(base_model, folder)
```
"""

from .prompt_tuning_config import ContextPromptConfig, VisualPromptConfig
from .prompt_tuning_density import adapter_to_prompts, prompts_to_adapter
from .prompt_tuning_peft import add_peft_method, keep_cards
from .prompt_tuning_stack import AdapterStack, load_adapted_model
from .prompt_tuning_text import ContextPromptModel
from .prompt_tuning_vision import VisualPromptModel


add_peft_method(VisualPromptConfig.METHOD, VisualPromptConfig, VisualPromptModel)
add_peft_method(ContextPromptConfig.METHOD, ContextPromptConfig, ContextPromptModel)
keep_cards()

__all__ = [
    "AdapterStack",
    "ContextPromptConfig",
    "ContextPromptModel",
    "VisualPromptConfig",
    "VisualPromptModel",
    "adapter_to_prompts",
    "load_adapted_model",
    "prompts_to_adapter",
]
