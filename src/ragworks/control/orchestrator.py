"""Starts services in the order of their dependencies, tries again where one failed, watches, stops in reverse."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

import structlog

from ragworks.control.autoscaler import Autoscaler
from ragworks.control_protocols import Record, unrecorded
from ragworks.errors import CannotStart, InvalidInput, NotReady, ServiceNotFound
from ragworks.policies import restarting
from ragworks.policies.forecasting import Foreseen
from ragworks.policies.health import BADNESS
from ragworks.policies.ordering import start_order
from ragworks.policies.restarting import RestartSettings, RestartState
from ragworks.policies.retrying import RetrySettings
from ragworks.protocols import Clock, Service
from ragworks.reports import ReplicaReport, ServiceReport
from ragworks.types import Health, Life, ServiceHealth

log = structlog.get_logger("ragworks.orchestrator")

MONITOR_EVERY_S = 5.0
CHECK_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 20.0
SEARCH = ("vector_store", "retrieval_service")
NOT_ASKED_FOR = "not among server.services of this server"
# What fails to start mostly waits for something outside, which a second attempt at once would not find either.
RESTARTS = RestartSettings(backoff=RetrySettings(base_delay_s=1.0, max_delay_s=30.0), lonely_delay_s=30.0)


class Replicas(Protocol):
    """The copies of a service that are not the service object itself, and must be up before it."""

    balanced: bool

    @property
    def size(self) -> int:
        """How many there should be."""
        ...

    @property
    def bounds(self) -> tuple[int, int]:
        """The fewest and the most that scaling may make."""
        ...

    async def start(self) -> None:
        """Returns when the service can be started on them; raises what keeps all of them from serving."""
        ...

    async def stop(self) -> None: ...

    async def scale(self, instances: int) -> None:
        """Returns when new ones were tried, or those that are too many drain or have drained."""
        ...

    def health(self) -> tuple[Health, str]: ...

    def hopeful(self) -> bool:
        """Whether one serves, or may be expected to within seconds."""
        ...

    def reports(self) -> tuple[ReplicaReport, ...]: ...

    def stats(self) -> Mapping[str, float]:
        """What is counted and measured of the calls to them."""
        ...


@dataclass(frozen=True, slots=True)
class Registration:
    """A service, what it cannot start without, and what it merely wants.

    Without ``replicas`` it is its own and only one; ``inline_because`` says why there can be no other. Where it has
    some, ``scaler`` makes them as many as the load needs, or ``fixed_because`` says why there are as many as there are.
    """

    service: Service
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    replicas: Replicas | None = None
    scaler: Autoscaler | None = None
    inline_because: str = "it has no replicas"
    fixed_because: str = ""
    implementation: str = "default"
    version: str = "1"


@dataclass(slots=True)
class _State:
    """What is known of one service: ``status`` is waiting, started, failed or stopped."""

    status: str = "waiting"
    error: str | None = None
    restart: RestartState = field(default_factory=RestartState)
    due_at: float = 0.0
    health: ServiceHealth | None = None


@dataclass(slots=True)
class Orchestrator:
    """Owns the life of the registered services and of their replicas. Its loop ends with ``stop``."""

    registry: Mapping[str, Registration]
    clock: Clock
    rng: Random
    record: Callable[[str], Record] = lambda service: unrecorded
    restarts: RestartSettings = RESTARTS
    _states: dict[str, _State] = field(default_factory=dict)
    _order: list[str] = field(default_factory=list)
    _monitor: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        """Raises InvalidSettings when the dependencies cannot be met."""
        self._order = start_order(
            {name: entry.needs for name, entry in self.registry.items()},
            {name: entry.wants for name, entry in self.registry.items()},
        )
        self._states = {name: _State() for name in self._order}

    async def start_services(self) -> dict[str, Any]:
        """Try each service once, in order; those that fail are tried again in the background until they are up."""
        await self._start_due()
        # Awaited by stop.
        self._monitor = asyncio.create_task(self._keep_watch(), name="service-monitor")
        return {
            "startup_results": {
                name: {"status": state.status, "healthy": self._healthy(name), "error": self._reason(name)}
                for name, state in self._states.items()
            },
            "services_started": [name for name in self._order if self._up(name)],
            "load_balancer_configured": any(
                entry.replicas.balanced for entry in self.registry.values() if entry.replicas is not None
            ),
            "health_monitoring_active": not self._monitor.done(),
        }

    async def stop(self) -> None:
        """Shut down in reverse order, each within its time. Harmless when called twice."""
        monitor, self._monitor = self._monitor, None
        if monitor:
            monitor.cancel()
            await asyncio.gather(monitor, return_exceptions=True)
        for name in reversed(self._order):
            await self._stop(name)

    async def scale(self, name: str, instances: int, reason: str) -> None:
        """Returns when so many replicas were tried or the others have drained.

        Raises ServiceNotFound, NotReady, and InvalidInput where the service cannot have so many.
        """
        entry, replicas = self._scalable(name)
        low, high = replicas.bounds
        if not low <= instances <= high:
            raise InvalidInput(
                f"instances of {name} must be from {low} to {high} ({name}.replicas.min_instances and max_instances), "
                f"found {instances}"
            )
        if entry.scaler is not None:
            entry.scaler.pin()
        before = {"instances": replicas.size}
        self.record(name)("scaled", reason=reason, inputs=before, decision={"instances": instances})
        await replicas.scale(instances)
        await self._check(name)

    def scale_by_load(self, name: str, reason: str) -> None:
        """End what ``scale`` began. Raises ServiceNotFound, NotReady, and InvalidInput where nothing scales it."""
        scaler = self._scalable(name)[0].scaler
        if scaler is None:
            raise InvalidInput(
                f"{name} is not scaled by its load: that takes replicas in processes, {name}.scaling.enabled, and "
                f"{name}.replicas.min_instances below max_instances; give a number of instances"
            )
        if scaler.pinned:
            self.record(name)("scaled", reason=reason, decision={"mode": "auto"})
        scaler.unpin()

    def _scalable(self, name: str) -> tuple[Registration, Replicas]:
        if name not in self.registry:
            raise ServiceNotFound(name, self._order)
        self.require(name)
        entry = self.registry[name]
        if entry.replicas is None:
            raise InvalidInput(f"{name} has one replica, in the server's process: {entry.inline_because}")
        if entry.fixed_because:
            raise InvalidInput(f"{name} cannot be scaled: {entry.fixed_because}")
        return entry, entry.replicas

    def ready(self) -> tuple[bool, dict[str, str]]:
        """(can a search be answered?, why each service that is not up is not)."""
        why = {name: NOT_ASKED_FOR for name in SEARCH if name not in self._states}
        why |= {name: self._why(name) for name in self._order if not self._up(name)}
        return all(self.up(name) for name in SEARCH), why

    def up(self, name: str) -> bool:
        """Whether a service is registered and started."""
        return name in self._states and self._up(name)

    def serving(self, name: str) -> bool:
        """Whether a call to the service has a chance: it is up, and so is, or soon will be, one of its replicas."""
        replicas = self.registry[name].replicas if name in self.registry else None
        return self.up(name) and (replicas is None or replicas.hopeful())

    def targets(self) -> Mapping[str, int]:
        """How many replicas each service should have that is not its own only one."""
        return {
            name: entry.replicas.size if entry.scaler is None else entry.scaler.target
            for name, entry in self.registry.items()
            if entry.replicas is not None
        }

    def forecasts(self) -> Mapping[str, Foreseen]:
        """What the load of each service that is scaled by it will be, in calls at once."""
        scalers = ((name, entry.scaler) for name, entry in self.registry.items())
        return {name: seen for name, scaler in scalers if scaler is not None and (seen := scaler.forecast) is not None}

    def require(self, name: str) -> None:
        """Raises NotReady unless the service is up."""
        if name not in self._states:
            raise NotReady(f"{name} is {NOT_ASKED_FOR}", retry_after_s=60.0)
        if not self._up(name):
            raise NotReady(f"{name} is not up: {self._why(name)}")

    async def services(self) -> list[ServiceReport]:
        """Every service with fresh health, in start order."""
        for name in self._order:
            if self._up(name):
                await self._check(name)
        return [self._report(name) for name in self._order]

    def report(self, name: str) -> ServiceReport:
        """One service, with the health that was last seen. Raises ServiceNotFound."""
        if name not in self._states:
            raise ServiceNotFound(name, self._order)
        return self._report(name)

    # mechanism

    def _up(self, name: str) -> bool:
        return self._states[name].status == "started"

    def _healthy(self, name: str) -> bool:
        health = self._states[name].health
        return self._up(name) and health is not None and health.status is Health.HEALTHY

    def _reason(self, name: str) -> str | None:
        return None if self._up(name) else self._why(name)

    def _waiting_for(self, name: str) -> tuple[str, ...]:
        return tuple(one for one in self.registry[name].needs if not self._up(one))

    def _why(self, name: str) -> str:
        state, waiting = self._states[name], self._waiting_for(name)
        return state.error or (f"waiting for {', '.join(waiting)}" if waiting else "starting")

    async def _start_due(self) -> None:
        for name in self._order:
            state = self._states[name]
            if (
                state.status in ("waiting", "failed")
                and not self._waiting_for(name)
                and self.clock.monotonic() >= state.due_at
            ):
                await self._start(name)

    async def _start(self, name: str) -> None:
        state, entry, began = self._states[name], self.registry[name], self.clock.monotonic()
        try:
            if entry.replicas is not None:
                await entry.replicas.start()
            await entry.service.initialize()
            await self._prove(name)
        except Exception as error:  # whatever it is: the rest must serve, and this is tried again
            await self._let_go(name)
            self._failed(name, str(error) or type(error).__name__)
            return
        state.status, state.error = "started", None
        if entry.scaler is not None:
            entry.scaler.start()
        state.restart = restarting.started(state.restart, self.clock.monotonic())
        took_s = self.clock.monotonic() - began
        self.record(name)("service_started", reason=f"ready after {took_s:.1f} s")

    async def _prove(self, name: str) -> None:
        """Raises CannotStart if the service calls itself unhealthy: then nobody should start on it."""
        await self._check(name)
        found = self._states[name].health
        if found and found.status is Health.UNHEALTHY:
            raise CannotStart(f"{name} started, but is not healthy: {found.details.get('reason', 'without a reason')}")

    def _failed(self, name: str, error: str) -> None:
        """Remember the failure, and when the policy tries the service again."""
        state, now, seed = self._states[name], self.clock.monotonic(), self.rng.getrandbits(32)
        state.restart = restarting.ended(self.restarts, state.restart, now, error)
        decision = restarting.decide(self.restarts, state.restart, now, Random(seed))
        state.status, state.error, state.due_at = "failed", error, now + (decision.delay_s or 0.0)
        self.record(name)(
            "service_failed", reason=decision.reason, policy="restarting.decide", decision=decision,
            inputs={"settings": self.restarts, "state": state.restart, "now": now, "rng": seed},
        )  # fmt: skip

    async def _stop(self, name: str) -> None:
        was_up = self._up(name)
        self._states[name].status = "stopped"
        await self._let_go(name, started=was_up)
        if was_up:
            self.record(name)("service_stopped", reason="the server stops")

    async def _let_go(self, name: str, *, started: bool = True) -> None:
        """Shut a service down, also one that only half started, and then its replicas."""
        entry = self.registry[name]
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                if entry.scaler is not None:
                    await entry.scaler.__aexit__(None, None, None)
                if started:
                    await entry.service.shutdown()
                if entry.replicas is not None:
                    await entry.replicas.stop()
        except Exception as error:  # the others must still be stopped
            log.error("service_stop_failed", action="service_stop_failed", service=name, error=repr(error))

    async def _keep_watch(self) -> None:
        while True:
            pending = any(self._states[name].status in ("waiting", "failed") for name in self._order)
            await self.clock.sleep(0.5 if pending else MONITOR_EVERY_S)
            await self._start_due()
            for name in self._order:
                if self._up(name):
                    await self._check(name)

    async def _check(self, name: str) -> None:
        state, entry, began = self._states[name], self.registry[name], self.clock.monotonic()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                found = await entry.service.check_health()
        except Exception as error:  # a check that fails is an answer too
            found = ServiceHealth(name, Health.UNHEALTHY, details={"reason": repr(error)})
        if entry.replicas is not None:
            found = _together(found, *entry.replicas.health())
        elapsed_ms = (self.clock.monotonic() - began) * 1000
        before, state.health = state.health, replace(found, response_time_ms=elapsed_ms, last_check=self.clock.now())
        if before is None or before.status != found.status:
            self.record(name)(
                "health_changed",
                reason=str(found.details.get("reason", found.status)),
                inputs={"before": before.status if before else None},
                decision={"health": found.status},
            )

    def _report(self, name: str) -> ServiceReport:
        state, entry = self._states[name], self.registry[name]
        replicas = entry.replicas.reports() if entry.replicas is not None else self._itself(name)
        stats = entry.service.stats() if self._up(name) else {}
        scaling = entry.scaler.report() if entry.scaler is not None else None
        calls = entry.replicas.stats() if entry.replicas is not None else None
        return ServiceReport(
            name, state.status, state.error, self._waiting_for(name), state.health, replicas, stats, scaling, calls
        )

    def _itself(self, name: str) -> tuple[ReplicaReport, ...]:
        """The report of a service that is its own only replica."""
        if not self._up(name):
            return ()
        state, entry = self._states[name], self.registry[name]
        status = state.health.status if state.health else state.status
        return (
            ReplicaReport(
                f"{name}-0", os.getpid(), status, entry.version, life=Life.READY, implementation=entry.implementation
            ),
        )


def _together(front: ServiceHealth, replicas: Health, why: str) -> ServiceHealth:
    """A service is as well as the worse of what is in front and what is behind it."""
    if BADNESS[replicas] <= BADNESS[front.status]:
        return front
    return replace(front, status=replicas, details={**front.details, "reason": why})
