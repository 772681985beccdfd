"""The composition root: settings in, a running App out. With ``parts.py``, the only module that names adapters."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ragworks import __version__, engines, tracing
from ragworks.answer import answer
from ragworks.api.service import OrchestrationApi
from ragworks.clock import SystemClock
from ragworks.control.events import Journal
from ragworks.control.gate import Gate
from ragworks.control.generation_metrics import Measured
from ragworks.control.machine import Machine
from ragworks.control.metrics import Metrics
from ragworks.control.orchestrator import Orchestrator, Registration
from ragworks.control.questions import Asked, Questions
from ragworks.control_protocols import Event
from ragworks.errors import InvalidInput, NotFound, StorageFull
from ragworks.implementations import DEFAULT, Factory, chosen
from ragworks.models import choosing
from ragworks.models.onnx_weights import available_cores
from ragworks.parts import Parts, engine_threads
from ragworks.protocols import Retriever, Service
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
    GenerationSettings,
    ProcessorSettings,
    Settings,
)
from ragworks.storage.events import SqliteEvents
from ragworks.storage.folder import DataFolder
from ragworks.types import Answer, Embeddings, Mode, SearchResult, TextKind, Turn
from ragworks.workers.jobs import Outcome

DEFAULTS: Mapping[str, Factory] = {
    "vector_store": VectorStore,
    "embeddings_service": engines.embeddings,  # the engine, of which there may be several; its front is always ours
    "document_processor": DocumentProcessor,
    "retrieval_service": RetrievalService,
    "generation_service": GenerationService,
    "orchestration_api": OrchestrationApi,
}


class App:
    """Every service of one data folder. Entering opens the folder and starts the services; leaving drains them."""

    def __init__(
        self, settings: Settings, *, serving: bool = False, implementations: Mapping[str, Factory] | None = None
    ) -> None:
        self.settings, self._serving = settings, serving
        self._made_by = made_by = chosen(settings, DEFAULTS, implementations or {})
        self.metrics = Metrics()
        self._resources = AsyncExitStack()
        self._starting: asyncio.Task[Any] | None = None
        self._parts = parts = Parts(settings)
        self._machine = Machine(parts.folder.path, parts.pool.pids)
        self.journal = Journal(parts.events, parts.clock, self.metrics.event)
        parts.pool.record = self.journal.for_service("document_processor")
        self.questions = Questions(
            parts.queries, settings.query_log.mode, parts.clock, self.metrics.question, self.metrics.feedback
        )
        # In a process of one's own everybody waits; over HTTP a caller can come back.
        most = settings.orchestration_api.max_questions if serving else sys.maxsize
        self._gate = Gate(most, parts.clock, self.journal.for_service("orchestration_api"))
        self.vector_store: VectorStore = made_by["vector_store"].factory(
            parts.rows,
            parts.blobs,
            parts.indexes,
            parts.clock,
            on_forgotten=lambda keys: self.embeddings_service.forget(keys),
        )
        self.embeddings_service: EmbeddingsService
        self.embeddings_service, self._embedding = self._embeddings(settings.embeddings_service)
        self.document_processor = self._processing(settings.document_processor)
        self.retrieval_service: RetrievalService = made_by["retrieval_service"].factory(
            settings.retrieval_service,
            store=self.vector_store,
            embedder=self.embeddings_service,
            embedder_ready=lambda: self.orchestrator.serving("embeddings_service"),
            scorer=parts.scorer,
            on_search=self.metrics.search,
        )
        self.generation_service, self._generation = self._writing(settings.generation_service)
        registry = {name: entry for name, entry in self._registry().items() if name in settings.server.services}
        self.orchestrator: Orchestrator = Orchestrator(registry, parts.clock, parts.rng, self.journal.for_service)
        self._watch()

    def _watch(self) -> None:
        metrics, prices = self.metrics, self.settings.generation_service.endpoint
        metrics.built(__version__, available_cores())
        metrics.price("generation_service", "input", prices.input_price_per_million_tokens)
        metrics.price("generation_service", "output", prices.output_price_per_million_tokens)
        metrics.price(NAME, "input", self.settings.embeddings_service.endpoint.input_price_per_million_tokens)
        metrics.watch_machine(self._machine)
        metrics.watch_targets(self.orchestrator.targets)
        metrics.watch_forecasts(self.orchestrator.forecasts)
        metrics.watch_stats("document_processor", self.document_processor.stats)
        metrics.watch_stats(NAME, self.embeddings_service.stats)
        for name in SERVICES:
            metrics.watch_service(name, lambda name=name: float(self.orchestrator.up(name)))  # type: ignore[misc]

    def _processing(self, settings: ProcessorSettings) -> DocumentProcessor:
        parts = self._parts
        service: DocumentProcessor = self._made_by["document_processor"].factory(
            settings,
            queue=parts.jobs,
            blobs=parts.blobs,
            reader=parts.reader(settings),
            embedder=self.embeddings_service,
            store=self.vector_store,
            clock=parts.clock,
            rng=parts.rng,
            workers=lambda: parts.pool.size,
            on_stage_end=self.metrics.stage,
            on_document=self._ended,
            webhooks=parts.webhooks(settings, self.metrics.webhook),
            record=self.journal.for_service("document_processor"),
        )
        return service

    def _readers(self) -> dict[str, Any]:
        """The workers that read documents, and what scales them."""
        name, parts, settings = "document_processor", self._parts, self.settings.document_processor
        workers = parts.readers(settings, self._made_by[name])
        record = self.journal.for_service(name)
        scaler = workers_scaler(name, settings.scaling, workers, parts.pool, available_cores(), parts.clock, record)
        return {"replicas": workers, "scaler": scaler}

    def _embeddings(self, settings: EmbeddingsSettings) -> tuple[EmbeddingsService, Registration]:
        """The front, and behind it engines that are replicas, or one engine here whose endpoints are."""
        parts, made_by, record = self._parts, self._made_by[NAME], self.journal.for_service(NAME)
        observe = self.metrics.replica_call(NAME)
        front = partial(
            EmbeddingsService, settings, stored=self.vector_store, clock=parts.clock,
            on_embedded=self._embedded, on_batch=self.metrics.batch,
        )  # fmt: skip
        if settings.endpoint.model and made_by.name == DEFAULT:
            endpoints = parts.endpoints(NAME, settings.endpoint, settings.replicas.strategy, record, observe)
            model = partial(choosing.remote_model, endpoints=endpoints, on_tokens=self.metrics.batch_tokens)
            engine = EmbeddingEngine(settings, model)
            service = front(engine=engine)
            self.metrics.watch_replicas(NAME, endpoints.stats, endpoints.views)
            because = "its replicas are those that embeddings_service.endpoint.urls names"
            return service, self._registered(
                NAME, _WithEngine(service, engine), replicas=endpoints, fixed_because=because
            )
        runtime = _runtime(settings, self._serving)
        group = parts.engines(settings, made_by, record, runtime, observe)
        service = front(
            engine=BalancedEngine(group.balancer.call),
            # In this process a call of any size costs nothing to hand over, and is taken in turns text by text.
            width=lambda: 0 if runtime == "inline" else len(group.handles),
        )
        self.metrics.watch_replicas(NAME, group.balancer.stats, group.balancer.views, group.usages)
        scaler = None
        if runtime == "process":
            threads = engine_threads(settings)
            scaler = engines_scaler(settings.scaling, group, threads, available_cores(), parts.clock, record)
        return service, self._registered(NAME, service, replicas=group, scaler=scaler)

    def _writing(self, settings: GenerationSettings) -> tuple[GenerationService, Registration]:
        """The service, whose replicas are the endpoints of its model if it has some."""
        name, more, endpoints = "generation_service", dict[str, Any](), None
        if settings.endpoint.model:
            record, observe = self.journal.for_service(name), self.metrics.replica_call(name)
            endpoints = self._parts.endpoints(name, settings.endpoint, settings.replicas.strategy, record, observe)
            self.metrics.watch_replicas(name, endpoints.stats, endpoints.views)
            because = "its replicas are those that generation_service.endpoint.urls names"
            more = {"replicas": endpoints, "fixed_because": because}
        writer, load, close = self._parts.writer(settings, endpoints)
        service: GenerationService = self._made_by[name].factory(writer, self._parts.clock, load, close)
        return service, self._registered(name, service, **more)

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
            "generation_service": self._generation,
            "orchestration_api": self._registered(
                "orchestration_api",
                self._made_by["orchestration_api"].factory(
                    self._parts.clock, self.metrics.loop_lag, self._machine.look
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
            if self.settings.traces.enabled:
                from ragworks.exporting import exporting  # late: who wants no traces does not wait for OpenTelemetry

                # First, so that the folder is free again while the last spans are still sent.
                await self._resources.enter_async_context(exporting(self.settings.traces))
            await asyncio.to_thread(self._parts.folder.open)
            self._resources.callback(self._parts.folder.close)
            await asyncio.to_thread(self._parts.database.open)
            self._resources.push_async_callback(asyncio.to_thread, self._parts.database.close)
            await asyncio.to_thread(self._parts.events.open)
            self._resources.push_async_callback(asyncio.to_thread, self._parts.events.close)
            await self._resources.enter_async_context(self.journal)
            await self._open_queries()
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

    async def _open_queries(self) -> None:
        queries = self._parts.queries
        if self.settings.query_log.mode != "off":
            await asyncio.to_thread(queries.open)
        self._resources.push_async_callback(asyncio.to_thread, queries.close)
        # Only a server knows which settings are the folder's: a command that looks into it must not cost what it keeps.
        if self._serving:
            await queries.narrow()
        await self._resources.enter_async_context(self.questions)

    async def stop(self) -> None:
        """Drain and stop the services in reverse order, then close the data folder. Harmless when called twice."""
        starting, self._starting = self._starting, None
        if starting:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        await self.orchestrator.stop()
        await self._resources.aclose()

    async def search(
        self, collection: str, query: str, *, mode: Mode = "hybrid", rerank: bool = False, **how: Any
    ) -> SearchResult:
        """As retrieval_service searches; the question is logged, and feedback can name the result's id.

        Raises TooManyQuestions in a server, beside what searching raises.
        """
        with self._gate.inside(), self.questions.asked("search", collection, query, mode=mode, rerank=rerank) as asked:
            found = await self.retrieval_service.search(collection, query, mode=mode, rerank=rerank, **how)
            asked.found = found = replace(found, id=asked.key)
        return found

    async def ask(
        self,
        collection: str,
        question: str,
        *,
        history: Sequence[Turn] = (),
        top_k: int | None = None,
        key: str | None = None,
    ) -> AsyncIterator[str | Answer]:
        """The answer in pieces as it is written, then the whole Answer, whose id is ``key`` if one is given.

        Raises what ``search`` raises.
        """
        outcome = "failed"
        with self._gate.inside(), self.questions.asked("ask", collection, question, key=key) as asked:
            span = tracing.entry(f"ask {collection}", {"ragworks.collection": collection})
            pieces = answer(
                collection,
                question,
                history=history,
                top_k=top_k or self.settings.generation_service.passages,
                retriever=_Noting(self.retrieval_service, asked),
                generator=Measured(self.generation_service, self._parts.clock, self.metrics),
                on_cited=self._cited,
            )
            try:
                async with aclosing(tracing.streamed(span, pieces)) as traced:  # type: ignore[type-var]
                    async for piece in traced:
                        if isinstance(piece, Answer):
                            outcome = "abstained" if piece.abstained else "answered"
                            asked.answer = piece = replace(piece, id=asked.key)
                        yield piece
            except (asyncio.CancelledError, GeneratorExit):
                outcome = "left" if asked.answer is None else outcome  # who asked is gone
                raise
            except (NotFound, InvalidInput):
                outcome = ""  # no question
                raise
            finally:
                if outcome:
                    self.metrics.answer(outcome)

    def _ended(self, outcome: Outcome) -> None:
        self.metrics.document(outcome.kind)
        if outcome.code:
            self.metrics.error(outcome.code)

    def _cited(self, resolved: int, removed: int) -> None:
        self.generation_service.note_cited(resolved, removed)
        self.metrics.citations(resolved, removed)

    def _embedded(self, kind: TextKind, result: Embeddings, seconds: float) -> None:
        if result.cache_stats["cache_misses"]:
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


class _Noting:
    """A Retriever that notes what was found."""

    def __init__(self, retriever: Retriever, asked: Asked) -> None:
        self._retriever, self._asked = retriever, asked

    async def search(self, collection: str, query: str, **how: Any) -> SearchResult:
        self._asked.found = found = await self._retriever.search(collection, query, **how)
        return found


def cores() -> int:
    """How many this process may use."""
    return available_cores()


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
