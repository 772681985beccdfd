"""Values that cross a boundary. They hold data, know nothing else of ragworks, and are safe to pickle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

Metadata = Mapping[str, Any]
Vectors = NDArray[np.float32]
"""Shape ``(n, dimension)``, float32, each row of unit length."""

Mode = Literal["hybrid", "dense", "lexical"]
TextKind = Literal["passage", "question"]
Priority = Literal["low", "normal", "high"]
TitleFrom = Literal["submission", "document", "name"]


class Stage(StrEnum):
    """The stages a document goes through, in this order."""

    PARSING = "parsing"
    CLEANING = "cleaning"
    ENRICHING = "enriching"
    CHUNKING = "chunking"
    EMBEDDING = "embedding"
    STORING = "storing"


class TaskState(StrEnum):
    """Where one document of a job stands. The last three are final, until a retry."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of the parsed text under one heading path, on one page.

    ``start`` and ``end`` are code points into the parsed text; sections do not overlap and are in order.
    """

    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None
    kind: Literal["prose", "table", "code"] = "prose"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser made of a file: one text, and the sections that point into it."""

    text: str
    sections: tuple[Section, ...]
    media_type: str
    title: str | None = None
    pages: int | None = None
    properties: Metadata = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: ``text`` is exactly the parsed text from ``start`` to ``end`` (code points).

    ``prefix`` is what is embedded before the text, besides the title: heading path, header of a table that was cut.
    """

    ordinal: int
    start: int
    end: int
    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a document's parsed text, from code point ``start``, and the chunks that lie in it."""

    start: int
    text: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document after parse, clean, enrich and chunk: all that embedding and storing need.

    ``parts`` hold the whole text in order, a bounded stretch each, so that nobody needs to hold a whole document; they
    may come from disk, so that whoever goes through them on an event loop does so in a thread.
    """

    title: str
    title_from: TitleFrom
    media_type: str
    chunk_count: int
    parts: Iterable[Part]
    pages: int | None = None
    properties: Metadata = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def embedded_title(self) -> str:
        """What is embedded before every passage: not a file's name, so that a renamed file keeps its vectors."""
        return "" if self.title_from == "name" else self.title


@dataclass(frozen=True, slots=True)
class Upload:
    """One document as submitted. ``source`` is its bytes, or the path of a file that holds them.

    ``media_type`` is set only where the caller's word is final (JSON documents are plain text); otherwise the
    content decides. ``origin`` names the folder that a file was taken from, so that the folder can be followed.
    """

    id: str
    name: str
    source: bytes | str
    title: str | None = None
    metadata: Metadata = field(default_factory=dict)
    media_type: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One accepted document of a job, as the queue holds it. ``lease`` names the attempt that may finish it.

    ``traceparent`` is the span that submitted the job, if that was traced.
    """

    id: str
    job_id: str
    collection: str
    document_id: str
    name: str
    content_hash: str
    size_bytes: int
    title: str | None
    metadata: Metadata
    media_type: str | None
    attempts: int = 0
    lease: str = ""
    origin: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One document as a reader of the collection sees it."""

    id: str
    collection: str
    version: int
    name: str
    title: str
    content_hash: str
    size_bytes: int
    media_type: str
    chunk_count: int
    pages: int | None
    metadata: Metadata
    properties: Metadata
    warnings: tuple[str, ...]
    task_id: str
    created_at: float
    updated_at: float
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of documents that share one embedding model. ``fingerprint`` is empty until the first document."""

    name: str
    fingerprint: str
    dimension: int
    created_at: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One retrieved chunk. ``score`` orders a list; ``dense`` and ``lexical`` are the legs' own scores, if any."""

    document_id: str
    chunk_id: str
    score: float
    text: str
    title: str
    page: int | None
    start: int
    end: int
    headings: tuple[str, ...]
    metadata: Metadata
    dense: float | None = None
    lexical: float | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first, and the seconds that each step took. ``degraded`` says what was left out, and why.

    ``cached`` says whether no vector of the question had to be computed; None if none was wanted. Feedback names the
    ``id``.
    """

    hits: tuple[Hit, ...]
    timings: Mapping[str, float]
    degraded: str | None = None
    cached: bool | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation, oldest first in a list."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Citation:
    """Marker ``[n]`` of an answer, resolved: ``quote`` is the document's text from ``start`` to ``end``."""

    marker: int
    document_id: str
    chunk_id: str
    title: str
    page: int | None
    start: int
    end: int
    quote: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer; ``abstained`` when the passages do not support one. Feedback on it names its ``id``."""

    answer: str
    abstained: bool
    citations: tuple[Citation, ...]
    model: str
    usage: Mapping[str, int]
    timings: Mapping[str, float]
    support: float | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Quote:
    """A span of hit number ``hit`` (1-based, as in markers) that a generator leans on: code points into its text."""

    hit: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Draft:
    """The end of a generation: which markers were used for what, and whether the generator declined.

    ``model`` is who wrote it, where that may be another than the generator's name says.
    ``support`` is what the best sentence scored, where the generator compares that with a threshold.
    """

    quotes: Mapping[int, Quote]
    abstained: bool
    usage: Mapping[str, int]
    model: str = ""
    support: float | None = None


class Health(StrEnum):
    """How a service is doing; lower case on the wire."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class Life(StrEnum):
    """Where a replica is in its life: only a ready one gets calls, an ejected one only trials."""

    STARTING = "starting"
    READY = "ready"
    EJECTED = "ejected"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """One health check. ``last_check`` is seconds since the epoch."""

    service_name: str
    status: Health
    response_time_ms: float = 0.0
    error_count: int = 0
    last_check: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FailedText:
    """A text that could not be embedded, by its place in the call; a transient failure says when it may pass."""

    index: int
    reason: str
    transient: bool = False
    retry_after_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The answer of ``embed_texts``: one row per text in input order, None where it failed."""

    embeddings: Sequence[NDArray[np.float32] | None]
    cache_stats: Mapping[str, float]
    model_used: str
    batch_size_used: int
    failed: tuple[FailedText, ...] = ()
    truncated: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Which model an embedding engine runs. Vectors of two fingerprints are never compared."""

    name: str
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What the embedding cache holds in memory, and what its tiers saved since the start.

    ``misses`` are texts that went to the model; ``hit_rate`` is the share of the others. ``evictions`` had to
    leave for want of room. ``model`` is a fingerprint.
    """

    model: str
    entries: int
    max_entries: int
    bytes: int
    memory_hits: int
    stored_hits: int
    misses: int
    hit_rate: float
    evictions: int = 0


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, in a stable order. ``last_id`` is the ``after`` of the next call."""

    data: tuple[T, ...]
    has_more: bool
    last_id: str | None


@dataclass(frozen=True, slots=True)
class Interval:
    """Seconds from now between which a job ends with probability ``level``, as the jobs before it did."""

    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True)
class Submission:
    """The receipt of accepted documents: they are on disk. ``estimated_completion_time`` is seconds from now."""

    processing_job_id: str
    documents_queued: int
    processing_task_ids: tuple[str, ...]
    estimated_completion_time: float
    estimated_completion_interval: Interval
    current_queue_size: int


@dataclass(frozen=True, slots=True)
class JobDocument:
    """One document of a job: how far it is, and why it failed."""

    id: str
    task_id: str
    name: str
    status: TaskState
    stage: Stage | None
    error_code: str | None
    error_message: str | None
    unchanged: bool
    warnings: tuple[str, ...]
    attempts: int


@dataclass(frozen=True, slots=True)
class Webhook:
    """Who is told of a job's end, and whether it has been: ``status`` is pending, delivered or failed."""

    url: str
    status: str
    attempts: int
    delivered_at: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """A submission and what became of its documents. ``file_counts`` has total and one count per final state.

    ``estimated_completion_time`` is seconds from now for what is still open; None once it has ended, and in lists.
    """

    id: str
    collection: str
    status: TaskState
    created_at: float
    finished_at: float | None
    file_counts: Mapping[str, int]
    documents: tuple[JobDocument, ...] = ()
    webhook: Webhook | None = None
    estimated_completion_time: float | None = None
    estimated_completion_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A document whose last attempt failed. ``failed_at`` is seconds since the epoch."""

    task_id: str
    job_id: str
    collection: str
    id: str
    name: str
    stage: Stage | None
    error_code: str
    error_message: str
    attempts: int
    failed_at: float


@dataclass(frozen=True, slots=True)
class Checkup:
    """What ``doctor`` found: the counts that must agree, and a sentence per thing that does not."""

    documents: int
    chunks: int
    vectors: int
    words: int
    blobs: int
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        return not self.problems
