"""An App whose services answer from dictionaries and fail on command: what the API may ask, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ragworks.clock import SystemClock
from ragworks.control.events import Journal
from ragworks.control.metrics import Metrics
from ragworks.control.orchestrator import Registration
from ragworks.control.questions import Questions
from ragworks.errors import (
    CollectionExists,
    CollectionNotFound,
    DeadLetterNotFound,
    DocumentNotFound,
    JobNotFound,
    NotReady,
    ServiceNotFound,
)
from ragworks.records import Requeued
from ragworks.reports import ReplicaReport, ServiceReport
from ragworks.settings import Settings, load
from ragworks.testing import MemoryEvents, MemoryQueries
from ragworks.types import (
    Answer,
    CacheReport,
    Checkup,
    Citation,
    Collection,
    DeadLetter,
    Document,
    Embeddings,
    FailedText,
    Health,
    Hit,
    Interval,
    Job,
    JobDocument,
    Page,
    SearchResult,
    ServiceHealth,
    Stage,
    Submission,
    TaskState,
    Turn,
    Upload,
)

HIT = Hit("notes.md", "c1", 0.9, "a passage", "Notes", 2, 10, 19, ("Top",), {"year": 2024}, 0.8, None)
ANSWER = Answer(
    "Yes. [1]", False, (Citation(1, "notes.md", "c1", "Notes", None, 0, 4, "Yes."),), "extractive", {}, {"total": 0.1}
)


def document(document_id: str) -> Document:
    return Document(
        document_id,
        "default",
        1,
        document_id,
        "Notes",
        "ab",
        9,
        "text/plain",
        1,
        None,
        {"k": 1},
        {},
        ("w",),
        "t1",
        1.0,
        2.0,
    )


def job(job_id: str, status: TaskState = TaskState.COMPLETED) -> Job:
    one = JobDocument("a", "t1", "a", TaskState.FAILED, Stage.PARSING, "empty_document", "no text", False, (), 1)
    return Job(job_id, "default", status, 1.0, None, {"total": 1, "failed": 1}, (one,))


def page(items: Sequence[Any], limit: int, after: str | None, key: str) -> Page[Any]:
    names = [getattr(item, key) for item in items]
    start = names.index(after) + 1 if after in names else 0
    part = tuple(items[start : start + limit])
    return Page(part, start + limit < len(items), getattr(part[-1], key) if part else None)


class FakeVectorStore:
    def __init__(self) -> None:
        self.names = ["default"]
        self.texts = {"notes.md": "a passage", "dir/notes.md": "in a folder"}
        self.origins = {"dir/notes.md": "/srv/dir"}
        self.error: Exception | None = None

    async def create_collection(self, name: str) -> Collection:
        if name in self.names:
            raise CollectionExists(name)
        self.names.append(name)
        return await self.collection(name)

    async def collections(self, limit: int, after: str | None) -> Page[Collection]:
        return page([Collection(name, "f", 4, 1.0) for name in self.names], limit, after, "name")

    async def collection(self, name: str) -> Collection:
        if self.error is not None:
            raise self.error
        if name not in self.names:
            raise CollectionNotFound(name)
        return Collection(name, "f", 4, 1.0)

    async def drop_collection(self, name: str) -> None:
        await self.collection(name)
        self.names.remove(name)

    async def documents(
        self, collection: str, limit: int, after: str | None, origin: str | None = None
    ) -> Page[Document]:
        names = [name for name in sorted(self.texts) if origin is None or self.origins.get(name) == origin]
        return page([replace(document(name), origin=self.origins.get(name)) for name in names], limit, after, "id")

    async def document(self, collection: str, document_id: str) -> Document:
        await self.text(collection, document_id)
        return document(document_id)

    async def text(self, collection: str, document_id: str) -> str:
        if document_id not in self.texts:
            raise DocumentNotFound(collection, document_id)
        return self.texts[document_id]

    async def delete_document(self, collection: str, document_id: str) -> None:
        await self.text(collection, document_id)
        del self.texts[document_id]

    async def checkup(self) -> Checkup:
        return Checkup(1, 2, 2, 2, 1, ())


class FakeProcessor:
    """Remembers submissions; ``contents`` are the bytes that each upload held when it was submitted."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.release = asyncio.Event()

    async def process_documents(self, collection: str, uploads: Sequence[Upload], **more: Any) -> Submission:
        if self.error is not None:
            raise self.error
        self.calls.append({"collection": collection, "uploads": list(uploads), "contents": _contents(uploads), **more})
        return Submission(
            "j1", len(uploads), tuple(f"t{index}" for index in range(len(uploads))), 1.5, Interval(1.0, 2.5, 0.8), 3
        )

    async def jobs(self, limit: int, after: str | None) -> Page[Job]:
        return page([job("j2"), job("j1")], limit, after, "id")

    async def job(self, job_id: str) -> Job:
        if job_id != "j1":
            raise JobNotFound(job_id)
        return job(job_id)

    async def cancel(self, job_id: str) -> Job:
        return await self.job(job_id)

    async def retry(self, job_id: str) -> Job:
        return await self.job(job_id)

    async def dead_letters(self, limit: int, after: str | None) -> Page[DeadLetter]:
        dead = DeadLetter("t1", "j1", "default", "a", "a.pdf", Stage.PARSING, "corrupt_document", "cut off", 1, 5.0)
        return page([dead], limit, after, "task_id")

    async def retry_dead(self, task_id: str | None = None) -> Requeued:
        if task_id not in (None, "t1"):
            raise DeadLetterNotFound(task_id)
        return Requeued(1 if task_id == "t1" else 3, 0)

    async def events(self, job_id: str) -> AsyncIterator[Job]:
        await self.job(job_id)
        yield job(job_id, TaskState.QUEUED)
        await self.release.wait()
        yield job(job_id)


def _contents(uploads: Sequence[Upload]) -> list[bytes]:
    return [one.source if isinstance(one.source, bytes) else Path(one.source).read_bytes() for one in uploads]


class FakeRetrieval:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None

    async def search(self, collection: str, query: str, **more: Any) -> SearchResult:
        if self.error is not None:
            raise self.error
        self.calls.append({"collection": collection, "query": query, **more})
        return SearchResult((HIT,), {"total": 0.01})


class FakeEmbeddings:
    dimension = 2

    def __init__(self) -> None:
        self.cached = 3

    async def embed_texts(
        self, texts: Sequence[str], cache_key_prefix: str = "", *, kind: str = "passage"
    ) -> Embeddings:
        failed = tuple(FailedText(index, "too odd") for index, text in enumerate(texts) if text == "odd")
        rows = [np.array([1.0, 0.0 if kind == "passage" else 1.0], dtype=np.float32) for _ in texts]
        truncated = tuple(index for index, text in enumerate(texts) if len(text) > 100)
        return Embeddings(rows, {}, "hashing", 1, failed, truncated)

    async def count_tokens(self, texts: Sequence[str], kind: str = "passage") -> int:
        return sum(len(text.split()) + (kind == "question") for text in texts)

    def cache_report(self) -> CacheReport:
        return CacheReport("hashing:1", self.cached, 10, 24, 5, 4, 1, 0.9)

    def clear_cache(self) -> int:
        cleared, self.cached = self.cached, 0
        return cleared


class FakeOrchestrator:
    def __init__(self) -> None:
        self.down: dict[str, str] = {}
        self.health = ServiceHealth("vector_store", Health.HEALTHY, 1.0, 0, 5.0, {"rows": 3})
        self.scaled: list[tuple[str, int | str, str]] = []
        self.registry: dict[str, Registration] = {}

    def require(self, name: str) -> None:
        if name in self.down:
            raise NotReady(f"{name} is not up: {self.down[name]}", 2.3)

    def ready(self) -> tuple[bool, Mapping[str, str]]:
        return not self.down, dict(self.down)

    async def scale(self, name: str, instances: int, reason: str) -> None:
        if name != "embeddings_service":
            raise ServiceNotFound(name, ["embeddings_service"])
        self.scaled.append((name, instances, reason))

    def scale_by_load(self, name: str, reason: str) -> None:
        self.scaled.append((name, "auto", reason))

    def report(self, name: str) -> ServiceReport:
        scaling = {"mode": "auto"} if self.scaled[-1][1] == "auto" else {"mode": "pinned"}
        replicas = tuple(ReplicaReport(f"{name}-{n}", None, "starting", "1", note="soon") for n in range(2))
        return ServiceReport(name, "started", None, (), None, replicas, {}, scaling)

    async def services(self) -> list[ServiceReport]:
        replica = ReplicaReport("r1", 7, "ready", "1", 0, 0.2, 0.1, queue_size=2, queue_age_s=1.5)
        calls = {"queued": 2.0, "queue_age_s": 1.5}
        up = ServiceReport("vector_store", "started", None, (), self.health, (replica,), {"chunks": 2}, calls=calls)
        return [up, *(ServiceReport(name, "failed", why, (), None, (), {}) for name, why in self.down.items())]


class FakeApp:
    def __init__(self, data: Path | str = "unused", **settings: Mapping[str, Any]) -> None:
        """``data`` must exist."""
        settings.setdefault("embeddings_service", {"model_name": "hashing"})
        self.settings: Settings = load(environ={}, server={"data": str(data)}, **settings)
        self.metrics = Metrics()
        self.events = MemoryEvents()
        self.journal = Journal(self.events, SystemClock())
        self.queries = MemoryQueries()
        self.questions = Questions(self.queries, "full", SystemClock(), self.metrics.question, self.metrics.feedback)
        self.orchestrator = FakeOrchestrator()
        self.vector_store = FakeVectorStore()
        self.embeddings_service = FakeEmbeddings()
        self.document_processor = FakeProcessor()
        self.retrieval_service = FakeRetrieval()
        self.generation_service = object()
        self.asked: list[tuple[str, str, list[Turn], int | None]] = []
        self.pieces: list[str | Answer | Exception] = ["Yes.", " [1]", ANSWER]
        self.running = False

    async def start(self, *, wait: bool = True) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def search(self, collection: str, query: str, **how: Any) -> SearchResult:
        return replace(await self.retrieval_service.search(collection, query, **how), id="q1")

    async def ask(
        self,
        collection: str,
        question: str,
        *,
        history: Sequence[Turn] = (),
        top_k: int | None = None,
        key: str | None = None,
    ) -> AsyncIterator[str | Answer]:
        await self.vector_store.collection(collection)
        self.asked.append((collection, question, list(history), top_k))
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece
