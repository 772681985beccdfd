"""Waiting for news that may not come, for work that must not be left half way, for what is read from disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ragworks.protocols import Clock  # late: it brings numpy, and a command that talks to a server needs none

T = TypeVar("T")


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


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work``; when cancelled meanwhile, however often, cancel only then: half way is no place to leave it."""
    running = asyncio.ensure_future(work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        await asyncio.gather(running, return_exceptions=True)  # whatever it ran into, the cancel is what is told
        raise


async def from_thread(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, none of them None, each fetched in a thread, where it may block."""
    left = iter(items)
    while (item := await asyncio.to_thread(next, left, None)) is not None:
        yield item
