"""Events in trouble: a process that is killed costs none that was kept, and a full disk costs events, not service."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from contract.test_event_logs import an_event
from faults.test_disk import no_room
from ragworks.app import App, build
from ragworks.control.events import Journal
from ragworks.errors import StorageFull
from ragworks.policies.replaying import asked_again
from ragworks.settings import EventSettings, load
from ragworks.storage.events import SqliteEvents
from ragworks.testing import FakeClock, until
from ragworks.types import Upload

HERE = Path(__file__).parent
KILLS = 3


async def killed_after(path: Path, appends: int) -> int:
    """The last id that a process had kept when it was killed."""
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "appending.py"), str(path), stdout=asyncio.subprocess.PIPE, env=found
    )
    assert process.stdout
    lines = [await process.stdout.readline() for _ in range(appends)]
    process.kill()
    rest, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    return int((b"".join(lines) + rest.rpartition(b"\n")[0]).split()[-1])


def opened(path: Path, **settings: float) -> SqliteEvents:
    log = SqliteEvents(path, EventSettings(**{"keep_s": 1e12, **settings}), FakeClock())  # type: ignore[arg-type]
    log.open()
    return log


async def test_a_process_that_is_killed_while_it_appends_costs_nothing_that_was_kept(tmp_path: Path) -> None:
    path, last = tmp_path / "events.db", 0
    for kill in range(KILLS):
        kept = await killed_after(path, 20 + 7 * kill)
        assert kept > last
        log = opened(path)
        ids = [event.id for event in await log.recent()]
        assert ids == list(range(ids[0], ids[0] + len(ids)))  # whole batches, nothing by half
        assert ids[-1] >= kept
        await log.append([an_event()])
        last = (await log.recent(limit=1))[0].id
        assert last > ids[-1]
        log.close()
    assert not path.with_name("events.db.damaged").exists()


async def test_a_full_disk_refuses_events_and_takes_them_again_when_there_is_room(tmp_path: Path) -> None:
    log = opened(tmp_path / "events.db")
    await log.append([an_event("before")])
    with no_room(), pytest.raises(StorageFull):
        await log.append([an_event("lost")])
    await log.append([an_event("after")])
    assert [event.reason for event in await log.recent()] == ["before", "after"]
    log.close()


async def test_a_journal_on_a_full_disk_says_it_once_and_keeps_what_waited(tmp_path: Path) -> None:
    log, clock = opened(tmp_path / "events.db"), FakeClock()
    with capture_logs() as logged:
        async with Journal(log, clock) as journal:
            with no_room():
                for n in range(3):
                    journal.for_service("vector_store")("scaled", reason=f"r{n}")
                    await journal.flush()
            assert [event.reason for event in await journal.recent()] == ["r0", "r1", "r2"]
    assert [line["action"] for line in logged].count("events_not_kept") == 1
    log.close()


def app(data: Path, **embeddings: object) -> App:
    given = {"model_name": "hashing", **embeddings}
    return build(load(environ={}, server={"data": str(data)}, embeddings_service=given))


async def test_a_server_serves_though_it_can_keep_no_events(tmp_path: Path) -> None:
    (tmp_path / "data" / "events.db").mkdir(parents=True)
    with capture_logs() as logged:
        async with app(tmp_path / "data") as served:
            served.journal.for_service("vector_store")("scaled", reason="whatever")
            upload = Upload("a", "a", b"brass bells")
            job = (await served.document_processor.process_documents("default", [upload])).processing_job_id
            assert (await served.document_processor.finished(job)).status == "completed"
            await until(lambda: any(line.get("action") == "events_not_kept" for line in logged))


async def test_what_became_of_a_killed_replica_is_told_and_decided_again_also_after_a_restart(tmp_path: Path) -> None:
    async with app(tmp_path / "data", replicas={"runtime": "process"}) as served:
        services = {report.name: report for report in await served.orchestrator.services()}
        [replica] = services["embeddings_service"].replicas
        os.kill(replica.pid or 0, signal.SIGKILL)
        with capture_logs() as logged:
            await until(lambda: any(line.get("action") == "replica_restarts" for line in logged))
    async with app(tmp_path / "data") as served:
        events = await served.journal.recent(service="embeddings_service")
    ended = next(event for event in events if event.action == "replica_ended")
    restarts = next(event for event in events if event.action == "replica_restarts")
    assert (ended.replica, restarts.replica) == (replica.id, replica.id)
    assert "SIGKILL" in ended.reason
    assert asked_again(restarts.policy, restarts.inputs, restarts.decision).same is True


async def test_a_folder_of_an_older_ragworks_has_no_events_and_gets_them(tmp_path: Path) -> None:
    async with app(tmp_path / "data"):
        pass
    for file in (tmp_path / "data").glob("events.db*"):
        file.unlink()
    async with app(tmp_path / "data") as served:
        served.journal.for_service("vector_store")("scaled", reason="whatever")
        assert [event.reason for event in await served.journal.recent(service="vector_store")][-1:] == ["whatever"]
        assert (await served.vector_store.checkup()).healthy
