"""The options of `countscenes`, and the named configurations."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .backgrounds import BACKGROUND_STYLES


# Part of the builder's cache: raise it when (split, seed, index) gives other pixels. Each source of objects has a
# version of its own, which is part of every scene's seed.
VERSION = "2.0.0"

OBJECTS = ("drawings", "shapes", "cutouts")
LAYOUTS = ("scattered", "clustered", "rows", "piles", "perspective")
PLAIN_LAYOUTS = LAYOUTS[:3]
ROW_FORMATS = ("captions", "density", "mixed")
COUNT_DISTRIBUTIONS = ("uniform", "log_uniform", "balanced")

# The range of each field: whole numbers, or numbers. A field's name stands for its value.
_RANGES: dict[str, tuple[int | float | str, int | float]] = {
    "image_size": (32, 2048),
    "min_objects": (1, 2000),
    "max_objects": ("min_objects", 2000),
    "min_classes": (1, 8),
    "max_classes": ("min_classes", 8),
    "max_distractor_classes": (1, 8),
    "max_distractors": (1, 2000),
    "texts_per_scene": (1, 16),
    "min_object_size": (0.01, 0.9),
    "max_object_size": ("min_object_size", 0.9),
    "size_variation": (0.0, 0.6),
    "max_fill": (0.02, 0.7),
    "max_hidden": (0.0, 0.45),
    "max_rotation": (0.0, 180.0),
}


@dataclass(frozen=True)
class SceneConfig:
    """
    The options of a set of scenes. Shares (`_probability`, `_rate`) are 0-1.

    Args:
        name (`str`): Name of the configuration; part of every `image_id`.
        rows (`str`): `"captions"`: image, image_id, text (a caption), number (0 if the caption states none), name.
            `"density"`: image, image_id, text (what to count), count, points, boxes. `"mixed"`: the columns of
            `"density"`, and other_texts and other_counts (all classes in the image, including the one that is
            counted).
        objects (`str`, *optional*, defaults to `"drawings"`): `"drawings"`: several hundred classes, drawn by
            OpenMoji; they need `count-clip[scenes]`. `"shapes"`: several hundred classes of coloured and patterned
            shapes, which need nothing. `"cutouts"`: the images in the folder that `cutouts` names.
        cutouts (`str`, *optional*): A folder of cut-outs, see `cutouts.py`. Implies `objects="cutouts"`.
        backgrounds (`str`, *optional*): A folder of photographs for the backgrounds; by default these are drawn.
        image_size (`int`, *optional*, defaults to 224): Side of the images in pixels, 32-2048.
        min_objects (`int`, *optional*, defaults to 1): Fewest objects of a counted class.
        max_objects (`int`, *optional*, defaults to 10): Most objects of a counted class.
        count_distribution (`str`, *optional*, defaults to `"uniform"`): `"uniform"` or `"log_uniform"` between the
            two, or `"balanced"`: scene `i` has `min_objects + i % n` objects for the `n` numbers from one to the
            other.
        min_classes (`int`, *optional*, defaults to 1): Fewest counted classes in one scene.
        max_classes (`int`, *optional*, defaults to 1): Most counted classes in one scene.
        min_object_size (`float`, *optional*, defaults to 0.125): Diameter of the smallest objects, as a share of the
            image's side. Objects that would not fit are made smaller, if need be below this.
        max_object_size (`float`, *optional*, defaults to 0.3): Diameter of the largest objects, as such a share.
        size_variation (`float`, *optional*, defaults to 0.25): Difference of the sizes in a scene, as a share of their
            mean.
        max_fill (`float`, *optional*, defaults to 0.5): Most of the image that the squares around all objects may
            cover.
        max_hidden (`float`, *optional*, defaults to 0.3): Most of an object's pixels that later ones may hide, below
            0.5. The point that marks it is never hidden.
        max_rotation (`float`, *optional*, defaults to 180.0): Limit of the objects' rotation either way, in degrees.
            Half of the scenes keep to a ninth of that.
        distractor_probability (`float`, *optional*, defaults to 0.4): Share of the scenes with classes that are not
            counted.
        max_distractor_classes (`int`, *optional*, defaults to 2): Most of such classes in one scene.
        max_distractors (`int`, *optional*, defaults to 4): Most objects of one such class.
        similar_distractor_probability (`float`, *optional*, defaults to 0.5): Share of the other classes that are
            chosen to have the colour or the shape of a counted one.
        absent_probability (`float`, *optional*, defaults to 0.0): Share of the rows whose text names a class that is
            not in the image, with count 0 (not for captions).
        texts_per_scene (`int`, *optional*, defaults to 1): Texts of each scene, a row for each (not for captions).
            With two or more, `absent_probability` is ignored: all but the last text name counted classes of the image,
            as far as there are so many, and the others absent classes.
        number_rate (`float`, *optional*, defaults to 1.0): Share of the captions that state the number; small on the
            web.
        made_up_name_rate (`float`, *optional*, defaults to 0.0): Share of the captions that call the objects by a
            made-up name, "five drimbles", while `name` keeps the real one: a small text encoder then does not tie the
            numbers to the few names seen in training. Of the other rows, the share of those about the only class in
            its image.
        spliced_name_rate (`float`, *optional*, defaults to 0.0): Share of the made-up names that are spliced from the
            beginning of one class's name and the end of another's, "girel" of "giraffe" and "barrel". To a tokenizer
            trained on these names they look like unseen words.
        described_rate (`float`, *optional*, defaults to 0.0): Share of the scenes whose texts state the objects'
            colours, "gray mice" or "brown and white cows", unless the name states one (not for captions). In a share
            of such scenes, `made_up_name_rate`, the text is a made-up name with colours, "gray drimbles", if nothing
            else in the image has these main colours, or none.
        background_styles (`Sequence[str]`, *optional*, defaults to all): The `BACKGROUND_STYLES` to choose from.
        layouts (`Sequence[str]`, *optional*, defaults to `PLAIN_LAYOUTS`): The `LAYOUTS` to choose from: objects
            anywhere; close to each other; in rows; in piles, where up to half as much again as `max_hidden` may be
            hidden; on a plane in perspective, where those nearer the top are smaller.
        grain_probability (`float`, *optional*, defaults to 0.5): Share of the images with a camera's noise.
        shadow_probability (`float`, *optional*, defaults to 0.5): Share of the images whose objects cast a shadow.
        blur_probability (`float`, *optional*, defaults to 0.0): Share of the images that are a little out of focus.
        jpeg_probability (`float`, *optional*, defaults to 0.0): Share of the images with artefacts of a JPEG file of a
            quality of 40-95.

    Raises:
        TypeError: If a number is not a number, or a whole number is not whole.
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
    min_classes: int = 1
    max_classes: int = 1
    min_object_size: float = 0.125
    max_object_size: float = 0.3
    size_variation: float = 0.25
    max_fill: float = 0.5
    max_hidden: float = 0.3
    max_rotation: float = 180.0
    distractor_probability: float = 0.4
    max_distractor_classes: int = 2
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
        # YAML gives lists, which cannot be hashed.
        for field in ("background_styles", "layouts"):
            if isinstance(getattr(self, field), str):
                raise TypeError(
                    f"Expected {field} to be a list of names, but got the single name {getattr(self, field)!r}. "
                    "Put it into a list."
                )
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"Expected name to be a name that is not empty, but got {self.name!r}. Choose one.")
        for field in ("cutouts", "backgrounds"):
            if not isinstance(getattr(self, field), (str, type(None))):
                raise TypeError(
                    f"Expected {field} to be the path of a folder as a string, but got {getattr(self, field)!r}."
                )
        choices: dict[str, tuple[str, ...]] = {
            "rows": ROW_FORMATS,
            "objects": OBJECTS,
            "count_distribution": COUNT_DISTRIBUTIONS,
        }
        for field, values in choices.items():
            if getattr(self, field) not in values:
                raise ValueError(
                    f"Expected {field} to be one of {', '.join(values)}, but got {getattr(self, field)!r}. "
                    "Choose one of these."
                )
        if (self.objects == "cutouts") != bool(self.cutouts):
            raise ValueError(
                f"Expected a folder in cutouts for objects='cutouts' and for nothing else, but got "
                f"objects={self.objects!r} and cutouts={self.cutouts!r}. Name the folder, or leave both out."
            )
        for field, values in {"background_styles": BACKGROUND_STYLES, "layouts": LAYOUTS}.items():
            chosen = getattr(self, field)
            if not chosen or not set(chosen) <= set(values):
                raise ValueError(
                    f"Expected {field} to be one or more of {', '.join(values)}, but got {list(chosen)}. "
                    "Choose among these."
                )
        shares = [name.name for name in dataclasses.fields(self) if name.name.endswith(("_probability", "_rate"))]
        for field, (low, high) in (_RANGES | dict.fromkeys(shares, (0.0, 1.0))).items():
            self._check_range(field, getattr(self, low) if isinstance(low, str) else low, high)
        self._check_together()

    def _check_range(self, field: str, low: float, high: float) -> None:
        value = getattr(self, field)
        is_whole = isinstance(high, int)
        if not isinstance(value, int if is_whole else (int, float)) or isinstance(value, bool):
            raise TypeError(
                f"Expected {field} to be a {'whole ' if is_whole else ''}number, but got {value!r} "
                f"({type(value).__name__}). Give one in {low}-{high}."
            )
        if not low <= value <= high:
            raise ValueError(
                f"Expected {field} to be in {low}-{high}, but got {value} in the scene configuration {self.name!r}. "
                "Choose a value in that range."
            )

    def _check_together(self) -> None:
        if self.rows == "captions":
            for field, none, why in (
                ("max_classes", 1, "a caption names one counted class. Use rows='mixed', or distractors"),
                ("absent_probability", 0, "a caption names a class of its image. Use rows='density' or rows='mixed'"),
                ("texts_per_scene", 1, "an image has one caption. Use rows='density' or rows='mixed'"),
            ):
                if getattr(self, field) > none:
                    raise ValueError(
                        f"Expected {field}={none} for rows='captions', but got {getattr(self, field)}: {why}."
                    )
        if self.described_rate > 0 and (self.rows == "captions" or self.objects == "cutouts"):
            raise ValueError(
                f"Expected described_rate=0 for captions and for cut-outs, but got {self.described_rate} for "
                f"rows={self.rows!r} and objects={self.objects!r}: only shapes and drawings have named colours. Use "
                "these, with rows='density' or rows='mixed' (and the configuration mixed for cut-outs)."
            )
        if self.count_distribution == "balanced" and self.max_classes > 1:
            raise ValueError(
                "Expected max_classes=1 for count_distribution='balanced', where the scene's index gives the number, "
                f"but got {self.max_classes}. Use 'uniform'."
            )
        most = self.max_classes * self.max_objects
        if self.distractor_probability > 0:
            most += self.max_distractor_classes * self.max_distractors
        # Objects below 3.5 pixels cannot be recognised.
        smallest = min(self.min_object_size, math.sqrt(self.max_fill / most))
        if smallest * self.image_size < 3.5:
            raise ValueError(
                f"Expected space for objects of 3.5 pixels or more, but up to {most} objects in an image of "
                f"{self.image_size} pixels a side come down to {smallest * self.image_size:.1f}. Raise image_size "
                "(or max_fill, or min_object_size), or lower max_objects or max_distractors."
            )


_BALANCED: dict[str, Any] = {"rows": "captions", "min_objects": 2, "count_distribution": "balanced"}
# A few objects of each of two or three classes.
_MIXED: dict[str, Any] = {
    "rows": "mixed",
    "max_objects": 16,
    "count_distribution": "log_uniform",
    "min_classes": 2,
    "max_classes": 3,
    "min_object_size": 0.08,
    "max_object_size": 0.25,
    "distractor_probability": 0.0,
    "absent_probability": 0.15,
}
_CONFIGS: dict[str, dict[str, Any]] = {
    "captions": {"rows": "captions", "min_objects": 2, "number_rate": 0.5},
    "density": {
        "rows": "density",
        "max_objects": 60,
        "count_distribution": "log_uniform",
        "min_object_size": 0.06,
        "max_object_size": 0.25,
        "max_distractors": 8,
    },
    "mixed": _MIXED,
    "benchmark": _BALANCED,
    # Small images in which nothing hides or resembles the counted objects.
    "plain": {
        **_BALANCED,
        "image_size": 96,
        "max_object_size": 0.25,
        "size_variation": 0.1,
        "max_hidden": 0.0,
        "distractor_probability": 0.0,
        "background_styles": ("solid", "gradient"),
        "grain_probability": 0.0,
        "shadow_probability": 0.0,
    },
    "described": {**_MIXED, "described_rate": 1.0},
}
SHAPE_CONFIGS = {name: SceneConfig(name=name, objects="shapes", **fields) for name, fields in _CONFIGS.items()}
"""The configurations of `SCENE_CONFIGS` with shapes as objects."""

# Drawings are upright, or nearly so.
_UPRIGHT: dict[str, Any] = {"max_rotation": 45.0}
_DRAWN: dict[str, Any] = {**_UPRIGHT, "layouts": LAYOUTS, "blur_probability": 0.2, "jpeg_probability": 0.3}
_DRAWN_CONFIGS: dict[str, dict[str, Any]] = {
    "density": {**_DRAWN, "image_size": 384, "max_objects": 300, "min_object_size": 0.04},
    "plain": _UPRIGHT,
}
SCENE_CONFIGS = {
    name: SceneConfig(name=name, **{**fields, **_DRAWN_CONFIGS.get(name, _DRAWN)}) for name, fields in _CONFIGS.items()
}
"""The named configurations: `"density"`, `"mixed"` and `"described"` for density models, the others for
`CLIPForCounting`.

`"benchmark"` has CountBench's protocol: scene `i` has `2 + i % 9` objects, so any multiple of nine scenes has the same
number of scenes for each count, and every caption states it. `"plain"` is the same in images of 96 pixels a side that
show only these objects, whole, on a smooth background: what a CLIP of a few million parameters learns first.
`"described"` has the scenes of `"mixed"` with texts that state the objects' colours: "gray mice". `"density"` has up
to 300 objects in its images of 384 pixels a side; [`scene_config`] lowers that in smaller images, and keeps the size
of the objects in pixels in smaller images of `"density"`, `"mixed"` and `"described"`, unless overridden."""

# Default number of scenes of each split. 540 = 60 for each of 2-10, as in CountBench.
DEFAULT_NUM_SCENES: dict[str, dict[str, int]] = {
    name: {"train": 2000, "validation": 180 if name in ("benchmark", "plain") else 200, "test": 540}
    for name in SCENE_CONFIGS
}
del DEFAULT_NUM_SCENES["benchmark"]["train"]


def config_with_objects(config: str, objects: str | None = None) -> str:
    """Name a configuration with its objects, unless they are drawings: `"mixed"`, `"mixed-shapes"`."""
    return config if objects in (None, "drawings") else f"{config}-{objects}"


def _in_smaller_images(config: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """The fields that change with the size of the images: small ones have no space for many visible objects."""
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
    Return a scene configuration by its key in `SCENE_CONFIGS`, or a given one, with some fields changed:
    `image_size=96`.

    Raises:
        TypeError: If there is no field of a given name.
        ValueError: If there is no configuration of that name, or a field's value is wrong.
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
