"""The blocks of a page: tables, charts, images and text, before they are HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    note: str = ""
    """A smaller line below: an interval, a number of rows."""
    best: bool = False
    """Whether it is the best of its row."""
    shade: float | None = None
    """Darkness of a matrix cell, 0 to 1."""


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
    """Whether it is folded."""
    shaded: bool = False
    """Whether it is a matrix with shades."""
    names: bool = False
    """Whether cells hold names from the data, which may be in any script."""
    words: Sequence[int] = ()
    """Indices of the columns of words, which are aligned to the left."""


@dataclass(frozen=True)
class Tables:
    """Small tables in a row."""

    title: str
    tables: Sequence[Table]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart, optionally with the same on logarithmic scales."""

    title: str
    svg: Markup
    log: Markup | None = None
    log_first: bool = False
    """Whether the logarithmic scales are selected at first."""


@dataclass(frozen=True)
class Charts:
    """Charts in a row."""

    title: str
    charts: Sequence[Chart]
    series: Sequence[str] = ()
    """Names of the series, in the order of their colours."""
    note: str = ""


@dataclass(frozen=True)
class Card:
    """An image of the data with a prediction."""

    caption: str
    detail: str
    image: str
    """A `data:` URL."""
    alt: str
    map: str
    """A `data:` URL of the image with its map."""
    map_alt: str
    chart: Markup | None = None
    """A chart of the scores, if the model has some."""
    remark: str = ""
    """A warning."""


@dataclass(frozen=True)
class Cards:
    """Images in a row."""

    title: str
    cards: Sequence[Card]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and values, with a command to repeat a measurement."""

    title: str
    facts: Sequence[tuple[str, str]]
    command: str


Block: TypeAlias = Table | Tables | Charts | Cards | Text | Facts


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    name: str
    """Target of links."""
    title: str
    blocks: Sequence[Block]


__all__ = ["Block", "Card", "Cards", "Cell", "Chart", "Charts", "Facts", "Section", "Table", "Tables", "Text"]
