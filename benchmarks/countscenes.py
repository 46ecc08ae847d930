"""
How many scenes of `countscenes` one core draws in a second.

    python benchmarks/countscenes.py
    python benchmarks/countscenes.py --num_scenes 2000 --image_sizes 64 384 --objects drawings
    python benchmarks/countscenes.py --cutouts FOLDER --backgrounds FOLDER

The first scenes take longer, for their sprites are drawn then. "First" counts them, with nothing in memory or on disk;
"cold" with nothing in memory, as for every later process; "warm" is what a process comes to. Of the configurations of
drawings, images smaller than the usual ones hold fewer objects; the column says how many.
"""

import argparse
import os
import platform
import tempfile
import time

import PIL

from count_clip.datasets_scripts.countscenes.builder import SCENE_CONFIGS, CountScenes
from count_clip.datasets_scripts.countscenes.builder import (
    cutouts as scene_cutouts,
)
from count_clip.datasets_scripts.countscenes.builder import (
    drawings as scene_drawings,
)
from count_clip.datasets_scripts.countscenes.builder import (
    objects as scene_objects,
)


def scenes_per_second(scenes: CountScenes, start: int, stop: int) -> float:
    """Draw a range of scenes; time this process has spent computing, so that others on the machine do not count."""
    began = time.process_time()
    for index in range(start, stop):
        scenes[index]
    return (stop - start) / (time.process_time() - began)


def forget(objects: str) -> None:
    """Begin as a new process does."""
    scene_objects.clear_sprites()
    scene_cutouts.cutouts_of.cache_clear()
    if objects == "drawings":
        scene_drawings.clear_drawings()


def main() -> None:
    """Measure every configuration at every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_scenes", type=int, default=600, help="scenes of each measurement (default: 600)")
    parser.add_argument("--image_sizes", type=int, nargs="+", default=[96, 224, 384], help="sides in pixels")
    parser.add_argument("--objects", nargs="+", default=["drawings", "shapes"], help="which objects (default: both)")
    parser.add_argument("--cutouts", help="a folder of cut-outs, instead of the other objects")
    parser.add_argument("--backgrounds", help="a folder of photographs behind the objects")
    arguments = parser.parse_args()

    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, Pillow {PIL.__version__}"
    )
    print(f"{os.cpu_count()} cores, of which one is used\n")
    print("| objects | configuration | image | of a kind | first, scenes/s | cold, scenes/s | warm, scenes/s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for objects in ["cutouts"] if arguments.cutouts else arguments.objects:
        for name in SCENE_CONFIGS:
            for image_size in arguments.image_sizes:
                print(row_of(arguments, objects, name, image_size), flush=True)


def row_of(arguments: argparse.Namespace, objects: str, name: str, image_size: int) -> str:
    """Measure one configuration at one size; a line of the table."""
    number = arguments.num_scenes
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COUNT_CLIP_SPRITES"] = folder
        forget(objects)
        scenes = CountScenes(
            "train",
            config=name,
            objects=objects,
            cutouts=arguments.cutouts,
            backgrounds=arguments.backgrounds,
            num_scenes=2 * number,
            image_size=image_size,
        )
        speeds = [scenes_per_second(scenes, 0, number)]
        forget(objects)
        speeds.append(scenes_per_second(scenes, 0, number))
        speeds.append(scenes_per_second(scenes, number, 2 * number))
    of_a_kind = f"{scenes.config.min_objects}-{scenes.config.max_objects}"
    measured = " | ".join(f"{speed:.0f}" for speed in speeds)
    return f"| {objects} | {name} | {image_size} x {image_size} | {of_a_kind} | {measured} |"


if __name__ == "__main__":
    main()
