"""Prompts with other adapters, in files and cards, and as prompts of a density model."""

import copy
import json
import subprocess
import sys

import peft
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from packaging import version
from peft import AutoPeftModel, LoraConfig, PeftModel, PrefixTuningConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel, CLIPVisionModel
from transformers.integrations.peft import MIN_PEFT_VERSION

from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.modeling.prompt_tuning import (
    AdapterStack,
    ContextPromptConfig,
    VisualPromptConfig,
    adapter_to_prompts,
    load_adapted_model,
    prompts_to_adapter,
)


IDS = torch.tensor([[512, 5, 6, 513, 513], [512, 7, 8, 9, 513]])


def alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal, but for the order of sums: it depends on the alignment in memory."""
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def windows():
    return torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def configs(**lora):
    low_rank = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **lora)
    visual = VisualPromptConfig(num_virtual_tokens=4, depth=2, projection=True)
    return {"visual": visual, "context": ContextPromptConfig(num_virtual_tokens=3), "low_rank": low_rank}


def scores(model, pixels):
    return model(input_ids=IDS, pixel_values=pixels).logits_per_image


def owners(model):
    """The adapters that train."""
    trained = [name.split(".") for name, p in model.named_parameters() if p.requires_grad]
    return {part for name in trained for part in name if part in model.peft_config}


@pytest.fixture
def saved_base(counting_model, tmp_path):
    counting_model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


# Several methods at once


def test_prompts_and_low_rank_train_together(counting_model, pixels):
    base = copy.deepcopy(counting_model)
    stack = AdapterStack(counting_model, configs())
    trained = {name: p.clone() for name, p in stack.named_parameters() if p.requires_grad}
    assert owners(stack) == {"visual", "context", "low_rank"}
    optimizer = torch.optim.SGD([p for p in stack.parameters() if p.requires_grad], lr=1.0)
    model_input = {"input_ids": IDS, "pixel_values": pixels, "return_loss": True}
    stack(**model_input).loss.backward()
    optimizer.step()
    after = dict(stack.named_parameters())
    assert [name for name, value in trained.items() if torch.equal(after[name], value)] == []
    unloaded = stack.unload()
    assert all(torch.equal(value, unloaded.state_dict()[name]) for name, value in base.state_dict().items())
    assert not hasattr(unloaded, "peft_config")


@pytest.mark.parametrize("order", [["visual", "low_rank"], ["low_rank", "visual"]])
def test_order_of_methods_has_no_effect(counting_model, pixels, order):
    stack = AdapterStack(copy.deepcopy(counting_model), {name: configs()[name] for name in order})
    one_by_one = copy.deepcopy(counting_model)
    for name in order:
        one_by_one = AdapterStack(one_by_one, {name: configs()[name]}).get_base_model()
    names = {name for name, _ in stack.named_parameters()}
    assert {f"base_model.model.{name}" for name, _ in one_by_one.named_parameters()} == names
    # LoRA's weights have the names that they have alone.
    alone = get_peft_model(copy.deepcopy(counting_model), configs()["low_rank"], adapter_name="low_rank")
    assert {name for name, _ in alone.named_parameters() if "lora_" in name} <= names


def test_adapters_of_all_methods_switch_together(counting_model, pixels):
    base = copy.deepcopy(counting_model)
    stack = AdapterStack(counting_model, configs()).eval()
    with torch.no_grad():
        everything = scores(stack, pixels)
        found = {}
        for name in configs():
            stack.set_adapter(name)
            assert stack.active_adapters == [name]
            found[name] = scores(stack, pixels)
            assert owners(stack) == {name}
        assert all(not torch.allclose(value, everything, atol=1e-4) for value in found.values())
        stack.set_adapter(["visual", "context"])
        two = scores(stack, pixels)
        with stack.disable_adapter():
            assert alike(scores(stack, pixels), scores(base, pixels))
        assert alike(scores(stack, pixels), two)
        stack.delete_adapter("low_rank")
        assert alike(scores(stack, pixels), two)
        stack.delete_adapter("visual")
        assert stack.active_adapters == ["context"]
        torch.testing.assert_close(scores(stack, pixels), found["context"])
        assert not [name for name, _ in stack.named_parameters() if "lora_" in name or "clip_vpt" in name]
    with pytest.raises(ValueError, match="'context' is the last adapter. Use `unload"):
        stack.delete_adapter("context")


def test_deleting_the_active_adapter_leaves_the_base(counting_model, pixels):
    base = copy.deepcopy(counting_model)
    stack = AdapterStack(counting_model, configs(modules_to_save=["visual_projection"])).eval()
    stack.set_adapter("low_rank")
    stack.delete_adapter("low_rank")
    assert stack.active_adapters == []
    with torch.no_grad():
        assert alike(scores(stack, pixels), scores(base, pixels))
        stack.set_adapter("visual")
        assert not torch.allclose(scores(stack, pixels), scores(base, pixels), atol=1e-4)


@pytest.mark.parametrize("is_trainable", [False, True])
def test_stack_is_saved_as_adapters_that_load_alone_and_together(saved_base, pixels, tmp_path, is_trainable):
    load = CLIPForCounting.from_pretrained
    stack = AdapterStack(load(saved_base), configs(modules_to_save=["visual_projection"])).eval()
    with torch.no_grad():
        expected = scores(stack, pixels)
        stack.save_pretrained(tmp_path / "stack")
        together = AdapterStack.from_pretrained(load(saved_base), tmp_path / "stack", is_trainable=is_trainable)
        assert alike(scores(together.eval(), pixels), expected)
        assert any(p.requires_grad for p in together.parameters()) is is_trainable
        for name in configs():
            stack.set_adapter(name)
            alone = PeftModel.from_pretrained(load(saved_base), tmp_path / "stack" / name)
            assert alike(scores(alone, pixels), scores(stack, pixels))
    assert not (tmp_path / "stack" / "adapter_config.json").exists()


def test_adapter_of_any_method_is_loaded_into_a_stack(saved_base, pixels, tmp_path):
    load = CLIPForCounting.from_pretrained
    stack = AdapterStack(load(saved_base), {"visual": configs()["visual"]}).eval()
    low_rank = get_peft_model(load(saved_base), configs()["low_rank"])
    low_rank.save_pretrained(tmp_path / "low_rank")
    with torch.no_grad():
        before = scores(stack, pixels)
        stack.load_adapter(tmp_path / "low_rank", "another")
        assert alike(scores(stack, pixels), before)
        stack.set_adapter("another")
        assert alike(scores(stack, pixels), scores(low_rank.eval(), pixels))
    with pytest.raises(ValueError, match="'another' already exists"):
        stack.add_adapter("another", configs()["low_rank"])


def test_adapter_that_cannot_be_made_leaves_the_stack_as_it_was(counting_model, pixels):
    stack = AdapterStack(counting_model, {"visual": configs()["visual"]}).eval()
    before = scores(stack, pixels)
    with pytest.raises(ValueError, match="`depth` is 9"):
        stack.add_adapter("deep", VisualPromptConfig(depth=9))
    assert list(stack.peft_config) == ["visual"]
    assert alike(scores(stack, pixels), before)


def test_merging_a_stack_raises_before_any_layer_is_merged(counting_model, pixels):
    stack = AdapterStack(counting_model, dict(reversed(configs().items()))).eval()
    before = scores(stack, pixels)
    for merge in (stack.merge_and_unload, stack.merge_adapter):
        with pytest.raises(ValueError, match="Prompts are inputs"):
            merge()
        assert alike(scores(stack, pixels), before)


def test_invalid_stacks_raise(counting_model, tmp_path):
    with pytest.raises(ValueError, match="at least one adapter"):
        AdapterStack(counting_model, {})
    with pytest.raises(ValueError, match="'vera' .VERA. keeps its weights outside of the layers"):
        AdapterStack(counting_model, {"visual": configs()["visual"], "vera": VeraConfig(target_modules=["q_proj"])})
    prefix = PrefixTuningConfig(num_virtual_tokens=2)
    with pytest.raises(ValueError, match="'prefix' .PREFIX_TUNING. keeps its weights outside"):
        AdapterStack(counting_model, {"visual": configs()["visual"], "prefix": prefix})
    both = {name: VisualPromptConfig(modules_to_save=["visual_projection"]) for name in "ab"}
    with pytest.raises(ValueError, match="Both 'a' and 'b' train 'visual_projection'"):
        AdapterStack(counting_model, both)
    stack = AdapterStack(counting_model, configs())
    with pytest.raises(ValueError, match="among visual, context, low_rank, but got nothing_like_it"):
        stack.set_adapter(["visual", "nothing_like_it"])
    with pytest.raises(ValueError, match="nothing_like_it does not exist"):
        stack.delete_adapter("nothing_like_it")
    with pytest.raises(ValueError, match=r"folders with an adapter_config.json each in .* but there is none"):
        AdapterStack.from_pretrained(counting_model, tmp_path)


def test_peft_models_can_be_nested_too(counting_model, pixels):
    base = copy.deepcopy(counting_model)
    inner = get_peft_model(counting_model, configs()["low_rank"], adapter_name="low_rank")
    nested = get_peft_model(inner, configs()["visual"], adapter_name="visual")
    stack = AdapterStack(copy.deepcopy(base), {name: configs()[name] for name in ("low_rank", "visual")})
    values = {name.replace("base_model.model.", ""): p for name, p in nested.named_parameters()}
    for name, parameter in stack.named_parameters():
        parameter.data.copy_(values[name.removeprefix("base_model.model.")])
    torch.testing.assert_close(scores(nested.eval(), pixels), scores(stack.eval(), pixels))
    with torch.no_grad(), nested.disable_adapter():
        assert alike(scores(nested, pixels), scores(base, pixels))
    with pytest.raises(ValueError, match="already has an adapter 'visual'.*`AdapterStack`"):
        get_peft_model(nested, configs()["context"], adapter_name="visual")


# Files, cards, and one call for base and adapter


def test_one_call_loads_base_and_adapter(saved_base, pixels, tmp_path, tokenizer):
    model = get_peft_model(CLIPForCounting.from_pretrained(saved_base), configs()["visual"]).eval()
    model.save_pretrained(tmp_path / "one")
    expected = scores(model, pixels)
    peft_own = AutoPeftModel.from_pretrained(str(tmp_path / "one"), import_allowlist=["count_clip"])
    # PEFT's method fails for an adapter with a tokenizer, as a training run saves it.
    tokenizer.save_pretrained(tmp_path / "one")
    for loaded in (peft_own, load_adapted_model(tmp_path / "one"), AutoModel.from_pretrained(tmp_path / "one")):
        assert alike(scores(loaded.eval(), pixels), expected)
    assert any(p.requires_grad for p in load_adapted_model(tmp_path / "one", is_trainable=True).parameters())


def test_options_of_the_one_call_apply_to_the_base(saved_base, pixels, tmp_path):
    model = get_peft_model(CLIPForCounting.from_pretrained(saved_base), configs()["visual"])
    model.save_pretrained(tmp_path / "one")
    loaded = load_adapted_model(
        tmp_path / "one", dtype=torch.bfloat16, attn_implementation="eager", local_files_only=True
    )
    assert loaded.get_base_model().dtype == torch.bfloat16
    assert loaded.get_base_model().config._attn_implementation == "eager"
    with pytest.raises(TypeError, match="num_tentacles"):
        load_adapted_model(tmp_path / "one", num_tentacles=8)


@pytest.mark.parametrize("load", [load_adapted_model, lambda name: AdapterStack.from_pretrained(None, name)])
def test_error_names_a_missing_folder_that_is_no_hub_name(load, tmp_path):
    with pytest.raises(ValueError, match=r"no folder '.*/nowhere', and a name on the Hub is written 'owner/name'"):
        load(tmp_path / "nowhere")


def test_one_call_loads_base_and_stack(density_model, windows, tmp_path):
    density_model.save_pretrained(tmp_path / "base")
    base = CLIPCountDensityModel.from_pretrained(tmp_path / "base")
    stack = AdapterStack(base, configs()).eval()
    stack.save_pretrained(tmp_path / "stack")
    loaded = load_adapted_model(tmp_path / "stack")
    assert isinstance(loaded, AdapterStack)
    assert isinstance(loaded.get_base_model(), CLIPCountDensityModel)
    assert alike(loaded.eval()(windows, IDS).density_map, stack(windows, IDS).density_map)


def test_base_is_loaded_with_its_class(saved_base, pixels, tmp_path):
    base = CLIPVisionModel.from_pretrained(saved_base)
    get_peft_model(base, VisualPromptConfig(num_virtual_tokens=2)).save_pretrained(tmp_path / "one")
    assert isinstance(load_adapted_model(tmp_path / "one").get_base_model(), CLIPVisionModel)


@pytest.mark.skipif(
    version.parse(peft.__version__) < version.parse(MIN_PEFT_VERSION),
    reason=f"transformers {transformers.__version__} loads adapters with PEFT {MIN_PEFT_VERSION} or later only",
)
def test_adapter_methods_of_transformers_accept_the_prompts(density_model, windows, tmp_path):
    """Its loader finds adapters' weights by a string in their names, which those of a base must not have."""
    density_model.save_pretrained(tmp_path / "base")
    model = get_peft_model(CLIPCountDensityModel.from_pretrained(tmp_path / "base"), configs()["visual"]).eval()
    model.save_pretrained(tmp_path / "one")
    loaded = CLIPCountDensityModel.from_pretrained(tmp_path / "one")
    assert alike(loaded(windows, IDS).density_map, model(windows, IDS).density_map)
    loaded.disable_adapters()
    with torch.no_grad():
        assert alike(loaded(windows, IDS).density_map, density_model(windows, IDS).density_map)
    fresh = CLIPCountDensityModel.from_pretrained(tmp_path / "base")
    fresh.add_adapter(ContextPromptConfig(num_virtual_tokens=3))
    fresh.save_pretrained(tmp_path / "two")
    (name,) = load_file(tmp_path / "two" / "adapter_model.safetensors")
    assert name == "base_model.model.text_model.embeddings.token_embedding.clip_coop_embeds"


def test_card_names_the_base_and_its_revision(counting_model, tmp_path):
    counting_model.name_or_path = counting_model.config.name_or_path = "org/count-clip"
    model = get_peft_model(counting_model, configs()["visual"], revision="abc123")
    model.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "org/count-clip"
    assert (card.data.library_name, card.data.tags[0]) == ("peft", "base_model:adapter:org/count-clip")
    assert (
        "- Base: `org/count-clip`\n- Revision of the base: `abc123`\n- visual prompts (VPT), 1,960 parameters"
        in card.text
    )
    assert "PeftModel.from_pretrained(base" in card.text
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/count-clip", "abc123")


def test_card_states_the_commit_of_main(counting_model, tmp_path, monkeypatch):
    refs = tmp_path / "cache" / "models--org--count-clip" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("0123456789" * 4)
    (refs.parent / "snapshots" / ("0123456789" * 4)).mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    counting_model.name_or_path = counting_model.config.name_or_path = "org/count-clip"
    get_peft_model(counting_model, configs()["context"]).save_pretrained(tmp_path / "one")
    text = (tmp_path / "one" / "README.md").read_text()
    assert f"Revision of the base: `main`, at the time `{'0123456789' * 4}`" in text


def test_card_of_a_base_in_a_folder_names_the_folder_but_no_hub_model(saved_base, tmp_path):
    stack = AdapterStack(CLIPForCounting.from_pretrained(saved_base), configs())
    stack.save_pretrained(tmp_path / "stack")
    card = ModelCard.load(tmp_path / "stack" / "README.md")
    assert card.data.base_model is None
    assert not [tag for tag in card.data.tags if tag.startswith("base_model")]
    assert f"- Base: `{saved_base}`" in card.text
    for line in (
        "`visual`: visual prompts (VPT), 1,960",
        "`context`: context prompts (CoOp), 72",
        "`low_rank`: LoRA, ",
    ):
        assert f"- {line}" in card.text


def test_card_written_by_hand_keeps_its_text(saved_base, tmp_path):
    model = get_peft_model(CLIPForCounting.from_pretrained(saved_base), configs()["visual"])
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "README.md").write_text("---\nlicense: mit\n---\n\nMine.\n")
    model.save_pretrained(tmp_path / "one")
    card = ModelCard.load(tmp_path / "one" / "README.md")
    assert "Mine." in card.text
    assert "Revision" not in card.text
    assert (card.data.license, card.data.library_name) == ("mit", "peft")


def test_adapters_without_a_loadable_base_raise(counting_model, saved_base, tmp_path):
    counting_model.name_or_path = ""
    get_peft_model(counting_model, configs()["visual"]).save_pretrained(tmp_path / "nameless")
    with pytest.raises(ValueError, match="'.*nameless' does not name its base"):
        load_adapted_model(tmp_path / "nameless")
    with pytest.raises(ValueError, match=r"adapter_config.json in '.*base' or in folders below it"):
        load_adapted_model(saved_base)
    model = get_peft_model(CLIPForCounting.from_pretrained(saved_base), configs()["visual"])
    model.save_pretrained(tmp_path / "strange")
    path = tmp_path / "strange" / "adapter_config.json"
    config = json.loads(path.read_text())
    config["auto_mapping"] = {"base_model_class": "run", "parent_library": "subprocess"}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is a 'run' of 'subprocess'; only classes of count_clip and transformers"):
        load_adapted_model(tmp_path / "strange")


FRESH = """
import sys
import count_clip
assert "peft" not in sys.modules, "count_clip imports peft"
{beginning}
from transformers import AutoModel
from peft import PeftModel
assert "count_clip.modeling.prompt_tuning" in sys.modules
model = PeftModel.from_pretrained(AutoModel.from_pretrained(sys.argv[1]), sys.argv[2])
print(type(model.base_model).__name__, type(model.get_base_model()).__name__)
"""


@pytest.mark.parametrize("beginning", ["", "from count_clip.modeling import prompt_tuning_text"])
def test_importing_the_package_registers_the_prompts_with_peft(saved_base, tmp_path, beginning):
    model = get_peft_model(CLIPForCounting.from_pretrained(saved_base), configs()["visual"])
    model.save_pretrained(tmp_path / "one")
    program = FRESH.format(beginning=beginning)
    if beginning.endswith("prompt_tuning_text"):
        program = program.replace(
            "from transformers", "from count_clip import VisualPromptConfig\nfrom transformers", 1
        )
    command = [sys.executable, "-c", program, str(saved_base), str(tmp_path / "one")]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == ["VisualPromptModel", "CLIPForCounting"]


# Prompts of a density model


@pytest.mark.parametrize("readout", ["eos", "authors"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"visual_prompt_depth": 1}, {"visual_prompt_depth": 3}, {"num_context_tokens": 0}, {"num_visual_prompts": 0}],
)
def test_prompts_of_a_density_model_convert_to_adapters_exactly(density_config, windows, fields, readout):
    torch.manual_seed(2)
    model = CLIPCountDensityModel(density_config(**fields, text_readout=readout)).eval()
    stack = prompts_to_adapter(model)
    base = stack.get_base_model()
    assert (base.visual_prompts, base.context_prompts) == (None, None)
    for training in (False, True):
        model.train(training), stack.train(training)
        torch.manual_seed(3)
        expected = model(windows, IDS)
        torch.manual_seed(3)
        found = stack(windows, IDS)
        assert alike(found.density_map, expected.density_map)
        assert alike(found.text_embeds, expected.text_embeds)
    model.eval(), stack.eval()
    with torch.no_grad():
        # In inference a density model only reads its prompts, which rounds differently.
        torch.testing.assert_close(stack(windows, IDS).density_map, model(windows, IDS).density_map)
        back = adapter_to_prompts(stack)
        assert alike(back(windows, IDS).density_map, model(windows, IDS).density_map)
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    fields = back.config.to_dict()
    assert {k: v for k, v in model.config.to_dict().items() if fields[k] != v} in ({}, {"visual_prompt_depth": 2})


def test_exported_prompts_are_saved_with_their_base(density_model, windows, tmp_path):
    stack = prompts_to_adapter(density_model, tmp_path / "base").eval()
    stack.save_pretrained(tmp_path / "prompts")
    loaded = load_adapted_model(tmp_path / "prompts").eval()
    with torch.no_grad():
        assert alike(loaded(windows, IDS).density_map, stack(windows, IDS).density_map)
    back = adapter_to_prompts(loaded)
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in density_model.state_dict().items())
    # Without a folder they do not claim to belong to the model with prompts.
    density_model.name_or_path = "org/clip-count"
    assert prompts_to_adapter(density_model).peft_config["visual"].base_model_name_or_path is None


def test_trained_adapters_convert_to_prompts_of_a_density_model(density_config, windows):
    torch.manual_seed(2)
    base = CLIPCountDensityModel(density_config(num_visual_prompts=0, num_context_tokens=0)).eval()
    visual = VisualPromptConfig(num_virtual_tokens=4, depth=3, norm=True, modules_to_save=["decoder"])
    stack = AdapterStack(base, {"v": visual, "c": ContextPromptConfig(num_virtual_tokens=3)})
    optimizer = torch.optim.SGD([p for p in stack.parameters() if p.requires_grad], lr=0.1)
    stack(windows, IDS, labels=torch.rand(2, 48, 48)).loss.backward()
    optimizer.step()
    stack.eval()
    own = adapter_to_prompts(stack)
    torch.testing.assert_close(own(windows, IDS).density_map, stack(windows, IDS).density_map)
    config = own.config
    assert (config.num_visual_prompts, config.visual_prompt_depth, config.num_context_tokens) == (4, 3, 3)
    assert all(p.requires_grad for p in own.parameters())


def test_adapters_without_equivalent_prompts_raise(density_model, density_config, counting_model):
    with pytest.raises(ValueError, match="their base is a CLIPForCounting"):
        adapter_to_prompts(get_peft_model(counting_model, VisualPromptConfig()))
    with pytest.raises(ValueError, match="already has prompts in the tower that adapter 'default' tunes"):
        adapter_to_prompts(get_peft_model(copy.deepcopy(density_model), VisualPromptConfig(norm=True)))

    def bare():
        return CLIPCountDensityModel(density_config(num_visual_prompts=0, num_context_tokens=0))

    with pytest.raises(ValueError, match="no prompts to export"):
        prompts_to_adapter(bare())
    for config, needed in (
        (VisualPromptConfig(), "it supports visual prompts with `norm=True`"),
        (ContextPromptConfig(position="end"), "it supports a shared context with"),
        (ContextPromptConfig(class_token_ids=[[1]]), "it supports a shared context with"),
        (configs()["low_rank"], "it supports visual and context prompts"),
    ):
        with pytest.raises(ValueError, match=f"cannot express the adapter 'default'; {needed}"):
            adapter_to_prompts(get_peft_model(bare(), config))
    stack = AdapterStack(bare(), {name: VisualPromptConfig(norm=True) for name in "ab"})
    with pytest.raises(ValueError, match="one set of prompts in a tower"):
        adapter_to_prompts(stack)
