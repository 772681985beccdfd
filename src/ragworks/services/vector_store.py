"""Chunks, vectors and words, per collection: one version of a document visible at a time, found by meaning or word."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import DocumentNotFound, InvalidInput, StorageFull
from ragworks.protocols import Clock
from ragworks.records import Adopted, Withdrawn
from ragworks.services.collecting import Collector, OnForgotten
from ragworks.services.examining import examine
from ragworks.services.following import GATHER_S, Follower
from ragworks.services.viewing import View
from ragworks.storage_protocols import Blobs, IndexHome, Rows
from ragworks.types import (
    Checkup,
    Collection,
    Document,
    Health,
    Page,
    Part,
    ReadDocument,
    ServiceHealth,
    Task,
)
from ragworks.waiting import to_its_end

NAME = "vector_store"
COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
DELETED_AT_ONCE = 50  # versions that a request or a start waits for: some tenths of a second
SEARCH_THREADS = 2


class VectorStore:
    """The service over rows, bytes and derived indexes. Also protocols.DocumentStore and protocols.StoredVectors."""

    def __init__(
        self,
        rows: Rows,
        blobs: Blobs,
        indexes: IndexHome,
        clock: Clock,
        gather_s: float = GATHER_S,
        on_forgotten: OnForgotten = lambda keys: None,
    ) -> None:
        self._rows, self._blobs, self._indexes = rows, blobs, indexes
        self._clock, self._gather_s = clock, gather_s
        self._followers: dict[str, Follower] = {}
        self._opening = asyncio.Lock()
        self._rebuilt = 0
        self._collector = Collector(rows, blobs, on_forgotten)
        # Of its own: searches must not wait behind index passes and fsyncs in the loop's default threads.
        self._threads = ThreadPoolExecutor(SEARCH_THREADS, thread_name_prefix="search")

    # service

    async def initialize(self) -> None:
        """Collect what a crash left behind, then bring every index up to its rows."""
        abandoned = await self._rows.abandoned()
        await asyncio.to_thread(self._blobs.clear_unfinished)
        kept = await asyncio.to_thread(self._blobs.hashes)
        with suppress(StorageFull):  # it is tried again before the next document is staged
            await self._delete(abandoned, kept)
        names: list[str] = []
        while (page := await self._rows.collections(100, names[-1] if names else None)).data:
            names += [collection.name for collection in page.data]
        await asyncio.to_thread(self._indexes.keep_only, names)
        for name in names:
            await self._follower(name)

    async def shutdown(self) -> None:
        await self._collector.close()
        while self._followers:
            await self._followers.popitem()[1].close()

    async def check_health(self) -> ServiceHealth:
        """Degraded while the disk refuses documents: what is there is still found."""
        await self._rows.collections(1, None)
        try:
            await asyncio.to_thread(self._blobs.room)
        except StorageFull as error:
            return ServiceHealth(NAME, Health.DEGRADED, details={**self.stats(), "reason": str(error)})
        return ServiceHealth(NAME, Health.HEALTHY, details=self.stats())

    def stats(self) -> Mapping[str, Any]:
        return {
            "collections_open": len(self._followers),
            "indexes_rebuilt": self._rebuilt,
            "being_collected": len(self._collector.leaving),
        }

    # collections and documents

    async def create_collection(self, name: str) -> Collection:
        if not COLLECTION_NAME.fullmatch(name):
            raise InvalidInput(
                "a collection's name has 1 to 128 letters, digits, dots, dashes or underscores and starts with a "
                f"letter or digit; found {name!r}"
            )
        return await self._rows.create_collection(name)

    async def collection(self, name: str) -> Collection:
        return await self._rows.collection(name)

    async def collections(self, limit: int, after: str | None) -> Page[Collection]:
        return await self._rows.collections(limit, after)

    async def drop_collection(self, name: str) -> None:
        """Returns when nothing of the collection can be found; rows and bytes of a large one go behind that.

        The collection ``default`` is emptied instead.
        """
        await to_its_end(self._drop(name))

    async def documents(
        self, collection: str, limit: int, after: str | None, origin: str | None = None
    ) -> Page[Document]:
        """In order of id; only those of ``origin``, if it is given."""
        return await self._rows.documents(collection, limit, after, origin)

    async def document(self, collection: str, document_id: str) -> Document:
        found = await self._rows.document(collection, document_id)
        if found is None:
            raise DocumentNotFound(collection, document_id)
        return found

    async def text(self, collection: str, document_id: str) -> str:
        return await self._rows.text(collection, document_id)

    async def delete_document(self, collection: str, document_id: str) -> None:
        """Returns when bytes, rows, vectors and words are gone; attempts under way are cancelled."""
        withdrawn = await self._rows.delete_document(collection, document_id)
        await to_its_end(self._retire(collection, withdrawn))

    async def forget_blobs(self, hashes: Iterable[str]) -> None:
        """Delete the bytes that nothing needs any more."""
        self._collector.owe((), hashes)
        await self._collector.collect()

    async def checkup(self) -> Checkup:
        """Compare documents, chunks, vectors, words and bytes; the collections stay usable meanwhile."""
        return await examine(self._rows, self._blobs, self._followers, lambda: self._collector.leaving)

    # protocols.DocumentStore

    async def current(self, collection: str, document_id: str) -> Document | None:
        return await self._rows.document(collection, document_id)

    async def adopt(self, task: Task, fingerprint: str) -> Adopted | None:
        adopted = await self._rows.adopt(task, fingerprint)
        if adopted:
            try:
                await self._rows.copy(adopted)
            except BaseException:  # also when cancelled: nobody else knows of it yet
                await asyncio.shield(self.discard(adopted.version))
                raise
        return adopted

    async def begin(self, task: Task, document: ReadDocument, fingerprint: str, dimension: int) -> int:
        await self._collector.collect()
        return await self._rows.begin(task, document, fingerprint, dimension)

    async def stage(
        self,
        version: int,
        part: Part,
        words: Sequence[str],
        keys: Sequence[bytes],
        vectors: Sequence[NDArray[np.float32]],
    ) -> None:
        await self._rows.stage(version, part, words, keys, vectors)

    async def publish(self, task: Task, version: int, warnings: Sequence[str] = ()) -> None:
        await to_its_end(self._publish(task, version, warnings))

    async def discard(self, version: int) -> None:
        self._collector.owe([version], ())
        await self._collector.collect()

    async def describe(self, task: Task) -> bool:
        changed = await self._rows.describe(task)
        await self._catch_up(task.collection)  # the attempt that published may have ended before it did
        return changed

    # protocols.StoredVectors

    async def stored_vectors(self, keys: Sequence[bytes]) -> Mapping[bytes, NDArray[np.float32]]:
        return await self._rows.stored_vectors(keys)

    # searching

    @asynccontextmanager
    async def view(self, collection: str) -> AsyncIterator[View]:
        """What the collection shows now, unchanged until the context is left. Raises CollectionNotFound."""
        await self._rows.collection(collection)
        follower = await self._follower(collection)
        if follower is None:
            yield View(collection, self._rows, None, {}, self._threads)
            return
        with follower.reading() as shown:
            yield View(collection, self._rows, follower.indexes, shown, self._threads)

    # following

    async def _catch_up(self, collection: str) -> None:
        if follower := await self._follower(collection):
            await follower.catch_up()

    async def _follower(self, name: str) -> Follower | None:
        """The follower of a collection; None while it has no documents, or when it is gone."""
        if known := self._followers.get(name):
            return known
        async with self._opening:
            if name not in self._followers:
                collection = await self._rows.collection(name)
                if not collection.dimension:
                    return None
                indexes = await asyncio.to_thread(self._indexes.open, name, collection.dimension)
                follower = Follower(name, self._rows, indexes, self._clock, self._gather_s)
                self._rebuilt += await follower.start()
                self._followers[name] = follower
            return self._followers[name]

    async def _publish(self, task: Task, version: int, warnings: Sequence[str]) -> None:
        await self._retire(task.collection, await self._rows.publish(task, version, warnings))

    async def _retire(self, collection: str, withdrawn: Withdrawn) -> None:
        """Let the indexes follow, and collect what is out of sight once nobody reads it any more."""
        try:
            if follower := await self._follower(collection):
                await follower.catch_up()
                await follower.settled()
        finally:  # an index that cannot be written is no reason to keep it for ever
            self._collector.owe(_versions([withdrawn]), withdrawn.hashes)
        await self._collector.collect()

    async def _drop(self, name: str) -> None:
        gone = await self._rows.drop_collection(name)
        async with self._opening:
            if follower := self._followers.pop(name, None):
                await follower.settled()
                await follower.close(save=False)
            await asyncio.to_thread(self._indexes.remove, name)
        await self._delete(_versions(gone), {one for withdrawn in gone for one in withdrawn.hashes})

    async def _delete(self, versions: Sequence[int], hashes: Iterable[str]) -> None:
        """Now, or behind everyone's back if it would take long."""
        if len(versions) > DELETED_AT_ONCE:
            self._collector.collect_behind(versions, hashes)
        else:
            self._collector.owe(versions, hashes)
            await self._collector.collect()


def _versions(withdrawn: Sequence[Withdrawn]) -> list[int]:
    return [one.version for one in withdrawn if one.version is not None]
