"""The rows under examination: what ``doctor`` can say without looking at an index."""

from __future__ import annotations

import sqlite3
import zlib
from collections import defaultdict, deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from ragworks.records import CHUNK_BITS, Census

NEEDED_BLOBS = """
    SELECT v.content_hash FROM documents d JOIN versions v ON v.id = d.version
    UNION SELECT content_hash FROM tasks WHERE state IN ('queued', 'in_progress', 'failed') AND content_hash <> ''
"""


def take(db: sqlite3.Connection) -> Census:
    """Read every row once, one version at a time."""
    problems = dict(_strays(db))
    keys: dict[str, list[int]] = defaultdict(list)
    vectors = 0
    shown = db.execute(
        "SELECT d.collection, d.id, d.version, v.chunk_count, c.dimension FROM documents d "
        "LEFT JOIN versions v ON v.id = d.version JOIN collections c ON c.name = d.collection"
    ).fetchall()
    for document in shown:
        chunks = db.execute(
            f"SELECT id, start, end, text, vector FROM chunks WHERE id >> {CHUNK_BITS} = ? "
            f"AND id BETWEEN ? << {CHUNK_BITS} AND (? + 1) << {CHUNK_BITS} ORDER BY id",
            (document["version"],) * 3,
        ).fetchall()
        keys[document["collection"]] += [chunk["id"] for chunk in chunks]
        vectors += sum(_sound(chunk["vector"], document["dimension"]) for chunk in chunks)
        name = f"{document['collection']}/{document['id']}"
        for what in _document(db, document, chunks):
            problems[f"document {name}: {what}"] = frozenset([document["version"]])
    return Census(
        documents=len(shown),
        chunks={name: np.array(sorted(ids), dtype=np.uint64) for name, ids in keys.items()},
        vectors=vectors,
        blobs=frozenset(row[0] for row in db.execute(NEEDED_BLOBS)),
        problems=problems,
    )


def _document(db: sqlite3.Connection, document: sqlite3.Row, chunks: list[sqlite3.Row]) -> Iterator[str]:
    if document["chunk_count"] is None:
        yield f"its version {document['version']} is missing"
        return
    if len(chunks) != document["chunk_count"]:
        yield f"{document['chunk_count']} chunks expected, {len(chunks)} found"
    yield from _texts(db, document["version"], chunks)
    if any(after["start"] < before["end"] for before, after in pairwise(chunks)):
        yield "chunks overlap: a passage is there twice"
    if unsound := [chunk["id"] for chunk in chunks if not _sound(chunk["vector"], document["dimension"])]:
        yield f"{len(unsound)} chunks have no usable vector"


def _texts(db: sqlite3.Connection, version: int, chunks: list[sqlite3.Row]) -> Iterator[str]:
    """What is wrong with the parts of its text, and with the chunks as stretches of them."""
    at, waiting, wrong = 0, deque(chunks), False
    for part in db.execute("SELECT start, length, text FROM texts WHERE version = ? ORDER BY start", (version,)):
        text = zlib.decompress(part["text"]).decode()
        if part["start"] != at or part["length"] != len(text):
            yield f"its text has a part of {len(text)} code points at {part['start']}, expected at {at}"
        at = part["start"] + len(text)
        while waiting and waiting[0]["end"] <= at:
            chunk = waiting.popleft()
            begin = chunk["start"] - part["start"]
            wrong = wrong or begin < 0 or text[begin : chunk["end"] - part["start"]] != chunk["text"]
    if waiting or wrong:
        yield "a chunk is not the text that its offsets point at"


def _sound(packed: bytes, dimension: int) -> bool:
    vector = np.frombuffer(packed, dtype=np.float16)
    return len(vector) == dimension and bool(np.isfinite(vector).all()) and bool(vector.any())


def _strays(db: sqlite3.Connection) -> Iterator[tuple[str, frozenset[Any]]]:
    orphans = db.execute(
        f"SELECT c.id FROM chunks c WHERE NOT EXISTS (SELECT 1 FROM versions v WHERE v.id = c.id >> {CHUNK_BITS})"
    ).fetchall()
    yield "%d chunks belong to no document", frozenset(row[0] for row in orphans)
    texts = db.execute(
        "SELECT DISTINCT t.version FROM texts t WHERE NOT EXISTS (SELECT 1 FROM versions v WHERE v.id = t.version)"
    ).fetchall()
    yield "%d texts belong to no document", frozenset(row[0] for row in texts)
    staged = db.execute(
        "SELECT v.id FROM versions v WHERE NOT EXISTS (SELECT 1 FROM documents d WHERE d.version = v.id) AND NOT "
        "EXISTS (SELECT 1 FROM tasks t WHERE t.id = v.task_id AND t.lease = v.lease AND t.state = 'in_progress')"
    ).fetchall()
    yield "%d versions are neither visible nor being written", frozenset(row[0] for row in staged)
    for row in db.execute(
        "SELECT collection, id FROM documents d "
        "WHERE NOT EXISTS (SELECT 1 FROM collections c WHERE c.name = d.collection)"
    ):
        yield f"document {row[0]}/{row[1]} belongs to no collection", frozenset([row[1]])
