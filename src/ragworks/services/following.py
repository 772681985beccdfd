"""Keeps the two indexes of one collection up with its rows, by following their changes in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from ragworks.protocols import Indexes, Rows
from ragworks.types import Change, IndexRows, chunk_keys

PAGE = 500  # chunks read and indexed at a time, so that memory stays small whatever the document


class Follower:
    """One collection's indexes. Calls of ``catch_up`` that arrive together share one pass over the changes."""

    def __init__(self, collection: str, rows: Rows, indexes: Indexes) -> None:
        self.indexes = indexes
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
        async with self._turn:
            while changes := await self._rows.changes(self._collection, self.indexes.seq):
                await self._apply(changes)

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
            while change.added and len((rows := await self._rows.index_rows(change.version, after, PAGE)).texts):
                yield change.version, rows
                after = int(rows.keys[-1])

    async def _agrees(self) -> bool:
        visible = await self._rows.visible(self._collection)
        expected = {int(key) for version, count in visible.versions.items() for key in chunk_keys(version, count)}
        vectors, words = await asyncio.to_thread(lambda: (self.indexes.vectors.keys(), self.indexes.words.keys()))
        return expected == set(vectors.tolist()) == set(words.tolist())
