"""
`count-clip demo`: train two small counting models on rendered scenes, measure them, and count with them.

It runs three of the configurations in `trainers/configs` (`countscenes_density`, `countscenes_base` and
`countscenes_counting`), each from the result of the one before, then writes a table, pictures, checkpoints and cards.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .stages import remove_stage, stage_key
from .stages import run_stage as train_stage
from .text_tables import markdown_table


STAGES = {
    "density": "a CLIPCountDensityModel, from nothing",
    "base": "a small CLIP on its towers; one caption in ten states a number",
    "counting": "that CLIP with the counting loss: CLIPForCounting",
}
STATE_NAME = "demo_stage.json"
TITLES = {"density": "clip-count", "counting": "count-clip"}


@dataclass
class CountedPicture:
    """
    A picture and what the two models say of it.

    Args:
        name (`str`): Name of the written file, without ending.
        image (`PIL.Image.Image`): The picture.
        text (`str`): What was asked for.
        true_count (`int`): How many there are.
        count (`float`): What the density model counted.
        number (`int`): Which of two to ten the counting CLIP chose, whether or not the true count is one of them.
    """

    name: str
    image: Image.Image
    text: str
    true_count: int
    count: float = 0.0
    number: int = 0


def run_demo(output: Path, changes: Mapping[str, Sequence[str]], fresh: bool = False) -> None:
    """
    Run the demonstration: train, count, write pictures, checkpoints and cards, and print what came out.

    Args:
        output (`Path`): The folder for all of it; what an earlier run finished there is taken up.
        changes (`Mapping[str, Sequence[str]]`): The stages' `--key value` pairs, from [`parse_settings`].
        fresh (`bool`, *optional*, defaults to `False`): Whether to train again what an earlier run has finished.
    """
    started = time.time()
    if fresh:
        for stage in STAGES:
            remove_stage(output / "runs" / stage, STATE_NAME)
    output.mkdir(parents=True, exist_ok=True)

    results = {}
    for index, (stage, what) in enumerate(STAGES.items(), start=1):
        print(f"\n[{index}/{len(STAGES) + 1}] {stage}: {what}", flush=True)
        results[stage] = run_stage(stage, output, changes[stage])
    print(f"\n[{len(STAGES) + 1}/{len(STAGES) + 1}] counting in pictures that neither model has seen", flush=True)
    checkpoints = {stage: _publish(output / "runs" / stage, output / title) for stage, title in TITLES.items()}
    pictures = count_pictures(checkpoints["density"], checkpoints["counting"], output / "pictures")
    report = "\n\n".join([results_table(results), pictures_table(pictures)])
    for stage, folder in checkpoints.items():
        write_card(stage, folder, results, report)
    print(f"\n{report}\n\nWritten to {output}: pictures/, {', '.join(f'{title}/' for title in TITLES.values())}")
    print(f"Total: {time.time() - started:.0f} seconds, training of earlier runs not counted.")


def parse_settings(settings: Sequence[str], output: Path) -> dict[str, list[str]]:
    """
    Read what a user wants changed in the stages' configurations.

    Args:
        settings (`Sequence[str]`): `STAGE.KEY=VALUE` each.
        output (`Path`): The demonstration's folder.

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
        _configure(stage, output, changes[stage])
    return changes


def run_stage(stage: str, output: Path, changes: Sequence[str]) -> dict[str, Any]:
    """
    Train one stage, or take up what an earlier run of the same configuration left.

    Args:
        stage (`str`): A key of `STAGES`.
        output (`Path`): The demonstration's folder.
        changes (`Sequence[str]`): `--key value` pairs that change the stage's configuration.

    Returns:
        `dict`: The figures that `trainers/run.py` wrote to `results.json`.
    """
    # A stage depends on its configuration and on the stage before it.
    before = [name for name in STAGES if list(STAGES).index(name) < list(STAGES).index(stage)][-1:]
    parent = stage_key(output / "runs" / before[0], STATE_NAME) if before else ""
    overrides = _configure(stage, output, changes)
    return train_stage(output / "runs" / stage, f"countscenes_{stage}", overrides, STATE_NAME, parent)


def _configure(stage: str, output: Path, changes: Sequence[str]) -> list[str]:
    """What the demonstration changes in a stage's configuration, after making sure that it can be read."""
    from count_clip.trainers.run_arguments import parse_run

    sources = {
        "density": [],
        "base": ["--density_name_or_path", str(output / "runs" / "density")],
        "counting": ["--model_name_or_path", str(output / "runs" / "base")],
    }
    overrides = [*sources[stage], "--report_to", "none", *changes]
    parse_run(f"countscenes_{stage}", overrides)
    return overrides


def _publish(run: Path, folder: Path) -> Path:
    """Save a trained model and its processor as a folder of their own, with the code that loads them anywhere."""
    from transformers import AutoModel, AutoProcessor

    AutoModel.from_pretrained(run).save_pretrained(folder)
    AutoProcessor.from_pretrained(run).save_pretrained(folder)
    return folder


def unseen_pictures() -> list[CountedPicture]:
    """
    Scenes of kinds that no training scene had, larger than those, each asked about twice for what is there and once
    for what is not, and the coins that scikit-image ships.

    Returns:
        `list[CountedPicture]`.
    """
    from count_clip.datasets_scripts.countscenes import CountScenes

    scenes = CountScenes(
        "test",
        config="mixed",
        objects="shapes",
        num_scenes=3,
        image_size=320,
        max_objects=10,
        min_object_size=0.125,
        max_object_size=0.3,
        texts_per_scene=3,
        seed=3,
    )
    pictures = [
        CountedPicture(f"scene-{index // 3 + 1}{'abc'[index % 3]}", row["image"], row["text"], row["count"])
        for index, row in enumerate(scenes)
    ]
    try:
        from skimage import data
    except ImportError:
        print(
            "scikit-image is not installed, so its photograph of coins is left out (pip install 'count-clip[demo]')."
        )
        return pictures
    # 24 coins, in four rows of six: counted by eye.
    return [*pictures, CountedPicture("coins", Image.fromarray(data.coins()).convert("RGB"), "gray discs", 24)]


def count_pictures(density: Path, counting: Path, folder: Path) -> list[CountedPicture]:
    """
    Count in the unseen pictures and draw the density maps over them.

    Args:
        density (`Path`): The density model's checkpoint.
        counting (`Path`): The counting CLIP's checkpoint.
        folder (`Path`): Where the pictures are written, and all of them on one sheet.

    Returns:
        `list[CountedPicture]`: With both models' answers.
    """
    from transformers import pipeline

    from count_clip.evaluation.figures import contact_sheet, draw_density

    folder.mkdir(parents=True, exist_ok=True)
    counter = pipeline("object-counting", model=str(density))
    chooser = pipeline("caption-counting", model=str(counting))
    pictures, drawn, captions = unseen_pictures(), [], []
    for picture in pictures:
        result = counter(picture.image, text=picture.text)
        picture.count = result["count"]
        picture.number = chooser(picture.image, text="{} " + picture.text)[0]["number"]
        figure = draw_density(
            picture.image, result["density_map"], result["points"], text=picture.text, count=picture.count
        )
        figure.save(folder / f"{picture.name}.png")
        drawn.append(figure)
        captions.append(f"{picture.text}: {picture.count:.1f}, really {picture.true_count}")
    contact_sheet(drawn, captions, columns=3).save(folder / "all.png")
    return pictures


def results_table(results: dict[str, dict[str, Any]]) -> str:
    """
    The figures of the stages, as a Markdown table.

    Args:
        results (`dict`): What `run_stage` returned, by stage.

    Returns:
        `str`.
    """
    density, counting = results["density"], results["counting"]
    before, after = (density[when]["test"] for when in ("before", "after"))
    first, last = (counting[when]["test"] for when in ("before", "after"))
    rows = [
        ("CLIPForCounting", "CountBench accuracy", "11.1 %", *(f"{100 * x['accuracy']:.1f} %" for x in (first, last))),
        ("", "CountBench mean deviation", "2.96", *(f"{x['mean_deviation']:.2f}" for x in (first, last))),
        ("CLIPCountDensityModel", "MAE", f"{after['mean_mae']:.2f}", *(f"{x['mae']:.2f}" for x in (before, after))),
        ("", "RMSE", f"{after['mean_rmse']:.2f}", *(f"{x['rmse']:.2f}" for x in (before, after))),
    ]
    head = ("model", "measure", "knows nothing", "before", "after")
    note = (
        f"Measured on {last['num_rows']} scenes with two to ten objects, nine captions each, and on "
        f"{after['num_rows']} texts asked of scenes with one to three kinds (one or two of three texts name what is "
        "not there), all of kinds of objects that no training scene had. "
        '"Knows nothing" is a uniform guess among the nine numbers, and always saying the mean count of the training '
        'scenes. "Before" is the small CLIP without the counting loss, and the density model with new weights: both '
        "are trained from nothing here, in minutes; no web-scale CLIP is behind them."
    )
    return f"{markdown_table([head, *rows])}\n\n{note}"


def pictures_table(pictures: Sequence[CountedPicture]) -> str:
    """
    What the models said of the unseen pictures, as a Markdown table.

    Args:
        pictures (`Sequence[CountedPicture]`): From `count_pictures`.

    Returns:
        `str`.
    """
    head = ("picture", "prompt", "really", "density model", "caption chosen (2-10)")
    rows = [
        # The captions have no number for what is not there, nor for a single one, nor beyond ten.
        (x.name, x.text, str(x.true_count), f"{x.count:.1f}", str(x.number) if 2 <= x.true_count <= 10 else "-")
        for x in pictures
    ]
    return markdown_table([head, *rows])


def write_card(stage: str, folder: Path, results: dict[str, dict[str, Any]], report: str) -> None:
    """
    Write the card of a checkpoint: what it was trained on, for how long, what it reached and what it cannot do.

    Args:
        stage (`str`): `"density"` or `"counting"`.
        folder (`Path`): The checkpoint.
        results (`dict`): The figures of the stages.
        report (`str`): The tables to show.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    test = results[stage]["after"]["test"]
    kind = {"density": "mixed", "counting": "benchmark"}[stage]
    measures = {"density": ("mae", "rmse"), "counting": ("accuracy", "mean_deviation")}[stage]
    task = {"density": "object-counting", "counting": "zero-shot-image-classification"}[stage]
    metadata = ModelCardData(
        model_name=TITLES[stage],
        library_name="transformers",
        license="apache-2.0",
        pipeline_tag="zero-shot-image-classification" if stage == "counting" else None,
        tags=["object-counting", "countscenes"],
        eval_results=[
            EvalResult(
                task_type=task,
                dataset_type="countscenes",
                dataset_name=f"countscenes ({kind}, test)",
                metric_type=measure,
                metric_value=round(test[measure], 4),
            )
            for measure in measures
        ],
    )
    stages = list(STAGES)[: list(STAGES).index(stage) + 1]
    trained = "\n".join(
        f"- `{name}`: {STAGES[name]}; {results[name]['num_parameters']:,} parameters, "
        f"{results[name]['train']['train_runtime']:.0f} seconds of training "
        f"(`trainers/configs/countscenes_{name}.yaml`)"
        for name in stages
    )
    call = {
        "density": 'pipeline("object-counting", model=folder)(image, text="red stars")["count"]',
        "counting": 'pipeline("caption-counting", model=folder)(image, text="a photo of {} red stars")[0]["number"]',
    }[stage]
    card = f"""---
{metadata.to_yaml()}
---

# {TITLES[stage]}, from the demonstration

A small model that `count-clip demo` trained on pictures drawn by `countscenes`.

```python
import count_clip
from transformers import pipeline

{call}
```

## Training

{trained}

The scenes are drawn shapes of 64x64 pixels with one to ten objects; kinds of objects are split between training and
test. Command: `count-clip demo`.

## Results

{report}

## Limits

It has only ever seen drawn shapes with names such as "red striped stars". It knows no other words and no photographs,
counts badly beyond ten objects in a picture, and is no replacement for a model that starts from a web-scale CLIP.
"""
    ModelCard(card, ignore_metadata_errors=False).save(folder / "README.md")


__all__ = [
    "CountedPicture",
    "count_pictures",
    "parse_settings",
    "results_table",
    "run_demo",
    "run_stage",
    "unseen_pictures",
    "write_card",
]
