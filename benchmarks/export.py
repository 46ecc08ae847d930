"""
How fast onnxruntime computes what `count-clip export onnx` writes, beside PyTorch on the same CPU.

    python benchmarks/export.py --threads 2
    python benchmarks/export.py --counting FOLDER --density FOLDER --parts vision_model density_model

By default the models have random weights and the sizes of the papers: CLIP ViT-B/32 for the counting CLIP, CLIP
ViT-B/16 with windows of 384 pixels for the density model. Weights do not change the time. Both libraries get the same
inputs and the same number of threads; a time is the shortest of `--repeats`, after one run that does not count.
"difference" is the largest one between the two, as a part of an output's largest value.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from transformers import AutoModel

from count_clip.export.onnx import OPSET, PARTS, OnnxFile, export_parts, part_inputs, part_module
from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig
from count_clip.modeling.configuration_count_clip import CountCLIPConfig
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.modeling_count_clip import CLIPForCounting


# Tokens of a prompt and of a caption of usual length.
LENGTH = 12


def build(name: str, checkpoint: str | None) -> Any:
    """A model to time, from a checkpoint or with random weights."""
    if checkpoint is not None:
        return AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    torch.manual_seed(0)
    if name == "counting":
        return CLIPForCounting(CountCLIPConfig()).eval()
    towers = {"vision_config": {"patch_size": 16}, "text_config": {}}
    return CLIPCountDensityModel(CLIPCountDensityConfig(**towers)).eval()


def best_seconds(run: Callable[[], Any], repeats: int) -> float:
    """The shortest of several runs, after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def time_part(
    model: Any, file: OnnxFile, folder: Path, sizes: Sequence[tuple[int, int]], repeats: int, threads: int
) -> list[list[str]]:
    """A row for each number of images and texts: seconds of both libraries."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / file.name, options, providers=["CPUExecutionProvider"])
    part = Path(file.name).stem
    module = part_module(model, part)
    length = min(LENGTH, model.config.text_config.max_position_embeddings - 2)
    rows = []
    for num_images, num_texts in sizes:
        inputs = part_inputs(model, part, num_images, num_texts, length)
        given = {name: tensor.numpy() for name, tensor in inputs.items()}
        with torch.no_grad():
            ours = best_seconds(lambda module=module, inputs=inputs: module(*inputs.values()), repeats)
        theirs = best_seconds(lambda session=session, given=given: session.run(None, given), repeats)
        shown = {name: tuple(tensor.shape) for name, tensor in inputs.items() if name != "attention_mask"}
        shape = ", ".join(f"{name} {size}" for name, size in shown.items())
        rows.append([file.name, shape, f"{ours * 1e3:.1f}", f"{theirs * 1e3:.1f}", f"{ours / theirs:.2f}"])
    return rows


def main(argv: list[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counting", help="a count-aware CLIP to time (default: random weights)")
    parser.add_argument("--density", help="a density model to time (default: random weights)")
    parser.add_argument("--models", nargs="+", choices=("counting", "density"), default=["counting", "density"])
    parser.add_argument("--parts", nargs="+", help="files to time (default: all)")
    parser.add_argument(
        "--sizes", nargs="+", default=["1x1", "4x9"], help="images x texts of a pass (default: 1x1 4x9)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="how often each is timed (default: 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of both")
    parser.add_argument("--opset", type=int, default=OPSET, help=f"version of the operators (default: {OPSET})")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    sizes = [(int(images), int(texts)) for images, texts in (size.split("x") for size in arguments.sizes)]
    print(
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {arguments.threads} threads, "
        f"{platform.processor() or platform.machine()}"
    )
    print("| file | inputs | torch, ms | onnxruntime, ms | times as fast | difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.models:
        model = build(name, getattr(arguments, name))
        known = list(PARTS[model.config.model_type])
        parts = [part for part in arguments.parts or known if part in known]
        for part in parts:
            with tempfile.TemporaryDirectory() as folder:
                (file,) = export_parts(model, Path(folder), [part], arguments.opset)
                for row in time_part(model, file, Path(folder), sizes, arguments.repeats, arguments.threads):
                    print(f"| {name}: {' | '.join(row)} | {file.difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
