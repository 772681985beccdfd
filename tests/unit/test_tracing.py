"""Spans: what belongs to what, what they leave, and that they are next to nothing while traces are off."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks import tracing
from ragworks.errors import EmbeddingFailed
from ragworks.tracing import OFF, Ended
from recorded_traces import RecordedTraces


@pytest.fixture
def traces() -> Iterator[RecordedTraces]:
    with RecordedTraces() as traces:
        yield traces


def test_a_span_within_another_belongs_to_it(traces: RecordedTraces) -> None:
    with tracing.entry("door", kind="server"):
        with tracing.span("first"):
            pass
        with tracing.span("second"), tracing.span("third"):
            pass
    assert traces.tree() == {"door": {"first": {}, "second": {"third": {}}}}


def test_without_a_door_there_is_no_span(traces: RecordedTraces) -> None:
    """A probe, a renewal, a scaler: what goes on for ever would fill a backend and explain nothing."""
    with tracing.span("probe") as span:
        assert span is OFF
    assert traces.ended == []


def test_a_door_within_a_trace_belongs_to_it(traces: RecordedTraces) -> None:
    with tracing.entry("request"), tracing.entry("search"):
        pass
    assert traces.tree() == {"request": {"search": {}}}


def test_who_is_not_sampled_is_named_to_others_and_leaves_nothing() -> None:
    with RecordedTraces(sample=False) as traces, tracing.entry("door"):
        with tracing.span("step") as span:
            assert span is OFF
        assert tracing.traceparent().endswith("-00")
        assert tracing.carried() is None
    assert traces.ended == []


def test_a_task_that_outlives_its_span_belongs_to_none(traces: RecordedTraces) -> None:
    """A replica that a request had started makes its spans, and its lines of the log, for whoever calls it next."""

    async def outlives() -> tracing.Context | None:
        with tracing.entry("request"):
            later = asyncio.create_task(work())
        return await later

    async def work() -> tracing.Context | None:
        with tracing.span("late"):
            return tracing.current()

    assert asyncio.run(outlives()) is None
    assert traces.tree() == {"request": {}}


def test_an_error_is_told_by_its_code_and_a_cancel_is_none(traces: RecordedTraces) -> None:
    for error in (EmbeddingFailed("a text that nobody may read"), ValueError("nor this"), asyncio.CancelledError()):
        with pytest.raises(type(error)), tracing.entry("door"):
            raise error
    assert [one.error for one in traces.ended] == ["embedding_failed", "ValueError", ""]
    assert traces.ended[2].attributes == {"ragworks.cancelled": True}
    assert "nobody may" not in repr(traces.ended)


async def pieces() -> AsyncGenerator[str, None]:
    yield "one"
    with tracing.span("step"):
        yield "two"
    raise EmbeddingFailed("broken off")


async def test_a_stream_has_its_span_while_it_works_and_nobody_else_has(traces: RecordedTraces) -> None:
    """A generator's context is that of who asks for the next item: a span that is merely entered in it leaks out."""
    told = []
    with tracing.entry("door") as door:
        stream = tracing.streamed(tracing.span("stream"), pieces())
        for _ in range(2):
            told.append((await anext(stream), tracing.current()))
        with pytest.raises(EmbeddingFailed):
            await anext(stream)
    assert [piece for piece, _ in told] == ["one", "two"]
    assert {current for _, current in told} == {door}
    assert traces.tree() == {"door": {"stream": {"step": {}}}}
    assert traces.named("stream").error == "embedding_failed"


async def test_a_stream_that_is_left_early_ends_its_span_and_its_source(traces: RecordedTraces) -> None:
    with tracing.entry("door"):
        source = pieces()
        stream = tracing.streamed(tracing.span("stream"), source)
        assert await anext(stream) == "one"
        await stream.aclose()
    assert [one async for one in source] == []
    assert (traces.named("stream").error, traces.named("stream").attributes) == ("", {"ragworks.cancelled": True})


def test_work_for_nobody_who_still_waits_is_no_span(traces: RecordedTraces) -> None:
    with tracing.entry("left") as left:
        pass
    with tracing.shared("batch", [None, left], {}) as span:
        assert span is OFF


def test_work_for_two_at_once_leaves_two_spans_with_ids_of_their_own(traces: RecordedTraces) -> None:
    one, other = tracing.entry("one"), tracing.entry("other")
    assert isinstance(one, tracing.Span)
    assert isinstance(other, tracing.Span)
    with pytest.raises(ValueError, match="broken"), tracing.shared("batch", [one, other, one], {"texts": 3}):
        raise ValueError("broken")
    first, second = traces.ended
    assert (first.parent_id, second.parent_id) == (one.span_id, other.span_id)
    assert (first.trace_id, second.trace_id) == (one.trace_id, other.trace_id)
    assert first.span_id != second.span_id
    assert {span.error for span in traces.ended} == {"ValueError"}


def test_spans_of_another_process_come_back_into_the_trace(traces: RecordedTraces) -> None:
    with tracing.entry("door"), tracing.span("call"):
        carried = pickle.loads(pickle.dumps(tracing.carried()))
        there: list[Ended] = []
        with tracing.continued(carried, there.append), tracing.span("verb"), tracing.span("batch"):
            pass
        tracing.adopt(pickle.loads(pickle.dumps(there)))
    assert traces.tree() == {"door": {"call": {"verb": {"batch": {}}}}}


def test_another_process_makes_no_spans_of_a_call_that_is_not_traced() -> None:
    there: list[Ended] = []
    with tracing.continued(None, there.append), tracing.span("verb") as span:
        assert span is OFF
    assert there == []


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_a_traceparent_names_the_span_that_wrote_it(trace_id: int, span_id: int, sampled: bool) -> None:
    with tracing.continued((trace_id, span_id), lambda ended: None):
        written = tracing.traceparent()[:-2] + ("01" if sampled else "00")
    found = tracing.parsed(written)
    assert found is not None
    assert (found.trace_id, found.span_id, found.sampled) == (trace_id, span_id, sampled)


GOOD = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        GOOD.upper(),
        GOOD[:-1],
        GOOD + "-more",
        "ff" + GOOD[2:],
        f"00-{'0' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f" {GOOD}",
        f"{GOOD}\n",
    ],
)
def test_what_is_no_traceparent_names_nothing(header: str | None) -> None:
    assert tracing.parsed(header) is None


def test_a_later_version_of_the_header_may_have_more_behind() -> None:
    assert tracing.parsed("01" + GOOD[2:] + "-more") is not None


@given(st.text())
def test_any_header_is_read_without_complaint(header: str) -> None:
    tracing.parsed(header)


def test_while_traces_are_off_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import asyncio, sys, tempfile, ragworks\n"
        "async def main():\n"
        "    hashing = {'model_name': 'hashing'}\n"
        "    async with ragworks.open(tempfile.mkdtemp(), embeddings_service=hashing) as works:\n"
        "        await works.add('A city bike.', id='bike')\n"
        "        assert (await works.search('bike')).hits\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_while_traces_are_off_nothing_is_made_for_a_span() -> None:
    assert tracing.span("step") is tracing.span("step") is tracing.OFF
