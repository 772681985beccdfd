"""The loop over an Outbox: tells those who asked for it that their job has ended, signed as Standard Webhooks has it.

At least once: a crash between the receiver's answer and the record of it repeats the delivery, under the same id.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, Protocol

import httpx
import structlog

from ragworks.errors import InvalidInput, InvalidSettings
from ragworks.policies.delivering import Reply, Verdict, decide
from ragworks.policies.retrying import named_s
from ragworks.protocols import Clock
from ragworks.records import DueWebhook
from ragworks.types import Job
from ragworks.waiting import news_or_time

log = structlog.get_logger("ragworks.webhooks")

AT_ONCE = 16  # receivers that are told at a time; each has one delivery under way, so a slow one delays its own
LOOK_AGAIN_S = 5.0
DRAIN_S = 5.0
MAX_URL_CHARACTERS = 2048
SECRET_PREFIX = "whsec_"
KEY_BYTES = (24, 64)  # by the specification

OnOutcome = Callable[[str], None]
Payload = Callable[[Job], Mapping[str, Any]]


class Outbox(Protocol):
    """The webhooks that are to be delivered: at least once each, whatever crashes in between."""

    async def due(self, limit: int) -> Sequence[DueWebhook]:
        """Of jobs that have ended, those whose time has come, longest due first, one for each URL."""
        ...

    async def settle(self, due: DueWebhook, error: str | None, retry_in_s: float | None) -> None:
        """Record an attempt: delivered if ``error`` is None, due again after ``retry_in_s``, or given up.

        Changes nothing when the job was queued again meanwhile: its end will be another delivery.
        """
        ...


class Webhooks:
    """Delivers what is due, a bounded number at a time. An async context manager; leaving it drains.

    ``payload`` makes a job's body; ``on_outcome`` hears delivered, retried or failed. Without a ``secret`` nothing is
    delivered: what is due waits for a server that has one. Raises InvalidSettings if the secret cannot be used.
    """

    def __init__(
        self,
        outbox: Outbox,
        job: Callable[[str], Awaitable[Job]],
        *,
        secret: str,
        timeout_s: float,
        payload: Payload,
        clock: Clock,
        rng: Random,
        on_outcome: OnOutcome = lambda outcome: None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._outbox, self._job, self._payload = outbox, job, payload
        self._key = signing_key(secret) if secret else b""
        self._clock, self._rng, self._on_outcome = clock, rng, on_outcome
        self._timeout_s, self._transport = timeout_s, transport
        self._http: httpx.AsyncClient | None = None
        self._running: dict[str, asyncio.Task[None]] = {}  # by URL
        self._news = asyncio.Event()
        self._stopping = False
        self._dispatcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Webhooks:
        if self._key:
            self._stopping = False
            self._http = httpx.AsyncClient(transport=self._transport, timeout=self._timeout_s, follow_redirects=False)
            # Awaited by __aexit__; it outlives whatever the outbox says.
            self._dispatcher = asyncio.create_task(self._dispatch(), name="webhook-dispatcher")
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Begin no more, let running deliveries end for a while, cancel the rest: the next start repeats them."""
        self._stopping = True
        self.wake()
        if self._dispatcher:
            await asyncio.gather(self._dispatcher, return_exceptions=True)
        if self._running:
            _, late = await asyncio.wait(set(self._running.values()), timeout=DRAIN_S)
            for one in late:
                one.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._http:
            await self._http.aclose()

    def wake(self) -> None:
        """A job may have ended: look now."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def check(self, url: str) -> None:
        """Raises InvalidInput when nothing could be delivered to ``url``."""
        check_url(url)
        if not self._key:
            raise InvalidInput(
                "webhook_url needs a server that can sign what it sends: set document_processor.webhook_secret "
                "(RAGWORKS_DOCUMENT_PROCESSOR__WEBHOOK_SECRET), or leave it out and follow the job's events"
            )

    async def _dispatch(self) -> None:
        while not self._stopping:
            news = self._news
            for due in await self._due():
                # Awaited by __aexit__, or done before.
                task = asyncio.create_task(self._deliver(due), name=f"webhook-{due.id}")
                self._running[due.url] = task
                task.add_done_callback(lambda _, url=due.url: self._over(url))  # type: ignore[misc]
            if not self._stopping:
                await news_or_time(news, self._clock, LOOK_AGAIN_S)

    def _over(self, url: str) -> None:
        del self._running[url]
        self.wake()

    async def _due(self) -> Sequence[DueWebhook]:
        """What may begin now."""
        # Taken before the look: a delivery that ends meanwhile may still be due in what it sees.
        busy = set(self._running)
        free = AT_ONCE - len(busy)
        if free == 0:
            return []
        try:
            due = await self._outbox.due(2 * AT_ONCE)  # of these, no more than AT_ONCE can be under way
        except Exception as error:  # whatever the database says, this loop must go on
            log.error("webhooks_failed", action="webhooks_failed", error=repr(error), pause_s=LOOK_AGAIN_S)
            return []
        return [one for one in due if one.url not in busy][:free]

    async def _deliver(self, due: DueWebhook) -> None:
        try:
            job = await self._job(due.job_id)
            if job.finished_at is None:
                return  # queued again meanwhile: its end will be another delivery
            body = json.dumps(self._payload(job), ensure_ascii=False).encode()
            reply = await self._post(due, body)
        except Exception as error:  # a fault of ours in one delivery must not end the others
            log.exception("webhook_crashed", action="webhook_crashed", job_id=due.job_id)
            reply = Reply(None, f"{type(error).__name__}: {error}")
        verdict = decide(reply, due.attempts + 1, self._rng)
        await self._record(due, verdict)
        self._on_outcome(verdict.outcome)
        _log(due, verdict)

    async def _post(self, due: DueWebhook, body: bytes) -> Reply:
        assert self._http is not None
        headers = signed_headers(self._key, due.id, int(self._clock.now()), body)
        try:
            # The outer limit is for a receiver that answers a byte at a time; the body of an answer is not read at all.
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.stream("POST", due.url, content=body, headers=headers) as response,
            ):
                pause = named_s(response.headers.get("Retry-After", ""), self._clock.now())
                return Reply(response.status_code, retry_after_s=pause)
        except (TimeoutError, httpx.TimeoutException):
            return Reply(None, f"the receiver did not answer within {self._timeout_s:g} s")
        except httpx.HTTPError as error:
            return Reply(None, f"the receiver cannot be reached: {error or type(error).__name__}")

    async def _record(self, due: DueWebhook, verdict: Verdict) -> None:
        """Say what came of an attempt, however long the disk is full: what is not recorded would be sent again."""
        error = None if verdict.outcome == "delivered" else verdict.reason
        while True:
            try:
                return await self._outbox.settle(due, error, verdict.delay_s)
            except Exception as failure:  # full disk or locked database
                log.error("webhooks_failed", action="webhooks_failed", error=repr(failure), pause_s=LOOK_AGAIN_S)
                await self._clock.sleep(LOOK_AGAIN_S)


def signed_headers(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a delivery, by https://www.standardwebhooks.com."""
    digest = hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "Content-Type": "application/json",
        "User-Agent": "ragworks",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def signing_key(secret: str) -> bytes:
    """The bytes that a secret stands for, as every Standard Webhooks library reads it. Raises InvalidSettings."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    least, most = KEY_BYTES
    if not least <= len(key) <= most:
        raise InvalidSettings(
            f"document_processor.webhook_secret must be {SECRET_PREFIX} and {least} to {most} random bytes in base64, "
            f"found {len(secret)} characters that are not; make one: echo {SECRET_PREFIX}$(openssl rand -base64 32)"
        )
    return key


def check_url(url: str) -> None:
    """Raises InvalidInput unless ``url`` can be called: http or https, a host, and no credentials."""
    problem = _problem(url)
    if problem:
        raise InvalidInput(
            f"webhook_url must be an address such as https://example.com/ragworks of at most {MAX_URL_CHARACTERS} "
            f"characters, {problem}"
        )


def _problem(url: str) -> str | None:
    if len(url) > MAX_URL_CHARACTERS:
        return f"found {len(url)} characters"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        return f"found one that cannot be read: {error}"
    if parsed.scheme not in ("http", "https") or not parsed.host:
        return f"found {url[:60]!r}: give the scheme http or https, and a host"
    if parsed.port is not None and not 0 < parsed.port < 65536:
        return f"found the port {parsed.port}"
    if parsed.userinfo:
        return "found one with a user name or password: they would be stored and shown; the signature says who calls"
    return None


def _log(due: DueWebhook, verdict: Verdict) -> None:
    # The host alone: what else is in a URL may be the receiver's secret.
    fields = {"job_id": due.job_id, "webhook": due.id, "receiver": httpx.URL(due.url).host, "attempt": due.attempts + 1}
    action = f"webhook_{verdict.outcome}"
    if verdict.outcome == "delivered":
        log.info(action, action=action, **fields)
    elif verdict.outcome == "retried":
        log.warning(action, action=action, reason=verdict.reason, retry_in_s=verdict.delay_s, **fields)
    else:
        log.error(action, action=action, reason=verdict.reason, **fields)
