"""Starts services in the order of their dependencies, tries again where one failed, watches, stops in reverse."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import structlog

from ragworks.errors import NotReady
from ragworks.policies.ordering import start_order
from ragworks.policies.retrying import RetrySettings, decide
from ragworks.protocols import Clock, Service
from ragworks.types import Health, Life, ReplicaReport, ServiceHealth, ServiceReport

log = structlog.get_logger("ragworks.orchestrator")

MONITOR_EVERY_S = 5.0
CHECK_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 20.0
# Started again for as long as the process lives: a service that comes back is worth more than one that gave up.
RESTART = RetrySettings(max_attempts=1_000_000, base_delay_s=1.0, max_delay_s=30.0)


@dataclass(frozen=True, slots=True)
class Registration:
    """A service, what it cannot start without, and what it merely wants."""

    service: Service
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()


@dataclass(slots=True)
class _State:
    """What is known of one service: ``status`` is waiting, started, failed or stopped."""

    status: str = "waiting"
    error: str | None = None
    attempts: int = 0
    due_at: float = 0.0
    health: ServiceHealth | None = None


@dataclass(slots=True)
class Orchestrator:
    """Owns the life of the registered services, one inline replica each. Its loop ends with ``stop``."""

    registry: Mapping[str, Registration]
    clock: Clock
    rng: Random
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
        up = [name for name in self._order if self._up(name)]
        return {
            "startup_results": {
                name: {"status": state.status, "healthy": self._up(name), "error": state.error}
                for name, state in self._states.items()
            },
            "services_started": up,
            "load_balancer_configured": False,
            "health_monitoring_active": True,
        }

    async def stop(self) -> None:
        """Shut down in reverse order, each within its time. Harmless when called twice."""
        monitor, self._monitor = self._monitor, None
        if monitor:
            monitor.cancel()
            await asyncio.gather(monitor, return_exceptions=True)
        for name in reversed(self._order):
            if self._up(name):
                await self._stop(name)

    def ready(self) -> tuple[bool, dict[str, str]]:
        """(can a search be answered?, why each service that is not up is not)."""
        why = {name: self._why(name) for name in self._order if not self._up(name)}
        return all(self._up(name) for name in ("vector_store", "retrieval_service")), why

    def up(self, name: str) -> bool:
        """Whether a service is registered and started."""
        return name in self._states and self._up(name)

    def require(self, name: str) -> None:
        """Raises NotReady unless the service is up."""
        if name not in self._states:
            raise NotReady(f"{name} is not among server.services of this server", retry_after_s=60.0)
        if not self._up(name):
            raise NotReady(f"{name} is not up: {self._why(name)}")

    async def services(self) -> list[ServiceReport]:
        """Every service with fresh health, in start order."""
        for name in self._order:
            if self._up(name):
                await self._check(name)
        return [self._report(name) for name in self._order]

    # mechanism

    def _up(self, name: str) -> bool:
        return self._states[name].status == "started"

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
        state, began = self._states[name], self.clock.monotonic()
        state.attempts += 1
        try:
            await self.registry[name].service.initialize()
        except Exception as error:  # whatever it is: the rest must serve, and this is tried again
            decision = decide(RESTART, min(state.attempts, 10), transient=True, rng=self.rng)
            state.status, state.error = "failed", str(error) or type(error).__name__
            state.due_at = self.clock.monotonic() + (decision.delay_s or 0.0)
            await self._let_go(name)
            log.error(
                "service_failed", action="service_failed", service=name, error=state.error,
                attempt=state.attempts, retry_in_s=decision.delay_s,
            )  # fmt: skip
            return
        state.status, state.error, state.attempts = "started", None, 0
        log.info("service_started", action="service_started", service=name, seconds=self.clock.monotonic() - began)

    async def _stop(self, name: str) -> None:
        await self._let_go(name)
        self._states[name].status = "stopped"
        log.info("service_stopped", action="service_stopped", service=name)

    async def _let_go(self, name: str) -> None:
        """Shut a service down, also one that only half started."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.registry[name].service.shutdown()
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
        state, began = self._states[name], self.clock.monotonic()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                found = await self.registry[name].service.check_health()
        except Exception as error:  # a check that fails is an answer too
            found = ServiceHealth(name, Health.UNHEALTHY, details={"reason": repr(error)})
        elapsed_ms = (self.clock.monotonic() - began) * 1000
        before, state.health = state.health, replace(found, response_time_ms=elapsed_ms, last_check=self.clock.now())
        if before is None or before.status != found.status:
            log.info(
                "health_changed", action="health_changed", service=name, status=found.status,
                before=before.status if before else None, details=dict(found.details),
            )  # fmt: skip

    def _report(self, name: str) -> ServiceReport:
        state = self._states[name]
        status = state.health.status if state.health and self._up(name) else state.status
        replicas = (ReplicaReport(f"{name}-0", os.getpid(), status, "1", life=Life.READY),) if self._up(name) else ()
        return ServiceReport(
            name, state.status, state.error, self._waiting_for(name), state.health, replicas,
            self.registry[name].service.stats() if self._up(name) else {},
        )  # fmt: skip
