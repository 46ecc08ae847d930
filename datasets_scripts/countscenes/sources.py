"""The sources of the objects of `countscenes`: generated shapes, drawings by OpenMoji, or cut-outs of your own."""

from collections.abc import Iterable
from functools import cache

from .config import SceneConfig
from .cutouts import cutouts_of
from .drawings import Drawings, drawing_classes
from .objects import ObjectClass, ObjectSource
from .photos import photographs_of
from .shapes import Shapes, shape_classes


_SOURCES: dict[str, ObjectSource] = {"shapes": Shapes(), "drawings": Drawings()}


def object_source(config: SceneConfig) -> ObjectSource:
    """Return the source of a configuration's objects."""
    return cutouts_of(str(config.cutouts)) if config.objects == "cutouts" else _SOURCES[config.objects]


def check_sources(config: SceneConfig, split: str) -> None:
    """
    Check, before anything is drawn, that a configuration can be drawn.

    Raises:
        FileNotFoundError: If a folder, or a file in it, is missing.
        ImportError: If a package that draws the objects is not installed.
        ValueError: If a folder has no usable file, or too few classes for the configuration.
    """
    source = object_source(config)
    source.check()
    most = config.max_classes + (config.max_distractor_classes if config.distractor_probability > 0 else 0)
    most += config.texts_per_scene if config.rows != "captions" else 0
    classes = source.classes(split)
    if config.objects == "cutouts" and len(classes) < most:
        raise ValueError(
            f"Expected {most} classes or more for the split {split!r} of the scene configuration {config.name!r}, but "
            f"{config.cutouts} has {len(classes)}. Add classes, or lower max_classes, max_distractor_classes "
            "(or distractor_probability=0) or texts_per_scene."
        )
    if config.backgrounds is not None:
        photographs_of(config.backgrounds)


@cache
def _classes_by_name() -> dict[str, tuple[str, ObjectClass]]:
    """The classes of shapes and drawings, with the name of their source, by their plurals."""
    found: dict[str, tuple[str, ObjectClass]] = {one.plural: ("shapes", one) for one in shape_classes()}
    for one in drawing_classes():
        found[one.plural] = found[one.described_plural] = ("drawings", one)
    return found


def absent_classes(present: Iterable[str]) -> list[str]:
    """
    Name the classes of a split that are neither in an image nor confusable with those in it.

    Args:
        present (`Iterable[str]`): The names, in the plural, of all classes in the image; one or more, of one split.
            They may state colours, as those of the configuration `"described"` do: `"gray mice"`.

    Returns:
        `list[str]`: Names in the plural, in the order of the source's classes. If one of `present` states a colour
            that is not part of the plain name, all state their colours.

    Raises:
        ValueError: If a name is unknown, or the names are of several splits or none.
    """
    names = list(present)
    if unknown := [name for name in names if name not in _classes_by_name()]:
        raise ValueError(
            f"Expected names of classes in the plural, such as {drawing_classes()[0].plural!r}, but got "
            f"{unknown[0]!r}. Absent classes are defined for shapes and drawings of countscenes only."
        )
    found = [_classes_by_name()[name] for name in names]
    splits = sorted({(one.split, source) for source, one in found})
    if len(splits) != 1:
        raise ValueError(
            f"Expected classes of one split, but got {', '.join(map(repr, names)) or 'none'} of "
            f"{', '.join(dict.fromkeys(split for split, _ in splits)) or 'no split'}. Name the classes of one image."
        )
    ((split, source),) = splits
    described = any(name != one.plural for name, (_, one) in zip(names, found, strict=True))
    return [
        one.described_plural if described else one.plural
        for one in _SOURCES[source].classes(split)
        if not any(one.is_confusable_with(other) for _, other in found)
    ]
