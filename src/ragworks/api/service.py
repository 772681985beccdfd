"""orchestration_api, the sixth service: it watches the event loop that all requests share, and the machine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from ragworks.policies.health import MachineSeen, MachineSettings, Signal, machine_signals, worst
from ragworks.protocols import Clock
from ragworks.types import Health, ServiceHealth

NAME = "orchestration_api"
WAKE_EVERY_S = 0.25
# 40 wake-ups remember ten seconds: long enough for a health check every five to see each stall.
REMEMBERED = 40
LIMITS = MachineSettings()


class OrchestrationApi:
    """Measures how late the event loop wakes its tasks. ``observe`` gets each lateness in seconds; ``look`` says what
    the machine has left, and may block."""

    def __init__(
        self,
        clock: Clock,
        observe: Callable[[float], None] = lambda seconds: None,
        look: Callable[[], MachineSeen] = MachineSeen,
    ) -> None:
        self._clock, self._observe, self._look = clock, observe, look
        self._lags: deque[float] = deque(maxlen=REMEMBERED)
        self._watching: asyncio.Task[None] | None = None

    async def initialize(self) -> None:
        if self._watching is None:
            # Awaited by shutdown.
            self._watching = asyncio.create_task(self._watch(), name="loop-lag")

    async def shutdown(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def check_health(self) -> ServiceHealth:
        seen = replace(await asyncio.to_thread(self._look), loop_lag_s=max(self._lags, default=0.0))
        found = worst(machine_signals(LIMITS, seen))
        watching = self._watching is not None and not self._watching.done()
        details: dict[str, Any] = {**asdict(seen), "worst_loop_lag_s": seen.loop_lag_s, "watching": watching}
        if not watching:
            found = Signal(Health.UNHEALTHY, "nobody watches the event loop; restart the server")
        if found.reason:
            details["reason"] = found.reason
        return ServiceHealth(NAME, found.health, last_check=self._clock.now(), details=details)

    def stats(self) -> Mapping[str, Any]:
        last = self._lags[-1] if self._lags else 0.0
        return {"loop_lag_s": last, "worst_loop_lag_s": max(self._lags, default=0.0)}

    async def _watch(self) -> None:
        while True:
            due = self._clock.monotonic() + WAKE_EVERY_S
            await self._clock.sleep(WAKE_EVERY_S)
            lag = max(0.0, self._clock.monotonic() - due)
            self._lags.append(lag)
            self._observe(lag)
