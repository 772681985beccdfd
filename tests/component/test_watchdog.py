"""The job runner on a fake clock: attempts that hang, starve, are slow, lose their lease, or outlast the stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from structlog.testing import capture_logs

from ragworks.errors import StorageFull
from ragworks.ingest import Ingested
from ragworks.policies.retrying import RetrySettings
from ragworks.storage.jobs import SqliteJobs
from ragworks.testing import FakeClock, settle, until
from ragworks.types import Job, Stage, Task, TaskState
from ragworks.workers.attempt import WORKER, Attempt, SharedTime
from ragworks.workers.jobs import JobRunner, Outcome
from stores import ROOM, Opened, incoming

LEASE_S = 300.0  # as the queue of these tests leases

Run = Callable[[Attempt], Awaitable[Ingested]]


class Watch:
    """A runner over the queue of a test; ``outcomes`` are those of ended attempts."""

    def __init__(self, at: Opened, run: Run, max_attempts: int) -> None:
        self.at, self.outcomes = at, list[Outcome]()
        self.runner = JobRunner(
            at.jobs,
            run,
            slots=4,
            lease_s=LEASE_S,
            retry=RetrySettings(max_attempts=max_attempts),
            clock=at.clock,
            rng=Random(0),
            on_end=lambda task, outcome, seconds: self.outcomes.append(outcome),
        )

    async def submit(self, *ids: str) -> str:
        accepted = await self.at.jobs.accept("default", [incoming(one) for one in ids], ROOM, None, "")
        assert accepted
        self.runner.wake()
        return accepted.job_id

    async def job(self, job_id: str) -> Job:
        return await self.at.jobs.job(job_id)

    async def pass_time(self, seconds: float, step_s: float = LEASE_S / 10) -> None:
        """Time in small steps, each with the writes that it sets off: a real thread does them, one after the other."""
        for _ in range(round(seconds / step_s)):
            await self.at.clock.advance(step_s)
            await self.at.database.write(lambda db: None)
            await settle()

    async def taken_over(self) -> bool:
        """Whether another process finds a task whose lease ran out."""
        return await SqliteJobs(self.at.database, self.at.clock).claim() is not None


@asynccontextmanager
async def watching(at: Opened, run: Run, max_attempts: int = 2) -> AsyncIterator[Watch]:
    watch = Watch(at, run, max_attempts)
    async with watch.runner:
        yield watch


async def test_an_attempt_that_hangs_is_ended_tried_again_and_ends_among_the_dead_letters(storage: Opened) -> None:
    started: list[str] = []

    async def hang(attempt: Attempt) -> Ingested:
        attempt.enter(Stage.PARSING)
        started.append(attempt.task.id)
        await asyncio.Event().wait()
        raise AssertionError

    async with watching(storage, hang) as watch:
        job_id = await watch.submit("a")
        await until(lambda: started)
        await watch.pass_time(1.5 * LEASE_S)
        await until(lambda: watch.outcomes)
        assert [(one.kind, one.code) for one in watch.outcomes] == [("retried", "stalled")]
        await watch.pass_time(2 * LEASE_S)
        await until(lambda: len(watch.outcomes) == 2)
        [dead] = (await storage.jobs.dead_letters(9, None)).data
        assert (dead.error_code, dead.attempts, dead.stage) == ("stalled", 2, Stage.PARSING)
        assert "no sign of progress" in dead.error_message
        assert (await watch.job(job_id)).status == TaskState.FAILED


async def test_an_attempt_that_hangs_costs_its_neighbours_nothing(storage: Opened) -> None:
    async def run(attempt: Attempt) -> Ingested:
        attempt.enter(Stage.PARSING)
        if attempt.task.document_id == "hangs":
            await asyncio.Event().wait()
        return Ingested(unchanged=False)

    async with watching(storage, run) as watch:
        await watch.submit("hangs", "a", "b")
        await until(lambda: len(watch.outcomes) == 2)
        assert [one.kind for one in watch.outcomes] == ["completed", "completed"]


@pytest.mark.parametrize("waits", ["a worker", "the model"])
async def test_an_attempt_that_starves_keeps_its_lease_however_long(storage: Opened, waits: str) -> None:
    """With one worker and a long document before it, a document used to look dead while it had never begun."""
    served = asyncio.Event()

    async def starve(attempt: Attempt) -> Ingested:
        if waits == "a worker":
            attempt.wait_for(WORKER)
            await served.wait()
            attempt.enter(Stage.PARSING)
        else:
            attempt.enter(Stage.EMBEDDING)
            with attempt.embedding(1, SharedTime(storage.clock)):
                await served.wait()
        return Ingested(unchanged=False)

    async with watching(storage, starve) as watch:
        job_id = await watch.submit("a")
        with capture_logs() as logs:
            await watch.pass_time(10 * LEASE_S)
        assert not await watch.taken_over()
        assert [(one["verdict"], one["event"]) for one in logs] == [("starved", "attempt_judged")]
        assert waits in logs[0]["reason"]
        served.set()
        await until(lambda: watch.outcomes)
        assert (await watch.job(job_id)).documents[0].attempts == 0
        assert watch.outcomes[0].kind == "completed"


async def test_a_slow_attempt_is_not_taken_for_a_dead_one(storage: Opened) -> None:
    ended = asyncio.Event()

    async def slow(attempt: Attempt) -> Ingested:
        while not ended.is_set():
            attempt.enter(Stage.PARSING)
            await storage.clock.sleep(LEASE_S / 2)
        return Ingested(unchanged=False)

    async with watching(storage, slow) as watch:
        await watch.submit("a")
        with capture_logs() as logs:
            await watch.pass_time(5 * LEASE_S)
        assert [one["verdict"] for one in logs] == ["slow"]
        assert not watch.outcomes
        assert not await watch.taken_over()
        ended.set()
        await watch.pass_time(LEASE_S)
        await until(lambda: watch.outcomes)
        assert watch.outcomes[0].kind == "completed"


async def test_an_attempt_that_waits_for_a_full_disk_is_handed_back_without_counting(
    storage: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, full = storage.jobs.release, [True]

    async def refused(task: Task) -> None:
        if full:
            raise StorageFull("the disk is full")
        await release(task)

    async def run(attempt: Attempt) -> Ingested:
        attempt.enter(Stage.STORING)
        raise StorageFull("the disk is full")

    monkeypatch.setattr(storage.jobs, "release", refused)
    async with watching(storage, run) as watch:
        job_id = await watch.submit("a")
        await until(lambda: watch.runner.running)
        await watch.pass_time(3 * LEASE_S)
        assert watch.runner.running
        full.clear()
        await watch.pass_time(LEASE_S / 10)
        await until(lambda: watch.outcomes)
        assert watch.outcomes[0].kind == "retried"
        assert (await watch.job(job_id)).documents[0].attempts == 0


async def test_who_lost_its_lease_is_stopped_and_no_failure_is_told(storage: Opened) -> None:
    """Whatever a cancelled attempt runs into, as bytes that are gone, is no failure of the document."""
    gone = asyncio.Event()

    async def run(attempt: Attempt) -> Ingested:
        attempt.enter(Stage.PARSING)
        if attempt.task.document_id == "stuck":
            await asyncio.Event().wait()
        await gone.wait()
        raise FileNotFoundError("the bytes are gone")

    async with watching(storage, run) as watch:
        job_id = await watch.submit("stuck", "deleted")
        await until(lambda: watch.runner.running == 2)
        await storage.jobs.cancel(job_id)  # by another process, or with the document
        with capture_logs() as logs:
            gone.set()
            await watch.pass_time(LEASE_S)
            await until(lambda: len(watch.outcomes) == 2)
        assert [one.kind for one in watch.outcomes] == ["cancelled", "cancelled"]
        assert [one for one in logs if one["log_level"] in ("warning", "error")] == []


async def test_leases_are_renewed_until_the_last_attempt_has_ended_while_the_server_stops(storage: Opened) -> None:
    ended = asyncio.Event()

    async def run(attempt: Attempt) -> Ingested:
        attempt.wait_for(WORKER)
        await ended.wait()
        return Ingested(unchanged=False)

    async with watching(storage, run) as watch:
        await watch.submit("a")
        await until(lambda: watch.runner.running)
        stopping = asyncio.ensure_future(watch.runner.__aexit__())
        await watch.pass_time(3 * LEASE_S)
        assert not stopping.done()
        assert not await watch.taken_over()
        ended.set()
        await stopping
        assert [one.kind for one in watch.outcomes] == ["completed"]


async def test_the_time_of_the_model_is_charged_by_texts_and_adds_up() -> None:
    clock = FakeClock()
    shared = SharedTime(clock)
    many = shared.begin(3)
    await clock.advance(1)
    one = shared.begin(1)
    await clock.advance(4)
    assert shared.end(3, many) == pytest.approx(1 + 3)
    await clock.advance(2)
    assert shared.end(1, one) == pytest.approx(1 + 2)
