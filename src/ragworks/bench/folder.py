"""What a data folder holds, read from its rows and files without any code of the server's storage."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragworks.bench.documents import Key, Read

CHUNK_BITS = 24  # a chunk's id is its version and, in so many bits, its place
NEAR = 4e-3  # float16 keeps a part of a unit vector to 5e-4; a model adds as much with another batch


@dataclass(frozen=True, slots=True)
class Shown:
    """A visible document as its rows have it."""

    read: Read
    stamp: int
    chunk_count: int


def shown(data: Path) -> dict[Key, Shown]:
    """The visible documents in one snapshot; a server may be running."""
    with closing(_reading(data)) as db:
        db.execute("BEGIN")
        rows = db.execute(
            "SELECT d.collection, d.id, d.version, d.metadata, v.chunk_count FROM documents d "
            "LEFT JOIN versions v ON v.id = d.version"
        ).fetchall()
        chunks, texts = _chunks(db, "start, end, text"), _texts(db)
    return {
        (collection, name): Shown(
            Read(texts[version], tuple(chunks[version])),
            int(json.loads(metadata).get("stamp", -1)),
            count if count is not None else -1,
        )
        for collection, name, version, metadata, count in rows
    }


def contents(data: Path) -> dict[Key, tuple[Any, list[tuple[Any, ...]], list[Any]]]:
    """Everything of every visible document that must not depend on what happened on the way, and its vectors."""
    with closing(_reading(data)) as db:
        rows = db.execute(
            "SELECT d.collection, d.id, d.version, d.name, d.title, d.metadata, v.content_hash, v.size_bytes, "
            "v.media_type, v.chunk_count FROM documents d JOIN versions v ON v.id = d.version"
        ).fetchall()
        chunks = _chunks(db, "start, end, page, headings, text, words, embedding_key")
        vectors, texts = _chunks(db, "vector"), _texts(db)
    return {(row[0], row[1]): ((*row[3:], texts[row[2]]), chunks[row[2]], vectors[row[2]]) for row in rows}


def open_tasks(data: Path) -> int:
    with closing(_reading(data)) as db:
        return int(db.execute("SELECT count(*) FROM tasks WHERE state IN ('queued', 'in_progress')").fetchone()[0])


def failed_tasks(data: Path) -> list[str]:
    with closing(_reading(data)) as db:
        rows = db.execute("SELECT document_id, error_message FROM tasks WHERE state = 'failed'").fetchall()
    return [f"{name} failed: {message}" for name, message in rows]


def leftovers(data: Path) -> list[str]:
    """Rows and files that belong to no visible document, once every job has ended."""
    with closing(_reading(data)) as db:
        visible = {row[0] for row in db.execute("SELECT version FROM documents")}
        needed = {row[0] for row in db.execute("SELECT content_hash FROM versions")}
        staged = [row[0] for row in db.execute("SELECT id FROM versions") if row[0] not in visible]
        stray = [row[0] for row in db.execute("SELECT id FROM chunks") if row[0] >> CHUNK_BITS not in visible]
        texts = [row[0] for row in db.execute("SELECT version FROM texts") if row[0] not in visible]
    kept = {file.name for file in (data / "blobs").rglob("*") if file.is_file()}
    return [
        *(f"version {one} is staged or retired" for one in staged),
        *(f"chunk {one} belongs to no visible version" for one in stray),
        *(f"a text of version {one} belongs to no visible version" for one in texts),
        *(f"blob {one} belongs to no version" for one in sorted(kept - needed)),
        *(f"blob {one} is missing" for one in sorted(needed - kept)),
        *(f"{file} is an upload that was left behind" for file in sorted((data / "tmp").iterdir())),
    ]


def differences(found: Path, undisturbed: Path) -> list[str]:
    """What the two folders show differently, one line a document."""
    ours, theirs = contents(found), contents(undisturbed)
    return [
        f"{key}: {why}"
        for key in sorted({*ours, *theirs})
        if (why := _difference(ours.get(key), theirs.get(key))) is not None
    ]


def _difference(ours: Any, theirs: Any) -> str | None:
    if ours is None or theirs is None:
        return "only in the undisturbed run" if ours is None else "not in the undisturbed run"
    if ours[0] != theirs[0]:
        return f"{ours[0][:-1]} instead of {theirs[0][:-1]}"
    if ours[1] != theirs[1]:
        return f"other chunks: {len(ours[1])} instead of {len(theirs[1])}"
    far = max(
        (float(np.abs(_vector(a) - _vector(b)).max()) for a, b in zip(ours[2], theirs[2], strict=True)), default=0
    )
    return f"vectors differ by {far}" if far > NEAR else None


def _vector(row: tuple[bytes]) -> Any:
    return np.frombuffer(row[0], dtype=np.float16).astype(np.float32)


def _reading(data: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{data / 'ragworks.db'}?mode=ro", uri=True, timeout=30, isolation_level=None)


def _texts(db: sqlite3.Connection) -> dict[int, str]:
    """The text of every version."""
    texts: dict[int, str] = defaultdict(str)
    for version, text in db.execute("SELECT version, text FROM texts ORDER BY version, start"):
        texts[version] += zlib.decompress(text).decode()
    return texts


def _chunks(db: sqlite3.Connection, columns: str) -> dict[int, list[tuple[Any, ...]]]:
    found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    rows: Iterable[tuple[Any, ...]] = db.execute(f"SELECT id, {columns} FROM chunks ORDER BY id")
    for number, *rest in rows:
        found[number >> CHUNK_BITS].append(tuple(rest))
    return found
