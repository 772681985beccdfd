"""What a command prints: results on stdout, the rest on stderr; tables on a terminal, plain columns elsewhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

WHOLE_WIDTH = 40  # as much of a line as a first column may keep to itself

# What moves a terminal's cursor, renames its window or writes to its clipboard; a document may hold it.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """``text`` with every control character but line break and tab shown as ``\ufffd``."""
    return _CONTROL.sub("\ufffd", text.replace("\r", ""))


def say(text: str) -> None:
    """One line on stderr."""
    print(harmless(text), file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    """``value`` as the one JSON document on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "", to_stderr: bool = False) -> None:
    """Rows under their columns. Not on a terminal: no colour, no frame, and nothing is cut off."""
    stream = sys.stderr if to_stderr else sys.stdout
    cells = [["" if cell is None else harmless(str(cell)) for cell in row] for row in rows]
    if stream.isatty():
        _drawn(columns, cells, title, to_stderr)
        return
    if title:
        print(title, file=stream)
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [columns, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=stream)


def _drawn(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str, to_stderr: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title or None, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for place, column in enumerate(columns):
        # The first column is what the next command wants, such as a job's id: a shortened one is of no use.
        whole = place == 0 and all(len(row[0]) <= WHOLE_WIDTH for row in cells)
        drawn.add_column(column, no_wrap=whole, overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(stderr=to_stderr).print(drawn)


def one_line(text: str, width: int) -> str:
    """``text`` without line breaks, cut to ``width`` characters."""
    flat = harmless(" ".join(text.split()))
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"
