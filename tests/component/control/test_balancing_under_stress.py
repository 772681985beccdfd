"""Replicas come, go, hang, fail, slow down and die at random while calls run and are cancelled: what always holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ragworks.errors import InvalidInput, NotReady, ReplicaLost
from ragworks.policies.balancing import STRATEGIES
from ragworks.policies.calling import CallSettings, HedgeSettings
from ragworks.policies.ejecting import EjectSettings
from ragworks.policies.retrying import BudgetSettings
from ragworks.testing import ManualReplica, settle
from ragworks.types import Health, Life
from team import Team

CALLS = CallSettings(max_waiting=5, budget=BudgetSettings(share=0.1, most=2.0))
HEDGED = replace(CALLS, hedge=HedgeSettings(quantile=0.5, share=0.1, min_calls=2))
"""Calls that may be asked twice; those that are not may be moved."""
ERRORS = (NotReady, ReplicaLost, TimeoutError, InvalidInput, ValueError)
numbers = st.integers(0, 1000)


class Balancing(RuleBasedStateMachine):
    """``started`` calls may have earned retries; ``losses`` of replicas under way cost none."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.running: list[asyncio.Task[Any]] = []
        self.gone: list[tuple[ManualReplica, int]] = []
        self.started = self.losses = self.made = 0

    @initialize(
        strategy=st.sampled_from(list(STRATEGIES)), count=st.integers(0, 4), calls=st.sampled_from((CALLS, HEDGED))
    )
    def begin(self, strategy: str, count: int, calls: CallSettings) -> None:
        self.team = Team("", strategy, calls, ejecting=EjectSettings())
        for _ in range(count):
            self.add(2)

    def run(self, work: Callable[[], Awaitable[Any]]) -> None:
        async def settled() -> None:
            await work()
            await settle()

        self.loop.run_until_complete(settled())

    def one(self, number: int) -> ManualReplica:
        replicas = list(self.team.replicas.values())
        return replicas[number % len(replicas)]

    def end(self, replica: ManualReplica) -> None:
        self.losses += 0 if replica.dead else replica.in_flight
        replica.die()

    def some(self) -> bool:
        return bool(self.team.replicas)

    @rule(slots=st.integers(1, 4))
    def add(self, slots: int) -> None:
        self.made += 1

        async def work() -> None:
            self.team.add(f"r{self.made}", slots)

        self.run(work)

    @precondition(some)
    @rule(number=numbers)
    def remove(self, number: int) -> None:
        """Gone at once, as a supervisor notices a death."""

        async def work() -> None:
            replica = self.one(number)
            self.end(replica)
            self.team.remove(replica.id)
            self.gone.append((replica, len(replica.calls) + replica.calls_when_dead))

        self.run(work)

    @precondition(some)
    @rule(number=numbers)
    def drain(self, number: int) -> None:
        async def work() -> None:
            self.team.set.drain(self.one(number).id)

        self.run(work)

    @precondition(some)
    @rule(number=numbers, how=st.sampled_from(("hang", "fail", "blame the caller", "slow", "recover", "die")))
    def behave(self, number: int, how: str) -> None:
        async def work() -> None:
            replica = self.one(number)
            {
                "hang": replica.hang,
                "fail": replica.fail,
                "blame the caller": lambda: replica.fail(InvalidInput("no text")),
                "slow": lambda: replica.slow(1.0 + number % 7),
                "recover": replica.recover,
                "die": lambda: self.end(replica),
            }[how]()

        self.run(work)

    @precondition(some)
    @rule(number=numbers, health=st.sampled_from(list(Health)))
    def note_health(self, number: int, health: Health) -> None:
        async def work() -> None:
            replica = self.one(number)
            if not replica.dead:
                self.team.set.note_health(replica.id, health, self.team.clock.monotonic())

        self.run(work)

    @rule(
        count=st.integers(1, 5),
        idempotent=st.booleans(),
        timeout_s=st.none() | st.floats(0.1, 20),
        streamed=st.booleans(),
    )
    def call(self, count: int, idempotent: bool, timeout_s: float | None, streamed: bool) -> None:
        safe, before = self._somebody_is_well(), self._asked_of_the_known_dead()

        async def streaming() -> int:
            return len([one async for one in self.team.balancer.stream("ten", timeout_s=timeout_s)])

        async def work() -> None:
            for _ in range(count):
                work = (
                    streaming()
                    if streamed
                    else self.team.balancer.call("name", cost=1.0, idempotent=idempotent, timeout_s=timeout_s)
                )
                self.running.append(asyncio.ensure_future(work))

        self.started += count
        self.run(work)
        if safe:
            after = self._asked_of_the_known_dead()
            assert {name: after[name] for name in before if name in after} == before

    def _somebody_is_well(self) -> bool:
        """Whether a replica would answer a call at once, and the set knows nothing against it."""
        ready = {
            view.id
            for view in self.team.set.views(self.team.clock.monotonic())
            if view.life is Life.READY and view.health is Health.HEALTHY
        }
        return any(one.id in ready and one.well for one in self.team.replicas.values())

    def _asked_of_the_known_dead(self) -> dict[str, int]:
        """The dead that a call has found dead, and how many calls did."""
        return {one.id: one.calls_when_dead for one in self.team.replicas.values() if one.calls_when_dead}

    @precondition(lambda self: self.running)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        async def work() -> None:
            self.running[number % len(self.running)].cancel()

        self.run(work)

    @rule(seconds=st.floats(0.01, 15))
    def advance(self, seconds: float) -> None:
        self.run(lambda: self.team.clock.advance(seconds))

    @invariant()
    def calls_that_ended_ended_well_or_with_a_reason(self) -> None:
        for task in [task for task in self.running if task.done()]:
            self.running.remove(task)
            if not task.cancelled():
                error = task.exception()
                assert error is None or isinstance(error, ERRORS), error

    @invariant()
    def the_set_counts_what_is_in_flight(self) -> None:
        if hasattr(self, "team"):
            views = {view.id: view.active_connections for view in self.team.set.views(self.team.clock.monotonic())}
            assert views == {one.id: one.in_flight for one in self.team.replicas.values()}

    @invariant()
    def nobody_who_went_is_called(self) -> None:
        for replica, asked in self.gone:
            assert len(replica.calls) + replica.calls_when_dead == asked

    @invariant()
    def retries_and_hedges_stay_within_what_was_earned(self) -> None:
        if hasattr(self, "team"):
            stats = self.team.balancer.stats()
            assert 0 <= stats["retries_saved"] <= CALLS.budget.most
            dead = [*self.team.replicas.values(), *(replica for replica, _ in self.gone)]
            free = self.losses + sum(one.calls_when_dead for one in dead)
            assert stats["retries"] <= CALLS.budget.most + CALLS.budget.share * self.started + free
            assert stats["hedges"] <= 1 + HEDGED.hedge.share * self.started
            assert stats["waiting"] <= CALLS.max_waiting

    def teardown(self) -> None:
        """Every call ends once its replicas are well or gone, and nothing is left of any."""

        async def work() -> None:
            for replica in self.team.replicas.values():
                replica.recover()
            await self.team.clock.advance(CALLS.max_attempts * CALLS.wait_s)
            assert all(task.done() for task in self.running)
            assert self.team.active == 0
            assert self.team.balancer.stats()["waiting"] == 0
            assert len(asyncio.all_tasks()) == 1

        try:
            if hasattr(self, "team"):
                self.run(work)
                self.calls_that_ended_ended_well_or_with_a_reason()
        finally:
            self.loop.run_until_complete(self._cancelled())
            self.loop.close()

    async def _cancelled(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


TestBalancing = Balancing.TestCase
TestBalancing.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
