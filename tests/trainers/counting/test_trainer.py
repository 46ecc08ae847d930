import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD, counting_captions
from count_clip.trainers.counting.collator import CountingDataCollator
from count_clip.trainers.counting.config import CountingConfig
from count_clip.trainers.counting.trainer import CountingTrainer, number_weights


@pytest.fixture
def rows(make_image):
    """Eleven rows: two counting ones, then a general one, and so on."""
    rows = []
    for i in range(11):
        number = 2 + i % 9 if i % 3 else 0
        text = f"{NUMBER_TO_WORD[number]} dogs" if number else "a street"
        rows.append({"image": make_image(32, 32, i), "image_id": str(i), "text": text, "number": number})
    return rows


@pytest.fixture
def config(tmp_path):
    def build(**fields) -> CountingConfig:
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "per_device_train_batch_size": 4,
            "max_steps": 2,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            "disable_tqdm": True,
            "seed": 7,
        }
        return CountingConfig(**{**defaults, **fields})

    return build


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.parametrize(
    ("train_towers", "frozen"),
    [
        ("all", ()),
        ("text", ("vision_model.", "visual_projection.")),
        ("vision", ("text_model.", "text_projection.")),
    ],
)
def test_what_should_train_moves_and_the_rest_does_not(
    counting_model, counting_processor, rows, config, train_towers, frozen
):
    before = _weights(counting_model)
    args = config(train_towers=train_towers, max_steps=3, logging_steps=1)
    trainer = CountingTrainer(counting_model, args, rows, processing_class=counting_processor)
    trainer.train()
    expected = {name for name in before if not name.startswith(frozen)} if frozen else set(before)
    # The bias of the keys shifts a softmax that does not feel shifts, so it may get no gradient at all.
    assert _moved(counting_model, before) >= {name for name in expected if not name.endswith("k_proj.bias")}
    assert _moved(counting_model, before) <= expected
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    for entry in losses:
        assert all(math.isfinite(entry[name]) for name in ("loss", "contrastive_loss", "counting_loss"))


def test_both_losses_are_logged_apart(counting_model, counting_processor, rows, config):
    counting_model.config.counting_loss_weight = 0.5
    trainer = CountingTrainer(
        counting_model, config(logging_steps=1, max_steps=1), rows[1:3] * 2, processing_class=counting_processor
    )
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(entry["contrastive_loss"] + 0.5 * entry["counting_loss"], rel=1e-4)


def test_mean_of_the_counting_loss_leaves_out_batches_without_counting_rows(
    counting_model, counting_processor, rows, config
):
    general = [{**rows[0], "image": row["image"]} for row in rows[:4]]
    args = config(train_sampling_strategy="sequential", logging_steps=2, learning_rate=0.0)
    trainer = CountingTrainer(counting_model, args, general + rows[1:3] * 2, processing_class=counting_processor)
    trainer.train()
    batch = trainer.data_collator(rows[1:3] * 2)
    expected = counting_model(**batch).counting_loss.item()
    assert trainer.state.log_history[0]["counting_loss"] == pytest.approx(expected, rel=1e-4)


def test_batches_hold_the_configured_share_of_counting_rows(counting_model, counting_processor, rows, config):
    args = config(counting_fraction=0.5, max_steps=-1, num_train_epochs=1)
    trainer = CountingTrainer(counting_model, args, rows, processing_class=counting_processor)
    shares = [batch["counting_mask"].float().mean().item() for batch in trainer.get_train_dataloader()]
    assert shares[:2] == [0.5, 0.5]


def test_gradient_accumulation_averages_its_batches(counting_model, counting_processor, rows, config):
    grads = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            grads.append(model.text_projection.weight.grad.clone())

    args = config(gradient_accumulation_steps=2, max_steps=1, max_grad_norm=0.0, train_sampling_strategy="sequential")
    reference = copy.deepcopy(counting_model).train()
    trainer = CountingTrainer(counting_model, args, rows[:8], processing_class=counting_processor, callbacks=[Keep()])
    trainer.train()
    for start in (0, 4):
        (reference(**trainer.data_collator(rows[start : start + 4])).loss / 2).backward()
    torch.testing.assert_close(grads[0], reference.text_projection.weight.grad)


def test_logit_scale_stays_below_its_bound(counting_model, counting_processor, rows, config):
    counting_model.logit_scale.data.fill_(6.0)
    CountingTrainer(counting_model, config(max_steps=1), rows, processing_class=counting_processor).train()
    assert counting_model.logit_scale.item() == pytest.approx(math.log(100), abs=1e-6)


def test_weight_decay_spares_biases_norms_and_embeddings_of_places(counting_model, counting_processor, rows, config):
    trainer = CountingTrainer(counting_model, config(weight_decay=0.1), rows, processing_class=counting_processor)
    trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in counting_model.named_parameters()}
    groups = {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in trainer.optimizer.param_groups
    }
    assert groups[0.1] | groups[0.0] == set(names.values())
    for spared in ("logit_scale", "class_embedding", "position_embedding.weight", "pre_layrnorm.weight", "fc1.bias"):
        assert any(name.endswith(spared) for name in groups[0.0]), spared
    assert all(counting_model.get_parameter(name).dim() >= 2 for name in groups[0.1])
    assert {"text_projection.weight", "visual_projection.weight"} < groups[0.1]


class _Killed(Exception):
    pass


class _KillAfter(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise _Killed


@pytest.mark.parametrize("accumulation", [1, 2])
def test_killed_run_ends_with_the_same_weights_as_one_that_was_not(
    counting_model, counting_processor, rows, config, tmp_path, accumulation
):
    counting_model.config.text_config.attention_dropout = 0.1
    models = [copy.deepcopy(counting_model) for _ in range(3)]
    options = {
        "max_steps": 7,
        "save_strategy": "steps",
        "save_steps": 4,
        "gradient_accumulation_steps": accumulation,
        "per_device_train_batch_size": 2,
        "counting_fraction": 0.5,
    }

    def trainer(model, folder, **kwargs):
        args = config(output_dir=str(tmp_path / folder), **options)
        return CountingTrainer(model, args, rows, processing_class=counting_processor, **kwargs)

    trainer(models[0], "whole").train()
    with pytest.raises(_Killed):
        trainer(models[1], "killed", callbacks=[_KillAfter(6)]).train()
    torch.manual_seed(99)
    np.random.seed(99)
    trainer(models[2], "killed").train(resume_from_checkpoint=str(tmp_path / "killed" / "checkpoint-4"))
    whole, resumed = _weights(models[0]), _weights(models[2])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert _moved(models[1], whole)


def test_evaluation_scores_nine_captions_as_one_by_one(counting_model, counting_processor, rows, config):
    seen = {}

    def compute_metrics(prediction):
        seen["scores"], seen["numbers"] = prediction.predictions, prediction.label_ids
        return {"accuracy": float((prediction.predictions.argmax(1) + 2 == prediction.label_ids).mean())}

    counting_rows = [row for row in rows if row["number"]]
    trainer = CountingTrainer(
        counting_model,
        config(per_device_eval_batch_size=3),
        eval_dataset=counting_rows,
        processing_class=counting_processor,
        compute_metrics=compute_metrics,
    )
    metrics = trainer.evaluate()
    assert seen["numbers"].tolist() == [row["number"] for row in counting_rows]
    expected = []
    for row in counting_rows:
        with torch.no_grad():
            inputs = counting_processor(images=[row["image"]], text=counting_captions(row["text"]))
            expected.append(counting_model(**inputs).logits_per_image[0].numpy())
    np.testing.assert_allclose(seen["scores"], np.stack(expected), atol=1e-4)
    by_hand = [-s[n - 2] + np.log(np.exp(s).sum()) for s, n in zip(np.stack(expected), seen["numbers"], strict=True)]
    assert metrics["eval_loss"] == pytest.approx(np.mean(by_hand), rel=1e-4)
    assert "eval_accuracy" in metrics


def test_evaluation_leaves_no_row_out_where_training_does(counting_model, counting_processor, rows, config):
    args = config(dataloader_drop_last=True, per_device_eval_batch_size=4)
    counting_rows = [row for row in rows if row["number"]]
    trainer = CountingTrainer(counting_model, args, rows, counting_rows, processing_class=counting_processor)
    assert len(trainer.predict(counting_rows).label_ids) == len(counting_rows) == 7
    assert len(trainer.get_eval_dataloader()) == 2
    assert len(trainer.get_train_dataloader()) == 2


def test_evaluation_during_training_keeps_the_training_batches(counting_model, counting_processor, rows, config):
    args = config(eval_strategy="steps", eval_steps=1, logging_steps=1)
    counting_rows = [row for row in rows if row["number"]]
    trainer = CountingTrainer(counting_model, args, rows, counting_rows, processing_class=counting_processor)
    trainer.train()
    history = trainer.state.log_history
    assert sum("eval_loss" in entry for entry in history) == 2
    assert sum("counting_loss" in entry for entry in history) == 2


def test_number_without_its_word_stops_the_training(counting_model, counting_processor, rows, config):
    rows[1] = {**rows[1], "text": "dogs"}
    trainer = CountingTrainer(
        counting_model, config(max_steps=-1, num_train_epochs=1), rows, processing_class=counting_processor
    )
    with pytest.raises(ValueError, match="image_id '1' is a counting row with number 3, but its caption 'dogs'"):
        trainer.train()


def test_density_model_is_refused(density_model, density_processor, config):
    with pytest.raises(ValueError, match=r"trains models of type `count_clip`.*clip_count_density.*DensityTrainer"):
        CountingTrainer(density_model, config(), processing_class=density_processor)


def test_missing_processor_is_refused(counting_model, config):
    with pytest.raises(ValueError, match="`processing_class` is missing"):
        CountingTrainer(counting_model, config())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_towers": "both"}, "`train_towers` must be one of all, text, vision, but got 'both'"),
        ({"num_counterfactuals": 9}, "between 1 and 8"),
        ({"counting_fraction": 1.2}, "between 0 and 1"),
        ({"max_logit_scale": 0.5}, "at least 1"),
        ({"balance_numbers": True, "counting_loss": False}, "`counting_loss: false` switches off"),
    ],
)
def test_arguments_out_of_range_are_refused(config, fields, message):
    with pytest.raises(ValueError, match=message):
        config(**fields)


def test_weights_make_all_numbers_weigh_alike():
    weights = number_weights([2] * 6 + [3] * 3 + [10])
    assert weights[2] == pytest.approx(10 / 3 / 6)
    assert 6 * weights[2] == pytest.approx(3 * weights[3]) == pytest.approx(weights[10])
    assert 6 * weights[2] + 3 * weights[3] + weights[10] == pytest.approx(10)
    assert weights[7] == 1.0
    assert set(weights) == set(range(2, 11))
    with pytest.raises(ValueError, match="`balance_numbers` needs counting rows"):
        number_weights([])


def test_balanced_counting_loss_is_the_weighted_mean(counting_model, counting_processor, rows, config):
    trainer = CountingTrainer(counting_model, config(balance_numbers=True), rows, processing_class=counting_processor)
    numbers = [row["number"] for row in rows if row["number"]]
    batch = trainer.data_collator(rows)
    assert batch["counting_weights"].tolist() == pytest.approx(
        [len(numbers) / len(set(numbers)) / numbers.count(number) for number in numbers]
    )
    counting_model.eval()
    with torch.no_grad():
        found = counting_model(**batch).counting_loss.item()
        single = []
        for row in (row for row in rows if row["number"]):
            one = trainer.data_collator([row])
            del one["counting_weights"]
            single.append(counting_model(**one).counting_loss.item())
    assert found == pytest.approx(np.mean(np.array(single) * batch["counting_weights"].numpy()), rel=1e-4)


def test_weights_of_rows_whose_number_is_cut_off_go_with_them(counting_processor):
    collator = CountingDataCollator(counting_processor, number_weights={2: 0.5, 3: 2.0})
    images = [np.zeros((32, 32, 3), dtype=np.uint8)] * 2
    texts = ["x" * 60 + " two dogs", "three dogs"]
    rows = [{"image": image, "text": text, "number": n} for image, text, n in zip(images, texts, (2, 3), strict=True)]
    batch = collator(rows)
    assert batch["counting_mask"].tolist() == [False, True]
    assert batch["counting_weights"].tolist() == [2.0]


def test_wrong_number_of_weights_is_refused(counting_model, counting_processor, rows, config):
    trainer = CountingTrainer(counting_model, config(), rows, processing_class=counting_processor)
    with pytest.raises(ValueError, match="one weight for each of the 7 counting rows"):
        counting_model(**trainer.data_collator(rows), counting_weights=torch.ones(3))
