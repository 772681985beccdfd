"""Rows of cells to a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first row is the header; short rows are filled, a cell stays on its line.

    >>> print(markdown_table([["Part", "Price"], ["Bell", "9 EUR"]]))
    | Part | Price |
    | --- | --- |
    | Bell | 9 EUR |
    """
    width = max((len(row) for row in rows), default=0)
    if not width:
        return ""
    filled = [[_cell(text) for text in row] + [""] * (width - len(row)) for row in rows]
    lines = [filled[0], ["---"] * width, *filled[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
