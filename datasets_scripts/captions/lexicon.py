"""
The English words by which [`counted_noun`] judges whether a number in a caption counts visible objects.

`lexicon.csv` has these lists:

* plural nouns of which no image shows single objects: `time`, `measure`, `score`, `group`, `place`, `abstract`; some
  are objects after a word (`seen_if_described`: "parking meters", "bare feet") that is not in `measuring_adjectives`
* forms of words: `irregular_plurals`; `no_plurals`, which only look like some; `counted_in_singular`, nouns that
  captions often leave in the singular ("two woman"); `measuring_singulars`, with which a number describes an object
  ("a two piece suit"), of which `naming_singulars` belong to a noun that follows ("three color cards");
  `describing_plurals` ("sports cars"); `living_plurals`, after which a word in s is a verb ("two girls sits"); `verbs`
  after a noun in s ("a set of two chairs offers"); `base_verbs`; `adjectives`, which commas part; `numbers`
* words around the number: `ends_phrase`, before which its noun stands; `stock_words` of image libraries;
  `ordinal_before` ("Book Two", "BBC Two"); `determiners`; `sets`; `images` ("A portrait of Two Sisters" shows two);
  `media`, near which a capitalised number is in a title; `business` ("Three Dogs Brewery"); `known_names`
* `people`: other words of captions for a detector's class "person"
"""

import csv
from collections import defaultdict
from importlib import resources
from typing import Literal


CountReason = (
    Literal["counts", "abstract", "group", "measure", "name", "no_noun"]
    | Literal["not_plural", "number", "ordinal", "place", "time", "title", "vague"]
)


def _read() -> dict[str, frozenset[str]]:
    words: defaultdict[str, set[str]] = defaultdict(set)
    table = resources.files(__package__).joinpath("lexicon.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(table.splitlines()):
        words[row["list"]].update(row["words"].split())
    return {name: frozenset(found) for name, found in words.items()}


WORDS = _read()
NOT_VISIBLE: dict[str, CountReason] = {
    **dict.fromkeys(WORDS["abstract"], "abstract"),
    **dict.fromkeys(WORDS["place"], "place"),
    **dict.fromkeys(WORDS["group"], "group"),
    **dict.fromkeys(WORDS["measure"] | WORDS["score"], "measure"),
    **dict.fromkeys(WORDS["time"], "time"),
}
PLURAL_ENDINGS = ("inis", "men", "children", "people", "fish", "sheep", "folk", "mice", "geese", "craft")
NO_PLURAL_ENDINGS = ("ss", "us", "is", "'s", "’s")
