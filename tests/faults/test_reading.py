"""What a bad document does to the reader: it costs itself, and the next one is read."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from documents import pdf
from ragworks.errors import CorruptDocument, ReadMemoryExceeded, ReadTimeout, WorkerCrashed
from ragworks.protocols import OnStage
from ragworks.runtimes.processes import WorkerPool
from ragworks.types import Chunk, ReadDocument, Stage, Task
from ragworks.workers.reading import PooledReader, ReadLimits


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    async with WorkerPool(1) as pool:
        yield pool


@pytest.fixture
def spools(tmp_path: Path) -> Path:
    folder = tmp_path / "spools"
    folder.mkdir()
    return folder


Read = Callable[..., Awaitable[tuple[ReadDocument, list[Stage], list[Chunk]]]]


@pytest.fixture
def read(pool: WorkerPool, spools: Path) -> Read:
    """Reads a task's document to the end: what it is, its stages, its chunks. Nothing may stay behind."""

    async def run(
        document: Task, *, base_s: float = 30.0, memory_bytes: int = 2**31, on_stage: OnStage = lambda stage: None
    ) -> tuple[ReadDocument, list[Stage], list[Chunk]]:
        stages: list[Stage] = []

        def entered(stage: Stage) -> None:
            stages.append(stage)
            on_stage(stage)

        limits = ReadLimits(base_s, 0.0, memory_bytes)
        reader = PooledReader(
            pool, str, tokenizer_path=lambda: None, chunk_tokens=64, limits=limits, spool_folder=spools
        )
        try:
            async with reader.read(document, entered) as found:
                return found, stages, [chunk for part in found.parts for chunk in part.chunks]
        finally:
            assert os.listdir(spools) == []

    return run


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


async def test_a_document_is_read_in_four_stages(read: Read, note: Path) -> None:
    document, stages, chunks = await read(task(note))
    assert stages == [Stage.PARSING, Stage.CLEANING, Stage.ENRICHING, Stage.CHUNKING]
    assert (document.title, document.media_type) == ("Bells", "text/markdown")
    assert [made.text for made in chunks] == ["# Bells\n\nThe bell costs nine euros."]


async def test_a_title_that_was_submitted_wins(read: Read, note: Path) -> None:
    assert (await read(task(note, title="Price list")))[0].title == "Price list"


async def test_a_title_that_is_the_files_name_is_shown_and_not_embedded(read: Read, tmp_path: Path) -> None:
    """Vectors that depend on the name would have to be made again when a file is renamed."""
    plain = tmp_path / "plain"
    plain.write_text("The bell costs nine euros.")
    document, _, chunks = await read(task(plain, "price_list.txt"))
    assert (document.title, document.title_from, document.embedded_title) == ("price list", "name", "")
    assert [chunk.prefix for chunk in chunks] == [""]


async def test_a_pdf_is_read_in_the_worker(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "terms"
    path.write_bytes(pdf([["Frames: ten years."], ["Batteries: two years."]]))
    _, _, chunks = await read(task(path, "terms.pdf"))
    assert [(made.page, made.text) for made in chunks] == [
        (1, "Frames: ten years."),
        (2, "Batteries: two years."),
    ]


async def test_a_broken_document_costs_itself_and_not_its_worker(
    pool: WorkerPool, read: Read, tmp_path: Path, note: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(CorruptDocument):
        await read(task(broken, "a.pdf"))
    assert (await read(task(note)))[2]
    assert pool.stats()["started"] == 1


async def test_a_document_that_takes_too_long_is_given_up_and_the_next_is_read(
    pool: WorkerPool, read: Read, stuck: Path, note: Path
) -> None:
    with pytest.raises(ReadTimeout):
        await read(task(stuck), base_s=0.2)
    assert (await read(task(note)))[2]


async def test_a_document_that_takes_too_much_memory_is_given_up_and_the_next_is_read(read: Read, note: Path) -> None:
    with pytest.raises(ReadMemoryExceeded):
        await read(task(Path("/dev/zero")), memory_bytes=300 * 1024**2)
    assert (await read(task(note)))[2]


async def test_a_worker_killed_in_the_middle_is_a_transient_error_and_the_next_is_read(
    pool: WorkerPool, read: Read, stuck: Path, note: Path
) -> None:
    def kill(_: Stage) -> None:
        os.kill(pool.pids()[0], signal.SIGKILL)

    with pytest.raises(WorkerCrashed) as caught:
        await read(task(stuck), on_stage=kill)
    assert caught.value.transient
    assert (await read(task(note)))[2]


async def test_cancelling_a_read_stops_the_work(pool: WorkerPool, read: Read, stuck: Path, note: Path) -> None:
    begun = asyncio.Event()
    reading = asyncio.create_task(read(task(stuck), on_stage=lambda _: begun.set()))
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert pool.pids() == []
    assert (await read(task(note)))[2]
