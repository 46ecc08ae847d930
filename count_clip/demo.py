"""
`count-clip demo`: the released checkpoints, measured, taught more, and asked about images.

It runs the two configurations `demo_*` in `trainers/configs`, each from a released checkpoint: the counting method on
the CLIP that cannot count yet, and the density model on things whose names it has never heard. Then it counts, and
writes a table, images, checkpoints and cards.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .stages import run_stage as train_stage
from .stages import stage_folder
from .text_tables import markdown_table


STAGES = {
    "counting": "the counting method on a small CLIP of which one caption in ten stated a number",
    "density": "the density model on things that it has never seen, whose names it learns",
}
TITLES = {"counting": "count-clip", "density": "clip-count"}
SOURCES = {"counting": "count-clip-tiny-base", "density": "clip-count-tiny"}
TAUGHT = "count-clip-tiny"
RELEASED = Path(__file__).resolve().parent.parent / "model_cards"
"""Where a checkout of the project has the released checkpoints."""


@dataclass
class CountedImage:
    """
    An image and what two models say of it.

    Args:
        name (`str`): Name of the written file, without ending.
        image (`PIL.Image.Image`): The image.
        text (`str`): What was asked for.
        true_count (`int`): How many there are.
        count (`float`): What the density model counted.
        number (`int`, *optional*): Which of two to ten the counting CLIP chose, where it was asked.
    """

    name: str
    image: Image.Image
    text: str
    true_count: int
    count: float = 0.0
    number: int | None = None


def run_demo(
    output: Path, changes: Mapping[str, Sequence[str]], fresh: bool = False, released: Path = RELEASED
) -> None:
    """
    Run the demonstration: train, count, write images, checkpoints and cards, and print what came out.

    Args:
        output (`Path`): The folder for all of it; what an earlier run finished there is taken up.
        changes (`Mapping[str, Sequence[str]]`): The stages' `--key value` pairs, from [`parse_settings`].
        fresh (`bool`, *optional*, defaults to `False`): Whether to train again what an earlier run has finished.
        released (`Path`, *optional*): The folder with the released checkpoints.

    Raises:
        FileExistsError: If something lies in the way that no demonstration wrote.
    """
    started = time.time()
    if fresh:
        for title in TITLES.values():
            stage_folder(output / "runs" / title).remove()
    output.mkdir(parents=True, exist_ok=True)

    steps, results = len(STAGES) + 1, {}
    for index, (stage, what) in enumerate(STAGES.items(), start=1):
        print(f"\n[{index}/{steps}] {stage}: {what}", flush=True)
        results[stage] = run_stage(stage, output, changes[stage], released)
    print(f"\n[{steps}/{steps}] counting in images that none of the models has seen", flush=True)
    images = count_images(output / "runs" / TITLES["density"], released, output / "images")
    report = "\n\n".join([results_table(results, released), images_table(images)])
    for stage, title in TITLES.items():
        publish(output / "runs" / title, output / title, stage, report)
    print(f"\n{report}\n\nWritten to {output}: images/, {', '.join(f'{title}/' for title in TITLES.values())}")
    print(f"Total: {time.time() - started:.0f} seconds, training of earlier runs not counted.")


def check_released(released: Path) -> None:
    """
    Make sure that the released checkpoints are there, before anything is trained.

    Args:
        released (`Path`): The folder with them.

    Raises:
        FileNotFoundError: If one is not there.
    """
    for name in (*SOURCES.values(), TAUGHT):
        if not (released / name / "config.json").is_file():
            raise FileNotFoundError(
                f"There is no released checkpoint in {released / name}. They are in model_cards/ of the project's "
                "checkout: run the demonstration there, or say where they are with --checkpoints DIR."
            )


def parse_settings(settings: Sequence[str], released: Path = RELEASED) -> dict[str, list[str]]:
    """
    Read what a user wants changed in the stages' configurations.

    Args:
        settings (`Sequence[str]`): `STAGE.KEY=VALUE` each.
        released (`Path`, *optional*): The folder with the released checkpoints.

    Returns:
        `dict[str, list[str]]`: For each stage its `--key value` pairs.

    Raises:
        ValueError: If there is no such stage or key, or its value does not do.
    """
    changes: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for token in settings:
        key, separator, value = token.partition("=")
        stage, _, inner = key.partition(".")
        if not separator or stage not in STAGES or not inner:
            raise ValueError(
                f"expected --set STAGE.KEY=VALUE with one of the stages {', '.join(STAGES)}, but got {token!r}"
            )
        changes[stage] += [f"--{inner}", value]
    for stage in STAGES:
        _configure(stage, released, changes[stage])
    return changes


def run_stage(stage: str, output: Path, changes: Sequence[str], released: Path = RELEASED) -> dict[str, Any]:
    """
    Train one stage, or take up what an earlier run of the same configuration left.

    Args:
        stage (`str`): A key of `STAGES`.
        output (`Path`): The demonstration's folder.
        changes (`Sequence[str]`): `--key value` pairs that change the stage's configuration.
        released (`Path`, *optional*): The folder with the released checkpoints.

    Returns:
        `dict`: The figures that `trainers/run.py` wrote to `results.json`.
    """
    overrides = _configure(stage, released, changes)
    return train_stage(output / "runs" / TITLES[stage], f"demo_{stage}", overrides)


def _configure(stage: str, released: Path, changes: Sequence[str]) -> list[str]:
    """What the demonstration changes in a stage's configuration, after making sure that it can be read."""
    from count_clip.trainers.running.arguments import parse_run

    source = str(released / SOURCES[stage])
    overrides = ["--model_name_or_path", source, "--report_to", "none", *changes]
    parse_run(f"demo_{stage}", overrides)
    return overrides


def publish(run: Path, folder: Path, stage: str, report: str) -> None:
    """
    Put a trained model where it can be used and pushed from: weights, processor, the code that loads them anywhere,
    and the card of its training with what the demonstration has to say.

    Args:
        run (`Path`): What the training left.
        folder (`Path`): The checkpoint to write; what an earlier demonstration wrote there goes.
        stage (`str`): A key of `STAGES`.
        report (`str`): The tables to show.
    """
    from huggingface_hub import ModelCard
    from transformers import AutoModel, AutoProcessor

    AutoModel.from_pretrained(run).save_pretrained(folder)
    AutoProcessor.from_pretrained(run).save_pretrained(folder)
    for name in ("README.md", "training_loss.png"):
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    card = ModelCard.load(folder / "README.md")
    card.text += f"""
## From the demonstration

`count-clip demo` trained it for minutes, from {SOURCES[stage]}: {STAGES[stage]}.

{report}

It has only ever seen drawn scenes, and few words. It is no replacement for a model that starts from a web-scale CLIP.
"""
    card.save(folder / "README.md")


def count_images(density: Path, released: Path, folder: Path) -> list[CountedImage]:
    """
    Count in new images and draw the density maps over them.

    Args:
        density (`Path`): The density model that has learned the new things.
        released (`Path`): The folder with the released checkpoints, which are asked about the other images.
        folder (`Path`): Where the images are written, and all of them on one sheet.

    Returns:
        `list[CountedImage]`: With the models' answers.
    """
    from transformers import pipeline

    from count_clip.evaluation.figures.figures import contact_sheet, draw_density

    folder.mkdir(parents=True, exist_ok=True)
    models = {"released": released / SOURCES["density"], "taught": density}
    counters = {name: pipeline("object-counting", model=str(model)) for name, model in models.items()}
    chooser = pipeline("caption-counting", model=str(released / TAUGHT))
    answered, drawn, captions = [], [], []
    for model, images in (("released", [*things(), *unseen()]), ("taught", new_things()), ("released", coins())):
        for image in images:
            result = counters[model](image.image, text=image.text)
            image.count = result["count"]
            if image.name.startswith("plain"):
                image.number = chooser(image.image, text="{} " + image.text)[0]["number"]
            figure = draw_density(
                image.image, result["density_map"], result["points"], text=image.text, count=image.count
            )
            figure.save(folder / f"{image.name}.png")
            answered.append(image)
            drawn.append(figure)
            captions.append(f"{image.text}: {image.count:.1f}, really {image.true_count}")
    contact_sheet(drawn, captions, columns=3).save(folder / "all.png")
    return answered


def things() -> list[CountedImage]:
    """
    New scenes for the released checkpoints: of kinds that no training scene had, and of several kinds that they know,
    each asked about three times, the last time for what is not in it.

    Returns:
        `list[CountedImage]`.
    """
    from count_clip.datasets_scripts.countscenes.builder import CountScenes

    plain = CountScenes("test", config="plain", num_scenes=9, image_size=288, seed=1)
    images = [
        CountedImage(f"plain-{row['number']}", row["image"], row["name"], row["number"])
        for index, row in enumerate(plain)
        if index % 3 == 2
    ]
    mixed = CountScenes(
        "train", config="mixed", num_scenes=3, image_size=288, texts_per_scene=3, min_classes=2, max_classes=2, seed=1
    )
    return [*images, *(_asked("mixed", index, row) for index, row in enumerate(mixed))]


def unseen() -> list[CountedImage]:
    """
    New scenes for the released density model, of what no training scene had. Of the things it knows neither look nor
    name, but the texts say their colours too; of the shapes it has met the words of their names, and any two of them,
    but not the three together.

    Returns:
        `list[CountedImage]`.
    """
    from count_clip.datasets_scripts.countscenes.builder import CountScenes

    options = {"num_scenes": 3, "image_size": 288, "max_objects": 10, "texts_per_scene": 3, "seed": 3}
    described = CountScenes("test", config="described", **options)
    shapes = CountScenes("test", config="mixed", objects="shapes", **options)
    return [
        _asked(name, index, row)
        for name, scenes in (("described", described), ("shapes", shapes))
        for index, row in enumerate(scenes)
    ]


def new_things() -> list[CountedImage]:
    """
    New scenes for the density model that has just learned the things in them.

    Returns:
        `list[CountedImage]`.
    """
    from count_clip.datasets_scripts.countscenes.builder import CountScenes

    scenes = CountScenes(
        "validation", config="mixed", num_scenes=3, image_size=288, max_objects=10, texts_per_scene=3, seed=1
    )
    return [_asked("new", index, row) for index, row in enumerate(scenes)]


def coins() -> list[CountedImage]:
    """
    The photograph of coins that scikit-image ships.

    Returns:
        `list[CountedImage]`: One, or none where scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        print(
            "scikit-image is not installed, so its photograph of coins is left out (pip install 'count-clip[demo]')."
        )
        return []
    # 24 coins, in four rows of six: counted by eye.
    return [CountedImage("coins", Image.fromarray(data.coins()).convert("RGB"), "coins", 24)]


def _asked(name: str, index: int, row: Mapping[str, Any]) -> CountedImage:
    return CountedImage(f"{name}-{index // 3 + 1}{'abc'[index % 3]}", row["image"], row["text"], row["count"])


def results_table(results: dict[str, dict[str, Any]], released: Path = RELEASED) -> str:
    """
    The figures of the stages, as a Markdown table.

    Args:
        results (`dict`): What `run_stage` returned, by stage.
        released (`Path`, *optional*): The folder with the released checkpoints, of which one is measured here.

    Returns:
        `str`.
    """
    import torch
    from transformers import AutoModel, AutoProcessor

    from count_clip.datasets_scripts.countscenes.builder import CountScenes
    from count_clip.evaluation.benchmarks.countbench import evaluate_countbench

    density, counting = results["density"], results["counting"]
    before, after = (density[when]["test"] for when in ("before", "after"))
    first, last = (counting[when]["test"] for when in ("before", "after"))
    rows_measured = last["num_rows"]
    model, processor = (one.from_pretrained(released / TAUGHT) for one in (AutoModel, AutoProcessor))
    scenes = CountScenes("test", config="plain", num_scenes=rows_measured)
    taught = evaluate_countbench(model, processor, scenes, dtype=torch.float32, progress=False)
    accuracies = (first["accuracy"], last["accuracy"], taught.accuracy)
    deviations = (first["mean_deviation"], last["mean_deviation"], taught.mean_deviation)
    rows = [
        ("CLIPForCounting", "CountBench accuracy", "11.1 %", *(f"{100 * x:.1f} %" for x in accuracies)),
        ("", "CountBench mean deviation", "2.96", *(f"{x:.2f}" for x in deviations)),
        (
            "CLIPCountDensityModel",
            "MAE",
            f"{after['mean_mae']:.2f}",
            *(f"{x['mae']:.2f}" for x in (before, after)),
            "",
        ),
        ("", "RMSE", f"{after['mean_rmse']:.2f}", *(f"{x['rmse']:.2f}" for x in (before, after)), ""),
    ]
    head = ("model", "measure", "knows nothing", "before", "after", f"released {TAUGHT}")
    seconds = {stage: f"{one['train']['train_runtime']:.0f}" for stage, one in results.items()}
    note = (
        f"Measured on {rows_measured} plain scenes with two to ten things, nine captions each, and on "
        f"{after['num_rows']} texts asked of scenes with one to three kinds of things (one or two of three texts "
        "name what is not there). The plain scenes show things that no training scene had; the others are new scenes "
        "of those that the density model is taught here, and that the released one has never seen. "
        '"Knows nothing" is a uniform guess among the nine numbers, and always saying the mean count of the training '
        f'scenes. "Before" are {SOURCES["counting"]} and {SOURCES["density"]} as released, "after" the same after '
        f"{seconds['counting']} seconds of the counting method on things, and {seconds['density']} seconds of "
        "training on the new things."
    )
    return f"{markdown_table([head, *rows])}\n\n{note}"


def images_table(images: Sequence[CountedImage]) -> str:
    """
    What the models said of the images, as a Markdown table.

    Args:
        images (`Sequence[CountedImage]`): From `count_images`.

    Returns:
        `str`.
    """
    head = ("image", "prompt", "really", "density model", f"{TAUGHT} (2-10)")
    rows = [
        (x.name, x.text, str(x.true_count), f"{x.count:.1f}", "-" if x.number is None else str(x.number))
        for x in images
    ]
    return markdown_table([head, *rows])


__all__ = [
    "CountedImage",
    "check_released",
    "coins",
    "count_images",
    "images_table",
    "new_things",
    "parse_settings",
    "publish",
    "results_table",
    "run_demo",
    "run_stage",
    "things",
    "unseen",
]
