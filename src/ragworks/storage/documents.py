"""Collections, documents, versions and chunks as SQLite rows (storage_protocols.Rows)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import CollectionExists, DocumentNotFound
from ragworks.protocols import Clock
from ragworks.records import CHUNK_BITS, Adopted, Census, Change, ChunkRow, IndexRows, Visible, Withdrawn
from ragworks.storage import census, versions
from ragworks.storage.filters import compile_filter
from ragworks.storage.migrations import DEFAULT_COLLECTION
from ragworks.storage.sqlite import Database
from ragworks.storage.versions import collection as known
from ragworks.types import Collection, Document, Metadata, Page, Part, ReadDocument, Task

BATCH = 500
DOCUMENT = """
    SELECT d.*, v.content_hash, v.size_bytes, v.media_type, v.chunk_count, v.pages, v.properties, v.warnings, v.task_id
    FROM documents d JOIN versions v ON v.id = d.version
"""
NEEDED = """
    SELECT 1 FROM documents d JOIN versions v ON v.id = d.version WHERE v.content_hash = ?
    UNION ALL SELECT 1 FROM tasks WHERE content_hash = ? AND state IN ('queued', 'in_progress', 'failed') LIMIT 1
"""


class SqliteRows:
    """The rows of documents. A method is one transaction; ``copy``, ``collect`` and ``prune`` are several."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # collections

    async def create_collection(self, name: str) -> Collection:
        def work(db: sqlite3.Connection) -> Collection:
            try:
                db.execute("INSERT INTO collections (name, created_at) VALUES (?, ?)", (name, self._clock.now()))
            except sqlite3.IntegrityError as error:
                raise CollectionExists(name) from error
            return known(db, name)

        return await self._database.write(work)

    async def collection(self, name: str) -> Collection:
        return await self._database.read(lambda db: known(db, name))

    async def collections(self, limit: int, after: str | None) -> Page[Collection]:
        def work(db: sqlite3.Connection) -> Page[Collection]:
            rows = db.execute(
                "SELECT * FROM collections WHERE name > ? ORDER BY name LIMIT ?", (after or "", limit + 1)
            ).fetchall()
            return _page([Collection(**row) for row in rows], limit, lambda item: item.name)

        return await self._database.read(work)

    async def drop_collection(self, name: str) -> Sequence[Withdrawn]:
        def work(db: sqlite3.Connection) -> list[Withdrawn]:
            known(db, name)
            shown = db.execute(
                "SELECT v.id, v.content_hash FROM documents d JOIN versions v ON v.id = d.version "
                "WHERE d.collection = ?",
                (name,),
            ).fetchall()
            cancelled = db.execute(
                "UPDATE tasks SET state = 'cancelled', finished_at = ? "
                "WHERE collection = ? AND state IN ('queued', 'in_progress', 'failed') RETURNING content_hash",
                (self._clock.now(), name),
            ).fetchall()
            # Its changes too: the next collection of this name must not take in rows that are still being deleted.
            for table in ("documents", "changes"):
                db.execute(f"DELETE FROM {table} WHERE collection = ?", (name,))
            db.execute("DELETE FROM collections WHERE name = ?", (name,))
            if name == DEFAULT_COLLECTION:  # there always is one
                db.execute("INSERT INTO collections (name, created_at) VALUES (?, ?)", (name, self._clock.now()))
            return [
                *(Withdrawn(version, frozenset([content_hash])) for version, content_hash in shown),
                Withdrawn(None, frozenset(row["content_hash"] for row in cancelled if row["content_hash"])),
            ]

        return await self._database.write(work)

    # documents

    async def document(self, collection: str, document_id: str) -> Document | None:
        def work(db: sqlite3.Connection) -> Document | None:
            known(db, collection)
            row = db.execute(f"{DOCUMENT} WHERE d.collection = ? AND d.id = ?", (collection, document_id)).fetchone()
            return _document(row) if row else None

        return await self._database.read(work)

    async def documents(
        self, collection: str, limit: int, after: str | None, origin: str | None = None
    ) -> Page[Document]:
        def work(db: sqlite3.Connection) -> Page[Document]:
            known(db, collection)
            rows = db.execute(
                f"{DOCUMENT} WHERE d.collection = ? AND d.id > ? AND d.origin IS coalesce(?, d.origin) "
                "ORDER BY d.id LIMIT ?",
                (collection, after or "", origin, limit + 1),
            ).fetchall()
            return _page([_document(row) for row in rows], limit, lambda item: item.id)

        return await self._database.read(work)

    async def text(self, collection: str, document_id: str) -> str:
        def work(db: sqlite3.Connection) -> list[bytes]:
            known(db, collection)
            row = db.execute(
                "SELECT version FROM documents WHERE collection = ? AND id = ?", (collection, document_id)
            ).fetchone()
            if row is None:
                raise DocumentNotFound(collection, document_id)
            return [part[0] for part in db.execute("SELECT text FROM texts WHERE version = ? ORDER BY start", row)]

        packed = await self._database.read(work)
        return await asyncio.to_thread(lambda: "".join(zlib.decompress(part).decode() for part in packed))

    async def delete_document(self, collection: str, document_id: str) -> Withdrawn:
        def work(db: sqlite3.Connection) -> Withdrawn:
            known(db, collection)
            return _withdraw(db, collection, document_id, self._clock.now())

        return await self._database.write(work)

    # the life of a version

    async def begin(self, task: Task, document: ReadDocument, fingerprint: str, dimension: int) -> int:
        return await self._database.write(lambda db: versions.begin(db, task, document, fingerprint, dimension))

    async def adopt(self, task: Task, fingerprint: str) -> Adopted | None:
        if await self._database.read(lambda db: versions.adoptable(db, task) is None):
            return None
        return await self._database.write(lambda db: versions.adopt(db, task, fingerprint))

    async def copy(self, adopted: Adopted) -> None:
        for after in range(0, adopted.chunk_count, BATCH):
            await self._database.write(partial(versions.copy_chunks, adopted=adopted, after=after, limit=BATCH))
        await self._database.write(lambda db: versions.copy_texts(db, adopted))

    async def stage(
        self,
        version: int,
        part: Part,
        words: Sequence[str],
        keys: Sequence[bytes],
        vectors: Sequence[NDArray[np.float32]],
    ) -> None:
        text = await asyncio.to_thread(versions.packed, part)
        await self._database.write(lambda db: versions.stage(db, version, part, text, words, keys, vectors))

    async def publish(self, task: Task, version: int, warnings: Sequence[str] = ()) -> Withdrawn:
        return await self._database.write(lambda db: versions.publish(db, task, version, warnings, self._clock.now()))

    async def describe(self, task: Task) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            versions.require_lease(db, task)
            cursor = db.execute(
                "UPDATE documents SET metadata = :metadata, title = coalesce(:title, title), name = :name, "
                "origin = :origin, updated_at = :now "
                "WHERE collection = :collection AND id = :id "
                "AND (metadata <> :metadata OR title <> coalesce(:title, title) OR name <> :name "
                "OR origin IS NOT :origin)",
                {
                    "metadata": json.dumps(task.metadata),
                    "title": task.title,
                    "name": task.name,
                    "origin": task.origin,
                    "now": self._clock.now(),
                    "collection": task.collection,
                    "id": task.document_id,
                },
            )
            return cursor.rowcount > 0

        return await self._database.write(work)

    async def abandoned(self) -> Sequence[int]:
        """Versions that no document shows and no running attempt is staging."""
        return await self._database.read(
            lambda db: [
                row[0]
                for row in db.execute(
                    "SELECT v.id FROM versions v WHERE NOT EXISTS (SELECT 1 FROM documents d WHERE d.version = v.id) "
                    f"AND NOT {versions.STAGED}"
                )
            ]
        )

    async def collect(self, version: int, on_forgotten: Callable[[Sequence[bytes]], None]) -> None:
        """Delete the rows of a version, a few at a time, so that others can write in between; a visible one stays."""
        count = 1
        while count:
            count, keys = await self._database.write(lambda db: versions.collect_some(db, version, BATCH))
            on_forgotten(keys)

    async def release(self, hashes: Iterable[str], remove: Callable[[str], None]) -> None:
        """Call ``remove`` for each content hash that no document and no open or failed task needs."""

        def work(db: sqlite3.Connection) -> None:
            for one in hashes:
                if db.execute(NEEDED, (one, one)).fetchone() is None:
                    remove(one)

        await self._database.write(work, alone=True)  # a file cannot be brought back by a rollback

    async def census(self) -> Census:
        return await self._database.read(census.take)

    # what searches and indexes read

    async def visible(self, collection: str) -> Visible:
        def work(db: sqlite3.Connection) -> Visible:
            seq = db.execute("SELECT max(seq) FROM changes WHERE collection = ?", (collection,)).fetchone()[0]
            rows = db.execute(
                "SELECT d.version, v.chunk_count FROM documents d JOIN versions v ON v.id = d.version "
                "WHERE d.collection = ?",
                (collection,),
            )
            return Visible(seq or 0, dict(rows.fetchall()))

        return await self._database.read(work)

    async def changes(self, collection: str, after: int, limit: int) -> Sequence[Change]:
        def work(db: sqlite3.Connection) -> list[Change]:
            rows = db.execute(
                "SELECT seq, version, added, chunk_count FROM changes WHERE collection = ? AND seq > ? "
                "ORDER BY seq LIMIT ?",
                (collection, after, limit),
            )
            return [Change(row[0], row[1], bool(row[2]), row[3]) for row in rows]

        return await self._database.read(work)

    async def prune(self, collection: str, before: int) -> None:
        """Looked for by a reader, deleted a few at a time; a version that is out of sight never comes back."""
        stale = await self._database.read(
            lambda db: [
                row[0]
                for row in db.execute(
                    "SELECT seq FROM changes WHERE collection = ? AND seq < ? AND "
                    "NOT (added AND EXISTS (SELECT 1 FROM documents d WHERE d.version = changes.version)) ORDER BY seq",
                    (collection, before),
                )
            ]
        )
        for start in range(0, len(stale), BATCH):
            some = json.dumps(stale[start : start + BATCH])
            await self._database.write(
                lambda db, some=some: (  # type: ignore[misc]
                    db.execute("DELETE FROM changes WHERE seq IN (SELECT value FROM json_each(?))", (some,)) and None
                )
            )

    async def index_rows(self, version: int, after: int, limit: int) -> IndexRows:
        """Up to ``limit`` chunks of a version behind chunk ``after``, as the indexes read them."""

        def work(db: sqlite3.Connection) -> IndexRows:
            rows = db.execute(
                "SELECT id, words, text, vector FROM chunks WHERE id BETWEEN ? AND ? AND id > ? ORDER BY id LIMIT ?",
                (*versions.span(version), after, limit),
            ).fetchall()
            return IndexRows(
                np.array([row["id"] for row in rows], dtype=np.uint64),
                tuple(f"{row['words']}\n{row['text']}" for row in rows),
                np.array([np.frombuffer(row["vector"], dtype=np.float16) for row in rows], dtype=np.float32),
            )

        return await self._database.read(work)

    async def chunks(self, collection: str, ids: Sequence[int]) -> Mapping[int, ChunkRow]:
        def work(db: sqlite3.Connection) -> dict[int, ChunkRow]:
            rows = db.execute(
                "SELECT c.id, c.start, c.end, c.page, c.headings, c.text, d.id AS document_id, d.title, d.metadata "
                f"FROM chunks c JOIN versions v ON v.id = c.id >> {CHUNK_BITS} "
                "JOIN documents d ON d.collection = v.collection AND d.id = v.document_id "
                "WHERE v.collection = ? AND c.id IN (SELECT value FROM json_each(?))",
                (collection, json.dumps([int(one) for one in ids])),
            )
            return {
                row["id"]: ChunkRow(
                    row["id"],
                    row["document_id"],
                    row["title"],
                    row["text"],
                    row["start"],
                    row["end"],
                    row["page"],
                    tuple(json.loads(row["headings"])),
                    json.loads(row["metadata"]),
                )
                for row in rows
            }

        return await self._database.read(work)

    async def matching(self, collection: str, given: Metadata) -> Mapping[int, int]:
        """{version: chunk count} of the documents that a filter lets through. Raises UnusableFilter.

        It compares a document's metadata and, under keys that these have not, its properties.
        """
        condition, values = compile_filter(given, "d.metadata", "v.properties")
        return await self._database.read(
            lambda db: dict(
                db.execute(
                    "SELECT v.id, v.chunk_count FROM documents d "
                    "JOIN versions v ON v.collection = d.collection AND v.document_id = d.id "
                    f"WHERE d.collection = ? AND ({condition})",
                    (collection, *values),
                ).fetchall()
            )
        )

    async def stored_vectors(self, keys: Sequence[bytes]) -> Mapping[bytes, NDArray[np.float32]]:
        def work(db: sqlite3.Connection) -> dict[bytes, NDArray[np.float32]]:
            found = {}
            for key in keys:
                row = db.execute("SELECT vector FROM chunks WHERE embedding_key = ? LIMIT 1", (key,)).fetchone()
                if row:
                    found[key] = np.frombuffer(row[0], dtype=np.float16).astype(np.float32)
            return found

        return await self._database.read(work)


def _withdraw(db: sqlite3.Connection, collection: str, document_id: str, now: float) -> Withdrawn:
    """Take a document out of sight, with every attempt at it. Raises DocumentNotFound."""
    row = db.execute(
        "SELECT d.version, v.content_hash FROM documents d JOIN versions v ON v.id = d.version "
        "WHERE d.collection = ? AND d.id = ?",
        (collection, document_id),
    ).fetchone()
    cancelled = db.execute(
        "UPDATE tasks SET state = 'cancelled', finished_at = ? WHERE collection = ? AND document_id = ? "
        "AND state IN ('queued', 'in_progress', 'failed') RETURNING content_hash",
        (now, collection, document_id),
    ).fetchall()
    if row is None and not cancelled:
        raise DocumentNotFound(collection, document_id)
    if row:
        versions.change(db, collection, row["version"], added=False)
        db.execute("DELETE FROM documents WHERE collection = ? AND id = ?", (collection, document_id))
    hashes = {one["content_hash"] for one in [*cancelled, *([row] if row else [])]}
    return Withdrawn(row["version"] if row else None, frozenset(hashes))


def _document(row: sqlite3.Row) -> Document:
    fields = dict(row)
    for name in ("metadata", "properties", "warnings"):
        fields[name] = json.loads(fields[name])
    fields["warnings"] = tuple(fields["warnings"])
    return Document(**fields)


def _page(items: list[Any], limit: int, key: Any) -> Page[Any]:
    shown = items[:limit]
    return Page(tuple(shown), len(items) > limit, key(shown[-1]) if shown else None)
