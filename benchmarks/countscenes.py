"""
How many scenes of `countscenes` one core draws in a second.

    python benchmarks/countscenes.py
    python benchmarks/countscenes.py --num_scenes 2000 --image_sizes 64 384

The first scenes take longer, for their sprites are drawn then; "cold" counts them, in a cache that was empty, and
"warm" does not.
"""

import argparse
import os
import platform
import time

import PIL

from count_clip.datasets_scripts import scene_objects
from count_clip.datasets_scripts.countscenes import SCENE_CONFIGS, CountScenes


def scenes_per_second(scenes: CountScenes, start: int, stop: int) -> float:
    """Draw a range of scenes; time this process has spent computing, so that others on the machine do not count."""
    began = time.process_time()
    for index in range(start, stop):
        scenes[index]
    return (stop - start) / (time.process_time() - began)


def main() -> None:
    """Measure every configuration at every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_scenes", type=int, default=600, help="scenes of each measurement (default: 600)")
    parser.add_argument("--image_sizes", type=int, nargs="+", default=[96, 224], help="sides in pixels")
    arguments = parser.parse_args()

    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, Pillow {PIL.__version__}"
    )
    print(f"{os.cpu_count()} cores, of which one is used\n")
    print("| configuration | picture | objects | cold, scenes/s | warm, scenes/s |")
    print("| --- | --- | --- | --- | --- |")
    for name in SCENE_CONFIGS:
        for image_size in arguments.image_sizes:
            scenes = CountScenes("train", config=name, num_scenes=2 * arguments.num_scenes, image_size=image_size)
            scene_objects.clear_sprites()
            cold = scenes_per_second(scenes, 0, arguments.num_scenes)
            warm = scenes_per_second(scenes, arguments.num_scenes, 2 * arguments.num_scenes)
            config = scenes.config
            objects = f"{config.min_objects}-{config.max_objects}"
            print(f"| {name} | {image_size} x {image_size} | {objects} | {cold:.0f} | {warm:.0f} |", flush=True)


if __name__ == "__main__":
    main()
