"""A data folder's storage, opened for a test, and short ways to put documents into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragworks.records import Incoming, Load, Query
from ragworks.services.vector_store import VectorStore
from ragworks.storage.blobs import FileBlobs
from ragworks.storage.documents import SqliteRows
from ragworks.storage.folder import DataFolder
from ragworks.storage.indexes import IndexFolder
from ragworks.storage.jobs import SqliteJobs
from ragworks.storage.sqlite import Database
from ragworks.testing import FakeClock
from ragworks.text.parts import parts
from ragworks.types import Chunk, ReadDocument, Task, TitleFrom

DIMENSION = 8
ROOM = Load(1000, 10**9)


@dataclass(frozen=True)
class Opened:
    """Everything below one folder, on one fake clock."""

    clock: FakeClock
    folder: DataFolder
    database: Database
    rows: SqliteRows
    jobs: SqliteJobs
    blobs: FileBlobs
    store: VectorStore
    forgotten: list[bytes]
    """The embedding keys that caches were told to forget."""


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Opened]:
    clock = FakeClock()
    folder = DataFolder(str(path))
    folder.open()
    database = Database(folder.database)
    database.open()
    rows, jobs, blobs = SqliteRows(database, clock), SqliteJobs(database, clock), FileBlobs(folder.blobs)
    forgotten: list[bytes] = []
    store = VectorStore(
        rows,
        blobs,
        IndexFolder(folder.index),
        clock,
        gather_s=0,
        on_forgotten=forgotten.extend,
    )
    await store.initialize()
    try:
        yield Opened(clock, folder, database, rows, jobs, blobs, store, forgotten)
    finally:
        await store.shutdown()
        database.close()
        folder.close()


def incoming(document_id: str, content_hash: str = "", size_bytes: int = 1, **fields: object) -> Incoming:
    known = {"name": document_id, "title": None, "metadata": {}, "media_type": None, **fields}
    return Incoming(
        document_id=document_id,
        content_hash=content_hash or f"hash-{document_id}",
        size_bytes=size_bytes,
        **known,  # type: ignore[arg-type]
    )


async def claimed(at: Opened, document_id: str, collection: str = "default", text: str = "", **fields: object) -> Task:
    """A task for ``text`` that was accepted and claimed."""
    content_hash, size = at.blobs.put(text.encode() or document_id.encode())
    await at.jobs.accept(collection, [incoming(document_id, content_hash, size, **fields)], ROOM, None, "")
    at.blobs.unpin([content_hash])
    task = await at.jobs.claim()
    assert task is not None
    return task


def read(
    text: str,
    pieces: int = 1,
    title: str = "Title",
    title_from: TitleFrom = "document",
    properties: Mapping[str, object] | None = None,
) -> ReadDocument:
    """``text`` cut into so many chunks of equal length."""
    size = -(-len(text) // pieces)
    chunks = tuple(
        Chunk(at, at * size, min(len(text), (at + 1) * size), text[at * size : (at + 1) * size]) for at in range(pieces)
    )
    made = tuple(parts(text, chunks))
    return ReadDocument(title, title_from, "text/plain", pieces, made, properties=properties or {})


def vector(text: str) -> np.ndarray:
    """A unit vector that depends on the text alone."""
    made = np.random.default_rng(sum(text.encode()) + len(text)).normal(size=DIMENSION).astype(np.float32)
    return made / np.linalg.norm(made)


async def publish(
    at: Opened,
    document_id: str,
    text: str,
    pieces: int = 1,
    properties: Mapping[str, object] | None = None,
    **fields: object,
) -> Task:
    """Take a document all the way to being visible and its task to completed."""
    task = await claimed(at, document_id, text=text, **fields)
    version = await stage(at, task, read(text, pieces, properties=properties))
    await at.store.publish(task, version)
    await at.jobs.finish(task, unchanged=False, warnings=())
    return task


async def found(at: Opened, words: str, filter: dict | None = None, collection: str = "default") -> set[str]:
    """The documents that a search by words alone shows."""
    async with at.store.view(collection) as view:
        legs = await view.legs([Query(None, words)], 10, filter)
        assert not legs.dense
        return {row.document_id for row in (await view.chunks(list(legs.lexical))).values()}


def key_of(text: str) -> bytes:
    return text.encode()[:16]


async def stage(at: Opened, task: Task, document: ReadDocument, fingerprint: str = "model") -> int:
    version = await at.store.begin(task, document, fingerprint, DIMENSION)
    for part in document.parts:
        texts = [chunk.text for chunk in part.chunks]
        keys = [key_of(text) for text in texts]
        await at.store.stage(version, part, ["" for _ in texts], keys, [vector(text) for text in texts])
    return version
