"""What an Outbox promises: however a job ends, its caller is due to be told, once for each end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ragworks.storage.webhooks import SqliteWebhooks
from ragworks.types import Stage, Webhook
from stores import ROOM, Opened, incoming

URL = "https://example.com/ragworks"


@pytest.fixture
def outbox(storage: Opened) -> SqliteWebhooks:
    return SqliteWebhooks(storage.database, storage.clock)


async def submit(at: Opened, *ids: str, url: str | None = URL, **fields: object) -> str:
    accepted = await at.jobs.accept(
        "default", [incoming(one, **fields) for one in ids], ROOM, None, "", webhook_url=url
    )
    assert accepted is not None
    return accepted.job_id


async def finish_one(at: Opened) -> None:
    task = await at.jobs.claim()
    assert task
    await at.jobs.finish(task, unchanged=False, warnings=())


async def fail_one(at: Opened) -> None:
    task = await at.jobs.claim()
    assert task
    await at.jobs.fail(task, Stage.PARSING, "corrupt_document", "broken", None)


async def shown(at: Opened, job_id: str) -> Webhook:
    webhook = (await at.jobs.job(job_id)).webhook
    assert webhook
    return webhook


async def test_a_webhook_is_due_when_the_last_document_has_ended_and_not_before(
    storage: Opened, outbox: SqliteWebhooks
) -> None:
    job_id = await submit(storage, "a", "b", "c")
    for step in (finish_one, fail_one, finish_one):
        assert await outbox.due(9) == []
        await step(storage)
    [due] = await outbox.due(9)
    assert (due.job_id, due.url, due.attempts) == (job_id, URL, 0)
    assert await shown(storage, job_id) == Webhook(URL, "pending", 0, None, None)


async def _cancel(at: Opened, job_id: str) -> None:
    await at.jobs.cancel(job_id)


async def _delete(at: Opened, job_id: str) -> None:
    await at.store.delete_document("default", "a")


async def _drop(at: Opened, job_id: str) -> None:
    await at.store.drop_collection("default")


@pytest.mark.parametrize("end", [_cancel, _delete, _drop])
async def test_it_is_due_whatever_ended_the_job(
    storage: Opened, outbox: SqliteWebhooks, end: Callable[[Opened, str], Awaitable[None]]
) -> None:
    job_id = await submit(storage, "a")
    assert await outbox.due(9) == []
    await end(storage, job_id)
    assert [due.job_id for due in await outbox.due(9)] == [job_id]


async def test_a_job_whose_documents_were_all_refused_at_once_is_due_at_once(
    storage: Opened, outbox: SqliteWebhooks
) -> None:
    job_id = await submit(storage, "a", error_code="source_unreadable", error_message="gone")
    assert [due.job_id for due in await outbox.due(9)] == [job_id]


async def test_who_did_not_ask_is_not_told(storage: Opened, outbox: SqliteWebhooks) -> None:
    job_id = await submit(storage, "a", url=None)
    await finish_one(storage)
    assert await outbox.due(9) == []
    assert (await storage.jobs.job(job_id)).webhook is None


async def test_what_was_delivered_is_never_due_again(storage: Opened, outbox: SqliteWebhooks) -> None:
    job_id = await submit(storage, "a")
    await finish_one(storage)
    [due] = await outbox.due(9)
    await outbox.settle(due, None, None)
    await storage.clock.advance(1e6)
    assert await outbox.due(9) == []
    assert await shown(storage, job_id) == Webhook(URL, "delivered", 1, storage.clock.now() - 1e6, None)
    await storage.jobs.retry(ROOM, job_id=job_id)
    assert await outbox.due(9) == []


async def test_a_failed_attempt_is_due_again_after_its_wait_under_the_same_id(
    storage: Opened, outbox: SqliteWebhooks
) -> None:
    job_id = await submit(storage, "a")
    await finish_one(storage)
    [first] = await outbox.due(9)
    await outbox.settle(first, "it answered 503", 30.0)
    await storage.clock.advance(29)
    assert await outbox.due(9) == []
    assert await shown(storage, job_id) == Webhook(URL, "pending", 1, None, "it answered 503")
    await storage.clock.advance(2)
    [second] = await outbox.due(9)
    assert (second.id, second.attempts) == (first.id, 1)


async def test_a_webhook_that_was_given_up_is_sent_again_by_a_retry_of_its_job(
    storage: Opened, outbox: SqliteWebhooks
) -> None:
    job_id = await submit(storage, "a")
    await finish_one(storage)
    [due] = await outbox.due(9)
    await outbox.settle(due, "it answered 503; attempt 8 of 8 failed", None)
    assert await outbox.due(9) == []
    assert (await shown(storage, job_id)).status == "failed"
    assert (await storage.jobs.retry(ROOM, job_id=job_id)).queued == 0
    assert [one.job_id for one in await outbox.due(9)] == [job_id]


async def test_the_end_of_a_retried_job_is_news_of_its_own(storage: Opened, outbox: SqliteWebhooks) -> None:
    """With the first id, a receiver that keeps ids would drop it; and a late record of the first must not settle it."""
    job_id = await submit(storage, "a")
    await fail_one(storage)
    [first] = await outbox.due(9)
    await storage.jobs.retry(ROOM, job_id=job_id)
    await outbox.settle(first, None, None)
    assert await outbox.due(9) == []
    await finish_one(storage)
    [second] = await outbox.due(9)
    assert second.id != first.id
    assert (second.job_id, second.attempts) == (job_id, 0)


async def test_dead_letters_that_are_all_queued_again_make_the_end_of_each_of_their_jobs_news(
    storage: Opened, outbox: SqliteWebhooks
) -> None:
    jobs = [await submit(storage, name, url=f"https://{name}.test/") for name in ("a", "b")]
    for _ in jobs:
        await fail_one(storage)
    for due in await outbox.due(9):
        await outbox.settle(due, None, None)
    await storage.jobs.retry(ROOM)
    assert await outbox.due(9) == []
    for _ in jobs:
        await finish_one(storage)
    assert {due.job_id for due in await outbox.due(9)} == set(jobs)


async def test_each_receiver_gets_its_longest_due_first(storage: Opened, outbox: SqliteWebhooks) -> None:
    jobs = []
    for at, url in enumerate(["https://a.test/", "https://a.test/", "https://b.test/"]):
        jobs.append(await submit(storage, str(at), url=url))
        await finish_one(storage)
        await storage.clock.advance(1)
    assert [due.job_id for due in await outbox.due(9)] == [jobs[0], jobs[2]]
    assert [due.job_id for due in await outbox.due(1)] == [jobs[0]]
