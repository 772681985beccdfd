"""What every protocols.JobQueue promises."""

from __future__ import annotations

import asyncio

import pytest

from ragworks.errors import CollectionNotFound, IdempotencyKeyReused, JobNotFound
from ragworks.records import Load, Requeued
from ragworks.types import Stage, TaskState
from stores import ROOM, Opened, incoming


async def submit(at: Opened, *ids: str, collection: str = "default", key: str | None = None, body: str = "") -> str:
    accepted = await at.jobs.accept(collection, [incoming(one) for one in ids], ROOM, key, body)
    assert accepted is not None
    return accepted.job_id


async def test_documents_come_out_in_the_order_they_went_in(storage: Opened) -> None:
    await submit(storage, "a", "b", "c")
    claimed = [await storage.jobs.claim() for _ in range(4)]
    assert [task and task.document_id for task in claimed] == ["a", "b", "c", None]


async def test_a_submission_that_does_not_fit_is_not_accepted_in_part(storage: Opened) -> None:
    await submit(storage, "a", "b")
    assert await storage.jobs.accept("default", [incoming("c"), incoming("d")], Load(3, 100), None, "") is None
    assert await storage.jobs.accept("default", [incoming("c", size_bytes=99)], Load(9, 100), None, "") is None
    assert await storage.jobs.load() == Load(2, 2)


async def test_a_small_collection_is_not_starved_by_a_large_job(storage: Opened) -> None:
    """One huge job used to mean that everybody else waits until it is through."""
    await storage.rows.create_collection("small")
    await submit(storage, *(f"big-{at}" for at in range(50)))
    first = await storage.jobs.claim()
    await submit(storage, "urgent", collection="small")
    second = await storage.jobs.claim()
    assert first
    assert second
    assert (first.collection, second.collection) == ("default", "small")


async def test_two_submissions_of_one_document_never_run_at_once_and_keep_their_order(storage: Opened) -> None:
    await submit(storage, "same")
    await submit(storage, "same", "other")
    first, second = await storage.jobs.claim(), await storage.jobs.claim()
    assert first
    assert second
    assert (first.document_id, second.document_id) == ("same", "other")
    assert await storage.jobs.claim() is None
    await storage.jobs.finish(first, unchanged=False, warnings=())
    third = await storage.jobs.claim()
    assert third
    assert third.document_id == "same"


async def test_an_attempt_that_lost_its_lease_changes_nothing(storage: Opened) -> None:
    job = await submit(storage, "a")
    old = await storage.jobs.claim()
    assert old
    assert await storage.jobs.recover() == 1
    new = await storage.jobs.claim()
    assert new
    assert new.lease != old.lease
    await storage.jobs.finish(old, unchanged=True, warnings=())
    assert (await storage.jobs.job(job)).status == TaskState.IN_PROGRESS


async def test_what_a_dead_server_held_runs_again_without_costing_an_attempt(storage: Opened) -> None:
    await submit(storage, "a")
    await storage.jobs.claim()
    await storage.jobs.recover()
    again = await storage.jobs.claim()
    assert again
    assert again.attempts == 0


async def test_a_failed_attempt_waits_for_its_time_then_runs_again(storage: Opened) -> None:
    await submit(storage, "a")
    task = await storage.jobs.claim()
    assert task
    await storage.jobs.fail(task, Stage.PARSING, "worker_crashed", "it died", retry_in_s=10)
    assert await storage.jobs.claim() is None
    assert await storage.jobs.next_due(0) == storage.clock.now() + 10
    await storage.clock.advance(10)
    again = await storage.jobs.claim()
    assert again
    assert again.attempts == 1


async def test_a_document_that_failed_for_good_names_stage_code_and_message(storage: Opened) -> None:
    job_id = await submit(storage, "bad", "good")
    for _ in range(2):
        task = await storage.jobs.claim()
        assert task
        if task.document_id == "bad":
            await storage.jobs.fail(task, Stage.PARSING, "corrupt_document", "not a PDF", retry_in_s=None)
        else:
            await storage.jobs.finish(task, unchanged=False, warnings=["page 3: unreadable"])
    job = await storage.jobs.job(job_id)
    bad, good = job.documents
    assert (bad.status, bad.stage, bad.error_code, bad.error_message) == (
        TaskState.FAILED,
        Stage.PARSING,
        "corrupt_document",
        "not a PDF",
    )
    assert good.warnings == ("page 3: unreadable",)
    assert job.file_counts == {"total": 2, "in_progress": 0, "completed": 1, "failed": 1, "cancelled": 0}
    assert job.status == TaskState.COMPLETED


async def test_a_job_fails_only_when_every_document_failed(storage: Opened) -> None:
    job_id = await submit(storage, "bad")
    task = await storage.jobs.claim()
    assert task
    await storage.jobs.fail(task, Stage.PARSING, "empty_document", "nothing in it", retry_in_s=None)
    assert (await storage.jobs.job(job_id)).status == TaskState.FAILED
    assert await storage.jobs.retry(ROOM, job_id=job_id) == Requeued(1, 0)
    assert (await storage.jobs.job(job_id)).status == TaskState.QUEUED


async def test_cancel_ends_what_has_not_ended(storage: Opened) -> None:
    job_id = await submit(storage, "a", "b")
    running = await storage.jobs.claim()
    assert await storage.jobs.cancel(job_id) == {"hash-a", "hash-b"}
    assert (await storage.jobs.job(job_id)).status == TaskState.CANCELLED
    assert running
    await storage.jobs.finish(running, unchanged=False, warnings=())
    assert (await storage.jobs.job(job_id)).file_counts["cancelled"] == 2


async def test_an_idempotency_key_stands_for_its_first_request_for_a_day(storage: Opened) -> None:
    first = await submit(storage, "a", key="k", body="x")
    assert await submit(storage, "a", key="k", body="x") == first
    with pytest.raises(IdempotencyKeyReused):
        await submit(storage, "a", key="k", body="other")
    await storage.clock.advance(24 * 3600 + 1)
    assert await submit(storage, "a", key="k", body="other") != first


async def test_ids_stay_unique_when_many_are_accepted_in_the_same_instant(storage: Opened) -> None:
    """Ids made of the second on the clock collided."""
    jobs = await asyncio.gather(*(submit(storage, f"d{at}") for at in range(50)))
    assert len(set(jobs)) == 50


async def test_jobs_are_listed_newest_first_page_by_page(storage: Opened) -> None:
    made = [await submit(storage, f"d{at}") for at in range(5)]
    first = await storage.jobs.jobs(2, None)
    second = await storage.jobs.jobs(3, first.last_id)
    assert [job.id for job in (*first.data, *second.data)] == made[::-1]
    assert (first.has_more, second.has_more) == (True, False)


async def test_what_is_not_there_is_named(storage: Opened) -> None:
    with pytest.raises(JobNotFound, match="job_none"):
        await storage.jobs.job("job_none")
    with pytest.raises(CollectionNotFound, match="nowhere"):
        await submit(storage, "a", collection="nowhere")
