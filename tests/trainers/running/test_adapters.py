"""Runs that train adapters: the `peft` key of `run.py`."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor
from count_clip.modeling.processing_count_clip import CountCLIPProcessor
from count_clip.modeling.prompt_tuning import AdapterStack, load_adapted_model
from count_clip.trainers.core.trainer import base_name
from count_clip.trainers.run import main
from count_clip.trainers.running.adapters import adapter_configs, add_adapters
from count_clip.trainers.running.arguments import parse_run


TOWERS = {
    "vocab_size": 560,
    "projection_dim": 32,
    "vision": {
        "patch_size": 8,
        "image_size": 48,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "text": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
    },
}
COUNTING = {
    "task": "counting",
    "scratch": TOWERS,
    "dataset": {"name": "countscenes", "objects": "shapes", "num_scenes": 16, "image_size": 48},
    "test_dataset": {"config": "benchmark", "num_scenes": 9},
    "max_steps": 2,
}
DENSITY = {
    "task": "density",
    "scratch": TOWERS,
    "model_config": {
        "window_size": 48,
        "num_norm_groups": 2,
        "num_visual_prompts": 0,
        "num_context_tokens": 0,
        "num_interaction_heads": 2,
        # No dropout but that of the adapters.
        "interaction_dropout": 0.0,
    },
    "dataset": {"name": "countscenes", "objects": "shapes", "num_scenes": 12, "image_size": 96},
    "test_dataset": {"num_scenes": 4},
    "num_train_epochs": 1,
}
VISUAL = {"type": "visual_prompt", "num_virtual_tokens": 3, "depth": 2, "dropout": 0.1}
CONTEXT = {"type": "context_prompt", "num_virtual_tokens": 2}
LORA = {"type": "lora", "r": 2}


def writer(folder):
    def write(values: dict, **changes) -> str:
        common = {
            "output_dir": str(folder / "out"),
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        path = folder / "run.yaml"
        path.write_text(yaml.safe_dump({**common, **values, **changes}))
        return str(path)

    return write


@pytest.fixture
def write(tmp_path):
    return writer(tmp_path)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A base of each task, as a run leaves it."""
    folder = tmp_path_factory.mktemp("bases")
    folders = {values["task"]: str(folder / values["task"]) for values in (COUNTING, DENSITY)}
    for values in (COUNTING, DENSITY):
        main([writer(folder)(values, max_steps=1, test_dataset=None, output_dir=folders[values["task"]])])
    return folders


def on_base(values, bases):
    return {**values, "scratch": None, "model_config": None, "model_name_or_path": bases[values["task"]]}


@pytest.mark.parametrize("adapter", [VISUAL, CONTEXT, LORA], ids=["visual", "context", "lora"])
@pytest.mark.parametrize("values", [COUNTING, DENSITY], ids=["counting", "density"])
def test_run_trains_and_saves_an_adapter_alone(write, tmp_path, bases, values, adapter):
    results = main([write(on_base(values, bases), peft=adapter)])
    assert 0 < results["num_trained_parameters"] < 0.1 * results["num_parameters"]
    assert results["after"]["test"]["num_rows"] == (9 if values is COUNTING else 4)
    out = tmp_path / "out"
    assert not (out / "model.safetensors").exists()
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == bases[values["task"]]
    saved = load_file(out / "adapter_model.safetensors")
    assert sum(value.numel() for value in saved.values()) == results["num_trained_parameters"]
    # Its weights changed, and it loads with the processor in its folder.
    counting = values is COUNTING
    start = main(
        [write(on_base(values, bases), peft=adapter, output_dir=str(tmp_path / "start")), *NO_TRAINING[counting]]
    )
    assert start["num_trained_parameters"] == results["num_trained_parameters"]
    before = load_file(tmp_path / "start" / "adapter_model.safetensors")
    assert any(not torch.equal(before[name], value) for name, value in saved.items())
    model = load_adapted_model(out)
    image = Image.new("RGB", (60, 50))
    if counting:
        assert isinstance(model.get_base_model(), CLIPForCounting)
        inputs = CountCLIPProcessor.from_pretrained(out)(images=[image], text=["two dogs"])
        assert torch.isfinite(model(**inputs).logits_per_image).all()
    else:
        inputs = CLIPCountDensityProcessor.from_pretrained(out)(images=[image], text="red apples")
        adapted = model(**inputs).counts
        assert torch.isfinite(adapted).all()
        torch.testing.assert_close(CLIPCountDensityModel.from_pretrained(out).eval()(**inputs).counts, adapted)


NO_TRAINING = {True: ["--max_steps", "0", "--num_train_epochs", "0"], False: ["--num_train_epochs", "0"]}


def test_run_trains_several_adapters_and_modules_beside_them(write, tmp_path, bases):
    base = load_file(Path(bases["density"]) / "model.safetensors")
    adapters = [{**VISUAL, "modules_to_save": ["decoder"]}, CONTEXT, {**LORA, "name": "low_rank"}]
    results = main([write(on_base(DENSITY, bases), peft=adapters, contrastive_epochs=1, num_train_epochs=2)])
    out = tmp_path / "out"
    names = ["visual_prompt_adapter", "context_prompt_adapter", "low_rank"]
    saved = {name: load_file(out / name / "adapter_model.safetensors") for name in names}
    assert (
        sum(value.numel() for part in saved.values() for value in part.values()) == results["num_trained_parameters"]
    )
    key = "decoder.density_projection.weight"
    assert not torch.equal(saved["visual_prompt_adapter"][f"base_model.model.{key}"], base[key])
    model = load_adapted_model(out)
    assert isinstance(model, AdapterStack)
    assert all(
        torch.equal(value, model.get_base_model().state_dict()[name])
        for name, value in base.items()
        if "decoder" not in name
        and "token_embedding" not in name
        and "pre_layrnorm" not in name
        and "_proj." not in name
    )


def test_density_decoder_rests_in_contrastive_epochs(write, tmp_path, bases):
    adapter = {**VISUAL, "modules_to_save": ["decoder", "contrastive_patch_projection"]}
    config = write(on_base(DENSITY, bases), peft=adapter, contrastive_epochs=1, max_steps=2, weight_decay=0.5)
    main([config])
    base = load_file(Path(bases["density"]) / "model.safetensors")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    saved = {base_name(name): value for name, value in saved.items()}
    assert torch.equal(saved["decoder.density_projection.weight"], base["decoder.density_projection.weight"])
    name = "contrastive_patch_projection.weight"
    assert not torch.equal(saved[name], base[name])


@pytest.mark.parametrize("adapters", [VISUAL, [VISUAL, CONTEXT]], ids=["one", "several"])
def test_stopped_run_ends_with_the_weights_of_one_that_was_not(write, tmp_path, bases, adapters):
    config = write(on_base(DENSITY, bases), num_train_epochs=2, save_strategy="epoch", peft=adapters)
    main([config])
    out, whole = tmp_path / "out", tmp_path / "whole"
    shutil.copytree(out, whole)
    # As if it had been stopped while it wrote the last checkpoint.
    (out / "checkpoint-6" / "trainer_state.json").unlink()
    results = main([config, "--resume_from_checkpoint", "auto"])
    assert results["train"]["epoch"] == 2
    names = ["."] if adapters is VISUAL else ["visual_prompt_adapter", "context_prompt_adapter"]
    for name in names:
        expected, found = (load_file(folder / name / "adapter_model.safetensors") for folder in (whole, out))
        middle = load_file(out / "checkpoint-3" / name / "adapter_model.safetensors")
        assert all(torch.equal(expected[key], found[key]) for key in expected)
        assert any(not torch.equal(expected[key], middle[key]) for key in expected)


@pytest.mark.parametrize("adapters", [VISUAL, [VISUAL, CONTEXT]], ids=["one", "several"])
def test_best_adapter_is_loaded_at_the_end(write, tmp_path, bases, adapters):
    changes = {
        "eval_dataset": {"num_scenes": 4},
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "mae",
        "greater_is_better": True,
        "num_train_epochs": 3,
    }
    main([write(on_base(DENSITY, bases), peft=adapters, **changes)])
    out = tmp_path / "out"
    best = Path(json.loads((out / "checkpoint-9" / "trainer_state.json").read_text())["best_model_checkpoint"])
    for file in best.glob("**/adapter_model.safetensors"):
        expected, found = load_file(file), load_file(out / file.relative_to(best))
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_base_that_no_folder_holds_is_saved_beside_the_adapter(write, tmp_path):
    config = write(DENSITY, peft=VISUAL, save_strategy="steps", save_steps=2, max_steps=4)
    main([config, "--output_dir", str(tmp_path / "whole")])
    out = tmp_path / "out"
    main([config])
    base = load_file(out / "base" / "model.safetensors")
    assert load_adapted_model(out).get_base_model().name_or_path == str(out / "base")
    (out / "checkpoint-4" / "trainer_state.json").unlink()
    # Another seed would make another base; a run that goes on keeps the one it has.
    main([config, "--resume_from_checkpoint", "auto", "--seed", "5"])
    assert all(torch.equal(value, base[name]) for name, value in load_file(out / "base" / "model.safetensors").items())
    assert CLIPCountDensityProcessor.from_pretrained(out / "base").image_processor.window_size == 48


def test_base_with_changed_fields_is_saved_too(write, tmp_path, bases):
    values = {**on_base(DENSITY, bases), "model_config": {"density_scale": 30.0}}
    main([write(values, peft=CONTEXT, max_steps=1)])
    assert load_adapted_model(tmp_path / "out").config.density_scale == 30.0


def test_context_starts_from_words_that_the_runs_tokenizer_reads(write, tmp_path, bases):
    main([write(on_base(DENSITY, bases), peft={"type": "context_prompt", "init_text": "count the"}, max_steps=1)])
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    tokenizer = CLIPCountDensityProcessor.from_pretrained(bases["density"]).tokenizer
    assert config["init_token_ids"] == tokenizer("count the", add_special_tokens=False)["input_ids"]
    assert config["num_virtual_tokens"] == len(config["init_token_ids"])


def test_processor_leaves_the_context_its_room(write, tmp_path, bases):
    for values, processor_class in ((COUNTING, CountCLIPProcessor), (DENSITY, CLIPCountDensityProcessor)):
        out = tmp_path / values["task"]
        main([write(on_base(values, bases), peft=CONTEXT, max_steps=1, test_dataset=None, output_dir=str(out))])
        model, processor = load_adapted_model(out), processor_class.from_pretrained(out)
        text = "three dogs " * 20
        if values is COUNTING:
            inputs = processor(images=[Image.new("RGB", (60, 50))], text=[text])
            assert inputs["input_ids"].shape[1] == 38
            assert torch.isfinite(model(**inputs).logits_per_image).all()
        else:
            with pytest.raises(ValueError, match="with 2 of learned context"):
                processor(images=[Image.new("RGB", (60, 50))], text=text)


def test_prompts_do_not_decay(write, bases):
    from count_clip.trainers.run import build_trainer
    from count_clip.trainers.running.adapters import adapt_model
    from count_clip.trainers.running.data import load_splits
    from count_clip.trainers.running.models import build_model

    run, args = parse_run(
        write(on_base(DENSITY, bases), peft=[{**VISUAL, "norm": True, "projection": True}, LORA]), []
    )
    splits = load_splits(run)
    model, processor = adapt_model(run, args, *build_model(run, splits["dataset"]))
    trainer = build_trainer(run, args, model, processor, splits)
    decays = {name.split(".", 2)[-1] for name in trainer.get_decay_parameter_names(model)}
    trained = {name.split(".", 2)[-1] for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained - decays if "lora" not in name} == {
        f"vision_model.pre_layrnorm.clip_vpt_{name}"
        for name in (
            "embeds.visual_prompt_adapter",
            "norm.visual_prompt_adapter.weight",
            "norm.visual_prompt_adapter.bias",
            "projection.visual_prompt_adapter.bias",
        )
    }
    assert all("lora" not in name for name in trained - decays)


def test_key_may_be_a_name_and_changed_on_the_command_line(write):
    run, _ = parse_run(write({**DENSITY, "peft": "lora"}), ["--peft.r", "4"])
    assert run.peft == {"type": "lora", "r": 4}
    run, _ = parse_run(write(DENSITY), ["--peft", "visual_prompt", "--peft.depth", "2"])
    assert run.peft == {"type": "visual_prompt", "depth": 2}
    run, _ = parse_run(write(DENSITY, peft=VISUAL), ["--peft", "null"])
    assert run.peft is None


def test_arguments_without_effect_are_reported(write, bases, caplog):
    logger = logging.getLogger("count_clip")
    logger.addHandler(caplog.handler)
    try:
        main([write(on_base(DENSITY, bases), peft=VISUAL, trainable="all", max_steps=1)])
    finally:
        logger.removeHandler(caplog.handler)
    assert "`trainable: all` has no effect with `peft`" in caplog.text


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ({"type": "visual_promt"}, "Unknown method `visual_promt` as `type` of `peft`. Did you mean `visual_prompt`"),
        ({"depth": 2}, "Unknown method `None` as `type` of `peft`"),
        ({"type": "visual_prompt", "dept": 2}, "`dept` in `peft` .visual_prompt.. Did you mean `depth`"),
        (
            {"type": "visual_prompt", "depth": "all"},
            "`depth` in `peft` .visual_prompt.: invalid int value: 'all'",
        ),
        ({"type": "visual_prompt", "depth": 3}, "`depth` is 3, but the vision tower has 2 layers"),
        (
            {"type": "context_prompt", "position": "up"},
            "Wrong value in `peft` .context_prompt.: `position` must be one",
        ),
        ({"type": "lora", "lora_rank": 2}, "Unknown key `lora_rank` in `peft` .lora."),
        (
            {"type": "prefix_tuning", "num_virtual_tokens": 2},
            "'prefix_tuning' in `peft` .prefix_tuning. is for language",
        ),
        ([], "`peft` is an empty list"),
        ([VISUAL, VISUAL], "Two adapters of `peft` are called 'visual_prompt_adapter'"),
        (3, "`peft` in .*: invalid dict value: '3'"),
    ],
)
def test_mistakes_are_named(write, adapters, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        main([write(DENSITY, peft=adapters)])


@pytest.mark.parametrize("name", ["countscenes_counting_prompts", "countscenes_density_prompts"])
def test_shipped_adapters_are_right(name, tokenizer, counting_model, density_config):
    run, _ = parse_run(name, [])
    model = counting_model
    if run.task == "density":
        model = CLIPCountDensityModel(density_config(num_visual_prompts=0, num_context_tokens=0))
    stack = add_adapters(model, adapter_configs(run.peft, tokenizer))
    assert len(stack.active_adapters) == len(run.peft)
