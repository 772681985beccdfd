"""An OTLP collector on loopback: an HTTP server that decodes the spans that it is sent, and can refuse or be silent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status

PATIENCE_S = 30.0
KINDS = {number: name.removeprefix("SPAN_KIND_").lower() for name, number in Sent.SpanKind.items()}


@dataclass(frozen=True)
class Span:
    """One span as it was sent; ids are in hexadecimal, ``parent`` is empty at the top of a trace."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    failed: bool
    resource: dict[str, Any]


@dataclass
class Collector:
    """``spans`` are those that came so far, ``bodies`` the bytes they came in, ``headers`` those of each request."""

    url: str = ""
    status: int = 200
    silent: threading.Event | None = None
    """While set to an event, a request waits for it."""
    spans: list[Span] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        with self.news:
            self.headers.append(headers)
            if self.status == 200:
                self.bodies.append(raw)
                self.spans += _spans(raw)
            self.news.notify_all()
            return self.status

    def wait(self, wanted: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans, once they are as wanted. Blocks: for a thread, where the server shares this process."""
        with self.news:
            seen = self.news.wait_for(lambda: wanted(self.spans), PATIENCE_S)
            assert seen, f"the collector only got {sorted({span.name for span in self.spans})}"
            return list(self.spans)

    def trace_of(self, name: str, **attributes: Any) -> list[Span]:
        """The spans of the one trace that has such a span."""
        traces = {span.trace for span in self.spans if span.name == name and attributes.items() <= _plain(span).items()}
        assert len(traces) == 1, f"{len(traces)} traces have a span {name}"
        return [span for span in self.spans if span.trace in traces]

    def environment(self, **more: str) -> dict[str, str]:
        """What a server needs to send its spans here, soon after they ended."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}


def path(spans: list[Span], span: Span) -> list[str]:
    """The names from the top of the trace down to the span."""
    by_id = {one.id: one for one in spans}
    names = [span.name]
    while span := by_id.get(span.parent):  # type: ignore[assignment]
        names.insert(0, span.name)
    return names


@contextmanager
def otlp_collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = 404
            if collector.silent:
                collector.silent.wait()
            if self.path == "/v1/traces":
                status = collector.take(body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    serving = threading.Thread(target=server.serve_forever, name="otlp-collector")
    serving.start()
    try:
        yield collector
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def _plain(span: Span) -> dict[str, Any]:
    return {name.replace(".", "_"): value for name, value in span.attributes.items()}


def _spans(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            span.name,
            KINDS[span.kind],
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            _attributes(span.attributes),
            [(event.name, _attributes(event.attributes)) for event in span.events],
            span.status.code == Status.STATUS_CODE_ERROR,
            _attributes(found.resource.attributes),
        )
        for found in request.resource_spans
        for scope in found.scope_spans
        for span in scope.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in _all(pairs)}


def _all(pairs: Any) -> list[KeyValue]:
    return list(pairs)


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
