"""Chunks, vectors and words, per collection: one version of a document visible at a time, found by meaning or word."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import DocumentNotFound, InvalidInput, StorageFull
from ragworks.protocols import Blobs, Clock, Indexes, Rows
from ragworks.services.examining import examine
from ragworks.services.following import GATHER_S, Follower
from ragworks.types import (
    CHUNK_BITS,
    Checkup,
    Chunk,
    ChunkRow,
    Collection,
    Document,
    Health,
    Page,
    Query,
    ReadDocument,
    ServiceHealth,
    Task,
    chunk_keys,
)

NAME = "vector_store"
COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
EXACT_BELOW = 20_000  # allowed chunks that are compared one by one: about 30 ms, at recall 1 whatever the filter

OpenIndexes = Callable[[str, int], Indexes]
"""(collection, dimension) -> its indexes, as far as they were saved."""


class VectorStore:
    """The service over rows, bytes and derived indexes. Also protocols.DocumentStore and protocols.StoredVectors."""

    def __init__(
        self,
        rows: Rows,
        blobs: Blobs,
        open_indexes: OpenIndexes,
        remove_indexes: Callable[[str], None],
        clock: Clock,
        gather_s: float = GATHER_S,
    ) -> None:
        self._rows = rows
        self._blobs = blobs
        self._open_indexes = open_indexes
        self._remove_indexes = remove_indexes
        self._clock, self._gather_s = clock, gather_s
        self._followers: dict[str, Follower] = {}
        self._opening = asyncio.Lock()
        self._rebuilt = 0
        self._unwanted: set[int] = set()

    # service

    async def initialize(self) -> None:
        """Collect what a crash left behind, then bring every index up to its rows."""
        self._unwanted.update(await self._rows.abandoned())
        with suppress(StorageFull):  # it is tried again before the next document is staged
            await self._collect()
        await asyncio.to_thread(self._blobs.clear_unfinished)
        await self._release(await asyncio.to_thread(self._blobs.hashes))
        after: str | None = None
        while (page := await self._rows.collections(100, after)).data:
            for collection in page.data:
                await self._follower(collection.name)
            after = page.last_id

    async def shutdown(self) -> None:
        while self._followers:
            await self._followers.popitem()[1].close()

    async def check_health(self) -> ServiceHealth:
        await self._rows.collections(1, None)
        return ServiceHealth(NAME, Health.HEALTHY, details=self.stats())

    def stats(self) -> Mapping[str, Any]:
        return {"collections_open": len(self._followers), "indexes_rebuilt": self._rebuilt}

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
        gone = await self._rows.drop_collection(name)
        async with self._opening:
            if follower := self._followers.pop(name, None):
                await follower.close()
            await asyncio.to_thread(self._remove_indexes, name)
        for withdrawn in gone:
            await self._forget(withdrawn.version, withdrawn.hashes)

    async def documents(self, collection: str, limit: int, after: str | None) -> Page[Document]:
        return await self._rows.documents(collection, limit, after)

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
        await self._catch_up(collection)
        await self._forget(withdrawn.version, withdrawn.hashes)

    async def forget_blobs(self, hashes: Iterable[str]) -> None:
        """Delete the bytes that nothing needs any more."""
        await self._release(hashes)

    async def checkup(self) -> Checkup:
        """Compare documents, chunks, vectors, words and bytes; the collections stay usable meanwhile."""
        return await examine(self._rows, self._blobs, self._followers)

    # protocols.DocumentStore

    async def current(self, collection: str, document_id: str) -> Document | None:
        return await self._rows.document(collection, document_id)

    async def begin(self, task: Task, document: ReadDocument, fingerprint: str, dimension: int) -> int:
        await self._collect()
        return await self._rows.begin(task, document, fingerprint, dimension)

    async def stage(
        self,
        version: int,
        chunks: Sequence[Chunk],
        words: Sequence[str],
        keys: Sequence[bytes],
        vectors: Sequence[NDArray[np.float32]],
    ) -> None:
        await self._rows.stage(version, chunks, words, keys, vectors)

    async def publish(self, task: Task, version: int) -> None:
        work = asyncio.ensure_future(self._publish(task, version))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            # The transaction runs in a thread, which no cancel stops: half way is no place to leave it.
            await asyncio.gather(work, return_exceptions=True)
            raise

    async def discard(self, version: int) -> None:
        await self._forget(version, ())

    async def describe(self, task: Task) -> bool:
        changed = await self._rows.describe(task)
        await self._catch_up(task.collection)  # the attempt that published may have ended before it did
        return changed

    # protocols.StoredVectors

    async def stored_vectors(self, keys: Sequence[bytes]) -> Mapping[bytes, NDArray[np.float32]]:
        return await self._rows.stored_vectors(keys)

    # searching

    async def legs(
        self, collection: str, queries: Sequence[Query], limit: int, filter: Mapping[str, Any] | None
    ) -> tuple[dict[int, float], dict[int, float]]:
        """Dense and lexical scores by chunk key, each leg true for the union of both legs' best ``limit``.

        A leg's score is the weighted sum over ``queries``. Raises CollectionNotFound, UnusableFilter.
        """
        await self._rows.collection(collection)
        allowed = None if filter is None else await self._rows.matching(collection, filter)
        follower = await self._follower(collection)
        if follower is None or (allowed is not None and not allowed):
            return {}, {}
        return await asyncio.to_thread(_legs, follower.indexes, queries, limit, allowed)

    async def chunks(self, collection: str, keys: Sequence[int]) -> Mapping[int, ChunkRow]:
        """The rows of the visible chunks among ``keys``."""
        return await self._rows.chunks(collection, keys)

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
                indexes = await asyncio.to_thread(self._open_indexes, name, collection.dimension)
                follower = Follower(name, self._rows, indexes, self._clock, self._gather_s)
                self._rebuilt += await follower.start()
                self._followers[name] = follower
            return self._followers[name]

    async def _publish(self, task: Task, version: int) -> None:
        replaced = await self._rows.publish(task, version)
        try:
            await self._catch_up(task.collection)
        finally:
            await self._forget(replaced.version, replaced.hashes)

    async def _forget(self, version: int | None, hashes: Iterable[str]) -> None:
        if version is not None:
            self._unwanted.add(version)
        await self._release(hashes)
        await self._collect()

    async def _collect(self) -> None:
        """Delete unwanted versions, also those that a full disk has kept so far."""
        for version in list(self._unwanted):
            await self._rows.collect(version)
            self._unwanted.discard(version)

    async def _release(self, hashes: Iterable[str]) -> None:
        if wanted := list(hashes):
            await self._rows.release(wanted, self._blobs.remove)


def _legs(
    indexes: Indexes, queries: Sequence[Query], limit: int, allowed: Mapping[int, int] | None
) -> tuple[dict[int, float], dict[int, float]]:
    keys: set[int] = set()
    for query in queries:
        if query.vector is not None:
            keys |= {key for key, _ in _nearest(indexes, query.vector, limit, allowed)}
        if query.words:
            keys |= {
                key for key, _ in indexes.words.search(query.words, limit, None if allowed is None else list(allowed))
            }
    union = sorted(keys)
    dense: dict[int, float] = {}
    lexical: dict[int, float] = {}
    for query in queries:
        if query.vector is not None:
            _add(dense, indexes.vectors.scores(query.vector, union), query.weight)
        if query.words:
            _add(lexical, {**dict.fromkeys(union, 0.0), **indexes.words.scores(query.words, union)}, query.weight)
    return dense, lexical


def _add(total: dict[int, float], scores: Mapping[int, float], weight: float) -> None:
    for key, score in scores.items():
        total[key] = total.get(key, 0.0) + weight * score


def _nearest(
    indexes: Indexes, vector: NDArray[np.float32], limit: int, allowed: Mapping[int, int] | None
) -> list[tuple[int, float]]:
    """Exact among few allowed chunks; among many, the graph is asked for more until enough are allowed."""
    if allowed is None:
        return indexes.vectors.search(vector, limit)
    if sum(allowed.values()) <= EXACT_BELOW:
        keys = np.concatenate([chunk_keys(version, count) for version, count in allowed.items()])
        return indexes.vectors.search(vector, limit, keys)
    asked = 4 * limit
    while True:
        found = indexes.vectors.search(vector, asked)
        kept = [(key, score) for key, score in found if key >> CHUNK_BITS in allowed]
        if len(kept) >= limit or len(found) < asked:
            return kept[:limit]
        asked *= 4
