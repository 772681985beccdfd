"""What a command prints: results on stdout, the rest on stderr; tables on a terminal, plain columns elsewhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

WHOLE_WIDTH = 40  # as much of a line as a first column may keep to itself

STYLES: Mapping[str, str] = {
    **dict.fromkeys(("healthy", "ready", "started"), "green"),
    **dict.fromkeys(("degraded", "draining", "ejected", "starting", "waiting"), "yellow"),
    **dict.fromkeys(("failed", "stopped", "unhealthy"), "bold red"),
}
"""How a state looks on a terminal, so that trouble is seen before it is read."""

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


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows under their columns, ``gap`` spaces apart."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    gap: int = 2

    def cells(self) -> list[list[str]]:
        return [["" if cell is None else harmless(str(cell)) for cell in row] for row in self.rows]


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "", to_stderr: bool = False) -> None:
    """Rows under their columns. Not on a terminal: no colour, no frame, and nothing is cut off."""
    show([Grid(columns, rows, title)], to_stderr=to_stderr)


def show(parts: Sequence[str | Grid], *, to_stderr: bool = False) -> None:
    """Lines and tables, one below the other."""
    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        from rich.console import Console

        Console(stderr=to_stderr).print(drawn(parts))
        return
    for part in parts:
        for line in [part] if isinstance(part, str) else _aligned(part):
            print(line, file=stream)


def drawn(parts: Sequence[str | Grid]) -> Group:
    """Lines and tables for a terminal."""
    from rich.console import Group
    from rich.text import Text

    return Group(*(Text(part) if isinstance(part, str) else _drawn(part) for part in parts))


def _aligned(grid: Grid) -> Iterator[str]:
    if grid.title:
        yield grid.title
    rows = [grid.columns, *grid.cells()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield (" " * grid.gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _drawn(grid: Grid) -> Table:
    from rich.table import Table
    from rich.text import Text

    cells = grid.cells()
    made = Table(title=grid.title or None, title_justify="left", box=None, padding=(0, grid.gap, 0, 0), pad_edge=False)
    for place, column in enumerate(grid.columns):
        # The first column is what the next command wants, such as a job's id: a shortened one is of no use.
        whole = place == 0 and all(len(row[0]) <= WHOLE_WIDTH for row in cells)
        made.add_column(column, no_wrap=whole, overflow="fold")
    for row in cells:
        made.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
    return made


def one_line(text: str, width: int) -> str:
    """``text`` without line breaks, cut to ``width`` characters."""
    flat = harmless(" ".join(text.split()))
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"
