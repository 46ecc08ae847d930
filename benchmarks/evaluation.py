"""
The speed of CountBench's protocol in one pass over images and captions, and of plain loops with the same predictions.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --presets tiny --images 54
    python benchmarks/evaluation.py --captions CountBench.json --threads 2
    python benchmarks/evaluation.py --model model_cards/count-clip-tiny

Without `--model` the models have random weights, one of CLIP ViT-B/32's sizes and a tiny one. The captions are made
up, with the lengths and positions of the number of CountBench's; with `--captions` they are CountBench's own. The
images are JPEG files of 640 x 480, decoded when their row is read. Each of these ways computes 540 x 9 scores:

- `caption by caption`: `CLIPModel`'s forward for each image with each of its captions, on `--slow_images` images.
- `image by image`: `CLIPModel`'s forward for each image with its nine captions at once.
- `one pass`: `evaluate_countbench` after `optimize_for_cpu`, as `count-clip evaluate countbench`.
- `one pass, bfloat16`: the same in half precision: scores are close, and predictions can differ.

The ways take turns, and the best time of each is reported. On a busy machine, `--threads 1 --cpu_time` measures the
CPU time of this process.
"""

import argparse
import copy
import io
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModel, AutoProcessor, CLIPModel

from count_clip.datasets_scripts.captions.numbers import NUMBER_WORDS
from count_clip.evaluation.benchmarks.countbench import evaluate_countbench, nine_captions
from count_clip.evaluation.functional import NUMBERS, predicted_numbers
from count_clip.modeling.optimization_cpu import optimize_for_cpu
from count_clip.trainers.running.models import build_counting_model


PRESETS: dict[str, dict[str, Any]] = {
    "vit-b-32": {
        "vision": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
        | {"num_attention_heads": 12, "image_size": 224, "patch_size": 32},
        "text": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8},
        "projection_dim": 512,
        "vocab_size": 4096,
    },
    "tiny": {
        "vision": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3}
        | {"num_attention_heads": 4, "image_size": 64, "patch_size": 8},
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4},
        "projection_dim": 32,
        "vocab_size": 4096,
    },
}
WAYS = ("caption by caption", "image by image", "one pass", "one pass, bfloat16")
# Quantiles of CountBench's 540 captions with CLIP's tokenizer: the tokens (with start and end, cut to 77), and those
# before the number.
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
TOKENS = (4, 7, 11, 15, 22, 48, 77)
BEFORE_NUMBER = (0, 0, 2, 3, 6, 16, 60)
IMAGE_SIZE = (640, 480)


class Rows(Sequence):
    """Rows of captions and numbers, with images that are decoded on access, as in `datasets`."""

    def __init__(self, captions: Sequence[tuple[str, int]]):
        self.captions = captions
        self.files = [image_file(seed) for seed in range(min(len(captions), 16))]

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Rows(self.captions[index])
        text, number = self.captions[index]
        image = Image.open(io.BytesIO(self.files[index % len(self.files)]))
        image.load()
        return {"image": image, "text": text, "number": number}


def image_file(seed: int) -> bytes:
    """A JPEG file of smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(IMAGE_SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def made_up_captions(number: int) -> list[tuple[str, int]]:
    """Different captions of made-up words, with lengths and positions of the number like CountBench's."""
    generator = np.random.default_rng(0)
    syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = ["".join(generator.choice(syllables, 3)) for _ in range(600)]
    captions = []
    for index in range(number):
        length = round(float(np.interp(generator.random(), QUANTILES, TOKENS))) - 2
        before = min(round(float(np.interp(generator.random(), QUANTILES, BEFORE_NUMBER))), length - 1)
        caption = generator.choice(words, length).tolist()
        stated = NUMBERS[index % len(NUMBERS)]
        caption[before] = NUMBER_WORDS[stated - NUMBERS[0]]
        captions.append((" ".join(caption), stated))
    return captions


def read_captions(path: str, number: int) -> list[tuple[str, int]]:
    """Evenly spaced captions of a file like CountBench.json."""
    rows = json.loads(Path(path).read_text(encoding="utf-8"))
    places = np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int)
    return [(rows[place]["text"], int(rows[place]["number"])) for place in places]


def build(arguments: argparse.Namespace, preset: str | None, captions: list[tuple[str, int]]) -> tuple[Any, Any]:
    """The trained model, or one with random weights; and its processor."""
    if preset is None:
        model = AutoModel.from_pretrained(arguments.model, dtype=torch.float32)
        return model.eval().to(arguments.device), AutoProcessor.from_pretrained(arguments.model)
    torch.manual_seed(0)
    counting_model, processor = build_counting_model(PRESETS[preset], [text for text, _ in captions])
    model = CLIPModel(counting_model.config)
    model.load_state_dict(counting_model.state_dict())
    return model.eval().to(arguments.device), processor


def in_a_loop(model: Any, processor: Any, rows: Rows, together: bool) -> NDArray[np.float32]:
    """Cosines `(num_images, 9)` from the model's forward: each image with nine captions at once, or one by one."""
    tokenizer, max_length = processor.tokenizer, model.config.text_config.max_position_embeddings
    scores = []
    with torch.no_grad():
        for row in rows:
            _, captions = nine_captions(row["text"], row["number"])
            pixels = processor.image_processor([row["image"]], return_tensors="pt").to(model.device)
            logits = []
            for texts in [captions] if together else [[caption] for caption in captions]:
                tokens = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
                logits.append(model(**tokens.to(model.device), **pixels).logits_per_image[0])
            scores.append(torch.cat(logits) / model.logit_scale.exp())
    return torch.stack(scores).float().cpu().numpy()


def best_runs(
    runs: dict[str, Callable[[], NDArray[np.float32]]], repeats: int, clock: Callable[[], float]
) -> dict[str, tuple[float, NDArray[np.float32]]]:
    """The best time in seconds and the scores of each, run in turns."""
    best: dict[str, tuple[float, NDArray[np.float32]]] = {}
    for _ in range(repeats):
        for way, run in runs.items():
            began = clock()
            scores = run()
            seconds = clock() - began
            best[way] = (min(seconds, best[way][0] if way in best else seconds), scores)
    return best


def measure(model: Any, processor: Any, rows: Rows, arguments: argparse.Namespace) -> None:
    """Measure all ways and print the table."""
    few: Rows = rows[: arguments.slow_images]
    optimized = optimize_for_cpu(copy.deepcopy(model))

    def one_pass(dtype: torch.dtype) -> NDArray[np.float32]:
        batch_size = arguments.batch_size
        return evaluate_countbench(optimized, processor, rows, batch_size, dtype=dtype, progress=False).scores

    def in_bfloat16() -> NDArray[np.float32]:
        before = {name: value.clone() for name, value in optimized.state_dict().items()}
        scores = one_pass(torch.bfloat16)
        optimized.float().load_state_dict(before)
        return scores

    runs: dict[str, Callable[[], NDArray[np.float32]]] = {
        "caption by caption": lambda: in_a_loop(model, processor, few, together=False),
        "image by image": lambda: in_a_loop(model, processor, rows, together=True),
        "one pass": lambda: one_pass(torch.float32),
        "one pass, bfloat16": in_bfloat16,
    }
    runs = {way: runs[way] for way in arguments.ways}
    in_a_loop(model, processor, rows[:2], together=True)
    evaluate_countbench(optimized, processor, rows[:2], progress=False)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    best = best_runs(runs, arguments.repeats, clock)
    per_image = {way: seconds / len(scores) for way, (seconds, scores) in best.items()}
    reference = best.get("image by image", next(iter(best.values())))[1]
    print("| way | images | ms/image | s for 540 | times as fast as the first | same predictions | scores differ |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for way, (_, scores) in best.items():
        shared = min(len(scores), len(reference))
        same = float(np.mean(predicted_numbers(scores[:shared]) == predicted_numbers(reference[:shared])))
        apart = float(np.abs(scores[:shared] - reference[:shared]).max())
        seconds = per_image[way]
        faster = next(iter(per_image.values())) / seconds
        cells = [way, len(scores), f"{seconds * 1e3:.1f}", f"{seconds * 540:.1f}", f"{faster:.2f}", f"{same:.2%}"]
        print("|", " | ".join(str(cell) for cell in [*cells, f"{apart:.1e}"]), "|", flush=True)
    for loop in WAYS[:2]:
        if loop in per_image and "one pass" in per_image:
            ratio = per_image[loop] / per_image["one pass"]
            print(f"\none pass is {ratio:.2f} times as fast as {loop}", end="")
    print("\n")


def main(argv: list[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a trained checkpoint (default: random weights)")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS), help="sizes of random models")
    parser.add_argument("--captions", metavar="FILE", help="CountBench.json (default: made-up captions)")
    parser.add_argument("--images", type=int, default=540, help="how many (default: 540)")
    parser.add_argument("--slow_images", type=int, default=27, help="of these caption by caption (default: 27)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="the ways to measure")
    parser.add_argument("--batch_size", type=int, default=32, help="images, or captions, at once (default: 32)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each (default: 1)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--cpu_time", action="store_true", help="measure CPU time; for one thread")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to run")
    arguments = parser.parse_args(argv)
    if min(arguments.images, arguments.slow_images, arguments.repeats) < 1:
        parser.error("--images, --slow_images and --repeats have to be at least 1")
    torch.set_num_threads(arguments.threads)
    place = platform.processor() or platform.machine()
    if arguments.device.startswith("cuda"):
        place = torch.cuda.get_device_name(arguments.device)
    print(f"{place}, {arguments.threads} threads, Python {platform.python_version()}, PyTorch {torch.__version__}")
    number = arguments.images
    captions = read_captions(arguments.captions, number) if arguments.captions else made_up_captions(number)
    rows = Rows(captions)
    for preset in [None] if arguments.model else arguments.presets:
        model, processor = build(arguments, preset, captions)
        lengths = [len(ids) for ids in processor.tokenizer([text for text, _ in captions])["input_ids"]]
        about = f"{len(rows)} images, {np.mean(lengths):.1f} tokens a caption on average"
        print(f"\n{arguments.model or f'random weights, {preset}'}: {about}\n")
        measure(model, processor, rows, arguments)


if __name__ == "__main__":
    main()
