"""One SQLite file: a writer thread, a few reader threads, and transactions as plain functions.

Every write is one ``BEGIN IMMEDIATE … COMMIT`` with ``synchronous=FULL``: when ``write`` returns, it is on disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from ragworks.errors import StorageFull
from ragworks.storage.folder import sync_folder
from ragworks.storage.migrations import migrate

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

BUSY_TIMEOUT_S = 30.0
READERS = 3


class Database:
    """Transactions over one file. ``open`` before use, ``close`` after; both block and belong in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []

    def open(self) -> None:
        """Create or migrate the file. Raises DataFolderNewer, StorageFull."""
        self._writer.submit(self._translated, lambda db: migrate(db)).result()
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Finish what runs, fold the log into the file, let go."""
        self._writer.submit(lambda: None).result()
        self._readers.shutdown()
        self._writer.shutdown()
        for connection in self._opened:
            connection.close()
        self._opened.clear()

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` in one durable transaction; nothing of it stays if it raises. Raises StorageFull."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._transact, work)

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` on one snapshot of the rows."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._snapshot, work)

    def _connection(self) -> sqlite3.Connection:
        made: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if made is None:
            # Each thread keeps its own connection; close() runs after the threads are gone.
            made = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            made.row_factory = sqlite3.Row
            made.execute("PRAGMA journal_mode=WAL")
            made.execute("PRAGMA synchronous=FULL")
            made.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
            self._local.connection = made
            self._opened.append(made)
        return made

    def _translated(self, work: Work[T]) -> T:
        try:
            return work(self._connection())
        except sqlite3.OperationalError as error:
            if any(sign in str(error) for sign in ("disk is full", "readonly", "disk I/O", "unable to open")):
                raise StorageFull(
                    f"cannot write to {self.path.parent}: {error}; free space or make it writable"
                ) from error
            raise

    def _transact(self, work: Work[T]) -> T:
        def transaction(db: sqlite3.Connection) -> T:
            db.execute("BEGIN IMMEDIATE")
            try:
                result = work(db)
                db.execute("COMMIT")
            except BaseException:  # whatever went wrong, the transaction must not stay open
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return result

        return self._translated(transaction)

    def _snapshot(self, work: Work[T]) -> T:
        def snapshot(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            try:
                return work(db)
            finally:
                db.execute("COMMIT")

        return self._translated(snapshot)


def integrity(path: Path) -> list[str]:
    """What SQLite itself finds wrong with a file; empty when it is sound."""
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as db:
        return [row[0] for row in db.execute("PRAGMA quick_check") if row[0] != "ok"]
