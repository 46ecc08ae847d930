"""
What `test_distributed.py` runs in one process and, by torchrun, in two: `distributed_run.py OUTPUT_DIR GLOBAL_BATCH`.

Each part trains with plain gradient descent and writes the gradients of its steps, its logs and its last weights.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import TrainerCallback, set_seed

from count_clip.datasets_scripts.captions.numbers import NUMBER_TO_WORD
from count_clip.trainers.counting.config import CountingConfig
from count_clip.trainers.counting.trainer import CountingTrainer
from count_clip.trainers.density.config import DensityConfig
from count_clip.trainers.density.trainer import DensityTrainer
from count_clip.trainers.run import finish_processes
from count_clip.trainers.running.adapters import adapter_configs, add_adapters
from count_clip.trainers.running.models import build_counting_model, build_density_model


SIZES = {
    "projection_dim": 32,
    "vocab_size": 520,
    "vision": {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 32,
        "patch_size": 8,
    },
    "text": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 24,
    },
}
DENSITY_FIELDS = {
    "window_size": 32,
    "num_norm_groups": 2,
    "num_visual_prompts": 2,
    "visual_prompt_depth": 2,
    "num_interaction_heads": 2,
    # Chance may differ between one process and two, so there is none in the model.
    "interaction_dropout": 0.0,
    "visual_prompt_dropout": 0.0,
}
ADAPTERS = [
    {"type": "visual_prompt", "num_virtual_tokens": 2},
    {"type": "context_prompt", "num_virtual_tokens": 2},
    {"type": "lora", "r": 2, "lora_dropout": 0.0},
]


class KeepGradients(TrainerCallback):
    """Remembers the gradients of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        self.steps.append(grads)


def _image(index: int, size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8))


def _options(output: Path, part: str, global_batch: int, world_size: int, **fields: Any) -> dict[str, Any]:
    return {
        "output_dir": str(output / part),
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "per_device_train_batch_size": global_batch // world_size,
        "per_device_eval_batch_size": 2,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 5,
        **fields,
    }


def run_counting(
    output: Path, global_batch: int, world_size: int, adapters: list[dict[str, Any]] | None = None, **fields: Any
) -> dict[str, Any]:
    """Two epochs of two batches, in which the processes have different numbers of counting rows."""
    set_seed(0)
    rows = []
    for i in range(18):
        number = 2 + i % 9 if i % 3 == 0 else 0
        text = f"{NUMBER_TO_WORD[number]} dogs" if number else f"street {i}"
        rows.append({"image": _image(i, 32), "image_id": str(i), "text": text, "number": number})
    model, processor = build_counting_model(SIZES, [row["text"] for row in rows])
    if adapters is not None:
        model = add_adapters(model, adapter_configs(adapters, processor.tokenizer))
    keep = KeepGradients()
    options = {"num_train_epochs": 2, "num_counterfactuals": 2, **fields}
    args = CountingConfig(**_options(output, "counting", global_batch, world_size, **options))
    trainer = CountingTrainer(
        model,
        args,
        rows,
        [row for row in rows if row["number"]][:5],
        processing_class=processor,
        callbacks=[keep],
        compute_metrics=lambda prediction: {"predicted": prediction.predictions.tolist()},
    )
    if world_size == 1:
        # Two processes leave out the rows that do not fill a batch on both.
        trainer.args.dataloader_drop_last = True
    trainer.train()
    predicted = trainer.evaluate()["eval_predicted"]
    return {
        "grads": keep.steps,
        "logs": trainer.state.log_history,
        "weights": model.state_dict(),
        "predicted": predicted,
    }


def run_density(output: Path, global_batch: int, world_size: int, resume: bool = False) -> dict[str, Any]:
    """Three epochs of three steps, half of them with the contrastive loss alone; resumed in the second epoch."""
    set_seed(0)
    rows = [
        {
            "image": _image(i, 44),
            "image_id": str(i),
            "text": "red dots" if i % 2 else "dots",
            "points": np.random.default_rng(i).uniform(0, 44, (i, 2)).tolist(),
            "count": i,
        }
        for i in range(24)
    ]
    model, processor = build_density_model(SIZES, ["red dots"], DENSITY_FIELDS)
    keep = KeepGradients()
    fields = {"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 3, "contrastive_epochs": 1.5}
    options = _options(output, "density", global_batch, world_size, **fields, trainable="all", weight_decay=0.1)
    trainer = DensityTrainer(
        model,
        DensityConfig(**options),
        rows,
        rows[:5],
        processing_class=processor,
        callbacks=[keep],
        compute_metrics=lambda prediction: {"predicted": prediction.predictions.tolist()},
    )
    trainer.train(resume_from_checkpoint=str(output / "density" / "checkpoint-5") if resume else None)
    predicted = trainer.evaluate()["eval_predicted"]
    return {
        "grads": keep.steps,
        "logs": trainer.state.log_history,
        "weights": model.state_dict(),
        "predicted": predicted,
    }


def run(output: Path, global_batch: int, world_size: int) -> None:
    """Do all parts and write what came of them to `result.pt`."""
    result = {
        "counting": run_counting(output, global_batch, world_size),
        # Two images at a time; the processes have different numbers of captions, so of chunks too.
        "cached": run_counting(output, global_batch, world_size, gradient_cache_chunk_size=2, num_train_epochs=1),
        "cached_accumulated": run_counting(
            output, global_batch, world_size, gradient_cache_chunk_size=3, gradient_accumulation_steps=2
        ),
        "adapters": run_counting(output, global_batch, world_size, adapters=ADAPTERS, num_train_epochs=1),
        "density": run_density(output, global_batch, world_size),
        "resumed": run_density(output, global_batch, world_size, resume=True),
    }
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    result["world_size"] = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    torch.save(result, output / f"result_{rank}.pt")


if __name__ == "__main__":
    import os

    run(Path(sys.argv[1]), int(sys.argv[2]), int(os.environ.get("WORLD_SIZE", "1")))
    finish_processes()
