"""
Train a model by a YAML file: `accelerate launch trainers/run.py CONFIG.yaml [--key value ...]`.

The same file and the same command serve one CPU, several processes (`torchrun --nproc_per_node 2 trainers/run.py ...`)
and GPUs. `python -m count_clip.trainers.run` is the same.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from transformers import EarlyStoppingCallback, EvalPrediction, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import logging

from count_clip.evaluation.records.run_record import plain_command
from count_clip.trainers.core.rows import Rows
from count_clip.trainers.counting.trainer import CountingTrainer
from count_clip.trainers.density.collator import row_count
from count_clip.trainers.density.trainer import DensityEarlyStoppingCallback, DensityTrainer
from count_clip.trainers.running.arguments import RunArguments, parse_run
from count_clip.trainers.running.card import write_run_card
from count_clip.trainers.running.data import load_splits
from count_clip.trainers.running.models import build_model, sample_rows


logger = logging.get_logger(__name__)

RESULTS_NAME = "results.json"
MAX_PROMPTS_REPORTED = 20


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """
    Train, evaluate, save and report by a command line; returns the figures, also in `results.json` of the output
    folder.
    """
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__.strip().splitlines()[0])
    parser.add_argument("config", help="a YAML file, or the name of one in trainers/configs")
    parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, help="--key value of the file or of the trainer, also --key.inner value"
    )
    known = parser.parse_args(argv)
    run, args = parse_run(known.config, known.overrides)
    results = train(run, args, plain_command([known.config, *known.overrides], "accelerate launch trainers/run.py"))
    finish_processes()
    return results


def train(run: RunArguments, args: TrainingArguments, command: str | None = None) -> dict[str, Any]:
    """
    Train and measure the model of a run; returns the figures, which `results.json` in `args.output_dir` has, too.

    `command` is the command of the run, for the card.
    """
    started = time.time()
    checkpoint = checkpoint_to_resume(args)
    if checkpoint is not None:
        logger.warning(f"Resuming from {checkpoint}.")
    splits = load_splits(run)
    set_seed(args.seed)
    model, processor = build_model(run, splits["dataset"])
    if run.peft is not None:
        from count_clip.trainers.running.adapters import adapt_model

        model, processor = adapt_model(run, args, model, processor, goes_on=checkpoint is not None)
    trainer = build_trainer(run, args, model, processor, splits)
    trainer.hub_dtype, trainer.license, trainer.command = run.hub_dtype, run.license, command or trainer.command
    measured = {key.removesuffix("_dataset"): rows for key, rows in splits.items() if key != "dataset"}
    results: dict[str, Any] = {
        "task": run.task,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "num_trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "num_rows": {key: len(rows) for key, rows in splits.items()},
    }
    if run.evaluate_first:
        results["before"] = {name: measure(trainer, run.task, rows, splits) for name, rows in measured.items()}
    if args.max_steps > 0 or args.num_train_epochs > 0:
        results["train"] = trainer.train(resume_from_checkpoint=checkpoint).metrics
        trainer.save_state()
    # Not yet to the Hub: the card has no figures.
    trainer.save_model(_internal_call=True)
    results["after"] = {name: measure(trainer, run.task, rows, splits) for name, rows in measured.items()}
    results["seconds"] = round(time.time() - started, 1)
    if trainer.is_world_process_zero():
        Path(args.output_dir, RESULTS_NAME).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print(summary(results))
        write_run_card(run, trainer, results)
    if args.push_to_hub:
        trainer.push_to_hub()
    return results


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """
    The checkpoint that `resume_from_checkpoint` names: `true` the last one, `auto` the last one if there is any, or a
    path; `FileNotFoundError` if it does not exist.
    """
    named, folder = args.resume_from_checkpoint, Path(args.output_dir)
    last = _last_checkpoint(folder)
    if named in (None, "false", ""):
        if last is not None:
            logger.warning(
                f"{folder} holds checkpoints of an earlier run, which this run will mix with its own. Set "
                "`resume_from_checkpoint: auto` to resume from the last one, or choose another `output_dir`."
            )
        return None
    if named == "true" and last is None:
        raise FileNotFoundError(
            f"There is no checkpoint to resume from in {folder}. Use `resume_from_checkpoint: auto` to start from "
            "the beginning without one."
        )
    if named in ("true", "auto"):
        return last
    if not Path(named).is_dir():
        raise FileNotFoundError(f"There is no checkpoint folder {named!r}, which `resume_from_checkpoint` names.")
    return str(named)


def _last_checkpoint(folder: Path) -> str | None:
    """The last complete checkpoint; a run may have been killed while it wrote one."""
    names = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in folder.glob("checkpoint-*"))
    steps = {int(match[1]): path for match, path in names if match}
    for step in sorted(steps, reverse=True):
        try:
            # The trainer writes this file last.
            json.loads((steps[step] / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(steps[step])
    return None


def build_trainer(
    run: RunArguments, args: Any, model: Any, processor: Any, splits: dict[str, Any]
) -> CountingTrainer | DensityTrainer:
    """Make the trainer of a run."""
    options = {
        "model": model,
        "args": args,
        "train_dataset": splits["dataset"],
        "eval_dataset": splits.get("eval_dataset"),
        "processing_class": processor,
    }
    patience = run.early_stopping_patience
    if run.task == "counting":
        trainer: Any = CountingTrainer(compute_metrics=_of_prediction(counting_figures), **options)
        stop: Any = EarlyStoppingCallback
    else:
        trainer = DensityTrainer(compute_metrics=_of_prediction(density_figures), **options)
        stop = partial(DensityEarlyStoppingCallback, trainer)
    if patience is not None:
        trainer.add_callback(stop(patience))
    return trainer


def _of_prediction(figures: Callable[..., dict[str, float]]) -> Callable[[EvalPrediction], dict[str, float]]:
    return lambda prediction: figures(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))


def counting_figures(scores: np.ndarray, numbers: np.ndarray) -> dict[str, float]:
    """
    `accuracy` (chance is 1/9) and `mean_deviation` of scores `(num_images, 9)` of the captions with two to ten, by the
    true numbers `(num_images,)`.
    """
    from count_clip.evaluation.functional import counting_accuracy, mean_deviation, predicted_numbers

    chosen = predicted_numbers(scores)
    return {"accuracy": counting_accuracy(chosen, numbers), "mean_deviation": mean_deviation(chosen, numbers)}


def density_figures(counts: np.ndarray, true_counts: np.ndarray) -> dict[str, float]:
    """`mae` and `rmse` of predicted counts `(num_images,)`."""
    from count_clip.evaluation.functional import mean_absolute_error, root_mean_squared_error

    return {
        "mae": mean_absolute_error(counts, true_counts),
        "rmse": root_mean_squared_error(counts, true_counts),
    }


def measure(trainer: CountingTrainer | DensityTrainer, task: str, rows: Any, splits: dict[str, Any]) -> dict[str, Any]:
    """
    Measure the model on rows that it was not trained on. For density also `mean_mae` and `mean_rmse` of always
    predicting the training mean, and `by_prompt` where the training rows have the same few prompts.
    """
    prediction = trainer.predict(rows)
    predicted, true = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    if task == "counting":
        return {"num_rows": len(true), **counting_figures(predicted, true)}
    train_rows = sample_rows(splits["dataset"])
    train_counts, train_texts = np.array(_counts(train_rows)), train_rows.column("text")
    texts = rows.column("text")
    prompts = sorted(set(texts))
    result = _with_baseline(predicted, true, train_counts)
    if 1 < len(prompts) <= min(MAX_PROMPTS_REPORTED, len(texts) // 2) and set(prompts) <= set(train_texts):
        parts = {}
        for prompt in prompts:
            here, seen = np.array(texts) == prompt, np.array(train_texts) == prompt
            parts[prompt] = _with_baseline(predicted[here], true[here], train_counts[seen])
        shares = np.array([part["num_rows"] for part in parts.values()]) / len(true)
        # The harder baseline: the mean of each prompt.
        result["mean_mae"] = float(shares @ [part["mean_mae"] for part in parts.values()])
        result["mean_rmse"] = float(np.sqrt(shares @ [part["mean_rmse"] ** 2 for part in parts.values()]))
        result["by_prompt"] = parts
    return result


def _with_baseline(predicted: np.ndarray, true: np.ndarray, train_counts: np.ndarray) -> dict[str, Any]:
    from count_clip.evaluation.functional import mean_baseline

    baseline = mean_baseline(train_counts, true)
    figures = density_figures(predicted, true)
    return {"num_rows": len(true), **figures, "mean_mae": baseline.mae, "mean_rmse": baseline.rmse}


def _counts(rows: Rows) -> list[int]:
    counts = rows.column("count")
    if None not in counts:
        return counts
    points = rows.column("points")
    return [row_count({"count": count, "points": found}) for count, found in zip(counts, points, strict=True)]


def summary(results: dict[str, Any]) -> str:
    """The figures of a run as text: a line for each set of rows and each prompt."""
    lines = []
    for when in ("before", "after"):
        for name, figures in results.get(when, {}).items():
            lines.append(f"{when:>6} {name}: {_figures(figures)}")
            lines += [f"{'':>6} {name}, {prompt}: {_figures(x)}" for prompt, x in figures.get("by_prompt", {}).items()]
    return "\n".join(lines)


def _figures(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if isinstance(value, float))


def finish_processes() -> None:
    """Leave the process group; without this the end of another process is sometimes taken for a crash."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
