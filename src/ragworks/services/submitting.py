"""The way into the queue: a submission waits for room, is kept durably, and is accepted, whole or not at all."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import structlog

from ragworks import tracing
from ragworks.control_protocols import Record, unrecorded
from ragworks.errors import DocumentTooLarge, IdempotencyKeyInUse, QueueFull, SourceUnreadable, SubmissionTooLarge
from ragworks.policies.admission import SHORTEST_S, Admission, Promise, QueueState, decide, lately, places
from ragworks.protocols import Clock, DocumentStore
from ragworks.records import Acceptance, Incoming, Load
from ragworks.settings import ProcessorSettings
from ragworks.storage_protocols import Blobs, Forecast, JobQueue
from ragworks.types import Interval, Priority, Submission, Upload
from ragworks.waiting import to_its_end
from ragworks.workers.jobs import JobRunner

log = structlog.get_logger("ragworks.jobs")

KEPT_AT_ONCE = 4
RATED = 1000  # ended documents from which the drain rate is measured


class Intake:
    """Admits submissions to the queue, and remembers who was told to come back when.

    ``runner`` gives the JobRunner that works the queue off, or raises NotReady. ``load`` is what waited or ran at the
    last look.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        *,
        queue: JobQueue,
        blobs: Blobs,
        store: DocumentStore,
        clock: Clock,
        forecast: Forecast,
        bracketed: Callable[[float], Interval],
        runner: Callable[[], JobRunner],
        record: Record = unrecorded,
    ) -> None:
        self._settings, self._queue, self._blobs, self._store = settings, queue, blobs, store
        self._clock, self._forecast, self._runner = clock, forecast, runner
        self._bracketed, self._record = bracketed, record
        self.load = Load(0, 0)
        self._promises: tuple[Promise, ...] = ()
        self._busy_since = clock.monotonic()
        self._ended_at: deque[float] = deque(maxlen=RATED)
        self._keys_in_use: set[str] = set()

    async def look(self) -> None:
        self.load = await self._queue.load()

    def ended(self) -> None:
        """A document has ended: from this follows how fast the queue drains."""
        self._ended_at.append(self._clock.monotonic())

    def room(self, documents: int) -> Load:
        """What the queue may hold once so many documents are in."""
        return Load(places(self._settings.max_queue_size, documents), self._settings.max_queue_bytes)

    async def refusal(self) -> QueueFull:
        """What one more document is told while there is no room for it."""
        inputs = await self._asked(1, 0, None)
        decision = decide(**inputs)
        if not decision.admitted:
            self._note_refusal(inputs, decision)
        return _full(decision)

    async def submit(
        self,
        collection: str,
        uploads: Sequence[Upload],
        key: str | None,
        request_hash: str,
        *,
        wait: bool,
        priority: Priority,
        webhook_url: str | None,
    ) -> Submission:
        """See DocumentProcessor.process_documents."""
        submit = partial(self._submit, collection, uploads, wait=wait, priority=priority, webhook_url=webhook_url)
        if key is None:
            return await submit(None, "")
        if key in self._keys_in_use:
            raise IdempotencyKeyInUse(f"a request with Idempotency-Key {key!r} is still running")
        self._keys_in_use.add(key)
        try:
            return await submit(key, request_hash)
        finally:
            self._keys_in_use.discard(key)

    async def _submit(
        self,
        collection: str,
        uploads: Sequence[Upload],
        key: str | None,
        request_hash: str,
        *,
        wait: bool,
        priority: Priority,
        webhook_url: str | None,
    ) -> Submission:
        attributes: tracing.Attributes = {"ragworks.collection": collection, "ragworks.documents": len(uploads)}
        with tracing.entry(f"submit {collection}", attributes, "producer") as span:
            accepted = await self._accepted(
                collection, uploads, key, request_hash, wait=wait, priority=priority, webhook_url=webhook_url
            )
            span.set("ragworks.job_id", accepted.job_id)
        log.info(
            "job_accepted",
            action="job_accepted",
            job_id=accepted.job_id,
            collection=collection,
            documents=len(accepted.task_ids),
            repeated=accepted.repeated,
        )
        return Submission(
            processing_job_id=accepted.job_id,
            documents_queued=len(accepted.task_ids),
            processing_task_ids=accepted.task_ids,
            estimated_completion_time=accepted.estimated_s,
            estimated_completion_interval=self._bracketed(accepted.estimated_s),
            current_queue_size=accepted.queue_size,
        )

    async def _accepted(
        self,
        collection: str,
        uploads: Sequence[Upload],
        key: str | None,
        request_hash: str,
        *,
        wait: bool,
        priority: Priority,
        webhook_url: str | None,
    ) -> Acceptance:
        runner = self._runner()
        sizes = [await asyncio.to_thread(_size, upload) for upload in uploads]
        fitting = [size for size in sizes if size <= self._settings.max_document_bytes]
        if uploads and not fitting:
            message = self._too_large(min(sizes))
            limit = self._settings.max_document_bytes
            self._record("refused", reason=message, inputs={"size_bytes": min(sizes), "max_document_bytes": limit})
            raise DocumentTooLarge(message)
        await self._admit(len(fitting), sum(fitting), wait, key)
        room = self.room(len(fitting))
        kept: list[Incoming] = []
        accepted: Acceptance | None = None
        try:
            await self._keep_all(uploads, sizes, kept)
            accept = partial(
                self._queue.accept,
                priority=priority,
                webhook_url=webhook_url,
                traceparent=tracing.traceparent(),
                forecast=self._forecast,
            )
            while (accepted := await accept(collection, kept, room, key, request_hash)) is None:
                await self._admit(len(fitting), sum(fitting), wait, key)
        finally:
            hashes = [one.content_hash for one in kept if one.content_hash]
            self._blobs.unpin(hashes)
            if accepted is None or accepted.repeated:  # these bytes were not queued, so nothing may need them
                await asyncio.shield(self._store.forget_blobs(hashes))
        if not self.load.documents:
            self._busy_since = self._clock.monotonic()
        await self.look()
        runner.wake()
        return accepted

    async def _admit(self, documents: int, size_bytes: int, wait: bool, key: str | None = None) -> None:
        while True:
            news = self._runner().news
            inputs = await self._asked(documents, size_bytes, key)
            decision = decide(**inputs)
            if decision.admitted:
                self._promises = decision.promises
                return
            if not (wait and decision.possible):
                self._note_refusal(inputs, decision)
            if not decision.possible:
                raise SubmissionTooLarge(f"this submission can never fit: {decision.reason}; send it in parts")
            if not wait:
                self._promises = decision.promises
                raise _full(decision)
            await self._runner().changed(news, decision.retry_after_s)

    async def _asked(self, documents: int, size_bytes: int, key: str | None) -> dict[str, Any]:
        """What ``decide`` is asked with now."""
        await self.look()
        now = self._clock.monotonic()
        seen = QueueState(
            self.load.documents,
            self.load.size_bytes,
            self._settings.max_queue_size,
            self._settings.max_queue_bytes,
            lately(self._ended_at, now),
            self._busy_since,
            self._promises,
        )
        # Not the key itself: it is the client's, and events are read by others.
        who = blake2b(key.encode(), digest_size=8).hexdigest() if key else ""
        return {"seen": seen, "documents": documents, "size_bytes": size_bytes, "now": now, "who": who}

    def _note_refusal(self, inputs: dict[str, Any], decision: Admission) -> None:
        self._record("refused", reason=decision.reason, policy="admission.decide", inputs=inputs, decision=decision)

    async def _keep_all(self, uploads: Sequence[Upload], sizes: Sequence[int], kept: list[Incoming]) -> None:
        """A few at a time, so that their fsyncs share the disk's commits. What was kept is in ``kept``, in order."""
        for start in range(0, len(uploads), KEPT_AT_ONCE):
            part = slice(start, start + KEPT_AT_ONCE)
            # The threads go on when this is cancelled: what they keep must be known, or it stays pinned for ever.
            await to_its_end(self._keep_some(uploads[part], sizes[part], kept))

    async def _keep_some(self, uploads: Sequence[Upload], sizes: Sequence[int], kept: list[Incoming]) -> None:
        keeping = (asyncio.to_thread(self._keep, *one) for one in zip(uploads, sizes, strict=True))
        done = await asyncio.gather(*keeping, return_exceptions=True)
        kept += [one for one in done if isinstance(one, Incoming)]
        for one in done:
            if isinstance(one, BaseException):
                raise one

    def _keep(self, upload: Upload, size: int) -> Incoming:
        common = partial(
            Incoming,
            document_id=upload.id,
            name=upload.name,
            title=upload.title,
            metadata=upload.metadata,
            media_type=upload.media_type,
            origin=upload.origin,
        )
        if size > self._settings.max_document_bytes:
            return common(
                content_hash="", size_bytes=size, error_code=DocumentTooLarge.code, error_message=self._too_large(size)
            )
        try:
            content_hash, size = self._blobs.put(upload.source)
        except SourceUnreadable as error:
            return common(content_hash="", size_bytes=0, error_code=error.code, error_message=str(error))
        return common(content_hash=content_hash, size_bytes=size)

    def _too_large(self, size: int) -> str:
        limit = self._settings.max_document_bytes
        return (
            f"the document has {size:,} bytes, the limit is {limit:,}: split it, or raise "
            "document_processor.max_document_bytes"
        )


def _full(decision: Admission) -> QueueFull:
    retry_s = max(SHORTEST_S, decision.retry_after_s)
    return QueueFull(f"the queue is full ({decision.reason}); try again in {retry_s:.0f} s", retry_after_s=retry_s)


def _size(upload: Upload) -> int:
    """In bytes; 0 for a file that cannot be read, which fails for itself when it is kept."""
    if not isinstance(upload.source, str):
        return len(upload.source)
    try:
        return os.stat(upload.source).st_size
    except OSError:
        return 0
