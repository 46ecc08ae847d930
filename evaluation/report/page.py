"""One page with all results: what `count-clip report` writes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from .blocks import Cards, Text
from .charts import SERIES, sign_alone
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
    Make a page of results: one HTML text that needs nothing else, neither a network nor a script.

    Args:
        results (`Sequence[Result]`): What [`read_result`] gave; those of one benchmark on the same data are compared,
            each with the first of them.
        problems (`Sequence[tuple[str, str]]`, *optional*): Files that could not be reported, and why.
        images (`Mapping[str, Sequence[Cards | Text]]`, *optional*): For each file, what [`image_cards`] made.
        title (`str`, *optional*): The heading.

    Returns:
        `str`: The page. The same results give the same page to the byte.

    Raises:
        ValueError: If there is no result, or two are of the same file.
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
    signs = [sign_alone(series) for series in range(2 * SERIES)]
    return environment.get_template("page.html.j2").render(title=title, sections=sections, signs=signs)


def labels_for(results: Sequence[Result]) -> dict[str, str]:
    """
    What the models are called on a page of these results.

    Args:
        results (`Sequence[Result]`): As [`render_report`] takes them.

    Returns:
        `dict[str, str]`: A name for each file.
    """
    return labels_of(group_results(results))


def write_page(folder: str | Path, page: str) -> Path:
    """
    Write a page into a folder; one that is there is replaced when the new one is whole.

    Args:
        folder (`str` or `Path`): Where to; it is made if it is not there, and other files in it stay.
        page (`str`): From [`render_report`].

    Returns:
        `Path`: The file.

    Raises:
        OSError: If it cannot be written.
    """
    place = Path(folder).expanduser()
    place.mkdir(parents=True, exist_ok=True)
    path = place / PAGE_NAME
    handle, name = tempfile.mkstemp(dir=place, prefix=f".{PAGE_NAME}-")
    try:
        # The names of files may hold bytes that are no text.
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as stream:
            stream.write(page)
        # A temporary file is readable for its owner alone.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


__all__ = ["PAGE_NAME", "labels_for", "render_report", "write_page"]
