"""READ FIRST: how a document becomes searchable.

document -> parse -> clean -> enrich -> chunk -> embed -> store
            └──────── in a worker process ───────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ragworks.errors import EmbeddingFailed
from ragworks.protocols import DocumentStore, Embedder, OnStage, Reader
from ragworks.text.chunk import embed_text
from ragworks.types import Document, Part, ReadDocument, Stage, Task
from ragworks.waiting import from_thread


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an attempt came to. ``unchanged``: these bytes were indexed under this id already."""

    unchanged: bool
    warnings: tuple[str, ...] = ()


async def ingest(
    task: Task, *, reader: Reader, embedder: Embedder, store: DocumentStore, on_stage: OnStage
) -> Ingested:
    """Make the task's document visible to searches, or leave what was visible as it was.

    Raises a DocumentError when it cannot be indexed, LeaseLost when it no longer should be.
    """
    current = await store.current(task.collection, task.document_id)
    if current and _holds(current, task):
        await store.describe(task)
        return Ingested(unchanged=current.task_id != task.id, warnings=current.warnings)

    if same := await store.adopt(task, embedder.fingerprint):  # a file that was renamed is not read again
        async with _discarded_unless_published(same.version, store):
            await store.publish(task, same.version)
        return Ingested(unchanged=False, warnings=same.warnings)

    async with reader.read(task, on_stage) as document:
        on_stage(Stage.EMBEDDING)
        version = await store.begin(task, document, embedder.fingerprint, embedder.dimension)
        async with _discarded_unless_published(version, store):
            parts = from_thread(document.parts)
            cut = [await _embed_and_stage(version, document, part, embedder, store) async for part in parts]
            warnings = _said_of(sum(cut))
            on_stage(Stage.STORING)
            await store.publish(task, version, warnings)
    return Ingested(unchanged=False, warnings=(*document.warnings, *warnings))


def _said_of(cut: int) -> Sequence[str]:
    if not cut:
        return ()
    return (
        f"passages longer than the embedding model reads: {cut}; their ends are found by words only; lower "
        "document_processor.chunk_tokens",
    )


def _holds(current: Document, task: Task) -> bool:
    """Same bytes, and a title that says the same: a title is part of what is embedded."""
    return current.content_hash == task.content_hash and task.title in (None, current.title)


@asynccontextmanager
async def _discarded_unless_published(version: int, store: DocumentStore) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:  # also when cancelled: what was staged is never seen, and need not stay
        await asyncio.shield(store.discard(version))
        raise


async def _embed_and_stage(
    version: int, document: ReadDocument, part: Part, embedder: Embedder, store: DocumentStore
) -> int:
    """How many passages the model read only the beginning of."""
    texts = [embed_text(chunk, document.embedded_title) for chunk in part.chunks]
    result = await embedder.embed_texts(texts)
    if result.failed:
        first = result.failed[0]
        raise EmbeddingFailed(
            f"{len(result.failed)} of {len(texts)} passages could not be embedded: {first.reason}",
            transient=any(one.transient for one in result.failed),
        )
    vectors = [vector for vector in result.embeddings if vector is not None]
    words = [f"{document.title}\n{chunk.prefix}" for chunk in part.chunks]
    await store.stage(version, part, words, [embedder.embedding_key(text) for text in texts], vectors)
    return len(result.truncated)
