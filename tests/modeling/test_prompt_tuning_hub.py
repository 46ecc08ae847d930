"""Adapters go to the Hub alone, and come back with the base that they name."""

import os
import subprocess
import sys

import pytest


PUSH = """
import sys
import torch
import count_clip
from peft import LoraConfig, get_peft_model
from count_clip import AdapterStack, CLIPForCounting, ContextPromptConfig, VisualPromptConfig

CLIPForCounting.from_pretrained(sys.argv[1]).push_to_hub("org/count-clip")

def base():
    return CLIPForCounting.from_pretrained("org/count-clip")

torch.manual_seed(0)
model = get_peft_model(base(), VisualPromptConfig(num_virtual_tokens=4, depth=2))
model.push_to_hub("org/visual")
torch.save({"visual": model.eval()(*torch.load("inputs.pt")).logits_per_image}, "visual.pt")
stack = AdapterStack(base(), {"context": ContextPromptConfig(), "low_rank": LoraConfig(target_modules=["q_proj"])})
stack.push_to_hub("org/stack")
torch.save({"stack": stack.eval()(*torch.load("inputs.pt")).logits_per_image}, "stack.pt")
"""

LOAD = """
import torch
import count_clip
from peft import PeftModel
from transformers import AutoModel

close = torch.testing.assert_close
inputs = torch.load("inputs.pt")
visual, stack = torch.load("visual.pt")["visual"], torch.load("stack.pt")["stack"]
loaded = PeftModel.from_pretrained(AutoModel.from_pretrained("org/count-clip"), "org/visual")
close(loaded(*inputs).logits_per_image, visual)
for name, expected in (("org/visual", visual), ("org/stack", stack)):
    loaded = count_clip.load_adapted_model(name)
    close(loaded(*inputs).logits_per_image, expected, msg=name)
close(AutoModel.from_pretrained("org/visual")(*inputs).logits_per_image, visual)
loaded = count_clip.AdapterStack.from_pretrained(AutoModel.from_pretrained("org/count-clip"), "org/stack")
close(loaded(*inputs).logits_per_image, stack)
print("done")
"""


# Two processes, each of which imports transformers and peft.
@pytest.mark.timeout(180)
def test_adapters_are_pushed_and_loaded_alone(hub, counting_model, tmp_path):
    import torch

    counting_model.save_pretrained(tmp_path / "base")
    torch.save((torch.tensor([[512, 5, 6, 513]]), torch.rand(1, 3, 32, 32)), tmp_path / "inputs.pt")
    for home, program in (("one", PUSH), ("another", LOAD)):
        environment = {**os.environ, **hub.environment, "HF_HOME": str(tmp_path / home)}
        command = [sys.executable, "-c", program, str(tmp_path / "base")]
        finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "done\n"

    base_commit, _ = hub.repositories["model", "org/count-clip"].at("main")
    _, visual = hub.repositories["model", "org/visual"].at("main")
    _, stack = hub.repositories["model", "org/stack"].at("main")
    wanted = {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert set(visual) - {".gitattributes"} == wanted
    assert len(visual["adapter_model.safetensors"]) < 5_000
    assert {path.split("/")[0] for path in stack} - {".gitattributes"} == {"README.md", "context", "low_rank"}
    for card in (visual["README.md"].decode(), stack["README.md"].decode()):
        assert "base_model: org/count-clip\n" in card
        assert f"- Base: `org/count-clip`\n- Revision of the base: `main`, at the time `{base_commit}`" in card
