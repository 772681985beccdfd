"""The replicas of one service: started and proved, watched, started again when they end, drained before they go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

import structlog

from ragworks.control.balancer import Balancer
from ragworks.control.health_checker import HealthChecker, left_alone
from ragworks.control.replicas import ReplicaSet, ReplicaView
from ragworks.control_protocols import Record, Replica, ReplicaSpec, Runtime, Usage, unrecorded
from ragworks.errors import CannotStart
from ragworks.policies import restarting
from ragworks.policies.calling import CallSettings
from ragworks.policies.restarting import RestartSettings, RestartState
from ragworks.protocols import Clock
from ragworks.reports import ReplicaReport
from ragworks.types import Health, Life
from ragworks.waiting import news_or_time

log = structlog.get_logger("ragworks.group")

START_TIMEOUT_S = 120.0
"""A model is read from a slow disk in less; what takes longer hangs."""

EXPECTED_START_S = 2.0
"""What callers are told while no start has shown how long it takes."""

STOP_DRAIN_S = 5.0
"""At the end of the server: who called has drained before, and the process is killed 30 s after SIGTERM."""

Proof = Callable[[Replica], Awaitable[None]]
"""Raises what keeps a replica that has started from serving beside the others."""


async def healthy(replica: Replica) -> None:
    """The proof of a replica that needs no other: its own check does not call it unhealthy. Raises CannotStart."""
    found = await replica.call("check_health")
    if found.status is Health.UNHEALTHY:
        raise CannotStart(
            f"{replica.id} started, but is not healthy: {found.details.get('reason', 'without a reason')}"
        )


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How many replicas at start and at any time, how long calls in flight may hold one that must go, and what memory
    one may use, if anything says so. ``replace`` ends those that are unhealthy for long: of use where a new one is
    another process."""

    instances: int = 1
    min_instances: int = 1
    max_instances: int = 10
    drain_s: float = 30.0
    replace: bool = True
    memory_limit_bytes: int | None = None


@dataclass(eq=False, slots=True)
class _Member:
    """One place in the group, which is filled again and again until it is given up."""

    replica_id: str = ""
    replica: Replica | None = None
    life: Life = Life.STARTING
    note: str = ""
    error: Exception | None = None
    state: RestartState = field(default_factory=RestartState)
    crash_loop: bool = False
    due_at: float = 0.0
    drain_s: float = 0.0
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Group:
    """Keeps ``replicas`` and ``handles`` in step with what lives; ``balancer`` picks from the one and calls the other.
    A replica counts from the moment when it is proved until it drains.
    """

    balanced = True

    def __init__(
        self,
        spec: ReplicaSpec,
        runtime: Runtime,
        replicas: ReplicaSet,
        clock: Clock,
        rng: Random,
        settings: GroupSettings,
        *,
        record: Record = unrecorded,
        prove: Proof = healthy,
        restarts: RestartSettings | None = None,
        calls: CallSettings | None = None,
    ) -> None:
        self.settings, self.spec = settings, spec
        self.handles: dict[str, Replica] = {}
        self.balancer = Balancer(
            spec.service, replicas, self.handles, clock, rng, calls, record=record, absence=self.absence
        )
        self._checker = HealthChecker(
            spec.service, replicas, self.handles, self.balancer.traffic, clock, rng, record=record,
            on_unhealthy=self.replace if settings.replace else left_alone,
            memory_limit_bytes=settings.memory_limit_bytes,
        )  # fmt: skip
        self._runtime, self._replicas, self._clock, self._rng = runtime, replicas, clock, rng
        self._record, self._prove = record, prove
        self._restarting = restarts or RestartSettings()
        self._members: list[_Member] = []
        self._numbers = count()
        self._scaling = asyncio.Lock()
        self._start_s = EXPECTED_START_S

    @property
    def size(self) -> int:
        """Replicas that there should be: those that drain are there no longer."""
        return len(self._staying)

    @property
    def _staying(self) -> list[_Member]:
        return [member for member in self._members if not member.leaving.is_set()]

    async def start(self) -> None:
        """Returns when each replica has been tried and at least one serves; the others are tried on.

        Raises what kept the first from serving if none does; then nothing is left of it.
        """
        async with self._scaling:
            await self._hire(self.settings.instances - self.size)
            if self.handles:
                if not self._checker.alive:
                    await self._checker.__aenter__()
                return
            errors = [member.error for member in self._members if member.error]
            await self._retire(list(self._members), STOP_DRAIN_S)
        raise errors[0] if errors else CannotStart(f"no replica of {self.spec.service} serves")

    @property
    def bounds(self) -> tuple[int, int]:
        return self.settings.min_instances, self.settings.max_instances

    async def scale(self, instances: int) -> None:
        """Returns when new replicas have been tried, or those that are too many have drained."""
        async with self._scaling:
            missing = instances - self.size
            await self._hire(missing)
            await self._retire(sorted(self._staying, key=self._worth)[: max(0, -missing)], self.settings.drain_s)

    async def stop(self) -> None:
        """Drain and let go of every replica. Harmless when called twice."""
        self._give_up(self._members, STOP_DRAIN_S)  # first: a start that hangs holds the lock
        async with self._scaling:
            await self._checker.__aexit__(None, None, None)
            await self._retire(list(self._members), STOP_DRAIN_S)

    async def replace(self, replica_id: str, reason: str) -> None:
        """End a replica that does not answer any more; its place is filled again."""
        if replica := self.handles.pop(replica_id, None):  # no call finds it any more
            self._record("replica_killed", reason=reason, replica=replica_id)
            await replica.kill()

    def absence(self) -> tuple[str, float]:
        """Why no replica can be called, and in how many seconds one is expected."""
        now = self._clock.monotonic()
        waits = [max(0.0, member.due_at - now) + self._start_s for member in self._members]
        return self._notes() or "it is starting", min(waits, default=self._start_s)

    def health(self) -> tuple[Health, str]:
        """Of the service as its callers meet it, and why it is not healthy."""
        views = [view for view in self._replicas.views(self._clock.monotonic()) if view.life is not Life.DRAINING]
        well = [view for view in views if view.health is Health.HEALTHY and view.life is Life.READY]
        if len(well) >= self.size > 0:
            return Health.HEALTHY, ""
        notes = self._notes()
        why = f"{len(well)} of {self.size} replicas are well" + (f": {notes}" if notes else "")
        serving = any(view.health is not Health.UNHEALTHY for view in views)
        return (Health.DEGRADED if serving else Health.UNHEALTHY), why

    def hopeful(self) -> bool:
        """Whether a replica serves, or may be expected to within seconds."""
        return any(member.replica is not None or not member.crash_loop for member in self._members)

    def reports(self) -> tuple[ReplicaReport, ...]:
        """Each replica as ``/v1/services`` shows it, those that are not up yet included."""
        views = {view.id: view for view in self._replicas.views(self._clock.monotonic())}
        return tuple(self._report(member, views.get(member.replica_id)) for member in self._members)

    def stats(self) -> Mapping[str, float]:
        return self.balancer.stats()

    def usages(self) -> Mapping[str, Usage]:
        """What the process of each replica takes, as far as it is known."""
        return {name: replica.usage() for name, replica in self.handles.items()}

    # mechanism

    def _notes(self) -> str:
        return "; ".join(sorted({member.note for member in self._members if member.note}))

    def _worth(self, member: _Member) -> tuple[bool, int]:
        """Who goes first when there are too many: who does not serve yet, then who has least to do."""
        active = {view.id: view.active_connections for view in self._replicas.views(self._clock.monotonic())}
        return member.replica is not None, active.get(member.replica_id, 0)

    async def _hire(self, many: int) -> None:
        """Fill so many more places; returns when each has been tried once."""
        new = [_Member() for _ in range(max(0, many))]
        for member in new:
            self._members.append(member)
            # Ended by _retire, which stop calls. In a context of its own: it outlives the request that asked for it.
            member.task = asyncio.create_task(
                self._keep(member), name=f"replica of {self.spec.service}", context=Context()
            )
        await asyncio.gather(*(member.tried.wait() for member in new))

    async def _retire(self, members: list[_Member], drain_s: float) -> None:
        """Give up these places; returns when nothing is left of them."""
        self._give_up(members, drain_s)
        if tasks := [member.task for member in members if member.task]:
            await asyncio.wait(tasks)
        self._members = [member for member in self._members if member not in members]

    def _give_up(self, members: list[_Member], drain_s: float) -> None:
        """Who serves drains, who starts or waits to start is cancelled."""
        for member in members:
            member.drain_s = drain_s
            member.leaving.set()
            if member.replica is None and member.task:
                member.task.cancel()

    async def _keep(self, member: _Member) -> None:
        try:
            while not member.leaving.is_set():
                try:
                    ended = await self._live(member)
                except Exception as error:  # a place that nobody fills any more would be missed by nobody
                    log.exception("replica_not_supervised", action="replica_not_supervised", service=self.spec.service)
                    ended = repr(error)
                if not member.leaving.is_set():
                    await self._pause(member, ended)
        finally:
            member.life = Life.STOPPED
            member.tried.set()

    async def _live(self, member: _Member) -> str:
        """One replica from its start to its end, and why it ended."""
        member.replica_id, member.life = f"{self.spec.service}-{next(self._numbers)}", Life.STARTING
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                replica = await self._proved(member.replica_id)
        except Exception as error:  # whatever it is: the others serve, and this is tried again
            member.error = error
            return f"it did not start: {str(error) or type(error).__name__}"
        self._start_s = self._clock.monotonic() - began
        try:
            self._join(member, replica, f"ready after {self._start_s:.1f} s")
            return await self._watch(member, replica)
        except BaseException:  # a fault of ours: nobody else would end it
            await asyncio.shield(replica.kill())
            raise
        finally:
            self._replicas.remove(replica.id)
            self.handles.pop(replica.id, None)
            member.replica = None

    async def _proved(self, replica_id: str) -> Replica:
        replica = await self._runtime.start(self.spec, replica_id)
        try:
            await self._prove(replica)
        except BaseException:  # also when cancelled: nobody else would end it
            await asyncio.shield(replica.kill())
            raise
        return replica

    def _join(self, member: _Member, replica: Replica, reason: str) -> None:
        self._replicas.add(replica.id, self._clock.monotonic(), slots=replica.slots)
        self.handles[replica.id] = replica
        member.replica, member.life, member.note, member.error = replica, Life.READY, "", None
        member.state, member.crash_loop = restarting.started(member.state, self._clock.monotonic()), False
        member.tried.set()
        self.balancer.changed()
        seen = {"pid": replica.pid, "implementation": self.spec.implementation, "version": self.spec.version}
        self._record("replica_started", reason=reason, replica=replica.id, inputs=seen)

    async def _watch(self, member: _Member, replica: Replica) -> str:
        """Until the replica is gone: by itself, or because its place is given up."""
        # Both end here, or are cancelled here.
        ended = asyncio.create_task(replica.ended(), name=f"end of {replica.id}")
        leaving = asyncio.create_task(member.leaving.wait(), name=f"leave of {replica.id}")
        try:
            await asyncio.wait({ended, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                self._record("replica_ended", reason=ended.result(), replica=replica.id)
                return ended.result()
            member.life = Life.DRAINING
            self._replicas.drain(replica.id)
            await replica.stop(member.drain_s)
            self._record("replica_stopped", reason="drained", replica=replica.id)
            return "drained"
        finally:
            ended.cancel()
            leaving.cancel()

    async def _pause(self, member: _Member, reason: str) -> None:
        """As long as the policy says, before its place is filled again."""
        now, seed = self._clock.monotonic(), self._rng.getrandbits(32)
        member.state = restarting.ended(self._restarting, member.state, now, reason)
        member.state = replace(member.state, others_up=len(self.handles))
        decision = restarting.decide(self._restarting, member.state, now, Random(seed))
        member.note, member.crash_loop = decision.reason, decision.crash_loop
        member.due_at = now + (decision.delay_s or 0.0)
        self._record(
            "replica_restarts",
            reason=decision.reason,
            replica=member.replica_id,
            policy="restarting.decide",
            inputs={"settings": self._restarting, "state": member.state, "now": now, "rng": seed},
            decision=decision,
        )
        member.tried.set()
        await news_or_time(member.leaving, self._clock, decision.delay_s)

    def _report(self, member: _Member, view: ReplicaView | None) -> ReplicaReport:
        replica = member.replica
        life = view.life if view and replica else member.life
        report = ReplicaReport(
            id=member.replica_id,
            pid=replica.pid if replica else None,
            status=view.health if view and replica and life is Life.READY else life,
            version=self.spec.version,
            implementation=self.spec.implementation,
            life=life,
            note=member.note,
        )
        return view.measured(report) if view else report
