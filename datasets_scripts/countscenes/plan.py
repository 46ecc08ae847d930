"""Plans of `countscenes`: the classes, counts and texts of a scene, before anything is drawn."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..captions.numbers import NUMBER_TO_WORD
from ..captions.plurals import plural_of
from .backgrounds import backgrounds_against
from .captions import caption_templates, made_up_name, spliced_name
from .config import SceneConfig
from .objects import COLOR_WORDS, ObjectClass, ObjectSource
from .sources import object_source


@dataclass(frozen=True)
class ScenePlan:
    """
    The classes, counts and texts of a scene.

    Args:
        classes (`tuple[ObjectClass, ...]`): The classes in the image, those that are counted first.
        counts (`tuple[int, ...]`): The number of objects of each.
        background (`str`): A key of `BACKGROUND_COLORS`.
        labels (`dict[str, Any]`): The columns that do not depend on positions.
        target (`ObjectClass`): The class that the row's text names; it may be absent from the image.
    """

    classes: tuple[ObjectClass, ...]
    counts: tuple[int, ...]
    background: str
    labels: dict[str, Any]
    target: ObjectClass


def scene_generator(stage: str, split: str, seed: int, index: int, version: str) -> np.random.RandomState:
    """
    Make the source of all choices of one stage of one scene; it is the same in every process and on every machine.

    Each stage, `"plan"` or `"picture"`, has its own stream. `version` is that of the source of the objects.
    """
    # RandomState, because NumPy guarantees its streams, which it does not for Generator's. SHA-256, because Python's
    # hash differs between processes.
    digest = hashlib.sha256(f"countscenes {version} {stage} {split} {seed} {index}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))


def choose(rng: np.random.RandomState, choices: Sequence[Any]) -> Any:
    """Choose one of several with equal probability."""
    return choices[int(rng.random_sample() * len(choices))]


def _choose_number(rng: np.random.RandomState, low: int, high: int, distribution: str, index: int = 0) -> int:
    if distribution == "balanced":
        return low + index % (high - low + 1)
    share = rng.random_sample()
    if distribution == "uniform":
        return low + int(share * (high - low + 1))
    # Log-uniform on [low, high + 1), so that the numbers at both ends have their share.
    return min(high, int(low * ((high + 1) / low) ** share))


class _Planner:
    """The choices of one scene, in the order in which they are drawn from its stream."""

    def __init__(self, config: SceneConfig, source: ObjectSource, split: str, rng: np.random.RandomState) -> None:
        self.config = config
        self.source = source
        self.split = split
        self.rng = rng

    def happens(self, probability: float) -> bool:
        """Draw an event. Impossible events draw nothing: scenes without them keep their streams."""
        return probability > 0 and bool(self.rng.random_sample() < probability)

    def new_class(self, present: Sequence[ObjectClass]) -> ObjectClass:
        """Choose a class that is not confusable with those present."""
        classes = self.source.classes(self.split)
        similar = bool(present) and self.rng.random_sample() < self.config.similar_distractor_probability
        model: ObjectClass | None = choose(self.rng, present) if similar else None
        by_color = self.rng.random_sample() < 0.5
        for _ in range(400):
            choice: ObjectClass = choose(self.rng, classes)
            if any(choice.is_confusable_with(one) for one in present):
                continue
            if model is None or (choice.color == model.color if by_color else choice.group == model.group):
                return choice
        remaining = [one for one in classes if not any(one.is_confusable_with(other) for other in present)]
        chosen: ObjectClass = choose(self.rng, remaining)
        return chosen

    def targets(self, classes: Sequence[ObjectClass], num_counted: int) -> list[ObjectClass]:
        """Choose the classes that the texts of one scene name: some in the image in any order, then absent ones."""
        num_texts = self.config.texts_per_scene
        order = np.argsort(self.rng.random_sample(num_counted), kind="stable")
        targets = [classes[place] for place in order[: min(num_counted, num_texts - 1)]]
        seen = list(classes)
        while len(targets) < num_texts:
            seen.append(self.new_class(seen))
            targets.append(seen[-1])
        return targets

    def made_up_name(self) -> str:
        """Make up a name in the singular."""
        if self.happens(self.config.spliced_name_rate):
            names = _names_to_splice(self.config, self.split)
            if names:
                return spliced_name(self.rng, names)
        return made_up_name(self.rng)

    def text(self, target: ObjectClass, classes: Sequence[ObjectClass], described: bool) -> str:
        """Choose the text of a row that counts a class."""
        if described:
            if _colors_identify(target, classes) and self.happens(self.config.made_up_name_rate):
                name = self.made_up_name()
                while not COLOR_WORDS.isdisjoint(name.split()):  # spliced names may begin with a colour
                    name = self.made_up_name()
                return f"{' and '.join(target.main_colors)} {plural_of(name)}"
            return target.described_plural
        if len(classes) == 1 and target in classes and self.happens(self.config.made_up_name_rate):
            return plural_of(self.made_up_name())
        return target.plural

    def caption(self, classes: Sequence[ObjectClass], counts: Sequence[int], background: str) -> dict[str, Any]:
        """Choose the columns of a caption set."""
        target, count = classes[0], counts[0]
        # Captions never state the numbers one, and eleven or more: the number words are those of two to ten.
        states_number = self.rng.random_sample() < self.config.number_rate and count in NUMBER_TO_WORD
        is_shape, has_color = self.config.objects == "shapes", self.config.backgrounds is None
        templates = caption_templates(is_shape, states_number, count > 1, len(classes) > 1, has_color)
        template = choose(self.rng, templates)
        name, one = target.plural, target.with_article
        if self.happens(self.config.made_up_name_rate):
            made_up = self.made_up_name()
            name, one = plural_of(made_up), f"{'an' if made_up[0] in 'aeiou' else 'a'} {made_up}"
        number, others = NUMBER_TO_WORD.get(count, ""), classes[-1].plural
        caption = template.format(number=number, name=name, one=one, background=background, others=others)
        if self.rng.random_sample() < 0.2:
            caption = caption[0].upper() + caption[1:]
        return {"text": caption, "number": count if states_number else 0, "name": target.plural}


def plan_scene(config: SceneConfig, split: str, seed: int, index: int) -> ScenePlan:
    """Choose the classes, counts and texts of row `index` of a set; the rows of one scene follow one another."""
    scene, text_index = divmod(index, config.texts_per_scene)
    source = object_source(config)
    rng = scene_generator("plan", split, seed, scene, source.version)
    planner = _Planner(config, source, split, rng)
    classes: list[ObjectClass] = []
    counts: list[int] = []
    num_counted = config.min_classes + int(rng.random_sample() * (config.max_classes - config.min_classes + 1))
    for _ in range(num_counted):
        classes.append(planner.new_class(classes))
        counts.append(
            _choose_number(rng, config.min_objects, config.max_objects, config.count_distribution, index=scene)
        )
    if rng.random_sample() < config.distractor_probability:
        for _ in range(1 + int(rng.random_sample() * config.max_distractor_classes)):
            classes.append(planner.new_class(classes))
            counts.append(_choose_number(rng, 1, config.max_distractors, "log_uniform"))
    background = choose(rng, backgrounds_against((one.rgb for one in classes), source.outlined))

    if config.rows == "captions":
        labels = planner.caption(classes, counts, background)
        return ScenePlan(tuple(classes), tuple(counts), background, labels, target=classes[0])
    if config.texts_per_scene == 1:
        target = choose(rng, classes[:num_counted])
        if rng.random_sample() < config.absent_probability:
            target = planner.new_class(classes)
    else:
        target = planner.targets(classes, num_counted)[text_index]
    described = planner.happens(config.described_rate)
    labels = {
        "text": planner.text(target, classes, described),
        "count": counts[classes.index(target)] if target in classes else 0,
    }
    if config.rows == "mixed":
        names = [one.described_plural if described else one.plural for one in classes]
        labels |= {"other_texts": names, "other_counts": counts}
    return ScenePlan(tuple(classes), tuple(counts), background, labels, target)


def _colors_identify(target: ObjectClass, classes: Sequence[ObjectClass]) -> bool:
    """Whether the target has main colours, and no other class in the scene has the same ones or none."""
    return bool(target.main_colors) and all(
        one.main_colors and {*one.main_colors} != {*target.main_colors} for one in classes if one != target
    )


@lru_cache(maxsize=16)
def _names_to_splice(config: SceneConfig, split: str) -> tuple[str, ...]:
    """The names of a split in the singular, without those of one letter: cut-outs may be called "A" and "B"."""
    return tuple(one.singular for one in object_source(config).classes(split) if len(one.singular) > 1)
