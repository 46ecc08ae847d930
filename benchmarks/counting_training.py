"""
How fast a training step with both losses is beside the plain way, and what gradient caching saves in memory.

    python benchmarks/counting_training.py
    python benchmarks/counting_training.py --model openai/clip-vit-base-patch32 --batch_size 32 --steps 3

The plain way is how the two losses are mostly written down: the images are encoded for the contrastive loss, those
of the counting rows again for the counting loss, and of the captions with wrong numbers one is encoded at a time. Here
each image is encoded once, and all captions of a step in one pass. Both ways get the same batches and do the same
arithmetic; before anything is timed, their losses and gradients are compared. A step is the forward pass, the backward
pass and the optimizer.

The second table gives the memory that a step takes beyond the model: the whole batch at once, or in chunks whose
embeddings alone are kept (`gradient_cache_chunk_size`), with the same gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers.utils import logging

from count_clip.datasets_scripts.countscenes.builder import CountScenes
from count_clip.modeling.modeling_count_clip import CLIPForCounting, counting_loss, image_text_contrastive_loss
from count_clip.modeling.processing_count_clip import CountCLIPProcessor
from count_clip.trainers.counting.collator import CountingDataCollator
from count_clip.trainers.running.models import build_counting_model


# As in trainers/configs/countscenes_density.yaml, whose towers countscenes_base takes.
SMALL = {
    "vocab_size": 1024,
    "projection_dim": 64,
    "vision": {
        "image_size": 64,
        "patch_size": 8,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 256,
    },
    "text": {
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "max_position_embeddings": 32,
    },
}
# Share of counting rows and wrong captions for each: those of countscenes_counting.yaml, a half, the paper's share.
SETTINGS = ((0.8, 4), (0.5, 1), (1 / 32, 1))
# What float32 leaves of a gradient that is summed in another order, relative to its largest entry.
TOLERANCE = 1e-3

Batch = dict[str, Any]


@dataclass
class Speed:
    """Steps in a second, the plain way and in one pass, and by how much the losses differ."""

    counting_share: float
    num_counterfactuals: int
    plain: float
    one_pass: float
    loss_difference: float
    gradient_difference: float


@dataclass
class Memory:
    """Mebibytes that a step takes beyond the model, and its time, at once (`None`) or in chunks."""

    chunk_size: int | None
    mebibytes: float
    seconds: float


def load(arguments: argparse.Namespace) -> tuple[CLIPForCounting, CountCLIPProcessor]:
    """The model to train: a checkpoint, or a small new one."""
    torch.manual_seed(0)
    if arguments.model is None:
        model, processor = build_counting_model(SMALL, ["two red stars on a table"])
    else:
        model = CLIPForCounting.from_pretrained(arguments.model, dtype=torch.float32)
        processor = CountCLIPProcessor.from_pretrained(arguments.model)
    return model.to(arguments.device).train(), processor


def make_batches(
    processor: CountCLIPProcessor, arguments: argparse.Namespace, share: float, num_counterfactuals: int, number: int
) -> list[Batch]:
    """Batches with the same share of counting rows each; at least one row counts."""
    size = arguments.batch_size
    num_counting = max(1, round(size * share))
    scenes = CountScenes(
        "train", config="captions", objects="shapes", num_scenes=size * number, image_size=64, number_rate=1.0
    )
    collator = CountingDataCollator(processor, num_counterfactuals)
    batches = []
    for start in range(0, len(scenes), size):
        rows = [{**scenes[start + place], "is_counting": place < num_counting} for place in range(size)]
        batch = collator(rows)
        batches.append({k: v.to(arguments.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()})
    return batches


def one_pass_loss(model: CLIPForCounting, batch: Batch) -> torch.Tensor:
    """Both losses from one pass of the images and one of the captions."""
    return model(**batch).loss


def plain_loss(model: CLIPForCounting, batch: Batch) -> torch.Tensor:
    """Both losses as in the paper: each encodes its own inputs, and each wrong caption alone."""
    pixels, ids, mask = (batch[name] for name in ("pixel_values", "input_ids", "attention_mask"))
    scale = model.logit_scale.exp()
    contrastive = image_text_contrastive_loss(model.encode_image(pixels), model.encode_text(ids, mask), scale)
    counts = batch["counting_mask"]
    images, texts = model.encode_image(pixels[counts]), model.encode_text(ids[counts], mask[counts])
    wrong_ids, wrong_mask = batch["counterfactual_input_ids"], batch["counterfactual_attention_mask"]
    wrong = []
    for row_ids, row_mask in zip(wrong_ids, wrong_mask, strict=True):
        for one_ids, one_mask in zip(row_ids, row_mask, strict=True):
            length = int(one_mask.sum())  # alone, a caption needs no padding
            wrong.append(model.encode_text(one_ids[None, :length], one_mask[None, :length]))
    wrong_embeds = torch.cat(wrong).unflatten(0, wrong_ids.shape[:2])
    counting = counting_loss(images, texts, wrong_embeds, scale.float())
    return contrastive + model.config.counting_loss_weight * counting


def step(model: CLIPForCounting, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Backward and optimizer."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def compare(model: CLIPForCounting, batch: Batch) -> tuple[float, float]:
    """By how much the two ways differ: in the loss, and in the gradients relative to the largest of each tensor."""
    losses, gradients = [], []
    for way in (plain_loss, one_pass_loss):
        model.zero_grad()
        loss = way(model, batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    # The gradient of a bias of the keys is rounding only; tensors far below the others are not compared alone.
    largest = max(float(gradient.abs().max()) for gradient in gradients[0])
    differences = [
        float((a - b).abs().max() / max(float(a.abs().max()), 1e-4 * largest)) for a, b in zip(*gradients, strict=True)
    ]
    return abs(losses[0] - losses[1]), max(differences)


def measure_speed(arguments: argparse.Namespace, share: float, num_counterfactuals: int) -> Speed:
    """Time both ways in turn, so that whatever else the machine does meets both."""
    model, processor = load(arguments)
    batches = make_batches(processor, arguments, share, num_counterfactuals, 2)
    loss_difference, gradient_difference = compare(model, batches[0])
    if loss_difference > TOLERANCE or gradient_difference > TOLERANCE:
        raise RuntimeError(
            f"The two ways differ by {loss_difference:.1e} in the loss and by {gradient_difference:.1e} in the "
            "gradients: they do not do the same, and their times cannot be compared."
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ways: dict[str, Callable[..., torch.Tensor]] = {"plain": plain_loss, "one_pass": one_pass_loss}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.steps + 1):
        for name, way in ways.items():
            if arguments.device.startswith("cuda"):
                torch.cuda.synchronize()
            began = time.perf_counter()
            step(model, way(model, batches[number % len(batches)]), optimizer)
            if arguments.device.startswith("cuda"):
                torch.cuda.synchronize()
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - began)
    plain, one_pass = (1 / statistics.median(seconds[name]) for name in ways)
    return Speed(share, num_counterfactuals, plain, one_pass, loss_difference, gradient_difference)


def step_memory(arguments: argparse.Namespace) -> Memory:
    """The memory of one step, in another process, which returns freed memory at once."""
    model, processor = load(arguments)
    [batch] = make_batches(processor, arguments, *SETTINGS[0], 1)
    small = argparse.Namespace(**{**vars(arguments), "batch_size": 2})
    [warm] = make_batches(processor, small, *SETTINGS[0], 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    step(model, one_pass_loss(model, warm), optimizer)
    on_gpu = arguments.device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    with _ResidentMemory() as resident:
        began = time.perf_counter()
        step(model, model(**batch, gradient_cache_chunk_size=arguments.chunk_size).loss, optimizer)
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    if on_gpu:
        return Memory(arguments.chunk_size, torch.cuda.max_memory_allocated() / 2**20 - before, seconds)
    return Memory(arguments.chunk_size, (resident.peak - resident.before) / 2**20, seconds)


class _ResidentMemory:
    """The memory of this process, sampled every two milliseconds."""

    def __enter__(self) -> _ResidentMemory:
        self._process, self._done = psutil.Process(), threading.Event()
        self.before = self.peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def measure_memory(arguments: argparse.Namespace, chunk_size: int | None) -> Memory:
    """[`step_memory`] in a process of its own."""
    command = [sys.executable, __file__, "--one_step", "--device", arguments.device]
    command += ["--batch_size", str(arguments.memory_batch_size)]
    command += ["--chunk_size", str(chunk_size)] if chunk_size else []
    command += ["--model", arguments.model] if arguments.model else []
    # glibc gives blocks of this size back when they are freed; otherwise they would look used.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"The process that measures memory failed:\n{done.stderr[-2000:]}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a CLIP: a folder or a name on the Hub (default: a small one, new)")
    parser.add_argument("--batch_size", type=int, default=64, help="rows of a step that is timed (default: 64)")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed, each way (default: 20)")
    parser.add_argument("--memory_batch_size", type=int, default=512, help="rows of the step whose memory is measured")
    parser.add_argument("--chunk_sizes", type=int, nargs="+", default=[256, 64, 16], help="of gradient caching")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    parser.add_argument("--one_step", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--chunk_size", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """
    Measure, and print the tables.

    Args:
        argv (`Sequence[str]`, *optional*): The command line; by default the program's own.

    Returns:
        `dict`: `speed`, a list of [`Speed`], and `memory`, a list of [`Memory`].
    """
    arguments = parse(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if arguments.one_step:
        print(json.dumps(asdict(step_memory(arguments))))
        return {}
    where = platform.processor() or platform.machine()
    print(f"{where}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.device}\n")
    print(f"Steps in a second, {arguments.batch_size} rows (medians of {arguments.steps})\n")
    print("| counting rows | wrong captions each | plain | one pass | times as fast | losses, gradients differ by |")
    print("| --- " * 6 + "|", flush=True)
    speeds = []
    for share, num_counterfactuals in SETTINGS:
        speed = measure_speed(arguments, share, num_counterfactuals)
        speeds.append(speed)
        print(
            f"| {100 * share:.0f} % | {num_counterfactuals} | {speed.plain:.2f} | {speed.one_pass:.2f} | "
            f"{speed.one_pass / speed.plain:.2f} | {speed.loss_difference:.0e}, {speed.gradient_difference:.0e} |",
            flush=True,
        )
    print(f"\nMemory of a step beyond the model, {arguments.memory_batch_size} rows, ", end="")
    print(f"{100 * SETTINGS[0][0]:.0f} % counting with {SETTINGS[0][1]} wrong captions\n")
    print("| encoded | MiB | seconds |\n| --- | --- | --- |", flush=True)
    memories = []
    for chunk_size in (None, *arguments.chunk_sizes):
        memory = measure_memory(arguments, chunk_size)
        memories.append(memory)
        how = f"{chunk_size} at a time" if chunk_size else "at once"
        print(f"| {how} | {memory.mebibytes:.0f} | {memory.seconds:.2f} |", flush=True)
    if arguments.output:
        figures = {"speed": [asdict(x) for x in speeds], "memory": [asdict(x) for x in memories]}
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
    return {"speed": speeds, "memory": memories}


if __name__ == "__main__":
    main()
