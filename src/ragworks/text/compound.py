"""Old workbooks and Outlook messages are compound files: sectors in chains. What a library would follow without end
is refused here."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ragworks.errors import CorruptDocument

_HEADER_ENTRIES = 109
_REGULAR = 0xFFFFFFFA
"""Numbers below this are sectors, those above it are marks: free, end of a chain."""

_BIG_STREAM = 4096
"""Smaller streams lie in the mini stream, where no workbook fits."""


class Compound:
    """A compound file whose chains all end. Raises CorruptDocument for one that is broken."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 512:
            raise CorruptDocument("the compound file is cut off within its header")
        self._data = data
        self._size: int = 1 << min(int.from_bytes(data[30:32], "little"), 12)
        if self._size < 512:
            raise CorruptDocument("the compound file has sectors of an impossible size")
        directory, mini, difat = (int.from_bytes(data[at : at + 4], "little") for at in (48, 60, 68))
        self._next = self._table(self._fat_sectors(difat))
        _refuse_circles(self._next)
        _refuse_circles(self._table(self._chain(mini)))
        self._directory = b"".join(map(self._sector, self._chain(directory)))

    def stream(self, *names: str) -> bytes:
        """The bytes of the first stream that has one of these names; nothing without one."""
        for at in range(0, len(self._directory) - 127, 128):
            entry = self._directory[at : at + 128]
            name = entry[: max(int.from_bytes(entry[64:66], "little") - 2, 0)].decode("utf-16-le", "replace")
            size = int.from_bytes(entry[120:124], "little")
            if name in names and size >= _BIG_STREAM:
                sectors = self._chain(int.from_bytes(entry[116:120], "little"))
                return b"".join(map(self._sector, sectors))[:size]
        return b""

    def _sector(self, number: int) -> bytes:
        return self._data[(number + 1) * self._size : (number + 2) * self._size]

    def _table(self, sectors: Iterator[int]) -> list[int]:
        """The numbers that these sectors hold."""
        held = b"".join(map(self._sector, sectors))
        return list(struct.unpack(f"<{len(held) // 4}I", held[: len(held) // 4 * 4]))

    def _fat_sectors(self, difat: int) -> Iterator[int]:
        yield from _regular(struct.unpack_from(f"<{_HEADER_ENTRIES}I", self._data, 76))
        seen: set[int] = set()
        while difat < _REGULAR:
            held = self._table(iter((difat,)))
            if difat in seen or not held:
                raise CorruptDocument("the compound file is broken: its tables do not end")
            seen.add(difat)
            yield from _regular(held[:-1])
            difat = held[-1]

    def _chain(self, sector: int) -> Iterator[int]:
        while sector < len(self._next):
            yield sector
            sector = self._next[sector]


def _regular(numbers: tuple[int, ...] | list[int]) -> Iterator[int]:
    return (number for number in numbers if number < _REGULAR)


def _refuse_circles(following: list[int]) -> None:
    """Raises CorruptDocument when some chain comes back to itself."""
    walked = [-1] * len(following)
    for start in range(len(following)):
        sector = start
        while sector < len(following) and walked[sector] == -1:
            walked[sector] = start
            sector = following[sector]
        if sector < len(following) and walked[sector] == start and following[start] < _REGULAR:
            raise CorruptDocument("the compound file is broken: a chain of its sectors goes in a circle")
