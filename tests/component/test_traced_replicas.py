"""What a replica in a process of its own hands back beside its answers: spans of the call, and lines of its log."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from ragworks import tracing
from ragworks.control_protocols import ReplicaSpec
from ragworks.errors import QueueFull, RagworksError
from ragworks.logs import configure, spoken
from ragworks.runtimes.replicas import ProcessReplica, ProcessRuntime
from ragworks.settings import LogSettings
from ragworks.testing import until
from recorded_traces import RecordedTraces
from replica_services import Echo

REQUEST = {"request_id": "r1"}


@pytest.fixture
async def replica() -> AsyncIterator[ProcessReplica]:
    async with ProcessRuntime() as runtime:
        yield await runtime.start(ReplicaSpec("echo", Echo), "echo-1")


@pytest.fixture
def traces() -> Iterator[RecordedTraces]:
    with RecordedTraces() as traces:
        yield traces


async def test_spans_come_back_with_the_answer(replica: ProcessReplica, traces: RecordedTraces) -> None:
    with tracing.entry("door"):
        await replica.call("say", "well")
    assert traces.tree() == {"door": {"say": {"say": {}}}}
    assert {one.attributes.get("process.pid", replica.pid) for one in traces.ended} == {replica.pid}


async def test_spans_come_back_with_an_error_and_with_the_end_of_a_stream(
    replica: ProcessReplica, traces: RecordedTraces
) -> None:
    with tracing.entry("door"):
        with pytest.raises(QueueFull):
            await replica.call("refuse")
        assert [item async for item in replica.stream("count", 20)] == list(range(20))
    assert traces.tree() == {"door": {"refuse": {}, "count": {}}}
    assert traces.named("refuse").error == "queue_full"


async def test_a_call_of_no_trace_is_answered_and_leaves_no_span(
    replica: ProcessReplica, traces: RecordedTraces
) -> None:
    assert await replica.call("echo", "well") == "well"
    assert traces.ended == []


async def test_a_line_of_a_replica_says_whose_call_it_was_written_in(
    replica: ProcessReplica, traces: RecordedTraces
) -> None:
    with structlog.testing.capture_logs() as logs:
        with structlog.contextvars.bound_contextvars(**REQUEST), tracing.entry("door"):
            await replica.call("say", "well")
        await until(lambda: logs, turns=10**9)
    [line] = logs
    inner = next(one for one in traces.ended if one.name == "say" and one.kind == "internal")
    assert line == {
        "event": "said",
        "log_level": "warning",
        "what": "well",
        "replica": "echo-1",
        "request_id": "r1",
        "trace_id": f"{inner.trace_id:032x}",
        "span_id": f"{inner.span_id:016x}",
    }


async def test_a_long_line_of_a_replica_stays_one(replica: ProcessReplica) -> None:
    with structlog.testing.capture_logs() as logs:
        await replica.call("say", "x" * 30_000)
        await until(lambda: logs, turns=10**9)
    assert [(line["event"], len(line["what"])) for line in logs] == [("said", 30_000)]


async def test_a_fault_in_a_replica_is_one_line_with_its_traceback(replica: ProcessReplica) -> None:
    with structlog.testing.capture_logs() as logs:
        with structlog.contextvars.bound_contextvars(**REQUEST), pytest.raises(RagworksError):
            await replica.call("fail")
        await until(lambda: logs, turns=10**9)
    [line] = logs
    assert (line["event"], line["log_level"], line["request_id"]) == ("verb_failed", "error", "r1")
    assert line["exception"][0]["exc_value"] == "the third byte is odd"


async def test_what_a_replica_prints_besides_is_quoted_and_is_nobodys(replica: ProcessReplica) -> None:
    """The request that had a replica started must not be named in its lines for ever."""
    with structlog.contextvars.bound_contextvars(**REQUEST), structlog.testing.capture_logs() as logs:
        await replica.call("noise")
        await until(lambda: any(line["line"].endswith("more noise") for line in logs), turns=10**9)
    assert {line["event"] for line in logs} == {"replica_said"}
    assert not [line for line in logs if "request_id" in line]


async def test_a_fault_in_a_replica_can_be_read_on_a_terminal(
    replica: ProcessReplica, capsys: pytest.CaptureFixture[str]
) -> None:
    """There lines are no fields: what the replica wrote as such is written as text, or the line would be lost."""
    before, seen = structlog.get_config(), list[str]()
    configure(LogSettings(format="console"))
    try:
        with pytest.raises(RagworksError):
            await replica.call("fail")
        await until(lambda: seen.append(capsys.readouterr().err) or "byte is odd" in "".join(seen), turns=10**9)
    finally:
        structlog.configure(**before)
    told = "".join(seen)
    assert "verb_failed" in told
    assert re.search(r'File ".*replica_services.py", line \d+, in fail\nValueError: the third byte is odd', told)


@pytest.mark.parametrize("name", ["self", "method_name", "level", "event", "replica"])
def test_a_line_that_names_what_only_a_parent_may_say_is_taken_over_without_it(name: str) -> None:
    line = json.dumps({"level": "info", "event": "said", "what": "well", name: "info"})
    taken = spoken(line)
    assert taken is not None
    assert taken[2] == {"what": "well"}
