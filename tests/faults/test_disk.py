"""A full disk refuses what is new, keeps what is there, and work resumes when there is room again."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import pytest

from ragworks.errors import DataFolderLocked, StorageFull
from ragworks.protocols import OnStage
from ragworks.services.document_processor import DocumentProcessor
from ragworks.settings import EmbeddingsSettings, ProcessorSettings
from ragworks.storage.folder import DataFolder
from ragworks.storage.vector_index import HnswIndex
from ragworks.storage.word_index import Bm25Index
from ragworks.testing import LocalEmbeddings, ScriptedModel, settle, unit, until
from ragworks.types import Health, ReadDocument, Task, TaskState, Upload
from stores import Opened, claimed, found, opened, publish, read, stage

FILLING = Path(__file__).with_name("filling.py")
DOCUMENTS = "/v1/collections/default/documents"
LONG = " ".join(os.urandom(8).hex() for _ in range(20_000))  # does not shrink when it is packed


class GatedReader:
    """Reads a blob as one chunk, once the gate is open."""

    def __init__(self, path_of: Callable[[str], str]) -> None:
        self._path_of = path_of
        self.reads = 0
        self.gate = asyncio.Event()

    @asynccontextmanager
    async def read(self, task: Task, on_stage: OnStage) -> AsyncIterator[ReadDocument]:
        self.reads += 1
        await self.gate.wait()
        yield read(await asyncio.to_thread(Path(self._path_of(task.content_hash)).read_text))


@asynccontextmanager
async def processing(path: Path) -> AsyncIterator[tuple[Opened, DocumentProcessor, GatedReader]]:
    async with opened(path) as at:
        reader = GatedReader(at.blobs.path)
        embedder = LocalEmbeddings(EmbeddingsSettings(), ScriptedModel, at.store, at.clock)
        processor = DocumentProcessor(
            # Real threads do the work: the hours that a test lets pass meanwhile must not look like silence.
            ProcessorSettings(lease_s=1e9),
            queue=at.jobs,
            blobs=at.blobs,
            reader=reader,
            embedder=embedder,
            store=at.store,
            clock=at.clock,
            rng=Random(0),
        )
        await embedder.initialize()
        await processor.initialize()
        try:
            yield at, processor, reader
        finally:
            reader.gate.set()
            await processor.shutdown()
            await embedder.shutdown()


async def limit(at: Opened, pages: int | None) -> None:
    """Let the database grow by so many pages only; None gives the room back."""
    now = await at.database.write(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    most = 2**30 if pages is None else now + pages
    await at.database.write(lambda db: db.execute(f"PRAGMA max_page_count = {most}").fetchone())


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process can be written, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_submission_that_has_no_room_is_refused_whole_and_leaves_nothing(tmp_path: Path) -> None:
    async with processing(tmp_path) as (at, processor, _):
        await limit(at, 0)
        with pytest.raises(StorageFull, match="free space"):
            await processor.process_documents("default", [Upload("a", "a", b"text", metadata={"why": LONG})])
        assert (await at.jobs.load()).documents == 0
        assert (await processor.jobs(10, None)).data == ()
        assert at.blobs.hashes() == set()


async def test_bytes_that_have_no_room_are_refused_and_no_half_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with processing(tmp_path) as (at, processor, _):
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageFull, match="No space left"):
            await processor.process_documents("default", [Upload("a", "a", b"text")])
        assert list(at.folder.blobs.rglob("new-*")) == []
        assert (await at.jobs.load()).documents == 0


async def test_an_accepted_document_waits_for_room_unharmed_while_searches_go_on(tmp_path: Path) -> None:
    """It used to be read again and again, as fast as reading could fail, and what it had staged stayed behind."""
    async with processing(tmp_path) as (at, processor, reader):
        reader.gate.set()
        first = await processor.process_documents("default", [Upload("known", "known", b"the battery")])
        await processor.finished(first.processing_job_id)
        await limit(at, 8)
        before = reader.reads
        receipt = await processor.process_documents("default", [Upload("long", "long", LONG.encode())])
        await until(lambda: reader.reads > before and not processor.stats()["running"])
        for _ in range(20):
            await settle()
        document = (await processor.job(receipt.processing_job_id)).documents[0]
        assert (document.status, document.attempts, document.error_code) == (TaskState.QUEUED, 0, None)
        assert reader.reads == before + 1
        assert await found(at, "battery") == {"known"}
        await limit(at, None)
        await at.clock.advance(5)
        assert (await processor.finished(receipt.processing_job_id)).status == TaskState.COMPLETED
        check = await at.store.checkup()
        assert (check.documents, check.problems) == (2, ())


async def test_an_index_that_has_no_room_delays_a_document_and_never_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that was visible already used to be deleted when indexing it failed."""
    really, failures = Bm25Index.apply, list[Exception]()

    def apply(index: Bm25Index, *change: Any) -> None:
        if failures:
            raise failures.pop()
        really(index, *change)

    async with processing(tmp_path) as (at, processor, reader):
        reader.gate.set()
        monkeypatch.setattr(Bm25Index, "apply", apply)
        first = await processor.process_documents("default", [Upload("boat", "boat", b"a keel")])
        await processor.finished(first.processing_job_id)
        failures.append(StorageFull("no room for words"))
        receipt = await processor.process_documents("default", [Upload("a", "a", b"the battery")])
        ending = asyncio.ensure_future(processor.finished(receipt.processing_job_id))
        while not ending.done():
            await at.clock.advance(5)
        document = (await ending).documents[0]
        assert (document.status, document.attempts) == (TaskState.COMPLETED, 0)
        assert await found(at, "battery") == {"a"}
        assert (await at.store.checkup()).problems == ()


async def test_what_a_full_disk_kept_from_being_deleted_is_deleted_when_there_is_room(tmp_path: Path) -> None:
    async with opened(tmp_path) as at:
        task = await claimed(at, "bike", text="the battery")
        version = await stage(at, task, read("the battery"))
        with no_room(), pytest.raises(StorageFull):
            await at.store.discard(version)
        await at.jobs.release(task)
        await at.jobs.cancel(task.job_id)
        await publish(at, "boat", "a keel")
        assert not [one for one in (await at.store.checkup()).problems if "version" in one]


async def test_a_store_starts_and_searches_on_a_full_disk_with_garbage_in_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as at:
        await publish(at, "boat", "a keel")
        task = await claimed(at, "bike", text="the battery")
        await stage(at, task, read("the battery"))
        await at.jobs.release(task)
        with no_room():
            await at.store.initialize()
            assert await found(at, "keel") == {"boat"}
        await publish(at, "car", "a wheel")
        assert (await at.store.checkup()).problems == ()


def test_a_data_folder_on_a_full_disk_can_be_locked(tmp_path: Path) -> None:
    """It failed with "File too large", of which nobody could tell what was meant."""
    folder = DataFolder(str(tmp_path))
    folder.open()
    folder.close()
    with no_room():
        folder.open()
    with pytest.raises(DataFolderLocked):
        DataFolder(str(tmp_path)).open()
    folder.close()


async def test_a_collection_whose_index_is_behind_is_searched_as_it_was_while_the_disk_is_full(tmp_path: Path) -> None:
    """The store did not start at all, and nothing could be found."""
    async with opened(tmp_path) as at:
        for name in ("boat", "ship"):
            await publish(at, name, f"the keel of a {name}")
        for name, text in (("ship", "the mast"), ("car", "a wheel")):  # published, and killed before they were indexed
            task = await claimed(at, name, text=text)
            await at.rows.publish(task, await stage(at, task, read(text)))
        await at.store.shutdown()
        with no_room():
            await at.store.initialize()
            assert await found(at, "keel wheel mast") == {"boat"}
        await publish(at, "bike", "a bell")
        assert await found(at, "keel wheel mast bell") == {"boat", "ship", "car", "bike"}
        assert (await at.store.checkup()).problems == ()


@pytest.mark.parametrize(("left", "flags", "words"), [(1, 0, "31 MiB are left"), (10**6, os.ST_RDONLY, "read-only")])
async def test_health_says_that_the_disk_refuses_documents(
    storage: Opened, monkeypatch: pytest.MonkeyPatch, left: int, flags: int, words: str
) -> None:
    assert (await storage.store.check_health()).status == Health.HEALTHY
    found = os.statvfs_result((1, 31 * 1024**2, 0, 0, left, 0, 0, 0, flags, 255))
    monkeypatch.setattr(os, "statvfs", lambda folder: found)
    health = await storage.store.check_health()
    assert health.status == Health.DEGRADED
    assert words in health.details["reason"]


async def test_discarding_a_version_that_became_visible_keeps_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as at:
        await publish(at, "bike", "the battery")
        version = next(iter((await at.rows.visible("default")).versions))
        await at.store.discard(version)
        assert (await at.store.checkup()).problems == ()
        assert await found(at, "battery") == {"bike"}


async def test_a_publication_that_is_cancelled_ends_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancel used to come between the commit and the index, and the discard after it took the visible rows."""
    async with opened(tmp_path) as at:
        await publish(at, "bike", "old words")
        task = await claimed(at, "bike", text="new words")
        version = await stage(at, task, read("new words"))
        indexing, go_on = asyncio.Event(), asyncio.Event()
        really = at.rows.changes

        async def changes(*asked: Any) -> Any:
            indexing.set()
            await go_on.wait()
            return await really(*asked)

        monkeypatch.setattr(at.rows, "changes", changes)
        publishing = asyncio.create_task(at.store.publish(task, version))
        await indexing.wait()
        publishing.cancel()
        await settle()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        await at.store.discard(version)
        assert await found(at, "new") == {"bike"}
        assert (await at.store.checkup()).problems == ()


def test_a_word_index_that_failed_to_commit_takes_the_change_again(tmp_path: Path) -> None:
    """Its writer used to be kept, and swallowed what it was given after the failure."""
    index = Bm25Index(tmp_path)
    index.apply([], [(1, 1, "hello world")])
    with no_room(), pytest.raises(StorageFull):
        index.apply([1], [(2, 2, "good bye")])
    assert [key for key, _ in index.search("hello", 5)] == [1]
    index.apply([1], [(2, 2, "good bye")])
    assert [key for key, _ in index.search("bye hello", 5)] == [2]
    index.close()


def test_a_vector_index_that_cannot_be_saved_says_so(tmp_path: Path) -> None:
    index = HnswIndex(4)
    index.add(np.array([1], dtype=np.uint64), unit(4))
    with no_room(), pytest.raises(StorageFull):
        index.save(tmp_path / "vectors")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A server whose disk fills up on SIGUSR1."""
    environment = {**os.environ, "RAGWORKS_EMBEDDINGS_SERVICE__MODEL_NAME": "hashing"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(FILLING), "serve", "--port", "0", "--data", str(tmp_path / "data"),
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout
    async for line in process.stdout:
        if b"orchestration_api" in line and b"service_started" in line:
            break
    draining = asyncio.create_task(process.stdout.read())
    yield process, json.loads((tmp_path / "data" / "server.json").read_text())["url"]
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(process.wait(), draining)
    assert process.returncode == 0


@pytest.mark.timeout(120)
async def test_a_server_on_a_full_disk_answers_507_and_searches_and_goes_on_when_there_is_room(
    server: tuple[asyncio.subprocess.Process, str],
) -> None:
    process, url = server
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        await _ended(http, await _submit(http, "known", "the battery lasts"))
        waiting = await _submit(http, "long", LONG)
        process.send_signal(signal.SIGUSR1)
        refused = await http.post(DOCUMENTS, json={"documents": [{"id": "new", "text": "a boat"}]})
        while refused.status_code == 202:  # the signal had not arrived yet
            refused = await http.post(DOCUMENTS, json={"documents": [{"id": "new", "text": "a boat"}]})
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        assert (await http.get("/livez")).status_code == 200
        hits = (await http.post("/v1/collections/default/search", json={"query": "battery"})).json()["results"]
        assert "known" in {hit["document_id"] for hit in hits}
        job = (await http.get(waiting)).json()
        assert job["status"] in ("queued", "in_progress", "completed")
        process.send_signal(signal.SIGUSR2)
        assert (await _ended(http, waiting))["status"] == "completed"
        assert (await http.get("/v1/doctor")).json()["problems"] == []


async def _submit(http: httpx.AsyncClient, name: str, text: str) -> str:
    accepted = await http.post(DOCUMENTS, json={"documents": [{"id": name, "text": text}]})
    assert accepted.status_code == 202, accepted.text
    return str(accepted.headers["location"])


async def _ended(http: httpx.AsyncClient, job: str) -> dict[str, Any]:
    last: dict[str, Any] = {}
    async with http.stream("GET", f"{job}/events") as events:
        async for line in events.aiter_lines():
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
    return last
