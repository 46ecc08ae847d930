"""
The noun that the number in a caption counts, found by rules on the words around it.

Captions of the web are hardly ever sentences ("Two Red Puppy Sitting On Paving Slabs", "set of two mugs orange"), and
a general English parser does worse on them; `tests/datasets_scripts/counting_labels/README.md` has figures.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .lexicon import NO_PLURAL_ENDINGS, NOT_VISIBLE, PLURAL_ENDINGS, WORDS, CountReason


# Words with what joins their parts ("flat-top", "children's", "red/blue"), and single marks.
_TOKEN = re.compile(r"[^\W_]+(?:['’.&/-]?[^\W_]+)*['’]?(?=\W|$)|[^\w\s]|_")
# Further from its number a noun belongs to something else.
_MAX_TOKENS = 8
# A caption can be a page long; what counts is near.
_NEAR = 400
_QUOTES = "'’‘\"“”″"


@dataclass(frozen=True)
class CountedNoun:
    """
    The counted noun of a caption, with the words that describe it ("tennis players"; empty where none was found), and
    its last word in lower case ("players"). The reason is `"counts"` where the number counts visible objects.
    """

    reason: CountReason
    noun: str = ""
    head: str = ""

    @property
    def counts(self) -> bool:
        """`bool`: Whether the number counts visible objects."""
        return self.reason == "counts"


def counted_noun(caption: str, start: int, end: int) -> CountedNoun:
    """
    Find what the number word `caption[start:end]` counts: the noun, or the reason why it counts no visible objects.
    """
    before = _tokens(caption[max(0, start - _NEAR) : start])
    after = _tokens(caption[end : end + _NEAR])
    reason = _not_a_quantity(before, after)
    if reason is not None:
        return CountedNoun(reason)
    phrase = _after_of(after[1:]) if after[:1] == ["of"] else after
    found = _counted_in(phrase)
    if not found.noun and before and before[-1].lower() == "of":
        found = _named_before(before[:-1]) or found
    if found.counts and caption[start].isupper() and after and after[0][0].isupper():
        reason = _part_of_a_name(found, before, after, shouting=caption[start:end].isupper())
    return found if reason is None else CountedNoun(reason, found.noun, found.head)


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(html.unescape(text))


def _is_word(token: str) -> bool:
    return token[:1].isalnum()


def _last_part(word: str) -> str:
    return re.split(r"[-/]", word.lower())[-1]


def _is_plural(word: str) -> bool:
    last = _last_part(word)
    if last in WORDS["no_plurals"]:
        return False
    if last in WORDS["irregular_plurals"] or last.endswith(PLURAL_ENDINGS):
        return True
    return len(last) > 2 and last[0].isalpha() and last.endswith("s") and not last.endswith(NO_PLURAL_ENDINGS)


def _not_a_quantity(before: Sequence[str], after: Sequence[str]) -> CountReason | None:
    """The reason why a number with these neighbours is no number of objects, whatever follows."""
    beyond, left = ["", "", *(token.lower() for token in before[-2:])][-2:]
    right, next_right = [*(token.lower() for token in after[:2]), "", ""][:2]
    if left in WORDS["ordinal_before"] or (left == "." and beyond in WORDS["ordinal_before"]):
        return "ordinal"
    if left in WORDS["numbers"] or (right in WORDS["numbers"] and right != "one"):
        return "number"
    if left in ("#", "$", "£", "€"):
        return "measure"
    if right in ("o'clock", "o’clock", "am", "pm", "a.m", "p.m"):
        return "time"
    if left in ("or", "takes") or (left in ("to", "in") and beyond in WORDS["numbers"]):
        return "vague"
    if right in ("or", "to", "through") and (
        next_right in WORDS["numbers"] or next_right in ("more", "so", "fewer", "less")
    ):
        return "vague"
    if left == "top":
        return "title"
    return None


def _after_of(tokens: Sequence[str]) -> Sequence[str]:
    """The words that "two of" counts: "the (six) dogs", "Kennedy's children"; not "two of a kind", "ten of spades"."""
    owners = [place for place, token in enumerate(tokens[:3]) if token.endswith(("'s", "’s", "s'", "s’"))]
    if owners:
        rest = tokens[owners[0] + 1 :]
    elif tokens and tokens[0].lower() in WORDS["determiners"]:
        rest = tokens[1:]
    else:
        return []
    return rest[1:] if rest and (rest[0].lower() in WORDS["numbers"] or rest[0].isdigit()) else rest


def _counted_in(tokens: Sequence[str]) -> CountedNoun:
    """Find the plural noun in the words after a number."""
    taken: list[str] = []
    head = ""
    for place, token in enumerate(tokens[:_MAX_TOKENS]):
        word = token.lower()
        following = tokens[place + 1] if place + 1 < len(tokens) else ""
        goes_on = _is_word(following) and following.lower() not in WORDS["ends_phrase"]
        if not _is_word(token):
            if _is_skipped(token, taken, goes_on):
                continue
            break
        if (
            word in WORDS["ends_phrase"]
            or word in WORDS["numbers"]
            or word in WORDS["stock_words"]
            or word in WORDS["verbs"]
        ):
            break
        if word == "and":
            if not taken or not goes_on or following.lower() in WORDS["numbers"]:
                break
        elif not taken and _describes(word, following):
            return CountedNoun("not_plural", token, word)
        taken.append(token)
        plural = token.rstrip("'’") if not _is_word(following) else token
        if _is_plural(plural):
            if word in WORDS["describing_plurals"] and goes_on:
                continue
            head = plural.lower()
            if word in WORDS["living_plurals"] or not (
                goes_on and _is_plural(following) and following.lower() not in WORDS["verbs"]
            ):
                break
        elif _is_counted_in_singular(word, following):
            return CountedNoun("counts", " ".join(taken), word.removesuffix("'s").removesuffix("’s"))
    if not head:
        return CountedNoun("not_plural" if taken else "no_noun", " ".join(taken))
    return _judged(taken, _last_part(head), followed_by_of=tokens[len(taken) : len(taken) + 1] == ["of"])


def _describes(word: str, following: str) -> bool:
    """Whether a number and the word after it describe what follows: "two piece suit", but "two stone lions"."""
    return word.split("-")[0] in WORDS["measuring_singulars"] and not (
        word in WORDS["naming_singulars"] and _is_plural(following)
    )


def _is_skipped(mark: str, taken: Sequence[str], goes_on: bool) -> bool:
    """Whether a phrase without a plural so far continues after a mark: a quotation, or a comma between adjectives."""
    if mark in _QUOTES:
        return True
    if not taken:
        return mark == "("
    return mark == "," and goes_on and (taken[-1].lower() in WORDS["adjectives"] or taken[-1].endswith("ed"))


def _is_counted_in_singular(word: str, following: str) -> bool:
    """Whether a singular is meant as a plural: "two cute kid eating", "two giraffe's", but no "two man orchestra"."""
    if word.removesuffix("'s").removesuffix("’s") not in WORDS["counted_in_singular"]:
        return False
    after = following.lower()
    ends = (
        not _is_word(after) or after in WORDS["ends_phrase"] or after in WORDS["stock_words"] or after.endswith("ing")
    )
    return ends or after in WORDS["base_verbs"] or after in ("and", "isolated")


def _judged(taken: Sequence[str], head: str, followed_by_of: bool) -> CountedNoun:
    """Whether a plural noun is visible."""
    reason = NOT_VISIBLE.get(head, "counts")
    if head == "pieces" and not followed_by_of:  # "two pieces prom dress"
        reason = "group"
    elif head == "others":
        reason = "no_noun"
    elif (
        head in WORDS["seen_if_described"]
        and len(taken) > 1
        and taken[-2].lower() not in WORDS["measuring_adjectives"]
    ):
        reason = "counts"
    return CountedNoun(reason, " ".join(taken), head)


def _named_before(before: Sequence[str]) -> CountedNoun | None:
    """The noun before the number: "dining chairs, set of four"."""
    if not before or before[-1].lower() not in WORDS["sets"]:
        return None
    rest = before[:-1]
    if rest and rest[-1] in (",", "-", "(", "|", "–", "—", ":"):
        rest = rest[:-1]
    if rest and _is_word(rest[-1]) and _is_plural(rest[-1]):
        return _judged(rest[-1:], _last_part(rest[-1]), followed_by_of=False)
    return None


def _part_of_a_name(
    found: CountedNoun, before: Sequence[str], after: Sequence[str], shouting: bool
) -> CountReason | None:
    """Whether a capitalised number belongs to the title of a work or to a name."""
    beyond, left = ["", "", *(token.lower() for token in before[-2:])][-2:]
    if found.head in WORDS["known_names"]:
        return "name"
    if (left == "of" and beyond == "tale") or any(token.lower() in WORDS["media"] for token in (*before, *after)):
        return "title"
    tail = after[len(found.noun.split()) :][:2]
    if tail and tail[0].istitle() and any(token.istitle() and token.lower() in WORDS["business"] for token in tail):
        return "name"
    if shouting or not left or not _is_word(left) or left == "and":
        return None
    # Among words in lower case a capital belongs to a name, unless these words announce the content of an image.
    words = [
        token for token in before if token.isalpha() and len(token) > 3 and token.lower() not in WORDS["ends_phrase"]
    ]
    in_a_sentence = 2 * sum(token[0].islower() for token in words) > len(words)
    return "name" if in_a_sentence and not (left == "of" and beyond in WORDS["images"]) else None
