"""Gives a server any number of documents at the pace that it asks for, and follows them to their end."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ragworks.client import FINAL, Client, Json
from ragworks.errors import ServerProblem

T = TypeVar("T")

BATCH_ITEMS = 64  # open files at once; far below any limit, and enough to keep the queue filled
BATCH_BYTES = 32 * 1024**2


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that is not in, and why."""

    name: str
    code: str
    message: str
    stage: str | None = None


@dataclass(slots=True)
class Tally:
    """Where a feed stands. ``done`` counts documents that have ended, however."""

    total: int
    jobs: list[str] = field(default_factory=list)
    accepted: int = 0
    completed: int = 0
    unchanged: int = 0
    cancelled: int = 0
    failed: list[Failure] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    stages: Counter[str] = field(default_factory=Counter)
    running: dict[str, int] = field(default_factory=dict)
    """Documents that have ended, per job that has not."""
    latest: dict[str, Json] = field(default_factory=dict)
    """What was last told of each job that has not ended."""

    @property
    def done(self) -> int:
        return self.completed + self.cancelled + len(self.failed) + sum(self.running.values())


def batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """``items`` in order, cut so that each batch keeps both limits; an item beyond them travels alone."""
    batch: list[T] = []
    total = 0
    for item in items:
        if batch and (len(batch) == BATCH_ITEMS or total + size(item) > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size(item)
    if batch:
        yield batch


class Feed:
    """One feed of documents into one collection.

    ``send(items, key)`` submits items and answers with the receipt, or None if nothing was left to submit; ``name``
    tells what to call an item. ``on_change`` is called whenever the tally has changed.
    """

    def __init__(
        self,
        client: Client,
        tally: Tally,
        send: Callable[[Sequence[Any], str], Awaitable[Json | None]],
        name: Callable[[Any], str],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._tally, self._send, self._name, self._on_change = client, tally, send, name, on_change
        self._room, self._room_at = asyncio.Event(), 0

    async def run(self, parts: Iterable[Sequence[Any]], *, wait: bool = True) -> None:
        """Submit every batch; return when all are accepted or, if ``wait``, when every document has ended."""
        try:
            async with asyncio.TaskGroup() as followers:
                for part in parts:
                    for job_id in await self._submit(part):
                        if wait:
                            followers.create_task(self._follow(job_id), name=f"follow {job_id}")
        except BaseExceptionGroup as group:
            raise _first(group) from group

    async def _submit(self, items: Sequence[Any]) -> list[str]:
        key = uuid.uuid4().hex
        while True:
            try:
                receipt = await self._send(items, key)
                break
            except ServerProblem as problem:
                if problem.status == 413:
                    return await self._divide(items, problem)
                if not problem.transient or problem.retry_after_s is None:
                    raise
                await self._until_room(len(items), problem)
        if receipt is None:
            return []
        self._tally.jobs.append(receipt["processing_job_id"])
        self._tally.accepted += receipt["documents_queued"]
        self._changed()
        return [receipt["processing_job_id"]]

    async def _until_room(self, items: int, problem: ServerProblem) -> None:
        """The wait that the server asks for; shorter when as many documents of ours have ended as want in."""
        assert problem.retry_after_s is not None
        self._client.on_wait(problem.retry_after_s, str(problem))
        self._room_at = self._tally.done + items
        self._room.clear()
        waits = [
            asyncio.ensure_future(self._client.sleep(problem.retry_after_s)),
            asyncio.ensure_future(self._room.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    def _changed(self) -> None:
        if self._tally.done >= self._room_at:
            self._room.set()
        self._on_change()

    async def _divide(self, items: Sequence[Any], problem: ServerProblem) -> list[str]:
        """A batch that can never fit is halved until it does, or until one document is left to blame."""
        if len(items) == 1:
            self._tally.failed.append(Failure(self._name(items[0]), problem.code, str(problem)))
            self._changed()
            return []
        middle = len(items) // 2
        return await self._submit(items[:middle]) + await self._submit(items[middle:])

    async def _follow(self, job_id: str) -> None:
        seen: Counter[str] = Counter()
        job: Json = {}
        async for job in self._client.follow(job_id):
            now = Counter(one["stage"] for one in job["documents"] if one["status"] == "in_progress" and one["stage"])
            self._tally.stages.subtract(seen)
            self._tally.stages.update(now)
            self._tally.running[job_id] = sum(one["status"] in FINAL for one in job["documents"])
            self._tally.latest[job_id] = job
            seen = now
            self._changed()
        self._settle(job_id, job)

    def _settle(self, job_id: str, job: Json) -> None:
        self._tally.running.pop(job_id, None)
        self._tally.latest.pop(job_id, None)
        for one in job["documents"]:
            if one["status"] == "completed":
                self._tally.completed += 1
                self._tally.unchanged += bool(one["unchanged"])
            elif one["status"] == "cancelled":
                self._tally.cancelled += 1
            else:
                self._tally.failed.append(failure(one))
            if one.get("warnings"):
                self._tally.warnings[one["name"]] = list(one["warnings"])
        self._changed()


def failure(document: Json) -> Failure:
    """Why a document of a job failed."""
    error = document.get("error") or {"code": "unknown", "message": "the server gave no reason"}
    return Failure(document["name"], error["code"], error["message"], document.get("stage"))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
