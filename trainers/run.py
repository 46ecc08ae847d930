"""
Train one of the two models as a YAML file says: `accelerate launch trainers/run.py CONFIG.yaml [--key value ...]`.

The same file and the same command serve one CPU, several processes (`torchrun --nproc_per_node 2 trainers/run.py ...`)
and GPUs. `python -m count_clip.trainers.run` is the same.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import CLIPTokenizer, EarlyStoppingCallback, EvalPrediction, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import CONFIG_NAME, logging

from count_clip.evaluation.records.run_record import plain_command
from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig
from count_clip.modeling.configuration_count_clip import CountCLIPConfig
from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.modeling.processing_clip_count_density import CLIPCountDensityProcessor
from count_clip.modeling.processing_count_clip import CountCLIPProcessor
from count_clip.trainers.core.collators import row_count
from count_clip.trainers.core.rows import row_column
from count_clip.trainers.counting.trainer import CountingTrainer
from count_clip.trainers.density.trainer import DensityEarlyStoppingCallback, DensityTrainer
from count_clip.trainers.hub.card import write_model_card
from count_clip.trainers.hub.run_card import data_name, figures_of_run, training_record, write_loss_curve
from count_clip.trainers.running.arguments import RunArguments, check_keys, parse_run
from count_clip.trainers.running.data import load_splits
from count_clip.trainers.running.scratch import (
    build_counting_model,
    build_density_model,
    counting_model_from_density,
    density_processor,
)


logger = logging.get_logger(__name__)

RESULTS_NAME = "results.json"
MAX_PROMPTS_REPORTED = 20
# Of larger training sets so many rows, spread evenly, stand for all: for the tokenizer's words and the mean count.
MAX_ROWS_READ = 10_000
# Besides a checkpoint of its own and new weights, what a model can start from: the towers of the other one.
MODEL_SOURCES = {"counting": "density_name_or_path", "density": "clip_name_or_path"}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """
    Train, evaluate, save and report.

    Args:
        argv (`Sequence[str]`, *optional*): The command line; by default the program's own.

    Returns:
        `dict`: What stands in `results.json` of the output folder.
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
    Do one run.

    Args:
        run ([`RunArguments`]): Which model and which rows.
        args ([`CountingConfig`] or [`DensityConfig`]): How to train.
        command (`str`, *optional*): What asked for it, for the card.

    Returns:
        `dict`: The figures, also written to `results.json` in `args.output_dir`.
    """
    started = time.time()
    checkpoint = checkpoint_to_resume(args)
    if checkpoint is not None:
        logger.warning(f"Going on from {checkpoint}.")
    splits = load_splits(run)
    set_seed(args.seed)
    model, processor = build_model(run, splits["dataset"])
    if run.peft is not None:
        model, processor = adapt_model(run, args, model, processor, goes_on=checkpoint is not None)
    trainer = build_trainer(run, args, model, processor, splits)
    trainer.hub_dtype, trainer.license, trainer.command = run.hub_dtype, run.license, command
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


def write_run_card(run: RunArguments, trainer: CountingTrainer | DensityTrainer, results: dict[str, Any]) -> None:
    """
    Write the card of what a run leaves in its folder.

    Args:
        run ([`RunArguments`]): The run.
        trainer: Holds its arguments and the course of its losses.
        results (`dict`): From [`train`].
    """
    args = trainer.args
    command = trainer.command or "# trainers.run.train(...), called by a program"
    total, trained = results["num_parameters"], results["num_trained_parameters"]
    facts = {
        "rows": ", ".join(f"{name} {number:,}" for name, number in results["num_rows"].items()),
        "parameters": f"{total:,}, {trained:,} of them trained ({trained / total:.2%})",
        "steps": trainer.state.global_step,
        "seconds": results["seconds"],
    }
    source = run.model_name_or_path or run.clip_name_or_path or run.density_name_or_path
    write_loss_curve(args.output_dir, trainer.state.log_history)
    write_model_card(
        args.output_dir,
        trainer.hub_model_id,
        license=run.license,
        base_model=source if source and not Path(source).expanduser().exists() else None,
        datasets=[data_name(run.dataset)] if run.dataset else None,
        figures=figures_of_run(run, results, command),
        training=training_record(args, command, facts),
    )


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """
    The checkpoint that `resume_from_checkpoint` means: `true` the last one, `auto` the last one if there is any, or a
    path.

    Args:
        args ([`TrainingArguments`]): The arguments.

    Returns:
        `str` or `None`: Its folder.

    Raises:
        FileNotFoundError: If it is not there.
    """
    wish = args.resume_from_checkpoint
    folder = Path(args.output_dir)
    last = _last_checkpoint(folder)
    if wish in (None, "false", ""):
        if last is not None:
            logger.warning(
                f"{folder} holds checkpoints of an earlier run, which this run will mix with its own. Set "
                "`resume_from_checkpoint: auto` to go on from the last one, or choose another `output_dir`."
            )
        return None
    if wish in ("true", "auto"):
        if last is None and wish == "true":
            raise FileNotFoundError(
                f"There is no checkpoint to resume from in {folder}. Use `resume_from_checkpoint: auto` to start anew "
                "where there is none."
            )
        return last
    if not Path(wish).is_dir():
        raise FileNotFoundError(f"There is no checkpoint folder {wish!r}, which `resume_from_checkpoint` names.")
    return str(wish)


def _last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written to its end; a run may have been killed while it wrote one."""
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


def build_model(run: RunArguments, train_rows: Any) -> tuple[Any, Any]:
    """
    Load or make the model of a run and its processor.

    Args:
        run ([`RunArguments`]): Says which.
        train_rows: The training rows, from whose texts the tokenizer of a new model is learnt.

    Returns:
        The model and its processor.

    Raises:
        ValueError: If it is not said, or said twice, where the model comes from, if the checkpoint is another's, or
            if there is no such implementation of attention.
        FileNotFoundError: If its folder is missing.
    """
    allowed = ["model_name_or_path", MODEL_SOURCES[run.task], "scratch"]
    given = [name for name in dict.fromkeys([*allowed, *MODEL_SOURCES.values()]) if getattr(run, name) is not None]
    if len(given) != 1 or given[0] not in allowed:
        raise ValueError(
            f"Expected exactly one of {', '.join(f'`{name}`' for name in allowed)} to say where the model of a "
            f"{run.task} run comes from, but got {' and '.join(f'`{name}`' for name in given) or 'none'}."
        )
    name = run.model_name_or_path or getattr(run, MODEL_SOURCES[run.task])
    # A name on the Hub has one slash and no folder before it here; `runs/` is where all our configurations write.
    is_folder = name and (name.startswith(("/", ".", "~", "runs/")) or name.count("/") > 1)
    if is_folder and not Path(name).expanduser().is_dir():
        raise FileNotFoundError(
            f"There is no folder {name!r}, which `{given[0]}` names. If it is what another configuration writes, run "
            "that one first."
        )
    model, processor = (_counting_model if run.task == "counting" else _density_model)(run, train_rows)
    if run.attn_implementation is not None:
        model.set_attn_implementation(run.attn_implementation)
    return model, processor


def adapt_model(run: RunArguments, args: Any, model: Any, processor: Any, goes_on: bool = False) -> tuple[Any, Any]:
    """
    Put the adapters of a run on its model.

    Args:
        run ([`RunArguments`]): Its `peft` says which.
        args ([`CountingConfig`] or [`DensityConfig`]): Say where the run writes.
        model: The base.
        processor: Its processor.
        goes_on (`bool`, *optional*, defaults to `False`): Whether the run goes on from a checkpoint.

    Returns:
        The adapted model and the processor. Where the base cannot be loaded again by a name, because it is new, comes
        from another kind of checkpoint or has fields changed, it is saved beside the adapters; a run that goes on
        takes it from there.
    """
    from count_clip.trainers.running.adapters import adapter_configs, add_adapters, base_folder, leave_room, name_base

    configs = adapter_configs([] if run.peft is None else run.peft, processor.tokenizer)
    everything = {"counting": "train_towers", "density": "trainable"}[run.task]
    if getattr(args, everything) != args.__dataclass_fields__[everything].default:
        logger.warning(
            f"`{everything}: {getattr(args, everything)}` has no effect with `peft`: the adapters train, and what "
            "their `modules_to_save` name."
        )
    name = None if run.model_config else run.model_name_or_path
    if name is None and goes_on and (base_folder(args) / CONFIG_NAME).is_file():
        name = str(base_folder(args))
        model, processor = (
            type(model).from_pretrained(name, dtype=torch.float32),
            type(processor).from_pretrained(name),
        )
    name_base(model, processor, name, args)
    adapted = add_adapters(model, configs)
    leave_room(processor, configs)
    return adapted, processor


def _counting_model(run: RunArguments, train_rows: Any) -> tuple[Any, Any]:
    if run.image_processor:
        raise ValueError("`image_processor` is for density runs; the images of a counting run are prepared as CLIP's.")
    overrides = run.model_config or {}
    check_keys(overrides, CountCLIPConfig().to_dict(), "`model_config`")
    if run.scratch is not None:
        return build_counting_model(run.scratch, _texts(train_rows), overrides)
    if run.density_name_or_path is not None:
        return counting_model_from_density(run.density_name_or_path, overrides)
    model = CLIPForCounting.from_pretrained(run.model_name_or_path, dtype=torch.float32, **overrides)
    return model, CountCLIPProcessor.from_pretrained(run.model_name_or_path)


def _density_model(run: RunArguments, train_rows: Any) -> tuple[Any, Any]:
    overrides, options = run.model_config or {}, run.image_processor or {}
    check_keys(overrides, CLIPCountDensityConfig(text_config={}, vision_config={}).to_dict(), "`model_config`")
    check_keys(options, CLIPCountDensityImageProcessorPil().to_dict(), "`image_processor`")
    if run.scratch is not None:
        return build_density_model(run.scratch, _texts(train_rows), overrides, options)
    if run.clip_name_or_path is not None:
        model = CLIPCountDensityModel.from_clip(run.clip_name_or_path, **overrides)
        options = {**_normalization(run.clip_name_or_path), **options}
        return model, density_processor(model.config, CLIPTokenizer.from_pretrained(run.clip_name_or_path), options)
    model = CLIPCountDensityModel.from_pretrained(run.model_name_or_path, dtype=torch.float32, **overrides)
    processor = CLIPCountDensityProcessor.from_pretrained(run.model_name_or_path)
    if options:
        processor.image_processor = CLIPCountDensityImageProcessorPil.from_pretrained(
            run.model_name_or_path, **options
        )
    return model, processor


def _normalization(clip: str) -> dict[str, Any]:
    """The mean and deviation that a CLIP's images had, where it says so."""
    try:
        said, _ = CLIPCountDensityImageProcessorPil.get_image_processor_dict(clip)
    except OSError:
        return {}
    return {name: said[name] for name in ("image_mean", "image_std") if name in said}


def _texts(rows: Any) -> list[str]:
    """Texts of the training rows, and the numbers that their counterfactuals will have."""
    from count_clip.datasets_scripts.captions.numbers import NUMBER_WORDS

    return [*row_column(_sample(rows), "text"), *NUMBER_WORDS]


def _sample(rows: Any) -> Any:
    """At most `MAX_ROWS_READ` of the rows, the first and others at even distances."""
    step = -(-len(rows) // MAX_ROWS_READ)
    return rows if step == 1 else torch.utils.data.Subset(rows, range(0, len(rows), step))


def build_trainer(
    run: RunArguments, args: Any, model: Any, processor: Any, splits: dict[str, Any]
) -> CountingTrainer | DensityTrainer:
    """
    Make the trainer of a run.

    Args:
        run ([`RunArguments`]): The task, and when to stop early.
        args ([`CountingConfig`] or [`DensityConfig`]): How to train.
        model: The model.
        processor: Its processor.
        splits (`dict`): The rows, from [`load_splits`].

    Returns:
        [`CountingTrainer`] or [`DensityTrainer`].
    """
    trainer_class: type[CountingTrainer] | type[DensityTrainer]
    trainer_class = CountingTrainer if run.task == "counting" else DensityTrainer
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=splits["dataset"],
        eval_dataset=splits.get("eval_dataset"),
        processing_class=processor,
        compute_metrics=_compute_metrics(run.task),
    )
    patience = run.early_stopping_patience
    if patience is not None:
        stops_density = isinstance(trainer, DensityTrainer)
        trainer.add_callback(
            DensityEarlyStoppingCallback(trainer, patience) if stops_density else EarlyStoppingCallback(patience)
        )
    return trainer


def _compute_metrics(task: str) -> Callable[[EvalPrediction], dict[str, float]]:
    figures = {"counting": counting_figures, "density": density_figures}[task]
    return lambda prediction: figures(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))


def counting_figures(scores: np.ndarray, numbers: np.ndarray) -> dict[str, float]:
    """
    The figures of CountBench's protocol.

    Args:
        scores (`np.ndarray` of shape `(num_images, 9)`): Scores of the captions with two to ten.
        numbers (`np.ndarray` of shape `(num_images,)`): The true numbers.

    Returns:
        `dict` with `accuracy` (chance is 1/9) and `mean_deviation`.
    """
    from count_clip.evaluation.functional import counting_accuracy, mean_deviation, predicted_numbers

    said = predicted_numbers(scores)
    return {"accuracy": counting_accuracy(said, numbers), "mean_deviation": mean_deviation(said, numbers)}


def density_figures(counts: np.ndarray, true_counts: np.ndarray) -> dict[str, float]:
    """
    The figures of density counting.

    Args:
        counts (`np.ndarray` of shape `(num_images,)`): Predicted counts.
        true_counts (`np.ndarray` of shape `(num_images,)`): True counts.

    Returns:
        `dict` with `mae` and `rmse`.
    """
    from count_clip.evaluation.functional import mean_absolute_error, root_mean_squared_error

    return {
        "mae": mean_absolute_error(counts, true_counts),
        "rmse": root_mean_squared_error(counts, true_counts),
    }


def measure(trainer: CountingTrainer | DensityTrainer, task: str, rows: Any, splits: dict[str, Any]) -> dict[str, Any]:
    """
    Measure the model on rows that it was not trained on.

    Args:
        trainer: Holds the model.
        task (`str`): `"counting"` or `"density"`.
        rows: The rows.
        splits (`dict`): All rows of the run; the training rows give the baseline.

    Returns:
        `dict`: The figures; for density also `mean_mae` and `mean_rmse`, those of always saying the training mean, and
        `by_prompt` where the training rows have the same few prompts.
    """
    prediction = trainer.predict(rows)
    predicted, true = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    if task == "counting":
        return {"num_rows": len(true), **counting_figures(predicted, true)}
    train_rows = _sample(splits["dataset"])
    train_counts, train_texts = np.array(_counts(train_rows)), row_column(train_rows, "text")
    texts = row_column(rows, "text")
    prompts = sorted(set(texts))
    result = _beside_mean(predicted, true, train_counts)
    if 1 < len(prompts) <= min(MAX_PROMPTS_REPORTED, len(texts) // 2) and set(prompts) <= set(train_texts):
        parts = {}
        for prompt in prompts:
            here, seen = np.array(texts) == prompt, np.array(train_texts) == prompt
            parts[prompt] = _beside_mean(predicted[here], true[here], train_counts[seen])
        shares = np.array([part["num_rows"] for part in parts.values()]) / len(true)
        # The harder baseline: it is told the prompt, and says the mean of that prompt.
        result["mean_mae"] = float(shares @ [part["mean_mae"] for part in parts.values()])
        result["mean_rmse"] = float(np.sqrt(shares @ [part["mean_rmse"] ** 2 for part in parts.values()]))
        result["by_prompt"] = parts
    return result


def _beside_mean(predicted: np.ndarray, true: np.ndarray, train_counts: np.ndarray) -> dict[str, Any]:
    from count_clip.evaluation.functional import mean_baseline

    baseline = mean_baseline(train_counts, true)
    figures = density_figures(predicted, true)
    return {"num_rows": len(true), **figures, "mean_mae": baseline.mae, "mean_rmse": baseline.rmse}


def _counts(rows: Any) -> list[int]:
    counts = row_column(rows, "count")
    if None not in counts:
        return counts
    points = row_column(rows, "points")
    return [row_count({"count": count, "points": found}) for count, found in zip(counts, points, strict=True)]


def summary(results: dict[str, Any]) -> str:
    """
    The figures of a run, to read.

    Args:
        results (`dict`): From [`train`].

    Returns:
        `str`: A line for each set of rows and each prompt.
    """
    lines = []
    for when in ("before", "after"):
        for name, figures in results.get(when, {}).items():
            lines.append(f"{when:>6} {name}: {_figures(figures)}")
            lines += [f"{'':>6} {name}, {prompt}: {_figures(x)}" for prompt, x in figures.get("by_prompt", {}).items()]
    return "\n".join(lines)


def _figures(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if isinstance(value, float))


def finish_processes() -> None:
    """Wait for the other processes and part from them; without this their end is now and then taken for a crash."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
