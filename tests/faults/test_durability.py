"""A power cut after the acknowledgement takes nothing: every byte, name and row was synced before it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ragworks.errors import EmptyDocument
from ragworks.protocols import OnStage
from ragworks.services.document_processor import DocumentProcessor
from ragworks.settings import EmbeddingsSettings, ProcessorSettings
from ragworks.storage.blobs import FileBlobs
from ragworks.storage.folder import DataFolder
from ragworks.testing import LocalEmbeddings, ScriptedModel
from ragworks.types import ReadDocument, Task, Upload
from stores import Opened, opened

Synced = list[object]
"""What became durable, in order: paths' (device, inode) of each fsync, and each SQL statement of the writer."""


class Unreadable:
    """A Reader that finds every document empty: what happens after acceptance is no matter here."""

    @asynccontextmanager
    async def read(self, task: Task, on_stage: OnStage) -> AsyncIterator[ReadDocument]:
        raise EmptyDocument("nothing in it")
        yield


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """Every os.fsync from here on, by what it was called for."""
    record: Synced = []
    really = os.fsync

    def fsync(handle: Any) -> None:
        really(handle)
        record.append(identity(os.fstat(handle if isinstance(handle, int) else handle.fileno())))

    monkeypatch.setattr(os, "fsync", fsync)
    return record


def identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def of(path: Path) -> tuple[int, int]:
    return identity(path.stat())


@asynccontextmanager
async def processing(path: Path) -> AsyncIterator[tuple[Opened, DocumentProcessor]]:
    async with opened(path) as at:
        embedder = LocalEmbeddings(EmbeddingsSettings(), ScriptedModel, at.store, at.clock)
        processor = DocumentProcessor(
            ProcessorSettings(),
            queue=at.jobs,
            blobs=at.blobs,
            reader=Unreadable(),
            embedder=embedder,
            store=at.store,
            clock=at.clock,
            rng=Random(0),
        )
        await processor.initialize()
        try:
            yield at, processor
        finally:
            await processor.shutdown()


async def test_bytes_names_and_rows_are_on_disk_before_a_submission_is_acknowledged(
    tmp_path: Path, synced: Synced
) -> None:
    async with processing(tmp_path / "data") as (at, processor):
        # The writer has one connection; it tells each statement as it begins.
        await at.database.write(lambda db: db.set_trace_callback(synced.append))
        await processor.process_documents("default", [Upload("a", "a", b"the bytes")])
        until_now = list(synced)
        file = next(at.folder.blobs.glob("??/*"))
        insert = next(n for n, one in enumerate(until_now) if isinstance(one, str) and "INSERT INTO tasks" in one)
        order = [
            until_now.index(of(at.folder.blobs)),
            until_now.index(of(file.parent)),
            insert,
            until_now.index("COMMIT", insert),
        ]
        assert of(file) in until_now[: order[1]]
        assert order == sorted(order)


async def test_a_commit_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    """SQLite syncs the log at each commit with synchronous=FULL (2), with NORMAL (1) only now and then."""
    async with opened(tmp_path / "data") as at:
        pragmas = [
            await at.database.write(lambda db, name=name: db.execute(f"PRAGMA {name}").fetchone()[0])  # type: ignore[misc]
            for name in ("journal_mode", "synchronous")
        ]
    assert pragmas == ["wal", 2]


def test_a_new_data_folder_is_on_disk_with_its_name_and_all_that_it_holds(tmp_path: Path, synced: Synced) -> None:
    folder = DataFolder(str(tmp_path / "data"))
    folder.open()
    folder.close()
    assert {of(tmp_path / "data"), of(tmp_path)} <= set(synced)


def test_a_folder_that_a_dead_server_left_is_synced_before_it_is_trusted(tmp_path: Path, synced: Synced) -> None:
    """It used to count as durable when it was there; the server that made it may have died before it synced."""
    blobs = FileBlobs(tmp_path)
    blobs.put(b"the bytes")
    synced.clear()
    FileBlobs(tmp_path).put(b"the bytes")
    assert of(tmp_path) in synced
    synced.clear()
    blobs.put(b"the bytes")
    assert of(tmp_path) not in synced
