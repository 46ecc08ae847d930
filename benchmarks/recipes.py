"""
What the recipes for CLIPs of the web need: time of a training step, memory, floating-point operations, disk.

    python benchmarks/recipes.py                                   # every recipe in trainers/configs, each variant
    python benchmarks/recipes.py --runs count_aware_clip fsc147_density:l14 --steps 5 --output recipes.json

The models have the sizes of OpenAI's and weights drawn at random, which changes neither: no checkpoint is needed. On a
GPU a step is the recipe's own, with its batch, chunks and precision, and its time is that of the forward pass, the
backward pass and the optimizer. On a CPU a few rows of it are done in float32 (`--rows`), and what they take is
multiplied; with one thread it is the processor's time, so that other work on the machine does not enter. Hours are
steps times step: loading the images and evaluating come on top where they do not keep up. Every run is measured in a
process of its own, whose largest memory is reported: of the GPU, or of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils import logging

from count_clip.datasets_scripts.builders.fsc147 import FSC147Builder
from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig
from count_clip.modeling.configuration_count_clip import CountCLIPConfig
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting
from count_clip.trainers.density.trainer import freeze
from count_clip.trainers.running.arguments import RunArguments, find_config, load_config, parse_run


RECIPES = ("count_aware_clip", "fsc147_density")
_BASE = {
    "vision": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "text": {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "intermediate_size": 2048},
    "projection_dim": 512,
}
_LARGE = {
    "vision": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "text": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "projection_dim": 768,
}
# Of the checkpoints that the recipes name: towers, side of an image, side of a patch.
SIZES: dict[str, tuple[dict[str, Any], int, int]] = {
    "openai/clip-vit-base-patch32": (_BASE, 224, 32),
    "openai/clip-vit-base-patch16": (_BASE, 224, 16),
    "openai/clip-vit-large-patch14": (_LARGE, 224, 14),
    "openai/clip-vit-large-patch14-336": (_LARGE, 336, 14),
}
VOCABULARY = 49408
# A batch is padded to its longest caption, and among thousands one is as long as CLIP reads. What to count is short.
CAPTION_LENGTH, PROMPT_LENGTH = 77, 8
BYTES = 4  # of a weight, as it trains


@dataclass
class Needs:
    """
    What a run needs.

    `step_seconds` and `hours` are for the whole batch of one process; `memory_gib` is what was used for the `rows`
    rows that were done at a time, `state_gib` the part of it that weights, gradients and Adam's moments take, and
    `disk_gib` what the checkpoints and the result of the run take. `teraflops_per_row` is of forward and backward.
    """

    run: str
    device: str
    parameters: int
    trained: int
    batch_size: int
    rows: int
    steps: int
    step_seconds: float
    hours: float
    memory_gib: float
    state_gib: float
    disk_gib: float
    teraflops_per_row: float


def all_runs() -> list[str]:
    """Names of the recipes, and with a colon of their variants."""
    runs = []
    for name in RECIPES:
        variants = load_config(find_config(name)).get("variants") or {}
        runs += [name, *(f"{name}:{variant}" for variant in variants)]
    return runs


def build(run: RunArguments) -> Any:
    """The model of a run with random weights; what does not train in it is frozen."""
    name = run.model_name_or_path or run.clip_name_or_path
    if name not in SIZES:
        raise ValueError(f"Expected the run to start from one of {', '.join(SIZES)}, but it starts from {name!r}.")
    towers, image_size, patch_size = SIZES[name]
    fields = {
        "text_config": {**towers["text"], "vocab_size": VOCABULARY},
        "vision_config": {**towers["vision"], "image_size": image_size, "patch_size": patch_size},
        "projection_dim": towers["projection_dim"],
        **(run.model_config or {}),
    }
    torch.manual_seed(0)
    if run.task == "counting":
        return CLIPForCounting(CountCLIPConfig(**fields)).train()
    model = CLIPCountDensityModel(CLIPCountDensityConfig(**fields)).train()
    freeze(model, "prompts")
    if run.peft is not None:
        from count_clip.trainers.running.adapters import adapter_configs, add_adapters

        return add_adapters(model, adapter_configs(run.peft, None)).train()
    return model


def make_batch(run: RunArguments, args: Any, model: Any, rows: int, device: str) -> dict[str, Any]:
    """Rows of noise, as many of them counting as in the recipe; among very few that is none."""
    config, words = model.config, {"counting": CAPTION_LENGTH, "density": PROMPT_LENGTH}[run.task]
    side = config.vision_config.image_size if run.task == "counting" else config.window_size
    ids = torch.randint(1, 1000, (rows, words))
    ids[:, -1] = config.text_config.eos_token_id
    batch = {
        "pixel_values": torch.randn(rows, 3, side, side),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
    }
    if run.task == "density":
        labels = torch.zeros(rows, side, side)
        labels[:, side // 3, side // 3] = 1.0
        return {name: value.to(device) for name, value in {**batch, "labels": labels}.items()}
    num_counting = round(rows * args.counting_fraction)
    if num_counting:
        wrong = ids[:num_counting, None].repeat(1, args.num_counterfactuals, 1)
        batch["counting_mask"] = torch.arange(rows) < num_counting
        batch |= {"counterfactual_input_ids": wrong, "counterfactual_attention_mask": torch.ones_like(wrong)}
    return {**{name: value.to(device) for name, value in batch.items()}, "return_loss": True}


def steps_of(args: Any) -> int:
    """Optimizer steps of a run."""
    if args.max_steps > 0:
        return int(args.max_steps)
    images = FSC147Builder.PUBLISHED_SIZES["default"]["train"]
    return int(args.num_train_epochs * -(-images // args.per_device_train_batch_size))


def measure(name: str, steps: int, rows: int | None, device: str) -> Needs:
    """Do a few steps of a run, in this process."""
    run, args = parse_run(name.partition(":")[0], ["--config", name.partition(":")[2]] if ":" in name else [])
    on_gpu = device.startswith("cuda")
    batch_size = args.per_device_train_batch_size
    # Two chunks on a CPU: the recipe encodes chunk after chunk, each once more in the backward pass.
    rows = rows or (batch_size if on_gpu else {"counting": 4, "density": 2}[run.task])
    model = build(run).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    options = {}
    if run.task == "counting" and args.gradient_cache_chunk_size is not None:
        options["gradient_cache_chunk_size"] = args.gradient_cache_chunk_size if on_gpu else max(1, rows // 2)
    batch = make_batch(run, args, model, rows, device)
    passes, updates = [], []
    for _ in range(steps + 1):
        began = _now(on_gpu)
        _backward(model, batch, options, on_gpu)
        between = _now(on_gpu)
        optimizer.step()
        optimizer.zero_grad()
        passes.append(between - began)
        updates.append(_now(on_gpu) - between)
    # The first step warms up.
    seconds = statistics.median(passes[1:]) * batch_size / rows + statistics.median(updates[1:])
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parameters, num_trained = sum(p.numel() for p in model.parameters()), sum(p.numel() for p in trained)
    with FlopCounterMode(display=False) as counter:
        # Fused attention is counted on some devices only.
        model.set_attn_implementation("eager")
        _backward(model, batch, options, on_gpu)
    checkpoint = BYTES * (num_trained if run.peft is not None else parameters) + 2 * BYTES * num_trained
    kept = (args.save_total_limit or 1) * checkpoint + checkpoint - 2 * BYTES * num_trained
    return Needs(
        run=name,
        device=device,
        parameters=parameters,
        trained=num_trained,
        batch_size=batch_size,
        rows=rows,
        steps=steps_of(args),
        step_seconds=seconds,
        hours=seconds * steps_of(args) / 3600,
        memory_gib=peak / 2**30,
        state_gib=BYTES * (parameters + 3 * num_trained) / 2**30,
        disk_gib=kept / 2**30,
        teraflops_per_row=counter.get_total_flops() / rows / 1e12,
    )


def _backward(model: Any, batch: dict[str, Any], options: dict[str, Any], on_gpu: bool) -> None:
    precision = torch.autocast("cuda", torch.bfloat16) if on_gpu else contextlib.nullcontext()
    with precision:
        loss = model(**batch, **options).loss
    loss.backward()


def _now(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    return time.process_time() if not on_gpu and torch.get_num_threads() == 1 else time.perf_counter()


def measure_apart(name: str, arguments: argparse.Namespace) -> Needs:
    """[`measure`] in a process of its own."""
    command = [sys.executable, __file__, "--one", "--runs", name, "--device", arguments.device]
    command += ["--steps", str(arguments.steps)] + (["--rows", str(arguments.rows)] if arguments.rows else [])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The process that measures {name} failed:\n{done.stderr[-2000:]}")
    return Needs(**json.loads(done.stdout.splitlines()[-1]))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=all_runs(), metavar="RUN", help="RECIPE or RECIPE:VARIANT")
    parser.add_argument(
        "--steps", type=int, default=5, help="steps that are timed, after one that is not (default: 5)"
    )
    parser.add_argument("--rows", type=int, help="rows of a step (default: the recipe's; on a CPU 4, or 2 windows)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    if unknown := sorted(set(arguments.runs) - set(all_runs())):
        parser.error(f"unknown run {unknown[0]!r}; choose from {', '.join(all_runs())}")
    return arguments


def main(argv: Sequence[str] | None = None) -> list[Needs]:
    """
    Measure, and print the table.

    Args:
        argv (`Sequence[str]`, *optional*): The command line; by default the program's own.

    Returns:
        `list[Needs]`: What each run needs.
    """
    arguments = parse(argv)
    logging.set_verbosity_error()
    if arguments.one:
        found = measure(arguments.runs[0], arguments.steps, arguments.rows, arguments.device)
        print(json.dumps(asdict(found)))
        return [found]
    where = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else platform.machine()
    print(f"{where}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.device}\n")
    print("| run | weights, trained | batch | TFLOP a row | seconds a step | steps | hours | ", end="")
    print("weights, gradients, Adam | most memory (rows at once) | checkpoints |")
    print("| --- " * 10 + "|", flush=True)
    needs = []
    for name in arguments.runs:
        one = measure_apart(name, arguments)
        needs.append(one)
        print(
            f"| `{one.run}` | {one.parameters / 1e6:.1f} M, {one.trained / 1e6:.1f} M | {one.batch_size} | "
            f"{one.teraflops_per_row:.3f} | {one.step_seconds:.2f} | {one.steps:,} | {one.hours:.1f} | "
            f"{one.state_gib:.1f} GiB | {one.memory_gib:.1f} GiB ({one.rows}) | {one.disk_gib:.1f} GiB |",
            flush=True,
        )
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(one) for one in needs], indent=2) + "\n")
    return needs


if __name__ == "__main__":
    main()
