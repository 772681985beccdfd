"""The balancer over replicas that fail, hang, are slow, die, come and go."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from ragworks import tracing
from ragworks.control.balancer import LOSS_PAUSE_S
from ragworks.errors import InvalidInput, NotReady, ReplicaLost
from ragworks.policies.calling import CallSettings, HedgeSettings
from ragworks.policies.retrying import BudgetSettings
from ragworks.testing import FakeClock, settle
from ragworks.types import Health
from recorded_traces import RecordedTraces
from team import Team


async def test_calls_go_to_all_replicas_and_counts_return_to_zero(trio: Team) -> None:
    assert await trio.calls(30) == {"a", "b", "c"}
    assert trio.active == 0


async def test_a_call_whose_replica_dies_is_answered_by_another(trio: Team) -> None:
    trio["a"].hang()
    trio["b"].hang()
    trio["c"].hang()
    calls = [asyncio.create_task(trio.balancer.call("name")) for _ in range(30)]
    await settle()
    trio["b"].recover()
    trio["c"].recover()
    trio["a"].die()
    await trio.clock.advance(LOSS_PAUSE_S)
    assert set(await asyncio.gather(*calls)) == {"b", "c"}
    assert trio.active == 0


async def test_each_of_many_calls_that_die_with_their_replica_is_answered_elsewhere() -> None:
    """A retry budget of 20 must not be what decides: a replica takes all its calls in flight along when it dies."""
    team = Team("ab")
    team["a"].hang()
    team["b"].hang()
    calls = [asyncio.create_task(team.balancer.call("name")) for _ in range(200)]
    await settle()
    team["b"].recover()
    team["a"].die()
    await team.clock.advance(LOSS_PAUSE_S)
    assert set(await asyncio.gather(*calls)) == {"b"}
    assert team.balancer.stats()["retries"] == 100
    assert team.balancer.stats()["retries_saved"] == BudgetSettings().most


async def test_a_dead_replica_is_not_picked_while_its_owner_has_not_removed_it(trio: Team) -> None:
    trio["a"].die()
    assert await trio.calls(50) == {"b", "c"}
    assert trio["a"].calls == []
    assert trio.balancer.stats()["retries"] == 1


async def test_a_failed_call_is_answered_by_another(trio: Team) -> None:
    trio["a"].fail()
    assert await trio.calls(12) == {"b", "c"}


async def test_the_callers_own_fault_is_told_at_once_and_blames_no_replica(trio: Team) -> None:
    for replica in trio.replicas.values():
        replica.fail(InvalidInput("texts must not be empty"))
    with pytest.raises(InvalidInput):
        await trio.balancer.call("name")
    assert trio.balancer.stats()["retries"] == 0
    assert all(view.error_rate == 0 for view in trio.set.views(0.0))


async def test_an_error_that_every_replica_gives_is_told_as_it_is(trio: Team) -> None:
    for replica in trio.replicas.values():
        replica.fail(ValueError("odd"))
    with pytest.raises(ValueError, match="odd"):
        await trio.balancer.call("name")
    assert sum(len(replica.calls) for replica in trio.replicas.values()) == 3
    assert trio.clock.monotonic() == 0.0


async def test_retries_stay_within_their_budget(trio: Team) -> None:
    """Else a service in trouble gets three times its traffic."""
    for replica in trio.replicas.values():
        replica.fail()
    for _ in range(100):
        with pytest.raises(ValueError, match="told to fail"):
            await trio.balancer.call("name")
    assert trio.balancer.stats()["retries"] == BudgetSettings().most


async def test_answers_earn_retries(trio: Team) -> None:
    trio["a"].fail()
    await trio.calls(60)
    trio["a"].recover()
    spent = trio.balancer.stats()["retries_saved"]
    await trio.calls(10)
    assert trio.balancer.stats()["retries_saved"] == pytest.approx(spent + 10 * BudgetSettings().share)


@pytest.mark.parametrize("error", [ValueError("odd"), TimeoutError(), ReplicaLost("gone")])
async def test_a_call_that_may_have_taken_effect_is_not_repeated(trio: Team, error: Exception) -> None:
    for replica in trio.replicas.values():
        replica.fail(error)
    with pytest.raises(type(error)):
        await trio.balancer.call("name", idempotent=False)
    assert sum(len(replica.calls) for replica in trio.replicas.values()) == 1


async def test_a_call_that_was_refused_is_repeated_even_if_it_must_not_run_twice(trio: Team) -> None:
    trio["a"].max_calls = trio["b"].max_calls = 0
    assert {await trio.balancer.call("name", idempotent=False) for _ in range(9)} == {"c"}


async def test_the_callers_time_is_for_all_attempts_together(trio: Team) -> None:
    for replica in trio.replicas.values():
        replica.slow(4.0)
    call = asyncio.create_task(trio.balancer.call("name", timeout_s=10.0))
    await settle()
    await trio.clock.advance(3.0)
    asked = next(replica for replica in trio.replicas.values() if replica.calls)
    for replica in trio.replicas.values():
        if replica is not asked:
            replica.hang()
    asked.die()
    await trio.clock.advance(6.9)
    assert not call.done()
    await trio.clock.advance(0.2)
    with pytest.raises(TimeoutError):
        await call
    assert sum(len(replica.calls) for replica in trio.replicas.values()) == 2


async def test_without_replicas_a_call_waits_for_one() -> None:
    team = Team("")
    call = asyncio.create_task(team.balancer.call("name"))
    await team.clock.advance(3.0)
    team.add("a")
    assert await call == "a"


async def test_without_replicas_a_call_is_refused_in_the_end_with_the_reason_and_when_to_come_back() -> None:
    team = Team("", absence=lambda: ("restarted in 30 s, last: killed by signal 9", 30.0))
    call = asyncio.create_task(team.balancer.call("name"))
    await team.clock.advance(CallSettings().wait_s)
    with pytest.raises(NotReady, match="restarted in 30 s, last: killed by signal 9; none came in time") as caught:
        await call
    assert 30.0 <= caught.value.retry_after_s <= 36.0
    assert team.balancer.stats()["rejections"] == 1


async def test_the_queue_is_as_old_as_the_call_that_has_waited_longest_for_any_replica() -> None:
    team = Team("")
    first = asyncio.create_task(team.balancer.call("name"))
    await team.clock.advance(3.0)
    second = asyncio.create_task(team.balancer.call("name"))
    await settle()
    team.balancer.changed()  # in vain: who looks again has waited no less for it
    await team.clock.advance(1.0)
    assert _queue(team) == (2, 4.0)
    first.cancel()
    await settle()
    assert _queue(team) == (1, 1.0)
    team.add("a")
    assert await second == "a"
    assert _queue(team) == (0, 0.0)


async def test_calls_beyond_the_slots_of_a_replica_are_in_the_queue_and_those_in_a_slot_are_not() -> None:
    team = Team("a")
    team["a"].hang()
    calls = []
    for _ in range(3):
        calls.append(asyncio.create_task(team.balancer.call("name")))
        await team.clock.advance(2.0)
    (view,) = team.balancer.views()
    assert (view.waiting, view.queue_age_s) == (2, 4.0)
    assert _queue(team) == (2, 4.0)
    calls[0].cancel()
    await settle()
    assert _queue(team) == (1, 2.0)
    for call in calls[1:]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert _queue(team) == (0, 0.0)


def _queue(team: Team) -> tuple[float, float]:
    stats = team.balancer.stats()
    return stats["queued"], stats["queue_age_s"]


async def test_only_so_many_calls_wait() -> None:
    team = Team("", settings=CallSettings(max_waiting=5))
    calls = [asyncio.create_task(team.balancer.call("name")) for _ in range(8)]
    await settle()
    assert team.balancer.stats()["waiting"] == 5
    assert [call.done() for call in calls] == [False] * 5 + [True] * 3
    with pytest.raises(NotReady, match="5 calls wait for one already"):
        await calls[5]
    team.add("a")
    assert await asyncio.gather(*calls[:5]) == ["a"] * 5
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_caller_with_little_time_does_not_wait_for_longer() -> None:
    team = Team("")
    call = asyncio.create_task(team.balancer.call("name", timeout_s=2.0))
    await team.clock.advance(2.0)
    with pytest.raises(NotReady):
        await call


async def test_the_only_replica_that_dies_is_waited_for_until_the_next_is_up() -> None:
    team = Team("a")
    team["a"].hang()
    calls = [asyncio.create_task(team.balancer.call("name")) for _ in range(10)]
    await settle()
    team["a"].die()
    team.remove("a")
    await team.clock.advance(2.0)
    team.add("b")
    assert await asyncio.gather(*calls) == ["b"] * 10


async def test_when_all_replicas_die_at_once_every_call_is_answered_by_the_next() -> None:
    """Else a call tries one dead replica after the other within a millisecond, and has no attempt left."""
    team = Team("abcd")
    for replica in team.replicas.values():
        replica.hang()
    calls = [asyncio.create_task(team.balancer.call("name")) for _ in range(100)]
    await settle()
    for replica in team.replicas.values():
        replica.die()
    await team.clock.advance(1.0)
    calls += [asyncio.create_task(team.balancer.call("name")) for _ in range(100)]
    await team.clock.advance(1.0)
    for name in "abcd":
        team.remove(name)
    team.add("e")
    assert await asyncio.gather(*calls) == ["e"] * 200
    assert team.balancer.stats()["retries_saved"] == BudgetSettings().most


async def test_a_call_that_must_not_run_twice_goes_past_a_dead_replica(trio: Team) -> None:
    """Nothing was done with it there."""
    trio["a"].die()
    trio["b"].die()
    assert {await trio.balancer.call("name", idempotent=False) for _ in range(9)} == {"c"}


async def test_with_all_replicas_ill_they_are_called_all_the_same(trio: Team) -> None:
    """Panic: a service whose health says the worst, and works, is worth more than a refusal."""
    for name in "abc":
        trio.set.note_health(name, Health.UNHEALTHY, 0.0)
    assert await trio.calls(30) == {"a", "b", "c"}
    assert trio.balancer.stats()["panics"] == 30
    assert trio.balancer.stats()["available"] == 0
    trio.set.note_health("b", Health.HEALTHY, 0.0)
    assert await trio.calls(30) == {"b"}
    assert trio.recorded.actions == ["panic_began", "panic_ended"]


async def test_with_no_healthy_replica_the_degraded_serve_before_the_unhealthy(trio: Team) -> None:
    trio.set.note_health("a", Health.UNHEALTHY, 0.0)
    trio.set.note_health("b", Health.DEGRADED, 0.0)
    trio.set.note_health("c", Health.DEGRADED, 0.0)
    assert await trio.calls(60) == {"b", "c"}


async def test_a_second_attempt_at_an_ill_replica_is_no_panic(trio: Team) -> None:
    """What is left for a call that failed says nothing of what others find."""
    trio.set.note_health("b", Health.UNHEALTHY, 0.0)
    trio.set.note_health("c", Health.UNHEALTHY, 0.0)
    trio["a"].fail()
    await trio.calls(5)
    assert trio.balancer.stats()["panics"] == 0
    assert trio.recorded.actions == []


async def test_refusals_are_recorded_when_they_begin_and_when_they_end() -> None:
    team = Team("", settings=CallSettings(wait_s=0.0))
    for _ in range(50):
        with pytest.raises(NotReady):
            await team.balancer.call("name")
    team.add("a")
    await team.calls(10)
    assert team.recorded.actions == ["rejecting_began", "rejecting_ended"]


async def test_a_cancelled_call_says_nothing_about_its_replica(trio: Team) -> None:
    trio["a"].hang()
    calls = [asyncio.create_task(trio.balancer.call("name")) for _ in range(3)]
    await settle()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert trio.active == 0
    assert trio["a"].in_flight == 0
    assert all(view.error_rate == 0 for view in trio.set.views(0.0))
    assert trio.balancer.traffic("a").calls == 0


async def test_a_call_that_is_cancelled_while_it_waits_leaves_nothing_behind() -> None:
    team = Team("")
    call = asyncio.create_task(team.balancer.call("name"))
    await settle()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert team.balancer.stats()["waiting"] == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_replica_that_its_owner_lets_go_of_is_not_called(trio: Team) -> None:
    """The set and the handles may be out of step for a moment: the call goes elsewhere, and no count is left."""
    del trio.replicas["a"]
    assert await trio.calls(30) == {"b", "c"}
    assert trio.active == 0


async def test_a_stream_comes_from_one_replica(trio: Team) -> None:
    items = [item async for item in trio.balancer.stream("ten")]
    assert len(items) == 10
    assert len(set(items)) == 1
    assert trio.active == 0


async def test_a_stream_that_fails_before_its_first_item_is_begun_elsewhere(trio: Team) -> None:
    trio["a"].fail()
    for _ in range(3):
        assert {item async for item in trio.balancer.stream("ten")} <= {"b", "c"}
    assert trio.active == 0


async def test_a_stream_that_breaks_off_is_told_and_not_begun_again(trio: Team) -> None:
    """Whoever reads it has acted on what came."""
    items = trio.balancer.stream("ten")
    name = await anext(items)
    trio[name].die()
    with pytest.raises(ReplicaLost):
        await anext(items)
    assert trio.active == 0
    assert sum(len(replica.calls) for replica in trio.replicas.values()) == 1


async def test_a_stream_that_is_closed_early_ends_at_its_replica(trio: Team) -> None:
    async with aclosing(trio.balancer.stream("ten")) as items:
        await anext(items)
        assert trio.active == 1
    assert trio.active == 0
    assert all(replica.in_flight == 0 for replica in trio.replicas.values())


HEDGING = CallSettings(hedge=HedgeSettings(quantile=0.95, share=0.1, min_calls=20))


async def hedged(names: str = "ab") -> Team:
    """A team that knows how long calls take: 1 s, and less of late, so that none was slow."""
    team = Team(names, settings=HEDGING)
    for turn in range(40):
        for replica in team.replicas.values():
            replica.slow(1.0 - turn / 100)
        call = asyncio.create_task(team.balancer.call("name"))
        await team.clock.advance(1.0)
        await call
    return team


async def test_a_slow_call_is_asked_a_second_time_and_the_first_answer_wins() -> None:
    team = await hedged()
    team["a"].slow(100.0)
    team["b"].slow(0.5)
    calls = [asyncio.create_task(team.balancer.call("name")) for _ in range(2)]
    await team.clock.advance(2.0)
    assert [await call for call in calls] == ["b", "b"]
    assert team.balancer.stats()["hedges"] == 1
    assert team.active == 0
    assert team["a"].in_flight == 0


async def test_hedges_stay_within_their_share() -> None:
    team = await hedged()
    for replica in team.replicas.values():
        replica.slow(5.0)
    calls = [asyncio.create_task(team.balancer.call("name")) for _ in range(100)]
    await team.clock.advance(60.0)
    await asyncio.gather(*calls)
    assert 0 < team.balancer.stats()["hedges"] <= 0.1 * 140 + 1


async def test_a_call_that_must_not_run_twice_is_never_hedged() -> None:
    team = await hedged()
    team["a"].slow(5.0)
    team["b"].slow(5.0)
    call = asyncio.create_task(team.balancer.call("name", idempotent=False))
    await team.clock.advance(5.0)
    await call
    assert team.balancer.stats()["hedges"] == 0


async def test_when_one_of_two_fails_the_other_still_answers() -> None:
    team = await hedged()
    team["a"].slow(3.0)
    team["b"].slow(3.0)
    call = asyncio.create_task(team.balancer.call("name"))
    await team.clock.advance(2.0)
    assert [replica.in_flight for replica in team.replicas.values()] == [1, 1]
    team["a"].die()
    await team.clock.advance(2.0)
    assert await call == "b"
    assert team.active == 0


async def test_a_call_that_is_cancelled_while_two_are_asked_ends_both() -> None:
    team = await hedged()
    team["a"].hang()
    team["b"].hang()
    call = asyncio.create_task(team.balancer.call("name"))
    await team.clock.advance(2.0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert [replica.in_flight for replica in team.replicas.values()] == [0, 0]
    assert team.active == 0
    assert len(asyncio.all_tasks()) == 1


async def test_with_one_replica_a_slow_call_is_not_asked_twice() -> None:
    team = await hedged("a")
    team["a"].slow(5.0)
    call = asyncio.create_task(team.balancer.call("name"))
    await team.clock.advance(5.0)
    assert await call == "a"
    assert team.balancer.stats()["hedges"] == 0


@pytest.mark.parametrize("steps", range(12))
async def test_a_call_that_is_cancelled_at_any_await_leaves_all_counts_at_zero(steps: int) -> None:
    """Also a call that is hedged, and retried after a loss: the loop is stopped a little later each time."""
    team = await hedged("abc")
    for replica in team.replicas.values():
        replica.slow(3.0)
    call = asyncio.create_task(team.balancer.call("name"))
    if steps >= 6:
        await team.clock.advance(1.5)
        next(replica for replica in team.replicas.values() if replica.in_flight).die()
    for _ in range(steps % 6):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert team.active == 0
    assert all(replica.in_flight == 0 for replica in team.replicas.values())
    assert len(asyncio.all_tasks()) == 1


async def waiting_at_one(count: int = 4, **more: bool) -> tuple[Team, list[asyncio.Task[str]]]:
    """Calls at the only replica, which answers nothing any more."""
    team = Team("a", strategy="adaptive")
    await team.calls(3)
    team["a"].hang()
    calls = [asyncio.create_task(team.balancer.call("name", **more)) for _ in range(count)]
    await settle()
    return team, calls


async def test_a_replica_that_comes_answers_calls_that_wait_at_another() -> None:
    team, calls = await waiting_at_one()
    team.add("b")
    assert await asyncio.gather(*calls[1:]) == ["b", "b", "b"]
    assert team.balancer.stats()["steals"] == 3
    assert team.balancer.stats()["retries"] == 0
    assert [one.in_flight for one in team.replicas.values()] == [1, 0]
    team["a"].recover()
    assert await calls[0] == "a"
    assert team.active == 0


class OneByOne:
    """A service that works on one call after another, 0.25 s each."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock, self._free = clock, asyncio.Lock()

    async def work(self) -> None:
        async with self._free:
            await self._clock.sleep(0.25)


async def test_a_queue_is_worked_off_by_all_replicas_that_come_and_not_by_those_that_were_there() -> None:
    """120 calls of 0.25 s took four replicas 7.5 s, however many others had come and stood idle; sixteen need 2 s."""
    team = Team("", strategy="adaptive")
    for number in range(4):
        team.add(f"old{number}").service = OneByOne(team.clock)
    calls = [asyncio.create_task(team.balancer.call("work")) for _ in range(120)]
    await settle()
    for number in range(12):
        team.add(f"new{number}").service = OneByOne(team.clock)
        team.balancer.changed()
    for _ in range(9):
        await team.clock.advance(0.25)
    assert sum(not call.done() for call in calls) == 0
    assert team.active == 0


async def test_a_call_that_must_not_run_twice_is_never_moved() -> None:
    team, calls = await waiting_at_one(idempotent=False)
    team.add("b")
    await settle()
    assert team["b"].calls == []
    team["a"].recover()
    assert set(await asyncio.gather(*calls)) == {"a"}


async def test_a_call_that_was_moved_and_fails_is_tried_again_where_it_was() -> None:
    team, calls = await waiting_at_one(2)
    team.add("b").fail()
    await settle()
    assert team["b"].calls == ["name"]
    team["a"].recover()
    assert await asyncio.gather(*calls) == ["a", "a"]
    assert team.active == 0


@pytest.mark.parametrize("steps", range(5))
async def test_a_call_that_is_cancelled_while_it_is_moved_leaves_nothing_behind(steps: int) -> None:
    team, calls = await waiting_at_one()
    team.add("b").hang()
    for _ in range(steps):
        await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*calls, return_exceptions=True))
    assert team.active == 0
    assert [one.in_flight for one in team.replicas.values()] == [0, 0]


async def test_an_answer_that_comes_as_its_call_is_moved_leaves_no_count() -> None:
    team, calls = await waiting_at_one()
    team["a"].recover()
    team.add("b")
    assert set(await asyncio.gather(*calls)) <= {"a", "b"}
    assert team.active == 0


async def test_a_span_says_that_its_call_was_moved_and_why() -> None:
    with RecordedTraces() as traces, tracing.entry("door"):
        team, calls = await waiting_at_one(2)
        team.add("b")
        await calls[1]
        team["a"].recover()
        await calls[0]
    ended = [span for span in traces.ended if any(name == "steal" for name, _, _ in span.events)]
    assert [[name for name, _, _ in span.events] for span in ended] == [["pick", "steal"]]
    said = ended[0].events[1][2]
    assert said["ragworks.replica_id"] == "b"
    assert "more at a" in str(said["ragworks.reason"])


async def test_a_span_says_who_was_picked_and_why_and_what_was_tried_before(trio: Team) -> None:
    trio["a"].die()
    with RecordedTraces() as traces, tracing.entry("door"):
        call = asyncio.create_task(trio.balancer.call("name"))
        await settle()
        await trio.clock.advance(LOSS_PAUSE_S)
        assert await call == "b"
    span = traces.named("embeddings_service.name")
    assert span.attributes == {"ragworks.service": "embeddings_service", "ragworks.verb": "name"}
    assert [(name, said.get("ragworks.replica_id"), said.get("error.type")) for name, _, said in span.events] == [
        ("pick", "a", None),
        ("retry", None, "replica_gone"),
        ("pick", "b", None),
    ]
    assert all(said["ragworks.reason"] for _, _, said in span.events)
    assert span.error == ""
