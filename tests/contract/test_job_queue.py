"""What every storage_protocols.JobQueue promises."""

from __future__ import annotations

import asyncio

import pytest

from ragworks.errors import CollectionNotFound, IdempotencyKeyReused, InvalidInput, JobNotFound
from ragworks.records import Cost, Load, OpenWork, Requeued
from ragworks.types import Stage, Task, TaskState
from stores import ROOM, Opened, incoming, publish


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


async def test_a_lease_that_is_renewed_is_not_taken_over_and_one_that_runs_out_is(storage: Opened) -> None:
    """A process that died on another machine leaves nothing behind but a lease that nobody renews."""
    await submit(storage, "a")
    first = await storage.jobs.claim()
    assert first
    await storage.clock.advance(200)
    assert await storage.jobs.renew([first]) == frozenset()
    await storage.clock.advance(200)
    assert await storage.jobs.claim() is None
    assert await storage.jobs.next_due(storage.clock.now()) == storage.clock.now() + 100
    await storage.clock.advance(100)
    second = await storage.jobs.claim()
    assert second
    assert (second.id, second.attempts) == (first.id, 0)
    assert await storage.jobs.renew([first, second]) == {first.id}
    assert not await storage.jobs.finish(first, unchanged=False, warnings=())
    assert await storage.jobs.finish(second, unchanged=False, warnings=())


async def test_who_runs_a_task_never_takes_it_over_from_itself(storage: Opened) -> None:
    """A laptop that slept wakes with all leases run out, and its attempts where they were."""
    await submit(storage, "a")
    task = await storage.jobs.claim()
    assert task
    await storage.clock.advance(10_000)
    assert await storage.jobs.claim([task.lease]) is None
    assert await storage.jobs.renew([task]) == frozenset()


async def test_a_cancelled_task_has_no_lease_to_renew(storage: Opened) -> None:
    job_id = await submit(storage, "a")
    task = await storage.jobs.claim()
    assert task
    await storage.jobs.cancel(job_id)
    assert await storage.jobs.renew([task]) == {task.id}
    assert not await storage.jobs.fail(task, Stage.PARSING, "corrupt_document", "its bytes are gone", None)
    assert (await storage.jobs.job(job_id)).documents[0].error_code is None


async def test_one_document_behind_a_large_job_of_its_collection_has_the_next_turn(storage: Opened) -> None:
    await submit(storage, *(f"folder-{at}" for at in range(50)))
    for _ in range(4):
        await storage.jobs.claim()
    await submit(storage, "letter")
    task = await storage.jobs.claim()
    assert task
    assert task.document_id == "letter"


async def test_one_collection_leaves_a_quarter_of_the_slots_to_others(storage: Opened) -> None:
    await submit(storage, *(f"folder-{at}" for at in range(50)))
    claimed = [await storage.jobs.claim() for _ in range(13)]
    assert [bool(task) for task in claimed] == [True] * 12 + [False]
    await storage.rows.create_collection("other")
    await submit(storage, "letter", collection="other")
    task = await storage.jobs.claim()
    assert task
    assert task.document_id == "letter"


async def test_a_higher_priority_overtakes_and_a_lower_one_is_not_forgotten(storage: Opened) -> None:
    for priority in ("low", "normal", "high"):
        await storage.jobs.accept(
            "default", [incoming(f"{priority}-{at}") for at in range(12)], ROOM, None, "", priority=priority
        )
    order = []
    for _ in range(20):
        task = await storage.jobs.claim()
        assert task
        order.append(task.document_id.split("-")[0])
        await storage.jobs.finish(task, unchanged=False, warnings=())
    assert order[:8] == ["high"] * 8
    assert {"low", "normal"} <= set(order)


async def fail(at: Opened, *, retry_in_s: float | None = None) -> Task:
    task = await at.jobs.claim()
    assert task
    await at.jobs.fail(task, Stage.PARSING, "corrupt_document", f"{task.document_id} is cut off", retry_in_s)
    return task


async def test_dead_letters_of_all_jobs_are_listed_latest_first_page_by_page(storage: Opened) -> None:
    for name in ("a", "b", "c"):
        await submit(storage, name)
        await fail(storage)
    first = await storage.jobs.dead_letters(2, None)
    second = await storage.jobs.dead_letters(2, first.last_id)
    assert [one.id for one in (*first.data, *second.data)] == ["c", "b", "a"]
    assert (first.has_more, second.has_more) == (True, False)
    assert await storage.jobs.dead() == 3
    letter = first.data[0]
    assert (letter.error_code, letter.error_message, letter.attempts) == ("corrupt_document", "c is cut off", 1)
    assert (letter.stage, letter.failed_at) == (Stage.PARSING, storage.clock.now())


async def test_dead_letters_are_listed_behind_one_that_was_retried_and_never_from_the_top_again(
    storage: Opened,
) -> None:
    """Behind one that was forgotten meanwhile the first page came again, and whoever followed went in a circle."""
    for name in ("a", "b"):
        await submit(storage, name)
        await fail(storage)
    first = await storage.jobs.dead_letters(1, None)
    await storage.jobs.retry(ROOM, task_id=first.last_id)
    assert [one.id for one in (await storage.jobs.dead_letters(1, first.last_id)).data] == ["a"]
    with pytest.raises(InvalidInput, match="expected the task_id of a dead letter, found 'task_gone'"):
        await storage.jobs.dead_letters(1, "task_gone")


async def test_what_waits_for_another_attempt_or_was_submitted_again_is_no_dead_letter(storage: Opened) -> None:
    await submit(storage, "a")
    await fail(storage, retry_in_s=10)
    await submit(storage, "b")
    await fail(storage)
    await submit(storage, "b")
    assert (await storage.jobs.dead_letters(10, None)).data == ()
    assert await storage.jobs.dead() == 0


async def test_a_failed_document_is_not_retried_beside_a_newer_submission_of_it(storage: Opened) -> None:
    """Both would have run at once, and the older could have been published last."""
    old = await submit(storage, "a")
    await fail(storage)
    await submit(storage, "a")
    newer = await storage.jobs.claim()
    assert newer
    assert await storage.jobs.retry(ROOM, job_id=old) == Requeued(0, 0)
    assert await storage.jobs.claim() is None


async def test_a_retry_keeps_the_bounds_of_the_queue_and_says_what_is_left(storage: Opened) -> None:
    await submit(storage, "a", "b", "c")
    for _ in range(3):
        await fail(storage)
    assert await storage.jobs.retry(Load(2, 100)) == Requeued(2, 1)
    assert await storage.jobs.load() == Load(2, 2)
    [left] = (await storage.jobs.dead_letters(10, None)).data
    assert left.id == "c"
    assert await storage.jobs.retry(ROOM, task_id=left.task_id) == Requeued(1, 0)


async def test_jobs_that_ended_long_ago_are_forgotten_in_parts_and_others_are_not(storage: Opened) -> None:
    old = await submit(storage, *(f"old-{at}" for at in range(600)))
    await storage.jobs.cancel(old)
    key = await submit(storage, "keyed", key="k")
    await storage.jobs.cancel(key)
    still_open = await submit(storage, "open")
    await storage.clock.advance(100)
    young = await submit(storage, "young")
    await storage.jobs.cancel(young)
    before = storage.clock.now() - 50
    assert len(await storage.jobs.prune(before) or ()) == 500
    assert await storage.jobs.prune(before) == {f"hash-old-{at}" for at in range(500, 600)}
    assert await storage.jobs.prune(before) is None
    assert {job.id for job in (await storage.jobs.jobs(9, None)).data} == {key, still_open, young}
    await storage.clock.advance(24 * 3600)
    assert await storage.jobs.prune(before) == {"hash-keyed"}


async def test_the_cost_of_a_completed_document_is_kept_and_a_forecast_is_compared(storage: Opened) -> None:
    cost = Cost(".pdf", 1, 7, 0.5, 1.5)
    accepted = await storage.jobs.accept(
        "default", [incoming("a")], ROOM, None, "", forecast=lambda work, job: float(sum(one.documents for one in work))
    )
    assert accepted
    assert accepted.estimated_s == 1.0
    task = await storage.jobs.claim()
    assert task
    assert await storage.jobs.open_work() == [OpenWork(accepted.job_id, "default", 0, "", 1, incoming("a").size_bytes)]
    assert await storage.jobs.forecasts(10) == []
    await storage.clock.advance(4)
    await storage.jobs.finish(task, unchanged=False, warnings=(), cost=cost)
    assert await storage.jobs.costs(10) == [cost]
    assert await storage.jobs.forecasts(10) == [(1.0, 4.0)]
    assert await storage.jobs.open_work() == []


async def test_documents_whose_bytes_are_indexed_already_are_forecast_as_unchanged(storage: Opened) -> None:
    await publish(storage, "a", "the same text")
    seen: list[OpenWork] = []
    same = (await storage.store.document("default", "a")).content_hash
    await storage.jobs.accept(
        "default",
        [incoming("a", same), incoming("a", "another"), incoming("b", same)],
        ROOM,
        None,
        "",
        forecast=lambda work, job: seen.extend(work) or 0.0,
    )
    assert {one.kind: one.documents for one in seen} == {"unchanged": 2, "": 1}


async def test_tasks_carry_the_span_that_submitted_them_over_every_attempt(storage: Opened) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    await storage.jobs.accept("default", [incoming("traced")], ROOM, None, "", traceparent=parent)
    await submit(storage, "untraced")
    first = await storage.jobs.claim()
    assert first
    assert await storage.jobs.fail(first, Stage.PARSING, "worker_crashed", "it died", 0.0)
    await storage.jobs.recover()
    seen = {task.document_id: task.traceparent for _ in range(2) if (task := await storage.jobs.claim())}
    assert (first.traceparent, seen) == (parent, {"traced": parent, "untraced": None})
