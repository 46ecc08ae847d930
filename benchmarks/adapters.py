"""
What each way of adapting a density model trains, how fast, and how well it then counts kinds it has never seen.

    python benchmarks/adapters.py --model runs/countscenes_density
    python benchmarks/adapters.py --model FOLDER --methods "vision + head" "visual_prompt + head" --seeds 0 1 2 3 4

The model is what `accelerate launch trainers/run.py trainers/configs/countscenes_density.yaml` leaves (minutes on two
CPU cores), trained on scenes with one to ten objects. Here it meets scenes with five to thirty smaller ones, and gets
as many of them to train on as `--train_scenes` says. Every method has the same scenes and steps; its learning rate is
the one of `--learning_rates` with which it counts best on the validation scenes, with the first seed. All seeds are
then measured on scenes that nothing was chosen by:

- unseen: scenes of the new sort, with kinds of objects that neither the model nor this training has met;
- seen: scenes of the new sort, with kinds of the training scenes;
- before: scenes of the sort that the model was trained on, with unseen kinds.

Names with "+ head" also train what comes after the towers, as the paper does in all its experiments. Its finding is
that visual prompts do better there than fine-tuning the vision tower ("vision + head"), on classes not seen; "head"
tells what is the prompts' doing.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, set_seed
from transformers.utils import logging

from count_clip.datasets_scripts.countscenes import CountScenes
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor
from count_clip.trainers.adapters import adapter_configs, add_adapters
from count_clip.trainers.density_config import DensityConfig
from count_clip.trainers.density_trainer import DensityTrainer


HEAD = ["interaction", "decoder", "patch_projection"]
LORA = {"type": "lora", "r": 4, "lora_alpha": 8}
VISUAL = {"type": "visual_prompt", "num_virtual_tokens": 10}
CONTEXT = {"type": "context_prompt", "num_virtual_tokens": 2}
# What trains: a part of the model as `DensityConfig.trainable` names it, or adapters. (The base has no prompts of its
# own, so that `"prompts"` trains what comes after the towers.)
METHODS: dict[str, str | list[dict[str, Any]]] = {
    "full": "all",
    "vision + head": "vision",
    "head": "prompts",
    "lora": [LORA],
    "visual_prompt": [VISUAL],
    "context_prompt": [CONTEXT],
    "both": [VISUAL, CONTEXT],
    "visual_prompt + head": [{**VISUAL, "modules_to_save": HEAD}],
    "both + head": [{**VISUAL, "modules_to_save": HEAD}, CONTEXT],
}
# Objects of the new sort of scenes, as shares of the picture's side; the old sort is as `countscenes` has it.
NEW = {"min_objects": 5, "max_objects": 30, "min_object_size": 0.06, "max_object_size": 0.2}
OLD = {"min_objects": 1, "max_objects": 10}
MEASURED = {"unseen": ("test", NEW, 13), "seen": ("train", NEW, 14), "before": ("test", OLD, 15)}


@dataclass
class Result:
    """What was measured of a method; the lists have an entry for each seed. `parameters` are those of the base."""

    method: str
    trained_parameters: int = 0
    parameters: int = 0
    learning_rate: float | None = None
    steps_per_second: list[float] = field(default_factory=list)
    mae: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MEASURED})


def draw(split: str, number: int, image_size: int, seed: int, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Draw scenes once, so that drawing them is no part of a measurement."""
    options = {"objects": "shapes", "image_size": image_size, **options}
    scenes = CountScenes(split, config="density", num_scenes=number, seed=seed, **options)
    return [scenes[index] for index in range(number)]


class Benchmark:
    """
    The base, the scenes and the settings.

    Args:
        arguments (`argparse.Namespace`): From the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.base = CLIPCountDensityModel.from_pretrained(arguments.model, dtype=torch.float32)
        self.processor = CLIPCountDensityProcessor.from_pretrained(arguments.model)
        size, number = arguments.image_size, arguments.test_scenes
        self.train_rows = draw("train", arguments.train_scenes, size, 11, NEW)
        self.validation_rows = draw("validation", number, size, 12, NEW)
        self.measured = {
            name: draw(split, number, size, seed, options) for name, (split, options, seed) in MEASURED.items()
        }

    def adapted(self, method: str) -> Any:
        """A copy of the base in which nothing but what the method trains will train."""
        model, what = copy.deepcopy(self.base), METHODS[method]
        return model if isinstance(what, str) else add_adapters(model, adapter_configs(what, self.processor.tokenizer))

    def trainer(self, method: str, seed: int, learning_rate: float, steps: int) -> DensityTrainer:
        """A run that was not started yet."""
        set_seed(seed)
        what = METHODS.get(method)
        with tempfile.TemporaryDirectory() as folder:
            args = DensityConfig(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=self.arguments.batch_size,
                per_device_eval_batch_size=64,
                learning_rate=learning_rate,
                weight_decay=0.01,
                warmup_steps=steps // 10,
                lr_scheduler_type="cosine",
                trainable=what if isinstance(what, str) else "prompts",
                density_sigma=2.0,
                vertical_flip_probability=0.5,
                noise_probability=0.0,
                color_probability=0.0,
                blur_probability=0.0,
                affine_probability=0.0,
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                dataloader_pin_memory=torch.cuda.is_available(),
                seed=seed,
            )
            trainer = DensityTrainer(
                model=self.adapted(method) if method in METHODS else copy.deepcopy(self.base),
                args=args,
                train_dataset=self.train_rows,
                processing_class=self.processor,
            )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def train(self, method: str, seed: int, learning_rate: float) -> tuple[DensityTrainer, float]:
        """Train once; the trainer, and its steps in a second of this process's time."""
        trainer = self.trainer(method, seed, learning_rate, self.arguments.steps)
        began = time.process_time()  # what other processes do does not count
        trainer.train()
        return trainer, self.arguments.steps / (time.process_time() - began)

    def measure(self, method: str) -> Result:
        """Choose the learning rate of a method, train it with every seed, and measure it."""
        result, seeds = Result(method, parameters=self.base.num_parameters()), self.arguments.seeds
        tried = {rate: self.train(method, seeds[0], rate) for rate in self.arguments.learning_rates}
        errors = {rate: error(trainer, self.validation_rows) for rate, (trainer, _) in tried.items()}
        result.learning_rate = min(errors, key=lambda rate: errors[rate])
        for seed in seeds:
            first = seed == seeds[0]
            trainer, speed = tried[result.learning_rate] if first else self.train(method, seed, result.learning_rate)
            result.steps_per_second.append(speed)
            for name, rows in self.measured.items():
                result.mae[name].append(error(trainer, rows))
            result.trained_parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        return result

    def untrained(self) -> Result:
        """The base as it is."""
        trainer = self.trainer("base", 0, 0.0, 1)
        mae = {name: [error(trainer, rows)] for name, rows in self.measured.items()}
        return Result("base, untrained", parameters=self.base.num_parameters(), mae=mae)

    def mean(self) -> Result:
        """Always the mean count of the training scenes."""
        said = statistics.fmean(row["count"] for row in self.train_rows)
        mae = {
            name: [statistics.fmean(abs(row["count"] - said) for row in rows)] for name, rows in self.measured.items()
        }
        return Result("always the mean", mae=mae)


def error(trainer: DensityTrainer, rows: Sequence[Any]) -> float:
    """Mean absolute error of the counts of whole pictures."""
    prediction = trainer.predict(list(rows))
    return float(abs(prediction.predictions - prediction.label_ids).mean())


def table_row(result: Result) -> str:
    """A line of the table."""

    def shown(values: list[float]) -> str:
        if not values:
            return ""
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.2f}{spread}"

    share = f"{100 * result.trained_parameters / result.parameters:.2f} %" if result.parameters else ""
    rate = "" if result.learning_rate is None else f"{result.learning_rate:g}"
    cells = [result.method, f"{result.trained_parameters:,}", share, rate, shown(result.steps_per_second)]
    return "| " + " | ".join([*cells, *(shown(result.mae[name]) for name in MEASURED)]) + " |"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a density model without prompts of its own")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="which (default: all)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of prompts and order (default: 0 1 2)"
    )
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[2e-3, 1e-2, 5e-2], help="to choose from")
    parser.add_argument("--steps", type=int, default=150, help="steps of every training (default: 150)")
    parser.add_argument("--batch_size", type=int, default=16, help="scenes a step (default: 16)")
    parser.add_argument("--train_scenes", type=int, default=200, help="scenes to train on (default: 200)")
    parser.add_argument("--test_scenes", type=int, default=150, help="scenes of each measurement (default: 150)")
    parser.add_argument("--image_size", type=int, default=64, help="side of the scenes in pixels (default: 64)")
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> list[Result]:
    """
    Measure every method and print a table.

    Args:
        argv (`Sequence[str]`, *optional*): The command line; by default the program's own.

    Returns:
        `list[Result]`: In the order of the table.
    """
    arguments = parse(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    benchmark = Benchmark(arguments)
    print(
        f"{platform.processor() or platform.machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} thread"
    )
    print(f"{arguments.steps} steps of {arguments.batch_size}, {arguments.train_scenes} training scenes", end="")
    print(f", {len(arguments.seeds)} seeds (mean ± standard deviation)\n")
    print("| method | trained | share | learning rate | steps/s | " + " | ".join(f"MAE, {x}" for x in MEASURED) + " |")
    print("| --- " * (5 + len(MEASURED)) + "|", flush=True)
    results = []
    for part in (benchmark.mean, benchmark.untrained, *arguments.methods):
        results.append(benchmark.measure(part) if isinstance(part, str) else part())
        print(table_row(results[-1]), flush=True)
        if arguments.output:
            arguments.output.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()
