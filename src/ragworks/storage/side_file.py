"""A SQLite file beside the database: what is written there never queues behind, or in front of, what 202 promises.

Commits are not synced one by one: a power cut may cost the last rows, never the file; a killed process costs none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import structlog

from ragworks.errors import DataFolderDamaged, DataFolderNewer, NotReady, StorageFull
from ragworks.storage.sqlite import translation

log = structlog.get_logger("ragworks.storage")

T = TypeVar("T")

BUSY_TIMEOUT_S = 5.0


class SideFile:
    """One table in one file: ``open`` before writing, ``close`` after; both block.

    ``name`` is that of its table and of ``{name}.sql``, which makes it; ``pragmas`` are set on the connection.
    """

    def __init__(self, path: Path, name: str, file_format: int, *pragmas: str) -> None:
        self.path = path
        self._name, self._format, self._pragmas = name, file_format, pragmas
        # One thread and one connection: rows are few, and their order is that of their ids.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
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

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """``work`` in a transaction of its own. Raises StorageFull, DataFolderDamaged, NotReady once it is closed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)

    async def checkpoint(self) -> None:
        """Empty the log beside the file, which may hold what was deleted since."""

        def work() -> None:
            if self._db is not None:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def forget(self, db: sqlite3.Connection, before: float, keep: int, max_bytes: int) -> None:
        """What is too old, or too much."""
        name = self._name
        db.execute(f"DELETE FROM {name} WHERE at < ?", (before,))
        db.execute(f"DELETE FROM {name} WHERE id <= (SELECT max(id) FROM {name}) - ?", (keep,))
        pages, free, size = (
            db.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > max_bytes:  # the file keeps its size; what is freed is used again
            db.execute(f"DELETE FROM {name} WHERE id <= (SELECT (min(id) + max(id)) / 2 FROM {name})")

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise NotReady(f"the {self._name} of {self.path.parent} are closed")
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
            with contextlib.suppress(OSError):  # what cannot be moved stays, and rows are not kept
                os.replace(self.path, aside)
                for rest in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + rest).unlink(missing_ok=True)
            log.error(f"{self._name}_damaged", action=f"{self._name}_damaged", error=str(error), kept_as=str(aside))

    def _opened(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = None
        try:
            db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            for pragma in self._pragmas:
                db.execute(f"PRAGMA {pragma}")
            found: int = db.execute("PRAGMA user_version").fetchone()[0]
            if found > self._format:
                raise DataFolderNewer(
                    f"{self.path} has format {found}, this ragworks knows up to {self._format}: "
                    "install the newer ragworks"
                )
            if found < self._format:
                self._create(db)
        except BaseException as error:
            if db is not None:
                db.close()
            raise (translation(error, self.path) if isinstance(error, sqlite3.Error) else error) from error
        return db

    def _close(self) -> None:
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _create(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        for statement in (
            files("ragworks.storage").joinpath(f"{self._name}.sql").read_text(encoding="utf-8").split(";\n")
        ):
            db.execute(statement)
        db.execute(f"PRAGMA user_version={self._format}")
        db.execute("COMMIT")


def _prove(db: sqlite3.Connection) -> None:
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"malformed: {found}")
