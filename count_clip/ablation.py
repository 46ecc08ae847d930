"""
`count-clip ablation`: the effect of each component of "Teaching CLIP to Count to Ten", on rendered scenes.

One small CLIP is trained on captions of which few state a number (A), then fine-tuned on the counting set without the
counting loss (B), with the loss on a naively filtered set (C), and with both (D); the latter three with several seeds.
All are measured on classes that no training scene has.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .stages import run_stage, stage_folder, stage_key
from .text_tables import markdown_table


ARMS = {
    "A": "base",
    "B": "fine-tuned on the counting set, without the counting loss",
    "C": "with the loss, on a naively filtered set",
    "D": "with the loss, on the counting set",
}
# The filter of the counting rows of each arm, and whether they get the loss.
FILTERS = {"B": ("full", False), "C": ("naive", True), "D": ("full", True)}
# CountBench accuracy of CLIP-B/32 in per cent, from the paper (https://huggingface.co/papers/2302.12066).
PAPER = {"A": 31.7, "B": 44.3, "C": 49.8, "D": 75.9}
CONFIG = Path(__file__).with_name("ablation.yaml")
MEASURED_NAME = "measured.json"
# Seeds of the scenes: the base, the fine-tunings (plus ten per seed) and the test scenes all differ.
BASE_SEED, ARM_SEED = 1, 1000
# The changes of --quick: the whole ablation takes seconds and learns nothing.
_FEW = {"max_steps": 2, "per_device_train_batch_size": 8, "warmup_steps": 0, "logging_steps": 1, "save_steps": 1}
_SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
QUICK = {
    "base": {**_FEW, "dataloader_num_workers": 0, "scratch": {"vision": {**_SMALL, "patch_size": 16}, "text": _SMALL}},
    "arms": {**_FEW, "dataloader_num_workers": 0},
    "evaluation": {"num_scenes": 18},
}


@dataclass
class Arm:
    """The results of one arm; each list has one entry per seed."""

    name: str
    what: str
    """Its training, from `ARMS`."""
    accuracy: list[float] = field(default_factory=list)
    """Share of the scenes with the right number (chance: 1/9)."""
    mean_deviation: list[float] = field(default_factory=list)
    off_by_one: list[float] = field(default_factory=list)
    """Share of the scenes with the right number or a neighbour of it."""
    zero_shot: list[float] = field(default_factory=list)
    """Classification accuracy among the classes of all test scenes."""
    confusion: list[list[int]] = field(default_factory=list)
    """True numbers two to ten in rows, predictions in columns, summed over the seeds."""
    seconds: list[float] = field(default_factory=list)
    """Training time."""
    paper: float = 0.0
    """Accuracy in the paper's table, in per cent."""


def run_ablation(
    output: Path, config: Mapping[str, Any], seeds: Sequence[int], base: str | None = None, fresh: bool = False
) -> dict[str, Any]:
    """
    Train and measure all arms; returns the content of `ablation.json`, with a table in Markdown and
    the confusion matrices.

    Finished trainings in the folder are reused unless `fresh`. `base` is the CLIP to start from, a folder or a name on
    the Hub; by default one is trained. Raises a `FileExistsError` if a folder holds files that no ablation wrote.
    """
    started = time.time()
    output.mkdir(parents=True, exist_ok=True)
    if fresh:
        for folder in sorted(output.glob("runs/*")):
            stage_folder(folder).remove()
    arms = {name: Arm(name, what, paper=PAPER[name]) for name, what in ARMS.items()}
    steps = list(itertools.product(seeds, FILTERS))
    print(f"\n[1/{len(steps) + 1}] A: the base of all arms", flush=True)
    folder = output / "runs" / ("A" if base is None else "A-given")
    if base is None:
        model, parent = _train(folder, base_run(config), arms["A"])
    else:
        from count_clip.evaluation.records.run_record import weights_sha256

        model, parent = base, f"{base} {weights_sha256(base)}"
    _add_results(arms["A"], measure(model, folder, parent, config))
    for place, (seed, name) in enumerate(steps, start=2):
        print(f"\n[{place}/{len(steps) + 1}] {name}, seed {seed}: {ARMS[name]}", flush=True)
        folder = output / "runs" / f"{name}-{seed}"
        trained, key = _train(folder, arm_run(name, seed, model, config), arms[name], parent)
        _add_results(arms[name], measure(trained, folder, key, config))
    result = {
        "arms": [asdict(arm) for arm in arms.values()],
        "seeds": list(seeds),
        "order_holds": order_holds(list(arms.values())),
        "base": base,
        "config": dict(config),
        "seconds": round(time.time() - started, 1),
    }
    (output / "ablation.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _draw(list(arms.values()), output)
    text = report(list(arms.values()), config)
    (output / "ablation.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\nWritten to {output}: ablation.md, ablation.json, confusion.png, confusion_A.png to _D.png")
    return result


def read_config(path: Path | None = None, settings: Sequence[str] = (), quick: bool = False) -> dict[str, Any]:
    """
    Read the sections `scenes`, `number_rate`, `noise`, `base`, `arms` and `evaluation` from a YAML file like `CONFIG`,
    and apply `settings`, `PART.KEY=VALUE` each.

    Raises a `FileNotFoundError` if there is no such file, and a `ValueError` if a section or key is unknown or
    missing, or a value is invalid.
    """
    from count_clip.trainers.running.arguments import check_keys, load_config, merge_keys, parse_overrides

    if path is not None and not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Give a YAML file like {CONFIG}.")
    default = load_config(CONFIG)
    config = load_config(CONFIG if path is None else path)
    check_keys(config, default, str(path or CONFIG))
    if missing := [section for section in default if section not in config]:
        raise ValueError(f"Expected {path} to have {', '.join(default)}, but {', '.join(missing)} is missing.")
    if quick:
        config = merge_keys(config, QUICK)
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or key.partition(".")[0] not in default:
            sections = ", ".join(default)
            raise ValueError(f"expected --set PART.KEY=VALUE with one of the parts {sections}, but got {setting!r}")
        for keys, parsed in parse_overrides([f"--{key}", value]):
            for inner in reversed(keys):
                parsed = {inner: parsed}
            config = merge_keys(config, parsed)
    for section in ("evaluation", "noise"):
        check_keys(config[section], default[section], f"`{section}`")
    _check_runs(config)
    return config


def _check_runs(config: Mapping[str, Any]) -> None:
    """Check the training arguments and load a few rows, so that a mistake shows before the first training."""
    from count_clip.trainers.running.arguments import TASKS, RunArguments, convert
    from count_clip.trainers.running.data import load_rows

    for section in ("base", "arms"):
        values = convert((RunArguments, TASKS["counting"].config), config[section], f"in `{section}`")
        for key in ("max_steps", "per_device_train_batch_size"):
            if values.get(key) is None:
                raise ValueError(f"Expected `{section}.{key}` to be a whole number, but it is missing.")
    fraction = config["arms"].get("counting_fraction")
    if not 0 < float(fraction or 0) <= 1:
        raise ValueError(
            f"Expected `arms.counting_fraction` to be above 0 and at most 1, but got {fraction!r}: it is the share of "
            "counting rows in a batch."
        )
    row = load_rows(_counting_rows(config, "naive", 0, 9), "counting")[0]
    if row["image"].width != config["scenes"].get("image_size", row["image"].width):
        raise ValueError(f"Expected scenes of {config['scenes']['image_size']} pixels, but got {row['image'].width}.")


def base_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The run configuration of `trainers/run.py` that trains the base (A)."""
    run = copy.deepcopy(dict(config["base"]))
    run["dataset"] = _caption_rows(config, config["number_rate"], BASE_SEED, _num_rows(run))
    if run.get("scratch"):
        run["scratch"]["vision"] = {"image_size": config["scenes"].get("image_size", 64), **run["scratch"]["vision"]}
    return {"task": "counting", "report_to": "none", **run}


def arm_run(name: str, seed: int, model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """
    The run configuration of `trainers/run.py` that fine-tunes the base `model` as arm B, C or D; the seed is that of
    row order, counterfactuals and scenes.
    """
    run = copy.deepcopy(dict(config["arms"]))
    which, has_loss = FILTERS[name]
    fraction = float(run["counting_fraction"])
    num_rows, scene_seed = _num_rows(run), ARM_SEED + 10 * seed
    parts = [_counting_rows(config, which, scene_seed, math.ceil(num_rows * fraction))]
    if fraction < 1:
        num_general = math.ceil(num_rows * (1 - fraction))
        parts.append({**_caption_rows(config, config["number_rate"], scene_seed + 1, num_general), "general": True})
    run |= {"dataset": {"parts": parts}, "counting_loss": has_loss, "seed": seed, "model_name_or_path": model}
    return {"task": "counting", "report_to": "none", **run}


def _counting_rows(config: Mapping[str, Any], which: str, seed: int, num_rows: int) -> dict[str, Any]:
    """The counting rows; the arms of one seed filter the same scenes."""
    noise = config["noise"]
    kept = 1.0 if which == "naive" else (1 - noise["not_counting_rate"]) * (1 - noise["wrong_number_rate"])
    # The loader reports a filter that keeps nothing.
    rows = _caption_rows(config, 1.0, seed, math.ceil(num_rows / max(kept, 0.01)))
    return {**rows, "caption_noise": {**noise, "seed": seed}, "counting_filter": which}


def _caption_rows(config: Mapping[str, Any], number_rate: float, seed: int, num_scenes: int) -> dict[str, Any]:
    """Rendered captions, of which this share states a number."""
    scenes = {"name": "countscenes", "config": "captions", **config["scenes"]}
    return {**scenes, "number_rate": number_rate, "seed": seed, "num_scenes": num_scenes}


def _num_rows(run: Mapping[str, Any]) -> int:
    """The rows that a run uses, each once."""
    batch = int(run["per_device_train_batch_size"]) * int(run.get("gradient_accumulation_steps") or 1)
    return int(run["max_steps"]) * batch


def _train(folder: Path, run: Mapping[str, Any], arm: Arm, parent: str = "") -> tuple[str, str]:
    """Run or reuse a training; return the model's folder and the key of the training."""
    # Through JSON, as YAML would write a list that occurs twice as a reference.
    text = yaml.safe_dump(json.loads(json.dumps(run)), sort_keys=False)
    file = folder.parent / f"{folder.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    arm.seconds.append(run_stage(folder, str(file), [], parent)["seconds"])
    return str(folder), stage_key(folder)


def measure(model: str, folder: Path, key: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """
    Measure a checkpoint on scenes of unseen classes, or return the results that `folder` has of the same `key`, that
    of the checkpoint's training.
    """
    import torch

    from count_clip.datasets_scripts.countscenes.builder import CountScenes
    from count_clip.evaluation.benchmarks.classification import evaluate_classification
    from count_clip.evaluation.benchmarks.countbench import evaluate_countbench
    from count_clip.modeling.modeling_count_clip import CLIPForCounting
    from count_clip.modeling.processing_count_clip import CountCLIPProcessor

    file, options = folder / MEASURED_NAME, config["evaluation"]
    how = json.dumps([key, config["scenes"], options])
    if file.is_file():
        measured = json.loads(file.read_text(encoding="utf-8"))
        if measured["how"] == how:
            return measured
    looks = {"number_rate": 1.0, **config["scenes"], "num_scenes": options["num_scenes"], "seed": options["seed"]}
    rows = CountScenes("test", config="benchmark", **looks)
    names = sorted(set(rows.column("name")))
    device = "cuda" if torch.cuda.is_available() else None
    common: dict[str, Any] = {"batch_size": options["batch_size"], "device": device, "progress": False}
    loaded = CLIPForCounting.from_pretrained(model, dtype=torch.float32)
    processor = CountCLIPProcessor.from_pretrained(model)
    counting = evaluate_countbench(loaded, processor, rows, **common)
    classes: dict[str, Any] = {"label_column": "name", "names": names, "templates": ["a photo of {}"]}
    measured = {
        "how": how,
        "accuracy": counting.accuracy,
        "accuracy_interval_95": list(counting.accuracy_interval()),
        "mean_deviation": counting.mean_deviation,
        "off_by_one": counting.off_by_one,
        "confusion": counting.confusion.tolist(),
        "zero_shot": evaluate_classification(loaded, processor, rows, **classes, **common).top_1,
        "num_names": len(names),
        "n": counting.n,
    }
    folder.mkdir(parents=True, exist_ok=True)
    if stage_folder(folder).plan is None:  # a given checkpoint, which was not trained here
        stage_folder(folder).begin({"checkpoint": model})
    file.write_text(json.dumps(measured) + "\n", encoding="utf-8")
    return measured


def _add_results(arm: Arm, measured: Mapping[str, Any]) -> None:
    """Add the results of one model to its arm and print them."""
    for name in ("accuracy", "mean_deviation", "off_by_one", "zero_shot"):
        getattr(arm, name).append(measured[name])
    arm.confusion = (np.array(measured["confusion"]) + (arm.confusion or 0)).tolist()
    low, high = measured["accuracy_interval_95"]
    print(
        f"{arm.name}: accuracy {measured['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%}), mean deviation "
        f"{measured['mean_deviation']:.2f}, classification {measured['zero_shot']:.1%} of {measured['num_names']} "
        "classes",
        flush=True,
    )


def order_holds(arms: Sequence[Arm]) -> bool:
    """Whether the mean accuracies rise from A to D, as in the paper."""
    means = [statistics.fmean(arm.accuracy) for arm in arms]
    return all(lower < higher for lower, higher in itertools.pairwise(means))


def report(arms: Sequence[Arm], config: Mapping[str, Any]) -> str:
    """The results as a Markdown table, and whether the order is the paper's."""
    head = ("", "training", "accuracy", "mean deviation", "within one", "classification", "paper (CLIP-B/32)")
    rows = [
        (
            arm.name,
            arm.what,
            _mean_and_std(arm.accuracy, 100, 1, " %"),
            _mean_and_std(arm.mean_deviation, 1, 2, ""),
            _mean_and_std(arm.off_by_one, 100, 1, " %"),
            _mean_and_std(arm.zero_shot, 100, 1, " %"),
            f"{arm.paper:.1f} %",
        )
        for arm in arms
    ]
    runs = max(len(arm.accuracy) for arm in arms)
    seeds = f"Mean and standard deviation of {runs} seeds; A is one model" if runs > 1 else "One seed"
    steps = []
    for lower, higher in itertools.pairwise(arms):
        gain = statistics.fmean(higher.accuracy) - statistics.fmean(lower.accuracy)
        std = math.sqrt(sum(statistics.variance(x.accuracy) for x in (lower, higher) if len(x.accuracy) > 1))
        doubt = " (within one standard deviation)" if abs(gain) <= std else ""
        steps.append(f"{lower.name} to {higher.name} {100 * gain:+.1f} points{doubt}")
    verdict = "holds" if order_holds(arms) else "does not hold"
    return (
        f"{markdown_table([head, *rows])}\n\n{seeds}. Measured on {config['evaluation']['num_scenes']} scenes of two "
        "to ten objects of unseen classes with nine captions each (chance: 11.1 %, 2.96); classification is among "
        f"these classes. The order of the paper's table {verdict}: {', '.join(steps)}."
    )


def _mean_and_std(values: Sequence[float], factor: float, digits: int, unit: str) -> str:
    mean = f"{factor * statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {factor * statistics.stdev(values):.{digits}f}{unit}" if len(values) > 1 else f"{mean}{unit}"


def _draw(arms: Sequence[Arm], output: Path) -> None:
    """Draw the confusion matrices, one file each and all in one."""
    from count_clip.evaluation.figures.figures import contact_sheet, draw_confusion_matrix
    from count_clip.evaluation.functional import NUMBERS

    figures = []
    for arm in arms:
        title = f"{arm.name}: accuracy {_mean_and_std(arm.accuracy, 100, 1, ' %')}"
        figures.append(draw_confusion_matrix(arm.confusion, NUMBERS, title=title))
        figures[-1].save(output / f"confusion_{arm.name}.png")
    captions = [f"{arm.name}: {arm.what}" for arm in arms]
    contact_sheet(figures, captions, columns=2, cell=figures[0].width).save(output / "confusion.png")


__all__ = ["ARMS", "Arm", "arm_run", "base_run", "measure", "order_holds", "read_config", "report", "run_ablation"]
