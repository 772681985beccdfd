"""The service that ``replica_faults.py`` runs as replicas: it works for 20 ms, and misbehaves as told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from ragworks.types import Health, ServiceHealth

WORK_S = 0.02
LEAK_BYTES = 8 * 1024**2  # a call


class Faulty:
    """``misbehave`` is called at one replica, ``work`` through the balancer."""

    def __init__(self) -> None:
        self._how = ""
        self._leaked: list[bytes] = []
        self._checks = 0

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def check_health(self) -> ServiceHealth:
        self._checks += 1
        ill = self._how == "flapping" and self._checks % 2
        return ServiceHealth("faulty", Health.UNHEALTHY if ill else Health.HEALTHY, details={"reason": "as told"})

    def stats(self) -> Mapping[str, Any]:
        return {}

    async def misbehave(self, how: str) -> None:
        self._how = how

    async def work(self) -> int:
        if self._how == "failing":
            raise ValueError("told to fail")
        if self._how == "leaking":
            self._leaked.append(os.urandom(LEAK_BYTES))
        await asyncio.sleep(WORK_S * (10 if self._how == "slow" else 1))
        return os.getpid()
