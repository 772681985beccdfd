"""Values that only the store, its indexes and its queue exchange; ``types.py`` has those that users meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragworks.types import Metadata, Vectors

CHUNK_BITS = 24
"""A chunk's key is ``version << CHUNK_BITS | ordinal``, so an index can forget a version whose rows are gone."""


def chunk_keys(version: int, count: int) -> NDArray[np.uint64]:
    """The keys of a version's chunks, shape ``(count,)``."""
    return np.arange(count, dtype=np.uint64) + np.uint64(version << CHUNK_BITS)


@dataclass(frozen=True, slots=True)
class Visible:
    """What a collection shows at change ``seq``: chunk counts by version."""

    seq: int
    versions: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Change:
    """One step that the derived indexes follow: a version became visible, or stopped being so."""

    seq: int
    version: int
    added: bool
    chunk_count: int


@dataclass(frozen=True, slots=True)
class IndexRows:
    """Chunks as the indexes read them: keys ``(n,)`` uint64, n texts, vectors ``(n, dimension)`` float32."""

    keys: NDArray[np.uint64]
    texts: tuple[str, ...]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A visible chunk, as a hit shows it."""

    id: int
    document_id: str
    title: str
    text: str
    start: int
    end: int
    page: int | None
    headings: tuple[str, ...]
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Adopted:
    """A new version that is to get the rows of version ``source``, which was made of the same bytes."""

    version: int
    source: int
    chunk_count: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What a delete took out of sight and what may now be collected: a version, and blobs by content hash."""

    version: int | None
    hashes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A document whose bytes are kept, about to be queued; with an ``error_code`` it is recorded as failed at once."""

    document_id: str
    name: str
    content_hash: str
    size_bytes: int
    title: str | None
    metadata: Metadata
    media_type: str | None
    error_code: str | None = None
    error_message: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """A number of documents and their bytes: what waits or runs, or how much may."""

    documents: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A queued job, its tasks in the order of the submission, and how many documents are open now.

    ``repeated``: the idempotency key was known, and this is what it stood for. ``estimated_s`` is what was forecast.
    """

    job_id: str
    task_ids: tuple[str, ...]
    queue_size: int
    repeated: bool = False
    estimated_s: float = 0.0


UNCHANGED = "unchanged"
"""The kind of a document whose bytes are indexed already, under its id or another."""


@dataclass(frozen=True, slots=True)
class OpenWork:
    """Open documents of one job and one kind."""

    job: str
    collection: str
    priority: int
    kind: str
    documents: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a completed document cost: seconds in a worker, and its share of the model's time."""

    kind: str
    size_bytes: int
    chunks: int
    read_s: float
    embed_s: float


@dataclass(frozen=True, slots=True)
class Requeued:
    """How many failed documents were queued again, and how many had no room."""

    queued: int
    left: int


@dataclass(frozen=True, slots=True)
class DueWebhook:
    """A job that has ended and whose caller is to be told; ``id`` stays the same over all attempts at it."""

    id: str
    job_id: str
    url: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Census:
    """What the rows say of themselves: keys of visible chunks by collection, blobs needed, and contradictions.

    A contradiction is a sentence, in which ``%d`` stands for how many, with the things that it is about.
    """

    documents: int
    chunks: Mapping[str, NDArray[np.uint64]]
    vectors: int
    blobs: frozenset[str]
    problems: Mapping[str, frozenset[Any]]


@dataclass(frozen=True, slots=True)
class Query:
    """One question as the store searches it: by vector, by words, or by both; ``weight`` scales its scores."""

    vector: NDArray[np.float32] | None
    words: str | None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Legs:
    """Scores by chunk key of the dense and the lexical leg; ``exhausted`` when asking for more would bring no more."""

    dense: Mapping[int, float]
    lexical: Mapping[int, float]
    exhausted: bool
