"""Large batches in small memory: the gradients are those of the whole batch."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from torch import nn

from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD
from count_clip.modeling import modeling_count_clip
from count_clip.trainers.counting.collator import CountingDataCollator
from count_clip.trainers.counting.config import CountingConfig
from count_clip.trainers.counting.trainer import CountingTrainer, freeze_towers
from count_clip.trainers.running.adapters import adapter_configs, add_adapters


@pytest.fixture
def rows(make_image):
    """Eleven rows, two of three with a number."""
    numbers = [2 + i % 9 if i % 3 else 0 for i in range(11)]
    texts = [f"{NUMBER_TO_WORD[number]} dogs" if number else "a wide street" for number in numbers]
    return [
        {"image": make_image(32, 32, i), "image_id": str(i), "text": texts[i], "number": numbers[i]} for i in range(11)
    ]


@pytest.fixture
def batch(rows, counting_processor):
    return CountingDataCollator(counting_processor, num_counterfactuals=2)(rows)


def _gradients(model: nn.Module, batch: dict, chunk_size: int | None = None, seed: int = 3) -> dict:
    model.zero_grad()
    torch.manual_seed(seed)
    loss = model(**batch, gradient_cache_chunk_size=chunk_size).loss
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


def _assert_same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def _with_dropout(model: nn.Module) -> nn.Module:
    model.config.text_config.attention_dropout = model.config.vision_config.attention_dropout = 0.2
    for module in model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.2
    return model.train()


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 11, 100])
def test_gradients_are_those_of_the_whole_batch(counting_model, batch, chunk_size):
    counting_model.train().config.counting_loss_weight = 0.7
    expected = _gradients(counting_model, batch)
    assert expected["logit_scale"].abs() > 0
    _assert_same(_gradients(counting_model, batch, chunk_size), expected)


def test_dropout_is_the_same_when_a_chunk_is_encoded_again(counting_model, batch, monkeypatch):
    _with_dropout(counting_model)
    found = _gradients(counting_model, batch, chunk_size=4)
    assert not torch.equal(_gradients(counting_model, batch, chunk_size=4, seed=4)["loss"], found["loss"])
    # The same chunks, encoded once with a graph that is kept.
    monkeypatch.setattr(modeling_count_clip, "checkpoint", lambda embed, *chunk, use_reentrant: embed(*chunk))
    _assert_same(found, _gradients(counting_model, batch, chunk_size=4))


def test_gradients_of_adapters_are_those_of_the_whole_batch(counting_model, counting_processor, batch):
    torch.manual_seed(0)
    adapters = [{"type": "lora", "init_lora_weights": False}, {"type": "visual_prompt"}]
    model = add_adapters(counting_model, adapter_configs(adapters, counting_processor.tokenizer)).train()
    expected = _gradients(model, batch)
    assert len(expected) > 3
    _assert_same(_gradients(model, batch, chunk_size=3), expected)


def test_gradients_in_bfloat16_are_roughly_those_of_the_whole_batch(counting_model, batch):
    counting_model.train()
    exact = _gradients(counting_model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _gradients(counting_model, batch, chunk_size=4)
    for name in ("visual_projection.weight", "text_projection.weight", "vision_model.embeddings.class_embedding"):
        similarity = torch.nn.functional.cosine_similarity(found[name].flatten(), exact[name].flatten(), dim=0)
        assert similarity > 0.98, name
        assert not torch.equal(found[name], exact[name])


def test_forward_pass_keeps_little_more_than_embeddings(counting_model, batch):
    counting_model.train()

    def kept(chunk_size: int | None) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            counting_model(**batch, gradient_cache_chunk_size=chunk_size)
        return sum(sizes)

    assert kept(4) < 0.1 * kept(None)


@contextlib.contextmanager
def _tower_calls(model: nn.Module):
    calls = {"vision": [], "text": []}
    hooks = [
        getattr(model, f"{tower}_model").encoder.register_forward_hook(
            lambda module, args, kwargs, output, tower=tower: calls[tower].append(len(kwargs["inputs_embeds"])),
            with_kwargs=True,
        )
        for tower in calls
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("chunk_size", "vision", "text"),
    [(None, [8], [18]), (4, [4, 4] * 2, [3, 4, 4, 3, 4] * 2)],
)
def test_a_step_encodes_every_image_and_every_caption_once(
    counting_model, counting_processor, rows, tmp_path, chunk_size, vision, text
):
    args = CountingConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        per_device_train_batch_size=8,
        max_steps=1,
        num_counterfactuals=2,
        gradient_cache_chunk_size=chunk_size,
        train_sampling_strategy="sequential",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = CountingTrainer(counting_model, args, rows, processing_class=counting_processor)
    with _tower_calls(counting_model) as calls:
        trainer.train()
    # Eight captions and two wrong ones for each of the five that count. With chunks, once more for the gradients.
    assert sorted(calls["vision"]) == sorted(vision)
    assert sorted(calls["text"]) == sorted(text)


def test_frozen_tower_is_not_encoded_again(counting_model, batch):
    freeze_towers(counting_model, "text")
    with _tower_calls(counting_model) as calls:
        _gradients(counting_model.train(), batch, chunk_size=4)
    assert (len(calls["vision"]), len(calls["text"])) == (3, 14)


@pytest.mark.parametrize("fields", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}])
def test_training_ends_with_the_same_weights(counting_model, counting_processor, rows, tmp_path, fields):
    models = [counting_model, copy.deepcopy(counting_model)]
    for model, chunk_size in zip(models, (None, 3), strict=True):
        args = CountingConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            per_device_train_batch_size=4,
            max_steps=2,
            optim="sgd",
            learning_rate=0.1,
            num_counterfactuals=2,
            gradient_cache_chunk_size=chunk_size,
            save_strategy="no",
            disable_tqdm=True,
            **fields,
        )
        CountingTrainer(model, args, rows, processing_class=counting_processor).train()
    tolerance = 2e-2 if fields.get("bf16") else 1e-5
    for (name, found), expected in zip(models[1].named_parameters(), models[0].parameters(), strict=True):
        np.testing.assert_allclose(found.detach(), expected.detach(), atol=tolerance, err_msg=name)


def test_chunks_also_save_memory_without_gradients(counting_model, batch):
    with torch.no_grad():
        torch.testing.assert_close(
            counting_model(**batch, gradient_cache_chunk_size=2).logits_per_image,
            counting_model(**batch).logits_per_image,
            atol=1e-4,
            rtol=1e-4,
        )


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_chunk_sizes_below_one_are_rejected(counting_model, batch, tmp_path, chunk_size):
    with pytest.raises(ValueError, match=f"`gradient_cache_chunk_size` must be at least 1, but got {chunk_size}"):
        counting_model(**batch, gradient_cache_chunk_size=chunk_size)
    with pytest.raises(ValueError, match=f"`gradient_cache_chunk_size` must be at least 1, but got {chunk_size}"):
        CountingConfig(output_dir=str(tmp_path), use_cpu=True, gradient_cache_chunk_size=chunk_size)
