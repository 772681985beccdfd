"""Keeps the two indexes of one collection up with its rows, by following their changes in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from ragworks.protocols import Clock, Indexes, Rows
from ragworks.types import Change, IndexRows, chunk_keys

PAGE = 500  # changes, and chunks, read and indexed at a time, so that memory stays small whatever the document
# A pass costs about 10 CPU-ms and 20 ms, however little it takes in; an idle index takes a change in at once.
GATHER_S = 0.1


class Follower:
    """One collection's indexes. Calls of ``catch_up`` within ``gather_s`` of each other share one pass."""

    def __init__(self, collection: str, rows: Rows, indexes: Indexes, clock: Clock, gather_s: float = GATHER_S) -> None:
        self.indexes = indexes
        self._clock, self._gather_s = clock, gather_s
        self._applied_at = -gather_s
        self._asked = self._served = 0
        self._collection = collection
        self._rows = rows
        self._turn = asyncio.Lock()

    async def start(self) -> bool:
        """Catch up, then prove that the index holds what is visible. True if it had to be rebuilt."""
        seq = (await self._rows.visible(self._collection)).seq
        stale = self.indexes.seq > seq  # an index from another life of this folder
        if not stale:
            await self.catch_up()
            stale = not await self._agrees()
        if stale:
            await asyncio.to_thread(self.indexes.reset)
            await self.catch_up()
        return stale

    async def catch_up(self) -> None:
        """Return once every change that was committed before the call is in both indexes."""
        self._asked += 1
        mine = self._asked
        async with self._turn:
            if self._served >= mine:  # a pass that began after this call has taken everything in
                return
            wait = self._applied_at + self._gather_s - self._clock.monotonic()
            if wait > 0 and self._gather_s:
                await self._clock.sleep(wait)
            serving, more = self._asked, True
            while more and (changes := await self._rows.changes(self._collection, self.indexes.seq, PAGE)):
                await self._apply(changes)
                more = len(changes) == PAGE
                self._applied_at = self._clock.monotonic()
            self._served = serving

    async def close(self) -> None:
        async with self._turn:
            await asyncio.to_thread(self.indexes.close)

    async def _apply(self, changes: Sequence[Change]) -> None:
        last = {change.version: change for change in changes}
        forget = [(change.version, change.chunk_count) for change in last.values()]
        page: list[tuple[int, IndexRows]] = []
        async for version, rows in self._added(last.values()):
            page.append((version, rows))
            if sum(len(one.texts) for _, one in page) >= PAGE:
                await asyncio.to_thread(self.indexes.apply, forget, page, self.indexes.seq)
                forget, page = [], []
        await asyncio.to_thread(self.indexes.apply, forget, page, changes[-1].seq)

    async def _added(self, changes: Iterable[Change]) -> AsyncIterator[tuple[int, IndexRows]]:
        for change in changes:
            after = -1
            while change.added and (rows := await self._rows.index_rows(change.version, after, PAGE)).texts:
                yield change.version, rows
                if len(rows.texts) < PAGE:
                    break
                after = int(rows.keys[-1])

    async def _agrees(self) -> bool:
        visible = await self._rows.visible(self._collection)
        expected = {int(key) for version, count in visible.versions.items() for key in chunk_keys(version, count)}
        vectors, words = await asyncio.to_thread(lambda: (self.indexes.vectors.keys(), self.indexes.words.keys()))
        return expected == set(vectors.tolist()) == set(words.tolist())
