"""The loop over a JobQueue: claim, run, finish or fail, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import structlog

from ragworks import tracing
from ragworks.errors import LeaseLost, RagworksError, Stalled, StorageFull
from ragworks.ingest import Ingested
from ragworks.policies.retrying import RetrySettings, decide
from ragworks.protocols import Clock
from ragworks.records import Cost
from ragworks.storage_protocols import JobQueue
from ragworks.tracing import Off, Span
from ragworks.types import Stage, Task
from ragworks.waiting import news_or_time
from ragworks.workers.attempt import DISK, Attempt
from ragworks.workers.leases import LeaseKeeper

T = TypeVar("T")

log = structlog.get_logger("ragworks.jobs")

DISK_PAUSE_S = 5.0
DRAIN_S = 10.0

Run = Callable[[Attempt], Awaitable[Ingested]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: completed, unchanged, failed, retried or cancelled; ``code`` of the error, if one.

    ``cost`` is what it took, if it did any work.
    """

    kind: str
    code: str | None = None
    cost: Cost | None = None


OnEnd = Callable[[Task, Outcome, float], None]
"""Told of each ended attempt, and the seconds it took."""


class JobRunner:
    """Keeps up to ``slots`` tasks running while there are any. An async context manager; leaving it drains.

    An attempt that gives no sign of progress for ``lease_s`` is ended, as a failure that may pass on a retry.
    """

    def __init__(
        self,
        queue: JobQueue,
        run: Run,
        *,
        slots: int,
        lease_s: float,
        retry: RetrySettings,
        clock: Clock,
        rng: Random,
        on_end: OnEnd,
    ) -> None:
        self._queue, self._run, self._clock = queue, run, clock
        self._retry, self._rng, self._on_end = retry, rng, on_end
        self._slots = slots
        self._jobs: dict[asyncio.Task[None], Task] = {}
        self._running: dict[str, Attempt] = {}
        self._leases = LeaseKeeper(queue, self._running, lease_s=lease_s, clock=clock)
        self._keeper: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._stopping = False
        self._paused_until = 0.0
        self._dispatcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> JobRunner:
        # Awaited by __aexit__; if it dies, `failure` tells and the service reports itself unhealthy.
        self._dispatcher = asyncio.create_task(self._dispatch(), name="job-dispatcher")
        self._keeper = asyncio.create_task(self._leases.run(), name="lease-keeper")  # cancelled by __aexit__
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Claim no more, let running tasks end for a while, cancel the rest and give their leases back.

        Leases are renewed until the last task has ended.
        """
        self._stopping = True
        self.wake()
        if self._dispatcher:
            await asyncio.gather(self._dispatcher, return_exceptions=True)
        if self._jobs:
            _, late = await asyncio.wait(set(self._jobs), timeout=DRAIN_S)
            for job in late:
                job.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

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
        return found.stage if found else None

    def cancel_unless(self, still_wanted: Callable[[Task], bool]) -> None:
        """Stop the attempts whose task is no longer wanted."""
        for attempt in list(self._running.values()):
            if attempt.job and not still_wanted(attempt.task):
                attempt.job.cancel()

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
            self._jobs[job] = task
            job.add_done_callback(self._over)

    def _over(self, job: asyncio.Task[None]) -> None:
        del self._jobs[job]
        self.wake()

    async def _claim(self) -> tuple[Task | None, float | None]:
        """The next task, or None and how long to wait (None: until there is news)."""
        if pause_s := self._pause_s():
            return None, pause_s
        asked_at = self._clock.now()
        try:
            # However late their renewal is, as after this machine slept: what runs here is not a dead process's.
            task = await self._queue.claim([task.lease for task in self._jobs.values()])
            # What was due by then and did not start waits for another task to end, which is news.
            due = None if task else await self._queue.next_due(asked_at)
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
        if not self._stopping:
            await news_or_time(news, self._clock, timeout_s)

    async def _attempt(self, task: Task) -> None:
        started = self._clock.monotonic()
        outcome = Outcome("cancelled")
        attempt = Attempt(task, self._clock)
        attempt.job = asyncio.current_task()
        # Entered by the attempt itself: one that is cancelled has begun, so that its lease is given back.
        self._running[task.id] = attempt
        with _named(task), _traced(task) as span:
            try:
                outcome = await self._outcome(attempt)
            except asyncio.CancelledError:
                if attempt.stalled is None:
                    await asyncio.shield(self._give_back(task))
                    raise
                outcome = await self._fail(attempt, Stalled(f"the attempt was ended: {attempt.stalled}"))
            finally:
                if self._running.get(task.id) is attempt:  # else it was given back and has been claimed again
                    del self._running[task.id]
                self._on_end(task, outcome, self._clock.monotonic() - started)
                _note(span, outcome)

    async def _outcome(self, attempt: Attempt) -> Outcome:
        task = attempt.task
        try:
            done = await self._run(attempt)
            worked = attempt.cost()
            # Nothing was embedded: the work had been done before, which says nothing of its kind.
            cost = worked if worked.chunks and not done.unchanged else None
            held = await self._queue.finish(task, unchanged=done.unchanged, warnings=done.warnings, cost=cost)
            if not held:
                return Outcome("cancelled")
            return Outcome("unchanged" if done.unchanged else "completed", cost=cost)
        except LeaseLost:
            return Outcome("cancelled")
        except StorageFull as error:
            self._pause(error)
            attempt.wait_for(DISK)
            await self._give_back(task)
            return Outcome("retried", error.code)
        except RagworksError as error:
            return await self._fail(attempt, error)
        except Exception as error:  # a fault of ours in one document must not end the loop
            outcome = await self._fail(attempt, error)
            if outcome.code:
                log.exception("document_crashed", action="document_crashed")
            return outcome

    async def _fail(self, attempt: Attempt, error: Exception) -> Outcome:
        task, stage = attempt.task, attempt.stage
        cost = attempt.cost()
        code, message, transient = _described(error)
        attempt.wait_for(DISK)  # this may have to be written for as long as the disk is full
        decision = decide(self._retry, task.attempts + 1, transient=transient, rng=self._rng)
        if not await self._written(lambda: self._queue.fail(task, stage, code, message, decision.delay_s)):
            return Outcome("cancelled")  # cancelled or deleted meanwhile: whatever it ran into is no failure
        log.warning(
            "document_failed",
            action="document_failed",
            collection=task.collection,
            stage=stage,
            code=code,
            error=message,
            retry_in_s=decision.delay_s,
            reason=decision.reason,
        )
        return Outcome("failed" if decision.delay_s is None else "retried", code, cost)

    async def _give_back(self, task: Task) -> None:
        await self._written(lambda: self._queue.release(task))

    async def _written(self, write: Callable[[], Awaitable[T]]) -> T | None:
        """Do what ends an attempt; while the disk is full there is no other way than to wait for it."""
        while True:
            try:
                return await write()
            except StorageFull:
                if self._stopping:
                    return None  # the next start recovers the task
                await self._clock.sleep(DISK_PAUSE_S)


def _named(task: Task) -> AbstractContextManager[None]:
    """What each line of the log says while it is worked on."""
    bound: AbstractContextManager[None] = structlog.contextvars.bound_contextvars(
        job_id=task.job_id, task_id=task.id, document_id=task.document_id
    )
    return bound


def _traced(task: Task) -> Span | Off:
    """A span of the trace of who submitted it, also after a restart."""
    attributes: tracing.Attributes = {
        "ragworks.job_id": task.job_id,
        "ragworks.task_id": task.id,
        "ragworks.document_id": task.document_id,
        "ragworks.collection": task.collection,
        "ragworks.attempt": task.attempts + 1,
    }
    return tracing.entry("process_document", attributes, "consumer", tracing.parsed(task.traceparent))


def _note(span: Span | Off, outcome: Outcome) -> None:
    span.set("ragworks.outcome", outcome.kind)
    if outcome.code:
        span.fail(outcome.code)


def _described(error: Exception) -> tuple[str, str, bool]:
    """(code, message, transient); a fault of ours may be one of the moment."""
    if isinstance(error, RagworksError):
        return error.code, str(error), error.transient
    return "internal_error", f"{type(error).__name__}: {error}", True
