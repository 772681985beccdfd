"""Pages with text at chosen places, written in a chosen order, as layout programs write them."""

from __future__ import annotations

from collections.abc import Iterable

from fpdf import FPDF

Line = tuple[float, float, str]
"""Points from the left and from the top, and the text."""

LEFT, RIGHT = 60.0, 315.0
LEADING = 13.0


def page(*lines: Line, boxes: Iterable[tuple[float, float, float, float]] = ()) -> bytes:
    return pages([lines], boxes)


def pages(each: Iterable[Iterable[Line]], boxes: Iterable[tuple[float, float, float, float]] = ()) -> bytes:
    made = FPDF(unit="pt", format="A4")
    for lines in each:
        made.add_page()
        made.set_font("Helvetica", size=10)
        for x, y, text in lines:
            made.text(x, y, text)
        for box in boxes:
            made.rect(*box)
    return bytes(made.output())


def column(
    mark: str, x: float, top: float, lines: int, says: str = "goes on and on with words to its end"
) -> list[Line]:
    """Lines that are marked a01, a02 and so on."""
    return [(x, top + index * LEADING, f"{mark}{index + 1:02} {says}") for index in range(lines)]


def row_by_row(*columns: list[Line]) -> list[Line]:
    return sorted((line for one in columns for line in one), key=lambda line: (line[1], line[0]))
