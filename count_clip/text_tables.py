"""Tables in Markdown that can also be read as they are."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """
    Lay out a table.

    Args:
        rows (`Sequence[Sequence[str]]`): Its cells; the first row is the head.

    Returns:
        `str`: Markdown, the columns under one another.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


__all__ = ["markdown_table"]
