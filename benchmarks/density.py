"""
Speed and memory of a CLIPCountDensityModel, and what `optimize_for_cpu` gains, beside the bare vision tower.

    python benchmarks/density.py
    python benchmarks/density.py --threads 2 --dtypes float32 --num_prompts 1 --ways floor sdpa optimized
    python benchmarks/density.py --model runs/countscenes_density --num_scenes 200

Without `--model` the model has the sizes of the authors' (ViT-B/16) and random weights; nothing is downloaded. An
image of one window and one of three windows' width are counted in each of these ways:

- `floor`: the bare `CLIPVisionModel` on the same windows, without a text and without a map.
- `plain`: the text is encoded again for every window, one window at a time, with eager attention.
- `eager`, `sdpa`: every text once, several windows at a time, with that attention.
- `optimized`: as `sdpa`, after `optimize_for_cpu`; what the pipeline does on a CPU.
- `compiled`: as `sdpa`, through `torch.compile`.
- `whole`: as `optimized`, the whole image in one pass with interpolated position encodings. The map is another one.

All ways of one image and precision take turns, and the best time of each counts. On a busy machine,
`--threads 1 --cpu_time` counts the computing time of this process. Peak memory is that of a fresh process (on CUDA: of
its tensors), with the libraries and the weights.

With `--model`, a trained checkpoint is measured instead, and then the errors of its counts on rendered scenes larger
than a window: in windows, in one pass, and both in bfloat16.
"""

import argparse
import copy
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, CLIPVisionModel

from count_clip.datasets_scripts.countscenes.builder import SHAPE_CONFIGS, CountScenes
from count_clip.evaluation.benchmarks.density import evaluate_density
from count_clip.modeling.configuration_clip_count_density import CLIPCountDensityConfig
from count_clip.modeling.image_processing_clip_count_density import CLIPCountDensityImageProcessorPil
from count_clip.modeling.modeling_clip_count_density import CLIPCountDensityModel
from count_clip.modeling.optimization_cpu import optimize_for_cpu


WAYS = ("floor", "plain", "eager", "sdpa", "optimized", "compiled", "whole")
OPTIMIZED = ("optimized", "whole")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PRESETS: dict[str, dict[str, Any]] = {
    "vit-b-16": {
        "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
        | {"num_attention_heads": 12, "image_size": 224, "patch_size": 16},
        "text_config": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
        | {"num_attention_heads": 8, "vocab_size": 49408},
        "projection_dim": 512,
    },
    # To see whether the benchmark works.
    "tiny": {
        "vision_config": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
        | {"num_attention_heads": 4, "image_size": 32, "patch_size": 8},
        "text_config": {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2}
        | {"num_attention_heads": 3, "vocab_size": 64, "bos_token_id": 62, "eos_token_id": 63, "pad_token_id": 63},
        "projection_dim": 32,
        "window_size": 48,
        "num_norm_groups": 2,
        "visual_prompt_depth": 2,
    },
}
# The pipeline's own.
WINDOW_BATCH_SIZE = 8
TOKENS_OF_A_PROMPT = 5
# In fewer pixels, the smallest objects of a scene are no longer drawn. The processor resizes in any case.
SMALLEST_WINDOW = 64


@dataclass(frozen=True)
class Row:
    """What is measured: `width` windows beside one another, `num_prompts` prompts, a precision and a way."""

    width: int
    num_prompts: int
    dtype: str
    way: str

    @property
    def is_sensible(self) -> bool:
        """Whether the row adds to others: the tower reads no prompt, and the plain way is linear in their number."""
        return self.num_prompts == 1 or self.way not in ("floor", "plain")


class Bench:
    """
    A model, images and prompts.

    Args:
        model ([`CLIPCountDensityModel`]): In evaluation mode, where it is to run.
        image_processor ([`CLIPCountDensityImageProcessorPil`]): Cuts the images.
    """

    def __init__(self, model: CLIPCountDensityModel, image_processor: CLIPCountDensityImageProcessorPil):
        self.model = model.requires_grad_(False)
        self.image_processor = image_processor
        self.networks: dict[str, Any] = {}

    def network(self, way: str) -> Any:
        """The module that computes in a way."""
        name = "optimized" if way in OPTIMIZED else way if way in ("floor", "compiled") else "plain"
        if name not in self.networks or self.networks[name][0] != self.model.dtype:
            made: Any = self.model
            if name == "optimized":
                made = optimize_for_cpu(copy.deepcopy(self.model))
            elif name == "floor":
                made = CLIPVisionModel._from_config(copy.deepcopy(self.model.vision_model.config))
                made = made.eval().requires_grad_(False).to(self.model.device, self.model.dtype)
                made.set_attn_implementation("sdpa")
            elif name == "compiled":
                made = torch.compile(self.model, dynamic=False)
            self.networks[name] = (self.model.dtype, made)
        return self.networks[name][1]

    def pixels(self, width: int, window: str) -> torch.Tensor:
        """An image of noise, cut as the model takes it."""
        side = self.model.config.window_size
        noise = np.random.default_rng(0).integers(0, 256, (side, width * side, 3), dtype=np.uint8)
        pixels = self.image_processor(images=[Image.fromarray(noise)], window=window, return_tensors="pt")
        return pixels["pixel_values"].to(self.model.device, self.model.dtype)

    def prompts(self, num_prompts: int) -> torch.Tensor:
        """Tokens of different prompts of a few words."""
        config = self.model.config.text_config
        ids = torch.randint(0, config.vocab_size - 2, (num_prompts, TOKENS_OF_A_PROMPT))
        ids[:, 0], ids[:, -1] = config.bos_token_id, config.eos_token_id
        return ids.to(self.model.device)

    def prepare(self, row: Row) -> Callable[[], None]:
        """Bring the inputs of a row into place; what is returned is what is timed."""
        model, ids = self.model, self.prompts(row.num_prompts)
        windows = self.pixels(row.width, "whole" if row.way == "whole" else "sliding")
        network, attention = self.network(row.way), "eager" if row.way in ("plain", "eager") else "sdpa"
        if row.way == "floor":
            side = model.vision_model.config.image_size
            seen = torch.nn.functional.interpolate(windows.float(), size=(side, side), mode="bilinear")
            seen = seen.to(windows.dtype)
            return lambda: self._run(attention, lambda: [network(x) for x in seen.split(WINDOW_BATCH_SIZE)])
        if row.way == "plain":
            return lambda: self._run(
                attention, lambda: [network(pixel_values=window, input_ids=ids) for window in windows.split(1)]
            )
        whole = row.way == "whole"
        options = {"interpolate_pos_encoding": True} if whole else {}
        at_once = 1 if whole else max(1, WINDOW_BATCH_SIZE // row.num_prompts)

        def count() -> None:
            texts = (model if row.way == "compiled" else network).get_text_embeds(ids)
            for batch in windows.split(at_once):
                network(pixel_values=batch, text_embeds=texts.expand(len(batch), -1, -1), **options)

        return lambda: self._run(attention, count)

    def _run(self, attention: str, count: Callable[[], Any]) -> None:
        self.model.set_attn_implementation(attention)
        with torch.no_grad():
            count()
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def largest_difference(self, width: int) -> float:
        """Largest difference of scaled density maps before and after `optimize_for_cpu`."""
        windows, ids = self.pixels(width, "sliding"), self.prompts(1)
        self.model.set_attn_implementation("sdpa")
        maps = [
            network(pixel_values=windows, input_ids=ids.expand(len(windows), -1)).density_map
            for network in (self.model, self.network("optimized"))
        ]
        return float((maps[0] - maps[1]).abs().max()) * self.model.config.density_scale


def build(arguments: argparse.Namespace) -> Bench:
    """The trained model, or one with random weights."""
    if arguments.model is None:
        torch.manual_seed(0)
        config = CLIPCountDensityConfig(**PRESETS[arguments.preset])
        model = CLIPCountDensityModel._from_config(config, attn_implementation="sdpa")
        image_processor = CLIPCountDensityImageProcessorPil(window_size=config.window_size)
    else:
        model = AutoModel.from_pretrained(arguments.model, dtype=torch.float32)
        image_processor = AutoProcessor.from_pretrained(arguments.model).image_processor
    return Bench(model.eval().to(arguments.device), image_processor)


def best_seconds(
    runs: dict[Row, Callable[[], None]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[Row, float]:
    """
    Time all runs in turns, so that whatever else the machine does meets all of them.

    Args:
        runs (`dict[Row, Callable]`): What to time.
        repeats (`int`): How often each is timed, after a round that fills the caches.
        clock (`Callable`, *optional*, defaults to `time.perf_counter`): Tells the time, in seconds.

    Returns:
        `dict[Row, float]`: The best time of each, in seconds.
    """
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for row, run in runs.items():
            began = clock()
            run()
            if turn > 0:
                best[row] = min(best[row], clock() - began)
    return best


def why_not_compiled(device: str) -> str | None:
    """Why `torch.compile` does not work here; `None` if it does."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(3, device=device))
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return None


def peak_memory(row: Row, arguments: argparse.Namespace) -> float | None:
    """Peak memory of a row in MiB; `None` where it would be that of the compiler."""
    if arguments.device.startswith("cuda"):
        bench = build(arguments)
        bench.model.to(DTYPES[row.dtype])
        run = bench.prepare(row)
        run()
        torch.cuda.reset_peak_memory_stats()
        run()
        return float(torch.cuda.max_memory_allocated()) / 2**20
    if row.way == "compiled":
        return None
    command = [sys.executable, __file__, "--memory_of", str(row.width), str(row.num_prompts), row.dtype, row.way]
    command += ["--preset", arguments.preset, "--device", arguments.device, "--threads", str(arguments.threads)]
    command += ["--model", arguments.model] if arguments.model else []
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(finished.stdout.split()[-1])


def own_peak_memory() -> float:
    """The most memory that this process has had, in MiB."""
    if os.path.exists("/proc/self/status"):
        # Of this program alone: `ru_maxrss` begins with what the parent had.
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def targets(seconds: dict[Row, float]) -> Iterator[tuple[str, str, float]]:
    """Ratios of times in float32, with the limits that hold for ViT-B/16 on two CPU cores: name, limit, ratio."""
    for width in (1, 3):
        where = f"image of {width} x 1 windows' size"
        for name, limit, above, below in (
            ("optimized / floor", "<= 0.80", (1, "optimized"), (1, "floor")),
            ("plain / optimized", ">= 1.6", (1, "plain"), (1, "optimized")),
            ("ten prompts / one", "<= 3.2", (10, "optimized"), (1, "optimized")),
        ):
            rows = [Row(width, number, "float32", way) for number, way in (above, below)]
            if all(row in seconds for row in rows) and not (width == 1 and name.startswith("plain")):
                yield f"{name}, {where}", limit, seconds[rows[0]] / seconds[rows[1]]


def large_scenes(num_scenes: int, side: int, scale: int, max_objects: int) -> CountScenes:
    """Test scenes of `scale` x `scale` windows with objects of the usual size, and as many as that makes room for."""
    usual = SHAPE_CONFIGS["density"]
    return CountScenes(
        "test",
        config=usual,
        num_scenes=num_scenes,
        image_size=scale * side,
        min_object_size=usual.min_object_size / scale,
        max_object_size=usual.max_object_size / scale,
        max_objects=scale**2 * max_objects,
        count_distribution="uniform",
    )


def print_errors(arguments: argparse.Namespace) -> None:
    """How far the counts of a trained model are off, each way."""
    model = AutoModel.from_pretrained(arguments.model, dtype=torch.float32).eval().to(arguments.device)
    side, scale = model.config.window_size, arguments.scene_windows
    processor = AutoProcessor.from_pretrained(arguments.model)
    processor.image_processor.size = {"shortest_edge": scale * side}
    rows = large_scenes(arguments.num_scenes, max(side, SMALLEST_WINDOW), scale, arguments.max_objects)
    print(f"\n{len(rows)} scenes of {scale} x {scale} windows with 1 to {rows.config.max_objects} objects\n")
    print("| way | precision | MAE | RMSE | mean count | true mean |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, dtype in DTYPES.items():
        for way, window in (("windows", "sliding"), ("whole", "whole")):
            result = evaluate_density(model, processor, rows, dtype=dtype, progress=False, window=window)
            mean, true = (
                float(np.mean([getattr(x, field) for x in result.predictions])) for field in ("predicted", "count")
            )
            print(f"| {way} | {name} | {result.mae:.3f} | {result.rmse:.3f} | {mean:.2f} | {true:.2f} |", flush=True)


def print_speed(arguments: argparse.Namespace) -> None:
    """Measure every row and print the tables."""
    bench = build(arguments)
    ways, side = list(arguments.ways), bench.model.config.window_size
    if "compiled" in ways and (reason := why_not_compiled(arguments.device)) is not None:
        print(f"Without compiled, because: {reason}\n")
        ways.remove("compiled")
    print("| image | prompts | precision | way | images/s | time / floor | peak memory, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    seconds: dict[Row, float] = {}
    for dtype in arguments.dtypes:
        bench.model.to(DTYPES[dtype])
        for width in arguments.widths:
            # What was compiled for another image or precision would only be in the way.
            torch.compiler.reset()
            rows = [Row(width, number, dtype, way) for number in arguments.num_prompts for way in ways]
            runs = {row: bench.prepare(row) for row in rows if row.is_sensible}
            clock = time.process_time if arguments.cpu_time else time.perf_counter
            measured = best_seconds(runs, arguments.repeats, clock)
            seconds.update(measured)
            floor = measured.get(Row(width, 1, dtype, "floor"))
            for row, best in measured.items():
                memory = None if arguments.no_memory else peak_memory(row, arguments)
                cells = [f"{side} x {width * side}", "-" if row.way == "floor" else row.num_prompts, dtype, row.way]
                cells += [f"{1 / best:.2f}", "" if floor is None else f"{best / floor:.2f}"]
                print("|", *[f"{cell} |" for cell in [*cells, "" if memory is None else f"{memory:.0f}"]], flush=True)
    asked = list(targets(seconds))
    if asked:
        print("\n| ratio of times, float32 | here | on two CPU cores with ViT-B/16 |")
        print("| --- | --- | --- |")
    for what, target, here in asked:
        print(f"| {what} | {here:.2f} | {target} |")
    if "optimized" in ways and "float32" in arguments.dtypes:
        bench.model.to(torch.float32)
        differences = [bench.largest_difference(width) for width in arguments.widths]
        print(f"\nLargest difference of scaled density maps by `optimize_for_cpu`: {max(differences):.1e}")


def main(argv: list[str] | None = None) -> None:
    """Measure what was asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a trained checkpoint (default: random weights)")
    parser.add_argument("--preset", choices=PRESETS, default="vit-b-16", help="sizes of the random model")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 3], help="widths of the images, in windows")
    parser.add_argument("--num_prompts", type=int, nargs="+", default=[1, 10], help="prompts of an image")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="precisions")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="ways, as explained above")
    parser.add_argument("--repeats", type=int, default=5, help="how often each is timed (default: 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--cpu_time", action="store_true", help="count computing time only; for one thread")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to run")
    parser.add_argument("--no_memory", action="store_true", help="leave out the memory, which takes a process a row")
    parser.add_argument("--num_scenes", type=int, default=200, help="scenes for the errors of --model (default: 200)")
    parser.add_argument("--max_objects", type=int, default=10, help="most objects for a window (default: 10)")
    parser.add_argument("--scene_windows", type=int, default=2, help="sides of the scenes, in windows (default: 2)")
    parser.add_argument("--memory_of", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of is not None:
        width, num_prompts, dtype, way = arguments.memory_of
        bench = build(arguments)
        bench.model.to(DTYPES[dtype])
        bench.prepare(Row(int(width), int(num_prompts), dtype, way))()
        print(own_peak_memory())
        return
    place = platform.processor() or platform.machine()
    if arguments.device.startswith("cuda"):
        place = torch.cuda.get_device_name(arguments.device)
    print(f"{place}, {arguments.threads} threads, Python {platform.python_version()}, PyTorch {torch.__version__}")
    print(f"{arguments.model or f'random weights, {arguments.preset}'}\n")
    print_speed(arguments)
    if arguments.model is not None:
        print_errors(arguments)


if __name__ == "__main__":
    main()
