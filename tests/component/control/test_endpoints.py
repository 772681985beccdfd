"""Endpoints as replicas: whom a request reaches, who is left alone and for how long, and how that is shown and told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks import tracing
from ragworks.control.endpoints import TRIAL_S, EndpointSet
from ragworks.control_protocols import EndpointFailed, endpoint_id
from ragworks.errors import EndpointUnavailable
from ragworks.policies.replaying import asked_again, encoded
from ragworks.testing import FakeClock, endpoint_set, settle
from ragworks.types import Health, Life
from recorded_traces import RecordedTraces

A, B, C = "http://a.test:1/v1", "http://b.test:2/v1/", "https://c.test/openai/v1"


class Asked:
    """Answers with the URL, or fails as ``fail`` says; ``log`` is who was asked."""

    def __init__(self, fail: Callable[[str], Exception | None] = lambda url: None) -> None:
        self.fail, self.log = fail, []

    async def __call__(self, url: str) -> str:
        self.log.append(url)
        if error := self.fail(url):
            raise error
        return url

    async def pieces(self, url: str) -> AsyncGenerator[str, None]:
        self.log.append(url)
        for piece in "one", "two":
            if error := self.fail(f"{url} {piece}"):
                raise error
            yield piece


def only(*bad: str, **more: Any) -> Callable[[str], Exception | None]:
    return lambda url: EndpointFailed(f"{url} is down", **more) if any(url.startswith(one) for one in bad) else None


def lives(endpoints: EndpointSet) -> dict[str, Life]:
    return {one.id: one.life for one in endpoints.reports()}


def test_an_endpoint_is_known_by_host_port_and_path_and_by_no_secret() -> None:
    assert endpoint_id("https://user:secret@c.test:8443/openai/v1/?key=secret") == "c.test:8443/openai/v1"
    assert [endpoint_id(url) for url in (A, B, C)] == ["a.test:1/v1", "b.test:2/v1", "c.test/openai/v1"]


async def test_calls_spread_over_endpoints_and_each_is_shown_with_what_it_did() -> None:
    clock = FakeClock()
    endpoints, ask = endpoint_set((A, B, C), clock), Asked()
    for _ in range(60):
        await endpoints.call(ask)
        await clock.advance(0.1)
    assert set(ask.log) == {A, B.rstrip("/"), C}
    shown = endpoints.reports()
    assert [(one.status, one.pid, one.active_connections, one.error_rate) for one in shown] == [
        ("healthy", None, 0, 0)
    ] * 3
    assert (endpoints.size, endpoints.bounds, endpoints.health()) == (3, (3, 3), (Health.HEALTHY, ""))


async def test_how_many_calls_wait_at_an_endpoint_is_not_known_and_not_guessed() -> None:
    clock = FakeClock()
    endpoints = endpoint_set((A,), clock)
    calls = [asyncio.create_task(endpoints.call(lambda url: clock.sleep(9))) for _ in range(3)]
    await settle()
    (view,) = endpoints.views()
    assert (view.active_connections, view.waiting, view.queue_age_s) == (3, None, None)
    (report,) = endpoints.reports()
    assert (report.active_connections, report.queue_size, report.queue_age_s) == (3, None, None)
    await clock.advance(9.0)
    await asyncio.gather(*calls)


async def test_a_slow_endpoint_gets_less_than_its_fast_neighbour() -> None:
    """By requests in flight alone, a caller that asks one by one met the slow one every other time."""
    clock, log = FakeClock(), []

    async def ask(url: str) -> str:
        log.append(url)
        await clock.sleep(1.0 if url == A else 0.1)
        return url

    endpoints = endpoint_set((A, B), clock)
    for _ in range(100):
        call = asyncio.create_task(endpoints.call(ask))
        while not call.done():
            await clock.advance(0.1)
    assert log.count(A) < 20 < log.count(B.rstrip("/"))


async def test_who_fails_fast_does_not_become_the_favourite_and_no_caller_sees_it() -> None:
    clock = FakeClock()
    endpoints, ask = endpoint_set((A, B), clock), Asked(only(A))
    for _ in range(200):
        assert await endpoints.call(ask) == B.rstrip("/")
        await clock.advance(0.1)
    assert ask.log.count(A) < 12


async def test_nobody_is_asked_before_the_time_that_it_named_even_if_there_is_no_other() -> None:
    clock = FakeClock()
    endpoints, ask = endpoint_set((A, B), clock), Asked(only("http", retry_after_s=60.0))
    with pytest.raises(EndpointUnavailable, match="is down") as caught:
        await endpoints.call(ask)
    assert (len(ask.log), caught.value.retry_after_s, caught.value.asked) == (2, pytest.approx(60.0), True)
    for _ in range(59):
        await clock.advance(1.0)
        with pytest.raises(EndpointUnavailable):
            await endpoints.call(ask)
    assert len(ask.log) == 2


async def test_one_request_tries_an_endpoint_that_comes_back_and_the_others_wait_for_its_outcome() -> None:
    clock, gate = FakeClock(), asyncio.Event()
    endpoints = endpoint_set((A,), clock)
    with pytest.raises(EndpointUnavailable):
        await endpoints.call(Asked(only(A)))
    await clock.advance(31.0)

    async def held(url: str) -> str:
        await gate.wait()
        return url

    trial = asyncio.create_task(endpoints.call(held))
    await settle()
    with pytest.raises(EndpointUnavailable) as caught:
        await endpoints.call(held)
    assert (caught.value.retry_after_s, caught.value.asked) == (TRIAL_S, True)
    gate.set()
    await trial
    assert await asyncio.gather(*(endpoints.call(held) for _ in range(5))) == [A] * 5


async def test_a_trial_that_is_given_up_leaves_room_for_another() -> None:
    clock = FakeClock()
    endpoints = endpoint_set((A,), clock)
    with pytest.raises(EndpointUnavailable):
        await endpoints.call(Asked(only(A)))
    await clock.advance(31.0)
    with pytest.raises(ZeroDivisionError):  # no fault of the endpoint
        await endpoints.call(Asked(lambda url: ZeroDivisionError()))
    trial = asyncio.create_task(endpoints.call(lambda url: clock.sleep(99)))
    await settle()
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)
    assert await endpoints.call(Asked()) == A


async def test_holds_and_ejections_are_events_that_can_be_replayed_and_the_note_says_why() -> None:
    events: list[dict[str, Any]] = []
    clock = FakeClock()
    endpoints = endpoint_set((A, B), clock, record=lambda action, **told: events.append({"action": action, **told}))
    ask = Asked(only(A))
    for _ in range(20):
        await endpoints.call(ask)
        await clock.advance(1.0)
    told = [one for one in events if one["replica"] == "a.test:1/v1"]
    assert {one["action"] for one in told} == {"held", "ejected"}
    assert all("is down" in one["reason"] for one in told if one["action"] == "held")
    for one in told:
        again = asked_again(one["policy"], encoded(one["inputs"]), encoded(one["decision"]))
        assert again.same, again.reason
    assert lives(endpoints) == {"a.test:1/v1": Life.EJECTED, "b.test:2/v1": Life.READY}
    assert endpoints.health() == (Health.DEGRADED, "1 of 2 endpoints answer: http://a.test:1/v1 is down")
    ask.fail = lambda url: None
    for _ in range(200):
        await endpoints.call(ask)
        await clock.advance(1.0)
    assert endpoints.health() == (Health.HEALTHY, "")
    assert events[-1]["action"] == "readmitted"


async def test_the_service_is_unhealthy_once_every_endpoint_failed_again_and_again() -> None:
    clock = FakeClock()
    endpoints, ask = endpoint_set((A, B), clock), Asked(only("http"))
    seen = []
    for _ in range(4):
        with pytest.raises(EndpointUnavailable):
            await endpoints.call(ask)
        seen.append(endpoints.health()[0])
        await clock.advance(31.0)
    assert seen == [Health.DEGRADED, Health.DEGRADED, Health.UNHEALTHY, Health.UNHEALTHY]


async def test_a_stream_is_taken_over_before_its_first_piece_and_breaks_off_after_it() -> None:
    clock = FakeClock()
    endpoints, ask = endpoint_set((A, B), clock), Asked(only(A))
    for _ in range(4):
        assert [piece async for piece in endpoints.stream(ask.pieces)] == ["one", "two"]
        await clock.advance(31.0)
    assert ask.log.count(A) in range(1, 5)
    ask.fail = lambda url: EndpointFailed("it broke off") if url.endswith("two") else None
    before, pieces = len(ask.log), endpoints.stream(ask.pieces)
    assert await anext(pieces) == "one"
    with pytest.raises(EndpointUnavailable, match="it broke off"):
        await anext(pieces)
    assert len(ask.log) - before == 1


async def test_a_stream_that_its_reader_leaves_frees_its_endpoint() -> None:
    endpoints = endpoint_set((A,), FakeClock())
    async with aclosing(endpoints.stream(Asked().pieces)) as pieces:
        assert await anext(pieces) == "one"
        assert endpoints.reports()[0].active_connections == 1
    assert endpoints.reports()[0].active_connections == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ok", "down", "429"]), st.floats(0, 20)), max_size=60)
)
def test_whatever_happens_nobody_is_asked_before_its_time_and_somebody_free_always(steps) -> None:
    asyncio.run(_driven(steps))


async def _driven(steps: list[tuple[str, str, float]]) -> None:
    clock = FakeClock()
    endpoints = endpoint_set((A, B, C), clock)
    state = dict.fromkeys("abc", "ok")
    not_before = dict.fromkeys("abc", 0.0)

    async def ask(url: str) -> str:
        name = url.split("//")[1][0]
        assert clock.monotonic() >= not_before[name]
        if state[name] == "ok":
            return name
        named_s = 10.0 if state[name] == "429" else None
        not_before[name] = clock.monotonic() + (named_s or 0.25)  # the shortest backoff is half of half a second
        raise EndpointFailed(state[name], named_s)

    for name, becomes, wait_s in steps:
        state[name] = becomes
        await clock.advance(wait_s)
        free = [one for one in "abc" if state[one] == "ok" and not_before[one] + 30.0 <= clock.monotonic()]
        (found,) = await asyncio.gather(endpoints.call(ask), return_exceptions=True)
        if isinstance(found, EndpointUnavailable):
            assert not free
            assert 0 <= found.retry_after_s <= 30.0
        else:
            assert state[str(found)] == "ok"


async def test_a_span_says_which_endpoint_was_asked_and_which_took_over() -> None:
    endpoints, ask = endpoint_set((A, B), FakeClock()), Asked()
    ask.fail = lambda url: EndpointFailed(f"{url} is down") if len(ask.log) == 1 else None
    with RecordedTraces() as traces, tracing.entry("batch"):
        await endpoints.call(ask)
    told = [(name, said["ragworks.replica_id"]) for name, _, said in traces.named("batch").events]
    assert told == [("pick", endpoint_id(ask.log[0])), ("retry", endpoint_id(ask.log[1]))]
