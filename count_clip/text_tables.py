"""Markdown tables with aligned columns."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Format cells, the first row being the head, as Markdown with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(map(str.ljust, row, widths)) + " |"
        for row in [rows[0], ["-" * w for w in widths], *rows[1:]]
    ]
    return "\n".join(lines)


__all__ = ["markdown_table"]
