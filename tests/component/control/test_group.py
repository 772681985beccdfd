"""The replicas of one service: ready before they count, started again when they end, drained before they go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from ragworks.control.group import Group, GroupSettings
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import Replica, ReplicaSpec
from ragworks.errors import CannotStart, ModelMissing
from ragworks.policies import restarting
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.testing import FakeClock, ManualReplica, ManualRuntime, NamedService, settle
from ragworks.types import Health, Life, ServiceHealth
from team import Recorded

SPEC = ReplicaSpec("embeddings_service", NamedService, ("one",), "mine", "7")


class Bench:
    def __init__(self, clock: FakeClock, *script: Exception | None, **limits: Any) -> None:
        self.clock, self.recorded, self.runtime = clock, Recorded(), ManualRuntime(clock, *script)
        prove = limits.pop("prove", None)
        replicas = ReplicaSet(BalanceSettings(slow_start_s=0.0), EjectSettings(), Random(3))
        more = {"prove": prove} if prove else {}
        self.group = Group(
            SPEC, self.runtime, replicas, clock, Random(5), GroupSettings(**limits), record=self.recorded, **more
        )

    @property
    def alive(self) -> list[ManualReplica]:
        return [one for one in self.runtime.replicas.values() if not one.dead]


@asynccontextmanager
async def bench(*script: Exception | None, **limits: Any) -> AsyncIterator[Bench]:
    made = Bench(FakeClock(), *script, **limits)
    try:
        yield made
    finally:
        stopping = asyncio.create_task(made.group.stop())
        await made.clock.advance(60)
        await stopping


async def test_replicas_serve_once_each_was_tried_and_say_what_they_run() -> None:
    async with bench(instances=2) as at:
        await at.group.start()
        assert await at.group.balancer.call("any") == "one"
        assert at.group.health() == (Health.HEALTHY, "")
        assert at.group.stats()["picks"] == 1
        assert {one.queue_size for one in at.group.reports()} == {0}
        assert [(one.id, one.status, one.life, one.implementation, one.version) for one in at.group.reports()] == [
            (f"embeddings_service-{n}", "healthy", Life.READY, "mine", "7") for n in (0, 1)
        ]
    assert at.alive == []
    assert at.group.reports() == ()
    await at.group.stop()


async def test_one_that_does_not_start_leaves_the_others_to_serve_and_is_tried_on() -> None:
    missing = ModelMissing("install it")
    async with bench(missing, None, missing, instances=2) as at:
        await at.group.start()
        await settle()
        status, why = at.group.health()
        assert (status, why[:26]) == (Health.DEGRADED, "1 of 2 replicas are well: ")
        assert "install it" in why
        assert at.group.hopeful()
        await at.clock.advance(5)
        assert at.group.health()[0] is Health.HEALTHY


async def test_when_none_starts_the_first_error_is_raised_and_nothing_is_left() -> None:
    async with bench(ModelMissing("install it"), ModelMissing("install it"), instances=2) as at:
        with pytest.raises(ModelMissing, match="install it"):
            await at.group.start()
        assert (at.group.size, at.clock.sleepers) == (0, 0)
        await at.group.start()
        assert len(at.alive) == 2


async def test_a_replica_that_is_not_fit_to_serve_beside_the_others_is_ended_and_never_counts() -> None:
    async def same(replica: Replica) -> None:
        raise CannotStart("another fingerprint")

    async with bench(prove=same) as at:
        with pytest.raises(CannotStart, match="another fingerprint"):
            await at.group.start()
        assert at.runtime.starts >= 1
        assert at.alive == []


async def test_one_that_calls_itself_unhealthy_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ill(self: NamedService) -> ServiceHealth:
        return ServiceHealth("x", Health.UNHEALTHY, details={"reason": "no model"})

    monkeypatch.setattr(NamedService, "check_health", ill)
    async with bench() as at:
        with pytest.raises(CannotStart, match="embeddings_service-0 started, but is not healthy: no model"):
            await at.group.start()
        assert at.alive == []


async def test_a_replica_that_dies_is_replaced_at_once_and_its_calls_go_on() -> None:
    async with bench() as at:
        await at.group.start()
        first = at.alive[0]
        first.slow(1.0)
        call = asyncio.create_task(at.group.balancer.call("any"))
        await settle()
        first.die("was killed by SIGKILL")
        await at.clock.advance(1)
        assert await call == "one"
        assert [one.id for one in at.alive] == ["embeddings_service-1"]
        assert [event["action"] for event in at.recorded.events if event["action"].startswith("replica")] == [
            "replica_started",
            "replica_ended",
            "replica_restarts",
            "replica_started",
        ]
        ended, again = at.recorded.events[-3:-1]
        assert ended["reason"] == "was killed by SIGKILL"
        inputs = dict(again["inputs"])
        assert restarting.decide(**{**inputs, "rng": Random(inputs["rng"])}) == again["decision"]


async def test_a_crash_loop_backs_off_is_named_and_no_longer_hoped_for() -> None:
    async with bench() as at:
        await at.group.start()
        for _ in range(30):
            for replica in at.alive:
                replica.die("was killed by SIGSEGV")
            await at.clock.advance(10)
        assert at.runtime.starts < 20
        status, why = at.group.health()
        assert status is Health.UNHEALTHY
        assert "crash looping" in why
        assert "SIGSEGV" in why
        assert not at.group.hopeful()
        why, wait_s = at.group.absence()
        assert "crash looping" in why
        assert 0 < wait_s <= 60


async def test_scaling_up_starts_before_it_counts_and_down_drains_before_it_stops() -> None:
    async with bench(max_instances=3) as at:
        await at.group.start()
        at.runtime.takes_s = 2.0
        growing = asyncio.create_task(at.group.scale(3))
        await at.clock.advance(1)
        assert (len(at.group.handles), [one.status for one in at.group.reports()][1:]) == (1, ["starting"] * 2)
        await at.clock.advance(1)
        await growing
        assert len(at.group.handles) == 3
        for replica in at.alive:
            replica.slow(1.5)
        calls = [asyncio.create_task(at.group.balancer.call("any")) for _ in range(3)]
        await settle()
        shrinking = asyncio.create_task(at.group.scale(1))
        await settle()
        assert [one.status for one in at.group.reports()].count("draining") == 2
        assert (at.group.size, at.group.health()) == (1, (Health.HEALTHY, ""))  # it is as it should be
        late = asyncio.create_task(at.group.balancer.call("any"))
        await at.clock.advance(6)
        await shrinking
        assert await asyncio.gather(*calls, late) == ["one"] * 4
        assert len(at.alive) == 1


async def test_who_does_not_serve_is_the_first_to_go() -> None:
    async with bench(None, ModelMissing("no"), instances=2) as at:
        await at.group.start()
        await at.group.scale(1)
        assert [one.id for one in at.alive] == list(at.group.handles)
        assert at.group.health() == (Health.HEALTHY, "")


async def test_stopping_does_not_wait_for_a_start_that_hangs() -> None:
    async with bench() as at:
        await at.group.start()
        at.runtime.takes_s = 1e6
        growing = asyncio.create_task(at.group.scale(2))
        await settle()
        await at.group.stop()
        await growing
        assert (at.alive, at.group.size) == ([], 0)


async def test_one_that_hangs_is_killed_and_replaced_with_the_reason() -> None:
    async with bench() as at:
        await at.group.start()
        at.alive[0].hang()
        call = asyncio.create_task(at.group.balancer.call("any"))
        await settle()
        await at.group.replace("embeddings_service-0", "three probes without an answer")
        await at.group.replace("embeddings_service-0", "three probes without an answer")
        await at.clock.advance(1)
        assert await call == "one"
        killed = [event for event in at.recorded.events if event["action"] == "replica_killed"]
        assert [event["reason"] for event in killed] == ["three probes without an answer"]
