"""The service that ``autoscaling.py`` runs as replicas: it waits, as one that asks a slow server does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ragworks.types import Health, ServiceHealth

WORK_S = 0.2


class Waiting:
    """Works on one call at a time."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def check_health(self) -> ServiceHealth:
        return ServiceHealth("waiting", Health.HEALTHY)

    def stats(self) -> Mapping[str, Any]:
        return {}

    async def work(self) -> None:
        async with self._turn:
            await asyncio.sleep(WORK_S)
