"""Events in a SQLite file of their own, so that they never queue behind, or in front of, what 202 promises.

Commits are not synced one by one: a power cut may cost the last events, never the file; a killed process costs none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import structlog

from ragworks.control_protocols import Event
from ragworks.errors import DataFolderDamaged, DataFolderNewer, NotReady, StorageFull
from ragworks.protocols import Clock
from ragworks.settings import EventSettings
from ragworks.storage.sqlite import translation

log = structlog.get_logger("ragworks.events")

T = TypeVar("T")

FORMAT = 1
BUSY_TIMEOUT_S = 5.0
COLUMNS = "at, action, service, replica, policy, inputs, decision, reason, count"


class SqliteEvents:
    """An EventLog (control_protocols) in one file. ``open`` before writing, ``close`` after; both block."""

    def __init__(self, path: Path, settings: EventSettings, clock: Clock) -> None:
        self.path = path
        self._settings, self._clock = settings, clock
        # One thread and one connection: events are few, and their order is that of their ids.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._db: sqlite3.Connection | None = None
        self._closed = False

    def open(self) -> None:
        """Create the file if there is none. Raises DataFolderNewer.

        One that is damaged is put aside and begun anew, and while the disk is full there is none: what happened is
        worth less than what goes on.
        """
        self._thread.submit(self._open).result()

    def close(self) -> None:
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    async def append(self, events: Sequence[Event]) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, events))
            self._forget(db)

        await self._run(work)

    async def recent(
        self, *, service: str | None = None, since: float = 0.0, after: int | None = None, limit: int = 100
    ) -> Sequence[Event]:
        def work(db: sqlite3.Connection) -> list[Event]:
            rows = db.execute(
                f"SELECT id, {COLUMNS} FROM events WHERE at >= ? AND id > ? AND (? IS NULL OR service = ?) "
                f"ORDER BY id {'DESC' if after is None else 'ASC'} LIMIT ?",
                (since, after or 0, service, service, limit),
            )
            return sorted((_event(row) for row in rows), key=lambda event: event.id)

        return await self._run(work)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise NotReady(f"the events of {self.path.parent} are closed")
        db = self._db = self._db or self._opened()
        try:
            db.execute("BEGIN")
            result = work(db)
            db.execute("COMMIT")
        except BaseException as error:  # whatever went wrong, the transaction must not stay open
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise translation(error, self.path) from error
            raise
        return result

    def _open(self) -> None:
        try:
            with contextlib.suppress(StorageFull):  # the next write tries again
                self._transaction(_prove)
        except DataFolderDamaged as error:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            self._let_go()
            with contextlib.suppress(OSError):  # what cannot be moved stays, and events are not kept
                os.replace(self.path, aside)
                for rest in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + rest).unlink(missing_ok=True)
            log.error("events_damaged", action="events_damaged", error=str(error), kept_as=str(aside))

    def _opened(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = None
        try:
            db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            found: int = db.execute("PRAGMA user_version").fetchone()[0]
            if found > FORMAT:
                raise DataFolderNewer(
                    f"{self.path} has format {found}, this ragworks knows up to {FORMAT}: install the newer ragworks"
                )
            if found < FORMAT:
                _create(db)
        except BaseException as error:
            if db is not None:
                db.close()
            raise (translation(error, self.path) if isinstance(error, sqlite3.Error) else error) from error
        return db

    def _forget(self, db: sqlite3.Connection) -> None:
        """What is too old, or too much."""
        settings = self._settings
        db.execute("DELETE FROM events WHERE at < ?", (self._clock.now() - settings.keep_s,))
        db.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (settings.keep,))
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > settings.max_bytes:  # the file keeps its size; what is freed is used again
            db.execute("DELETE FROM events WHERE id <= (SELECT (min(id) + max(id)) / 2 FROM events)")

    def _close(self) -> None:
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()


def _prove(db: sqlite3.Connection) -> None:
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"malformed: {found}")


def _create(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    for statement in files("ragworks.storage").joinpath("events.sql").read_text(encoding="utf-8").split(";\n"):
        db.execute(statement)
    db.execute(f"PRAGMA user_version={FORMAT}")
    db.execute("COMMIT")


def _row(event: Event) -> tuple[object, ...]:
    # Not sorted: the order of a mapping may be what a policy decided by.
    inputs, decision = (json.dumps(one, ensure_ascii=False) for one in (event.inputs, event.decision))
    return (
        event.at, event.action, event.service, event.replica, event.policy, inputs, decision, event.reason, event.count,
    )  # fmt: skip


def _event(row: sqlite3.Row) -> Event:
    return Event(**{**row, "inputs": json.loads(row["inputs"]), "decision": json.loads(row["decision"])})
