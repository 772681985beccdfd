"""Keeps the two indexes of one collection up with its rows, by following their changes in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from ragworks.errors import StorageFull
from ragworks.protocols import Clock
from ragworks.records import CHUNK_BITS, Change, IndexRows, chunk_keys
from ragworks.storage_protocols import Indexes, Rows

PAGE = 500  # changes, and chunks, read and indexed at a time, so that memory stays small whatever the document
# A pass costs about 10 CPU-ms and 20 ms, however little it takes in; an idle index takes a change in at once.
GATHER_S = 0.1
SETTLE_S = 10.0


class Follower:
    """One collection's indexes, and which versions they show.

    A new version is put in completely, then shown in place of the old one at a stroke, and only then is the old one
    taken out: whoever reads in between finds one or the other.
    """

    def __init__(self, collection: str, rows: Rows, indexes: Indexes, clock: Clock, gather_s: float = GATHER_S) -> None:
        self.indexes = indexes
        self._collection, self._rows, self._clock, self._gather_s = collection, rows, clock, gather_s
        self._shown: Mapping[int, int] = {}
        self._readers: set[asyncio.Future[None]] = set()
        self._pass: asyncio.Task[None] | None = None
        self._applied_at = -gather_s
        self._asked = self._served = self._pruned_to = 0
        self._closed = False

    async def start(self) -> bool:
        """Catch up, then prove that the index holds what is visible. True if it had to be rebuilt.

        On a full disk it shows what it holds already; the next ``catch_up`` takes in the rest.
        """
        stale = self.indexes.seq > (await self._rows.visible(self._collection)).seq  # from another life of this folder
        if not stale:
            try:
                await self.catch_up()
            except StorageFull:
                await self._show_held()
                return False
            stale = not await self._agrees()
        if stale:
            await asyncio.to_thread(self.indexes.reset)
            await self.catch_up()
            await self._agrees()
        return stale

    async def catch_up(self) -> None:
        """Return once every change that was committed before the call is in both indexes, or these are closed.

        Calls within ``gather_s`` of each other share one pass. A pass that has begun is never cut short: it runs in a
        thread, and a second one beside it would undo its work.
        """
        self._asked += 1
        mine = self._asked
        while self._served < mine and not self._closed:
            if self._pass is None or self._pass.done():
                # Awaited by every caller of catch_up that it serves, and by close.
                self._pass = asyncio.create_task(self._take_in(), name=f"index-{self._collection}")
                self._pass.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.shield(self._pass)

    @contextmanager
    def reading(self) -> Iterator[Mapping[int, int]]:
        """{version: chunk count} of what is shown now; their rows stay until the context is left."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._readers.add(done)
        try:
            yield self._shown
        finally:
            self._readers.discard(done)
            done.set_result(None)

    async def settled(self) -> None:
        """Return when everyone has left who was reading before this call."""
        if readers := set(self._readers):
            await asyncio.wait(readers, timeout=SETTLE_S)

    async def close(self, *, save: bool = True) -> None:
        """Let go of the indexes; ``save`` them unless they are to be deleted. Raises StorageFull."""
        self._closed = True  # who waits for a pass must not begin another
        if self._pass:
            await asyncio.gather(self._pass, return_exceptions=True)
        await asyncio.to_thread(self.indexes.close, save=save)

    async def _take_in(self) -> None:
        wait = self._applied_at + self._gather_s - self._clock.monotonic()
        if wait > 0 and self._gather_s:
            await self._clock.sleep(wait)
        serving, more = self._asked, True
        while more and (changes := await self._rows.changes(self._collection, self.indexes.seq, PAGE)):
            await self._apply(changes)
            more = len(changes) == PAGE
            self._applied_at = self._clock.monotonic()
        if self.indexes.saved_seq > self._pruned_to:
            self._pruned_to = self.indexes.saved_seq
            with suppress(StorageFull):  # it is tried again after the next save
                await self._rows.prune(self._collection, self._pruned_to)
        self._served = serving

    async def _apply(self, changes: Sequence[Change]) -> None:
        last = {change.version: change for change in changes}
        added = {one.version: one.chunk_count for one in last.values() if one.added}
        removed = {one.version: one.chunk_count for one in last.values() if not one.added}
        seq = changes[-1].seq
        forget = list(added.items())  # what an earlier pass, cut off by a crash, may have put in
        page: list[tuple[int, IndexRows]] = []
        async for version, rows in self._rows_of(added):
            page.append((version, rows))
            if sum(len(one.texts) for _, one in page) >= PAGE:
                await asyncio.to_thread(self.indexes.apply, forget, page, self.indexes.seq)
                forget, page = [], []
        await asyncio.to_thread(self.indexes.apply, forget, page, self.indexes.seq if removed else seq)
        self._shown = {**{version: n for version, n in self._shown.items() if version not in removed}, **added}
        if removed:
            await asyncio.to_thread(self.indexes.apply, list(removed.items()), [], seq)

    async def _rows_of(self, versions: Iterable[int]) -> AsyncIterator[tuple[int, IndexRows]]:
        for version in versions:
            after = -1
            while (rows := await self._rows.index_rows(version, after, PAGE)).texts:
                yield version, rows
                if len(rows.texts) < PAGE:
                    break
                after = int(rows.keys[-1])

    async def _agrees(self) -> bool:
        """Show what is visible, as far as the indexes hold it; False if they do not."""
        while (visible := await self._rows.visible(self._collection)).seq != self.indexes.seq and visible.seq:
            await self.catch_up()
        self._shown = dict(visible.versions)
        return await asyncio.to_thread(self._holds, visible.versions)

    async def _show_held(self) -> None:
        visible = (await self._rows.visible(self._collection)).versions
        held = await asyncio.to_thread(self._held)
        self._shown = {version: count for version, count in visible.items() if held.get(version, 0) == count}

    def _held(self) -> dict[int, int]:
        """How many chunks of each version are in both indexes."""
        both = np.intersect1d(self.indexes.vectors.keys(), self.indexes.words.keys())
        versions, counts = np.unique(both >> np.uint64(CHUNK_BITS), return_counts=True)
        return dict(zip(versions.tolist(), counts.tolist(), strict=True))

    def _holds(self, versions: Mapping[int, int]) -> bool:
        expected = [chunk_keys(version, count) for version, count in versions.items()]
        keys = np.sort(np.concatenate(expected)) if expected else np.array([], dtype=np.uint64)
        return all(np.array_equal(keys, np.sort(index.keys())) for index in (self.indexes.vectors, self.indexes.words))
