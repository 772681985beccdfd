"""Texts gathered into requests: every text answered once and in order, whatever fails, waits or is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragworks import tracing
from ragworks.errors import EndpointUnavailable, NotReady
from ragworks.models.hashing import HashingEmbedder
from ragworks.policies.retrying import BudgetSettings
from ragworks.testing import FakeClock, ScriptedEndpoint, settle
from ragworks.workers.sender import QUESTION_PATIENCE_S, Sender, SendSettings
from recorded_traces import RecordedTraces


def down(wait_s: float = 1.0, *, asked: bool = False) -> EndpointUnavailable:
    return EndpointUnavailable("it is down", wait_s, asked=asked)


@asynccontextmanager
async def running(
    model: ScriptedEndpoint, clock: FakeClock | None = None, budget: BudgetSettings | None = None, **settings: float
) -> AsyncIterator[Sender]:
    async with asyncio.timeout(20):
        async with Sender(model, SendSettings(**settings), clock or FakeClock(), budget=budget) as sender:
            yield sender


def expected(texts: list[str], kind="passage") -> np.ndarray:
    return HashingEmbedder().embed(texts, kind)


async def test_each_caller_gets_its_vectors_in_its_order():
    async with running(ScriptedEndpoint()) as sender:
        found = await asyncio.gather(*(sender.embed([f"{n} a", f"{n} b"], "passage") for n in range(20)))
    for n, rows in enumerate(found):
        assert np.allclose([row.vector for row in rows], expected([f"{n} a", f"{n} b"]))


async def test_texts_that_come_while_all_requests_are_in_flight_share_the_next_one():
    model = ScriptedEndpoint()
    model.gate.clear()
    async with running(model, concurrency=1) as sender:
        calls = [asyncio.create_task(sender.embed(["first"], "passage"))]
        await settle()
        calls += [asyncio.create_task(sender.embed([f"text {n}"], "passage")) for n in range(6)]
        await settle()
        model.gate.set()
        await asyncio.gather(*calls)
    assert [len(texts) for _, texts in model.requests] == [1, 6]


async def test_a_request_holds_no_more_texts_and_bytes_than_the_provider_takes():
    model = ScriptedEndpoint()
    async with running(model, concurrency=1, max_texts=3, max_bytes=10) as sender:
        await sender.embed(["a"] * 5 + ["x" * 6, "y" * 6, "z" * 50], "passage")
    assert [texts for _, texts in model.requests] == [("a",) * 3, ("a", "a", "x" * 6), ("y" * 6,), ("z" * 50,)]


async def test_no_more_requests_are_in_flight_than_allowed_and_questions_have_their_own():
    model = ScriptedEndpoint()
    model.gate.clear()
    async with running(model, concurrency=2, max_texts=1) as sender:
        passages = asyncio.create_task(sender.embed(list("abcdef"), "passage"))
        await settle()
        assert model.in_flight == 2
        question = asyncio.create_task(sender.embed(["why"], "question"))
        await settle()
        assert model.requests[-1] == ("question", ("why",))
        model.gate.set()
        await asyncio.gather(passages, question)
    assert model.most_in_flight == 3


async def test_a_failed_request_is_sent_again_when_the_endpoint_can_be_asked_and_the_others_are_not():
    clock, model = FakeClock(), ScriptedEndpoint(None, down(2.0))
    async with running(model, clock, concurrency=1, max_texts=1) as sender:
        call = asyncio.create_task(sender.embed(["a", "b", "c"], "passage"))
        await clock.advance(1.9)
        assert [texts for _, texts in model.requests] == [("a",), ("b",)]
        await clock.advance(0.2)
        rows = await call
    assert [texts for _, texts in model.requests] == [("a",), ("b",), ("b",), ("c",)]
    assert np.allclose([row.vector for row in rows], expected(["a", "b", "c"]))


async def test_a_text_that_is_refused_fails_alone_and_for_good():
    model = ScriptedEndpoint(bad=["bad"])
    async with running(model) as sender:
        rows = await sender.embed(["a", "b", "bad", "c", "d"], "passage")
    assert [row.vector is None for row in rows] == [False, False, True, False, False]
    assert (rows[2].reason, rows[2].transient) == ("refused 'bad'", False)


class Poisoned(ScriptedEndpoint):
    """Fails inside, as llama.cpp does, whenever a request holds a text that is too long for it."""

    async def embed(self, texts, kind):
        vectors = await super().embed(texts, kind)
        if any("long" in text for text in texts):
            raise EndpointUnavailable("answered 500", 0.5, suspect=True)
        return vectors


async def test_a_text_that_makes_the_endpoint_fail_inside_is_found_and_fails_alone():
    """Found with a real llama.cpp server: one text over its limit failed all that shared its request."""
    clock, model = FakeClock(), Poisoned()
    async with running(model, clock) as sender:
        call = asyncio.create_task(sender.embed(["a", "b", "too long", "c", "d", "e"], "passage"))
        await clock.advance(10)
        rows = await call
    assert [row.vector is None for row in rows] == [False, False, True, False, False, False]
    assert (rows[2].reason, rows[2].transient) == ("answered 500", True)


async def test_an_endpoint_that_fails_inside_at_everything_is_not_flooded_by_the_search_for_a_bad_text():
    clock, model = FakeClock(), Poisoned()
    async with running(model, clock, budget=BudgetSettings(most=5)) as sender:
        call = asyncio.create_task(sender.embed(["long"] * 100, "passage"))
        await clock.advance(100)
        assert all(row.vector is None and row.transient for row in await call)
    assert len(model.requests) <= 2 * 5 + 1


async def test_a_vector_without_direction_fails_its_text_alone_and_is_the_endpoints_fault():
    model = ScriptedEndpoint()
    model.rewrite = lambda vectors: np.where([[False], [True], [False]], np.nan, vectors)
    async with running(model) as sender:
        rows = await sender.embed(["a", "b", "c"], "passage")
    assert [row.vector is None for row in rows] == [False, True, False]
    assert (
        "the endpoint of endpoint does not work as it should: the model returned a vector that is not" in rows[1].reason
    )
    assert rows[1].transient


@pytest.mark.parametrize(("kind", "patience_s"), [("passage", 60.0), ("question", QUESTION_PATIENCE_S)])
async def test_who_waited_long_enough_is_told_what_is_wrong_and_that_it_may_pass(kind, patience_s):
    clock, model = FakeClock(), ScriptedEndpoint(*[down(1.0, asked=True)] * 1000)
    async with running(model, clock, patience_s=60.0) as sender:
        call = asyncio.create_task(sender.embed(["a"], kind))
        await clock.advance(patience_s - 1.5)
        assert not call.done()
        await clock.advance(2)
        row = (await call)[0]
    assert (row.vector, row.transient) == (None, True)
    assert row.reason.startswith("it is down; given up: next try in 1.0 s")


async def test_a_wait_that_is_longer_than_the_patience_is_not_begun():
    async with running(ScriptedEndpoint(down(61.0, asked=True)), patience_s=60.0) as sender:
        row = (await sender.embed(["a"], "passage"))[0]
    assert "next try in 61.0 s" in row.reason


async def test_retries_end_when_their_budget_is_spent_and_successes_earn_new_ones():
    clock, budget = FakeClock(), BudgetSettings(share=0.5, most=2)
    model = ScriptedEndpoint(down(), down(), down(), None, None, down())
    async with running(model, clock, budget=budget) as sender:
        call = asyncio.create_task(sender.embed(["a"], "passage"))
        await clock.advance(10)
        assert "retry budget is spent" in (await call)[0].reason
        for _ in range(2):
            assert (await sender.embed(["a"], "passage"))[0].vector is not None
        call = asyncio.create_task(sender.embed(["a"], "passage"))
        await clock.advance(1)
        assert (await call)[0].vector is not None
    assert len(model.requests) == 7


async def test_the_texts_of_a_cancelled_caller_are_not_sent():
    model = ScriptedEndpoint()
    model.gate.clear()
    async with running(model, concurrency=1, max_texts=1) as sender:
        first = asyncio.create_task(sender.embed(["a"], "passage"))
        await settle()
        second = asyncio.create_task(sender.embed(["b", "c"], "passage"))
        await settle()
        second.cancel()
        await settle()
        assert sender.waiting == 0
        model.gate.set()
        assert (await first)[0].vector is not None
    assert [texts for _, texts in model.requests] == [("a",)]


async def test_a_caller_with_one_text_does_not_wait_for_one_with_many():
    model = ScriptedEndpoint()
    model.gate.clear()
    async with running(model, concurrency=1, max_texts=10) as sender:
        many = asyncio.create_task(sender.embed([f"many {n}" for n in range(100)], "passage"))
        await settle()
        few = asyncio.create_task(sender.embed(["few"], "passage"))
        await settle()
        model.gate.set()
        await asyncio.gather(many, few)
    assert "few" in model.requests[1][1]
    assert len(model.requests) == 11


async def test_callers_who_come_together_get_equal_shares_of_each_request():
    model = ScriptedEndpoint()
    async with running(model, concurrency=1, max_texts=10) as sender:
        await asyncio.gather(*(sender.embed([f"{name} {n}" for n in range(20)], "passage") for name in "ab"))
    for _, texts in model.requests[1:]:
        assert sum(text.startswith("a") for text in texts) == len(texts) // 2


async def test_stopping_gives_up_what_is_under_way_and_closes_the_model():
    clock, model = FakeClock(), ScriptedEndpoint(down(100.0))
    async with running(model, clock, concurrency=1, max_texts=1) as sender:
        assert model.opened
        call = asyncio.create_task(sender.embed(["a", "b"], "passage"))
        await settle()
    rows = await call
    assert {(row.reason, row.transient) for row in rows} == {("the embedding model was stopped", True)}
    assert not model.opened
    assert not sender.alive
    with pytest.raises(NotReady):
        await sender.embed(["a"], "passage")


async def test_an_error_that_nobody_expected_fails_its_texts_and_not_the_sender():
    async with running(ScriptedEndpoint(ZeroDivisionError("inside"))) as sender:
        failed = (await sender.embed(["a"], "passage"))[0]
        assert (failed.reason, sender.failures_in_a_row, sender.last_failure) == ("inside", 1, "inside")
        assert (await sender.embed(["a"], "passage"))[0].vector is not None
        assert (sender.alive, sender.failures_in_a_row) == (True, 0)


@pytest.mark.parametrize(
    ("text", "kept"), [("x" * 1001, "x" * 1000), ("é" * 600, "é" * 500), ("a" + "é" * 500, "a" + "é" * 499)]
)
async def test_a_text_over_the_limit_is_cut_between_characters_and_said_to_be(text, kept):
    model = ScriptedEndpoint()
    async with running(model) as sender:
        rows = await sender.embed([text, "short"], "passage")
    assert model.requests[0][1] == (kept, "short")
    assert [row.truncated for row in rows] == [True, False]


@settings(max_examples=60)
@given(st.data())
async def test_every_text_is_answered_once_and_in_its_callers_order_whatever_fails_or_is_cancelled(data):
    """Bad texts, endpoints that go and come, callers who leave: who stays gets the vector of each of its good texts."""
    calls = data.draw(st.lists(st.lists(st.sampled_from(["a", "b", "c", "dd", "eee", "bad"]), max_size=9), max_size=6))
    failures = st.sampled_from([None, None, down(1.0), down(2.0, asked=True)])
    leaving = data.draw(st.sets(st.integers(0, 5)))
    limits = data.draw(st.fixed_dictionaries({"concurrency": st.integers(1, 3), "max_texts": st.integers(1, 4)}))
    clock, model = FakeClock(), ScriptedEndpoint(*data.draw(st.lists(failures, max_size=12)), bad=["bad"])
    async with running(model, clock, patience_s=1000, **limits) as sender:
        tasks = [asyncio.create_task(sender.embed(texts, "passage")) for texts in calls]
        await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number in leaving:
                task.cancel()
        await clock.advance(500)
        for texts, task in [pair for at, pair in enumerate(zip(calls, tasks, strict=True)) if at not in leaving]:
            rows = task.result()
            assert [row.vector is None for row in rows] == [text == "bad" for text in texts]
            good = [text for text in texts if text != "bad"]
            assert np.allclose([row.vector for row in rows if row.vector is not None], expected(good) if good else [])
        assert sender.waiting == 0


async def test_each_request_is_remembered_with_its_time_retries_included_and_tokens_that_nobody_knows():
    clock = FakeClock()
    async with running(ScriptedEndpoint(down(1.0)), clock) as sender:
        call = asyncio.create_task(sender.embed(["one", "two"], "passage"))
        await settle()
        await clock.advance(2.0)
        await call
        [batch] = sender.untold
    assert batch.tokens is None
    assert batch.seconds >= 1.0


async def test_a_request_is_a_span_of_each_caller_whose_texts_are_in_it_and_its_retries_are_told():
    clock, model = FakeClock(), ScriptedEndpoint(down(2.0))

    async def traced(name):
        with tracing.entry(name):
            await sender.embed([name], "passage")

    with RecordedTraces() as traces:
        async with running(model, clock, concurrency=1) as sender:
            calls = [asyncio.create_task(traced(name)) for name in ("one", "two")]
            await clock.advance(2.1)
            await asyncio.gather(*calls)
    assert traces.tree() == {"one": {"batch": {}}, "two": {"batch": {}}}
    for batch in (one for one in traces.ended if one.name == "batch"):
        assert batch.attributes == {"ragworks.batch.texts": 2, "ragworks.batch.failed": 0}
        assert [(name, said["error.type"]) for name, _, said in batch.events] == [("retry", "endpoint_unavailable")]
