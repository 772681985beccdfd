"""What happened, counted for Prometheus; every family is there from the start, at zero where a zero is true."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric

from ragworks.control.events import actions
from ragworks.control.forecast_metrics import ForecastMetrics, Forecasts
from ragworks.control.histograms import HISTOGRAMS
from ragworks.control.machine import Machine
from ragworks.control.machine_metrics import MachineMetrics
from ragworks.control.replica_metrics import ReplicaMetrics, Stats, Targets, Usages, Views, none_known
from ragworks.control.stats_metrics import StatsMetrics
from ragworks.errors import RagworksError
from ragworks.settings import SERVICES
from ragworks.types import Stage, TaskState

OUTCOMES = (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, "unchanged", "retried")
ANSWERS = ("answered", "abstained", "failed", "left")
QUESTIONS = tuple(
    (kind, outcome) for kind in ("search", "ask") for outcome in ("answered", "abstained", "nothing", "failed", "left")
)
RATINGS = ("up", "down")
DELIVERIES = ("delivered", "retried", "failed")
STEPS = ("embed", "retrieve", "rerank", "total")
KINDS = ("passage", "question")
TOO_MANY = 429
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
TOKENS = (("generation_service", "input"), ("generation_service", "output"), ("embeddings_service", "input"))


def codes() -> tuple[str, ...]:
    """Every error code that can go over the wire: the bounded values of the label ``code``."""

    def below(kind: type[RagworksError]) -> Iterator[str]:
        yield kind.code
        for child in kind.__subclasses__():
            yield from below(child)

    return tuple(sorted(set(below(RagworksError))))


class Metrics:
    """What happened, as counters. Each method is one thing that a mechanism reports; all are cheap and never raise.

    What lives elsewhere is read at scrape time: hand what reads it to a ``watch_…`` method. That must not wait.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("rag_requests", "HTTP requests answered", "route", "method", "status")
        self._request_seconds = self._histogram("rag_request_duration_seconds")
        self._active = Gauge("rag_active_connections", "HTTP requests being answered now", registry=self.registry)
        self._errors = self._counter("rag_errors", "Errors by their stable code", "code")
        self._events = self._counter("rag_events", "Decisions and happenings, as `why` tells them", "service", "action")
        self._up = Gauge("rag_service_up", "1 while the service is up", ["service"], registry=self.registry)
        self._lag = self._histogram("rag_loop_lag_seconds")
        self._replica_seconds = self._histogram("rag_replica_call_duration_seconds")
        self._ingestion()
        self._questions()
        self._prices: dict[tuple[str, str], float] = {}
        self._replicas, self._machine, self._stats = ReplicaMetrics(), MachineMetrics(), StatsMetrics()
        self._forecasts = ForecastMetrics()
        for collector in (self._replicas, self._machine, self._stats, self._forecasts):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)  # of the server's process; nothing where there is no /proc
        self._start_at_zero()

    def _ingestion(self) -> None:
        self._stages = self._histogram("rag_stage_duration_seconds")
        self._documents = self._counter("rag_documents", "Attempts at a document by how they ended", "outcome")
        self._webhooks = self._counter("rag_webhooks", "Attempts at a webhook by how they ended", "outcome")
        self._embedding_seconds = self._histogram("rag_embedding_duration_seconds")
        self._batches = self._counter("rag_embedding_batches", "Batches through the model, or requests to its endpoint")
        self._batch_seconds = self._histogram("rag_embedding_batch_duration_seconds")
        self._batch_tokens = self._histogram("rag_embedding_batch_tokens")
        self._tokens = self._counter(
            "rag_tokens", "Tokens that models read and wrote, as far as known", "service", "kind"
        )
        self._cost = self._counter(
            "rag_cost", "Price of the tokens, where the settings give one, in its currency", "service"
        )

    def _questions(self) -> None:
        self._searches = self._counter("rag_searches", "Searches answered")
        self._steps = self._histogram("rag_search_step_duration_seconds")
        self._answers = self._counter("rag_answers", "Questions by how they ended", "outcome")
        self._asked = self._counter(
            "rag_questions", "Searches and asks by how they ended, as the query log says it", "kind", "outcome"
        )
        self._feedback = self._counter("rag_feedback", "Ratings of answers", "rating")
        self._citations = self._counter("rag_citations", "Citations written by a generator", "outcome")
        self._generation_seconds = self._histogram("rag_generation_duration_seconds")
        self._first_token_seconds = self._histogram("rag_generation_first_token_seconds")

    def request_started(self) -> None:
        self._active.inc()

    def request_finished(self, route: str, method: str, status: int, seconds: float) -> None:
        """``route`` is the route's template, never a raw path."""
        self._active.dec()
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        if status != TOO_MANY:  # who was sent away at once got no fast answer
            self._request_seconds.labels(route).observe(seconds)

    def expect_route(self, route: str, method: str, status: int) -> None:
        """Show ``route`` at zero before its first request."""
        self._requests.labels(route, method, str(status))
        self._request_seconds.labels(route)

    def error(self, code: str) -> None:
        self._errors.labels(code).inc()

    def event(self, service: str, action: str) -> None:
        self._events.labels(service, action).inc()

    def stage(self, stage: str, seconds: float) -> None:
        self._stages.labels(str(stage)).observe(seconds)

    def document(self, outcome: str) -> None:
        """``outcome`` is completed, unchanged, failed, cancelled or retried."""
        self._documents.labels(str(outcome)).inc()

    def webhook(self, outcome: str) -> None:
        """``outcome`` is delivered, retried or failed."""
        self._webhooks.labels(outcome).inc()

    def embedding_call(self, kind: str, seconds: float) -> None:
        """``kind`` is passage or question."""
        self._embedding_seconds.labels(kind).observe(seconds)

    def batch(self, tokens: int | None, seconds: float) -> None:
        """One batch of embeddings_service; what is not known of its tokens may be told by ``batch_tokens``."""
        self._batches.inc()
        self._batch_seconds.observe(seconds)
        if tokens is not None:
            self.batch_tokens(tokens)

    def batch_tokens(self, tokens: int) -> None:
        self._batch_tokens.observe(tokens)
        self.tokens("embeddings_service", "input", tokens)

    def tokens(self, service: str, kind: str, count: int) -> None:
        """``kind`` is input or output. Their price is added to the cost of ``service`` if it is known."""
        self._tokens.labels(service, kind).inc(count)
        if price := self._prices.get((service, kind)):
            self._cost.labels(service).inc(price * count / 1e6)

    def price(self, service: str, kind: str, per_million: float) -> None:
        """What a million tokens cost from now on. 0 is no price: without one, nothing is said of the cost."""
        if per_million:
            self._prices[service, kind] = per_million
            self._cost.labels(service)

    def search(self, timings: Mapping[str, float]) -> None:
        """``timings``: seconds by step (embed, retrieve, rerank, total)."""
        self._searches.inc()
        for step, seconds in timings.items():
            self._steps.labels(step).observe(seconds)

    def first_token(self, seconds: float) -> None:
        self._first_token_seconds.observe(seconds)

    def generated(self, seconds: float) -> None:
        self._generation_seconds.observe(seconds)

    def answer(self, outcome: str) -> None:
        """``outcome`` is answered, abstained, failed, or left by whom it was for."""
        self._answers.labels(outcome).inc()

    def question(self, kind: str, outcome: str) -> None:
        """``kind`` is search or ask, ``outcome`` answered, abstained, nothing, failed or left."""
        self._asked.labels(kind, outcome).inc()

    def feedback(self, rating: str) -> None:
        """``rating`` is up or down."""
        self._feedback.labels(rating).inc()

    def citations(self, resolved: int, removed: int) -> None:
        self._citations.labels("resolved").inc(resolved)
        self._citations.labels("removed").inc(removed)

    def loop_lag(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def built(self, version: str, cores: int) -> None:
        """Which code runs, and how many cores it may use."""
        info = Gauge("rag_build_info", "1; its labels say what runs", ["version", "python"], registry=self.registry)
        info.labels(version, platform.python_version()).set(1)
        Gauge("rag_cores", "Cores that the server may use", registry=self.registry).set(cores)

    def watch_stats(self, service: str, stats: Stats) -> None:
        """``stats`` are those of document_processor or embeddings_service, which count some things themselves."""
        self._stats.watch(service, stats)

    def watch_service(self, service: str, up: Callable[[], float]) -> None:
        """``up`` returns 1 while the service is up, otherwise 0."""
        self._up.labels(service).set_function(up)

    def replica_call(self, service: str) -> Callable[[float], None]:
        """Takes the seconds of each call that a replica of ``service`` answered well."""
        return self._replica_seconds.labels(service).observe

    def watch_replicas(self, service: str, stats: Stats, views: Views, usages: Usages = none_known) -> None:
        """``stats`` and ``views`` are those of the balancer of a service, ``usages`` what each replica takes."""
        self._replicas.watch(service, stats, views, usages)

    def watch_targets(self, targets: Targets) -> None:
        """``targets`` says how many replicas there should be, by service."""
        self._replicas.targets = targets

    def watch_forecasts(self, forecasts: Forecasts) -> None:
        """``forecasts`` says what load is expected, by service."""
        self._forecasts.forecasts = forecasts

    def watch_machine(self, machine: Machine) -> None:
        """What ``machine`` saw last is shown; somebody else has it look."""
        self._machine.machine = machine

    def render(self) -> bytes:
        """The exposition text that ``/metrics`` answers."""
        return generate_latest(_WithoutCreated(self.registry))

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        shape = HISTOGRAMS[name]
        return Histogram(name, shape.text, shape.labels, buckets=shape.buckets, registry=self.registry)

    def _start_at_zero(self) -> None:
        known: tuple[tuple[Counter | Gauge | Histogram, tuple[str, ...]], ...] = (
            (self._errors, codes()),
            (self._up, SERVICES),
            (self._stages, tuple(Stage)),
            (self._documents, OUTCOMES),
            (self._webhooks, DELIVERIES),
            (self._steps, STEPS),
            (self._embedding_seconds, KINDS),
            (self._answers, ANSWERS),
            (self._feedback, RATINGS),
            (self._citations, ("resolved", "removed")),
            (self._replica_seconds, ("embeddings_service", "generation_service")),
        )
        for family, values in known:
            for value in values:
                family.labels(value)
        for question in QUESTIONS:
            self._asked.labels(*question)
        for tokens in TOKENS:
            self._tokens.labels(*tokens)
        for service in SERVICES:
            for action in actions(service):
                self._events.labels(service, action)
        self.expect_route("unmatched", "GET", 404)


class _WithoutCreated(CollectorRegistry):
    """Leaves out the ``_created`` series: the library's only switch for them is global to the process."""

    def __init__(self, inner: CollectorRegistry) -> None:
        super().__init__()
        self._inner = inner

    def collect(self) -> Iterator[Metric]:
        for family in self._inner.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
