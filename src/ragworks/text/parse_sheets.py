"""Workbooks to sections: a heading for every sheet, its tables as Markdown, values as a person reads them."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from typing import Any

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from ragworks.errors import CorruptDocument, DocumentTooLarge, EncryptedDocument, RagworksError
from ragworks.text.archive import opened, unpacked
from ragworks.text.assemble import Piece, assemble
from ragworks.text.compound import Compound
from ragworks.text.sheet_extent import MAX_CELLS, check_extent, check_old_extent
from ragworks.text.tables import markdown_table
from ragworks.text.xml import described, part
from ragworks.types import Parsed

Rows = list[list[str]]

MAX_TEXT = 256 * 1024**2
"""Characters: a text that is stored once may stand in millions of cells."""

_NESTED = 4  # tables beside tables below tables: a person does not go deeper, a bomb does
_PROPERTIES = {
    "title": ("title",),
    "author": ("creator", "initial-creator"),
    "created": ("created", "creation-date"),
    "modified": ("modified", "date"),
}


def parse_sheets(data: bytes, media_type: str) -> Parsed:
    """The sheets that are shown, in order. Raises CorruptDocument, EncryptedDocument or DocumentTooLarge."""
    properties: dict[str, str] = {}
    if data.startswith(b"PK"):
        properties = _checked(data)
    else:
        check_old_extent(Compound(data).stream("Workbook", "Book"))
    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(data)) as book:
            sheets = _Sheets(book)
            parsed = assemble(sheets.pieces(), media_type)
    except RagworksError:
        raise
    except BaseException as error:  # a panic of the library is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptDocument(f"the workbook is broken and cannot be read: {error}") from error
    if sheets.broken and not parsed.text:
        raise CorruptDocument(f"the workbook is broken and cannot be read: {sheets.warnings[0]}")
    title = properties.pop("title", None)
    return Parsed(
        parsed.text,
        parsed.sections,
        media_type,
        title,
        properties=properties,
        warnings=tuple(sheets.warnings),
    )


def _checked(data: bytes) -> dict[str, str]:
    """What the archive says about itself, after it was found to be harmless."""
    archive = opened(data)
    names = archive.namelist()
    if "META-INF/manifest.xml" in names and b":encryption-data" in b"".join(unpacked(archive, "META-INF/manifest.xml")):
        raise EncryptedDocument("the workbook is encrypted; remove its password and submit it again")
    check_extent(archive)
    about = next((name for name in ("docProps/core.xml", "meta.xml") if name in names), None)
    try:
        return described(part(archive, about), _PROPERTIES) if about else {}
    except CorruptDocument:  # a broken description is no reason to refuse what it describes
        return {}


class _Sheets:
    """One pass over a workbook; a sheet that cannot be read costs that sheet and a warning."""

    def __init__(self, book: CalamineWorkbook) -> None:
        self._book = book
        self._room = MAX_TEXT
        self.broken = False
        self.warnings: list[str] = []

    def pieces(self) -> Iterator[Piece]:
        for about in self._book.sheets_metadata:
            if about.typ not in (SheetTypeEnum.WorkSheet, SheetTypeEnum.MacroSheet):
                continue
            if about.visible != SheetVisibleEnum.Visible:
                self.warnings.append(f"the hidden sheet {about.name!r} was left out")
                continue
            try:
                rows = self._rows(self._book.get_sheet_by_name(about.name))
            except CalamineError as error:
                self.broken = True
                self.warnings.append(f"the sheet {about.name!r} is broken and was left out: {error}")
                continue
            yield from _pieces(rows, about.name)

    def _rows(self, sheet: CalamineSheet) -> Rows:
        rows: Rows = []
        for values in sheet.iter_rows():
            cells = [shown(value) for value in values]
            self._room -= sum(map(len, cells))
            if self._room < 0:
                raise DocumentTooLarge(f"the workbook holds more than {MAX_TEXT} characters; split it")
            rows.append(cells)
        _fill_merged(rows, sheet)
        return rows


def shown(value: Any) -> str:
    """A cell's value as a spreadsheet program shows it, dates as ISO 8601.

    >>> [shown(value) for value in (1.0, 0.1 + 0.2, True, datetime.datetime(2024, 5, 1), datetime.time(9, 30), " a ")]
    ['1', '0.3', 'TRUE', '2024-05-01', '09:30:00', 'a']
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        # 15 digits are what such programs keep.
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


def _fill_merged(rows: Rows, sheet: CalamineSheet) -> None:
    """Every cell of a merged range says what the range says, so that each row and column is complete by itself.

    A title that stands across an otherwise empty row stays as it is.
    """
    left = sheet.start[1] if sheet.start else 0
    room = MAX_CELLS
    for (top, first), (bottom, last) in sheet.merged_cell_ranges or ():
        if top == bottom and sum(map(bool, rows[top])) == 1:
            continue
        for row in rows[top : bottom + 1]:
            cells = range(max(first - left, 0), min(last - left + 1, len(row)))
            room -= len(cells) + 1
            if room < 0:  # ranges that overlap again and again
                return
            for column in cells:
                row[column] = row[column] or rows[top][first - left]


def _pieces(rows: Rows, name: str) -> Iterator[Piece]:
    for number, table in enumerate(tables(rows)):
        if not number:
            yield Piece(f"# {name}", (name,))
        if len(table[0]) > 1:
            yield Piece(markdown_table(table), (name,), kind="table")
        else:
            yield Piece("\n".join(row[0] for row in table), (name,))


def tables(rows: Rows, nested: int = _NESTED) -> Iterator[Rows]:
    """The rectangles that blank rows and blank columns separate: from top to bottom, then from left to right.

    A title above a table is a rectangle of its own.
    """
    for band in _bands(rows):
        titles = _titles(band)
        yield from ([[title]] for title in titles)
        below = band[len(titles) :]
        blocks = [[row[start:stop] for row in below] for start, stop in _columns(below)]
        for block in blocks:
            if len(blocks) == 1 or not nested:
                yield block
            else:
                yield from tables(block, nested - 1)


def _titles(band: Rows) -> list[str]:
    """The rows of a single cell at the top of a band that goes on with wider ones."""
    titles: list[str] = []
    for row in band:
        used = [cell for cell in row if cell]
        if len(used) > 1:
            return titles
        titles += used
    return []


def _bands(rows: Rows) -> Iterator[Rows]:
    band: Rows = []
    for row in [*rows, []]:
        if any(row):
            band.append(row)
        elif band:
            yield band
            band = []


def _columns(band: Rows) -> list[tuple[int, int]]:
    """(start, stop) of neighbouring columns that hold something."""
    used = [any(column) for column in zip(*band, strict=True)]
    edges = [
        index for index, (before, now) in enumerate(zip([False, *used], [*used, False], strict=True)) if before != now
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))
