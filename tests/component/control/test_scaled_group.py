"""A service that is scaled by its load: its orchestrator, group, balancer and scaler as the server joins them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from types import SimpleNamespace

import pytest

from ragworks.control.group import Group, GroupSettings
from ragworks.control.orchestrator import Orchestrator, Registration
from ragworks.control.replicas import ReplicaSet
from ragworks.control_protocols import ReplicaSpec
from ragworks.errors import InvalidInput, ModelMissing
from ragworks.policies.balancing import BalanceSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.policies.replaying import encoded, replay
from ragworks.scalers import engines_scaler
from ragworks.settings_scaling import ScalingSettings
from ragworks.testing import FakeClock, ManualRuntime, NamedService, settle
from team import Recorded

NAME = "embeddings_service"


class Bench:
    """One service of 1 to 4 replicas, and calls to it that take 2 s of the clock each."""

    def __init__(self, cores: int = 8) -> None:
        self.clock, self.told = FakeClock(), Recorded()
        self.runtime = ManualRuntime(self.clock)
        replicas = ReplicaSet(BalanceSettings(slow_start_s=0.0), EjectSettings(), Random(3))
        limits = GroupSettings(1, 1, 4)
        spec = ReplicaSpec(NAME, NamedService, ("one",))
        self.group = Group(spec, self.runtime, replicas, self.clock, Random(5), limits, record=self.told)
        self.scaler = engines_scaler(ScalingSettings(), self.group, 1, cores, self.clock, self.told)
        assert self.scaler
        registry = {
            NAME: Registration(NamedService(NAME), replicas=self.group, scaler=self.scaler),
            "vector_store": Registration(NamedService("vector_store")),
        }
        self.orchestrator = Orchestrator(registry, self.clock, Random(7), lambda service: self.told)
        self.calls: list[asyncio.Task[str]] = []
        self.peak = 0

    async def load(self, at_once: int, seconds: float) -> None:
        """So many calls at once are kept under way."""
        for _ in range(int(seconds)):
            for replica in self.runtime.replicas.values():
                if not replica.dead:
                    replica.slow(2.0)
            under_way = sum(not call.done() for call in self.calls)
            self.calls += [asyncio.create_task(self.group.balancer.call("any")) for _ in range(at_once - under_way)]
            await self.clock.advance(1)
            self.peak = max(self.peak, len(self.group.handles))

    def acts(self) -> list[str]:
        return [one for one in self.told.actions if one.startswith("scale_")]

    def scaling(self) -> SimpleNamespace:
        found = self.orchestrator.report(NAME).scaling
        assert found
        return SimpleNamespace(**found)


@asynccontextmanager
async def bench(cores: int = 8) -> AsyncIterator[Bench]:
    made = Bench(cores)
    await made.orchestrator.start_services()
    try:
        yield made
    finally:
        stopping = asyncio.create_task(made.orchestrator.stop())
        await made.clock.advance(120)
        await stopping
        await asyncio.gather(*made.calls, return_exceptions=True)
    assert made.clock.sleepers == 0


async def test_it_grows_within_its_bounds_with_the_load_and_shrinks_after_a_calm_and_loses_no_call() -> None:
    async with bench() as at:
        await at.load(1, 30)
        await at.load(8, 120)
        assert (at.group.size, at.peak) == (4, 4)
        assert at.orchestrator.targets() == {NAME: 4}
        await at.load(0, 580)
        assert at.group.size == 4
        await at.load(0, 1200)
        assert at.group.size == 1
        assert all(call.result() == "one" for call in at.calls)
        acts = [one for one in at.told.events if one["action"] in ("scale_up", "scale_down")]
        assert {one["action"] for one in acts} == {"scale_up", "scale_down"}
        for one in acts:
            written = json.loads(json.dumps({name: encoded(value) for name, value in one["inputs"].items()}))
            assert replay(one["policy"], written) == encoded(one["decision"])


async def test_a_number_by_hand_holds_until_auto_is_given() -> None:
    async with bench() as at:
        await at.orchestrator.scale(NAME, 2, "by hand")
        await at.load(8, 300)
        assert (at.group.size, at.acts(), at.scaling().mode) == (2, [], "pinned")
        at.orchestrator.scale_by_load(NAME, "by hand")
        await at.load(8, 60)
        assert at.group.size == 4
        assert (at.scaling().mode, at.acts()) == ("auto", ["scale_up"])


async def test_a_number_by_hand_waits_for_the_act_under_way_and_none_follows_it() -> None:
    async with bench() as at:
        at.runtime.takes_s = 50.0
        await at.load(8, 35)
        assert at.acts() == ["scale_up"]
        by_hand = asyncio.create_task(at.orchestrator.scale(NAME, 1, "by hand"))
        await at.load(8, 300)
        await by_hand
        assert (at.group.size, at.acts()) == (1, ["scale_up"])


async def test_replicas_that_never_become_ready_are_no_reason_for_more() -> None:
    async with bench() as at:
        at.runtime.script = [ModelMissing("install it")] * 1000
        await at.load(8, 1200)
        # The one that serves turns out to be faster than was thought of the first calls.
        assert (at.acts(), at.group.size, len(at.group.handles)) == (["scale_up", "scale_down"], 3, 1)
        assert at.runtime.starts < 100  # three places, each of which is tried again more and more rarely
        report = at.orchestrator.report(NAME)
        notes = [one.note for one in report.replicas if one.note]
        assert ["crash looping" in note and "install it" in note for note in notes] == [True, True]
        assert report.health
        assert (report.health.status, "install it" in report.health.details["reason"]) == ("degraded", True)
        loops = [one for one in at.told.events if one["action"] == "replica_restarts" and one["decision"].crash_loop]
        assert loops


async def test_replicas_whose_start_hangs_are_asked_for_once_and_hold_no_call() -> None:
    async with bench() as at:
        at.runtime.takes_s = 1e6
        await at.load(1, 1200)
        await at.load(8, 1200)
        assert (len(at.group.handles), at.runtime.starts) == (1, at.group.size)
        await at.load(0, 30)
        assert all(call.result() == "one" for call in at.calls)


async def test_a_burst_of_a_second_adds_no_more_than_it_holds_and_is_forgotten_after_a_calm() -> None:
    async with bench() as at:
        await at.load(0, 100)
        await at.load(30, 1)
        await at.load(0, 120)
        assert all(call.result() == "one" for call in at.calls)
        assert len(at.acts()) <= 2
        await at.load(0, 1800)
        assert at.group.size == 1
        assert len(at.acts()) <= 4


async def test_a_replica_that_flaps_is_replaced_and_never_multiplied() -> None:
    async with bench() as at:
        await at.load(1, 700)
        before, size = len(at.acts()), at.group.size
        for _ in range(40):
            next(iter(at.group.handles.values())).die()  # type: ignore[attr-defined]
            await at.load(1, 30)
        assert at.group.size - size <= 1
        assert len(at.acts()) - before <= 2
        await asyncio.gather(*at.calls)


async def test_a_number_that_is_refused_pins_nothing() -> None:
    async with bench() as at:
        for number in (0, 5):
            with pytest.raises(InvalidInput, match="must be from 1 to 4"):
                await at.orchestrator.scale(NAME, number, "by hand")
        assert at.scaling().mode == "auto"
        await at.load(8, 90)
        assert at.group.size == 4


async def test_a_load_that_cannot_be_measured_is_told_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as at:
        with monkeypatch.context() as patch:
            patch.setattr(at.scaler._meter, "measured", lambda *_: 1 / 0)  # type: ignore[union-attr]
            await at.load(8, 300)
        assert (at.group.size, at.told.actions.count("load_unknown")) == (1, 1)
        await at.load(8, 90)
        assert at.group.size == 4


async def test_no_more_than_the_cores_can_feed() -> None:
    async with bench(cores=2) as at:
        await at.load(8, 300)
        assert at.group.size == 2
        assert "the cores can feed 2" in at.scaling().reason


async def test_what_nothing_scales_says_what_it_takes() -> None:
    async with bench() as at:
        with pytest.raises(InvalidInput, match=r"vector_store has one replica, in the server's process: "):
            at.orchestrator.scale_by_load("vector_store", "by hand")
        await settle()
