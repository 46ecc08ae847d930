"""
What each method of adapting a model trains, how fast, and how well it then counts unseen classes.

    python benchmarks/adapters.py --model runs/countscenes_density
    python benchmarks/adapters.py --task counting --model runs/ablation/runs/A
    python benchmarks/adapters.py --model FOLDER --methods "vision + head" "visual_prompt + head" --seeds 0 1 2 3 4

`--task density`: the model is what `accelerate launch trainers/run.py trainers/configs/countscenes_density.yaml`
leaves (minutes on two CPU cores), trained on scenes with one to ten objects. Here it meets scenes with five to thirty
smaller ones, `--train_scenes` of them for training. Names with "+ head" also train the modules
after the towers, as CLIP-Count does in all its experiments. Its finding is that visual prompts do better there than
fine-tuning the vision tower ("vision + head"), on unseen classes; "head" alone shows the share of the prompts.

`--task counting`: the model is the small CLIP that `count-clip ablation` starts from (its arm A), or any small CLIP
that knows its scenes. Four captions in five state the number here, and those get the counting loss against all eight
wrong ones, with the paper's weight.

Every method has the same scenes and steps; its learning rate is the one of `--learning_rates` with which it counts
best on the validation scenes, with the first seed. All seeds are then measured on scenes that nothing was chosen by:

- unseen: scenes like the training scenes, with classes unseen by the model and by this training;
- seen: the same with the classes of the training scenes;
- before (density): scenes like those of the model's own training, with unseen classes;
- classes (counting): the class of the objects of the unseen scenes, among all of these.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, set_seed
from transformers.utils import logging

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.evaluation.benchmarks.classification import evaluate_classification
from count_clip.evaluation.benchmarks.countbench import evaluate_countbench
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor
from count_clip.modeling.processing_count_clip import CountCLIPProcessor
from count_clip.trainers.counting.config import CountingConfig
from count_clip.trainers.counting.trainer import CountingTrainer
from count_clip.trainers.density.config import DensityConfig
from count_clip.trainers.density.trainer import DensityTrainer
from count_clip.trainers.running.adapters import adapter_configs, add_adapters, shorten_texts


HEAD = ["interaction", "decoder", "patch_projection"]
LORA = {"type": "lora", "r": 4, "lora_alpha": 8}
VISUAL = {"type": "visual_prompt", "num_virtual_tokens": 10}
CONTEXT = {"type": "context_prompt", "num_virtual_tokens": 2}
# What trains: a part of the model as the trainer's configuration names it, or adapters. (The density base has no
# prompts of its own, so that `"prompts"` trains what comes after the towers.)
METHODS: dict[str, dict[str, str | list[dict[str, Any]]]] = {
    "density": {
        "full": "all",
        "vision + head": "vision",
        "head": "prompts",
        "lora": [LORA],
        "visual_prompt": [VISUAL],
        "context_prompt": [CONTEXT],
        "both": [VISUAL, CONTEXT],
        "visual_prompt + head": [{**VISUAL, "modules_to_save": HEAD}],
        "both + head": [{**VISUAL, "modules_to_save": HEAD}, CONTEXT],
    },
    "counting": {
        "full": "all",
        "vision tower": "vision",
        "text tower": "text",
        "lora": [LORA],
        "visual_prompt": [VISUAL],
        "context_prompt": [CONTEXT],
        "both": [VISUAL, CONTEXT],
    },
}
# What all scenes for counting have in common, and what those for density differ in: objects of the new and of the old
# sort, as shares of the image's side.
PLAIN = {
    "distractor_probability": 0.0,
    "layouts": ["scattered", "clustered", "rows"],
    "max_rotation": 180.0,
    "min_object_size": 0.12,
    "max_object_size": 0.2,
    "size_variation": 0.1,
    "max_hidden": 0.0,
    "background_styles": ["solid"],
    "grain_probability": 0.0,
    "shadow_probability": 0.0,
}
NEW = {"min_objects": 5, "max_objects": 30, "min_object_size": 0.06, "max_object_size": 0.2}
OLD = {"min_objects": 1, "max_objects": 10}


@dataclass
class Result:
    """
    What was measured of a method; the lists have an entry for each seed. `parameters` are those of the base.

    `figures` are mean absolute errors for `density`, shares in per cent for `counting`, by what they were measured on.
    """

    method: str
    trained_parameters: int = 0
    parameters: int = 0
    learning_rate: float | None = None
    steps_per_second: list[float] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)


def draw(config: str, split: str, number: int, image_size: int, seed: int, options: Mapping[str, Any]) -> list[Any]:
    """Draw scenes once, so that drawing them is no part of a measurement."""
    options = {"objects": "shapes", "image_size": image_size, **options}
    scenes = CountScenes(split, config=config, num_scenes=number, seed=seed, **options)
    return [scenes[index] for index in range(number)]


class DensityTask:
    """
    The density model, its scenes, and its mean absolute errors.

    Args:
        arguments (`argparse.Namespace`): From the command line.
    """

    columns = ("MAE, unseen", "MAE, seen", "MAE, before")
    learning_rates = (2e-3, 1e-2, 5e-2)
    train_scenes, batch_size = 200, 16

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.base: Any = CLIPCountDensityModel.from_pretrained(arguments.model, dtype=torch.float32)
        self.processor: Any = CLIPCountDensityProcessor.from_pretrained(arguments.model)
        size, number = arguments.image_size, arguments.test_scenes
        self.train_rows = draw("density", "train", arguments.train_scenes, size, 11, NEW)
        self.validation_rows = draw("density", "validation", number, size, 12, NEW)
        self.measured = {
            "MAE, unseen": draw("density", "test", number, size, 13, NEW),
            "MAE, seen": draw("density", "train", number, size, 14, NEW),
            "MAE, before": draw("density", "test", number, size, 15, OLD),
        }

    def trainer(self, model: Any, processor: Any, what: Any, common: Mapping[str, Any]) -> DensityTrainer:
        """A run that was not started yet."""
        args = DensityConfig(
            **common,
            trainable=what if isinstance(what, str) else "prompts",
            density_sigma=2.0,
            vertical_flip_probability=0.5,
            noise_probability=0.0,
            color_probability=0.0,
            blur_probability=0.0,
            affine_probability=0.0,
        )
        return DensityTrainer(model=model, args=args, train_dataset=self.train_rows, processing_class=processor)

    def loss(self, trainer: Any) -> float:
        """What a learning rate is chosen by: the error on the validation scenes."""
        return error(trainer, self.validation_rows)

    def measure(self, trainer: Any) -> dict[str, float]:
        """The mean absolute error on each sort of scenes."""
        return {name: error(trainer, rows) for name, rows in self.measured.items()}

    def guess(self) -> Result:
        """Always the mean count of the training scenes."""
        mean = statistics.fmean(row["count"] for row in self.train_rows)
        figures = {
            name: [statistics.fmean(abs(row["count"] - mean) for row in rows)] for name, rows in self.measured.items()
        }
        return Result("always the mean", figures=figures)


class CountingTask:
    """
    The small CLIP, its scenes, and the numbers and classes that it gets right.

    Args:
        arguments (`argparse.Namespace`): From the command line.
    """

    columns = ("numbers right, unseen", "numbers right, seen", "classes right, unseen")
    learning_rates = (1e-3, 3e-3, 1e-2)
    train_scenes, batch_size = 6400, 64

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.base: Any = CLIPForCounting.from_pretrained(
            arguments.model, dtype=torch.float32, counting_loss_weight=1.0
        )
        self.processor: Any = CountCLIPProcessor.from_pretrained(arguments.model)
        size, number = arguments.image_size, arguments.test_scenes
        self.train_rows = draw("captions", "train", arguments.train_scenes, size, 11, {**PLAIN, "number_rate": 0.8})
        stated = {**PLAIN, "number_rate": 1.0}
        self.validation_rows = draw("benchmark", "validation", number, size, 12, stated)
        self.unseen_rows = draw("benchmark", "test", number, size, 13, stated)
        # The builder of the protocol has no training split, but the renderer draws any.
        self.seen_rows = draw("benchmark", "train", number, size, 14, stated)

    def trainer(self, model: Any, processor: Any, what: Any, common: Mapping[str, Any]) -> CountingTrainer:
        """A run that was not started yet."""
        args = CountingConfig(
            **common, train_towers=what if isinstance(what, str) else "all", num_counterfactuals=8, adam_beta2=0.98
        )
        return CountingTrainer(model=model, args=args, train_dataset=self.train_rows, processing_class=processor)

    def loss(self, trainer: Any) -> float:
        """What a learning rate is chosen by: the nine-way cross-entropy on the validation scenes."""
        return float(trainer.evaluate(self.validation_rows)["eval_loss"])

    def measure(self, trainer: Any) -> dict[str, float]:
        """CountBench's protocol on unseen and on seen classes, and zero-shot classification of the unseen ones."""
        how: dict[str, Any] = {"batch_size": 64, "progress": False}
        names = sorted({row["name"] for row in self.unseen_rows})
        classes = evaluate_classification(
            trainer.model,
            trainer.processing_class,
            Dataset.from_list(self.unseen_rows),
            label_column="name",
            names=names,
            templates=["a photo of {}"],
            **how,
        )
        figures = [
            evaluate_countbench(trainer.model, trainer.processing_class, self.unseen_rows, **how).accuracy,
            evaluate_countbench(trainer.model, trainer.processing_class, self.seen_rows, **how).accuracy,
            classes.top_1,
        ]
        return {name: 100 * figure for name, figure in zip(self.columns, figures, strict=True)}

    def guess(self) -> Result:
        """What guessing gives."""
        names = {row["name"] for row in self.unseen_rows}
        figures = zip(self.columns, ([100 / 9], [100 / 9], [100 / len(names)]), strict=True)
        return Result("guessing", figures=dict(figures))


TASKS: dict[str, type[DensityTask] | type[CountingTask]] = {"density": DensityTask, "counting": CountingTask}


class Benchmark:
    """
    A task and the settings.

    Args:
        arguments (`argparse.Namespace`): From the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.methods = METHODS[arguments.task]
        self.task = TASKS[arguments.task](arguments)
        if arguments.bf16:  # on a CPU, twice as fast as the fused attention is in bfloat16
            self.task.base.set_attn_implementation("eager")

    def adapted(self, method: str) -> tuple[Any, Any]:
        """Copies of the base, in which nothing but what the method trains will train, and of its processor."""
        model, processor = copy.deepcopy(self.task.base), copy.deepcopy(self.task.processor)
        what = self.methods.get(method, "all")
        if isinstance(what, str):
            return model, processor
        configs = adapter_configs(what, processor.tokenizer)
        model = add_adapters(model, configs)
        shorten_texts(processor, configs)
        return model, processor

    def trainer(self, method: str, seed: int, learning_rate: float, steps: int) -> Any:
        """A run that was not started yet."""
        set_seed(seed)
        with tempfile.TemporaryDirectory() as folder:
            common = {
                "output_dir": folder,
                "max_steps": steps,
                "per_device_train_batch_size": self.arguments.batch_size,
                "per_device_eval_batch_size": 64,
                "learning_rate": learning_rate,
                "weight_decay": 0.01,
                "warmup_steps": steps // 10,
                "lr_scheduler_type": "cosine",
                "save_strategy": "no",
                "logging_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
                "bf16": self.arguments.bf16,
                "use_cpu": not torch.cuda.is_available(),
                "dataloader_pin_memory": torch.cuda.is_available(),
                "seed": seed,
            }
            trainer = self.task.trainer(*self.adapted(method), self.methods.get(method), common)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def train(self, method: str, seed: int, learning_rate: float) -> tuple[Any, float]:
        """Train once; the trainer, and its steps in a second of this process's time."""
        trainer = self.trainer(method, seed, learning_rate, self.arguments.steps)
        began = time.process_time()  # what other processes do does not count
        trainer.train()
        return trainer, self.arguments.steps / (time.process_time() - began)

    def measure(self, method: str) -> Result:
        """Choose the learning rate of a method, train it with every seed, and measure it."""
        result, seeds = Result(method, parameters=self.task.base.num_parameters()), self.arguments.seeds
        tried = {rate: self.train(method, seeds[0], rate) for rate in self.arguments.learning_rates}
        losses = {rate: self.task.loss(trainer) for rate, (trainer, _) in tried.items()}
        result.learning_rate = min(losses, key=lambda rate: losses[rate])
        for seed in seeds:
            first = seed == seeds[0]
            trainer, speed = tried[result.learning_rate] if first else self.train(method, seed, result.learning_rate)
            result.steps_per_second.append(speed)
            for name, figure in self.task.measure(trainer).items():
                result.figures.setdefault(name, []).append(figure)
            result.trained_parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        return result

    def untrained(self) -> Result:
        """The base as it is."""
        trainer = self.trainer("base", 0, 0.0, 1)
        figures = {name: [figure] for name, figure in self.task.measure(trainer).items()}
        return Result("base, untrained", parameters=self.task.base.num_parameters(), figures=figures)


def error(trainer: DensityTrainer, rows: Sequence[Any]) -> float:
    """Mean absolute error of the counts of whole images."""
    prediction = trainer.predict(list(rows))
    return float(abs(prediction.predictions - prediction.label_ids).mean())


def table_row(result: Result, columns: Sequence[str]) -> str:
    """A line of the table."""

    def shown(values: list[float], digits: int = 2) -> str:
        if not values:
            return ""
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.{digits}f}{spread}"

    share = f"{100 * result.trained_parameters / result.parameters:.2f} %" if result.parameters else ""
    rate = "" if result.learning_rate is None else f"{result.learning_rate:g}"
    cells = [result.method, f"{result.trained_parameters:,}", share, rate, shown(result.steps_per_second)]
    figures = [
        shown(result.figures[name]) if name.startswith("MAE") else f"{shown(result.figures[name], 1)} %"
        for name in columns
    ]
    return "| " + " | ".join([*cells, *figures]) + " |"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="density", help="what to train for (default: density)")
    parser.add_argument("--model", required=True, help="folder of a model of the task, without prompts of its own")
    parser.add_argument("--methods", nargs="+", help="which of the task's (default: all)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of prompts and order (default: 0 1 2)"
    )
    parser.add_argument(
        "--learning_rates",
        type=float,
        nargs="+",
        help="to choose from (default: "
        + "; ".join(
            f"{' '.join(f'{rate:g}' for rate in task.learning_rates)} for {name}" for name, task in TASKS.items()
        )
        + ")",
    )
    parser.add_argument("--steps", type=int, default=150, help="steps of every training (default: 150)")
    for name, what in (("batch_size", "scenes a step"), ("train_scenes", "scenes to train on")):
        defaults = ", ".join(f"{getattr(task, name)} for {task_name}" for task_name, task in TASKS.items())
        parser.add_argument(f"--{name}", type=int, help=f"{what} (default: {defaults})")
    parser.add_argument("--test_scenes", type=int, default=180, help="scenes of each measurement (default: 180)")
    parser.add_argument("--image_size", type=int, default=64, help="side of the scenes in pixels (default: 64)")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16, with plain attention")
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    arguments = parser.parse_args(argv)
    for name in ("learning_rates", "batch_size", "train_scenes"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(TASKS[arguments.task], name))
    known = METHODS[arguments.task]
    arguments.methods = arguments.methods or list(known)
    if unknown := [method for method in arguments.methods if method not in known]:
        parser.error(f"--methods of {arguments.task} are {', '.join(map(repr, known))}, but got {unknown[0]!r}")
    return arguments


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
    columns = benchmark.task.columns
    print(
        f"{platform.processor() or platform.machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} thread"
    )
    print(f"{arguments.steps} steps of {arguments.batch_size}, {arguments.train_scenes} training scenes", end="")
    print(f", {len(arguments.seeds)} seeds (mean ± standard deviation)\n")
    print("| method | trained | share | learning rate | steps/s | " + " | ".join(columns) + " |")
    print("| --- " * (5 + len(columns)) + "|", flush=True)
    results = []
    for part in (benchmark.task.guess, benchmark.untrained, *arguments.methods):
        results.append(benchmark.measure(part) if isinstance(part, str) else part())
        print(table_row(results[-1], columns), flush=True)
        if arguments.output:
            arguments.output.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()
