"""Which calls a replica takes, and when the last of them has ended, wherever it lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Generic, TypeVar

from ragworks.errors import NotReady, ReplicaGone

MAX_CALLS = 64
PROBES = 8
"""Calls of ``check_health`` beyond ``max_calls``: a full replica is busy, not dead."""

Asked = TypeVar("Asked")


class Admission(Generic[Asked]):
    """The calls of one replica that somebody waits for."""

    def __init__(self, replica_id: str, max_calls: int) -> None:
        self.waiting: set[Asked] = set()
        self.ending = ""
        """What the replica was asked to do, if it was: then it takes no more calls."""
        self.gone = ""
        """What became of it, once it is gone."""
        self._id, self._max_calls = replica_id, max_calls
        self._none = asyncio.Event()

    def check(self, verb: str, in_flight: int) -> None:
        """Raises ReplicaGone or NotReady if another call beside so many cannot be taken."""
        if self.gone:
            raise ReplicaGone(f"{self._id} is gone: it {self.gone}")
        if self.ending:
            raise NotReady(f"{self._id} takes no more calls: it {self.ending}")
        if in_flight >= self._max_calls + (PROBES if verb == "check_health" else 0):
            raise NotReady(f"{self._id} has {in_flight} calls in flight, and takes {self._max_calls}")

    @contextlib.contextmanager
    def holding(self, asked: Asked) -> Iterator[None]:
        self.waiting.add(asked)
        try:
            yield
        finally:
            self.waiting.discard(asked)
            if not self.waiting:
                self._none.set()

    async def drain(self, drain_s: float) -> None:
        """Return when nobody waits any more, or after so many seconds."""
        if not self.waiting:
            return
        self._none.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._none.wait()
