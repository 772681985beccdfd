"""Every seam below the services: what storage adapters implement, and nobody but services and the job loop sees.

Read downwards: indexes of a collection, original bytes, the queue, the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragworks.records import (
    Acceptance,
    Adopted,
    Census,
    Change,
    ChunkRow,
    Cost,
    Incoming,
    IndexRows,
    Load,
    OpenWork,
    Requeued,
    Visible,
    Withdrawn,
)
from ragworks.types import (
    Collection,
    DeadLetter,
    Document,
    Job,
    Metadata,
    Page,
    Part,
    Priority,
    ReadDocument,
    Stage,
    Task,
    Vectors,
)

Forecast = Callable[[Sequence[OpenWork], str], float]
"""Seconds until the last document of a job has ended, given all open work, its own included."""


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
    """The two indexes of one collection, the last change that both hold, and the last that is saved of both.

    Called from threads.
    """

    seq: int
    saved_seq: int

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

    def room(self) -> None:
        """Raises StorageFull while the next ``put`` is likely to."""
        ...

    def clear_unfinished(self) -> None:
        """Drop what a crash left half written."""
        ...


class JobQueue(Protocol):
    """The durable queue. Each call is one transaction; an attempt that lost its lease changes nothing."""

    async def accept(
        self,
        collection: str,
        incoming: Sequence[Incoming],
        room: Load,
        key: str | None,
        request_hash: str,
        *,
        priority: Priority = "normal",
        webhook_url: str | None = None,
        traceparent: str = "",
        forecast: Forecast = lambda work, job_id: 0.0,
    ) -> Acceptance | None:
        """Queue all documents durably, or None when ``room`` does not hold them now.

        Once all of them have ended, ``webhook_url`` is due to be told. Their tasks carry ``traceparent``. An
        idempotency key seen in the last 24 hours returns its first acceptance. ``forecast`` is asked within the
        transaction. Raises CollectionNotFound, IdempotencyKeyReused.
        """
        ...

    async def load(self) -> Load:
        """What waits or runs."""
        ...

    async def oldest_at(self) -> float | None:
        """When the document that has waited longest was submitted, seconds since the epoch; None when none waits."""
        ...

    async def dead(self) -> int:
        """How many ``dead_letters`` there are."""
        ...

    async def claim(self, held: Iterable[str] = ()) -> Task | None:
        """The next task, leased to this attempt, fair between collections and jobs; None when none may start.

        A task whose lease ran out is open to all again, except to who still runs it: ``held`` are its leases.
        """
        ...

    async def renew(self, tasks: Sequence[Task]) -> frozenset[str]:
        """Let the leases of these attempts run from now; the ids of the tasks whose lease was lost."""
        ...

    async def next_due(self, after: float) -> float | None:
        """The earliest time beyond ``after`` at which a task may start by itself (seconds since the epoch)."""
        ...

    async def finish(self, task: Task, *, unchanged: bool, warnings: Sequence[str], cost: Cost | None = None) -> bool:
        """End the attempt well. False, as of ``fail``: the lease was lost, and nothing changed."""
        ...

    async def fail(self, task: Task, stage: Stage, code: str, message: str, retry_in_s: float | None) -> bool:
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

    async def retry(self, room: Load, *, job_id: str | None = None, task_id: str | None = None) -> Requeued:
        """Queue failed documents again, oldest first, as far as ``room`` holds them: of a job, one, or all.

        The end of a job that goes on so is told anew to its webhook; one that was given up is due again.
        """
        ...

    async def dead_letters(self, limit: int, after: str | None) -> Page[DeadLetter]:
        """The documents whose last attempt failed and that were not submitted again since, latest first.

        ``after`` may have been retried meanwhile. Raises InvalidInput if it is no task, or was forgotten.
        """
        ...

    async def open_work(self) -> Sequence[OpenWork]:
        """What waits or runs, by job and kind: what a forecast is made of."""
        ...

    async def costs(self, limit: int) -> Sequence[Cost]:
        """What the latest completed documents cost, oldest first."""
        ...

    async def forecasts(self, limit: int) -> Sequence[tuple[float, float]]:
        """(predicted, actual) seconds of the latest jobs that ended undisturbed, newest first."""
        ...

    async def prune(self, before: float) -> frozenset[str] | None:
        """Forget a part of a job that ended ``before``, in one small transaction; None when there is none.

        Otherwise the content hashes whose bytes may now be unneeded.
        """
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

    async def documents(
        self, collection: str, limit: int, after: str | None, origin: str | None = None
    ) -> Page[Document]: ...

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

    async def publish(self, task: Task, version: int, warnings: Sequence[str] = ()) -> Withdrawn:
        """Make ``version`` visible, with ``warnings`` added, and return what it replaced. Raises LeaseLost."""
        ...

    async def describe(self, task: Task) -> bool:
        """Write the task's title, name and metadata to the current version; True if something changed."""
        ...

    async def abandoned(self) -> Sequence[int]:
        """Versions that no document shows and no running attempt is staging."""
        ...

    async def collect(self, version: int, on_forgotten: Callable[[Sequence[bytes]], None]) -> None:
        """Delete the rows of a version, unless it is visible; several small transactions.

        ``on_forgotten`` is told the embedding keys that each deleted, which other chunks may hold too; not those of an
        attempt whose document is tried again.
        """
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

    async def prune(self, collection: str, before: int) -> None:
        """Forget the changes before ``before`` that an empty index could do without; several small transactions."""
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
