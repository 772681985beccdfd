"""Vectors in memory by content, and the promise that no key is computed twice at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import numpy as np
from cachetools import TTLCache
from numpy.typing import NDArray

V = TypeVar("V")


ENTRY_BYTES = 400
"""What an entry takes beside its vector: key, links, date, headers of objects (392 by tracemalloc)."""


class VectorCache:
    """At most ``max_size`` vectors in at most ``max_bytes``, each for ``ttl_s`` seconds; the least recently used goes
    first.

    Held as float32 bytes: a hit is exactly what the model gave, which float16 is not; a list of floats takes ten times
    as much. ``max_size`` 0 keeps none.
    """

    def __init__(self, max_size: int, ttl_s: float, timer: Callable[[], float], *, max_bytes: int = 2**62) -> None:
        self._max_size = max_size
        self._entries = _Counting(max_bytes, ttl_s, timer, getsizeof=_size)

    def get(self, key: bytes) -> tuple[NDArray[np.float32], bool] | None:
        """(vector, whether its text was truncated). The vector is read-only."""
        found = self._entries.get(key)
        return None if found is None else (np.frombuffer(found[0], np.float32), found[1])

    def put(self, key: bytes, vector: NDArray[np.float32], truncated: bool) -> None:
        entry = (vector.tobytes(), truncated)
        if self._max_size < 1 or _size(entry) > self._entries.maxsize:
            return
        if key not in self._entries and len(self._entries) >= self._max_size:
            self._entries.popitem()
        self._entries[key] = entry

    def drop(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._entries.pop(key, None)

    def clear(self) -> int:
        """Forget everything; how many there were."""
        count = len(self)
        self._entries.clear()
        return count

    @property
    def bytes_held(self) -> int:
        """Bytes of all entries, what it takes to find them included."""
        return int(self._entries.currsize)

    @property
    def evictions(self) -> int:
        """How many had to leave for want of room; those whose time was over are none."""
        return self._entries.evictions

    def __len__(self) -> int:
        return len(self._entries)


class _Counting(TTLCache[bytes, tuple[bytes, bool]]):
    evictions = 0

    def popitem(self) -> tuple[bytes, tuple[bytes, bool]]:
        found = super().popitem()
        self.evictions += 1
        return found


def _size(entry: tuple[bytes, bool]) -> int:
    return len(entry[0]) + ENTRY_BYTES


class InFlight(Generic[V]):
    """Who computes what: the first to ask for a key owns it, the others wait for the owner."""

    def __init__(self) -> None:
        self._futures: dict[bytes, asyncio.Future[V | None]] = {}

    def claim(self, keys: Iterable[bytes]) -> tuple[list[bytes], dict[bytes, asyncio.Future[V | None]]]:
        """(keys that the caller must now compute and ``settle``, keys that another call is computing).

        A future of another call becomes None if that call was given up: then ask again.
        """
        mine: list[bytes] = []
        theirs: dict[bytes, asyncio.Future[V | None]] = {}
        for key in keys:
            if key in self._futures:
                theirs[key] = self._futures[key]
            else:
                self._futures[key] = asyncio.get_running_loop().create_future()
                mine.append(key)
        return mine, theirs

    def settle(self, key: bytes, value: V | None) -> None:
        """Hand the value to those who wait; None says that it was given up. Settling twice is harmless."""
        future = self._futures.pop(key, None)
        if future is not None and not future.done():
            future.set_result(value)
