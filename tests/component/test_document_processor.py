"""From submission to searchable: real queue, rows, blobs and indexes; a scripted reader; the hashing embedder."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from structlog.testing import capture_logs

from ragworks.control.events import Journal
from ragworks.errors import (
    CorruptDocument,
    DeadLetterNotFound,
    DocumentTooLarge,
    IdempotencyKeyInUse,
    QueueFull,
    SubmissionTooLarge,
    WorkerCrashed,
)
from ragworks.policies.replaying import asked_again
from ragworks.protocols import OnStage
from ragworks.services.document_processor import DocumentProcessor
from ragworks.settings import EmbeddingsSettings, ProcessorSettings
from ragworks.testing import LocalEmbeddings, MemoryEvents, ScriptedModel, settle, until
from ragworks.types import Health, Job, ReadDocument, Stage, Task, TaskState, Upload
from stores import Opened, found, opened, read


class ScriptedReader:
    """Reads a blob as one chunk; first raises what ``errors`` lists for the document; waits while ``gate`` is clear."""

    def __init__(self, path_of: Callable[[str], str]) -> None:
        self.path_of = path_of
        self.errors: dict[str, list[Exception]] = {}
        self.reads: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @asynccontextmanager
    async def read(self, task: Task, on_stage: OnStage) -> AsyncIterator[ReadDocument]:
        self.reads.append(task.document_id)
        await self.gate.wait()
        if self.errors.get(task.document_id):
            raise self.errors[task.document_id].pop(0)
        on_stage(Stage.CHUNKING)
        text = await asyncio.to_thread(Path(self.path_of(task.content_hash)).read_text)
        yield read(text, title=task.title or task.name, title_from="submission" if task.title else "name")


class Bench:
    def __init__(
        self, at: Opened, processor: DocumentProcessor, reader: ScriptedReader, model: ScriptedModel, journal: Journal
    ) -> None:
        self.at, self.processor, self.reader, self.model = at, processor, reader, model
        self.journal = journal

    async def submit(self, *uploads: Upload, **options: object) -> str:
        receipt = await self.processor.process_documents("default", uploads, **options)  # type: ignore[arg-type]
        return receipt.processing_job_id

    async def ended(self, job_id: str) -> Job:
        return await self.processor.finished(job_id)

    async def found(self, words: str) -> set[str]:
        return await found(self.at, words)


def doc(name: str, text: str = "", **fields: object) -> Upload:
    return Upload(name, name, (text or f"text of {name}").encode(), **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def bench(path: Path, **limits: object) -> AsyncIterator[Bench]:
    async with opened(path) as at:
        model = ScriptedModel()
        embedder = LocalEmbeddings(EmbeddingsSettings(), lambda: model, at.store, at.clock)
        reader = ScriptedReader(at.blobs.path)
        journal = Journal(MemoryEvents(), at.clock)
        processor = DocumentProcessor(
            # Real threads do the work: the hours that a test lets pass meanwhile must not look like silence.
            ProcessorSettings(**{"lease_s": 1e9, **limits}),  # type: ignore[arg-type]
            queue=at.jobs,
            blobs=at.blobs,
            reader=reader,
            embedder=embedder,
            store=at.store,
            clock=at.clock,
            rng=Random(0),
            record=journal.for_service("document_processor"),
        )
        await embedder.initialize()
        await processor.initialize()
        try:
            yield Bench(at, processor, reader, model, journal)
        finally:
            reader.gate.set()
            await processor.shutdown()
            await embedder.shutdown()


async def test_a_document_that_is_accepted_ends_up_searchable(tmp_path: Path) -> None:
    """In the first sketch the workers made chunks and dropped them."""
    async with bench(tmp_path) as at:
        job = await at.ended(await at.submit(doc("a", "the battery lasts"), doc("b", "a boat")))
        assert job.status == TaskState.COMPLETED
        assert await at.found("battery") == {"a"}
        assert (await at.at.store.checkup()).healthy
        await until(lambda: at.processor.stats()["documents_processed"] == 2)  # counted once the attempt is over


async def test_a_passage_over_the_models_limit_is_indexed_with_a_warning(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        job = await at.ended(await at.submit(doc("long", "word " * 600 + "tail"), doc("short")))
        told = {one.id: one.warnings for one in job.documents}
        kept = {one.id: one.warnings for one in (await at.at.store.documents("default", 10, None)).data}
    for said in (told, kept):
        assert said["short"] == ()
        [warning] = said["long"]
        assert warning.startswith("passages longer than the embedding model reads: 1;")


async def test_the_same_bytes_again_are_unchanged_and_cost_no_reading(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        await at.ended(await at.submit(doc("a")))
        job = await at.ended(await at.submit(doc("a", metadata={"year": 2026})))
        assert job.documents[0].unchanged
        assert at.reader.reads == ["a"]
        assert (await at.at.store.document("default", "a")).metadata == {"year": 2026}


async def test_a_renamed_document_costs_no_reading_and_no_embedding(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        await at.ended(await at.submit(doc("a.txt", "the battery lasts")))
        embedded = len(at.model.texts)
        job = await at.ended(await at.submit(doc("b.txt", "the battery lasts")))
        assert not job.documents[0].unchanged
        assert await at.found("battery") == {"a.txt", "b.txt"}
        assert at.reader.reads == ["a.txt"]
        assert len(at.model.texts) == embedded


async def test_a_new_title_is_a_change_since_it_is_embedded(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        await at.ended(await at.submit(doc("a", title="Old")))
        job = await at.ended(await at.submit(doc("a", title="New")))
        assert not job.documents[0].unchanged
        assert (await at.at.store.document("default", "a")).title == "New"


async def test_one_bad_document_fails_alone_with_stage_code_and_reason(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.errors["bad"] = [CorruptDocument("the PDF is cut off")]
        job = await at.ended(await at.submit(doc("bad"), doc("good")))
        bad, good = job.documents
        assert (bad.status, bad.stage, bad.error_code) == (TaskState.FAILED, Stage.PARSING, "corrupt_document")
        assert bad.error_message == "the PDF is cut off"
        assert good.status == TaskState.COMPLETED
        assert at.processor.stats()["processing_errors"] == 1


async def test_a_crashed_worker_is_retried_and_a_poison_document_ends_after_its_attempts(tmp_path: Path) -> None:
    async with bench(tmp_path, max_attempts=3) as at:
        at.reader.errors["unlucky"] = [WorkerCrashed("killed")]
        at.reader.errors["poison"] = [WorkerCrashed(f"killed {n}") for n in range(9)]
        job_id = await at.submit(doc("unlucky"), doc("poison"))
        ending = asyncio.ensure_future(at.ended(job_id))
        while not ending.done():
            await at.at.clock.advance(5)
        unlucky, poison = (await ending).documents
        assert unlucky.status == TaskState.COMPLETED
        assert (poison.status, poison.error_code, poison.attempts) == (TaskState.FAILED, "worker_crashed", 3)
        assert at.reader.reads.count("poison") == 3


async def test_a_text_that_cannot_be_embedded_fails_its_document_and_stores_no_vector(tmp_path: Path) -> None:
    """Zero vectors for failed texts, and success reported, was the first sketch's way."""
    async with bench(tmp_path) as at:
        at.model.rewrite = lambda texts, vectors: vectors * 0
        job = await at.ended(await at.submit(doc("a")))
        assert job.documents[0].error_code == "embedding_failed"
        check = await at.at.store.checkup()
        assert (check.documents, check.chunks, check.problems) == (0, 0, ())


async def test_a_full_queue_says_when_to_come_back_and_accepts_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, max_queue_size=2, concurrent_documents=1) as at:
        at.reader.gate.clear()
        await at.submit(doc("a"), doc("b"))
        with pytest.raises(QueueFull) as refused:
            await at.submit(doc("c"), wait=False)
        assert refused.value.retry_after_s >= 1
        assert len(at.at.blobs.hashes()) == 2
        waiting = asyncio.ensure_future(at.submit(doc("c")))
        at.reader.gate.set()
        assert (await at.ended(await waiting)).status == TaskState.COMPLETED


async def test_a_refusal_is_recorded_with_what_decided_it_and_would_be_decided_again(tmp_path: Path) -> None:
    async with bench(tmp_path, max_queue_size=2, concurrent_documents=1, max_document_bytes=1000) as at:
        at.reader.gate.clear()
        await at.submit(doc("a"), doc("b"))
        with pytest.raises(QueueFull):
            await at.submit(doc("c"), wait=False, idempotency_key="a client's own")
        with pytest.raises(SubmissionTooLarge):
            await at.submit(doc("c"), doc("d"), doc("e"))
        with pytest.raises(DocumentTooLarge):
            await at.submit(doc("c", "x" * 1001))
        full, never, too_large = await at.journal.recent(service="document_processor")
        at.reader.gate.set()
    assert {event.action for event in (full, never, too_large)} == {"refused"}
    assert full.reason == "2 of 2 places taken"
    assert never.reason == "3 documents; the queue holds 2 at most"
    assert too_large.inputs == {"size_bytes": 1001, "max_document_bytes": 1000}
    assert full.inputs["seen"]["documents"] == 2
    assert "own" not in str(full.inputs)  # the key is the client's, and events are read by others
    for event in (full, never):
        assert asked_again(event.policy, event.inputs, event.decision).same is True


async def test_who_waits_for_room_is_not_refused(tmp_path: Path) -> None:
    async with bench(tmp_path, max_queue_size=1, concurrent_documents=1) as at:
        at.reader.gate.clear()
        await at.submit(doc("a"))
        waiting = asyncio.ensure_future(at.submit(doc("b")))
        await settle()
        at.reader.gate.set()
        await at.ended(await waiting)
        assert await at.journal.recent() == []


async def test_what_can_never_fit_is_refused_and_one_document_too_large_fails_alone(tmp_path: Path) -> None:
    async with bench(tmp_path, max_queue_size=2, max_document_bytes=10) as at:
        with pytest.raises(SubmissionTooLarge, match="can never fit"):
            await at.submit(doc("a", "1"), doc("b", "2"), doc("c", "3"))
        with pytest.raises(DocumentTooLarge, match="max_document_bytes"):
            await at.submit(doc("a", "x" * 11))
        small, large = (await at.ended(await at.submit(doc("small", "tiny"), doc("large", "x" * 11)))).documents
        assert (small.status, large.status, large.error_code) == (
            TaskState.COMPLETED,
            TaskState.FAILED,
            "document_too_large",
        )
        assert len(at.at.blobs.hashes()) == 1


async def test_an_idempotency_key_returns_the_first_receipt_and_two_at_once_are_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        options = {"idempotency_key": "k", "request_hash": "h"}
        first = await at.submit(doc("a"), **options)
        await at.ended(first)
        await at.at.store.delete_document("default", "a")
        assert await at.submit(doc("a"), **options) == first
        assert at.at.blobs.hashes() == set()
        results = await asyncio.gather(
            *(at.submit(doc("b"), idempotency_key="x") for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in results) == [IdempotencyKeyInUse.__name__, "str"]


async def test_cancel_stops_what_runs_and_leaves_no_trace(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.gate.clear()
        job_id = await at.submit(doc("a"), doc("b"))
        await until(lambda: len(at.reader.reads) == 2)
        job = await at.processor.cancel(job_id)
        assert job.status == TaskState.CANCELLED
        await until(lambda: at.processor.stats()["running"] == 0)
        check = await at.at.store.checkup()
        assert (check.documents, check.blobs, check.problems) == (0, 0, ())


async def test_a_failed_document_can_be_retried_without_sending_it_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.errors["a"] = [CorruptDocument("not today")]
        job_id = await at.submit(doc("a", "the battery"))
        assert (await at.ended(job_id)).status == TaskState.FAILED
        await at.processor.retry(job_id)
        assert (await at.ended(job_id)).status == TaskState.COMPLETED
        assert await at.found("battery") == {"a"}


async def test_events_tell_a_job_from_now_to_its_end(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.gate.clear()
        job_id = await at.submit(doc("a"))
        heard: list[Job] = []

        async def listen() -> None:
            async for job in at.processor.events(job_id):
                heard.append(job)

        listening = asyncio.ensure_future(listen())
        await until(lambda: heard)
        at.reader.gate.set()
        while not listening.done():
            await at.at.clock.advance(1)
        await listening
        assert heard[0].status in (TaskState.QUEUED, TaskState.IN_PROGRESS)
        assert heard[-1].status == TaskState.COMPLETED


async def test_stopping_gives_leases_back_so_that_the_next_start_goes_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        await at.submit(doc("a", "the battery"))
    async with bench(tmp_path) as at:
        page = await at.processor.jobs(1, None)
        assert (await at.ended(page.data[0].id)).status == TaskState.COMPLETED
        assert await at.found("battery") == {"a"}


async def test_a_submission_that_was_refused_leaves_no_bytes(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        from ragworks.errors import CollectionNotFound

        with pytest.raises(CollectionNotFound):
            await at.processor.process_documents("nowhere", [doc("a")])
        assert at.at.blobs.hashes() == set()


async def test_an_error_of_the_queue_does_not_end_ingestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One "database is locked" used to end the loop for good: submissions were accepted and never processed."""
    async with bench(tmp_path) as at:
        claim, failures = at.at.jobs.claim, [sqlite3.OperationalError("database is locked")]

        async def flaky(held: Iterable[str]) -> Task | None:
            if failures:
                raise failures.pop()
            return await claim(held)

        monkeypatch.setattr(at.at.jobs, "claim", flaky)
        job_id = await at.submit(doc("a"))
        ending = asyncio.ensure_future(at.ended(job_id))
        while not ending.done():
            await at.at.clock.advance(5)
        assert (await ending).status == TaskState.COMPLETED


async def test_shutdown_does_not_wait_for_a_free_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every slot in a long document the stop hung, and nothing was cancelled or given back."""
    monkeypatch.setattr("ragworks.workers.jobs.DRAIN_S", 0.01)
    async with bench(tmp_path, concurrent_documents=1) as at:
        at.reader.gate.clear()
        job_id = await at.submit(doc("a"), doc("b"))
        await until(lambda: at.reader.reads)
        await at.processor.shutdown()
        states = [one.status for one in (await at.at.jobs.job(job_id)).documents]
        assert states == [TaskState.QUEUED, TaskState.QUEUED]
        await at.processor.initialize()


async def test_every_slot_is_free_again_however_attempts_are_cancelled(tmp_path: Path) -> None:
    async with bench(tmp_path, concurrent_documents=2) as at:
        for round_ in range(6):
            at.reader.gate.clear()
            job_id = await at.submit(doc(f"a{round_}"), doc(f"b{round_}"), doc(f"c{round_}"))
            await at.processor.cancel(job_id)
        at.reader.gate.set()
        assert (await at.ended(await at.submit(doc("last")))).status == TaskState.COMPLETED


async def test_a_retry_does_not_undo_a_newer_submission(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.errors["x"] = [CorruptDocument("not today")]
        old = await at.submit(doc("x", "the old text"))
        await at.ended(old)
        await at.ended(await at.submit(doc("x", "the new text")))
        await at.processor.retry(old)
        assert (await at.ended(old)).status == TaskState.FAILED
        assert await at.at.store.text("default", "x") == "the new text"


async def test_cancelling_a_job_that_has_ended_changes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        job_id = await at.submit(doc("a"), doc("b"))
        await at.ended(job_id)
        assert (await at.processor.cancel(job_id)).status == TaskState.COMPLETED


async def test_a_file_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    async with bench(tmp_path / "data") as at:
        missing = Upload("gone", "gone", str(tmp_path / "gone.txt"))
        gone, good = (await at.ended(await at.submit(missing, doc("good")))).documents
        assert (gone.status, gone.error_code) == (TaskState.FAILED, "source_unreadable")
        assert good.status == TaskState.COMPLETED


async def test_the_same_document_twice_in_one_submission_is_indexed_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        first, second = (await at.ended(await at.submit(doc("a"), doc("a")))).documents
        assert (first.unchanged, second.unchanged) == (False, True)
        assert at.reader.reads == ["a"]


async def test_cancel_while_passages_are_staged_leaves_no_trace_and_twice_is_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.model.gate.clear()
        job_id = await at.submit(doc("a", "the battery"))
        await until(lambda: at.model.batches)
        first, second = await asyncio.gather(at.processor.cancel(job_id), at.processor.cancel(job_id))
        at.model.gate.set()
        assert first.status == second.status == TaskState.CANCELLED
        await until(lambda: at.processor.stats()["running"] == 0)
        check = await at.at.store.checkup()
        assert (check.documents, check.chunks, check.blobs, check.problems) == (0, 0, 0, ())


async def test_cancel_while_a_document_is_published_is_whole_one_way_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench(tmp_path) as at:
        publish, publishing = at.at.store.publish, asyncio.Event()

        async def noticed(*args: object) -> None:
            publishing.set()
            await publish(*args)

        monkeypatch.setattr(at.at.store, "publish", noticed)
        job_id = await at.submit(doc("a", "the battery"))
        await publishing.wait()
        job = await at.processor.cancel(job_id)
        await until(lambda: at.processor.stats()["running"] == 0)
        check = await at.at.store.checkup()
        assert check.problems == ()
        assert job.status in (TaskState.CANCELLED, TaskState.COMPLETED)
        assert len(await at.found("battery")) == check.documents


async def test_a_document_deleted_while_it_is_read_fails_nobody(tmp_path: Path) -> None:
    """The attempt met bytes that were gone, and told of a failure that was none."""
    async with bench(tmp_path) as at:
        at.reader.gate.clear()
        job_id = await at.submit(doc("a"))
        await until(lambda: at.reader.reads)
        await at.at.store.delete_document("default", "a")
        with capture_logs() as logs:
            at.reader.gate.set()
            await until(lambda: at.processor.stats()["running"] == 0)
        assert [one for one in logs if one["event"] in ("document_failed", "document_crashed")] == []
        assert (await at.processor.job(job_id)).status == TaskState.CANCELLED
        assert at.processor.stats()["processing_errors"] == 0


async def test_a_retry_while_a_job_runs_touches_only_what_failed(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.errors["bad"] = [CorruptDocument("not today")]
        job_id = await at.submit(doc("bad"))
        await at.ended(job_id)
        at.reader.gate.clear()
        other = await at.submit(doc("long"))
        await until(lambda: at.reader.reads == ["bad", "long"])
        with pytest.raises(DeadLetterNotFound, match="no dead letter 'nosuch' can be queued again"):
            await at.processor.retry_dead("nosuch")
        [dead] = (await at.processor.dead_letters(10, None)).data
        assert (await at.processor.retry_dead(dead.task_id)).queued == 1
        with pytest.raises(DeadLetterNotFound):  # it is queued already
            await at.processor.retry_dead(dead.task_id)
        assert (await at.processor.retry_dead()).queued == 0
        assert (await at.processor.retry(job_id)).file_counts["in_progress"] == 1
        at.reader.gate.set()
        assert (await at.ended(job_id)).status == (await at.ended(other)).status == TaskState.COMPLETED
        assert at.reader.reads == ["bad", "long", "bad"]


async def test_a_poison_file_ends_among_the_dead_letters_with_its_reason(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.errors["poison"] = [CorruptDocument("the PDF is cut off")]
        await at.ended(await at.submit(doc("poison"), doc("good")))
        [dead] = (await at.processor.dead_letters(9, None)).data
        assert (dead.id, dead.error_code, dead.error_message) == ("poison", "corrupt_document", "the PDF is cut off")
        await at.processor.check_health()
        assert at.processor.stats()["dead_letters"] == 1
    async with bench(tmp_path) as at:
        assert at.processor.stats()["dead_letters"] == 1


async def test_a_small_document_gets_in_beside_a_folder_that_fills_the_queue(tmp_path: Path) -> None:
    async with bench(tmp_path, max_queue_size=40, concurrent_documents=1) as at:
        at.reader.gate.clear()
        await at.submit(*(doc(f"folder-{n}") for n in range(35)))
        with pytest.raises(QueueFull):
            await at.submit(*(doc(f"more-{n}") for n in range(5)), wait=False)
        letter = await at.submit(doc("letter"), wait=False, priority="high")
        at.reader.gate.set()
        assert (await at.ended(letter)).status == TaskState.COMPLETED


async def test_a_queue_that_stands_still_is_degraded_and_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path, concurrent_documents=1) as at:
        at.reader.gate.clear()
        job_id = await at.submit(doc("a.txt"), doc("b.txt"))
        assert (await at.processor.check_health()).status is Health.HEALTHY
        await at.at.clock.advance(700)
        assert at.processor.stats()["oldest_waiting_s"] == 700  # also while nobody looks
        found = await at.processor.check_health()
        assert found.status is Health.DEGRADED
        assert found.details["reason"].startswith(
            "2 documents wait or run, the oldest for 700 s, and none ended in 700 s"
        )
        at.reader.gate.set()
        await at.ended(job_id)
        await until(lambda: at.processor.stats()["documents_processed"] == 2)
        assert (await at.processor.check_health()).status is Health.HEALTHY


async def test_estimates_come_from_what_documents_have_cost_also_after_a_restart(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.gate.clear()
        job_id = await at.submit(doc("a.txt"))
        await at.at.clock.advance(1)
        at.reader.gate.set()
        await at.ended(job_id)
        await at.processor.check_health()
        stats = at.processor.stats()
        assert stats["estimate_error_median"] is not None
        assert (list(stats["read_s_per_mb"]), stats["embed_s_per_chunk"] is None) == ([".txt"], False)
        [cost] = await at.at.jobs.costs(9)
        assert (cost.kind, cost.chunks) == (".txt", 1)
    async with bench(tmp_path) as at:
        again = await at.processor.process_documents("default", [doc("a.txt")])
        other = await at.processor.process_documents("default", [doc("b.txt", "x" * 10_000)])
        assert again.estimated_completion_time < other.estimated_completion_time


async def test_an_open_job_says_what_is_left_of_it_and_an_ended_one_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.gate.clear()
        first = await at.submit(doc("a.txt"), doc("b.txt"))
        behind = await at.submit(doc("c.txt", "x" * 10_000))
        one, other = await at.processor.job(first), await at.processor.job(behind)
        for job in (one, other):
            interval, expected = job.estimated_completion_interval, job.estimated_completion_time
            assert interval is not None
            assert expected is not None
            assert 0 <= interval.low <= expected <= interval.high
        cancelled = await at.processor.cancel(behind)
        assert cancelled.estimated_completion_time is cancelled.estimated_completion_interval is None
        await at.at.clock.advance(1)
        at.reader.gate.set()
        await at.ended(first)
        assert (await at.processor.job(first)).estimated_completion_time is None
        await at.processor.check_health()
        assert at.processor.stats()["estimate_coverage"] in (0.0, 1.0)


async def test_jobs_that_ended_long_ago_are_forgotten_with_the_bytes_of_what_failed(tmp_path: Path) -> None:
    async with bench(tmp_path, keep_jobs_s=3600.0) as at:
        at.reader.errors["bad"] = [CorruptDocument("never")]
        await at.ended(await at.submit(doc("bad"), doc("good", "the battery")))
        assert len(at.at.blobs.hashes()) == 2
        await at.at.clock.advance(3600)
        while (await at.processor.jobs(9, None)).data:
            await at.at.clock.advance(600)
        await until(lambda: len(at.at.blobs.hashes()) == 1)
        assert await at.found("battery") == {"good"}
        assert (await at.at.store.checkup()).healthy
