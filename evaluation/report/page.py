"""The page that `count-clip report` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from count_clip.datasets_scripts.files.atomic import write_whole

from .blocks import Cards, Text
from .charts import SERIES, legend_mark
from .groups import group_results
from .results import Result
from .sections import group_sections, labels_of, repeat_section, results_section


PAGE_NAME = "index.html"
"""The file in the folder of a report."""


def render_report(
    results: Sequence[Result],
    problems: Sequence[tuple[str, str]] = (),
    images: Mapping[str, Sequence[Cards | Text]] | None = None,
    title: str = "How well do these models count?",
) -> str:
    """
    Render a page of results as HTML that needs neither a network nor scripts; the same results give the same bytes.

    `problems` are files that could not be read, with the reasons; `images` has the blocks of [`image_cards`] for each
    file. Raises a `ValueError` if there is no result, or one is repeated.
    """
    if not results:
        raise ValueError("Expected at least one result for a report, but got none.")
    files = [result.file for result in results]
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise ValueError(f"Expected each result once, but {twice} was given more than once.")
    groups = group_results(results)
    labels = labels_of(groups)
    sections = [
        results_section(results, labels, problems),
        *group_sections(groups, labels, images or {}),
        repeat_section(results, labels),
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    signs = [legend_mark(series) for series in range(2 * SERIES)]
    return environment.get_template("page.html.j2").render(title=title, sections=sections, signs=signs)


def labels_for(results: Sequence[Result]) -> dict[str, str]:
    """The name of each file's model on a page of these results."""
    return labels_of(group_results(results))


def write_page(folder: str | Path, page: str) -> Path:
    """Write a page into a folder, created if needed, replacing an earlier page; an `OSError` if that fails."""
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    # File names on the page can hold bytes that are not text.
    write_whole(place / PAGE_NAME, page.encode(errors="replace"))
    return place / PAGE_NAME


__all__ = ["PAGE_NAME", "labels_for", "render_report", "write_page"]
