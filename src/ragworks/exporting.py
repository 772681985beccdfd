"""Spans to a collector, by OTLP over HTTP. Imported only when traces are on: OpenTelemetry's SDK takes 0.1 s.

The SDK gives what ``OTEL_*`` means: sampler, resource, limits, queue and thread of its batches, headers, certificates.
It is handed spans that ended, as plain values, which its thread makes its own: made with it on the event loop, each
takes 25 us there, and so 6 (docs/decisions/0063-spans-of-our-own.md).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import structlog
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from ragworks import __version__, tracing
from ragworks.settings import TraceSettings
from ragworks.settings_otel import SPOKEN, unspoken
from ragworks.tracing import Attributes, Context, Ended

log = structlog.get_logger("ragworks.traces")

FLUSH_S = 2.0
"""What stopping waits for the collector; a server that is replaced has no more time to give."""
FLUSH_FAILING_S = 0.2
SAMPLED = TraceFlags(TraceFlags.SAMPLED)

_tracer: OtlpTracer | None = None  # of this process, and how many programs in it have traces on
_users = 0


@asynccontextmanager
async def exporting(settings: TraceSettings) -> AsyncIterator[None]:
    """Traces are on within. Who comes second in a process shares what is there; the last one closes it."""
    global _users, _tracer
    if _tracer is None:
        try:
            _tracer = OtlpTracer(settings)
        except ValueError as error:  # numbers of the environment that contradict each other, say
            log.warning("traces_misconfigured", action="traces_misconfigured", reason=f"no traces are kept: {error}")
            yield
            return
        tracing.use(_tracer)
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if not _users:
            last, _tracer = _tracer, None
            tracing.use(None)
            await asyncio.to_thread(last.close)


class OtlpTracer:
    """A Tracer. ``close`` sends what waits, for FLUSH_S at most."""

    def __init__(self, settings: TraceSettings) -> None:
        _hear()
        if wanted := unspoken(os.environ):
            reason = f"OTEL_EXPORTER_OTLP_PROTOCOL must be {SPOKEN}, which is sent all the same, found {wanted!r}"
            log.warning("traces_misconfigured", action="traces_misconfigured", reason=reason)
        self.captures_text = settings.capture_text
        provider = TracerProvider(shutdown_on_exit=False)
        self._sampler = provider.sampler
        self._exporter = _Translating(OTLPSpanExporter(), _named(provider.resource))
        self._processor = BatchSpanProcessor(self._exporter)

    def sampled(self, parent: Context | None, trace_id: int, name: str, attributes: Attributes) -> bool:
        context = None
        if parent is not None:
            flags = TraceFlags(parent.sampled)
            remote = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
            context = set_span_in_context(NonRecordingSpan(remote))
        decision = self._sampler.should_sample(context, trace_id, name, attributes=attributes).decision
        return decision is Decision.RECORD_AND_SAMPLE

    def keep(self, span: Ended) -> None:
        self._processor.on_end(cast(ReadableSpan, _Queued(span)))

    def close(self) -> None:
        closing = threading.Thread(target=self._processor.shutdown, name="traces-flush", daemon=True)
        closing.start()
        closing.join(FLUSH_FAILING_S if self._exporter.failing else FLUSH_S)
        if closing.is_alive():
            if not self._exporter.failing:
                log.warning("traces_left", action="traces_left", waited_s=FLUSH_S)
            self._exporter.shutdown()


class _Queued:
    """What the SDK's queue looks at, before it is a span of the SDK."""

    __slots__ = ("span",)
    context = SpanContext(1, 1, is_remote=False, trace_flags=SAMPLED)

    def __init__(self, span: Ended) -> None:
        self.span = span


class _Translating(SpanExporter):
    """Makes the SDK's spans, in the SDK's thread, and says once that the collector does not take them."""

    def __init__(self, inner: SpanExporter, resource: Resource) -> None:
        self._inner, self._resource, self._limits = inner, resource, SpanLimits()
        self._scope = InstrumentationScope("ragworks", __version__)
        self.failing = False
        self._lost = 0

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        result = self._inner.export([self._made(one.span) for one in spans])
        failed = result is not SpanExportResult.SUCCESS
        self._lost += len(spans) if failed else 0
        if failed and not self.failing:
            reason = "the collector does not take them; see OTEL_EXPORTER_OTLP_ENDPOINT"
            log.warning("traces_not_exported", action="traces_not_exported", lost=self._lost, reason=reason)
        elif self.failing and not failed:
            log.warning("traces_exported_again", action="traces_exported_again", lost=self._lost)
            self._lost = 0
        self.failing = failed
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def _made(self, span: Ended) -> ReadableSpan:
        parent = SpanContext(span.trace_id, span.parent_id, False, SAMPLED) if span.parent_id else None
        attributes = {**span.attributes, "error.type": span.error} if span.error else span.attributes
        return ReadableSpan(
            span.name,
            context=SpanContext(span.trace_id, span.span_id, False, SAMPLED),
            parent=parent,
            resource=self._resource,
            attributes=self._bounded(attributes),
            events=[Event(name, self._bounded(more), at) for name, at, more in span.events],
            kind=SpanKind[span.kind.upper()],
            status=Status(StatusCode.ERROR) if span.error else Status(),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )

    def _bounded(self, attributes: Attributes) -> BoundedAttributes:
        limits = self._limits
        return BoundedAttributes(limits.max_span_attributes, attributes, max_value_len=limits.max_span_attribute_length)


def _named(found: Resource) -> Resource:
    """The environment's resource; who set no name is ragworks."""
    name = str(found.attributes.get(SERVICE_NAME, "unknown_service"))
    ours = {SERVICE_NAME: "ragworks"} if name.startswith("unknown_service") else {}
    return Resource({SERVICE_VERSION: __version__}).merge(found).merge(Resource(ours))


class _Heard(logging.Handler):
    """What the SDK says, once each: a sampler that it does not know, say."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg not in self._said:
            self._said.add(record.msg)
            log.warning("opentelemetry_said", action="opentelemetry_said", line=record.getMessage())


def _hear() -> None:
    sdk, exporter = logging.getLogger("opentelemetry"), logging.getLogger("opentelemetry.exporter")
    if sdk.handlers:
        return
    sdk.addHandler(_Heard())
    sdk.propagate = exporter.propagate = False
    exporter.addHandler(logging.NullHandler())  # what it says again and again, _Translating says once
