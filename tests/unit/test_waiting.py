"""Waits of the event loop that must neither hold it nor be cut short."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from ragworks.testing import FakeClock, until
from ragworks.waiting import from_thread, news_or_time, to_its_end


async def test_news_end_a_wait_before_its_time_and_time_ends_it_without_news() -> None:
    clock, news = FakeClock(), asyncio.Event()
    early = asyncio.create_task(news_or_time(news, clock, 1e9))
    await asyncio.wait({early}, timeout=0)
    assert not early.done()
    news.set()
    await early
    late = asyncio.create_task(news_or_time(asyncio.Event(), clock, 5.0))
    await clock.advance(4.9)
    assert not late.done()
    await clock.advance(0.2)
    assert late.done()


async def test_work_ends_before_a_cancel_is_told_and_its_error_is_not() -> None:
    opened, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await opened.wait()
        ended.set()
        raise ValueError

    waiting = asyncio.create_task(to_its_end(work()))
    for _ in range(3):
        await asyncio.wait({waiting}, timeout=0)
        waiting.cancel()
    opened.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        await to_its_end(work())


async def test_what_blocks_is_fetched_in_order_while_the_event_loop_goes_on() -> None:
    opened = threading.Event()

    def blocking() -> Iterator[int]:
        yield 1
        opened.wait()
        yield 2

    found: list[int] = []

    async def take() -> None:
        async for item in from_thread(blocking()):
            found.append(item)

    taking = asyncio.create_task(take())
    await until(lambda: found == [1])
    opened.set()
    await taking
    assert found == [1, 2]
