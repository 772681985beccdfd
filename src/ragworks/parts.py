"""The adapters that the settings ask for: made here, opened and wired in ``app.py``. Nobody else names them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from ragworks.clock import SystemClock
from ragworks.control.endpoints import EndpointSet
from ragworks.control.group import Group, GroupSettings, healthy
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import Endpoints, Record, Replica, ReplicaSpec
from ragworks.errors import CannotStart
from ragworks.implementations import Implementation
from ragworks.models import choosing
from ragworks.models.carried import BGE_SMALL_EN, locate
from ragworks.models.extractive import ExtractiveGenerator
from ragworks.models.folder import passage_tokens
from ragworks.models.lexical import LexicalScorer
from ragworks.models.onnx_weights import OnnxScorer, available_cores
from ragworks.models.openai_chat import FallingBack, OpenAIChatGenerator
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.calling import CallSettings, HedgeSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.protocols import Generator
from ragworks.runtimes.inline import InlineRuntime
from ragworks.runtimes.processes import WorkerPool
from ragworks.runtimes.replicas import ProcessRuntime
from ragworks.runtimes.workers import WorkerReplicas
from ragworks.services.embedding_engine import NAME
from ragworks.settings import (
    ChatSettings,
    EmbeddingsSettings,
    EndpointSettings,
    GenerationSettings,
    ProcessorSettings,
    ReplicaSettings,
    Settings,
)
from ragworks.storage.blobs import FileBlobs
from ragworks.storage.documents import SqliteRows
from ragworks.storage.events import SqliteEvents
from ragworks.storage.folder import DataFolder
from ragworks.storage.indexes import IndexFolder
from ragworks.storage.jobs import SqliteJobs
from ragworks.storage.queries import SqliteQueries
from ragworks.storage.sqlite import Database
from ragworks.storage.webhooks import SqliteWebhooks
from ragworks.types import Job
from ragworks.workers.reading import PooledReader, ReadLimits
from ragworks.workers.webhooks import Webhooks

ENGINE_WAIT_S = 60.0
"""Three attempts at a document outlast a replica that needs two minutes to come back. Questions give up sooner."""
Load = Callable[[], object] | None
Observe = Callable[[float], None]
Close = Callable[[], Awaitable[None]] | None

MAX_CALLS = 4096
"""Calls in flight to one engine: whoever waits there has its turn, which a refusal would take from it."""


class Parts:
    """The adapters that the settings ask for; nothing is opened yet."""

    def __init__(self, settings: Settings) -> None:
        embeddings = settings.embeddings_service
        choosing.check(embeddings)
        choosing.check_generation(settings.generation_service)
        weightless = embeddings.model_name == "hashing"
        self.clock, self.rng = SystemClock(), Random()
        self.folder = DataFolder(settings.server.data)
        self.database = Database(self.folder.database)
        self.events = SqliteEvents(self.folder.events, settings.events, self.clock)
        self.queries = SqliteQueries(self.folder.queries, settings.query_log, self.clock)
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
        self.pool = WorkerPool(processor.workers or workers_by_cores(processor.replicas))
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
        return WorkerReplicas(
            "document_processor",
            self.pool,
            bounds,
            settings.read_memory_bytes,
            implementation=made_by.name,
            version=made_by.version,
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

    def endpoints(
        self, service: str, settings: EndpointSettings | ChatSettings, strategy: str, record: Record, observe: Observe
    ) -> EndpointSet:
        replicas = ReplicaSet(BalanceSettings(strategy=strategy), EjectSettings(), self.rng, record, observe)
        return EndpointSet(service, settings.model, settings.urls, replicas, self.clock, self.rng, record=record)

    def engines(
        self, settings: EmbeddingsSettings, made_by: Implementation, record: Record, runtime: str, observe: Observe
    ) -> Group:
        """The replicas of embeddings_service, which share the cores unless the settings deal them out."""
        wanted = settings.replicas
        settings = replace(settings, threads=engine_threads(settings))
        return Group(
            ReplicaSpec(NAME, made_by.factory, (settings,), made_by.name, made_by.version),
            self.runtimes[runtime],
            ReplicaSet(BalanceSettings(strategy=wanted.strategy), EjectSettings(), self.rng, record, observe),
            self.clock,
            self.rng,
            GroupSettings(
                wanted.instances,
                wanted.min_instances,
                wanted.max_instances,
                replace=runtime == "process",
                memory_limit_bytes=wanted.memory_bytes,
            ),
            record=record,
            prove=_OneModel(),
            calls=CallSettings(wait_s=ENGINE_WAIT_S, hedge=HedgeSettings(quantile=wanted.hedge_quantile)),
        )

    def writer(self, settings: GenerationSettings, endpoints: Endpoints | None) -> tuple[Generator, Load, Close]:
        """Who writes answers, what makes it ready, and what lets go of it."""
        load: Load = getattr(self.scorer, "load", None)
        extractive = ExtractiveGenerator(self.scorer, settings.support_threshold)
        if endpoints is None:
            return extractive, load, None
        chat = OpenAIChatGenerator(settings.endpoint, endpoints, self.clock)
        if settings.fallback == "none":
            return chat, chat.open, chat.close

        def both() -> None:
            chat.open()
            if load:
                load()

        return FallingBack(chat, extractive), both, chat.close


def engine_threads(settings: EmbeddingsSettings) -> int:
    """Of one replica."""
    return settings.threads or max(1, available_cores() // settings.replicas.instances)


def workers_by_cores(bounds: ReplicaSettings) -> int:
    """At start: all cores but one, within bounds that somebody set."""
    most = bounds.max_instances if bounds.bounded else available_cores()
    return max(bounds.min_instances, min(most, available_cores() - 1))


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


def _job_event(job: Job) -> Mapping[str, Any]:
    from ragworks.api.schemas import job_event  # late: opening a folder from Python needs no HTTP

    return job_event(job)


def _tokenizer(settings: EmbeddingsSettings) -> str:
    """The tokenizer that sizes chunks; an endpoint's is not known, and the bundled one stands for it."""
    if settings.model_folder:
        return str(Path(settings.model_folder, "tokenizer.json"))
    return str(locate(BGE_SMALL_EN).tokenizer)
