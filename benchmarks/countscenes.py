"""
How many scenes of `countscenes` one core draws in a second.

    python benchmarks/countscenes.py
    python benchmarks/countscenes.py --num_scenes 2000 --image_sizes 64 384 --objects drawings
    python benchmarks/countscenes.py --cutouts FOLDER --backgrounds FOLDER

The first scenes take longer, because their sprites are drawn. "First" starts with no sprite in memory or on disk;
"cold" with none in memory, like every later process; "warm" with both. Images of drawings that are smaller than the
configuration's have fewer objects; the column "objects a class" has their number.
"""

import argparse
import os
import platform
import tempfile
import time

import PIL

from count_clip.datasets_scripts.countscenes.builder import SCENE_CONFIGS, CountScenes
from count_clip.datasets_scripts.countscenes.cutouts import cutouts_of
from count_clip.datasets_scripts.countscenes.drawings import clear_drawings
from count_clip.datasets_scripts.countscenes.shapes import clear_sprites


def scenes_per_second(scenes: CountScenes, start: int, stop: int) -> float:
    """Draw a range of scenes; measure the CPU time of this process, which others on the machine do not change."""
    began = time.process_time()
    for index in range(start, stop):
        scenes[index]
    return (stop - start) / (time.process_time() - began)


def clear_caches(objects: str) -> None:
    """Remove all sprites from memory, as in a new process."""
    clear_sprites()
    cutouts_of.cache_clear()
    if objects == "drawings":
        clear_drawings()


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
    print("| objects | configuration | image | objects a class | first, scenes/s | cold, scenes/s | warm, scenes/s |")
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
        clear_caches(objects)
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
        clear_caches(objects)
        speeds.append(scenes_per_second(scenes, 0, number))
        speeds.append(scenes_per_second(scenes, number, 2 * number))
    a_class = f"{scenes.config.min_objects}-{scenes.config.max_objects}"
    measured = " | ".join(f"{speed:.0f}" for speed in speeds)
    return f"| {objects} | {name} | {image_size} x {image_size} | {a_class} | {measured} |"


if __name__ == "__main__":
    main()
