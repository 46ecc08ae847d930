"""Where the objects of `countscenes` come from: generated shapes, OpenMoji's drawings, or cut-outs of your own."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Protocol

from .backgrounds import backgrounds_behind
from .config import SceneConfig
from .cutouts import cutouts_of
from .drawings import DRAWING_KINDS, Drawings, drawing_kinds_of_split
from .objects import OBJECT_KINDS, ObjectKind, ObjectPatch, kinds_of_split, make_patch
from .photos import photographs_of


class Kind(Protocol):
    """What a kind of object knows of itself."""

    @property
    def plural(self) -> str:
        """What several are called."""

    @property
    def described_plural(self) -> str:
        """What several are called if their colours are said too."""

    @property
    def main_colors(self) -> tuple[str, ...]:
        """The one or two colours that one would name, or none."""

    @property
    def with_article(self) -> str:
        """What one is called, with its article."""

    def is_confusable_with(self, other: Any) -> bool:
        """Whether one could be taken for the other."""


class ObjectSource(Protocol):
    """
    Gives the kinds of each split and draws objects of them.

    Attributes:
        version (`str`): Part of every scene's seed: another one gives other images for the same index.
        has_looks (`bool`): Whether objects of one kind differ by more than size, turn and brightness.
    """

    version: str
    has_looks: bool

    def check(self) -> None:
        """Raise an error that says what is missing, if the objects cannot be drawn here."""

    def kinds(self, split: str) -> Sequence[Any]:
        """The kinds of a split; none is in two of them."""

    def is_similar(self, kind: Any, model: Any, by_color: bool) -> bool:
        """Whether a kind has something in common with another: its colour, or else its shape or its sort."""

    def backgrounds(self, kinds: Sequence[Any]) -> tuple[str, ...]:
        """Keys of `BACKGROUND_COLORS` on which these kinds stand out."""

    def stretch(self, kind: Any) -> float:
        """How much larger than others of the same size the circle around one has to be, 1 or more."""

    def patch(self, kind: Any, size: float, degrees: float, tone: int, look: int) -> ObjectPatch:
        """One object, ready to be pasted; `look` is any whole number, and says which of its looks it has."""


class Shapes:
    """The generated kinds: colour, pattern and shape."""

    version = "1.0.0"
    has_looks = False

    def check(self) -> None:
        """They can be drawn anywhere."""

    def kinds(self, split: str) -> Sequence[ObjectKind]:
        """The kinds of a split."""
        return kinds_of_split(split)

    def is_similar(self, kind: ObjectKind, model: ObjectKind, by_color: bool) -> bool:
        """Whether a kind has the colour of another, or else its shape."""
        return kind.color == model.color if by_color else kind.shape == model.shape

    def backgrounds(self, kinds: Sequence[ObjectKind]) -> tuple[str, ...]:
        """The backgrounds on which some kinds stand out."""
        return backgrounds_behind(kind.color for kind in kinds)

    def stretch(self, kind: ObjectKind) -> float:
        """All are as large as their circles."""
        return 1.0

    def patch(self, kind: ObjectKind, size: float, degrees: float, tone: int, look: int) -> ObjectPatch:
        """One object; they have one look."""
        return make_patch(kind, size, degrees, tone)


_SHAPES = Shapes()
_DRAWINGS = Drawings()


def object_source(config: SceneConfig) -> ObjectSource:
    """
    Find where the objects of a configuration come from.

    Args:
        config (`SceneConfig`): The configuration.

    Returns:
        `ObjectSource`: The source.
    """
    if config.objects == "cutouts":
        return cutouts_of(str(config.cutouts))
    return _SHAPES if config.objects == "shapes" else _DRAWINGS


def check_sources(config: SceneConfig, split: str) -> None:
    """
    See that all that a configuration draws from is there, before anything is drawn.

    Args:
        config (`SceneConfig`): The configuration.
        split (`str`): The scenes' split.

    Raises:
        FileNotFoundError: If a folder, or something in it, is missing.
        ImportError: If what the drawings need is not installed.
        ValueError: If a folder has nothing in it that can be used, or too few kinds for the configuration.
    """
    source = object_source(config)
    source.check()
    most = config.max_kinds + (config.max_distractor_kinds if config.distractor_probability > 0 else 0)
    most += config.texts_per_scene if config.rows != "captions" else 0
    families = source.kinds(split)
    if config.objects == "cutouts" and len(families) < most:
        raise ValueError(
            f"Expected {most} kinds or more for the split {split!r} of the scene configuration {config.name!r}, but "
            f"{config.cutouts} has {len(families)} there. Add classes, or lower max_kinds, max_distractor_kinds "
            "(or distractor_probability=0) or texts_per_scene."
        )
    if config.backgrounds is not None:
        photographs_of(config.backgrounds)


@cache
def _kinds_by_name() -> dict[str, tuple[Any, Callable[[str], Sequence[Any]]]]:
    """The generated and the drawn kinds by what several are called, each with what lists those of a split."""
    found: dict[str, tuple[Any, Callable[[str], Sequence[Any]]]] = {
        kind.plural: (kind, kinds_of_split) for kind in OBJECT_KINDS
    }
    for kind in DRAWING_KINDS:
        found[kind.plural] = found[kind.described_plural] = (kind, drawing_kinds_of_split)
    return found


def absent_kinds(present: Iterable[str]) -> list[str]:
    """
    Name the kinds of a split that are not in an image, and that nobody could take for one that is.

    Args:
        present (`Iterable[str]`): The names, in the plural, of all kinds in the image; one or more, of one split.
            They may say colours, as those of the configuration `"described"` do: `"gray mice"`.

    Returns:
        `list[str]`: Names in the plural, in the order of [`kinds_of_split`] or [`drawing_kinds_of_split`]; if one of
        those given is not what the kind is called without its colour, all say their colours.

    Raises:
        ValueError: If a name is that of no kind, or the names are of several splits or none.
    """
    names = list(present)
    if unknown := [name for name in names if name not in _kinds_by_name()]:
        raise ValueError(
            f"Expected names of kinds in the plural, such as {DRAWING_KINDS[0].plural!r}, but got {unknown[0]!r}. "
            "Only shapes and drawings of countscenes have others that are known to be absent."
        )
    there = [_kinds_by_name()[name] for name in names]
    splits = sorted({(kind.split, of_split.__name__) for kind, of_split in there})
    if len(splits) != 1:
        raise ValueError(
            f"Expected kinds of one split, but got {', '.join(map(repr, names)) or 'none'} of "
            f"{', '.join(dict.fromkeys(split for split, _ in splits)) or 'no split'}. Name what is in one image."
        )
    (first, of_split), *_ = there
    described = any(name != kind.plural for name, (kind, _) in zip(names, there, strict=True))
    return [
        kind.described_plural if described else kind.plural
        for kind in of_split(first.split)
        if not any(kind.is_confusable_with(other) for other, _ in there)
    ]
