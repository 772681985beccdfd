"""The loop over a JobQueue: claim, run, finish or fail, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import structlog

from ragworks.errors import LeaseLost, RagworksError, StorageFull
from ragworks.ingest import Ingested
from ragworks.policies.retrying import RetrySettings, decide
from ragworks.protocols import Clock, JobQueue, OnStage
from ragworks.types import Stage, Task

log = structlog.get_logger("ragworks.jobs")

DISK_PAUSE_S = 5.0
DRAIN_S = 10.0

Run = Callable[[Task, OnStage], Awaitable[Ingested]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: completed, unchanged, failed, retried or cancelled; ``code`` of the error, if one."""

    kind: str
    code: str | None = None


OnEnd = Callable[[Task, Outcome, float], None]
"""Told of each ended attempt, and the seconds it took."""


class JobRunner:
    """Keeps up to ``slots`` tasks running while there are any. An async context manager; leaving it drains."""

    def __init__(
        self, queue: JobQueue, run: Run, *, slots: int, retry: RetrySettings, clock: Clock, rng: Random, on_end: OnEnd
    ) -> None:
        self._queue, self._run, self._clock = queue, run, clock
        self._retry, self._rng, self._on_end = retry, rng, on_end
        self._slots = slots
        self._jobs: set[asyncio.Task[None]] = set()
        self._running: dict[str, tuple[Task, Stage, asyncio.Task[None]]] = {}
        self._news = asyncio.Event()
        self._stopping = False
        self._paused_until = 0.0
        self._dispatcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> JobRunner:
        # Awaited by __aexit__; if it dies, `failure` tells and the service reports itself unhealthy.
        self._dispatcher = asyncio.create_task(self._dispatch(), name="job-dispatcher")
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Claim no more, let running tasks end for a while, cancel the rest and give their leases back."""
        self._stopping = True
        self.wake()
        if self._dispatcher:
            await asyncio.gather(self._dispatcher, return_exceptions=True)
        if self._jobs:
            _, late = await asyncio.wait(set(self._jobs), timeout=DRAIN_S)
            for job in late:
                job.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def wake(self) -> None:
        """Something changed: whoever waits looks again."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    @property
    def news(self) -> asyncio.Event:
        """Take it before looking, then pass it to ``changed``: so no change is missed in between."""
        return self._news

    async def changed(self, since: asyncio.Event, timeout_s: float) -> None:
        """Return when something changed after ``since`` was taken, or after ``timeout_s``."""
        await self._wait(since, timeout_s)

    def stage_of(self, task_id: str) -> Stage | None:
        """How far a running task is; None when it is not running here."""
        found = self._running.get(task_id)
        return found[1] if found else None

    def cancel_unless(self, still_wanted: Callable[[Task], bool]) -> None:
        """Stop the attempts whose task is no longer wanted."""
        for task, _, job in list(self._running.values()):
            if not still_wanted(task):
                job.cancel()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def failure(self) -> BaseException | None:
        """Why the dispatcher is gone, if it is."""
        if self._dispatcher is None or not self._dispatcher.done() or self._dispatcher.cancelled():
            return None
        return self._dispatcher.exception()

    async def _dispatch(self) -> None:
        while not self._stopping:
            news, idle_s = self._news, None
            task = None
            if len(self._jobs) < self._slots:
                task, idle_s = await self._claim()
            if task is None:
                await self._wait(news, idle_s)
                continue
            # Awaited by __aexit__, or done before.
            job = asyncio.create_task(self._attempt(task), name=f"task-{task.id}")
            self._jobs.add(job)
            job.add_done_callback(self._over)

    def _over(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        self.wake()

    async def _claim(self) -> tuple[Task | None, float | None]:
        """The next task, or None and how long to wait (None: until there is news)."""
        if pause_s := self._pause_s():
            return None, pause_s
        try:
            task = await self._queue.claim()
            due = None if task else await self._queue.next_due()
        except Exception as error:  # whatever the database says, this loop must go on
            self._pause(error)
            return None, DISK_PAUSE_S
        return task, None if due is None else max(0.05, due - self._clock.now())

    def _pause(self, error: Exception) -> None:
        """Claim nothing for a while: what needs the disk would fail, and be read again, as fast as it can."""
        self._paused_until = self._clock.monotonic() + DISK_PAUSE_S
        action = "storage_full" if isinstance(error, StorageFull) else "queue_failed"
        log.error(action, action=action, error=repr(error), pause_s=DISK_PAUSE_S)

    def _pause_s(self) -> float:
        return max(0.0, self._paused_until - self._clock.monotonic())

    async def _wait(self, news: asyncio.Event, timeout_s: float | None) -> None:
        if self._stopping:
            return
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(news.wait())]
        if timeout_s is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(timeout_s)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def _attempt(self, task: Task) -> None:
        started = self._clock.monotonic()
        outcome = Outcome("cancelled")
        job = asyncio.current_task()
        assert job is not None
        # Entered by the attempt itself: one that is cancelled has begun, so that its lease is given back.
        self._running[task.id] = (task, Stage.PARSING, job)
        try:
            outcome = await self._outcome(task)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(task))
            raise
        finally:
            del self._running[task.id]
            self._on_end(task, outcome, self._clock.monotonic() - started)

    async def _outcome(self, task: Task) -> Outcome:
        try:
            done = await self._run(task, lambda stage: self._enter(task, stage))
            await self._queue.finish(task, unchanged=done.unchanged, warnings=done.warnings)
            return Outcome("unchanged" if done.unchanged else "completed")
        except LeaseLost:
            return Outcome("cancelled")
        except StorageFull as error:
            self._pause(error)
            await self._give_back(task)
            return Outcome("retried", error.code)
        except RagworksError as error:
            return await self._fail(task, error.code, str(error), transient=error.transient)
        except Exception as error:  # a fault of ours in one document must not end the loop
            log.exception("document_crashed", action="document_crashed", task=task.id, document=task.document_id)
            return await self._fail(task, "internal_error", f"{type(error).__name__}: {error}", transient=True)

    async def _fail(self, task: Task, code: str, message: str, *, transient: bool) -> Outcome:
        stage = self.stage_of(task.id) or Stage.PARSING
        decision = decide(self._retry, task.attempts + 1, transient=transient, rng=self._rng)
        log.warning(
            "document_failed",
            action="document_failed",
            task=task.id,
            collection=task.collection,
            document=task.document_id,
            stage=stage,
            code=code,
            error=message,
            retry_in_s=decision.delay_s,
            reason=decision.reason,
        )
        await self._written(lambda: self._queue.fail(task, stage, code, message, decision.delay_s))
        return Outcome("failed" if decision.delay_s is None else "retried", code)

    async def _give_back(self, task: Task) -> None:
        await self._written(lambda: self._queue.release(task))

    async def _written(self, write: Callable[[], Awaitable[None]]) -> None:
        """Do what ends an attempt; while the disk is full there is no other way than to wait for it."""
        while True:
            try:
                return await write()
            except StorageFull:
                if self._stopping:
                    return None  # the next start recovers the task
                await self._clock.sleep(DISK_PAUSE_S)

    def _enter(self, task: Task, stage: Stage) -> None:
        if found := self._running.get(task.id):
            self._running[task.id] = (task, stage, found[2])
