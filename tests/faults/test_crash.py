"""The crash contract: what was accepted is there after a kill -9, and nothing is ever there by half."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from faults.dying import GARBAGE, ID, MIGRATION, NEW, OLD, POINTS, settings
from ragworks.app import App, build
from ragworks.storage import migrations
from ragworks.storage.blobs import FileBlobs
from ragworks.storage.folder import DataFolder
from ragworks.types import Checkup, Upload
from stores import Opened, publish

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def with_old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the old version of the document is indexed."""
    data = tmp_path_factory.mktemp("with-old") / "data"

    async def ingest() -> None:
        async with build(settings(str(data))) as app:
            upload = Upload(ID, ID, OLD.encode(), media_type="text/plain")
            receipt = await app.document_processor.process_documents("default", [upload])
            await app.document_processor.finished(receipt.processing_job_id)

    asyncio.run(ingest())
    return data


@pytest.fixture
def data(with_old: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_old, tmp_path / "data"))


async def killed(data: Path, point: str) -> str:
    """What a process printed before it killed itself at the point."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "dying.py"), str(data), point, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL, f"the process was to die {point}, it ended with {process.returncode}"
    return out.decode()


async def restarted(data: Path) -> tuple[str | None, Checkup]:
    """What the document holds, and a checkup, once a new process has ended what the dead one left."""
    async with build(settings(str(data))) as app:
        for job in (await app.document_processor.jobs(100, None)).data:
            await app.document_processor.finished(job.id)
        check = await app.vector_store.checkup()
        return await shown(app), check


async def shown(app: App) -> str | None:
    """The text of the document, if all searches agree that it is there."""
    documents = (await app.vector_store.documents("default", 100, None)).data
    found = {
        hit.text for word in ("bells", "wires") for hit in (await app.retrieval_service.search("default", word)).hits
    }
    text = await app.vector_store.text("default", ID) if documents else None
    assert bool(found) == bool(text)
    assert all(text is not None and one in text for one in found)
    return text


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", POINTS)
async def test_after_a_kill_what_was_acknowledged_is_there_and_nothing_by_half(data: Path, point: str) -> None:
    said = await killed(data, point)
    text, check = await restarted(data)
    assert check.problems == ()
    if POINTS[point].action != "replace" and not POINTS[point].promised:
        assert (text, check.documents, check.blobs) == (OLD, 1, 1)
    elif POINTS[point].action != "replace":
        assert (text, check.documents, check.chunks, check.blobs) == (None, 0, 0, 0)
    elif "accepted" in said:
        assert (text, check.documents, check.blobs) == (NEW, 1, 1)
    else:
        assert text in (OLD, NEW)
        assert (check.documents, check.blobs) == (1, 1)
    assert ("accepted" in said) == (POINTS[point].promised and POINTS[point].action == "replace")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", GARBAGE)
async def test_a_kill_during_recovery_only_makes_the_next_start_recover(data: Path, point: str) -> None:
    """What a dead server had staged used to stay until the start after the next, and doctor complained."""
    await killed(data, GARBAGE[point].after)
    await killed(data, point)
    text, check = await restarted(data)
    assert (text, check.documents, check.blobs, check.problems) == (NEW, 1, 1, ())


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the first format, whose server died after it had accepted the document."""
    folder = DataFolder(str(tmp_path / "data"))
    folder.open()
    content_hash, size = FileBlobs(folder.blobs).put(NEW.encode())
    with monkeypatch.context() as older, closing(sqlite3.connect(folder.database)) as db:
        older.setattr(migrations, "STEPS", migrations.STEPS[:1])
        db.isolation_level = None
        migrations.migrate(db)
        db.execute("INSERT INTO jobs (id, collection, created_at) VALUES ('job', 'default', 0)")
        db.execute(
            "INSERT INTO tasks (id, job_id, collection, document_id, name, content_hash, size_bytes, metadata, "
            "media_type, state) VALUES ('task', 'job', 'default', ?, ?, ?, ?, '{}', 'text/plain', 'in_progress')",
            (ID, ID, content_hash, size),
        )
    folder.close()
    return folder.path


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", MIGRATION)
async def test_a_kill_during_a_migration_only_makes_the_next_start_migrate(former: Path, point: str) -> None:
    await killed(former, point)
    text, check = await restarted(former)
    assert (text, check.documents, check.blobs, check.problems) == (NEW, 1, 1, ())


async def test_a_checkup_while_documents_come_in_tells_what_is_wrong_from_what_is_on_its_way(
    storage: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look may miss another file that is being replaced; by number alone that looked like one lost document."""
    for name in ("a", "b", "c", "d", "e"):
        await publish(storage, name, f"text of {name}")
    kept, looks = sorted(storage.blobs.hashes()), itertools.count()
    monkeypatch.setattr(storage.blobs, "hashes", lambda: set(kept) - {kept[next(looks) % len(kept)]})
    assert (await storage.store.checkup()).problems == ()
    monkeypatch.setattr(storage.blobs, "hashes", lambda: set(kept) - {kept[0]})
    assert (await storage.store.checkup()).problems == ("the original bytes of 1 documents are missing",)


async def test_bytes_whose_row_is_about_to_be_committed_are_no_strays(storage: Opened) -> None:
    content_hash, _ = storage.blobs.put(b"on their way")
    assert (await storage.store.checkup()).problems == ()
    storage.blobs.unpin([content_hash])
    assert (await storage.store.checkup()).problems == ("1 files below blobs/ belong to no document",)


@pytest.mark.timeout(240)
async def test_random_kills_of_a_server_lose_double_and_orphan_nothing() -> None:
    """The benchmark behind the published count, at a size for every commit."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ragworks", "bench", "crash", "--kills", "12", "--documents", "60", "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert out, err.decode()
    found = json.loads(out)
    assert not any(found["faults"].values()), found
    assert found["counts"]["kills"] == 12
    assert process.returncode == 0
