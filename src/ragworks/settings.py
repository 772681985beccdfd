"""One frozen tree of settings: defaults visible here, read from ``ragworks.toml`` and ``RAGWORKS_SECTION__KEY``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ragworks import settings_otel as otel
from ragworks.errors import InvalidInput, InvalidSettings
from ragworks.policies.balancing import STRATEGIES, BalanceSettings
from ragworks.settings_scaling import ScalingSettings, WorkerScalingSettings, check_scaling
from ragworks.settings_sources import PROFILE, build, describe, from_environment, merge, nearest, read_toml, setting

__all__ = ["SERVICES", "Settings", "describe", "load"]

SERVICES = (
    "vector_store",
    "embeddings_service",
    "document_processor",
    "retrieval_service",
    "generation_service",
    "orchestration_api",
)

INLINE_ONLY: Mapping[str, str] = {
    "vector_store": "it owns the database and the indexes of the data folder, which one process writes at a time",
    "retrieval_service": "it searches the indexes, which are held in the server's process",
    "generation_service": "it shares the scorer of the reranker, which is held in the server's process",
    "orchestration_api": "it is the event loop and the port of the server",
}
"""Services of one replica, in the server's process, and why."""

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    host: str = setting("127.0.0.1", "address to bind")
    port: int = setting(8000, "port to bind; 0 takes a free one", low=0, high=65535)
    data: str = setting("./.ragworks", "data folder")
    services: tuple[str, ...] = setting(SERVICES, "services to start", of=SERVICES)


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """The copies of one service: where they live, how many there are, who gets a call, and which code they run."""

    runtime: str = setting(
        "auto",
        "where replicas live: inline (in the server), process (a child each), or auto (what suits the service)",
        of=("auto", "inline", "process"),
    )
    instances: int = setting(1, "replicas at start", low=1, high=256)
    min_instances: int = setting(1, "fewest replicas that scaling leaves", low=1, high=256)
    max_instances: int = setting(10, "most replicas that scaling makes", low=1, high=256)
    strategy: str = setting(BalanceSettings().strategy, "how a call finds its replica", of=tuple(STRATEGIES))
    implementation: str = setting("default", "what runs: default, or a name of the table [implementations]")
    memory_bytes: int = setting(
        4 * 1024**3, "resident memory of one process; a replica that stays above it is replaced", low=64 * 1024**2
    )
    hedge_quantile: float = setting(
        0.0,
        "a call slower than this share of the last ones is sent to a second replica too, such as 0.95; 0 never",
        low=0,
        high=0.999,
    )

    @property
    def bounded(self) -> bool:
        """Whether somebody set ``max_instances``; where nobody did, more that are asked for otherwise are meant."""
        return self.max_instances != ReplicaSettings().max_instances


@dataclass(frozen=True, slots=True)
class StoreSettings:
    replicas: ReplicaSettings = field(default_factory=ReplicaSettings)


@dataclass(frozen=True, slots=True)
class ApiSettings:
    max_questions: int = setting(
        128, "searches and asks that a server answers at once; the next one gets 429 and Retry-After", low=1
    )
    replicas: ReplicaSettings = field(default_factory=ReplicaSettings)


@dataclass(frozen=True, slots=True)
class ProcessorSettings:
    workers: int = setting(
        0, "worker processes that read documents; 0 means cores less one, at least one", low=0, high=256
    )
    concurrent_documents: int = setting(
        16, "documents that are under way at once, so that their passages share batches", low=1, high=1000
    )
    max_queue_size: int = setting(1000, "documents that may wait or run", low=1)
    max_queue_bytes: int = setting(4 * 1024**3, "bytes of documents that may wait or run", low=1)
    max_document_bytes: int = setting(100 * 1024**2, "largest document accepted", low=1)
    max_attempts: int = setting(3, "attempts at a document before it is given up", low=1)
    lease_s: float = setting(
        300.0, "seconds without a sign of progress after which an attempt is ended; at least read_timeout_s + 30", low=1
    )
    keep_jobs_s: float = setting(
        7 * 86_400.0, "seconds that a finished job is kept, and the bytes of its failed documents", low=0
    )
    read_timeout_s: float = setting(60.0, "seconds that reading one document may take", low=0.1)
    read_timeout_s_per_mb: float = setting(2.0, "seconds more for each megabyte of the document", low=0)
    read_memory_bytes: int = setting(
        2 * 1024**3, "resident memory that a worker may use for one document", low=64 * 1024**2
    )
    chunk_tokens: int = setting(384, "tokens of a chunk, heading prefix included", low=32, high=8192)
    webhook_secret: str = setting(
        "",
        "signs webhooks: whsec_ and 24 to 64 random bytes in base64; empty refuses submissions that ask for one",
        secret=True,
    )
    webhook_timeout_s: float = setting(15.0, "seconds that the receiver of a webhook has to answer", low=0.1)
    replicas: ReplicaSettings = field(default_factory=ReplicaSettings)
    scaling: WorkerScalingSettings = field(default_factory=WorkerScalingSettings)

    @property
    def silence_s(self) -> float:
        """How long an attempt may be silent: a document that is read within its limit is never taken for dead."""
        return max(self.lease_s, self.read_timeout_s + 30.0)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    max_size: int = setting(10_000, "vectors held in memory", low=0)
    ttl_seconds: float = setting(86_400.0, "seconds that a vector stays in memory", low=0)
    max_bytes: int = setting(64 * 1024**2, "bytes that they may take", low=0)


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    model: str = setting("", "embedding model of an OpenAI-compatible endpoint, used instead of model_name")
    urls: tuple[str, ...] = setting(
        (OPENAI_URL,), "base URLs that serve this model, balanced and failed over; OPENAI_BASE_URL if not set"
    )
    api_key: str = setting("", "key sent as a bearer token; OPENAI_API_KEY if not set", secret=True)
    dimension: int = setting(
        0, "numbers of a vector; 0 learns it from the endpoint, which then must be up at start", low=0, high=65536
    )
    concurrency: int = setting(4, "requests in flight for passages, and as many for questions", low=1, high=1000)
    timeout_s: float = setting(30.0, "seconds that one request may take", low=0.05)
    patience_s: float = setting(
        120.0, "seconds that a passage waits through failures before it fails (a question: 5)", low=0
    )
    max_request_bytes: int = setting(512 * 1024, "bytes of text in one request at most", low=1)
    max_text_bytes: int = setting(
        24 * 1024, "bytes of one text that are sent; what is longer is cut and said so", low=64
    )
    input_price_per_million_tokens: float = setting(
        0.0, "what a million tokens cost, in any currency, for the metric rag_cost_total; 0 leaves it out", low=0
    )


@dataclass(frozen=True, slots=True)
class EmbeddingsSettings:
    model_name: str = setting(
        "bge-small-en-v1.5",
        "embedding model: bge-small-en-v1.5 (bundled), or hashing (no weights, tests)",
        of=("bge-small-en-v1.5", "hashing"),
    )
    model_folder: str = setting("", "folder of an ONNX embedding model, used instead of model_name")
    engine: str = setting(
        "onnxruntime",
        "what runs the bundled model: onnxruntime, or openvino (extra; nearer to float arithmetic, other vectors)",
        of=("onnxruntime", "openvino"),
    )
    query_prefix: str = setting(
        "", "what the card of a folder's or endpoint's model asks before a question, such as 'query: '"
    )
    passage_prefix: str = setting("", "what it asks before a passage, such as 'passage: '")
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    batch_size: int = setting(100, "texts in one batch, or one request to an endpoint, at most", low=1)
    batch_tokens: int = setting(512, "tokens in one batch at most, padding included", low=64)
    threads: int = setting(
        0, "threads of each replica's model; 0 shares the cores out among instances", low=0, high=256
    )
    cache_enabled: bool = setting(True, "keep vectors in memory by content")
    cache_config: CacheSettings = field(default_factory=CacheSettings)
    replicas: ReplicaSettings = field(default_factory=ReplicaSettings)
    scaling: ScalingSettings = field(default_factory=ScalingSettings)

    @property
    def model(self) -> str:
        """The name by which clients know the model in use."""
        if self.endpoint.model:
            return self.endpoint.model
        return Path(self.model_folder).resolve().name if self.model_folder else self.model_name


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    dense_weight: float = setting(0.7, "share of the dense score in hybrid search", low=0, high=1)
    candidates: int = setting(100, "candidates that each leg brings", low=1, high=1000)
    history_weight: float = setting(0.5, "weight of the scores of all user turns together", low=0, high=1)
    rerank_passages: int = setting(20, "hits that a rerank may reorder", low=2, high=200)
    rerank_weight: float = setting(0.3, "share of the reranker's score", low=0, high=1)
    rerank_budget_s: float = setting(5.0, "seconds after which a rerank is left out", low=0.1)
    replicas: ReplicaSettings = field(default_factory=ReplicaSettings)


@dataclass(frozen=True, slots=True)
class ChatSettings:
    model: str = setting("", "chat model of an OpenAI-compatible endpoint, for generator openai")
    urls: tuple[str, ...] = setting(
        (OPENAI_URL,), "base URLs that serve this model, balanced and failed over; OPENAI_BASE_URL if not set"
    )
    api_key: str = setting("", "key sent as a bearer token; OPENAI_API_KEY if not set", secret=True)
    concurrency: int = setting(8, "answers that are written at once; eight times as many wait", low=1, high=1000)
    timeout_s: float = setting(60.0, "seconds that an endpoint may be silent, and that a question waits", low=0.05)
    max_tokens: int = setting(1024, "tokens of an answer at most", low=1)
    temperature: float = setting(0.0, "randomness of the answer", low=0, high=2)
    input_price_per_million_tokens: float = setting(
        0.0, "what a million tokens that it reads cost, in any currency, for the metric rag_cost_total", low=0
    )
    output_price_per_million_tokens: float = setting(
        0.0, "what a million tokens that it writes cost, in the same currency", low=0
    )


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    generator: str = setting(
        "extractive",
        "who writes answers: extractive (quotes sentences), or openai (the chat model of endpoint)",
        of=("extractive", "openai"),
    )
    fallback: str = setting(
        "none",
        "who answers while no endpoint does: none (503, with the reason) or extractive",
        of=("none", "extractive"),
    )
    endpoint: ChatSettings = field(default_factory=ChatSettings)
    passages: int = setting(5, "passages that an answer may use", low=1, high=50)
    support_threshold: float = setting(
        1.0, "least support of the best sentence, in the scorer's units; below it the answer abstains"
    )
    replicas: ReplicaSettings = field(default_factory=ReplicaSettings)


@dataclass(frozen=True, slots=True)
class EventSettings:
    keep: int = setting(10_000, "events kept, as `ragworks why` shows them", low=1)
    keep_s: float = setting(14 * 86_400.0, "seconds that an event is kept", low=0)
    max_bytes: int = setting(64 * 1024**2, "bytes that they may take", low=1024**2)


@dataclass(frozen=True, slots=True)
class QueryLogSettings:
    mode: str = setting(
        "metadata",
        "what is kept of each question: off (nothing), metadata (all but texts), full (with question and comments)",
        of=("off", "metadata", "full"),
    )
    keep: int = setting(50_000, "questions kept, as `ragworks insights` counts them", low=1)
    keep_s: float = setting(30 * 86_400.0, "seconds that a question is kept", low=0)
    max_bytes: int = setting(256 * 1024**2, "bytes that they may take", low=1024**2)


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = setting("info", "least severe event logged", of=("debug", "info", "warning", "error"))
    format: str = setting("auto", "json, console, or auto: console on a terminal", of=("auto", "json", "console"))


@dataclass(frozen=True, slots=True)
class TraceSettings:
    enabled: bool = setting(
        False, "send spans by OTLP, as OTEL_* say; on if OTEL_EXPORTER_OTLP_ENDPOINT is set, never if OTEL_SDK_DISABLED"
    )
    capture_text: bool = setting(
        False,
        "put questions, passages and answers into spans; OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT if not set",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    server: ServerSettings = field(default_factory=ServerSettings)
    vector_store: StoreSettings = field(default_factory=StoreSettings)
    document_processor: ProcessorSettings = field(default_factory=ProcessorSettings)
    embeddings_service: EmbeddingsSettings = field(default_factory=EmbeddingsSettings)
    retrieval_service: RetrievalSettings = field(default_factory=RetrievalSettings)
    generation_service: GenerationSettings = field(default_factory=GenerationSettings)
    orchestration_api: ApiSettings = field(default_factory=ApiSettings)
    events: EventSettings = field(default_factory=EventSettings)
    query_log: QueryLogSettings = field(default_factory=QueryLogSettings)
    log: LogSettings = field(default_factory=LogSettings)
    traces: TraceSettings = field(default_factory=TraceSettings)
    implementations: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "doc": 'other code for services: a table of names, each for a factory as "module:factory"',
            "low": None,
            "high": None,
            "of": (),
        },
    )

    def replicas(self, service: str) -> ReplicaSettings:
        found: ReplicaSettings = getattr(self, service).replicas
        return found


def known_service(name: str) -> str:
    """``name``. Raises InvalidInput with the nearest one if no service is called so."""
    if name not in SERVICES:
        raise InvalidInput(f"service must be one of {', '.join(SERVICES)}, found {name!r}{nearest(name, SERVICES)}")
    return name


def load(
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    profile: str | None = None,
    **overrides: Mapping[str, Any],
) -> Settings:
    """Settings from ``path`` (or ``./ragworks.toml`` if it is there), then the environment, then ``overrides``.

    ``profile`` (or RAGWORKS_PROFILE) names a table ``[profile.NAME]`` of the file that is laid over its base.
    OPENAI_API_KEY, OPENAI_BASE_URL and what OTEL_* say of traces count as defaults. Raises InvalidSettings that names
    the key, what was found and what is allowed.
    """
    environ = os.environ if environ is None else environ
    values = _from_openai(environ)
    merge(values, {"traces": otel.defaults(environ)})
    merge(values, _profiled(read_toml(path), profile or environ.get(PROFILE)))
    merge(values, from_environment(environ))
    merge(values, {"traces": otel.forced(environ)})
    merge(values, overrides)
    settings: Settings = build(Settings, values, "")
    _check_replicas(settings)
    for service in ("embeddings_service", "document_processor"):
        wanted = settings.replicas(service)
        check_scaling(service, getattr(settings, service).scaling, (wanted.min_instances, wanted.max_instances))
    return settings


def _profiled(values: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The base of a file, and over it the profile of that name. All profiles are checked, the unused ones too."""
    profiles = values.pop("profile", {})
    if not isinstance(profiles, dict):
        raise InvalidSettings(f"[profile] must be a table of profiles, as in [profile.production], found {profiles!r}")
    if name and name not in profiles:
        raise InvalidSettings(f"there is no [profile.{name}] in the settings file{nearest(name, profiles)}")
    for one, table in profiles.items():
        build(Settings, table, f"profile.{one}.")
    if name:
        merge(values, profiles[name])
    return values


def _check_replicas(settings: Settings) -> None:
    """What single values cannot tell: bounds that cross, and what a service cannot be."""
    for service in SERVICES:
        wanted = settings.replicas(service)
        key = f"{service}.replicas"
        if service in INLINE_ONLY:
            for name, value, only in (("runtime", wanted.runtime, "inline"), ("instances", wanted.instances, 1)):
                if value not in ("auto", only):
                    raise InvalidSettings(f"{key}.{name} must be {only}, found {value!r}: {INLINE_ONLY[service]}")
        if service == "document_processor" and (wanted.runtime == "inline" or wanted.instances != 1):
            raise InvalidSettings(
                f"{key}: the replicas of document_processor are its worker processes; set document_processor.workers, "
                f"found runtime {wanted.runtime!r} and instances {wanted.instances}"
            )
        if wanted.min_instances > wanted.max_instances:
            raise InvalidSettings(
                f"{key}.min_instances must be at most max_instances ({wanted.max_instances}), found "
                f"{wanted.min_instances}"
            )
        _check_used(service, wanted, settings)
        if service == "embeddings_service" and not wanted.min_instances <= wanted.instances <= wanted.max_instances:
            raise InvalidSettings(
                f"{key}.instances must be from {wanted.min_instances} to {wanted.max_instances} (min_instances and "
                f"max_instances), found {wanted.instances}"
            )


def _check_used(service: str, wanted: ReplicaSettings, settings: Settings) -> None:
    """A setting that nothing reads is refused: whoever wrote it counts on it."""
    used = {"runtime", "instances", "implementation"}
    if service == "embeddings_service":
        return
    if service == "document_processor":
        used |= {"min_instances", "max_instances"}
        workers, fewest, most = settings.document_processor.workers, wanted.min_instances, wanted.max_instances
        for bound, met, limit in (
            ("least document_processor.replicas.min_instances", not workers or workers >= fewest, fewest),
            ("most document_processor.replicas.max_instances", not wanted.bounded or workers <= most, most),
        ):
            if not met:
                raise InvalidSettings(f"document_processor.workers must be at {bound} ({limit}), found {workers}")
    if service == "generation_service" and settings.generation_service.endpoint.model:
        used.add("strategy")
    for one in fields(wanted):
        value = getattr(wanted, one.name)
        if one.name not in used and value != one.default:
            because = INLINE_ONLY.get(service, "its replicas are worker processes, which take documents in turns")
            raise InvalidSettings(
                f"{service}.replicas.{one.name} has no effect there, found {value!r}: {because}; leave it out"
            )


def _from_openai(environ: Mapping[str, str]) -> dict[str, Any]:
    found = {"api_key": environ.get("OPENAI_API_KEY"), "urls": environ.get("OPENAI_BASE_URL")}
    given = {key: value for key, value in found.items() if value}
    services = ("embeddings_service", "generation_service")
    return {name: {"endpoint": dict(given)} for name in services} if given else {}
