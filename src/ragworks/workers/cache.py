"""Vectors in memory by content, and the promise that no key is computed twice at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import numpy as np
from cachetools import Cache, TTLCache
from numpy.typing import NDArray

V = TypeVar("V")


class VectorCache:
    """At most ``max_size`` vectors, each for ``ttl_s`` seconds; the least recently used goes first.

    Held as float32 bytes (1.6 KB at 384 dimensions; a list of floats would be 15.5 KB). ``max_size`` 0 keeps none.
    """

    def __init__(self, max_size: int, ttl_s: float, timer: Callable[[], float]) -> None:
        self._entries: Cache[bytes, tuple[bytes, bool]] = TTLCache(max_size, ttl_s, timer)
        self._vector_bytes = 0

    def get(self, key: bytes) -> tuple[NDArray[np.float32], bool] | None:
        """(vector, whether its text was truncated). The vector is read-only."""
        found = self._entries.get(key)
        return None if found is None else (np.frombuffer(found[0], np.float32), found[1])

    def put(self, key: bytes, vector: NDArray[np.float32], truncated: bool) -> None:
        if self._entries.maxsize >= 1:
            self._entries[key] = (vector.tobytes(), truncated)
            self._vector_bytes = vector.nbytes

    def clear(self) -> int:
        """Forget everything; how many there were."""
        count = len(self)
        self._entries.clear()
        return count

    @property
    def bytes_held(self) -> int:
        """Of the vectors alone, which are all of one size: looking at each would make it the last one used."""
        return len(self) * self._vector_bytes

    def __len__(self) -> int:
        return len(self._entries)


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
