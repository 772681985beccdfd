"""Delimited text to one Markdown table, row by row, so that a million rows stay within reach."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from ragworks.text.assemble import Piece, assemble
from ragworks.text.decode import decode
from ragworks.text.tables import table_lines
from ragworks.types import Parsed, Section

Quoting = Literal[0, 3]
"""What the csv module calls QUOTE_MINIMAL and QUOTE_NONE."""

Dialect = tuple[str, Quoting]
MEDIA_TYPE = "text/csv"
_DELIMITERS = "\t;,|"
_LOOK = 64 * 1024
_LOOK_ROWS = 200
_QUOTED: Quoting = 0
_UNQUOTED: Quoting = 3  # for quotes that open and never close
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_ANNOUNCED = re.compile(r"sep=([^\w \r\n\"])\r?\n", re.IGNORECASE)
# A named .csv may have a preface and gaps; anything else must be beyond doubt, since plain text is left as it came.
_SHARE_IF_NAMED = 0.8
_ROWS_IF_NOT = 5
_LONGEST_CELL_IF_NOT = 60


def parse_csv(data: bytes) -> Parsed:
    """The rows as a table whose first row is the header; as plain text if no delimiter makes sense of it."""
    text = decode(data)
    found = _ANNOUNCED.match(text)
    dialect = (found.group(1), _QUOTED) if found else sniffed(text)
    if dialect is None:
        return _plain(text)
    try:
        rows = _rows(text, found.end() if found else 0, *dialect)
        return assemble([Piece("\n".join(table_lines(rows)), kind="table")], MEDIA_TYPE)
    except csv.Error as error:
        return _plain(text, f"the rows cannot be told apart ({error}); the document is read as plain text")


def sniffed(text: str, *, named: bool = True) -> Dialect | None:
    """The dialect of a text that is a table, or None. ``named`` says that its name promises one."""
    lines = [line for line in text[:_LOOK].splitlines(keepends=True) if line.strip()][:_LOOK_ROWS]
    if len(text) > _LOOK and len(lines) > 1:
        lines.pop()  # cut off by the look
    best: tuple[float, int, Dialect] | None = None
    for delimiter in _DELIMITERS if len(lines) > 1 else ():
        for quoting in (_QUOTED, _UNQUOTED):
            share, width = _fit(lines, delimiter, quoting)
            enough = share >= _SHARE_IF_NAMED if named else _beyond_doubt(lines, delimiter, share, width)
            if width > 1 and enough and (best is None or (share, width) > best[:2]):
                best = share, width, (delimiter, quoting)
    return best[2] if best else None


def _fit(lines: list[str], delimiter: str, quoting: Quoting) -> tuple[float, int]:
    """The share of rows that have the most common number of cells, and that number."""
    try:
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter, quoting=quoting))
    except csv.Error:
        return 0.0, 0
    width, rows = widths.most_common(1)[0] if widths else (0, 0)
    return rows / max(widths.total(), 1), width


def _beyond_doubt(lines: list[str], delimiter: str, share: float, width: int) -> bool:
    """Whether these lines are no prose, list or drawing that happens to have as many commas in every line."""
    spaced = sum(line.count(f"{delimiter} ") for line in lines)
    return (
        share == 1
        and delimiter != "|"
        and len(lines) >= _ROWS_IF_NOT
        and width >= (2 if delimiter == "\t" else 3)
        and sum(line.startswith(delimiter) for line in lines) < 2
        and spaced * 2 < len(lines) * (width - 1)
        and sum(map(len, lines)) < len(lines) * width * _LONGEST_CELL_IF_NOT
    )


def _rows(text: str, start: int, delimiter: str, quoting: Quoting) -> Iterator[list[str]]:
    lines = (found.group() for found in _LINE.finditer(text, start))
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting)
    return (row for row in rows if any(cell.strip() for cell in row))


def _plain(text: str, *warnings: str) -> Parsed:
    return Parsed(text, (Section(0, len(text)),), "text/plain", warnings=warnings)
