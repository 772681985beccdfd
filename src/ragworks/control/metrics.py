"""The Prometheus collectors, named in one place; every family is there from the start, at zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

from ragworks.control.replica_metrics import ReplicaMetrics, Stats, Views
from ragworks.control.replicas import ReplicaView
from ragworks.errors import RagworksError
from ragworks.settings import SERVICES
from ragworks.types import Health, Life, Stage, TaskState

OUTCOMES = (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, "unchanged", "retried")
ANSWERS = ("answered", "abstained", "failed")
QUESTIONS = tuple(
    (kind, outcome) for kind in ("search", "ask") for outcome in ("answered", "abstained", "nothing", "failed", "left")
)
RATINGS = ("up", "down")
DELIVERIES = ("delivered", "retried", "failed")
STEPS = ("embed", "retrieve", "rerank", "total")
KINDS = ("passage", "question")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# Requests reach from a cached search (2 ms) to a long answer; stages from a note (1 ms) to a book (minutes).
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STAGE_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


def codes() -> tuple[str, ...]:
    """Every error code that can go over the wire: the bounded values of the label ``code``."""

    def below(kind: type[RagworksError]) -> Iterator[str]:
        yield kind.code
        for child in kind.__subclasses__():
            yield from below(child)

    return tuple(sorted(set(below(RagworksError))))


class Metrics:
    """What happened, as counters. Each method is one thing that a mechanism reports; all are cheap and never raise.

    Gauges of live state are read at scrape time: hand a callable to a ``watch_…`` method.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("rag_requests", "HTTP requests answered", "route", "method", "status")
        self._request_seconds = self._histogram(
            "rag_request_duration_seconds", "From first to last byte of a request", REQUEST_SECONDS, "route"
        )
        self._active = Gauge("rag_active_connections", "HTTP requests being answered now", registry=self.registry)
        self._errors = self._counter("rag_errors", "Errors by their stable code", "code")
        self._events = self._counter("rag_events", "Decisions and happenings, as `why` tells them", "service", "action")
        self._queue = Gauge("rag_queue_size", "Documents that wait or run", registry=self.registry)
        self._up = Gauge("rag_service_up", "1 while the service is up", ["service"], registry=self.registry)
        self._lag = self._histogram("rag_loop_lag_seconds", "Lateness of the event loop's wake-ups", LAG_SECONDS)
        self._replicas = ReplicaMetrics()
        self.registry.register(self._replicas)
        self._ingestion()
        self._questions()
        self._start_at_zero()

    def _ingestion(self) -> None:
        self._stages = self._histogram(
            "rag_stage_duration_seconds", "One stage of one document", STAGE_SECONDS, "stage"
        )
        self._documents = self._counter("rag_documents", "Attempts at a document by how they ended", "outcome")
        self._webhooks = self._counter("rag_webhooks", "Attempts at a webhook by how they ended", "outcome")
        self._hits = self._counter("rag_cache_hits", "Vectors found in a cache tier")
        self._misses = self._counter("rag_cache_misses", "Vectors that the model had to compute")
        self._embedding_seconds = self._histogram(
            "rag_embedding_duration_seconds", "One call that the embedding model had to serve", REQUEST_SECONDS, "kind"
        )

    def _questions(self) -> None:
        self._searches = self._counter("rag_searches", "Searches answered")
        self._steps = self._histogram(
            "rag_search_step_duration_seconds", "One step of one search", REQUEST_SECONDS, "step"
        )
        self._answers = self._counter("rag_answers", "Questions by how they ended", "outcome")
        self._asked = self._counter(
            "rag_questions", "Searches and asks by how they ended, as the query log says it", "kind", "outcome"
        )
        self._feedback = self._counter("rag_feedback", "Ratings of answers", "rating")
        self._citations = self._counter("rag_citations", "Citations written by a generator", "outcome")

    def request_started(self) -> None:
        self._active.inc()

    def request_finished(self, route: str, method: str, status: int, seconds: float) -> None:
        """``route`` is the route's template, never a raw path."""
        self._active.dec()
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
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

    def cache(self, hits: int, misses: int) -> None:
        self._hits.inc(hits)
        self._misses.inc(misses)

    def embedding_call(self, kind: str, seconds: float) -> None:
        """``kind`` is passage or question."""
        self._embedding_seconds.labels(kind).observe(seconds)

    def search(self, timings: Mapping[str, float]) -> None:
        """``timings``: seconds by step (embed, retrieve, rerank, total)."""
        self._searches.inc()
        for step, seconds in timings.items():
            self._steps.labels(step).observe(seconds)

    def answer(self, outcome: str) -> None:
        """``outcome`` is answered, abstained or failed."""
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

    def watch_queue(self, size: Callable[[], float]) -> None:
        self._queue.set_function(size)

    def watch_service(self, service: str, up: Callable[[], float]) -> None:
        """``up`` returns 1 while the service is up, otherwise 0."""
        self._up.labels(service).set_function(up)

    def watch_replicas(self, service: str, stats: Stats, views: Views) -> None:
        """``stats`` and ``views`` are those of the balancer of a service."""
        self._replicas.watch(service, stats, views)

    def render(self) -> bytes:
        """The exposition text that ``/metrics`` answers."""
        return generate_latest(_WithoutCreated(self.registry))

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, help_text, labels, buckets=buckets, registry=self.registry)

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
        )
        for family, values in known:
            for value in values:
                family.labels(value)
        for question in QUESTIONS:
            self._asked.labels(*question)
        for service in SERVICES:
            self._events.labels(service, "refused")
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


def reference() -> str:
    """The page ``docs/reference/metrics.md``."""
    rows, metrics = [], Metrics()
    one = ReplicaView("one", Life.READY, Health.HEALTHY, 1, 0, 0.1, None, None, 0.0, 1.0)
    metrics.watch_replicas(SERVICES[0], dict, lambda: [one])
    for family in metrics.registry.collect():
        labels = sorted({label for sample in family.samples for label in sample.labels if label != "le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(f"| `{name}` | {family.type} | {', '.join(labels) or 'none'} | {family.documentation} |")
    return "\n".join(
        [
            "# Metrics",
            "",
            "`GET /metrics` answers in the Prometheus text format. Every family is there from the start, at zero.",
            "Durations are seconds. `route` is a route's template, so the number of series is bounded.",
            "The series of a `replica` end with it.",
            "",
            "| Metric | Type | Labels | What it counts |",
            "| --- | --- | --- | --- |",
            *sorted(rows),
            "",
        ]
    )
