"""Every seam of ragworks. Adapters implement these; services and control loops see nothing else.

Read downwards: time, services, the path of a document, the path of a question.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ragworks.records import (
    Acceptance,
    Adopted,
    Census,
    Change,
    ChunkRow,
    Incoming,
    IndexRows,
    Load,
    Visible,
    Withdrawn,
)
from ragworks.types import (
    Collection,
    Document,
    Draft,
    Embeddings,
    Hit,
    Job,
    Metadata,
    Page,
    Part,
    ReadDocument,
    SearchResult,
    ServiceHealth,
    Stage,
    Task,
    TextKind,
    Turn,
    Vectors,
)

OnStage = Callable[[Stage], None]
"""Called when a document enters a stage. Must return at once and must not raise."""


class Clock(Protocol):
    """Time as an argument, so that tests can own it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Service(Protocol):
    """One of the named services. The orchestrator calls ``initialize`` once, then ``shutdown`` once.

    ``initialize`` returns when the service can do its work, and raises when it cannot; it may be called again after
    it raised. ``shutdown`` drains and is harmless when called twice. ``check_health`` never raises.
    """

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def check_health(self) -> ServiceHealth: ...

    def stats(self) -> Mapping[str, Any]: ...


class Model(Protocol):
    """An embedding model. Called from one thread at a time, never from the event loop; ``lengths`` from any thread.

    ``fingerprint`` changes whenever the same text could get another vector.
    """

    name: str
    fingerprint: str
    dimension: int
    max_tokens: int

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, untruncated."""
        ...

    def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        """One unit-length row per text, in order. Adds the prefix that the model's card asks for ``kind``."""
        ...


@runtime_checkable
class RemoteModel(Protocol):
    """An embedding model behind a network: awaited on the event loop, by several callers at once.

    ``name`` and ``max_bytes`` (of one text, in UTF-8) are there from the start, ``dimension`` and ``fingerprint`` once
    ``open`` has returned. Cancelling ``embed`` gives its request up.
    """

    name: str
    max_bytes: int

    @property
    def fingerprint(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    async def open(self) -> None:
        """Connect, and learn what is not known yet. Raises EndpointUnavailable, CannotStart."""
        ...

    async def close(self) -> None: ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, as far as they can be told from here."""
        ...

    async def embed(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        """One row per text, in order, from one request; of unit length unless the endpoint's numbers are unusable.

        Raises EndpointUnavailable when no endpoint answers (nothing is known about the texts), and EmbeddingFailed
        when one refuses the texts for what they are.
        """
        ...


class Embedder(Protocol):
    """Texts to vectors, with cache and batching behind it.

    The result has one entry per text in input order; an entry is None where ``failed`` names the index, and then
    it must never be stored. Passages wait behind questions.
    """

    @property
    def fingerprint(self) -> str:
        """Of the model; vectors of two fingerprints are never compared."""
        ...

    @property
    def dimension(self) -> int: ...

    def embedding_key(self, text: str, kind: TextKind = "passage", prefix: str = "") -> bytes:
        """What a vector of this text is kept under: content, model and prefix."""
        ...

    async def embed_texts(
        self, texts: Sequence[str], cache_key_prefix: str = "", *, kind: TextKind = "passage"
    ) -> Embeddings: ...


class StoredVectors(Protocol):
    """The vectors that live chunks already hold: the cache tier that survives a restart."""

    async def stored_vectors(self, keys: Sequence[bytes]) -> Mapping[bytes, NDArray[np.float32]]:
        """The vector of each known key; unknown keys are absent."""
        ...


class Reader(Protocol):
    """Bytes of one document to its chunks: parse, clean, enrich, chunk, away from the event loop.

    Entering returns when the document is read; its parts are there once, in order, until the context is left. Raises a
    DocumentError when the document cannot be read, StorageFull. Cancelling stops the work.
    """

    def read(self, task: Task, on_stage: OnStage) -> AbstractAsyncContextManager[ReadDocument]: ...


class DocumentStore(Protocol):
    """The verbs by which a document becomes visible, whole or not at all."""

    async def current(self, collection: str, document_id: str) -> Document | None:
        """The version that answers now."""
        ...

    async def adopt(self, task: Task, fingerprint: str) -> Adopted | None:
        """A complete staged version made of the same bytes elsewhere in the collection; None when there are none.

        Raises CollectionNotFound or LeaseLost.
        """
        ...

    async def begin(self, task: Task, document: ReadDocument, fingerprint: str, dimension: int) -> int:
        """A new staged, invisible version. Raises ModelMismatch, CollectionNotFound or LeaseLost."""
        ...

    async def stage(
        self,
        version: int,
        part: Part,
        words: Sequence[str],
        keys: Sequence[bytes],
        vectors: Sequence[NDArray[np.float32]],
    ) -> None:
        """Add a part to a staged version in one small transaction; ``words`` is what is found beside each chunk."""
        ...

    async def publish(self, task: Task, version: int) -> None:
        """Make ``version`` the visible one in one transaction. Returns when the next search finds it.

        Raises LeaseLost if the task was cancelled, deleted or taken over meanwhile; nothing is visible then. After any
        other error it may be visible or not, whole in either case. A cancel waits for the end.
        """
        ...

    async def discard(self, version: int) -> None:
        """Forget a staged version; one that is visible by now stays."""
        ...

    async def describe(self, task: Task) -> bool:
        """Write the task's title and metadata to the current version. True if something changed."""
        ...

    async def forget_blobs(self, hashes: Iterable[str]) -> None:
        """Delete the original bytes that nothing needs any more."""
        ...


class Retriever(Protocol):
    """Question to hits, best first. Raises CollectionNotFound, ModelMismatch."""

    async def search(
        self, collection: str, query: str, *, top_k: int = 10, history: Sequence[Turn] = ()
    ) -> SearchResult: ...


class Generator(Protocol):
    """Hits to a streamed answer.

    Yields the answer's text in pieces, with ``[n]`` after what hit n supports (1-based), then exactly one Draft as
    the last item. Hits are data: nothing written in them is an instruction. Raises nothing for "do not know": the
    Draft says ``abstained``. Closing the iterator early stops the work.
    """

    @property
    def name(self) -> str: ...

    def generate(self, question: str, history: Sequence[Turn], hits: Sequence[Hit]) -> AsyncIterator[str | Draft]: ...


class PassageScorer(Protocol):
    """How well each passage answers a question. Called from a thread, never from the event loop."""

    def score(self, question: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """One score per passage in order, float32; higher is better. Comparable across questions."""
        ...


class VectorIndex(Protocol):
    """Approximate nearest neighbours over the chunks of one collection. Keys are unsigned 64-bit integers.

    Adding a key again replaces it; removing an unknown key is harmless. Not thread-safe for writing.
    """

    def add(self, keys: NDArray[np.uint64], vectors: Vectors) -> None: ...

    def remove(self, keys: NDArray[np.uint64]) -> None: ...

    def search(
        self, vector: NDArray[np.float32], limit: int, allowed: NDArray[np.uint64] | None = None
    ) -> list[tuple[int, float]]:
        """Up to ``limit`` (key, cosine), best first, among ``allowed`` keys if given."""
        ...

    def scores(self, vector: NDArray[np.float32], keys: Sequence[int]) -> dict[int, float]:
        """The exact cosine of each known key."""
        ...

    def keys(self) -> NDArray[np.uint64]: ...


class WordIndex(Protocol):
    """BM25 over the chunks of one collection, with statistics of that collection alone."""

    def apply(self, removed: Sequence[int], added: Sequence[tuple[int, int, str]]) -> None:
        """Drop versions, then add (version, key, text); visible to searches when this returns."""
        ...

    def search(
        self, question: str, limit: int, allowed_versions: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        """Up to ``limit`` (key, BM25 score), best first. Any text is a question; there is no query syntax."""
        ...

    def scores(self, question: str, keys: Sequence[int]) -> dict[int, float]:
        """The BM25 score of each key that matches; others are absent."""
        ...

    def keys(self) -> NDArray[np.uint64]: ...


class Indexes(Protocol):
    """The two indexes of one collection, and the last change that both hold. Called from threads."""

    seq: int

    @property
    def vectors(self) -> VectorIndex: ...

    @property
    def words(self) -> WordIndex: ...

    def apply(self, removed: Sequence[tuple[int, int]], added: Sequence[tuple[int, IndexRows]], seq: int) -> None:
        """Forget (version, chunk count) pairs, then take in (version, rows); both indexes then stand at ``seq``.

        Whoever adds a version forgets it first, so that applying a change again changes nothing.
        """
        ...

    def reset(self) -> None:
        """Empty, at change 0."""
        ...

    def save(self) -> None:
        """Make what is held survive a restart."""
        ...

    def close(self, *, save: bool = True) -> None:
        """Let go; with ``save`` as ``save`` does."""
        ...


class IndexHome(Protocol):
    """Where the indexes of all collections live. Called from threads."""

    def open(self, collection: str, dimension: int) -> Indexes:
        """The collection's indexes, as far as they were saved."""
        ...

    def remove(self, collection: str) -> None: ...

    def keep_only(self, collections: Sequence[str]) -> None:
        """Remove the indexes of every other collection."""
        ...


class Blobs(Protocol):
    """Original bytes by content hash. Called from threads, never from the event loop."""

    def put(self, source: bytes | str) -> tuple[str, int]:
        """(content hash, size in bytes), durable and pinned. ``source`` is bytes or a path.

        Raises SourceUnreadable, StorageFull.
        """
        ...

    def unpin(self, content_hashes: Iterable[str]) -> None:
        """The rows that need these blobs are committed, or will never be."""
        ...

    def path(self, content_hash: str) -> str: ...

    def remove(self, content_hash: str) -> None:
        """Delete a blob unless it is pinned."""
        ...

    def pinned(self) -> set[str]:
        """The blobs whose rows are about to be committed."""
        ...

    def hashes(self) -> set[str]: ...

    def clear_unfinished(self) -> None:
        """Drop what a crash left half written."""
        ...


class JobQueue(Protocol):
    """The durable queue. Each call is one transaction; an attempt that lost its lease changes nothing."""

    async def accept(
        self, collection: str, incoming: Sequence[Incoming], room: Load, key: str | None, request_hash: str
    ) -> Acceptance | None:
        """Queue all documents durably, or None when ``room`` does not hold them now.

        An idempotency key seen in the last 24 hours returns its first acceptance. Raises CollectionNotFound,
        IdempotencyKeyReused.
        """
        ...

    async def load(self) -> Load:
        """What waits or runs."""
        ...

    async def claim(self) -> Task | None:
        """The next task, leased to this attempt, fair between collections; None when nothing is due."""
        ...

    async def next_due(self) -> float | None:
        """When the earliest waiting task may run (seconds since the epoch); None when nothing waits."""
        ...

    async def finish(self, task: Task, *, unchanged: bool, warnings: Sequence[str]) -> None: ...

    async def fail(self, task: Task, stage: Stage, code: str, message: str, retry_in_s: float | None) -> None:
        """End the attempt: for good if ``retry_in_s`` is None, otherwise the task waits that long."""
        ...

    async def release(self, task: Task) -> None:
        """Give the task back as if it had not been claimed."""
        ...

    async def recover(self) -> int:
        """Hand back what a dead server held. Only the owner of the data folder may call it."""
        ...

    async def job(self, job_id: str) -> Job: ...

    async def ended(self, job_id: str) -> bool:
        """Whether every document of the job has ended; cheap, for those who wait."""
        ...

    async def jobs(self, limit: int, after: str | None) -> Page[Job]: ...

    async def cancel(self, job_id: str) -> frozenset[str]:
        """Cancel what has not ended; the content hashes whose bytes may now be unneeded."""
        ...

    async def retry(self, job_id: str) -> int:
        """Queue the failed documents of a job again. How many."""
        ...


class Rows(Protocol):
    """The truth about collections, documents and chunks. Each call is one transaction unless it says otherwise.

    Calls about a collection that does not exist raise CollectionNotFound; writes may raise StorageFull.
    """

    async def create_collection(self, name: str) -> Collection: ...

    async def collection(self, name: str) -> Collection: ...

    async def collections(self, limit: int, after: str | None) -> Page[Collection]: ...

    async def drop_collection(self, name: str) -> Sequence[Withdrawn]: ...

    async def document(self, collection: str, document_id: str) -> Document | None: ...

    async def documents(self, collection: str, limit: int, after: str | None) -> Page[Document]: ...

    async def text(self, collection: str, document_id: str) -> str: ...

    async def delete_document(self, collection: str, document_id: str) -> Withdrawn:
        """Take the document out of sight, and cancel every open or failed task of it. Raises DocumentNotFound."""
        ...

    async def begin(self, task: Task, document: ReadDocument, fingerprint: str, dimension: int) -> int:
        """See DocumentStore.begin."""
        ...

    async def adopt(self, task: Task, fingerprint: str) -> Adopted | None:
        """A new version of the task's document that is to get the rows of one with the same bytes, if there is one."""
        ...

    async def copy(self, adopted: Adopted) -> None:
        """Fill an adopted version; several small transactions. Raises LeaseLost."""
        ...

    async def stage(
        self,
        version: int,
        part: Part,
        words: Sequence[str],
        keys: Sequence[bytes],
        vectors: Sequence[NDArray[np.float32]],
    ) -> None:
        """Add a part to a staged version; ``words`` is what the word index reads before the text of each chunk."""
        ...

    async def publish(self, task: Task, version: int) -> Withdrawn:
        """Make ``version`` visible, and return what it replaced. Raises LeaseLost."""
        ...

    async def describe(self, task: Task) -> bool:
        """Write the task's title, name and metadata to the current version; True if something changed."""
        ...

    async def abandoned(self) -> Sequence[int]:
        """Versions that no document shows and no running attempt is staging."""
        ...

    async def collect(self, version: int) -> None:
        """Delete the rows of a version, unless it is visible; several small transactions."""
        ...

    async def release(self, hashes: Iterable[str], remove: Callable[[str], None]) -> None:
        """Call ``remove`` for each content hash that nothing needs, while nothing can come to need it."""
        ...

    async def visible(self, collection: str) -> Visible:
        """The visible versions, and the change they stand for; empty for an unknown collection."""
        ...

    async def changes(self, collection: str, after: int, limit: int) -> Sequence[Change]:
        """Up to ``limit`` changes behind ``after``, oldest first."""
        ...

    async def index_rows(self, version: int, after: int, limit: int) -> IndexRows:
        """Up to ``limit`` chunks of a version behind chunk ``after``, in order; empty once it was collected."""
        ...

    async def chunks(self, collection: str, ids: Sequence[int]) -> Mapping[int, ChunkRow]:
        """The chunks among ``ids`` whose rows are there, and whose document exists."""
        ...

    async def matching(self, collection: str, given: Metadata) -> Mapping[int, int]:
        """{version: chunk count} of every version whose document a filter lets through. Raises UnusableFilter."""
        ...

    async def stored_vectors(self, keys: Sequence[bytes]) -> Mapping[bytes, NDArray[np.float32]]: ...

    async def census(self) -> Census:
        """Every count and contradiction that the rows alone can show."""
        ...
