"""The recipes for CLIPs of the web, a few steps of each with stand-ins for the CLIP and the data."""

import importlib.util
import json
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from count_clip import load_adapted_model
from count_clip.cli import main as count_clip_main
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.trainers.run import main
from count_clip.trainers.running.arguments import find_config, load_config, parse_run


def _sets() -> dict:
    # Tests are no package to import from.
    path = Path(__file__).parents[2] / "datasets_scripts" / "conftest.py"
    spec = importlib.util.spec_from_file_location("small_sets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


fsc147 = _sets()["fsc147"]
# What a CPU and a set of five images need in the place of what is in the file; everything else stays as it is.
SMALL = ["--bf16", "false", "--dataloader_num_workers", "0", "--save_strategy", "no", "--disable_tqdm", "true"]


@pytest.fixture(scope="module")
def clip(tokenizer, counting_processor, tmp_path_factory) -> str:
    """A CLIP of as many layers as those of the web, each next to nothing."""
    layers = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 12, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config={**layers, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 40},
            vision_config={**layers, "image_size": 32, "patch_size": 8},
            projection_dim=128,
        )
    )
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    counting_processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def caption_sets(tmp_path, monkeypatch) -> None:
    """In the folder that a run starts in: a counting set built by the command, general pairs, and CountBench."""
    monkeypatch.chdir(tmp_path)
    captions = ["two dogs", "three cats on a mat", "seven hens", "two cows"]
    images = [Image.new("RGB", (40, 30), (20 * place, 90, 30)) for place in range(4)]
    rows = datasets.Dataset.from_dict({"image": images, "caption": captions})
    rows.to_parquet(tmp_path / "shard.parquet")
    assert count_clip_main(["data", "counting-set", "shard.parquet", "--output", "counting"]) == 0
    (tmp_path / "general").mkdir()
    texts = [f"an image, number {place} of them" for place in range(60)]
    general = datasets.Dataset.from_dict({"image": images * 15, "text": texts})
    general.to_parquet(tmp_path / "general" / "train.parquet")
    (tmp_path / "CountBench" / "images").mkdir(parents=True)
    benchmark = [{"text": text, "number": n, "image_url": ""} for text, n in zip(captions, (2, 3, 7, 2), strict=True)]
    (tmp_path / "CountBench" / "CountBench.json").write_text(json.dumps(benchmark))
    for place, image in enumerate(images):
        image.save(tmp_path / "CountBench" / "images" / f"{place}.jpg")


@pytest.mark.parametrize("variant", ["", "l14"])
def test_count_aware_clip_trains_on_the_set_that_the_command_builds(clip, caption_sets, tmp_path, variant):
    batch = ["--per_device_train_batch_size", "32", "--gradient_cache_chunk_size", "8", "--max_steps", "2"]
    chosen = ["--config", variant] if variant else []
    results = main(["count_aware_clip", *chosen, "--model_name_or_path", clip, *batch, *SMALL])
    run, args = parse_run("count_aware_clip", chosen)
    assert results["num_rows"] == {"dataset": 64, "test_dataset": 4}
    assert results["num_trained_parameters"] == results["num_parameters"]
    assert results["train"]["train_loss"] > 0
    assert {"accuracy", "mean_deviation"} <= set(results["after"]["test"])
    tuned = CLIPForCounting.from_pretrained(tmp_path / args.output_dir)
    assert run.model_config["counting_loss_weight"] == tuned.config.counting_loss_weight == 1
    before = CLIPForCounting.from_pretrained(clip).state_dict()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in tuned.state_dict().items())


@pytest.mark.parametrize("variant", ["", "b32", "adapters"])
def test_fsc147_recipe_trains_both_parts(clip, fsc147, tmp_path, monkeypatch, variant):
    monkeypatch.chdir(tmp_path)
    small = ["--num_train_epochs", "3", "--contrastive_epochs", "1", "--logging_steps", "1", "--eval_steps", "1"]
    # Two images are a batch, and an epoch. The best of its states is only chosen of those that are kept.
    small += ["--load_best_model_at_end", "false", "--lr_step_epochs", "2"]
    chosen = ["--config", variant] if variant else []
    results = main(["fsc147_density", *chosen, "--clip_name_or_path", clip, *small, *SMALL])
    _, args = parse_run("fsc147_density", chosen)
    assert results["num_rows"] == {"dataset": 2, "eval_dataset": 2, "test_dataset": 1}
    assert results["num_trained_parameters"] < results["num_parameters"]
    assert set(results["after"]) == {"eval", "test"}
    log = json.loads((tmp_path / args.output_dir / "trainer_state.json").read_text())["log_history"]
    rates = [entry["learning_rate"] for entry in log if "learning_rate" in entry]
    assert rates == pytest.approx([1e-4, 1e-4, 0.33e-4])
    if variant == "adapters":
        assert not (tmp_path / args.output_dir / "model.safetensors").exists()
        adapted = load_adapted_model(str(tmp_path / args.output_dir))
        assert sorted(adapted.peft_config) == ["context_prompt_adapter", "visual_prompt_adapter"]
        return
    tuned = CLIPCountDensityModel.from_pretrained(tmp_path / args.output_dir)
    assert (tuned.config.num_visual_prompts, tuned.config.visual_prompt_depth) == (20, 10)
    frozen = CLIPModel.from_pretrained(clip).vision_model.state_dict()
    for name, tensor in frozen.items():
        torch.testing.assert_close(tuned.vision_model.state_dict()[name], tensor, atol=0, rtol=0)


def test_recipes_say_what_the_papers_say():
    """Against the numbers of the papers and of the authors' `run.py`, written down here once more."""
    _, counting = parse_run("count_aware_clip", [])
    assert (counting.counting_fraction, counting.num_counterfactuals, counting.learning_rate) == (1 / 32, 1, 5e-6)
    run, density = parse_run("fsc147_density", [])
    assert (density.contrastive_epochs, density.num_train_epochs - density.contrastive_epochs) == (20, 200)
    assert (density.per_device_train_batch_size, density.learning_rate, density.weight_decay) == (32, 1e-4, 0.05)
    assert (density.adam_beta1, density.adam_beta2) == (0.9, 0.95)
    assert (density.lr_step_epochs, density.lr_step_gamma, density.trainable) == (100, 0.33, "prompts")
    steps = -(-3659 // density.per_device_train_batch_size)
    assert steps == density.logging_steps
    assert density.eval_steps == density.save_steps == 5 * steps
    assert list(load_config(find_config("fsc147_density"))["variants"]) == ["b32", "l14", "l14-336", "adapters"]
    assert run.clip_name_or_path == "openai/clip-vit-base-patch16"
