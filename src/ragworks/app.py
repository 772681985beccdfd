"""The composition root: settings in, a running App out. The only module that names concrete adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from ragworks.answer import answer
from ragworks.api.service import OrchestrationApi
from ragworks.clock import SystemClock
from ragworks.control.metrics import Metrics
from ragworks.control.orchestrator import Orchestrator, Registration
from ragworks.errors import StorageFull
from ragworks.models import choosing
from ragworks.models.carried import BGE_SMALL_EN, locate
from ragworks.models.extractive import ExtractiveGenerator
from ragworks.models.folder import passage_tokens
from ragworks.models.lexical import LexicalScorer
from ragworks.models.onnx_weights import OnnxScorer, available_cores
from ragworks.runtimes.processes import WorkerPool
from ragworks.services.document_processor import DocumentProcessor
from ragworks.services.embedding_engine import EmbeddingEngine
from ragworks.services.embeddings_service import EmbeddingsService
from ragworks.services.generation_service import GenerationService
from ragworks.services.retrieval_service import RetrievalService
from ragworks.services.vector_store import VectorStore
from ragworks.settings import SERVICES, EmbeddingsSettings, GenerationSettings, ProcessorSettings, Settings
from ragworks.storage.blobs import FileBlobs
from ragworks.storage.documents import SqliteRows
from ragworks.storage.folder import DataFolder
from ragworks.storage.indexes import IndexFolder
from ragworks.storage.jobs import SqliteJobs
from ragworks.storage.sqlite import Database
from ragworks.storage.webhooks import SqliteWebhooks
from ragworks.types import Answer, Embeddings, Job, ServiceHealth, TextKind, Turn
from ragworks.workers.jobs import Outcome
from ragworks.workers.reading import PooledReader, ReadLimits
from ragworks.workers.webhooks import Webhooks


class _Parts:
    """The adapters that the settings ask for; nothing is opened yet."""

    def __init__(self, settings: Settings) -> None:
        embeddings = settings.embeddings_service
        choosing.check(embeddings)
        weightless = embeddings.model_name == "hashing"
        self.clock, self.rng = SystemClock(), Random()
        self.folder = DataFolder(settings.server.data)
        self.database = Database(self.folder.database)
        self.rows = SqliteRows(self.database, self.clock)
        processor = settings.document_processor
        self.jobs = SqliteJobs(
            self.database, self.clock, slots=processor.concurrent_documents, lease_s=processor.silence_s
        )
        self.blobs = FileBlobs(self.folder.blobs)
        self.indexes = IndexFolder(self.folder.index)
        self.pool = WorkerPool(settings.document_processor.workers or max(1, available_cores() - 1))
        self.scorer = LexicalScorer() if weightless else OnnxScorer(embeddings.threads)
        self.chunk_tokens = partial(passage_tokens, embeddings.model_folder) if embeddings.model_folder else int
        self.tokenizer_path = (lambda: None) if weightless else partial(_tokenizer, embeddings)

    def reader(self, settings: ProcessorSettings) -> PooledReader:
        return PooledReader(
            self.pool,
            self.blobs.path,
            tokenizer_path=self.tokenizer_path,
            chunk_tokens=self.chunk_tokens(settings.chunk_tokens),
            limits=ReadLimits(settings.read_timeout_s, settings.read_timeout_s_per_mb, settings.read_memory_bytes),
            spool_folder=self.folder.uploads,
        )

    def webhooks(self, settings: ProcessorSettings, on_outcome: Callable[[str], None]) -> Webhooks:
        return Webhooks(
            SqliteWebhooks(self.database, self.clock),
            self.jobs.job,
            secret=settings.webhook_secret,
            timeout_s=settings.webhook_timeout_s,
            payload=_job_event,
            clock=self.clock,
            rng=self.rng,
            on_outcome=on_outcome,
        )

    def generator(self, settings: GenerationSettings) -> ExtractiveGenerator:
        return ExtractiveGenerator(self.scorer, settings.support_threshold)


class App:
    """Every service of one data folder. Entering opens the folder and starts the services; leaving drains them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self._resources = AsyncExitStack()
        self._starting: asyncio.Task[Any] | None = None
        self._parts = parts = _Parts(settings)
        self.vector_store = VectorStore(
            parts.rows,
            parts.blobs,
            parts.indexes,
            parts.clock,
            on_forgotten=lambda keys: self.embeddings_service.forget(keys),
        )
        self.engine = EmbeddingEngine(settings.embeddings_service, choosing.embedding_model)
        self.embeddings_service = EmbeddingsService(
            settings.embeddings_service,
            self.engine,
            self.vector_store,
            parts.clock,
            self._embedded,
        )
        self.document_processor = DocumentProcessor(
            settings.document_processor,
            queue=parts.jobs,
            blobs=parts.blobs,
            reader=parts.reader(settings.document_processor),
            embedder=self.embeddings_service,
            store=self.vector_store,
            clock=parts.clock,
            rng=parts.rng,
            workers=parts.pool.size,
            on_stage_end=self.metrics.stage,
            on_document=self._ended,
            webhooks=parts.webhooks(settings.document_processor, self.metrics.webhook),
        )
        self.retrieval_service = RetrievalService(
            settings.retrieval_service,
            store=self.vector_store,
            embedder=self.embeddings_service,
            embedder_ready=lambda: self.orchestrator.up("embeddings_service"),
            scorer=parts.scorer,
            on_search=self.metrics.search,
        )
        self.generation_service = GenerationService(
            parts.generator(settings.generation_service), parts.clock, getattr(parts.scorer, "load", None)
        )
        registry = {name: entry for name, entry in self._registry().items() if name in settings.server.services}
        self.orchestrator = Orchestrator(registry, parts.clock, parts.rng)
        self.metrics.watch_queue(lambda: float(self.document_processor.stats()["queue_size"]))
        for name in SERVICES:
            self.metrics.watch_service(name, lambda name=name: float(self.orchestrator.up(name)))  # type: ignore[misc]

    def _registry(self) -> dict[str, Registration]:
        """The dependency table: what each service cannot start without, and what it merely wants."""
        return {
            "vector_store": Registration(self.vector_store),
            "embeddings_service": Registration(_Both(self.embeddings_service, self.engine)),
            "document_processor": Registration(self.document_processor, needs=("vector_store", "embeddings_service")),
            "retrieval_service": Registration(
                self.retrieval_service, needs=("vector_store",), wants=("embeddings_service",)
            ),
            "generation_service": Registration(self.generation_service),
            "orchestration_api": Registration(
                OrchestrationApi(self._parts.clock, self.metrics.loop_lag),
                wants=("document_processor", "retrieval_service", "generation_service"),
            ),
        }

    async def __aenter__(self) -> App:
        await self.start(wait=True)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self, *, wait: bool) -> None:
        """Take the data folder, then start the services, in the background unless ``wait``.

        Raises DataFolderLocked, DataFolderNewer, StorageFull.
        """
        try:
            await asyncio.to_thread(self._parts.folder.open)
            self._resources.callback(self._parts.folder.close)
            await asyncio.to_thread(self._parts.database.open)
            self._resources.push_async_callback(asyncio.to_thread, self._parts.database.close)
            # Before anything starts: only then is what a dead server was staging nobody's, and collected.
            with suppress(StorageFull):  # searches can start without it; document_processor tries it again
                await self._parts.jobs.recover()
            await self._resources.enter_async_context(self._parts.pool)
        except BaseException:  # a folder that was half opened is closed again
            await self._resources.aclose()
            raise
        # Awaited here, or by stop.
        self._starting = asyncio.create_task(self.orchestrator.start_services(), name="start-services")
        if wait:
            await asyncio.shield(self._starting)

    async def stop(self) -> None:
        """Drain and stop the services in reverse order, then close the data folder. Harmless when called twice."""
        starting, self._starting = self._starting, None
        if starting:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        await self.orchestrator.stop()
        await self._resources.aclose()

    async def ask(
        self, collection: str, question: str, *, history: Sequence[Turn] = (), top_k: int | None = None
    ) -> AsyncIterator[str | Answer]:
        """The answer in pieces as it is written, then the whole Answer. Raises what searching raises."""
        outcome = "failed"
        pieces = answer(
            collection,
            question,
            history=history,
            top_k=top_k or self.settings.generation_service.passages,
            retriever=self.retrieval_service,
            generator=self.generation_service,
            on_cited=self._cited,
        )
        try:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    outcome = "abstained" if piece.abstained else "answered"
                yield piece
        finally:
            self.metrics.answer(outcome)

    def _ended(self, outcome: Outcome) -> None:
        self.metrics.document(outcome.kind)
        if outcome.code:
            self.metrics.error(outcome.code)

    def _cited(self, resolved: int, removed: int) -> None:
        self.generation_service.note_cited(resolved, removed)
        self.metrics.citations(resolved, removed)

    def _embedded(self, kind: TextKind, result: Embeddings, seconds: float) -> None:
        stats = result.cache_stats
        self.metrics.cache(int(stats["cache_hits"]), int(stats["cache_misses"]))
        if stats["cache_misses"]:
            self.metrics.embedding_call(kind, seconds)


class _Both:
    """The front and its only engine, until the engine has a group."""

    def __init__(self, front: EmbeddingsService, engine: EmbeddingEngine) -> None:
        self._front, self._engine = front, engine
        self.stats = front.stats

    async def initialize(self) -> None:
        await self._engine.initialize()
        await self._front.initialize()

    async def shutdown(self) -> None:
        await self._front.shutdown()
        await self._engine.shutdown()

    async def check_health(self) -> ServiceHealth:
        return await self._engine.check_health()


def build(settings: Settings) -> App:
    """An App for ``settings``; nothing is opened or started yet. Raises InvalidSettings."""
    return App(settings)


def _job_event(job: Job) -> Mapping[str, Any]:
    from ragworks.api.schemas import job_event  # late: opening a folder from Python needs no HTTP

    return job_event(job)


def _tokenizer(settings: EmbeddingsSettings) -> str:
    """The tokenizer that sizes chunks; an endpoint's is not known, and the bundled one stands for it."""
    if settings.model_folder:
        return str(Path(settings.model_folder, "tokenizer.json"))
    return str(locate(BGE_SMALL_EN).tokenizer)
