"""Accepts documents durably, then takes each through ``ingest``; says how far each is and why one failed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import structlog

from ragworks import tracing
from ragworks.control_protocols import Record, unrecorded
from ragworks.errors import DeadLetterNotFound, InvalidInput, NotReady
from ragworks.ingest import Ingested, ingest
from ragworks.policies.bracketing import bracket, coverage
from ragworks.policies.estimating import Learnt, completion_s, errors, known_costs, learn
from ragworks.policies.health import MachineSettings, Signal, queue_signal
from ragworks.policies.retrying import RetrySettings
from ragworks.protocols import Clock, DocumentStore, Embedder, Reader
from ragworks.records import OpenWork, Requeued
from ragworks.services.submitting import Intake
from ragworks.settings import ProcessorSettings
from ragworks.storage_protocols import Blobs, JobQueue
from ragworks.tracing import OFF, Off, Span
from ragworks.types import (
    DeadLetter,
    Health,
    Interval,
    Job,
    Page,
    Priority,
    ServiceHealth,
    Stage,
    Submission,
    Task,
    TaskState,
    Upload,
)
from ragworks.workers.attempt import WORKER, Attempt, SharedTime, WatchedEmbedder
from ragworks.workers.jobs import JobRunner, Outcome
from ragworks.workers.webhooks import Webhooks

log = structlog.get_logger("ragworks.jobs")

NAME = "document_processor"
REMEMBERED = 1000  # ended documents from which it is known what new ones will cost
JUDGED_JOBS = 100  # ended jobs over which the error of estimates is reported, and of which intervals are made
MOVED = 0.1  # share by which the estimate of a job must change to be news without any other
PRUNE_EVERY_S = 600.0
EVENT_GAP_S = 0.2  # a watcher of a job hears at most five times a second
EVENT_WAIT_S = 0.8  # a new stage is no news of its own, so it shows about once a second
LOOK_AGAIN_S = 5.0
ENDED = (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED)

OnStageEnd = Callable[[Stage, float], None]
OnDocument = Callable[[Outcome], None]


class DocumentProcessor:
    """The service around a durable queue. ``initialize`` takes up what a dead server left."""

    def __init__(
        self,
        settings: ProcessorSettings,
        *,
        queue: JobQueue,
        blobs: Blobs,
        reader: Reader,
        embedder: Embedder,
        store: DocumentStore,
        clock: Clock,
        rng: Random,
        workers: Callable[[], int] = lambda: 1,
        on_stage_end: OnStageEnd = lambda stage, seconds: None,
        on_document: OnDocument = lambda outcome: None,
        webhooks: Webhooks | None = None,
        record: Record = unrecorded,
    ) -> None:
        self._settings, self._queue = settings, queue
        self._reader, self._embedder, self._store, self._clock = reader, embedder, store, clock
        self._rng, self._on_stage_end, self._on_document = rng, on_stage_end, on_document
        self._workers = workers
        self._model_time = SharedTime(clock)
        self._learnt = Learnt()
        self._forecasts: Sequence[tuple[float, float]] = ()
        self._estimate_errors: dict[str, float | None] = {}
        self._judge(())
        self._pruner: asyncio.Task[None] | None = None
        self._runner: JobRunner | None = None
        self._webhooks = webhooks
        self._oldest_at: float | None = None
        self._dead: int | None = None
        self._ended_at = clock.monotonic()
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._counts = {"documents_processed": 0, "processing_errors": 0}
        self._job_news: dict[str, asyncio.Event] = {}
        self._intake = Intake(
            settings,
            queue=queue,
            blobs=blobs,
            store=store,
            clock=clock,
            forecast=self._forecast,
            bracketed=self._bracketed,
            runner=self._required,
            record=record,
        )

    # service

    async def initialize(self) -> None:
        self._ended_at = self._clock.monotonic()
        await self._look()
        self._learnt = Learnt()
        for cost in await self._queue.costs(REMEMBERED):
            self._learnt = learn(self._learnt, cost)
        self._judge(await self._queue.forecasts(2 * JUDGED_JOBS))
        retry = RetrySettings(max_attempts=self._settings.max_attempts)
        self._runner = await JobRunner(
            self._queue,
            self._run,
            slots=self._settings.concurrent_documents,
            lease_s=self._settings.silence_s,
            retry=retry,
            clock=self._clock,
            rng=self._rng,
            on_end=self._ended,
        ).__aenter__()
        self._pruner = asyncio.create_task(self._prune(), name="prune-jobs")  # cancelled by shutdown
        if self._webhooks:
            await self._webhooks.__aenter__()

    async def shutdown(self) -> None:
        pruner, self._pruner = self._pruner, None
        if pruner:
            pruner.cancel()
            await asyncio.gather(pruner, return_exceptions=True)
        runner, self._runner = self._runner, None
        if runner:
            await runner.__aexit__()
            if self._webhooks:
                await self._webhooks.__aexit__()

    async def check_health(self) -> ServiceHealth:
        failure = self._runner.failure if self._runner else None
        if self._runner is None or failure:
            return ServiceHealth(NAME, Health.UNHEALTHY, details={"error": str(failure or "not running")})
        await self._look()
        self._judge(await self._queue.forecasts(2 * JUDGED_JOBS))
        found, details = self._stuck(), dict(self.stats())
        if found:
            details["reason"] = found.reason
        status = found.health if found else Health.HEALTHY
        return ServiceHealth(NAME, status, error_count=self._counts["processing_errors"], details=details)

    async def _look(self) -> None:
        """Read what ``stats`` tells of the queue, which must not wait for the disk."""
        await self._intake.look()
        self._oldest_at = await self._queue.oldest_at()
        self._dead = await self._queue.dead()

    @property
    def _oldest_s(self) -> float:
        return 0.0 if self._oldest_at is None else max(0.0, self._clock.now() - self._oldest_at)

    def _stuck(self) -> Signal | None:
        quiet_s = self._clock.monotonic() - self._ended_at
        return queue_signal(MachineSettings(), self._intake.load.documents, self._oldest_s, quiet_s)

    def stats(self) -> Mapping[str, Any]:
        average = sum(self._seconds) / len(self._seconds) if self._seconds else 0.0
        running = self._runner.running if self._runner else 0
        return {
            **self._counts,
            "average_processing_time": average,
            "queue_size": self._intake.load.documents,
            "queue_bytes": self._intake.load.size_bytes,
            "oldest_waiting_s": self._oldest_s,
            "dead_letters": self._dead,
            "running": running,
            **known_costs(self._learnt),
            **self._estimate_errors,
        }

    # submitting

    async def process_documents(
        self,
        collection: str,
        uploads: Sequence[Upload],
        *,
        idempotency_key: str | None = None,
        request_hash: str = "",
        wait: bool = True,
        priority: Priority = "normal",
        webhook_url: str | None = None,
    ) -> Submission:
        """Keep all documents durably and queue them, whole or not at all; then they cannot be lost.

        When all have ended, ``webhook_url`` is told so. Without room, waits for it, or raises QueueFull if ``wait`` is
        False. Raises InvalidInput if the URL cannot be used, SubmissionTooLarge if there can never be room,
        DocumentTooLarge if every document is too large (else such a document fails alone), CollectionNotFound,
        IdempotencyKeyReused, IdempotencyKeyInUse, StorageFull.
        """
        if webhook_url is not None:
            if self._webhooks is None:
                raise InvalidInput("this document_processor delivers no webhooks; submit without webhook_url")
            self._webhooks.check(webhook_url)
        return await self._intake.submit(
            collection,
            uploads,
            idempotency_key,
            request_hash,
            wait=wait,
            priority=priority,
            webhook_url=webhook_url,
        )

    # working

    async def _run(self, attempt: Attempt) -> Ingested:
        timer = _StageTimer(self._clock, self._on_stage_end)

        def entered(stage: Stage) -> None:
            timer.enter(stage)
            attempt.enter(stage)

        embedder = WatchedEmbedder(self._embedder, attempt, self._model_time)
        attempt.wait_for(WORKER)
        with timer:
            return await ingest(
                attempt.task, reader=self._reader, embedder=embedder, store=self._store, on_stage=entered
            )

    def _ended(self, task: Task, outcome: Outcome, seconds: float) -> None:
        self._on_document(outcome)
        self._tell(task.job_id)
        if outcome.kind in ("retried", "cancelled"):
            return
        if outcome.cost:
            self._learnt = learn(self._learnt, outcome.cost)
        self._intake.ended()
        self._ended_at = self._clock.monotonic()
        self._seconds.append(seconds)
        self._counts["processing_errors" if outcome.kind == "failed" else "documents_processed"] += 1

    def _forecast(self, work: Sequence[OpenWork], job_id: str) -> float:
        return completion_s(self._learnt, work, job_id, self._settings.concurrent_documents, self._workers())

    def _bracketed(self, expected_s: float) -> Interval:
        return bracket(expected_s, self._forecasts)

    def _judge(self, forecasts: Sequence[tuple[float, float]]) -> None:
        """Newest first: what the latest jobs say of the estimates, and what the next intervals are made of."""
        if self._estimate_errors and forecasts[:JUDGED_JOBS] == self._forecasts:
            return  # a hundred intervals take milliseconds of the event loop
        self._forecasts = forecasts[:JUDGED_JOBS]
        held = coverage(forecasts, JUDGED_JOBS)
        self._estimate_errors = {**errors(self._forecasts), "estimate_coverage": held}

    async def _prune(self) -> None:
        """Forget what ended long ago, for as long as the service runs."""
        while True:
            try:
                while (hashes := await self._queue.prune(self._clock.now() - self._settings.keep_jobs_s)) is not None:
                    await self._store.forget_blobs(hashes)
            except Exception as error:  # whatever the database says, it can be tried again
                log.error("jobs_not_pruned", action="jobs_not_pruned", error=repr(error))
            await self._clock.sleep(PRUNE_EVERY_S)

    # looking and steering

    async def jobs(self, limit: int, after: str | None) -> Page[Job]:
        return await self._queue.jobs(limit, after)

    async def job(self, job_id: str) -> Job:
        job = await self._queue.job(job_id)
        runner = self._runner
        if runner is None:
            return job
        shown = tuple(
            replace(one, stage=runner.stage_of(one.task_id) or one.stage)
            if one.status == TaskState.IN_PROGRESS
            else one
            for one in job.documents
        )
        return replace(await self._estimated(job), documents=shown)

    async def _estimated(self, job: Job) -> Job:
        """With what is left of it, unless it has ended."""
        if job.status in ENDED:
            return job
        expected_s = self._forecast(await self._queue.open_work(), job.id)
        return replace(
            job,
            estimated_completion_time=expected_s,
            estimated_completion_interval=self._bracketed(expected_s),
        )

    async def cancel(self, job_id: str) -> Job:
        """Cancel what has not ended; documents that are indexed stay."""
        hashes = await self._queue.cancel(job_id)
        if self._runner:
            self._runner.cancel_unless(lambda task: task.job_id != job_id)
        await self._store.forget_blobs(list(hashes))
        self._changed()
        self._tell(job_id)
        return await self.job(job_id)

    async def retry(self, job_id: str) -> Job:
        """Queue the failed documents of a job again, as many as there is room for. Raises QueueFull if none is."""
        await self._retry(job_id=job_id)
        return await self.job(job_id)

    async def dead_letters(self, limit: int, after: str | None) -> Page[DeadLetter]:
        """The documents whose last attempt failed, over all jobs."""
        return await self._queue.dead_letters(limit, after)

    async def retry_dead(self, task_id: str | None = None) -> Requeued:
        """Queue every dead letter again, or one, as many as there is room for. Raises QueueFull, DeadLetterNotFound."""
        done = await self._retry(task_id=task_id)
        if task_id and not done.queued:
            raise DeadLetterNotFound(task_id)
        return done

    async def _retry(self, **which: str | None) -> Requeued:
        done = await self._queue.retry(self._intake.room(1), **which)
        if done.left and not done.queued:
            raise await self._intake.refusal()
        self._changed()
        return done

    async def events(self, job_id: str) -> AsyncIterator[Job]:
        """The job now, then each time it changed, until it has ended. Raises JobNotFound."""
        last: Job | None = None
        while last is None or last.status not in ENDED:
            news = self._required().news
            job = await self.job(job_id)
            if last is None or _is_news(job, last):
                last = job
                yield job
            else:
                await self._required().changed(news, EVENT_WAIT_S)
                await self._clock.sleep(EVENT_GAP_S)

    async def finished(self, job_id: str) -> Job:
        """The job, once every document of it has ended. Raises JobNotFound."""
        while True:
            news = self._job_news.setdefault(job_id, asyncio.Event())
            if await self._queue.ended(job_id):
                self._tell(job_id)
                return await self.job(job_id)
            await self._required().changed(news, LOOK_AGAIN_S)

    def _tell(self, job_id: str) -> None:
        if news := self._job_news.pop(job_id, None):
            news.set()
        if self._webhooks:
            self._webhooks.wake()

    def _changed(self) -> None:
        if self._runner:
            self._runner.wake()
        if self._webhooks:
            self._webhooks.wake()

    def _required(self) -> JobRunner:
        if self._runner is None:
            raise NotReady("document_processor is not running; try again in a second")
        return self._runner


def _is_news(job: Job, last: Job) -> bool:
    before, now = last.estimated_completion_time or 0.0, job.estimated_completion_time or 0.0
    if abs(now - before) > MOVED * before:
        return True
    same = replace(
        job,
        estimated_completion_time=last.estimated_completion_time,
        estimated_completion_interval=last.estimated_completion_interval,
    )
    return same != last


class _StageTimer:
    """Seconds spent in each stage, told as the next one begins; and a span of each, also of one that failed."""

    def __init__(self, clock: Clock, tell: OnStageEnd) -> None:
        self._clock, self._tell = clock, tell
        self._attempt = tracing.current()
        self._stage: Stage | None = None
        self._span: Span | Off = OFF
        self._since = 0.0

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._span.end(error)
        tracing.resume(self._attempt)
        if error is None:
            self._end()

    def enter(self, stage: Stage) -> None:
        if stage == self._stage:  # a sign of progress within it
            return
        self._end()
        self._stage, self._since = stage, self._clock.monotonic()
        self._span = tracing.below(self._attempt, stage)
        tracing.resume(self._span if isinstance(self._span, Span) else self._attempt)

    def _end(self) -> None:
        self._span.end()
        if self._stage is not None:
            self._tell(self._stage, self._clock.monotonic() - self._since)
            self._stage = None
