"""
`count-clip demo`: measure the released checkpoints, train them further, and count with them.

It runs the configurations `demo_counting` and `demo_density` of `trainers/configs`, each from a released checkpoint:
the counting loss on a CLIP near chance, and the density model on classes that are unseen in its training. Then it
counts and writes a table, images, checkpoints and cards.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .stages import run_stage, stage_folder
from .text_tables import markdown_table


STAGES = {
    "counting": "the counting loss on a small CLIP, trained on captions of which one in ten states a number",
    "density": "the density model on classes that are unseen in its training",
}
TITLES = {"counting": "count-clip", "density": "clip-count"}
SOURCES = {"counting": "count-clip-tiny-base", "density": "clip-count-tiny"}
RELEASED_CLIP = "count-clip-tiny"
RELEASED = Path(__file__).resolve().parent.parent / "model_cards"
"""The released checkpoints of a checkout."""


@dataclass
class CountedImage:
    """An image and the predictions of two models."""

    name: str
    """Name of the written file, without suffix."""
    image: Image.Image
    text: str
    """The prompt."""
    true_count: int
    count: float = 0.0
    """The prediction of the density model."""
    number: int | None = None
    """The prediction of the counting CLIP, two to ten."""


def run_demo(
    output: Path, changes: Mapping[str, Sequence[str]], fresh: bool = False, released: Path = RELEASED
) -> None:
    """
    Train, count, write images, checkpoints and cards, and print the results.

    Finished trainings in the folder are reused unless `fresh`; `changes` are the `--key value` pairs of each stage.
    Raises a `FileExistsError` if a folder holds files that no demonstration wrote.
    """
    started = time.time()
    runs = {stage: output / "runs" / title for stage, title in TITLES.items()}
    if fresh:
        for folder in runs.values():
            stage_folder(folder).remove()
    output.mkdir(parents=True, exist_ok=True)

    steps, results = len(STAGES) + 1, {}
    for index, (stage, what) in enumerate(STAGES.items(), start=1):
        print(f"\n[{index}/{steps}] {stage}: {what}", flush=True)
        results[stage] = run_stage(runs[stage], f"demo_{stage}", _overrides(stage, released, changes[stage]))
    print(f"\n[{steps}/{steps}] counting in new images", flush=True)
    images = _count_images(runs["density"], released, output / "images")
    report = f"{_results_table(results, released)}\n\n{_images_table(images)}"
    for stage, title in TITLES.items():
        _save_checkpoint(runs[stage], output / title, stage, report)
    print(f"\n{report}\n\nWritten to {output}: images/, {', '.join(f'{title}/' for title in TITLES.values())}")
    print(f"Total: {time.time() - started:.0f} seconds, without trainings of earlier runs.")


def check_released(released: Path) -> None:
    """Raise a `FileNotFoundError` if one of the released checkpoints is missing in the folder."""
    for name in (*SOURCES.values(), RELEASED_CLIP):
        if not (released / name / "config.json").is_file():
            raise FileNotFoundError(
                f"There is no released checkpoint in {released / name}. They are in model_cards/ of a checkout: run "
                "the demonstration there, or name the folder with --checkpoints DIR."
            )


def parse_settings(settings: Sequence[str], released: Path = RELEASED) -> dict[str, list[str]]:
    """
    The `--key value` pairs of each stage from `STAGE.KEY=VALUE`; `ValueError` if a stage or key is unknown, or a value
    is invalid.
    """
    from count_clip.trainers.running.arguments import parse_run

    changes: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for setting in settings:
        key, separator, value = setting.partition("=")
        stage, _, inner = key.partition(".")
        if not separator or stage not in STAGES or not inner:
            stages = ", ".join(STAGES)
            raise ValueError(f"expected --set STAGE.KEY=VALUE with one of the stages {stages}, but got {setting!r}")
        changes[stage] += [f"--{inner}", value]
    for stage in STAGES:
        parse_run(f"demo_{stage}", _overrides(stage, released, changes[stage]))
    return changes


def _overrides(stage: str, released: Path, changes: Sequence[str]) -> list[str]:
    return ["--model_name_or_path", str(released / SOURCES[stage]), "--report_to", "none", *changes]


def _save_checkpoint(run: Path, folder: Path, stage: str, report: str) -> None:
    """Save a trained model with its processor, its code, and the card of its training with the tables added."""
    from huggingface_hub import ModelCard
    from transformers import AutoModel, AutoProcessor

    AutoModel.from_pretrained(run).save_pretrained(folder)
    AutoProcessor.from_pretrained(run).save_pretrained(folder)
    for name in ("README.md", "training_loss.png"):
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    card = ModelCard.load(folder / "README.md")
    card.text += f"""
## Demonstration

`count-clip demo` trained this model for minutes from {SOURCES[stage]}: {STAGES[stage]}.

{report}

It was trained on drawn scenes and few words. For photographs, train from a web-scale CLIP.
"""
    card.save(folder / "README.md")


def _count_images(density: Path, released: Path, folder: Path) -> list[CountedImage]:
    """Count in new images with the trained and the released models, and draw the density maps."""
    from transformers import pipeline

    from count_clip.evaluation.figures.figures import contact_sheet, draw_density

    folder.mkdir(parents=True, exist_ok=True)
    released_counter = pipeline("object-counting", model=str(released / SOURCES["density"]))
    trained_counter = pipeline("object-counting", model=str(density))
    ranker = pipeline("caption-counting", model=str(released / RELEASED_CLIP))
    counted, figures, captions = [], [], []
    # Of classes that the released density model was trained on; of unseen ones, whose prompts state their colours; and
    # shapes of seen words.
    scenes = [
        *_scenes("mixed", "train", "mixed", min_classes=2, max_classes=2, seed=1),
        *_scenes("described", "test", "described", max_objects=10, seed=3),
        *_scenes("shapes", "test", "mixed", objects="shapes", max_objects=10, seed=3),
    ]
    # Of the classes that the demonstration trains on.
    new = _scenes("new", "validation", "mixed", max_objects=10, seed=1)
    for counter, images in (
        (released_counter, [*_plain(), *scenes]),
        (trained_counter, new),
        (released_counter, coins()),
    ):
        for image in images:
            result = counter(image.image, text=image.text)
            image.count = result["count"]
            if image.name.startswith("plain"):
                image.number = ranker(image.image, text="{} " + image.text)[0]["number"]
            figure = draw_density(image.image, result["density_map"], result["points"], image.text, image.count)
            figure.save(folder / f"{image.name}.png")
            counted.append(image)
            figures.append(figure)
            captions.append(f"{image.text}: {image.count:.1f}, true {image.true_count}")
    contact_sheet(figures, captions, columns=3).save(folder / "all.png")
    return counted


def _plain() -> list[CountedImage]:
    """Three scenes of one unseen class each."""
    from count_clip.datasets_scripts.countscenes.builder import CountScenes

    scenes = CountScenes("test", config="plain", num_scenes=9, image_size=288, seed=1)
    rows = (scenes[index] for index in (2, 5, 8))
    return [CountedImage(f"plain-{row['number']}", row["image"], row["name"], row["number"]) for row in rows]


def _scenes(name: str, split: str, config: str, **options: Any) -> list[CountedImage]:
    """Three scenes of several classes, each with three prompts, the last of which names an absent class."""
    from count_clip.datasets_scripts.countscenes.builder import CountScenes

    scenes = CountScenes(split, config=config, num_scenes=3, image_size=288, texts_per_scene=3, **options)
    return [
        CountedImage(f"{name}-{index // 3 + 1}{'abc'[index % 3]}", row["image"], row["text"], row["count"])
        for index, row in enumerate(scenes)
    ]


def coins() -> list[CountedImage]:
    """The photograph of coins from scikit-image; nothing if that is not installed."""
    try:
        from skimage import data
    except ImportError:
        print("The photograph of coins is left out, as it needs scikit-image: pip install 'count-clip[demo]'.")
        return []
    # 24 coins in four rows of six, counted by eye.
    return [CountedImage("coins", Image.fromarray(data.coins()).convert("RGB"), "coins", 24)]


def _results_table(results: dict[str, dict[str, Any]], released: Path) -> str:
    """The results of both stages, and of the released counting CLIP, as a Markdown table."""
    import torch
    from transformers import AutoModel, AutoProcessor

    from count_clip.datasets_scripts.countscenes.builder import CountScenes
    from count_clip.evaluation.benchmarks.countbench import evaluate_countbench

    density, counting = results["density"], results["counting"]
    before, after = (density[when]["test"] for when in ("before", "after"))
    first, last = (counting[when]["test"] for when in ("before", "after"))
    num_rows = last["num_rows"]
    model, processor = (one.from_pretrained(released / RELEASED_CLIP) for one in (AutoModel, AutoProcessor))
    scenes = CountScenes("test", config="plain", num_scenes=num_rows)
    best = evaluate_countbench(model, processor, scenes, dtype=torch.float32, progress=False)
    accuracies = (f"{100 * x:.1f} %" for x in (first["accuracy"], last["accuracy"], best.accuracy))
    deviations = (f"{x:.2f}" for x in (first["mean_deviation"], last["mean_deviation"], best.mean_deviation))

    def errors(name: str) -> list[str]:
        return [f"{x:.2f}" for x in (after[f"mean_{name}"], before[name], after[name])]

    table = markdown_table(
        [
            ("model", "metric", "baseline", "before", "after", f"released {RELEASED_CLIP}"),
            ("CLIPForCounting", "CountBench accuracy", "11.1 %", *accuracies),
            ("", "CountBench mean deviation", "2.96", *deviations),
            ("CLIPCountDensityModel", "MAE", *errors("mae"), ""),
            ("", "RMSE", *errors("rmse"), ""),
        ]
    )
    seconds = {stage: f"{one['train']['train_runtime']:.0f}" for stage, one in results.items()}
    return (
        f"{table}\n\nCountBench's protocol on {num_rows} plain scenes of two to ten objects of unseen classes, nine "
        f"captions each; MAE and RMSE on {after['num_rows']} prompts for new scenes of one to three of the classes "
        "that the density model is trained on here (one or two of three prompts name an absent class). Baselines: a "
        'uniform guess among the nine numbers; the mean count of the training scenes. "Before" are '
        f'{SOURCES["counting"]} and {SOURCES["density"]}, "after" the same after {seconds["counting"]} and '
        f"{seconds['density']} seconds of training."
    )


def _images_table(images: Sequence[CountedImage]) -> str:
    """The predictions as a Markdown table."""
    head = ("image", "prompt", "true count", "density model", f"{RELEASED_CLIP} (2-10)")
    rows = [
        (x.name, x.text, str(x.true_count), f"{x.count:.1f}", "-" if x.number is None else str(x.number))
        for x in images
    ]
    return markdown_table([head, *rows])


__all__ = ["CountedImage", "check_released", "coins", "parse_settings", "run_demo"]
