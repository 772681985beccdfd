"""Waiting for news that may not come, with a limit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragworks.protocols import Clock  # late: it brings numpy, and a command that talks to a server needs none


async def news_or_time(news: asyncio.Event, clock: Clock, timeout_s: float | None) -> None:
    """Return when ``news`` is set, or after ``timeout_s``; None waits for the news alone."""
    # Both end here, or are cancelled here.
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(news.wait())]
    if timeout_s is not None:
        waits.append(asyncio.ensure_future(clock.sleep(timeout_s)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
