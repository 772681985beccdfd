"""Rows that are kept a moment after they came: nobody waits for them, and a full disk costs rows, not service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from ragworks.protocols import Clock
from ragworks.waiting import news_or_time, to_its_end

log = structlog.get_logger("ragworks.control")

T = TypeVar("T")

FLUSH_EVERY_S = 0.5  # a process that is killed loses no more than these
RETRY_S = 5.0
MAX_WAITING = 1000  # rows that wait for the disk; the oldest go first


class Behind(Generic[T]):
    """Entering starts the task that keeps rows; leaving keeps those that wait. ``add`` is for the event loop.

    ``name`` is what the log calls the rows. ``before`` is called before each round, which comes when there are rows, or
    after ``due_s()`` at the latest.
    """

    def __init__(
        self,
        append: Callable[[list[T]], Awaitable[None]],
        clock: Clock,
        name: str,
        *,
        before: Callable[[], None] = lambda: None,
        due_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._append, self._clock, self._name = append, clock, name
        self._before, self._due_s = before, due_s
        self._waiting: list[T] = []
        self._news = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._lost = 0
        self._failing = False

    async def __aenter__(self) -> Behind[T]:
        # Awaited when the context is left.
        self._keeping = asyncio.create_task(self._keep(), name=f"keep-{self._name}")
        return self

    async def __aexit__(self, *exc: object) -> None:
        keeping, self._keeping = self._keeping, None
        if keeping:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        await self.flush()

    def add(self, row: T) -> None:
        self._waiting.append(row)
        self._bound()
        self.wake()

    def wake(self) -> None:
        """Let a round come soon, though there are no new rows."""
        self._news.set()

    async def flush(self) -> None:
        """Keep what waits, now. Never raises: what cannot be kept waits on."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        try:
            # Cancelled half way, it would be unknown whether they are in.
            await to_its_end(self._kept(batch))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever is wrong with the file, the services go on
            self._waiting = batch + self._waiting
            self._bound()
            self._note_failure(error)
            return
        if self._failing or self._lost:
            event = f"{self._name}_kept_again"
            log.warning(event, action=event, lost=self._lost)
        self._failing, self._lost = False, 0

    async def _kept(self, batch: list[T]) -> None:
        await self._append(batch)

    def _bound(self) -> None:
        self._lost += max(0, len(self._waiting) - MAX_WAITING)
        del self._waiting[:-MAX_WAITING]

    def _note_failure(self, error: Exception) -> None:
        if not self._failing:
            event = f"{self._name}_not_kept"
            log.warning(event, action=event, error=str(error) or type(error).__name__)
        self._failing = True

    async def _keep(self) -> None:
        while True:
            due_s = self._due_s()
            if self._waiting:
                due_s = RETRY_S if due_s is None else min(due_s, RETRY_S)
            await news_or_time(self._news, self._clock, due_s)
            self._news.clear()
            await self._clock.sleep(FLUSH_EVERY_S)  # what comes meanwhile shares its commit
            self._before()
            await self.flush()
