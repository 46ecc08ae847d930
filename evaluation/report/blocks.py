"""What a page is made of: tables, charts, images and lines of text, before any of it is HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    """What stands in it."""
    note: str = ""
    """A smaller line below: an interval, a number of rows."""
    best: bool = False
    """Whether it is the best of its row."""
    shade: float | None = None
    """How dark it is, 0 to 1, where the colour says something."""


@dataclass(frozen=True)
class Table:
    """Rows with a header each, under a header for each column."""

    caption: str
    header: Sequence[str]
    """The first is that of the row headers."""
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    """A line below."""
    closed: bool = False
    """Whether it is folded away until somebody wants it."""
    shaded: bool = False
    """Whether it is a matrix, whose colours are read before its numbers."""
    names: bool = False
    """Whether names out of the data stand in it."""
    words: Sequence[int] = ()
    """Which columns hold words, and not numbers to be read from their right end."""
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Tables:
    """Small tables beside each other."""

    title: str
    tables: Sequence[Table]
    note: str = ""
    kind: str = field(default="tables", init=False)


@dataclass(frozen=True)
class Chart:
    """A drawing with what it shows in words."""

    title: str
    svg: Markup
    log: Markup | None = None
    """The same on logarithmic scales, to be switched to."""
    log_first: bool = False
    """Whether the logarithmic one is what one sees first."""


@dataclass(frozen=True)
class Charts:
    """Drawings beside each other."""

    title: str
    charts: Sequence[Chart]
    series: Sequence[str] = ()
    """What the colours stand for, in their order."""
    note: str = ""
    kind: str = field(default="charts", init=False)


@dataclass(frozen=True)
class Card:
    """An image of the data with what a model said of it."""

    caption: str
    detail: str
    image: str
    """A `data:` address."""
    alt: str
    map: str | None = None
    """Another one, of the image with its map."""
    map_alt: str = ""
    chart: Markup | None = None
    """A drawing below: the scores, for a model that has some."""
    remark: str = ""
    """What is odd about it."""


@dataclass(frozen=True)
class Cards:
    """Images beside each other."""

    title: str
    cards: Sequence[Card]
    note: str = ""
    kind: str = field(default="cards", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    warning: bool = False
    """Whether it says that something is not as it should be."""
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    title: str
    facts: Sequence[tuple[str, str]]
    command: str = ""
    """A command to type, above the facts."""
    remark: str = ""
    kind: str = field(default="facts", init=False)


Block: TypeAlias = Table | Tables | Charts | Cards | Text | Facts


@dataclass(frozen=True)
class Section:
    """A part of the page with a title of its own."""

    name: str
    """Where links lead to."""
    title: str
    blocks: Sequence[Block]


__all__ = ["Block", "Card", "Cards", "Cell", "Chart", "Charts", "Facts", "Section", "Table", "Tables", "Text"]
