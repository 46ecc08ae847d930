import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from count_clip.trainers.density.config import DensityConfig
from count_clip.trainers.density.trainer import DensityTrainer


PROMPTS = ("visual_prompts.", "context_prompts.", "patch_projection.", "interaction.", "decoder.")
CONTRASTIVE = "contrastive_patch_projection."


@pytest.fixture
def rows(make_image):
    """Ten images of different sizes with zero to nine points."""
    return [
        {
            "image": make_image(60 + 5 * i, 70, i),
            "image_id": str(i),
            "text": "red dots" if i % 2 else "dots",
            "points": np.random.default_rng(i).uniform(0, 60, (i, 2)).tolist(),
            "count": i,
        }
        for i in range(10)
    ]


@pytest.fixture
def config(tmp_path):
    def build(**fields) -> DensityConfig:
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "per_device_train_batch_size": 4,
            "num_train_epochs": 1,
            "learning_rate": 1e-2,
            "save_strategy": "no",
            "disable_tqdm": True,
            "seed": 7,
        }
        return DensityConfig(**{**defaults, **fields})

    return build


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        ("prompts", PROMPTS),
        ("vision", (*PROMPTS, "vision_model.")),
        ("all", (*PROMPTS, "vision_model.", "text_model.", "text_projection.")),
    ],
)
def test_what_should_train_moves_and_the_rest_does_not(
    density_model, density_processor, rows, config, trainable, expected
):
    before = _weights(density_model)
    args = config(trainable=trainable, logging_steps=1)
    trainer = DensityTrainer(density_model, args, rows, processing_class=density_processor)
    trainer.train()
    wanted = {
        name
        for name in before
        # The tower's last norm is unused, and the text tower's final positions hold no token.
        if name.startswith(expected) and not name.startswith("vision_model.post_layernorm.")
    }
    # The bias of the keys shifts a softmax that does not feel shifts; and the patches meet a single text, over which
    # a softmax is one for all queries and keys.
    idle = {n for n in wanted if "k_proj" in n or (".text_layers." in n and ("q_proj" in n or "attention_norm" in n))}
    moved = _moved(density_model, before)
    assert wanted - idle <= moved <= wanted
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    for entry in losses:
        assert all(math.isfinite(entry[name]) for name in ("loss", "contrastive_loss", "density_loss"))
        assert entry["loss"] == pytest.approx(entry["density_loss"], rel=1e-3)


def test_prompts_of_a_image_train_together(density_model, density_processor, rows, config):
    asked_twice = rows + [{**row, "text": "blue dots", "points": [], "count": 0} for row in rows]
    before = _weights(density_model)
    args = config(prompts_per_image=2, logging_steps=1)
    trainer = DensityTrainer(density_model, args, asked_twice, processing_class=density_processor)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["pixel_values"].shape == (4, 3, 48, 48)
    assert batch["labels"].shape == (4, 2, 48, 48)
    result = trainer.train()
    assert result.global_step == 3  # ten images, four at once
    assert math.isfinite(result.training_loss)
    assert any(name.startswith("decoder.") for name in _moved(density_model, before))


def test_first_epochs_train_the_contrastive_loss_alone(density_model, density_processor, rows, config):
    snapshots = [_weights(density_model)]

    class Snapshot(TrainerCallback):
        def on_epoch_end(self, args, state, control, model=None, **kwargs):
            snapshots.append(_weights(model))

    args = config(contrastive_epochs=1, num_train_epochs=2, logging_strategy="epoch")
    trainer = DensityTrainer(density_model, args, rows, processing_class=density_processor, callbacks=[Snapshot()])
    trainer.train()

    def between(first, second):
        return {name for name in first if not torch.equal(first[name], second[name])}

    contrastive, density = between(snapshots[0], snapshots[1]), between(snapshots[1], snapshots[2])
    assert any(name.startswith(CONTRASTIVE) for name in contrastive)
    assert any(name.startswith("visual_prompts.") for name in contrastive & density)
    assert not any(name.startswith(("patch_projection.", "interaction.", "decoder.")) for name in contrastive)
    assert any(name.startswith("decoder.") for name in density)
    assert not any(name.startswith(CONTRASTIVE) for name in density)
    first, second = (entry for entry in trainer.state.log_history if "loss" in entry)
    assert first["loss"] == pytest.approx(first["contrastive_loss"], rel=1e-3)
    assert second["loss"] == pytest.approx(second["density_loss"], rel=1e-3)


def test_contrastive_loss_may_stay_with_a_weight(density_model, density_processor, rows, config):
    density_model.config.contrastive_loss_weight = 0.5
    trainer = DensityTrainer(density_model, config(logging_steps=1), rows, processing_class=density_processor)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(entry["density_loss"] + 0.5 * entry["contrastive_loss"], rel=1e-3)


class _Killed(Exception):
    pass


class _KillAfter(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise _Killed


@pytest.mark.parametrize(("save_steps", "num_workers"), [(4, 0), (3, 0), (4, 1)])
def test_killed_run_ends_with_the_same_weights_as_one_that_was_not(
    density_model, density_processor, rows, config, tmp_path, save_steps, num_workers
):
    assert density_model.config.interaction_dropout > 0
    models = [copy.deepcopy(density_model) for _ in range(3)]

    def trainer(model, folder, **kwargs):
        args = config(
            output_dir=str(tmp_path / folder),
            num_train_epochs=3,
            contrastive_epochs=1.5,
            save_strategy="steps",
            save_steps=save_steps,
            dataloader_num_workers=num_workers,
            affine_probability=1.0,
            noise_probability=1.0,
            train_resize=60,
            trainable="all",
        )
        return DensityTrainer(model, args, rows, processing_class=density_processor, **kwargs)

    trainer(models[0], "whole").train()
    with pytest.raises(_Killed):
        trainer(models[1], "killed", callbacks=[_KillAfter(5)]).train()
    torch.manual_seed(99)
    np.random.seed(99)
    trainer(models[2], "killed").train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{save_steps}"))
    whole, resumed = _weights(models[0]), _weights(models[2])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert _moved(models[1], whole)


def test_epochs_show_other_windows_in_another_order(density_model, density_processor, rows, config):
    seen = []
    density_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    args = config(train_resize=60, num_train_epochs=2, learning_rate=0.0)
    DensityTrainer(density_model, args, rows, processing_class=density_processor).train()
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert len(first) == len(second) == 10
    assert not any(torch.equal(a, b) for a in first for b in second)


def test_batches_do_not_draw_from_the_global_generator(density_model, density_processor, rows, config):
    # Workers that live on are started at other times in a resumed run, and dropout must not feel it.
    trainer = DensityTrainer(density_model, config(), rows, rows, processing_class=density_processor)
    for loader in (trainer.get_train_dataloader(), trainer.get_eval_dataloader()):
        before = torch.get_rng_state()
        for _ in loader:
            pass
        assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_counts_whole_images_in_small_batches(density_model, density_processor, rows, config):
    seen = {}

    def compute_metrics(prediction):
        seen["counts"], seen["true"] = prediction.predictions, prediction.label_ids
        return {"mae": float(np.abs(prediction.predictions - prediction.label_ids).mean())}

    sizes = []
    hook = density_model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    trainer = DensityTrainer(
        density_model,
        config(per_device_eval_batch_size=4),
        eval_dataset=rows,
        processing_class=density_processor,
        compute_metrics=compute_metrics,
    )
    metrics = trainer.evaluate()
    hook.remove()
    assert max(sizes) <= 4
    assert seen["true"].tolist() == list(range(10))
    expected = []
    for row in rows:
        inputs = density_processor(images=[row["image"]], text=row["text"])
        with torch.no_grad():
            outputs = density_model.eval()(**inputs)
        windows = (inputs["window_positions"], inputs["image_sizes"])
        expected.append(density_processor.post_process_density(outputs, *windows)[0]["count"])
    np.testing.assert_allclose(seen["counts"], expected, rtol=1e-4)
    assert metrics["eval_mae"] == pytest.approx(np.abs(np.array(expected) - np.arange(10)).mean(), rel=1e-4)


def test_learning_rate_steps_down_after_the_warm_up(density_model, density_processor, rows, config):
    args = config(num_train_epochs=5, lr_step_epochs=2, lr_step_gamma=0.5, warmup_steps=2, learning_rate=1.0)
    trainer = DensityTrainer(density_model, args, rows, processing_class=density_processor)
    trainer.create_optimizer_and_scheduler(num_training_steps=15)
    rates = []
    for _ in range(15):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    # Three batches an epoch.
    assert rates == pytest.approx([1 / 3, 2 / 3] + [1.0] * 4 + [0.5] * 6 + [0.25] * 3)


def test_step_is_the_authors_schedule(config):
    args = config(lr_scheduler_type="step")
    assert (args.lr_step_epochs, args.lr_step_gamma) == (100.0, 0.33)


def test_towers_may_have_a_learning_rate_of_their_own(density_model, density_processor, rows, config):
    args = config(trainable="all", clip_learning_rate=1e-6, learning_rate=1e-3, weight_decay=0.05)
    trainer = DensityTrainer(density_model, args, rows, processing_class=density_processor)
    trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in density_model.named_parameters()}
    grouped = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    assert set(grouped) == {n for n in names.values() if not n.startswith("vision_model.post_layernorm.")}
    assert grouped["vision_model.encoder.layers.0.mlp.fc1.weight"] == (1e-6, 0.05)
    assert grouped["text_projection.weight"] == (1e-6, 0.05)
    assert grouped["decoder.levels.0.0.weight"] == (1e-3, 0.05)
    for spared in ("visual_prompts.prompt_embeds", "context_prompts.context_embeds", "decoder.levels.0.1.weight"):
        assert grouped[spared] == (1e-3, 0.0)
    assert grouped["text_model.embeddings.position_embedding.weight"] == (1e-6, 0.0)


def test_counting_model_is_refused(counting_model, counting_processor, config):
    with pytest.raises(ValueError, match=r"trains models of type `clip_count_density`.*count_clip.*CountingTrainer"):
        DensityTrainer(counting_model, config(), processing_class=counting_processor)


def test_processor_of_another_window_is_refused(density_model, density_processor, config):
    processor = copy.deepcopy(density_processor)
    processor.image_processor.window_size = 64
    with pytest.raises(ValueError, match="windows of 64 pixels, but the model takes 48"):
        DensityTrainer(density_model, config(), processing_class=processor)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trainable": "decoder"}, "`trainable` must be one of prompts, vision, all, but got 'decoder'"),
        ({"contrastive_epochs": 1.0}, "leaves none of the 1 epochs"),
        ({"contrastive_epochs": -1.0}, "must not be negative"),
        ({"lr_step_epochs": 0.0}, "`lr_step_epochs` must be positive"),
    ],
)
def test_arguments_out_of_range_are_refused(config, fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_image_that_cannot_be_read_stops_the_evaluation_with_its_name(density_model, density_processor, rows, config):
    rows[2] = {**rows[2], "image": np.full((5, 5), np.nan)}
    trainer = DensityTrainer(density_model, config(), eval_dataset=rows, processing_class=density_processor)
    with pytest.raises(ValueError, match=r"row 2 \(image_id '2'\)"):
        trainer.evaluate()
