"""The life of a version as steps inside a transaction: begun or adopted, staged part by part, published, collected."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ragworks.errors import CollectionNotFound, LeaseLost, ModelMismatch, VersionIncomplete
from ragworks.records import CHUNK_BITS, Adopted, Withdrawn
from ragworks.text.names import ending, stem
from ragworks.types import Collection, Part, ReadDocument, Task

STAGED = """
    EXISTS (SELECT 1 FROM tasks t WHERE t.id = v.task_id AND t.lease = v.lease AND t.state = 'in_progress')
"""
TRIED_AGAIN = """
    SELECT 1 FROM versions v JOIN tasks t ON t.id = v.task_id
    WHERE v.id = ? AND t.state IN ('queued', 'in_progress', 'failed')
"""
CHUNK = "embedding_key, start, end, page, headings, text, words, vector"
SAME = """
    SELECT v.*, d.name FROM versions v JOIN documents d ON d.version = v.id
    WHERE v.content_hash = ? AND v.collection = ? AND d.collection = v.collection
"""


def begin(db: sqlite3.Connection, task: Task, document: ReadDocument, fingerprint: str, dimension: int) -> int:
    """A new version without rows. Raises ModelMismatch, CollectionNotFound, LeaseLost."""
    require_lease(db, task)
    known = collection(db, task.collection)
    if known.fingerprint not in ("", fingerprint):
        raise ModelMismatch(task.collection, known.fingerprint, fingerprint)
    db.execute(
        "UPDATE collections SET fingerprint = ?, dimension = ? WHERE name = ?",
        (fingerprint, dimension, task.collection),
    )
    cursor = db.execute(
        "INSERT INTO versions (collection, document_id, task_id, lease, content_hash, size_bytes, media_type, "
        "parsed_title, title_from, pages, properties, warnings, chunk_count) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            task.collection,
            task.document_id,
            task.id,
            task.lease,
            task.content_hash,
            task.size_bytes,
            document.media_type,
            document.title,
            document.title_from,
            document.pages,
            json.dumps(document.properties),
            json.dumps(document.warnings),
            document.chunk_count,
        ),
    )
    return int(cursor.lastrowid or 0)


def adoptable(db: sqlite3.Connection, task: Task) -> tuple[sqlite3.Row, str] | None:
    """A visible version of the same bytes in the collection, and what the task's document would be called with it.

    Only one that reading the task would give too: of a name with the same ending, under a title that it may bear.
    """
    for row in db.execute(SAME, (task.content_hash, task.collection)):
        alike = ending(row["name"]) == ending(task.name) and task.media_type in (None, row["media_type"])
        if alike and (title := _title(row, task)):
            return row, title
    return None


def _title(row: sqlite3.Row, task: Task) -> str | None:
    title: str = row["parsed_title"]
    if task.title:
        return title if title == task.title and row["title_from"] != "name" else None
    return {"document": title, "name": stem(task.name)}.get(row["title_from"])


def adopt(db: sqlite3.Connection, task: Task, fingerprint: str) -> Adopted | None:
    """A new version that is to get the rows of another. Raises CollectionNotFound, LeaseLost."""
    require_lease(db, task)
    found = adoptable(db, task)
    if found is None or collection(db, task.collection).fingerprint != fingerprint:
        return None
    row, title = found
    cursor = db.execute(
        "INSERT INTO versions (collection, document_id, task_id, lease, content_hash, size_bytes, media_type, "
        "parsed_title, title_from, pages, properties, warnings, chunk_count) "
        "SELECT collection, ?, ?, ?, content_hash, size_bytes, media_type, ?, title_from, pages, properties, "
        "warnings, chunk_count FROM versions WHERE id = ?",
        (task.document_id, task.id, task.lease, title, row["id"]),
    )
    return Adopted(int(cursor.lastrowid or 0), row["id"], row["chunk_count"], tuple(json.loads(row["warnings"])))


def copy_chunks(db: sqlite3.Connection, adopted: Adopted, after: int, limit: int) -> None:
    """Chunks ``after`` to ``after + limit``; their source may be gone by now, which publishing will find.

    What words find beside the text begins with the title, and so with the new one.
    """
    require_staged(db, adopted.version)
    old, new = (
        db.execute("SELECT parsed_title FROM versions WHERE id = ?", (version,)).fetchone()
        for version in (adopted.source, adopted.version)
    )
    first = adopted.source << CHUNK_BITS | after
    renamed = CHUNK.replace("words", "? || substr(words, ?)")
    db.execute(
        f"INSERT INTO chunks (id, {CHUNK}) SELECT id + ?, {renamed} FROM chunks WHERE id >= ? AND id < ?",
        (
            (adopted.version - adopted.source) << CHUNK_BITS,
            new[0],
            len(old[0] if old else "") + 1,
            first,
            first + limit,
        ),
    )


def copy_texts(db: sqlite3.Connection, adopted: Adopted) -> None:
    require_staged(db, adopted.version)
    db.execute(
        "INSERT INTO texts (version, start, length, text) SELECT ?, start, length, text FROM texts WHERE version = ?",
        (adopted.version, adopted.source),
    )


def packed(part: Part) -> bytes:
    """The text of a part as it is kept: UTF-8, zlib. Takes milliseconds."""
    return zlib.compress(part.text.encode(), 1)


def stage(
    db: sqlite3.Connection,
    version: int,
    part: Part,
    text: bytes,
    words: Sequence[str],
    keys: Sequence[bytes],
    vectors: Sequence[NDArray[np.float32]],
) -> None:
    """Add a part, its text ``packed``. Raises LeaseLost."""
    require_staged(db, version)
    db.execute(
        "INSERT INTO texts (version, start, length, text) VALUES (?,?,?,?)", (version, part.start, len(part.text), text)
    )
    db.executemany(
        f"INSERT INTO chunks (id, {CHUNK}) VALUES (?,?,?,?,?,?,?,?,?)",
        [
            (
                version << CHUNK_BITS | chunk.ordinal,
                key,
                chunk.start,
                chunk.end,
                chunk.page,
                json.dumps(chunk.headings),
                chunk.text,
                before,
                vector.astype(np.float16).tobytes(),
            )
            for chunk, before, key, vector in zip(part.chunks, words, keys, vectors, strict=True)
        ],
    )


def publish(db: sqlite3.Connection, task: Task, version: int, warnings: Sequence[str], now: float) -> Withdrawn:
    """Show ``version`` instead of what was shown. Raises LeaseLost, VersionIncomplete."""
    require_lease(db, task)
    row = db.execute("SELECT * FROM versions WHERE id = ?", (version,)).fetchone()
    staged = db.execute("SELECT count(*) FROM chunks WHERE id BETWEEN ? AND ?", span(version)).fetchone()[0]
    if staged != row["chunk_count"]:
        raise VersionIncomplete(f"version {version} has {staged} of {row['chunk_count']} chunks")
    if warnings:
        said = json.dumps([*json.loads(row["warnings"]), *warnings])
        db.execute("UPDATE versions SET warnings = ? WHERE id = ?", (said, version))
    old = db.execute(
        "SELECT d.version, d.created_at, v.content_hash FROM documents d JOIN versions v ON v.id = d.version "
        "WHERE d.collection = ? AND d.id = ?",
        (task.collection, task.document_id),
    ).fetchone()
    if old:
        change(db, task.collection, old["version"], added=False)
    change(db, task.collection, version, added=True)
    db.execute(
        "INSERT OR REPLACE INTO documents (collection, id, version, name, title, metadata, created_at, updated_at, "
        "origin) VALUES (?,?,?,?,?,?,?,?,?)",
        (
            task.collection,
            task.document_id,
            version,
            task.name,
            task.title or row["parsed_title"],
            json.dumps(task.metadata),
            old["created_at"] if old else now,
            now,
            task.origin,
        ),
    )
    return Withdrawn(old["version"], frozenset([old["content_hash"]])) if old else Withdrawn(None, frozenset())


def collect_some(db: sqlite3.Connection, version: int, limit: int) -> tuple[int, Sequence[bytes]]:
    """Delete up to ``limit`` rows of a version that nothing shows, and at last the version.

    (how many were deleted, the embedding keys of chunks among them that no further attempt will ask for)
    """
    if db.execute("SELECT 1 FROM documents WHERE version = ?", (version,)).fetchone():
        return 0, ()
    keys = db.execute(
        "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks WHERE id BETWEEN ? AND ? LIMIT ?) "
        "RETURNING embedding_key",
        (*span(version), limit),
    ).fetchall()
    if keys:
        again = db.execute(TRIED_AGAIN, (version,)).fetchone()
        return len(keys), () if again else [key for (key,) in keys]
    count = (
        db.execute(
            "DELETE FROM texts WHERE rowid IN (SELECT rowid FROM texts WHERE version = ? LIMIT ?)", (version, limit)
        ).rowcount
        or db.execute("DELETE FROM versions WHERE id = ?", (version,)).rowcount
    )
    return count, ()


def require_lease(db: sqlite3.Connection, task: Task) -> None:
    """Raises LeaseLost unless the task is this attempt's."""
    row = db.execute("SELECT state, lease FROM tasks WHERE id = ?", (task.id,)).fetchone()
    if row is None or row["state"] != "in_progress" or row["lease"] != task.lease:
        raise LeaseLost(f"task {task.id} was cancelled or taken over")


def require_staged(db: sqlite3.Connection, version: int) -> None:
    """Raises LeaseLost unless the version is still being staged."""
    if db.execute(f"SELECT 1 FROM versions v WHERE v.id = ? AND {STAGED}", (version,)).fetchone() is None:
        raise LeaseLost(f"version {version} is no longer being written: its task was cancelled or taken over")


def collection(db: sqlite3.Connection, name: str) -> Collection:
    row = db.execute("SELECT * FROM collections WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise CollectionNotFound(name)
    return Collection(**row)


def change(db: sqlite3.Connection, name: str, version: int, *, added: bool) -> None:
    """Tell the indexes of a collection."""
    db.execute(
        "INSERT INTO changes (collection, version, added, chunk_count) "
        "SELECT ?, id, ?, chunk_count FROM versions WHERE id = ?",
        (name, added, version),
    )


def span(version: int) -> tuple[int, int]:
    """The first and the last key that a version's chunks may have."""
    return version << CHUNK_BITS, ((version + 1) << CHUNK_BITS) - 1
