"""Rows of cells to a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first row is the header; short rows are filled, a cell stays on its line.

    >>> print(markdown_table([["Part", "Price"], ["Bell", "9 EUR"]]))
    | Part | Price |
    | --- | --- |
    | Bell | 9 EUR |
    """
    return "\n".join(table_lines(rows, max(map(len, rows), default=0)))


def table_lines(rows: Iterable[Sequence[str]], width: int = 0) -> Iterator[str]:
    """The lines of the table one by one; rows are filled to ``width``, or to that of the first if this is more."""
    for number, row in enumerate(rows):
        if not number:
            width = max(width, len(row))
        cells = [_cell(text) for text in row]
        cells += [""] * (width - len(cells))
        if not cells:
            return
        yield f"| {' | '.join(cells)} |"
        if not number:
            yield f"| {' | '.join(['---'] * width)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
