"""The file of the events: what it survives, and what bounds it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from contract.test_event_logs import an_event
from ragworks.errors import DataFolderNewer, NotReady
from ragworks.settings import EventSettings
from ragworks.storage.events import FORMAT, SqliteEvents
from ragworks.testing import FakeClock


@contextmanager
def opened(path: Path, clock: FakeClock | None = None, **settings: float) -> Iterator[SqliteEvents]:
    log = SqliteEvents(path / "events.db", EventSettings(**settings), clock or FakeClock())  # type: ignore[arg-type]
    log.open()
    try:
        yield log
    finally:
        log.close()


async def test_events_survive_a_restart_and_ids_go_on(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        await log.append([an_event("before")])
    with opened(tmp_path) as log:
        await log.append([an_event("after")])
        before, after = await log.recent()
    assert (before.reason, after.reason) == ("before", "after")
    assert after.id > before.id


async def test_ids_go_on_even_when_everything_was_forgotten(tmp_path: Path) -> None:
    clock = FakeClock()
    with opened(tmp_path, clock, keep_s=10) as log:
        await log.append([an_event(at=clock.now())])
        [first] = await log.recent()
        await clock.advance(11)
        await log.append([])
        assert await log.recent() == []
    with opened(tmp_path, clock) as log:
        await log.append([an_event()])
        assert (await log.recent())[0].id > first.id


async def test_what_is_too_old_goes(tmp_path: Path) -> None:
    clock = FakeClock()
    with opened(tmp_path, clock, keep_s=100) as log:
        await log.append([an_event("old", at=clock.now())])
        await clock.advance(101)
        await log.append([an_event("new", at=clock.now())])
        assert [event.reason for event in await log.recent()] == ["new"]


async def test_the_file_stays_within_its_bytes_whatever_events_hold(tmp_path: Path) -> None:
    large = replace(an_event(), inputs={"text": "x" * 50_000})
    with opened(tmp_path, max_bytes=1024**2) as log:
        for _ in range(100):
            await log.append([large])
        assert 2 <= len(await log.recent()) <= 20
    # Half of them go when they take too much, so there is never more than that and one batch.
    assert (tmp_path / "events.db").stat().st_size < 1.3 * 1024**2


async def test_a_damaged_file_is_put_aside_and_the_next_one_begun(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"this is no database" * 100)
    with opened(tmp_path) as log:
        await log.append([an_event()])
        assert len(await log.recent()) == 1
    assert (tmp_path / "events.db.damaged").read_bytes().startswith(b"this is no database")


async def test_damage_in_the_middle_of_the_file_is_found_at_the_start(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        await log.append([replace(an_event(f"r{n}"), inputs={"text": "x" * 3000}) for n in range(50)])
    content = bytearray((tmp_path / "events.db").read_bytes())
    content[8192:40_000] = b"\xff" * (40_000 - 8192)
    (tmp_path / "events.db").write_bytes(content)
    with opened(tmp_path) as log:
        assert await log.recent() == []
    assert (tmp_path / "events.db.damaged").exists()


async def test_a_file_of_a_newer_ragworks_is_refused_and_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        await log.append([an_event()])
    with sqlite3.connect(tmp_path / "events.db") as db:
        db.execute(f"PRAGMA user_version={FORMAT + 1}")
    db.close()
    log = SqliteEvents(tmp_path / "events.db", EventSettings(), FakeClock())
    with pytest.raises(DataFolderNewer, match="install the newer ragworks"):
        log.open()
    log.close()


async def test_a_log_that_is_closed_says_so(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        pass
    with pytest.raises((NotReady, RuntimeError)):
        await log.append([an_event()])
