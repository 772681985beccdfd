"""How far sheets stretch, found before a library that keeps every cell of the rectangle makes room for it.

Two cells in opposite corners of a sheet span 17 billion. Files that hide their extent from these looks meet the
worker's memory limit.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterable, Iterator

from ragworks.errors import CorruptDocument, DocumentTooLarge, EncryptedDocument
from ragworks.text.archive import unpacked
from ragworks.text.xml import require_whole

MAX_CELLS = 5_000_000
"""In one sheet, empty ones inside its rectangle included: some 250 MB in the library, as much again as text."""

_OVERLAP = 1024  # longer than a tag of interest
# Cells that hold something: those with a format only, down whole columns, are common and take no room.
_XLSX_CELL = re.compile(rb'<(?:\w+:)?c\s[^<>]*?\br="([A-Z]{1,3})(\d{1,7})"[^<>]*(?<!/)>')
_ODS_TAG = re.compile(rb"<table:(table|table-row|covered-table-cell|table-cell)(?=[\s/>])([^<>]*)>")
_ODS_REPEATED = re.compile(rb'number-(?:rows|columns)-repeated="(\d+)"')
_XLS_SHEET, _XLS_LOCK, _XLS_EXTENT, _XLS_END = 0x85, 0x2F, 0x200, 0x0A
_XLS_EXTENTS = {10: "<4H", 14: "<2I2H"}
_XLS_CELLS = frozenset((0x203, 0x204, 0xFD, 0x27E, 0xBD, 0x06, 0x205, 0xD6))
_XLS_ROWS, _XLS_COLUMNS = 65_536, 256
_XLSB_ROW, _XLSB_BLANK, _XLSB_LAST_CELL = 0, 1, 11


def check_extent(archive: zipfile.ZipFile) -> None:
    """Raises DocumentTooLarge when a sheet of the workbook spans more cells than are read."""
    for name in archive.namelist():
        if name == "content.xml":
            require_whole(unpacked(archive, name))
            _check_ods(unpacked(archive, name))
        elif name.startswith("xl/worksheets/") and name.endswith(".xml"):
            _check(_xlsx_cells(unpacked(archive, name)))
        elif name.startswith("xl/worksheets/") and name.endswith(".bin"):
            _check(_xlsb_cells(b"".join(unpacked(archive, name))))


def check_old_extent(records: bytes) -> None:
    """The same for the stream of an old workbook. Raises EncryptedDocument also, when it is locked."""
    sheets: set[int] = set()
    for kind, body in _records(records, 0):
        if kind == _XLS_LOCK:
            raise EncryptedDocument("the workbook is encrypted; remove its password and submit it again")
        if kind == _XLS_SHEET and len(body) >= 4:
            sheets.add(int.from_bytes(body[:4], "little"))
    for start in sheets:
        _check(_xls_cells(records, start))


def _xls_cells(records: bytes, start: int) -> Iterator[tuple[int, int]]:
    for kind, body in _records(records, start):
        if kind == _XLS_EXTENT and len(body) in _XLS_EXTENTS:
            top, bottom, left, right = struct.unpack_from(_XLS_EXTENTS[len(body)], body)
            # The library makes room for what this says, and does not mind that it ends before it begins.
            if not (top <= bottom <= _XLS_ROWS and left <= right <= _XLS_COLUMNS):
                raise CorruptDocument("the workbook is broken: a sheet has an impossible extent")
        elif kind in _XLS_CELLS and len(body) >= 4:
            yield struct.unpack_from("<HH", body)


def _records(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of each up to the end of its part of the stream."""
    kind = -1
    while kind != _XLS_END and at + 4 <= len(data):
        kind, size = struct.unpack_from("<HH", data, at)
        yield kind, data[at + 4 : at + 4 + size]
        at += 4 + size


def _check(cells: Iterable[tuple[int, int]]) -> None:
    """Of (row, column) of all cells."""
    top = left = 1 << 62
    bottom = right = -1
    for row, column in cells:
        top, bottom = min(top, row), max(bottom, row)
        left, right = min(left, column), max(right, column)
    if bottom >= 0:
        _refuse_beyond(bottom - top + 1, right - left + 1)


def _refuse_beyond(height: int, width: int) -> None:
    if height * width > MAX_CELLS:
        raise DocumentTooLarge(
            f"a sheet spans {height} rows and {width} columns; at most {MAX_CELLS} cells are read: remove cells that "
            "stand far from the others, split the sheet, or save it as CSV"
        )


def _xlsx_cells(pieces: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    columns: dict[bytes, int] = {}
    for found in _found(_XLSX_CELL, pieces):
        letters = found.group(1)
        if letters not in columns:
            columns[letters] = _column(letters)
        yield int(found.group(2)), columns[letters]


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def _xlsb_cells(data: bytes) -> Iterator[tuple[int, int]]:
    at = row = 0
    while at + 2 < len(data):
        kind, at = _varint(data, at, 2)
        size, at = _varint(data, at, 4)
        if kind == _XLSB_ROW:
            row = int.from_bytes(data[at : at + 4], "little")
        elif _XLSB_BLANK < kind <= _XLSB_LAST_CELL:
            yield row, int.from_bytes(data[at : at + 4], "little")
        at += size


def _varint(data: bytes, at: int, longest: int) -> tuple[int, int]:
    """Seven bits a byte, low ones first; the high bit says that another byte follows."""
    value = 0
    for index, byte in enumerate(data[at : at + longest]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    return value, at + longest


def _check_ods(pieces: Iterable[bytes]) -> None:
    above = repeated = across = width = 0
    for found in _found(_ODS_TAG, pieces):
        tag, attributes = found.groups()
        count = _ODS_REPEATED.search(attributes)
        times = int(count.group(1)) if count else 1
        if tag == b"table":
            above = repeated = width = 0
        elif tag == b"table-row":
            above, repeated, across = above + repeated, times, 0
        else:
            across += times
            if not attributes.endswith(b"/"):
                width = max(width, across)
                _refuse_beyond(above + repeated, width)


def _found(pattern: re.Pattern[bytes], pieces: Iterable[bytes]) -> Iterator[re.Match[bytes]]:
    """The matches in bytes that come in pieces."""
    kept = b""
    for piece in pieces:
        window = kept + piece
        done = 0
        for found in pattern.finditer(window):
            yield found
            done = found.end()
        kept = window[max(done, len(window) - _OVERLAP) :]
