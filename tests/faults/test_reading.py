"""What a bad document does to the reader: it costs itself, and the next one is read."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from documents import pdf
from ragworks.errors import CorruptDocument, ReadMemoryExceeded, ReadTimeout, WorkerCrashed
from ragworks.runtimes.processes import WorkerPool
from ragworks.types import ReadDocument, Stage, Task
from ragworks.workers.reading import PooledReader


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    async with WorkerPool(1) as pool:
        yield pool


def reader(pool: WorkerPool, **limits: Any) -> PooledReader:
    settings = {"tokenizer_path": lambda: None, "chunk_tokens": 64, "limit_s": 30.0, "max_memory_bytes": 2**31} | limits
    return PooledReader(pool, str, **settings)


def task(path: Path, name: str = "note.md", **more: Any) -> Task:
    return Task("t", "j", "default", name, name, str(path), 0, more.pop("title", None), {}, None, **more)


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note"
    path.write_text("# Bells\n\nThe bell costs nine euros.")
    return path


@pytest.fixture
def stuck(tmp_path: Path) -> Path:
    """A file that never ends and never begins: reading it blocks."""
    path = tmp_path / "stuck"
    os.mkfifo(path)
    return path


async def read(reading: PooledReader, document: Task) -> tuple[ReadDocument, list[Stage]]:
    stages: list[Stage] = []
    return await reading.read(document, stages.append), stages


async def test_a_document_is_read_in_four_stages(pool: WorkerPool, note: Path) -> None:
    document, stages = await read(reader(pool), task(note))
    assert stages == [Stage.PARSING, Stage.CLEANING, Stage.ENRICHING, Stage.CHUNKING]
    assert (document.title, document.media_type) == ("Bells", "text/markdown")
    assert [made.text for made in document.chunks] == ["# Bells\n\nThe bell costs nine euros."]


async def test_a_title_that_was_submitted_wins(pool: WorkerPool, note: Path) -> None:
    assert (await read(reader(pool), task(note, title="Price list")))[0].title == "Price list"


async def test_a_pdf_is_read_in_the_worker(pool: WorkerPool, tmp_path: Path) -> None:
    path = tmp_path / "terms"
    path.write_bytes(pdf([["Frames: ten years."], ["Batteries: two years."]]))
    document, _ = await read(reader(pool), task(path, "terms.pdf"))
    assert [(made.page, made.text) for made in document.chunks] == [
        (1, "Frames: ten years."),
        (2, "Batteries: two years."),
    ]


async def test_a_broken_document_costs_itself_and_not_its_worker(pool: WorkerPool, tmp_path: Path, note: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(CorruptDocument):
        await read(reader(pool), task(broken, "a.pdf"))
    assert (await read(reader(pool), task(note)))[0].chunks
    assert pool.stats()["started"] == 1


async def test_a_document_that_takes_too_long_is_given_up_and_the_next_is_read(
    pool: WorkerPool, stuck: Path, note: Path
) -> None:
    with pytest.raises(ReadTimeout):
        await read(reader(pool, limit_s=0.2), task(stuck))
    assert (await read(reader(pool), task(note)))[0].chunks


async def test_a_document_that_takes_too_much_memory_is_given_up_and_the_next_is_read(
    pool: WorkerPool, note: Path
) -> None:
    with pytest.raises(ReadMemoryExceeded):
        await read(reader(pool, max_memory_bytes=300 * 1024**2), task(Path("/dev/zero")))
    assert (await read(reader(pool), task(note)))[0].chunks


async def test_a_worker_killed_in_the_middle_is_a_transient_error_and_the_next_is_read(
    pool: WorkerPool, stuck: Path, note: Path
) -> None:
    def kill(_: Stage) -> None:
        os.kill(pool.pids()[0], signal.SIGKILL)

    with pytest.raises(WorkerCrashed) as caught:
        await reader(pool).read(task(stuck), kill)
    assert caught.value.transient
    assert (await read(reader(pool), task(note)))[0].chunks


async def test_cancelling_a_read_stops_the_work(pool: WorkerPool, stuck: Path, note: Path) -> None:
    begun = asyncio.Event()
    reading = asyncio.create_task(reader(pool).read(task(stuck), lambda _: begun.set()))
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert pool.pids() == []
    assert (await read(reader(pool), task(note)))[0].chunks
