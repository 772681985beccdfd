"""The composition root: settings in, a running App out. The only module that names concrete adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import psutil

from ragworks import engines
from ragworks.answer import answer
from ragworks.api.service import OrchestrationApi
from ragworks.clock import SystemClock
from ragworks.control import machine
from ragworks.control.endpoints import EndpointSet
from ragworks.control.events import Journal
from ragworks.control.group import Group, GroupSettings, healthy
from ragworks.control.metrics import Metrics
from ragworks.control.orchestrator import Orchestrator, Registration
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import Event, Record, Replica, ReplicaSpec
from ragworks.errors import CannotStart, StorageFull
from ragworks.implementations import DEFAULT, Factory, Implementation, chosen
from ragworks.models import choosing
from ragworks.models.carried import BGE_SMALL_EN, locate
from ragworks.models.extractive import ExtractiveGenerator
from ragworks.models.folder import passage_tokens
from ragworks.models.lexical import LexicalScorer
from ragworks.models.onnx_weights import OnnxScorer, available_cores
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.calling import CallSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.protocols import Service
from ragworks.runtimes.inline import InlineRuntime
from ragworks.runtimes.processes import WorkerPool
from ragworks.runtimes.replicas import ProcessRuntime
from ragworks.runtimes.workers import WorkerReplicas
from ragworks.scalers import engines_scaler, workers_scaler
from ragworks.services.document_processor import DocumentProcessor
from ragworks.services.embedding_engine import NAME, BalancedEngine, EmbeddingEngine
from ragworks.services.embeddings_service import EmbeddingsService
from ragworks.services.generation_service import GenerationService
from ragworks.services.retrieval_service import RetrievalService
from ragworks.services.vector_store import VectorStore
from ragworks.settings import (
    INLINE_ONLY,
    SERVICES,
    EmbeddingsSettings,
    EndpointSettings,
    GenerationSettings,
    ProcessorSettings,
    Settings,
)
from ragworks.storage.blobs import FileBlobs
from ragworks.storage.documents import SqliteRows
from ragworks.storage.events import SqliteEvents
from ragworks.storage.folder import DataFolder
from ragworks.storage.indexes import IndexFolder
from ragworks.storage.jobs import SqliteJobs
from ragworks.storage.sqlite import Database
from ragworks.storage.webhooks import SqliteWebhooks
from ragworks.types import Answer, Embeddings, Job, TextKind, Turn
from ragworks.workers.jobs import Outcome
from ragworks.workers.reading import PooledReader, ReadLimits
from ragworks.workers.webhooks import Webhooks

DEFAULTS: Mapping[str, Factory] = {
    "vector_store": VectorStore,
    "embeddings_service": engines.embeddings,  # the engine, of which there may be several; its front is always ours
    "document_processor": DocumentProcessor,
    "retrieval_service": RetrievalService,
    "generation_service": GenerationService,
    "orchestration_api": OrchestrationApi,
}
ENGINE_WAIT_S = 60.0
"""Three attempts at a document outlast a replica that needs two minutes to come back. Questions give up sooner."""
MAX_CALLS = 4096
"""Calls in flight to one engine: whoever waits there has its turn, which a refusal would take from it."""


class _Parts:
    """The adapters that the settings ask for; nothing is opened yet."""

    def __init__(self, settings: Settings) -> None:
        embeddings = settings.embeddings_service
        choosing.check(embeddings)
        weightless = embeddings.model_name == "hashing"
        self.clock, self.rng = SystemClock(), Random()
        self.folder = DataFolder(settings.server.data)
        self.database = Database(self.folder.database)
        self.events = SqliteEvents(self.folder.events, settings.events, self.clock)
        self.rows = SqliteRows(self.database, self.clock)
        processor = settings.document_processor
        self.jobs = SqliteJobs(
            self.database, self.clock, slots=processor.concurrent_documents, lease_s=processor.silence_s
        )
        self.blobs = FileBlobs(self.folder.blobs)
        self.indexes = IndexFolder(self.folder.index)
        self.runtimes: dict[str, InlineRuntime | ProcessRuntime] = {
            "inline": InlineRuntime(max_calls=MAX_CALLS),
            "process": ProcessRuntime(max_calls=MAX_CALLS),
        }
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

    def readers(self, settings: ProcessorSettings, made_by: Implementation) -> WorkerReplicas:
        bounds = settings.replicas.min_instances, max(settings.replicas.max_instances, self.pool.size)
        return WorkerReplicas("document_processor", self.pool, bounds, made_by.version, settings.read_memory_bytes)

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

    def endpoints(self, service: str, settings: EndpointSettings, strategy: str, record: Record) -> EndpointSet:
        replicas = ReplicaSet(BalanceSettings(strategy=strategy), EjectSettings(), self.rng, record)
        return EndpointSet(service, settings.model, settings.urls, replicas, self.clock, self.rng, record=record)

    def engines(self, settings: EmbeddingsSettings, made_by: Implementation, record: Record, runtime: str) -> Group:
        """The replicas of embeddings_service, which share the cores unless the settings deal them out."""
        wanted = settings.replicas
        settings = replace(settings, threads=_threads(settings))
        return Group(
            ReplicaSpec(NAME, made_by.factory, (settings,), made_by.name, made_by.version),
            self.runtimes[runtime],
            ReplicaSet(BalanceSettings(strategy=wanted.strategy), EjectSettings(), self.rng, record),
            self.clock,
            self.rng,
            GroupSettings(
                wanted.instances,
                wanted.min_instances,
                wanted.max_instances,
                replace=runtime == "process",
                memory_limit_bytes=psutil.virtual_memory().total,
            ),
            record=record,
            prove=_OneModel(),
            calls=CallSettings(wait_s=ENGINE_WAIT_S),
        )

    def generator(self, settings: GenerationSettings) -> ExtractiveGenerator:
        return ExtractiveGenerator(self.scorer, settings.support_threshold)


class App:
    """Every service of one data folder. Entering opens the folder and starts the services; leaving drains them."""

    def __init__(
        self, settings: Settings, *, serving: bool = False, implementations: Mapping[str, Factory] | None = None
    ) -> None:
        self.settings = settings
        self._made_by = made_by = chosen(settings, DEFAULTS, implementations or {})
        self.metrics = Metrics()
        self._resources = AsyncExitStack()
        self._starting: asyncio.Task[Any] | None = None
        self._parts = parts = _Parts(settings)
        self.journal = Journal(parts.events, parts.clock, self.metrics.event)
        self.vector_store: VectorStore = made_by["vector_store"].factory(
            parts.rows,
            parts.blobs,
            parts.indexes,
            parts.clock,
            on_forgotten=lambda keys: self.embeddings_service.forget(keys),
        )
        self.embeddings_service: EmbeddingsService
        self.embeddings_service, self._embedding = self._embeddings(settings.embeddings_service, serving)
        self.document_processor: DocumentProcessor = made_by["document_processor"].factory(
            settings.document_processor,
            queue=parts.jobs,
            blobs=parts.blobs,
            reader=parts.reader(settings.document_processor),
            embedder=self.embeddings_service,
            store=self.vector_store,
            clock=parts.clock,
            rng=parts.rng,
            workers=lambda: parts.pool.size,
            on_stage_end=self.metrics.stage,
            on_document=self._ended,
            webhooks=parts.webhooks(settings.document_processor, self.metrics.webhook),
            record=self.journal.for_service("document_processor"),
        )
        self.retrieval_service: RetrievalService = made_by["retrieval_service"].factory(
            settings.retrieval_service,
            store=self.vector_store,
            embedder=self.embeddings_service,
            embedder_ready=lambda: self.orchestrator.serving("embeddings_service"),
            scorer=parts.scorer,
            on_search=self.metrics.search,
        )
        self.generation_service: GenerationService = made_by["generation_service"].factory(
            parts.generator(settings.generation_service), parts.clock, getattr(parts.scorer, "load", None)
        )
        registry = {name: entry for name, entry in self._registry().items() if name in settings.server.services}
        self.orchestrator: Orchestrator = Orchestrator(registry, parts.clock, parts.rng, self.journal.for_service)
        self.metrics.watch_queue(lambda: float(self.document_processor.stats()["queue_size"]))
        for name in SERVICES:
            self.metrics.watch_service(name, lambda name=name: float(self.orchestrator.up(name)))  # type: ignore[misc]

    def _readers(self) -> dict[str, Any]:
        """The workers that read documents, and what scales them."""
        name, parts, settings = "document_processor", self._parts, self.settings.document_processor
        workers = parts.readers(settings, self._made_by[name])
        record = self.journal.for_service(name)
        scaler = workers_scaler(name, settings.scaling, workers, parts.pool, available_cores(), parts.clock, record)
        return {"replicas": workers, "scaler": scaler}

    def _embeddings(self, settings: EmbeddingsSettings, serving: bool) -> tuple[EmbeddingsService, Registration]:
        """The front, and behind it engines that are replicas, or one engine here whose endpoints are."""
        parts, made_by, record = self._parts, self._made_by[NAME], self.journal.for_service(NAME)
        front = partial(EmbeddingsService, settings, stored=self.vector_store, clock=parts.clock)
        if settings.endpoint.model and made_by.name == DEFAULT:
            endpoints = parts.endpoints(NAME, settings.endpoint, settings.replicas.strategy, record)
            engine = EmbeddingEngine(settings, partial(choosing.remote_model, endpoints=endpoints))
            service = front(engine=engine, on_embedded=self._embedded)
            self.metrics.watch_replicas(NAME, endpoints.stats, endpoints.views)
            because = "its replicas are those that embeddings_service.endpoint.urls names"
            return service, self._registered(
                NAME, _WithEngine(service, engine), replicas=endpoints, fixed_because=because
            )
        runtime = _runtime(settings, serving)
        group = parts.engines(settings, made_by, record, runtime)
        service = front(
            engine=BalancedEngine(group.balancer.call),
            on_embedded=self._embedded,
            # In this process a call of any size costs nothing to hand over, and is taken in turns text by text.
            width=lambda: 0 if runtime == "inline" else len(group.handles),
        )
        self.metrics.watch_replicas(NAME, group.balancer.stats, group.balancer.views)
        scaler = None
        if runtime == "process":
            threads = _threads(settings)
            scaler = engines_scaler(settings.scaling, group, threads, available_cores(), parts.clock, record)
        return service, self._registered(NAME, service, replicas=group, scaler=scaler)

    def _registry(self) -> dict[str, Registration]:
        """The dependency table: what each service cannot start without, and what it merely wants."""
        return {
            "vector_store": self._registered("vector_store", self.vector_store),
            "embeddings_service": self._embedding,
            "document_processor": self._registered(
                "document_processor",
                self.document_processor,
                needs=("vector_store", "embeddings_service"),
                **self._readers(),
            ),
            "retrieval_service": self._registered(
                "retrieval_service", self.retrieval_service, needs=("vector_store",), wants=("embeddings_service",)
            ),
            "generation_service": self._registered("generation_service", self.generation_service),
            "orchestration_api": self._registered(
                "orchestration_api",
                self._made_by["orchestration_api"].factory(
                    self._parts.clock, self.metrics.loop_lag, partial(machine.look, self._parts.folder.path)
                ),
                wants=("document_processor", "retrieval_service", "generation_service"),
            ),
        }

    def _registered(self, name: str, service: Service, **more: Any) -> Registration:
        made_by = self._made_by[name]
        more.setdefault("inline_because", INLINE_ONLY.get(name, ""))
        return Registration(service, **more, implementation=made_by.name, version=made_by.version)

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
            await asyncio.to_thread(self._parts.events.open)
            self._resources.push_async_callback(asyncio.to_thread, self._parts.events.close)
            await self._resources.enter_async_context(self.journal)
            # Before anything starts: only then is what a dead server was staging nobody's, and collected.
            with suppress(StorageFull):  # searches can start without it; document_processor tries it again
                await self._parts.jobs.recover()
            await self._resources.enter_async_context(self._parts.pool)
            for runtime in self._parts.runtimes.values():
                await self._resources.enter_async_context(runtime)
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


class _WithEngine:
    """The front of remote embeddings and its engine, which start and end together and are as well as the engine."""

    def __init__(self, front: EmbeddingsService, engine: EmbeddingEngine) -> None:
        self._front, self._engine = front, engine
        self.stats, self.check_health = front.stats, engine.check_health

    async def initialize(self) -> None:
        await self._engine.initialize()
        await self._front.initialize()

    async def shutdown(self) -> None:
        await self._front.shutdown()
        await self._engine.shutdown()


class _OneModel:
    """The proof of an embedding engine: it is healthy, and runs the model that those before it run."""

    def __init__(self) -> None:
        self._fingerprint = ""

    async def __call__(self, replica: Replica) -> None:
        await healthy(replica)
        found = (await replica.call("describe")).fingerprint
        self._fingerprint = self._fingerprint or found
        if found != self._fingerprint:
            raise CannotStart(
                f"{replica.id} runs model {found}, and those before it {self._fingerprint}: vectors of two models "
                "cannot be compared; start the server again to change the model"
            )


async def kept_events(settings: Settings, **which: Any) -> Sequence[Event]:
    """EventLog.recent of a data folder, without opening the folder; nothing if it has no events yet."""
    path = DataFolder(settings.server.data).events
    if not path.exists():
        return ()
    events = SqliteEvents(path, settings.events, SystemClock())
    try:
        return await events.recent(**which)
    finally:
        await asyncio.to_thread(events.close)


def build(settings: Settings, *, serving: bool = False, implementations: Mapping[str, Factory] | None = None) -> App:
    """An App for ``settings``; nothing is opened or started yet. Raises InvalidSettings.

    ``serving`` says that it will run for long: then models live in processes of their own, unless the settings say
    otherwise. ``implementations`` are factories by the name that settings call them by.
    """
    return App(settings, serving=serving, implementations=implementations)


def _runtime(settings: EmbeddingsSettings, serving: bool) -> str:
    """A process of its own takes 0.5 s and 130 MB more: worth it for a server, not for one command."""
    if settings.replicas.runtime != "auto":
        return settings.replicas.runtime
    return "process" if serving and choosing.has_weights(settings) else "inline"


def _threads(settings: EmbeddingsSettings) -> int:
    """Of one replica."""
    return settings.threads or max(1, available_cores() // settings.replicas.instances)


def _job_event(job: Job) -> Mapping[str, Any]:
    from ragworks.api.schemas import job_event  # late: opening a folder from Python needs no HTTP

    return job_event(job)


def _tokenizer(settings: EmbeddingsSettings) -> str:
    """The tokenizer that sizes chunks; an endpoint's is not known, and the bundled one stands for it."""
    if settings.model_folder:
        return str(Path(settings.model_folder, "tokenizer.json"))
    return str(locate(BGE_SMALL_EN).tokenizer)
