"""What the scenes of `countscenes` look like and what their rows say: the options and the named configurations."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .backgrounds import BACKGROUND_STYLES


# Part of the builder's cache: raise it when (split, seed, index) comes to give other pixels. What the objects come
# from has a version of its own, which is part of every scene's seed.
VERSION = "2.0.0"

OBJECTS = ("drawings", "shapes", "cutouts")
LAYOUTS = ("scattered", "clustered", "rows", "piles", "perspective")
# Those of the first version, which scenes of shapes keep to unless told otherwise.
PLAIN_LAYOUTS = LAYOUTS[:3]
ROW_FORMATS = ("captions", "density", "mixed")
COUNT_DISTRIBUTIONS = ("uniform", "log_uniform", "balanced")


@dataclass(frozen=True)
class SceneConfig:
    """
    What the scenes look like and what their rows say.

    Args:
        name (`str`):
            Name of the configuration; part of every `image_id`.
        rows (`str`):
            `"captions"`: image, image_id, text (a caption), number (0 where the caption states none), name.
            `"density"`: image, image_id, text (what to count), count, points, boxes.
            `"mixed"`: those of `"density"`, and other_texts and other_counts (all kinds in the image, the asked-for
            one included).
        objects (`str`, *optional*, defaults to `"drawings"`):
            `"drawings"`: several hundred kinds of things, drawn by OpenMoji; they need `count-clip[scenes]`.
            `"shapes"`: several hundred kinds of coloured and patterned shapes, which need nothing.
            `"cutouts"`: what is in the folder that `cutouts` names.
        cutouts (`str`, *optional*):
            A folder with images of things that are transparent around them, a folder for each class, or with
            COCO's annotations and photographs; see `scene_cutouts.py`. Naming it is to ask for `objects="cutouts"`.
        backgrounds (`str`, *optional*):
            A folder of photographs, pieces of which lie behind the objects; by default the background is drawn.
        image_size (`int`, *optional*, defaults to 224):
            Side of the images in pixels, 32-2048.
        min_objects (`int`, *optional*, defaults to 1):
            Fewest objects of a kind that is counted.
        max_objects (`int`, *optional*, defaults to 10):
            Most objects of a kind that is counted.
        count_distribution (`str`, *optional*, defaults to `"uniform"`):
            `"uniform"` or `"log_uniform"` between the two, or `"balanced"`: scene `i` has `min_objects + i % n`
            objects, where `n` is how many numbers there are between the two.
        min_kinds (`int`, *optional*, defaults to 1):
            Fewest kinds that are counted in one scene.
        max_kinds (`int`, *optional*, defaults to 1):
            Most kinds that are counted in one scene.
        min_object_size (`float`, *optional*, defaults to 0.125):
            Diameter of the smallest objects, as a share of the image's side. Where a scene's objects would not fit,
            they are made smaller, if need be below this.
        max_object_size (`float`, *optional*, defaults to 0.3):
            Diameter of the largest objects, likewise.
        size_variation (`float`, *optional*, defaults to 0.25):
            How much the objects of one scene differ in size, as a share of the scene's mean size.
        max_fill (`float`, *optional*, defaults to 0.5):
            The most that the squares around all objects may cover together, as a share of the image.
        max_hidden (`float`, *optional*, defaults to 0.3):
            The most of an object that later ones may hide, as a share of its pixels, below 0.5. The point that marks
            it is never hidden.
        max_rotation (`float`, *optional*, defaults to 180.0):
            How far objects are turned either way, in degrees. Half of the scenes keep to a ninth of that.
        distractor_probability (`float`, *optional*, defaults to 0.4):
            Share of the scenes with objects of kinds that are not counted.
        max_distractor_kinds (`int`, *optional*, defaults to 2):
            Most kinds of such objects in one scene.
        max_distractors (`int`, *optional*, defaults to 4):
            Most objects of one such kind.
        similar_distractor_probability (`float`, *optional*, defaults to 0.5):
            Share of the other kinds that are chosen to have the colour or the shape of a counted one.
        absent_probability (`float`, *optional*, defaults to 0.0):
            Share of the rows whose text names a kind that is not in the image, with count 0 (not for captions).
        texts_per_scene (`int`, *optional*, defaults to 1):
            How many texts are asked of each scene, with a row for each (not for captions). With two or more,
            `absent_probability` plays no part: all but the last text name kinds that are counted in the image, as
            far as there are so many, and the others kinds that are not in it.
        number_rate (`float`, *optional*, defaults to 1.0):
            Share of the captions that state the number. On the web it is small.
        made_up_name_rate (`float`, *optional*, defaults to 0.0):
            Share of the captions that call the objects by a name that nothing has, "five drimbles", while `name` stays
            what they are: what a small text tower learns of numbers then does not hang on the few names it has seen.
            Of the other rows, the share of those about the only kind in its image: an unknown name then comes to
            mean what there is to see.
        spliced_name_rate (`float`, *optional*, defaults to 0.0):
            Share of the made-up names that are made of the beginning of one kind's name and the end of another's, as
            "girel" is of "giraffe" and "barrel". To a text tower that has read only these names they look like the
            words it does not know.
        described_rate (`float`, *optional*, defaults to 0.0):
            Share of the scenes whose texts say what colours things have, "gray mice" or "brown and white cows", where
            the name does not say one (not for captions). In a share of such scenes, `made_up_name_rate`, things are
            called by one name that nothing has, "gray drimbles", where nothing else in the image has these main
            colours, or none.
        background_styles (`Sequence[str]`, *optional*, defaults to all):
            Which of `BACKGROUND_STYLES` to choose from.
        layouts (`Sequence[str]`, *optional*, defaults to `PLAIN_LAYOUTS`):
            Which of `LAYOUTS` to choose from: objects anywhere; close to each other; in rows; in piles, where up to
            half as much again as `max_hidden` may be hidden; on a plane that goes away from the beholder, where those
            nearer the top are smaller.
        grain_probability (`float`, *optional*, defaults to 0.5):
            Share of the images with a camera's noise.
        shadow_probability (`float`, *optional*, defaults to 0.5):
            Share of the images whose objects throw a shadow.
        blur_probability (`float`, *optional*, defaults to 0.0):
            Share of the images that are a little out of focus.
        jpeg_probability (`float`, *optional*, defaults to 0.0):
            Share of the images that have been through a JPEG file of a quality of 40-95.

    Raises:
        TypeError: If a number is not a number, or a count not a whole one.
        ValueError: If a value is outside its range, or if so many objects of these sizes cannot fit.
    """

    name: str
    rows: str
    objects: str = "drawings"
    cutouts: str | None = None
    backgrounds: str | None = None
    image_size: int = 224
    min_objects: int = 1
    max_objects: int = 10
    count_distribution: str = "uniform"
    min_kinds: int = 1
    max_kinds: int = 1
    min_object_size: float = 0.125
    max_object_size: float = 0.3
    size_variation: float = 0.25
    max_fill: float = 0.5
    max_hidden: float = 0.3
    max_rotation: float = 180.0
    distractor_probability: float = 0.4
    max_distractor_kinds: int = 2
    max_distractors: int = 4
    similar_distractor_probability: float = 0.5
    absent_probability: float = 0.0
    texts_per_scene: int = 1
    number_rate: float = 1.0
    made_up_name_rate: float = 0.0
    spliced_name_rate: float = 0.0
    described_rate: float = 0.0
    background_styles: Sequence[str] = BACKGROUND_STYLES
    layouts: Sequence[str] = PLAIN_LAYOUTS
    grain_probability: float = 0.5
    shadow_probability: float = 0.5
    blur_probability: float = 0.0
    jpeg_probability: float = 0.0

    def __post_init__(self) -> None:
        # From YAML they come as lists, which cannot be hashed.
        for field in ("background_styles", "layouts"):
            if isinstance(getattr(self, field), str):
                raise TypeError(
                    f"Expected {field} to be a list of names, but got the single name {getattr(self, field)!r}. "
                    "Put it into a list."
                )
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"Expected name to be a name that is not empty, but got {self.name!r}. Choose one.")
        self._check_choice("rows", ROW_FORMATS)
        self._check_choice("objects", OBJECTS)
        for field in ("cutouts", "backgrounds"):
            if not isinstance(getattr(self, field), (str, type(None))):
                raise TypeError(
                    f"Expected {field} to be the path of a folder as a string, but got {getattr(self, field)!r}."
                )
        if (self.objects == "cutouts") != bool(self.cutouts):
            raise ValueError(
                f"Expected a folder in cutouts for objects='cutouts' and for nothing else, but got "
                f"objects={self.objects!r} and cutouts={self.cutouts!r}. Name the folder, or leave both out."
            )
        self._check_choice("count_distribution", COUNT_DISTRIBUTIONS)
        for field, choices in (("background_styles", BACKGROUND_STYLES), ("layouts", LAYOUTS)):
            chosen = getattr(self, field)
            if not chosen or not set(chosen) <= set(choices):
                raise ValueError(
                    f"Expected {field} to be one or more of {', '.join(choices)}, but got {list(chosen)}. "
                    "Choose among these."
                )
        self._check_whole("image_size", 32, 2048)
        self._check_whole("min_objects", 1, 2000)
        self._check_whole("max_objects", self.min_objects, 2000)
        self._check_whole("min_kinds", 1, 8)
        self._check_whole("max_kinds", self.min_kinds, 8)
        self._check_whole("max_distractor_kinds", 1, 8)
        self._check_whole("max_distractors", 1, 2000)
        self._check_whole("texts_per_scene", 1, 16)
        self._check_number("min_object_size", 0.01, 0.9)
        self._check_number("max_object_size", self.min_object_size, 0.9)
        self._check_number("size_variation", 0.0, 0.6)
        self._check_number("max_fill", 0.02, 0.7)
        self._check_number("max_hidden", 0.0, 0.45)
        self._check_number("max_rotation", 0.0, 180.0)
        for share in (field.name for field in dataclasses.fields(self)):
            if share.endswith(("_probability", "_rate")):
                self._check_number(share, 0.0, 1.0)
        self._check_together()

    def _check_choice(self, field: str, choices: Sequence[str]) -> None:
        value = getattr(self, field)
        if value not in choices:
            raise ValueError(
                f"Expected {field} to be one of {', '.join(choices)}, but got {value!r}. Choose one of these."
            )

    def _check_whole(self, field: str, low: int, high: int) -> None:
        value = getattr(self, field)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"Expected {field} to be a whole number, but got {value!r}. Give one in {low}-{high}.")
        self._check_range(field, value, low, high)

    def _check_number(self, field: str, low: float, high: float) -> None:
        value = getattr(self, field)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(
                f"Expected {field} to be a number, but got {value!r} ({type(value).__name__}). "
                f"Give one in {low}-{high}."
            )
        self._check_range(field, value, low, high)

    def _check_range(self, field: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:
            raise ValueError(
                f"Expected {field} to be in {low}-{high}, but got {value} in the scene configuration {self.name!r}. "
                "Choose a value in that range."
            )

    def _check_together(self) -> None:
        if self.rows == "captions" and self.max_kinds > 1:
            raise ValueError(
                f"Expected max_kinds=1 for rows='captions', which name one counted kind, but got {self.max_kinds}. "
                "Use rows='mixed', or distractors for the other kinds."
            )
        if self.rows == "captions" and self.absent_probability > 0:
            raise ValueError(
                f"Expected absent_probability=0 for rows='captions', but got {self.absent_probability}: a caption "
                "names what is in its image. Use rows='density' or rows='mixed'."
            )
        if self.described_rate > 0 and (self.rows == "captions" or self.objects == "cutouts"):
            raise ValueError(
                f"Expected described_rate=0 for captions and for cut-outs, but got {self.described_rate} for "
                f"rows={self.rows!r} and objects={self.objects!r}: the colours are known of shapes and drawings. Use "
                "these, with rows='density' or rows='mixed' (and the configuration mixed for cut-outs)."
            )
        if self.rows == "captions" and self.texts_per_scene > 1:
            raise ValueError(
                f"Expected texts_per_scene=1 for rows='captions', but got {self.texts_per_scene}: an image has one "
                "caption. Use rows='density' or rows='mixed'."
            )
        if self.count_distribution == "balanced" and self.max_kinds > 1:
            raise ValueError(
                "Expected max_kinds=1 for count_distribution='balanced', because the scene's index gives one number, "
                f"but got {self.max_kinds}. Use 'uniform'."
            )
        most = self.max_kinds * self.max_objects
        if self.distractor_probability > 0:
            most += self.max_distractor_kinds * self.max_distractors
        # Below, an image is no longer one of objects: they have no shape, and soon no place.
        smallest = min(self.min_object_size, math.sqrt(self.max_fill / most))
        if smallest * self.image_size < 3.5:
            raise ValueError(
                f"Expected room for objects of 3.5 pixels or more, but up to {most} objects in an image of "
                f"{self.image_size} pixels a side come down to {smallest * self.image_size:.1f}. Raise image_size "
                "(or max_fill, or min_object_size), or lower max_objects or max_distractors."
            )


# What scenes of things have that scenes of shapes have not.
_THINGS: dict[str, Any] = {
    "layouts": LAYOUTS,
    # Things stand upright, or nearly so.
    "max_rotation": 45.0,
    "blur_probability": 0.2,
    "jpeg_probability": 0.3,
}
# Small images in which nothing hides or resembles what is to be counted.
_PLAIN: dict[str, Any] = {
    "image_size": 96,
    "min_objects": 2,
    "max_objects": 10,
    "count_distribution": "balanced",
    "max_object_size": 0.25,
    "size_variation": 0.1,
    "max_hidden": 0.0,
    "distractor_probability": 0.0,
    "background_styles": ("solid", "gradient"),
    "grain_probability": 0.0,
    "shadow_probability": 0.0,
}
# A few objects of each of two or three kinds.
_MIXED: dict[str, Any] = {
    "rows": "mixed",
    "max_objects": 16,
    "count_distribution": "log_uniform",
    "min_kinds": 2,
    "max_kinds": 3,
    "min_object_size": 0.08,
    "max_object_size": 0.25,
    "distractor_probability": 0.0,
    "absent_probability": 0.15,
}
SCENE_CONFIGS: dict[str, SceneConfig] = {
    "captions": SceneConfig(
        name="captions", rows="captions", min_objects=2, max_objects=10, number_rate=0.5, **_THINGS
    ),
    "density": SceneConfig(
        name="density",
        rows="density",
        image_size=384,
        max_objects=300,
        count_distribution="log_uniform",
        min_object_size=0.04,
        max_object_size=0.25,
        max_distractors=8,
        **_THINGS,
    ),
    "mixed": SceneConfig(name="mixed", **_MIXED, **_THINGS),
    "benchmark": SceneConfig(
        name="benchmark", rows="captions", min_objects=2, max_objects=10, count_distribution="balanced", **_THINGS
    ),
    "plain": SceneConfig(name="plain", rows="captions", max_rotation=45.0, **_PLAIN),
    "described": SceneConfig(name="described", described_rate=1.0, **_MIXED, **_THINGS),
}
"""The named configurations: `"density"`, `"mixed"` and `"described"` for density models, the others for
`CLIPForCounting`.

`"benchmark"` has CountBench's protocol: scene `i` has `2 + i % 9` objects, so any multiple of nine scenes has equally
many of each number, and every caption states it. `"plain"` is the same in images of 96 pixels a side that show
nothing but these objects, whole, on smooth ground: what a CLIP of a few million parameters learns first. `"described"`
has the scenes of `"mixed"`, and its texts say what colours things have: "gray mice". `"density"` has up to 300 objects
in its images of 384 pixels a side; in smaller ones [`scene_config`] has fewer of the same size, unless it is told
otherwise, and objects of the same size in smaller images of `"mixed"` and `"described"`."""

SHAPE_CONFIGS: dict[str, SceneConfig] = {
    "captions": SceneConfig(
        name="captions", rows="captions", objects="shapes", min_objects=2, max_objects=10, number_rate=0.5
    ),
    "density": SceneConfig(
        name="density",
        rows="density",
        objects="shapes",
        max_objects=60,
        count_distribution="log_uniform",
        min_object_size=0.06,
        max_object_size=0.25,
        max_distractors=8,
    ),
    "mixed": SceneConfig(name="mixed", objects="shapes", **_MIXED),
    "benchmark": SceneConfig(
        name="benchmark",
        rows="captions",
        objects="shapes",
        min_objects=2,
        max_objects=10,
        count_distribution="balanced",
    ),
    "plain": SceneConfig(name="plain", rows="captions", objects="shapes", **_PLAIN),
    "described": SceneConfig(name="described", objects="shapes", described_rate=1.0, **_MIXED),
}
"""The same of shapes. But for `"plain"` they are as the first version of `countscenes` had them, to the pixel."""

# How many scenes of each split the builder makes unless told otherwise. 540 = 60 for each of 2-10, as in CountBench.
DEFAULT_NUM_SCENES: dict[str, dict[str, int]] = {
    "captions": {"train": 2000, "validation": 200, "test": 540},
    "density": {"train": 2000, "validation": 200, "test": 540},
    "mixed": {"train": 2000, "validation": 200, "test": 540},
    "benchmark": {"validation": 180, "test": 540},
    "plain": {"train": 2000, "validation": 180, "test": 540},
    "described": {"train": 2000, "validation": 200, "test": 540},
}


def config_with_objects(config: str, objects: str | None = None) -> str:
    """
    Name a configuration so that figures of shapes are not taken for figures of drawings.

    Args:
        config (`str`): A key of `SCENE_CONFIGS`.
        objects (`str`, *optional*): What its scenes show; by default drawings.

    Returns:
        `str`: The configuration, of drawings: `"mixed"`. Of others with what they show: `"mixed-shapes"`.
    """
    return config if objects in (None, "drawings") else f"{config}-{objects}"


def _in_smaller_images(config: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """What else changes with the size of the images: in small ones there is no room for many things one can see."""
    usual, side = SCENE_CONFIGS[config], overrides.get("image_size")
    if config not in ("density", "mixed", "described") or not isinstance(side, int) or not 0 < side < usual.image_size:
        return {}
    shrunk = side / usual.image_size
    changed: dict[str, Any] = {
        "min_object_size": min(usual.min_object_size / shrunk, 0.16, overrides.get("max_object_size", 0.16))
    }
    if config == "density":
        changed["max_objects"] = max(10, overrides.get("min_objects", 1), round(usual.max_objects * shrunk**2))
    return changed


def scene_config(config: "str | SceneConfig" = "density", **overrides: Any) -> SceneConfig:
    """
    Look a scene configuration up and change some of its fields.

    Args:
        config (`str` or `SceneConfig`, *optional*, defaults to `"density"`):
            A key of `SCENE_CONFIGS`, or a configuration.
        overrides (`Any`, *optional*):
            Fields to change, for example `image_size=96`.

    Returns:
        `SceneConfig`: The configuration.

    Raises:
        TypeError: If there is no field of a given name.
        ValueError: If there is no configuration of that name, or a field's value does not do.
    """
    if isinstance(config, str):
        if config not in SCENE_CONFIGS:
            raise ValueError(
                f"Expected config to be one of {', '.join(SCENE_CONFIGS)} or a SceneConfig, but got {config!r}. "
                "Name one of these."
            )
        if overrides.get("cutouts"):
            overrides.setdefault("objects", "cutouts")
        if overrides.get("objects") == "shapes":
            config = SHAPE_CONFIGS[config]
        else:
            overrides = _in_smaller_images(config, overrides) | overrides
            config = SCENE_CONFIGS[config]
    fields = {field.name for field in dataclasses.fields(SceneConfig)}
    if unknown := sorted(set(overrides) - fields):
        raise TypeError(
            f"Expected fields of SceneConfig, but got {', '.join(unknown)}. Choose among: {', '.join(sorted(fields))}."
        )
    return dataclasses.replace(config, **overrides) if overrides else config
