"""Asks every replica of a service how it is, again and again, and tells who picks among them and who replaces them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import structlog

from ragworks.control.replicas import ReplicaSet
from ragworks.control.traffic import Traffic
from ragworks.control_protocols import Record, Replica, unrecorded
from ragworks.errors import NotReady
from ragworks.policies.health import HealthSettings, HealthState, Judgement, Seen, judge
from ragworks.protocols import Clock
from ragworks.types import Health, ServiceHealth

log = structlog.get_logger("ragworks.health")

OnUnhealthy = Callable[[str, str], Awaitable[None]]
"""Told the id of a replica that should be replaced, and why; told again while that has no effect."""


async def left_alone(replica_id: str, reason: str) -> None:
    """An OnUnhealthy that replaces nothing."""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Every replica is asked once each ``interval_s``, at a time of its own within ``jitter`` of it, and has
    ``timeout_s`` to answer: together less than the interval, so that a hung replica holds up no other's next probe.

    Calls count for ``window_s``.
    """

    interval_s: float = 2.5
    timeout_s: float = 2.0
    jitter: float = 0.1
    window_s: float = 30.0
    health: HealthSettings = field(default_factory=HealthSettings)


@dataclass(slots=True)
class _Known:
    """What is known of one replica: how it is, and its traffic as it stood at the end of each round of the window."""

    state: HealthState
    rounds: deque[tuple[float, Traffic]]
    report: ServiceHealth | None = None

    def lately(self) -> Traffic:
        return self.rounds[-1][1] - self.rounds[0][1]


class HealthChecker:
    """Probes ``handles`` while it is entered. ``traffic`` tells what a replica was called for since it came;
    ``memory_limit_bytes`` is what one may use, None where nothing says so.

    ``record`` hears of each change, with what it was judged by; ``on_unhealthy`` of replicas to replace.
    """

    def __init__(
        self,
        service: str,
        replicas: ReplicaSet,
        handles: Mapping[str, Replica],
        traffic: Callable[[str], Traffic],
        clock: Clock,
        rng: Random,
        settings: ProbeSettings | None = None,
        record: Record = unrecorded,
        on_unhealthy: OnUnhealthy = left_alone,
        memory_limit_bytes: int | None = None,
    ) -> None:
        self._service, self._replicas, self._handles, self._traffic = service, replicas, handles, traffic
        self._clock, self._rng, self._settings = clock, rng, settings or ProbeSettings()
        self._record, self._on_unhealthy = record, on_unhealthy
        self._memory_limit_bytes = memory_limit_bytes
        self._known: dict[str, _Known] = {}
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> HealthChecker:
        # Awaited by __aexit__.
        self._watching = asyncio.create_task(self._watch(), name=f"health-{self._service}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    @property
    def alive(self) -> bool:
        return self._watching is not None and not self._watching.done()

    def report(self, replica_id: str) -> ServiceHealth | None:
        """How a replica is as of its last probe, ``details["reason"]`` says why; None before the first."""
        known = self._known.get(replica_id)
        return known.report if known else None

    async def _watch(self) -> None:
        while True:
            due = self._clock.monotonic() + self._settings.interval_s
            self._known = {name: known for name, known in self._known.items() if name in self._handles}
            async with asyncio.TaskGroup() as probes:
                for replica in list(self._handles.values()):
                    probes.create_task(self._check(replica), name=f"probe-{replica.id}")
            await self._clock.sleep(due - self._clock.monotonic())

    async def _check(self, replica: Replica) -> None:
        settings = self._settings
        await self._clock.sleep(settings.interval_s * settings.jitter * self._rng.random())
        try:
            seen, details = await self._probe(replica)
            if self._handles.get(replica.id) is replica:
                await self._judge(replica, seen, details)
        except Exception as error:  # the others must still be probed
            log.exception(
                "probe_failed", action="probe_failed", service=self._service, replica=replica.id, error=repr(error)
            )

    async def _probe(self, replica: Replica) -> tuple[Seen, Mapping[str, Any]]:
        began, before = self._clock.monotonic(), self._traffic(replica.id)
        try:
            found: ServiceHealth = await replica.call("check_health", timeout_s=self._settings.timeout_s)
            probe_s, detail = self._clock.monotonic() - began, str(found.details.get("reason", "it gives no reason"))
            return Seen(answered=True, said=found.status, detail=detail, probe_s=probe_s), found.details
        except NotReady as error:  # it has more calls than it takes, and said so: it is there
            return Seen(answered=True, said=Health.DEGRADED, detail=str(error)), {}
        except Exception as error:  # a probe that fails is an answer, too
            meanwhile = self._traffic(replica.id) - before
            return Seen(answered=False, detail=str(error) or repr(error), meanwhile=meanwhile.good), {}

    async def _judge(self, replica: Replica, seen: Seen, details: Mapping[str, Any]) -> None:
        now = self._clock.monotonic()
        known = self._known.setdefault(replica.id, _Known(HealthState(since=now), deque([(now, Traffic())])))
        seen = self._with_traffic(replica, known, self._with_usage(replica, seen), now)
        inputs = {"settings": self._settings.health, "state": known.state, "seen": seen, "now": now}
        judgement = judge(self._settings.health, known.state, seen, now)
        before, known.state = known.state.health, judgement.state
        known.report = ServiceHealth(
            self._service,
            judgement.health,
            response_time_ms=1000 * (seen.probe_s or 0.0),
            error_count=seen.failed,
            last_check=self._clock.now(),
            details={**details, "reason": judgement.reason},
        )
        # Each round, not only when it changes: a balancer that lost a call may have put it down meanwhile.
        self._replicas.note_health(replica.id, judgement.health, now)
        if judgement.health is not before:
            self._tell("health_changed", replica, judgement, inputs)
        if judgement.give_up:
            self._tell("given_up", replica, judgement, inputs)
            await self._on_unhealthy(replica.id, judgement.reason)

    def _tell(self, action: str, replica: Replica, judgement: Judgement, inputs: Mapping[str, Any]) -> None:
        self._record(
            action,
            reason=judgement.reason,
            replica=replica.id,
            policy="health.judge",
            inputs=inputs,
            decision=judgement,
        )

    def _with_usage(self, replica: Replica, seen: Seen) -> Seen:
        usage, limit = replica.usage(), self._memory_limit_bytes
        known = limit and usage.memory_bytes is not None
        memory_percent = 100.0 * (usage.memory_bytes or 0) / (limit or 1) if known else None
        self._replicas.note_usage(replica.id, usage.cpu_percent, memory_percent)
        return replace(seen, memory_percent=memory_percent)

    def _with_traffic(self, replica: Replica, known: _Known, seen: Seen, now: float) -> Seen:
        known.rounds.append((now, self._traffic(replica.id)))
        while len(known.rounds) > 1 and now - known.rounds[0][0] > self._settings.window_s:
            known.rounds.popleft()
        lately = known.lately()
        peers = tuple(
            other.response_s
            for name, one in self._known.items()
            if name != replica.id
            and (other := one.lately()).good >= self._settings.health.min_calls
            and other.response_s is not None
        )
        return replace(
            seen, calls=lately.calls, failed=lately.failed, response_s=lately.response_s, peers_response_s=peers
        )
