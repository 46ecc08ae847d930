"""What captions of `countscenes` say: templates with and without a number, for one kind of thing or several."""

from collections.abc import Sequence

import numpy as np

from ..captions.numbers import WORD_TO_NUMBER
from .config import SceneConfig


# Those of the first version, for scenes of shapes.
SHAPE_NUMBER_CAPTIONS = (
    "{number} {name}",
    "a photo of {number} {name}",
    "a picture of {number} {name}",
    "an image of {number} {name}",
    "a drawing of {number} {name}",
    "a card with {number} {name}",
    "there are {number} {name}",
    "{number} {name} on a table",
    "{number} {name} and nothing else",
    "a set of {number} {name}",
    "{number} {name} on a {background} background",
    "a photo of {number} {name} on {background} paper",
)
# For scenes with objects of other kinds; the one without others would be untrue there.
SHAPE_NUMBER_CAPTIONS_WITH_OTHERS = (
    *(template for template in SHAPE_NUMBER_CAPTIONS if "nothing else" not in template),
    "{number} {name} and some {others}",
    "{number} {name} among {others}",
    "some {others} and {number} {name}",
)
SHAPE_PLURAL_CAPTIONS = (
    "{name}",
    "some {name}",
    "a photo of {name}",
    "a picture of some {name}",
    "an image of {name}",
    "several {name} on a table",
    "a drawing of {name}",
    "a card with {name}",
    "there are {name}",
    "{name} on a {background} background",
    "a photo of {name} on {background} paper",
)
SHAPE_PLURAL_CAPTIONS_WITH_OTHERS = (
    *SHAPE_PLURAL_CAPTIONS,
    "{name} and some {others}",
    "{name} among {others}",
    "some {others} and {name}",
)
SHAPE_SINGULAR_CAPTIONS = (
    "{one}",
    "a photo of {one}",
    "a picture of {one}",
    "{one} on a {background} background",
)

NUMBER_CAPTIONS = (
    "{number} {name}",
    "a photo of {number} {name}",
    "a picture of {number} {name}",
    "an image of {number} {name}",
    "a drawing of {number} {name}",
    "an illustration of {number} {name}",
    "a close-up of {number} {name}",
    "a sheet with {number} {name}",
    "a card with {number} {name}",
    "a poster of {number} {name}",
    "a set of {number} {name}",
    "a group of {number} {name}",
    "a collection of {number} {name}",
    "a scene with {number} {name}",
    "stickers of {number} {name}",
    "clip art of {number} {name}",
    "there are {number} {name}",
    "there are {number} {name} here",
    "there are {number} {name} in the picture",
    "here are {number} {name}",
    "we see {number} {name}",
    "I counted {number} {name}",
    "look at these {number} {name}",
    "these are {number} {name}",
    "all {number} {name}",
    "the {number} {name}",
    "my {number} {name}",
    "{number} different {name}",
    "{number} little {name}",
    "{number} {name} together",
    "{number} {name} in a picture",
    "{number} {name} side by side",
    "{number} {name} for sale",
    "{number} {name} for children to count",
    "{number} {name} that look alike",
)
NUMBER_CAPTIONS_ON_COLOR = (
    "{number} {name} on a {background} background",
    "a photo of {number} {name} on {background} paper",
    "{number} {name} in front of a {background} wall",
    "an illustration of {number} {name} on {background}",
)
# What would be untrue of a scene with objects of other kinds, and what is said only of one.
NUMBER_CAPTIONS_ALONE = ("{number} {name} and nothing else", "only {number} {name}", "just {number} {name}")
NUMBER_CAPTIONS_WITH_OTHERS = (
    "{number} {name} and some {others}",
    "{number} {name} among {others}",
    "some {others} and {number} {name}",
    "{number} {name} with {others}",
    "a picture of {number} {name} and {others}",
)
PLURAL_CAPTIONS = (
    "{name}",
    "some {name}",
    "several {name}",
    "a photo of {name}",
    "a picture of some {name}",
    "an image of {name}",
    "a drawing of {name}",
    "an illustration of {name}",
    "a close-up of {name}",
    "a sheet with {name}",
    "a card with {name}",
    "a poster of {name}",
    "a set of {name}",
    "a group of {name}",
    "a collection of {name}",
    "a scene with several {name}",
    "stickers of {name}",
    "clip art of {name}",
    "there are {name}",
    "there are some {name} here",
    "here are some {name}",
    "we see {name}",
    "look at these {name}",
    "these are {name}",
    "the {name}",
    "my {name}",
    "our favourite {name}",
    "different {name}",
    "little {name}",
    "{name} together",
    "{name} side by side",
    "{name} for sale",
    "how many {name} are there?",
)
PLURAL_CAPTIONS_ON_COLOR = (
    "{name} on a {background} background",
    "a photo of {name} on {background} paper",
    "{name} in front of a {background} wall",
    "an illustration of {name} on {background}",
)
PLURAL_CAPTIONS_ALONE = ("{name} and nothing else", "only {name}", "nothing but {name}")
PLURAL_CAPTIONS_WITH_OTHERS = (
    "{name} and some {others}",
    "{name} among {others}",
    "some {others} and {name}",
    "{name} with {others}",
    "a picture of {name} and {others}",
)
SINGULAR_CAPTIONS = (
    "{one}",
    "a photo of {one}",
    "a picture of {one}",
    "an image of {one}",
    "a drawing of {one}",
    "an illustration of {one}",
    "a card with {one}",
    "there is {one}",
    "here is {one}",
    "{one} by itself",
)
SINGULAR_CAPTIONS_ON_COLOR = ("{one} on a {background} background", "a photo of {one} on {background} paper")


# Of a syllable: how it begins, its vowel, and how it ends.
_ONSETS = (
    "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p ph pl pr qu r s sc sh sk sl sn sp st t th tr v w wh y z"
)
_VOWELS = "a a e e i o o u ai ea ee oa oo ou y"
_CODAS = "b ck ct d ft g k l ld lf ll lt m mb mp n nd ng nk nt p r rb rd rk rm rn rt rst s sh sk ss st t tch x zz"


def made_up_name(rng: np.random.RandomState) -> str:
    """
    A name that sounds like English and that nothing has, as in tests of what children know of plurals.

    Args:
        rng (`numpy.random.RandomState`): Where it comes from.

    Returns:
        `str`: One word or two of one to three syllables, in the singular.
    """
    onsets, vowels, codas = _ONSETS.split(), _VOWELS.split(), _CODAS.split()
    words = []
    for _ in range(1 + int(rng.random_sample() < 0.4)):
        num_syllables = 1 + int(rng.random_sample() * 3)
        syllables = [onsets[rng.randint(len(onsets))] + vowels[rng.randint(len(vowels))] for _ in range(num_syllables)]
        word = "".join(syllables) + codas[rng.randint(len(codas))]
        # "ten" is a name already.
        words.append(f"{word}let" if word in WORD_TO_NUMBER else word)
    return " ".join(words)


def spliced_name(rng: np.random.RandomState, names: Sequence[str]) -> str:
    """
    A name that nothing has, of the beginning of one name and the end of another: "giraffe" and "barrel" make "girel".

    A tokenizer that was learned from these names cuts such a word, like most words it has never met, into pieces of
    theirs.

    Args:
        rng (`numpy.random.RandomState`): Where it comes from.
        names (`Sequence[str]`): What things are called, in the singular; two or more, of two letters or more.

    Returns:
        `str`: The name in the singular, none of `names` and without the name of a number.
    """
    while True:
        first, last = (names[rng.randint(len(names))] for _ in range(2))
        name = first[: rng.randint(1, len(first))] + last[rng.randint(len(last) - 1) :]
        words = name.split()
        if " ".join(words) not in names and not any(word in WORD_TO_NUMBER for word in words):
            return " ".join(words)


def caption_templates(config: SceneConfig, states_number: bool, count: int, has_others: bool) -> Sequence[str]:
    """
    List the captions that are true of a scene.

    Args:
        config (`SceneConfig`): The configuration.
        states_number (`bool`): Whether the caption states how many there are.
        count (`int`): How many there are.
        has_others (`bool`): Whether objects of other kinds are in the image.

    Returns:
        `Sequence[str]`: Templates with some of `{number}`, `{name}` (in the plural), `{one}` (with its article),
        `{background}` and `{others}` (another kind, in the plural).
    """
    templates = _TEMPLATES[config.objects == "shapes", states_number, count > 1, has_others]
    # A photograph has no colour that one would name.
    return templates if config.backgrounds is None else _WITHOUT_COLOR[templates]


_TEMPLATES: dict[tuple[bool, bool, bool, bool], tuple[str, ...]] = {
    (True, True, True, False): SHAPE_NUMBER_CAPTIONS,
    (True, True, True, True): SHAPE_NUMBER_CAPTIONS_WITH_OTHERS,
    (True, False, True, False): SHAPE_PLURAL_CAPTIONS,
    (True, False, True, True): SHAPE_PLURAL_CAPTIONS_WITH_OTHERS,
    (True, False, False, False): SHAPE_SINGULAR_CAPTIONS,
    (True, False, False, True): SHAPE_SINGULAR_CAPTIONS,
    (False, True, True, False): NUMBER_CAPTIONS + NUMBER_CAPTIONS_ON_COLOR + NUMBER_CAPTIONS_ALONE,
    (False, True, True, True): NUMBER_CAPTIONS + NUMBER_CAPTIONS_ON_COLOR + NUMBER_CAPTIONS_WITH_OTHERS,
    (False, False, True, False): PLURAL_CAPTIONS + PLURAL_CAPTIONS_ON_COLOR + PLURAL_CAPTIONS_ALONE,
    (False, False, True, True): PLURAL_CAPTIONS + PLURAL_CAPTIONS_ON_COLOR + PLURAL_CAPTIONS_WITH_OTHERS,
    (False, False, False, False): SINGULAR_CAPTIONS + SINGULAR_CAPTIONS_ON_COLOR,
    (False, False, False, True): SINGULAR_CAPTIONS + SINGULAR_CAPTIONS_ON_COLOR,
}
_WITHOUT_COLOR = {
    templates: tuple(template for template in templates if "{background}" not in template)
    for templates in _TEMPLATES.values()
}
