"""Services that the tests run as replicas. In a module of its own, because a child process imports it by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from ragworks.types import Health, ServiceHealth


class Echo:
    def __init__(self, note: str = "") -> None:
        self.note = note

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def check_health(self) -> ServiceHealth:
        return ServiceHealth("echo", Health.HEALTHY, 0.0, 0, 0.0, {})

    def stats(self) -> Mapping[str, Any]:
        return {"note": self.note}

    async def echo(self, value: Any) -> Any:
        return value

    async def count(self, items: int) -> AsyncIterator[int]:
        for item in range(items):
            yield item

    async def hang(self) -> None:
        await asyncio.Event().wait()
