"""Deliveries from a real outbox to a scripted receiver, on a fake clock."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sqlite3
from collections.abc import Callable
from email.utils import formatdate
from random import Random
from typing import Any

import httpx
import pytest

from ragworks.api.schemas import job, job_event
from ragworks.errors import InvalidInput, InvalidSettings, StorageFull
from ragworks.records import DueWebhook
from ragworks.storage.webhooks import SqliteWebhooks
from ragworks.testing import until
from ragworks.types import Webhook
from ragworks.workers.webhooks import LOOK_AGAIN_S, Webhooks, signed_headers, signing_key
from stores import ROOM, Opened, incoming

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
URL = "https://example.com/ragworks"


class Receiver:
    """Answers with what ``answers`` holds, then 204; hangs at hosts that are named ``slow``, until it is released."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response | Exception] = []
        self.requests: list[httpx.Request] = []
        self.release = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host.startswith("slow"):
            await self.release.wait()
        answer = self.answers.pop(0) if self.answers else httpx.Response(204)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.requests]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


Make = Callable[..., Webhooks]


@pytest.fixture
def webhooks(storage: Opened, receiver: Receiver) -> Make:
    def make(**changes: Any) -> Webhooks:
        given = {"secret": SECRET, "timeout_s": 5.0, "payload": job_event, "clock": storage.clock, "rng": Random(0)}
        outbox = changes.pop("outbox", None) or SqliteWebhooks(storage.database, storage.clock)
        return Webhooks(outbox, storage.jobs.job, transport=httpx.MockTransport(receiver), **{**given, **changes})

    return make


async def ended(at: Opened, document_id: str = "a", url: str = URL) -> str:
    """A job of one document that has ended."""
    accepted = await at.jobs.accept("default", [incoming(document_id)], ROOM, None, "", webhook_url=url)
    task = await at.jobs.claim()
    assert accepted
    assert task
    await at.jobs.finish(task, unchanged=False, warnings=())
    return accepted.job_id


async def shown(at: Opened, job_id: str) -> Webhook:
    webhook = (await at.jobs.job(job_id)).webhook
    assert webhook
    return webhook


async def becomes(at: Opened, job_id: str, status: str, attempts: int) -> Webhook:
    """The webhook, once it says so; the clock runs while it does not."""
    for _ in range(20_000):
        webhook = await shown(at, job_id)
        if (webhook.status, webhook.attempts) == (status, attempts):
            return webhook
        await at.clock.advance(LOOK_AGAIN_S)
    raise AssertionError(f"it never became {status} after {attempts} attempts")


async def test_the_receiver_gets_the_job_as_a_get_shows_it_signed_as_the_standard_says(
    storage: Opened, receiver: Receiver, webhooks: Make
) -> None:
    began, job_id = storage.clock.now(), await ended(storage)
    as_shown = job(await storage.jobs.job(job_id)).model_dump(mode="json")
    async with webhooks():
        await becomes(storage, job_id, "delivered", 1)
    [request] = receiver.requests
    assert json.loads(request.content) == {"type": "job.completed", **as_shown}
    stamp = request.headers["webhook-timestamp"]
    signed = b".".join([request.headers["webhook-id"].encode(), stamp.encode(), request.content])
    digest = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{digest}"
    assert began <= int(stamp) <= storage.clock.now()
    assert request.headers["content-type"] == "application/json"


async def test_a_receiver_that_is_down_is_tried_again_under_the_same_id_until_it_answers(
    storage: Opened, receiver: Receiver, webhooks: Make
) -> None:
    receiver.answers = [httpx.Response(500), httpx.ConnectError("refused"), httpx.Response(404)]
    outcomes: list[str] = []
    job_id = await ended(storage)
    async with webhooks(on_outcome=outcomes.append):
        assert (await becomes(storage, job_id, "delivered", 4)).error is None
    assert len(set(receiver.ids)) == 1
    assert outcomes == ["retried", "retried", "retried", "delivered"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(503), "the receiver answered 503"),
        (httpx.ConnectError("refused"), "the receiver cannot be reached: refused"),
        # Followed, it would let whoever controls the receiver have the server call addresses inside its own network.
        (httpx.Response(302, headers={"Location": "http://169.254.169.254/"}), "redirects are not followed"),
    ],
)
async def test_a_receiver_that_never_answers_well_is_given_up_with_the_reason(
    storage: Opened, receiver: Receiver, webhooks: Make, answer: httpx.Response | Exception, reason: str
) -> None:
    receiver.answers = [answer for _ in range(9)]
    outcomes: list[str] = []
    job_id = await ended(storage)
    async with webhooks(on_outcome=outcomes.append):
        webhook = await becomes(storage, job_id, "failed", 8)
        await storage.clock.advance(24 * 3600)
    assert reason in str(webhook.error)
    assert "attempt 8 of 8 failed" in str(webhook.error)
    assert outcomes == [*["retried"] * 7, "failed"]
    assert [request.url for request in receiver.requests] == [URL] * 8


async def test_410_ends_it_at_once(storage: Opened, receiver: Receiver, webhooks: Make) -> None:
    receiver.answers = [httpx.Response(410)]
    job_id = await ended(storage)
    async with webhooks():
        await becomes(storage, job_id, "failed", 1)


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_the_time_that_a_receiver_names_is_waited_for(
    storage: Opened, receiver: Receiver, webhooks: Make, form: str
) -> None:
    began = storage.clock.now()
    named = "3000" if form == "seconds" else formatdate(began + 3000, usegmt=True)
    receiver.answers = [httpx.Response(429, headers={"Retry-After": named})]
    job_id = await ended(storage)
    async with webhooks():
        await becomes(storage, job_id, "delivered", 2)
    _, second = receiver.requests
    assert int(second.headers["webhook-timestamp"]) >= began + 3000


async def test_a_slow_receiver_delays_its_own_deliveries_and_nobody_elses(
    storage: Opened, receiver: Receiver, webhooks: Make
) -> None:
    for at in range(40):
        await ended(storage, f"slow-{at}", url="https://slow.test/")
    quick = await ended(storage, "quick", url="https://quick.test/")
    async with webhooks():
        await becomes(storage, quick, "delivered", 1)
        await until(lambda: len(receiver.requests) == 2)  # the slow one may come after the quick one's answer
        assert sorted(request.url.host for request in receiver.requests) == ["quick.test", "slow.test"]
        receiver.release.set()
        await until(lambda: len(receiver.requests) == 41, turns=60_000)
    assert len(set(receiver.ids)) == 41


async def test_a_receiver_that_keeps_silent_is_left_after_the_time_limit(
    storage: Opened, receiver: Receiver, webhooks: Make
) -> None:
    job_id = await ended(storage, url="https://slow.test/")
    async with webhooks(timeout_s=0.01):
        webhook = await becomes(storage, job_id, "failed", 8)
    assert str(webhook.error).startswith("the receiver did not answer within 0.01 s")


async def test_a_job_that_ends_while_it_runs_is_told_without_waiting_for_the_next_look(
    storage: Opened, receiver: Receiver, webhooks: Make
) -> None:
    async with webhooks() as running:
        await ended(storage)
        running.wake()
        await until(lambda: receiver.requests)


async def test_a_delivery_that_a_stop_cut_short_is_repeated_by_the_next_start(
    storage: Opened, receiver: Receiver, webhooks: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragworks.workers.webhooks.DRAIN_S", 0.01)
    job_id = await ended(storage, url="https://slow.test/")
    async with webhooks():
        await until(lambda: receiver.requests)
    receiver.release.set()
    async with webhooks():
        await becomes(storage, job_id, "delivered", 1)
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1


class Unreliable(SqliteWebhooks):
    """Raises what ``failures`` holds before it does anything."""

    failures: list[Exception]

    async def due(self, limit: int) -> Any:
        if self.failures and isinstance(self.failures[0], sqlite3.Error):
            raise self.failures.pop(0)
        return await super().due(limit)

    async def settle(self, due: DueWebhook, error: str | None, retry_in_s: float | None) -> None:
        if self.failures:
            raise self.failures.pop(0)
        await super().settle(due, error, retry_in_s)


@pytest.mark.parametrize("failure", [sqlite3.OperationalError("database is locked"), StorageFull("no room")])
async def test_a_database_that_refuses_for_a_while_neither_ends_deliveries_nor_repeats_them(
    storage: Opened, receiver: Receiver, webhooks: Make, failure: Exception
) -> None:
    outbox = Unreliable(storage.database, storage.clock)
    outbox.failures = [failure, failure]
    job_id = await ended(storage)
    async with webhooks(outbox=outbox):
        await becomes(storage, job_id, "delivered", 1)
    assert len(receiver.requests) == 1


async def test_without_a_secret_what_is_due_waits_for_a_server_that_has_one(
    storage: Opened, receiver: Receiver, webhooks: Make
) -> None:
    job_id = await ended(storage)
    async with webhooks(secret="") as unsigned:
        with pytest.raises(InvalidInput, match=r"set document_processor\.webhook_secret"):
            unsigned.check(URL)
        await storage.clock.advance(3600)
    assert receiver.requests == []
    async with webhooks():
        await becomes(storage, job_id, "delivered", 1)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://",
        "https:///path",
        "https://user:secret@example.com/",
        "https://token@example.com/",
        "http://example.com:99999/",
        "http://[::1/",
        "http://exa\nmple.com/",
        f"https://example.com/{'x' * 2048}",
    ],
)
async def test_an_address_that_cannot_be_used_is_refused_and_a_password_in_it_is_not_repeated(
    webhooks: Make, url: str
) -> None:
    with pytest.raises(InvalidInput, match="webhook_url must be an address") as refused:
        webhooks().check(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/x?key=1", "https://example.com", "https://[::1]:8443/", URL])
async def test_an_address_that_can_be_called_is_accepted(webhooks: Make, url: str) -> None:
    webhooks().check(url)


def test_the_signature_is_that_of_the_standards_own_example() -> None:
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_read_as_every_library_of_the_standard_reads_it() -> None:
    assert signing_key(SECRET) == signing_key(SECRET.removeprefix("whsec_")) == KEY


@pytest.mark.parametrize("secret", ["hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "A" * 400, "whsec_ä"])
def test_a_secret_that_is_weak_or_no_base64_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidSettings, match=r"document_processor\.webhook_secret must be") as refused:
        signing_key(secret)
    assert secret.removeprefix("whsec_") == "" or secret.removeprefix("whsec_") not in str(refused.value)
