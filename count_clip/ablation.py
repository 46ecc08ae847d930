"""
`count-clip ablation`: what each part of "Teaching CLIP to Count to Ten" is worth, on rendered scenes.

One small CLIP is trained on captions that seldom state a number (A), then fine-tuned on the counting set without the
counting loss (B), with the loss on a set that a filter for number words alone leaves (C), and with both (D); each with
several seeds, measured on kinds of objects that no training scene has.
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

import yaml

from .stages import run_stage, stage_folder, stage_key
from .text_tables import markdown_table


ARMS = {
    "A": "as it is",
    "B": "fine-tuned on the counting set, without the counting loss",
    "C": "with the loss, on a naively filtered set",
    "D": "with the loss, on the counting set",
}
# Of which rows the counting part of each arm consists, and whether they get the loss.
FILTERS = {"B": ("full", False), "C": ("naive", True), "D": ("full", True)}
# CountBench accuracy of CLIP-B/32 in per cent, from the paper (https://huggingface.co/papers/2302.12066).
PAPER = {"A": 31.7, "B": 44.3, "C": 49.8, "D": 75.9}
CONFIG = Path(__file__).with_name("ablation.yaml")
MEASURED_NAME = "measured.json"
# Seeds of the scenes: those of the base, of the fine-tunings (plus ten for each seed) and of what is measured differ.
BASE_SEED, ARM_SEED = 1, 1000
# What --quick changes: seconds in all, to see that everything works. It learns nothing.
_FEW = {"max_steps": 2, "per_device_train_batch_size": 8, "warmup_steps": 0, "logging_steps": 1, "save_steps": 1}
_SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
QUICK = {
    "base": {**_FEW, "dataloader_num_workers": 0, "scratch": {"vision": {**_SMALL, "patch_size": 16}, "text": _SMALL}},
    "arms": {**_FEW, "dataloader_num_workers": 0},
    "evaluation": {"num_scenes": 18},
}


@dataclass
class Arm:
    """
    What was measured of one arm; the lists have an entry for each seed, or a single one for the base.

    Args:
        name (`str`): A key of `ARMS`.
        what (`str`): What it is.
        accuracy (`list[float]`): Share of the scenes with the right number; guessing gives 1/9.
        mean_deviation (`list[float]`): Mean of how far the number said is from the true one.
        off_by_one (`list[float]`): Share of the scenes with the right number or one next to it.
        zero_shot (`list[float]`): Share of the scenes whose kind of objects was told among those of all scenes.
        confusion (`list[list[int]]`): True numbers two to ten down, numbers said across, of all seeds together.
        seconds (`list[float]`): How long each training took.
        paper (`float`): The accuracy in the paper's table, in per cent.
    """

    name: str
    what: str
    accuracy: list[float] = field(default_factory=list)
    mean_deviation: list[float] = field(default_factory=list)
    off_by_one: list[float] = field(default_factory=list)
    zero_shot: list[float] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    paper: float = 0.0


def run_ablation(
    output: Path, config: Mapping[str, Any], seeds: Sequence[int], base: str | None = None, fresh: bool = False
) -> dict[str, Any]:
    """
    Train and measure all arms; write a table (Markdown and JSON) and the confusion matrices.

    Args:
        output (`Path`): The folder for all of it; what an earlier run finished there is taken up.
        config (`Mapping[str, Any]`): From [`read_config`].
        seeds (`Sequence[int]`): The seeds of B, C and D.
        base (`str`, *optional*): A CLIP to start from, a folder or a name on the Hub; by default one is trained.
        fresh (`bool`, *optional*, defaults to `False`): Whether to do again what an earlier run has finished.

    Returns:
        `dict`: What stands in `ablation.json`.

    Raises:
        FileExistsError: If a folder holds something that no ablation wrote.
    """
    started = time.time()
    output.mkdir(parents=True, exist_ok=True)
    if fresh:
        for folder in sorted(output.glob("runs/*")):
            stage_folder(folder).remove()
    arms = {name: Arm(name, what, paper=PAPER[name]) for name, what in ARMS.items()}
    total = len(seeds) * len(FILTERS) + 1
    print(f"\n[1/{total}] A: the small CLIP that everything starts from", flush=True)
    folder = output / "runs" / ("A" if base is None else "A-given")
    if base is None:
        model, parent = _train(folder, base_run(config), arms["A"])
    else:
        from count_clip.evaluation.records.run_record import weights_sha256

        model, parent = base, f"{base} {weights_sha256(base)}"
    _take_up(arms["A"], measure(model, folder, parent, config))
    place = 1
    for seed in seeds:
        for name in FILTERS:
            place += 1
            print(f"\n[{place}/{total}] {name}, seed {seed}: {ARMS[name]}", flush=True)
            folder = output / "runs" / f"{name}-{seed}"
            run = arm_run(name, seed, model, config)
            trained, key = _train(folder, run, arms[name], parent)
            _take_up(arms[name], measure(trained, folder, key, config))
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
    Read what an ablation trains on, and how.

    Args:
        path (`Path`, *optional*): A file like `count_clip/ablation.yaml`, which is the default.
        settings (`Sequence[str]`, *optional*): `PART.KEY=VALUE` each, changes to it.
        quick (`bool`, *optional*, defaults to `False`): Whether to make everything so small that it takes seconds.

    Returns:
        `dict`: Its parts: `scenes`, `number_rate`, `noise`, `base`, `arms` and `evaluation`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a part or a key is unknown or missing, or a value does not do.
    """
    from count_clip.trainers.running.arguments import check_keys, load_config, merge_keys, parse_overrides

    if path is not None and not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Give a YAML file like {CONFIG}.")
    config = load_config(CONFIG if path is None else path)
    parts = load_config(CONFIG)
    check_keys(config, parts, str(path or CONFIG))
    if missing := [part for part in parts if part not in config]:
        raise ValueError(f"Expected {path} to have {', '.join(parts)}, but {', '.join(missing)} is missing.")
    if quick:
        config = merge_keys(config, QUICK)
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or key.partition(".")[0] not in parts:
            raise ValueError(
                f"expected --set PART.KEY=VALUE with one of the parts {', '.join(parts)}, but got {setting!r}"
            )
        for keys, parsed in parse_overrides([f"--{key}", value]):
            for inner in reversed(keys):
                parsed = {inner: parsed}
            config = merge_keys(config, parsed)
    check_keys(config["evaluation"], parts["evaluation"], "`evaluation`")
    check_keys(config["noise"], parts["noise"], "`noise`")
    _try_out(config)
    return config


def _try_out(config: Mapping[str, Any]) -> None:
    """Read both kinds of runs and a few rows once, so that a mistake shows now and not in an hour."""
    from count_clip.trainers.running.arguments import TASKS, RunArguments, convert
    from count_clip.trainers.running.data import load_rows

    for part in ("base", "arms"):
        values = convert((RunArguments, TASKS["counting"].config), config[part], f"in `{part}`")
        for key in ("max_steps", "per_device_train_batch_size"):
            if values.get(key) is None:
                raise ValueError(f"Expected `{part}.{key}` to be a whole number, but it is missing.")
    if not 0 < float(config["arms"].get("counting_fraction") or 0) <= 1:
        raise ValueError(
            "Expected `arms.counting_fraction` to be above 0 and at most 1, but got "
            f"{config['arms'].get('counting_fraction')!r}: it says which share of a batch is of the counting set."
        )
    row = load_rows(_counting_part(config, "naive", 0, 9), "counting")[0]
    if row["image"].width != config["scenes"].get("image_size", row["image"].width):
        raise ValueError(f"Expected scenes of {config['scenes']['image_size']} pixels, but got {row['image'].width}.")


def base_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """
    The run that trains the small CLIP (A).

    Args:
        config (`Mapping[str, Any]`): From [`read_config`].

    Returns:
        `dict`: What its YAML file for `trainers/run.py` says.
    """
    run = copy.deepcopy(dict(config["base"]))
    rows = {"name": "countscenes", "config": "captions", **config["scenes"], "number_rate": config["number_rate"]}
    run["dataset"] = {**rows, "seed": BASE_SEED, "num_scenes": _rows_needed(run)}
    if run.get("scratch"):
        run["scratch"]["vision"] = {"image_size": config["scenes"].get("image_size", 64), **run["scratch"]["vision"]}
    return {"task": "counting", "report_to": "none", **run}


def arm_run(name: str, seed: int, model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """
    The run that fine-tunes the small CLIP in one of the ways.

    Args:
        name (`str`): `"B"`, `"C"` or `"D"`.
        seed (`int`): Of the order of the rows, the wrong captions and the scenes.
        model (`str`): The small CLIP.
        config (`Mapping[str, Any]`): From [`read_config`].

    Returns:
        `dict`: What its YAML file for `trainers/run.py` says.
    """
    run = copy.deepcopy(dict(config["arms"]))
    which, has_loss = FILTERS[name]
    fraction = float(run["counting_fraction"])
    num_rows, scene_seed = _rows_needed(run), ARM_SEED + 10 * seed
    general = {"name": "countscenes", "config": "captions", **config["scenes"], "number_rate": config["number_rate"]}
    general |= {"seed": scene_seed + 1, "num_scenes": math.ceil(num_rows * (1 - fraction)), "general": True}
    parts = [_counting_part(config, which, scene_seed, math.ceil(num_rows * fraction))]
    run["dataset"] = {"parts": parts if fraction == 1 else [*parts, general]}
    run |= {"counting_loss": has_loss, "seed": seed, "model_name_or_path": model}
    return {"task": "counting", "report_to": "none", **run}


def _counting_part(config: Mapping[str, Any], which: str, seed: int, num_rows: int) -> dict[str, Any]:
    """The counting rows; the arms of one seed draw from the same scenes, of which a filter leaves some."""
    noise = config["noise"]
    kept = 1.0 if which == "naive" else (1 - noise["not_counting_rate"]) * (1 - noise["wrong_number_rate"])
    return {
        "name": "countscenes",
        "config": "captions",
        **config["scenes"],
        "number_rate": 1.0,
        "seed": seed,
        # A filter that leaves nothing is told by the loader; a few scenes more than expected cost nothing.
        "num_scenes": math.ceil(num_rows / max(kept, 0.01)),
        "caption_noise": {**noise, "seed": seed},
        "counting_filter": which,
    }


def _rows_needed(run: Mapping[str, Any]) -> int:
    """As many rows as a run goes through, so that none comes twice."""
    return (
        int(run["max_steps"])
        * int(run["per_device_train_batch_size"])
        * int(run.get("gradient_accumulation_steps") or 1)
    )


def _train(folder: Path, run: Mapping[str, Any], arm: Arm, parent: str = "") -> tuple[str, str]:
    """Do a run, or take up what there is of it; the folder of the model and what it was made for."""
    # Through JSON, so that no list is the same object twice: YAML would write references.
    text = yaml.safe_dump(json.loads(json.dumps(run)), sort_keys=False)
    file = folder.parent / f"{folder.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    results = run_stage(folder, str(file), [], parent)
    arm.seconds.append(results["seconds"])
    return str(folder), stage_key(folder)


def measure(model: str, folder: Path, key: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """
    Measure a model on scenes with kinds of objects that no training scene has, unless that was done before.

    Args:
        model (`str`): The checkpoint.
        folder (`Path`): Where the figures are kept, in `measured.json`.
        key (`str`): What the checkpoint was made for.
        config (`Mapping[str, Any]`): From [`read_config`].

    Returns:
        `dict`: Accuracy, mean deviation, off by one, confusion matrix and zero-shot accuracy.
    """
    import torch

    from count_clip.datasets_scripts.countscenes.builder import CountScenes
    from count_clip.evaluation.benchmarks.countbench import evaluate_countbench, evaluate_zero_shot
    from count_clip.modeling.modeling_count_clip import CLIPForCounting
    from count_clip.modeling.processing_count_clip import CountCLIPProcessor

    file = folder / MEASURED_NAME
    how = json.dumps([key, config["scenes"], config["evaluation"]])
    if file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["how"] == how:
            return known
    options = config["evaluation"]
    scenes = CountScenes(
        "test",
        config="benchmark",
        num_scenes=options["num_scenes"],
        seed=options["seed"],
        **{"number_rate": 1.0, **config["scenes"]},
    )
    rows = [scenes[index] for index in range(len(scenes))]
    loaded = CLIPForCounting.from_pretrained(model, dtype=torch.float32)
    processor = CountCLIPProcessor.from_pretrained(model)
    common: dict[str, Any] = {
        "batch_size": options["batch_size"],
        "device": "cuda" if torch.cuda.is_available() else None,
        "progress": False,
    }
    counted = evaluate_countbench(loaded, processor, rows, **common)
    names = sorted({row["name"] for row in rows})
    told = evaluate_zero_shot(loaded, processor, rows, names, **common)
    measured = {
        "how": how,
        "accuracy": counted.accuracy,
        "accuracy_interval_95": list(counted.accuracy_interval()),
        "mean_deviation": counted.mean_deviation,
        "off_by_one": counted.off_by_one,
        "confusion": counted.confusion.tolist(),
        "zero_shot": told.accuracy,
        "num_names": len(names),
        "n": counted.n,
    }
    folder.mkdir(parents=True, exist_ok=True)
    if stage_folder(folder).plan is None:  # a given checkpoint; its folder here holds the figures alone
        stage_folder(folder).begin({"checkpoint": model})
    file.write_text(json.dumps(measured) + "\n", encoding="utf-8")
    return measured


def _take_up(arm: Arm, measured: Mapping[str, Any]) -> None:
    """Add the figures of one model to those of its arm, and say them."""
    for name in ("accuracy", "mean_deviation", "off_by_one", "zero_shot"):
        getattr(arm, name).append(measured[name])
    before = arm.confusion or [[0] * len(row) for row in measured["confusion"]]
    arm.confusion = [
        [a + b for a, b in zip(*rows, strict=True)] for rows in zip(before, measured["confusion"], strict=True)
    ]
    low, high = measured["accuracy_interval_95"]
    print(
        f"{arm.name}: {measured['accuracy']:.1%} of the numbers right (95 % of resamplings {low:.1%} to {high:.1%}), "
        f"mean deviation {measured['mean_deviation']:.2f}, {measured['zero_shot']:.1%} of the kinds told among "
        f"{measured['num_names']}",
        flush=True,
    )


def order_holds(arms: Sequence[Arm]) -> bool:
    """
    Whether the arms come out in the order of the paper's table.

    Args:
        arms (`Sequence[Arm]`): A, B, C and D.

    Returns:
        `bool`: Whether each mean accuracy is above the one before.
    """
    means = [statistics.fmean(arm.accuracy) for arm in arms]
    return all(lower < higher for lower, higher in itertools.pairwise(means))


def report(arms: Sequence[Arm], config: Mapping[str, Any]) -> str:
    """
    The table, and what it says of the paper's order.

    Args:
        arms (`Sequence[Arm]`): A, B, C and D.
        config (`Mapping[str, Any]`): From [`read_config`].

    Returns:
        `str`: Markdown.
    """
    head = ("", "the small CLIP", "numbers right", "mean deviation", "within one", "kinds told", "paper (CLIP-B/32)")
    rows = [
        (
            arm.name,
            arm.what,
            _spread(arm.accuracy, 100, 1, " %"),
            _spread(arm.mean_deviation, 1, 2, ""),
            _spread(arm.off_by_one, 100, 1, " %"),
            _spread(arm.zero_shot, 100, 1, " %"),
            f"{arm.paper:.1f} %",
        )
        for arm in arms
    ]
    runs = max(len(arm.accuracy) for arm in arms)
    of = f"Mean and standard deviation of {runs} seeds; the base is one model" if runs > 1 else "One seed"
    note = (
        f"{of}. Measured on {config['evaluation']['num_scenes']} scenes with two to ten objects, nine captions each "
        "(guessing: 11.1 %, 2.96), of kinds that no training scene had; they are also the kinds to be told. "
        f"{_order(arms)}"
    )
    return f"{markdown_table([head, *rows])}\n\n{note}"


def _order(arms: Sequence[Arm]) -> str:
    """Whether the paper's order came out, and of which steps the seeds leave a doubt."""
    steps = []
    for lower, higher in itertools.pairwise(arms):
        gain = statistics.fmean(higher.accuracy) - statistics.fmean(lower.accuracy)
        spread = math.sqrt(sum(statistics.variance(x.accuracy) for x in (lower, higher) if len(x.accuracy) > 1))
        step = f"{lower.name} to {higher.name} {100 * gain:+.1f} points"
        steps.append(step + (" (within the spread of the seeds)" if abs(gain) <= spread else ""))
    verdict = "comes out" if order_holds(arms) else "does not come out"
    return f"The order of the paper's table {verdict}: {', '.join(steps)}."


def _spread(values: Sequence[float], factor: float, digits: int, unit: str) -> str:
    """Mean and standard deviation, as they are shown."""
    mean = f"{factor * statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {factor * statistics.stdev(values):.{digits}f}{unit}" if len(values) > 1 else f"{mean}{unit}"


def _draw(arms: Sequence[Arm], output: Path) -> None:
    """Draw the confusion matrices, each by itself and all on one sheet."""
    from count_clip.evaluation.figures.figures import contact_sheet, draw_confusion_matrix
    from count_clip.evaluation.functional import NUMBERS

    figures = []
    for arm in arms:
        title = f"{arm.name}: {_spread(arm.accuracy, 100, 1, ' %')} right"
        figures.append(draw_confusion_matrix(arm.confusion, NUMBERS, title=title))
        figures[-1].save(output / f"confusion_{arm.name}.png")
    captions = [f"{arm.name}: {arm.what}" for arm in arms]
    contact_sheet(figures, captions, columns=2, cell=figures[0].width).save(output / "confusion.png")


__all__ = ["ARMS", "Arm", "arm_run", "base_run", "measure", "order_holds", "read_config", "report", "run_ablation"]
