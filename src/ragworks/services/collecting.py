"""Deletes what nobody can find any more: rows of versions that are out of sight, bytes that nothing needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice

from ragworks.errors import StorageFull
from ragworks.storage_protocols import Blobs, Rows
from ragworks.waiting import to_its_end

OnForgotten = Callable[[Sequence[bytes]], None]
"""Told the embedding keys of deleted chunks, some hundred at a time. Must return at once and must not raise."""

RELEASED_AT_ONCE = 500
COLLECTED_AT_ONCE = 16  # their writes share a commit; more would hold up the writes of others


class Collector:
    """What is owed is deleted by the next ``collect``, or behind everyone's back.

    Nothing of it needs to be remembered: what a full disk or a dead server kept is found again at the next start.
    """

    def __init__(self, rows: Rows, blobs: Blobs, on_forgotten: OnForgotten) -> None:
        self._rows, self._blobs, self._on_forgotten = rows, blobs, on_forgotten
        self._versions: set[int] = set()
        self._hashes: set[str] = set()
        self._leaving: set[int | str] = set()
        self._behind: set[asyncio.Task[None]] = set()

    @property
    def leaving(self) -> frozenset[int | str]:
        """Versions and content hashes that are being deleted behind: still there, and nobody's."""
        return frozenset(self._leaving)

    def owe(self, versions: Iterable[int], hashes: Iterable[str]) -> None:
        self._versions.update(versions)
        self._hashes.update(hashes)

    async def collect(self) -> None:
        """Return once everything owed is gone. Raises StorageFull; then it stays owed. A cancel waits for the end."""
        # Rows that were deleted without a word would stay in the cache.
        await to_its_end(self._work_off(self._versions, self._hashes))

    def collect_behind(self, versions: Iterable[int], hashes: Iterable[str]) -> None:
        """Delete these while others go on; whatever is left at ``close`` is for the next start."""
        # Awaited by close.
        work = asyncio.create_task(self._leave(set(versions), set(hashes)), name="collect-behind")
        self._behind.add(work)
        work.add_done_callback(self._behind.discard)

    async def close(self) -> None:
        for work in list(self._behind):
            work.cancel()
        await asyncio.gather(*self._behind, return_exceptions=True)

    async def _leave(self, versions: set[int], hashes: set[str]) -> None:
        leaving: set[int | str] = {*versions, *hashes}
        self._leaving |= leaving
        try:
            with suppress(StorageFull):
                await self._work_off(versions, hashes)
        finally:
            self._leaving -= leaving

    async def _work_off(self, versions: set[int], hashes: set[str]) -> None:
        """Empty both sets; what two callers have at once is deleted twice, so that neither returns too early."""
        while some := list(islice(hashes, RELEASED_AT_ONCE)):
            await self._rows.release(some, self._blobs.remove)
            hashes.difference_update(some)
        while part := list(islice(versions, COLLECTED_AT_ONCE)):
            collected = [self._rows.collect(version, self._on_forgotten) for version in part]
            done = await asyncio.gather(*collected, return_exceptions=True)
            versions.difference_update(one for one, error in zip(part, done, strict=True) if error is None)
            if error := next((one for one in done if one is not None), None):
                raise error
