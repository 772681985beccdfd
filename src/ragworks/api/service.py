"""orchestration_api, the sixth service: it watches the event loop that all requests share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ragworks.protocols import Clock
from ragworks.types import Health, ServiceHealth

NAME = "orchestration_api"
WAKE_EVERY_S = 0.25
# 40 wake-ups remember ten seconds: long enough for a health check every five to see each stall.
REMEMBERED = 40
# A person notices 0.1 s; a probe with the usual timeout of 1 s fails from there on.
DEGRADED_LAG_S = 0.1
UNHEALTHY_LAG_S = 1.0


class OrchestrationApi:
    """Measures how late the event loop wakes its tasks. ``observe`` gets each lateness in seconds."""

    def __init__(self, clock: Clock, observe: Callable[[float], None] = lambda seconds: None) -> None:
        self._clock = clock
        self._observe = observe
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
        worst = max(self._lags, default=0.0)
        status = (
            Health.UNHEALTHY
            if worst >= UNHEALTHY_LAG_S
            else Health.DEGRADED
            if worst >= DEGRADED_LAG_S
            else Health.HEALTHY
        )
        if self._watching is None or self._watching.done():
            status = Health.UNHEALTHY
        details = {"worst_loop_lag_s": worst, "watching": self._watching is not None}
        return ServiceHealth(NAME, status, last_check=self._clock.now(), details=details)

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
