"""What a scene of `countscenes` shows and what its row says: kinds, counts and captions, before anything is drawn."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..captions.numbers import NUMBER_TO_WORD
from ..captions.plurals import plural_of
from .captions import caption_templates, made_up_name, spliced_name
from .config import SceneConfig
from .objects import COLOR_WORDS
from .sources import Kind, ObjectSource, object_source


@dataclass(frozen=True)
class ScenePlan:
    """
    What a scene shows and what its row says, before anything has a place.

    Args:
        kinds (`tuple[Kind, ...]`): The kinds in the image, those that are counted first.
        counts (`tuple[int, ...]`): How many there are of each.
        background (`str`): A key of `BACKGROUND_COLORS`.
        labels (`dict[str, Any]`): The columns that do not depend on where anything lies.
        asked (`Kind`): The kind that the row's text names; it may be absent from the image.
    """

    kinds: tuple[Kind, ...]
    counts: tuple[int, ...]
    background: str
    labels: dict[str, Any]
    asked: Kind


def scene_generator(stage: str, split: str, seed: int, index: int, version: str = "1.0.0") -> np.random.RandomState:
    """
    Make the source of all choices of one stage of one scene.

    Args:
        stage (`str`): What is chosen; each stage has a stream of its own, so none disturbs another.
        split (`str`): The scene's split.
        seed (`int`): The set's seed.
        index (`int`): The scene's place in the set.
        version (`str`, *optional*, defaults to `"1.0.0"`, that of shapes): The version of what the objects come from.

    Returns:
        `numpy.random.RandomState`: The same stream in every process and on every machine.
    """
    # RandomState, because NumPy promises its streams for ever, which it does not for Generator's. SHA-256, because
    # Python's own hash differs between processes.
    digest = hashlib.sha256(f"countscenes {version} {stage} {split} {seed} {index}".encode()).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))


def choose(rng: np.random.RandomState, choices: Sequence[Any]) -> Any:
    """
    Choose one of several, each as likely as the others.

    Args:
        rng (`numpy.random.RandomState`): Where the choice comes from.
        choices (`Sequence[Any]`): At least one.

    Returns:
        `Any`: One of them.
    """
    return choices[int(rng.random_sample() * len(choices))]


def _choose_number(rng: np.random.RandomState, low: int, high: int, distribution: str, index: int = 0) -> int:
    if distribution == "balanced":
        return low + index % (high - low + 1)
    share = rng.random_sample()
    if distribution == "uniform":
        return low + int(share * (high - low + 1))
    # Log-uniform on [low, high + 1), so that the numbers at both ends have their share.
    return min(high, int(low * ((high + 1) / low) ** share))


def _choose_kind(
    rng: np.random.RandomState, source: ObjectSource, split: str, present: Sequence[Kind], similar_probability: float
) -> Kind:
    """Choose a kind that no one could take for one of those present."""
    kinds = source.kinds(split)
    similar = bool(present) and rng.random_sample() < similar_probability
    model = choose(rng, present) if similar else None
    by_color = rng.random_sample() < 0.5
    for _ in range(400):
        choice = choose(rng, kinds)
        if any(choice.is_confusable_with(kind) for kind in present):
            continue
        if model is None or source.is_similar(choice, model, by_color):
            return choice
    remaining = [kind for kind in kinds if not any(kind.is_confusable_with(other) for other in present)]
    return choose(rng, remaining)


def plan_scene(config: SceneConfig, split: str, seed: int, index: int) -> ScenePlan:
    """
    Choose what one scene shows and what its row says.

    Args:
        config (`SceneConfig`): The configuration.
        split (`str`): The scene's split; only its kinds appear.
        seed (`int`): The set's seed.
        index (`int`): The row's place in the set; the rows of one scene follow one another.

    Returns:
        `ScenePlan`: The plan.
    """
    scene, question = divmod(index, config.texts_per_scene)
    source = object_source(config)
    rng = scene_generator("plan", split, seed, scene, source.version)
    kinds: list[Kind] = []
    counts: list[int] = []
    num_counted = config.min_kinds + int(rng.random_sample() * (config.max_kinds - config.min_kinds + 1))
    for _ in range(num_counted):
        kinds.append(_choose_kind(rng, source, split, kinds, config.similar_distractor_probability))
        counts.append(
            _choose_number(rng, config.min_objects, config.max_objects, config.count_distribution, index=scene)
        )
    if rng.random_sample() < config.distractor_probability:
        for _ in range(1 + int(rng.random_sample() * config.max_distractor_kinds)):
            kinds.append(_choose_kind(rng, source, split, kinds, config.similar_distractor_probability))
            counts.append(_choose_number(rng, 1, config.max_distractors, "log_uniform"))
    background = choose(rng, source.backgrounds(kinds))

    if config.rows == "captions":
        labels = _caption_labels(rng, config, split, kinds, counts, background)
        return ScenePlan(tuple(kinds), tuple(counts), background, labels, asked=kinds[0])
    if config.texts_per_scene == 1:
        asked = choose(rng, kinds[:num_counted])
        if rng.random_sample() < config.absent_probability:
            asked = _choose_kind(rng, source, split, kinds, config.similar_distractor_probability)
    else:
        asked = _choose_asked(rng, source, config, split, kinds, num_counted)[question]
    # Asked only where it can be true: other scenes keep their streams.
    described = config.described_rate > 0 and bool(rng.random_sample() < config.described_rate)
    names = [kind.described_plural if described else kind.plural for kind in (asked, *kinds)]
    labels = {"text": names[0], "count": counts[kinds.index(asked)] if asked in kinds else 0}
    if described:
        if _colors_tell(asked, kinds) and _takes_made_up_name(rng, config):
            labels["text"] = (
                f"{' and '.join(asked.main_colors)} {plural_of(_make_colorless_name_up(rng, config, split))}"
            )
    elif len(kinds) == 1 and asked in kinds and _takes_made_up_name(rng, config):
        labels["text"] = plural_of(_make_name_up(rng, config, split))
    if config.rows == "mixed":
        labels |= {"other_texts": names[1:], "other_counts": counts}
    return ScenePlan(tuple(kinds), tuple(counts), background, labels, asked)


def _colors_tell(asked: Kind, kinds: Sequence[Kind]) -> bool:
    """Whether what is asked for has main colours, and nothing else in the scene the same or none."""
    return bool(asked.main_colors) and all(
        kind.main_colors and {*kind.main_colors} != {*asked.main_colors} for kind in kinds if kind != asked
    )


def _choose_asked(
    rng: np.random.RandomState,
    source: ObjectSource,
    config: SceneConfig,
    split: str,
    kinds: Sequence[Kind],
    num_counted: int,
) -> list[Kind]:
    """Choose what the texts of one scene name: kinds that are there in any order, then kinds that are not."""
    num_present = min(num_counted, config.texts_per_scene - 1)
    asked = [kinds[place] for place in np.argsort(rng.random_sample(num_counted), kind="stable")[:num_present]]
    seen = list(kinds)
    while len(asked) < config.texts_per_scene:
        seen.append(_choose_kind(rng, source, split, seen, config.similar_distractor_probability))
        asked.append(seen[-1])
    return asked


def _takes_made_up_name(rng: np.random.RandomState, config: SceneConfig) -> bool:
    # Asked only where it can be true: other scenes keep their streams.
    return config.made_up_name_rate > 0 and bool(rng.random_sample() < config.made_up_name_rate)


def _make_name_up(rng: np.random.RandomState, config: SceneConfig, split: str) -> str:
    if config.spliced_name_rate > 0 and rng.random_sample() < config.spliced_name_rate:
        names = _names_to_splice(config, split)
        if names:
            return spliced_name(rng, names)
    return made_up_name(rng)


def _make_colorless_name_up(rng: np.random.RandomState, config: SceneConfig, split: str) -> str:
    """Make up a name that no colour can contradict: spliced ones may begin with one."""
    while True:
        name = _make_name_up(rng, config, split)
        if COLOR_WORDS.isdisjoint(name.split()):
            return name


@lru_cache(maxsize=16)
def _names_to_splice(config: SceneConfig, split: str) -> tuple[str, ...]:
    """What one object of each kind of a split is called, without its article. Cut-outs may be called "A" and "B"."""
    names = (kind.with_article.split(maxsplit=1)[1] for kind in object_source(config).kinds(split))
    return tuple(name for name in names if len(name) > 1)


def _caption_labels(
    rng: np.random.RandomState,
    config: SceneConfig,
    split: str,
    kinds: Sequence[Kind],
    counts: Sequence[int],
    background: str,
) -> dict[str, Any]:
    kind, count = kinds[0], counts[0]
    # Of one object, or of more than ten, captions do not state the number: the words are those of two to ten.
    states_number = rng.random_sample() < config.number_rate and count in NUMBER_TO_WORD
    templates = caption_templates(config, states_number, count, has_others=len(kinds) > 1)
    template = choose(rng, templates)
    name, one = kind.plural, kind.with_article
    if _takes_made_up_name(rng, config):
        made_up = _make_name_up(rng, config, split)
        name, one = plural_of(made_up), f"{'an' if made_up[0] in 'aeiou' else 'a'} {made_up}"
    caption = template.format(
        number=NUMBER_TO_WORD.get(count, ""),
        name=name,
        one=one,
        background=background,
        others=kinds[-1].plural,
    )
    if rng.random_sample() < 0.2:
        caption = caption[0].upper() + caption[1:]
    return {"text": caption, "number": count if states_number else 0, "name": kind.plural}
