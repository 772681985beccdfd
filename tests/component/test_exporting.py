"""What is sent to a collector, which spans are, and what becomes of them when it does not take them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import structlog

from otlp_collector import Collector, otlp_collector
from ragworks import exporting, tracing
from ragworks.exporting import OtlpTracer
from ragworks.settings import TraceSettings


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with otlp_collector() as collector:
        for name, value in collector.environment().items():
            monkeypatch.setenv(name, value)
        yield collector


@contextmanager
def tracer() -> Iterator[OtlpTracer]:
    tracer = OtlpTracer(TraceSettings())
    tracing.use(tracer)
    try:
        yield tracer
    finally:
        tracing.use(None)
        tracer.close()


def test_a_span_arrives_as_it_was(collector: Collector) -> None:
    with tracer(), tracing.entry("door", {"ragworks.hits": 3}, "server") as door:
        step = tracing.span("step", {"texts": ["a", "b"]})
        step.event("retry", {"attempt": 2})
        step.fail("queue_full")
        step.end()
    first, second = collector.spans
    assert isinstance(door, tracing.Span)
    assert (first.name, first.kind, first.failed, first.parent) == ("step", "internal", True, second.id)
    assert first.attributes == {"texts": ["a", "b"], "error.type": "queue_full"}
    assert first.events == [("retry", {"attempt": 2})]
    assert (second.name, second.kind, second.failed, second.parent) == ("door", "server", False, "")
    assert (second.trace, second.id) == (f"{door.trace_id:032x}", f"{door.span_id:016x}")
    assert (second.start_ns, second.end_ns) == (door.start_ns, door.end_ns)
    assert second.resource["service.name"] == "ragworks"


@pytest.mark.parametrize(("sampler", "argument", "kept"), [("always_off", "", 0), ("traceidratio", "0.25", 32)])
def test_the_environment_says_which_traces_are_kept(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, sampler: str, argument: str, kept: int
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    # Evenly over the 64 bits that the rule looks at.
    remote = [tracing.Context((n << 57) + 1, 1, sampled=True) for n in range(128)]
    with tracer():
        for parent in remote:
            with tracing.entry("door", parent=parent), tracing.span("step"):
                pass
    assert len(collector.spans) == 2 * kept


def test_a_value_is_no_longer_than_the_environment_allows(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")
    with tracer(), tracing.entry("door", {"text": "0123456789"}):
        pass
    assert collector.spans[0].attributes == {"text": "0123"}


def test_a_collector_that_fails_is_told_of_once_and_once_more_when_it_takes_spans_again(collector: Collector) -> None:
    collector.status = 400
    with structlog.testing.capture_logs() as logs, tracer():
        for _ in range(3):
            before = len(collector.headers)
            with tracing.entry("door"):
                pass
            with collector.news:
                assert collector.news.wait_for(lambda: len(collector.headers) > before, 30)  # noqa: B023
        collector.status = 200
        with tracing.entry("door"):
            pass
        collector.wait(lambda spans: len(spans) == 1)
    assert [(line["event"], line["lost"]) for line in logs] == [
        ("traces_not_exported", 1),
        ("traces_exported_again", 3),
    ]


def test_a_silent_collector_holds_up_a_stop_no_longer_than_it_may(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "FLUSH_S", 0.05)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
    collector.silent = threading.Event()
    with structlog.testing.capture_logs() as logs, tracer(), tracing.entry("door"):
        pass
    collector.silent.set()  # nobody waited for it
    assert [line["event"] for line in logs] == ["traces_left"]


def test_more_spans_than_can_wait_cost_spans_and_a_line_at_most(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setattr(exporting, "FLUSH_S", 0.05)
    collector.silent = threading.Event()
    with structlog.testing.capture_logs() as logs:
        with tracer():
            for _ in range(100):
                with tracing.entry("door"):
                    pass
        collector.silent.set()
    *said, last = [line["event"] for line in logs]
    assert last == "traces_left"
    assert said in (["opentelemetry_said"], [])  # some versions of the SDK drop without a word


async def test_who_opens_a_second_folder_in_a_process_shares_its_traces(collector: Collector) -> None:
    first = exporting.exporting(TraceSettings())
    await first.__aenter__()
    async with exporting.exporting(TraceSettings()):
        await first.__aexit__(None, None, None)  # in whichever order they are closed
        with tracing.entry("door"):
            pass
    assert not tracing.is_on()
    assert [span.name for span in collector.spans] == ["door"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_BSP_MAX_QUEUE_SIZE", "256"), ("OTEL_BSP_SCHEDULE_DELAY", "-5"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-3")],
)
async def test_numbers_that_the_library_refuses_cost_the_traces_and_a_warning_and_no_server(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with structlog.testing.capture_logs() as logs:
        async with exporting.exporting(TraceSettings()):
            assert not tracing.is_on()
    assert [(line["event"], "no traces are kept: " in line["reason"]) for line in logs] == [
        ("traces_misconfigured", True)
    ]


def test_a_protocol_that_is_not_spoken_is_said(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with structlog.testing.capture_logs() as logs, tracer(), tracing.entry("door"):
        pass
    assert ["grpc" in line["reason"] for line in logs] == [True]
    assert len(collector.spans) == 1
