"""Every seam of ragworks but those below the services, which ``storage_protocols`` has. Adapters implement these;
services and control loops see nothing else.

Read downwards: time, services, the path of a document, the path of a question.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ragworks.records import Adopted
from ragworks.types import (
    Document,
    Draft,
    Embeddings,
    Hit,
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

    def lengths(self, texts: Sequence[str], kind: TextKind) -> list[int]:
        """Tokens of each text, untruncated, with the prefix that ``embed`` adds."""
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

    def lengths(self, texts: Sequence[str], kind: TextKind) -> list[int]:
        """Tokens of each text and its prefix, as far as they can be told from here."""
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

    Entering returns when the document is read; its parts are there once, in order, until the context is left.
    ``on_stage`` hears each stage as it begins in the worker; until the first, the document waits for one. Raises a
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

    async def publish(self, task: Task, version: int, warnings: Sequence[str] = ()) -> None:
        """Make ``version`` the visible one in one transaction, with ``warnings`` beside those of reading it.

        Returns when the next search finds it.

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
