"""The probe loop over replicas that hang, are slow, say that they are ill, or fail their calls."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ragworks.control.health_checker import ProbeSettings
from ragworks.control_protocols import Usage
from ragworks.errors import NotReady
from ragworks.policies.health import HealthSettings, judge
from ragworks.testing import settle
from ragworks.types import Health, ServiceHealth
from team import Team

PROBES = ProbeSettings()


async def test_a_hung_replica_gets_no_calls_after_two_missed_probes(trio: Team) -> None:
    async with trio.checker():
        assert await trio.calls(30) == {"a", "b", "c"}
        trio["b"].hang()
        await trio.clock.advance(2 * PROBES.interval_s)
        assert await trio.calls(50) == {"a", "c"}


async def test_a_replica_that_recovers_is_called_again_after_three_good_probes(trio: Team) -> None:
    async with trio.checker():
        trio["b"].hang()
        await trio.clock.advance(2 * PROBES.interval_s)
        trio["b"].recover()
        await trio.clock.advance(2 * PROBES.interval_s)
        assert await trio.calls(50) == {"a", "c"}
        await trio.clock.advance(2 * PROBES.interval_s)
        assert await trio.calls(50) == {"a", "b", "c"}


async def test_a_hung_replica_does_not_hold_up_the_probes_of_the_others(trio: Team) -> None:
    trio["a"].hang()
    async with trio.checker():
        await trio.clock.advance(10 * PROBES.interval_s)
        assert trio["b"].checks in (10, 11)
        assert trio["c"].checks in (10, 11)


async def test_probes_of_one_round_are_spread(trio: Team) -> None:
    """Else all replicas of a server, and all servers of a rack, would be asked at the same instant."""
    asked: dict[str, float] = {}
    for name, replica in trio.replicas.items():

        async def check(name: str = name) -> ServiceHealth:
            asked.setdefault(name, trio.clock.monotonic())
            return ServiceHealth(name, Health.HEALTHY)

        replica.service.check_health = check
    async with trio.checker():
        await trio.clock.advance(PROBES.interval_s)
    assert len(set(asked.values())) == 3
    assert max(asked.values()) <= PROBES.jitter * PROBES.interval_s


async def test_a_hung_replica_is_given_up_once_after_three_missed_probes(trio: Team) -> None:
    async with trio.checker():
        trio["b"].hang()
        await trio.clock.advance(3 * PROBES.interval_s)
        assert [name for name, _ in trio.given_up] == ["b"]
        assert "did not answer within 2 s" in trio.given_up[0][1]
        await trio.clock.advance(10 * PROBES.interval_s)
        assert len(trio.given_up) == 1


async def test_a_replica_that_nobody_replaces_is_given_up_again(trio: Team) -> None:
    async with trio.checker():
        trio["b"].hang()
        await trio.clock.advance(3 * PROBES.interval_s + PROBES.health.unhealthy_s + PROBES.interval_s)
        assert [name for name, _ in trio.given_up] == ["b", "b"]


async def test_a_replica_that_says_it_is_unhealthy_is_given_up_only_after_a_minute(trio: Team) -> None:
    """It may come to itself; one that does not answer will not."""
    trio["b"].service.health = Health.UNHEALTHY
    async with trio.checker():
        await trio.clock.advance(50.0)
        assert trio.health("b") is Health.UNHEALTHY
        assert trio.given_up == []
        await trio.clock.advance(20.0)
        assert [name for name, _ in trio.given_up] == ["b"]


async def test_a_slow_replica_is_degraded_and_goes_on_being_called(trio: Team) -> None:
    trio["b"].slow(1.5)
    async with trio.checker():
        await trio.clock.advance(2 * PROBES.interval_s)
        assert trio.health("b") is Health.DEGRADED
        trio["b"].recover()
        assert await trio.calls(100) == {"a", "b", "c"}


async def test_a_replica_whose_calls_fail_is_degraded_though_its_probes_are_answered(trio: Team) -> None:
    async with trio.checker() as checker:
        trio["b"].fail()
        await trio.calls(60)
        await trio.clock.advance(2 * PROBES.interval_s)
        assert trio.health("b") is Health.DEGRADED
        report = checker.report("b")
        assert report is not None
        assert report.details["reason"].endswith("calls failed")


async def test_failures_of_long_ago_do_not_count(trio: Team) -> None:
    """Numbers that nobody renews are no numbers: without calls, only probes say how a replica is."""
    async with trio.checker() as checker:
        trio["b"].fail()
        await trio.calls(60)
        await trio.clock.advance(2 * PROBES.interval_s)
        assert trio.health("b") is Health.DEGRADED
        trio["b"].recover()
        await trio.clock.advance(PROBES.window_s + 4 * PROBES.interval_s)
        assert trio.health("b") is Health.HEALTHY
        report = checker.report("b")
        assert report is not None
        assert (report.status, report.error_count) == (Health.HEALTHY, 0)


async def test_a_busy_replica_whose_probe_is_late_is_degraded_not_dead(trio: Team) -> None:
    """Who answers calls lives: to take it out would give its calls to others that are as busy."""

    async def never() -> ServiceHealth:
        await trio.clock.sleep(PROBES.timeout_s)
        raise TimeoutError("the probe waited in line")

    trio["b"].service.check_health = never
    async with trio.checker():
        for _ in range(20):
            await trio.calls(9)
            await trio.clock.advance(PROBES.interval_s / 4)
        assert trio.health("b") is Health.DEGRADED
        assert trio.given_up == []


async def test_a_replica_that_leaks_memory_is_given_up_when_it_is_over_its_limit(trio: Team) -> None:
    async with trio.checker(memory_limit_bytes=1000):
        trio["b"].used = Usage(cpu_percent=5.0, memory_bytes=950)
        await trio.clock.advance(2 * PROBES.interval_s)
        assert trio.health("b") is Health.DEGRADED
        trio["b"].used = Usage(cpu_percent=5.0, memory_bytes=1100)
        await trio.clock.advance(2 * PROBES.interval_s + PROBES.health.unhealthy_s + PROBES.interval_s)
        assert [name for name, _ in trio.given_up] == ["b"]
        assert "110 % of the memory" in trio.given_up[0][1]


async def test_usage_reaches_who_picks(trio: Team) -> None:
    trio["b"].used = Usage(cpu_percent=70.0, memory_bytes=500)
    async with trio.checker(memory_limit_bytes=1000):
        await trio.clock.advance(PROBES.interval_s)
    view = next(view for view in trio.set.views(trio.clock.monotonic()) if view.id == "b")
    assert (view.cpu_usage, view.memory_usage) == (70.0, 50.0)


async def test_a_replica_that_comes_is_probed_and_one_that_goes_is_forgotten(trio: Team) -> None:
    async with trio.checker() as checker:
        await trio.clock.advance(PROBES.interval_s)
        trio.add("d")
        trio.remove("a")
        await trio.clock.advance(2 * PROBES.interval_s)
        assert checker.report("d") is not None
        assert checker.report("a") is None


async def test_a_replica_that_goes_while_it_is_asked_is_not_judged(trio: Team) -> None:
    trio["a"].hang()
    async with trio.checker() as checker:
        await trio.clock.advance(1.0)
        trio.remove("a")
        await trio.clock.advance(2.0)
        assert checker.report("a") is None


@pytest.mark.parametrize("answer", [None, 7, ValueError("no such verb")])
async def test_a_probe_that_answers_nonsense_is_a_bad_probe(trio: Team, answer: Any) -> None:
    async def nonsense() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    trio["b"].service.check_health = nonsense
    async with trio.checker():
        await trio.clock.advance(2 * PROBES.interval_s)
        assert trio.health("b") is Health.UNHEALTHY
        assert trio.health("a") is Health.HEALTHY


async def test_a_full_replica_is_degraded_not_dead(trio: Team) -> None:
    async def full() -> ServiceHealth:
        raise NotReady("64 calls are in flight")

    trio["b"].service.check_health = full
    async with trio.checker():
        await trio.clock.advance(2 * PROBES.interval_s)
        assert trio.health("b") is Health.DEGRADED
        assert trio.health("a") is Health.HEALTHY


async def test_a_probe_brings_back_a_replica_that_a_lost_call_put_down(trio: Team) -> None:
    """The loss may be of something behind it: only its probes know."""
    trio.set.note_health("b", Health.UNHEALTHY, 0.0)
    async with trio.checker():
        await trio.clock.advance(PROBES.interval_s)
        assert trio.health("b") is Health.HEALTHY


async def test_flapping_probes_change_nothing(trio: Team) -> None:
    async with trio.checker():
        for turn in range(20):
            trio["b"].service.health = Health.UNHEALTHY if turn % 2 else Health.HEALTHY
            await trio.clock.advance(PROBES.interval_s)
        assert trio.recorded.actions == []


async def test_every_change_is_recorded_with_what_it_can_be_judged_by_again(trio: Team) -> None:
    async with trio.checker():
        trio["b"].hang()
        await trio.clock.advance(3 * PROBES.interval_s)
    assert trio.recorded.actions == ["health_changed", "given_up"]
    for event in trio.recorded.events:
        assert event["replica"] == "b"
        assert event["policy"] == "health.judge"
        assert judge(**event["inputs"]) == event["decision"]
        assert event["reason"] == event["decision"].reason


async def test_it_stops_when_it_is_left_in_the_middle_of_a_probe(trio: Team) -> None:
    for replica in trio.replicas.values():
        replica.hang()
    async with trio.checker() as checker:
        await trio.clock.advance(1.0)
        assert checker.alive
    assert not checker.alive
    await settle()
    assert len(asyncio.all_tasks()) == 1


async def test_a_supervisor_that_fails_does_not_end_the_probes(trio: Team) -> None:
    async def broken(replica_id: str, reason: str) -> None:
        raise RuntimeError("told to fail")

    trio["b"].hang()
    checker = trio.checker(replace(PROBES, health=HealthSettings(missed_probes=2)))
    checker._on_unhealthy = broken
    async with checker:
        await trio.clock.advance(5 * PROBES.interval_s)
        assert checker.alive
        assert trio["a"].checks >= 5
